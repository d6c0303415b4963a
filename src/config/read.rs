//! What the keys mean: the tree of values to a [`Config`].
//!
//! Owns types, ranges and the checks between keys. Does not own names (`keys`) or the
//! grammar of texts with units (`units`).
//!
//! # Invariants
//! - One function for each block; each key of it that `keys` marks `Read` has one arm.
//! - A wrong value leaves the default in place and the reading goes on.

use super::keys::{
    AUTHORIZATION, Block, JETSTREAM, JETSTREAM_LIMITS, Kind, LEAFNODES, REMOTE, REMOTE_TLS,
    Support, TOP,
};
use super::mistake::{Collected, Mistakes, Place, nearest};
use super::parser::{Entry, Map, Node, Surroundings, Value, canonical_json, parse_file};
use super::units::{duration, host_port, is_filter, quoted_size, remote_url, short};
use super::{
    Authorization, Compression, Config, JetStreamConfig, JetStreamLimits, LeafNodesConfig, Loaded,
    RemoteConfig, RemoteUrl, Secret, SyncInterval, TlsClientConfig, WriteTimeout,
};
use crate::time::GoDuration;
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Leaf remotes of one configuration.
const REMOTES_MAX: usize = 64;

/// URLs of one remote.
const URLS_MAX: usize = 64;

/// Largest `max_payload` and `max_control_line`: sizes on the wire are below 2^31.
const SIZE_MAX: i64 = i32::MAX as i64;

/// Shortest lame duck mode; below, clients have no time to find another server.
const LAME_DUCK_MIN: Duration = Duration::from_secs(30);

/// An authentication that may take longer than this is probably an unquoted duration.
const TIMEOUT_USUAL_MAX: Duration = Duration::from_mins(1);

