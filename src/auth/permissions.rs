//! Permissions: what a user may publish and subscribe to.
//!
//! Owns the rules as they are declared ([`Permissions`]), their form for quick answers
//! ([`Policy`]) and the answers. Does not own where they are asked (the broker) nor the
//! replies granted by [`Responses`] to one connection ([`super::access`]).
//!
//! The subject asked about is taken as a literal: an allowed `p.*` lets a client publish on
//! the text `p.*` too. Subscriptions are looked at more closely than nats-server does: an
//! allowed `foo.*` does not let `foo.>` in, which would receive `foo.a.b`, unless the rules
//! are lax.
//!
//! # Invariants
//! - Deny wins. A deny entry for all subscriptions is not undone by one for a queue group.
//! - What a subscription is refused for, or filtered by at each delivery, covers every
//!   subject of every deny entry that speaks of it.
//!
//! Source: NATS docs, "Authorization", "Subject-level permissions", "Allow responses".

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::sorted;
use crate::subject::{collides, has_wildcard, is_subset, matches};
use crate::time::Duration;

/// What a user may do. The default allows everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Subjects to publish to; its entries have no queue.
    pub publish: Rules,
    /// Subjects to subscribe to.
    pub subscribe: Rules,
    /// The right to answer what was received.
    pub responses: Option<Responses>,
}

/// An allow and a deny list; deny wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// What is allowed; empty: everything that is not denied.
    pub allow: Vec<Entry>,
    /// What is denied.
    pub deny: Vec<Entry>,
}

/// One entry of a list: a subject, and for subscriptions perhaps a queue group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Wildcards allowed.
    pub subject: String,
    /// Queue group, wildcard tokens allowed; `None`: with and without a group.
    pub queue: Option<String>,
}

/// `allow_responses`: each message delivered with a reply may be answered there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Responses {
    /// Answers to one message; `None`: any number. Default 1.
    pub max: Option<u32>,
    /// How long after the delivery; `None`: for ever. Default 2 minutes.
    pub expires: Option<Duration>,
}

/// How narrowly a subscription is compared with what is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strictness {
    /// All that the subscription matches must be allowed.
    #[default]
    Subset,
    /// As nats-server: the pattern is compared as if it were a literal subject, so that an
    /// allowed `foo.*` lets `foo.>` in.
    Lax,
}

/// [`Permissions`] in a form that answers quickly. One serves all connections of a user.
#[derive(Debug)]
pub struct Policy {
    /// `None`: everything.
    publish_allow: Option<List>,
    publish_deny: List,
    /// `None`: everything.
    subscribe_allow: Option<List>,
    subscribe_deny: List,
    responses: Option<Responses>,
    strictness: Strictness,
}

impl Policy {
    /// Prepares the rules. The right to answer turns off publishing that is not allowed by
    /// name.
    pub fn new(permissions: &Permissions, strictness: Strictness) -> Self {
        let allow = |rules: &Rules| (!rules.allow.is_empty()).then(|| List::new(&rules.allow));
        let publish_allow = match (allow(&permissions.publish), permissions.responses) {
            (None, Some(_)) => Some(List::default()),
            (list, _) => list,
        };
        Self {
            publish_allow,
            publish_deny: List::new(&permissions.publish.deny),
            subscribe_allow: allow(&permissions.subscribe),
            subscribe_deny: List::new(&permissions.subscribe.deny),
            responses: permissions.responses,
            strictness,
        }
    }

    /// May a message be published on `subject`? Answers that were granted do not count.
    pub fn may_publish(&self, subject: &[u8]) -> bool {
        self.publish_allow.as_ref().is_none_or(|list| list.matches(subject))
            && !self.publish_deny.matches(subject)
    }

    /// Would it take long to find out what [`Self::may_publish`] says?
    pub fn is_publish_slow(&self) -> bool {
        self.publish_allow.as_ref().is_some_and(List::is_long) || self.publish_deny.is_long()
    }

    /// May somebody subscribe to this? `queue` is empty without a group.
    pub fn may_subscribe(&self, subject: &[u8], queue: &[u8]) -> bool {
        let allowed = self
            .subscribe_allow
            .as_ref()
            .is_none_or(|list| list.allows_subscription(subject, queue, self.strictness));
        allowed && !self.denies_delivery(subject, queue)
    }

