//! CONNECT and INFO: what a client says of itself, and what it is told.
//!
//! Source: NATS docs, "Client protocol", INFO and CONNECT; JSON rules as nats-server reads
//! them (keys in any case, `null` leaves the default, a wrong type is an error).

use alloc::string::String;
use alloc::vec::Vec;

use serde_json::Value;

use super::arrival::Door;
use super::options::{Options, TlsOffer};
use crate::auth::Secret;

/// The version INFO gives. Clients switch features on by it, so it follows the nats-server
/// release whose protocol Sedge speaks, not Sedge's own version.
pub const PROTOCOL_VERSION: &str = "2.15.1";

/// JetStream API level in INFO and in API replies.
pub const API_LEVEL: u8 = 5;

/// Fields of CONNECT. The defaults are those of a client that never sends one.
#[derive(Clone, Debug)]
pub struct Connect {
    /// `+OK` after each operation.
    pub verbose: bool,
    /// Check publish subjects.
    pub pedantic: bool,
    /// Deliver own publishes to own subscriptions.
    pub echo: bool,
    /// 0 or 1.
    pub protocol: i64,
    /// Wants headers.
    pub headers: bool,
    /// Wants 503 replies.
    pub no_responders: bool,
    /// For logs and monitoring.
    pub name: String,
    /// Client library.
    pub lang: String,
    /// Its version.
    pub version: String,
    /// Credentials, in the order user, pass, token.
    pub user: String,
    /// See `user`.
    pub pass: Secret,
    /// See `user`.
    pub auth_token: Secret,
    /// A user's token; only where users sign in by tokens.
    pub jwt: Secret,
    /// A user's public key, and its signature of the nonce.
    pub nkey: String,
    /// See `nkey`.
    pub sig: String,
    /// A trusted proxy's signature of the nonce.
    pub proxy_sig: String,
    /// Must be empty.
    pub account: String,
    /// Must be false.
    pub new_account: bool,
}

impl Default for Connect {
    fn default() -> Self {
        Self {
            verbose: true,
            pedantic: true,
            echo: true,
            protocol: 0,
            headers: false,
            no_responders: false,
            name: String::new(),
            lang: String::new(),
            version: String::new(),
            user: String::new(),
            pass: Secret::default(),
            auth_token: Secret::default(),
            jwt: Secret::default(),
            nkey: String::new(),
            sig: String::new(),
            proxy_sig: String::new(),
            account: String::new(),
            new_account: false,
        }
    }
}

/// The JSON of CONNECT is broken or has a value of the wrong type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadConnect;

impl Connect {
    /// Merges the JSON of a CONNECT over what is there.
    ///
    /// # Errors
    /// On an error nothing is changed.
    pub fn merge(&mut self, json: &[u8]) -> Result<(), BadConnect> {
        let value: Value = serde_json::from_slice(json).map_err(|_| BadConnect)?;
        let Value::Object(fields) = value else {
            return if value.is_null() { Ok(()) } else { Err(BadConnect) };
        };
        let mut next = self.clone();
        for (key, value) in fields {
            if value.is_null() {
                continue;
            }
            match key.to_ascii_lowercase().as_str() {
                "verbose" => next.verbose = boolean(&value)?,
                "pedantic" => next.pedantic = boolean(&value)?,
                "echo" => next.echo = boolean(&value)?,
                "protocol" => next.protocol = value.as_i64().ok_or(BadConnect)?,
                "headers" => next.headers = boolean(&value)?,
                "no_responders" => next.no_responders = boolean(&value)?,
                "tls_required" => drop(boolean(&value)?),
                "new_account" => next.new_account = boolean(&value)?,
                "name" => next.name = text(value)?,
                "lang" => next.lang = text(value)?,
                "version" => next.version = text(value)?,
                "user" => next.user = text(value)?,
                "pass" => next.pass = Secret::new(text(value)?),
                "auth_token" => next.auth_token = Secret::new(text(value)?),
                "nkey" => next.nkey = text(value)?,
                "sig" => next.sig = text(value)?,
                "proxy_sig" => next.proxy_sig = text(value)?,
                "account" => next.account = text(value)?,
                "jwt" => next.jwt = Secret::new(text(value)?),
                _ => {}
            }
        }
        *self = next;
        Ok(())
    }
}

fn boolean(value: &Value) -> Result<bool, BadConnect> {
    value.as_bool().ok_or(BadConnect)
}

fn text(value: Value) -> Result<String, BadConnect> {
    match value {
        Value::String(text) => Ok(text),
        _ => Err(BadConnect),
    }
}

/// What is special about one INFO line.
#[derive(Clone, Copy, Debug)]
pub struct InfoFor<'a> {
    /// The connection's id.
    pub client_id: u64,
    /// Its peer, without port; empty while it is unknown.
    pub client_ip: &'a str,
    /// The INFO that answers the first PING names the client's account, and says whether it
    /// is the system account.
    pub account: Option<(&'a str, bool)>,
    /// Header and payload of one message, in bytes.
    pub max_payload: usize,
    /// Does somebody have to sign in, and may that be told?
    pub auth_required: bool,
    /// What a key has to sign; empty: nothing.
    pub nonce: &'a str,
    /// Lame duck.
    pub ldm: bool,
    /// How it came in.
    pub door: Door,
}

