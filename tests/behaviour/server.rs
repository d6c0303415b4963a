//! A server process under test: Sedge or nats-server, on ports the system chooses.
//!
//! Owns the process, its directory and its log. The process ends with its [`Server`].

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// From start to `Server is ready`, on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// From a signal that ends the process to its end.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// The line every NATS client's test harness looks for.
const LISTENING: &str = "Listening for client connections on ";

/// The Sedge to test: `SEDGE_BIN`, or the one cargo built for this test run.
pub(crate) fn sedge_binary() -> PathBuf {
    std::env::var_os("SEDGE_BIN")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_sedge")), PathBuf::from)
}

#[derive(Debug, Default)]
struct Log {
    lines: Vec<String>,
    ended: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Server {
    binary: PathBuf,
    child: Child,
    log: Arc<(Mutex<Log>, Condvar)>,
    directory: tempfile::TempDir,
    address: SocketAddr,
}

impl Server {
    /// Starts `binary` with these config lines and waits until it is ready.
    ///
    /// `$DIR` in the config stands for a fresh directory that lives as long as the server,
    /// `$CERTS` for one in it with certificates, see [`make_certificates`].
    pub(crate) fn start(binary: &Path, config: &str) -> Result<Self, String> {
        Self::start_with(binary, config, |_| {})
    }

    /// The same, with more said to the process.
    pub(crate) fn start_with(
        binary: &Path,
        config: &str,
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|e| format!("no temporary directory: {e}"))?;
        write_config(directory.path(), config)?;
        let (child, log) = spawn(binary, directory.path(), prepare)?;
        let placeholder = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server =
            Self { binary: binary.to_owned(), child, log, directory, address: placeholder };
        server.address = server.wait_ready()?;
        Ok(server)
    }

    /// Starts Sedge.
    ///
    /// # Panics
    /// When it does not come up.
    pub(crate) fn sedge(config: &str) -> Self {
        match Self::start(&sedge_binary(), config) {
            Ok(server) => server,
            Err(why) => panic!("{why}"),
        }
    }

