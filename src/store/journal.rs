//! The journal: what was acknowledged since the database was last synced.
//!
//! A synced commit of the database rewrites six pages or more, whatever it holds. A small one
//! is therefore applied to the database without a sync, and its requests are appended to a
//! file of fixed size beside it, which takes one write and one sync of as many pages as they
//! fill. The next large commit, or the one that no longer fits, syncs the database, and the
//! journal begins anew. After a crash its requests are applied again, in the same pieces:
//! the engine gives the same rows and answers for the same requests.
//!
//! Owns the file's layout (`docs/storage-format.md`) and the bytes of requests in it. Does not
//! own when the database is synced ([`super::disk`]).
//!
//! # Invariants
//! - An entry begins on a page of its own: a write that is torn by a power cut cannot reach
//!   into one that was synced before.
//! - Entries of one generation are numbered from 0 without a gap. The database says which
//!   generation it goes on with and how many of its entries it holds; entries of all other
//!   generations are rubbish.
//! - The file is filled once and never grows afterwards, so that a sync has no metadata to
//!   write.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use redb::StorageBackend;

use super::medium::{Counted, Counters, Medium};
use crate::id::StreamId;
use crate::jetstream::engine::varint;
use crate::jetstream::storage::{
    ConsumerRecord, Origin, Part, PublishBatch, PublishItem, StoreRequest, Token,
};
use crate::time::Timestamp;

/// Of the file. A small commit takes a page, so some 250 of them share one sync of the
/// database, and replaying them all takes a few milliseconds.
const FILE_BYTES: u64 = 1024 * 1024;
/// What is larger is written to the database at once: it would be written twice here, which
/// from about here on costs more than the pages that are saved.
const ENTRY_BYTES_MAX: usize = 32 * 1024;
const PAGE: usize = 4096;
const MAGIC: [u8; 4] = *b"sj01";
/// Magic, checksum, generation, number, length.
const HEADER: usize = 24;

/// See the module.
#[derive(Debug)]
pub(super) struct Journal {
    file: Option<Counted>,
    counters: Arc<Counters>,
    /// Generation and number of the next entry.
    next: Mark,
    /// Where the next one begins.
    at: u64,
    /// The entry to be written, in whole pages.
    entry: Vec<u8>,
    /// The file cannot be made: try no more until the next opening.
    is_off: bool,
}

/// What the database says of the journal: it holds the first `count` entries of this
/// generation, and all of those before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    generation: u64,
    count: u32,
}

const MARK_VERSION: u8 = 1;

impl Mark {
    pub(super) fn record(self) -> [u8; 13] {
        let mut record = [MARK_VERSION; 13];
        record[1..9].copy_from_slice(&self.generation.to_le_bytes());
        record[9..].copy_from_slice(&self.count.to_le_bytes());
        record
    }

    pub(super) fn read(record: &[u8]) -> Option<Self> {
        let [MARK_VERSION, rest @ ..] = record else { return None };
        let (generation, count) = rest.split_first_chunk::<8>()?;
        let count = u32::from_le_bytes(count.try_into().ok()?);
        Some(Self { generation: u64::from_le_bytes(*generation), count })
    }
}

/// What was found in the file.
#[derive(Debug, Default)]
pub(super) struct Found {
    bytes: Vec<u8>,
    generation: u64,
    entries: Vec<std::ops::Range<usize>>,
    /// How many of them the database holds already.
    applied: usize,
    /// Entries that were synced and cannot be reached any more.
    pub(super) lost: u32,
}

