//! What changes between two configurations, and whether a running server can follow.
//!
//! Owns which options are applied live, in the words of nats-server's log, and which need a
//! restart. Does not own applying them: that is `crate::server`.
//!
//! # Invariants
//! - Pure: the same two configurations give the same [`Reload`] or the same refusal.
//! - Every field of [`Config`] is looked at: either it is refused, or it is part of what
//!   [`Reload`] says.
//!
//! Where Sedge does more on purpose: a remote whose options change is left and dialled anew,
//! where nats-server refuses all changes but a few; `log_size_limit`, `log_max_num` and
//! `lame_duck_*` can be changed.
//! Where it does less: JetStream cannot be switched on or off.
//!
//! Source: nats-server 2.15 after SIGHUP.

use std::collections::BTreeMap;

use super::{
    Authorization, Config, JetStreamConfig, RemoteConfig, SyncInterval, WebSocketConfig,
    WriteTimeout, size,
};
use crate::time::{Duration, GoDuration};

/// What is to be done to go from one configuration to the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reload {
    /// For the log: what changes, one line each.
    pub lines: Vec<String>,
    /// The log changes: where it goes, or which lines.
    pub log: bool,
    /// `max_connections` changes.
    pub max_connections: bool,
    /// The PID file is written at another place.
    pub pid_file: bool,
    /// The ports file is written at another place.
    pub ports_file: bool,
    /// Who may sign in changes, or what they may do.
    pub users: bool,
    /// Accounts change: their exports, imports, mappings, limits.
    pub accounts: bool,
    /// Other client certificates are pinned.
    pub pinned_certs: bool,
    /// The bounds of JetStream change.
    pub jetstream: bool,
    /// Remotes that stay as they are: their places in the old and the new configuration.
    pub kept: Vec<(usize, usize)>,
    /// Remotes to leave, by their place in the old configuration.
    pub left: Vec<usize>,
    /// Remotes to dial, by their place in the new configuration.
    pub joined: Vec<usize>,
}

/// A change that needs a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeedsRestart {
    /// As nats-server calls it.
    pub field: &'static str,
    /// What it was and what it is to be, if that can be said.
    pub values: Option<(String, String)>,
}

impl std::fmt::Display for NeedsRestart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "config reload not supported for {}", self.field)?;
        match &self.values {
            Some((old, new)) => write!(f, ": old={old}, new={new}"),
            None => Ok(()),
        }
    }
}

/// Looks for what changes.
///
/// # Errors
/// The first change that a running server cannot follow. Nothing is to be applied then.
pub fn compare(old: &Config, new: &Config) -> Result<Reload, NeedsRestart> {
    let mut reload = Reload::default();
    refuse(old, new)?;
    reload.log(old, new);
    reload.limits(old, new);
    reload.access(old, new);
    reload.jetstream(old, new);
    reload.files(old, new);
    reload.remotes(old, new);
    Ok(reload)
}

