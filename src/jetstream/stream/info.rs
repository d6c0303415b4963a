//! What shows streams: account info, stream info, names and lists.
//!
//! Owns the JSON of a stream's state, and paging.
//!
//! Source: ADR-1; seen from nats-server 2.15.1.

#![expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands fields over so")]

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;

use super::{Pending as StreamPending, Stream, StreamConfig, intake};
use crate::id::StreamId;
use crate::jetstream::host::{Host, Inbound};
use crate::jetstream::json::{self, ApiError, Asker, Empty, FromJson, Json, Path};
use crate::jetstream::storage::{Seq, StoreReply, StoreRequest};
use crate::jetstream::{JetStream, Waiting, options};
use crate::limits;
use crate::subject::{self, Filter};
use crate::time::Now;

const INFO: &str = "stream_info_response";
const NAMES: &str = "stream_names_response";
const LIST: &str = "stream_list_response";
const ACCOUNT: &str = "account_info_response";

/// Where a page begins and how long one is.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Paging {
    pub(crate) total: u64,
    pub(crate) offset: u64,
    pub(crate) limit: u64,
}

impl Paging {
    /// The page at `offset` of `items`, as nats-server cuts it.
    pub(crate) fn cut<T>(items: Vec<T>, offset: i64, limit: usize) -> (Self, Vec<T>) {
        let total = items.len();
        let start = usize::try_from(offset.max(0)).unwrap_or(usize::MAX).min(total);
        let paging = Self { total: total as u64, offset: start as u64, limit: limit as u64 };
        (paging, items.into_iter().skip(start).take(limit).collect())
    }
}

/// `StreamInfo`, members in the order of nats-server.
#[derive(Serialize)]
pub(crate) struct StreamInfo {
    config: StreamConfig,
    created: String,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) domain: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<Cluster>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mirror: Option<intake::Shown>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sources: Vec<intake::Shown>,
    ts: String,
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub(super) did_create: bool,
}

#[derive(Serialize)]
struct Cluster {
    leader: String,
}

/// The `state` of a stream.
#[derive(Serialize)]
pub(crate) struct State {
    messages: u64,
    bytes: u64,
    first_seq: Seq,
    first_ts: String,
    last_seq: Seq,
    last_ts: String,
    #[serde(skip_serializing_if = "is_zero")]
    num_subjects: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    subjects: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "is_zero")]
    num_deleted: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    deleted: Vec<Seq>,
    pub(crate) consumer_count: usize,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Serialize)]
struct InfoBody {
    #[serde(flatten)]
    paging: Paging,
    #[serde(flatten)]
    info: StreamInfo,
}

#[derive(Serialize)]
struct NamesBody {
    #[serde(flatten)]
    paging: Paging,
    /// `null` when there are none.
    streams: Option<Vec<String>>,
}

#[derive(Serialize)]
struct ListBody {
    #[serde(flatten)]
    paging: Paging,
    streams: Vec<StreamInfo>,
}

#[derive(Serialize)]
struct AccountBody {
    memory: u64,
    storage: u64,
    reserved_memory: u64,
    reserved_storage: u64,
    streams: usize,
    consumers: usize,
    limits: AccountLimits,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
    api: ApiStats,
}

#[derive(Serialize)]
struct AccountLimits {
    max_memory: i64,
    max_storage: i64,
    max_streams: i64,
    max_consumers: i64,
    max_ack_pending: i64,
    memory_max_stream_bytes: i64,
    storage_max_stream_bytes: i64,
    max_bytes_required: bool,
}

impl AccountLimits {
    fn new(limits: &options::AccountLimits) -> Self {
        let bytes = |max: Option<u64>| max.and_then(|max| i64::try_from(max).ok()).unwrap_or(-1);
        let count = |max: Option<u32>| max.map_or(-1, i64::from);
        Self {
            max_memory: bytes(limits.max_memory),
            max_storage: bytes(limits.max_storage),
            max_streams: count(limits.max_streams),
            max_consumers: count(limits.max_consumers),
            max_ack_pending: count(limits.max_ack_pending),
            memory_max_stream_bytes: bytes(limits.memory_max_stream_bytes),
            storage_max_stream_bytes: bytes(limits.storage_max_stream_bytes),
            max_bytes_required: limits.max_bytes_required,
        }
    }
}

#[derive(Serialize)]
struct ApiStats {
    level: u32,
    total: u64,
    errors: u64,
}

#[derive(Default)]
struct InfoRequest {
    offset: i64,
    deleted_details: bool,
    subjects_filter: String,
}

impl FromJson for InfoRequest {
    const NAME: &'static str = "JSApiStreamInfoRequest";

    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
        match key {
            "offset" => json::number(&mut self.offset, value, path, "int"),
            "deleted_details" => json::boolean(&mut self.deleted_details, value, path),
            "subjects_filter" => json::string(&mut self.subjects_filter, value, path),
            _ => Ok(false),
        }
    }
}