    /// Writes the config anew; the server reads it when it is told to.
    pub(crate) fn write_config(&self, config: &str) -> Result<(), String> {
        write_config(self.directory.path(), config)
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where `$DIR` in the config pointed.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The system's id of the process.
    pub(crate) fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line of the log with this text.
    pub(crate) fn wait_for_line(&self, text: &str) -> Result<(), String> {
        self.wait_for_lines(text, 1, STOP_DEADLINE)
    }

    /// Waits for so many lines of the log with this text.
    pub(crate) fn wait_for_lines(
        &self,
        text: &str,
        count: usize,
        within: Duration,
    ) -> Result<(), String> {
        let deadline = Instant::now() + within;
        let (lock, changed) = &*self.log;
        let mut log = lock.lock().expect("no reader panics");
        while log.lines.iter().filter(|line| line.contains(text)).count() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let log = log.lines.join("\n");
                return Err(format!("not {count} lines {text:?} within {within:?} in\n{log}"));
            }
            log = changed.wait_timeout(log, left).expect("no reader panics").0;
        }
        Ok(())
    }

    /// Where the log says that something else listens: what follows `text`.
    pub(crate) fn listener(&self, text: &str) -> Result<SocketAddr, String> {
        let log = self.log();
        let found = log.lines().find_map(|line| line.split_once(text));
        found
            .and_then(|(_, address)| address.trim().parse().ok())
            .ok_or_else(|| format!("no line {text:?}:\n{log}"))
    }

    /// What the server has logged.
    pub(crate) fn log(&self) -> String {
        self.log.0.lock().expect("no reader panics").lines.join("\n")
    }

    /// Has the process ended?
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Stops the process (`SIGKILL` when `hard`, else `SIGTERM`) and starts it on its files.
    pub(crate) fn restart(&mut self, hard: bool) -> Result<(), String> {
        if hard {
            self.child.kill().map_err(|e| format!("cannot kill the server: {e}"))?;
        } else {
            self.signal(Signal::TERM);
        }
        self.wait_exit()?;
        self.start_again()
    }

    /// Ends the process with `SIGTERM`; [`Self::start_again`] goes on with its files.
    pub(crate) fn stop(&mut self) -> Result<ExitStatus, String> {
        self.signal(Signal::TERM);
        self.wait_exit()
    }

    /// Starts a stopped server on its files, on a new port.
    pub(crate) fn start_again(&mut self) -> Result<(), String> {
        (self.child, self.log) = spawn(&self.binary, self.directory.path(), |_| {})?;
        self.address = self.wait_ready()?;
        Ok(())
    }

    /// Sends a signal; does not wait.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(id) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(id, signal);
        }
    }

    /// Waits for the process to end by itself.
    pub(crate) fn wait_exit(&mut self) -> Result<ExitStatus, String> {
        let deadline = Instant::now() + STOP_DEADLINE;
        let (lock, changed) = &*self.log;
        let mut log = lock.lock().expect("no reader panics");
        // Its standard error ends with it.
        while !log.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("still running after {STOP_DEADLINE:?}"));
            }
            log = changed.wait_timeout(log, left).expect("no reader panics").0;
        }
        self.child.wait().map_err(|error| format!("its end is not known: {error}"))
    }

    /// Resident memory of the process, in bytes.
    ///
    /// # Panics
    /// When the process is gone.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("the server runs");
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("Linux shows VmRSS");
        let kib = line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok());
        kib.expect("VmRSS is a number of KiB") * 1024
    }

    fn wait_ready(&mut self) -> Result<SocketAddr, String> {
        let deadline = Instant::now() + START_DEADLINE;
        let (lock, changed) = &*self.log;
        let mut log = lock.lock().expect("no reader panics");
        loop {
            if log.lines.iter().any(|l| l.ends_with("Server is ready")) {
                let listening = log.lines.iter().find_map(|l| l.split_once(LISTENING));
                return listening
                    .and_then(|(_, address)| address.trim().parse().ok())
                    .ok_or_else(|| format!("no line {LISTENING:?}:\n{}", log.lines.join("\n")));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if log.ended || left.is_zero() {
                let what = if log.ended { "ended before it was" } else { "did not become" };
                let name = self.binary.display();
                return Err(format!("{name} {what} ready; it said:\n{}", log.lines.join("\n")));
            }
            log = changed.wait_timeout(log, left).expect("no reader panics").0;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write_config(directory: &Path, config: &str) -> Result<(), String> {
    let certificates = directory.join("certs");
    if config.contains("$CERTS") && !certificates.exists() {
        make_certificates(&certificates)?;
    }
    let config = config.replace("$CERTS", &certificates.display().to_string());
    let config = config.replace("$DIR", &directory.display().to_string());
    let text = format!("listen: \"127.0.0.1:-1\"\n{config}\n");
    std::fs::write(directory.join("server.conf"), text)
        .map_err(|e| format!("cannot write the config: {e}"))
}

/// Makes an authority, `ca.pem`, and of it `server.pem` with `server.key`, for `localhost` and
/// `127.0.0.1`, and `client.pem` with `client.key` (`O=acme, CN=client`, with an e-mail
/// address), with `openssl`.
pub(crate) fn make_certificates(directory: &Path) -> Result<(), String> {
    const SCRIPT: &str = "set -e
        openssl ecparam -name prime256v1 -genkey -noout -out ca.key
        openssl req -x509 -new -key ca.key -days 2 -subj /CN=ca -out ca.pem
        openssl ecparam -name prime256v1 -genkey -noout -out server.key
        openssl req -new -key server.key -subj /CN=localhost -out server.csr
        echo subjectAltName=DNS:localhost,IP:127.0.0.1 > names
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
            -extfile names -out server.pem
        openssl ecparam -name prime256v1 -genkey -noout -out client.key
        openssl req -new -key client.key -subj /O=acme/CN=client -out client.csr
        echo subjectAltName=email:client@acme.com > names
        openssl x509 -req -in client.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
            -extfile names -out client.pem";
    std::fs::create_dir_all(directory).map_err(|e| format!("no directory: {e}"))?;
    let output = Command::new("sh").args(["-c", SCRIPT]).current_dir(directory).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        other => Err(format!("certificates need openssl: {other:?}")),
    }
}

type SharedLog = Arc<(Mutex<Log>, Condvar)>;

fn spawn(
    binary: &Path,
    directory: &Path,
    prepare: impl FnOnce(&mut Command),
) -> Result<(Child, SharedLog), String> {
    let mut command = Command::new(binary);
    command
        .arg("-c")
        .arg(directory.join("server.conf"))
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    prepare(&mut command);
    let mut child =
        command.spawn().map_err(|e| format!("cannot start {}: {e}", binary.display()))?;
    let stderr = child.stderr.take().expect("it was asked for");
    let log = SharedLog::default();
    let shared = Arc::clone(&log);
    // Ends with the process, whose standard error it reads.
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            shared.0.lock().expect("no other holder panics").lines.push(line);
            shared.1.notify_all();
        }
        shared.0.lock().expect("no other holder panics").ended = true;
        shared.1.notify_all();
    });
    Ok((child, log))
}
