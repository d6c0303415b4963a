//! Pull requests: reading one, admitting it, and the queue in which it waits.
//!
//! Owns the waiting requests of a consumer, whose turn it is, and the status messages that
//! end them. Does not own messages: `deliver` asks [`Waiting::front`] and reports back.
//!
//! # Invariants
//! - A request leaves the queue exactly once, with the status the reference server gives.
//! - `next_due` is never later than the earliest expiry or heartbeat of any request.
//!
//! Source: ADR-13; texts seen from nats-server 2.15.1.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;

use super::config::{ConsumerConfig, PriorityPolicy, duration};
use super::priority::{self, Claim};
use crate::id::ConsumerId;
use crate::jetstream::JetStream;
use crate::jetstream::host::{Host, Inbound};
use crate::jetstream::json::{self, FromJson, Json, Path};
use crate::jetstream::storage::Seq;
use crate::limits;
use crate::proto::headers;
use crate::time::{Duration, GoDuration, Instant, Now};

/// A leaf may know of a request before its inbox's interest: how long that may take.
pub(super) const INTEREST_GRACE: Duration = Duration::from_secs(2);
/// How often such a request is tried again.
pub(super) const INTEREST_RETRY: Duration = Duration::from_millis(50);

/// The body of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct NextRequest {
    pub(super) batch: i64,
    pub(super) expires: i64,
    pub(super) no_wait: bool,
    pub(super) max_bytes: i64,
    pub(super) idle_heartbeat: i64,
    pub(super) group: String,
    pub(super) min_pending: i64,
    pub(super) min_ack_pending: i64,
    pub(super) id: String,
    pub(super) priority: i64,
    /// Was it JSON? Only then groups matter.
    #[serde(skip)]
    pub(super) is_json: bool,
}

impl FromJson for NextRequest {
    // Go's struct has no name there.
    const NAME: &'static str = "";

    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
        match key {
            "batch" => json::number(&mut self.batch, value, path, "int"),
            "expires" => json::duration(&mut self.expires, value, path),
            "no_wait" => json::boolean(&mut self.no_wait, value, path),
            "max_bytes" => json::number(&mut self.max_bytes, value, path, "int"),
            "idle_heartbeat" => json::duration(&mut self.idle_heartbeat, value, path),
            "group" => json::string(&mut self.group, value, path),
            "min_pending" => json::int(&mut self.min_pending, value, path),
            "min_ack_pending" => json::int(&mut self.min_ack_pending, value, path),
            "id" => json::string(&mut self.id, value, path),
            "priority" => json::number(&mut self.priority, value, path, "int"),
            _ => Ok(false),
        }
    }
}

/// Reads a body. An error is the text after `Bad Request - `.
pub(super) fn parse_body(body: &[u8]) -> Result<NextRequest, String> {
    let body = body.trim_ascii();
    let mut request = NextRequest { batch: 1, ..NextRequest::default() };
    if body.first() == Some(&b'{') {
        // The quick reader first; Go's rules and texts only for what it does not like.
        request = match serde_json::from_slice(body) {
            Ok(request) => request,
            Err(_) => json::decode_whole::<NextRequest>(body).map_err(|error| {
                let text = &error.description;
                String::from(text.strip_prefix("invalid JSON: ").unwrap_or(text))
            })?,
        };
        request.is_json = true;
        let twice = request.idle_heartbeat.saturating_mul(2);
        if request.idle_heartbeat > 0 && twice > request.expires {
            return Err("heartbeat value too large".into());
        }
    } else if let Some(batch) = core::str::from_utf8(body).ok().and_then(|text| text.parse().ok()) {
        request.batch = batch;
    }
    request.batch = request.batch.max(1);
    Ok(request)
}

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// On `MSG.NEXT`.
    Next,
    /// In an ack, `+NXT`.
    Ack,
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct Request {
    /// Where messages go.
    pub(super) reply: Box<[u8]>,
    /// Messages still wanted.
    pub(super) left: u64,
    /// Bytes still allowed; `None`: any.
    pub(super) bytes_left: Option<u64>,
    no_wait: bool,
    expires: Option<Instant>,
    /// Zero: none.
    heartbeat: Duration,
    heartbeat_at: Instant,
    received: u64,
    since: Instant,
    /// What it says about its turn, where the consumer has a priority policy.
    pub(super) claim: Option<Box<Claim>>,
    /// Of its turn: the lowest first.
    level: u8,
    /// Nobody listened last time; skipped until the next retry.
    pub(super) unheard: bool,
}

