//! A broker with its connections, and what always has to hold.
//!
//! Owns a broker with `JetStream` over stores in memory, a clock that only [`World::pass`]
//! moves, and what was said to each connection. Every byte said is checked: a server that
//! garbles its own protocol breaks a promise, whatever it was asked.

use sedge::broker::options::Options;
use sedge::broker::{Broker, Output};
use sedge::id::ConnId;
use sedge::jetstream;
use sedge::jetstream::engine::MemStore;
use sedge::jetstream::storage::StoreReply;
use sedge::leaf::remote::Dial;
use sedge::leaf::{LeafUrl, RemoteOptions};
use sedge::subject::Filter;
use sedge::time::{Duration, Instant, Now, Timestamp};

use crate::engine::{Behaviour, digest};

/// Connections of clients in one world.
pub(crate) const CLIENTS_MAX: usize = 8;

/// Bounds so small that inputs reach them.
const CONTROL_LINE: usize = 1024;
const PAYLOAD: usize = 8 * 1024;
const PENDING: usize = 128 * 1024;

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    id: ConnId,
    /// Is it a hub, which speaks another protocol?
    hub: bool,
    /// Takes nothing of what waits for it.
    deaf: bool,
    /// The broker asked for its end, or it left.
    closed: bool,
    /// What was said and not yet cut into frames.
    unread: Vec<u8>,
    /// A digest of all that was said.
    said: u64,
}

/// See the module.
pub(crate) struct World {
    pub(crate) broker: Broker,
    store: MemStore,
    now: Now,
    peers: Vec<Peer>,
    /// By the number a script gives it.
    clients: [Option<usize>; CLIENTS_MAX],
    dials: Vec<(usize, Dial)>,
    hub: Option<usize>,
    /// Kinds of things that happened.
    behaviour: Behaviour,
    /// Whether payloads on `_INBOX.api.>` must be JSON.
    pub(crate) json_replies: bool,
}

impl World {
    /// A broker that has recovered an empty store.
    pub(crate) fn new() -> Self {
        let options = Options {
            server_id: "NFUZZ".into(),
            server_name: "fuzz".into(),
            max_payload: PAYLOAD,
            max_control_line: CONTROL_LINE,
            max_pending: PENDING,
            max_connections: 6,
            max_subscriptions: 64,
            max_sub_tokens: 16,
            jetstream: true,
            domain: Some("edge".into()),
            ..Options::default()
        };
        let js = jetstream::options::Options {
            domain: Some("edge".into()),
            max_memory: Some(1 << 20),
            max_storage: Some(1 << 20),
            ..jetstream::options::Options::default()
        };
        let now =
            Now { instant: Instant(1_000_000_000), wall: Timestamp(1_790_000_000_000_000_000) };
        let mut broker = Broker::new(options, Some(js), 7);
        let found = StoreReply::Recovered {
            streams: Vec::new(),
            next_stream: 1,
            last_ts: Timestamp::default(),
        };
        broker.handle_store(now, found);
        let mut world = Self {
            broker,
            store: MemStore::new(),
            now,
            peers: Vec::new(),
            clients: [None; CLIENTS_MAX],
            dials: Vec::new(),
            hub: None,
            behaviour: Behaviour::default(),
            json_replies: false,
        };
        world.settle();
        world
    }

    /// The client of this number, connected now if it was not.
    pub(crate) fn client(&mut self, number: usize) -> usize {
        if let Some(peer) = self.clients[number].filter(|peer| !self.peers[*peer].closed) {
            return peer;
        }
        let id = self.broker.accept(self.now, "127.0.0.1:4000");
        let peer = self.add(id, false);
        self.clients[number] = Some(peer);
        self.settle();
        peer
    }

