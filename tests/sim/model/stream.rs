//! What a stream should do, said plainly: a list of messages and the rules of the reference.

use std::collections::{BTreeMap, BTreeSet};

use sedge::subject::matches;
use serde_json::{Value, json};

use super::consumer::{Ack, AckPolicy, Consumer, Delivery};

const SECOND: i64 = 1_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retention {
    Limits,
    Interest,
    WorkQueue,
}

#[derive(Clone, Debug)]
pub(crate) struct StreamConfig {
    pub(crate) name: String,
    /// First token of all its subjects.
    pub(crate) root: String,
    pub(crate) memory: bool,
    pub(crate) retention: Retention,
    pub(crate) discard_new: bool,
    pub(crate) discard_new_per_subject: bool,
    pub(crate) max_msgs: Option<u64>,
    pub(crate) max_bytes: Option<u64>,
    pub(crate) max_per_subject: Option<u64>,
    pub(crate) max_msg_size: Option<u64>,
    /// In nanoseconds.
    pub(crate) max_age: Option<i64>,
    /// In nanoseconds; 0: none.
    pub(crate) window: i64,
    pub(crate) rollup: bool,
    pub(crate) ttl: bool,
    /// Seconds.
    pub(crate) marker: Option<i64>,
    pub(crate) first_seq: u64,
    pub(crate) deny_purge: bool,
    pub(crate) deny_delete: bool,
}

impl StreamConfig {
    pub(crate) fn json(&self) -> Value {
        let number = |max: Option<u64>| max.map_or(json!(-1), |max| json!(max));
        let mut config = json!({
            "name": self.name,
            "subjects": [format!("{}.>", self.root)],
            "storage": if self.memory { "memory" } else { "file" },
            "retention": match self.retention {
                Retention::Limits => "limits",
                Retention::Interest => "interest",
                Retention::WorkQueue => "workqueue",
            },
            "discard": if self.discard_new { "new" } else { "old" },
            "max_msgs": number(self.max_msgs),
            "max_bytes": number(self.max_bytes),
            "max_msgs_per_subject": number(self.max_per_subject),
            "max_msg_size": number(self.max_msg_size),
            "max_age": self.max_age.unwrap_or(0),
            "allow_rollup_hdrs": self.rollup,
            "allow_msg_ttl": self.ttl,
            "allow_direct": true,
            "deny_purge": self.deny_purge,
            "deny_delete": self.deny_delete,
        });
        if self.discard_new_per_subject {
            config["discard_new_per_subject"] = json!(true);
        }
        if self.window > 0 {
            config["duplicate_window"] = json!(self.window);
        }
        if let Some(seconds) = self.marker {
            config["subject_delete_marker_ttl"] = json!(seconds * SECOND);
        }
        if self.first_seq > 0 {
            config["first_seq"] = json!(self.first_seq);
        }
        config
    }
}

/// What a message says of its own time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ttl {
    None,
    Never,
    Seconds(i64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Msg {
    pub(crate) seq: u64,
    pub(crate) ts: i64,
    pub(crate) subject: String,
    pub(crate) headers: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) ttl: Ttl,
}

/// The messages of a stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Msgs {
    pub(crate) list: Vec<Msg>,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Msgs {
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Msg> {
        self.list.iter()
    }

    pub(crate) fn matching<'a>(
        &'a self,
        filter: &'a str,
    ) -> impl DoubleEndedIterator<Item = &'a Msg> {
        self.iter().filter(move |msg| matches(msg.subject.as_bytes(), filter.as_bytes()))
    }

    pub(crate) fn find_first(&mut self) {
        self.first = self.list.first().map_or(self.last + 1, |msg| msg.seq);
    }
}

