//! Mirrors and sources: taking in what another stream holds, here or behind a link.
//!
//! Owns the consumer at the origin, its sequences, heartbeats and flow control, and what of a
//! message is changed on the way. Does not own where the messages go: they reach the store
//! with all others, which remembers how far each origin has been taken in.
//!
//! An origin is asked for a push consumer on its API, by its name or with the prefix of
//! `external`. Whatever goes wrong, the consumer is asked for again behind the last message
//! that was handed to the store.
//!
//! # Invariants
//! - Messages of one origin reach the store in the order of their sequences, each once.
//! - Flow control is answered when the store has everything before it.
//!
//! Source: seen from nats-server 2.15.1.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;

use litemap::LiteMap;

use super::config::{StreamSource, SubjectTransform, transform};
use crate::id::{StreamId, short_hash};
use crate::jetstream::JetStream;
use crate::jetstream::host::{Host, Inbound, Target};
use crate::jetstream::json::{self, ApiError, Json};
use crate::jetstream::storage::{Origin, PublishBatch, PublishError, PublishOutcome, Seq};
use crate::proto::headers;
use crate::subject;
use crate::subject::transform::Transform;
use crate::time::{Duration, Instant, Now, Timestamp};

/// From the creation of a stream to the first attempt.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// Between two attempts.
const RETRY: Duration = Duration::from_secs(2);
/// Longest wait between two attempts that fail.
const RETRY_MAX: Duration = Duration::from_mins(2);
/// For an answer to the creation of a consumer.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// Silence of an origin after which its consumer is asked for anew.
const STALLED: Duration = Duration::from_secs(10);

/// Where one origin stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// To be asked at this time.
    Waiting(Instant),
    /// Asked; to be asked again at this time.
    Asked(Instant),
    /// Messages come.
    Running,
}

/// One origin of a stream.
#[derive(Debug)]
pub(crate) struct Intake {
    source: StreamSource,
    /// `None`: a mirror. Else the name by which the store remembers it.
    name: Option<String>,
    transforms: Vec<Transform>,
    phase: Phase,
    /// Tells what arrives for this attempt from what was sent to those before.
    number: u32,
    deliver: Vec<u8>,
    inbox: Vec<u8>,
    /// Consumer sequence of the last message.
    delivered: u64,
    /// Sequence at the origin of the last message handed to the store, or passed over.
    last: Seq,
    /// Messages the store has not answered.
    outstanding: usize,
    /// Flow control to be answered then.
    flow: Option<Vec<u8>>,
    identity: Vec<u8>,
    /// The origin was made anew, and nothing of the new one is stored yet.
    fresh: bool,
    fails: u32,
    lag: u64,
    active: Option<Instant>,
    error: Option<ApiError>,
}

/// The origins of all streams.
#[derive(Debug, Default)]
pub(crate) struct Intakes {
    of: LiteMap<StreamId, Vec<Intake>>,
    number: u32,
}

impl Intakes {
    /// One of a stream, by its place.
    fn get_mut(&mut self, stream: StreamId, index: usize) -> Option<&mut Intake> {
        self.of.get_mut(&stream)?.get_mut(index)
    }
}