impl Request {
    fn due(&self) -> Option<Instant> {
        let heartbeat = (!self.heartbeat.is_zero()).then_some(self.heartbeat_at);
        let retry = self.unheard.then_some(Instant(0));
        [self.expires, heartbeat, retry].into_iter().flatten().min()
    }
}

/// The queue, ascending in `level`, which differs only where the policy says so.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    queue: VecDeque<Request>,
    /// Where the request is that [`Self::front`] gave.
    turn: usize,
    next_due: Option<Instant>,
}

/// Where and how status messages are written.
pub(super) struct Speaker<'a, H> {
    pub(super) host: &'a mut H,
    pub(super) scratch: &'a mut Vec<u8>,
}

impl<H: Host> Speaker<'_, H> {
    fn say(&mut self, to: &[u8], status: &str, lines: &[(&str, &[u8])]) {
        self.scratch.clear();
        headers::write_status(self.scratch, status, lines);
        self.host.deliver(to, to, b"", self.scratch, b"");
    }

    /// With what the request still wanted.
    fn say_left(&mut self, request: &Request, status: &str) {
        let (mut a, mut b) = (itoa::Buffer::new(), itoa::Buffer::new());
        self.say(
            &request.reply,
            status,
            &[
                ("Nats-Pending-Messages", a.format(request.left).as_bytes()),
                ("Nats-Pending-Bytes", b.format(request.bytes_left.unwrap_or(0)).as_bytes()),
            ],
        );
    }
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Messages wanted by all of them.
    fn wanted(&self) -> u64 {
        self.queue.iter().fold(0_u64, |sum, request| sum.saturating_add(request.left))
    }

    fn push(&mut self, request: Request) {
        self.consider(request.due());
        self.line_up(request);
    }

    /// Behind all others of its level.
    fn line_up(&mut self, request: Request) {
        let level = request.level;
        if self.queue.back().is_none_or(|last| last.level <= level) {
            self.queue.push_back(request);
        } else {
            let at = self.queue.partition_point(|other| other.level <= level);
            self.queue.insert(at, request);
        }
    }

    fn take(&mut self) -> Option<Request> {
        self.queue.remove(core::mem::take(&mut self.turn))
    }

    fn consider(&mut self, due: Option<Instant>) {
        self.next_due = match (self.next_due, due) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    /// When [`Self::tick`] has something to do; may be early.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.next_due
    }

    /// The request whose turn it is, those that cannot be served now moved behind it.
    pub(super) fn front(&mut self) -> Option<&Request> {
        self.turn = 0;
        for _ in 0..self.queue.len() {
            if !self.queue.front()?.unheard {
                return self.queue.front();
            }
            self.rotate();
        }
        // One of a lower level.
        self.turn = self.queue.iter().position(|request| !request.unheard)?;
        self.queue.get(self.turn)
    }

    /// The request at the head of the queue.
    pub(super) fn first(&self) -> Option<&Request> {
        self.queue.front()
    }

    /// What that one claims.
    pub(super) fn first_claim(&mut self) -> Option<&mut Claim> {
        self.queue.front_mut()?.claim.as_deref_mut()
    }

    /// It ends.
    pub(super) fn end_first(&mut self, status: &str, to: &mut Speaker<'_, impl Host>) {
        if let Some(request) = self.queue.pop_front() {
            to.say_left(&request, status);
        }
    }

    /// The next one first, within its level.
    pub(super) fn rotate(&mut self) {
        if let Some(request) = self.take() {
            self.line_up(request);
        }
    }

    /// The front request got a message of `size` bytes.
    pub(super) fn served(&mut self, now: Now, size: u64, to: &mut Speaker<'_, impl Host>) {
        let Some(mut request) = self.take() else { return };
        request.left = request.left.saturating_sub(1);
        request.received += 1;
        request.heartbeat_at = now.instant + request.heartbeat;
        if let Some(bytes) = &mut request.bytes_left {
            *bytes = bytes.saturating_sub(size);
        }
        match request.bytes_left {
            // Exactly used up: the client counts the same and knows.
            Some(0) => {}
            Some(_) if request.left == 0 => to.say_left(&request, "409 Batch Completed"),
            _ if request.left == 0 => {}
            _ => self.line_up(request),
        }
    }

    /// The message for the front request is over its bytes: it ends.
    pub(super) fn too_large(&mut self, to: &mut Speaker<'_, impl Host>) {
        if let Some(request) = self.take() {
            to.say_left(&request, "409 Message Size Exceeds MaxBytes");
        }
    }

    /// Nobody received what went to the front request.
    pub(super) fn unheard(&mut self, now: Now, leafs: bool) {
        let Some(mut request) = self.take() else { return };
        if leafs && now.instant < request.since + INTEREST_GRACE {
            request.unheard = true;
            self.consider(Some(now.instant + INTEREST_RETRY));
            self.line_up(request);
        }
    }

    /// There is nothing more to deliver: requests that do not wait end.
    pub(super) fn end_of_data(&mut self, to: &mut Speaker<'_, impl Host>) {
        if !self.queue.iter().any(|request| request.no_wait) {
            return;
        }
        self.queue.retain(|request| {
            let ends = request.no_wait && (request.expires.is_none() || request.received > 0);
            if ends {
                to.say(&request.reply, "404 No Messages", &[]);
            }
            !ends
        });
    }

    /// Expiries and heartbeats. `last` is what a heartbeat tells.
    pub(super) fn tick(
        &mut self,
        now: Now,
        last: (u64, Seq),
        leafs: bool,
        to: &mut Speaker<'_, impl Host>,
    ) {
        if self.next_due.is_none_or(|due| due > now.instant) {
            return;
        }
        self.next_due = None;
        let mut next_due: Option<Instant> = None;
        let retry = now.instant + INTEREST_RETRY;
        self.queue.retain_mut(|request| {
            if request.expires.is_some_and(|at| at <= now.instant) {
                to.say_left(request, "408 Request Timeout");
                return false;
            }
            if request.unheard {
                if now.instant >= request.since + INTEREST_GRACE {
                    return false;
                }
                request.unheard = !to.host.has_interest(&request.reply);
            }
            if !request.heartbeat.is_zero() && request.heartbeat_at <= now.instant {
                request.heartbeat_at = now.instant + request.heartbeat;
                let (mut a, mut b) = (itoa::Buffer::new(), itoa::Buffer::new());
                let lines = [
                    ("Nats-Last-Consumer", a.format(last.0).as_bytes()),
                    ("Nats-Last-Stream", b.format(last.1).as_bytes()),
                ];
                if is_gone(request, now, leafs, to.host) {
                    return false;
                }
                to.say(&request.reply, "100 Idle Heartbeat", &lines);
            }
            let due = if request.unheard { Some(retry) } else { request.due() };
            next_due = match (next_due, due) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            true
        });
        self.next_due = next_due;
    }

    /// Drops requests that nobody waits for any more, and those that have expired.
    pub(super) fn drop_dead(&mut self, now: Now, leafs: bool, to: &mut Speaker<'_, impl Host>) {
        self.queue.retain(|request| {
            if request.expires.is_some_and(|at| at <= now.instant) {
                to.say_left(request, "408 Request Timeout");
                return false;
            }
            !is_gone(request, now, leafs, to.host)
        });
    }

    /// Ends all of them.
    pub(super) fn end_all(&mut self, status: &str, left: bool, to: &mut Speaker<'_, impl Host>) {
        for request in core::mem::take(&mut self.queue) {
            if left {
                to.say_left(&request, status);
            } else {
                to.say(&request.reply, status, &[]);
            }
        }
        self.next_due = None;
    }
}

