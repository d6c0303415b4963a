//! Leaf connections in the broker: the link to a hub, and interest and messages across it.
//!
//! Owns the remotes ([`Uplink`]), what each leaf peer subscribed to, and which leaf
//! connections a message under way must cross. The decisions themselves (when to dial, the
//! handshake, permissions) are in `crate::leaf`.
//!
//! # Order
//! [`Output::Dial`] → [`Broker::dialed`] or [`Broker::dial_failed`] → bytes through
//! [`Broker::receive`] like any connection's, perhaps [`Output::StartTls`] →
//! [`Broker::tls_done`] → [`Broker::closed`].
//!
//! # Invariants
//! - `leafs` of an account holds its connections whose handshake is over, each once.
//! - A message never goes back over the connection it came from.
//! - Interest of one hub is not told to another, but for loop ids.
//! - A link moves interest and messages of one account only.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use super::conn::{CloseReason, Conn, Kind, Receiver};
use super::connect::PROTOCOL_VERSION;
use super::core::{Core, Msg, Origin};
use super::interest::SubId;
use super::{Broker, Notice, Output};
use crate::auth::creds::Creds;
use crate::id::{AccountId, ConnId, Rng};
use crate::jetstream::host::Inbound;
use crate::leaf::handshake::{LeafOutput, Link, Solicitor};
use crate::leaf::interest::{
    Change, HubChange, HubInterest, LOOP_PREFIX, LinkRules, LocalInterest,
};
use crate::leaf::nudge::{NUDGE_ANSWER, Nudge};
use crate::leaf::remote::{Dial, LostReason, Remote};
use crate::leaf::{Identity, LeafNotice, Login, RemoteOptions};
use crate::limits;
use crate::proto::leaf::{LeafBounds, LeafMsg, LeafOp, LeafParseError, Parsed, parse, write_msg};
use crate::time::{Instant, Now};

/// Between two lines about the same remote being out of reach.
const DIAL_NOTICE_EVERY: Duration = Duration::from_mins(1);

/// Where the API of a JetStream domain is mapped from, after `$JS.<domain>.API.`.
const DOMAIN_API: [&[u8]; 9] = [
    b"INFO",
    b"STREAM.>",
    b"CONSUMER.>",
    b"DIRECT.>",
    b"META.>",
    b"SERVER.>",
    b"ACCOUNT.>",
    b"$KV.>",
    b"$OBJ.>",
];

/// One remote of the configuration.
#[derive(Debug)]
pub(super) struct Uplink {
    options: RemoteOptions,
    account: AccountId,
    remote: Remote,
    /// When its being out of reach was last told, since it was last reached.
    told_at: Option<Instant>,
    /// Attempts that failed since it was last reached, and whether it ever was.
    failed: u32,
    reached: bool,
}

/// What all leaf connections of an account share.
#[derive(Debug, Default)]
pub(super) struct LeafShared {
    /// Is there any remote?
    configured: bool,
    /// What our side wants.
    local: LocalInterest,
    /// `$LDS.…` of the account, the same on every connection.
    loop_id: Vec<u8>,
}

impl LeafShared {
    /// Is there any remote?
    pub(super) fn is_configured(&self) -> bool {
        self.configured
    }
}

/// A leaf connection's state.
#[derive(Debug)]
pub(super) struct Leaf {
    /// Which remote it belongs to.
    uplink: usize,
    solicitor: Solicitor,
    rules: LinkRules,
    subs: HubInterest<SubId>,
    nudge: Nudge,
    creds: Option<Creds>,
    login: Option<Login>,
    tls_name: String,
    /// `host:port` that was dialled, or the address behind it.
    peer: Box<str>,
    /// The hub was told that it wants too much.
    told_full: bool,
    /// The remote knows that this connection ended.
    lost: bool,
}

impl Leaf {
    /// All subscriptions of the peer, which it then has no more.
    pub(super) fn take_subs(&mut self) -> Vec<SubId> {
        self.subs.take()
    }

    /// The place of its remote.
    pub(super) fn uplink(&self) -> usize {
        self.uplink
    }

    /// It ends because we want it to; the remote need not know.
    pub(super) fn give_up(&mut self) {
        self.lost = true;
    }

    /// How many there are.
    pub(super) fn subs_len(&self) -> usize {
        self.subs.len()
    }

    /// Their entries in the tables.
    pub(super) fn sub_ids(&self) -> impl Iterator<Item = SubId> {
        self.subs.ids()
    }

    /// `host:port` of the peer.
    pub(super) fn peer(&self) -> &str {
        &self.peer
    }

    /// Which remote of the configuration it belongs to.
    pub(super) fn remote(&self) -> usize {
        self.uplink
    }

    /// The handshake is over.
    pub(super) fn is_ready(&self) -> bool {
        self.solicitor.is_ready()
    }

    /// The server on the other side.
    pub(super) fn hub_name(&self) -> &str {
        self.solicitor.hub_name()
    }

    /// Round trip, once measured.
    pub(super) fn rtt(&self) -> Option<Duration> {
        self.solicitor.rtt()
    }

    /// When [`Broker::leaf_timeout`] must look at it.
    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.solicitor.poll_timeout(), self.nudge.poll_timeout()].into_iter().flatten().min()
    }
}

/// The leaf connections one message must cross, with the queue groups chosen behind each.
#[derive(Debug, Default)]
pub(super) struct LeafHits {
    hits: Vec<(u32, Vec<Vec<u8>>)>,
}

impl LeafHits {
    pub(super) fn is_empty(&self) -> bool {
        self.hits.is_empty()
    }

