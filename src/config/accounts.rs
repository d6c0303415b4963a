//! The `accounts` block, and what must agree between accounts, users and remotes.
//!
//! Owns names, limits, storage and tracing of accounts, and the checks that need all of
//! them. Does not own exports and imports (`exports`) nor users (`users`).
//!
//! # Invariants
//! - No two accounts of a finished `Config` have one name; none is called `$G`.
//! - Every account that a user, a remote, an export or an import names exists.

use super::Config;
use super::exports::Imported;
use super::keys::{ACCOUNT, ACCOUNT_JETSTREAM, ACCOUNT_LIMITS, MESSAGE_TRACE};
use super::mappings::in_order;
use super::mistake::Place;
use super::parser::{Map, Node, Value};
use super::read::Reader;
use super::units::short;
use super::users::is_public_key;
use crate::auth::account::{
    Account, AccountLimits, GLOBAL, JetStreamAccountLimits, MessageTrace, SYSTEM,
};
use crate::auth::nkey::KeyKind;
use crate::subject::is_valid_literal;
use std::collections::BTreeSet;

/// What is declared in several places and checked at the end.
#[derive(Default)]
pub(super) struct Declared {
    /// Names of users of all accounts.
    pub(super) users: BTreeSet<String>,
    /// Public keys of users of all accounts.
    pub(super) nkeys: BTreeSet<String>,
    /// The single user (true) or token of `authorization`.
    pub(super) single_login: Option<(Place, bool)>,
    /// Where an account has users.
    pub(super) account_users: Option<Place>,
    /// Where an account has `jetstream`.
    pub(super) jetstream: Vec<(String, Place)>,
    /// Imports, before they are known to be right.
    pub(super) imports: Vec<Imported>,
    /// Accounts that an export names, with its kind.
    pub(super) grantees: Vec<(String, &'static str, Place)>,
    /// Accounts of leaf remotes.
    pub(super) remotes: Vec<(String, Place)>,
    /// `no_auth_user`, of clients and of WebSocket.
    pub(super) no_auth_users: Vec<(String, Place)>,
    /// `websocket` with an `authorization` of its own.
    pub(super) websocket_login: Option<Place>,
    /// `https` or `https_port`.
    pub(super) https: Option<Place>,
    /// `default_js_domain`.
    pub(super) default_js_domain: Option<Place>,
    /// `system_account`.
    pub(super) system_account: Option<Place>,
    /// The first key that speaks of operators.
    pub(super) operators: Option<Place>,
    /// A cookie that stands for a token.
    pub(super) jwt_cookie: Option<(String, Place)>,
}

impl Reader<'_> {
    pub(super) fn accounts(&mut self, node: &Node, config: &mut Config, declared: &mut Declared) {
        match &node.value {
            Value::Array(nodes) => {
                for node in nodes {
                    let Some(name) = self.text("an account's name", node) else { continue };
                    if self.is_fit(&name, &node.place, config) {
                        config.accounts.push(Account::named(&name));
                    }
                }
            }
            Value::Map(map) => {
                for (name, entry) in in_order(map) {
                    if !self.is_fit(name, &entry.place, config) {
                        continue;
                    }
                    let Value::Map(map) = &entry.node.value else {
                        if !entry.is_variable {
                            self.wrong(&entry.node, "Expected map entries for accounts");
                        }
                        continue;
                    };
                    let account = self.account(name, map, config, declared);
                    config.accounts.push(account);
                }
            }
            _ => self.wrong_kind("accounts", node, "a list of names or a block { }"),
        }
    }

    /// May this be the name of one more account?
    fn is_fit(&mut self, name: &str, place: &Place, config: &Config) -> bool {
        // The name becomes tokens of subjects like $SYS.REQ.ACCOUNT.<name>.INFO.
        let blank = name.contains(|c: char| c.is_whitespace() || c.is_control());
        let what = if name == GLOBAL {
            format!("\"{GLOBAL}\" is a Reserved Account")
        } else if config.accounts.iter().any(|account| account.name == name) {
            format!("Duplicate Account Entry: {}", short(name))
        } else if blank || !is_valid_literal(name.as_bytes()) {
            format!("{:?} cannot be the name of an account: no blanks, no wildcards", short(name))
        } else {
            return true;
        };
        self.mistakes.add(place.clone(), what);
        false
    }