/// What stream info shows of one.
#[derive(Serialize)]
pub(super) struct Shown {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    external: Option<super::config::External>,
    lag: u64,
    #[serde(skip_serializing_if = "is_zero")]
    seq: u64,
    active: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ApiError>,
    #[serde(skip_serializing_if = "String::is_empty")]
    filter_subject: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subject_transforms: Vec<SubjectTransform>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands fields over so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// By what the store and `Nats-Stream-Source` know an origin.
fn index_name(source: &StreamSource) -> String {
    let prefix = source.external.as_ref().filter(|external| !external.api.is_empty());
    let hash = prefix.map(|external| format!(":{}", short_hash(external.api.as_bytes())));
    let or_all = |text: &str| if text.is_empty() { ">".into() } else { String::from(text) };
    let (filters, dests) = if source.subject_transforms.is_empty() {
        (or_all(&source.filter_subject), ">".into())
    } else {
        let join = |part: fn(&SubjectTransform) -> &str| {
            let parts: Vec<String> =
                source.subject_transforms.iter().map(|of| or_all(part(of))).collect();
            parts.join("\u{c}")
        };
        (join(|of| &of.src), join(|of| &of.dest))
    };
    format!("{}{} {filters} {dests}", source.name, hash.unwrap_or_default())
}

impl Intake {
    fn new(source: &StreamSource, is_mirror: bool, now: Instant) -> Self {
        let transforms = source.subject_transforms.iter();
        Self {
            name: (!is_mirror).then(|| index_name(source)),
            transforms: transforms
                .filter_map(|of| {
                    let dest = if of.dest.is_empty() { &of.src } else { &of.dest };
                    transform(&of.src, dest).ok().flatten()
                })
                .collect(),
            source: source.clone(),
            phase: Phase::Waiting(now + FIRST_WAIT),
            number: 0,
            deliver: Vec::new(),
            inbox: Vec::new(),
            delivered: 0,
            last: 0,
            outstanding: 0,
            flow: None,
            identity: Vec::new(),
            fresh: false,
            fails: 0,
            lag: 0,
            active: None,
            error: None,
        }
    }

    /// Nothing of this attempt is heard any more.
    fn unsubscribe(&self, id: StreamId, host: &mut impl Host) {
        if self.number > 0 {
            let target = Target::Intake(id, self.number);
            host.unsubscribe(&self.deliver, target);
            host.unsubscribe(&self.inbox, target);
        }
    }

    fn due(&self) -> Instant {
        match self.phase {
            Phase::Waiting(at) | Phase::Asked(at) => at,
            Phase::Running => self.active.unwrap_or_default() + STALLED,
        }
    }

    fn filters(&self) -> Vec<&str> {
        if self.source.subject_transforms.is_empty() {
            let filter = self.source.filter_subject.as_str();
            return if filter.is_empty() { Vec::new() } else { alloc::vec![filter] };
        }
        self.source.subject_transforms.iter().map(|of| of.src.as_str()).collect()
    }

    fn shown(&self, now: Instant) -> Shown {
        let active = self
            .active
            .map_or(-1, |active| i64::try_from(now.since(active).as_nanos()).unwrap_or(i64::MAX));
        Shown {
            name: self.source.name.clone(),
            external: self.source.external.clone(),
            lag: self.lag,
            seq: if self.name.is_some() { self.last } else { 0 },
            active,
            error: self.error.clone(),
            filter_subject: self.source.filter_subject.clone(),
            subject_transforms: self.source.subject_transforms.clone(),
        }
    }
}

/// What the subject of an ack tells of a delivery: stream and consumer sequence, time, and
/// how many are pending.
fn delivery(reply: &[u8]) -> Option<(Seq, u64, Timestamp, u64)> {
    let skip = match subject::tokens(reply).count() {
        9 => 5,
        11.. => 7,
        _ => return None,
    };
    let mut numbers = subject::tokens(reply)
        .skip(skip)
        .map(|token| core::str::from_utf8(token).ok()?.parse::<u64>().ok());
    let mut next = || numbers.next().flatten();
    let (seq, dseq, time, pending) = (next()?, next()?, next()?, next()?);
    Some((seq, dseq, Timestamp(i64::try_from(time).ok()?), pending))
}

/// Headers as they are stored here: without what was meant for the origin.
fn carried(block: &[u8], source: Option<&str>) -> Vec<u8> {
    let mut out = Vec::new();
    for line in headers::lines(block) {
        let dropped = line.starts_with(b"Nats-Expected-")
            || line.starts_with(b"Nats-Batch-")
            || (source.is_some() && line.starts_with(b"Nats-Stream-Source:"));
        if dropped || line.is_empty() {
            continue;
        }
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
    }
    if let Some(source) = source {
        out.extend_from_slice(format!("Nats-Stream-Source: {source}\r\n").as_bytes());
    }
    if out.is_empty() {
        return out;
    }
    [b"NATS/1.0\r\n", &out[..], b"\r\n"].concat()
}

fn number_of(block: &[u8], name: &str) -> Option<u64> {
    core::str::from_utf8(headers::value(block, name)?).ok()?.trim().parse().ok()
}

#[derive(Serialize)]
struct Request<'a> {
    stream_name: &'a str,
    config: ConsumerRequest<'a>,
    action: &'a str,
}

