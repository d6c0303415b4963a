//! The server's own events, which subscriptions of the system account may hear.
//!
//! Owns which events there are, when each is due, and the queue in which they wait for the
//! shell, which has the numbers of the process that they tell. Does not own what they say
//! (`crate::monitor` does).
//!
//! # Invariants
//! - While nobody subscribes in the system account nothing is kept and no timer runs: one
//!   branch where a connection comes or goes.
//! - At most [`limits::SYSTEM_EVENTS_MAX`] events wait; more are lost.
//! - Of each account's counts one event waits at most: it tells the counts of when it is sent.
//!
//! Source: NATS docs, "System Events & Services"; order and pace seen from nats-server 2.15.1.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use core::time::Duration;

use super::Broker;
use super::conn::{CloseReason, Kind, Receiver};
use super::core::Core;
use super::host::View;
use super::view::{Remembered, view_of};
use crate::id::AccountId;
use crate::jetstream::host::Host as _;
use crate::limits;
use crate::time::{Instant, Now};

/// When the first numbers are sent after the start.
const STATSZ_FIRST: Duration = Duration::from_millis(250);
/// The first pause between two; it doubles up to [`STATSZ_PAUSE_MAX`].
const STATSZ_PAUSE: Duration = Duration::from_secs(1);
/// See [`STATSZ_PAUSE`].
const STATSZ_PAUSE_MAX: Duration = Duration::from_secs(10);
/// The counts of an account with connections are told again after this.
const CONNS_PAUSE: Duration = Duration::from_secs(30);

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// A client signed in, or a link to a hub is up.
    Connect(Box<Remembered>),
    /// A connection ended.
    Disconnect(Box<Remembered>),
    /// Somebody could not sign in.
    AuthError {
        /// Who.
        conn: Box<Remembered>,
        /// Told in the account it was to be in rather than in the system account.
        in_account: bool,
    },
    /// The number of connections of an account changed, or was not told for a while.
    Conns(AccountId),
    /// The numbers of the server are due.
    Statsz,
    /// Clients are asked to go.
    LameDuck,
    /// The server stops.
    Shutdown,
}

/// Events that wait, and timers.
#[derive(Debug)]
pub(super) struct Events {
    queue: VecDeque<Event>,
    /// Subscriptions in the system account that are not the server's own.
    listeners: usize,
    statsz_at: Instant,
    statsz_pause: Duration,
    /// When the first account's counts may be due.
    conns_at: Instant,
    /// The server stops, and says no more.
    over: bool,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            listeners: 0,
            statsz_at: Instant::default() + STATSZ_FIRST,
            statsz_pause: STATSZ_PAUSE,
            conns_at: Instant::default(),
            over: false,
        }
    }
}

impl Events {
    fn push(&mut self, event: Event) {
        if self.queue.len() < limits::SYSTEM_EVENTS_MAX && !self.over {
            self.queue.push_back(event);
        }
    }

    fn is_heard(&self) -> bool {
        self.listeners > 0
    }

    /// Moves the next time of the numbers behind `now`.
    fn pass_statsz(&mut self, now: Instant) {
        while self.statsz_at <= now {
            if self.statsz_pause == STATSZ_PAUSE_MAX {
                let rest = now.since(self.statsz_at).as_nanos() % STATSZ_PAUSE_MAX.as_nanos();
                let rest = Duration::from_nanos(u64::try_from(rest).unwrap_or(0));
                self.statsz_at = now + STATSZ_PAUSE_MAX.saturating_sub(rest);
                return;
            }
            self.statsz_at = self.statsz_at + self.statsz_pause;
            self.statsz_pause = (self.statsz_pause * 2).min(STATSZ_PAUSE_MAX);
        }
    }
}

impl Core {
    /// A subscription in the system account came or went.
    pub(super) fn count_listener(&mut self, account: AccountId, receiver: &Receiver, more: bool) {
        let hears = matches!(
            receiver,
            Receiver::Client { .. } | Receiver::Leaf { .. } | Receiver::Shadow { .. }
        );
        if account != AccountId::SYSTEM || !hears {
            return;
        }
        if !more {
            self.events.listeners = self.events.listeners.saturating_sub(1);
            return;
        }
        self.events.listeners += 1;
        if self.events.listeners == 1 {
            let at = self.now.instant + CONNS_PAUSE;
            self.events.pass_statsz(self.now.instant);
            self.events.conns_at = at;
            for account in &mut self.accounts {
                account.conns_at = at;
            }
        }
    }

    fn hears(&mut self, account: AccountId, subject: &str) -> bool {
        View { core: self, account }.has_interest(subject.as_bytes())
    }

