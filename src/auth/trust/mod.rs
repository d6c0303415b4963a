//! Trust: operators, the accounts they signed, and the users those signed.
//!
//! Owns the chain of trust and everything it decides: which account tokens are believed, who
//! may sign in by a token ([`sign_in`]), which imports are active ([`imports`]). Does not own
//! where account tokens come from, nor connections: the broker asks and carries out.
//!
//! # Invariants
//! - An account is loaded only if a trusted key signed its token, the token makes sense and
//!   it is in time.
//! - The set of trusted keys is fixed when the server starts.
//! - A token older than the newest one seen of its account is not taken in, unless the rules
//!   are lax.
//!
//! Source: ADR-14; NATS docs, "Decentralized JWT Authentication"; order and texts as
//! nats-server 2.15.1.

pub mod imports;
pub mod sign_in;

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use litemap::LiteMap;

use super::account::{
    Account, AccountLimits, Export, ExportKind, JetStreamAccountLimits, Latency, Mapping,
    ResponseType, Sampling,
};
use super::jwt::check::{self, ZoneOffset};
use super::jwt::claims::{AccountClaims, ExportClaim, OperatorClaims, Share, Storage};
use super::jwt::{Token, end_of, seconds};
use super::nkey::{KeyKind, PublicKey};
use crate::limits::{ACCOUNTS_MAX, CLAIMS_BYTES_MAX};
use crate::time::{Duration, Timestamp};

/// Whom the server trusts, from the configuration.
#[derive(Clone, Debug)]
pub struct TrustOptions {
    /// The operators.
    pub operators: Vec<OperatorClaims>,
    /// Keys trusted without an operator's token.
    pub trusted_keys: Vec<PublicKey>,
    /// Public key of the system account; empty: there is none.
    pub system_account: String,
    /// Account tokens known at the start, by account.
    pub tokens: Vec<(String, String)>,
    /// Only these accounts may sign in, and the system account; empty: all.
    pub pinned: Vec<String>,
    /// The user token of those who bring none; empty: they are refused.
    pub sentinel: String,
    /// How unknown accounts are found, and what may be pushed.
    pub resolver: Resolver,
    /// As nats-server, also where Sedge is stricter.
    pub lax: bool,
    /// Knows time zones.
    pub zone: ZoneOffset,
    /// When the server starts.
    pub started: Timestamp,
}

/// Where account tokens come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Resolver {
    /// From the configuration only.
    #[default]
    Memory,
    /// By HTTP from this address and the account's key.
    Url(String),
    /// A directory with all of them.
    Full {
        /// May they be deleted?
        allow_delete: bool,
        /// Are files of deleted ones removed rather than renamed?
        hard_delete: bool,
        /// Between two comparisons with others.
        interval: Duration,
        /// Most tokens; 0: any number.
        limit: usize,
        /// How long a look-up elsewhere may take.
        timeout: Duration,
    },
    /// A directory with some of them.
    Cache {
        /// How long one is fresh; zero: for ever.
        ttl: Duration,
        /// Most tokens; 0: any number.
        limit: usize,
        /// How long a look-up elsewhere may take.
        timeout: Duration,
    },
}

/// Why an account cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LookupError {
    /// Nobody knows it.
    Missing,
    /// Its token is not trusted, makes no sense, or is out of its time.
    Validation,
    /// It was there, and has expired since.
    Expired,
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "account missing",
            Self::Validation => "account validation failed",
            Self::Expired => "account expired",
        })
    }
}

/// An account whose claims hold.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What its token says.
    pub claims: Rc<AccountClaims>,
    /// Its identity key may sign nothing.
    pub strict: bool,
    /// Its time is over: nobody may be in it.
    pub expired: bool,
}

/// What became of a token that was brought in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was there already.
    Same,
    /// It is kept for when somebody asks for the account.
    Kept,
    /// It holds now in place of what this account was.
    Updated(Rc<AccountClaims>),
}

/// A token, and what is asked about it often.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    text: Box<str>,
    id: String,
    issued: i64,
    expires: i64,
}

/// What an update that was refused begins with.
const FAILED: &str = "jwt update resulted in error";

