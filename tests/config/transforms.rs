//! Subject transforms against those of a running nats-server.

use crate::agreement::nats_server;
use sedge::subject::transform::{Purpose, Transform};
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Behind the last token of a source with two wildcards, and what they stand for.
const CASES: &[(&str, &str)] = &[
    ("$2.$1", "a.b"),
    ("{{wildcard(2)}}.x.{{Wildcard( 1 )}}", "a.b"),
    ("$0.$1x.x$1.$", "a.b"),
    ("{{}}.{{.}}.{{{wildcard(1)}}}", "a.b"),
    ("{{partition(10,1)}}", "hello.b"),
    ("{{partition(10,1,2)}}", "abc.def"),
    ("{{partition(5,2,1)}}", "a.b"),
    ("{{ Partition ( 1000 ) }}", "a.b"),
    ("{{partition(0,1)}}.{{partition(-1,1)}}", "abc.b"),
    ("{{random(0)}}.{{random(1)}}.{{random(-1)}}", "a.b"),
    ("{{split(1,-)}}", "-abc-def--ghi-.b"),
    ("{{split(2,ab)}}.{{split(1,)}}", "a-c.xxabyyab"),
    ("{{split(1,()}}.{{split(2,))}}", "a(b.a)b"),
    ("{{splitfromleft(1,3)}}.{{SplitFromLeft(2,9)}}", "abcdefg.abc"),
    ("{{splitfromleft(1,0)}}.{{splitfromleft(2,-1)}}", "abc.def"),
    ("{{splitfromright(1,3)}}.{{splitFromRight(2,3)}}", "abcdefg.abc"),
    ("{{splitfromright(1,0)}}.{{splitfromright(2,-1)}}", "abc.def"),
    ("{{slicefromleft(1,2)}}.{{slicefromleft(2,3)}}", "abcdefg.abc"),
    ("{{slicefromleft(1,0)}}.{{slicefromleft(2,-1)}}", "abc.def"),
    ("{{slicefromright(1,2)}}.{{sliceFromRight(2,2)}}", "abcdefg.abcd"),
    ("{{slicefromright(1,0)}}.{{slicefromright(2,9)}}", "abc.def"),
    ("{{left(1,2)}}.{{right(2,2)}}", "abcdefg.abcdefg"),
    ("{{left(1,0)}}.{{right(2,-1)}}", "abc.def"),
    ("{{left(1,9)}}.{{right(2,9)}}", "abc.def"),
    ("gone", "a.b"),
];

#[test]
fn every_function_gives_the_subject_that_nats_server_gives() {
    let Some(server) = nats_server() else { return };
    let directory = tempfile::tempdir().unwrap();
    let conf = directory.path().join("m.conf");
    let mut text = "mappings {\n".to_owned();
    for (index, (destination, _)) in CASES.iter().enumerate() {
        writeln!(text, "  \"from{index}.*.*\": \"to{index}.{destination}\"").unwrap();
    }
    text.push_str("  \"rest.*.>\": \"new.$1.>\"\n");
    text.push_str("  plain.one: \"one.{{partition(1000)}}.{{partition(7,1)}}\"\n}\n");
    std::fs::write(&conf, text).unwrap();
    let mut process = Command::new(server)
        .args(["-a", "127.0.0.1", "-p", "-1", "-c"])
        .arg(&conf)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut address = None;
    // Ends when the server is ready or gone.
    for line in BufReader::new(process.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some((_, found)) = line.split_once("client connections on ") {
            address = Some(found.to_owned());
        }
        if line.ends_with("Server is ready") {
            break;
        }
    }
    let stream = TcpStream::connect(address.unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut stream = stream;
    stream.write_all(b"CONNECT {\"verbose\":false}\r\nSUB > 1\r\n").unwrap();
    let mut cases: Vec<(String, String, String)> = CASES
        .iter()
        .enumerate()
        .map(|(index, (destination, values))| {
            (
                format!("from{index}.*.*"),
                format!("to{index}.{destination}"),
                format!("from{index}.{values}"),
            )
        })
        .collect();
    cases.push(("rest.*.>".into(), "new.$1.>".into(), "rest.a.b.c".into()));
    for (source, destination, subject) in &cases {
        write!(stream, "PUB {subject} 0\r\n\r\n").unwrap();
        let theirs = loop {
            let line = lines.next().unwrap().unwrap();
            if let Some(rest) = line.strip_prefix("MSG ") {
                break rest.split(' ').next().unwrap().to_owned();
            }
        };
        let transform = Transform::new(source, destination, Purpose::Mapping).unwrap();
        let mut ours = Vec::new();
        assert!(transform.apply(subject.as_bytes(), |_| 0, &mut ours), "{source}");
        assert_eq!(String::from_utf8(ours).unwrap(), theirs, "{subject} by {destination}");
    }
    process.kill().unwrap();
    process.wait().unwrap();
}