    fn remembered(&self, index: u32, reason: CloseReason) -> Option<Box<Remembered>> {
        let conn = self.conn(index)?;
        let view = view_of(&self.accounts, conn, self.now);
        Some(Box::new(Remembered::new(&view, reason, self.now.wall)))
    }

    /// A client has signed in, or a link is up.
    pub(super) fn note_connect(&mut self, index: u32) {
        let Some(conn) = self.conns.get_mut(index as usize) else { return };
        conn.announced = true;
        let account = conn.account;
        if !self.events.is_heard() {
            return;
        }
        self.note_conns(account);
        let Some(state) = self.account(account) else { return };
        let subject = format!("$SYS.ACCOUNT.{}.CONNECT", state.name);
        if self.hears(AccountId::SYSTEM, &subject)
            && let Some(conn) = self.remembered(index, CloseReason::ClientClosed)
        {
            self.events.push(Event::Connect(conn));
        }
    }

    /// A connection left for another account.
    pub(super) fn note_left(&mut self, account: AccountId) {
        if self.events.is_heard() {
            self.note_conns(account);
        }
    }

    /// A connection is gone, and in no account any more. `was` is what it was, if that is to
    /// be told.
    pub(super) fn note_disconnect(&mut self, account: AccountId, was: Option<Box<Remembered>>) {
        if !self.events.is_heard() {
            return;
        }
        self.note_conns(account);
        if let Some(was) = was {
            self.events.push(Event::Disconnect(was));
        }
    }

    /// What an event about the end of a connection will need, if somebody hears it.
    pub(super) fn disconnecting(&mut self, index: u32) -> Option<Box<Remembered>> {
        if !self.events.is_heard() {
            return None;
        }
        let conn = self.conn(index)?;
        let told = match &conn.kind {
            Kind::Client(client) => client.counts(),
            Kind::Leaf(_) => conn.announced,
        };
        if !told {
            return None;
        }
        let reason = conn.ending.map_or(CloseReason::ClientClosed, |(reason, _)| reason);
        let was = self.remembered(index, reason)?;
        let subject = format!("$SYS.ACCOUNT.{}.DISCONNECT", was.view().account);
        self.hears(AccountId::SYSTEM, &subject).then_some(was)
    }

    /// Somebody could not sign in. `asked`: with CONNECT.
    pub(super) fn note_auth_error(&mut self, index: u32, reason: CloseReason, asked: bool) {
        if asked
            && !self.options.system_account.is_empty()
            && self.hears(AccountId::GLOBAL, "$SYS.ACCOUNT.CLIENT.AUTH.ERR")
            && let Some(conn) = self.remembered(index, reason)
        {
            self.events.push(Event::AuthError { conn, in_account: true });
        }
        if !self.events.is_heard() {
            return;
        }
        let subject = format!("$SYS.SERVER.{}.CLIENT.AUTH.ERR", self.options.server_id);
        if self.hears(AccountId::SYSTEM, &subject)
            && let Some(conn) = self.remembered(index, reason)
        {
            self.events.push(Event::AuthError { conn, in_account: false });
        }
    }

    /// The number of an account's connections changed.
    fn note_conns(&mut self, account: AccountId) {
        let at = self.now.instant + CONNS_PAUSE;
        let Some(state) = self.account_mut(account) else { return };
        state.conns_at = at;
        if state.conns_noted || account == AccountId::GLOBAL {
            return;
        }
        let (new, old) = (
            format!("$SYS.ACCOUNT.{}.SERVER.CONNS", state.name),
            format!("$SYS.SERVER.ACCOUNT.{}.CONNS", state.name),
        );
        if self.hears(AccountId::SYSTEM, &new) || self.hears(AccountId::SYSTEM, &old) {
            if let Some(state) = self.account_mut(account) {
                state.conns_noted = true;
            }
            self.events.push(Event::Conns(account));
        }
    }

    /// When [`Self::events_timeout`] is due.
    pub(super) fn poll_events(&self) -> Option<Instant> {
        if !self.events.queue.is_empty() {
            return Some(Instant::default());
        }
        self.events.is_heard().then(|| self.events.statsz_at.min(self.events.conns_at))
    }

