//! Taking over messages of another stream as they were.
//!
//! Owns the steps over sequences that are missing. Does not own limits: they hold when the
//! stream has its settings.

use alloc::borrow::Cow;

use super::publish::ttl_of;
use super::rows::RowsMut;
use super::tail;
use super::work::{Pending, Work};
use crate::jetstream::storage::{Chunk, Seq, StoreError};
use crate::time::Timestamp;

/// Appends what is above the last sequence; then that is at least `last`.
pub(super) fn append<'r>(
    work: &mut Work<'r>,
    rows: &mut impl RowsMut,
    chunk: &'r Chunk,
    last: Seq,
) -> Result<(), StoreError> {
    for msg in &chunk.msgs {
        if msg.seq <= work.head.last_seq {
            continue;
        }
        skip_to(work, rows, msg.seq - 1)?;
        let headers = chunk.bytes(&msg.headers);
        let pending = Pending {
            seq: msg.seq,
            timestamp: Timestamp(msg.timestamp.0.max(work.head.last_ts)),
            subject: Cow::Borrowed(chunk.bytes(&msg.subject)),
            headers: Cow::Borrowed(headers),
            payload: Cow::Borrowed(chunk.bytes(&msg.payload)),
            live: true,
        };
        let timestamp = pending.timestamp.0;
        work.append(rows, pending)?;
        if work.settings.allow_ttl
            && !headers.is_empty()
            && let Some(ttl) = ttl_of(headers)
        {
            work.note_due(timestamp.saturating_add(ttl), msg.seq);
        }
        if work.settings.schedules.is_some()
            && let Some(due) = super::schedule::first_due(headers, Timestamp(timestamp))
        {
            work.note_due(due, msg.seq);
        }
    }
    skip_to(work, rows, last)
}

/// The sequences up to `last` are used up.
fn skip_to(work: &mut Work<'_>, rows: &mut impl RowsMut, last: Seq) -> Result<(), StoreError> {
    if last <= work.head.last_seq {
        return Ok(());
    }
    if !work.pending.is_empty() {
        // Those that wait for a block have no gaps.
        tail::flush(work, rows)?;
    }
    work.head.last_seq = last;
    if work.head.messages == 0 {
        work.head.first_seq = last.saturating_add(1);
    }
    work.head_dirty = true;
    Ok(())
}
