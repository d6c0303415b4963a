//! Sending a backup: the state, the consumers, then the messages as they are read.
//!
//! Owns the pace: chunks of the size asked for, and no more of them without an answer than
//! the window holds. Reads the next messages when those before are on their way.
//!
//! # Invariants
//! - Holds at most one read, framed, and a chunk.
//! - Messages stored after it began are not in it; those removed meanwhile may be missing.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::Serialize;

use super::archive::{self, Entry};
use super::{ID_LEN, PATIENCE, Pending, RECEIVER_WAIT, frame};
use crate::id::StreamId;
use crate::jetstream::advisory::News;
use crate::jetstream::host::{Host, Inbound, Target};
use crate::jetstream::json::{self, ApiError, Empty, FromJson, Json, Path};
use crate::jetstream::storage::{Seq, StoreReply, StoreRequest};
use crate::jetstream::stream::StreamConfig;
use crate::jetstream::stream::info::State;
use crate::jetstream::{JetStream, Waiting};
use crate::limits;
use crate::proto::headers;
use crate::subject;
use crate::time::{Instant, Now, Timestamp};

const KIND: &str = "stream_snapshot_response";
/// Bytes of a chunk: the default, the least and the most.
const CHUNK: [usize; 3] = [128 * 1024, 1024, 1024 * 1024];
/// Bytes without an answer: the default, the least and the most.
const WINDOW: [usize; 3] = [8 * 1024 * 1024, 1024, 32 * 1024 * 1024];

#[derive(Debug, Default)]
struct Request {
    deliver_subject: String,
    no_consumers: bool,
    chunk_size: i64,
    window_size: i64,
    /// Messages are always checked.
    jsck: bool,
}

impl FromJson for Request {
    const NAME: &'static str = "JSApiStreamSnapshotRequest";

    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
        match key {
            "deliver_subject" => json::string(&mut self.deliver_subject, value, path),
            "no_consumers" => json::boolean(&mut self.no_consumers, value, path),
            "chunk_size" => json::number(&mut self.chunk_size, value, path, "int"),
            "window_size" => json::number(&mut self.window_size, value, path, "int"),
            "jsck" => json::boolean(&mut self.jsck, value, path),
            _ => Ok(false),
        }
    }
}

fn within(asked: i64, [default, least, most]: [usize; 3]) -> usize {
    match usize::try_from(asked) {
        Ok(asked) if asked > 0 => asked.clamp(least, most),
        _ => default,
    }
}

#[derive(Serialize)]
struct Body {
    config: StreamConfig,
    state: State,
}

/// A backup under way.
#[derive(Debug)]
pub(super) struct Snapshot {
    stream: StreamId,
    name: String,
    to: Box<[u8]>,
    /// `$JS.SNAPSHOT.ACK.<stream>.<id>.`
    ack_prefix: String,
    chunk: usize,
    /// Chunks that may be without an answer.
    window: usize,
    open: usize,
    sent: u64,
    /// Framed and not sent.
    out: Vec<u8>,
    /// The next message and the last one.
    next: Seq,
    last: Seq,
    reading: bool,
    done: bool,
    began: Timestamp,
    /// Who asked for it, as JSON.
    client: Vec<u8>,
    /// When the receiver was last heard of.
    heard: Instant,
    /// Nothing is sent before somebody has subscribed to the subject itself, or before this:
    /// clients subscribe when they have the answer.
    held: Option<Instant>,
}

impl Snapshot {
    /// When it has waited for an answer, or for a receiver, for long enough.
    pub(super) fn due(&self) -> Option<Instant> {
        self.held.or_else(|| (self.open >= self.window).then(|| self.heard + PATIENCE))
    }

    /// Does it wait for somebody to subscribe?
    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }
}

