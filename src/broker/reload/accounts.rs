//! Accounts that come, go and change while the broker runs.
//!
//! Owns what that means for what is there: imports are set up anew, clients of an account that
//! went are closed, and the `JetStream` of an account that has none any more sleeps until it
//! comes back. Does not own users: they have a call of their own.
//!
//! # Invariants
//! - An account keeps its id; the place of one that went is used again once nobody is in it
//!   and it never had `JetStream`.
//! - A `JetStream` that sleeps subscribes to nothing and does nothing in time, but hears the
//!   replies of the store, so that it knows what is on disk when it wakes.
//!
//! Source: nats-server 2.15 after SIGHUP.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use litemap::LiteMap;

use super::super::account::{self, AccountState};
use super::super::conn::{CloseReason, Kind, Receiver};
use super::super::core::Core;
use super::super::host::View;
use super::super::interest::SubId;
use super::super::options::Options;
use super::super::{Broker, Notice, Output};
use crate::auth::account::{Account, Export, GLOBAL, Import};
use crate::id::AccountId;
use crate::jetstream::host::Target;
use crate::jetstream::shared::Shared;
use crate::jetstream::storage::{RecoveredStream, StoreReply};
use crate::jetstream::{self, JetStream};
use crate::limits;
use crate::time::{Now, Timestamp};

/// What the broker keeps for accounts that get `JetStream` later, or again.
#[derive(Debug, Default)]
pub(in super::super) struct Standby {
    /// What the server was told of `JetStream`, if it has it, and what all accounts share.
    pub(in super::super) server: Option<(jetstream::options::Options, Shared)>,
    /// Of accounts that went, or may not use it any more.
    asleep: Vec<(AccountId, JetStream)>,
    /// Streams on disk of accounts that are not here, by their names.
    pub(in super::super) unserved: LiteMap<String, Vec<RecoveredStream>>,
    /// The store has said what there is: the next stream id and the time of the last message.
    pub(in super::super) recovered: Option<(u32, Timestamp)>,
}

impl Standby {
    /// One that sleeps, of this account.
    pub(in super::super) fn asleep_mut(&mut self, account: AccountId) -> Option<&mut JetStream> {
        let mut all = self.asleep.iter_mut();
        all.find(|(of, _)| *of == account).map(|(_, js)| js)
    }
}

impl Broker {
    /// Other bounds of `JetStream` for the whole server.
    pub fn reload_jetstream(&mut self, options: jetstream::options::Options) {
        let Some((own, _)) = &mut self.standby.server else { return };
        *own = options;
        self.tell_jetstream();
    }

    /// Tells each `JetStream` the bounds that hold for it now.
    fn tell_jetstream(&mut self) {
        let Some((server, _)) = &self.standby.server else { return };
        for (id, js) in self.js.iter_mut().chain(&mut self.standby.asleep) {
            if let Some(state) = self.core.account(*id) {
                js.set_options(account::jetstream_options(server, &state.name, &state.jetstream));
            }
        }
    }

    /// Takes the accounts of `options` in place of those there are.
    pub(in super::super) fn change_accounts(&mut self, now: Now, options: &Options) {
        if self.core.options.accounts == options.accounts {
            return;
        }
        let crosses = crossings(&self.core.options.accounts) != crossings(&options.accounts);
        self.core.options.accounts.clone_from(&options.accounts);
        if crosses {
            self.core.end_imports();
        }
        for id in self.core.account_ids() {
            let Some(state) = self.core.account(id) else { continue };
            let kept = id == AccountId::GLOBAL
                || id == AccountId::SYSTEM
                || options.accounts.iter().any(|account| *account.name == *state.name);
            if !kept {
                self.remove_account(now, id);
            }
        }
        for declared in &options.accounts {
            if self.core.account_named(&declared.name).is_none() {
                self.add_account(declared);
            }
        }
        for id in self.core.account_ids() {
            let Some(state) = self.core.account(id) else { continue };
            let declared = options.accounts.iter().find(|account| *account.name == *state.name);
            let none = Account::named(&state.name);
            self.core.declare_anew(id, declared.unwrap_or(&none));
        }
        self.change_jetstream(now, options);
        if crosses {
            let problems = self.core.begin_imports(options);
            self.core.add_all_shadows();
            for text in problems {
                self.core.outputs.push_back(Output::Notice(Notice::error(text)));
            }
        }
    }

