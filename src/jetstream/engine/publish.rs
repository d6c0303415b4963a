//! Storing one message: the checks, in nats-server's order, and the limits after it.
//!
//! Owns what the headers of a publish ask of the stream. Does not own acks.
//!
//! # Invariants
//! - A refused message changes nothing and consumes no sequence.
//!
//! Source: nats-server 2.15.1; NATS docs, "Headers for publishing".

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;

use super::group::Group;
use super::headers::{Wishes, stored_headers};
use super::record::IdRow;
use super::rows::RowsMut;
use super::schedule::{self, Plan};
use super::work::{Pending, Work, logical_size};
use super::{counter, headers, ids, read, remove, tail};
use crate::jetstream::storage::{
    Changed, CounterError, Origin, Part, PublishBatch, PublishError, PublishItem, PublishOutcome,
    Seq, StoreError,
};
use crate::limits::STORED_HEADER_BYTES_MAX;
use crate::subject::{Filter, has_wildcard};
use crate::time::{Timestamp, nanos};

/// What `Nats-Rollup` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rollup {
    Subject,
    All,
}

/// A message about to be stored, after the checks.
struct Checked {
    rollup: Option<Rollup>,
    timestamp: Timestamp,
    /// Nanoseconds after its time, when it goes by itself.
    ttl: Option<i64>,
    changed: Option<Box<Changed>>,
    plan: Option<Box<Plan>>,
}

/// Why it is not stored.
pub(super) enum Verdict {
    Duplicate(Seq),
    Refused(PublishError),
    Failed(StoreError),
}

impl From<PublishError> for Verdict {
    fn from(error: PublishError) -> Self {
        Self::Refused(error)
    }
}

impl From<StoreError> for Verdict {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// What a new message pushes out.
pub(super) fn after_append(
    work: &mut Work<'_>,
    rows: &mut impl RowsMut,
    subject: &[u8],
    seq: Seq,
    rollup: Option<Rollup>,
) -> Result<(), StoreError> {
    match rollup {
        Some(Rollup::Subject) => remove::rollup_subject(work, rows, subject, seq)?,
        Some(Rollup::All) => {
            while work.head.messages > 0 && work.head.first_seq < seq {
                work.remove_first(rows)?;
            }
        }
        None => {}
    }
    if let Some(max) = work.settings.max_msgs_per_subject {
        while work.subject_numbers(rows, subject)?.0 > max {
            let Some(first) = work.first_on_subject(rows, subject)? else { break };
            if !work.remove(rows, first)? {
                break;
            }
        }
    }
    remove::enforce_totals(work, rows)
}

/// Gaps up to this long are kept in the commit; a longer one ends what is pending.
const GAP_MAX: Seq = 64;

/// Stores a message of a mirror, with the sequence and the time it has at its origin.
fn mirror<'r>(
    work: &mut Work<'r>,
    rows: &mut impl RowsMut,
    batch: &'r PublishBatch,
    item: &PublishItem,
    seq: Seq,
) -> Result<PublishOutcome, StoreError> {
    if seq <= work.head.last_seq {
        return Ok(PublishOutcome::Duplicate { seq });
    }
    let (subject, payload) = (batch.bytes(&item.subject), batch.bytes(&item.payload));
    let headers = batch.bytes(&item.headers);
    let wishes = Wishes::parse(headers);
    let timestamp = Timestamp(item.timestamp.0.max(work.head.last_ts));
    let next = work.head.last_seq.saturating_add(1);
    if seq.saturating_sub(next) > GAP_MAX {
        tail::flush(work, rows)?;
        work.head.last_seq = seq.saturating_sub(1);
        if work.head.messages == 0 {
            work.head.first_seq = seq;
        }
        work.head_dirty = true;
    } else {
        for gap in next..seq {
            work.skip(gap, timestamp);
        }
    }
    let before = work.subject_numbers(rows, subject)?.1;
    let (to, headers, payload) = (subject.into(), headers.into(), payload.into());
    work.append(rows, Pending { seq, timestamp, subject: to, headers, payload, live: true })?;
    work.head.last_msg_id.clear();
    if work.settings.allow_ttl
        && let Some(Ttl::Seconds(seconds)) = wishes.ttl.map(parse_ttl)
    {
        work.note_due(timestamp.0.saturating_add(nanoseconds(seconds)), seq);
    }
    let rollup = wishes.rollup.filter(|_| work.settings.allow_rollup).and_then(rollup_of);
    after_append(work, rows, subject, seq, rollup)?;
    Ok(PublishOutcome::Stored { seq, timestamp, before, changed: None })
}