/// Refuses what cannot be changed.
fn refuse(old: &Config, new: &Config) -> Result<(), NeedsRestart> {
    let name = |config: &Config| config.server_name.clone().unwrap_or_default();
    let none = |value: Option<u32>| value.unwrap_or(0);
    let tokens = |value: Option<u8>| value.unwrap_or(0);
    same("ServerName", &name(old), &name(new))?;
    same("Host", &old.host, &new.host)?;
    same("Port", &old.port, &new.port)?;
    same("NoHeaderSupport", &old.no_header_support, &new.no_header_support)?;
    same("ProxyProtocol", &old.proxy_protocol, &new.proxy_protocol)?;
    same("MaxSubs", &none(old.max_subscriptions), &none(new.max_subscriptions))?;
    same("MaxSubTokens", &tokens(old.max_sub_tokens), &tokens(new.max_sub_tokens))?;
    same("MaxPending", &old.max_pending, &new.max_pending)?;
    let flags = |config: &Config| {
        let flags = &config.feature_flags;
        let flags: BTreeMap<&str, bool> =
            flags.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let flags: Vec<String> =
            flags.iter().map(|(name, value)| format!("{name}:{value}")).collect();
        format!("map[{}]", flags.join(" "))
    };
    let late = |config: &Config| match config.write_timeout {
        WriteTimeout::Default => "",
        WriteTimeout::Close => "close",
        WriteTimeout::Retry => "retry",
    };
    same("FeatureFlags", &flags(old), &flags(new))?;
    same("WriteTimeout", &late(old), &late(new))?;
    same("MaxClosedClients", &old.max_closed_clients, &new.max_closed_clients)?;
    let port = |port: Option<i32>| port.unwrap_or(0);
    let host = |config: &Config| config.monitor.host.clone().unwrap_or_default();
    same("HTTPHost", &host(old), &host(new))?;
    same("HTTPPort", &port(old.monitor.http_port), &port(new.monitor.http_port))?;
    same("HTTPSPort", &port(old.monitor.https_port), &port(new.monitor.https_port))?;
    let base = |config: &Config| {
        let path = config.monitor.base_path.as_str();
        if path == "/" { String::new() } else { path.to_owned() }
    };
    same("HTTPBasePath", &base(old), &base(new))?;
    // Another certificate holds for those who come.
    let web = |config: &Config| {
        let web = config.websocket.clone();
        web.map(|web| (web.tls.is_some(), WebSocketConfig { tls: None, ..web }))
    };
    alike("Websocket", &web(old), &web(new))?;
    same("NoSystemAccount", &old.no_system_account, &new.no_system_account)?;
    let system = |config: &Config| config.system_account.clone().unwrap_or_default();
    same("SystemAccount", &system(old), &system(new))?;
    let user = |config: &Config| config.no_auth_user.clone().unwrap_or_default();
    same("NoAuthUser", &user(old), &user(new))?;
    same("AllowNonTLS", &old.allow_non_tls, &new.allow_non_tls)?;
    alike("TrustedOperators", &old.operators.operators, &new.operators.operators)?;
    alike("TrustedKeys", &old.operators.trusted_keys, &new.operators.trusted_keys)?;
    alike("AccountResolver", &old.operators.resolver, &new.operators.resolver)?;
    let pinned = |config: &Config| config.operators.pinned_accounts.clone();
    alike("resolver_pinned_accounts", &pinned(old), &pinned(new))?;
    let sentinel = |config: &Config| config.operators.default_sentinel.clone();
    alike("DefaultSentinel", &sentinel(old), &sentinel(new))?;
    alike("JsAccDefaultDomain", &old.default_js_domain, &new.default_js_domain)?;
    match (&old.jetstream, &new.jetstream) {
        (None, None) => {}
        (Some(old), Some(new)) => refuse_jetstream(old, new)?,
        (Some(_), None) | (None, Some(_)) => return Err(cannot("JetStream")),
    }
    let duration = |old, new| (GoDuration(old).to_string(), GoDuration(new).to_string());
    let (before, after) = duration(old.leafnodes.reconnect, new.leafnodes.reconnect);
    if before != after {
        let values = Some((before, after));
        return Err(NeedsRestart { field: "LeafNode: field \"ReconnectInterval\"", values });
    }
    Ok(())
}

/// The part of [`refuse`] about JetStream.
fn refuse_jetstream(old: &JetStreamConfig, new: &JetStreamConfig) -> Result<(), NeedsRestart> {
    if old.store_dir != new.store_dir {
        return Err(cannot("jetstream storage directory"));
    }
    let room = |of: &JetStreamConfig| (of.max_memory_store, of.max_file_store);
    let ((memory, file), (new_memory, new_file)) = (room(old), room(new));
    if room(old) != room(new) {
        // Without a number the machine decides, once.
        if memory.is_none() || file.is_none() {
            return Err(cannot("jetstream dynamic max memory and store"));
        }
        if new_memory.is_none() || new_file.is_none() {
            return Err(cannot("jetstream max memory and max store"));
        }
        if new_memory < memory || new_file < file {
            return Err(cannot("decreasing jetstream max memory and store"));
        }
    }
    let domain = |domain: &Option<String>| domain.clone().unwrap_or_default();
    same("JetStreamDomain", &domain(&old.domain), &domain(&new.domain))?;
    let always = |of: &JetStreamConfig| of.sync_interval == SyncInterval::Always;
    same("SyncAlways", &always(old), &always(new))?;
    if let (SyncInterval::Every(before), SyncInterval::Every(after)) =
        (old.sync_interval, new.sync_interval)
    {
        let shown = |time| GoDuration(time).to_string();
        same("SyncInterval", &shown(before), &shown(after))?;
    }
    same("NoJetStreamStrict", &!old.strict, &!new.strict)
}

