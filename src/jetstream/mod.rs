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

mod advisory;
mod backup;
pub mod consumer;
pub(crate) mod disabled;
pub mod engine;
pub mod host;
pub(crate) mod json;
mod memory;
pub mod options;
mod publish;
mod retention;
pub mod shared;
pub mod storage;
pub(crate) mod stream;
pub(crate) mod tail;
pub mod view;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::id::{AccountId, Rng, StreamId};
use crate::limits;
use crate::time::{Duration, Instant, Now, Timestamp};
use host::{Host, JsNotice};
use options::Options;
use shared::Shared;
use storage::{RecoveredStream, Removed, StoreReply, StoreRequest, StreamUpdate, Token};
use stream::{Stream, StreamConfig};

/// Between two sweeps of one stream for old messages, at least.
const EXPIRE_INTERVAL: Duration = Duration::from_millis(250);
/// A sweep the store has not answered, because the medium fails, is asked for again.
const EXPIRE_RETRY: Duration = Duration::from_secs(5);
/// Longest wait for a sweep; then the wall clock, which may have jumped, is looked at again.
const EXPIRE_RECHECK: Duration = Duration::from_mins(1);

/// Who waits for a reply of the store.
#[derive(Debug)]
enum Waiting {
    /// A stream's request.
    Stream(stream::Pending),
    /// A consumer's request.
    Consumer(consumer::Pending),
    /// Of a backup.
    Backup(backup::Pending),
}

/// See the module.
#[derive(Debug)]
pub struct JetStream {
    /// Whose it is.
    account: AccountId,
    pub(crate) shared: Shared,
    pub(crate) options: Options,
    pub(crate) rng: Rng,
    pub(crate) streams: BTreeMap<StreamId, Stream>,
    pub(crate) names: BTreeMap<String, StreamId>,
    consumers: consumer::Consumers,
    waiting: BTreeMap<Token, Waiting>,
    next_token: u64,
    /// The store has said what there is.
    recovered: bool,
    /// No message gets a time before this one: the clock was not set yet.
    earliest: Timestamp,
    /// The wall clock of the latest call, for advisories.
    wall: Timestamp,
    api: json::ApiCounts,
    ingest: publish::Ingest,
    batches: stream::batch::Batches,
    fast: stream::fast::FastBatches,
    memory: memory::Memory,
    backups: backup::Backups,
    /// When to look for old messages.
    expiries: BTreeSet<(Instant, StreamId)>,
    usage: Usage,
    retention: retention::Settling,
    intakes: stream::intake::Intakes,
    /// The clock of the latest call.
    clock: Instant,
    /// What the store last said of its medium, while it does not work.
    trouble: Option<String>,
}

/// Logical bytes stored, by storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) memory: u64,
    pub(crate) file: u64,
}

impl Usage {
    fn of(&mut self, memory: bool) -> &mut u64 {
        if memory { &mut self.memory } else { &mut self.file }
    }
}

/// The account of a stream, by its stored record; `None` if that cannot be read.
pub fn stream_account(record: &[u8]) -> Option<&str> {
    stream::config::record_account(record)
}

impl JetStream {
    /// The only one of a server. Nothing is known and nothing subscribed until the store's
    /// first reply.
    pub fn new(options: Options, seed: u64) -> Self {
        Self::of_account(AccountId::GLOBAL, options, seed, Shared::default())
    }

    /// That of one account, next to others with the same `shared`.
    pub fn of_account(account: AccountId, options: Options, seed: u64, shared: Shared) -> Self {
        Self {
            account,
            shared,
            options,
            rng: Rng::new(seed),
            streams: BTreeMap::new(),
            names: BTreeMap::new(),
            consumers: consumer::Consumers::default(),
            waiting: BTreeMap::new(),
            next_token: 0,
            recovered: false,
            earliest: Timestamp::default(),
            wall: Timestamp::default(),
            api: json::ApiCounts::default(),
            ingest: publish::Ingest::default(),
            batches: stream::batch::Batches::default(),
            fast: stream::fast::FastBatches::default(),
            memory: memory::Memory::default(),
            backups: backup::Backups::default(),
            expiries: BTreeSet::new(),
            usage: Usage::default(),
            retention: retention::Settling::default(),
            intakes: stream::intake::Intakes::default(),
            clock: Instant::default(),
            trouble: None,
        }
    }

    /// Other bounds, from now on: what is there stays as it is.
    pub fn set_options(&mut self, options: Options) {
        self.options = options;
    }

    /// Is this stream one of ours?
    pub fn has_stream(&self, stream: StreamId) -> bool {
        self.streams.contains_key(&stream)
    }

    /// The name of a stream.
    pub fn stream_name(&self, stream: StreamId) -> Option<&str> {
        self.streams.get(&stream).map(|stream| stream.name.as_str())
    }

    /// Has the store said what there is?
    pub fn is_recovered(&self) -> bool {
        self.recovered
    }

