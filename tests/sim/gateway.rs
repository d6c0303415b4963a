//! A gateway: the real broker and the real store, in a process that can be killed.
//!
//! Owns the turn, as `server::run` has it, and the store's thread, as `store::Store` has it,
//! both in virtual time: what is ready is served in any order, a commit takes a while and may
//! be overtaken by reads, and a crash in the middle of one leaves the part that was done.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use sedge::broker::options::Options;
use sedge::broker::{Broker, Output};
use sedge::id::{ConnId, StreamId};
use sedge::jetstream;
use sedge::jetstream::storage::{StoreReply, StoreRequest, Token};
use sedge::leaf::remote::Dial;
use sedge::leaf::{LeafUrl, RemoteOptions};
use sedge::store::{Disk, StoreOptions, SyncPolicy};
use sedge::time::{Duration, Instant, Now, Timestamp};

use crate::chance::Chance;
use crate::disk::SimDisk;
use crate::ledger::{self, Ledger};
use crate::link::{ConnNo, Net, Read, Route, Side, Who};
use crate::trace::Trace;

/// How long consumer records wait for a commit to ride along with.
const RIDE_ALONG: Duration = Duration::from_millis(500);
/// Turns in one second for which only a timer was the reason.
const IDLE_TURNS_MAX: u32 = 100;

/// How a gateway and its machine behave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GatewayPlan {
    /// When acks leave.
    pub(crate) sync: SyncPolicy,
    /// A commit, with its syncs.
    pub(crate) commit: (Duration, Duration),
    /// Commits that take far longer, of a thousand, and how long.
    pub(crate) slow_commits: u64,
    /// See `slow_commits`.
    pub(crate) slow_commit: (Duration, Duration),
    /// A turn of the event loop.
    pub(crate) turn: (Duration, Duration),
    /// What a read takes at most.
    pub(crate) read_max: usize,
    /// Of a thousand: what is ready waits for the next turn.
    pub(crate) overlooked: u64,
    /// Between PINGs.
    pub(crate) ping_interval: Duration,
    /// Breaks it on purpose: acks leave when a commit begins.
    pub(crate) acks_early: bool,
    pub(crate) uplink: Route,
}

/// How a gateway ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// The process alone.
    Sigkill,
    /// The machine.
    PowerCut,
    /// As it should.
    Shutdown,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Gateway {
    plan: GatewayPlan,
    chance: Chance,
    disk: SimDisk,
    process: Option<Process>,
    /// When the process starts next, while it does not run.
    pub(crate) start_at: Instant,
    /// What the wall clock shows at virtual zero, in nanoseconds.
    pub(crate) wall_offset: i64,
    pub(crate) turns: u64,
    /// The store was once open.
    held_once: bool,
}

struct Process {
    /// When its clock showed zero.
    began: Instant,
    broker: Broker,
    store: StoreThread,
    /// The store has said what there is: clients may come.
    listens: bool,
    busy_until: Instant,
    peers: Vec<Peer>,
    dials: Vec<Dialling>,
    idle_second: u64,
    idle_turns: u32,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Peer {
    id: ConnId,
    conn: ConnNo,
    /// It refused bytes.
    blocked: bool,
    /// It sends nothing until then, or until this receiver has caught up.
    rest: Option<(ConnId, Instant)>,
    close_by: Option<Instant>,
}

#[derive(Debug)]
struct Dialling {
    done_at: Instant,
    remote: usize,
    dial: Dial,
    result: Result<ConnNo, &'static str>,
}

/// What a dial meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The hub listens.
    Free,
    /// Somebody says no.
    Refused,
    /// Nobody says anything.
    Silent,
}

#[derive(Debug)]
enum Ready {
    Accept(ConnNo, String),
    Peer(ConnId),
    Reply,
    Dialled,
    Timer,
}

/// What a turn needs of the world.
pub(crate) struct Around<'a> {
    pub(crate) net: &'a mut Net,
    pub(crate) ledger: &'a mut Ledger,
    pub(crate) trace: &'a mut Trace,
    /// What a dial would meet now.
    pub(crate) way: Way,
    /// Connections the hub has to accept.
    pub(crate) dialled: Vec<ConnNo>,
    /// Clients that connected since the last turn.
    pub(crate) arrivals: Vec<(ConnNo, String)>,
}

