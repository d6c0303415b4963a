//! Leaf connections in the broker: interest and messages across them.
//!
//! Owns what a leaf peer subscribed to, and which leaf connections a message under way must
//! cross. The handshake and the dial policy are in `crate::leaf`.

use alloc::vec::Vec;

use super::Broker;
use super::core::{Core, Msg, Origin};
use super::interest::SubId;
use crate::id::ConnId;
use crate::time::Now;

/// A leaf connection's state.
#[derive(Debug, Default)]
pub(super) struct Leaf {
    subs: Vec<SubId>,
}

impl Leaf {
    /// All subscriptions of the peer, which it then has no more.
    pub(super) fn take_subs(&mut self) -> Vec<SubId> {
        core::mem::take(&mut self.subs)
    }
}

/// The leaf connections one message must cross, with the queue groups chosen behind each.
#[derive(Debug, Default)]
pub(super) struct LeafHits {
    hits: Vec<(u32, Vec<Vec<u8>>)>,
}

impl LeafHits {
    pub(super) fn is_empty(&self) -> bool {
        self.hits.is_empty()
    }

    /// Notes that the message must cross `conn`, for `queue` or for plain interest.
    pub(super) fn add(&mut self, conn: u32, queue: Option<&[u8]>) {
        let queue = queue.map(<[u8]>::to_vec);
        match self.hits.iter_mut().find(|(other, _)| *other == conn) {
            Some((_, queues)) => queues.extend(queue),
            None => self.hits.push((conn, queue.into_iter().collect())),
        }
    }
}

impl Broker {
    pub(super) fn leaf_dialled(
        &mut self,
        _now: Now,
        _remote: u32,
        _attempt: u32,
        _result: Result<&str, &str>,
    ) -> Option<ConnId> {
        None
    }

    pub(super) fn leaf_tls_done(&mut self, _now: Now, _conn: ConnId, _result: Result<(), &str>) {}
}

impl Core {
    /// Local interest came or went: leaf connections may have to hear of it.
    pub(super) fn leaf_interest_changed(
        &mut self,
        _subject: &[u8],
        _queue: &[u8],
        _from_leaf: Option<u32>,
        _added: bool,
    ) {
    }

    /// Sends a message across the leaf connections noted in `leaf_hits`.
    pub(super) fn deliver_to_leafs(&mut self, _origin: Origin<'_>, _msg: &Msg<'_>) -> bool {
        self.leaf_hits.hits.clear();
        false
    }
}