    /// Notes that the message must cross `conn`, for `queue` or for plain interest.
    pub(super) fn add(&mut self, conn: u32, queue: Option<&[u8]>) {
        let queue = queue.map(<[u8]>::to_vec);
        match self.hits.iter_mut().find(|(other, _)| *other == conn) {
            Some((_, queues)) => queues.extend(queue),
            None => self.hits.push((conn, queue.into_iter().collect())),
        }
    }
}

impl Broker {
    // --- Dialling ---

    /// Adds a remote; it is dialled at the end of this turn. One of an account that does not
    /// exist never is, and the operator is told.
    pub fn add_remote(&mut self, now: Now, options: RemoteOptions) {
        self.bring_in(now, &options.account);
        let core = &mut self.core;
        let account = core.account_named(&options.account).unwrap_or(AccountId::NONE);
        if core.account(account).is_some_and(|state| !state.leaf.configured) {
            core.begin_leaf_interest(account);
        }
        let rng = Rng::new(core.rng.next_u64());
        let mut remote = Remote::new(&options, rng, now.instant);
        if account == AccountId::NONE {
            let text = format!("leaf remote: there is no account {:?}", options.account);
            core.outputs.push_back(Output::Notice(Notice::error(text)));
            remote.close();
        }
        self.uplinks.push(Uplink {
            options,
            account,
            remote,
            told_at: None,
            failed: 0,
            reached: false,
        });
    }

    /// Remotes whose account was not known yet begin once it is.
    pub(super) fn begin_late_remotes(&mut self, now: Now) {
        for place in 0..self.uplinks.len() {
            let Some(uplink) = self.uplinks.get_mut(place) else { return };
            if uplink.account != AccountId::NONE {
                continue;
            }
            let core = &mut self.core;
            let Some(account) = core.account_named(&uplink.options.account) else { continue };
            uplink.account = account;
            uplink.remote =
                Remote::new(&uplink.options, Rng::new(core.rng.next_u64()), now.instant);
            if core.account(account).is_some_and(|state| !state.leaf.configured) {
                core.begin_leaf_interest(account);
            }
        }
    }

    /// An attempt of [`Output::Dial`] reached a listener. `credentials` is the content of the
    /// file the output named, or why it could not be read. `None`: close the socket, it is
    /// not wanted.
    pub fn dialed(
        &mut self,
        now: Now,
        remote: usize,
        dial: &Dial,
        credentials: Option<Result<&str, &str>>,
    ) -> Option<ConnId> {
        self.core.now = now;
        let uplink = self.uplinks.get_mut(remote)?;
        if !uplink.remote.handle_dialed(dial.attempt) {
            return None;
        }
        uplink.told_at = None;
        uplink.failed = 0;
        uplink.reached = true;
        let creds = match credentials {
            None => None,
            Some(Ok(text)) => match Creds::parse(text) {
                Ok(creds) => Some(creds),
                Err(error) => return self.unusable_creds(now, remote, &error.to_string()),
            },
            Some(Err(error)) => return self.unusable_creds(now, remote, error),
        };
        let account = uplink.account;
        let login = uplink.remote.login(&dial.url).cloned();
        let link = Link {
            options: &uplink.options,
            identity: &self.identity,
            creds: creds.as_ref(),
            login: login.as_ref(),
        };
        let solicitor = Solicitor::new(
            now,
            dial.url.to_string(),
            &link,
            self.core.options.ping_interval,
            self.core.options.ping_max,
            Rng::new(self.core.rng.next_u64()),
        );
        let leaf = Leaf {
            uplink: remote,
            solicitor,
            rules: LinkRules::default(),
            subs: HubInterest::default(),
            nudge: Nudge::default(),
            creds,
            login,
            tls_name: dial.tls_name.clone(),
            peer: format!("{}:{}", dial.url.host, dial.url.port).into(),
            told_full: false,
            lost: false,
        };
        let id = self.add_conn(now, Kind::Leaf(Box::new(leaf)));
        if let Err(error) = self.core.bind_account(id.index, account) {
            let text = format!("{} - {}", self.core.conn_name(id.index), error.wire_text());
            self.core.outputs.push_back(Output::Notice(Notice::error(text)));
            self.core.close(id.index, error.reason(), false);
            return Some(id);
        }
        self.drain_leaf(now, id.index);
        Some(id)
    }

    /// The address that a dialled connection has on the other side.
    pub fn name_peer(&mut self, id: ConnId, address: &str) {
        let Some(conn) = self.core.conn_mut(id.index).filter(|conn| conn.id == id) else { return };
        if let Kind::Leaf(leaf) = &mut conn.kind {
            leaf.peer = address.into();
        }
    }

    /// An attempt failed.
    pub fn dial_failed(&mut self, now: Now, remote: usize, attempt: u32, error: &str) {
        let Some(uplink) = self.uplinks.get_mut(remote) else { return };
        uplink.remote.handle_dial_failed(attempt);
        if uplink.remote.is_connected() {
            return;
        }
        uplink.failed = uplink.failed.saturating_add(1);
        let (first, later) = self.core.options.dial_reports;
        let every = if uplink.reached { later } else { first };
        // Attempts go on for as long as a hub is away: the log must not.
        let due = uplink.told_at.is_none_or(|at| now.instant.since(at) >= DIAL_NOTICE_EVERY);
        if uplink.failed == 1 || due && uplink.failed.is_multiple_of(every.max(1)) {
            uplink.told_at = Some(now.instant);
            let places: Vec<String> = uplink.options.urls.iter().map(ToString::to_string).collect();
            let text = format!(
                "Error trying to connect as leafnode to remote server \"{}\" (attempt {}): {error}",
                places.join(", "),
                uplink.failed
            );
            self.core.outputs.push_back(Output::Notice(Notice::error(text)));
        }
    }

