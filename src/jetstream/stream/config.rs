//! The configuration of a stream.
//!
//! Owns its fields, their defaults and rules, what an update may change, and the record it
//! is stored as. Does not own what needs other streams to decide (overlap, reservations):
//! that is `api`.
//!
//! # Invariants
//! - A [`StreamConfig`] in the table of streams went through [`StreamConfig::normalise`] and
//!   [`StreamConfig::check`].
//!
//! Source: texts and order of checks seen from nats-server 2.15.1. Features this server does
//! not have yet are refused by name, also 10052; `docs/compatibility.md` lists them.

#![expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands fields over so")]

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use serde::{Serialize, Serializer};

use crate::jetstream::json::{self, API_LEVEL, ApiError, FromJson, Json, Path};
use crate::jetstream::options::Options;
use crate::jetstream::storage::{Schedules, StreamSettings};
use crate::limits;
use crate::subject;
use crate::subject::transform::{Purpose, Transform, TransformError};
use crate::time::{Duration, GoDuration, Timestamp, nanos};

/// Shortest age and window, in nanoseconds.
const SHORTEST: i64 = 100_000_000;
/// Version byte of the stored record.
const RECORD_VERSION: u8 = 2;
/// The version before: without the account, which was [`GLOBAL`].
const RECORD_VERSION_GLOBAL: u8 = 1;
const GLOBAL: &str = "$G";

/// What removes messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Retention {
    /// Only limits.
    #[default]
    Limits,
    /// Also when every interested consumer has acknowledged.
    Interest,
    /// Also when one consumer has acknowledged.
    WorkQueue,
}

/// What happens to a new message at a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Discard {
    /// The oldest make room.
    #[default]
    Old,
    /// It is refused.
    New,
}

/// Caps and defaults for consumers. 0: none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ConsumerLimits {
    /// Nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) inactive_threshold: i64,
    /// Messages.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) max_ack_pending: i64,
}

/// Where a cluster would place the stream. Kept and shown, without effect on one server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Placement {
    #[serde(skip_serializing_if = "String::is_empty")]
    cluster: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    preferred: String,
}

/// A transform of subjects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct SubjectTransform {
    pub(crate) src: String,
    pub(crate) dest: String,
}

/// Where stored messages are published again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Republish {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) src: String,
    pub(crate) dest: String,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) headers_only: bool,
}

/// Another stream whose messages come here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct StreamSource {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "is_unset")]
    pub(crate) opt_start_seq: u64,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "time_text")]
    pub(crate) opt_start_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) filter_subject: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) subject_transforms: Vec<SubjectTransform>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) external: Option<External>,
    /// Asked for a consumer that exists already.
    #[serde(skip)]
    pub(super) consumer: Option<SourceConsumer>,
}

/// Where the API of another domain or account is, and where its deliveries come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct External {
    pub(crate) api: String,
    pub(crate) deliver: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SourceConsumer {
    name: String,
    deliver_subject: String,
}

/// See the module. Numbers are as in JSON: -1 stands for no limit, durations are
/// nanoseconds. Fields are in the order nats-server writes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "the wire format has them")]
pub(crate) struct StreamConfig {
    /// Unique in the account.
    pub(crate) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) description: String,
    /// What it captures.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) subjects: Vec<String>,
    /// What removes messages.
    pub(crate) retention: Retention,
    /// Consumers at once.
    pub(crate) max_consumers: i64,
    pub(crate) max_msgs: i64,
    pub(crate) max_bytes: i64,
    pub(crate) max_age: i64,
    pub(crate) max_msgs_per_subject: i64,
    pub(crate) max_msg_size: i32,
    pub(crate) discard: Discard,
    /// In memory instead of in the file.
    #[serde(rename = "storage", serialize_with = "storage_name")]
    pub(crate) memory: bool,
    pub(crate) num_replicas: i64,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) no_ack: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) duplicate_window: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) placement: Option<Placement>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mirror: Option<Box<StreamSource>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) sources: Vec<StreamSource>,
    /// Asked for `s2`. Kept and shown; the engine stores plainly.
    #[serde(rename = "compression", serialize_with = "compression_name")]
    pub(crate) compressed: bool,
    #[serde(skip_serializing_if = "is_unset")]
    pub(crate) first_seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subject_transform: Option<SubjectTransform>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) republish: Option<Republish>,
    pub(crate) allow_direct: bool,
    pub(crate) mirror_direct: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) discard_new_per_subject: bool,
    pub(crate) sealed: bool,
    pub(crate) deny_delete: bool,
    pub(crate) deny_purge: bool,
    pub(crate) allow_rollup_hdrs: bool,
    /// For consumers.
    pub(crate) consumer_limits: ConsumerLimits,
    /// `Nats-TTL`.
    pub(crate) allow_msg_ttl: bool,
    /// How long a marker stays in place of a subject's last message.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) subject_delete_marker_ttl: i64,
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) allow_msg_counter: bool,
    /// Atomic batches.
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) allow_atomic: bool,
    /// `Nats-Schedule`.
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) allow_msg_schedules: bool,
    /// `persist_mode`: kept and shown. Acks promise no less for it.
    #[serde(
        rename = "persist_mode",
        serialize_with = "persist_name",
        skip_serializing_if = "is_false"
    )]
    pub(crate) persist_async: bool,
    /// Fast batches.
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) allow_batched: bool,
    /// With `_nats.req.level`, without what is only shown.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) metadata: BTreeMap<String, String>,
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

fn is_unset(seq: &u64) -> bool {
    *seq == 0
}

#[expect(clippy::ref_option, reason = "serde hands fields over so")]
fn time_text<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.unwrap_or_default().rfc3339())
}

fn storage_name<S: Serializer>(memory: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if *memory { "memory" } else { "file" })
}

fn compression_name<S: Serializer>(s2: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if *s2 { "s2" } else { "none" })
}

fn persist_name<S: Serializer>(_: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str("async")
}

