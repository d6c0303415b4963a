//! The leaf protocol: operations between two servers that share one account each.
//!
//! Owns parsing and writing on borrowed bytes: `LS+`, `LS-`, `LMSG`, `HMSG`, and `INFO`,
//! `CONNECT`, `PING`, `PONG`, `+OK`, `-ERR` as they look on such a connection. Keeps no
//! state: [`parse`] is called again with more bytes when an operation is incomplete.
//!
//! # Invariants
//! - The same bytes give the same operations wherever they are split.
//! - A subject, queue or reply that [`parse`] returns has at least one byte and no blank.
//! - An error is final: where the next operation starts is unknown.
//!
//! Source: leaf node traffic of nats-server 2.15.1.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::limits;

/// What [`parse`] refuses to go beyond.
#[derive(Clone, Copy, Debug)]
pub struct LeafBounds {
    /// Bytes of one line after its verb.
    pub control_line: usize,
    /// Header and payload of one message, in bytes.
    pub payload: usize,
}

impl LeafBounds {
    /// From the two keys of the configuration, `max_control_line` and `max_payload`.
    pub fn new(max_control_line: usize, max_payload: usize) -> Self {
        Self {
            control_line: max_control_line.saturating_mul(limits::LEAF_CONTROL_LINE_FACTOR),
            payload: max_payload,
        }
    }
}

impl Default for LeafBounds {
    fn default() -> Self {
        Self::new(limits::CONTROL_LINE_BYTES_MAX, limits::PAYLOAD_BYTES_MAX)
    }
}

/// One operation; everything in it borrows from the bytes parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeafOp<'a> {
    /// `LS+`: the peer wants this subject.
    SubAdd {
        /// May have wildcards. Not checked for empty tokens.
        subject: &'a [u8],
        /// For a queue group: its name and how many members stand behind it, at least 1.
        queue: Option<(&'a [u8], u32)>,
    },
    /// `LS-`: the peer no longer wants it. An exact key of an earlier `LS+`.
    SubRemove {
        /// As it was added.
        subject: &'a [u8],
        /// Empty: none.
        queue: &'a [u8],
    },
    /// `LMSG` or `HMSG`.
    Msg(LeafMsg<'a>),
    /// `INFO` and its JSON; see [`LeafInfo`].
    Info(&'a [u8]),
    /// `CONNECT` and its JSON.
    Connect(&'a [u8]),
    /// `PING`.
    Ping,
    /// `PONG`.
    Pong,
    /// `+OK`, which a leaf ignores.
    Ok,
    /// `-ERR`, without the quotes around its text.
    Err(&'a [u8]),
}

/// A message between two leaf peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafMsg<'a> {
    /// Where it goes.
    pub subject: &'a [u8],
    /// Where an answer goes; empty: nowhere.
    pub reply: &'a [u8],
    /// The queue groups the sender chose at this side; all others get nothing.
    pub queues: Queues<'a>,
    /// The header block with its final empty line; empty: none.
    pub headers: &'a [u8],
    /// The rest.
    pub payload: &'a [u8],
}

/// The queue groups a message names. Iterates over them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Queues<'a>(&'a [u8]);

impl<'a> Queues<'a> {
    /// From names with blanks between them.
    pub fn new(blank_separated: &'a [u8]) -> Self {
        Self(blank_separated)
    }

    /// Does the message name no group?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Does it name this one?
    pub fn contains(&self, queue: &[u8]) -> bool {
        self.into_iter().any(|one| one == queue)
    }
}

impl PartialEq for Queues<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.into_iter().eq(*other)
    }
}

impl Eq for Queues<'_> {}

impl<'a> IntoIterator for Queues<'a> {
    type Item = &'a [u8];
    type IntoIter = Words<'a>;

    fn into_iter(self) -> Words<'a> {
        Words(self.0)
    }
}

