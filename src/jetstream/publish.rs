//! Publishing to streams: gathering a turn's messages, and the acks.
//!
//! Owns the batches on their way to the store and what they may weigh together, and the
//! text of acks. Does not own the checks against stored messages: the engine makes them.
//!
//! # Invariants
//! - Messages of one stream reach the store in the order they arrived, but for fast batches
//!   that are held back ([`super::stream::fast`]).
//! - [`super::shared::Shared::unanswered`] is the size of all batches the store has not
//!   answered.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::JetStream;
use crate::id::{Rng, StreamId};
use crate::jetstream::engine::stored_headers;
use crate::jetstream::host::{Host, Inbound};
use crate::jetstream::json::{self, ApiError};
use crate::jetstream::storage::{
    Chunk, Origin, Part, PublishBatch, PublishError, PublishOutcome, Removed, Seq, StoreRequest,
    StoredMsg, StreamUpdate,
};
use crate::jetstream::stream::fast::is_fast;
use crate::jetstream::stream::{Stream, batch};
use crate::limits;
use crate::subject;
use crate::subject::transform::Transform;
use crate::time::{Now, Timestamp};

/// Answered batches kept for the next turns.
const SPARE_MAX: usize = 4;
/// A spare batch over this is given back to the allocator.
const SPARE_BYTES_MAX: usize = 2 * limits::INGEST_BATCH_BYTES;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ingest {
    file: PublishBatch,
    memory: PublishBatch,
    /// Bytes of batches of ours that the store has not answered.
    asked: usize,
    spare: Vec<PublishBatch>,
    /// How often batches were handed on.
    generation: u64,
    ack: Vec<u8>,
}

impl Ingest {
    /// Is there anything to hand to the store?
    pub(super) fn is_waiting(&self) -> bool {
        !self.file.items.is_empty() || !self.memory.items.is_empty()
    }
}

/// What a stream with one message more is refused for.
const ACCOUNT_FULL: ApiError = ApiError::fixed(10002, 400, "resource limits exceeded for account");

/// Checks that come before those of the store. `None`: the message may go there.
fn refusal(stream: &Stream, msg: &Inbound<'_>, over_limit: bool) -> Option<ApiError> {
    if is_fast(msg.reply) && !stream.config.allow_batched {
        return Some(ApiError::fixed(10205, 400, "batch publish is disabled"));
    }
    let size = msg.headers.len() + msg.payload.len();
    let max = usize::try_from(stream.config.max_msg_size).ok();
    if max.is_some_and(|max| size > max) {
        return Some(ApiError::fixed(10054, 400, "message size exceeds maximum allowed"));
    }
    over_limit.then(|| ApiError::fixed(10023, 503, "insufficient resources"))
}

/// The ack that carries an error.
pub(super) fn error_ack(name: &str, error: &ApiError) -> Vec<u8> {
    let mut ack = b"{\"error\":".to_vec();
    ack.extend_from_slice(&json::encode(error));
    ack.extend_from_slice(b",\"stream\":");
    ack.extend_from_slice(&json::encode(&name));
    ack.extend_from_slice(b",\"seq\":0}");
    ack
}

impl JetStream {
    /// Takes a message on a subject of `stream`. It reaches the store with the next
    /// [`JetStream::flush`]; the ack leaves after the store's reply.
    pub fn handle_publish(
        &mut self,
        now: Now,
        stream: StreamId,
        msg: Inbound<'_>,
        host: &mut impl Host,
    ) {
        let full = self.is_account_full(stream, &msg);
        let Some(to) = self.streams.get(&stream) else { return };
        let memory = to.memory;
        let over_limit = if memory {
            self.options.max_memory.is_some_and(|max| self.shared.used(true) > max)
        } else {
            self.options.max_storage.is_some_and(|max| self.shared.used(false) > max)
        };
        // A stream without acks sends no errors either.
        let reply = if to.config.no_ack { &b""[..] } else { msg.reply };
        let refused = refusal(to, &msg, over_limit).or_else(|| full.then_some(ACCOUNT_FULL));
        if let Some(error) = refused {
            if !reply.is_empty() {
                host.deliver(reply, reply, b"", b"", &error_ack(&to.name, &error));
            }
            return;
        }
        let size = msg.subject.len() + reply.len() + msg.headers.len() + msg.payload.len();
        if self.shared.unanswered() + self.gathered() + size > limits::INGEST_BYTES_MAX {
            if !reply.is_empty() {
                let error = ApiError::fixed(10167, 429, "too many requests");
                let text = error_ack(&to.name, &error);
                let status = b"NATS/1.0 429 Too Many Requests\r\n\r\n";
                host.deliver(reply, reply, b"", status, &text);
            }
            return;
        }
        if is_fast(msg.reply) {
            self.fast_publish(now, stream, msg, host);
            return;
        }
        let msg = Inbound { reply, ..msg };
        if !msg.headers.is_empty() && batch::id_of(msg.headers).is_some() {
            self.stage(now, stream, &msg, host);
            return;
        }
        self.gather(now, stream, msg, Part::Alone);
        self.emit_if_large(host);
    }

