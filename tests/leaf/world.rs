//! A hub and gateways, and clients of both.
//!
//! Owns how the servers are started and found, and waiting for interest to have crossed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sedge::auth::creds::Creds;

use crate::peers;
use crate::raw_client::{DEADLINE, Frame, Message, RawClient};
use crate::server::Server;

/// nats-server, or `None` after saying loudly that it is missing.
///
/// # Panics
/// When it is missing and `SEDGE_REQUIRE_PEERS=1`.
pub(crate) fn nats_server() -> Option<PathBuf> {
    match peers::nats_server() {
        Ok(path) => Some(path),
        Err(why) => {
            assert!(
                std::env::var("SEDGE_REQUIRE_PEERS").as_deref() != Ok("1"),
                "SEDGE_REQUIRE_PEERS=1 and {why}"
            );
            eprintln!("LEFT OUT: {why}");
            None
        }
    }
}

/// A nats-server that takes leaf nodes.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) server: Server,
    /// Where leaf nodes connect.
    pub(crate) leaf_address: SocketAddr,
}

impl Hub {
    /// `leafnodes` is what else goes into that block, `rest` into the file.
    pub(crate) fn start(name: &str, leafnodes: &str, rest: &str) -> Option<Self> {
        Self::start_on(name, -1, leafnodes, rest)
    }

    /// On a leaf port of one's own, for a hub that comes later.
    pub(crate) fn start_on(name: &str, port: i32, leafnodes: &str, rest: &str) -> Option<Self> {
        let config = format!(
            "server_name: {name}\nleafnodes {{ host: \"127.0.0.1\", port: {port}\n{leafnodes} }}\n{rest}"
        );
        let server = match Server::start(&nats_server()?, &config) {
            Ok(server) => server,
            Err(why) => panic!("{why}"),
        };
        let log = server.log();
        let listening = log.lines().find_map(|line| {
            line.split_once("Listening for leafnode connections on ").map(|(_, rest)| rest)
        });
        let leaf_address = listening
            .and_then(|address| address.trim().parse().ok())
            .expect("nats-server says where it takes leaf nodes");
        Some(Self { server, leaf_address })
    }

    pub(crate) fn client(&self) -> RawClient {
        RawClient::greet(self.server.address())
    }
}

/// A Sedge called `name` with these remotes, as they stand in `remotes: [ … ]`.
pub(crate) fn gateway(name: &str, remotes: &str) -> Server {
    Server::sedge(&format!("server_name: {name}\nleafnodes {{ remotes: [ {remotes} ] }}\n"))
}

/// The simplest remote.
pub(crate) fn remote_to(address: SocketAddr) -> String {
    format!("{{ url: \"nats-leaf://{address}\" }}")
}

/// A file of `tests/fixtures/auth`.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/auth").join(name)
}

/// A client with a creds file.
pub(crate) fn client_with_creds(address: SocketAddr, file: &str) -> RawClient {
    let text = std::fs::read_to_string(fixture(file)).expect("the fixture is there");
    let creds = Creds::parse(&text).expect("it is a creds file");
    let mut client = RawClient::connect(address).expect("the server accepts connections");
    let info = client.expect("INFO ").line();
    let info: serde_json::Value = serde_json::from_str(&info[5..]).expect("INFO is JSON");
    let nonce = info["nonce"].as_str().expect("a server in operator mode sends a nonce");
    let signature = creds.seed.sign(nonce.as_bytes()).expect("a user's seed signs");
    let connect = serde_json::json!({
        "verbose": false, "pedantic": false, "protocol": 0, "headers": true,
        "no_responders": true, "jwt": creds.jwt.expose(),
        "sig": data_encoding::BASE64URL_NOPAD.encode(&signature),
    });
    client.send(format!("CONNECT {connect}\r\nPING\r\n"));
    client.expect("PONG");
    client
}

/// Waits until `server` has logged a line with `text` in it.
///
/// # Panics
/// After `within`.
pub(crate) fn wait_for_line(server: &Server, text: &str, within: Duration) {
    if let Err(why) = server.wait_for_lines(text, 1, within) {
        panic!("{why}");
    }
}

/// How often `server` has logged a line with `text` in it.
pub(crate) fn count_lines(server: &Server, text: &str) -> usize {
    server.log().lines().filter(|line| line.contains(text)).count()
}

/// Publishes from `from` until `to`, which has subscribed, receives one: until then interest
/// may not have crossed. Returns the time it took.
///
/// # Panics
/// After `within`.
pub(crate) fn wait_for_way(
    from: &mut RawClient,
    to: &mut RawClient,
    subject: &str,
    within: Duration,
) -> Duration {
    let start = Instant::now();
    loop {
        from.publish(subject, b"way?");
        let wait = Instant::now() + Duration::from_millis(10);
        let came =
            to.pick(wait, |frame| matches!(frame, Frame::Message(m) if m.subject == subject));
        if came.is_ok() {
            break;
        }
        assert!(start.elapsed() < within, "nothing on {subject:?} within {within:?}");
    }
    let took = start.elapsed();
    // What else was published meanwhile is on its way: a last one is behind it.
    from.publish(subject, b"the way is open");
    let last = to.pick(
        Instant::now() + DEADLINE,
        |frame| matches!(frame, Frame::Message(m) if m.payload == b"the way is open"),
    );
    last.expect("messages arrive in order");
    while to.pick(Instant::now() + Duration::from_millis(1), is_way).is_ok() {}
    took
}

fn is_way(frame: &Frame) -> bool {
    matches!(frame, Frame::Message(m) if m.payload == b"way?")
}

/// The next message, whatever else comes before it.
///
/// # Panics
/// When none comes.
pub(crate) fn next_message(client: &mut RawClient) -> Message {
    let frame = client.pick(Instant::now() + DEADLINE, |frame| matches!(frame, Frame::Message(_)));
    match frame {
        Ok(Frame::Message(message)) => message,
        other => panic!("wanted a message, got {other:?}"),
    }
}

/// All messages that come within a moment.
pub(crate) fn messages_within(client: &mut RawClient, wait: Duration) -> Vec<Message> {
    let until = Instant::now() + wait;
    let mut messages = Vec::new();
    while let Ok(frame) = client.pick(until, |frame| matches!(frame, Frame::Message(_))) {
        if let Frame::Message(message) = frame {
            messages.push(message);
        }
    }
    messages
}
