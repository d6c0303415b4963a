//! What a pull consumer should do, said plainly.
//!
//! Written from the reference, not from the server: positions, deliveries and deadlines in
//! ordinary maps, every number counted anew when it is asked for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Value, json};

use super::stream::{Msg, Msgs};

const SECOND: i64 = 1_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AckPolicy {
    None,
    All,
    Explicit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    All,
    New,
    Last,
    At(u64),
    LastPerSubject,
}

#[derive(Clone, Debug)]
pub(crate) struct ConsumerConfig {
    pub(crate) name: String,
    pub(crate) filter: Option<String>,
    pub(crate) ack: AckPolicy,
    pub(crate) start: Start,
    /// In nanoseconds.
    pub(crate) ack_wait: i64,
    pub(crate) backoff: Vec<i64>,
    pub(crate) max_deliver: Option<u64>,
    pub(crate) max_ack_pending: Option<u32>,
}

impl ConsumerConfig {
    pub(crate) fn json(&self) -> Value {
        let ack = match self.ack {
            AckPolicy::None => "none",
            AckPolicy::All => "all",
            AckPolicy::Explicit => "explicit",
        };
        let start = match self.start {
            Start::All => "all",
            Start::New => "new",
            Start::Last => "last",
            Start::At(_) => "by_start_sequence",
            Start::LastPerSubject => "last_per_subject",
        };
        let mut config = json!({
            "name": self.name, "durable_name": self.name, "ack_policy": ack, "deliver_policy": start,
        });
        if let Start::At(seq) = self.start {
            config["opt_start_seq"] = json!(seq);
        }
        if let Some(filter) = &self.filter {
            config["filter_subject"] = json!(filter);
        }
        if self.ack != AckPolicy::None {
            config["ack_wait"] = json!(self.ack_wait);
            config["max_ack_pending"] = json!(self.max_ack_pending.map_or(-1, i64::from));
        }
        if let Some(max) = self.max_deliver {
            config["max_deliver"] = json!(max);
        }
        if !self.backoff.is_empty() {
            config["backoff"] = json!(self.backoff);
        }
        config
    }

