//! Creating and updating a consumer.
//!
//! Owns the way from the request to the answer: names, checks against what exists, where to
//! start, the first count. Does not own the rules of a configuration (`config`).
//!
//! # Invariants
//! - The answer to a creation describes the consumer before it delivered anything.
//! - It leaves after the record is durable, where there is one.
//! - A creation that fails leaves nothing behind.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::config::{AckPolicy, ConsumerConfig, DeliverPolicy};
use super::cursor::Cursor;
use super::deliver::Gate;
use super::info::{Reply, ReplyKind, STREAM_NOT_FOUND};
use super::push::Push;
use super::saving::Saving;
use super::state::Progress;
use super::{Consumer, Count, Pending, Phase, Ticket, pull};
use crate::id::{ConsumerId, StreamId};
use crate::jetstream::host::{Host, Inbound, Target};
use crate::jetstream::json::{self, ApiError, Asker, Empty, FromJson, Json, Path};
use crate::jetstream::storage::{GetBy, Seq, StoreReply, StoreRequest};
use crate::jetstream::stream::Stream;
use crate::jetstream::stream::config::Retention;
use crate::jetstream::{JetStream, Waiting};
use crate::limits;
use crate::subject::{self, Filter};
use crate::time::{Now, Timestamp};

const KIND: &str = "consumer_create_response";
const STREAM_MISMATCH: ApiError =
    ApiError::fixed(10056, 400, "stream name in subject does not match request");

/// What may happen to a consumer that exists, or does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Action {
    #[default]
    CreateOrUpdate,
    Create,
    Update,
}

#[derive(Debug, Default)]
struct CreateRequest {
    stream_name: String,
    config: ConsumerConfig,
    action: Action,
    pedantic: bool,
}

impl FromJson for CreateRequest {
    const NAME: &'static str = "CreateConsumerRequest";

    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
        match key {
            "stream_name" => json::string(&mut self.stream_name, value, path),
            "config" => json::object(&mut self.config, value, path),
            "action" => {
                let mut text = String::new();
                json::string(&mut text, value, path)?;
                self.action = match text.as_str() {
                    "" => Action::CreateOrUpdate,
                    "create" => Action::Create,
                    "update" => Action::Update,
                    other => return Err(alloc::format!("unknown consumer action: {other:?}")),
                };
                Ok(true)
            }
            "pedantic" => json::boolean(&mut self.pedantic, value, path),
            _ => Ok(false),
        }
    }
}

/// A consumer about to be made.
pub(super) struct Spec {
    pub(super) stream: StreamId,
    pub(super) name: String,
    pub(super) config: ConsumerConfig,
    pub(super) created: Timestamp,
}

impl JetStream {
    fn read_create(&self, stream: &[u8], msg: &Inbound<'_>) -> Result<CreateRequest, ApiError> {
        let request = if msg.payload.trim_ascii().is_empty() {
            CreateRequest::default()
        } else {
            json::decode::<CreateRequest>(msg.payload, self.options.strict)?
        };
        Self::check_level(msg)?;
        if request.stream_name.as_bytes() != stream {
            return Err(STREAM_MISMATCH);
        }
        Ok(request)
    }

    /// `CONSUMER.CREATE.<stream>`, with a name, with a name and a filter.
    pub(super) fn api_create(
        &mut self,
        now: Now,
        stream: &[u8],
        name: Option<&[u8]>,
        filter: Option<&[u8]>,
        msg: Inbound<'_>,
        host: &mut impl Host,
    ) {
        let asker = self.asker(&msg, host);
        let checked = self.read_create(stream, &msg).and_then(|mut request| {
            name_from_subject(&mut request.config, name, filter)?;
            self.check_request(stream, &request.config, &msg).map(|stream| (stream, request))
        });
        self.create_checked(now, checked, &asker, host);
    }