impl Gateway {
    /// A machine with an empty disk; its process starts at once.
    pub(crate) fn new(plan: GatewayPlan, mut chance: Chance) -> Self {
        let disk = SimDisk::new(chance.fork());
        Self {
            plan,
            chance,
            disk,
            process: None,
            start_at: Instant(0),
            wall_offset: 1_795_456_083_000_000_000,
            turns: 0,
            held_once: false,
        }
    }

    /// The disk in it.
    pub(crate) fn disk(&self) -> &SimDisk {
        &self.disk
    }

    /// Does it take connections?
    pub(crate) fn listens(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.listens)
    }

    fn now(&self, now: Instant, began: Instant) -> Now {
        Now {
            instant: Instant(now.0 - began.0),
            wall: Timestamp(self.wall_offset + i64::try_from(now.0).unwrap_or(i64::MAX)),
        }
    }

    /// When there is something to do.
    pub(crate) fn next_at(&self, now: Instant, net: &Net, arrivals: bool) -> Option<Instant> {
        let Some(process) = &self.process else { return Some(self.start_at) };
        let store = process.store.next_at();
        let timer = process.broker.poll_timeout().map(|at| Instant(at.0 + process.began.0));
        let reply = process.store.replies.front().map(|_| now);
        let dials = process.dials.iter().map(|dialling| dialling.done_at).min();
        let peers = process.peers.iter().filter_map(|peer| {
            let readable = match peer.rest {
                Some((receiver, _)) if process.broker.is_relieved(receiver) => Some(now),
                Some((_, until)) => Some(until),
                None => net.readable_at(peer.conn, Side::Gateway),
            };
            let room = (peer.blocked && net.has_room(peer.conn, Side::Gateway)).then_some(now);
            [readable, room, peer.close_by].into_iter().flatten().min()
        });
        let arrivals = arrivals.then_some(now);
        let turn = [timer, reply, dials, peers.min(), arrivals].into_iter().flatten().min();
        let turn = turn.map(|at| at.max(process.busy_until));
        [store, turn].into_iter().flatten().min()
    }

    /// Does what is due: starts, lets the store's thread work, or runs a turn.
    pub(crate) fn run(&mut self, now: Instant, around: &mut Around<'_>) {
        if self.process.is_none() {
            if self.start_at <= now {
                self.start(now, around);
            }
            return;
        }
        self.run_store(now, around);
        self.turn(now, around);
    }

    fn start(&mut self, now: Instant, around: &mut Around<'_>) {
        around.trace.line(now, || "gateway: starts".into());
        let options = Options {
            server_id: "NGATEWAY".into(),
            server_name: "gw".into(),
            jetstream: true,
            domain: Some("leaf".into()),
            ping_interval: self.plan.ping_interval,
            ..Options::default()
        };
        let js = jetstream::options::Options {
            domain: Some("leaf".into()),
            store_dir: "/data".into(),
            relaxed: self.plan.sync != SyncPolicy::Always,
            server_name: "gw".into(),
            ..jetstream::options::Options::default()
        };
        let mut broker = Broker::new(options, Some(js), self.chance.bits());
        let remote = RemoteOptions {
            urls: vec![LeafUrl::parse("nats-leaf://hub:7422").expect("a URL")],
            ..RemoteOptions::default()
        };
        broker.add_remote(self.now(now, now), remote);
        let opening = self.chance.span(Duration::from_millis(2), Duration::from_millis(300));
        self.process = Some(Process {
            began: now,
            broker,
            store: StoreThread {
                disk: None,
                open_at: Some(now + opening),
                waiting: VecDeque::new(),
                reads: VecDeque::new(),
                running: None,
                replies: VecDeque::new(),
                riders: Vec::new(),
                ride_by: None,
                sync_at: None,
            },
            listens: false,
            busy_until: now,
            peers: Vec::new(),
            dials: Vec::new(),
            idle_second: 0,
            idle_turns: 0,
        });
    }

    // --- The store's thread ---

    fn run_store(&mut self, now: Instant, around: &mut Around<'_>) {
        let options = StoreOptions { sync: self.plan.sync, ..StoreOptions::default() };
        let Some(process) = &mut self.process else { return };
        let store = &mut process.store;
        if store.open_at.is_some_and(|at| at <= now) {
            store.open_at = None;
            match Disk::open(Box::new(self.disk.clone()), options) {
                Ok((mut disk, replies)) => {
                    check_held(&mut disk, &replies, around.ledger);
                    self.held_once |= !self.disk.was_set_aside();
                    around.trace.line(now, || "gateway: store is open".into());
                    store.disk = Some(disk);
                    store.replies.extend(replies);
                }
                Err(error) => {
                    around.trace.line(now, || format!("gateway: store does not open: {error}"));
                    self.process = None;
                    self.start_at = now + Duration::from_secs(1);
                    around.net.gateway_gone(now, now, true, around.way != Way::Silent);
                    return;
                }
            }
            // A file whose making was cut short holds nothing and counts as damaged.
            if self.disk.was_set_aside() && self.held_once {
                around.ledger.fail("the store was found damaged".into());
            }
        }
        store.run(now, &self.plan, &self.disk, &mut self.chance, around.trace);
    }

    // --- The turn ---

    fn turn(&mut self, now: Instant, around: &mut Around<'_>) {
        let Some(process) = &self.process else { return };
        if process.busy_until > now {
            return;
        }
        let clock = self.now(now, process.began);
        let Some(process) = &mut self.process else { return };
        let mut ready = process.ready(now, clock, around);
        if ready.is_empty() {
            return;
        }
        self.turns += 1;
        process.count_idle(now, &ready, around.ledger);
        self.chance.shuffle(&mut ready);
        if ready.len() > 1 && self.chance.happens(self.plan.overlooked) {
            // An accept is not level-triggered here, so it stays.
            let keep = self.chance.size(1, ready.len());
            let mut left = 0;
            ready.retain(|event| {
                left += 1;
                left <= keep || matches!(event, Ready::Accept(..))
            });
        }
        for event in ready {
            match event {
                Ready::Accept(conn, name) => {
                    let id = process.broker.accept(clock, &name);
                    process.add_peer(id, conn);
                }
                Ready::Peer(id) => {
                    let max = self.chance.size(1, self.plan.read_max);
                    process.peer_ready(now, clock, id, max, around.net);
                }
                Ready::Reply => {
                    if let Some(reply) = process.store.replies.pop_front() {
                        process.listens |= matches!(reply, StoreReply::Recovered { .. });
                        if matches!(reply, StoreReply::Health(Some(_))) {
                            // What a relaxed store had not synced is gone with the old file.
                            around.ledger.crashed(now);
                        }
                        process.broker.handle_store(clock, reply);
                    }
                }
                Ready::Dialled => process.dialled(now, clock, around),
                Ready::Timer => {
                    if process.broker.poll_timeout().is_some_and(|at| at <= clock.instant) {
                        process.broker.handle_timeout(clock);
                    }
                }
            }
        }
        process.finish(now, clock, &self.plan, &mut self.chance, around);
        process.busy_until = now + self.chance.span(self.plan.turn.0, self.plan.turn.1);
    }

    // --- The end ---

    /// The process ends, and starts again at `back_at`.
    pub(crate) fn die(
        &mut self,
        now: Instant,
        back_at: Instant,
        death: Death,
        around: &mut Around<'_>,
    ) {
        self.start_at = self.start_at.max(back_at);
        let Some(mut process) = self.process.take() else {
            if death == Death::PowerCut {
                self.disk.after_power_cut();
            }
            return;
        };
        around.trace.line(now, || format!("gateway: {death:?}"));
        match death {
            Death::Shutdown => {
                let clock = self.now(now, process.began);
                process.broker.close_remotes();
                process.broker.save(clock);
                process.broker.shut_down(clock);
                process.finish(now, clock, &self.plan, &mut self.chance, around);
                process.store.close(now, &self.plan, &self.disk, &mut self.chance, around.trace);
                while let Some(reply) = process.store.replies.pop_front() {
                    process.broker.handle_store(clock, reply);
                }
                process.finish(now, clock, &self.plan, &mut self.chance, around);
                self.disk.after_sigkill();
            }
            Death::Sigkill | Death::PowerCut => {
                // What runs is done up to some operation, and nobody hears of it.
                let operations =
                    if process.store.is_busy(now) { self.chance.between(0, 24) } else { 0 };
                self.disk.kill_after(operations);
                process.store.die(&self.plan, &self.disk);
                if death == Death::Sigkill {
                    self.disk.after_sigkill();
                } else {
                    self.disk.after_power_cut();
                }
                around.ledger.crashed(now);
            }
        }
        let told = death != Death::PowerCut;
        around.net.gateway_gone(now, back_at, told, around.way != Way::Silent);
    }

    /// Shuts the process down and looks at what its store holds.
    pub(crate) fn check_store(&mut self, now: Instant, around: &mut Around<'_>) {
        self.die(now, now, Death::Shutdown, around);
        let options = StoreOptions { sync: self.plan.sync, ..StoreOptions::default() };
        match Disk::open(Box::new(self.disk.clone()), options) {
            Ok((mut disk, replies)) => check_held(&mut disk, &replies, around.ledger),
            Err(error) => around.ledger.fail(format!("the store does not open: {error}")),
        }
    }
}

