//! Blocks: many messages of one stream in one row.
//!
//! Owns the bytes of a block, see `docs/storage-format.md`, and the sizes blocks should
//! have. Does not own which messages share a block ([`super::tail`]).
//!
//! # Invariants
//! - Sequences rise and times do not fall within a block; all sequences are at or above the
//!   one in its key.
//! - Nothing is handed out of a block whose checksum does not fit.
//! - Reading never panics, whatever the bytes.

use alloc::vec::Vec;
use core::hash::BuildHasher;
use core::ops::Range;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::varint;
use crate::jetstream::storage::Seq;
use crate::time::Timestamp;

/// The first byte of each block.
const VERSION: u8 = 1;
/// Version, checksum, number of messages, time of the first.
pub(super) const HEADER_BYTES: usize = 1 + 4 + 2 + 8;

/// redb puts a value into pages of 4 KiB times a power of two, together with the page's
/// header (4), the ends of key and value (8) and the key (12).
const PAGE_OVERHEAD: usize = 4 + 8 + 12;
const PAGE_BYTES: usize = 4096;
/// The largest block of many messages; one message alone may need more.
pub(super) const BLOCK_BYTES_MAX: usize = (PAGE_BYTES << 4) - PAGE_OVERHEAD;
/// Tail and head of a stream, with their keys and ends, share one page.
pub(super) const TAIL_BYTES_MAX: usize = PAGE_BYTES - 4 - 2 * (8 + 6) - 8 - 96;

/// The most bytes that fill `order`-sized pages exactly, for the highest order that `len`
/// bytes fill; `len` itself when they fill none.
pub(super) fn full_block(len: usize) -> usize {
    let mut size = BLOCK_BYTES_MAX;
    let mut pages = PAGE_BYTES << 4;
    while pages > PAGE_BYTES && size > len {
        pages /= 2;
        size = pages - PAGE_OVERHEAD;
    }
    size
}

/// Bytes of file that a block of `len` bytes takes.
pub(super) fn page_bytes(len: usize) -> usize {
    (len + PAGE_OVERHEAD).next_power_of_two().max(PAGE_BYTES)
}

const NEW_SUBJECT: u8 = 1;
const SAME_SUBJECT: u8 = 2;
const HAS_HEADERS: u8 = 4;
const GAP: u8 = 8;
const FLAGS: u8 = NEW_SUBJECT | SAME_SUBJECT | HAS_HEADERS | GAP;

/// The block cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damaged;

/// One message, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Msg<'a> {
    pub seq: Seq,
    pub timestamp: Timestamp,
    pub subject: &'a [u8],
    pub headers: &'a [u8],
    pub payload: &'a [u8],
}

/// Makes a block.
#[derive(Clone, Debug)]
pub(super) struct Builder {
    bytes: Vec<u8>,
    key: Seq,
    next_seq: Seq,
    last_ts: i64,
    count: u16,
    /// Where each subject's text is, in order of first appearance.
    subjects: Vec<Range<usize>>,
    by_text: HashTable<u32>,
    last_subject: usize,
}

fn hash(text: &[u8]) -> u64 {
    // The table lives as long as one block and holds what fits in it, so a flood of chosen
    // collisions costs at most one block's worth of comparisons.
    FixedState::default().hash_one(text)
}

impl Builder {
    /// An empty block whose key will hold `key`.
    pub(super) fn new(key: Seq) -> Self {
        Self {
            bytes: Vec::new(),
            key,
            next_seq: key,
            last_ts: 0,
            count: 0,
            subjects: Vec::new(),
            by_text: HashTable::new(),
            last_subject: usize::MAX,
        }
    }

    pub(super) fn clear(&mut self, key: Seq) {
        self.bytes.clear();
        self.key = key;
        self.next_seq = key;
        self.count = 0;
        self.subjects.clear();
        self.by_text.clear();
        self.last_subject = usize::MAX;
    }

