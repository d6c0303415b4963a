//! Clients: what each of their operations does.
//!
//! Owns the order of checks and the exact answers. SUB is [`Broker::client_sub`], PUB is
//! [`Broker::client_pub`], CONNECT is [`Broker::client_connect`]; timers are in
//! [`Broker::client_timeout`].
//!
//! Source: NATS docs, "Client protocol"; texts and order as nats-server 2.15.1.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;

use super::conn::{Client, CloseReason, Conn, Flags, Receiver};
use super::connect::{InfoFor, write_info};
use super::core::Origin;
use super::interest::SubId;
use super::lame_duck::LameDuck;
use super::sign_in::SignedIn;
use super::{Broker, PubMsg};
use crate::auth::Secret;
use crate::id::AccountId;
use crate::limits;
use crate::proto::client::{ClientOp, ParseError};
use crate::subject;
use crate::time::{Duration, Now};

impl Broker {
    /// One operation of the client in slot `index`. Returns false once it is to be read no
    /// further.
    pub(super) fn client_op(&mut self, now: Now, index: u32, op: ClientOp<'_>) -> bool {
        let Some(client) = self.core.conn(index).and_then(Conn::client) else { return false };
        if client.identity.is_none()
            && !matches!(op, ClientOp::Connect(_))
            && !self.sign_in_without_connect(index)
        {
            return false;
        }
        match op {
            ClientOp::Pub { subject, reply, headers, payload } => {
                self.client_pub(now, index, subject, reply, headers, payload);
            }
            ClientOp::Sub { subject, queue, sid } => {
                self.heard(now, index);
                self.active(now, index);
                self.client_sub(index, subject, queue, sid);
            }
            ClientOp::Unsub { sid, max } => {
                self.heard(now, index);
                self.active(now, index);
                self.client_unsub(index, sid, max);
            }
            ClientOp::Ping => {
                self.heard(now, index);
                self.client_ping(index);
            }
            ClientOp::Pong => {
                if let Some(conn) = self.core.conn_mut(index) {
                    conn.pings_out = 0;
                    if let Some(sent) = conn.ping_sent_at.take() {
                        conn.rtt = now.instant.since(sent).max(Duration::from_nanos(1));
                    }
                }
            }
            ClientOp::Connect(json) => self.client_connect(index, json),
            ClientOp::Ignored => {}
            ClientOp::Err(text) => {
                self.core.complain(index, &format!("Client Error {}", shown(text)));
                self.core.close(index, CloseReason::ParseError, true);
            }
        }
        self.core.conn(index).is_some_and(|conn| !conn.closing && !conn.parked)
    }

    /// Bytes that are no operation.
    pub(super) fn client_parse_error(&mut self, index: u32, bytes: &[u8], error: ParseError) {
        // What cannot become a CONNECT is first of all from somebody who has to sign in.
        if !matches!(bytes.first(), Some(b'C' | b'c')) && self.turn_away_unknown(index) {
            return;
        }
        let core = &mut self.core;
        match error {
            ParseError::UnknownOperation => {
                core.error(index, "Unknown Protocol Operation");
                core.log_parse_error(index, bytes, error);
                core.close(index, CloseReason::ProtocolViolation, true);
            }
            ParseError::BadArguments => {
                core.log_parse_error(index, bytes, error);
                core.close(index, CloseReason::ProtocolViolation, true);
            }
            ParseError::ControlLineTooLong => {
                core.fail(index, "maximum control line exceeded", CloseReason::MaximumControlLine);
                core.log_parse_error(index, bytes, error);
            }
            ParseError::PayloadTooLarge => {
                core.log_parse_error(index, bytes, error);
                core.fail(index, "Maximum Payload Violation", CloseReason::MaximumPayload);
            }
        }
    }

    fn heard(&mut self, now: Now, index: u32) {
        if let Some(conn) = self.core.conn_mut(index) {
            conn.heard_at = now.instant;
        }
    }

    /// As `/connz` sees it.
    fn active(&mut self, now: Now, index: u32) {
        if let Some(conn) = self.core.conn_mut(index) {
            conn.active_at = now.instant;
        }
    }

