//! A server under test: its binary, its configuration, its process and what that costs.
//!
//! Owns child processes and their directories. Does not know what is measured.
//!
//! # Invariants
//! - A [`Server`] that is dropped is dead and reaped; a [`Workdir`] that is dropped is gone.
//! - Both servers get the same configuration text.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::clock;
use crate::error::{Error, Result};
use crate::raw::Conn;

/// Longest wait for a server to say that it listens.
const READY_TIMEOUT: Duration = Duration::from_mins(1);
/// Longest wait for a server to end on request.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// `/proc/PID/stat` counts CPU time in these; the kernel's interface fixes them at 100 Hz.
const CPU_TICK: Duration = Duration::from_millis(10);
/// Lines of a server's log kept for error messages.
const LOG_LINES_KEPT: usize = 4;

/// Which of the two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The official nats-server.
    Nats,
    /// Sedge.
    Sedge,
}

/// A server's executable.
#[derive(Clone, Debug)]
pub(crate) struct Binary {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What it says to `--version`.
    pub(crate) version: String,
}

impl Binary {
    /// Asks the executable for its version, which also proves that it runs.
    pub(crate) fn probe(path: &Path) -> Result<Self> {
        let mut child = Command::new(path)
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| Error::from(error).during(&path.display().to_string()))?;
        let deadline = clock::after(STOP_TIMEOUT);
        while child.try_wait()?.is_none() && clock::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        // One that serves instead of answering still says what it has said.
        let _ = child.kill();
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.lines().next().unwrap_or("no version").trim().to_owned();
        Ok(Self { path: path.to_owned(), version })
    }
}

/// What differs between the configurations of the scenarios. `JetStream` is on, as on every
/// gateway, unless it is asked to be off.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Setup {
    /// Run without `JetStream`; then neither `sync_interval` nor `domain` counts.
    pub(crate) jetstream_off: bool,
    /// `sync_interval`; the server's default if `None`.
    pub(crate) sync_interval: Option<&'static str>,
    /// `JetStream` domain.
    pub(crate) domain: Option<&'static str>,
    /// Accept leaf nodes?
    pub(crate) leaf_listen: bool,
    /// Where to dial as a leaf node.
    pub(crate) leaf_remote: Option<SocketAddr>,
    /// This many accounts, each with one user: `u0` with the password `u0`, `u1` and so on.
    pub(crate) accounts: usize,
    /// Ask clients for TLS, with what [`Workdir::certificates`] made?
    pub(crate) tls: bool,
}

impl Setup {
    fn config(&self, store_dir: &Path) -> String {
        let mut text = String::from("host: \"127.0.0.1\"\nport: -1\n");
        if !self.jetstream_off {
            let _ = write!(text, "jetstream {{\n  store_dir: \"{}\"\n", store_dir.display());
            if let Some(interval) = self.sync_interval {
                let _ = writeln!(text, "  sync_interval: {interval}");
            }
            if let Some(domain) = self.domain {
                let _ = writeln!(text, "  domain: {domain}");
            }
            text.push_str("}\n");
        }
        if self.leaf_listen {
            text.push_str("leafnodes {\n  host: \"127.0.0.1\"\n  port: -1\n}\n");
        }
        if let Some(remote) = self.leaf_remote {
            let _ = writeln!(
                text,
                "leafnodes {{\n  remotes: [ {{ url: \"nats-leaf://{remote}\" }} ]\n}}"
            );
        }
        if self.accounts > 0 {
            text.push_str("accounts {\n");
            for number in 0..self.accounts {
                let user = format!("u{number}");
                let _ = writeln!(
                    text,
                    "  A{number} {{ users: [ {{ user: {user}, password: {user} }} ] }}"
                );
            }
            text.push_str("}\n");
        }
        if self.tls {
            text.push_str("tls { cert_file: \"server.pem\", key_file: \"server.key\" }\n");
        }
        text
    }
}

/// A directory for one run of one server, removed afterwards.
#[derive(Debug)]
pub(crate) struct Workdir(PathBuf);

