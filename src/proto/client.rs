//! Client operations: parsing what a client sends, writing what it gets.
//!
//! [`parse`] looks at the front of a buffer and gives one operation that borrows from it,
//! or says that more bytes are needed. It keeps no state: the caller keeps the bytes of an
//! unfinished operation and calls again with more behind them.
//!
//! # Invariants
//! - The same bytes give the same operations wherever they were split.
//! - [`Parsed::Incomplete`] is given only while some continuation could still be valid.
//!
//! Source: NATS docs, "Client protocol"; the malformed cases as nats-server 2.15.1 treats
//! them.

use alloc::vec::Vec;

/// One operation of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientOp<'a> {
    /// `CONNECT {json}`.
    Connect(&'a [u8]),
    /// `PUB` or `HPUB`.
    Pub {
        /// As sent, not validated.
        subject: &'a [u8],
        /// Empty: none.
        reply: &'a [u8],
        /// Whole header block; empty for `PUB`.
        headers: &'a [u8],
        /// Without headers.
        payload: &'a [u8],
    },
    /// `SUB subject [queue] sid`.
    Sub {
        /// As sent, not validated.
        subject: &'a [u8],
        /// Empty: none.
        queue: &'a [u8],
        /// Any token.
        sid: &'a [u8],
    },
    /// `UNSUB sid [max]`; a `max` that is no number or 0 is `None`.
    Unsub {
        /// Any token.
        sid: &'a [u8],
        /// Total deliveries after which the subscription ends.
        max: Option<u64>,
    },
    /// `PING`.
    Ping,
    /// `PONG`.
    Pong,
    /// `+OK` or `INFO`: accepted and ignored.
    Ignored,
    /// `-ERR text`: the client gives up.
    Err(&'a [u8]),
}

/// The front of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// An operation, and how many bytes it took.
    Op(ClientOp<'a>, usize),
    /// Not a whole operation yet. `need` is the length the buffer must have for it, when
    /// the control line already tells, else 0: up to the next line end.
    Incomplete {
        /// Bytes from the start of the buffer, or 0.
        need: usize,
    },
}

/// Malformed input; the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// `-ERR 'Unknown Protocol Operation'`.
    UnknownOperation,
    /// Closed without a word: wrong number of arguments or a bad size.
    BadArguments,
    /// `-ERR 'maximum control line exceeded'`.
    ControlLineTooLong,
    /// `-ERR 'Maximum Payload Violation'`.
    PayloadTooLarge,
}

/// What bounds an operation.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Argument text, in bytes.
    pub control_line: usize,
    /// Headers and payload, in bytes.
    pub payload: usize,
    /// Was `headers:true` negotiated?
    pub headers: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Connect,
    Pub,
    HPub,
    Sub,
    Unsub,
    Ping,
    Pong,
    Ok,
    Err,
    Info,
}

const VERBS: [(&[u8], Verb); 10] = [
    (b"PUB", Verb::Pub),
    (b"HPUB", Verb::HPub),
    (b"SUB", Verb::Sub),
    (b"UNSUB", Verb::Unsub),
    (b"PING", Verb::Ping),
    (b"PONG", Verb::Pong),
    (b"CONNECT", Verb::Connect),
    (b"+OK", Verb::Ok),
    (b"-ERR", Verb::Err),
    (b"INFO", Verb::Info),
];

/// Reads one operation from the front of `buf`.
#[inline]
pub fn parse<'a>(buf: &'a [u8], bounds: &Bounds) -> Result<Parsed<'a>, ParseError> {
    if let Some(parsed) = parse_plain_pub(buf, bounds) {
        return Ok(parsed);
    }
    parse_any(buf, bounds)
}