    fn account(
        &mut self,
        name: &str,
        map: &Map,
        config: &mut Config,
        declared: &mut Declared,
    ) -> Account {
        let mut account = Account::named(name);
        let mut users = None;
        for (key, entry) in self.entries(map, &ACCOUNT) {
            let node = &entry.node;
            match key {
                "nkey" => account.nkey = self.account_key(key, node),
                "users" => users = Some(node),
                "default_permissions" => account.default_permissions = self.permissions(node),
                "mappings" => account.mappings = self.mappings(key, node),
                "exports" => account.exports = self.exports(node, declared),
                "imports" => self.imports(node, name, declared),
                "jetstream" => {
                    account.jetstream = self.account_jetstream(node);
                    if account.jetstream.is_some() {
                        declared.jetstream.push((name.to_owned(), node.place.clone()));
                    }
                }
                "limits" => account.limits = self.account_limits(node),
                "msg_trace" => account.trace = self.message_trace(key, node),
                _ => {}
            }
        }
        if let Some(node) = users {
            let defaults = account.default_permissions.clone();
            let users = self.users(node, name, defaults.as_ref(), declared);
            if !users.is_empty() {
                declared.account_users.get_or_insert_with(|| node.place.clone());
            }
            config.users.extend(users);
        }
        account
    }

    fn account_key(&mut self, key: &str, node: &Node) -> Option<String> {
        let text = self.text(key, node)?;
        if is_public_key(&text, KeyKind::Account) {
            return Some(text);
        }
        self.wrong(node, format!("Not a valid public nkey for an account: {:?}", short(&text)));
        None
    }

    fn account_limits(&mut self, node: &Node) -> AccountLimits {
        let mut limits = AccountLimits::default();
        let Some(map) = self.map("limits", node) else { return limits };
        for (key, entry) in self.entries(map, &ACCOUNT_LIMITS) {
            // -1 is without limit; 0 and below it refuse everything, as in nats-server.
            let value = match self.integer(key, &entry.node, i64::MIN, i64::MAX) {
                None | Some(-1) => None,
                Some(value) if value < 0 => Some(0),
                Some(value) => u32::try_from(value).ok(),
            };
            match key {
                "max_connections" => limits.max_connections = value,
                "max_subscriptions" => limits.max_subscriptions = value,
                "max_payload" => limits.max_payload = value,
                "max_leafnodes" => limits.max_leafnodes = value,
                _ => {}
            }
        }
        limits
    }

    fn account_jetstream(&mut self, node: &Node) -> Option<JetStreamAccountLimits> {
        let mut limits = JetStreamAccountLimits::default();
        let map = match &node.value {
            Value::Bool(on) => return on.then_some(limits),
            Value::Text(text) if text.eq_ignore_ascii_case("enabled") => return Some(limits),
            Value::Text(text) if text.eq_ignore_ascii_case("disabled") => return None,
            Value::Text(text) => {
                let text = short(text);
                self.wrong(
                    node,
                    format!("Expected 'enabled' or 'disabled' for string value, got '{text}'"),
                );
                return None;
            }
            Value::Map(map) => map,
            _ => {
                let kind = node.value.kind();
                self.wrong(
                    node,
                    format!("Expected map, bool or string to define JetStream, got {kind}"),
                );
                return None;
            }
        };
        for (key, entry) in self.entries(map, &ACCOUNT_JETSTREAM) {
            let node = &entry.node;
            match key {
                "max_bytes_required" => self.flag(key, node, &mut limits.max_bytes_required),
                "cluster_traffic" => {
                    self.choice(key, node, &[("system", ()), ("owner", ())]);
                }
                _ => {
                    // Below 0 is without limit.
                    let value = self.integer(key, node, i64::MIN, i64::MAX);
                    let bytes = value.and_then(|value| u64::try_from(value).ok());
                    let count = bytes.and_then(|value| u32::try_from(value).ok());
                    match key {
                        "max_memory" => limits.max_memory = bytes,
                        "max_store" => limits.max_store = bytes,
                        "max_streams" => limits.max_streams = count,
                        "max_consumers" => limits.max_consumers = count,
                        "memory_max_stream_bytes" => limits.memory_max_stream_bytes = bytes,
                        "store_max_stream_bytes" => limits.store_max_stream_bytes = bytes,
                        "max_ack_pending" => limits.max_ack_pending = count,
                        _ => {}
                    }
                }
            }
        }
        Some(limits)
    }

    fn message_trace(&mut self, key: &str, node: &Node) -> Option<MessageTrace> {
        let mut sampling = 100;
        let mut dest = None;
        match &node.value {
            Value::Text(_) => dest = self.text(key, node).map(|dest| (dest, node)),
            Value::Map(map) => {
                for (key, entry) in self.entries(map, &MESSAGE_TRACE) {
                    let node = &entry.node;
                    if key == "dest" {
                        dest = self.text(key, node).map(|dest| (dest, node));
                    } else if let Some(value) = self.percentage("Trace destination", node) {
                        sampling = value;
                    }
                }
                if dest.is_none() {
                    let what = "Trace destination sampling ignored since no destination was set";
                    self.warnings.add(node.place.clone(), what);
                }
            }
            _ => self.wrong_kind(key, node, "a subject or a block { dest, sampling }"),
        }
        let (dest, node) = dest?;
        if !is_valid_literal(dest.as_bytes()) || dest.contains(char::is_whitespace) {
            let dest = short(&dest);
            self.wrong(node, format!("Trace destination {dest:?} is not valid"));
            return None;
        }
        Some(MessageTrace { dest, sampling })
    }

