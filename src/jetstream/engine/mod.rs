//! The engine: applies store requests to ordered tables.
//!
//! Owns what a stream's messages look like in rows, and every rule about them: the checks
//! of a publish, sequences, limits, purges, dedupe, the subject index, reads. Does not own
//! where rows are kept ([`rows`]), threads, or durability (`store`).
//!
//! One call of [`apply`] is one commit: it loads what the requests touch, works in memory,
//! and writes each touched row once at its end. Between commits nothing stays in memory.
//!
//! # Invariants
//! - [`apply`] either returns an answer for every request or an error; after an error the
//!   rows must be rolled back.
//! - Same rows and same requests give the same rows and the same answers.
//! - No panic, whatever the rows hold.

mod block;
mod counter;
mod cron;
mod group;
mod headers;
mod ids;
mod keys;
mod mem;
mod publish;
mod read;
mod record;
mod remove;
mod restore;
pub mod rows;
mod schedule;
mod tail;
pub(crate) mod varint;
mod work;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;

pub use headers::stored_headers;
#[cfg(feature = "server")]
pub(crate) use keys::JOURNAL;
pub use mem::MemStore;
pub use read::{answer, is_read};
use rows::{AnyRows, AnyRowsMut, Rows, RowsMut, Table};
use work::Work;

use super::storage::{
    Part, PublishBatch, PublishError, PublishItem, PublishOutcome, StoreError, StoreReply,
    StoreRequest, StreamSettings, StreamState, StreamUpdate, Token,
};
use crate::id::StreamId;

/// How to apply requests.
#[derive(Clone, Debug, Default)]
pub struct ApplyOptions {
    /// With relaxed sync: how many sequences of a stream to set aside before replies may
    /// name them.
    pub reserve: Option<u64>,
    /// Streams that cannot be worked on, with the reason: what is asked of them is refused.
    pub broken: BTreeMap<StreamId, StoreError>,
}

/// What [`apply`] did.
#[derive(Debug)]
pub struct Applied {
    /// One for each request; `None` for those that get no reply.
    pub answers: Vec<Option<Answer>>,
    /// The commit must be durable before its replies leave, also with relaxed sync.
    pub must_sync: bool,
}

/// A reply, short of the batch of a publish.
#[derive(Debug)]
pub enum Answer {
    /// Complete.
    Reply(StoreReply),
    /// To a publish; [`replies`] adds the batch.
    Published(Vec<PublishOutcome>, Vec<StreamUpdate>),
}

/// Why [`apply`] failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplyError {
    /// The stream at which it did, if it is one stream's trouble: list it in
    /// [`ApplyOptions::broken`] to go on without it.
    pub stream: Option<StreamId>,
    /// What happened.
    pub error: StoreError,
}

impl From<StoreError> for ApplyError {
    fn from(error: StoreError) -> Self {
        Self { stream: None, error }
    }
}

/// Reads what there is, for [`StoreReply::Recovered`].
pub fn recover(rows: &impl Rows) -> Result<StoreReply, StoreError> {
    let rows: AnyRows<'_> = rows;
    read::recover(&rows)
}

