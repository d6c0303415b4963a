//! What clients leave behind when they go: nothing.

use crate::raw_client::RawClient;
use crate::server::Server;

const MIB: u64 = 1024 * 1024;

/// Runs `round` until memory has settled, then again, and says how much the second half took.
fn growth(server: &Server, rounds: usize, mut round: impl FnMut()) -> u64 {
    for _ in 0..rounds {
        round();
    }
    let before = server.resident_bytes();
    for _ in 0..rounds {
        round();
    }
    server.resident_bytes().saturating_sub(before)
}

#[test]
fn connecting_and_leaving_does_not_grow_memory() {
    let server = Server::sedge("");
    let mut steady = RawClient::greet(server.address());
    let grown = growth(&server, 1500, || {
        let mut client = RawClient::greet(server.address());
        client.send("SUB come.and.go 1\r\nSUB come.* q 2\r\nPUB come.and.go 2\r\nhi\r\n");
        client.expect_message("come.and.go", b"hi");
        client.flush();
    });
    assert!(grown < MIB, "{grown} bytes more after 1,500 connections");
    steady.flush();
}

#[test]
fn subscribing_and_unsubscribing_does_not_grow_memory() {
    let server = Server::sedge("");
    let mut client = RawClient::greet(server.address());
    let mut number = 0_u32;
    let grown = growth(&server, 100, || {
        for _ in 0..200 {
            number += 1;
            client.send(format!(
                "SUB some.{number}.>  {number}\r\nPUB some.{number}.x 0\r\n\r\nUNSUB {number}\r\n"
            ));
            client.expect("MSG some.");
        }
        client.flush();
    });
    assert!(grown < MIB, "{grown} bytes more after 20,000 subscriptions");
}

#[test]
fn publishing_on_ever_new_subjects_does_not_grow_memory() {
    let server = Server::sedge("");
    let mut client = RawClient::greet(server.address());
    client.send("SUB never.here 1\r\n");
    let mut number = 0_u64;
    let grown = growth(&server, 100, || {
        for _ in 0..1000 {
            number += 1;
            client.publish(&format!("new.{number}.subject.{number}"), b"x");
        }
        client.flush();
    });
    assert!(grown < MIB, "{grown} bytes more after 100,000 subjects");
}

#[test]
fn many_clients_at_once_come_and_go() {
    let server = Server::sedge("");
    for _ in 0..3 {
        let mut clients: Vec<_> = (0..300).map(|_| RawClient::greet(server.address())).collect();
        for client in &mut clients {
            client.send("SUB all 1\r\n");
            client.flush();
        }
        let mut publisher = RawClient::greet(server.address());
        publisher.publish("all", b"hello");
        for client in &mut clients {
            client.expect_message("all", b"hello");
        }
    }
    let mut last = RawClient::greet(server.address());
    last.publish("all", b"nobody");
    last.flush();
}
