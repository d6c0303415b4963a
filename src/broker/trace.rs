//! Lines for operators about connections: their life, their mistakes, what they say.
//!
//! Owns the wording of debug, error and trace lines. `[DBG]`: a connection came, went, was
//! asked for a PONG. `[ERR]`: it did what it must not. `[TRC]`: each operation, `<<-` in,
//! `->>` out, `<->` a subscription that ended. Does not own what causes them.
//!
//! # Invariants
//! - While tracing is off a message pays nothing for it: operations are looked at where a
//!   flag was read once for all bytes of a read, and deliveries where an outbox is over a
//!   bound, which is 0 only while tracing is on.
//! - No secret of a CONNECT is in a line.
//! - Lines that wait to be printed are bounded: beyond
//!   [`TRACE_BYTES_MAX`](crate::limits::TRACE_BYTES_MAX) trace lines are counted instead.
//!
//! Source: the log of nats-server 2.15 with `-DV`.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::client::quoted;
use super::conn::{Client, CloseReason, Conn, Kind, Receiver};
use super::core::{Core, Msg};
use super::interest::SubId;
use super::options::Logging;
use super::{Broker, Level, Notice, Output};
use crate::limits::{DELIVERY_BACKLOG_BYTES, TRACE_BYTES_MAX, TRACED_BYTES_MAX};
use crate::proto::client::{ParseError, write_msg};

/// The members of CONNECT that are secrets.
const SECRETS: [&str; 7] = ["pass", "password", "auth_token", "sig", "proxy_sig", "nkey", "jwt"];

/// What stands for a secret.
const REDACTED: &str = "[REDACTED]";

/// Bytes shown of what cannot be read.
const SNIPPET_BYTES: usize = 32;

/// What tracing keeps.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// An outbox with more than this is looked at after a delivery.
    pub(super) watch_above: usize,
    /// Bytes of lines that wait to be printed.
    waiting: usize,
    /// Lines left out since the last one that was not.
    left_out: u64,
    scratch: Vec<u8>,
}

impl Trace {
    pub(super) fn new(logging: Logging) -> Self {
        let watch_above = if logging.trace { 0 } else { DELIVERY_BACKLOG_BYTES };
        Self { watch_above, ..Self::default() }
    }
}

impl Broker {
    /// Other lines are wanted from now on.
    pub fn set_logging(&mut self, logging: Logging) {
        self.core.options.logging = logging;
        self.core.trace.watch_above = Trace::new(logging).watch_above;
    }

    /// Does each operation give a line? Then whoever feeds bytes feeds few at a time.
    pub fn is_tracing(&self) -> bool {
        self.core.options.logging.trace
    }
}

impl Trace {
    /// The shell took a notice.
    pub(super) fn printed(&mut self, notice: &Notice) {
        if notice.level == Level::Trace {
            self.waiting = self.waiting.saturating_sub(notice.text.len());
        }
    }
}

impl Core {
    // --- The life of a connection ---

    /// How log lines about a connection begin, as nats-server's: `host:port - cid:N`, then
    /// who it says it is, then as whom it signed in.
    pub(super) fn conn_name(&self, index: u32) -> String {
        match self.conn(index) {
            Some(Conn { kind: Kind::Client(client), cid, .. }) => {
                let kind = if client.is_web_socket() { "wid" } else { "cid" };
                let mut name = format!("{} - {kind}:{cid}", client.log_peer());
                if client.flags.signed_in {
                    describe(client, &mut name);
                }
                name
            }
            Some(Conn { kind: Kind::Leaf(leaf), cid, .. }) => {
                format!("{} - lid:{cid}", leaf.peer())
            }
            None => String::new(),
        }
    }

    /// `[DBG]`, when somebody wants to read it.
    pub(super) fn debug(&mut self, index: u32, text: &str) {
        if self.options.logging.debug {
            let text = format!("{} - {text}", self.conn_name(index));
            self.outputs.push_back(Output::Notice(Notice::debug(text)));
        }
    }

