//! Accounts as they are declared: limits, exports, imports and mappings.
//!
//! Owns the declarations, whether they come from a configuration file or from an account's
//! claims. Does not own what they do: the broker keeps an account's interest and moves
//! messages between accounts.
//!
//! Source: NATS docs, "Multi Tenancy using Accounts", "Subject Mapping and Partitioning".

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

use super::permissions::Permissions;
use crate::time::Duration;

/// The account of everybody who is put in no other.
pub const GLOBAL: &str = "$G";

/// The system account unless another is chosen.
pub const SYSTEM: &str = "$SYS";

/// One account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Its name, unique in a server.
    pub name: String,
    /// Its public key, when it has one.
    pub nkey: Option<String>,
    /// Bounds for its clients.
    pub limits: AccountLimits,
    /// `JetStream`, if it has it.
    pub jetstream: Option<JetStreamAccountLimits>,
    /// For users without permissions of their own.
    pub default_permissions: Option<Rc<Permissions>>,
    /// What others may import.
    pub exports: Vec<Export>,
    /// What it takes from others.
    pub imports: Vec<Import>,
    /// Where messages on a subject go instead, in the order they were written.
    pub mappings: Vec<Mapping>,
    /// Where traces of messages with a sampled `traceparent` go.
    pub trace: Option<MessageTrace>,
}

impl Account {
    /// An account of this name with nothing declared.
    pub fn named(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}

/// Bounds of one account; `None` is without limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountLimits {
    /// Clients and leaf connections at a time.
    pub max_connections: Option<u32>,
    /// Subscriptions of one connection.
    pub max_subscriptions: Option<u32>,
    /// Header and payload of one message, in bytes.
    pub max_payload: Option<u32>,
    /// Leaf connections at a time.
    pub max_leafnodes: Option<u32>,
}

/// What an account may store; `None` is without limit. Names as in nats-server's
/// `accounts { X { jetstream { } } }`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JetStreamAccountLimits {
    /// Bytes in memory, all streams together.
    pub max_memory: Option<u64>,
    /// Bytes on disk, all streams together.
    pub max_store: Option<u64>,
    /// Streams.
    pub max_streams: Option<u32>,
    /// Consumers of one stream.
    pub max_consumers: Option<u32>,
    /// Must a stream say `max_bytes`?
    pub max_bytes_required: bool,
    /// Largest `max_bytes` of a stream in memory.
    pub memory_max_stream_bytes: Option<u64>,
    /// Largest `max_bytes` of a stream on disk.
    pub store_max_stream_bytes: Option<u64>,
    /// Largest `max_ack_pending` of a consumer.
    pub max_ack_pending: Option<u32>,
}

/// Something other accounts may import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The subject, wildcards allowed.
    pub subject: String,
    /// Messages or a service.
    pub kind: ExportKind,
    /// The accounts that may import it; `None` is every account.
    pub accounts: Option<Vec<String>>,
    /// The token of `subject`, from 1, that must be the importer's name.
    pub account_token_position: Option<u16>,
    /// May a trace go on behind it?
    pub allow_trace: bool,
}

/// Which way messages of an export flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportKind {
    /// From the exporter to the importer.
    Stream,
    /// Requests from the importer, answers from the exporter.
    Service {
        /// How many answers a request has.
        response: ResponseType,
        /// How long answers may take. Default 2 minutes.
        threshold: Option<Duration>,
        /// Sampling of how long they take.
        latency: Option<Latency>,
    },
}

/// How many answers a service gives to one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResponseType {
    /// One.
    #[default]
    Singleton,
    /// Many, until an empty one.
    Stream,
    /// One in many pieces, until an empty one.
    Chunked,
}

/// Latency sampling of a service export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latency {
    /// Where the measurements are published, in the exporter's account.
    pub subject: String,
    /// Which requests are measured.
    pub sampling: Sampling,
}

/// Which requests are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampling {
    /// This share, 1 to 100 per cent.
    Percent(u8),
    /// Those whose tracing headers ask for it.
    Headers,
}

/// Something an account takes from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The exporter's name.
    pub account: String,
    /// The subject in the exporter's account.
    pub subject: String,
    /// The subject in the importer's account, in transform syntax (`$1`, `{{wildcard(1)}}`);
    /// the same as `subject` unless given. A stream import's `prefix` P is `P.subject`.
    pub to: Option<String>,
    /// Messages or a service.
    pub kind: ImportKind,
}

/// What is imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportKind {
    /// Messages.
    Stream {
        /// May a trace go on behind it?
        allow_trace: bool,
    },
    /// A service.
    Service {
        /// Does the exporter see who asks?
        share: bool,
    },
}

/// Where messages published on a subject go instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The published subject, wildcards allowed.
    pub subject: String,
    /// One of these, by weight.
    pub destinations: Vec<Destination>,
}

/// One destination of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The new subject, in transform syntax.
    pub subject: String,
    /// Share of the messages in per cent, 0 to 100.
    pub weight: u8,
    /// Only in the cluster of this name.
    pub cluster: Option<String>,
}

/// `msg_trace` of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageTrace {
    /// Where trace events are published.
    pub dest: String,
    /// Share of the messages in per cent, 1 to 100.
    pub sampling: u8,
}
