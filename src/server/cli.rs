//! The command line, in nats-server's flags.
//!
//! Owns flags, help, `-t`, `-v` and `--signal`. Does not own what a running server does
//! with a [`Start`]. Flags are Go's: one dash or two, `-x v` or `-x=v`, a boolean is
//! switched off by `-x=false` only; no usual argument parser of Rust reads `-port 4222`.
//!
//! # Invariants
//! - A flag wins over the file, also after a reload: [`Start::load`] is the one way to a
//!   configuration.
//! - All mistakes of the command line and the file are reported together.
//!
//! Where Sedge differs on purpose: an unknown flag exits with 1, not with 0, so that a
//! service manager sees the failure.
//!
//! Source: `nats-server --help` and the exit codes of nats-server 2.15.

use super::{entrances, tools};
use crate::config::{
    Authorization, CertificateFiles, Config, JetStreamConfig, Loaded, Mistake, Mistakes, Place,
    Secret, Surroundings,
};
use crate::net::clock::Clock;
use crate::sorted;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

/// Longest message about one argument; what the user typed is cut.
const ARGUMENT_CHARS_SHOWN: usize = 80;

/// What the arguments ask for.
#[derive(Debug)]
pub enum Command {
    /// Run the server.
    Serve(Box<Start>),
    /// Print and leave.
    Exit {
        /// Exit code of the process.
        code: u8,
        /// For standard output, its last new line included.
        stdout: String,
        /// For standard error, its last new line included.
        stderr: String,
    },
}

/// A server to start: its configuration, and what made it.
#[derive(Clone, Debug)]
pub struct Start {
    /// The file and the flags together.
    pub loaded: Loaded,
    /// The file of `-c`.
    pub file: Option<PathBuf>,
    flags: Flags,
}

impl Start {
    /// Reads the file again and puts the flags over it, for a reload.
    ///
    /// # Errors
    /// All mistakes; `self` is unchanged.
    pub fn load(&self, surroundings: &dyn Surroundings) -> Result<Loaded, Mistakes> {
        load(self.file.as_deref(), &self.flags, surroundings)
    }
}

/// Reads the arguments (without the program's name) and does what ends at once: help,
/// version, `-t`, `--signal`, and the tools for keys and tokens.
pub fn command(arguments: Vec<OsString>, surroundings: &dyn Surroundings) -> Command {
    let wall = Clock::new().now().wall;
    match tools::command(&arguments, surroundings, wall) {
        Some(Ok(text)) => return print(&text),
        Some(Err(text)) => return fail(&text),
        None => {}
    }
    let flags = match Flags::parse(arguments) {
        Ok(flags) => flags,
        Err(mistakes) => return fail(&mistakes.join("\n")),
    };
    match &flags.action {
        Action::Help => return print(HELP),
        Action::HelpTls => return print(HELP_TLS),
        Action::Version => return print(&format!("sedge: v{}\n", env!("CARGO_PKG_VERSION"))),
        Action::Signal(request) => {
            return match signal(request, Path::new("/proc")) {
                Ok(()) => print(""),
                Err(what) => fail(&format!("sedge: {what}")),
            };
        }
        Action::Test if flags.config.is_none() => {
            return fail(
                "sedge: must specify [-c, --config] option to check configuration file \
                         syntax",
            );
        }
        Action::Test | Action::Serve => {}
    }
    let loaded = match load(flags.config.as_deref(), &flags, surroundings) {
        Ok(loaded) => loaded,
        Err(mistakes) => return fail(&prefixed(&mistakes.0)),
    };
    if let (Action::Test, Some(file)) = (&flags.action, &flags.config) {
        if !loaded.warnings.is_empty() {
            return fail(&prefixed(&loaded.warnings));
        }
        // A key that does not fit its certificate would stop the start.
        if let Err(error) = entrances::check(&loaded.config) {
            return fail(&format!("sedge: {error}"));
        }
        let digest = &loaded.digest;
        return Command::Exit {
            code: 0,
            stdout: String::new(),
            stderr: format!("sedge: configuration file {} is valid ({digest})\n", file.display()),
        };
    }
    Command::Serve(Box::new(Start { loaded, file: flags.config.clone(), flags }))
}

fn print(text: &str) -> Command {
    Command::Exit { code: 0, stdout: text.to_owned(), stderr: String::new() }
}

fn fail(text: &str) -> Command {
    Command::Exit { code: 1, stdout: String::new(), stderr: format!("{text}\n") }
}

fn prefixed(mistakes: &[Mistake]) -> String {
    let lines: Vec<String> = mistakes.iter().map(|mistake| format!("sedge: {mistake}")).collect();
    lines.join("\n")
}

fn load(
    file: Option<&Path>,
    flags: &Flags,
    surroundings: &dyn Surroundings,
) -> Result<Loaded, Mistakes> {
    let loaded = match file {
        Some(file) => Config::load(file, surroundings),
        None => {
            Ok(Loaded { config: Config::default(), warnings: Vec::new(), digest: String::new() })
        }
    };
    // The checks of the flags run over a default too, to report all mistakes at once.
    let (mut loaded, mut mistakes) = match loaded {
        Ok(loaded) => (loaded, Vec::new()),
        Err(mistakes) => {
            let config = Config::default();
            (Loaded { config, warnings: Vec::new(), digest: String::new() }, mistakes.0)
        }
    };
    mistakes.extend(flags.apply(&mut loaded.config).into_iter().map(|what| Mistake {
        place: Place { file: "command line".into(), line: 0, column: 0 },
        what,
    }));
    if mistakes.is_empty() { Ok(loaded) } else { Err(Mistakes(mistakes)) }
}

