//! Scheduled messages: what may be scheduled, and what is stored when its time comes.
//!
//! Owns the rules of the headers `Nats-Schedule…` and the message that a schedule makes. Does
//! not own the times ([`super::cron`]) nor the index of them ([`super::work`]).
//!
//! # Invariants
//! - A schedule fires at most once for a time: its message and its next time are of one
//!   commit.
//!
//! Source: ADR-51; order and texts seen from nats-server 2.15.1.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::vec::Vec;

use super::cron::Pattern;
use super::publish::{self, Rollup, Ttl};
use super::remove::{self, Markers};
use super::rows::RowsMut;
use super::work::{Pending, Work};
use super::{headers, read};
use crate::jetstream::storage::{PublishError, Purge, ScheduleError, Seq, StoreError};
use crate::proto::headers::{VERSION, lines, value};
use crate::subject::{self, Filter};
use crate::time::Timestamp;

/// What a message asks for.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// When it is due for the first time.
    pub due: Option<i64>,
    /// The subject whose schedule it ends.
    pub ends: Option<Box<[u8]>>,
}

const PURGE: &[u8] = b"purge";

/// The value of a header that is not empty.
fn set<'a>(block: &'a [u8], name: &str) -> Option<&'a [u8]> {
    value(block, name).filter(|value| !value.is_empty())
}

/// What a message with such headers asks for.
pub(super) fn check(
    work: &mut Work<'_>,
    rows: &mut impl RowsMut,
    subject: &[u8],
    block: &[u8],
    stored: Timestamp,
) -> Result<Plan, publish::Verdict> {
    let refused = |error| publish::Verdict::from(PublishError::Schedule(error));
    let mut plan = Plan::default();
    let pattern = set(block, "Nats-Schedule");
    let (scheduler, next) = (set(block, "Nats-Scheduler"), set(block, "Nats-Schedule-Next"));
    if scheduler.is_some() || next.is_some() {
        let ends = scheduler.filter(|scheduler| {
            next == Some(PURGE) && *scheduler != subject && subject::is_valid_literal(scheduler)
        });
        let Some(ends) = ends else { return Err(refused(ScheduleError::Scheduler)) };
        plan.ends = Some(ends.into());
    }
    let Some(schedules) = work.settings.schedules.clone() else {
        let is_asked = pattern.is_some() || plan.ends.is_some();
        return if is_asked { Err(refused(ScheduleError::Disabled)) } else { Ok(plan) };
    };
    if let Some(ends) = &plan.ends {
        let last = work.subject_numbers(rows, ends)?.1;
        let is_schedule = match work.msg_of(rows, last)? {
            Some((_, headers, _)) => set(&headers, "Nats-Schedule").is_some(),
            None => last == 0,
        };
        if !is_schedule {
            return Err(refused(ScheduleError::Scheduler));
        }
    }
    let Some(pattern) = pattern else { return Ok(plan) };
    let pattern = core::str::from_utf8(pattern).ok().and_then(Pattern::parse);
    let zone = value(block, "Nats-Schedule-Time-Zone");
    let due = pattern.as_ref().and_then(|pattern| pattern.first(stored.0));
    let (Some(pattern), Some(due)) = (pattern, due) else {
        return Err(refused(ScheduleError::Pattern));
    };
    if let Some(zone) = zone {
        if !matches!(pattern, Pattern::Cron(_)) {
            return Err(refused(ScheduleError::Pattern));
        }
        if !matches!(zone, b"UTC" | b"Local" | b"Etc/UTC" | b"GMT" | b"Etc/GMT") {
            return Err(refused(ScheduleError::Zone));
        }
    }
    match set(block, "Nats-Schedule-TTL").map(publish::parse_ttl) {
        Some(Ttl::Bad) => return Err(refused(ScheduleError::Ttl)),
        Some(_) if !work.settings.allow_ttl => return Err(PublishError::TtlDisabled.into()),
        None | Some(_) => {}
    }
    let is_rollup = |name| set(block, name).is_none_or(|value| value == b"sub");
    if !is_rollup("Nats-Schedule-Rollup") || !is_rollup("Nats-Rollup") {
        return Err(refused(ScheduleError::Rollup));
    }
    let is_ours = |text: &[u8]| {
        subject::is_valid_literal(text)
            && text != subject
            && schedules.subjects.iter().any(|ours| subject::is_subset(text, ours.as_bytes()))
    };
    let target = set(block, "Nats-Schedule-Target").filter(|target| is_ours(target));
    let Some(target) = target else { return Err(refused(ScheduleError::Target)) };
    if set(block, "Nats-Schedule-Source").is_some_and(|from| !is_ours(from) || from == target) {
        return Err(refused(ScheduleError::Source));
    }
    plan.due = Some(due);
    Ok(plan)
}

