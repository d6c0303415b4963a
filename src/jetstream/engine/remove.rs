//! Removing messages: limits, age, rollup, purge, delete.
//!
//! Owns which messages go. Does not own how one goes ([`Work::remove`]).

use alloc::borrow::Cow;
use alloc::format;
use alloc::vec::Vec;

use super::rows::RowsMut;
use super::work::{Pending, Work};
use super::{keys, read, schedule, tail};
use crate::jetstream::storage::{Chunk, Purge, REMOVED_LIST_MAX, Seq, StoreError};
use crate::subject::{Filter, has_wildcard};
use crate::time::{GoDuration, Timestamp, nanos};

/// Sequences gathered before they are removed.
const STEP: usize = 4096;

/// Limits on the whole stream.
pub(super) fn enforce_totals(
    work: &mut Work<'_>,
    rows: &mut impl RowsMut,
) -> Result<(), StoreError> {
    if let Some(max) = work.settings.max_msgs {
        while work.head.messages > max {
            work.remove_first(rows)?;
        }
    }
    if let Some(max) = work.settings.max_bytes {
        while work.head.bytes > max && work.head.messages > 0 {
            work.remove_first(rows)?;
        }
    }
    Ok(())
}

/// The limit per subject, when it may have become tighter: looks at every subject.
pub(super) fn enforce_per_subject(
    work: &mut Work<'_>,
    rows: &mut impl RowsMut,
) -> Result<(), StoreError> {
    let Some(max) = work.settings.max_msgs_per_subject else { return Ok(()) };
    work.settle(rows)?;
    let mut over: Vec<Vec<u8>> = Vec::new();
    let (from, to) = (keys::start(work.stream), keys::end(work.stream));
    rows.scan(
        super::rows::Table::Subjects,
        &from,
        &to,
        super::rows::Order::Up,
        &mut |key, row| {
            if super::record::SubjectRow::decode(row)?.count > max {
                over.push(key.get(4..).unwrap_or(&[]).to_vec());
            }
            Ok(true)
        },
    )?;
    for subject in over {
        while work.subject_numbers(rows, &subject)?.0 > max {
            let Some(first) = work.first_on_subject(rows, &subject)? else { break };
            if !work.remove(rows, first)? {
                break;
            }
        }
    }
    Ok(())
}

/// What has reached `max_age` or its own end. Returns the markers that take their places.
pub(super) fn expire(
    work: &mut Work<'_>,
    rows: &mut impl RowsMut,
    now: Timestamp,
) -> Result<Markers, StoreError> {
    let mut markers = Markers::default();
    if work.settings.allow_ttl || work.settings.schedules.is_some() {
        work.settle(rows)?;
        for (at, seq) in work.take_due(rows, now.0, STEP)? {
            let Some(dead) = read::aged_one(rows, work.stream, seq)? else { continue };
            // A schedule may have an end of its own.
            if dead.is_schedule && dead.ends_at.is_none_or(|end| end > at) {
                schedule::fire(work, rows, (at, seq), now, &mut markers)?;
                work.settle(rows)?;
            } else {
                end_one(work, rows, &dead, now, &mut markers)?;
            }
        }
    }
    let Some(age) = work.settings.max_age else { return Ok(markers) };
    let newest_dead = now.0.saturating_sub(i64::try_from(nanos(age)).unwrap_or(i64::MAX));
    if work.settings.allow_ttl {
        expire_one_by_one(work, rows, now, newest_dead, &mut markers)?;
        return Ok(markers);
    }
    while work.head.messages > 0 && work.head.first_ts <= newest_dead {
        work.remove_first(rows)?;
    }
    Ok(markers)
}

/// What was stored in place of messages whose time was up.
#[derive(Debug, Default)]
pub(super) struct Markers {
    /// The messages.
    pub chunk: Chunk,
    /// The newest message on the subject of each before it.
    pub before: Vec<Seq>,
}

/// Where some messages stay whatever their age, each is looked at, once.
fn expire_one_by_one(
    work: &mut Work<'_>,
    rows: &mut impl RowsMut,
    now: Timestamp,
    newest_dead: i64,
    markers: &mut Markers,
) -> Result<(), StoreError> {
    loop {
        let oldest = if work.dues.aged > work.head.first_seq {
            work.dues.aged_ts
        } else {
            Some(work.head.first_ts)
        };
        if work.head.messages == 0 || oldest.is_none_or(|oldest| oldest > newest_dead) {
            return Ok(());
        }
        work.settle(rows)?;
        let from = work.head.first_seq.max(work.dues.aged);
        let (dead, next) = read::aged(rows, work.stream, &work.head, from, newest_dead, STEP)?;
        let after = work.head.last_seq.saturating_add(1);
        let mut stays = false;
        for dead in &dead {
            stays |= dead.stays;
            if !dead.stays {
                end_one(work, rows, dead, now, markers)?;
            }
        }
        if stays || work.dues.aged > 0 {
            work.dues.aged = next.map_or(after, |next| next.0);
            work.dues.aged_ts = match next {
                Some(next) => Some(next.1),
                // What was stored meanwhile is the first there.
                None if work.head.last_seq >= after => Some(work.head.last_ts),
                None => None,
            };
            work.dues_dirty = true;
        }
        if next.is_none() {
            return Ok(());
        }
    }
}

