//! The sockets of the monitoring port.
//!
//! Owns the listener, its few connections, and their turns in the event loop. Does not own
//! HTTP (`monitor::http`) nor what is said.
//!
//! # Invariants
//! - At most `CONNECTIONS_MAX` connections; a new one takes the place of the one that would
//!   be closed next, unless that one is being written to.
//! - A connection is answered one request a turn, so that pages asked for in a row do not
//!   hold up messages.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;

use rustix::net::SocketFlags;
use slab::Slab;

use crate::monitor::http::{Exchange, Response};
use crate::monitor::{Monitor, Scene};
use crate::net::poller::{Poller, Ready, Want};
use crate::net::socket::{Received, Socket};
use crate::net::tls_server::TlsServer;
use crate::time::{Instant, Now};

/// Connections of the monitoring port at once.
const CONNECTIONS_MAX: usize = 64;
/// Accepted in one turn.
const ACCEPTS_PER_TURN: usize = 16;
/// Answers of all connections that wait to be written, in bytes. Over it: 503.
const BACKLOG_BYTES_MAX: usize = 32 * 1024 * 1024;
/// One read, in bytes.
const READ_BYTES: usize = 4 * 1024;

/// Steps of TLS handshakes in one turn: each takes about a millisecond at most.
const HANDSHAKES_PER_TURN: usize = 4;

/// Keys of the poller from here on are connections of the monitoring port.
const KEYS: u64 = 0xffff_fffe_0000_0000;
/// The key of the listener.
const LISTENER: u64 = KEYS | 0xffff_ffff;

#[derive(Debug)]
struct Visitor {
    socket: Socket,
    exchange: Exchange,
    want: Want,
}

/// The monitoring port.
#[derive(Debug)]
pub struct Pages {
    listener: TcpListener,
    /// Of `https`.
    tls: Option<TlsServer>,
    /// The turn, and the steps of handshakes that were made in it.
    handshakes: (Instant, usize),
    visitors: Slab<Visitor>,
}

