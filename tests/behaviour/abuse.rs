//! Whoever means harm costs little and keeps nobody else from being served.
//!
//! What a client may reach is compared with nats-server in `tests/interop/scenarios`, the
//! files `abuse`; here it is about memory, time and the others.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::raw_client::{DEADLINE, Frame, RawClient};
use crate::server::Server;

const MIB: u64 = 1024 * 1024;
/// Longest wait of somebody who behaves, on a busy machine.
const SERVED: Duration = Duration::from_secs(2);

/// A user, and a second to sign in.
pub(crate) const USERS: &str = "authorization { timeout: 1, user: good, password: good }\n";

/// Lets this process, and the servers it starts from here on, have many connections.
pub(crate) fn allow_many_files() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < 8192) {
        limit.current = Some(limit.maximum.map_or(8192, |maximum| maximum.min(8192)));
        setrlimit(Resource::Nofile, limit).expect("the hard limit allows it");
    }
}

/// Two clients that talk, and the longest that took.
pub(crate) struct Bystanders {
    publisher: RawClient,
    subscriber: RawClient,
    said: u32,
    slowest: Duration,
}

impl Bystanders {
    pub(crate) fn meet(address: SocketAddr) -> Self {
        let publisher = sign_in(address);
        let mut subscriber = sign_in(address);
        subscriber.send("SUB talk 1\r\n");
        subscriber.flush();
        Self { publisher, subscriber, said: 0, slowest: Duration::ZERO }
    }

    pub(crate) fn talk(&mut self) {
        self.said += 1;
        let word = self.said.to_string();
        let began = Instant::now();
        self.publisher.publish("talk", word.as_bytes());
        self.subscriber.expect_message("talk", word.as_bytes());
        self.slowest = self.slowest.max(began.elapsed());
    }

    pub(crate) fn were_served(&self) {
        assert!(self.slowest < SERVED, "a word took {:?}", self.slowest);
    }
}

fn sign_in(address: SocketAddr) -> RawClient {
    let mut client = RawClient::connect(address).expect("it accepts");
    client.expect("INFO ");
    client.send("CONNECT {\"user\":\"good\",\"pass\":\"good\",\"verbose\":false}\r\n");
    client.flush();
    client
}

