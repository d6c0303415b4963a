//! How long a service takes to answer: which requests are measured, and what is told.
//!
//! Owns sampling and the JSON of a measurement. Does not own the answers that are waited for
//! (`imports`).
//!
//! Source: NATS docs, "Service Latency"; members, their order and the headers that ask for a
//! measurement as nats-server 2.15.1.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;

use super::connect::json_text;
use super::core::{Core, Msg, Origin};
use super::imports::view::TrackingView;
use super::request_info::{Party, members};
use crate::auth::account::{self, Sampling};
use crate::id::{AccountId, Rng};
use crate::proto::headers;
use crate::time::{Duration, Now, Timestamp, nanos};

/// What is measured of a service.
#[derive(Debug)]
pub(super) struct Latency {
    exporter: AccountId,
    subject: Box<[u8]>,
    sampling: Sampling,
}

/// One request that is measured.
#[derive(Debug)]
pub(super) struct Tracking {
    rule: Rc<Latency>,
    started: Now,
    requestor: Party,
    /// The headers that asked for it, as JSON; empty: none did.
    header: Vec<u8>,
}

/// What became of a request that is measured.
#[derive(Debug)]
pub(super) enum Outcome {
    /// By whom.
    Answered(Party),
    /// It has no reply subject.
    BadRequest,
    /// The requester went.
    RequesterGone,
    /// Nobody serves it.
    Unavailable,
    /// No answer in time.
    TimedOut,
}

impl Outcome {
    fn status(&self) -> (u16, &'static str) {
        match self {
            Self::Answered(_) => (200, ""),
            Self::BadRequest => (400, "Bad Request"),
            Self::RequesterGone => (408, "Request Timeout"),
            Self::Unavailable => (503, "Service Unavailable"),
            Self::TimedOut => (504, "Service Timeout"),
        }
    }
}

impl Latency {
    pub(super) fn new(exporter: AccountId, declared: &account::Latency) -> Self {
        Self { exporter, subject: declared.subject.as_bytes().into(), sampling: declared.sampling }
    }

    /// Is a request with these headers measured? With the headers that say so, as JSON.
    pub(super) fn sampled(&self, block: &[u8], rng: &mut Rng) -> Option<Vec<u8>> {
        match self.sampling {
            Sampling::Percent(share) if share >= 100 => Some(Vec::new()),
            Sampling::Percent(share) => (rng.below(100) < share.into()).then(Vec::new),
            Sampling::Headers => asked_for(block),
        }
    }
}

/// The value of a header, its name in any case.
fn header<'a>(block: &'a [u8], name: &str) -> Option<&'a [u8]> {
    headers::lines(block).find_map(|line| {
        let (key, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?.trim_ascii();
        key.eq_ignore_ascii_case(name.as_bytes()).then_some(value)
    })
}

/// Do tracing headers ask for a measurement?
fn asked_for(block: &[u8]) -> Option<Vec<u8>> {
    if block.is_empty() {
        return None;
    }
    let parts = |value: &'static str, by: u8| {
        header(block, value).map(|value| value.split(move |&byte| byte == by).collect::<Vec<_>>())
    };
    let names: &[&str] = if let Some(parts) = parts("Uber-Trace-Id", b':') {
        let flags = parts.get(3).filter(|_| parts.len() == 4);
        let flags = flags.and_then(|text| core::str::from_utf8(text).ok());
        let flags = flags.and_then(|text| u8::from_str_radix(text, 16).ok())?;
        if flags & 1 == 0 {
            return None;
        }
        &["Uber-Trace-Id"]
    } else if header(block, "X-B3-Sampled").is_some() || header(block, "X-B3-TraceId").is_some() {
        if header(block, "X-B3-Sampled").is_some_and(|value| value != b"1") {
            return None;
        }
        &["X-B3-TraceId", "X-B3-SpanId", "X-B3-Sampled", "X-B3-ParentSpanId", "X-B3-Flags"]
    } else if let Some(parts) = parts("B3", b'-') {
        let decision = if parts.len() == 1 { parts.first() } else { parts.get(2) };
        if decision.is_some_and(|decision| *decision == b"0") {
            return None;
        }
        &["B3"]
    } else if let Some(parts) = parts("Traceparent", b'-') {
        if parts.len() != 4 || parts.get(3).is_none_or(|flags| *flags != b"01") {
            return None;
        }
        &["Traceparent", "Tracestate"]
    } else {
        return None;
    };
    let mut json = b"{".to_vec();
    for name in names {
        let Some(value) = header(block, name) else { continue };
        if json.len() > 1 {
            json.push(b',');
        }
        json_text(&mut json, name);
        json.extend_from_slice(b":[");
        json_text(&mut json, &alloc::string::String::from_utf8_lossy(value));
        json.push(b']');
    }
    json.push(b'}');
    Some(json)
}

