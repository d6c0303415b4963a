//! What a consumer has delivered, what is still to be acknowledged, and when it is due again.
//!
//! Owns the delivered position, the ack floor, the pending acks with their deadlines, the
//! delivery counts and the redelivery queue. Does not own messages, requests or subjects,
//! and sends nothing: `deliver` and `ack` ask it and act on the answer.
//!
//! # Invariants
//! - Every sequence at or below the floor is settled; a pending one lies above it.
//! - Pending sequences ascend together with their consumer sequences: a first delivery never
//!   goes back (see `Progress::restart_at` for the one exception, which forgets them all).
//! - A queued sequence has no deadline; a pending one that is not queued has exactly one.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use crate::jetstream::storage::Seq;
use crate::limits;
use crate::time::{Instant, Timestamp};

/// A consumer sequence with a stream sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// Counts deliveries, redeliveries included.
    pub(super) consumer: u64,
    /// Of the stream.
    pub(super) stream: Seq,
}

/// A message delivered and not yet settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PendingAck {
    /// Of the message.
    pub(super) seq: Seq,
    /// Consumer sequence of its first delivery.
    pub(super) dseq: u64,
    /// When it was last delivered.
    pub(super) sent: Instant,
    /// When it is delivered again, unless queued for that already.
    pub(super) due: Instant,
    queued: bool,
    settled: bool,
}

/// Pending acks, ordered by sequence and by deadline.
///
/// Both orders are queues that grow at one end and shrink at the other in ordinary use;
/// what was settled out of order stays as a hole until it reaches the front or holes
/// outnumber the rest.
#[derive(Debug, Default)]
pub(super) struct PendingAcks {
    entries: VecDeque<PendingAck>,
    live: usize,
    /// Deadlines in ascending order. An element counts only while the entry agrees.
    regular: VecDeque<(Instant, Seq)>,
    /// Deadlines that came out of order.
    irregular: BTreeSet<(Instant, Seq)>,
}

impl PendingAcks {
    pub(super) fn len(&self) -> usize {
        self.live
    }