impl FromJson for ConsumerLimits {
    const NAME: &'static str = "StreamConsumerLimits";

    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
        match key {
            "inactive_threshold" => json::duration(&mut self.inactive_threshold, value, path),
            "max_ack_pending" => json::number(&mut self.max_ack_pending, value, path, "int"),
            _ => Ok(false),
        }
    }
}

impl FromJson for SubjectTransform {
    const NAME: &'static str = "SubjectTransformConfig";

    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
        match key {
            "src" => json::string(&mut self.src, value, path),
            "dest" => json::string(&mut self.dest, value, path),
            _ => Ok(false),
        }
    }
}

impl FromJson for External {
    const NAME: &'static str = "ExternalStream";

    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
        match key {
            "api" => json::string(&mut self.api, value, path),
            "deliver" => json::string(&mut self.deliver, value, path),
            _ => Ok(false),
        }
    }
}

impl FromJson for SourceConsumer {
    const NAME: &'static str = "StreamConsumerSource";

    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
        match key {
            "name" => json::string(&mut self.name, value, path),
            "deliver_subject" => json::string(&mut self.deliver_subject, value, path),
            _ => Ok(false),
        }
    }
}

impl FromJson for StreamSource {
    const NAME: &'static str = "StreamSource";

    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
        match key {
            "name" => json::string(&mut self.name, value, path),
            "opt_start_seq" => json::uint(&mut self.opt_start_seq, value, path),
            "opt_start_time" => {
                let mut time = Timestamp::default();
                let known = json::time(&mut time, value, path)?;
                self.opt_start_time = (*value != Json::Null).then_some(time);
                Ok(known)
            }
            "filter_subject" => json::string(&mut self.filter_subject, value, path),
            "subject_transforms" => json::objects(
                &mut self.subject_transforms,
                value,
                path,
                "[]server.SubjectTransformConfig",
            ),
            "external" => json::optional(&mut self.external, value, path),
            "consumer" => json::optional(&mut self.consumer, value, path),
            _ => Ok(false),
        }
    }
}

impl FromJson for Republish {
    const NAME: &'static str = "RePublish";

    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
        match key {
            "src" => json::string(&mut self.src, value, path),
            "dest" => json::string(&mut self.dest, value, path),
            "headers_only" => json::boolean(&mut self.headers_only, value, path),
            _ => Ok(false),
        }
    }
}

impl FromJson for Placement {
    const NAME: &'static str = "Placement";

    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
        match key {
            "cluster" => json::string(&mut self.cluster, value, path),
            "tags" => json::strings(&mut self.tags, value, path),
            "preferred" => json::string(&mut self.preferred, value, path),
            _ => Ok(false),
        }
    }
}

/// One of a few words, in Go's text for anything else.
fn word<T: Copy>(to: &mut T, value: &Json, words: &[(&str, T)]) -> Result<bool, String> {
    let Json::String(text) = value else {
        return Err(format!("can not unmarshal {:?}", value.text()));
    };
    match words.iter().find(|(word, _)| word == text) {
        Some((_, found)) => {
            *to = *found;
            Ok(true)
        }
        None => Err(format!("can not unmarshal {:?}", value.text())),
    }
}

impl FromJson for StreamConfig {
    const NAME: &'static str = "StreamConfigRequest";

    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
        match key {
            "name" => json::string(&mut self.name, value, path),
            "description" => json::string(&mut self.description, value, path),
            "subjects" => json::strings(&mut self.subjects, value, path),
            "retention" => word(
                &mut self.retention,
                value,
                &[
                    ("limits", Retention::Limits),
                    ("interest", Retention::Interest),
                    ("workqueue", Retention::WorkQueue),
                ],
            ),
            "max_consumers" => json::number(&mut self.max_consumers, value, path, "int"),
            "max_msgs" => json::int(&mut self.max_msgs, value, path),
            "max_bytes" => json::int(&mut self.max_bytes, value, path),
            "max_age" => json::duration(&mut self.max_age, value, path),
            "max_msgs_per_subject" => json::int(&mut self.max_msgs_per_subject, value, path),
            "max_msg_size" => json::number(&mut self.max_msg_size, value, path, "int32"),
            "discard" => {
                let lower = match value {
                    Json::String(text) => Json::String(text.to_ascii_lowercase()),
                    other => other.clone(),
                };
                word(&mut self.discard, &lower, &[("old", Discard::Old), ("new", Discard::New)])
                    .map_err(|_| format!("can not unmarshal {:?}", value.text()))
            }
            "storage" => word(&mut self.memory, value, &[("file", false), ("memory", true)]),
            "num_replicas" => json::number(&mut self.num_replicas, value, path, "int"),
            "no_ack" => json::boolean(&mut self.no_ack, value, path),
            "duplicate_window" => json::duration(&mut self.duplicate_window, value, path),
            "placement" => json::optional(&mut self.placement, value, path),
            "mirror" => {
                if *value == Json::Null {
                    self.mirror = None;
                    return Ok(true);
                }
                json::object(&mut **self.mirror.get_or_insert_default(), value, path)
            }
            "sources" => json::objects(&mut self.sources, value, path, "[]*server.StreamSource"),
            "compression" => match value {
                Json::Null => Err("unknown compression algorithm".into()),
                Json::String(_) => {
                    word(&mut self.compressed, value, &[("none", false), ("s2", true)])
                        .map_err(|_| "unknown compression algorithm".into())
                }
                _ => Err(format!(
                    "json: cannot unmarshal {} into Go value of type string",
                    value.kind()
                )),
            },
            "first_seq" => json::uint(&mut self.first_seq, value, path),
            "subject_transform" => json::optional(&mut self.subject_transform, value, path),
            "republish" => json::optional(&mut self.republish, value, path),
            "allow_direct" => json::boolean(&mut self.allow_direct, value, path),
            "mirror_direct" => json::boolean(&mut self.mirror_direct, value, path),
            "discard_new_per_subject" => {
                json::boolean(&mut self.discard_new_per_subject, value, path)
            }
            "sealed" => json::boolean(&mut self.sealed, value, path),
            "deny_delete" => json::boolean(&mut self.deny_delete, value, path),
            "deny_purge" => json::boolean(&mut self.deny_purge, value, path),
            "allow_rollup_hdrs" => json::boolean(&mut self.allow_rollup_hdrs, value, path),
            "consumer_limits" => json::object(&mut self.consumer_limits, value, path),
            "allow_msg_ttl" => json::boolean(&mut self.allow_msg_ttl, value, path),
            "subject_delete_marker_ttl" => {
                json::duration(&mut self.subject_delete_marker_ttl, value, path)
            }
            "allow_msg_counter" => json::boolean(&mut self.allow_msg_counter, value, path),
            "allow_atomic" => json::boolean(&mut self.allow_atomic, value, path),
            "allow_batched" => json::boolean(&mut self.allow_batched, value, path),
            "allow_msg_schedules" => json::boolean(&mut self.allow_msg_schedules, value, path),
            "persist_mode" => word(
                &mut self.persist_async,
                value,
                &[("default", false), ("", false), ("async", true)],
            ),
            "metadata" => json::map(&mut self.metadata, value, path),
            _ => Ok(false),
        }
    }
}