/// Words between blanks, of which there may be several in a row.
#[derive(Clone, Debug)]
pub struct Words<'a>(&'a [u8]);

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.0.iter().position(|&byte| !is_blank(byte))?;
        let rest = self.0.get(start..)?;
        let end = rest.iter().position(|&byte| is_blank(byte)).unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        self.0 = rest;
        Some(word)
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// What [`parse`] found at the start of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A whole operation, and how many bytes it takes.
    Op(LeafOp<'a>, usize),
    /// Not a whole operation yet. `need` is the length the bytes must have for it, when the
    /// first line already tells, else 0: up to the next line end.
    Incomplete {
        /// Bytes from the start of the operation, or 0.
        need: usize,
    },
}

/// Why bytes are not the leaf protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeafParseError {
    /// A line starts with something else than a verb.
    UnknownOperation,
    /// A line is over [`LeafBounds::control_line`].
    ControlLineTooLong,
    /// A message announces more than [`LeafBounds::payload`].
    PayloadTooLarge {
        /// What it announces.
        size_bytes: usize,
    },
    /// An `LS+` or `LS-` has too few or too many arguments, or a bad weight.
    BadSubscription,
    /// An `LMSG` or `HMSG` has too few arguments, a bad indicator or a bad size.
    BadMessage,
    /// The payload is not followed by a line end.
    BadMessageEnd,
}

impl LeafParseError {
    /// The text for `-ERR`, where nats-server sends one before it closes.
    pub fn wire_text(self) -> Option<&'static str> {
        match self {
            Self::UnknownOperation | Self::BadMessageEnd => Some("Unknown Protocol Operation"),
            Self::ControlLineTooLong => Some("maximum control line exceeded"),
            Self::PayloadTooLarge { .. } => Some("Maximum Payload Violation"),
            Self::BadSubscription | Self::BadMessage => None,
        }
    }
}

impl fmt::Display for LeafParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownOperation => {
                f.write_str("it sent something that is not the leaf protocol")
            }
            Self::ControlLineTooLong => f.write_str("it sent a line over 16 x max_control_line"),
            Self::PayloadTooLarge { size_bytes } => write!(
                f,
                "it sent a message of {size_bytes} bytes, over max_payload; raise max_payload to \
                 that of the hub"
            ),
            Self::BadSubscription => f.write_str("it sent a malformed LS+ or LS-"),
            Self::BadMessage => f.write_str("it sent a malformed LMSG or HMSG"),
            Self::BadMessageEnd => f.write_str("it sent a message whose size is wrong"),
        }
    }
}

impl core::error::Error for LeafParseError {}

/// The longest verb, and the blank behind it.
const VERB_BYTES_MAX: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    SubAdd,
    SubRemove,
    Msg,
    HeaderMsg,
    Info,
    Connect,
    Ping,
    Pong,
    Ok,
    Err,
}

const VERBS: [(&[u8], Verb); 10] = [
    (b"LMSG", Verb::Msg),
    (b"HMSG", Verb::HeaderMsg),
    (b"LS+", Verb::SubAdd),
    (b"LS-", Verb::SubRemove),
    (b"PING", Verb::Ping),
    (b"PONG", Verb::Pong),
    (b"INFO", Verb::Info),
    (b"CONNECT", Verb::Connect),
    (b"+OK", Verb::Ok),
    (b"-ERR", Verb::Err),
];

