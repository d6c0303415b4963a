//! Fast batches: messages stored one by one, with answers by the publisher's flow.
//!
//! Owns who publishes such a batch, how far it has come, and its answers. What is asked of a
//! message is in its reply subject, `<inbox>.<batch>.<flow>.<gap>.<sequence>.<operation>.$FI`.
//! Does not own storing: the messages go the way of all others.
//!
//! Of a batch that ends where something goes wrong, nothing may be stored behind that: its
//! messages are with the store in one [`PublishBatch`] at a time, inside which the engine
//! sees to it; later ones are held here meanwhile.
//!
//! # Invariants
//! - Answers of one batch go out in the order of its messages.
//! - A batch that has ended is in `of` only while the store has some of it.
//!
//! Source: answers and order of checks seen from nats-server 2.15.1.

use alloc::boxed::Box;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use litemap::LiteMap;

use crate::id::StreamId;
use crate::jetstream::JetStream;
use crate::jetstream::host::{Host, Inbound};
use crate::jetstream::json::{self, ApiError};
use crate::jetstream::publish::{api_error, error_ack};
use crate::jetstream::storage::{Part, PublishBatch, PublishOutcome, Seq};
use crate::jetstream::stream::batch::without_level;
use crate::limits;
use crate::time::{Instant, Now};

/// Messages between two answers where the publisher does not say.
const FLOW_DEFAULT: u64 = 10;
/// What all batches of a stream share.
const FLOW_MAX: u64 = 500;

const UNKNOWN: ApiError = ApiError::fixed(10208, 400, "batch publish ID unknown");

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct FastBatches {
    ids: LiteMap<(StreamId, Box<[u8]>), u32>,
    of: LiteMap<u32, Fast>,
    /// Batches of each stream that go on.
    active: LiteMap<StreamId, u64>,
    next: u32,
    /// None of them is given up before this.
    due: Option<Instant>,
}

#[derive(Debug)]
struct Fast {
    stream: StreamId,
    id: Box<[u8]>,
    flow: u64,
    /// It ends at the first gap or mistake.
    strict: bool,
    /// Messages between two answers, now.
    step: u64,
    /// The last answer said so.
    answered: u64,
    /// The last message that came.
    seen: u64,
    /// The last message that was stored.
    done: u64,
    /// Where in the stream.
    stored: Seq,
    /// With the store, and since when.
    in_flight: u32,
    generation: u64,
    held: VecDeque<Held>,
    used_at: Instant,
}

/// What has to wait for messages before it.
#[derive(Debug)]
enum Held {
    Msg {
        subject: Vec<u8>,
        reply: Vec<u8>,
        headers: Vec<u8>,
        payload: Vec<u8>,
    },
    Ping(Vec<u8>),
    /// Its end, with the count it has come to.
    End(Vec<u8>, u64),
}

impl Held {
    fn bytes(&self) -> usize {
        match self {
            Self::Msg { subject, reply, headers, payload } => {
                subject.len() + reply.len() + headers.len() + payload.len()
            }
            Self::Ping(reply) | Self::End(reply, _) => reply.len(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Start,
    Append,
    Commit,
    /// The end, without a message.
    End,
    Ping,
}

/// What a reply subject says.
#[derive(Debug)]
struct Asked<'a> {
    id: &'a [u8],
    flow: u64,
    strict: bool,
    seq: u64,
    op: Op,
}

/// Is this the reply of a message of a fast batch?
pub(in crate::jetstream) fn is_fast(reply: &[u8]) -> bool {
    reply.ends_with(b".$FI")
}

fn parse(reply: &[u8]) -> Option<Asked<'_>> {
    let mut tokens = reply.rsplitn(7, |byte| *byte == b'.');
    let (_, op, seq) = (tokens.next()?, tokens.next()?, tokens.next()?);
    let (gap, flow, id) = (tokens.next()?, tokens.next()?, tokens.next()?);
    tokens.next()?;
    let op = match op {
        b"0" => Op::Start,
        b"1" => Op::Append,
        b"2" => Op::Commit,
        b"3" => Op::End,
        b"4" => Op::Ping,
        _ => return None,
    };
    let seq = json::digits(seq).filter(|seq| *seq > 0)?;
    let strict = match gap {
        b"fail" => true,
        b"ok" => false,
        _ => return None,
    };
    let is_possible = match op {
        Op::Start => seq == 1,
        Op::Append | Op::End => seq > 1,
        Op::Commit | Op::Ping => true,
    };
    let flow = json::digits(flow).filter(|flow| *flow > 0).unwrap_or(FLOW_DEFAULT);
    is_possible.then_some(Asked { id, flow, strict, seq, op })
}

impl Fast {
    /// Is it time for an answer? Makes its numbers those of it.
    fn is_due(&mut self, active: u64) -> bool {
        let more = self.done.saturating_sub(self.answered);
        if more < self.step {
            return false;
        }
        self.answered += more / self.step * self.step;
        let max = self.flow.min(FLOW_MAX / active.max(1)).max(1);
        self.step = if self.step < max {
            (self.step * 2).min(max)
        } else {
            (self.step / 2).max(max).min(self.step)
        };
        true
    }

