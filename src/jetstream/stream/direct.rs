//! `DIRECT.GET`: stored messages as messages, one or many.
//!
//! Owns the forms of the request, its status replies, and the course of a batch. Needs
//! `allow_direct`; without it nobody is subscribed and clients get "no responders".
//!
//! A batch reads one chunk after the other, each asked for when the one before has been
//! delivered, so that it holds no more than one in memory.
//!
//! Source: ADR-31; forms and status lines seen from nats-server 2.15.1.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Ordering;

use super::Pending as StreamPending;
use super::api::{GetRequest, Lookup};
use crate::id::StreamId;
use crate::jetstream::host::{Host, Inbound};
use crate::jetstream::json;
use crate::jetstream::storage::{Chunk, GetBy, Seq, StoreReply, StoreRequest, StoredMsg};
use crate::jetstream::{JetStream, Waiting};
use crate::limits;
use crate::proto::headers;
use crate::subject::Filter;
use crate::time::{Now, Timestamp};

const EMPTY: &str = "408 Empty Request";
const MALFORMED: &str = "408 Malformed Request";
const BAD: &str = "408 Bad Request";
const NOT_FOUND: &str = "404 Message Not Found";
const NO_RESULTS: &str = "404 No Results";
const TOO_MANY: &str = "413 Too Many Results";
const LEVEL: &str = "412 Required Api Level";

/// A direct get that waits for the store.
#[derive(Debug)]
pub(crate) struct Pending {
    stream: StreamId,
    reply: Box<[u8]>,
    no_hdr: bool,
    course: Course,
}

/// What it waits for.
#[derive(Debug)]
enum Course {
    /// The message asked for.
    One(Lookup),
    /// Where a batch that names a time begins.
    BatchStart(Batch, Timestamp),
    /// How many messages match.
    BatchCount(Batch),
    /// The next chunk.
    BatchRead(Batch),
    /// Up to where subjects are looked at, when a time says so.
    UpToTime(Multi, Timestamp),
    /// The last message of each subject.
    Last(Multi),
    /// The same, as of an earlier sequence: everything before it has to be read.
    Scan(Multi, BTreeMap<Box<[u8]>, Seq>),
    /// The next of these messages.
    Each(Multi),
}

/// A run of messages.
#[derive(Debug)]
struct Batch {
    from: Seq,
    filters: Arc<[Filter]>,
    left: u64,
    bytes_left: u64,
    pending: u64,
    last_seq: Seq,
}

/// The last message of each of several subjects.
#[derive(Debug)]
struct Multi {
    filters: Arc<[Filter]>,
    from: Seq,
    up_to: Seq,
    left: u64,
    bytes_left: u64,
    last_seq: Seq,
    /// Still to be sent, descending.
    seqs: Vec<Seq>,
}

fn at_most(number: i64, default: u64) -> u64 {
    match number.cmp(&0) {
        Ordering::Less => 0,
        Ordering::Equal => default,
        Ordering::Greater => number.unsigned_abs(),
    }
}

/// Size of a message as `max_bytes` counts it.
fn size(chunk: &Chunk, msg: &StoredMsg) -> u64 {
    let len = |range| chunk.bytes(range).len() as u64;
    len(&msg.subject) + len(&msg.headers) + len(&msg.payload)
}

impl JetStream {
    /// Takes a request on `$JS.API.DIRECT.GET.<stream>` or below.
    pub fn handle_direct_get(
        &mut self,
        now: Now,
        stream: StreamId,
        msg: Inbound<'_>,
        host: &mut impl Host,
    ) {
        self.wall = now.wall;
        if msg.reply.is_empty() || self.waiting.len() >= limits::API_WAITING_MAX {
            return;
        }
        let Some(found) = self.streams.get(&stream) else { return };
        if !found.config.allow_direct {
            return;
        }
        if !json::level_ok(msg.headers) {
            send_status(host, msg.reply, LEVEL, &[]);
            return;
        }
        let prefix = b"$JS.API.DIRECT.GET.".len() + found.name.len();
        let of_subject = msg.subject.get(prefix + 1..).filter(|rest| !rest.is_empty());
        if of_subject.is_none() && msg.payload.is_empty() {
            send_status(host, msg.reply, EMPTY, &[]);
            return;
        }
        let Ok(mut request) = json::decode::<GetRequest>(msg.payload, false) else {
            send_status(host, msg.reply, MALFORMED, &[]);
            return;
        };
        if let Some(subject) = of_subject {
            let alone = !request.is_addressed()
                && request.batch == 0
                && request.max_bytes == 0
                && request.multi_last.is_empty();
            let Ok(text) = core::str::from_utf8(subject) else {
                send_status(host, msg.reply, NOT_FOUND, &[]);
                return;
            };
            if !alone {
                send_status(host, msg.reply, BAD, &[]);
                return;
            }
            request.last_by_subj = text.into();
        }
        match self.direct_course(stream, &request) {
            Ok(course) => {
                let reply = msg.reply.into();
                let pending = Pending { stream, reply, no_hdr: request.no_hdr, course };
                self.ask_direct(pending, host);
            }
            Err(status) => send_status(host, msg.reply, status, &[]),
        }
    }

