//! What JetStream asks of a store, and what a store answers.
//!
//! Owns the requests, the replies and the values in them. Does not own how a message is
//! kept: `jetstream::engine` applies requests to tables, `store` puts tables into redb.
//!
//! The contract:
//! - Requests that change something are applied in the order they were emitted. Each gets
//!   one reply, after the commit that holds it is durable (or, with a relaxed
//!   `sync_interval`, once it is applied). A publish is visible to reads from then on.
//! - Reads see the newest committed state; they may overtake changes that are still queued.
//! - The first reply of all is [`StoreReply::Recovered`].
//!
//! # Invariants
//! - Sequences of one stream only grow, also across a crash: a sequence that any reply has
//!   named is never given to another message.
//! - Timestamps of one stream never go backwards; the engine raises a late one.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use crate::id::{AccountId, StreamId};
use crate::subject::Filter;
use crate::time::{Duration, Timestamp};

/// Position of a message in a stream, from 1. 0 stands for "none" where a field says so.
pub type Seq = u64;

/// Chosen by the asker, returned in the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub u64);

impl Token {
    /// The `number`th of an account. Numbers are counted, so 48 bits are enough for ever.
    pub fn new(account: AccountId, number: u64) -> Self {
        Self(u64::from(account.0) << 48 | number & ((1 << 48) - 1))
    }

    /// Whose it is.
    pub fn account(self) -> AccountId {
        AccountId(u16::try_from(self.0 >> 48).unwrap_or(u16::MAX))
    }
}

/// The part of a stream's configuration that decides about messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamSettings {
    /// For `Nats-Expected-Stream`.
    pub name: String,
    /// `None`: no limit, as in all options below.
    pub max_msgs: Option<u64>,
    /// Logical bytes, see [`StreamState::bytes`].
    pub max_bytes: Option<u64>,
    /// Per subject.
    pub max_msgs_per_subject: Option<u64>,
    /// Headers and payload together.
    pub max_msg_size: Option<u64>,
    /// Older messages are removed.
    pub max_age: Option<Duration>,
    /// Refuse new messages at a limit instead of removing old ones.
    pub discard_new: bool,
    /// With `discard_new`: also refuse at `max_msgs_per_subject`.
    pub discard_new_per_subject: bool,
    /// Zero: no dedupe by `Nats-Msg-Id`.
    pub duplicate_window: Duration,
    /// `Nats-Rollup` allowed.
    pub allow_rollup: bool,
    /// No publish, purge or delete.
    pub sealed: bool,
    /// Messages in a memory stream cost less: the size formula differs.
    pub memory: bool,
    /// The first sequence of a new stream, when not 0 or 1.
    pub first_seq: Seq,
    /// `Nats-TTL` allowed.
    pub allow_ttl: bool,
    /// How long a marker stays that takes the place of a subject's last message when its
    /// time is up. Zero: there are none.
    pub marker_ttl: Duration,
    /// Messages are increments of counters.
    pub counter: bool,
    /// `Nats-Schedule` allowed.
    pub schedules: Option<Box<Schedules>>,
}

/// What schedules may aim at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedules {
    /// What the stream captures.
    pub subjects: Vec<String>,
}

/// One message in a [`PublishBatch`]. The ranges index [`PublishBatch::data`].
#[derive(Clone, Debug)]
pub struct PublishItem {
    /// The stream that captured it.
    pub stream: StreamId,
    /// When it arrived.
    pub timestamp: Timestamp,
    /// The subject it will be stored under.
    pub subject: Range<u32>,
    /// Where the ack goes; empty: nobody waits for one.
    pub reply: Range<u32>,
    /// The whole header block, `NATS/1.0` line and final blank line included; may be empty.
    pub headers: Range<u32>,
    /// The payload.
    pub payload: Range<u32>,
    /// No consumer wants it and the stream keeps only what one does: it takes a sequence and
    /// is not stored.
    pub unwanted: bool,
    /// Another stream that it was taken from.
    pub origin: Option<Box<Origin>>,
    /// The batch it belongs to.
    pub part: Part,
}