#[derive(Serialize)]
struct ConsumerRequest<'a> {
    name: &'a str,
    deliver_policy: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    opt_start_seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    opt_start_time: Option<String>,
    ack_policy: &'a str,
    ack_wait: u64,
    max_deliver: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    filter_subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    filter_subjects: Vec<&'a str>,
    replay_policy: &'a str,
    flow_control: bool,
    deliver_subject: &'a str,
    idle_heartbeat: u64,
    inactive_threshold: u64,
    num_replicas: u32,
    direct: bool,
    sourcing: bool,
    metadata: BTreeMap<&'a str, &'a str>,
}

impl JetStream {
    /// The origins of a stream changed: what stays goes on.
    pub(super) fn configure_intakes(&mut self, id: StreamId, host: &mut impl Host) {
        let Some(stream) = self.streams.get(&id) else { return };
        let config = &stream.config;
        let wanted = config.mirror.iter().map(|source| (&**source, true));
        let wanted = wanted.chain(config.sources.iter().map(|source| (source, false)));
        let mut old = self.intakes.of.remove(&id).unwrap_or_default();
        let mut new = Vec::new();
        for (source, is_mirror) in wanted {
            let same =
                |intake: &Intake| intake.source == *source && intake.name.is_none() == is_mirror;
            new.push(match old.iter().position(same) {
                Some(at) => old.swap_remove(at),
                None => Intake::new(source, is_mirror, self.clock),
            });
        }
        for intake in old {
            intake.unsubscribe(id, host);
        }
        if !new.is_empty() {
            self.intakes.of.insert(id, new);
        }
    }

    /// At the start: how far origins were taken in.
    pub(in crate::jetstream) fn intakes_recovered(
        &mut self,
        id: StreamId,
        origins: &[(Vec<u8>, Seq)],
    ) {
        let last = self.streams.get(&id).map_or(0, |stream| stream.state.last_seq);
        for intake in self.intakes.of.get_mut(&id).into_iter().flatten() {
            intake.last = match &intake.name {
                None => last,
                Some(name) => origins
                    .iter()
                    .find(|(known, _)| known == name.as_bytes())
                    .map_or(0, |(_, seq)| *seq),
            };
        }
    }

    pub(super) fn shown_intakes(&self, now: Now, id: StreamId) -> (Option<Shown>, Vec<Shown>) {
        let (mut mirror, mut sources) = (None, Vec::new());
        for intake in self.intakes.of.get(&id).into_iter().flatten() {
            let shown = intake.shown(now.instant);
            if intake.name.is_some() {
                sources.push(shown);
            } else {
                mirror = Some(shown);
            }
        }
        (mirror, sources)
    }

    /// When [`Self::intakes_timeout`] is due.
    pub(in crate::jetstream) fn intakes_poll_timeout(&self) -> Option<Instant> {
        self.intakes.of.values().flatten().map(Intake::due).min()
    }

    /// Asks origins for consumers.
    pub(in crate::jetstream) fn intakes_timeout(&mut self, now: Now, host: &mut impl Host) {
        let mut due = Vec::new();
        for (id, intakes) in &self.intakes.of {
            for (index, intake) in intakes.iter().enumerate() {
                if intake.due() <= now.instant {
                    due.push((*id, index));
                }
            }
        }
        for (id, index) in due {
            let Some(intake) = self.intakes.get_mut(id, index) else {
                continue;
            };
            if intake.outstanding > 0 {
                // What the store still refuses has to be asked for again.
                intake.phase = Phase::Waiting(now.instant + FIRST_WAIT);
                continue;
            }
            self.ask_origin(now, id, index, host);
        }
    }

