//! The HTTP request that becomes a WebSocket, and its answer.
//!
//! Owns what nats-server asks of the request, in its order, origins and cookies. Does not
//! own the socket nor the time the request may take ([`super::super::opening`]).
//!
//! Source: RFC 6455, 4.2; NATS docs, "WebSocket configuration"; texts as nats-server 2.15.1.

use std::fmt::Write as _;

use super::Agreed;
use crate::auth::Secret;
use crate::broker::arrival::Cookies;
use crate::limits::{UPGRADE_BYTES_MAX, UPGRADE_HEADERS_MAX};

/// What a listener asks of an upgrade.
#[derive(Clone, Debug, Default)]
pub struct UpgradeOptions {
    /// The listener is under TLS, which an origin's scheme must match.
    pub tls: bool,
    /// `same_origin`.
    pub same_origin: bool,
    /// `allowed_origins`; empty: any.
    pub allowed_origins: Vec<Origin>,
    /// `compression`.
    pub compression: bool,
    /// `jwt_cookie`, `user_cookie`, `pass_cookie`, `token_cookie`.
    pub jwt_cookie: Option<String>,
    /// See `jwt_cookie`.
    pub user_cookie: Option<String>,
    /// See `jwt_cookie`.
    pub pass_cookie: Option<String>,
    /// See `jwt_cookie`.
    pub token_cookie: Option<String>,
    /// `headers`, for the answer.
    pub headers: Vec<(String, String)>,
    /// What one message may come to when it is inflated, in bytes.
    pub message_bytes_max: usize,
}

/// A web page's origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    tls: bool,
    host: String,
    port: u16,
}

impl Origin {
    /// Reads `scheme://host[:port]`.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        Self::of(tls, authority)
    }

    /// What `host[:port]` is under a scheme.
    fn of(tls: bool, authority: &str) -> Option<Self> {
        let usual = if tls { 443 } else { 80 };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, digits)) if !digits.contains(']') => (host, digits.parse().ok()?),
            _ => (authority, usual),
        };
        (!host.is_empty()).then(|| Self { tls, host: host.to_ascii_lowercase(), port })
    }
}

/// What the bytes so far are.
#[derive(Debug)]
pub enum Upgrade {
    /// Not the whole request yet.
    Incomplete,
    /// It is one: send `answer`, then frames.
    Agreed(Box<Upgraded>),
    /// It is none: send `answer` (if any), then close. The log gets `why`.
    Refused {
        /// An HTTP answer, or nothing.
        answer: String,
        /// For the log; empty: nothing.
        why: String,
    },
}

/// An upgrade that is agreed on.
#[derive(Debug, Default)]
pub struct Upgraded {
    /// The HTTP answer.
    pub answer: String,
    /// What holds from now on.
    pub agreed: Agreed,
    /// Credentials.
    pub cookies: Cookies,
    /// `X-Forwarded-For`, if it is one address.
    pub forwarded_for: Option<String>,
}

/// Looks at the request in `bytes`.
pub fn read(bytes: &[u8], options: &UpgradeOptions) -> Upgrade {
    let mut headers = [httparse::EMPTY_HEADER; UPGRADE_HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let used = match request.parse(bytes) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) if bytes.len() < UPGRADE_BYTES_MAX => {
            return Upgrade::Incomplete;
        }
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return refuse(431, "request header is too long");
        }
        Err(_) => return refuse(400, ""),
    };
    match agree(&request, options) {
        Ok(_) if used < bytes.len() => Upgrade::Refused {
            answer: String::new(),
            why: "client sent data before handshake is complete".to_owned(),
        },
        Ok(upgraded) => Upgrade::Agreed(Box::new(upgraded)),
        Err((status, why)) => refuse(status, &why),
    }
}

/// The answer to a request that is not followed.
fn refuse(status: u16, why: &str) -> Upgrade {
    let text = match status {
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        _ => "Bad Request",
    };
    let answer = format!(
        "HTTP/1.1 {status} {text}\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Sec-Websocket-Version: 13\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{text}\n",
        text.len() + 1
    );
    Upgrade::Refused { answer, why: why.to_owned() }
}

/// The answer to plain HTTP where TLS is spoken.
pub const NOT_TLS: &str =
    "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

type Request<'h, 'b> = httparse::Request<'h, 'b>;