/// Removes a message whose time is up, and stores a marker if it was the last on its subject.
fn end_one(
    work: &mut Work<'_>,
    rows: &mut impl RowsMut,
    dead: &read::Aged,
    now: Timestamp,
    markers: &mut Markers,
) -> Result<(), StoreError> {
    let ttl = work.settings.marker_ttl;
    if !work.remove(rows, dead.seq)?
        || ttl.is_zero()
        || dead.unmarked
        || work.subject_numbers(rows, &dead.subject)?.0 > 0
    {
        return Ok(());
    }
    let Some(seq) = work.head.last_seq.checked_add(1) else { return Ok(()) };
    let timestamp = Timestamp(now.0.max(work.head.last_ts));
    let headers = format!(
        "NATS/1.0\r\nNats-Marker-Reason: MaxAge\r\nNats-TTL: {}\r\nNats-Rollup: sub\r\n\r\n",
        GoDuration(ttl)
    )
    .into_bytes();
    let payload = Cow::Borrowed(&b""[..]);
    let msg = Pending {
        seq,
        timestamp,
        subject: dead.subject.clone().into(),
        headers: headers.into(),
        payload,
        live: true,
    };
    read::push(&mut markers.chunk, &msg.msg());
    markers.before.push(dead.seq);
    work.append(rows, msg)?;
    work.head.last_msg_id.clear();
    work.note_due((timestamp + ttl).0, seq);
    enforce_totals(work, rows)
}

/// All on a subject before `seq`. Nothing keeps a publisher from a subject with wildcards, and
/// then they count as such, as in nats-server: clients clear a whole branch with one marker.
pub(super) fn rollup_subject(
    work: &mut Work<'_>,
    rows: &mut impl RowsMut,
    subject: &[u8],
    seq: Seq,
) -> Result<(), StoreError> {
    if has_wildcard(subject)
        && let Ok(filter) = Filter::parse(subject)
    {
        let branch = Purge { filter: Some(filter), before: Some(seq), keep: None };
        return purge(work, rows, &branch).map(drop);
    }
    if let Some(known) = work.known_on_subject(rows, subject)? {
        for older in known.into_iter().filter(|older| *older < seq) {
            work.remove(rows, older)?;
        }
        return Ok(());
    }
    while work.subject_numbers(rows, subject)?.0 > 1 {
        let Some(first) = work.first_on_subject(rows, subject)? else { break };
        if first >= seq || !work.remove(rows, first)? {
            break;
        }
    }
    Ok(())
}

/// Removes many; returns how many.
pub(super) fn purge(
    work: &mut Work<'_>,
    rows: &mut impl RowsMut,
    purge: &Purge,
) -> Result<u64, StoreError> {
    let messages = work.head.messages;
    let keep = purge.keep.unwrap_or(0);
    let filter = purge.filter.as_ref().filter(|filter| filter.as_bytes() != b">");
    if let Some(filter) = filter {
        work.settle(rows)?;
        let (count, low, high) = read::span_matching(rows, work.stream, &work.head, filter)?;
        let mut left = count.saturating_sub(keep);
        let high = purge.before.map_or(high, |before| high.min(before.saturating_sub(1)));
        let mut from = low;
        while left > 0 && from <= high {
            let max = usize::try_from(left).unwrap_or(usize::MAX).min(STEP);
            let span = (from, high);
            let (seqs, through) =
                read::seqs_matching(rows, work.stream, &work.head, filter, span, max)?;
            for seq in seqs {
                if work.remove(rows, seq)? {
                    left = left.saturating_sub(1);
                }
            }
            // What was removed must not be found again.
            work.settle(rows)?;
            from = through.saturating_add(1);
        }
    } else {
        let all = keep == 0 && purge.before.is_none_or(|before| before > work.head.last_seq);
        if all && messages > REMOVED_LIST_MAX as u64 {
            work.clear(rows)?;
        }
        let before = purge.before.unwrap_or(Seq::MAX);
        while work.head.messages > keep && work.head.first_seq < before {
            work.remove_first(rows)?;
        }
        if let Some(before) = purge.before
            && keep == 0
            && before > work.head.last_seq
        {
            // As nats-server: the counters follow a purge past the end.
            tail::flush(work, rows)?;
            work.head.last_seq = before.saturating_sub(1);
            work.head.first_seq = before;
            work.head_dirty = true;
        }
    }
    Ok(messages.saturating_sub(work.head.messages))
}

/// Removes one. False if there is none.
pub(super) fn delete(
    work: &mut Work<'_>,
    rows: &mut impl RowsMut,
    seq: Seq,
    erase: bool,
) -> Result<bool, StoreError> {
    // What is still pending never reaches a block if it is removed now.
    let block = read::locate(rows, work.stream, seq, |key, _, _| key)?;
    let found = work.remove(rows, seq)?;
    if let Some(key) = block.filter(|_| found && erase) {
        tail::compact(work, rows, key, true)?;
    }
    Ok(found)
}
