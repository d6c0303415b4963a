//! One stream within one commit: what was touched, in memory, until it is written once.
//!
//! Owns the numbers, the subject rows, the deleted sets and the messages that are not in a
//! block yet, and keeps them consistent when one message comes or goes. Does not own why it
//! does ([`super::publish`], [`super::remove`]), nor the shape of blocks ([`super::tail`]).
//!
//! # Invariants
//! - `head.messages` and `head.bytes` are those of the messages that exist; every one of
//!   them is in exactly one of: a closed block, the tail, `pending`.
//! - No message below `head.first_seq` exists; the one at `first_seq` does, unless there is
//!   none at all.
//! - Messages in `pending` have the sequences from `pending_base` on, without gaps.
//! - Nothing here outlives the commit.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::block::{Cursor, Entry, Msg};
use super::record::{self, DeletedSet, Dues, Head, IdRow, SubjectRow};
use super::rows::{Order, Rows, RowsMut, Table};
use super::{keys, read, tail};
use crate::id::StreamId;
use crate::jetstream::storage::{
    REMOVED_LIST_MAX, Removed, Seq, StoreError, StreamSettings, StreamState, StreamUpdate,
};
use crate::sorted;
use crate::time::Timestamp;

/// Oldest messages of a subject whose sequences its row keeps, where a limit per subject
/// makes them needed.
const KNOWN_MAX: usize = 32;
/// Subject rows held before they are written in the middle of a commit.
const SUBJECTS_HELD_MAX: usize = 16 * 1024;

/// A message that is not in a block yet.
#[derive(Debug)]
pub(super) struct Pending<'r> {
    pub seq: Seq,
    pub timestamp: Timestamp,
    pub subject: Cow<'r, [u8]>,
    pub headers: Cow<'r, [u8]>,
    pub payload: Cow<'r, [u8]>,
    pub live: bool,
}

impl Pending<'_> {
    pub(super) fn msg(&self) -> Msg<'_> {
        Msg {
            seq: self.seq,
            timestamp: self.timestamp,
            subject: &self.subject,
            headers: &self.headers,
            payload: &self.payload,
        }
    }
}

/// A row in memory.
#[derive(Debug, Default)]
struct Slot<T> {
    row: T,
    dirty: bool,
    stored: bool,
}

/// The block that holds the first message, opened where that message is.
#[derive(Debug)]
struct First {
    key: Seq,
    is_tail: bool,
    bytes: Vec<u8>,
    cursor: Cursor,
    current: Option<Entry>,
}

/// What left the stream since the last update.
#[derive(Debug, Default)]
struct RemovedLog {
    list: Vec<(Seq, Box<[u8]>)>,
    many: Option<(Seq, Seq)>,
}

impl RemovedLog {
    fn push(&mut self, seq: Seq, subject: &[u8]) {
        if self.many.is_none() && self.list.len() < REMOVED_LIST_MAX {
            self.list.push((seq, subject.into()));
            return;
        }
        self.push_range(seq, seq);
    }

    fn push_range(&mut self, first: Seq, last: Seq) {
        let (mut low, mut high) = self.many.unwrap_or((first, last));
        for (seq, _) in self.list.drain(..) {
            (low, high) = (low.min(seq), high.max(seq));
        }
        self.many = Some((low.min(first), high.max(last)));
    }