    fn remove_account(&mut self, now: Now, id: AccountId) {
        let inside: Vec<u32> = self
            .core
            .conns
            .iter()
            .filter(|(_, conn)| conn.account == id && matches!(conn.kind, Kind::Client(_)))
            .map(|(_, conn)| conn.id.index)
            .collect();
        for index in inside {
            self.core.close(index, CloseReason::ClientClosed, true);
        }
        self.core.end_responses_of(id);
        self.put_to_sleep(now, id);
        if let Some(state) = self.core.account_mut(id) {
            let name = core::mem::take(&mut state.name);
            state.declare(&Account::named(&name));
            state.name = name;
            state.present = false;
        }
    }

    /// An account of this name: where it was before, else in a place nobody needs, else in a
    /// new one.
    fn add_account(&mut self, declared: &Account) {
        let core = &mut self.core;
        let gone = |state: &&mut AccountState| !state.present && *state.name == *declared.name;
        if let Some(state) = core.accounts.iter_mut().find(gone) {
            state.present = true;
            return;
        }
        let free = core.accounts.iter_mut().find(|state| {
            !state.present
                && state.asleep.is_none()
                && state.clients == 0
                && state.leaf_conns == 0
                && !state.leaf.is_configured()
        });
        if let Some(state) = free {
            // Its subscriptions are those that every account has.
            state.begin_anew(&declared.name);
            return;
        }
        if core.accounts.len() >= limits::ACCOUNTS_MAX {
            let text = alloc::format!(
                "there is no room for account {:?}: at most {} accounts fit, those that went \
                 since the start included; restart to have it",
                declared.name,
                limits::ACCOUNTS_MAX
            );
            core.outputs.push_back(Output::Notice(Notice::error(text)));
            return;
        }
        let seed = core.rng.next_u64();
        core.accounts.push(AccountState::new(declared, seed));
        let Some(id) = core.account_named(&declared.name) else { return };
        core.begin_services_of(id);
        if self.standby.server.is_some() {
            core.add_disabled_jetstream(id);
        }
    }

    /// Gives `JetStream` to the accounts that have it now, and takes it from the others.
    fn change_jetstream(&mut self, now: Now, options: &Options) {
        if self.standby.server.is_none() {
            return;
        }
        let has = account::with_jetstream(options);
        for id in self.core.account_ids() {
            let Some(state) = self.core.account(id) else { continue };
            // `$G` keeps it when other accounts come, as in nats-server.
            let keeps = &*state.name == GLOBAL && state.js.is_some();
            match (has(&state.name) || keeps, state.js.is_some()) {
                (true, false) => self.wake(now, id),
                (false, true) => self.put_to_sleep(now, id),
                (true, true) | (false, false) => {}
            }
        }
        self.tell_jetstream();
    }

    fn put_to_sleep(&mut self, now: Now, id: AccountId) {
        let Some(slot) = self.js_slot(id) else { return };
        let Some((_, js)) = self.js.get_mut(slot) else { return };
        self.core.announce_domain(id, false);
        js.shut_down(now, &mut View { core: &mut self.core, account: id });
        let sleeper = self.js.swap_remove(slot);
        let moved = self.js.get(slot).map(|(of, _)| *of);
        if let Some(state) = moved.and_then(|of| self.core.account_mut(of)) {
            state.js = u16::try_from(slot).ok();
        }
        let subs = self.core.take_jetstream_subs(id);
        if let Some(state) = self.core.account_mut(id) {
            state.js = None;
            state.asleep = Some(subs);
        }
        self.standby.asleep.push(sleeper);
        self.core.add_disabled_jetstream(id);
    }