/// Did an unclean end leave sequences that replies may have named?
pub fn has_reserved(rows: &impl Rows) -> Result<bool, StoreError> {
    let rows: &AnyRows<'_> = &(rows as _);
    let StoreReply::Recovered { streams, .. } = read::recover(rows)? else { return Ok(false) };
    for found in streams {
        if read::head(rows, found.stream)?.is_some_and(|head| head.reserved > 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Sequences that replies may have named before a crash are used up, as if their messages
/// had been removed; call it before anything else is applied. Returns whether it changed
/// anything.
pub fn settle_reserved(rows: &mut impl RowsMut, clean: bool) -> Result<bool, StoreError> {
    let rows: &mut AnyRowsMut<'_> = &mut (rows as _);
    let StoreReply::Recovered { streams, .. } = read::recover(rows)? else { return Ok(false) };
    let mut changed = false;
    for found in streams {
        let Some(mut work) = Work::load(rows, found.stream)? else { continue };
        if work.head.reserved == 0 {
            continue;
        }
        if !clean && work.head.reserved > work.head.last_seq {
            work.head.last_seq = work.head.reserved;
            if work.head.messages == 0 {
                work.head.first_seq = work.head.last_seq.saturating_add(1);
            }
        }
        work.head.reserved = 0;
        work.head_dirty = true;
        work.finish(rows, None)?;
        changed = true;
    }
    Ok(changed)
}

/// The streams of one commit.
struct Commit<'r, 'o, 'w> {
    rows: &'o mut AnyRowsMut<'w>,
    options: &'o ApplyOptions,
    /// `None`: there is no such stream.
    works: BTreeMap<StreamId, Option<Work<'r>>>,
    /// The commit must be durable before its replies leave.
    must_sync: bool,
}

/// Applies requests, in order, as one commit. Reads among them are answered too, from the
/// state before the commit.
pub fn apply(
    rows: &mut impl RowsMut,
    requests: &[StoreRequest],
    options: &ApplyOptions,
) -> Result<Applied, ApplyError> {
    let rows: &mut AnyRowsMut<'_> = &mut (rows as _);
    let mut commit = Commit { rows, options, works: BTreeMap::new(), must_sync: false };
    let mut answers = Vec::with_capacity(requests.len());
    for request in requests {
        answers.push(commit.handle(request)?);
    }
    // Streams come and go rarely. One that JetStream knows and a crash or a failing disk made
    // the store forget would refuse every message.
    let streams_changed = requests.iter().any(|request| {
        matches!(
            request,
            StoreRequest::CreateStream { .. }
                | StoreRequest::UpdateStream { .. }
                | StoreRequest::DeleteStream { .. }
        )
    });
    let mut must_sync = commit.must_sync || streams_changed;
    for (stream, work) in commit.works {
        let Some(mut work) = work else { continue };
        let done = work.finish(commit.rows, options.reserve);
        must_sync |= done.map_err(|error| ApplyError { stream: Some(stream), error })?;
    }
    Ok(Applied { answers, must_sync })
}

/// Puts requests and answers together into replies.
pub fn replies(requests: Vec<StoreRequest>, applied: Applied) -> Vec<StoreReply> {
    let pairs = requests.into_iter().zip(applied.answers);
    pairs
        .filter_map(|pair| match pair {
            (StoreRequest::Publish(batch), Some(Answer::Published(outcomes, updates))) => {
                Some(StoreReply::Published { batch, outcomes, updates })
            }
            (_, Some(Answer::Reply(reply))) => Some(reply),
            (_, Some(Answer::Published(..)) | None) => None,
        })
        .collect()
}

/// The replies to requests of which nothing was done.
pub fn refuse(requests: Vec<StoreRequest>, error: &StoreError) -> Vec<StoreReply> {
    requests.into_iter().filter_map(|request| refuse_one(request, error)).collect()
}

fn refuse_one(request: StoreRequest, error: &StoreError) -> Option<StoreReply> {
    let done =
        |token| StoreReply::Done { token, found: false, result: Err(error.clone()), update: None };
    Some(match request {
        StoreRequest::CreateStream { token, .. }
        | StoreRequest::UpdateStream { token, .. }
        | StoreRequest::DeleteStream { token, .. }
        | StoreRequest::DeleteMsg { token, .. }
        | StoreRequest::Settle { token, .. }
        | StoreRequest::Restore { token, .. }
        | StoreRequest::PutConsumer { token: Some(token), .. } => done(token),
        StoreRequest::Publish(batch) => {
            let refused = PublishError::StoreFailed(error.text.clone());
            let outcome = PublishOutcome::Refused(Box::new(refused));
            let outcomes = alloc::vec![outcome; batch.items.len()];
            StoreReply::Published { batch, outcomes, updates: Vec::new() }
        }
        StoreRequest::Purge { token, .. } => {
            StoreReply::Purged { token, result: Err(error.clone()), update: None }
        }
        StoreRequest::PutConsumer { token: None, .. }
        | StoreRequest::DeleteConsumer { .. }
        // Whoever asked asks again by its timer.
        | StoreRequest::Expire { .. } => return None,
        StoreRequest::Read { token, .. } => {
            StoreReply::Read { token, chunk: Err(error.clone()), through: 0 }
        }
        StoreRequest::Get { token, .. } => StoreReply::Got { token, msg: Err(error.clone()) },
        StoreRequest::Count { token, .. } => {
            StoreReply::Counted { token, count: Err(error.clone()), last_seq: 0 }
        }
        StoreRequest::LastPerSubject { token, .. } => {
            StoreReply::LastPerSubject { token, seqs: Err(error.clone()), last_seq: 0 }
        }
        StoreRequest::Subjects { token, .. } => {
            StoreReply::Subjects { token, subjects: Err(error.clone()), total: 0 }
        }
        StoreRequest::Deleted { token, .. } => {
            StoreReply::Deleted { token, seqs: Err(error.clone()) }
        }
    })
}

fn done(
    token: Token,
    found: bool,
    result: Result<(), StoreError>,
    update: Option<StreamUpdate>,
) -> Answer {
    Answer::Reply(StoreReply::Done { token, found, result, update })
}

fn sealed() -> StoreError {
    StoreError { text: format!("{}", PublishError::Sealed) }
}

impl<'r, 'w> Commit<'r, '_, 'w> {
    /// The stream in work, loaded if it is the first time. `None` if there is none.
    fn work(&mut self, stream: StreamId) -> Result<Option<&mut Work<'r>>, StoreError> {
        if let Some(error) = self.options.broken.get(&stream) {
            return Err(error.clone());
        }
        let slot = match self.works.entry(stream) {
            alloc::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            alloc::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(Work::load(self.rows, stream)?)
            }
        };
        Ok(slot.as_mut())
    }

    fn handle(&mut self, request: &'r StoreRequest) -> Result<Option<Answer>, ApplyError> {
        if let StoreRequest::Publish(batch) = request {
            return self.publish(batch).map(Some);
        }
        let stream = stream_of(request);
        if let Some(error) = stream.and_then(|stream| self.options.broken.get(&stream))
            && !matches!(request, StoreRequest::DeleteStream { .. })
        {
            return Ok(refuse_one(request.clone(), error).map(Answer::Reply));
        }
        self.handle_other(request).map_err(|error| ApplyError { stream, error })
    }

    fn handle_other(&mut self, request: &'r StoreRequest) -> Result<Option<Answer>, StoreError> {
        Ok(match request {
            StoreRequest::Publish(_) => None,
            StoreRequest::CreateStream { token, stream, settings, record } => {
                self.create(*token, *stream, settings, record)?
            }
            StoreRequest::UpdateStream { token, stream, settings, record } => {
                let (token, stream) = (*token, *stream);
                let Some(work) = self.work(stream)? else {
                    return Ok(Some(done(token, false, Ok(()), None)));
                };
                let tighter = settings.max_msgs_per_subject != work.settings.max_msgs_per_subject;
                work.settings = settings.clone();
                if tighter {
                    self.with(stream, |work, rows| remove::enforce_per_subject(work, rows))?;
                }
                let update = self.with(stream, |work, rows| {
                    remove::enforce_totals(work, rows)?;
                    work.write_settings(rows)?;
                    Ok(work.update())
                })?;
                self.rows.put(Table::Hot, &keys::hot(stream, keys::Kind::Config), record)?;
                Some(done(token, true, Ok(()), update))
            }
            StoreRequest::DeleteStream { token, stream } => {
                let found = read::head(self.rows, *stream)?.is_some()
                    || self.works.get(stream).is_some_and(Option::is_some);
                self.works.insert(*stream, None);
                let (start, end) = (keys::start(*stream), keys::end(*stream));
                for table in [Table::Blocks, Table::Deleted, Table::Ids, Table::Subjects] {
                    self.rows.remove_range(table, &start, &end)?;
                }
                let (start, end) = keys::hot_stream(*stream);
                self.rows.remove_range(Table::Hot, &start, &end)?;
                Some(done(*token, found, Ok(()), None))
            }
            StoreRequest::Purge { token, stream, purge } => {
                let (token, stream) = (*token, *stream);
                let is_sealed = self.work(stream)?.is_some_and(|work| work.settings.sealed);
                let purged = if is_sealed {
                    None
                } else {
                    self.with(stream, |work, rows| {
                        Ok((remove::purge(work, rows, purge)?, work.update()))
                    })?
                };
                let (result, update) = match purged {
                    _ if is_sealed => (Err(sealed()), None),
                    Some((count, update)) => (Ok(count), Some(update)),
                    None => (Ok(0), None),
                };
                Some(Answer::Reply(StoreReply::Purged { token, result, update }))
            }
            StoreRequest::DeleteMsg { token, stream, seq, erase } => {
                let (token, stream) = (*token, *stream);
                if self.work(stream)?.is_some_and(|work| work.settings.sealed) {
                    return Ok(Some(done(token, false, Err(sealed()), None)));
                }
                let deleted = self.with(stream, |work, rows| {
                    Ok((remove::delete(work, rows, *seq, *erase)?, work.update()))
                })?;
                match deleted {
                    Some((found, update)) => Some(done(token, found, Ok(()), Some(update))),
                    None => Some(done(token, false, Ok(()), None)),
                }
            }
            StoreRequest::Expire { stream, now } => {
                let done = self.with(*stream, |work, rows| {
                    let markers = remove::expire(work, rows, *now)?;
                    Ok((markers, work.update()))
                })?;
                let (markers, update) = done.unwrap_or_else(|| {
                    let (state, removed) = <(StreamState, super::storage::Removed)>::default();
                    (remove::Markers::default(), StreamUpdate { stream: *stream, state, removed })
                });
                let remove::Markers { chunk: stored, before } = markers;
                Some(Answer::Reply(StoreReply::Expired { update, stored, before }))
            }
            StoreRequest::Settle { token, stream, seqs } => {
                let update = self.with(*stream, |work, rows| {
                    for seq in seqs.iter() {
                        if *seq == work.head.first_seq {
                            work.remove_first(rows)?;
                        } else {
                            work.remove(rows, *seq)?;
                        }
                    }
                    Ok(work.update())
                })?;
                Some(done(*token, update.is_some(), Ok(()), update))
            }
            StoreRequest::Restore { token, stream, chunk, last } => {
                let (token, stream) = (*token, *stream);
                let update = self.with(stream, |work, rows| {
                    restore::append(work, rows, chunk, *last)?;
                    Ok(work.update())
                })?;
                Some(done(token, update.is_some(), Ok(()), update))
            }
            StoreRequest::PutConsumer { token, stream, consumer } => {
                let found = self.work(*stream)?.is_some();
                if found {
                    let key = keys::consumer(*stream, &consumer.name);
                    // A consumer that was announced must not be gone after a crash: a hub
                    // would find out by a timeout.
                    if token.is_some() && self.rows.get(Table::Hot, &key, |_| ())?.is_none() {
                        self.must_sync = true;
                    }
                    self.rows.put(Table::Hot, &key, &consumer.record)?;
                }
                token.map(|token| done(token, found, Ok(()), None))
            }
            StoreRequest::DeleteConsumer { stream, name } => {
                self.rows.remove(Table::Hot, &keys::consumer(*stream, name))?;
                None
            }
            StoreRequest::Read { .. }
            | StoreRequest::Get { .. }
            | StoreRequest::Count { .. }
            | StoreRequest::LastPerSubject { .. }
            | StoreRequest::Subjects { .. }
            | StoreRequest::Deleted { .. } => {
                // After the changes before it, as in a store without a second thread.
                if let Some(stream) = stream_of(request) {
                    self.with(stream, |work, rows| {
                        work.finish(rows, None)?;
                        Ok(())
                    })?;
                }
                read::answer(self.rows, request).map(Answer::Reply)
            }
        })
    }

    /// Runs `change` on a stream and the rows. `None` if there is no such stream.
    fn with<T>(
        &mut self,
        stream: StreamId,
        change: impl FnOnce(&mut Work<'r>, &mut AnyRowsMut<'w>) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        self.work(stream)?;
        let Some(Some(work)) = self.works.get_mut(&stream) else { return Ok(None) };
        change(work, self.rows).map(Some)
    }

    fn create(
        &mut self,
        token: Token,
        stream: StreamId,
        settings: &StreamSettings,
        record: &[u8],
    ) -> Result<Option<Answer>, StoreError> {
        if self.work(stream)?.is_some() {
            let text = format!("stream #{} exists already", stream.0);
            return Ok(Some(done(token, true, Err(StoreError { text }), None)));
        }
        let mut work = Work::create(stream, settings.clone());
        work.write_settings(self.rows)?;
        self.rows.put(Table::Hot, &keys::hot(stream, keys::Kind::Config), record)?;
        let mut meta = read::meta(self.rows)?;
        let above = stream.0.saturating_add(1);
        if meta.next_stream < above {
            meta.next_stream = above;
            let mut bytes = Vec::new();
            record::encode(&mut bytes, &meta)?;
            self.rows.put(Table::Hot, keys::META, &bytes)?;
        }
        let update = work.update();
        self.works.insert(stream, Some(work));
        Ok(Some(done(token, false, Ok(()), Some(update))))
    }

    fn publish(&mut self, batch: &'r PublishBatch) -> Result<Answer, ApplyError> {
        let mut outcomes = Vec::with_capacity(batch.items.len());
        let mut touched = BTreeSet::new();
        // Fast batches that have ended.
        let mut ended = BTreeSet::new();
        for (index, item) in batch.items.iter().enumerate() {
            let refused = |error| PublishOutcome::Refused(Box::new(error));
            match item.part {
                Part::Alone | Part::Fast(_) => {}
                // Done with the first of its batch.
                Part::Atomic | Part::AtomicLast if outcomes.len() > index => continue,
                Part::Atomic | Part::AtomicLast => {
                    let items = group::items(batch.items.get(index..).unwrap_or_default());
                    if self.publish_group(batch, items, &mut outcomes)? {
                        touched.insert(item.stream);
                    }
                    continue;
                }
                Part::FastStrict(number) => {
                    if ended.contains(&number) {
                        outcomes.push(refused(PublishError::BatchUnknown));
                        continue;
                    }
                }
            }
            if let Some(error) = self.options.broken.get(&item.stream) {
                outcomes.push(refused(PublishError::StoreFailed(error.text.clone())));
                continue;
            }
            let outcome = self
                .with(item.stream, |work, rows| publish::publish(work, rows, batch, item))
                .map_err(|error| ApplyError { stream: Some(item.stream), error })?;
            let is_news = |outcome: &_| {
                matches!(outcome, PublishOutcome::Stored { .. } | PublishOutcome::Skipped { .. })
            };
            if outcome.as_ref().is_some_and(is_news) {
                touched.insert(item.stream);
            }
            let outcome = outcome.unwrap_or_else(|| refused(PublishError::NoStream));
            if let (Part::FastStrict(number), PublishOutcome::Refused(_)) = (item.part, &outcome) {
                ended.insert(number);
            }
            outcomes.push(outcome);
        }
        let mut updates = Vec::with_capacity(touched.len());
        for stream in touched {
            if let Some(Some(work)) = self.works.get_mut(&stream) {
                updates.push(work.update());
            }
        }
        Ok(Answer::Published(outcomes, updates))
    }

    /// Stores an atomic batch or refuses it, with one outcome for each item. Was it stored?
    fn publish_group(
        &mut self,
        batch: &'r PublishBatch,
        items: &'r [PublishItem],
        outcomes: &mut Vec<PublishOutcome>,
    ) -> Result<bool, ApplyError> {
        let Some(stream) = items.first().map(|item| item.stream) else { return Ok(false) };
        let refused = match self.options.broken.get(&stream) {
            Some(error) => PublishError::StoreFailed(error.text.clone()),
            None => {
                let done = self
                    .with(stream, |work, rows| group::publish(work, rows, batch, items))
                    .map_err(|error| ApplyError { stream: Some(stream), error })?;
                match done {
                    Some(Ok(stored)) => {
                        outcomes.extend(stored);
                        return Ok(true);
                    }
                    Some(Err(error)) => error,
                    None => PublishError::NoStream,
                }
            }
        };
        let refused = PublishOutcome::Refused(Box::new(refused));
        outcomes.extend(items.iter().map(|_| refused.clone()));
        Ok(false)
    }
}

/// The stream a request is about, if it is one.
fn stream_of(request: &StoreRequest) -> Option<StreamId> {
    match request {
        StoreRequest::Publish(_) => None,
        StoreRequest::CreateStream { stream, .. }
        | StoreRequest::UpdateStream { stream, .. }
        | StoreRequest::DeleteStream { stream, .. }
        | StoreRequest::Purge { stream, .. }
        | StoreRequest::DeleteMsg { stream, .. }
        | StoreRequest::Settle { stream, .. }
        | StoreRequest::Expire { stream, .. }
        | StoreRequest::Restore { stream, .. }
        | StoreRequest::PutConsumer { stream, .. }
        | StoreRequest::DeleteConsumer { stream, .. }
        | StoreRequest::Read { stream, .. }
        | StoreRequest::Get { stream, .. }
        | StoreRequest::Count { stream, .. }
        | StoreRequest::LastPerSubject { stream, .. }
        | StoreRequest::Subjects { stream, .. }
        | StoreRequest::Deleted { stream, .. } => Some(*stream),
    }
}