/// Body of a create or an update.
#[derive(Debug, Default)]
pub(crate) struct ConfigRequest {
    pub(crate) config: StreamConfig,
    pub(crate) pedantic: bool,
}

impl FromJson for ConfigRequest {
    const NAME: &'static str = StreamConfig::NAME;

    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
        match key {
            "pedantic" => json::boolean(&mut self.pedantic, value, path),
            _ => self.config.field(key, value, path),
        }
    }
}

fn invalid(text: impl Into<String>) -> ApiError {
    ApiError::with(10052, 500, text)
}

fn limit(number: i64) -> Option<u64> {
    u64::try_from(number).ok()
}

impl StreamConfig {
    /// Fills in defaults. With `pedantic`, what would be bent silently is an error.
    pub(crate) fn normalise(&mut self, options: &Options, pedantic: bool) -> Result<(), ApiError> {
        let fix = |number: &mut i64, name: &str| {
            if pedantic && *number < -1 {
                return Err(pedantry(&format!("{name} must be set to -1")));
            }
            if *number == 0 || *number < -1 {
                *number = -1;
            }
            Ok(())
        };
        let mut max_msg_size = i64::from(self.max_msg_size);
        fix(&mut self.max_msgs, "max_msgs")?;
        fix(&mut self.max_msgs_per_subject, "max_msgs_per_subject")?;
        fix(&mut self.max_bytes, "max_bytes")?;
        fix(&mut max_msg_size, "max_msg_size")?;
        fix(&mut self.max_consumers, "max_consumers")?;
        self.max_msg_size = i32::try_from(max_msg_size).unwrap_or(-1);
        if self.num_replicas == 0 {
            self.num_replicas = 1;
        }
        let own = self.mirror.is_none() && self.sources.is_empty();
        if self.subjects.is_empty() && own {
            self.subjects = vec![self.name.clone()];
        }
        if self.duplicate_window == 0 && own {
            let window = i64::try_from(nanos(options.duplicate_window())).unwrap_or(i64::MAX);
            self.duplicate_window = if self.max_age > 0 && self.max_age < window {
                if pedantic {
                    return Err(pedantry("duplicate window cannot be bigger than max age"));
                }
                self.max_age
            } else {
                window
            };
        }
        if self.placement == Some(Placement::default()) {
            self.placement = None;
        }
        if let Some(republish) = &mut self.republish
            && republish.src.is_empty()
        {
            if pedantic {
                return Err(pedantry("republish source can not be empty"));
            }
            republish.src = ">".into();
        }
        self.check_counter()?;
        if self.allow_msg_schedules {
            if self.discard == Discard::New {
                return Err(invalid("message scheduling cannot use discard new"));
            }
            if !self.allow_rollup_hdrs {
                if pedantic {
                    let text = "message scheduling cannot be set if roll-ups are disabled";
                    return Err(invalid(text));
                }
                self.allow_rollup_hdrs = true;
                self.deny_purge = false;
            }
        }
        if self.subject_delete_marker_ttl > 0 {
            let missing = |what: &str| {
                let text = format!("subject delete marker cannot be set if {what} are disabled");
                if pedantic { Err(invalid(text)) } else { Ok(()) }
            };
            if !self.allow_msg_ttl {
                missing("message TTLs")?;
                self.allow_msg_ttl = true;
            }
            if !self.allow_rollup_hdrs {
                missing("roll-ups")?;
                self.allow_rollup_hdrs = true;
                self.deny_purge = false;
            }
        }
        for key in ["_nats.ver", "_nats.level"] {
            self.metadata.remove(key);
        }
        let level = self.required_level();
        self.metadata.insert("_nats.req.level".into(), format!("{level}"));
        Ok(())
    }

    /// The API level the configuration needs.
    fn required_level(&self) -> u32 {
        if self.allow_batched {
            4
        } else if self.persist_async
            || self.allow_msg_counter
            || self.allow_atomic
            || self.allow_msg_schedules
        {
            2
        } else {
            u32::from(self.allow_msg_ttl)
        }
    }