    fn wake(&mut self, now: Now, id: AccountId) {
        // What answers in its place.
        self.core.take_jetstream_subs(id);
        let slot = u16::try_from(self.js.len()).ok();
        let asleep = self.standby.asleep.iter().position(|(of, _)| *of == id);
        if let Some(at) = asleep {
            let sleeper = self.standby.asleep.swap_remove(at);
            self.js.push(sleeper);
        } else {
            let Some((server, shared)) = &self.standby.server else { return };
            let Some(state) = self.core.account(id) else { return };
            let name = String::from(&*state.name);
            let options = account::jetstream_options(server, &name, &state.jetstream);
            let seed = self.core.rng.next_u64();
            let mut js = JetStream::of_account(id, options, seed, shared.clone());
            if let Some((next_stream, last_ts)) = self.standby.recovered {
                let streams = self.standby.unserved.remove(&name).unwrap_or_default();
                let reply = StoreReply::Recovered { streams, next_stream, last_ts };
                js.handle_store(now, reply, &mut View { core: &mut self.core, account: id });
            }
            self.js.push((id, js));
        }
        let mut subs = Vec::new();
        if let Some(state) = self.core.account_mut(id) {
            state.js = slot;
            subs = state.asleep.take().unwrap_or_default();
            let watched: Vec<Box<[u8]>> = state.watched.iter().cloned().collect();
            // Whoever listened may be gone, or new.
            self.core.changed.extend(watched.into_iter().map(|subject| (id, subject)));
        }
        for (subject, target) in subs {
            self.core.add_sub(id, &subject, b"", Receiver::Js(target));
        }
        self.core.announce_domain(id, true);
    }
}

/// What decides about imports: the names and what they give and take.
fn crossings(accounts: &[Account]) -> LiteMap<&str, (&[Export], &[Import])> {
    accounts
        .iter()
        .map(|account| (account.name.as_str(), (&account.exports[..], &account.imports[..])))
        .collect()
}

impl Core {
    /// Takes what is declared of an account in place of what was.
    fn declare_anew(&mut self, id: AccountId, declared: &Account) {
        let mut before = BTreeSet::new();
        before.extend(self.mapping_sources(id));
        let Some(state) = self.account_mut(id) else { return };
        state.declare(declared);
        if !state.leaf.is_configured() {
            return;
        }
        let mut after = BTreeSet::new();
        after.extend(self.mapping_sources(id));
        for (source, added) in before
            .difference(&after)
            .map(|source| (source, false))
            .chain(after.difference(&before).map(|source| (source, true)))
        {
            self.leaf_interest_changed(id, source, b"", None, added);
        }
    }

    /// Answers that `$JS.API` has in an account without `JetStream`.
    pub(in super::super) fn add_disabled_jetstream(&mut self, id: AccountId) {
        for subject in jetstream::disabled::subjects(id == AccountId::SYSTEM) {
            self.add_sub(id, subject, b"", Receiver::Js(Target::Api));
        }
    }

