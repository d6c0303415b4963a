//! The `jetstream` block.
//!
//! Owns its meaning and its ranges. Does not own what an account may store, which is in
//! `accounts`.

use super::keys::{JETSTREAM, JETSTREAM_BATCH, JETSTREAM_LIMITS};
use super::parser::{Node, Value};
use super::read::Reader;
use super::units::{is_filter, quoted_size, short};
use super::{BatchLimits, JetStreamConfig, JetStreamLimits, SyncInterval};
use std::time::Duration;

impl Reader<'_> {
    /// The options, and whether they name a `store_dir`.
    pub(super) fn jetstream(&mut self, node: &Node) -> (Option<JetStreamConfig>, bool) {
        let map = match &node.value {
            Value::Bool(on) => return (on.then(JetStreamConfig::default), false),
            Value::Text(text) if text.eq_ignore_ascii_case("enabled") => {
                return (Some(JetStreamConfig::default()), false);
            }
            Value::Text(text) if text.eq_ignore_ascii_case("disabled") => return (None, false),
            Value::Map(map) => map,
            _ => {
                self.wrong(node, "jetstream must be true, false, enabled, disabled or a block { }");
                return (None, false);
            }
        };
        let mut jetstream = JetStreamConfig::default();
        let (mut enabled, mut has_store_dir) = (true, false);
        for (key, entry) in self.entries(map, &JETSTREAM) {
            let node = &entry.node;
            match key {
                "store_dir" => {
                    if let Some(path) = self.path(key, node) {
                        jetstream.store_dir = path;
                        has_store_dir = true;
                    }
                }
                "max_memory_store" => jetstream.max_memory_store = self.store_size(key, node),
                "max_file_store" => jetstream.max_file_store = self.store_size(key, node),
                "domain" => jetstream.domain = self.domain(key, node),
                "sync_interval" => jetstream.sync_interval = self.sync_interval(key, node),
                "enabled" => self.flag(key, node, &mut enabled),
                "strict" => self.flag(key, node, &mut jetstream.strict),
                "limits" => jetstream.limits = self.jetstream_limits(node),
                _ => {}
            }
        }
        (enabled.then_some(jetstream), has_store_dir)
    }

    fn domain(&mut self, key: &str, node: &Node) -> Option<String> {
        let text = self.text(key, node).filter(|text| !text.is_empty())?;
        if text.contains(['.', '*', '>']) || !is_filter(&text) {
            self.wrong(
                node,
                format!(
                    "domain: \"{}\" must be one token of a subject: no '.', '*', '>' or blank",
                    short(&text)
                ),
            );
            return None;
        }
        Some(text)
    }

    fn sync_interval(&mut self, key: &str, node: &Node) -> SyncInterval {
        if let Value::Text(text) = &node.value
            && text.eq_ignore_ascii_case("always")
        {
            return SyncInterval::Always;
        }
        match self.duration(key, node) {
            None | Some(Duration::ZERO) => SyncInterval::Always,
            Some(pace) => SyncInterval::Every(pace),
        }
    }

    fn jetstream_limits(&mut self, node: &Node) -> JetStreamLimits {
        let mut limits = JetStreamLimits::default();
        let Some(map) = self.map("limits", node) else { return limits };
        for (key, entry) in self.entries(map, &JETSTREAM_LIMITS) {
            let node = &entry.node;
            // 0 and -1 are "no limit", as in nats-server.
            let mut count = || {
                let value = self.integer(key, node, -1, u32::MAX.into())?;
                u32::try_from(value).ok().filter(|value| *value > 0)
            };
            match key {
                "max_ack_pending" => limits.max_ack_pending = count(),
                "batch" => limits.batch = self.batch_limits(node),
                "max_request_batch" => limits.max_request_batch = count(),
                "duplicate_window" => {
                    limits.duplicate_window =
                        self.duration(key, node).filter(|window| !window.is_zero());
                }
                _ => {}
            }
        }
        limits
    }

    fn batch_limits(&mut self, node: &Node) -> BatchLimits {
        let mut limits = BatchLimits::default();
        let Some(map) = self.map("batch", node) else { return limits };
        for (key, entry) in self.entries(map, &JETSTREAM_BATCH) {
            let node = &entry.node;
            if key == "timeout" {
                limits.timeout = self.duration(key, node).filter(|timeout| !timeout.is_zero());
                continue;
            }
            let count = self.integer(key, node, -1, u32::MAX.into());
            let count = count.and_then(|count| u64::try_from(count).ok()).filter(|&max| max > 0);
            match key {
                "max_inflight_per_stream" => limits.max_inflight_per_stream = count,
                "max_inflight_total" => limits.max_inflight_total = count,
                "max_msgs" => limits.max_msgs = count,
                _ => {}
            }
        }
        limits
    }

    /// A whole number with suffix or a quoted size; -1 and `""` are the default.
    fn store_size(&mut self, key: &str, node: &Node) -> Option<u64> {
        if let Value::Text(text) = &node.value {
            if text.is_empty() {
                return None;
            }
            return match quoted_size(text) {
                Ok(value) if value >= 0 => u64::try_from(value).ok(),
                Ok(_) => {
                    self.wrong(node, format!("{key} is negative"));
                    None
                }
                Err(what) => {
                    self.wrong(node, format!("{key}: {what}"));
                    None
                }
            };
        }
        u64::try_from(self.integer(key, node, -1, i64::MAX)?).ok()
    }
}
