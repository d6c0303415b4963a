//! What the `JetStream`s of all accounts share: stream ids, and the sums the server's bounds
//! are kept by.
//!
//! Owns numbers only. Each account has a state machine of its own, which adds here what it
//! takes and takes off what it gives back.
//!
//! # Invariants
//! - A stream id is given out once, whichever account asks, and is above every id on disk.

use alloc::rc::Rc;
use core::cell::Cell;

use crate::id::StreamId;

/// See the module. Clones are the same numbers.
#[derive(Clone, Debug, Default)]
pub struct Shared(Rc<Sums>);

#[derive(Debug, Default)]
struct Sums {
    next_stream: Cell<u32>,
    memory: Cell<u64>,
    file: Cell<u64>,
    reserved_memory: Cell<u64>,
    reserved_file: Cell<u64>,
    unanswered: Cell<usize>,
    tail: Cell<usize>,
    batches: Cell<usize>,
    batch_bytes: Cell<usize>,
    fast_batches: Cell<usize>,
    streams: Cell<usize>,
    consumers: Cell<usize>,
}

fn change<N: Copy>(cell: &Cell<N>, to: impl FnOnce(N) -> N) {
    cell.set(to(cell.get()));
}

impl Shared {
    /// Ids below this one are taken.
    pub(super) fn raise_stream_ids(&self, next: u32) {
        change(&self.0.next_stream, |at| at.max(next));
    }

    /// An id no stream ever had. `None`: all are used up.
    pub(super) fn new_stream_id(&self) -> Option<StreamId> {
        let id = self.0.next_stream.get();
        self.0.next_stream.set(id.checked_add(1)?);
        Some(StreamId(id))
    }

    /// Logical bytes stored.
    pub(super) fn used(&self, memory: bool) -> u64 {
        self.used_cell(memory).get()
    }

    /// What a stream stores changed.
    pub(super) fn note_used(&self, memory: bool, before: u64, after: u64) {
        change(self.used_cell(memory), |used| used.saturating_sub(before).saturating_add(after));
    }

    fn used_cell(&self, memory: bool) -> &Cell<u64> {
        if memory { &self.0.memory } else { &self.0.file }
    }

    /// The sum of `max_bytes` of all streams that have it.
    pub(super) fn reserved(&self, memory: bool) -> u64 {
        self.reserved_cell(memory).get()
    }

    /// A stream's `max_bytes` changed; negative is none.
    pub(super) fn note_reserved(&self, memory: bool, before: i64, after: i64) {
        let bytes = |max: i64| u64::try_from(max).unwrap_or(0);
        change(self.reserved_cell(memory), |sum| {
            sum.saturating_sub(bytes(before)).saturating_add(bytes(after))
        });
    }

    fn reserved_cell(&self, memory: bool) -> &Cell<u64> {
        if memory { &self.0.reserved_memory } else { &self.0.reserved_file }
    }

    /// Bytes of messages that the store has not answered.
    pub(super) fn unanswered(&self) -> usize {
        self.0.unanswered.get()
    }

    /// A batch went to the store.
    pub(super) fn note_asked(&self, bytes: usize) {
        change(&self.0.unanswered, |sum| sum.saturating_add(bytes));
    }

    /// A batch was answered.
    pub(super) fn note_answered(&self, bytes: usize) {
        change(&self.0.unanswered, |sum| sum.saturating_sub(bytes));
    }

    /// Bytes in the tail caches.
    pub(super) fn tail(&self) -> usize {
        self.0.tail.get()
    }

    /// A tail cache changed its size.
    pub(super) fn note_tail(&self, before: usize, after: usize) {
        change(&self.0.tail, |sum| sum.saturating_sub(before).saturating_add(after));
    }

    /// Atomic batches that are not whole yet.
    pub(super) fn batches(&self) -> usize {
        self.0.batches.get()
    }

    /// One came or went.
    pub(super) fn note_batch(&self, added: bool) {
        change(&self.0.batches, |sum| if added { sum + 1 } else { sum.saturating_sub(1) });
    }

    /// Bytes of messages that wait in batches of both kinds.
    pub(super) fn batch_bytes(&self) -> usize {
        self.0.batch_bytes.get()
    }

    /// What waits in a batch changed.
    pub(super) fn note_batch_bytes(&self, before: usize, after: usize) {
        change(&self.0.batch_bytes, |sum| sum.saturating_sub(before).saturating_add(after));
    }

    /// Fast batches.
    pub(super) fn fast_batches(&self) -> usize {
        self.0.fast_batches.get()
    }

    /// One came or went.
    pub(super) fn note_fast_batch(&self, added: bool) {
        change(&self.0.fast_batches, |sum| if added { sum + 1 } else { sum.saturating_sub(1) });
    }

    /// Streams of all accounts.
    pub(super) fn streams(&self) -> usize {
        self.0.streams.get()
    }

    /// A stream came or went.
    pub(super) fn note_stream(&self, added: bool) {
        change(&self.0.streams, |sum| if added { sum + 1 } else { sum.saturating_sub(1) });
    }

    /// Consumers of all accounts, hidden ones included.
    pub(super) fn consumers(&self) -> usize {
        self.0.consumers.get()
    }

    /// A consumer came or went.
    pub(super) fn note_consumer(&self, added: bool) {
        change(&self.0.consumers, |sum| if added { sum + 1 } else { sum.saturating_sub(1) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_id_is_never_given_out_twice() {
        let (one, other) = (Shared::default(), Shared::default());
        let same = one.clone();
        one.raise_stream_ids(7);
        same.raise_stream_ids(3);
        assert_eq!(one.new_stream_id(), Some(StreamId(7)));
        assert_eq!(same.new_stream_id(), Some(StreamId(8)));
        assert_eq!(other.new_stream_id(), Some(StreamId(0)));
        one.raise_stream_ids(u32::MAX);
        assert_eq!(same.new_stream_id(), None);
    }
}
