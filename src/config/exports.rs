//! Exports and imports of accounts.
//!
//! Owns their forms, and whether each import is one its exporter allows. Does not own what
//! they do: the broker moves the messages.
//!
//! # Invariants
//! - An import of a finished `Config` names an account that exports its subject to the
//!   importer.
//! - Following imports of one kind never leads back to where one started.

use super::Config;
use super::accounts::Declared;
use super::keys::{EXPORT, IMPORT, IMPORT_SOURCE, LATENCY};
use super::mistake::Place;
use super::parser::{Node, Value};
use super::read::Reader;
use super::units::{duration, is_filter, short};
use crate::auth::account::{
    Export, ExportKind, Import, ImportKind, Latency, ResponseType, Sampling,
};
use crate::sorted;
use crate::subject::transform::{Purpose, Transform, tokenized, untokenized};
use crate::subject::{collides, has_wildcard, is_subset, is_valid_literal, tokens};
use std::collections::BTreeMap;

/// Imports of all accounts: each is compared with the others.
const IMPORTS_MAX: usize = 4096;

/// An import as it was written.
pub(super) struct Imported {
    importer: String,
    import: Import,
    place: Place,
}

impl Reader<'_> {
    pub(super) fn exports(&mut self, node: &Node, declared: &mut Declared) -> Vec<Export> {
        let Value::Array(nodes) = &node.value else {
            let kind = node.value.kind();
            self.wrong(node, format!("Exports should be an array, got {kind}"));
            return Vec::new();
        };
        nodes.iter().filter_map(|node| self.export(node, declared)).collect()
    }

    fn export(&mut self, node: &Node, declared: &mut Declared) -> Option<Export> {
        let Value::Map(map) = &node.value else {
            let kind = node.value.kind();
            self.wrong(node, format!("Export Items should be a map with type entry, got {kind}"));
            return None;
        };
        let mut subject: Option<(&str, String, &Node)> = None;
        let mut accounts: Option<Vec<(String, Place)>> = None;
        let mut response = ResponseType::default();
        let (mut threshold, mut latency, mut position) = (None, None, None);
        let mut allow_trace = false;
        // What only a service has: where it stands and what it is called.
        let mut of_service = Vec::new();
        for (key, entry) in self.entries(map, &EXPORT) {
            let node = &entry.node;
            match key {
                "stream" | "service" => {
                    if let Some((first, ..)) = subject {
                        let text = self.text(key, node).unwrap_or_default();
                        let text = short(&text);
                        self.mistakes.add(
                            entry.place.clone(),
                            format!("Detected {key} {text:?} but already saw a {first}"),
                        );
                        return None;
                    }
                    subject = Some((key, self.text(key, node)?, node));
                }
                "accounts" => accounts = self.names(key, node),
                "account_token_position" => {
                    // 0 is "none".
                    let value = self.integer(key, node, 0, u16::MAX.into())?;
                    position = u16::try_from(value).ok().filter(|position| *position > 0);
                }
                "response_type" => {
                    of_service.push(("response", entry.place.clone()));
                    self.set(&mut response, |this| this.response_type(node));
                }
                "response_threshold" => {
                    of_service.push(("response", entry.place.clone()));
                    threshold = match &node.value {
                        Value::Text(text) => duration(text).ok(),
                        _ => None,
                    };
                    if threshold.is_none() {
                        self.wrong(
                            node,
                            "Expected response threshold to be a parseable time duration like \
                             \"2s\"",
                        );
                    }
                }
                "latency" => {
                    of_service.push(("latency", entry.place.clone()));
                    latency = self.latency(key, node);
                }
                "allow_trace" => {
                    of_service.push(("allow_trace", entry.place.clone()));
                    self.flag(key, node, &mut allow_trace);
                }
                _ => {}
            }
        }
        let Some((kind, subject, subject_node)) = subject else {
            self.wrong(node, "this export has neither a stream nor a service");
            return None;
        };
        let (kind, name) = if kind == "stream" {
            for (what, place) in of_service {
                self.mistakes.add(place, format!("Detected {what} directive on non-service"));
            }
            (ExportKind::Stream, "stream")
        } else {
            (ExportKind::Service { response, threshold, latency }, "service")
        };
        for (account, place) in accounts.iter().flatten() {
            declared.grantees.push((account.clone(), name, place.clone()));
        }
        let export = Export {
            subject,
            kind,
            accounts: accounts.map(|accounts| accounts.into_iter().map(|(name, _)| name).collect()),
            account_token_position: position,
            allow_trace,
        };
        if let Err(what) = check_export(&export) {
            let subject = short(&export.subject);
            self.wrong(subject_node, format!("Error adding {name} export {subject:?}: {what}"));
            return None;
        }
        if let ExportKind::Service { response, latency: Some(latency), .. } = &export.kind {
            let what = if *response != ResponseType::Singleton {
                "bad service response type"
            } else if !is_valid_literal(latency.subject.as_bytes()) || !is_filter(&latency.subject)
            {
                "invalid publish subject"
            } else {
                return Some(export);
            };
            let (subject, results) = (short(&export.subject), short(&latency.subject));
            self.wrong(
                subject_node,
                format!(
                    "Error adding service latency sampling for {subject:?} on subject \
                     {results:?}: {what}"
                ),
            );
        }
        Some(export)
    }

    /// A list of names; an empty one is as if it were not there.
    fn names(&mut self, key: &str, node: &Node) -> Option<Vec<(String, Place)>> {
        let Value::Array(nodes) = &node.value else {
            self.wrong_kind(key, node, "a list [ ]");
            return None;
        };
        let names: Vec<_> = nodes
            .iter()
            .filter_map(|node| self.text(key, node).map(|name| (name, node.place.clone())))
            .collect();
        (!names.is_empty()).then_some(names)
    }

    fn response_type(&mut self, node: &Node) -> Option<ResponseType> {
        let text = self.text("response_type", node)?;
        match text.to_ascii_lowercase().as_str() {
            "single" | "singleton" => Some(ResponseType::Singleton),
            "stream" => Some(ResponseType::Stream),
            "chunk" | "chunked" => Some(ResponseType::Chunked),
            _ => {
                let text = short(&text);
                self.wrong(
                    node,
                    format!("Unknown response type: {text:?}; there are singleton stream chunked"),
                );
                None
            }
        }
    }

    fn latency(&mut self, key: &str, node: &Node) -> Option<Latency> {
        let map = match &node.value {
            Value::Text(_) => {
                let subject = self.text(key, node)?;
                return Some(Latency { subject, sampling: Sampling::Percent(100) });
            }
            Value::Map(map) => map,
            _ => {
                let kind = node.value.kind();
                self.wrong(
                    node,
                    format!("Expected latency entry to be a map/struct or string, got {kind}"),
                );
                return None;
            }
        };
        let mut subject = None;
        let mut sampling = Sampling::Percent(100);
        for (key, entry) in self.entries(map, &LATENCY) {
            let node = &entry.node;
            match (key, &node.value) {
                ("subject", _) => subject = self.text(key, node),
                (_, Value::Text(text)) if text.trim().eq_ignore_ascii_case("headers") => {
                    sampling = Sampling::Headers;
                }
                _ => {
                    if let Some(value) = self.percentage("latency", node) {
                        sampling = Sampling::Percent(value);
                    }
                }
            }
        }
        if subject.is_none() {
            self.wrong(node, "Latency subject required, but missing");
        }
        Some(Latency { subject: subject?, sampling })
    }

    pub(super) fn imports(&mut self, node: &Node, importer: &str, declared: &mut Declared) {
        let Value::Array(nodes) = &node.value else {
            let kind = node.value.kind();
            self.wrong(node, format!("Imports should be an array, got {kind}"));
            return;
        };
        for node in nodes {
            if declared.imports.len() >= IMPORTS_MAX {
                self.wrong(node, format!("more than {IMPORTS_MAX} imports of all accounts"));
                return;
            }
            let Some(import) = self.import(node) else { continue };
            let place = node.place.clone();
            declared.imports.push(Imported { importer: importer.to_owned(), import, place });
        }
    }

    fn import(&mut self, node: &Node) -> Option<Import> {
        let Value::Map(map) = &node.value else {
            let kind = node.value.kind();
            self.wrong(node, format!("Import Items should be a map with type entry, got {kind}"));
            return None;
        };
        let mut source: Option<(&str, String, String)> = None;
        let (mut to, mut prefix) = (None, None);
        let (mut share, mut allow_trace) = (false, false);
        let mut trace_place = None;
        for (key, entry) in self.entries(map, &IMPORT) {
            let node = &entry.node;
            match key {
                "stream" | "service" => {
                    if let Some((first, ..)) = source {
                        self.mistakes.add(
                            entry.place.clone(),
                            format!("Detected {key} but already saw a {first}"),
                        );
                        return None;
                    }
                    let (account, subject) = self.import_source(key, node, &entry.place)?;
                    source = Some((key, account, subject));
                }
                "to" => to = self.text(key, node).filter(|to| !to.is_empty()),
                "prefix" => prefix = self.text(key, node).filter(|prefix| !prefix.is_empty()),
                "share" => self.flag(key, node, &mut share),
                "allow_trace" => {
                    trace_place = Some(entry.place.clone());
                    self.flag(key, node, &mut allow_trace);
                }
                _ => {}
            }
        }
        let Some((kind, account, subject)) = source else {
            self.wrong(node, "this import has neither a stream nor a service");
            return None;
        };
        let is_stream = kind == "stream";
        if !is_stream && let Some(place) = trace_place {
            self.mistakes.add(place, "Detected allow_trace directive on a non-stream");
        }
        if is_stream && let Some(prefix) = prefix {
            if to.is_some() {
                self.wrong(node, "Stream import can not have a 'prefix' and a 'to' property");
                return None;
            }
            let prefix = prefix.strip_suffix('.').unwrap_or(&prefix);
            if has_wildcard(prefix.as_bytes()) {
                let subject = short(&subject);
                self.wrong(
                    node,
                    format!(
                        "Error adding stream import {subject:?}: stream import prefix can not \
                         contain wildcard tokens"
                    ),
                );
                return None;
            }
            to = Some(format!("{prefix}.{subject}"));
        }
        let kind = if is_stream {
            ImportKind::Stream { allow_trace }
        } else {
            ImportKind::Service { share }
        };
        Some(Import { account, subject, to, kind })
    }

    fn import_source(&mut self, key: &str, node: &Node, place: &Place) -> Option<(String, String)> {
        let Value::Map(map) = &node.value else {
            let kind = node.value.kind();
            let title = if key == "stream" { "Stream" } else { "Service" };
            self.wrong(node, format!("{title} entry should be an account map, got {kind}"));
            return None;
        };
        let (mut account, mut subject) = (None, None);
        let mut failed = false;
        for (key, entry) in self.entries(map, &IMPORT_SOURCE) {
            let text = self.text(key, &entry.node);
            failed |= text.is_none();
            if key == "account" {
                account = text;
            } else {
                subject = text;
            }
        }
        let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
        match (filled(account), filled(subject)) {
            (Some(account), Some(subject)) => Some((account, subject)),
            _ => {
                if !failed {
                    self.mistakes.add(place.clone(), "Expect an account name and a subject");
                }
                None
            }
        }
    }

    /// Gives each account its imports, as far as their exporters allow them.
    pub(super) fn join_imports(&mut self, config: &mut Config, imports: Vec<Imported>) {
        let mut good: Vec<Imported> = Vec::new();
        for imported in imports {
            match check_import(config, &imported, &good) {
                Ok(()) => good.push(imported),
                Err(what) => self.mistakes.add(imported.place, what),
            }
        }
        for index in cyclic(&good) {
            let Some(imported) = good.get(index) else { continue };
            let (kind, subject) = (kind(&imported.import), short(&imported.import.subject));
            self.mistakes.add(
                imported.place.clone(),
                format!("Error adding {kind} import {subject:?}: import forms a cycle"),
            );
        }
        for imported in good {
            let account =
                config.accounts.iter_mut().find(|account| account.name == imported.importer);
            if let Some(account) = account {
                account.imports.push(imported.import);
            }
        }
    }
}

