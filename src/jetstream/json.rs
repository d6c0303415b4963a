//! JSON as nats-server reads and writes it: requests, envelopes, errors.
//!
//! Owns the envelope of replies and the reading of requests with the rules and error texts
//! of Go's `encoding/json`: members in the order of the document, keys without regard to
//! case, `null` leaves a field alone, the first mistake is the one reported. Does not own
//! any request's fields; [`FromJson`] is how a request names them.
//!
//! # Invariants
//! - Reading recurses at most [`DEPTH_MAX`] deep and holds memory in proportion to the body.
//!
//! Source: texts seen from nats-server 2.15.1.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;

use serde::Serialize;

use super::JetStream;
use crate::jetstream::host::{Host, Inbound};
use crate::proto::headers;
use crate::time::Timestamp;

/// Deeper nesting is refused; no request has more than five levels.
const DEPTH_MAX: usize = 100;

/// The level of the API: a hub that sources from us asks for 5. What came with a level and
/// is missing here is refused by name.
pub(crate) const API_LEVEL: u32 = 5;

/// Requests answered, for account info.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ApiCounts {
    pub(crate) total: u64,
    pub(crate) errors: u64,
}

/// An `error` object of the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ApiError {
    /// Like HTTP's.
    pub(crate) code: u16,
    /// What clients switch on.
    pub(crate) err_code: u16,
    /// For people.
    pub(crate) description: Cow<'static, str>,
}

impl ApiError {
    /// An error with a fixed text.
    pub(crate) const fn fixed(err_code: u16, code: u16, text: &'static str) -> Self {
        Self { code, err_code, description: Cow::Borrowed(text) }
    }

    /// An error whose text is made on the spot.
    pub(crate) fn with(err_code: u16, code: u16, text: impl Into<String>) -> Self {
        Self { code, err_code, description: Cow::Owned(text.into()) }
    }
}

/// Errors that several endpoints give.
impl ApiError {
    pub(crate) const BAD_REQUEST: Self = Self::fixed(10003, 400, "bad request");
    pub(crate) const CLUSTER_REQUIRED: Self =
        Self::fixed(10010, 503, "JetStream clustering support required");
    pub(crate) const STREAM_NOT_FOUND: Self = Self::fixed(10059, 404, "stream not found");
    pub(crate) const REQUIRED_LEVEL: Self =
        Self::fixed(10185, 412, "JetStream minimum api level required");
}

/// Who asked, kept while the store works on it.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    /// Where the answer goes; empty: nowhere.
    pub(crate) reply: Box<[u8]>,
    /// If somebody listens to the audit.
    pub(crate) audit: Option<Box<Audited>>,
}

/// What the audit tells of a request.
#[derive(Clone, Debug)]
pub(crate) struct Audited {
    pub(crate) subject: Vec<u8>,
    pub(crate) request: Vec<u8>,
    /// Who asked, as JSON.
    pub(crate) client: Vec<u8>,
}

/// A body without members.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Empty {}

/// A JSON value, members in the order of the document.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    /// As written.
    Number(String),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }

    /// Back to text, for messages that quote the offending value.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Null => "null".into(),
            Self::Bool(value) => value.to_string(),
            Self::Number(text) => text.clone(),
            Self::String(text) => serde_json::to_string(text).unwrap_or_default(),
            Self::Array(_) => "[]".into(),
            Self::Object(_) => "{}".into(),
        }
    }
}

/// A struct that is read from a JSON object.
pub(crate) trait FromJson: Default {
    /// Go's name of the struct, for texts.
    const NAME: &'static str;

    /// Sets the field with this lower-case `key`, usually by one of the readers below.
    /// `Ok(false)`: there is no such field.
    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String>;
}

/// [`FromJson`] behind a pointer, so that what reads a body exists once for all requests.
trait Fields {
    fn name(&self) -> &'static str;
    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String>;
}

impl<T: FromJson> Fields for T {
    fn name(&self) -> &'static str {
        T::NAME
    }

    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
        FromJson::field(self, key, value, path)
    }
}

