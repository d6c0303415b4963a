//! A server in a state that shows every kind of thing the pages know.
//!
//! Owns the configuration and what is done before the pages are asked: clients of three
//! accounts, one over TLS with a certificate, one by WebSocket, a link to a hub, a stream with a
//! consumer, a client that went and one that could not sign in.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::certificates::{Tls, client_config, plain, secure, tls_block};
use crate::raw_client::{Frame, RawClient};
use crate::server::Server;
use crate::shape::Json;

/// For what takes a moment: a link, an answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// A server with its clients.
pub(crate) struct State {
    _server: Server,
    http: SocketAddr,
    system: RawClient,
    /// As the system account's client learned it.
    pub(crate) id: String,
    /// Clients that stay.
    clients: Vec<RawClient>,
    _tls: Tls,
    _web: TcpStream,
    requests: u32,
}

impl State {
    /// Starts `binary` and does all of it.
    pub(crate) fn reach(binary: &Path, hub: SocketAddr, certificates: &Path) -> Self {
        let server = match Server::start(binary, &config(hub, certificates)) {
            Ok(server) => server,
            Err(why) => panic!("{why}"),
        };
        let http = server.listener("Starting http monitor on ").expect("a monitoring port");
        let web = server
            .log()
            .lines()
            .find_map(|line| line.split_once("Listening for websocket clients on ws://"))
            .and_then(|(_, address)| address.trim().parse().ok())
            .expect("a WebSocket port");
        let address = server.address();
        wait(|| page(http, "/leafz").contains("\"leafnodes\": 1"));
        let (system, info) = client(address, "\"user\":\"s\",\"pass\":\"p\",\"name\":\"operator\"");
        let id = Json::read(info.strip_prefix("INFO ").unwrap_or_default()).expect("INFO");
        let Some(Json::Text(id)) = id.get("server_id").cloned() else { panic!("no id: {info}") };

        let (mut alpha, _) = client(address, "\"user\":\"a\",\"pass\":\"p\",\"name\":\"alpha\"");
        alpha.send("SUB orders.* 1\r\nSUB work q 2\r\nUNSUB 2 9\r\nPUB orders.1 2\r\nhi\r\n");
        alpha.flush_messages();
        for (subject, body) in [
            ("STREAM.CREATE.S", "{\"name\":\"S\",\"subjects\":[\"s.*\"],\"max_msgs\":10}"),
            (
                "CONSUMER.CREATE.S.C",
                "{\"stream_name\":\"S\",\"config\":{\"name\":\"C\",\"durable_name\":\"C\",\"ack_policy\":\"explicit\"}}",
            ),
        ] {
            let told = ask(&mut alpha, "_INBOX.js", &format!("$JS.API.{subject}"), body);
            assert!(!told.contains("\"error\""), "{told}");
        }
        for number in 1..4 {
            let told = ask(&mut alpha, "_INBOX.js", &format!("s.{number}"), "payload");
            assert!(told.contains("\"seq\""), "{told}");
        }
        let tls = by_tls(address, certificates);
        let web = by_web_socket(web);
        let (gone, _) = client(address, "\"user\":\"b\",\"pass\":\"p\",\"name\":\"gone\"");
        drop(gone);
        let mut refused = RawClient::connect(address).expect("it accepts");
        refused.expect("INFO ");
        refused.send("CONNECT {\"verbose\":false,\"user\":\"x\",\"pass\":\"y\"}\r\nPING\r\n");
        refused.expect_closed();
        wait(|| page(http, "/connz?state=closed").contains("\"num_connections\": 2"));
        Self {
            _server: server,
            http,
            system,
            id,
            clients: vec![alpha],
            _tls: tls,
            _web: web,
            requests: 0,
        }
    }

    /// Status and body of a page.
    pub(crate) fn page(&self, path: &str) -> String {
        page(self.http, path)
    }

    /// The answer of a service; empty: there was none.
    pub(crate) fn service(&mut self, subject: &str, payload: &str) -> String {
        self.requests += 1;
        let inbox = format!("_INBOX.{}", self.requests);
        ask(&mut self.system, &inbox, subject, payload)
    }

    /// The same for a client of account A.
    pub(crate) fn service_for_a(&mut self, subject: &str) -> String {
        self.requests += 1;
        let inbox = format!("_INBOX.{}", self.requests);
        self.clients.first_mut().map_or_else(String::new, |client| ask(client, &inbox, subject, ""))
    }
}