    fn answer(&self) -> Vec<u8> {
        format!("{{\"type\":\"ack\",\"seq\":{},\"msgs\":{}}}", self.answered, self.step)
            .into_bytes()
    }
}

fn say(reply: &[u8], text: &[u8], host: &mut impl Host) {
    if !reply.is_empty() {
        host.deliver(reply, reply, b"", b"", text);
    }
}

impl JetStream {
    /// Takes a message of a fast batch.
    pub(in crate::jetstream) fn fast_publish(
        &mut self,
        now: Now,
        stream: StreamId,
        msg: Inbound<'_>,
        host: &mut impl Host,
    ) {
        if let Err(error) = self.try_fast(now, stream, msg, host) {
            self.fast_refuse(stream, msg.reply, &error, host);
        }
    }

    fn fast_refuse(
        &mut self,
        stream: StreamId,
        reply: &[u8],
        error: &ApiError,
        host: &mut impl Host,
    ) {
        if let Some(to) = self.streams.get(&stream)
            && !to.config.no_ack
        {
            say(reply, &error_ack(&to.name, error), host);
        }
    }

    fn try_fast(
        &mut self,
        now: Now,
        stream: StreamId,
        msg: Inbound<'_>,
        host: &mut impl Host,
    ) -> Result<(), ApiError> {
        let Some(to) = self.streams.get(&stream) else { return Ok(()) };
        if to.config.sealed {
            return Err(ApiError::fixed(10109, 400, "invalid operation on sealed stream"));
        }
        let no_ack = to.config.no_ack;
        let Some(asked) = parse(msg.reply) else {
            return Err(ApiError::fixed(10206, 400, "batch publish pattern is invalid"));
        };
        let key = (stream, Box::from(asked.id));
        let known = self.fast.ids.get(&key).copied();
        if !json::level_ok(msg.headers) {
            self.forget_fast(&key);
            return Err(ApiError::REQUIRED_LEVEL);
        }
        let number = match known {
            Some(number) => number,
            None if asked.seq == 1 && matches!(asked.op, Op::Start | Op::Commit) => {
                let number = self.new_fast(now, key.clone(), &asked)?;
                if let Some(batch) = self.fast.of.get(&number)
                    && asked.op == Op::Start
                    && !no_ack
                {
                    say(msg.reply, &batch.answer(), host);
                }
                number
            }
            None => return Err(UNKNOWN),
        };
        let Some(batch) = self.fast.of.get_mut(&number) else { return Err(UNKNOWN) };
        batch.used_at = now.instant;
        // A ping names the last message that was sent.
        let (expected, seq) = match asked.op {
            Op::Ping if asked.seq <= batch.seen => (asked.seq, asked.seq),
            Op::Ping => (batch.seen + 1, asked.seq.saturating_add(1)),
            _ => (batch.seen + 1, asked.seq),
        };
        if expected != seq {
            let gap = format!("{{\"type\":\"gap\",\"last_seq\":{expected},\"seq\":{seq}}}");
            say(msg.reply, gap.as_bytes(), host);
            if batch.strict || seq < expected {
                let end = Held::End(msg.reply.to_vec(), batch.seen);
                self.fast.end(number);
                self.hold_fast(number, end, host);
                return Ok(());
            }
            // What never came counts as done with.
            batch.seen = asked.seq.saturating_sub(1);
        }
        match asked.op {
            Op::Ping => {
                batch.seen = batch.seen.max(asked.seq);
                self.hold_fast(number, Held::Ping(msg.reply.to_vec()), host);
            }
            Op::End => {
                let end = Held::End(msg.reply.to_vec(), asked.seq.saturating_sub(1));
                self.fast.end(number);
                self.hold_fast(number, end, host);
            }
            Op::Start | Op::Append | Op::Commit => {
                let held = Held::Msg {
                    subject: msg.subject.to_vec(),
                    reply: msg.reply.to_vec(),
                    headers: without_level(msg.headers).into_owned(),
                    payload: msg.payload.to_vec(),
                };
                let too_many = ApiError::fixed(10167, 429, "too many requests");
                if self.shared.batch_bytes() + held.bytes() > limits::BATCH_BYTES_MAX {
                    return Err(too_many);
                }
                let batch = self.fast.of.get_mut(&number).ok_or(UNKNOWN)?;
                batch.seen = asked.seq;
                if asked.op == Op::Commit {
                    self.fast.end(number);
                }
                self.hold_fast(number, held, host);
            }
        }
        let due = now.instant + self.options.limits.batch.timeout;
        self.fast.due = Some(self.fast.due.map_or(due, |at| at.min(due)));
        Ok(())
    }

