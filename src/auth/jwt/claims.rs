//! Bodies of tokens: what operators, accounts and users are told to be.
//!
//! Owns reading them, defaults included: what is missing is zero, and zero connections means
//! nobody. Does not own whether a body makes sense ([`super::check`]).
//!
//! Source: ADR-14 (JWT library); defaults as nats-server 2.15.1 reads them.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde_json::Value;

use litemap::LiteMap;

use super::read::Fields;
use super::{JwtError, Kind, Token};
use crate::auth::account::{Destination, MessageTrace};
use crate::auth::nkey::{KeyKind, PublicKey};

/// An allow and a deny list, entries as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// `allow`.
    pub allow: Vec<String>,
    /// `deny`.
    pub deny: Vec<String>,
}

impl Lists {
    fn read(fields: Fields<'_>) -> Result<Self, JwtError> {
        Ok(Self { allow: fields.texts("allow")?, deny: fields.texts("deny")? })
    }

    /// Does it say nothing?
    pub fn is_empty(&self) -> bool {
        self.allow.is_empty() && self.deny.is_empty()
    }
}

/// What a user may do, and when, how and how much: in its own token or in the template of a
/// scoped key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// `pub`.
    pub publish: Lists,
    /// `sub`; entries may name a queue group.
    pub subscribe: Lists,
    /// `resp`: how many, and for how many nanoseconds.
    pub responses: Option<(i64, i64)>,
    /// `src`: networks; empty: any.
    pub sources: Vec<String>,
    /// `times`: from and to; empty: any.
    pub times: Vec<(String, String)>,
    /// `times_location`.
    pub zone: String,
    /// Subscriptions; -1: without limit.
    pub subs: i64,
    /// Nobody enforces it.
    pub data: i64,
    /// Bytes of a message; -1: without limit.
    pub payload: i64,
    /// `bearer_token`: no signature is wanted.
    pub bearer: bool,
    /// Only through a trusted proxy.
    pub proxy_required: bool,
    /// `allowed_connection_types`; empty: any.
    pub types: Vec<String>,
}

impl Grants {
    /// `unset` is what a limit is that is missing.
    fn read(fields: Fields<'_>, unset: i64) -> Result<Self, JwtError> {
        let responses = match fields.value("resp") {
            None => None,
            Some(value) => {
                let rule = Fields::of(value)?;
                Some((rule.int("max", 0)?, rule.int("ttl", 0)?))
            }
        };
        // Once it was one text with commas.
        let sources = match fields.value("src") {
            Some(Value::String(text)) => text
                .split(',')
                .map(|part| part.trim().into())
                .filter(|part: &String| !part.is_empty())
                .collect(),
            _ => fields.texts("src")?,
        };
        let window = |value: &Value| {
            let window = Fields::of(value)?;
            Ok((window.text("start")?.into(), window.text("end")?.into()))
        };
        Ok(Self {
            publish: Lists::read(fields.object("pub")?)?,
            subscribe: Lists::read(fields.object("sub")?)?,
            responses,
            sources,
            times: fields.list("times")?.iter().map(window).collect::<Result<_, JwtError>>()?,
            zone: fields.text("times_location")?.into(),
            subs: fields.int("subs", unset)?,
            data: fields.int("data", unset)?,
            payload: fields.int("payload", unset)?,
            bearer: fields.flag("bearer_token")?,
            proxy_required: fields.flag("proxy_required")?,
            types: fields.texts("allowed_connection_types")?,
        })
    }

    /// Are there permissions in it?
    pub fn has_permissions(&self) -> bool {
        !self.publish.is_empty() || !self.subscribe.is_empty() || self.responses.is_some()
    }

    /// Is every member absent or zero, as with users of a scoped key?
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

/// A user's claims.
#[derive(Clone, Debug)]
pub struct UserClaims {
    /// What it may do.
    pub grants: Grants,
}

impl UserClaims {
    /// Of a user's token.
    pub fn read(token: &Token) -> Result<Self, JwtError> {
        if token.kind != Kind::User {
            return Err(JwtError::Json);
        }
        let unset = if token.version == 1 { -1 } else { 0 };
        Ok(Self { grants: Grants::read(token.body(), unset)? })
    }
}

/// An operator's claims.
#[derive(Clone, Debug)]
pub struct OperatorClaims {
    /// Its identity key.
    pub key: PublicKey,
    /// Who signed the token; itself.
    pub issuer: PublicKey,
    /// For people.
    pub name: String,
    /// Unix seconds; 0: never.
    pub expires: i64,
    /// Keys that may sign accounts for it.
    pub signing: Vec<PublicKey>,
    /// Where accounts can be had by HTTP.
    pub account_server_url: String,
    /// Public key of the system account, or empty.
    pub system_account: String,
    /// The server must not be older than this.
    pub server_version: String,
    /// The identity key may sign nothing below.
    pub strict: bool,
}

impl OperatorClaims {
    /// Of an operator's token.
    pub fn read(token: &Token) -> Result<Self, JwtError> {
        if token.kind != Kind::Operator {
            return Err(JwtError::Json);
        }
        let body = token.body();
        let keys = body.texts("signing_keys")?;
        let key = |text: &String| text.parse::<PublicKey>().map_err(|_| JwtError::Json);
        Ok(Self {
            key: token.subject.parse().map_err(|_| JwtError::SubjectKind)?,
            issuer: token.issuer,
            name: token.name.clone(),
            expires: token.expires,
            signing: keys.iter().map(key).collect::<Result<_, _>>()?,
            account_server_url: body.text("account_server_url")?.into(),
            system_account: body.text("system_account")?.into(),
            server_version: body.text("assert_server_version")?.into(),
            strict: body.flag("strict_signing_key_usage")?,
        })
    }
}

/// The template of a scoped signing key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// For people.
    pub role: String,
    /// What its users may do, markers not yet filled in.
    pub template: Grants,
}