fn rollup_of(value: &[u8]) -> Option<Rollup> {
    if value.eq_ignore_ascii_case(b"sub") {
        Some(Rollup::Subject)
    } else if value.eq_ignore_ascii_case(b"all") {
        Some(Rollup::All)
    } else {
        None
    }
}

pub(super) fn nanoseconds(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000_000)
}

/// Checks and stores one item of a batch.
pub(super) fn publish<'r>(
    work: &mut Work<'r>,
    rows: &mut impl RowsMut,
    batch: &'r PublishBatch,
    item: &PublishItem,
) -> Result<PublishOutcome, StoreError> {
    let (seq, after, name) = match item.origin.as_deref() {
        None => return publish_one(work, rows, batch, item),
        Some(Origin::Mirror { seq }) => return mirror(work, rows, batch, item, *seq),
        Some(Origin::Source { seq, after, name }) => (*seq, *after, name),
    };
    if after != Seq::MAX {
        let known = work.origin(rows, name)?;
        if seq <= known {
            return Ok(PublishOutcome::Duplicate { seq: 0 });
        }
        if after > known {
            let text = "a message before it was not stored";
            let refused = PublishError::StoreFailed(text.into());
            return Ok(PublishOutcome::Refused(Box::new(refused)));
        }
    }
    let outcome = publish_one(work, rows, batch, item)?;
    let again = matches!(
        &outcome,
        PublishOutcome::Refused(error) if matches!(**error, PublishError::StoreFailed(_))
    );
    if !again {
        work.set_origin(name, seq);
    }
    Ok(outcome)
}

/// A message whose headers were read and checked.
pub(super) struct Ready<'r> {
    headers: Cow<'r, [u8]>,
    wishes: Wishes<'r>,
    size: u64,
    checked: Checked,
}

impl Ready<'_> {
    /// Its logical size.
    pub(super) fn size(&self) -> u64 {
        self.size
    }
}

fn publish_one<'r>(
    work: &mut Work<'r>,
    rows: &mut impl RowsMut,
    batch: &'r PublishBatch,
    item: &PublishItem,
) -> Result<PublishOutcome, StoreError> {
    match prepare(work, rows, batch, item, None) {
        Ok(ready) => keep(work, rows, batch, item, ready),
        Err(Verdict::Duplicate(seq)) => Ok(PublishOutcome::Duplicate { seq }),
        Err(Verdict::Refused(error)) => Ok(PublishOutcome::Refused(Box::new(error))),
        Err(Verdict::Failed(error)) => Err(error),
    }
}

/// Checks a message; `group`: behind those of its atomic batch before it.
pub(super) fn prepare<'r>(
    work: &mut Work<'r>,
    rows: &mut impl RowsMut,
    batch: &'r PublishBatch,
    item: &PublishItem,
    group: Option<&mut Group<'r>>,
) -> Result<Ready<'r>, Verdict> {
    let subject = batch.bytes(&item.subject);
    let payload = batch.bytes(&item.payload);
    let raw_headers = batch.bytes(&item.headers);
    let (headers, wishes) = if raw_headers.is_empty() {
        (Cow::Borrowed(raw_headers), Wishes::default())
    } else {
        (stored_headers(raw_headers), Wishes::parse(raw_headers))
    };
    let timestamp = Timestamp(item.timestamp.0.max(work.head.last_ts));
    let size = logical_size(work.settings.memory, subject.len(), headers.len(), payload.len());
    let body = headers.len() + payload.len();
    let (is_sourced, unwanted) = (item.origin.is_some(), item.unwanted);
    let sizes = Sizes { stored: size, body, headers: headers.len(), is_sourced, unwanted };
    let mut checked = check(work, rows, subject, &wishes, timestamp, sizes, group)?;
    change(work, rows, subject, (&headers, payload), &wishes, &mut checked)?;
    Ok(Ready { headers, wishes, size, checked })
}