    /// Puts a message to those that go to the store next.
    pub(super) fn gather(&mut self, now: Now, stream: StreamId, msg: Inbound<'_>, part: Part) {
        let timestamp = self.message_time(now);
        let Some(to) = self.streams.get(&stream) else { return };
        let batch = if to.memory { &mut self.ingest.memory } else { &mut self.ingest.file };
        let mut subject = Cow::Borrowed(msg.subject);
        let mut unwanted = false;
        if let Some(extras) = &to.extras {
            if let Some(transform) = &extras.transform
                && let Some(other) = transformed(transform, msg.subject, &mut self.rng)
            {
                subject = other.into();
            }
            unwanted = extras.interest && !self.consumers.want(stream, &subject);
        }
        // The bounds keep a batch far below where this fails.
        batch.push(stream, timestamp, &subject, msg.reply, msg.headers, msg.payload);
        if let Some(item) = batch.items.last_mut() {
            item.unwanted = unwanted;
            item.part = part;
        }
    }

    /// Hands on what was gathered if it is enough for now.
    pub(super) fn emit_if_large(&mut self, host: &mut impl Host) {
        let Ingest { file, memory, .. } = &self.ingest;
        if file.data.len().max(memory.data.len()) >= limits::INGEST_BATCH_BYTES {
            self.emit_ingest(host);
        }
    }

    /// Bytes that wait to be handed on.
    pub(super) fn gathered(&self) -> usize {
        self.ingest.file.data.len() + self.ingest.memory.data.len()
    }

    /// Changes whenever something is handed on.
    pub(super) fn ingest_generation(&self) -> u64 {
        self.ingest.generation
    }

    /// Takes a message of an origin, which was changed for the stream already. False if there
    /// is no room for it now.
    pub(super) fn ingest_origin(
        &mut self,
        stream: StreamId,
        timestamp: Timestamp,
        (subject, headers, payload): (&[u8], &[u8], &[u8]),
        origin: Origin,
        host: &mut impl Host,
    ) -> bool {
        let msg = Inbound { subject, reply: b"", headers, payload };
        let full = self.is_account_full(stream, &msg);
        let Some(to) = self.streams.get(&stream) else { return true };
        let memory = to.memory;
        let max = if memory { self.options.max_memory } else { self.options.max_storage };
        let over = max.is_some_and(|max| self.shared.used(memory) > max);
        let size = subject.len() + headers.len() + payload.len();
        let gathered = self.ingest.file.data.len() + self.ingest.memory.data.len();
        if full || over || self.shared.unanswered() + gathered + size > limits::INGEST_BYTES_MAX {
            return false;
        }
        let unwanted = to.extras.as_ref().is_some_and(|extras| extras.interest)
            && !self.consumers.want(stream, subject);
        let batch = if memory { &mut self.ingest.memory } else { &mut self.ingest.file };
        if !batch.push(stream, timestamp, subject, b"", headers, payload) {
            return false;
        }
        if let Some(item) = batch.items.last_mut() {
            item.unwanted = unwanted;
            item.origin = Some(Box::new(origin));
        }
        if batch.data.len() >= limits::INGEST_BATCH_BYTES {
            self.emit_ingest(host);
        }
        true
    }

