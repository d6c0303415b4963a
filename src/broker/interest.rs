//! Interest: which subscriptions receive a message on a subject.
//!
//! Owns the subject tree, queue-group membership and the cache of matches. Does not own
//! receivers, only a [`SubId`] for each subscription, and never writes to one.
//!
//! The tree keeps all edges in one hash table, and grows a node only where two subjects part:
//! what follows on a way that only one subject takes is one *tail*, compared in one go. So a
//! subscription on a subject of its own (an inbox) costs an edge and a tail however many
//! tokens it has, and among very many subscriptions a match touches few places in memory.
//!
//! # Invariants
//! - A [`SubId`] is in the tree at most once, at the node or tail where its subject ends.
//! - A tail's rest is a valid subject, or empty where the subject ends with the edge.
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

use super::short::Short;
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
/// A node, or a tail if [`TAIL`] is set.
type Child = u32;

const ROOT: NodeId = 0;
/// Stands for "no node".
const NONE: Child = u32::MAX;
/// Marks a [`Child`] that is a tail.
const TAIL: Child = 1 << 31;

/// The index of a child that is a tail.
fn tail_of(child: Child) -> Option<usize> {
    (child != NONE && child & TAIL != 0).then_some((child ^ TAIL) as usize)
}

/// Subscriptions on one subject.
#[derive(Debug, Default)]
struct Here {
    plain: Few,
    queues: Vec<Group>,
}

impl Here {
    fn insert(&mut self, queue: &[u8], sub: SubId) {
        if queue.is_empty() {
            self.plain.push(sub);
        } else if let Some(group) = self.queues.iter_mut().find(|group| *group.queue == *queue) {
            group.members.push(sub);
        } else {
            self.queues.push(Group { queue: Rc::from(queue), members: alloc::vec![sub] });
        }
    }

    fn remove(&mut self, queue: &[u8], sub: SubId) {
        if queue.is_empty() {
            self.plain.remove(sub);
        } else {
            for group in &mut self.queues {
                if *group.queue == *queue {
                    group.members.retain(|&other| other != sub);
                }
            }
            self.queues.retain(|group| !group.members.is_empty());
        }
    }

    fn is_empty(&self) -> bool {
        self.plain.as_slice().is_empty() && self.queues.is_empty()
    }

    fn take(&self, matches: &mut Matches) {
        matches.plain.extend_from_slice(self.plain.as_slice());
        for group in &self.queues {
            matches.add_group(&group.queue, &group.members);
        }
    }
}

/// Plain subscriptions on one subject, of which there is mostly one: it needs no memory of
/// its own, and none has to be looked at.
#[derive(Debug)]
enum Few {
    One(SubId),
    Many(Vec<SubId>),
}

impl Default for Few {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Few {
    fn as_slice(&self) -> &[SubId] {
        match self {
            Self::One(sub) => core::slice::from_ref(sub),
            Self::Many(subs) => subs,
        }
    }

    fn push(&mut self, sub: SubId) {
        match self {
            Self::One(first) => *self = Self::Many(alloc::vec![*first, sub]),
            Self::Many(subs) if subs.is_empty() => *self = Self::One(sub),
            Self::Many(subs) => subs.push(sub),
        }
    }

    fn remove(&mut self, sub: SubId) {
        match self {
            Self::One(only) if *only == sub => *self = Self::default(),
            Self::One(_) => {}
            Self::Many(subs) => subs.retain(|&other| other != sub),
        }
    }
}

#[derive(Debug)]
struct Node {
    parent: NodeId,
    /// Child under the token `*`.
    star: Child,
    /// Child under the token `>`, always a tail.
    full: Child,
    /// Literal children; their edges are in the table.
    children: u32,
    here: Here,
}

impl Node {
    fn new(parent: NodeId) -> Self {
        Self { parent, star: NONE, full: NONE, children: 0, here: Here::default() }
    }

    fn is_unused(&self) -> bool {
        self.here.is_empty() && self.children == 0 && self.star == NONE && self.full == NONE
    }
}

#[derive(Debug)]
struct Tail {
    /// What follows the edge; empty if nothing does.
    rest: Short,
    here: Here,
}

#[derive(Debug)]
struct Edge {
    parent: NodeId,
    token: Short,
    child: Child,
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
    tails: Vec<Tail>,
    free_tails: Vec<Child>,
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
            tails: Vec::new(),
            free_tails: Vec::new(),
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
        self.generation += 1;
        let (mut at, mut rest) = (ROOT, subject);
        loop {
            let (token, after) = split(rest);
            let mut child = self.child(at, token);
            if child == NONE {
                let mut here = Here::default();
                here.insert(queue, sub);
                let tail =
                    self.add_tail(Tail { rest: Short::from(after.unwrap_or_default()), here });
                self.link(at, token, tail);
                return;
            }
            if let Some(index) = tail_of(child) {
                let Some(tail) = self.tails.get_mut(index) else { return };
                if *tail.rest == *after.unwrap_or_default() {
                    tail.here.insert(queue, sub);
                    return;
                }
                child = self.part(at, token, child);
            }
            match after {
                Some(after) => (at, rest) = (child, after),
                None => {
                    if let Some(node) = self.nodes.get_mut(child as usize) {
                        node.here.insert(queue, sub);
                    }
                    return;
                }
            }
        }
    }