/// Stores a message that was checked.
pub(super) fn keep<'r>(
    work: &mut Work<'r>,
    rows: &mut impl RowsMut,
    batch: &'r PublishBatch,
    item: &PublishItem,
    ready: Ready<'r>,
) -> Result<PublishOutcome, StoreError> {
    let Ready { headers, wishes, mut checked, .. } = ready;
    let (subject, payload) = (batch.bytes(&item.subject), batch.bytes(&item.payload));
    let seq = work.head.last_seq.saturating_add(1);
    if item.part != Part::Alone && wishes.incr.is_some() {
        // Those before it in its batch count.
        match change(work, rows, subject, (&headers, payload), &wishes, &mut checked) {
            Err(Verdict::Failed(error)) => return Err(error),
            Ok(()) | Err(Verdict::Duplicate(_) | Verdict::Refused(_)) => {}
        }
    }
    let Checked { rollup, timestamp, ttl, changed, plan } = checked;
    let before = work.subject_numbers(rows, subject)?.1;
    if item.unwanted {
        work.skip(seq, timestamp);
    } else {
        let (headers, payload) = match &changed {
            Some(changed) => (changed.headers.clone().into(), changed.payload.clone().into()),
            None => (headers, payload.into()),
        };
        let subject = subject.into();
        work.append(rows, Pending { seq, timestamp, subject, headers, payload, live: true })?;
        if let Some(ttl) = ttl {
            work.note_due(timestamp.0.saturating_add(ttl), seq);
        }
        if let Some(plan) = &plan {
            schedule::stored(work, rows, plan, seq)?;
        }
    }
    let id = wishes.msg_id.filter(|id| !id.is_empty());
    match id {
        Some(id) => {
            work.head.last_msg_id.clear();
            work.head.last_msg_id.extend_from_slice(id);
            if !work.settings.duplicate_window.is_zero() {
                work.new_ids.insert(id, IdRow { seq, timestamp: timestamp.0 });
            }
        }
        None => work.head.last_msg_id.clear(),
    }
    after_append(work, rows, subject, seq, rollup)?;
    if item.unwanted {
        return Ok(PublishOutcome::Skipped { seq });
    }
    Ok(PublishOutcome::Stored { seq, timestamp, before, changed })
}

/// What a message weighs.
#[derive(Clone, Copy)]
struct Sizes {
    stored: u64,
    body: usize,
    headers: usize,
    /// Taken from another stream, where it was checked.
    is_sourced: bool,
    /// Not stored: it takes a sequence and no place.
    unwanted: bool,
}

/// What is stored instead of what was sent: the total of a counter, a longer time to live.
fn change(
    work: &mut Work<'_>,
    rows: &mut impl RowsMut,
    subject: &[u8],
    (block, payload): (&[u8], &[u8]),
    wishes: &Wishes<'_>,
    checked: &mut Checked,
) -> Result<(), Verdict> {
    if let Some(increment) = wishes.incr.filter(|value| !value.is_empty()) {
        let last = work.subject_numbers(rows, subject)?.1;
        let payload = if last == 0 { None } else { work.payload_of(rows, last)? };
        let broken = || PublishError::Counter(CounterError::Broken);
        let total = match &payload {
            Some(payload) => counter::stored(payload).ok_or_else(broken)?,
            None => b"0",
        };
        let total = counter::add(total, increment).ok_or_else(broken)?;
        let payload = format!("{{\"val\":\"{total}\"}}").into_bytes();
        let total = Some(total.into());
        checked.changed = Some(Box::new(Changed { headers: block.to_vec(), payload, total }));
    }
    let marker = i64::try_from(nanos(work.settings.marker_ttl)).unwrap_or(i64::MAX);
    if let Some(ttl) = &mut checked.ttl
        && *ttl < marker
        && work.settings.max_msgs_per_subject != Some(1)
    {
        // A marker must outlive what it marks.
        *ttl = marker;
        let seconds = format!("{}", marker / 1_000_000_000);
        let headers = headers::with_field(block, b"Nats-TTL", seconds.as_bytes());
        let payload = payload.to_vec();
        checked.changed = Some(Box::new(Changed { headers, payload, total: None }));
    }
    if wishes.rollup.is_none_or(<[u8]>::is_empty)
        && checked.plan.as_ref().is_some_and(|plan| plan.due.is_some())
    {
        let block = checked.changed.as_ref().map_or(block, |changed| &changed.headers);
        let headers = headers::with_field(block, b"Nats-Rollup", b"sub");
        let payload = payload.to_vec();
        checked.changed = Some(Box::new(Changed { headers, payload, total: None }));
    }
    Ok(())
}

