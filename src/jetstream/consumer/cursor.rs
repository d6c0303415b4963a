//! Where the next message of a consumer comes from.
//!
//! Owns the position in the stream, the list a `last_per_subject` consumer starts with, and
//! the messages read ahead. Prefers the stream's tail, which costs no read. Does not own
//! what was delivered (`state`).
//!
//! # Invariants
//! - At most one read is outstanding, and at most one chunk is held beyond the one in use
//!   and the one for redeliveries.
//! - A message is handed out only if it existed when it was read and has not been reported
//!   as removed since.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Ticket;
use crate::jetstream::storage::{Chunk, Seq, StoredMsg, StreamState};
use crate::jetstream::tail::Tail;
use crate::subject::Filter;

/// Messages as read from the store: all that match between `from` and `through`.
#[derive(Debug)]
struct Window {
    chunk: Arc<Chunk>,
    from: Seq,
    through: Seq,
}

impl Window {
    fn covers(&self, seq: Seq) -> bool {
        self.from <= seq && seq <= self.through
    }
}

/// What a read is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Messages not delivered yet.
    Next,
    /// A message to be delivered again.
    Again,
}

/// A read that should be issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Want {
    pub(super) from: Seq,
    pub(super) purpose: Purpose,
}

/// A message, held while it is delivered.
#[derive(Debug)]
pub(super) struct Held {
    chunk: Arc<Chunk>,
    index: usize,
}

impl Held {
    /// The chunk and the message in it.
    pub(super) fn parts(&self) -> Option<(&Chunk, &StoredMsg)> {
        Some((&self.chunk, self.chunk.msgs.get(self.index)?))
    }
}

/// What a search found.
#[derive(Debug)]
pub(super) enum Found {
    /// This one.
    Msg(Held),
    /// There is none: the end of the stream, or the message asked for is gone.
    None,
    /// Not known before a read has come back.
    Wait(Want),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    /// The first candidate that is not in `list`.
    next: Seq,
    /// Sequences to deliver before that, ascending.
    list: VecDeque<Seq>,
    window: Option<Window>,
    ahead: Option<Window>,
    again: Option<Window>,
    reading: Option<(Ticket, Want)>,
    /// Messages on the list that turned out to be gone, since last asked.
    missed: u64,
}

impl Cursor {
    pub(super) fn starting_at(next: Seq) -> Self {
        Self { next, ..Self::default() }
    }

    /// Begins with these, ascending, then goes on after `last`.
    pub(super) fn starting_with(listed: Vec<Seq>, last: Seq) -> Self {
        Self { next: last.saturating_add(1), list: listed.into(), ..Self::default() }
    }

    /// The next candidate.
    pub(super) fn next(&self) -> Seq {
        self.list.front().copied().unwrap_or(self.next)
    }

    /// The first candidate after the list, and the length of the list.
    pub(super) fn after_list(&self) -> (Seq, u64) {
        (self.next, self.list.len() as u64)
    }

    /// Would this message, if it exists and matches, still be delivered?
    pub(super) fn is_ahead(&self, seq: Seq) -> bool {
        seq >= self.next || self.list.binary_search(&seq).is_ok()
    }

    /// `seq` was delivered for the first time.
    pub(super) fn advance(&mut self, seq: Seq) {
        if self.list.front() == Some(&seq) {
            self.list.pop_front();
        } else {
            self.next = self.next.max(seq.saturating_add(1));
        }
    }

    /// `seq` went away.
    pub(super) fn remove(&mut self, seq: Seq) {
        if let Ok(index) = self.list.binary_search(&seq) {
            self.list.remove(index);
        }
        for window in [&mut self.window, &mut self.ahead, &mut self.again] {
            if window.as_ref().is_some_and(|window| window.covers(seq)) {
                *window = None;
            }
        }
        if self.reading.is_some_and(|(_, want)| want.from <= seq) {
            self.reading = None;
        }
    }

    /// Everything before `first` went away.
    pub(super) fn forget_before(&mut self, first: Seq) {
        while self.list.front().is_some_and(|&seq| seq < first) {
            self.list.pop_front();
        }
        self.next = self.next.max(first);
    }

    /// Goes on at `next`, nothing remembered.
    pub(super) fn jump(&mut self, next: Seq) {
        *self = Self::starting_at(next);
    }

    /// Drops what was read.
    pub(super) fn forget_reads(&mut self) {
        self.window = None;
        self.ahead = None;
        self.again = None;
        self.reading = None;
    }

    /// Holds it messages in memory?
    pub(super) fn holds_reads(&self) -> bool {
        self.window.is_some() || self.ahead.is_some() || self.again.is_some()
    }

    /// Messages on the list found to be gone since the last call.
    pub(super) fn take_missed(&mut self) -> u64 {
        core::mem::take(&mut self.missed)
    }

