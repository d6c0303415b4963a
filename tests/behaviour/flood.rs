//! Floods: what many of the same cost, and that others are served meanwhile.
//!
//! Passwords that take long to compare, requests that nobody answers, replies that nobody
//! sends.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::raw_client::{DEADLINE, Frame, RawClient};
use crate::server::Server;

const MIB: u64 = 1024 * 1024;

/// A connection from another address of this machine.
fn connect_from(from: Ipv4Addr, to: std::net::SocketAddr) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&socket, &SocketAddrV4::new(from, 0)).expect("all of 127/8 is here");
    connect(&socket, &to).expect("it listens");
    TcpStream::from(socket)
}

fn sign_in(server: &Server, user: &str) -> RawClient {
    let mut client = RawClient::connect(server.address()).expect("it accepts");
    client.expect("INFO ");
    client.send(format!(
        "CONNECT {{\"user\":\"{user}\",\"pass\":\"{user}\",\"verbose\":false,\"headers\":true}}\r\n"
    ));
    client.flush();
    client
}

#[test]
fn guessing_hashed_passwords_delays_neither_clients_nor_those_who_know_theirs() {
    // Comparing with the first takes a long time; with the second, of `edge-pass-1`, a short one.
    let server = Server::sedge(
        "authorization { timeout: 30, users: [
           { user: slow, password: \"$2a$12$abcdefghijklmnopqrstuuHtcP.7NV.JoVN4Wa1iMf268gNmbjfSa\" }
           { user: quick, password: \"$2a$05$abcdefghijklmnopqrstuuHtcP.7NV.JoVN4Wa1iMf268gNmbjfSa\" }
           { user: good, password: good } ] }",
    );
    let mut talker = sign_in(&server, "good");
    talker.send("SUB talk 1\r\n");
    talker.flush();
    let stop = AtomicBool::new(false);
    let guesses = AtomicU32::new(0);
    let address = server.address();
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let mut socket = connect_from(Ipv4Addr::new(127, 0, 0, 2), address);
                    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a socket");
                    guesses.fetch_add(1, Ordering::Relaxed);
                    let _ = socket.write_all(b"CONNECT {\"user\":\"slow\",\"pass\":\"guess\"}\r\n");
                    let mut said = String::new();
                    let _ = socket.read_to_string(&mut said);
                    assert!(!said.contains("PONG"), "{said:?}");
                }
            });
        }
        while guesses.load(Ordering::Relaxed) < 32 {
            std::thread::yield_now();
        }
        let (mut slowest_word, mut slowest_sign_in) = (Duration::ZERO, Duration::ZERO);
        for round in 0..300 {
            let began = Instant::now();
            talker.publish("talk", b"x");
            talker.expect_message("talk", b"x");
            slowest_word = slowest_word.max(began.elapsed());
            if round % 30 == 0 {
                let began = Instant::now();
                let mut knows = RawClient::connect(address).expect("it accepts");
                knows.expect("INFO ");
                knows.send(
                    "CONNECT {\"user\":\"quick\",\"pass\":\"edge-pass-1\",\"verbose\":false}\r\n",
                );
                knows.flush();
                slowest_sign_in = slowest_sign_in.max(began.elapsed());
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(slowest_word < Duration::from_secs(1), "a word took {slowest_word:?}");
        assert!(slowest_sign_in < DEADLINE, "signing in took {slowest_sign_in:?}");
    });
}

/// Sends so many requests, and waits until the server has seen them.
fn ask(client: &mut RawClient, subject: &str, from: usize, count: usize) {
    for start in (from..from + count).step_by(500) {
        let mut lines = String::new();
        for number in start..start + 500 {
            let _ = write!(lines, "PUB {subject} _INBOX.flood.{number:010} 1\r\nx\r\n");
        }
        client.send(lines);
        client.flush();
    }
}