fn check<'r>(
    work: &mut Work<'r>,
    rows: &mut impl RowsMut,
    subject: &[u8],
    wishes: &Wishes<'r>,
    timestamp: Timestamp,
    sizes: Sizes,
    mut group: Option<&mut Group<'r>>,
) -> Result<Checked, Verdict> {
    let Sizes { stored: size, body, headers, is_sourced, unwanted } = sizes;
    if work.settings.sealed {
        return Err(PublishError::Sealed.into());
    }
    let incr = wishes.incr.filter(|value| !value.is_empty());
    if let Some(incr) = incr {
        check_increment(work, wishes, incr, body > headers && !is_sourced)?;
    }
    if wishes.expected_stream.is_some_and(|name| name != work.settings.name.as_bytes()) {
        return Err(PublishError::ExpectedStream.into());
    }
    let mut ttl = wishes.ttl.map_or(Ttl::None, parse_ttl);
    if is_sourced && !work.settings.allow_ttl {
        ttl = Ttl::None;
    }
    if !work.settings.allow_ttl && matches!(ttl, Ttl::Never | Ttl::Seconds(_)) {
        return Err(PublishError::TtlDisabled.into());
    }
    match group.as_deref() {
        None => check_expected_sequences(work, rows, subject, wishes)?,
        Some(group) => check_expected_in_group(work, rows, subject, wishes, group)?,
    }
    let mut plan = None;
    if wishes.schedules && !is_sourced {
        plan = Some(Box::new(schedule::check(work, rows, subject, wishes.block, timestamp)?));
    }
    if !is_sourced && wishes.stream_source.is_some_and(|value| !value.is_empty()) {
        return Err(PublishError::StreamSource.into());
    }
    if let Some(id) = wishes.msg_id.filter(|id| !id.is_empty())
        && let Some(seq) = ids::find(work, rows, id, timestamp)?
    {
        return Err(Verdict::Duplicate(seq));
    }
    if let Some(group) = group.as_deref_mut()
        && wishes.msg_id.is_some_and(|id| !id.is_empty() && !group.is_new_id(id))
    {
        return Err(PublishError::BatchMsgId.into());
    }
    if let Some(id) = wishes.expected_last_msg_id.filter(|id| !id.is_empty())
        && id != work.head.last_msg_id
    {
        return Err(PublishError::WrongLastMsgId(work.head.last_msg_id.clone()).into());
    }
    let is_schedule = plan.as_ref().is_some_and(|plan| plan.due.is_some());
    let rollup = match wishes.rollup.filter(|value| !value.is_empty()) {
        // One schedule a subject.
        None => is_schedule.then_some(Rollup::Subject),
        Some(_) if is_sourced && !work.settings.allow_rollup => None,
        Some(_) if !work.settings.allow_rollup => {
            return Err(PublishError::Rollup("rollup not permitted".into()).into());
        }
        Some(value) if value.eq_ignore_ascii_case(b"sub") => Some(Rollup::Subject),
        Some(value) if value.eq_ignore_ascii_case(b"all") => Some(Rollup::All),
        Some(value) => {
            let text = format!("rollup value invalid: \"{}\"", String::from_utf8_lossy(value));
            return Err(PublishError::Rollup(text).into());
        }
    };
    if work.settings.counter && incr.is_none() {
        return Err(PublishError::Counter(CounterError::Missing).into());
    }
    if work.settings.max_msg_size.is_some_and(|max| body as u64 > max) {
        return Err(PublishError::TooLarge.into());
    }
    if headers > STORED_HEADER_BYTES_MAX {
        return Err(PublishError::HeaderTooLarge.into());
    }
    if ttl == Ttl::Bad {
        return Err(PublishError::BadTtl.into());
    }
    let group = group.as_deref();
    if let (Some(group), Some(rollup)) = (group, rollup) {
        let (is_wrong, text) = match rollup {
            Rollup::Subject => (group.on_subject(subject) > 0, "batch rollup sub invalid"),
            Rollup::All => (group.messages > 0, "batch rollup all invalid"),
        };
        if is_wrong {
            return Err(PublishError::Rollup(text.into()).into());
        }
    }
    if work.settings.discard_new && !unwanted {
        check_limits(work, rows, subject, size, rollup.is_some(), group)?;
    }
    let before = group.map_or(0, |group| group.messages);
    if work.head.last_seq.checked_add(1).and_then(|next| next.checked_add(before)).is_none() {
        let text = "the stream has used up its sequences";
        return Err(PublishError::StoreFailed(text.into()).into());
    }
    let ttl = match ttl {
        Ttl::Seconds(seconds) => Some(seconds),
        Ttl::None | Ttl::Never | Ttl::Bad => None,
    };
    let ttl =
        ttl.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000_000));
    Ok(Checked { rollup, timestamp, ttl, changed: None, plan })
}

