//! Normalising: what differs between two honest runs becomes a placeholder.
//!
//! Server ids, versions, ports, client ids, nonces, times and generated names are replaced;
//! everything else is kept, so a transcript still shows every field and every number.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::raw_client::{Frame, Message, printable};
use crate::schemas;

/// Remembers the names one server made up, so that they are replaced wherever they appear.
#[derive(Debug)]
pub(crate) struct Normaliser {
    /// Generated text and its placeholder.
    aliases: Vec<(String, String)>,
    /// Connections of the log, in the order they were seen.
    cids: Vec<String>,
    /// What the scenario itself says: a name in it was not generated.
    scenario: String,
    /// Where messages of JetStream are not as their schemas say.
    mistakes: BTreeSet<String>,
}

impl Normaliser {
    pub(crate) fn new(scenario: &str) -> Self {
        Self {
            aliases: Vec::new(),
            cids: Vec::new(),
            scenario: scenario.to_owned(),
            mistakes: BTreeSet::new(),
        }
    }

    /// What was found to be wrong by the schemas.
    pub(crate) fn take_mistakes(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.mistakes)
    }

    /// Replaces `text` from now on.
    pub(crate) fn alias(&mut self, text: &str, placeholder: &str) {
        if !text.is_empty() && !self.aliases.iter().any(|(known, _)| known == text) {
            self.aliases.push((text.to_owned(), placeholder.to_owned()));
        }
    }

    /// Learns the ids in an `INFO` line.
    pub(crate) fn learn_info(&mut self, line: &str) {
        let info = line.strip_prefix("INFO ").unwrap_or_default();
        if let Ok(info) = serde_json::from_str::<Value>(info)
            && let Some(id) = info["server_id"].as_str()
        {
            self.alias(id, "<server>");
        }
    }

    /// The lines of a transcript for one frame.
    pub(crate) fn frame(&mut self, frame: &Frame) -> Vec<String> {
        match frame {
            Frame::Line(line) => {
                let Some(json) = line.strip_prefix("INFO ") else {
                    return vec![self.text(line)];
                };
                self.learn_info(line);
                let mut lines = vec![String::from("INFO")];
                match serde_json::from_str(json) {
                    Ok(value) => lines.extend(self.json(value)),
                    Err(e) => lines.push(format!("| not JSON ({e}): {json}")),
                }
                lines
            }
            Frame::Message(message) => self.message(message),
        }
    }

    fn message(&mut self, m: &Message) -> Vec<String> {
        let object = if m.payload.starts_with(b"{") {
            serde_json::from_slice::<Value>(&m.payload).ok()
        } else {
            None
        };
        if let Some(object) = &object {
            self.learn_consumer(object);
            let mistakes = schemas::mistakes(object);
            self.mistakes.extend(mistakes);
        }
        let mut lines = Vec::new();
        for header in m.headers.split_inclusive(|&b| b == b'\n') {
            lines.push(format!("| {}", self.header(&printable(header))));
        }
        match object {
            Some(object) => lines.extend(self.json(object)),
            None if m.payload.is_empty() => {}
            None => lines.push(format!("| {}", self.text(&printable(&m.payload)))),
        }
        // A size tells something only while what it counts is shown as it was.
        let as_sent = format!("{}{}", printable(&m.headers), printable(&m.payload));
        let changed = replace_rtt(&self.text(&as_sent)) != as_sent || m.payload.starts_with(b"{");
        let mut line = self.text(&Frame::Message(m.clone()).line());
        if changed && let Some(cut) = line.rfind(' ') {
            line.replace_range(cut.., " <n>");
            if !m.headers.is_empty()
                && let Some(cut) = line[..line.len() - 4].rfind(' ')
            {
                line.replace_range(cut..line.len() - 4, " <n>");
            }
        }
        lines.insert(0, line);
        lines
    }

    fn header(&self, line: &str) -> String {
        for random in ["Nats-Pin-Id: ", "Nats-Stream-Identity: "] {
            if line.starts_with(random) {
                return format!("{random}<r>\\r\\n");
            }
        }
        if let Some(rest) = line.strip_prefix("Nats-Request-Info: ")
            && let Ok(mut info) = serde_json::from_str(rest.trim_end_matches("\\r\\n"))
        {
            neutralise(&mut info);
            return format!("Nats-Request-Info: {}\\r\\n", self.text(&info.to_string()));
        }
        replace_rtt(&self.text(line))
    }

    /// A consumer created without a name: the server chose one.
    fn learn_consumer(&mut self, object: &Value) {
        let created = object["type"] == "io.nats.jetstream.api.v1.consumer_create_response";
        if let Some(name) = object["name"].as_str()
            && created
            && !self.scenario.contains(name)
        {
            let number = self.aliases.len();
            self.alias(name, &format!("<consumer-{number}>"));
        }
    }

    /// A line of the log without process, time and ports. Connections are counted from 5:
    /// nats-server counts its own, and not always in time.
    pub(crate) fn log_line(&mut self, line: &str) -> String {
        let at = line.find("] ").map_or(0, |at| at + 2);
        let rest = line.get(at..).unwrap_or(line);
        let rest = rest.find('[').and_then(|at| rest.get(at..)).unwrap_or(rest);
        let mut text = self.text(rest);
        for local in ["127.0.0.1:", "127.0.0.1/127.0.0.1:"] {
            let mut from = 0;
            while let Some(at) = text.get(from..).and_then(|rest| rest.find(local)) {
                let start = from + at + local.len();
                let digits = text[start..].bytes().take_while(u8::is_ascii_digit).count();
                text.replace_range(start..start + digits, "<port>");
                from = start;
            }
        }
        if let Some(at) = text.find("cid:") {
            let start = at + "cid:".len();
            let digits = text[start..].bytes().take_while(u8::is_ascii_digit).count();
            let cid = text[start..start + digits].to_owned();
            let place = self.cids.iter().position(|known| *known == cid);
            let place = place.unwrap_or_else(|| {
                self.cids.push(cid);
                self.cids.len() - 1
            });
            text.replace_range(start..start + digits, &(place + 5).to_string());
        }
        if let Some(at) = text.find("(sha256:") {
            text.truncate(at);
            text.push_str("(<digest>)");
        }
        text
    }

    /// A JSON value, one member a line, keys sorted.
    pub(crate) fn json(&self, mut value: Value) -> Vec<String> {
        neutralise(&mut value);
        let text = serde_json::to_string_pretty(&value).unwrap_or_default();
        // Without the commas a member more or less is one line more or less.
        text.lines().map(|line| format!("| {}", self.text(line.trim_end_matches(',')))).collect()
    }

    /// One line of text.
    pub(crate) fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (known, placeholder) in &self.aliases {
            text = text.replace(known, placeholder);
        }
        text = replace_times(&text);
        replace_service_replies(&replace_reply_subjects(&text))
    }
}

