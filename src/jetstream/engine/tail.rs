//! Which messages share a block: the open tail, closing, and rewriting what is mostly dead.
//!
//! Owns the shape of the file. A commit's messages are appended to the tail, a row of at
//! most one page that every commit writes anew; what does not fit is closed into blocks
//! that fill pages of 64 KiB, 32 KiB, … 4 KiB exactly. One message at a time then costs no
//! more file than a thousand at once.
//!
//! # Invariants
//! - The tail's sequences are above those of all closed blocks.
//! - A closed block never grows; it is rewritten only when that frees at least half of it.

use alloc::vec::Vec;

use super::block::{self, BLOCK_BYTES_MAX, Builder, Cursor, Msg, TAIL_BYTES_MAX};
use super::record::DeletedSet;
use super::rows::{Order, Rows, RowsMut, Table};
use super::work::Work;
use super::{keys, read};
use crate::id::StreamId;
use crate::jetstream::storage::{Seq, StoreError};

/// The tail's row: the sequence its key would hold if it were closed, then the block.
pub(super) fn split_row(row: &[u8]) -> Option<(Seq, &[u8])> {
    let (seq, bytes) = row.split_first_chunk::<8>()?;
    Some((Seq::from_be_bytes(*seq), bytes))
}

pub(super) fn load(
    rows: &impl Rows,
    stream: StreamId,
) -> Result<Option<(Seq, Vec<u8>)>, StoreError> {
    let key = keys::hot(stream, keys::Kind::Tail);
    let row =
        rows.get(Table::Hot, &key, |row| split_row(row).map(|(seq, bytes)| (seq, bytes.to_vec())))?;
    Ok(row.flatten())
}

fn put_tail(
    rows: &mut impl RowsMut,
    stream: StreamId,
    key: Seq,
    bytes: &[u8],
) -> Result<(), StoreError> {
    let mut row = Vec::with_capacity(8 + bytes.len());
    row.extend_from_slice(&key.to_be_bytes());
    row.extend_from_slice(bytes);
    rows.put(Table::Hot, &keys::hot(stream, keys::Kind::Tail), &row)
}

/// The messages of a block that exist.
fn live<'b>(
    stream: StreamId,
    key: Seq,
    bytes: &'b [u8],
    first_seq: Seq,
    deleted: &DeletedSet,
    out: &mut Vec<Msg<'b>>,
) -> Result<(), StoreError> {
    let damaged = |_| read::damaged(stream, key);
    let mut cursor = Cursor::open(key, bytes).map_err(damaged)?;
    while let Some(entry) = cursor.next(bytes).map_err(damaged)? {
        if entry.seq >= first_seq && !deleted.contains(entry.seq) {
            out.push(entry.msg(bytes));
        }
    }
    Ok(())
}

/// Moves pending messages into the tail and into blocks.
pub(super) fn flush(work: &mut Work<'_>, rows: &mut impl RowsMut) -> Result<(), StoreError> {
    if work.pending.is_empty() {
        return Ok(());
    }
    work.forget_first();
    let pending = core::mem::take(&mut work.pending);
    let old = load(rows, work.stream)?;
    let deleted = match &old {
        Some((key, _)) => work.take_deleted(rows, *key)?,
        None => DeletedSet::default(),
    };
    let mut msgs = Vec::with_capacity(pending.len() + 64);
    if let Some((key, bytes)) = &old {
        live(work.stream, *key, bytes, work.head.first_seq, &deleted, &mut msgs)?;
    }
    msgs.extend(pending.iter().filter(|msg| msg.live).map(super::work::Pending::msg));
    let mut builder = Builder::new(0);
    let rest = close_blocks(rows, work.stream, &msgs, &mut builder)?;
    if rest.is_empty() {
        if old.is_some() {
            rows.remove(Table::Hot, &keys::hot(work.stream, keys::Kind::Tail))?;
        }
        return Ok(());
    }
    let key = builder.key();
    put_tail(rows, work.stream, key, builder.finish())
}

fn put_block(
    rows: &mut impl RowsMut,
    stream: StreamId,
    builder: &mut Builder,
) -> Result<(), StoreError> {
    let key = keys::block(stream, builder.key());
    rows.put(Table::Blocks, &key, builder.finish())
}

/// Fills `builder` with messages up to `limit` bytes; returns those that did not fit.
fn fill<'s, 'm>(builder: &mut Builder, msgs: &'s [Msg<'m>], limit: usize) -> &'s [Msg<'m>] {
    builder.clear(msgs.first().map_or(0, |msg| msg.seq));
    let fit = msgs.iter().take_while(|msg| builder.push(msg, limit)).count();
    msgs.get(fit..).unwrap_or(&[])
}

