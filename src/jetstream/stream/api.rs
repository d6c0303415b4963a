//! The `$JS.API`: which request goes where, and the endpoints that change streams.
//!
//! Owns dispatch, and create, update, delete, purge, message get and message delete. What
//! only shows things is `info`; `consumer` owns everything under `CONSUMER`.
//!
//! A change is applied to the tables when it is asked for, so that the next request already
//! meets it; its answer waits for the store, and a failure there takes it back.
//!
//! Source: ADR-1; order of checks and texts seen from nats-server 2.15.1.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use data_encoding::BASE64;
use serde::Serialize;

use super::config::ConfigRequest;
use super::config::StreamSource;
use super::{Pending, Stream, StreamConfig};
use crate::id::StreamId;
use crate::jetstream::host::{Host, Inbound, JsNotice};
use crate::jetstream::json::{self, ApiError, Asker, Empty, FromJson, Json, Path};
use crate::jetstream::storage::{
    Chunk, GetBy, Purge, Seq, StoreError, StoreReply, StoreRequest, StreamState, Token,
};
use crate::jetstream::{JetStream, Waiting};
use crate::limits;
use crate::subject::{self, Filter};
use crate::time::{Now, Timestamp};

/// Where requests arrive. Endpoints that are not listed here, like pull requests and direct
/// gets, are subscribed one by one: asking where nobody is gets "no responders". As with
/// nats-server, what is listed and unknown gets no answer at all.
pub(crate) const SUBJECTS: [&[u8]; 15] = [
    b"$JS.API.*",
    b"$JS.API.STREAM.>",
    b"$JS.API.CONSUMER.CREATE.>",
    b"$JS.API.CONSUMER.DURABLE.>",
    b"$JS.API.CONSUMER.NAMES.>",
    b"$JS.API.CONSUMER.LIST.>",
    b"$JS.API.CONSUMER.INFO.>",
    b"$JS.API.CONSUMER.DELETE.>",
    b"$JS.API.CONSUMER.PAUSE.>",
    b"$JS.API.CONSUMER.RESET.>",
    b"$JS.API.CONSUMER.UNPIN.>",
    b"$JS.API.CONSUMER.LEADER.>",
    b"$JS.API.META.>",
    b"$JS.API.SERVER.>",
    b"$JS.API.ACCOUNT.>",
];

const CREATE: &str = "stream_create_response";
const UPDATE: &str = "stream_update_response";
const DELETE: &str = "stream_delete_response";
const PURGE: &str = "stream_purge_response";
const MSG_GET: &str = "stream_msg_get_response";
const MSG_DELETE: &str = "stream_msg_delete_response";

/// `"purged"` is there on errors too.
#[derive(Serialize)]
struct PurgeBody {
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    success: bool,
    purged: u64,
}

#[derive(Serialize)]
struct Success {
    success: bool,
}

#[derive(Serialize)]
struct MsgGetBody {
    message: Message,
}

#[derive(Serialize)]
struct Message {
    subject: String,
    seq: Seq,
    #[serde(skip_serializing_if = "String::is_empty")]
    hdrs: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    data: String,
    time: String,
}

#[derive(Default)]
struct PurgeRequest {
    filter: String,
    seq: u64,
    keep: u64,
}

impl FromJson for PurgeRequest {
    const NAME: &'static str = "JSApiStreamPurgeRequest";

    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
        match key {
            "filter" => json::string(&mut self.filter, value, path),
            "seq" => json::uint(&mut self.seq, value, path),
            "keep" => json::uint(&mut self.keep, value, path),
            _ => Ok(false),
        }
    }
}

#[derive(Default)]
struct MsgDeleteRequest {
    seq: u64,
    no_erase: bool,
}

impl FromJson for MsgDeleteRequest {
    const NAME: &'static str = "JSApiMsgDeleteRequest";

    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
        match key {
            "seq" => json::uint(&mut self.seq, value, path),
            "no_erase" => json::boolean(&mut self.no_erase, value, path),
            _ => Ok(false),
        }
    }
}

/// Body of a message get or a direct get.
#[derive(Debug, Default)]
pub(super) struct GetRequest {
    pub(super) seq: u64,
    pub(super) last_by_subj: String,
    pub(super) next_by_subj: String,
    pub(super) start_time: Option<Timestamp>,
    pub(super) batch: i64,
    pub(super) max_bytes: i64,
    pub(super) multi_last: Vec<String>,
    pub(super) up_to_seq: u64,
    pub(super) up_to_time: Option<Timestamp>,
    pub(super) no_hdr: bool,
}

