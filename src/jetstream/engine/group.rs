//! Storing an atomic batch: all of its messages, or none.
//!
//! Owns what its messages may ask of the stream and of each other. Does not own how one is
//! checked and kept ([`super::publish`]), nor batches that are not whole yet
//! (`jetstream::stream::batch`).
//!
//! # Invariants
//! - Every message is checked before the first is stored; what is stored is of one commit.
//!
//! Source: ADR-50; order and texts seen from nats-server 2.15.1.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::publish::{self, Verdict};
use super::rows::RowsMut;
use super::work::Work;
use crate::jetstream::storage::{
    Part, PublishBatch, PublishError, PublishItem, PublishOutcome, StoreError,
};

/// What the messages before one ask for.
#[derive(Debug, Default)]
pub(super) struct Group<'r> {
    pub messages: u64,
    pub bytes: u64,
    /// How many on each subject.
    subjects: BTreeMap<&'r [u8], u64>,
    ids: BTreeSet<&'r [u8]>,
}

impl<'r> Group<'r> {
    /// How many messages it has on this subject.
    pub(super) fn on_subject(&self, subject: &[u8]) -> u64 {
        self.subjects.get(subject).copied().unwrap_or(0)
    }

    /// Remembers a message id; false if it has been in the batch before.
    pub(super) fn is_new_id(&mut self, id: &'r [u8]) -> bool {
        self.ids.insert(id)
    }

    fn add(&mut self, subject: &'r [u8], size: u64) {
        self.messages += 1;
        self.bytes = self.bytes.saturating_add(size);
        *self.subjects.entry(subject).or_default() += 1;
    }
}

/// The items of the batch that begins here.
pub(super) fn items(items: &[PublishItem]) -> &[PublishItem] {
    let last = items.iter().position(|item| item.part != Part::Atomic);
    let len = match last {
        Some(last) if items.get(last).is_some_and(|item| item.part == Part::AtomicLast) => last + 1,
        Some(last) => last.max(1),
        None => items.len(),
    };
    items.get(..len).unwrap_or_default()
}

/// Checks a whole batch and stores it, with an outcome for each message; or says why not.
pub(super) fn publish<'r>(
    work: &mut Work<'r>,
    rows: &mut impl RowsMut,
    batch: &'r PublishBatch,
    items: &'r [PublishItem],
) -> Result<Result<Vec<PublishOutcome>, PublishError>, StoreError> {
    let is_whole = items.last().is_some_and(|item| item.part == Part::AtomicLast)
        && items.iter().all(|item| item.stream == work.stream);
    if !is_whole {
        return Ok(Err(PublishError::BatchIncomplete));
    }
    let mut group = Group::default();
    let mut ready = Vec::with_capacity(items.len());
    for item in items {
        match publish::prepare(work, rows, batch, item, Some(&mut group)) {
            Ok(one) => {
                group.add(batch.bytes(&item.subject), one.size());
                ready.push((item, one));
            }
            Err(Verdict::Duplicate(_)) => return Ok(Err(PublishError::BatchMsgId)),
            Err(Verdict::Refused(error)) => return Ok(Err(error)),
            Err(Verdict::Failed(error)) => return Err(error),
        }
    }
    let mut outcomes = Vec::with_capacity(items.len());
    for (item, one) in ready {
        outcomes.push(publish::keep(work, rows, batch, item, one)?);
    }
    Ok(Ok(outcomes))
}
