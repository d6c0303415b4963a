//! Secrets: what clients sign in with is in no log, no trace, no page and no error.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::raw_client::{DEADLINE, RawClient};
use crate::server::Server;

/// In every secret of this test, and in nothing else.
const MARK: &str = "hush-hush";

fn page(server: &Server, path: &str) -> String {
    let address = server.listener("Starting http monitor on ").expect("it monitors");
    let mut socket = TcpStream::connect(address).expect("it listens");
    socket.set_read_timeout(Some(DEADLINE)).expect("a socket");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("in time");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    answer
}

#[test]
fn no_secret_shows_in_log_trace_pages_and_errors() {
    let server = Server::sedge(
        "http: \"127.0.0.1:-1\"\ndebug: true\ntrace: true\n
         authorization { users: [
           { user: a, password: \"hush-hush-a\" }
           { user: b, password: \"hush-hush-b\", permissions: { publish: \"some\" } } ] }",
    );
    let mut inside = RawClient::connect(server.address()).expect("it accepts");
    inside.expect("INFO ");
    inside.send("CONNECT {\"user\":\"a\",\"pass\":\"hush-hush-a\",\"verbose\":false}\r\n");
    inside.flush();
    let mut heard = String::new();
    for connect in [
        r#"CONNECT {"user":"a","pass":"hush-hush-wrong"}"#,
        r#"CONNECT {"user":"a","PASS":"hush-hush-wrong"}"#,
        r#"CONNECT {"user":"a","p\u0061ss":"hush-hush-wrong"}"#,
        r#"CONNECT {"pass":"hush-hush-1","user":"a","pass":"hush-hush-2"}"#,
        r#"CONNECT {"user":"a","pass" : "hush-hush \" hush-hush"}"#,
        r#"CONNECT {"user":"a","pass":"hush-hush}"#,
        r#"CONNECT {"user":"a","pass":["x","hush-hush"]}"#,
        r#"CONNECT {"user":"a","pass":{"x":"hush-hush"}}"#,
        r#"CONNECT {"auth_token":"hush-hush-t"}"#,
        r#"CONNECT {"Auth_Token":"hush-hush-t","jwt":"hush-hush-j"}"#,
        r#"CONNECT {"nkey":"UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK","sig":"hush-hush"}"#,
        r#"CONNECT {"proxy_sig":"hush-hush","user":"a"}"#,
        r#"CONNECT{"user":"a","pass":"hush-hush"} x"#,
        r#"connect {"user":"b","pass":"hush-hush-b"}"#,
    ] {
        let mut client = RawClient::connect(server.address()).expect("it accepts");
        client.expect("INFO ");
        client.send(format!("{connect}\r\nPUB other 1\r\nx\r\nSUB >.> 1\r\n-ERR 'over'\r\n"));
        for frame in client.expect_closed() {
            heard += &frame.line();
            heard.push('\n');
        }
    }
    assert!(!heard.contains(MARK), "{heard}");
    for path in
        ["/varz", "/connz?auth=1&subs=detail&state=all", "/accountz?acc=$G", "/subsz?subs=1"]
    {
        let page = page(&server, path);
        assert!(!page.contains(MARK), "{path}: {page}");
    }
    let log = server.log();
    let shown: Vec<&str> = log.lines().filter(|line| line.contains(MARK)).collect();
    assert_eq!(shown, Vec::<&str>::new());
    // The traces are there, without what they must not have.
    assert!(log.matches("[REDACTED]").count() >= 10, "{log}");
}
