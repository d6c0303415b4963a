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
//! - Accepting, doors, the first INFO: [`arrival`]. SUB, PUB, CONNECT: `client`. Routing,
//!   queue choice, slow consumers: `core`.
//! - Subject tree: [`interest`]. Bytes waiting for a socket: [`outbox`].
//! - Accounts: [`account`]. Leaf connections: `leaf`.
//! - JetStream, one for each account: `crate::jetstream`, through its `Host` trait, which
//!   `host` implements.
//!
//! # Invariants
//! - The same seed and the same calls give the same bytes.
//! - No call blocks, and no peer's bytes can make one panic.

pub mod account;
pub mod arrival;
pub mod claims;
pub mod connect;
pub mod events;
pub mod interest;
pub mod options;
pub mod outbox;
pub mod system;
pub mod view;

mod client;
mod conn;
mod core;
mod host;
mod imports;
mod lame_duck;
mod latency;
mod leaf;
mod lending;
mod mapping;
mod msg_trace;
mod reload;
mod request_info;
mod short;
mod sign_in;
#[cfg(test)]
mod testing;
mod trace;
mod trust;

use ::core::cmp::Reverse;
use ::core::time::Duration;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

pub use self::account::{AccountStats, Traffic};
pub use self::client::quoted;
pub use self::conn::CloseReason;
use self::conn::{Conn, Kind};
use self::core::{Core, Msg, Origin};
use self::host::View;
use self::options::Options;
use crate::auth::Secret;
use crate::id::{AccountId, ConnId};
use crate::jetstream::host::{Inbound, Target};
use crate::jetstream::shared::Shared;
use crate::jetstream::storage::{RecoveredStream, StoreReply, StoreRequest};
use crate::jetstream::{self, JetStream};
use crate::leaf::Identity;
use crate::leaf::remote::Dial;
use crate::proto::client::{Bounds, Parsed, parse};
use crate::time::{Instant, Now, Timestamp};

/// How bad a [`Notice`] is; the log level it is printed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Each operation.
    Trace,
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
    /// Compare a password with a bcrypt hash, which takes long, and do not read from the
    /// connection meanwhile ([`Broker::is_parked`]); then [`Broker::password_checked`].
    CheckPassword {
        /// Whose.
        conn: ConnId,
        /// As the configuration has it.
        hash: Secret,
        /// As the client sent it.
        password: Secret,
    },
    /// Fetch an account's token by HTTP; then [`Broker::claims_fetched`].
    FetchClaims {
        /// Its key.
        account: String,
        /// Where from.
        url: String,
    },
    /// Print a line.
    Notice(Notice),
    /// Lame duck mode is over: shut down.
    LameDuckOver,
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
    /// One for each account that has it; the account knows where in here.
    js: Vec<(AccountId, JetStream)>,
    sign_in: sign_in::SignIn,
    lookups: claims::Lookups,
    targets: Vec<(AccountId, Target)>,
    uplinks: Vec<leaf::Uplink>,
    /// Who we are to hubs.
    identity: Identity,
    lame_duck: lame_duck::LameDuck,
    standby: reload::Standby,
}

impl Broker {
    /// A broker with no connections. All chance in it comes from `seed`.
    pub fn new(mut options: Options, js: Option<jetstream::options::Options>, seed: u64) -> Self {
        let operators = trust::Operators::begin(&mut options);
        let identity = leaf::identity(&options);
        let mut core = Core::new(options, seed);
        if let (Some(domain), true) = (&core.options.domain, js.is_some()) {
            core.domain_prefix = format!("$JS.{domain}.API.").into_bytes();
        }
        let options = ::core::mem::take(&mut core.options);
        let problems = core.begin_imports(&options);
        core.options = options;
        core.begin_services();
        for text in problems {
            core.outputs.push_back(Output::Notice(Notice::error(text)));
        }
        let sign_in = sign_in::SignIn::new(&mut core, operators);
        let mut standby = reload::Standby::default();
        standby.server = js.map(|options| (options, Shared::default()));
        let js = standby.server.as_ref();
        let js = js
            .map_or_else(Vec::new, |(options, shared)| begin_jetstream(&mut core, options, shared));
        let mut broker = Self {
            core,
            js,
            sign_in,
            lookups: claims::Lookups::default(),
            targets: Vec::new(),
            uplinks: Vec::new(),
            identity,
            lame_duck: lame_duck::LameDuck::Off,
            standby,
        };
        broker.begin_claims();
        broker
    }