/// Limits of an account; -1: without limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of the members of `limits`")]
pub struct Limits {
    pub subs: i64,
    pub payload: i64,
    pub conn: i64,
    pub leaf: i64,
    pub imports: i64,
    pub exports: i64,
    pub wildcards: bool,
    pub disallow_bearer: bool,
}

/// What an account may store; -1: without limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of the members of `limits`")]
pub struct Storage {
    pub mem_storage: i64,
    pub disk_storage: i64,
    pub streams: i64,
    pub consumer: i64,
    pub max_ack_pending: i64,
    pub mem_max_stream_bytes: i64,
    pub disk_max_stream_bytes: i64,
    pub max_bytes_required: bool,
}

impl Storage {
    fn read(fields: Fields<'_>) -> Result<Self, JwtError> {
        Ok(Self {
            mem_storage: fields.int("mem_storage", 0)?,
            disk_storage: fields.int("disk_storage", 0)?,
            streams: fields.int("streams", 0)?,
            consumer: fields.int("consumer", 0)?,
            max_ack_pending: fields.int("max_ack_pending", 0)?,
            mem_max_stream_bytes: fields.int("mem_max_stream_bytes", 0)?,
            disk_max_stream_bytes: fields.int("disk_max_stream_bytes", 0)?,
            max_bytes_required: fields.flag("max_bytes_required")?,
        })
    }

    /// Is JetStream off by it?
    pub fn is_off(&self) -> bool {
        self.mem_storage == 0 && self.disk_storage == 0
    }
}

/// Stream or service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Messages.
    Stream,
    /// Requests and answers.
    Service,
}

impl Share {
    /// Exports of version 1 have numbers.
    fn read(fields: Fields<'_>, name: &str) -> Result<Option<Self>, JwtError> {
        Ok(match fields.value(name) {
            Some(Value::Number(number)) => match number.as_i64() {
                Some(1) => Some(Self::Stream),
                Some(2) => Some(Self::Service),
                _ => None,
            },
            _ => match fields.text(name)? {
                "stream" => Some(Self::Stream),
                "service" => Some(Self::Service),
                "" => None,
                _ => return Err(JwtError::Json),
            },
        })
    }
}

/// An export of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of the members of an export")]
pub struct ExportClaim {
    pub subject: String,
    pub kind: Option<Share>,
    pub token_req: bool,
    pub revocations: LiteMap<String, i64>,
    pub response_type: String,
    /// Nanoseconds.
    pub response_threshold: i64,
    /// Percentage, 0 for headers, and where results go.
    pub latency: Option<(i64, String)>,
    pub account_token_position: i64,
    pub allow_trace: bool,
}

/// An import of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of the members of an import")]
pub struct ImportClaim {
    pub subject: String,
    pub account: String,
    pub token: String,
    pub local_subject: String,
    pub to: String,
    pub kind: Option<Share>,
    pub share: bool,
    pub allow_trace: bool,
}

impl ImportClaim {
    /// The subject at the exporter.
    pub fn remote(&self) -> &str {
        if self.kind == Some(Share::Service) && !self.to.is_empty() {
            &self.to
        } else {
            &self.subject
        }
    }

    /// The subject here; `None`: the same.
    pub fn local(&self) -> Option<String> {
        if !self.local_subject.is_empty() {
            return Some(self.local_subject.clone());
        }
        if self.to.is_empty() {
            return None;
        }
        Some(match self.kind {
            Some(Share::Service) => self.subject.clone(),
            // A prefix, with or without its dot.
            _ => format!("{}.{}", self.to.trim_end_matches('.'), self.subject),
        })
    }
}