pub(crate) fn load(path: &Path, surroundings: &dyn Surroundings) -> Result<Loaded, Mistakes> {
    let mut mistakes = Collected::default();
    let map = parse_file(path, surroundings, &mut mistakes);
    let empty = map.is_empty() && mistakes.is_empty();
    let mut reader = Reader { surroundings, mistakes, warnings: Collected::default() };
    let config = reader.top(&map);
    let main_file = path.display().to_string();
    let sorted = |collected: Collected| {
        let mut list = collected.into_vec();
        list.sort_by(|a, b| {
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

struct Reader<'a> {
    surroundings: &'a dyn Surroundings,
    mistakes: Collected,
    warnings: Collected,
}

impl Reader<'_> {
    fn top(&mut self, map: &Map) -> Config {
        let mut config = Config::default();
        let mut unlimited_payload = false;
        let mut nested_store_dir = false;
        let mut sizes_place = None;
        let mut lame_duck_place = None;
        for (key, entry) in self.entries(map, &TOP) {
            let node = &entry.node;
            match key {
                "listen" => self.listen(key, node, &mut config),
                "host" => self.set(&mut config.host, |this| this.text(key, node)),
                "port" => self.port(key, node, &mut config.port),
                "client_advertise" => {
                    config.client_advertise = self.text(key, node).filter(|text| !text.is_empty());
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
                "no_fast_producer_stall" => {
                    self.flag(key, node, &mut config.no_fast_producer_stall);
                }
                "debug" => self.flag(key, node, &mut config.debug),
                "trace" => self.flag(key, node, &mut config.trace),
                "trace_verbose" => self.flag(key, node, &mut config.trace_verbose),
                "logtime" => self.flag(key, node, &mut config.logtime),
                "logtime_utc" => self.flag(key, node, &mut config.logtime_utc),
                "log_file" => config.log_file = self.path(key, node),
                "pid_file" => config.pid_file = self.path(key, node),
                "ports_file_dir" => config.ports_file_dir = self.path(key, node),
                "authorization" => self.authorization(node, &mut config),
                "jetstream" => {
                    let (jetstream, has_store_dir) = self.jetstream(node);
                    config.jetstream = jetstream;
                    nested_store_dir = has_store_dir;
                }
                "store_dir" => config.store_dir = self.path(key, node),
                "leafnodes" => self.leafnodes(node, &mut config.leafnodes),
                _ => {}
            }
        }
        config.trace |= config.trace_verbose;
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
        config
    }

    fn listen(&mut self, key: &str, node: &Node, config: &mut Config) {
        if let Value::Integer { .. } = node.value {
            self.port(key, node, &mut config.port);
            return;
        }
        let Some(text) = self.text(key, node) else { return };
        match host_port(&text) {
            Ok((host, port)) => {
                if !host.is_empty() {
                    config.host = host;
                }
                self.port_number(key, node, port, &mut config.port);
            }
            Err(what) => self.wrong(node, format!("listen: {what}")),
        }
    }

    fn port(&mut self, key: &str, node: &Node, port: &mut i32) {
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

    fn authorization(&mut self, node: &Node, config: &mut Config) {
        let Some(map) = self.map("authorization", node) else { return };
        let (mut user, mut password, mut token) = (None, None, None);
        for (key, entry) in self.entries(map, &AUTHORIZATION) {
            match key {
                "user" => user = self.text(key, &entry.node),
                "password" => password = self.password(key, &entry.node),
                "token" => token = self.password(key, &entry.node),
                "timeout" => {
                    self.set(&mut config.auth_timeout, |this| this.seconds(key, &entry.node));
                }
                _ => {}
            }
        }
        config.authorization = match (user, password, token) {
            (None, None, None) => Authorization::None,
            (None, None, Some(token)) => Authorization::Token(token),
            (Some(user), password, None) => {
                Authorization::User { user, password: password.unwrap_or_default() }
            }
            (None, Some(_), None) => {
                self.wrong(node, "authorization has a password and no user");
                Authorization::None
            }
            (_, _, Some(_)) => {
                self.wrong(node, "authorization: cannot have a user/password and a token");
                Authorization::None
            }
        };
    }

    fn password(&mut self, key: &str, node: &Node) -> Option<Secret> {
        let text = self.text(key, node)?;
        if ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| text.starts_with(prefix)) {
            self.wrong(
                node,
                format!("{key}: Sedge does not have bcrypt hashes yet; write the plain text"),
            );
            return None;
        }
        Some(Secret::from(text))
    }

    /// The options, and whether they name a `store_dir`.
    fn jetstream(&mut self, node: &Node) -> (Option<JetStreamConfig>, bool) {
        let map = match &node.value {
            Value::Bool(on) => return (on.then(JetStreamConfig::default), false),
            Value::Text(text) if text.eq_ignore_ascii_case("enabled") => {
                return (Some(JetStreamConfig::default()), false);
            }
            Value::Text(text) if text.eq_ignore_ascii_case("disabled") => return (None, false),
            Value::Map(map) => map,
            _ => {
                self.wrong(node, "jetstream must be true, false, enabled, disabled or a block { }");
                return (None, false);
            }
        };
        let mut jetstream = JetStreamConfig::default();
        let (mut enabled, mut has_store_dir) = (true, false);
        for (key, entry) in self.entries(map, &JETSTREAM) {
            let node = &entry.node;
            match key {
                "store_dir" => {
                    if let Some(path) = self.path(key, node) {
                        jetstream.store_dir = path;
                        has_store_dir = true;
                    }
                }
                "max_memory_store" => jetstream.max_memory_store = self.store_size(key, node),
                "max_file_store" => jetstream.max_file_store = self.store_size(key, node),
                "domain" => jetstream.domain = self.domain(key, node),
                "sync_interval" => jetstream.sync_interval = self.sync_interval(key, node),
                "enabled" => self.flag(key, node, &mut enabled),
                "strict" => self.flag(key, node, &mut jetstream.strict),
                "limits" => jetstream.limits = self.jetstream_limits(node),
                _ => {}
            }
        }
        (enabled.then_some(jetstream), has_store_dir)
    }

    fn domain(&mut self, key: &str, node: &Node) -> Option<String> {
        let text = self.text(key, node).filter(|text| !text.is_empty())?;
        if text.contains(['.', '*', '>']) || !is_filter(&text) {
            self.wrong(
                node,
                format!(
                    "domain: \"{}\" must be one token of a subject: no '.', '*', '>' or blank",
                    short(&text)
                ),
            );
            return None;
        }
        Some(text)
    }

    fn sync_interval(&mut self, key: &str, node: &Node) -> SyncInterval {
        if let Value::Text(text) = &node.value
            && text.eq_ignore_ascii_case("always")
        {
            return SyncInterval::Always;
        }
        match self.duration(key, node) {
            None | Some(Duration::ZERO) => SyncInterval::Always,
            Some(pace) => SyncInterval::Every(pace),
        }
    }

    fn jetstream_limits(&mut self, node: &Node) -> JetStreamLimits {
        let mut limits = JetStreamLimits::default();
        let Some(map) = self.map("limits", node) else { return limits };
        for (key, entry) in self.entries(map, &JETSTREAM_LIMITS) {
            let node = &entry.node;
            // 0 and -1 are "no limit", as in nats-server.
            let mut count = || {
                let value = self.integer(key, node, -1, u32::MAX.into())?;
                u32::try_from(value).ok().filter(|value| *value > 0)
            };
            match key {
                "max_ack_pending" => limits.max_ack_pending = count(),
                "max_request_batch" => limits.max_request_batch = count(),
                "duplicate_window" => {
                    limits.duplicate_window =
                        self.duration(key, node).filter(|window| !window.is_zero());
                }
                _ => {}
            }
        }
        limits
    }

    /// A whole number with suffix or a quoted size; -1 and `""` are the default.
    fn store_size(&mut self, key: &str, node: &Node) -> Option<u64> {
        if let Value::Text(text) = &node.value {
            if text.is_empty() {
                return None;
            }
            return match quoted_size(text) {
                Ok(value) if value >= 0 => u64::try_from(value).ok(),
                Ok(_) => {
                    self.wrong(node, format!("{key} is negative"));
                    None
                }
                Err(what) => {
                    self.wrong(node, format!("{key}: {what}"));
                    None
                }
            };
        }
        u64::try_from(self.integer(key, node, -1, i64::MAX)?).ok()
    }

    fn leafnodes(&mut self, node: &Node, leafnodes: &mut LeafNodesConfig) {
        let Some(map) = self.map("leafnodes", node) else { return };
        let mut compression = Compression::default();
        let mut remotes = None;
        for (key, entry) in self.entries(map, &LEAFNODES) {
            let node = &entry.node;
            match key {
                "remotes" => remotes = Some(node),
                "reconnect" => set_unless_zero(&mut leafnodes.reconnect, self.duration(key, node)),
                "dial_timeout" => {
                    set_unless_zero(&mut leafnodes.dial_timeout, self.duration(key, node));
                }
                "compression" => compression = self.compression(key, node),
                _ => {}
            }
        }
        let Some(node) = remotes else { return };
        let Value::Array(nodes) = &node.value else {
            self.wrong(node, format!("remotes must be a list [ ], not {}", node.value.kind()));
            return;
        };
        if nodes.len() > REMOTES_MAX {
            self.wrong(node, format!("{} remotes; at most {REMOTES_MAX}", nodes.len()));
            return;
        }
        for node in nodes {
            let base = RemoteConfig {
                dial_timeout: leafnodes.dial_timeout,
                compression,
                ..RemoteConfig::default()
            };
            let Some(remote) = self.remote(node, base) else { continue };
            let twin = leafnodes.remotes.iter().any(|other| {
                let same_url = |(a, b): (&RemoteUrl, &RemoteUrl)| a == b;
                other.urls.len() == remote.urls.len()
                    && other.urls.iter().zip(&remote.urls).all(same_url)
                    && other.account == remote.account
                    && other.credentials == remote.credentials
                    && other.nkey == remote.nkey
            });
            if twin {
                self.wrong(node, "duplicate remote: same urls, account and credentials as above");
            } else {
                leafnodes.remotes.push(remote);
            }
        }
    }

    fn remote(&mut self, node: &Node, mut remote: RemoteConfig) -> Option<RemoteConfig> {
        let map = self.map("a remote", node)?;
        let mut credentials = None;
        for (key, entry) in self.entries(map, &REMOTE) {
            let node = &entry.node;
            match key {
                "url" | "urls" => self.urls(key, node, &mut remote.urls),
                "account" => {
                    if let Some(account) = self.text(key, node)
                        && account != "$G"
                    {
                        self.wrong(
                            node,
                            format!(
                                "account: Sedge does not have accounts yet; leave it out for $G \
                                 instead of \"{}\"",
                                short(&account)
                            ),
                        );
                    }
                }
                "credentials" => credentials = self.path(key, node).map(|path| (path, node)),
                "nkey" => remote.nkey = self.seed(node),
                "tls" => remote.tls = self.remote_tls(node),
                "hub" => self.flag(key, node, &mut remote.hub),
                "deny_imports" => remote.deny_imports = self.filters(key, node),
                "deny_exports" => remote.deny_exports = self.filters(key, node),
                "no_randomize" => self.flag(key, node, &mut remote.no_randomize),
                "compression" => remote.compression = self.compression(key, node),
                "first_info_timeout" => {
                    set_unless_zero(&mut remote.first_info_timeout, self.duration(key, node));
                }
                "dial_timeout" => {
                    set_unless_zero(&mut remote.dial_timeout, self.duration(key, node));
                }
                "disabled" => self.flag(key, node, &mut remote.disabled),
                "ignore_discovered_servers" => {
                    self.flag(key, node, &mut remote.ignore_discovered_servers);
                }
                _ => {}
            }
        }
        let has_urls =
            ["url", "urls"].iter().any(|name| map.keys().any(|key| key.eq_ignore_ascii_case(name)));
        if !has_urls {
            self.wrong(node, "this remote has no url");
        }
        if let Some((path, node)) = credentials {
            if remote.nkey.is_some() {
                self.wrong(node, "a remote cannot have both credentials and nkey");
            } else {
                remote.credentials = self.credentials(node, &path, remote.disabled);
            }
        }
        (!remote.urls.is_empty()).then_some(remote)
    }

    fn urls(&mut self, key: &str, node: &Node, urls: &mut Vec<RemoteUrl>) {
        let nodes = match &node.value {
            Value::Array(nodes) => nodes.as_slice(),
            _ => std::slice::from_ref(node),
        };
        if nodes.is_empty() || nodes.len() > URLS_MAX {
            self.wrong(node, format!("{key}: {} URLs; there must be 1 to {URLS_MAX}", nodes.len()));
            return;
        }
        for node in nodes {
            let Some(text) = self.text(key, node) else { continue };
            match remote_url(&text) {
                Ok(url) if urls.contains(&url) => {
                    self.warnings.add(node.place.clone(), "this URL is already in the list");
                }
                Ok(url) => urls.push(url),
                Err(what) => self.wrong(node, format!("{key}: {what}")),
            }
        }
    }

    /// The file must hold what a login needs; whether it is valid the hub will say.
    fn credentials(&mut self, node: &Node, path: &Path, unused: bool) -> Option<PathBuf> {
        let path = match self.expanded(path) {
            Ok(path) => path,
            Err(what) => {
                self.wrong(node, format!("credentials: {what}"));
                return None;
            }
        };
        if unused {
            return Some(path);
        }
        match self.surroundings.read(&path) {
            Err(reason) => {
                self.wrong(
                    node,
                    format!(
                        "credentials: cannot read {}: {reason}; put the .creds file there or \
                         correct the path",
                        path.display()
                    ),
                );
                return None;
            }
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                if !text.contains("BEGIN NATS USER JWT") || !text.contains("BEGIN USER NKEY SEED") {
                    self.wrong(
                        node,
                        format!(
                            "credentials: {} is no creds file; it must hold a NATS USER JWT and \
                             a USER NKEY SEED block",
                            path.display()
                        ),
                    );
                    return None;
                }
            }
        }
        Some(path)
    }

    /// `~` and `$NAME` or `${NAME}` at the start of a directory name.
    fn expanded(&self, path: &Path) -> Result<PathBuf, String> {
        let Some(text) = path.to_str() else { return Ok(path.to_owned()) };
        let variable = |name: &str| {
            self.surroundings
                .variable(name)
                .ok_or_else(|| format!("the environment variable {name} is not set"))
        };
        let mut parts = Vec::new();
        for (index, part) in text.split('/').enumerate() {
            parts.push(match part.strip_prefix('$') {
                Some(name) => {
                    let name = name
                        .strip_prefix('{')
                        .and_then(|name| name.strip_suffix('}'))
                        .unwrap_or(name);
                    variable(name)?
                }
                None if part == "~" && index == 0 => variable("HOME")?,
                None => part.to_owned(),
            });
        }
        Ok(PathBuf::from(parts.join("/")))
    }

    fn seed(&mut self, node: &Node) -> Option<Secret> {
        let text = self.text("nkey", node)?;
        if !is_user_seed(&text) {
            self.wrong(
                node,
                "nkey is not the seed of a user: 58 letters and digits that begin with SU",
            );
            return None;
        }
        Some(Secret::from(text))
    }

    fn filters(&mut self, key: &str, node: &Node) -> Vec<String> {
        let nodes = match &node.value {
            Value::Array(nodes) => nodes.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let mut filters = Vec::new();
        for node in nodes {
            let Some(text) = self.text(key, node) else { continue };
            if is_filter(&text) {
                filters.push(text);
            } else {
                self.wrong(node, format!("{key}: \"{}\" is not a valid subject", short(&text)));
            }
        }
        filters
    }

    fn compression(&mut self, key: &str, node: &Node) -> Compression {
        const CHOICES: &[(&str, Compression)] = &[
            ("off", Compression::Off),
            ("disabled", Compression::Off),
            ("accept", Compression::Accept),
            ("on", Compression::S2Auto),
            ("enabled", Compression::S2Auto),
            ("s2_auto", Compression::S2Auto),
            ("auto", Compression::S2Auto),
            ("s2_uncompressed", Compression::S2Uncompressed),
            ("s2_fast", Compression::S2Fast),
            ("fast", Compression::S2Fast),
            ("s2_better", Compression::S2Better),
            ("better", Compression::S2Better),
            ("s2_best", Compression::S2Best),
            ("best", Compression::S2Best),
        ];
        let chosen = match &node.value {
            Value::Bool(true) => Some(Compression::S2Auto),
            Value::Bool(false) => Some(Compression::Off),
            Value::Map(map) => {
                let mut chosen = Some(Compression::S2Auto);
                for (name, entry) in map {
                    if name.eq_ignore_ascii_case("mode") {
                        chosen = self.choice("mode", &entry.node, CHOICES);
                    } else if !name.eq_ignore_ascii_case("rtt_thresholds") && !entry.is_variable {
                        let what = "compression has mode and rtt_thresholds only";
                        self.mistakes.add(entry.place.clone(), what);
                    }
                }
                chosen
            }
            _ => self.choice(key, node, CHOICES),
        };
        chosen.unwrap_or_default()
    }

    fn remote_tls(&mut self, node: &Node) -> Option<TlsClientConfig> {
        let map = self.map("tls", node)?;
        let mut tls = TlsClientConfig::default();
        for (key, entry) in self.entries(map, &REMOTE_TLS) {
            let node = &entry.node;
            match key {
                "cert_file" => tls.cert_file = self.readable(key, node),
                "key_file" => tls.key_file = self.readable(key, node),
                "ca_file" => tls.ca_file = self.readable(key, node),
                "insecure" => self.flag(key, node, &mut tls.insecure),
                "timeout" => set_unless_zero(&mut tls.timeout, self.seconds(key, node)),
                "handshake_first" => match &node.value {
                    // A delay or `auto` is the listener's side of it; a dialler that may
                    // go first does.
                    Value::Text(text) if text == "auto" || duration(text).is_ok() => {
                        tls.handshake_first = true;
                    }
                    _ => self.flag(key, node, &mut tls.handshake_first),
                },
                "min_version" => {
                    let choices = [("1.2", false), ("1.3", true)];
                    self.set(&mut tls.tls13_only, |this| this.choice(key, node, &choices));
                }
                _ => {}
            }
        }
        let has = |name: &str| map.keys().any(|key| key.eq_ignore_ascii_case(name));
        match (has("cert_file"), has("key_file")) {
            (true, false) => self.wrong(node, "tls has cert_file but is missing 'key_file'"),
            (false, true) => self.wrong(node, "tls has key_file but is missing 'cert_file'"),
            _ => {}
        }
        Some(tls)
    }

    /// A path to a file that can be read now.
    fn readable(&mut self, key: &str, node: &Node) -> Option<PathBuf> {
        let path = self.path(key, node)?;
        match self.surroundings.read(&path) {
            Ok(_) => Some(path),
            Err(reason) => {
                self.wrong(node, format!("{key}: cannot read {}: {reason}", path.display()));
                None
            }
        }
    }

    /// The known keys of a block in the order of the text; reports the others.
    fn entries<'m>(&mut self, map: &'m Map, block: &Block) -> Vec<(&'static str, &'m Entry)> {
        let mut entries = Vec::new();
        for (name, entry) in map {
            let Some(key) = block.find(name) else {
                if !entry.is_variable {
                    self.unknown(name, entry, block);
                }
                continue;
            };
            match key.1 {
                Support::Read => entries.push((key.name(), entry)),
                Support::NoEffect(kind) => self.check_kind(key.name(), kind, &entry.node),
                Support::OnlyFalse => {
                    if !matches!(entry.node.value, Value::Bool(false)) {
                        self.not_yet(name, entry, "");
                    }
                }
                Support::NotYet(instead) => self.not_yet(name, entry, instead),
            }
        }
        entries.sort_by_key(|(_, entry)| (entry.place.line, entry.place.column));
        entries
    }

    fn unknown(&mut self, name: &str, entry: &Entry, block: &Block) {
        if self.mistakes.is_full() {
            return;
        }
        let names = block.keys.iter().flat_map(|key| key.0.iter().copied());
        let lower = name.chars().take(64).collect::<String>().to_lowercase();
        let hint = match nearest(&lower, names) {
            Some(known) => format!("; did you mean \"{known}\"?"),
            None => format!("; there is no such key in {}", block.name),
        };
        self.mistakes.add(entry.place.clone(), format!("unknown field \"{}\"{hint}", short(name)));
    }

    fn not_yet(&mut self, name: &str, entry: &Entry, instead: &str) {
        let dash = if instead.is_empty() { "" } else { ": " };
        self.mistakes.add(
            entry.place.clone(),
            format!("Sedge does not have \"{}\" yet{dash}{instead}", short(name)),
        );
    }

    fn check_kind(&mut self, key: &str, kind: Kind, node: &Node) {
        match kind {
            Kind::Boolean => self.flag(key, node, &mut false),
            Kind::Integer => {
                self.integer(key, node, i64::MIN, i64::MAX);
            }
            Kind::Duration => {
                self.duration(key, node);
            }
            Kind::Text => {
                self.text(key, node);
            }
            Kind::Texts => match &node.value {
                Value::Array(nodes) => {
                    for node in nodes {
                        self.text(key, node);
                    }
                }
                _ => {
                    self.text(key, node);
                }
            },
            Kind::TextBlock => {
                for entry in self.map(key, node).into_iter().flat_map(Map::values) {
                    self.text(key, &entry.node);
                }
            }
            Kind::BooleanBlock => {
                for entry in self.map(key, node).into_iter().flat_map(Map::values) {
                    self.flag(key, &entry.node, &mut false);
                }
            }
            Kind::Any => {}
        }
    }

    fn wrong(&mut self, node: &Node, what: impl Into<String>) {
        self.mistakes.add(node.place.clone(), what);
    }

    fn wrong_kind(&mut self, key: &str, node: &Node, wanted: &str) {
        self.wrong(node, format!("{key} must be {wanted}, not {}", node.value.kind()));
    }

    fn set<T>(&mut self, field: &mut T, read: impl FnOnce(&mut Self) -> Option<T>) {
        if let Some(value) = read(self) {
            *field = value;
        }
    }

    fn flag(&mut self, key: &str, node: &Node, field: &mut bool) {
        match &node.value {
            Value::Bool(value) => *field = *value,
            _ => self.wrong_kind(key, node, "true or false without quotes"),
        }
    }

    fn text(&mut self, key: &str, node: &Node) -> Option<String> {
        if let Value::Text(text) = &node.value {
            if text.contains('\0') {
                self.wrong(node, format!("{key} holds a NUL"));
                return None;
            }
            return Some(text.clone());
        }
        self.wrong_kind(key, node, "text, in quotes if it looks like something else");
        None
    }

    fn path(&mut self, key: &str, node: &Node) -> Option<PathBuf> {
        self.text(key, node).filter(|text| !text.is_empty()).map(PathBuf::from)
    }

    fn map<'m>(&mut self, key: &str, node: &'m Node) -> Option<&'m Map> {
        if let Value::Map(map) = &node.value {
            return Some(map);
        }
        self.wrong_kind(key, node, "a block { }");
        None
    }

    fn integer(&mut self, key: &str, node: &Node, min: i64, max: i64) -> Option<i64> {
        match &node.value {
            Value::Integer { value, .. } if (min..=max).contains(value) => Some(*value),
            Value::Integer { value, .. } => {
                self.wrong(node, format!("{key}: {value} is out of range; {min} to {max}"));
                None
            }
            _ => {
                self.wrong_kind(key, node, "a whole number without quotes, like 1000, 64KB or 1MB");
                None
            }
        }
    }

    fn choice<T: Copy>(&mut self, key: &str, node: &Node, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(key, node)?;
        let found = choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(&text));
        if found.is_none() {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let text = short(&text);
            self.wrong(node, format!("{key}: \"{text}\" is not one of {}", names.join(" ")));
        }
        found.map(|(_, value)| *value)
    }

    /// A duration; a bare whole number is seconds, with a warning as in nats-server.
    fn duration(&mut self, key: &str, node: &Node) -> Option<Duration> {
        match &node.value {
            Value::Text(text) => match duration(text) {
                Ok(value) => Some(value),
                Err(what) => {
                    self.wrong(node, format!("{key}: {what}"));
                    None
                }
            },
            Value::Integer { source, .. } if source.ends_with(|c: char| !c.is_ascii_digit()) => {
                self.suffixed(key, node, source);
                None
            }
            Value::Integer { value, .. } => {
                let Ok(seconds) = u64::try_from(*value) else {
                    self.wrong(node, format!("{key} is negative"));
                    return None;
                };
                self.warnings.add(
                    node.place.clone(),
                    format!("{key} should be converted to a duration: \"{seconds}s\""),
                );
                self.whole_seconds(key, node, seconds)
            }
            _ => {
                self.wrong_kind(key, node, "a duration like \"30s\"");
                None
            }
        }
    }

    /// The trap of the language: outside quotes `2m` is two million.
    fn suffixed(&mut self, key: &str, node: &Node, source: &str) {
        let what = format!(
            "{key}: without quotes {source} is a number, k m g meaning thousand, million, \
             billion; write \"{source}\" for a duration"
        );
        self.wrong(node, what);
    }

    fn whole_seconds(&mut self, key: &str, node: &Node, seconds: u64) -> Option<Duration> {
        // The bound of a duration written as text.
        if seconds > 9_223_372_036 {
            self.wrong(node, format!("{key} is longer than 292 years"));
            return None;
        }
        Some(Duration::from_secs(seconds))
    }

    /// A duration that nats-server takes as text only.
    fn quoted_duration(&mut self, key: &str, node: &Node) -> Option<Duration> {
        if let Value::Text(_) = node.value {
            return self.duration(key, node);
        }
        self.wrong_kind(key, node, "a duration in quotes like \"30s\"");
        None
    }

    /// Seconds, whole or with a point, or a duration.
    fn seconds(&mut self, key: &str, node: &Node) -> Option<Duration> {
        let value = match &node.value {
            Value::Text(_) => return self.duration(key, node),
            Value::Integer { source, .. } if source.ends_with(|c: char| !c.is_ascii_digit()) => {
                self.suffixed(key, node, source);
                return None;
            }
            Value::Integer { value, .. } => {
                let Ok(seconds) = u64::try_from(*value) else {
                    self.wrong(node, format!("{key} is negative"));
                    return None;
                };
                self.whole_seconds(key, node, seconds)?
            }
            Value::Float(value) => {
                let Ok(value) = Duration::try_from_secs_f64(*value) else {
                    self.wrong(node, format!("{key}: {value} is no number of seconds"));
                    return None;
                };
                value
            }
            _ => {
                self.wrong_kind(key, node, "seconds or a duration like \"2s\"");
                return None;
            }
        };
        if value > TIMEOUT_USUAL_MAX {
            self.warnings.add(
                node.place.clone(),
                format!(
                    "{key} of {} is high, consider keeping it under 60 seconds",
                    GoDuration(value)
                ),
            );
        }
        Some(value)
    }
}

