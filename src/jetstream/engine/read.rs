//! Reads: from rows that are committed, or that a commit has settled.
//!
//! Owns finding messages by sequence, subject and time. Changes nothing.
//!
//! # Invariants
//! - A block that cannot be read is an error that names it; nothing is made up for it.
//! - One read looks at no more than [`SCAN_BYTES_MAX`] of blocks (counts and purges aside),
//!   so that one consumer with a rare subject does not hold up the others.

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::block::{self, Cursor, Entry, Msg};
use super::record::{self, DeletedSet, Dues, Head, Meta, SubjectRow};
use super::rows::{AnyRows, Order, Rows, Table};
use super::{keys, tail, work};
use crate::id::StreamId;
use crate::jetstream::storage::{
    Chunk, ConsumerRecord, GetBy, RecoveredStream, Seq, StoreError, StoreReply, StoreRequest,
    StoredMsg, StreamSettings,
};
use crate::subject::{Filter, tokens};
use crate::time::Timestamp;

/// Block bytes one [`StoreRequest::Read`] or `NextBySubject` step looks through.
const SCAN_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The error for a block that cannot be read.
pub(super) fn damaged(stream: StreamId, key: Seq) -> StoreError {
    StoreError {
        text: format!(
            "stored block of stream #{} at sequence {key} is damaged; purge the stream past it \
             or restore the store from a copy",
            stream.0
        ),
    }
}

fn no_stream() -> StoreError {
    StoreError { text: "stream not found".into() }
}

pub(super) fn meta(rows: &impl Rows) -> Result<Meta, StoreError> {
    let meta = rows.get(Table::Hot, keys::META, |row| record::decode("store record", row))?;
    meta.transpose().map(Option::unwrap_or_default)
}

pub(super) fn head(rows: &impl Rows, stream: StreamId) -> Result<Option<Head>, StoreError> {
    let key = keys::hot(stream, keys::Kind::Head);
    rows.get(Table::Hot, &key, |row| record::decode("stream head", row))?.transpose()
}

pub(super) fn settings(
    rows: &impl Rows,
    stream: StreamId,
) -> Result<Option<StreamSettings>, StoreError> {
    let key = keys::hot(stream, keys::Kind::Settings);
    rows.get(Table::Hot, &key, record::decode_settings)?.transpose()
}

pub(super) fn dues(
    rows: &impl Rows,
    stream: StreamId,
    settings: &StreamSettings,
) -> Result<Dues, StoreError> {
    if !settings.allow_ttl && settings.schedules.is_none() {
        return Ok(Dues::default());
    }
    let key = keys::hot(stream, keys::Kind::Dues);
    let dues = rows.get(Table::Hot, &key, |row| record::decode("stream dues", row))?;
    dues.transpose().map(Option::unwrap_or_default)
}

/// A message whose time is up.
pub(super) struct Aged {
    pub seq: Seq,
    pub subject: Vec<u8>,
    /// It says that it stays for ever.
    pub stays: bool,
    /// It leaves no marker: it is one, or a purge.
    pub unmarked: bool,
    /// It makes others.
    pub is_schedule: bool,
    /// When its own time ends.
    pub ends_at: Option<i64>,
}

impl Aged {
    fn of(msg: &Msg<'_>) -> Self {
        let (stays, unmarked) = super::headers::at_the_end(msg.headers);
        let is_schedule = super::schedule::first_due(msg.headers, msg.timestamp).is_some();
        let ttl = if is_schedule { super::publish::ttl_of(msg.headers) } else { None };
        let ends_at = ttl.map(|ttl| msg.timestamp.0.saturating_add(ttl));
        let subject = msg.subject.to_vec();
        Self { seq: msg.seq, subject, stays, unmarked, is_schedule, ends_at }
    }
}

/// The message with this sequence, deleted or not.
pub(super) fn aged_one(
    rows: &impl Rows,
    stream: StreamId,
    seq: Seq,
) -> Result<Option<Aged>, StoreError> {
    locate(rows, stream, seq, |_, entry, bytes| Aged::of(&entry.msg(bytes)))
}

