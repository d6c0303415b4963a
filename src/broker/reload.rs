//! Other options for a broker that runs.
//!
//! Owns what a change of options means for connections that are there: bounds of the parser,
//! PING timers, clients beyond `max_connections`, links to hubs that are left. Does not own
//! which options may change: that is `crate::config`.
//!
//! Source: nats-server 2.15 after SIGHUP.

mod accounts;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

pub(super) use self::accounts::Standby;
use super::conn::{Client, CloseReason, Conn, Kind};
use super::options::Options;
use super::{Broker, Notice, Output};
use crate::sorted;
use crate::time::Now;

impl Broker {
    /// Takes the options that can change while it runs: those of INFO that clients are told
    /// later, limits, timers, the log, and the accounts. Users have a call of their own.
    pub fn reload(&mut self, now: Now, options: &Options) {
        self.core.now = now;
        self.set_logging(options.logging);
        let own = &mut self.core.options;
        own.host.clone_from(&options.host);
        own.port = options.port;
        own.max_payload = options.max_payload;
        own.max_control_line = options.max_control_line;
        own.ping_interval = options.ping_interval;
        own.ping_max = options.ping_max;
        own.write_deadline = options.write_deadline;
        own.auth_timeout = options.auth_timeout;
        own.tls = options.tls;
        own.no_fast_producer_stall = options.no_fast_producer_stall;
        own.dial_reports = options.dial_reports;
        let fewer = options.max_connections < own.max_connections;
        own.max_connections = options.max_connections;
        if self.sign_in.operators.is_some() {
            self.reload_trust(now, options.trust.as_deref());
        } else {
            self.change_accounts(now, options);
        }
        let indexes: Vec<u32> =
            self.core.conns.iter().filter_map(|(index, _)| u32::try_from(index).ok()).collect();
        for index in indexes {
            self.rebound(now, index);
        }
        if fewer {
            self.close_surplus();
        }
    }

