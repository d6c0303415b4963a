//! The delivery loop: from the next message to whoever is to have it.
//!
//! Owns the order of things (redeliveries first, then new messages within
//! `max_ack_pending`), the ack subject, and the delays of `replay_policy` and
//! `rate_limit_bps`. Does not own who waits (`pull`, `push`) nor where messages are
//! (`cursor`).
//!
//! # Invariants
//! - What was not delivered to anybody leaves no trace in the state.
//! - Nothing is allocated per message, except where the state has to remember it.

use alloc::vec::Vec;

use super::ack::Settled;
use super::config::{AckPolicy, PriorityPolicy, ReplayPolicy};
use super::cursor::{Found, Held, Want};
use super::priority::{Choice, Stock};
use super::pull::Speaker;
use super::{Consumer, Pending, Ticket};
use crate::id::{ConsumerId, Rng};
use crate::jetstream::host::{Host, JsNotice};
use crate::jetstream::storage::{Seq, StoreReply, StoreRequest};
use crate::jetstream::stream::Stream;
use crate::jetstream::{JetStream, Waiting};
use crate::limits;
use crate::time::{Duration, Instant, Now, Timestamp};

/// Bytes delivered between two looks at the receiver's backlog.
const BACKLOG_CHECK_BYTES: usize = 64 * 1024;
/// A read for redeliveries is small: they are few, and lie apart.
const AGAIN_BYTES: usize = limits::READ_CHUNK_BYTES / 4;
/// Most messages in one read; bounds the index of a chunk of tiny messages.
const READ_MSGS: u32 = 16_384;
/// After a failed read.
const READ_RETRY: Duration = Duration::from_secs(1);
/// What was read is dropped when it has not been needed for this long.
pub(super) const READS_KEPT: Duration = Duration::from_secs(2);
/// No deadline: far beyond any run.
const NEVER: Instant = Instant(u64::MAX);

/// Delays between messages.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Nothing before this.
    hold_until: Option<Instant>,
    /// Replay at the original pace up to this sequence.
    replay_through: Seq,
    /// Stored time of the last message, and when it was sent.
    last: Option<(Timestamp, Instant)>,
    /// When the bytes sent so far are paid for, at `rate_limit_bps`.
    paid_at: Instant,
    /// Of the last delivery.
    last_run: Instant,
}

impl Gate {
    pub(super) fn new(replay_through: Seq, now: Now) -> Self {
        Self { replay_through, last_run: now.instant, ..Self::default() }
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.hold_until
    }

    pub(super) fn last_run(&self) -> Instant {
        self.last_run
    }

    pub(super) fn hold(&mut self, until: Instant) {
        self.hold_until = Some(until);
    }

    fn holds(&mut self, now: Now) -> bool {
        match self.hold_until {
            Some(until) if until > now.instant => true,
            _ => {
                self.hold_until = None;
                false
            }
        }
    }
}

/// Something to be reported after the loop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    pub(super) seq: Seq,
    pub(super) dseq: u64,
    pub(super) deliveries: u32,
    pub(super) exhausted: bool,
}

/// What the loop needs from outside.
struct Surroundings<'a, H> {
    now: Now,
    stream: &'a Stream,
    leafs: bool,
    /// `max_payload`.
    payload_max: u64,
    rng: &'a mut Rng,
    scratch: &'a mut Vec<u8>,
    ack: &'a mut Vec<u8>,
    host: &'a mut H,
}

/// How the loop ended.
#[derive(Debug, Default)]
struct Outcome {
    want: Option<Want>,
    blocked: bool,
    /// Somebody was pinned: to be told before the message, so the loop has to run again.
    pinned: bool,
    events: Vec<Event>,
}

enum Next {
    Msg { held: Held, again: bool },
    End,
    Full,
    Wait(Want),
}

fn push_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

impl Consumer {
    fn next_message(&mut self, stream: &Stream, outcome: &mut Outcome) -> Next {
        let max = self.config.deliveries_max();
        while let Some(seq) = self.progress.next_queued() {
            let deliveries = self.progress.deliveries(seq);
            let dseq = self.progress.pending.get(seq).map_or(0, |entry| entry.dseq);
            let event = Event { seq, dseq, deliveries, exhausted: true };
            if max.is_some_and(|max| deliveries >= max) {
                self.progress.take_queued();
                self.progress.give_up(seq);
                outcome.events.push(event);
                continue;
            }
            match self.cursor.find_again(seq, &stream.state, &stream.tail) {
                Found::Msg(held) => return Next::Msg { held, again: true },
                Found::Wait(want) => return Next::Wait(want),
                Found::None => {
                    self.progress.take_queued();
                    self.progress.settle(seq);
                    outcome.events.push(Event { exhausted: false, ..event });
                }
            }
        }
        self.cursor.end_of_queue();
        if self.is_ack_pending_full() {
            return Next::Full;
        }
        let found = self.cursor.find_next(&stream.state, &stream.tail, &self.filters);
        self.count.pending = self.count.pending.saturating_sub(self.cursor.take_missed());
        match found {
            Found::Msg(held) => Next::Msg { held, again: false },
            Found::Wait(want) => Next::Wait(want),
            Found::None => Next::End,
        }
    }

