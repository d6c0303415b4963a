//! What JetStream shows of itself to the monitoring pages.
//!
//! Owns numbers and JSON of streams and consumers that no API request asked for. Changes
//! nothing.

use alloc::vec::Vec;

use super::JetStream;
use super::stream::Stream;

/// Numbers of the streams of an account, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Bytes in memory streams.
    pub memory: u64,
    /// Bytes in file streams.
    pub storage: u64,
    /// Promised to memory streams by `max_bytes`.
    pub reserved_memory: u64,
    /// Promised to file streams by `max_bytes`.
    pub reserved_storage: u64,
    /// Streams.
    pub streams: usize,
    /// Consumers.
    pub consumers: usize,
    /// Messages in all streams.
    pub messages: u64,
    /// Requests of the API.
    pub api_total: u64,
    /// Of these, refused.
    pub api_errors: u64,
}

impl Numbers {
    /// Adds those of another account.
    pub fn add(&mut self, other: &Numbers) {
        self.memory += other.memory;
        self.storage += other.storage;
        self.reserved_memory = self.reserved_memory.saturating_add(other.reserved_memory);
        self.reserved_storage = self.reserved_storage.saturating_add(other.reserved_storage);
        self.streams += other.streams;
        self.consumers += other.consumers;
        self.messages += other.messages;
        self.api_total += other.api_total;
        self.api_errors += other.api_errors;
    }
}

impl JetStream {
    /// Numbers of all streams together.
    pub fn numbers(&self) -> Numbers {
        let mut numbers = Numbers {
            memory: self.usage.memory,
            storage: self.usage.file,
            streams: self.streams.len(),
            consumers: self.consumers_total(),
            api_total: self.api.total,
            api_errors: self.api.errors,
            ..Numbers::default()
        };
        for stream in self.streams.values() {
            numbers.messages += stream.state.messages;
            let promised = u64::try_from(stream.config.max_bytes).unwrap_or(0);
            let sum = if stream.memory {
                &mut numbers.reserved_memory
            } else {
                &mut numbers.reserved_storage
            };
            *sum = sum.saturating_add(promised);
        }
        numbers
    }

    /// The streams, by name.
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "only monitoring asks"))]
    pub(crate) fn streams_by_name(&self) -> impl Iterator<Item = &Stream> {
        self.names.values().filter_map(|id| self.streams.get(id))
    }

    /// Consumers of a stream that clients made.
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "only monitoring asks"))]
    pub(crate) fn consumers_shown(&self, stream: &Stream) -> usize {
        self.consumer_count(stream.id)
    }

    /// A stream's configuration, JSON.
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "only monitoring asks"))]
    pub(crate) fn config_json(stream: &Stream) -> Vec<u8> {
        serde_json::to_vec(&stream.config).unwrap_or_default()
    }

    /// Is there a stream of this name?
    pub fn has_stream_named(&self, name: &str) -> bool {
        self.stream_by_name(name.as_bytes()).is_some()
    }

    /// Why the store does not work, as long as it does not.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// What it was told at its start.
    pub fn settings(&self) -> &super::options::Options {
        &self.options
    }
}
