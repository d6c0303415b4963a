//! Atomic batches that are not whole yet.
//!
//! Owns the messages of a batch until its last one comes, and the mistakes that are seen
//! before. Does not own storing it: that is `engine::group`, in one commit.
//!
//! # Invariants
//! - Nothing of a batch reaches the store before all of it does.
//! - What all batches hold together is in [`super::super::shared::Shared`], and bounded.
//!
//! Source: ADR-50; texts and order of checks seen from nats-server 2.15.1.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use litemap::LiteMap;

use crate::id::StreamId;
use crate::jetstream::JetStream;
use crate::jetstream::advisory::News;
use crate::jetstream::host::{Host, Inbound};
use crate::jetstream::json::{self, ApiError};
use crate::jetstream::publish::error_ack;
use crate::jetstream::storage::{Part, PublishBatch};
use crate::limits;
use crate::proto::headers;
use crate::time::{Instant, Now, Timestamp};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Batches {
    open: LiteMap<(StreamId, Box<[u8]>), Staged>,
    /// None of them is given up before this.
    due: Option<Instant>,
}

#[derive(Debug)]
struct Staged {
    msgs: PublishBatch,
    used_at: Instant,
}

/// How a batch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Commit {
    WithMessage,
    Without,
}

/// The id of a batch in a header block.
pub(in crate::jetstream) fn id_of(block: &[u8]) -> Option<&[u8]> {
    headers::value(block, "Nats-Batch-Id").filter(|id| !id.is_empty())
}

/// A header block without the API level that it asks for.
pub(in crate::jetstream) fn without_level(block: &[u8]) -> Cow<'_, [u8]> {
    const NAME: &[u8] = b"Nats-Required-Api-Level:";
    if memchr::memmem::find(block, NAME).is_none() {
        return Cow::Borrowed(block);
    }
    let mut out = headers::VERSION.to_vec();
    out.extend_from_slice(b"\r\n");
    for line in headers::lines(block).filter(|line| !line.starts_with(NAME)) {
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Cow::Owned(out)
}

const INCOMPLETE: ApiError = ApiError::fixed(10176, 400, "atomic publish batch is incomplete");

impl Batches {
    fn of(&self, stream: StreamId) -> usize {
        self.open.keys().filter(|(of, _)| *of == stream).count()
    }
}

impl JetStream {
    /// Takes a message of an atomic batch.
    pub(in crate::jetstream) fn stage(
        &mut self,
        now: Now,
        stream: StreamId,
        msg: &Inbound<'_>,
        host: &mut impl Host,
    ) {
        let Err(error) = self.try_stage(now, stream, msg, host) else { return };
        if let Some(to) = self.streams.get(&stream)
            && !msg.reply.is_empty()
        {
            host.deliver(msg.reply, msg.reply, b"", b"", &error_ack(&to.name, &error));
        }
    }

    fn try_stage(
        &mut self,
        now: Now,
        stream: StreamId,
        msg: &Inbound<'_>,
        host: &mut impl Host,
    ) -> Result<(), ApiError> {
        let Some(to) = self.streams.get(&stream) else { return Ok(()) };
        let id = id_of(msg.headers).unwrap_or_default();
        if !to.config.allow_atomic {
            return Err(ApiError::fixed(10174, 400, "atomic publish is disabled"));
        }
        if to.config.sealed {
            return Err(ApiError::fixed(10109, 400, "invalid operation on sealed stream"));
        }
        if id.len() > limits::BATCH_ID_BYTES_MAX {
            return Err(ApiError::fixed(10179, 400, "atomic publish batch ID is invalid"));
        }
        let number = headers::value(msg.headers, "Nats-Batch-Sequence");
        let Some(number) = number.and_then(json::digits) else {
            return Err(ApiError::fixed(10175, 400, "atomic publish sequence is missing"));
        };
        let commit = match headers::value(msg.headers, "Nats-Batch-Commit") {
            None => Ok(None),
            Some(b"1") => Ok(Some(Commit::WithMessage)),
            Some(b"eob") => Ok(Some(Commit::Without)),
            Some(_) => Err(ApiError::fixed(10200, 400, "atomic publish batch commit is invalid")),
        };
        let key = (stream, Box::from(id));
        if !json::level_ok(msg.headers) {
            self.abandon(&key, "unsupported", host);
            return Err(ApiError::REQUIRED_LEVEL);
        }
        let bounds = self.options.limits.batch;
        let too_large = ApiError::with(
            10199,
            400,
            format!("atomic publish batch is too large: {}", bounds.max_msgs),
        );
        let too_many = ApiError::fixed(10210, 429, "atomic publish too many inflight");
        let is_end = commit == Ok(Some(Commit::Without));
        let is_over = number > bounds.max_msgs && !(is_end && number == bounds.max_msgs + 1);
        let staged = self.batches.open.get(&key).map_or(0, |batch| batch.msgs.items.len() as u64);
        if staged == 0 {
            if number != 1 || is_end {
                return Err(if is_over { too_large } else { INCOMPLETE });
            }
            let all = self.shared.batches() as u64;
            if self.batches.of(stream) as u64 >= bounds.max_per_stream || all >= bounds.max_total {
                return Err(too_many);
            }
        } else if number != staged + 1 {
            self.abandon(&key, "incomplete", host);
            return Err(INCOMPLETE);
        } else if is_over {
            self.abandon(&key, "large", host);
            return Err(too_large);
        }
        let commit = commit.inspect_err(|_| {
            self.forget_batch(&key);
        })?;
        let size = msg.subject.len() + msg.headers.len() + msg.payload.len();
        if self.shared.batch_bytes() + size > limits::BATCH_BYTES_MAX && !is_end {
            self.abandon(&key, "large", host);
            return Err(too_many);
        }
        let batch = self.batches.open.entry(key.clone()).or_insert_with(|| {
            self.shared.note_batch(true);
            Staged { msgs: PublishBatch::default(), used_at: now.instant }
        });
        batch.used_at = now.instant;
        if !is_end {
            let Inbound { subject, headers, payload, .. } = *msg;
            let before = batch.msgs.data.len();
            batch.msgs.push(stream, Timestamp(0), subject, b"", &without_level(headers), payload);
            self.shared.note_batch_bytes(before, batch.msgs.data.len());
        }
        if let Some(commit) = commit {
            return self.commit_batch(now, &key, commit, msg.reply, host);
        }
        let due = now.instant + self.options.limits.batch.timeout;
        self.batches.due = Some(self.batches.due.map_or(due, |at| at.min(due)));
        if !msg.reply.is_empty() {
            host.deliver(msg.reply, msg.reply, b"", b"", b"");
        }
        Ok(())
    }