    /// Everything of this attempt is over; the next one is made at `at`.
    fn restart_intake(&mut self, id: StreamId, index: usize, at: Instant, host: &mut impl Host) {
        let Some(mut intakes) = self.intakes.of.remove(&id) else { return };
        if let Some(intake) = intakes.get_mut(index) {
            intake.unsubscribe(id, host);
            intake.number = 0;
            intake.flow = None;
            intake.phase = Phase::Waiting(at);
        }
        self.intakes.of.insert(id, intakes);
    }

    fn ask_origin(&mut self, now: Now, id: StreamId, index: usize, host: &mut impl Host) {
        self.restart_intake(id, index, now.instant, host);
        self.intakes.number = self.intakes.number.wrapping_add(1).max(1);
        let number = self.intakes.number;
        let Some(stream) = self.streams.get(&id) else { return };
        let Some(intakes) = self.intakes.of.get(&id) else { return };
        let Some(intake) = intakes.get(index) else { return };
        let is_mirror = intake.name.is_none();
        let external = intake.source.external.as_ref();
        let prefix = external
            .map(|external| external.deliver.as_str())
            .filter(|prefix| !prefix.is_empty())
            .unwrap_or("$JS");
        let kind = if is_mirror { "M" } else { "S" };
        let deliver = format!("{prefix}.{kind}.{}", self.rng.token(8));
        let inbox = format!("$JSC.R.{}", self.rng.token(8));
        let account = &self.options.account;
        let mut hash = format!("{} {account}", stream.name);
        if let Some(domain) = &self.options.domain {
            hash = format!("{hash} {domain}");
        }
        hash = short_hash(hash.as_bytes());
        if let Some(name) = &intake.name {
            let same = intakes.iter().filter(|other| other.source.name == intake.source.name);
            if same.count() > 1 {
                hash = format!("{hash} {name}");
            }
            hash = short_hash(hash.as_bytes());
        }
        let name = format!("JS_{}_{hash}", if is_mirror { "MIRROR" } else { "SRC" });
        let filters = intake.filters();
        let mut metadata = BTreeMap::new();
        let keys = if is_mirror {
            ["_nats.mirror.acc", "_nats.mirror.stream", "_nats.mirror.domain"]
        } else {
            ["_nats.src.acc", "_nats.src.stream", "_nats.src.domain"]
        };
        metadata.insert(keys[0], account.as_str());
        metadata.insert(keys[1], stream.name.as_str());
        if let Some(domain) = &self.options.domain {
            metadata.insert(keys[2], domain);
        }
        let (mut policy, mut start, mut time) = ("all", 0, None);
        if intake.last > 0 {
            (policy, start) = ("by_start_sequence", intake.last.saturating_add(1));
        } else if intake.source.opt_start_seq > 0 {
            (policy, start) = ("by_start_sequence", intake.source.opt_start_seq);
        } else if let Some(at) = intake.source.opt_start_time {
            (policy, time) = ("by_start_time", Some(at.rfc3339()));
        }
        let request = Request {
            stream_name: &intake.source.name,
            config: ConsumerRequest {
                name: &name,
                deliver_policy: policy,
                opt_start_seq: start,
                opt_start_time: time,
                ack_policy: "none",
                ack_wait: 79_200_000_000_000,
                max_deliver: 1,
                filter_subject: if let [filter] = filters[..] { Some(filter) } else { None },
                filter_subjects: if filters.len() > 1 { filters.clone() } else { Vec::new() },
                replay_policy: "instant",
                flow_control: true,
                deliver_subject: &deliver,
                idle_heartbeat: 1_000_000_000,
                inactive_threshold: 10_000_000_000,
                num_replicas: 0,
                direct: true,
                sourcing: true,
                metadata,
            },
            action: "",
        };
        let body = serde_json::to_vec(&request).unwrap_or_default();
        let api = external.map(|external| external.api.as_str()).filter(|api| !api.is_empty());
        let mut to = format!("{}.CONSUMER.CREATE.{}", api.unwrap_or("$JS.API"), intake.source.name);
        if let [filter] = filters[..] {
            to = format!("{to}.{name}.{filter}");
        }
        let mut block = Vec::new();
        let level: &[u8] = if is_mirror { b"4" } else { b"5" };
        let level = ("Nats-Required-Api-Level", level);
        let identity = ("Nats-Stream-Identity", &intake.identity[..]);
        let fields = if is_mirror { &[level][..] } else { &[level, identity][..] };
        headers::write_status(&mut block, "", fields);
        let Some(intake) = self.intakes.get_mut(id, index) else {
            return;
        };
        intake.number = number;
        intake.delivered = 0;
        intake.deliver = deliver.into_bytes();
        intake.inbox = inbox.into_bytes();
        intake.phase = Phase::Asked(now.instant + ANSWER_WAIT);
        let target = Target::Intake(id, number);
        host.subscribe(&intake.deliver, target);
        host.subscribe(&intake.inbox, target);
        let inbox = intake.inbox.clone();
        if !host.deliver(to.as_bytes(), to.as_bytes(), &inbox, &block, &body) {
            // Nobody is there: not now, or not yet.
            let wait = self.failed(id, index, None);
            self.restart_intake(id, index, now.instant + wait, host);
        }
    }

