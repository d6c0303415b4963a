//! `Nats-Msg-Id`s within the duplicate window.
//!
//! Owns remembering and forgetting them. They outlive the messages they came with, and a
//! restart.
//!
//! # Invariants
//! - An id is forgotten only once its time is a whole window behind the newest message.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use super::keys;
use super::record::{self, IdBatch, IdRow};
use super::rows::{Order, Rows, RowsMut, Table};
use super::work::Work;
use crate::jetstream::storage::{Seq, StoreError};
use crate::time::{Timestamp, nanos};

/// Longer ids are kept as their SHA-256, behind a byte no header value begins with.
const ID_BYTES_MAX: usize = 64;
/// Batches forgotten in one commit, so that a long window that ends does not stall it.
const FORGET_BATCHES_MAX: usize = 256;

fn stored_form(id: &[u8]) -> Cow<'_, [u8]> {
    if id.len() <= ID_BYTES_MAX {
        return Cow::Borrowed(id);
    }
    let mut short = alloc::vec![b'\n'];
    short.extend_from_slice(&Sha256::digest(id));
    Cow::Owned(short)
}

fn is_within(work: &Work<'_>, row: IdRow, now: Timestamp) -> bool {
    let age = u64::try_from(now.0.saturating_sub(row.timestamp)).unwrap_or(0);
    age < nanos(work.settings.duplicate_window)
}

/// The sequence of the message that had this id within the window.
pub(super) fn find(
    work: &Work<'_>,
    rows: &impl Rows,
    id: &[u8],
    now: Timestamp,
) -> Result<Option<Seq>, StoreError> {
    if work.settings.duplicate_window.is_zero() {
        return Ok(None);
    }
    let mut row = work.new_ids.get(id).copied();
    if row.is_none() {
        let key = keys::id(work.stream, &stored_form(id));
        row = rows
            .get(Table::Ids, &key, |row| record::decode::<IdRow>("message id row", row))?
            .transpose()?;
    }
    Ok(row.filter(|row| is_within(work, *row, now)).map(|row| row.seq))
}

/// Writes the ids of this commit and forgets old ones.
pub(super) fn write(work: &mut Work<'_>, rows: &mut impl RowsMut) -> Result<(), StoreError> {
    if work.new_ids.is_empty() {
        return Ok(());
    }
    let mut ids: Vec<_> = work.new_ids.drain().collect();
    ids.sort_unstable_by_key(|(_, row)| row.seq);
    let mut bytes = Vec::new();
    let mut batch = IdBatch::default();
    for (id, row) in &ids {
        batch.timestamp = batch.timestamp.max(row.timestamp);
        batch.ids.push((row.seq, stored_form(id).into_owned()));
    }
    if let Some((_, first)) = ids.first() {
        record::encode(&mut bytes, &batch)?;
        rows.put(Table::Ids, &keys::id_batch(work.stream, first.seq), &bytes)?;
    }
    ids.sort_unstable_by_key(|(id, _)| *id);
    for (id, row) in ids {
        record::encode(&mut bytes, &row)?;
        rows.put(Table::Ids, &keys::id(work.stream, &stored_form(id)), &bytes)?;
    }
    forget_old(work, rows)
}

fn forget_old(work: &Work<'_>, rows: &mut impl RowsMut) -> Result<(), StoreError> {
    let now = Timestamp(work.head.last_ts);
    let mut old: Vec<(Vec<u8>, IdBatch)> = Vec::new();
    let (from, to) = (keys::id_batch(work.stream, 0), keys::id_batch(work.stream, Seq::MAX));
    rows.scan(Table::Ids, &from, &to, Order::Up, &mut |key, row| {
        let batch: IdBatch = record::decode("message id batch", row)?;
        if is_within(work, IdRow { seq: 0, timestamp: batch.timestamp }, now) {
            return Ok(false);
        }
        old.push((key.to_vec(), batch));
        Ok(old.len() < FORGET_BATCHES_MAX)
    })?;
    for (key, batch) in old {
        for (seq, id) in batch.ids {
            let id_key = keys::id(work.stream, &id);
            let row = rows
                .get(Table::Ids, &id_key, |row| record::decode::<IdRow>("message id row", row))?;
            // The id may have come again since, with a batch of its own.
            if row.transpose()?.is_some_and(|row| row.seq == seq) {
                rows.remove(Table::Ids, &id_key)?;
            }
        }
        rows.remove(Table::Ids, &key)?;
    }
    Ok(())
}
