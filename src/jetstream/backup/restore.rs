//! Taking a backup in: parts as they arrive, messages into a stream that nobody sees yet.
//!
//! Owns the order of things: one piece is with the store at a time, and a part is answered
//! when the store has what it held. The stream is served when all of it is there.
//!
//! # Invariants
//! - The stream has an empty record until the end: what a crash leaves is removed at the next
//!   start.
//! - Holds the parts that wait, at most one entry that is not complete, and one piece.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::Serialize;

use super::archive::{self, Entry};
use super::{ID_LEN, PATIENCE, Pending, frame};
use crate::id::StreamId;
use crate::jetstream::advisory::News;
use crate::jetstream::host::{Host, Inbound, Target};
use crate::jetstream::json::{self, ApiError, Asker, Empty, FromJson, Json, Path};
use crate::jetstream::storage::{
    Chunk, ConsumerRecord, Seq, StoreReply, StoreRequest, StoredMsg, StreamSettings,
};
use crate::jetstream::stream::StreamConfig;
use crate::jetstream::{JetStream, Waiting};
use crate::limits;
use crate::subject;
use crate::time::{Instant, Now, Timestamp};

const KIND: &str = "stream_restore_response";
const CREATE: &str = "stream_create_response";
/// Bytes of messages given to the store at once.
const PIECE_BYTES: usize = 1024 * 1024;

/// What the store is doing for a restore.
#[derive(Debug)]
pub(crate) enum Step {
    /// Making the stream.
    Begin,
    /// Taking messages.
    Piece,
    /// Giving it its configuration; then whoever sent the last part is answered.
    Finish(Box<[u8]>),
}

#[derive(Debug, Default)]
struct Request {
    config: StreamConfig,
    state: State,
}

impl FromJson for Request {
    const NAME: &'static str = "JSApiStreamRestoreRequest";

    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
        match key {
            "config" => json::object(&mut self.config, value, path),
            "state" => json::object(&mut self.state, value, path),
            _ => Ok(false),
        }
    }
}

/// What matters of a stream's state.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    first_seq: Seq,
    last_seq: Seq,
}

impl FromJson for State {
    const NAME: &'static str = "StreamState";

    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
        match key {
            "first_seq" => json::uint(&mut self.first_seq, value, path),
            "last_seq" => json::uint(&mut self.last_seq, value, path),
            "messages" | "bytes" | "first_ts" | "last_ts" | "num_subjects" | "subjects"
            | "num_deleted" | "deleted" | "lost" | "consumer_count" => Ok(true),
            _ => Ok(false),
        }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    deliver_subject: &'a str,
}

/// What a client sent; an empty one is the end.
#[derive(Debug)]
struct Part {
    reply: Box<[u8]>,
    bytes: Vec<u8>,
    at: usize,
}

/// A restore under way.
#[derive(Debug)]
pub(super) struct Restore {
    config: StreamConfig,
    subject: String,
    stream: StreamId,
    frame: frame::Reader,
    archive: archive::Reader,
    /// Known with the first entry.
    state: Option<State>,
    /// The last entry was there.
    ended: bool,
    parts: VecDeque<Part>,
    piece: Chunk,
    /// Of the newest message.
    last: Seq,
    consumers: Vec<(ConsumerRecord, bool)>,
    /// The store has a piece.
    busy: bool,
    /// The store does the last thing.
    finishing: bool,
    /// Of all parts, and of all messages and consumers.
    bytes: u64,
    stored: u64,
    held: usize,
    began: Timestamp,
    /// Who asked for it, as JSON.
    client: Vec<u8>,
    /// When the sender was last heard of.
    heard: Instant,
}

