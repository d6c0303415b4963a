//! A model of the hub: a nats-server that accepts a leaf connection and has a stream that
//! sources from the gateway's.
//!
//! Owns what such a server does as far as the gateway can tell: handshake, interest, the
//! sourcing of one stream with all its waits. Written from recordings of nats-server 2.15.1
//! and knows nothing of Sedge.

use std::collections::BTreeSet;

use sedge::subject::matches;
use sedge::time::{Duration, Instant};
use serde_json::{Value, json};

use crate::chance::Chance;
use crate::ledger::{self, Ledger};
use crate::link::{ConnNo, Net, Read, Side};
use crate::trace::Trace;

const SECOND: Duration = Duration::from_secs(1);
/// For the answer to a create request.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// Between two create requests, at least.
const CREATE_PACE: Duration = Duration::from_secs(2);
/// How often, and after how long a silence, a source is made anew.
const STALL_CHECK: Duration = Duration::from_secs(10);
const PING_EVERY: Duration = Duration::from_mins(2);

/// How the hub behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HubPlan {
    /// What a read takes at most.
    pub(crate) read_max: usize,
    /// Breaks it on purpose: a new consumer begins after the newest message it heard of,
    /// instead of after the last it stored.
    pub(crate) forgets_position: bool,
    /// Drops messages whose `Nats-Msg-Id` it has, as a stream with a duplicate window does.
    pub(crate) dedupes: bool,
}

#[derive(Debug)]
struct Leaf {
    conn: ConnNo,
    /// CONNECT was taken.
    ready: bool,
    input: Vec<u8>,
    output: Vec<u8>,
    interest: BTreeSet<Vec<u8>>,
    ping_at: Instant,
    pings_out: u32,
    name: String,
}

#[derive(Debug)]
enum Source {
    /// Until then nothing happens.
    Resting { until: Instant },
    /// A request is out.
    Asking { inbox: String, until: Instant },
    /// A consumer delivers.
    Live { consumer: String, deliver: String, dseq: u64, heard_at: Instant, check_at: Instant },
}

/// The hub.
#[derive(Debug)]
pub(crate) struct Hub {
    plan: HubPlan,
    chance: Chance,
    /// Listens until told otherwise.
    up: bool,
    leafs: Vec<Leaf>,
    source: Source,
    created_at: Option<Instant>,
    failures: u32,
    api_level: u8,
    identity: String,
    /// The last sequence of the origin that is stored, in the source header of a message.
    last_seq: u64,
    /// The newest it was told of.
    rumoured_seq: u64,
    ids: BTreeSet<Vec<u8>>,
    pub(crate) creates: u32,
    /// Bytes stored, for the trace.
    pub(crate) stored: u64,
}

impl Hub {
    /// Up, with an empty stream.
    pub(crate) fn new(plan: HubPlan, chance: Chance) -> Self {
        Self {
            plan,
            chance,
            up: true,
            leafs: Vec::new(),
            source: Source::Resting { until: Instant(150_000_000) },
            created_at: None,
            failures: 0,
            api_level: 5,
            identity: String::new(),
            last_seq: 0,
            rumoured_seq: 0,
            ids: BTreeSet::new(),
            creates: 0,
            stored: 0,
        }
    }

    /// Does it listen?
    pub(crate) fn is_up(&self) -> bool {
        self.up
    }

    /// The process ends; what is stored stays.
    pub(crate) fn stop(&mut self, now: Instant, net: &mut Net) {
        self.up = false;
        for leaf in self.leafs.drain(..) {
            net.close(now, leaf.conn, Side::Peer);
        }
    }

    /// The process starts, and finds its position in its own messages.
    pub(crate) fn start(&mut self, now: Instant) {
        self.up = true;
        let delay = self.chance.even(SECOND / 10, SECOND / 5);
        self.source = Source::Resting { until: now + delay };
        self.created_at = None;
        self.failures = 0;
        self.api_level = 5;
        self.rumoured_seq = self.last_seq;
    }

