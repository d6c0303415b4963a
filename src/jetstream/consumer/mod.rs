//! Consumers: who gets which message of a stream, and until when it is remembered.
//!
//! Owns the table of consumers and their timers, and hands each event to the consumers it
//! concerns. One concern a file:
//!
//! | File | Owns |
//! | --- | --- |
//! | `config` | fields, defaults, rules, what may be updated |
//! | `create` | CREATE, from the request to the answer |
//! | `info`, `requests` | INFO, NAMES, LIST and the other requests about one that exists |
//! | `state` | delivered, ack floor, pending, redelivery queue |
//! | `cursor` | the next message: tail, reads, reading ahead |
//! | `deliver` | the delivery loop |
//! | `pull`, `push` | pull requests; interest, heartbeats, flow control |
//! | `priority` | priority groups, the pinned client |
//! | `ack` | acknowledgements |
//! | `settled` | what interest and work queue retention ask |
//! | `saving`, `record` | when and how state becomes durable |
//! | `sourcing` | what a hub's mirrors and sources need beyond that |
//! | `life` | timers, inactivity, removal, changes of the stream |
//! | `carry` | what a backup has of a consumer |
//! | `advisory` | events for whoever listens |
//!
//! # Invariants
//! - A consumer's messages, statuses and heartbeats leave in the order they were made.
//! - `timers` has at most one entry for a consumer, never later than what it has to do next.
//!
//! Source: nats-server 2.15.1 on the wire; ADR-13, ADR-17, ADR-42.

mod ack;
mod advisory;
mod carry;
pub(crate) mod config;
mod create;
mod cursor;
mod deliver;
mod info;
mod life;
mod priority;
mod pull;
mod push;
mod record;
mod requests;
mod saving;
mod settled;
mod sourcing;
mod state;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use slab::Slab;

use super::JetStream;
use crate::id::{ConsumerId, StreamId};
use crate::jetstream::host::{Host, Inbound};
use crate::jetstream::json::Asker;
use crate::jetstream::storage::{Seq, StoreReply};
use crate::jetstream::stream::config::ConsumerLimits;
use crate::subject::Filter;
use crate::time::{Instant, Now, Timestamp};
use config::ConsumerConfig;
use cursor::Cursor;
use deliver::Gate;
use info::Reply;
use push::Push;
use saving::Saving;
use state::Progress;

/// Tells the answer to the newest request of a kind from those to older ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

/// A request about a consumer that waits for the store.
#[derive(Debug)]
pub(crate) enum Pending {
    /// Where to start: the last message of one filter after the other.
    StartLast { id: ConsumerId, filter: usize, best: Seq },
    /// Where to start: the first message at or after a time.
    StartTime { id: ConsumerId },
    /// Where to start: the last message of each subject.
    StartSubjects { id: ConsumerId },
    /// `num_pending`.
    Count { id: ConsumerId, ticket: Ticket },
    /// Messages.
    Read { id: ConsumerId, ticket: Ticket },
    /// The record.
    Save { id: ConsumerId },
    /// Where a consumer may be reset to that starts by a time.
    Reset { id: ConsumerId, asker: Asker, seq: Seq },
    /// The record of one that is gone.
    Deleted(Asker),
}

/// `num_pending`, kept current.
#[derive(Debug, Default)]
struct Count {
    /// Matching messages not delivered once.
    pending: u64,
    /// Messages of the stream up to here are in the number.
    through: Seq,
    /// A new count was asked for.
    asked: Option<Ticket>,
    /// First deliveries since it was asked for.
    delivered: u64,
}

/// A request about a consumer that is being created, held back until it exists.
#[derive(Debug)]
struct Deferred {
    subject: Vec<u8>,
    reply: Vec<u8>,
    headers: Vec<u8>,
    payload: Vec<u8>,
}

/// Requests held back for one consumer; more are dropped.
const DEFERRED_MAX: usize = 64;

/// Where a consumer is in its life.
#[derive(Debug)]
enum Phase {
    /// The store is being asked where it starts.
    Starting(Vec<Deferred>),
    /// It delivers.
    Running,
}

/// A consumer.
#[derive(Debug)]
struct Consumer {
    id: ConsumerId,
    stream: StreamId,
    name: String,
    config: ConsumerConfig,
    created: Timestamp,
    /// Subjects wanted; empty: all.
    filters: Arc<[Filter]>,
    /// Does its record go to the store?
    persisted: bool,
    phase: Phase,
    progress: Progress,
    cursor: Cursor,
    count: Count,
    waiting: pull::Waiting,
    pin: Option<priority::Pin>,
    push: Option<Push>,
    gate: Gate,
    saving: Saving,
    /// Answers that wait for a count or the record.
    replies: Vec<Reply>,
    /// `$JS.ACK.<stream>.<consumer>.`
    ack_prefix: Box<[u8]>,
    /// Of the last pull request, delivery or ack.
    last_used: Instant,
    /// Of the last look for dead pull requests.
    scanned: Instant,
    /// Not to be looked at for inactivity before this.
    keep_until: Instant,
    /// It was paused when last looked at: its resuming is told.
    paused: bool,
    /// A newer one of the same hub stream took its place.
    superseded: bool,
    /// Restored from a record that may be behind what was sent: the hub has to start anew.
    resync: bool,
    armed: Option<Instant>,
}

