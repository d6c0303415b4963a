//! What the broker shows of itself: counters, connections, subscriptions.
//!
//! Owns the counters of what is gone, the memory of closed connections, and read-only views
//! of the tables. Changes nothing, and knows nothing of pages and JSON (`crate::monitor`
//! does).
//!
//! # Invariants
//! - The counters of a connection are in exactly one place: in its entry while it is open,
//!   in `Past` afterwards. So a total costs nothing per message.
//! - `ClosedRing` never holds more than [`limits::CLOSED_BYTES_MAX`].

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use super::Broker;
use super::account::{AccountState, AccountStats};
use super::conn::{CloseReason, Conn, Kind, Receiver, Sub};
use super::core::Core;
pub use super::imports::view::{ResponseView, TrackingView, export_of};
use super::options::Options;
pub use crate::auth::account;
use crate::auth::account::GLOBAL;
pub use crate::auth::certificate::Certificate;
pub use crate::auth::permissions::Permissions;
use crate::auth::sign_in::Who;
use crate::id::{AccountId, ConnId};
use crate::jetstream::JetStream;
use crate::limits;
use crate::time::{Duration, Instant, Now, Timestamp};

/// Messages and bytes (header and payload) in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages from the peer.
    pub msgs_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Messages to the peer.
    pub msgs_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
}

impl Counts {
    /// Adds what another connection did.
    pub fn add(&mut self, other: Counts) {
        self.msgs_in = self.msgs_in.wrapping_add(other.msgs_in);
        self.bytes_in = self.bytes_in.wrapping_add(other.bytes_in);
        self.msgs_out = self.msgs_out.wrapping_add(other.msgs_out);
        self.bytes_out = self.bytes_out.wrapping_add(other.bytes_out);
    }

    /// Takes off what a connection did before it came, which is added again with all it did.
    pub(super) fn take(&mut self, other: Counts) {
        self.msgs_in = self.msgs_in.wrapping_sub(other.msgs_in);
        self.bytes_in = self.bytes_in.wrapping_sub(other.bytes_in);
        self.msgs_out = self.msgs_out.wrapping_sub(other.msgs_out);
        self.bytes_out = self.bytes_out.wrapping_sub(other.bytes_out);
    }
}

/// The same number for clients and for leaf connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByKind {
    /// Of clients.
    pub clients: u64,
    /// Of leaf connections.
    pub leafs: u64,
}

impl ByKind {
    fn count(&mut self, is_leaf: bool) {
        *if is_leaf { &mut self.leafs } else { &mut self.clients } += 1;
    }

    /// Of both.
    pub fn sum(self) -> u64 {
        self.clients + self.leafs
    }
}

/// What connections that are gone leave behind, and counts of events.
#[derive(Debug, Default)]
pub(super) struct Past {
    clients: Counts,
    leafs: Counts,
    total_connections: u64,
    slow_consumers: ByKind,
    stale: ByKind,
    stalls: u64,
    pub(super) closed: ClosedRing,
}

impl Past {
    /// Counts a client that came.
    pub(super) fn note_opened(&mut self, kind: &Kind) {
        self.total_connections += u64::from(matches!(kind, Kind::Client(_)));
    }
}

/// Numbers of the whole server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Clients that are connected.
    pub clients: usize,
    /// Leaf connections whose handshake is over.
    pub leafs: usize,
    /// Clients since the start.
    pub total_connections: u64,
    /// Subscriptions, those of the server itself included.
    pub subscriptions: usize,
    /// Traffic of clients since the start.
    pub client_counts: Counts,
    /// Traffic of leaf connections since the start.
    pub leaf_counts: Counts,
    /// Connections closed because they did not read.
    pub slow_consumers: ByKind,
    /// Connections closed because they did not answer PING.
    pub stale: ByKind,
    /// How often a publisher was held back for a slow receiver.
    pub stalls: u64,
    /// Bytes that wait in outboxes.
    pub pending_bytes: usize,
}

