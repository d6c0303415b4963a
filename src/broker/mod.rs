//! The broker: a deterministic state machine between bytes and bytes.
//!
//! Owns connections, subscriptions, routing, timers and the calls into JetStream. Does not
//! own sockets, files, clocks or threads: the shell (`crate::net`) feeds it and carries out
//! what it asks for.
//!
//! # Run loop
//! One mutation ([`Broker::accept`], [`Broker::receive`], [`Broker::closed`],
//! [`Broker::handle_store`], [`Broker::handle_timeout`] …), any number of times in a turn;
//! then [`Broker::end_turn`]; then drain [`Broker::poll_output`] to `None`, write what
//! [`Broker::next_dirty`] names, and wait until [`Broker::poll_timeout`]. Bytes for a socket
//! come from [`Broker::pending`], which lends a slice, and [`Broker::transmitted`] says how
//! much was taken: back-pressure reaches the core as a number, not as a blocked task.
//!
//! # Where things are
//! - Accepting, doors, the first INFO: [`arrival`]. SUB, PUB, CONNECT: `client`. Routing, queue choice, slow consumers: `core`.
//! - Subject tree: [`interest`]. Bytes waiting for a socket: [`outbox`].
//! - Leaf connections: `leaf`. JetStream: `crate::jetstream`, through its `Host` trait.
//!
//! # Invariants
//! - The same seed and the same calls give the same bytes.
//! - No call blocks, and no peer's bytes can make one panic.

pub mod arrival;
pub mod connect;
pub mod interest;
pub mod options;
pub mod outbox;
pub mod view;

mod client;
mod conn;
mod core;
mod leaf;

use ::core::cmp::Reverse;
use ::core::time::Duration;
use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

pub use self::client::quoted;
pub use self::conn::CloseReason;
use self::conn::{Conn, Kind};
use self::core::{Core, Msg, Origin};
use self::options::Options;
use crate::id::ConnId;
use crate::jetstream::host::{Inbound, Target};
use crate::jetstream::storage::{StoreReply, StoreRequest};
use crate::jetstream::{self, JetStream};
use crate::leaf::Identity;
use crate::leaf::remote::Dial;
use crate::proto::client::{Bounds, Parsed, parse};
use crate::time::{Instant, Now};

/// How bad a [`Notice`] is; the log level it is printed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Connections coming and going.
    Debug,
    /// The life of the server.
    Info,
    /// Something to look at.
    Warn,
    /// Something to mend.
    Error,
}

/// Something an operator should know, one log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// At which level.
    pub level: Level,
    /// The line.
    pub text: String,
}

impl Notice {
    /// At [`Level::Debug`].
    pub fn debug(text: impl Into<String>) -> Self {
        Self { level: Level::Debug, text: text.into() }
    }

    /// At [`Level::Info`].
    pub fn info(text: impl Into<String>) -> Self {
        Self { level: Level::Info, text: text.into() }
    }

    /// At [`Level::Warn`].
    pub fn warn(text: impl Into<String>) -> Self {
        Self { level: Level::Warn, text: text.into() }
    }

    /// At [`Level::Error`].
    pub fn error(text: impl Into<String>) -> Self {
        Self { level: Level::Error, text: text.into() }
    }
}

/// What the shell is asked to do.
#[derive(Debug)]
pub enum Output {
    /// End a connection: after writing what waits for it if `flush`, else at once. Then call
    /// [`Broker::closed`].
    Close {
        /// Which.
        conn: ConnId,
        /// Write the rest first.
        flush: bool,
        /// Why.
        reason: CloseReason,
    },
    /// Hand a request to the store.
    Store(StoreRequest),
    /// Connect to a hub; then [`Broker::dialed`] or [`Broker::dial_failed`].
    Dial {
        /// Which remote.
        remote: usize,
        /// Where to and for how long.
        dial: Dial,
        /// The creds file to read for [`Broker::dialed`].
        credentials: Option<String>,
    },
    /// Start TLS as a client on a connection, once what waits for it is written; then
    /// [`Broker::tls_done`].
    StartTls {
        /// Which.
        conn: ConnId,
        /// Whose TLS options.
        remote: usize,
        /// The name to ask for and to check.
        name: String,
    },
    /// Print a line.
    Notice(Notice),
}

/// A publish on its way in.
#[derive(Clone, Copy, Debug)]
struct PubMsg<'a> {
    subject: &'a [u8],
    reply: &'a [u8],
    headers: &'a [u8],
    payload: &'a [u8],
}

