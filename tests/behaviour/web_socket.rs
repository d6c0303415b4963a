//! WebSocket clients: the upgrade, frames, closes, origins, compression.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::certificates::plain;
use crate::raw_client::RawClient;
use crate::server::Server;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A server with a WebSocket listener, and where that is.
fn start(more: &str, rest: &str) -> (Server, SocketAddr) {
    let config =
        format!("websocket {{ listen: \"127.0.0.1:-1\", no_tls: true\n{more}\n }}\n{rest}");
    let server = Server::sedge(&config);
    let log = server.log();
    let address = log
        .lines()
        .find_map(|line| line.split_once("Listening for websocket clients on ws://"))
        .and_then(|(_, address)| address.trim().parse().ok());
    (server, address.expect("the line says where"))
}

/// Sends a request and returns the answer up to its empty line.
fn ask(address: SocketAddr, more: &str) -> (TcpStream, String) {
    let mut socket = plain(address);
    let mut request = format!(
        "GET / HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
    );
    let _ = write!(request, "{more}\r\n");
    socket.write_all(request.as_bytes()).expect("it reads");
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") && socket.read(&mut byte).expect("in time") > 0 {
        answer.push(byte[0]);
    }
    (socket, String::from_utf8_lossy(&answer).into_owned())
}

/// Upgrades, and takes INFO.
fn upgraded(address: SocketAddr, more: &str) -> TcpStream {
    let (mut socket, answer) = ask(address, more);
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
    let (first, info) = frame(&mut socket).expect("INFO");
    assert_eq!(first & 0x8f, 0x82);
    if first & 0x40 == 0 {
        assert!(info.starts_with(b"INFO "));
    }
    socket
}

/// The next frame; `None` at the end.
fn frame(socket: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 2];
    socket.read_exact(&mut head).ok()?;
    assert_eq!(head[1] & 0x80, 0, "a server does not mask");
    let length = match head[1] {
        126 => {
            let mut more = [0; 2];
            socket.read_exact(&mut more).ok()?;
            usize::from(u16::from_be_bytes(more))
        }
        127 => {
            let mut more = [0; 8];
            socket.read_exact(&mut more).ok()?;
            usize::try_from(u64::from_be_bytes(more)).expect("it fits")
        }
        short => usize::from(short),
    };
    let mut payload = vec![0; length];
    socket.read_exact(&mut payload).ok()?;
    Some((head[0], payload))
}