    fn take(&mut self) -> Removed {
        let mut list = core::mem::take(&mut self.list);
        match self.many.take() {
            Some((first, last)) => Removed::Many { first, last },
            None if list.is_empty() => Removed::None,
            None => {
                sorted::sort_by_key(&mut list, |(seq, _)| *seq);
                Removed::Some(list)
            }
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Work<'r> {
    pub stream: StreamId,
    pub settings: StreamSettings,
    pub head: Head,
    pub head_dirty: bool,
    pub pending: Vec<Pending<'r>>,
    pub pending_base: Seq,
    pub dues: Dues,
    pub dues_dirty: bool,
    /// How far sources were taken in, in this commit.
    origins: BTreeMap<Box<str>, Seq>,
    /// Times of this commit for the index of them.
    new_dues: Vec<(i64, Seq)>,
    /// Message ids seen in this commit.
    pub new_ids: HashMap<&'r [u8], IdRow, FixedState>,
    subjects: HashMap<Vec<u8>, Slot<SubjectRow>, FixedState>,
    deleted: BTreeMap<Seq, Slot<DeletedSet>>,
    first: Option<First>,
    removed: RemovedLog,
    scratch: Vec<u8>,
}

/// Logical size of a message, what limits count.
pub(super) fn logical_size(memory: bool, subject: usize, headers: usize, payload: usize) -> u64 {
    let fixed = match (memory, headers) {
        (true, _) => 16,
        (false, 0) => 30,
        (false, _) => 34,
    };
    (fixed + subject + headers + payload) as u64
}

impl<'r> Work<'r> {
    /// A stream as it is stored; `None` if there is none.
    pub(super) fn load(rows: &impl Rows, stream: StreamId) -> Result<Option<Self>, StoreError> {
        let Some(head) = read::head(rows, stream)? else { return Ok(None) };
        let Some(settings) = read::settings(rows, stream)? else { return Ok(None) };
        let dues = read::dues(rows, stream, &settings)?;
        let mut work = Self::with(stream, settings, head);
        work.dues = dues;
        Ok(Some(work))
    }

    /// A stream that has just been made.
    pub(super) fn create(stream: StreamId, settings: StreamSettings) -> Self {
        let mut head = Head::default();
        if settings.first_seq > 1 {
            head.first_seq = settings.first_seq;
            head.last_seq = settings.first_seq - 1;
        }
        let mut work = Self::with(stream, settings, head);
        work.head_dirty = true;
        work
    }

    fn with(stream: StreamId, settings: StreamSettings, head: Head) -> Self {
        let hasher = FixedState::with_seed(u64::from(stream.0) ^ head.last_ts.unsigned_abs());
        Self {
            stream,
            settings,
            head,
            head_dirty: false,
            pending: Vec::new(),
            pending_base: 0,
            dues: Dues::default(),
            dues_dirty: false,
            new_dues: Vec::new(),
            origins: BTreeMap::new(),
            new_ids: HashMap::with_hasher(hasher.clone()),
            subjects: HashMap::with_hasher(hasher),
            deleted: BTreeMap::new(),
            first: None,
            removed: RemovedLog::default(),
            scratch: Vec::new(),
        }
    }

    pub(super) fn state(&self) -> StreamState {
        state(&self.settings, &self.head, &self.dues)
    }

    /// The numbers now, and what left since the last call.
    pub(super) fn update(&mut self) -> StreamUpdate {
        StreamUpdate { stream: self.stream, state: self.state(), removed: self.removed.take() }
    }

    fn size(&self, subject: usize, headers: usize, payload: usize) -> u64 {
        logical_size(self.settings.memory, subject, headers, payload)
    }

    /// How many sequences a subject's row should know.
    fn known_max(&self) -> usize {
        if self.settings.max_msgs_per_subject.is_some() { KNOWN_MAX } else { 1 }
    }

    fn slot(
        &mut self,
        rows: &impl Rows,
        subject: &[u8],
    ) -> Result<&mut Slot<SubjectRow>, StoreError> {
        match self.subjects.entry_ref(subject) {
            hashbrown::hash_map::EntryRef::Occupied(entry) => Ok(entry.into_mut()),
            hashbrown::hash_map::EntryRef::Vacant(entry) => {
                let key = keys::subject(self.stream, subject);
                let row = rows.get(Table::Subjects, &key, SubjectRow::decode)?.transpose()?;
                let stored = row.is_some();
                let slot = Slot { row: row.unwrap_or_default(), dirty: false, stored };
                Ok(entry.insert(slot))
            }
        }
    }

    /// How many messages a subject has, and the last of them; 0 and 0 if none.
    pub(super) fn subject_numbers(
        &mut self,
        rows: &impl Rows,
        subject: &[u8],
    ) -> Result<(u64, Seq), StoreError> {
        let row = &self.slot(rows, subject)?.row;
        Ok(if row.count == 0 { (0, 0) } else { (row.count, row.last) })
    }

    /// Adds a message at the end. Its sequence is the one after the last.
    pub(super) fn append(
        &mut self,
        rows: &mut impl RowsMut,
        msg: Pending<'r>,
    ) -> Result<(), StoreError> {
        let (seq, known_max) = (msg.seq, self.known_max());
        let slot = self.slot(rows, &msg.subject)?;
        slot.dirty = true;
        let row = &mut slot.row;
        if row.count == 0 {
            row.floor = seq;
            row.known.clear();
        }
        if row.known.len() < known_max && row.is_complete() {
            row.known.push(seq);
        }
        row.count += 1;
        row.last = seq;
        let is_new = row.count == 1;
        let size = self.size(msg.subject.len(), msg.headers.len(), msg.payload.len());
        let head = &mut self.head;
        if is_new {
            head.num_subjects += 1;
        }
        if head.messages == 0 {
            head.first_seq = seq;
            head.first_ts = msg.timestamp.0;
            self.first = None;
        }
        head.messages += 1;
        head.bytes += size;
        head.last_seq = seq;
        head.last_ts = msg.timestamp.0;
        self.head_dirty = true;
        if self.dues.aged > 0 && self.dues.aged_ts.is_none() {
            self.dues.aged_ts = Some(msg.timestamp.0);
            self.dues_dirty = true;
        }
        self.push(msg);
        if self.subjects.len() > SUBJECTS_HELD_MAX {
            self.write_subjects(rows)?;
        }
        Ok(())
    }

    fn push(&mut self, msg: Pending<'r>) {
        if self.pending.is_empty() {
            self.pending_base = msg.seq;
        }
        self.pending.push(msg);
    }

    /// Uses up the next sequence without a message.
    pub(super) fn skip(&mut self, seq: Seq, timestamp: Timestamp) {
        let head = &mut self.head;
        head.last_seq = seq;
        head.last_ts = timestamp.0;
        if head.messages == 0 {
            head.first_seq = seq.saturating_add(1);
            head.first_ts = 0;
        }
        self.head_dirty = true;
        let (subject, headers, payload) = <(Cow<'_, _>, Cow<'_, _>, Cow<'_, _>)>::default();
        self.push(Pending { seq, timestamp, subject, headers, payload, live: false });
    }

    /// How far a source was taken in.
    pub(super) fn origin(&self, rows: &impl Rows, name: &str) -> Result<Seq, StoreError> {
        match self.origins.get(name) {
            Some(seq) => Ok(*seq),
            None => read::origin(rows, self.stream, name),
        }
    }

    /// A source was taken in as far as this.
    pub(super) fn set_origin(&mut self, name: &str, seq: Seq) {
        self.origins.insert(name.into(), seq);
    }

    fn write_origins(&mut self, rows: &mut impl RowsMut) -> Result<(), StoreError> {
        let mut bytes = Vec::new();
        for (name, seq) in core::mem::take(&mut self.origins) {
            record::encode(&mut bytes, &seq)?;
            rows.put(Table::Hot, &keys::origin(self.stream, &name), &bytes)?;
        }
        Ok(())
    }

    /// Something has to be done with a message at this time.
    pub(super) fn note_due(&mut self, at: i64, seq: Seq) {
        self.new_dues.push((at, seq));
        if self.dues.next.is_none_or(|next| at < next) {
            self.dues.next = Some(at);
            self.dues_dirty = true;
        }
    }

    /// Takes what is due at `now` out of the index, at most `max`, earliest first.
    pub(super) fn take_due(
        &mut self,
        rows: &mut impl RowsMut,
        now: i64,
        max: usize,
    ) -> Result<Vec<(i64, Seq)>, StoreError> {
        self.write_dues(rows)?;
        let (mut found, mut next) = (Vec::new(), None);
        let from = keys::due(self.stream, 0, 0);
        let to = keys::due(self.stream, i64::MAX, Seq::MAX);
        rows.scan(Table::Ids, &from, &to, Order::Up, &mut |key, _| {
            let Some((at, seq)) = keys::parse_due(key) else { return Ok(true) };
            if at > now || found.len() >= max {
                next = Some(at);
                return Ok(false);
            }
            found.push((at, seq));
            Ok(true)
        })?;
        for (at, seq) in &found {
            rows.remove(Table::Ids, &keys::due(self.stream, *at, *seq))?;
        }
        if self.dues.next != next {
            self.dues.next = next;
            self.dues_dirty = true;
        }
        Ok(found)
    }

    fn write_dues(&mut self, rows: &mut impl RowsMut) -> Result<(), StoreError> {
        let mut dues = core::mem::take(&mut self.new_dues);
        sorted::sort(&mut dues);
        for (at, seq) in dues {
            rows.put(Table::Ids, &keys::due(self.stream, at, seq), b"")?;
        }
        if core::mem::take(&mut self.dues_dirty) {
            let mut bytes = core::mem::take(&mut self.scratch);
            record::encode(&mut bytes, &self.dues)?;
            rows.put(Table::Hot, &keys::hot(self.stream, keys::Kind::Dues), &bytes)?;
            self.scratch = bytes;
        }
        Ok(())
    }

    /// Does this message exist?
    pub(super) fn exists(&mut self, rows: &impl Rows, seq: Seq) -> Result<bool, StoreError> {
        if seq < self.head.first_seq || self.head.messages == 0 {
            return Ok(false);
        }
        if let Some(index) = self.pending_index(seq) {
            return Ok(self.pending.get(index).is_some_and(|msg| msg.live));
        }
        let Some(key) = read::locate(rows, self.stream, seq, |key, _, _| key)? else {
            return Ok(false);
        };
        Ok(!self.deleted_slot(rows, key)?.row.contains(seq))
    }

    /// Subject, headers and payload of one message, deleted or not.
    #[expect(clippy::type_complexity, reason = "the three parts of a message")]
    pub(super) fn msg_of(
        &self,
        rows: &impl Rows,
        seq: Seq,
    ) -> Result<Option<(Vec<u8>, Vec<u8>, Vec<u8>)>, StoreError> {
        let parts =
            |msg: &Msg<'_>| (msg.subject.to_vec(), msg.headers.to_vec(), msg.payload.to_vec());
        if let Some(msg) = self.pending_index(seq).and_then(|index| self.pending.get(index)) {
            return Ok(Some(parts(&msg.msg())));
        }
        read::locate(rows, self.stream, seq, |_, entry, bytes| parts(&entry.msg(bytes)))
    }

    /// The payload of one message, deleted or not.
    pub(super) fn payload_of(
        &self,
        rows: &impl Rows,
        seq: Seq,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(msg) = self.pending_index(seq).and_then(|index| self.pending.get(index)) {
            return Ok(Some(msg.payload.to_vec()));
        }
        read::locate(rows, self.stream, seq, |_, entry, bytes| entry.msg(bytes).payload.to_vec())
    }

    fn pending_index(&self, seq: Seq) -> Option<usize> {
        if self.pending.is_empty() {
            return None;
        }
        usize::try_from(seq.checked_sub(self.pending_base)?).ok()
    }

    /// The deleted set of the block or tail with this key.
    fn deleted_slot(
        &mut self,
        rows: &impl Rows,
        key: Seq,
    ) -> Result<&mut Slot<DeletedSet>, StoreError> {
        match self.deleted.entry(key) {
            alloc::collections::btree_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            alloc::collections::btree_map::Entry::Vacant(entry) => {
                let set = read::deleted_set(rows, self.stream, key)?;
                let stored = set.is_some();
                Ok(entry.insert(Slot { row: set.unwrap_or_default(), dirty: false, stored }))
            }
        }
    }

    /// The deleted set of a block that is about to be replaced; forgets its row.
    pub(super) fn take_deleted(
        &mut self,
        rows: &mut impl RowsMut,
        key: Seq,
    ) -> Result<DeletedSet, StoreError> {
        self.deleted_slot(rows, key)?;
        let Some(slot) = self.deleted.remove(&key) else { return Ok(DeletedSet::default()) };
        if slot.stored {
            rows.remove(Table::Deleted, &keys::block(self.stream, key))?;
        }
        Ok(slot.row)
    }

    /// To be called when blocks change under the cursor of the first message.
    pub(super) fn forget_first(&mut self) {
        self.first = None;
    }

    /// Books the departure of one message.
    fn forget(
        &mut self,
        rows: &mut impl RowsMut,
        seq: Seq,
        subject: &[u8],
        size: u64,
    ) -> Result<(), StoreError> {
        let stream = self.stream;
        self.head.messages = self.head.messages.saturating_sub(1);
        self.head.bytes = self.head.bytes.saturating_sub(size);
        self.head_dirty = true;
        self.removed.push(seq, subject);
        let slot = self.slot(rows, subject)?;
        slot.dirty = true;
        let row = &mut slot.row;
        let was_complete = row.is_complete();
        row.count = row.count.saturating_sub(1);
        if let Ok(at) = row.known.binary_search(&seq) {
            row.known.remove(at);
            if at == 0 {
                row.floor = seq.saturating_add(1);
            }
        } else if seq == row.floor {
            row.floor = seq.saturating_add(1);
        }
        let mut search_last = false;
        if row.count > 0 && seq == row.last {
            match row.known.last() {
                Some(last) if was_complete => row.last = *last,
                _ => search_last = true,
            }
        }
        let (is_gone, floor) = (row.count == 0, row.floor);
        if is_gone {
            self.head.num_subjects = self.head.num_subjects.saturating_sub(1);
        }
        if search_last {
            self.settle(rows)?;
            let last = read::last_on_subject(rows, stream, &self.head, subject, floor, seq)?;
            let slot = self.slot(rows, subject)?;
            slot.row.last = last.unwrap_or(slot.row.floor);
            slot.dirty = true;
        }
        if self.subjects.len() > SUBJECTS_HELD_MAX {
            self.write_subjects(rows)?;
        }
        Ok(())
    }

    /// The oldest message on a subject.
    pub(super) fn first_on_subject(
        &mut self,
        rows: &mut impl RowsMut,
        subject: &[u8],
    ) -> Result<Option<Seq>, StoreError> {
        let row = &self.slot(rows, subject)?.row;
        if row.count == 0 {
            return Ok(None);
        }
        if let Some(first) = row.known.first() {
            return Ok(Some(*first));
        }
        let (floor, last) = (row.floor, row.last);
        self.settle(rows)?;
        let known_max = self.known_max();
        let known =
            read::first_on_subject(rows, self.stream, &self.head, subject, floor, last, known_max)?;
        let slot = self.slot(rows, subject)?;
        slot.dirty = true;
        slot.row.known = known;
        if let Some(first) = slot.row.known.first() {
            slot.row.floor = *first;
        }
        Ok(slot.row.known.first().copied())
    }

    /// All messages on a subject, if they are known without a search.
    pub(super) fn known_on_subject(
        &mut self,
        rows: &impl Rows,
        subject: &[u8],
    ) -> Result<Option<Vec<Seq>>, StoreError> {
        let row = &self.slot(rows, subject)?.row;
        Ok(row.is_complete().then(|| row.known.clone()))
    }

    /// Logical size of one message that exists.
    pub(super) fn size_of(
        &mut self,
        rows: &impl Rows,
        seq: Seq,
    ) -> Result<Option<u64>, StoreError> {
        if let Some(index) = self.pending_index(seq) {
            let found = self.pending.get(index).filter(|msg| msg.live);
            return Ok(
                found.map(|msg| self.size(msg.subject.len(), msg.headers.len(), msg.payload.len()))
            );
        }
        let memory = self.settings.memory;
        read::locate(rows, self.stream, seq, |_, entry, _| {
            logical_size(memory, entry.subject.len(), entry.headers.len(), entry.payload.len())
        })
    }

    /// Removes one message. False if it does not exist.
    pub(super) fn remove(&mut self, rows: &mut impl RowsMut, seq: Seq) -> Result<bool, StoreError> {
        if seq < self.head.first_seq || seq > self.head.last_seq || self.head.messages == 0 {
            return Ok(false);
        }
        if let Some(index) = self.pending_index(seq) {
            let Some(msg) = self.pending.get_mut(index).filter(|msg| msg.live) else {
                return Ok(false);
            };
            msg.live = false;
            let subject = msg.subject.clone();
            let (headers, payload) = (msg.headers.len(), msg.payload.len());
            let size = self.size(subject.len(), headers, payload);
            self.forget(rows, seq, &subject, size)?;
        } else {
            let memory = self.settings.memory;
            let found = read::locate(rows, self.stream, seq, |key, entry, bytes| {
                let (headers, payload) = (entry.headers.len(), entry.payload.len());
                let subject = entry.msg(bytes).subject.to_vec();
                let size = logical_size(memory, subject.len(), headers, payload);
                (key, subject, size, entry.encoded)
            })?;
            let Some((key, subject, size, encoded)) = found else { return Ok(false) };
            let slot = self.deleted_slot(rows, key)?;
            if !slot.row.insert(seq, encoded) {
                return Ok(false);
            }
            slot.dirty = true;
            self.forget(rows, seq, &subject, size)?;
        }
        if seq == self.head.first_seq {
            self.advance_first(rows)?;
        }
        Ok(true)
    }

    /// Removes the first message, if there is one.
    pub(super) fn remove_first(&mut self, rows: &mut impl RowsMut) -> Result<(), StoreError> {
        if self.head.messages == 0 {
            return Ok(());
        }
        let seq = self.head.first_seq;
        let in_block = if self.first_live(rows, seq)? == Some((seq, Timestamp(self.head.first_ts)))
        {
            self.first.as_ref().and_then(|first| {
                let entry = first.current.as_ref()?;
                let msg = entry.msg(&first.bytes);
                Some((msg.subject.to_vec(), msg.headers.len(), msg.payload.len()))
            })
        } else {
            let text = format!(
                "stream \"{}\" lacks message {seq}, which should be its first",
                self.settings.name
            );
            return Err(StoreError { text });
        };
        if let Some((subject, headers, payload)) = in_block {
            let size = self.size(subject.len(), headers, payload);
            self.forget(rows, seq, &subject, size)?;
        } else if let Some(msg) =
            self.pending_index(seq).and_then(|index| self.pending.get_mut(index))
        {
            msg.live = false;
            let subject = msg.subject.clone();
            let (headers, payload) = (msg.headers.len(), msg.payload.len());
            let size = self.size(subject.len(), headers, payload);
            self.forget(rows, seq, &subject, size)?;
        }
        self.advance_first(rows)
    }

    fn advance_first(&mut self, rows: &mut impl RowsMut) -> Result<(), StoreError> {
        let next = self.first_live(rows, self.head.first_seq.saturating_add(1))?;
        let head = &mut self.head;
        self.head_dirty = true;
        match next {
            Some((seq, timestamp)) => {
                head.first_seq = seq;
                head.first_ts = timestamp.0;
            }
            None => {
                head.first_seq = head.last_seq.saturating_add(1);
                head.first_ts = 0;
            }
        }
        Ok(())
    }

    /// The first message from `from` on, with all before it gone: blocks left behind are
    /// removed. Leaves `self.first` at it, or `None` if it is in `pending`.
    fn first_live(
        &mut self,
        rows: &mut impl RowsMut,
        from: Seq,
    ) -> Result<Option<(Seq, Timestamp)>, StoreError> {
        loop {
            if self.first.is_none() {
                self.first = self.open_first(rows, from)?;
            }
            let Some(mut first) = self.first.take() else {
                let start = self.pending_index(from).unwrap_or(0);
                let found = self.pending.get(start..).unwrap_or(&[]).iter().find(|msg| msg.live);
                return Ok(found.map(|msg| (msg.seq, msg.timestamp)));
            };
            let stream = self.stream;
            let set = &self.deleted_slot(rows, first.key)?.row;
            while let Some(entry) = &first.current {
                if entry.seq >= from && !set.contains(entry.seq) {
                    let found = (entry.seq, entry.timestamp);
                    self.first = Some(first);
                    return Ok(Some(found));
                }
                first.current = first
                    .cursor
                    .next(&first.bytes)
                    .map_err(|_| read::damaged(stream, first.key))?;
            }
            self.take_deleted(rows, first.key)?;
            if first.is_tail {
                rows.remove(Table::Hot, &keys::hot(self.stream, keys::Kind::Tail))?;
            } else {
                rows.remove(Table::Blocks, &keys::block(self.stream, first.key))?;
            }
        }
    }

    /// Opens the block that holds `from`, or the next one.
    fn open_first(&self, rows: &impl Rows, from: Seq) -> Result<Option<First>, StoreError> {
        let mut found = None;
        let start = keys::block(self.stream, 0);
        let end = keys::end(self.stream);
        let after = keys::block(self.stream, from.saturating_add(1));
        let mut take = |key: &[u8], bytes: &[u8]| {
            found = keys::parse_block(key).map(|key| (key, bytes.to_vec()));
            Ok(false)
        };
        // All before the first message is removed as it is left behind, so the lowest block
        // is the one, unless a crash of an older layout left more.
        rows.scan(Table::Blocks, &start, &after, Order::Down, &mut take)?;
        if found.is_none() {
            let mut take = |key: &[u8], bytes: &[u8]| {
                found = keys::parse_block(key).map(|key| (key, bytes.to_vec()));
                Ok(false)
            };
            rows.scan(Table::Blocks, &after, &end, Order::Up, &mut take)?;
        }
        let is_tail = found.is_none();
        if is_tail {
            found = tail::load(rows, self.stream)?;
        }
        let Some((key, bytes)) = found else { return Ok(None) };
        let damaged = |_| read::damaged(self.stream, key);
        let mut cursor = Cursor::open(key, &bytes).map_err(damaged)?;
        let current = cursor.next(&bytes).map_err(damaged)?;
        Ok(Some(First { key, is_tail, bytes, cursor, current }))
    }

    /// Removes everything at once, without looking at it.
    pub(super) fn clear(&mut self, rows: &mut impl RowsMut) -> Result<(), StoreError> {
        let head = &mut self.head;
        if head.messages > 0 {
            self.removed.push_range(head.first_seq, head.last_seq);
        }
        head.messages = 0;
        head.bytes = 0;
        head.num_subjects = 0;
        if head.last_seq > 0 {
            head.first_seq = head.last_seq.saturating_add(1);
        }
        head.first_ts = 0;
        self.head_dirty = true;
        self.pending.clear();
        self.subjects.clear();
        self.deleted.clear();
        self.first = None;
        let (start, end) = (keys::start(self.stream), keys::end(self.stream));
        rows.remove_range(Table::Blocks, &start, &end)?;
        rows.remove_range(Table::Deleted, &start, &end)?;
        rows.remove_range(Table::Subjects, &start, &end)?;
        rows.remove(Table::Hot, &keys::hot(self.stream, keys::Kind::Tail))
    }

    /// Writes pending messages, deleted sets and subject rows, so that [`read`] sees
    /// everything.
    pub(super) fn settle(&mut self, rows: &mut impl RowsMut) -> Result<(), StoreError> {
        tail::flush(self, rows)?;
        self.write_deleted(rows)?;
        self.write_subjects(rows)
    }

    fn write_deleted(&mut self, rows: &mut impl RowsMut) -> Result<(), StoreError> {
        let mut bytes = core::mem::take(&mut self.scratch);
        for (key, slot) in self.deleted.iter_mut().filter(|(_, slot)| slot.dirty) {
            slot.row.encode(*key, &mut bytes)?;
            rows.put(Table::Deleted, &keys::block(self.stream, *key), &bytes)?;
            slot.dirty = false;
            slot.stored = true;
        }
        self.scratch = bytes;
        Ok(())
    }

    pub(super) fn write_subjects(&mut self, rows: &mut impl RowsMut) -> Result<(), StoreError> {
        // Sorted: neighbours in the tree are written together, and the same requests make
        // the same file.
        let mut slots: Vec<_> = self.subjects.drain().filter(|(_, slot)| slot.dirty).collect();
        slots.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut bytes = core::mem::take(&mut self.scratch);
        for (subject, slot) in slots {
            let key = keys::subject(self.stream, &subject);
            if slot.row.count > 0 {
                slot.row.encode(&mut bytes)?;
                rows.put(Table::Subjects, &key, &bytes)?;
            } else if slot.stored {
                rows.remove(Table::Subjects, &key)?;
            }
        }
        self.scratch = bytes;
        Ok(())
    }

    /// Writes all that is left, at the end of the commit. `reserve`: with relaxed sync, how
    /// many sequences to set aside whenever those set aside before are used up. Returns
    /// whether the commit must be durable because of that.
    pub(super) fn finish(
        &mut self,
        rows: &mut impl RowsMut,
        reserve: Option<u64>,
    ) -> Result<bool, StoreError> {
        tail::flush(self, rows)?;
        let dirty: Vec<Seq> =
            self.deleted.iter().filter(|(_, slot)| slot.dirty).map(|(key, _)| *key).collect();
        for key in dirty {
            tail::compact(self, rows, key, false)?;
        }
        self.write_deleted(rows)?;
        self.write_subjects(rows)?;
        super::ids::write(self, rows)?;
        self.write_dues(rows)?;
        self.write_origins(rows)?;
        let mut must_sync = false;
        match reserve {
            Some(step) if self.head_dirty && self.head.last_seq > self.head.reserved => {
                self.head.reserved = self.head.last_seq.saturating_add(step);
                must_sync = true;
            }
            _ => {}
        }
        if self.head_dirty {
            self.write_head(rows)?;
        }
        Ok(must_sync)
    }

    fn write_head(&mut self, rows: &mut impl RowsMut) -> Result<(), StoreError> {
        let mut bytes = core::mem::take(&mut self.scratch);
        record::encode(&mut bytes, &self.head)?;
        rows.put(Table::Hot, &keys::hot(self.stream, keys::Kind::Head), &bytes)?;
        self.scratch = bytes;
        self.head_dirty = false;
        Ok(())
    }

    pub(super) fn write_settings(&mut self, rows: &mut impl RowsMut) -> Result<(), StoreError> {
        let mut bytes = core::mem::take(&mut self.scratch);
        record::encode_settings(&mut bytes, &self.settings)?;
        rows.put(Table::Hot, &keys::hot(self.stream, keys::Kind::Settings), &bytes)?;
        self.scratch = bytes;
        Ok(())
    }

    /// How much of the block with this key is deleted, in bytes.
    pub(super) fn deleted_bytes(&mut self, rows: &impl Rows, key: Seq) -> Result<u64, StoreError> {
        Ok(self.deleted_slot(rows, key)?.row.bytes)
    }
}

/// The numbers of a stream as the contract has them.
pub(super) fn state(settings: &StreamSettings, head: &Head, dues: &Dues) -> StreamState {
    let first = if dues.aged > head.first_seq { dues.aged_ts } else { Some(head.first_ts) };
    let old = match settings.max_age {
        Some(age) if head.messages > 0 => first.map(|first| Timestamp(first) + age),
        _ => None,
    };
    let next_expiry = [old, dues.next.map(Timestamp)].into_iter().flatten().min();
    StreamState {
        messages: head.messages,
        bytes: head.bytes,
        first_seq: head.first_seq,
        first_ts: head.first_timestamp(),
        last_seq: head.last_seq,
        last_ts: Timestamp(head.last_ts),
        num_subjects: head.num_subjects,
        next_expiry,
    }
}