    /// Is this a possible stream, apart from what other streams say?
    pub(crate) fn check(&self, options: &Options) -> Result<(), ApiError> {
        if !is_valid_name(&self.name) {
            return Err(invalid(
                "stream name is required and can not contain '.', '*', '>', '\\', '/'",
            ));
        }
        if self.name.len() > limits::NAME_BYTES_MAX {
            let max = limits::NAME_BYTES_MAX;
            return Err(invalid(format!("stream name is too long, maximum allowed is {max}")));
        }
        if self.description.len() > limits::DESCRIPTION_BYTES_MAX {
            let max = limits::DESCRIPTION_BYTES_MAX;
            return Err(invalid(format!(
                "stream description is too long, maximum allowed is {max}"
            )));
        }
        let metadata: usize = self.metadata.iter().map(|(k, v)| k.len() + v.len()).sum();
        if metadata > limits::METADATA_BYTES_MAX {
            let max = limits::METADATA_BYTES_MAX;
            return Err(invalid(format!("stream metadata exceeds maximum size of {max} bytes")));
        }
        if self.num_replicas < 0 {
            return Err(ApiError::fixed(10133, 400, "replicas count cannot be negative"));
        }
        if self.num_replicas > 5 {
            return Err(invalid("maximum replicas is 5"));
        }
        self.check_times(options)?;
        if self.discard_new_per_subject {
            if self.discard != Discard::New {
                return Err(invalid(
                    "discard new per subject requires discard new policy to be set",
                ));
            }
            if self.max_msgs_per_subject <= 0 {
                return Err(invalid("discard new per subject requires max msgs per subject > 0"));
            }
        }
        if self.deny_purge && self.allow_rollup_hdrs {
            return Err(invalid("roll-ups require the purge permission"));
        }
        if self.persist_async && self.memory {
            return Err(invalid("async persist mode is only supported on file storage"));
        }
        if self.persist_async && self.allow_atomic {
            let text = "async persist mode is not supported with atomic batch publish";
            return Err(invalid(text));
        }
        if self.placement.as_ref().is_some_and(|placement| !placement.preferred.is_empty()) {
            return Err(invalid("preferred server not permitted in placement"));
        }
        self.check_subjects()?;
        self.check_mirror()?;
        self.check_sources()?;
        self.check_transforms()?;
        if self.subject_delete_marker_ttl < 0 {
            return Err(invalid("subject delete marker TTL must not be negative"));
        }
        if (1..1_000_000_000).contains(&self.subject_delete_marker_ttl) {
            return Err(invalid("subject delete marker TTL must be at least 1 second"));
        }
        if self.num_replicas > 1 {
            return Err(ApiError::fixed(
                10074,
                500,
                "replicas > 1 not supported in non-clustered mode",
            ));
        }
        Ok(())
    }

    fn check_times(&self, options: &Options) -> Result<(), ApiError> {
        if self.max_age < 0 {
            return Err(invalid("max age can not be negative"));
        }
        if self.max_age > 0 && self.max_age < SHORTEST {
            return Err(invalid("max age needs to be >= 100ms"));
        }
        if self.duplicate_window < 0 {
            return Err(invalid("duplicates window can not be negative"));
        }
        if self.max_age > 0 && self.duplicate_window > self.max_age {
            return Err(invalid("duplicates window can not be larger then max age"));
        }
        let cap = options.limits.duplicate_window.filter(|cap| !cap.is_zero());
        if let Some(cap) = cap
            && u64::try_from(self.duplicate_window).unwrap_or(0) > nanos(cap)
        {
            let cap = GoDuration(cap);
            return Err(invalid(format!(
                "duplicates window can not be larger then server limit of {cap}"
            )));
        }
        if self.duplicate_window > 0 && self.duplicate_window < SHORTEST {
            return Err(invalid("duplicates window needs to be >= 100ms"));
        }
        Ok(())
    }

    fn check_counter(&self) -> Result<(), ApiError> {
        if !self.allow_msg_counter {
            return Ok(());
        }
        if self.discard == Discard::New {
            return Err(invalid("counter stream cannot use discard new"));
        }
        if self.allow_msg_ttl {
            return Err(invalid("counter stream cannot use message TTLs"));
        }
        if self.allow_msg_schedules {
            return Err(invalid("counter stream cannot use message schedules"));
        }
        if self.retention != Retention::Limits {
            return Err(invalid("counter stream can only use limits retention"));
        }
        Ok(())
    }

    /// The streams it takes from.
    pub(crate) fn origins(&self) -> impl Iterator<Item = &StreamSource> {
        self.mirror.as_deref().into_iter().chain(&self.sources)
    }

    fn check_mirror(&self) -> Result<(), ApiError> {
        let Some(mirror) = &self.mirror else { return Ok(()) };
        for (is_wrong, err_code, text) in [
            (!is_valid_name(&mirror.name), 10142, "mirrored stream name is invalid"),
            (!self.subjects.is_empty(), 10034, "stream mirrors can not contain subjects"),
            (!self.sources.is_empty(), 10031, "stream mirrors can not also contain other sources"),
            (self.first_seq > 0, 10143, "stream mirrors can not have first sequence configured"),
            (self.allow_msg_counter, 10173, "stream mirrors can not also calculate counters"),
            (self.allow_atomic, 10198, "stream mirrors can not also use atomic publishing"),
            (self.allow_batched, 10209, "stream mirrors can not also use batch publishing"),
            (self.allow_msg_schedules, 10186, "stream mirrors can not also schedule messages"),
        ] {
            if is_wrong {
                return Err(ApiError::fixed(err_code, 400, text));
            }
        }
        if self.subject_delete_marker_ttl != 0 {
            return Err(invalid("subject delete markers forbidden on mirrors"));
        }
        mirror.check(&ABOUT_MIRROR)
    }

    fn check_sources(&self) -> Result<(), ApiError> {
        for (index, source) in self.sources.iter().enumerate() {
            if !is_valid_name(&source.name) {
                return Err(ApiError::fixed(10141, 400, "sourced stream name is invalid"));
            }
            let before = self.sources.get(..index).unwrap_or_default();
            let same = |other: &StreamSource| {
                other.name == source.name
                    && other.filter_subject == source.filter_subject
                    && other.subject_transforms == source.subject_transforms
                    && other.external == source.external
            };
            if before.iter().any(same) {
                let text = "duplicate source configuration detected";
                return Err(ApiError::fixed(10140, 400, text));
            }
            if self.allow_msg_schedules {
                let text = "stream source can not also schedule messages";
                return Err(ApiError::fixed(10187, 400, text));
            }
            source.check(&ABOUT_SOURCE)?;
        }
        Ok(())
    }