/// nats-server's rule for most options: 0 is the default.
fn set_unless_zero<T: Default + PartialEq>(field: &mut T, value: Option<T>) {
    if let Some(value) = value
        && value != T::default()
    {
        *field = value;
    }
}

fn place_of(map: &Map, key: &str, alias: &str) -> Place {
    map.iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(key) || name.eq_ignore_ascii_case(alias))
        .map_or(Place { file: "".into(), line: 0, column: 0 }, |(_, entry)| entry.place.clone())
}

/// Base32 of two prefix bytes, the seed and a CRC-16 (XMODEM) that has to agree.
fn is_user_seed(text: &str) -> bool {
    let Ok(bytes) = data_encoding::BASE32_NOPAD.decode(text.as_bytes()) else { return false };
    let Some((body, [low, high])) = bytes.split_last_chunk::<2>() else { return false };
    let mut crc: u16 = 0;
    for byte in body {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        }
    }
    text.starts_with("SU") && body.len() == 34 && crc == u16::from_le_bytes([*low, *high])
}

#[cfg(test)]
mod tests {
    use super::super::Scheme;
    use super::super::parser::tests::Fake;
    use super::*;

    const CREDS: &str = "-----BEGIN NATS USER JWT-----\n-----BEGIN USER NKEY SEED-----\n";
    const SEED: &str = "SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y";