/// Writes as many closed blocks as `msgs` fill and leaves the rest, which fits a tail, in
/// `builder`; returns the rest too.
fn close_blocks<'s, 'm>(
    rows: &mut impl RowsMut,
    stream: StreamId,
    mut msgs: &'s [Msg<'m>],
    builder: &mut Builder,
) -> Result<&'s [Msg<'m>], StoreError> {
    loop {
        let mut after = fill(builder, msgs, BLOCK_BYTES_MAX);
        if after.is_empty() {
            let len = builder.len();
            if len <= TAIL_BYTES_MAX {
                return Ok(msgs);
            }
            let size = block::full_block(len);
            if size < len {
                after = fill(builder, msgs, size);
                if builder.len() < size / 4 * 3 {
                    // A large message would leave much of the smaller page empty.
                    after = fill(builder, msgs, BLOCK_BYTES_MAX);
                }
            }
        }
        put_block(rows, stream, builder)?;
        msgs = after;
    }
}

/// Rewrites a block without its deleted messages if that frees half of its pages, or in any
/// case with `always`. A small remainder joins the block before it.
pub(super) fn compact(
    work: &mut Work<'_>,
    rows: &mut impl RowsMut,
    key: Seq,
    always: bool,
) -> Result<(), StoreError> {
    let stream = work.stream;
    let row = keys::block(stream, key);
    let Some(len) = rows.get(Table::Blocks, &row, <[u8]>::len)? else {
        // The tail drops its dead when the next commit extends it.
        return if always { compact_tail(work, rows, key) } else { Ok(()) };
    };
    let dead = usize::try_from(work.deleted_bytes(rows, key)?).unwrap_or(usize::MAX);
    let left = len.saturating_sub(dead);
    let is_empty = left <= block::HEADER_BYTES;
    if !always && !is_empty && block::page_bytes(left) >= block::page_bytes(len) && left > len / 4 {
        return Ok(());
    }
    work.forget_first();
    let bytes = rows.get(Table::Blocks, &row, <[u8]>::to_vec)?.unwrap_or_default();
    let deleted = work.take_deleted(rows, key)?;
    let before = neighbour(rows, stream, key, left)?;
    let before_deleted = match &before {
        Some((key, _)) => work.take_deleted(rows, *key)?,
        None => DeletedSet::default(),
    };
    let mut msgs = Vec::new();
    let mut new_key = key;
    if let Some((before_key, bytes)) = &before {
        new_key = *before_key;
        live(stream, *before_key, bytes, work.head.first_seq, &before_deleted, &mut msgs)?;
    }
    live(stream, key, &bytes, work.head.first_seq, &deleted, &mut msgs)?;
    rows.remove(Table::Blocks, &row)?;
    let mut builder = Builder::new(new_key);
    for msg in &msgs {
        builder.push(msg, usize::MAX);
    }
    let new_row = keys::block(stream, new_key);
    if builder.is_empty() {
        return rows.remove(Table::Blocks, &new_row);
    }
    rows.put(Table::Blocks, &new_row, builder.finish())
}

fn compact_tail(work: &mut Work<'_>, rows: &mut impl RowsMut, key: Seq) -> Result<(), StoreError> {
    let Some((tail_key, bytes)) = load(rows, work.stream)? else { return Ok(()) };
    if tail_key != key {
        return Ok(());
    }
    work.forget_first();
    let deleted = work.take_deleted(rows, key)?;
    let mut msgs = Vec::new();
    live(work.stream, key, &bytes, work.head.first_seq, &deleted, &mut msgs)?;
    let mut builder = Builder::new(key);
    for msg in &msgs {
        builder.push(msg, usize::MAX);
    }
    if builder.is_empty() {
        return rows.remove(Table::Hot, &keys::hot(work.stream, keys::Kind::Tail));
    }
    put_tail(rows, work.stream, key, builder.finish())
}

/// The block before `key`, if it and `len` more bytes share one page.
fn neighbour(
    rows: &impl Rows,
    stream: StreamId,
    key: Seq,
    len: usize,
) -> Result<Option<(Seq, Vec<u8>)>, StoreError> {
    let mut found = None;
    let (from, to) = (keys::block(stream, 0), keys::block(stream, key));
    rows.scan(Table::Blocks, &from, &to, Order::Down, &mut |key, bytes| {
        if bytes.len() + len <= block::full_block(0) {
            found = keys::parse_block(key).map(|key| (key, bytes.to_vec()));
        }
        Ok(false)
    })?;
    Ok(found)
}