    pub(super) fn is_empty(&self) -> bool {
        self.live == 0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &PendingAck> {
        self.entries.iter().filter(|entry| !entry.settled)
    }

    pub(super) fn first(&self) -> Option<&PendingAck> {
        self.entries.front()
    }

    fn find(&self, seq: Seq) -> Option<usize> {
        let front = self.entries.front()?;
        if front.seq == seq {
            return Some(0);
        }
        // Without gaps the distance is the index; that is the common case.
        if let Some(guess) = seq.checked_sub(front.seq).and_then(|by| usize::try_from(by).ok())
            && self.entries.get(guess).is_some_and(|entry| entry.seq == seq)
        {
            return Some(guess);
        }
        self.entries.binary_search_by_key(&seq, |entry| entry.seq).ok()
    }

    pub(super) fn get(&self, seq: Seq) -> Option<&PendingAck> {
        self.entries.get(self.find(seq)?).filter(|entry| !entry.settled)
    }

    fn get_mut(&mut self, seq: Seq) -> Option<&mut PendingAck> {
        let index = self.find(seq)?;
        self.entries.get_mut(index).filter(|entry| !entry.settled)
    }

    /// Adds a message. One that is already there is replaced.
    pub(super) fn insert(&mut self, seq: Seq, dseq: u64, sent: Instant, due: Instant) {
        let entry = PendingAck { seq, dseq, sent, due, queued: false, settled: false };
        if self.entries.back().is_none_or(|last| last.seq < seq) {
            self.entries.push_back(entry);
            self.live += 1;
        } else {
            match self.entries.binary_search_by_key(&seq, |entry| entry.seq) {
                Ok(index) => {
                    if let Some(old) = self.entries.get_mut(index) {
                        if old.settled {
                            self.live += 1;
                        }
                        *old = entry;
                    }
                }
                Err(index) => {
                    self.entries.insert(index, entry);
                    self.live += 1;
                }
            }
        }
        self.schedule(seq, due);
    }

    fn schedule(&mut self, seq: Seq, due: Instant) {
        if self.regular.back().is_none_or(|last| last.0 <= due) {
            self.regular.push_back((due, seq));
        } else {
            self.irregular.insert((due, seq));
        }
        if self.regular.len() > 2 * self.live + 64 {
            let mut regular = core::mem::take(&mut self.regular);
            regular.retain(|&(due, seq)| self.counts(due, seq));
            self.regular = regular;
        }
    }

    /// Is this the deadline that holds for `seq`?
    fn counts(&self, due: Instant, seq: Seq) -> bool {
        self.get(seq).is_some_and(|entry| entry.due == due && !entry.queued)
    }

    /// Sets a new deadline; false if the message is not pending.
    pub(super) fn reschedule(&mut self, seq: Seq, sent: Option<Instant>, due: Instant) -> bool {
        let Some(entry) = self.get_mut(seq) else { return false };
        let old = entry.due;
        entry.queued = false;
        entry.due = due;
        if let Some(sent) = sent {
            entry.sent = sent;
        }
        self.irregular.remove(&(old, seq));
        self.schedule(seq, due);
        true
    }

    /// Settles one message; false if it was not pending.
    pub(super) fn remove(&mut self, seq: Seq) -> Option<PendingAck> {
        let entry = self.get_mut(seq)?;
        entry.settled = true;
        let removed = *entry;
        self.live -= 1;
        if !self.irregular.is_empty() {
            self.irregular.remove(&(removed.due, seq));
        }
        while self.entries.front().is_some_and(|entry| entry.settled) {
            self.entries.pop_front();
        }
        if self.entries.len() > 2 * self.live + 64 {
            self.entries.retain(|entry| !entry.settled);
        }
        if self.live == 0 {
            self.entries.clear();
            self.regular.clear();
            self.irregular.clear();
        }
        Some(removed)
    }

    /// When the next message is due. May be early if that one was settled meanwhile.
    pub(super) fn next_due(&mut self) -> Option<Instant> {
        while let Some(&(due, seq)) = self.regular.front()
            && !self.counts(due, seq)
        {
            self.regular.pop_front();
        }
        while let Some(&(due, seq)) = self.irregular.first()
            && !self.counts(due, seq)
        {
            self.irregular.pop_first();
        }
        let regular = self.regular.front().map(|entry| entry.0);
        let irregular = self.irregular.first().map(|entry| entry.0);
        match (regular, irregular) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The latest deadline of all.
    fn last_due(&self) -> Option<Instant> {
        self.iter().map(|entry| entry.due).max()
    }

    fn take_due(&mut self, now: Instant, into: &mut Vec<Seq>) {
        while let Some(&(due, seq)) = self.regular.front() {
            if self.counts(due, seq) {
                if due > now {
                    break;
                }
                into.push(seq);
            }
            self.regular.pop_front();
        }
        while let Some(&(due, seq)) = self.irregular.first() {
            if self.counts(due, seq) {
                if due > now {
                    break;
                }
                into.push(seq);
            }
            self.irregular.pop_first();
        }
    }
}

/// Which acknowledgements a consumer expects, as far as bookkeeping differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settling {
    /// Delivered is settled.
    AtDelivery,
    /// Each message on its own.
    Each,
    /// A message settles all before it.
    UpTo,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Of the newest delivery.
    pub(super) delivered: Position,
    /// Everything up to here is settled.
    pub(super) floor: Position,
    /// Delivered and not settled.
    pub(super) pending: PendingAcks,
    /// Deliveries after the first, of messages pending or given up; 0 for one that was given
    /// up after the first.
    pub(super) redelivered: BTreeMap<Seq, u32>,
    /// To be delivered again, oldest first. An element counts only while its entry says so.
    queue: VecDeque<Seq>,
    /// Of the last delivery; `Timestamp(0)` before the first.
    pub(super) last_delivery: Timestamp,
    /// Of the last ack; `Timestamp(0)` before the first.
    pub(super) last_ack: Timestamp,
    /// Settled since the last look, where the stream wants to know.
    settled: Option<Vec<Seq>>,
}

impl Progress {
    /// As it was stored; what was pending is added by `pending.insert`.
    pub(super) fn restored(delivered: Position, floor: Position) -> Self {
        Self { delivered, floor, ..Self::default() }
    }

    /// A consumer whose first candidate is `next`.
    #[cfg(test)]
    pub(super) fn starting_at(next: Seq) -> Self {
        let mut progress = Self::default();
        progress.restart_at(next);
        progress
    }