/// The part of an account that is about deciding elsewhere who may sign in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "names of the members of `authorization`")]
pub struct Callout {
    pub auth_users: Vec<String>,
    pub allowed_accounts: Vec<String>,
    pub xkey: String,
}

/// An account's claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountClaims {
    /// Its identity key.
    pub key: PublicKey,
    /// For people.
    pub name: String,
    /// Who signed it.
    pub issuer: PublicKey,
    /// Unix seconds.
    pub issued: i64,
    /// Unix seconds; 0: never.
    pub expires: i64,
    /// `jti`.
    pub id: String,
    /// `tags`.
    pub tags: Vec<String>,
    /// Bounds.
    pub limits: Limits,
    /// What it may store, in one of the two ways.
    pub storage: Storage,
    /// By number of replicas, `R1`.
    pub tiers: LiteMap<String, Storage>,
    /// The flat limits are there beside tiers.
    pub both_storages: bool,
    /// What it takes from others.
    pub imports: Vec<ImportClaim>,
    /// What others may take.
    pub exports: Vec<ExportClaim>,
    /// Keys that sign for it, each perhaps with a scope.
    pub signing: LiteMap<String, Option<Rc<Scope>>>,
    /// User or `*`, and until when issued.
    pub revocations: LiteMap<String, i64>,
    /// For users without permissions of their own.
    pub defaults: Grants,
    /// Subject, and where messages go instead. Weights above 100 are kept as 255.
    pub mappings: Vec<(String, Vec<Destination>)>,
    /// Who decides elsewhere.
    pub callout: Callout,
    /// `trace`.
    pub trace: Option<MessageTrace>,
}

impl AccountClaims {
    /// Of an account's token.
    pub fn read(token: &Token) -> Result<Self, JwtError> {
        if token.kind != Kind::Account {
            return Err(JwtError::Json);
        }
        let body = token.body();
        let limits = body.object("limits")?;
        let mut tiers = LiteMap::new();
        for (name, value) in limits.object("tiered_limits")?.members() {
            tiers.insert(name.into(), Storage::read(Fields::of(value)?)?);
        }
        let flat = Storage::read(limits)?;
        let authorization = body.object("authorization")?;
        Ok(Self {
            key: token.subject.parse().map_err(|_| JwtError::SubjectKind)?,
            name: token.name.clone(),
            issuer: token.issuer,
            issued: token.issued,
            expires: token.expires,
            id: token.id.clone(),
            tags: token.tags.clone(),
            limits: Limits {
                subs: limits.int("subs", 0)?,
                payload: limits.int("payload", 0)?,
                conn: limits.int("conn", 0)?,
                leaf: limits.int("leaf", 0)?,
                imports: limits.int("imports", 0)?,
                exports: limits.int("exports", 0)?,
                wildcards: limits.flag("wildcards")?,
                disallow_bearer: limits.flag("disallow_bearer")?,
            },
            both_storages: !tiers.is_empty() && flat != Storage::default(),
            storage: if tiers.is_empty() { flat } else { Storage::default() },
            tiers,
            imports: body.list("imports")?.iter().map(import).collect::<Result<_, _>>()?,
            exports: body.list("exports")?.iter().map(export).collect::<Result<_, _>>()?,
            signing: body
                .list("signing_keys")?
                .iter()
                .map(signing_key)
                .collect::<Result<_, _>>()?,
            revocations: times(body.object("revocations")?)?,
            defaults: Grants::read(body.object("default_permissions")?, 0)?,
            mappings: mappings(body.object("mappings")?)?,
            callout: Callout {
                auth_users: authorization.texts("auth_users")?,
                allowed_accounts: authorization.texts("allowed_accounts")?,
                xkey: authorization.text("xkey")?.into(),
            },
            trace: trace(body.object("trace")?)?,
        })
    }

    /// May `key` sign users and activations? `strict`: the identity key may not.
    pub fn signs(&self, key: &PublicKey, strict: bool) -> bool {
        (*key == self.key && !strict) || self.signing.contains_key(&key.to_string())
    }

    /// Is whoever was issued at this time revoked?
    pub fn is_revoked(&self, subject: &str, issued: i64) -> bool {
        is_revoked(&self.revocations, subject, issued)
    }
}

/// The newest entry for `subject` or for all counts, its own second included.
pub fn is_revoked(revocations: &LiteMap<String, i64>, subject: &str, issued: i64) -> bool {
    [subject, "*"].iter().any(|name| revocations.get(*name).is_some_and(|at| *at >= issued))
}

fn times(fields: Fields<'_>) -> Result<LiteMap<String, i64>, JwtError> {
    let time = |(name, value): (&str, &Value)| {
        value.as_i64().map(|at| (String::from(name), at)).ok_or(JwtError::Json)
    };
    fields.members().map(time).collect()
}

