//! What clients of a consumer see, against a host that records and a store that keeps
//! messages in a map.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Write;

use serde_json::Value;

use crate::id::StreamId;
use crate::jetstream::JetStream;
use crate::jetstream::host::{Host, Inbound, JsNotice, Listeners, Target};
use crate::jetstream::options::Options;
use crate::jetstream::storage::{
    Chunk, ConsumerRecord, GetBy, PublishOutcome, RecoveredStream, Removed, Seq, StoreError,
    StoreReply, StoreRequest, StoredMsg, StreamState, StreamUpdate,
};
use crate::subject::{self, Filter};
use crate::time::{Duration, Instant, Now, Timestamp};

/// One message as a receiver would see it.
#[derive(Clone, Debug)]
struct Sent {
    to: String,
    subject: String,
    reply: String,
    headers: String,
    payload: String,
}

impl Sent {
    /// The status line of a status message.
    fn status(&self) -> &str {
        let line = self.headers.lines().next().unwrap_or_default();
        line.strip_prefix("NATS/1.0").unwrap_or(line).trim()
    }
}

#[derive(Default)]
struct Recorder {
    subscriptions: BTreeSet<(String, Target)>,
    sent: Vec<Sent>,
    listeners: BTreeMap<String, Listeners>,
    watched: BTreeSet<String>,
    /// Subjects nobody listens to; all others have somebody.
    deaf: BTreeSet<String>,
    slow: BTreeSet<String>,
    advisories: bool,
    leafs: bool,
    requests: VecDeque<StoreRequest>,
    notices: Vec<JsNotice>,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Host for Recorder {
    fn subscribe(&mut self, subject: &[u8], target: Target) {
        self.subscriptions.insert((text(subject), target));
    }
    fn unsubscribe(&mut self, subject: &[u8], target: Target) {
        self.subscriptions.remove(&(text(subject), target));
    }
    fn deliver(
        &mut self,
        to: &[u8],
        subject: &[u8],
        reply: &[u8],
        headers: &[u8],
        payload: &[u8],
    ) -> bool {
        if self.deaf.contains(&text(to)) {
            return false;
        }
        self.sent.push(Sent {
            to: text(to),
            subject: text(subject),
            reply: text(reply),
            headers: text(headers),
            payload: text(payload),
        });
        true
    }
    fn literal_listeners(&self, subject: &[u8], _queue: &[u8]) -> Listeners {
        self.listeners.get(&text(subject)).copied().unwrap_or_default()
    }
    fn has_interest(&mut self, subject: &[u8]) -> bool {
        let subject = text(subject);
        let event = subject.starts_with("$JS.EVENT.");
        if event { self.advisories } else { !self.deaf.contains(&subject) }
    }
    fn watch(&mut self, subject: &[u8]) {
        self.watched.insert(text(subject));
    }
    fn unwatch(&mut self, subject: &[u8]) {
        self.watched.remove(&text(subject));
    }
    fn is_backlogged(&mut self, subject: &[u8]) -> bool {
        self.slow.contains(&text(subject))
    }
    fn store(&mut self, request: StoreRequest) {
        self.requests.push_back(request);
    }
    fn notice(&mut self, notice: JsNotice) {
        self.notices.push(notice);
    }
    fn requester(&self) -> Vec<u8> {
        Vec::new()
    }
    fn has_leafs(&self) -> bool {
        self.leafs
    }
}

/// One stream and its consumers' records.
#[derive(Clone, Default)]
struct FakeStore {
    messages: BTreeMap<Seq, (String, String, Timestamp)>,
    last_seq: Seq,
    record: Vec<u8>,
    consumers: BTreeMap<String, Vec<u8>>,
    /// Refuse to write consumers.
    broken: bool,
    /// Reads done.
    reads: usize,
}

const STREAM: StreamId = StreamId(1);

impl FakeStore {
    fn state(&self) -> StreamState {
        StreamState {
            messages: self.messages.len() as u64,
            first_seq: self.messages.keys().next().copied().unwrap_or(self.last_seq + 1),
            last_seq: self.last_seq,
            ..StreamState::default()
        }
    }

    fn update(&self, stream: StreamId, removed: Removed) -> StreamUpdate {
        StreamUpdate { stream, state: self.state(), removed }
    }

    fn chunk<'a>(
        messages: impl Iterator<Item = (&'a Seq, &'a (String, String, Timestamp))>,
    ) -> Chunk {
        let mut chunk = Chunk::default();
        for (&seq, (subject, payload, timestamp)) in messages {
            let at = |chunk: &Chunk| u32::try_from(chunk.data.len()).unwrap();
            let start = at(&chunk);
            chunk.data.extend_from_slice(subject.as_bytes());
            let middle = at(&chunk);
            chunk.data.extend_from_slice(payload.as_bytes());
            let end = at(&chunk);
            chunk.msgs.push(StoredMsg {
                seq,
                timestamp: *timestamp,
                subject: start..middle,
                headers: middle..middle,
                payload: middle..end,
            });
        }
        chunk
    }