    fn run<H: Host>(&mut self, around: &mut Surroundings<'_, H>) -> Outcome {
        let mut outcome = Outcome::default();
        let now = around.now;
        let mut unchecked = BACKLOG_CHECK_BYTES;
        let mut changed = false;
        let mut slow = 0;
        while self.is_running() && !self.resync && !self.is_paused(now) && !self.gate.holds(now) {
            let to = match &self.push {
                Some(push) if !push.may_send() => break,
                Some(_) => self.config.deliver_subject.as_bytes(),
                None => match self.waiting.front() {
                    Some(request) => &*request.reply,
                    None => break,
                },
            };
            if unchecked >= BACKLOG_CHECK_BYTES {
                if around.host.is_backlogged(to) {
                    outcome.blocked = true;
                    slow += 1;
                    // Another puller may be quicker.
                    if self.push.is_some() || slow >= self.waiting.len() {
                        break;
                    }
                    self.waiting.rotate();
                    continue;
                }
                unchecked = 0;
            }
            let (held, again) = match self.next_message(around.stream, &mut outcome) {
                Next::Msg { held, again } => (held, again),
                Next::Wait(want) => {
                    outcome.want = Some(want);
                    break;
                }
                next @ (Next::End | Next::Full) => {
                    self.out_of_messages(matches!(next, Next::End), around);
                    break;
                }
            };
            let Some((chunk, msg)) = held.parts() else { break };
            let has_groups = self.config.priority_policy != PriorityPolicy::None;
            if has_groups && !self.choose_receiver(&mut outcome, around) {
                break;
            }
            let pin = (self.config.priority_policy == PriorityPolicy::PinnedClient)
                .then(|| self.pin.as_ref().map_or("", |pin| pin.id.as_str()));
            let subject = chunk.bytes(&msg.subject);
            let (mut headers, mut payload) = (chunk.bytes(&msg.headers), chunk.bytes(&msg.payload));
            let mut headers_len = headers.len();
            if self.config.headers_only || pin.is_some() {
                let left_out = self.config.headers_only.then_some(payload.len());
                headers_len = write_headers(around.scratch, headers, left_out, pin);
                headers = around.scratch;
            }
            if self.config.headers_only {
                payload = b"";
            }
            let deliveries = if again { self.progress.deliveries(msg.seq) + 1 } else { 1 };
            let left = self.count.pending.saturating_sub(u64::from(!again));
            let ack = &mut *around.ack;
            ack.clear();
            ack.extend_from_slice(&self.ack_prefix);
            push_number(ack, u64::from(deliveries));
            ack.push(b'.');
            push_number(ack, msg.seq);
            ack.push(b'.');
            push_number(ack, self.progress.delivered.consumer + 1);
            ack.push(b'.');
            push_number(ack, u64::try_from(msg.timestamp.0).unwrap_or(0));
            ack.push(b'.');
            push_number(ack, left);
            let size = subject.len() + ack.len() + headers_len + payload.len();
            let most = around.payload_max;
            if !again && self.is_too_early(around.stream, msg.seq, msg.timestamp, size, most, now) {
                break;
            }
            let to = match &self.push {
                Some(_) => self.config.deliver_subject.as_bytes(),
                None => match self.waiting.front() {
                    Some(request) if request.bytes_left.is_some_and(|left| left < size as u64) => {
                        // Who gets no message has no pin.
                        self.pin = self.pin.take().filter(|pin| pin.used);
                        let mut to = Speaker { host: around.host, scratch: around.scratch };
                        self.waiting.too_large(&mut to);
                        continue;
                    }
                    Some(request) => &*request.reply,
                    None => break,
                },
            };
            let flow_bytes = size - subject.len() + to.len();
            if !around.host.deliver(to, subject, ack, headers, payload) {
                match &mut self.push {
                    Some(push) => push.deactivate(now),
                    None => self.waiting.unheard(now, around.leafs),
                }
                continue;
            }
            unchecked += size;
            changed = true;
            let (seq, timestamp) = (msg.seq, msg.timestamp);
            self.delivered(seq, again, deliveries, now);
            self.gate.last = Some((timestamp, now.instant));
            if let Some(push) = &mut self.push {
                if push.sent(now, flow_bytes) {
                    let to = self.config.deliver_subject.as_bytes();
                    push.ask(to, around.rng, around.host);
                }
            } else {
                let mut to = Speaker { host: around.host, scratch: around.scratch };
                self.waiting.served(now, size as u64, &mut to);
                if let Some(pin) = &mut self.pin {
                    pin.used = true;
                }
            }
        }
        if changed || !outcome.events.is_empty() {
            self.progress.last_delivery =
                if changed { now.wall } else { self.progress.last_delivery };
            self.last_used = now.instant;
            self.gate.last_run = now.instant;
            self.mark_dirty(now);
        }
        if outcome.want.is_none() && changed {
            outcome.want = self.cursor.want_ahead(&around.stream.state, &around.stream.tail);
        }
        outcome
    }