impl Pages {
    /// Serves pages on `listener`.
    ///
    /// # Errors
    /// When the listener cannot be watched.
    pub fn new(listener: TcpListener, tls: Option<TlsServer>, poller: &Poller) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        poller.add(&listener, LISTENER, Want::READ)?;
        let handshakes = (Instant::default(), 0);
        Ok(Self { listener, tls, handshakes, visitors: Slab::new() })
    }

    /// Other certificates, for those who come.
    pub fn set_tls(&mut self, tls: Option<TlsServer>) {
        self.tls = tls;
    }

    /// Is this a key of ours?
    pub fn owns(key: u64) -> bool {
        (KEYS..=LISTENER).contains(&key)
    }

    /// When [`Self::expire`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.visitors.iter().map(|(_, visitor)| visitor.exchange.deadline()).min()
    }

    /// Closes what has had its time.
    pub fn expire(&mut self, now: Now) {
        self.visitors.retain(|_, visitor| visitor.exchange.deadline() > now.instant);
    }

    /// A descriptor of ours is ready.
    pub fn ready(
        &mut self,
        monitor: &mut Monitor,
        scene: Scene<'_>,
        event: Ready,
        poller: &Poller,
    ) {
        if event.key == LISTENER {
            return self.accept(scene.now, poller);
        }
        let Ok(index) = usize::try_from(event.key & 0xffff_ffff) else { return };
        let keep = self.turn(monitor, scene, index, event);
        let Some(visitor) = self.visitors.get_mut(index) else { return };
        let unsent = visitor.socket.wants_write();
        if !keep || (visitor.exchange.is_done() && !unsent) {
            visitor.socket.finish();
            self.visitors.remove(index);
            return;
        }
        // While an answer waits nothing is read; what was sent ahead is answered as soon as
        // the socket takes bytes, which is in the next turn.
        let busy = visitor.exchange.is_writing() || visitor.exchange.has_input() || unsent;
        let want = Want { read: !visitor.exchange.is_writing(), write: busy };
        if want != visitor.want {
            visitor.want = want;
            if poller.modify(&visitor.socket, event.key, want).is_err() {
                self.visitors.remove(index);
            }
        }
    }

    /// Says whether the connection goes on.
    fn turn(
        &mut self,
        monitor: &mut Monitor,
        scene: Scene<'_>,
        index: usize,
        event: Ready,
    ) -> bool {
        let now = scene.now.instant;
        let backlog: usize = self.visitors.iter().map(|(_, other)| other.exchange.backlog()).sum();
        let Some(visitor) = self.visitors.get_mut(index) else { return false };
        if visitor.socket.is_handshaking() {
            if self.handshakes.0 != now {
                self.handshakes = (now, 0);
            }
            self.handshakes.1 += 1;
            if self.handshakes.1 > HANDSHAKES_PER_TURN {
                // It stays ready: the next turn comes back to it.
                return true;
            }
        }
        if event.write && (!write(visitor, now) || visitor.socket.send(&[]).is_err()) {
            return false;
        }
        if visitor.exchange.is_writing() {
            return true;
        }
        let mut request = visitor.exchange.next_request(now);
        if request.is_none() && event.read && !visitor.exchange.is_writing() {
            let mut buffer = [0; READ_BYTES];
            let mut plain = Vec::new();
            match visitor.socket.receive(&mut buffer, &mut plain) {
                Ok(Received::Bytes(count)) => {
                    let bytes = buffer.get(..count).unwrap_or(&[]);
                    request = visitor.exchange.receive(now, bytes);
                }
                Ok(Received::Decrypted) if plain.is_empty() => {
                    return !visitor.socket.is_finished();
                }
                Ok(Received::Decrypted) => request = visitor.exchange.receive(now, &plain),
                Ok(Received::Nothing) => {}
                Ok(Received::End) | Err(_) => return false,
            }
        }
        if let Some(request) = request {
            let response = if backlog > BACKLOG_BYTES_MAX {
                Response::text(503, "too many answers wait to be read")
            } else {
                monitor.respond(scene, &request)
            };
            visitor.exchange.respond(now, response);
        }
        write(visitor, now)
    }

    fn accept(&mut self, now: Now, poller: &Poller) {
        for _ in 0..ACCEPTS_PER_TURN {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            // Out of descriptors: the listener stays ready, and those waiting have had their
            // time before long.
            let Ok(fd) = rustix::net::accept_with(&self.listener, flags) else { return };
            self.add(now, fd, poller);
        }
    }

    fn add(&mut self, now: Now, fd: OwnedFd, poller: &Poller) {
        if self.visitors.len() >= CONNECTIONS_MAX {
            let next = self
                .visitors
                .iter()
                .filter(|(_, visitor)| !visitor.exchange.is_writing())
                .min_by_key(|(_, visitor)| visitor.exchange.deadline())
                .map(|(index, _)| index);
            match next {
                Some(index) => drop(self.visitors.remove(index)),
                None => return,
            }
        }
        let mut socket = Socket::new(fd);
        if let Some(tls) = &self.tls {
            let Ok(session) = tls.session() else { return };
            socket.start_tls(session);
        }
        let entry = self.visitors.vacant_entry();
        let visitor = Visitor { socket, exchange: Exchange::new(now.instant), want: Want::READ };
        if poller.add(&visitor.socket, KEYS | entry.key() as u64, Want::READ).is_ok() {
            entry.insert(visitor);
        }
    }
}

/// Writes what fits; says whether the connection goes on.
fn write(visitor: &mut Visitor, now: Instant) -> bool {
    if !visitor.exchange.is_writing() {
        return true;
    }
    match visitor.socket.send(visitor.exchange.pending()) {
        Ok(count) => {
            visitor.exchange.transmitted(now, count);
            true
        }
        Err(_) => false,
    }
}