#[derive(Clone, Debug, Default, PartialEq)]
enum Action {
    #[default]
    Serve,
    Test,
    Help,
    HelpTls,
    Version,
    Signal(String),
}

/// What was written on the command line; `None` leaves the file's value.
#[derive(Clone, Debug, Default)]
struct Flags {
    action: Action,
    config: Option<PathBuf>,
    host: Option<String>,
    port: Option<i32>,
    server_name: Option<String>,
    client_advertise: Option<String>,
    log_file: Option<PathBuf>,
    pid_file: Option<PathBuf>,
    ports_file_dir: Option<PathBuf>,
    logtime: Option<bool>,
    logtime_utc: Option<bool>,
    debug: Option<bool>,
    trace: Option<bool>,
    trace_verbose: Option<bool>,
    jetstream: Option<bool>,
    store_dir: Option<PathBuf>,
    user: Option<String>,
    password: Option<Secret>,
    token: Option<Secret>,
    http_port: Option<i32>,
    https_port: Option<i32>,
    syslog: Option<bool>,
    remote_syslog: Option<String>,
    log_size_limit: Option<u64>,
    max_traced_msg_len: Option<u64>,
    tls: Option<bool>,
    tls_verify: Option<bool>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    tls_ca: Option<PathBuf>,
}

/// What a flag does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flag {
    Test,
    Help,
    HelpTls,
    Version,
    Signal,
    Config,
    Host,
    Port,
    ServerName,
    ClientAdvertise,
    LogFile,
    PidFile,
    PortsFileDir,
    Logtime,
    LogtimeUtc,
    Debug,
    Trace,
    TraceVerbose,
    DebugTrace,
    DebugTraceVerbose,
    JetStream,
    StoreDir,
    User,
    Password,
    Token,
    HttpPort,
    HttpsPort,
    Syslog,
    RemoteSyslog,
    LogSizeLimit,
    MaxTracedMsgLen,
    Tls,
    TlsVerify,
    TlsCert,
    TlsKey,
    TlsCa,
    /// Accepted without effect.
    IgnoredBoolean,
    /// Accepted without effect, with a value.
    Ignored,
    /// nats-server has it, we do not: what to do instead.
    NotYet(&'static str),
}

const NO_CLUSTER: &str =
    "connect to a nats-server cluster with a leaf uplink (leafnodes { remotes } in the file)";

const FLAGS: &[(&[&str], Flag)] = &[
    (&["t"], Flag::Test),
    (&["h", "help"], Flag::Help),
    (&["help_tls"], Flag::HelpTls),
    (&["v", "version"], Flag::Version),
    (&["sl", "signal"], Flag::Signal),
    (&["c", "config"], Flag::Config),
    (&["a", "addr", "net"], Flag::Host),
    (&["p", "port"], Flag::Port),
    (&["n", "name", "server_name"], Flag::ServerName),
    (&["client_advertise"], Flag::ClientAdvertise),
    (&["l", "log"], Flag::LogFile),
    (&["P", "pid"], Flag::PidFile),
    (&["ports_file_dir"], Flag::PortsFileDir),
    (&["T", "logtime"], Flag::Logtime),
    (&["logtime_utc"], Flag::LogtimeUtc),
    (&["D", "debug"], Flag::Debug),
    (&["V", "trace"], Flag::Trace),
    (&["VV"], Flag::TraceVerbose),
    (&["DV"], Flag::DebugTrace),
    (&["DVV"], Flag::DebugTraceVerbose),
    (&["js", "jetstream"], Flag::JetStream),
    (&["sd", "store_dir"], Flag::StoreDir),
    (&["user"], Flag::User),
    (&["pass"], Flag::Password),
    (&["auth"], Flag::Token),
    (&["m", "http_port"], Flag::HttpPort),
    (&["ms", "https_port"], Flag::HttpsPort),
    (&["s", "syslog"], Flag::Syslog),
    (&["r", "remote_syslog"], Flag::RemoteSyslog),
    (&["log_size_limit"], Flag::LogSizeLimit),
    (&["max_traced_msg_len"], Flag::MaxTracedMsgLen),
    (&["tls"], Flag::Tls),
    (&["tlsverify"], Flag::TlsVerify),
    (&["tlscert"], Flag::TlsCert),
    (&["tlskey"], Flag::TlsKey),
    (&["tlscacert"], Flag::TlsCa),
    (&["no_advertise"], Flag::IgnoredBoolean),
    (&["connect_retries"], Flag::Ignored),
    (&["routes"], Flag::NotYet(NO_CLUSTER)),
    (&["cluster"], Flag::NotYet(NO_CLUSTER)),
    (&["cluster_name"], Flag::NotYet(NO_CLUSTER)),
    (&["cluster_advertise"], Flag::NotYet(NO_CLUSTER)),
    (&["cluster_listen"], Flag::NotYet(NO_CLUSTER)),
    (&["profile"], Flag::NotYet("it profiles Go programs; use perf")),
];