    /// The gateway dialled.
    pub(crate) fn accept(&mut self, now: Instant, conn: ConnNo) {
        let nonce = self.chance.token(15);
        let info = json!({
            "server_id": "NHUB", "server_name": "HUB", "version": "2.15.1", "proto": 3,
            "host": "hub", "port": 7422, "headers": true, "auth_required": true,
            "max_payload": 1_048_576, "jetstream": true, "domain": "hub",
            "ip": "hub:7422", "client_id": conn, "nonce": nonce, "compression": "off",
            "api_lvl": 5, "info_on_connect": true, "leafnode_urls": ["hub:7422"],
        });
        self.leafs.push(Leaf {
            conn,
            ready: false,
            input: Vec::new(),
            output: format!("INFO {info} \r\n").into_bytes(),
            interest: BTreeSet::new(),
            // Until CONNECT was taken: the wait for it.
            ping_at: now + SECOND * 2,
            pings_out: 0,
            name: String::new(),
        });
    }

    /// When there is something to do.
    pub(crate) fn next_at(&self, net: &Net) -> Option<Instant> {
        if !self.up {
            return None;
        }
        let source = match &self.source {
            Source::Resting { until } | Source::Asking { until, .. } => *until,
            Source::Live { check_at, .. } => *check_at,
        };
        let leafs = self.leafs.iter().flat_map(|leaf| {
            let writable = !leaf.output.is_empty() && net.has_room(leaf.conn, Side::Peer);
            let write = writable.then_some(Instant(0));
            [net.readable_at(leaf.conn, Side::Peer), write, Some(leaf.ping_at)]
        });
        leafs.flatten().chain([source]).min()
    }

    /// Does all that is due.
    pub(crate) fn run(
        &mut self,
        now: Instant,
        net: &mut Net,
        ledger: &mut Ledger,
        trace: &mut Trace,
    ) {
        let mut conns: Vec<ConnNo> = self.leafs.iter().map(|leaf| leaf.conn).collect();
        self.chance.shuffle(&mut conns);
        for conn in conns {
            self.read(now, conn, net, ledger, trace);
        }
        self.ping(now, net, trace);
        self.source_timeout(now, trace);
        let mut broken = Vec::new();
        for leaf in self.leafs.iter_mut().filter(|leaf| !leaf.output.is_empty()) {
            match net.write(now, leaf.conn, Side::Peer, &leaf.output) {
                Some(count) => drop(leaf.output.drain(..count)),
                None => broken.push(leaf.conn),
            }
        }
        for conn in broken {
            self.lost(now, conn, net);
        }
    }

    fn lost(&mut self, now: Instant, conn: ConnNo, net: &mut Net) {
        net.close(now, conn, Side::Peer);
        self.leafs.retain(|leaf| leaf.conn != conn);
    }

    fn ping(&mut self, now: Instant, net: &mut Net, trace: &mut Trace) {
        let mut stale = Vec::new();
        for leaf in self.leafs.iter_mut().filter(|leaf| leaf.ping_at <= now) {
            if !leaf.ready || leaf.pings_out > 2 {
                trace.line(now, || format!("hub: connection {} is stale", leaf.conn));
                stale.push(leaf.conn);
                continue;
            }
            leaf.pings_out += 1;
            leaf.ping_at = now + PING_EVERY;
            leaf.output.extend_from_slice(b"PING\r\n");
        }
        for conn in stale {
            self.lost(now, conn, net);
        }
    }

    // --- The leaf protocol ---

    fn read(
        &mut self,
        now: Instant,
        conn: ConnNo,
        net: &mut Net,
        ledger: &mut Ledger,
        trace: &mut Trace,
    ) {
        let max = self.chance.size(1, self.plan.read_max);
        let bytes = match net.read(now, conn, Side::Peer, max) {
            Read::Nothing => return,
            Read::End => {
                trace.line(now, || format!("hub: connection {conn} ended"));
                return self.lost(now, conn, net);
            }
            Read::Bytes(bytes) => bytes,
        };
        let Some(leaf) = self.leafs.iter_mut().find(|leaf| leaf.conn == conn) else { return };
        leaf.input.extend(bytes);
        let mut input = std::mem::take(&mut leaf.input);
        let mut used = 0;
        while let Some((op, len)) = parse(&input[used..]) {
            used += len;
            self.op(now, conn, op, net, ledger, trace);
        }
        input.drain(..used);
        if let Some(leaf) = self.leafs.iter_mut().find(|leaf| leaf.conn == conn) {
            leaf.input = input;
        }
    }