    /// Puts a node in the place of a tail, which goes on one token further down.
    fn part(&mut self, parent: NodeId, token: &[u8], tail: Child) -> NodeId {
        let node = self.add_node(parent);
        self.relink(parent, token, node);
        let Some(part) = tail_of(tail).and_then(|index| self.tails.get_mut(index)) else {
            return node;
        };
        let rest = core::mem::replace(&mut part.rest, Short::from(&[][..]));
        if rest.is_empty() {
            let here = core::mem::take(&mut part.here);
            self.free_tails.push(tail);
            if let Some(node) = self.nodes.get_mut(node as usize) {
                node.here = here;
            }
        } else {
            let (first, after) = split(&rest);
            part.rest = Short::from(after.unwrap_or_default());
            self.link(node, first, tail);
        }
        node
    }

    /// Removes a subscription inserted with the same subject and queue; unknown ones are
    /// ignored.
    pub fn remove(&mut self, subject: &[u8], queue: &[u8], sub: SubId) {
        self.generation += 1;
        self.removes += 1;
        let (mut at, mut rest, mut depth) = (ROOT, subject, 0);
        loop {
            let (token, after) = split(rest);
            let child = self.child(at, token);
            if child == NONE {
                return;
            }
            if let Some(index) = tail_of(child) {
                let Some(tail) = self.tails.get_mut(index) else { return };
                if *tail.rest != *after.unwrap_or_default() {
                    return;
                }
                tail.here.remove(queue, sub);
                if tail.here.is_empty() {
                    tail.rest = Short::from(&[][..]);
                    self.free_tails.push(child);
                    self.unlink(at, token);
                }
                break;
            }
            (at, depth) = (child, depth + 1);
            match after {
                Some(after) => rest = after,
                None => {
                    if let Some(node) = self.nodes.get_mut(child as usize) {
                        node.here.remove(queue, sub);
                    }
                    break;
                }
            }
        }
        self.prune(at, subject, depth);
    }

    /// Removes the node `at` and those above it that are of no use any more. It is `depth`
    /// tokens of `subject` down.
    fn prune(&mut self, mut at: NodeId, subject: &[u8], depth: usize) {
        let path: Vec<&[u8]> = tokens(subject).take(depth).collect();
        for token in path.into_iter().rev() {
            let Some(node) = self.nodes.get(at as usize) else { return };
            if !node.is_unused() {
                return;
            }
            let parent = node.parent;
            self.unlink(parent, token);
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
        let (mut at, mut rest) = (ROOT, subject);
        let here = loop {
            let (token, after) = split(rest);
            let child = self.child(at, token);
            if let Some(index) = tail_of(child) {
                let tail = self.tails.get(index);
                let same = |tail: &&Tail| *tail.rest == *after.unwrap_or_default();
                break tail.filter(same).map(|tail| &tail.here);
            }
            match after {
                Some(after) if child != NONE => (at, rest) = (child, after),
                _ => break self.nodes.get(child as usize).map(|node| &node.here),
            }
        };
        here.map_or((&[], &[]), |here| (here.plain.as_slice(), &here.queues))
    }

    fn is_empty(&self) -> bool {
        self.nodes.get(ROOT as usize).is_none_or(Node::is_unused)
    }

    fn collect(&self, subject: &[u8], matches: &mut Matches) {
        // A depth-first walk with a stack of its own: (node, rest of the subject). The stack
        // never holds more than one entry a level, because of the two ways on from a node
        // one is followed at once.
        let mut stack: Vec<(NodeId, &[u8])> = Vec::new();
        let mut next = Some((ROOT, subject));
        while let Some((at, rest)) = next.take().or_else(|| stack.pop()) {
            let Some(node) = self.nodes.get(at as usize) else { continue };
            let (token, after) = split(rest);
            if token.is_empty() {
                // No subscription has an empty token, so nothing was collected either.
                return;
            }
            // Looked up before anything is followed: the two wait for memory at once.
            let literal = if node.children > 0 { self.literal_child(at, token) } else { NONE };
            if node.full != NONE
                && let Some(full) = tail_of(node.full).and_then(|index| self.tails.get(index))
                && after.is_none_or(|after| !has_empty_token(after))
            {
                full.here.take(matches);
            }
            if let Some(way) = self.follow(node.star, after, matches) {
                stack.push(way);
            }
            next = self.follow(literal, after, matches);
        }
    }

    /// Takes what a child has for the rest of a subject, or says where to go on.
    #[inline]
    fn follow<'a>(
        &self,
        child: Child,
        after: Option<&'a [u8]>,
        matches: &mut Matches,
    ) -> Option<(NodeId, &'a [u8])> {
        if child == NONE {
            return None;
        }
        if let Some(index) = tail_of(child) {
            let tail = self.tails.get(index)?;
            let fits = match (&*tail.rest, after) {
                ([], None) => true,
                ([], Some(_)) | (_, None) => false,
                (rest, Some(after)) => {
                    crate::subject::matches(after, rest) && !has_empty_token(after)
                }
            };
            if fits {
                tail.here.take(matches);
            }
            return None;
        }
        if after.is_none() {
            self.nodes.get(child as usize)?.here.take(matches);
        }
        after.map(|after| (child, after))
    }

