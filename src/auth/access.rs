//! What one connection may do: its user's rules, and what was granted and asked before.
//!
//! Owns the replies a connection may publish to because it received them, and the memory of
//! answers that take long to find. Does not own the rules ([`Policy`]), nor what happens to
//! a message that is refused.
//!
//! # Invariants
//! - A granted reply is published to at most as often, and as long, as the rules say. A
//!   denied subject can be granted: the grant is for one reply, given by a delivery.
//! - Memory is bounded by `limits`, whatever the subjects and replies are.

use alloc::boxed::Box;
use alloc::rc::Rc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::permissions::{Policy, Responses};
use crate::limits::{
    REPLY_BYTES_MAX, REPLY_GRANTS_MAX, REPLY_PRUNE_INTERVAL, REPLY_PRUNE_LEN,
    VERDICT_SUBJECT_BYTES_MAX, VERDICTS_LEN,
};
use crate::time::Instant;

/// What one connection may do.
#[derive(Debug)]
pub struct Access {
    policy: Rc<Policy>,
    /// A subscription overlaps a deny entry, so that deliveries must be asked about.
    filtered: bool,
    published: Verdicts,
    delivered: Verdicts,
    replies: Option<Replies>,
}

impl Access {
    /// Of a connection that has just signed in.
    pub fn new(policy: Rc<Policy>, hasher: FixedState) -> Self {
        let replies = policy.responses().map(|rules| Replies::new(rules, hasher.clone()));
        Self {
            policy,
            filtered: false,
            published: Verdicts(HashMap::with_hasher(hasher.clone())),
            delivered: Verdicts(HashMap::with_hasher(hasher)),
            replies,
        }
    }

    /// The rules.
    pub fn policy(&self) -> &Rc<Policy> {
        &self.policy
    }

    /// May it publish on `subject` now? An answer that was granted is used up by asking.
    pub fn publish(&mut self, now: Instant, subject: &[u8]) -> bool {
        self.may_publish(subject)
            || self.replies.as_mut().is_some_and(|replies| replies.answer(now, subject))
    }

    fn may_publish(&mut self, subject: &[u8]) -> bool {
        if self.policy.is_publish_slow() {
            let policy = &self.policy;
            self.published.remember(subject, || policy.may_publish(subject))
        } else {
            self.policy.may_publish(subject)
        }
    }

    /// May it subscribe to this? `queue` is empty without a group.
    pub fn subscribe(&mut self, subject: &[u8], queue: &[u8]) -> bool {
        let allowed = self.policy.may_subscribe(subject, queue);
        self.filtered |= allowed && self.policy.is_filtered(subject, queue);
        allowed
    }

    /// Delivers a message to one of its subscriptions, if that may be: from then on it may be
    /// answered.
    pub fn receive(&mut self, now: Instant, subject: &[u8], queue: &[u8], reply: &[u8]) -> bool {
        let allowed = self.deliver(subject, queue);
        if allowed {
            self.delivered(now, reply);
        }
        allowed
    }

    fn deliver(&mut self, subject: &[u8], queue: &[u8]) -> bool {
        if !self.filtered {
            return true;
        }
        let policy = &self.policy;
        if queue.is_empty() && policy.is_delivery_slow() {
            self.delivered.remember(subject, || !policy.denies_delivery(subject, queue))
        } else {
            !policy.denies_delivery(subject, queue)
        }
    }

    fn delivered(&mut self, now: Instant, reply: &[u8]) {
        if self.replies.is_none() || reply.is_empty() || self.may_publish(reply) {
            return;
        }
        if let Some(replies) = &mut self.replies {
            replies.grant(now, reply);
        }
    }
}

/// Answers to questions asked before.
#[derive(Debug)]
struct Verdicts(HashMap<Box<[u8]>, bool, FixedState>);

impl Verdicts {
    fn remember(&mut self, subject: &[u8], find: impl FnOnce() -> bool) -> bool {
        if let Some(&verdict) = self.0.get(subject) {
            return verdict;
        }
        let verdict = find();
        if subject.len() <= VERDICT_SUBJECT_BYTES_MAX {
            if self.0.len() >= VERDICTS_LEN {
                self.0.clear();
            }
            self.0.insert(subject.into(), verdict);
        }
        verdict
    }
}

/// Replies that may be published to.
#[derive(Debug)]
struct Replies {
    rules: Responses,
    granted: HashMap<Box<[u8]>, Grant, FixedState>,
    /// Grants so far; numbers them by age.
    count: u64,
    pruned_at: Instant,
    since_pruned: usize,
}

#[derive(Clone, Copy, Debug)]
struct Grant {
    /// Answers left; `None`: any number.
    left: Option<u32>,
    until: Option<Instant>,
    number: u64,
}

impl Grant {
    fn is_over(&self, now: Instant) -> bool {
        self.left == Some(0) || self.until.is_some_and(|until| until <= now)
    }
}

impl Replies {
    fn new(rules: Responses, hasher: FixedState) -> Self {
        Self {
            rules,
            granted: HashMap::with_hasher(hasher),
            count: 0,
            pruned_at: Instant::default(),
            since_pruned: 0,
        }
    }

    fn grant(&mut self, now: Instant, reply: &[u8]) {
        if reply.len() > REPLY_BYTES_MAX {
            return;
        }
        self.count += 1;
        let grant = Grant {
            left: self.rules.max,
            until: self.rules.expires.map(|expires| now + expires),
            number: self.count,
        };
        match self.granted.get_mut(reply) {
            Some(known) => *known = grant,
            None => {
                self.granted.insert(reply.into(), grant);
            }
        }
        self.since_pruned += 1;
        if self.since_pruned >= REPLY_PRUNE_LEN || now.since(self.pruned_at) >= REPLY_PRUNE_INTERVAL
        {
            self.prune(now);
        }
    }

