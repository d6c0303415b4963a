//! The broker as one account's JetStream sees it.
//!
//! Owns the [`Host`] that JetStream is handed: everything it does stays in its account.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::conn::Receiver;
use super::core::{Core, Deferred, Msg, Origin};
use super::interest::SubId;
use super::{Notice, Output};
use crate::id::AccountId;
use crate::jetstream::host::{Host, JsNotice, Listeners, Target};
use crate::jetstream::storage::StoreRequest;

/// See the module.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) core: &'a mut Core,
    pub(super) account: AccountId,
}

impl View<'_> {
    fn known(&self, subject: &[u8], target: Target) -> Option<SubId> {
        let (plain, _) = self.core.account(self.account)?.interest.literal(subject);
        plain.iter().copied().find(|sub| {
            let receiver = self.core.subs.get(sub.0 as usize).map(|sub| &sub.receiver);
            receiver == Some(&Receiver::Js(target))
        })
    }
}

impl View<'_> {
    /// What it will listen to when it wakes, if it sleeps.
    fn asleep(&mut self) -> Option<&mut Vec<(Box<[u8]>, Target)>> {
        self.core.account_mut(self.account)?.asleep.as_mut()
    }
}

impl Host for View<'_> {
    fn subscribe(&mut self, subject: &[u8], target: Target) {
        if let Some(asleep) = self.asleep() {
            return asleep.push((subject.into(), target));
        }
        if self.known(subject, target).is_none() {
            self.core.add_sub(self.account, subject, b"", Receiver::Js(target));
        }
    }

    fn unsubscribe(&mut self, subject: &[u8], target: Target) {
        if let Some(asleep) = self.asleep() {
            return asleep.retain(|(of, to)| **of != *subject || *to != target);
        }
        if let Some(sub) = self.known(subject, target) {
            self.core.remove_sub(sub);
        }
    }

    fn deliver(
        &mut self,
        to: &[u8],
        subject: &[u8],
        reply: &[u8],
        headers: &[u8],
        payload: &[u8],
    ) -> bool {
        let core = &mut *self.core;
        let mut targets = core::mem::take(&mut core.targets);
        let msg = Msg { to, subject, reply, headers, payload };
        let delivered = core.route(self.account, Origin::Server, &msg, &mut targets);
        for (account, target) in targets.drain(..) {
            core.deferred.push_back(Deferred {
                account,
                target,
                subject: subject.into(),
                reply: reply.into(),
                headers: headers.into(),
                payload: payload.into(),
                asking: None,
            });
        }
        core.targets = targets;
        delivered
    }

    fn literal_listeners(&self, subject: &[u8], queue: &[u8]) -> Listeners {
        let Some(account) = self.core.account(self.account) else { return Listeners::default() };
        let (plain, queues) = account.interest.literal(subject);
        Listeners {
            plain: !plain.is_empty(),
            queue: queues.iter().any(|group| *group.queue == *queue),
        }
    }

    fn has_interest(&mut self, subject: &[u8]) -> bool {
        let core = &mut *self.core;
        let Some(account) = core.accounts.get_mut(usize::from(self.account.0)) else {
            return false;
        };
        let found = account.interest.find(subject);
        let matches = found.matches();
        let waits = |sub: &SubId| {
            let receiver = core.subs.get(sub.0 as usize).map(|sub| &sub.receiver);
            // All answers to another account come there: is one wanted under this subject?
            receiver != Some(&Receiver::Responses) || account.crossing.waits_for(subject)
        };
        let any = !matches.queues.is_empty() || matches.plain.iter().any(waits);
        account.interest.recycle(found);
        any
    }

    fn watch(&mut self, subject: &[u8]) {
        if let Some(account) = self.core.account_mut(self.account) {
            account.watched.insert(subject.into());
        }
    }

    fn unwatch(&mut self, subject: &[u8]) {
        if let Some(account) = self.core.account_mut(self.account) {
            account.watched.remove(subject);
        }
    }

    fn is_backlogged(&mut self, subject: &[u8]) -> bool {
        self.core.is_backlogged(self.account, subject)
    }

    fn store(&mut self, request: StoreRequest) {
        self.core.outputs.push_back(Output::Store(request));
    }

    fn notice(&mut self, notice: JsNotice) {
        self.core.outputs.push_back(Output::Notice(match notice {
            JsNotice::Info(text) => Notice::info(text),
            JsNotice::Warn(text) => Notice::warn(text),
            JsNotice::Error(text) => Notice::error(text),
        }));
    }

    fn requester(&self, headers: &[u8]) -> Vec<u8> {
        self.core.requester(self.account, headers)
    }

    fn has_leafs(&self) -> bool {
        self.core.account(self.account).is_some_and(|account| account.leaf.is_configured())
    }
}
