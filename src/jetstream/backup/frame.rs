//! The container of a backup: the framing format of Snappy, with blocks of S2.
//!
//! Owns the chunks, their checksums, and the reading of compressed blocks. Writes every
//! chunk uncompressed: what is stored is mostly small, and a backup costs no processor time.
//! Does not own what is inside (`archive`).
//!
//! # Invariants
//! - Nothing is handed out of a chunk whose checksum does not fit.
//! - A reader holds at most one chunk and what it decodes to, both bounded.
//!
//! Source: the descriptions of the Snappy framing format and of S2's block format.

use alloc::vec::Vec;

/// Most bytes of content in a chunk that any reader takes.
const CHUNK_BYTES: usize = 64 * 1024;
/// Most bytes a chunk may decode to: S2's largest block.
const BLOCK_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most bytes of a chunk: one that does not get smaller by compression.
const ENCODED_BYTES_MAX: usize = BLOCK_BYTES_MAX + BLOCK_BYTES_MAX / 6 + 64;

const IDENTIFIER: u8 = 0xff;
const COMPRESSED: u8 = 0;
const UNCOMPRESSED: u8 = 1;
/// From here on a reader passes over what it does not know.
const SKIPPABLE: u8 = 0x80;
const SNAPPY: &[u8] = b"sNaPpY";
const S2: &[u8] = b"S2sTwO";

/// The bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Corrupt;

/// CRC-32C, mixed as the format wants it.
fn checksum(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut at = 0_u32;
        while at < 256 {
            let mut row = at;
            let mut bit = 0;
            while bit < 8 {
                row = if row & 1 == 1 { row >> 1 ^ 0x82f6_3b78 } else { row >> 1 };
                bit += 1;
            }
            table[at as usize] = row;
            at += 1;
        }
        table
    };
    let crc = !bytes.iter().fold(!0_u32, |crc, &byte| {
        let [low, ..] = crc.to_le_bytes();
        TABLE[usize::from(low ^ byte)] ^ crc >> 8
    });
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

fn chunk_head(out: &mut Vec<u8>, kind: u8, len: usize) {
    let [a, b, c, ..] = u32::try_from(len).unwrap_or(0).to_le_bytes();
    out.extend_from_slice(&[kind, a, b, c]);
}

/// Begins a container.
pub(super) fn begin(out: &mut Vec<u8>) {
    chunk_head(out, IDENTIFIER, SNAPPY.len());
    out.extend_from_slice(SNAPPY);
}

/// Appends content.
pub(super) fn write(content: &[u8], out: &mut Vec<u8>) {
    for part in content.chunks(CHUNK_BYTES) {
        chunk_head(out, UNCOMPRESSED, 4 + part.len());
        out.extend_from_slice(&checksum(part).to_le_bytes());
        out.extend_from_slice(part);
    }
}

/// Takes a container apart, however it arrives.
#[derive(Debug, Default)]
pub(super) struct Reader {
    held: Vec<u8>,
    /// Of a chunk that is passed over.
    skip: usize,
    begun: bool,
}