fn kind(import: &Import) -> &'static str {
    match import.kind {
        ImportKind::Stream { .. } => "stream",
        ImportKind::Service { .. } => "service",
    }
}

fn check_export(export: &Export) -> Result<(), String> {
    if !is_filter(&export.subject) {
        return Err("invalid subject".into());
    }
    if let Some(position) = export.account_token_position {
        let index = usize::from(position).saturating_sub(1);
        if tokens(export.subject.as_bytes()).nth(index) != Some(b"*") {
            return Err(format!("account_token_position {position} is not that of a *"));
        }
    }
    Ok(())
}

fn check_import(config: &Config, imported: &Imported, before: &[Imported]) -> Result<(), String> {
    let Imported { importer, import, .. } = imported;
    let kind = kind(import);
    let Some(exporter) = config.accounts.iter().find(|account| account.name == import.account)
    else {
        let name = short(&import.account);
        return Err(format!("{name:?} account not defined for {kind} import"));
    };
    let error =
        |what: &str| format!("Error adding {kind} import {:?}: {what}", short(&import.subject));
    if !is_filter(&import.subject) || import.to.as_ref().is_some_and(|to| !is_transform(to)) {
        return Err(error("invalid subject"));
    }
    let is_stream = kind == "stream";
    let of_kind = || {
        exporter
            .exports
            .iter()
            .filter(|export| matches!(export.kind, ExportKind::Stream) == is_stream)
    };
    let exact = of_kind().find(|export| export.subject == import.subject);
    let allowed = match exact {
        Some(export) => is_authorized(export, importer, &import.subject),
        None => of_kind().any(|export| {
            is_subset(import.subject.as_bytes(), export.subject.as_bytes())
                && is_authorized(export, importer, &import.subject)
        }),
    };
    if !allowed {
        return Err(error(&format!("{kind} import not authorized")));
    }
    let local_subject = local(import);
    if has_wildcard(import.subject.as_bytes()) && local_subject != import.subject {
        let to = tokenized(local_subject);
        if let Err(what) = Transform::new(&untokenized(&import.subject), &to, Purpose::Import) {
            let (from, to) = if is_stream {
                (short(&import.subject), short(local_subject))
            } else {
                (short(local_subject), short(&import.subject))
            };
            return Err(error(&format!(
                "failed to create mapping transform for {kind} import subject from {from:?} to \
                 {to:?}: {what}"
            )));
        }
    }
    let mut twins = before.iter().filter(|other| {
        other.importer == *importer
            && other.import.account == import.account
            && self::kind(&other.import) == kind
    });
    if is_stream {
        if twins.any(|other| other.import.subject == import.subject) {
            return Err(error("stream import already exists"));
        }
    } else if let Some(twin) = twins.find(|other| local(&other.import) == local_subject) {
        return Err(format!(
            "Duplicate service import subject {:?}, previously used in import for account {:?}, \
             subject {:?}",
            short(local_subject),
            short(&twin.import.account),
            short(&twin.import.subject)
        ));
    }
    Ok(())
}