    /// `[ERR]`: it did what it must not.
    pub(super) fn complain(&mut self, index: u32, text: &str) {
        let text = format!("{} - {text}", self.conn_name(index));
        self.outputs.push_back(Output::Notice(Notice::error(text)));
    }

    /// A connection begins.
    pub(super) fn log_opened(&mut self, index: u32) {
        if matches!(self.conn(index), Some(Conn { kind: Kind::Client(_), .. })) {
            self.debug(index, "Client connection created");
        }
    }

    /// A connection ends; its outbox is as it was.
    pub(super) fn log_closing(&mut self, index: u32, reason: CloseReason) {
        let Some(conn) = self.conn(index) else { return };
        let waiting = conn.outbox.len();
        let deadline = crate::time::GoDuration(self.options.write_deadline);
        let slow = match reason {
            CloseReason::SlowConsumerPendingBytes => {
                Some(format!("MaxPending of {} Exceeded", self.options.max_pending))
            }
            CloseReason::SlowConsumerWriteDeadline => Some(format!(
                "WriteDeadline of {deadline} exceeded with 1 chunks of {waiting} total bytes."
            )),
            _ => None,
        };
        if let Some(slow) = slow {
            let text = format!("{} - Slow Consumer Detected: {slow}", self.conn_name(index));
            self.outputs.push_back(Output::Notice(Notice::info(text)));
        }
        if matches!(self.conn(index), Some(Conn { kind: Kind::Client(client), .. }) if client.counts())
            && self.options.logging.debug
        {
            self.debug(index, &format!("Client connection closed: {}", reason.text()));
        }
    }

    /// Bytes that are no operation, and what was wrong with them.
    pub(super) fn log_parse_error(&mut self, index: u32, bytes: &[u8], error: ParseError) {
        let (verb, arguments, _) = split(bytes);
        if self.options.logging.trace
            && matches!(error, ParseError::BadArguments | ParseError::PayloadTooLarge)
        {
            let end = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
            self.trace_in(index, bytes.get(..end).unwrap_or(bytes));
        }
        let text = match error {
            ParseError::UnknownOperation => {
                // nats-server leaves out the last byte of what it has, whatever it is.
                let end = SNIPPET_BYTES.min(bytes.len().saturating_sub(1));
                let snippet = quoted(bytes.get(..end).unwrap_or_default());
                format!("Client parser ERROR, state=0, i=0: proto='{snippet}...'")
            }
            ParseError::BadArguments => {
                let name = match &verb[..] {
                    "SUB" => "processSub",
                    "UNSUB" => "processUnsub",
                    "HPUB" => "processHeaderPub",
                    _ => "processPub",
                };
                let bytes = arguments.get(..arguments.len().min(SNIPPET_BYTES * 8));
                format!("{name} Parse Error: {}", quoted(bytes.unwrap_or_default()))
            }
            // Said after the close, by nats-server as by us.
            ParseError::ControlLineTooLong => String::from("maximum control line exceeded"),
            ParseError::PayloadTooLarge => {
                let size = arguments
                    .rsplit(|&byte| byte == b' ' || byte == b'\t')
                    .next()
                    .map_or_else(String::new, |size| String::from_utf8_lossy(size).into_owned());
                format!("maximum payload exceeded: {size} vs {}", self.options.max_payload)
            }
        };
        self.complain(index, &text);
    }

    // --- Tracing ---

    fn trace_line(&mut self, text: String) {
        if self.trace.waiting >= TRACE_BYTES_MAX {
            self.trace.left_out += 1;
            return;
        }
        let left_out = core::mem::take(&mut self.trace.left_out);
        if left_out > 0 {
            let text =
                format!("{left_out} trace lines were left out: there is more than a log can take");
            self.outputs.push_back(Output::Notice(Notice::warn(text)));
        }
        self.trace.waiting += text.len();
        self.outputs.push_back(Output::Notice(Notice { level: Level::Trace, text }));
    }

