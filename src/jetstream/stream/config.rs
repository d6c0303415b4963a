//! The configuration of a stream.
//!
//! Owns its fields, defaults, rules and texts.

use alloc::string::String;
use alloc::vec::Vec;

/// What removes messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Retention {
    /// Only limits.
    #[default]
    Limits,
    /// Also when every interested consumer has acknowledged.
    Interest,
    /// Also when one consumer has acknowledged.
    WorkQueue,
}

/// Caps and defaults for consumers. 0: none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConsumerLimits {
    /// Nanoseconds.
    pub(crate) inactive_threshold: i64,
    /// Messages.
    pub(crate) max_ack_pending: i64,
}

/// See the module. Numbers are as in JSON: -1 stands for no limit, durations are
/// nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamConfig {
    /// Unique in the account.
    pub(crate) name: String,
    /// What it captures.
    pub(crate) subjects: Vec<String>,
    /// What removes messages.
    pub(crate) retention: Retention,
    /// Consumers at once.
    pub(crate) max_consumers: i64,
    /// In memory instead of in the file.
    pub(crate) memory: bool,
    /// For consumers.
    pub(crate) consumer_limits: ConsumerLimits,
}