/// A message to be published.
#[derive(Clone, Debug, Default)]
pub(crate) struct Publish {
    pub(crate) subject: String,
    pub(crate) fields: Vec<(&'static str, String)>,
    pub(crate) payload: Vec<u8>,
}

impl Publish {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn headers(&self) -> String {
        if self.fields.is_empty() {
            return String::new();
        }
        let mut block = "NATS/1.0\r\n".to_string();
        for (name, value) in &self.fields {
            block.extend([name, ": ", value, "\r\n"]);
        }
        block + "\r\n"
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PubAck {
    Stored(u64),
    Duplicate(u64),
    Refused(u64, String),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Purge {
    pub(crate) filter: Option<String>,
    pub(crate) before: Option<u64>,
    pub(crate) keep: Option<u64>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) config: StreamConfig,
    pub(crate) msgs: Msgs,
    last_ts: i64,
    ids: BTreeMap<String, (u64, i64)>,
    last_id: String,
    pub(crate) consumers: BTreeMap<String, Consumer>,
    /// Removed because an ack that was not confirmed settled them: a crash may bring them back.
    pub(crate) unsure: BTreeMap<u64, Msg>,
}

impl Stream {
    pub(crate) fn new(config: StreamConfig) -> Self {
        let first = if config.first_seq > 1 { config.first_seq } else { 0 };
        let msgs = Msgs { list: Vec::new(), first, last: first.saturating_sub(1) };
        Self {
            config,
            msgs,
            last_ts: 0,
            ids: BTreeMap::new(),
            last_id: String::new(),
            consumers: BTreeMap::new(),
            unsure: BTreeMap::new(),
        }
    }

    pub(crate) fn size(&self, msg: &Msg) -> u64 {
        let (subject, headers, payload) = (msg.subject.len(), msg.headers.len(), msg.payload.len());
        let fixed = match (self.config.memory, headers) {
            (true, _) => 16,
            (false, 0) => 30,
            (false, _) => 34,
        };
        (fixed + subject + headers + payload) as u64
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.msgs.iter().map(|msg| self.size(msg)).sum()
    }

    fn remove(&mut self, gone: impl Fn(&Msg) -> bool) -> Vec<Msg> {
        let (gone, kept): (Vec<Msg>, Vec<Msg>) =
            std::mem::take(&mut self.msgs.list).into_iter().partition(|msg| gone(msg));
        self.msgs.list = kept;
        if !gone.is_empty() {
            self.msgs.find_first();
        }
        for msg in &gone {
            for consumer in self.consumers.values_mut() {
                consumer.removed(msg.seq);
            }
        }
        gone
    }

    // --- Publishing ---

