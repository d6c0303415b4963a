//! Clients over TLS: the order of INFO and handshake, who comes in, and what it costs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::certificates::{certificates, client_config, plain, secure, tls_block};
use crate::raw_client::{DEADLINE, RawClient};
use crate::server::Server;

/// One line, read byte by byte so that nothing of what follows is taken.
fn line(from: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n") {
        if from.read(&mut byte).expect("in time") == 0 {
            break;
        }
        bytes.push(byte[0]);
    }
    String::from_utf8_lossy(&bytes).trim_end().to_owned()
}

/// All until the server closes.
fn rest(from: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 1024];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        bytes.extend_from_slice(&chunk[..count]);
    }
    bytes
}

fn greeted(to: &mut (impl Read + Write)) {
    to.write_all(b"CONNECT {\"verbose\":false}\r\nPING\r\n").expect("it reads");
    assert_eq!(line(to), "PONG");
}

#[test]
fn tls_follows_info_and_carries_large_messages() {
    let Some(directory) = certificates() else { return };
    let server = Server::sedge(&tls_block(directory.path(), ""));
    let mut socket = plain(server.address());
    let info = line(&mut socket);
    assert!(info.starts_with("INFO ") && info.contains("\"tls_required\":true"), "{info}");
    assert!(!info.contains("tls_verify") && !info.contains("tls_available"), "{info}");
    let mut tls = secure(socket, &client_config(directory.path(), None)).expect("a handshake");
    greeted(&mut tls);
    let payload = vec![7; 900_000];
    tls.write_all(b"SUB big 1\r\nPUB big 900000\r\n").expect("it reads");
    tls.write_all(&payload).expect("it reads");
    tls.write_all(b"\r\n").expect("it reads");
    assert_eq!(line(&mut tls), "MSG big 1 900000");
    let mut reader = BufReader::new(tls);
    let mut received = vec![0; payload.len()];
    reader.read_exact(&mut received).expect("in time");
    assert!(received == payload);
    let mut end = String::new();
    reader.read_line(&mut end).expect("in time");
}

#[test]
fn who_speaks_plainly_to_a_tls_port_is_closed_without_a_word() {
    let Some(directory) = certificates() else { return };
    let server = Server::sedge(&tls_block(directory.path(), ""));
    let mut socket = plain(server.address());
    line(&mut socket);
    socket.write_all(b"CONNECT {}\r\nPING\r\n").expect("it reads");
    assert_eq!(rest(&mut socket), b"");
}

#[test]
fn a_client_without_a_certificate_of_the_authority_stays_outside() {
    let Some(directory) = certificates() else { return };
    let path = directory.path().display();
    let more = format!("ca_file: \"{path}/ca.pem\", verify: true");
    let server = Server::sedge(&tls_block(directory.path(), &more));
    let mut socket = plain(server.address());
    assert!(line(&mut socket).contains("\"tls_verify\":true"));
    // With TLS 1.3 a client learns of it when it first reads.
    let refused = secure(socket, &client_config(directory.path(), None)).and_then(|mut tls| {
        let mut byte = [0];
        tls.read(&mut byte)
    });
    assert!(refused.is_err(), "{refused:?}");
    let mut socket = plain(server.address());
    line(&mut socket);
    let config = client_config(directory.path(), Some("client"));
    greeted(&mut secure(socket, &config).expect("a handshake"));
    server.wait_for_line("TLS handshake error: tls: client didn't provide a certificate").unwrap();
}

#[test]
fn only_pinned_certificates_come_in() {
    let Some(directory) = certificates() else { return };
    let path = directory.path().display();
    let more =
        format!("ca_file: \"{path}/ca.pem\", verify: true, pinned_certs: [\"{}\"]", "0".repeat(64));
    let server = Server::sedge(&tls_block(directory.path(), &more));
    let mut socket = plain(server.address());
    line(&mut socket);
    let config = client_config(directory.path(), Some("client"));
    let mut tls = secure(socket, &config).expect("a handshake");
    assert_eq!(rest(&mut tls), b"");
    server.wait_for_line("TLS handshake error: certificate not pinned").unwrap();
}

#[test]
fn the_handshake_may_come_first() {
    let Some(directory) = certificates() else { return };
    let server = Server::sedge(&tls_block(directory.path(), "handshake_first: true"));
    let config = client_config(directory.path(), None);
    let mut tls = secure(plain(server.address()), &config).expect("a handshake");
    assert!(line(&mut tls).contains("\"tls_required\":true"));
    greeted(&mut tls);
}

#[test]
fn with_auto_both_kinds_of_clients_come_in() {
    let Some(directory) = certificates() else { return };
    let server = Server::sedge(&tls_block(directory.path(), "handshake_first: auto"));
    let config = client_config(directory.path(), None);
    let mut first = secure(plain(server.address()), &config).expect("a handshake");
    assert!(line(&mut first).starts_with("INFO "));
    let mut socket = plain(server.address());
    assert!(line(&mut socket).starts_with("INFO "), "who waits is told");
    greeted(&mut secure(socket, &config).expect("a handshake"));
}

