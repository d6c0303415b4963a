//! Many clients for a long time: does memory stay flat, does a healthy subscriber get
//! everything?
//!
//! ```text
//! cargo build --release && cargo run --release --example soak -- --minutes 15
//! ```
//!
//! Starts a server with two accounts, imports between them and a small stream, and reloads
//! its configuration every three seconds, with other users, exports and limits. With `openssl`
//! at hand there are clients over TLS and WebSocket too. Beside publishers and subscribers that count every
//! message there are clients that come and go, that speak nonsense, that end in the middle of
//! a word, and that never read what they asked for. `--server PATH` soaks another server of
//! the same kind; the exit status says whether all promises were kept.

#![expect(clippy::disallowed_methods, reason = "a load in real time")]

mod door;
#[allow(dead_code, reason = "shared with the tests; each uses its part")]
mod frames;
mod load;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use door::Doors;

const HELP: &str = "\
usage: soak [--minutes N | --seconds N] [--server PATH] [--no-accounts] [--no-reload]
            [--seed N]

  --minutes N, --seconds N   how long (default: 1 minute)
  --server PATH              what to soak (default: the sedge beside this program)
  --no-accounts              everybody in one account
  --no-reload                never send SIGHUP
  --seed N                   what the clients that come and go do (default: 1)
";

/// From start to `Listening for client connections`.
const START_DEADLINE: Duration = Duration::from_secs(10);

struct Args {
    time: Duration,
    server: PathBuf,
    accounts: bool,
    reload: bool,
    seed: u64,
}

fn parse() -> Result<Option<Args>, lexopt::Error> {
    use lexopt::prelude::*;
    let beside = std::env::current_exe().ok();
    let beside = beside.as_deref().and_then(Path::parent).and_then(Path::parent);
    let mut args = Args {
        time: Duration::from_mins(1),
        server: beside.unwrap_or(Path::new(".")).join("sedge"),
        accounts: true,
        reload: true,
        seed: 1,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("minutes") => args.time = Duration::from_mins(parser.value()?.parse()?),
            Long("seconds") => args.time = Duration::from_secs(parser.value()?.parse()?),
            Long("server") => args.server = parser.value()?.into(),
            Long("no-accounts") => args.accounts = false,
            Long("no-reload") => args.reload = false,
            Long("seed") => args.seed = parser.value()?.parse()?,
            Long("help") | Short('h') => return Ok(None),
            _ => return Err(arg.unexpected()),
        }
    }
    Ok(Some(args))
}

/// The server, ended when dropped.
struct Server {
    child: Child,
    doors: Doors,
    /// What it said of those who should not be closed.
    said: Arc<Mutex<Vec<String>>>,
    /// Reloads that it said it made.
    applied: Arc<AtomicU64>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(binary: &Path, config: &Path) -> Result<Self, String> {
        let mut child = Command::new(binary)
            .arg("-c")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", binary.display()))?;
        let (sender, lines) = mpsc::channel();
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let applied: Arc<AtomicU64> = Arc::default();
        if let Some(stderr) = child.stderr.take() {
            let (said, applied) = (Arc::clone(&said), Arc::clone(&applied));
            std::thread::spawn(move || {
                let mut listened_to = true;
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    if line.contains("Reloaded server configuration") {
                        applied.fetch_add(1, Ordering::Relaxed);
                    }
                    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                    let telling = line.contains(load::HEALTHY) && line.contains("closed")
                        || line.contains("[ERR] Failed")
                        || line.contains("Slow Consumer") && line.contains(load::HEALTHY);
                    if telling && said.len() < 100 {
                        said.push(line.clone());
                    }
                    drop(said);
                    // Nobody listens once it runs; the pipe must be emptied all the same.
                    listened_to = listened_to && sender.send(line).is_ok();
                }
            });
        }
        let plain = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server =
            Self { child, doors: Doors { plain, tls: None, web: None }, said, applied };
        let deadline = Instant::now() + START_DEADLINE;
        let mut said = Vec::new();
        while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            let after = |text: &str| {
                line.split_once(text).and_then(|(_, address)| address.trim().parse().ok())
            };
            if let Some(address) = after("Listening for client connections on ") {
                server.doors.plain = address;
            }
            if let Some(address) = after("Listening for websocket clients on ws://") {
                server.doors.web = Some(address);
            }
            if line.ends_with("Server is ready") {
                return Ok(server);
            }
            said.push(line);
        }
        Err(format!("the server does not become ready; it said:\n{}", said.join("\n")))
    }

    fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
        let kib = line.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    }

    fn reload(&self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::HUP);
        }
    }
}