    /// Remembers who waits, and gives the token for the request.
    fn token(&mut self, waiting: Waiting) -> Token {
        self.next_token += 1;
        let token = Token::new(self.account, self.next_token);
        self.waiting.insert(token, waiting);
        token
    }

    /// A token for a request whose reply concerns nobody.
    fn unwatched_token(&mut self) -> Token {
        self.next_token += 1;
        Token::new(self.account, self.next_token)
    }

    /// Emits a request to the store that holds its stream: the file's, or ours in memory.
    /// All of JetStream goes through here. Replies arrive later, never inside this call.
    pub(crate) fn store(&mut self, request: StoreRequest, host: &mut impl Host) {
        if matches!(
            request,
            StoreRequest::CreateStream { .. }
                | StoreRequest::UpdateStream { .. }
                | StoreRequest::DeleteStream { .. }
                | StoreRequest::Purge { .. }
                | StoreRequest::DeleteMsg { .. }
                | StoreRequest::Settle { .. }
        ) {
            // What was published before the change must be stored before it.
            self.emit_ingest(host);
        }
        if let Some(request) = self.memory.take(request) {
            host.store(request);
        }
    }

    /// The stream of this name.
    pub(crate) fn stream_by_name(&self, name: &[u8]) -> Option<&Stream> {
        let name = core::str::from_utf8(name).ok()?;
        self.streams.get(self.names.get(name)?)
    }

    /// The clocks of the latest call.
    fn now(&self) -> Now {
        Now { instant: self.clock, wall: self.wall }
    }

    /// The time a message that arrives now gets.
    fn message_time(&self, now: Now) -> Timestamp {
        now.wall.max(self.earliest)
    }

    /// Takes a reply of the store.
    pub fn handle_store(&mut self, now: Now, reply: StoreReply, host: &mut impl Host) {
        (self.wall, self.clock) = (now.wall, now.instant);
        let token = match reply {
            StoreReply::Recovered { streams, next_stream, last_ts } => {
                self.recover(now, streams, next_stream, last_ts, host);
                return;
            }
            StoreReply::Published { batch, outcomes, updates } => {
                self.published(now, batch, &outcomes, &updates, host);
                return;
            }
            StoreReply::Expired { update, stored, before } => {
                if let Some(stream) = self.streams.get_mut(&update.stream) {
                    let expire = &mut stream.expire;
                    expire.not_before = expire.asked_at + EXPIRE_INTERVAL;
                }
                if stored.msgs.is_empty() {
                    self.updated(now, &update, host);
                } else {
                    self.stored_by_itself(now, &update, &stored, &before, host);
                }
                return;
            }
            StoreReply::Health(state) => {
                if state.is_none() {
                    self.retention.try_again();
                }
                self.trouble = state.as_ref().map(ToString::to_string);
                let notice = match state {
                    Some(error) => JsNotice::Error(format!("JetStream storage failed: {error}")),
                    None => JsNotice::Info("JetStream storage works again".into()),
                };
                host.notice(notice);
                return;
            }
            StoreReply::Done { token, ref update, .. }
            | StoreReply::Purged { token, ref update, .. } => {
                if let Some(update) = update {
                    self.updated(now, update, host);
                }
                token
            }
            StoreReply::Read { token, .. }
            | StoreReply::Got { token, .. }
            | StoreReply::Counted { token, .. }
            | StoreReply::LastPerSubject { token, .. }
            | StoreReply::Subjects { token, .. }
            | StoreReply::Deleted { token, .. } => token,
        };
        match self.waiting.remove(&token) {
            Some(Waiting::Stream(pending)) => self.stream_reply(now, pending, reply, host),
            Some(Waiting::Consumer(pending)) => self.consumers_reply(now, pending, reply, host),
            Some(Waiting::Backup(pending)) => self.backup_reply(now, pending, reply, host),
            None => {}
        }
    }

    fn recover(
        &mut self,
        now: Now,
        streams: Vec<RecoveredStream>,
        next_stream: u32,
        last_ts: Timestamp,
        host: &mut impl Host,
    ) {
        if core::mem::replace(&mut self.recovered, true) {
            return;
        }
        self.shared.raise_stream_ids(next_stream);
        self.earliest = last_ts;
        for found in streams {
            let id = found.stream;
            if found.record.is_empty() {
                // Of a restore that did not come to its end.
                self.forget_unfinished(id, host);
                continue;
            }
            match StreamConfig::from_record(&found.record) {
                Ok((config, ..)) if self.names.contains_key(&config.name) => {
                    let name = config.name;
                    host.notice(JsNotice::Error(format!(
                        "stream {name} is stored twice; the one with id {} is left alone",
                        id.0
                    )));
                }
                Ok((config, created)) => {
                    self.add_stream(id, config, created, host);
                    let update =
                        StreamUpdate { stream: id, state: found.state, removed: Removed::None };
                    self.set_state(now, &update);
                    self.intakes_recovered(id, &found.origins);
                    let consumers = found.consumers.len();
                    self.consumers_recovered(now, id, found.consumers, host);
                    // One that could not be read may want what the others do not.
                    if self.consumers.count(id) == consumers {
                        self.retention_changed(id, false);
                    }
                }
                Err(text) => host.notice(JsNotice::Error(format!(
                    "stream with id {} can not be read and is left alone: {text}",
                    id.0
                ))),
            }
        }
        for subject in stream::api::SUBJECTS {
            host.subscribe(subject, host::Target::Api);
        }
    }

