//! Interest: which subscriptions receive a message on a subject.
//!
//! Owns the subject tree, queue-group membership and the cache of matches. Does not own
//! receivers, only a [`SubId`] for each subscription, and never writes to one.
//!
//! The tree keeps all edges in one hash table, so that a subscription on a subject of its
//! own (an inbox) costs a few dozen bytes a token and no map of its own.
//!
//! # Invariants
//! - A [`SubId`] is in the tree at most once, at the node of its subject.
//! - A node without subscriptions and children does not exist: interest that went leaves
//!   nothing behind.
//! - A cached match is used only while nothing was inserted or removed since.
//!
//! Source: NATS docs, "Subject-Based Messaging", "Queue Groups".

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::limits::MATCH_CACHE_LEN;
use crate::subject::tokens;

/// A subscription: an index into the broker's table of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubId(pub u32);

/// Who receives a message: every plain subscription, and one member of each queue group.
#[derive(Clone, Debug, Default)]
pub struct Matches {
    /// Each gets a copy.
    pub plain: Vec<SubId>,
    /// Of each, one member gets a copy. Members of one group may have different patterns.
    pub queues: Vec<Group>,
}

/// A queue group as one message sees it.
#[derive(Clone, Debug)]
pub struct Group {
    /// The name.
    pub queue: Rc<[u8]>,
    /// Its members.
    pub members: Vec<SubId>,
}

impl Matches {
    /// Nobody at all?
    pub fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.queues.is_empty()
    }

    fn clear(&mut self) {
        self.plain.clear();
        self.queues.clear();
    }

    fn add_group(&mut self, queue: &Rc<[u8]>, members: &[SubId]) {
        if let Some(group) = self.queues.iter_mut().find(|group| group.queue == *queue) {
            group.members.extend_from_slice(members);
        } else {
            self.queues.push(Group { queue: queue.clone(), members: members.to_vec() });
        }
    }
}

/// Index of a node; the root is 0.
type NodeId = u32;

const ROOT: NodeId = 0;
/// Stands for "no node".
const NONE: NodeId = u32::MAX;

#[derive(Debug)]
struct Node {
    parent: NodeId,
    /// Child under the token `*`.
    star: NodeId,
    /// Child under the token `>`.
    full: NodeId,
    /// Literal children; their edges are in the table.
    children: u32,
    plain: Vec<SubId>,
    queues: Vec<Group>,
}

impl Node {
    fn new(parent: NodeId) -> Self {
        Self { parent, star: NONE, full: NONE, children: 0, plain: Vec::new(), queues: Vec::new() }
    }

    fn is_unused(&self) -> bool {
        self.plain.is_empty()
            && self.queues.is_empty()
            && self.children == 0
            && self.star == NONE
            && self.full == NONE
    }
}

#[derive(Debug)]
struct Edge {
    parent: NodeId,
    token: Box<[u8]>,
    child: NodeId,
}

#[derive(Clone, Debug)]
struct Cached {
    subject: Rc<[u8]>,
    matches: Rc<Matches>,
}

/// The subject tree of one account.
#[derive(Debug)]
pub struct Interest {
    nodes: Vec<Node>,
    free: Vec<NodeId>,
    edges: HashTable<Edge>,
    hasher: FixedState,
    generation: u64,
    removes: u64,
    cache: HashTable<Cached>,
    cache_generation: u64,
    /// The entry found last: a publisher mostly stays on its subject.
    hot: Option<Cached>,
    /// Hashes of subjects seen once: only one seen again is worth a cache entry, so that
    /// inboxes used for a single reply do not push out what is hot. Empty until the first
    /// one: an account that nobody uses costs next to nothing.
    seen_once: Box<[u32]>,
    scratch: Matches,
}

const SEEN_ONCE_LEN: usize = 1024;

/// Result of a lookup: shared from the cache or borrowed from scratch.
pub enum Found {
    /// From the cache.
    Shared(Rc<Matches>),
    /// Fresh; give it back with [`Interest::recycle`].
    Fresh(Matches),
}

impl Found {
    /// The match itself.
    pub fn matches(&self) -> &Matches {
        match self {
            Self::Shared(matches) => matches,
            Self::Fresh(matches) => matches,
        }
    }
}