    /// Would the message take the account over what it may store? What the store has not
    /// answered counts.
    fn is_account_full(&self, stream: StreamId, msg: &Inbound<'_>) -> bool {
        let limits = &self.options.account_limits;
        if limits.max_memory.is_none() && limits.max_storage.is_none() {
            return false;
        }
        let Some(stream) = self.streams.get(&stream) else { return false };
        let size = msg.subject.len() + msg.headers.len() + msg.payload.len();
        let (max, used, of_message, gathered) = if stream.memory {
            (limits.max_memory, self.usage.memory, 16, self.ingest.memory.data.len())
        } else {
            let headers = if msg.headers.is_empty() { 0 } else { 4 };
            (limits.max_storage, self.usage.file, 30 + headers, self.ingest.file.data.len())
        };
        let waiting = gathered + self.ingest.asked;
        let after = used.saturating_add((size + of_message + waiting) as u64);
        max.is_some_and(|max| after > max)
    }

    /// Hands what was gathered to the store.
    pub(super) fn emit_ingest(&mut self, host: &mut impl Host) {
        for memory in [false, true] {
            let ingest = &mut self.ingest;
            let batch = if memory { &mut ingest.memory } else { &mut ingest.file };
            if batch.items.is_empty() {
                continue;
            }
            let mut batch = core::mem::replace(batch, ingest.spare.pop().unwrap_or_default());
            batch.account = self.account;
            ingest.generation = ingest.generation.wrapping_add(1);
            self.shared.note_asked(batch.data.len());
            self.ingest.asked += batch.data.len();
            self.store(StoreRequest::Publish(batch), host);
        }
    }

    /// The store answered a batch: acks first, then consumers.
    pub(super) fn published(
        &mut self,
        now: Now,
        batch: PublishBatch,
        outcomes: &[PublishOutcome],
        updates: &[StreamUpdate],
        host: &mut impl Host,
    ) {
        self.shared.note_answered(batch.data.len());
        self.ingest.asked = self.ingest.asked.saturating_sub(batch.data.len());
        for update in updates {
            self.set_state(now, update);
        }
        for update in updates {
            self.republish_stored(&batch, outcomes, update.stream, host);
        }
        self.acknowledge(&batch, outcomes, host);
        self.intakes_stored(now, &batch, outcomes, host);
        let mut batch = Some(batch);
        for (index, update) in updates.iter().enumerate() {
            if !self.streams.contains_key(&update.stream) {
                continue;
            }
            let chunk = if self.has_consumers(update.stream) {
                let last = index + 1 == updates.len();
                stored_chunk(&mut batch, outcomes, update, last && index == 0).map(Arc::new)
            } else {
                None
            };
            self.remember(update.stream, chunk.as_ref());
            self.consumers_updated(now, update, chunk.as_ref(), host);
        }
        if let Some(mut batch) = batch
            && self.ingest.spare.len() < SPARE_MAX
            && batch.data.capacity() <= SPARE_BYTES_MAX
        {
            batch.data.clear();
            batch.items.clear();
            self.ingest.spare.push(batch);
        }
    }