/// The operation at the start of `bytes`.
///
/// # Errors
/// The connection cannot go on after any of them.
pub fn parse<'a>(bytes: &'a [u8], bounds: &LeafBounds) -> Result<Parsed<'a>, LeafParseError> {
    let line_max = bounds.control_line.saturating_add(VERB_BYTES_MAX);
    // Two more for a line end that has come only in part.
    let window = bytes.get(..line_max.saturating_add(2)).unwrap_or(bytes);
    let Some(end) = memchr::memchr(b'\n', window) else {
        check_verb_start(bytes)?;
        if bytes.len() > line_max.saturating_add(1) {
            return Err(LeafParseError::ControlLineTooLong);
        }
        return Ok(Parsed::Incomplete { need: 0 });
    };
    let line = window.get(..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let after_line = end + 1;

    let verb_len = line.iter().position(|&byte| is_blank(byte)).unwrap_or(line.len());
    let (word, rest) = line.split_at(verb_len);
    let verb = VERBS
        .iter()
        .find(|(text, _)| text.eq_ignore_ascii_case(word))
        .map(|&(_, verb)| verb)
        .ok_or(LeafParseError::UnknownOperation)?;
    let arguments = trim_blanks(rest);
    if arguments.len() > bounds.control_line {
        return Err(LeafParseError::ControlLineTooLong);
    }
    let op = match verb {
        Verb::SubAdd => parse_sub_add(arguments)?,
        Verb::SubRemove => parse_sub_remove(arguments)?,
        Verb::Msg | Verb::HeaderMsg => {
            return parse_msg(bytes, after_line, arguments, verb == Verb::HeaderMsg, bounds);
        }
        Verb::Info => LeafOp::Info(arguments),
        Verb::Connect => LeafOp::Connect(arguments),
        Verb::Ping => LeafOp::Ping,
        Verb::Pong => LeafOp::Pong,
        Verb::Ok => LeafOp::Ok,
        Verb::Err => LeafOp::Err(unquote(arguments)),
    };
    Ok(Parsed::Op(op, after_line))
}

/// Garbage is refused as soon as it cannot become a verb, not only when its line ends.
fn check_verb_start(bytes: &[u8]) -> Result<(), LeafParseError> {
    let verb_len = bytes
        .iter()
        .take(VERB_BYTES_MAX)
        .position(|&byte| is_blank(byte) || byte == b'\r')
        .unwrap_or_else(|| bytes.len().min(VERB_BYTES_MAX));
    let start = bytes.get(..verb_len).unwrap_or_default();
    let complete = verb_len < bytes.len();
    let fits = VERBS.iter().any(|(text, _)| {
        text.get(..verb_len).is_some_and(|head| head.eq_ignore_ascii_case(start))
            && (!complete || text.len() == verb_len)
    });
    if fits { Ok(()) } else { Err(LeafParseError::UnknownOperation) }
}

fn parse_sub_add(arguments: &[u8]) -> Result<LeafOp<'_>, LeafParseError> {
    let mut words = Words(arguments);
    let subject = words.next().ok_or(LeafParseError::BadSubscription)?;
    let queue = match (words.next(), words.next(), words.next()) {
        (None, None, None) => None,
        (Some(queue), Some(weight), None) => {
            let weight = number(weight)
                .and_then(|weight| u32::try_from(weight).ok())
                .filter(|&weight| weight > 0)
                .ok_or(LeafParseError::BadSubscription)?;
            Some((queue, weight))
        }
        _ => return Err(LeafParseError::BadSubscription),
    };
    Ok(LeafOp::SubAdd { subject, queue })
}

fn parse_sub_remove(arguments: &[u8]) -> Result<LeafOp<'_>, LeafParseError> {
    let mut words = Words(arguments);
    let subject = words.next().ok_or(LeafParseError::BadSubscription)?;
    let queue = words.next().unwrap_or_default();
    if words.next().is_some() {
        return Err(LeafParseError::BadSubscription);
    }
    Ok(LeafOp::SubRemove { subject, queue })
}