impl FromJson for GetRequest {
    const NAME: &'static str = "JSApiMsgGetRequest";

    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
        match key {
            "seq" => json::uint(&mut self.seq, value, path),
            "last_by_subj" => json::string(&mut self.last_by_subj, value, path),
            "next_by_subj" => json::string(&mut self.next_by_subj, value, path),
            "start_time" => json::time(self.start_time.get_or_insert_default(), value, path),
            "batch" => json::number(&mut self.batch, value, path, "int"),
            "max_bytes" => json::number(&mut self.max_bytes, value, path, "int"),
            "multi_last" => json::strings(&mut self.multi_last, value, path),
            "up_to_seq" => json::uint(&mut self.up_to_seq, value, path),
            "up_to_time" => json::time(self.up_to_time.get_or_insert_default(), value, path),
            "no_hdr" => json::boolean(&mut self.no_hdr, value, path),
            _ => Ok(false),
        }
        .inspect(|_| {
            if *value == Json::Null {
                match key {
                    "start_time" => self.start_time = None,
                    "up_to_time" => self.up_to_time = None,
                    _ => {}
                }
            }
        })
    }
}

impl GetRequest {
    /// Does it name a message at all?
    pub(super) fn is_addressed(&self) -> bool {
        self.seq > 0
            || !self.last_by_subj.is_empty()
            || !self.next_by_subj.is_empty()
            || self.start_time.is_some()
    }

    /// Does it name one in two ways?
    pub(super) fn is_ambiguous(&self) -> bool {
        let last = !self.last_by_subj.is_empty();
        let time = self.start_time.is_some();
        (self.seq > 0 && (last || time)) || (last && (time || !self.next_by_subj.is_empty()))
    }

    /// How to find the message. `None`: nothing can match.
    pub(super) fn lookup(&self) -> Option<Lookup> {
        if !self.last_by_subj.is_empty() {
            let filter = Filter::parse(self.last_by_subj.as_bytes()).ok()?;
            return Some(Lookup::Now(GetBy::LastBySubject(filter)));
        }
        let filter = match &*self.next_by_subj {
            "" => None,
            text => Some(Filter::parse(text.as_bytes()).ok()?),
        };
        Some(match (self.start_time, filter) {
            (Some(time), None) => Lookup::Now(GetBy::StartTime(time)),
            (Some(time), Some(filter)) => Lookup::TimeFirst(time, filter),
            (None, Some(filter)) => {
                Lookup::Now(GetBy::NextBySubject { filter, from: self.seq.max(1) })
            }
            (None, None) => Lookup::Now(GetBy::Seq(self.seq)),
        })
    }
}

/// How a message is found: at once, or by time and then by subject.
#[derive(Clone, Debug)]
pub(super) enum Lookup {
    Now(GetBy),
    TimeFirst(Timestamp, Filter),
}

impl Lookup {
    /// What to ask the store first.
    pub(super) fn first(&self) -> GetBy {
        match self {
            Self::Now(by) => by.clone(),
            Self::TimeFirst(time, _) => GetBy::StartTime(*time),
        }
    }

    /// What to ask next, given what was found. `None`: that was it.
    pub(super) fn next(self, found: &Chunk) -> Option<GetBy> {
        match self {
            Self::Now(_) => None,
            Self::TimeFirst(_, filter) => {
                let msg = found.msgs.first()?;
                if filter.matches(found.bytes(&msg.subject)) {
                    return None;
                }
                Some(GetBy::NextBySubject { filter, from: msg.seq })
            }
        }
    }
}

/// A message get under way.
#[derive(Debug)]
pub(crate) struct Get {
    asker: Asker,
    stream: StreamId,
    lookup: Lookup,
    no_hdr: bool,
}

fn failed(error: &StoreError, err_code: u16) -> ApiError {
    ApiError::with(err_code, 500, error.text.clone())
}

const GONE: StoreError = StoreError { text: String::new() };

/// The reason for a missing message, which nats-server words by its place.
fn missing(seq: Seq, state: &StreamState, memory: bool) -> ApiError {
    if memory || (seq >= state.first_seq && seq <= state.last_seq && seq > 0) {
        ApiError::with(10043, 400, format!("sequence {seq} not found"))
    } else if seq > state.last_seq {
        ApiError::fixed(10057, 500, "stream store EOF")
    } else {
        ApiError::fixed(10057, 500, "no message found")
    }
}