    fn acknowledge(
        &mut self,
        batch: &PublishBatch,
        outcomes: &[PublishOutcome],
        host: &mut impl Host,
    ) {
        let mut number = itoa::Buffer::new();
        let ack = &mut self.ingest.ack;
        let mut current: Option<&Stream> = None;
        let mut some_fast = false;
        for (index, (item, outcome)) in batch.items.iter().zip(outcomes).enumerate() {
            if item.reply.is_empty() {
                continue;
            }
            if matches!(item.part, Part::Fast(_) | Part::FastStrict(_)) {
                some_fast = true;
                continue;
            }
            if current.is_none_or(|stream| stream.id != item.stream) {
                current = self.streams.get(&item.stream);
            }
            let mut total = None;
            let (seq, end): (_, &[u8]) = match outcome {
                PublishOutcome::Stored { seq, changed, .. } => {
                    total = changed.as_ref().and_then(|changed| changed.total.as_deref());
                    (*seq, b"}")
                }
                PublishOutcome::Skipped { seq } => (*seq, b"}"),
                PublishOutcome::Duplicate { seq } => (*seq, b",\"duplicate\": true}"),
                PublishOutcome::Refused(error) => {
                    let name = current.map(|stream| &*stream.name).unwrap_or_default();
                    let text = error_ack(name, &api_error(error));
                    let reply = batch.bytes(&item.reply);
                    host.deliver(reply, reply, b"", b"", &text);
                    continue;
                }
            };
            // A stream that was deleted after it stored the message: nobody can use the ack.
            let Some(stream) = current else { continue };
            ack.clear();
            ack.extend_from_slice(&stream.ack_head);
            ack.extend_from_slice(number.format(seq).as_bytes());
            if let Some(total) = total.filter(|_| item.part == Part::Alone) {
                ack.extend_from_slice(b",\"val\":\"");
                ack.extend_from_slice(total.as_bytes());
                ack.push(b'"');
            }
            if item.part == Part::AtomicLast {
                put_batch(ack, batch, index);
            }
            ack.extend_from_slice(end);
            let reply = batch.bytes(&item.reply);
            host.deliver(reply, reply, b"", b"", ack);
        }
        if some_fast {
            self.fast_published(batch, outcomes, host);
        }
    }

    /// Publishes again what a stream stored, where it is configured so.
    fn republish_stored(
        &mut self,
        batch: &PublishBatch,
        outcomes: &[PublishOutcome],
        id: StreamId,
        host: &mut impl Host,
    ) {
        let Some(stream) = self.streams.get(&id) else { return };
        let Some((transform, headers_only)) = republish_of(stream) else { return };
        for (item, outcome) in batch.items.iter().zip(outcomes) {
            let PublishOutcome::Stored { seq, timestamp, before, changed } = outcome else {
                continue;
            };
            if item.stream != id {
                continue;
            }
            let stored = stored_headers(batch.bytes(&item.headers));
            let (headers, payload) = match changed {
                Some(changed) => (&*changed.headers, &*changed.payload),
                None => (&*stored, batch.bytes(&item.payload)),
            };
            let msg = Republished {
                subject: batch.bytes(&item.subject),
                seq: *seq,
                timestamp: *timestamp,
                before: *before,
                headers,
                payload,
            };
            republish(stream, transform, headers_only, &msg, &mut self.rng, host);
        }
    }

    /// A stream stored messages that nobody published: markers.
    pub(super) fn stored_by_itself(
        &mut self,
        now: Now,
        update: &StreamUpdate,
        stored: &Chunk,
        before: &[Seq],
        host: &mut impl Host,
    ) {
        self.set_state(now, update);
        let id = update.stream;
        let Some(stream) = self.streams.get(&id) else { return };
        if let Some((transform, headers_only)) = republish_of(stream) {
            for (msg, before) in stored.msgs.iter().zip(before) {
                let msg = Republished {
                    subject: stored.bytes(&msg.subject),
                    seq: msg.seq,
                    timestamp: msg.timestamp,
                    before: *before,
                    headers: stored.bytes(&msg.headers),
                    payload: stored.bytes(&msg.payload),
                };
                republish(stream, transform, headers_only, &msg, &mut self.rng, host);
            }
        }
        // Some of it may be gone again already: consumers read what there is.
        self.remember(id, None);
        self.consumers_updated(now, update, None, host);
    }

    /// Keeps what a stream just stored for consumers that are caught up.
    fn remember(&mut self, id: StreamId, chunk: Option<&Arc<Chunk>>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let before = stream.tail.bytes();
        match chunk {
            Some(chunk) => {
                if let Some(first) = chunk.msgs.first() {
                    stream.tail.push(first.seq, Arc::clone(chunk));
                }
            }
            None => stream.tail.clear(),
        }
        self.shared.note_tail(before, stream.tail.bytes());
        // Each account makes room with its own, so all together stay at the bound.
        while self.shared.tail() > limits::TAIL_CACHE_BYTES_MAX {
            let fullest = self.streams.values_mut().max_by_key(|stream| stream.tail.bytes());
            let freed = fullest.map_or(0, |stream| stream.tail.pop_oldest());
            if freed == 0 {
                break;
            }
            self.shared.note_tail(freed, 0);
        }
    }
}

