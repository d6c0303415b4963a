//! Clients signing in: from CONNECT to an account and what may be done there.
//!
//! Owns what a verdict of [`Directory`] does to a connection, the passwords that wait to be
//! compared with a hash, the nonces, and what a change of users does to those inside. Does
//! not own the verdict (`crate::auth::sign_in`), nor the comparison: the shell is asked for
//! it ([`Output::CheckPassword`]), because it takes long on purpose.
//!
//! # Invariants
//! - Nothing a client sent behind its CONNECT is looked at before it is known who it is.
//! - Of the passwords that wait, each address has its turn: who sends many delays himself.
//! - At most `password_checks` of the options comparisons are under way, and what parked clients sent
//!   ahead is bounded for all of them together.
//!
//! Source: NATS docs, "Authentication", "Configuration reloading"; texts as nats-server
//! 2.15.1.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Bound;

use sha2::{Digest, Sha256};

use super::client::{quoted, shown};
use super::conn::{Client, CloseReason, Conn, Receiver, Sub};
use super::core::Core;
use super::interest::SubId;
use super::trust::Operators;
use super::{Broker, Notice, Output};
use crate::auth::Secret;
use crate::auth::access::Access;
use crate::auth::sign_in::{
    Credentials, Directory, Identity, Peer, Refusal, SignInOptions, Verdict, Who,
};
use crate::auth::trust::sign_in::ByToken;
use crate::auth::user::ConnectionType;
use crate::id::{AccountId, ConnId};
use crate::limits::{PARKED_BYTES_MAX, PASSWORDS_KNOWN_MAX};
use crate::sorted;
use crate::time::Now;

/// Signing in, as the broker sees it.
#[derive(Debug)]
pub(super) struct SignIn {
    pub(super) directory: Directory,
    /// Where users sign in by tokens.
    pub(super) operators: Option<Box<Operators>>,
    checks: Checks,
    /// Kept over reloads, so that those without credentials stay who they are.
    hidden: String,
    secret: [u8; 32],
    nonces: u64,
    /// For each hash the digest of the password that was found to have it: the next login
    /// with it is quick.
    known: BTreeMap<String, [u8; 32]>,
}

/// A login that waits for its password to be compared.
#[derive(Debug)]
pub(super) struct Pending {
    identity: Rc<Identity>,
    hash: Secret,
    password: Secret,
}

/// What became of a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignedIn {
    Yes,
    /// It was refused, and closes.
    No,
    /// Its password is being compared: nothing more is read until that is done.
    Parked,
}

impl SignIn {
    /// Takes the users out of the options.
    pub(super) fn new(core: &mut Core, operators: Option<Box<Operators>>) -> Self {
        let options = &mut core.options;
        let users = core::mem::take(&mut options.sign_in);
        let hidden = if users.only_system_users {
            format!("nats-{}", core.rng.token(8))
        } else {
            String::new()
        };
        Self {
            directory: Directory::new(users, &hidden),
            operators,
            checks: Checks::new(options.password_checks),
            hidden,
            secret: options.secret,
            nonces: 0,
            known: BTreeMap::new(),
        }
    }

    /// What a client signs to show that a key is its own; never the same twice, and not to
    /// be guessed. `None` where nobody has to.
    pub(super) fn nonce(&mut self) -> Option<Box<str>> {
        if !self.directory.needs_nonce() {
            return None;
        }
        self.nonces += 1;
        let digest = Sha256::new()
            .chain_update(b"nonce")
            .chain_update(self.secret)
            .chain_update(self.nonces.to_le_bytes())
            .finalize();
        let text = data_encoding::BASE64URL_NOPAD.encode(digest.get(..11).unwrap_or_default());
        Some(text.into())
    }

    fn digest(&self, password: &Secret) -> [u8; 32] {
        Sha256::new()
            .chain_update(b"password")
            .chain_update(self.secret)
            .chain_update(password.expose())
            .finalize()
            .into()
    }

    fn knows(&self, hash: &Secret, password: &Secret) -> bool {
        self.known.get(hash.expose()).is_some_and(|known| *known == self.digest(password))
    }

    fn remember(&mut self, hash: &Secret, password: &Secret) {
        if self.known.len() >= PASSWORDS_KNOWN_MAX {
            self.known.clear();
        }
        let digest = self.digest(password);
        self.known.insert(hash.expose().into(), digest);
    }
}

