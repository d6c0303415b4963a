//! What clients of a consumer see, against a host that records and a store that keeps
//! messages in a map.

mod delivery;
mod push;
mod requests;

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
    fn requester(&self, _headers: &[u8]) -> Vec<u8> {
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
            StoreRequest::DeleteStream { token, .. } | StoreRequest::Settle { token, .. } => {
                done(token, None)
            }
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