    fn client_connect(&mut self, index: u32, json: &[u8]) {
        let Some(client) = self.core.conns.get_mut(index as usize).and_then(Conn::client_mut)
        else {
            return;
        };
        let again = client.flags.connected;
        client.connect_by = None;
        let merged = client.connect.merge(json);
        let now = self.core.now.instant;
        if let Some(conn) = self.core.conn_mut(index)
            && conn.rtt.is_zero()
        {
            // As nats-server: until a PONG, how long CONNECT took.
            conn.rtt = now.since(conn.opened_at).max(Duration::from_nanos(1));
        }
        if merged.is_err() {
            self.core.complain(index, "CONNECT is no JSON object, or a member has the wrong type");
            self.core.close(index, CloseReason::ProtocolViolation, true);
            return;
        }
        let Some(client) = self.core.conns.get_mut(index as usize).and_then(Conn::client_mut)
        else {
            return;
        };
        if self.sign_in.operators.is_none() {
            client.connect.jwt = Secret::default();
        }
        let connect = &client.connect;
        let flags = &mut client.flags;
        flags.connected = true;
        flags.verbose = connect.verbose;
        flags.pedantic = connect.pedantic;
        flags.echo = connect.echo;
        flags.headers = connect.headers && self.core.options.headers;
        flags.no_responders = connect.no_responders;
        let headers = flags.headers;
        if let Some(conn) = self.core.conn_mut(index) {
            conn.bounds.headers = headers;
        }
        if again {
            let subs: alloc::vec::Vec<SubId> = self
                .core
                .conns
                .get_mut(index as usize)
                .and_then(Conn::client_mut)
                .map(|client| core::mem::take(&mut client.sids).into_iter().collect())
                .unwrap_or_default();
            for sub in subs {
                self.core.remove_sub(sub);
            }
        }
        match self.decide(index) {
            SignedIn::Yes => self.connected(index),
            SignedIn::No | SignedIn::Parked => {}
        }
    }

    /// What a CONNECT does once it is known who it is from.
    pub(super) fn connected(&mut self, index: u32) {
        let Some(client) = self.core.conn(index).and_then(Conn::client) else { return };
        let Flags { headers, verbose, no_responders, .. } = client.flags;
        let protocol = client.connect.protocol;
        let refused = if !(0..=1).contains(&protocol) {
            Some(("invalid client protocol", CloseReason::BadClientProtocolVersion))
        } else if no_responders && !headers {
            let text = "no responders requires headers support";
            Some((text, CloseReason::NoRespondersRequiresHeaders))
        } else {
            None
        };
        if let Some((text, reason)) = refused {
            self.core.fail(index, text, reason);
            self.core.complain(index, text);
            return;
        }
        if verbose {
            self.core.send(index, b"+OK\r\n");
        }
    }

    fn client_ping(&mut self, index: u32) {
        self.core.send(index, b"PONG\r\n");
        let Some(conn) = self.core.conns.get_mut(index as usize) else { return };
        let (cid, account, max_payload) = (conn.cid, conn.account, conn.bounds.payload);
        let Some(client) = conn.client_mut() else { return };
        if client.flags.connected && !client.flags.told_connect_info {
            client.flags.told_connect_info = true;
            if client.connect.protocol >= 1 {
                let (ip, door) = (client.ip(), client.door);
                let way = client.connection_type();
                let auth_required = self.sign_in.directory.is_required(way);
                let name = self.core.account(account).map(|state| state.name.clone());
                let options = core::mem::take(&mut self.core.options);
                let to = InfoFor {
                    client_id: cid,
                    client_ip: &ip,
                    account: name.as_deref().map(|name| (name, account == AccountId::SYSTEM)),
                    max_payload,
                    auth_required,
                    nonce: "",
                    ldm: self.lame_duck != LameDuck::Off,
                    door,
                };
                self.core.send_with(index, |out| write_info(out, &options, to));
                self.core.options = options;
            }
        }
    }

    /// SUB. A duplicate `sid` keeps the first subscription and is not an error.
    fn client_sub(&mut self, index: u32, subject: &[u8], queue: &[u8], sid: &[u8]) {
        let max_tokens = self.core.options.max_sub_tokens;
        let hash = self.core.sid_hash(sid);
        let Some(conn) = self.core.conns.get(index as usize) else { return };
        let account = conn.account;
        let max_subs = self.core.max_subscriptions_of(index);
        let Some(conn) = self.core.conns.get_mut(index as usize) else { return };
        let Some(client) = conn.client_mut() else { return };
        let verbose = client.flags.verbose;
        if queue == b"_sys_"
            || client.access.as_mut().is_some_and(|access| !access.subscribe(subject, queue))
        {
            self.core.subscribe_violation(index, subject, queue, sid);
            return;
        }
        if max_tokens > 0 && subject::tokens(subject).count() > max_tokens {
            let text = format!(
                "Permissions Violation for Subscription to {}, too many tokens",
                quoted(subject)
            );
            self.core.error(index, &text);
            let text = format!(
                "Subscription Violation Too Many Tokens - Subject {}, SID {}",
                quoted(subject),
                shown(sid)
            );
            self.core.complain(index, &text);
            return;
        }
        if max_subs.is_some_and(|max| client.sids.len() >= max) {
            self.core.complain(index, "maximum subscriptions exceeded");
            self.core.error(index, "maximum subscriptions exceeded");
            return;
        }
        let subs = &self.core.subs;
        let Some(client) = self.core.conns.get(index as usize).and_then(Conn::client) else {
            return;
        };
        let known = client.sids.find(hash, |id| is_sid(subs, *id, sid)).is_some();
        if !known {
            if !subject::is_valid(subject) {
                self.core.error(index, "Invalid Subject");
                return;
            }
            let receiver = Receiver::Client { conn: index, sid: sid.into(), delivered: 0, max: 0 };
            let id = self.core.add_sub(account, subject, queue, receiver);
            let hasher = self.core.sid_hasher.clone();
            let subs = &self.core.subs;
            if let Some(client) = self.core.conns.get_mut(index as usize).and_then(Conn::client_mut)
            {
                client.sids.insert_unique(hash, id, |id| sid_hash_of(subs, *id, &hasher));
            }
        }
        if verbose {
            self.core.send(index, b"+OK\r\n");
        }
    }

