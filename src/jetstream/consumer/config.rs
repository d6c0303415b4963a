//! The configuration of a consumer: its fields in JSON, defaults, rules and texts.
//!
//! Owns what a configuration may say and what may change later. Does not own names in
//! subjects (`create`) and does not look at other consumers.
//!
//! Numbers are kept as in JSON (nanoseconds, -1 for no limit), so that what a client sent
//! comes back unchanged; the methods below give what they mean.
//!
//! Source: nats-server 2.15.1, `jetstream-errors.json`; ADR-9, ADR-13, ADR-42 for the fields.

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Serialize, Serializer};

use super::state::Settling;
use crate::jetstream::json::{self, ApiError, FromJson, Json, Path};
use crate::jetstream::options;
use crate::jetstream::stream::StreamConfig;
use crate::jetstream::stream::config::Retention;
use crate::limits;
use crate::subject::{self, Filter};
use crate::time::{Duration, GoDuration, Timestamp};

/// Where delivery starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DeliverPolicy {
    /// At the first message.
    #[default]
    All,
    /// At the last one.
    Last,
    /// At the next one to be stored.
    New,
    /// At `opt_start_seq`.
    ByStartSequence,
    /// At `opt_start_time`.
    ByStartTime,
    /// With the last one of each subject.
    LastPerSubject,
}

/// What has to be acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AckPolicy {
    /// Nothing.
    #[default]
    None,
    /// An ack stands for all before it.
    All,
    /// Every message.
    Explicit,
    /// The answer to flow control acknowledges.
    FlowControl,
}

/// How fast stored messages are delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReplayPolicy {
    /// As fast as they are taken.
    #[default]
    Instant,
    /// At the pace they were stored.
    Original,
}

/// Which of several pullers is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PriorityPolicy {
    /// Each in turn.
    #[default]
    None,
    /// Those whose thresholds are met.
    Overflow,
    /// One until it goes away.
    PinnedClient,
    /// The lowest number first.
    Prioritized,
}