/// The operation that makes up nearly all traffic, when it is all there and written the
/// usual way: `PUB`, single blanks, `\r\n`. Whatever else it is, [`parse_any`] judges.
#[inline]
fn parse_plain_pub<'a>(buf: &'a [u8], bounds: &Bounds) -> Option<Parsed<'a>> {
    let rest = buf.strip_prefix(b"PUB ")?;
    let line_len = memchr::memchr(b'\r', rest)?;
    let line = rest.get(..line_len)?;
    if line.len() > bounds.control_line {
        return None;
    }
    // The size first, backwards: it is short.
    let last = line.iter().rposition(|byte| !byte.is_ascii_digit())?;
    let (subject, total) = (line.get(..last)?, line.get(last + 1..)?);
    if line.get(last) != Some(&b' ') {
        return None;
    }
    // What is left has one blank if there is a reply subject; an empty subject or reply means
    // doubled blanks.
    let (subject, reply) = match find_blank(subject) {
        None => (subject, &[][..]),
        Some(first) => {
            let reply = subject.get(first + 1..)?;
            if subject.get(first) != Some(&b' ') || reply.is_empty() || find_blank(reply).is_some()
            {
                return None;
            }
            (subject.get(..first)?, reply)
        }
    };
    if subject.is_empty() {
        return None;
    }
    let total = size(total)?;
    if total > bounds.payload {
        return None;
    }
    let body = rest.get(line_len..)?.strip_prefix(b"\r\n")?;
    let payload = body.get(..total)?;
    if body.get(total..total + 2)? != b"\r\n" {
        return None;
    }
    let used = b"PUB ".len() + line_len + 2 + total + 2;
    Some(Parsed::Op(ClientOp::Pub { subject, reply, headers: &[], payload }, used))
}

/// Of what is mostly shorter than what a vector search needs to be worth its call.
#[inline]
fn find_blank(text: &[u8]) -> Option<usize> {
    if text.len() < 32 {
        text.iter().position(|byte| matches!(byte, b' ' | b'\t' | b'\n'))
    } else {
        memchr::memchr3(b' ', b'\t', b'\n', text)
    }
}

fn parse_any<'a>(buf: &'a [u8], bounds: &Bounds) -> Result<Parsed<'a>, ParseError> {
    let Some((verb, verb_len)) = find_verb(buf)? else {
        return Ok(Parsed::Incomplete { need: 0 });
    };
    let rest = buf.get(verb_len..).unwrap_or(&[]);
    let needs_blank =
        matches!(verb, Verb::Pub | Verb::HPub | Verb::Sub | Verb::Unsub | Verb::Info | Verb::Err);
    if needs_blank {
        match rest.first() {
            None => return Ok(Parsed::Incomplete { need: 0 }),
            Some(b' ' | b'\t') => {}
            Some(_) => return Err(ParseError::UnknownOperation),
        }
    }
    let Some(line_len) = memchr::memchr(b'\n', rest) else {
        let has_arguments = !matches!(verb, Verb::Ping | Verb::Pong | Verb::Ok);
        // A trailing CR may still turn out to be the line end.
        let text = rest.strip_suffix(b"\r").unwrap_or(rest);
        if has_arguments && text.trim_ascii_start().len() > bounds.control_line {
            return Err(ParseError::ControlLineTooLong);
        }
        return Ok(Parsed::Incomplete { need: 0 });
    };
    let line_end = verb_len + line_len + 1;
    let line = rest.get(..line_len).unwrap_or(&[]);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let done = |op| Ok(Parsed::Op(op, line_end));
    match verb {
        Verb::Ping => return done(ClientOp::Ping),
        Verb::Pong => return done(ClientOp::Pong),
        Verb::Ok => return done(ClientOp::Ignored),
        _ => {}
    }
    let arguments = trim_blanks_start(line);
    if arguments.len() > bounds.control_line {
        return Err(ParseError::ControlLineTooLong);
    }
    match verb {
        Verb::Connect => done(ClientOp::Connect(arguments)),
        Verb::Info | Verb::Ping | Verb::Pong | Verb::Ok => done(ClientOp::Ignored),
        Verb::Err => done(ClientOp::Err(arguments)),
        Verb::Sub => match *Arguments::split(arguments).as_slice() {
            [subject, sid] => done(ClientOp::Sub { subject, queue: &[], sid }),
            [subject, queue, sid] => done(ClientOp::Sub { subject, queue, sid }),
            _ => Err(ParseError::BadArguments),
        },
        Verb::Unsub => match *Arguments::split(arguments).as_slice() {
            [sid] => done(ClientOp::Unsub { sid, max: None }),
            [sid, max] => {
                let max = size(max).and_then(|max| u64::try_from(max).ok()).filter(|&max| max > 0);
                done(ClientOp::Unsub { sid, max })
            }
            _ => Err(ParseError::BadArguments),
        },
        Verb::Pub => {
            let (subject, reply, total) = match *Arguments::split(arguments).as_slice() {
                [subject, total] => (subject, &[][..], total),
                [subject, reply, total] => (subject, reply, total),
                _ => return Err(ParseError::BadArguments),
            };
            let total = size(total).ok_or(ParseError::BadArguments)?;
            message(buf, line_end, bounds, subject, reply, 0, total)
        }
        Verb::HPub => {
            if !bounds.headers {
                return Err(ParseError::BadArguments);
            }
            let (subject, reply, header_len, total) = match *Arguments::split(arguments).as_slice()
            {
                [subject, header_len, total] => (subject, &[][..], header_len, total),
                [subject, reply, header_len, total] => (subject, reply, header_len, total),
                _ => return Err(ParseError::BadArguments),
            };
            let header_len = size(header_len).ok_or(ParseError::BadArguments)?;
            let total = size(total).ok_or(ParseError::BadArguments)?;
            if header_len > total {
                return Err(ParseError::BadArguments);
            }
            message(buf, line_end, bounds, subject, reply, header_len, total)
        }
    }
}

