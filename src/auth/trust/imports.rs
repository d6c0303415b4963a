//! Which imports of accounts are active.
//!
//! Owns the right to import: public exports, exports for the account whose key stands in the
//! subject, activation tokens with their times and revocations; and that imports form no
//! cycle. Does not own what an active import does (the broker).
//!
//! # Invariants
//! - An import is active only while its exporter is in use and exports it to this account.
//!   Each import is judged by its own token.
//!
//! Source: NATS docs, "Multi Tenancy using Accounts", "Activation tokens"; order as
//! nats-server 2.15.1.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use litemap::LiteMap;

use super::{Loaded, Trust};
use crate::auth::account::{Import, ImportKind};
use crate::auth::jwt::claims::{
    AccountClaims, Activation, ExportClaim, ImportClaim, Share, is_revoked,
};
use crate::auth::jwt::{end_of, seconds};
use crate::limits::IMPORT_DEPTH_MAX;
use crate::subject::transform::untokenized;
use crate::subject::{is_subset, overlap, tokens};
use crate::time::Timestamp;

/// Active imports by account, and when that changes by itself.
pub(super) fn active(
    trust: &mut Trust,
    wall: Timestamp,
) -> (LiteMap<String, Vec<Import>>, Option<Timestamp>) {
    let mut active: LiteMap<String, Vec<Import>> = LiteMap::new();
    let mut next: Option<Timestamp> = None;
    let mut notes = Vec::new();
    for (key, loaded) in trust.loaded.iter().filter(|(_, loaded)| !loaded.expired) {
        for claim in &loaded.claims.imports {
            let exporter = trust.loaded.get(&claim.account).filter(|exporter| !exporter.expired);
            let Some(exporter) = exporter else { continue };
            match right(key, claim, exporter, wall) {
                Ok(until) => {
                    next = match (next, until) {
                        (Some(a), Some(b)) => Some(a.min(b)),
                        (a, b) => a.or(b),
                    };
                }
                Err(what) => {
                    notes.push(format!(
                        "Error adding import {:?} of account [{}] to account [{key}]: {what}",
                        claim.subject, claim.account
                    ));
                    continue;
                }
            }
            let import = declare(claim);
            if makes_cycle(&active, key, &import) {
                let what = "import forms a cycle";
                notes.push(format!(
                    "Error adding import {:?} of account [{}] to account [{key}]: {what}",
                    claim.subject, claim.account
                ));
                continue;
            }
            active.entry(key.clone()).or_default().push(import);
        }
    }
    trust.notes.append(&mut notes);
    (active, next)
}

fn declare(claim: &ImportClaim) -> Import {
    let kind = match claim.kind {
        Some(Share::Service) => ImportKind::Service { share: claim.share },
        _ => ImportKind::Stream { allow_trace: claim.allow_trace },
    };
    Import {
        account: claim.account.clone(),
        subject: claim.remote().into(),
        to: claim.local(),
        kind,
    }
}

/// May this account import that? `Ok`: until when, if it ends.
fn right(
    importer: &str,
    import: &ImportClaim,
    exporter: &Loaded,
    wall: Timestamp,
) -> Result<Option<Timestamp>, &'static str> {
    let remote = import.remote().as_bytes();
    let exports = &exporter.claims.exports;
    let fits = |export: &&ExportClaim| {
        export.kind == import.kind && is_subset(remote, export.subject.as_bytes())
    };
    let denied = match import.kind {
        Some(Share::Service) => "service import not authorized",
        _ => "stream import not authorized",
    };
    let mut last = Err(denied);
    for export in exports.iter().filter(fits) {
        last = if let Some(position) =
            usize::try_from(export.account_token_position).ok().filter(|position| *position > 0)
        {
            let own = tokens(remote).nth(position - 1) == Some(importer.as_bytes());
            if own { Ok(None) } else { Err(denied) }
        } else if export.token_req {
            activation(importer, import, export, exporter, wall)
        } else {
            Ok(None)
        };
        if last.is_ok() {
            break;
        }
    }
    last
}

fn activation(
    importer: &str,
    import: &ImportClaim,
    export: &ExportClaim,
    exporter: &Loaded,
    wall: Timestamp,
) -> Result<Option<Timestamp>, &'static str> {
    let claims: &AccountClaims = &exporter.claims;
    let token = Activation::decode(&import.token).map_err(|_| "activation token is not valid")?;
    if token.exporter != import.account || !claims.signs(&token.issuer, exporter.strict) {
        return Err("activation token is not of the exporter");
    }
    if token.importer != importer
        || token.kind != import.kind
        || !is_subset(import.remote().as_bytes(), token.subject.as_bytes())
    {
        return Err("activation token is for something else");
    }
    let now = seconds(wall);
    if token.not_before > now {
        return Err("activation token is not yet valid");
    }
    if token.expires > 0 && token.expires <= now {
        return Err("activation token is expired");
    }
    if is_revoked(&export.revocations, importer, token.issued) {
        return Err("activation token is revoked");
    }
    Ok((token.expires > 0).then(|| end_of(token.expires)))
}

/// The subject of an import in its own account, as a pattern.
fn local(import: &Import) -> String {
    untokenized(import.to.as_deref().unwrap_or(&import.subject))
}

/// Would messages of this import come back to it?
fn makes_cycle(active: &LiteMap<String, Vec<Import>>, importer: &str, import: &Import) -> bool {
    let service = matches!(import.kind, ImportKind::Service { .. });
    let start = local(import);
    let mut waiting: Vec<(&str, &str, usize)> =
        Vec::from([(&*import.account, &*import.subject, 0)]);
    while let Some((account, subject, depth)) = waiting.pop() {
        if account == importer && overlap(subject.as_bytes(), start.as_bytes()).is_some() {
            // An account may import what itself exports under another name.
            return depth > 0 || import.account != importer || subject == start;
        }
        if depth >= IMPORT_DEPTH_MAX {
            return true;
        }
        for next in active.get(account).into_iter().flatten() {
            if matches!(next.kind, ImportKind::Service { .. }) == service
                && overlap(local(next).as_bytes(), subject.as_bytes()).is_some()
            {
                waiting.push((&next.account, &next.subject, depth + 1));
            }
        }
    }
    false
}
