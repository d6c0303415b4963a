//! What was acknowledged is there again, whatever happened to the process or the file.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use serde_json::Value;

use crate::raw_client::{DEADLINE, Frame, Message, NoFrame, RawClient};
use crate::server::Server;

const CONFIG: &str = "jetstream { store_dir: \"$DIR/store\" }";

/// Sends a request and returns the answer's JSON.
pub(crate) fn request(client: &mut RawClient, subject: &str, body: &str) -> Value {
    client.send("SUB answer.1 answer\r\nUNSUB answer 1\r\n");
    client.publish_with_reply(subject, "answer.1", body.as_bytes());
    match client.pick(Instant::now() + DEADLINE, |f| f.line().starts_with("MSG answer.1 ")) {
        Ok(Frame::Message(m)) => serde_json::from_slice(&m.payload).expect("answers are JSON"),
        other => panic!("no answer on {subject}: {other:?}"),
    }
}

fn create_stream(client: &mut RawClient) {
    let body = r#"{"name":"S","subjects":["s.>"]}"#;
    let answer = request(client, "$JS.API.STREAM.CREATE.S", body);
    assert!(answer["error"].is_null(), "{answer}");
}

/// The numbers in the stream, read through a consumer that starts at the beginning.
fn stored(client: &mut RawClient) -> Vec<u64> {
    let info = request(client, "$JS.API.STREAM.INFO.S", "");
    let count = info["state"]["messages"].as_u64().unwrap_or_else(|| panic!("{info}"));
    client.send("SUB read read\r\n");
    let body = r#"{"stream_name":"S","config":{"ack_policy":"none","deliver_subject":"read"}}"#;
    let answer = request(client, "$JS.API.CONSUMER.CREATE.S", body);
    assert!(answer["error"].is_null(), "{answer}");
    let mut numbers = Vec::new();
    for sequence in 1..=count {
        let message = match client.next_frame(Instant::now() + DEADLINE) {
            Ok(Frame::Message(message)) => message,
            other => panic!("message {sequence} of {count}: {other:?}"),
        };
        assert_eq!(stream_sequence(&message), sequence, "the stream has a gap");
        let text = String::from_utf8_lossy(&message.payload).into_owned();
        numbers.push(text.parse().expect("the payloads are numbers"));
    }
    client.send("UNSUB read\r\n");
    numbers
}

/// From `$JS.ACK.<stream>.<consumer>.<deliveries>.<stream sequence>...`.
fn stream_sequence(message: &Message) -> u64 {
    let reply = message.reply.as_deref().unwrap_or_default();
    let sequence = reply.split('.').nth(5).and_then(|token| token.parse().ok());
    sequence.unwrap_or_else(|| panic!("no ack subject: {message:?}"))
}

#[test]
fn acknowledged_messages_survive_a_kill_in_the_middle_of_a_burst() {
    let mut server = Server::sedge(CONFIG);
    create_stream(&mut RawClient::greet(server.address()));
    let mut acknowledged = BTreeSet::new();
    let mut next = 0_u64;
    for round in 0..8_usize {
        let mut client = RawClient::greet(server.address());
        client.send("SUB ack 1\r\n");
        for _ in 0..2000 {
            client.publish_with_reply(&format!("s.{next}"), "ack", next.to_string().as_bytes());
            next += 1;
        }
        // Acks come in the order of the messages; the kill comes after some of them.
        let first = next - 2000;
        for at in 0..round as u64 * 200 {
            match client.next_frame(Instant::now() + DEADLINE) {
                Ok(Frame::Message(ack)) => {
                    let text = String::from_utf8_lossy(&ack.payload).into_owned();
                    assert!(text.contains("\"seq\":"), "{text}");
                    acknowledged.insert(first + at);
                }
                other => panic!("round {round}: {other:?}"),
            }
        }
        server.restart(true).expect("it starts after a kill");
        // What else was on its way when the server died was promised too.
        let mut at = round as u64 * 200;
        while let Ok(Frame::Message(_)) = client.next_frame(Instant::now() + DEADLINE) {
            acknowledged.insert(first + at);
            at += 1;
        }
    }
    let numbers = stored(&mut RawClient::greet(server.address()));
    assert!(numbers.is_sorted_by(|a, b| a < b), "out of order or twice");
    let stored: BTreeSet<u64> = numbers.into_iter().collect();
    let lost: Vec<_> = acknowledged.difference(&stored).collect();
    assert!(lost.is_empty(), "{} acknowledged and lost: {lost:?}", lost.len());
}

