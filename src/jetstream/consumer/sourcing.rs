//! What mirrors and sources of other servers need.
//!
//! Owns the identity of a stream that a hub checks, the names of their consumers, and how
//! long they are kept. They deliver like any push consumer.
//!
//! A hub loses its link for hours and then goes on where it was. The reference server
//! forgets such a consumer after ten seconds, and the hub finds out with a timeout; here it
//! is kept, also across restarts:
//! - When interest returns, a heartbeat goes out at once. It tells the hub whether it missed
//!   messages that were sent into the broken link; if so, it starts anew by itself.
//! - After a restart the record may be behind what was sent, so the heartbeat names a
//!   sequence that cannot be: the hub starts anew from what it has stored.
//!
//! # Invariants
//! - At most [`KEPT_MAX`] of them are kept for a stream; of one hub stream only the newest
//!   outlives the threshold it asked for.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::config::{ConsumerConfig, duration};
use crate::id::{ConsumerId, StreamId, short_hash};
use crate::jetstream::JetStream;
use crate::jetstream::host::{Host, Inbound};
use crate::jetstream::json::{self, ApiError, Asker};
use crate::proto::headers;
use crate::sorted;
use crate::time::{Duration, Now};

/// The header that carries [`identity`].
const IDENTITY_HEADER: &str = "Nats-Stream-Identity";
/// As the last consumer sequence in a heartbeat: no hub can have received it.
pub(super) const IMPOSSIBLE_SEQ: u64 = 1 << 62;
/// Without interest; longer than any outage worth resuming from.
const KEPT: Duration = Duration::from_hours(7 * 24);
/// For one stream.
const KEPT_MAX: usize = 64;
/// Random characters of a name.
const SUFFIX_LEN: usize = 8;

impl ConsumerConfig {
    /// Is it the consumer of a mirror or source that names itself?
    pub(super) fn is_sourcing(&self) -> bool {
        self.direct && self.sourcing
    }

    /// How long without interest until it is removed; `None`: forever.
    pub(super) fn idle_limit(&self, superseded: bool) -> Option<Duration> {
        let asked = duration(self.inactive_threshold);
        if self.is_sourcing() && !superseded {
            return Some(asked.max(KEPT));
        }
        (!asked.is_zero()).then_some(asked)
    }
}

/// What the hub calls it.
fn base_name(name: &str) -> &str {
    match name.rsplit_once('-') {
        Some((base, suffix)) if suffix.len() == SUFFIX_LEN => base,
        _ => name,
    }
}

impl JetStream {
    /// A name nobody has in this stream: `prefix` and random characters.
    pub(super) fn unique_name(&mut self, stream: StreamId, prefix: &str) -> String {
        loop {
            let name = format!("{prefix}{}", self.rng.token(SUFFIX_LEN));
            if self.consumers.by_name(stream, name.as_bytes()).is_none() {
                return name;
            }
        }
    }

    /// A word that changes when the stream is made anew.
    fn identity(&self, stream: StreamId) -> String {
        let created = self.streams.get(&stream).map(|stream| stream.created);
        short_hash(created.unwrap_or_default().rfc3339().as_bytes())
    }

    /// Does the request mean this stream, not one that had its name before?
    pub(super) fn check_identity(&self, stream: StreamId, headers: &[u8]) -> Result<(), ApiError> {
        let asked = headers::value(headers, IDENTITY_HEADER).unwrap_or_default().trim_ascii();
        let ours = self.identity(stream);
        if asked.is_empty() || asked == ours.as_bytes() {
            return Ok(());
        }
        Err(ApiError::with(
            10225,
            400,
            format!("consumer's stream identity does not match: {ours}"),
        ))
    }

    /// Answers with the identity of the stream in a header.
    pub(super) fn respond_identified(
        &mut self,
        id: ConsumerId,
        asker: &Asker,
        text: &[u8],
        host: &mut impl Host,
    ) {
        let Some(stream) = self.consumers.get(id).map(|consumer| consumer.stream) else { return };
        let identity = self.identity(stream);
        self.api.total += 1;
        if asker.reply.is_empty() {
            return;
        }
        let mut block = Vec::new();
        headers::write_status(&mut block, "", &[(IDENTITY_HEADER, identity.as_bytes())]);
        host.deliver(&asker.reply, &asker.reply, b"", &block, text);
    }

    /// A consumer of a hub was made: those it replaces need not be kept any longer.
    pub(super) fn supersede(&mut self, now: Now, id: ConsumerId, host: &mut impl Host) {
        let Some(consumer) = self.consumers.get(id) else { return };
        if !consumer.config.is_sourcing() {
            return;
        }
        let base = String::from(base_name(&consumer.name));
        let stream = consumer.stream;
        let mut kept = Vec::new();
        for other in self.consumers.of_stream(stream) {
            let Some(consumer) = self.consumers.get_mut(other) else { continue };
            if other == id || !consumer.config.is_sourcing() {
                continue;
            }
            if base_name(&consumer.name) == base {
                consumer.superseded = true;
                if consumer.push.as_ref().is_some_and(|push| !push.active) {
                    self.remove_consumer(now, other, host);
                    continue;
                }
                self.consumers.rearm(now, other);
            } else if let Some(since) = consumer.push.as_ref().and_then(|push| push.idle_since) {
                kept.push((since, other));
            }
        }
        sorted::sort(&mut kept);
        let surplus = (kept.len() + 1).saturating_sub(KEPT_MAX);
        for (_, other) in kept.into_iter().take(surplus) {
            self.remove_consumer(now, other, host);
        }
    }

    /// A request asks for a level of the API.
    pub(super) fn check_level(msg: &Inbound<'_>) -> Result<(), ApiError> {
        if json::level_ok(msg.headers) {
            Ok(())
        } else {
            Err(ApiError::fixed(10185, 412, "JetStream minimum api level required"))
        }
    }
}
