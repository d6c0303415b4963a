//! Signing in by a token.
//!
//! Owns the checks in their order, from the token of a CONNECT to who somebody is and what
//! that may do, and what a change of an account means for those who are in it. Does not own
//! connections.
//!
//! # Invariants
//! - Nobody gets in without a token that a trusted chain signed, and, unless it is a bearer
//!   token, a signature of this connection's nonce.
//! - The order of the checks is nats-server's, so that the log gives the same reason.
//!
//! Source: NATS docs, "Decentralized JWT Authentication"; order and texts as nats-server
//! 2.15.1.

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;

use super::{LookupError, Trust};
use crate::auth::jwt::check::{self, Network, ZoneOffset, clock_time};
use crate::auth::jwt::claims::{AccountClaims, Grants, Lists, Scope, UserClaims, is_key};
use crate::auth::jwt::template::Values;
use crate::auth::jwt::{Kind, Token, end_of, seconds};
use crate::auth::nkey::{KeyKind, PublicKey};
use crate::auth::permissions::{Entry, Permissions, Policy, Responses, Rules, Strictness};
use crate::auth::sign_in::{Identity, Refusal, Who};
use crate::auth::user::ConnectionType;
use crate::subject::is_valid_strict;
use crate::time::{Duration, Timestamp};

/// What a connection brings.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The token of CONNECT.
    pub jwt: &'a str,
    /// Its user's signature of the nonce.
    pub signature: &'a str,
    /// As INFO told it.
    pub nonce: &'a str,
    /// How it connected.
    pub connection: ConnectionType,
    /// Where from, if that is known.
    pub address: Option<IpAddr>,
    /// Did it come through a trusted proxy?
    pub through_proxy: bool,
}

/// Who somebody is by a token.
#[derive(Clone, Debug)]
pub struct ByToken {
    /// The user's key, verified.
    pub subject: String,
    /// For people.
    pub name: String,
    /// The key that signed the user.
    pub issuer: String,
    /// The account's name, for people.
    pub account_name: String,
    /// `iat`.
    pub issued: i64,
    /// Tags of the user.
    pub tags: Vec<String>,
    /// No signature was asked for.
    pub bearer: bool,
    /// It has permissions of its own, so that its account's defaults are not for it.
    pub has_own: bool,
    /// By a scoped key.
    pub scope: Option<Rc<Scope>>,
    /// When it may not stay any longer.
    pub until: Option<Timestamp>,
    /// Its own bound for subscriptions.
    pub max_subscriptions: Option<u32>,
    /// Its own bound for messages.
    pub max_payload: Option<u32>,
}

/// Why an attempt did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// For good.
    Refused(Refusal),
    /// Nobody here knows this account; somebody else may.
    Unknown(String),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

fn quiet(text: impl Into<String>) -> Failure {
    Failure::Refused(Refusal::Token { text: text.into(), loud: false })
}

fn loud(text: impl Into<String>) -> Failure {
    Failure::Refused(Refusal::Token { text: text.into(), loud: true })
}

const INVALID_PERMISSIONS: &str = "User JWT generated invalid permissions";