fn parse_msg<'a>(
    bytes: &'a [u8],
    after_line: usize,
    arguments: &'a [u8],
    with_headers: bool,
    bounds: &LeafBounds,
) -> Result<Parsed<'a>, LeafParseError> {
    let (head, size) = split_last_word(arguments).ok_or(LeafParseError::BadMessage)?;
    let size = number(size).ok_or(LeafParseError::BadMessage)?;
    let (head, header_size) = if with_headers {
        let (head, header_size) = split_last_word(head).ok_or(LeafParseError::BadMessage)?;
        (head, number(header_size).ok_or(LeafParseError::BadMessage)?)
    } else {
        (head, 0)
    };
    if header_size > size {
        return Err(LeafParseError::BadMessage);
    }
    let mut words = Words(head);
    let subject = words.next().ok_or(LeafParseError::BadMessage)?;
    let (reply, queues) = match (words.next(), words.clone().next()) {
        (None, _) => (&b""[..], Queues::default()),
        (Some(reply), None) => (reply, Queues::default()),
        (Some(b"|"), Some(_)) => (&b""[..], Queues(trim_blanks(words.0))),
        (Some(b"+"), Some(reply)) => {
            words.next();
            (reply, Queues(trim_blanks(words.0)))
        }
        (Some(_), Some(_)) => return Err(LeafParseError::BadMessage),
    };
    if size > bounds.payload {
        return Err(LeafParseError::PayloadTooLarge { size_bytes: size });
    }
    // Sizes have nine digits at most, so this cannot overflow.
    let body_end = after_line + size;
    let total = body_end + 2;
    let Some(line_end) = bytes.get(body_end..total) else {
        return Ok(Parsed::Incomplete { need: total });
    };
    if line_end != b"\r\n" {
        return Err(LeafParseError::BadMessageEnd);
    }
    let body = bytes.get(after_line..body_end).unwrap_or_default();
    let (headers, payload) = body.split_at(header_size);
    Ok(Parsed::Op(LeafOp::Msg(LeafMsg { subject, reply, queues, headers, payload }), total))
}

fn trim_blanks(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && is_blank(*first)
    {
        bytes = rest;
    }
    while let [rest @ .., last] = bytes
        && is_blank(*last)
    {
        bytes = rest;
    }
    bytes
}

fn split_last_word(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let bytes = trim_blanks(bytes);
    let start = bytes.iter().rposition(|&byte| is_blank(byte)).map_or(0, |blank| blank + 1);
    let (head, word) = bytes.split_at(start);
    (!word.is_empty()).then_some((head, word))
}

/// One to nine decimal digits.
fn number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    digits.iter().try_fold(0_usize, |sum, &byte| {
        byte.is_ascii_digit().then(|| sum * 10 + usize::from(byte - b'0'))
    })
}

fn unquote(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"'").and_then(|text| text.strip_suffix(b"'")).unwrap_or(text)
}

// --- Writing ---

/// `PING`.
pub const PING: &[u8] = b"PING\r\n";
/// `PONG`.
pub const PONG: &[u8] = b"PONG\r\n";

