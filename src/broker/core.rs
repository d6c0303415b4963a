//! Routing: from a message to the outboxes of its receivers.
//!
//! Owns the tables (accounts, connections, subscriptions) and everything a delivery touches.
//! Does not own the state machines that decide what an operation means.
//!
//! # Invariants
//! - A message reaches each plain subscription once, one member of each queue group, and
//!   each leaf connection and JetStream target at most once.
//! - Nothing is delivered while a JetStream call is under way: what JetStream publishes for
//!   JetStream waits in `deferred` until the call has returned.

use alloc::boxed::Box;
use alloc::collections::{BinaryHeap, VecDeque};
use alloc::vec::Vec;
use core::cmp::Reverse;

use foldhash::fast::FixedState;
use slab::Slab;

use super::Output;
use super::account::{self, AccountState};
use super::conn::{CloseReason, Conn, Kind, Receiver, Sub};
use super::events::Events;
use super::imports::{Crossings, Hit};
use super::interest::SubId;
use super::leaf::LeafHits;
use super::lending::lies_in;
use super::msg_trace::MsgTrace;
use super::options::Options;
use super::outbox::Pool;
use super::system::SystemRequest;
use super::trace::Trace;
use super::view::Past;
use crate::id::{AccountId, ConnId, Rng};
use crate::jetstream::host::Target;
use crate::limits::DELIVERY_BACKLOG_BYTES;
use crate::proto::client::{write_err, write_msg, write_msg_front};
use crate::time::{Duration, Instant, Now};

/// A message under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Msg<'a> {
    /// Whose subscribers get it.
    pub(super) to: &'a [u8],
    /// The subject they see.
    pub(super) subject: &'a [u8],
    pub(super) reply: &'a [u8],
    pub(super) headers: &'a [u8],
    pub(super) payload: &'a [u8],
}

impl Msg<'_> {
    /// Do its receivers see another subject than the one they subscribed to?
    pub(super) fn is_renamed(&self) -> bool {
        self.subject != self.to
    }
}

/// Where a message came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin<'a> {
    /// JetStream or the server.
    Server,
    /// A client: the slot, and whether it wants its own messages back.
    Client { conn: u32, echo: bool },
    /// A leaf peer: the slot, and the queue groups it asks to be served (`None` of them
    /// unless listed).
    Leaf { conn: u32, queues: &'a [&'a [u8]] },
    /// A leaf peer, seen from another account than its own.
    Elsewhere { conn: u32 },
}

impl Origin<'_> {
    /// As another account sees it.
    pub(super) fn elsewhere(self) -> Self {
        match self {
            Self::Leaf { conn, .. } => Self::Elsewhere { conn },
            other => other,
        }
    }

    /// The slot of the connection.
    pub(super) fn conn(self) -> Option<u32> {
        match self {
            Self::Server => None,
            Self::Client { conn, .. } | Self::Leaf { conn, .. } | Self::Elsewhere { conn } => {
                Some(conn)
            }
        }
    }
}

/// A message of ours for JetStream, kept until the call that made it has returned.
#[derive(Debug)]
pub(super) struct Deferred {
    pub(super) account: AccountId,
    pub(super) target: Target,
    pub(super) subject: Box<[u8]>,
    pub(super) reply: Box<[u8]>,
    pub(super) headers: Box<[u8]>,
    pub(super) payload: Box<[u8]>,
    /// The slot of the connection it is from.
    pub(super) asking: Option<u32>,
}

