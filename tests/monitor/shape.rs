//! JSON as it was written: the order of members counts.

use std::collections::BTreeSet;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// Members whose values must agree.
const VALUES: &[&str] = &[
    "num_connections",
    "total",
    "offset",
    "limit",
    "kind",
    "type",
    "client_type",
    "name",
    "lang",
    "version",
    "authorized_user",
    "account",
    "name_tag",
    "acc",
    "user",
    "account_name",
    "reason",
    "tls_version",
    "tls_cipher_suite",
    "leafnodes",
    "is_spoke",
    "conns",
    "total_conns",
    "leafnode_connections",
    "client_connections",
    "is_system",
    "jetstream_enabled",
    "expired",
    "complete",
    "streams",
    "consumers",
    "messages",
    "first_seq",
    "last_seq",
    "num_subjects",
    "consumer_count",
    "consumer_seq",
    "stream_seq",
    "num_pending",
    "num_ack_pending",
    "status",
    "status_code",
    "description",
    "code",
    "in_msgs",
    "system_account",
    "subject",
    "to",
    "local_subject",
    "weight",
    "share",
    "tracking",
    "invalid",
    "response_type",
    "sampling",
    "results",
    "approved_accounts",
    "key",
    "js_ack_fc_v2",
    "js_api_reply_v2",
    "js_raft_delete_range",
    "js_snapshot_sources",
    "tls_first",
    "write_timeout",
    "sha256",
    "qgroup",
    "sid",
    "max",
    "tags",
    "tls_verify",
    "tls_required",
    "auth_required",
];

/// Lists in no order, and the member that names an element of each.
const KEYS: [(&str, &str); 3] =
    [("exports", "subject"), ("imports", "local_subject"), ("account_statz", "acc")];

impl Json {
    /// Reads the whole of `text`.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let mut reader = Reader { text: text.as_bytes(), at: 0 };
        let value = reader.value()?;
        reader.blank();
        if reader.at == text.len() { Ok(value) } else { Err(format!("more after JSON: {text}")) }
    }

    /// A member of an object.
    pub(crate) fn get(&self, name: &str) -> Option<&Json> {
        match self {
            Self::Object(members) => {
                members.iter().find(|(key, _)| key == name).map(|(_, value)| value)
            }
            _ => None,
        }
    }

    /// One line for each member, in order: its path and type, or its value if that has to
    /// agree. The elements of a list are told together.
    pub(crate) fn shape(&self) -> Vec<String> {
        let mut lines = Vec::new();
        self.lines("", &mut lines);
        lines
    }

    /// Which member comes before which, in each object.
    pub(crate) fn order(&self, path: &str, order: &mut BTreeSet<[String; 3]>) {
        match self {
            Self::Object(members) => {
                for (at, (key, value)) in members.iter().enumerate() {
                    for (later, _) in members.iter().skip(at + 1) {
                        order.insert([path.to_owned(), key.clone(), later.clone()]);
                    }
                    value.order(&format!("{path}.{key}"), order);
                }
            }
            Self::List(elements) => {
                for element in elements {
                    element.order(&format!("{path}[]"), order);
                }
            }
            _ => {}
        }
    }

    /// Is it a subscription of the server itself? Each server has others.
    fn is_internal(&self) -> bool {
        let Some(Self::Text(subject)) = self.get("subject") else { return false };
        // Those of imports and of a stream are too.
        let own = ["mine", "two.*", "many", "timed", "asked", "s.*"];
        subject.starts_with('$') || subject.starts_with("_R_.") || own.contains(&&**subject)
    }

    fn lines(&self, path: &str, lines: &mut Vec<String>) {
        let name = path.rsplit('.').next().unwrap_or_default();
        let name = name.trim_end_matches("[]");
        let kind = match self {
            Self::Object(members) if !members.is_empty() => {
                for (key, value) in members {
                    // The subject of an answer under way is random.
                    let key = if key.starts_with("_R_.") { "_R_" } else { key };
                    value.lines(&format!("{path}.{key}"), lines);
                }
                return;
            }
            Self::List(elements) if name == "subscriptions_list" => {
                for element in elements.iter().filter(|element| !element.is_internal()) {
                    element.lines(&format!("{path}[]"), lines);
                }
                return;
            }
            Self::List(elements) if !elements.is_empty() => {
                let key = KEYS.iter().find(|(list, _)| *list == name).map(|(_, key)| *key);
                for element in elements {
                    match key.and_then(|key| element.get(key)) {
                        Some(Self::Text(key)) => element.lines(&format!("{path}[{key}]"), lines),
                        _ => element.lines(&format!("{path}[]"), lines),
                    }
                }
                return;
            }
            Self::Object(_) => "{}",
            Self::List(_) => "[]",
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Number(_) => "number",
            Self::Text(_) => "text",
        };
        let line = match self {
            Self::Bool(value) if VALUES.contains(&name) => format!("{path} = {value}"),
            // A link's own subject is random.
            Self::Text(value) if VALUES.contains(&name) && value.starts_with("$LDS.") => {
                format!("{path} = $LDS")
            }
            Self::Number(value) | Self::Text(value) if VALUES.contains(&name) => {
                format!("{path} = {value}")
            }
            _ => format!("{path}: {kind}"),
        };
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn blank(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn peek(&mut self) -> u8 {
        self.blank();
        self.text.get(self.at).copied().unwrap_or(0)
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == byte;
        self.at += usize::from(found);
        found
    }

    fn wrong<T>(&self) -> Result<T, String> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        Err(format!("no JSON: {}", String::from_utf8_lossy(rest)))
    }

    fn value(&mut self) -> Result<Json, String> {
        match self.peek() {
            b'{' => {
                self.at += 1;
                let mut members = Vec::new();
                while !self.take(b'}') {
                    let Json::Text(key) = self.value()? else { return self.wrong() };
                    if !self.take(b':') {
                        return self.wrong();
                    }
                    members.push((key, self.value()?));
                    if !self.take(b',') && self.peek() != b'}' {
                        return self.wrong();
                    }
                }
                Ok(Json::Object(members))
            }
            b'[' => {
                self.at += 1;
                let mut elements = Vec::new();
                while !self.take(b']') {
                    elements.push(self.value()?);
                    if !self.take(b',') && self.peek() != b']' {
                        return self.wrong();
                    }
                }
                Ok(Json::List(elements))
            }
            _ => {
                let rest = self.text.get(self.at..).unwrap_or_default();
                let mut values =
                    serde_json::Deserializer::from_slice(rest).into_iter::<serde_json::Value>();
                let Some(Ok(value)) = values.next() else { return self.wrong() };
                self.at += values.byte_offset();
                Ok(match value {
                    serde_json::Value::Null => Json::Null,
                    serde_json::Value::Bool(value) => Json::Bool(value),
                    serde_json::Value::String(text) => Json::Text(text),
                    other => Json::Number(other.to_string()),
                })
            }
        }
    }
}
