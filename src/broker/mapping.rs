//! Mappings: where a message goes instead of the subject it was published on.
//!
//! Owns the rules of each account and the choice by weight, and that `$JS.<domain>.API.…`
//! stands for `$JS.API.…`. Does not own the grammar of destinations
//! (`crate::subject::transform`).
//!
//! # Invariants
//! - A subject is mapped once: what comes out is not mapped again.
//! - The weights of a rule end at 100, or below where messages are to be lost.
//!
//! Source: NATS docs, "Subject Mapping and Partitioning".

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::core::Core;
use crate::auth::account::{Account, Mapping};
use crate::id::AccountId;
use crate::sorted;
use crate::subject::transform::{Purpose, Transform};
use crate::subject::{has_wildcard, matches};

/// What a rule made of a subject.
enum Mapped {
    To(Vec<u8>),
    Lost,
}

/// One mapping.
#[derive(Debug)]
pub(super) struct Rule {
    source: Box<[u8]>,
    /// With the sum of weights up to each.
    destinations: Vec<(u8, Transform)>,
}

impl Rule {
    fn new(mapping: &Mapping) -> Result<Self, String> {
        let source = mapping.subject.as_str();
        let mut destinations = Vec::new();
        let (mut sum, mut lossy) = (0_u8, false);
        // We are in no cluster: what holds only in one does not hold here.
        for destination in mapping.destinations.iter().filter(|one| one.cluster.is_none()) {
            let transform = Transform::new(source, &destination.subject, Purpose::Mapping)
                .map_err(|error| format!("{error}"))?;
            sum = sum.saturating_add(destination.weight).min(100);
            lossy |= destination.subject == source;
            destinations.push((sum, transform));
        }
        if sum < 100 && !lossy {
            // The rest stays where it is.
            let same = Transform::same(source).map_err(|error| format!("{error}"))?;
            destinations.push((100, same));
        }
        Ok(Self { source: source.as_bytes().into(), destinations })
    }
}

/// The rules of an account: exact subjects first, then patterns in the order of the
/// configuration. With what is wrong.
pub(super) fn rules(account: &Account) -> (Vec<Rule>, Vec<String>) {
    let (mut rules, mut problems) = (Vec::new(), Vec::new());
    for mapping in &account.mappings {
        match Rule::new(mapping) {
            Ok(rule) => rules.push(rule),
            Err(what) => problems.push(format!(
                "mapping of {:?} in account {:?}: {what}",
                mapping.subject, account.name
            )),
        }
    }
    sorted::sort_by_key(&mut rules, |rule| has_wildcard(&rule.source));
    (rules, problems)
}

/// What the mappings of a JetStream domain cover, after `$JS.<domain>.API.`.
const MAPPED: [&[u8]; 6] =
    [b"STREAM.", b"CONSUMER.", b"DIRECT.", b"META.", b"SERVER.", b"ACCOUNT."];

impl Core {
    /// The subject after the mappings of an account. `None`: the message is lost.
    #[inline]
    pub(super) fn mapped<'a>(
        &mut self,
        account: AccountId,
        subject: &'a [u8],
    ) -> Option<Cow<'a, [u8]>> {
        let Some(state) = self.accounts.get(usize::from(account.0)) else {
            return Some(Cow::Borrowed(subject));
        };
        if !state.mappings.is_empty()
            && let Some(mapped) = self.mapped_by_rules(account, subject)
        {
            return match mapped {
                Mapped::To(subject) => Some(Cow::Owned(subject)),
                Mapped::Lost => None,
            };
        }
        if subject.first() != Some(&b'$') || self.domain_prefix.is_empty() {
            return Some(Cow::Borrowed(subject));
        }
        Some(self.mapped_by_domain(account, subject))
    }

    /// `None`: no rule speaks of it.
    #[cold]
    fn mapped_by_rules(&mut self, account: AccountId, subject: &[u8]) -> Option<Mapped> {
        let state = self.accounts.get(usize::from(account.0))?;
        let rule = state.mappings.iter().find(|rule| matches(subject, &rule.source))?;
        let rng = &mut self.rng;
        let drawn = match rule.destinations[..] {
            [(100, _)] => 0,
            _ => rng.below(100),
        };
        let chosen = rule.destinations.iter().find(|(sum, _)| drawn < u64::from(*sum));
        let Some((_, transform)) = chosen else { return Some(Mapped::Lost) };
        let mut out = Vec::new();
        let random = |below: u32| u32::try_from(rng.below(below.into())).unwrap_or(0);
        let applied = transform.apply(subject, random, &mut out);
        Some(if applied { Mapped::To(out) } else { Mapped::Lost })
    }

    /// The subject after the mappings of our JetStream domain.
    fn mapped_by_domain<'a>(&self, account: AccountId, subject: &'a [u8]) -> Cow<'a, [u8]> {
        let Some(rest) = subject.strip_prefix(&self.domain_prefix[..]) else {
            return Cow::Borrowed(subject);
        };
        // An account without JetStream hears that it has none, on the domain's subjects too.
        if account == AccountId::SYSTEM
            || rest == b"INFO"
            || MAPPED.iter().any(|prefix| rest.starts_with(prefix))
        {
            Cow::Owned([b"$JS.API.", rest].concat())
        } else if rest.starts_with(b"$KV.") || rest.starts_with(b"$OBJ.") {
            Cow::Borrowed(rest)
        } else {
            Cow::Borrowed(subject)
        }
    }

    /// The subjects that mappings of an account speak of, for hubs.
    pub(super) fn mapping_sources(&self, account: AccountId) -> Vec<Box<[u8]>> {
        let rules = self.account(account).map(|state| &state.mappings);
        rules.into_iter().flatten().map(|rule| rule.source.clone()).collect()
    }
}