    fn edge_hash(&self, parent: NodeId, token: &[u8]) -> u64 {
        edge_hash(&self.hasher, parent, token)
    }

    fn literal_child(&self, parent: NodeId, token: &[u8]) -> Child {
        self.edges
            .find(self.edge_hash(parent, token), |edge| {
                edge.parent == parent && *edge.token == *token
            })
            .map_or(NONE, |edge| edge.child)
    }

    fn child(&self, parent: NodeId, token: &[u8]) -> Child {
        match token {
            b"*" => self.nodes.get(parent as usize).map_or(NONE, |node| node.star),
            b">" => self.nodes.get(parent as usize).map_or(NONE, |node| node.full),
            token => self.literal_child(parent, token),
        }
    }

    fn add_node(&mut self, parent: NodeId) -> NodeId {
        if let Some(id) = self.free.pop() {
            if let Some(node) = self.nodes.get_mut(id as usize) {
                *node = Node::new(parent);
            }
            return id;
        }
        self.nodes.push(Node::new(parent));
        NodeId::try_from(self.nodes.len() - 1).unwrap_or(NONE)
    }

    fn add_tail(&mut self, tail: Tail) -> Child {
        if let Some(id) = self.free_tails.pop() {
            if let Some(place) = tail_of(id).and_then(|index| self.tails.get_mut(index)) {
                *place = tail;
            }
            return id;
        }
        self.tails.push(tail);
        Child::try_from(self.tails.len() - 1).map_or(NONE, |index| index | TAIL)
    }

    /// Hangs a child under a token that had none.
    fn link(&mut self, parent: NodeId, token: &[u8], child: Child) {
        let hash = self.edge_hash(parent, token);
        let Some(node) = self.nodes.get_mut(parent as usize) else { return };
        match token {
            b"*" => node.star = child,
            b">" => node.full = child,
            token => {
                node.children += 1;
                let hasher = &self.hasher;
                let edge = Edge { parent, token: Short::from(token), child };
                self.edges
                    .insert_unique(hash, edge, |edge| edge_hash(hasher, edge.parent, &edge.token));
            }
        }
    }

    /// Puts another child under a token that has one.
    fn relink(&mut self, parent: NodeId, token: &[u8], child: Child) {
        let hash = self.edge_hash(parent, token);
        let Some(node) = self.nodes.get_mut(parent as usize) else { return };
        match token {
            b"*" => node.star = child,
            b">" => node.full = child,
            token => {
                let is_it = |edge: &Edge| edge.parent == parent && *edge.token == *token;
                if let Some(edge) = self.edges.find_mut(hash, is_it) {
                    edge.child = child;
                }
            }
        }
    }

    fn unlink(&mut self, parent: NodeId, token: &[u8]) {
        let hash = self.edge_hash(parent, token);
        let Some(node) = self.nodes.get_mut(parent as usize) else { return };
        match token {
            b"*" => node.star = NONE,
            b">" => node.full = NONE,
            token => {
                let is_it = |edge: &Edge| edge.parent == parent && *edge.token == *token;
                if let Ok(entry) = self.edges.find_entry(hash, is_it) {
                    entry.remove();
                    node.children -= 1;
                }
            }
        }
    }
}

/// The first token, and what follows its dot.
fn split(subject: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'.', subject) {
        Some(dot) => {
            let (token, rest) = subject.split_at(dot);
            (token, rest.get(1..))
        }
        None => (subject, None),
    }
}

fn edge_hash(hasher: &FixedState, parent: NodeId, token: &[u8]) -> u64 {
    hasher.hash_one((parent, token))
}

fn has_empty_token(subject: &[u8]) -> bool {
    tokens(subject).any(<[u8]>::is_empty)
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
            assert_eq!(interest.free_tails.len(), interest.tails.len());
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