    fn op(
        &mut self,
        now: Instant,
        conn: ConnNo,
        op: Op,
        net: &mut Net,
        ledger: &mut Ledger,
        trace: &mut Trace,
    ) {
        let Some(at) = self.leafs.iter().position(|leaf| leaf.conn == conn) else { return };
        match op {
            Op::Connect(json) => self.connect(now, at, &json, net, trace),
            Op::Info => {}
            Op::Ping => self.leafs[at].output.extend_from_slice(b"PONG\r\n"),
            Op::Pong => self.leafs[at].pings_out = 0,
            Op::Err(text) => trace.line(now, || format!("hub: gateway says -ERR {text}")),
            Op::Add(subject) => drop(self.leafs[at].interest.insert(subject)),
            Op::Remove(subject) => drop(self.leafs[at].interest.remove(&subject)),
            Op::Msg { subject, reply, headers, payload } => {
                if self.leafs[at].ready {
                    self.message(now, &subject, &reply, &headers, &payload, ledger, trace);
                }
            }
            Op::Unknown(line) => {
                let line = String::from_utf8_lossy(&line).into_owned();
                ledger.fail(format!("the gateway sent the hub {line:?}"));
            }
        }
    }

    fn connect(&mut self, now: Instant, at: usize, json: &[u8], net: &mut Net, trace: &mut Trace) {
        let connect: Value = serde_json::from_slice(json).unwrap_or_default();
        let name = connect["name"].as_str().unwrap_or_default().to_owned();
        let mut wanted: Vec<String> = [
            "$SYS.REQ.ACCOUNT.PING.CONNZ",
            "$SYS.REQ.SERVER.PING.CONNZ",
            "$SYS.REQ.USER.INFO",
            "$LDS.hubhubhubhubhubhubhubh",
            "$JS.API.>",
            "$JS.hub.API.>",
        ]
        .map(String::from)
        .into();
        match &self.source {
            Source::Asking { inbox, .. } => wanted.push(inbox.clone()),
            Source::Live { deliver, .. } => wanted.push(deliver.clone()),
            Source::Resting { .. } => {}
        }
        // It comes out of a hash map.
        self.chance.shuffle(&mut wanted);
        let info = json!({
            "server_id": "NHUB", "server_name": "HUB", "version": "2.15.1", "headers": true,
            "max_payload": 1_048_576, "jetstream": true, "domain": "hub",
            "client_id": self.leafs[at].conn, "connect_info": true, "remote_account": "$G",
            "info_on_connect": true, "leafnode_urls": ["hub:7422"],
        });
        let ping_delay = self.chance.even(SECOND, SECOND * 12 / 10);
        let leaf = &mut self.leafs[at];
        leaf.name.clone_from(&name);
        leaf.ready = true;
        leaf.ping_at = now + ping_delay;
        leaf.output.extend(format!("INFO {info} \r\n").into_bytes());
        for subject in wanted {
            leaf.output.extend(format!("LS+ {subject}\r\n").into_bytes());
        }
        let conn = leaf.conn;
        let old = self.leafs.iter_mut().find(|leaf| leaf.conn != conn && leaf.name == name);
        if let Some(old) = old {
            let text = b"-ERR 'Duplicate Remote LeafNode Connection'\r\n";
            let _ = net.write(now, old.conn, Side::Peer, text);
            let old = old.conn;
            self.lost(now, old, net);
        }
        trace.line(now, || format!("hub: leaf {name} connected as {conn}"));
        // A leaf has come: whoever sources without success tries again at once.
        let retries = match &self.source {
            Source::Resting { .. } => true,
            Source::Asking { .. } => false,
            Source::Live { heard_at, .. } => now.since(*heard_at) > STALL_CHECK,
        };
        if retries {
            if let Source::Live { deliver, .. } = &self.source {
                let deliver = deliver.clone();
                self.want('-', &deliver);
            }
            self.failures = 0;
            let delay = self.chance.even(SECOND / 10, SECOND / 5);
            self.source = Source::Resting { until: now + delay };
        }
    }

    fn want(&mut self, sign: char, subject: &str) {
        for leaf in self.leafs.iter_mut().filter(|leaf| leaf.ready) {
            leaf.output.extend(format!("LS{sign} {subject}\r\n").into_bytes());
        }
    }

