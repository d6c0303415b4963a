//! The event loop: one thread that reads, lets the broker decide, and writes.
//!
//! Owns the listener, the sockets and the turn. A turn waits for readiness, feeds the broker
//! everything that is ready, hands it the store's replies and the time, and then writes each
//! connection that has something once. Does not own any decision.
//!
//! # Invariants
//! - Every connection in `sockets` is known to the broker under the same id, until the
//!   broker has been told that it is closed.
//! - A socket is watched for writing exactly while it refused bytes.

mod claims;
mod doors;
mod reading;
mod reload;
mod web;

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::net::SocketFlags;

use self::doors::Doors;
use super::claims::Claims;
use super::http::Pages;
use super::log::LogOptions;
use super::pace::Pace;
use super::passwords::Passwords;
use super::reload::Reloader;
use super::systemd::Manager;
use crate::auth::creds::CREDS_BYTES_MAX;
use crate::broker::system::SystemRequest;
use crate::broker::{Broker, CloseReason, Notice, Output};
use crate::id::ConnId;
use crate::jetstream::storage::{StoreError, StoreReply, StoreRequest};
use crate::leaf::remote::Dial;
use crate::limits::{self, READ_BUFFER_BYTES_MIN};
use crate::monitor::{Action, Monitor, Scene, Settings};
use crate::net::clock::Clock;
use crate::net::dial::{Dialled, Dialler};
use crate::net::opening::Opening;
use crate::net::poller::{Poller, Ready, Waker, Want};
use crate::net::signals::{Signal, Signals};
use crate::net::socket::Socket;
use crate::net::tls::TlsClient;
use crate::net::tls_server::TlsServer;
use crate::net::websocket::deflate::Deflater;
use crate::store::StoreStats;
use crate::time::{Duration, Instant, Now};

/// Keys of what is not a connection.
const LISTENER: u64 = u64::MAX - 1;
const WEB_LISTENER: u64 = u64::MAX - 3;
const SIGNALS: u64 = u64::MAX - 2;

/// Connections accepted in one turn, so that a storm of them does not starve the others.
const ACCEPTS_PER_TURN: usize = 64;

/// After an accept that failed for want of descriptors or memory, in milliseconds: the first
/// and the longest pause.
const ACCEPT_PAUSE_MS: (u64, u64) = (10, 1_000);

/// A connection's socket.
#[derive(Debug)]
struct Peer {
    id: ConnId,
    socket: Socket,
    want: Want,
    /// Set while it rests because those it sends to are behind.
    resume_at: Option<Instant>,
    /// To be closed once what waits for it is written, or at this time.
    close_by: Option<Instant>,
    /// The broker waits for the end of a TLS handshake.
    tls_begun: bool,
    /// It is on its way in: the broker does not hear it yet.
    opening: Option<Box<Opening>>,
    /// It said a lot when it was heard last.
    bulky: bool,
}

/// A dial under way.
#[derive(Debug)]
struct Dialling {
    remote: usize,
    dial: Dial,
    credentials: Option<String>,
}

/// Prints what operators should know.
pub trait Print {
    /// One line.
    fn print(&mut self, now: Now, notice: &Notice);

    /// SIGUSR1: open the log file anew.
    fn reopen(&mut self, now: Now);

    /// A reload: lines go elsewhere, or others are wanted.
    ///
    /// # Errors
    /// Lines cannot go there; they go on as before.
    fn reconfigure(&mut self, now: Now, options: LogOptions) -> Result<(), String>;
}

/// The store, as the loop sees it.
pub trait StorePort {
    /// Queues a request; never blocks.
    fn submit(&mut self, request: StoreRequest);

    /// The next reply, if there is one.
    fn poll_reply(&mut self) -> Option<StoreReply>;

    /// What it did since it was opened.
    fn stats(&self) -> StoreStats {
        StoreStats::default()
    }

    /// Writes what is queued and closes the files. May take as long as the disk does. The
    /// replies can still be polled.
    ///
    /// # Errors
    /// What could not be written.
    fn close(&mut self) -> Result<(), StoreError>;
}