    /// Forgets everything and begins again at `next`.
    pub(super) fn restart_at(&mut self, next: Seq) {
        let start = Position { consumer: 0, stream: next.saturating_sub(1) };
        let settled = self.settled.take();
        *self = Self { delivered: start, floor: start, settled, ..Self::default() };
    }

    /// Notes what is settled from now on, or does not.
    pub(super) fn log_settled(&mut self, on: bool) {
        self.settled = if on { Some(self.settled.take().unwrap_or_default()) } else { None };
    }

    /// What was settled since the last call.
    pub(super) fn take_settled(&mut self) -> Vec<Seq> {
        self.settled.as_mut().map(core::mem::take).unwrap_or_default()
    }

    /// Is there anything for [`Self::take_settled`]?
    pub(super) fn has_settled(&self) -> bool {
        self.settled.as_ref().is_some_and(|settled| !settled.is_empty())
    }

    fn note_settled(&mut self, seq: Seq) {
        if let Some(settled) = &mut self.settled {
            settled.push(seq);
        }
    }

    /// Records the first delivery of `seq`.
    pub(super) fn deliver(&mut self, seq: Seq, settling: Settling, sent: Instant, due: Instant) {
        self.delivered = Position { consumer: self.delivered.consumer + 1, stream: seq };
        if settling == Settling::AtDelivery {
            self.floor = self.delivered;
            self.note_settled(seq);
        } else {
            self.pending.insert(seq, self.delivered.consumer, sent, due);
        }
    }

    /// How often `seq` has been delivered, if it is pending or was given up.
    pub(super) fn deliveries(&self, seq: Seq) -> u32 {
        1 + self.redelivered.get(&seq).copied().unwrap_or(0)
    }

    /// Records another delivery of `seq`.
    pub(super) fn deliver_again(&mut self, seq: Seq, sent: Instant, due: Instant) {
        self.delivered.consumer += 1;
        *self.redelivered.entry(seq).or_insert(0) += 1;
        self.pending.reschedule(seq, Some(sent), due);
        self.bound_redelivered();
    }

    /// Given-up messages stay counted until acknowledged; a flood of them must not.
    fn bound_redelivered(&mut self) {
        let most = usize::try_from(limits::ACK_PENDING_MAX).unwrap_or(usize::MAX);
        if self.redelivered.len() > most {
            self.redelivered.pop_first();
        }
    }

    /// Puts a pending message at the end of the redelivery queue. False if it is not
    /// pending or already there.
    pub(super) fn queue(&mut self, seq: Seq) -> bool {
        match self.pending.get_mut(seq) {
            Some(entry) if !entry.queued => {
                entry.queued = true;
                self.queue.push_back(seq);
                true
            }
            _ => false,
        }
    }

    /// Sets a deadline, out of the queue if it was there. False if it is not pending.
    pub(super) fn postpone(&mut self, seq: Seq, due: Instant) -> bool {
        if self.pending.get(seq).is_some_and(|entry| entry.queued) {
            self.queue.retain(|&queued| queued != seq);
        }
        self.pending.reschedule(seq, None, due)
    }

    /// Queues every pending message whose deadline has come, ascending.
    pub(super) fn queue_due(&mut self, now: Instant, scratch: &mut Vec<Seq>) -> bool {
        scratch.clear();
        self.pending.take_due(now, scratch);
        scratch.sort_unstable();
        for &seq in scratch.iter() {
            self.queue(seq);
        }
        !scratch.is_empty()
    }

    /// Queues all that is pending, ascending.
    pub(super) fn queue_all(&mut self) {
        let seqs: Vec<Seq> = self.pending.iter().map(|entry| entry.seq).collect();
        for seq in seqs {
            self.queue(seq);
        }
    }

    /// The message to be delivered again next, left where it is.
    pub(super) fn next_queued(&mut self) -> Option<Seq> {
        while let Some(&seq) = self.queue.front() {
            if self.pending.get(seq).is_some_and(|entry| entry.queued) {
                return Some(seq);
            }
            self.queue.pop_front();
        }
        None
    }