impl Restore {
    /// When the sender has been silent for long enough.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.parts.is_empty() && !self.busy && !self.finishing).then(|| self.heard + PATIENCE)
    }

    /// Looks at an entry. Consumers are put into `consumers`.
    fn take(
        &mut self,
        entry: &Entry<'_>,
        consumers: &mut Vec<(String, Vec<u8>)>,
    ) -> Result<(), String> {
        if self.ended {
            return Err("entry after the end".into());
        }
        if entry.is_end() {
            self.ended = true;
            return Ok(());
        }
        let Some(state) = self.state else {
            if entry.name != archive::STATE || entry.seq != 0 {
                return Err("state is missing".into());
            }
            let state: State = json::decode(entry.payload, false)
                .map_err(|error| error.description.into_owned())?;
            if state.last_seq == Seq::MAX || state.first_seq > state.last_seq.saturating_add(1) {
                return Err("state is not valid".into());
            }
            self.state = Some(state);
            return Ok(());
        };
        if entry.seq == 0 {
            let name = entry.name.strip_prefix(archive::CONSUMERS).unwrap_or_default();
            let name = core::str::from_utf8(name).unwrap_or_default();
            self.held += entry.payload.len();
            if name.is_empty() || self.held > limits::RESTORE_ENTRY_BYTES_MAX {
                return Err("entry is not valid".into());
            }
            consumers.push((name.into(), entry.payload.to_vec()));
            return Ok(());
        }
        let headers = entry.headers;
        let are_headers = headers.is_empty()
            || headers.starts_with(b"NATS/1.0") && headers.ends_with(b"\r\n\r\n");
        if entry.seq <= self.last
            || entry.seq > state.last_seq
            || headers.len() > limits::STORED_HEADER_BYTES_MAX
            || !are_headers
            || !subject::is_valid_strict(entry.name)
        {
            return Err(format!("message {} is not valid", entry.seq));
        }
        self.last = entry.seq;
        let data = &mut self.piece.data;
        let mut put = |bytes: &[u8]| {
            let start = u32::try_from(data.len()).unwrap_or(u32::MAX);
            data.extend_from_slice(bytes);
            start..u32::try_from(data.len()).unwrap_or(u32::MAX)
        };
        let msg = StoredMsg {
            seq: entry.seq,
            timestamp: entry.timestamp,
            subject: put(entry.name),
            headers: put(headers),
            payload: put(entry.payload),
        };
        self.stored += (entry.name.len() + headers.len() + entry.payload.len()) as u64;
        self.piece.msgs.push(msg);
        Ok(())
    }

    /// Takes the next bit of the oldest part apart. False: there is no more of it.
    fn advance(&mut self, consumers: &mut Vec<(String, Vec<u8>)>) -> Result<bool, String> {
        let Some(part) = self.parts.front_mut() else { return Ok(false) };
        let mut rest = part.bytes.get(part.at..).unwrap_or_default();
        let corrupt = |_| String::from("s2: corrupt input");
        let more = self.frame.feed(&mut rest, self.archive.room()).map_err(corrupt)?;
        part.at = part.bytes.len() - rest.len();
        let mut reader = core::mem::take(&mut self.archive);
        let mut problem = None;
        let read = reader.entries(|entry| match self.take(entry, consumers) {
            Ok(()) => true,
            Err(text) => {
                problem = Some(text);
                false
            }
        });
        self.archive = reader;
        match (problem, read) {
            (Some(text), _) => Err(text),
            (None, Err(_)) => Err("archive is not valid".into()),
            (None, Ok(())) => Ok(more),
        }
    }
}