    /// Brings the one to the front who may have the message at hand; false if there is none.
    fn choose_receiver<H: Host>(
        &mut self,
        outcome: &mut Outcome,
        around: &mut Surroundings<'_, H>,
    ) -> bool {
        let pin = self.pin.as_ref().map(|pin| pin.id.as_str());
        let stock =
            Stock { pending: self.count.pending, ack_pending: self.progress.pending.len() as u64 };
        let mut to = Speaker { host: &mut *around.host, scratch: &mut *around.scratch };
        match self.waiting.choose(self.config.priority_policy, pin, stock, &mut to) {
            Choice::Front => true,
            Choice::Pin => {
                self.pin_front(around.now, around.rng);
                outcome.pinned = true;
                false
            }
            Choice::Nobody => {
                self.waiting.end_of_data(&mut to);
                false
            }
        }
    }

    fn delivered(&mut self, seq: Seq, again: bool, deliveries: u32, now: Now) {
        let wait = self.config.redelivery_wait(deliveries);
        let due = wait.map_or(NEVER, |wait| now.instant + wait);
        if again {
            self.progress.take_queued();
            self.progress.deliver_again(seq, now.instant, due);
            return;
        }
        self.count.pending = self.count.pending.saturating_sub(1);
        self.count.delivered += u64::from(self.count.asked.is_some());
        self.progress.deliver(seq, self.config.settling(), now.instant, due);
        self.cursor.advance(seq);
    }

    /// Nothing can be delivered: the end of the stream, or too much is pending.
    fn out_of_messages<H: Host>(&mut self, end: bool, around: &mut Surroundings<'_, H>) {
        if end && self.count.asked.is_none() {
            self.count.pending = 0;
        }
        if let Some(push) = &mut self.push {
            if !end && self.config.ack_policy == AckPolicy::FlowControl {
                push.ask(self.config.deliver_subject.as_bytes(), around.rng, around.host);
            }
        } else {
            let mut to = Speaker { host: around.host, scratch: around.scratch };
            self.waiting.end_of_data(&mut to);
        }
    }

    /// Has the message to wait for its time or for bandwidth?
    fn is_too_early(
        &mut self,
        stream: &Stream,
        seq: Seq,
        timestamp: Timestamp,
        size: usize,
        payload_max: u64,
        now: Now,
    ) -> bool {
        if self.config.replay_policy == ReplayPolicy::Original
            && seq <= self.gate.replay_through
            && let Some((before, sent)) = self.gate.last
        {
            let gap = u64::try_from(timestamp.0.saturating_sub(before.0)).unwrap_or(0);
            let due = sent + Duration::from_nanos(gap);
            if gap > 1_000_000 && due > now.instant {
                self.gate.hold(due);
                return true;
            }
        }
        if self.config.rate_limit_bps > 0 {
            let nanos = |bytes: u64| {
                let bits = u128::from(bytes) * 8 * 1_000_000_000;
                let nanos = bits / u128::from(self.config.rate_limit_bps);
                Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
            };
            let burst = u64::try_from(stream.config.max_msg_size).ok().filter(|&size| size > 0);
            let burst = nanos(burst.unwrap_or(payload_max));
            let paid = self.gate.paid_at.max(now.instant);
            let after = paid + nanos(size as u64);
            // A message larger than the burst passes alone.
            if paid > now.instant && after > now.instant + burst {
                self.gate.hold((after - burst).max(now.instant + Duration::from_nanos(1)));
                return true;
            }
            self.gate.paid_at = after;
        }
        false
    }
}