/// Passwords that wait, by the address they came from.
#[derive(Debug)]
struct Checks {
    waiting: BTreeMap<Box<str>, VecDeque<ConnId>>,
    /// The address that had its turn last.
    last: Box<str>,
    under_way: usize,
    at_once: usize,
}

impl Checks {
    fn new(at_once: usize) -> Self {
        Self {
            waiting: BTreeMap::new(),
            last: Box::default(),
            under_way: 0,
            at_once: at_once.max(1),
        }
    }

    fn push(&mut self, address: &str, id: ConnId) {
        self.waiting.entry(address.into()).or_default().push_back(id);
    }

    /// The next, of the address after the last one.
    fn pop(&mut self) -> Option<ConnId> {
        let after = (Bound::Excluded(&*self.last), Bound::Unbounded);
        let address = self
            .waiting
            .range::<str, _>(after)
            .next()
            .or_else(|| self.waiting.iter().next())
            .map(|(address, _)| address.clone())?;
        let queue = self.waiting.get_mut(&address)?;
        let id = queue.pop_front();
        if queue.is_empty() {
            self.waiting.remove(&address);
        }
        self.last = address;
        id
    }
}

impl Broker {
    /// Something else than CONNECT came first. May it, as somebody?
    pub(super) fn sign_in_without_connect(&mut self, index: u32) -> bool {
        let Some(client) = self.core.conn(index).and_then(Conn::client) else { return false };
        let connection = client.connection_type();
        match self.sign_in.directory.without_connect(connection) {
            Some(identity) => {
                if let Some(client) =
                    self.core.conns.get_mut(index as usize).and_then(Conn::client_mut)
                {
                    client.connect_by = None;
                }
                self.enter(index, &identity)
            }
            None => {
                self.turn_away(index, &Refusal::Unknown, false);
                false
            }
        }
    }

    /// Turns a client away that is nobody yet and may be nobody without CONNECT. Says
    /// whether it was one.
    pub(super) fn turn_away_unknown(&mut self, index: u32) -> bool {
        let Some(client) = self.core.conn(index).and_then(Conn::client) else { return false };
        let known = client.identity.is_some()
            || self.sign_in.directory.without_connect(client.connection_type()).is_some();
        if !known {
            self.turn_away(index, &Refusal::Unknown, false);
        }
        !known
    }

    /// Decides about a client whose CONNECT was just read.
    pub(super) fn decide(&mut self, index: u32) -> SignedIn {
        let Some(conn) = self.core.conns.get_mut(index as usize) else { return SignedIn::No };
        let id = conn.id;
        let Some(client) = conn.client_mut() else { return SignedIn::No };
        client.take_cookies();
        if !client.connect.account.is_empty() || client.connect.new_account {
            self.refuse_login(index, &Refusal::Unknown);
            return SignedIn::No;
        }
        if self.sign_in.operators.is_some() {
            return self.decide_by_token(index);
        }
        match self.sign_in.directory.sign_in(&client.credentials(), &client.as_peer()) {
            Verdict::Accepted(identity) => {
                if self.enter(index, &identity) {
                    SignedIn::Yes
                } else {
                    SignedIn::No
                }
            }
            Verdict::Refused(refusal) => {
                self.refuse_login(index, &refusal);
                SignedIn::No
            }
            Verdict::Hashed { identity, hash, password } => {
                if self.sign_in.knows(&hash, &password) {
                    return if self.enter(index, &identity) { SignedIn::Yes } else { SignedIn::No };
                }
                let address = client.ip();
                client.pending = Some(Box::new(Pending { identity, hash, password }));
                conn.parked = true;
                self.sign_in.checks.push(&address, id);
                self.next_checks();
                SignedIn::Parked
            }
        }
    }

    /// Puts a client into its account, with what it may do there.
    pub(super) fn enter(&mut self, index: u32, identity: &Rc<Identity>) -> bool {
        let account = self.core.account_named(&identity.account).unwrap_or(AccountId::NONE);
        let hasher = self.core.sid_hasher.clone();
        let Some(client) = self.core.conns.get_mut(index as usize).and_then(Conn::client_mut)
        else {
            return false;
        };
        client.identity = Some(identity.clone());
        client.flags.signed_in = true;
        client.access = identity.policy.clone().map(|policy| Box::new(Access::new(policy, hasher)));
        let before = self.core.conn(index).map_or(AccountId::NONE, |conn| conn.account);
        if let Err(error) = self.core.bind_account(index, account) {
            self.core.complain(index, error.wire_text());
            self.core.fail(index, error.wire_text(), error.reason());
            return false;
        }
        if !self.bind_token(index, identity) {
            return false;
        }
        if before != account {
            self.core.note_left(before);
        }
        self.core.note_connect(index);
        true
    }