    fn load_text(text: &str) -> Result<Loaded, Vec<String>> {
        let fake = Fake {
            files: vec![
                ("g.conf", text.to_owned()),
                ("g.creds", CREDS.to_owned()),
                ("d/g.creds", CREDS.to_owned()),
                ("cert.pem", String::new()),
                ("key.pem", String::new()),
                ("wrong.creds", "hello".to_owned()),
            ],
            variables: vec![("HOME", "home"), ("DIR", "d")],
        };
        load(Path::new("g.conf"), &fake)
            .map_err(|mistakes| mistakes.0.iter().map(ToString::to_string).collect())
    }

    fn config(text: &str) -> Config {
        match load_text(text) {
            Ok(loaded) => loaded.config,
            Err(mistakes) => panic!("{text}: {mistakes:#?}"),
        }
    }

    /// The one mistake of `text`, without its place.
    fn mistake(text: &str) -> String {
        match load_text(text) {
            Ok(_) => panic!("accepted: {text}"),
            Err(mistakes) => {
                assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
                mistakes[0].split_once(": ").unwrap().1.to_owned()
            }
        }
    }

    #[test]
    fn nothing_written_is_the_default_with_a_warning() {
        let loaded = load_text("# nothing").unwrap();
        assert_eq!(loaded.config, Config::default());
        assert_eq!(loaded.warnings[0].to_string(), "g.conf: config has no values or is empty");
    }

