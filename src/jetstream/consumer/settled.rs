//! What streams with interest or work queue retention want to know of their consumers.
//!
//! Owns the questions whether a message is wanted and needed, and handing on what was
//! settled. Does not own what follows (`jetstream::retention`).

use alloc::vec::Vec;

use super::config::AckPolicy;
use super::{Consumer, Consumers};
use crate::id::{ConsumerId, StreamId};
use crate::jetstream::JetStream;
use crate::jetstream::host::Host;
use crate::jetstream::storage::Seq;
use crate::jetstream::stream::config::Retention;

impl Consumer {
    /// Has a message it wants still to be delivered or acknowledged, going by its sequence?
    /// One that was given up can still be acknowledged.
    fn has_before_it(&self, seq: Seq) -> bool {
        let progress = &self.progress;
        seq > progress.floor.stream
            && (seq > progress.delivered.stream || progress.pending.get(seq).is_some())
            || progress.redelivered.contains_key(&seq)
    }
}

impl Consumers {
    fn of(&self, stream: StreamId) -> impl Iterator<Item = &Consumer> {
        let ids = self.by_stream.get(&stream).into_iter().flat_map(|names| names.values());
        ids.filter_map(|id| self.get(*id))
    }

    /// Consumers of a stream, hidden ones included.
    pub(in crate::jetstream) fn count(&self, stream: StreamId) -> usize {
        self.by_stream.get(&stream).map_or(0, alloc::collections::BTreeMap::len)
    }

    /// Up to where some consumer of the stream has settled everything.
    pub(in crate::jetstream) fn settled_through(&self, stream: StreamId) -> Seq {
        self.of(stream).map(|consumer| consumer.progress.floor.stream).max().unwrap_or(0)
    }

    /// Does any consumer of the stream want messages on this subject?
    pub(in crate::jetstream) fn want(&self, stream: StreamId, subject: &[u8]) -> bool {
        self.of(stream).any(|consumer| consumer.wants(subject))
    }

    /// Is this message still to be delivered to a consumer, or acknowledged by one? `None`:
    /// that depends on its subject, which is not given.
    pub(in crate::jetstream) fn need(
        &self,
        stream: StreamId,
        seq: Seq,
        subject: Option<&[u8]>,
    ) -> Option<bool> {
        let mut depends = false;
        for consumer in self.of(stream).filter(|consumer| consumer.has_before_it(seq)) {
            match subject {
                _ if consumer.filters.is_empty() => return Some(true),
                Some(subject) if consumer.wants(subject) => return Some(true),
                Some(_) => {}
                None if consumer.progress.pending.get(seq).is_some() => return Some(true),
                None => depends = true,
            }
        }
        (!depends).then_some(false)
    }

    /// From now on the consumers of this stream note what they settle, or do not.
    pub(in crate::jetstream) fn log_settled(&mut self, stream: StreamId, retention: Retention) {
        for id in self.of_stream(stream) {
            let Some(consumer) = self.get_mut(id) else { continue };
            // What a hub's mirror has only read stays.
            let acks = !consumer.config.direct || consumer.config.ack_policy != AckPolicy::None;
            consumer.progress.log_settled(retention != Retention::Limits && acks);
        }
    }
}

impl JetStream {
    /// Hands on what a consumer has settled.
    pub(super) fn note_settled(&mut self, id: ConsumerId, host: &mut impl Host) {
        let Some(consumer) = self.consumers.get_mut(id) else { return };
        let seqs: Vec<Seq> = consumer.progress.take_settled();
        if !seqs.is_empty() {
            let stream = consumer.stream;
            self.retention_settled(stream, &seqs, host);
        }
    }
}
