//! Requests about a consumer that exists: INFO, NAMES, LIST, DELETE, PAUSE, RESET, UNPIN.
//!
//! Owns their bodies and the object that describes a consumer. Does not own creation and
//! update (`create`).
//!
//! Source: seen from nats-server 2.15.1.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Serialize, Serializer};

use super::config::{ConsumerConfig, DeliverPolicy, is_valid_group};
use super::priority::GroupState;
use super::pull::Speaker;
use super::requests::{PageRequest, PauseRequest, ResetRequest, UnpinRequest};
use super::state::Position;
use super::{Consumer, Pending};
use crate::id::{ConsumerId, StreamId};
use crate::jetstream::host::{Host, Inbound};
use crate::jetstream::json::{self, ApiError, Asker, Empty};
use crate::jetstream::storage::{GetBy, Seq, StoreError, StoreReply, StoreRequest};
use crate::jetstream::{JetStream, Waiting};
use crate::limits;
use crate::time::{Now, Timestamp};

pub(super) const STREAM_NOT_FOUND: ApiError = ApiError::fixed(10059, 404, "stream not found");
pub(super) const NOT_FOUND: ApiError = ApiError::fixed(10014, 404, "consumer not found");
const EMPTY_EXPECTED: ApiError = ApiError::fixed(10038, 400, "expected an empty request payload");
const NO_SUCH_GROUP: ApiError =
    ApiError::fixed(10160, 400, "Provided priority group does not exist for this consumer");
const BAD_GROUP: ApiError = ApiError::fixed(
    10162,
    400,
    "Valid priority group name must match A-Z, a-z, 0-9, -_/=)+ and may not exceed 16 characters",
);

const RESET: &str = "consumer_reset_response";

/// An answer that waits until the consumer is counted and its record durable.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) asker: Asker,
    pub(super) kind: ReplyKind,
}

/// What the answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplyKind {
    /// The consumer is new.
    Created,
    /// It existed, and may have been changed.
    Updated,
    /// It delivers to another subject now; whether somebody listens there is not told yet.
    Moved,
    /// It was reset.
    Reset,
    /// It was paused or resumed.
    Paused,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
pub(super) fn write_time<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(time)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_never(time: &Timestamp) -> bool {
    time.0 == 0
}

#[derive(Debug, Serialize)]
struct Sequences {
    consumer_seq: u64,
    stream_seq: Seq,
    #[serde(skip_serializing_if = "is_never", serialize_with = "write_time")]
    last_active: Timestamp,
}

impl Sequences {
    fn new(position: Position, last_active: Timestamp) -> Self {
        Self { consumer_seq: position.consumer, stream_seq: position.stream, last_active }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// What the API tells about a consumer.
#[derive(Debug, Serialize)]
pub(super) struct Info<'a> {
    stream_name: &'a str,
    name: &'a str,
    #[serde(serialize_with = "write_time")]
    created: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Cow<'a, ConsumerConfig>>,
    delivered: Sequences,
    ack_floor: Sequences,
    num_ack_pending: usize,
    num_redelivered: usize,
    num_waiting: usize,
    num_pending: u64,
    #[serde(skip_serializing_if = "is_false")]
    push_bound: bool,
    #[serde(skip_serializing_if = "is_false")]
    paused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pause_remaining: Option<i64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    priority_groups: Vec<GroupState<'a>>,
    #[serde(serialize_with = "write_time")]
    ts: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    reset_seq: Option<Seq>,
}

#[derive(Debug, Serialize)]
struct Page<T> {
    total: usize,
    offset: usize,
    limit: usize,
    consumers: Vec<T>,
}

impl<T> Page<T> {
    fn empty() -> Self {
        Self { total: 0, offset: 0, limit: 0, consumers: Vec::new() }
    }
}

#[derive(Debug, Serialize)]
struct PauseBody {
    paused: bool,
    #[serde(serialize_with = "write_time")]
    pause_until: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pause_remaining: Option<i64>,
}

const NOT_PAUSED: PauseBody =
    PauseBody { paused: false, pause_until: Timestamp(0), pause_remaining: None };

#[derive(Debug, Serialize)]
struct NotReset {
    reset_seq: Seq,
}

#[derive(Debug, Serialize)]
struct Success {
    success: bool,
}

impl Consumer {
    /// Nanoseconds left of a pause.
    fn pause_remaining(&self, now: Now) -> Option<i64> {
        let until = self.config.pause_until?;
        Some(until.0.saturating_sub(now.wall.0)).filter(|&left| left > 0)
    }

