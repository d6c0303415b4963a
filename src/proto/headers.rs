//! Header blocks: `NATS/1.0`, a status, and `Key: value` lines.
//!
//! The server treats a block as opaque bytes; this module looks values up and writes the
//! few blocks the server makes itself.
//!
//! Source: ADR-4 (NATS message headers).

use alloc::vec::Vec;

/// First line of every block.
pub const VERSION: &[u8] = b"NATS/1.0";

/// The value of the first line with this exact name (case-sensitive), leading blanks
/// trimmed. `None` if there is no such line.
pub fn value<'a>(headers: &'a [u8], name: &str) -> Option<&'a [u8]> {
    lines(headers).find_map(|line| {
        let rest = line.strip_prefix(name.as_bytes())?.strip_prefix(b":")?;
        Some(rest.trim_ascii_start())
    })
}

/// The lines after the first, without their ends; stops at the blank line.
pub fn lines(headers: &[u8]) -> impl Iterator<Item = &[u8]> {
    headers
        .split(|&byte| byte == b'\n')
        .skip(1)
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .take_while(|line| !line.is_empty())
}

/// The block with this one line of the name, at its end, instead of all there are in any
/// case. An empty block becomes one.
pub fn with(block: &[u8], name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(block.len() + name.len() + value.len() + 16);
    if block.is_empty() {
        out.extend_from_slice(VERSION);
        out.extend_from_slice(b"\r\n");
    } else {
        let first = memchr::memmem::find(block, b"\r\n").map_or(block.len(), |at| at + 2);
        out.extend_from_slice(block.get(..first).unwrap_or(block));
    }
    for line in lines(block) {
        let is_it = line.split_at_checked(name.len()).is_some_and(|(key, rest)| {
            key.eq_ignore_ascii_case(name.as_bytes())
                && rest.trim_ascii_start().first().is_none_or(|&next| next == b':')
        });
        if !is_it {
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n\r\n");
    out
}

/// Writes a block of a status line, like `100 Idle Heartbeat`, and header lines.
pub fn write_status(out: &mut Vec<u8>, status: &str, lines: &[(&str, &[u8])]) {
    out.extend_from_slice(VERSION);
    if !status.is_empty() {
        out.push(b' ');
        out.extend_from_slice(status.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    for (name, value) in lines {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_a_name_counts_and_case_matters() {
        let block = b"NATS/1.0\r\nA: 1\r\nb:2\r\nA: 3\r\n\r\nC: 4\r\n";
        assert_eq!(value(block, "A"), Some(&b"1"[..]));
        assert_eq!(value(block, "b"), Some(&b"2"[..]));
        assert_eq!(value(block, "B"), None);
        assert_eq!(value(block, "C"), None, "after the blank line");
        assert_eq!(value(b"", "A"), None);
    }

    #[test]
    fn a_status_block_ends_with_a_blank_line() {
        let mut out = Vec::new();
        write_status(&mut out, "503", &[("Nats-Subject", b"a.b")]);
        assert_eq!(out, b"NATS/1.0 503\r\nNats-Subject: a.b\r\n\r\n");
    }
}