#[test]
fn the_first_byte_tells_where_both_are_allowed() {
    let Some(directory) = certificates() else { return };
    let config = format!("{}\nallow_non_tls: true", tls_block(directory.path(), ""));
    let server = Server::sedge(&config);
    let mut client = RawClient::connect(server.address()).expect("it listens");
    let info = client.expect("INFO ");
    assert!(info.line().contains("\"tls_available\":true"), "{info:?}");
    client.flush();
    let mut socket = plain(server.address());
    line(&mut socket);
    let config = client_config(directory.path(), None);
    greeted(&mut secure(socket, &config).expect("a handshake"));
}

#[test]
fn a_handshake_that_stands_still_ends_at_its_timeout() {
    let Some(directory) = certificates() else { return };
    let server = Server::sedge(&tls_block(directory.path(), "timeout: 0.5"));
    let begun = Instant::now();
    let mut silent = plain(server.address());
    let mut slow = plain(server.address());
    line(&mut silent);
    line(&mut slow);
    // The front of a record of a handshake, and no more.
    slow.write_all(&[0x16, 3, 1, 2, 0, 1]).expect("it reads");
    assert_eq!(rest(&mut silent), b"");
    assert_eq!(rest(&mut slow), b"");
    let took = begun.elapsed();
    assert!((Duration::from_millis(400)..DEADLINE).contains(&took), "{took:?}");
}

#[test]
fn a_thousand_half_open_handshakes_cost_little_and_hold_nobody_up() {
    const MANY: usize = 1000;
    let Some(directory) = certificates() else { return };
    let config = format!("{}\nallow_non_tls: true", tls_block(directory.path(), "timeout: 5"));
    let server = Server::sedge(&config);
    let mut steady = RawClient::greet(server.address());
    let before = server.resident_bytes();
    let mut half: Vec<TcpStream> = (0..MANY).map(|_| plain(server.address())).collect();
    for socket in &mut half {
        line(socket);
        socket.write_all(&[0x16, 3, 1, 2, 0, 1]).expect("it reads");
    }
    steady.flush();
    let each = server.resident_bytes().saturating_sub(before) / MANY as u64;
    assert!(each < 24 * 1024, "{each} bytes each");
    eprintln!("{each} bytes for each half-open handshake");
}

/// What each of many clients that are idle holds, once each has sent a message of this size.
fn idle_bytes(payload: usize) -> Option<u64> {
    const MANY: u64 = 300;
    let directory = certificates()?;
    let server = Server::sedge(&tls_block(directory.path(), ""));
    let config = client_config(directory.path(), None);
    let message =
        [format!("PUB x {payload}\r\n").as_bytes(), &vec![b'x'; payload], b"\r\n"].concat();
    let mut clients = Vec::new();
    let mut join = || {
        let mut socket = plain(server.address());
        line(&mut socket);
        let mut tls = secure(socket, &config).expect("a handshake");
        greeted(&mut tls);
        tls.write_all(&message).expect("it reads");
        greeted(&mut tls);
        clients.push(tls);
    };
    for _ in 0..50 {
        join();
    }
    let before = server.resident_bytes();
    for _ in 0..MANY {
        join();
    }
    let each = server.resident_bytes().saturating_sub(before) / MANY;
    eprintln!("{each} bytes for each idle TLS client that sent {payload}");
    Some(each)
}

#[test]
fn an_idle_tls_client_costs_little_whatever_it_sent() {
    for payload in [0, 100_000] {
        let Some(each) = idle_bytes(payload) else { return };
        assert!(each < 24 * 1024, "{each} bytes each after {payload}");
    }
}

#[test]
fn a_server_that_stops_says_so_under_tls() {
    let Some(directory) = certificates() else { return };
    let mut server = Server::sedge(&tls_block(directory.path(), ""));
    let mut socket = plain(server.address());
    line(&mut socket);
    let config = client_config(directory.path(), None);
    let mut tls = secure(socket, &config).expect("a handshake");
    greeted(&mut tls);
    server.signal(Signal::TERM);
    let mut byte = [0];
    // An end without the alert would be an error.
    assert_eq!(tls.read(&mut byte).expect("a proper end"), 0);
    server.wait_exit().expect("it ends");
}

#[test]
fn the_certificate_says_who_the_user_is() {
    let Some(directory) = certificates() else { return };
    let path = directory.path().display();
    let more = format!("ca_file: \"{path}/ca.pem\", verify_and_map: true");
    let users = "authorization { users: [{ user: \"client@acme.com\", permissions: { \
                 publish: \"allowed\" } }] }";
    let config = format!("{}\n{users}", tls_block(directory.path(), &more));
    let server = Server::sedge(&config);
    let mut socket = plain(server.address());
    line(&mut socket);
    let config = client_config(directory.path(), Some("client"));
    let mut tls = secure(socket, &config).expect("a handshake");
    greeted(&mut tls);
    tls.write_all(b"PUB other 0\r\n\r\n").expect("it reads");
    assert_eq!(line(&mut tls), "-ERR 'Permissions Violation for Publish to \"other\"'");
}