fn signing_key(value: &Value) -> Result<(String, Option<Rc<Scope>>), JwtError> {
    if let Value::String(key) = value {
        return Ok((key.clone(), None));
    }
    let fields = Fields::of(value)?;
    if fields.text("kind")? != "user_scope" {
        return Err(JwtError::Json);
    }
    let template = Grants::read(fields.object("template")?, -1)?;
    let scope = Scope { role: fields.text("role")?.into(), template };
    Ok((fields.text("key")?.into(), Some(Rc::new(scope))))
}

fn export(value: &Value) -> Result<ExportClaim, JwtError> {
    let fields = Fields::of(value)?;
    let latency = match fields.value("service_latency") {
        None => None,
        Some(value) => {
            let latency = Fields::of(value)?;
            let sampling = match latency.value("sampling") {
                Some(Value::String(text)) if text.eq_ignore_ascii_case("headers") => 0,
                _ => latency.int("sampling", 0)?,
            };
            Some((sampling, latency.text("results")?.into()))
        }
    };
    Ok(ExportClaim {
        subject: fields.text("subject")?.into(),
        kind: Share::read(fields, "type")?,
        token_req: fields.flag("token_req")?,
        revocations: times(fields.object("revocations")?)?,
        response_type: fields.text("response_type")?.into(),
        response_threshold: fields.int("response_threshold", 0)?,
        latency,
        account_token_position: fields.int("account_token_position", 0)?,
        allow_trace: fields.flag("allow_trace")?,
    })
}

fn import(value: &Value) -> Result<ImportClaim, JwtError> {
    let fields = Fields::of(value)?;
    Ok(ImportClaim {
        subject: fields.text("subject")?.into(),
        account: fields.text("account")?.into(),
        token: fields.text("token")?.into(),
        local_subject: fields.text("local_subject")?.into(),
        to: fields.text("to")?.into(),
        kind: Share::read(fields, "type")?,
        share: fields.flag("share")?,
        allow_trace: fields.flag("allow_trace")?,
    })
}

fn mappings(fields: Fields<'_>) -> Result<Vec<(String, Vec<Destination>)>, JwtError> {
    let destination = |value: &Value| {
        let to = Fields::of(value)?;
        let weight = match to.int("weight", 0)? {
            0 => 100,
            weight => u8::try_from(weight).unwrap_or(u8::MAX),
        };
        let cluster = to.text("cluster")?;
        let cluster = (!cluster.is_empty()).then(|| cluster.into());
        Ok(Destination { subject: to.text("subject")?.into(), weight, cluster })
    };
    let mapping = |(source, value): (&str, &Value)| {
        let list = value.as_array().ok_or(JwtError::Json)?;
        let list = list.iter().map(destination).collect::<Result<_, JwtError>>()?;
        Ok((String::from(source), list))
    };
    fields.members().map(mapping).collect()
}

fn trace(fields: Fields<'_>) -> Result<Option<MessageTrace>, JwtError> {
    let dest = fields.text("dest")?;
    let sampling = match fields.int("sampling", 0)? {
        0 => 100,
        sampling => u8::try_from(sampling).unwrap_or(u8::MAX),
    };
    Ok((!dest.is_empty()).then(|| MessageTrace { dest: dest.into(), sampling }))
}

/// The right to import something.
#[derive(Clone, Debug)]
pub struct Activation {
    /// The account that gives it.
    pub exporter: String,
    /// The account it is for.
    pub importer: String,
    /// Who signed it.
    pub issuer: PublicKey,
    /// What may be imported.
    pub subject: String,
    /// Stream or service.
    pub kind: Option<Share>,
    /// Unix seconds.
    pub issued: i64,
    /// Unix seconds; 0: never.
    pub expires: i64,
    /// Unix seconds; 0: at once.
    pub not_before: i64,
}

impl Activation {
    /// Decodes its token.
    pub fn decode(text: &str) -> Result<Self, JwtError> {
        let token = Token::decode(text)?;
        if token.kind != Kind::Activation || token.issuer.kind() != KeyKind::Account {
            return Err(JwtError::IssuerKind);
        }
        let body = token.body();
        let kind = if token.version == 1 { "type" } else { "kind" };
        Ok(Self {
            exporter: token.account(),
            importer: token.subject.clone(),
            issuer: token.issuer,
            subject: body.text("subject")?.into(),
            kind: Share::read(body, kind)?,
            issued: token.issued,
            expires: token.expires,
            not_before: token.not_before,
        })
    }
}

/// The text of a key, if it is one of this kind.
pub fn is_key(text: &str, kind: KeyKind) -> bool {
    text.parse::<PublicKey>().is_ok_and(|key| key.kind() == kind)
}

/// A key as text.
pub fn text_of(key: &PublicKey) -> String {
    key.to_string()
}