    /// Notes a failed attempt and says how long to wait for the next.
    fn failed(&mut self, id: StreamId, index: usize, error: Option<ApiError>) -> Duration {
        let Some(intake) = self.intakes.get_mut(id, index) else {
            return RETRY;
        };
        intake.fails = intake.fails.saturating_add(1);
        if error.is_some() {
            intake.error = error;
        }
        (10 * RETRY / 2 * intake.fails).clamp(RETRY, RETRY_MAX)
    }

    /// Something came from an origin: a message, a status, or the answer to a request.
    pub fn handle_intake(
        &mut self,
        now: Now,
        id: StreamId,
        number: u32,
        msg: Inbound<'_>,
        host: &mut impl Host,
    ) {
        self.wall = now.wall;
        let Some(intakes) = self.intakes.of.get_mut(&id) else { return };
        let Some(index) = intakes.iter().position(|intake| intake.number == number) else {
            return;
        };
        let Some(intake) = intakes.get_mut(index) else { return };
        if msg.subject == intake.inbox {
            self.origin_answered(now, id, index, msg, host);
            return;
        }
        intake.active = Some(now.instant);
        match delivery(msg.reply) {
            Some((seq, dseq, time, pending)) => {
                if dseq != intake.delivered.wrapping_add(1) {
                    self.restart_intake(id, index, now.instant + RETRY, host);
                    return;
                }
                intake.delivered = dseq;
                intake.lag = pending.saturating_sub(1);
                if seq > intake.last && !self.take_in(id, index, seq, time, msg, host) {
                    // Too much is on its way to the store.
                    self.restart_intake(id, index, now.instant + RETRY, host);
                }
            }
            None => self.origin_status(now, id, index, msg, host),
        }
    }

