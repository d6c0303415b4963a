//! Traces of messages: which way one took, told on a subject its publisher chose.
//!
//! Owns when a message is traced (`Nats-Trace-Dest`, or a sampled `traceparent` where the
//! account says so), what is noted while it is routed, and the JSON. Does not own routing:
//! [`Core::route`] goes through [`Core::route_traced`] while a message is traced, so that
//! others pay one branch.
//!
//! # Invariants
//! - At most one message is traced at a time, from its arrival to the end of its routing.
//! - What is noted of one message is bounded by [`limits::MESSAGE_TRACE_BYTES_MAX`].
//! - Behind an import that does not allow it nothing is noted, and the header says so.
//!
//! Source: ADR-41; members, their order and texts as nats-server 2.15.1.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::conn::{Conn, Kind, Receiver};
use super::connect::{PROTOCOL_VERSION, json_text};
use super::core::{Core, Msg, Origin};
use super::interest::SubId;
use super::request_info::{Object, members};
use crate::id::AccountId;
use crate::jetstream::host::Target;
use crate::limits;
use crate::proto::headers;
use crate::subject::is_valid_literal;

pub(super) const DEST: &str = "Nats-Trace-Dest";
const ONLY: &str = "Nats-Trace-Only";
const HOP: &str = "Nats-Trace-Hop";
/// A destination that ends a trace.
const DISABLED: &[u8] = b"trace disabled";

/// The message that is traced.
#[derive(Debug)]
pub(super) struct MsgTrace {
    account: AccountId,
    dest: Box<[u8]>,
    /// Deliver nothing, only tell.
    pub(super) only: bool,
    /// The headers, as JSON.
    header: Vec<u8>,
    size: usize,
    /// JSON objects, each after a comma.
    events: Vec<u8>,
    /// Links it crossed from here, and the number it came with.
    hops: u32,
    hop: Box<[u8]>,
}

impl MsgTrace {
    fn note(&mut self, event: &[u8]) {
        if self.events.len() + event.len() < limits::MESSAGE_TRACE_BYTES_MAX {
            self.events.push(b',');
            self.events.extend_from_slice(event);
        }
    }
}

/// Where a trace of a message with these headers goes, if they ask for one.
fn wanted(block: &[u8]) -> Option<&[u8]> {
    headers::value(block, DEST).filter(|dest| *dest != DISABLED && is_valid_literal(dest))
}

