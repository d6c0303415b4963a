//! The `websocket` block.
//!
//! Owns its meaning. Does not own the handshake (`net`).
//!
//! Source: the nats-server configuration documentation, checked against nats-server 2.15.

use super::accounts::Declared;
use super::keys::{WEBSOCKET, WEBSOCKET_AUTHORIZATION};
use super::mappings::in_order;
use super::parser::{Node, Value};
use super::read::Reader;
use super::tls::TlsServerConfig;
use super::units::short;
use super::{Authorization, Config};
use std::time::Duration;

/// `websocket { }` with a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocketConfig {
    /// Address to listen on. Default `0.0.0.0`, whatever that for clients is.
    pub host: String,
    /// Port; -1 lets the system choose.
    pub port: i32,
    /// `host[:port]` for `connect_urls` of INFO.
    pub advertise: Option<String>,
    /// TLS; without it `no_tls` is true.
    pub tls: Option<TlsServerConfig>,
    /// Plain HTTP, also beside `tls`, which is not used then.
    pub no_tls: bool,
    /// The `Origin` must be the host that was asked. Default false.
    pub same_origin: bool,
    /// The `Origin` must be one of these; empty: any. Each is `scheme://host[:port]`.
    pub allowed_origins: Vec<String>,
    /// Offer `permessage-deflate`. Default false.
    pub compression: bool,
    /// How long the request may take to arrive. Default: no bound of its own.
    pub handshake_timeout: Option<Duration>,
    /// Who may connect here; [`Authorization::None`] is what holds for clients.
    pub authorization: Authorization,
    /// How long a client may take to authenticate here.
    pub auth_timeout: Option<Duration>,
    /// As the top level's, for those who come here.
    pub no_auth_user: Option<String>,
    /// The cookie that stands for a JWT in CONNECT.
    pub jwt_cookie: Option<String>,
    /// The cookie that stands for a user in CONNECT.
    pub user_cookie: Option<String>,
    /// The cookie that stands for a password in CONNECT.
    pub pass_cookie: Option<String>,
    /// The cookie that stands for a token in CONNECT.
    pub token_cookie: Option<String>,
    /// Headers of the answer to the upgrade, in the order written.
    pub headers: Vec<(String, String)>,
    /// Time between PINGs. Default that for clients.
    pub ping_interval: Option<Duration>,
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self {
            host: "0.0.0.0".to_owned(),
            port: 0,
            advertise: None,
            tls: None,
            no_tls: false,
            same_origin: false,
            allowed_origins: Vec::new(),
            compression: false,
            handshake_timeout: None,
            authorization: Authorization::None,
            auth_timeout: None,
            no_auth_user: None,
            jwt_cookie: None,
            user_cookie: None,
            pass_cookie: None,
            token_cookie: None,
            headers: Vec::new(),
            ping_interval: None,
        }
    }
}

/// Headers of the handshake itself, which the file may not set.
const RESERVED_HEADERS: [&str; 5] = [
    "Upgrade",
    "Connection",
    "Sec-Websocket-Accept",
    "Sec-Websocket-Extensions",
    "Sec-Websocket-Protocol",
];

