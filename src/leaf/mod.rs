//! Leaf nodes: the uplink to a hub.
//!
//! Owns what has to be decided to keep one remote connected and useful: when and where to
//! dial ([`remote`]), the handshake and keep-alive ([`handshake`]), which interest crosses
//! and which messages may ([`interest`]), and how to wake a hub that waits for an answer
//! lost in an outage ([`nudge`]). Does not dial, and does not route: `broker` owns the
//! connections and asks these parts.
//!
//! # Invariants
//! - A remote never gives up: there is always a next attempt, at most
//!   [`crate::limits::LEAF_LOOP_DELAY`] and its base delay away.
//! - Nothing a hub sends panics or grows memory beyond the bounds in `limits`.
//!
//! Source: leaf node traffic of nats-server 2.15.1, recorded through a relay.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::auth::Secret;
use crate::auth::nkey::Seed;
use crate::limits;
use crate::subject::Filter;

pub mod handshake;
pub mod interest;
pub mod nudge;
pub mod remote;

/// One entry of `leafnodes.remotes`.
#[expect(clippy::struct_excessive_bools, reason = "keys of the configuration")]
#[derive(Clone, Debug)]
pub struct RemoteOptions {
    /// Where the hub is; at least one.
    pub urls: Vec<LeafUrl>,
    /// Our account on this link. Config: `account`.
    pub account: String,
    /// Path of a creds file, read at every connect. Config: `credentials`.
    pub credentials: Option<String>,
    /// A user's seed instead of a creds file. Config: `nkey`.
    pub nkey: Option<Seed>,
    /// Is there a `tls` block or a `tls://` URL? Then TLS starts even if the hub does not
    /// ask for it.
    pub tls: bool,
    /// TLS before the hub's first INFO. Config: `tls.handshake_first`.
    pub handshake_first: bool,
    /// Subjects never to come down. Config: `deny_imports`.
    pub deny_imports: Vec<Filter>,
    /// Subjects never to go up. Config: `deny_exports`.
    pub deny_exports: Vec<Filter>,
    /// Take the URLs in the order they were written. Config: `no_randomize`.
    pub no_randomize: bool,
    /// Dial configured URLs only, not those the hub tells of. Config:
    /// `ignore_discovered_servers`.
    pub ignore_discovered_servers: bool,
    /// Ask the hub to keep the interest of its other leaf nodes from us. Config:
    /// `request_isolation`.
    pub request_isolation: bool,
    /// For the hub's first INFO. Config: `first_info_timeout`.
    pub first_info_timeout: Duration,
    /// For a TCP connect. Config: `dial_timeout`.
    pub dial_timeout: Duration,
    /// For a TLS handshake. Config: `tls.timeout`.
    pub tls_timeout: Duration,
    /// What the pace of attempts is derived from. Config: `leafnodes.reconnect`.
    pub reconnect: Duration,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            account: String::from("$G"),
            credentials: None,
            nkey: None,
            tls: false,
            handshake_first: false,
            deny_imports: Vec::new(),
            deny_exports: Vec::new(),
            no_randomize: false,
            ignore_discovered_servers: false,
            request_isolation: false,
            first_info_timeout: limits::LEAF_FIRST_INFO_TIMEOUT,
            dial_timeout: limits::LEAF_DIAL_TIMEOUT,
            tls_timeout: limits::LEAF_TLS_TIMEOUT,
            reconnect: limits::LEAF_RECONNECT,
        }
    }
}

/// What a hub is told about us, and what our side of the domain rules depends on.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Our `N…` key.
    pub server_id: String,
    /// Our name; also our cluster, because without one the hub would mistake an old
    /// connection of ours for a loop.
    pub server_name: String,
    /// The nats-server release we are compatible with.
    pub version: String,
    /// Our `JetStream` domain; empty: none.
    pub domain: String,
    /// Is `JetStream` on?
    pub jetstream: bool,
}

/// Name and password, or a token, of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The part before the colon.
    pub user: Secret,
    /// The part after it; `None` makes `user` a token as well.
    pub password: Option<Secret>,
}

/// Where a hub listens for leaf nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafUrl {
    /// A name or an address, without the brackets of IPv6.
    pub host: String,
    /// The port; 7422 if none was written.
    pub port: u16,
    /// From `user:password@`.
    pub login: Option<Login>,
}

/// Port of a URL that names none.
pub const LEAF_PORT: u16 = 7422;

/// Why a text is not a URL of a leaf node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeafUrlError {
    /// A scheme that is not `nats-leaf`, `nats`, `tls` or `leaf`.
    Scheme(String),
    /// `ws` and `wss` are known to nats-server and not to us.
    WebSocket,
    /// There is no host.
    Host,
    /// The part after the last colon is not a port.
    Port(String),
    /// A `%` is not followed by two hexadecimal digits, or they make no UTF-8.
    Escape,
}

