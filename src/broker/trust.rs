//! Operators at work: clients that sign in by tokens, and accounts whose tokens change or end.
//!
//! Owns what the decisions of [`Trust`] do to connections and accounts. Does not own the
//! decisions (`crate::auth::trust`).
//!
//! # Invariants
//! - Whoever is in an account whose claims changed is judged by them at once.
//! - Nobody stays behind the end of his own token, of his times, or of his account.
//!
//! Source: NATS docs, "Decentralized JWT Authentication"; what an update does to live
//! connections as nats-server 2.15.1.

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

use super::client::quoted;
use super::conn::{Client, CloseReason, Conn, Kind};
use super::options::Options;
use super::sign_in::SignedIn;
use super::{Broker, Notice, Output};
use crate::auth::account::{Account, GLOBAL};
use crate::auth::jwt::claims::AccountClaims;
use crate::auth::sign_in::Identity;
use crate::auth::trust::sign_in::{Attempt, Failure, Fate};
use crate::auth::trust::{Resolver, Trust, TrustOptions};
use crate::time::{Duration, Instant, Now, Timestamp};

/// Trust, as the broker keeps it.
#[derive(Debug)]
pub(super) struct Operators {
    pub(super) trust: Trust,
    /// When accounts or imports end by themselves.
    at: Option<Timestamp>,
}

impl Operators {
    /// Of the options; the accounts that are known from the start are put into them.
    pub(super) fn begin(options: &mut Options) -> Option<Box<Self>> {
        let trust = options.trust.take()?;
        let wall = trust.started;
        options.by_token = true;
        let mut trust = Trust::new(*trust);
        if !trust.system_account().is_empty() {
            options.system_account = trust.system_account().into();
            // The shell has said so if there is none.
            let _ = trust.look_up(&options.system_account, wall);
        }
        let (accounts, at) = trust.declared(wall);
        options.accounts = accounts;
        Some(Box::new(Self { trust, at }))
    }
}

impl Broker {
    /// Decides about a client whose CONNECT brought a token, or should have.
    pub(super) fn decide_by_token(&mut self, index: u32) -> SignedIn {
        let now = self.core.now;
        let Some(client) = self.core.conn(index).and_then(Conn::client) else {
            return SignedIn::No;
        };
        let (credentials, peer) = (client.credentials(), client.as_peer());
        let through_proxy = match self.sign_in.directory.proxy(&credentials, &peer) {
            Ok(through_proxy) => through_proxy,
            Err(refusal) => {
                self.refuse_login(index, &refusal);
                return SignedIn::No;
            }
        };
        let Some(operators) = &mut self.sign_in.operators else { return SignedIn::No };
        let attempt = Attempt {
            jwt: client.connect.jwt.expose(),
            signature: credentials.signature,
            nonce: peer.nonce,
            connection: peer.connection,
            address: client.ip().parse().ok(),
            through_proxy,
        };
        let outcome = operators.trust.sign_in(&attempt, now.wall);
        self.redeclare(now);
        if let (Ok(identity), true) = (&outcome, self.core.options.logging.debug) {
            self.note_authenticated(index, identity);
        }
        let refusal = match outcome {
            Ok(identity) => {
                return if self.enter(index, &identity) { SignedIn::Yes } else { SignedIn::No };
            }
            Err(Failure::Refused(refusal)) => refusal,
            Err(Failure::Unknown(account)) => return self.wait_for_account(index, &account),
        };
        self.refuse_login(index, &refusal);
        SignedIn::No
    }

    #[cold]
    fn note_authenticated(&mut self, index: u32, identity: &Identity) {
        let Some(by) = &identity.by_token else { return };
        let Some(operators) = &self.sign_in.operators else { return };
        let Some(loaded) = operators.trust.loaded(&identity.account) else { return };
        let claims = &loaded.claims;
        let tags = |tags: &[String]| {
            let tags: Vec<String> = tags.iter().map(|tag| quoted(tag.as_bytes())).collect();
            tags.join(" ")
        };
        let text = format!(
            "Authenticated JWT: Client \"{}\" (claim-name: {}, claim-tags: [{}]) signed with \"{}\" \
             by Account \"{}\" (claim-name: {}, claim-tags: [{}]) signed with \"{}\" has mappings {}",
            by.subject,
            quoted(by.name.as_bytes()),
            tags(&by.tags),
            by.issuer,
            identity.account,
            quoted(claims.name.as_bytes()),
            tags(&claims.tags),
            claims.issuer,
            !claims.mappings.is_empty()
        );
        self.core.debug(index, &text);
    }

