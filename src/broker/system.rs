//! The server's own services: requests on `$SYS.REQ.…`.
//!
//! Owns which subjects the server answers and the requests that wait for the shell, which
//! has the numbers of the process that the answers need. Does not own the answers
//! (`crate::monitor` does).
//!
//! # Invariants
//! - At most [`limits::SYSTEM_REQUESTS_MAX`] requests wait; more get no answer.
//! - Whoever is not in the system account reaches only services that speak of its own account
//!   and user.
//!
//! Source: NATS docs, "System Events & Services"; seen from nats-server 2.15.1.

use alloc::format;
use alloc::vec::Vec;

use super::Broker;
use super::conn::{CloseReason, Receiver};
use super::core::{Core, Msg, Origin};
use crate::id::{AccountId, ConnId};
use crate::limits;
use crate::time::Now;

/// A request for one of the server's own services.
#[derive(Debug)]
pub struct SystemRequest {
    /// The account it was made in.
    pub account: AccountId,
    /// The client that made it; `None`: it came over a leaf connection or an import.
    pub conn: Option<ConnId>,
    /// What is asked.
    pub subject: Vec<u8>,
    /// Where the answer goes.
    pub reply: Vec<u8>,
    /// Options, JSON.
    pub payload: Vec<u8>,
}

/// Services of `$SYS.REQ.SERVER.<id>.…` and `$SYS.REQ.SERVER.PING.…`.
const SERVER: [&str; 15] = [
    "IDZ",
    "STATSZ",
    "VARZ",
    "CONNZ",
    "SUBSZ",
    "ROUTEZ",
    "GATEWAYZ",
    "LEAFZ",
    "ACCOUNTZ",
    "JSZ",
    "HEALTHZ",
    "EXPVARZ",
    "IPQUEUESZ",
    "RAFTZ",
    "PROFILEZ",
];
/// Services of one server only.
const DIRECT: [&str; 3] = ["KICK", "LDM", "RELOAD"];
/// Services of `$SYS.REQ.ACCOUNT.<account>.…`.
const ACCOUNT: [&str; 7] = ["CONNZ", "SUBSZ", "LEAFZ", "JSZ", "INFO", "STATZ", "CONNS"];
/// What every account may ask about itself.
const EVERYBODY: [&str; 4] = [
    "$SYS.REQ.USER.INFO",
    "$SYS.REQ.ACCOUNT.PING.CONNZ",
    "$SYS.REQ.SERVER.PING.CONNZ",
    "$SYS.REQ.ACCOUNT.PING.STATZ",
];

impl Core {
    /// Listens for requests.
    pub(super) fn begin_services(&mut self) {
        if self.options.system_account.is_empty() {
            return;
        }
        let mut subjects = alloc::vec![
            "$SYS.REQ.USER.INFO".into(),
            "$SYS.REQ.SERVER.PING".into(),
            "$SYS.REQ.ACCOUNT.PING.STATZ".into(),
            "$SYS.REQ.ACCOUNT.NSUBS".into(),
            "$SYS.DEBUG.SUBSCRIBERS".into(),
        ];
        let id = self.options.server_id.clone();
        for name in SERVER {
            subjects.push(format!("$SYS.REQ.SERVER.PING.{name}"));
            subjects.push(format!("$SYS.REQ.SERVER.{id}.{name}"));
        }
        subjects.extend(DIRECT.iter().map(|name| format!("$SYS.REQ.SERVER.{id}.{name}")));
        subjects.extend(ACCOUNT.iter().map(|name| format!("$SYS.REQ.ACCOUNT.*.{name}")));
        for subject in subjects {
            self.add_sub(AccountId::SYSTEM, subject.as_bytes(), b"", Receiver::System);
        }
        for account in self.account_ids().filter(|id| *id != AccountId::SYSTEM) {
            self.begin_services_of(account);
        }
    }

    /// Listens for what an account asks about itself.
    pub(super) fn begin_services_of(&mut self, account: AccountId) {
        if self.options.system_account.is_empty() {
            return;
        }
        for subject in EVERYBODY {
            self.add_sub(account, subject.as_bytes(), b"", Receiver::System);
        }
    }

    /// Keeps a request for the shell.
    #[cold]
    pub(super) fn note_request(&mut self, account: AccountId, origin: Origin<'_>, msg: &Msg<'_>) {
        let known = |request: &SystemRequest| {
            // Both `$SYS.REQ.ACCOUNT.PING.STATZ` and `$SYS.REQ.ACCOUNT.*.STATZ` hear it.
            request.subject == msg.subject && request.reply == msg.reply
        };
        let claims = super::claims::is_claims(msg.to);
        let most = if claims { limits::JWT_BYTES_MAX } else { limits::SYSTEM_REQUEST_BYTES_MAX };
        if (msg.reply.is_empty() && !claims)
            || msg.payload.len() > most
            || self.requests.len() >= limits::SYSTEM_REQUESTS_MAX
            || (!claims && self.requests.back().is_some_and(known))
        {
            return;
        }
        let conn = match origin {
            Origin::Client { conn, .. } => self.conn(conn).map(|conn| conn.id),
            _ => None,
        };
        self.requests.push_back(SystemRequest {
            account,
            conn,
            subject: msg.to.to_vec(),
            reply: msg.reply.to_vec(),
            payload: msg.payload.to_vec(),
        });
    }
}

impl Broker {
    /// The next request for one of the server's own services.
    pub fn poll_request(&mut self) -> Option<SystemRequest> {
        self.core.requests.pop_front()
    }

    /// Answers it.
    pub fn answer(&mut self, now: Now, request: &SystemRequest, payload: &[u8]) {
        self.publish_in(now, request.account, &request.reply, payload);
    }

    /// Ends a connection because an operator wants it; false if there is none of this id.
    pub fn kick(&mut self, now: Now, cid: u64) -> bool {
        self.core.now = now;
        let found = self.core.conns.iter().find(|(_, conn)| conn.cid == cid && !conn.closing);
        let Some(index) = found.and_then(|(index, _)| u32::try_from(index).ok()) else {
            return false;
        };
        self.core.close(index, CloseReason::Kicked, true);
        true
    }
}
