//! Monitoring pages under TLS, and certificates that are pinned while clients are there.

use std::io::{Read, Write};
use std::net::TcpStream;

use rustix::process::Signal;

use crate::certificates::{certificates, client_config, plain, secure, tls_block};
use crate::server::Server;

const REQUEST: &[u8] = b"GET /varz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

fn rest(from: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 1024];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        bytes.extend_from_slice(&chunk[..count]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn pages_are_served_under_tls_and_ask_for_no_certificate() {
    let Some(directory) = certificates() else { return };
    let more = format!("ca_file: \"{}/ca.pem\", verify: true", directory.path().display());
    let block = tls_block(directory.path(), &more);
    let server = Server::sedge(&format!("{block}\nhttps: \"127.0.0.1:-1\"\n"));
    let address = server.listener("Starting https monitor on ").expect("it listens");
    let config = client_config(directory.path(), None);
    let ask = || {
        let mut tls = secure(plain(address), &config).expect("a handshake");
        tls.write_all(REQUEST).expect("it reads");
        rest(&mut tls)
    };
    let told = ask();
    assert!(told.starts_with("HTTP/1.1 200 OK"), "{told}");
    // As the file has it, like nats-server.
    assert!(told.contains("\"https_port\": -1"), "{told}");
    // Who speaks plainly, or never goes on, keeps nobody out.
    let mut plainly = plain(address);
    plainly.write_all(REQUEST).expect("it reads");
    assert!(!rest(&mut plainly).contains("200"));
    let idle: Vec<TcpStream> = (0..100).map(|_| plain(address)).collect();
    for mut socket in &idle {
        let _ = socket.write_all(b"\x16\x03\x01\x02");
    }
    assert!(ask().starts_with("HTTP/1.1 200 OK"));
    // A renewed certificate is shown from then on: here one that nobody trusts.
    let renew = "set -e; openssl req -x509 -new -key server.key -days 2 -subj /CN=new \
        -addext subjectAltName=DNS:localhost -out server.pem";
    let made = std::process::Command::new("sh")
        .args(["-c", renew])
        .current_dir(directory.path())
        .output()
        .expect("a shell");
    assert!(made.status.success(), "{made:?}");
    server.signal(Signal::HUP);
    server.wait_for_line("Reloaded server configuration").expect("a reload");
    assert!(secure(plain(address), &config).is_err());
}

#[test]
fn a_key_that_is_not_the_certificates_is_noticed_before_the_start() {
    let Some(directory) = certificates() else { return };
    let path = directory.path().display();
    let config = format!(
        "port: -1\ntls {{ cert_file: \"{path}/server.pem\", key_file: \"{path}/client.key\" }}\n"
    );
    let file = directory.path().join("wrong.conf");
    std::fs::write(&file, config).expect("a file");
    for more in [&["-t"][..], &[]] {
        let output = std::process::Command::new(crate::server::sedge_binary())
            .arg("-c")
            .arg(&file)
            .args(more)
            .output()
            .expect("it runs");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{more:?}: {told}");
        assert!(told.contains("key_file") && told.contains("cert_file"), "{more:?}: {told}");
    }
}

#[test]
fn clients_whose_certificate_is_not_pinned_any_more_are_closed() {
    let Some(directory) = certificates() else { return };
    let more = format!("ca_file: \"{}/ca.pem\", verify: true", directory.path().display());
    let server = Server::sedge(&tls_block(directory.path(), &more));
    let mut socket = plain(server.address());
    // INFO comes before the handshake.
    let mut byte = [0];
    while byte != *b"\n" {
        socket.read_exact(&mut byte).expect("INFO");
    }
    let config = client_config(directory.path(), Some("client"));
    let mut tls = secure(socket, &config).expect("a handshake");
    tls.write_all(b"CONNECT {\"verbose\":false}\r\nPING\r\n").expect("it reads");
    let mut pong = [0; 6];
    tls.read_exact(&mut pong).expect("in time");
    let pinned = format!("{more}, pinned_certs: [\"{}\"]", "0".repeat(64));
    server.write_config(&tls_block(directory.path(), &pinned)).expect("a file");
    server.signal(Signal::HUP);
    server.wait_for_line("Reloaded: 1 pinned_certs").expect("a reload");
    assert_eq!(rest(&mut tls), "");
    server.wait_for_line("Disconnect 1 clients due to pinned certs reload").expect("it says so");
}