    fn check_transforms(&self) -> Result<(), ApiError> {
        if let Some(SubjectTransform { src, dest }) = &self.subject_transform {
            if !src.is_empty() && !subject::is_valid_strict(src.as_bytes()) {
                let text = format!("stream transform source: invalid subject {src}");
                return Err(ApiError::with(10155, 400, text));
            }
            if let Err(error) = transform(src, dest) {
                return Err(ApiError::with(10156, 400, format!("stream transform: {error}")));
            }
        }
        if let Some(Republish { src, dest, .. }) = &self.republish {
            let collides = |ours: &String| subject::collides(ours.as_bytes(), dest.as_bytes());
            if !dest.is_empty() && self.subjects.iter().any(collides) {
                let text = "stream configuration for republish destination forms a cycle";
                return Err(invalid(text));
            }
            if !dest.is_empty() && transform(src, dest).is_err() {
                return Err(invalid(format!(
                    "stream configuration for republish with transform from '{src}' to '{dest}' \
                     not valid"
                )));
            }
        }
        Ok(())
    }

    fn check_subjects(&self) -> Result<(), ApiError> {
        for (index, text) in self.subjects.iter().enumerate() {
            let bytes = text.as_bytes();
            if !subject::is_valid_strict(bytes) {
                return Err(invalid("invalid subject"));
            }
            if !self.no_ack {
                if text == ">" {
                    return Err(invalid("capturing all subjects requires no-ack to be true"));
                }
                let events = subject::is_subset(bytes, b"$JS.EVENT.>");
                if !events
                    && [&b"$JS.>"[..], b"$JSC.>", b"$NRG.>"]
                        .iter()
                        .any(|api| subject::collides(bytes, api))
                {
                    return Err(invalid(
                        "subjects that overlap with jetstream api require no-ack to be true",
                    ));
                }
                if subject::collides(bytes, b"$SYS.>")
                    && !subject::is_subset(bytes, b"$SYS.ACCOUNT.>")
                {
                    return Err(invalid(
                        "subjects that overlap with system api require no-ack to be true",
                    ));
                }
            }
            let earlier = self.subjects.get(..index).unwrap_or_default();
            if let Some(other) =
                earlier.iter().find(|other| subject::collides(other.as_bytes(), bytes))
            {
                return Err(invalid(format!("subject {other:?} overlaps with {text:?}")));
            }
        }
        Ok(())
    }

    /// Does it need nothing that this server does not have?
    pub(crate) fn check_supported(&self) -> Result<(), ApiError> {
        for (asked, feature) in [(
            self.origins().any(|source| source.consumer.is_some()),
            "existing consumers of mirrors and sources",
        )] {
            if asked {
                return Err(invalid(format!("{feature} not supported by this server")));
            }
        }
        Ok(())
    }

    /// What a create may not say.
    pub(crate) fn check_create(&self) -> Result<(), ApiError> {
        if self.sealed {
            return Err(invalid("stream configuration for create can not be sealed"));
        }
        self.check_mirror_direct()
    }

    /// `mirror_direct` needs a mirror.
    pub(crate) fn check_mirror_direct(&self) -> Result<(), ApiError> {
        if self.mirror_direct && self.mirror.is_none() {
            return Err(invalid("stream has no mirror but does have mirror direct"));
        }
        Ok(())
    }

    /// May `self` become `new`? Both are checked on their own already.
    pub(crate) fn check_update(&self, new: &Self) -> Result<(), ApiError> {
        let workqueue = |config: &Self| config.retention == Retention::WorkQueue;
        let cannot =
            |what: &str| Err(invalid(format!("stream configuration update can not {what}")));
        if new.mirror.is_some() && self.mirror != new.mirror {
            let text = "stream mirror configuration can not be updated";
            return Err(ApiError::fixed(10055, 400, text));
        }
        if self.memory != new.memory {
            return cannot("change storage type");
        }
        if workqueue(self) != workqueue(new) {
            return cannot("change retention policy to/from workqueue");
        }
        if self.sealed && !new.sealed {
            return cannot("unseal a sealed stream");
        }
        if self.deny_delete && !new.deny_delete {
            return cannot("cancel deny message deletes");
        }
        if self.deny_purge && !new.deny_purge {
            return cannot("cancel deny purge");
        }
        if self.allow_msg_ttl && !new.allow_msg_ttl {
            return Err(invalid("message TTL status can not be disabled"));
        }
        if self.allow_msg_schedules && !new.allow_msg_schedules {
            return Err(invalid("message schedules can not be disabled"));
        }
        if self.allow_msg_counter != new.allow_msg_counter {
            return cannot("change message counter setting");
        }
        if self.persist_async != new.persist_async {
            return cannot("change persist mode");
        }
        Ok(())
    }

    /// What sealing implies.
    pub(crate) fn seal(&mut self) {
        if self.sealed {
            self.max_age = 0;
            self.discard = Discard::New;
            self.deny_delete = true;
            self.deny_purge = true;
            self.allow_rollup_hdrs = false;
        }
    }

    /// What the store has to know.
    pub(crate) fn settings(&self) -> StreamSettings {
        StreamSettings {
            name: self.name.clone(),
            max_msgs: limit(self.max_msgs),
            max_bytes: limit(self.max_bytes),
            max_msgs_per_subject: limit(self.max_msgs_per_subject),
            max_msg_size: limit(self.max_msg_size.into()),
            max_age: limit(self.max_age).filter(|&age| age > 0).map(Duration::from_nanos),
            discard_new: self.discard == Discard::New,
            discard_new_per_subject: self.discard_new_per_subject,
            duplicate_window: Duration::from_nanos(limit(self.duplicate_window).unwrap_or(0)),
            allow_rollup: self.allow_rollup_hdrs,
            sealed: self.sealed,
            memory: self.memory,
            first_seq: self.first_seq,
            allow_ttl: self.allow_msg_ttl,
            marker_ttl: Duration::from_nanos(limit(self.subject_delete_marker_ttl).unwrap_or(0)),
            counter: self.allow_msg_counter,
            schedules: self
                .allow_msg_schedules
                .then(|| Box::new(Schedules { subjects: self.subjects.clone() })),
        }
    }

    /// As create, update and info show it: with the metadata about this server.
    pub(crate) fn shown(&self, options: &Options) -> Self {
        let mut shown = self.clone();
        shown.metadata.insert("_nats.ver".into(), options.version.clone());
        shown.metadata.insert("_nats.level".into(), format!("{API_LEVEL}"));
        shown
    }