    /// Removes what `JetStream` listens to in an account, and gives it back.
    fn take_jetstream_subs(&mut self, id: AccountId) -> Vec<(Box<[u8]>, Target)> {
        let mut subs: Vec<(SubId, Box<[u8]>, Target)> = Vec::new();
        for (index, sub) in &self.subs {
            if let Receiver::Js(target) = sub.receiver
                && sub.account == id
            {
                let sub_id = SubId(u32::try_from(index).unwrap_or(u32::MAX));
                subs.push((sub_id, sub.subject.clone(), target));
            }
        }
        for (sub, ..) in &subs {
            self.remove_sub(*sub);
        }
        subs.into_iter().map(|(_, subject, target)| (subject, target)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::World;
    use super::*;
    use crate::auth::account::{ExportKind, ImportKind, JetStreamAccountLimits};
    use alloc::format;
    use alloc::vec;

    impl World {
        fn accounts(&mut self, accounts: Vec<Account>) {
            let options = Options { accounts, ..Options::default() };
            self.broker.reload(self.now, &options);
            self.settle();
        }

        fn names(&self) -> Vec<&str> {
            self.broker.account_views().iter().map(|view| view.stats.name).collect()
        }
    }

    fn with_jetstream(name: &str) -> Account {
        Account { jetstream: Some(JetStreamAccountLimits::default()), ..Account::named(name) }
    }

    #[test]
    fn accounts_that_come_and_go_take_no_room() {
        let mut world = World::new(vec![Account::named("A")], false);
        let (a, now) = (world.client("A").unwrap(), world.now);
        world.says(a, "SUB > 1\r\n");
        let subs = world.broker.core.subs.len();
        for round in 0..100 {
            let name = format!("N{round}");
            world.accounts(vec![Account::named("A"), Account::named(&name)]);
            assert_eq!(world.names(), ["$G", "$SYS", "A", &name]);
            let id = world.client(&name).unwrap();
            world.says(id, "SUB x 1\r\nPUB y 1\r\n1\r\n");
            world.accounts(vec![Account::named("A")]);
            assert!(world.broker.core.conn(id.index).unwrap().closing);
            world.broker.closed(now, id);
        }
        assert_eq!(world.broker.core.accounts.len(), 4);
        assert!(world.broker.core.subs.len() <= subs + 4);
        assert_eq!((world.sent(a), world.names()), (String::new(), vec!["$G", "$SYS", "A"]));
    }

    #[test]
    fn the_jetstream_of_an_account_sleeps_until_it_is_back() {
        let mut world = World::new(vec![with_jetstream("A"), with_jetstream("B")], true);
        let a = world.client("A").unwrap();
        let told = world.api(a, "STREAM.CREATE.X", r#"{"name":"X","subjects":["x"]}"#);
        assert!(told.contains("\"X\""), "{told}");
        world.accounts(vec![with_jetstream("B"), Account::named("A")]);
        assert!(world.api(a, "INFO", "").contains("10039"));
        world.says(a, "PUB x _INBOX.2 1\r\n1\r\n");
        // B moved up to its place, and still works.
        let b = world.client("B").unwrap();
        let told = world.api(b, "STREAM.CREATE.Y", r#"{"name":"Y","subjects":["y"]}"#);
        assert!(told.contains("\"Y\""), "{told}");
        world.waits(60_000);
        world.accounts(vec![with_jetstream("A"), with_jetstream("B")]);
        assert!(!world.api(a, "INFO", "").contains("10039"));
        world.says(a, "SUB _INBOX.2 2\r\nPUB x _INBOX.2 1\r\n2\r\n");
        let told = world.sent(a);
        assert!(told.contains(r#""seq":1"#), "{told}");
    }

    #[test]
    fn answers_of_an_account_that_went_are_forgotten() {
        let kind = ExportKind::Service {
            response: crate::auth::account::ResponseType::Stream,
            threshold: None,
            latency: None,
        };
        let export = Export {
            subject: "svc".into(),
            kind,
            accounts: None,
            account_token_position: None,
            allow_trace: false,
        };
        let import = Import {
            account: "E".into(),
            subject: "svc".into(),
            to: None,
            kind: ImportKind::Service { share: false },
        };
        let exporter = Account { exports: vec![export], ..Account::named("E") };
        let importer = Account { imports: vec![import], ..Account::named("I") };
        let both = vec![exporter, importer];
        for gone in 0..2 {
            let mut world = World::new(both.clone(), false);
            let (e, i) = (world.client("E").unwrap(), world.client("I").unwrap());
            world.says(e, "SUB svc 1\r\n");
            world.says(i, "SUB in 1\r\nPUB svc in 1\r\n1\r\n");
            assert!(world.sent(e).contains("_R_."));
            assert!(world.broker.core.poll_responses().is_some());
            let left = Account::named(&both[1 - gone].name);
            world.accounts(vec![left]);
            assert_eq!(world.broker.core.poll_responses(), None);
        }
    }
}
