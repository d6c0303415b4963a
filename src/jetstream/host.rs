//! What JetStream asks of the broker that carries it.
//!
//! Owns the [`Host`] trait and the [`Target`]s JetStream subscribes with. The broker
//! implements the trait on a view of its parts, so that a delivery goes straight into the
//! receivers' outboxes; tests implement it with a recorder.

use alloc::string::String;

use crate::id::{ConsumerId, StreamId};
use crate::jetstream::storage::StoreRequest;

/// What a subscription of JetStream stands for. The broker hands a message that matches one
/// to the method of `JetStream` of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// `$JS.API.>`: `JetStream::handle_api`.
    Api,
    /// A subject of a stream: `JetStream::handle_publish`. A message reaches one stream once,
    /// however many of its subjects match.
    Stream(StreamId),
    /// `$JS.API.DIRECT.GET.<stream>` and `….>`: `JetStream::handle_direct_get`.
    DirectGet(StreamId),
    /// `$JS.API.CONSUMER.MSG.NEXT.<stream>.<consumer>`: `JetStream::handle_next`.
    Next(ConsumerId),
    /// `$JS.ACK.…` of a consumer: `JetStream::handle_ack`.
    Ack(ConsumerId),
    /// `$JS.FC.…` of a consumer: `JetStream::handle_flow`.
    Flow(ConsumerId),
    /// What an origin of a mirror or source sends, for one attempt: `JetStream::handle_intake`.
    Intake(StreamId, u32),
    /// `$JS.SNAPSHOT.ACK.…` of a backup: `JetStream::handle_snapshot_ack`.
    Snapshot(u32),
    /// `$JS.SNAPSHOT.RESTORE.…`: `JetStream::handle_restore`.
    Restore(u32),
}

/// A message as it reaches JetStream. All fields borrow from the buffer it was read into.
#[derive(Clone, Copy, Debug)]
pub struct Inbound<'a> {
    /// Its subject, after mappings.
    pub subject: &'a [u8],
    /// Where an answer goes; empty: nowhere.
    pub reply: &'a [u8],
    /// The whole header block, or empty.
    pub headers: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
}

/// Who listens on a subject.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listeners {
    /// A plain subscription, local or behind a leaf connection.
    pub plain: bool,
    /// A subscription in the queue group asked about.
    pub queue: bool,
}

/// Something an operator should know, or an advisory's trigger. Printed one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsNotice {
    /// Worth a line at level INF.
    Info(String),
    /// Worth a line at level WRN.
    Warn(String),
    /// Worth a line at level ERR.
    Error(String),
}

/// The broker, as JetStream sees it.
pub trait Host {
    /// Adds interest. The same pair twice is one subscription.
    fn subscribe(&mut self, subject: &[u8], target: Target);

    /// Removes interest; unknown pairs are ignored.
    fn unsubscribe(&mut self, subject: &[u8], target: Target);

    /// Delivers a message of ours to whoever subscribed to `to`, and says whether anybody
    /// did. Receivers see `subject` as its subject (for a publish of our own the same as
    /// `to`; for a consumer's delivery that of the stored message) and `reply` as its reply.
    /// Streams that capture `to` get it after the current call has returned.
    fn deliver(
        &mut self,
        to: &[u8],
        subject: &[u8],
        reply: &[u8],
        headers: &[u8],
        payload: &[u8],
    ) -> bool;

    /// Who has subscribed to exactly this text. A wildcard subscription that covers it does
    /// not count; this is what makes a push consumer active. `queue` empty: only `plain`
    /// is looked at.
    fn literal_listeners(&self, subject: &[u8], queue: &[u8]) -> Listeners;

    /// Would [`Host::deliver`] to this subject reach anybody, wildcard subscriptions
    /// included?
    fn has_interest(&mut self, subject: &[u8]) -> bool;

    /// From now on, `JetStream::handle_interest` is called (after the current call has
    /// returned) whenever a literal subscription on `subject` comes or goes, also through a
    /// leaf connection, and when that connection is lost or comes back.
    fn watch(&mut self, subject: &[u8]);

    /// Ends a [`Host::watch`].
    fn unwatch(&mut self, subject: &[u8]);

    /// Are the receivers behind `subject` so far behind that a consumer should wait
    /// (`limits::DELIVERY_BACKLOG_BYTES` in one of their outboxes)? The broker calls
    /// `JetStream::handle_drained` once the backlog of any connection has gone.
    fn is_backlogged(&mut self, subject: &[u8]) -> bool;

    /// Emits a request to the store.
    fn store(&mut self, request: StoreRequest);

    /// Tells the operator.
    fn notice(&mut self, notice: JsNotice);

    /// Who sent the message with these headers that JetStream is handling, as JSON for
    /// advisories; empty: nobody from outside. Of another account's client no more than that
    /// account shares.
    fn requester(&self, headers: &[u8]) -> alloc::vec::Vec<u8>;

    /// Is any leaf connection configured? Then interest may still be on its way and a pull
    /// request younger than two seconds is kept although its inbox shows none.
    fn has_leafs(&self) -> bool;
}