    /// Time has passed.
    pub(super) fn events_timeout(&mut self) {
        if !self.events.is_heard() {
            return;
        }
        let now = self.now.instant;
        if self.events.statsz_at <= now {
            self.events.pass_statsz(now);
            let subject = format!("$SYS.SERVER.{}.STATSZ", self.options.server_id);
            if self.hears(AccountId::SYSTEM, &subject) {
                self.events.push(Event::Statsz);
            }
        }
        if self.events.conns_at <= now {
            for id in self.account_ids() {
                let due = self.account(id).is_some_and(|state| {
                    state.conns_at <= now && state.clients + state.leaf_conns > 0
                });
                if due {
                    self.note_conns(id);
                }
            }
            let next = self.accounts.iter().map(|state| state.conns_at).filter(|at| *at > now);
            self.events.conns_at = next.min().unwrap_or(now + CONNS_PAUSE);
        }
    }
}

impl Broker {
    /// The next event to be told.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.core.events.queue.pop_front();
        if let Some(Event::Conns(account)) = &event
            && let Some(state) = self.core.account_mut(*account)
        {
            state.conns_noted = false;
        }
        event
    }

    /// Publishes as the server.
    pub fn publish_in(&mut self, now: Now, account: AccountId, subject: &[u8], payload: &[u8]) {
        self.core.now = now;
        let mut view = View { core: &mut self.core, account };
        view.deliver(subject, subject, b"", b"", payload);
    }

    /// The server stops: that is the last that is told.
    pub fn note_shutdown(&mut self, now: Now) {
        self.core.now = now;
        let subject = format!("$SYS.SERVER.{}.SHUTDOWN", self.core.options.server_id);
        if self.core.events.is_heard() && self.core.hears(AccountId::SYSTEM, &subject) {
            self.core.events.push(Event::Shutdown);
        }
        self.core.events.over = true;
    }

    /// Lame duck mode begins.
    pub(super) fn note_lame_duck(&mut self) {
        if self.core.events.is_heard() {
            self.core.events.push(Event::LameDuck);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::World;
    use super::*;
    use crate::auth::account::Account;
    use alloc::vec;
    use alloc::vec::Vec;

    fn kinds(world: &mut World) -> Vec<&'static str> {
        let mut kinds = Vec::new();
        while let Some(event) = world.broker.poll_event() {
            kinds.push(match event {
                Event::Connect(_) => "connect",
                Event::Disconnect(_) => "disconnect",
                Event::AuthError { .. } => "auth",
                Event::Conns(_) => "conns",
                Event::Statsz => "statsz",
                Event::LameDuck => "lame duck",
                Event::Shutdown => "shutdown",
            });
        }
        kinds
    }

    #[test]
    fn nothing_is_kept_while_nobody_listens() {
        let mut world = World::new(vec![Account::named("A")], false);
        let id = world.client("A").unwrap();
        let now = world.now;
        world.broker.closed(now, id);
        assert!(world.broker.core.poll_events().is_none());
        assert_eq!(kinds(&mut world), [""; 0]);
    }

    #[test]
    fn the_end_of_a_connection_is_told_after_the_counts_of_its_account() {
        let mut world = World::new(vec![Account::named("A")], false);
        let system = world.client("$SYS").unwrap();
        world.says(system, "SUB $SYS.ACCOUNT.> 1\r\n");
        let id = world.client("A").unwrap();
        kinds(&mut world);
        let now = world.now;
        world.broker.closed(now, id);
        assert_eq!(kinds(&mut world), ["conns", "disconnect"]);
        world.says(system, "UNSUB 1\r\n");
        let id = world.client("A").unwrap();
        world.broker.closed(now, id);
        assert_eq!(kinds(&mut world), [""; 0]);
        assert_eq!(world.broker.core.events.listeners, 0);
    }

    #[test]
    fn numbers_come_at_a_pace_that_slows_down_to_ten_seconds() {
        let mut events = Events::default();
        let mut at = Vec::new();
        for _ in 0..7 {
            at.push(events.statsz_at.0 / 1_000_000);
            events.pass_statsz(events.statsz_at);
        }
        assert_eq!(at, [250, 1250, 3250, 7250, 15250, 25250, 35250]);
        let late = events.statsz_at + Duration::from_secs(1_000_003);
        events.pass_statsz(late);
        assert_eq!(events.statsz_at.since(late), Duration::from_secs(7));
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut world = World::new(vec![Account::named("A")], false);
        let system = world.client("$SYS").unwrap();
        world.says(system, "SUB > 1\r\n");
        for _ in 0..limits::SYSTEM_EVENTS_MAX + 9 {
            let id = world.client("A").unwrap();
            let now = world.now;
            world.broker.closed(now, id);
        }
        assert_eq!(world.broker.core.events.queue.len(), limits::SYSTEM_EVENTS_MAX);
        let now = world.now;
        world.broker.note_shutdown(now);
        assert!(world.broker.core.events.over);
    }
}