    fn new_fast(
        &mut self,
        now: Now,
        key: (StreamId, Box<[u8]>),
        asked: &Asked<'_>,
    ) -> Result<u32, ApiError> {
        let active = self.fast.active.get(&key.0).copied().unwrap_or(0);
        if active >= limits::FAST_BATCHES_PER_STREAM_MAX
            || self.shared.fast_batches() >= limits::FAST_BATCHES_MAX
        {
            return Err(ApiError::fixed(10211, 429, "batch publish too many inflight"));
        }
        self.shared.note_fast_batch(true);
        let number = self.fast.next;
        self.fast.next = number.wrapping_add(1);
        self.fast.active.insert(key.0, active + 1);
        let flow = asked.flow.min(FLOW_MAX);
        self.fast.of.insert(
            number,
            Fast {
                stream: key.0,
                id: key.1.clone(),
                flow,
                strict: asked.strict,
                step: if active == 0 { flow } else { 1 },
                answered: 0,
                seen: 0,
                done: 0,
                stored: 0,
                in_flight: 0,
                generation: 0,
                held: VecDeque::new(),
                used_at: now.instant,
            },
        );
        self.fast.ids.insert(key, number);
        Ok(number)
    }

    /// Does what was asked, as soon as it may be done.
    fn hold_fast(&mut self, number: u32, held: Held, host: &mut impl Host) {
        let Some(batch) = self.fast.of.get_mut(&number) else { return };
        self.shared.note_batch_bytes(0, held.bytes());
        batch.held.push_back(held);
        if batch.held.len() == 1 {
            self.go_on_fast(number, host);
        }
    }

    /// Does what waits, as far as it may be done.
    fn go_on_fast(&mut self, number: u32, host: &mut impl Host) {
        loop {
            let generation = self.ingest_generation();
            let Some(batch) = self.fast.of.get_mut(&number) else { return };
            let Some(held) = batch.held.pop_front() else { break };
            let waits = match held {
                Held::Msg { .. } => {
                    batch.strict && batch.in_flight > 0 && batch.generation != generation
                }
                Held::Ping(_) | Held::End(..) => batch.in_flight > 0,
            };
            if waits {
                batch.held.push_front(held);
                return;
            }
            self.shared.note_batch_bytes(held.bytes(), 0);
            match held {
                Held::Msg { subject, reply, headers, payload } => {
                    batch.in_flight += 1;
                    batch.generation = generation;
                    let part =
                        if batch.strict { Part::FastStrict(number) } else { Part::Fast(number) };
                    let stream = batch.stream;
                    let msg = Inbound {
                        subject: &subject,
                        reply: &reply,
                        headers: &headers,
                        payload: &payload,
                    };
                    self.gather(self.now(), stream, msg, part);
                    self.emit_if_large(host);
                }
                Held::Ping(reply) => {
                    batch.done = batch.done.max(batch.seen);
                    let active = self.fast.active.get(&batch.stream).copied().unwrap_or(1);
                    batch.is_due(active);
                    say(&reply, &batch.answer(), host);
                }
                Held::End(reply, count) => {
                    self.finish_fast(number, &reply, count, false, host);
                    return;
                }
            }
        }
        // One that has ended and whose last message is with the store is needed for its answer.
        if self.fast.of.get(&number).is_some_and(|batch| batch.in_flight == 0)
            && !self.fast.goes_on(number)
        {
            self.remove_fast(number);
        }
    }