    pub(crate) fn publish(&mut self, publish: &Publish, now: i64) -> PubAck {
        let refused = |code, text: &str| PubAck::Refused(code, text.into());
        let wrong = |seq| PubAck::Refused(10071, format!("wrong last sequence: {seq}"));
        let ts = now.max(self.last_ts);
        let weight = (publish.headers().len() + publish.payload.len()) as u64;
        if self.config.max_msg_size.is_some_and(|max| weight > max) {
            return refused(10054, "message size exceeds maximum allowed");
        }
        if publish.field("Nats-Expected-Stream").is_some_and(|name| name != self.config.name) {
            return refused(10060, "expected stream does not match");
        }
        let ttl = match publish.field("Nats-TTL") {
            None => Ttl::None,
            Some(text) => text.trim_end_matches('s').parse().map_or(Ttl::Never, Ttl::Seconds),
        };
        if ttl != Ttl::None && !self.config.ttl {
            return refused(10166, "per-message TTL is disabled");
        }
        if let Some(expected) = publish.field("Nats-Expected-Last-Subject-Sequence") {
            let over = publish.field("Nats-Expected-Last-Subject-Sequence-Subject");
            let filter = over.unwrap_or(&publish.subject);
            let last = self.msgs.matching(filter).last().map_or(0, |msg| msg.seq);
            if expected != last.to_string() {
                return wrong(last);
            }
        }
        if let Some(expected) = publish.field("Nats-Expected-Last-Sequence")
            && expected != self.msgs.last.to_string()
        {
            return wrong(self.msgs.last);
        }
        let id = publish.field("Nats-Msg-Id").unwrap_or_default().to_string();
        if !id.is_empty()
            && let Some((seq, at)) = self.ids.get(&id)
            && ts - at < self.config.window
        {
            return PubAck::Duplicate(*seq);
        }
        if let Some(expected) = publish.field("Nats-Expected-Last-Msg-Id")
            && expected != self.last_id
        {
            return PubAck::Refused(10070, format!("wrong last msg ID: {}", self.last_id));
        }
        let rollup = publish.field("Nats-Rollup");
        if rollup.is_some() && !self.config.rollup {
            return refused(10111, "rollup not permitted");
        }
        let mut msg = Msg {
            seq: 0,
            ts,
            subject: publish.subject.clone(),
            headers: publish.headers(),
            payload: publish.payload.clone(),
            ttl,
        };
        let size = self.size(&msg);
        let wanted = self.config.retention != Retention::Interest
            || self.consumers.values().any(|consumer| consumer.config.wants(&msg.subject));
        if wanted && self.config.discard_new {
            let full = |text: &str| refused(10077, text);
            let on: Vec<&Msg> =
                self.msgs.iter().filter(|other| other.subject == msg.subject).collect();
            let mut freed = None;
            if self.config.max_per_subject.is_some_and(|max| on.len() as u64 >= max) {
                if self.config.discard_new_per_subject && rollup.is_none() {
                    return full("maximum messages per subject exceeded");
                }
                freed = Some(self.size(on[0]));
            }
            let count = self.msgs.list.len() as u64;
            if freed.is_none() && self.config.max_msgs.is_some_and(|max| count >= max) {
                return full("maximum messages exceeded");
            }
            if self.config.max_bytes.is_some_and(|max| self.bytes() + size > max)
                && freed.is_none_or(|freed| freed < size)
            {
                return full("maximum bytes exceeded");
            }
        }
        self.last_ts = ts;
        self.last_id.clone_from(&id);
        self.msgs.last += 1;
        let seq = self.msgs.last;
        if !id.is_empty() {
            self.ids.insert(id, (seq, ts));
        }
        if wanted {
            msg.seq = seq;
            self.msgs.list.push(msg);
        }
        self.msgs.find_first();
        match rollup {
            Some("sub") => {
                self.remove(|msg| msg.seq < seq && msg.subject == publish.subject);
            }
            Some(_) => {
                self.remove(|msg| msg.seq < seq);
            }
            None => {}
        }
        self.enforce();
        PubAck::Stored(seq)
    }

    fn enforce(&mut self) {
        if let Some(max) = self.config.max_per_subject {
            let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
            let mut over = BTreeSet::new();
            for msg in self.msgs.iter().rev() {
                let count = seen.entry(&msg.subject).or_default();
                *count += 1;
                if *count > max {
                    over.insert(msg.seq);
                }
            }
            self.remove(|msg| over.contains(&msg.seq));
        }
        let (mut count, mut bytes) = (self.msgs.list.len() as u64, self.bytes());
        let mut over = BTreeSet::new();
        for msg in self.msgs.iter() {
            if self.config.max_msgs.is_some_and(|max| count > max)
                || self.config.max_bytes.is_some_and(|max| bytes > max)
            {
                over.insert(msg.seq);
                count -= 1;
                bytes -= self.size(msg);
            }
        }
        self.remove(|msg| over.contains(&msg.seq));
    }

    pub(crate) fn update(&mut self, config: StreamConfig) {
        self.config = config;
        self.enforce();
    }

    // --- Time ---

    pub(crate) fn due(&self, msg: &Msg) -> Option<i64> {
        let age = self.config.max_age.map(|age| msg.ts + age);
        let own = match msg.ttl {
            Ttl::Never => return None,
            Ttl::None => None,
            Ttl::Seconds(seconds) => Some(msg.ts + seconds * SECOND),
        };
        [own, age].into_iter().flatten().min()
    }