    /// Hands a whole batch on to the store.
    fn commit_batch(
        &mut self,
        now: Now,
        key: &(StreamId, Box<[u8]>),
        commit: Commit,
        reply: &[u8],
        host: &mut impl Host,
    ) -> Result<(), ApiError> {
        let Some(Staged { msgs, .. }) = self.forget_batch(key) else { return Err(INCOMPLETE) };
        let gathered = self.gathered() + msgs.data.len();
        if self.shared.unanswered() + gathered > limits::INGEST_BYTES_MAX {
            return Err(ApiError::fixed(10167, 429, "too many requests"));
        }
        let last = msgs.items.len().saturating_sub(1);
        for (index, item) in msgs.items.iter().enumerate() {
            let block;
            let mut msg = Inbound {
                subject: msgs.bytes(&item.subject),
                reply: b"",
                headers: msgs.bytes(&item.headers),
                payload: msgs.bytes(&item.payload),
            };
            let mut part = Part::Atomic;
            if index == last {
                (msg.reply, part) = (reply, Part::AtomicLast);
                if commit == Commit::Without {
                    block = headers::with(msg.headers, "Nats-Batch-Commit", b"1");
                    msg.headers = &block;
                }
            }
            self.gather(now, key.0, msg, part);
        }
        self.emit_if_large(host);
        Ok(())
    }

    fn forget_batch(&mut self, key: &(StreamId, Box<[u8]>)) -> Option<Staged> {
        let batch = self.batches.open.remove(key)?;
        self.shared.note_batch(false);
        self.shared.note_batch_bytes(batch.msgs.data.len(), 0);
        Some(batch)
    }

    /// Gives a batch up and tells why, if there is one.
    fn abandon(&mut self, key: &(StreamId, Box<[u8]>), reason: &'static str, host: &mut impl Host) {
        if self.forget_batch(key).is_none() {
            return;
        }
        let Some(name) = self.streams.get(&key.0).map(|stream| stream.name.clone()) else { return };
        let batch = Some(String::from_utf8_lossy(&key.1).into_owned());
        let news = News { batch, reason, ..News::default() };
        self.stream_news(&name, "BATCH_ABANDONED", "stream_batch_abandoned", news, host);
    }

    /// A stream takes no batches any more.
    pub(in crate::jetstream) fn drop_batches(&mut self, stream: StreamId) {
        let keys = self.batches.open.keys().filter(|key| key.0 == stream).cloned();
        for key in keys.collect::<Vec<_>>() {
            self.forget_batch(&key);
        }
    }

    /// Gives up batches that nobody goes on with.
    pub(in crate::jetstream) fn batches_timeout(&mut self, now: Now, host: &mut impl Host) {
        if self.batches.due.is_none_or(|due| due > now.instant) {
            return;
        }
        let timeout = self.options.limits.batch.timeout;
        let open = self.batches.open.iter();
        let late = open.filter(|(_, batch)| batch.used_at + timeout <= now.instant);
        for key in late.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.abandon(&key, "timeout", host);
        }
        self.batches.due = self.batches.open.values().map(|batch| batch.used_at + timeout).min();
    }

    pub(in crate::jetstream) fn batches_poll_timeout(&self) -> Option<Instant> {
        self.batches.due
    }
}