impl JetStream {
    /// Takes a request on one of `SUBJECTS`.
    pub fn handle_api(&mut self, now: Now, msg: Inbound<'_>, host: &mut impl Host) {
        let Some(rest) = msg.subject.strip_prefix(b"$JS.API.") else { return };
        (self.wall, self.clock) = (now.wall, now.instant);
        if self.waiting.len() >= limits::API_WAITING_MAX {
            return;
        }
        // No endpoint has more tokens but consumer creation, whose filter may be long.
        let tokens: Vec<&[u8]> = subject::tokens(rest).collect();
        match tokens[..] {
            [b"CONSUMER", b"LEADER", b"STEPDOWN", _, _] => {
                self.needs_cluster(&msg, "consumer_leader_stepdown_response", host);
            }
            [b"CONSUMER", ref rest @ ..] => self.consumer_api(now, rest, msg, host),
            [b"INFO"] => self.account_info(&msg, host),
            [b"STREAM", b"NAMES"] => self.stream_names(&msg, host),
            [b"STREAM", b"LIST"] => self.stream_list(now, &msg, host),
            [b"STREAM", b"INFO", name] => self.stream_info(now, name, &msg, host),
            [b"STREAM", b"CREATE", name] => self.stream_create(now, name, &msg, host),
            [b"STREAM", b"UPDATE", name] => self.stream_update(now, name, &msg, host),
            [b"STREAM", b"DELETE", name] => self.stream_delete(now, name, &msg, host),
            [b"STREAM", b"PURGE", name] => self.stream_purge(name, &msg, host),
            [b"STREAM", b"MSG", b"GET", name] => self.msg_get(name, &msg, host),
            [b"STREAM", b"MSG", b"DELETE", name] => self.msg_delete(name, &msg, host),
            [b"STREAM", b"SNAPSHOT", name] => self.stream_snapshot(now, name, &msg, host),
            [b"STREAM", b"RESTORE", name] => self.stream_restore(now, name, &msg, host),
            [b"STREAM", b"LEADER", b"STEPDOWN", _] => {
                self.needs_cluster(&msg, "stream_leader_stepdown_response", host);
            }
            [b"STREAM", b"PEER", b"REMOVE", _] => {
                self.needs_cluster(&msg, "stream_remove_peer_response", host);
            }
            [b"STREAM", b"PEER", b"EVACUATE", _] => {
                self.needs_cluster(&msg, "stream_evacuate_peer_response", host);
            }
            [b"STREAM", b"CANCEL_MOVE", _] => {
                self.needs_cluster(&msg, "stream_cancel_move_response", host);
            }
            _ => {}
        }
    }

    /// Answers with an error at once.
    pub(super) fn refuse(
        &mut self,
        msg: &Inbound<'_>,
        kind: &str,
        error: &ApiError,
        body: &impl Serialize,
        host: &mut impl Host,
    ) {
        let asker = self.asker(msg, host);
        self.respond_error(&asker, kind, error, body, host);
    }

    fn needs_cluster(&mut self, msg: &Inbound<'_>, kind: &str, host: &mut impl Host) {
        self.refuse(msg, kind, &ApiError::CLUSTER_REQUIRED, &Empty {}, host);
    }

    pub(in crate::jetstream) fn stream_token(&mut self, pending: Pending) -> Token {
        self.token(Waiting::Stream(pending))
    }

    // --- Create and update ---

    fn stream_create(&mut self, now: Now, name: &[u8], msg: &Inbound<'_>, host: &mut impl Host) {
        match self.checked_create(name, msg) {
            Ok((config, existing)) => {
                let asker = self.asker(msg, host);
                let Some(stream) = existing.or_else(|| self.shared.new_stream_id()) else {
                    let error = ApiError::fixed(10023, 503, "insufficient resources");
                    return self.refuse(msg, CREATE, &error, &Empty {}, host);
                };
                let settings = config.settings();
                let token =
                    self.stream_token(Pending::Create { asker, stream, new: existing.is_none() });
                if let Some(existing) = self.streams.get(&stream) {
                    // Nothing changes; the answer waits until the first create is durable.
                    let record = existing.config.record(existing.created, &self.options.account);
                    let request = StoreRequest::UpdateStream { token, stream, settings, record };
                    self.store(request, host);
                    return;
                }
                let created = self.message_time(now);
                let record = config.record(created, &self.options.account);
                let request = StoreRequest::CreateStream { token, stream, settings, record };
                self.store(request, host);
                self.add_stream(stream, config, created, host);
            }
            Err(error) => self.refuse(msg, CREATE, &error, &Empty {}, host),
        }
    }