/// The headers of a message with more: the size of a payload that is left out, and the id
/// of whoever is pinned. Returns their length without the latter, which counts for nobody.
fn write_headers(
    out: &mut Vec<u8>,
    headers: &[u8],
    size: Option<usize>,
    pin: Option<&str>,
) -> usize {
    let mut counted = headers.len();
    out.clear();
    match headers.strip_suffix(b"\r\n") {
        Some(rest) => out.extend_from_slice(rest),
        None => out.extend_from_slice(b"NATS/1.0\r\n"),
    }
    if let Some(size) = size {
        out.extend_from_slice(b"Nats-Msg-Size: ");
        push_number(out, size as u64);
        out.extend_from_slice(b"\r\n");
        counted = out.len() + b"\r\n".len();
    }
    if let Some(pin) = pin {
        out.extend_from_slice(b"Nats-Pin-Id: ");
        out.extend_from_slice(pin.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    counted
}

impl JetStream {
    /// Delivers what can be delivered.
    pub(super) fn consumer_run(&mut self, now: Now, id: ConsumerId, host: &mut impl Host) {
        // Each pin but the last ends a request: this does not go on for ever.
        while self.consumer_pass(now, id, host) {
            self.advise_pinned(now, id, host);
        }
    }

    /// The same; true if somebody was pinned and there is more to do.
    fn consumer_pass(&mut self, now: Now, id: ConsumerId, host: &mut impl Host) -> bool {
        let leafs = host.has_leafs();
        let super::Consumers { table, scratch, ack, .. } = &mut self.consumers;
        let Some(consumer) = usize::try_from(id.index)
            .ok()
            .and_then(|index| table.get_mut(index))
            .filter(|consumer| consumer.id == id)
        else {
            return false;
        };
        let Some(stream) = self.streams.get(&consumer.stream) else { return false };
        let rng = &mut self.rng;
        let payload_max = self.options.max_payload;
        let mut around = Surroundings { now, stream, leafs, payload_max, rng, scratch, ack, host };
        let outcome = consumer.run(&mut around);
        self.note_settled(id, host);
        if outcome.blocked {
            self.consumers.blocked.insert(id);
        }
        if let Some(want) = outcome.want {
            self.read(id, want, host);
        }
        for event in outcome.events {
            self.advise_event(now, id, event, host);
        }
        self.consumers.rearm(now, id);
        outcome.pinned
    }

    pub(super) fn advise_event(
        &mut self,
        now: Now,
        id: ConsumerId,
        event: Event,
        host: &mut impl Host,
    ) {
        let what = if event.exhausted {
            Settled::Exhausted
        } else {
            Settled::Terminated(b"Unacknowledged message was deleted")
        };
        self.advise_settled(now, id, event.seq, event.dseq, event.deliveries, what, host);
    }

    fn read(&mut self, id: ConsumerId, want: Want, host: &mut impl Host) {
        let ticket = self.consumers.next_ticket();
        let Some(consumer) = self.consumers.get_mut(id) else { return };
        if !consumer.cursor.may_read(want) {
            return;
        }
        consumer.cursor.reading(ticket, want);
        let again = want.purpose == super::cursor::Purpose::Again;
        let max_bytes = if again { AGAIN_BYTES } else { limits::READ_CHUNK_BYTES };
        let stream = consumer.stream;
        // What is to be delivered again may be outside filters that were changed since.
        let filters = if again { [].into() } else { consumer.filters.clone() };
        let token = self.token(Waiting::Consumer(Pending::Read { id, ticket }));
        let request = StoreRequest::Read {
            token,
            stream,
            from: want.from,
            filters,
            max_msgs: READ_MSGS,
            max_bytes: u32::try_from(max_bytes).unwrap_or(u32::MAX),
        };
        self.store(request, host);
    }

    /// Messages came from the store.
    pub(super) fn have_read(
        &mut self,
        now: Now,
        id: ConsumerId,
        ticket: Ticket,
        reply: StoreReply,
        host: &mut impl Host,
    ) {
        let Some(consumer) = self.consumers.get_mut(id) else { return };
        let StoreReply::Read { chunk, through, .. } = reply else { return };
        match chunk {
            Ok(chunk) => {
                if !consumer.cursor.read(ticket, Some(chunk), through) {
                    return;
                }
            }
            Err(error) => {
                consumer.cursor.read(ticket, None, through);
                consumer.gate.hold(now.instant + READ_RETRY);
                host.notice(JsNotice::Error(alloc::format!(
                    "consumer {} cannot read its stream: {error}",
                    consumer.name
                )));
            }
        }
        self.consumer_run(now, id, host);
    }
}