    /// Takes over what a commit changed, and tells the consumers.
    fn updated(&mut self, now: Now, update: &StreamUpdate, host: &mut impl Host) {
        if self.set_state(now, update) {
            self.consumers_updated(now, update, None, host);
        }
    }

    /// Takes over the numbers of a stream; false if there is no such stream.
    fn set_state(&mut self, now: Now, update: &StreamUpdate) -> bool {
        let Some(stream) = self.streams.get_mut(&update.stream) else { return false };
        let used = self.usage.of(stream.memory);
        *used = used.saturating_sub(stream.state.bytes).saturating_add(update.state.bytes);
        self.shared.note_used(stream.memory, stream.state.bytes, update.state.bytes);
        let before = stream.tail.bytes();
        stream.tail.forget(&update.removed);
        self.shared.note_tail(before, stream.tail.bytes());
        stream.state.clone_from(&update.state);
        self.schedule_expiry(now, update.stream);
        true
    }

    /// Sets the timer of a stream for its oldest message.
    fn schedule_expiry(&mut self, now: Now, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let due = stream.state.next_expiry.map(|at| {
            let wait = u64::try_from(at.0.saturating_sub(now.wall.0)).unwrap_or(0);
            let wait = Duration::from_nanos(wait).min(EXPIRE_RECHECK);
            (now.instant + wait).max(stream.expire.not_before)
        });
        if due == stream.expire.due {
            return;
        }
        if let Some(old) = core::mem::replace(&mut stream.expire.due, due) {
            self.expiries.remove(&(old, id));
        }
        if let Some(due) = due {
            self.expiries.insert((due, id));
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now, host: &mut impl Host) {
        while let Some(&(due, id)) = self.expiries.first() {
            if due > now.instant {
                break;
            }
            self.expiries.remove(&(due, id));
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            stream.expire.due = None;
            if stream.state.next_expiry.is_some_and(|at| at > now.wall) {
                // The wait was cut short, or the wall clock went back.
                stream.expire.not_before = now.instant + Duration::from_millis(1);
                self.schedule_expiry(now, id);
                continue;
            }
            stream.expire.asked_at = now.instant;
            stream.expire.not_before = now.instant + EXPIRE_RETRY;
            self.schedule_expiry(now, id);
            self.store(StoreRequest::Expire { stream: id, now: now.wall }, host);
        }
        self.consumers_timeout(now, host);
        self.intakes_timeout(now, host);
        self.backups_timeout(now, host);
        self.batches_timeout(now, host);
        self.fast_timeout(now);
    }

    /// When to call [`Self::handle_timeout`] if nothing else happens first.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let expiry = self.expiries.first().map(|(due, _)| *due);
        let backups = self.backups.next_due();
        let batches = [self.batches_poll_timeout(), self.fast_poll_timeout()];
        [expiry, self.consumers_poll_timeout(), self.intakes_poll_timeout(), backups]
            .into_iter()
            .chain(batches)
            .flatten()
            .min()
    }

    /// Ends a turn: hands the messages gathered in it to the store, and works off what the
    /// store in memory has to do.
    pub fn flush(&mut self, now: Now, host: &mut impl Host) {
        self.emit_ingest(host);
        self.retention_flush(host);
        self.consumers_flush(now, host);
        // Replies may lead to requests; what a pathological chain leaves over is done in the
        // next turn.
        for _ in 0..limits::MEMORY_REPLIES_PER_TURN {
            let Some(reply) = self.memory.poll_reply() else { break };
            self.handle_store(now, reply, host);
            self.emit_ingest(host);
        }
    }

    /// The store is about to close: it gets what it does not know yet.
    pub fn save_all(&mut self, now: Now, host: &mut impl Host) {
        self.save_consumers(now, host);
    }

    /// The server stops; the last call before connections end.
    pub fn shut_down(&mut self, now: Now, host: &mut impl Host) {
        self.wall = now.wall;
        self.consumers_shut_down(host);
    }

    /// Is there work for [`Self::flush`]?
    pub fn needs_flush(&self) -> bool {
        self.ingest.is_waiting()
            || self.retention.is_waiting()
            || self.memory.is_waiting()
            || self.consumers_wait_for_flush()
    }
}

#[cfg(test)]
pub(crate) mod testing;