    pub(crate) fn next_due(&self) -> Option<i64> {
        let own = self.msgs.iter().filter_map(|msg| self.due(msg)).min();
        let acks = self.consumers.values().filter_map(Consumer::next_due).min();
        [own, acks].into_iter().flatten().min()
    }

    pub(crate) fn tick(&mut self, now: i64) {
        let due: BTreeSet<u64> = self
            .msgs
            .iter()
            .filter(|msg| self.due(msg).is_some_and(|due| due <= now))
            .map(|msg| msg.seq)
            .collect();
        let gone = self.remove(|msg| due.contains(&msg.seq));
        if let Some(seconds) = self.config.marker {
            let newest: BTreeMap<&str, &Msg> =
                gone.iter().map(|msg| (msg.subject.as_str(), msg)).collect();
            let mut last: Vec<&Msg> = newest.into_values().collect();
            last.sort_unstable_by_key(|msg| msg.seq);
            for msg in last {
                let still = self.msgs.iter().any(|other| other.subject == msg.subject);
                let is_marker = msg.headers.contains("Nats-Marker-Reason: ");
                if still || is_marker || msg.headers.contains("KV-Operation: PURGE") {
                    continue;
                }
                let marker = Publish {
                    subject: msg.subject.clone(),
                    fields: vec![
                        ("Nats-Marker-Reason", "MaxAge".into()),
                        ("Nats-TTL", format!("{seconds}s")),
                        ("Nats-Rollup", "sub".into()),
                    ],
                    payload: Vec::new(),
                };
                self.publish(&marker, now);
            }
        }
        for consumer in self.consumers.values_mut() {
            consumer.tick(now);
        }
    }

    // --- Removing ---

    pub(crate) fn delete(&mut self, seq: u64) -> bool {
        !self.remove(|msg| msg.seq == seq).is_empty()
    }

    pub(crate) fn purge(&mut self, purge: &Purge) -> u64 {
        let filter = purge.filter.as_deref().unwrap_or(">");
        let hits: Vec<u64> = self.msgs.matching(filter).map(|msg| msg.seq).collect();
        let keep = usize::try_from(purge.keep.unwrap_or(0)).unwrap_or(usize::MAX);
        let gone: BTreeSet<u64> = hits
            .iter()
            .take(hits.len().saturating_sub(keep))
            .copied()
            .filter(|seq| purge.before.is_none_or(|before| *seq < before))
            .collect();
        let count = self.remove(|msg| gone.contains(&msg.seq)).len() as u64;
        if purge.filter.is_none()
            && let Some(before) = purge.before
            && before > self.msgs.last
        {
            self.msgs.last = before - 1;
            self.msgs.find_first();
        }
        if self.msgs.list.is_empty() || purge.filter.is_none() {
            let first = self.msgs.first;
            for consumer in self.consumers.values_mut() {
                consumer.next = consumer.next.max(first);
                consumer.moved = true;
            }
        }
        for consumer in self.consumers.values_mut() {
            consumer.moved = true;
        }
        count
    }

    // --- Consumers ---

    pub(crate) fn add_consumer(&mut self, consumer: Consumer) {
        self.consumers.insert(consumer.config.name.clone(), consumer);
    }

    pub(crate) fn delete_consumer(&mut self, name: &str) {
        self.consumers.remove(name);
        self.sweep(true);
    }

    /// What nobody needs leaves an interest stream.
    fn sweep(&mut self, sure: bool) {
        if self.config.retention != Retention::Interest {
            return;
        }
        let gone: BTreeSet<u64> = self
            .msgs
            .iter()
            .filter(|msg| !self.consumers.values().any(|consumer| consumer.needs(msg)))
            .map(|msg| msg.seq)
            .collect();
        self.settle_all(&gone, sure);
    }

    fn settle_all(&mut self, seqs: &BTreeSet<u64>, sure: bool) {
        for msg in self.remove(|msg| seqs.contains(&msg.seq)) {
            if !sure {
                self.unsure.insert(msg.seq, msg);
            }
        }
    }