    /// `CONSUMER.DURABLE.CREATE.<stream>.<name>`.
    pub(super) fn api_create_durable(
        &mut self,
        now: Now,
        stream: &[u8],
        name: &[u8],
        msg: Inbound<'_>,
        host: &mut impl Host,
    ) {
        let asker = self.asker(&msg, host);
        let checked = self.read_create(stream, &msg).and_then(|mut request| {
            let config = &mut request.config;
            check_separators(name)?;
            if config.durable_name.is_empty() {
                return Err(ApiError::fixed(
                    10018,
                    400,
                    "consumer expected to be durable but a durable name was not set",
                ));
            }
            if config.durable_name.as_bytes() != name {
                return Err(NAME_MISMATCH);
            }
            config.name.clone_from(&config.durable_name);
            self.check_request(stream, config, &msg).map(|stream| (stream, request))
        });
        self.create_checked(now, checked, &asker, host);
    }

    /// What is looked at before the configuration.
    fn check_request(
        &self,
        stream: &[u8],
        config: &ConsumerConfig,
        msg: &Inbound<'_>,
    ) -> Result<StreamId, ApiError> {
        if config.num_replicas > 1 {
            return Err(ApiError::fixed(
                10074,
                500,
                "replicas > 1 not supported in non-clustered mode",
            ));
        }
        let stream = self.stream_by_name(stream).ok_or(STREAM_NOT_FOUND)?.id;
        self.check_identity(stream, msg.headers)?;
        Ok(stream)
    }

    fn create_checked(
        &mut self,
        now: Now,
        checked: Result<(StreamId, CreateRequest), ApiError>,
        asker: &Asker,
        host: &mut impl Host,
    ) {
        let result = checked
            .and_then(|(stream, request)| self.create_or_update(now, stream, request, asker, host));
        if let Err(error) = result {
            self.respond_error(asker, KIND, &error, &Empty {}, host);
        }
    }

    fn create_or_update(
        &mut self,
        now: Now,
        stream_id: StreamId,
        request: CreateRequest,
        asker: &Asker,
        host: &mut impl Host,
    ) -> Result<(), ApiError> {
        let CreateRequest { mut config, action, pedantic, .. } = request;
        let stream = self.streams.get(&stream_id).ok_or(STREAM_NOT_FOUND)?;
        let limits_retention = stream.config.retention == Retention::Limits;
        if config.is_sourcing() && !config.name.is_empty() && limits_retention {
            let unique = self.unique_name(stream_id, &alloc::format!("{}-", config.name));
            config.name = unique;
        }
        let stream = self.streams.get(&stream_id).ok_or(STREAM_NOT_FOUND)?;
        let caps = &self.options.limits;
        let forever = config.inactive_threshold == 0;
        config.fill_defaults(&stream.config, caps, pedantic)?;
        config.check(&stream.config, caps)?;
        let name = if config.name.is_empty() { &config.durable_name } else { &config.name };
        let existing = self.consumers.by_name(stream_id, name.as_bytes());
        if let Some(id) = existing {
            // The threshold of ephemeral consumers is given at creation only: a durable one
            // that loses its durable name stays.
            if forever
                && self.consumers.get(id).is_some_and(|old| old.config.inactive_threshold == 0)
            {
                config.inactive_threshold = 0;
            }
            let same = self.consumers.get(id).is_some_and(|old| old.config.same_as(&config));
            if !same && action == Action::Create {
                return Err(ApiError::fixed(10148, 400, "consumer already exists"));
            }
            let moved = !same && self.update_consumer(now, id, config, host)?;
            if let Some(consumer) = self.consumers.get_mut(id) {
                let kind = if moved { ReplyKind::Moved } else { ReplyKind::Updated };
                consumer.replies.push(Reply { asker: asker.clone(), kind });
                if consumer.is_paused(now) {
                    self.advise_pause(now, id, host);
                }
            }
            self.settle_replies(now, id, None, host);
            return Ok(());
        }
        if action == Action::Update {
            return Err(ApiError::fixed(10149, 400, "consumer does not exist"));
        }
        self.check_new(stream_id, &config)?;
        let name = if name.is_empty() { self.unique_name(stream_id, "") } else { name.clone() };
        if name.len() > limits::NAME_BYTES_MAX {
            return Err(ApiError::fixed(
                10102,
                400,
                "consumer name is too long, maximum allowed is 255",
            ));
        }
        let spec = Spec { stream: stream_id, name, config, created: now.wall };
        let Some(id) = self.insert_consumer(now, spec, host) else { return Ok(()) };
        if let Some(consumer) = self.consumers.get_mut(id) {
            consumer.replies.push(Reply { asker: asker.clone(), kind: ReplyKind::Created });
        }
        self.find_start(now, id, host);
        Ok(())
    }

