//! Configuration: text in nats-server's language to a valid [`Config`].
//!
//! Owns every option with its default, the language (`lexer`, `parser`), the keys
//! (`keys`), their meaning (`read` and a file for each large block) and the wording of mistakes (`mistake`). Does not own
//! applying them, nor the command line, which overrides fields of a finished `Config`.
//!
//! # Invariants
//! - [`Config::load`] returns a `Config` whose fields agree with each other, or every
//!   mistake found, each with file, line and column; never both.
//! - Secrets live in [`Secret`], which prints nothing.
//! - No text, however hostile, panics, hangs or takes more memory than a fixed multiple of
//!   the bounds in `lexer` and `parser`.
//!
//! Where Sedge is stricter than nats-server on purpose: a mistake is reported even when
//! nats-server would notice it only after start (`max_payload` over `max_pending`, a
//! creds file that is not there), and text that nats-server drops silently is a mistake.
//!
//! Source: the nats-server configuration documentation, checked against nats-server 2.15.

mod accounts;
mod exports;
mod jetstream;
mod keys;
mod lexer;
mod mappings;
mod mistake;
mod operators;
mod parser;
mod permissions;
mod read;
pub mod reload;
mod remotes;
#[cfg(test)]
mod tests;
mod tls;
mod units;
mod users;
mod values;
mod websocket;

pub use crate::auth::Secret;
pub use lexer::{FILE_BYTES_MAX, KEY_BYTES_MAX};
pub(crate) use mistake::nearest;
pub use mistake::{MISTAKES_MAX, Mistake, Mistakes, Place};
pub use operators::{OperatorsConfig, ResolverConfig};
pub use parser::{FILES_MAX, INCLUDE_DEPTH_MAX, NESTING_MAX, Surroundings, VALUES_MAX};
pub use tls::{CertificateFiles, CipherSuite, Curve, HandshakeFirst, TlsServerConfig};
pub use units::{LEAF_PORT, size};
pub use websocket::WebSocketConfig;

