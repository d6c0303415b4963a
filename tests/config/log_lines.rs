//! Our log lines against those of a running nats-server.

use crate::agreement::nats_server;
use sedge::config::JetStreamConfig;
use sedge::server::banner;
use sedge::server::log::{Log, LogOptions};
use sedge::time::Timestamp;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

/// Digits made equal, so that only the shape is left.
fn shape(line: &str) -> String {
    let mut shape = String::new();
    for c in line.chars() {
        let c = if c.is_ascii_digit() { '9' } else { c };
        // Process ids differ in length.
        if !(c == '9' && shape.ends_with("[9")) {
            shape.push(c);
        }
    }
    shape
}

#[test]
fn lines_that_harnesses_look_for_are_the_same_to_the_byte() {
    let Some(server) = nats_server() else { return };
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("js");
    let conf = directory.path().join("g.conf");
    let text = format!(
        "jetstream {{ store_dir: \"{}\", domain: gw, max_mem: 1GB, max_file: 10GB }}",
        store.display()
    );
    std::fs::write(&conf, text).unwrap();
    let mut process = Command::new(server)
        .args(["-a", "127.0.0.1", "-p", "-1", "-n", "gw", "-c"])
        .arg(&conf)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut theirs = Vec::new();
    // Ends when the server is ready or gone.
    for line in BufReader::new(process.stderr.take().unwrap()).lines() {
        theirs.push(line.unwrap());
        if theirs.last().is_some_and(|line| line.ends_with("Server is ready")) {
            break;
        }
    }
    process.kill().unwrap();
    process.wait().unwrap();

    let file = directory.path().join("x.log");
    let mut log = Log::open(LogOptions {
        file: Some(file.clone()),
        debug: false,
        trace: false,
        time: true,
        utc: false,
        size_limit: 0,
        files_kept: 0,
        syslog: None,
    })
    .unwrap();
    let config = JetStreamConfig {
        store_dir: store,
        domain: Some("gw".into()),
        ..JetStreamConfig::default()
    };
    let now = Timestamp(1_795_514_845_840_627_000);
    let mut lines = banner::starting("gw", "NID");
    lines.extend(banner::jetstream(&config, 1 << 30, 10 << 30));
    lines.push(banner::listening("127.0.0.1", 40_000));
    lines.push(banner::READY.to_owned());
    for line in &lines {
        log.info(now, line);
    }
    let ours = std::fs::read_to_string(&file).unwrap();
    let theirs: Vec<String> = theirs.iter().map(|line| shape(line)).collect();
    let only_ours = ["Starting sedge", "  Version:  ", "  ID:  ", "  Sync:  "];
    let mut compared = 0;
    for line in ours.lines() {
        if !only_ours.iter().any(|own| line.contains(own)) {
            assert!(theirs.contains(&shape(line)), "{line}\nis not in\n{theirs:#?}");
            compared += 1;
        }
    }
    assert_eq!(compared, lines.len() - only_ours.len());
}