    fn matching<'a>(
        &'a self,
        from: Seq,
        filters: &'a [Filter],
    ) -> impl DoubleEndedIterator<Item = (&'a Seq, &'a (String, String, Timestamp))> {
        self.messages.range(from..).filter(move |(_, message)| {
            filters.is_empty() || filters.iter().any(|f| f.matches(message.0.as_bytes()))
        })
    }

    fn apply(&mut self, request: StoreRequest) -> Option<StoreReply> {
        let done = |token, update| StoreReply::Done { token, found: true, result: Ok(()), update };
        Some(match request {
            StoreRequest::CreateStream { token, stream, record, .. } => {
                self.record = record;
                done(token, Some(self.update(stream, Removed::None)))
            }
            StoreRequest::Publish(batch) => {
                let mut outcomes = Vec::new();
                for item in &batch.items {
                    self.last_seq += 1;
                    let subject = text(batch.bytes(&item.subject));
                    let payload = text(batch.bytes(&item.payload));
                    self.messages.insert(self.last_seq, (subject, payload, item.timestamp));
                    let (seq, timestamp) = (self.last_seq, item.timestamp);
                    outcomes.push(PublishOutcome::Stored {
                        seq,
                        timestamp,
                        before: 0,
                        changed: None,
                    });
                }
                let updates = vec![self.update(batch.items[0].stream, Removed::None)];
                StoreReply::Published { batch, outcomes, updates }
            }
            StoreRequest::DeleteMsg { token, stream, seq, .. } => {
                let removed = self.messages.remove(&seq);
                let removed = removed.map(|message| (seq, message.0.as_bytes().into()));
                done(token, Some(self.update(stream, Removed::Some(removed.into_iter().collect()))))
            }
            StoreRequest::Purge { token, stream, .. } => {
                let purged = self.messages.len() as u64;
                self.messages.clear();
                let removed = Removed::Many { first: 1, last: self.last_seq };
                let update = Some(self.update(stream, removed));
                StoreReply::Purged { token, result: Ok(purged), update }
            }
            StoreRequest::DeleteStream { token, .. } => done(token, None),
            StoreRequest::PutConsumer { token, consumer, .. } => {
                let token = token?;
                if self.broken {
                    let result = Err(StoreError { text: "disk full".into() });
                    return Some(StoreReply::Done { token, found: true, result, update: None });
                }
                self.consumers.insert(consumer.name, consumer.record);
                done(token, None)
            }
            StoreRequest::DeleteConsumer { name, .. } => {
                self.consumers.remove(&name);
                return None;
            }
            StoreRequest::Read { token, from, filters, max_msgs, .. } => {
                self.reads += 1;
                let most = usize::try_from(max_msgs).unwrap();
                let chunk = Self::chunk(self.matching(from, &filters).take(most));
                StoreReply::Read { token, chunk: Ok(Arc::new(chunk)), through: self.last_seq }
            }
            StoreRequest::Get { token, by, .. } => {
                let found = match &by {
                    GetBy::LastBySubject(filter) => {
                        self.matching(0, core::slice::from_ref(filter)).next_back()
                    }
                    GetBy::StartTime(time) => {
                        self.messages.iter().find(|(_, message)| message.2 >= *time)
                    }
                    _ => None,
                };
                let msg = found.map(|found| Self::chunk(core::iter::once(found)));
                StoreReply::Got { token, msg: Ok(msg) }
            }
            StoreRequest::Count { token, from, filters, .. } => StoreReply::Counted {
                token,
                count: Ok(self.matching(from, &filters).count() as u64),
                last_seq: self.last_seq,
            },
            StoreRequest::LastPerSubject { token, filters, .. } => {
                let mut last = BTreeMap::new();
                for (seq, message) in self.matching(0, &filters) {
                    last.insert(message.0.clone(), *seq);
                }
                let mut seqs: Vec<Seq> = last.into_values().collect();
                seqs.sort_unstable();
                StoreReply::LastPerSubject { token, seqs: Ok(seqs), last_seq: self.last_seq }
            }
            other => panic!("not expected: {other:?}"),
        })
    }
}

struct World {
    js: JetStream,
    host: Recorder,
    store: FakeStore,
    now: Now,
}

impl World {
    /// A server with one stream `S` on `s.>`.
    fn new() -> Self {
        let mut world = Self::started(FakeStore::default(), Vec::new());
        let reply = world.api("STREAM.CREATE.S", r#"{"name":"S","subjects":["s.>"]}"#);
        assert_eq!(reply["error"], Value::Null, "{reply}");
        world
    }

    fn started(store: FakeStore, streams: Vec<RecoveredStream>) -> Self {
        let mut world = Self {
            js: JetStream::new(Options::default(), 7),
            host: Recorder::default(),
            store,
            now: Now {
                instant: Instant(1_000_000_000),
                wall: Timestamp(1_795_456_083_000_000_000),
            },
        };
        let recovered = StoreReply::Recovered { streams, next_stream: 2, last_ts: Timestamp(0) };
        world.js.handle_store(world.now, recovered, &mut world.host);
        world
    }

    /// The same store under a new process.
    fn restarted(self) -> Self {
        let consumers = self
            .store
            .consumers
            .iter()
            .map(|(name, record)| ConsumerRecord { name: name.clone(), record: record.clone() })
            .collect();
        let stream = RecoveredStream {
            stream: STREAM,
            record: self.store.record.clone(),
            state: self.store.state(),
            consumers,
            origins: Vec::new(),
        };
        let mut world = Self::started(self.store, vec![stream]);
        world.now.wall = self.now.wall + Duration::from_secs(1);
        world.settle();
        world
    }

    /// Lets the store answer everything.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            self.js.flush(self.now, &mut self.host);
            let Some(request) = self.host.requests.pop_front() else { return };
            if let Some(reply) = self.store.apply(request) {
                self.js.handle_store(self.now, reply, &mut self.host);
            }
        }
        panic!("never quiet");
    }

    fn call(&mut self, subject: &str, reply: &str, headers: &str, payload: &str) {
        let targets: Vec<Target> = self
            .host
            .subscriptions
            .iter()
            .filter(|(pattern, _)| subject::matches(subject.as_bytes(), pattern.as_bytes()))
            .map(|(_, target)| *target)
            .collect();
        let msg = Inbound {
            subject: subject.as_bytes(),
            reply: reply.as_bytes(),
            headers: headers.as_bytes(),
            payload: payload.as_bytes(),
        };
        let (now, host) = (self.now, &mut self.host);
        for target in targets {
            match target {
                Target::Api => self.js.handle_api(now, msg, host),
                Target::Stream(id) => self.js.handle_publish(now, id, msg, host),
                Target::Next(id) => self.js.handle_next(now, id, msg, host),
                Target::Ack(id) => self.js.handle_ack(now, id, msg, host),
                Target::Flow(id) => self.js.handle_flow(now, id, msg, host),
                Target::Intake(stream, number) => {
                    self.js.handle_intake(now, stream, number, msg, host);
                }
                Target::Snapshot(id) => self.js.handle_snapshot_ack(now, id, msg, host),
                Target::Restore(id) => self.js.handle_restore(now, id, msg, host),
                Target::DirectGet(_) => {}
            }
        }
        self.settle();
    }

    fn api_with(&mut self, subject: &str, headers: &str, body: &str) -> Value {
        let old = core::mem::take(&mut self.host.sent);
        self.call(&alloc::format!("$JS.API.{subject}"), "R", headers, body);
        let new = core::mem::replace(&mut self.host.sent, old);
        let mut answer = Value::Null;
        for sent in new {
            if sent.to == "R" && answer.is_null() {
                answer = serde_json::from_str(&sent.payload).unwrap();
                answer["headers"] = sent.headers.into();
            } else {
                self.host.sent.push(sent);
            }
        }
        answer
    }

    fn api(&mut self, subject: &str, body: &str) -> Value {
        self.api_with(subject, "", body)
    }

    fn create(&mut self, name: &str, config: &str) -> Value {
        let body = alloc::format!(r#"{{"stream_name":"S","config":{{{config}}}}}"#);
        self.api(&alloc::format!("CONSUMER.CREATE.S.{name}"), &body)
    }

    fn info(&mut self, name: &str) -> Value {
        self.api(&alloc::format!("CONSUMER.INFO.S.{name}"), "")
    }

    fn publish(&mut self, subjects: &[&str]) {
        for subject in subjects {
            self.now.wall = self.now.wall + Duration::from_nanos(1);
            self.call(subject, "", "", "x");
        }
    }

    fn next(&mut self, name: &str, body: &str) -> Vec<Sent> {
        self.next_to(name, "I", body);
        self.take("I")
    }

    fn next_to(&mut self, name: &str, reply: &str, body: &str) {
        self.call(&alloc::format!("$JS.API.CONSUMER.MSG.NEXT.S.{name}"), reply, "", body);
    }

    /// What was sent to `to` since the last look.
    fn take(&mut self, to: &str) -> Vec<Sent> {
        let (taken, rest) =
            core::mem::take(&mut self.host.sent).into_iter().partition(|sent| sent.to == to);
        self.host.sent = rest;
        taken
    }

    fn ack(&mut self, message: &Sent, payload: &str) {
        let subject = message.reply.clone();
        self.call(&subject, "", "", payload);
    }

    fn pass(&mut self, millis: u64) {
        let until = self.now.instant + Duration::from_millis(millis);
        while let Some(due) = self.js.poll_timeout()
            && due <= until
        {
            let due = due.max(self.now.instant);
            let step = due.since(self.now.instant);
            self.now = Now { instant: due, wall: self.now.wall + step };
            self.js.handle_timeout(self.now, &mut self.host);
            self.settle();
            if step.is_zero() {
                // A timer that is always due would never let time pass.
                assert!(self.js.poll_timeout().is_none_or(|next| next > self.now.instant));
            }
        }
        let rest = until.since(self.now.instant);
        self.now = Now { instant: until, wall: self.now.wall + rest };
    }

    fn listen(&mut self, subject: &str, on: bool) {
        let listeners = Listeners { plain: on, queue: false };
        self.host.listeners.insert(subject.into(), listeners);
        if on {
            self.host.deaf.remove(subject);
        } else {
            self.host.deaf.insert(subject.into());
        }
        assert!(self.host.watched.contains(subject), "{subject} is not watched");
        self.js.handle_interest(self.now, subject.as_bytes(), &mut self.host);
        self.settle();
    }
}