    /// Takes the message that [`Self::next_queued`] showed off the queue, so that
    /// `deliver_again` or `settle` can follow.
    pub(super) fn take_queued(&mut self) {
        if let Some(seq) = self.queue.pop_front()
            && let Some(entry) = self.pending.get_mut(seq)
        {
            entry.queued = false;
        }
    }

    /// How many wait for redelivery, at most.
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Settles one message. `next` is the consumer's next candidate.
    pub(super) fn settle(&mut self, seq: Seq) -> Option<PendingAck> {
        let was_given_up = self.redelivered.remove(&seq).is_some();
        let removed = self.pending.remove(seq);
        if removed.is_some() {
            self.raise_floor();
        }
        if removed.is_some() || was_given_up {
            self.note_settled(seq);
        }
        removed
    }

    /// Takes a message out of pending whose deliveries are used up. It stays counted as
    /// redelivered and can still be acknowledged.
    pub(super) fn give_up(&mut self, seq: Seq) {
        if self.pending.remove(seq).is_some() {
            // Also one that was delivered once only.
            self.redelivered.entry(seq).or_insert(0);
            self.bound_redelivered();
            self.raise_floor();
        }
    }

    /// How many were delivered more than once, and are pending or were given up.
    pub(super) fn redelivered_count(&self) -> usize {
        self.redelivered.values().filter(|&&again| again > 0).count()
    }

    /// Settles everything up to `seq`; returns how many were pending.
    pub(super) fn settle_up_to(&mut self, seq: Seq, dseq: u64) -> usize {
        if dseq <= self.floor.consumer || seq <= self.floor.stream {
            return 0;
        }
        let mut settled = 0;
        while let Some(first) = self.pending.first().map(|entry| entry.seq)
            && first <= seq
        {
            self.pending.remove(first);
            self.note_settled(first);
            settled += 1;
        }
        self.redelivered = self.redelivered.split_off(&seq.saturating_add(1));
        self.floor = Position { consumer: dseq, stream: seq };
        settled
    }

    fn raise_floor(&mut self) {
        match self.pending.first() {
            None => self.floor = self.delivered,
            // Behind the floor, or more of what follows it is settled.
            Some(first) if first.dseq > self.floor.consumer + 1 => {
                self.floor = Position {
                    consumer: first.dseq - 1,
                    stream: self.floor.stream.max(first.seq.saturating_sub(1)),
                };
            }
            Some(_) => {}
        }
    }

    /// Everything before `first` is gone from the stream. Returns whether anything changed.
    pub(super) fn forget_before(&mut self, first: Seq) -> bool {
        let mut changed = false;
        while let Some(seq) = self.pending.first().map(|entry| entry.seq)
            && seq < first
        {
            self.pending.remove(seq);
            changed = true;
        }
        if self.redelivered.first_key_value().is_some_and(|(&seq, _)| seq < first) {
            self.redelivered = self.redelivered.split_off(&first);
        }
        if changed {
            self.raise_floor();
        }
        changed
    }

    /// The floor is not below what the stream begins with, as far as that was delivered.
    pub(super) fn raise_floor_below(&mut self, first: Seq) {
        let begin = first.saturating_sub(1).min(self.delivered.stream);
        self.floor.stream = self.floor.stream.max(begin);
    }

    /// When the next pending message is due.
    pub(super) fn next_due(&mut self) -> Option<Instant> {
        self.pending.next_due()
    }

    /// The latest deadline of all pending messages.
    pub(super) fn last_due(&self) -> Option<Instant> {
        self.pending.last_due()
    }

    /// Recomputes every deadline after `ack_wait` or `backoff` changed.
    pub(super) fn redue(&mut self, wait: impl Fn(u32) -> crate::time::Duration) {
        let entries: Vec<(Seq, Instant)> = self
            .pending
            .iter()
            .filter(|entry| !entry.queued)
            .map(|entry| (entry.seq, entry.sent))
            .collect();
        for (seq, sent) in entries {
            let due = sent + wait(self.deliveries(seq));
            self.pending.reschedule(seq, None, due);
        }
    }

    /// The stream ends at `last`, before what this consumer remembers: its tail was lost.
    pub(super) fn forget_after(&mut self, last: Seq) {
        let missing: Vec<Seq> =
            self.pending.iter().map(|entry| entry.seq).filter(|&seq| seq > last).collect();
        for seq in missing {
            self.pending.remove(seq);
        }
        self.redelivered.split_off(&last.saturating_add(1));
        self.floor.stream = self.floor.stream.min(last);
        self.delivered.stream = self.delivered.stream.min(last);
    }

