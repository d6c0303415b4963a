//! Whether claims make sense.
//!
//! Owns what is an error of a body. Does not own times ([`super::Token::time_problem`]) nor
//! trust. An account with an error is refused with all its users.
//!
//! Source: ADR-14 (JWT library); what blocks as nats-server 2.15.1.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;

use litemap::LiteMap;

use super::claims::{
    AccountClaims, Activation, ExportClaim, Grants, ImportClaim, Lists, Share, is_key,
};
use crate::auth::nkey::KeyKind;
use crate::subject::transform::{Purpose, Transform};
use crate::subject::{is_subset, overlap, tokens};

/// The offset from UTC in seconds that a zone (an IANA name; empty: the server's own) has at
/// a time in Unix seconds. `None`: there is no such zone.
pub type ZoneOffset = fn(&str, i64) -> Option<i64>;

/// What is wrong with a subject as the library sees it: wildcards may stand anywhere.
fn subject_problem(subject: &str) -> Option<String> {
    if subject.is_empty() {
        Some("subject cannot be empty".into())
    } else if subject.contains(' ') {
        Some(format!("subject {subject:?} cannot have spaces"))
    } else if tokens(subject.as_bytes()).any(<[u8]>::is_empty) {
        Some(format!("subject {subject:?} cannot have an empty token"))
    } else {
        None
    }
}

fn lists(lists: &Lists, queues: bool, problems: &mut Vec<String>) {
    for entry in lists.allow.iter().chain(&lists.deny) {
        let mut words = entry.split(' ');
        let subject = words.next().unwrap_or_default();
        match (words.next(), words.next()) {
            (None, _) => {}
            (Some(_), None) if queues => {}
            (Some(_), None) => problems
                .push(format!("Permission Subject \"{entry}\" is not allowed to contain queue")),
            _ => problems.push(format!("Permission Subject \"{entry}\" contains too many spaces")),
        }
        problems.extend(subject_problem(subject));
    }
}

/// Permissions of a user, a template or an account's defaults.
pub fn permissions(grants: &Grants, problems: &mut Vec<String>) {
    lists(&grants.publish, false, problems);
    lists(&grants.subscribe, true, problems);
}

/// A user's own claims.
pub fn user(grants: &Grants, issuer_account: &str, zone: ZoneOffset) -> Vec<String> {
    let mut problems = Vec::new();
    permissions(grants, &mut problems);
    for source in &grants.sources {
        if Network::parse(source).is_none() {
            problems.push(format!("invalid cidr \"{source}\" in user src limits"));
        }
    }
    for (start, end) in &grants.times {
        if clock_time(start).is_none() || clock_time(end).is_none() {
            problems.push(format!("invalid start or end of a time range: \"{start}\", \"{end}\""));
        }
    }
    if !grants.zone.is_empty() && zone(&grants.zone, 0).is_none() {
        problems.push(format!(
            "could not parse iana time zone by name: unknown time zone {}",
            grants.zone
        ));
    }
    if !issuer_account.is_empty() && !is_key(issuer_account, KeyKind::Account) {
        problems.push("account_id is not a valid public key".into());
    }
    problems
}

/// `HH:MM:SS` as seconds of the day.
pub fn clock_time(text: &str) -> Option<i64> {
    let mut seconds = 0;
    let mut count = 0;
    for part in text.split(':') {
        let bound = if count == 0 { 24 } else { 60 };
        let value: i64 = part.parse().ok().filter(|_| part.len() == 2)?;
        if !(0..bound).contains(&value) {
            return None;
        }
        seconds = seconds * 60 + value;
        count += 1;
    }
    (count == 3).then_some(seconds)
}

/// A network, `10.0.0.0/8`.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    /// Reads its text.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let bits: u32 = bits.parse().ok().filter(|_| !bits.starts_with('+'))?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        (bits <= most).then_some(Self { address, bits })
    }

    /// Is this address in it?
    pub fn contains(&self, address: IpAddr) -> bool {
        let wide = |address: IpAddr| match address.to_canonical() {
            IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, true),
            IpAddr::V6(address) => (address.to_bits(), false),
        };
        let ((ours, v4), (theirs, other)) = (wide(self.address), wide(address));
        v4 == other && (self.bits == 0 || (ours ^ theirs) >> (128 - self.bits) == 0)
    }
}