/// See the module.
#[derive(Debug)]
pub struct Trust {
    /// Who may sign accounts, and whether those accounts are strict.
    issuers: LiteMap<PublicKey, bool>,
    system_account: String,
    pinned: BTreeSet<String>,
    sentinel: String,
    /// See [`TrustOptions::resolver`].
    pub resolver: Resolver,
    lax: bool,
    zone: ZoneOffset,
    /// By account.
    tokens: LiteMap<String, Held>,
    bytes: usize,
    loaded: LiteMap<String, Loaded>,
    /// The accounts differ from what the broker was told.
    changed: bool,
    /// For the log.
    notes: Vec<String>,
    /// Accounts that are needed and not known.
    wanted: BTreeSet<String>,
    /// Accounts that are to be in use as soon as they are known.
    needed: BTreeSet<String>,
    operators: BTreeSet<PublicKey>,
}

impl Trust {
    /// Of these options.
    pub fn new(options: TrustOptions) -> Self {
        let mut issuers = LiteMap::new();
        let mut operators = BTreeSet::new();
        operators.extend(options.trusted_keys.iter().copied());
        for operator in &options.operators {
            operators.insert(operator.key);
            operators.extend(&operator.signing);
            for key in &operator.signing {
                issuers.insert(*key, operator.strict);
            }
            if !operator.strict {
                issuers.insert(operator.key, false);
            }
        }
        for key in options.trusted_keys {
            issuers.insert(key, false);
        }
        let mut pinned = BTreeSet::new();
        pinned.extend(options.pinned);
        if !pinned.is_empty() {
            pinned.insert(options.system_account.clone());
        }
        let mut trust = Self {
            issuers,
            system_account: options.system_account,
            pinned,
            sentinel: options.sentinel,
            resolver: options.resolver,
            lax: options.lax,
            zone: options.zone,
            tokens: LiteMap::new(),
            bytes: 0,
            loaded: LiteMap::new(),
            changed: true,
            notes: Vec::new(),
            wanted: BTreeSet::new(),
            needed: BTreeSet::new(),
            operators,
        };
        for (key, token) in options.tokens {
            // What was pushed and what is preloaded: the newer one.
            let issued = Token::decode(&token).map_or(0, |token| token.issued);
            if trust.tokens.get(&key).is_none_or(|known| known.issued <= issued) {
                trust.keep(&key, &token);
            }
        }
        trust
    }

    /// Public key of the system account, if there is one.
    pub fn system_account(&self) -> &str {
        &self.system_account
    }

    /// Is this a key of an operator, also one that may not sign accounts?
    pub fn is_operator(&self, key: &PublicKey) -> bool {
        self.operators.contains(key)
    }

    /// An account that is not known is to be in use once it is.
    pub fn need(&mut self, key: &str) {
        self.needed.insert(key.into());
        self.wanted.insert(key.into());
    }

    /// Those of [`Self::need`] that are still missing are wanted again.
    pub fn want_needed(&mut self) {
        self.wanted.extend(self.needed.iter().cloned());
    }

    /// Accounts that somebody else should be asked for.
    pub fn take_wanted(&mut self) -> BTreeSet<String> {
        core::mem::take(&mut self.wanted)
    }

    /// Does some operator want signing keys only?
    pub fn is_strict(&self) -> bool {
        self.issuers.values().any(|strict| *strict)
    }

    /// Accounts whose tokens have not expired: key and token.
    pub fn tokens_in_time(&self, wall: Timestamp) -> impl Iterator<Item = (&str, &str)> {
        let now = seconds(wall);
        let in_time = move |held: &&Held| held.expires == 0 || held.expires >= now;
        self.tokens
            .iter()
            .filter(move |(_, held)| in_time(held))
            .map(|(key, held)| (key.as_str(), &*held.text))
    }

    /// The token of an account.
    pub fn token(&self, key: &str) -> Option<&str> {
        self.tokens.get(key).map(|held| &*held.text)
    }

    /// An account that is in use.
    pub fn loaded(&self, key: &str) -> Option<&Loaded> {
        self.loaded.get(key)
    }

    /// All accounts in use.
    pub fn all_loaded(&self) -> impl Iterator<Item = (&str, &Loaded)> {
        self.loaded.iter().map(|(key, loaded)| (key.as_str(), loaded))
    }

    /// Lines for the log that have not been taken yet.
    pub fn take_notes(&mut self) -> Vec<String> {
        core::mem::take(&mut self.notes)
    }

    /// Must the broker be told the accounts again?
    pub fn take_changed(&mut self) -> bool {
        core::mem::take(&mut self.changed)
    }