    /// TLS of a connection is up, or why not.
    pub fn tls_done(&mut self, now: Now, id: ConnId, result: Result<(), &str>) {
        self.core.now = now;
        if self.core.conn(id.index).is_none_or(|conn| conn.id != id) {
            return;
        }
        self.with_solicitor(id.index, |solicitor, link| solicitor.handle_tls(now, result, link));
        self.drain_leaf(now, id.index);
    }

    /// No more dialling of this remote.
    pub(super) fn close_remote(&mut self, remote: usize) {
        if let Some(uplink) = self.uplinks.get_mut(remote) {
            uplink.remote.close();
        }
    }

    /// No more dialling: the server stops.
    pub fn close_remotes(&mut self) {
        for uplink in &mut self.uplinks {
            uplink.remote.close();
        }
    }

    /// A hub asks for its consumers the moment it is connected, and waits 40 seconds when
    /// nobody answers: it is not dialled before the streams are known.
    fn may_dial(&self) -> bool {
        self.js.iter().all(|(_, js)| js.is_recovered())
    }

    /// Asks for the attempts that are due.
    pub(super) fn poll_dials(&mut self, now: Now) {
        if !self.may_dial() {
            return;
        }
        for (remote, uplink) in self.uplinks.iter_mut().enumerate() {
            while let Some(dial) = uplink.remote.poll_dial(now.instant) {
                let credentials = uplink.options.credentials.clone();
                self.core.outputs.push_back(Output::Dial { remote, dial, credentials });
            }
        }
    }

    /// When [`Broker::poll_dials`] is due.
    pub(super) fn poll_dial_timeout(&self) -> Option<Instant> {
        if !self.may_dial() {
            return None;
        }
        self.uplinks.iter().filter_map(|uplink| uplink.remote.poll_timeout()).min()
    }

    fn unusable_creds(&mut self, now: Now, remote: usize, error: &str) -> Option<ConnId> {
        let uplink = self.uplinks.get_mut(remote)?;
        uplink.remote.handle_lost(now.instant, &LostReason::Unusable);
        let path = uplink.options.credentials.as_deref().unwrap_or_default();
        let text = format!("Leafnode remote cannot log in with {path:?}: {error}");
        self.core.outputs.push_back(Output::Notice(Notice::error(text)));
        None
    }

    // --- A connection ---