/// Takes what has arrived and counts the messages.
fn take(client: &mut RawClient) -> usize {
    client.send("PING\r\n");
    let mut count = 0;
    loop {
        match client.next_frame(Instant::now() + DEADLINE).expect("in time") {
            Frame::Message(_) => count += 1,
            Frame::Line(line) if line == "PONG" => return count,
            Frame::Line(_) => {}
        }
    }
}

#[test]
fn an_account_whose_requests_nobody_answers_pays_for_it_alone() {
    let server = Server::sedge(
        "accounts {
           A { users: [ { user: a, password: a } ], exports: [ { service: ask } ] }
           B { users: [ { user: b, password: b } ],
               imports: [ { service: { account: A, subject: ask } } ] }
           C { users: [ { user: c, password: c } ],
               imports: [ { service: { account: A, subject: ask } } ] } }",
    );
    let mut service = sign_in(&server, "a");
    service.send("SUB ask 1\r\n");
    service.flush();
    let mut flooder = sign_in(&server, "b");
    flooder.send("SUB _INBOX.flood.* 1\r\n");
    flooder.flush();
    let mut round = |from| {
        let mut heard = 0;
        for start in (from..from + 40_000).step_by(500) {
            ask(&mut flooder, "ask", start, 500);
            heard += take(&mut service);
        }
        (heard, server.resident_bytes())
    };
    let (heard, early) = round(0);
    assert_eq!(heard, sedge::limits::RESPONSES_MAX);
    let (heard, late) = round(40_000);
    assert_eq!(heard, 0);
    assert!(late < early + 4 * MIB, "{early} bytes, then {late}");
    let mut other = sign_in(&server, "c");
    other.send("SUB _INBOX.flood.* 1\r\n");
    other.flush();
    other.publish_with_reply("ask", "_INBOX.flood.c", b"question");
    let Frame::Message(question) = service.expect("HMSG ask") else { panic!("a message") };
    service.publish(&question.reply.expect("it is a request"), b"answer");
    other.expect_message("_INBOX.flood.c", b"answer");
}

#[test]
fn replies_that_a_responder_never_sends_cost_a_bounded_amount() {
    let server = Server::sedge(
        "authorization { users: [
           { user: a, password: a, permissions: { subscribe: ask, allow_responses: { max: 5, expires: \"1h\" } } }
           { user: b, password: b } ] }",
    );
    let mut service = sign_in(&server, "a");
    service.send("SUB ask 1\r\n");
    service.flush();
    let mut client = sign_in(&server, "b");
    let mut asked = 0;
    let mut round = |count| {
        for _ in (0..count).step_by(500) {
            ask(&mut client, "ask", asked, 500);
            asked += 500;
            assert_eq!(take(&mut service), 500);
        }
        server.resident_bytes()
    };
    let early = round(80_000);
    let late = round(80_000);
    assert!(late < early + 8 * MIB, "{early} bytes, then {late}");
    client.send("SUB _INBOX.flood.* 1\r\n");
    client.flush();
    service.publish(&format!("_INBOX.flood.{:010}", asked - 1), b"answer");
    client.expect("MSG _INBOX.flood.");
}

#[test]
fn signing_in_over_and_over_on_one_connection_leaves_nothing_behind() {
    let server = Server::sedge(
        "accounts { A { users: [ { user: a, password: a } ] }, B { users: [ { user: b, password: b } ] } }",
    );
    let mut client = sign_in(&server, "a");
    let mut round = |count: usize| {
        for number in 0..count {
            let user = if number % 2 == 0 { "b" } else { "a" };
            let mut lines = format!(
                "CONNECT {{\"user\":\"{user}\",\"pass\":\"{user}\",\"verbose\":false}}\r\n"
            );
            for sid in 0..20 {
                let _ = write!(lines, "SUB some.{number}.*.{sid} {sid}\r\n");
            }
            client.send(lines);
            if number % 50 == 0 {
                client.flush();
            }
        }
        client.flush();
        server.resident_bytes()
    };
    let early = round(2000);
    let late = round(4000);
    assert!(late < early + 4 * MIB, "{early} bytes, then {late}");
}