/// Up to `max` messages from `from` on that are not younger than `newest`, and sequence and
/// time of the first after them.
#[expect(clippy::type_complexity, reason = "a list and what follows it")]
pub(super) fn aged(
    rows: &impl Rows,
    stream: StreamId,
    head: &Head,
    from: Seq,
    newest: i64,
    max: usize,
) -> Result<(Vec<Aged>, Option<(Seq, i64)>), StoreError> {
    let (mut found, mut next) = (Vec::new(), None);
    View { rows, stream, head }.up(from, head.last_seq, &[], usize::MAX, &mut |msg| {
        if msg.timestamp.0 > newest || found.len() >= max {
            next = Some((msg.seq, msg.timestamp.0));
            return Ok(false);
        }
        found.push(Aged::of(msg));
        Ok(true)
    })?;
    Ok((found, next))
}

pub(super) fn deleted_set(
    rows: &impl Rows,
    stream: StreamId,
    key: Seq,
) -> Result<Option<DeletedSet>, StoreError> {
    let row = keys::block(stream, key);
    rows.get(Table::Deleted, &row, |row| DeletedSet::decode(key, row))?.transpose()
}

/// Finds one message by sequence, whether deleted or not, and lends it to `found` with its
/// block's key and bytes.
pub(super) fn locate<R>(
    rows: &impl Rows,
    stream: StreamId,
    seq: Seq,
    found: impl FnOnce(Seq, &Entry, &[u8]) -> R,
) -> Result<Option<R>, StoreError> {
    let mut found = Some(found);
    let mut result = None;
    let mut search = |key: Seq, bytes: &[u8]| {
        let mut cursor = Cursor::open(key, bytes).map_err(|_| damaged(stream, key))?;
        while let Some(entry) = cursor.next(bytes).map_err(|_| damaged(stream, key))? {
            if entry.seq == seq {
                result = found.take().map(|found| found(key, &entry, bytes));
            }
            if entry.seq >= seq {
                break;
            }
        }
        Ok(())
    };
    let tail_key = keys::hot(stream, keys::Kind::Tail);
    let in_tail = rows.get(Table::Hot, &tail_key, |row| match tail::split_row(row) {
        Some((key, bytes)) if key <= seq => search(key, bytes).map(|()| true),
        _ => Ok(false),
    })?;
    if in_tail.transpose()? != Some(true) {
        let (from, to) = (keys::block(stream, 0), keys::block(stream, seq.saturating_add(1)));
        rows.scan(Table::Blocks, &from, &to, Order::Down, &mut |key, bytes| {
            if let Some(key) = keys::parse_block(key) {
                search(key, bytes)?;
            }
            Ok(false)
        })?;
    }
    Ok(result)
}

/// Called for each message; false ends the scan.
type Each<'v> = dyn FnMut(&Msg<'_>) -> Result<bool, StoreError> + 'v;

/// The messages of one stream that exist.
struct View<'a, R> {
    rows: &'a R,
    stream: StreamId,
    head: &'a Head,
}

/// Which subjects of the current block match, each asked once.
struct Matcher<'a> {
    filters: &'a [Filter],
    known: Vec<Option<bool>>,
}

impl<'a> Matcher<'a> {
    fn new(filters: &'a [Filter]) -> Self {
        Self { filters, known: Vec::new() }
    }

    fn next_block(&mut self) {
        self.known.clear();
    }

    fn matches(&mut self, entry: &Entry, bytes: &[u8]) -> bool {
        if self.filters.is_empty() {
            return true;
        }
        if self.known.len() <= entry.subject_index {
            self.known.resize(entry.subject_index + 1, None);
        }
        let subject = bytes.get(entry.subject.clone()).unwrap_or(&[]);
        let filters = self.filters;
        match self.known.get_mut(entry.subject_index) {
            Some(place) => *place.get_or_insert_with(|| matches_any(filters, subject)),
            None => false,
        }
    }
}

fn matches_any(filters: &[Filter], subject: &[u8]) -> bool {
    filters.is_empty() || filters.iter().any(|filter| filter.matches(subject))
}