/// How a message depends on others of its [`PublishBatch`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// Not at all.
    #[default]
    Alone,
    /// It is stored together with those after it, up to the next [`Part::AtomicLast`], or
    /// none of them is. All are of one stream.
    Atomic,
    /// The last of such messages.
    AtomicLast,
    /// Of the fast batch with this number, which goes on without what is refused.
    Fast(u32),
    /// Of one that ends where a message is refused: so are all after it.
    FastStrict(u32),
}

/// Where a message was taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The stream is a mirror: the message keeps its sequence and its time.
    Mirror {
        /// Of the message at its origin.
        seq: Seq,
    },
    /// One of several sources.
    Source {
        /// Of the message at its origin.
        seq: Seq,
        /// Of the message before it; it is refused if that one was. [`Seq::MAX`]: it is the
        /// first of a stream that was made anew.
        after: Seq,
        /// By which the store remembers how far it was taken in.
        name: Box<str>,
    },
}

/// Messages for streams of one account, as they came in during one turn, packed into one
/// buffer.
#[derive(Clone, Debug, Default)]
pub struct PublishBatch {
    /// Whose streams they are for.
    pub account: AccountId,
    /// Subjects, replies, headers and payloads.
    pub data: Vec<u8>,
    /// In order of arrival.
    pub items: Vec<PublishItem>,
}

impl StoreReply {
    /// The account that waits for it. `None`: it concerns all, or the one its stream is in.
    pub fn account(&self) -> Option<AccountId> {
        match self {
            Self::Recovered { .. } | Self::Expired { .. } | Self::Health(_) => None,
            Self::Published { batch, .. } => Some(batch.account),
            Self::Done { token, .. }
            | Self::Purged { token, .. }
            | Self::Read { token, .. }
            | Self::Got { token, .. }
            | Self::Counted { token, .. }
            | Self::LastPerSubject { token, .. }
            | Self::Subjects { token, .. }
            | Self::Deleted { token, .. } => Some(token.account()),
        }
    }
}

impl PublishBatch {
    /// Appends one message. Returns false, with nothing changed, if the batch would not fit
    /// 32-bit offsets.
    pub fn push(
        &mut self,
        stream: StreamId,
        timestamp: Timestamp,
        subject: &[u8],
        reply: &[u8],
        headers: &[u8],
        payload: &[u8],
    ) -> bool {
        let total = self.data.len() + subject.len() + reply.len() + headers.len() + payload.len();
        if u32::try_from(total).is_err() {
            return false;
        }
        let mut put = |bytes: &[u8]| {
            let start = u32::try_from(self.data.len()).unwrap_or(u32::MAX);
            self.data.extend_from_slice(bytes);
            start..u32::try_from(self.data.len()).unwrap_or(u32::MAX)
        };
        let (subject, reply) = (put(subject), put(reply));
        let (headers, payload) = (put(headers), put(payload));
        let unwanted = false;
        let origin = None;
        self.items.push(PublishItem {
            stream,
            timestamp,
            subject,
            reply,
            headers,
            payload,
            unwanted,
            origin,
            part: Part::Alone,
        });
        true
    }

    /// The bytes of one range; empty if it does not lie inside.
    pub fn bytes(&self, range: &Range<u32>) -> &[u8] {
        slice(&self.data, range)
    }
}