    fn publish(&mut self, subject: &str, reply: &str, headers: &str, payload: &str) {
        let reply = if reply.is_empty() { String::new() } else { format!("{reply} ") };
        let text = if headers.is_empty() {
            format!("LMSG {subject} {reply}{}\r\n{payload}\r\n", payload.len())
        } else {
            let total = headers.len() + payload.len();
            format!("HMSG {subject} {reply}{} {total}\r\n{headers}{payload}\r\n", headers.len())
        };
        for leaf in self.leafs.iter_mut().filter(|leaf| leaf.ready) {
            let pattern = leaf.interest.iter().any(|it| matches(subject.as_bytes(), it));
            if pattern {
                leaf.output.extend_from_slice(text.as_bytes());
            }
        }
    }

    // --- Sourcing ---

    fn source_timeout(&mut self, now: Instant, trace: &mut Trace) {
        match &mut self.source {
            Source::Resting { until } if *until <= now => self.create(now, trace),
            Source::Asking { inbox, until } if *until <= now => {
                let inbox = inbox.clone();
                trace.line(now, || "hub: no answer to the create request".into());
                self.want('-', &inbox);
                self.failed(now);
            }
            Source::Live { heard_at, check_at, .. } if *check_at <= now => {
                *check_at = now + STALL_CHECK;
                if now.since(*heard_at) > STALL_CHECK {
                    trace.line(now, || "hub: the source is stalled".into());
                    self.recreate(now, trace);
                }
            }
            _ => {}
        }
    }

    fn failed(&mut self, now: Instant) {
        self.failures += 1;
        let since = self.created_at.map_or(CREATE_PACE, |at| now.since(at));
        let wait = CREATE_PACE.saturating_sub(since)
            + (SECOND * 10 * self.failures).min(SECOND * 120)
            + self.chance.even(SECOND / 10, SECOND / 5);
        self.source = Source::Resting { until: now + wait };
    }

    /// Gives up the consumer and asks for another one, at the pace of requests.
    fn recreate(&mut self, now: Instant, trace: &mut Trace) {
        if let Source::Live { deliver, .. } = &self.source {
            let deliver = deliver.clone();
            self.want('-', &deliver);
        }
        let due = self.created_at.map_or(now, |at| at + CREATE_PACE);
        if due > now {
            let delay = self.chance.even(SECOND / 10, SECOND / 5);
            self.source = Source::Resting { until: due + delay };
        } else {
            self.create(now, trace);
        }
    }

    fn create(&mut self, now: Instant, trace: &mut Trace) {
        if let Source::Live { deliver, .. } = &self.source {
            let deliver = deliver.clone();
            self.want('-', &deliver);
        }
        self.creates += 1;
        self.created_at = Some(now);
        let inbox = format!("$JSC.R.{}", self.chance.token(8));
        let deliver = format!("$JS.S.{}", self.chance.token(8));
        let position = if self.plan.forgets_position { self.rumoured_seq } else { self.last_seq };
        let suffix =
            if self.api_level == 0 { format!("_{}", self.chance.token(8)) } else { String::new() };
        let mut config = json!({
            "name": format!("JS_SRC_q9rlDw6k{suffix}"), "deliver_policy": "all",
            "ack_policy": "none", "ack_wait": 79_200_000_000_000_u64, "max_deliver": 1,
            "replay_policy": "instant", "flow_control": true, "deliver_subject": deliver,
            "idle_heartbeat": 1_000_000_000, "inactive_threshold": 10_000_000_000_u64,
            "num_replicas": 0, "direct": true,
            "metadata": {
                "_nats.src.acc": "$G", "_nats.src.domain": "hub", "_nats.src.stream": "AGG",
            },
        });
        if self.api_level > 0 {
            config["sourcing"] = json!(true);
        }
        if position > 0 {
            config["deliver_policy"] = json!("by_start_sequence");
            config["opt_start_seq"] = json!(position + 1);
        }
        let headers = match self.api_level {
            5 => format!(
                "NATS/1.0\r\nNats-Required-Api-Level: 5\r\nNats-Stream-Identity: {}\r\n\r\n",
                self.identity
            ),
            0 => String::new(),
            level => format!("NATS/1.0\r\nNats-Required-Api-Level: {level}\r\n\r\n"),
        };
        let body = json!({"stream_name": "EDGE", "config": config, "action": ""}).to_string();
        trace.line(now, || format!("hub: asks for a consumer after {position} on {inbox}"));
        self.want('+', &inbox);
        self.publish("$JS.leaf.API.CONSUMER.CREATE.EDGE", &inbox, &headers, &body);
        self.source = Source::Asking { inbox, until: now + ANSWER_WAIT };
    }