/// Compares what a store holds of the one stream there is with what was promised.
fn check_held(disk: &mut Disk, replies: &[StoreReply], ledger: &mut Ledger) {
    let Some(StoreReply::Recovered { streams, .. }) = replies.first() else {
        return ledger.fail("the first reply is not what there is".into());
    };
    let stream = streams.first().map(|found| found.stream);
    let mut held = BTreeMap::new();
    let mut from = 1;
    while let Some(stream) = stream {
        let request = StoreRequest::Read {
            token: Token(0),
            stream,
            from,
            filters: Arc::from([]),
            max_msgs: 1000,
            max_bytes: 1 << 20,
        };
        let replies = disk.apply_batch(vec![request]);
        let Some(StoreReply::Read { chunk: Ok(chunk), .. }) = replies.first() else { return };
        let Some(last) = chunk.msgs.last() else { break };
        from = last.seq + 1;
        for msg in &chunk.msgs {
            match ledger::reading(chunk.bytes(&msg.payload)) {
                Some(reading) => drop(held.insert(msg.seq, reading)),
                None => ledger.fail(format!("sequence {} holds what nobody sent", msg.seq)),
            }
        }
    }
    ledger.stored_at_gateway(&held);
}

impl Process {
    fn ready(&mut self, now: Instant, clock: Now, around: &mut Around<'_>) -> Vec<Ready> {
        let mut ready = Vec::new();
        for (conn, name) in around.arrivals.drain(..) {
            ready.push(Ready::Accept(conn, name));
        }
        for peer in &mut self.peers {
            let is_over = |(receiver, until)| until <= now || self.broker.is_relieved(receiver);
            if peer.rest.is_some_and(is_over) {
                peer.rest = None;
            }
            let readable = peer.rest.is_none()
                && around.net.readable_at(peer.conn, Side::Gateway).is_some_and(|at| at <= now);
            let writable = peer.blocked && around.net.has_room(peer.conn, Side::Gateway);
            let late = peer.close_by.is_some_and(|at| at <= now);
            if readable || writable || late {
                ready.push(Ready::Peer(peer.id));
            }
        }
        ready.extend(self.store.replies.iter().map(|_| Ready::Reply));
        if self.dials.iter().any(|dialling| dialling.done_at <= now) {
            ready.push(Ready::Dialled);
        }
        if self.broker.poll_timeout().is_some_and(|at| at <= clock.instant) {
            ready.push(Ready::Timer);
        }
        ready
    }