    /// Undelivered messages, as far as the stream still has any.
    pub(super) fn shown_pending(&self, messages: u64, last_seq: Seq) -> u64 {
        let (next, listed) = self.cursor.after_list();
        let room = last_seq.saturating_add(1).saturating_sub(next).saturating_add(listed);
        self.count.pending.min(messages).min(room)
    }
}

impl JetStream {
    pub(super) fn find_consumer(
        &self,
        stream: &[u8],
        name: &[u8],
    ) -> Result<(StreamId, ConsumerId), ApiError> {
        let stream = self.stream_by_name(stream).ok_or(STREAM_NOT_FOUND)?.id;
        let id = self.consumers.by_name(stream, name).ok_or(NOT_FOUND)?;
        Ok((stream, id))
    }

    /// The description of a consumer. `versions`: with what this server is.
    pub(super) fn consumer_info(
        &self,
        now: Now,
        id: ConsumerId,
        versions: bool,
    ) -> Option<Info<'_>> {
        let consumer = self.consumers.get(id)?;
        let stream = self.streams.get(&consumer.stream)?;
        let progress = &consumer.progress;
        let remaining = consumer.pause_remaining(now);
        // With one delivery allowed nothing is ever delivered again.
        let redelivered =
            if consumer.config.max_deliver == 1 { 0 } else { progress.redelivered_count() };
        Some(Info {
            stream_name: &stream.name,
            name: &consumer.name,
            created: consumer.created,
            config: Some(if versions {
                consumer.config.with_versions(&self.options.version)
            } else {
                Cow::Borrowed(&consumer.config)
            }),
            delivered: Sequences::new(progress.delivered, progress.last_delivery),
            ack_floor: Sequences::new(progress.floor, progress.last_ack),
            num_ack_pending: progress.pending.len(),
            num_redelivered: redelivered,
            num_waiting: consumer.waiting.len(),
            num_pending: consumer.shown_pending(stream.state.messages, stream.state.last_seq),
            push_bound: consumer.push.as_ref().is_some_and(|push| push.active),
            paused: remaining.is_some(),
            pause_remaining: remaining,
            priority_groups: consumer.group_states(),
            ts: now.wall,
            reset_seq: None,
        })
    }