    /// The accounts must be told again.
    pub fn note_change(&mut self) {
        self.changed = true;
    }

    /// Takes other tokens in place of all there are. Says which accounts in use changed, with
    /// what they were, and which are gone.
    pub fn replace(
        &mut self,
        tokens: &[(String, String)],
        wall: Timestamp,
    ) -> (Vec<(String, Rc<AccountClaims>)>, Vec<String>) {
        let before = core::mem::take(&mut self.tokens);
        self.bytes = 0;
        for (key, token) in tokens {
            self.keep(key, token);
        }
        let (mut changed, mut removed) = (Vec::new(), Vec::new());
        let used: Vec<(String, Rc<AccountClaims>)> =
            self.loaded.iter().map(|(key, loaded)| (key.clone(), loaded.claims.clone())).collect();
        for (key, claims) in used {
            if before.get(&key) == self.tokens.get(&key) {
                continue;
            }
            let next = self.tokens.get(&key).map(|held| self.verify(&held.text, &key, wall));
            self.changed = true;
            match next {
                Some(Some(next)) => {
                    self.load(&key, next, wall);
                    changed.push((key, claims));
                }
                // What cannot be believed changes nothing.
                Some(None) => {}
                None => {
                    self.loaded.remove(&key);
                    removed.push(key);
                }
            }
        }
        (changed, removed)
    }

    /// Holds a token; false if there is no room.
    pub fn keep(&mut self, key: &str, token: &str) -> bool {
        let before = self.tokens.get(key).map_or(0, |held| held.text.len());
        let bytes = self.bytes.saturating_sub(before).saturating_add(token.len());
        if bytes > CLAIMS_BYTES_MAX || (before == 0 && self.tokens.len() >= ACCOUNTS_MAX) {
            return false;
        }
        self.bytes = bytes;
        // What does not decode is refused when somebody asks for the account.
        let (id, issued, expires) = Token::decode(token)
            .map_or_else(|_| Default::default(), |token| (token.id, token.issued, token.expires));
        let held = Held { text: token.into(), id, issued, expires };
        self.tokens.insert(key.into(), held);
        true
    }

    /// Forgets an account's token. An account in use expires with it.
    pub fn forget(&mut self, key: &str) {
        if let Some(held) = self.tokens.remove(key) {
            self.bytes = self.bytes.saturating_sub(held.text.len());
        }
        if let Some(loaded) = self.loaded.get_mut(key) {
            loaded.expired = true;
            self.changed = true;
        }
    }

    /// Brings an account into use, and the accounts it imports from.
    pub fn look_up(&mut self, key: &str, wall: Timestamp) -> Result<Loaded, LookupError> {
        if let Some(loaded) = self.loaded.get(key) {
            return if loaded.expired { Err(LookupError::Expired) } else { Ok(loaded.clone()) };
        }
        let held = self.tokens.get(key).ok_or(LookupError::Missing)?;
        let claims = self.verify(&held.text, key, wall).ok_or(LookupError::Validation)?;
        if self.loaded.len() >= ACCOUNTS_MAX {
            return Err(LookupError::Missing);
        }
        Ok(self.load(key, claims, wall))
    }

    fn load(&mut self, key: &str, claims: AccountClaims, wall: Timestamp) -> Loaded {
        let strict = self.issuers.get(&claims.issuer).copied().unwrap_or(false);
        self.needed.remove(key);
        let loaded = Loaded { claims: Rc::new(claims), strict, expired: false };
        self.loaded.insert(key.into(), loaded.clone());
        self.changed = true;
        let mut exporters = BTreeSet::new();
        exporters.extend(loaded.claims.imports.iter().map(|import| import.account.as_str()));
        for exporter in exporters.into_iter().filter(|exporter| *exporter != key) {
            if let Err(error) = self.look_up(exporter, wall) {
                if error == LookupError::Missing {
                    self.wanted.insert(exporter.into());
                }
                self.notes.push(format!(
                    "Can't locate account [{exporter}] for an import of [{key}] (err={error})"
                ));
            }
        }
        loaded
    }

    /// The claims of a token if they are to be believed now.
    fn verify(&self, token: &str, key: &str, wall: Timestamp) -> Option<AccountClaims> {
        let token = Token::decode(token).ok()?;
        let claims = AccountClaims::read(&token).ok()?;
        let good = token.subject == key
            && self.issuers.contains_key(&token.issuer)
            && token.time_problem(wall).is_none()
            && check::account(&claims).is_empty();
        good.then_some(claims)
    }