/// Is a message with these headers part of a sampled trace of somebody else?
fn is_sampled(block: &[u8]) -> bool {
    let name = b"traceparent";
    let value = headers::lines(block).find_map(|line| {
        let (key, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?.trim_ascii();
        key.eq_ignore_ascii_case(name).then_some(value)
    });
    let Some(value) = value else { return false };
    let mut parts = value.split(|&byte| byte == b'-').skip(3);
    let flags = parts.next().and_then(|flags| core::str::from_utf8(flags).ok());
    let flags = flags.and_then(|flags| u8::from_str_radix(flags, 16).ok());
    parts.next().is_none() && flags.is_some_and(|flags| flags & 1 == 1)
}

/// The headers as JSON, sorted as Go sorts a map.
fn header_json(block: &[u8]) -> Vec<u8> {
    let mut map: BTreeMap<&[u8], Vec<&[u8]>> = BTreeMap::new();
    for line in headers::lines(block) {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let (key, value) = line.split_at(colon);
        map.entry(key).or_default().push(value.get(1..).unwrap_or_default().trim_ascii());
    }
    let mut json = b"{".to_vec();
    for (key, values) in map {
        if json.len() > 1 {
            json.push(b',');
        }
        json_text(&mut json, &String::from_utf8_lossy(key));
        json.push(b':');
        for (index, value) in values.into_iter().enumerate() {
            json.push(if index == 0 { b'[' } else { b',' });
            json_text(&mut json, &String::from_utf8_lossy(value));
        }
        json.push(b']');
    }
    json.push(b'}');
    json
}

impl Core {
    /// Begins a trace of a message from outside, if its headers ask for it. `subject` is as
    /// it was published. Only for messages with headers.
    pub(super) fn begin_trace(
        &mut self,
        account: AccountId,
        origin: Origin<'_>,
        subject: &[u8],
        block: &[u8],
        payload: &[u8],
    ) -> bool {
        let dest: Box<[u8]> = match headers::value(block, DEST) {
            Some(_) => match wanted(block) {
                Some(dest) => dest.into(),
                None => return false,
            },
            None => {
                let rule = self.account(account).and_then(|state| state.trace.as_ref());
                let Some(rule) = rule.filter(|_| is_sampled(block)) else { return false };
                let (dest, share) = (rule.dest.as_bytes().into(), rule.sampling);
                if share < 100 && self.rng.below(100) >= share.into() {
                    return false;
                }
                dest
            }
        };
        let only = headers::value(block, ONLY).is_some_and(|value| {
            value == b"1"
                || value.eq_ignore_ascii_case(b"true")
                || value.eq_ignore_ascii_case(b"on")
        });
        let mut trace = Box::new(MsgTrace {
            account,
            dest,
            only,
            header: header_json(block),
            size: block.len() + payload.len(),
            events: Vec::new(),
            hops: 0,
            hop: headers::value(block, HOP).unwrap_or_default().into(),
        });
        let event = self.event("in", |core, object| {
            core.put_peer(object, origin.conn());
            object.text("acc", core.account(account).map_or("", |state| &state.name));
            object.text("subj", &String::from_utf8_lossy(subject));
        });
        trace.note(&event);
        self.msg_trace = Some(trace);
        true
    }

    /// The destination, and the end of the trace, if its publisher may not publish there.
    pub(super) fn denied_trace(&mut self, index: u32) -> Option<Box<[u8]>> {
        let now = self.now.instant;
        let dest = self.msg_trace.as_ref().map(|trace| trace.dest.clone())?;
        let client = self.conns.get_mut(index as usize).and_then(Conn::client_mut)?;
        if client.access.as_mut()?.publish(now, &dest) {
            return None;
        }
        self.msg_trace = None;
        Some(dest)
    }

    fn event(&self, kind: &str, write: impl FnOnce(&Self, &mut Object)) -> Vec<u8> {
        members(|object| {
            object.text("type", kind);
            object.text("ts", &self.now.wall.rfc3339());
            write(self, object);
        })
    }

    fn put_peer(&self, object: &mut Object, conn: Option<u32>) {
        let Some(conn) = conn.and_then(|index| self.conn(index)) else { return };
        let (kind, name) = match &conn.kind {
            Kind::Client(client) => (0, &*client.connect.name),
            Kind::Leaf(leaf) => (4, leaf.hub_name()),
        };
        object.count("kind", kind);
        object.count("cid", conn.cid);
        object.text("name", name);
    }

    fn note(&mut self, event: &[u8]) {
        if let Some(trace) = &mut self.msg_trace {
            trace.note(event);
        }
    }

    /// The subject was mapped.
    pub(super) fn trace_mapping(&mut self, to: &[u8]) {
        let event = self.event("sm", |_, object| object.text("to", &String::from_utf8_lossy(to)));
        self.note(&event);
    }

    /// It passes through an import into `account`.
    pub(super) fn trace_import(&mut self, account: AccountId, from: Option<&[u8]>, to: &[u8]) {
        let kind = if from.is_some() { "si" } else { "se" };
        let event = self.event(kind, |core, object| {
            object.text("acc", core.account(account).map_or("", |state| &state.name));
            object.text("from", &String::from_utf8_lossy(from.unwrap_or_default()));
            object.text("to", &String::from_utf8_lossy(to));
        });
        self.note(&event);
    }

    /// A stream captures it.
    pub(super) fn trace_stream(&mut self, name: &str, subject: &[u8]) {
        let event = self.event("js", |_, object| {
            object.text("stream", name);
            object.text("subject", &String::from_utf8_lossy(subject));
        });
        self.note(&event);
    }

    /// Delivers, and notes it. `shown` is the subject of the subscription as the publisher's
    /// account knows it.
    pub(super) fn deliver_traced(
        &mut self,
        id: SubId,
        origin: Origin<'_>,
        msg: &Msg<'_>,
        targets: &mut Vec<(AccountId, Target)>,
        queue: Option<&[u8]>,
        shown: Option<&[u8]>,
    ) -> bool {
        let Some(sub) = self.subs.get(id.0 as usize) else { return false };
        let Receiver::Client { conn: index, delivered, max, .. } = &sub.receiver else {
            let only = self.msg_trace.as_ref().is_some_and(|trace| trace.only);
            if only && matches!(sub.receiver, Receiver::System) {
                return true;
            }
            return self.deliver_to(id, origin, msg, targets, queue);
        };
        let index = *index;
        let closing = self.conn(index).is_none_or(|conn| conn.closing);
        let error = if matches!(origin, Origin::Client { conn, echo: false } if conn == index) {
            "Not delivered because of no echo"
        } else if closing {
            "Not delivered because client is closed"
        } else if *max > 0 && *delivered >= *max {
            "Not delivered because auto-unsubscribe exceeded"
        } else {
            ""
        };
        let from = self.msg_trace.as_ref().map_or(sub.account, |trace| trace.account);
        let other = (sub.account != from).then_some(sub.account);
        let subject = shown.unwrap_or(&sub.subject);
        let event = self.event("eg", |core, object| {
            core.put_peer(object, Some(index));
            let name = other.and_then(|account| core.account(account));
            object.text("acc", name.map_or("", |state| &state.name));
            object.text("sub", &String::from_utf8_lossy(subject));
            object.text("queue", &String::from_utf8_lossy(queue.unwrap_or_default()));
            object.text("error", error);
        });
        self.note(&event);
        if !error.is_empty() {
            return false;
        }
        if self.msg_trace.as_ref().is_some_and(|trace| trace.only) {
            return true;
        }
        self.deliver_to(id, origin, msg, targets, queue)
    }

    /// It crosses a link: notes it, and gives the headers with the number of this hop.
    pub(super) fn trace_hop(&mut self, index: u32, block: &[u8]) -> Option<Vec<u8>> {
        let trace = self.msg_trace.as_mut()?;
        trace.hops += 1;
        let number = alloc::format!("{}", trace.hops);
        let hop = if trace.hop.is_empty() {
            number.into_bytes()
        } else {
            [&trace.hop[..], b".", number.as_bytes()].concat()
        };
        let dest = trace.dest.clone();
        let event = self.event("eg", |core, object| {
            core.put_peer(object, Some(index));
            object.text("hop", &String::from_utf8_lossy(&hop));
        });
        self.note(&event);
        let block = headers::with(block, DEST, &dest);
        Some(headers::with(&block, HOP, &hop))
    }

    /// Until [`Self::resume_trace`] nothing is noted. Gives the trace, and the headers that
    /// end it for those behind.
    pub(super) fn pause_trace(&mut self, block: &[u8]) -> Option<(Box<MsgTrace>, Vec<u8>)> {
        let trace = self.msg_trace.take()?;
        Some((trace, headers::with(block, DEST, DISABLED)))
    }

    /// See [`Self::pause_trace`].
    pub(super) fn resume_trace(&mut self, trace: Box<MsgTrace>) {
        self.msg_trace = Some(trace);
    }

    /// The destination those behind a service import are to tell: that of the header, unless
    /// nothing is delivered there.
    pub(super) fn trace_dest(&self, block: &[u8]) -> Option<Box<[u8]>> {
        let trace = self.msg_trace.as_ref().filter(|trace| !trace.only)?;
        wanted(block).map(|_| trace.dest.clone())
    }

    /// Ends the trace and tells it.
    pub(super) fn end_trace(&mut self) {
        let Some(trace) = self.msg_trace.take() else { return };
        self.trace_seq += 1;
        let server = members(|object| {
            object.text("name", &self.options.server_name);
            object.text("host", &self.options.host);
            object.text("id", &self.options.server_id);
            object.text("domain", self.options.domain.as_deref().unwrap_or_default());
            object.text("ver", PROTOCOL_VERSION);
            if self.options.jetstream {
                object.raw("jetstream", b"true");
                object.number("flags", 1);
            } else {
                object.raw("jetstream", b"false");
            }
            object.count("seq", self.trace_seq);
            object.text("time", &self.now.wall.rfc3339());
        });
        let request = members(|object| {
            object.raw("header", &trace.header);
            object.count("msgsize", trace.size as u64);
        });
        let events = [b"[", trace.events.get(1..).unwrap_or_default(), b"]"].concat();
        let json = members(|object| {
            object.raw("server", &server);
            object.raw("request", &request);
            object.number("hops", trace.hops.into());
            object.raw("events", &events);
        });
        let dest = &trace.dest;
        let msg = Msg { to: dest, subject: dest, reply: b"", headers: b"", payload: &json };
        self.route_on(trace.account, Origin::Server, &msg);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::World;
    use crate::auth::account::{
        Account, Export, ExportKind, Import, ImportKind, MessageTrace, ResponseType,
    };
    use crate::id::ConnId;
    use alloc::format;
    use alloc::string::String;
    use alloc::vec;

    impl World {
        fn traced(&mut self, id: ConnId, subject: &str, lines: &str) {
            let block = format!("NATS/1.0\r\n{lines}\r\n");
            let (size, all) = (block.len(), block.len() + 1);
            self.says(id, &format!("HPUB {subject} {size} {all}\r\n{block}x\r\n"));
        }
    }

    /// The types of the events, and the rest.
    fn events(sent: &str) -> String {
        let Some(at) = sent.find("\"events\":") else { return String::new() };
        let mut text = String::from(&sent[at + 9..]);
        while let Some(at) = text.find("\"ts\":\"") {
            let end = at + 6 + text[at + 6..].find('"').unwrap() + 2;
            text.replace_range(at..end.min(text.len()), "");
        }
        text.split('\r').next().unwrap().into()
    }

    const T: &str = "Nats-Trace-Dest: tr\r\n";

    #[test]
    fn a_trace_tells_who_received_a_message() {
        let mut world = World::new(vec![Account::named("A")], false);
        let (a, b) = (world.client("A").unwrap(), world.client("A").unwrap());
        world.says(a, "SUB tr 1\r\n");
        world.says(b, "SUB foo 1\r\nSUB foo q 2\r\n");
        world.traced(a, "foo", T);
        let told = world.sent(a);
        assert!(
            told.contains("\"request\":{\"header\":{\"Nats-Trace-Dest\":[\"tr\"]},\"msgsize\":34}"),
            "{told}"
        );
        assert_eq!(
            events(&told),
            "[{\"type\":\"in\",\"kind\":0,\"cid\":5,\"acc\":\"A\",\"subj\":\"foo\"},\
             {\"type\":\"eg\",\"kind\":0,\"cid\":6,\"sub\":\"foo\"},\
             {\"type\":\"eg\",\"kind\":0,\"cid\":6,\"sub\":\"foo\",\"queue\":\"q\"}]}"
        );
        assert_eq!(world.sent(b).matches("HMSG foo").count(), 2);
        world.traced(a, "foo", "Nats-Trace-Dest: tr\r\nNats-Trace-Only: true\r\n");
        assert_eq!(events(&world.sent(a)).matches("\"eg\"").count(), 2);
        assert_eq!(world.sent(b), "", "only told");
        for line in ["Nats-Trace-Dest: trace disabled\r\n", "Nats-Trace-Dest: tr.*\r\n", "A: b\r\n"]
        {
            world.traced(a, "foo", line);
            assert_eq!(world.sent(a), "", "{line}");
        }
    }

    #[test]
    fn a_sampled_traceparent_is_traced_where_the_account_says_so() {
        let trace = Some(MessageTrace { dest: "tr".into(), sampling: 100 });
        let mut world = World::new(vec![Account { trace, ..Account::named("A") }], false);
        let id = world.client("A").unwrap();
        world.says(id, "SUB tr 1\r\n");
        for (flags, expected) in [("01", true), ("00", false)] {
            let parent = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
            world.traced(id, "foo", &format!("{parent}-{flags}\r\n"));
            assert_eq!(!world.sent(id).is_empty(), expected, "{flags}");
        }
    }

    #[test]
    fn a_trace_goes_behind_an_import_only_where_it_may() {
        let service = |subject: &str, allow_trace| Export {
            subject: subject.into(),
            kind: ExportKind::Service {
                response: ResponseType::Singleton,
                threshold: None,
                latency: None,
            },
            accounts: None,
            account_token_position: None,
            allow_trace,
        };
        let stream = Export { kind: ExportKind::Stream, ..service("pub", false) };
        let import = |subject: &str, kind| Import {
            account: "E".into(),
            subject: subject.into(),
            to: None,
            kind,
        };
        let asks = ImportKind::Service { share: false };
        let e = Account {
            exports: vec![service("open", true), service("shut", false), stream],
            ..Account::named("E")
        };
        let i = Account {
            imports: vec![
                import("open", asks),
                import("shut", asks),
                import("pub", ImportKind::Stream { allow_trace: true }),
            ],
            ..Account::named("I")
        };
        let mut world = World::new(vec![e, i], false);
        let (e, i) = (world.client("E").unwrap(), world.client("I").unwrap());
        world.says(e, "SUB open 1\r\nSUB shut 2\r\nSUB tr 3\r\n");
        world.says(i, "SUB tr 1\r\nSUB pub 2\r\n");
        world.traced(i, "open", T);
        let si = "[{\"type\":\"in\",\"kind\":0,\"cid\":6,\"acc\":\"I\",\"subj\":\"open\"},\
                  {\"type\":\"si\",\"acc\":\"E\",\"from\":\"open\",\"to\":\"open\"}";
        let eg = ",{\"type\":\"eg\",\"kind\":0,\"cid\":5,\"acc\":\"E\",\"sub\":\"open\"}]}";
        assert_eq!(events(&world.sent(i)), format!("{si}{eg}"));
        let got = world.sent(e);
        assert!(got.contains("\r\nNats-Trace-Dest: _R_."), "{got}");
        world.traced(i, "shut", T);
        assert_eq!(events(&world.sent(i)), format!("{si}]}}").replace("open", "shut"));
        let got = world.sent(e);
        assert!(got.contains("\r\nNats-Trace-Dest: trace disabled\r\n"), "{got}");
        world.traced(e, "pub", T);
        let told = world.sent(e);
        assert!(
            events(&told).ends_with(
                "{\"type\":\"se\",\"acc\":\"I\",\"to\":\"pub\"},\
             {\"type\":\"eg\",\"kind\":0,\"cid\":6,\"acc\":\"I\",\"sub\":\"pub\"}]}"
            ),
            "{told}"
        );
    }
}