    /// The configuration to create, and the id of the stream that has it already.
    fn checked_create(
        &self,
        name: &[u8],
        msg: &Inbound<'_>,
    ) -> Result<(StreamConfig, Option<StreamId>), ApiError> {
        if !json::level_ok(msg.headers) {
            return Err(ApiError::REQUIRED_LEVEL);
        }
        let request: ConfigRequest = json::decode(msg.payload, self.options.strict)?;
        let mut config = request.config;
        if config.name.as_bytes() != name {
            return Err(WRONG_NAME);
        }
        if config.name.contains(['/', '\\']) {
            return Err(PATH_SEPARATORS);
        }
        config.check_create()?;
        config.normalise(&self.options, request.pedantic)?;
        config.check(&self.options)?;
        self.check_origins(&mut config)?;
        self.check_account(&config)?;
        config.check_supported()?;
        if let Some(existing) = self.stream_by_name(name) {
            if existing.config == config {
                return Ok((config, Some(existing.id)));
            }
            return Err(ApiError::fixed(
                10058,
                400,
                "stream name already in use with a different configuration",
            ));
        }
        self.check_added(&config)?;
        Ok((config, None))
    }

    /// What else a new stream has to respect.
    pub(in crate::jetstream) fn check_added(&self, config: &StreamConfig) -> Result<(), ApiError> {
        let account = self.options.account_limits.max_streams.map(|max| max as usize);
        let full = account.is_some_and(|max| self.streams.len() >= max);
        if full || self.shared.streams() >= limits::STREAMS_MAX {
            return Err(ApiError::fixed(10027, 400, "maximum number of streams reached"));
        }
        self.check_reservation(config, 0)?;
        self.check_overlap(None, config)
    }

    fn stream_update(&mut self, now: Now, name: &[u8], msg: &Inbound<'_>, host: &mut impl Host) {
        match self.checked_update(name, msg) {
            Ok((stream, new)) => {
                let asker = self.asker(msg, host);
                let Some(found) = self.streams.get(&stream) else { return };
                let (old, created) = (found.config.clone(), found.created);
                let (settings, record) =
                    (new.settings(), new.record(created, &self.options.account));
                let token = self.stream_token(Pending::Update {
                    asker,
                    stream,
                    old: Box::new(old),
                    new: Box::new(new.clone()),
                });
                let request = StoreRequest::UpdateStream { token, stream, settings, record };
                self.store(request, host);
                self.configure_stream(stream, new, host);
                self.consumers_stream_updated(now, stream, host);
            }
            Err(error) => self.refuse(msg, UPDATE, &error, &Empty {}, host),
        }
    }

    fn checked_update(
        &self,
        name: &[u8],
        msg: &Inbound<'_>,
    ) -> Result<(StreamId, StreamConfig), ApiError> {
        if !json::level_ok(msg.headers) {
            return Err(ApiError::REQUIRED_LEVEL);
        }
        let request: ConfigRequest = json::decode(msg.payload, self.options.strict)?;
        let mut config = request.config;
        config.normalise(&self.options, request.pedantic)?;
        config.check_mirror_direct()?;
        config.check(&self.options)?;
        self.check_origins(&mut config)?;
        self.check_account(&config)?;
        if config.name.as_bytes() != name {
            return Err(WRONG_NAME);
        }
        let stream = self.stream_by_name(name).ok_or(ApiError::STREAM_NOT_FOUND)?;
        stream.config.check_update(&config)?;
        config.check_supported()?;
        let over = self.consumers_over_limits(stream.id, &config.consumer_limits);
        if !over.is_empty() {
            let text = format!("change to limits violates consumers: {}", over.join(", "));
            return Err(ApiError::with(10069, 500, text));
        }
        self.check_reservation(&config, stream.config.max_bytes)?;
        self.check_overlap(Some(stream.id), &config)?;
        config.seal();
        Ok((stream.id, config))
    }

