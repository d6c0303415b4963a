//! A subscriber that does not read is dropped; the others do not wait for it.

use std::time::Instant;

use crate::raw_client::{DEADLINE, Frame, NoFrame, RawClient};
use crate::server::Server;

const PAYLOAD_BYTES: usize = 32 * 1024;

#[test]
fn a_slow_consumer_is_closed_without_a_word_and_others_receive_everything() {
    let server = Server::sedge("max_pending: 4MB");
    let mut slow = RawClient::greet(server.address());
    slow.send("SUB data 1\r\n");
    slow.flush();
    let mut quick = RawClient::greet(server.address());
    quick.send("SUB data 1\r\n");
    quick.flush();
    let mut publisher = RawClient::greet(server.address());

    // Twice what the slow one's queue and any socket buffer on the way can hold.
    let payload = vec![b'x'; PAYLOAD_BYTES];
    for round in 0..1024 {
        publisher.publish("data", &payload);
        publisher.flush();
        let deadline = Instant::now() + DEADLINE;
        match quick.next_frame(deadline) {
            Ok(Frame::Message(m)) => assert_eq!(m.payload.len(), PAYLOAD_BYTES),
            other => panic!("round {round}: {other:?}"),
        }
    }

    let frames = slow.expect_closed();
    assert!(frames.len() < 1024, "the slow one was served in full");
    let errors: Vec<_> = frames.iter().filter(|f| f.line().starts_with("-ERR")).collect();
    assert!(errors.is_empty(), "there is no wire message for a slow consumer: {errors:?}");
    quick.flush();
    publisher.flush();
}

#[test]
fn a_slow_consumer_does_not_make_memory_grow() {
    let server = Server::sedge("max_pending: 2MB");
    let mut publisher = RawClient::greet(server.address());
    let payload = vec![b'x'; PAYLOAD_BYTES];
    let before = server.resident_bytes();
    for _ in 0..10 {
        let mut slow = RawClient::greet(server.address());
        slow.send("SUB data 1\r\n");
        slow.flush();
        for _ in 0..512 {
            publisher.publish("data", &payload);
        }
        publisher.flush();
        slow.expect_closed();
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 8 * 1024 * 1024, "{grown} bytes more after ten slow consumers");
}

#[test]
fn a_client_that_reads_late_but_in_time_gets_all_of_it() {
    let server = Server::sedge("");
    let mut late = RawClient::greet(server.address());
    late.send("SUB data 1\r\n");
    late.flush();
    let mut publisher = RawClient::greet(server.address());
    let payload = vec![b'x'; PAYLOAD_BYTES];
    // 16 MiB: far more than socket buffers, far less than max_pending.
    for _ in 0..512 {
        publisher.publish("data", &payload);
    }
    publisher.flush();
    for number in 0..512 {
        match late.next_frame(Instant::now() + DEADLINE) {
            Ok(Frame::Message(m)) => assert_eq!(m.payload.len(), PAYLOAD_BYTES),
            Err(NoFrame::Closed) => panic!("closed after {number} messages"),
            other => panic!("message {number}: {other:?}"),
        }
    }
    late.flush();
}