impl<R: Rows> View<'_, R> {
    /// The key of the block that holds `seq`, or of the next one.
    fn block_at(&self, seq: Seq) -> Result<[u8; 12], StoreError> {
        let (zero, after) =
            (keys::block(self.stream, 0), keys::block(self.stream, seq.saturating_add(1)));
        let mut start = keys::block(self.stream, seq);
        self.rows.scan(Table::Blocks, &zero, &after, Order::Down, &mut |key, _| {
            if let Ok(key) = key.try_into() {
                start = key;
            }
            Ok(false)
        })?;
        Ok(start)
    }

    /// Visits matching messages with `from <= seq <= to`, upwards. Returns the sequence up
    /// to which everything was looked at: `to`, unless the visitor or `bytes_max` ended it.
    fn up(
        &self,
        from: Seq,
        to: Seq,
        filters: &[Filter],
        bytes_max: usize,
        each: &mut Each<'_>,
    ) -> Result<Seq, StoreError> {
        let from = from.max(self.head.first_seq);
        if self.head.messages == 0 || from > to {
            return Ok(to);
        }
        let mut matcher = Matcher::new(filters);
        let mut through = from.saturating_sub(1);
        let mut stopped = false;
        let mut bytes_seen = 0_usize;
        let mut visit = |key: Seq, bytes: &[u8]| {
            if bytes_seen > bytes_max {
                stopped = true;
                return Ok(false);
            }
            bytes_seen = bytes_seen.saturating_add(bytes.len());
            matcher.next_block();
            let deleted = deleted_set(self.rows, self.stream, key)?;
            let broken = |_| damaged(self.stream, key);
            let mut cursor = Cursor::open(key, bytes).map_err(broken)?;
            while let Some(entry) = cursor.next(bytes).map_err(broken)? {
                if entry.seq > to {
                    through = to;
                    return Ok(false);
                }
                if entry.seq < from
                    || deleted.as_ref().is_some_and(|set| set.contains(entry.seq))
                    || !matcher.matches(&entry, bytes)
                {
                    continue;
                }
                through = entry.seq;
                if !each(&entry.msg(bytes))? {
                    stopped = true;
                    return Ok(false);
                }
            }
            through = through.max(cursor.passed());
            Ok(true)
        };
        let end = keys::block(self.stream, to.saturating_add(1));
        let mut go_on = true;
        self.rows.scan(
            Table::Blocks,
            &self.block_at(from)?,
            &end,
            Order::Up,
            &mut |key, bytes| {
                let Some(key) = keys::parse_block(key) else { return Ok(true) };
                go_on = visit(key, bytes)?;
                Ok(go_on)
            },
        )?;
        if go_on {
            let tail_key = keys::hot(self.stream, keys::Kind::Tail);
            let done = self.rows.get(Table::Hot, &tail_key, |row| match tail::split_row(row) {
                Some((key, bytes)) if key <= to => visit(key, bytes).map(|_| ()),
                _ => Ok(()),
            })?;
            done.transpose()?;
        }
        Ok(if stopped { through } else { to })
    }

    /// Visits messages with `from <= seq < before` downwards.
    fn down(&self, from: Seq, before: Seq, each: &mut Each<'_>) -> Result<(), StoreError> {
        let from = from.max(self.head.first_seq);
        if self.head.messages == 0 || from >= before {
            return Ok(());
        }
        let mut visit = |key: Seq, bytes: &[u8]| {
            let deleted = deleted_set(self.rows, self.stream, key)?;
            let broken = |_| damaged(self.stream, key);
            let mut cursor = Cursor::open(key, bytes).map_err(broken)?;
            let mut entries = Vec::new();
            while let Some(entry) = cursor.next(bytes).map_err(broken)? {
                if entry.seq >= from
                    && entry.seq < before
                    && !deleted.as_ref().is_some_and(|set| set.contains(entry.seq))
                {
                    entries.push(entry);
                }
            }
            for entry in entries.iter().rev() {
                if !each(&entry.msg(bytes))? {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        let tail_key = keys::hot(self.stream, keys::Kind::Tail);
        let in_tail = self.rows.get(Table::Hot, &tail_key, |row| match tail::split_row(row) {
            Some((key, bytes)) if key < before => visit(key, bytes),
            _ => Ok(true),
        })?;
        if in_tail.transpose()? == Some(false) {
            return Ok(());
        }
        let (start, end) = (self.block_at(from)?, keys::block(self.stream, before));
        self.rows.scan(Table::Blocks, &start, &end, Order::Down, &mut |key, bytes| {
            let Some(key) = keys::parse_block(key) else { return Ok(true) };
            visit(key, bytes)
        })
    }

    /// Visits the rows of matching subjects in sorted order.
    fn subjects(
        &self,
        filters: &[Filter],
        each: &mut dyn FnMut(&[u8], SubjectRow) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        if let [filter] = filters
            && filter.is_literal()
        {
            if let Some(row) = self.subject(filter.as_bytes())? {
                each(filter.as_bytes(), row)?;
            }
            return Ok(());
        }
        let prefix = common_prefix(filters);
        let from = keys::subject(self.stream, &prefix);
        let end = after_prefix(&from).unwrap_or_else(|| keys::end(self.stream));
        self.rows.scan(Table::Subjects, &from, &end, Order::Up, &mut |key, row| {
            let subject = key.get(4..).unwrap_or(&[]);
            if !matches_any(filters, subject) {
                return Ok(true);
            }
            each(subject, SubjectRow::decode(row)?)
        })
    }

    fn subject(&self, subject: &[u8]) -> Result<Option<SubjectRow>, StoreError> {
        let key = keys::subject(self.stream, subject);
        self.rows.get(Table::Subjects, &key, SubjectRow::decode)?.transpose()
    }

    /// Where messages on these subjects can be, if that is cheap to say: literal filters.
    fn bounds(&self, filters: &[Filter]) -> Result<Option<(Seq, Seq)>, StoreError> {
        if filters.is_empty() || filters.len() > 64 || !filters.iter().all(Filter::is_literal) {
            return Ok(None);
        }
        let (mut low, mut high) = (Seq::MAX, 0);
        for filter in filters {
            if let Some(row) = self.subject(filter.as_bytes())? {
                low = low.min(row.floor);
                high = high.max(row.last);
            }
        }
        Ok(Some((low, high)))
    }

    fn read(
        &self,
        from: Seq,
        filters: &[Filter],
        max_msgs: u32,
        max_bytes: u32,
    ) -> Result<(Chunk, Seq), StoreError> {
        let last = self.head.last_seq;
        let (mut low, mut high) = (from, last);
        if let Some((first, end)) = self.bounds(filters)? {
            low = low.max(first);
            high = high.min(end);
        }
        let mut chunk = Chunk::default();
        if low > high || max_msgs == 0 {
            let through = if max_msgs == 0 { from.saturating_sub(1) } else { last };
            return Ok((chunk, through));
        }
        let msgs_max = usize::try_from(max_msgs).unwrap_or(usize::MAX);
        let bytes_max = usize::try_from(max_bytes).unwrap_or(usize::MAX);
        let through = self.up(low, high, filters, SCAN_BYTES_MAX, &mut |msg| {
            push(&mut chunk, msg);
            Ok(chunk.msgs.len() < msgs_max && chunk.data.len() < bytes_max)
        })?;
        Ok((chunk, if through >= high { last } else { through }))
    }

    fn get(&self, by: &GetBy) -> Result<Option<Chunk>, StoreError> {
        let mut chunk = Chunk::default();
        let mut take = |msg: &Msg<'_>| {
            push(&mut chunk, msg);
            Ok(false)
        };
        let last = self.head.last_seq;
        match by {
            GetBy::Seq(seq) => {
                self.up(*seq, *seq, &[], usize::MAX, &mut take)?;
            }
            GetBy::LastBySubject(filter) => {
                let mut newest = 0;
                if filter.as_bytes() == b">" {
                    self.down(0, last.saturating_add(1), &mut take)?;
                } else {
                    self.subjects(core::slice::from_ref(filter), &mut |_, row| {
                        newest = newest.max(row.last);
                        Ok(true)
                    })?;
                    if newest > 0 {
                        self.up(newest, newest, &[], usize::MAX, &mut take)?;
                    }
                }
            }
            GetBy::NextBySubject { filter, from } => {
                let filters = core::slice::from_ref(filter);
                let (low, high) = self.bounds(filters)?.unwrap_or((0, last));
                self.up(low.max(*from), high.min(last), filters, usize::MAX, &mut take)?;
            }
            GetBy::StartTime(time) => {
                let from = self.seq_before(*time)?;
                self.up(from, last, &[], usize::MAX, &mut |msg| {
                    if msg.timestamp < *time {
                        return Ok(true);
                    }
                    take(msg)
                })?;
            }
        }
        Ok((!chunk.msgs.is_empty()).then_some(chunk))
    }

    /// A sequence at or before the first message of this time, close to it.
    fn seq_before(&self, time: Timestamp) -> Result<Seq, StoreError> {
        // Blocks are found by sequence only, so this halves the span of sequences: each
        // step looks at the first time in the block that holds the middle.
        let (mut low, mut high) = (self.head.first_seq, self.head.last_seq);
        while low < high {
            let middle = low + (high - low) / 2;
            let row = self.block_at(middle)?;
            let key = keys::parse_block(&row).unwrap_or(middle);
            let first = self.rows.get(Table::Blocks, &row, block::peek)?.flatten();
            match first {
                Some((_, first)) if first < time && key > low => low = key,
                Some((_, first)) if first < time => {
                    // The block that holds `low` already; look behind it.
                    let next = self.next_block(key)?;
                    match next {
                        Some((next, first)) if first < time && next <= high => low = next,
                        _ => return Ok(low),
                    }
                }
                Some(_) if key > low => high = key - 1,
                _ => return Ok(low),
            }
        }
        Ok(low)
    }

    fn next_block(&self, key: Seq) -> Result<Option<(Seq, Timestamp)>, StoreError> {
        let mut found = None;
        let from = keys::block(self.stream, key.saturating_add(1));
        self.rows.scan(
            Table::Blocks,
            &from,
            &keys::end(self.stream),
            Order::Up,
            &mut |key, bytes| {
                found = keys::parse_block(key).zip(block::peek(bytes).map(|(_, time)| time));
                Ok(false)
            },
        )?;
        Ok(found)
    }

    fn count(&self, from: Seq, filters: &[Filter]) -> Result<u64, StoreError> {
        let head = self.head;
        if head.messages == 0 || from > head.last_seq {
            return Ok(0);
        }
        let from = from.max(head.first_seq);
        let total = if filters.is_empty() {
            head.messages
        } else {
            let mut total = 0_u64;
            self.subjects(filters, &mut |_, row| {
                total = total.saturating_add(row.count);
                Ok(true)
            })?;
            total
        };
        if from == head.first_seq || total == 0 {
            return Ok(total);
        }
        let span = head.last_seq - head.first_seq + 1;
        if filters.is_empty() && span == head.messages {
            return Ok(head.last_seq - from + 1);
        }
        let mut seen = 0_u64;
        let mut each = |_: &Msg<'_>| {
            seen += 1;
            Ok(true)
        };
        // Count on the shorter side.
        if from - head.first_seq < head.last_seq - from {
            self.up(head.first_seq, from - 1, filters, usize::MAX, &mut each)?;
            Ok(total.saturating_sub(seen))
        } else {
            self.up(from, head.last_seq, filters, usize::MAX, &mut each)?;
            Ok(seen)
        }
    }

    fn last_per_subject(&self, filters: &[Filter]) -> Result<Vec<Seq>, StoreError> {
        let mut seqs = Vec::new();
        self.subjects(filters, &mut |_, row| {
            seqs.push(row.last);
            Ok(true)
        })?;
        seqs.sort_unstable();
        Ok(seqs)
    }

    fn deleted(&self, limit: u32) -> Result<Vec<Seq>, StoreError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut seqs = Vec::new();
        let head = self.head;
        let span = head.last_seq.saturating_add(1).saturating_sub(head.first_seq);
        if head.messages == 0 || span == head.messages {
            return Ok(seqs);
        }
        let mut next = head.first_seq;
        let mut fill = |next: &mut Seq, up_to: Seq| {
            while *next < up_to && seqs.len() < limit {
                seqs.push(*next);
                *next += 1;
            }
            *next = up_to.saturating_add(1);
            seqs.len() < limit
        };
        let mut full = false;
        self.up(head.first_seq, head.last_seq, &[], usize::MAX, &mut |msg| {
            full = !fill(&mut next, msg.seq);
            Ok(!full)
        })?;
        if !full {
            fill(&mut next, head.last_seq.saturating_add(1));
        }
        Ok(seqs)
    }
}