    /// The stored form: a version byte, then JSON.
    pub(crate) fn record(&self, created: Timestamp, account: &str) -> Vec<u8> {
        #[derive(Serialize)]
        struct Record<'a> {
            created: String,
            config: &'a StreamConfig,
        }
        let account = account.as_bytes();
        let mut record = vec![RECORD_VERSION];
        // Names come from the configuration, whose lines are far shorter.
        record.extend(u16::try_from(account.len()).unwrap_or(u16::MAX).to_le_bytes());
        record.extend(account.iter().take(usize::from(u16::MAX)));
        record.extend(
            serde_json::to_vec(&Record { created: created.rfc3339(), config: self })
                .unwrap_or_default(),
        );
        record
    }

    /// Reads what [`StreamConfig::record`] wrote; the text says what is wrong with it.
    pub(crate) fn from_record(record: &[u8]) -> Result<(Self, Timestamp), String> {
        #[derive(Default)]
        struct Record {
            created: String,
            config: StreamConfig,
        }
        impl FromJson for Record {
            const NAME: &'static str = "Record";

            fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
                match key {
                    "created" => json::string(&mut self.created, value, path),
                    "config" => json::object(&mut self.config, value, path),
                    _ => Ok(false),
                }
            }
        }
        let (_, body) = split_record(record)?;
        let record: Record = json::decode(body, true).map_err(|e| e.description.into_owned())?;
        let created = Timestamp::parse_rfc3339(&record.created)
            .ok_or_else(|| format!("stream record with a bad time {:?}", record.created))?;
        Ok((record.config, created))
    }
}

/// A transform of a configuration. Both patterns empty: every subject stays what it is.
pub(crate) fn transform(src: &str, dest: &str) -> Result<Option<Transform>, TransformError> {
    if src.is_empty() && dest.is_empty() {
        return Ok(None);
    }
    let src = if src.is_empty() { ">" } else { src };
    Transform::new(src, dest, Purpose::Mapping).map(Some)
}

/// How mistakes of a mirror or a source are told.
struct About {
    both: ApiError,
    transform_source: u16,
    transform: u16,
    overlap: ApiError,
    consumer: ApiError,
    what: &'static str,
    /// Of the filter's mistake, behind the name.
    filter: &'static str,
}

const ABOUT_MIRROR: About = About {
    both: ApiError::fixed(
        10150,
        400,
        "mirror with multiple subject transforms cannot also have a single subject filter",
    ),
    transform_source: 10151,
    transform: 10154,
    overlap: ApiError::fixed(10152, 400, "mirror subject filters can not overlap"),
    consumer: ApiError::fixed(10213, 400, "stream mirror consumer config is invalid"),
    what: "mirror",
    filter: "",
};

const ABOUT_SOURCE: About = About {
    both: ApiError::fixed(
        10144,
        400,
        "source with multiple subject transforms cannot also have a single subject filter",
    ),
    transform_source: 10145,
    transform: 10146,
    overlap: ApiError::fixed(10147, 400, "source filters can not overlap"),
    consumer: ApiError::fixed(10215, 400, "stream source consumer config is invalid"),
    what: "source",
    filter: ":",
};

impl StreamSource {
    fn check(&self, about: &About) -> Result<(), ApiError> {
        let what = about.what;
        if !self.filter_subject.is_empty() && !self.subject_transforms.is_empty() {
            return Err(about.both.clone());
        }
        if !self.filter_subject.is_empty()
            && !subject::is_valid_strict(self.filter_subject.as_bytes())
        {
            let (filter, colon) = (&self.filter_subject, about.filter);
            let text = format!("subject filter '{filter}' for the {what}{colon} invalid subject");
            return Err(ApiError::with(10049, 500, text));
        }
        for (index, SubjectTransform { src, dest }) in self.subject_transforms.iter().enumerate() {
            if !src.is_empty() && !subject::is_valid_strict(src.as_bytes()) {
                let text = format!("{what} transform source: invalid subject {src}");
                return Err(ApiError::with(about.transform_source, 400, text));
            }
            if !dest.is_empty()
                && let Err(error) = transform(src, dest)
            {
                let text = format!("{what} transform: {error}");
                return Err(ApiError::with(about.transform, 400, text));
            }
            let before = self.subject_transforms.get(..index).unwrap_or_default();
            if before.iter().any(|of| subject::collides(of.src.as_bytes(), src.as_bytes())) {
                return Err(about.overlap.clone());
            }
        }
        if let Some(External { api, deliver }) = &self.external {
            if subject::collides(api.as_bytes(), b"$JS.API")
                || subject::collides(api.as_bytes(), b"$JS.API.>")
            {
                let text =
                    format!("stream external api prefix {api} must not overlap with $JS.API");
                return Err(ApiError::with(10021, 400, text));
            }
            if subject::has_wildcard(deliver.as_bytes()) {
                let text =
                    format!("stream external delivery prefix {deliver} must not contain wildcards");
                return Err(ApiError::with(10024, 400, text));
            }
        }
        let is_whole = |of: &SourceConsumer| !of.name.is_empty() && !of.deliver_subject.is_empty();
        if self.consumer.as_ref().is_some_and(|of| !is_whole(of)) {
            return Err(about.consumer.clone());
        }
        Ok(())
    }
}

fn pedantry(text: &str) -> ApiError {
    ApiError::with(10157, 400, format!("pedantic mode: {text}"))
}

/// Names are one token without what file systems and wildcards need.
pub(crate) fn is_valid_name(name: &str) -> bool {
    !name.is_empty()
        && !name
            .chars()
            .any(|c| matches!(c, ' ' | '\t' | '\r' | '\n' | '\u{c}' | '.' | '*' | '>' | '\\' | '/'))
}