    // --- Connections ---

    fn add_conn(&mut self, now: Now, kind: Kind) -> ConnId {
        let core = &mut self.core;
        let entry = core.conns.vacant_entry();
        let id = ConnId {
            index: u32::try_from(entry.key()).unwrap_or(u32::MAX),
            generation: core.next_generation,
        };
        // The top of the keys built from it belongs to the shell.
        core.next_generation = core.next_generation.wrapping_add(1) & 0x7fff_ffff;
        if matches!(&kind, Kind::Client(client) if client.counts()) {
            core.clients += 1;
        }
        let conn = Conn {
            id,
            cid: core.next_cid,
            kind,
            account: AccountId::NONE,
            outbox: outbox::Outbox::default(),
            partial: Vec::new(),
            bounds: Bounds {
                control_line: core.options.max_control_line,
                payload: core.options.max_payload,
                headers: false,
            },
            dirty: false,
            closing: false,
            parked: false,
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
            announced: false,
            ending: None,
            msgs_in: 0,
            bytes_in: 0,
            msgs_out: 0,
            bytes_out: 0,
        };
        core.next_cid += 1;
        let kind = &entry.insert(conn).kind;
        core.past.note_opened(kind);
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
        if conn.parked {
            return self.core.park(id.index, &[bytes]);
        }
        match conn.kind {
            Kind::Client(_) => self.receive_client(now, id.index, bytes),
            Kind::Leaf(_) => self.receive_leaf(now, id.index, bytes),
        }
    }