    /// The link to a hub, dialled and reached if it is not there.
    pub(crate) fn hub(&mut self) -> Option<usize> {
        if let Some(peer) = self.hub.filter(|peer| !self.peers[*peer].closed) {
            return Some(peer);
        }
        if self.hub.is_none() && self.dials.is_empty() {
            let url = LeafUrl::parse("nats-leaf://user:secret@hub.example:7422");
            let urls = vec![url.expect("this is a URL")];
            let filter = |text: &str| Filter::parse(text.as_bytes()).expect("a filter");
            let options = RemoteOptions {
                urls,
                deny_imports: vec![filter("no.import.>")],
                deny_exports: vec![filter("no.export.*")],
                ..RemoteOptions::default()
            };
            self.broker.add_remote(self.now, options);
            self.settle();
        }
        let (remote, dial) = self.dials.pop()?;
        let id = self.broker.dialed(self.now, remote, &dial, None)?;
        let peer = self.add(id, true);
        self.hub = Some(peer);
        self.settle();
        Some(peer)
    }

    fn add(&mut self, id: ConnId, hub: bool) -> usize {
        self.peers.push(Peer { id, hub, deaf: false, closed: false, unread: Vec::new(), said: 0 });
        self.peers.len() - 1
    }

    /// A connection says something, without the end of a turn.
    pub(crate) fn say(&mut self, peer: usize, bytes: &[u8]) {
        let peer = &self.peers[peer];
        if !peer.closed {
            self.broker.receive(self.now, peer.id, bytes);
        }
    }

    /// A connection goes.
    pub(crate) fn leave(&mut self, peer: usize) {
        if !std::mem::replace(&mut self.peers[peer].closed, true) {
            self.broker.closed(self.now, self.peers[peer].id);
        }
    }

    /// A connection reads no more, or reads again.
    pub(crate) fn deafen(&mut self, peer: usize, deaf: bool) {
        self.peers[peer].deaf = deaf;
    }

    /// Time passes: in steps, as timers ask for it.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now.instant + time;
        for _ in 0..64 {
            let due = self.broker.poll_timeout().filter(|at| *at <= end);
            let at = due.unwrap_or(end).max(self.now.instant);
            let step = at.since(self.now.instant);
            self.now.instant = at;
            self.now.wall.0 += i64::try_from(step.as_nanos()).unwrap_or(0);
            self.broker.handle_timeout(self.now);
            self.settle();
            if due.is_none() {
                return;
            }
        }
    }

    /// The end of a turn, and everything it asks for.
    pub(crate) fn settle(&mut self) {
        for _ in 0..16 {
            self.broker.end_turn(self.now);
            let mut idle = true;
            while let Some(output) = self.broker.poll_output() {
                idle = false;
                self.carry_out(output);
            }
            while let Some(reply) = self.store.poll_reply() {
                idle = false;
                self.broker.handle_store(self.now, reply);
            }
            while let Some(id) = self.broker.next_dirty() {
                idle = false;
                self.deliver(id);
            }
            if idle {
                break;
            }
        }
        for peer in 0..self.peers.len() {
            if !self.peers[peer].deaf {
                self.deliver(self.peers[peer].id);
            }
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Store(request) => self.store.apply(request),
            Output::Close { conn, flush, reason } => {
                self.behaviour.note(reason.text().as_bytes());
                if flush {
                    self.deliver(conn);
                }
                let peer = self.peers.iter_mut().find(|peer| peer.id == conn);
                if let Some(peer) = peer
                    && !std::mem::replace(&mut peer.closed, true)
                {
                    self.broker.closed(self.now, conn);
                }
            }
            Output::LameDuckOver | Output::FetchClaims { .. } => {}
            Output::Dial { remote, dial, .. } => self.dials.push((remote, dial)),
            Output::StartTls { conn, .. } => self.broker.tls_done(self.now, conn, Ok(())),
            Output::CheckPassword { conn, hash, password } => {
                let matches = hash.expose().ends_with(password.expose());
                self.broker.password_checked(self.now, conn, matches);
            }
            Output::Notice(notice) => {
                assert!(!notice.text.contains('\n'), "two lines in one notice: {notice:?}");
                assert!(!notice.text.contains("secret"), "a notice tells a password");
            }
        }
    }

    fn deliver(&mut self, id: ConnId) {
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.id == id) else { return };
        let pending = self.broker.pending(id);
        let most = PENDING + PAYLOAD + CONTROL_LINE + 1024;
        assert!(pending.len() <= most, "{} bytes wait for one connection", pending.len());
        if peer.deaf || peer.closed || pending.is_empty() {
            return;
        }
        let count = pending.len();
        peer.said = digest(peer.said, pending);
        if peer.hub {
            assert!(pending.ends_with(b"\r\n"), "an operation without its end");
        } else {
            peer.unread.extend_from_slice(pending);
            check_frames(&mut peer.unread, &mut self.behaviour, self.json_replies);
            assert!(peer.unread.is_empty(), "not whole: {}", peer.unread.escape_ascii());
        }
        self.broker.transmitted(self.now, id, count);
    }

    /// What was said to each connection, in one number each.
    pub(crate) fn said(&self) -> Vec<u64> {
        self.peers.iter().map(|peer| peer.said).collect()
    }

    /// Everybody goes; then nothing may be left.
    pub(crate) fn finish(mut self) -> Behaviour {
        for peer in 0..self.peers.len() {
            self.leave(peer);
        }
        self.settle();
        self.pass(Duration::from_millis(10));
        self.behaviour
    }

    /// Has the connection ended?
    pub(crate) fn is_closed(&self, peer: usize) -> bool {
        self.peers[peer].closed
    }

    /// Something a target saw.
    pub(crate) fn note(&mut self, what: &[u8]) {
        self.behaviour.note(what);
    }
}

