//! From a configuration to a running server.
//!
//! Owns the order of a start: log, PID file, store, listener, then the lines harnesses wait
//! for. Whatever fails says what to change and ends the process with 1 before a client could
//! connect.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::Path;
use std::process::ExitCode;

use super::banner;
use super::cli::Start;
use super::entrances;
use super::files::{self, Ports};
use super::log::{Level, Log, LogOptions};
use super::monitoring;
use super::reload::Reloader;
use super::run::{Print, Server, StorePort};
use super::systemd::{self, Inherited, Manager};
use super::trust;
use super::users;
use crate::auth::Secret;
use crate::auth::account::{Account, Destination, GLOBAL, Mapping, SYSTEM};
use crate::auth::nkey::{KeyKind, Seed};
use crate::broker::options::{Logging, Options};
use crate::broker::{Broker, Level as NoticeLevel, Notice};
use crate::config::{
    Config, JetStreamConfig, LeafNodesConfig, RemoteConfig, Scheme, SyncInterval, WebSocketConfig,
    WriteTimeout,
};
use crate::id::Rng;
use crate::jetstream;
use crate::jetstream::storage::{StoreError, StoreReply, StoreRequest};
use crate::leaf::{LeafUrl, Login, RemoteOptions};
use crate::net::clock::Clock;
use crate::net::poller::Waker;
use crate::net::tls::TlsClient;
use crate::store::{Store, StoreOptions, StoreStats, SyncPolicy};
use crate::subject::Filter;
use crate::time::Now;

/// Runs the server until it is told to stop.
pub fn serve(start: &Start) -> ExitCode {
    let clock = Clock::new();
    let config = &start.loaded.config;
    let mut log = match Log::open(LogOptions::from(config)) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("sedge: {error}");
            return ExitCode::FAILURE;
        }
    };
    for warning in &start.loaded.warnings {
        log.warning(clock.now().wall, &warning.to_string());
    }
    match run(start, config, clock, log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let (mut log, text) = *failure;
            log.fatal(clock.now().wall, &text);
            ExitCode::FAILURE
        }
    }
}

/// The log as the event loop sees it.
#[derive(Debug)]
struct Printer(Log);

impl Print for Printer {
    fn print(&mut self, now: Now, notice: &Notice) {
        let level = match notice.level {
            NoticeLevel::Trace => Level::Trace,
            NoticeLevel::Debug => Level::Debug,
            NoticeLevel::Info => Level::Info,
            NoticeLevel::Warn => Level::Warning,
            NoticeLevel::Error => Level::Error,
        };
        self.0.write(now.wall, level, &notice.text);
    }

    fn reopen(&mut self, now: Now) {
        match self.0.reopen(now.wall) {
            Ok(()) => {}
            Err(error) => self.0.error(now.wall, &error),
        }
    }

    fn reconfigure(&mut self, now: Now, options: LogOptions) -> Result<(), String> {
        self.0.reconfigure(now.wall, options)
    }
}

type Failure = Box<(Log, String)>;