/// Appends a message; a subject that repeats is not copied again.
pub(super) fn push(chunk: &mut Chunk, msg: &Msg<'_>) {
    let same = chunk.msgs.last().map(|last| last.subject.clone());
    let same = same.filter(|range| chunk.bytes(range) == msg.subject);
    let mut put = |bytes: &[u8]| {
        let start = u32::try_from(chunk.data.len()).unwrap_or(u32::MAX);
        chunk.data.extend_from_slice(bytes);
        start..u32::try_from(chunk.data.len()).unwrap_or(u32::MAX)
    };
    let subject = same.unwrap_or_else(|| put(msg.subject));
    let (headers, payload) = (put(msg.headers), put(msg.payload));
    let (seq, timestamp) = (msg.seq, msg.timestamp);
    chunk.msgs.push(StoredMsg { seq, timestamp, subject, headers, payload });
}

/// What every subject that matches one of the filters begins with.
fn common_prefix(filters: &[Filter]) -> Vec<u8> {
    let literal = |filter: &Filter| {
        let mut prefix = Vec::new();
        for token in tokens(filter.as_bytes()) {
            if token == b"*" || token == b">" {
                return prefix;
            }
            prefix.extend_from_slice(token);
            prefix.push(b'.');
        }
        prefix.pop();
        prefix
    };
    let mut filters = filters.iter();
    let mut prefix = filters.next().map(literal).unwrap_or_default();
    for filter in filters {
        let other = literal(filter);
        let same = prefix.iter().zip(&other).take_while(|(a, b)| a == b).count();
        prefix.truncate(same);
    }
    prefix
}

