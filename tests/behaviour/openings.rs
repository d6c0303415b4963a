//! Peers that dawdle on their way in: before WebSocket's upgrade, in a PROXY header, in TLS.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::abuse::{Bystanders, USERS, all_closed, allow_many_files};
use crate::server::Server;

const MIB: u64 = 1024 * 1024;

/// A thousand connections that say `words` up to some byte and no more: they are closed, cost
/// little, and others are served meanwhile.
fn dawdle(server: &Server, to: SocketAddr, words: &[u8], bystanders: &mut Bystanders) {
    let before = server.resident_bytes();
    let mut sockets = Vec::new();
    for number in 0..1000 {
        let mut socket = TcpStream::connect(to).expect("it accepts");
        let _ = socket.write_all(&words[..number % words.len()]);
        sockets.push(socket);
        if number % 50 == 0 {
            bystanders.talk();
        }
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 24 * MIB, "{grown} bytes for 1,000 that dawdle");
    all_closed(&mut sockets, bystanders);
    bystanders.were_served();
}

#[test]
fn upgrades_that_stand_still_are_closed_and_cost_little() {
    allow_many_files();
    let web = "websocket { listen: \"127.0.0.1:-1\", no_tls: true, handshake_timeout: \"1s\" }\n";
    let server = Server::sedge(&format!("{USERS}{web}"));
    let address = server.listener("Listening for websocket clients on ws://").expect("it listens");
    let mut bystanders = Bystanders::meet(server.address());
    let words = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX: ";
    dawdle(&server, address, words, &mut bystanders);
}

#[test]
fn an_upgrade_a_byte_at_a_time_ends_at_its_timeout() {
    let web = "websocket { listen: \"127.0.0.1:-1\", no_tls: true, handshake_timeout: \"1s\" }\n";
    let server = Server::sedge(web);
    let address = server.listener("Listening for websocket clients on ws://").expect("it listens");
    let mut socket = TcpStream::connect(address).expect("it accepts");
    let began = Instant::now();
    let words = b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ".iter().chain(std::iter::repeat(&b'x'));
    for byte in words.take(2000) {
        if socket.write_all(&[*byte]).is_err() {
            break;
        }
        // The pace of a peer that is slow on purpose.
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(began.elapsed() < Duration::from_secs(10), "closed after {:?}", began.elapsed());
}

#[test]
fn proxy_headers_that_stand_still_are_closed_and_cost_little() {
    allow_many_files();
    let web = "websocket { listen: \"127.0.0.1:-1\", no_tls: true }\n";
    let server = Server::sedge(&format!("{web}proxy_protocol: true\n"));
    let words = b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 4222";
    let before = server.resident_bytes();
    let mut sockets = Vec::new();
    for number in 0..1000 {
        let mut socket = TcpStream::connect(server.address()).expect("it accepts");
        let _ = socket.write_all(&words[..number % words.len()]);
        sockets.push(socket);
    }
    // Somebody who comes through the proxy as one should.
    let mut served = crate::certificates::plain(server.address());
    served.write_all(words).expect("it reads");
    served.write_all(b"\r\nCONNECT {\"verbose\":false}\r\nPING\r\n").expect("it reads");
    let mut told = String::new();
    while !told.contains("PONG") {
        let mut byte = [0; 512];
        let count = std::io::Read::read(&mut served, &mut byte).expect("in time");
        assert!(count > 0, "closed after {told}");
        told.push_str(&String::from_utf8_lossy(&byte[..count]));
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 24 * MIB, "{grown} bytes for 1,000 half headers");
    for mut socket in sockets {
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("above zero");
        let mut byte = [0; 64];
        while let Ok(1..) = std::io::Read::read(&mut socket, &mut byte) {}
    }
}