    /// Must each message for such a subscription be asked about, because it may match a
    /// deny entry? Literal subscriptions were decided when they came.
    pub fn is_filtered(&self, subject: &[u8], queue: &[u8]) -> bool {
        let deny = &self.subscribe_deny;
        has_wildcard(subject)
            && (deny.plain().any(|entry| collides(subject, entry))
                || deny
                    .queues
                    .iter()
                    .any(|entry| entry.is_for(queue) && collides(subject, &entry.subject)))
    }

    /// Is a message on `subject` kept from a subscription with this queue group?
    pub fn denies_delivery(&self, subject: &[u8], queue: &[u8]) -> bool {
        let deny = &self.subscribe_deny;
        deny.matches(subject)
            || deny
                .queues
                .iter()
                .any(|entry| entry.is_for(queue) && matches(subject, &entry.subject))
    }

    /// Would it take long to find out what [`Self::denies_delivery`] says?
    pub fn is_delivery_slow(&self) -> bool {
        self.subscribe_deny.is_long() || self.subscribe_deny.queues.len() > SHORT_LIST_LEN
    }

    /// May answers be published to what was received?
    pub fn responses(&self) -> Option<Responses> {
        self.responses
    }
}

/// Up to so many patterns are compared one by one; above it answers are remembered.
const SHORT_LIST_LEN: usize = 4;

/// Entries of one list, apart by how they are looked up.
#[derive(Debug, Default)]
struct List {
    /// Without wildcards and queue, sorted.
    literals: Vec<Box<[u8]>>,
    /// With wildcards, without queue.
    patterns: Vec<Box<[u8]>>,
    queues: Vec<QueueEntry>,
}

/// An entry that speaks of some queue groups only.
#[derive(Debug)]
struct QueueEntry {
    subject: Box<[u8]>,
    queue: Box<[u8]>,
}

impl QueueEntry {
    /// Does it speak of this group? Of plain subscriptions (`queue` empty) it never does.
    fn is_for(&self, queue: &[u8]) -> bool {
        !queue.is_empty() && is_subset(queue, &self.queue)
    }
}

impl List {
    fn new(entries: &[Entry]) -> Self {
        let mut list = Self::default();
        for Entry { subject, queue } in entries {
            let subject: Box<[u8]> = subject.as_bytes().into();
            match queue {
                Some(queue) => {
                    list.queues.push(QueueEntry { subject, queue: queue.as_bytes().into() });
                }
                None if has_wildcard(&subject) => list.patterns.push(subject),
                None => list.literals.push(subject),
            }
        }
        sorted::sort(&mut list.literals);
        list.literals.dedup();
        list
    }

    fn plain(&self) -> impl Iterator<Item = &[u8]> {
        self.literals.iter().chain(&self.patterns).map(|entry| &**entry)
    }

    fn is_literal(&self, subject: &[u8]) -> bool {
        self.literals.binary_search_by(|entry| (**entry).cmp(subject)).is_ok()
    }

    /// Does an entry without queue match this literal?
    fn matches(&self, subject: &[u8]) -> bool {
        self.is_literal(subject) || self.patterns.iter().any(|entry| matches(subject, entry))
    }

    fn is_long(&self) -> bool {
        self.patterns.len() > SHORT_LIST_LEN
    }