/// The first key past all that begin with `prefix`.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

/// The oldest messages on a subject, at most `max`.
pub(super) fn first_on_subject(
    rows: &impl Rows,
    stream: StreamId,
    head: &Head,
    subject: &[u8],
    floor: Seq,
    last: Seq,
    max: usize,
) -> Result<Vec<Seq>, StoreError> {
    let mut found = Vec::new();
    View { rows, stream, head }.up(floor, last, &[], usize::MAX, &mut |msg| {
        if msg.subject == subject {
            found.push(msg.seq);
        }
        Ok(found.len() < max)
    })?;
    Ok(found)
}

/// The newest message on a subject with `floor <= seq < before`.
pub(super) fn last_on_subject(
    rows: &impl Rows,
    stream: StreamId,
    head: &Head,
    subject: &[u8],
    floor: Seq,
    before: Seq,
) -> Result<Option<Seq>, StoreError> {
    let mut found = None;
    View { rows, stream, head }.down(floor, before, &mut |msg| {
        if msg.subject == subject {
            found = Some(msg.seq);
        }
        Ok(found.is_none())
    })?;
    Ok(found)
}

/// The newest message on any subject a filter matches; 0 without.
pub(super) fn last_matching(
    rows: &impl Rows,
    stream: StreamId,
    head: &Head,
    filter: &Filter,
) -> Result<Seq, StoreError> {
    let mut newest = 0;
    View { rows, stream, head }.subjects(core::slice::from_ref(filter), &mut |_, row| {
        newest = newest.max(row.last);
        Ok(true)
    })?;
    Ok(newest)
}