    /// Bytes from a hub.
    pub(super) fn receive_leaf(&mut self, now: Now, index: u32, mut bytes: &[u8]) {
        let bounds =
            LeafBounds::new(self.core.options.max_control_line, self.core.options.max_payload);
        let trace = self.core.options.logging.trace;
        let Some(conn) = self.core.conn_mut(index) else { return };
        let mut partial = core::mem::take(&mut conn.partial);
        // First the operation whose front arrived earlier: it is completed in `partial` with
        // just the bytes it needs.
        while !partial.is_empty() && !bytes.is_empty() {
            let want = match parse(&partial, &bounds) {
                Ok(Parsed::Incomplete { need: 0 }) => {
                    memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1)
                }
                Ok(Parsed::Incomplete { need }) => need.saturating_sub(partial.len()),
                // Cannot be: it was incomplete when it was put aside.
                Ok(Parsed::Op(..)) => 0,
                Err(error) => return self.leaf_parse_error(now, index, error),
            };
            let want = want.min(bytes.len()).min(limits::READ_BUFFER_BYTES);
            let (front, rest) = bytes.split_at(want);
            partial.extend_from_slice(front);
            bytes = rest;
            match parse(&partial, &bounds) {
                Ok(Parsed::Op(op, used)) => {
                    if trace {
                        self.core.trace_in(index, partial.get(..used).unwrap_or_default());
                    }
                    if !self.leaf_op(now, index, &op) {
                        return;
                    }
                    partial.drain(..used);
                }
                Ok(Parsed::Incomplete { .. }) => {}
                Err(error) => return self.leaf_parse_error(now, index, error),
            }
        }
        while !bytes.is_empty() {
            match parse(bytes, &bounds) {
                Ok(Parsed::Op(op, used)) => {
                    if trace {
                        self.core.trace_in(index, bytes.get(..used).unwrap_or_default());
                    }
                    if !self.leaf_op(now, index, &op) {
                        return;
                    }
                    bytes = bytes.get(used..).unwrap_or(&[]);
                }
                Ok(Parsed::Incomplete { need }) => {
                    partial.reserve_exact(need.max(bytes.len()));
                    partial.extend_from_slice(bytes);
                    break;
                }
                Err(error) => return self.leaf_parse_error(now, index, error),
            }
        }
        if partial.is_empty() {
            partial = Vec::new();
        }
        if let Some(conn) = self.core.conn_mut(index) {
            conn.partial = partial;
        }
        self.core.arm(index);
    }

    /// One operation of a hub. Returns false once it is to be read no further.
    fn leaf_op(&mut self, now: Now, index: u32, op: &LeafOp<'_>) -> bool {
        match op {
            LeafOp::Msg(msg) if self.is_ready(index) => self.leaf_msg(now, index, msg),
            LeafOp::SubAdd { subject, queue } if self.is_ready(index) => {
                self.leaf_sub_add(now, index, subject, *queue);
            }
            LeafOp::SubRemove { subject, queue } if self.is_ready(index) => {
                self.leaf_sub_remove(index, subject, queue);
            }
            _ => {
                self.with_solicitor(index, |solicitor, link| solicitor.handle_op(now, op, link));
                self.drain_leaf(now, index);
            }
        }
        self.core.conn(index).is_some_and(|conn| !conn.closing)
    }

    fn is_ready(&self, index: u32) -> bool {
        self.core.leaf(index).is_some_and(|leaf| leaf.solicitor.is_ready())
    }

    fn leaf_parse_error(&mut self, now: Now, index: u32, error: LeafParseError) {
        let what = error.to_string();
        self.with_solicitor(index, |solicitor, _| {
            solicitor.handle_violation(error.wire_text(), &what);
        });
        self.drain_leaf(now, index);
    }

    /// `LS+` of a hub.
    fn leaf_sub_add(&mut self, now: Now, index: u32, subject: &[u8], queue: Option<(&[u8], u32)>) {
        let Some(account) = self.core.conn(index).map(|conn| conn.account) else { return };
        if self.core.account(account).is_some_and(|state| state.leaf.loop_id == subject) {
            let account = self.uplink_of(index).map(|uplink| uplink.options.account.clone());
            self.with_solicitor(index, |solicitor, _| {
                solicitor.handle_loop(account.as_deref().unwrap_or_default());
            });
            return self.drain_leaf(now, index);
        }
        let (queue, weight) = queue.unwrap_or((b"", 1));
        let Some(leaf) = self.core.leaf_mut(index) else { return };
        leaf.nudge.handle_add(subject);
        // What could never be sent up is not interest; without it a request is told at once
        // that nobody answers.
        if !subject.starts_with(LOOP_PREFIX) && !leaf.rules.may_match(subject) {
            return;
        }
        // Taken out while the tables change: both belong to the core.
        let mut subs = core::mem::take(&mut leaf.subs);
        let change = subs.add(subject, queue, weight, || {
            self.core.add_sub(account, subject, queue, Receiver::Leaf { conn: index })
        });
        let Some(leaf) = self.core.leaf_mut(index) else { return };
        leaf.subs = subs;
        match change {
            HubChange::Added | HubChange::Weight | HubChange::Same => {}
            HubChange::Invalid => self.core.error(index, "Invalid Subscription"),
            HubChange::Full => {
                if !core::mem::replace(&mut leaf.told_full, true) {
                    self.core.error(index, "maximum subscriptions exceeded");
                    let text = format!(
                        "{} - the hub wants more than {} subjects; those beyond are ignored",
                        self.core.conn_name(index),
                        limits::LEAF_SUBSCRIPTIONS_MAX
                    );
                    self.core.outputs.push_back(Output::Notice(Notice::warn(text)));
                }
            }
        }
    }

    /// `LS-` of a hub.
    fn leaf_sub_remove(&mut self, index: u32, subject: &[u8], queue: &[u8]) {
        let Some(leaf) = self.core.leaf_mut(index) else { return };
        leaf.nudge.handle_settled(subject);
        if let Some(sub) = leaf.subs.remove(subject, queue) {
            self.core.remove_sub(sub);
        }
    }

    /// A message of a hub.
    fn leaf_msg(&mut self, now: Now, index: u32, msg: &LeafMsg<'_>) {
        let Some(conn) = self.core.conn_mut(index) else { return };
        conn.msgs_in += 1;
        conn.active_at = now.instant;
        conn.bytes_in += (msg.headers.len() + msg.payload.len()) as u64;
        let account = conn.account;
        let Kind::Leaf(leaf) = &mut conn.kind else { return };
        leaf.nudge.handle_settled(msg.reply);
        if !leaf.rules.may_receive(msg.subject) {
            return;
        }
        let queues: Vec<&[u8]> = msg.queues.into_iter().collect();
        let (reply, shown) = split_delivery(msg.reply);
        let origin = Origin::Leaf { conn: index, queues: &queues };
        let traced = !msg.headers.is_empty()
            && self.core.begin_trace(account, origin, msg.subject, msg.headers, msg.payload);
        let Some(to) = self.core.mapped(account, msg.subject) else {
            self.core.end_trace();
            return;
        };
        let routed = Msg {
            to: &to,
            subject: shown.unwrap_or(&to),
            reply,
            headers: msg.headers,
            payload: msg.payload,
        };
        let mut targets = core::mem::take(&mut self.targets);
        self.core.route(account, origin, &routed, &mut targets);
        if traced {
            self.end_trace(&to, &mut targets);
        }
        if !targets.is_empty() {
            let inbound =
                Inbound { subject: &to, reply, headers: msg.headers, payload: msg.payload };
            for (account, target) in targets.drain(..) {
                self.hand_to_js(now, account, target, inbound);
            }
            self.run_deferred(now);
        }
        self.targets = targets;
    }

    /// The deadline of a leaf connection passed.
    pub(super) fn leaf_timeout(&mut self, now: Now, index: u32) {
        let Some(leaf) = self.core.leaf_mut(index) else { return };
        let inboxes = leaf.nudge.poll(now.instant);
        leaf.solicitor.handle_timeout(now.instant);
        for inbox in inboxes {
            if self.core.leaf(index).is_some_and(|leaf| leaf.rules.may_send(&inbox)) {
                self.core.send_with(index, |out| {
                    write_msg(out, &inbox, b"", [], b"", NUDGE_ANSWER);
                });
            }
        }
        self.drain_leaf(now, index);
    }

    /// The shell found the connection ended.
    pub(super) fn leaf_closed(&mut self, now: Now, index: u32) {
        let Some(conn) = self.core.conn_mut(index) else { return };
        // The socket is gone: nothing is to be written or closed any more.
        let ours = core::mem::replace(&mut conn.closing, true);
        let Kind::Leaf(leaf) = &mut conn.kind else { return };
        if leaf.lost {
            return;
        }
        if ours {
            // Closed by the broker, as a slow consumer or because the server stops; what
            // was to be said about it has been said.
            leaf.lost = true;
            if let Some(uplink) = self.uplinks.get_mut(leaf.uplink) {
                uplink.remote.handle_lost(now.instant, &LostReason::Link);
            }
            return;
        }
        leaf.solicitor.handle_end(now.instant, None);
        self.drain_leaf(now, index);
    }

    /// Carries out what the solicitor asks for.
    fn drain_leaf(&mut self, now: Now, index: u32) {
        loop {
            let Some(account) = self.core.conn(index).map(|conn| conn.account) else { return };
            let has_js = self.js_slot(account).is_some();
            let Some(leaf) = self.core.leaf_mut(index) else { return };
            let uplink = leaf.uplink;
            let Some(output) = leaf.solicitor.poll_output() else { break };
            let Some(uplink) = self.uplinks.get_mut(uplink) else { return };
            match output {
                LeafOutput::Send(bytes) => self.core.send(index, &bytes),
                LeafOutput::StartTls => {
                    let name = leaf.tls_name.clone();
                    let remote = leaf.uplink;
                    if let Some(conn) = self.core.conn(index) {
                        let conn = conn.id;
                        self.core.outputs.push_back(Output::StartTls { conn, remote, name });
                    }
                }
                LeafOutput::Ready(hub) => {
                    leaf.rules = LinkRules::new(&hub, &uplink.options, &self.identity);
                    let outage = uplink.remote.handle_ready(now.instant);
                    if has_js {
                        leaf.nudge.begin(outage);
                    }
                    self.core.begin_leaf(index);
                    self.compare_claims_soon(index);
                }
                LeafOutput::Gossip(urls) => uplink.remote.handle_gossip(&urls),
                LeafOutput::BurstEnd => leaf.nudge.handle_burst_end(now.instant),
                LeafOutput::Notice(notice) => {
                    let notice = match notice {
                        LeafNotice::Info(text) => Notice::info(text),
                        LeafNotice::Warn(text) => Notice::warn(text),
                        LeafNotice::Error(text) => Notice::error(text),
                    };
                    self.core.outputs.push_back(Output::Notice(notice));
                }
                LeafOutput::Close(reason) => {
                    leaf.lost = true;
                    uplink.remote.handle_lost(now.instant, &reason);
                    if let Some(state) = self.core.account_mut(account) {
                        state.leafs.retain(|&other| other != index);
                    }
                    self.core.close(index, CloseReason::LeafLink, true);
                }
            }
        }
        self.core.arm(index);
    }

    fn with_solicitor(&mut self, index: u32, work: impl FnOnce(&mut Solicitor, &Link<'_>)) {
        let Some(leaf) = self.core.leaf_mut(index) else { return };
        let Some(uplink) = self.uplinks.get(leaf.uplink) else { return };
        let link = Link {
            options: &uplink.options,
            identity: &self.identity,
            creds: leaf.creds.as_ref(),
            login: leaf.login.as_ref(),
        };
        work(&mut leaf.solicitor, &link);
    }

    fn uplink_of(&self, index: u32) -> Option<&Uplink> {
        self.core.leaf(index).and_then(|leaf| self.uplinks.get(leaf.uplink))
    }
}