    fn origin_answered(
        &mut self,
        now: Now,
        id: StreamId,
        index: usize,
        msg: Inbound<'_>,
        host: &mut impl Host,
    ) {
        let error = match error_of(msg.payload) {
            Ok(None) => {
                let Some(intake) = self.intakes.get_mut(id, index) else {
                    return;
                };
                intake.phase = Phase::Running;
                intake.active = Some(now.instant);
                intake.error = None;
                intake.fails = 0;
                if let Some(identity) = headers::value(msg.headers, "Nats-Stream-Identity") {
                    intake.identity = identity.trim_ascii().to_vec();
                }
                return;
            }
            Ok(Some(error)) => Some(error),
            // No responders, or no answer of a server that knows what it is asked.
            Err(()) => None,
        };
        let is_other = error.as_ref().is_some_and(|error| error.err_code == 10225);
        if let Some(intake) = self.intakes.get_mut(id, index)
            && is_other
        {
            // The stream was made anew: from its start.
            intake.identity.clear();
            intake.last = 0;
            intake.fresh = intake.name.is_some();
            self.restart_intake(id, index, now.instant + RETRY, host);
            return;
        }
        let wait = self.failed(id, index, error);
        self.restart_intake(id, index, now.instant + wait, host);
    }

    fn origin_status(
        &mut self,
        now: Now,
        id: StreamId,
        index: usize,
        msg: Inbound<'_>,
        host: &mut impl Host,
    ) {
        let Some(intake) = self.intakes.get_mut(id, index) else {
            return;
        };
        if !msg.reply.is_empty() {
            intake.flow = Some(msg.reply.to_vec());
            answer_flow(intake, host);
            return;
        }
        let last = number_of(msg.headers, "Nats-Last-Consumer");
        if last.is_some_and(|last| last != intake.delivered) {
            self.restart_intake(id, index, now.instant + FIRST_WAIT, host);
            return;
        }
        if let Some(stalled) = headers::value(msg.headers, "Nats-Consumer-Stalled") {
            let to = stalled.trim_ascii().to_vec();
            host.deliver(&to, &to, b"", b"", b"");
        }
    }

    /// Hands a message to the store; false if there is no room for it now.
    fn take_in(
        &mut self,
        id: StreamId,
        index: usize,
        seq: Seq,
        time: Timestamp,
        msg: Inbound<'_>,
        host: &mut impl Host,
    ) -> bool {
        let Some(intake) = self.intakes.get_mut(id, index) else {
            return true;
        };
        let transforms = intake.transforms.iter();
        let changed = transforms
            .map(|transform| {
                crate::jetstream::publish::transformed(transform, msg.subject, &mut self.rng)
            })
            .find_map(|changed| changed);
        let to = changed.as_deref().unwrap_or(msg.subject);
        let after = if intake.fresh { Seq::MAX } else { intake.last };
        let (origin, block, timestamp) = match &intake.name {
            None => (Origin::Mirror { seq }, carried(msg.headers, None), time),
            Some(name) => {
                let (stream, rest) = name.split_once(' ').unwrap_or((name, "> >"));
                let identity = core::str::from_utf8(&intake.identity).unwrap_or_default();
                let subject = String::from_utf8_lossy(msg.subject);
                let text = format!("{stream} {seq} {rest} {subject} {identity}");
                let block = carried(msg.headers, Some(text.trim_end()));
                let origin = Origin::Source { seq, after, name: name.as_str().into() };
                (origin, block, self.wall.max(self.earliest))
            }
        };
        if !self.ingest_origin(id, timestamp, (to, &block, msg.payload), origin, host) {
            return false;
        }
        if let Some(intake) = self.intakes.get_mut(id, index) {
            intake.last = seq;
            intake.outstanding += 1;
        }
        true
    }