/// Tables and everything a delivery touches.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) options: Options,
    /// By [`AccountId`].
    pub(super) accounts: Vec<AccountState>,
    pub(super) cross: Crossings,
    /// The message under way, if it is traced.
    pub(super) msg_trace: Option<Box<MsgTrace>>,
    pub(super) trace_seq: u64,
    /// `$JS.<domain>.API.`, which stands for `$JS.API.`.
    pub(super) domain_prefix: Vec<u8>,
    pub(super) conns: Slab<Conn>,
    pub(super) subs: Slab<Sub>,
    pub(super) pool: Pool,
    /// While large payloads are lent: where the bytes that were read begin and end in memory.
    pub(super) lender: Option<(usize, usize)>,
    /// Connections to which something is lent, each once.
    pub(super) borrowers: Vec<u32>,
    /// Connections with something to write, each once.
    pub(super) dirty: Vec<ConnId>,
    pub(super) outputs: VecDeque<Output>,
    pub(super) timers: BinaryHeap<Reverse<(Instant, ConnId)>>,
    pub(super) rng: Rng,
    pub(super) sid_hasher: FixedState,
    pub(super) next_cid: u64,
    pub(super) next_generation: u32,
    pub(super) clients: usize,
    pub(super) now: Now,
    pub(super) deferred: VecDeque<Deferred>,
    /// The slot of the connection whose message JetStream is handling.
    pub(super) asking: Option<u32>,
    pub(super) leaf_hits: LeafHits,
    /// For what is written to leaf connections.
    pub(super) leaf_scratch: Vec<u8>,
    pub(super) targets: Vec<(AccountId, Target)>,
    finished: Vec<SubId>,
    /// Watched subjects whose literal interest changed.
    pub(super) changed: Vec<(AccountId, Box<[u8]>)>,
    backlogged: usize,
    /// A backlog went since JetStream was last told.
    pub(super) drained: bool,
    /// The receiver in this read batch with the most bytes waiting, and how many: what a
    /// fast producer is held back by.
    pub(super) pressure: (usize, ConnId),
    scratch: Vec<u8>,
    /// What parked connections sent ahead, all together.
    pub(super) parked_bytes: usize,
    pub(super) past: Past,
    /// For the server's own services.
    pub(super) requests: VecDeque<SystemRequest>,
    pub(super) events: Events,
    pub(super) trace: Trace,
}

impl Core {
    pub(super) fn new(options: Options, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let hash_seed = rng.next_u64();
        let accounts = account::build(&options, hash_seed);
        Self {
            trace: Trace::new(options.logging),
            options,
            accounts,
            cross: Crossings::default(),
            msg_trace: None,
            trace_seq: 0,
            domain_prefix: Vec::new(),
            conns: Slab::new(),
            subs: Slab::new(),
            pool: Pool::default(),
            lender: None,
            borrowers: Vec::new(),
            dirty: Vec::new(),
            outputs: VecDeque::new(),
            timers: BinaryHeap::new(),
            rng,
            sid_hasher: FixedState::with_seed(hash_seed),
            next_cid: 5,
            next_generation: 1,
            clients: 0,
            now: Now::default(),
            deferred: VecDeque::new(),
            asking: None,
            leaf_hits: LeafHits::default(),
            leaf_scratch: Vec::new(),
            targets: Vec::new(),
            finished: Vec::new(),
            changed: Vec::new(),
            backlogged: 0,
            drained: false,
            pressure: (0, ConnId { index: 0, generation: 0 }),
            scratch: Vec::new(),
            parked_bytes: 0,
            past: Past::default(),
            requests: VecDeque::new(),
            events: Events::default(),
        }
    }

    // --- Connections ---

    pub(super) fn conn(&self, index: u32) -> Option<&Conn> {
        self.conns.get(index as usize)
    }

    pub(super) fn conn_mut(&mut self, index: u32) -> Option<&mut Conn> {
        self.conns.get_mut(index as usize)
    }

    /// Makes sure that a timer stands for the connection's next deadline. A deadline that
    /// moved back is found out when the timer fires.
    pub(super) fn arm(&mut self, index: u32) {
        let soon = self.now.instant + Duration::from_millis(1);
        let Some(conn) = self.conns.get_mut(index as usize) else { return };
        // A deadline in the past must not spin.
        let at = conn.deadline().max(soon);
        if conn.closing || at == Conn::NEVER || conn.timer_at.is_some_and(|armed| armed <= at) {
            return;
        }
        conn.timer_at = Some(at);
        self.timers.push(Reverse((at, conn.id)));
    }

    /// Appends bytes for a connection and lists it for writing.
    pub(super) fn send(&mut self, index: u32, bytes: &[u8]) {
        self.send_with(index, |out| out.extend_from_slice(bytes));
    }

    /// Lets `write` append bytes for a connection, and lists it for writing.
    pub(super) fn send_with(&mut self, index: u32, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(conn) = self.conns.get_mut(index as usize) else { return };
        if conn.closing {
            return;
        }
        let before = conn.outbox.len();
        write(conn.outbox.tail(&mut self.pool));
        if !conn.dirty {
            conn.dirty = true;
            self.dirty.push(conn.id);
        }
        let waiting = conn.outbox.len();
        self.pressure = self.pressure.max((waiting, conn.id));
        if waiting > self.trace.watch_above {
            self.watch_sent(index, before, waiting);
        }
    }

