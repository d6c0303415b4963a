//! Streams: what one is, and what may be waiting for the store on its behalf.
//!
//! Owns [`Stream`]. Its configuration is `config`, its endpoints are `api`, `info` and
//! `direct`.

pub(crate) mod config;

use alloc::string::String;

use crate::id::StreamId;
use crate::jetstream::storage::StreamState;
use crate::jetstream::tail::Tail;
use crate::time::Timestamp;
pub(crate) use config::StreamConfig;

/// A stream, as the core knows it. Its messages are with the store.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Its id in the store.
    pub(crate) id: StreamId,
    /// Unique in the account.
    pub(crate) name: String,
    /// Normalised.
    pub(crate) config: StreamConfig,
    /// When it was created.
    pub(crate) created: Timestamp,
    /// As of the last reply of the store.
    pub(crate) state: StreamState,
    /// Its newest messages, while it has a consumer.
    pub(crate) tail: Tail,
}

/// A request about a stream that waits for the store.
#[derive(Debug)]
pub(crate) enum Pending {}