impl Found {
    /// The requests of each entry that the database lacks, oldest first, with what it must
    /// say once it holds them; `None` for requests that make no sense.
    pub(super) fn commits(&self) -> impl Iterator<Item = (Mark, Option<Vec<StoreRequest>>)> {
        let entries = self.entries.iter().zip(1..).skip(self.applied);
        entries.map(|(range, count)| {
            let mark = Mark { generation: self.generation, count };
            (mark, self.bytes.get(range.clone()).and_then(decode))
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl Journal {
    /// Reads what follows a database that says `mark`.
    pub(super) fn open(
        medium: &mut dyn Medium,
        counters: &Arc<Counters>,
        mark: Mark,
    ) -> io::Result<(Self, Found)> {
        let file = medium.open_journal(false)?;
        let file = file.map(|file| Counted::beside(file, Arc::clone(counters)));
        let found = match &file {
            Some(file) => read(file, mark)?,
            None => Found::default(),
        };
        let journal = Self {
            file,
            counters: Arc::clone(counters),
            next: mark,
            at: 0,
            entry: Vec::new(),
            is_off: false,
        };
        Ok((journal, found))
    }

    /// Was anything written since the database was synced?
    pub(super) fn is_used(&self) -> bool {
        self.next.count > 0
    }

    /// What [`Self::open`] found was applied: the next sync of the database holds it.
    pub(super) fn note_replayed(&mut self) {
        self.next.count = self.next.count.max(1);
    }

    /// The file is to be put aside; another one is made when it is needed.
    pub(super) fn forget_file(&mut self) {
        self.file = None;
    }

    /// What the database says once it holds everything in here.
    pub(super) fn next_generation(&self) -> Mark {
        Mark { generation: self.next.generation.wrapping_add(1), count: 0 }
    }

    /// The database was synced, and says so by [`Self::next_generation`].
    pub(super) fn begin_anew(&mut self) {
        self.next = self.next_generation();
        self.at = 0;
    }

    /// Makes an entry of `requests`, and gives what a database that holds it must say.
    /// `None`: they have to go into the database at once, because they are large, of a kind
    /// that is rare, or there is no room.
    pub(super) fn prepare(
        &mut self,
        medium: &mut dyn Medium,
        requests: &[StoreRequest],
    ) -> Option<Mark> {
        self.entry.clear();
        self.entry.resize(HEADER, 0);
        if self.is_off || !encode(&mut self.entry, requests) {
            return None;
        }
        let length = self.entry.len();
        self.entry.resize(length.next_multiple_of(PAGE), 0);
        let pages = self.entry.len() as u64;
        if self.at.saturating_add(pages) > FILE_BYTES {
            return None;
        }
        if self.make(medium).is_err() {
            // A full disk: the database may still have room.
            self.is_off = true;
            return None;
        }
        seal(&mut self.entry, length, self.next);
        Some(Mark { count: self.next.count.saturating_add(1), ..self.next })
    }

    /// Makes the file as long as it will ever be.
    fn make(&mut self, medium: &mut dyn Medium) -> io::Result<()> {
        let file = match &self.file {
            Some(file) if file.len()? >= FILE_BYTES => return Ok(()),
            Some(file) => file,
            None => {
                let file = medium.open_journal(true)?.ok_or(io::ErrorKind::NotFound)?;
                self.file.insert(Counted::beside(file, Arc::clone(&self.counters)))
            }
        };
        file.set_len(FILE_BYTES)?;
        // A page at a time: what is written as one piece the kernel may count, and some file
        // systems write, as one piece ever after.
        let zeros = [0; PAGE];
        let mut at = 0;
        while at < FILE_BYTES {
            file.write(at, &zeros)?;
            at += zeros.len() as u64;
        }
        file.sync_data()
    }

    /// Writes and syncs the entry that was prepared.
    pub(super) fn write(&mut self) -> io::Result<()> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        file.write(self.at, &self.entry)?;
        file.sync_data()?;
        self.at += self.entry.len() as u64;
        self.next.count = self.next.count.saturating_add(1);
        self.counters.journaled.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn seal(entry: &mut [u8], length: usize, mark: Mark) {
    let payload = u32::try_from(length - HEADER).unwrap_or(0);
    let fields: [(usize, &[u8]); 4] = [
        (0, &MAGIC),
        (8, &mark.generation.to_le_bytes()),
        (16, &mark.count.to_le_bytes()),
        (20, &payload.to_le_bytes()),
    ];
    for (at, field) in fields {
        if let Some(place) = entry.get_mut(at..at + field.len()) {
            place.copy_from_slice(field);
        }
    }
    let checksum = crc32fast::hash(entry.get(8..length).unwrap_or_default());
    if let Some(place) = entry.get_mut(4..8) {
        place.copy_from_slice(&checksum.to_le_bytes());
    }
}

/// The entry at the start of `bytes`: what comes before it, and its length with the header.
fn open_entry(bytes: &[u8]) -> Option<(Mark, usize)> {
    let field = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    if bytes.get(..4)? != MAGIC {
        return None;
    }
    let generation = u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?);
    let length = HEADER.checked_add(usize::try_from(field(20)?).ok()?)?;
    let is_whole = crc32fast::hash(bytes.get(8..length)?) == field(4)?;
    is_whole.then_some((Mark { generation, count: field(16)? }, length))
}

fn read(file: &Counted, mark: Mark) -> io::Result<Found> {
    let length = file.len()?.min(FILE_BYTES);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read(0, &mut bytes)?;
    let mut entries = Vec::new();
    let mut at = 0;
    while let Some((theirs, length)) = bytes.get(at..).and_then(open_entry)
        && theirs.generation == mark.generation
        && usize::try_from(theirs.count) == Ok(entries.len())
    {
        entries.push(at + HEADER..at + length);
        at += length.next_multiple_of(PAGE);
    }
    // What was being written when the power went has nothing behind it.
    let rest = bytes.get(at..).unwrap_or_default().chunks(PAGE).enumerate().skip(1);
    let lost = rest
        .filter_map(|(page, _)| open_entry(bytes.get(at + page * PAGE..)?))
        .filter(|(theirs, _)| {
            theirs.generation == mark.generation
                && theirs.count >= mark.count
                && usize::try_from(theirs.count).is_ok_and(|number| number > entries.len())
        })
        .count();
    // With the damaged one itself.
    let lost = if lost > 0 { lost + 1 } else { 0 };
    let applied = usize::try_from(mark.count).unwrap_or(usize::MAX);
    let lost = u32::try_from(lost).unwrap_or(u32::MAX);
    Ok(Found { bytes, generation: mark.generation, entries, applied, lost })
}

const PUBLISH: u8 = 1;
const PUT_CONSUMER: u8 = 2;
const DELETE_CONSUMER: u8 = 3;
const EXPIRE: u8 = 4;
/// As [`PUBLISH`], and what is special about each.
const PUBLISH_WANTED: u8 = 5;
const SETTLE: u8 = 6;
const FROM_MIRROR: u8 = 2;
const FROM_SOURCE: u8 = 3;
/// Of an atomic batch; one more if it is unwanted, two more if it is the last.
const ATOMIC: u8 = 5;
/// Of a fast batch that ends where a message is refused; one more if it is unwanted.
const STRICT: u8 = 9;

/// Appends requests. False if one of them is of a kind that is rare, or they are too large.
fn encode(out: &mut Vec<u8>, requests: &[StoreRequest]) -> bool {
    let put_bytes = |out: &mut Vec<u8>, bytes: &[u8]| {
        varint::put(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    };
    for request in requests {
        match request {
            StoreRequest::Publish(batch) => {
                if batch.data.len() > ENTRY_BYTES_MAX {
                    return false;
                }
                let some_special = batch
                    .items
                    .iter()
                    .any(|item| item.unwanted || item.origin.is_some() || item.part != Part::Alone);
                out.push(if some_special { PUBLISH_WANTED } else { PUBLISH });
                varint::put(out, batch.items.len() as u64);
                for item in &batch.items {
                    varint::put(out, u64::from(item.stream.0));
                    out.extend_from_slice(&item.timestamp.0.to_le_bytes());
                    put_bytes(out, batch.bytes(&item.subject));
                    put_bytes(out, batch.bytes(&item.headers));
                    put_bytes(out, batch.bytes(&item.payload));
                    if some_special {
                        match item.origin.as_deref() {
                            None => put_part(out, item),
                            Some(Origin::Mirror { seq }) => {
                                out.push(FROM_MIRROR);
                                varint::put(out, *seq);
                            }
                            Some(Origin::Source { seq, after, name }) => {
                                let unwanted = u8::from(item.unwanted);
                                out.push(FROM_SOURCE + unwanted);
                                varint::put(out, *seq);
                                varint::put(out, *after);
                                put_bytes(out, name.as_bytes());
                            }
                        }
                    }
                }
            }
            StoreRequest::PutConsumer { stream, consumer, .. } => {
                out.push(PUT_CONSUMER);
                varint::put(out, u64::from(stream.0));
                put_bytes(out, consumer.name.as_bytes());
                put_bytes(out, &consumer.record);
            }
            StoreRequest::DeleteConsumer { stream, name } => {
                out.push(DELETE_CONSUMER);
                varint::put(out, u64::from(stream.0));
                put_bytes(out, name.as_bytes());
            }
            StoreRequest::Expire { stream, now } => {
                out.push(EXPIRE);
                varint::put(out, u64::from(stream.0));
                out.extend_from_slice(&now.0.to_le_bytes());
            }
            StoreRequest::Settle { stream, seqs, .. } => {
                out.push(SETTLE);
                varint::put(out, u64::from(stream.0));
                varint::put(out, seqs.len() as u64);
                for seq in seqs.iter() {
                    varint::put(out, *seq);
                }
            }
            _ => return false,
        }
        if out.len() > ENTRY_BYTES_MAX {
            return false;
        }
    }
    true
}

/// Reads what [`encode`] wrote. Replies are wanted by nobody any more.
fn decode(bytes: &[u8]) -> Option<Vec<StoreRequest>> {
    let mut from = Cursor { bytes, at: 0 };
    let mut requests = Vec::new();
    while from.at < bytes.len() {
        let kind = from.take(1)?.first().copied()?;
        requests.push(match kind {
            PUBLISH | PUBLISH_WANTED => {
                let mut batch = PublishBatch::default();
                for _ in 0..from.number()? {
                    let (stream, timestamp) = (from.stream()?, from.time()?);
                    let (subject, headers) = (from.bytes()?, from.bytes()?);
                    let payload = from.bytes()?;
                    if !batch.push(stream, timestamp, subject, b"", headers, payload) {
                        return None;
                    }
                    if kind == PUBLISH_WANTED
                        && let Some(item) = batch.items.last_mut()
                    {
                        let [special] = *from.take(1)? else { return None };
                        take_special(&mut from, special, item)?;
                    }
                }
                StoreRequest::Publish(batch)
            }
            PUT_CONSUMER => {
                let stream = from.stream()?;
                let name = from.text()?;
                let record = from.bytes()?.to_vec();
                let consumer = ConsumerRecord { name, record };
                StoreRequest::PutConsumer { token: None, stream, consumer }
            }
            DELETE_CONSUMER => {
                StoreRequest::DeleteConsumer { stream: from.stream()?, name: from.text()? }
            }
            EXPIRE => StoreRequest::Expire { stream: from.stream()?, now: from.time()? },
            SETTLE => {
                let stream = from.stream()?;
                let count = from.number()?;
                let seqs = (0..count).map(|_| from.number()).collect::<Option<_>>()?;
                StoreRequest::Settle { token: Token(0), stream, seqs }
            }
            _ => return None,
        });
    }
    Some(requests)
}

/// What is special about a message that was published here.
fn put_part(out: &mut Vec<u8>, item: &PublishItem) {
    let unwanted = u8::from(item.unwanted);
    match item.part {
        Part::Alone | Part::Fast(_) => out.push(unwanted),
        Part::Atomic => out.push(ATOMIC + unwanted),
        Part::AtomicLast => out.push(ATOMIC + 2 + unwanted),
        Part::FastStrict(number) => {
            out.push(STRICT + unwanted);
            varint::put(out, u64::from(number));
        }
    }
}

fn take_special(from: &mut Cursor<'_>, special: u8, item: &mut PublishItem) -> Option<()> {
    item.unwanted = matches!(special, 1 | 4 | 6 | 8 | 10);
    match special {
        0 | 1 => {}
        FROM_MIRROR => item.origin = Some(Box::new(Origin::Mirror { seq: from.number()? })),
        FROM_SOURCE | 4 => {
            let (seq, after) = (from.number()?, from.number()?);
            let name = from.text()?.into();
            item.origin = Some(Box::new(Origin::Source { seq, after, name }));
        }
        ATOMIC | 6 => item.part = Part::Atomic,
        7 | 8 => item.part = Part::AtomicLast,
        STRICT | 10 => item.part = Part::FastStrict(u32::try_from(from.number()?).ok()?),
        _ => return None,
    }
    Some(())
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn number(&mut self) -> Option<u64> {
        varint::take(self.bytes, &mut self.at)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let part = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(part)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = self.number()?;
        self.take(usize::try_from(count).ok()?)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    fn stream(&mut self) -> Option<StreamId> {
        Some(StreamId(u32::try_from(self.number()?).ok()?))
    }

    fn time(&mut self) -> Option<Timestamp> {
        Some(Timestamp(i64::from_le_bytes(self.take(8)?.try_into().ok()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jetstream::storage::{Purge, Token};

    fn requests() -> Vec<StoreRequest> {
        let mut batch = PublishBatch::default();
        batch.push(StreamId(7), Timestamp(-2), b"a.b", b"_INBOX.1", b"NATS/1.0\r\n\r\n", b"hello");
        batch.push(StreamId(300), Timestamp(1 << 40), b"c", b"", b"", b"");
        let consumer = ConsumerRecord { name: "c1".into(), record: vec![1, 2, 3] };
        vec![
            StoreRequest::Publish(batch),
            StoreRequest::PutConsumer { token: Some(Token(9)), stream: StreamId(7), consumer },
            StoreRequest::DeleteConsumer { stream: StreamId(7), name: "c2".into() },
            StoreRequest::Expire { stream: StreamId(7), now: Timestamp(5) },
        ]
    }

    #[test]
    fn the_bytes_of_an_entry_are_pinned() {
        let mut entry = vec![0; HEADER];
        assert!(encode(&mut entry, &requests()));
        let length = entry.len();
        seal(&mut entry, length, Mark { generation: 3, count: 2 });
        let hex = data_encoding::HEXLOWER.encode(&entry);
        assert_eq!(
            hex,
            "736a30317432a522030000000000000002000000480000000102\
             07feffffffffffffff03612e620c4e4154532f312e300d0a0d0a0568656c6c6f\
             ac0200000000000100000163000002070263310301020303070263320407\
             0500000000000000"
        );
        assert_eq!(open_entry(&entry), Some((Mark { generation: 3, count: 2 }, length)));
    }

    #[test]
    fn the_parts_of_batches_are_pinned_and_read_back() {
        let parts = [Part::Atomic, Part::AtomicLast, Part::FastStrict(300), Part::Fast(4)];
        let mut batch = PublishBatch::default();
        for part in parts {
            for unwanted in [false, true] {
                batch.push(StreamId(7), Timestamp(1), b"a", b"", b"", b"");
                let item = batch.items.last_mut().unwrap();
                (item.part, item.unwanted) = (part, unwanted);
            }
        }
        let mut bytes = Vec::new();
        assert!(encode(&mut bytes, &[StoreRequest::Publish(batch.clone())]));
        let special: Vec<u8> = bytes[2..].chunks(14).map(|item| item[13]).take(4).collect();
        assert_eq!(special, [5, 6, 7, 8]);
        let requests = decode(&bytes).unwrap();
        let [StoreRequest::Publish(read)] = &requests[..] else { panic!("{requests:?}") };
        for (before, after) in batch.items.iter().zip(&read.items) {
            // Which fast batch it was matters only where it ends.
            let part = if before.part == Part::Fast(4) { Part::Alone } else { before.part };
            assert_eq!((part, before.unwanted), (after.part, after.unwanted));
        }
    }

    #[test]
    fn the_bytes_of_rarer_requests_are_pinned() {
        let mut batch = PublishBatch::default();
        batch.push(StreamId(7), Timestamp(1), b"a", b"", b"", b"x");
        batch.push(StreamId(7), Timestamp(2), b"b", b"", b"", b"");
        batch.items[1].unwanted = true;
        batch.push(StreamId(7), Timestamp(3), b"c", b"", b"", b"");
        batch.items[2].origin = Some(Box::new(Origin::Mirror { seq: 9 }));
        batch.push(StreamId(7), Timestamp(4), b"d", b"", b"", b"");
        let name = "O".into();
        batch.items[3].origin = Some(Box::new(Origin::Source { seq: 9, after: 8, name }));
        let settle =
            StoreRequest::Settle { token: Token(1), stream: StreamId(7), seqs: [3, 300].into() };
        let mut bytes = Vec::new();
        assert!(encode(&mut bytes, &[StoreRequest::Publish(batch), settle]));
        assert_eq!(
            data_encoding::HEXLOWER.encode(&bytes),
            "05040701000000000000000161000178000702000000000000000162000001\
             0703000000000000000163000002090704000000000000000164000003090801\
             4f06070203ac02"
        );
        let mut again = Vec::new();
        assert!(encode(&mut again, &decode(&bytes).unwrap()));
        assert_eq!(bytes, again);
    }

    #[test]
    fn requests_come_back_as_they_were_but_for_replies() {
        let mut bytes = Vec::new();
        assert!(encode(&mut bytes, &requests()));
        let back = decode(&bytes).unwrap();
        let mut again = Vec::new();
        assert!(encode(&mut again, &back));
        assert_eq!(bytes, again);
        for end in 0..bytes.len() {
            if let Some(part) = decode(&bytes[..end]) {
                assert!(part.len() < back.len());
            }
        }
    }

    #[test]
    fn what_is_rare_or_large_goes_into_the_database() {
        let rare =
            StoreRequest::Purge { token: Token(1), stream: StreamId(1), purge: Purge::default() };
        assert!(!encode(&mut Vec::new(), &[rare]));
        let mut batch = PublishBatch::default();
        batch.push(StreamId(1), Timestamp(0), b"a", b"", b"", &vec![0; ENTRY_BYTES_MAX]);
        assert!(!encode(&mut Vec::new(), &[StoreRequest::Publish(batch)]));
    }
}
