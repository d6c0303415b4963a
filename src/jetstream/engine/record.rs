//! Records: what a row other than a block holds.
//!
//! Owns their bytes: postcard behind a version byte, see `docs/storage-format.md`.
//!
//! # Invariants
//! - A record of an unknown version is an error, never a guess.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::jetstream::storage::{Schedules, Seq, StoreError, StreamSettings};
use crate::time::{Duration, Timestamp, nanos};

/// Version byte of every record here.
const VERSION: u8 = 1;
/// Of settings with [`MoreSettings`].
const SETTINGS_VERSION: u8 = 2;
/// Of settings with [`MoreSettings`] and the subjects of a stream with schedules.
const SCHEDULES_VERSION: u8 = 3;

/// Writes `record` into `out`, replacing what was there.
pub(super) fn encode(out: &mut Vec<u8>, record: &impl Serialize) -> Result<(), StoreError> {
    out.clear();
    out.push(VERSION);
    let bytes = core::mem::take(out);
    *out = postcard::to_extend(record, bytes)
        .map_err(|error| StoreError { text: format!("record cannot be written: {error}") })?;
    Ok(())
}

/// Reads a record called `what` in errors.
pub(super) fn decode<R: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<R, StoreError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => postcard::from_bytes(rest)
            .map_err(|error| StoreError { text: format!("{what} is damaged: {error}") }),
        Some((version, _)) => Err(StoreError {
            text: format!("{what} has version {version}; this program knows version {VERSION}"),
        }),
        None => Err(StoreError { text: format!("{what} is empty") }),
    }
}

/// The store's own record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    /// Above every stream id ever used.
    pub next_stream: u32,
}

/// [`StreamSettings`] as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SettingsRecord {
    name: String,
    max_msgs: Option<u64>,
    max_bytes: Option<u64>,
    max_msgs_per_subject: Option<u64>,
    max_msg_size: Option<u64>,
    max_age_ns: Option<u64>,
    duplicate_window_ns: u64,
    first_seq: Seq,
    discard_new: bool,
    discard_new_per_subject: bool,
    allow_rollup: bool,
    sealed: bool,
    memory: bool,
}

/// What settings have besides, where it is in use: version 2.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MoreSettings {
    allow_ttl: bool,
    marker_ttl_ns: u64,
    counter: bool,
}

/// Settings, in the oldest version that can hold them.
pub(super) fn encode_settings(
    out: &mut Vec<u8>,
    settings: &StreamSettings,
) -> Result<(), StoreError> {
    let more = MoreSettings {
        allow_ttl: settings.allow_ttl,
        marker_ttl_ns: nanos(settings.marker_ttl),
        counter: settings.counter,
    };
    let plain = SettingsRecord::from(settings);
    if let Some(schedules) = &settings.schedules {
        encode(out, &(plain, more, &schedules.subjects))?;
        if let Some(version) = out.first_mut() {
            *version = SCHEDULES_VERSION;
        }
        return Ok(());
    }
    if more == MoreSettings::default() {
        return encode(out, &plain);
    }
    encode(out, &(plain, more))?;
    if let Some(version) = out.first_mut() {
        *version = SETTINGS_VERSION;
    }
    Ok(())
}

pub(super) fn decode_settings(bytes: &[u8]) -> Result<StreamSettings, StoreError> {
    const WHAT: &str = "stream settings";
    let damaged = |error| StoreError { text: format!("{WHAT} is damaged: {error}") };
    let mut subjects = None;
    let (plain, more): (SettingsRecord, MoreSettings) = match bytes.split_first() {
        Some((&SETTINGS_VERSION, rest)) => postcard::from_bytes(rest).map_err(damaged)?,
        Some((&SCHEDULES_VERSION, rest)) => {
            let (plain, more, all) = postcard::from_bytes(rest).map_err(damaged)?;
            subjects = Some(all);
            (plain, more)
        }
        _ => return decode::<SettingsRecord>(WHAT, bytes).map(StreamSettings::from),
    };
    Ok(StreamSettings {
        schedules: subjects.map(|subjects| Box::new(Schedules { subjects })),
        allow_ttl: more.allow_ttl,
        marker_ttl: Duration::from_nanos(more.marker_ttl_ns),
        counter: more.counter,
        ..StreamSettings::from(plain)
    })
}

impl From<&StreamSettings> for SettingsRecord {
    fn from(settings: &StreamSettings) -> Self {
        Self {
            name: settings.name.clone(),
            max_msgs: settings.max_msgs,
            max_bytes: settings.max_bytes,
            max_msgs_per_subject: settings.max_msgs_per_subject,
            max_msg_size: settings.max_msg_size,
            max_age_ns: settings.max_age.map(nanos),
            duplicate_window_ns: nanos(settings.duplicate_window),
            first_seq: settings.first_seq,
            discard_new: settings.discard_new,
            discard_new_per_subject: settings.discard_new_per_subject,
            allow_rollup: settings.allow_rollup,
            sealed: settings.sealed,
            memory: settings.memory,
        }
    }
}