impl Flag {
    fn is_boolean(self) -> bool {
        match self {
            Self::Test
            | Self::Help
            | Self::HelpTls
            | Self::Version
            | Self::Logtime
            | Self::LogtimeUtc
            | Self::Debug
            | Self::Trace
            | Self::TraceVerbose
            | Self::DebugTrace
            | Self::DebugTraceVerbose
            | Self::JetStream
            | Self::Syslog
            | Self::Tls
            | Self::TlsVerify
            | Self::IgnoredBoolean => true,
            Self::Signal
            | Self::Config
            | Self::Host
            | Self::Port
            | Self::ServerName
            | Self::ClientAdvertise
            | Self::LogFile
            | Self::PidFile
            | Self::PortsFileDir
            | Self::StoreDir
            | Self::User
            | Self::Password
            | Self::Token
            | Self::HttpPort
            | Self::HttpsPort
            | Self::RemoteSyslog
            | Self::LogSizeLimit
            | Self::MaxTracedMsgLen
            | Self::TlsCert
            | Self::TlsKey
            | Self::TlsCa
            | Self::Ignored
            | Self::NotYet(_) => false,
        }
    }
}

impl Flags {
    fn parse(arguments: Vec<OsString>) -> Result<Self, Vec<String>> {
        let mut flags = Self::default();
        let mut mistakes = Vec::new();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let shown = shown(&argument);
            let bytes = argument.as_bytes();
            let Some(body) = bytes.strip_prefix(b"-").filter(|body| !body.is_empty()) else {
                flags.word(&argument, &mut mistakes);
                // As in Go, nothing after a word is a flag, and one word is a mistake.
                break;
            };
            let body = body.strip_prefix(b"-").unwrap_or(body);
            if body.is_empty() {
                if let Some(word) = arguments.next() {
                    flags.word(&word, &mut mistakes);
                }
                break;
            }
            let (name, value) = match body.iter().position(|byte| *byte == b'=') {
                Some(at) => (&body[..at], Some(OsStr::from_bytes(&body[at + 1..]).to_owned())),
                None => (body, None),
            };
            if name.is_empty() || name.starts_with(b"-") {
                mistakes.push(format!("bad flag syntax: {shown}"));
                continue;
            }
            let Some((_, flag)) =
                FLAGS.iter().find(|(names, _)| names.iter().any(|known| known.as_bytes() == name))
            else {
                mistakes.push(unknown(&String::from_utf8_lossy(name)));
                continue;
            };
            let name = String::from_utf8_lossy(name).into_owned();
            if flag.is_boolean() {
                let value = value.as_deref().map_or(Ok(true), boolean);
                match value {
                    Ok(value) => flags.switch(*flag, value),
                    Err(text) => mistakes
                        .push(format!("invalid boolean value \"{text}\" for -{name}: parse error")),
                }
                continue;
            }
            match value.or_else(|| arguments.next()) {
                Some(value) => flags.set(*flag, &name, value, &mut mistakes),
                None => mistakes.push(format!("flag needs an argument: -{name}")),
            }
        }
        if mistakes.is_empty() { Ok(flags) } else { Err(mistakes) }
    }

    fn word(&mut self, word: &OsStr, mistakes: &mut Vec<String>) {
        if word.eq_ignore_ascii_case("help") {
            self.action = Action::Help;
        } else if word.eq_ignore_ascii_case("version") {
            self.action = Action::Version;
        } else {
            mistakes.push(format!("sedge: unrecognized command: \"{}\"", shown(word)));
        }
    }

    fn switch(&mut self, flag: Flag, on: bool) {
        match flag {
            Flag::Test if on => self.act(Action::Test),
            Flag::Help if on => self.act(Action::Help),
            Flag::HelpTls if on => self.act(Action::HelpTls),
            Flag::Version if on => self.act(Action::Version),
            Flag::Logtime => self.logtime = Some(on),
            Flag::LogtimeUtc => self.logtime_utc = Some(on),
            Flag::Debug => self.debug = Some(on),
            Flag::Trace => self.trace = Some(on),
            Flag::TraceVerbose => self.trace_verbose = Some(on),
            Flag::DebugTrace => (self.debug, self.trace) = (Some(on), Some(on)),
            Flag::DebugTraceVerbose => {
                (self.debug, self.trace_verbose) = (Some(on), Some(on));
            }
            Flag::JetStream => self.jetstream = Some(on),
            Flag::Syslog => self.syslog = Some(on),
            Flag::Tls => self.tls = Some(on),
            Flag::TlsVerify => self.tls_verify = Some(on),
            // Switched off, or without effect. Flags with a value do not come here.
            _ => {}
        }
    }

    /// The first of help, version, test and signal decides, help before all.
    fn act(&mut self, action: Action) {
        if matches!(action, Action::Help) || matches!(self.action, Action::Serve) {
            self.action = action;
        }
    }

    fn set(&mut self, flag: Flag, name: &str, value: OsString, mistakes: &mut Vec<String>) {
        let path =
            |value: OsString| Some(PathBuf::from(value)).filter(|p| !p.as_os_str().is_empty());
        match flag {
            Flag::Config => self.config = path(value),
            Flag::LogFile => self.log_file = path(value),
            Flag::PidFile => self.pid_file = path(value),
            Flag::PortsFileDir => self.ports_file_dir = path(value),
            Flag::StoreDir => self.store_dir = path(value),
            Flag::TlsCert => self.tls_cert = path(value),
            Flag::TlsKey => self.tls_key = path(value),
            Flag::TlsCa => self.tls_ca = path(value),
            Flag::NotYet(instead) => mistakes.push(not_yet(name, instead)),
            flag => match value.into_string() {
                Ok(text) => self.set_text(flag, name, text, mistakes),
                Err(_) => mistakes.push(format!("the value of -{name} is not UTF-8")),
            },
        }
    }

    fn set_text(&mut self, flag: Flag, name: &str, text: String, mistakes: &mut Vec<String>) {
        match flag {
            Flag::Signal => self.act(Action::Signal(text)),
            Flag::Host => self.host = Some(text),
            Flag::ServerName => self.server_name = Some(text),
            Flag::ClientAdvertise => self.client_advertise = Some(text),
            Flag::User => self.user = Some(text),
            Flag::Password => self.password = Some(Secret::from(text)),
            Flag::Token => self.token = Some(Secret::from(text)),
            Flag::Port => self.port = port(name, &text, mistakes),
            Flag::HttpPort => self.http_port = port(name, &text, mistakes),
            Flag::HttpsPort => self.https_port = port(name, &text, mistakes),
            Flag::RemoteSyslog => self.remote_syslog = Some(text),
            Flag::LogSizeLimit => self.log_size_limit = number(name, &text, mistakes),
            Flag::MaxTracedMsgLen => self.max_traced_msg_len = number(name, &text, mistakes),
            // Without effect. Booleans and paths do not come here.
            _ => {}
        }
    }

    /// Puts what was written over `config`; returns what does not fit together.
    fn apply(&self, config: &mut Config) -> Vec<String> {
        let mut mistakes = Vec::new();
        if let Some(host) = self.host.as_ref().filter(|host| !host.is_empty()) {
            config.host.clone_from(host);
        }
        // 0 is "not set", as in the file.
        config.port = self.port.filter(|port| *port != 0).unwrap_or(config.port);
        if let Some(name) = self.server_name.as_ref().filter(|name| !name.is_empty()) {
            if name.contains(char::is_whitespace) {
                mistakes.push("server name cannot contain blanks".to_owned());
            }
            config.server_name = Some(name.clone());
        }
        over(&mut config.client_advertise, self.client_advertise.as_ref());
        over(&mut config.log_file, self.log_file.as_ref());
        over(&mut config.pid_file, self.pid_file.as_ref());
        over(&mut config.ports_file_dir, self.ports_file_dir.as_ref());
        config.logtime = self.logtime.unwrap_or(config.logtime);
        config.logtime_utc = self.logtime_utc.unwrap_or(config.logtime_utc);
        config.debug = self.debug.unwrap_or(config.debug);
        config.trace = self.trace.unwrap_or(config.trace);
        config.trace_verbose = self.trace_verbose.unwrap_or(config.trace_verbose);
        config.trace |= config.trace_verbose;
        self.apply_log(config);
        self.apply_monitor(config, &mut mistakes);
        self.apply_tls(config, &mut mistakes);
        over(&mut config.store_dir, self.store_dir.as_ref());
        match self.jetstream {
            Some(false) => config.jetstream = None,
            Some(true) if config.jetstream.is_none() => {
                let mut jetstream = JetStreamConfig::default();
                if let Some(directory) = &config.store_dir {
                    jetstream.store_dir.clone_from(directory);
                }
                config.jetstream = Some(jetstream);
            }
            Some(true) | None => {}
        }
        if let (Some(jetstream), Some(directory)) = (&mut config.jetstream, &self.store_dir) {
            jetstream.store_dir.clone_from(directory);
        }
        match (&self.user, &self.password, &self.token) {
            (None, None, None) => {}
            (None, None, Some(token)) => config.authorization = Authorization::Token(token.clone()),
            (Some(user), password, None) => {
                config.authorization = Authorization::User {
                    user: user.clone(),
                    password: password.clone().unwrap_or_default(),
                };
            }
            (None, Some(_), _) => mistakes.push("--pass needs --user".to_owned()),
            (Some(_), _, Some(_)) => {
                mistakes.push("cannot have both --user and --auth".to_owned());
            }
        }
        mistakes
    }
}