    /// What the streams here that a stream mirrors or sources from ask of it.
    fn check_origins(&self, config: &mut StreamConfig) -> Result<(), ApiError> {
        let local = |source: &StreamSource| match source.external {
            None => self.stream_by_name(source.name.as_bytes()),
            Some(_) => None,
        };
        let is_smaller = |origin: &Stream| {
            config.max_msg_size > 0 && origin.config.max_msg_size > config.max_msg_size
        };
        if let Some(origin) = config.mirror.as_deref().and_then(local) {
            if is_smaller(origin) {
                let text = "stream mirror must have max message size >= source";
                return Err(ApiError::fixed(10030, 400, text));
            }
            config.mirror_direct = origin.config.allow_direct;
        }
        if config.sources.iter().filter_map(local).any(is_smaller) {
            let text = "stream source must have max message size >= target";
            return Err(ApiError::fixed(10046, 400, text));
        }
        // Nothing may come back to where it was.
        let mut names: Vec<&str> = config.origins().map(|source| &*source.name).collect();
        let mut seen = alloc::collections::BTreeSet::new();
        while let Some(name) = names.pop() {
            if name == config.name {
                return Err(ApiError::fixed(10052, 500, "detected cycle"));
            }
            if seen.insert(name)
                && let Some(stream) = self.stream_by_name(name.as_bytes())
            {
                names.extend(stream.config.origins().map(|source| &*source.name));
            }
        }
        Ok(())
    }

    /// What the account asks of a configuration.
    fn check_account(&self, config: &StreamConfig) -> Result<(), ApiError> {
        let limits = &self.options.account_limits;
        let wanted = u64::try_from(config.max_bytes).unwrap_or(0);
        let largest = if config.memory {
            limits.memory_max_stream_bytes
        } else {
            limits.storage_max_stream_bytes
        };
        if wanted == 0 && limits.max_bytes_required {
            let text = "account requires a stream config to have max bytes set";
            return Err(ApiError::fixed(10113, 400, text));
        }
        if largest.is_some_and(|largest| wanted > largest) {
            let text = "stream max bytes exceeds account limit max stream bytes";
            return Err(ApiError::fixed(10122, 400, text));
        }
        Ok(())
    }

    /// Is there room for what a stream may grow to? `before` is what it could already.
    fn check_reservation(&self, config: &StreamConfig, before: i64) -> Result<(), ApiError> {
        let account = &self.options.account_limits;
        let (server, account, error) = if config.memory {
            let text = "insufficient memory resources available";
            (self.options.max_memory, account.max_memory, ApiError::fixed(10028, 500, text))
        } else {
            let text = "insufficient storage resources available";
            (self.options.max_storage, account.max_storage, ApiError::fixed(10047, 500, text))
        };
        let Ok(wanted) = u64::try_from(config.max_bytes) else { return Ok(()) };
        let before = u64::try_from(before).unwrap_or(0);
        let over = |max: Option<u64>, reserved: u64| {
            let others = reserved.saturating_sub(before);
            wanted > before && max.is_some_and(|max| others.saturating_add(wanted) > max)
        };
        if over(server, self.shared.reserved(config.memory))
            || over(account, self.reserved(config.memory))
        {
            return Err(error);
        }
        Ok(())
    }

    /// The sum of `max_bytes` of all streams that have it.
    pub(super) fn reserved(&self, memory: bool) -> u64 {
        self.streams
            .values()
            .filter(|stream| stream.config.memory == memory)
            .filter_map(|stream| u64::try_from(stream.config.max_bytes).ok())
            .fold(0, u64::saturating_add)
    }

    fn check_overlap(&self, this: Option<StreamId>, config: &StreamConfig) -> Result<(), ApiError> {
        let others = self.streams.values().filter(|other| Some(other.id) != this);
        for other in others.flat_map(|other| &other.config.subjects) {
            let collides = |ours: &String| subject::collides(ours.as_bytes(), other.as_bytes());
            if config.subjects.iter().any(collides) {
                let text = "subjects overlap with an existing stream";
                return Err(ApiError::fixed(10065, 400, text));
            }
        }
        Ok(())
    }

    // --- Delete, purge, messages ---

    fn stream_delete(&mut self, now: Now, name: &[u8], msg: &Inbound<'_>, host: &mut impl Host) {
        let checked = if !json::level_ok(msg.headers) {
            Err(ApiError::REQUIRED_LEVEL)
        } else if !json::is_empty_request(msg.payload) {
            Err(ApiError::fixed(10038, 400, "expected an empty request payload"))
        } else {
            let stream = self.stream_by_name(name).ok_or(ApiError::STREAM_NOT_FOUND);
            stream.map(|stream| (stream.id, stream.name.clone()))
        };
        match checked {
            Ok((stream, name)) => {
                let asker = self.asker(msg, host);
                self.consumers_stream_deleted(now, stream, host);
                let token = self.stream_token(Pending::Delete { asker, name });
                self.store(StoreRequest::DeleteStream { token, stream }, host);
                self.remove_stream(stream, host);
            }
            Err(error) => self.refuse(msg, DELETE, &error, &Empty {}, host),
        }
    }