/// The server as it runs.
pub struct Server<P> {
    broker: Broker,
    store: Option<Box<dyn StorePort>>,
    clock: Clock,
    poller: Poller,
    listener: Option<TcpListener>,
    pages: Option<Pages>,
    web_listener: Option<TcpListener>,
    monitor: Monitor,
    signals: Signals,
    dialler: Dialler<Dialling>,
    passwords: Passwords,
    claims: Claims,
    /// Requests that wait for a change of the resolver's directory.
    claims_waiting: VecDeque<SystemRequest>,
    /// By remote.
    tls: Vec<TlsClient>,
    doors: Doors,
    print: P,
    peers: Vec<Option<Peer>>,
    /// What all connections are read into. It begins small and doubles whenever a read fills
    /// it: a gateway with a few sensors never pays for what a flood is read with.
    buffer: Vec<u8>,
    /// What TLS makes of it.
    plain: Vec<u8>,
    deflater: Deflater,
    pace: Pace,
    ready: Vec<Ready>,
    /// Connections that rest, and which receiver each waits for.
    resting: Vec<(ConnId, ConnId)>,
    closing: Vec<ConnId>,
    /// When accepting goes on after an accept failed.
    accept_at: Option<Instant>,
    /// How long the last such pause was, in milliseconds; 0 once an accept succeeded.
    accept_pause_ms: u64,
    /// Grace period and duration of lame duck mode.
    lame_duck: (Duration, Duration),
    reloader: Option<Reloader>,
    manager: Manager,
    stopping: bool,
    recovered: bool,
    /// A request for a reload is being answered.
    answering: bool,
}

impl<P: Print> Server<P> {
    /// A server that is ready to accept on `listener` once [`Self::run`] is called.
    /// `open_store` gets what wakes the loop. `tls` has one entry for each leaf remote.
    ///
    /// # Errors
    /// When descriptors cannot be had.
    pub fn new(
        broker: Broker,
        clock: Clock,
        print: P,
        tls: Vec<TlsClient>,
        open_store: impl FnOnce(Waker) -> io::Result<Option<Box<dyn StorePort>>>,
    ) -> io::Result<Self> {
        let poller = Poller::new()?;
        let signals = Signals::new()?;
        poller.add(&signals, SIGNALS, Want::READ)?;
        let waker = poller.waker();
        let store = open_store(poller.waker())?;
        Ok(Self {
            broker,
            store,
            clock,
            poller,
            listener: None,
            pages: None,
            web_listener: None,
            monitor: Monitor::new(Settings::default()),
            signals,
            passwords: Passwords::new(waker.clone()),
            claims: Claims::new(waker.clone()),
            claims_waiting: VecDeque::new(),
            dialler: Dialler::new(waker),
            tls,
            doors: Doors::default(),
            print,
            peers: Vec::new(),
            buffer: vec![0; READ_BUFFER_BYTES_MIN],
            plain: Vec::new(),
            deflater: Deflater::default(),
            pace: Pace::default(),
            ready: Vec::new(),
            resting: Vec::new(),
            closing: Vec::new(),
            accept_at: None,
            accept_pause_ms: 0,
            lame_duck: (limits::LAME_DUCK_GRACE, limits::LAME_DUCK_DURATION),
            reloader: None,
            manager: Manager::default(),
            stopping: false,
            recovered: false,
            answering: false,
        })
    }

