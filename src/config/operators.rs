//! Operators and resolvers: users that sign in by tokens.
//!
//! Owns `operator`, `trusted_keys`, `resolver` and what belongs to them, and what cannot
//! stand beside them. Does not own what tokens say (`crate::auth::jwt`), nor reading the
//! directory of a resolver.
//!
//! # Invariants
//! - Every operator of a finished `Config` decodes, and so does every preloaded account.
//!
//! Source: NATS docs, "Decentralized JWT Authentication", "Account lookup using Resolver";
//! verdicts as nats-server 2.15.1.

use super::Config;
use super::accounts::Declared;
use super::keys::RESOLVER;
use super::mappings::in_order;
use super::parser::{Node, Value};
use super::read::Reader;
use super::units::short;
use crate::auth::jwt::claims::{AccountClaims, OperatorClaims, is_key};
use crate::auth::jwt::{Kind, Token, of_file};
use crate::auth::nkey::KeyKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Users that sign in by tokens; without operators and trusted keys there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperatorsConfig {
    /// Tokens of the operators.
    pub operators: Vec<String>,
    /// Public keys of operators that are trusted without a token.
    pub trusted_keys: Vec<String>,
    /// Where accounts come from.
    pub resolver: Option<ResolverConfig>,
    /// Tokens of accounts, by key.
    pub preload: Vec<(String, String)>,
    /// Only these accounts may sign in; empty: all.
    pub pinned_accounts: Vec<String>,
    /// The token of those who bring none.
    pub default_sentinel: Option<String>,
}

impl OperatorsConfig {
    /// Do users sign in by tokens?
    pub fn is_on(&self) -> bool {
        !self.operators.is_empty() || !self.trusted_keys.is_empty()
    }

    /// Claims of the operators.
    pub fn claims(&self) -> Vec<OperatorClaims> {
        self.operators.iter().filter_map(|text| operator_claims(text)).collect()
    }
}

/// `resolver`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResolverConfig {
    /// Only what is preloaded.
    Memory,
    /// By HTTP.
    Url(String),
    /// In a directory.
    Directory {
        /// The directory.
        dir: PathBuf,
        /// All accounts (`full`) or some (`cache`).
        full: bool,
        /// May accounts be deleted?
        allow_delete: bool,
        /// Are their files removed then, rather than renamed?
        hard_delete: bool,
        /// Between two comparisons with other servers. Default 1 minute.
        interval: Duration,
        /// Most accounts; 0 is any number, the default of `full`; of `cache` it is 1,000.
        limit: usize,
        /// How long one is fresh in a cache; zero is for ever, the default.
        ttl: Duration,
        /// How long a look-up may take. Default 1.9 s.
        timeout: Duration,
    },
}

fn operator_claims(text: &str) -> Option<OperatorClaims> {
    let token = Token::decode(text).ok()?;
    OperatorClaims::read(&token).ok()
}