impl Consumer {
    fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running)
    }

    fn is_paused(&self, now: Now) -> bool {
        self.config.pause_until.is_some_and(|until| until > now.wall)
    }

    fn is_ack_pending_full(&self) -> bool {
        self.config.ack_pending_max().is_some_and(|max| self.progress.pending.len() >= max)
    }

    /// What a heartbeat tells: the last consumer and stream sequence.
    fn last_positions(&self) -> (u64, Seq) {
        (self.progress.delivered.consumer, self.cursor.next().saturating_sub(1))
    }

    /// The same on the deliver subject, where it may be a call to start anew.
    fn heartbeat_positions(&self) -> (u64, Seq) {
        let (consumer, stream) = self.last_positions();
        if self.resync { (sourcing::IMPOSSIBLE_SEQ, stream) } else { (consumer, stream) }
    }

    fn wants(&self, subject: &[u8]) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| filter.matches(subject))
    }
}

/// All consumers.
#[derive(Debug, Default)]
pub(crate) struct Consumers {
    table: Slab<Box<Consumer>>,
    /// Of the newest consumer.
    generation: u32,
    by_stream: BTreeMap<StreamId, BTreeMap<String, ConsumerId>>,
    /// Push consumers by deliver subject.
    watchers: BTreeMap<Box<[u8]>, Vec<ConsumerId>>,
    timers: BTreeSet<(Instant, ConsumerId)>,
    /// The newest ticket.
    ticket: u64,
    /// Confirmed acks wait for a record to be written at the end of the turn.
    to_sync: Vec<ConsumerId>,
    /// Waiting for a slow receiver.
    blocked: BTreeSet<ConsumerId>,
    /// For status messages.
    scratch: Vec<u8>,
    /// For ack subjects.
    ack: Vec<u8>,
}

impl Consumers {
    fn get(&self, id: ConsumerId) -> Option<&Consumer> {
        let consumer = self.table.get(usize::try_from(id.index).ok()?)?;
        (consumer.id == id).then_some(consumer)
    }

    fn get_mut(&mut self, id: ConsumerId) -> Option<&mut Consumer> {
        let consumer = self.table.get_mut(usize::try_from(id.index).ok()?)?;
        (consumer.id == id).then_some(consumer)
    }

    fn get_with_scratch(&mut self, id: ConsumerId) -> (Option<&mut Consumer>, &mut Vec<u8>) {
        let consumer = usize::try_from(id.index)
            .ok()
            .and_then(|index| self.table.get_mut(index))
            .filter(|consumer| consumer.id == id)
            .map(|consumer| &mut **consumer);
        (consumer, &mut self.scratch)
    }

    fn by_name(&self, stream: StreamId, name: &[u8]) -> Option<ConsumerId> {
        let name = core::str::from_utf8(name).ok()?;
        self.by_stream.get(&stream)?.get(name).copied()
    }

    fn of_stream(&self, stream: StreamId) -> Vec<ConsumerId> {
        self.by_stream
            .get(&stream)
            .map(|names| names.values().copied().collect())
            .unwrap_or_default()
    }

    fn watching(&self, subject: &[u8]) -> &[ConsumerId] {
        self.watchers.get(subject).map_or(&[], Vec::as_slice)
    }

    /// Does any push consumer deliver there?
    pub(in crate::jetstream) fn are_watching(&self, subject: &[u8]) -> bool {
        !self.watching(subject).is_empty()
    }

    fn next_ticket(&mut self) -> Ticket {
        self.ticket += 1;
        Ticket(self.ticket)
    }

    /// Makes sure the consumer's timer fires no later than `due`.
    fn arm(&mut self, id: ConsumerId, due: Instant) {
        let Some(consumer) = self.get_mut(id) else { return };
        let old = consumer.armed;
        if old.is_some_and(|old| old <= due) {
            return;
        }
        consumer.armed = Some(due);
        if let Some(old) = old {
            self.timers.remove(&(old, id));
        }
        self.timers.insert((due, id));
    }

    /// The consumer has something new to wait for.
    fn rearm(&mut self, now: Now, id: ConsumerId) {
        let Some(consumer) = self.get_mut(id) else { return };
        if let Some(due) = consumer.due(now) {
            self.arm(id, due);
        }
    }
}