    fn count_idle(&mut self, now: Instant, ready: &[Ready], ledger: &mut Ledger) {
        let second = now.0 / 1_000_000_000;
        if second != self.idle_second {
            self.idle_second = second;
            self.idle_turns = 0;
        }
        if ready.iter().all(|event| matches!(event, Ready::Timer)) {
            self.idle_turns += 1;
            if self.idle_turns > IDLE_TURNS_MAX {
                ledger.fail(format!("{IDLE_TURNS_MAX} turns in a second for timers alone"));
            }
        }
    }

    fn add_peer(&mut self, id: ConnId, conn: ConnNo) {
        self.peers.push(Peer { id, conn, blocked: false, rest: None, close_by: None });
    }

    fn peer(&mut self, id: ConnId) -> Option<&mut Peer> {
        self.peers.iter_mut().find(|peer| peer.id == id)
    }

    fn peer_ready(&mut self, now: Instant, clock: Now, id: ConnId, max: usize, net: &mut Net) {
        let Some(peer) = self.peer(id) else { return };
        let conn = peer.conn;
        if peer.blocked {
            self.flush(now, clock, id, net);
        }
        let Some(peer) = self.peer(id) else { return };
        if peer.rest.is_some() {
            return;
        }
        let closing = peer.close_by.is_some();
        match net.read(now, conn, Side::Gateway, max) {
            Read::Nothing => {}
            Read::End => self.drop_peer(now, clock, id, net),
            Read::Bytes(bytes) => {
                if !closing {
                    self.broker.receive(clock, id, &bytes);
                    if let Some((receiver, rest)) = self.broker.stall()
                        && let Some(peer) = self.peer(id)
                    {
                        peer.rest = Some((receiver, now + rest));
                    }
                }
            }
        }
    }