use crate::auth::account::{Account, Mapping};
use crate::auth::permissions::Permissions;
use crate::auth::user::{Login, User};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// Everything an operator can choose. `Config::default()` is what a start without a file
/// and without flags uses.
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own in the file")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Name in INFO and in the log; `None` means the server id.
    pub server_name: Option<String>,
    /// Address to listen on. Default `0.0.0.0`.
    pub host: String,
    /// Port for clients; -1 lets the system choose. Default 4222.
    pub port: i32,
    /// `host[:port]` that INFO tells clients to use, when the listening address is not
    /// what they can reach.
    pub client_advertise: Option<String>,
    /// Do not speak headers (`INFO` says `headers:false`). Default false.
    pub no_header_support: bool,

    /// A PROXY header stands in front of each connection. Default false.
    pub proxy_protocol: bool,
    /// `feature_flags`, which are only shown.
    pub feature_flags: Vec<(String, bool)>,
    /// Public keys of proxies that may vouch for users.
    pub trusted_proxies: Vec<String>,
    /// Shown in monitoring; lower case.
    pub server_tags: Vec<String>,
    /// Shown in monitoring, in the order written.
    pub server_metadata: Vec<(String, String)>,
    /// TLS of the client port; also the certificate of `https`.
    pub tls: Option<TlsServerConfig>,
    /// With `tls`: clients may go on without it. Default false.
    pub allow_non_tls: bool,
    /// The WebSocket listener.
    pub websocket: Option<WebSocketConfig>,
    /// The monitoring pages.
    pub monitor: MonitorConfig,

    /// Clients at a time; 0 refuses all. Default 65,536.
    pub max_connections: u32,
    /// Subscriptions of one connection; `None` is without limit, the default.
    pub max_subscriptions: Option<u32>,
    /// Tokens of a subject one may subscribe to; `None` is without limit, the default.
    pub max_sub_tokens: Option<u8>,
    /// Compare subscriptions with what is allowed as nats-server does: an allowed `foo.*`
    /// lets `foo.>` in. Default false.
    pub lax_permissions: bool,
    /// Longest control line in bytes. Default 4,096.
    pub max_control_line: u32,
    /// Largest message in bytes, headers and payload together. Default 1 MiB. The file's
    /// -1 ("no limit" in nats-server) is as much as `max_pending` can hold.
    pub max_payload: u32,
    /// Bytes that may wait for one connection before it is a slow consumer. Default 64 MiB.
    pub max_pending: u64,
    /// Time between PINGs to an idle connection. Default 2 minutes.
    pub ping_interval: Duration,
    /// PINGs without a PONG before a connection is stale. Default 2.
    pub ping_max: u32,
    /// How long a write to a client may make no progress. Default 10 s.
    pub write_deadline: Duration,
    /// What a missed `write_deadline` does. Default: close.
    pub write_timeout: WriteTimeout,
    /// Time over which lame duck mode closes clients. Default 2 minutes, at least 30 s.
    pub lame_duck_duration: Duration,
    /// Time before lame duck mode begins to close. Default 10 s, below the duration.
    pub lame_duck_grace_period: Duration,
    /// Never slow down a fast producer of a slow consumer. Default false.
    pub no_fast_producer_stall: bool,

    /// Closed connections that monitoring remembers. Default 10,000.
    pub max_closed_clients: u32,
    /// Of failed attempts to reach a remote for the first time the first is logged, then
    /// every one that this divides. Default 3,600.
    pub connect_error_reports: u32,
    /// The same for attempts to reach it again. Default 1.
    pub reconnect_error_reports: u32,

    /// Log `[DBG]` lines. Default false.
    pub debug: bool,
    /// Log `[TRC]` lines: every protocol operation. Default false.
    pub trace: bool,
    /// Trace the system account too; implies `trace`. Default false.
    pub trace_verbose: bool,
    /// Trace only the headers of messages; implies `trace`. Default false.
    pub trace_headers: bool,
    /// Bytes of a message that are traced; `None` is all.
    pub max_traced_msg_len: Option<u64>,
    /// Put the time in front of a log line. Default true.
    pub logtime: bool,
    /// In UTC rather than local time. Default false.
    pub logtime_utc: bool,
    /// Log to this file instead of stderr.
    pub log_file: Option<PathBuf>,
    /// Bytes of `log_file` at which a new one is begun; `None` is never.
    pub log_size_limit: Option<u64>,
    /// Log files that are kept, this one counted; `None` is all.
    pub log_max_num: Option<u64>,
    /// Log to the system's log. Default false.
    pub syslog: bool,
    /// Log to the system log of another machine, `udp://host:port`.
    pub remote_syslog: Option<String>,
    /// Write the process id here.
    pub pid_file: Option<PathBuf>,
    /// Write `<exe>_<pid>.ports`, a JSON list of the bound addresses, into this directory.
    pub ports_file_dir: Option<PathBuf>,

    /// Who may connect. Default: everybody.
    pub authorization: Authorization,
    /// How long a client may take to authenticate. Default 2 s.
    pub auth_timeout: Duration,
    /// `authorization { proxy_required }`: only through a trusted proxy. Default false.
    pub proxy_required: bool,
    /// Users of all accounts, those of `authorization` in `$G`. Each has its permissions,
    /// the defaults of its list if it has none of its own. No name and no nkey stands for
    /// two of them; empty where `authorization` is not [`Authorization::None`].
    pub users: Vec<User>,
    /// `authorization { default_permissions }`: what a user of `$G` may do that has no
    /// permissions of its own; `users` has them already.
    pub default_permissions: Option<Rc<Permissions>>,
    /// Who is whoever logs in without a name: a user or an nkey of `users`.
    pub no_auth_user: Option<String>,
    /// The accounts of the file, without `$G`; the system account only if it is written
    /// there. What an import names is there and allows it.
    pub accounts: Vec<Account>,
    /// The account of `$SYS` services and events, one of `accounts` or `$G`; `None` is
    /// [`crate::auth::account::SYSTEM`].
    pub system_account: Option<String>,
    /// Have no system account. Default false.
    pub no_system_account: bool,
    /// Where messages of `$G` on a subject go instead, in the order written.
    pub mappings: Vec<Mapping>,

    /// Users that sign in by tokens.
    pub operators: OperatorsConfig,

    /// The top-level `store_dir`: where streams go if only the command line switches
    /// `JetStream` on. When `jetstream` is there, its own `store_dir` holds.
    pub store_dir: Option<PathBuf>,
    /// The domain that `$JS.API` of an account without `JetStream` means, in the order
    /// written.
    pub default_js_domain: Vec<(String, String)>,
    /// Streams; `None` switches them off, the default.
    pub jetstream: Option<JetStreamConfig>,
    /// Uplinks.
    pub leafnodes: LeafNodesConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server_name: None,
            host: "0.0.0.0".to_owned(),
            port: 4222,
            client_advertise: None,
            no_header_support: false,
            proxy_protocol: false,
            feature_flags: Vec::new(),
            trusted_proxies: Vec::new(),
            server_tags: Vec::new(),
            server_metadata: Vec::new(),
            tls: None,
            allow_non_tls: false,
            websocket: None,
            monitor: MonitorConfig::default(),
            max_connections: 65_536,
            max_subscriptions: None,
            max_sub_tokens: None,
            lax_permissions: false,
            max_control_line: 4096,
            max_payload: 1024 * 1024,
            max_pending: 64 * 1024 * 1024,
            ping_interval: Duration::from_mins(2),
            ping_max: 2,
            write_deadline: Duration::from_secs(10),
            write_timeout: WriteTimeout::Default,
            lame_duck_duration: Duration::from_mins(2),
            lame_duck_grace_period: Duration::from_secs(10),
            no_fast_producer_stall: false,
            max_closed_clients: 10_000,
            connect_error_reports: 3600,
            reconnect_error_reports: 1,
            debug: false,
            trace: false,
            trace_verbose: false,
            trace_headers: false,
            max_traced_msg_len: None,
            logtime: true,
            logtime_utc: false,
            log_file: None,
            log_size_limit: None,
            log_max_num: None,
            syslog: false,
            remote_syslog: None,
            pid_file: None,
            ports_file_dir: None,
            authorization: Authorization::None,
            auth_timeout: Duration::from_secs(2),
            proxy_required: false,
            users: Vec::new(),
            default_permissions: None,
            no_auth_user: None,
            accounts: Vec::new(),
            system_account: None,
            no_system_account: false,
            mappings: Vec::new(),
            operators: OperatorsConfig::default(),
            store_dir: None,
            default_js_domain: Vec::new(),
            jetstream: None,
            leafnodes: LeafNodesConfig::default(),
        }
    }
}