#[test]
fn a_damaged_store_is_set_aside_and_reported_and_core_messaging_goes_on() {
    let mut server = Server::sedge(CONFIG);
    let mut client = RawClient::greet(server.address());
    create_stream(&mut client);
    for number in 0..100 {
        let ack = request(&mut client, "s.a", &number.to_string());
        assert_eq!(ack["seq"], number + 1);
    }
    let files = store_files(&server);
    assert!(!files.is_empty(), "nothing was stored");
    let before: u64 = files.iter().map(|f| f.metadata().map_or(0, |m| m.len())).sum();
    server.stop().expect("it stops");
    for file in &files {
        let mut bytes = std::fs::read(file).expect("readable");
        let end = bytes.len().min(8192);
        bytes[..end].fill(0x5a);
        std::fs::write(file, bytes).expect("writable");
    }
    server.start_again().expect("a damaged store does not keep the server from starting");

    let mut client = RawClient::greet(server.address());
    client.send("SUB talk 1\r\n");
    client.publish("talk", b"hello");
    client.expect_message("talk", b"hello");
    let log = server.log();
    assert!(log.contains("damaged"), "the log does not say so:\n{log}");
    let after: u64 = store_files(&server).iter().map(|f| f.metadata().map_or(0, |m| m.len())).sum();
    assert!(after >= before, "the damaged file was not kept ({before} bytes, now {after})");
    // Streams work again, from nothing.
    create_stream(&mut client);
    assert_eq!(request(&mut client, "s.a", "again")["seq"], 1);
}

fn store_files(server: &Server) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![server.directory().join("store")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("the store is there").flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files
}

#[test]
fn a_store_that_cannot_be_written_ends_with_a_line_that_names_it() {
    // A file where the folder should be.
    let refused = Server::start(
        &crate::server::sedge_binary(),
        "jetstream { store_dir: \"$DIR/server.conf\" }",
    );
    let why = refused.expect_err("it must not start");
    assert!(why.contains("server.conf"), "{why}");
    assert!(why.contains("ended before it was ready"), "{why}");
}

#[test]
fn a_stream_at_its_limits_holds_its_memory_and_its_disk() {
    let server = Server::sedge(CONFIG);
    let mut client = RawClient::greet(server.address());
    let body = r#"{"name":"S","subjects":["s.>"],"max_bytes":2000000}"#;
    let answer = request(&mut client, "$JS.API.STREAM.CREATE.S", body);
    assert!(answer["error"].is_null(), "{answer}");
    client.send("SUB ack 1\r\n");
    let payload = vec![b'x'; 1000];
    let mut fill = |rounds: usize| {
        for _ in 0..rounds {
            for number in 0..500 {
                client.publish_with_reply(&format!("s.{number}"), "ack", &payload);
            }
            for number in 0..500 {
                match client.next_frame(Instant::now() + DEADLINE) {
                    Ok(Frame::Message(_)) => {}
                    Err(NoFrame::TimedOut) => panic!("ack {number} did not come"),
                    other => panic!("ack {number}: {other:?}"),
                }
            }
        }
        let disk: u64 =
            store_files(&server).iter().map(|f| f.metadata().map_or(0, |m| m.len())).sum();
        (server.resident_bytes(), disk)
    };
    let (memory, disk) = fill(40);
    let (memory_later, disk_later) = fill(40);
    let mib = 1024 * 1024;
    assert!(memory_later < memory + 4 * mib, "memory grew from {memory} to {memory_later}");
    assert!(disk_later < disk + 4 * mib, "the disk grew from {disk} to {disk_later}");
    assert!(disk_later < 16 * mib, "{disk_later} bytes on disk for a stream of 2 MB");
}