/// Who we are to hubs.
pub(super) fn identity(options: &super::Options) -> Identity {
    Identity {
        server_id: options.server_id.clone(),
        server_name: options.server_name.clone(),
        version: String::from(PROTOCOL_VERSION),
        domain: options.domain.clone().filter(|_| options.jetstream).unwrap_or_default(),
        jetstream: options.jetstream,
    }
}

/// The reply and the real subject of a consumer's delivery that crossed a leaf connection:
/// `$JS.ACK.` with seven more tokens, then `@` and the subject of the stored message.
fn split_delivery(reply: &[u8]) -> (&[u8], Option<&[u8]>) {
    if !reply.starts_with(b"$JS.ACK.") {
        return (reply, None);
    }
    let Some(eighth) = memchr::memchr_iter(b'.', reply).nth(7) else { return (reply, None) };
    let Some(at) = reply.iter().skip(eighth).position(|&byte| byte == b'@') else {
        return (reply, None);
    };
    let (reply, subject) = reply.split_at(eighth + at);
    (reply, subject.get(1..).filter(|subject| !subject.is_empty()))
}

impl Core {
    pub(super) fn leaf(&self, index: u32) -> Option<&Leaf> {
        match &self.conn(index)?.kind {
            Kind::Leaf(leaf) => Some(leaf),
            Kind::Client(_) => None,
        }
    }

    pub(super) fn leaf_mut(&mut self, index: u32) -> Option<&mut Leaf> {
        match &mut self.conn_mut(index)?.kind {
            Kind::Leaf(leaf) => Some(leaf),
            Kind::Client(_) => None,
        }
    }