    /// Keeps a client out. It is never told why; the log says who it said it was.
    pub(super) fn refuse_login(&mut self, index: u32, refusal: &Refusal) {
        self.turn_away(index, refusal, true);
    }

    /// As [`Self::refuse_login`]. `asked`: it sent CONNECT.
    fn turn_away(&mut self, index: u32, refusal: &Refusal, asked: bool) {
        let Some(client) = self.core.conn(index).and_then(Conn::client) else { return };
        let who = client.claim();
        match refusal {
            Refusal::Unknown => {}
            Refusal::CertificateUnknown(_) | Refusal::Token { loud: true, .. } => {
                self.core.complain(index, &refusal.text());
            }
            _ => self.core.debug(index, &refusal.text()),
        }
        self.core.complain(index, &format!("authentication error{who}"));
        let reason = match refusal {
            Refusal::ProxyNotTrusted => CloseReason::ProxyNotTrusted,
            Refusal::ProxyRequired => CloseReason::ProxyRequired,
            _ => CloseReason::AuthenticationFailure,
        };
        self.core.note_auth_error(index, reason, asked);
        self.core.fail(index, "Authorization Violation", reason);
    }

    // --- Passwords that take long ---

    /// Has this connection's password to be compared first, so that nothing should be read
    /// from it?
    pub fn is_parked(&self, id: ConnId) -> bool {
        self.core.conn(id.index).is_some_and(|conn| conn.id == id && conn.parked)
    }

    /// The answer to an [`Output::CheckPassword`].
    pub fn password_checked(&mut self, now: Now, id: ConnId, matches: bool) {
        self.core.now = now;
        self.sign_in.checks.under_way = self.sign_in.checks.under_way.saturating_sub(1);
        self.settle(now, id, matches);
        self.next_checks();
    }

    fn settle(&mut self, now: Now, id: ConnId, matches: bool) {
        let Some(conn) = self.core.conns.get_mut(id.index as usize) else { return };
        if conn.id != id || conn.closing {
            return;
        }
        let parked = conn.parked;
        let Some(pending) = conn.client_mut().and_then(|client| client.pending.take()) else {
            return;
        };
        if matches {
            self.sign_in.remember(&pending.hash, &pending.password);
        }
        if !parked {
            // A login from before the users changed.
            if !matches {
                self.refuse_login(id.index, &Refusal::Unknown);
            }
            return;
        }
        let partial = self.core.unpark(id.index);
        if !matches {
            self.refuse_login(id.index, &Refusal::Unknown);
        } else if self.enter(id.index, &pending.identity) {
            self.connected(id.index);
            if !partial.is_empty() {
                self.receive(now, id, &partial);
            }
        }
    }

    /// Asks for as many comparisons as may be under way.
    fn next_checks(&mut self) {
        while self.sign_in.checks.under_way < self.sign_in.checks.at_once {
            let Some(id) = self.sign_in.checks.pop() else { return };
            // Who went away meanwhile needs none.
            let Some(pending) = self
                .core
                .conn(id.index)
                .filter(|conn| conn.id == id && !conn.closing)
                .and_then(Conn::client)
                .and_then(|client| client.pending.as_ref())
            else {
                continue;
            };
            let (hash, password) = (pending.hash.clone(), pending.password.clone());
            self.sign_in.checks.under_way += 1;
            self.core.outputs.push_back(Output::CheckPassword { conn: id, hash, password });
        }
    }

    // --- A change of users ---

    /// The users have changed. Who is gone, or in another account, is closed; who could not
    /// sign in any more is told so; of the others, subscriptions that are no longer allowed
    /// end.
    pub fn replace_users(&mut self, now: Now, users: SignInOptions) {
        self.core.now = now;
        if self.sign_in.operators.is_some() {
            return;
        }
        if users.only_system_users && self.sign_in.hidden.is_empty() {
            self.sign_in.hidden = format!("nats-{}", self.core.rng.token(8));
        }
        self.sign_in.directory = Directory::new(users, &self.sign_in.hidden);
        let clients: Vec<u32> = self
            .core
            .conns
            .iter()
            .filter(|(_, conn)| !conn.closing && conn.client().is_some_and(|c| !c.waiting))
            .filter_map(|(index, _)| u32::try_from(index).ok())
            .collect();
        for index in clients {
            self.sign_in_again(index);
        }
        self.next_checks();
    }