/// The subject in the importer's account.
fn local(import: &Import) -> &str {
    import.to.as_deref().unwrap_or(&import.subject)
}

/// A destination of a transform; a token with braces may hold anything.
fn is_transform(text: &str) -> bool {
    text.contains("{{") || is_filter(text)
}

fn is_authorized(export: &Export, importer: &str, subject: &str) -> bool {
    if let Some(position) = export.account_token_position {
        let index = usize::from(position).saturating_sub(1);
        return tokens(subject.as_bytes()).nth(index) == Some(importer.as_bytes());
    }
    export.accounts.as_ref().is_none_or(|names| names.iter().any(|name| name == importer))
}

/// The imports that lead back to themselves, one for each way around.
fn cyclic(imports: &[Imported]) -> Vec<usize> {
    // A pattern for what a transform can give: any token where it puts one in.
    let patterns: Vec<(Vec<u8>, Vec<u8>)> = imports
        .iter()
        .map(|imported| {
            let pattern = |subject: &str| untokenized(subject).into_bytes();
            (pattern(local(&imported.import)), pattern(&imported.import.subject))
        })
        .collect();
    let mut by_account: BTreeMap<(&str, bool), Vec<usize>> = BTreeMap::new();
    for (index, imported) in imports.iter().enumerate() {
        // A request enters at the importer; a message leaves the exporter.
        let is_stream = kind(&imported.import) == "stream";
        let entry = if is_stream { &imported.import.account } else { &imported.importer };
        by_account.entry((entry, is_stream)).or_default().push(index);
    }
    let next = |index: usize| -> Vec<usize> {
        let (Some(imported), Some((local, remote))) = (imports.get(index), patterns.get(index))
        else {
            return Vec::new();
        };
        let is_stream = kind(&imported.import) == "stream";
        let (exit, out) = if is_stream {
            (&imported.importer, local)
        } else {
            (&imported.import.account, remote)
        };
        let Some(candidates) = by_account.get(&(exit.as_str(), is_stream)) else {
            return Vec::new();
        };
        let takes = |other: &&usize| {
            patterns.get(**other).is_some_and(|(local, remote)| {
                collides(out, if is_stream { remote } else { local })
            })
        };
        candidates.iter().filter(takes).copied().collect()
    };
    // Depth first; 1: on the way here, 2: done.
    let mut state = vec![0_u8; imports.len()];
    let mut found = Vec::new();
    for start in 0..imports.len() {
        let mut path: Vec<(usize, Vec<usize>)> = Vec::new();
        let mut enter = Some(start);
        loop {
            if let Some(index) = enter.take() {
                match state.get_mut(index) {
                    Some(state @ 0) => {
                        *state = 1;
                        path.push((index, next(index)));
                    }
                    Some(1) => found.push(index),
                    _ => {}
                }
            }
            let Some((index, waiting)) = path.last_mut() else { break };
            enter = waiting.pop();
            if enter.is_none() {
                if let Some(state) = state.get_mut(*index) {
                    *state = 2;
                }
                path.pop();
            }
        }
    }
    sorted::sort(&mut found);
    found.dedup();
    found
}
