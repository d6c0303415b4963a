//! The newest messages of a stream, kept for consumers that are caught up.
//!
//! Owns the cached chunks of one stream and their size. Does not own the bound over all
//! streams: `JetStream` asks the fullest tail to drop its oldest chunk.
//!
//! # Invariants
//! - Chunks are in ascending order and cover a contiguous range of sequences up to the
//!   stream's last: every message in that range that exists is in a chunk.
//! - A message that was removed from the stream is not handed out.

use alloc::collections::VecDeque;
use alloc::sync::Arc;

use crate::jetstream::storage::{Chunk, Removed, Seq};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    chunks: VecDeque<Arc<Chunk>>,
    /// The lowest sequence the tail vouches for; 0 when it is empty.
    from: Seq,
    bytes: usize,
}

impl Tail {
    /// Adds what a commit stored, ascending and above everything in the tail. `first` is
    /// the lowest sequence the chunk vouches for: the one after the last before it.
    pub(crate) fn push(&mut self, first: Seq, chunk: Arc<Chunk>) {
        if self.chunks.is_empty() {
            self.from = first;
        }
        self.bytes += weight(&chunk);
        self.chunks.push_back(chunk);
    }

    /// Is every existing message from `seq` on in the tail?
    pub(crate) fn covers(&self, seq: Seq) -> bool {
        !self.chunks.is_empty() && seq >= self.from
    }

    /// The chunk with the first message at or after `seq`. `None` if the tail does not
    /// cover `seq` or nothing that late exists.
    pub(crate) fn chunk_from(&self, seq: Seq) -> Option<&Arc<Chunk>> {
        if !self.covers(seq) {
            return None;
        }
        let at =
            self.chunks.partition_point(|chunk| chunk.msgs.last().is_none_or(|msg| msg.seq < seq));
        self.chunks.get(at)
    }

    /// Stops handing out what went away. A removal inside the tail costs everything up to
    /// it, so that no chunk has to be rewritten.
    pub(crate) fn forget(&mut self, removed: &Removed) {
        let last = match removed {
            Removed::None => return,
            Removed::Some(list) => match list.last() {
                Some((seq, _)) => *seq,
                None => return,
            },
            Removed::Many { last, .. } => *last,
        };
        while let Some(chunk) = self.chunks.front() {
            if chunk.msgs.first().is_some_and(|msg| msg.seq > last) {
                break;
            }
            self.pop_oldest();
        }
    }

    /// Drops the oldest chunk and returns its weight.
    pub(crate) fn pop_oldest(&mut self) -> usize {
        let Some(chunk) = self.chunks.pop_front() else { return 0 };
        let weight = weight(&chunk);
        self.bytes = self.bytes.saturating_sub(weight);
        self.from = match chunk.msgs.last() {
            Some(msg) if !self.chunks.is_empty() => msg.seq + 1,
            _ => 0,
        };
        weight
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Memory held by the chunks, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

fn weight(chunk: &Chunk) -> usize {
    chunk.data.len() + chunk.msgs.len() * size_of::<crate::jetstream::storage::StoredMsg>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jetstream::storage::StoredMsg;
    use crate::time::Timestamp;
    use alloc::vec;
    use alloc::vec::Vec;

    fn chunk(seqs: &[Seq]) -> Arc<Chunk> {
        let msg = |&seq| StoredMsg {
            seq,
            timestamp: Timestamp(1),
            subject: 0..1,
            headers: 0..0,
            payload: 0..1,
        };
        Arc::new(Chunk { data: vec![b'x'; 100], msgs: seqs.iter().map(msg).collect() })
    }

    fn found(tail: &Tail, seq: Seq) -> Vec<Seq> {
        tail.chunk_from(seq).map(|c| c.msgs.iter().map(|m| m.seq).collect()).unwrap_or_default()
    }

    #[test]
    fn only_sequences_the_tail_vouches_for_are_found() {
        let mut tail = Tail::default();
        assert!(!tail.covers(1) && tail.chunk_from(1).is_none());
        tail.push(5, chunk(&[5, 6]));
        tail.push(7, chunk(&[7, 9]));
        assert!(!tail.covers(4));
        assert!(found(&tail, 4).is_empty());
        assert_eq!(found(&tail, 5), [5, 6]);
        assert_eq!(found(&tail, 6), [5, 6]);
        assert_eq!(found(&tail, 7), [7, 9]);
        assert_eq!(found(&tail, 8), [7, 9]);
        assert!(tail.covers(10));
        assert!(found(&tail, 10).is_empty());
    }

    #[test]
    fn a_removed_message_is_not_handed_out_and_the_size_adds_up() {
        let mut tail = Tail::default();
        for first in [1, 3, 5] {
            tail.push(first, chunk(&[first, first + 1]));
        }
        let whole = tail.bytes();
        tail.forget(&Removed::Some(vec![(3, b"s"[..].into())]));
        assert!(!tail.covers(4));
        assert_eq!(found(&tail, 5), [5, 6]);
        assert_eq!(tail.bytes() * 3, whole);
        tail.forget(&Removed::Many { first: 1, last: 6 });
        assert!(!tail.covers(6));
        assert_eq!((tail.bytes(), tail.pop_oldest()), (0, 0));
    }
}