impl fmt::Display for LeafUrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme(scheme) => write!(
                f,
                "scheme {scheme:?} is not one of a leaf node; write nats-leaf://host:7422"
            ),
            Self::WebSocket => {
                f.write_str("leaf nodes over WebSocket are not supported; use nats-leaf://")
            }
            Self::Host => f.write_str("the URL has no host"),
            Self::Port(port) => write!(f, "{port:?} is not a port (1 to 65535)"),
            Self::Escape => f.write_str("a % in the URL needs two hexadecimal digits after it"),
        }
    }
}

impl core::error::Error for LeafUrlError {}

impl LeafUrl {
    /// Reads `[scheme://][user[:password]@]host[:port]`.
    pub fn parse(text: &str) -> Result<Self, LeafUrlError> {
        let rest = match text.split_once("://") {
            None => text,
            Some((scheme, rest)) => match scheme {
                "nats-leaf" | "nats" | "tls" | "leaf" => rest,
                "ws" | "wss" => return Err(LeafUrlError::WebSocket),
                _ => return Err(LeafUrlError::Scheme(String::from(scheme))),
            },
        };
        let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (userinfo, address) = match rest.rsplit_once('@') {
            Some((userinfo, address)) => (userinfo, address),
            None => ("", rest),
        };
        let login = if userinfo.is_empty() { None } else { Some(Login::parse(userinfo)?) };
        let (host, port) = split_port(address)?;
        if host.is_empty() {
            return Err(LeafUrlError::Host);
        }
        Ok(Self { host: String::from(host), port, login })
    }

    /// Is the host an address rather than a name? Certificates are checked against names.
    pub fn is_address(&self) -> bool {
        self.host.parse::<core::net::IpAddr>().is_ok()
    }

    /// Do both lead to the same place, whoever logs in there?
    pub fn same_place(&self, other: &Self) -> bool {
        self.port == other.port && self.host.eq_ignore_ascii_case(&other.host)
    }
}

/// `host:port`, without the login.
impl fmt::Display for LeafUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Login {
    fn parse(userinfo: &str) -> Result<Self, LeafUrlError> {
        Ok(match userinfo.split_once(':') {
            Some((user, password)) => Self {
                user: Secret::new(unescape(user)?),
                password: Some(Secret::new(unescape(password)?)),
            },
            None => Self { user: Secret::new(unescape(userinfo)?), password: None },
        })
    }
}

fn split_port(address: &str) -> Result<(&str, u16), LeafUrlError> {
    let port = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(LeafUrlError::Port(String::from(text))),
    };
    if let Some(rest) = address.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(LeafUrlError::Host)?;
        return match rest.strip_prefix(':') {
            Some(text) => Ok((host, port(text)?)),
            None if rest.is_empty() => Ok((host, LEAF_PORT)),
            None => Err(LeafUrlError::Port(String::from(rest))),
        };
    }
    match address.split_once(':') {
        // More than one colon and no brackets: an IPv6 address alone.
        Some((_, rest)) if rest.contains(':') => Ok((address, LEAF_PORT)),
        Some((host, text)) => Ok((host, port(text)?)),
        None => Ok((address, LEAF_PORT)),
    }
}

fn unescape(text: &str) -> Result<String, LeafUrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(LeafUrlError::Escape);
        };
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| LeafUrlError::Escape)?);
    }
    String::from_utf8(bytes).map_err(|_| LeafUrlError::Escape)
}

/// Something an operator should know about a leaf link. Printed one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeafNotice {
    /// Worth a line at level INF.
    Info(String),
    /// Worth a line at level WRN.
    Warn(String),
    /// Worth a line at level ERR.
    Error(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString;

    #[test]
    fn urls_are_read_with_their_defaults() {
        for (text, shown) in [
            ("nats-leaf://hub.example:7000", "hub.example:7000"),
            ("hub.example", "hub.example:7422"),
            ("tls://u:p@10.0.0.1", "10.0.0.1:7422"),
            ("nats://[::1]:99/", "[::1]:99"),
            ("fe80::1", "[fe80::1]:7422"),
        ] {
            assert_eq!(LeafUrl::parse(text).unwrap().to_string(), shown, "{text}");
        }
        let login = LeafUrl::parse("nats-leaf://gw%401:p%3aw@h").unwrap().login.unwrap();
        assert_eq!(login.user.expose(), "gw@1");
        assert_eq!(login.password.unwrap().expose(), "p:w");
        let token = LeafUrl::parse("nats-leaf://t0k3n@h").unwrap();
        assert_eq!(token.login.as_ref().unwrap().password, None);
        assert!(!format!("{token} {token:?}").contains("t0k3n"));
    }

    #[test]
    fn texts_that_are_no_urls_are_refused() {
        for (text, why) in [
            ("http://h", LeafUrlError::Scheme("http".into())),
            ("wss://h", LeafUrlError::WebSocket),
            ("nats://", LeafUrlError::Host),
            ("h:0", LeafUrlError::Port("0".into())),
            ("h:70000", LeafUrlError::Port("70000".into())),
            ("u%4@h", LeafUrlError::Escape),
        ] {
            assert_eq!(LeafUrl::parse(text), Err(why), "{text}");
        }
    }
}
