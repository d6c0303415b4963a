//! Blocks of permissions: what a user may publish, subscribe to and answer.
//!
//! Owns their forms and the check of their subjects and queue names. Does not own what they
//! mean: `auth::permissions` does.

use super::keys::{PERMISSIONS, RESPONSES, RULES};
use super::parser::{Node, Value};
use super::read::Reader;
use super::units::{duration, is_filter, short};
use crate::auth::permissions::{Entry, Permissions, Responses, Rules};
use std::rc::Rc;
use std::time::Duration;

/// What `allow_responses: true` grants.
const RESPONSES_DEFAULT: Responses =
    Responses { max: Some(1), expires: Some(Duration::from_mins(2)) };

impl Reader<'_> {
    pub(super) fn permissions(&mut self, node: &Node) -> Option<Rc<Permissions>> {
        let Value::Map(map) = &node.value else {
            let kind = node.value.kind();
            self.wrong(node, format!("Expected permissions to be a map/struct, got {kind}"));
            return None;
        };
        let mut permissions = Permissions::default();
        for (key, entry) in self.entries(map, &PERMISSIONS) {
            let node = &entry.node;
            match key {
                "publish" => permissions.publish = self.rules(key, node, false),
                "subscribe" => permissions.subscribe = self.rules(key, node, true),
                "allow_responses" => permissions.responses = self.responses(key, node),
                _ => {}
            }
        }
        Some(Rc::new(permissions))
    }

    fn rules(&mut self, key: &str, node: &Node, queues: bool) -> Rules {
        let mut rules = Rules::default();
        let Value::Map(map) = &node.value else {
            rules.allow = self.subjects(key, node, queues);
            return rules;
        };
        for (key, entry) in self.entries(map, &RULES) {
            let entries = self.subjects(key, &entry.node, queues);
            if key == "deny" {
                rules.deny = entries;
            } else {
                rules.allow = entries;
            }
        }
        rules
    }

    fn subjects(&mut self, key: &str, node: &Node, queues: bool) -> Vec<Entry> {
        if !matches!(node.value, Value::Text(_) | Value::Array(_)) {
            let kind = node.value.kind();
            let what = "Expected subject permissions to be a subject, or array of subjects, got";
            self.wrong(node, format!("{what} {kind}"));
            return Vec::new();
        }
        let mut entries = Vec::new();
        for node in node.elements() {
            let Some(text) = self.text(key, node) else { continue };
            match entry(&text, queues) {
                Ok(entry) => entries.push(entry),
                Err(what) => self.wrong(node, what),
            }
        }
        entries
    }

    fn responses(&mut self, key: &str, node: &Node) -> Option<Responses> {
        let map = match &node.value {
            Value::Bool(on) => return on.then_some(RESPONSES_DEFAULT),
            Value::Map(map) => map,
            _ => {
                let what = "error parsing response permissions, expected a boolean or a map";
                self.wrong(node, format!("{key}: {what}"));
                return None;
            }
        };
        let mut responses = RESPONSES_DEFAULT;
        for (key, entry) in self.entries(map, &RESPONSES) {
            let node = &entry.node;
            match (key, &node.value) {
                ("max", _) => match self.integer(key, node, i64::MIN, u32::MAX.into()) {
                    // 0 is the default, below is without limit.
                    Some(0) | None => {}
                    Some(value) => responses.max = u32::try_from(value).ok(),
                },
                (_, Value::Text(text)) => {
                    let (negative, text) = match text.strip_prefix('-') {
                        Some(text) => (true, text),
                        None => (false, text.as_str()),
                    };
                    match duration(text) {
                        Ok(value) if value.is_zero() => {}
                        Ok(value) => responses.expires = (!negative).then_some(value),
                        Err(what) => self.wrong(node, format!("error parsing expires: {what}")),
                    }
                }
                _ => self.wrong(node, "error parsing expires, not a duration string like \"2m\""),
            }
        }
        Some(responses)
    }
}

/// A subject, for subscriptions perhaps with a queue group behind blanks.
fn entry(text: &str, queues: bool) -> Result<Entry, String> {
    let no_subject = || format!("subject {:?} is not a valid subject", short(text));
    if is_filter(text) {
        return Ok(Entry { subject: text.to_owned(), queue: None });
    }
    if !queues || text.starts_with(char::is_whitespace) || text.ends_with(char::is_whitespace) {
        return Err(no_subject());
    }
    let mut words = text.split_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some(subject), Some(queue), None) if is_filter(subject) => {
            if !is_filter(queue) {
                return Err(format!("queue {:?} is not a valid queue", short(queue)));
            }
            Ok(Entry { subject: subject.to_owned(), queue: Some(queue.to_owned()) })
        }
        _ => Err(no_subject()),
    }
}