/// A publish that was not stored, or not anew. Display gives the description of the ack.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError {
    /// 10060: `Nats-Expected-Stream` names another stream.
    ExpectedStream,
    /// 10071: carries the real last sequence of the stream or subject.
    WrongLastSeq(Seq),
    /// 10164: the same inside an atomic batch, where the real one is not known yet.
    WrongLastSeqUnknown,
    /// 10177: a header that has no place in an atomic batch.
    BatchHeader(&'static str),
    /// 10201: a `Nats-Msg-Id` in an atomic batch that is known already.
    BatchMsgId,
    /// 10176: of an atomic batch that is not whole.
    BatchIncomplete,
    /// 10208: of a fast batch that ended before it.
    BatchUnknown,
    /// 10193: `…-Sequence-Subject` without `…-Last-Subject-Sequence`.
    MissingExpectedSeq,
    /// 10070: carries the id of the last message.
    WrongLastMsgId(Vec<u8>),
    /// 10111: rollup not permitted, or a value other than `sub` and `all`.
    Rollup(String),
    /// 10054: over `max_msg_size`.
    TooLarge,
    /// 10097: header block too long.
    HeaderTooLarge,
    /// 10109: the stream is sealed.
    Sealed,
    /// 10077: a limit with `discard: new`, or the disk failed; carries the text.
    StoreFailed(String),
    /// 10165: `Nats-TTL` is not a valid TTL.
    BadTtl,
    /// 10166: `Nats-TTL` where the stream does not allow it.
    TtlDisabled,
    /// 10168 to 10172: about counters.
    Counter(CounterError),
    /// About scheduled messages.
    Schedule(ScheduleError),
    /// 10227: `Nats-Stream-Source` from a client.
    StreamSource,
    /// 10059 in effect: the stream went away while the message was queued.
    NoStream,
}

/// What is wrong with a scheduled message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduleError {
    /// 10188: the stream has no schedules.
    Disabled,
    /// 10189: no pattern, or one that is never due.
    Pattern,
    /// 10190: no subject of the stream, or that of the schedule.
    Target,
    /// 10191: no time to live.
    Ttl,
    /// 10192: another one than `sub`.
    Rollup,
    /// 10203: no subject of the stream, or that of the schedule or its target.
    Source,
    /// 10212: what only a schedule says, or the end of what is none.
    Scheduler,
    /// 10223: a time zone that is not known.
    Zone,
}

/// What is wrong with an increment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CounterError {
    /// 10168: the stream has no counters.
    Disabled,
    /// 10169: it has nothing else.
    Missing,
    /// 10170: an increment has no payload.
    Payload,
    /// 10171: no whole number, or together with what makes no sense for counters.
    Invalid,
    /// 10172: the total stored on the subject is none.
    Broken,
}