impl Workdir {
    /// A fresh, empty directory below `base`.
    pub(crate) fn create(base: &Path) -> Result<Self> {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let name = format!("{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
        let path = base.join(name);
        fs::create_dir_all(&path)?;
        Ok(Self(path.canonicalize()?))
    }

    /// Makes an authority and a certificate for `localhost` with `openssl`; gives the
    /// authority's.
    pub(crate) fn certificates(&self) -> Result<PathBuf> {
        const SCRIPT: &str = "set -e
            openssl ecparam -name prime256v1 -genkey -noout -out ca.key
            openssl req -x509 -new -key ca.key -days 2 -subj /CN=ca -out ca.pem
            openssl ecparam -name prime256v1 -genkey -noout -out server.key
            openssl req -new -key server.key -subj /CN=localhost -out server.csr
            printf subjectAltName=DNS:localhost > names
            openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
                -extfile names -out server.pem";
        let output = Command::new("sh").args(["-c", SCRIPT]).current_dir(&self.0).output()?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(Error::new(why).during("making certificates with openssl"));
        }
        Ok(self.0.join("ca.pem"))
    }

    fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    /// Bytes of the store on disk: allocated, and as the files' lengths say.
    pub(crate) fn disk_bytes(&self) -> Result<DiskBytes> {
        let mut sum = DiskBytes::default();
        let mut dirs = vec![self.store()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir)? {
                let entry = entry?;
                // A server may remove a file between the listing and the look at it.
                let Ok(meta) = entry.metadata() else { continue };
                if meta.is_dir() {
                    dirs.push(entry.path());
                } else {
                    sum.allocated += meta.blocks() * 512;
                    sum.apparent += meta.len();
                }
            }
        }
        Ok(sum)
    }
}

impl Drop for Workdir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Size of a store.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DiskBytes {
    /// Blocks the files occupy.
    pub(crate) allocated: u64,
    /// Lengths of the files.
    pub(crate) apparent: u64,
}

/// What a process has used so far, and its memory now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// User and system time.
    pub(crate) cpu: Duration,
    /// Resident memory.
    pub(crate) rss_bytes: u64,
    /// Bytes it caused to be written to the disk, as far as they were not dropped in time.
    pub(crate) disk_written_bytes: u64,
    /// Bytes it passed to `write`, sockets included.
    pub(crate) wchar_bytes: u64,
}

impl Usage {
    /// Reads the figures of a process; `pid` may be `self`.
    pub(crate) fn of(pid: &str) -> Result<Self> {
        let read = |file: &str| {
            fs::read_to_string(format!("/proc/{pid}/{file}"))
                .map_err(|error| Error::from(error).during("reading /proc"))
        };
        let stat = read("stat")?;
        // The second field is the name in brackets, which may hold anything; count from its end.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let ticks = |index: usize| {
            fields.get(index).and_then(|field| field.parse::<u32>().ok()).unwrap_or(0)
        };
        let io = read("io").unwrap_or_default();
        Ok(Self {
            cpu: CPU_TICK * (ticks(11) + ticks(12)),
            rss_bytes: labelled(&read("status")?, "VmRSS:") * 1024,
            disk_written_bytes: labelled(&io, "write_bytes:"),
            wchar_bytes: labelled(&io, "wchar:"),
        })
    }
}

fn labelled(text: &str, label: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(label))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// All children alive, so that a watchdog can end them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Children(Arc<Mutex<Vec<Weak<Mutex<Child>>>>>);

impl Children {
    fn add(&self, child: &Arc<Mutex<Child>>) {
        let mut children = lock(&self.0);
        children.retain(|child| child.strong_count() > 0);
        children.push(Arc::downgrade(child));
    }

    /// Kills every server still running; whoever talks to one gets an error soon.
    pub(crate) fn kill_all(&self) {
        for child in lock(&self.0).iter().filter_map(Weak::upgrade) {
            let _ = lock(&child).kill();
        }
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    child: Arc<Mutex<Child>>,
    pid: String,
    log: Arc<Mutex<VecDeque<String>>>,
    /// Where clients connect.
    pub(crate) addr: SocketAddr,
    /// Where leaf nodes connect, if the setup lets them.
    pub(crate) leaf_addr: Option<SocketAddr>,
    /// From the start of the process to the first `PONG`.
    pub(crate) ready_after: Duration,
}

impl Server {
    /// Starts a server in `workdir` and waits until it answers.
    pub(crate) fn start(
        binary: &Binary,
        setup: Setup,
        workdir: &Workdir,
        children: &Children,
    ) -> Result<Self> {
        let config = workdir.0.join("server.conf");
        fs::write(&config, setup.config(&workdir.store()))?;
        let started = clock::now();
        let mut child = Command::new(&binary.path)
            .arg("-c")
            .arg(&config)
            .current_dir(&workdir.0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Error::from(error).during(&binary.path.display().to_string()))?;
        let pid = child.id().to_string();
        let (lines, listening) = mpsc::channel();
        let log = Arc::new(Mutex::new(VecDeque::new()));
        if let Some(stdout) = child.stdout.take() {
            follow(stdout, lines.clone(), Arc::clone(&log));
        }
        if let Some(stderr) = child.stderr.take() {
            follow(stderr, lines, Arc::clone(&log));
        }
        let child = Arc::new(Mutex::new(child));
        children.add(&child);
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        // From here on dropping it ends the process, whatever goes wrong.
        let mut server =
            Self { child, pid, log, addr: nowhere, leaf_addr: None, ready_after: Duration::ZERO };
        server
            .await_ready(&listening, setup, started)
            .map_err(|error| server.blame(&error).during("starting"))?;
        Ok(server)
    }

