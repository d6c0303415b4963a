//! When a consumer's record is written.
//!
//! Owns the delay that turns many changes into one record, and the confirmed acks that wait
//! for it. Does not own the bytes (`record`).
//!
//! # Invariants
//! - One record of a consumer is on its way at a time; the next follows its answer.
//! - An ack-ack leaves only after a record that holds the ack is durable.

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;

use super::{Consumer, Pending, record};
use crate::id::ConsumerId;
use crate::jetstream::host::{Host, JsNotice};
use crate::jetstream::storage::{ConsumerRecord, StoreReply, StoreRequest};
use crate::jetstream::{JetStream, Waiting};
use crate::limits;
use crate::time::{Duration, Instant, Now};

/// Changes of this long are written together.
const SAVE_DELAY: Duration = Duration::from_millis(250);
/// After the disk refused.
const RETRY_DELAY: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Saving {
    dirty: bool,
    flush_at: Option<Instant>,
    outstanding: bool,
    /// Another one was asked for meanwhile.
    again: bool,
    /// Ack-acks to be sent after the next record.
    confirms: Vec<Box<[u8]>>,
    /// Ack-acks to be sent after the record on its way.
    in_flight: Vec<Box<[u8]>>,
}

impl Saving {
    /// This ack-ack goes out with the next record.
    pub(super) fn confirm(&mut self, reply: &[u8]) {
        let most = usize::try_from(limits::ACK_PENDING_MAX).unwrap_or(usize::MAX);
        // Beyond that nobody can be waiting for an honest answer.
        if self.confirms.len() < most {
            self.confirms.push(reply.into());
        }
    }

    /// Is everything durable that was asked to be, by [`JetStream::save`]?
    pub(super) fn is_done(&self) -> bool {
        !self.outstanding && !self.again
    }

    /// Is there something that no record holds, on its way or not?
    pub(super) fn is_dirty(&self) -> bool {
        self.dirty
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        if self.outstanding { None } else { self.flush_at }
    }
}

impl Consumer {
    /// Something worth keeping changed; true if the timer has to be set.
    pub(super) fn mark_dirty(&mut self, now: Now) -> bool {
        // A hub's consumer starts anew after a restart: writing its progress would wear the
        // flash for nothing.
        if !self.persisted || self.saving.dirty || self.config.is_sourcing() {
            return false;
        }
        self.saving.dirty = true;
        self.saving.flush_at = Some(now.instant + SAVE_DELAY);
        true
    }

    /// Would a confirmation now promise too much?
    pub(super) fn must_wait_for_save(&self) -> bool {
        self.persisted && (self.saving.dirty || self.saving.outstanding)
    }
}

impl JetStream {
    /// Writes the record now, unless one is on its way (then after it).
    pub(super) fn save(&mut self, now: Now, id: ConsumerId, host: &mut impl Host) {
        let Some(consumer) = self.consumers.get_mut(id) else { return };
        if !consumer.persisted {
            consumer.saving.dirty = false;
            return;
        }
        if consumer.saving.outstanding {
            consumer.saving.again = true;
            return;
        }
        consumer.saving.again = false;
        let config = serde_json::to_vec(&consumer.config).unwrap_or_default();
        let bytes = record::encode(
            config,
            consumer.created,
            &consumer.progress,
            consumer.cursor.next(),
            now,
        );
        consumer.saving.dirty = false;
        consumer.saving.flush_at = None;
        consumer.saving.outstanding = true;
        consumer.saving.in_flight.append(&mut consumer.saving.confirms);
        let record = ConsumerRecord { name: consumer.name.clone(), record: bytes };
        let stream = consumer.stream;
        let token = self.token(Waiting::Consumer(Pending::Save { id }));
        let request = StoreRequest::PutConsumer { token: Some(token), stream, consumer: record };
        self.store(request, host);
    }

    /// At the end of a turn: the records that confirmed acks wait for.
    pub(in crate::jetstream) fn consumers_flush(&mut self, now: Now, host: &mut impl Host) {
        for id in core::mem::take(&mut self.consumers.to_sync) {
            let waits = |consumer: &Consumer| {
                !consumer.saving.outstanding && !consumer.saving.confirms.is_empty()
            };
            if self.consumers.get(id).is_some_and(waits) {
                self.save(now, id, host);
            }
        }
    }

    /// Is there work for [`Self::consumers_flush`]?
    pub(in crate::jetstream) fn consumers_wait_for_flush(&self) -> bool {
        !self.consumers.to_sync.is_empty()
    }

    /// A record was written, or not.
    pub(super) fn saved(
        &mut self,
        now: Now,
        id: ConsumerId,
        reply: &StoreReply,
        host: &mut impl Host,
    ) {
        let Some(consumer) = self.consumers.get_mut(id) else { return };
        consumer.saving.outstanding = false;
        let in_flight = core::mem::take(&mut consumer.saving.in_flight);
        let failure = match reply {
            StoreReply::Done { result: Err(error), .. } => Some(error),
            _ => None,
        };
        match failure {
            None => {
                for reply in in_flight {
                    host.deliver(&reply, &reply, b"", b"", b"");
                }
                if consumer.saving.again || !consumer.saving.confirms.is_empty() {
                    self.save(now, id, host);
                }
                self.settle_replies(now, id, None, host);
            }
            Some(error) => {
                // The acks stay unconfirmed: whoever needs to know asks again.
                consumer.saving.again = false;
                consumer.saving.dirty = true;
                consumer.saving.flush_at = Some(now.instant + RETRY_DELAY);
                host.notice(JsNotice::Warn(format!(
                    "state of consumer {} could not be stored: {error}",
                    consumer.name
                )));
                self.settle_replies(now, id, Some(error), host);
            }
        }
        self.consumers.rearm(now, id);
    }
}