    #[expect(clippy::too_many_arguments, reason = "a message and the world")]
    fn message(
        &mut self,
        now: Instant,
        subject: &[u8],
        reply: &[u8],
        headers: &[u8],
        payload: &[u8],
        ledger: &mut Ledger,
        trace: &mut Trace,
    ) {
        match &self.source {
            Source::Asking { inbox, .. } if inbox.as_bytes() == subject => {
                self.answer(now, headers, payload, ledger, trace);
            }
            Source::Live { deliver, .. } if deliver.as_bytes() == subject => {
                self.delivery(now, reply, headers, payload, ledger, trace);
            }
            // For nobody any more.
            _ => trace
                .line(now, || format!("hub: nobody waits on {}", String::from_utf8_lossy(subject))),
        }
    }

    fn answer(
        &mut self,
        now: Instant,
        headers: &[u8],
        payload: &[u8],
        ledger: &mut Ledger,
        trace: &mut Trace,
    ) {
        let Source::Asking { inbox, .. } = &self.source else { return };
        let inbox = inbox.clone();
        self.want('-', &inbox);
        let answer: Value = serde_json::from_slice(payload).unwrap_or_default();
        if let Some(code) = answer["error"]["err_code"].as_u64() {
            trace.line(now, || format!("hub: create refused with {code}"));
            match code {
                10185 | 10025 if self.api_level > 0 => {
                    self.api_level = if self.api_level == 5 { 4 } else { 0 };
                    return self.create(now, trace);
                }
                10225 => ledger.fail("the gateway's stream changed its identity".into()),
                _ => {}
            }
            return self.failed(now);
        }
        let consumer = answer["name"].as_str().or(answer["config"]["name"].as_str());
        let deliver = answer["config"]["deliver_subject"].as_str();
        let (Some(consumer), Some(deliver)) = (consumer, deliver) else {
            ledger.fail(format!("the answer {answer} to a create has no name or subject"));
            return;
        };
        let start = answer["delivered"]["stream_seq"].as_u64().unwrap_or(0);
        if start > self.last_seq && !self.plan.forgets_position {
            let last = self.last_seq;
            ledger.fail(format!("asked for what follows {last}, answered with {start}"));
        }
        if let Some(identity) = header(headers, b"Nats-Stream-Identity") {
            self.identity = String::from_utf8_lossy(identity).into_owned();
        }
        trace.line(now, || format!("hub: consumer {consumer} on {deliver}"));
        self.failures = 0;
        self.api_level = 5;
        let deliver = deliver.to_owned();
        self.want('+', &deliver);
        self.source = Source::Live {
            consumer: consumer.to_owned(),
            deliver,
            dseq: 0,
            heard_at: now,
            check_at: now + STALL_CHECK,
        };
    }