    fn sign_in_again(&mut self, index: u32) {
        let Some(conn) = self.core.conns.get_mut(index as usize) else { return };
        let (id, parked) = (conn.id, conn.parked);
        let Some(client) = conn.client_mut() else { return };
        let connection = client.connection_type();
        let Some(identity) = client.identity.clone() else {
            // Not inside yet. Whoever waits for a comparison is looked at anew.
            if parked || !self.sign_in.directory.is_required(connection) {
                self.core.unpark(index);
                self.core.close(index, CloseReason::ClientClosed, true);
            }
            return;
        };
        if !self.sign_in.directory.has(&identity) {
            self.core.close(index, CloseReason::ClientClosed, true);
            return;
        }
        let verdict = if client.flags.connected {
            self.sign_in.directory.sign_in(&client.credentials(), &client.as_peer())
        } else {
            match self.sign_in.directory.without_connect(client.connection_type()) {
                Some(identity) => Verdict::Accepted(identity),
                None => Verdict::Refused(Refusal::Unknown),
            }
        };
        match verdict {
            Verdict::Refused(refusal) => self.refuse_login(index, &refusal),
            Verdict::Accepted(next) => self.stay(index, &identity, &next),
            Verdict::Hashed { identity: next, hash, password } => {
                if !self.sign_in.knows(&hash, &password) {
                    let address = client.ip();
                    let pending = Pending { identity: next.clone(), hash, password };
                    client.pending = Some(Box::new(pending));
                    self.sign_in.checks.push(&address, id);
                }
                self.stay(index, &identity, &next);
            }
        }
    }

    /// A client goes on as `next`.
    pub(super) fn stay(&mut self, index: u32, before: &Identity, next: &Rc<Identity>) {
        if before.account != next.account || before.who != next.who {
            self.core.close(index, CloseReason::ClientClosed, true);
            return;
        }
        let hasher = self.core.sid_hasher.clone();
        let Some(client) = self.core.conns.get_mut(index as usize).and_then(Conn::client_mut)
        else {
            return;
        };
        client.identity = Some(next.clone());
        let mut access = next.policy.clone().map(|policy| Box::new(Access::new(policy, hasher)));
        let mut refused = Vec::new();
        if let Some(access) = &mut access {
            for &id in &client.sids {
                if let Some(Sub { subject, queue, .. }) = self.core.subs.get(id.0 as usize)
                    && !access.subscribe(subject, queue)
                {
                    refused.push(id);
                }
            }
        }
        client.access = access;
        sorted::sort(&mut refused);
        for id in refused {
            self.end_refused(index, id, next);
        }
    }

    fn end_refused(&mut self, index: u32, id: SubId, identity: &Identity) {
        let Some(Sub { subject, queue, receiver: Receiver::Client { sid, .. }, .. }) =
            self.core.subs.get(id.0 as usize)
        else {
            return;
        };
        let subject = quoted(subject);
        let group = if queue.is_empty() {
            String::new()
        } else {
            format!(" using queue {}", quoted(queue))
        };
        let sid = quoted(sid);
        let who = match &identity.who {
            Who::User(name) => format!("User {}", quoted(name.as_bytes())),
            Who::Nkey(key) => format!("Nkey {}", quoted(key.as_bytes())),
            Who::Token => "Token \"[REDACTED]\"".into(),
            Who::Anyone => String::new(),
        };
        let text =
            format!("Permissions Violation for Subscription to {subject}{group} (sid {sid})");
        self.core.error(index, &text);
        let text = format!("Removed sub {subject} (sid {sid}) for {who} - not authorized");
        self.core.outputs.push_back(Output::Notice(Notice::info(text)));
        self.core.end_client_sub(id);
    }
}

impl Core {
    /// Keeps what a parked connection sent ahead. All of them together may send so much.
    pub(super) fn park(&mut self, index: u32, bytes: &[&[u8]]) {
        let Some(conn) = self.conns.get_mut(index as usize) else { return };
        let before = conn.partial.len();
        for bytes in bytes {
            conn.partial.extend_from_slice(bytes);
        }
        self.parked_bytes += conn.partial.len() - before;
        if self.parked_bytes > PARKED_BYTES_MAX {
            let text = "too many bytes were sent ahead of logins that wait for a password check";
            self.complain(index, text);
            self.close(index, CloseReason::AuthenticationFailure, true);
        }
    }