    /// Everything before `next` is gone and nothing is pending: all of it counts as settled.
    pub(super) fn skip_to(&mut self, next: Seq) {
        self.queue.clear();
        self.delivered.stream = self.delivered.stream.max(next.saturating_sub(1));
        self.floor = self.delivered;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000_000)
    }

    fn delivered(count: u64) -> Progress {
        let mut progress = Progress::starting_at(1);
        for seq in 1..=count {
            progress.deliver(seq, Settling::Each, at(seq), at(30 + seq));
        }
        progress
    }

    #[test]
    fn the_floor_never_skips_a_pending_message() {
        let mut progress = delivered(4);
        progress.settle(2);
        assert_eq!(progress.floor, Position { consumer: 0, stream: 0 });
        progress.settle(1);
        assert_eq!(progress.floor, Position { consumer: 2, stream: 2 });
        progress.settle(4);
        progress.settle(3);
        assert_eq!(progress.floor, Position { consumer: 4, stream: 4 });
        assert!(progress.pending.is_empty());
        assert_eq!(progress.settle(3), None);
    }

    #[test]
    fn messages_that_expire_together_are_redelivered_in_stream_order() {
        let mut progress = delivered(3);
        progress.postpone(3, at(31));
        progress.postpone(1, at(33));
        let mut scratch = Vec::new();
        assert_eq!(progress.next_due(), Some(at(31)));
        assert!(progress.queue_due(at(40), &mut scratch));
        let mut order = vec![];
        while let Some(seq) = progress.next_queued() {
            progress.take_queued();
            progress.deliver_again(seq, at(40), at(70));
            order.push(seq);
        }
        assert_eq!(order, [1, 2, 3]);
        assert_eq!(progress.deliveries(2), 2);
        assert_eq!(progress.delivered, Position { consumer: 6, stream: 3 });
        assert_eq!(progress.next_due(), Some(at(70)));
    }

    #[test]
    fn naks_are_redelivered_in_the_order_they_came() {
        let mut progress = delivered(3);
        assert!(progress.queue(3) && progress.queue(1) && !progress.queue(3));
        assert_eq!(progress.next_queued(), Some(3));
        progress.settle(3);
        assert_eq!(progress.next_queued(), Some(1));
        progress.postpone(1, at(99));
        assert_eq!(progress.next_queued(), None);
    }

    #[test]
    fn an_ack_of_all_settles_everything_before() {
        let mut progress = Progress::starting_at(1);
        for seq in 1..=5 {
            progress.deliver(seq, Settling::UpTo, at(0), at(30));
        }
        assert_eq!(progress.settle_up_to(3, 3), 3);
        assert_eq!(progress.floor, Position { consumer: 3, stream: 3 });
        assert_eq!(progress.pending.len(), 2);
        assert_eq!(progress.settle_up_to(2, 2), 0);
    }

    #[test]
    fn deadlines_of_settled_messages_do_not_pile_up() {
        let mut progress = Progress::starting_at(1);
        progress.deliver(1, Settling::Each, at(0), at(30));
        for seq in 2..100_000 {
            progress.deliver(seq, Settling::Each, at(0), at(30));
            progress.settle(seq);
        }
        assert_eq!(progress.pending.len(), 1);
        assert!(progress.pending.entries.len() < 200 && progress.pending.regular.len() < 200);
        assert_eq!(progress.floor, Position { consumer: 0, stream: 0 });
    }

    #[test]
    fn a_shortened_ack_wait_applies_to_messages_already_pending() {
        let mut progress = delivered(2);
        progress.redue(|_| crate::time::Duration::from_secs(1));
        assert_eq!(progress.next_due(), Some(at(2)));
    }

    #[test]
    fn removal_from_the_stream_raises_the_floor() {
        let mut progress = delivered(5);
        progress.settle(4);
        assert!(progress.forget_before(3));
        assert_eq!(progress.floor, Position { consumer: 2, stream: 2 });
        progress.forget_before(5);
        assert_eq!(progress.pending.len(), 1);
        assert_eq!(progress.floor.stream, 4);
    }
}