/// A frame with a mask.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut out = vec![first];
    match u16::try_from(payload.len()) {
        Ok(length) if length < 126 => out.push(0x80 | u8::try_from(length).expect("short")),
        Ok(length) => {
            out.push(0xfe);
            out.extend(length.to_be_bytes());
        }
        Err(_) => {
            out.push(0xff);
            out.extend((payload.len() as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

#[test]
fn messages_pass_between_web_socket_and_plain_clients() {
    let (server, address) = start("", "");
    let mut web = upgraded(address, "");
    let connect = b"CONNECT {\"verbose\":false}\r\nSUB to.web 1\r\nPING\r\n";
    web.write_all(&masked(0x82, connect)).expect("it reads");
    assert_eq!(frame(&mut web).expect("PONG"), (0x82, b"PONG\r\n".to_vec()));
    let mut client = RawClient::greet(server.address());
    client.send("SUB to.plain 1\r\n");
    client.flush();
    let large = vec![b'x'; 200_000];
    client.publish("to.web", &large);
    let mut received = Vec::new();
    while received.len() < large.len() {
        received.extend(frame(&mut web).expect("a message").1);
    }
    assert!(received.starts_with(b"MSG to.web 1 200000\r\nxxx"));
    let publish = [&b"PUB to.plain 200000\r\n"[..], &large, b"\r\n"].concat();
    let (front, back) = publish.split_at(70_000);
    web.write_all(&masked(0x02, front)).expect("it reads");
    web.write_all(&masked(0x89, b"hello")).expect("it reads");
    web.write_all(&masked(0x80, back)).expect("it reads");
    assert_eq!(frame(&mut web).expect("a pong"), (0x8a, b"hello".to_vec()));
    client.expect_message("to.plain", &large);
    web.write_all(&masked(0x88, &[3, 232, b'b'])).expect("it reads");
    assert_eq!(frame(&mut web).expect("a close"), (0x88, vec![3, 232, b'b']));
    assert_eq!(frame(&mut web), None);
}

#[test]
fn frames_against_the_rules_end_the_connection_with_a_reason() {
    let (_server, address) = start("", "");
    for (bytes, text) in [
        (vec![0x82, 4, b'P', b'I', b'N', b'G'], "mask bit missing"),
        (masked(0x83, b"x"), "unknown opcode 3"),
        (masked(0xc2, b"x"), "compressed frame received without negotiated permessage-deflate"),
        (masked(0x80, b"x"), "invalid continuation frame"),
        (masked(0x09, b"x"), "control frame does not have final bit set"),
        (masked(0x89, &[0; 126]), "control frame length bigger than maximum allowed of 125 bytes"),
    ] {
        let mut web = upgraded(address, "");
        web.write_all(&bytes).expect("it reads");
        let (first, body) = frame(&mut web).expect("a close");
        assert_eq!((first, &body[..2], &body[2..]), (0x88, &[3, 234][..], text.as_bytes()));
        assert_eq!(frame(&mut web), None);
    }
    // A length no message has, and none of its bytes.
    let mut web = upgraded(address, "");
    web.write_all(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]).expect("it reads");
    assert_eq!(frame(&mut web), None);
}

#[test]
fn a_payload_over_the_bound_is_told_before_it_is_read() {
    let (_server, address) = start("", "max_payload: 1000");
    let mut web = upgraded(address, "");
    web.write_all(&masked(0x82, b"PUB a 2000\r\n")).expect("it reads");
    assert_eq!(frame(&mut web).expect("-ERR").1, b"-ERR 'Maximum Payload Violation'\r\n".to_vec());
    let (first, body) = frame(&mut web).expect("a close");
    assert_eq!((first, &body[..2]), (0x88, &1009_u16.to_be_bytes()[..]));
    assert_eq!(&body[2..], b"Maximum Message Payload Exceeded");
}

#[test]
fn pages_of_other_origins_are_refused() {
    let (_server, address) = start("same_origin: true", "");
    assert!(ask(address, "Origin: http://evil.example\r\n").1.starts_with("HTTP/1.1 403 "));
    upgraded(address, &format!("Origin: http://{address}\r\n"));
    upgraded(address, "");
    let (_server, address) = start("allowed_origins: [\"http://good.example\"]", "");
    for (origin, status) in [
        ("http://good.example:80", "101"),
        ("https://good.example", "403"),
        ("http://good.example.evil", "403"),
        ("null", "403"),
    ] {
        let (_, answer) = ask(address, &format!("Origin: {origin}\r\n"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{origin}: {answer}");
    }
}

#[test]
fn requests_that_are_no_upgrade_are_answered_and_closed() {
    let (_server, address) = start("handshake_timeout: \"500ms\"", "");
    for (request, status) in [
        ("POST / HTTP/1.1\r\nHost: a\r\n\r\n", "405"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
        ("GET /mqtt HTTP/1.1\r\nHost: a\r\n\r\n", "404"),
        ("rubbish\r\n\r\n", "400"),
        (&format!("GET / HTTP/1.1\r\nX: {}\r\n", "y".repeat(20_000)), "431"),
        ("GET / HTT", ""),
    ] {
        let mut socket = plain(address);
        socket.write_all(request.as_bytes()).expect("it reads");
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        let begin = if status.is_empty() { String::new() } else { format!("HTTP/1.1 {status} ") };
        assert!(answer.starts_with(&begin), "{request:.40}: {answer}");
    }
}

#[test]
fn compressed_messages_go_both_ways_and_a_bomb_does_not_go_off() {
    use miniz_oxide::deflate::compress_to_vec;
    let (server, address) = start("compression: true", "");
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    let mut web = upgraded(address, offer);
    // A final block without the flush at its end is what a message may be too.
    let packed = compress_to_vec(b"CONNECT {\"verbose\":false}\r\nSUB a 1\r\nPING\r\n", 6);
    web.write_all(&masked(0xc2, &packed)).expect("it reads");
    assert_eq!(frame(&mut web).expect("PONG"), (0x82, b"PONG\r\n".to_vec()));
    let mut client = RawClient::greet(server.address());
    client.publish("a", &[b'z'; 5000]);
    let (first, mut body) = frame(&mut web).expect("a message");
    assert_eq!(first, 0xc2);
    assert!(body.len() < 500, "{}", body.len());
    body.extend([0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff]);
    let message = miniz_oxide::inflate::decompress_to_vec(&body).expect("deflated");
    assert!(message.starts_with(b"MSG a 1 5000\r\nzzz"), "{}", message.len());
    let before = server.resident_bytes();
    let bomb = compress_to_vec(&[&b"PUB a 900000\r\n"[..], &vec![0; 50_000_000]].concat(), 6);
    web.write_all(&masked(0xc2, &bomb)).expect("it reads");
    while frame(&mut web).is_some() {}
    client.flush();
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 8 * 1024 * 1024, "{grown} bytes more");
}

#[test]
fn cookies_stand_for_what_connect_leaves_out() {
    let (_server, address) =
        start("user_cookie: u, pass_cookie: p", "authorization { user: alice, password: secret }");
    let mut web = upgraded(address, "Cookie: x=y; u=alice; p=secret\r\n");
    web.write_all(&masked(0x82, b"CONNECT {\"verbose\":false}\r\nPING\r\n")).expect("it reads");
    assert_eq!(frame(&mut web).expect("PONG").1, b"PONG\r\n".to_vec());
    let mut web = upgraded(address, "Cookie: u=alice; p=wrong\r\n");
    web.write_all(&masked(0x82, b"CONNECT {\"verbose\":false}\r\nPING\r\n")).expect("it reads");
    assert_eq!(frame(&mut web).expect("-ERR").1, b"-ERR 'Authorization Violation'\r\n".to_vec());
    let (first, body) = frame(&mut web).expect("a close");
    assert_eq!(
        (first, &body[..2], &body[2..]),
        (0x88, &[3, 240][..], &b"Authentication Failure"[..])
    );
}