    #[test]
    fn every_top_level_key_reaches_its_field() {
        let read = config(
            "listen: 127.0.0.1:-1\nserver_name: gw, client_advertise: 'h:1', no_header_support: on
            max_conn: 10; max_subs: 5; max_sub_tokens: 8; max_control_line: 8KB
            max_payload: 2MB; max_pending: 4MB; ping_interval: 5s; ping_max: 3
            write_deadline: '2s'; write_timeout: retry
            lame_duck_duration: '40s'; lame_duck_grace_period: '5s'; no_fast_producer_stall: yes
            debug: true; trace: true; logtime: false; logtime_utc: true
            logfile: 'a.log'; pidfile: 'a.pid'; ports_file_dir: '/tmp'
            authorization { user: u, pass: p, timeout: 1.5 }",
        );
        let expected = Config {
            server_name: Some("gw".into()),
            host: "127.0.0.1".into(),
            port: -1,
            client_advertise: Some("h:1".into()),
            no_header_support: true,
            max_connections: 10,
            max_subscriptions: Some(5),
            max_sub_tokens: Some(8),
            max_control_line: 8192,
            max_payload: 2 << 20,
            max_pending: 4 << 20,
            ping_interval: Duration::from_secs(5),
            ping_max: 3,
            write_deadline: Duration::from_secs(2),
            write_timeout: WriteTimeout::Retry,
            lame_duck_duration: Duration::from_secs(40),
            lame_duck_grace_period: Duration::from_secs(5),
            no_fast_producer_stall: true,
            debug: true,
            trace: true,
            trace_verbose: false,
            logtime: false,
            logtime_utc: true,
            log_file: Some("a.log".into()),
            pid_file: Some("a.pid".into()),
            ports_file_dir: Some("/tmp".into()),
            authorization: Authorization::User {
                user: "u".into(),
                password: Secret::from("p".to_owned()),
            },
            auth_timeout: Duration::from_millis(1500),
            store_dir: None,
            jetstream: None,
            leafnodes: LeafNodesConfig::default(),
        };
        assert_eq!(read, expected);
    }