    pub(super) fn key(&self) -> Seq {
        self.key
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    fn subject_index(&self, subject: &[u8], hash: u64) -> Option<usize> {
        let same = |index: &u32| {
            usize::try_from(*index)
                .ok()
                .and_then(|index| self.subjects.get(index))
                .is_some_and(|range| self.bytes.get(range.clone()) == Some(subject))
        };
        self.by_text.find(hash, same).and_then(|index| usize::try_from(*index).ok())
    }

    /// Appends a message unless the block would grow over `limit` bytes; the first always
    /// fits. Sequences must rise and times must not fall.
    pub(super) fn push(&mut self, msg: &Msg<'_>, limit: usize) -> bool {
        let first = self.count == 0;
        let mut flags = 0;
        let gap = msg.seq.saturating_sub(self.next_seq);
        if gap > 0 {
            flags |= GAP;
        }
        if !msg.headers.is_empty() {
            flags |= HAS_HEADERS;
        }
        let (mut index, mut text_hash) = (0, 0);
        let last = self.subjects.get(self.last_subject).and_then(|r| self.bytes.get(r.clone()));
        if last == Some(msg.subject) {
            flags |= SAME_SUBJECT;
            index = self.last_subject;
        } else {
            text_hash = hash(msg.subject);
            match self.subject_index(msg.subject, text_hash) {
                Some(known) => index = known,
                None => flags |= NEW_SUBJECT,
            }
        }
        let delta = if first {
            0
        } else {
            u64::try_from(msg.timestamp.0.saturating_sub(self.last_ts)).unwrap_or(0)
        };
        if !first {
            let mut size = 1 + varint::len(delta) + msg.headers.len() + msg.payload.len();
            size += varint::len(msg.payload.len() as u64);
            if gap > 0 {
                size += varint::len(gap);
            }
            if flags & NEW_SUBJECT != 0 {
                size += varint::len(msg.subject.len() as u64) + msg.subject.len();
            } else if flags & SAME_SUBJECT == 0 {
                size += varint::len(index as u64);
            }
            if flags & HAS_HEADERS != 0 {
                size += varint::len(msg.headers.len() as u64);
            }
            if self.bytes.len() + size > limit || self.count == u16::MAX {
                return false;
            }
        }
        if first {
            self.bytes.push(VERSION);
            self.bytes.extend_from_slice(&[0; 6]);
            self.bytes.extend_from_slice(&msg.timestamp.0.to_le_bytes());
        }
        self.bytes.push(flags);
        if gap > 0 {
            varint::put(&mut self.bytes, gap);
        }
        varint::put(&mut self.bytes, delta);
        if flags & NEW_SUBJECT != 0 {
            varint::put(&mut self.bytes, msg.subject.len() as u64);
            index = self.subjects.len();
            let start = self.bytes.len();
            self.bytes.extend_from_slice(msg.subject);
            self.subjects.push(start..self.bytes.len());
            let Self { bytes, subjects, by_text, .. } = self;
            by_text.insert_unique(text_hash, u32::try_from(index).unwrap_or(u32::MAX), |index| {
                let range = usize::try_from(*index).ok().and_then(|i| subjects.get(i));
                hash(range.and_then(|r| bytes.get(r.clone())).unwrap_or(&[]))
            });
        } else if flags & SAME_SUBJECT == 0 {
            varint::put(&mut self.bytes, index as u64);
        }
        if flags & HAS_HEADERS != 0 {
            varint::put(&mut self.bytes, msg.headers.len() as u64);
        }
        varint::put(&mut self.bytes, msg.payload.len() as u64);
        self.bytes.extend_from_slice(msg.headers);
        self.bytes.extend_from_slice(msg.payload);
        self.last_subject = index;
        self.last_ts = if first { msg.timestamp.0 } else { self.last_ts.max(msg.timestamp.0) };
        self.next_seq = msg.seq.saturating_add(1);
        self.count += 1;
        true
    }

    /// The finished block; more can be appended, and finished, later.
    pub(super) fn finish(&mut self) -> &[u8] {
        if let Some(count) = self.bytes.get_mut(5..7) {
            count.copy_from_slice(&self.count.to_le_bytes());
        }
        let sum = checksum(self.key, self.bytes.get(5..).unwrap_or(&[]));
        if let Some(place) = self.bytes.get_mut(1..5) {
            place.copy_from_slice(&sum.to_le_bytes());
        }
        &self.bytes
    }
}

/// CRC-32 over the sequence in the key, so that a block under a wrong key is found out too,
/// and all of the block behind the checksum.
fn checksum(key: Seq, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&key.to_be_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// Where a message lies in its block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub seq: Seq,
    pub timestamp: Timestamp,
    /// Which of the block's distinct subjects.
    pub subject_index: usize,
    pub subject: Range<usize>,
    pub headers: Range<usize>,
    pub payload: Range<usize>,
    /// Bytes it takes in the block.
    pub encoded: usize,
}

impl Entry {
    /// The message itself, out of the bytes it was found in.
    pub(super) fn msg<'a>(&self, bytes: &'a [u8]) -> Msg<'a> {
        let part = |range: &Range<usize>| bytes.get(range.clone()).unwrap_or(&[]);
        Msg {
            seq: self.seq,
            timestamp: self.timestamp,
            subject: part(&self.subject),
            headers: part(&self.headers),
            payload: part(&self.payload),
        }
    }
}