/// One connection, open or closed.
#[derive(Clone, Copy, Debug)]
pub struct ConnView<'a> {
    /// Where it is in the tables; `None` once closed.
    pub id: Option<ConnId>,
    /// `client_id`.
    pub cid: u64,
    /// A leaf connection rather than a client.
    pub is_leaf: bool,
    /// A client that came in by WebSocket.
    pub is_web: bool,
    /// What TLS agreed on.
    pub tls: Option<TlsView>,
    /// What it showed there; not known any more once closed.
    pub certificates: &'a [Certificate],
    /// `host:port` of the peer.
    pub peer: &'a str,
    /// Its account; the one it would be in, or `$G`, before sign-in.
    pub account: &'a str,
    /// Who signed in; empty for nobody.
    pub user: &'a str,
    /// When it was accepted.
    pub start: Timestamp,
    /// The last message or change of interest.
    pub last_activity: Timestamp,
    /// When and why it ended.
    pub stop: Option<(Timestamp, CloseReason)>,
    /// Round trip; zero: not measured.
    pub rtt: Duration,
    /// Bytes that wait for it.
    pub pending_bytes: usize,
    /// Traffic.
    pub counts: Counts,
    /// How often it was held back for a slow receiver.
    pub stalls: u32,
    /// Subscriptions, or how many there were.
    pub subscriptions: usize,
    /// `name` of CONNECT.
    pub name: &'a str,
    /// `lang` of CONNECT.
    pub lang: &'a str,
    /// `version` of CONNECT.
    pub version: &'a str,
}

/// What a TLS handshake came to.
#[derive(Clone, Copy, Debug)]
pub struct TlsView {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// As IANA and Go write it.
    pub cipher: &'static str,
    /// TLS came before INFO.
    pub first: bool,
}

/// One subscription.
#[derive(Clone, Copy, Debug)]
pub struct SubView<'a> {
    /// Its account.
    pub account: &'a str,
    /// Subject.
    pub subject: &'a [u8],
    /// Queue group; empty: plain.
    pub queue: &'a [u8],
    /// As its client calls it; empty for the server's own.
    pub sid: &'a [u8],
    /// Messages so far.
    pub msgs: u64,
    /// Ends after this many; 0: never.
    pub max: u64,
    /// Its connection; 0: the server.
    pub cid: u64,
}

/// One leaf connection.
#[derive(Clone, Copy, Debug)]
pub struct LeafView<'a> {
    /// Its connection.
    pub conn: ConnView<'a>,
    /// Name of the server on the other side.
    pub hub: &'a str,
    /// Where it is in the tables.
    pub id: ConnId,
    /// Which remote of the configuration.
    pub remote: usize,
}

/// One account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountView<'a> {
    /// Its id.
    pub id: AccountId,
    /// The one that sees the server's events.
    pub is_system: bool,
    /// It may have streams.
    pub has_jetstream: bool,
    /// What it has and did.
    pub stats: AccountStats<'a>,
}

/// How the subject tree did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterestView {
    /// Subscriptions in it.
    pub subscriptions: usize,
    /// Subjects whose receivers are remembered.
    pub cached: usize,
    /// Insertions since the start.
    pub inserts: u64,
    /// Removals since the start.
    pub removes: u64,
}

/// A connection as it was at its end, or when an event about it came up.
#[derive(Debug)]
pub struct Remembered {
    cid: u64,
    is_leaf: bool,
    is_web: bool,
    tls: Option<TlsView>,
    reason: CloseReason,
    start: Timestamp,
    last: Timestamp,
    stop: Timestamp,
    rtt_nanos: u64,
    counts: Counts,
    subscriptions: u32,
    stalls: u32,
    /// Peer, account, user, name, lang and version, one after the other; where each ends.
    text: Box<str>,
    ends: [u16; 5],
}