fn run(start: &Start, config: &Config, clock: Clock, mut log: Log) -> Result<(), Failure> {
    let (mut seed, mut secret) = ([0; 8], [0; 32]);
    for bytes in [&mut seed[..], &mut secret[..]] {
        // So few bytes come whole.
        if let Err(error) = rustix::rand::getrandom(bytes, rustix::rand::GetRandomFlags::empty()) {
            let text = format!("no random numbers to be had: {error}");
            return Err(Box::new((log, text)));
        }
    }
    let mut rng = Rng::new(u64::from_ne_bytes(seed));
    let server_id = server_id(&mut rng);
    let name = config.server_name.clone().unwrap_or_else(|| server_id.clone());
    let now = clock.now().wall;
    for line in banner::starting(&name, &server_id) {
        log.info(now, &line);
    }
    if let Some(file) = &start.file {
        log.info(now, &banner::configuration(file, &start.loaded.digest));
    }
    for advice in config.advice() {
        log.warning(now, &advice);
    }
    if let Err(error) = files::write_pid(config.pid_file.as_deref()) {
        return Err(Box::new((log, error)));
    }
    let manager = Manager::from_environment();
    let mut inherited = match Inherited::from_environment() {
        Ok(inherited) => inherited,
        Err(error) => return Err(Box::new((log, error))),
    };
    let listener = match inherited.take(systemd::CLIENTS).map_or_else(|| bind(config), Ok) {
        Ok(listener) => listener,
        Err(error) => return Err(Box::new((log, error))),
    };
    let port = listener.local_addr().map_or(0, |address| address.port());
    let mut ports = Ports::default();
    ports.set_clients(&config.host, port, config.tls.is_some());
    let pages = match monitoring::bind(config, inherited.take(systemd::MONITORING)) {
        Ok(pages) => pages,
        Err(error) => return Err(Box::new((log, error))),
    };
    if let Some(pages) = &pages {
        log.info(now, &pages.text);
        let host = config.monitor.host.as_deref().unwrap_or(&config.host);
        let scheme = if pages.https { "https" } else { "http" };
        ports.add("monitoring", scheme, host, pages.port);
    }
    let mut options = Options { secret, ..options(config, server_id.clone(), name.clone(), port) };
    if let Some(trust) = &mut options.trust
        && let Err(error) = trust::prepare(config, trust, now)
    {
        return Err(Box::new((log, error)));
    }
    let web = match bind_web(config, inherited.take(systemd::WEB_SOCKETS)) {
        Ok(web) => web,
        Err(error) => return Err(Box::new((log, error))),
    };
    if let Some(web) = &web {
        let scheme = if web.config.tls.is_some() && !web.config.no_tls { "wss" } else { "ws" };
        ports.add("websocket", scheme, &web.config.host, web.port);
    }
    options.web_socket = web.as_ref().map(|web| entrances::web_offer(web.config, web.port));
    let js = config.jetstream.as_ref().map(|js| jetstream_options(config, js, &name));
    if let (Some(js), Some(options)) = (&config.jetstream, &js) {
        let memory = options.max_memory.unwrap_or(u64::MAX);
        for line in banner::jetstream(js, memory, options.max_storage.unwrap_or(u64::MAX)) {
            log.info(now, &line);
        }
    }
    let mut tls = Vec::new();
    let mut remotes = Vec::new();
    for remote in config.leafnodes.remotes.iter().filter(|remote| !remote.disabled) {
        match remote_options(remote, &config.leafnodes) {
            Ok(options) => remotes.push(options),
            Err(error) => return Err(Box::new((log, format!("leafnodes.remotes: {error}")))),
        }
        match TlsClient::new(remote.tls.as_ref()) {
            Ok(client) => tls.push(client),
            Err(error) => return Err(Box::new((log, format!("leafnodes.remotes.tls: {error}")))),
        }
    }
    let entrances = entrances::client(config).and_then(|client| {
        let web = web.as_ref().map(|web| entrances::web(web.config, config.max_payload));
        Ok((client, web.transpose()?, entrances::pages(config)?))
    });
    let (client, web_entrance, pages_tls) = match entrances {
        Ok(entrances) => entrances,
        Err(error) => return Err(Box::new((log, error))),
    };
    let broker = Broker::new(options, js, rng.next_u64());
    let server = Server::new(broker, clock, Printer(log), tls, |waker| {
        config.jetstream.as_ref().map(|js| open_store(js, waker)).transpose()
    });
    let mut server = match server {
        Ok(server) => server,
        Err(error) => {
            let log = Log::open(LogOptions::from(config));
            return match log {
                Ok(log) => Err(Box::new((log, error.to_string()))),
                Err(_) => Ok(()),
            };
        }
    };
    server.set_reloader(Reloader::new(start, server_id, name, ports.clone()), manager);
    server.set_claims_directory(trust::directory(config));
    server.set_lame_duck(config.lame_duck_grace_period, config.lame_duck_duration);
    let settings = monitoring::settings(&start.loaded, port, now, now);
    server.set_entrance(client);
    server.set_web_entrance(web_entrance.unwrap_or_default());
    server.set_monitor(settings);
    let pages = pages.map_or(Ok(()), |pages| server.serve_pages(pages.listener, pages_tls));
    for remote in remotes {
        server.broker().add_remote(clock.now(), remote);
    }
    let result = pages
        .and_then(|()| server.recover())
        .and_then(|()| match web {
            None => Ok(()),
            Some(web) => {
                let tls = web.config.tls.is_some() && !web.config.no_tls;
                let text = banner::listening_web(tls, &web.config.host, web.port);
                server.notice(&Notice::info(text));
                server.listen_web(web.listener)
            }
        })
        .and_then(|()| server.listen(listener))
        .map(|()| {
            server.notice(&Notice::info(banner::listening(&config.host, port)));
            server.notice(&Notice::info(banner::READY));
            if let Err(error) = ports.write(config.ports_file_dir.as_deref()) {
                server.notice(&Notice::error(error));
            }
            server.ready();
        })
        .and_then(|()| server.run());
    let config = server.config().unwrap_or(config);
    files::remove(config.pid_file.as_deref());
    files::remove(config.ports_file_dir.as_deref().map(files::ports_path).as_deref());
    match result {
        Ok(()) => Ok(()),
        Err(error) => {
            server.notice(&Notice::error(format!("the server cannot go on: {error}")));
            Ok(())
        }
    }
}