/// The monitoring pages: `http`, `https` and their ports. At most one of the two is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorConfig {
    /// Address to listen on. Default that for clients.
    pub host: Option<String>,
    /// Port for HTTP; -1 lets the system choose. `None` is off, the default.
    pub http_port: Option<i32>,
    /// Port for HTTPS with the certificate of `tls`; -1 lets the system choose. `None` is
    /// off, the default.
    pub https_port: Option<i32>,
    /// In front of the path of every page. Default `/`.
    pub base_path: String,
}

impl Default for MonitorConfig {
    fn default() -> Self {
        Self { host: None, http_port: None, https_port: None, base_path: "/".to_owned() }
    }
}

impl MonitorConfig {
    /// What one of the four keys says; an empty host and port 0 say nothing.
    fn listen(&mut self, host: String, http: Option<i32>, https: Option<i32>) {
        if !host.is_empty() {
            self.host = Some(host);
        }
        self.http_port = http.filter(|port| *port != 0).or(self.http_port);
        self.https_port = https.filter(|port| *port != 0).or(self.https_port);
    }
}

/// What happens to a connection that misses `write_deadline`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteTimeout {
    /// Close a client, retry on a link.
    #[default]
    Default,
    /// Close.
    Close,
    /// Write again.
    Retry,
}

/// Who may connect as a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Authorization {
    /// Everybody.
    #[default]
    None,
    /// One user.
    User {
        /// The `user` of CONNECT.
        user: String,
        /// The `pass` of CONNECT; empty when the file names none.
        password: Secret,
    },
    /// Whoever sends this `auth_token`.
    Token(Secret),
}

/// `jetstream { }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JetStreamConfig {
    /// Directory of the store; data goes into its subdirectory `jetstream`. Default
    /// `nats/jetstream` in the directory for temporary files, as in nats-server.
    pub store_dir: PathBuf,
    /// Bytes for streams in memory; `None` is a share of the machine's, the default.
    pub max_memory_store: Option<u64>,
    /// Bytes for streams on disk; `None` is a share of the free disk, the default.
    pub max_file_store: Option<u64>,
    /// `JetStream` domain, one token: the `$JS.<domain>.API` under which a hub finds us.
    pub domain: Option<String>,
    /// When an ack may leave. Default [`SyncInterval::Always`]; nats-server's is 2 minutes.
    pub sync_interval: SyncInterval,
    /// Refuse unknown fields in API requests. Default true.
    pub strict: bool,
    /// Bounds for what clients may ask of streams and consumers.
    pub limits: JetStreamLimits,
}