impl Interest {
    /// An empty tree. `seed` keeps a peer from choosing subjects that collide.
    pub fn new(seed: u64) -> Self {
        Self {
            nodes: alloc::vec![Node::new(NONE)],
            free: Vec::new(),
            edges: HashTable::new(),
            hasher: FixedState::with_seed(seed),
            generation: 0,
            removes: 0,
            cache: HashTable::new(),
            cache_generation: 0,
            hot: None,
            seen_once: Box::default(),
            scratch: Matches::default(),
        }
    }

    /// Adds a subscription. `queue` empty: plain. The subject must be valid.
    pub fn insert(&mut self, subject: &[u8], queue: &[u8], sub: SubId) {
        let mut at = ROOT;
        for token in tokens(subject) {
            at = self.child_or_new(at, token);
        }
        self.generation += 1;
        let Some(node) = self.nodes.get_mut(at as usize) else { return };
        if queue.is_empty() {
            node.plain.push(sub);
        } else if let Some(group) = node.queues.iter_mut().find(|group| *group.queue == *queue) {
            group.members.push(sub);
        } else {
            node.queues.push(Group { queue: Rc::from(queue), members: alloc::vec![sub] });
        }
    }

    /// Removes a subscription inserted with the same subject and queue; unknown ones are
    /// ignored.
    pub fn remove(&mut self, subject: &[u8], queue: &[u8], sub: SubId) {
        let mut at = ROOT;
        for token in tokens(subject) {
            match self.child(at, token) {
                NONE => return,
                child => at = child,
            }
        }
        self.generation += 1;
        self.removes += 1;
        if let Some(node) = self.nodes.get_mut(at as usize) {
            if queue.is_empty() {
                node.plain.retain(|&other| other != sub);
            } else {
                for group in &mut node.queues {
                    if *group.queue == *queue {
                        group.members.retain(|&other| other != sub);
                    }
                }
                node.queues.retain(|group| !group.members.is_empty());
            }
        }
        let path: Vec<&[u8]> = tokens(subject).collect();
        for token in path.into_iter().rev() {
            let Some(node) = self.nodes.get(at as usize) else { return };
            if !node.is_unused() {
                return;
            }
            let parent = node.parent;
            self.unlink(parent, token, at);
            self.free.push(at);
            at = parent;
        }
    }

    /// Insertions and removals since the start.
    pub fn changes(&self) -> (u64, u64) {
        (self.generation - self.removes, self.removes)
    }

    /// Subjects whose receivers are remembered.
    pub fn cached(&self) -> usize {
        if self.cache_generation == self.generation { self.cache.len() } else { 0 }
    }

    /// Who receives a message on the literal `subject`. An empty token in it matches nobody.
    #[inline]
    pub fn find(&mut self, subject: &[u8]) -> Found {
        if let Some(hot) = &self.hot
            && self.cache_generation == self.generation
            && *hot.subject == *subject
        {
            return Found::Shared(hot.matches.clone());
        }
        self.find_colder(subject)
    }

    fn find_colder(&mut self, subject: &[u8]) -> Found {
        if self.cache_generation != self.generation {
            self.cache.clear();
            self.hot = None;
            self.cache_generation = self.generation;
        }
        let hash = self.hasher.hash_one(subject);
        if let Some(cached) = self.cache.find(hash, |cached| *cached.subject == *subject) {
            self.hot = Some(cached.clone());
            return Found::Shared(cached.matches.clone());
        }
        let mut matches = core::mem::take(&mut self.scratch);
        matches.clear();
        if self.is_empty() {
            return Found::Fresh(matches);
        }
        self.collect(subject, &mut matches);
        if self.seen_once.is_empty() {
            self.seen_once = alloc::vec![0; SEEN_ONCE_LEN].into_boxed_slice();
        }
        // Truncation is the point: 32 bits of the hash tell subjects apart well enough.
        let print = (hash >> 32) as u32 | 1;
        #[expect(clippy::cast_possible_truncation, reason = "reduced by the modulus")]
        let slot = hash as usize % SEEN_ONCE_LEN;
        let seen = self.seen_once.get_mut(slot);
        match seen {
            Some(seen) if *seen != print => *seen = print,
            _ => {
                if self.cache.len() >= MATCH_CACHE_LEN {
                    self.cache.clear();
                }
                let shared = Rc::new(matches);
                let entry = Cached { subject: Rc::from(subject), matches: shared.clone() };
                let hasher = &self.hasher;
                self.cache.insert_unique(hash, entry, |cached| hasher.hash_one(&*cached.subject));
                return Found::Shared(shared);
            }
        }
        Found::Fresh(matches)
    }

