//! From the configuration to what clients go through on their way in.
//!
//! Owns what of `tls`, `websocket` and `proxy_protocol` the listeners and INFO get. Does not
//! own reading the keys (`config`) nor the ways in themselves ([`crate::net::opening`]).

use crate::broker::options::{TlsOffer, WebSocketOffer};
use crate::config::{Config, TlsServerConfig, WebSocketConfig};
use crate::net::certificate;
use crate::net::opening::Entrance;
use crate::net::tls_server::TlsServer;
use crate::net::websocket::upgrade::{Origin, UpgradeOptions};

/// The client port's.
///
/// # Errors
/// A text that names the key or the file and what is wrong with it.
pub fn client(config: &Config) -> Result<Entrance, String> {
    let tls = config.tls.as_ref().map(TlsServer::new).transpose();
    Ok(Entrance {
        proxy: config.proxy_protocol,
        tls: tls.map_err(|error| format!("tls: {error}"))?,
        allow_non_tls: config.allow_non_tls,
        ..Entrance::default()
    })
}

/// The WebSocket listener's.
///
/// # Errors
/// As [`client`].
pub fn web(web: &WebSocketConfig, max_payload: u32) -> Result<Entrance, String> {
    let tls = web.tls.as_ref().filter(|_| !web.no_tls).map(TlsServer::new).transpose();
    let tls = tls.map_err(|error| format!("websocket.tls: {error}"))?;
    let mut allowed_origins = Vec::new();
    for text in &web.allowed_origins {
        let origin = Origin::parse(text).ok_or_else(|| {
            format!("websocket.allowed_origins: {text:?} is not http:// or https:// and a host")
        })?;
        allowed_origins.push(origin);
    }
    let options = UpgradeOptions {
        tls: tls.is_some(),
        same_origin: web.same_origin,
        allowed_origins,
        compression: web.compression,
        jwt_cookie: web.jwt_cookie.clone(),
        user_cookie: web.user_cookie.clone(),
        pass_cookie: web.pass_cookie.clone(),
        token_cookie: web.token_cookie.clone(),
        headers: web.headers.clone(),
        // A message of ours, its operation and a few more.
        message_bytes_max: usize::try_from(max_payload)
            .unwrap_or(usize::MAX)
            .saturating_add(65_536),
    };
    Ok(Entrance {
        tls,
        web_socket: Some(options),
        upgrade_timeout: web.handshake_timeout,
        ..Entrance::default()
    })
}

/// Whether the files of all listeners under TLS can be used.
///
/// # Errors
/// As [`client`].
pub fn check(config: &Config) -> Result<(), String> {
    client(config)?;
    config.websocket.as_ref().map(|here| web(here, config.max_payload)).transpose().map(drop)
}

/// That of the monitoring pages, if they are under TLS: the certificate of the client port,
/// and nobody has to show one.
///
/// # Errors
/// As [`client`].
pub fn pages(config: &Config) -> Result<Option<TlsServer>, String> {
    let https = config.monitor.https_port.is_some_and(|port| port != 0);
    let Some(tls) = config.tls.as_ref().filter(|_| https) else { return Ok(None) };
    let open = TlsServerConfig { verify: false, ..tls.clone() };
    TlsServer::new(&open).map(Some).map_err(|error| format!("tls: {error}"))
}

/// SHA-256 of the keys of client certificates that are pinned, in hexadecimal digits.
pub fn pins(config: &Config) -> Vec<String> {
    let pins = config.tls.iter().flat_map(|tls| &tls.pinned_certs);
    pins.map(|pin| certificate::hexadecimal(pin)).collect()
}

/// What INFO says of TLS on the client port.
pub fn tls_offer(config: &Config) -> TlsOffer {
    let Some(tls) = &config.tls else { return TlsOffer::default() };
    let available = config.allow_non_tls;
    TlsOffer { required: !available, verify: tls.verify, available }
}

/// What INFO says of the WebSocket listener, which got `port`.
pub fn web_offer(web: &WebSocketConfig, port: u16) -> WebSocketOffer {
    WebSocketOffer {
        host: web.host.clone(),
        port,
        tls: web.tls.is_some() && !web.no_tls,
        ping_interval: web.ping_interval,
        auth_timeout: web.auth_timeout,
    }
}
