//! What tests of JetStream share: a host that records, and a world of one JetStream over the
//! engine in memory.

extern crate std;

use alloc::collections::{BTreeSet, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::jetstream::JetStream;
use crate::jetstream::engine::MemStore;
use crate::jetstream::host::{Host, Inbound, JsNotice, Listeners, Target};
use crate::jetstream::options::Options;
use crate::jetstream::storage::{StoreReply, StoreRequest};
use crate::subject;
use crate::time::{Instant, Now, Timestamp};

/// A message that JetStream delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delivered {
    pub(crate) to: String,
    pub(crate) subject: String,
    pub(crate) reply: String,
    pub(crate) headers: String,
    pub(crate) payload: String,
}

/// Records everything; whoever is in `interest` listens, replies always find somebody.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) subscriptions: BTreeSet<(Vec<u8>, Target)>,
    pub(crate) delivered: Vec<Delivered>,
    pub(crate) requests: VecDeque<StoreRequest>,
    pub(crate) notices: Vec<JsNotice>,
    pub(crate) interest: Vec<Vec<u8>>,
    pub(crate) watched: BTreeSet<Vec<u8>>,
    pub(crate) backlogged: bool,
    pub(crate) leafs: bool,
}

impl Host for Recorder {
    fn subscribe(&mut self, subject: &[u8], target: Target) {
        self.subscriptions.insert((subject.into(), target));
    }

    fn unsubscribe(&mut self, subject: &[u8], target: Target) {
        self.subscriptions.remove(&(subject.into(), target));
    }

    fn deliver(
        &mut self,
        to: &[u8],
        subject: &[u8],
        reply: &[u8],
        headers: &[u8],
        payload: &[u8],
    ) -> bool {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.delivered.push(Delivered {
            to: text(to),
            subject: text(subject),
            reply: text(reply),
            headers: text(headers),
            payload: text(payload),
        });
        to.starts_with(b"_INBOX.") || self.has_interest(to)
    }

    fn literal_listeners(&self, subject: &[u8], _queue: &[u8]) -> Listeners {
        let plain = self.interest.iter().any(|wanted| wanted == subject);
        Listeners { plain, queue: false }
    }

    fn has_interest(&mut self, subject: &[u8]) -> bool {
        self.interest.iter().any(|wanted| subject::matches(subject, wanted))
    }

    fn watch(&mut self, subject: &[u8]) {
        self.watched.insert(subject.into());
    }

    fn unwatch(&mut self, subject: &[u8]) {
        self.watched.remove(subject);
    }

    fn is_backlogged(&mut self, _subject: &[u8]) -> bool {
        self.backlogged
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

/// JetStream, its host, and an engine that answers at once.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) js: JetStream,
    pub(crate) host: Recorder,
    pub(crate) disk: MemStore,
    pub(crate) now: Now,
}

impl World {
    /// A server without streams at 2026-11-24T10:00:00Z.
    pub(crate) fn new(options: Options) -> Self {
        let start = Timestamp::parse_rfc3339("2026-11-24T10:00:00Z").unwrap();
        let mut world = Self {
            js: JetStream::new(options, 7),
            host: Recorder::default(),
            disk: MemStore::new(),
            now: Now { instant: Instant(0), wall: start },
        };
        let reply =
            StoreReply::Recovered { streams: Vec::new(), next_stream: 1, last_ts: Timestamp(0) };
        world.js.handle_store(world.now, reply, &mut world.host);
        world
    }

    /// Time passes, and what is due is done.
    pub(crate) fn advance(&mut self, millis: u64) {
        let by = core::time::Duration::from_millis(millis);
        self.now = Now { instant: self.now.instant + by, wall: self.now.wall + by };
        self.js.handle_timeout(self.now, &mut self.host);
        self.settle();
    }

    /// Ends the turn and lets the store answer until all is quiet.
    pub(crate) fn settle(&mut self) {
        for _ in 0..1_000_000 {
            self.js.flush(self.now, &mut self.host);
            if let Some(request) = self.host.requests.pop_front() {
                self.disk.apply(request);
            }
            match self.disk.poll_reply() {
                Some(reply) => self.js.handle_store(self.now, reply, &mut self.host),
                None if self.host.requests.is_empty() && !self.js.needs_flush() => return,
                None => {}
            }
        }
        panic!("JetStream and its store never come to rest");
    }

    /// Hands a message to every target whose subscription matches, once each.
    pub(crate) fn publish(&mut self, subject: &str, reply: &str, headers: &str, payload: &str) {
        let targets: BTreeSet<Target> = self
            .host
            .subscriptions
            .iter()
            .filter(|(pattern, _)| subject::matches(subject.as_bytes(), pattern))
            .map(|(_, target)| *target)
            .collect();
        let msg = Inbound {
            subject: subject.as_bytes(),
            reply: reply.as_bytes(),
            headers: headers.as_bytes(),
            payload: payload.as_bytes(),
        };
        for target in targets {
            let (js, host, now) = (&mut self.js, &mut self.host, self.now);
            match target {
                Target::Api => js.handle_api(now, msg, host),
                Target::Stream(stream) => js.handle_publish(now, stream, msg, host),
                Target::DirectGet(stream) => js.handle_direct_get(now, stream, msg, host),
                Target::Next(consumer) => js.handle_next(now, consumer, msg, host),
                Target::Ack(consumer) => js.handle_ack(now, consumer, msg, host),
                Target::Flow(consumer) => js.handle_flow(now, consumer, msg, host),
                Target::Intake(stream, number) => {
                    js.handle_intake(now, stream, number, msg, host);
                }
                Target::Snapshot(id) => js.handle_snapshot_ack(now, id, msg, host),
                Target::Restore(id) => js.handle_restore(now, id, msg, host),
            }
        }
    }

    /// Publishes with a reply subject and returns everything that came back to it.
    pub(crate) fn ask(&mut self, subject: &str, headers: &str, payload: &str) -> Vec<Delivered> {
        self.host.delivered.clear();
        self.publish(subject, "_INBOX.test", headers, payload);
        self.settle();
        let mine = |msg: &Delivered| msg.to == "_INBOX.test";
        self.host.delivered.iter().filter(|msg| mine(msg)).cloned().collect()
    }

    /// One API request; the text of its one reply, or "" for none.
    pub(crate) fn api(&mut self, endpoint: &str, body: &str) -> String {
        let mut replies = self.ask(&format!("$JS.API.{endpoint}"), "", body);
        assert!(replies.len() <= 1, "{replies:?}");
        replies.pop().map(|msg| msg.payload).unwrap_or_default()
    }

    /// One publish; the text of its ack, or "" for none.
    pub(crate) fn put(&mut self, subject: &str, headers: &str, payload: &str) -> String {
        let mut replies = self.ask(subject, headers, payload);
        assert!(replies.len() <= 1, "{replies:?}");
        replies.pop().map(|msg| msg.payload).unwrap_or_default()
    }
}