    /// The last answer of a batch.
    fn finish_fast(
        &mut self,
        number: u32,
        reply: &[u8],
        count: u64,
        duplicate: bool,
        host: &mut impl Host,
    ) {
        self.fast.end(number);
        let Some(batch) = self.remove_fast(number) else { return };
        if let Some(stream) = self.streams.get(&batch.stream) {
            let mut ack = stream.ack_head.to_vec();
            let duplicate = if duplicate { ",\"duplicate\": true" } else { "" };
            let id = json::encode(&String::from_utf8_lossy(&batch.id));
            ack.extend_from_slice(format!("{}{duplicate},\"batch\":", batch.stored).as_bytes());
            ack.extend_from_slice(&id);
            ack.extend_from_slice(format!(",\"count\":{count}}}").as_bytes());
            say(reply, &ack, host);
        }
        for held in batch.held {
            self.shared.note_batch_bytes(held.bytes(), 0);
            let (Held::Msg { reply, .. } | Held::Ping(reply) | Held::End(reply, _)) = held;
            self.fast_refuse(batch.stream, &reply, &UNKNOWN, host);
        }
    }

    fn remove_fast(&mut self, number: u32) -> Option<Fast> {
        let batch = self.fast.of.remove(&number)?;
        self.shared.note_fast_batch(false);
        Some(batch)
    }

    /// The store answered: acks of fast batches.
    pub(in crate::jetstream) fn fast_published(
        &mut self,
        batch: &PublishBatch,
        outcomes: &[PublishOutcome],
        host: &mut impl Host,
    ) {
        let mut touched = BTreeSet::new();
        for (item, outcome) in batch.items.iter().zip(outcomes) {
            let (Part::Fast(number) | Part::FastStrict(number)) = item.part else { continue };
            touched.insert(number);
            let reply = batch.bytes(&item.reply);
            self.fast_stored(number, item.stream, reply, outcome, host);
        }
        for number in touched {
            self.go_on_fast(number, host);
        }
    }

    fn fast_stored(
        &mut self,
        number: u32,
        stream: StreamId,
        reply: &[u8],
        outcome: &PublishOutcome,
        host: &mut impl Host,
    ) {
        let Some(asked) = parse(reply) else { return };
        let Some(batch) = self.fast.of.get_mut(&number) else {
            if let PublishOutcome::Refused(error) = outcome {
                self.fast_refuse(stream, reply, &api_error(error), host);
            }
            return;
        };
        batch.in_flight = batch.in_flight.saturating_sub(1);
        let is_commit = asked.op == Op::Commit;
        let mut is_duplicate = false;
        match outcome {
            PublishOutcome::Stored { seq, .. } | PublishOutcome::Skipped { seq } => {
                batch.stored = *seq;
            }
            PublishOutcome::Duplicate { seq } => {
                is_duplicate = true;
                if is_commit && asked.seq == 1 {
                    batch.stored = *seq;
                }
            }
            PublishOutcome::Refused(error) => {
                let error = api_error(error);
                let (strict, count) = (batch.strict, asked.seq.saturating_sub(1));
                if strict && asked.seq == 1 {
                    self.fast.end(number);
                    self.remove_fast(number);
                    self.fast_refuse(stream, reply, &error, host);
                    return;
                }
                let mut text = format!("{{\"type\":\"err\",\"seq\":{},\"error\":", asked.seq);
                text.push_str(&String::from_utf8_lossy(&json::encode(&error)));
                text.push('}');
                say(reply, text.as_bytes(), host);
                if strict || is_commit {
                    self.finish_fast(number, reply, count, false, host);
                }
                return;
            }
        }
        batch.done = batch.done.max(asked.seq);
        if is_commit && !is_duplicate {
            self.finish_fast(number, reply, asked.seq, false, host);
            return;
        }
        let active = self.fast.active.get(&stream).copied().unwrap_or(1);
        if batch.is_due(active) {
            say(reply, &batch.answer(), host);
        }
        if is_commit {
            self.finish_fast(number, reply, asked.seq, asked.seq == 1, host);
        }
    }

