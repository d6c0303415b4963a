//! Interest across a leaf link, and which subjects may cross it.
//!
//! Owns three things: what our side wants ([`LocalInterest`], one for an account, shared by
//! its remotes), what one hub wants ([`HubInterest`]), and the rules of one connection
//! ([`LinkRules`]). Does not route: the broker tells it of subscriptions and asks it.
//!
//! # Invariants
//! - A key is advertised exactly while its count is above zero.
//! - [`HubInterest`] holds at most `limits::LEAF_SUBSCRIPTIONS_MAX` keys.
//! - What [`LinkRules`] lets pass never makes the hub close the connection.
//!
//! Source: leaf node traffic of nats-server 2.15.1.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::leaf::handshake::Hub;
use crate::leaf::{Identity, RemoteOptions};
use crate::limits;
use crate::proto::leaf::{SubjectPermissions, write_sub_add, write_sub_remove};
use crate::subject::{collides, has_wildcard, is_subset, is_valid, matches};

/// Start of the subjects that find loops: each account of each server has one.
pub const LOOP_PREFIX: &[u8] = b"$LDS.";

/// `subject` or `subject queue`: what identifies interest on a leaf link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key(Box<[u8]>);

impl Key {
    fn new(subject: &[u8], queue: &[u8]) -> Self {
        if queue.is_empty() {
            Self(subject.into())
        } else {
            Self([subject, b" ", queue].concat().into())
        }
    }

    fn parts(&self) -> (&[u8], &[u8]) {
        match memchr::memchr(b' ', &self.0) {
            Some(at) => {
                let (subject, queue) = self.0.split_at(at);
                (subject, queue.get(1..).unwrap_or_default())
            }
            None => (&self.0, b""),
        }
    }
}

/// One change to tell the hubs of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// The subject.
    pub subject: &'a [u8],
    /// Empty: none.
    pub queue: &'a [u8],
    /// How many want it now; 0: nobody.
    pub count: u32,
}

impl Change<'_> {
    /// Writes `LS+` or `LS-`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let &Self { subject, queue, count } = self;
        match (count, queue.is_empty()) {
            (0, _) => write_sub_remove(out, subject, queue),
            (_, true) => write_sub_add(out, subject, None),
            (weight, false) => write_sub_add(out, subject, Some((queue, weight))),
        }
    }
}

/// What our side wants: clients, `JetStream`, mappings and the loop id.
#[derive(Debug, Default)]
pub struct LocalInterest {
    counts: BTreeMap<Key, u32>,
}

impl LocalInterest {
    /// A subscription came. `Some` if the hubs must hear of it, at once: a request that
    /// follows may not arrive before the interest in its answer.
    pub fn add<'a>(&mut self, subject: &'a [u8], queue: &'a [u8]) -> Option<Change<'a>> {
        let count = self.counts.entry(Key::new(subject, queue)).or_insert(0);
        *count = count.saturating_add(1);
        let count = *count;
        // A weight changes with each member; plain interest only with the first.
        (count == 1 || !queue.is_empty()).then_some(Change { subject, queue, count })
    }

    /// A subscription went.
    pub fn remove<'a>(&mut self, subject: &'a [u8], queue: &'a [u8]) -> Option<Change<'a>> {
        let key = Key::new(subject, queue);
        let count = self.counts.get_mut(&key)?;
        *count -= 1;
        let count = *count;
        if count == 0 {
            self.counts.remove(&key);
        }
        (count == 0 || !queue.is_empty()).then_some(Change { subject, queue, count })
    }

    /// Everything, for a hub that has just connected.
    pub fn iter(&self) -> impl Iterator<Item = Change<'_>> {
        self.counts.iter().map(|(key, &count)| {
            let (subject, queue) = key.parts();
            Change { subject, queue, count }
        })
    }

    /// Writes the full set as `rules` allows it.
    pub fn write_all(&self, rules: &LinkRules, out: &mut Vec<u8>) {
        for change in self.iter().filter(|change| rules.may_advertise(change.subject, change.queue))
        {
            change.write(out);
        }
    }
}