    /// An operation that arrived, as it arrived; also one that is not whole.
    #[cold]
    pub(super) fn trace_in(&mut self, index: u32, op: &[u8]) {
        let (verb, arguments, payload) = split(op);
        if matches!(&verb[..], "INFO" | "+OK" | "-ERR") {
            return;
        }
        let name = self.conn_name(index);
        self.trace_op(&name, "<<-", &verb, arguments, payload);
    }

    /// Operations that wait to be written, whole.
    #[cold]
    pub(super) fn trace_out(&mut self, index: u32, mut bytes: &[u8]) {
        let name = self.conn_name(index);
        while !bytes.is_empty() {
            let (verb, arguments, rest) = split(bytes);
            let mut payload: &[u8] = &[];
            bytes = rest;
            if verb.ends_with("MSG") {
                let size = arguments.rsplit(|&byte| byte == b' ').next().unwrap_or_default();
                let size = core::str::from_utf8(size).ok().and_then(|size| size.parse().ok());
                let size: usize = size.unwrap_or(0);
                payload = rest.get(..size.saturating_add(2)).unwrap_or(rest);
                bytes = rest.get(payload.len()..).unwrap_or_default();
            }
            match &verb[..] {
                "INFO" | "CONNECT" => {}
                "+OK" => self.trace_op(&name, "->>", "OK", b"", b""),
                "-ERR" => {
                    let text = arguments.strip_prefix(b"'").unwrap_or(arguments);
                    let text = text.strip_suffix(b"'").unwrap_or(text);
                    self.trace_op(&name, "->>", "-ERR", text, b"");
                }
                verb => self.trace_op(&name, "->>", verb, arguments, payload),
            }
        }
    }

    /// A subscription ended.
    pub(super) fn trace_ended(&mut self, id: SubId) {
        if !self.options.logging.trace {
            return;
        }
        let Some(sub) = self.subs.get(id.0 as usize) else { return };
        let (conn, what) = match &sub.receiver {
            Receiver::Client { conn, sid, .. } => (*conn, String::from_utf8_lossy(sid)),
            Receiver::Leaf { conn } => (*conn, String::from_utf8_lossy(&sub.subject)),
            Receiver::Js(_)
            | Receiver::Shadow { .. }
            | Receiver::Service(_)
            | Receiver::Responses
            | Receiver::System => return,
        };
        let mut text = format!("{} - <-> [DELSUB {what}", self.conn_name(conn));
        if matches!(sub.receiver, Receiver::Leaf { .. }) && !sub.queue.is_empty() {
            text.push(' ');
            text.push_str(&String::from_utf8_lossy(&sub.queue));
        }
        text.push(']');
        self.trace_line(text);
    }

    fn trace_op(&mut self, name: &str, way: &str, verb: &str, arguments: &[u8], payload: &[u8]) {
        let mut text = format!("{name} - {way} [{verb}");
        if !arguments.is_empty() {
            text.push(' ');
            if verb == "CONNECT" {
                text.push_str(&redacted(arguments));
            } else {
                let cut = arguments.get(..TRACED_BYTES_MAX).unwrap_or(arguments);
                text.push_str(&String::from_utf8_lossy(cut));
            }
        }
        text.push(']');
        self.trace_line(text);
        let mut payload = payload.strip_suffix(b"\r\n").unwrap_or(payload);
        let logging = self.options.logging;
        if logging.trace_headers {
            let size = if verb.starts_with('H') { header_size(arguments) } else { 0 };
            let headers = payload.get(..size).unwrap_or_default();
            payload = headers.strip_suffix(b"\r\n\r\n").unwrap_or(headers);
        }
        if payload.is_empty() {
            return;
        }
        let most = match logging.max_traced_msg_len {
            0 => TRACED_BYTES_MAX,
            most => most.min(TRACED_BYTES_MAX),
        };
        let shown = match payload.get(..most) {
            Some(front) if front.len() < payload.len() => {
                let mut shown = quoted(front);
                shown.pop();
                shown + "...\""
            }
            _ => quoted(payload),
        };
        self.trace_line(format!("{name} - {way} MSG_PAYLOAD: [{shown}]"));
    }