    fn delivery(
        &mut self,
        now: Instant,
        reply: &[u8],
        headers: &[u8],
        payload: &[u8],
        ledger: &mut Ledger,
        trace: &mut Trace,
    ) {
        let Source::Live { consumer, dseq, heard_at, .. } = &mut self.source else { return };
        *heard_at = now;
        if headers.starts_with(b"NATS/1.0 100") {
            let told = number(header(headers, b"Nats-Last-Consumer"));
            let rumour = number(header(headers, b"Nats-Last-Stream"));
            self.rumoured_seq = self.rumoured_seq.max(rumour);
            let (dseq, last) = (*dseq, self.last_seq);
            if let Some(stalled) = header(headers, b"Nats-Consumer-Stalled") {
                let stalled = String::from_utf8_lossy(stalled).into_owned();
                self.publish(&stalled, "", "", "");
            } else if !reply.is_empty() {
                let reply = String::from_utf8_lossy(reply).into_owned();
                let headers = format!(
                    "NATS/1.0\r\nNats-Last-Consumer: {dseq}\r\nNats-Last-Stream: {last}\r\n\r\n"
                );
                self.publish(&reply, "", &headers, "");
            }
            if told > 0 && told != dseq {
                trace.line(now, || format!("hub: heartbeat says {told}, counted {dseq}"));
                self.recreate(now, trace);
            }
            return;
        }
        let text = String::from_utf8_lossy(reply).into_owned();
        let tokens: Vec<&str> = text.split('@').next().unwrap_or_default().split('.').collect();
        let [_, _, stream, of, _, sseq, delivered, _, _] = tokens[..] else {
            ledger.fail(format!("a delivery has the reply {text}"));
            return;
        };
        if stream != "EDGE" || of != consumer {
            return;
        }
        let (Ok(sseq), Ok(delivered)) = (sseq.parse::<u64>(), delivered.parse::<u64>()) else {
            ledger.fail(format!("a delivery has the reply {text}"));
            return;
        };
        let Some(reading) = ledger::reading(payload) else {
            ledger.fail(format!("sequence {sseq} came with a payload nobody sent"));
            return;
        };
        self.rumoured_seq = self.rumoured_seq.max(sseq);
        ledger.delivered(reading, sseq);
        if delivered <= *dseq {
            return;
        }
        if delivered > *dseq + 1 {
            let dseq = *dseq;
            trace.line(now, || format!("hub: delivery {delivered} after {dseq}"));
            return self.recreate(now, trace);
        }
        *dseq = delivered;
        if sseq <= self.last_seq {
            return;
        }
        self.last_seq = sseq;
        self.stored += 1;
        if self.plan.dedupes {
            let id = header(headers, b"Nats-Msg-Id").unwrap_or_default().to_vec();
            if !self.ids.insert(id) {
                return;
            }
        }
        trace.line(now, || format!("hub: stores {} of {sseq}", ledger::show(reading)));
        ledger.stored_at_hub(reading, sseq);
    }
}

// --- Parsing ---

#[derive(Debug)]
enum Op {
    Connect(Vec<u8>),
    Info,
    Ping,
    Pong,
    Err(String),
    Add(Vec<u8>),
    Remove(Vec<u8>),
    Msg { subject: Vec<u8>, reply: Vec<u8>, headers: Vec<u8>, payload: Vec<u8> },
    Unknown(Vec<u8>),
}

/// The first operation and how long it is, if it is there whole.
fn parse(input: &[u8]) -> Option<(Op, usize)> {
    let end = memchr::memmem::find(input, b"\r\n")?;
    let line = &input[..end];
    let used = end + 2;
    let (verb, rest) = match line.iter().position(|&byte| byte == b' ') {
        Some(at) => (&line[..at], line[at + 1..].trim_ascii()),
        None => (line, &b""[..]),
    };
    let words: Vec<&[u8]> = rest.split(|&byte| byte == b' ').collect();
    let op = match verb {
        b"CONNECT" => Op::Connect(rest.to_vec()),
        b"INFO" => Op::Info,
        b"PING" => Op::Ping,
        b"PONG" => Op::Pong,
        b"-ERR" => Op::Err(String::from_utf8_lossy(rest).into_owned()),
        b"LS+" => Op::Add(words[0].to_vec()),
        b"LS-" => Op::Remove(words[0].to_vec()),
        b"LMSG" | b"HMSG" => {
            let has_headers = verb == b"HMSG";
            let sizes = if has_headers { 2 } else { 1 };
            let total = number(words.last().copied());
            let head = if has_headers { number(words.iter().rev().nth(1).copied()) } else { 0 };
            let (head, total) = (usize::try_from(head).ok()?, usize::try_from(total).ok()?);
            let body = input.get(used..used + total + 2)?;
            if !body.ends_with(b"\r\n") || words.len() <= sizes {
                return Some((Op::Unknown(line.to_vec()), used));
            }
            let reply = if words.len() == sizes + 2 { words[1] } else { b"" };
            let op = Op::Msg {
                subject: words[0].to_vec(),
                reply: reply.to_vec(),
                headers: body[..head].to_vec(),
                payload: body[head..total].to_vec(),
            };
            return Some((op, used + total + 2));
        }
        _ => Op::Unknown(line.to_vec()),
    };
    Some((op, used))
}

/// The value of a header.
pub(crate) fn header<'a>(block: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    block.split(|&byte| byte == b'\n').find_map(|line| {
        let rest = line.strip_prefix(name)?.strip_prefix(b":")?;
        Some(rest.trim_ascii())
    })
}

fn number(text: Option<&[u8]>) -> u64 {
    text.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok()).unwrap_or(0)
}
