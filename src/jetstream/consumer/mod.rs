//! Consumers.

use alloc::vec::Vec;

use alloc::sync::Arc;

use super::JetStream;
use crate::id::{ConsumerId, StreamId};
use crate::jetstream::host::{Host, Inbound};
use crate::jetstream::storage::{Chunk, ConsumerRecord, StoreReply, StreamUpdate};
use crate::time::{Instant, Now};

/// All consumers.
#[derive(Debug, Default)]
pub(super) struct Consumers {}

/// A request about a consumer that waits for the store.
#[derive(Debug)]
pub(super) enum Pending {}

#[expect(clippy::unused_self, clippy::needless_pass_by_value, reason = "to be filled in")]
impl JetStream {
    /// `$JS.API.CONSUMER.…`; `tokens` come after that. Every path answers by `respond`.
    pub(super) fn consumer_api(
        &mut self,
        _now: Now,
        _tokens: &[&[u8]],
        _msg: Inbound<'_>,
        _host: &mut impl Host,
    ) {
    }

    /// After each commit that touched the stream; `stored` has what it added.
    pub(super) fn consumers_updated(
        &mut self,
        _now: Now,
        _update: &StreamUpdate,
        _stored: Option<&Arc<Chunk>>,
        _host: &mut impl Host,
    ) {
    }

    /// The store answered.
    pub(super) fn consumers_reply(
        &mut self,
        _now: Now,
        pending: Pending,
        _reply: StoreReply,
        _host: &mut impl Host,
    ) {
        match pending {}
    }

    /// At start, for each stream.
    pub(super) fn consumers_recovered(
        &mut self,
        _now: Now,
        _stream: StreamId,
        _records: Vec<ConsumerRecord>,
        _host: &mut impl Host,
    ) {
    }

    /// The stream is about to go; it is still in the table.
    pub(super) fn consumers_stream_deleted(
        &mut self,
        _now: Now,
        _stream: StreamId,
        _host: &mut impl Host,
    ) {
    }

    /// Its configuration changed.
    pub(super) fn consumers_stream_updated(
        &mut self,
        _now: Now,
        _stream: StreamId,
        _host: &mut impl Host,
    ) {
    }

    /// Timers of consumers.
    pub(super) fn consumers_timeout(&mut self, _now: Now, _host: &mut impl Host) {}

    /// When [`Self::consumers_timeout`] is due.
    pub(super) fn consumers_poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Consumers of a stream, hidden ones excluded.
    pub(super) fn consumer_count(&self, _stream: StreamId) -> usize {
        0
    }

    /// Consumers of all streams, hidden ones included.
    pub(super) fn consumers_total(&self) -> usize {
        0
    }

    /// Has the stream any consumer, hidden ones included? Decides about the tail cache.
    pub(super) fn has_consumers(&self, _stream: StreamId) -> bool {
        false
    }

    /// A pull request on `$JS.API.CONSUMER.MSG.NEXT.<stream>.<consumer>`.
    pub fn handle_next(
        &mut self,
        _now: Now,
        _consumer: ConsumerId,
        _msg: Inbound<'_>,
        _host: &mut impl Host,
    ) {
    }

    /// An acknowledgement on `$JS.ACK.…`.
    pub fn handle_ack(
        &mut self,
        _now: Now,
        _consumer: ConsumerId,
        _msg: Inbound<'_>,
        _host: &mut impl Host,
    ) {
    }

    /// An answer to flow control on `$JS.FC.…`.
    pub fn handle_flow(
        &mut self,
        _now: Now,
        _consumer: ConsumerId,
        _msg: Inbound<'_>,
        _host: &mut impl Host,
    ) {
    }

    /// Interest on a watched subject came or went.
    pub fn handle_interest(&mut self, _now: Now, _subject: &[u8], _host: &mut impl Host) {}

    /// The backlog of a connection has gone.
    pub fn handle_drained(&mut self, _now: Now, _host: &mut impl Host) {}
}