    /// Gives the buffers of a fresh match back, so that the next lookup allocates nothing.
    #[inline]
    pub fn recycle(&mut self, found: Found) {
        if let Found::Fresh(matches) = found {
            self.scratch = matches;
        }
    }

    /// The subscriptions inserted on exactly this text, wildcards taken as text.
    pub fn literal(&self, subject: &[u8]) -> (&[SubId], &[Group]) {
        let mut at = ROOT;
        for token in tokens(subject) {
            match self.child(at, token) {
                NONE => return (&[], &[]),
                child => at = child,
            }
        }
        self.nodes.get(at as usize).map_or((&[], &[]), |node| (&node.plain, &node.queues))
    }

    fn is_empty(&self) -> bool {
        self.nodes.get(ROOT as usize).is_none_or(Node::is_unused)
    }

    fn collect(&self, subject: &[u8], matches: &mut Matches) {
        // A depth-first walk with a stack of its own: (node, rest of the subject). The stack
        // never holds more than one entry a level, because of the two ways on from a node
        // one is followed at once.
        let mut stack: Vec<(NodeId, &[u8])> = Vec::new();
        let mut next = Some((ROOT, Some(subject)));
        loop {
            let Some((at, rest)) = next.take().or_else(|| stack.pop().map(|(n, r)| (n, Some(r))))
            else {
                return;
            };
            let Some(node) = self.nodes.get(at as usize) else { continue };
            let Some(rest) = rest else {
                take(node, matches);
                continue;
            };
            let (token, after) = match memchr::memchr(b'.', rest) {
                Some(dot) => (&rest[..dot], Some(&rest[dot + 1..])),
                None => (rest, None),
            };
            if token.is_empty() {
                // Whatever was collected on the way does not count.
                matches.clear();
                return;
            }
            if let Some(full) = self.nodes.get(node.full as usize)
                && after.is_none_or(|after| !has_empty_token(after))
            {
                take(full, matches);
            }
            if node.star != NONE {
                match after {
                    Some(after) => stack.push((node.star, after)),
                    None => {
                        if let Some(star) = self.nodes.get(node.star as usize) {
                            take(star, matches);
                        }
                    }
                }
            }
            if node.children > 0 {
                match self.literal_child(at, token) {
                    NONE => {}
                    child => next = Some((child, after)),
                }
            }
        }
    }

    fn edge_hash(&self, parent: NodeId, token: &[u8]) -> u64 {
        edge_hash(&self.hasher, parent, token)
    }

    fn literal_child(&self, parent: NodeId, token: &[u8]) -> NodeId {
        self.edges
            .find(self.edge_hash(parent, token), |edge| {
                edge.parent == parent && *edge.token == *token
            })
            .map_or(NONE, |edge| edge.child)
    }

    fn child(&self, parent: NodeId, token: &[u8]) -> NodeId {
        match token {
            b"*" => self.nodes.get(parent as usize).map_or(NONE, |node| node.star),
            b">" => self.nodes.get(parent as usize).map_or(NONE, |node| node.full),
            token => self.literal_child(parent, token),
        }
    }

    fn child_or_new(&mut self, parent: NodeId, token: &[u8]) -> NodeId {
        let child = self.child(parent, token);
        if child != NONE {
            return child;
        }
        let child = if let Some(child) = self.free.pop() {
            if let Some(node) = self.nodes.get_mut(child as usize) {
                *node = Node::new(parent);
            }
            child
        } else {
            self.nodes.push(Node::new(parent));
            NodeId::try_from(self.nodes.len() - 1).unwrap_or(NONE)
        };
        let hash = self.edge_hash(parent, token);
        if let Some(node) = self.nodes.get_mut(parent as usize) {
            match token {
                b"*" => node.star = child,
                b">" => node.full = child,
                token => {
                    node.children += 1;
                    let hasher = &self.hasher;
                    self.edges.insert_unique(
                        hash,
                        Edge { parent, token: token.into(), child },
                        |edge| edge_hash(hasher, edge.parent, &edge.token),
                    );
                }
            }
        }
        child
    }