/// The payload behind a control line that ended at `line_end`.
fn message<'a>(
    buf: &'a [u8],
    line_end: usize,
    bounds: &Bounds,
    subject: &'a [u8],
    reply: &'a [u8],
    header_len: usize,
    total: usize,
) -> Result<Parsed<'a>, ParseError> {
    if total > bounds.payload {
        return Err(ParseError::PayloadTooLarge);
    }
    // `total` has at most 9 digits, so neither sum can overflow.
    let need = line_end + total + 2;
    let Some(body) = buf.get(line_end..need) else {
        // A wrong terminator is an error as soon as it can be seen.
        let wrong = buf.get(line_end + total).is_some_and(|&byte| byte != b'\r');
        return if wrong {
            Err(ParseError::UnknownOperation)
        } else {
            Ok(Parsed::Incomplete { need })
        };
    };
    let (content, end) = body.split_at(total);
    if end != b"\r\n" {
        return Err(ParseError::UnknownOperation);
    }
    let (headers, payload) = content.split_at(header_len);
    Ok(Parsed::Op(ClientOp::Pub { subject, reply, headers, payload }, need))
}

/// The verb at the front and its length; `None` while the bytes are a prefix of one.
fn find_verb(buf: &[u8]) -> Result<Option<(Verb, usize)>, ParseError> {
    let mut prefix = false;
    for (text, verb) in VERBS {
        let seen = buf.len().min(text.len());
        if buf[..seen].eq_ignore_ascii_case(&text[..seen]) {
            if seen == text.len() {
                return Ok(Some((verb, seen)));
            }
            prefix = true;
        }
    }
    if prefix { Ok(None) } else { Err(ParseError::UnknownOperation) }
}

fn trim_blanks_start(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or(text.len());
    text.get(start..).unwrap_or(&[])
}

/// A size on the wire: 1 to 9 decimal digits.
pub fn size(text: &[u8]) -> Option<usize> {
    if text.is_empty() || text.len() > 9 {
        return None;
    }
    text.iter().try_fold(0_usize, |sum, &byte| {
        byte.is_ascii_digit().then(|| sum * 10 + usize::from(byte - b'0'))
    })
}

/// Up to four arguments, and whether there were more: five never fit an operation.
struct Arguments<'a> {
    list: [&'a [u8]; 5],
    len: usize,
}

impl<'a> Arguments<'a> {
    fn split(text: &'a [u8]) -> Self {
        let mut arguments = Self { list: [&[]; 5], len: 0 };
        let mut start = None;
        for (index, &byte) in text.iter().enumerate() {
            match (byte, start) {
                (b' ' | b'\t', Some(from)) => {
                    arguments.push(&text[from..index]);
                    start = None;
                }
                (b' ' | b'\t', None) | (_, Some(_)) => {}
                (_, None) => start = Some(index),
            }
        }
        if let Some(from) = start {
            arguments.push(&text[from..]);
        }
        arguments
    }

    fn push(&mut self, argument: &'a [u8]) {
        if let Some(slot) = self.list.get_mut(self.len) {
            *slot = argument;
            self.len += 1;
        }
    }

    fn as_slice(&self) -> &[&'a [u8]] {
        self.list.get(..self.len).unwrap_or(&[])
    }
}