    /// After a connection's bytes were written: how many, and is the socket full?
    pub(super) fn transmitted(&mut self, index: u32, count: usize) {
        let Some(conn) = self.conns.get_mut(index as usize) else { return };
        conn.outbox.advance(count, &mut self.pool);
        self.after_write(index, count);
    }

    /// The same for a connection to which bytes of `read` are lent.
    pub(super) fn settle(&mut self, index: u32, read: &[u8], count: usize) {
        let Some(conn) = self.conns.get_mut(index as usize) else { return };
        conn.outbox.settle(read, count, &mut self.pool);
        self.after_write(index, count);
    }

    fn after_write(&mut self, index: u32, count: usize) {
        let deadline = self.now.instant + self.options.write_deadline;
        let Some(conn) = self.conns.get_mut(index as usize) else { return };
        if conn.backlogged && conn.outbox.len() <= DELIVERY_BACKLOG_BYTES / 2 {
            conn.backlogged = false;
            self.backlogged -= 1;
            self.drained = true;
        }
        if conn.outbox.is_empty() {
            conn.write_by = None;
        } else if conn.write_by.is_none() || count > 0 {
            conn.write_by = Some(deadline);
            self.arm(index);
        }
    }

    /// `-ERR 'text'`, the connection stays.
    pub(super) fn error(&mut self, index: u32, text: &str) {
        self.send_with(index, |out| write_err(out, text));
    }

    /// `-ERR 'text'` and the end.
    pub(super) fn fail(&mut self, index: u32, text: &str, reason: CloseReason) {
        self.error(index, text);
        self.close(index, reason, true);
    }

    /// Ends a connection: its interest goes at once, what waits for it is written first if
    /// `flush`.
    pub(super) fn close(&mut self, index: u32, reason: CloseReason, flush: bool) {
        let Some(conn) = self.conns.get_mut(index as usize) else { return };
        if conn.closing {
            return;
        }
        conn.closing = true;
        if conn.parked {
            self.parked_bytes = self.parked_bytes.saturating_sub(conn.partial.len());
            conn.parked = false;
        }
        conn.partial = Vec::new();
        self.note_closing(index, reason);
        self.log_closing(index, reason);
        let Some(conn) = self.conns.get_mut(index as usize) else { return };
        if conn.backlogged {
            conn.backlogged = false;
            self.backlogged -= 1;
            self.drained = true;
        }
        if !flush {
            conn.outbox.clear(&mut self.pool);
        }
        let id = conn.id;
        if matches!(
            reason,
            CloseReason::SlowConsumerPendingBytes | CloseReason::SlowConsumerWriteDeadline
        ) {
            let account = conn.account;
            if let Some(account) = self.account_mut(account) {
                account.slow_consumers += 1;
            }
        }
        self.outputs.push_back(Output::Close { conn: id, flush, reason });
        self.drop_interest_of(index);
    }

    fn drop_interest_of(&mut self, index: u32) {
        let Some(conn) = self.conns.get_mut(index as usize) else { return };
        let subs: Vec<SubId> = match &mut conn.kind {
            Kind::Client(client) => core::mem::take(&mut client.sids).into_iter().collect(),
            Kind::Leaf(leaf) => leaf.take_subs(),
        };
        for sub in subs {
            self.remove_sub(sub);
        }
    }

    /// Forgets a connection; the shell has closed its socket.
    pub(super) fn remove_conn(&mut self, id: ConnId) {
        let Some(conn) = self.conn(id.index).filter(|conn| conn.id == id) else { return };
        if !conn.closing {
            self.log_closing(id.index, CloseReason::ClientClosed);
            self.note_closing(id.index, CloseReason::ClientClosed);
        }
        self.note_closed(id.index);
        let event = self.disconnecting(id.index);
        self.unpark(id.index);
        if let Some(conn) = self.conn_mut(id.index) {
            conn.closing = true;
        }
        self.drop_interest_of(id.index);
        let account = self.conn(id.index).map_or(AccountId::NONE, |conn| conn.account);
        self.leave_account(id.index);
        self.note_disconnect(account, event);
        let mut conn = self.conns.remove(id.index as usize);
        if conn.backlogged {
            self.backlogged -= 1;
            self.drained = true;
        }
        conn.outbox.clear(&mut self.pool);
        match conn.kind {
            Kind::Client(client) => self.clients -= usize::from(client.counts()),
            Kind::Leaf(_) => {
                if let Some(account) = self.account_mut(account) {
                    account.leafs.retain(|&leaf| leaf != id.index);
                }
            }
        }
    }

