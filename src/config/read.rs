//! What the keys mean: the tree of values to a [`Config`].
//!
//! Owns the top level: its types, ranges and the checks between its keys. Does not own the
//! blocks inside (`users`, `accounts`, `jetstream`, `remotes` …), names (`keys`) or the
//! grammar of texts with units (`units`).
//!
//! # Invariants
//! - One function for each block; each key of it that `keys` marks `Read` has one arm.
//! - A wrong value leaves the default in place and the reading goes on.

use super::accounts::Declared;
use super::keys::{PROXIES, PROXY, TOP};
use super::mappings::in_order;
use super::mistake::{Collected, Mistakes, Place};
use super::parser::{Map, Node, Surroundings, Value, canonical_json, parse_file};
use super::units::{host_port, short};
use super::values::set_unless_zero;
use super::{Config, Loaded, WriteTimeout};
use crate::auth::nkey::PublicKey;
use crate::sorted;
use crate::time::GoDuration;
use sha2::{Digest as _, Sha256};
use std::path::Path;
use std::time::Duration;

/// Largest `max_payload` and `max_control_line`: sizes on the wire are below 2^31.
const SIZE_MAX: i64 = i32::MAX as i64;

/// Shortest lame duck mode; below, clients have no time to find another server.
const LAME_DUCK_MIN: Duration = Duration::from_secs(30);

pub(crate) fn load(path: &Path, surroundings: &dyn Surroundings) -> Result<Loaded, Mistakes> {
    let mut mistakes = Collected::default();
    let map = parse_file(path, surroundings, &mut mistakes);
    let empty = map.is_empty() && mistakes.is_empty();
    let mut reader = Reader { surroundings, mistakes, warnings: Collected::default() };
    let config = reader.top(&map);
    let main_file = path.display().to_string();
    let sorted = |collected: Collected| {
        let mut list = collected.into_vec();
        sorted::sort_by(&mut list, |a, b| {
            let key = |place: &Place| (*place.file != *main_file, place.line, place.column);
            key(&a.place).cmp(&key(&b.place))
        });
        list
    };
    if !reader.mistakes.is_empty() {
        return Err(Mistakes(sorted(reader.mistakes)));
    }
    if empty {
        let place = Place { file: main_file.as_str().into(), line: 0, column: 0 };
        reader.warnings.add(place, "config has no values or is empty");
    }
    let hash = Sha256::digest(canonical_json(&map).as_bytes());
    let digest = format!("sha256:{}", data_encoding::HEXLOWER.encode(&hash));
    Ok(Loaded { config, warnings: sorted(reader.warnings), digest })
}

pub(super) struct Reader<'a> {
    pub(super) surroundings: &'a dyn Surroundings,
    pub(super) mistakes: Collected,
    pub(super) warnings: Collected,
}