    #[test]
    fn zero_is_the_default_except_where_it_means_refuse_or_unlimited() {
        let read = config(
            "port: 0; ping_interval: '0s'; ping_max: 0; max_payload: 0; max_pending: 0
            max_control_line: 0; write_deadline: '0s'",
        );
        assert_eq!(read, Config::default());
        assert_eq!(config("max_connections: 0").max_connections, 0);
        assert_eq!(config("max_connections: -1").max_connections, 0);
        assert_eq!(config("max_subscriptions: 0").max_subscriptions, None);
        assert_eq!(config("max_payload: -1; max_pending: 2MB").max_payload, 2 << 20);
    }

    #[test]
    fn jetstream_in_all_its_forms() {
        for text in ["jetstream: true", "jetstream: enabled", "jetstream {}", "jetstream: on"] {
            assert_eq!(config(text).jetstream, Some(JetStreamConfig::default()), "{text}");
        }
        for text in ["jetstream: false", "jetstream: disabled", "jetstream { enabled: false }"] {
            assert_eq!(config(text).jetstream, None, "{text}");
        }
        assert!(mistake("jetstream: maybe").contains("jetstream must be"));
        let read = config(
            "jetstream { store_dir: d, max_mem: '1G', max_file: 10GB, domain: gw, sync: '500ms'
            strict: false, max_buffered_msgs: 5, unique_tag: az
            limits { duplicate_window: '5m', max_ack_pending: 100, max_request_batch: -1 } }",
        );
        let expected = JetStreamConfig {
            store_dir: "d".into(),
            max_memory_store: Some(1 << 30),
            max_file_store: Some(10 << 30),
            domain: Some("gw".into()),
            sync_interval: SyncInterval::Every(Duration::from_millis(500)),
            strict: false,
            limits: JetStreamLimits {
                duplicate_window: Some(Duration::from_mins(5)),
                max_ack_pending: Some(100),
                max_request_batch: None,
            },
        };
        assert_eq!(read.jetstream, Some(expected));
        let top = config("store_dir: d\njetstream: true");
        assert_eq!(top.jetstream.unwrap().directory(), Path::new("d/jetstream"));
        assert_eq!(config("store_dir: d").jetstream, None);
        let sync = |text: &str| config(text).jetstream.unwrap().sync_interval;
        assert_eq!(sync("jetstream { sync_interval: always }"), SyncInterval::Always);
        assert_eq!(sync("jetstream { sync_interval: '0s' }"), SyncInterval::Always);
    }

    #[test]
    fn a_remote_with_everything() {
        let read = config(&format!(
            "leaf {{ reconnect: '2s', dial_timeout: '3s', compression: off
            remotes = [
              {{ urls: ['nats-leaf://a', tls://b:1], creds: '$DIR/g.creds', local: '$G'
                tls {{ cert_file: cert.pem, key_file: key.pem, first: true, timeout: 5,
                       insecure: true, min_version: '1.3' }}
                hub: true, deny_import: 'x.>', deny_exports: [a, 'b.*'], no_randomize: true
                first_info_timeout: '4s', dial_timeout: '1s', ignore_discovered_servers: true
                compression: {{mode: s2_fast}} }}
              {{ url: 'nats://u:p@a', nkey: {SEED}, disabled: true }}
            ] }}"
        ));
        assert_eq!(read.leafnodes.reconnect, Duration::from_secs(2));
        let [first, second] = read.leafnodes.remotes.as_slice() else { panic!("two remotes") };
        let url = |scheme, host: &str, port| RemoteUrl {
            scheme,
            host: host.into(),
            port,
            user: None,
            password: None,
        };
        let expected = RemoteConfig {
            urls: vec![url(Scheme::Nats, "a", 7422), url(Scheme::Tls, "b", 1)],
            account: "$G".into(),
            credentials: Some("d/g.creds".into()),
            nkey: None,
            tls: Some(TlsClientConfig {
                cert_file: Some("cert.pem".into()),
                key_file: Some("key.pem".into()),
                ca_file: None,
                insecure: true,
                handshake_first: true,
                timeout: Duration::from_secs(5),
                tls13_only: true,
            }),
            hub: true,
            deny_imports: vec!["x.>".into()],
            deny_exports: vec!["a".into(), "b.*".into()],
            no_randomize: true,
            first_info_timeout: Duration::from_secs(4),
            dial_timeout: Duration::from_secs(1),
            ignore_discovered_servers: true,
            disabled: false,
            compression: Compression::S2Fast,
        };
        assert_eq!(*first, expected);
        assert_eq!(second.nkey.as_ref().map(Secret::expose), Some(SEED));
        assert_eq!(second.dial_timeout, Duration::from_secs(3));
        assert_eq!(second.compression, Compression::Off);
        assert!(second.disabled);
    }

    #[test]
    fn wrong_remotes_say_what_to_do() {
        let remote =
            |inside: &str| mistake(&format!("leafnodes {{ remotes: [ {{ {inside} }} ] }}"));
        assert!(remote("url: 'nats://h', creds: 'no.creds'").contains("cannot read no.creds"));
        assert!(remote("url: 'nats://h', creds: 'wrong.creds'").contains("no creds file"));
        assert!(remote("url: 'nats://h', creds: '$NOPE/x'").contains("NOPE is not set"));
        assert!(
            remote(&format!("url: 'nats://h', creds: 'g.creds', nkey: {SEED}")).contains("both")
        );
        assert!(remote("url: 'nats://h', nkey: SUADOESNOT").contains("seed of a user"));
        assert!(remote("url: 'nats://h', account: A").contains("accounts yet"));
        assert!(remote("account: '$G'").contains("no url"));
        assert!(remote("url: 'ws://h'").contains("WebSocket"));
        assert!(remote("url: 'nats://h', deny_imports: 'a..b'").contains("valid subject"));
        assert!(remote("url: 'nats://h', tls { cert_file: cert.pem }").contains("key_file"));
        assert!(remote("url: 'nats://h', tls { ca_file: x }").contains("cannot read x"));
        assert!(remote("url: 'nats://h' }, { url: 'nats://h'").contains("duplicate remote"));
        assert!(remote("url: 'nats://h', compression: zip").contains("s2_auto"));
        assert!(mistake("leafnodes { remotes { url: 'nats://h' } }").contains("a list"));
        // A remote that is switched off may lack its file.
        config("leafnodes { remotes: [ { url: 'nats://h', creds: 'no.creds', disabled: true } ] }");
    }

    #[test]
    fn an_unknown_key_gets_the_nearest_known_one() {
        assert_eq!(
            mistake("max_payloda: 1MB"),
            "unknown field \"max_payloda\"; did you mean \"max_payload\"?"
        );
        assert!(mistake("jetstream { max_fil: 1 }").contains("\"max_file\""));
        assert!(mistake("leafnodes { remote: [] }").contains("\"remotes\""));
        assert!(mistake("zebra: 1").contains("no such key in the top level"));
        config("zebra: 1MB\nmax_payload: $zebra");
    }

    #[test]
    fn a_key_we_lack_is_named_with_what_to_do_instead() {
        for (text, expected) in [
            ("websocket {}", "Sedge does not have \"websocket\" yet"),
            ("mqtt { port: 1883 }", "Sedge does not have \"mqtt\" yet"),
            ("cluster { name: c }", "leaf uplink"),
            ("gateway { name: c }", "leaf uplink"),
            ("accounts { A {} }", "Sedge does not have \"accounts\" yet"),
            ("maps {}", "Sedge does not have \"maps\" yet"),
            ("http: 8222", "monitoring"),
            ("tls {}", "Sedge does not have \"tls\" yet"),
            ("operator: x", "JWT"),
            ("proxy_protocol: true", "Sedge does not have \"proxy_protocol\" yet"),
            ("leafnodes { port: 7422 }", "accepts no leaf nodes"),
            ("jetstream { ek: x }", "encrypt the file system"),
            ("authorization { users: [] }", "one user"),
            ("authorization { user: a, pass: '$2a$11$x' }", "bcrypt"),
        ] {
            let mistake = mistake(text);
            assert!(mistake.contains(expected), "{text}: {mistake}");
        }
        config("proxy_protocol: false; connect_error_reports: 5; max_closed_clients: 5");
    }

    #[test]
    fn the_trap_of_the_unquoted_duration_is_explained() {
        assert!(mistake("ping_interval: 2m").contains("write \"2m\""));
        let loaded = load_text("ping_interval: 5").unwrap();
        assert_eq!(loaded.config.ping_interval, Duration::from_secs(5));
        assert!(loaded.warnings[0].what.contains("\"5s\""));
        assert!(mistake("lame_duck_duration: 50").contains("quotes"));
    }

    #[test]
    fn checks_between_keys() {
        assert!(mistake("max_payload: 2MB; max_pending: 1MB").contains("max_pending"));
        assert!(mistake("max_pending: 10").contains("max_payload (1048576)"));
        assert!(mistake("lame_duck_grace_period: '3m'").contains("below"));
        assert!(mistake("lame_duck_duration: '5s'").contains("30s"));
        assert!(mistake("store_dir: a\njetstream { store_dir: b }").contains("one place"));
        assert!(mistake("authorization { user: a, token: b }").contains("token"));
        assert!(mistake("server_name: 'a b'").contains("blanks"));
        for domain in ["a.b", "a*", ">", "a b"] {
            assert!(mistake(&format!("jetstream {{ domain: '{domain}' }}")).contains("one token"));
        }
        for port in ["-2", "70000", "99999999999"] {
            assert!(mistake(&format!("port: {port}")).contains("port"));
        }
    }

    #[test]
    fn all_mistakes_at_once_in_order_with_places() {
        let mistakes = load_text(
            "prot: 4222\nmax_payload: '1MB'\njetstream {\n  store_dir: 5\n  domian: x\n}\nhost: 1.5k\n",
        )
        .unwrap_err();
        let places: Vec<_> = mistakes.iter().map(|m| m.split(": ").next().unwrap()).collect();
        assert_eq!(
            places,
            ["g.conf:1:1", "g.conf:2:14", "g.conf:4:14", "g.conf:5:3", "g.conf:7:7"]
        );
    }

    #[test]
    fn no_message_shows_a_secret() {
        for text in [
            "authorization { user: a, pass: [hunter2] }",
            "authorization { token: '$2a$hunter2' }",
            "leafnodes { remotes: [ { url: 'nats://u:hunter2@h:x' } ] }",
            "leafnodes { remotes: [ { url: 'nats://h', nkey: hunter2 } ] }",
        ] {
            let mistake = mistake(text);
            assert!(!mistake.contains("hunter2"), "{mistake}");
        }
        let shown = format!("{:?}", config("authorization { user: a, pass: hunter2 }"));
        assert!(!shown.contains("hunter2"));
    }
}