fn agree(request: &Request<'_, '_>, options: &UpgradeOptions) -> Result<Upgraded, (u16, String)> {
    let bad = |why: &str| (400, why.to_owned());
    let path = request.path.unwrap_or("/").split('?').next().unwrap_or("/");
    if path.ends_with("/mqtt") {
        return Err((404, "mqtt websocket endpoint not enabled".to_owned()));
    }
    if path.ends_with("/leafnode") {
        return Err((404, "Not configured to accept leaf node connections".to_owned()));
    }
    if request.method != Some("GET") {
        return Err((405, "request method must be GET".to_owned()));
    }
    let host = header(request, "Host").filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| bad("'Host' missing in request"))?;
    if !contains(request, "Upgrade", "websocket") {
        return Err(bad("invalid value for header 'Upgrade'"));
    }
    if !contains(request, "Connection", "Upgrade") {
        return Err(bad("invalid value for header 'Connection'"));
    }
    let key = header(request, "Sec-WebSocket-Key").filter(|key| !key.is_empty());
    let key = key.ok_or_else(|| bad("key missing"))?;
    if !contains(request, "Sec-WebSocket-Version", "13") {
        return Err(bad("invalid version"));
    }
    origin(request, host, options).map_err(|why| (403, format!("origin not allowed: {why}")))?;
    let decoded = data_encoding::BASE64.decode(key.as_bytes());
    if !decoded.is_ok_and(|bytes| bytes.len() == 16) {
        return Err(bad("invalid websocket key"));
    }
    let agent = header(request, "User-Agent").unwrap_or_default();
    let browser = agent.starts_with("Mozilla/");
    let agreed = Agreed {
        no_masking: contains(request, "Nats-No-Masking", "true"),
        deflate: options.compression
            && contains_extension(request, "Sec-WebSocket-Extensions", "permessage-deflate"),
        browser,
        whole: browser && agent.contains("Version/") && agent.contains("Safari/"),
        message_bytes_max: options.message_bytes_max,
    };
    Ok(Upgraded {
        answer: answer(key, agreed, options),
        agreed,
        cookies: cookies(request, options),
        forwarded_for: header(request, "X-Forwarded-For")
            .filter(|text| text.parse::<std::net::IpAddr>().is_ok())
            .map(str::to_owned),
    })
}

fn answer(key: &str, agreed: Agreed, options: &UpgradeOptions) -> String {
    let digest = ring::digest::digest(
        &ring::digest::SHA1_FOR_LEGACY_USE_ONLY,
        [key, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat().as_bytes(),
    );
    let mut answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n",
        data_encoding::BASE64.encode(digest.as_ref())
    );
    if agreed.deflate {
        answer.push_str(
            "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; \
             client_no_context_takeover\r\n",
        );
    }
    if agreed.no_masking {
        answer.push_str("Nats-No-Masking: true\r\n");
    }
    for (name, value) in &options.headers {
        // Writing to a String cannot fail.
        let _ = write!(answer, "{name}: {value}\r\n");
    }
    answer.push_str("\r\n");
    answer
}

/// The values of a header, which may come several times.
fn values<'a>(request: &'a Request<'_, '_>, name: &'a str) -> impl Iterator<Item = &'a str> {
    request
        .headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .filter_map(|header| std::str::from_utf8(header.value).ok())
        .map(str::trim)
}

fn header<'a>(request: &'a Request<'_, '_>, name: &'a str) -> Option<&'a str> {
    values(request, name).next()
}

/// Has a header this word in its list?
fn contains(request: &Request<'_, '_>, name: &str, word: &str) -> bool {
    values(request, name)
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(word))
}

/// As [`contains`], for an item that may have parameters.
fn contains_extension(request: &Request<'_, '_>, name: &str, word: &str) -> bool {
    values(request, name)
        .flat_map(|value| value.split(','))
        .filter_map(|item| item.split(';').next())
        .any(|item| item.trim().eq_ignore_ascii_case(word))
}

/// May a page from there connect? Who sends no origin is no page.
fn origin(request: &Request<'_, '_>, host: &str, options: &UpgradeOptions) -> Result<(), String> {
    if !options.same_origin && options.allowed_origins.is_empty() {
        return Ok(());
    }
    let text = header(request, "Origin").or_else(|| header(request, "Sec-WebSocket-Origin"));
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(()) };
    let origin =
        Origin::parse(text).ok_or_else(|| format!("parse {text:?}: invalid URI for request"))?;
    if options.same_origin && Origin::of(options.tls, host).as_ref() != Some(&origin) {
        return Err("not same origin".to_owned());
    }
    if !options.allowed_origins.is_empty() && !options.allowed_origins.contains(&origin) {
        return Err("not in the allowed list".to_owned());
    }
    Ok(())
}

fn cookies(request: &Request<'_, '_>, options: &UpgradeOptions) -> Cookies {
    let find = |wanted: &Option<String>| {
        let wanted = wanted.as_deref()?;
        values(request, "Cookie")
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(name, _)| *name == wanted)
            .map(|(_, value)| {
                let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
                Secret::new(inner.unwrap_or(value))
            })
    };
    Cookies {
        jwt: find(&options.jwt_cookie),
        user: find(&options.user_cookie),
        pass: find(&options.pass_cookie),
        token: find(&options.token_cookie),
    }
}