    /// The next message that matches. [`Found::None`] is the end of the stream.
    pub(super) fn find_next(
        &mut self,
        state: &StreamState,
        tail: &Tail,
        filters: &[Filter],
    ) -> Found {
        loop {
            let listed = self.list.front().copied();
            if listed.is_none() {
                self.next = self.next.max(state.first_seq);
                if self.next > state.last_seq {
                    self.window = None;
                    self.ahead = None;
                    return Found::None;
                }
            }
            let target = self.next();
            let (chunk, through, filtered) = if tail.covers(target) {
                let Some(chunk) = tail.chunk_from(target) else {
                    self.skip(listed, state.last_seq);
                    continue;
                };
                (chunk, chunk.msgs.last().map_or(target, |msg| msg.seq), false)
            } else {
                if !self.window.as_ref().is_some_and(|window| window.covers(target)) {
                    self.window = self.ahead.take().filter(|window| window.covers(target));
                }
                match &self.window {
                    Some(window) => (&window.chunk, window.through, true),
                    None => return Found::Wait(Want { from: target, purpose: Purpose::Next }),
                }
            };
            let start = position(chunk, target);
            let index = match listed {
                Some(seq) => {
                    (start..).next().filter(|&at| chunk.msgs.get(at).is_some_and(|m| m.seq == seq))
                }
                None if filtered || filters.is_empty() => Some(start),
                None => (start..chunk.msgs.len()).find(|&at| {
                    chunk.msgs.get(at).is_some_and(|msg| {
                        let subject = chunk.bytes(&msg.subject);
                        filters.iter().any(|filter| filter.matches(subject))
                    })
                }),
            };
            match index.and_then(|at| Some((at, chunk.msgs.get(at)?.seq))) {
                Some((index, seq)) => {
                    let held = Held { chunk: Arc::clone(chunk), index };
                    if listed.is_none() {
                        self.next = seq;
                    }
                    return Found::Msg(held);
                }
                None => self.skip(listed, through),
            }
        }
    }

    /// What was looked for is not there: everything up to `through` was seen.
    fn skip(&mut self, listed: Option<Seq>, through: Seq) {
        if listed.is_some() {
            self.list.pop_front();
            self.missed += 1;
        } else {
            self.next = self.next.max(through).saturating_add(1);
        }
    }

    /// The message `seq`, to be delivered again. [`Found::None`]: it is gone.
    pub(super) fn find_again(&mut self, seq: Seq, state: &StreamState, tail: &Tail) -> Found {
        if seq < state.first_seq || seq > state.last_seq {
            return Found::None;
        }
        let in_tail = tail.covers(seq).then(|| tail.chunk_from(seq));
        let chunk = match in_tail {
            Some(None) => return Found::None,
            Some(Some(chunk)) => chunk,
            None => {
                let mut windows = [&self.again, &self.window, &self.ahead].into_iter().flatten();
                match windows.find(|window| window.covers(seq)) {
                    Some(window) => &window.chunk,
                    None => {
                        return Found::Wait(Want { from: seq, purpose: Purpose::Again });
                    }
                }
            }
        };
        let index = position(chunk, seq);
        match chunk.msgs.get(index) {
            Some(msg) if msg.seq == seq => Found::Msg(Held { chunk: Arc::clone(chunk), index }),
            _ => Found::None,
        }
    }

    /// The redelivery queue is empty: what was read for it may go.
    pub(super) fn end_of_queue(&mut self) {
        self.again = None;
    }

    /// What to read while the window is being delivered.
    pub(super) fn want_ahead(&self, state: &StreamState, tail: &Tail) -> Option<Want> {
        let window = self.window.as_ref()?;
        let from = window.through.saturating_add(1);
        let useful = self.ahead.is_none()
            && self.reading.is_none()
            && self.list.is_empty()
            && from <= state.last_seq
            && !tail.covers(from);
        useful.then_some(Want { from, purpose: Purpose::Next })
    }

    /// May this read be issued? One at a time.
    pub(super) fn may_read(&self, want: Want) -> bool {
        match self.reading {
            None => true,
            // A read ahead must not keep a redelivery waiting for its answer; the older
            // answer is then ignored.
            Some((_, old)) => old.purpose != want.purpose || old.from > want.from,
        }
    }

    pub(super) fn reading(&mut self, ticket: Ticket, want: Want) {
        self.reading = Some((ticket, want));
    }

    /// A read came back. False if nobody waits for it any more.
    pub(super) fn read(&mut self, ticket: Ticket, chunk: Option<Arc<Chunk>>, through: Seq) -> bool {
        let Some((expected, want)) = self.reading else { return false };
        if expected != ticket {
            return false;
        }
        self.reading = None;
        let Some(chunk) = chunk else { return true };
        let through = through.max(chunk.msgs.last().map_or(0, |msg| msg.seq));
        let window = Some(Window { chunk, from: want.from, through });
        match want.purpose {
            Purpose::Again => self.again = window,
            Purpose::Next => {
                let target = self.next();
                if self.window.as_ref().is_some_and(|window| window.covers(target)) {
                    self.ahead = window;
                } else {
                    self.window = window;
                }
            }
        }
        true
    }
}