    fn dialled(&mut self, now: Instant, clock: Now, around: &mut Around<'_>) {
        let mut index = 0;
        while index < self.dials.len() {
            if self.dials[index].done_at > now {
                index += 1;
                continue;
            }
            let Dialling { remote, dial, result, .. } = self.dials.swap_remove(index);
            match result {
                Ok(conn) => match self.broker.dialed(clock, remote, &dial, None) {
                    Some(id) => self.add_peer(id, conn),
                    None => around.net.close(now, conn, Side::Gateway),
                },
                Err(error) => self.broker.dial_failed(clock, remote, dial.attempt, error),
            }
        }
    }

    fn finish(
        &mut self,
        now: Instant,
        clock: Now,
        plan: &GatewayPlan,
        chance: &mut Chance,
        around: &mut Around<'_>,
    ) {
        self.broker.end_turn(clock);
        loop {
            let mut idle = true;
            while let Some(output) = self.broker.poll_output() {
                idle = false;
                match output {
                    Output::Store(request) => self.store.submit(now, request, chance),
                    Output::LameDuckOver => {}
                    Output::Notice(notice) => {
                        around
                            .trace
                            .line(now, || format!("gateway: [{:?}] {}", notice.level, notice.text));
                    }
                    Output::Close { conn, flush, reason } => {
                        around.trace.line(now, || format!("gateway: closes {conn:?}: {reason:?}"));
                        self.begin_close(now, clock, conn, flush, around.net);
                    }
                    Output::Dial { remote, dial, .. } => {
                        self.dial(now, remote, dial, plan, around);
                    }
                    Output::StartTls { .. } => {
                        around.ledger.fail("TLS was not asked for".into());
                    }
                    Output::FetchClaims { .. } => {
                        around.ledger.fail("nobody here has a token".into());
                    }
                    Output::CheckPassword { .. } => {
                        around.ledger.fail("no password here is hashed".into());
                    }
                }
            }
            while let Some(id) = self.broker.next_dirty() {
                idle = false;
                self.flush(now, clock, id, around.net);
            }
            if idle {
                break;
            }
        }
        let over: Vec<ConnId> = self
            .peers
            .iter()
            .filter(|peer| peer.close_by.is_some())
            .filter(|peer| {
                peer.close_by.is_some_and(|at| at <= now) || self.broker.pending(peer.id).is_empty()
            })
            .map(|peer| peer.id)
            .collect();
        for id in over {
            self.drop_peer(now, clock, id, around.net);
        }
    }