fn is_gone(request: &Request, now: Now, leafs: bool, host: &mut impl Host) -> bool {
    let young = leafs && now.instant < request.since + INTEREST_GRACE;
    !young && !host.has_interest(&request.reply)
}

/// Why a request is refused at once, if it is.
fn refusal(config: &ConsumerConfig, request: &NextRequest) -> Option<String> {
    if config.max_batch > 0 && request.batch > config.max_batch {
        return Some(format!("409 Exceeded MaxRequestBatch of {}", config.max_batch));
    }
    if config.max_expires > 0 && request.expires > 0 && request.expires > config.max_expires {
        let most = GoDuration(duration(config.max_expires));
        return Some(format!("409 Exceeded MaxRequestExpires of {most}"));
    }
    if config.max_bytes > 0 && request.max_bytes > config.max_bytes {
        return Some(format!("409 Exceeded MaxRequestMaxBytes of {}", config.max_bytes));
    }
    None
}

impl JetStream {
    /// A pull request on `$JS.API.CONSUMER.MSG.NEXT.<stream>.<consumer>`.
    pub fn handle_next(
        &mut self,
        now: Now,
        consumer: ConsumerId,
        msg: Inbound<'_>,
        host: &mut impl Host,
    ) {
        self.pull_request(now, consumer, msg, Via::Next, host);
    }

