//! What is in a backup: entries for the state of the stream, its consumers and its messages.
//!
//! Owns the bytes of an entry, both ways. Does not own the container (`frame`).
//!
//! # Invariants
//! - A reader holds at most one entry that is not complete, and that is bounded.
//!
//! Source: what nats-server 2.15.1 writes and reads, format 2.

use alloc::vec::Vec;

use crate::jetstream::engine::varint;
use crate::jetstream::storage::Seq;
use crate::limits;
use crate::time::Timestamp;

/// Begins an archive.
const MAGIC: &[u8] = b"NATSARC1";
/// The entry of the state.
pub(super) const STATE: &[u8] = b"state.json";
/// Begins the name of a consumer's entry.
pub(super) const CONSUMERS: &[u8] = b"consumers/";

/// An entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    /// The subject of a message, or one of the names above.
    pub(super) name: &'a [u8],
    pub(super) timestamp: Timestamp,
    /// Of a message; 0: it is none.
    pub(super) seq: Seq,
    pub(super) headers: &'a [u8],
    pub(super) payload: &'a [u8],
}

impl Entry<'_> {
    /// Nothing follows it.
    pub(super) fn is_end(&self) -> bool {
        *self == Self::default()
    }
}

/// Begins an archive.
pub(super) fn begin(out: &mut Vec<u8>) {
    out.extend_from_slice(MAGIC);
}

/// Appends an entry; the default one ends the archive.
pub(super) fn write(entry: &Entry<'_>, out: &mut Vec<u8>) {
    varint::put(out, entry.name.len() as u64);
    let time = entry.timestamp.0;
    varint::put(out, (time.cast_unsigned() << 1) ^ (time >> 63).cast_unsigned());
    varint::put(out, entry.seq);
    varint::put(out, entry.headers.len() as u64);
    varint::put(out, entry.payload.len() as u64);
    out.extend_from_slice(entry.name);
    out.extend_from_slice(entry.headers);
    out.extend_from_slice(entry.payload);
}

/// Why an archive cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Takes an archive apart, however it arrives.
#[derive(Debug, Default)]
pub(super) struct Reader {
    held: Vec<u8>,
    begun: bool,
}

impl Reader {
    /// Where content is to be appended.
    pub(super) fn room(&mut self) -> &mut Vec<u8> {
        &mut self.held
    }

    /// The entries that are complete, each with how many bytes it takes; `take` is told one
    /// after the other and returns whether to go on.
    pub(super) fn entries(
        &mut self,
        mut take: impl FnMut(&Entry<'_>) -> bool,
    ) -> Result<(), Malformed> {
        let mut at = 0;
        if !self.begun {
            if !self.held.starts_with(MAGIC) {
                let is_start = MAGIC.starts_with(&self.held);
                return if is_start { Ok(()) } else { Err(Malformed) };
            }
            self.begun = true;
            at = MAGIC.len();
        }
        while let Some((entry, len)) = parse(self.held.get(at..).unwrap_or_default())? {
            at += len;
            if !take(&entry) {
                break;
            }
        }
        self.held.drain(..at);
        Ok(())
    }

    /// Does nothing follow the last entry?
    pub(super) fn is_drained(&self) -> bool {
        self.held.is_empty()
    }
}

/// The entry at the start and its length; `None`: more bytes are needed.
fn parse(bytes: &[u8]) -> Result<Option<(Entry<'_>, usize)>, Malformed> {
    let mut at = 0;
    let mut numbers = [0_u64; 5];
    for number in &mut numbers {
        // No number takes more than ten bytes: then it is not the end that is missing.
        match varint::take(bytes, &mut at) {
            Some(read) => *number = read,
            None if bytes.len() < 5 * 10 => return Ok(None),
            None => return Err(Malformed),
        }
    }
    let [name, time, seq, headers, payload] = numbers;
    let size = |len: u64| match usize::try_from(len) {
        Ok(len) if len <= limits::RESTORE_ENTRY_BYTES_MAX => Ok(len),
        _ => Err(Malformed),
    };
    let (name, headers, payload) = (size(name)?, size(headers)?, size(payload)?);
    size((name + headers + payload) as u64)?;
    let Some((name, rest)) = bytes.get(at..).and_then(|rest| rest.split_at_checked(name)) else {
        return Ok(None);
    };
    let Some((headers, rest)) = rest.split_at_checked(headers) else { return Ok(None) };
    let Some(payload) = rest.get(..payload) else { return Ok(None) };
    let timestamp = Timestamp((time >> 1).cast_signed() ^ -(time & 1).cast_signed());
    let len = at + name.len() + headers.len() + payload.len();
    Ok(Some((Entry { name, timestamp, seq, headers, payload }, len)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_however_they_are_split() {
        let message = Entry {
            name: b"orders.1",
            timestamp: Timestamp(1_700_000_000_000_000_001),
            seq: 300,
            headers: b"NATS/1.0\r\nA: b\r\n\r\n",
            payload: b"hello",
        };
        let before_1970 = Entry { timestamp: Timestamp(-5), seq: 1, name: b"x", ..message };
        let mut bytes = Vec::new();
        begin(&mut bytes);
        for entry in [&message, &before_1970, &Entry::default()] {
            write(entry, &mut bytes);
        }
        for step in [1, 7, bytes.len()] {
            let mut reader = Reader::default();
            let mut found = 0;
            for part in bytes.chunks(step) {
                reader.room().extend_from_slice(part);
                reader
                    .entries(|entry| {
                        let expected = [message, before_1970, Entry::default()];
                        assert_eq!(Some(entry), expected.get(found));
                        found += 1;
                        true
                    })
                    .unwrap();
            }
            assert!(found == 3 && reader.is_drained());
        }
    }

    #[test]
    fn what_is_no_archive_is_refused() {
        let read = |bytes: &[u8]| {
            let mut reader = Reader::default();
            reader.room().extend_from_slice(bytes);
            reader.entries(|_| true)
        };
        assert_eq!(read(b"NATSARC2"), Err(Malformed));
        assert_eq!(read(b"NATS"), Ok(()));
        assert_eq!(read(&[b"NATSARC1", &[0xff; 60][..]].concat()), Err(Malformed));
        let huge = [b"NATSARC1", &[1, 0, 1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f][..]].concat();
        assert_eq!(read(&huge), Err(Malformed), "nobody makes us hold what we never take");
    }
}