impl Reader<'_> {
    /// `None` without a port: the listener is off, as in nats-server.
    pub(super) fn websocket(
        &mut self,
        node: &Node,
        declared: &mut Declared,
    ) -> Option<WebSocketConfig> {
        let Value::Map(map) = &node.value else {
            let kind = node.value.kind();
            self.wrong(node, format!("Expected websocket to be a map, got {kind}"));
            return None;
        };
        let mut ws = WebSocketConfig::default();
        for (key, entry) in self.entries(map, &WEBSOCKET) {
            let node = &entry.node;
            match key {
                "listen" => self.listen(key, node, &mut ws.host, &mut ws.port),
                "host" => self.set(&mut ws.host, |this| this.text(key, node)),
                "port" => self.port(key, node, &mut ws.port),
                "advertise" => ws.advertise = self.filled(key, node),
                "tls" => ws.tls = self.tls(node),
                "no_tls" => self.flag(key, node, &mut ws.no_tls),
                "same_origin" => self.flag(key, node, &mut ws.same_origin),
                "allowed_origins" => ws.allowed_origins = self.origins(key, node),
                "compression" => self.flag(key, node, &mut ws.compression),
                "handshake_timeout" => {
                    ws.handshake_timeout = match &node.value {
                        // Here nats-server takes whole seconds without a warning.
                        Value::Integer { source, .. }
                            if source.bytes().all(|byte| byte.is_ascii_digit()) =>
                        {
                            self.seconds(key, node)
                        }
                        _ => self.duration(key, node),
                    }
                    .filter(|timeout| !timeout.is_zero());
                }
                "authorization" => self.websocket_authorization(node, &mut ws),
                "no_auth_user" => {
                    ws.no_auth_user = self.filled(key, node);
                    if let Some(name) = &ws.no_auth_user {
                        declared.no_auth_users.push((name.clone(), node.place.clone()));
                    }
                }
                "jwt_cookie" => {
                    ws.jwt_cookie = self.filled(key, node);
                    if let Some(cookie) = &ws.jwt_cookie {
                        declared.jwt_cookie = Some((cookie.clone(), node.place.clone()));
                    }
                }
                "user_cookie" => ws.user_cookie = self.filled(key, node),
                "pass_cookie" => ws.pass_cookie = self.filled(key, node),
                "token_cookie" => ws.token_cookie = self.filled(key, node),
                "headers" => ws.headers = self.headers(node),
                "ping_interval" => {
                    ws.ping_interval =
                        self.duration(key, node).filter(|interval| !interval.is_zero());
                }
                _ => {}
            }
        }
        if ws.port == 0 {
            return None;
        }
        let has_tls = map.keys().any(|key| key.eq_ignore_ascii_case("tls"));
        if !has_tls && !ws.no_tls {
            self.wrong(node, "websocket requires TLS configuration, or no_tls: true");
        }
        if ws.authorization != Authorization::None {
            declared.websocket_login = Some(node.place.clone());
        }
        Some(ws)
    }

    fn origins(&mut self, key: &str, node: &Node) -> Vec<String> {
        let mut origins = Vec::new();
        for node in node.elements() {
            let Some(text) = self.text(key, node) else { continue };
            let host =
                text.split_once("://").map(|(scheme, host)| (scheme, host.trim_end_matches('/')));
            match host {
                Some((scheme, host))
                    if !scheme.is_empty()
                        && !host.is_empty()
                        && !host.contains(|c: char| c == '/' || c.is_whitespace()) =>
                {
                    origins.push(format!("{scheme}://{host}"));
                }
                _ => {
                    let text = short(&text);
                    self.wrong(
                        node,
                        format!(
                            "unable to parse allowed origin {text:?}; write scheme://host[:port]"
                        ),
                    );
                }
            }
        }
        origins
    }

    fn websocket_authorization(&mut self, node: &Node, ws: &mut WebSocketConfig) {
        let Some(map) = self.map("authorization", node) else { return };
        let (mut user, mut password, mut token) = (None, None, None);
        for (key, entry) in self.entries(map, &WEBSOCKET_AUTHORIZATION) {
            let node = &entry.node;
            match key {
                "user" => user = self.text(key, node),
                "password" => password = self.secret(key, node),
                "token" => token = self.secret(key, node),
                "timeout" => ws.auth_timeout = self.seconds(key, node),
                _ => {}
            }
        }
        ws.authorization = match (user, password, token) {
            (Some(_), _, Some(_)) | (None, Some(_), Some(_)) => {
                self.wrong(node, "Cannot have a user/pass and token");
                Authorization::None
            }
            (None, Some(_), None) => {
                self.wrong(node, "authorization has a password and no user");
                Authorization::None
            }
            (Some(user), password, None) => {
                Authorization::User { user, password: password.unwrap_or_default() }
            }
            (None, None, Some(token)) => Authorization::Token(token),
            (None, None, None) => Authorization::None,
        };
    }

    fn headers(&mut self, node: &Node) -> Vec<(String, String)> {
        let Some(map) = self.map("headers", node) else { return Vec::new() };
        let mut headers = Vec::new();
        for (name, entry) in in_order(map) {
            let is_token =
                |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if name.is_empty() || !name.bytes().all(is_token) {
                let name = short(name);
                self.mistakes
                    .add(entry.place.clone(), format!("{name:?} is no name of an HTTP header"));
                continue;
            }
            if RESERVED_HEADERS.iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) {
                self.mistakes.add(
                    entry.place.clone(),
                    format!("websocket: invalid header {name:?} not allowed"),
                );
                continue;
            }
            let Some(value) = self.text(name, &entry.node) else { continue };
            if value.contains(char::is_control) {
                self.wrong(&entry.node, "a header holds no line ends");
                continue;
            }
            headers.push((name.to_owned(), value));
        }
        headers
    }

    /// Checks that need the users.
    pub(super) fn agree_websocket(&mut self, config: &Config, declared: &Declared) {
        if let Some(place) = &declared.websocket_login
            && !config.users.is_empty()
        {
            let what = match config.websocket.as_ref().map(|ws| &ws.authorization) {
                Some(Authorization::Token(_)) => {
                    "websocket authentication token not compatible with presence of users/nkeys"
                }
                _ => {
                    "websocket authentication username not compatible with presence of users/nkeys"
                }
            };
            self.mistakes.add(place.clone(), what);
        }
    }
}