impl PublishError {
    /// `(err_code, code)` of the ack's error object.
    ///
    /// Source: `jetstream-errors.json` of nats-server 2.15.1.
    pub fn codes(&self) -> (u16, u16) {
        match self {
            Self::ExpectedStream => (10060, 400),
            Self::WrongLastSeq(_) => (10071, 400),
            Self::WrongLastSeqUnknown => (10164, 400),
            Self::BatchHeader(_) => (10177, 400),
            Self::BatchMsgId => (10201, 400),
            Self::BatchIncomplete => (10176, 400),
            Self::BatchUnknown => (10208, 400),
            Self::MissingExpectedSeq => (10193, 400),
            Self::WrongLastMsgId(_) => (10070, 400),
            Self::Rollup(_) => (10111, 500),
            Self::TooLarge => (10054, 400),
            Self::HeaderTooLarge => (10097, 400),
            Self::Sealed => (10109, 400),
            Self::StoreFailed(_) => (10077, 503),
            Self::BadTtl => (10165, 400),
            Self::TtlDisabled => (10166, 400),
            Self::Counter(error) => match error {
                CounterError::Disabled => (10168, 400),
                CounterError::Missing => (10169, 400),
                CounterError::Payload => (10170, 400),
                CounterError::Invalid => (10171, 400),
                CounterError::Broken => (10172, 400),
            },
            Self::Schedule(error) => match error {
                ScheduleError::Disabled => (10188, 400),
                ScheduleError::Pattern => (10189, 400),
                ScheduleError::Target => (10190, 400),
                ScheduleError::Ttl => (10191, 400),
                ScheduleError::Rollup => (10192, 400),
                ScheduleError::Source => (10203, 400),
                ScheduleError::Scheduler => (10212, 400),
                ScheduleError::Zone => (10223, 400),
            },
            Self::StreamSource => (10227, 400),
            Self::NoStream => (10059, 404),
        }
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExpectedStream => f.write_str("expected stream does not match"),
            Self::WrongLastSeq(seq) => write!(f, "wrong last sequence: {seq}"),
            Self::WrongLastSeqUnknown => f.write_str("wrong last sequence"),
            Self::BatchHeader(name) => {
                write!(f, "atomic publish unsupported header used: {name}")
            }
            Self::BatchMsgId => f.write_str("atomic publish batch contains duplicate message id"),
            Self::BatchIncomplete => f.write_str("atomic publish batch is incomplete"),
            Self::BatchUnknown => f.write_str("batch publish ID unknown"),
            Self::MissingExpectedSeq => {
                f.write_str("missing sequence for expected last sequence per subject")
            }
            Self::WrongLastMsgId(id) => {
                write!(f, "wrong last msg ID: {}", String::from_utf8_lossy(id))
            }
            Self::Rollup(text) | Self::StoreFailed(text) => f.write_str(text),
            Self::TooLarge => f.write_str("message size exceeds maximum allowed"),
            Self::HeaderTooLarge => f.write_str("header size exceeds maximum allowed of 64k"),
            Self::Sealed => f.write_str("invalid operation on sealed stream"),
            Self::BadTtl => f.write_str("invalid per-message TTL"),
            Self::TtlDisabled => f.write_str("per-message TTL is disabled"),
            Self::Counter(error) => f.write_str(match error {
                CounterError::Disabled => "message counters is disabled",
                CounterError::Missing => "message counter increment is missing",
                CounterError::Payload => "message counter has payload",
                CounterError::Invalid => "message counter increment is invalid",
                CounterError::Broken => "message counter is broken",
            }),
            Self::Schedule(error) => f.write_str(match error {
                ScheduleError::Disabled => "message schedules is disabled",
                ScheduleError::Pattern => "message schedules pattern is invalid",
                ScheduleError::Target => "message schedules target is invalid",
                ScheduleError::Ttl => "message schedules invalid per-message TTL",
                ScheduleError::Rollup => "message schedules invalid rollup",
                ScheduleError::Source => "message schedules source is invalid",
                ScheduleError::Scheduler => "message schedules invalid scheduler",
                ScheduleError::Zone => "message schedules time zone is invalid",
            }),
            Self::StreamSource => f.write_str("message stream source header is not allowed"),
            Self::NoStream => f.write_str("stream not found"),
        }
    }
}

/// What became of one [`PublishItem`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishOutcome {
    /// Stored. `headers` of the stored message are those of the item with a status line cut
    /// to `NATS/1.0`; `timestamp` is the stored one.
    Stored {
        /// Its sequence.
        seq: Seq,
        /// Its time, never before that of the message ahead of it.
        timestamp: Timestamp,
        /// The newest message on its subject before it; 0 if there was none.
        before: Seq,
        /// What is stored, where that is not what was sent.
        changed: Option<Box<Changed>>,
    },
    /// Not stored because nobody wants it; it took this sequence.
    Skipped {
        /// The sequence.
        seq: Seq,
    },
    /// Not stored again: `Nats-Msg-Id` was seen within the window, on this sequence.
    Duplicate {
        /// Of the first one.
        seq: Seq,
    },
    /// Not stored.
    Refused(Box<PublishError>),
}

/// A message that the stream changed before it stored it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// The whole header block.
    pub headers: Vec<u8>,
    /// The payload.
    pub payload: Vec<u8>,
    /// The total of the counter, for the ack.
    pub total: Option<Box<str>>,
}