impl Reader {
    /// Takes bytes off the front and appends the content of the first chunk that is
    /// complete with them. False: there is none, and no byte left.
    pub(super) fn feed(&mut self, bytes: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, Corrupt> {
        loop {
            let (_, rest) = bytes.split_at(self.skip.min(bytes.len()));
            self.skip -= bytes.len() - rest.len();
            *bytes = rest;
            // A head first, then as much as it announces.
            let wanted = match self.head()? {
                None => 4,
                Some((_, len)) => 4 + len,
            };
            let (now, rest) = bytes.split_at((wanted - self.held.len()).min(bytes.len()));
            self.held.extend_from_slice(now);
            *bytes = rest;
            match self.head()? {
                Some((kind, len)) if kind >= SKIPPABLE && kind != IDENTIFIER => {
                    self.skip = len;
                    self.held.clear();
                }
                Some((kind, len)) if self.held.len() == 4 + len => {
                    self.chunk(kind, out)?;
                    self.held.clear();
                    return Ok(true);
                }
                _ if bytes.is_empty() => return Ok(false),
                _ => {}
            }
        }
    }

    /// Does it end where a chunk does?
    pub(super) fn is_complete(&self) -> bool {
        self.begun && self.held.is_empty() && self.skip == 0
    }

    /// Kind and length of the chunk at hand.
    fn head(&self) -> Result<Option<(u8, usize)>, Corrupt> {
        let Some(&[kind, a, b, c]) = self.held.first_chunk::<4>() else { return Ok(None) };
        let len = usize::try_from(u32::from_le_bytes([a, b, c, 0])).map_err(|_| Corrupt)?;
        let most = if kind == IDENTIFIER { SNAPPY.len() } else { ENCODED_BYTES_MAX };
        let is_held = kind < SKIPPABLE || kind == IDENTIFIER;
        if !self.begun && kind != IDENTIFIER || is_held && len > most {
            return Err(Corrupt);
        }
        Ok(Some((kind, len)))
    }

    fn chunk(&mut self, kind: u8, out: &mut Vec<u8>) -> Result<(), Corrupt> {
        let body = self.held.get(4..).unwrap_or_default();
        if kind == IDENTIFIER {
            self.begun = true;
            return if body == SNAPPY || body == S2 { Ok(()) } else { Err(Corrupt) };
        }
        let (sum, body) = body.split_first_chunk::<4>().ok_or(Corrupt)?;
        let start = out.len();
        match kind {
            UNCOMPRESSED => out.extend_from_slice(body),
            COMPRESSED => decode(body, out)?,
            _ => return Err(Corrupt),
        }
        let content = out.get(start..).unwrap_or_default();
        if checksum(content) == u32::from_le_bytes(*sum) { Ok(()) } else { Err(Corrupt) }
    }
}

/// Little-endian, `len` bytes.
fn number(block: &mut &[u8], len: usize) -> Result<usize, Corrupt> {
    let (bytes, rest) = block.split_at_checked(len).ok_or(Corrupt)?;
    *block = rest;
    Ok(bytes.iter().rev().fold(0, |sum, &byte| sum << 8 | usize::from(byte)))
}

/// Appends what a block stands for.
fn decode(block: &[u8], out: &mut Vec<u8>) -> Result<(), Corrupt> {
    let mut at = 0;
    let len = crate::jetstream::engine::varint::take(block, &mut at).ok_or(Corrupt)?;
    let len = usize::try_from(len).map_err(|_| Corrupt)?;
    if len > BLOCK_BYTES_MAX {
        return Err(Corrupt);
    }
    let mut block = block.get(at..).unwrap_or_default();
    let start = out.len();
    let end = start + len;
    out.reserve(len);
    let mut offset = 0;
    while let Some((&tag, rest)) = block.split_first() {
        block = rest;
        let high = usize::from(tag >> 2);
        let count = match tag & 3 {
            0 => {
                let count = match high {
                    0..60 => high,
                    _ => number(&mut block, high - 59)?,
                };
                let count = count.checked_add(1).ok_or(Corrupt)?;
                let (literal, rest) = block.split_at_checked(count).ok_or(Corrupt)?;
                block = rest;
                if count > end - out.len() {
                    return Err(Corrupt);
                }
                out.extend_from_slice(literal);
                continue;
            }
            1 => {
                let low = number(&mut block, 1)?;
                let count = high & 7;
                let far = usize::from(tag >> 5) << 8 | low;
                if far == 0 {
                    // S2: the offset of the copy before, and longer lengths.
                    match count {
                        0..5 => count + 4,
                        5 => 8 + number(&mut block, 1)?,
                        6 => 260 + number(&mut block, 2)?,
                        _ => 65_540 + number(&mut block, 3)?,
                    }
                } else {
                    offset = far;
                    count + 4
                }
            }
            2 => {
                offset = number(&mut block, 2)?;
                high + 1
            }
            _ => {
                offset = number(&mut block, 4)?;
                high + 1
            }
        };
        if offset == 0 || offset > out.len() - start || count > end - out.len() {
            return Err(Corrupt);
        }
        // What is copied may reach into itself.
        let mut left = count;
        while left > 0 {
            let from = out.len() - offset;
            let step = left.min(offset);
            out.extend_from_within(from..from + step);
            left -= step;
        }
    }
    if out.len() == end { Ok(()) } else { Err(Corrupt) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], step: usize) -> Result<Vec<u8>, Corrupt> {
        let mut reader = Reader::default();
        let mut out = Vec::new();
        for mut part in bytes.chunks(step) {
            while reader.feed(&mut part, &mut out)? {}
        }
        if reader.is_complete() { Ok(out) } else { Err(Corrupt) }
    }

    #[test]
    fn content_comes_back_however_it_is_split() {
        let content: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let mut bytes = Vec::new();
        begin(&mut bytes);
        write(&content, &mut bytes);
        for step in [1, 3, 4096, bytes.len()] {
            assert_eq!(read(&bytes, step), Ok(content.clone()), "{step}");
        }
        assert_eq!(read(&bytes[..bytes.len() - 1], 4096), Err(Corrupt));
        bytes[100] ^= 1;
        assert_eq!(read(&bytes, 4096), Err(Corrupt));
    }

    #[test]
    fn the_checksum_is_the_published_one() {
        // CRC-32C of "123456789" is e3069283.
        let expected = 0xe306_9283_u32.rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(checksum(b"123456789"), expected);
    }

    #[test]
    fn copies_and_repeats_are_carried_out() {
        let decoded = |block: &[u8]| {
            let mut out = Vec::new();
            decode(block, &mut out).map(|()| out)
        };
        // "ab", then 6 bytes from 2 back.
        assert_eq!(decoded(&[8, 1 << 2, b'a', b'b', 2 << 2 | 1, 2]), Ok(b"abababab".to_vec()));
        // The same offset again, 4 bytes; then 8 more by the longer form.
        let block = [20, 1 << 2, b'a', b'b', 2 << 2 | 1, 2, 1, 0, 5 << 2 | 1, 0, 0];
        assert_eq!(decoded(&block), Ok(b"ab".repeat(10)));
        for bad in [
            &[8, 1 << 2, b'a', b'b', 2 << 2 | 1, 3][..],
            &[8, 1 << 2, b'a'],
            &[4, 1, 0],
            &[1, 1 << 2, b'a', b'b'],
            &[3, 1 << 2, b'a', b'b'],
            &[0xff, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert_eq!(decoded(bad), Err(Corrupt), "{bad:?}");
        }
    }

    #[test]
    fn rubbish_is_refused_at_once() {
        assert_eq!(read(b"garbage", 7), Err(Corrupt));
        assert_eq!(read(&[0xff, 6, 0, 0, b'n', b'o', b'n', b'o', b'n', b'o'], 99), Err(Corrupt));
        let mut bytes = Vec::new();
        begin(&mut bytes);
        bytes.extend_from_slice(&[0xfe, 3, 0, 0, 1, 2, 3]);
        assert_eq!(read(&bytes, 2), Ok(Vec::new()), "padding is passed over");
        bytes.extend_from_slice(&[2, 1, 0, 0, 1]);
        assert_eq!(read(&bytes, 2), Err(Corrupt), "what must be understood is not");
    }
}