/// Has the server closed it? What it said before is read and dropped.
fn is_closed(socket: &mut TcpStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

/// Waits until all of them are closed, while the bystanders talk.
pub(crate) fn all_closed(sockets: &mut Vec<TcpStream>, bystanders: &mut Bystanders) {
    let deadline = Instant::now() + 2 * DEADLINE;
    for socket in &*sockets {
        socket.set_nonblocking(true).expect("it is a socket");
    }
    while !sockets.is_empty() {
        sockets.retain_mut(|socket| !is_closed(socket));
        bystanders.talk();
        assert!(Instant::now() < deadline, "{} are still open", sockets.len());
    }
}

#[test]
fn a_thousand_that_never_sign_in_are_closed_and_cost_little() {
    allow_many_files();
    let server = Server::sedge(USERS);
    let mut bystanders = Bystanders::meet(server.address());
    let before = server.resident_bytes();
    let mut sockets = Vec::new();
    for number in 0..1000 {
        let mut socket = TcpStream::connect(server.address()).expect("it accepts");
        // Some say nothing, some half of what they should.
        if number % 2 == 0 {
            let _ = socket.write_all(&b"CONNECT {\"user\":\"good\",\"pa"[..number % 27]);
        }
        sockets.push(socket);
        if number % 50 == 0 {
            bystanders.talk();
        }
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 8 * MIB, "{grown} bytes for 1,000 half-open connections");
    all_closed(&mut sockets, &mut bystanders);
    bystanders.were_served();
}

#[test]
fn signing_in_a_byte_at_a_time_ends_at_the_timeout() {
    let server = Server::sedge(USERS);
    let mut bystanders = Bystanders::meet(server.address());
    let began = Instant::now();
    let mut slow = RawClient::connect(server.address()).expect("it accepts");
    slow.expect("INFO ");
    let line =
        format!("CONNECT {{\"user\":\"good\",\"pass\":\"good\",\"x\":\"{}\"}}", "x".repeat(2000));
    let mut bytes = line.bytes();
    let frames = loop {
        if let Some(byte) = bytes.next() {
            slow.send([byte]);
        }
        bystanders.talk();
        // Slower than one byte in 5 ms it would take 10 s.
        match slow.next_frame(Instant::now() + Duration::from_millis(5)) {
            Ok(frame) => break vec![frame],
            Err(crate::raw_client::NoFrame::TimedOut) => {}
            Err(crate::raw_client::NoFrame::Closed) => break Vec::new(),
        }
        assert!(began.elapsed() < DEADLINE, "it may still go on");
    };
    assert_eq!(
        frames.first().map(Frame::line).as_deref(),
        Some("-ERR 'Authentication Timeout'"),
        "after {:?}",
        began.elapsed()
    );
    bystanders.were_served();
}

#[test]
fn json_without_end_neither_breaks_nor_fills_anything() {
    let server = Server::sedge("max_control_line: 1MB\njetstream { store_dir: \"$DIR/s\" }\n");
    let mut steady = RawClient::greet(server.address());
    let before = server.resident_bytes();
    for deep in ["[", "{\"a\":", "[{\"a\":"] {
        let mut client = RawClient::connect(server.address()).expect("it accepts");
        client.send(format!("CONNECT {{\"user\":{}\r\n", deep.repeat(900_000 / deep.len())));
        client.expect_closed();
        let body = deep.repeat(1_000_000 / deep.len());
        for subject in ["STREAM.CREATE.S", "CONSUMER.CREATE.S", "STREAM.NAMES", "STREAM.MSG.GET.S"]
        {
            steady.send("SUB _INBOX.deep 1\r\nUNSUB 1 1\r\n");
            let subject = format!("$JS.API.{subject}");
            steady.publish_with_reply(&subject, "_INBOX.deep", body.as_bytes());
            let reply = steady.expect("MSG _INBOX.deep");
            assert!(format!("{reply:?}").contains("error"), "{reply:?}");
        }
    }
    steady.flush();
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 24 * MIB, "{grown} bytes more after some deep JSON");
}

#[test]
fn guessing_passwords_keeps_nobody_waiting() {
    let server = Server::sedge(USERS);
    let mut bystanders = Bystanders::meet(server.address());
    let stop = AtomicBool::new(false);
    let address = server.address();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let stop = &stop;
            scope.spawn(move || {
                let mut guess = 0;
                while !stop.load(Ordering::Relaxed) {
                    guess += 1;
                    let Ok(mut socket) = TcpStream::connect(address) else { continue };
                    let _ = write!(
                        socket,
                        "CONNECT {{\"user\":\"good\",\"pass\":\"{thread}-{guess}\"}}\r\n"
                    );
                    let mut said = String::new();
                    let _ = socket.read_to_string(&mut said);
                    assert!(said.contains("Authorization Violation"), "{said:?}");
                }
            });
        }
        for _ in 0..2000 {
            bystanders.talk();
        }
        stop.store(true, Ordering::Relaxed);
    });
    bystanders.were_served();
}

#[test]
fn a_thousand_half_open_tls_handshakes_are_closed_and_cost_little() {
    // The beginning of a ClientHello; a server that waits for the rest waits for ever.
    const HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    allow_many_files();
    let server = Server::sedge(&format!(
        "{USERS}\nallow_non_tls: true\ntls {{ cert_file: \"$CERTS/server.pem\", \
         key_file: \"$CERTS/server.key\", timeout: 1 }}\n"
    ));
    let mut bystanders = Bystanders::meet(server.address());
    let before = server.resident_bytes();
    let mut sockets = Vec::new();
    for number in 0..1000 {
        let mut socket = TcpStream::connect(server.address()).expect("it accepts");
        let _ = socket.write_all(&HELLO[..number % (HELLO.len() + 1)]);
        sockets.push(socket);
        if number % 50 == 0 {
            bystanders.talk();
        }
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 24 * MIB, "{grown} bytes for 1,000 half-open handshakes");
    all_closed(&mut sockets, &mut bystanders);
    bystanders.were_served();
}