/// See the module. Field order is that of the echo.
#[expect(clippy::struct_excessive_bools, reason = "the fields of the API")]
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct ConsumerConfig {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) durable_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) description: String,
    pub(crate) deliver_policy: DeliverPolicy,
    #[serde(skip_serializing_if = "is_zero_u64")]
    pub(crate) opt_start_seq: u64,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "write_time")]
    pub(crate) opt_start_time: Option<Timestamp>,
    pub(crate) ack_policy: AckPolicy,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) ack_wait: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) max_deliver: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) backoff: Vec<i64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) filter_subject: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) filter_subjects: Vec<String>,
    pub(crate) replay_policy: ReplayPolicy,
    #[serde(skip_serializing_if = "is_zero_u64")]
    pub(crate) rate_limit_bps: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) sample_freq: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) max_waiting: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) max_ack_pending: i64,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) flow_control: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) headers_only: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) max_batch: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) max_expires: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) max_bytes: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) deliver_subject: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) deliver_group: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) idle_heartbeat: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) inactive_threshold: i64,
    pub(crate) num_replicas: i64,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) mem_storage: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) direct: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) sourcing: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "write_time")]
    pub(crate) pause_until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) priority_groups: Vec<String>,
    #[serde(skip_serializing_if = "is_no_policy")]
    pub(crate) priority_policy: PriorityPolicy,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) priority_timeout: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero_u64(number: &u64) -> bool {
    *number == 0
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(flag: &bool) -> bool {
    !*flag
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_no_policy(policy: &PriorityPolicy) -> bool {
    *policy == PriorityPolicy::None
}
#[expect(clippy::ref_option, reason = "serde passes references")]
fn write_time<S: Serializer>(time: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&time.unwrap_or_default())
}

impl FromJson for ConsumerConfig {
    const NAME: &'static str = "ConsumerConfig";

    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
        match key {
            "durable_name" => json::string(&mut self.durable_name, value, path),
            "name" => json::string(&mut self.name, value, path),
            "description" => json::string(&mut self.description, value, path),
            "deliver_policy" => choice(&mut self.deliver_policy, value, |text| match text {
                "all" | "undefined" => Some(DeliverPolicy::All),
                "last" => Some(DeliverPolicy::Last),
                "new" => Some(DeliverPolicy::New),
                "by_start_sequence" => Some(DeliverPolicy::ByStartSequence),
                "by_start_time" => Some(DeliverPolicy::ByStartTime),
                "last_per_subject" => Some(DeliverPolicy::LastPerSubject),
                _ => None,
            }),
            "opt_start_seq" => json::uint(&mut self.opt_start_seq, value, path),
            "opt_start_time" => time(&mut self.opt_start_time, value),
            "ack_policy" => choice(&mut self.ack_policy, value, |text| match text {
                "none" => Some(AckPolicy::None),
                "all" => Some(AckPolicy::All),
                "explicit" => Some(AckPolicy::Explicit),
                "flow_control" => Some(AckPolicy::FlowControl),
                _ => None,
            }),
            "ack_wait" => json::duration(&mut self.ack_wait, value, path),
            "max_deliver" => json::number(&mut self.max_deliver, value, path, "int"),
            "backoff" => json::durations(&mut self.backoff, value, path),
            "filter_subject" => json::string(&mut self.filter_subject, value, path),
            "filter_subjects" => json::strings(&mut self.filter_subjects, value, path),
            "replay_policy" => choice(&mut self.replay_policy, value, |text| match text {
                "instant" => Some(ReplayPolicy::Instant),
                "original" => Some(ReplayPolicy::Original),
                _ => None,
            }),
            "rate_limit_bps" => json::uint(&mut self.rate_limit_bps, value, path),
            "sample_freq" => json::string(&mut self.sample_freq, value, path),
            "max_waiting" => json::number(&mut self.max_waiting, value, path, "int"),
            "max_ack_pending" => json::number(&mut self.max_ack_pending, value, path, "int"),
            "flow_control" => json::boolean(&mut self.flow_control, value, path),
            "headers_only" => json::boolean(&mut self.headers_only, value, path),
            "max_batch" => json::number(&mut self.max_batch, value, path, "int"),
            "max_expires" => json::duration(&mut self.max_expires, value, path),
            "max_bytes" => json::number(&mut self.max_bytes, value, path, "int"),
            "deliver_subject" => json::string(&mut self.deliver_subject, value, path),
            "deliver_group" => json::string(&mut self.deliver_group, value, path),
            "idle_heartbeat" => json::duration(&mut self.idle_heartbeat, value, path),
            "inactive_threshold" => json::duration(&mut self.inactive_threshold, value, path),
            "num_replicas" => json::number(&mut self.num_replicas, value, path, "int"),
            "mem_storage" => json::boolean(&mut self.mem_storage, value, path),
            "direct" => json::boolean(&mut self.direct, value, path),
            "sourcing" => json::boolean(&mut self.sourcing, value, path),
            "metadata" => json::map(&mut self.metadata, value, path),
            "pause_until" => time(&mut self.pause_until, value),
            "priority_groups" => json::strings(&mut self.priority_groups, value, path),
            "priority_policy" => choice(&mut self.priority_policy, value, |text| match text {
                "none" => Some(PriorityPolicy::None),
                "overflow" => Some(PriorityPolicy::Overflow),
                "pinned_client" => Some(PriorityPolicy::PinnedClient),
                "prioritized" => Some(PriorityPolicy::Prioritized),
                _ => None,
            })
            .map_err(|_| format!("unknown priority policy: {}", value.text())),
            "priority_timeout" => json::duration(&mut self.priority_timeout, value, path),
            _ => Ok(false),
        }
    }
}

fn choice<T>(to: &mut T, value: &Json, parse: impl Fn(&str) -> Option<T>) -> Result<bool, String> {
    let shown = match value {
        Json::String(text) => match parse(text) {
            Some(parsed) => {
                *to = parsed;
                return Ok(true);
            }
            None => serde_json::to_string(text).unwrap_or_default(),
        },
        Json::Null => "null".into(),
        Json::Bool(flag) => flag.to_string(),
        Json::Number(text) => text.clone(),
        Json::Array(_) => "[]".into(),
        Json::Object(_) => "{}".into(),
    };
    Err(format!("can not unmarshal {shown:?}"))
}

/// A time, or nothing for `null`.
pub(super) fn time(to: &mut Option<Timestamp>, value: &Json) -> Result<bool, String> {
    match value {
        Json::Null => Ok(true),
        Json::String(text) => match Timestamp::parse_rfc3339(text) {
            Some(time) => {
                *to = Some(time);
                Ok(true)
            }
            None => Err(format!(
                "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""
            )),
        },
        _ => Err("Time.UnmarshalJSON: input is not a JSON string".into()),
    }
}

const SECOND: i64 = 1_000_000_000;
const MILLISECOND: i64 = 1_000_000;