/// Where a value stands, for texts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path<'a> {
    /// Go's name of the outermost struct.
    root: &'static str,
    /// Keys and indices from there, joined by dots.
    at: &'a str,
    /// An item of an array, which Go words differently.
    item: bool,
    strict: bool,
}

impl Path<'_> {
    /// The text for a value of the wrong kind.
    pub(crate) fn mismatch(self, value: &Json, go_type: &str) -> String {
        self.unmarshal(value.kind(), go_type)
    }

    fn unmarshal(self, what: &str, go_type: &str) -> String {
        let (root, at) = (self.root, self.at);
        if at.is_empty() {
            format!("json: cannot unmarshal {what} into Go value of type server.{root}")
        } else if self.item {
            format!("json: cannot unmarshal {what} into {root}.{at} of type {go_type}")
        } else {
            format!(
                "json: cannot unmarshal {what} into Go struct field {root}.{at} of type {go_type}"
            )
        }
    }

    fn child(self, key: &str) -> String {
        if self.at.is_empty() { key.into() } else { format!("{}.{key}", self.at) }
    }
}

/// Does Go find a body here, where one is optional?
pub(crate) fn has_body(body: &[u8]) -> bool {
    matches!(body.trim_ascii_start().first(), Some(b'{' | b'['))
}

/// Is this body one that says nothing: empty, or an object without members?
pub(crate) fn is_empty_request(body: &[u8]) -> bool {
    if body.is_empty() {
        return true;
    }
    let mut parser = Parser { bytes: body, at: 0 };
    let value = parser.value(0);
    parser.skip_blanks();
    parser.at >= body.len()
        && match value {
            Ok(Json::Null) => true,
            Ok(Json::Object(members)) => members.is_empty(),
            _ => false,
        }
}

/// A whole number in decimal digits.
pub(crate) fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    core::str::from_utf8(text).ok()?.parse().ok()
}

/// Can we meet the level of the API that the request's header asks for?
pub(crate) fn level_ok(header_block: &[u8]) -> bool {
    let Some(level) = headers::value(header_block, "Nats-Required-Api-Level") else {
        return true;
    };
    let level = core::str::from_utf8(level).ok().and_then(|text| text.parse::<i64>().ok());
    level.is_some_and(|level| level <= i64::from(API_LEVEL))
}

/// Reads a request body. Errors are 10025 with Go's text; an empty body gives the default.
pub(crate) fn decode<T: FromJson>(body: &[u8], strict: bool) -> Result<T, ApiError> {
    let mut to = T::default();
    match read_all(&mut to, body, strict) {
        Ok(()) => Ok(to),
        Err(text) => Err(invalid(&text)),
    }
}

fn read_all(to: &mut dyn Fields, body: &[u8], strict: bool) -> Result<(), String> {
    let mut parser = Parser { bytes: body, at: 0 };
    // As Go's decoder in a loop: several values in one body are read into the same struct.
    loop {
        parser.skip_blanks();
        if parser.at >= body.len() {
            return Ok(());
        }
        let value = parser.value(0)?;
        let path = Path { root: to.name(), at: "", item: false, strict };
        read_object(to, &value, path)?;
    }
}

fn invalid(text: &str) -> ApiError {
    ApiError::with(10025, 400, format!("invalid JSON: {text}"))
}

/// Reads a body that is one value, unknown fields ignored. Go words the errors of a body read
/// in one piece differently.
pub(crate) fn decode_whole<T: FromJson>(body: &[u8]) -> Result<T, ApiError> {
    let mut to = T::default();
    match read_whole(&mut to, body) {
        Ok(()) => Ok(to),
        Err(text) => Err(invalid(&text)),
    }
}

fn read_whole(to: &mut dyn Fields, body: &[u8]) -> Result<(), String> {
    let mut parser = Parser { bytes: body, at: 0 };
    let value = parser.value(0).and_then(|value| {
        parser.skip_blanks();
        if parser.at < body.len() {
            return Err(parser.unwelcome("after top-level value"));
        }
        Ok(value)
    });
    let value = value.map_err(|text| match text.split_once(" at offset ") {
        Some((text, _)) => text.into(),
        None if text == "unexpected EOF" => "unexpected end of JSON input".into(),
        None => text,
    })?;
    let path = Path { root: to.name(), at: "", item: false, strict: false };
    read_object(to, &value, path).map(|_| ())
}