impl JetStream {
    /// `STREAM.SNAPSHOT.<stream>`.
    pub(in crate::jetstream) fn stream_snapshot(
        &mut self,
        now: Now,
        name: &[u8],
        msg: &Inbound<'_>,
        host: &mut impl Host,
    ) {
        let asker = self.asker(msg, host);
        let begun = self.checked_snapshot(name, msg).and_then(|(stream, request)| {
            let id = self.backups.number().ok_or_else(|| {
                ApiError::with(10064, 500, "snapshot failed: too many are under way")
            })?;
            Ok((id, stream, request))
        });
        let (id, stream, request) = match begun {
            Ok(begun) => begun,
            Err(error) => return self.respond_error(&asker, KIND, &error, &Empty {}, host),
        };
        let Some(found) = self.streams.get(&stream) else { return };
        let (state, mut shown) = (self.shown_state(found), self.shown_state(found));
        let (name, config) = (found.name.clone(), found.config.clone());
        let (next, last) = (found.state.first_seq, found.state.last_seq);
        let mut records = Vec::new();
        archive::begin(&mut records);
        let consumers = if request.no_consumers {
            Vec::new()
        } else {
            self.consumer_backups(now, stream, last)
        };
        shown.consumer_count = consumers.len();
        let mut entry = |name: &[u8], payload: &[u8]| {
            let entry = Entry { name, timestamp: now.wall, payload, ..Entry::default() };
            archive::write(&entry, &mut records);
        };
        entry(archive::STATE, &serde_json::to_vec(&shown).unwrap_or_default());
        for (name, body) in &consumers {
            entry(&[archive::CONSUMERS, name.as_bytes()].concat(), body);
        }
        let mut out = Vec::new();
        frame::begin(&mut out);
        frame::write(&records, &mut out);
        let chunk = within(request.chunk_size, CHUNK);
        let window = (within(request.window_size, WINDOW) / chunk).max(1);
        let ack_prefix = format!("$JS.SNAPSHOT.ACK.{name}.{}.", self.rng.token(ID_LEN));
        host.subscribe(format!("{ack_prefix}*.*").as_bytes(), Target::Snapshot(id));
        let client = host.requester(msg.headers);
        let to = request.deliver_subject.as_bytes();
        let heard = host.literal_listeners(to, b"").plain;
        if !heard {
            host.watch(to);
        }
        let snapshot = Snapshot {
            stream,
            name: name.clone(),
            to: to.into(),
            ack_prefix,
            chunk,
            window,
            open: 0,
            sent: 0,
            out,
            next,
            last,
            reading: false,
            done: false,
            began: now.wall,
            client: client.clone(),
            heard: now.instant,
            held: (!heard).then(|| now.instant + RECEIVER_WAIT),
        };
        self.backups.snapshots.insert(id, snapshot);
        self.respond(&asker, KIND, &Body { config, state }, host);
        let news = News { state: Some(shown), client, ..News::default() };
        self.stream_news(&name, "SNAPSHOT_CREATE", "snapshot_create", news, host);
        if heard {
            self.pump_snapshot(now, id, host);
        }
    }

    /// Somebody has subscribed, or gone: backups for that subject begin.
    pub(in crate::jetstream) fn snapshots_interest(
        &mut self,
        now: Now,
        subject: &[u8],
        host: &mut impl Host,
    ) {
        let waiting = self.backups.snapshots.iter();
        let waiting = waiting.filter(|(_, one)| one.held.is_some() && *one.to == *subject);
        let ids: Vec<u32> = waiting.map(|(id, _)| *id).collect();
        if !ids.is_empty() && host.literal_listeners(subject, b"").plain {
            for id in ids {
                self.begin_snapshot(now, id, host);
            }
        }
    }

    /// It is not held any more.
    pub(super) fn begin_snapshot(&mut self, now: Now, id: u32, host: &mut impl Host) {
        self.release_snapshot(id, host);
        self.pump_snapshot(now, id, host);
    }

    fn release_snapshot(&mut self, id: u32, host: &mut impl Host) {
        let Some(snapshot) = self.backups.snapshots.get_mut(&id) else { return };
        if snapshot.held.take().is_some() && !self.consumers.are_watching(&snapshot.to) {
            host.unwatch(&snapshot.to);
        }
    }

    fn checked_snapshot(
        &self,
        name: &[u8],
        msg: &Inbound<'_>,
    ) -> Result<(StreamId, Request), ApiError> {
        if !json::level_ok(msg.headers) {
            return Err(ApiError::REQUIRED_LEVEL);
        }
        if json::is_empty_request(msg.payload) {
            return Err(ApiError::BAD_REQUEST);
        }
        let request: Request = json::decode(msg.payload, self.options.strict)?;
        let to = request.deliver_subject.as_bytes();
        if !subject::is_valid_strict(to) || subject::has_wildcard(to) {
            return Err(ApiError::fixed(10015, 400, "deliver subject not valid"));
        }
        let stream = self.stream_by_name(name).ok_or(ApiError::STREAM_NOT_FOUND)?;
        Ok((stream.id, request))
    }

    /// The receiver has taken a chunk.
    pub fn handle_snapshot_ack(
        &mut self,
        now: Now,
        id: u32,
        _msg: Inbound<'_>,
        host: &mut impl Host,
    ) {
        self.wall = now.wall;
        let Some(snapshot) = self.backups.snapshots.get_mut(&id) else { return };
        snapshot.open = snapshot.open.saturating_sub(1);
        snapshot.heard = now.instant;
        self.pump_snapshot(now, id, host);
    }