    // --- Subscriptions ---

    /// Adds a subscription to the tables and the interest, and tells who must hear of it.
    pub(super) fn add_sub(
        &mut self,
        account: AccountId,
        subject: &[u8],
        queue: &[u8],
        receiver: Receiver,
    ) -> SubId {
        let from_leaf = match receiver {
            Receiver::Leaf { conn } => Some(conn),
            _ => None,
        };
        // The server answers for itself: a hub does not hear of that.
        let own = receiver == Receiver::System;
        self.count_listener(account, &receiver, true);
        let sub = Sub { account, subject: subject.into(), queue: queue.into(), receiver };
        let id = SubId(u32::try_from(self.subs.insert(sub)).unwrap_or(u32::MAX));
        if let Some(account) = self.account_mut(account) {
            account.interest.insert(subject, queue, id);
            account.subs += 1;
        }
        self.note_change(account, subject);
        if !own {
            self.leaf_interest_changed(account, subject, queue, from_leaf, true);
        }
        let imports = self.account(account).is_some_and(AccountState::imports_streams);
        if imports {
            self.add_shadows(id);
        }
        id
    }

    /// Removes a subscription. The client's `sids` must not hold it any more.
    pub(super) fn remove_sub(&mut self, id: SubId) {
        self.trace_ended(id);
        let Some(sub) = self.subs.try_remove(id.0 as usize) else { return };
        self.count_listener(sub.account, &sub.receiver, false);
        if let Some(account) = self.account_mut(sub.account) {
            account.interest.remove(&sub.subject, &sub.queue, id);
            account.subs = account.subs.saturating_sub(1);
        }
        self.note_change(sub.account, &sub.subject);
        let from_leaf = match sub.receiver {
            Receiver::Leaf { conn } => Some(conn),
            _ => None,
        };
        self.leaf_interest_changed(sub.account, &sub.subject, &sub.queue, from_leaf, false);
        self.remove_shadows(id);
        self.end_unwanted_responses(sub.account, &sub.subject);
    }

    /// Removes a client's subscription wherever it is listed.
    pub(super) fn end_client_sub(&mut self, id: SubId) {
        let Some(Sub { receiver: Receiver::Client { conn, sid, .. }, .. }) =
            self.subs.get(id.0 as usize)
        else {
            return;
        };
        let hash = self.sid_hash(sid);
        let conn = *conn;
        if let Some(client) = self.conns.get_mut(conn as usize).and_then(Conn::client_mut)
            && let Ok(entry) = client.sids.find_entry(hash, |&other| other == id)
        {
            entry.remove();
        }
        self.remove_sub(id);
    }

    pub(super) fn sid_hash(&self, sid: &[u8]) -> u64 {
        use core::hash::BuildHasher;
        self.sid_hasher.hash_one(sid)
    }

    fn note_change(&mut self, account: AccountId, subject: &[u8]) {
        let Some(watched) = self.account(account).and_then(|state| state.watched.get(subject))
        else {
            return;
        };
        let noted = self.changed.last().is_some_and(|(of, last)| *of == account && last == watched);
        if !noted {
            let watched = watched.clone();
            self.changed.push((account, watched));
        }
    }

    // --- Delivery ---

    /// Delivers to all receivers in the account but JetStream, whose targets are appended to
    /// `targets`. Says whether anybody received it.
    pub(super) fn route(
        &mut self,
        account: AccountId,
        origin: Origin<'_>,
        msg: &Msg<'_>,
        targets: &mut Vec<(AccountId, Target)>,
    ) -> bool {
        if self.msg_trace.is_some() {
            return self.route_traced(account, origin, msg, targets);
        }
        self.route_in::<false>(account, origin, msg, targets)
    }

    /// As [`Self::route`], for a message that is traced.
    #[cold]
    fn route_traced(
        &mut self,
        account: AccountId,
        origin: Origin<'_>,
        msg: &Msg<'_>,
        targets: &mut Vec<(AccountId, Target)>,
    ) -> bool {
        self.route_in::<true>(account, origin, msg, targets)
    }