    /// UNSUB, now or after `max` deliveries in all.
    fn client_unsub(&mut self, index: u32, sid: &[u8], max: Option<u64>) {
        let hash = self.core.sid_hash(sid);
        let Some(client) = self.core.conns.get(index as usize).and_then(Conn::client) else {
            return;
        };
        let verbose = client.flags.verbose;
        let subs = &self.core.subs;
        let known = client.sids.find(hash, |id| is_sid(subs, *id, sid)).copied();
        if verbose {
            self.core.send(index, b"+OK\r\n");
        }
        if let Some(id) = known {
            let mut ends = true;
            if let Some(sub) = self.core.subs.get_mut(id.0 as usize)
                && let Receiver::Client { delivered, max: limit, .. } = &mut sub.receiver
            {
                *limit = max.unwrap_or(0);
                ends = max.is_none_or(|max| *delivered >= max);
            }
            if ends {
                self.core.end_client_sub(id);
            }
        }
    }

    /// PUB and HPUB.
    fn client_pub(
        &mut self,
        now: Now,
        index: u32,
        subject: &[u8],
        reply: &[u8],
        headers: &[u8],
        payload: &[u8],
    ) {
        let Some(conn) = self.core.conns.get_mut(index as usize) else { return };
        conn.heard_at = now.instant;
        conn.active_at = now.instant;
        conn.msgs_in += 1;
        conn.bytes_in += (headers.len() + payload.len()) as u64;
        let account = conn.account;
        let Some(client) = conn.client() else { return };
        let flags = client.flags;
        let limited = client.access.is_some();
        if flags.pedantic && !subject::is_valid_literal(subject) {
            self.core.error(index, "Invalid Publish Subject");
        }
        let mapped = self.core.mapped(account, subject);
        let is_lost = mapped.is_none();
        let mapped = mapped.unwrap_or(Cow::Borrowed(subject));
        let (published, subject) = (subject, &*mapped);
        if is_reserved_subject(subject, account) || (limited && !self.may_publish(index, subject)) {
            self.core.publish_violation(index, subject);
            return;
        }
        if !reply.is_empty() && is_reserved_reply(reply) {
            let reply = quoted(reply);
            self.core
                .error(index, &format!("Permissions Violation for Publish with Reply of {reply}"));
            self.core.complain(index, &format!("Publish Violation - Reply {reply}"));
            return;
        }
        let origin = Origin::Client { conn: index, echo: flags.echo };
        if !headers.is_empty()
            && self.core.begin_trace(account, origin, published, headers, payload)
        {
            if let Some(dest) = self.core.denied_trace(index) {
                self.core.publish_violation(index, &dest);
                return;
            }
            if published != subject {
                self.core.trace_mapping(subject);
            }
            if is_lost {
                self.core.end_trace();
            }
        }
        if flags.verbose {
            self.core.send(index, b"+OK\r\n");
        }
        let msg = PubMsg { subject, reply, headers, payload };
        let delivered = !is_lost && self.publish(now, account, origin, msg);
        if !delivered && flags.no_responders && !reply.is_empty() {
            self.core.no_responders(index, subject, reply);
        }
    }

    /// May this client, whose rights are limited, publish there?
    #[cold]
    fn may_publish(&mut self, index: u32, subject: &[u8]) -> bool {
        let now = self.core.now.instant;
        let client = self.core.conns.get_mut(index as usize).and_then(Conn::client_mut);
        client
            .and_then(|client| client.access.as_mut())
            .is_none_or(|access| access.publish(now, subject))
    }