/// How many messages match, and the span of sequences they can be in.
pub(super) fn span_matching(
    rows: &impl Rows,
    stream: StreamId,
    head: &Head,
    filter: &Filter,
) -> Result<(u64, Seq, Seq), StoreError> {
    let (mut count, mut low, mut high) = (0_u64, Seq::MAX, 0);
    View { rows, stream, head }.subjects(core::slice::from_ref(filter), &mut |_, row| {
        count = count.saturating_add(row.count);
        low = low.min(row.floor);
        high = high.max(row.last);
        Ok(true)
    })?;
    Ok((count, low, high))
}

/// Up to `max` sequences with `from <= seq <= to` that match, and where the search ended.
pub(super) fn seqs_matching(
    rows: &impl Rows,
    stream: StreamId,
    head: &Head,
    filter: &Filter,
    span: (Seq, Seq),
    max: usize,
) -> Result<(Vec<Seq>, Seq), StoreError> {
    let mut seqs = Vec::new();
    let view = View { rows, stream, head };
    let filters = core::slice::from_ref(filter);
    let through = view.up(span.0, span.1, filters, usize::MAX, &mut |msg| {
        seqs.push(msg.seq);
        Ok(seqs.len() < max)
    })?;
    Ok((seqs, through))
}

/// Everything there is, for the start.
pub(super) fn recover(rows: &impl Rows) -> Result<StoreReply, StoreError> {
    let mut streams: Vec<RecoveredStream> = Vec::new();
    let mut last_ts = Timestamp(0);
    let mut ids = Vec::new();
    let (from, to) = keys::hot_streams();
    rows.scan(Table::Hot, &from, &to, Order::Up, &mut |key, _| {
        if let Some((stream, kind)) = keys::parse_hot(key)
            && kind == keys::Kind::Head as u8
        {
            ids.push(stream);
        }
        Ok(true)
    })?;
    for stream in ids {
        let (Some(head), Some(settings)) = (head(rows, stream)?, settings(rows, stream)?) else {
            continue;
        };
        let key = keys::hot(stream, keys::Kind::Config);
        let record = rows.get(Table::Hot, &key, <[u8]>::to_vec)?.unwrap_or_default();
        last_ts = last_ts.max(Timestamp(head.last_ts));
        let state = work::state(&settings, &head, &dues(rows, stream, &settings)?);
        let consumers = consumers(rows, stream)?;
        let origins = origins(rows, stream)?;
        streams.push(RecoveredStream { stream, record, state, consumers, origins });
    }
    let after = streams.last().map_or(0, |last| last.stream.0.saturating_add(1));
    let next_stream = meta(rows)?.next_stream.max(after);
    Ok(StoreReply::Recovered { streams, next_stream, last_ts })
}

