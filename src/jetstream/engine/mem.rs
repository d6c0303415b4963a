//! Memory streams: the engine over rows in memory.

use alloc::collections::VecDeque;
use alloc::vec;

use super::rows::MemRows;
use super::{ApplyOptions, answer, apply, is_read, refuse, replies};
use crate::jetstream::storage::{StoreReply, StoreRequest};

/// A store without a disk. Replies wait until they are polled, so that whoever applies a
/// request is never called back in the middle of it.
#[derive(Debug, Default)]
pub struct MemStore {
    rows: MemRows,
    replies: VecDeque<StoreReply>,
}

impl MemStore {
    /// An empty one. Unlike a store on disk it does not begin with
    /// [`StoreReply::Recovered`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Applies one request at once.
    pub fn apply(&mut self, request: StoreRequest) {
        if is_read(&request) {
            self.replies.extend(answer(&self.rows, &request));
            return;
        }
        let requests = vec![request];
        match apply(&mut self.rows, &requests, &ApplyOptions::default()) {
            Ok(applied) => self.replies.extend(replies(requests, applied)),
            // Rows in memory do not fail, and are not damaged unless the engine has a bug.
            Err(error) => self.replies.extend(refuse(requests, &error.error)),
        }
    }

    /// The next reply, oldest first.
    pub fn poll_reply(&mut self) -> Option<StoreReply> {
        self.replies.pop_front()
    }
}