impl Trust {
    /// The checks, in their order.
    pub fn sign_in(
        &mut self,
        attempt: &Attempt<'_>,
        wall: Timestamp,
    ) -> Result<Rc<Identity>, Failure> {
        let decode = |text: &str| Token::decode(text).ok().filter(|token| token.kind == Kind::User);
        let Some(token) = decode(attempt.jwt).or_else(|| decode(&self.sentinel)) else {
            return Err(quiet("Authentication requires a user JWT"));
        };
        let Ok(UserClaims { mut grants }) = UserClaims::read(&token) else {
            return Err(quiet("Authentication requires a user JWT"));
        };
        if !self.lax && !is_key(&token.subject, KeyKind::User) {
            return Err(quiet("User JWT is not valid: its subject is no public key of a user"));
        }
        if grants.proxy_required && !attempt.through_proxy {
            return Err(Refusal::ProxyRequired.into());
        }
        let mut problems = check::user(&grants, &token.issuer_account, self.zone);
        problems.extend(token.time_problem(wall).map(String::from));
        if let Some(first) = problems.first() {
            return Err(quiet(format!("User JWT no longer valid: &{{Issues:[{first}]}}")));
        }
        let key = token.account();
        if !self.pinned.is_empty() && !self.pinned.contains(&key) {
            return Err(quiet(format!("Account {key} not listed as operator pinned account")));
        }
        let loaded = match self.look_up(&key, wall) {
            Ok(loaded) => loaded,
            Err(LookupError::Missing) => return Err(Failure::Unknown(key)),
            Err(error) => return Err(quiet(format!("Account JWT lookup error: {error}"))),
        };
        let account = loaded.claims;
        if !account.signs(&token.issuer, loaded.strict) {
            return Err(quiet("User JWT issuer is not known"));
        }
        let scope = account.signing.get(&token.issuer.to_string()).cloned().flatten();
        if let Some(scope) = &scope {
            if !grants.is_zero() {
                let what = "scoped users require no permissions or limits set";
                return Err(quiet(format!("User JWT is not valid: {what}")));
            }
            let values = Values { user: &token, account: &account, lax: self.lax };
            grants = scope.template.clone();
            for list in [&mut grants.publish, &mut grants.subscribe] {
                *list = values.fill(list).map_err(|_| quiet(INVALID_PERMISSIONS))?;
            }
            if grants.proxy_required && !attempt.through_proxy {
                return Err(Refusal::ProxyRequired.into());
            }
        }
        if account.expires > 0 && seconds(wall) > account.expires {
            return Err(quiet("Account JWT has expired"));
        }
        if grants.bearer && account.limits.disallow_bearer {
            return Err(quiet("Account does not allow bearer tokens"));
        }
        connection_type(&grants.types, attempt.connection)?;
        if !grants.bearer {
            signature(&token.subject, attempt)?;
        }
        if account.is_revoked(&token.subject, token.issued) {
            return Err(quiet("User authentication revoked"));
        }
        source(&grants.sources, attempt.address)?;
        let callout = &account.callout;
        if !callout.auth_users.is_empty() && !callout.auth_users.contains(&token.subject) {
            // Somebody else is to decide about it, and cannot be asked so far.
            return Err(quiet("Auth callout is not supported: only its auth_users may sign in"));
        }
        let window = remaining(&grants, wall, self.zone)?;
        let has_own = grants.has_permissions();
        let permissions = self.permissions(if has_own { &grants } else { &account.defaults })?;
        let ends = (token.expires > 0).then(|| end_of(token.expires));
        let window = window.map(|left| Timestamp(wall.0.saturating_add(left)));
        let until = match (ends, window) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Ok(Rc::new(Identity {
            who: Who::Nkey(token.subject.clone()),
            account: key,
            policy: permissions
                .as_ref()
                .map(|rules| Rc::new(Policy::new(rules, self.strictness()))),
            permissions,
            by_token: Some(Box::new(ByToken {
                issuer: token.issuer.to_string(),
                account_name: account.name.clone(),
                issued: token.issued,
                bearer: grants.bearer,
                has_own,
                scope,
                until,
                max_subscriptions: super::bound(grants.subs),
                max_payload: super::bound(grants.payload),
                subject: token.subject,
                name: token.name,
                tags: token.tags,
            })),
        }))
    }

    fn strictness(&self) -> Strictness {
        if self.lax { Strictness::Lax } else { Strictness::Subset }
    }

    fn permissions(&self, grants: &Grants) -> Result<Option<Rc<Permissions>>, Failure> {
        if !grants.has_permissions() {
            return Ok(None);
        }
        Ok(Some(Rc::new(Permissions {
            publish: self.rules(&grants.publish)?,
            subscribe: self.rules(&grants.subscribe)?,
            responses: grants.responses.map(|(max, ttl)| Responses {
                max: if max == 0 { Some(1) } else { super::bound(max) },
                expires: match ttl {
                    0 => Some(Duration::from_mins(2)),
                    ttl => u64::try_from(ttl).ok().map(Duration::from_nanos),
                },
            }),
        })))
    }

    /// An entry that does not parse allows nothing. In a deny list it refuses the login,
    /// unless the rules are lax.
    fn rules(&self, lists: &Lists) -> Result<Rules, Failure> {
        let entry = |text: &String| {
            let (subject, queue) = match text.split_once(' ') {
                Some((subject, queue)) => (subject, Some(queue)),
                None => (text.as_str(), None),
            };
            is_valid_strict(subject.as_bytes())
                .then(|| Entry { subject: subject.into(), queue: queue.map(String::from) })
        };
        let allow: Vec<Entry> = lists.allow.iter().filter_map(entry).collect();
        let mut deny: Vec<Entry> = lists.deny.iter().filter_map(entry).collect();
        if deny.len() < lists.deny.len() && !self.lax {
            return Err(quiet(INVALID_PERMISSIONS));
        }
        if allow.is_empty() && !lists.allow.is_empty() {
            deny.push(Entry { subject: ">".into(), queue: None });
        }
        Ok(Rules { allow, deny })
    }