/// Nanoseconds from JSON; negative ones are zero.
pub(super) fn duration(nanos: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

impl ConsumerConfig {
    pub(super) fn is_push(&self) -> bool {
        !self.deliver_subject.is_empty()
    }

    pub(super) fn is_durable(&self) -> bool {
        !self.durable_name.is_empty()
    }

    /// Mirrors and sources of other servers: not listed, not counted.
    pub(super) fn is_hidden(&self) -> bool {
        self.direct
    }

    pub(super) fn settling(&self) -> Settling {
        match self.ack_policy {
            AckPolicy::None => Settling::AtDelivery,
            AckPolicy::Explicit => Settling::Each,
            AckPolicy::All | AckPolicy::FlowControl => Settling::UpTo,
        }
    }

    /// How many may be pending; `None` with no acks.
    pub(super) fn ack_pending_max(&self) -> Option<usize> {
        if self.ack_policy == AckPolicy::None {
            return None;
        }
        let most = limits::ACK_PENDING_MAX;
        let asked = if self.max_ack_pending <= 0 { most } else { self.max_ack_pending.min(most) };
        usize::try_from(asked).ok()
    }

    /// Pull requests that may wait.
    pub(super) fn waiting_max(&self) -> usize {
        usize::try_from(self.max_waiting.clamp(1, limits::WAITING_MAX)).unwrap_or(1)
    }

    /// From the `deliveries`-th delivery to the next; `None`: there is no deadline.
    pub(super) fn redelivery_wait(&self, deliveries: u32) -> Option<Duration> {
        match self.ack_policy {
            AckPolicy::None | AckPolicy::FlowControl => None,
            AckPolicy::All | AckPolicy::Explicit => {
                let step = usize::try_from(deliveries.saturating_sub(1)).unwrap_or(usize::MAX);
                let nanos = match self.backoff.last() {
                    Some(last) => *self.backoff.get(step).unwrap_or(last),
                    None => self.ack_wait,
                };
                Some(duration(nanos))
            }
        }
    }

    /// After how many deliveries a message is given up; `None`: never.
    pub(super) fn deliveries_max(&self) -> Option<u32> {
        (self.max_deliver > 0).then(|| u32::try_from(self.max_deliver).unwrap_or(u32::MAX))
    }

    /// Subjects wanted; empty: all.
    pub(super) fn filters(&self) -> Arc<[Filter]> {
        let one = (!self.filter_subject.is_empty()).then_some(&self.filter_subject);
        let filters: Vec<Filter> = one
            .into_iter()
            .chain(&self.filter_subjects)
            .filter_map(|text| Filter::parse(text.as_bytes()).ok())
            .collect();
        if filters.iter().any(|filter| filter.as_bytes() == b">") {
            return Arc::from([]);
        }
        filters.into()
    }

    /// Share of acks to be measured, in percent.
    pub(super) fn sampling(&self) -> u64 {
        self.sample_freq.trim().trim_end_matches('%').trim().parse().unwrap_or(0)
    }

    /// Does it survive a restart? (Sourcing consumers do, see `sourcing`.)
    pub(super) fn is_persisted(&self, stream: &StreamConfig) -> bool {
        !stream.memory && !self.mem_storage && (!self.direct || self.sourcing)
    }

    /// The same, apart from what servers add to the metadata.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        let strip = |config: &Self| {
            let mut stripped = config.clone();
            stripped.metadata.retain(|key, _| !key.starts_with("_nats."));
            stripped.pause_until = None;
            stripped
        };
        strip(self) == strip(other)
    }

    /// What the API shows: with what this server is.
    pub(super) fn with_versions<'a>(&'a self, version: &str) -> Cow<'a, Self> {
        let mut shown = self.clone();
        shown.metadata.insert("_nats.ver".into(), version.into());
        shown.metadata.insert("_nats.level".into(), json::API_LEVEL.to_string());
        Cow::Owned(shown)
    }

    /// Fills in what was left out. In pedantic mode corrects nothing, but refuses.
    pub(super) fn fill_defaults(
        &mut self,
        stream: &StreamConfig,
        caps: &options::Limits,
        pedantic: bool,
    ) -> Result<(), ApiError> {
        let refuse = |text: &str| Err(ApiError::with(10157, 400, format!("pedantic mode: {text}")));
        let fix = |wrong: bool, to: &mut i64, value: i64, text: &str| {
            if wrong {
                if pedantic {
                    return refuse(text);
                }
                *to = value;
            }
            Ok(())
        };
        let negative = |name: &str| format!("{name} must not be negative");
        if self.max_deliver == 0 {
            self.max_deliver = -1;
        }
        fix(self.max_deliver < -1, &mut self.max_deliver, -1, "max_deliver must be set to -1")?;
        if !self.is_push() {
            fix(self.max_waiting < 0, &mut self.max_waiting, 0, &negative("max_waiting"))?;
            if self.max_waiting == 0 {
                self.max_waiting = limits::WAITING_DEFAULT;
            }
        }
        if let (AckPolicy::All | AckPolicy::Explicit, Some(&first)) =
            (self.ack_policy, self.backoff.first())
        {
            let wrong = pedantic && self.ack_wait != 0 && self.ack_wait != first;
            if wrong {
                return refuse("first backoff value has to equal batch AckWait");
            }
            if first >= 0 {
                self.ack_wait = first;
            }
        } else if matches!(self.ack_policy, AckPolicy::All | AckPolicy::Explicit)
            && self.ack_wait == 0
        {
            self.ack_wait = 30 * SECOND;
        }
        if self.ack_policy == AckPolicy::FlowControl && !pedantic && self.is_push() {
            self.flow_control = true;
            self.idle_heartbeat = SECOND;
        }
        fix(self.max_batch < 0, &mut self.max_batch, 0, &negative("max_batch"))?;
        fix(self.max_expires < 0, &mut self.max_expires, 0, &negative("max_expires"))?;
        fix(self.max_bytes < 0, &mut self.max_bytes, 0, &negative("max_bytes"))?;
        fix(self.idle_heartbeat < 0, &mut self.idle_heartbeat, 0, &negative("idle_heartbeat"))?;
        fix(
            self.inactive_threshold < 0,
            &mut self.inactive_threshold,
            0,
            &negative("inactive_threshold"),
        )?;
        fix(
            self.priority_timeout < 0,
            &mut self.priority_timeout,
            0,
            &negative("priority_timeout"),
        )?;
        if self.priority_policy == PriorityPolicy::PinnedClient && self.priority_timeout == 0 {
            self.priority_timeout = 120 * SECOND;
        }
        fix(
            self.max_ack_pending < -1,
            &mut self.max_ack_pending,
            -1,
            "max_ack_pending must be set to -1",
        )?;
        let of_stream = stream.consumer_limits.max_ack_pending;
        // Also without acks, where it then stands for nothing.
        fix(
            self.max_ack_pending == 0 && of_stream > 0,
            &mut self.max_ack_pending,
            of_stream,
            "max_ack_pending must be set if it's configured in stream limits",
        )?;
        if self.max_ack_pending == 0 && self.ack_policy != AckPolicy::None {
            self.max_ack_pending = match caps.max_ack_pending {
                Some(cap) if cap > 0 => cap.min(limits::ACK_PENDING_DEFAULT),
                _ => limits::ACK_PENDING_DEFAULT,
            };
        }
        let of_stream = stream.consumer_limits.inactive_threshold;
        fix(
            self.inactive_threshold == 0 && of_stream > 0,
            &mut self.inactive_threshold,
            of_stream,
            "inactive_threshold must be set if it's configured in stream limits",
        )?;
        if self.inactive_threshold == 0 && !self.is_durable() {
            self.inactive_threshold = 5 * SECOND;
        }
        if let Some(cap) = caps.max_request_batch.filter(|&cap| cap > 0) {
            fix(
                !self.is_push() && self.max_batch == 0,
                &mut self.max_batch,
                cap,
                "max_request_batch must be set if it's JetStream limits are set",
            )?;
        }
        self.metadata.retain(|key, _| {
            !matches!(key.as_str(), "_nats.ver" | "_nats.level" | "_nats.req.level")
        });
        self.set_required_level();
        Ok(())
    }

    /// Notes which level of the API the configuration needs.
    pub(super) fn set_required_level(&mut self) {
        let level_1 = self.pause_until.is_some()
            || self.priority_policy != PriorityPolicy::None
            || self.priority_timeout > 0
            || !self.priority_groups.is_empty();
        let level = if self.ack_policy == AckPolicy::FlowControl { 4 } else { u32::from(level_1) };
        self.metadata.insert("_nats.req.level".into(), level.to_string());
    }

    /// The rules, in nats-server's order.
    pub(super) fn check(
        &self,
        stream: &StreamConfig,
        caps: &options::Limits,
    ) -> Result<(), ApiError> {
        let e = |err_code: u16, text: &'static str| Err(ApiError::fixed(err_code, 400, text));
        for (name, what) in [(&self.name, "name"), (&self.durable_name, "durable name")] {
            if !name.is_empty() && !is_valid_name(name) {
                return Err(ApiError::with(
                    10052,
                    500,
                    format!("consumer {what} can not contain '.', '*', '>', '\\', '/'"),
                ));
            }
        }
        if self.num_replicas > 1 {
            return e(10126, "consumer config replica count exceeds parent stream");
        }
        if self.num_replicas < 0 {
            return e(10133, "replicas count cannot be negative");
        }
        if self.backoff.iter().any(|&wait| wait < 0) {
            return e(10184, "consumer backoff needs to be positive");
        }
        if self.ack_wait < 0 {
            return e(10183, "consumer ack wait needs to be positive");
        }
        self.check_flow_control_acks()?;
        let steps = i64::try_from(self.backoff.len()).unwrap_or(i64::MAX);
        if self.max_deliver > 0 && steps > self.max_deliver {
            return e(10116, "max deliver is required to be > length of backoff values");
        }
        if self.description.len() > limits::DESCRIPTION_BYTES_MAX {
            return e(10107, "consumer description is too long, maximum allowed is 4096");
        }
        if self.is_push() {
            self.check_push(stream)?;
        } else {
            self.check_pull(stream)?;
        }
        if let Some(cap) = caps.max_request_batch
            && cap > 0
            && self.max_batch > cap
        {
            return Err(ApiError::with(
                10125,
                400,
                format!("consumer max request batch exceeds server limit of {cap}"),
            ));
        }
        let of_stream = Some(stream.consumer_limits.max_ack_pending);
        for cap in [caps.max_ack_pending, of_stream].into_iter().flatten() {
            if cap > 0 && self.max_ack_pending > cap {
                return Err(ApiError::with(
                    10121,
                    400,
                    format!("consumer max ack pending exceeds system limit of {cap}"),
                ));
            }
        }
        let cap = stream.consumer_limits.inactive_threshold;
        if cap > 0 && self.inactive_threshold > cap {
            let cap = GoDuration(duration(cap));
            return Err(ApiError::with(
                10153,
                400,
                format!("consumer inactive threshold exceeds system limit of {cap}"),
            ));
        }
        if self.direct && !self.is_push() {
            return e(10090, "consumer direct requires a push based consumer");
        }
        if self.direct && self.is_durable() {
            return e(10091, "consumer direct requires an ephemeral consumer");
        }
        self.check_filters()?;
        self.check_start()?;
        self.check_sampling()?;
        if self.flow_control && self.idle_heartbeat == 0 {
            return e(10108, "consumer with flow control also needs heartbeats");
        }
        if self.is_durable() && !self.name.is_empty() && self.name != self.durable_name {
            return e(10132, "Consumer Durable and Name have to be equal if both are provided");
        }
        let size: usize = self.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        if size > limits::METADATA_BYTES_MAX {
            return e(10135, "consumer metadata exceeds maximum size of 128KB");
        }
        self.check_priority()
    }

    fn check_flow_control_acks(&self) -> Result<(), ApiError> {
        if self.ack_policy != AckPolicy::FlowControl {
            return Ok(());
        }
        let e = |err_code: u16, text: &'static str| Err(ApiError::fixed(err_code, 400, text));
        if !self.is_push() {
            return e(10218, "flow control ack policy requires a push based consumer");
        }
        if !self.flow_control {
            return e(10219, "flow control ack policy requires flow control");
        }
        if self.idle_heartbeat != SECOND {
            return Err(ApiError::fixed(
                10052,
                500,
                "flow control ack policy heartbeat needs to be 1s",
            ));
        }
        if self.max_ack_pending <= 0 {
            return e(10220, "flow control ack policy requires max ack pending");
        }
        if self.ack_wait != 0 || !self.backoff.is_empty() {
            return e(10221, "flow control ack policy requires unset ack wait");
        }
        if self.max_deliver > 0 {
            return e(10222, "flow control ack policy requires unset max deliver");
        }
        Ok(())
    }

    fn check_push(&self, stream: &StreamConfig) -> Result<(), ApiError> {
        let e = |err_code: u16, text: &'static str| Err(ApiError::fixed(err_code, 400, text));
        let to = self.deliver_subject.as_bytes();
        if !subject::is_valid_strict(to) {
            return e(10112, "invalid push consumer deliver subject");
        }
        if subject::has_wildcard(to) {
            return e(10079, "consumer deliver subject has wildcards");
        }
        if stream.subjects.iter().any(|pattern| subject::matches(to, pattern.as_bytes())) {
            return e(10081, "consumer deliver subject forms a cycle");
        }
        if self.max_waiting != 0 {
            return e(10080, "consumer in push mode can not set max waiting");
        }
        if self.max_ack_pending > 0 && self.ack_policy == AckPolicy::None {
            return e(10082, "consumer requires ack policy for max ack pending");
        }
        if self.idle_heartbeat > 0 && self.idle_heartbeat < 100 * MILLISECOND {
            return e(10083, "consumer idle heartbeat needs to be >= 100ms");
        }
        Ok(())
    }

    fn check_pull(&self, stream: &StreamConfig) -> Result<(), ApiError> {
        let e = |err_code: u16, text: &'static str| Err(ApiError::fixed(err_code, 400, text));
        if stream.retention == Retention::WorkQueue && self.ack_policy == AckPolicy::None {
            return e(
                10084,
                "consumer in pull mode requires explicit ack policy on workqueue stream",
            );
        }
        if self.rate_limit_bps > 0 {
            return e(10086, "consumer in pull mode can not have rate limit set");
        }
        if self.idle_heartbeat > 0 {
            return e(10088, "consumer idle heartbeat requires a push based consumer");
        }
        if self.flow_control {
            return e(10089, "consumer flow control requires a push based consumer");
        }
        if self.max_expires > 0 && self.max_expires < MILLISECOND {
            return e(10115, "consumer max request expires needs to be >= 1ms");
        }
        Ok(())
    }

    fn check_filters(&self) -> Result<(), ApiError> {
        let e = |err_code: u16, text: &'static str| Err(ApiError::fixed(err_code, 400, text));
        if !self.filter_subject.is_empty() && !self.filter_subjects.is_empty() {
            return e(
                10136,
                "consumer cannot have both FilterSubject and FilterSubjects specified",
            );
        }
        let invalid = || Err(ApiError::fixed(10052, 500, "invalid subject"));
        if !self.filter_subject.is_empty()
            && !subject::is_valid_strict(self.filter_subject.as_bytes())
        {
            return invalid();
        }
        for (index, filter) in self.filter_subjects.iter().enumerate() {
            if filter.is_empty() {
                return e(10139, "consumer filter in FilterSubjects cannot be empty");
            }
            if !subject::is_valid_strict(filter.as_bytes()) {
                return invalid();
            }
            let others = self.filter_subjects.iter().enumerate().filter(|other| other.0 != index);
            for (_, other) in others {
                if subject::is_subset(filter.as_bytes(), other.as_bytes()) {
                    return e(10138, "consumer subject filters cannot overlap");
                }
            }
        }
        Ok(())
    }

    fn check_start(&self) -> Result<(), ApiError> {
        let has_filter = !self.filter_subject.is_empty() || !self.filter_subjects.is_empty();
        let (policy, wrong) = match self.deliver_policy {
            DeliverPolicy::All => ("all", self.any_start()),
            DeliverPolicy::Last => ("last", self.any_start()),
            DeliverPolicy::New => ("new", self.any_start()),
            DeliverPolicy::LastPerSubject if !has_filter => {
                ("last per subject", Some("filter subject is not set"))
            }
            DeliverPolicy::LastPerSubject => ("last per subject", self.any_start()),
            DeliverPolicy::ByStartSequence if self.opt_start_seq == 0 => {
                ("by start sequence", Some("start sequence is not set"))
            }
            DeliverPolicy::ByStartSequence => {
                ("by start sequence", self.opt_start_time.map(|_| "start time is also set"))
            }
            DeliverPolicy::ByStartTime if self.opt_start_time.is_none() => {
                ("by start time", Some("start time is not set"))
            }
            // The doubled word is nats-server's.
            DeliverPolicy::ByStartTime => (
                "by start time",
                (self.opt_start_seq != 0).then_some("start start sequence is also set"),
            ),
        };
        match wrong {
            None => Ok(()),
            Some(wrong) => Err(ApiError::with(
                10094,
                400,
                format!("consumer delivery policy is deliver {policy}, but optional {wrong}"),
            )),
        }
    }

    fn any_start(&self) -> Option<&'static str> {
        if self.opt_start_seq != 0 {
            Some("start sequence is also set")
        } else {
            self.opt_start_time.map(|_| "start time is also set")
        }
    }

    fn check_sampling(&self) -> Result<(), ApiError> {
        if self.sample_freq.is_empty() {
            return Ok(());
        }
        let text = self.sample_freq.strip_suffix('%').unwrap_or(&self.sample_freq);
        let wrong = match text.parse::<i64>() {
            Ok(number) if number >= 0 => return Ok(()),
            // Go prints the error it does not have.
            Ok(_) => "<nil>".into(),
            Err(_) => format!("strconv.Atoi: parsing {text:?}: invalid syntax"),
        };
        Err(ApiError::with(
            10095,
            400,
            format!("failed to parse consumer sampling configuration: {wrong}"),
        ))
    }

    fn check_priority(&self) -> Result<(), ApiError> {
        let e = |err_code: u16, text: &'static str| Err(ApiError::fixed(err_code, 400, text));
        if self.priority_policy == PriorityPolicy::None {
            if !self.priority_groups.is_empty() {
                return e(10196, "consumer can not have priority groups when policy is none");
            }
            if self.priority_timeout > 0 {
                return e(10197, "PinnedTTL cannot be set when PriorityPolicy is none");
            }
            return Ok(());
        }
        if self.is_push() {
            return e(10178, "priority groups can not be used with push consumers");
        }
        if self.priority_groups.is_empty() {
            return e(
                10159,
                "Setting PriorityPolicy requires at least one PriorityGroup to be set",
            );
        }
        for group in &self.priority_groups {
            if group.is_empty() {
                return e(10161, "Group name cannot be an empty string");
            }
            if !is_valid_group(group) {
                return e(
                    10162,
                    "Valid priority group name must match A-Z, a-z, 0-9, -_/=)+ and may not exceed 16 characters",
                );
            }
        }
        Ok(())
    }

    /// May `self` become `new`? Both are checked and have their defaults.
    pub(super) fn check_update(&self, new: &Self) -> Result<(), ApiError> {
        let e = |text: &'static str| Err(ApiError::fixed(10012, 500, text));
        if self.deliver_policy != new.deliver_policy {
            return e("deliver policy can not be updated");
        }
        if self.mem_storage != new.mem_storage {
            return e("storage type can not be updated");
        }
        if self.direct != new.direct {
            return e("direct can not be updated");
        }
        if self.sourcing != new.sourcing {
            return e("sourcing can not be updated");
        }
        if self.opt_start_seq != new.opt_start_seq {
            return e("start sequence can not be updated");
        }
        if self.opt_start_time != new.opt_start_time {
            return e("start time can not be updated");
        }
        if self.ack_policy != new.ack_policy {
            return e("ack policy can not be updated");
        }
        if self.replay_policy != new.replay_policy {
            return e("replay policy can not be updated");
        }
        if self.idle_heartbeat != new.idle_heartbeat {
            return e("heart beats can not be updated");
        }
        if self.flow_control != new.flow_control {
            return e("flow control can not be updated");
        }
        if self.is_push() && !new.is_push() {
            return e("can not update push consumer to pull based");
        }
        if !self.is_push() && new.is_push() {
            return e("can not update pull consumer to push based");
        }
        if self.max_waiting != new.max_waiting {
            return e("max waiting can not be updated");
        }
        Ok(())
    }
}

