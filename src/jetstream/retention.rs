//! Interest and work queue retention: when a message that was acknowledged goes.
//!
//! Owns the messages on their way out, the confirmed acks that wait for them, and the sweep
//! of a stream whose consumers changed. Does not own what a consumer has settled
//! (`consumer`), nor how a message is removed (`engine`).
//!
//! # Invariants
//! - A message is removed before the record of the consumer that settled it last is written:
//!   a crash between the two delivers it again, and never leaves it behind unwanted.
//! - On an interest stream a message goes only when no consumer needs it any more.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use litemap::LiteMap;

use super::JetStream;
use crate::id::StreamId;
use crate::jetstream::host::Host;
use crate::jetstream::storage::{Chunk, GetBy, Purge, Seq, StoreReply, StoreRequest};
use crate::jetstream::stream;
use crate::jetstream::stream::config::Retention;
use crate::limits;

/// Messages looked at in one step of a sweep.
const SWEEP_MSGS: u32 = 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Settling {
    gone: LiteMap<StreamId, Gone>,
    /// Interest streams to be looked through: up to what some consumer has settled, or whole.
    sweeps: LiteMap<StreamId, bool>,
    /// What could not be removed because the medium failed.
    failed: LiteMap<StreamId, Vec<Seq>>,
}

/// What leaves one stream at the end of the turn.
#[derive(Debug, Default)]
struct Gone {
    seqs: Vec<Seq>,
    /// Ack-acks to be sent then.
    confirms: Vec<Box<[u8]>>,
}

/// A request that waits for the store.
#[derive(Debug)]
pub(crate) enum Pending {
    /// Messages are being removed.
    Settled { stream: StreamId, seqs: Arc<[Seq]>, confirms: Vec<Box<[u8]>> },
    /// Whether a message is still needed depends on its subject.
    Subject { stream: StreamId },
    /// A step of a sweep.
    Sweep { stream: StreamId, through: Seq },
    /// Everything goes.
    Swept,
}

impl Settling {
    /// Is there work for [`JetStream::retention_flush`]?
    pub(super) fn is_waiting(&self) -> bool {
        !self.gone.is_empty() || !self.sweeps.is_empty()
    }

    /// The medium works again.
    pub(super) fn try_again(&mut self) {
        for (stream, mut seqs) in core::mem::take(&mut self.failed) {
            self.gone.entry(stream).or_default().seqs.append(&mut seqs);
        }
    }

    /// This ack-ack leaves once what was settled in this turn is removed.
    pub(super) fn confirm(&mut self, stream: StreamId, reply: &[u8]) {
        let confirms = &mut self.gone.entry(stream).or_default().confirms;
        let most = usize::try_from(limits::ACK_PENDING_MAX).unwrap_or(usize::MAX);
        if confirms.len() < most {
            confirms.push(reply.into());
        }
    }
}

impl JetStream {
    /// A consumer has settled messages.
    pub(super) fn retention_settled(
        &mut self,
        stream: StreamId,
        seqs: &[Seq],
        host: &mut impl Host,
    ) {
        let Some(of) = self.streams.get(&stream) else { return };
        let interest = match of.config.retention {
            Retention::Limits => return,
            Retention::WorkQueue => false,
            Retention::Interest => true,
        };
        for &seq in seqs {
            if interest {
                match self.consumers.need(stream, seq, None) {
                    Some(false) => {}
                    Some(true) => continue,
                    None => {
                        let pending = stream::Pending::Retention(Pending::Subject { stream });
                        let token = self.stream_token(pending);
                        let by = GetBy::Seq(seq);
                        self.store(StoreRequest::Get { token, stream, by }, host);
                        continue;
                    }
                }
            }
            self.retention.gone.entry(stream).or_default().seqs.push(seq);
        }
    }