/// Writes an INFO line for a client.
pub fn write_info(out: &mut Vec<u8>, options: &Options, to: InfoFor<'_>) {
    out.extend_from_slice(b"INFO {\"server_id\":");
    json_text(out, &options.server_id);
    out.extend_from_slice(b",\"server_name\":");
    json_text(out, &options.server_name);
    out.extend_from_slice(b",\"version\":\"");
    out.extend_from_slice(PROTOCOL_VERSION.as_bytes());
    out.extend_from_slice(b"\",\"proto\":1,\"go\":\"sedge ");
    out.extend_from_slice(env!("CARGO_PKG_VERSION").as_bytes());
    out.extend_from_slice(b"\",\"host\":");
    let (host, port, tls) = listener(options, to);
    json_text(out, host);
    out.extend_from_slice(b",\"port\":");
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(digits.format(port).as_bytes());
    out.extend_from_slice(if options.headers {
        b",\"headers\":true"
    } else {
        b",\"headers\":false"
    });
    if to.auth_required {
        out.extend_from_slice(b",\"auth_required\":true");
    }
    for (set, field) in [
        (tls.required, &b",\"tls_required\":true"[..]),
        (tls.verify, b",\"tls_verify\":true"),
        (tls.available, b",\"tls_available\":true"),
    ] {
        if set {
            out.extend_from_slice(field);
        }
    }
    out.extend_from_slice(b",\"max_payload\":");
    out.extend_from_slice(digits.format(to.max_payload).as_bytes());
    if options.jetstream {
        out.extend_from_slice(b",\"jetstream\":true");
    }
    out.extend_from_slice(b",\"client_id\":");
    out.extend_from_slice(digits.format(to.client_id).as_bytes());
    if !to.client_ip.is_empty() {
        out.extend_from_slice(b",\"client_ip\":");
        json_text(out, to.client_ip);
    }
    if !to.nonce.is_empty() {
        out.extend_from_slice(b",\"nonce\":");
        json_text(out, to.nonce);
    }
    if let Some(domain) = options.domain.as_deref().filter(|_| options.jetstream) {
        out.extend_from_slice(b",\"domain\":");
        json_text(out, domain);
    }
    if to.ldm {
        out.extend_from_slice(b",\"ldm\":true");
    }
    if let Some((name, system)) = to.account {
        out.extend_from_slice(b",\"connect_info\":true,\"remote_account\":");
        json_text(out, name);
        if system {
            out.extend_from_slice(b",\"acc_is_sys\":true");
        }
    }
    out.extend_from_slice(b",\"api_lvl\":");
    out.extend_from_slice(digits.format(API_LEVEL).as_bytes());
    out.extend_from_slice(b"} \r\n");
}

/// Host, port and TLS of the listener a client came to.
fn listener<'a>(options: &'a Options, to: InfoFor<'_>) -> (&'a str, u16, TlsOffer) {
    match (&options.web_socket, to.door) {
        (Some(listener), Door::WebSocket) => {
            let tls = TlsOffer { required: listener.tls, verify: false, available: listener.tls };
            (&listener.host, listener.port, tls)
        }
        // Who is told only inside TLS has no choice left.
        (_, Door::InfoLast) if to.account.is_none() => {
            let tls = TlsOffer { required: true, available: false, ..options.tls };
            (&options.host, options.port, tls)
        }
        _ => (&options.host, options.port, options.tls),
    }
}

/// Writes `text` as a JSON string.
pub fn json_text(out: &mut Vec<u8>, text: &str) {
    // A string always has a JSON form.
    out.extend_from_slice(&serde_json::to_vec(text).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_follows_the_json_rules_of_go() {
        let mut connect = Connect::default();
        connect.merge(br#"{"Verbose":false,"ECHO":null,"unknown":[1]}"#).unwrap();
        assert!(!connect.verbose && connect.echo && connect.pedantic);
        for bad in [&b"{"[..], b"[]", b"{} x", br#"{"verbose":1}"#, br#"{"name":5}"#] {
            assert_eq!(connect.merge(bad), Err(BadConnect), "{bad:?}");
        }
    }

    #[test]
    fn info_is_json_with_a_blank_before_its_end() {
        let mut out = Vec::new();
        let to = InfoFor {
            client_id: 5,
            client_ip: "127.0.0.1",
            account: Some(("$G", false)),
            max_payload: 1_048_576,
            auth_required: false,
            nonce: "abc",
            ldm: false,
            door: Door::Open,
        };
        write_info(&mut out, &Options::default(), to);
        let json = out.strip_prefix(b"INFO ").and_then(|rest| rest.strip_suffix(b" \r\n"));
        let info: Value = serde_json::from_slice(json.unwrap()).unwrap();
        assert_eq!(info["nonce"], "abc");
        assert_eq!(info["remote_account"], "$G");
        assert_eq!(info["max_payload"], 1_048_576);
    }
}