    /// After bytes were appended to an outbox that is over [`Trace::watch_above`].
    #[cold]
    pub(super) fn watch_sent(&mut self, index: u32, before: usize, waiting: usize) {
        if self.options.logging.trace {
            let mut bytes = core::mem::take(&mut self.trace.scratch);
            bytes.clear();
            if let Some(conn) = self.conn(index) {
                bytes.extend_from_slice(conn.outbox.pending().get(before..).unwrap_or_default());
            }
            self.trace_out(index, &bytes);
            self.trace.scratch = bytes;
        }
        if waiting > DELIVERY_BACKLOG_BYTES {
            self.note_backlog(index, waiting);
        }
    }

    /// After a delivery to a client whose outbox is over [`Trace::watch_above`].
    #[cold]
    pub(super) fn watch_delivery(
        &mut self,
        index: u32,
        id: SubId,
        msg: &Msg<'_>,
        headers: &[u8],
        waiting: usize,
    ) {
        if self.options.logging.trace
            && let Some(Receiver::Client { sid, delivered, max, .. }) =
                self.subs.get(id.0 as usize).map(|sub| &sub.receiver)
        {
            let mut bytes = core::mem::take(&mut self.trace.scratch);
            bytes.clear();
            write_msg(&mut bytes, msg.subject, sid, msg.reply, headers, msg.payload);
            let ended = (*max > 0 && delivered >= max)
                .then(|| (*max, String::from_utf8_lossy(sid).into_owned()));
            if let Some((max, sid)) = ended {
                let text = format!("Auto-unsubscribe limit of {max} reached for sid '{sid}'");
                self.debug(index, &text);
            }
            self.trace_out(index, &bytes);
            self.trace.scratch = bytes;
        }
        if waiting > DELIVERY_BACKLOG_BYTES {
            self.note_backlog(index, waiting);
        }
    }
}

/// Who a client says it is, and as whom it signed in.
fn describe(client: &Client, name: &mut String) {
    let connect = &client.connect;
    let version =
        if connect.version.is_empty() { String::new() } else { format!("v{}", connect.version) };
    let parts: Vec<&str> = [&version[..], &connect.lang, &connect.name]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect();
    if !parts.is_empty() {
        name.push_str(" - ");
        name.push_str(&quoted(parts.join(":").as_bytes()));
    }
    // Where nobody has to sign in, it is who it says it is.
    let label = client.identity.as_ref().and_then(|identity| {
        let account = &identity.account;
        identity.label().or_else(|| {
            if !connect.nkey.is_empty() {
                Some(format!("{account}/nkey:{}", connect.nkey))
            } else if !connect.user.is_empty() {
                Some(format!("{account}/user:{}", connect.user))
            } else if !connect.auth_token.expose().is_empty() {
                Some(format!("{account}/token"))
            } else {
                None
            }
        })
    });
    if let Some(label) = label {
        name.push_str(" - ");
        name.push_str(&quoted(label.as_bytes()));
    }
}

/// The verb in capitals, its arguments, and what follows the line.
fn split(op: &[u8]) -> (String, &[u8], &[u8]) {
    const CONNECT: &[u8] = b"CONNECT";
    let end = memchr::memchr(b'\n', op);
    let (line, rest) = match end {
        Some(at) => (op.get(..at).unwrap_or_default(), op.get(at + 1..).unwrap_or_default()),
        None => (op, &[][..]),
    };
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let start = line.get(..CONNECT.len()).unwrap_or_default();
    let at = if start.eq_ignore_ascii_case(CONNECT) {
        // Its JSON may follow at once.
        CONNECT.len()
    } else {
        line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len()).min(8)
    };
    let (verb, arguments) = line.split_at_checked(at).unwrap_or((line, &[]));
    let verb = String::from_utf8_lossy(verb).to_ascii_uppercase();
    (verb, arguments.trim_ascii_start(), rest)
}