/// What an ack says of an atomic batch whose last message is this one.
#[cold]
fn put_batch(ack: &mut Vec<u8>, batch: &PublishBatch, last: usize) {
    let (before, rest) = batch.items.split_at_checked(last).unwrap_or_default();
    let headers = rest.first().map(|item| batch.bytes(&item.headers)).unwrap_or_default();
    let id = batch::id_of(headers).unwrap_or_default();
    let count = 1 + before.iter().rev().take_while(|item| item.part == Part::Atomic).count();
    ack.extend_from_slice(b",\"batch\":");
    ack.extend_from_slice(&json::encode(&alloc::string::String::from_utf8_lossy(id)));
    ack.extend_from_slice(format!(",\"count\":{count}").as_bytes());
}

pub(super) fn transformed(transform: &Transform, subject: &[u8], rng: &mut Rng) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let random = |bound: u32| u32::try_from(rng.below(u64::from(bound.max(1)))).unwrap_or(0);
    transform.apply(subject, random, &mut out).then_some(out)
}

fn republish_of(stream: &Stream) -> Option<(&Transform, bool)> {
    let (transform, headers_only) = stream.extras.as_ref()?.republish.as_ref()?;
    Some((transform, *headers_only))
}

/// A message that is published again.
struct Republished<'a> {
    subject: &'a [u8],
    seq: Seq,
    timestamp: Timestamp,
    before: Seq,
    headers: &'a [u8],
    payload: &'a [u8],
}

#[cold]
fn republish(
    stream: &Stream,
    transform: &Transform,
    headers_only: bool,
    msg: &Republished<'_>,
    rng: &mut Rng,
    host: &mut impl Host,
) {
    let Some(to) = transformed(transform, msg.subject, rng) else { return };
    if !subject::is_valid_literal(&to) {
        return;
    }
    let mut block = msg.headers.strip_suffix(b"\r\n").unwrap_or(b"NATS/1.0\r\n").to_vec();
    let text = format!(
        "Nats-Stream: {}\r\nNats-Subject: {}\r\nNats-Sequence: {}\r\nNats-Time-Stamp: {}\r\n\
         Nats-Last-Sequence: {}\r\n",
        stream.name,
        alloc::string::String::from_utf8_lossy(msg.subject),
        msg.seq,
        msg.timestamp.rfc3339(),
        msg.before
    );
    block.extend_from_slice(text.as_bytes());
    let mut payload = msg.payload;
    if headers_only {
        block.extend_from_slice(format!("Nats-Msg-Size: {}\r\n", payload.len()).as_bytes());
        payload = b"";
    }
    block.extend_from_slice(b"\r\n");
    host.deliver(&to, &to, b"", &block, payload);
}

pub(super) fn api_error(error: &PublishError) -> ApiError {
    let (err_code, code) = error.codes();
    ApiError::with(err_code, code, format!("{error}"))
}