fn cannot(field: &'static str) -> NeedsRestart {
    NeedsRestart { field, values: None }
}

/// A value that must not change, and can be shown.
fn same<T: PartialEq + ToString>(
    field: &'static str,
    old: &T,
    new: &T,
) -> Result<(), NeedsRestart> {
    if old == new {
        return Ok(());
    }
    Err(NeedsRestart { field, values: Some((old.to_string(), new.to_string())) })
}

/// A value that must not change, and is not shown.
fn alike<T: PartialEq>(field: &'static str, old: &T, new: &T) -> Result<(), NeedsRestart> {
    if old == new { Ok(()) } else { Err(cannot(field)) }
}

impl Reload {
    fn line(&mut self, text: impl AsRef<str>) {
        self.lines.push(format!("Reloaded: {}", text.as_ref()));
    }

    /// A line for a value that changed. Says whether it did.
    fn note<T: PartialEq + ToString>(&mut self, key: &str, old: &T, new: &T) -> bool {
        if old != new {
            self.line(format!("{key} = {}", new.to_string()));
        }
        old != new
    }

    fn log(&mut self, old: &Config, new: &Config) {
        let path = |path: &Option<std::path::PathBuf>| {
            path.as_ref().map_or_else(String::new, |path| path.display().to_string())
        };
        let remote = |config: &Config| config.remote_syslog.clone().unwrap_or_default();
        let number = |value: Option<u64>| value.unwrap_or(0);
        self.log = [
            self.note("trace", &old.trace, &new.trace),
            self.note("debug", &old.debug, &new.debug),
            self.note("trace_verbose", &old.trace_verbose, &new.trace_verbose),
            self.note("trace_headers", &old.trace_headers, &new.trace_headers),
            self.note("logtime", &old.logtime, &new.logtime),
            self.note("logtime_utc", &old.logtime_utc, &new.logtime_utc),
            self.note("log_file", &path(&old.log_file), &path(&new.log_file)),
            self.note("log_size_limit", &number(old.log_size_limit), &number(new.log_size_limit)),
            self.note("log_max_num", &number(old.log_max_num), &number(new.log_max_num)),
            self.note("syslog", &old.syslog, &new.syslog),
            self.note("remote_syslog", &remote(old), &remote(new)),
            self.note(
                "max_traced_msg_len",
                &number(old.max_traced_msg_len),
                &number(new.max_traced_msg_len),
            ),
        ]
        .contains(&true);
    }