impl From<SettingsRecord> for StreamSettings {
    fn from(record: SettingsRecord) -> Self {
        Self {
            name: record.name,
            max_msgs: record.max_msgs,
            max_bytes: record.max_bytes,
            max_msgs_per_subject: record.max_msgs_per_subject,
            max_msg_size: record.max_msg_size,
            max_age: record.max_age_ns.map(Duration::from_nanos),
            discard_new: record.discard_new,
            discard_new_per_subject: record.discard_new_per_subject,
            duplicate_window: Duration::from_nanos(record.duplicate_window_ns),
            allow_rollup: record.allow_rollup,
            sealed: record.sealed,
            memory: record.memory,
            first_seq: record.first_seq,
            ..Self::default()
        }
    }
}

/// When something has to be done with a stream's messages besides `max_age`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Dues {
    /// The earliest time in the index of them. It may be that of a message that is gone.
    pub next: Option<i64>,
    /// What is older than this has been looked at for `max_age`: it stays for ever.
    pub aged: Seq,
    /// The time of the first message from there on.
    pub aged_ts: Option<i64>,
}

/// The numbers of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub messages: u64,
    pub bytes: u64,
    /// First existing sequence; last + 1 without messages; 0 if never written.
    pub first_seq: Seq,
    pub first_ts: i64,
    pub last_seq: Seq,
    pub last_ts: i64,
    pub num_subjects: u64,
    /// Sequences up to here may have been named in replies, although the messages may not
    /// be durable (relaxed sync). 0: none beyond `last_seq`.
    pub reserved: Seq,
    /// `Nats-Msg-Id` of the last message, empty if it had none.
    pub last_msg_id: Vec<u8>,
}

impl Head {
    pub(super) fn first_timestamp(&self) -> Timestamp {
        if self.messages == 0 { Timestamp(0) } else { Timestamp(self.first_ts) }
    }
}

/// The first and all messages of one subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SubjectRow {
    pub count: u64,
    /// The newest.
    pub last: Seq,
    /// Nothing on this subject exists below.
    pub floor: Seq,
    /// The oldest existing ones, ascending, as far as they are known without a search.
    pub known: Vec<Seq>,
}

/// Sequences as differences, so that most take one or two bytes.
#[derive(Serialize, Deserialize)]
struct SubjectRecord(u64, Seq, u64, Vec<u64>);

impl SubjectRow {
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<(), StoreError> {
        let mut before = self.floor;
        let known = self.known.iter().map(|seq| {
            let step = seq.saturating_sub(before);
            before = *seq;
            step
        });
        let below = self.last.saturating_sub(self.floor);
        encode(out, &SubjectRecord(self.count, self.last, below, known.collect()))
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let SubjectRecord(count, last, below, steps) = decode("subject row", bytes)?;
        let floor = last.saturating_sub(below);
        let mut at = floor;
        let known = steps.into_iter().map(|step| {
            at = at.saturating_add(step);
            at
        });
        Ok(Self { count, last, floor, known: known.collect() })
    }

    /// Are all messages of the subject in `known`?
    pub(super) fn is_complete(&self) -> bool {
        self.known.len() as u64 == self.count
    }
}

/// Sequences inside one block that no longer exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DeletedSet {
    /// Inclusive, ascending, not touching.
    pub ranges: Vec<(Seq, Seq)>,
    /// Bytes they take in the block.
    pub bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct DeletedRecord(u64, Vec<(u64, u64)>);

impl DeletedSet {
    pub(super) fn contains(&self, seq: Seq) -> bool {
        let after = self.ranges.partition_point(|range| range.0 <= seq);
        after > 0 && self.ranges.get(after - 1).is_some_and(|range| seq <= range.1)
    }

    /// Returns false if it was in already.
    pub(super) fn insert(&mut self, seq: Seq, bytes: usize) -> bool {
        if self.contains(seq) {
            return false;
        }
        self.bytes += bytes as u64;
        let at = self.ranges.partition_point(|range| range.0 < seq);
        let joins_next = self.ranges.get(at).is_some_and(|next| next.0 == seq.saturating_add(1));
        let before = at.checked_sub(1).and_then(|index| self.ranges.get_mut(index));
        match before {
            Some(before) if before.1.saturating_add(1) == seq => {
                before.1 = seq;
                if joins_next {
                    let next = self.ranges.remove(at);
                    if let Some(before) = self.ranges.get_mut(at - 1) {
                        before.1 = next.1;
                    }
                }
            }
            _ if joins_next => {
                if let Some(next) = self.ranges.get_mut(at) {
                    next.0 = seq;
                }
            }
            _ => self.ranges.insert(at, (seq, seq)),
        }
        true
    }

