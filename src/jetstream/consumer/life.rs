//! The life of a consumer after creation: timers, inactivity, changes of its stream,
//! removal, restart.
//!
//! Owns what happens without a request. Does not own delivery.
//!
//! # Invariants
//! - A removed consumer leaves no subscription, watch, timer or record behind.
//! - Whatever is due for a consumer is done in one look at it; then the timer is set anew.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::config::ConsumerConfig;
use super::create::Spec;
use super::deliver::{Event, READS_KEPT};
use super::pull::Speaker;
use super::{Consumer, Phase, record};
use crate::id::{ConsumerId, StreamId};
use crate::jetstream::JetStream;
use crate::jetstream::host::{Host, JsNotice};
use crate::jetstream::json::{self, ApiError};
use crate::jetstream::storage::{Chunk, ConsumerRecord, Removed, Seq, StoreRequest, StreamUpdate};
use crate::subject::{self, Filter};
use crate::time::{Duration, Instant, Now};

/// On top of a pull consumer's threshold.
const INACTIVITY_SLACK: Duration = Duration::from_millis(100);

impl Consumer {
    /// When something is to be done for it.
    pub(super) fn due(&mut self, now: Now) -> Option<Instant> {
        if !self.is_running() {
            return None;
        }
        let paused = self.config.pause_until.and_then(|until| {
            let left = u64::try_from(until.0.saturating_sub(now.wall.0)).ok()?;
            (left > 0).then(|| now.instant + Duration::from_nanos(left))
        });
        let reads = self.cursor.holds_reads().then(|| self.gate.last_run() + READS_KEPT);
        [
            self.progress.next_due(),
            self.waiting.next_due(),
            self.push.as_ref().and_then(super::push::Push::next_due),
            self.saving.next_due(),
            self.gate.next_due(),
            self.idle_due(),
            self.pin_due(),
            paused,
            reads,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// When it has not been used for long enough to be removed.
    fn idle_due(&self) -> Option<Instant> {
        let limit = self.config.idle_limit(self.superseded)?;
        let since = match &self.push {
            Some(push) => return push.idle_since.map(|since| since + limit),
            None => self.last_used + limit + INACTIVITY_SLACK,
        };
        Some(since.max(self.keep_until))
    }

    /// Whether it is to be removed now. A pull consumer with somebody waiting, or with
    /// messages out, is given more time.
    fn is_abandoned(&mut self, now: Now, host: &mut impl Host) -> bool {
        if self.idle_due().is_none_or(|due| due > now.instant) {
            return false;
        }
        if self.push.is_some() {
            return true;
        }
        if !self.waiting.is_empty() {
            self.last_used = now.instant;
            return false;
        }
        let _ = host;
        let limit = self.config.idle_limit(self.superseded).unwrap_or_default();
        if let Some(due) = self.progress.last_due()
            && due + limit > now.instant
            && due.0 != u64::MAX
        {
            self.keep_until = due + limit;
            return false;
        }
        true
    }

    /// A message left the stream. Returns what to report about a pending one.
    fn message_removed(
        &mut self,
        seq: Seq,
        subject: &[u8],
        first: Seq,
        counted: Seq,
    ) -> Option<Event> {
        if seq <= counted
            && self.count.asked.is_none()
            && self.cursor.is_ahead(seq)
            && self.wants(subject)
        {
            self.count.pending = self.count.pending.saturating_sub(1);
        }
        if seq >= first && seq >= self.cursor.next() {
            self.cursor.remove(seq);
        }
        if self.progress.pending.is_empty() {
            return None;
        }
        let deliveries = self.progress.deliveries(seq);
        let entry = self.progress.settle(seq)?;
        // It is gone already.
        self.progress.take_settled();
        Some(Event { seq, dseq: entry.dseq, deliveries, exhausted: false })
    }
}

impl JetStream {
    /// Hands to the store what it does not know yet of consumers.
    pub(in crate::jetstream) fn save_consumers(&mut self, now: Now, host: &mut impl Host) {
        let of = &self.consumers.table;
        let dirty = of.iter().filter(|(_, consumer)| consumer.saving.is_dirty());
        let ids: Vec<ConsumerId> = dirty.map(|(_, consumer)| consumer.id).collect();
        for id in ids {
            self.save(now, id, host);
        }
    }

    /// The server stops: whoever waits for messages is told, so that they ask elsewhere.
    pub(in crate::jetstream) fn consumers_shut_down(&mut self, host: &mut impl Host) {
        let scratch = &mut self.consumers.scratch;
        for (_, consumer) in &mut self.consumers.table {
            let to = &mut Speaker { host: &mut *host, scratch: &mut *scratch };
            consumer.waiting.end_all("409 Server Shutdown", true, to);
        }
    }

    /// Timers of consumers.
    pub(in crate::jetstream) fn consumers_timeout(&mut self, now: Now, host: &mut impl Host) {
        let mut due = Vec::new();
        while let Some(&(at, id)) = self.consumers.timers.first()
            && at <= now.instant
        {
            self.consumers.timers.pop_first();
            if let Some(consumer) = self.consumers.get_mut(id) {
                consumer.armed = None;
                due.push(id);
            }
        }
        for id in due {
            self.consumer_tick(now, id, host);
        }
    }

    fn consumer_tick(&mut self, now: Now, id: ConsumerId, host: &mut impl Host) {
        let leafs = host.has_leafs();
        self.unpin_late(now, id, host);
        let (Some(consumer), scratch) = self.consumers.get_with_scratch(id) else { return };
        if !consumer.is_running() {
            return;
        }
        if consumer.progress.next_due().is_some_and(|due| due <= now.instant) {
            // What may not be delivered again is found when its turn comes.
            consumer.progress.queue_due(now.instant, &mut Vec::new());
        }
        let last = consumer.last_positions();
        let beat = consumer.heartbeat_positions();
        let mut to = Speaker { host, scratch };
        consumer.waiting.tick(now, last, leafs, &mut to);
        let mut beaten = false;
        if let Some(push) = &mut consumer.push {
            beaten = push.tick(now, consumer.config.deliver_subject.as_bytes(), beat, &mut to);
        }
        if beaten
            && consumer.config.ack_policy == super::config::AckPolicy::FlowControl
            && !consumer.progress.pending.is_empty()
            && let Some(push) = &mut consumer.push
        {
            push.ask(consumer.config.deliver_subject.as_bytes(), &mut self.rng, to.host);
        }
        let reads_old = consumer.gate.last_run() + READS_KEPT <= now.instant;
        if consumer.cursor.holds_reads() && reads_old {
            consumer.cursor.forget_reads();
        }
        let resumed = consumer.paused && !consumer.is_paused(now);
        consumer.paused &= !resumed;
        let save = consumer.saving.next_due().is_some_and(|due| due <= now.instant);
        let abandoned = consumer.is_abandoned(now, host);
        if abandoned {
            self.remove_consumer(now, id, host);
            return;
        }
        if resumed {
            self.advise_pause(now, id, host);
        }
        if save {
            self.save(now, id, host);
        }
        self.consumer_run(now, id, host);
    }

    /// After each commit that touched the stream; `stored` has what it added.
    pub(in crate::jetstream) fn consumers_updated(
        &mut self,
        now: Now,
        update: &StreamUpdate,
        stored: Option<&Arc<Chunk>>,
        host: &mut impl Host,
    ) {
        for id in self.consumers.of_stream(update.stream) {
            let Some(consumer) = self.consumers.get_mut(id) else { continue };
            let mut events = Vec::new();
            // What was stored and removed in one commit was never counted.
            let counted = consumer.count.through;
            if let Some(chunk) = stored {
                consumer.messages_stored(chunk);
            }
            let mut recount = stored.is_none() && update.state.last_seq > consumer.count.through;
            let first = update.state.first_seq;
            let mut settled = false;
            match &update.removed {
                Removed::None => {}
                Removed::Some(list) => {
                    for (seq, subject) in list {
                        events.extend(consumer.message_removed(*seq, subject, first, counted));
                    }
                    consumer.cursor.forget_before(first);
                    settled = consumer.progress.forget_before(first);
                }
                Removed::Many { last, .. } => {
                    consumer.cursor.forget_before(first);
                    if *last >= first {
                        consumer.cursor.forget_reads();
                    }
                    settled = consumer.progress.forget_before(first);
                    recount = true;
                }
            }
            if settled || !events.is_empty() {
                consumer.progress.last_ack = now.wall;
            }
            if consumer.is_running() {
                if !matches!(update.removed, Removed::None) {
                    consumer.mark_dirty(now);
                }
                if recount && consumer.count.asked.is_none() {
                    self.recount(id, host);
                }
            }
            for event in events {
                self.advise_event(now, id, event, host);
            }
            self.consumer_run(now, id, host);
        }
    }

    /// After a purge: consumers of what was purged go on behind it. `first` is what is left of
    /// the subjects of the purge, if anything.
    pub(in crate::jetstream) fn consumers_purged(
        &mut self,
        now: Now,
        stream: StreamId,
        filter: Option<&Filter>,
        first: Option<Seq>,
        host: &mut impl Host,
    ) {
        let Some(state) = self.streams.get(&stream).map(|stream| &stream.state) else { return };
        let (begin, end) = (state.first_seq, state.last_seq.saturating_add(1));
        for id in self.consumers.of_stream(stream) {
            let Some(consumer) = self.consumers.get_mut(id) else { continue };
            let start = match filter {
                None => begin,
                Some(purged) if consumer.wants_only(purged) => first.unwrap_or(end),
                Some(purged) if consumer.wants_some(purged) => begin,
                Some(_) => continue,
            };
            if !consumer.is_running() || !consumer.purged(start, now) {
                continue;
            }
            consumer.mark_dirty(now);
            if consumer.count.asked.is_none() {
                self.recount(id, host);
            }
            self.consumer_run(now, id, host);
        }
    }

    /// Its configuration changed.
    pub(in crate::jetstream) fn consumers_stream_updated(
        &mut self,
        now: Now,
        stream: StreamId,
        host: &mut impl Host,
    ) {
        self.retention_changed(stream, false);
        for id in self.consumers.of_stream(stream) {
            self.consumer_run(now, id, host);
        }
    }

    /// The stream is about to go; it is still in the table.
    pub(in crate::jetstream) fn consumers_stream_deleted(
        &mut self,
        now: Now,
        stream: StreamId,
        host: &mut impl Host,
    ) {
        for id in self.consumers.of_stream(stream) {
            let starting = self.consumers.get(id).is_some_and(|consumer| !consumer.is_running());
            if starting {
                self.abandon_creation(now, id, &super::info::STREAM_NOT_FOUND, host);
            } else {
                self.remove_consumer(now, id, host);
            }
        }
        self.consumers.by_stream.remove(&stream);
    }

    /// Removes a consumer and tells those who wait for it.
    pub(super) fn remove_consumer(&mut self, now: Now, id: ConsumerId, host: &mut impl Host) {
        let (Some(consumer), scratch) = self.consumers.get_with_scratch(id) else { return };
        consumer.waiting.end_all("409 Consumer Deleted", false, &mut Speaker { host, scratch });
        self.advise_action(now, id, "delete", host);
        self.remove_quietly(now, id, host);
    }

    pub(super) fn remove_quietly(&mut self, _now: Now, id: ConsumerId, host: &mut impl Host) {
        self.subscribe_consumer(id, false, host);
        let Ok(index) = usize::try_from(id.index) else { return };
        if self.consumers.get(id).is_none() {
            return;
        }
        let consumer = self.consumers.table.remove(index);
        self.shared.note_consumer(false);
        if let Some(at) = consumer.armed {
            self.consumers.timers.remove(&(at, id));
        }
        self.consumers.blocked.remove(&id);
        if let Some(names) = self.consumers.by_stream.get_mut(&consumer.stream) {
            names.remove(&consumer.name);
            if names.is_empty() {
                self.consumers.by_stream.remove(&consumer.stream);
            }
        }
        self.retention_changed(consumer.stream, true);
        if consumer.persisted {
            let request =
                StoreRequest::DeleteConsumer { stream: consumer.stream, name: consumer.name };
            self.store(request, host);
        }
    }

    /// `RESET`: everything forgotten, goes on at `seq` or after the ack floor.
    pub(super) fn reset_consumer(
        &mut self,
        id: ConsumerId,
        seq: Option<Seq>,
        host: &mut impl Host,
    ) {
        let Some(consumer) = self.consumers.get_mut(id) else { return };
        // Everything before the first pending message is settled, or not wanted.
        let unsettled = consumer.progress.pending.first().map(|entry| entry.seq);
        let next = seq.or(unsettled).unwrap_or_else(|| consumer.cursor.next()).max(1);
        consumer.progress.restart_at(next);
        consumer.cursor.jump(next);
        if let Some(push) = &mut consumer.push
            && push.active
        {
            push.restart();
        }
        self.recount(id, host);
    }

    /// At start, for each stream.
    pub(in crate::jetstream) fn consumers_recovered(
        &mut self,
        now: Now,
        stream: StreamId,
        records: Vec<ConsumerRecord>,
        host: &mut impl Host,
    ) {
        for record in records {
            let name = record.name.clone();
            if let Err(text) = self.recover_consumer(now, stream, record, host) {
                host.notice(JsNotice::Error(format!(
                    "consumer {name} could not be restored: {text}"
                )));
            }
        }
    }

    fn recover_consumer(
        &mut self,
        now: Now,
        stream: StreamId,
        record: ConsumerRecord,
        host: &mut impl Host,
    ) -> Result<(), String> {
        let stored = record::decode(&record.record).map_err(|error| format!("{error}"))?;
        let config: ConsumerConfig = json::decode(&stored.config, false)
            .map_err(|error: ApiError| error.description.into_owned())?;
        let created = crate::time::Timestamp(stored.created);
        let spec = Spec { stream, name: record.name, config, created };
        let id = self.insert_consumer(now, spec, host).ok_or("its stream is unknown")?;
        let Some(consumer) = self.consumers.get_mut(id) else { return Ok(()) };
        let Some(state) = self.streams.get(&stream).map(|stream| &stream.state) else {
            return Ok(());
        };
        consumer.progress = stored.progress(now);
        consumer.cursor.jump(stored.next.max(1));
        let delivered = consumer.progress.delivered;
        // One that never delivered anything waits for its start.
        if delivered.consumer > 0 && delivered.stream > state.last_seq {
            // The stream lost its tail: what comes next has sequences this one has seen.
            consumer.progress.forget_after(state.last_seq);
            consumer.cursor.jump(consumer.progress.delivered.stream.saturating_add(1));
        }
        consumer.cursor.forget_before(state.first_seq);
        consumer.progress.forget_before(state.first_seq);
        consumer.progress.raise_floor_below(state.first_seq);
        // What was sent after the record was written is not known, and the hub counts.
        consumer.resync = consumer.config.is_sourcing();
        consumer.phase = Phase::Running;
        self.recount(id, host);
        self.refresh_activity(now, id, host);
        self.consumers.rearm(now, id);
        Ok(())
    }
}

impl Consumer {
    /// Is everything it wants among these subjects?
    fn wants_only(&self, these: &Filter) -> bool {
        let within = |filter: &Filter| subject::is_subset(filter.as_bytes(), these.as_bytes());
        !self.filters.is_empty() && self.filters.iter().all(within)
    }

    /// Is anything it wants among these subjects?
    fn wants_some(&self, these: &Filter) -> bool {
        let meets = |filter: &Filter| subject::collides(filter.as_bytes(), these.as_bytes());
        self.filters.is_empty() || self.filters.iter().any(meets)
    }

    /// Nothing it wants lies before `start` any more. Says whether that is news.
    fn purged(&mut self, start: Seq, now: Now) -> bool {
        let settled = self.progress.forget_before(start);
        let news = settled || self.cursor.next() < start;
        self.cursor.forget_before(start);
        if settled {
            self.progress.last_ack = now.wall;
        }
        // Also what had been delivered and left the stream with the purge.
        if self.progress.pending.is_empty() {
            self.progress.skip_to(self.cursor.next());
        }
        news
    }

    /// New messages: those it wants are pending now.
    fn messages_stored(&mut self, chunk: &Chunk) {
        let Some(last) = chunk.msgs.last().map(|msg| msg.seq) else { return };
        let through = self.count.through;
        if last <= through {
            return;
        }
        let new =
            chunk.msgs.iter().filter(|msg| msg.seq > through && self.cursor.is_ahead(msg.seq));
        let added = if self.filters.is_empty() {
            new.count()
        } else {
            new.filter(|msg| self.wants(chunk.bytes(&msg.subject))).count()
        };
        if self.count.asked.is_none() {
            self.count.pending = self.count.pending.saturating_add(added as u64);
        }
        self.count.through = last;
    }
}