    /// Puts the bounds and timers of now on a connection.
    pub(super) fn rebound(&mut self, now: Now, index: u32) {
        let core = &mut self.core;
        let Some(conn) = core.conns.get(index as usize) else { return };
        let own = core.account(conn.account).and_then(|account| account.limits.max_payload);
        let user = conn.client().and_then(Client::by_token).and_then(|user| user.max_payload);
        let own = own.into_iter().chain(user).min();
        let own = own.and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX);
        let (payload, line) = (core.options.max_payload.min(own), core.options.max_control_line);
        let soon = now.instant + core.options.ping_interval;
        let Some(conn) = core.conns.get_mut(index as usize) else { return };
        conn.bounds.payload = payload;
        conn.bounds.control_line = line;
        if conn.ping_at != Conn::NEVER {
            conn.ping_at = conn.ping_at.min(soon);
        }
        core.arm(index);
    }

    /// Closes the clients that came last, down to `max_connections`.
    fn close_surplus(&mut self) {
        let core = &mut self.core;
        let surplus = core.clients.saturating_sub(core.options.max_connections);
        let mut clients: Vec<(u64, u32)> = core
            .conns
            .iter()
            .filter(|(_, conn)| !conn.closing && conn.client().is_some_and(Client::counts))
            .map(|(_, conn)| (conn.cid, conn.id.index))
            .collect();
        sorted::sort(&mut clients);
        let closed: Vec<u32> =
            clients.iter().rev().take(surplus).map(|&(_, index)| index).collect();
        if closed.is_empty() {
            return;
        }
        for &index in &closed {
            core.fail(index, "maximum connections exceeded", CloseReason::MaximumConnections);
        }
        let text = format!("Closed {} connections to fall within max_connections", closed.len());
        core.outputs.push_back(Output::Notice(Notice::info(text)));
    }

    /// Other client certificates are pinned: clients of the client port with none of these
    /// are closed. `pins` are SHA-256 of their keys.
    pub fn close_unpinned(&mut self, now: Now, pins: &[String]) {
        self.core.now = now;
        let core = &mut self.core;
        let mut others: Vec<(u64, u32, String)> = Vec::new();
        for (_, conn) in &core.conns {
            let Some(client) = conn.client().filter(|client| !client.is_web_socket()) else {
                continue;
            };
            let Some(tls) = client.arrival.as_ref().and_then(|arrival| arrival.tls.as_ref()) else {
                continue;
            };
            let key = tls.certificates.first().map_or("", |shown| &shown.spki_sha256);
            if !conn.closing && !pins.iter().any(|pin| pin == key) {
                others.push((conn.cid, conn.id.index, key.into()));
            }
        }
        sorted::sort(&mut others);
        for (_, index, key) in &others {
            core.debug(*index, &format!("Failed pinned cert test for key id: {key}"));
            core.close(*index, CloseReason::TlsHandshakeFailure, true);
        }
        if !others.is_empty() {
            let text = format!("Disconnect {} clients due to pinned certs reload", others.len());
            core.outputs.push_back(Output::Notice(Notice::info(text)));
        }
    }

    /// Leaves a remote for good; its place is not used again.
    pub fn leave_remote(&mut self, now: Now, remote: usize) {
        self.core.now = now;
        self.close_remote(remote);
        let links: Vec<u32> = self
            .core
            .conns
            .iter()
            .filter(|(_, conn)| matches!(&conn.kind, Kind::Leaf(leaf) if leaf.uplink() == remote))
            .map(|(_, conn)| conn.id.index)
            .collect();
        for index in links {
            if let Some(leaf) = self.core.leaf_mut(index) {
                leaf.give_up();
            }
            let name: String = self.core.conn_name(index);
            let text = format!("{name} - Leafnode connection closed: Client Closed");
            self.core.outputs.push_back(Output::Notice(Notice::info(text)));
            self.core.close(index, CloseReason::ClientClosed, true);
        }
    }

    /// The place that the next remote will have.
    pub fn next_remote(&self) -> usize {
        self.uplinks.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Duration, Instant, Timestamp};

    fn texts(broker: &mut Broker) -> (Vec<CloseReason>, Vec<String>) {
        let (mut closed, mut lines) = (Vec::new(), Vec::new());
        while let Some(output) = broker.poll_output() {
            match output {
                Output::Close { reason, .. } => closed.push(reason),
                Output::Notice(notice) => lines.push(notice.text),
                _ => {}
            }
        }
        (closed, lines)
    }

    #[test]
    fn fewer_connections_close_those_that_came_last() {
        let mut broker = Broker::new(Options::default(), None, 1);
        let now = Now { instant: Instant(1), wall: Timestamp(1) };
        let first = broker.accept(now, "127.0.0.1:1");
        for port in 2..5 {
            broker.accept(now, &format!("127.0.0.1:{port}"));
        }
        broker.reload(now, &Options { max_connections: 1, ..Options::default() });
        let (closed, lines) = texts(&mut broker);
        assert_eq!(closed, [CloseReason::MaximumConnections; 3]);
        assert_eq!(lines, ["Closed 3 connections to fall within max_connections"]);
        assert!(!broker.pending(first).ends_with(b"exceeded'\r\n"));
    }

    #[test]
    fn bounds_hold_for_clients_that_are_there() {
        let mut broker = Broker::new(Options::default(), None, 1);
        let now = Now { instant: Instant(1), wall: Timestamp(1) };
        let id = broker.accept(now, "127.0.0.1:1");
        broker.receive(now, id, b"CONNECT {\"verbose\":false}\r\n");
        broker.reload(now, &Options { max_payload: 2, ..Options::default() });
        broker.receive(now, id, b"PUB a 3\r\n");
        assert!(broker.pending(id).ends_with(b"-ERR 'Maximum Payload Violation'\r\n"));
    }

    #[test]
    fn a_shorter_ping_interval_holds_at_once() {
        let mut broker = Broker::new(Options::default(), None, 1);
        let mut now = Now { instant: Instant(1), wall: Timestamp(1) };
        let id = broker.accept(now, "127.0.0.1:1");
        let ping_interval = Duration::from_millis(100);
        broker.reload(now, &Options { ping_interval, ..Options::default() });
        now.instant = now.instant + ping_interval;
        broker.handle_timeout(now);
        assert!(broker.pending(id).ends_with(b"PING\r\n"));
    }
}