    /// Who somebody is whose account has changed: with the defaults of now.
    pub fn anew(&self, identity: &Rc<Identity>, account: &AccountClaims) -> Rc<Identity> {
        let Some(by_token) = identity.by_token.as_ref().filter(|by| !by.has_own) else {
            return identity.clone();
        };
        let permissions = self.permissions(&account.defaults).unwrap_or_else(|_| {
            // Defaults that cannot be understood allow nothing.
            let deny = Rules { allow: Vec::new(), deny: Vec::from([everything()]) };
            Some(Rc::new(Permissions { publish: deny.clone(), subscribe: deny, responses: None }))
        });
        if permissions == identity.permissions {
            return identity.clone();
        }
        Rc::new(Identity {
            who: identity.who.clone(),
            account: identity.account.clone(),
            policy: permissions
                .as_ref()
                .map(|rules| Rc::new(Policy::new(rules, self.strictness()))),
            permissions,
            by_token: Some(by_token.clone()),
        })
    }
}

fn everything() -> Entry {
    Entry { subject: ">".into(), queue: None }
}

/// What a change of its account means for somebody who is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays.
    Stays,
    /// It was revoked.
    Revoked,
    /// Bearer tokens are not wanted any more.
    NoBearer,
    /// The key that signed it is gone, or what that key gives has changed.
    Unsigned,
}

impl ByToken {
    /// What these claims of its account mean for it.
    pub fn fate(&self, account: &AccountClaims, strict: bool) -> Fate {
        let signed = self.issuer.parse::<PublicKey>().is_ok_and(|key| account.signs(&key, strict));
        let scope = account.signing.get(&self.issuer).cloned().flatten();
        if account.is_revoked(&self.subject, self.issued) {
            Fate::Revoked
        } else if self.bearer && account.limits.disallow_bearer {
            Fate::NoBearer
        } else if !signed || scope != self.scope {
            Fate::Unsigned
        } else {
            Fate::Stays
        }
    }
}

/// Unknown names do not count while a known one is left.
fn connection_type(types: &[String], connection: ConnectionType) -> Result<(), Failure> {
    if types.is_empty() {
        return Ok(());
    }
    let known: Vec<ConnectionType> =
        types.iter().filter_map(|name| ConnectionType::parse(name)).collect();
    if known.is_empty() {
        let names: Vec<String> = types.iter().map(|name| format!("{name:?}")).collect();
        return Err(quiet(format!("invalid connection types [{}]", names.join(" "))));
    }
    if known.contains(&connection) { Ok(()) } else { Err(quiet("Connection type not allowed")) }
}

fn signature(subject: &str, attempt: &Attempt<'_>) -> Result<(), Failure> {
    if attempt.signature.is_empty() {
        return Err(Refusal::SignatureMissing.into());
    }
    let bytes = data_encoding::BASE64URL_NOPAD
        .decode(attempt.signature.as_bytes())
        .or_else(|_| data_encoding::BASE64.decode(attempt.signature.as_bytes()))
        .map_err(|_| Refusal::SignatureNotBase64)?;
    let key: PublicKey =
        subject.parse().map_err(|error| quiet(format!("User nkey not valid: {error}")))?;
    let signature: [u8; 64] = bytes.try_into().map_err(|_| Refusal::SignatureWrong)?;
    if !attempt.nonce.is_empty() && key.verify(attempt.nonce.as_bytes(), &signature) {
        Ok(())
    } else {
        Err(Refusal::SignatureWrong.into())
    }
}

fn source(networks: &[String], address: Option<IpAddr>) -> Result<(), Failure> {
    if networks.is_empty() {
        return Ok(());
    }
    let inside = |address| {
        networks.iter().filter_map(|text| Network::parse(text)).any(|net| net.contains(address))
    };
    match address {
        Some(address) if inside(address) => Ok(()),
        Some(address) => Err(loud(format!("Bad src Ip {}", address.to_canonical()))),
        None => Err(loud("Bad src Ip")),
    }
}

/// How many nanoseconds the longest window that is open stays so; `None`: there are none.
fn remaining(grants: &Grants, wall: Timestamp, zone: ZoneOffset) -> Result<Option<i64>, Failure> {
    const SECOND: i64 = 1_000_000_000;
    const DAY: i64 = 86_400 * SECOND;
    if grants.times.is_empty() {
        return Ok(None);
    }
    let offset = zone(&grants.zone, seconds(wall)).unwrap_or(0);
    let now = wall.0.saturating_add(offset.saturating_mul(SECOND)).rem_euclid(DAY);
    let mut longest = None;
    for (start, end) in &grants.times {
        let (Some(start), Some(end)) = (clock_time(start), clock_time(end)) else { continue };
        let (start, end) = (start * SECOND, end * SECOND);
        let left = if start <= end {
            (start < now && now < end).then(|| end - now)
        } else if now > start {
            Some(end + DAY - now)
        } else {
            (now < end).then(|| end - now)
        };
        longest = longest.max(left);
    }
    if longest.is_some() { Ok(longest) } else { Err(loud("Outside connect times")) }
}