    /// A stream's retention may have changed or, with `gone`, one of its consumers went: what
    /// nobody needs any more goes at the end of the turn.
    pub(super) fn retention_changed(&mut self, stream: StreamId, gone: bool) {
        let Some(of) = self.streams.get(&stream) else { return };
        let retention = of.config.retention;
        self.consumers.log_settled(stream, retention);
        if retention == Retention::Interest && of.state.messages > 0 {
            *self.retention.sweeps.entry(stream).or_default() |= gone;
        }
    }

    /// At the end of a turn, before the records of consumers.
    pub(super) fn retention_flush(&mut self, host: &mut impl Host) {
        for (stream, whole) in core::mem::take(&mut self.retention.sweeps) {
            let Some(of) = self.streams.get(&stream) else { continue };
            if of.config.retention != Retention::Interest || of.config.sealed {
                continue;
            }
            let settled = self.consumers.settled_through(stream);
            if !whole || self.has_consumers(stream) {
                let from = of.state.first_seq;
                let through = if whole { of.state.last_seq } else { settled };
                if from <= through {
                    self.sweep(stream, from, through, host);
                }
            } else {
                let token = self.stream_token(stream::Pending::Retention(Pending::Swept));
                let purge = Purge::default();
                self.store(StoreRequest::Purge { token, stream, purge }, host);
            }
        }
        for (stream, mut gone) in core::mem::take(&mut self.retention.gone) {
            if !self.streams.contains_key(&stream) {
                continue;
            }
            gone.seqs.sort_unstable();
            gone.seqs.dedup();
            let seqs: Arc<[Seq]> = gone.seqs.into();
            let pending =
                Pending::Settled { stream, seqs: Arc::clone(&seqs), confirms: gone.confirms };
            let token = self.stream_token(stream::Pending::Retention(pending));
            self.store(StoreRequest::Settle { token, stream, seqs }, host);
        }
    }

    fn sweep(&mut self, stream: StreamId, from: Seq, through: Seq, host: &mut impl Host) {
        let pending = stream::Pending::Retention(Pending::Sweep { stream, through });
        let token = self.stream_token(pending);
        let max_bytes = u32::try_from(limits::READ_CHUNK_BYTES).unwrap_or(u32::MAX);
        let (filters, max_msgs) = (Arc::new([]), SWEEP_MSGS);
        let request = StoreRequest::Read { token, stream, from, filters, max_msgs, max_bytes };
        self.store(request, host);
    }

    /// The store answered.
    pub(super) fn retention_reply(
        &mut self,
        pending: Pending,
        reply: StoreReply,
        host: &mut impl Host,
    ) {
        match (pending, reply) {
            (Pending::Settled { confirms, .. }, StoreReply::Done { result: Ok(()), .. }) => {
                for reply in confirms {
                    host.deliver(&reply, &reply, b"", b"", b"");
                }
            }
            // The acks stay unconfirmed; whoever needs to know asks again.
            (Pending::Settled { stream, seqs, .. }, _) => {
                self.retention.failed.entry(stream).or_default().extend_from_slice(&seqs);
            }
            (Pending::Subject { stream }, StoreReply::Got { msg: Ok(Some(chunk)), .. }) => {
                self.retention_looked_at(stream, &chunk);
            }
            (
                Pending::Sweep { stream, through },
                StoreReply::Read { chunk: Ok(chunk), through: read, .. },
            ) => {
                self.retention_looked_at(stream, &chunk);
                if read < through {
                    self.sweep(stream, read.saturating_add(1), through, host);
                }
            }
            // What is left behind is swept with the next change or start.
            (Pending::Subject { .. } | Pending::Sweep { .. } | Pending::Swept, _) => {}
        }
    }

    fn retention_looked_at(&mut self, stream: StreamId, chunk: &Chunk) {
        let is_interest = |of: &stream::Stream| of.config.retention == Retention::Interest;
        if !self.streams.get(&stream).is_some_and(is_interest) {
            return;
        }
        for msg in &chunk.msgs {
            let subject = chunk.bytes(&msg.subject);
            if self.consumers.need(stream, msg.seq, Some(subject)) == Some(false) {
                self.retention.gone.entry(stream).or_default().seqs.push(msg.seq);
            }
        }
    }
}