impl Reader<'_> {
    /// A key of the top level that speaks of operators.
    pub(super) fn operators(&mut self, key: &str, node: &Node, to: &mut OperatorsConfig) {
        match key {
            "operator" => {
                for node in node.elements() {
                    to.operators.extend(self.operator(key, node));
                }
            }
            "trusted" => {
                for text in self.texts(key, node) {
                    if is_key(&text, KeyKind::Operator) {
                        to.trusted_keys.push(text);
                    } else {
                        let text = short(&text);
                        let what = "trusted: {text:?} is not a valid public operator nkey";
                        self.wrong(node, what.replace("{text:?}", &format!("{text:?}")));
                    }
                }
            }
            "resolver" => to.resolver = self.resolver(node),
            "resolver_preload" => self.preload(key, node, to),
            "resolver_pinned_accounts" => {
                for text in self.texts(key, node) {
                    if is_key(&text, KeyKind::Account) {
                        to.pinned_accounts.push(text);
                    } else {
                        let text = short(&text);
                        self.wrong(
                            node,
                            format!(
                                "pinned account key {text:?} is not a valid public account nkey"
                            ),
                        );
                    }
                }
            }
            _ => to.default_sentinel = self.sentinel(key, node),
        }
    }

    fn operator(&mut self, key: &str, node: &Node) -> Option<String> {
        let text = self.text(key, node)?;
        let text = if text.starts_with("eyJ") {
            text
        } else {
            match self.surroundings.read(Path::new(&text)) {
                Ok(bytes) => of_file(&String::from_utf8_lossy(&bytes)).to_owned(),
                Err(error) => {
                    self.wrong(
                        node,
                        format!("error parsing operator JWT: {}: {error}", short(&text)),
                    );
                    return None;
                }
            }
        };
        if operator_claims(&text).is_none() {
            self.wrong(node, "error parsing operator JWT: it is not the token of an operator");
            return None;
        }
        Some(text)
    }

    fn sentinel(&mut self, key: &str, node: &Node) -> Option<String> {
        let text = self.filled(key, node)?;
        if Token::decode(&text).is_ok_and(|token| token.kind == Kind::User) {
            return Some(text);
        }
        self.wrong(node, "default_sentinel JWT not valid");
        None
    }

    fn preload(&mut self, key: &str, node: &Node, to: &mut OperatorsConfig) {
        let Some(map) = self.map(key, node) else { return };
        for (name, entry) in in_order(map) {
            let Some(text) = self.text(name, &entry.node) else { continue };
            let decoded = Token::decode(&text).ok();
            if decoded.is_some_and(|token| AccountClaims::read(&token).is_ok()) {
                to.preload.push((name.to_owned(), text));
            } else {
                self.wrong(&entry.node, "invalid account JWT");
            }
        }
    }

    fn resolver(&mut self, node: &Node) -> Option<ResolverConfig> {
        let map = match &node.value {
            Value::Text(text) => {
                let text = text.trim();
                let url = text
                    .get(..4)
                    .filter(|head| head.eq_ignore_ascii_case("URL("))
                    .and_then(|_| text.get(4..)?.strip_suffix(')'));
                return if text.eq_ignore_ascii_case("MEMORY") || text.eq_ignore_ascii_case("MEM") {
                    Some(ResolverConfig::Memory)
                } else if let Some(url) = url {
                    Some(ResolverConfig::Url(url.trim().trim_matches('"').to_owned()))
                } else {
                    let text = short(text);
                    self.wrong(
                        node,
                        format!("unknown resolver {text:?}; there are MEMORY and URL(..)"),
                    );
                    None
                };
            }
            Value::Map(map) => map,
            _ => {
                self.wrong_kind("resolver", node, "MEMORY, URL(..) or a block { type, dir }");
                return None;
            }
        };
        let (mut dir, mut kind) = (String::new(), String::new());
        let (mut allow_delete, mut hard_delete) = (false, false);
        let (mut interval, mut ttl, mut timeout) = (None, None, None);
        let mut limit = 0;
        for (key, entry) in self.entries(map, &RESOLVER) {
            let node = &entry.node;
            match key {
                "type" => self.set(&mut kind, |this| this.text(key, node)),
                "dir" => self.set(&mut dir, |this| this.text(key, node)),
                "allow_delete" => self.flag(key, node, &mut allow_delete),
                "hard_delete" => self.flag(key, node, &mut hard_delete),
                "interval" => interval = self.duration(key, node),
                "ttl" => ttl = self.duration(key, node),
                "timeout" => timeout = self.duration(key, node),
                _ => {
                    let value = self.integer(key, node, i64::MIN, i64::MAX).unwrap_or(0);
                    limit = usize::try_from(value).unwrap_or(0);
                }
            }
        }
        let full = match kind.to_ascii_uppercase().as_str() {
            "MEM" | "MEMORY" => return Some(ResolverConfig::Memory),
            "FULL" => true,
            "CACHE" => false,
            _ => {
                let kind = short(&kind);
                self.wrong(
                    node,
                    format!("unknown resolver type {kind:?}; there are full, cache, mem"),
                );
                return None;
            }
        };
        let what = if dir.is_empty() {
            "dir has no value and needs to point to a directory"
        } else if full && ttl.is_some_and(|ttl| !ttl.is_zero()) {
            "FULL does not accept ttl"
        } else if full && hard_delete && !allow_delete {
            "hard_delete has no effect without delete"
        } else if !full && (allow_delete || hard_delete) {
            "CACHE does not accept allow_delete or hard_delete"
        } else if !full && interval.is_some() {
            "CACHE does not accept sync"
        } else {
            let zero = |time: &Duration| !time.is_zero();
            return Some(ResolverConfig::Directory {
                dir: dir.into(),
                full,
                allow_delete,
                hard_delete,
                interval: interval.filter(zero).unwrap_or(Duration::from_mins(1)),
                limit: if limit == 0 && !full { 1000 } else { limit },
                ttl: ttl.unwrap_or_default(),
                timeout: timeout.filter(zero).unwrap_or(Duration::from_millis(1900)),
            });
        };
        self.wrong(node, what);
        None
    }

    /// What must agree with operators; returns whether users sign in by tokens.
    pub(super) fn agree_operators(&mut self, config: &mut Config, declared: &Declared) -> bool {
        let Some(place) = &declared.operators else { return false };
        let mut wrong = |what: &str| self.mistakes.add(place.clone(), what);
        let operators = &config.operators;
        if !operators.is_on() {
            return false;
        }
        if !operators.operators.is_empty() && !operators.trusted_keys.is_empty() {
            wrong("conflicting options for 'TrustedKeys' and 'TrustedOperators'");
        }
        if !config.users.is_empty() {
            wrong("operators do not allow users to be configured directly");
        }
        if !config.accounts.is_empty() {
            wrong("operators do not allow Accounts to be configured directly");
        }
        if !declared.no_auth_users.is_empty() {
            wrong("no_auth_user not compatible with Trusted Operator");
        }
        let claims = operators.claims();
        let system = claims.iter().find(|operator| !operator.system_account.is_empty());
        if let Some(operator) = system {
            let name = &operator.system_account;
            if config.system_account.as_ref().is_some_and(|own| own != name) {
                wrong("system_account in config and operator JWT must be identical");
            }
            config.system_account = Some(name.clone());
        }
        for operator in &claims {
            if !operator.server_version.is_empty() && is_newer(&operator.server_version) {
                wrong(&format!(
                    "operator {} expects server version {}, which is newer than this one's",
                    operator.key, operator.server_version
                ));
            }
        }
        let server = claims.iter().find(|operator| !operator.account_server_url.is_empty());
        if config.operators.resolver.is_none() {
            match server {
                Some(operator) => {
                    let url = operator.account_server_url.trim_end_matches('/');
                    let url = format!("{url}/accounts/");
                    config.operators.resolver = Some(ResolverConfig::Url(url));
                }
                None => {
                    wrong("operators need a resolver; write resolver: MEMORY and resolver_preload");
                }
            }
        }
        let resolver = &config.operators.resolver;
        if let Some(ResolverConfig::Url(url)) = resolver
            && !url.starts_with("http://")
        {
            wrong("Sedge fetches accounts by http:// only so far; put a proxy in front of it");
        }
        if matches!(resolver, Some(ResolverConfig::Url(_))) && !config.operators.preload.is_empty()
        {
            wrong(
                "resolver preloads only available for writeable resolver types MEM/DIR/CACHE_DIR",
            );
        }
        if matches!(resolver, Some(ResolverConfig::Directory { .. }))
            && config.system_account.is_none()
        {
            wrong(
                "using nats based account resolver - the system account needs to be specified in \
                 configuration or the operator jwt",
            );
        }
        if let Some(name) = &config.system_account
            && matches!(resolver, Some(ResolverConfig::Memory))
            && !config.operators.preload.iter().any(|(key, _)| key == name)
        {
            wrong("error resolving system account: account missing");
        }
        true
    }
}

/// Is this version newer than the one whose protocol is spoken?
fn is_newer(version: &str) -> bool {
    let parts = |text: &str| -> Vec<u32> {
        text.split('.').map(|part| part.parse().unwrap_or(0)).collect()
    };
    parts(version) > parts(crate::broker::connect::PROTOCOL_VERSION)
}
