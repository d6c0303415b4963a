//! Advisories: what happened, for whoever subscribed to it.
//!
//! Owns the advisories of streams and of the API. Published only where somebody listens.
//!
//! Source: fields and their order seen from nats-server 2.15.1.

use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;
use serde_json::value::RawValue;

use super::JetStream;
use crate::jetstream::host::Host;
use crate::jetstream::json::{self, Audited};
use crate::jetstream::stream::info::State;
use crate::time::Timestamp;

/// Where the audit of the API goes.
pub(super) const API: &[u8] = b"$JS.EVENT.ADVISORY.API";

#[derive(Serialize)]
struct Audit<'a> {
    r#type: &'static str,
    id: String,
    timestamp: String,
    server: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'a RawValue>,
    subject: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    request: String,
    response: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<&'a str>,
}

#[derive(Serialize)]
struct StreamAction<'a> {
    r#type: String,
    id: String,
    timestamp: String,
    stream: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    action: &'static str,
    /// Of a backup: the stream as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    /// Of a backup: who asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'a RawValue>,
    /// Of one that ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    /// Of a batch that was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<&'a str>,
}

/// What is told about a stream.
#[derive(Default)]
pub(super) struct News {
    /// What was done to it.
    pub(super) action: &'static str,
    /// As it is.
    pub(super) state: Option<State>,
    /// Of what has just ended.
    pub(super) start: Option<Timestamp>,
    /// How much that was.
    pub(super) bytes: Option<u64>,
    /// The batch that was given up.
    pub(super) batch: Option<String>,
    /// Why it was.
    pub(super) reason: &'static str,
    /// Who asked for it, as JSON.
    pub(super) client: Vec<u8>,
}

/// JSON of the broker, as it is.
fn raw(json: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(json).ok()
}

impl JetStream {
    /// Tells of an answered API request.
    pub(super) fn audit_advisory(
        &mut self,
        audited: &Audited,
        response: &[u8],
        host: &mut impl Host,
    ) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let audit = json::encode(&Audit {
            r#type: "io.nats.jetstream.advisory.v1.api_audit",
            id: self.rng.token(22),
            timestamp: self.wall.rfc3339(),
            server: &self.options.server_name,
            client: raw(&audited.client),
            subject: text(&audited.subject),
            request: text(&audited.request),
            response: text(response),
            domain: self.options.domain.as_deref(),
        });
        host.deliver(API, API, b"", b"", &audit);
    }

    /// Tells that a stream was created, updated or deleted.
    pub(super) fn stream_advisory(
        &mut self,
        stream: &str,
        event: &str,
        action: &'static str,
        host: &mut impl Host,
    ) {
        let news = News { action, ..News::default() };
        self.stream_news(stream, event, "stream_action", news, host);
    }

    /// Tells of something that happened to a stream.
    pub(super) fn stream_news(
        &mut self,
        stream: &str,
        event: &str,
        kind: &str,
        news: News,
        host: &mut impl Host,
    ) {
        let subject = alloc::format!("$JS.EVENT.ADVISORY.STREAM.{event}.{stream}").into_bytes();
        if !host.has_interest(&subject) {
            return;
        }
        let advisory = json::encode(&StreamAction {
            r#type: alloc::format!("io.nats.jetstream.advisory.v1.{kind}"),
            id: self.rng.token(22),
            timestamp: self.wall.rfc3339(),
            stream,
            action: news.action,
            state: news.state,
            client: raw(&news.client),
            start: news.start.map(Timestamp::rfc3339),
            end: news.start.map(|_| self.wall.rfc3339()),
            bytes: news.bytes,
            batch: news.batch,
            reason: news.reason,
            domain: self.options.domain.as_deref(),
        });
        host.deliver(&subject, &subject, b"", b"", &advisory);
    }
}
