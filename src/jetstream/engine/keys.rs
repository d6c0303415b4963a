//! Keys of the rows, see `docs/storage-format.md`.
//!
//! # Invariants
//! - Numbers in keys are big-endian, so that byte order is number order.

use alloc::vec::Vec;

use crate::id::StreamId;
use crate::jetstream::storage::Seq;

/// Hot: the store's own record.
pub(super) const META: &[u8] = &[0];

const STREAM: u8 = 1;

/// Hot: which entries of the journal the database holds.
#[cfg(feature = "server")]
pub(crate) const JOURNAL: &[u8] = &[2];

/// Hot: which row of a stream. Head and tail are neighbours, so that they share a page.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Settings = 1,
    Config = 2,
    Head = 3,
    Tail = 4,
    Consumer = 5,
    Dues = 6,
    Origin = 7,
}

/// Hot: a row of which each stream has one.
pub(super) fn hot(stream: StreamId, kind: Kind) -> [u8; 6] {
    let [a, b, c, d] = stream.0.to_be_bytes();
    [STREAM, a, b, c, d, kind as u8]
}

/// Hot: a consumer's record.
pub(super) fn consumer(stream: StreamId, name: &str) -> Vec<u8> {
    let mut key = hot(stream, Kind::Consumer).to_vec();
    key.extend_from_slice(name.as_bytes());
    key
}

/// Hot: how far a source was taken in.
pub(super) fn origin(stream: StreamId, name: &str) -> Vec<u8> {
    let mut key = hot(stream, Kind::Origin).to_vec();
    key.extend_from_slice(name.as_bytes());
    key
}

/// Hot: the range of a stream's consumers, or of its sources.
pub(super) fn hot_named(stream: StreamId, kind: Kind) -> ([u8; 6], [u8; 6]) {
    let from = hot(stream, kind);
    let mut to = from;
    to[5] += 1;
    (from, to)
}

/// Hot: the range of all streams.
pub(super) fn hot_streams() -> ([u8; 1], [u8; 1]) {
    ([STREAM], [STREAM + 1])
}

/// Hot: the range of a whole stream.
pub(super) fn hot_stream(stream: StreamId) -> ([u8; 6], [u8; 6]) {
    let mut from = hot(stream, Kind::Settings);
    from[5] = 0;
    let mut to = from;
    to[5] = u8::MAX;
    (from, to)
}

/// The stream and kind of a Hot key.
pub(super) fn parse_hot(key: &[u8]) -> Option<(StreamId, u8)> {
    match key {
        [STREAM, a, b, c, d, kind, ..] => {
            Some((StreamId(u32::from_be_bytes([*a, *b, *c, *d])), *kind))
        }
        _ => None,
    }
}

/// Blocks and Deleted: by the stream and a sequence at or below the block's first.
pub(super) fn block(stream: StreamId, seq: Seq) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&stream.0.to_be_bytes());
    key[4..].copy_from_slice(&seq.to_be_bytes());
    key
}

/// The sequence in a block's key.
pub(super) fn parse_block(key: &[u8]) -> Option<Seq> {
    Some(Seq::from_be_bytes(key.get(4..12)?.try_into().ok()?))
}

/// The first key past everything of a stream in any table but Hot.
pub(super) fn end(stream: StreamId) -> Vec<u8> {
    let mut key = stream.0.to_be_bytes().to_vec();
    // The highest id has no successor; five bytes of ones sort behind all its keys but those
    // that begin with ones themselves, and no stream ever gets that id.
    match stream.0.checked_add(1) {
        Some(next) => key.copy_from_slice(&next.to_be_bytes()),
        None => key.extend_from_slice(&[u8::MAX; 9]),
    }
    key
}

/// The first key of a stream in any table but Hot.
pub(super) fn start(stream: StreamId) -> [u8; 4] {
    stream.0.to_be_bytes()
}

/// Subjects.
pub(super) fn subject(stream: StreamId, subject: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(4 + subject.len());
    key.extend_from_slice(&stream.0.to_be_bytes());
    key.extend_from_slice(subject);
    key
}

/// Ids: which sequence a message id has.
const BY_ID: u8 = 1;
/// Ids: which ids to forget, by time.
const BY_SEQ: u8 = 0;

/// Ids: when a message's own time is up.
const BY_DUE: u8 = 2;

/// Ids: what is due, by time.
pub(super) fn due(stream: StreamId, at: i64, seq: Seq) -> [u8; 21] {
    let mut key = [BY_DUE; 21];
    key[..4].copy_from_slice(&stream.0.to_be_bytes());
    key[5..13].copy_from_slice(&at.max(0).to_be_bytes());
    key[13..].copy_from_slice(&seq.to_be_bytes());
    key
}

/// The time and the sequence in a key of what is due.
pub(super) fn parse_due(key: &[u8]) -> Option<(i64, Seq)> {
    let at = i64::from_be_bytes(key.get(5..13)?.try_into().ok()?);
    Some((at, Seq::from_be_bytes(key.get(13..21)?.try_into().ok()?)))
}

/// Ids: one message id.
pub(super) fn id(stream: StreamId, id: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(5 + id.len());
    key.extend_from_slice(&stream.0.to_be_bytes());
    key.push(BY_ID);
    key.extend_from_slice(id);
    key
}

/// Ids: those of one commit, by its first sequence.
pub(super) fn id_batch(stream: StreamId, seq: Seq) -> [u8; 13] {
    let mut key = [BY_SEQ; 13];
    key[..4].copy_from_slice(&stream.0.to_be_bytes());
    key[5..].copy_from_slice(&seq.to_be_bytes());
    key
}