impl Flags {
    fn apply_log(&self, config: &mut Config) {
        config.syslog = self.syslog.unwrap_or(config.syslog);
        over(&mut config.remote_syslog, self.remote_syslog.as_ref());
        // 0 is "not set", as in the file.
        let set = |value: Option<u64>| value.filter(|value| *value > 0);
        over(&mut config.log_size_limit, set(self.log_size_limit).as_ref());
        over(&mut config.max_traced_msg_len, set(self.max_traced_msg_len).as_ref());
    }

    fn apply_monitor(&self, config: &mut Config, mistakes: &mut Vec<String>) {
        let set = |port: Option<i32>| port.filter(|port| *port != 0);
        let monitor = &mut config.monitor;
        over(&mut monitor.http_port, set(self.http_port).as_ref());
        over(&mut monitor.https_port, set(self.https_port).as_ref());
        if let (Some(http), Some(https)) = (monitor.http_port, monitor.https_port) {
            mistakes.push(format!("can't specify both HTTP ({http}) and HTTPs ({https}) ports"));
        }
    }

    fn apply_tls(&self, config: &mut Config, mistakes: &mut Vec<String>) {
        let files = [&self.tls_cert, &self.tls_key, &self.tls_ca];
        let (on, verify) = (self.tls == Some(true), self.tls_verify == Some(true));
        if self.tls == Some(false) {
            config.tls = None;
            return;
        }
        if !on && !verify && files.iter().all(|file| file.is_none()) {
            return;
        }
        let mut tls = config.tls.take().unwrap_or_default();
        match (&self.tls_cert, &self.tls_key) {
            (Some(cert_file), Some(key_file)) => {
                let (cert_file, key_file) = (cert_file.clone(), key_file.clone());
                tls.certificates = vec![CertificateFiles { cert_file, key_file }];
            }
            (Some(_), None) => {
                mistakes.push("TLS Server private key must be present and valid".to_owned());
            }
            (None, _) if tls.certificates.is_empty() || self.tls_key.is_some() => {
                mistakes.push("TLS Server certificate must be present and valid".to_owned());
            }
            (None, _) => {}
        }
        over(&mut tls.ca_file, self.tls_ca.as_ref());
        tls.verify |= verify;
        config.tls = Some(tls);
    }
}

