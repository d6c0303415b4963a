//! What a broker is told once, at its start.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::auth::account::{self, Account};
use crate::auth::sign_in::SignInOptions;
use crate::auth::trust::TrustOptions;
use crate::limits;
use crate::time::Duration;

/// Settings of the broker; the shell makes them from the configuration. Names and defaults
/// are nats-server's.
#[derive(Clone, Debug)]
pub struct Options {
    /// `server_id` in INFO: a server nkey, new on each start.
    pub server_id: String,
    /// `server_name`; the id unless set.
    pub server_name: String,
    /// `host` and `port` in INFO: what is listened on, or `client_advertise`.
    pub host: String,
    /// See [`Options::host`].
    pub port: u16,
    /// Header and payload of one message, in bytes.
    pub max_payload: usize,
    /// Argument text of one operation, in bytes.
    pub max_control_line: usize,
    /// Bytes waiting for one connection.
    pub max_pending: usize,
    /// Clients at once.
    pub max_connections: usize,
    /// Subscriptions of one connection; 0: no limit.
    pub max_subscriptions: usize,
    /// Tokens of one subscription's subject; 0: no limit.
    pub max_sub_tokens: usize,
    /// Between PINGs.
    pub ping_interval: Duration,
    /// PINGs without PONG before a connection is stale.
    pub ping_max: u32,
    /// How long a connection may take none of our bytes.
    pub write_deadline: Duration,
    /// Are headers offered?
    pub headers: bool,
    /// TLS on the client port, as INFO tells it.
    pub tls: TlsOffer,
    /// The WebSocket listener, as INFO tells it.
    pub web_socket: Option<WebSocketOffer>,
    /// A PROXY header says who a client is, so that INFO cannot.
    pub proxy_protocol: bool,
    /// Is JetStream on?
    pub jetstream: bool,
    /// JetStream domain.
    pub domain: Option<String>,
    /// The accounts. `$G` and the system account are there also when they are not listed.
    pub accounts: Vec<Account>,
    /// The name of the system account; empty: there is none, and none of its services.
    pub system_account: String,
    /// Who may sign in.
    pub sign_in: SignInOptions,
    /// Whom it trusts, where users sign in by tokens; the accounts are theirs then.
    pub trust: Option<Box<TrustOptions>>,
    /// Do users sign in by tokens?
    pub by_token: bool,
    /// Passwords compared with a hash at the same time.
    pub password_checks: usize,
    /// Random bytes nobody else knows: what nonces come from.
    pub secret: [u8; 32],
    /// Closed connections that are remembered, at most.
    pub max_closed_clients: usize,
    /// From accept to CONNECT where somebody has to authenticate.
    pub auth_timeout: Duration,
    /// Which lines about connections are wanted.
    pub logging: Logging,
    /// Publishers are not held back for slow receivers.
    pub no_fast_producer_stall: bool,
    /// Of the attempts to reach a hub that fail, the first and every so many are told: before
    /// it was ever reached, and afterwards.
    pub dial_reports: (u32, u32),
    /// A client that takes nothing for `write_deadline` is given another one.
    pub write_retry: bool,
}

/// Which lines about connections are wanted, beyond mistakes. All are off by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Logging {
    /// `[DBG]`: connections come and go.
    pub debug: bool,
    /// `[TRC]`: each operation.
    pub trace: bool,
    /// Of a message only its headers.
    pub trace_headers: bool,
    /// Bytes shown of a message; 0: all.
    pub max_traced_msg_len: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            server_id: String::new(),
            server_name: String::new(),
            host: String::from("0.0.0.0"),
            port: 4222,
            max_payload: limits::PAYLOAD_BYTES_MAX,
            max_control_line: limits::CONTROL_LINE_BYTES_MAX,
            max_pending: limits::PENDING_BYTES_MAX,
            max_connections: limits::CONNECTIONS_MAX,
            max_subscriptions: 0,
            max_sub_tokens: 0,
            ping_interval: limits::PING_INTERVAL,
            ping_max: limits::PINGS_OUT_MAX,
            write_deadline: limits::WRITE_DEADLINE,
            headers: true,
            tls: TlsOffer::default(),
            web_socket: None,
            proxy_protocol: false,
            jetstream: false,
            domain: None,
            accounts: Vec::new(),
            system_account: account::SYSTEM.into(),
            sign_in: SignInOptions::default(),
            trust: None,
            by_token: false,
            password_checks: 1,
            secret: [0; 32],
            max_closed_clients: limits::CLOSED_CLIENTS_MAX,
            auth_timeout: Duration::from_secs(2),
            logging: Logging::default(),
            no_fast_producer_stall: false,
            dial_reports: (3600, 1),
            write_retry: false,
        }
    }
}

impl Options {
    /// Between PINGs to a client, which is a WebSocket or not.
    pub fn ping_interval_of(&self, is_web: bool) -> Duration {
        let web = self.web_socket.as_ref().filter(|_| is_web);
        web.and_then(|web| web.ping_interval).unwrap_or(self.ping_interval)
    }
}

/// TLS of a listener, as INFO tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsOffer {
    /// `tls_required`.
    pub required: bool,
    /// `tls_verify`: a client must show a certificate.
    pub verify: bool,
    /// `tls_available`: with TLS or without it.
    pub available: bool,
}

/// The WebSocket listener, as INFO tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebSocketOffer {
    /// `host`.
    pub host: String,
    /// `port`.
    pub port: u16,
    /// Under TLS?
    pub tls: bool,
    /// Between PINGs there, if not as elsewhere.
    pub ping_interval: Option<Duration>,
    /// For CONNECT there, if not as elsewhere.
    pub auth_timeout: Option<Duration>,
}