/// The broker.
#[derive(Debug)]
pub struct Broker {
    core: Core,
    js: Option<JetStream>,
    /// `$JS.<domain>.API.`, which stands for `$JS.API.`.
    domain_prefix: Vec<u8>,
    targets: Vec<Target>,
    uplinks: Vec<leaf::Uplink>,
    /// Who we are to hubs.
    identity: Identity,
    /// Lame duck: new clients are told to go elsewhere.
    ldm: bool,
}

impl Broker {
    /// A broker with no connections. All chance in it comes from `seed`.
    pub fn new(options: Options, js: Option<jetstream::options::Options>, seed: u64) -> Self {
        let domain_prefix = match &options.domain {
            Some(domain) => format!("$JS.{domain}.API.").into_bytes(),
            None => Vec::new(),
        };
        let identity = leaf::identity(&options);
        let mut core = Core::new(options, seed);
        let js = js.map(|options| JetStream::new(options, core.rng.next_u64()));
        Self {
            core,
            js,
            domain_prefix,
            targets: Vec::new(),
            uplinks: Vec::new(),
            identity,
            ldm: false,
        }
    }

    // --- Connections ---

    fn add_conn(&mut self, now: Now, kind: Kind) -> ConnId {
        let core = &mut self.core;
        let entry = core.conns.vacant_entry();
        let id = ConnId {
            index: u32::try_from(entry.key()).unwrap_or(u32::MAX),
            generation: core.next_generation,
        };
        core.next_generation = core.next_generation.wrapping_add(1);
        if matches!(&kind, Kind::Client(client) if client.counts()) {
            core.clients += 1;
        }
        let conn = Conn {
            id,
            cid: core.next_cid,
            kind,
            outbox: outbox::Outbox::default(),
            partial: Vec::new(),
            bounds: Bounds {
                control_line: core.options.max_control_line,
                payload: core.options.max_payload,
                headers: false,
            },
            dirty: false,
            closing: false,
            backlogged: false,
            write_by: None,
            timer_at: None,
            ping_at: Conn::NEVER,
            pings_out: 0,
            pings_sent: 0,
            heard_at: now.instant,
            opened_at: now.instant,
            active_at: now.instant,
            ping_sent_at: None,
            rtt: Duration::ZERO,
            stalls: 0,
            ending: None,
            msgs_in: 0,
            bytes_in: 0,
            msgs_out: 0,
            bytes_out: 0,
        };
        core.next_cid += 1;
        entry.insert(conn);
        core.note_opened();
        core.arm(id.index);
        id
    }

    /// Bytes from a connection's socket. Ids of connections that are gone are ignored.
    pub fn receive(&mut self, now: Now, id: ConnId, bytes: &[u8]) {
        self.core.now = now;
        self.core.pressure.0 = 0;
        let Some(conn) = self.core.conn_mut(id.index) else { return };
        if conn.id != id || conn.closing {
            return;
        }
        match conn.kind {
            Kind::Client(_) => self.receive_client(now, id.index, bytes),
            Kind::Leaf(_) => self.receive_leaf(now, id.index, bytes),
        }
    }