/// Walks through a block that someone else holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Cursor {
    at: usize,
    left: u16,
    next_seq: Seq,
    last_ts: i64,
    subjects: Vec<Range<usize>>,
    last_subject: usize,
}

impl Cursor {
    /// Checks the whole block and stands before its first message.
    pub(super) fn open(key: Seq, bytes: &[u8]) -> Result<Self, Damaged> {
        let rest = bytes.get(5..).ok_or(Damaged)?;
        let sum = u32::from_le_bytes(fixed(bytes, 1)?);
        if bytes.first() != Some(&VERSION) || checksum(key, rest) != sum {
            return Err(Damaged);
        }
        Ok(Self {
            at: HEADER_BYTES,
            left: u16::from_le_bytes(fixed(bytes, 5)?),
            next_seq: key,
            last_ts: i64::from_le_bytes(fixed(bytes, 7)?),
            subjects: Vec::new(),
            last_subject: 0,
        })
    }

    /// The highest sequence looked at so far.
    pub(super) fn passed(&self) -> Seq {
        self.next_seq.saturating_sub(1)
    }

    /// The next message. `bytes` must be those given to [`Cursor::open`].
    pub(super) fn next(&mut self, bytes: &[u8]) -> Result<Option<Entry>, Damaged> {
        if self.left == 0 {
            return Ok(None);
        }
        let start = self.at;
        let at = &mut self.at;
        let number = |at: &mut usize| varint::take(bytes, at).ok_or(Damaged);
        let span = |at: &mut usize, len: u64| {
            let start = *at;
            let end = usize::try_from(len).ok().and_then(|len| start.checked_add(len));
            let end = end.filter(|end| *end <= bytes.len()).ok_or(Damaged)?;
            *at = end;
            Ok(start..end)
        };
        let flags = *bytes.get(*at).ok_or(Damaged)?;
        *at += 1;
        if flags & !FLAGS != 0 {
            return Err(Damaged);
        }
        let gap = if flags & GAP != 0 { number(at)? } else { 0 };
        let seq = self.next_seq.checked_add(gap).ok_or(Damaged)?;
        let delta = i64::try_from(number(at)?).map_err(|_| Damaged)?;
        let timestamp = self.last_ts.checked_add(delta).ok_or(Damaged)?;
        if flags & NEW_SUBJECT != 0 {
            let len = number(at)?;
            self.last_subject = self.subjects.len();
            self.subjects.push(span(at, len)?);
        } else if flags & SAME_SUBJECT == 0 {
            self.last_subject = usize::try_from(number(at)?).map_err(|_| Damaged)?;
        }
        let subject = self.subjects.get(self.last_subject).cloned().ok_or(Damaged)?;
        let headers_len = if flags & HAS_HEADERS != 0 { number(at)? } else { 0 };
        let payload_len = number(at)?;
        let headers = span(at, headers_len)?;
        let payload = span(at, payload_len)?;
        self.left -= 1;
        self.next_seq = seq.checked_add(1).ok_or(Damaged)?;
        self.last_ts = timestamp;
        Ok(Some(Entry {
            seq,
            timestamp: Timestamp(timestamp),
            subject_index: self.last_subject,
            subject,
            headers,
            payload,
            encoded: self.at - start,
        }))
    }
}

/// The number of messages in a block and the time of its first, unchecked: good for finding
/// one's way, not for handing out.
pub(super) fn peek(bytes: &[u8]) -> Option<(u16, Timestamp)> {
    let count = u16::from_le_bytes(fixed(bytes, 5).ok()?);
    Some((count, Timestamp(i64::from_le_bytes(fixed(bytes, 7).ok()?))))
}