/// Numbers of one stream after a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamState {
    /// Messages that exist.
    pub messages: u64,
    /// Logical size: per message, file: 30 + subject + payload (+ 4 + headers if any);
    /// memory: 16 + subject + headers + payload.
    pub bytes: u64,
    /// First existing sequence; with no messages, last + 1 (0 for a stream never written).
    pub first_seq: Seq,
    /// Time of the first message, `Timestamp(0)` without messages.
    pub first_ts: Timestamp,
    /// The last sequence given out.
    pub last_seq: Seq,
    /// Its time; kept when the message is removed.
    pub last_ts: Timestamp,
    /// Distinct subjects with at least one message.
    pub num_subjects: u64,
    /// When the oldest message will have reached `max_age`, or one its own end.
    pub next_expiry: Option<Timestamp>,
}

/// Messages that went away in a commit: by limits, age, rollup, delete or purge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Removed {
    /// Nothing.
    #[default]
    None,
    /// These, ascending, with their subjects. At most [`REMOVED_LIST_MAX`].
    Some(Vec<(Seq, Box<[u8]>)>),
    /// Too many to list, all within this inclusive range; whoever counts must count anew.
    Many {
        /// Lowest sequence that may be gone.
        first: Seq,
        /// Highest sequence that may be gone.
        last: Seq,
    },
}

/// Longest list in [`Removed::Some`].
pub const REMOVED_LIST_MAX: usize = 4096;

/// News of one stream touched by a commit.
#[derive(Clone, Debug)]
pub struct StreamUpdate {
    /// Which stream.
    pub stream: StreamId,
    /// Its numbers now.
    pub state: StreamState,
    /// What left it.
    pub removed: Removed,
}

/// One stored message inside a [`Chunk`]. The ranges index [`Chunk::data`].
#[derive(Clone, Debug)]
pub struct StoredMsg {
    /// Its sequence.
    pub seq: Seq,
    /// Its time.
    pub timestamp: Timestamp,
    /// Stored subject.
    pub subject: Range<u32>,
    /// Whole header block or empty.
    pub headers: Range<u32>,
    /// Payload.
    pub payload: Range<u32>,
}

/// Messages of one stream in ascending order.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    /// Subjects, headers, payloads.
    pub data: Vec<u8>,
    /// The messages.
    pub msgs: Vec<StoredMsg>,
}

impl Chunk {
    /// The bytes of one range; empty if it does not lie inside.
    pub fn bytes(&self, range: &Range<u32>) -> &[u8] {
        slice(&self.data, range)
    }
}

fn slice<'a>(data: &'a [u8], range: &Range<u32>) -> &'a [u8] {
    let (Ok(start), Ok(end)) = (usize::try_from(range.start), usize::try_from(range.end)) else {
        return &[];
    };
    data.get(start..end).unwrap_or(&[])
}

/// Which message a [`StoreRequest::Get`] means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GetBy {
    /// Exactly this one.
    Seq(Seq),
    /// The newest on a matching subject.
    LastBySubject(Filter),
    /// The first at or after `from` on a matching subject.
    NextBySubject {
        /// Subject pattern.
        filter: Filter,
        /// Lowest sequence.
        from: Seq,
    },
    /// The first with a time at or after this one.
    StartTime(Timestamp),
}

/// What to purge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purge {
    /// Only messages on matching subjects.
    pub filter: Option<Filter>,
    /// Only messages before this sequence.
    pub before: Option<Seq>,
    /// Keep the newest n (of the filter).
    pub keep: Option<u64>,
}

/// A consumer's stored record, opaque to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerRecord {
    /// Unique within its stream.
    pub name: String,
    /// Postcard behind a version byte, see `docs/storage-format.md`.
    pub record: Vec<u8>,
}