/// A refusal that names which stream it is now.
const IDENTITY: &str = "consumer's stream identity does not match: ";

/// Replaces the values of members that differ from run to run.
fn neutralise(value: &mut Value) {
    match value {
        Value::Object(members) => {
            // What built the server is nobody's business; Sedge may leave both out.
            members.remove("git_commit");
            members.remove("go");
            // Of a connection: which one it is differs.
            if members.contains_key("client_type")
                && let Some(id) = members.get_mut("id")
            {
                *id = Value::from("<cid>");
            }
            // Of a measurement: how long things took.
            if members.contains_key("requestor") {
                for key in ["service", "system", "total"] {
                    if members.get(key).is_some_and(Value::is_u64) {
                        members.insert(key.into(), Value::from("<duration>"));
                    }
                }
            }
            // What is known of sources, in the order of a map.
            if let Some(Value::Array(sources)) = members.get_mut("sources")
                && sources.iter().all(|source| source.get("lag").is_some())
            {
                sources.sort_by_key(|source| source["name"].to_string());
            }
            // Of a refusal: which stream it is now.
            if let Some(text) = members.get_mut("description")
                && text.as_str().is_some_and(|text| text.starts_with(IDENTITY))
            {
                *text = Value::from(format!("{IDENTITY}<r>"));
            }
            // Of a trace: the server as its events show it.
            if members.contains_key("events")
                && let Some(server) = members.get_mut("server")
            {
                *server = Value::from("<server>");
            }
            for (key, value) in members.iter_mut() {
                let placeholder = match key.as_str() {
                    // Only advisories have one.
                    "id" if value.as_str().is_some_and(|id| id.len() == 22) => "<id>",
                    "version" | "_nats.ver" => "<version>",
                    "client_id" | "cid" => "<cid>",
                    "port" => "<port>",
                    "nonce" => "<nonce>",
                    "xkey" => "<xkey>",
                    "rtt" | "ack_time" | "pause_remaining" | "active" => "<duration>",
                    "pinned_client_id" | "pinned_id" => "<r>",
                    _ => {
                        neutralise(value);
                        continue;
                    }
                };
                *value = Value::from(placeholder);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(neutralise),
        _ => {}
    }
}

/// The round trip time in a `Nats-Request-Info` header.
fn replace_rtt(text: &str) -> String {
    const MEMBER: &str = "\"rtt\":";
    let Some(at) = text.find(MEMBER).map(|at| at + MEMBER.len()) else { return text.to_owned() };
    let digits = text[at..].bytes().take_while(u8::is_ascii_digit).count();
    format!("{}<duration>{}", &text[..at], &text[at + digits..])
}

/// The reply subjects that a server makes for services: `_R_` and two random tokens.
fn replace_service_replies(text: &str) -> String {
    const PREFIX: &str = "_R_.";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(PREFIX) {
        let (before, from) = rest.split_at(at);
        let length = from.bytes().take_while(|b| b.is_ascii_alphanumeric() || b"._".contains(b));
        let (subject, after) = from.split_at(length.count());
        out.push_str(before);
        let plain = subject.len() == "_R_.xxxxxx.yyyyyy".len();
        let measured = subject.len() == "_R_.xxxxxx.yyyyyy.zzzzzzzz.T".len();
        out.push_str(match (plain, measured) {
            (true, _) => "_R_.<r>.<r>",
            (_, true) => "_R_.<r>.<r>.<r>.T",
            _ => subject,
        });
        rest = after;
    }
    out.push_str(rest);
    out
}

/// RFC 3339 times in UTC become `<time>`; the zero time is a statement and stays.
fn replace_times(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((at, length)) = find_time(rest) {
        out.push_str(&rest[..at]);
        let time = &rest[at..at + length];
        out.push_str(if time.starts_with("0001-") { time } else { "<time>" });
        rest = &rest[at + length..];
    }
    out.push_str(rest);
    out
}

fn find_time(text: &str) -> Option<(usize, usize)> {
    const SHAPE: &[u8] = b"dddd-dd-ddTdd:dd:dd";
    let bytes = text.as_bytes();
    let fits = |window: &[u8]| {
        window.iter().zip(SHAPE).all(|(b, s)| if *s == b'd' { b.is_ascii_digit() } else { b == s })
    };
    let at = bytes.windows(SHAPE.len()).position(fits)?;
    let mut end = at + SHAPE.len();
    if bytes.get(end) == Some(&b'.') {
        end += 1 + bytes[end + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
    }
    // A time with another ending is cut here too; its ending stays and shows.
    if bytes.get(end) == Some(&b'Z') {
        end += 1;
    }
    Some((at, end - at))
}

/// The timestamp in an ack subject and the random end of a flow control subject.
fn replace_reply_subjects(text: &str) -> String {
    if !text.contains("$JS.ACK.") && !text.contains("$JS.FC.") {
        return text.to_owned();
    }
    let mut words = Vec::new();
    for word in text.split(' ') {
        let mut tokens: Vec<&str> = word.split('.').collect();
        if word.starts_with("$JS.ACK.") {
            for token in &mut tokens {
                if token.len() >= 16 && token.bytes().all(|b| b.is_ascii_digit()) {
                    *token = "<ts>";
                }
            }
        } else if let Some(last) = tokens.last_mut()
            && word.starts_with("$JS.FC.")
        {
            *last = if last.ends_with("\\r\\n") { "<r>\\r\\n" } else { "<r>" };
        }
        words.push(tokens.join("."));
    }
    words.join(" ")
}