    /// Gives back what a connection sent while it was parked.
    pub(super) fn unpark(&mut self, index: u32) -> Vec<u8> {
        let Some(conn) = self.conns.get_mut(index as usize) else { return Vec::new() };
        if !conn.parked {
            return Vec::new();
        }
        conn.parked = false;
        let bytes = core::mem::take(&mut conn.partial);
        self.parked_bytes = self.parked_bytes.saturating_sub(bytes.len());
        bytes
    }

    /// A client publishes where it may not.
    pub(super) fn publish_violation(&mut self, index: u32, subject: &[u8]) {
        let subject = quoted(subject);
        self.error(index, &format!("Permissions Violation for Publish to {subject}"));
        self.complain(index, &format!("Publish Violation - Subject {subject}"));
    }

    /// A client subscribes where it may not.
    pub(super) fn subscribe_violation(
        &mut self,
        index: u32,
        subject: &[u8],
        queue: &[u8],
        sid: &[u8],
    ) {
        let (subject, sid) = (quoted(subject), shown(sid));
        let (told, logged) = if queue.is_empty() {
            (String::new(), String::new())
        } else {
            let queue = quoted(queue);
            (format!(" using queue {queue}"), format!(", Queue: {queue}"))
        };
        self.error(index, &format!("Permissions Violation for Subscription to {subject}{told}"));
        self.complain(
            index,
            &format!("Subscription Violation - Subject {subject}{logged}, SID {sid}"),
        );
    }
}

impl Client {
    /// How it connected, as `allowed_connection_types` spells it.
    pub(super) fn connection_type(&self) -> ConnectionType {
        if self.is_web_socket() { ConnectionType::WebSocket } else { ConnectionType::Standard }
    }

    /// Cookies of the WebSocket upgrade stand for what CONNECT left empty.
    fn take_cookies(&mut self) {
        let Some(arrival) = &self.arrival else { return };
        let (cookies, connect) = (&arrival.cookies, &mut *self.connect);
        if let Some(user) = cookies.user.as_ref().filter(|_| connect.user.is_empty()) {
            connect.user = user.expose().into();
        }
        for (cookie, field) in [
            (&cookies.jwt, &mut connect.jwt),
            (&cookies.pass, &mut connect.pass),
            (&cookies.token, &mut connect.auth_token),
        ] {
            if let Some(secret) = cookie.as_ref().filter(|_| field.expose().is_empty()) {
                *field = secret.clone();
            }
        }
    }

    /// What it signed in by, if that is a token.
    pub(super) fn by_token(&self) -> Option<&ByToken> {
        self.identity.as_ref()?.by_token.as_deref()
    }

    pub(super) fn credentials(&self) -> Credentials<'_> {
        let connect = &self.connect;
        Credentials {
            user: &connect.user,
            password: &connect.pass,
            token: &connect.auth_token,
            nkey: &connect.nkey,
            signature: &connect.sig,
            proxy_signature: &connect.proxy_sig,
        }
    }

    pub(super) fn as_peer(&self) -> Peer<'_> {
        let tls = self.arrival.as_ref().and_then(|arrival| arrival.tls.as_ref());
        Peer {
            nonce: self.nonce.as_deref().unwrap_or_default(),
            connection: self.connection_type(),
            certificate: tls.filter(|tls| tls.mapped).and_then(|tls| tls.certificates.first()),
        }
    }

    /// Who it says it is, for a log line.
    fn claim(&self) -> String {
        let connect = &self.connect;
        if !connect.nkey.is_empty() {
            format!(" - Nkey {}", quoted(connect.nkey.as_bytes()))
        } else if !connect.user.is_empty() {
            format!(" - User {}", quoted(connect.user.as_bytes()))
        } else if !connect.jwt.expose().is_empty() {
            // What it says of itself is in there; nothing of it was verified.
            String::new()
        } else if !connect.auth_token.expose().is_empty() {
            " - Token \"[REDACTED]\"".into()
        } else {
            String::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn each_address_has_its_turn() {
        let id = |index| ConnId { index, generation: 1 };
        let mut checks = Checks::new(1);
        for index in 0..5 {
            checks.push("10.0.0.1", id(index));
        }
        checks.push("10.0.0.2", id(8));
        checks.push("10.0.0.3", id(9));
        let order: Vec<u32> = core::iter::from_fn(|| checks.pop()).map(|id| id.index).collect();
        assert_eq!(order, vec![0, 8, 9, 1, 2, 3, 4]);
        assert!(checks.waiting.is_empty());
    }
}