    /// Takes over the listening socket.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub fn listen(&mut self, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        self.poller.add(&listener, LISTENER, Want::READ)?;
        self.listener = Some(listener);
        Ok(())
    }

    /// Where the tokens of accounts are kept.
    pub fn set_claims_directory(&mut self, directory: Option<&std::path::Path>) {
        self.claims.set_directory(directory);
    }

    /// How lame duck mode goes: the grace period, and all of it.
    pub fn set_lame_duck(&mut self, grace: Duration, duration: Duration) {
        self.lame_duck = (grace, duration);
    }

    /// Serves the monitoring pages, also before clients can connect.
    ///
    /// # Errors
    /// When the socket cannot be watched.
    pub fn serve_pages(&mut self, listener: TcpListener, tls: Option<TlsServer>) -> io::Result<()> {
        self.pages = Some(Pages::new(listener, tls, &self.poller)?);
        Ok(())
    }

    /// What the pages show of the configuration.
    pub fn set_monitor(&mut self, settings: Settings) {
        self.monitor = Monitor::new(settings);
    }

    /// Answers requests to the server's own services, a few a turn, and tells what happened.
    fn answer_requests(&mut self, now: Now) {
        if self.answering {
            return;
        }
        for _ in 0..limits::SYSTEM_REQUESTS_PER_TURN {
            let Some(request) = self.broker.poll_request() else { break };
            if self.broker.is_claims_request(&request) {
                self.claims_request(now, request);
                continue;
            }
            let store = self.store.as_ref().map(|store| store.stats());
            let scene = Scene { now, broker: &self.broker, store };
            let mut answer = self.monitor.answer(scene, &request);
            match answer.action {
                Action::Nothing => {}
                Action::Kick(cid) => drop(self.broker.kick(now, cid)),
                Action::AskToGo(cid) => drop(self.broker.ask_to_go(now, cid)),
                Action::Reload => {
                    self.answering = true;
                    let result = self.reload(now);
                    self.answering = false;
                    let scene = Scene { now, broker: &self.broker, store };
                    answer = self.monitor.reloaded(scene, &result);
                }
            }
            if let Some(payload) = answer.payload {
                self.broker.answer(now, &request, &payload);
            }
        }
        while let Some(event) = self.broker.poll_event() {
            let store = self.store.as_ref().map(|store| store.stats());
            let scene = Scene { now, broker: &self.broker, store };
            for told in self.monitor.tell(scene, &event) {
                self.broker.publish_in(now, told.account, told.subject.as_bytes(), &told.payload);
            }
        }
    }

    fn page_ready(&mut self, now: Now, event: Ready) {
        let store = self.store.as_ref().map(|store| store.stats());
        let scene = Scene { now, broker: &self.broker, store };
        if let Some(pages) = &mut self.pages {
            pages.ready(&mut self.monitor, scene, event, &self.poller);
        }
    }

    /// What is to be served.
    pub fn broker(&mut self) -> &mut Broker {
        &mut self.broker
    }

    /// Runs turns until the store has said what it holds, so that clients find every stream.
    ///
    /// # Errors
    /// When waiting fails.
    pub fn recover(&mut self) -> io::Result<()> {
        while self.store.is_some() && !self.recovered && !self.stopping {
            self.turn()?;
        }
        Ok(())
    }

    /// Prints a line.
    pub fn notice(&mut self, notice: &Notice) {
        self.print.print(self.clock.now(), notice);
    }

    /// Clients may connect: the service manager hears of it.
    pub fn ready(&mut self) {
        self.manager.ready(self.clock.now().instant, "Server is ready");
    }

    /// Serves until a signal says stop, then closes everything.
    ///
    /// # Errors
    /// When waiting fails, which ends the server.
    pub fn run(&mut self) -> io::Result<()> {
        while !self.stopping {
            self.turn()?;
        }
        self.shut_down();
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        let timeout = self.timeout();
        let mut ready = std::mem::take(&mut self.ready);
        self.doors.begin_turn();
        let result = self.poller.wait(timeout, &mut ready);
        let now = self.clock.now();
        // Who said a lot comes last, after what the others caused has been written.
        let mut bulky = Vec::new();
        ready.retain(|event| {
            let is_bulky = self.is_bulky(event.key);
            if is_bulky {
                bulky.push(*event);
            }
            !is_bulky
        });
        ready.append(&mut bulky);
        let mut quiet = true;
        for event in ready.drain(..) {
            if quiet && self.is_bulky(event.key) {
                quiet = false;
                self.flush_dirty(now);
            }
            match event.key {
                LISTENER | WEB_LISTENER => self.accept(now, event.key == WEB_LISTENER),
                SIGNALS => self.signals(now),
                key if Pages::owns(key) => self.page_ready(now, event),
                key => self.peer_ready(now, key, event),
            }
        }
        self.ready = ready;
        result?;
        if let Some(pages) = &mut self.pages {
            pages.expire(now);
        }
        self.wake_resting(now);
        if self.doors.poll_timeout().is_some_and(|at| at <= now.instant) {
            self.doors_timeout(now);
        }
        self.take_replies(now);
        for dialled in self.dialler.poll() {
            self.dialled(now, dialled);
        }
        self.passwords_checked(now);
        self.claims_done(now);
        if self.broker.poll_timeout().is_some_and(|at| at <= now.instant) {
            self.broker.handle_timeout(now);
        }
        self.manager.alive(now.instant);
        self.finish_turn(now);
        // A relaxed store has applied a publish by now: its ack need not wait for a wake-up.
        if self.take_replies(now) {
            self.finish_turn(now);
        }
        Ok(())
    }

    /// Hands the store's replies over. Says whether there were any.
    fn take_replies(&mut self, now: Now) -> bool {
        let mut any = false;
        if let Some(store) = &mut self.store {
            while let Some(reply) = store.poll_reply() {
                any = true;
                self.recovered = true;
                self.broker.handle_store(now, reply);
            }
        }
        any
    }

    /// Carries out what the broker asks for, and writes.
    fn finish_turn(&mut self, now: Now) {
        self.answer_requests(now);
        self.broker.end_turn(now);
        loop {
            let mut idle = true;
            while let Some(output) = self.broker.poll_output() {
                idle = false;
                match output {
                    Output::Store(request) => {
                        if let Some(store) = &mut self.store {
                            store.submit(request);
                        }
                    }
                    Output::Notice(notice) => self.print.print(now, &notice),
                    Output::LameDuckOver => self.stopping = true,
                    Output::Close { conn, flush, reason } => {
                        self.begin_close(now, conn, flush, reason);
                    }
                    Output::Dial { remote, dial, credentials } => {
                        let (host, port) = (dial.url.host.clone(), dial.url.port);
                        let timeout = dial.timeout;
                        let dialling = Dialling { remote, dial, credentials };
                        self.dialler.dial(dialling, host, port, timeout);
                    }
                    Output::StartTls { conn, remote, name } => {
                        self.start_tls(now, conn, remote, &name);
                    }
                    Output::FetchClaims { account, url } => self.claims.fetch(account, url),
                    Output::CheckPassword { conn, hash, password } => {
                        self.passwords.check(conn, hash, password);
                    }
                }
            }
            while let Some(id) = self.broker.next_dirty() {
                idle = false;
                self.flush(now, id);
            }
            if idle {
                break;
            }
        }
        self.finish_closes(now);
    }

    fn timeout(&self) -> Option<Duration> {
        let now = self.clock.now().instant;
        let resting = self.resting.iter().filter_map(|(id, _)| self.peer(*id)?.resume_at).min();
        let closing = self.closing.iter().filter_map(|id| self.peer(*id)?.close_by).min();
        let accepting = self.accept_at;
        let doors = self.doors.poll_timeout();
        let pages = self.pages.as_ref().and_then(Pages::poll_timeout);
        let alive = self.manager.poll_timeout();
        let next = [self.broker.poll_timeout(), resting, closing, accepting, doors, pages, alive]
            .into_iter()
            .flatten()
            .min()?;
        Some(next.since(now))
    }

    // --- Accepting ---

    fn accept(&mut self, now: Now, web: bool) {
        for _ in 0..ACCEPTS_PER_TURN {
            let listener = if web { &self.web_listener } else { &self.listener };
            let Some(listener) = listener else { return };
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            match rustix::net::acceptfrom_with(listener, flags) {
                Ok((fd, address)) => {
                    self.accept_pause_ms = 0;
                    let peer = address
                        .and_then(|address| SocketAddr::try_from(address).ok())
                        .map_or_else(String::new, |address| address.to_string());
                    // Only latency suffers if this fails.
                    let _ = rustix::net::sockopt::set_tcp_nodelay(&fd, true);
                    let entrance =
                        Rc::clone(if web { &self.doors.web } else { &self.doors.client });
                    let id = self.broker.accept_at(now, &peer, entrance.door());
                    self.add_peer(now, id, fd);
                    if !entrance.is_open() {
                        self.enter(now, id, entrance);
                    }
                }
                Err(rustix::io::Errno::AGAIN) => return,
                Err(rustix::io::Errno::CONNABORTED | rustix::io::Errno::INTR) => {}
                Err(error) => {
                    let pause =
                        (self.accept_pause_ms * 2).clamp(ACCEPT_PAUSE_MS.0, ACCEPT_PAUSE_MS.1);
                    self.accept_pause_ms = pause;
                    self.accept_at = Some(now.instant + Duration::from_millis(pause));
                    self.watch_listener(false);
                    let text = format!(
                        "Temporary client accept error ({error}), sleeping {pause}ms; \
                         raise the limit of open files (LimitNOFILE, ulimit -n) or lower \
                         max_connections"
                    );
                    self.print.print(now, &Notice::error(text));
                    return;
                }
            }
        }
    }

    fn watch_listener(&self, read: bool) {
        let want = Want { read, write: false };
        for (listener, key) in [(&self.listener, LISTENER), (&self.web_listener, WEB_LISTENER)] {
            if let Some(listener) = listener {
                // It was registered before, so this cannot fail for want of memory.
                let _ = self.poller.modify(listener, key, want);
            }
        }
    }

    fn add_peer(&mut self, now: Now, id: ConnId, fd: OwnedFd) {
        let socket = Socket::new(fd);
        if let Err(error) = self.poller.add(&socket, key(id), Want::READ) {
            let text = format!("cannot watch a new connection: {error}");
            self.print.print(now, &Notice::error(text));
            self.broker.closed(now, id);
            return;
        }
        let index = id.index as usize;
        if self.peers.len() <= index {
            self.peers.resize_with(index + 1, || None);
        }
        if let Some(slot) = self.peers.get_mut(index) {
            *slot = Some(Peer {
                id,
                socket,
                want: Want::READ,
                resume_at: None,
                close_by: None,
                tls_begun: false,
                opening: None,
                bulky: false,
            });
        }
    }

    fn peer(&self, id: ConnId) -> Option<&Peer> {
        self.peers.get(id.index as usize)?.as_ref().filter(|peer| peer.id == id)
    }

    fn peer_mut(&mut self, id: ConnId) -> Option<&mut Peer> {
        self.peers.get_mut(id.index as usize)?.as_mut().filter(|peer| peer.id == id)
    }

    fn is_bulky(&self, key: u64) -> bool {
        self.peer(id_of(key)).is_some_and(|peer| peer.bulky)
    }

    // --- Dialling ---

    fn dialled(&mut self, now: Now, dialled: Dialled<Dialling>) {
        let Dialling { remote, dial, credentials } = dialled.key;
        match dialled.result {
            Ok((fd, address)) => {
                let unacked = limits::LEAF_UNACKED_MAX.as_millis();
                // Without it a dead link is found by PING, only later.
                let _ = rustix::net::sockopt::set_tcp_user_timeout(
                    &fd,
                    u32::try_from(unacked).unwrap_or(u32::MAX),
                );
                let text = credentials.map(|path| {
                    read_credentials(&path).map_err(|error| format!("{path}: {error}"))
                });
                let text = text.as_ref().map(|text| text.as_deref().map_err(String::as_str));
                if let Some(id) = self.broker.dialed(now, remote, &dial, text) {
                    self.broker.name_peer(id, &address.to_string());
                    self.add_peer(now, id, fd);
                }
            }
            Err(error) => {
                self.broker.dial_failed(now, remote, dial.attempt, &error.to_string());
            }
        }
    }

    fn start_tls(&mut self, now: Now, id: ConnId, remote: usize, server_name: &str) {
        // What was written before TLS goes out in the clear.
        self.flush(now, id);
        let session = match self.tls.get(remote) {
            Some(tls) => tls.session(server_name),
            None => Err("this remote has no TLS configuration".to_owned()),
        };
        match session {
            Ok(session) => {
                if let Some(Some(peer)) = self.peers.get_mut(id.index as usize)
                    && peer.id == id
                {
                    peer.socket.start_tls(session);
                    peer.tls_begun = true;
                    self.flush(now, id);
                }
            }
            Err(error) => self.broker.tls_done(now, id, Err(&error)),
        }
    }

    /// Tells the broker once a handshake has ended well.
    fn check_tls(&mut self, now: Now, id: ConnId) {
        let Some(Some(peer)) = self.peers.get_mut(id.index as usize) else { return };
        if peer.id == id && peer.tls_begun && !peer.socket.is_handshaking() {
            peer.tls_begun = false;
            self.broker.tls_done(now, id, Ok(()));
            // The end of the handshake may not have fitted the socket.
            self.flush(now, id);
        }
    }

    // --- Writing ---

    fn flush_dirty(&mut self, now: Now) {
        while let Some(id) = self.broker.next_dirty() {
            self.flush(now, id);
        }
    }

    fn flush(&mut self, now: Now, id: ConnId) {
        let Some(Some(peer)) = self.peers.get_mut(id.index as usize) else { return };
        if peer.id != id {
            return;
        }
        let pending = self.broker.pending(id);
        if pending.is_empty() && !peer.socket.wants_write() && !peer.want.write {
            return;
        }
        let all = pending.len();
        match peer.socket.send_messages(pending, &mut self.deflater) {
            Ok(count) => {
                let blocked = count < all || peer.socket.wants_write();
                if blocked != peer.want.write {
                    peer.want.write = blocked;
                    let _ = self.poller.modify(&peer.socket, key(id), peer.want);
                }
                if all > 0 {
                    self.broker.transmitted(now, id, count);
                }
            }
            Err(_) => {
                self.broker.broken(now, id);
                self.drop_peer(now, id);
            }
        }
    }

    // --- Closing ---

    fn begin_close(&mut self, now: Now, id: ConnId, flush: bool, reason: CloseReason) {
        let Some(Some(peer)) = self.peers.get_mut(id.index as usize) else { return };
        if peer.id != id {
            return;
        }
        if !flush {
            return self.drop_peer(now, id);
        }
        // As long as the peer takes bytes within this time it gets them all.
        peer.opening = None;
        if let Some(web) = peer.socket.web_mut() {
            web.close_for(reason);
        }
        peer.close_by = Some(now.instant + Duration::from_millis(500));
        self.closing.push(id);
        self.flush(now, id);
    }

    /// Closes what has been written, or had its time.
    fn finish_closes(&mut self, now: Now) {
        if self.closing.is_empty() {
            return;
        }
        let mut closing = std::mem::take(&mut self.closing);
        closing.retain(|&id| {
            let Some(peer) = self.peer(id) else { return false };
            let late = peer.close_by.is_none_or(|at| at <= now.instant);
            if late || (self.broker.pending(id).is_empty() && !peer.socket.wants_write()) {
                self.drop_peer(now, id);
                return false;
            }
            true
        });
        self.closing.extend(closing);
    }

    fn drop_peer(&mut self, now: Now, id: ConnId) {
        if let Some(slot) = self.peers.get_mut(id.index as usize)
            && slot.as_ref().is_some_and(|peer| peer.id == id)
        {
            if let Some(mut peer) = slot.take() {
                peer.socket.finish();
            }
            self.broker.closed(now, id);
        }
    }

    // --- Signals and the end ---

    fn signals(&mut self, now: Now) {
        for signal in self.signals.take() {
            // As nats-server: whoever began lame duck mode wants it to run its course.
            if self.broker.is_lame_duck() && signal == Signal::Terminate {
                continue;
            }
            let text = format!("Trapped \"{}\" signal", signal.name());
            self.print.print(now, &Notice::info(text));
            match signal {
                Signal::Interrupt | Signal::Terminate => self.stopping = true,
                Signal::Reopen => self.print.reopen(now),
                // What was wrong has been logged.
                Signal::Reload => drop(self.reload(now)),
                Signal::LameDuck => {
                    let text = "Entering lame duck mode, stop accepting new clients";
                    if self.broker.is_lame_duck() {
                        continue;
                    }
                    self.print.print(now, &Notice::info(text));
                    self.listener = None;
                    self.web_listener = None;
                    self.manager.draining();
                    let (grace, duration) = self.lame_duck;
                    self.broker.begin_lame_duck(now, grace, duration);
                }
            }
        }
    }

    /// What was published is stored and acknowledged, then every connection ends.
    fn shut_down(&mut self) {
        let now = self.clock.now();
        self.manager.stopping();
        self.print.print(now, &Notice::info("Initiating Shutdown..."));
        self.listener = None;
        self.web_listener = None;
        self.broker.note_shutdown(now);
        self.broker.close_remotes();
        self.broker.save(now);
        self.finish_turn(now);
        if let Some(mut store) = self.store.take() {
            if let Err(error) = store.close() {
                let text = format!("the store was not closed as it should be: {error}");
                self.print.print(now, &Notice::error(text));
            }
            while let Some(reply) = store.poll_reply() {
                self.broker.handle_store(now, reply);
            }
        }
        let now = self.clock.now();
        self.broker.shut_down(now);
        self.finish_turn(now);
        self.peers.clear();
        self.print.print(now, &Notice::info("Server Exiting.."));
    }
}

impl<P: std::fmt::Debug> std::fmt::Debug for Server<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("print", &self.print).finish_non_exhaustive()
    }
}

fn read_credentials(path: &str) -> io::Result<String> {
    let mut text = String::new();
    // One byte more tells that there is more.
    let most = CREDS_BYTES_MAX as u64 + 1;
    std::fs::File::open(path)?.take(most).read_to_string(&mut text)?;
    if text.len() > CREDS_BYTES_MAX {
        let text = format!("longer than {CREDS_BYTES_MAX} bytes, so it cannot be a creds file");
        return Err(io::Error::other(text));
    }
    Ok(text)
}

/// The key a connection is registered under.
fn key(id: ConnId) -> u64 {
    u64::from(id.generation) << 32 | u64::from(id.index)
}

#[expect(clippy::cast_possible_truncation, reason = "the inverse of key()")]
fn id_of(key: u64) -> ConnId {
    ConnId { index: key as u32, generation: (key >> 32) as u32 }
}