#[derive(Default)]
struct NamesRequest(Page);

#[derive(Default)]
struct ListRequest(Page);

#[derive(Default)]
struct Page {
    offset: i64,
    subject: String,
}

impl Page {
    fn read(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
        match key {
            "offset" => json::number(&mut self.offset, value, path, "int"),
            "subject" => json::string(&mut self.subject, value, path),
            _ => Ok(false),
        }
    }
}

impl FromJson for NamesRequest {
    const NAME: &'static str = "JSApiStreamNamesRequest";

    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
        self.0.read(key, value, path)
    }
}

impl FromJson for ListRequest {
    const NAME: &'static str = "JSApiStreamListRequest";

    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
        self.0.read(key, value, path)
    }
}

/// A stream info that waits for the store.
#[derive(Debug)]
pub(crate) struct Pending {
    asker: Asker,
    stream: StreamId,
    offset: u64,
    /// Still to be asked for.
    subjects: Option<Filter>,
    paging: Paging,
    found: BTreeMap<String, u64>,
    /// Still to be asked for.
    deleted_details: bool,
    deleted: Vec<Seq>,
}

impl JetStream {
    /// A stream as every endpoint but a list shows it.
    pub(crate) fn shown_stream(&self, now: Now, id: StreamId) -> Option<(String, StreamInfo)> {
        let stream = self.streams.get(&id)?;
        let mut info = self.bare_info(now, stream);
        info.config = info.config.shown(&self.options);
        Some((stream.name.clone(), info))
    }

    /// The numbers of a stream as the API shows them.
    pub(crate) fn shown_state(&self, stream: &Stream) -> State {
        let state = &stream.state;
        let span = (state.last_seq.saturating_add(1)).saturating_sub(state.first_seq);
        let gaps = if state.messages == 0 { 0 } else { span.saturating_sub(state.messages) };
        State {
            messages: state.messages,
            bytes: state.bytes,
            first_seq: state.first_seq,
            first_ts: state.first_ts.rfc3339(),
            last_seq: state.last_seq,
            last_ts: state.last_ts.rfc3339(),
            num_subjects: state.num_subjects,
            subjects: BTreeMap::new(),
            num_deleted: gaps,
            deleted: Vec::new(),
            consumer_count: self.consumer_count(stream.id),
        }
    }

    fn bare_info(&self, now: Now, stream: &Stream) -> StreamInfo {
        let (mirror, sources) = self.shown_intakes(now, stream.id);
        StreamInfo {
            config: stream.config.clone(),
            created: stream.created.rfc3339(),
            state: self.shown_state(stream),
            domain: self.options.domain.clone(),
            cluster: None,
            mirror,
            sources,
            ts: now.wall.rfc3339(),
            did_create: false,
        }
    }

    pub(super) fn stream_info(
        &mut self,
        now: Now,
        name: &[u8],
        msg: &Inbound<'_>,
        host: &mut impl Host,
    ) {
        match self.checked_info(name, msg) {
            Ok((stream, request)) => {
                let asker = self.asker(msg, host);
                let pending = Pending {
                    asker,
                    stream,
                    offset: u64::try_from(request.offset).unwrap_or(0),
                    subjects: Filter::parse(request.subjects_filter.as_bytes()).ok(),
                    paging: Paging::default(),
                    found: BTreeMap::new(),
                    deleted_details: request.deleted_details,
                    deleted: Vec::new(),
                };
                self.continue_info(now, pending, host);
            }
            Err(error) => self.refuse(msg, INFO, &error, &Paging::default(), host),
        }
    }

    fn checked_info(
        &self,
        name: &[u8],
        msg: &Inbound<'_>,
    ) -> Result<(StreamId, InfoRequest), ApiError> {
        if !json::level_ok(msg.headers) {
            return Err(ApiError::REQUIRED_LEVEL);
        }
        let request = if json::has_body(msg.payload) {
            json::decode(msg.payload, self.options.strict)?
        } else {
            InfoRequest::default()
        };
        let stream = self.stream_by_name(name).ok_or(ApiError::STREAM_NOT_FOUND)?;
        Ok((stream.id, request))
    }

    /// Asks for what is still missing, or answers.
    fn continue_info(&mut self, now: Now, mut pending: Pending, host: &mut impl Host) {
        let Some((_, mut info)) = self.shown_stream(now, pending.stream) else {
            let error = &ApiError::STREAM_NOT_FOUND;
            self.respond_error(&pending.asker, INFO, error, &Paging::default(), host);
            return;
        };
        let stream = pending.stream;
        if let Some(filter) = pending.subjects.take() {
            let offset = pending.offset;
            let limit = u32::try_from(limits::API_SUBJECTS_PAGE).unwrap_or(u32::MAX);
            let token = self.token(Waiting::Stream(StreamPending::Info(pending)));
            let request = StoreRequest::Subjects { token, stream, filter, offset, limit };
            self.store(request, host);
            return;
        }
        if core::mem::take(&mut pending.deleted_details) && info.state.num_deleted > 0 {
            let token = self.token(Waiting::Stream(StreamPending::Info(pending)));
            let limit = limits::API_DELETED_MAX;
            self.store(StoreRequest::Deleted { token, stream, limit }, host);
            return;
        }
        info.cluster = Some(Cluster { leader: self.options.server_name.clone() });
        info.state.subjects = pending.found;
        info.state.deleted = pending.deleted;
        let body = InfoBody { paging: pending.paging, info };
        self.respond(&pending.asker, INFO, &body, host);
    }