    fn route_in<const TRACED: bool>(
        &mut self,
        account: AccountId,
        origin: Origin<'_>,
        msg: &Msg<'_>,
        targets: &mut Vec<(AccountId, Target)>,
    ) -> bool {
        let Some(state) = self.account_mut(account) else { return false };
        let found = state.interest.find(msg.to);
        let mut delivered = false;
        for &sub in &found.matches().plain {
            delivered |= self.deliver_member::<TRACED>(sub, origin, msg, targets, None);
        }
        for group in &found.matches().queues {
            if let Origin::Leaf { queues, .. } = origin
                && !queues.iter().any(|queue| **queue == *group.queue)
            {
                continue;
            }
            let (members, queue) = (&group.members, &group.queue);
            delivered |= self.deliver_to_one::<TRACED>(members, queue, origin, msg, targets);
        }
        if let Some(state) = self.account_mut(account) {
            state.interest.recycle(found);
        }
        self.settle_delivery(msg);
        if !self.cross.hits.is_empty() {
            delivered |= self.cross(account, origin, msg);
        }
        delivered
    }

    /// What follows the deliveries of a message.
    #[inline]
    pub(super) fn settle_delivery(&mut self, msg: &Msg<'_>) {
        if !self.leaf_hits.is_empty() {
            self.deliver_to_leafs(msg);
        }
        while let Some(sub) = self.finished.pop() {
            self.end_client_sub(sub);
        }
    }

    #[inline]
    fn deliver_member<const TRACED: bool>(
        &mut self,
        id: SubId,
        origin: Origin<'_>,
        msg: &Msg<'_>,
        targets: &mut Vec<(AccountId, Target)>,
        queue: Option<&[u8]>,
    ) -> bool {
        if TRACED {
            self.deliver_traced(id, origin, msg, targets, queue, None)
        } else {
            self.deliver_to(id, origin, msg, targets, queue)
        }
    }

    /// One member of a queue group: a random local one that takes it, else one behind a
    /// leaf connection.
    fn deliver_to_one<const TRACED: bool>(
        &mut self,
        members: &[SubId],
        queue: &[u8],
        origin: Origin<'_>,
        msg: &Msg<'_>,
        targets: &mut Vec<(AccountId, Target)>,
    ) -> bool {
        let start = self.rng.index(members.len());
        let (before, after) = members.split_at_checked(start).unwrap_or((members, &[]));
        let is_leaf = |core: &Self, member: SubId| {
            matches!(
                core.subs.get(member.0 as usize),
                Some(Sub { receiver: Receiver::Leaf { .. }, .. })
            )
        };
        for leafs in [false, true] {
            for &member in after.iter().chain(before) {
                if is_leaf(self, member) == leafs
                    && self.deliver_member::<TRACED>(member, origin, msg, targets, Some(queue))
                {
                    return true;
                }
            }
        }
        false
    }

    pub(super) fn deliver_to(
        &mut self,
        id: SubId,
        origin: Origin<'_>,
        msg: &Msg<'_>,
        targets: &mut Vec<(AccountId, Target)>,
        queue: Option<&[u8]>,
    ) -> bool {
        let Some(sub) = self.subs.get_mut(id.0 as usize) else { return false };
        match &mut sub.receiver {
            Receiver::Js(target) => {
                let target = (sub.account, *target);
                if !targets.contains(&target) {
                    targets.push(target);
                }
                true
            }
            Receiver::Leaf { conn } => {
                let conn = *conn;
                if matches!(origin, Origin::Leaf { conn: from, .. } if from == conn) {
                    return false;
                }
                let crosses =
                    self.conns.get(conn as usize).is_some_and(|conn| Self::may_cross(conn, msg.to));
                if crosses {
                    self.leaf_hits.add(conn, queue);
                }
                crosses
            }
            Receiver::Shadow { .. } => {
                self.cross.hits.push(Hit::Shadow(id));
                // Of a queue group, this is the one.
                queue.is_some()
            }
            Receiver::Service(index) => {
                self.cross.hits.push(Hit::Service(*index));
                false
            }
            Receiver::Responses => {
                self.cross.hits.push(Hit::Response);
                false
            }
            Receiver::System => {
                let account = sub.account;
                self.note_request(account, origin, msg);
                true
            }
            Receiver::Client { conn: index, sid, delivered, max } => {
                let index = *index;
                if matches!(origin, Origin::Client { conn, echo: false } if conn == index) {
                    return false;
                }
                let Some(conn) = self.conns.get_mut(index as usize) else { return false };
                let Kind::Client(client) = &mut conn.kind else { return false };
                if conn.closing || (*max > 0 && *delivered >= *max) {
                    return false;
                }
                if let Some(access) = &mut client.access {
                    let queue = queue.unwrap_or_default();
                    if !access.receive(self.now.instant, msg.subject, queue, msg.reply) {
                        return false;
                    }
                }
                *delivered += 1;
                if *max > 0 && *delivered >= *max {
                    self.finished.push(id);
                }
                let headers = if client.flags.headers { msg.headers } else { &[] };
                conn.msgs_out += 1;
                conn.bytes_out += (headers.len() + msg.payload.len()) as u64;
                conn.active_at = self.now.instant;
                let lent = match self.lender {
                    Some(lender) if conn.outbox.lends() => lies_in(lender, msg.payload),
                    _ => None,
                };
                let out = conn.outbox.tail(&mut self.pool);
                if let Some(from) = lent {
                    write_msg_front(out, msg.subject, sid, msg.reply, headers, msg.payload.len());
                    if !conn.outbox.has_lent() {
                        self.borrowers.push(index);
                    }
                    conn.outbox.lend(from, msg.payload.len());
                    conn.outbox.tail(&mut self.pool).extend_from_slice(b"\r\n");
                } else {
                    write_msg(out, msg.subject, sid, msg.reply, headers, msg.payload);
                }
                if !conn.dirty {
                    conn.dirty = true;
                    self.dirty.push(conn.id);
                }
                let waiting = conn.outbox.len();
                if waiting > self.pressure.0 {
                    self.pressure = (waiting, conn.id);
                }
                if waiting > self.trace.watch_above {
                    self.watch_delivery(index, id, msg, headers, waiting);
                }
                true
            }
        }
    }