    /// Which way the request goes, or the status that refuses it.
    fn direct_course(
        &self,
        stream: StreamId,
        request: &GetRequest,
    ) -> Result<Course, &'static str> {
        let bytes_left = at_most(request.max_bytes, limits::DIRECT_BYTES_MAX as u64);
        if !request.multi_last.is_empty() {
            if !request.last_by_subj.is_empty()
                || !request.next_by_subj.is_empty()
                || (request.up_to_seq > 0 && request.up_to_time.is_some())
            {
                return Err(BAD);
            }
            let parsed = request.multi_last.iter();
            let filters: Vec<Filter> =
                parsed.filter_map(|text| Filter::parse(text.as_bytes()).ok()).collect();
            let last = self.streams.get(&stream).map_or(0, |stream| stream.state.last_seq);
            if filters.is_empty() || request.up_to_seq > last {
                return Err(NO_RESULTS);
            }
            let multi = Multi {
                filters: filters.into(),
                from: request.seq,
                up_to: request.up_to_seq,
                left: at_most(request.batch, u64::MAX),
                bytes_left,
                last_seq: 0,
                seqs: Vec::new(),
            };
            return Ok(match (request.up_to_seq, request.up_to_time) {
                (0, None) => Course::Last(multi),
                // The first message after that time ends the view.
                (0, Some(time)) => Course::UpToTime(multi, Timestamp(time.0.saturating_add(1))),
                _ => Course::Scan(multi, BTreeMap::new()),
            });
        }
        if !request.is_addressed() {
            return Err(EMPTY);
        }
        if request.is_ambiguous() || (request.batch != 0 && !request.last_by_subj.is_empty()) {
            return Err(BAD);
        }
        if request.batch == 0 {
            return request.lookup().map(Course::One).ok_or(NOT_FOUND);
        }
        let filters: Vec<Filter> = match &*request.next_by_subj {
            "" => Vec::new(),
            text => [Filter::parse(text.as_bytes()).map_err(|_| NOT_FOUND)?].into(),
        };
        let batch = Batch {
            from: request.seq.max(1),
            filters: filters.into(),
            left: at_most(request.batch, 0),
            bytes_left,
            pending: 0,
            last_seq: 0,
        };
        Ok(match request.start_time {
            Some(time) => Course::BatchStart(batch, time),
            None => Course::BatchCount(batch),
        })
    }

    /// Asks the store for what the course needs next.
    fn ask_direct(&mut self, pending: Pending, host: &mut impl Host) {
        let stream = pending.stream;
        let get = |token, by| StoreRequest::Get { token, stream, by };
        let token =
            |js: &mut Self, pending| js.token(Waiting::Stream(StreamPending::Direct(pending)));
        let request = match &pending.course {
            Course::One(lookup) => {
                let by = lookup.first();
                get(token(self, pending), by)
            }
            Course::BatchStart(_, time) | Course::UpToTime(_, time) => {
                let by = GetBy::StartTime(*time);
                get(token(self, pending), by)
            }
            Course::BatchCount(batch) => {
                let (from, filters) = (batch.from, Arc::clone(&batch.filters));
                StoreRequest::Count { token: token(self, pending), stream, from, filters }
            }
            Course::BatchRead(batch) => {
                let (from, filters) = (batch.from, Arc::clone(&batch.filters));
                let max_msgs = u32::try_from(batch.left).unwrap_or(u32::MAX);
                let token = token(self, pending);
                read(token, stream, from, filters, max_msgs)
            }
            Course::Last(multi) => {
                let filters = Arc::clone(&multi.filters);
                StoreRequest::LastPerSubject { token: token(self, pending), stream, filters }
            }
            Course::Scan(multi, _) => {
                let (from, filters) = (multi.last_seq + 1, Arc::clone(&multi.filters));
                read(token(self, pending), stream, from, filters, u32::MAX)
            }
            Course::Each(multi) => {
                let Some(&seq) = multi.seqs.last() else { return };
                get(token(self, pending), GetBy::Seq(seq))
            }
        };
        self.store(request, host);
    }

    pub(super) fn direct_reply(
        &mut self,
        pending: Pending,
        answer: StoreReply,
        host: &mut impl Host,
    ) {
        let Pending { stream, reply, no_hdr, course } = pending;
        let Some(name) = self.streams.get(&stream).map(|stream| stream.name.clone()) else {
            send_status(host, &reply, NOT_FOUND, &[]);
            return;
        };
        let next = match (course, answer) {
            (Course::One(lookup), StoreReply::Got { msg: Ok(Some(chunk)), .. }) => {
                if let Some(by) = lookup.next(&chunk) {
                    Ok(Course::One(Lookup::Now(by)))
                } else if let Some(msg) = chunk.msgs.first() {
                    send_msg(host, &reply, &name, &chunk, msg, no_hdr, None);
                    return;
                } else {
                    Err(NOT_FOUND)
                }
            }
            (Course::BatchStart(batch, _), StoreReply::Got { msg: Ok(Some(chunk)), .. }) => {
                match chunk.msgs.first() {
                    Some(msg) => Ok(Course::BatchCount(Batch { from: msg.seq, ..batch })),
                    None => Err(NOT_FOUND),
                }
            }
            (Course::BatchCount(batch), StoreReply::Counted { count: Ok(count), .. }) => {
                match count {
                    0 => Err(NOT_FOUND),
                    _ if batch.left == 0 => {
                        end_batch(host, &reply, count, 0, None);
                        return;
                    }
                    _ => Ok(Course::BatchRead(Batch { pending: count, ..batch })),
                }
            }
            (Course::BatchRead(batch), StoreReply::Read { chunk: Ok(chunk), through, .. }) => {
                match send_chunk(host, &reply, &name, batch, &chunk, through, no_hdr) {
                    Some(batch) => Ok(Course::BatchRead(batch)),
                    None => return,
                }
            }
            (Course::UpToTime(mut multi, _), StoreReply::Got { msg: Ok(found), .. }) => {
                let after = found.as_ref().and_then(|chunk| chunk.msgs.first());
                match after {
                    None => Ok(Course::Last(multi)),
                    Some(msg) => {
                        multi.up_to = msg.seq - 1;
                        Ok(Course::Scan(multi, BTreeMap::new()))
                    }
                }
            }
            (
                Course::Last(mut multi),
                StoreReply::LastPerSubject { seqs: Ok(mut seqs), last_seq, .. },
            ) => {
                if seqs.len() > limits::DIRECT_SUBJECTS_MAX {
                    Err(TOO_MANY)
                } else {
                    seqs.retain(|&seq| seq >= multi.from);
                    seqs.reverse();
                    multi.seqs = seqs;
                    multi.up_to = last_seq;
                    each(multi)
                }
            }
            (Course::Scan(multi, found), StoreReply::Read { chunk: Ok(chunk), through, .. }) => {
                scan(multi, found, &chunk, through)
            }
            (Course::Each(mut multi), StoreReply::Got { msg: Ok(found), .. }) => {
                multi.seqs.pop();
                if let Some(chunk) = &found
                    && let Some(msg) = chunk.msgs.first()
                {
                    let place = Some((multi.seqs.len() as u64, multi.last_seq));
                    send_msg(host, &reply, &name, chunk, msg, false, place);
                    multi.last_seq = msg.seq;
                    multi.left = multi.left.saturating_sub(1);
                    multi.bytes_left = multi.bytes_left.saturating_sub(size(chunk, msg));
                }
                if multi.seqs.is_empty() || multi.left == 0 || multi.bytes_left == 0 {
                    let pending = multi.seqs.len() as u64;
                    end_batch(host, &reply, pending, multi.last_seq, Some(multi.up_to));
                    return;
                }
                Ok(Course::Each(multi))
            }
            // Nothing there, or the store failed: a direct get has no words for the latter.
            (Course::Last(_) | Course::Scan(..) | Course::UpToTime(..), _) => Err(NO_RESULTS),
            _ => Err(NOT_FOUND),
        };
        match next {
            Ok(course) => self.ask_direct(Pending { stream, reply, no_hdr, course }, host),
            Err(status) => send_status(host, &reply, status, &[]),
        }
    }
}