    /// `key` is the sequence in the block's key.
    pub(super) fn encode(&self, key: Seq, out: &mut Vec<u8>) -> Result<(), StoreError> {
        let mut before = key;
        let steps = self.ranges.iter().map(|(from, to)| {
            let step = (from.saturating_sub(before), to.saturating_sub(*from));
            before = *to;
            step
        });
        encode(out, &DeletedRecord(self.bytes, steps.collect()))
    }

    pub(super) fn decode(key: Seq, bytes: &[u8]) -> Result<Self, StoreError> {
        let DeletedRecord(bytes, steps) = decode("deleted row", bytes)?;
        let mut at = key;
        let ranges = steps.into_iter().map(|(skip, more)| {
            let from = at.saturating_add(skip);
            at = from.saturating_add(more);
            (from, at)
        });
        Ok(Self { ranges: ranges.collect(), bytes })
    }
}

/// Where a message id was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IdRow {
    pub seq: Seq,
    pub timestamp: i64,
}

/// The ids of one commit, for forgetting them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IdBatch {
    /// Time of the newest.
    pub timestamp: i64,
    pub ids: Vec<(Seq, Vec<u8>)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_each_record_are_those_of_the_format_document() {
        let mut out = Vec::new();
        encode(&mut out, &Meta { next_stream: 300 }).unwrap();
        assert_eq!(out, [1, 0xac, 0x02]);
        let head = Head {
            messages: 2,
            bytes: 300,
            first_seq: 4,
            first_ts: 1,
            last_seq: 5,
            last_ts: 2,
            num_subjects: 1,
            reserved: 0,
            last_msg_id: b"id".to_vec(),
        };
        encode(&mut out, &head).unwrap();
        assert_eq!(out, [1, 2, 0xac, 2, 4, 2, 5, 4, 1, 0, 2, b'i', b'd']);
        let row = SubjectRow { count: 3, last: 9, floor: 2, known: alloc::vec![2, 5] };
        row.encode(&mut out).unwrap();
        assert_eq!(out, [1, 3, 9, 7, 2, 0, 3]);
        assert_eq!(SubjectRow::decode(&out).unwrap(), row);
        let deleted = DeletedSet { ranges: alloc::vec![(12, 12), (15, 17)], bytes: 200 };
        deleted.encode(10, &mut out).unwrap();
        assert_eq!(out, [1, 0xc8, 1, 2, 2, 0, 3, 2]);
        assert_eq!(DeletedSet::decode(10, &out).unwrap(), deleted);
        encode(&mut out, &IdRow { seq: 3, timestamp: 4 }).unwrap();
        assert_eq!(out, [1, 3, 8]);
        let batch = IdBatch { timestamp: 4, ids: alloc::vec![(3, b"x".to_vec())] };
        encode(&mut out, &batch).unwrap();
        assert_eq!(out, [1, 8, 1, 3, 1, b'x']);
        let settings =
            StreamSettings { name: "S".into(), max_msgs: Some(9), ..StreamSettings::default() };
        encode(&mut out, &SettingsRecord::from(&settings)).unwrap();
        assert_eq!(out, [1, 1, b'S', 1, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(decode_settings(&out).unwrap(), settings);
        let mut plain = Vec::new();
        encode_settings(&mut plain, &settings).unwrap();
        assert_eq!(plain, out);
        let more = StreamSettings {
            allow_ttl: true,
            marker_ttl: Duration::from_nanos(300),
            counter: true,
            ..settings
        };
        encode_settings(&mut out, &more).unwrap();
        assert_eq!(out, [2, 1, b'S', 1, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xac, 2, 1]);
        assert_eq!(decode_settings(&out).unwrap(), more);
        let schedules = Some(Box::new(Schedules { subjects: alloc::vec!["s".into()] }));
        let scheduling = StreamSettings { schedules, ..more };
        encode_settings(&mut out, &scheduling).unwrap();
        assert_eq!(
            out,
            [3, 1, b'S', 1, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xac, 2, 1, 1, 1, b's']
        );
        assert_eq!(decode_settings(&out).unwrap(), scheduling);
        let dues = Dues { next: Some(4), aged: 300, aged_ts: None };
        encode(&mut out, &dues).unwrap();
        assert_eq!(out, [1, 1, 8, 0xac, 2, 0]);
    }

    #[test]
    fn an_unknown_version_is_named() {
        let error = decode::<Meta>("store record", &[9, 1]).unwrap_err();
        assert_eq!(error.text, "store record has version 9; this program knows version 1");
    }

    #[test]
    fn deleted_ranges_join() {
        let mut set = DeletedSet::default();
        for seq in [5, 7, 9, 6, 8, 20] {
            assert!(set.insert(seq, 1));
            assert!(!set.insert(seq, 1));
        }
        assert_eq!(set.ranges, [(5, 9), (20, 20)]);
        assert_eq!(set.bytes, 6);
        assert!(!set.contains(4) && set.contains(5) && set.contains(9) && !set.contains(10));
    }
}