    /// A client's deadline passed: authentication, or a PING is due.
    pub(super) fn client_timeout(&mut self, now: Now, index: u32) {
        let is_web =
            self.core.conn(index).and_then(Conn::client).is_some_and(Client::is_web_socket);
        let interval = self.core.options.ping_interval_of(is_web);
        let ping_max = self.core.options.ping_max;
        let Some(conn) = self.core.conns.get_mut(index as usize) else { return };
        if let Some(client) = conn.client_mut()
            && client.connect_by.is_some_and(|at| at <= now.instant)
        {
            if client.identity.is_some() {
                self.token_timeout(now, index);
                return;
            }
            self.core.error(index, "Authentication Timeout");
            self.core.debug(index, "Authentication Timeout");
            self.core.close(index, CloseReason::AuthenticationTimeout, true);
            return;
        }
        if conn.ping_at > now.instant {
            return;
        }
        conn.ping_at = now.instant + interval;
        self.core.debug(index, "Client Ping Timer");
        let Some(conn) = self.core.conns.get_mut(index as usize) else { return };
        // The first PING, out as soon as a client is settled, measures the round trip; after
        // it a client that is heard needs none.
        let quiet = now.instant.since(conn.heard_at) >= interval;
        let first = conn.pings_sent == 0;
        if !first && !quiet && conn.pings_out == 0 {
            return;
        }
        if conn.pings_out >= ping_max {
            self.core.debug(index, "Stale Client Connection - Closing");
            self.core.fail(index, "Stale Connection", CloseReason::StaleConnection);
            return;
        }
        conn.pings_out += 1;
        conn.pings_sent += 1;
        conn.ping_sent_at = Some(now.instant);
        self.core.send(index, b"PING\r\n");
    }
}

fn is_sid(subs: &slab::Slab<super::conn::Sub>, id: SubId, sid: &[u8]) -> bool {
    matches!(
        subs.get(id.0 as usize).map(|sub| &sub.receiver),
        Some(Receiver::Client { sid: theirs, .. }) if **theirs == *sid
    )
}

fn sid_hash_of(
    subs: &slab::Slab<super::conn::Sub>,
    id: SubId,
    hasher: &foldhash::fast::FixedState,
) -> u64 {
    use core::hash::BuildHasher;
    match subs.get(id.0 as usize).map(|sub| &sub.receiver) {
        Some(Receiver::Client { sid, .. }) => hasher.hash_one(&**sid),
        Some(_) | None => 0,
    }
}

/// Replies that clients may not ask for: the server uses them to find its own way back.
fn is_reserved_reply(reply: &[u8]) -> bool {
    match reply.first() {
        Some(b'_') => reply.starts_with(b"_R_.") || reply.starts_with(b"_GR_."),
        Some(b'$') => {
            reply.starts_with(b"$GR.")
                || (reply.starts_with(b"$JS.ACK.") && reply.len() > b"$JS.ACK.".len())
        }
        _ => false,
    }
}

/// Subjects that clients may not publish to.
fn is_reserved_subject(subject: &[u8], account: AccountId) -> bool {
    match subject.first() {
        Some(b'_') => subject.starts_with(b"_GR_."),
        Some(b'$') => {
            subject.starts_with(b"$GR.")
                || (subject.starts_with(b"$NRG.") && account != AccountId::SYSTEM)
        }
        _ => false,
    }
}

/// What a peer sent, for a log line; at most 256 bytes.
pub(super) fn shown(text: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(text.get(..256).unwrap_or(text))
}

/// `text` in double quotes, escaped as Go's `%q` does it.
pub fn quoted(text: &[u8]) -> String {
    use core::fmt::Write;
    let mut out = String::from("\"");
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            // Writing to a String cannot fail.
            let _ = match character {
                '"' => out.write_str("\\\""),
                '\\' => out.write_str("\\\\"),
                '\n' => out.write_str("\\n"),
                '\r' => out.write_str("\\r"),
                '\t' => out.write_str("\\t"),
                '\u{7}' => out.write_str("\\a"),
                '\u{8}' => out.write_str("\\b"),
                '\u{b}' => out.write_str("\\v"),
                '\u{c}' => out.write_str("\\f"),
                control if (control as u32) < 0x20 || control as u32 == 0x7f => {
                    write!(out, "\\x{:02x}", control as u32)
                }
                other => out.write_char(other),
            };
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
    out
}

/// When the first PING to a new connection is due: soon, and not all at once.
pub(super) fn first_ping_delay(
    interval: core::time::Duration,
    rng: &mut crate::id::Rng,
) -> core::time::Duration {
    let base = interval.min(limits::FIRST_PING_DELAY);
    let jitter = rng.below(crate::time::nanos(base) / 5);
    base + core::time::Duration::from_nanos(jitter)
}