/// A port, or -1 for any free one.
fn port(name: &str, text: &str, mistakes: &mut Vec<String>) -> Option<i32> {
    match text.parse() {
        Ok(port @ -1..=65_535) => Some(port),
        Ok(port) => {
            mistakes.push(format!(
                "invalid value \"{port}\" for flag -{name}: there are 1 to 65535, and -1 for \
                 any free port"
            ));
            None
        }
        Err(_) => no_number(name, text, mistakes),
    }
}

fn number(name: &str, text: &str, mistakes: &mut Vec<String>) -> Option<u64> {
    text.parse().ok().or_else(|| no_number(name, text, mistakes))
}

fn no_number<T>(name: &str, text: &str, mistakes: &mut Vec<String>) -> Option<T> {
    let text = shown(OsStr::new(text));
    mistakes.push(format!("invalid value \"{text}\" for flag -{name}: parse error"));
    None
}

fn over<T: Clone>(field: &mut Option<T>, value: Option<&T>) {
    if let Some(value) = value {
        *field = Some(value.clone());
    }
}

/// A boolean as Go's flags take it.
fn boolean(value: &OsStr) -> Result<bool, String> {
    match value.as_bytes() {
        b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" => Ok(true),
        b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" => Ok(false),
        _ => Err(shown(value)),
    }
}

fn not_yet(name: &str, instead: &str) -> String {
    format!("sedge: Sedge does not have -{name} yet: {instead}")
}

fn unknown(name: &str) -> String {
    let names = FLAGS.iter().flat_map(|(names, _)| names.iter().copied());
    // A hint for a flag of two letters would be a guess.
    let near = crate::config::nearest(name, names.filter(|known| known.len() > 2));
    let mut text = format!("flag provided but not defined: -{}", shown(OsStr::new(name)));
    match near {
        Some(known) => {
            let _ = write!(text, "; did you mean --{known}?");
        }
        None => text.push_str("; sedge --help lists all"),
    }
    text
}

/// An argument for a message: cut, control characters escaped.
fn shown(argument: &OsStr) -> String {
    let text = argument.to_string_lossy();
    text.chars()
        .take(ARGUMENT_CHARS_SHOWN)
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = (!c.is_control()).then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

/// Sends the signal of `name[=pid|=file]`; `processes` is `/proc`.
fn signal(request: &str, processes: &Path) -> Result<(), String> {
    let (name, target) = match request.split_once('=') {
        Some((name, target)) => (name, Some(target)),
        None => (request, None),
    };
    let signal = match name {
        "stop" => Signal::KILL,
        "quit" => Signal::INT,
        "term" => Signal::TERM,
        "reopen" => Signal::USR1,
        "reload" => Signal::HUP,
        "ldm" => Signal::USR2,
        _ => {
            let name = shown(OsStr::new(name));
            let known = "ldm, stop, quit, term, reopen, reload";
            return Err(format!("unknown signal \"{name}\"; there are {known}"));
        }
    };
    let pids = match target {
        None | Some("") => {
            let running = running(processes, "");
            if let [_, _, ..] = running.as_slice() {
                let list: Vec<String> = running.iter().map(ToString::to_string).collect();
                return Err(format!("multiple sedge processes running:\n{}", list.join("\n")));
            }
            running
        }
        Some(target) => match target.strip_suffix('*') {
            Some(prefix) if !prefix.bytes().all(|byte| byte.is_ascii_digit()) => {
                return Err(format!("invalid pid: {}", shown(OsStr::new(prefix))));
            }
            Some(prefix) => running(processes, prefix),
            None => vec![pid_of(target)?],
        },
    };
    if pids.is_empty() {
        return Err("no sedge processes running".to_owned());
    }
    let mut failures = String::new();
    for number in pids {
        let result = match Pid::from_raw(number) {
            Some(pid) => kill_process(pid, signal),
            None => Err(rustix::io::Errno::SRCH),
        };
        if let Err(errno) = result {
            let reason = match errno {
                rustix::io::Errno::SRCH => "no such process".to_owned(),
                rustix::io::Errno::PERM => "operation not permitted".to_owned(),
                other => other.to_string(),
            };
            let _ = write!(failures, "\nsignal \"{name}\" {number}: {reason}");
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures) }
}

/// A number, or the number in a file.
fn pid_of(target: &str) -> Result<i32, String> {
    let valid = |text: &str| text.trim().parse().ok().filter(|pid| *pid > 0);
    if let Some(pid) = valid(target) {
        return Ok(pid);
    }
    let shown = shown(OsStr::new(target));
    match std::fs::read_to_string(target) {
        Ok(text) => valid(&text).ok_or_else(|| format!("no pid in {shown}")),
        Err(error) => Err(format!("invalid pid: {shown} is no number, and as a file: {error}")),
    }
}

/// Other processes whose name is ours and whose id begins with `prefix`.
fn running(processes: &Path, prefix: &str) -> Vec<i32> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let Ok(entries) = std::fs::read_dir(processes) else { return Vec::new() };
    let mut pids: Vec<i32> = entries
        .flatten()
        .filter(|entry| {
            std::fs::read(entry.path().join("comm")).is_ok_and(|name| name.trim_ascii() == b"sedge")
        })
        .filter_map(|entry| String::from_utf8(entry.file_name().into_vec()).ok())
        .filter(|name| name.starts_with(prefix))
        .filter_map(|name| name.parse().ok())
        .filter(|pid| *pid != own)
        .collect();
    sorted::sort(&mut pids);
    pids
}