    /// What a new consumer has to respect beyond its own configuration.
    fn check_new(&self, stream: StreamId, config: &ConsumerConfig) -> Result<(), ApiError> {
        let too_many = ApiError::fixed(10026, 400, "maximum consumers limit reached");
        if self.shared.consumers() >= limits::CONSUMERS_MAX {
            return Err(too_many);
        }
        let Some(of) = self.streams.get(&stream).map(|stream| &stream.config) else {
            return Err(STREAM_NOT_FOUND);
        };
        if config.direct {
            return Ok(());
        }
        let account = self.options.account_limits.max_consumers;
        if account.is_some_and(|max| self.consumer_count(stream) >= max as usize) {
            return Err(too_many);
        }
        if let Ok(max) = usize::try_from(of.max_consumers)
            && max > 0
            && self.consumer_count(stream) >= max
        {
            return Err(too_many);
        }
        if of.retention != Retention::WorkQueue {
            return Ok(());
        }
        let e = |err_code, text| Err(ApiError::fixed(err_code, 400, text));
        if !matches!(config.ack_policy, AckPolicy::Explicit | AckPolicy::FlowControl) {
            return e(10098, "workqueue stream requires explicit ack");
        }
        self.check_unique(stream, None, &config.filters())?;
        if config.deliver_policy != DeliverPolicy::All {
            return e(10101, "consumer must be deliver all on workqueue stream");
        }
        Ok(())
    }

    /// Each subject of a work queue has one consumer at most.
    fn check_unique(
        &self,
        stream: StreamId,
        this: Option<ConsumerId>,
        filters: &[Filter],
    ) -> Result<(), ApiError> {
        let e = |err_code, text| Err(ApiError::fixed(err_code, 400, text));
        let others = self.consumers.of_stream(stream);
        let mut others = others
            .iter()
            .filter(|id| Some(**id) != this)
            .filter_map(|id| self.consumers.get(*id))
            .filter(|other| !other.config.is_hidden())
            .peekable();
        if filters.is_empty() && others.peek().is_some() {
            return e(10099, "multiple non-filtered consumers not allowed on workqueue stream");
        }
        let collides = |other: &Consumer| {
            other.filters.is_empty()
                || other.filters.iter().any(|theirs| {
                    filters.iter().any(|ours| subject::collides(ours.as_bytes(), theirs.as_bytes()))
                })
        };
        if others.any(collides) {
            return e(10100, "filtered consumer not unique on workqueue stream");
        }
        Ok(())
    }

    /// Puts a consumer into the table and subscribes for it. It does not deliver yet.
    pub(super) fn insert_consumer(
        &mut self,
        now: Now,
        spec: Spec,
        host: &mut impl Host,
    ) -> Option<ConsumerId> {
        let Spec { stream: stream_id, name, config, created } = spec;
        let stream = self.streams.get(&stream_id)?;
        self.consumers.generation = self.consumers.generation.wrapping_add(1);
        let index = self.consumers.table.vacant_key();
        let id =
            ConsumerId { index: u32::try_from(index).ok()?, generation: self.consumers.generation };
        let ack_prefix =
            [b"$JS.ACK.", stream.name.as_bytes(), b".", name.as_bytes(), b"."].concat();
        let push = config.is_push().then(|| Push::new(&config, &stream.name, &name, now));
        let consumer = Consumer {
            id,
            stream: stream_id,
            filters: config.filters(),
            persisted: config.is_persisted(&stream.config),
            phase: Phase::Starting(Vec::new()),
            progress: Progress::default(),
            cursor: Cursor::default(),
            count: Count::default(),
            waiting: pull::Waiting::default(),
            pin: None,
            push,
            gate: Gate::new(stream.state.last_seq, now),
            saving: Saving::default(),
            replies: Vec::new(),
            ack_prefix: ack_prefix.into(),
            last_used: now.instant,
            scanned: now.instant,
            keep_until: now.instant,
            paused: config.pause_until.is_some_and(|until| until > now.wall),
            superseded: false,
            resync: false,
            armed: None,
            created,
            name: name.clone(),
            config,
        };
        self.consumers.table.insert(Box::new(consumer));
        self.shared.note_consumer(true);
        let names: &mut BTreeMap<String, ConsumerId> =
            self.consumers.by_stream.entry(stream_id).or_default();
        names.insert(name, id);
        let retention = stream.config.retention;
        self.consumers.log_settled(stream_id, retention);
        self.subscribe_consumer(id, true, host);
        Some(id)
    }