    /// What a token says beyond what its user may do: how much, and until when. False if it
    /// may not stay at all.
    pub(super) fn bind_token(&mut self, index: u32, identity: &Identity) -> bool {
        let Some(by_token) = &identity.by_token else { return true };
        let now = self.core.now;
        if let Some(client) = self.core.conns.get_mut(index as usize).and_then(Conn::client_mut) {
            client.connect_by = by_token.until.map(|until| instant_of(now, until));
        }
        self.rebound(now, index);
        self.core.arm(index);
        if by_token.max_subscriptions == Some(0) {
            self.core.complain(index, "maximum subscriptions exceeded");
            let reason = CloseReason::MaximumSubscriptions;
            self.core.fail(index, "maximum subscriptions exceeded", reason);
            return false;
        }
        true
    }

    /// The time a client may stay is over, if its clock says so too.
    pub(super) fn token_timeout(&mut self, now: Now, index: u32) {
        let Some(client) = self.core.conns.get_mut(index as usize).and_then(Conn::client_mut)
        else {
            return;
        };
        let until = client
            .identity
            .as_ref()
            .and_then(|identity| identity.by_token.as_ref())
            .and_then(|by_token| by_token.until);
        match until {
            Some(until) if until <= now.wall => {
                self.core.debug(index, "User Authentication Expired");
                let reason = CloseReason::AuthenticationExpired;
                self.core.fail(index, "User Authentication Expired", reason);
            }
            // The clock was set meanwhile.
            until => client.connect_by = until.map(|until| instant_of(now, until)),
        }
    }

    /// Brings an account into use, for a leaf remote or for streams on disk.
    pub(super) fn bring_in(&mut self, now: Now, name: &str) {
        let Some(operators) = &mut self.sign_in.operators else { return };
        if let Err(error) = operators.trust.look_up(name, now.wall) {
            operators.trust.need(name);
            let text = format!("Unable to lookup account {name}: {error}");
            self.core.outputs.push_back(Output::Notice(Notice::error(text)));
        }
        self.redeclare(now);
        self.ask_for_wanted(now);
    }

    /// Tells the accounts if there are others, or if they changed.
    pub(super) fn redeclare(&mut self, now: Now) {
        let Some(operators) = &mut self.sign_in.operators else { return };
        if !operators.trust.take_changed() {
            return;
        }
        let (accounts, at) = operators.trust.declared(now.wall);
        operators.at = at;
        let debug = self.core.options.logging.debug;
        for text in operators.trust.take_notes() {
            if debug {
                self.core.outputs.push_back(Output::Notice(Notice::debug(text)));
            }
        }
        let before = core::mem::take(&mut self.core.options.accounts);
        let mut options = self.core.options.clone();
        self.core.options.accounts = before;
        options.accounts = accounts;
        options.accounts.insert(0, Account::named(GLOBAL));
        self.change_accounts(now, &options);
        self.begin_late_remotes(now);
    }

    /// When accounts or imports end by themselves.
    pub(super) fn poll_trust(&self) -> Option<Instant> {
        let at = self.sign_in.operators.as_ref()?.at;
        let at = at.map(|at| instant_of(self.core.now, at));
        at.into_iter().chain(self.lookups.poll_timeout()).min()
    }

    pub(super) fn trust_timeout(&mut self, now: Now) {
        if self.sign_in.operators.is_none() {
            return;
        }
        self.claims_timeout(now);
        let Some(operators) = &mut self.sign_in.operators else { return };
        if operators.at.is_none_or(|at| at > now.wall) {
            return;
        }
        let over = operators.trust.expire(now.wall);
        for key in &over {
            self.end_account(now, key);
        }
        let Some(operators) = &mut self.sign_in.operators else { return };
        operators.trust.note_change();
        self.redeclare(now);
    }

    /// Everybody in an account goes, because its time is over.
    pub(super) fn end_account(&mut self, now: Now, key: &str) {
        self.core.now = now;
        for index in self.clients_of(key) {
            self.core.debug(index, "Account Authentication Expired");
            let reason = CloseReason::AuthenticationExpired;
            self.core.fail(index, "Account Authentication Expired", reason);
        }
    }

    /// Clients in an account, those that came first in front.
    fn clients_of(&self, key: &str) -> Vec<u32> {
        let Some(id) = self.core.account_named(key) else { return Vec::new() };
        let inside = self.core.conns.iter().filter(|(_, conn)| {
            conn.account == id && !conn.closing && matches!(conn.kind, Kind::Client(_))
        });
        let mut inside: Vec<(u64, u32)> =
            inside.map(|(_, conn)| (conn.cid, conn.id.index)).collect();
        inside.sort_unstable();
        inside.into_iter().map(|(_, index)| index).collect()
    }