fn check_increment(
    work: &Work<'_>,
    wishes: &Wishes<'_>,
    incr: &[u8],
    has_payload: bool,
) -> Result<(), Verdict> {
    let mistake = if !counter::is_increment(incr) {
        CounterError::Invalid
    } else if !work.settings.counter {
        CounterError::Disabled
    } else if has_payload {
        CounterError::Payload
    } else {
        let others = [
            wishes.rollup,
            wishes.expected_stream,
            wishes.expected_last_seq,
            wishes.expected_last_subject_seq,
            wishes.expected_last_msg_id,
        ];
        if others.iter().flatten().all(|value| value.is_empty()) {
            return Ok(());
        }
        CounterError::Invalid
    };
    Err(PublishError::Counter(mistake).into())
}

fn check_expected_sequences(
    work: &mut Work<'_>,
    rows: &mut impl RowsMut,
    subject: &[u8],
    wishes: &Wishes<'_>,
) -> Result<(), Verdict> {
    let expected = wishes.expected_last_subject_seq.filter(|value| !value.is_empty());
    let on_subject = wishes.expected_last_subject_seq_subject.filter(|value| !value.is_empty());
    match (expected, on_subject) {
        (None, Some(_)) => return Err(PublishError::MissingExpectedSeq.into()),
        (None, None) => {}
        (Some(expected), on_subject) => {
            let last = last_on(work, rows, on_subject.unwrap_or(subject))?;
            if parse_number(expected) != Some(last) {
                return Err(PublishError::WrongLastSeq(last).into());
            }
        }
    }
    if let Some(expected) = wishes.expected_last_seq.filter(|value| !value.is_empty())
        && parse_number(expected) != Some(work.head.last_seq)
    {
        return Err(PublishError::WrongLastSeq(work.head.last_seq).into());
    }
    Ok(())
}

/// The same in an atomic batch, where the messages before it are not stored yet.
fn check_expected_in_group(
    work: &mut Work<'_>,
    rows: &mut impl RowsMut,
    subject: &[u8],
    wishes: &Wishes<'_>,
    group: &Group<'_>,
) -> Result<(), Verdict> {
    if wishes.expected_last_msg_id.is_some_and(|id| !id.is_empty()) {
        return Err(PublishError::BatchHeader("Nats-Expected-Last-Msg-Id").into());
    }
    if wishes.expected_last_subject_seq.is_some_and(|value| !value.is_empty()) {
        let on_subject = wishes.expected_last_subject_seq_subject;
        let on_subject = on_subject.filter(|value| !value.is_empty()).unwrap_or(subject);
        if group.on_subject(on_subject) > 0 {
            return Err(PublishError::WrongLastSeqUnknown.into());
        }
    }
    if group.messages > 0
        && let Some(expected) = wishes.expected_last_seq.filter(|value| !value.is_empty())
    {
        let last = work.head.last_seq.saturating_add(group.messages);
        return Err(if parse_number(expected) == Some(last) {
            PublishError::WrongLastSeqUnknown.into()
        } else {
            PublishError::WrongLastSeq(last).into()
        });
    }
    check_expected_sequences(work, rows, subject, wishes)
}

/// The last sequence on a subject, or on any that a pattern matches; 0 for none.
fn last_on(
    work: &mut Work<'_>,
    rows: &mut impl RowsMut,
    subject: &[u8],
) -> Result<Seq, StoreError> {
    if !has_wildcard(subject) {
        return Ok(work.subject_numbers(rows, subject)?.1);
    }
    let Ok(filter) = Filter::parse(subject) else { return Ok(0) };
    work.write_subjects(rows)?;
    read::last_matching(rows, work.stream, &work.head, &filter)
}