    /// Would this token be taken in? Says whose it is. `named` is the account it should be of.
    ///
    /// # Errors
    /// A text for whoever brought it.
    pub fn examine(
        &self,
        text: &str,
        named: Option<&str>,
        wall: Timestamp,
    ) -> Result<String, Refused> {
        let text = text.trim();
        let refuse = |account: &str, context, what: String| Refused {
            account: account.into(),
            context,
            description: what,
        };
        let token =
            Token::decode(text).map_err(|error| refuse("n/a", FAILED, error.to_string()))?;
        let claims = AccountClaims::read(&token)
            .map_err(|_| refuse("n/a", FAILED, "not an account claim".into()))?;
        let key = token.subject.clone();
        if named.is_some_and(|named| named != key) {
            return Err(refuse(&key, FAILED, "subject does not match jwt content".into()));
        }
        let known = self.tokens.get(&key);
        if known.is_some_and(|known| *known.text == *text) {
            return Ok(key);
        }
        let problems = check::account(&claims);
        if !problems.is_empty() {
            let what = format!("validation errors: [{}]", problems.join(" "));
            return Err(refuse(&key, "jwt validation failed", what));
        }
        let trusted = self.issuers.contains_key(&token.issuer);
        if self.is_strict() && !trusted {
            let what = "operator requires issuer to be a signing key";
            return Err(refuse(&key, FAILED, what.into()));
        }
        if !self.lax {
            let older = known.is_some_and(|newest| newest.issued > token.issued);
            let problem = if trusted {
                token.time_problem(wall).or(older.then_some("jwt is older than the one in force"))
            } else {
                Some("account is not trusted")
            };
            if let Some(problem) = problem {
                return Err(refuse(&key, FAILED, problem.into()));
            }
        }
        let limit = match self.resolver {
            Resolver::Full { limit, .. } if limit > 0 => limit,
            _ => ACCOUNTS_MAX,
        };
        if known.is_none() && (self.tokens.len() >= limit || self.bytes > CLAIMS_BYTES_MAX) {
            return Err(refuse(&key, FAILED, "jwt store is full".into()));
        }
        Ok(key)
    }

    /// Is this token, from another server, one to take in: trusted, in time, and not older
    /// than what is there?
    pub fn is_news(&self, account: &str, text: &str, wall: Timestamp) -> bool {
        let text = text.trim();
        let Some(token) = Token::decode(text).ok().filter(|token| token.subject == account) else {
            return false;
        };
        let known = self.tokens.get(account);
        let newer = known.is_none_or(|known| known.id != token.id && token.issued >= known.issued);
        newer
            && self.issuers.contains_key(&token.issuer)
            && self.examine(text, Some(account), wall).is_ok()
    }

    /// A token that was found good holds from now on: at once if its account is in use.
    pub fn take_in(&mut self, key: &str, text: &str, wall: Timestamp) -> Taken {
        let text = text.trim();
        if self.tokens.get(key).is_some_and(|known| *known.text == *text) && self.holds(key) {
            return Taken::Same;
        }
        self.keep(key, text);
        if !self.loaded.contains_key(key) {
            // Somebody may have waited for it to import from it.
            let wanted = self
                .loaded
                .values()
                .any(|loaded| loaded.claims.imports.iter().any(|import| import.account == key));
            if wanted || key == self.system_account || self.needed.contains(key) {
                // What comes of it shows in its imports.
                let _ = self.look_up(key, wall);
            }
            return Taken::Kept;
        }
        let Some(claims) = self.verify(text, key, wall) else { return Taken::Kept };
        let before = self.loaded.get(key).map(|loaded| loaded.claims.clone());
        self.load(key, claims, wall);
        before.map_or(Taken::Kept, Taken::Updated)
    }

    fn holds(&self, key: &str) -> bool {
        self.loaded.get(key).is_none_or(|loaded| !loaded.expired)
    }

    /// Accounts in use whose time is over become expired. Says which.
    pub fn expire(&mut self, wall: Timestamp) -> Vec<String> {
        let mut over = Vec::new();
        for (key, loaded) in &mut self.loaded {
            let expires = loaded.claims.expires;
            if !loaded.expired && expires > 0 && end_of(expires) <= wall {
                loaded.expired = true;
                self.changed = true;
                over.push(key.clone());
            }
        }
        over
    }