const HELP: &str = "
Usage: sedge [options]
       sedge nkey|jwt|creds ...         Tools for keys, tokens and credentials

Server Options:
    -a, --addr, --net <host>         Bind to host address (default: 0.0.0.0)
    -p, --port <port>                Use port for clients (default: 4222, -1: any free port)
    -n, --name
        --server_name <server_name>  Server name (default: auto)
    -P, --pid <file>                 File to store PID
    -m, --http_port <port>           Use port for http monitoring
    -ms,--https_port <port>          Use port for https monitoring
    -c, --config <file>              Configuration file
    -t                               Test configuration and exit
    -sl,--signal <signal>[=<pid>]    Send signal to sedge process (ldm, stop, quit, term, reopen, reload)
                                     <pid> can be either a PID (e.g. 1) or the path to a PID file (e.g. /var/run/sedge.pid)
        --client_advertise <string>  Client URL to advertise to other servers
        --ports_file_dir <dir>       Creates a ports file in the specified directory (<executable_name>_<pid>.ports).

Logging Options:
    -l, --log <file>                 File to redirect log output
    -T, --logtime                    Timestamp log entries (default: true)
        --logtime_utc                Timestamps in UTC instead of local timezone (default: false)
    -s, --syslog                     Log to syslog
    -r, --remote_syslog <addr>       Syslog server addr (udp://localhost:514)
    -D, --debug                      Enable debugging output
    -V, --trace                      Trace the raw protocol
    -VV                              Verbose trace (traces system account as well)
    -DV                              Debug and trace
    -DVV                             Debug and verbose trace (traces system account as well)
        --log_size_limit <limit>     Logfile size limit in bytes (default: no limit)
        --max_traced_msg_len <len>   Maximum printable length for traced messages (default: unlimited)

JetStream Options:
    -js, --jetstream                 Enable JetStream functionality
    -sd, --store_dir <dir>           Set the storage directory

Authorization Options:
        --user <user>                User required for connections
        --pass <password>            Password required for connections
        --auth <token>               Authorization token required for connections

TLS Options:
        --tls                        Enable TLS, do not verify clients (default: false)
        --tlscert <file>             Server certificate file
        --tlskey <file>              Private key for server certificate
        --tlsverify                  Enable TLS, verify client certificates
        --tlscacert <file>           Client certificate CA for verification

Common Options:
    -h, --help                       Show this message
    -v, --version                    Show version
        --help_tls                   TLS help

Options win over the configuration file. One dash or two, a blank or a '=' before the value.
Signals: ldm drains clients, reload reads the file again, reopen opens the log file again.
";

const HELP_TLS: &str = "
TLS for clients is set in the configuration file, or with --tls and the options after it:

    tls {
        cert_file: \"server-cert.pem\"
        key_file:  \"server-key.pem\"
        ca_file:   \"ca.pem\"             authority of the clients' certificates
        verify:    true                 ask clients for one
    }

TLS of an uplink is set there too:

    leafnodes { remotes: [ {
        url: \"tls://hub.example.com:7422\"
        tls {
            ca_file:   \"ca.pem\"         authority to trust instead of the system's
            cert_file: \"cert.pem\"       our certificate, where the hub asks for one
            key_file:  \"key.pem\"
        }
    } ] }
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{MonitorConfig, SyncInterval, TlsServerConfig};

    struct OneFile(&'static str);

    impl Surroundings for OneFile {
        fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
            if path == Path::new("g.conf") {
                Ok(self.0.as_bytes().to_vec())
            } else {
                Err("no such file".to_owned())
            }
        }

        fn variable(&self, _: &str) -> Option<String> {
            None
        }
    }

    fn run_with(file: &'static str, arguments: &[&str]) -> Command {
        command(arguments.iter().map(OsString::from).collect(), &OneFile(file))
    }

    fn run(arguments: &[&str]) -> Command {
        run_with("port: 5000", arguments)
    }

    fn start_with(file: &'static str, arguments: &[&str]) -> Start {
        match run_with(file, arguments) {
            Command::Serve(start) => *start,
            Command::Exit { stderr, .. } => panic!("{arguments:?}: {stderr}"),
        }
    }

    fn config(arguments: &[&str]) -> Config {
        start_with("port: 5000", arguments).loaded.config
    }

    /// Code, stdout, stderr.
    fn exit(command: Command) -> (u8, String, String) {
        match command {
            Command::Exit { code, stdout, stderr } => (code, stdout, stderr),
            Command::Serve(_) => panic!("it would serve"),
        }
    }

    fn error(arguments: &[&str]) -> String {
        let (code, stdout, stderr) = exit(run(arguments));
        assert_eq!((code, stdout.as_str()), (1, ""));
        stderr
    }

    #[test]
    fn without_arguments_it_serves_with_the_defaults() {
        assert_eq!(config(&[]), Config::default());
    }

    #[test]
    fn one_dash_or_two_blank_or_equals() {
        for arguments in [
            &["-p", "4333"][..],
            &["--p", "4333"],
            &["-port", "4333"],
            &["--port", "4333"],
            &["-p=4333"],
            &["--port=4333"],
            &["-p", "1", "-p", "4333"],
        ] {
            assert_eq!(config(arguments).port, 4333, "{arguments:?}");
        }
        assert_eq!(config(&["-p", "-1"]).port, -1);
        assert_eq!(config(&["-a", "::1"]).host, "::1");
        assert_eq!(config(&["-l", "-x"]).log_file, Some("-x".into()));
    }

    #[test]
    fn every_flag_reaches_its_field() {
        let read = config(&[
            "--net",
            "h",
            "--name",
            "gw",
            "-P",
            "x.pid",
            "--client_advertise",
            "c:1",
            "--ports_file_dir",
            "d",
            "--log",
            "x.log",
            "-T=false",
            "--logtime_utc",
            "-DV",
            "-js",
            "-sd",
            "s",
            "--user",
            "u",
            "--pass",
            "p",
            "--max_traced_msg_len",
            "5",
            "--log_size_limit=7",
            "-s",
            "-r",
            "udp://h:1",
            "-m",
            "-1",
            "--tlscert",
            "c",
            "--tlskey",
            "k",
            "--tlscacert",
            "a",
            "--tlsverify",
        ]);
        let expected = Config {
            host: "h".into(),
            server_name: Some("gw".into()),
            pid_file: Some("x.pid".into()),
            client_advertise: Some("c:1".into()),
            ports_file_dir: Some("d".into()),
            log_file: Some("x.log".into()),
            logtime: false,
            logtime_utc: true,
            debug: true,
            trace: true,
            max_traced_msg_len: Some(5),
            log_size_limit: Some(7),
            syslog: true,
            remote_syslog: Some("udp://h:1".into()),
            monitor: MonitorConfig { http_port: Some(-1), ..MonitorConfig::default() },
            tls: Some(TlsServerConfig {
                certificates: vec![CertificateFiles {
                    cert_file: "c".into(),
                    key_file: "k".into(),
                }],
                ca_file: Some("a".into()),
                verify: true,
                ..TlsServerConfig::default()
            }),
            store_dir: Some("s".into()),
            jetstream: Some(JetStreamConfig {
                store_dir: "s".into(),
                ..JetStreamConfig::default()
            }),
            authorization: Authorization::User {
                user: "u".into(),
                password: Secret::from("p".to_owned()),
            },
            ..Config::default()
        };
        assert_eq!(read, expected);
        assert!(config(&["-VV"]).trace);
        assert!(config(&["-DVV"]).trace_verbose);
        let token = Authorization::Token(Secret::from("t".to_owned()));
        assert_eq!(config(&["--auth", "t"]).authorization, token);
    }

    #[test]
    fn flags_win_over_the_file_also_at_a_reload() {
        let start = start_with("port: 5000; debug: true; host: a", &["-c", "g.conf", "-p", "6000"]);
        assert_eq!(start.loaded.config.port, 6000);
        assert!(start.loaded.config.debug);
        assert_eq!(start.file.as_deref(), Some(Path::new("g.conf")));
        let again = start.load(&OneFile("port: 7000; host: b")).unwrap();
        assert_eq!((again.config.port, again.config.host.as_str()), (6000, "b"));
        assert!(!again.config.debug);
    }

    #[test]
    fn jetstream_flags_and_the_file_meet() {
        let jetstream = |file, arguments: &[&str]| {
            let mut all = vec!["-c", "g.conf"];
            all.extend(arguments);
            start_with(file, &all).loaded.config.jetstream
        };
        let directory = |file, arguments: &[&str]| jetstream(file, arguments).unwrap().store_dir;
        assert_eq!(directory("store_dir: a", &["-js"]), Path::new("a"));
        assert_eq!(directory("jetstream { store_dir: a }", &["-js"]), Path::new("a"));
        assert_eq!(directory("jetstream { store_dir: a }", &["-sd", "b"]), Path::new("b"));
        assert_eq!(jetstream("port: 1", &["-sd", "b"]), None);
        assert_eq!(jetstream("jetstream: true", &["-js=false"]), None);
        let kept = jetstream("jetstream { sync: '1s' }", &["-js"]).unwrap();
        assert!(matches!(kept.sync_interval, SyncInterval::Every(_)));
    }

    #[test]
    fn test_of_a_configuration_says_what_nats_server_says() {
        let (code, stdout, stderr) = exit(run(&["-t", "-c", "g.conf"]));
        assert_eq!((code, stdout.as_str()), (0, ""));
        assert!(
            stderr.starts_with("sedge: configuration file g.conf is valid (sha256:"),
            "{stderr}"
        );
        let (code, _, stderr) = exit(run_with("prot: 1\nhots: a", &["-c", "g.conf", "-t"]));
        assert_eq!(code, 1);
        assert_eq!(
            stderr,
            "sedge: g.conf:1:1: unknown field \"prot\"; did you mean \"port\"?\n\
             sedge: g.conf:2:1: unknown field \"hots\"; did you mean \"host\"?\n"
        );
        // A warning fails the test, not the start.
        let file = "ping_interval: 5";
        assert_eq!(exit(run_with(file, &["-c", "g.conf", "-t"])).0, 1);
        assert_eq!(start_with(file, &["-c", "g.conf"]).loaded.warnings.len(), 1);
        assert!(error(&["-t"]).contains("must specify [-c, --config]"));
        assert!(error(&["-c", "x.conf"]).contains("x.conf: cannot read x.conf: no such file"));
    }

    #[test]
    fn help_and_version_go_to_stdout() {
        for arguments in [&["-h"][..], &["--help"], &["help"], &["-t", "-h"]] {
            let (code, stdout, _) = exit(run(arguments));
            assert!(code == 0 && stdout.contains("Usage: sedge [options]"), "{arguments:?}");
        }
        for arguments in [&["-v"][..], &["--version"], &["version"]] {
            let (code, stdout, _) = exit(run(arguments));
            let expected = format!("sedge: v{}\n", env!("CARGO_PKG_VERSION"));
            assert_eq!((code, stdout), (0, expected), "{arguments:?}");
        }
        assert!(exit(run(&["--help_tls"])).1.contains("ca_file"));
    }

    #[test]
    fn help_names_every_flag_we_have() {
        for (names, flag) in FLAGS {
            let hidden = matches!(flag, Flag::NotYet(_) | Flag::Ignored | Flag::IgnoredBoolean);
            for name in *names {
                let dashed = [format!("-{name}"), format!("--{name}")];
                let shown = HELP
                    .split([' ', ',', '\n'])
                    .any(|word| dashed.iter().any(|dashed| dashed == word));
                assert_eq!(shown, !hidden, "{name}");
            }
        }
    }

    #[test]
    fn wrong_arguments_say_what_is_wrong() {
        assert_eq!(
            error(&["--prot", "1"]),
            "flag provided but not defined: -prot; did you mean --port?\n\
             sedge: unrecognized command: \"1\"\n"
        );
        assert!(error(&["-zz"]).contains("not defined: -zz"));
        assert_eq!(error(&["foo"]), "sedge: unrecognized command: \"foo\"\n");
        assert_eq!(error(&["-p", "abc"]), "invalid value \"abc\" for flag -p: parse error\n");
        assert!(error(&["-p", "70000"]).contains("65535"));
        assert_eq!(error(&["-p"]), "flag needs an argument: -p\n");
        assert!(error(&["-js=maybe"]).contains("invalid boolean value \"maybe\" for -js"));
        assert_eq!(error(&["---p=1"]), "bad flag syntax: ---p=1\n");
        assert_eq!(error(&["-=1"]), "bad flag syntax: -=1\n");
        assert!(
            error(&["-m", "8222", "-ms", "8223"]).contains("both HTTP (8222) and HTTPs (8223)")
        );
        assert_eq!(error(&["-m", "x"]), "invalid value \"x\" for flag -m: parse error\n");
        assert!(error(&["--profile", "1"]).contains("use perf"));
        assert!(error(&["--routes", "x"]).contains("leaf uplink"));
        assert!(error(&["--tls"]).contains("TLS Server certificate must be present and valid"));
        assert!(error(&["--tlscert", "x"]).contains("TLS Server private key must be present"));
        assert!(error(&["--user", "a", "--auth", "b"]).contains("both"));
        assert!(error(&["--pass", "a"]).contains("--user"));
        assert!(error(&["-n", "a b"]).contains("blanks"));
        assert!(!error(&["a\u{1b}[2J\nx"]).trim_end().contains(['\u{1b}', '\n']));
        config(&["--tls=false"]);
    }

    #[test]
    fn mistakes_of_flags_and_file_come_together() {
        let (_, _, stderr) = exit(run_with("prot: 1", &["-c", "g.conf", "-n", "a b"]));
        assert_eq!(stderr.lines().count(), 2, "{stderr}");
        assert!(stderr.contains("sedge: command line: server name"));
    }

    #[test]
    fn signals_that_cannot_be_sent() {
        let nothing = tempfile::tempdir().unwrap();
        let send = |request: &str| signal(request, nothing.path()).unwrap_err();
        assert!(send("foo").starts_with("unknown signal \"foo\""));
        assert_eq!(send("reload"), "no sedge processes running");
        assert_eq!(send("reload=12*"), "no sedge processes running");
        assert!(send("reload=abc").starts_with("invalid pid: abc"));
        assert!(send("reload=-5").starts_with("invalid pid: -5"));
        assert_eq!(send("reload=2147483647"), "\nsignal \"reload\" 2147483647: no such process");
    }

    #[test]
    fn running_servers_are_found_by_their_name() {
        let processes = tempfile::tempdir().unwrap();
        for (pid, name) in [("100", "sedge"), ("123", "sedge"), ("7", "bash"), ("x", "sedge")] {
            std::fs::create_dir(processes.path().join(pid)).unwrap();
            std::fs::write(processes.path().join(pid).join("comm"), format!("{name}\n")).unwrap();
        }
        assert_eq!(running(processes.path(), ""), [100, 123]);
        assert_eq!(running(processes.path(), "12"), [123]);
        let many = signal("reload", processes.path()).unwrap_err();
        assert_eq!(many, "multiple sedge processes running:\n100\n123");
    }

    #[test]
    fn a_pid_may_come_from_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x.pid");
        std::fs::write(&file, "4711\n").unwrap();
        assert_eq!(pid_of(file.to_str().unwrap()), Ok(4711));
        std::fs::write(&file, "x").unwrap();
        assert!(pid_of(file.to_str().unwrap()).unwrap_err().starts_with("no pid in"));
    }

    #[test]
    fn a_process_gets_the_signal_it_is_sent() {
        use std::os::unix::process::ExitStatusExt as _;
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        signal(&format!("term={}", child.id()), Path::new("/proc")).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(15));
    }
}