    #[cold]
    pub(super) fn note_backlog(&mut self, index: u32, waiting: usize) {
        let Some(conn) = self.conns.get_mut(index as usize) else { return };
        if !conn.backlogged {
            conn.backlogged = true;
            self.backlogged += 1;
        }
        if waiting > self.options.max_pending {
            self.close(index, CloseReason::SlowConsumerPendingBytes, false);
        }
    }

    /// Answers a request nobody received, if its sender asked for that: a 503 to the plain
    /// subscription of the same connection that waits for the reply.
    pub(super) fn no_responders(&mut self, index: u32, subject: &[u8], reply: &[u8]) {
        let Some(conn) = self.conns.get(index as usize) else { return };
        let Some(state) = self.accounts.get_mut(usize::from(conn.account.0)) else { return };
        let found = state.interest.find(reply);
        let waiting = found.matches().plain.iter().copied().find(|sub| {
            matches!(
                self.subs.get(sub.0 as usize),
                Some(Sub { receiver: Receiver::Client { conn, .. }, .. }) if *conn == index
            )
        });
        state.interest.recycle(found);
        let Some(Sub { receiver: Receiver::Client { sid, .. }, .. }) =
            waiting.and_then(|sub| self.subs.get(sub.0 as usize))
        else {
            return;
        };
        let sid = sid.clone();
        let mut headers = core::mem::take(&mut self.scratch);
        headers.clear();
        crate::proto::headers::write_status(&mut headers, "503", &[("Nats-Subject", subject)]);
        self.send_with(index, |out| write_msg(out, reply, &sid, b"", &headers, b""));
        self.scratch = headers;
    }

    /// Are the receivers behind `subject` so far behind that a consumer should wait?
    pub(super) fn is_backlogged(&mut self, account: AccountId, subject: &[u8]) -> bool {
        if self.backlogged == 0 {
            return false;
        }
        let Some(state) = self.accounts.get_mut(usize::from(account.0)) else { return false };
        let found = state.interest.find(subject);
        let matches = found.matches();
        let behind = |sub: &SubId| match self.subs.get(sub.0 as usize).map(|sub| &sub.receiver) {
            Some(Receiver::Client { conn, .. } | Receiver::Leaf { conn }) => {
                self.conns.get(*conn as usize).is_some_and(|conn| conn.backlogged)
            }
            Some(
                Receiver::Js(_)
                | Receiver::Shadow { .. }
                | Receiver::Service(_)
                | Receiver::Responses
                | Receiver::System,
            )
            | None => false,
        };
        let any = matches.plain.iter().any(behind)
            || matches.queues.iter().any(|group| group.members.iter().any(behind));
        state.interest.recycle(found);
        any
    }
}