/// The size of the header block of an HPUB or HMSG: the number before the last.
fn header_size(arguments: &[u8]) -> usize {
    let mut words = arguments.rsplit(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let size = words.nth(1).and_then(|word| core::str::from_utf8(word).ok());
    size.and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// The JSON of a CONNECT with what is secret taken out. It may be broken JSON.
fn redacted(json: &[u8]) -> String {
    let text = String::from_utf8_lossy(json.get(..TRACED_BYTES_MAX).unwrap_or(json));
    let mut out = String::with_capacity(text.len());
    let mut rest = &text[..];
    // Whether the last string was the name of a secret.
    let mut secret = false;
    while let Some(c) = rest.chars().next() {
        if c == '"' {
            let length = string_length(rest);
            let (string, after) = rest.split_at_checked(length).unwrap_or((rest, ""));
            if secret {
                out.push('"');
                out.push_str(REDACTED);
                out.push('"');
                secret = false;
            } else {
                let inner = string.trim_matches('"');
                let is_name = after.trim_start().starts_with(':');
                // A name with an escape may be anything.
                secret = is_name
                    && (inner.contains('\\')
                        || SECRETS.iter().any(|name| inner.eq_ignore_ascii_case(name)));
                out.push_str(string);
            }
            rest = after;
        } else if secret && !c.is_whitespace() && c != ':' {
            out.push_str(REDACTED);
            if c == '{' || c == '[' {
                // Where it ends is not worth knowing.
                break;
            }
            // A secret that is no string.
            let length = rest.find([',', '}']).unwrap_or(rest.len());
            secret = false;
            rest = rest.get(length..).unwrap_or("");
        } else {
            out.push(c);
            rest = rest.get(c.len_utf8()..).unwrap_or("");
        }
    }
    out
}

/// Bytes of the JSON string that `text` begins with, its quotes included.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_connect_are_not_shown() {
        for (json, shown) in [
            (r#"{"user":"u","pass":"p"}"#, r#"{"user":"u","pass":"[REDACTED]"}"#),
            (
                r#"{"pass" : "a\"b" , "auth_token":"t"}"#,
                r#"{"pass" : "[REDACTED]" , "auth_token":"[REDACTED]"}"#,
            ),
            (r#"{"PASS":"y","sig":"s"}"#, r#"{"PASS":"[REDACTED]","sig":"[REDACTED]"}"#),
            (r#"{"pass": 5}"#, r#"{"pass": [REDACTED]}"#),
            (r#"{"name":"pass","x":"y"}"#, r#"{"name":"pass","x":"y"}"#),
            (r#"{"pass":"never closed"#, r#"{"pass":"[REDACTED]""#),
            (r#"{"pass":{"a":"b"}}"#, r#"{"pass":[REDACTED]"#),
            (r#"{"pass":["a","b"]}"#, r#"{"pass":[REDACTED]"#),
            (r#"{"p\u0061ss":"a"}"#, r#"{"p\u0061ss":"[REDACTED]"}"#),
            ("{}", "{}"),
        ] {
            assert_eq!(redacted(json.as_bytes()), shown);
        }
    }

    #[test]
    fn an_operation_is_split_as_it_was_written() {
        assert_eq!(
            split(b"pub  foo\t 3\r\nabc\r\n"),
            ("PUB".into(), &b"foo\t 3"[..], &b"abc\r\n"[..])
        );
        assert_eq!(split(b"PING\r\n"), ("PING".into(), &b""[..], &b""[..]));
        assert_eq!(split(b""), (String::new(), &b""[..], &b""[..]));
        assert_eq!(header_size(b"foo re 12 14"), 12);
    }
}