/// Index of the first message at or after `seq`.
fn position(chunk: &Chunk, seq: Seq) -> usize {
    // Without gaps the distance is the index.
    if let Some(first) = chunk.msgs.first()
        && let Some(guess) = seq.checked_sub(first.seq).and_then(|by| usize::try_from(by).ok())
        && chunk.msgs.get(guess).is_some_and(|msg| msg.seq == seq)
    {
        return guess;
    }
    chunk.msgs.partition_point(|msg| msg.seq < seq)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    fn chunk(messages: &[(Seq, &str)]) -> Arc<Chunk> {
        let mut chunk = Chunk::default();
        for &(seq, subject) in messages {
            let start = u32::try_from(chunk.data.len()).unwrap();
            chunk.data.extend_from_slice(subject.as_bytes());
            let end = u32::try_from(chunk.data.len()).unwrap();
            chunk.msgs.push(StoredMsg {
                seq,
                timestamp: Timestamp(0),
                subject: start..end,
                headers: end..end,
                payload: end..end,
            });
        }
        Arc::new(chunk)
    }

    fn state(first_seq: Seq, last_seq: Seq) -> StreamState {
        StreamState { first_seq, last_seq, ..StreamState::default() }
    }

    fn next(
        cursor: &mut Cursor,
        state: &StreamState,
        tail: &Tail,
        filters: &[Filter],
    ) -> Option<Seq> {
        match cursor.find_next(state, tail, filters) {
            Found::Msg(held) => {
                let seq = held.parts()?.1.seq;
                cursor.advance(seq);
                Some(seq)
            }
            _ => None,
        }
    }

    #[test]
    fn a_caught_up_consumer_reads_nothing() {
        let mut tail = Tail::default();
        tail.push(5, chunk(&[(5, "a"), (6, "b"), (8, "a")]));
        let filters = [Filter::parse(b"a").unwrap()];
        let mut cursor = Cursor::starting_at(5);
        let state = state(1, 9);
        assert_eq!(next(&mut cursor, &state, &tail, &filters), Some(5));
        assert_eq!(next(&mut cursor, &state, &tail, &filters), Some(8));
        assert_eq!(next(&mut cursor, &state, &tail, &filters), None);
        assert_eq!(cursor.next(), 10);
    }

    #[test]
    fn what_lies_before_the_tail_is_read_and_the_rest_read_ahead() {
        let tail = Tail::default();
        let state = state(1, 9);
        let mut cursor = Cursor::starting_at(1);
        let Found::Wait(want) = cursor.find_next(&state, &tail, &[]) else { panic!("no read") };
        assert_eq!(want, Want { from: 1, purpose: Purpose::Next });
        assert!(cursor.may_read(want));
        cursor.reading(Ticket(7), want);
        assert!(!cursor.may_read(want));
        assert!(!cursor.read(Ticket(6), None, 0), "an old answer");
        assert!(cursor.read(Ticket(7), Some(chunk(&[(2, "a"), (3, "a")])), 4));
        assert_eq!(next(&mut cursor, &state, &tail, &[]), Some(2));
        let ahead = cursor.want_ahead(&state, &tail).unwrap();
        assert_eq!(ahead.from, 5);
        cursor.reading(Ticket(8), ahead);
        assert!(cursor.read(Ticket(8), Some(chunk(&[(9, "a")])), 9));
        assert_eq!(next(&mut cursor, &state, &tail, &[]), Some(3));
        assert_eq!(next(&mut cursor, &state, &tail, &[]), Some(9));
        assert_eq!(next(&mut cursor, &state, &tail, &[]), None);
    }

    #[test]
    fn a_message_removed_after_it_was_read_is_not_handed_out() {
        let tail = Tail::default();
        let state = state(1, 3);
        let mut cursor = Cursor::starting_at(1);
        cursor.reading(Ticket(1), Want { from: 1, purpose: Purpose::Next });
        cursor.read(Ticket(1), Some(chunk(&[(1, "a"), (2, "a"), (3, "a")])), 3);
        assert_eq!(next(&mut cursor, &state, &tail, &[]), Some(1));
        cursor.remove(2);
        assert!(matches!(cursor.find_next(&state, &tail, &[]), Found::Wait(w) if w.from == 2));
    }

    #[test]
    fn the_list_of_last_messages_comes_first_and_then_what_followed() {
        let mut tail = Tail::default();
        tail.push(1, chunk(&[(1, "a"), (2, "b"), (4, "a"), (5, "c"), (6, "a")]));
        let mut cursor = Cursor::starting_with([2, 3, 4].into(), 5);
        let state = state(1, 6);
        assert_eq!(next(&mut cursor, &state, &tail, &[]), Some(2));
        assert_eq!(next(&mut cursor, &state, &tail, &[]), Some(4));
        assert_eq!(cursor.take_missed(), 1);
        assert_eq!(next(&mut cursor, &state, &tail, &[]), Some(6));
    }
}
