//! Streams in memory: which requests stay in the process.
//!
//! Owns the routing of requests to the engine in memory. Does not own the messages: the
//! engine does.
//!
//! # Invariants
//! - A stream is in memory from its create request to its delete request.
//! - Replies wait for [`Memory::poll_reply`]; nothing is called back from [`Memory::take`].

use alloc::collections::BTreeSet;

use crate::id::StreamId;
use crate::jetstream::engine::MemStore;
use crate::jetstream::storage::{StoreReply, StoreRequest};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Memory {
    streams: BTreeSet<StreamId>,
    store: MemStore,
    /// There may be replies.
    waiting: bool,
}

impl Memory {
    /// Applies the request if its stream is in memory; else gives it back. A publish goes by
    /// its first item: batches for memory and for the file are gathered apart.
    pub(super) fn take(&mut self, request: StoreRequest) -> Option<StoreRequest> {
        let stream = match &request {
            StoreRequest::CreateStream { stream, settings, .. } => {
                if settings.memory {
                    self.streams.insert(*stream);
                }
                *stream
            }
            StoreRequest::Publish(batch) => batch.items.first()?.stream,
            StoreRequest::UpdateStream { stream, .. }
            | StoreRequest::DeleteStream { stream, .. }
            | StoreRequest::Purge { stream, .. }
            | StoreRequest::DeleteMsg { stream, .. }
            | StoreRequest::Settle { stream, .. }
            | StoreRequest::Expire { stream, .. }
            | StoreRequest::Restore { stream, .. }
            | StoreRequest::PutConsumer { stream, .. }
            | StoreRequest::DeleteConsumer { stream, .. }
            | StoreRequest::Read { stream, .. }
            | StoreRequest::Get { stream, .. }
            | StoreRequest::Count { stream, .. }
            | StoreRequest::LastPerSubject { stream, .. }
            | StoreRequest::Subjects { stream, .. }
            | StoreRequest::Deleted { stream, .. } => *stream,
        };
        if !self.streams.contains(&stream) {
            return Some(request);
        }
        if matches!(request, StoreRequest::DeleteStream { .. }) {
            self.streams.remove(&stream);
        }
        self.store.apply(request);
        self.waiting = true;
        None
    }

    /// The next reply, oldest first.
    pub(super) fn poll_reply(&mut self) -> Option<StoreReply> {
        let reply = self.store.poll_reply();
        self.waiting = reply.is_some();
        reply
    }

    /// May there be replies?
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting
    }
}