    fn receive_client(&mut self, now: Now, index: u32, mut bytes: &[u8]) {
        let Some(conn) = self.core.conn_mut(index) else { return };
        let mut partial = ::core::mem::take(&mut conn.partial);
        // First the operation whose front arrived earlier: it is completed in `partial` with
        // just the bytes it needs.
        while !partial.is_empty() && !bytes.is_empty() {
            let Some(bounds) = self.core.conn(index).map(|conn| conn.bounds) else { return };
            let want = match parse(&partial, &bounds) {
                Ok(Parsed::Incomplete { need: 0 }) => {
                    memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1)
                }
                Ok(Parsed::Incomplete { need }) => need - partial.len(),
                // Cannot be: it was incomplete when it was put aside.
                Ok(Parsed::Op(..)) => 0,
                Err(error) => return self.client_parse_error(index, error),
            };
            // A line may not be followed further than its bound in one go, or a peer could
            // make this buffer grow.
            let want = want.min(bytes.len()).min(crate::limits::READ_BUFFER_BYTES);
            let (front, rest) = bytes.split_at(want);
            partial.extend_from_slice(front);
            bytes = rest;
            match parse(&partial, &bounds) {
                Ok(Parsed::Op(op, used)) => {
                    let more = self.client_op(now, index, op);
                    if !more {
                        return;
                    }
                    partial.drain(..used);
                }
                Ok(Parsed::Incomplete { .. }) => {}
                Err(error) => return self.client_parse_error(index, error),
            }
        }
        loop {
            let Some(bounds) = self.core.conn(index).map(|conn| conn.bounds) else { return };
            if bytes.is_empty() {
                break;
            }
            match parse(bytes, &bounds) {
                Ok(Parsed::Op(op, used)) => {
                    if !self.client_op(now, index, op) {
                        return;
                    }
                    bytes = bytes.get(used..).unwrap_or(&[]);
                }
                Ok(Parsed::Incomplete { need }) => {
                    partial.reserve_exact(need.max(bytes.len()));
                    partial.extend_from_slice(bytes);
                    break;
                }
                Err(error) => return self.client_parse_error(index, error),
            }
        }
        if partial.is_empty() {
            partial = Vec::new();
        }
        if let Some(conn) = self.core.conn_mut(index) {
            conn.partial = partial;
        }
    }

    /// The shell closed a connection's socket, or found it closed.
    pub fn closed(&mut self, now: Now, id: ConnId) {
        self.core.now = now;
        if self.core.conn(id.index).is_some_and(|conn| conn.id == id) {
            self.leaf_closed(now, id.index);
        }
        self.core.remove_conn(id);
    }

    // --- Writing ---

    /// The next connection with bytes that were appended since it was last named here.
    pub fn next_dirty(&mut self) -> Option<ConnId> {
        loop {
            let id = self.core.dirty.pop()?;
            if let Some(conn) = self.core.conn_mut(id.index).filter(|conn| conn.id == id) {
                conn.dirty = false;
                return Some(id);
            }
        }
    }

    /// How many connections have bytes that were appended in this turn.
    pub fn dirty_count(&self) -> usize {
        self.core.dirty.len()
    }

    /// The bytes that wait for a connection.
    pub fn pending(&self, id: ConnId) -> &[u8] {
        match self.core.conn(id.index) {
            Some(conn) if conn.id == id => conn.outbox.pending(),
            _ => &[],
        }
    }

    /// The socket took `count` of the [`Self::pending`] bytes, and no more for now.
    pub fn transmitted(&mut self, now: Now, id: ConnId, count: usize) {
        self.core.now = now;
        if self.core.conn(id.index).is_some_and(|conn| conn.id == id) {
            self.core.transmitted(id.index, count);
        }
    }

    /// Whether the connection just read from should rest, because a receiver of what it sent
    /// is behind: until [`Self::is_relieved`] says that this receiver has caught up, and for
    /// a short time at most, so that one slow receiver never stops a publisher.
    pub fn stall(&self) -> Option<(ConnId, Duration)> {
        let (waiting, receiver) = self.core.pressure;
        if waiting < STALL_BYTES {
            None
        } else if waiting < self.core.options.max_pending / 4 * 3 {
            Some((receiver, Duration::from_micros(500)))
        } else {
            Some((receiver, Duration::from_millis(10)))
        }
    }

    /// Has the receiver named by [`Self::stall`] caught up, or gone?
    pub fn is_relieved(&self, receiver: ConnId) -> bool {
        self.pending(receiver).len() < STALL_BYTES / 2
    }

    // --- JetStream and the store ---

    /// A reply of the store.
    pub fn handle_store(&mut self, now: Now, reply: StoreReply) {
        self.core.now = now;
        if let Some(js) = &mut self.js {
            js.handle_store(now, reply, &mut self.core);
        }
        self.run_deferred(now);
    }

    /// The end of a turn: what was gathered for the store goes out, and JetStream hears of
    /// interest and backlogs that changed.
    pub fn end_turn(&mut self, now: Now) {
        self.core.now = now;
        self.poll_dials(now);
        let Some(js) = &mut self.js else {
            self.core.changed.clear();
            self.core.drained = false;
            return;
        };
        // Each round may change interest again; what is left waits for the next turn.
        for _ in 0..8 {
            if self.core.changed.is_empty() && !self.core.drained {
                break;
            }
            for subject in ::core::mem::take(&mut self.core.changed) {
                js.handle_interest(now, &subject, &mut self.core);
            }
            if ::core::mem::take(&mut self.core.drained) {
                js.handle_drained(now, &mut self.core);
            }
        }
        self.run_deferred(now);
        if let Some(js) = &mut self.js {
            js.flush(now, &mut self.core);
        }
    }

    /// Routes a publish from outside. Says whether anybody received it.
    fn publish(&mut self, now: Now, origin: Origin<'_>, msg: PubMsg<'_>) -> bool {
        let subject = self.mapped(msg.subject);
        let mut targets = ::core::mem::take(&mut self.targets);
        let routed = Msg {
            to: &subject,
            subject: &subject,
            reply: msg.reply,
            headers: msg.headers,
            payload: msg.payload,
        };
        let delivered = self.core.route(origin, &routed, &mut targets);
        if !targets.is_empty() {
            let inbound = Inbound {
                subject: &subject,
                reply: msg.reply,
                headers: msg.headers,
                payload: msg.payload,
            };
            for target in targets.drain(..) {
                self.hand_to_js(now, target, inbound);
            }
            self.run_deferred(now);
        }
        self.targets = targets;
        delivered
    }

    /// The subject after the mappings of our JetStream domain.
    fn mapped<'a>(&self, subject: &'a [u8]) -> Cow<'a, [u8]> {
        if subject.first() != Some(&b'$') || self.domain_prefix.is_empty() {
            return Cow::Borrowed(subject);
        }
        let Some(rest) = subject.strip_prefix(&self.domain_prefix[..]) else {
            return Cow::Borrowed(subject);
        };
        if rest == b"INFO" || MAPPED.iter().any(|prefix| rest.starts_with(prefix)) {
            Cow::Owned([b"$JS.API.", rest].concat())
        } else if rest.starts_with(b"$KV.") || rest.starts_with(b"$OBJ.") {
            Cow::Borrowed(rest)
        } else {
            Cow::Borrowed(subject)
        }
    }

    fn hand_to_js(&mut self, now: Now, target: Target, msg: Inbound<'_>) {
        let Some(js) = &mut self.js else { return };
        let host = &mut self.core;
        match target {
            Target::Api => js.handle_api(now, msg, host),
            Target::Stream(stream) => js.handle_publish(now, stream, msg, host),
            Target::DirectGet(stream) => js.handle_direct_get(now, stream, msg, host),
            Target::Next(consumer) => js.handle_next(now, consumer, msg, host),
            Target::Ack(consumer) => js.handle_ack(now, consumer, msg, host),
            Target::Flow(consumer) => js.handle_flow(now, consumer, msg, host),
        }
    }

    /// What JetStream published for JetStream. Bounded: a publish that begets publishes for
    /// ever goes on in the next turn.
    fn run_deferred(&mut self, now: Now) {
        for _ in 0..DEFERRED_PER_TURN {
            let Some(deferred) = self.core.deferred.pop_front() else { return };
            let msg = Inbound {
                subject: &deferred.subject,
                reply: &deferred.reply,
                headers: &deferred.headers,
                payload: &deferred.payload,
            };
            self.hand_to_js(now, deferred.target, msg);
        }
    }

    // --- Time ---

    /// When [`Self::handle_timeout`] is due, if nothing else happens first.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let conns = self.core.timers.peek().map(|Reverse((at, _))| *at);
        let js = self.js.as_ref().and_then(JetStream::poll_timeout);
        let waiting = (!self.core.deferred.is_empty()).then(Instant::default);
        [conns, js, waiting, self.poll_dial_timeout()].into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.core.now = now;
        while let Some(&Reverse((at, id))) = self.core.timers.peek() {
            if at > now.instant {
                break;
            }
            self.core.timers.pop();
            self.conn_timeout(now, at, id);
        }
        if let Some(js) = &mut self.js
            && js.poll_timeout().is_some_and(|at| at <= now.instant)
        {
            js.handle_timeout(now, &mut self.core);
        }
        self.run_deferred(now);
    }

    fn conn_timeout(&mut self, now: Now, at: Instant, id: ConnId) {
        let Some(conn) = self.core.conn_mut(id.index) else { return };
        if conn.id != id || conn.timer_at != Some(at) {
            return;
        }
        conn.timer_at = None;
        if conn.closing {
            return;
        }
        if conn.deadline() <= now.instant {
            if conn.write_by.is_some_and(|at| at <= now.instant) {
                self.core.close(id.index, CloseReason::SlowConsumerWriteDeadline, false);
                return;
            }
            match conn.kind {
                Kind::Client(_) => self.client_timeout(now, id.index),
                Kind::Leaf(_) => self.leaf_timeout(now, id.index),
            }
        }
        self.core.arm(id.index);
    }

    // --- Operation ---

    /// What the shell asks for next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.core.outputs.pop_front()
    }

    /// The server stops: pull requests that wait are told, and every connection ends after
    /// the bytes that wait for it.
    pub fn shut_down(&mut self, now: Now) {
        self.core.now = now;
        if let Some(js) = &mut self.js {
            js.shut_down(now, &mut self.core);
        }
        let conns: Vec<u32> =
            self.core.conns.iter().filter_map(|(index, _)| u32::try_from(index).ok()).collect();
        for index in conns {
            self.core.close(index, CloseReason::ServerShutdown, true);
        }
    }
}

/// What the mappings of a JetStream domain cover, after `$JS.<domain>.API.`.
const MAPPED: [&[u8]; 6] =
    [b"STREAM.", b"CONSUMER.", b"DIRECT.", b"META.", b"SERVER.", b"ACCOUNT."];

/// A receiver with more than this waiting slows down who sends to it.
const STALL_BYTES: usize = 1024 * 1024;

/// Calls of JetStream caused by JetStream in one turn.
const DEFERRED_PER_TURN: usize = 4096;