/// After the message with this plan was stored.
pub(super) fn stored(
    work: &mut Work<'_>,
    rows: &mut impl RowsMut,
    plan: &Plan,
    seq: Seq,
) -> Result<(), StoreError> {
    if let Some(ends) = &plan.ends
        && let Ok(filter) = Filter::parse(ends)
    {
        let branch = Purge { filter: Some(filter), before: Some(seq), keep: None };
        remove::purge(work, rows, &branch)?;
    }
    if let Some(due) = plan.due {
        work.note_due(due, seq);
    }
    Ok(())
}

/// When a schedule is due for the first time that was stored at `stored`; `None`: it is none.
pub(super) fn first_due(block: &[u8], stored: Timestamp) -> Option<i64> {
    let pattern = core::str::from_utf8(set(block, "Nats-Schedule")?).ok()?;
    Pattern::parse(pattern)?.first(stored.0)
}

/// Is the message a schedule whose time has come? Then stores what it makes.
pub(super) fn fire(
    work: &mut Work<'_>,
    rows: &mut impl RowsMut,
    (at, seq): (i64, Seq),
    now: Timestamp,
    markers: &mut Markers,
) -> Result<(), StoreError> {
    if work.settings.sealed || !work.exists(rows, seq)? {
        return Ok(());
    }
    let Some((subject, block, payload)) = work.msg_of(rows, seq)? else { return Ok(()) };
    let pattern = set(&block, "Nats-Schedule").and_then(|text| core::str::from_utf8(text).ok());
    let target = set(&block, "Nats-Schedule-Target").map(<[u8]>::to_vec);
    let (Some(pattern), Some(target)) = (pattern.and_then(Pattern::parse), target) else {
        return Ok(());
    };
    let Some(new) = work.head.last_seq.checked_add(1) else { return Ok(()) };
    let next = pattern.next(at, now.0);
    let mut from = None;
    if let Some(source) = set(&block, "Nats-Schedule-Source") {
        let last = work.subject_numbers(rows, source)?.1;
        from = if last == 0 { None } else { work.msg_of(rows, last)? };
    }
    let (of, body) = match &from {
        Some((_, headers, payload)) => (headers, payload),
        None => (&block, &payload),
    };
    let ttl = set(&block, "Nats-Schedule-TTL");
    let rollup = set(&block, "Nats-Schedule-Rollup").map(|_| Rollup::Subject);
    let made = made(of, &subject, next, ttl, rollup.is_some());
    let timestamp = Timestamp(now.0.max(work.head.last_ts));
    let before = work.subject_numbers(rows, &target)?.1;
    let msg = Pending {
        seq: new,
        timestamp,
        subject: Cow::Owned(target.clone()),
        headers: Cow::Owned(made),
        payload: Cow::Owned(body.clone()),
        live: true,
    };
    read::push(&mut markers.chunk, &msg.msg());
    markers.before.push(before);
    work.append(rows, msg)?;
    work.head.last_msg_id.clear();
    if let Some(Ttl::Seconds(seconds)) = ttl.map(publish::parse_ttl) {
        work.note_due(timestamp.0.saturating_add(publish::nanoseconds(seconds)), new);
    }
    match next {
        Some(next) => work.note_due(next, seq),
        None => {
            work.remove(rows, seq)?;
        }
    }
    publish::after_append(work, rows, &target, new, rollup)
}

/// The headers of what a schedule makes, from those it takes over.
fn made(
    block: &[u8],
    scheduler: &[u8],
    next: Option<i64>,
    ttl: Option<&[u8]>,
    rollup: bool,
) -> Vec<u8> {
    let mut out = VERSION.to_vec();
    out.extend_from_slice(b"\r\n");
    for line in lines(block) {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        let goes = name.starts_with(b"Nats-Schedule")
            || name.starts_with(b"Nats-Expected-")
            || matches!(name, b"Nats-Msg-Id" | b"Nats-TTL" | b"Nats-Rollup");
        if !goes {
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
        }
    }
    headers::put_field(&mut out, b"Nats-Scheduler", scheduler);
    let next = next.map(|next| Timestamp(next).rfc3339());
    let next = next.as_ref().map_or(PURGE, |next| next.as_bytes());
    headers::put_field(&mut out, b"Nats-Schedule-Next", next);
    if let Some(ttl) = ttl {
        headers::put_field(&mut out, b"Nats-TTL", ttl);
    }
    if rollup {
        headers::put_field(&mut out, b"Nats-Rollup", b"sub");
    }
    out.extend_from_slice(b"\r\n");
    out
}