impl Default for JetStreamConfig {
    fn default() -> Self {
        Self {
            store_dir: std::env::temp_dir().join("nats").join("jetstream"),
            max_memory_store: None,
            max_file_store: None,
            domain: None,
            sync_interval: SyncInterval::Always,
            strict: true,
            limits: JetStreamLimits::default(),
        }
    }
}

impl JetStreamConfig {
    /// Where the data is: `<store_dir>/jetstream`.
    pub fn directory(&self) -> PathBuf {
        self.store_dir.join("jetstream")
    }
}

/// When stored messages are made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncInterval {
    /// Before the ack: an acked message survives a power cut.
    Always,
    /// At this pace: a power cut loses at most that much of what was acked.
    Every(Duration),
}

/// `jetstream { limits { } }`. `None` is without limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JetStreamLimits {
    /// Longest duplicate window a stream may have.
    pub duplicate_window: Option<Duration>,
    /// Largest max ack pending a consumer may have.
    pub max_ack_pending: Option<u32>,
    /// Largest batch of a pull request.
    pub max_request_batch: Option<u32>,
    /// Atomic batches.
    pub batch: BatchLimits,
}

/// `jetstream { limits { batch { } } }`. `None` is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchLimits {
    /// Atomic batches of one stream at a time. Default 50.
    pub max_inflight_per_stream: Option<u64>,
    /// Atomic batches at a time. Default 1,000.
    pub max_inflight_total: Option<u64>,
    /// Messages of one. Default 1,000.
    pub max_msgs: Option<u64>,
    /// One nobody goes on with is given up after this. Default 10 s.
    pub timeout: Option<Duration>,
}

/// `leafnodes { }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafNodesConfig {
    /// Time between attempts to reach a remote. Default 1 s.
    pub reconnect: Duration,
    /// How long one attempt may take; a remote may have its own. Default 1 s.
    pub dial_timeout: Duration,
    /// The hubs to dial.
    pub remotes: Vec<RemoteConfig>,
}

impl Default for LeafNodesConfig {
    fn default() -> Self {
        Self {
            reconnect: Duration::from_secs(1),
            dial_timeout: Duration::from_secs(1),
            remotes: Vec::new(),
        }
    }
}

/// One uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteConfig {
    /// Servers to try, at least one.
    pub urls: Vec<RemoteUrl>,
    /// Local account the link belongs to. Default `$G`.
    pub account: String,
    /// File with the user's JWT and seed. Excludes `nkey`.
    pub credentials: Option<PathBuf>,
    /// Seed of a user nkey. Excludes `credentials`.
    pub nkey: Option<Secret>,
    /// TLS options; TLS is used when they are given, when the URL says `tls://` or when
    /// the hub asks for it.
    pub tls: Option<TlsClientConfig>,
    /// Subjects that must not come in over the link.
    pub deny_imports: Vec<String>,
    /// Subjects that must not go out over the link.
    pub deny_exports: Vec<String>,
    /// Try the URLs in the order written. Default false.
    pub no_randomize: bool,
    /// How long the hub may take to send its INFO. Default 1 s.
    pub first_info_timeout: Duration,
    /// How long one attempt may take. Default that of `leafnodes`.
    pub dial_timeout: Duration,
    /// Dial the URLs of the file only, not those a hub announces. Default false.
    pub ignore_discovered_servers: bool,
    /// Keep the entry but do not dial. Default false.
    pub disabled: bool,
    /// Compression to offer. Default that of `leafnodes`.
    pub compression: Compression,
}

impl Default for RemoteConfig {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            account: "$G".to_owned(),
            credentials: None,
            nkey: None,
            tls: None,
            deny_imports: Vec::new(),
            deny_exports: Vec::new(),
            no_randomize: false,
            first_info_timeout: Duration::from_secs(1),
            dial_timeout: Duration::from_secs(1),
            ignore_discovered_servers: false,
            disabled: false,
            compression: Compression::default(),
        }
    }
}

/// Scheme of a remote's URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `nats-leaf://`, `nats://`: TLS if the hub asks for it.
    Nats,
    /// `tls://`: TLS or nothing.
    Tls,
}

/// Address of a hub, with the user it is to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteUrl {
    /// Plain or TLS.
    pub scheme: Scheme,
    /// Name or address, IPv6 without its brackets.
    pub host: String,
    /// Default [`LEAF_PORT`].
    pub port: u16,
    /// User of the URL, its escapes undone.
    pub user: Option<String>,
    /// Password of the URL, its escapes undone.
    pub password: Option<Secret>,
}