impl JetStream {
    /// `STREAM.RESTORE.<stream>`.
    pub(in crate::jetstream) fn stream_restore(
        &mut self,
        now: Now,
        name: &[u8],
        msg: &Inbound<'_>,
        host: &mut impl Host,
    ) {
        let asker = self.asker(msg, host);
        let begun = self.checked_restore(name, msg).and_then(|config| {
            let id = self.backups.number().ok_or_else(|| {
                ApiError::with(10062, 500, "restore failed: too many are under way")
            })?;
            let stream = self.shared.new_stream_id();
            let full = ApiError::fixed(10023, 503, "insufficient resources");
            Ok((id, config, stream.ok_or(full)?))
        });
        let (id, config, stream) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                let body = Body { deliver_subject: "" };
                return self.respond_error(&asker, KIND, &error, &body, host);
            }
        };
        let name = config.name.clone();
        let subject = format!("$JS.SNAPSHOT.RESTORE.{name}.{}", self.rng.token(ID_LEN));
        host.subscribe(subject.as_bytes(), Target::Restore(id));
        self.respond(&asker, KIND, &Body { deliver_subject: &subject }, host);
        let client = host.requester(msg.headers);
        let news = News { client: client.clone(), ..News::default() };
        self.stream_news(&name, "RESTORE_CREATE", "restore_create", news, host);
        let restore = Restore {
            config,
            subject,
            stream,
            frame: frame::Reader::default(),
            archive: archive::Reader::default(),
            state: None,
            ended: false,
            parts: VecDeque::new(),
            piece: Chunk::default(),
            last: 0,
            consumers: Vec::new(),
            busy: false,
            finishing: false,
            bytes: 0,
            stored: 0,
            held: 0,
            began: now.wall,
            client,
            heard: now.instant,
        };
        self.backups.restores.insert(id, restore);
    }

    fn checked_restore(&self, name: &[u8], msg: &Inbound<'_>) -> Result<StreamConfig, ApiError> {
        if !json::level_ok(msg.headers) {
            return Err(ApiError::REQUIRED_LEVEL);
        }
        if json::is_empty_request(msg.payload) {
            return Err(ApiError::BAD_REQUEST);
        }
        let request: Request = json::decode(msg.payload, self.options.strict)?;
        let mut config = request.config;
        if config.name.is_empty() {
            config.name = String::from_utf8_lossy(name).into_owned();
        }
        if config.name.as_bytes() != name {
            let text = "stream name in subject does not match request";
            return Err(ApiError::fixed(10056, 400, text));
        }
        config.normalise(&self.options, false)?;
        config.check(&self.options)?;
        config.check_supported()?;
        if self.stream_by_name(name).is_some() {
            let text = "stream name already in use, cannot restore";
            return Err(ApiError::fixed(10130, 400, text));
        }
        Ok(config)
    }

    /// A part of a backup that is restored.
    pub fn handle_restore(&mut self, now: Now, id: u32, msg: Inbound<'_>, host: &mut impl Host) {
        self.wall = now.wall;
        let Some(restore) = self.backups.restores.get_mut(&id) else { return };
        restore.heard = now.instant;
        restore.bytes += msg.payload.len() as u64;
        let waiting: usize = restore.parts.iter().map(|part| part.bytes.len()).sum();
        let bytes = msg.payload.to_vec();
        restore.parts.push_back(Part { reply: msg.reply.into(), bytes, at: 0 });
        if waiting > limits::RESTORE_BYTES_MAX {
            self.fail_restore(id, msg.reply, "more was sent than is taken", host);
            return;
        }
        self.go_on_restoring(now, id, host);
    }

    /// Works off the parts, until the store has something to do.
    fn go_on_restoring(&mut self, now: Now, id: u32, host: &mut impl Host) {
        loop {
            let Some(restore) = self.backups.restores.get_mut(&id) else { return };
            if restore.busy || restore.finishing {
                return;
            }
            let Some(part) = restore.parts.front() else { return };
            let (is_end, reply) = (part.bytes.is_empty(), part.reply.clone());
            if is_end {
                self.finish_restore(now, id, &reply, host);
                return;
            }
            let (mut consumers, begun) = (Vec::new(), restore.state.is_some());
            let advanced = restore.advance(&mut consumers);
            let (stream, memory) = (restore.stream, restore.config.memory);
            let start = restore.state.filter(|_| !begun).map(|state| state.first_seq);
            if let Some(first_seq) = start {
                // Limits hold when all of it is there.
                let StreamSettings { name, allow_ttl, schedules, .. } = restore.config.settings();
                let settings = StreamSettings {
                    name,
                    memory,
                    first_seq,
                    allow_ttl,
                    schedules,
                    ..StreamSettings::default()
                };
                let token = self.token(Waiting::Backup(Pending::Restore(id, Step::Begin)));
                let record = Vec::new();
                let request = StoreRequest::CreateStream { token, stream, settings, record };
                self.store(request, host);
            }
            let carried = advanced.and_then(|more| {
                let Some(restore) = self.backups.restores.get(&id) else { return Ok(more) };
                let mut records = Vec::new();
                for (name, body) in &consumers {
                    records.push(self.carried_consumer(now, &restore.config, name, body)?);
                }
                if self.is_over_storage(memory, restore.stored) {
                    return Err("insufficient storage resources available (10047)".into());
                }
                if let Some(restore) = self.backups.restores.get_mut(&id) {
                    restore.consumers.append(&mut records);
                }
                Ok(more)
            });
            let more = match carried {
                Ok(more) => more,
                Err(text) => return self.fail_restore(id, &reply, &text, host),
            };
            let Some(restore) = self.backups.restores.get_mut(&id) else { return };
            if restore.piece.data.len() >= PIECE_BYTES || !more && !restore.piece.msgs.is_empty() {
                let chunk = Arc::new(core::mem::take(&mut restore.piece));
                restore.busy = true;
                let token = self.token(Waiting::Backup(Pending::Restore(id, Step::Piece)));
                self.store(StoreRequest::Restore { token, stream, chunk, last: 0 }, host);
            } else if !more {
                restore.parts.pop_front();
                restore.heard = now.instant;
                host.deliver(&reply, &reply, b"", b"", b"");
            }
        }
    }

    /// Would so many bytes more be over what the account or the server may store?
    fn is_over_storage(&self, memory: bool, more: u64) -> bool {
        let account = &self.options.account_limits;
        let (account, server, used) = if memory {
            (account.max_memory, self.options.max_memory, self.usage.memory)
        } else {
            (account.max_storage, self.options.max_storage, self.usage.file)
        };
        let over = |max: Option<u64>, used: u64| max.is_some_and(|max| used + more > max);
        over(account, used) || over(server, self.shared.used(memory))
    }

    /// All parts are there: the stream gets its name.
    fn finish_restore(&mut self, now: Now, id: u32, reply: &[u8], host: &mut impl Host) {
        let Some(restore) = self.backups.restores.get(&id) else { return };
        let complete = restore.frame.is_complete() && restore.archive.is_drained();
        let Some(state) = restore.state.filter(|_| complete && restore.ended) else {
            let text = if restore.state.is_none() { "EOF" } else { "unexpected EOF" };
            return self.fail_restore(id, reply, text, host);
        };
        let added = if self.names.contains_key(&restore.config.name) {
            Err(ApiError::fixed(10058, 400, "stream name already in use"))
        } else {
            self.check_added(&restore.config)
        };
        if let Err(error) = added {
            let text = format!("error adding stream: {} ({})", error.description, error.err_code);
            return self.fail_restore(id, reply, &text, host);
        }
        let Some(restore) = self.backups.restores.get_mut(&id) else { return };
        restore.finishing = true;
        let (stream, config) = (restore.stream, restore.config.clone());
        let consumers = restore.consumers.iter().filter(|(_, persisted)| *persisted);
        let consumers: Vec<ConsumerRecord> = consumers.map(|(record, _)| record.clone()).collect();
        for consumer in consumers {
            self.store(StoreRequest::PutConsumer { token: None, stream, consumer }, host);
        }
        let token = self.token(Waiting::Backup(Pending::Restore(id, Step::Begin)));
        let chunk = Arc::new(Chunk::default());
        self.store(StoreRequest::Restore { token, stream, chunk, last: state.last_seq }, host);
        let (settings, record) =
            (config.settings(), config.record(now.wall, &self.options.account));
        let token = self.token(Waiting::Backup(Pending::Restore(id, Step::Finish(reply.into()))));
        self.store(StoreRequest::UpdateStream { token, stream, settings, record }, host);
        self.add_stream(stream, config, now.wall, host);
    }

    /// The store has done its part.
    pub(super) fn restore_stored(
        &mut self,
        now: Now,
        id: u32,
        step: Step,
        reply: &StoreReply,
        host: &mut impl Host,
    ) {
        let Some(restore) = self.backups.restores.get_mut(&id) else { return };
        let failure = match reply {
            StoreReply::Done { result: Err(error), .. } => Some(error.text.clone()),
            _ => None,
        };
        let waiting = match &step {
            Step::Finish(reply) => Some(reply.clone()),
            _ => restore.parts.front().map(|part| part.reply.clone()),
        };
        if let Some(text) = failure {
            return self.fail_restore(id, &waiting.unwrap_or_default(), &text, host);
        }
        match step {
            Step::Begin => {}
            Step::Piece => {
                restore.busy = false;
                restore.heard = now.instant;
                self.go_on_restoring(now, id, host);
            }
            Step::Finish(reply) => {
                let (stream, name) = (restore.stream, restore.config.name.clone());
                let records = core::mem::take(&mut restore.consumers);
                let records = records.into_iter().map(|(record, _)| record).collect();
                self.consumers_recovered(now, stream, records, host);
                self.stream_advisory(&name, "CREATED", "create", host);
                self.end_restore(id, false, host);
                if let Some((_, mut info)) = self.shown_stream(now, stream) {
                    info.domain = None;
                    self.respond(&Asker { reply, audit: None }, CREATE, &info, host);
                }
            }
        }
    }

    fn fail_restore(&mut self, id: u32, reply: &[u8], text: &str, host: &mut impl Host) {
        self.end_restore(id, true, host);
        let error = ApiError::with(10062, 500, format!("restore failed: {text}"));
        let asker = Asker { reply: reply.into(), audit: None };
        self.respond_error(&asker, CREATE, &error, &Empty {}, host);
    }

    /// Nothing more is taken. `remove`: nor kept.
    pub(super) fn end_restore(&mut self, id: u32, remove: bool, host: &mut impl Host) {
        let Some(restore) = self.backups.restores.remove(&id) else { return };
        host.unsubscribe(restore.subject.as_bytes(), Target::Restore(id));
        if remove {
            if restore.finishing {
                self.remove_stream(restore.stream, host);
            }
            self.forget_unfinished(restore.stream, host);
        }
        let news = News {
            start: Some(restore.began),
            bytes: Some(restore.bytes),
            client: restore.client,
            ..News::default()
        };
        self.stream_news(&restore.config.name, "RESTORE_COMPLETE", "restore_complete", news, host);
    }

    /// Removes a stream from the store that was never served.
    pub(in crate::jetstream) fn forget_unfinished(
        &mut self,
        stream: StreamId,
        host: &mut impl Host,
    ) {
        let token = self.unwatched_token();
        self.store(StoreRequest::DeleteStream { token, stream }, host);
    }
}