/// Limits that refuse, with `discard: new`.
fn check_limits(
    work: &mut Work<'_>,
    rows: &mut impl RowsMut,
    subject: &[u8],
    size: u64,
    is_rollup: bool,
    group: Option<&Group<'_>>,
) -> Result<(), Verdict> {
    let full = |text: &str| Verdict::from(PublishError::StoreFailed(text.into()));
    let mut freed = None;
    if let Some(max) = work.settings.max_msgs_per_subject
        && work.subject_numbers(rows, subject)?.0 + group.map_or(0, |of| of.on_subject(subject))
            >= max
    {
        if work.settings.discard_new_per_subject && !is_rollup {
            return Err(full("maximum messages per subject exceeded"));
        }
        freed = match work.first_on_subject(rows, subject)? {
            Some(first) => Some(work.size_of(rows, first)?.unwrap_or(0)),
            None => Some(0),
        };
    }
    let messages = work.head.messages + group.map_or(0, |group| group.messages);
    if freed.is_none() && work.settings.max_msgs.is_some_and(|max| messages >= max) {
        return Err(full("maximum messages exceeded"));
    }
    let bytes = work.head.bytes.saturating_add(group.map_or(0, |group| group.bytes));
    let after = bytes.saturating_add(size);
    if work.settings.max_bytes.is_some_and(|max| after > max)
        && freed.is_none_or(|freed| freed < size)
    {
        return Err(full("maximum bytes exceeded"));
    }
    Ok(())
}

fn parse_number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 20 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    core::str::from_utf8(text).ok()?.parse().ok()
}

/// What `Nats-TTL` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ttl {
    None,
    Never,
    Seconds(u64),
    Bad,
}

/// How long a stored message with these headers stays, in nanoseconds; `None`: as others do.
pub(super) fn ttl_of(headers: &[u8]) -> Option<i64> {
    match parse_ttl(Wishes::parse(headers).ttl?) {
        Ttl::Seconds(seconds) => {
            Some(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000_000))
        }
        Ttl::None | Ttl::Never | Ttl::Bad => None,
    }
}

/// `never`, whole seconds from 1 up, or a Go duration of at least a second.
pub(super) fn parse_ttl(value: &[u8]) -> Ttl {
    if value.is_empty() {
        return Ttl::None;
    }
    if value.eq_ignore_ascii_case(b"never") {
        return Ttl::Never;
    }
    let seconds = match parse_number(value) {
        Some(seconds) => Some(seconds),
        None => go_duration_nanos(value).map(|nanos| nanos / 1_000_000_000),
    };
    seconds.filter(|seconds| *seconds >= 1).map_or(Ttl::Bad, Ttl::Seconds)
}

/// A Go duration such as `1h30m`, `1.5s`; `None` if it is none, or negative.
pub(super) fn go_duration_nanos(text: &[u8]) -> Option<u64> {
    let mut rest = text.strip_prefix(b"+").unwrap_or(text);
    if rest == b"0" {
        return Some(0);
    }
    let mut total = 0_u64;
    let mut any = false;
    while !rest.is_empty() {
        let digits = |bytes: &[u8]| bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (whole, after) = rest.split_at(digits(rest));
        rest = after;
        let mut fraction: &[u8] = &[];
        if let Some(after) = rest.strip_prefix(b".") {
            (fraction, rest) = after.split_at(digits(after));
        }
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let unit_len =
            rest.iter().take_while(|byte| !byte.is_ascii_digit() && **byte != b'.').count();
        let (unit, after) = rest.split_at(unit_len);
        rest = after;
        let unit: u64 = match unit {
            b"ns" => 1,
            b"us" | [0xc2, 0xb5, b's'] | [0xce, 0xbc, b's'] => 1_000,
            b"ms" => 1_000_000,
            b"s" => 1_000_000_000,
            b"m" => 60_000_000_000,
            b"h" => 3_600_000_000_000,
            _ => return None,
        };
        let whole = if whole.is_empty() { 0 } else { parse_number(whole)? };
        total = total.checked_add(whole.checked_mul(unit)?)?;
        let mut part = unit;
        for digit in fraction {
            part /= 10;
            total = total.checked_add(u64::from(digit - b'0') * part)?;
        }
        any = true;
    }
    any.then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ttl_values_are_judged_as_nats_server_does() {
        for (good, seconds) in
            [("1", 1), ("10", 10), ("1s", 1), ("1.9s", 1), ("1h30m", 5400), ("1000ms", 1)]
        {
            assert_eq!(parse_ttl(good.as_bytes()), Ttl::Seconds(seconds), "{good}");
        }
        for never in ["never", "NEVER"] {
            assert_eq!(parse_ttl(never.as_bytes()), Ttl::Never);
        }
        for bad in ["0", "0s", "500ms", "-1", "-1s", "abc", "1x", "s", "1.5", "."] {
            assert_eq!(parse_ttl(bad.as_bytes()), Ttl::Bad, "{bad}");
        }
        assert_eq!(parse_ttl(b""), Ttl::None);
    }
}