/// Sequences delivered, with the status lines among them.
fn seen(messages: &[Sent]) -> String {
    let mut out = String::new();
    for message in messages {
        if !out.is_empty() {
            out.push_str(", ");
        }
        if message.reply.starts_with("$JS.ACK.") {
            let tokens: Vec<&str> = message.reply.split('.').collect();
            write!(out, "{}", tokens[5]).unwrap();
            if tokens[4] != "1" {
                write!(out, "(x{})", tokens[4]).unwrap();
            }
        } else {
            out.push_str(message.status());
        }
    }
    out
}

const EXPLICIT: &str = r#""durable_name":"C","ack_policy":"explicit""#;

#[test]
fn a_message_comes_with_its_stored_subject_and_an_ack_subject() {
    let mut world = World::new();
    world.publish(&["s.a", "s.b"]);
    let created = world.create("C", EXPLICIT);
    assert_eq!(created["num_pending"], 2, "{created}");
    assert_eq!(created["config"]["max_waiting"], 512);
    let messages = world.next("C", r#"{"batch":1,"expires":1000000000}"#);
    assert_eq!(messages.len(), 1);
    assert_eq!((messages[0].subject.as_str(), messages[0].payload.as_str()), ("s.a", "x"));
    let timestamp = world.store.messages[&1].2.0;
    assert_eq!(messages[0].reply, alloc::format!("$JS.ACK.S.C.1.1.1.{timestamp}.1"));
    let info = world.info("C");
    assert_eq!(info["delivered"]["consumer_seq"], 1);
    assert_eq!(info["num_ack_pending"], 1);
    assert_eq!(info["num_pending"], 1);
}

#[test]
fn requests_take_turns() {
    let mut world = World::new();
    world.create("C", EXPLICIT);
    for (reply, batch) in [("A", 3), ("B", 3), ("D", 1)] {
        world.next_to("C", reply, &alloc::format!(r#"{{"batch":{batch},"expires":9000000000}}"#));
    }
    assert_eq!(world.info("C")["num_waiting"], 3);
    world.publish(&["s.a"; 7]);
    let order: String = world.host.sent.iter().map(|sent| sent.to.as_str()).collect();
    assert_eq!(order, "ABDABAB");
}

#[test]
fn requests_end_with_the_status_of_the_reference_server() {
    let mut world = World::new();
    world.create("C", EXPLICIT);
    assert_eq!(seen(&world.next("C", r#"{"batch":2,"no_wait":true}"#)), "404 No Messages");
    world.publish(&["s.a"]);
    let got = world.next("C", r#"{"batch":2,"no_wait":true}"#);
    assert_eq!(seen(&got), "1, 404 No Messages");
    let got = world.next("C", r#"{"batch":2,"expires":10000000,"max_bytes":500}"#);
    assert_eq!(seen(&got), "");
    world.publish(&["s.a"]);
    world.pass(20);
    let got = world.take("I");
    assert_eq!(seen(&got), "2, 408 Request Timeout");
    let size = got[0].subject.len() + got[0].reply.len() + got[0].payload.len();
    assert_eq!(
        got[1].headers,
        alloc::format!(
            "NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 1\r\nNats-Pending-Bytes: {}\r\n\r\n",
            500 - size
        )
    );
    world.publish(&["s.a"; 3]);
    assert_eq!(seen(&world.next("C", r#"{"max_bytes":5}"#)), "409 Message Size Exceeds MaxBytes");
    assert_eq!(seen(&world.next("C", r#"{"batch":1,"max_bytes":500}"#)), "3, 409 Batch Completed");
    assert_eq!(
        seen(&world.next("C", "{\"batch\":\"x\"}")),
        "400 Bad Request - json: cannot unmarshal string into Go struct field .batch of type int"
    );
    assert_eq!(seen(&world.next("C", "")), "4");
}

#[test]
fn limits_of_a_consumer_refuse_larger_requests() {
    let mut world = World::new();
    world.create(
        "C",
        r#""ack_policy":"explicit","max_batch":2,"max_expires":2000000000,"max_bytes":9,"max_waiting":1"#,
    );
    for (body, status) in [
        (r#"{"batch":3}"#, "409 Exceeded MaxRequestBatch of 2"),
        (r#"{"batch":2,"expires":2000000001}"#, "409 Exceeded MaxRequestExpires of 2s"),
        (
            r#"{"batch":2,"expires":2000000000,"max_bytes":10}"#,
            "409 Exceeded MaxRequestMaxBytes of 9",
        ),
        (r#"{"batch":2,"expires":2000000000}"#, ""),
        (r#"{"batch":2,"expires":2000000000}"#, "409 Exceeded MaxWaiting"),
        (r#"{"batch":2,"expires":2000000000,"idle_heartbeat":100000000}"#, ""),
    ] {
        assert_eq!(seen(&world.next("C", body)), status, "{body}");
    }
}

#[test]
fn what_is_not_acknowledged_comes_again_until_max_deliver() {
    let mut world = World::new();
    world.host.advisories = true;
    world.create("C", r#""ack_policy":"explicit","ack_wait":1000000000,"max_deliver":2"#);
    world.publish(&["s.a", "s.a"]);
    assert_eq!(seen(&world.next("C", "2")), "1, 2");
    world.pass(1100);
    world.publish(&["s.a"]);
    let again = world.next("C", "3");
    assert_eq!(seen(&again), "1(x2), 2(x2), 3", "redeliveries first, in stream order");
    world.ack(&again[1], "+ACK");
    world.ack(&again[2], "");
    world.pass(1100);
    let advisory = world.take("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.S.C");
    assert_eq!(advisory.len(), 1);
    let advisory: Value = serde_json::from_str(&advisory[0].payload).unwrap();
    assert_eq!(advisory["type"], "io.nats.jetstream.advisory.v1.max_deliver");
    assert_eq!(
        (advisory["stream_seq"].clone(), advisory["deliveries"].clone()),
        (1.into(), 2.into())
    );
    let info = world.info("C");
    assert_eq!(info["num_ack_pending"], 0);
    assert_eq!(info["num_redelivered"], 1);
    assert_eq!(info["ack_floor"]["stream_seq"], 3);
    assert_eq!(seen(&world.next("C", r#"{"no_wait":true}"#)), "404 No Messages");
}

#[test]
fn a_nak_brings_the_message_back_now_or_later() {
    let mut world = World::new();
    world.create("C", EXPLICIT);
    world.publish(&["s.a", "s.a", "s.a"]);
    let got = world.next("C", "3");
    world.ack(&got[2], "-NAK");
    world.ack(&got[0], "-NAK");
    world.ack(&got[1], "-NAK {\"delay\": 500000000}");
    assert_eq!(seen(&world.next("C", "5")), "3(x2), 1(x2)");
    world.pass(400);
    assert_eq!(seen(&world.take("I")), "");
    world.pass(200);
    assert_eq!(seen(&world.take("I")), "2(x2)");
}

#[test]
fn term_and_in_progress_do_what_they_say() {
    let mut world = World::new();
    world.create("C", r#""ack_policy":"explicit","ack_wait":1000000000"#);
    world.publish(&["s.a", "s.a"]);
    let got = world.next("C", "2");
    world.ack(&got[0], "+TERM bad");
    world.pass(800);
    world.ack(&got[1], "+WPI");
    world.pass(800);
    assert_eq!(seen(&world.next("C", r#"{"no_wait":true}"#)), "404 No Messages");
    world.pass(300);
    assert_eq!(seen(&world.next("C", r#"{"no_wait":true}"#)), "2(x2)");
}

#[test]
fn a_confirmed_ack_is_answered_after_it_is_durable() {
    let mut world = World::new();
    world.create("C", EXPLICIT);
    world.publish(&["s.a"]);
    let got = world.next("C", "1");
    let (now, subject) = (world.now, got[0].reply.clone());
    let target = world.host.subscriptions.iter().find_map(|(_, target)| match target {
        Target::Ack(id) => Some(*id),
        _ => None,
    });
    let msg = Inbound { subject: subject.as_bytes(), reply: b"A", headers: b"", payload: b"+ACK" };
    world.js.handle_ack(now, target.unwrap(), msg, &mut world.host);
    world.js.flush(now, &mut world.host);
    assert!(world.take("A").is_empty(), "not before the store has answered");
    world.settle();
    assert_eq!(world.take("A").len(), 1);
    world.call(&subject, "A", "", "+ACK");
    assert_eq!(world.take("A").len(), 1, "a second one is answered too");
    let mut world = world.restarted();
    let info = world.info("C");
    assert_eq!(info["ack_floor"]["stream_seq"], 1, "{info}");
    assert_eq!(info["num_ack_pending"], 0);
}

#[test]
fn a_confirmed_ack_is_not_answered_when_the_disk_fails() {
    let mut world = World::new();
    world.create("C", EXPLICIT);
    world.publish(&["s.a"]);
    let got = world.next("C", "1");
    world.store.broken = true;
    world.call(&got[0].reply, "A", "", "+ACK");
    assert!(world.take("A").is_empty());
    assert!(matches!(world.host.notices.last(), Some(JsNotice::Warn(_))));
}

#[test]
fn next_in_an_ack_asks_for_more() {
    let mut world = World::new();
    world.create("C", EXPLICIT);
    world.publish(&["s.a", "s.a", "s.a"]);
    let got = world.next("C", "1");
    world.call(&got[0].reply, "I", "", "+NXT 2");
    assert_eq!(seen(&world.take("I")), "2, 3");
    assert_eq!(world.info("C")["ack_floor"]["stream_seq"], 1);
}

#[test]
fn max_ack_pending_stalls_and_an_ack_resumes() {
    let mut world = World::new();
    world.create("C", r#""ack_policy":"explicit","max_ack_pending":2"#);
    world.publish(&["s.a"; 4]);
    let got = world.next("C", r#"{"batch":4,"expires":9000000000}"#);
    assert_eq!(seen(&got), "1, 2");
    world.ack(&got[0], "");
    assert_eq!(seen(&world.take("I")), "3");
}

#[test]
fn an_ack_of_all_settles_what_came_before() {
    let mut world = World::new();
    world.create("C", r#""ack_policy":"all""#);
    world.publish(&["s.a"; 4]);
    let got = world.next("C", "4");
    world.ack(&got[2], "");
    let info = world.info("C");
    assert_eq!(info["num_ack_pending"], 1);
    assert_eq!(info["ack_floor"]["consumer_seq"], 3);
}

#[test]
fn filters_select_and_num_pending_counts_only_those() {
    let mut world = World::new();
    world.publish(&["s.a", "s.b", "s.c", "s.a"]);
    let created = world.create("C", r#""ack_policy":"explicit","filter_subjects":["s.a","s.c"]"#);
    assert_eq!(created["num_pending"], 3);
    world.publish(&["s.b", "s.c"]);
    assert_eq!(world.info("C")["num_pending"], 4);
    let got = world.next("C", "9");
    assert_eq!(seen(&got), "1, 3, 4, 6");
    assert!(got[3].reply.ends_with(".0"), "the last one shows nothing pending");
    assert_eq!(world.info("C")["num_pending"], 0);
}

#[test]
fn the_last_message_of_each_subject_comes_first() {
    let mut world = World::new();
    world.publish(&["s.a", "s.b", "s.a", "s.c"]);
    let created = world.create(
        "C",
        r#""ack_policy":"explicit","deliver_policy":"last_per_subject","filter_subject":"s.>""#,
    );
    assert_eq!(created["num_pending"], 3);
    assert_eq!(created["delivered"]["stream_seq"], 1);
    world.publish(&["s.b"]);
    let got = world.next("C", "9");
    assert_eq!(seen(&got), "2, 3, 4, 5");
    assert!(got[0].reply.ends_with(".3"));
}

#[test]
fn each_deliver_policy_starts_where_it_says() {
    let mut world = World::new();
    world.publish(&["s.a", "s.b", "s.a", "s.c"]);
    let time = Timestamp(world.store.messages[&3].2.0).rfc3339();
    for (policy, expected) in [
        (r#""deliver_policy":"all""#.to_string(), "1, 2, 3, 4"),
        (r#""deliver_policy":"last""#.to_string(), "4"),
        (r#""deliver_policy":"last","filter_subject":"s.a""#.to_string(), "3"),
        (r#""deliver_policy":"new""#.to_string(), ""),
        (r#""deliver_policy":"by_start_sequence","opt_start_seq":3"#.to_string(), "3, 4"),
        (r#""deliver_policy":"by_start_sequence","opt_start_seq":9"#.to_string(), ""),
        (alloc::format!(r#""deliver_policy":"by_start_time","opt_start_time":"{time}""#), "3, 4"),
    ] {
        world.create("C", &alloc::format!(r#""ack_policy":"none",{policy}"#));
        assert_eq!(seen(&world.next("C", "9")), expected, "{policy}");
        world.api("CONSUMER.DELETE.S.C", "");
        world.take("I");
    }
}

#[test]
fn headers_only_leaves_the_payload_out() {
    let mut world = World::new();
    world.create("C", r#""ack_policy":"none","headers_only":true"#);
    world.publish(&["s.a"]);
    let got = world.next("C", "1");
    assert_eq!(got[0].payload, "");
    assert_eq!(got[0].headers, "NATS/1.0\r\nNats-Msg-Size: 1\r\n\r\n");
}

#[test]
fn create_is_idempotent_and_update_replaces() {
    let mut world = World::new();
    assert_eq!(world.create("C", EXPLICIT)["error"], Value::Null);
    assert_eq!(world.create("C", EXPLICIT)["error"], Value::Null);
    let body = |action: &str, config: &str| {
        alloc::format!(r#"{{"stream_name":"S","action":"{action}","config":{{{config}}}}}"#)
    };
    let changed = alloc::format!(r#"{EXPLICIT},"max_deliver":5"#);
    let reply = world.api("CONSUMER.CREATE.S.C", &body("create", &changed));
    assert_eq!(reply["error"]["err_code"], 10148);
    let reply = world.api("CONSUMER.CREATE.S.C", &body("update", &changed));
    assert_eq!(reply["config"]["max_deliver"], 5, "{reply}");
    let reply = world.api("CONSUMER.CREATE.S.C", &body("", EXPLICIT));
    assert_eq!(reply["config"]["max_deliver"], -1);
    let reply = world.api("CONSUMER.CREATE.S.D", &body("update", r#""ack_policy":"all""#));
    assert_eq!(reply["error"]["err_code"], 10149);
    let reply = world.api("CONSUMER.CREATE.S.C", &body("fix", EXPLICIT));
    assert_eq!(reply["error"]["description"], "invalid JSON: unknown consumer action: \"fix\"");
}

#[test]
fn requests_right_behind_a_create_find_the_consumer() {
    let mut world = World::new();
    world.publish(&["s.a", "s.b", "s.a"]);
    let (now, host) = (world.now, &mut world.host);
    let body = br#"{"stream_name":"S","config":{"ack_policy":"explicit","filter_subject":"s.a"}}"#;
    let create = Inbound {
        subject: b"$JS.API.CONSUMER.CREATE.S.C",
        reply: b"R1",
        headers: b"",
        payload: body,
    };
    let info =
        Inbound { subject: b"$JS.API.CONSUMER.INFO.S.C", reply: b"R2", headers: b"", payload: b"" };
    world.js.handle_api(now, create, host);
    world.js.handle_api(now, info, host);
    assert!(host.sent.is_empty());
    world.settle();
    let order: Vec<&str> = world.host.sent.iter().map(|sent| sent.to.as_str()).collect();
    assert_eq!(order, ["R1", "R2"]);
}

#[test]
fn names_in_the_subject_decide() {
    let mut world = World::new();
    for (subject, config, err_code) in [
        ("CREATE.S", r#""durable_name":"D""#, 10020),
        ("CREATE.S.C", r#""durable_name":"D""#, 10017),
        ("DURABLE.CREATE.S.C", r#""name":"C""#, 10018),
        ("DURABLE.CREATE.S.C", r#""durable_name":"D""#, 10017),
        ("CREATE.S.C.s.a", r#""filter_subject":"s.b""#, 10131),
        ("CREATE.S.C.s.a", r#""filter_subjects":["s.a","s.b"]"#, 10137),
        ("CREATE.S.a/b", "", 10127),
        ("CREATE.S.C", r#""num_replicas":3"#, 10074),
        ("CREATE.S.C", r#""unknown":3"#, 10025),
    ] {
        let body = alloc::format!(r#"{{"stream_name":"S","config":{{{config}}}}}"#);
        let reply = world.api(&alloc::format!("CONSUMER.{subject}"), &body);
        assert_eq!(reply["error"]["err_code"], err_code, "{subject} {config}: {reply}");
    }
    let reply = world.api("CONSUMER.CREATE.X", r#"{"stream_name":"X"}"#);
    assert_eq!(reply["error"]["err_code"], 10059);
    let reply = world.api("CONSUMER.CREATE.S", r#"{"stream_name":"S"}"#);
    assert_eq!(reply["name"].as_str().map(str::len), Some(8));
    assert_eq!(reply["config"]["name"], Value::Null);
    let reply = world
        .api("CONSUMER.CREATE.S.N.s.*", r#"{"stream_name":"S","config":{"filter_subject":"s.*"}}"#);
    assert_eq!((reply["name"].clone(), reply["config"]["name"].clone()), ("N".into(), "N".into()));
}

#[test]
fn names_and_lists_are_sorted_and_paged() {
    let mut world = World::new();
    for name in ["B", "A", "C"] {
        world.create(name, r#""ack_policy":"explicit""#);
    }
    let names = world.api("CONSUMER.NAMES.S", r#"{"offset":1}"#);
    assert_eq!(names["consumers"], serde_json::json!(["B", "C"]));
    assert_eq!((names["total"].clone(), names["limit"].clone()), (3.into(), 1024.into()));
    let list = world.api("CONSUMER.LIST.S", "");
    assert_eq!(list["consumers"][0]["name"], "A");
    assert_eq!(world.api("CONSUMER.NAMES.X", "")["consumers"], serde_json::json!([]));
}

#[test]
fn deleting_tells_those_who_wait() {
    let mut world = World::new();
    world.create("C", EXPLICIT);
    world.next_to("C", "I", r#"{"expires":9000000000}"#);
    let reply = world.api("CONSUMER.DELETE.S.C", "");
    assert_eq!(reply["success"], true);
    assert_eq!(seen(&world.take("I")), "409 Consumer Deleted");
    assert_eq!(world.info("C")["error"]["err_code"], 10014);
    assert!(world.store.consumers.is_empty());
    assert!(!world.host.subscriptions.iter().any(|(subject, _)| subject.contains(".S.C")));
    world.create("C", EXPLICIT);
    world.next_to("C", "I", r#"{"expires":9000000000}"#);
    world.api("STREAM.DELETE.S", "");
    assert_eq!(seen(&world.take("I")), "409 Consumer Deleted");
}

#[test]
fn shutting_down_tells_those_who_wait() {
    let mut world = World::new();
    world.create("C", EXPLICIT);
    world.next_to("C", "I", r#"{"batch":4,"expires":9000000000}"#);
    world.js.shut_down(world.now, &mut world.host);
    let sent = world.take("I");
    assert_eq!(seen(&sent), "409 Server Shutdown");
    assert!(sent[0].headers.contains("\r\nNats-Pending-Messages: 4\r\n"), "{sent:?}");
    world.js.shut_down(world.now, &mut world.host);
    assert!(world.take("I").is_empty());
}

#[test]
fn a_paused_consumer_resumes_by_itself() {
    let mut world = World::new();
    world.create("C", EXPLICIT);
    world.publish(&["s.a"]);
    let until = (world.now.wall + Duration::from_secs(2)).rfc3339();
    let reply = world.api("CONSUMER.PAUSE.S.C", &alloc::format!(r#"{{"pause_until":"{until}"}}"#));
    assert_eq!(reply["paused"], true);
    assert_eq!(reply["pause_until"], until);
    assert_eq!(seen(&world.next("C", r#"{"expires":5000000000}"#)), "");
    assert_eq!(world.info("C")["paused"], true);
    world.pass(1900);
    assert_eq!(seen(&world.take("I")), "");
    world.pass(200);
    assert_eq!(seen(&world.take("I")), "1");
}

#[test]
fn a_reset_starts_anew() {
    let mut world = World::new();
    world.create("C", EXPLICIT);
    world.publish(&["s.a"; 3]);
    let got = world.next("C", "3");
    world.ack(&got[0], "");
    let reply = world.api("CONSUMER.RESET.S.C", "");
    assert_eq!((reply["reset_seq"].clone(), reply["num_pending"].clone()), (2.into(), 2.into()));
    assert_eq!(seen(&world.next("C", "2")), "2, 3");
    let reply = world.api("CONSUMER.RESET.S.C", r#"{"seq":1}"#);
    assert_eq!(reply["num_pending"], 3, "{reply}");
}

#[test]
fn an_ephemeral_consumer_goes_when_it_is_not_used() {
    let mut world = World::new();
    world.create("E", r#""ack_policy":"explicit","inactive_threshold":1000000000"#);
    world.create("D", r#""durable_name":"D","ack_policy":"explicit""#);
    world.pass(800);
    world.next("E", "1");
    world.host.deaf.insert("I".into());
    world.pass(800);
    world.host.deaf.clear();
    assert_eq!(world.info("E")["error"], Value::Null, "used in between");
    world.api("CONSUMER.DELETE.S.E", "");
    world.create("E", r#""ack_policy":"explicit","inactive_threshold":1000000000"#);
    world.pass(1500);
    assert_eq!(world.info("E")["error"]["err_code"], 10014);
    assert_eq!(world.info("D")["error"], Value::Null);
}

#[test]
fn a_request_nobody_waits_for_is_dropped_and_costs_no_message() {
    let mut world = World::new();
    world.create("C", EXPLICIT);
    world.next_to("C", "I", r#"{"expires":9000000000}"#);
    world.host.deaf.insert("I".into());
    world.publish(&["s.a"]);
    let info = world.info("C");
    assert_eq!(
        (info["num_waiting"].clone(), info["num_ack_pending"].clone()),
        (0.into(), 0.into())
    );
    world.host.deaf.clear();
    assert_eq!(seen(&world.next("C", "1")), "1");
}

#[test]
fn a_young_request_behind_a_leaf_is_kept_until_its_interest_arrives() {
    let mut world = World::new();
    world.host.leafs = true;
    world.create("C", EXPLICIT);
    world.publish(&["s.a"]);
    world.host.deaf.insert("I".into());
    world.next_to("C", "I", r#"{"expires":9000000000}"#);
    world.pass(300);
    world.host.deaf.clear();
    world.pass(100);
    assert_eq!(seen(&world.take("I")), "1");
}

#[test]
fn a_slow_receiver_leaves_the_backlog_in_the_store() {
    let mut world = World::new();
    world.create("C", EXPLICIT);
    world.publish(&["s.a"]);
    world.host.slow.insert("I".into());
    assert_eq!(seen(&world.next("C", r#"{"expires":9000000000}"#)), "");
    world.host.slow.clear();
    world.js.handle_drained(world.now, &mut world.host);
    world.settle();
    assert_eq!(seen(&world.take("I")), "1");
}

#[test]
fn a_removed_message_is_neither_delivered_nor_awaited() {
    let mut world = World::new();
    world.create("C", EXPLICIT);
    world.publish(&["s.a"; 4]);
    world.next("C", "2");
    for seq in [2, 3] {
        world.api("STREAM.MSG.DELETE.S", &alloc::format!(r#"{{"seq":{seq}}}"#));
    }
    let info = world.info("C");
    assert_eq!(
        (info["num_ack_pending"].clone(), info["num_pending"].clone()),
        (1.into(), 1.into())
    );
    assert_eq!(seen(&world.next("C", "2")), "4");
    world.api("STREAM.PURGE.S", "");
    let info = world.info("C");
    assert_eq!(
        (info["num_ack_pending"].clone(), info["num_pending"].clone()),
        (0.into(), 0.into())
    );
    assert_eq!(info["ack_floor"]["stream_seq"], 4);
}

#[test]
fn a_durable_consumer_survives_a_restart() {
    let mut world = World::new();
    world.create("C", EXPLICIT);
    world.publish(&["s.a"; 3]);
    let got = world.next("C", "2");
    world.ack(&got[0], "");
    world.pass(300);
    let mut world = world.restarted();
    let info = world.info("C");
    assert_eq!(info["ack_floor"]["stream_seq"], 1);
    assert_eq!(
        (info["num_ack_pending"].clone(), info["num_pending"].clone()),
        (1.into(), 1.into())
    );
    assert_eq!(seen(&world.next("C", "1")), "3");
    world.pass(31_000);
    assert_eq!(seen(&world.next("C", "2")), "2(x2), 3(x2)");
}

const PUSH: &str =
    r#""ack_policy":"none","deliver_subject":"d","idle_heartbeat":1000000000,"flow_control":true"#;

#[test]
fn push_waits_for_a_listener_and_sends_heartbeats_while_there_is_one() {
    let mut world = World::new();
    world.publish(&["s.a"]);
    let created = world.create("P", PUSH);
    assert_eq!(
        (created["num_pending"].clone(), created["push_bound"].clone()),
        (1.into(), Value::Null)
    );
    world.pass(3000);
    assert_eq!(seen(&world.take("d")), "");
    world.listen("d", true);
    assert_eq!(seen(&world.take("d")), "1");
    assert_eq!(world.info("P")["push_bound"], true);
    world.pass(1100);
    let got = world.take("d");
    assert_eq!(
        got[0].headers,
        "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 1\r\nNats-Last-Stream: 1\r\n\r\n"
    );
    world.listen("d", false);
    world.publish(&["s.a"]);
    world.pass(1500);
    assert_eq!(seen(&world.take("d")), "");
    world.listen("d", true);
    assert_eq!(seen(&world.take("d")), "2");
    assert_eq!(seen(&world.next("P", "1")), "409 Consumer is push based");
}

#[test]
fn flow_control_asks_at_half_the_window_and_stops_at_the_end() {
    let mut world = World::new();
    world.create("P", PUSH);
    world.listen("d", true);
    let payload = "y".repeat(100_000);
    for _ in 0..40 {
        world.call("s.a", "", "", &payload);
    }
    let got = world.take("d");
    let asked = got.iter().position(|sent| sent.status() == "100 FlowControl Request").unwrap();
    assert_eq!((asked, got.len()), (11, 22), "asked after 1 MiB, stopped after 2 MiB");
    world.pass(1100);
    let beat = world.take("d");
    assert!(
        beat[0].headers.contains(&alloc::format!("Nats-Consumer-Stalled: {}", got[asked].reply))
    );
    let reply = got[asked].reply.clone();
    world.call(&reply, "", "", "");
    let got = world.take("d");
    assert!(got.len() > 18, "the rest came after the answer: {}", got.len());
}

#[test]
fn a_push_consumer_without_listener_goes_after_its_threshold() {
    let mut world = World::new();
    world.create("P", PUSH);
    world.listen("d", true);
    world.pass(20_000);
    assert_eq!(world.info("P")["error"], Value::Null);
    world.listen("d", false);
    world.pass(5100);
    assert_eq!(world.info("P")["error"]["err_code"], 10014);
    assert!(world.host.watched.is_empty());
}

const SOURCE: &str = r#"{"stream_name":"S","config":{"name":"JS_SRC_x","deliver_policy":"all","ack_policy":"none","ack_wait":79200000000000,"max_deliver":1,"flow_control":true,"deliver_subject":"$JS.S.1","idle_heartbeat":1000000000,"inactive_threshold":10000000000,"direct":true,"sourcing":true,"metadata":{"_nats.src.acc":"$G"}},"action":""}"#;

#[test]
fn a_hub_gets_a_hidden_consumer_with_a_name_of_its_own() {
    let mut world = World::new();
    world.publish(&["s.a"]);
    let headers = "NATS/1.0\r\nNats-Required-Api-Level: 5\r\nNats-Stream-Identity: \r\n\r\n";
    let reply = world.api_with("CONSUMER.CREATE.S", headers, SOURCE);
    let name = reply["name"].as_str().unwrap().to_string();
    assert!(name.starts_with("JS_SRC_x-") && name.len() == 17, "{reply}");
    assert_eq!(reply["config"]["name"], name);
    assert_eq!(reply["config"]["metadata"]["_nats.req.level"], "0");
    assert_eq!(
        (reply["num_pending"].clone(), reply["delivered"]["stream_seq"].clone()),
        (1.into(), 0.into())
    );
    let identity = reply["headers"].as_str().unwrap().to_string();
    assert!(identity.starts_with("NATS/1.0\r\nNats-Stream-Identity: "), "{identity}");
    assert_eq!(world.api("CONSUMER.NAMES.S", "")["total"], 0);
    assert_eq!(world.js.consumer_count(STREAM), 0);
    assert_eq!(world.info(&name)["error"], Value::Null);
    let wrong = "NATS/1.0\r\nNats-Stream-Identity: other\r\n\r\n";
    let reply = world.api_with("CONSUMER.CREATE.S", wrong, SOURCE);
    assert_eq!(reply["error"]["err_code"], 10225);
    let level = "NATS/1.0\r\nNats-Required-Api-Level: 99\r\n\r\n";
    let reply = world.api_with("CONSUMER.CREATE.S", level, SOURCE);
    assert_eq!(reply["error"]["err_code"], 10185);
}

#[test]
fn a_hub_that_comes_back_goes_on_where_it_was() {
    let mut world = World::new();
    world.publish(&["s.a", "s.a"]);
    world.api("CONSUMER.CREATE.S", SOURCE);
    world.listen("$JS.S.1", true);
    let got = world.take("$JS.S.1");
    assert_eq!(seen(&got), "1, 2");
    world.listen("$JS.S.1", false);
    world.publish(&["s.a"]);
    world.pass(6 * 3600 * 1000);
    world.listen("$JS.S.1", true);
    let got = world.take("$JS.S.1");
    assert_eq!(seen(&got), "100 Idle Heartbeat, 3");
    assert!(got[0].headers.contains("Nats-Last-Consumer: 2\r\n"));
    assert!(got[1].reply.contains(".1.3.3."), "the next consumer sequence: {}", got[1].reply);
}

#[test]
fn after_a_restart_a_hub_is_told_to_start_anew() {
    let mut world = World::new();
    world.publish(&["s.a", "s.a"]);
    world.api("CONSUMER.CREATE.S", SOURCE);
    world.listen("$JS.S.1", true);
    world.pass(300);
    let mut world = world.restarted();
    world.listen("$JS.S.1", true);
    let got = world.take("$JS.S.1");
    assert_eq!(seen(&got), "100 Idle Heartbeat", "and no message that would be counted wrongly");
    assert!(got[0].headers.contains("Nats-Last-Consumer: 4611686018427387904\r\n"));
    // What the hub then does.
    world.listen("$JS.S.1", false);
    let again = SOURCE.replace("$JS.S.1", "$JS.S.2").replace(
        r#""deliver_policy":"all""#,
        r#""deliver_policy":"by_start_sequence","opt_start_seq":2"#,
    );
    let reply = world.api("CONSUMER.CREATE.S", &again);
    assert_eq!(reply["error"], Value::Null, "{reply}");
    assert_eq!(world.js.consumers_total(), 1, "the old one is gone");
    world.listen("$JS.S.2", true);
    assert_eq!(seen(&world.take("$JS.S.2")), "2");
}

#[test]
fn rubbish_does_not_disturb() {
    let mut world = World::new();
    world.create("C", EXPLICIT);
    world.publish(&["s.a"]);
    let got = world.next("C", "1");
    for payload in ["\u{0}", "{", "-NAK {", "+NXT {\"batch\":-1", "+WPI ", "nonsense"] {
        world.ack(&got[0], payload);
        let (now, host) = (world.now, &mut world.host);
        for (_, target) in host.subscriptions.clone() {
            let msg = Inbound {
                subject: b"$JS.ACK.S.C.18446744073709551615.18446744073709551615.0.0.0",
                reply: b"A",
                headers: b"NATS/1.0",
                payload: payload.as_bytes(),
            };
            match target {
                Target::Ack(id) => world.js.handle_ack(now, id, msg, host),
                Target::Next(id) => world.js.handle_next(now, id, msg, host),
                Target::Flow(id) => world.js.handle_flow(now, id, msg, host),
                _ => {}
            }
        }
        for verb in [
            "CREATE.S",
            "CREATE.S.C",
            "INFO.S.C",
            "LIST.S",
            "PAUSE.S.C",
            "RESET.S.Q",
            "UNPIN.S.C",
            "X",
            "",
        ] {
            world.call(&alloc::format!("$JS.API.CONSUMER.{verb}"), "R", "", payload);
        }
    }
    assert_eq!(world.info("C")["error"], Value::Null);
}

#[test]
fn original_pace_and_rate_limits_hold_messages_back() {
    let mut world = World::new();
    world.publish(&["s.a"]);
    world.now.wall = world.now.wall + Duration::from_secs(2);
    world.publish(&["s.a"]);
    world.create("C", r#""ack_policy":"none","replay_policy":"original""#);
    assert_eq!(seen(&world.next("C", "2")), "1");
    world.pass(1900);
    assert_eq!(seen(&world.take("I")), "");
    world.pass(200);
    assert_eq!(seen(&world.take("I")), "2");
    world.create("P", r#""ack_policy":"none","deliver_subject":"d","rate_limit_bps":8000000"#);
    world.api("CONSUMER.DELETE.S.C", "");
    world.listen("d", true);
    world.take("d");
    let payload = "y".repeat(900_000);
    for _ in 0..3 {
        world.call("s.a", "", "", &payload);
    }
    assert_eq!(world.take("d").len(), 1, "the burst holds one");
    world.pass(1000);
    assert_eq!(world.take("d").len(), 1);
}