/// What JetStream wants done.
#[derive(Clone, Debug)]
pub enum StoreRequest {
    /// A new stream, empty.
    CreateStream {
        /// Returned in [`StoreReply::Done`].
        token: Token,
        /// Never used before.
        stream: StreamId,
        /// What decides about messages.
        settings: StreamSettings,
        /// The configuration, opaque to the store.
        record: Vec<u8>,
    },
    /// New settings; limits are enforced at once.
    UpdateStream {
        /// Returned in [`StoreReply::Done`].
        token: Token,
        /// Which stream.
        stream: StreamId,
        /// Replaces the old.
        settings: StreamSettings,
        /// Replaces the old.
        record: Vec<u8>,
    },
    /// Removes a stream, its messages and consumers.
    DeleteStream {
        /// Returned in [`StoreReply::Done`].
        token: Token,
        /// Which stream.
        stream: StreamId,
    },
    /// Stores messages. Answered by [`StoreReply::Published`], which gives the batch back.
    Publish(PublishBatch),
    /// Removes many. Answered by [`StoreReply::Purged`].
    Purge {
        /// Returned.
        token: Token,
        /// Which stream.
        stream: StreamId,
        /// What to remove.
        purge: Purge,
    },
    /// Removes one. Answered by [`StoreReply::Done`]; `found` is false if there is none.
    DeleteMsg {
        /// Returned.
        token: Token,
        /// Which stream.
        stream: StreamId,
        /// Which message.
        seq: Seq,
        /// Overwrite the bytes, do not only unlink.
        erase: bool,
    },
    /// Removes messages that nobody needs any more. Answered by [`StoreReply::Done`].
    Settle {
        /// Returned.
        token: Token,
        /// Which stream.
        stream: StreamId,
        /// Which messages; those that do not exist are no mistake.
        seqs: Arc<[Seq]>,
    },
    /// Removes what is older than `max_age`, or whose own time is up, at `now`. Answered by
    /// [`StoreReply::Expired`].
    Expire {
        /// Which stream.
        stream: StreamId,
        /// The wall clock.
        now: Timestamp,
    },
    /// Appends messages as they were in another stream, without checks: their sequences and
    /// times rise, and what is skipped counts as removed. Answered by [`StoreReply::Done`].
    Restore {
        /// Returned.
        token: Token,
        /// Which stream.
        stream: StreamId,
        /// What to append.
        chunk: Arc<Chunk>,
        /// The last sequence afterwards, at least.
        last: Seq,
    },
    /// Writes a consumer's record, new or not. With a token, answered by
    /// [`StoreReply::Done`] once durable; without, it rides along with the next commit and
    /// gets no reply.
    PutConsumer {
        /// Returned.
        token: Option<Token>,
        /// Its stream.
        stream: StreamId,
        /// What to write.
        consumer: ConsumerRecord,
    },
    /// Removes a consumer's record. No reply.
    DeleteConsumer {
        /// Its stream.
        stream: StreamId,
        /// Its name.
        name: String,
    },
    /// Reads the next messages. Answered by [`StoreReply::Read`].
    Read {
        /// Returned.
        token: Token,
        /// Which stream.
        stream: StreamId,
        /// Lowest sequence.
        from: Seq,
        /// Any of these; empty: all subjects.
        filters: Arc<[Filter]>,
        /// Stop after this many messages …
        max_msgs: u32,
        /// … or once the chunk's data reaches this many bytes (one message always fits).
        max_bytes: u32,
    },
    /// Reads one message. Answered by [`StoreReply::Got`].
    Get {
        /// Returned.
        token: Token,
        /// Which stream.
        stream: StreamId,
        /// Which message.
        by: GetBy,
    },
    /// Counts messages from a sequence on. Answered by [`StoreReply::Counted`].
    Count {
        /// Returned.
        token: Token,
        /// Which stream.
        stream: StreamId,
        /// Lowest sequence.
        from: Seq,
        /// Any of these; empty: all subjects.
        filters: Arc<[Filter]>,
    },
    /// The last message of each matching subject. Answered by [`StoreReply::LastPerSubject`].
    LastPerSubject {
        /// Returned.
        token: Token,
        /// Which stream.
        stream: StreamId,
        /// Any of these; empty: all subjects.
        filters: Arc<[Filter]>,
    },
    /// Distinct subjects with their message counts. Answered by [`StoreReply::Subjects`].
    Subjects {
        /// Returned.
        token: Token,
        /// Which stream.
        stream: StreamId,
        /// Subject pattern.
        filter: Filter,
        /// Skip this many, in sorted order.
        offset: u64,
        /// At most this many.
        limit: u32,
    },
    /// Interior deleted sequences, ascending. Answered by [`StoreReply::Deleted`].
    Deleted {
        /// Returned.
        token: Token,
        /// Which stream.
        stream: StreamId,
        /// At most this many.
        limit: u32,
    },
}