    fn limits(&mut self, old: &Config, new: &Config) {
        let duration = |time| GoDuration(time).to_string();
        // nats-server keeps 0 as -1.
        let clients = |config: &Config| match config.max_connections {
            0 => -1,
            count => i64::from(count),
        };
        self.max_connections = self.note("max_connections", &clients(old), &clients(new));
        let advertise = |config: &Config| config.client_advertise.clone().unwrap_or_default();
        if advertise(old) != advertise(new) {
            // The one line of nats-server that begins differently.
            self.lines.push(format!("Reload: client_advertise = {}", advertise(new)));
        }
        self.note("ping_interval", &duration(old.ping_interval), &duration(new.ping_interval));
        self.note("ping_max", &old.ping_max, &new.ping_max);
        self.note("max_control_line", &old.max_control_line, &new.max_control_line);
        self.note("max_payload", &old.max_payload, &new.max_payload);
        self.note("write_deadline", &duration(old.write_deadline), &duration(new.write_deadline));
        self.note(
            "lame_duck_duration",
            &duration(old.lame_duck_duration),
            &duration(new.lame_duck_duration),
        );
        self.note(
            "lame_duck_grace_period",
            &duration(old.lame_duck_grace_period),
            &duration(new.lame_duck_grace_period),
        );
        self.note("connect_error_reports", &old.connect_error_reports, &new.connect_error_reports);
        self.note(
            "reconnect_error_reports",
            &old.reconnect_error_reports,
            &new.reconnect_error_reports,
        );
        if old.no_fast_producer_stall != new.no_fast_producer_stall {
            let not = if new.no_fast_producer_stall { "not " } else { "" };
            self.line(format!("fast producers will {not}be stalled"));
        }
    }

    /// The same for a value that is not shown.
    fn note_change<T: PartialEq>(&mut self, text: &str, old: &T, new: &T) -> bool {
        if old != new {
            self.line(text);
        }
        old != new
    }

    fn access(&mut self, old: &Config, new: &Config) {
        let single = |config: &Config| match &config.authorization {
            Authorization::User { user, password } => Some((user.clone(), password.clone())),
            Authorization::None | Authorization::Token(_) => None,
        };
        let token = |config: &Config| match &config.authorization {
            Authorization::Token(token) => Some(token.clone()),
            Authorization::None | Authorization::User { .. } => None,
        };
        let name = |config: &Config| single(config).map(|(user, _)| user);
        let password = |config: &Config| single(config).map(|(_, password)| password);
        let maps = |config: &Config| config.tls.as_ref().is_some_and(|tls| tls.verify_and_map);
        self.users = [
            self.note_change("authorization users", &old.users, &new.users),
            self.note_change("authorization username", &name(old), &name(new)),
            self.note_change("authorization password", &password(old), &password(new)),
            self.note_change("authorization token", &token(old), &token(new)),
            self.note_change("proxies trusted keys", &old.trusted_proxies, &new.trusted_proxies),
            self.note_change("proxy_required", &old.proxy_required, &new.proxy_required),
            self.note_change("lax_permissions", &old.lax_permissions, &new.lax_permissions),
            maps(old) != maps(new),
        ]
        .contains(&true);
        if old.tls != new.tls {
            let state = if new.tls.is_some() { "enabled" } else { "disabled" };
            self.line(format!("tls = {state}"));
        }
        let pins = |config: &Config| {
            config.tls.as_ref().map_or_else(Vec::new, |tls| tls.pinned_certs.clone())
        };
        self.pinned_certs = pins(old) != pins(new);
        if self.pinned_certs {
            self.line(format!("{} pinned_certs", pins(new).len()));
        }
        self.accounts = old.accounts != new.accounts
            || old.mappings != new.mappings
            || old.operators.preload != new.operators.preload;
        if self.accounts {
            self.line("accounts");
        }
        let seconds = |time: Duration| time.as_secs_f64();
        let timeouts = (seconds(old.auth_timeout), seconds(new.auth_timeout));
        self.note("authorization timeout", &timeouts.0, &timeouts.1);
        if let (Some(old), Some(new)) = (&old.tls, &new.tls) {
            self.note("tls timeout", &seconds(old.timeout), &seconds(new.timeout));
        }
        self.note_change("tags", &old.server_tags, &new.server_tags);
        self.note_change("metadata", &old.server_metadata, &new.server_metadata);
    }

    fn jetstream(&mut self, old: &Config, new: &Config) {
        let (Some(old), Some(new)) = (&old.jetstream, &new.jetstream) else { return };
        let shown = |bytes: Option<u64>| size(bytes.unwrap_or(0));
        let (memory, file) = (&old.max_memory_store, &old.max_file_store);
        self.jetstream = [
            self.note("JetStream max_mem_store", &shown(*memory), &shown(new.max_memory_store)),
            self.note("JetStream max_file_store", &shown(*file), &shown(new.max_file_store)),
            self.note_change("JetStream limits", &old.limits, &new.limits),
        ]
        .contains(&true)
            || (*memory, *file) != (new.max_memory_store, new.max_file_store);
    }