impl StorePort for Store {
    fn submit(&mut self, request: StoreRequest) {
        Store::submit(self, request);
    }

    fn poll_reply(&mut self) -> Option<StoreReply> {
        Store::poll_reply(self)
    }

    fn stats(&self) -> StoreStats {
        Store::stats(self)
    }

    fn close(&mut self) -> Result<(), StoreError> {
        Store::close(self)
    }
}

fn open_store(js: &JetStreamConfig, waker: Waker) -> io::Result<Box<dyn StorePort>> {
    let sync = match js.sync_interval {
        SyncInterval::Always => SyncPolicy::Always,
        SyncInterval::Every(pace) => SyncPolicy::Every(pace),
    };
    let options = StoreOptions { sync, ..StoreOptions::default() };
    match Store::open(&js.directory(), options, move || waker.wake()) {
        Ok(store) => Ok(Box::new(store)),
        Err(error) => Err(io::Error::other(format!(
            "cannot open the store in {}: {error}",
            js.directory().display()
        ))),
    }
}

/// A server id in nats-server's form: 56 characters of base32 that begin with `N`.
fn server_id(rng: &mut Rng) -> String {
    let mut key = [0; 32];
    rng.fill(&mut key);
    let seed = Seed::from_bytes(KeyKind::Server, key);
    seed.public_key().map_or_else(|_| String::new(), |key| key.to_string())
}

/// The system account; empty: there is none, because nobody needs it and the file says so.
fn system_account(config: &Config) -> String {
    let needed = config.jetstream.is_some()
        || config.operators.is_on()
        || config.accounts.iter().any(|account| account.name == SYSTEM);
    match &config.system_account {
        None if config.no_system_account && !needed => String::new(),
        name => name.clone().unwrap_or_else(|| SYSTEM.into()),
    }
}

/// Where clients are told to come, for a server that listens on `port`.
pub(super) fn announced(config: &Config, port: u16) -> (String, u16) {
    let Some(text) = config.client_advertise.as_deref() else { return (config.host.clone(), port) };
    match text.rsplit_once(':').map(|(host, digits)| (host, digits.parse())) {
        Some((host, Ok(advertised))) => (host.to_owned(), advertised),
        Some((_, Err(_))) | None => (text.to_owned(), port),
    }
}