/// What an `LS+` of the hub did to its interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HubChange {
    /// A new key.
    Added,
    /// The weight of a queue group changed.
    Weight,
    /// Nothing changed.
    Same,
    /// The subject has an empty token or text after `>`.
    Invalid,
    /// Over `limits::LEAF_SUBSCRIPTIONS_MAX`: not taken.
    Full,
}

/// What one hub wants from us. `T` is what the broker keeps for each key.
#[derive(Debug)]
pub struct HubInterest<T> {
    keys: BTreeMap<Key, (u32, T)>,
}

impl<T> Default for HubInterest<T> {
    fn default() -> Self {
        Self { keys: BTreeMap::new() }
    }
}

impl<T> HubInterest<T> {
    /// `LS+`. `weight` is 1 for plain interest. `make` is called for a new key only.
    pub fn add(
        &mut self,
        subject: &[u8],
        queue: &[u8],
        weight: u32,
        make: impl FnOnce() -> T,
    ) -> HubChange {
        if !is_valid(subject) {
            return HubChange::Invalid;
        }
        let key = Key::new(subject, queue);
        if let Some((known, _)) = self.keys.get_mut(&key) {
            if *known == weight || queue.is_empty() {
                return HubChange::Same;
            }
            *known = weight;
            return HubChange::Weight;
        }
        if self.keys.len() >= limits::LEAF_SUBSCRIPTIONS_MAX {
            return HubChange::Full;
        }
        self.keys.insert(key, (weight, make()));
        HubChange::Added
    }

    /// `LS-`. An unknown key is nothing to worry about.
    pub fn remove(&mut self, subject: &[u8], queue: &[u8]) -> Option<T> {
        self.keys.remove(&Key::new(subject, queue)).map(|(_, kept)| kept)
    }

    /// How many members stand behind a queue group; 1 for plain interest.
    pub fn weight(&self, subject: &[u8], queue: &[u8]) -> Option<u32> {
        self.keys.get(&Key::new(subject, queue)).map(|&(weight, _)| weight)
    }