/// Trouble with the medium, or a damaged record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError {
    /// For the operator and the `description` of an API error: what failed.
    pub text: String,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A stream found at start.
#[derive(Clone, Debug)]
pub struct RecoveredStream {
    /// Its id.
    pub stream: StreamId,
    /// Its configuration, as given at creation or the last update.
    pub record: Vec<u8>,
    /// Its numbers.
    pub state: StreamState,
    /// Its consumers.
    pub consumers: Vec<ConsumerRecord>,
    /// Names of its sources, and how far each was taken in.
    pub origins: Vec<(Vec<u8>, Seq)>,
}

/// What the store answers.
#[derive(Clone, Debug)]
pub enum StoreReply {
    /// Comes first: what there is. `next_stream` is above every id ever used.
    Recovered {
        /// All streams.
        streams: Vec<RecoveredStream>,
        /// The lowest id that is free.
        next_stream: u32,
        /// The highest time stored anywhere: a wall clock before it is not to be trusted.
        last_ts: Timestamp,
    },
    /// To create, update, delete and put requests.
    Done {
        /// Of the request.
        token: Token,
        /// Whether what was to be changed existed.
        found: bool,
        /// What went wrong; then nothing changed.
        result: Result<(), StoreError>,
        /// News of the stream, where there are any.
        update: Option<StreamUpdate>,
    },
    /// To publish requests, in their order. One commit may answer several.
    Published {
        /// The batch, back again.
        batch: PublishBatch,
        /// One for each item, in order.
        outcomes: Vec<PublishOutcome>,
        /// The streams touched.
        updates: Vec<StreamUpdate>,
    },
    /// To a purge.
    Purged {
        /// Of the request.
        token: Token,
        /// How many messages went.
        result: Result<u64, StoreError>,
        /// News of the stream.
        update: Option<StreamUpdate>,
    },
    /// To an expire.
    Expired {
        /// News of the stream; `next_expiry` says when to ask again.
        update: StreamUpdate,
        /// Markers that were stored in place of what went.
        stored: Chunk,
        /// The newest message on the subject of each before it.
        before: Vec<Seq>,
    },
    /// To a read.
    Read {
        /// Of the request.
        token: Token,
        /// The messages.
        chunk: Result<Arc<Chunk>, StoreError>,
        /// Every matching message up to here is in the chunk (or did not exist when read).
        /// At least the last sequence of the chunk; the stream's last when the end was reached.
        through: Seq,
    },
    /// To a get.
    Got {
        /// Of the request.
        token: Token,
        /// The message, alone in its chunk.
        msg: Result<Option<Chunk>, StoreError>,
    },
    /// To a count.
    Counted {
        /// Of the request.
        token: Token,
        /// Matching messages at or after `from`.
        count: Result<u64, StoreError>,
        /// The stream's last sequence when it was counted.
        last_seq: Seq,
    },
    /// To a last-per-subject.
    LastPerSubject {
        /// Of the request.
        token: Token,
        /// Ascending.
        seqs: Result<Vec<Seq>, StoreError>,
        /// The stream's last sequence when it was read.
        last_seq: Seq,
    },
    /// To a subjects request.
    Subjects {
        /// Of the request.
        token: Token,
        /// In sorted order.
        subjects: Result<Vec<(Box<[u8]>, u64)>, StoreError>,
        /// How many match in all.
        total: u64,
    },
    /// To a deleted request.
    Deleted {
        /// Of the request.
        token: Token,
        /// Ascending.
        seqs: Result<Vec<Seq>, StoreError>,
    },
    /// The medium failed or works again; `None` means it works.
    Health(Option<StoreError>),
}