impl Reader<'_> {
    fn top(&mut self, map: &Map) -> Config {
        let mut config = Config::default();
        // Zero, or none at all, is what TLS needs and a second, or the default.
        let default_auth_timeout = std::mem::take(&mut config.auth_timeout);
        let mut declared = Declared::default();
        let mut unlimited_payload = false;
        let mut nested_store_dir = false;
        let mut sizes_place = None;
        let mut lame_duck_place = None;
        for (key, entry) in self.entries(map, &TOP) {
            let node = &entry.node;
            match key {
                "listen" => self.listen(key, node, &mut config.host, &mut config.port),
                "host" => self.set(&mut config.host, |this| this.text(key, node)),
                "port" => self.port(key, node, &mut config.port),
                "client_advertise" => {
                    config.client_advertise = self.filled(key, node);
                }
                "server_name" => {
                    let name = self.text(key, node).filter(|text| !text.is_empty());
                    if name.as_ref().is_some_and(|name| name.contains(char::is_whitespace)) {
                        self.wrong(node, "server_name cannot contain blanks");
                    } else {
                        config.server_name = name;
                    }
                }
                "no_header_support" => self.flag(key, node, &mut config.no_header_support),
                "max_connections" => {
                    // 0 and below refuse everybody, as in nats-server.
                    if let Some(value) = self.integer(key, node, i64::MIN, u32::MAX.into()) {
                        config.max_connections = u32::try_from(value).unwrap_or(0);
                    }
                }
                "max_subscriptions" => {
                    if let Some(value) = self.integer(key, node, i64::MIN, u32::MAX.into()) {
                        config.max_subscriptions =
                            u32::try_from(value).ok().filter(|value| *value > 0);
                    }
                }
                "max_sub_tokens" => {
                    if let Some(value) = self.integer(key, node, 1, u8::MAX.into()) {
                        config.max_sub_tokens = u8::try_from(value).ok();
                    }
                }
                "max_control_line" => {
                    if let Some(value) = self.integer(key, node, 0, SIZE_MAX) {
                        set_unless_zero(&mut config.max_control_line, u32::try_from(value).ok());
                    }
                }
                "max_payload" => {
                    sizes_place = Some(node.place.clone());
                    if let Some(value) = self.integer(key, node, -1, SIZE_MAX) {
                        unlimited_payload = value == -1;
                        set_unless_zero(&mut config.max_payload, u32::try_from(value).ok());
                    }
                }
                "max_pending" => {
                    sizes_place.get_or_insert_with(|| node.place.clone());
                    if let Some(value) = self.integer(key, node, 0, i64::MAX) {
                        set_unless_zero(&mut config.max_pending, u64::try_from(value).ok());
                    }
                }
                "ping_interval" => {
                    set_unless_zero(&mut config.ping_interval, self.duration(key, node));
                }
                "ping_max" => {
                    if let Some(value) = self.integer(key, node, 0, i32::MAX.into()) {
                        set_unless_zero(&mut config.ping_max, u32::try_from(value).ok());
                    }
                }
                "write_deadline" => {
                    set_unless_zero(&mut config.write_deadline, self.duration(key, node));
                }
                "write_timeout" => {
                    let choices = [
                        ("default", WriteTimeout::Default),
                        ("close", WriteTimeout::Close),
                        ("retry", WriteTimeout::Retry),
                    ];
                    self.set(&mut config.write_timeout, |this| this.choice(key, node, &choices));
                }
                "lame_duck_duration" => {
                    lame_duck_place = Some(node.place.clone());
                    if let Some(value) = self.quoted_duration(key, node) {
                        if value < LAME_DUCK_MIN {
                            self.wrong(node, "lame_duck_duration is below its minimum of 30s");
                        } else {
                            config.lame_duck_duration = value;
                        }
                    }
                }
                "lame_duck_grace_period" => {
                    lame_duck_place = Some(node.place.clone());
                    self.set(&mut config.lame_duck_grace_period, |this| {
                        this.quoted_duration(key, node)
                    });
                }
                "lax_permissions" => self.flag(key, node, &mut config.lax_permissions),
                "no_fast_producer_stall" => {
                    self.flag(key, node, &mut config.no_fast_producer_stall);
                }
                "max_closed_clients" => {
                    if let Some(value) = self.integer(key, node, i64::MIN, u32::MAX.into()) {
                        config.max_closed_clients = u32::try_from(value).unwrap_or(0);
                    }
                }
                "connect_error_reports" => {
                    config.connect_error_reports =
                        self.reports(key, node, config.connect_error_reports);
                }
                "reconnect_error_reports" => {
                    config.reconnect_error_reports =
                        self.reports(key, node, config.reconnect_error_reports);
                }
                "server_tags" => config.server_tags = self.tags(key, node),
                "server_metadata" => config.server_metadata = self.pairs(key, node),
                "feature_flags" => config.feature_flags = self.switches(key, node),
                "proxy_protocol" => self.flag(key, node, &mut config.proxy_protocol),
                "proxies" => config.trusted_proxies = self.proxies(node),
                "tls" => config.tls = self.tls(node),
                "allow_non_tls" => self.flag(key, node, &mut config.allow_non_tls),
                "websocket" => config.websocket = self.websocket(node, &mut declared),
                "http" => {
                    let (mut host, mut port) = (String::new(), 0);
                    self.listen(key, node, &mut host, &mut port);
                    config.monitor.listen(host, Some(port), None);
                }
                "https" => {
                    let (mut host, mut port) = (String::new(), 0);
                    self.listen(key, node, &mut host, &mut port);
                    config.monitor.listen(host, None, Some(port));
                    declared.https = Some(node.place.clone());
                }
                "http_port" => {
                    let mut port = 0;
                    self.port(key, node, &mut port);
                    config.monitor.listen(String::new(), Some(port), None);
                }
                "https_port" => {
                    let mut port = 0;
                    self.port(key, node, &mut port);
                    config.monitor.listen(String::new(), None, Some(port));
                    declared.https = Some(node.place.clone());
                }
                "http_base_path" => {
                    self.set(&mut config.monitor.base_path, |this| this.text(key, node));
                }
                "trace_headers" => self.flag(key, node, &mut config.trace_headers),
                "max_traced_msg_len" => {
                    config.max_traced_msg_len = self.bound(key, node, u32::MAX.into());
                }
                "log_size_limit" => config.log_size_limit = self.bound(key, node, i64::MAX),
                "log_max_num" => {
                    config.log_max_num = self.bound(key, node, u32::MAX.into());
                }
                "syslog" => self.flag(key, node, &mut config.syslog),
                "remote_syslog" => config.remote_syslog = self.filled(key, node),
                "default_js_domain" => {
                    config.default_js_domain = self.pairs(key, node);
                    declared.default_js_domain = Some(node.place.clone());
                }
                "debug" => self.flag(key, node, &mut config.debug),
                "trace" => self.flag(key, node, &mut config.trace),
                "trace_verbose" => self.flag(key, node, &mut config.trace_verbose),
                "logtime" => self.flag(key, node, &mut config.logtime),
                "logtime_utc" => self.flag(key, node, &mut config.logtime_utc),
                "log_file" => config.log_file = self.path(key, node),
                "pid_file" => config.pid_file = self.path(key, node),
                "ports_file_dir" => config.ports_file_dir = self.path(key, node),
                "authorization" => self.authorization(node, &mut config, &mut declared),
                "accounts" => self.accounts(node, &mut config, &mut declared),
                "mappings" => config.mappings = self.mappings(key, node),
                "no_auth_user" => {
                    config.no_auth_user = self.filled(key, node);
                    if let Some(name) = &config.no_auth_user {
                        declared.no_auth_users.push((name.clone(), node.place.clone()));
                    }
                }
                "system_account" => {
                    config.system_account = self.filled(key, node);
                    declared.system_account = Some(node.place.clone());
                }
                "no_system_account" => self.flag(key, node, &mut config.no_system_account),
                "jetstream" => {
                    let (jetstream, has_store_dir) = self.jetstream(node);
                    config.jetstream = jetstream;
                    nested_store_dir = has_store_dir;
                }
                "store_dir" => config.store_dir = self.path(key, node),
                "operator"
                | "resolver"
                | "resolver_preload"
                | "resolver_pinned_accounts"
                | "trusted"
                | "default_sentinel" => {
                    declared.operators.get_or_insert_with(|| node.place.clone());
                    self.operators(key, node, &mut config.operators);
                }
                "leafnodes" => self.leafnodes(node, &mut config.leafnodes, &mut declared),
                _ => {}
            }
        }
        config.trace |= config.trace_verbose | config.trace_headers;
        if config.auth_timeout.is_zero() {
            let tls = config.tls.as_ref();
            let behind_tls = |timeout: Duration| timeout.saturating_add(Duration::from_secs(1));
            config.auth_timeout = tls.map_or(default_auth_timeout, |tls| behind_tls(tls.timeout));
        }
        if let Some(directory) = &config.store_dir
            && let Some(jetstream) = &mut config.jetstream
        {
            if nested_store_dir {
                let place = place_of(map, "store_dir", "storedir");
                self.mistakes
                    .add(place, "store_dir stands here and in jetstream; write it in one place");
            } else {
                jetstream.store_dir.clone_from(directory);
            }
        }
        if unlimited_payload {
            let bound = config.max_pending.min(u64::try_from(SIZE_MAX).unwrap_or(u64::MAX));
            config.max_payload = u32::try_from(bound).unwrap_or(u32::MAX);
        }
        if u64::from(config.max_payload) > config.max_pending
            && let Some(place) = sizes_place
        {
            self.mistakes.add(
                place,
                format!(
                    "max_payload ({}) cannot be higher than max_pending ({}): such a message \
                     could never be delivered",
                    config.max_payload, config.max_pending
                ),
            );
        }
        if config.lame_duck_grace_period >= config.lame_duck_duration
            && let Some(place) = lame_duck_place
        {
            self.mistakes.add(
                place,
                format!(
                    "lame_duck_grace_period ({}) must be below lame_duck_duration ({})",
                    GoDuration(config.lame_duck_grace_period),
                    GoDuration(config.lame_duck_duration)
                ),
            );
        }
        self.agree(&mut config, declared);
        config
    }

    /// `host:port` or a port; what is not written stays as it is.
    pub(super) fn listen(&mut self, key: &str, node: &Node, host: &mut String, port: &mut i32) {
        if let Value::Integer { .. } = node.value {
            self.port(key, node, port);
            return;
        }
        let Some(text) = self.text(key, node) else { return };
        match host_port(&text) {
            Ok((name, number)) => {
                if !name.is_empty() {
                    *host = name;
                }
                self.port_number(key, node, number, port);
            }
            Err(what) => self.wrong(node, format!("{key}: {what}")),
        }
    }

    pub(super) fn port(&mut self, key: &str, node: &Node, port: &mut i32) {
        if let Some(value) = self.integer(key, node, i64::MIN, i64::MAX) {
            self.port_number(key, node, value, port);
        }
    }

    fn port_number(&mut self, key: &str, node: &Node, value: i64, port: &mut i32) {
        match i32::try_from(value) {
            // 0 is "not set" to nats-server, which has no other use for it.
            Ok(0) => {}
            Ok(value @ -1..=65_535) => *port = value,
            _ => self.wrong(
                node,
                format!("{key}: {value} is no port; there are 1 to 65535, and -1 for any free one"),
            ),
        }
    }

    /// How often a failed attempt is logged; 0 and below are the default.
    fn reports(&mut self, key: &str, node: &Node, default: u32) -> u32 {
        let value = self.integer(key, node, i64::MIN, u32::MAX.into());
        value.and_then(|value| u32::try_from(value).ok()).filter(|v| *v > 0).unwrap_or(default)
    }

    /// A bound where 0 and below are none.
    fn bound(&mut self, key: &str, node: &Node, max: i64) -> Option<u64> {
        let value = self.integer(key, node, i64::MIN, max)?;
        u64::try_from(value).ok().filter(|value| *value > 0)
    }

    fn tags(&mut self, key: &str, node: &Node) -> Vec<String> {
        let mut tags = Vec::new();
        for text in self.texts(key, node) {
            let tag = text.trim().to_lowercase();
            if !tag.is_empty() && !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        tags
    }

    /// A block of texts under free keys, in the order written.
    fn pairs(&mut self, key: &str, node: &Node) -> Vec<(String, String)> {
        let Some(map) = self.map(key, node) else { return Vec::new() };
        let mut pairs = Vec::new();
        for (name, entry) in in_order(map) {
            if let Some(value) = self.text(key, &entry.node) {
                pairs.push((name.to_owned(), value));
            }
        }
        pairs
    }

    /// A block of switches under free keys, in the order written.
    fn switches(&mut self, key: &str, node: &Node) -> Vec<(String, bool)> {
        let Some(map) = self.map(key, node) else { return Vec::new() };
        let mut switches = Vec::new();
        for (name, entry) in in_order(map) {
            let mut value = false;
            self.flag(key, &entry.node, &mut value);
            switches.push((name.to_owned(), value));
        }
        switches
    }

    /// Public keys of proxies.
    fn proxies(&mut self, node: &Node) -> Vec<String> {
        let Value::Map(map) = &node.value else {
            let kind = node.value.kind();
            self.wrong(node, format!("expected proxies to be a map/struct, got {kind}"));
            return Vec::new();
        };
        let mut keys = Vec::new();
        for (key, entry) in self.entries(map, &PROXIES) {
            let Value::Array(nodes) = &entry.node.value else {
                self.wrong_kind(key, &entry.node, "a list of { key }");
                continue;
            };
            for node in nodes {
                let Value::Map(map) = &node.value else {
                    let kind = node.value.kind();
                    self.wrong(
                        node,
                        format!("expected proxies' trusted entry to be a map/struct, got {kind}"),
                    );
                    continue;
                };
                for (key, entry) in self.entries(map, &PROXY) {
                    let Some(text) = self.text(key, &entry.node) else { continue };
                    if text.parse::<PublicKey>().is_ok() {
                        keys.push(text);
                    } else {
                        let text = short(&text);
                        self.wrong(&entry.node, format!("invalid proxy key {text:?}"));
                    }
                }
            }
        }
        keys
    }
}

fn place_of(map: &Map, key: &str, alias: &str) -> Place {
    map.iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(key) || name.eq_ignore_ascii_case(alias))
        .map_or(Place { file: "".into(), line: 0, column: 0 }, |(_, entry)| entry.place.clone())
}