/// Makes an authority and the certificate of a server; false without `openssl`.
fn make_certificates(folder: &Path) -> bool {
    const SCRIPT: &str = "set -e
        openssl ecparam -name prime256v1 -genkey -noout -out ca.key
        openssl req -x509 -new -key ca.key -days 2 -subj /CN=ca -out ca.pem
        openssl ecparam -name prime256v1 -genkey -noout -out server.key
        openssl req -new -key server.key -subj /CN=localhost -out server.csr
        echo subjectAltName=DNS:localhost > names
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
            -extfile names -out server.pem";
    let made = Command::new("sh").args(["-c", SCRIPT]).current_dir(folder).output();
    made.is_ok_and(|output| output.status.success())
}

fn soak(args: &Args) -> Result<bool, String> {
    let folder = std::env::temp_dir().join(format!("sedge-soak-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let store = folder.join("store").display().to_string();
    let path = folder.join("server.conf");
    let certificates = make_certificates(&folder).then(|| folder.display().to_string());
    if certificates.is_none() {
        println!("no openssl: no clients over TLS and WebSocket");
    }
    let write = |generation| {
        let text = format!(
            "listen: \"127.0.0.1:-1\"\ndebug: true\n{}",
            load::config(&store, certificates.as_deref(), args.accounts, generation)
        );
        std::fs::write(&path, text).map_err(|error| error.to_string())
    };
    write(0)?;
    let mut server = Server::start(&args.server, &path)?;
    if certificates.is_some() {
        server.doors.tls = Some(door::trusting(&folder.join("ca.pem"))?);
    }
    let server = server;
    println!("{} for {} s, seed {}", args.server.display(), args.time.as_secs(), args.seed);
    let mut asked = 0_u64;
    let mut reload = |generation| {
        if write(generation).is_ok() {
            server.reload();
            asked += 1;
        }
    };
    let mut seconds = 0_u32;
    let mut outcome = load::run(
        &server.doors,
        args.accounts,
        args.time,
        args.seed,
        args.reload.then_some(&mut reload as &mut dyn FnMut(u32)),
        || {
            let resident = server.resident_bytes();
            if seconds.is_multiple_of(30) {
                println!("{seconds:>6} s {:>8} KiB resident", resident / 1024);
            }
            seconds += 1;
            resident
        },
    );
    let applied = server.applied.load(Ordering::Relaxed);
    let said = server.said.lock().unwrap_or_else(PoisonError::into_inner).clone();
    drop(server);
    let _ = std::fs::remove_dir_all(&folder);
    println!(
        "delivered {}, acked {}, came and went {}, slow {}, reloads {applied} of {asked}",
        outcome.delivered, outcome.acked, outcome.churned, outcome.slow
    );
    println!(
        "resident: {} KiB early, {} KiB late, {} KiB at most: {}",
        outcome.resident_between(20, 40) / 1024,
        outcome.resident_between(80, 100) / 1024,
        outcome.resident.iter().max().unwrap_or(&0) / 1024,
        if outcome.is_flat() { "flat" } else { "GROWS" }
    );
    // The last may still have been under way.
    if applied + 1 < asked {
        outcome.troubles.push(format!("{} of {asked} reloads were not made", asked - applied));
    }
    for trouble in &outcome.troubles {
        println!("TROUBLE: {trouble}");
    }
    if !outcome.troubles.is_empty() {
        for line in said {
            println!("LOG: {line}");
        }
    }
    Ok(outcome.is_flat() && outcome.troubles.is_empty())
}

fn main() -> ExitCode {
    match parse() {
        Ok(None) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("soak: {error}\n\n{HELP}");
            ExitCode::from(2)
        }
        Ok(Some(args)) => match soak(&args) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("soak: {error}");
                ExitCode::FAILURE
            }
        },
    }
}
