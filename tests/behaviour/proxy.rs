//! Clients behind a proxy that says who they are.

use crate::raw_client::RawClient;
use crate::server::Server;

#[test]
fn a_client_is_who_its_proxy_says() {
    let server = Server::sedge("proxy_protocol: true");
    for (header, ip) in [
        ("PROXY TCP4 1.2.3.4 5.6.7.8 111 222\r\n", "1.2.3.4"),
        ("PROXY TCP6 2001:db8::1 ::1 111 222\r\n", "2001:db8::1"),
        ("PROXY UNKNOWN\r\n", "127.0.0.1"),
        ("", "127.0.0.1"),
    ] {
        let mut client = RawClient::connect(server.address()).expect("it listens");
        let info = client.expect("INFO ");
        assert!(!info.line().contains("client_ip"), "{info:?}");
        client.send(header);
        client.send("CONNECT {\"protocol\":1,\"verbose\":false}\r\nPING\r\n");
        client.expect("PONG");
        let info = client.expect("INFO ");
        assert!(info.line().contains(&format!("\"client_ip\":\"{ip}\"")), "{header}: {info:?}");
    }
}

#[test]
fn a_broken_header_ends_the_connection() {
    let server = Server::sedge("proxy_protocol: true");
    let mut client = RawClient::connect(server.address()).expect("it listens");
    client.expect("INFO ");
    client.send("PROXY TCP4 1.2.3.4\r\n");
    assert!(client.expect_closed().is_empty());
    server.wait_for_line("invalid PROXY protocol header: invalid v1 format").unwrap();
}