    fn files(&mut self, old: &Config, new: &Config) {
        let path = |path: &Option<std::path::PathBuf>| {
            path.as_ref().map_or_else(String::new, |path| path.display().to_string())
        };
        self.pid_file = self.note("pid_file", &path(&old.pid_file), &path(&new.pid_file));
        let directory = (path(&old.ports_file_dir), path(&new.ports_file_dir));
        self.ports_file = self.note("ports_file_dir", &directory.0, &directory.1);
    }

    fn remotes(&mut self, old: &Config, new: &Config) {
        let (old, new) = (&old.leafnodes.remotes, &new.leafnodes.remotes);
        // An entry that is there twice stays as often as it is in both.
        let mut kept = vec![false; new.len()];
        for (index, remote) in old.iter().enumerate() {
            let same = new.iter().zip(&kept).position(|(other, kept)| !kept && other == remote);
            if let Some(flag) = same.and_then(|at| kept.get_mut(at)) {
                *flag = true;
                self.kept.extend(same.map(|at| (index, at)));
                continue;
            }
            if remote.disabled {
                continue;
            }
            self.left.push(index);
            let again = new.iter().any(|other| other.urls == remote.urls && !other.disabled);
            let disabled = new.iter().any(|other| other.urls == remote.urls && other.disabled);
            let what = match (again, disabled) {
                (false, true) => "Disabled value is: true",
                (false, false) => "removed",
                (true, _) => "changed",
            };
            self.line(format!("LeafNode Remote {} {what}", shown(remote)));
        }
        for (index, (remote, kept)) in new.iter().zip(kept).enumerate() {
            if kept || remote.disabled {
                continue;
            }
            self.joined.push(index);
            if old.iter().any(|other| other.urls == remote.urls && other.disabled) {
                self.line(format!("LeafNode Remote {} Disabled value is: false", shown(remote)));
            } else if !old.iter().any(|other| other.urls == remote.urls) {
                self.line(format!("LeafNode Remote {} added", shown(remote)));
            }
        }
    }
}

/// A remote as nats-server names it, without who signs in.
fn shown(remote: &RemoteConfig) -> String {
    let urls: Vec<String> = remote
        .urls
        .iter()
        .map(|url| {
            let scheme = if url.scheme == super::Scheme::Tls { "tls" } else { "nats" };
            let host =
                if url.host.contains(':') { format!("[{}]", url.host) } else { url.host.clone() };
            format!("\"{scheme}://{host}:{}\"", url.port)
        })
        .collect();
    format!("urls=[{}], account={:?}", urls.join(" "), remote.account)
}

#[cfg(test)]
mod tests {
    use super::super::{RemoteUrl, Scheme};
    use super::*;

    fn change(change: impl FnOnce(&mut Config)) -> Result<Reload, String> {
        let old = Config { jetstream: Some(JetStreamConfig::default()), ..Config::default() };
        let mut new = old.clone();
        change(&mut new);
        compare(&old, &new).map_err(|error| error.to_string())
    }

    fn remote(port: u16) -> RemoteConfig {
        let url = RemoteUrl {
            scheme: Scheme::Nats,
            host: "hub".into(),
            port,
            user: None,
            password: None,
        };
        RemoteConfig { urls: vec![url], ..RemoteConfig::default() }
    }

    #[test]
    fn the_same_file_changes_nothing() {
        assert_eq!(change(|_| {}), Ok(Reload::default()));
    }