fn origins(rows: &impl Rows, stream: StreamId) -> Result<Vec<(Vec<u8>, Seq)>, StoreError> {
    let mut found = Vec::new();
    let (from, to) = keys::hot_named(stream, keys::Kind::Origin);
    rows.scan(Table::Hot, &from, &to, Order::Up, &mut |key, row| {
        let name = key.get(from.len()..).unwrap_or_default().to_vec();
        found.push((name, record::decode("origin row", row)?));
        Ok(true)
    })?;
    Ok(found)
}

/// How far a source was taken in; 0 if nothing was.
pub(super) fn origin(rows: &impl Rows, stream: StreamId, name: &str) -> Result<Seq, StoreError> {
    let key = keys::origin(stream, name);
    let row = rows.get(Table::Hot, &key, |row| record::decode("origin row", row))?;
    row.transpose().map(Option::unwrap_or_default)
}

fn consumers(rows: &impl Rows, stream: StreamId) -> Result<Vec<ConsumerRecord>, StoreError> {
    let mut found = Vec::new();
    let (from, to) = keys::hot_named(stream, keys::Kind::Consumer);
    rows.scan(Table::Hot, &from, &to, Order::Up, &mut |key, record| {
        let name = key.get(from.len()..).and_then(|name| core::str::from_utf8(name).ok());
        if let Some(name) = name {
            found.push(ConsumerRecord { name: name.into(), record: record.to_vec() });
        }
        Ok(true)
    })?;
    Ok(found)
}

/// Is this a request that changes nothing?
pub fn is_read(request: &StoreRequest) -> bool {
    matches!(
        request,
        StoreRequest::Read { .. }
            | StoreRequest::Get { .. }
            | StoreRequest::Count { .. }
            | StoreRequest::LastPerSubject { .. }
            | StoreRequest::Subjects { .. }
            | StoreRequest::Deleted { .. }
    )
}