    /// The first remote was added: everything that is wanted now is what hubs hear first.
    fn begin_leaf_interest(&mut self, account: AccountId) {
        let sources = self.mapping_sources(account);
        let domain_prefix = self.domain_prefix.clone();
        let Some(state) = self.accounts.get_mut(usize::from(account.0)) else { return };
        let shared = &mut state.leaf;
        shared.configured = true;
        shared.loop_id = [LOOP_PREFIX, self.rng.token(22).as_bytes()].concat();
        shared.local.add(&shared.loop_id, b"");
        for source in sources {
            shared.local.add(&source, b"");
        }
        if state.js.is_some() && !domain_prefix.is_empty() {
            for rest in DOMAIN_API {
                shared.local.add(&[&domain_prefix[..], rest].concat(), b"");
            }
        }
        for (_, sub) in &self.subs {
            if sub.account == account && !matches!(sub.receiver, Receiver::Leaf { .. }) {
                shared.local.add(&sub.subject, &sub.queue);
            }
        }
    }

    /// JetStream of an account came or went: hubs hear whether the domain's API is here.
    pub(super) fn announce_domain(&mut self, account: AccountId, added: bool) {
        if self.domain_prefix.is_empty() {
            return;
        }
        for rest in DOMAIN_API {
            let subject = [&self.domain_prefix[..], rest].concat();
            self.leaf_interest_changed(account, &subject, b"", None, added);
        }
    }

    /// A hub accepted us: it hears everything it may.
    fn begin_leaf(&mut self, index: u32) {
        let Some(account) = self.conn(index).map(|conn| conn.account) else { return };
        let mut out = core::mem::take(&mut self.leaf_scratch);
        out.clear();
        if let (Some(leaf), Some(state)) = (self.leaf(index), self.account(account)) {
            state.leaf.local.write_all(&leaf.rules, &mut out);
        }
        // Loop ids of other hubs, so that a hub reached twice finds out.
        for (_, sub) in &self.subs {
            if sub.account == account && sub.subject.starts_with(LOOP_PREFIX) {
                let change = Change { subject: &sub.subject, queue: b"", count: 1 };
                change.write(&mut out);
            }
        }
        self.send(index, &out);
        self.leaf_scratch = out;
        if let Some(state) = self.account_mut(account) {
            state.leafs.push(index);
        }
        self.note_connect(index);
    }

    /// Local interest came or went: leaf connections may have to hear of it.
    pub(super) fn leaf_interest_changed(
        &mut self,
        account: AccountId,
        subject: &[u8],
        queue: &[u8],
        from_leaf: Option<u32>,
        added: bool,
    ) {
        let Some(state) = self.account_mut(account) else { return };
        if !state.leaf.configured {
            return;
        }
        let change = match (from_leaf, added) {
            (Some(_), _) if !subject.starts_with(LOOP_PREFIX) => return,
            (Some(_), _) => Some(Change { subject, queue: b"", count: u32::from(added) }),
            (None, true) => state.leaf.local.add(subject, queue),
            (None, false) => state.leaf.local.remove(subject, queue),
        };
        let Some(change) = change else { return };
        for slot in 0..state.leafs.len() {
            let Some(&index) = self.account(account).and_then(|state| state.leafs.get(slot)) else {
                return;
            };
            let wanted = Some(index) != from_leaf
                && self.leaf(index).is_some_and(|leaf| leaf.rules.may_advertise(subject, queue));
            if wanted {
                self.send_with(index, |out| change.write(out));
            }
        }
    }

    /// May a message on `subject` cross this connection?
    pub(super) fn may_cross(conn: &Conn, subject: &[u8]) -> bool {
        match &conn.kind {
            Kind::Leaf(leaf) => !conn.closing && leaf.rules.may_send(subject),
            Kind::Client(_) => false,
        }
    }