/// An account's claims.
pub fn account(claims: &AccountClaims) -> Vec<String> {
    let mut problems = Vec::new();
    let limits = &claims.limits;
    let over = |max: i64, count: usize| max >= 0 && i64::try_from(count).is_ok_and(|n| n > max);
    if over(limits.imports, claims.imports.len()) {
        problems.push(format!(
            "the account contains more imports than allowed by the operator limits ({})",
            limits.imports
        ));
    }
    if over(limits.exports, claims.exports.len()) {
        problems.push(format!(
            "the account contains more exports than allowed by the operator limits ({})",
            limits.exports
        ));
    }
    if claims.both_storages {
        problems.push("JetStream Limits and tiered JetStream Limits are mutually exclusive".into());
    }
    for tier in claims.tiers.keys() {
        let number = tier.strip_prefix('R').and_then(|number| number.parse::<u32>().ok());
        if number.is_none() {
            problems.push(format!("tier name {tier:?} is not R with a number"));
        }
    }
    if !limits.wildcards && limits.exports != -1 {
        for export in claims.exports.iter().filter(|export| has_star(&export.subject)) {
            problems.push(format!(
                "the account contains wildcard exports that are not allowed by the operator \
                 limits: {:?}",
                export.subject
            ));
        }
    }
    exports(&claims.exports, &mut problems);
    imports(claims, &mut problems);
    permissions(&claims.defaults, &mut problems);
    for (key, scope) in &claims.signing {
        if !is_key(key, KeyKind::Account) {
            problems.push(format!("{key} is not an account public key"));
        }
        if let Some(scope) = scope {
            let mut filled = scope.template.clone();
            // Markers stand for tokens.
            for list in [&mut filled.publish, &mut filled.subscribe] {
                list.allow.retain(|entry| !entry.contains("{{"));
                list.deny.retain(|entry| !entry.contains("{{"));
            }
            permissions(&filled, &mut problems);
        }
    }
    for (source, destinations) in &claims.mappings {
        let mut sums: LiteMap<&str, u32> = LiteMap::new();
        problems.extend(subject_problem(source));
        for to in destinations {
            problems.extend(subject_problem(&to.subject));
            let sum = sums.entry(to.cluster.as_deref().unwrap_or("")).or_default();
            *sum = sum.saturating_add(to.weight.into());
        }
        if sums.values().any(|sum| *sum > 100) {
            problems.push(format!(
                "Mapping {source:?} exceeds 100% among all of it's weighted to mappings"
            ));
        }
    }
    let callout = &claims.callout;
    if !callout.auth_users.is_empty() {
        if callout.auth_users.iter().any(|user| !is_key(user, KeyKind::User)) {
            problems.push("AuthUsers must be user public keys".into());
        }
        let all = matches!(callout.allowed_accounts.as_slice(), [only] if only == "*");
        if !all && callout.allowed_accounts.iter().any(|key| !is_key(key, KeyKind::Account)) {
            problems.push("AllowedAccounts must be account public keys or a lone *".into());
        }
        if !callout.xkey.is_empty() && !is_key(&callout.xkey, KeyKind::Curve) {
            problems.push("XKey must be a curve public key".into());
        }
    }
    if let Some(trace) = &claims.trace
        && (subject_problem(&trace.dest).is_some() || has_star(&trace.dest) || trace.sampling > 100)
    {
        problems.push("the trace destination or its sampling is not valid".into());
    }
    problems
}

fn has_star(subject: &str) -> bool {
    crate::subject::has_wildcard(subject.as_bytes())
}