    fn stream_purge(&mut self, name: &[u8], msg: &Inbound<'_>, host: &mut impl Host) {
        match self.checked_purge(name, msg) {
            Ok((stream, purge)) => {
                let asker = self.asker(msg, host);
                let Some(purge) = purge else {
                    // A filter that no subject can match.
                    let body = PurgeBody { success: true, purged: 0 };
                    self.respond(&asker, PURGE, &body, host);
                    return;
                };
                let asked = Pending::Purge { asker, stream, purge: Box::new(purge.clone()) };
                let token = self.stream_token(asked);
                self.store(StoreRequest::Purge { token, stream, purge }, host);
            }
            Err(error) => {
                let body = PurgeBody { success: false, purged: 0 };
                self.refuse(msg, PURGE, &error, &body, host);
            }
        }
    }

    fn checked_purge(
        &self,
        name: &[u8],
        msg: &Inbound<'_>,
    ) -> Result<(StreamId, Option<Purge>), ApiError> {
        if !json::level_ok(msg.headers) {
            return Err(ApiError::REQUIRED_LEVEL);
        }
        let request: PurgeRequest = if json::has_body(msg.payload) {
            json::decode(msg.payload, self.options.strict)?
        } else {
            PurgeRequest::default()
        };
        if request.seq > 0 && request.keep > 0 {
            return Err(ApiError::BAD_REQUEST);
        }
        let stream = self.stream_by_name(name).ok_or(ApiError::STREAM_NOT_FOUND)?;
        if stream.config.sealed {
            return Err(SEALED);
        }
        if stream.config.deny_purge {
            return Err(ApiError::fixed(10110, 500, "stream purge not permitted"));
        }
        let filter = match &*request.filter {
            "" => None,
            text => match Filter::parse(text.as_bytes()) {
                Ok(filter) => Some(filter),
                Err(_) => return Ok((stream.id, None)),
            },
        };
        let purge = Purge {
            filter,
            before: (request.seq > 0).then_some(request.seq),
            keep: (request.keep > 0).then_some(request.keep),
        };
        Ok((stream.id, Some(purge)))
    }

    fn msg_delete(&mut self, name: &[u8], msg: &Inbound<'_>, host: &mut impl Host) {
        match self.checked_msg_delete(name, msg) {
            Ok((stream, request)) => {
                let asker = self.asker(msg, host);
                let (seq, erase) = (request.seq, !request.no_erase);
                let token = self.stream_token(Pending::DeleteMsg { asker, stream, seq });
                self.store(StoreRequest::DeleteMsg { token, stream, seq, erase }, host);
            }
            Err(error) => self.refuse(msg, MSG_DELETE, &error, &Empty {}, host),
        }
    }

    fn checked_msg_delete(
        &self,
        name: &[u8],
        msg: &Inbound<'_>,
    ) -> Result<(StreamId, MsgDeleteRequest), ApiError> {
        if !json::level_ok(msg.headers) {
            return Err(ApiError::REQUIRED_LEVEL);
        }
        if json::is_empty_request(msg.payload) {
            return Err(ApiError::BAD_REQUEST);
        }
        let request: MsgDeleteRequest = json::decode(msg.payload, self.options.strict)?;
        let stream = self.stream_by_name(name).ok_or(ApiError::STREAM_NOT_FOUND)?;
        if stream.config.sealed {
            return Err(SEALED);
        }
        if stream.config.deny_delete {
            return Err(ApiError::fixed(10057, 500, "message delete not permitted"));
        }
        Ok((stream.id, request))
    }

    fn msg_get(&mut self, name: &[u8], msg: &Inbound<'_>, host: &mut impl Host) {
        match self.checked_msg_get(name, msg) {
            Ok((stream, lookup, no_hdr)) => {
                let asker = self.asker(msg, host);
                let by = lookup.first();
                let get = Get { asker, stream, lookup, no_hdr };
                let token = self.stream_token(Pending::Get(get));
                self.store(StoreRequest::Get { token, stream, by }, host);
            }
            Err(error) => self.refuse(msg, MSG_GET, &error, &Empty {}, host),
        }
    }