    /// Adds or removes what the consumer listens to.
    pub(super) fn subscribe_consumer(&mut self, id: ConsumerId, on: bool, host: &mut impl Host) {
        let Some(consumer) = self.consumers.get(id) else { return };
        let Some(stream) = self.streams.get(&consumer.stream) else { return };
        let (stream, name) = (stream.name.as_str(), consumer.name.as_str());
        let mut change = |subject: &str, target: Target| {
            if on {
                host.subscribe(subject.as_bytes(), target);
            } else {
                host.unsubscribe(subject.as_bytes(), target);
            }
        };
        let next = alloc::format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}");
        change(&next, Target::Next(id));
        let domain = self.options.domain.as_deref().unwrap_or("_");
        let account = crate::id::short_hash(self.options.account.as_bytes());
        if matches!(consumer.config.ack_policy, AckPolicy::Explicit | AckPolicy::All) {
            let target = Target::Ack(id);
            change(&alloc::format!("$JS.ACK.{stream}.{name}.*.*.*.*.*"), target);
            change(&alloc::format!("$JS.ACK.{domain}.{account}.{stream}.{name}.*.*.*.*.>"), target);
        }
        if consumer.config.flow_control {
            let target = Target::Flow(id);
            change(&alloc::format!("$JS.FC.{stream}.{name}.*"), target);
            change(&alloc::format!("$JS.FC.{domain}.{account}.{stream}.{name}.*"), target);
        }
        if consumer.config.is_push() {
            let subject = consumer.config.deliver_subject.clone();
            self.watch_deliver_subject(id, subject.as_bytes(), on, host);
        }
    }

    fn watch_deliver_subject(
        &mut self,
        id: ConsumerId,
        subject: &[u8],
        on: bool,
        host: &mut impl Host,
    ) {
        let watchers = &mut self.consumers.watchers;
        if on {
            let ids = watchers.entry(subject.into()).or_default();
            if ids.is_empty() {
                host.watch(subject);
            }
            if !ids.contains(&id) {
                ids.push(id);
            }
        } else if let Some(ids) = watchers.get_mut(subject) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                watchers.remove(subject);
                host.unwatch(subject);
            }
        }
    }

    /// Decides where a new consumer starts, asking the store if need be.
    fn find_start(&mut self, now: Now, id: ConsumerId, host: &mut impl Host) {
        let Some(consumer) = self.consumers.get(id) else { return };
        let Some(stream) = self.streams.get(&consumer.stream) else { return };
        let state = &stream.state;
        let start = match consumer.config.deliver_policy {
            DeliverPolicy::All => state.first_seq,
            DeliverPolicy::Last if consumer.filters.is_empty() => state.last_seq,
            DeliverPolicy::New => state.last_seq.saturating_add(1),
            DeliverPolicy::ByStartSequence => consumer.config.opt_start_seq,
            // With one message for each subject, all of them are the last ones.
            DeliverPolicy::LastPerSubject if stream.config.max_msgs_per_subject == 1 => {
                state.first_seq
            }
            DeliverPolicy::Last => return self.ask_last(id, 0, 0, host),
            DeliverPolicy::ByStartTime => {
                let by = GetBy::StartTime(consumer.config.opt_start_time.unwrap_or_default());
                let stream = consumer.stream;
                let token = self.token(Waiting::Consumer(Pending::StartTime { id }));
                return self.store(StoreRequest::Get { token, stream, by }, host);
            }
            DeliverPolicy::LastPerSubject => {
                let (stream, filters) = (consumer.stream, consumer.filters.clone());
                let token = self.token(Waiting::Consumer(Pending::StartSubjects { id }));
                return self.store(StoreRequest::LastPerSubject { token, stream, filters }, host);
            }
        };
        self.start_at(now, id, start, host);
    }

    fn ask_last(&mut self, id: ConsumerId, filter: usize, best: Seq, host: &mut impl Host) {
        let Some(consumer) = self.consumers.get(id) else { return };
        let Some(by) = consumer.filters.get(filter).cloned().map(GetBy::LastBySubject) else {
            return;
        };
        let stream = consumer.stream;
        let token = self.token(Waiting::Consumer(Pending::StartLast { id, filter, best }));
        self.store(StoreRequest::Get { token, stream, by }, host);
    }

    /// The store said where the messages are that decide about the start.
    pub(super) fn start_answered(
        &mut self,
        now: Now,
        pending: Pending,
        reply: StoreReply,
        host: &mut impl Host,
    ) {
        let (Pending::StartLast { id, .. }
        | Pending::StartTime { id }
        | Pending::StartSubjects { id }
        | Pending::Count { id, .. }
        | Pending::Read { id, .. }
        | Pending::Save { id }
        | Pending::Reset { id, .. }) = pending
        else {
            return;
        };
        let Some(consumer) = self.consumers.get(id) else { return };
        let last_seq = self.streams.get(&consumer.stream).map_or(0, |stream| stream.state.last_seq);
        let filters = consumer.filters.len();
        match (pending, reply) {
            (
                _,
                StoreReply::Got { msg: Err(error), .. }
                | StoreReply::LastPerSubject { seqs: Err(error), .. },
            ) => {
                self.settle_replies(now, id, Some(&error), host);
            }
            (Pending::StartLast { filter, best, .. }, StoreReply::Got { msg: Ok(msg), .. }) => {
                let found = msg.and_then(|chunk| chunk.msgs.first().map(|msg| msg.seq));
                let best = best.max(found.unwrap_or(0));
                if filter + 1 < filters {
                    self.ask_last(id, filter + 1, best, host);
                } else {
                    self.start_at(now, id, best.max(1), host);
                }
            }
            (Pending::StartTime { .. }, StoreReply::Got { msg: Ok(msg), .. }) => {
                let found = msg.and_then(|chunk| chunk.msgs.first().map(|msg| msg.seq));
                self.start_at(now, id, found.unwrap_or(last_seq.saturating_add(1)), host);
            }
            (
                Pending::StartSubjects { .. },
                StoreReply::LastPerSubject { seqs: Ok(seqs), last_seq, .. },
            ) => match seqs.first() {
                None => self.start_at(now, id, last_seq, host),
                Some(&first) => {
                    if let Some(consumer) = self.consumers.get_mut(id) {
                        consumer.progress.restart_at(first);
                        consumer.cursor = Cursor::starting_with(seqs, last_seq);
                    }
                    self.started(now, id, host);
                }
            },
            _ => {}
        }
    }

    fn start_at(&mut self, now: Now, id: ConsumerId, start: Seq, host: &mut impl Host) {
        let Some(consumer) = self.consumers.get_mut(id) else { return };
        let Some(stream) = self.streams.get(&consumer.stream) else { return };
        let state = &stream.state;
        let mut next = start;
        if consumer.config.deliver_policy != DeliverPolicy::ByStartSequence {
            next = next.min(state.last_seq.saturating_add(1));
        }
        next = next.max(state.first_seq).max(1);
        consumer.progress.restart_at(next);
        consumer.cursor.jump(next);
        self.started(now, id, host);
    }

    /// The start is known: count, and write the record.
    fn started(&mut self, now: Now, id: ConsumerId, host: &mut impl Host) {
        self.recount(id, host);
        self.save(now, id, host);
        self.settle_replies(now, id, None, host);
    }

    /// Counts what a consumer has not delivered: by arithmetic where there are no gaps,
    /// else by asking the store.
    pub(super) fn recount(&mut self, id: ConsumerId, host: &mut impl Host) {
        let Some(consumer) = self.consumers.get_mut(id) else { return };
        let Some(stream) = self.streams.get(&consumer.stream) else { return };
        let state = &stream.state;
        let (next, listed) = consumer.cursor.after_list();
        consumer.count.through = state.last_seq;
        consumer.count.delivered = 0;
        let ahead = state.last_seq.saturating_add(1).saturating_sub(next.max(state.first_seq));
        let span = state.last_seq.saturating_add(1).saturating_sub(state.first_seq);
        if ahead == 0 || state.messages == 0 {
            consumer.count.pending = listed;
            consumer.count.asked = None;
            return;
        }
        let all = next <= state.first_seq;
        if consumer.filters.is_empty() && (all || span == state.messages) {
            let count = if all { state.messages } else { ahead };
            consumer.count.pending = count.saturating_add(listed);
            consumer.count.asked = None;
            return;
        }
        let (stream, filters) = (consumer.stream, consumer.filters.clone());
        let ticket = self.consumers.next_ticket();
        if let Some(consumer) = self.consumers.get_mut(id) {
            consumer.count.asked = Some(ticket);
        }
        let token = self.token(Waiting::Consumer(Pending::Count { id, ticket }));
        self.store(StoreRequest::Count { token, stream, from: next, filters }, host);
    }

    /// The store has counted.
    pub(super) fn counted(
        &mut self,
        now: Now,
        id: ConsumerId,
        ticket: Ticket,
        reply: StoreReply,
        host: &mut impl Host,
    ) {
        let Some(consumer) = self.consumers.get_mut(id) else { return };
        if consumer.count.asked != Some(ticket) {
            return;
        }
        let StoreReply::Counted { count, last_seq, .. } = reply else { return };
        match count {
            Ok(count) => {
                let known = self.streams.get(&consumer.stream).map_or(0, |s| s.state.last_seq);
                if last_seq < known {
                    // Counted before messages that are known already: once more.
                    self.recount(id, host);
                    return;
                }
                let (_, listed) = consumer.cursor.after_list();
                let total = count.saturating_add(listed);
                consumer.count.pending = total.saturating_sub(consumer.count.delivered);
                consumer.count.through = last_seq;
                consumer.count.asked = None;
                self.settle_replies(now, id, None, host);
                self.consumer_run(now, id, host);
            }
            Err(error) => {
                consumer.count.asked = None;
                self.settle_replies(now, id, Some(&error), host);
            }
        }
    }

    /// The creator has its answer: from now on it delivers.
    pub(super) fn creation_done(&mut self, now: Now, id: ConsumerId, host: &mut impl Host) {
        let Some(consumer) = self.consumers.get_mut(id) else { return };
        let old = core::mem::replace(&mut consumer.phase, Phase::Running);
        self.supersede(now, id, host);
        self.refresh_activity(now, id, host);
        self.consumer_run(now, id, host);
        if let Phase::Starting(deferred) = old {
            for request in deferred {
                let subject = request.subject;
                let tokens: Vec<&[u8]> = subject::tokens(&subject).skip(3).collect();
                let msg = Inbound {
                    subject: &subject,
                    reply: &request.reply,
                    headers: &request.headers,
                    payload: &request.payload,
                };
                self.consumer_api(now, &tokens, msg, host);
            }
        }
    }

    /// A creation failed.
    pub(super) fn abandon_creation(
        &mut self,
        now: Now,
        id: ConsumerId,
        error: &ApiError,
        host: &mut impl Host,
    ) {
        let Some(consumer) = self.consumers.get_mut(id) else { return };
        let replies = core::mem::take(&mut consumer.replies);
        self.remove_quietly(now, id, host);
        for reply in replies {
            self.respond_error(&reply.asker, KIND, error, &Empty {}, host);
        }
    }

    /// Replaces the configuration of a consumer by one that has been checked.
    fn update_consumer(
        &mut self,
        now: Now,
        id: ConsumerId,
        mut new: ConsumerConfig,
        host: &mut impl Host,
    ) -> Result<bool, ApiError> {
        let Some(consumer) = self.consumers.get(id) else { return Ok(false) };
        consumer.config.check_update(&new)?;
        let (stream, direct) = (consumer.stream, consumer.config.direct);
        let queue = |stream: &Stream| stream.config.retention == Retention::WorkQueue;
        if !direct
            && consumer.filters != new.filters()
            && self.streams.get(&stream).is_some_and(queue)
        {
            self.check_unique(stream, Some(id), &new.filters())?;
        }
        let Some(consumer) = self.consumers.get_mut(id) else { return Ok(false) };
        let old = &consumer.config;
        let moved = old.deliver_subject != new.deliver_subject;
        if moved && host.has_interest(old.deliver_subject.as_bytes()) {
            return Err(ApiError::fixed(10013, 400, "consumer name already in use"));
        }
        new.pause_until = old.pause_until;
        new.set_required_level();
        let (old_subject, filters) = (old.deliver_subject.clone(), new.filters());
        let waits = old.ack_wait != new.ack_wait || old.backoff != new.backoff;
        let refiltered = consumer.filters != filters;
        let regrouped = old.deliver_group != new.deliver_group;
        consumer.config = new;
        consumer.last_used = now.instant;
        if waits {
            let config = &consumer.config;
            let wait = |deliveries| config.redelivery_wait(deliveries).unwrap_or_default();
            consumer.progress.redue(wait);
        }
        if refiltered {
            consumer.filters = filters;
            let (next, _) = consumer.cursor.after_list();
            consumer.cursor.jump(next);
        }
        if moved {
            consumer.progress.queue_all();
            let subject = consumer.config.deliver_subject.clone();
            self.watch_deliver_subject(id, old_subject.as_bytes(), false, host);
            self.watch_deliver_subject(id, subject.as_bytes(), true, host);
        }
        if refiltered {
            self.recount(id, host);
        }
        self.save(now, id, host);
        if moved || regrouped {
            self.look_for_listeners(now, id, host);
        }
        // Delivery goes on after the answer.
        Ok(moved)
    }
}