    fn await_ready(
        &mut self,
        listening: &mpsc::Receiver<Listening>,
        setup: Setup,
        started: Instant,
    ) -> Result<()> {
        let mut client_addr = None;
        let deadline = started + READY_TIMEOUT;
        while client_addr.is_none() || (setup.leaf_listen && self.leaf_addr.is_none()) {
            let left = deadline.saturating_duration_since(clock::now());
            match listening.recv_timeout(left) {
                Ok(Listening::Clients(addr)) => client_addr = Some(addr),
                Ok(Listening::Leafs(addr)) => self.leaf_addr = Some(addr),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    return Err(Error::new("it did not say that it listens"));
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(Error::new("it ended at once"));
                }
            }
        }
        if let Some(addr) = client_addr {
            self.addr = addr;
        }
        if setup.tls {
            // INFO is what there is to see without TLS.
            let mut byte = [0];
            std::net::TcpStream::connect(self.addr)?.read_exact(&mut byte)?;
        } else {
            Conn::sign_in(self.addr, (setup.accounts > 0).then_some("u0"))?;
        }
        self.ready_after = started.elapsed();
        Ok(())
    }

    /// The error, with what the server logged last and whether it has ended.
    pub(crate) fn blame(&self, error: &Error) -> Error {
        // The log's last lines are on their way when a connection breaks.
        thread::sleep(Duration::from_millis(100));
        let ended = lock(&self.child).try_wait().ok().flatten();
        let mut text = match ended {
            Some(status) => format!("{error} (server ended: {status})"),
            None => error.to_string(),
        };
        for line in lock(&self.log).iter() {
            let _ = write!(text, "\n      log: {line}");
        }
        Error::new(text)
    }

    /// What the process has used so far.
    pub(crate) fn usage(&self) -> Result<Usage> {
        Usage::of(&self.pid)
    }

    /// Ends the process as a power cut would end it.
    pub(crate) fn kill(self) {
        drop(self);
    }

    /// Asks the process to end, as a service manager does.
    pub(crate) fn stop(self) -> Result<()> {
        let pid = self.pid.parse().ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)
                .map_err(|errno| Error::from(std::io::Error::from(errno)).during("SIGTERM"))?;
        }
        let deadline = clock::after(STOP_TIMEOUT);
        while lock(&self.child).try_wait()?.is_none() {
            if clock::now() > deadline {
                return Err(Error::new("the server does not end on SIGTERM"));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut child = lock(&self.child);
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// What a log line says about an address.
#[derive(Clone, Copy, Debug)]
enum Listening {
    Clients(SocketAddr),
    Leafs(SocketAddr),
}

impl Listening {
    fn parse(line: &str) -> Option<Self> {
        let addr = |marker: &str| {
            let (_, rest) = line.split_once(marker)?;
            rest.split_whitespace().next()?.parse().ok()
        };
        if let Some(addr) = addr("Listening for client connections on ") {
            return Some(Self::Clients(addr));
        }
        addr("Listening for leafnode connections on ").map(Self::Leafs)
    }
}

/// Reads a server's output to its end, on a thread of its own.
fn follow(
    output: impl Read + Send + 'static,
    listening: mpsc::Sender<Listening>,
    log: Arc<Mutex<VecDeque<String>>>,
) {
    thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            let Ok(line) = line else { break };
            if let Some(found) = Listening::parse(&line) {
                let _ = listening.send(found);
            }
            let mut log = lock(&log);
            if log.len() == LOG_LINES_KEPT {
                log.pop_front();
            }
            log.push_back(line);
        }
    });
}
