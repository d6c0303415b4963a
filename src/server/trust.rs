//! From a configuration to whom the server trusts.
//!
//! Owns the translation, and reading the directory of a resolver when the server starts.

use std::path::Path;

use crate::auth::trust::{LookupError, Resolver, Trust, TrustOptions, is_account_key};
use crate::config::{Config, ResolverConfig};
use crate::limits::JWT_BYTES_MAX;
use crate::time::Timestamp;

/// Whom to trust, by this configuration; `None` where users do not sign in by tokens.
pub(super) fn options(config: &Config) -> Option<Box<TrustOptions>> {
    let of = &config.operators;
    if !of.is_on() {
        return None;
    }
    let resolver = match of.resolver.clone() {
        None | Some(ResolverConfig::Memory) => Resolver::Memory,
        Some(ResolverConfig::Url(url)) => Resolver::Url(url),
        Some(ResolverConfig::Directory {
            full: true,
            allow_delete,
            hard_delete,
            interval,
            limit,
            timeout,
            ..
        }) => Resolver::Full { allow_delete, hard_delete, interval, limit, timeout },
        Some(ResolverConfig::Directory { ttl, limit, timeout, .. }) => {
            Resolver::Cache { ttl, limit, timeout }
        }
    };
    Some(Box::new(TrustOptions {
        operators: of.claims(),
        trusted_keys: of.trusted_keys.iter().filter_map(|key| key.parse().ok()).collect(),
        system_account: config.system_account.clone().unwrap_or_default(),
        tokens: of.preload.clone(),
        pinned: of.pinned_accounts.clone(),
        sentinel: of.default_sentinel.clone().unwrap_or_default(),
        resolver,
        lax: config.lax_permissions,
        zone: super::zone::offset,
        started: Timestamp::default(),
    }))
}

/// The directory of the resolver, if it has one.
pub(super) fn directory(config: &Config) -> Option<&Path> {
    match &config.operators.resolver {
        Some(ResolverConfig::Directory { dir, .. }) => Some(dir),
        _ => None,
    }
}

/// What a start needs: the tokens of the resolver's directory, and a system account that can
/// be had.
///
/// # Errors
/// Why the server cannot start.
pub(super) fn prepare(
    config: &Config,
    options: &mut TrustOptions,
    wall: Timestamp,
) -> Result<(), String> {
    options.started = wall;
    if let Some(dir) = directory(config) {
        std::fs::create_dir_all(dir)
            .map_err(|error| format!("resolver directory {}: {error}", dir.display()))?;
        let known = read_directory(dir)?;
        // What is on disk has been pushed; what is preloaded is for the first start.
        options.tokens.extend(known);
    }
    if options.resolver == Resolver::Memory && !options.system_account.is_empty() {
        let mut trust = Trust::new(options.clone());
        trust
            .look_up(&options.system_account, options.started)
            .map_err(|error: LookupError| format!("error resolving system account: {error}"))?;
    }
    Ok(())
}

fn read_directory(dir: &Path) -> Result<Vec<(String, String)>, String> {
    let failed = |error: std::io::Error| format!("resolver directory {}: {error}", dir.display());
    let mut known = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let Some(key) = name.to_str().and_then(|name| name.strip_suffix(".jwt")) else { continue };
        let long = entry.metadata().is_ok_and(|data| {
            !data.is_file() || usize::try_from(data.len()).is_ok_and(|len| len > JWT_BYTES_MAX)
        });
        if is_account_key(key) && !long {
            let text = std::fs::read_to_string(entry.path()).map_err(failed)?;
            known.push((key.to_owned(), text.trim().to_owned()));
        }
    }
    Ok(known)
}