impl JetStream {
    /// `$JS.API.CONSUMER.…`; `tokens` come after that. Unknown ones get no answer, as from
    /// the reference server.
    pub(in crate::jetstream) fn consumer_api(
        &mut self,
        now: Now,
        tokens: &[&[u8]],
        msg: Inbound<'_>,
        host: &mut impl Host,
    ) {
        if let [b"CREATE", stream, name, ..]
        | [b"DURABLE", b"CREATE", stream, name]
        | [b"INFO" | b"DELETE" | b"PAUSE" | b"RESET" | b"UNPIN", stream, name] = tokens
            && self.defer(stream, name, &msg)
        {
            return;
        }
        match tokens {
            [b"CREATE", stream] => self.api_create(now, stream, None, None, msg, host),
            [b"CREATE", stream, name] => self.api_create(now, stream, Some(name), None, msg, host),
            [b"CREATE", stream, name, filter @ ..] => {
                let filter = filter.join(&b'.');
                self.api_create(now, stream, Some(name), Some(&filter), msg, host);
            }
            [b"DURABLE", b"CREATE", stream, name] => {
                self.api_create_durable(now, stream, name, msg, host);
            }
            [b"INFO", stream, name] => self.api_info(now, stream, name, msg, host),
            [b"NAMES", stream] => self.api_names(stream, msg, host),
            [b"LIST", stream] => self.api_list(now, stream, msg, host),
            [b"DELETE", stream, name] => self.api_delete(now, stream, name, msg, host),
            [b"PAUSE", stream, name] => self.api_pause(now, stream, name, msg, host),
            [b"UNPIN", stream, name] => self.api_unpin(now, stream, name, msg, host),
            [b"RESET", stream, name] => self.api_reset(now, stream, name, msg, host),
            _ => {}
        }
    }

    /// Holds a request back if it is about a consumer that is still being created.
    fn defer(&mut self, stream: &[u8], name: &[u8], msg: &Inbound<'_>) -> bool {
        let Some(stream) = self.stream_by_name(stream).map(|stream| stream.id) else {
            return false;
        };
        let Some(id) = self.consumers.by_name(stream, name) else { return false };
        let Some(consumer) = self.consumers.get_mut(id) else { return false };
        let Phase::Starting(deferred) = &mut consumer.phase else { return false };
        if deferred.len() < DEFERRED_MAX {
            deferred.push(Deferred {
                subject: msg.subject.to_vec(),
                reply: msg.reply.to_vec(),
                headers: msg.headers.to_vec(),
                payload: msg.payload.to_vec(),
            });
        }
        true
    }

    /// The store answered.
    pub(in crate::jetstream) fn consumers_reply(
        &mut self,
        now: Now,
        pending: Pending,
        reply: StoreReply,
        host: &mut impl Host,
    ) {
        match pending {
            Pending::StartLast { .. }
            | Pending::StartTime { .. }
            | Pending::StartSubjects { .. } => {
                self.start_answered(now, pending, reply, host);
            }
            Pending::Count { id, ticket } => self.counted(now, id, ticket, reply, host),
            Pending::Read { id, ticket } => self.have_read(now, id, ticket, reply, host),
            Pending::Save { id } => self.saved(now, id, &reply, host),
            Pending::Reset { id, asker, seq } => {
                self.reset_answered(now, id, asker, seq, &reply, host);
            }
            Pending::Deleted(asker) => {
                let failure = match &reply {
                    StoreReply::Done { result: Err(error), .. } => Some(error),
                    _ => None,
                };
                self.deleted(&asker, failure, host);
            }
        }
    }

    /// Consumers of a stream, hidden ones excluded.
    pub(in crate::jetstream) fn consumer_count(&self, stream: StreamId) -> usize {
        let Some(names) = self.consumers.by_stream.get(&stream) else { return 0 };
        let visible = |id: &&ConsumerId| {
            self.consumers.get(**id).is_some_and(|consumer| !consumer.config.is_hidden())
        };
        names.values().filter(visible).count()
    }

    /// Names of the consumers that would break these limits of their stream.
    pub(in crate::jetstream) fn consumers_over_limits(
        &self,
        stream: StreamId,
        limits: &ConsumerLimits,
    ) -> Vec<&str> {
        let over = |cap: i64, value: i64| cap > 0 && value > cap;
        let consumers = self.consumers.by_stream.get(&stream).into_iter().flatten();
        consumers
            .filter(|(_, id)| {
                self.consumers.get(**id).is_some_and(|consumer| {
                    let config = &consumer.config;
                    over(limits.inactive_threshold, config.inactive_threshold)
                        || over(limits.max_ack_pending, config.max_ack_pending)
                })
            })
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// Consumers of all streams, hidden ones included.
    pub(in crate::jetstream) fn consumers_total(&self) -> usize {
        self.consumers.table.len()
    }

    /// Has the stream any consumer, hidden ones included? Decides about the tail cache.
    pub(in crate::jetstream) fn has_consumers(&self, stream: StreamId) -> bool {
        self.consumers.by_stream.get(&stream).is_some_and(|names| !names.is_empty())
    }

    /// The backlog of a connection has gone.
    pub fn handle_drained(&mut self, now: Now, host: &mut impl Host) {
        for id in core::mem::take(&mut self.consumers.blocked) {
            self.consumer_run(now, id, host);
        }
    }

    /// When [`Self::consumers_timeout`] is due.
    pub(in crate::jetstream) fn consumers_poll_timeout(&self) -> Option<Instant> {
        self.consumers.timers.first().map(|timer| timer.0)
    }
}