/// Answers a request that [`is_read`]; `None` for any other.
pub fn answer(rows: &impl Rows, request: &StoreRequest) -> Option<StoreReply> {
    let rows: &AnyRows<'_> = &(rows as _);
    let with = |stream: StreamId, read: &mut dyn FnMut(&Head) -> Result<(), StoreError>| {
        head(rows, stream)
            .and_then(|head| head.ok_or_else(no_stream))
            .and_then(|head| read(&head).map(|()| head.last_seq))
    };
    Some(match request {
        StoreRequest::Read { token, stream, from, filters, max_msgs, max_bytes } => {
            let mut found = (Chunk::default(), 0);
            let done = with(*stream, &mut |head| {
                let view = View { rows, stream: *stream, head };
                found = view.read(*from, filters, *max_msgs, *max_bytes)?;
                Ok(())
            });
            let (chunk, through) = found;
            StoreReply::Read { token: *token, chunk: done.map(|_| Arc::new(chunk)), through }
        }
        StoreRequest::Get { token, stream, by } => {
            let mut found = None;
            let done = with(*stream, &mut |head| {
                found = View { rows, stream: *stream, head }.get(by)?;
                Ok(())
            });
            StoreReply::Got { token: *token, msg: done.map(|_| found) }
        }
        StoreRequest::Count { token, stream, from, filters } => {
            let mut found = 0;
            let done = with(*stream, &mut |head| {
                found = View { rows, stream: *stream, head }.count(*from, filters)?;
                Ok(())
            });
            let last_seq = done.as_ref().copied().unwrap_or(0);
            StoreReply::Counted { token: *token, count: done.map(|_| found), last_seq }
        }
        StoreRequest::LastPerSubject { token, stream, filters } => {
            let mut found = Vec::new();
            let done = with(*stream, &mut |head| {
                found = View { rows, stream: *stream, head }.last_per_subject(filters)?;
                Ok(())
            });
            let last_seq = done.as_ref().copied().unwrap_or(0);
            StoreReply::LastPerSubject { token: *token, seqs: done.map(|_| found), last_seq }
        }
        StoreRequest::Subjects { token, stream, filter, offset, limit } => {
            let mut found: Vec<(Box<[u8]>, u64)> = Vec::new();
            let mut total = 0_u64;
            let end = offset.saturating_add(u64::from(*limit));
            let done = with(*stream, &mut |head| {
                let view = View { rows, stream: *stream, head };
                view.subjects(core::slice::from_ref(filter), &mut |subject, row| {
                    if (*offset..end).contains(&total) {
                        found.push((subject.into(), row.count));
                    }
                    total += 1;
                    Ok(true)
                })
            });
            StoreReply::Subjects { token: *token, subjects: done.map(|_| found), total }
        }
        StoreRequest::Deleted { token, stream, limit } => {
            let mut found = Vec::new();
            let done = with(*stream, &mut |head| {
                found = View { rows, stream: *stream, head }.deleted(*limit)?;
                Ok(())
            });
            StoreReply::Deleted { token: *token, seqs: done.map(|_| found) }
        }
        StoreRequest::CreateStream { .. }
        | StoreRequest::UpdateStream { .. }
        | StoreRequest::DeleteStream { .. }
        | StoreRequest::Publish(_)
        | StoreRequest::Purge { .. }
        | StoreRequest::DeleteMsg { .. }
        | StoreRequest::Settle { .. }
        | StoreRequest::Expire { .. }
        | StoreRequest::Restore { .. }
        | StoreRequest::PutConsumer { .. }
        | StoreRequest::DeleteConsumer { .. } => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_bound_what_filters_can_match() {
        let filters = |texts: &[&str]| -> Vec<Filter> {
            texts.iter().map(|text| Filter::parse(text.as_bytes()).unwrap()).collect()
        };
        assert_eq!(common_prefix(&filters(&["a.b.*"])), b"a.b.");
        assert_eq!(common_prefix(&filters(&["a.b.c", "a.bd.>"])), b"a.b");
        assert_eq!(common_prefix(&filters(&[">"])), b"");
        assert_eq!(common_prefix(&[]), b"");
        assert_eq!(after_prefix(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(after_prefix(&[1, 0xff]), Some(alloc::vec![2]));
        assert_eq!(after_prefix(&[0xff]), None);
    }
}