/// Writes `MSG` or `HMSG` with its payload. `headers` empty gives `MSG`.
pub fn write_msg(
    out: &mut Vec<u8>,
    subject: &[u8],
    sid: &[u8],
    reply: &[u8],
    headers: &[u8],
    payload: &[u8],
) {
    if headers.is_empty() && payload.len() <= COPIED_BYTES_MAX {
        write_small(out, subject, sid, reply, payload);
        return;
    }
    out.reserve(subject.len() + sid.len() + reply.len() + headers.len() + payload.len() + 64);
    write_msg_front(out, subject, sid, reply, headers, payload.len());
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

/// Writes what comes before a payload of `payload_len` bytes, which `\r\n` is to follow.
pub fn write_msg_front(
    out: &mut Vec<u8>,
    subject: &[u8],
    sid: &[u8],
    reply: &[u8],
    headers: &[u8],
    payload_len: usize,
) {
    let total = headers.len() + payload_len;
    out.reserve(subject.len() + sid.len() + reply.len() + headers.len() + 64);
    out.extend_from_slice(if headers.is_empty() { b"MSG " } else { b"HMSG " });
    out.extend_from_slice(subject);
    out.push(b' ');
    out.extend_from_slice(sid);
    out.push(b' ');
    if !reply.is_empty() {
        out.extend_from_slice(reply);
        out.push(b' ');
    }
    let mut digits = itoa::Buffer::new();
    if !headers.is_empty() {
        out.extend_from_slice(digits.format(headers.len()).as_bytes());
        out.push(b' ');
    }
    out.extend_from_slice(digits.format(total).as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(headers);
}

/// Largest payload that [`write_small`] writes.
const COPIED_BYTES_MAX: usize = 512;

/// Writes `MSG`. Makes room once and fills it: each append to a `Vec` looks for room again,
/// and is a call where the compiler minds size.
#[inline]
fn write_small(out: &mut Vec<u8>, subject: &[u8], sid: &[u8], reply: &[u8], payload: &[u8]) {
    let mut digits = itoa::Buffer::new();
    let size = digits.format(u16::try_from(payload.len()).unwrap_or_default()).as_bytes();
    let reply_len = if reply.is_empty() { 0 } else { reply.len() + 1 };
    let len = b"MSG   \r\n\r\n".len() + subject.len() + sid.len() + reply_len + size.len();
    let start = out.len();
    // The blanks are then in place.
    out.resize(start + len + payload.len(), b' ');
    let room = out.get_mut(start..).unwrap_or_default();
    let room = put(room, b"MSG", 1);
    let room = put(room, subject, 1);
    let mut room = put(room, sid, 1);
    if reply_len > 0 {
        room = put(room, reply, 1);
    }
    let room = put(room, size, 0);
    let room = put(room, b"\r\n", 0);
    let room = put(room, payload, 0);
    put(room, b"\r\n", 0);
}

/// Copies `part` to the front of `room`; gives what comes after it and `gap` more bytes.
#[expect(clippy::inline_always, reason = "a call would cost more than the copy")]
#[inline(always)]
fn put<'a>(room: &'a mut [u8], part: &[u8], gap: usize) -> &'a mut [u8] {
    match room.split_at_mut_checked(part.len()) {
        Some((place, rest)) => {
            place.copy_from_slice(part);
            rest.get_mut(gap..).unwrap_or_default()
        }
        None => &mut [],
    }
}