    /// Forgets what is over, and the older half where that is not enough.
    fn prune(&mut self, now: Instant) {
        self.pruned_at = now;
        self.since_pruned = 0;
        self.granted.retain(|_, grant| !grant.is_over(now));
        if self.granted.len() + REPLY_PRUNE_LEN > REPLY_GRANTS_MAX {
            let newer = self.count.saturating_sub((REPLY_GRANTS_MAX / 2) as u64);
            self.granted.retain(|_, grant| grant.number > newer);
        }
        if self.granted.is_empty() {
            self.granted.shrink_to_fit();
        }
    }

    fn answer(&mut self, now: Instant, subject: &[u8]) -> bool {
        let Some(grant) = self.granted.get_mut(subject) else { return false };
        if grant.is_over(now) {
            self.granted.remove(subject);
            return false;
        }
        if let Some(left) = &mut grant.left {
            *left -= 1;
            if *left == 0 {
                self.granted.remove(subject);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::permissions::{Entry, Permissions, Rules, Strictness};
    use crate::time::Duration;
    use alloc::format;
    use alloc::vec;
    use alloc::vec::Vec;

    fn entries(texts: &[&str]) -> Vec<Entry> {
        texts.iter().map(|text| Entry { subject: (*text).into(), queue: None }).collect()
    }

    fn access(permissions: &Permissions) -> Access {
        let policy = Policy::new(permissions, Strictness::Subset);
        Access::new(Rc::new(policy), FixedState::with_seed(1))
    }

    fn answers(max: Option<u32>, expires: Option<Duration>) -> Access {
        access(&Permissions {
            responses: Some(Responses { max, expires }),
            publish: Rules { allow: Vec::new(), deny: entries(&["denied.>"]) },
            ..Permissions::default()
        })
    }

    const START: Instant = Instant(1_000_000_000);

    #[test]
    fn a_reply_is_answered_as_often_as_the_rules_say() {
        let mut access = answers(Some(2), None);
        assert!(!access.publish(START, b"_INBOX.1"));
        access.delivered(START, b"_INBOX.1");
        assert!(access.publish(START, b"_INBOX.1"));
        assert!(access.publish(START, b"_INBOX.1"));
        assert!(!access.publish(START, b"_INBOX.1"));
        assert!(!access.publish(START, b"_INBOX.2"));
        access.delivered(START, b"denied.reply");
        assert!(access.publish(START, b"denied.reply"), "a grant is above a deny entry");
    }

    #[test]
    fn a_late_answer_is_refused() {
        let mut access = answers(None, Some(Duration::from_millis(50)));
        access.delivered(START, b"r");
        assert!(access.publish(START + Duration::from_millis(49), b"r"));
        assert!(!access.publish(START + Duration::from_millis(50), b"r"));
        assert!(!access.publish(START, b"r"), "what expired is forgotten");
    }

    #[test]
    fn a_grant_never_stands_for_another_subject() {
        let mut access = answers(Some(1), None);
        access.delivered(START, b"_INBOX.*");
        access.delivered(START, b">");
        assert!(!access.publish(START, b"_INBOX.a"));
        assert!(!access.publish(START, b"orders.delete"));
        assert!(access.publish(START, b">"), "only the text itself");
    }

    #[test]
    fn grants_are_bounded_however_many_requests_come() {
        let mut access = answers(None, None);
        let many = REPLY_GRANTS_MAX * 2 + 1;
        for number in 0..many {
            access.delivered(START, format!("r.{number}").as_bytes());
        }
        assert!(access.replies.as_ref().unwrap().granted.len() <= REPLY_GRANTS_MAX);
        assert!(access.publish(START, format!("r.{}", many - 1).as_bytes()), "the newest holds");
        assert!(!access.publish(START, b"r.0"));
        access.delivered(START, &vec![b'a'; REPLY_BYTES_MAX + 1]);
        assert!(!access.publish(START, &vec![b'a'; REPLY_BYTES_MAX + 1]));
    }

    #[test]
    fn remembered_answers_are_the_same_and_bounded() {
        let allow = entries(&["a.*", "b.*", "c.*", "d.*", "e.*"]);
        let publish = Rules { allow, deny: entries(&["a.no"]) };
        let mut access = access(&Permissions { publish, ..Permissions::default() });
        for round in 0..3 {
            for number in 0..VERDICTS_LEN * 2 {
                assert!(access.publish(START, format!("a.{number}").as_bytes()), "{round}");
                assert!(!access.publish(START, format!("x.{number}").as_bytes()), "{round}");
            }
            assert!(!access.publish(START, b"a.no"), "{round}");
        }
        assert!(access.published.0.len() <= VERDICTS_LEN);
        let long = [&b"a."[..], &[b'x'; VERDICT_SUBJECT_BYTES_MAX]].concat();
        let before = access.published.0.len();
        assert!(access.publish(START, &long));
        assert_eq!(access.published.0.len(), before);
    }

    #[test]
    fn deliveries_are_filtered_once_a_subscription_overlaps_what_is_denied() {
        let deny = entries(&["foo.secret"]);
        let subscribe = Rules { allow: Vec::new(), deny };
        let mut access = access(&Permissions { subscribe, ..Permissions::default() });
        assert!(access.subscribe(b"foo.*", b""));
        assert!(!access.deliver(b"foo.secret", b""));
        assert!(access.deliver(b"foo.open", b""));
        assert!(!access.subscribe(b"foo.secret", b"q"));
    }
}