fn fixed<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Damaged> {
    bytes.get(at..at + N).and_then(|part| part.try_into().ok()).ok_or(Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn msg(seq: Seq, at: i64, subject: &'static str, payload: &'static str) -> Msg<'static> {
        Msg {
            seq,
            timestamp: Timestamp(at),
            subject: subject.as_bytes(),
            headers: b"",
            payload: payload.as_bytes(),
        }
    }

    fn read(key: Seq, bytes: &[u8]) -> Result<Vec<Entry>, Damaged> {
        let mut cursor = Cursor::open(key, bytes)?;
        let mut entries = Vec::new();
        while let Some(entry) = cursor.next(bytes)? {
            entries.push(entry);
        }
        Ok(entries)
    }

    fn sample() -> (Vec<Msg<'static>>, Vec<u8>) {
        let mut msgs = alloc::vec![
            msg(7, 1_000_000, "a.b", "one"),
            msg(8, 1_000_300, "a.b", "two"),
            msg(12, 1_000_300, "c", ""),
            msg(13, 2_000_000, "a.b", "x"),
        ];
        msgs[3].headers = b"NATS/1.0\r\nA: b\r\n\r\n";
        let mut builder = Builder::new(7);
        for msg in &msgs {
            assert!(builder.push(msg, usize::MAX));
        }
        (msgs, builder.finish().to_vec())
    }

    #[test]
    fn messages_survive_with_gaps_headers_and_shared_subjects() {
        let (msgs, bytes) = sample();
        let found: Vec<_> = read(7, &bytes).unwrap();
        let found: Vec<_> = found.iter().map(|entry| entry.msg(&bytes)).collect();
        assert_eq!(found, msgs);
    }

    #[test]
    fn the_bytes_of_a_block_are_those_of_the_format_document() {
        let (_, bytes) = sample();
        let mut expected = alloc::vec![1];
        expected.extend_from_slice(&bytes[1..5]);
        expected.extend_from_slice(&[4, 0, 0x40, 0x42, 0x0f, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(b"\x01\x00\x03a.b\x03one");
        expected.extend_from_slice(b"\x02\xac\x02\x03two");
        expected.extend_from_slice(b"\x09\x03\x00\x01c\x00");
        expected.extend_from_slice(b"\x04\x94\x82\x3d\x00\x12\x01NATS/1.0\r\nA: b\r\n\r\nx");
        assert_eq!(bytes, expected);
        let sum = crc32fast::hash(&[&7_u64.to_be_bytes()[..], &bytes[5..]].concat());
        assert_eq!(bytes[1..5], sum.to_le_bytes());
    }

    #[test]
    fn any_changed_or_missing_byte_is_noticed() {
        let (_, bytes) = sample();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x40;
            assert_eq!(read(7, &bad), Err(Damaged), "byte {at}");
            assert_eq!(read(7, &bytes[..at]), Err(Damaged), "cut at {at}");
        }
        assert_eq!(read(8, &bytes), Err(Damaged), "under another key");
    }

    #[test]
    fn a_block_with_a_right_checksum_over_rubbish_does_not_panic() {
        let mut rng = crate::id::Rng::new(1);
        for _ in 0..2_000 {
            let mut bytes = alloc::vec![0; rng.index(80) + 16];
            rng.fill(&mut bytes);
            bytes[0] = VERSION;
            bytes[15] &= FLAGS;
            let sum = checksum(3, &bytes[5..]);
            bytes[1..5].copy_from_slice(&sum.to_le_bytes());
            let _ = read(3, &bytes);
        }
    }

    #[test]
    fn blocks_fill_pages_exactly() {
        assert_eq!(full_block(1 << 20), 65_536 - 24);
        assert_eq!(full_block(65_536 - 24), 65_536 - 24);
        assert_eq!(full_block(65_536 - 25), 32_768 - 24);
        assert_eq!(full_block(9_000), 8_192 - 24);
        assert_eq!(full_block(10), 4_096 - 24);
        assert_eq!(page_bytes(65_536 - 24), 65_536);
        assert_eq!(page_bytes(65_536 - 23), 131_072);
    }
}