    fn dial(
        &mut self,
        now: Instant,
        remote: usize,
        dial: Dial,
        plan: &GatewayPlan,
        around: &mut Around<'_>,
    ) {
        let round_trip = now + plan.uplink.latency * 2;
        let (done_at, result) = match around.way {
            Way::Free => {
                let conn = around.net.open(Who::Hub, plan.uplink);
                around.dialled.push(conn);
                (round_trip, Ok(conn))
            }
            Way::Refused => (round_trip, Err("connection refused")),
            Way::Silent => (now + dial.timeout, Err("timed out")),
        };
        let shown = result;
        around.trace.line(now, || format!("gateway: dials {}: {shown:?}", dial.url));
        self.dials.push(Dialling { done_at, remote, dial, result });
    }

    fn flush(&mut self, now: Instant, clock: Now, id: ConnId, net: &mut Net) {
        let Some(at) = self.peers.iter().position(|peer| peer.id == id) else { return };
        let pending = self.broker.pending(id);
        if pending.is_empty() {
            self.peers[at].blocked = false;
            return;
        }
        match net.write(now, self.peers[at].conn, Side::Gateway, pending) {
            Some(count) => {
                self.peers[at].blocked = count < pending.len();
                self.broker.transmitted(clock, id, count);
            }
            None => self.drop_peer(now, clock, id, net),
        }
    }

    fn begin_close(&mut self, now: Instant, clock: Now, id: ConnId, flush: bool, net: &mut Net) {
        if !flush {
            return self.drop_peer(now, clock, id, net);
        }
        if let Some(peer) = self.peer(id) {
            peer.close_by = Some(now + Duration::from_millis(500));
            self.flush(now, clock, id, net);
        }
    }

    fn drop_peer(&mut self, now: Instant, clock: Now, id: ConnId, net: &mut Net) {
        if let Some(at) = self.peers.iter().position(|peer| peer.id == id) {
            let peer = self.peers.swap_remove(at);
            net.close(now, peer.conn, Side::Gateway);
            self.broker.closed(clock, id);
        }
    }
}

/// The thread that owns the disk, and the one that reads.
struct StoreThread {
    /// `None` until it is open.
    disk: Option<Disk>,
    open_at: Option<Instant>,
    waiting: VecDeque<StoreRequest>,
    reads: VecDeque<(Instant, StoreRequest)>,
    /// A commit under way: when it is done, and what it holds.
    running: Option<(Instant, Vec<StoreRequest>)>,
    replies: VecDeque<StoreReply>,
    riders: Vec<StoreRequest>,
    ride_by: Option<Instant>,
    sync_at: Option<Instant>,
}

fn is_read(request: &StoreRequest) -> bool {
    matches!(
        request,
        StoreRequest::Read { .. }
            | StoreRequest::Get { .. }
            | StoreRequest::Count { .. }
            | StoreRequest::LastPerSubject { .. }
            | StoreRequest::Subjects { .. }
            | StoreRequest::Deleted { .. }
    )
}

fn rider(request: &StoreRequest) -> Option<(StreamId, &str)> {
    match request {
        StoreRequest::PutConsumer { token: None, stream, consumer } => {
            Some((*stream, &consumer.name))
        }
        StoreRequest::DeleteConsumer { stream, name } => Some((*stream, name)),
        _ => None,
    }
}

impl StoreThread {
    fn submit(&mut self, now: Instant, request: StoreRequest, chance: &mut Chance) {
        if is_read(&request) {
            let took = chance.span(Duration::from_micros(20), Duration::from_millis(20));
            // One thread answers them, one after the other.
            let last = self.reads.back().map_or(now, |(at, _)| *at);
            self.reads.push_back((last.max(now + took), request));
        } else {
            self.waiting.push_back(request);
        }
    }

    fn next_at(&self) -> Option<Instant> {
        if self.disk.is_none() {
            return self.open_at;
        }
        let reads = self.reads.front().map(|(at, _)| *at);
        let changes = match &self.running {
            Some((done_at, _)) => Some(*done_at),
            None if !self.waiting.is_empty() => Some(Instant(0)),
            None => [self.ride_by, self.sync_at].into_iter().flatten().min(),
        };
        [reads, changes].into_iter().flatten().min()
    }

    fn is_busy(&self, now: Instant) -> bool {
        self.open_at.is_some()
            || self.running.is_some()
            || self.sync_at.is_some_and(|at| at <= now)
            || self.ride_by.is_some()
    }

