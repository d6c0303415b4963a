//! Consumers in backups.
//!
//! Owns what a backup says of a consumer, and what becomes of that in another place. Does
//! not own the archive (`backup`).

use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;

use super::config::ConsumerConfig;
use super::record;
use super::state::{Position, Progress};
use crate::id::StreamId;
use crate::jetstream::JetStream;
use crate::jetstream::backup::{ConsumerState, PendingAck, Position as Shown};
use crate::jetstream::json::{self, FromJson, Json, Path};
use crate::jetstream::storage::{ConsumerRecord, Seq};
use crate::jetstream::stream::StreamConfig;
use crate::sorted;
use crate::time::{Duration, Now, nanos};

#[derive(Serialize)]
struct Shape<'a> {
    config: &'a ConsumerConfig,
    state: ConsumerState,
}

/// The same, as it is read.
#[derive(Default)]
struct Carried {
    config: ConsumerConfig,
    state: CarriedState,
}

#[derive(Default)]
struct CarriedState {
    delivered: Pair,
    floor: Pair,
    pending: Acks,
    redelivered: Counts,
}

#[derive(Clone, Copy, Default)]
struct Pair(Shown);

#[derive(Clone, Copy, Default)]
struct Ack(PendingAck);

#[derive(Default)]
struct Acks(Vec<(Seq, PendingAck)>);

#[derive(Default)]
struct Counts(Vec<(Seq, u32)>);

impl FromJson for Carried {
    const NAME: &'static str = "consumer";

    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
        match key {
            "config" => json::object(&mut self.config, value, path),
            "state" => json::object(&mut self.state, value, path),
            _ => Ok(false),
        }
    }
}

impl FromJson for CarriedState {
    const NAME: &'static str = "state";

    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
        match key {
            "delivered" => json::object(&mut self.delivered, value, path),
            "ack_floor" => json::object(&mut self.floor, value, path),
            "pending" => json::object(&mut self.pending, value, path),
            "redelivered" => json::object(&mut self.redelivered, value, path),
            _ => Ok(false),
        }
    }
}

impl FromJson for Pair {
    const NAME: &'static str = "sequences";

    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
        match key {
            "consumer_seq" => json::uint(&mut self.0.consumer_seq, value, path),
            "stream_seq" => json::uint(&mut self.0.stream_seq, value, path),
            _ => Ok(false),
        }
    }
}

impl FromJson for Ack {
    const NAME: &'static str = "pending";

    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
        match key {
            "sequence" => json::uint(&mut self.0.sequence, value, path),
            "timestamp" => json::int(&mut self.0.timestamp, value, path),
            _ => Ok(false),
        }
    }
}

impl FromJson for Acks {
    const NAME: &'static str = "pending";

    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
        let Ok(seq) = key.parse() else { return Ok(false) };
        let mut ack = Ack::default();
        json::object(&mut ack, value, path)?;
        self.0.push((seq, ack.0));
        Ok(true)
    }
}

impl FromJson for Counts {
    const NAME: &'static str = "redelivered";

    fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
        let Ok(seq) = key.parse() else { return Ok(false) };
        let mut count = 0;
        json::number(&mut count, value, path, "uint64")?;
        self.0.push((seq, count));
        Ok(true)
    }
}

impl JetStream {
    /// The consumers of a stream for a backup that ends with the message `last`, each with
    /// its name.
    pub(in crate::jetstream) fn consumer_backups(
        &self,
        now: Now,
        stream: StreamId,
        last: Seq,
    ) -> Vec<(String, Vec<u8>)> {
        let ids = self.consumers.of_stream(stream).into_iter();
        let consumers = ids.filter_map(|id| self.consumers.get(id));
        let wanted =
            consumers.filter(|consumer| consumer.is_running() && !consumer.config.is_hidden());
        let shown = |position: Position| Shown {
            consumer_seq: position.consumer,
            stream_seq: position.stream.min(last),
        };
        wanted
            .map(|consumer| {
                let progress = &consumer.progress;
                let pending = progress.pending.iter().take_while(|entry| entry.seq <= last);
                let ack = |sent| PendingAck {
                    sequence: 0,
                    timestamp: now
                        .wall
                        .0
                        .saturating_sub(i64::try_from(nanos(sent)).unwrap_or(i64::MAX)),
                };
                let state = ConsumerState {
                    delivered: shown(progress.delivered),
                    ack_floor: shown(progress.floor),
                    pending: pending
                        .map(|entry| {
                            let ack = ack(now.instant.since(entry.sent));
                            (entry.seq, PendingAck { sequence: entry.dseq, ..ack })
                        })
                        .collect(),
                    redelivered: progress
                        .redelivered
                        .range(..=last)
                        .map(|(seq, count)| (*seq, *count))
                        .collect(),
                };
                let shape = Shape { config: &consumer.config, state };
                (consumer.name.clone(), serde_json::to_vec(&shape).unwrap_or_default())
            })
            .collect()
    }

    /// The record of a consumer from a backup, for a stream with this configuration, and
    /// whether the store is to have it.
    pub(in crate::jetstream) fn carried_consumer(
        &self,
        now: Now,
        stream: &StreamConfig,
        name: &str,
        body: &[u8],
    ) -> Result<(ConsumerRecord, bool), String> {
        let text = |error: json::ApiError| error.description.into_owned();
        let Carried { mut config, state } = json::decode::<Carried>(body, false).map_err(text)?;
        let caps = &self.options.limits;
        config.fill_defaults(stream, caps, false).map_err(text)?;
        config.check(stream, caps).map_err(text)?;
        if !super::config::is_valid_name(name) || config.direct {
            return Err("not a consumer that can be restored".into());
        }
        let position =
            |pair: Pair| Position { consumer: pair.0.consumer_seq, stream: pair.0.stream_seq };
        let delivered = position(state.delivered);
        let mut progress = Progress::restored(delivered, position(state.floor));
        progress.redelivered.extend(state.redelivered.0);
        let mut pending = state.pending.0;
        sorted::sort_by_key(&mut pending, |(seq, _)| *seq);
        for (seq, ack) in pending.into_iter().filter(|(seq, _)| *seq <= delivered.stream) {
            let wait = config.redelivery_wait(progress.deliveries(seq)).unwrap_or_default();
            let gone = u64::try_from(now.wall.0.saturating_sub(ack.timestamp)).unwrap_or(0);
            let left = wait.saturating_sub(Duration::from_nanos(gone));
            progress.pending.insert(seq, ack.sequence, now.instant, now.instant + left);
        }
        let persisted = config.is_persisted(stream);
        let config = serde_json::to_vec(&config).unwrap_or_default();
        let next = delivered.stream.saturating_add(1);
        let record = record::encode(config, now.wall, &progress, next, now);
        Ok((ConsumerRecord { name: name.into(), record }, persisted))
    }
}