    fn settled(&mut self, seqs: &[u64], sure: bool) {
        if self.config.retention == Retention::Limits {
            return;
        }
        let gone: BTreeSet<u64> = self
            .msgs
            .iter()
            .filter(|msg| seqs.contains(&msg.seq))
            .filter(|msg| !self.consumers.values().any(|consumer| consumer.needs(msg)))
            .map(|msg| msg.seq)
            .collect();
        self.settle_all(&gone, sure);
    }

    pub(crate) fn fetch(&mut self, name: &str, batch: usize, now: i64) -> Vec<Delivery> {
        let Some(consumer) = self.consumers.get_mut(name) else { return Vec::new() };
        let (deliveries, settled) = consumer.fetch(&self.msgs, batch, now);
        consumer.unsure.extend(&settled);
        self.settled(&settled, false);
        deliveries
    }

    /// Takes an ack; `sure` if it is confirmed.
    pub(crate) fn ack(&mut self, name: &str, seq: u64, dseq: u64, ack: Ack, sure: bool, now: i64) {
        let Some(consumer) = self.consumers.get_mut(name) else { return };
        let settled = consumer.ack(seq, dseq, ack, now);
        if sure && matches!(ack, Ack::Done | Ack::Term) && consumer.config.ack != AckPolicy::None {
            // What an earlier ack settled is confirmed by the answer to this one.
            let again: Vec<u64> = match consumer.config.ack {
                AckPolicy::All => {
                    consumer.unsure.iter().copied().filter(|old| *old <= seq).collect()
                }
                _ => consumer.unsure.iter().copied().filter(|old| *old == seq).collect(),
            };
            for seq in again.iter().chain(&settled) {
                consumer.unsure.remove(seq);
                consumer.sure.insert(*seq);
            }
        } else {
            consumer.unsure.extend(&settled);
        }
        self.settled(&settled, sure);
    }

    /// All that was done is on the disk.
    pub(crate) fn restarted(&mut self) {
        self.unsure.clear();
        for consumer in self.consumers.values_mut() {
            let unsure = std::mem::take(&mut consumer.unsure);
            consumer.sure.extend(unsure);
            consumer.restarted();
        }
    }
}

impl Stream {
    /// Takes over what a machine holds after a crash, if that may be.
    ///
    /// # Errors
    /// Says what must not be.
    pub(crate) fn adopt(&mut self, held: &Msgs) -> Result<(), String> {
        if held.last != self.msgs.last {
            return Err(format!("the last sequence is {}, not {}", held.last, self.msgs.last));
        }
        let known: BTreeMap<u64, &Msg> = held.iter().map(|msg| (msg.seq, msg)).collect();
        for msg in self.msgs.iter() {
            match known.get(&msg.seq) {
                None => return Err(format!("{} is lost", msg.seq)),
                Some(held) if **held != (Msg { ttl: Ttl::None, ..msg.clone() }) => {
                    return Err(format!("{} is {held:?}, not {msg:?}", msg.seq));
                }
                Some(_) => {}
            }
        }
        for msg in held.iter() {
            if self.msgs.iter().any(|mine| mine.seq == msg.seq) {
                continue;
            }
            let Some(back) = self.unsure.remove(&msg.seq) else {
                return Err(format!("{} is back", msg.seq));
            };
            self.msgs.list.push(back);
        }
        self.msgs.list.sort_unstable_by_key(|msg| msg.seq);
        self.msgs.first = held.first;
        self.unsure.clear();
        Ok(())
    }

    /// A consumer of which nothing else is known has settled this.
    pub(crate) fn drained(&mut self, name: &str, seq: u64) {
        let Some(consumer) = self.consumers.get_mut(name) else { return };
        consumer.unsure.remove(&seq);
        consumer.forgotten(seq);
        self.settled(&[seq], true);
    }
}