    fn receive_client(&mut self, now: Now, index: u32, mut bytes: &[u8]) {
        let trace = self.core.options.logging.trace;
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
                Err(error) => return self.client_parse_error(index, &partial, error),
            };
            // A line may not be followed further than its bound in one go, or a peer could
            // make this buffer grow.
            let want = want.min(bytes.len()).min(crate::limits::READ_BUFFER_BYTES);
            let (front, rest) = bytes.split_at(want);
            partial.extend_from_slice(front);
            bytes = rest;
            match parse(&partial, &bounds) {
                Ok(Parsed::Op(op, used)) => {
                    if trace {
                        self.core.trace_in(index, partial.get(..used).unwrap_or_default());
                    }
                    let more = self.client_op(now, index, op);
                    if !more {
                        let rest = partial.get(used..).unwrap_or_default();
                        return self.put_aside(index, &[rest, bytes]);
                    }
                    partial.drain(..used);
                }
                Ok(Parsed::Incomplete { .. }) => {}
                Err(error) => return self.client_parse_error(index, &partial, error),
            }
        }
        loop {
            let Some(bounds) = self.core.conn(index).map(|conn| conn.bounds) else { return };
            if bytes.is_empty() {
                break;
            }
            match parse(bytes, &bounds) {
                Ok(Parsed::Op(op, used)) => {
                    if trace {
                        self.core.trace_in(index, bytes.get(..used).unwrap_or_default());
                    }
                    let more = self.client_op(now, index, op);
                    bytes = bytes.get(used..).unwrap_or(&[]);
                    if !more {
                        return self.put_aside(index, &[bytes]);
                    }
                }
                Ok(Parsed::Incomplete { need }) => {
                    partial.reserve_exact(need.max(bytes.len()));
                    partial.extend_from_slice(bytes);
                    break;
                }
                Err(error) => return self.client_parse_error(index, bytes, error),
            }
        }
        if partial.is_empty() {
            partial = Vec::new();
        }
        if let Some(conn) = self.core.conn_mut(index) {
            conn.partial = partial;
        }
    }

    /// What follows a CONNECT that has to wait.
    fn put_aside(&mut self, index: u32, bytes: &[&[u8]]) {
        if self.core.conn(index).is_some_and(|conn| conn.parked) {
            self.core.park(index, bytes);
        }
    }

    /// The shell closed a connection's socket, or found it closed.
    pub fn closed(&mut self, now: Now, id: ConnId) {
        self.core.now = now;
        let is_leaf = |conn: &Conn| conn.id == id && matches!(conn.kind, Kind::Leaf(_));
        if self.core.conn(id.index).is_some_and(is_leaf) {
            self.leaf_closed(now, id.index);
        }
        self.core.remove_conn(id);
    }

    /// Reading from a connection's socket, or writing to it, failed. [`Self::closed`] follows.
    pub fn broken(&mut self, now: Now, id: ConnId) {
        self.core.now = now;
        let is_client = |conn: &Conn| conn.id == id && matches!(conn.kind, Kind::Client(_));
        if self.core.conn(id.index).is_some_and(is_client) {
            self.core.close(id.index, CloseReason::ReadError, false);
        }
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
        if waiting < STALL_BYTES || self.core.options.no_fast_producer_stall {
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
        match reply {
            StoreReply::Recovered { streams, next_stream, last_ts } => {
                self.recover(now, streams, next_stream, last_ts);
            }
            reply => {
                let slot = match (reply.account(), &reply) {
                    (Some(account), _) => self.js_slot(account),
                    (None, StoreReply::Expired { update, .. }) => {
                        self.js.iter().position(|(_, js)| js.has_stream(update.stream))
                    }
                    // The disk's health is one thing, whoever tells of it.
                    (None, _) => Some(0),
                };
                if let Some((account, js)) = slot.and_then(|slot| self.js.get_mut(slot)) {
                    let mut host = View { core: &mut self.core, account: *account };
                    js.handle_store(now, reply, &mut host);
                } else if let Some(account) = reply.account()
                    && let Some(js) = self.standby.asleep_mut(account)
                {
                    js.handle_store(now, reply, &mut View { core: &mut self.core, account });
                }
            }
        }
        self.run_deferred(now);
    }

    /// Where the JetStream of an account is.
    fn js_slot(&self, account: AccountId) -> Option<usize> {
        self.core.account(account)?.js.map(usize::from)
    }

    /// Gives each account its streams. Those of accounts that are not here any more, or have
    /// no JetStream, stay on disk.
    fn recover(
        &mut self,
        now: Now,
        streams: Vec<RecoveredStream>,
        next_stream: u32,
        last_ts: Timestamp,
    ) {
        if self.sign_in.operators.is_some() {
            let names = streams.iter().filter_map(|found| jetstream::stream_account(&found.record));
            // Collected, a set would bring a sort of its own with it.
            let mut accounts = BTreeSet::new();
            accounts.extend(names.map(String::from));
            for name in accounts {
                self.bring_in(now, &name);
            }
        }
        let mut of: Vec<Vec<RecoveredStream>> = self.js.iter().map(|_| Vec::new()).collect();
        for found in streams {
            // What cannot be read is told of by the first.
            let name = jetstream::stream_account(&found.record);
            let slot = match name {
                Some(name) => self.core.account_named(name).and_then(|id| self.js_slot(id)),
                None => Some(0),
            };
            if let Some(list) = slot.and_then(|slot| of.get_mut(slot)) {
                list.push(found);
            } else {
                let name = name.unwrap_or_default();
                let left = &mut self.standby.unserved;
                left.entry(name.into()).or_default().push(found);
            }
        }
        self.standby.recovered = Some((next_stream, last_ts));
        for (account, streams) in &self.standby.unserved {
            let text = format!(
                "{} stream(s) of account {account:?} are kept on disk and not served; \
                 configure that account with jetstream enabled to have them back",
                streams.len()
            );
            self.core.outputs.push_back(Output::Notice(Notice::warn(text)));
        }
        for ((account, js), streams) in self.js.iter_mut().zip(of) {
            let mut host = View { core: &mut self.core, account: *account };
            let reply = StoreReply::Recovered { streams, next_stream, last_ts };
            js.handle_store(now, reply, &mut host);
        }
    }

    /// The end of a turn: what was gathered for the store goes out, and JetStream hears of
    /// interest and backlogs that changed.
    pub fn end_turn(&mut self, now: Now) {
        self.core.now = now;
        self.poll_dials(now);
        // Each round may change interest again; what is left waits for the next turn.
        for _ in 0..8 {
            if self.core.changed.is_empty() && !self.core.drained {
                break;
            }
            for (account, subject) in ::core::mem::take(&mut self.core.changed) {
                let slot = self.js_slot(account);
                if let Some((_, js)) = slot.and_then(|slot| self.js.get_mut(slot)) {
                    let mut host = View { core: &mut self.core, account };
                    js.handle_interest(now, &subject, &mut host);
                }
            }
            if ::core::mem::take(&mut self.core.drained) {
                for (account, js) in &mut self.js {
                    let mut host = View { core: &mut self.core, account: *account };
                    js.handle_drained(now, &mut host);
                }
            }
        }
        self.run_deferred(now);
        for (account, js) in &mut self.js {
            js.flush(now, &mut View { core: &mut self.core, account: *account });
        }
    }

    /// Routes a publish from outside, its subject already mapped. Says whether anybody
    /// received it.
    fn publish(
        &mut self,
        now: Now,
        account: AccountId,
        origin: Origin<'_>,
        msg: PubMsg<'_>,
    ) -> bool {
        let mut targets = ::core::mem::take(&mut self.targets);
        let routed = Msg {
            to: msg.subject,
            subject: msg.subject,
            reply: msg.reply,
            headers: msg.headers,
            payload: msg.payload,
        };
        let delivered = self.core.route(account, origin, &routed, &mut targets);
        if self.core.msg_trace.is_some() {
            self.end_trace(msg.subject, &mut targets);
        }
        if !targets.is_empty() {
            let inbound = Inbound {
                subject: msg.subject,
                reply: msg.reply,
                headers: msg.headers,
                payload: msg.payload,
            };
            self.core.asking = origin.conn();
            for (account, target) in targets.drain(..) {
                self.hand_to_js(now, account, target, inbound);
            }
            self.core.asking = None;
            self.run_deferred(now);
        }
        self.targets = targets;
        delivered
    }

    /// The trace of the message under way ends with the streams that capture it.
    #[cold]
    pub(crate) fn end_trace(&mut self, subject: &[u8], targets: &mut Vec<(AccountId, Target)>) {
        for (account, target) in targets.iter() {
            let slot = self.js_slot(*account);
            let js = slot.and_then(|slot| self.js.get(slot)).map(|(_, js)| js);
            if let (Target::Stream(stream), Some(js)) = (target, js)
                && let Some(name) = js.stream_name(*stream)
            {
                self.core.trace_stream(name, subject);
            }
        }
        if self.core.msg_trace.as_ref().is_some_and(|trace| trace.only) {
            targets.clear();
        }
        self.core.end_trace();
    }

    fn hand_to_js(&mut self, now: Now, account: AccountId, target: Target, msg: Inbound<'_>) {
        let slot = self.js_slot(account);
        let host = &mut View { core: &mut self.core, account };
        let Some((_, js)) = slot.and_then(|slot| self.js.get_mut(slot)) else {
            if target == Target::Api {
                jetstream::disabled::handle_api(&msg, account == AccountId::SYSTEM, host);
            }
            return;
        };
        match target {
            Target::Api => js.handle_api(now, msg, host),
            Target::Stream(stream) => js.handle_publish(now, stream, msg, host),
            Target::DirectGet(stream) => js.handle_direct_get(now, stream, msg, host),
            Target::Next(consumer) => js.handle_next(now, consumer, msg, host),
            Target::Ack(consumer) => js.handle_ack(now, consumer, msg, host),
            Target::Flow(consumer) => js.handle_flow(now, consumer, msg, host),
            Target::Intake(stream, number) => js.handle_intake(now, stream, number, msg, host),
            Target::Snapshot(id) => js.handle_snapshot_ack(now, id, msg, host),
            Target::Restore(id) => js.handle_restore(now, id, msg, host),
        }
    }

    /// What JetStream published for JetStream. Bounded: a publish that begets publishes for
    /// ever goes on in the next turn.
    fn run_deferred(&mut self, now: Now) {
        for _ in 0..DEFERRED_PER_TURN {
            let Some(deferred) = self.core.deferred.pop_front() else { break };
            let msg = Inbound {
                subject: &deferred.subject,
                reply: &deferred.reply,
                headers: &deferred.headers,
                payload: &deferred.payload,
            };
            self.core.asking = deferred.asking;
            self.hand_to_js(now, deferred.account, deferred.target, msg);
        }
        self.core.asking = None;
    }

    // --- Time ---

    /// When [`Self::handle_timeout`] is due, if nothing else happens first.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let conns = self.core.timers.peek().map(|Reverse((at, _))| *at);
        let js = self.js.iter().filter_map(|(_, js)| js.poll_timeout()).min();
        let waiting = !self.core.deferred.is_empty() || !self.core.requests.is_empty();
        let waiting = waiting.then(Instant::default);
        [
            conns,
            js,
            waiting,
            self.core.poll_responses(),
            self.core.poll_events(),
            self.poll_dial_timeout(),
            self.poll_lame_duck(),
            self.poll_trust(),
        ]
        .into_iter()
        .flatten()
        .min()
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
        self.core.responses_timeout();
        self.core.events_timeout();
        self.lame_duck_timeout(now);
        self.trust_timeout(now);
        for (account, js) in &mut self.js {
            if js.poll_timeout().is_some_and(|at| at <= now.instant) {
                js.handle_timeout(now, &mut View { core: &mut self.core, account: *account });
            }
        }
        self.run_deferred(now);
    }

    fn conn_timeout(&mut self, now: Now, at: Instant, id: ConnId) {
        let options = &self.core.options;
        let (retry, another) = (options.write_retry, now.instant + options.write_deadline);
        let Some(conn) = self.core.conn_mut(id.index) else { return };
        if conn.id != id || conn.timer_at != Some(at) {
            return;
        }
        conn.timer_at = None;
        if conn.closing {
            return;
        }
        if conn.deadline() <= now.instant {
            let late = conn.write_by.is_some_and(|at| at <= now.instant);
            let is_client = matches!(conn.kind, Kind::Client(_));
            if late && is_client && retry {
                conn.write_by = Some(another);
            } else if late {
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

    // --- Accounts ---

    /// The account of this name.
    pub fn account_named(&self, name: &str) -> Option<AccountId> {
        self.core.account_named(name)
    }

    /// All accounts: `$G`, the system account, then the others.
    pub fn accounts(&self) -> impl Iterator<Item = AccountId> + use<> {
        self.core.account_ids()
    }

    /// What an account has and did. Walks over all connections.
    pub fn account_stats(&self, account: AccountId) -> Option<AccountStats<'_>> {
        self.core.account_stats(account)
    }

    // --- Operation ---

    /// What the shell asks for next.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.core.outputs.pop_front();
        if let Some(Output::Notice(notice)) = &output {
            self.core.trace.printed(notice);
        }
        output
    }

    /// The store is about to close: what it does not know yet goes to it with the next
    /// outputs.
    pub fn save(&mut self, now: Now) {
        self.core.now = now;
        for (account, js) in &mut self.js {
            js.save_all(now, &mut View { core: &mut self.core, account: *account });
        }
    }

    /// The server stops: pull requests that wait are told, and every connection ends after
    /// the bytes that wait for it.
    pub fn shut_down(&mut self, now: Now) {
        self.core.now = now;
        for (account, js) in &mut self.js {
            js.shut_down(now, &mut View { core: &mut self.core, account: *account });
        }
        let conns: Vec<u32> =
            self.core.conns.iter().filter_map(|(index, _)| u32::try_from(index).ok()).collect();
        for index in conns {
            self.core.close(index, CloseReason::ServerShutdown, true);
        }
    }
}

