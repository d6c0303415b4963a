//! JetStream: streams, consumers and the `$JS.API`.
//!
//! Owns what streams and consumers there are, their configurations, the API, delivery and
//! acknowledgement. Does not own messages on disk (`engine` applies, `store` keeps), nor
//! interest and sockets (the [`Host`] does).
//!
//! The run-loop contract: one call of a `handle_*` method, which may call the host any
//! number of times; then [`JetStream::flush`] at the end of the turn (again, if a delivery
//! of the turn was captured by a stream); then
//! [`JetStream::poll_timeout`] says when [`JetStream::handle_timeout`] is due. No method
//! blocks, and none panics on what a client or the disk says.
//!
//! # Invariants
//! - No PubAck leaves before the store has answered the publish.
//! - A consumer delivers only messages whose publish the store has answered.
//! - Every request to the store that wants a reply has exactly one entry in `waiting`.
//!
//! Source: ADR-1 (JSON API), ADR-13 (pull), ADR-17 (ordered), ADR-31 (direct get), ADR-8 (KV);
//! nats-server 2.15.1 where they are silent.

pub mod consumer;
pub mod host;
pub(crate) mod json;
pub mod options;
pub mod storage;
pub(crate) mod stream;
pub(crate) mod tail;

use alloc::collections::BTreeMap;
use alloc::string::String;

use crate::id::{Rng, StreamId};
use crate::time::{Instant, Now};
use host::{Host, Inbound};
use options::Options;
use storage::{StoreReply, StoreRequest, Token};
use stream::Stream;

/// Who waits for a reply of the store.
#[derive(Debug)]
pub(crate) enum Waiting {
    /// A stream's request.
    Stream(stream::Pending),
    /// A consumer's request.
    Consumer(consumer::Pending),
}

/// See the module.
#[derive(Debug)]
pub struct JetStream {
    pub(crate) options: Options,
    pub(crate) rng: Rng,
    pub(crate) streams: BTreeMap<StreamId, Stream>,
    pub(crate) names: BTreeMap<String, StreamId>,
    pub(crate) consumers: consumer::Consumers,
    waiting: BTreeMap<Token, Waiting>,
    next_token: u64,
    api: json::ApiCounts,
}

impl JetStream {
    /// Nothing is known and nothing subscribed until the store's first reply.
    pub fn new(options: Options, seed: u64) -> Self {
        Self {
            options,
            rng: Rng::new(seed),
            streams: BTreeMap::new(),
            names: BTreeMap::new(),
            consumers: consumer::Consumers::default(),
            waiting: BTreeMap::new(),
            next_token: 0,
            api: json::ApiCounts::default(),
        }
    }

    /// Remembers who waits, and gives the token for the request.
    pub(crate) fn token(&mut self, waiting: Waiting) -> Token {
        self.next_token += 1;
        let token = Token(self.next_token);
        self.waiting.insert(token, waiting);
        token
    }

    /// Emits a request to the store that holds its stream: the file's, or ours in memory.
    /// All of JetStream goes through here. Replies arrive later, never inside this call.
    pub(crate) fn store(&mut self, request: StoreRequest, host: &mut impl Host) {
        host.store(request);
    }

    /// The stream of this name.
    pub(crate) fn stream_by_name(&self, name: &[u8]) -> Option<&Stream> {
        let name = core::str::from_utf8(name).ok()?;
        self.streams.get(self.names.get(name)?)
    }

    /// Takes a reply of the store.
    pub fn handle_store(&mut self, _now: Now, _reply: StoreReply, _host: &mut impl Host) {}

    /// Takes a request on `$JS.API.>`.
    pub fn handle_api(&mut self, _now: Now, _msg: Inbound<'_>, _host: &mut impl Host) {}

    /// Takes a message on a subject of `stream`.
    pub fn handle_publish(
        &mut self,
        _now: Now,
        _stream: StreamId,
        _msg: Inbound<'_>,
        _host: &mut impl Host,
    ) {
    }

    /// Takes a request on `$JS.API.DIRECT.GET.<stream>…`.
    pub fn handle_direct_get(
        &mut self,
        _now: Now,
        _stream: StreamId,
        _msg: Inbound<'_>,
        _host: &mut impl Host,
    ) {
    }

    /// Ends a turn: hands the messages gathered in it to the store.
    pub fn flush(&mut self, _now: Now, _host: &mut impl Host) {}

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now, host: &mut impl Host) {
        self.consumers_timeout(now, host);
    }

    /// When to call [`Self::handle_timeout`] if nothing else happens first.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.consumers_poll_timeout()
    }
}