    /// Sends a message across the leaf connections noted in `leaf_hits`.
    pub(super) fn deliver_to_leafs(&mut self, msg: &Msg<'_>) {
        let mut hits = core::mem::take(&mut self.leaf_hits);
        for (index, queues) in hits.hits.drain(..) {
            let now = self.now.instant;
            let Some(conn) = self.conn_mut(index) else { continue };
            let Kind::Leaf(leaf) = &conn.kind else { continue };
            let may_have = leaf.rules.headers();
            let hop = if self.msg_trace.is_some() && may_have {
                self.trace_hop(index, msg.headers)
            } else {
                None
            };
            let headers = hop.as_deref().unwrap_or(msg.headers);
            let headers = if may_have { headers } else { &[] };
            let Some(conn) = self.conn_mut(index) else { continue };
            conn.msgs_out += 1;
            conn.bytes_out += (headers.len() + msg.payload.len()) as u64;
            conn.active_at = now;
            // A consumer's delivery: the hub takes the subject from behind the `@`.
            let mut reply = core::mem::take(&mut self.leaf_scratch);
            reply.clear();
            reply.extend_from_slice(msg.reply);
            if msg.subject != msg.to && msg.reply.starts_with(b"$JS.ACK.") {
                reply.push(b'@');
                reply.extend_from_slice(msg.subject);
            }
            self.send_with(index, |out| {
                let queues = queues.iter().map(|queue| &queue[..]);
                write_msg(out, msg.to, &reply, queues, headers, msg.payload);
            });
            self.leaf_scratch = reply;
        }
        self.leaf_hits = hits;
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::Options;
    use super::*;
    use crate::time::Timestamp;
    use alloc::vec;

    /// A broker with one remote, in virtual time.
    struct World {
        broker: Broker,
        now: Now,
        outputs: Vec<Output>,
    }

    const INFO1: &str = "INFO {\"server_name\":\"HUB\",\"client_id\":6,\"headers\":true,\
                         \"info_on_connect\":true,\"leafnode_urls\":[]}\r\n";

    impl World {
        fn new(remotes: usize) -> Self {
            let options = Options { server_name: "GW".into(), ..Options::default() };
            let mut broker = Broker::new(options, None, 1);
            let now = Now { instant: Instant(1), wall: Timestamp(1) };
            for _ in 0..remotes {
                let urls = vec![crate::leaf::LeafUrl::parse("h").unwrap()];
                broker.add_remote(now, RemoteOptions { urls, ..RemoteOptions::default() });
            }
            Self { broker, now, outputs: Vec::new() }
        }

        fn turn(&mut self) {
            self.broker.end_turn(self.now);
            self.outputs.extend(core::iter::from_fn(|| self.broker.poll_output()));
        }

        fn waits(&mut self, milliseconds: u64) {
            let until = self.now.instant + Duration::from_millis(milliseconds);
            while let Some(at) = self.broker.poll_timeout().filter(|&at| at <= until) {
                self.now.instant = at.max(self.now.instant);
                self.broker.handle_timeout(self.now);
                self.turn();
            }
            self.now.instant = until;
        }

        fn dials(&mut self) -> Vec<(usize, Dial)> {
            let mut dials = Vec::new();
            self.outputs.retain(|output| match output {
                Output::Dial { remote, dial, .. } => {
                    dials.push((*remote, dial.clone()));
                    false
                }
                _ => true,
            });
            dials
        }

        fn dialed(&mut self) -> ConnId {
            self.turn();
            let (remote, dial) = self.dials().remove(0);
            self.broker.dialed(self.now, remote, &dial, None).unwrap()
        }

        /// A connection whose handshake is over; what we sent in it is dropped.
        fn connected(&mut self) -> ConnId {
            let id = self.dialed();
            self.hears(id, INFO1);
            self.hears(id, "INFO {\"connect_info\":true,\"headers\":true}\r\nPONG\r\n");
            self.sent(id);
            id
        }

        fn hears(&mut self, id: ConnId, bytes: &str) {
            self.broker.receive(self.now, id, bytes.as_bytes());
            self.turn();
        }

        fn sent(&mut self, id: ConnId) -> String {
            let bytes = self.broker.pending(id).to_vec();
            self.broker.transmitted(self.now, id, bytes.len());
            String::from_utf8(bytes).unwrap()
        }

        fn client(&mut self, bytes: &str) -> ConnId {
            let id = self.broker.accept(self.now, "c:1");
            self.hears(
                id,
                "CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\n",
            );
            self.sent(id);
            self.hears(id, bytes);
            id
        }
    }

    #[test]
    fn the_subject_of_a_delivery_is_behind_the_at_sign() {
        let reply = b"$JS.ACK.EDGE.C-pZ.1.1.1.1795456083344606296.2@edge.a";
        assert_eq!(
            split_delivery(reply),
            (&b"$JS.ACK.EDGE.C-pZ.1.1.1.1795456083344606296.2"[..], Some(&b"edge.a"[..]))
        );
        for whole in [&b"_INBOX.a@b"[..], b"$JS.ACK.S.c@x.1.1.1.5.0", b"$JS.ACK.S", b""] {
            assert_eq!(split_delivery(whole), (whole, None), "{}", whole.escape_ascii());
        }
    }

    #[test]
    fn a_hub_that_refuses_is_dialled_again() {
        for bytes in ["INFO {}\r\n", "GET /\r\n", "-ERR 'Authorization Violation'\r\n"] {
            let mut world = World::new(1);
            let id = world.dialed();
            world.hears(id, bytes);
            world.broker.closed(world.now, id);
            world.turn();
            assert!(world.dials().is_empty());
            world.waits(1300);
            assert_eq!(world.dials().len(), 1, "{bytes}");
        }
    }

    #[test]
    fn interest_crosses_before_the_request_that_needs_it() {
        let mut world = World::new(1);
        let hub = world.connected();
        world.hears(hub, "LS+ svc\r\n");
        let client = world.client("SUB _INBOX.x 1\r\nPUB svc _INBOX.x 1\r\n?\r\n");
        assert_eq!(world.sent(hub), "LS+ _INBOX.x\r\nLMSG svc _INBOX.x 1\r\n?\r\n");
        world.hears(hub, "LMSG _INBOX.x 1\r\n!\r\n");
        assert_eq!(world.sent(client), "MSG _INBOX.x 1 1\r\n!\r\n");
        world.broker.closed(world.now, client);
        assert_eq!(world.sent(hub), "LS- _INBOX.x\r\n");
    }

    #[test]
    fn queue_groups_are_listed_and_only_listed_ones_are_served() {
        let mut world = World::new(1);
        let hub = world.connected();
        world.hears(hub, "LS+ t\r\nLS+ t q1 2\r\nLS+ t q2 1\r\n");
        let client = world.client("PUB t 1\r\nx\r\n");
        let sent = world.sent(hub);
        assert!(
            ["LMSG t | q1 q2 1\r\nx\r\n", "LMSG t | q2 q1 1\r\nx\r\n"].contains(&&*sent),
            "{sent}"
        );
        world.hears(client, "SUB d 1\r\nSUB d a 2\r\nSUB d b 3\r\n");
        assert_eq!(world.sent(hub), "LS+ d\r\nLS+ d a 1\r\nLS+ d b 1\r\n");
        world.hears(hub, "LMSG d 1\r\nx\r\nLMSG d | b 1\r\ny\r\n");
        assert_eq!(world.sent(client), "MSG d 1 1\r\nx\r\nMSG d 1 1\r\ny\r\nMSG d 3 1\r\ny\r\n");
    }

    #[test]
    fn nothing_goes_back_where_it_came_from() {
        let mut world = World::new(1);
        let hub = world.connected();
        world.hears(hub, "LS+ a\r\nLMSG a 1\r\nx\r\n");
        assert_eq!(world.sent(hub), "");
    }

    #[test]
    fn interest_of_one_hub_is_not_told_to_another_but_loop_ids_are() {
        let mut world = World::new(2);
        world.turn();
        let ids: Vec<ConnId> = world
            .dials()
            .into_iter()
            .map(|(remote, dial)| world.broker.dialed(world.now, remote, &dial, None).unwrap())
            .collect();
        let (first, second) = (ids[0], ids[1]);
        for id in [first, second] {
            world.hears(id, INFO1);
            world.hears(id, "INFO {\"connect_info\":true}\r\n");
            world.sent(id);
        }
        world.hears(first, "LS+ a\r\nLS+ $LDS.theirs\r\n");
        assert_eq!(world.sent(second), "LS+ $LDS.theirs\r\n");
        world.broker.closed(world.now, first);
        assert_eq!(world.sent(second), "LS- $LDS.theirs\r\n");
    }

    #[test]
    fn our_own_loop_id_ends_the_connection() {
        let mut world = World::new(1);
        let id = world.dialed();
        world.hears(id, INFO1);
        world.hears(id, "INFO {\"connect_info\":true}\r\n");
        let sent = world.sent(id);
        let own = sent.lines().find(|line| line.starts_with("LS+ $LDS.")).unwrap();
        world.hears(id, &format!("{own}\r\n"));
        assert!(world.sent(id).starts_with("-ERR 'Loop detected for leafnode"));
        world.broker.closed(world.now, id);
        world.waits(30_900);
        assert!(world.dials().is_empty());
        world.waits(400);
        assert_eq!(world.dials().len(), 1);
    }

    #[test]
    fn a_consumers_delivery_keeps_its_subject_across_the_link() {
        let mut world = World::new(1);
        let hub = world.connected();
        world.hears(hub, "LS+ $JS.S.x\r\n");
        let msg = Msg {
            to: b"$JS.S.x",
            subject: b"edge.a",
            reply: b"$JS.ACK.S.c.1.1.1.5.0",
            headers: b"",
            payload: b"m",
        };
        assert!(world.broker.core.route(AccountId::GLOBAL, Origin::Server, &msg, &mut Vec::new()));
        assert_eq!(world.sent(hub), "LMSG $JS.S.x $JS.ACK.S.c.1.1.1.5.0@edge.a 1\r\nm\r\n");

        let client = world.client("SUB deliver 1\r\n");
        world.hears(hub, "LMSG deliver $JS.ACK.S.c.1.1.1.5.0@edge.b 1\r\nm\r\n");
        assert_eq!(world.sent(client), "MSG edge.b 1 $JS.ACK.S.c.1.1.1.5.0 1\r\nm\r\n");
    }

    #[test]
    fn headers_are_cut_off_for_a_hub_without_them() {
        let mut world = World::new(1);
        let id = world.dialed();
        world.hears(id, "INFO {\"client_id\":1,\"leafnode_urls\":[]}\r\nLS+ a\r\n");
        world.sent(id);
        world.client("HPUB a 12 13\r\nNATS/1.0\r\n\r\nx\r\n");
        assert_eq!(world.sent(id), "LMSG a 1\r\nx\r\n");
    }

    #[test]
    fn operations_are_the_same_wherever_the_bytes_are_split() {
        let wire = format!(
            "{INFO1}INFO {{\"connect_info\":true}}\r\nPONG\r\nLS+ a\r\nLMSG b | q 2\r\nhi\r\nPING\r\n"
        );
        let play = |cut: usize| {
            let mut world = World::new(1);
            let client = world.client("SUB b q 1\r\n");
            let id = world.dialed();
            world.hears(id, &wire[..cut]);
            world.hears(id, &wire[cut..]);
            (world.sent(id), world.sent(client))
        };
        let whole = play(0);
        assert!(whole.0.ends_with("PONG\r\n") && whole.1.ends_with("hi\r\n"), "{whole:?}");
        for cut in 0..wire.len() {
            assert_eq!(play(cut), whole, "split at byte {cut}");
        }
    }

    #[test]
    fn a_hub_is_not_dialled_before_the_streams_are_known() {
        let now = Now::default();
        let options = super::super::Options { jetstream: true, ..Default::default() };
        let js = crate::jetstream::options::Options::default();
        let mut broker = Broker::new(options, Some(js), 1);
        let remote = RemoteOptions {
            urls: alloc::vec![crate::leaf::LeafUrl::parse("hub").unwrap()],
            ..RemoteOptions::default()
        };
        broker.add_remote(now, remote);
        let dials = |broker: &mut Broker| {
            broker.end_turn(now);
            core::iter::from_fn(|| broker.poll_output())
                .filter(|output| matches!(output, Output::Dial { .. }))
                .count()
        };
        assert_eq!(dials(&mut broker), 0);
        assert_eq!(broker.poll_dial_timeout(), None);
        let recovered = crate::jetstream::storage::StoreReply::Recovered {
            streams: Vec::new(),
            next_stream: 0,
            last_ts: crate::time::Timestamp(0),
        };
        broker.handle_store(now, recovered);
        assert_eq!(dials(&mut broker), 1);
    }
}