    /// Sends what may be sent, and asks for more.
    fn pump_snapshot(&mut self, now: Now, id: u32, host: &mut impl Host) {
        let Some(snapshot) = self.backups.snapshots.get_mut(&id) else { return };
        let mut at = 0;
        while snapshot.open < snapshot.window
            && let Some(chunk) = snapshot.out.get(at..at + snapshot.chunk)
        {
            at += chunk.len();
            snapshot.sent += 1;
            snapshot.open += 1;
            snapshot.heard = now.instant;
            let reply = format!("{}{}.{}", snapshot.ack_prefix, chunk.len(), snapshot.sent);
            let to = &snapshot.to;
            if !host.deliver(to, to, reply.as_bytes(), b"", chunk) {
                self.end_snapshot(id, "408 No Interest", host);
                return;
            }
        }
        snapshot.out.drain(..at);
        if snapshot.reading || snapshot.out.len() >= snapshot.chunk {
            return;
        }
        if snapshot.done {
            if !snapshot.out.is_empty() {
                let to = &snapshot.to;
                host.deliver(to, to, b"", b"", &snapshot.out);
            }
            let status = if snapshot.sent > 0 { "204" } else { "" };
            self.end_snapshot(id, status, host);
            return;
        }
        snapshot.reading = true;
        let (stream, from) = (snapshot.stream, snapshot.next);
        let token = self.token(Waiting::Backup(Pending::Snapshot(id)));
        let max_bytes = u32::try_from(limits::READ_CHUNK_BYTES).unwrap_or(u32::MAX);
        let filters = Arc::from([]);
        let request =
            StoreRequest::Read { token, stream, from, filters, max_msgs: u32::MAX, max_bytes };
        self.store(request, host);
    }

    /// Messages came from the store.
    pub(super) fn snapshot_read(
        &mut self,
        now: Now,
        id: u32,
        reply: StoreReply,
        host: &mut impl Host,
    ) {
        let Some(snapshot) = self.backups.snapshots.get_mut(&id) else { return };
        let StoreReply::Read { chunk, through, .. } = reply else { return };
        snapshot.reading = false;
        let chunk = match chunk {
            Ok(chunk) if self.streams.contains_key(&snapshot.stream) => chunk,
            Ok(_) => return self.end_snapshot(id, "500 stream not found", host),
            Err(error) => {
                // What the header cannot hold is not worth more.
                let text = error.text.replace(['\r', '\n'], " ");
                return self.end_snapshot(id, &format!("500 {text}"), host);
            }
        };
        let mut records = Vec::with_capacity(chunk.data.len() + 32 * chunk.msgs.len());
        for msg in chunk.msgs.iter().filter(|msg| msg.seq <= snapshot.last) {
            let entry = Entry {
                name: chunk.bytes(&msg.subject),
                timestamp: msg.timestamp,
                seq: msg.seq,
                headers: chunk.bytes(&msg.headers),
                payload: chunk.bytes(&msg.payload),
            };
            archive::write(&entry, &mut records);
        }
        let stuck = through < snapshot.next;
        snapshot.next = through.saturating_add(1);
        if through >= snapshot.last || stuck {
            snapshot.done = true;
            archive::write(&Entry::default(), &mut records);
        }
        frame::write(&records, &mut snapshot.out);
        self.pump_snapshot(now, id, host);
    }

    /// The last message to the receiver, with a status or without.
    pub(super) fn end_snapshot(&mut self, id: u32, status: &str, host: &mut impl Host) {
        self.release_snapshot(id, host);
        let Some(snapshot) = self.backups.snapshots.remove(&id) else { return };
        let subject = format!("{}*.*", snapshot.ack_prefix);
        host.unsubscribe(subject.as_bytes(), Target::Snapshot(id));
        let mut block = Vec::new();
        if !status.is_empty() {
            headers::write_status(&mut block, status, &[]);
        }
        host.deliver(&snapshot.to, &snapshot.to, b"", &block, b"");
        let client = snapshot.client;
        let news = News { start: Some(snapshot.began), client, ..News::default() };
        self.stream_news(&snapshot.name, "SNAPSHOT_COMPLETE", "snapshot_complete", news, host);
    }
}

/// What a backup has of a consumer.
#[derive(Serialize)]
pub(in crate::jetstream) struct ConsumerState {
    pub(in crate::jetstream) delivered: Position,
    pub(in crate::jetstream) ack_floor: Position,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(in crate::jetstream) pending: BTreeMap<Seq, PendingAck>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(in crate::jetstream) redelivered: BTreeMap<Seq, u32>,
}

/// Two sequences.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(in crate::jetstream) struct Position {
    pub(in crate::jetstream) consumer_seq: u64,
    pub(in crate::jetstream) stream_seq: Seq,
}

/// A message that was delivered and is not acknowledged.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(in crate::jetstream) struct PendingAck {
    /// Of its first delivery.
    pub(in crate::jetstream) sequence: u64,
    /// Of its last, Unix nanoseconds.
    pub(in crate::jetstream) timestamp: i64,
}