    fn unlink(&mut self, parent: NodeId, token: &[u8], child: NodeId) {
        let hash = self.edge_hash(parent, token);
        let Some(node) = self.nodes.get_mut(parent as usize) else { return };
        match token {
            b"*" => node.star = NONE,
            b">" => node.full = NONE,
            _ => {
                if let Ok(entry) = self.edges.find_entry(hash, |edge| edge.child == child) {
                    entry.remove();
                    node.children -= 1;
                }
            }
        }
    }
}

fn edge_hash(hasher: &FixedState, parent: NodeId, token: &[u8]) -> u64 {
    hasher.hash_one((parent, token))
}

fn has_empty_token(subject: &[u8]) -> bool {
    tokens(subject).any(<[u8]>::is_empty)
}

fn take(node: &Node, matches: &mut Matches) {
    matches.plain.extend_from_slice(&node.plain);
    for group in &node.queues {
        matches.add_group(&group.queue, &group.members);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Rng;
    use crate::subject;

    fn found(interest: &mut Interest, subject: &[u8]) -> Vec<u32> {
        let found = interest.find(subject);
        let matches = found.matches();
        let mut ids: Vec<u32> = matches.plain.iter().map(|sub| sub.0).collect();
        for group in &matches.queues {
            ids.extend(group.members.iter().map(|sub| sub.0));
        }
        ids.sort_unstable();
        interest.recycle(found);
        ids
    }

    #[test]
    fn matches_agree_with_the_plain_rules_while_subscriptions_come_and_go() {
        let words: [&[u8]; 5] = [b"a", b"b", b"c", b"*", b">"];
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let mut interest = Interest::new(seed);
            let mut subs: Vec<(Vec<u8>, Vec<u8>, u32)> = Vec::new();
            let draw = |rng: &mut Rng, words: &[&[u8]]| {
                let len = 1 + rng.index(4);
                let parts: Vec<&[u8]> = (0..len).map(|_| words[rng.index(words.len())]).collect();
                parts.join(&b'.')
            };
            for id in 0..60 {
                if rng.below(3) == 0 && !subs.is_empty() {
                    let (subject, queue, id) = subs.swap_remove(rng.index(subs.len()));
                    interest.remove(&subject, &queue, SubId(id));
                } else {
                    let subject = draw(&mut rng, &words);
                    if !subject::is_valid(&subject) {
                        continue;
                    }
                    let queue: Vec<u8> = if rng.below(3) == 0 { b"q".to_vec() } else { Vec::new() };
                    interest.insert(&subject, &queue, SubId(id));
                    subs.push((subject, queue, id));
                }
                let literal = draw(&mut rng, &words[..3]);
                for _ in 0..3 {
                    let mut expected: Vec<u32> = subs
                        .iter()
                        .filter(|(pattern, _, _)| subject::matches(&literal, pattern))
                        .map(|&(_, _, id)| id)
                        .collect();
                    expected.sort_unstable();
                    assert_eq!(found(&mut interest, &literal), expected, "seed {seed}");
                }
            }
            for (subject, queue, id) in subs {
                interest.remove(&subject, &queue, SubId(id));
            }
            assert!(interest.edges.is_empty(), "interest that went leaves nothing behind");
            assert_eq!(interest.free.len(), interest.nodes.len() - 1);
        }
    }

    #[test]
    fn a_subject_with_an_empty_token_matches_nobody() {
        let mut interest = Interest::new(1);
        interest.insert(b">", b"", SubId(1));
        interest.insert(b"a.>", b"", SubId(2));
        for subject in [&b"a..b"[..], b".a", b"a.", b"", b"a.b..c"] {
            assert_eq!(found(&mut interest, subject), Vec::<u32>::new(), "{subject:?}");
        }
        assert_eq!(found(&mut interest, b"a.b"), [1, 2]);
    }

    #[test]
    fn members_of_one_queue_with_different_patterns_form_one_group() {
        let mut interest = Interest::new(1);
        interest.insert(b"a.*", b"g", SubId(1));
        interest.insert(b"a.>", b"g", SubId(2));
        interest.insert(b"a.b", b"h", SubId(3));
        let found = interest.find(b"a.b");
        assert_eq!(found.matches().queues.len(), 2);
    }
}