pub(super) fn options(
    config: &Config,
    server_id: String,
    server_name: String,
    port: u16,
) -> Options {
    let (host, port) = announced(config, port);
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    Options {
        server_id,
        server_name,
        host,
        port,
        max_payload: size(config.max_payload.into()),
        max_control_line: size(config.max_control_line.into()),
        max_pending: size(config.max_pending),
        max_connections: size(config.max_connections.into()),
        max_subscriptions: size(config.max_subscriptions.unwrap_or(0).into()),
        max_sub_tokens: usize::from(config.max_sub_tokens.unwrap_or(0)),
        ping_interval: config.ping_interval,
        ping_max: config.ping_max,
        write_deadline: config.write_deadline,
        headers: !config.no_header_support,
        tls: entrances::tls_offer(config),
        web_socket: None,
        proxy_protocol: config.proxy_protocol,
        jetstream: config.jetstream.is_some(),
        domain: config.jetstream.as_ref().and_then(|js| js.domain.clone()),
        accounts: accounts(config),
        system_account: system_account(config),
        sign_in: users::sign_in_options(config),
        trust: trust::options(config),
        by_token: config.operators.is_on(),
        // The other half is for everything else.
        password_checks: std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2),
        secret: [0; 32],
        max_closed_clients: size(config.max_closed_clients.into()),
        auth_timeout: config.auth_timeout,
        logging: Logging {
            debug: config.debug,
            trace: config.trace,
            trace_headers: config.trace_headers,
            max_traced_msg_len: size(config.max_traced_msg_len.unwrap_or(0)),
        },
        no_fast_producer_stall: config.no_fast_producer_stall,
        dial_reports: (config.connect_error_reports, config.reconnect_error_reports),
        write_retry: config.write_timeout == WriteTimeout::Retry,
    }
}

/// The accounts of the file, and `$G` with what the file says at its top level. Where an
/// account has a default domain, its `$JS.API.…` is the one of that domain.
fn accounts(config: &Config) -> Vec<Account> {
    let global = Account { mappings: config.mappings.clone(), ..Account::named(GLOBAL) };
    let mut all: Vec<Account> =
        std::iter::once(global).chain(config.accounts.iter().cloned()).collect();
    for (name, domain) in config.default_js_domain.iter().filter(|(_, domain)| !domain.is_empty()) {
        let subject = format!("$JS.{domain}.API.>");
        let destinations = vec![Destination { subject, weight: 100, cluster: None }];
        let mapping = Mapping { subject: "$JS.API.>".to_owned(), destinations };
        for account in all.iter_mut().filter(|account| account.name == *name) {
            account.mappings.push(mapping.clone());
        }
    }
    all
}

pub(super) fn remote_options(
    remote: &RemoteConfig,
    all: &LeafNodesConfig,
) -> Result<RemoteOptions, String> {
    let mut urls = Vec::new();
    let mut tls = remote.tls.is_some();
    for url in &remote.urls {
        tls |= url.scheme == Scheme::Tls;
        urls.push(LeafUrl {
            host: url.host.clone(),
            port: url.port,
            login: url.user.as_ref().map(|user| Login {
                user: Secret::new(user.as_str()),
                password: url.password.as_ref().map(|password| Secret::new(password.expose())),
            }),
        });
    }
    let filters = |list: &[String]| -> Result<Vec<Filter>, String> {
        list.iter()
            .map(|text| Filter::parse(text.as_bytes()).map_err(|error| format!("{text}: {error}")))
            .collect()
    };
    let nkey = match &remote.nkey {
        Some(seed) => {
            Some(seed.expose().parse::<Seed>().map_err(|error| format!("nkey: {error}"))?)
        }
        None => None,
    };
    Ok(RemoteOptions {
        urls,
        account: remote.account.clone(),
        credentials: remote.credentials.as_ref().map(|path| path.display().to_string()),
        nkey,
        tls,
        handshake_first: remote.tls.as_ref().is_some_and(|tls| tls.handshake_first),
        deny_imports: filters(&remote.deny_imports)?,
        deny_exports: filters(&remote.deny_exports)?,
        no_randomize: remote.no_randomize,
        ignore_discovered_servers: remote.ignore_discovered_servers,
        first_info_timeout: remote.first_info_timeout,
        dial_timeout: remote.dial_timeout,
        reconnect: all.reconnect,
        tls_timeout: remote.tls.as_ref().map_or(crate::limits::LEAF_TLS_TIMEOUT, |tls| tls.timeout),
        ..RemoteOptions::default()
    })
}