/// Writes `-ERR 'text'`.
pub fn write_err(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(b"-ERR '");
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"'\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::{String, ToString};
    use alloc::{format, vec};

    const BOUNDS: Bounds = Bounds { control_line: 32, payload: 64, headers: true };

    /// All operations of `wire`, and the error that ended it, parsed from growing prefixes
    /// as a socket would give them.
    fn run(pieces: &[&[u8]]) -> (Vec<String>, Option<ParseError>) {
        let mut buf: Vec<u8> = Vec::new();
        let mut ops = Vec::new();
        for piece in pieces {
            buf.extend_from_slice(piece);
            loop {
                let used = match parse(&buf, &BOUNDS) {
                    Ok(Parsed::Op(op, used)) => {
                        ops.push(format!("{op:?}"));
                        used
                    }
                    Ok(Parsed::Incomplete { need }) => {
                        assert!(need == 0 || need > buf.len(), "need must ask for more");
                        break;
                    }
                    Err(error) => return (ops, Some(error)),
                };
                buf.drain(..used);
            }
        }
        (ops, None)
    }

    #[test]
    fn same_ops_wherever_the_bytes_are_split() {
        let wire: &[u8] =
            b"CONNECT {}\r\nping\r\nPUB a 2\r\nhi\r\nHPUB\ta r 12 14\r\nNATS/1.0\r\n\r\nok\r\n\
            SUB foo.*  q\t7 \nUNSUB 7 3\r\n+OK\r\nPONGxyz\r\n";
        let whole = run(&[wire]);
        assert_eq!(whole.0.len(), 8);
        assert_eq!(whole.1, None);
        for cut in 0..=wire.len() {
            let (head, tail) = wire.split_at(cut);
            assert_eq!(run(&[head, tail]), whole, "split at byte {cut}");
        }
        let single: Vec<&[u8]> = wire.chunks(1).collect();
        assert_eq!(run(&single), whole);
    }

    #[test]
    fn malformed_input_ends_as_nats_server_ends_it() {
        use ParseError::{BadArguments, ControlLineTooLong, PayloadTooLarge, UnknownOperation};
        let long = "x".repeat(33);
        for (wire, error) in [
            ("FOO\r\n", UnknownOperation),
            ("F", UnknownOperation),
            ("\r\n", UnknownOperation),
            (" PING\r\n", UnknownOperation),
            ("MSG a 1 0\r\n", UnknownOperation),
            ("UNSUB\r\n", UnknownOperation),
            ("PUBa 2\r\n", UnknownOperation),
            ("PUB a 2\r\nhi\n", UnknownOperation),
            ("PUB a 2\r\nhixx", UnknownOperation),
            ("PUB a 2\r\nhi\rx", UnknownOperation),
            ("PUB a\r\n", BadArguments),
            ("PUB a b c 2\r\n", BadArguments),
            ("PUB a -1\r\n", BadArguments),
            ("PUB a 1234567890\r\n", BadArguments),
            ("HPUB a 5 4\r\n", BadArguments),
            ("HPUB a 5\r\n", BadArguments),
            ("SUB a\r\n", BadArguments),
            ("SUB a b c d\r\n", BadArguments),
            ("PUB a 65\r\n", PayloadTooLarge),
            (&format!("SUB {long}"), ControlLineTooLong),
            (&format!("SUB {long}\r\n"), ControlLineTooLong),
        ] {
            assert_eq!(run(&[wire.as_bytes()]).1, Some(error), "{wire:?}");
        }
        let exact = format!("SUB {} 1\r\n", "x".repeat(30));
        assert_eq!(run(&[exact.as_bytes()]).1, None, "the bound itself is allowed");
    }

    #[test]
    fn the_short_way_agrees_with_the_long_one() {
        let blanks = ["", " ", "  ", "\t"];
        let words = ["a", "r.x", "5", "\n", "\r", "12345678901234567890123456789012"];
        for (lead, between) in blanks.iter().flat_map(|a| blanks.iter().map(move |b| (a, b))) {
            for (first, second) in words.iter().flat_map(|a| words.iter().map(move |b| (a, b))) {
                for end in ["\r\n", "\n", " \r\n"] {
                    let wire = format!(
                        "PUB{lead}{first}{between}{second} 5{end}hello\r\nPUB {first} 65\r\n"
                    );
                    let wire = wire.as_bytes();
                    if let Some(parsed) = parse_plain_pub(wire, &BOUNDS) {
                        assert_eq!(Ok(parsed), parse_any(wire, &BOUNDS), "{wire:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_max_that_is_no_number_means_now() {
        assert_eq!(
            run(&[b"UNSUB 1 x\r\n"]).0,
            vec![format!("{:?}", ClientOp::Unsub { sid: b"1", max: None })]
        );
        assert_eq!(
            run(&[b"UNSUB 1 0\r\nPING\r\n"]).0.last().map(ToString::to_string),
            Some("Ping".to_string())
        );
    }

    #[test]
    fn messages_are_written_with_their_sizes() {
        let mut out = Vec::new();
        write_msg(&mut out, b"a", b"1", b"", b"", b"hi");
        write_msg(&mut out, b"a", b"1", b"r", b"NATS/1.0\r\n\r\n", b"hi");
        assert_eq!(out, b"MSG a 1 2\r\nhi\r\nHMSG a 1 r 12 14\r\nNATS/1.0\r\n\r\nhi\r\n");
    }
}