const NAME_MISMATCH: ApiError =
    ApiError::fixed(10017, 400, "consumer name in subject does not match durable name in request");

fn check_separators(name: &[u8]) -> Result<(), ApiError> {
    if name.iter().any(|byte| matches!(byte, b'\\' | b'/')) {
        return Err(ApiError::fixed(10127, 400, "Consumer name can not contain path separators"));
    }
    Ok(())
}

fn name_from_subject(
    config: &mut ConsumerConfig,
    name: Option<&[u8]>,
    filter: Option<&[u8]>,
) -> Result<(), ApiError> {
    let Some(name) = name else {
        if config.is_durable() {
            return Err(ApiError::fixed(
                10020,
                400,
                "consumer expected to be ephemeral but a durable name was set in request",
            ));
        }
        return check_separators(config.name.as_bytes());
    };
    check_separators(name)?;
    if config.is_durable() && config.durable_name.as_bytes() != name {
        return Err(NAME_MISMATCH);
    }
    config.name = String::from_utf8_lossy(name).into_owned();
    if let Some(filter) = filter {
        if !config.filter_subjects.is_empty() {
            return Err(ApiError::fixed(
                10137,
                400,
                "consumer with multiple subject filters cannot use subject based API",
            ));
        }
        if config.filter_subject.as_bytes() != filter {
            return Err(ApiError::fixed(
                10131,
                400,
                "Consumer create request did not match filtered subject from create subject",
            ));
        }
    }
    Ok(())
}