    /// A stream's consumers for the monitoring pages, JSON, by name: those of clients, or
    /// those that only serve mirrors and sources.
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "only monitoring asks"))]
    pub(crate) fn consumer_jsons(
        &self,
        now: Now,
        stream: StreamId,
        config: bool,
        hidden: bool,
    ) -> Vec<Vec<u8>> {
        let Some(names) = self.consumers.by_stream.get(&stream) else { return Vec::new() };
        let ids = names.values().filter(|id| {
            self.consumers.get(**id).is_some_and(|found| found.config.is_hidden() == hidden)
        });
        ids.filter_map(|id| {
            let mut info = self.consumer_info(now, *id, false)?;
            if !config {
                info.config = None;
            }
            serde_json::to_vec(&info).ok()
        })
        .collect()
    }

    /// Has a stream a consumer of this name?
    pub fn has_consumer(&self, stream: &str, name: &str) -> bool {
        self.find_consumer(stream.as_bytes(), name.as_bytes()).is_ok()
    }

    /// Looking also ends the pull requests nobody waits for any more.
    fn drop_dead_requests(&mut self, now: Now, id: ConsumerId, host: &mut impl Host) {
        let leafs = host.has_leafs();
        let (Some(consumer), scratch) = self.consumers.get_with_scratch(id) else { return };
        consumer.waiting.drop_dead(now, leafs, &mut Speaker { host, scratch });
    }

    /// Sends the answers that waited for the store, once it has done its part.
    pub(super) fn settle_replies(
        &mut self,
        now: Now,
        id: ConsumerId,
        failure: Option<&StoreError>,
        host: &mut impl Host,
    ) {
        let Some(consumer) = self.consumers.get_mut(id) else { return };
        let starting = !consumer.is_running();
        if let Some(error) = failure
            && starting
        {
            let error = format!("error creating store for consumer: {error}");
            self.abandon_creation(now, id, &ApiError::with(10104, 500, error), host);
            return;
        }
        let ready = consumer.count.asked.is_none() && consumer.saving.is_done();
        if !ready && failure.is_none() {
            return;
        }
        if consumer.replies.is_empty() && !starting {
            return;
        }
        let replies = core::mem::take(&mut consumer.replies);
        if starting {
            // Whether somebody listens already is part of the answer; delivery comes after it.
            self.look_for_listeners(now, id, host);
            self.advise_action(now, id, "create", host);
            if self.consumers.get(id).is_some_and(|consumer| consumer.is_paused(now)) {
                self.advise_pause(now, id, host);
            }
        }
        for reply in replies {
            self.send_reply(now, id, &reply, host);
        }
        if starting {
            self.creation_done(now, id, host);
        } else {
            self.consumer_run(now, id, host);
        }
    }

    pub(super) fn send_reply(
        &mut self,
        now: Now,
        id: ConsumerId,
        reply: &Reply,
        host: &mut impl Host,
    ) {
        let Some(consumer) = self.consumers.get(id) else { return };
        let kind = match reply.kind {
            ReplyKind::Created | ReplyKind::Updated | ReplyKind::Moved => {
                "consumer_create_response"
            }
            ReplyKind::Reset => RESET,
            ReplyKind::Paused => {
                let until = consumer.config.pause_until.unwrap_or_default();
                let remaining = consumer.pause_remaining(now);
                let body = PauseBody {
                    paused: remaining.is_some(),
                    pause_until: until,
                    pause_remaining: remaining,
                };
                self.respond(&reply.asker, "consumer_pause_response", &body, host);
                return;
            }
        };
        let identified = consumer.config.direct || consumer.config.sourcing;
        let next = consumer.cursor.next();
        let Some(mut info) = self.consumer_info(now, id, true) else { return };
        if reply.kind == ReplyKind::Reset {
            info.reset_seq = Some(next);
        }
        info.push_bound &= reply.kind != ReplyKind::Moved;
        if identified {
            let text = json::envelope(kind, None, &info);
            self.respond_identified(id, &reply.asker, &text, host);
        } else {
            // The body borrows from us: written first, answered then.
            let text = json::envelope(kind, None, &info);
            self.answer(&reply.asker, &text, host);
        }
    }

    pub(super) fn api_info(
        &mut self,
        now: Now,
        stream: &[u8],
        name: &[u8],
        msg: Inbound<'_>,
        host: &mut impl Host,
    ) {
        let kind = "consumer_info_response";
        let asker = self.asker(&msg, host);
        let found = if json::is_empty_request(msg.payload) {
            self.find_consumer(stream, name)
        } else {
            Err(EMPTY_EXPECTED)
        };
        match found {
            Ok((_, id)) => {
                self.drop_dead_requests(now, id, host);
                let Some(info) = self.consumer_info(now, id, true) else { return };
                let text = json::envelope(kind, None, &info);
                self.answer(&asker, &text, host);
            }
            Err(error) => self.respond_error(&asker, kind, &error, &Empty {}, host),
        }
    }

    /// The consumers to list and where to start; 404 for an unknown stream.
    fn page(&self, stream: &[u8], body: &[u8]) -> Result<(Vec<ConsumerId>, usize), ApiError> {
        let body = body.trim_ascii();
        let request = if matches!(body.first(), Some(b'{' | b'[')) {
            json::decode::<PageRequest>(body, self.options.strict)?
        } else {
            PageRequest::default()
        };
        let stream = self.stream_by_name(stream).ok_or(STREAM_NOT_FOUND)?.id;
        let mut ids = self.consumers.of_stream(stream);
        ids.retain(|id| {
            self.consumers.get(*id).is_some_and(|consumer| !consumer.config.is_hidden())
        });
        let offset = usize::try_from(request.offset.max(0)).unwrap_or(usize::MAX).min(ids.len());
        Ok((ids, offset))
    }

    pub(super) fn api_names(&mut self, stream: &[u8], msg: Inbound<'_>, host: &mut impl Host) {
        let kind = "consumer_names_response";
        let asker = self.asker(&msg, host);
        match self.page(stream, msg.payload) {
            Ok((ids, offset)) => {
                let limit = limits::API_NAMES_PAGE;
                let names = ids.iter().skip(offset).take(limit);
                let consumers: Vec<&str> = names
                    .filter_map(|id| self.consumers.get(*id))
                    .map(|consumer| consumer.name.as_str())
                    .collect();
                let page = Page { total: ids.len(), offset, limit, consumers };
                let text = json::envelope(kind, None, &page);
                self.answer(&asker, &text, host);
            }
            Err(error) => {
                self.respond_error(&asker, kind, &error, &Page::<&str>::empty(), host);
            }
        }
    }

    pub(super) fn api_list(
        &mut self,
        now: Now,
        stream: &[u8],
        msg: Inbound<'_>,
        host: &mut impl Host,
    ) {
        let kind = "consumer_list_response";
        let asker = self.asker(&msg, host);
        match self.page(stream, msg.payload) {
            Ok((ids, offset)) => {
                let limit = limits::API_LIST_PAGE;
                let consumers: Vec<Info<'_>> = ids
                    .iter()
                    .skip(offset)
                    .take(limit)
                    .filter_map(|id| self.consumer_info(now, *id, false))
                    .collect();
                let page = Page { total: ids.len(), offset, limit, consumers };
                let text = json::envelope(kind, None, &page);
                self.answer(&asker, &text, host);
            }
            Err(error) => {
                self.respond_error(&asker, kind, &error, &Page::<&str>::empty(), host);
            }
        }
    }

    pub(super) fn api_delete(
        &mut self,
        now: Now,
        stream: &[u8],
        name: &[u8],
        msg: Inbound<'_>,
        host: &mut impl Host,
    ) {
        let kind = "consumer_delete_response";
        let asker = self.asker(&msg, host);
        let found = if json::is_empty_request(msg.payload) {
            self.find_consumer(stream, name)
        } else {
            Err(EMPTY_EXPECTED)
        };
        match found {
            Ok((_, id)) => {
                let kept = self.consumers.get(id).filter(|consumer| consumer.persisted);
                let kept = kept.map(|consumer| consumer.stream);
                self.remove_consumer(now, id, host);
                let Some(stream) = kept else { return self.deleted(&asker, None, host) };
                // Nothing is settled by this, but its answer comes after the removal of the
                // record is durable: who is told it is gone never meets it again.
                let token = self.token(Waiting::Consumer(Pending::Deleted(asker)));
                let seqs = [].into();
                self.store(StoreRequest::Settle { token, stream, seqs }, host);
            }
            Err(error) => self.respond_error(&asker, kind, &error, &Empty {}, host),
        }
    }

    /// A consumer is gone, or the medium failed.
    pub(super) fn deleted(
        &mut self,
        asker: &Asker,
        failure: Option<&StoreError>,
        host: &mut impl Host,
    ) {
        let kind = "consumer_delete_response";
        match failure {
            None => self.respond(asker, kind, &Success { success: true }, host),
            Some(error) => {
                let error = ApiError::with(10012, 500, error.to_string());
                self.respond_error(asker, kind, &error, &Empty {}, host);
            }
        }
    }

    pub(super) fn api_pause(
        &mut self,
        now: Now,
        stream: &[u8],
        name: &[u8],
        msg: Inbound<'_>,
        host: &mut impl Host,
    ) {
        let kind = "consumer_pause_response";
        let asker = self.asker(&msg, host);
        let request = if msg.payload.trim_ascii().is_empty() {
            Ok(PauseRequest::default())
        } else {
            json::decode::<PauseRequest>(msg.payload, self.options.strict)
        };
        let found = request.and_then(|request| {
            let (_, id) = self.find_consumer(stream, name)?;
            Ok((request, id))
        });
        let (request, id) = match found {
            Ok(found) => found,
            Err(error) => {
                self.respond_error(&asker, kind, &error, &NOT_PAUSED, host);
                return;
            }
        };
        let Some(consumer) = self.consumers.get_mut(id) else { return };
        let until = request.until.filter(|until| until.0 != 0);
        let changed = consumer.config.pause_until != until;
        consumer.config.pause_until = until;
        consumer.paused = consumer.is_paused(now);
        consumer.config.set_required_level();
        consumer.replies.push(Reply { asker, kind: ReplyKind::Paused });
        self.save(now, id, host);
        if changed {
            self.advise_pause(now, id, host);
        }
        self.settle_replies(now, id, None, host);
        self.consumer_run(now, id, host);
    }

    pub(super) fn api_unpin(
        &mut self,
        now: Now,
        stream: &[u8],
        name: &[u8],
        msg: Inbound<'_>,
        host: &mut impl Host,
    ) {
        let kind = "consumer_unpin_response";
        let asker = self.asker(&msg, host);
        let checked = check_unpin(msg.payload).and_then(|group| {
            let (_, id) = self.find_consumer(stream, name)?;
            match self.consumers.get_mut(id) {
                Some(consumer) if consumer.config.priority_groups.contains(&group) => {
                    consumer.pin = None;
                    Ok(id)
                }
                _ => Err(NO_SUCH_GROUP),
            }
        });
        match checked {
            Ok(id) => {
                self.respond(&asker, kind, &Empty {}, host);
                self.advise_unpinned(now, id, "admin", host);
                self.consumer_run(now, id, host);
            }
            Err(error) => self.respond_error(&asker, kind, &error, &Empty {}, host),
        }
    }

    pub(super) fn api_reset(
        &mut self,
        now: Now,
        stream: &[u8],
        name: &[u8],
        msg: Inbound<'_>,
        host: &mut impl Host,
    ) {
        if msg.reply.is_empty() {
            return;
        }
        // This one is not audited.
        let asker = Asker { reply: msg.reply.into(), audit: None };
        let request = if msg.payload.is_empty() {
            Ok(ResetRequest::default())
        } else {
            json::decode_whole::<ResetRequest>(msg.payload)
        };
        let checked = request.and_then(|request| {
            let (stream, id) = self.find_consumer(stream, name)?;
            self.check_identity(stream, msg.headers)?;
            let consumer = self.consumers.get(id).ok_or(NOT_FOUND)?;
            check_reset(&consumer.config, request.seq)?;
            Ok((id, request.seq))
        });
        let (id, seq) = match checked {
            Ok(checked) => checked,
            Err(error) => return self.refuse_reset(&asker, &error, host),
        };
        let Some(consumer) = self.consumers.get(id) else { return };
        if seq > 0
            && consumer.config.deliver_policy == DeliverPolicy::ByStartTime
            && let Some(time) = consumer.config.opt_start_time
        {
            let stream = consumer.stream;
            let token = self.token(Waiting::Consumer(Pending::Reset { id, asker, seq }));
            let by = GetBy::StartTime(time);
            self.store(StoreRequest::Get { token, stream, by }, host);
            return;
        }
        self.reset_checked(now, id, asker, seq, host);
    }

    fn refuse_reset(&mut self, asker: &Asker, error: &ApiError, host: &mut impl Host) {
        self.respond_error(asker, RESET, error, &NotReset { reset_seq: 0 }, host);
    }

    /// The store says what the first message at or after the start time is.
    pub(super) fn reset_answered(
        &mut self,
        now: Now,
        id: ConsumerId,
        asker: Asker,
        seq: Seq,
        reply: &StoreReply,
        host: &mut impl Host,
    ) {
        let Some(consumer) = self.consumers.get(id) else {
            return self.refuse_reset(&asker, &NOT_FOUND, host);
        };
        let last = self.streams.get(&consumer.stream).map_or(0, |stream| stream.state.last_seq);
        let first = match reply {
            StoreReply::Got { msg: Ok(Some(chunk)), .. } => chunk.msgs.first().map(|msg| msg.seq),
            _ => None,
        };
        if seq < first.unwrap_or(last.saturating_add(1)) {
            let error = ApiError::fixed(10204, 400, "invalid reset: below start time");
            return self.refuse_reset(&asker, &error, host);
        }
        self.reset_checked(now, id, asker, seq, host);
    }

    fn reset_checked(
        &mut self,
        now: Now,
        id: ConsumerId,
        asker: Asker,
        seq: Seq,
        host: &mut impl Host,
    ) {
        self.reset_consumer(id, (seq > 0).then_some(seq), host);
        if let Some(consumer) = self.consumers.get_mut(id) {
            consumer.replies.push(Reply { asker, kind: ReplyKind::Reset });
        }
        self.save(now, id, host);
        self.settle_replies(now, id, None, host);
    }
}

/// The group to be unpinned.
fn check_unpin(body: &[u8]) -> Result<String, ApiError> {
    let request = json::decode_whole::<UnpinRequest>(body)?;
    if request.group.is_empty() {
        return Err(ApiError::fixed(10025, 400, "invalid JSON: consumer group not specified"));
    }
    if is_valid_group(&request.group) { Ok(request.group) } else { Err(BAD_GROUP) }
}

fn check_reset(config: &ConsumerConfig, seq: Seq) -> Result<(), ApiError> {
    let text = match config.deliver_policy {
        _ if seq == 0 => return Ok(()),
        // What a time stands for, the store knows.
        DeliverPolicy::All | DeliverPolicy::ByStartTime => return Ok(()),
        DeliverPolicy::ByStartSequence if seq >= config.opt_start_seq => return Ok(()),
        DeliverPolicy::ByStartSequence => "below start seq",
        _ => "not allowed",
    };
    Err(ApiError::with(10204, 400, format!("invalid reset: {text}")))
}