    /// Forgets everything, because the connection ends.
    pub fn take(&mut self) -> Vec<T> {
        core::mem::take(&mut self.keys).into_values().map(|(_, kept)| kept).collect()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// What was kept of each key.
    pub fn ids(&self) -> impl Iterator<Item = T>
    where
        T: Copy,
    {
        self.keys.values().map(|&(_, kept)| kept)
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// A subject of a permission, perhaps for one queue group only.
#[derive(Clone, Debug)]
struct Entry {
    subject: Box<[u8]>,
    queue: Option<Box<[u8]>>,
}

impl Entry {
    fn parse(text: &str) -> Self {
        let mut words = text.split_ascii_whitespace();
        let subject = words.next().unwrap_or_default().as_bytes().into();
        Self { subject, queue: words.next().map(|queue| queue.as_bytes().into()) }
    }

    fn plain(subject: &[u8]) -> Self {
        Self { subject: subject.into(), queue: None }
    }

    /// Does the entry speak of this group (empty: of plain subscriptions)?
    fn covers_queue(&self, queue: &[u8]) -> bool {
        match &self.queue {
            None => true,
            Some(pattern) => !queue.is_empty() && matches(queue, pattern),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Direction {
    /// Empty: everything.
    allow: Vec<Entry>,
    deny: Vec<Entry>,
}

impl Direction {
    fn new(permissions: Option<&SubjectPermissions>) -> Self {
        let parse = |list: &Vec<String>| list.iter().map(|text| Entry::parse(text)).collect();
        permissions.map_or_else(Self::default, |permissions| Self {
            allow: parse(&permissions.allow),
            deny: parse(&permissions.deny),
        })
    }

    fn denies(&self, subject: &[u8]) -> bool {
        self.deny.iter().any(|entry| entry.queue.is_none() && matches(subject, &entry.subject))
    }

    fn allows(&self, subject: &[u8]) -> bool {
        self.allow.is_empty() || self.allow.iter().any(|entry| matches(subject, &entry.subject))
    }
}

/// What may cross one connection, by the hub's permissions, our own `deny_*` and the rules
/// of `JetStream` domains.
#[derive(Clone, Debug, Default)]
pub struct LinkRules {
    /// Down: what the hub may send us.
    import: Direction,
    /// Up: what we may send.
    export: Direction,
    headers: bool,
}

impl LinkRules {
    /// The rules of a connection that has just become ready.
    pub fn new(hub: &Hub, options: &RemoteOptions, identity: &Identity) -> Self {
        let mut import = Direction::new(hub.import.as_ref());
        let mut export = Direction::new(hub.export.as_ref());
        import
            .deny
            .extend(options.deny_imports.iter().map(|filter| Entry::plain(filter.as_bytes())));
        export
            .deny
            .extend(options.deny_exports.iter().map(|filter| Entry::plain(filter.as_bytes())));
        let other_domain = hub.domain != identity.domain;
        if other_domain || identity.jetstream || hub.jetstream {
            // Each side answers its own API under these; the other one is reached by domain.
            for subject in [&b"$JS.API.>"[..], b"$KV.>", b"$OBJ.>"] {
                import.deny.push(Entry::plain(subject));
                export.deny.push(Entry::plain(subject));
            }
        }
        if other_domain && !identity.domain.is_empty() {
            let own = alloc::format!("$JS.{}.API.>", identity.domain);
            export.deny.push(Entry::plain(own.as_bytes()));
        }
        Self { import, export, headers: hub.headers }
    }

    /// May messages to the hub carry headers?
    pub fn headers(&self) -> bool {
        self.headers
    }

    /// May we send `LS+` for this? Wildcards may if any subject they match may come down;
    /// a literal that may not would end the connection. `queue` empty: none.
    pub fn may_advertise(&self, subject: &[u8], queue: &[u8]) -> bool {
        if subject.starts_with(LOOP_PREFIX) {
            return true;
        }
        let Direction { allow, deny } = &self.import;
        let denied = deny
            .iter()
            .any(|entry| entry.covers_queue(queue) && is_subset(subject, &entry.subject));
        let allowed = allow.is_empty()
            || allow
                .iter()
                .any(|entry| entry.covers_queue(queue) && collides(subject, &entry.subject));
        !denied && allowed
    }

    /// May we send a message on this literal subject? `false`: drop it without a word.
    pub fn may_send(&self, subject: &[u8]) -> bool {
        // The hub never checks answers to what it delivered through a service or a
        // consumer, nor those on their way to another cluster.
        if [&b"_R_."[..], b"$JS.ACK.", b"_GR_."].iter().any(|prefix| subject.starts_with(prefix)) {
            return true;
        }
        if self.export.denies(subject) || subject.starts_with(LOOP_PREFIX) {
            return false;
        }
        subject.starts_with(b"$MQTT.") || self.export.allows(subject)
    }

    /// May the hub have sent us a message on this subject? `false`: drop it without a word.
    pub fn may_receive(&self, subject: &[u8]) -> bool {
        !self.import.denies(subject) && self.import.allows(subject)
    }

    /// Could anything at all go up that matches this pattern? Interest of the hub that
    /// fails here need not be kept.
    pub fn may_match(&self, pattern: &[u8]) -> bool {
        if !has_wildcard(pattern) {
            return self.may_send(pattern);
        }
        !self
            .export
            .deny
            .iter()
            .any(|entry| entry.queue.is_none() && is_subset(pattern, &entry.subject))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::Filter;
    use alloc::string::ToString;
    use alloc::{format, vec};
    use proptest::prelude::*;

    fn text(change: Option<Change<'_>>) -> String {
        let mut out = Vec::new();
        if let Some(change) = change {
            change.write(&mut out);
        }
        String::from_utf8(out).unwrap()
    }

    #[expect(clippy::unnecessary_wraps, reason = "as a hub has them")]
    fn permissions(allow: &[&str], deny: &[&str]) -> Option<SubjectPermissions> {
        let strings = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        Some(SubjectPermissions { allow: strings(allow), deny: strings(deny) })
    }

    fn rules(hub: &Hub, own_domain: &str, options: &RemoteOptions) -> LinkRules {
        let identity = Identity {
            domain: own_domain.into(),
            jetstream: !own_domain.is_empty(),
            ..Identity::default()
        };
        LinkRules::new(hub, options, &identity)
    }

    #[test]
    fn plain_interest_crosses_once_and_leaves_with_the_last() {
        let mut interest = LocalInterest::default();
        assert_eq!(text(interest.add(b"a", b"")), "LS+ a\r\n");
        assert_eq!(text(interest.add(b"a", b"")), "");
        assert_eq!(text(interest.remove(b"a", b"")), "");
        assert_eq!(text(interest.remove(b"a", b"")), "LS- a\r\n");
        assert_eq!(text(interest.remove(b"a", b"")), "");
    }

    #[test]
    fn queue_weights_cross_with_each_change() {
        let mut interest = LocalInterest::default();
        assert_eq!(text(interest.add(b"a", b"q")), "LS+ a q 1\r\n");
        assert_eq!(text(interest.add(b"a", b"q")), "LS+ a q 2\r\n");
        assert_eq!(text(interest.remove(b"a", b"q")), "LS+ a q 1\r\n");
        assert_eq!(text(interest.remove(b"a", b"q")), "LS- a q\r\n");
    }

    #[test]
    fn a_new_connection_gets_the_full_set_it_may_have() {
        let mut interest = LocalInterest::default();
        interest.add(b"$LDS.x", b"");
        interest.add(b"down.a", b"q");
        interest.add(b"down.a", b"q");
        interest.add(b"other", b"");
        interest.add(b">", b"");
        let hub = Hub { import: permissions(&["down.>"], &[]), ..Hub::default() };
        let mut out = Vec::new();
        interest.write_all(&rules(&hub, "", &RemoteOptions::default()), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "LS+ $LDS.x\r\nLS+ >\r\nLS+ down.a q 2\r\n");
    }

    #[test]
    fn permissions_of_the_hub_hold_both_ways() {
        let hub = Hub {
            import: permissions(&["down.>"], &["down.secret"]),
            export: permissions(&["up.>"], &["up.secret"]),
            ..Hub::default()
        };
        let rules = rules(&hub, "", &RemoteOptions::default());
        for (subject, expected) in [
            ("down.a", true),
            ("down.secret", false),
            ("up.a", false),
            ("*.a", true),
            ("up.*", false),
        ] {
            assert_eq!(rules.may_advertise(subject.as_bytes(), b""), expected, "{subject}");
        }
        for (subject, expected) in [
            ("up.a", true),
            ("up.secret", false),
            ("down.a", false),
            ("_R_.abc.def", true),
            ("$JS.ACK.S.C.1.1.1.1.0", true),
            ("$MQTT.x", true),
            ("$LDS.x", false),
            ("_GR_.a.b.down.x", true),
        ] {
            assert_eq!(rules.may_send(subject.as_bytes()), expected, "{subject}");
        }
        assert!(rules.may_receive(b"down.a"));
        assert!(!rules.may_receive(b"down.secret"));
        assert!(!rules.may_receive(b"x"));
    }

    #[test]
    fn entries_for_one_queue_group_leave_the_others_alone() {
        let hub = Hub { import: permissions(&["a q1", "b"], &["b bad"]), ..Hub::default() };
        let rules = rules(&hub, "", &RemoteOptions::default());
        assert!(rules.may_advertise(b"a", b"q1"));
        assert!(!rules.may_advertise(b"a", b"q2"));
        assert!(!rules.may_advertise(b"a", b""));
        assert!(rules.may_advertise(b"b", b"good"));
        assert!(!rules.may_advertise(b"b", b"bad"));
        assert!(rules.may_receive(b"b"));
    }

    #[test]
    fn the_api_of_each_side_stays_at_home() {
        let hub = Hub { domain: "hub".into(), jetstream: true, ..Hub::default() };
        let rules = rules(&hub, "gw", &RemoteOptions::default());
        for subject in ["$JS.API.>", "$JS.API.INFO", "$KV.b.k", "$OBJ.>"] {
            assert!(!rules.may_advertise(subject.as_bytes(), b""), "{subject}");
        }
        assert!(rules.may_advertise(b"$JS.gw.API.CONSUMER.>", b""));
        assert!(rules.may_advertise(b">", b""));
        assert!(rules.may_send(b"$JS.hub.API.INFO"));
        for subject in ["$JS.API.INFO", "$JS.gw.API.INFO", "$KV.b.k"] {
            assert!(!rules.may_send(subject.as_bytes()), "{subject}");
            assert!(!rules.may_match(subject.as_bytes()), "{subject}");
        }
        assert!(!rules.may_receive(b"$JS.API.INFO"));
        assert!(!rules.may_match(b"$JS.API.>"));
        assert!(rules.may_match(b">"));
    }

    #[test]
    fn our_own_denies_are_kept() {
        let options = RemoteOptions {
            deny_imports: vec![Filter::parse(b"noisy.>").unwrap()],
            deny_exports: vec![Filter::parse(b"secret.>").unwrap()],
            ..RemoteOptions::default()
        };
        let rules = rules(&Hub::default(), "", &options);
        assert!(!rules.may_advertise(b"noisy.a", b""));
        assert!(!rules.may_receive(b"noisy.a"));
        assert!(!rules.may_send(b"secret.a"));
        assert!(rules.may_send(b"a") && rules.may_receive(b"a") && rules.may_advertise(b"a", b""));
    }

    #[test]
    fn interest_of_the_hub_is_kept_by_key_and_bounded() {
        let mut interest = HubInterest::default();
        assert_eq!(interest.add(b"a", b"", 1, || 1), HubChange::Added);
        assert_eq!(interest.add(b"a", b"", 1, || 2), HubChange::Same);
        assert_eq!(interest.add(b"a", b"q", 1, || 3), HubChange::Added);
        assert_eq!(interest.add(b"a", b"q", 3, || 4), HubChange::Weight);
        assert_eq!(interest.weight(b"a", b"q"), Some(3));
        assert_eq!(interest.remove(b"b", b""), None);
        assert_eq!(interest.remove(b"a", b""), Some(1));
        assert_eq!(interest.add(b"a..b", b"", 1, || 5), HubChange::Invalid);
        for index in interest.len()..limits::LEAF_SUBSCRIPTIONS_MAX {
            assert_eq!(
                interest.add(format!("s{index}").as_bytes(), b"", 1, || 6),
                HubChange::Added
            );
        }
        assert_eq!(interest.add(b"one.more", b"", 1, || 7), HubChange::Full);
        assert_eq!(interest.add(b"a", b"q", 4, || 8), HubChange::Weight);
        assert_eq!(interest.take().len(), limits::LEAF_SUBSCRIPTIONS_MAX);
        assert!(interest.is_empty());
    }

    proptest! {
        /// Whatever order subscriptions come and go in, the hub ends up with what there is.
        #[test]
        fn the_hub_knows_exactly_what_is_wanted(
            steps in prop::collection::vec((any::<bool>(), 0_usize..3, 0_usize..3), 0..60),
        ) {
            let (subjects, queues) = ([&b"a"[..], b"b.*", b">"], [&b""[..], b"q", b"r"]);
            let mut interest = LocalInterest::default();
            let mut hub = BTreeMap::new();
            for (add, subject, queue) in steps {
                let (subject, queue) = (subjects[subject], queues[queue]);
                let change =
                    if add { interest.add(subject, queue) } else { interest.remove(subject, queue) };
                if let Some(change) = change {
                    let key = (change.subject, change.queue);
                    if change.count == 0 {
                        prop_assert!(hub.remove(&key).is_some());
                    } else {
                        hub.insert(key, change.count);
                    }
                }
            }
            for change in interest.iter() {
                let known = hub.remove(&(change.subject, change.queue)).unwrap();
                prop_assert!(change.queue.is_empty() || known == change.count);
            }
            prop_assert!(hub.is_empty());
        }
    }
}
