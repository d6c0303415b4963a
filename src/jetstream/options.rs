//! What the operator decided about JetStream.
//!
//! Owns plain values with nats-server's defaults. Does not own their syntax: `config` reads
//! the file and fills this in.

use alloc::string::String;

use crate::limits;
use crate::time::Duration;

/// The `jetstream{}` section, resolved.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name in `$JS.<domain>.API.…`; shown in acks, infos and advisories.
    pub domain: Option<String>,
    /// The directory, for messages to the operator; empty without files.
    pub store_dir: String,
    /// Logical bytes of all memory streams together. `None`: no limit.
    pub max_memory: Option<u64>,
    /// Logical bytes of all file streams together. `None`: no limit.
    pub max_storage: Option<u64>,
    /// Refuse unknown fields in requests.
    pub strict: bool,
    /// Commits happen at the pace of `sync_interval`, acks do not wait for them.
    pub relaxed: bool,
    /// The account JetStream works for.
    pub account: String,
    /// Shown as `leader` and as `server` in advisories.
    pub server_name: String,
    /// Shown as `_nats.ver`: the release of nats-server we are compatible with.
    pub version: String,
    /// `max_payload` of the account.
    pub max_payload: u64,
    /// Caps on what streams and consumers may ask for.
    pub limits: Limits,
    /// What the account may have of all that.
    pub account_limits: AccountLimits,
}

/// What one account may store. `None`: no limit but the server's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountLimits {
    /// Logical bytes in memory.
    pub max_memory: Option<u64>,
    /// Logical bytes on disk.
    pub max_storage: Option<u64>,
    /// Streams.
    pub max_streams: Option<u32>,
    /// Consumers of one stream.
    pub max_consumers: Option<u32>,
    /// Must a stream say `max_bytes`?
    pub max_bytes_required: bool,
    /// `max_bytes` of a stream in memory.
    pub memory_max_stream_bytes: Option<u64>,
    /// `max_bytes` of a stream on disk.
    pub storage_max_stream_bytes: Option<u64>,
    /// `max_ack_pending` of a consumer, and its default.
    pub max_ack_pending: Option<u32>,
}

/// The section `limits{}` inside `jetstream{}`. `None`: no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of a consumer.
    pub max_ack_pending: Option<i64>,
    /// Of a pull request, and what `max_batch` of a consumer may be.
    pub max_request_batch: Option<i64>,
    /// Of a stream; also its default when below two minutes.
    pub duplicate_window: Option<Duration>,
    /// Of atomic batches.
    pub batch: BatchLimits,
}

/// What batches may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// At a time, of one stream.
    pub max_per_stream: u64,
    /// At a time.
    pub max_total: u64,
    /// Messages of one.
    pub max_msgs: u64,
    /// One nobody goes on with is given up after this.
    pub timeout: Duration,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self {
            max_per_stream: limits::BATCHES_PER_STREAM_MAX,
            max_total: limits::BATCHES_MAX,
            max_msgs: limits::BATCH_MSGS_MAX,
            timeout: limits::BATCH_TIMEOUT,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            domain: None,
            store_dir: String::new(),
            max_memory: None,
            max_storage: None,
            strict: true,
            relaxed: false,
            account: "$G".into(),
            server_name: "sedge".into(),
            version: "2.15.1".into(),
            max_payload: limits::PAYLOAD_BYTES_MAX as u64,
            limits: Limits::default(),
            account_limits: AccountLimits::default(),
        }
    }
}

impl Options {
    /// The window for `Nats-Msg-Id` of a stream that names none.
    pub fn duplicate_window(&self) -> Duration {
        self.limits.duplicate_window.map_or(limits::DUPLICATE_WINDOW, |cap| {
            if cap.is_zero() { limits::DUPLICATE_WINDOW } else { cap.min(limits::DUPLICATE_WINDOW) }
        })
    }
}
