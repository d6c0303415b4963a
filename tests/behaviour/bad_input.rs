//! Whatever one client sends, it is told off as nats-server would and nobody else notices.

use std::time::Instant;

use crate::raw_client::{DEADLINE, Frame, RawClient};
use crate::server::Server;

/// A pair of clients whose talk goes on while others misbehave.
struct Bystanders {
    publisher: RawClient,
    subscriber: RawClient,
    said: u32,
}

impl Bystanders {
    fn meet(server: &Server) -> Self {
        let publisher = RawClient::greet(server.address());
        let mut subscriber = RawClient::greet(server.address());
        subscriber.send("SUB talk 1\r\n");
        subscriber.flush();
        Self { publisher, subscriber, said: 0 }
    }

    fn talk(&mut self) {
        self.said += 1;
        let word = self.said.to_string();
        self.publisher.publish("talk", word.as_bytes());
        self.subscriber.expect_message("talk", word.as_bytes());
    }
}

/// Reproducible noise (xorshift).
fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

#[test]
fn garbage_is_refused_and_nobody_else_notices() {
    let server = Server::sedge("");
    let mut bystanders = Bystanders::meet(&server);
    for seed in 0..50 {
        let mut client = RawClient::connect(server.address()).expect("it accepts");
        // A letter no operation starts with: noise alone may begin as half a command.
        client.send("?");
        client.send(noise(seed, 2000));
        let frames = client.expect_closed();
        let last = frames.last().map(Frame::line);
        assert_eq!(last.as_deref(), Some("-ERR 'Unknown Protocol Operation'"));
        bystanders.talk();
    }
}

#[test]
fn noise_after_a_good_start_is_refused_too() {
    let server = Server::sedge("");
    let mut bystanders = Bystanders::meet(&server);
    for (number, start) in
        ["PUB foo 10\r\n", "HPUB foo 5 10\r\n", "SUB ", "CONNECT {", "UNSUB 1\r\n", "PING\r\n"]
            .into_iter()
            .enumerate()
    {
        for seed in 0..10 {
            let mut client = RawClient::greet(server.address());
            client.send(start);
            client.send(noise(seed * 100 + number as u64, 20_000));
            client.send("\n\n\r\n");
            client.expect_closed();
            bystanders.talk();
        }
    }
}

#[test]
fn half_a_command_waits_and_a_lost_client_leaves_nothing() {
    let server = Server::sedge("");
    let mut bystanders = Bystanders::meet(&server);
    let whole = "SUB half 1\r\nPUB half 5\r\nhello\r\nUNSUB 1\r\n";
    for cut in 0..whole.len() {
        let mut client = RawClient::greet(server.address());
        client.send(&whole[..cut]);
        drop(client);
    }
    bystanders.talk();
    let mut client = RawClient::greet(server.address());
    for byte in whole.as_bytes() {
        client.send([*byte]);
    }
    client.expect_message("half", b"hello");
    client.flush();
    bystanders.talk();
}

#[test]
fn a_control_line_without_end_is_cut_off() {
    let server = Server::sedge("");
    let mut bystanders = Bystanders::meet(&server);
    for verb in ["SUB ", "PUB ", "HPUB ", "UNSUB ", "CONNECT ", "INFO ", "-ERR "] {
        let mut client = RawClient::greet(server.address());
        client.send(verb);
        for _ in 0..20 {
            client.send("x".repeat(1000));
        }
        let frames = client.expect_closed();
        let last = frames.last().map(Frame::line).unwrap_or_default();
        assert_eq!(last, "-ERR 'maximum control line exceeded'", "after {verb:?}");
        bystanders.talk();
    }
}

#[test]
fn an_announced_payload_over_the_limit_is_refused_before_it_comes() {
    let server = Server::sedge("max_payload: 1000");
    let mut bystanders = Bystanders::meet(&server);
    for line in ["PUB foo 1001\r\n", "PUB foo 999999999\r\n", "HPUB foo 12 1001\r\n"] {
        let mut client = RawClient::greet(server.address());
        client.send(line);
        let frames = client.expect_closed();
        let last = frames.last().map(Frame::line);
        assert_eq!(last.as_deref(), Some("-ERR 'Maximum Payload Violation'"), "after {line:?}");
        bystanders.talk();
    }
}

#[test]
fn invalid_subjects_are_refused_and_the_client_stays() {
    let server = Server::sedge("");
    let mut client = RawClient::greet(server.address());
    for subject in [".", "a.", ".a", "a..b", ">.a", "a.>.b"] {
        client.send(format!("SUB {subject} 1\r\n"));
        client.expect("-ERR 'Invalid Subject'");
    }
    // As deep as a control line allows.
    let deep = vec!["a"; 2000].join(".");
    client.send(format!("SUB {deep} 1\r\n"));
    client.publish(&deep, b"deep");
    client.expect_message(&deep, b"deep");
    client.send("SUB *.*.*.*.*.*.*.*.> 2\r\n");
    client.publish("a.a.a.a.a.a.a.a.a", b"wide");
    client.expect_message("a.a.a.a.a.a.a.a.a", b"wide");
    client.flush();
}

#[test]
fn api_requests_that_are_no_json_get_an_error_each() {
    let server = Server::sedge("jetstream { store_dir: \"$DIR/store\" }");
    let mut client = RawClient::greet(server.address());
    client.send("SUB answer 1\r\n");
    let bodies: [&[u8]; 7] = [
        b"{",
        b"[]",
        b"\"name\"",
        b"{\"name\":1}",
        b"{\"name\":\"S\",\"max_msgs\":1e400}",
        b"{\"name\":\"S\",\"subjects\":{}}",
        b"\xff\xfe",
    ];
    for body in bodies {
        client.publish_with_reply("$JS.API.STREAM.CREATE.S", "answer", body);
        let deadline = Instant::now() + DEADLINE;
        match client.next_frame(deadline) {
            Ok(Frame::Message(m)) => {
                let answer = String::from_utf8_lossy(&m.payload).into_owned();
                assert!(answer.contains("\"err_code\":10025"), "{answer}");
            }
            other => panic!("no answer to {body:?}: {other:?}"),
        }
    }
    // Nested deeper than any parser's stack should follow.
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    client.publish_with_reply("$JS.API.STREAM.CREATE.S", "answer", nested.as_bytes());
    client.expect("MSG answer 1");
    client.flush();
}