    pub(crate) fn wants(&self, subject: &str) -> bool {
        self.filter
            .as_ref()
            .is_none_or(|filter| sedge::subject::matches(subject.as_bytes(), filter.as_bytes()))
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Pending {
    /// Consumer sequence of the first delivery.
    pub(crate) dseq: u64,
    /// `None`: it waits to be delivered again.
    pub(crate) due: Option<i64>,
}

/// What a fetch delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) seq: u64,
    pub(crate) count: u64,
    pub(crate) dseq: u64,
    pub(crate) left: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ack {
    Done,
    Term,
    Nak(Option<i64>),
    Progress,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Consumer {
    pub(crate) config: ConsumerConfig,
    /// Tells consumers of one name apart.
    pub(crate) birth: u64,
    /// The first candidate for a first delivery.
    pub(crate) next: u64,
    /// Still to be delivered before that, of `last_per_subject`.
    list: VecDeque<u64>,
    /// The newest consumer sequence.
    pub(crate) dseq: u64,
    /// The floor's consumer sequence, and its stream sequence.
    pub(crate) floor: (u64, u64),
    pub(crate) pending: BTreeMap<u64, Pending>,
    pub(crate) queue: VecDeque<u64>,
    /// Deliveries, of what is pending or burned.
    pub(crate) counts: BTreeMap<u64, u64>,
    /// Their deliveries are used up; they wait for a late ack.
    pub(crate) burned: BTreeSet<u64>,
    /// Settled by an ack that was confirmed: never to be seen again, whatever happens.
    pub(crate) sure: BTreeSet<u64>,
    /// Settled by an ack that was not confirmed.
    pub(crate) unsure: BTreeSet<u64>,
    /// A purge may have moved its positions.
    pub(crate) moved: bool,
}

impl Consumer {
    pub(crate) fn new(config: ConsumerConfig, birth: u64, msgs: &Msgs, one_each: bool) -> Self {
        let (first, last) = (msgs.first.max(1), msgs.last);
        let matching = || msgs.iter().filter(|msg| config.wants(&msg.subject));
        let mut list = VecDeque::new();
        let next = match config.start {
            Start::All => first,
            Start::New => last + 1,
            Start::Last if config.filter.is_none() => last.max(first),
            Start::Last => matching().map(|msg| msg.seq).next_back().unwrap_or(first),
            Start::At(seq) => seq.max(first),
            Start::LastPerSubject if one_each => first,
            Start::LastPerSubject => {
                let newest: BTreeMap<&str, u64> =
                    matching().map(|msg| (msg.subject.as_str(), msg.seq)).collect();
                let newest: BTreeSet<u64> = newest.into_values().collect();
                list.extend(newest);
                last + 1
            }
        };
        let start = list.front().copied().unwrap_or(next);
        Self {
            config,
            birth,
            next,
            list,
            dseq: 0,
            floor: (0, start.saturating_sub(1)),
            pending: BTreeMap::new(),
            queue: VecDeque::new(),
            counts: BTreeMap::new(),
            burned: BTreeSet::new(),
            sure: BTreeSet::new(),
            unsure: BTreeSet::new(),
            moved: false,
        }
    }

    fn wait(&self, count: u64) -> i64 {
        if self.config.backoff.is_empty() {
            return self.config.ack_wait;
        }
        let last = self.config.backoff.len() as u64;
        let index = usize::try_from(count.min(last) - 1).expect("a backoff is short");
        self.config.backoff[index]
    }

    fn candidates<'a>(&'a self, msgs: &'a Msgs) -> impl Iterator<Item = &'a Msg> {
        msgs.iter().filter(|msg| {
            self.config.wants(&msg.subject)
                && (msg.seq >= self.next || self.list.contains(&msg.seq))
        })
    }

    /// Messages never delivered yet.
    pub(crate) fn left(&self, msgs: &Msgs) -> u64 {
        self.candidates(msgs).count() as u64
    }

    pub(crate) fn redelivered(&self) -> u64 {
        if self.config.max_deliver == Some(1) {
            return 0;
        }
        self.counts.values().filter(|count| **count > 1).count() as u64
    }

    /// Is the message still to be delivered to it, or settled by it?
    pub(crate) fn needs(&self, msg: &Msg) -> bool {
        self.config.wants(&msg.subject)
            && (msg.seq >= self.next
                || self.list.contains(&msg.seq)
                || self.pending.contains_key(&msg.seq)
                || self.burned.contains(&msg.seq))
    }

    /// Takes up to `batch` messages; also those settled by being delivered.
    pub(crate) fn fetch(
        &mut self,
        msgs: &Msgs,
        batch: usize,
        now: i64,
    ) -> (Vec<Delivery>, Vec<u64>) {
        let mut out = Vec::new();
        let mut settled = Vec::new();
        if self.queue.is_empty() && self.left(msgs) == 0 {
            return (out, settled);
        }
        while out.len() < batch {
            if let Some(seq) = self.queue.front().copied() {
                self.queue.pop_front();
                let count = self.counts[&seq];
                if self.config.max_deliver.is_some_and(|max| count >= max) {
                    self.burn(seq);
                    continue;
                }
                self.dseq += 1;
                let wait = self.wait(count + 1);
                self.counts.insert(seq, count + 1);
                if let Some(pending) = self.pending.get_mut(&seq) {
                    pending.due = Some(now + wait);
                }
                let left = self.left(msgs);
                out.push(Delivery { seq, count: count + 1, dseq: self.dseq, left });
                continue;
            }
            if self.config.max_ack_pending.is_some_and(|max| self.pending.len() >= max as usize) {
                break;
            }
            let Some(seq) = self.candidates(msgs).next().map(|msg| msg.seq) else { break };
            if self.list.is_empty() || seq >= self.next {
                self.list.clear();
                self.next = seq + 1;
            } else {
                self.list.retain(|listed| *listed > seq);
            }
            self.dseq += 1;
            if self.config.ack == AckPolicy::None {
                self.floor = (self.dseq, seq);
                settled.push(seq);
            } else {
                let due = Some(now + self.wait(1));
                self.pending.insert(seq, Pending { dseq: self.dseq, due });
                self.counts.insert(seq, 1);
            }
            let left = self.left(msgs);
            out.push(Delivery { seq, count: 1, dseq: self.dseq, left });
        }
        (out, settled)
    }

    fn burn(&mut self, seq: u64) {
        self.pending.remove(&seq);
        self.burned.insert(seq);
        self.raise_floor();
    }

    fn raise_floor(&mut self) {
        match self.pending.iter().next() {
            None => self.floor.0 = self.dseq,
            Some((_, first)) => self.floor.0 = self.floor.0.max(first.dseq - 1),
        }
    }

    /// What was delivered and not settled is due again.
    pub(crate) fn tick(&mut self, now: i64) {
        let mut due: Vec<(i64, u64)> = self
            .pending
            .iter()
            .filter_map(|(seq, pending)| Some((pending.due.filter(|due| *due <= now)?, *seq)))
            .collect();
        due.sort_unstable();
        for (_, seq) in due {
            self.queue_up(seq);
        }
    }

    /// Of all that is pending with a deadline.
    pub(crate) fn next_due(&self) -> Option<i64> {
        self.pending.values().filter_map(|pending| pending.due).min()
    }

    fn queue_up(&mut self, seq: u64) {
        if let Some(pending) = self.pending.get_mut(&seq)
            && pending.due.take().is_some()
        {
            self.queue.push_back(seq);
        }
    }

    /// Was this message ever delivered?
    pub(crate) fn knows(&self, seq: u64) -> bool {
        self.pending.contains_key(&seq) || seq < self.next
    }

    /// Takes an ack; what it settled, ascending.
    pub(crate) fn ack(&mut self, seq: u64, dseq: u64, ack: Ack, now: i64) -> Vec<u64> {
        if !self.knows(seq) {
            return Vec::new();
        }
        match (ack, self.config.ack) {
            (_, AckPolicy::None) => Vec::new(),
            (Ack::Done | Ack::Term, AckPolicy::Explicit) => {
                let known = self.pending.contains_key(&seq) || self.burned.contains(&seq);
                self.forget(seq);
                if known { vec![seq] } else { Vec::new() }
            }
            (Ack::Done | Ack::Term, AckPolicy::All) => {
                if dseq <= self.floor.0 || seq <= self.floor.1 {
                    return Vec::new();
                }
                let known = self.pending.keys().chain(&self.burned).copied();
                let settled: BTreeSet<u64> = known.filter(|known| *known <= seq).collect();
                for seq in &settled {
                    self.pending.remove(seq);
                    self.burned.remove(seq);
                    self.counts.remove(seq);
                    self.queue.retain(|queued| queued != seq);
                }
                self.floor = (dseq, seq);
                settled.into_iter().collect()
            }
            (Ack::Nak(delay), _) => {
                if dseq <= self.floor.0 || dseq > self.dseq {
                    return Vec::new();
                }
                match delay {
                    None => self.queue_up(seq),
                    Some(delay) => {
                        if let Some(pending) = self.pending.get_mut(&seq) {
                            pending.due = Some(now + delay);
                            self.queue.retain(|queued| *queued != seq);
                        }
                    }
                }
                Vec::new()
            }
            (Ack::Progress, _) => {
                let wait = self.wait(self.counts.get(&seq).copied().unwrap_or(1));
                if let Some(pending) = self.pending.get_mut(&seq)
                    && pending.due.is_some()
                {
                    pending.due = Some(now + wait);
                }
                Vec::new()
            }
        }
    }

    fn forget(&mut self, seq: u64) {
        let was_pending = self.pending.remove(&seq).is_some();
        self.burned.remove(&seq);
        self.counts.remove(&seq);
        self.queue.retain(|queued| *queued != seq);
        if was_pending {
            self.raise_floor();
        }
    }

    /// The message left the stream.
    pub(crate) fn removed(&mut self, seq: u64) {
        self.forget(seq);
        self.list.retain(|listed| *listed != seq);
        self.moved = true;
    }

    /// The process began anew: a list is not kept, nor is an order in the queue.
    pub(crate) fn restarted(&mut self) {
        if let Some(first) = self.list.pop_front() {
            self.next = first;
            self.list.clear();
        }
    }

    /// Whole seconds and a bit, so that nothing is due while something else is done.
    pub(crate) fn off_beat(seconds: u64) -> i64 {
        seconds.cast_signed() * SECOND + SECOND * 3 / 10
    }
}

impl Consumer {
    /// It does not need this one any more, whatever it did with it.
    pub(crate) fn forgotten(&mut self, seq: u64) {
        self.forget(seq);
        self.list.retain(|listed| *listed != seq);
        self.next = self.next.max(seq + 1);
    }
}