    /// The store answered messages of origins.
    pub(in crate::jetstream) fn intakes_stored(
        &mut self,
        now: Now,
        batch: &PublishBatch,
        outcomes: &[PublishOutcome],
        host: &mut impl Host,
    ) {
        if self.intakes.of.is_empty() {
            return;
        }
        let mut again = Vec::new();
        for (item, outcome) in batch.items.iter().zip(outcomes) {
            let Some(origin) = &item.origin else { continue };
            let (name, seq, after) = match &**origin {
                Origin::Mirror { seq } => (None, *seq, seq.saturating_sub(1)),
                Origin::Source { seq, after, name } => (Some(&**name), *seq, *after),
            };
            let Some(intakes) = self.intakes.of.get_mut(&item.stream) else { continue };
            let found = intakes.iter_mut().enumerate().find(|(_, of)| of.name.as_deref() == name);
            let Some((index, intake)) = found else { continue };
            intake.outstanding = intake.outstanding.saturating_sub(1);
            intake.fresh &= !matches!(outcome, PublishOutcome::Stored { .. });
            let failed = matches!(
                outcome,
                PublishOutcome::Refused(error)
                    if matches!(**error, PublishError::StoreFailed(_))
            );
            if failed && seq <= intake.last {
                intake.last = after.min(intake.last);
                again.push((item.stream, index));
            }
        }
        for (stream, index) in again {
            self.restart_intake(stream, index, now.instant + RETRY, host);
        }
        for intake in self.intakes.of.iter_mut().flat_map(|(_, list)| list) {
            answer_flow(intake, host);
        }
    }
}

fn answer_flow(intake: &mut Intake, host: &mut impl Host) {
    if intake.outstanding > 0 {
        return;
    }
    let Some(reply) = intake.flow.take() else { return };
    let mut block = Vec::new();
    let (consumer, stream) = (format!("{}", intake.delivered), format!("{}", intake.last));
    let fields =
        [("Nats-Last-Consumer", consumer.as_bytes()), ("Nats-Last-Stream", stream.as_bytes())];
    headers::write_status(&mut block, "", &fields);
    host.deliver(&reply, &reply, b"", &block, b"");
}

/// The error in an answer of the API; `Err` if it is none.
fn error_of(payload: &[u8]) -> Result<Option<ApiError>, ()> {
    let Some(Json::Object(members)) = json::parse(payload) else { return Err(()) };
    let Some((_, error)) = members.iter().find(|(key, _)| key == "error") else { return Ok(None) };
    let Json::Object(error) = error else { return Err(()) };
    let number = |name: &str| match error.iter().find(|(key, _)| key == name) {
        Some((_, Json::Number(text))) => text.parse().unwrap_or(0),
        _ => 0,
    };
    let text = match error.iter().find(|(key, _)| key == "description") {
        Some((_, Json::String(text))) => text.clone(),
        _ => String::new(),
    };
    Ok(Some(ApiError::with(number("err_code"), number("code"), text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_the_name_that_nats_server_gives_it() {
        let plain = StreamSource { name: "O".into(), ..StreamSource::default() };
        assert_eq!(index_name(&plain), "O > >");
        let filtered = StreamSource { filter_subject: "or.*".into(), ..plain.clone() };
        assert_eq!(index_name(&filtered), "O or.* >");
        let of = |src: &str, dest: &str| SubjectTransform { src: src.into(), dest: dest.into() };
        let two = alloc::vec![of("a.*", "b.$1"), of("c", "d")];
        let transformed = StreamSource { subject_transforms: two, ..plain };
        assert_eq!(index_name(&transformed), "O a.*\u{c}c b.$1\u{c}d");
    }

    #[test]
    fn what_was_meant_for_the_origin_is_left_out() {
        let block = b"NATS/1.0\r\nA: b\r\nNats-Expected-Stream: O\r\nNats-Stream-Source: x\r\n\r\n";
        assert_eq!(
            carried(block, Some("O 1 > > o")),
            b"NATS/1.0\r\nA: b\r\nNats-Stream-Source: O 1 > > o\r\n\r\n"
        );
        assert_eq!(carried(b"NATS/1.0\r\nNats-Batch-Id: x\r\n\r\n", None), b"");
    }

    #[test]
    fn a_delivery_is_read_from_both_forms_of_its_subject() {
        let expected = Some((30, 4, Timestamp(179), 7));
        assert_eq!(delivery(b"$JS.ACK.S.C.1.30.4.179.7"), expected);
        assert_eq!(delivery(b"$JS.ACK._.szMpdrwD.S.C.1.30.4.179.7"), expected);
        assert_eq!(delivery(b"$JS.FC.S.C.x"), None);
    }
}
