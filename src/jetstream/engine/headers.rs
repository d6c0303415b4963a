//! The headers of a publish that the store must obey.
//!
//! Owns finding them, and the form in which a header block is stored. Does not own what
//! follows from their values ([`super::publish`]).
//!
//! # Invariants
//! - Names are compared case-sensitively, the first occurrence wins, spaces before a value
//!   are skipped: as nats-server does it.
//!
//! Source: NATS docs, "Headers for publishing"; nats-server 2.15.1.

use alloc::borrow::Cow;
use alloc::vec::Vec;

const VERSION: &[u8] = b"NATS/1.0";

/// What a publish asks for, borrowed from its header block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes<'a> {
    pub msg_id: Option<&'a [u8]>,
    pub expected_stream: Option<&'a [u8]>,
    pub expected_last_seq: Option<&'a [u8]>,
    pub expected_last_subject_seq: Option<&'a [u8]>,
    pub expected_last_subject_seq_subject: Option<&'a [u8]>,
    pub expected_last_msg_id: Option<&'a [u8]>,
    pub rollup: Option<&'a [u8]>,
    pub ttl: Option<&'a [u8]>,
    pub incr: Option<&'a [u8]>,
    pub stream_source: Option<&'a [u8]>,
    /// It says something about schedules.
    pub schedules: bool,
    /// The whole block.
    pub block: &'a [u8],
}

impl<'a> Wishes<'a> {
    pub(super) fn parse(block: &'a [u8]) -> Self {
        let mut wishes = Self { block, ..Self::default() };
        for (name, value) in fields(block) {
            let Some(name) = name.strip_prefix(b"Nats-") else { continue };
            let place = match name {
                b"Msg-Id" => &mut wishes.msg_id,
                b"Expected-Stream" => &mut wishes.expected_stream,
                b"Expected-Last-Sequence" => &mut wishes.expected_last_seq,
                b"Expected-Last-Subject-Sequence" => &mut wishes.expected_last_subject_seq,
                b"Expected-Last-Subject-Sequence-Subject" => {
                    &mut wishes.expected_last_subject_seq_subject
                }
                b"Expected-Last-Msg-Id" => &mut wishes.expected_last_msg_id,
                b"Rollup" => &mut wishes.rollup,
                b"TTL" => &mut wishes.ttl,
                b"Incr" => &mut wishes.incr,
                b"Stream-Source" => &mut wishes.stream_source,
                _ => {
                    wishes.schedules |= name.starts_with(b"Schedule");
                    continue;
                }
            };
            place.get_or_insert(value);
        }
        wishes
    }
}

/// The lines after the status line, up to the blank one, as name and value.
fn fields(block: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = block.get(after_line(block)..).unwrap_or(&[]);
    core::iter::from_fn(move || {
        loop {
            if rest.is_empty() {
                return None;
            }
            let end = after_line(rest);
            let line = rest.get(..end).unwrap_or(&[]);
            rest = rest.get(end..).unwrap_or(&[]);
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                return None;
            }
            let Some(colon) = memchr::memchr(b':', line) else { continue };
            let (name, value) = line.split_at(colon);
            let value = value.get(1..).unwrap_or(&[]);
            let skip = value.iter().take_while(|byte| **byte == b' ').count();
            return Some((name, value.get(skip..).unwrap_or(&[])));
        }
    })
}

fn after_line(bytes: &[u8]) -> usize {
    memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1)
}

/// What a message says of its end: that there is none, and that nothing takes its place.
pub(super) fn at_the_end(block: &[u8]) -> (bool, bool) {
    let (mut stays, mut unmarked) = (false, false);
    for (name, value) in fields(block) {
        match name {
            b"Nats-TTL" => stays |= value.eq_ignore_ascii_case(b"never"),
            b"Nats-Marker-Reason" => unmarked = true,
            b"KV-Operation" => unmarked |= value == b"PURGE",
            _ => {}
        }
    }
    (stays, unmarked)
}

/// A header block with one field set anew, at its end.
pub(super) fn with_field(block: &[u8], name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = VERSION.to_vec();
    out.extend_from_slice(b"\r\n");
    for (other, value) in fields(block).filter(|(other, _)| *other != name) {
        put_field(&mut out, other, value);
    }
    put_field(&mut out, name, value);
    out.extend_from_slice(b"\r\n");
    out
}

pub(super) fn put_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// The form in which a header block is stored: a status after `NATS/1.0` cut off, and
/// nothing at all if there are no fields.
pub fn stored_headers(block: &[u8]) -> Cow<'_, [u8]> {
    let (first, rest) = block.split_at(after_line(block));
    let rest_is_empty = matches!(rest, b"" | b"\r\n");
    if block.is_empty() || rest_is_empty {
        return Cow::Borrowed(&[]);
    }
    if first == b"NATS/1.0\r\n" {
        return Cow::Borrowed(block);
    }
    let mut cut = VERSION.to_vec();
    cut.extend_from_slice(b"\r\n");
    cut.extend_from_slice(rest);
    Cow::Owned(cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_several_counts_and_case_matters() {
        let wishes = Wishes::parse(
            b"NATS/1.0\r\nnats-msg-id: no\r\nNats-Msg-Id:   one\r\nNats-Msg-Id: two\r\n\
              Nats-Rollup:sub\r\n\r\nNats-TTL: 1s\r\n",
        );
        assert_eq!(wishes.msg_id, Some(&b"one"[..]));
        assert_eq!(wishes.rollup, Some(&b"sub"[..]));
        assert_eq!(wishes.ttl, None);
    }

    #[test]
    fn a_status_is_cut_and_an_empty_block_dropped() {
        let full = b"NATS/1.0\r\nA: b\r\n\r\n";
        assert_eq!(&*stored_headers(b"NATS/1.0 100 Foo\r\nA: b\r\n\r\n"), full);
        assert_eq!(&*stored_headers(full), full);
        for empty in [&b""[..], b"NATS/1.0\r\n\r\n", b"NATS/1.0 503\r\n\r\n", b"NATS/1.0"] {
            assert_eq!(&*stored_headers(empty), b"");
        }
    }
}
