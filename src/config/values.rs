//! Reading values: kinds, ranges and units, with a mistake for what does not fit.
//!
//! Owns the helpers every block's reader uses, and what becomes of keys that are unknown,
//! without effect or not there. Does not own the meaning of any key.
//!
//! # Invariants
//! - A helper that returns `None` has added a mistake.

use super::Secret;
use super::keys::{Block, Kind, Support};
use super::mistake::nearest;
use super::parser::{Entry, Map, Node, Value};
use super::read::Reader;
use super::units::{duration, short};
use crate::sorted;
use std::path::PathBuf;
use std::time::Duration;

impl Reader<'_> {
    /// The known keys of a block in the order of the text; reports the others.
    pub(super) fn entries<'m>(
        &mut self,
        map: &'m Map,
        block: &Block,
    ) -> Vec<(&'static str, &'m Entry)> {
        let mut entries = Vec::new();
        for (name, entry) in map {
            let Some(key) = block.find(name) else {
                if !entry.is_variable {
                    self.unknown(name, entry, block);
                }
                continue;
            };
            match key.1 {
                Support::Read => entries.push((key.name(), entry)),
                Support::NoEffect(kind) => self.check_kind(key.name(), kind, &entry.node),
                Support::OnlyFalse => {
                    if !matches!(entry.node.value, Value::Bool(false)) {
                        self.not_yet(name, entry, "");
                    }
                }
                Support::NotYet(instead) => self.not_yet(name, entry, instead),
            }
        }
        sorted::sort_by_key(&mut entries, |(_, entry)| (entry.place.line, entry.place.column));
        entries
    }

    fn unknown(&mut self, name: &str, entry: &Entry, block: &Block) {
        if self.mistakes.is_full() {
            return;
        }
        let names = block.keys.iter().flat_map(|key| key.0.iter().copied());
        let lower = name.chars().take(64).collect::<String>().to_lowercase();
        let hint = match nearest(&lower, names) {
            Some(known) => format!("; did you mean \"{known}\"?"),
            None => format!("; there is no such key in {}", block.name),
        };
        self.mistakes.add(entry.place.clone(), format!("unknown field \"{}\"{hint}", short(name)));
    }

    fn not_yet(&mut self, name: &str, entry: &Entry, instead: &str) {
        let dash = if instead.is_empty() { "" } else { ": " };
        self.mistakes.add(
            entry.place.clone(),
            format!("Sedge does not have \"{}\" yet{dash}{instead}", short(name)),
        );
    }

    fn check_kind(&mut self, key: &str, kind: Kind, node: &Node) {
        match kind {
            Kind::Boolean => self.flag(key, node, &mut false),
            Kind::Integer => {
                self.integer(key, node, i64::MIN, i64::MAX);
            }
            Kind::Duration => {
                self.duration(key, node);
            }
            Kind::Text => {
                self.text(key, node);
            }
            Kind::Any => {}
        }
    }

    pub(super) fn wrong(&mut self, node: &Node, what: impl Into<String>) {
        self.mistakes.add(node.place.clone(), what);
    }

    pub(super) fn wrong_kind(&mut self, key: &str, node: &Node, wanted: &str) {
        self.wrong(node, format!("{key} must be {wanted}, not {}", node.value.kind()));
    }

    pub(super) fn set<T>(&mut self, field: &mut T, read: impl FnOnce(&mut Self) -> Option<T>) {
        if let Some(value) = read(self) {
            *field = value;
        }
    }

    pub(super) fn flag(&mut self, key: &str, node: &Node, field: &mut bool) {
        match &node.value {
            Value::Bool(value) => *field = *value,
            _ => self.wrong_kind(key, node, "true or false without quotes"),
        }
    }

    pub(super) fn text(&mut self, key: &str, node: &Node) -> Option<String> {
        if let Value::Text(text) = &node.value {
            if text.contains('\0') {
                self.wrong(node, format!("{key} holds a NUL"));
                return None;
            }
            return Some(text.clone());
        }
        self.wrong_kind(key, node, "text, in quotes if it looks like something else");
        None
    }

    /// A text; an empty one is as if it were not there.
    pub(super) fn filled(&mut self, key: &str, node: &Node) -> Option<String> {
        self.text(key, node).filter(|text| !text.is_empty())
    }

    /// One text or a list of them.
    pub(super) fn texts(&mut self, key: &str, node: &Node) -> Vec<String> {
        node.elements().iter().filter_map(|node| self.text(key, node)).collect()
    }

    pub(super) fn secret(&mut self, key: &str, node: &Node) -> Option<Secret> {
        self.text(key, node).map(Secret::new)
    }

    pub(super) fn path(&mut self, key: &str, node: &Node) -> Option<PathBuf> {
        self.text(key, node).filter(|text| !text.is_empty()).map(PathBuf::from)
    }

    pub(super) fn map<'m>(&mut self, key: &str, node: &'m Node) -> Option<&'m Map> {
        if let Value::Map(map) = &node.value {
            return Some(map);
        }
        self.wrong_kind(key, node, "a block { }");
        None
    }

    pub(super) fn integer(&mut self, key: &str, node: &Node, min: i64, max: i64) -> Option<i64> {
        match &node.value {
            Value::Integer { value, .. } if (min..=max).contains(value) => Some(*value),
            Value::Integer { value, .. } => {
                self.wrong(node, format!("{key}: {value} is out of range; {min} to {max}"));
                None
            }
            _ => {
                self.wrong_kind(key, node, "a whole number without quotes, like 1000, 64KB or 1MB");
                None
            }
        }
    }

    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &str,
        node: &Node,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let text = self.text(key, node)?;
        let found = choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(&text));
        if found.is_none() {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let text = short(&text);
            self.wrong(node, format!("{key}: \"{text}\" is not one of {}", names.join(" ")));
        }
        found.map(|(_, value)| *value)
    }

    /// A duration; a bare whole number is seconds, with a warning as in nats-server.
    pub(super) fn duration(&mut self, key: &str, node: &Node) -> Option<Duration> {
        match &node.value {
            Value::Text(text) => match duration(text) {
                Ok(value) => Some(value),
                Err(what) => {
                    self.wrong(node, format!("{key}: {what}"));
                    None
                }
            },
            Value::Integer { source, .. } if source.ends_with(|c: char| !c.is_ascii_digit()) => {
                self.suffixed(key, node, source);
                None
            }
            Value::Integer { value, .. } => {
                let Ok(seconds) = u64::try_from(*value) else {
                    self.wrong(node, format!("{key} is negative"));
                    return None;
                };
                self.warnings.add(
                    node.place.clone(),
                    format!("{key} should be converted to a duration: \"{seconds}s\""),
                );
                self.whole_seconds(key, node, seconds)
            }
            _ => {
                self.wrong_kind(key, node, "a duration like \"30s\"");
                None
            }
        }
    }

    /// The trap of the language: outside quotes `2m` is two million.
    fn suffixed(&mut self, key: &str, node: &Node, source: &str) {
        let what = format!(
            "{key}: without quotes {source} is a number, k m g meaning thousand, million, \
             billion; write \"{source}\" for a duration"
        );
        self.wrong(node, what);
    }

    fn whole_seconds(&mut self, key: &str, node: &Node, seconds: u64) -> Option<Duration> {
        // The bound of a duration written as text.
        if seconds > 9_223_372_036 {
            self.wrong(node, format!("{key} is longer than 292 years"));
            return None;
        }
        Some(Duration::from_secs(seconds))
    }

    /// A duration that nats-server takes as text only.
    pub(super) fn quoted_duration(&mut self, key: &str, node: &Node) -> Option<Duration> {
        if let Value::Text(_) = node.value {
            return self.duration(key, node);
        }
        self.wrong_kind(key, node, "a duration in quotes like \"30s\"");
        None
    }

    /// Seconds, whole or with a point, or a duration.
    pub(super) fn seconds(&mut self, key: &str, node: &Node) -> Option<Duration> {
        let value = match &node.value {
            Value::Text(_) => self.duration(key, node)?,
            Value::Integer { source, .. } if source.ends_with(|c: char| !c.is_ascii_digit()) => {
                self.suffixed(key, node, source);
                return None;
            }
            Value::Integer { value, .. } => {
                let Ok(seconds) = u64::try_from(*value) else {
                    self.wrong(node, format!("{key} is negative"));
                    return None;
                };
                self.whole_seconds(key, node, seconds)?
            }
            Value::Float(value) => {
                let Ok(value) = Duration::try_from_secs_f64(*value) else {
                    self.wrong(node, format!("{key}: {value} is no number of seconds"));
                    return None;
                };
                value
            }
            _ => {
                self.wrong_kind(key, node, "seconds or a duration like \"2s\"");
                return None;
            }
        };
        Some(value)
    }

    /// A path to a file that can be read now.
    pub(super) fn readable(&mut self, key: &str, node: &Node) -> Option<PathBuf> {
        let path = self.path(key, node)?;
        match self.surroundings.read(&path) {
            Ok(_) => Some(path),
            Err(reason) => {
                self.wrong(node, format!("{key}: cannot read {}: {reason}", path.display()));
                None
            }
        }
    }
}

/// nats-server's rule for most options: 0 is the default.
pub(super) fn set_unless_zero<T: Default + PartialEq>(field: &mut T, value: Option<T>) {
    if let Some(value) = value
        && value != T::default()
    {
        *field = value;
    }
}
