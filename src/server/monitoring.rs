//! What of the configuration the monitoring pages need.
//!
//! Owns the way from a [`Config`] to [`Settings`] and to the bound monitoring port.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};

use super::start::announced;
use crate::config::{Authorization, Config, Loaded, SyncInterval, WebSocketConfig, WriteTimeout};
use crate::monitor::{RemoteShown, Settings, SyncShown, WebShown};
use crate::net::{certificate, tls_server};
use crate::time::{Duration, Timestamp};

/// What the pages show, for a server that listens on `port` and read its configuration at
/// `loaded_at`.
pub fn settings(loaded: &Loaded, port: u16, loaded_at: Timestamp, start: Timestamp) -> Settings {
    let config = &loaded.config;
    let remotes = config.leafnodes.remotes.iter().filter(|remote| !remote.disabled);
    let (host, port) = announced(config, port);
    Settings {
        host,
        port,
        auth_required: config.authorization != Authorization::None || !config.users.is_empty(),
        tls_required: config.tls.is_some() && !config.allow_non_tls,
        tls_verify: config.tls.as_ref().is_some_and(|tls| tls.verify || tls.verify_and_map),
        tls_timeout: config.tls.as_ref().map_or(Duration::from_secs(2), |tls| tls.timeout),
        tls_not_after: config.tls.as_ref().and_then(tls_server::not_after),
        write_timeout: match config.write_timeout {
            WriteTimeout::Default => "",
            WriteTimeout::Retry => "retry",
            WriteTimeout::Close => "close",
        },
        feature_flags: config.feature_flags.clone(),
        trusted_proxies: config.trusted_proxies.clone(),
        web: config.websocket.as_ref().map(web),
        http_host: http_host(config).to_owned(),
        http_port: config.monitor.http_port.unwrap_or(0).into(),
        https_port: config.monitor.https_port.unwrap_or(0).into(),
        http_base_path: base_path(&config.monitor.base_path),
        config_digest: loaded.digest.clone(),
        config_load_time: loaded_at,
        start,
        tags: config.server_tags.clone(),
        metadata: config.server_metadata.clone(),
        remotes: remotes
            .map(|remote| RemoteShown {
                account: remote.account.clone(),
                urls: remote.urls.iter().map(|url| format!("{}:{}", url.host, url.port)).collect(),
                tls_timeout: remote.tls.as_ref().map_or(Duration::ZERO, |tls| tls.timeout),
                deny_imports: remote.deny_imports.clone(),
                deny_exports: remote.deny_exports.clone(),
            })
            .collect(),
        sync: config.jetstream.as_ref().map(|js| match js.sync_interval {
            SyncInterval::Always => SyncShown { interval: Duration::from_mins(2), always: true },
            SyncInterval::Every(interval) => SyncShown { interval, always: false },
        }),
    }
}

fn web(config: &WebSocketConfig) -> WebShown {
    let tls = config.tls.as_ref().filter(|_| !config.no_tls);
    WebShown {
        host: config.host.clone(),
        advertise: config.advertise.clone().unwrap_or_default(),
        no_auth_user: config.no_auth_user.clone().unwrap_or_default(),
        handshake_timeout: config.handshake_timeout.unwrap_or_default(),
        auth_timeout: config.auth_timeout.unwrap_or_default(),
        no_tls: config.no_tls,
        tls_map: tls.is_some_and(|tls| tls.verify_and_map),
        tls_pinned_certs: tls
            .iter()
            .flat_map(|tls| &tls.pinned_certs)
            .map(|pin| certificate::hexadecimal(pin))
            .collect(),
        tls_not_after: tls.and_then(tls_server::not_after),
        same_origin: config.same_origin,
        allowed_origins: config.allowed_origins.clone(),
        compression: config.compression,
    }
}

fn http_host(config: &Config) -> &str {
    config.monitor.host.as_deref().unwrap_or(&config.host)
}

/// With one slash at its front and none at its end; empty for `/`.
fn base_path(path: &str) -> String {
    let path = path.trim_matches('/');
    if path.is_empty() { String::new() } else { format!("/{path}") }
}

/// The monitoring port once it is bound.
#[derive(Debug)]
pub struct Bound {
    /// Its listener.
    pub listener: TcpListener,
    /// Where.
    pub port: u16,
    /// For the log.
    pub text: String,
    /// `https`, else `http`.
    pub https: bool,
}

/// The monitoring port, bound here unless the service manager did, with the address it is announced by; `None`: there is none.
///
/// # Errors
/// What to change, for the operator.
pub fn bind(config: &Config, inherited: Option<TcpListener>) -> Result<Option<Bound>, String> {
    let monitor = &config.monitor;
    let https = monitor.https_port.is_some_and(|port| port != 0);
    let port = if https { monitor.https_port } else { monitor.http_port };
    let Some(port) = port.filter(|port| *port != 0) else { return Ok(None) };
    let shown = http_host(config);
    let host = shown.trim_start_matches('[').trim_end_matches(']');
    let port = u16::try_from(port.max(0)).unwrap_or(0);
    let failed = |error: std::io::Error| {
        format!("can't listen to the monitor port: {shown}:{port}: {error}; change http or -m")
    };
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(failed)?.collect();
    let bind = || TcpListener::bind(&addresses[..]).map_err(failed);
    let listener = inherited.map_or_else(bind, Ok)?;
    let port = listener.local_addr().map_or(port, |address| address.port());
    let scheme = if https { "https" } else { "http" };
    let text = format!("Starting {scheme} monitor on {shown}:{port}");
    Ok(Some(Bound { listener, port, text, https }))
}
