//! Templates of scoped signing keys: markers in subjects, filled in for one user.
//!
//! Owns the markers (`{{name()}}`, `{{tag(site)}}` …) and what becomes of an entry. Does not
//! own the rest of the template, which holds as it is.
//!
//! # Invariants
//! - A value is put in once and not looked at again. A value with a wildcard, a blank, a
//!   brace or a control character, which would make the entry wider, refuses the login
//!   unless the rules are lax.
//! - A list has at most [`TEMPLATE_ENTRIES_MAX`] entries.
//!
//! Source: NATS docs, "Scoped Signing Keys", "Subject templates"; rules as nats-server
//! 2.15.1.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::Token;
use super::claims::{AccountClaims, Lists};
use crate::limits::TEMPLATE_ENTRIES_MAX;
use crate::subject::is_valid_strict;

/// A template cannot be filled in for this user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadTemplate;

/// What markers stand for.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    /// The user.
    pub user: &'a Token,
    /// Its account.
    pub account: &'a AccountClaims,
    /// Values may have wildcards, as in nats-server.
    pub lax: bool,
}

impl Values<'_> {
    /// Fills in both lists. An allow list that comes out empty allows nothing.
    pub fn fill(&self, lists: &Lists) -> Result<Lists, BadTemplate> {
        let mut filled =
            Lists { allow: self.list(&lists.allow, false)?, deny: self.list(&lists.deny, true)? };
        if filled.allow.is_empty() && !lists.allow.is_empty() {
            filled.deny.push(">".into());
        }
        Ok(filled)
    }

    fn list(&self, entries: &[String], deny: bool) -> Result<Vec<String>, BadTemplate> {
        if !entries.iter().any(|entry| markers(entry).next().is_some()) {
            return Ok(entries.to_vec());
        }
        let mut filled = Vec::new();
        for entry in entries {
            self.entry(entry, deny, &mut filled)?;
        }
        Ok(filled)
    }

    fn entry(&self, entry: &str, deny: bool, out: &mut Vec<String>) -> Result<(), BadTemplate> {
        // Each marker once, with all its values: the same text is the same value everywhere.
        let mut known: Vec<(&str, Vec<String>)> = Vec::new();
        for marker in markers(entry) {
            if !known.iter().any(|(other, _)| *other == marker) {
                known.push((marker, self.values(marker)?));
            }
        }
        let count =
            known.iter().try_fold(1_usize, |count, (_, values)| count.checked_mul(values.len()));
        let count = count.filter(|count| out.len().saturating_add(*count) <= TEMPLATE_ENTRIES_MAX);
        let count = count.ok_or(BadTemplate)?;
        if count == 0 && deny {
            return Err(BadTemplate);
        }
        for mut number in 0..count {
            let mut text = String::new();
            let mut rest = entry;
            let mut chosen: Vec<(&str, &str)> = Vec::new();
            for (marker, values) in &known {
                let value = values.get(number % values.len()).map_or("", String::as_str);
                number /= values.len();
                chosen.push((marker, value));
            }
            while let Some((before, marker, after)) = next_marker(rest) {
                text.push_str(before);
                let value = chosen.iter().find(|(other, _)| *other == marker);
                text.push_str(value.map_or("", |(_, value)| value));
                rest = after;
            }
            text.push_str(rest);
            let subject = text.split_once(' ').map_or(text.as_str(), |(subject, _)| subject);
            if is_valid_strict(subject.as_bytes()) {
                out.push(text);
            } else if deny {
                return Err(BadTemplate);
            }
        }
        Ok(())
    }

    fn values(&self, marker: &str) -> Result<Vec<String>, BadTemplate> {
        let operation = marker.trim();
        let lower = operation.to_ascii_lowercase();
        let tag = |name: &str| {
            let name = operation.get(name.len()..)?.strip_prefix('(')?.strip_suffix(')')?;
            Some(format!("{}:", name.trim().to_ascii_lowercase()))
        };
        let values = match lower.as_str() {
            "name()" => [self.user.name.clone()].into(),
            "subject()" => [self.user.subject.clone()].into(),
            "account-name()" => [self.account.name.clone()].into(),
            "account-subject()" => [self.account.key.to_string()].into(),
            _ if lower.starts_with("tag(") => {
                of_tags(&self.user.tags, &tag("tag").ok_or(BadTemplate)?)
            }
            _ if lower.starts_with("account-tag(") => {
                of_tags(&self.account.tags, &tag("account-tag").ok_or(BadTemplate)?)
            }
            _ => return Err(BadTemplate),
        };
        let wide = |value: &String| {
            value.contains(|c: char| {
                matches!(c, '*' | '>' | '{' | '}') || c.is_whitespace() || c.is_control()
            })
        };
        if !self.lax && values.iter().any(wide) { Err(BadTemplate) } else { Ok(values) }
    }
}

fn of_tags(tags: &[String], prefix: &str) -> Vec<String> {
    tags.iter().filter_map(|tag| tag.strip_prefix(prefix)).map(String::from).collect()
}

/// The text before the next marker, what is inside it, and the text behind.
fn next_marker(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once("{{")?;
    let (marker, after) = rest.split_once("}}")?;
    if marker.contains('}') { None } else { Some((before, marker, after)) }
}

fn markers(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    core::iter::from_fn(move || {
        let (_, marker, after) = next_marker(rest)?;
        rest = after;
        Some(marker)
    })
}