/// Sets a text; like all readers of single values it leaves the target alone on `null`.
pub(crate) fn string(to: &mut String, value: &Json, path: Path<'_>) -> Result<bool, String> {
    match value {
        Json::Null => {}
        Json::String(text) => to.clone_from(text),
        _ => return Err(path.mismatch(value, "string")),
    }
    Ok(true)
}

/// Sets a flag.
pub(crate) fn boolean(to: &mut bool, value: &Json, path: Path<'_>) -> Result<bool, String> {
    match value {
        Json::Null => {}
        Json::Bool(flag) => *to = *flag,
        _ => return Err(path.mismatch(value, "bool")),
    }
    Ok(true)
}

/// Sets a number of Go's type `int64`.
pub(crate) fn int(to: &mut i64, value: &Json, path: Path<'_>) -> Result<bool, String> {
    number(to, value, path, "int64")
}

/// Sets a number of Go's type `uint64`.
pub(crate) fn uint(to: &mut u64, value: &Json, path: Path<'_>) -> Result<bool, String> {
    number(to, value, path, "uint64")
}

/// Sets nanoseconds.
pub(crate) fn duration(to: &mut i64, value: &Json, path: Path<'_>) -> Result<bool, String> {
    number(to, value, path, "time.Duration")
}

/// Sets a time; Go's zero time is `Timestamp(0)`.
pub(crate) fn time(to: &mut Timestamp, value: &Json, path: Path<'_>) -> Result<bool, String> {
    match value {
        Json::Null => {}
        Json::String(text) => {
            *to = Timestamp::parse_rfc3339(text).ok_or_else(|| {
                format!(
                    "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": \
                     cannot parse {text:?} as \"2006\""
                )
            })?;
        }
        _ => return Err(path.mismatch(value, "time.Time")),
    }
    Ok(true)
}

/// Sets a number whose Go type is called `go_type`.
pub(crate) fn number<N: core::str::FromStr>(
    to: &mut N,
    value: &Json,
    path: Path<'_>,
    go_type: &str,
) -> Result<bool, String> {
    match value {
        Json::Null => {}
        Json::Number(text) => {
            *to = text.parse().map_err(|_| path.unmarshal(&format!("number {text}"), go_type))?;
        }
        _ => return Err(path.mismatch(value, go_type)),
    }
    Ok(true)
}

/// Sets a list of texts; `null` empties it.
pub(crate) fn strings(to: &mut Vec<String>, value: &Json, path: Path<'_>) -> Result<bool, String> {
    each(to, value, path, "[]string", string)
}

/// Sets a list of durations in nanoseconds; `null` empties it.
pub(crate) fn durations(to: &mut Vec<i64>, value: &Json, path: Path<'_>) -> Result<bool, String> {
    each(to, value, path, "[]time.Duration", duration)
}