    fn run(
        &mut self,
        now: Instant,
        plan: &GatewayPlan,
        sim: &SimDisk,
        chance: &mut Chance,
        trace: &mut Trace,
    ) {
        let Some(disk) = &mut self.disk else { return };
        while self.reads.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, request)) = self.reads.pop_front() {
                self.replies.extend(disk.apply_batch(vec![request]));
            }
        }
        if self.running.as_ref().is_some_and(|(at, _)| *at <= now)
            && let Some((_, batch)) = self.running.take()
        {
            trace.mix(batch.len() as u64);
            if plan.acks_early {
                sim.release();
            } else {
                self.replies.extend(disk.apply_batch(batch));
            }
            if let SyncPolicy::Every(pace) = plan.sync
                && disk.is_unsynced()
                && self.sync_at.is_none()
            {
                self.sync_at = Some(now + pace);
            }
        }
        if self.running.is_some() {
            return;
        }
        if self.sync_at.is_some_and(|at| at <= now) {
            self.sync_at = None;
            self.replies.extend(disk.sync());
        }
        let mut batch = gather(&mut self.waiting, &mut self.riders, &mut self.ride_by, now, chance);
        if batch.is_empty() && self.ride_by.is_none_or(|at| at > now) {
            return;
        }
        let mut requests = std::mem::take(&mut self.riders);
        self.ride_by = None;
        requests.append(&mut batch);
        let took = if chance.happens(plan.slow_commits) { plan.slow_commit } else { plan.commit };
        let done_at = now + chance.span(took.0, took.1);
        if plan.acks_early {
            // Everything is done at once and answered; that it takes time shows in a crash.
            sim.hold();
            self.replies.extend(disk.apply_batch(requests));
            requests = Vec::new();
        }
        self.running = Some((done_at, requests));
    }

    /// As `Store::close`: everything is committed, then the file is closed.
    fn close(
        &mut self,
        now: Instant,
        plan: &GatewayPlan,
        sim: &SimDisk,
        chance: &mut Chance,
        trace: &mut Trace,
    ) {
        if self.disk.is_none() {
            return;
        }
        let mut now = now;
        while self.running.is_some() || !self.waiting.is_empty() || self.ride_by.is_some() {
            now = now + Duration::from_hours(1);
            self.run(now, plan, sim, chance, trace);
        }
        if let Some(disk) = self.disk.take() {
            // A failing disk may refuse this too; then it is as after a SIGKILL.
            let _ = disk.close();
        }
    }

    /// Does what was under way until the disk no longer answers.
    fn die(mut self, plan: &GatewayPlan, sim: &SimDisk) {
        if self.open_at.is_some() {
            let options = StoreOptions { sync: plan.sync, ..StoreOptions::default() };
            drop(Disk::open(Box::new(sim.clone()), options));
        } else if let Some(disk) = &mut self.disk {
            let mut batch = std::mem::take(&mut self.riders);
            if let Some((_, running)) = self.running.take() {
                batch = running;
            }
            if !batch.is_empty() {
                drop(disk.apply_batch(batch));
            }
        }
        // Whatever redb still writes while it is dropped does not reach the disk.
        sim.kill_after(0);
        drop(self.disk.take());
    }
}

/// Takes what waits, or a part of it, as if the rest had come a moment later.
fn gather(
    waiting: &mut VecDeque<StoreRequest>,
    riders: &mut Vec<StoreRequest>,
    ride_by: &mut Option<Instant>,
    now: Instant,
    chance: &mut Chance,
) -> Vec<StoreRequest> {
    let count = match waiting.len() {
        0 => 0,
        all if chance.happens(800) => all,
        all => chance.size(1, all),
    };
    let mut batch = Vec::new();
    for request in waiting.drain(..count) {
        if batch.is_empty() && rider(&request).is_some() {
            let same = riders.iter_mut().find(|other| rider(other) == rider(&request));
            match same {
                Some(place) => *place = request,
                None => riders.push(request),
            }
            ride_by.get_or_insert(now + RIDE_ALONG);
        } else {
            batch.push(request);
        }
    }
    batch
}