/// Cuts what a client was told into frames, each of which must be one.
fn check_frames(unread: &mut Vec<u8>, behaviour: &mut Behaviour, json_replies: bool) {
    let mut rest = &unread[..];
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        let line = &rest[..end];
        let body = &rest[end + 2..];
        let verb = line.split(|byte| *byte == b' ').next().unwrap_or_default();
        let used = match verb {
            b"PING" | b"PONG" | b"+OK" => {
                assert_eq!(line.len(), verb.len(), "{}", line.escape_ascii());
                0
            }
            b"-ERR" => {
                assert!(line.starts_with(b"-ERR '") && line.ends_with(b"'"));
                let text: Vec<u8> = line.iter().copied().take(20).collect();
                behaviour.note(&text);
                0
            }
            b"INFO" => {
                let json = serde_json::from_slice::<serde_json::Value>(&line[5..]);
                assert!(json.is_ok_and(|json| json.is_object()), "{}", line.escape_ascii());
                0
            }
            b"MSG" | b"HMSG" => check_message(line, body, behaviour, json_replies),
            _ => panic!("not an operation: {}", line.escape_ascii()),
        };
        rest = &body[used..];
    }
    *unread = rest.to_vec();
}

/// Checks a message and says how long its body is.
fn check_message(line: &[u8], body: &[u8], behaviour: &mut Behaviour, json: bool) -> usize {
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let size = |word: &[u8]| -> usize {
        let text = std::str::from_utf8(word).expect("digits");
        text.parse().unwrap_or_else(|_| panic!("no size in {}", line.escape_ascii()))
    };
    let (sizes, has_headers) = if words[0] == b"HMSG" { (2, true) } else { (1, false) };
    assert!((3 + sizes..=4 + sizes).contains(&words.len()), "{}", line.escape_ascii());
    let total = size(words[words.len() - 1]);
    let header_len = if has_headers { size(words[words.len() - 2]) } else { 0 };
    assert!(header_len <= total);
    assert_eq!(body.get(total..total + 2), Some(&b"\r\n"[..]), "{}", line.escape_ascii());
    let (headers, payload) = body[..total].split_at(header_len);
    if json && words[1].starts_with(b"_INBOX.api.") && !has_headers && !payload.is_empty() {
        let value = serde_json::from_slice::<serde_json::Value>(payload);
        let value = value.unwrap_or_else(|error| panic!("{error} in {}", payload.escape_ascii()));
        if let Some(code) = value.pointer("/error/err_code") {
            behaviour.note(code.to_string().as_bytes());
        } else if let Some(kind) = value.get("type") {
            behaviour.note(kind.to_string().as_bytes());
        }
    }
    behaviour.note(words[0]);
    if let Some(status) = headers.strip_prefix(b"NATS/1.0 ") {
        behaviour.note(&status[..status.len().min(3)]);
    }
    total + 2
}