fn each<T: Default>(
    to: &mut Vec<T>,
    value: &Json,
    path: Path<'_>,
    go_type: &str,
    read: impl Fn(&mut T, &Json, Path<'_>) -> Result<bool, String>,
) -> Result<bool, String> {
    let items: &[Json] = match value {
        Json::Null => &[],
        Json::Array(items) => items,
        _ => return Err(path.mismatch(value, go_type)),
    };
    to.clear();
    for (index, value) in items.iter().enumerate() {
        let at = path.child(&index.to_string());
        let mut item = T::default();
        read(&mut item, value, Path { at: &at, item: true, ..path })?;
        to.push(item);
    }
    Ok(true)
}

/// Adds to a map of texts; `null` empties it.
pub(crate) fn map(
    to: &mut alloc::collections::BTreeMap<String, String>,
    value: &Json,
    path: Path<'_>,
) -> Result<bool, String> {
    match value {
        Json::Null => to.clear(),
        Json::Object(members) => {
            for (key, value) in members {
                let at = path.child(key);
                let mut text = String::new();
                string(&mut text, value, Path { at: &at, item: false, ..path })?;
                to.insert(key.clone(), text);
            }
        }
        _ => return Err(path.mismatch(value, "map[string]string")),
    }
    Ok(true)
}

/// Reads a nested object into what is there already.
pub(crate) fn object<T: FromJson>(
    to: &mut T,
    value: &Json,
    path: Path<'_>,
) -> Result<bool, String> {
    read_object(to, value, path)
}

fn read_object(to: &mut dyn Fields, value: &Json, path: Path<'_>) -> Result<bool, String> {
    let members = match value {
        Json::Null => return Ok(true),
        Json::Object(members) => members,
        _ => return Err(path.mismatch(value, &format!("server.{}", to.name()))),
    };
    for (key, value) in members {
        let lower = key.to_ascii_lowercase();
        let at = path.child(&lower);
        if !to.field(&lower, value, Path { at: &at, item: false, ..path })? && path.strict {
            return Err(format!("json: unknown field \"{key}\""));
        }
    }
    Ok(true)
}

/// Reads an object that may be absent; `null` removes it.
pub(crate) fn optional<T: FromJson>(
    to: &mut Option<T>,
    value: &Json,
    path: Path<'_>,
) -> Result<bool, String> {
    if *value == Json::Null {
        *to = None;
        return Ok(true);
    }
    object(to.get_or_insert_default(), value, path)
}

/// Sets a list of objects; `null` empties it.
pub(crate) fn objects<T: FromJson>(
    to: &mut Vec<T>,
    value: &Json,
    path: Path<'_>,
    go_type: &str,
) -> Result<bool, String> {
    each(to, value, path, go_type, object)
}

/// Reads one value; `None` if there is anything else.
pub(crate) fn parse(bytes: &[u8]) -> Option<Json> {
    let mut parser = Parser { bytes, at: 0 };
    let value = parser.value(0).ok()?;
    parser.skip_blanks();
    (parser.at >= bytes.len()).then_some(value)
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Where in the grammar a character was unwelcome, in Go's words.
const VALUE: &str = "looking for beginning of value";
const EOF: &str = "unexpected EOF";

impl Parser<'_> {
    fn peek(&self) -> Result<u8, String> {
        self.bytes.get(self.at).copied().ok_or_else(|| EOF.into())
    }

    fn skip_blanks(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// The character at the cursor does not belong there.
    fn unwelcome(&self, place: &str) -> String {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let byte = rest.first().copied().unwrap_or_default();
        let head = rest.get(..rest.len().min(4)).unwrap_or_default();
        let quoted = match byte {
            b'\'' => "'\\''".into(),
            b'\\' => "'\\\\'".into(),
            b'\n' => "'\\n'".into(),
            b'\r' => "'\\r'".into(),
            b'\t' => "'\\t'".into(),
            0..0x20 | 0x7f => format!("'\\x{byte:02x}'"),
            0x80.. => match head.utf8_chunks().next().and_then(|c| c.valid().chars().next()) {
                Some(character) => format!("'{character}'"),
                None => format!("'\\x{byte:02x}'"),
            },
            _ => format!("'{}'", char::from(byte)),
        };
        format!("invalid character {quoted} {place} at offset {}", self.at + 1)
    }

    fn value(&mut self, depth: usize) -> Result<Json, String> {
        self.skip_blanks();
        let byte = self.peek()?;
        if depth > DEPTH_MAX {
            return Err(format!("exceeded max depth at offset {}", self.at + 1));
        }
        match byte {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string().map(Json::String),
            b't' => self.literal("true", Json::Bool(true)),
            b'f' => self.literal("false", Json::Bool(false)),
            b'n' => self.literal("null", Json::Null),
            b'-' | b'0'..=b'9' => self.number(),
            _ => Err(self.unwelcome(VALUE)),
        }
    }

    fn literal(&mut self, word: &str, value: Json) -> Result<Json, String> {
        for expected in word.bytes() {
            if self.peek()? != expected {
                let expected = char::from(expected);
                return Err(self.unwelcome(&format!("in literal {word} (expecting '{expected}')")));
            }
            self.at += 1;
        }
        Ok(value)
    }

    fn digits(&mut self) -> Result<(), String> {
        if !self.peek()?.is_ascii_digit() {
            return Err(self.unwelcome("in numeric literal"));
        }
        while matches!(self.bytes.get(self.at), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<Json, String> {
        let start = self.at;
        if self.peek()? == b'-' {
            self.at += 1;
        }
        if self.peek()? == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.bytes.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = self.bytes.get(start..self.at).unwrap_or_default();
        Ok(Json::Number(String::from_utf8_lossy(text).into_owned()))
    }

    fn string(&mut self) -> Result<String, String> {
        self.at += 1;
        let mut text: Vec<u8> = Vec::new();
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Ok(match String::from_utf8(text) {
                        Ok(text) => text,
                        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
                    });
                }
                b'\\' => {
                    let character = self.escape()?;
                    text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                0..0x20 => return Err(self.unwelcome("in string")),
                byte => {
                    text.push(byte);
                    self.at += 1;
                }
            }
        }
    }

    /// At a backslash. Lone surrogates become U+FFFD.
    fn escape(&mut self) -> Result<char, String> {
        let byte = self.bytes.get(self.at + 1).ok_or(EOF)?;
        let character = match byte {
            b'"' | b'\\' | b'/' => char::from(*byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.hex4()?;
                self.at += 6;
                if !(0xd800..0xdc00).contains(&high) {
                    return Ok(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                if self.bytes.get(self.at..self.at + 2) == Some(b"\\u") {
                    let low = self.hex4()?;
                    if (0xdc00..0xe000).contains(&low) {
                        self.at += 6;
                        let code = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                        return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                    }
                }
                return Ok(char::REPLACEMENT_CHARACTER);
            }
            _ => return Err(self.bad_escape(2)),
        };
        self.at += 2;
        Ok(character)
    }

    /// The four digits of the `\u` at the cursor.
    fn hex4(&self) -> Result<u32, String> {
        let digits = self.bytes.get(self.at + 2..self.at + 6).ok_or(EOF)?;
        let text = core::str::from_utf8(digits).ok();
        text.filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|text| u32::from_str_radix(text, 16).ok())
            .ok_or_else(|| self.bad_escape(6))
    }

    fn bad_escape(&self, len: usize) -> String {
        let end = (self.at + len).min(self.bytes.len());
        let text = String::from_utf8_lossy(self.bytes.get(self.at..end).unwrap_or_default());
        format!("invalid escape sequence `{text}` in string at offset {end}")
    }

    fn array(&mut self, depth: usize) -> Result<Json, String> {
        self.at += 1;
        let mut items = Vec::new();
        self.skip_blanks();
        if self.peek()? == b']' {
            self.at += 1;
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.skip_blanks();
            match self.peek()? {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Ok(Json::Array(items));
                }
                _ => return Err(self.unwelcome("after array element")),
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, String> {
        self.at += 1;
        let mut members = Vec::new();
        self.skip_blanks();
        if self.peek()? == b'}' {
            self.at += 1;
            return Ok(Json::Object(members));
        }
        loop {
            self.skip_blanks();
            if self.peek()? != b'"' {
                return Err(self.unwelcome("looking for beginning of object key string"));
            }
            let key = self.string()?;
            self.skip_blanks();
            if self.peek()? != b':' {
                return Err(self.unwelcome("after object key"));
            }
            self.at += 1;
            members.push((key, self.value(depth + 1)?));
            self.skip_blanks();
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Ok(Json::Object(members));
                }
                _ => return Err(self.unwelcome("after object key:value pair")),
            }
        }
    }
}

/// `body` as JSON text with `<`, `>`, `&` and the two odd line ends escaped, as Go does. They
/// can only stand inside strings.
pub(crate) fn encode(body: &impl Serialize) -> Vec<u8> {
    escaped(serde_json::to_vec(body).unwrap_or_default())
}

fn escaped(plain: Vec<u8>) -> Vec<u8> {
    if memchr::memchr3(b'<', b'>', b'&', &plain).is_none() && memchr::memchr(0xe2, &plain).is_none()
    {
        return plain;
    }
    let text = String::from_utf8_lossy(&plain);
    let mut escaped = String::with_capacity(plain.len() + 32);
    for character in text.chars() {
        if matches!(character, '<' | '>' | '&' | '\u{2028}' | '\u{2029}') {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(character));
        } else {
            escaped.push(character);
        }
    }
    escaped.into_bytes()
}

/// The whole text of a reply: type, error if any, members of `body`.
pub(crate) fn envelope(kind: &str, error: Option<&ApiError>, body: &impl Serialize) -> Vec<u8> {
    enclose(kind, error, &encode(body))
}

fn enclose(kind: &str, error: Option<&ApiError>, members: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(512);
    text.extend_from_slice(b"{\"type\":\"io.nats.jetstream.api.v1.");
    text.extend_from_slice(kind.as_bytes());
    text.push(b'"');
    if let Some(error) = error {
        text.extend_from_slice(b",\"error\":");
        text.extend_from_slice(&encode(error));
    }
    match members.get(1..) {
        Some(rest) if rest.len() > 1 => {
            text.push(b',');
            text.extend_from_slice(rest);
        }
        _ => text.push(b'}'),
    }
    text
}

impl JetStream {
    /// Remembers who asked.
    #[expect(clippy::unused_self, reason = "a pair with respond, which every caller has at hand")]
    pub(crate) fn asker(&self, msg: &Inbound<'_>, host: &mut impl Host) -> Asker {
        let audit = host.has_interest(b"$JS.EVENT.ADVISORY.API").then(|| {
            let client = host.requester(msg.headers);
            let (subject, request) = (msg.subject.to_vec(), msg.payload.to_vec());
            Box::new(Audited { subject, request, client })
        });
        Asker { reply: msg.reply.into(), audit }
    }

    /// Answers `{"type":"io.nats.jetstream.api.v1.<kind>", …members of body}` and counts it.
    pub(crate) fn respond(
        &mut self,
        asker: &Asker,
        kind: &str,
        body: &impl Serialize,
        host: &mut impl Host,
    ) {
        self.answer(asker, &envelope(kind, None, body), host);
    }

    /// Answers with an error, followed by the members of `body` (`&json::Empty {}` for none).
    pub(crate) fn respond_error(
        &mut self,
        asker: &Asker,
        kind: &str,
        error: &ApiError,
        body: &impl Serialize,
        host: &mut impl Host,
    ) {
        self.api.errors += 1;
        self.answer(asker, &envelope(kind, Some(error), body), host);
    }

    pub(crate) fn answer(&mut self, asker: &Asker, text: &[u8], host: &mut impl Host) {
        self.api.total += 1;
        if !asker.reply.is_empty() {
            host.deliver(&asker.reply, &asker.reply, b"", b"", text);
        }
        if let Some(audit) = &asker.audit {
            self.audit_advisory(audit, text, host);
        }
    }

    /// Answers without counting, as the successful reads of messages do.
    pub(crate) fn respond_uncounted(
        asker: &Asker,
        kind: &str,
        body: &impl Serialize,
        host: &mut impl Host,
    ) {
        if !asker.reply.is_empty() {
            host.deliver(&asker.reply, &asker.reply, b"", b"", &envelope(kind, None, body));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;

    #[derive(Debug, Default)]
    struct Inner {
        tags: Vec<String>,
    }

    impl FromJson for Inner {
        const NAME: &'static str = "Placement";

        fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
            match key {
                "tags" => strings(&mut self.tags, value, path),
                _ => Ok(false),
            }
        }
    }

    #[derive(Debug, Default)]
    struct Request {
        name: String,
        max_msgs: i64,
        max_msg_size: i32,
        max_age: i64,
        first_seq: u64,
        no_ack: bool,
        subjects: Vec<String>,
        placement: Option<Inner>,
        sources: Vec<Inner>,
        metadata: BTreeMap<String, String>,
    }

    impl FromJson for Request {
        const NAME: &'static str = "StreamConfigRequest";

        fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
            match key {
                "name" => string(&mut self.name, value, path),
                "max_msgs" => int(&mut self.max_msgs, value, path),
                "max_msg_size" => number(&mut self.max_msg_size, value, path, "int32"),
                "max_age" => duration(&mut self.max_age, value, path),
                "first_seq" => uint(&mut self.first_seq, value, path),
                "no_ack" => boolean(&mut self.no_ack, value, path),
                "subjects" => strings(&mut self.subjects, value, path),
                "placement" => optional(&mut self.placement, value, path),
                "sources" => each(&mut self.sources, value, path, "[]*server.StreamSource", object),
                "metadata" => map(&mut self.metadata, value, path),
                _ => Ok(false),
            }
        }
    }

    fn error(body: &[u8]) -> String {
        match decode::<Request>(body, true) {
            Ok(request) => format!("accepted: {request:?}"),
            Err(error) => {
                assert_eq!((error.err_code, error.code), (10025, 400));
                error.description.strip_prefix("invalid JSON: ").unwrap_or("").into()
            }
        }
    }

    #[test]
    fn syntax_errors_read_like_those_of_go() {
        for (body, text) in [
            ("{", "unexpected EOF"),
            ("{\"name\":\"T\"", "unexpected EOF"),
            ("nul", "unexpected EOF"),
            ("\"\\", "unexpected EOF"),
            ("{\"name\":}", "invalid character '}' looking for beginning of value at offset 9"),
            (
                "{\"name\":\"T\",}",
                "invalid character '}' looking for beginning of object key string at offset 13",
            ),
            (
                "{name:1}",
                "invalid character 'n' looking for beginning of object key string at offset 2",
            ),
            (
                "{\"name\":\"T\"}x",
                "invalid character 'x' looking for beginning of value at offset 13",
            ),
            (
                "{\"name\":nulx}",
                "invalid character 'x' in literal null (expecting 'l') at offset 12",
            ),
            ("{\"name\":\"\\x\"}", "invalid escape sequence `\\x` in string at offset 11"),
            ("{\"name\":\"\\u12\"}", "invalid escape sequence `\\u12\"}` in string at offset 15"),
            ("{\"name\":\"a\nb\"}", "invalid character '\\n' in string at offset 11"),
            ("{\"name\":01}", "invalid character '1' after object key:value pair at offset 10"),
            ("{\"name\":1.}", "invalid character '}' in numeric literal at offset 11"),
            ("{\"name\":-}", "invalid character '}' in numeric literal at offset 10"),
            ("{\"name\":[\"T\" \"x\"]}", "invalid character '\"' after array element at offset 14"),
            ("[1,]", "invalid character ']' looking for beginning of value at offset 4"),
            ("'a'", "invalid character '\\'' looking for beginning of value at offset 1"),
            ("\0", "invalid character '\\x00' looking for beginning of value at offset 1"),
        ] {
            assert_eq!(error(body.as_bytes()), text, "{body}");
        }
        assert_eq!(
            error(b"\xff"),
            "invalid character '\\xff' looking for beginning of value at offset 1"
        );
    }

    #[test]
    fn values_of_the_wrong_kind_are_named_as_go_names_them() {
        let field = |rest: &str| format!("json: cannot unmarshal {rest}");
        for (body, text) in [
            ("[]", "array into Go value of type server.StreamConfigRequest"),
            ("5", "number into Go value of type server.StreamConfigRequest"),
            (
                "{\"max_msgs\":\"x\"}",
                "string into Go struct field StreamConfigRequest.max_msgs of type int64",
            ),
            (
                "{\"max_msgs\":1.5}",
                "number 1.5 into Go struct field StreamConfigRequest.max_msgs of type int64",
            ),
            (
                "{\"max_msgs\":99999999999999999999}",
                "number 99999999999999999999 into Go struct field \
                 StreamConfigRequest.max_msgs of type int64",
            ),
            (
                "{\"max_msg_size\":99999999999}",
                "number 99999999999 into Go struct field \
                 StreamConfigRequest.max_msg_size of type int32",
            ),
            (
                "{\"max_age\":\"1s\"}",
                "string into Go struct field StreamConfigRequest.max_age of type time.Duration",
            ),
            (
                "{\"first_seq\":-1}",
                "number -1 into Go struct field StreamConfigRequest.first_seq of type uint64",
            ),
            (
                "{\"no_ack\":1}",
                "number into Go struct field StreamConfigRequest.no_ack of type bool",
            ),
            (
                "{\"subjects\":\"x\"}",
                "string into Go struct field StreamConfigRequest.subjects of type []string",
            ),
            (
                "{\"subjects\":[\"x\",5]}",
                "number into StreamConfigRequest.subjects.1 of type string",
            ),
            (
                "{\"placement\":5}",
                "number into Go struct field StreamConfigRequest.placement of type server.Placement",
            ),
            (
                "{\"placement\":{\"tags\":5}}",
                "number into Go struct field StreamConfigRequest.placement.tags of type []string",
            ),
            (
                "{\"sources\":[{\"tags\":5}]}",
                "number into Go struct field StreamConfigRequest.sources.0.tags of type []string",
            ),
            (
                "{\"metadata\":{\"a\":1}}",
                "number into Go struct field StreamConfigRequest.metadata.a of type string",
            ),
        ] {
            assert_eq!(error(body.as_bytes()), field(text), "{body}");
        }
    }

    #[test]
    fn unknown_fields_fail_only_where_strict_and_the_first_mistake_counts() {
        assert_eq!(error(b"{\"bogus\":1,\"max_msgs\":\"x\"}"), "json: unknown field \"bogus\"");
        assert_eq!(error(b"{\"placement\":{\"bogus\":1}}"), "json: unknown field \"bogus\"");
        assert!(error(b"{\"max_msgs\":\"x\",\"bogus\":1}").contains("max_msgs"));
        assert_eq!(decode::<Request>(b"{\"bogus\":[{}],\"NAME\":\"T\"}", false).unwrap().name, "T");
    }

    #[test]
    fn keys_match_in_any_case_null_leaves_alone_and_values_add_up() {
        let request: Request = decode(
            b" {\"Name\":\"T\",\"max_msgs\":8,\"MAX_MSGS\":7,\"name\":null} {\"first_seq\":9} ",
            true,
        )
        .unwrap();
        assert_eq!((request.name.as_str(), request.max_msgs, request.first_seq), ("T", 7, 9));
        let request: Request =
            decode(b"{\"name\":\"\\u00e9\\ud83d\\ude00\\ud800\"}", true).unwrap();
        assert_eq!(request.name, "\u{e9}\u{1f600}\u{fffd}");
        assert!(decode::<Request>(b"", true).is_ok());
    }

    #[test]
    fn deep_nesting_is_an_error_not_a_crash() {
        let body = alloc::vec![b'['; 1_000_000];
        assert!(error(&body).starts_with("exceeded max depth"));
    }

    #[test]
    fn replies_are_escaped_like_go_escapes_html() {
        #[derive(Serialize)]
        struct Body {
            subject: &'static str,
        }
        let text = envelope("x_response", None, &Body { subject: "a.>&<\u{2028}\u{e9}" });
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "{\"type\":\"io.nats.jetstream.api.v1.x_response\",\
             \"subject\":\"a.\\u003e\\u0026\\u003c\\u2028\u{e9}\"}"
        );
        let error = ApiError::fixed(10003, 400, "bad request");
        assert_eq!(
            String::from_utf8(envelope("x_response", Some(&error), &Empty {})).unwrap(),
            "{\"type\":\"io.nats.jetstream.api.v1.x_response\",\"error\":{\"code\":400,\
             \"err_code\":10003,\"description\":\"bad request\"}}"
        );
    }
}