/// What `update` says was stored and still exists, from the batch. `None` if that can not be
/// known. With `whole`, no other stream needs the batch and its buffer may be moved.
fn stored_chunk(
    batch: &mut Option<PublishBatch>,
    outcomes: &[PublishOutcome],
    update: &StreamUpdate,
    whole: bool,
) -> Option<Chunk> {
    let removed: &[_] = match &update.removed {
        Removed::None => &[],
        Removed::Some(list) => list,
        Removed::Many { .. } => return None,
    };
    let gone = |seq| removed.binary_search_by_key(&seq, |(seq, _)| *seq).is_ok();
    let from = batch.as_ref()?;
    let plain = from.items.iter().all(|item| {
        let block = from.bytes(&item.headers);
        matches!(stored_headers(block), Cow::Borrowed(stored) if stored.len() == block.len())
    });
    let is_changed =
        |outcome: &_| matches!(outcome, PublishOutcome::Stored { changed: Some(_), .. });
    let plain = plain && !outcomes.iter().any(is_changed);
    let mut chunk = Chunk::default();
    chunk.msgs.reserve(from.items.len());
    for (item, outcome) in from.items.iter().zip(outcomes) {
        let PublishOutcome::Stored { seq, timestamp, changed, .. } = outcome else { continue };
        let (seq, timestamp) = (*seq, *timestamp);
        if item.stream != update.stream || gone(seq) {
            continue;
        }
        let mut msg = StoredMsg {
            seq,
            timestamp,
            subject: item.subject.clone(),
            headers: item.headers.clone(),
            payload: item.payload.clone(),
        };
        if !(whole && plain) {
            let mut put = |bytes: &[u8]| {
                let start = u32::try_from(chunk.data.len()).unwrap_or(u32::MAX);
                chunk.data.extend_from_slice(bytes);
                start..u32::try_from(chunk.data.len()).unwrap_or(u32::MAX)
            };
            msg.subject = put(from.bytes(&item.subject));
            if let Some(changed) = changed {
                msg.headers = put(&changed.headers);
                msg.payload = put(&changed.payload);
            } else {
                msg.headers = put(&stored_headers(from.bytes(&item.headers)));
                msg.payload = put(from.bytes(&item.payload));
            }
        }
        chunk.msgs.push(msg);
    }
    if whole && plain {
        chunk.data = batch.take()?.data;
    }
    Some(chunk)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jetstream::storage::StreamState;
    use crate::time::Timestamp;

    fn batch(msgs: &[(u32, &str, &str)]) -> (PublishBatch, Vec<PublishOutcome>) {
        let mut batch = PublishBatch::default();
        let mut outcomes = Vec::new();
        for (seq, (stream, headers, payload)) in (1..).zip(msgs) {
            let (headers, payload) = (headers.as_bytes(), payload.as_bytes());
            batch.push(StreamId(*stream), Timestamp(9), b"s", b"_INBOX.r", headers, payload);
            outcomes.push(PublishOutcome::Stored {
                seq,
                timestamp: Timestamp(10),
                before: 0,
                changed: None,
            });
        }
        (batch, outcomes)
    }

    fn update(stream: u32, removed: Removed) -> StreamUpdate {
        StreamUpdate { stream: StreamId(stream), state: StreamState::default(), removed }
    }

    fn payloads(chunk: &Chunk) -> Vec<(u64, &[u8])> {
        chunk.msgs.iter().map(|msg| (msg.seq, chunk.bytes(&msg.payload))).collect()
    }

    #[test]
    fn consumers_see_what_one_stream_stored_and_kept() {
        let (from, mut outcomes) = batch(&[(1, "", "a"), (2, "", "b"), (1, "", "c"), (1, "", "d")]);
        outcomes[3] = PublishOutcome::Duplicate { seq: 1 };
        let mut from = Some(from);
        let removed = Removed::Some(Vec::from([(1, b"s"[..].into())]));
        let chunk = stored_chunk(&mut from, &outcomes, &update(1, removed), false).unwrap();
        assert_eq!(payloads(&chunk), [(3, &b"c"[..])]);
        assert!(from.is_some(), "another stream still needs the batch");
        let chunk = stored_chunk(&mut from, &outcomes, &update(2, Removed::None), true).unwrap();
        assert_eq!(payloads(&chunk), [(2, &b"b"[..])]);
        assert!(from.is_none(), "the last one takes its buffer");
    }

    #[test]
    fn what_may_be_gone_is_not_shown_from_memory() {
        let (from, outcomes) = batch(&[(1, "", "a")]);
        let removed = Removed::Many { first: 1, last: 9 };
        assert!(stored_chunk(&mut Some(from), &outcomes, &update(1, removed), true).is_none());
    }

    #[test]
    fn consumers_see_headers_as_they_are_stored() {
        let (from, outcomes) = batch(&[(1, "NATS/1.0 100 Foo\r\nA: b\r\n\r\n", "a"), (1, "", "b")]);
        let chunk = stored_chunk(&mut Some(from), &outcomes, &update(1, Removed::None), true);
        let chunk = chunk.unwrap();
        assert_eq!(chunk.bytes(&chunk.msgs[0].headers), b"NATS/1.0\r\nA: b\r\n\r\n");
        assert_eq!(payloads(&chunk), [(1, &b"a"[..]), (2, &b"b"[..])]);
    }
}