    /// `50`, `"50"` or `"50%"`: 1 to 100.
    pub(super) fn percentage(&mut self, what: &str, node: &Node) -> Option<u8> {
        let value = match &node.value {
            Value::Integer { value, .. } => u8::try_from(*value).ok(),
            Value::Text(text) => text.strip_suffix('%').unwrap_or(text).parse().ok(),
            _ => None,
        };
        let value = value.filter(|value| (1..=100).contains(value));
        if value.is_none() {
            self.wrong(
                node,
                format!("{what} sampling value is invalid, needs to be [1..100], or like \"50%\""),
            );
        }
        value
    }

    /// What can be judged only when everything was read.
    pub(super) fn agree(&mut self, config: &mut Config, declared: Declared) {
        let by_token = self.agree_operators(config, &declared);
        if let (Some((cookie, place)), false) = (&declared.jwt_cookie, by_token) {
            let cookie = short(cookie);
            self.mistakes.add(
                place.clone(),
                format!(
                    "trusted operators or trusted keys configuration is required for JWT \
                     authentication via cookie {cookie:?}"
                ),
            );
        }
        if let Some((_, is_user)) = &declared.single_login
            && let Some(place) = &declared.account_users
        {
            let what = if *is_user {
                "Can not have a single user/pass and accounts"
            } else {
                "Can not have a token and accounts"
            };
            self.mistakes.add(place.clone(), what);
        }
        let exists = |name: &str| config.accounts.iter().any(|account| account.name == name);
        for (name, kind, place) in &declared.grantees {
            if !exists(name) {
                let name = short(name);
                self.mistakes
                    .add(place.clone(), format!("{name:?} account not defined for {kind} export"));
            }
        }
        for (name, place) in &declared.remotes {
            if by_token {
                if !is_public_key(name, KeyKind::Account) {
                    let name = short(name);
                    self.mistakes.add(
                        place.clone(),
                        format!(
                            "operator mode requires account nkeys in remotes. {name:?} is none"
                        ),
                    );
                }
                continue;
            }
            if !exists(name) && name != GLOBAL && name != SYSTEM {
                let name = short(name);
                self.mistakes.add(
                    place.clone(),
                    format!("cannot find local account {name:?} specified in leafnode remote"),
                );
            }
        }
        if let Some(place) = &declared.default_js_domain {
            let alone = config.accounts.iter().all(|account| account.name == SYSTEM);
            for (name, _) in &config.default_js_domain {
                let asks = |account: &Account| account.name == *name && account.jetstream.is_some();
                if config.accounts.iter().any(asks)
                    || (name == GLOBAL && alone && config.jetstream.is_some())
                {
                    let name = short(name);
                    let what = format!(
                        "default_js_domain contains account name {name:?} with enabled JetStream"
                    );
                    self.mistakes.add(place.clone(), what);
                }
                if !exists(name) && name != GLOBAL {
                    let name = short(name);
                    self.mistakes.add(
                        place.clone(),
                        format!("`default_js_domain` references non existing account {name:?}"),
                    );
                }
            }
        }
        if let Some(place) = declared.system_account.as_ref().filter(|_| !by_token)
            && let Some(name) = &config.system_account
            && !exists(name)
            && name != GLOBAL
        {
            let name = short(name);
            self.mistakes.add(
                place.clone(),
                format!(
                    "error resolving system account: account missing; write {name:?} into accounts"
                ),
            );
        }
        let system = config.system_account.as_deref().unwrap_or(SYSTEM);
        if config.jetstream.is_some() {
            for (_, place) in declared.jetstream.iter().filter(|(name, _)| name == system) {
                let what = "Not allowed to enable JetStream on the system account";
                self.mistakes.add(place.clone(), what);
            }
        }
        for (name, place) in &declared.no_auth_users {
            if declared.users.contains(name) || declared.nkeys.contains(name) {
                continue;
            }
            let name = short(name);
            let what = if config.users.is_empty() {
                "present, but users/nkeys are not defined"
            } else {
                "not present as user or nkey in authorization block or account configuration"
            };
            self.mistakes.add(place.clone(), format!("no_auth_user: {name:?} {what}"));
        }
        self.agree_websocket(config, &declared);
        if let Some(place) = &declared.https
            && let Some(https) = config.monitor.https_port
        {
            if let Some(http) = config.monitor.http_port {
                self.mistakes.add(
                    place.clone(),
                    format!("can't specify both HTTP ({http}) and HTTPs ({https}) ports"),
                );
            } else if config.tls.is_none() {
                let what = "TLS cert and key required for HTTPS; write a tls block";
                self.mistakes.add(place.clone(), what);
            }
        }
        self.join_imports(config, declared.imports);
    }
}