    /// Where entries for queue groups speak of the subject, one must name the group; else
    /// one without queue suffices.
    fn allows_subscription(&self, subject: &[u8], queue: &[u8], strictness: Strictness) -> bool {
        let covers = |entry: &[u8]| match strictness {
            Strictness::Subset => is_subset(subject, entry),
            Strictness::Lax => matches(subject, entry),
        };
        if !queue.is_empty() {
            let mut named = self.queues.iter().filter(|entry| covers(&entry.subject)).peekable();
            if named.peek().is_some() {
                return named.any(|entry| entry.is_for(queue));
            }
        }
        // A wildcard equals no literal, in either way of comparing.
        self.is_literal(subject) || self.patterns.iter().any(|entry| covers(entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn entries(texts: &[&str]) -> Vec<Entry> {
        texts
            .iter()
            .map(|text| match text.split_once(' ') {
                Some((subject, queue)) => {
                    Entry { subject: subject.into(), queue: Some(queue.into()) }
                }
                None => Entry { subject: (*text).into(), queue: None },
            })
            .collect()
    }

    fn subscribe(allow: &[&str], deny: &[&str], strictness: Strictness) -> Policy {
        let rules = Rules { allow: entries(allow), deny: entries(deny) };
        Policy::new(&Permissions { subscribe: rules, ..Permissions::default() }, strictness)
    }

    fn publish(allow: &[&str], deny: &[&str], responses: Option<Responses>) -> Policy {
        let rules = Rules { allow: entries(allow), deny: entries(deny) };
        let permissions = Permissions { publish: rules, subscribe: Rules::default(), responses };
        Policy::new(&permissions, Strictness::Subset)
    }

    #[test]
    fn publishing_takes_the_subject_as_a_literal() {
        let policy = publish(&["p.*", "q.>", "lit"], &["q.no.>"], None);
        for (subject, expected) in [
            ("p.a", true),
            ("p.*", true),
            ("p.>", true),
            ("p", false),
            ("p.a.b", false),
            ("q.a.b", true),
            ("q.>", true),
            ("q", false),
            ("q.no.a", false),
            ("lit", true),
            ("lit.a", false),
            ("", false),
        ] {
            assert_eq!(policy.may_publish(subject.as_bytes()), expected, "{subject}");
        }
    }

    #[test]
    fn an_empty_allow_list_allows_all_unless_answers_are_granted() {
        let granted = Some(Responses { max: Some(1), expires: None });
        assert!(publish(&[], &[], None).may_publish(b"x"));
        assert!(!publish(&[], &["x"], None).may_publish(b"x"));
        assert!(!publish(&[], &[], granted).may_publish(b"x"));
        assert!(publish(&["x"], &[], granted).may_publish(b"x"));
    }

    #[test]
    fn a_subscription_may_not_be_wider_than_what_is_allowed() {
        for (subject, strict, lax) in [
            ("foo.bar", true, true),
            ("foo.*", true, true),
            ("foo.>", false, true),
            ("foo", false, false),
            (">", false, false),
            ("*", false, false),
            ("*.*", false, false),
            ("*.bar", false, false),
            ("foo.a.b", false, false),
            ("x.a", true, true),
            ("x.*", true, true),
            ("x.a.>", true, true),
            ("x.>", true, true),
            ("x", false, false),
            ("lit", true, true),
        ] {
            for (strictness, expected) in [(Strictness::Subset, strict), (Strictness::Lax, lax)] {
                let policy = subscribe(&["foo.*", "x.>", "lit"], &[], strictness);
                let found = policy.may_subscribe(subject.as_bytes(), b"");
                assert_eq!(found, expected, "{subject} {strictness:?}");
            }
        }
    }

    #[test]
    fn entries_for_queue_groups_speak_of_these_groups_only() {
        for (allow, subject, queue, expected) in [
            (vec!["foo"], "foo", "", true),
            (vec!["foo"], "foo", "q1", true),
            (vec!["foo q1"], "foo", "", false),
            (vec!["foo q1"], "foo", "q1", true),
            (vec!["foo q1"], "foo", "q2", false),
            (vec!["foo", "foo q1"], "foo", "", true),
            (vec!["foo", "foo q1"], "foo", "q1", true),
            (vec!["foo", "foo q1"], "foo", "q2", false),
            (vec!["foo *"], "foo", "", false),
            (vec!["foo *"], "foo", "q2", true),
            (vec!["foo *"], "foo", "a.b", false),
            (vec!["foo v1.*"], "foo", "v1.a", true),
            (vec!["foo v1.*"], "foo", "v1.>", false),
            (vec!["foo v*"], "foo", "v1", false),
            (vec!["foo v*"], "foo", "v*", true),
            (vec!["foo q.>"], "foo", "q", false),
            (vec!["bar", "foo q1"], "bar", "q9", true),
        ] {
            let policy = subscribe(&allow, &[], Strictness::Subset);
            let found = policy.may_subscribe(subject.as_bytes(), queue.as_bytes());
            assert_eq!(found, expected, "{allow:?}: {subject} {queue}");
        }
    }

    #[test]
    fn what_a_deny_entry_matches_is_refused_and_what_it_overlaps_is_filtered() {
        let policy = subscribe(&[], &["foo.*"], Strictness::Subset);
        for (subject, allowed, filtered) in [
            ("foo.bar", false, false),
            ("foo.*", false, true),
            ("foo.>", false, true),
            (">", true, true),
            ("*.*", true, true),
            ("*.bar", true, true),
            ("foo.*.a", true, false),
            ("bar.*", true, false),
            ("foo", true, false),
        ] {
            assert_eq!(policy.may_subscribe(subject.as_bytes(), b""), allowed, "{subject}");
            assert_eq!(policy.is_filtered(subject.as_bytes(), b""), filtered, "{subject}");
        }
        assert!(policy.denies_delivery(b"foo.x", b"any"));
        assert!(!policy.denies_delivery(b"foo.x.y", b""));
    }

    #[test]
    fn a_denied_queue_group_is_not_served_and_others_are() {
        let policy = subscribe(&[], &["foo q2"], Strictness::Subset);
        assert!(!policy.may_subscribe(b"foo", b"q2"));
        assert!(policy.may_subscribe(b"foo", b"q1") && policy.may_subscribe(b"foo", b""));
        assert!(policy.may_subscribe(b"*", b"q2") && policy.is_filtered(b"*", b"q2"));
        assert!(!policy.is_filtered(b"*", b"q3") && !policy.is_filtered(b"*", b""));
        assert!(policy.denies_delivery(b"foo", b"q2") && !policy.denies_delivery(b"foo", b"q3"));
        let both = subscribe(&[], &["foo", "foo q2"], Strictness::Subset);
        assert!(!both.may_subscribe(b"foo", b"q1") && !both.may_subscribe(b"foo", b""));
    }

    #[test]
    fn nothing_denied_is_delivered_whatever_the_patterns() {
        let words: [&str; 4] = ["a", "b", "*", ">"];
        let mut patterns: Vec<String> = Vec::new();
        for first in words {
            patterns.push(first.into());
            for second in words {
                patterns.push(alloc::format!("{first}.{second}"));
            }
        }
        patterns.retain(|pattern| crate::subject::is_valid(pattern.as_bytes()));
        let literals = ["a", "b", "a.a", "a.b", "b.a", "b.b", "c.a", "a.c"];
        for strictness in [Strictness::Subset, Strictness::Lax] {
            for deny in &patterns {
                let policy = subscribe(&[], &[deny], strictness);
                for pattern in &patterns {
                    if !policy.may_subscribe(pattern.as_bytes(), b"") {
                        continue;
                    }
                    for literal in literals.iter().map(|literal| literal.as_bytes()) {
                        let reaches = matches(literal, pattern.as_bytes())
                            && !(policy.is_filtered(pattern.as_bytes(), b"")
                                && policy.denies_delivery(literal, b""));
                        assert!(
                            !(reaches && matches(literal, deny.as_bytes())),
                            "{pattern} reaches {literal:?} past {deny}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn no_subscription_receives_what_is_not_allowed() {
        let words: [&str; 4] = ["a", "b", "*", ">"];
        let mut patterns: Vec<String> = Vec::new();
        for first in words {
            patterns.push(first.into());
            for second in words {
                patterns.push(alloc::format!("{first}.{second}"));
            }
        }
        patterns.retain(|pattern| crate::subject::is_valid(pattern.as_bytes()));
        let literals = ["a", "b", "a.a", "a.b", "b.a", "b.b", "c.a", "a.c", "a.a.a", "b.b.c"];
        for allow in &patterns {
            let policy = subscribe(&[allow], &[], Strictness::Subset);
            for pattern in &patterns {
                if policy.may_subscribe(pattern.as_bytes(), b"") {
                    for literal in literals.iter().map(|literal| literal.as_bytes()) {
                        assert!(
                            !matches(literal, pattern.as_bytes())
                                || matches(literal, allow.as_bytes()),
                            "{pattern} reaches {literal:?} past {allow}"
                        );
                    }
                }
            }
        }
    }
}
