//! What the service manager is told, and what it hands over.
//!
//! Owns the messages of `sd_notify` (readiness, reloads, the end, the watchdog) and the
//! listening sockets of socket activation. Does not own when they are sent: the event loop
//! says so, from inside, so that a watchdog notices a loop that hangs.
//!
//! The messages are a few lines of text in a datagram, which needs no crate. Taking over an
//! inherited descriptor is unsafe, so that is left to one.
//!
//! Source: `sd_notify(3)`, `sd_listen_fds(3)`, `systemd.service(5)` `Type=notify-reload`.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::time::{ClockId, clock_gettime};

use crate::time::{Duration, Instant};

/// The service manager; without one nothing is sent.
#[derive(Debug, Default)]
pub struct Manager {
    socket: Option<UnixDatagram>,
    /// How often it wants to hear of us.
    watchdog: Option<Duration>,
    /// When it is told next.
    alive_at: Option<Instant>,
}

impl Manager {
    /// The one that started this process, if any.
    pub fn from_environment() -> Self {
        let Some(address) = std::env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        let address = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path)),
        };
        let socket = address.and_then(|address| {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            socket.connect_addr(&address)?;
            Ok(socket)
        });
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| ours && *usec > 0);
        Self { socket: socket.ok(), watchdog: watchdog.map(Duration::from_micros), alive_at: None }
    }

    /// Clients may connect.
    pub fn ready(&mut self, now: Instant, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
        self.alive_at = self.watchdog.map(|_| now);
    }

    /// A reload begins; [`Self::ready`] ends it.
    pub fn reloading(&self) {
        let time = clock_gettime(ClockId::Monotonic);
        let usec = time.tv_sec.saturating_mul(1_000_000).saturating_add(time.tv_nsec / 1_000);
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={usec}\nSTATUS=Reloading"));
    }

    /// Lame duck mode began.
    pub fn draining(&self) {
        self.send("STATUS=Lame duck mode: waiting for clients to leave");
    }

    /// The server shuts down. Writing what is queued may take as long as the disk does.
    pub fn stopping(&mut self) {
        self.alive_at = None;
        self.send("STOPPING=1\nSTATUS=Shutting down");
    }

    /// When [`Self::alive`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.alive_at
    }

    /// The loop turns.
    pub fn alive(&mut self, now: Instant) {
        if let Some(watchdog) = self.watchdog
            && self.alive_at.is_some_and(|at| at <= now)
        {
            self.alive_at = Some(now + watchdog / 2);
            self.send("WATCHDOG=1");
        }
    }

    fn send(&self, message: &str) {
        if let Some(socket) = &self.socket {
            // A manager that does not listen has its own trouble.
            let _ = socket.send(message.as_bytes());
        }
    }
}

/// Listening sockets of a socket unit.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<(String, TcpListener)>,
}

impl Inherited {
    /// Those handed to this process.
    ///
    /// # Errors
    /// One is no listening TCP socket.
    pub fn from_environment() -> Result<Self, String> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':').map(str::to_owned);
        let mut handed = listenfd::ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..handed.len() {
            let name = names.next().unwrap_or_default();
            match handed.take_tcp_listener(index) {
                Ok(Some(socket)) => sockets.push((name, socket)),
                Ok(None) => {}
                Err(error) => {
                    return Err(format!("socket {name:?} of the service manager: {error}"));
                }
            }
        }
        Ok(Self { sockets })
    }

    /// The socket named so in `FileDescriptorName=`; for clients also one with another name,
    /// if it is the only one.
    pub fn take(&mut self, name: &str) -> Option<TcpListener> {
        let named = self.sockets.iter().position(|(own, _)| own == name);
        let only = (name == CLIENTS && self.sockets.len() == 1).then_some(0);
        let at = named.or(only)?;
        Some(self.sockets.remove(at).1)
    }
}

/// `FileDescriptorName=` of the socket for clients.
pub const CLIENTS: &str = "nats";
/// Of the one for WebSocket clients.
pub const WEB_SOCKETS: &str = "websocket";
/// Of the one for monitoring.
pub const MONITORING: &str = "monitoring";

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(watchdog: Option<Duration>) -> (Manager, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        (Manager { socket: Some(ours), watchdog, alive_at: None }, theirs)
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 200];
        let count = socket.recv(&mut bytes).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    #[test]
    fn the_manager_hears_of_the_life_of_the_server() {
        let (mut manager, socket) = manager(None);
        manager.ready(Instant(0), "up");
        assert_eq!(heard(&socket), "READY=1\nSTATUS=up");
        assert_eq!(manager.poll_timeout(), None);
        manager.reloading();
        let text = heard(&socket);
        assert!(text.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{text}");
        manager.stopping();
        assert!(heard(&socket).starts_with("STOPPING=1\n"));
    }

    #[test]
    fn a_watchdog_hears_twice_in_its_time() {
        let (mut manager, socket) = manager(Some(Duration::from_secs(10)));
        manager.ready(Instant(0), "up");
        heard(&socket);
        let at = manager.poll_timeout().unwrap();
        manager.alive(at);
        assert_eq!(heard(&socket), "WATCHDOG=1");
        manager.alive(at);
        assert_eq!(heard(&socket), "");
        assert_eq!(manager.poll_timeout(), Some(at + Duration::from_secs(5)));
    }
}