    fn checked_msg_get(
        &self,
        name: &[u8],
        msg: &Inbound<'_>,
    ) -> Result<(StreamId, Lookup, bool), ApiError> {
        if !json::level_ok(msg.headers) {
            return Err(ApiError::REQUIRED_LEVEL);
        }
        if json::is_empty_request(msg.payload) {
            return Err(ApiError::BAD_REQUEST);
        }
        let request: GetRequest = json::decode(msg.payload, self.options.strict)?;
        if !request.is_addressed()
            || request.is_ambiguous()
            || request.batch != 0
            || request.max_bytes != 0
        {
            return Err(ApiError::BAD_REQUEST);
        }
        let stream = self.stream_by_name(name).ok_or(ApiError::STREAM_NOT_FOUND)?;
        let lookup = request.lookup().ok_or(NO_MESSAGE)?;
        Ok((stream.id, lookup, request.no_hdr))
    }

    // --- Replies of the store ---

    pub(crate) fn stream_reply(
        &mut self,
        now: Now,
        pending: Pending,
        reply: StoreReply,
        host: &mut impl Host,
    ) {
        match (pending, reply) {
            (Pending::Create { asker, stream, new }, StoreReply::Done { result, found, .. }) => {
                let result = if found || new { result } else { Err(GONE) };
                self.create_done(now, &asker, stream, new, result, host);
            }
            (
                Pending::Update { asker, stream, old, new },
                StoreReply::Done { result, found, .. },
            ) => {
                let result = if found { result } else { Err(GONE) };
                self.update_done(now, &asker, stream, (*old, *new), result, host);
            }
            (Pending::Delete { asker, name }, StoreReply::Done { result, .. }) => match result {
                Ok(()) => {
                    self.stream_advisory(&name, "DELETED", "delete", host);
                    self.respond(&asker, DELETE, &Success { success: true }, host);
                }
                Err(error) => {
                    host.notice(JsNotice::Error(format!(
                        "stream {name} is not deleted and comes back with a restart: {error}"
                    )));
                    self.respond_error(&asker, DELETE, &failed(&error, 10050), &Empty {}, host);
                }
            },
            (Pending::Purge { asker, stream, purge }, StoreReply::Purged { result, .. }) => {
                match result {
                    Ok(purged) => self.purged(now, asker, stream, purge, purged, host),
                    Err(error) => {
                        let body = PurgeBody { success: false, purged: 0 };
                        self.respond_error(&asker, PURGE, &failed(&error, 10051), &body, host);
                    }
                }
            }
            (Pending::Purged { asker, stream, purge, purged }, StoreReply::Got { msg, .. }) => {
                let first = msg.ok().flatten().and_then(|chunk| Some(chunk.msgs.first()?.seq));
                self.consumers_purged(now, stream, purge.filter.as_ref(), first, host);
                let body = PurgeBody { success: true, purged };
                self.respond(&asker, PURGE, &body, host);
            }
            (Pending::DeleteMsg { asker, stream, seq }, StoreReply::Done { result, found, .. }) => {
                let error = match (result, self.streams.get(&stream)) {
                    (Err(error), _) => failed(&error, 10057),
                    (Ok(()), _) if found => {
                        self.respond(&asker, MSG_DELETE, &Success { success: true }, host);
                        return;
                    }
                    (Ok(()), Some(stream)) => missing(seq, &stream.state, stream.config.memory),
                    (Ok(()), None) => ApiError::STREAM_NOT_FOUND,
                };
                self.respond_error(&asker, MSG_DELETE, &error, &Empty {}, host);
            }
            (Pending::Get(get), StoreReply::Got { msg, .. }) => self.got(get, msg, host),
            (Pending::Info(pending), reply) => self.info_reply(now, pending, reply, host),
            (Pending::Direct(pending), reply) => self.direct_reply(pending, reply, host),
            (Pending::Retention(pending), reply) => self.retention_reply(pending, reply, host),
            // A reply of another kind than the request: the store broke its promise; nobody
            // could be told anything true.
            _ => host.notice(JsNotice::Error("the store gave a reply of the wrong kind".into())),
        }
    }