    /// A batch is no more.
    fn forget_fast(&mut self, key: &(StreamId, Box<[u8]>)) {
        let Some(number) = self.fast.ids.get(key).copied() else { return };
        self.fast.end(number);
        if let Some(batch) = self.remove_fast(number) {
            let bytes = batch.held.iter().map(Held::bytes).sum();
            self.shared.note_batch_bytes(bytes, 0);
        }
    }

    /// A stream takes no fast batches any more.
    pub(in crate::jetstream) fn drop_fast_batches(&mut self, stream: StreamId) {
        let keys = self.fast.ids.keys().filter(|key| key.0 == stream).cloned();
        for key in keys.collect::<Vec<_>>() {
            self.forget_fast(&key);
        }
    }

    /// Forgets batches that nobody goes on with.
    pub(in crate::jetstream) fn fast_timeout(&mut self, now: Now) {
        if self.fast.due.is_none_or(|due| due > now.instant) {
            return;
        }
        let timeout = self.options.limits.batch.timeout;
        let (mut late, mut due) = (Vec::new(), None::<Instant>);
        for (key, number) in &self.fast.ids {
            let Some(batch) = self.fast.of.get(number) else { continue };
            let at = batch.used_at + timeout;
            if at <= now.instant && batch.in_flight == 0 && batch.held.is_empty() {
                late.push(key.clone());
            } else {
                let at = at.max(now.instant + timeout / 4);
                due = Some(due.map_or(at, |due| due.min(at)));
            }
        }
        for key in late {
            self.forget_fast(&key);
        }
        self.fast.due = due;
    }

    pub(in crate::jetstream) fn fast_poll_timeout(&self) -> Option<Instant> {
        self.fast.due
    }
}

impl FastBatches {
    /// No more messages are taken for this batch.
    fn end(&mut self, number: u32) {
        let Some(batch) = self.of.get(&number) else { return };
        let key = (batch.stream, batch.id.clone());
        if self.ids.get(&key) != Some(&number) {
            return;
        }
        self.ids.remove(&key);
        if let Some(active) = self.active.get_mut(&batch.stream) {
            *active -= 1;
            if *active == 0 {
                self.active.remove(&batch.stream);
            }
        }
    }

    fn goes_on(&self, number: u32) -> bool {
        self.of
            .get(&number)
            .is_some_and(|batch| self.ids.get(&(batch.stream, batch.id.clone())) == Some(&number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reply_asks_for_is_judged_as_nats_server_does() {
        for (good, flow, op) in [
            ("in.b.10.fail.1.0.$FI", 10, Op::Start),
            ("in.x.y.b.7.ok.2.1.$FI", 7, Op::Append),
            ("in.b.0.ok.1.2.$FI", FLOW_DEFAULT, Op::Commit),
            ("in.b.x.ok.9.3.$FI", FLOW_DEFAULT, Op::End),
            ("in.b.-1.ok.1.4.$FI", FLOW_DEFAULT, Op::Ping),
        ] {
            let asked = parse(good.as_bytes()).unwrap();
            assert_eq!((asked.id, asked.flow, asked.op), (&b"b"[..], flow, op), "{good}");
        }
        for bad in [
            "in.b.10.fail.1.5.$FI",
            "in.b.10.fail.0.0.$FI",
            "in.b.10.fail.2.0.$FI",
            "in.b.10.fail.1.1.$FI",
            "in.b.10.fail.1.3.$FI",
            "in.b.10.maybe.1.0.$FI",
            "in.b.10.fail.x.0.$FI",
            "in.b.10.fail.1.$FI",
            "b.10.fail.1.0.$FI",
            ".$FI",
        ] {
            assert!(parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }
}