fn read(
    token: crate::jetstream::storage::Token,
    stream: StreamId,
    from: Seq,
    filters: Arc<[Filter]>,
    max_msgs: u32,
) -> StoreRequest {
    let max_bytes = u32::try_from(limits::READ_CHUNK_BYTES).unwrap_or(u32::MAX);
    StoreRequest::Read { token, stream, from, filters, max_msgs, max_bytes }
}

/// Begins to send what was found.
fn each(multi: Multi) -> Result<Course, &'static str> {
    if multi.seqs.is_empty() { Err(NO_RESULTS) } else { Ok(Course::Each(multi)) }
}

/// Takes one more chunk into the view of an earlier sequence.
fn scan(
    mut multi: Multi,
    mut found: BTreeMap<Box<[u8]>, Seq>,
    chunk: &Chunk,
    through: Seq,
) -> Result<Course, &'static str> {
    for msg in chunk.msgs.iter().take_while(|msg| msg.seq <= multi.up_to) {
        found.insert(chunk.bytes(&msg.subject).into(), msg.seq);
        if found.len() > limits::DIRECT_SUBJECTS_MAX {
            return Err(TOO_MANY);
        }
    }
    if through < multi.up_to && through > multi.last_seq && !chunk.msgs.is_empty() {
        multi.last_seq = through;
        return Ok(Course::Scan(multi, found));
    }
    multi.last_seq = 0;
    multi.seqs = found.into_values().filter(|&seq| seq >= multi.from).collect();
    multi.seqs.sort_unstable();
    multi.seqs.reverse();
    each(multi)
}