impl Remembered {
    pub(super) fn new(view: &ConnView<'_>, reason: CloseReason, stop: Timestamp) -> Self {
        let parts = [view.peer, view.account, view.user, view.name, view.lang, view.version];
        let mut text = String::with_capacity(parts.iter().map(|part| part.len()).sum());
        let mut ends = [0; 5];
        for (index, part) in parts.into_iter().enumerate() {
            text.push_str(clipped(part));
            if let Some(end) = ends.get_mut(index) {
                *end = u16::try_from(text.len()).unwrap_or(u16::MAX);
            }
        }
        Self {
            cid: view.cid,
            is_leaf: view.is_leaf,
            is_web: view.is_web,
            tls: view.tls,
            reason,
            start: view.start,
            last: view.last_activity,
            stop,
            rtt_nanos: crate::time::nanos(view.rtt),
            counts: view.counts,
            subscriptions: u32::try_from(view.subscriptions).unwrap_or(u32::MAX),
            stalls: view.stalls,
            text: text.into_boxed_str(),
            ends,
        }
    }

    fn bytes(&self) -> usize {
        // The allocator keeps a word or two for each text.
        size_of::<Self>() + self.text.len() + 2 * size_of::<usize>()
    }

    /// What it was.
    pub fn view(&self) -> ConnView<'_> {
        let part = |index: usize| {
            let start = index.checked_sub(1).map_or(0, |before| self.end(before));
            let end = if index < self.ends.len() { self.end(index) } else { self.text.len() };
            self.text.get(start..end).unwrap_or("")
        };
        ConnView {
            id: None,
            cid: self.cid,
            is_leaf: self.is_leaf,
            is_web: self.is_web,
            tls: self.tls,
            certificates: &[],
            peer: part(0),
            account: part(1),
            user: part(2),
            start: self.start,
            last_activity: self.last,
            stop: Some((self.stop, self.reason)),
            rtt: Duration::from_nanos(self.rtt_nanos),
            pending_bytes: 0,
            counts: self.counts,
            stalls: self.stalls,
            subscriptions: self.subscriptions as usize,
            name: part(3),
            lang: part(4),
            version: part(5),
        }
    }

    fn end(&self, index: usize) -> usize {
        self.ends.get(index).map_or(0, |end| usize::from(*end))
    }
}