impl Tracking {
    /// What monitoring shows of it.
    pub(super) fn view(&self) -> TrackingView<'_> {
        let rule = &self.rule;
        TrackingView { subject: &rule.subject, sampling: rule.sampling, header: &self.header }
    }

    pub(super) fn new(rule: Rc<Latency>, now: Now, requestor: Party, header: Vec<u8>) -> Self {
        Self { rule, started: now, requestor, header }
    }
}

impl Core {
    /// Publishes a measurement in the exporter's account.
    pub(super) fn publish_latency(&mut self, tracking: &Tracking, outcome: &Outcome) {
        let (status, description) = outcome.status();
        let asked = tracking.requestor.rtt;
        let started = tracking.started.wall.0;
        let half = i64::try_from(nanos(asked) / 2).unwrap_or(0);
        let mut times = [Duration::ZERO; 2];
        if let Outcome::Answered(responder) = outcome {
            let took = self.now.instant.since(tracking.started.instant);
            let service = took.saturating_sub(responder.rtt);
            times = [service, service + asked + responder.rtt];
        }
        let [service, total] = times.map(nanos);
        let id = self.rng.token(22);
        let json = members(|object| {
            object.text("type", "io.nats.server.metric.v1.service_latency");
            object.text("id", &id);
            object.text("timestamp", &self.now.wall.rfc3339());
            object.number("status", status.into());
            object.text("description", description);
            object.raw("requestor", &tracking.requestor.info);
            if let Outcome::Answered(responder) = outcome {
                object.raw("responder", &responder.info);
            }
            object.raw("header", &tracking.header);
            object.text("start", &Timestamp(started.saturating_sub(half)).rfc3339());
            object.count("service", service);
            object.count("system", 0);
            object.count("total", total);
        });
        let subject = tracking.rule.subject.clone();
        let msg = Msg { to: &subject, subject: &subject, reply: b"", headers: b"", payload: &json };
        self.route_on(tracking.rule.exporter, Origin::Server, &msg);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;

    #[test]
    fn tracing_headers_ask_for_a_measurement() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
        for (line, expected) in [
            (String::new(), ""),
            (format!("traceparent: {parent}-00"), ""),
            (format!("traceparent: {parent}-01"), "Traceparent"),
            ("Uber-Trace-Id: a:b:0:1".into(), "Uber-Trace-Id"),
            ("Uber-Trace-Id: a:b:0:2".into(), ""),
            ("X-B3-Sampled: 1".into(), "X-B3-Sampled"),
            ("X-B3-Sampled: 0".into(), ""),
            ("X-B3-TraceId: 80f1".into(), "X-B3-TraceId"),
            ("B3: 1".into(), "B3"),
            ("B3: a-b-0-c".into(), ""),
        ] {
            let block = format!("NATS/1.0\r\n{line}\r\n\r\n");
            let asked = asked_for(block.as_bytes()).unwrap_or_default();
            let asked = String::from_utf8(asked).unwrap();
            assert_eq!(asked.is_empty(), expected.is_empty(), "{line}: {asked}");
            assert!(asked.contains(expected), "{line}: {asked}");
        }
    }
}