/// `tls { }` of a remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsClientConfig {
    /// Our certificate, PEM; together with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// Its key, PEM.
    pub key_file: Option<PathBuf>,
    /// Authorities to trust instead of the built-in ones, PEM.
    pub ca_file: Option<PathBuf>,
    /// Do not verify the hub. Default false.
    pub insecure: bool,
    /// TLS before the hub's INFO. Default false.
    pub handshake_first: bool,
    /// How long the handshake may take. Default 2 s.
    pub timeout: Duration,
    /// Accept TLS 1.3 only. Default false.
    pub tls13_only: bool,
}

impl Default for TlsClientConfig {
    fn default() -> Self {
        Self {
            cert_file: None,
            key_file: None,
            ca_file: None,
            insecure: false,
            handshake_first: false,
            timeout: Duration::from_secs(2),
            tls13_only: false,
        }
    }
}

/// Compression of a leaf link, as nats-server names it. Links run without it so far,
/// whatever is chosen: both ends agree on that in their handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// None.
    Off,
    /// If the other side asks for it.
    Accept,
    /// S2 at the level the round trip time suggests.
    #[default]
    S2Auto,
    /// S2, framing only.
    S2Uncompressed,
    /// S2, fastest.
    S2Fast,
    /// S2, denser.
    S2Better,
    /// S2, densest.
    S2Best,
}

/// A configuration that was read.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The options.
    pub config: Config,
    /// What works but should be written differently. A start logs them, `-t` fails.
    pub warnings: Vec<Mistake>,
    /// `sha256:` and the hash of what the file says, whatever its formatting; the same as
    /// nats-server's.
    pub digest: String,
}

impl Config {
    /// Reads the file at `path` and what it includes.
    ///
    /// # Errors
    /// All mistakes, in the order of the text.
    pub fn load(path: &Path, surroundings: &dyn Surroundings) -> Result<Loaded, Mistakes> {
        read::load(path, surroundings)
    }

    /// What an operator should know about a valid configuration, one line each: the log
    /// shows them at start.
    pub fn advice(&self) -> Vec<String> {
        let mut advice = Vec::new();
        if self.max_payload > 8 * 1024 * 1024 {
            advice.push(format!(
                "Maximum payloads over 8388608 bytes are generally discouraged and could lead \
                 to poor performance (max_payload is {})",
                self.max_payload
            ));
        }
        if self.has_plain_password() {
            advice.push("Plaintext passwords detected, use nkeys or bcrypt".to_owned());
        }
        if let Some(jetstream) = &self.jetstream
            && jetstream.store_dir.starts_with(std::env::temp_dir())
        {
            advice.push(
                "Temporary storage directory used, data could be lost on system reboot".to_owned(),
            );
        }
        for remote in &self.leafnodes.remotes {
            if remote.tls.as_ref().is_some_and(|tls| tls.insecure) {
                advice.push(
                    "TLS of a leaf remote is insecure: the hub's certificate is not verified"
                        .to_owned(),
                );
            }
        }
        advice
    }

    /// nats-server warns of these, also of a user without any password.
    fn has_plain_password(&self) -> bool {
        let single = match &self.authorization {
            Authorization::User { password, .. } => {
                !password.expose().is_empty() && !is_bcrypt(password)
            }
            Authorization::None | Authorization::Token(_) => false,
        };
        single
            || self.users.iter().any(|user| match &user.login {
                Login::Password { password, .. } => {
                    password.as_ref().is_none_or(|password| !is_bcrypt(password))
                }
                Login::Nkey(_) => false,
            })
    }
}

/// Is this a bcrypt hash rather than a password?
fn is_bcrypt(password: &Secret) -> bool {
    ["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|prefix| password.expose().starts_with(prefix))
}

/// The machine's own files and environment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Machine;

impl Surroundings for Machine {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let bound = FILE_BYTES_MAX as u64 + 1;
        File::open(path)
            .and_then(|file| file.take(bound).read_to_end(&mut bytes))
            .map_err(|error| reason(&error))?;
        Ok(bytes)
    }

    fn variable(&self, name: &str) -> Option<String> {
        // A name with `=` or NUL would be refused with a panic by some platforms.
        if name.is_empty() || name.contains(['=', '\0']) {
            return None;
        }
        std::env::var(name).ok()
    }
}

/// An I/O error in the words of the system, without Rust's `(os error 2)`.
fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}
