//! The stored record of a consumer.
//!
//! Owns its bytes: a version, then postcard. The layout is in `docs/storage-format.md`;
//! a test pins it. Does not own when it is written.
//!
//! # Invariants
//! - A record that cannot be read is reported, never taken for an empty one.
//! - Deadlines are wall times, and never further away than they were when written: a clock
//!   that lies can make a redelivery early, not late.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::state::{Position, Progress};
use crate::jetstream::storage::Seq;
use crate::time::{Duration, Now, Timestamp};

/// The first byte.
const VERSION: u8 = 1;

/// A message delivered and not settled. Sequences are differences to the entry before.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredPending {
    seq: u64,
    dseq: u64,
    /// Milliseconds from `written` to when it is due; 0 if it was due already.
    due_ms: u64,
}

/// What is kept of a consumer.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stored {
    /// As the API shows it, so that new fields need no new version.
    pub(super) config: Vec<u8>,
    /// Unix nanoseconds.
    pub(super) created: i64,
    /// Unix nanoseconds of this writing.
    written: i64,
    delivered: (u64, u64),
    floor: (u64, u64),
    /// The next candidate.
    pub(super) next: u64,
    pending: Vec<StoredPending>,
    /// Sequences as differences, with deliveries after the first.
    redelivered: Vec<(u64, u32)>,
}

/// A record that this build cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordError {
    /// Written by a later release.
    Version(u8),
    /// Not what its version promises.
    Damaged,
}

impl core::fmt::Display for RecordError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Version(version) => write!(f, "record version {version} is not known"),
            Self::Damaged => f.write_str("record is damaged"),
        }
    }
}

/// Writes a record.
pub(super) fn encode(
    config: Vec<u8>,
    created: Timestamp,
    progress: &Progress,
    next: Seq,
    now: Now,
) -> Vec<u8> {
    let mut before = Position::default();
    let pending = progress
        .pending
        .iter()
        .map(|entry| {
            let due = entry.due.since(now.instant);
            let stored = StoredPending {
                seq: entry.seq.saturating_sub(before.stream),
                dseq: entry.dseq.saturating_sub(before.consumer),
                due_ms: u64::try_from(due.as_millis()).unwrap_or(u64::MAX),
            };
            before = Position { consumer: entry.dseq, stream: entry.seq };
            stored
        })
        .collect();
    let mut last_seq = 0;
    let redelivered = progress
        .redelivered
        .iter()
        .map(|(&seq, &count)| {
            let stored = (seq.saturating_sub(last_seq), count);
            last_seq = seq;
            stored
        })
        .collect();
    let pair = |position: Position| (position.consumer, position.stream);
    let stored = Stored {
        config,
        created: created.0,
        written: now.wall.0,
        delivered: pair(progress.delivered),
        floor: pair(progress.floor),
        next,
        pending,
        redelivered,
    };
    let mut bytes = Vec::from([VERSION]);
    // Writing to a Vec fails only for types postcard does not know, and it knows these.
    if let Ok(body) = postcard::to_allocvec(&stored) {
        bytes.extend_from_slice(&body);
    }
    bytes
}

/// Reads a record.
pub(super) fn decode(record: &[u8]) -> Result<Stored, RecordError> {
    match record.split_first() {
        Some((&VERSION, body)) => postcard::from_bytes(body).map_err(|_| RecordError::Damaged),
        Some((&version, _)) => Err(RecordError::Version(version)),
        None => Err(RecordError::Damaged),
    }
}

impl Stored {
    /// What it says about deliveries. `acks`: whether pending messages have a meaning.
    pub(super) fn progress(&self, now: Now) -> Progress {
        let position = |(consumer, stream)| Position { consumer, stream };
        let mut progress = Progress::restored(position(self.delivered), position(self.floor));
        let away = u64::try_from(now.wall.0.saturating_sub(self.written)).unwrap_or(0) / 1_000_000;
        let (mut seq, mut dseq) = (0_u64, 0_u64);
        for entry in &self.pending {
            seq = seq.saturating_add(entry.seq);
            dseq = dseq.saturating_add(entry.dseq);
            let left = Duration::from_millis(entry.due_ms.saturating_sub(away));
            progress.pending.insert(seq, dseq, now.instant, now.instant + left);
        }
        let mut seq = 0_u64;
        for &(step, count) in &self.redelivered {
            seq = seq.saturating_add(step);
            progress.redelivered.insert(seq, count);
        }
        progress
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::Settling;
    use super::*;
    use crate::time::Instant;

    fn sample() -> (Progress, Now) {
        let now = Now { instant: Instant(5_000_000_000), wall: Timestamp(1_000_000_000_000) };
        let mut progress = Progress::starting_at(10);
        for seq in 10..14 {
            progress.deliver(
                seq,
                Settling::Each,
                now.instant,
                now.instant + Duration::from_secs(30),
            );
        }
        progress.settle(10);
        progress.queue(12);
        progress.take_queued();
        progress.deliver_again(12, now.instant, now.instant + Duration::from_secs(30));
        (progress, now)
    }

    #[test]
    fn the_stored_bytes_stay_as_documented() {
        let (progress, now) = sample();
        let bytes = encode(b"{}".to_vec(), Timestamp(3), &progress, 14, now);
        let expected: &[u8] = &[
            1, // version
            2, b'{', b'}', // config
            6,    // created, zigzag
            0x80, 0xc0, 0xa8, 0xca, 0x9a, 0x3a, // written, zigzag
            5, 13, // delivered
            1, 10, // floor
            14, // next
            3,  // pending
            11, 2, 0xb0, 0xea, 1, //
            1, 1, 0xb0, 0xea, 1, //
            1, 1, 0xb0, 0xea, 1, //
            1, 12, 1, // redelivered
        ];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn a_record_gives_back_what_was_pending_and_when_it_is_due() {
        let (progress, now) = sample();
        let bytes = encode(b"{}".to_vec(), Timestamp(3), &progress, 14, now);
        let later = Now { instant: Instant(1), wall: now.wall + Duration::from_secs(10) };
        let mut back = decode(&bytes).unwrap().progress(later);
        assert_eq!(back.delivered, progress.delivered);
        assert_eq!(back.floor, progress.floor);
        assert_eq!(back.pending.len(), 3);
        assert_eq!(back.deliveries(12), 2);
        assert_eq!(back.next_due(), Some(Instant(1) + Duration::from_secs(20)));
        let lying = Now { instant: Instant(1), wall: Timestamp(0) };
        let mut back = decode(&bytes).unwrap().progress(lying);
        assert_eq!(back.next_due(), Some(Instant(1) + Duration::from_secs(30)));
    }

    #[test]
    fn rubbish_is_reported() {
        assert_eq!(decode(&[]), Err(RecordError::Damaged));
        assert_eq!(decode(&[9, 1]), Err(RecordError::Version(9)));
        assert_eq!(decode(&[1, 200, 1]), Err(RecordError::Damaged));
    }
}