fn exports(exports: &[ExportClaim], problems: &mut Vec<String>) {
    for (index, export) in exports.iter().enumerate() {
        problems.extend(subject_problem(&export.subject));
        let service = export.kind == Some(Share::Service);
        if export.kind.is_none() {
            problems.push(format!("invalid export type of {:?}", export.subject));
        }
        if !service && !export.response_type.is_empty() {
            problems.push(format!("invalid response type for stream: {:?}", export.response_type));
        }
        if !matches!(&*export.response_type, "" | "Singleton" | "Stream" | "Chunked") {
            problems.push(format!("unrecognized response type: {:?}", export.response_type));
        }
        if export.response_threshold < 0 || (export.response_threshold > 0 && !service) {
            problems.push("negative response threshold, or one on a stream".into());
        }
        if let Some((sampling, results)) = &export.latency
            && (!service
                || !(0..=100).contains(sampling)
                || subject_problem(results).is_some()
                || has_star(results))
        {
            problems.push(format!("invalid service latency of {:?}", export.subject));
        }
        if export.allow_trace && !service {
            problems.push("AllowTrace only valid for service export".into());
        }
        if export.account_token_position != 0 {
            let at = export.account_token_position.checked_sub(1);
            let token = at
                .and_then(|at| usize::try_from(at).ok())
                .and_then(|at| tokens(export.subject.as_bytes()).nth(at));
            if token != Some(b"*") {
                problems.push(format!(
                    "Account Token Position {} is no wildcard of {:?}",
                    export.account_token_position, export.subject
                ));
            }
        }
        let contained = exports.iter().enumerate().any(|(other, wider)| {
            other != index
                && wider.kind == export.kind
                && is_subset(export.subject.as_bytes(), wider.subject.as_bytes())
        });
        if contained {
            problems.push(format!("export subject {:?} already exported", export.subject));
        }
    }
}

fn imports(claims: &AccountClaims, problems: &mut Vec<String>) {
    let own = claims.key.to_string();
    let mut services: Vec<String> = Vec::new();
    for import in &claims.imports {
        if import.kind.is_none() {
            problems.push("invalid import type".into());
        }
        if import.account.is_empty() {
            problems.push(format!("account to import from is not specified: {:?}", import.subject));
        }
        problems.extend(subject_problem(&import.subject));
        let service = import.kind == Some(Share::Service);
        if import.share && !service {
            problems.push(
                "sharing information (for latency tracking) is only valid for services".into(),
            );
        }
        if import.allow_trace && service {
            problems.push("AllowTrace only valid for stream import".into());
        }
        if !import.local_subject.is_empty() {
            if !import.to.is_empty() {
                problems.push("Local Subject replaces To".into());
            }
            local_subject(import, problems);
        }
        if !import.token.is_empty() {
            problems.extend(import_token(import, &own));
        }
        if service {
            let local = import.local().unwrap_or_else(|| import.subject.clone());
            let local = crate::subject::transform::untokenized(&local);
            if services.iter().any(|other| overlap(other.as_bytes(), local.as_bytes()).is_some()) {
                problems.push(format!("overlapping subject namespace for {local:?}"));
            }
            services.push(local);
        }
    }
}

fn local_subject(import: &ImportClaim, problems: &mut Vec<String>) {
    let local = numbered(&import.local_subject);
    if subject_problem(&import.local_subject).is_some()
        || Transform::new(&import.subject, &local, Purpose::Import).is_err()
    {
        problems.push(format!(
            "local subject {:?} does not use each wildcard of {:?} once",
            import.local_subject, import.subject
        ));
    }
}

/// A `*` of a destination is the wildcard of the same rank in the source.
pub fn numbered(subject: &str) -> String {
    let mut count = 0;
    let token = |token: &str| {
        if token == "*" {
            count += 1;
            format!("${count}")
        } else {
            token.into()
        }
    };
    let tokens: Vec<String> = subject.split('.').map(token).collect();
    tokens.join(".")
}

/// A token that can never be right makes the account wrong.
fn import_token(import: &ImportClaim, own: &str) -> Option<String> {
    let Ok(activation) = Activation::decode(&import.token) else {
        return Some(format!("import {:?} contains an invalid activation token", import.subject));
    };
    let fits = activation.exporter == import.account
        && activation.importer == own
        && activation.kind == import.kind
        && is_subset(import.remote().as_bytes(), activation.subject.as_bytes());
    (!fits).then(|| format!("activation token doesn't match the import of {:?}", import.subject))
}