pub(super) fn jetstream_options(
    config: &Config,
    js: &JetStreamConfig,
    server_name: &str,
) -> jetstream::options::Options {
    let disk = js.max_file_store.or_else(|| free_disk(&js.directory()).map(|free| free / 4 * 3));
    let memory = js.max_memory_store.or_else(|| {
        let info = rustix::system::sysinfo();
        let unit = u64::from(info.mem_unit);
        // `totalram` is as wide as the machine's words.
        let words = u128::from(info.totalram);
        Some(u64::try_from(words).unwrap_or(u64::MAX).saturating_mul(unit) / 4 * 3)
    });
    jetstream::options::Options {
        domain: js.domain.clone(),
        store_dir: js.directory().display().to_string(),
        max_memory: memory,
        max_storage: disk,
        strict: js.strict,
        relaxed: js.sync_interval != SyncInterval::Always,
        server_name: server_name.to_owned(),
        max_payload: u64::from(config.max_payload),
        limits: jetstream::options::Limits {
            max_ack_pending: js.limits.max_ack_pending.map(i64::from),
            max_request_batch: js.limits.max_request_batch.map(i64::from),
            duplicate_window: js.limits.duplicate_window,
            batch: batch_limits(&js.limits.batch),
        },
        ..jetstream::options::Options::default()
    }
}

fn batch_limits(config: &crate::config::BatchLimits) -> jetstream::options::BatchLimits {
    let default = jetstream::options::BatchLimits::default();
    jetstream::options::BatchLimits {
        max_per_stream: config.max_inflight_per_stream.unwrap_or(default.max_per_stream),
        max_total: config.max_inflight_total.unwrap_or(default.max_total),
        max_msgs: config.max_msgs.unwrap_or(default.max_msgs),
        timeout: config.timeout.unwrap_or(default.timeout),
    }
}

/// Free bytes of the file system that `directory` is on, or will be.
fn free_disk(directory: &Path) -> Option<u64> {
    let existing = directory.ancestors().find(|path| path.exists())?;
    let stat = rustix::fs::statvfs(existing).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The WebSocket listener.
struct Web<'a> {
    config: &'a WebSocketConfig,
    listener: TcpListener,
    port: u16,
}

fn bind_web(config: &Config, inherited: Option<TcpListener>) -> Result<Option<Web<'_>>, String> {
    let Some(config) = &config.websocket else { return Ok(None) };
    let listener = inherited.map_or_else(|| bind_at(&config.host, config.port), Ok)?;
    let port = listener.local_addr().map_or(0, |address| address.port());
    Ok(Some(Web { config, listener, port }))
}

fn bind(config: &Config) -> Result<TcpListener, String> {
    bind_at(&config.host, config.port)
}

fn bind_at(name: &str, port: i32) -> Result<TcpListener, String> {
    let port = u16::try_from(port.max(0)).unwrap_or(0);
    let host = name.trim_start_matches('[').trim_end_matches(']');
    let addresses: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map_err(|error| format!("cannot listen on {name}:{port}: {error}"))?
        .collect();
    TcpListener::bind(&addresses[..]).map_err(|error| {
        format!(
            "Error listening on port: {name}:{port}, {error}; is another server running there? \
             Change listen, or port and host"
        )
    })
}