/// The front of a text a peer chose: closed connections are remembered in little memory.
fn clipped(text: &str) -> &str {
    let mut end = text.len().min(limits::CLOSED_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or("")
}

/// The connections that ended last, oldest first.
#[derive(Debug, Default)]
pub(super) struct ClosedRing {
    entries: VecDeque<Remembered>,
    bytes: usize,
    total: u64,
}

impl ClosedRing {
    fn push(&mut self, closed: Remembered, entries_max: usize) {
        self.total += 1;
        self.bytes += closed.bytes();
        self.entries.push_back(closed);
        while self.entries.len() > entries_max || self.bytes > limits::CLOSED_BYTES_MAX {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.bytes();
        }
    }
}

impl Core {
    /// Counts why a connection ends.
    pub(super) fn note_closing(&mut self, index: u32, reason: CloseReason) {
        let Some(conn) = self.conns.get_mut(index as usize) else { return };
        let is_leaf = matches!(conn.kind, Kind::Leaf(_));
        let subs = match &conn.kind {
            Kind::Client(client) => client.sids.len(),
            Kind::Leaf(leaf) => leaf.subs_len(),
        };
        conn.ending = Some((reason, u32::try_from(subs).unwrap_or(u32::MAX)));
        match reason {
            CloseReason::SlowConsumerPendingBytes | CloseReason::SlowConsumerWriteDeadline => {
                self.past.slow_consumers.count(is_leaf);
            }
            CloseReason::StaleConnection => self.past.stale.count(is_leaf),
            _ => {}
        }
    }

    /// Remembers a connection that is about to be forgotten.
    pub(super) fn note_closed(&mut self, index: u32) {
        let Some(conn) = self.conns.get(index as usize) else { return };
        let view = view_of(&self.accounts, conn, self.now);
        let reason = conn.ending.map_or(CloseReason::ClientClosed, |(reason, _)| reason);
        let closed = Remembered::new(&view, reason, self.now.wall);
        let past = &mut self.past;
        match conn.kind {
            Kind::Client(_) => past.clients.add(conn.counts()),
            Kind::Leaf(_) => past.leafs.add(conn.counts()),
        }
        past.closed.push(closed, self.options.max_closed_clients);
    }
}

impl Conn {
    pub(super) fn counts(&self) -> Counts {
        Counts {
            msgs_in: self.msgs_in,
            bytes_in: self.bytes_in,
            msgs_out: self.msgs_out,
            bytes_out: self.bytes_out,
        }
    }
}

/// The wall time of an instant, as seen from now.
pub(super) fn wall(now: Now, at: Instant) -> Timestamp {
    let ago = i64::try_from(crate::time::nanos(now.instant.since(at))).unwrap_or(i64::MAX);
    Timestamp(now.wall.0.saturating_sub(ago))
}

pub(super) fn view_of<'a>(accounts: &'a [AccountState], conn: &'a Conn, now: Now) -> ConnView<'a> {
    let account = accounts.get(usize::from(conn.account.0));
    let mut view = ConnView {
        id: Some(conn.id),
        cid: conn.cid,
        is_leaf: false,
        is_web: false,
        tls: None,
        certificates: &[],
        peer: "",
        account: account.map_or("", |state| &state.name),
        user: "",
        start: wall(now, conn.opened_at),
        last_activity: wall(now, conn.active_at),
        stop: None,
        rtt: conn.rtt,
        pending_bytes: conn.outbox.len(),
        counts: conn.counts(),
        stalls: conn.stalls,
        subscriptions: 0,
        name: "",
        lang: "",
        version: "",
    };
    match &conn.kind {
        Kind::Client(client) => {
            view.peer = &client.peer;
            view.is_web = client.is_web_socket();
            if let Some(tls) = client.arrival.as_ref().and_then(|arrival| arrival.tls.as_ref()) {
                let (version, cipher, first) = (tls.version, tls.cipher, tls.first);
                view.tls = Some(TlsView { version, cipher, first });
                view.certificates = &tls.certificates;
            }
            let identity = client.identity.as_deref();
            if account.is_none() {
                view.account = identity.map_or(GLOBAL, |identity| &identity.account);
            }
            view.user = match identity.map(|identity| &identity.who) {
                Some(Who::User(user) | Who::Nkey(user)) => user,
                Some(Who::Token) => "[REDACTED]",
                Some(Who::Anyone) | None if client.connect.user.is_empty() => &client.connect.nkey,
                Some(Who::Anyone) | None => &client.connect.user,
            };
            view.name = &client.connect.name;
            view.lang = &client.connect.lang;
            view.version = &client.connect.version;
            view.subscriptions = client.sids.len();
        }
        Kind::Leaf(leaf) => {
            view.is_leaf = true;
            view.peer = leaf.peer();
            view.rtt = leaf.rtt().unwrap_or_default();
            view.name = leaf.hub_name();
            view.subscriptions = leaf.subs_len();
        }
    }
    if let Some((_, subs)) = conn.ending {
        view.subscriptions = subs as usize;
    }
    view
}

impl Broker {
    /// What it was told at its start.
    pub fn options(&self) -> &Options {
        &self.core.options
    }

    /// JetStream of an account, if it has it.
    pub fn jetstream(&self, account: AccountId) -> Option<&JetStream> {
        self.js.iter().find(|(of, _)| *of == account).map(|(_, js)| js)
    }

    /// Every JetStream, with its account.
    pub fn jetstreams(&self) -> impl Iterator<Item = (AccountId, &JetStream)> {
        self.js.iter().map(|(account, js)| (*account, js))
    }

    /// Numbers of the whole server.
    pub fn totals(&self) -> Totals {
        let core = &self.core;
        let past = &core.past;
        let mut totals = Totals {
            clients: core.clients,
            leafs: core.leafs().count(),
            total_connections: past.total_connections,
            subscriptions: core.subs.len(),
            client_counts: past.clients,
            leaf_counts: past.leafs,
            slow_consumers: past.slow_consumers,
            stale: past.stale,
            stalls: past.stalls,
            pending_bytes: 0,
        };
        for (_, conn) in &core.conns {
            let counts = match conn.kind {
                Kind::Client(_) => &mut totals.client_counts,
                Kind::Leaf(_) => &mut totals.leaf_counts,
            };
            counts.add(conn.counts());
            totals.pending_bytes += conn.outbox.len();
        }
        totals
    }

    /// The open connections, in no order: clients, and leaf connections that are settled.
    pub fn conns(&self, now: Now) -> impl Iterator<Item = ConnView<'_>> {
        let open = self.core.conns.iter().filter(|(_, conn)| !conn.closing);
        open.filter(|(_, conn)| match &conn.kind {
            Kind::Client(_) => true,
            Kind::Leaf(leaf) => leaf.is_ready(),
        })
        .map(move |(_, conn)| view_of(&self.core.accounts, conn, now))
    }

    /// One open connection.
    pub fn conn_view(&self, now: Now, id: ConnId) -> Option<ConnView<'_>> {
        let conn = self.core.conn(id.index).filter(|conn| conn.id == id)?;
        Some(view_of(&self.core.accounts, conn, now))
    }

    /// What the user of a connection may do; `None`: everything.
    pub fn permissions_of(&self, id: ConnId) -> Option<&Permissions> {
        let conn = self.core.conn(id.index).filter(|conn| conn.id == id)?;
        conn.client()?.identity.as_ref()?.permissions.as_deref()
    }

    /// The connections that ended last, oldest first.
    pub fn closed_conns(&self) -> impl Iterator<Item = ConnView<'_>> {
        self.core.past.closed.entries.iter().map(Remembered::view)
    }

    /// How many connections ended since the start.
    pub fn closed_total(&self) -> u64 {
        self.core.past.closed.total
    }

    /// The settled leaf connections.
    pub fn leaf_views(&self, now: Now) -> impl Iterator<Item = LeafView<'_>> {
        self.core.leafs().filter_map(move |index| {
            let conn = self.core.conn(index).filter(|conn| !conn.closing)?;
            let view = view_of(&self.core.accounts, conn, now);
            let Kind::Leaf(leaf) = &conn.kind else { return None };
            Some(LeafView { conn: view, hub: view.name, id: conn.id, remote: leaf.remote() })
        })
    }

    /// The subscriptions of a connection.
    pub fn subs_of(&self, id: ConnId) -> impl Iterator<Item = SubView<'_>> {
        let conn = self.core.conn(id.index).filter(|conn| conn.id == id);
        let (client, leaf) = match conn.map(|conn| &conn.kind) {
            Some(Kind::Client(client)) => (Some(client), None),
            Some(Kind::Leaf(leaf)) => (None, Some(leaf)),
            None => (None, None),
        };
        let clients = client.into_iter().flat_map(|client| client.sids.iter().copied());
        let leafs = leaf.into_iter().flat_map(|leaf| leaf.sub_ids());
        clients
            .chain(leafs)
            .filter_map(|sub| Some(self.sub_view(self.core.subs.get(sub.0 as usize)?)))
    }

    /// Every subscription, in no order.
    pub fn subs(&self) -> impl Iterator<Item = SubView<'_>> {
        let present = |sub: &Sub| self.core.account(sub.account).is_some_and(|of| of.present);
        let subs = self.core.subs.iter().filter(move |(_, sub)| present(sub));
        subs.map(|(_, sub)| self.sub_view(sub))
    }

    /// What every account has and did, in the order of their ids.
    pub fn account_views(&self) -> Vec<AccountView<'_>> {
        let stats = self.core.all_account_stats();
        let ids = self.core.account_ids();
        ids.zip(stats)
            .filter(|(_, stats)| !stats.name.is_empty())
            .map(|(id, stats)| AccountView {
                id,
                is_system: id == AccountId::SYSTEM,
                has_jetstream: self.jetstream(id).is_some(),
                stats,
            })
            .collect()
    }

    /// Its name; empty if there is no such account.
    pub fn account_name(&self, account: AccountId) -> &str {
        self.core.account(account).map_or("", |state| &state.name)
    }

    /// Is there an account of this name?
    pub fn has_account(&self, name: &str) -> bool {
        self.core.account_named(name).is_some()
    }

    /// The account that sees the server's events.
    pub fn system_account(&self) -> &str {
        self.core.account(AccountId::SYSTEM).map_or("", |state| &state.name)
    }

    /// How the subject tree of an account did, or those of all.
    pub fn interest_view(&self, account: &str) -> InterestView {
        let mut view = InterestView::default();
        let wanted = |name: &str| account.is_empty() || name == account;
        for state in self.core.accounts.iter().filter(|state| state.present && wanted(&state.name))
        {
            let (inserts, removes) = state.interest.changes();
            view.subscriptions += state.subs as usize;
            view.inserts += inserts;
            view.removes += removes;
            view.cached += state.interest.cached();
        }
        view
    }

    /// The connection was held back, because a receiver of what it sent is behind.
    pub fn note_stall(&mut self, id: ConnId) {
        self.core.past.stalls += 1;
        if let Some(conn) = self.core.conn_mut(id.index).filter(|conn| conn.id == id) {
            conn.stalls = conn.stalls.saturating_add(1);
        }
    }

    fn sub_view<'a>(&'a self, sub: &'a Sub) -> SubView<'a> {
        let cid = |index: u32| self.core.conn(index).map_or(0, |conn| conn.cid);
        let mut view = SubView {
            account: self.core.account(sub.account).map_or("", |state| &state.name),
            subject: &sub.subject,
            queue: &sub.queue,
            sid: b"",
            msgs: 0,
            max: 0,
            cid: 0,
        };
        match &sub.receiver {
            Receiver::Client { conn, sid, delivered, max } => {
                view.sid = sid;
                view.msgs = *delivered;
                view.max = *max;
                view.cid = cid(*conn);
            }
            Receiver::Leaf { conn } => view.cid = cid(*conn),
            Receiver::Js(_)
            | Receiver::Shadow { .. }
            | Receiver::Service(_)
            | Receiver::Responses
            | Receiver::System => {}
        }
        view
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker() -> (Broker, Now) {
        let now = Now { instant: Instant(5_000_000_000), wall: Timestamp(1_000_000_000_000) };
        (Broker::new(Options::default(), None, 1), now)
    }

    #[test]
    fn totals_keep_what_closed_connections_did() {
        let (mut broker, now) = broker();
        let id = broker.accept(now, "10.0.0.1:1234");
        broker.receive(
            now,
            id,
            b"CONNECT {\"verbose\":false,\"name\":\"n\"}\r\nSUB a 1\r\nPUB a 2\r\nhi\r\n",
        );
        let open = broker.totals();
        assert_eq!(
            open.client_counts,
            Counts { msgs_in: 1, bytes_in: 2, msgs_out: 1, bytes_out: 2 }
        );
        broker.closed(now, id);
        let closed = broker.totals();
        assert_eq!(closed.client_counts, open.client_counts);
        assert_eq!((closed.clients, closed.total_connections), (0, 1));
        let view = broker.closed_conns().next().unwrap();
        assert_eq!((view.peer, view.name, view.subscriptions), ("10.0.0.1:1234", "n", 1));
        assert_eq!(view.stop.unwrap().1, CloseReason::ClientClosed);
    }

    #[test]
    fn closed_connections_take_bounded_memory() {
        let (mut broker, now) = broker();
        let long = "x".repeat(3000);
        for _ in 0..20_000 {
            let id = broker.accept(now, "10.0.0.1:1234");
            let connect = alloc::format!("CONNECT {{\"verbose\":false,\"name\":\"{long}\"}}\r\n");
            broker.receive(now, id, connect.as_bytes());
            broker.closed(now, id);
        }
        let ring = &broker.core.past.closed;
        assert!(ring.bytes <= limits::CLOSED_BYTES_MAX && ring.entries.len() > 1000);
        assert_eq!(ring.bytes, ring.entries.iter().map(Remembered::bytes).sum::<usize>());
    }
}