/// Sets up JetStream for the accounts that have it, and what answers in its place elsewhere.
fn begin_jetstream(
    core: &mut Core,
    options: &jetstream::options::Options,
    shared: &Shared,
) -> Vec<(AccountId, JetStream)> {
    let mut all = Vec::new();
    let has = account::with_jetstream(&core.options);
    let names: Vec<(AccountId, String, bool)> = core
        .account_ids()
        .filter_map(|id| core.account(id).map(|state| (id, state)))
        .map(|(id, state)| (id, String::from(&*state.name), has(&state.name)))
        .collect();
    drop(has);
    for (id, name, has) in names {
        if has {
            if let Some(state) = core.account_mut(id) {
                state.js = u16::try_from(all.len()).ok();
            }
            let limits = core.account(id).map(|state| state.jetstream).unwrap_or_default();
            let options = account::jetstream_options(options, &name, &limits);
            let seed = core.rng.next_u64();
            all.push((id, JetStream::of_account(id, options, seed, shared.clone())));
            continue;
        }
        core.add_disabled_jetstream(id);
    }
    all
}

/// A receiver with more than this waiting slows down who sends to it.
const STALL_BYTES: usize = 1024 * 1024;

/// Calls of JetStream caused by JetStream in one turn.
const DEFERRED_PER_TURN: usize = 4096;