/// The account and the JSON of a record.
fn split_record(record: &[u8]) -> Result<(&[u8], &[u8]), String> {
    match record.split_first() {
        Some((&RECORD_VERSION_GLOBAL, body)) => Ok((GLOBAL.as_bytes(), body)),
        Some((&RECORD_VERSION, rest)) => rest
            .split_first_chunk()
            .and_then(|(len, rest)| rest.split_at_checked(u16::from_le_bytes(*len).into()))
            .ok_or_else(|| "stream record is cut short".into()),
        Some((version, _)) => Err(format!("stream record of unknown version {version}")),
        None => Err("stream record is empty".into()),
    }
}

/// The account of a stream, by its record; `None` if it cannot be read.
pub(crate) fn record_account(record: &[u8]) -> Option<&str> {
    split_record(record).ok().and_then(|(account, _)| core::str::from_utf8(account).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn checked(body: &str) -> Result<StreamConfig, ApiError> {
        let mut request: ConfigRequest = json::decode(body.as_bytes(), true)?;
        let options = Options::default();
        request.config.check_create()?;
        request.config.normalise(&options, request.pedantic)?;
        request.config.check(&options)?;
        request.config.check_supported()?;
        Ok(request.config)
    }

    #[test]
    fn a_bare_name_gets_the_defaults_of_nats_server() {
        let config = checked("{\"name\":\"B\",\"max_age\":0}").unwrap();
        assert_eq!(
            serde_json::to_string(&config).unwrap(),
            "{\"name\":\"B\",\"subjects\":[\"B\"],\"retention\":\"limits\",\"max_consumers\":-1,\
             \"max_msgs\":-1,\"max_bytes\":-1,\"max_age\":0,\"max_msgs_per_subject\":-1,\
             \"max_msg_size\":-1,\"discard\":\"old\",\"storage\":\"file\",\"num_replicas\":1,\
             \"duplicate_window\":120000000000,\"compression\":\"none\",\"allow_direct\":false,\
             \"mirror_direct\":false,\"sealed\":false,\"deny_delete\":false,\"deny_purge\":false,\
             \"allow_rollup_hdrs\":false,\"consumer_limits\":{},\"allow_msg_ttl\":false,\
             \"metadata\":{\"_nats.req.level\":\"0\"}}"
        );
    }

    #[test]
    fn every_field_is_echoed_in_the_order_of_nats_server() {
        let config = checked(
            "{\"name\":\"T\",\"subjects\":[\"a.>\"],\"description\":\"d\",\"max_msg_size\":5,\
             \"no_ack\":true,\"discard\":\"NEW\",\"discard_new_per_subject\":true,\
             \"max_msgs_per_subject\":3,\"first_seq\":7,\"duplicate_window\":100000000,\
             \"placement\":{\"tags\":[\"x\"],\"cluster\":\"c\"},\"allow_msg_ttl\":true,\
             \"consumer_limits\":{\"max_ack_pending\":5,\"inactive_threshold\":9},\
             \"metadata\":{\"z\":\"1\",\"_nats.ver\":\"q\",\"_nats.x\":\"1\"},\
             \"compression\":\"s2\",\"storage\":\"file\",\"persist_mode\":\"async\"}",
        )
        .unwrap();
        assert_eq!(
            serde_json::to_string(&config.shown(&Options::default())).unwrap(),
            "{\"name\":\"T\",\"description\":\"d\",\"subjects\":[\"a.>\"],\
             \"retention\":\"limits\",\"max_consumers\":-1,\"max_msgs\":-1,\"max_bytes\":-1,\
             \"max_age\":0,\"max_msgs_per_subject\":3,\"max_msg_size\":5,\"discard\":\"new\",\
             \"storage\":\"file\",\"num_replicas\":1,\"no_ack\":true,\
             \"duplicate_window\":100000000,\"placement\":{\"cluster\":\"c\",\"tags\":[\"x\"]},\
             \"compression\":\"s2\",\"first_seq\":7,\"allow_direct\":false,\
             \"mirror_direct\":false,\"discard_new_per_subject\":true,\"sealed\":false,\
             \"deny_delete\":false,\"deny_purge\":false,\"allow_rollup_hdrs\":false,\
             \"consumer_limits\":{\"inactive_threshold\":9,\"max_ack_pending\":5},\
             \"allow_msg_ttl\":true,\"persist_mode\":\"async\",\
             \"metadata\":{\"_nats.level\":\"5\",\"_nats.req.level\":\"2\",\
             \"_nats.ver\":\"2.15.1\",\"_nats.x\":\"1\",\"z\":\"1\"}}"
        );
    }

    #[test]
    fn a_stored_record_reads_back_as_it_was() {
        let config = checked(
            "{\"name\":\"T\",\"subjects\":[\"a.>\",\"b\"],\"storage\":\"memory\",\"max_age\":\
             1000000000,\"discard\":\"new\",\"metadata\":{\"a\":\"<\"},\"compression\":\"s2\"}",
        )
        .unwrap();
        let created = Timestamp(1_795_456_083_344_606_296);
        let record = config.record(created, "AB");
        assert_eq!(record.get(..6), Some(&b"\x02\x02\0AB{"[..]));
        assert_eq!(record_account(&record), Some("AB"));
        assert_eq!(StreamConfig::from_record(&record), Ok((config.clone(), created)));
        let before = [&[1], &record[5..]].concat();
        assert_eq!(record_account(&before), Some("$G"), "records without an account");
        assert_eq!(StreamConfig::from_record(&before), Ok((config, created)));
        let bad: [&[u8]; 7] = [
            b"",
            b"\x03{}",
            b"\x02\x02\0A",
            b"\x02\x02",
            b"\x01",
            b"\x01{",
            b"\x01{\"created\":\"x\"}",
        ];
        for bad in bad {
            assert!(StreamConfig::from_record(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn each_rule_has_its_text() {
        for (rest, err_code, text) in [
            (
                "\"description\":\"D\"",
                10052,
                "stream description is too long, maximum allowed is 4096",
            ),
            ("\"max_age\":-1", 10052, "max age can not be negative"),
            ("\"max_age\":99999999", 10052, "max age needs to be >= 100ms"),
            ("\"duplicate_window\":-1", 10052, "duplicates window can not be negative"),
            ("\"duplicate_window\":99999999", 10052, "duplicates window needs to be >= 100ms"),
            (
                "\"duplicate_window\":180000000000,\"max_age\":1000000000",
                10052,
                "duplicates window can not be larger then max age",
            ),
            ("\"num_replicas\":-1", 10133, "replicas count cannot be negative"),
            ("\"num_replicas\":3", 10074, "replicas > 1 not supported in non-clustered mode"),
            ("\"num_replicas\":6", 10052, "maximum replicas is 5"),
            ("\"sealed\":true", 10052, "stream configuration for create can not be sealed"),
            ("\"mirror_direct\":true", 10052, "stream has no mirror but does have mirror direct"),
            (
                "\"discard_new_per_subject\":true",
                10052,
                "discard new per subject requires discard new policy to be set",
            ),
            (
                "\"discard\":\"new\",\"discard_new_per_subject\":true",
                10052,
                "discard new per subject requires max msgs per subject > 0",
            ),
            (
                "\"deny_purge\":true,\"allow_rollup_hdrs\":true",
                10052,
                "roll-ups require the purge permission",
            ),
            ("\"subjects\":[\"a b\"]", 10052, "invalid subject"),
            ("\"subjects\":[\"a..b\"]", 10052, "invalid subject"),
            ("\"subjects\":[\"\"]", 10052, "invalid subject"),
            ("\"subjects\":[\"x.*\",\"x.a\"]", 10052, "subject \"x.*\" overlaps with \"x.a\""),
            ("\"subjects\":[\"x\",\"x\"]", 10052, "subject \"x\" overlaps with \"x\""),
            ("\"subjects\":[\">\"]", 10052, "capturing all subjects requires no-ack to be true"),
            (
                "\"subjects\":[\"*.x\"]",
                10052,
                "subjects that overlap with jetstream api require no-ack to be true",
            ),
            (
                "\"subjects\":[\"$SYS.x\"]",
                10052,
                "subjects that overlap with system api require no-ack to be true",
            ),
            (
                "\"placement\":{\"preferred\":\"x\"}",
                10052,
                "preferred server not permitted in placement",
            ),
            (
                "\"persist_mode\":\"async\",\"storage\":\"memory\"",
                10052,
                "async persist mode is only supported on file storage",
            ),
            (
                "\"subject_delete_marker_ttl\":5",
                10052,
                "subject delete marker TTL must be at least 1 second",
            ),
            (
                "\"pedantic\":true,\"max_msgs\":-5",
                10157,
                "pedantic mode: max_msgs must be set to -1",
            ),
            (
                "\"pedantic\":true,\"max_age\":1000000000",
                10157,
                "pedantic mode: duplicate window cannot be bigger than max age",
            ),
            (
                "\"retention\":\"Limits\"",
                10025,
                "invalid JSON: can not unmarshal \"\\\"Limits\\\"\"",
            ),
            ("\"retention\":null", 10025, "invalid JSON: can not unmarshal \"null\""),
            ("\"discard\":5", 10025, "invalid JSON: can not unmarshal \"5\""),
            ("\"compression\":\"\"", 10025, "invalid JSON: unknown compression algorithm"),
            (
                "\"compression\":5",
                10025,
                "invalid JSON: json: cannot unmarshal number into Go value of type string",
            ),
        ] {
            let rest = rest.replace("\"D\"", &format!("\"{}\"", "x".repeat(4097)));
            let error = checked(&format!("{{\"name\":\"T\",{rest}}}")).unwrap_err();
            assert_eq!((error.err_code, &*error.description), (err_code, text), "{rest}");
        }
        let long = "x".repeat(256);
        let error = checked(&format!("{{\"name\":\"{long}\"}}")).unwrap_err();
        assert_eq!(error.description, "stream name is too long, maximum allowed is 255");
        let error = checked("{\"name\":\"a.b\"}").unwrap_err().description.to_string();
        assert!(error.starts_with("stream name is required"), "{error}");
    }

    #[test]
    fn what_clients_send_for_a_bucket_or_for_events_is_accepted() {
        for rest in [
            "\"subjects\":[\"$KV.b.>\"],\"max_msgs_per_subject\":5,\"discard\":\"new\",\
             \"allow_rollup_hdrs\":true,\"deny_delete\":true,\"allow_direct\":true,\
             \"allow_msg_ttl\":true,\"mirror\":null,\"sources\":[],\"republish\":null",
            "\"subjects\":[\"$JS.EVENT.>\"]",
            "\"subjects\":[\"$SYS.ACCOUNT.x\"]",
            "\"subjects\":[\">\"],\"no_ack\":true",
            "\"subjects\":[\"*\",\"$JS\"]",
            "\"max_msgs\":-5,\"max_bytes\":-5,\"max_consumers\":-5,\"placement\":{}",
        ] {
            // "*" and "$JS" overlap; the point is that neither touches the API.
            let body = format!("{{\"name\":\"T\",{}}}", rest.replace("\"*\",", ""));
            checked(&body).unwrap_or_else(|error| panic!("{body}: {error:?}"));
        }
    }

    #[test]
    fn updates_keep_their_promises() {
        let base = |rest: &str| checked(&format!("{{\"name\":\"T\"{rest}}}")).unwrap();
        for (old, new, text) in [
            ("", ",\"storage\":\"memory\"", "change storage type"),
            (",\"deny_delete\":true", "", "cancel deny message deletes"),
            (",\"deny_purge\":true", "", "cancel deny purge"),
            ("", ",\"persist_mode\":\"async\"", "change persist mode"),
        ] {
            let error = base(old).check_update(&base(new)).unwrap_err();
            assert_eq!(
                error.description,
                format!("stream configuration update can not {text}"),
                "{old} to {new}"
            );
        }
        let error = base(",\"allow_msg_ttl\":true").check_update(&base("")).unwrap_err();
        assert_eq!(error.description, "message TTL status can not be disabled");
        let mut sealed = base("");
        sealed.sealed = true;
        sealed.seal();
        assert!(sealed.deny_delete && sealed.deny_purge && sealed.discard == Discard::New);
        assert!(sealed.check_update(&base("")).unwrap_err().description.contains("unseal"));
    }
}