/// May a consumer be called this?
pub(super) fn is_valid_name(name: &str) -> bool {
    !name.is_empty()
        && !name.bytes().any(|byte| {
            matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0x0c | b'.' | b'*' | b'>' | b'\\' | b'/')
        })
}

/// May a priority group be called this?
pub(super) fn is_valid_group(name: &str) -> bool {
    (1..=16).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'=' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn stream() -> StreamConfig {
        StreamConfig { name: "S".into(), subjects: vec!["s.>".into()], ..StreamConfig::default() }
    }

    fn check(config: &ConsumerConfig) -> Result<ConsumerConfig, (u16, String)> {
        let mut config = config.clone();
        let caps = options::Limits::default();
        config
            .fill_defaults(&stream(), &caps, false)
            .and_then(|()| config.check(&stream(), &caps))
            .map(|()| config)
            .map_err(|error| (error.err_code, error.description.into_owned()))
    }

    #[test]
    fn defaults_come_back_in_the_echo() {
        let pull = ConsumerConfig {
            durable_name: "D".into(),
            ack_policy: AckPolicy::Explicit,
            ..ConsumerConfig::default()
        };
        let config = check(&pull).unwrap();
        assert_eq!(
            serde_json::to_string(&config).unwrap(),
            r#"{"durable_name":"D","deliver_policy":"all","ack_policy":"explicit","ack_wait":30000000000,"max_deliver":-1,"replay_policy":"instant","max_waiting":512,"max_ack_pending":1000,"num_replicas":0,"metadata":{"_nats.req.level":"0"}}"#
        );
        let ephemeral = check(&ConsumerConfig::default()).unwrap();
        assert_eq!(ephemeral.inactive_threshold, 5 * SECOND);
        assert_eq!((ephemeral.ack_wait, ephemeral.max_ack_pending), (0, 0));
    }

    #[test]
    fn backoff_decides_about_the_ack_wait() {
        let config = check(&ConsumerConfig {
            ack_policy: AckPolicy::Explicit,
            backoff: vec![200, 400],
            ack_wait: 5,
            ..ConsumerConfig::default()
        })
        .unwrap();
        assert_eq!(config.ack_wait, 200);
        let waits: Vec<u128> =
            (1..4).filter_map(|n| config.redelivery_wait(n)).map(|wait| wait.as_nanos()).collect();
        assert_eq!(waits, [200, 400, 400]);
    }

    #[test]
    fn each_rule_has_its_code_and_text() {
        let base = ConsumerConfig::default;
        let push = || ConsumerConfig { deliver_subject: "d".into(), ..base() };
        for (config, code, text) in [
            (
                ConsumerConfig { name: "a.b".into(), ..base() },
                10052,
                "consumer name can not contain '.', '*', '>', '\\', '/'",
            ),
            (
                ConsumerConfig { deliver_subject: "d.*".into(), ..base() },
                10079,
                "consumer deliver subject has wildcards",
            ),
            (
                ConsumerConfig { deliver_subject: "s.x".into(), ..base() },
                10081,
                "consumer deliver subject forms a cycle",
            ),
            (
                ConsumerConfig { max_waiting: 5, ..push() },
                10080,
                "consumer in push mode can not set max waiting",
            ),
            (
                ConsumerConfig { idle_heartbeat: 5, ..push() },
                10083,
                "consumer idle heartbeat needs to be >= 100ms",
            ),
            (
                ConsumerConfig { flow_control: true, ..push() },
                10108,
                "consumer with flow control also needs heartbeats",
            ),
            (
                ConsumerConfig { direct: true, ..base() },
                10090,
                "consumer direct requires a push based consumer",
            ),
            (
                ConsumerConfig { filter_subjects: vec!["a.*".into(), "a.b".into()], ..base() },
                10138,
                "consumer subject filters cannot overlap",
            ),
            (
                ConsumerConfig { opt_start_seq: 3, ..base() },
                10094,
                "consumer delivery policy is deliver all, but optional start sequence is also set",
            ),
            (
                ConsumerConfig { deliver_policy: DeliverPolicy::LastPerSubject, ..base() },
                10094,
                "consumer delivery policy is deliver last per subject, but optional filter subject is not set",
            ),
            (
                ConsumerConfig {
                    deliver_policy: DeliverPolicy::ByStartTime,
                    opt_start_seq: 1,
                    opt_start_time: Some(Timestamp(1)),
                    ..base()
                },
                10094,
                "consumer delivery policy is deliver by start time, but optional start start sequence is also set",
            ),
            (
                ConsumerConfig { backoff: vec![1, 2], max_deliver: 1, ..base() },
                10116,
                "max deliver is required to be > length of backoff values",
            ),
            (
                ConsumerConfig {
                    priority_policy: PriorityPolicy::Overflow,
                    priority_groups: vec!["no good".into()],
                    ..base()
                },
                10162,
                "Valid priority group name must match A-Z, a-z, 0-9, -_/=)+ and may not exceed 16 characters",
            ),
            (
                ConsumerConfig { sample_freq: "x%".into(), ..base() },
                10095,
                "failed to parse consumer sampling configuration: strconv.Atoi: parsing \"x\": invalid syntax",
            ),
        ] {
            assert_eq!(check(&config), Err((code, text.into())));
        }
        let crossing =
            ConsumerConfig { filter_subjects: vec!["a.*.c".into(), "a.b.*".into()], ..base() };
        assert!(check(&crossing).is_ok(), "partly overlapping filters are allowed");
    }

    #[test]
    fn an_update_may_not_turn_a_consumer_into_another() {
        let old = check(&ConsumerConfig::default()).unwrap();
        let push =
            check(&ConsumerConfig { deliver_subject: "d".into(), ..ConsumerConfig::default() })
                .unwrap();
        let text = |from: &ConsumerConfig, to: &ConsumerConfig| {
            from.check_update(to).unwrap_err().description.into_owned()
        };
        assert_eq!(text(&old, &push), "can not update pull consumer to push based");
        assert_eq!(text(&push, &old), "can not update push consumer to pull based");
        let new = ConsumerConfig { ack_policy: AckPolicy::All, ..old.clone() };
        assert_eq!(text(&old, &new), "ack policy can not be updated");
    }
}