    /// Consumers go on behind what was purged; then the answer.
    fn purged(
        &mut self,
        now: Now,
        asker: Asker,
        stream: StreamId,
        purge: Box<Purge>,
        purged: u64,
        host: &mut impl Host,
    ) {
        if let Some(filter) = purge.filter.clone()
            && (purge.before.is_some() || purge.keep.is_some())
            && self.has_consumers(stream)
        {
            let by = GetBy::NextBySubject { filter, from: 0 };
            let token = self.stream_token(Pending::Purged { asker, stream, purge, purged });
            self.store(StoreRequest::Get { token, stream, by }, host);
            return;
        }
        self.consumers_purged(now, stream, purge.filter.as_ref(), None, host);
        let body = PurgeBody { success: true, purged };
        self.respond(&asker, PURGE, &body, host);
    }

    fn create_done(
        &mut self,
        now: Now,
        asker: &Asker,
        stream: StreamId,
        new: bool,
        result: Result<(), StoreError>,
        host: &mut impl Host,
    ) {
        if let Err(error) = result {
            if new {
                self.consumers_stream_deleted(now, stream, host);
                self.remove_stream(stream, host);
            }
            let text = if error == GONE { "stream was deleted".into() } else { error.text };
            let error = ApiError::with(10049, 500, text);
            self.respond_error(asker, CREATE, &error, &Empty {}, host);
            return;
        }
        match self.shown_stream(now, stream) {
            Some((name, mut info)) => {
                info.domain = None;
                info.did_create = true;
                if new {
                    self.stream_advisory(&name, "CREATED", "create", host);
                }
                self.respond(asker, CREATE, &info, host);
            }
            None => {
                self.respond_error(asker, CREATE, &ApiError::STREAM_NOT_FOUND, &Empty {}, host);
            }
        }
    }

    fn update_done(
        &mut self,
        now: Now,
        asker: &Asker,
        stream: StreamId,
        (old, new): (StreamConfig, StreamConfig),
        result: Result<(), StoreError>,
        host: &mut impl Host,
    ) {
        if let Err(error) = result {
            // A later update that is still on its way stays in force.
            if self.streams.get(&stream).is_some_and(|stream| stream.config == new) {
                self.configure_stream(stream, old, host);
                self.consumers_stream_updated(now, stream, host);
            }
            let error =
                if error == GONE { ApiError::STREAM_NOT_FOUND } else { failed(&error, 10069) };
            self.respond_error(asker, UPDATE, &error, &Empty {}, host);
            return;
        }
        match self.shown_stream(now, stream) {
            Some((name, info)) => {
                self.stream_advisory(&name, "UPDATED", "modify", host);
                self.respond(asker, UPDATE, &info, host);
            }
            None => {
                self.respond_error(asker, UPDATE, &ApiError::STREAM_NOT_FOUND, &Empty {}, host);
            }
        }
    }

    fn got(&mut self, get: Get, msg: Result<Option<Chunk>, StoreError>, host: &mut impl Host) {
        let Get { asker, stream, lookup, no_hdr } = get;
        let chunk = match msg {
            Ok(Some(chunk)) => chunk,
            Ok(None) => {
                self.respond_error(&asker, MSG_GET, &NO_MESSAGE, &Empty {}, host);
                return;
            }
            Err(error) => {
                self.respond_error(&asker, MSG_GET, &failed(&error, 10051), &Empty {}, host);
                return;
            }
        };
        if let Some(by) = lookup.next(&chunk) {
            let get = Get { asker, stream, lookup: Lookup::Now(by.clone()), no_hdr };
            let token = self.stream_token(Pending::Get(get));
            self.store(StoreRequest::Get { token, stream, by }, host);
            return;
        }
        let Some(msg) = chunk.msgs.first() else {
            self.respond_error(&asker, MSG_GET, &NO_MESSAGE, &Empty {}, host);
            return;
        };
        let hdrs = if no_hdr { &b""[..] } else { chunk.bytes(&msg.headers) };
        let message = Message {
            subject: String::from_utf8_lossy(chunk.bytes(&msg.subject)).into_owned(),
            seq: msg.seq,
            hdrs: BASE64.encode(hdrs),
            data: BASE64.encode(chunk.bytes(&msg.payload)),
            time: msg.timestamp.rfc3339(),
        };
        Self::respond_uncounted(&asker, MSG_GET, &MsgGetBody { message }, host);
    }
}

const WRONG_NAME: ApiError =
    ApiError::fixed(10056, 400, "stream name in subject does not match request");
const PATH_SEPARATORS: ApiError =
    ApiError::fixed(10128, 400, "Stream name can not contain path separators");
const SEALED: ApiError = ApiError::fixed(10109, 400, "invalid operation on sealed stream");
const NO_MESSAGE: ApiError = ApiError::fixed(10037, 404, "no message found");