    /// An account's claims have changed: what that means for those in it.
    pub(super) fn account_changed(&mut self, now: Now, key: &str, before: &AccountClaims) {
        self.redeclare(now);
        let Some(operators) = &self.sign_in.operators else { return };
        let Some(loaded) = operators.trust.loaded(key).cloned() else { return };
        let claims = &loaded.claims;
        let fewer = claims.limits.subs != before.limits.subs;
        for index in self.clients_of(key) {
            let Some(client) = self.core.conn(index).and_then(Conn::client) else { continue };
            let Some(identity) = client.identity.clone() else { continue };
            let Some(by_token) = &identity.by_token else { continue };
            match by_token.fate(claims, loaded.strict) {
                Fate::Revoked => {
                    self.core.debug(index, "User authentication revoked");
                    let reason = CloseReason::CredentialsRevoked;
                    self.core.fail(index, "User Authentication Revoked", reason);
                }
                Fate::NoBearer => {
                    let reason = CloseReason::AuthenticationFailure;
                    self.core.fail(index, "Authorization Violation", reason);
                }
                Fate::Unsigned => {
                    self.core.close(index, CloseReason::AuthenticationFailure, true);
                }
                Fate::Stays => {
                    let Some(operators) = &self.sign_in.operators else { return };
                    let next = operators.trust.anew(&identity, claims);
                    if !Rc::ptr_eq(&identity, &next) {
                        self.stay(index, &identity, &next);
                    }
                    self.rebound(now, index);
                    if fewer {
                        self.close_if_over(index);
                    }
                }
            }
        }
        self.close_newest(key, claims.limits.conn);
    }

    /// It has as many subscriptions as it may have now.
    fn close_if_over(&mut self, index: u32) {
        let Some(max) = self.core.max_subscriptions_of(index) else { return };
        let client = self.core.conn(index).and_then(Conn::client);
        if client.is_some_and(|client| client.sids.len() >= max) {
            self.core.complain(index, "maximum subscriptions exceeded");
            let reason = CloseReason::MaximumSubscriptions;
            self.core.fail(index, "maximum subscriptions exceeded", reason);
        }
    }

    /// Those that came last go, down to `max`.
    fn close_newest(&mut self, key: &str, max: i64) {
        let Ok(max) = usize::try_from(max) else { return };
        for index in self.clients_of(key).into_iter().skip(max) {
            let text = "maximum account active connections exceeded";
            self.core.complain(index, text);
            self.core.fail(index, text, CloseReason::MaximumAccountConnections);
        }
    }

    /// The configuration was read again: tokens in it hold now.
    pub(super) fn reload_trust(&mut self, now: Now, options: Option<&TrustOptions>) {
        let (Some(operators), Some(options)) = (&mut self.sign_in.operators, options) else {
            return;
        };
        if operators.trust.resolver != Resolver::Memory {
            return;
        }
        let (changed, removed) = operators.trust.replace(&options.tokens, now.wall);
        for key in &removed {
            let text = format!("Reloaded: deleting account [removed]: {}", quoted(key.as_bytes()));
            self.core.outputs.push_back(Output::Notice(Notice::info(text)));
            for index in self.clients_of(key) {
                let reason = CloseReason::AuthenticationFailure;
                self.core.fail(index, "Authorization Violation", reason);
            }
        }
        for (key, before) in changed {
            self.account_changed(now, &key, &before);
        }
        self.redeclare(now);
    }
}

impl super::core::Core {
    /// Subscriptions this connection may have, by its user, account and server; `None`: no
    /// limit.
    pub(super) fn max_subscriptions_of(&self, index: u32) -> Option<usize> {
        let conn = self.conn(index)?;
        let user = conn.client().and_then(Client::by_token);
        let user = user.and_then(|by_token| by_token.max_subscriptions);
        let account = self.account(conn.account).and_then(|state| state.limits.max_subscriptions);
        let server = Some(self.options.max_subscriptions).filter(|max| *max > 0);
        let wide = |max: u32| usize::try_from(max).ok();
        [user.and_then(wide), account.and_then(wide), server].into_iter().flatten().min()
    }
}

/// When a time on the wall is, by a clock that nobody sets.
fn instant_of(now: Now, wall: Timestamp) -> Instant {
    let left = wall.0.saturating_sub(now.wall.0);
    now.instant + Duration::from_nanos(u64::try_from(left).unwrap_or(0))
}