    /// The accounts as they are to be declared now, and when they change by themselves.
    pub fn declared(&mut self, wall: Timestamp) -> (Vec<Account>, Option<Timestamp>) {
        let (mut active, until) = imports::active(self, wall);
        let mut next = until;
        let mut all = Vec::new();
        for (key, loaded) in &self.loaded {
            let claims = &loaded.claims;
            if !loaded.expired && claims.expires > 0 {
                let end = end_of(claims.expires);
                next = Some(next.map_or(end, |next: Timestamp| next.min(end)));
            }
            let imports = active.remove(key).unwrap_or_default();
            let system = *key == self.system_account;
            all.push(declare(key, loaded, imports, system));
        }
        (all, next)
    }
}

/// Why a token is not taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The account, or `n/a`.
    pub account: String,
    /// What was tried.
    pub context: &'static str,
    /// What is wrong.
    pub description: String,
}

/// Below zero is without limit, more than fits is as much as fits.
fn bound(value: i64) -> Option<u32> {
    (value >= 0).then(|| u32::try_from(value).unwrap_or(u32::MAX))
}

fn storage(of: &Storage) -> JetStreamAccountLimits {
    let some = |value: i64| u64::try_from(value).ok();
    let unless_zero = |value: i64| some(value).filter(|value| *value > 0);
    let count =
        |value: i64| unless_zero(value).map(|value| u32::try_from(value).unwrap_or(u32::MAX));
    JetStreamAccountLimits {
        max_memory: some(of.mem_storage),
        max_store: some(of.disk_storage),
        max_streams: count(of.streams),
        max_consumers: count(of.consumer),
        max_bytes_required: of.max_bytes_required,
        memory_max_stream_bytes: unless_zero(of.mem_max_stream_bytes),
        store_max_stream_bytes: unless_zero(of.disk_max_stream_bytes),
        max_ack_pending: count(of.max_ack_pending),
    }
}

fn declare(
    key: &str,
    loaded: &Loaded,
    imports: Vec<super::account::Import>,
    system: bool,
) -> Account {
    let claims = &loaded.claims;
    let limits = &claims.limits;
    // One server holds one replica.
    let stored = claims.tiers.get("R1").unwrap_or(&claims.storage);
    let on = !system && !loaded.expired && !stored.is_off();
    Account {
        name: key.into(),
        nkey: Some(key.into()),
        limits: AccountLimits {
            max_connections: bound(limits.conn),
            max_subscriptions: bound(limits.subs),
            max_payload: bound(limits.payload),
            max_leafnodes: bound(limits.leaf),
        },
        jetstream: on.then(|| storage(stored)),
        default_permissions: None,
        exports: claims.exports.iter().map(export).collect(),
        imports,
        mappings: claims
            .mappings
            .iter()
            .map(|(subject, destinations)| Mapping {
                subject: subject.clone(),
                destinations: destinations.clone(),
            })
            .collect(),
        trace: claims.trace.clone(),
    }
}

fn export(claim: &ExportClaim) -> Export {
    let kind = match claim.kind {
        Some(Share::Service) => ExportKind::Service {
            response: match claim.response_type.as_str() {
                "Stream" => ResponseType::Stream,
                "Chunked" => ResponseType::Chunked,
                _ => ResponseType::Singleton,
            },
            threshold: u64::try_from(claim.response_threshold)
                .ok()
                .filter(|nanos| *nanos > 0)
                .map(Duration::from_nanos),
            latency: claim.latency.as_ref().map(|(sampling, subject)| Latency {
                subject: subject.clone(),
                sampling: match u8::try_from(*sampling) {
                    Ok(0) | Err(_) => Sampling::Headers,
                    Ok(percent) => Sampling::Percent(percent),
                },
            }),
        },
        _ => ExportKind::Stream,
    };
    Export {
        subject: claim.subject.clone(),
        kind,
        accounts: None,
        account_token_position: u16::try_from(claim.account_token_position)
            .ok()
            .filter(|position| *position > 0),
        allow_trace: claim.allow_trace,
    }
}

/// Is this the text of an account's public key?
pub fn is_account_key(text: &str) -> bool {
    super::jwt::claims::is_key(text, KeyKind::Account)
}

#[cfg(test)]
mod tests;