    pub(super) fn info_reply(
        &mut self,
        now: Now,
        mut pending: Pending,
        reply: StoreReply,
        host: &mut impl Host,
    ) {
        let failure = match reply {
            StoreReply::Subjects { subjects: Ok(subjects), total, .. } => {
                if total > 0 {
                    pending.paging = Paging {
                        total,
                        offset: pending.offset,
                        limit: limits::API_SUBJECTS_PAGE as u64,
                    };
                }
                for (subject, count) in subjects {
                    let subject = String::from_utf8_lossy(&subject).into_owned();
                    pending.found.insert(subject, count);
                }
                None
            }
            StoreReply::Deleted { seqs: Ok(seqs), .. } => {
                pending.deleted = seqs;
                None
            }
            StoreReply::Subjects { subjects: Err(error), .. }
            | StoreReply::Deleted { seqs: Err(error), .. } => Some(error),
            _ => None,
        };
        match failure {
            Some(error) => {
                let error = ApiError::with(10051, 500, error.text);
                self.respond_error(&pending.asker, INFO, &error, &Paging::default(), host);
            }
            None => self.continue_info(now, pending, host),
        }
    }

    /// Streams in the order of their names; with a subject, those that it may reach.
    fn streams_on(&self, subject: &str) -> Vec<&Stream> {
        self.names
            .values()
            .filter_map(|id| self.streams.get(id))
            .filter(|stream| {
                subject.is_empty()
                    || stream
                        .config
                        .subjects
                        .iter()
                        .any(|theirs| subject::collides(theirs.as_bytes(), subject.as_bytes()))
            })
            .collect()
    }

    pub(super) fn stream_names(&mut self, msg: &Inbound<'_>, host: &mut impl Host) {
        let page = optional_page::<NamesRequest>(msg, self.options.strict).map(|page| page.0);
        match page {
            Ok(page) => {
                let names: Vec<_> =
                    self.streams_on(&page.subject).iter().map(|s| s.name.clone()).collect();
                let (paging, names) = Paging::cut(names, page.offset, limits::API_NAMES_PAGE);
                let streams = (!names.is_empty()).then_some(names);
                let asker = self.asker(msg, host);
                self.respond(&asker, NAMES, &NamesBody { paging, streams }, host);
            }
            Err(error) => {
                let body = NamesBody { paging: Paging::default(), streams: None };
                self.refuse(msg, NAMES, &error, &body, host);
            }
        }
    }

    pub(super) fn stream_list(&mut self, now: Now, msg: &Inbound<'_>, host: &mut impl Host) {
        let page = optional_page::<ListRequest>(msg, self.options.strict).map(|page| page.0);
        match page {
            Ok(page) => {
                let found = self.streams_on(&page.subject);
                let (paging, found) = Paging::cut(found, page.offset, limits::API_LIST_PAGE);
                let streams = found.into_iter().map(|stream| self.bare_info(now, stream)).collect();
                let asker = self.asker(msg, host);
                self.respond(&asker, LIST, &ListBody { paging, streams }, host);
            }
            Err(error) => {
                let body = ListBody { paging: Paging::default(), streams: Vec::new() };
                self.refuse(msg, LIST, &error, &body, host);
            }
        }
    }

    pub(super) fn account_info(&mut self, msg: &Inbound<'_>, host: &mut impl Host) {
        if !json::level_ok(msg.headers) {
            self.refuse(msg, ACCOUNT, &ApiError::REQUIRED_LEVEL, &Empty {}, host);
            return;
        }
        let body = AccountBody {
            memory: self.usage.memory,
            storage: self.usage.file,
            reserved_memory: self.reserved(true),
            reserved_storage: self.reserved(false),
            streams: self.streams.len(),
            consumers: self.consumers_total(),
            limits: AccountLimits::new(&self.options.account_limits),
            domain: self.options.domain.clone(),
            api: ApiStats {
                level: json::API_LEVEL,
                total: self.api.total,
                errors: self.api.errors,
            },
        };
        let asker = self.asker(msg, host);
        self.respond(&asker, ACCOUNT, &body, host);
    }
}

fn optional_page<T: FromJson>(msg: &Inbound<'_>, strict: bool) -> Result<T, ApiError> {
    if !json::level_ok(msg.headers) {
        return Err(ApiError::REQUIRED_LEVEL);
    }
    if json::has_body(msg.payload) { json::decode(msg.payload, strict) } else { Ok(T::default()) }
}