fn config(hub: SocketAddr, certificates: &Path) -> String {
    let tls = tls_block(
        certificates,
        &format!("ca_file: \"{}/ca.pem\", verify: true", certificates.display()),
    );
    format!(
        "server_name: gateway\nserver_tags: [edge, north]\nserver_metadata {{ site: one }}\n\
         http: \"127.0.0.1:-1\"\nallow_non_tls: true\n{tls}\n\
         websocket {{ listen: \"127.0.0.1:-1\", no_tls: true }}\n\
         jetstream {{ store_dir: \"$DIR/js\", max_memory_store: 1MB, max_file_store: 10MB,\n\
           sync_interval: always, limits {{ max_ack_pending: 500, duplicate_window: \"90s\", max_request_batch: 200 }} }}\n\
         system_account: SYS\n\
         accounts {{\n\
           SYS {{ users: [ {{ user: s, password: p }} ] }}\n\
           A {{ jetstream: enabled, users: [ {{ user: a, password: p }} ]\n\
             mappings {{ old: new, \"w.*\": [ {{ dest: \"m.$1\", weight: 40 }}, {{ dest: \"n.$1\", weight: 20 }},\n\
               {{ dest: \"d.$1\", weight: 30, cluster: \"k\" }} ] }}\n\
             exports: [ {{ service: \"ask.>\", accounts: [B] }}, {{ stream: \"news.>\" }},\n\
               {{ service: many, response_type: stream, threshold: \"3s\" }}, {{ service: parts, response_type: chunked }},\n\
               {{ service: timed, latency: {{ sampling: 50%, subject: took }} }}, {{ service: asked, latency: {{ sampling: headers, subject: took }} }} ] }}\n\
           B {{ users: [ {{ user: b, password: p, permissions: {{ publish: \">\", subscribe: {{ deny: \"no\" }} }} }} ]\n\
             imports: [ {{ service: {{ account: A, subject: \"ask.one\" }}, to: \"mine\" }},\n\
               {{ service: {{ account: A, subject: \"ask.two.*\" }}, to: \"two.$1\", share: true }},\n\
               {{ service: {{ account: A, subject: many }} }}, {{ service: {{ account: A, subject: timed }} }},\n\
               {{ service: {{ account: A, subject: asked }} }}, {{ stream: {{ account: A, subject: \"news.a.*\" }}, to: \"all.$1\" }},\n\
               {{ stream: {{ account: A, subject: \"news.*\" }}, prefix: \"far\" }} ] }}\n\
         }}\n\
         leafnodes {{ remotes: [ {{ url: \"nats://l:p@{hub}\", account: B, deny_imports: \"x.>\" }} ] }}\n"
    )
}

fn client(address: SocketAddr, more: &str) -> (RawClient, String) {
    let mut client = RawClient::connect(address).expect("it accepts");
    let info = client.expect("INFO ").line();
    client.send(format!(
        "CONNECT {{\"verbose\":false,\"protocol\":1,\"headers\":true,\"no_responders\":true,\
         \"lang\":\"raw\",\"version\":\"1\",{more}}}\r\nPING\r\n"
    ));
    let deadline = Instant::now() + DEADLINE;
    client.pick(deadline, |frame| frame.line() == "PONG").expect("it is let in");
    (client, info)
}

fn ask(client: &mut RawClient, inbox: &str, subject: &str, payload: &str) -> String {
    client.send(format!("SUB {inbox} {inbox}\r\nUNSUB {inbox} 1\r\n"));
    client.publish_with_reply(subject, inbox, payload.as_bytes());
    let deadline = Instant::now() + DEADLINE;
    let answer = client.pick(
        deadline,
        |frame| matches!(frame, Frame::Message(message) if message.subject == inbox),
    );
    match answer {
        Ok(Frame::Message(message)) => String::from_utf8_lossy(&message.payload).into_owned(),
        other => panic!("{subject} was not answered: {other:?}"),
    }
}

fn by_tls(address: SocketAddr, certificates: &Path) -> Tls {
    let mut socket = plain(address);
    let mut byte = [0];
    while socket.read(&mut byte).expect("INFO") == 1 && byte != *b"\n" {}
    let mut tls =
        secure(socket, &client_config(certificates, Some("client"))).expect("a handshake");
    let connect = "CONNECT {\"verbose\":false,\"protocol\":1,\"user\":\"b\",\"pass\":\"p\",\
                   \"name\":\"secure\"}\r\nPING\r\n";
    tls.write_all(connect.as_bytes()).expect("it reads");
    let mut heard = Vec::new();
    while !heard.ends_with(b"PONG\r\n") {
        tls.read_exact(&mut byte).expect("PONG");
        heard.push(byte[0]);
    }
    tls
}

fn by_web_socket(address: SocketAddr) -> TcpStream {
    by_web_socket_as(address, "b", "page")
}

/// A client of the WebSocket listener.
pub(crate) fn by_web_socket_as(address: SocketAddr, user: &str, name: &str) -> TcpStream {
    let mut socket = plain(address);
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).expect("it reads");
    let (mut heard, mut byte) = (Vec::new(), [0]);
    while !heard.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte).expect("status 101");
        heard.push(byte[0]);
    }
    let text = format!(
        "CONNECT {{\"verbose\":false,\"user\":\"{user}\",\"pass\":\"p\",\"name\":\"{name}\"}}\r\nPING\r\n"
    );
    let mut frame = vec![0x82, 0x80 | u8::try_from(text.len()).expect("short"), 0, 0, 0, 0];
    frame.extend(text.as_bytes());
    socket.write_all(&frame).expect("it reads");
    while !heard.ends_with(b"PONG\r\n") {
        socket.read_exact(&mut byte).expect("PONG");
        heard.push(byte[0]);
    }
    socket
}

fn page(http: SocketAddr, path: &str) -> String {
    let mut socket = plain(http);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {http}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).unwrap_or_default();
    let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        unchunked(body)
    } else {
        body.to_owned()
    };
    format!("{status} {body}")
}

fn unchunked(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).expect("a length");
        if length == 0 {
            break;
        }
        out.push_str(&rest[..length]);
        body = &rest[length + 2..];
    }
    out
}

fn wait(mut until: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !until() {
        assert!(Instant::now() < deadline, "it did not come about");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl RawClient {
    /// All that was sent has been heard, whatever came back.
    fn flush_messages(&mut self) {
        self.send("PING\r\n");
        let deadline = Instant::now() + DEADLINE;
        self.pick(deadline, |frame| frame.line() == "PONG").expect("PONG");
    }
}