/// Sends a chunk of a batch. `None`: the batch has ended.
fn send_chunk(
    host: &mut impl Host,
    reply: &[u8],
    stream: &str,
    mut batch: Batch,
    chunk: &Chunk,
    through: Seq,
    no_hdr: bool,
) -> Option<Batch> {
    for msg in &chunk.msgs {
        batch.pending = batch.pending.saturating_sub(1);
        let place = Some((batch.pending, batch.last_seq));
        send_msg(host, reply, stream, chunk, msg, no_hdr, place);
        batch.last_seq = msg.seq;
        batch.left = batch.left.saturating_sub(1);
        batch.bytes_left = batch.bytes_left.saturating_sub(size(chunk, msg));
        if batch.left == 0 || batch.bytes_left == 0 {
            break;
        }
    }
    if batch.left == 0 || batch.bytes_left == 0 || batch.pending == 0 || chunk.msgs.is_empty() {
        end_batch(host, reply, batch.pending, batch.last_seq, None);
        return None;
    }
    batch.from = through.max(batch.last_seq).saturating_add(1);
    Some(batch)
}

fn end_batch(host: &mut impl Host, reply: &[u8], pending: u64, last_seq: Seq, up_to: Option<Seq>) {
    let mut numbers = [itoa::Buffer::new(), itoa::Buffer::new(), itoa::Buffer::new()];
    let [a, b, c] = &mut numbers;
    let mut lines = Vec::from([
        ("Nats-Num-Pending", a.format(pending).as_bytes()),
        ("Nats-Last-Sequence", b.format(last_seq).as_bytes()),
    ]);
    if let Some(up_to) = up_to {
        lines.push(("Nats-UpTo-Sequence", c.format(up_to).as_bytes()));
    }
    send_status(host, reply, "204 EOB", &lines);
}

fn send_status(host: &mut impl Host, reply: &[u8], status: &str, lines: &[(&str, &[u8])]) {
    let mut block = Vec::with_capacity(96);
    headers::write_status(&mut block, status, lines);
    host.deliver(reply, reply, b"", &block, b"");
}

/// Sends one message. `place`: what is pending after it, and the sequence before it.
fn send_msg(
    host: &mut impl Host,
    reply: &[u8],
    stream: &str,
    chunk: &Chunk,
    msg: &StoredMsg,
    no_hdr: bool,
    place: Option<(u64, Seq)>,
) {
    let mut block = Vec::new();
    if !no_hdr {
        let stored = chunk.bytes(&msg.headers);
        block.reserve(stored.len() + 160);
        // Ours follow the stored ones, ahead of the final blank line.
        match stored.strip_suffix(b"\r\n") {
            Some(lines) => block.extend_from_slice(lines),
            None => block.extend_from_slice(b"NATS/1.0\r\n"),
        }
        let mut number = itoa::Buffer::new();
        let mut line = |name: &str, value: &[u8]| {
            block.extend_from_slice(name.as_bytes());
            block.extend_from_slice(b": ");
            block.extend_from_slice(value);
            block.extend_from_slice(b"\r\n");
        };
        line("Nats-Stream", stream.as_bytes());
        line("Nats-Subject", chunk.bytes(&msg.subject));
        line("Nats-Sequence", number.format(msg.seq).as_bytes());
        line("Nats-Time-Stamp", msg.timestamp.rfc3339().as_bytes());
        if let Some((pending, last_seq)) = place {
            line("Nats-Num-Pending", number.format(pending).as_bytes());
            line("Nats-Last-Sequence", number.format(last_seq).as_bytes());
        }
        block.extend_from_slice(b"\r\n");
    }
    host.deliver(reply, reply, b"", &block, chunk.bytes(&msg.payload));
}