    /// A pull request; messages go to the reply subject of `msg`.
    pub(super) fn pull_request(
        &mut self,
        now: Now,
        id: ConsumerId,
        msg: Inbound<'_>,
        via: Via,
        host: &mut impl Host,
    ) {
        if msg.reply.is_empty() {
            return;
        }
        let leafs = host.has_leafs();
        let (Some(consumer), scratch) = self.consumers.get_with_scratch(id) else { return };
        let mut to = Speaker { host, scratch };
        if consumer.config.is_push() {
            to.say(msg.reply, "409 Consumer is push based", &[]);
            return;
        }
        if via == Via::Next && !json::level_ok(msg.headers) {
            to.say(msg.reply, "412 Required Api Level", &[]);
            return;
        }
        let mut request = match parse_body(msg.payload) {
            Ok(request) => request,
            Err(text) => {
                to.say(msg.reply, &format!("400 Bad Request - {text}"), &[]);
                return;
            }
        };
        if let Some(status) = refusal(&consumer.config, &request) {
            to.say(msg.reply, &status, &[]);
            return;
        }
        if let Some(text) = priority::mistake(&consumer.config, &request) {
            to.say(msg.reply, &format!("400 Bad Request - {text}"), &[]);
            return;
        }
        consumer.last_used = now.instant;
        let policy = consumer.config.priority_policy;
        if policy == PriorityPolicy::PinnedClient && !consumer.note_pin_id(now, &request.id) {
            to.say(msg.reply, "423 Nats-Pin-Id mismatch", &[]);
            return;
        }
        if request.no_wait {
            let available =
                consumer.count.pending.saturating_add(consumer.progress.queued() as u64);
            let paused = consumer.is_paused(now);
            if (available == 0 || paused) && request.expires <= 0 && consumer.is_running() {
                to.say(msg.reply, "404 No Messages", &[]);
                return;
            }
            if available > 0 && !paused && available <= consumer.waiting.wanted() {
                to.say(msg.reply, "408 Requests Pending", &[]);
                return;
            }
        }
        let max = consumer.config.waiting_max();
        if consumer.waiting.len() >= max {
            // Scanning is not free: a full queue of live requests must not be scanned for
            // every request that comes.
            if now.instant >= consumer.scanned + Duration::from_secs(1) {
                consumer.scanned = now.instant;
                consumer.waiting.drop_dead(now, leafs, &mut to);
            }
            if consumer.waiting.len() >= max {
                if request.idle_heartbeat <= 0 {
                    to.say(msg.reply, "409 Exceeded MaxWaiting", &[]);
                }
                return;
            }
        }
        let expires = match request.expires {
            0 => None,
            // In the past: ends at the next look.
            ..0 => Some(now.instant),
            nanos => Some(now.instant + duration(nanos)),
        };
        let heartbeat = duration(request.idle_heartbeat);
        let prioritized = request.is_json && policy == PriorityPolicy::Prioritized;
        let level = if prioritized { request.priority } else { 0 };
        consumer.waiting.push(Request {
            reply: msg.reply.into(),
            left: u64::try_from(request.batch).unwrap_or(1),
            bytes_left: u64::try_from(request.max_bytes).ok().filter(|&bytes| bytes > 0),
            no_wait: request.no_wait,
            expires,
            heartbeat,
            heartbeat_at: now.instant + heartbeat,
            received: 0,
            since: now.instant,
            claim: Claim::new(policy, &mut request).map(Box::new),
            level: u8::try_from(level).unwrap_or(u8::MAX),
            unheard: false,
        });
        if expires == Some(now.instant) {
            let last = consumer.last_positions();
            consumer.waiting.tick(now, last, leafs, &mut to);
        }
        self.consumer_run(now, id, host);
    }
}

// A consumer holds at most this many requests of at most this size.
const _: () = assert!(limits::WAITING_MAX <= 65_536);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_empty_a_number_or_json() {
        let batch = |body: &str| parse_body(body.as_bytes()).map(|request| request.batch);
        assert_eq!(batch(""), Ok(1));
        assert_eq!(batch(" 7 "), Ok(7));
        assert_eq!(batch("-3"), Ok(1));
        assert_eq!(batch("many"), Ok(1));
        assert_eq!(batch("{}"), Ok(1));
        assert_eq!(batch(r#"{"batch":5,"group":"x","unknown":[1]}"#), Ok(5));
        assert_eq!(
            batch(r#"{"expires":10,"idle_heartbeat":6}"#),
            Err("heartbeat value too large".into())
        );
        assert_eq!(batch(r#"{"idle_heartbeat":1}"#), Err("heartbeat value too large".into()));
        assert!(batch("{\"batch\":1").is_err());
    }
}