/// Writes `LS+`; `queue` is a group and its weight.
pub fn write_sub_add(out: &mut Vec<u8>, subject: &[u8], queue: Option<(&[u8], u32)>) {
    out.extend_from_slice(b"LS+ ");
    out.extend_from_slice(subject);
    if let Some((queue, weight)) = queue {
        out.extend_from_slice(b" ");
        out.extend_from_slice(queue);
        out.extend_from_slice(b" ");
        out.extend_from_slice(itoa::Buffer::new().format(weight).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes `LS-`; `queue` empty: none.
pub fn write_sub_remove(out: &mut Vec<u8>, subject: &[u8], queue: &[u8]) {
    out.extend_from_slice(b"LS- ");
    out.extend_from_slice(subject);
    if !queue.is_empty() {
        out.extend_from_slice(b" ");
        out.extend_from_slice(queue);
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes a message: `HMSG` if it has headers, else `LMSG`. The queue groups come as an
/// iterator, because the sender picks them one by one.
pub fn write_msg<'q>(
    out: &mut Vec<u8>,
    subject: &[u8],
    reply: &[u8],
    queues: impl IntoIterator<Item = &'q [u8]>,
    headers: &[u8],
    payload: &[u8],
) {
    out.extend_from_slice(if headers.is_empty() { b"LMSG " } else { b"HMSG " });
    out.extend_from_slice(subject);
    out.extend_from_slice(b" ");
    let mut queues = queues.into_iter();
    let first = queues.next();
    match (first, reply.is_empty()) {
        (Some(_), true) => out.extend_from_slice(b"| "),
        (Some(_), false) => {
            out.extend_from_slice(b"+ ");
            out.extend_from_slice(reply);
            out.extend_from_slice(b" ");
        }
        (None, true) => {}
        (None, false) => {
            out.extend_from_slice(reply);
            out.extend_from_slice(b" ");
        }
    }
    for queue in first.into_iter().chain(queues) {
        out.extend_from_slice(queue);
        out.extend_from_slice(b" ");
    }
    let mut digits = itoa::Buffer::new();
    if !headers.is_empty() {
        out.extend_from_slice(digits.format(headers.len()).as_bytes());
        out.extend_from_slice(b" ");
    }
    out.extend_from_slice(digits.format(headers.len() + payload.len()).as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(headers);
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

// --- INFO and CONNECT ---

#[expect(clippy::struct_excessive_bools, reason = "the members of a wire format")]
/// `INFO` of an acceptor, as far as a solicitor needs it. What is absent is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LeafInfo {
    /// Identity of the server.
    #[serde(deserialize_with = "nullable")]
    pub server_id: String,
    /// Its name.
    #[serde(deserialize_with = "nullable")]
    pub server_name: String,
    /// Its release.
    #[serde(deserialize_with = "nullable")]
    pub version: String,
    /// Its cluster; two servers of one cluster exchange no interest over a leaf connection.
    #[serde(deserialize_with = "nullable")]
    pub cluster: String,
    /// Its `JetStream` domain.
    #[serde(deserialize_with = "nullable")]
    pub domain: String,
    /// Has it `JetStream`?
    #[serde(deserialize_with = "nullable")]
    pub jetstream: bool,
    /// May messages carry headers?
    #[serde(deserialize_with = "nullable")]
    pub headers: bool,
    /// Must TLS follow this `INFO`?
    #[serde(deserialize_with = "nullable")]
    pub tls_required: bool,
    /// What it takes at most, in bytes; 0: it did not say.
    #[serde(deserialize_with = "nullable")]
    pub max_payload: u64,
    /// Its number for this connection; 0 on a port that is not for leaf nodes.
    #[serde(deserialize_with = "nullable")]
    pub client_id: u64,
    /// What a key must sign, as text.
    #[serde(deserialize_with = "nullable")]
    pub nonce: String,
    /// Its compression mode; empty: it knows none.
    #[serde(deserialize_with = "nullable")]
    pub compression: String,
    /// Where else it can be reached; `None` on a port that is not for leaf nodes.
    pub leafnode_urls: Option<Vec<String>>,
    /// Is this the second `INFO`, after `CONNECT` was accepted?
    #[serde(deserialize_with = "nullable")]
    pub connect_info: bool,
    /// Does it promise a second `INFO`?
    #[serde(deserialize_with = "nullable")]
    pub info_on_connect: bool,
    /// The account this connection was bound to.
    #[serde(deserialize_with = "nullable")]
    pub remote_account: String,
    /// What we may receive.
    pub import: Option<SubjectPermissions>,
    /// What we may send.
    pub export: Option<SubjectPermissions>,
}

impl LeafInfo {
    /// Reads the JSON; unknown members are ignored.
    pub fn parse(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }
}

/// Lists of subjects; an empty `allow` allows everything, `deny` wins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SubjectPermissions {
    /// Nothing else, if there is any.
    #[serde(deserialize_with = "nullable")]
    pub allow: Vec<String>,
    /// Never these.
    #[serde(deserialize_with = "nullable")]
    pub deny: Vec<String>,
}

/// Go writes `null` for what is empty.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// `CONNECT` of a solicitor. What is empty is left out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LeafConnect<'a> {
    /// Our release; the acceptor may ask for a minimum.
    pub version: &'a str,
    /// The user's public key.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub nkey: &'a str,
    /// The user's JWT.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub jwt: &'a str,
    /// The nonce, signed; base64url.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub sig: &'a str,
    /// A name, with `pass` or alone.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub user: &'a str,
    /// Its password.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub pass: &'a str,
    /// A token instead of both.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub auth_token: &'a str,
    /// Our identity.
    pub server_id: &'a str,
    /// Our `JetStream` domain.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub domain: &'a str,
    /// Our name.
    pub name: &'a str,
    /// Our cluster. Never empty, and never that of another leaf node.
    pub cluster: &'a str,
    /// May messages carry headers?
    pub headers: bool,
    /// Have we `JetStream`?
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub jetstream: bool,
    /// What we will not take, whatever we ask for.
    #[serde(skip_serializing_if = "<[&str]>::is_empty")]
    pub deny_pub: &'a [&'a str],
    /// Should the acceptor keep the interest of its other leaf nodes from us?
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub isolate: bool,
    /// `off` to a peer that offers compression, `not supported` to one that does not.
    pub compress_mode: &'a str,
    /// Our account on this connection.
    pub remote_account: &'a str,
    /// Our protocol level. From 3 on the peer expects us to understand message tracing.
    pub protocol: u32,
}

impl LeafConnect<'_> {
    /// Writes the operation.
    pub fn write(&self, out: &mut Vec<u8>) {
        // Only strings, numbers and lists: there is nothing that could not be written.
        let json = serde_json::to_vec(self).unwrap_or_default();
        out.extend_from_slice(b"CONNECT ");
        out.extend_from_slice(&json);
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(bytes: &[u8]) -> LeafOp<'_> {
        match parse(bytes, &LeafBounds::default()) {
            Ok(Parsed::Op(op, consumed)) => {
                assert_eq!(consumed, bytes.len());
                op
            }
            other => panic!("{:?}: {other:?}", bytes.escape_ascii().to_string()),
        }
    }

    fn error(bytes: &[u8]) -> LeafParseError {
        parse(bytes, &LeafBounds::default()).unwrap_err()
    }

    fn msg<'a>(
        subject: &'a str,
        reply: &'a str,
        queues: &'a str,
        parts: [&'a str; 2],
    ) -> LeafOp<'a> {
        LeafOp::Msg(LeafMsg {
            subject: subject.as_bytes(),
            reply: reply.as_bytes(),
            queues: Queues::new(queues.as_bytes()),
            headers: parts[0].as_bytes(),
            payload: parts[1].as_bytes(),
        })
    }

    #[test]
    fn every_operation_is_read_as_nats_server_writes_it() {
        assert_eq!(one(b"LS+ a.*\r\n"), LeafOp::SubAdd { subject: b"a.*", queue: None });
        assert_eq!(
            one(b"LS+ a.b q 12\r\n"),
            LeafOp::SubAdd { subject: b"a.b", queue: Some((b"q", 12)) }
        );
        assert_eq!(one(b"LS- a.b q\r\n"), LeafOp::SubRemove { subject: b"a.b", queue: b"q" });
        assert_eq!(one(b"LS- a.b\r\n"), LeafOp::SubRemove { subject: b"a.b", queue: b"" });
        assert_eq!(one(b"LMSG a 2\r\nhi\r\n"), msg("a", "", "", ["", "hi"]));
        assert_eq!(one(b"LMSG a r 2\r\nhi\r\n"), msg("a", "r", "", ["", "hi"]));
        assert_eq!(one(b"LMSG leaf.q | Q1 Q2 2\r\nhi\r\n"), msg("leaf.q", "", "Q1 Q2", ["", "hi"]));
        assert_eq!(
            one(b"LMSG hub.q + _INBOX.x qg 5\r\nhello\r\n"),
            msg("hub.q", "_INBOX.x", "qg", ["", "hello"])
        );
        assert_eq!(
            one(b"HMSG leaf.q + rr Q1 Q2 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"),
            msg("leaf.q", "rr", "Q1 Q2", ["NATS/1.0\r\n\r\n", "hi"])
        );
        assert_eq!(one(b"INFO {\"a\":1} \r\n"), LeafOp::Info(b"{\"a\":1}"));
        assert_eq!(one(b"CONNECT {}\r\n"), LeafOp::Connect(b"{}"));
        assert_eq!(one(b"PING\r\n"), LeafOp::Ping);
        assert_eq!(
            one(b"-ERR 'Authorization Violation'\r\n"),
            LeafOp::Err(b"Authorization Violation")
        );
    }

    #[test]
    fn case_tabs_double_blanks_and_bare_line_feeds_are_tolerated() {
        assert_eq!(
            one(b"ls+\ta.b  q\t 3 \r\n"),
            LeafOp::SubAdd { subject: b"a.b", queue: Some((b"q", 3)) }
        );
        assert_eq!(one(b"lmsg  a   |  q1   q2  0\r\n\r\n"), msg("a", "", "q1 q2", ["", ""]));
        assert_eq!(one(b"Pong\n"), LeafOp::Pong);
    }

    #[test]
    fn malformed_operations_are_errors() {
        use LeafParseError as E;
        for (bytes, expected) in [
            (&b"FOO\r\n"[..], E::UnknownOperation),
            (b"\r\n", E::UnknownOperation),
            (b"GET / HT", E::UnknownOperation),
            (b"LS+\r\n", E::BadSubscription),
            (b"LS+ a q\r\n", E::BadSubscription),
            (b"LS+ a q 0\r\n", E::BadSubscription),
            (b"LS+ a q -1\r\n", E::BadSubscription),
            (b"LS+ a q 1 2\r\n", E::BadSubscription),
            (b"LS- a q 1\r\n", E::BadSubscription),
            (b"LMSG\r\n", E::BadMessage),
            (b"LMSG a\r\n", E::BadMessage),
            (b"LMSG a x\r\n", E::BadMessage),
            (b"LMSG a -2\r\n", E::BadMessage),
            (b"LMSG a b c 2\r\n", E::BadMessage),
            (b"LMSG a 1234567890\r\n", E::BadMessage),
            (b"HMSG a 3\r\n", E::BadMessage),
            (b"HMSG a 4 3\r\n", E::BadMessage),
            (b"LMSG a 999999999\r\n", E::PayloadTooLarge { size_bytes: 999_999_999 }),
            (b"LMSG a 2\r\nhixx", E::BadMessageEnd),
        ] {
            assert_eq!(error(bytes), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_line_without_end_is_refused_at_the_bound() {
        let bounds = LeafBounds::new(2, 100);
        let mut bytes = b"INFO ".to_vec();
        bytes.resize(5 + 32, b'x');
        assert_eq!(parse(&bytes, &bounds), Ok(Parsed::Incomplete { need: 0 }));
        bytes.resize(60, b'x');
        assert_eq!(parse(&bytes, &bounds), Err(LeafParseError::ControlLineTooLong));
    }

    #[test]
    fn an_incomplete_message_says_what_it_needs() {
        let wire = b"LMSG a 5\r\nhello\r\n";
        for cut in 0..wire.len() {
            let need = if cut >= 10 { wire.len() } else { 0 };
            assert_eq!(
                parse(&wire[..cut], &LeafBounds::default()),
                Ok(Parsed::Incomplete { need }),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn info_with_nulls_and_escapes_is_understood() {
        let info = LeafInfo::parse(
            br#"{"client_id":6,"nonce":null,"leafnode_urls":["h:7422"],"import":{"allow":["down.\u003e"],"deny":null},"new":{}}"#,
        )
        .unwrap();
        assert_eq!(info.client_id, 6);
        assert_eq!(info.leafnode_urls.unwrap(), ["h:7422"]);
        assert_eq!(info.import.unwrap().allow, ["down.>"]);
        assert_eq!(info.export, None);
        assert_eq!(LeafInfo::parse(b"{\"client_id\":-1}"), None);
        assert_eq!(LeafInfo::parse(b"[]x"), None);
    }

    #[test]
    fn connect_leaves_out_what_is_empty() {
        let mut out = Vec::new();
        let connect = LeafConnect {
            version: "2.15.1",
            server_id: "NABC",
            name: "gw",
            cluster: "gw",
            headers: true,
            compress_mode: "off",
            remote_account: "$G",
            protocol: 1,
            ..LeafConnect::default()
        };
        connect.write(&mut out);
        assert_eq!(
            core::str::from_utf8(&out).unwrap(),
            "CONNECT {\"version\":\"2.15.1\",\"server_id\":\"NABC\",\"name\":\"gw\",\"cluster\":\"gw\",\
             \"headers\":true,\"compress_mode\":\"off\",\"remote_account\":\"$G\",\"protocol\":1}\r\n"
        );
    }

    fn word() -> impl Strategy<Value = Vec<u8>> {
        "[a-zA-Z0-9.$_*>]{1,12}".prop_map(String::into_bytes)
    }

    /// Wire bytes of one operation.
    fn operation() -> impl Strategy<Value = Vec<u8>> {
        let body = prop::collection::vec(any::<u8>(), 0..40);
        prop_oneof![
            (word(), prop::option::of((word(), 1_u32..1000))).prop_map(|(subject, queue)| {
                let mut out = Vec::new();
                let queue = queue.as_ref().map(|(name, weight)| (&name[..], *weight));
                write_sub_add(&mut out, &subject, queue);
                out
            }),
            (word(), prop::option::of(word())).prop_map(|(subject, queue)| {
                let mut out = Vec::new();
                write_sub_remove(&mut out, &subject, &queue.unwrap_or_default());
                out
            }),
            (
                word(),
                prop::option::of(word()),
                prop::collection::vec(word(), 0..4),
                body.clone(),
                body
            )
                .prop_map(|(subject, reply, queues, headers, payload)| {
                    let mut out = Vec::new();
                    let queues = queues.iter().map(|queue| &queue[..]);
                    let reply = reply.unwrap_or_default();
                    write_msg(&mut out, &subject, &reply, queues, &headers, &payload);
                    out
                }),
            Just(PING.to_vec()),
            Just(b"-ERR 'x'\r\n".to_vec()),
        ]
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_refused(bytes: Vec<u8>) {
            let _ = parse(&bytes, &LeafBounds::default());
        }

        #[test]
        fn almost_operations_parse_or_are_refused(bytes in "(LS[+-]|[LH]MSG)[ a|+0-9\r\n]{0,40}") {
            let _ = parse(bytes.as_bytes(), &LeafBounds::default());
        }

        #[test]
        fn operations_are_the_same_wherever_the_bytes_are_split(wire in operation(), more in operation()) {
            let bounds = LeafBounds::default();
            let whole = [&wire[..], &more].concat();
            let Ok(Parsed::Op(op, consumed)) = parse(&whole, &bounds) else {
                panic!("{}", whole.escape_ascii());
            };
            prop_assert_eq!(consumed, wire.len());
            for cut in 0..wire.len() {
                match parse(&wire[..cut], &bounds) {
                    Ok(Parsed::Incomplete { need }) => {
                        prop_assert!(need == 0 || need == wire.len());
                    }
                    other => panic!("cut at {cut}: {other:?}"),
                }
            }
            prop_assert_eq!(parse(&wire, &bounds), Ok(Parsed::Op(op, wire.len())));
        }

        #[test]
        fn messages_survive_the_wire(
            subject in word(), reply in prop::option::of(word()),
            queues in prop::collection::vec(word(), 0..4),
            headers: Vec<u8>, payload: Vec<u8>,
        ) {
            let mut out = Vec::new();
            let reply = reply.unwrap_or_default();
            let list = queues.join(&b' ');
            write_msg(
                &mut out, &subject, &reply, queues.iter().map(|queue| &queue[..]), &headers, &payload,
            );
            let expected = LeafMsg {
                subject: &subject, reply: &reply, queues: Queues::new(&list),
                headers: &headers, payload: &payload,
            };
            prop_assert_eq!(one(&out), LeafOp::Msg(expected));
        }
    }
}