    #[test]
    fn a_change_is_told_in_the_words_of_nats_server() {
        let reload = change(|config| {
            config.debug = true;
            config.max_payload = 500;
            config.ping_interval = Duration::from_secs(5);
            config.client_advertise = Some("h:5".into());
            config.no_fast_producer_stall = true;
            config.connect_error_reports = 7;
            config.reconnect_error_reports = 9;
            config.auth_timeout = Duration::from_millis(1500);
        })
        .unwrap();
        assert!(reload.log && !reload.users && !reload.accounts && !reload.max_connections);
        assert_eq!(
            reload.lines,
            [
                "Reloaded: debug = true",
                "Reload: client_advertise = h:5",
                "Reloaded: ping_interval = 5s",
                "Reloaded: max_payload = 500",
                "Reloaded: connect_error_reports = 7",
                "Reloaded: reconnect_error_reports = 9",
                "Reloaded: fast producers will not be stalled",
                "Reloaded: authorization timeout = 1.5",
            ]
        );
    }

    #[test]
    fn what_needs_a_restart_is_refused_by_name() {
        for (result, text) in [
            (change(|c| c.server_name = Some("B".into())), "ServerName: old=, new=B"),
            (change(|c| c.max_subscriptions = Some(5)), "MaxSubs: old=0, new=5"),
            (change(|c| c.port = 5), "Port: old=4222, new=5"),
            (change(|c| c.no_header_support = true), "NoHeaderSupport: old=false, new=true"),
            (change(|c| c.jetstream = None), "JetStream"),
            (
                change(|c| c.jetstream.as_mut().unwrap().domain = Some("x".into())),
                "JetStreamDomain: old=, new=x",
            ),
            (
                change(|c| c.feature_flags = vec![("b".into(), true), ("a".into(), false)]),
                "FeatureFlags: old=map[], new=map[a:false b:true]",
            ),
            (change(|c| c.no_auth_user = Some("u".into())), "NoAuthUser: old=, new=u"),
            (change(|c| c.allow_non_tls = true), "AllowNonTLS: old=false, new=true"),
            (change(|c| c.write_timeout = WriteTimeout::Retry), "WriteTimeout: old=, new=retry"),
            (
                change(|c| c.jetstream.as_mut().unwrap().max_file_store = Some(1)),
                "jetstream dynamic max memory and store",
            ),
            (
                change(|c| c.jetstream.as_mut().unwrap().store_dir = "y".into()),
                "jetstream storage directory",
            ),
            (
                change(|c| c.leafnodes.reconnect = Duration::from_secs(3)),
                "LeafNode: field \"ReconnectInterval\": old=1s, new=3s",
            ),
        ] {
            assert_eq!(result, Err(format!("config reload not supported for {text}")));
        }
    }

    #[test]
    fn remotes_are_left_and_joined_by_their_place() {
        let with = |remotes: Vec<RemoteConfig>| {
            let mut config = Config::default();
            config.leafnodes.remotes = remotes;
            config
        };
        let off = RemoteConfig { disabled: true, ..remote(1) };
        let other = RemoteConfig { no_randomize: true, ..remote(1) };
        for (old, new, left, joined, word) in [
            (vec![remote(1)], vec![remote(1)], vec![], vec![], ""),
            (vec![], vec![remote(1)], vec![], vec![0], "added"),
            (vec![remote(1), remote(2)], vec![remote(2)], vec![0], vec![], "removed"),
            (vec![remote(1)], vec![off.clone()], vec![0], vec![], "Disabled value is: true"),
            (vec![off.clone()], vec![remote(1)], vec![], vec![0], "Disabled value is: false"),
            (vec![remote(1)], vec![other], vec![0], vec![0], "changed"),
            (vec![off], vec![], vec![], vec![], ""),
        ] {
            let reload = compare(&with(old), &with(new)).unwrap();
            assert_eq!((&reload.left, &reload.joined), (&left, &joined));
            let text = reload.lines.join("\n");
            assert!(text.ends_with(word), "{text}");
            if !word.is_empty() {
                let name = "Reloaded: LeafNode Remote urls=[\"nats://hub:1\"], account=\"$G\" ";
                assert!(text.starts_with(name), "{text}");
            }
        }
    }
}
