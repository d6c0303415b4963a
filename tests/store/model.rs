//! Random requests against a naive model: a list of messages and the rules said plainly.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sedge::id::Rng;
use sedge::jetstream::engine::MemStore;
use sedge::jetstream::storage::{
    GetBy, PublishError, PublishOutcome, Purge, Removed, StoreReply, StoreRequest, StreamSettings,
    StreamState, StreamUpdate, Token,
};
use sedge::store::StoreOptions;
use sedge::subject::{Filter, matches};
use sedge::time::{Timestamp, nanos};

use crate::world::{self, Answer, Row, STREAM, TestDisk, Text};

#[derive(Default)]
struct Model {
    settings: StreamSettings,
    msgs: Vec<Row>,
    first: u64,
    last: u64,
    last_ts: i64,
    ids: BTreeMap<String, (u64, i64)>,
    last_id: String,
    removed: BTreeSet<u64>,
}

impl Model {
    fn new(settings: StreamSettings) -> Self {
        let first = if settings.first_seq > 1 { settings.first_seq } else { 0 };
        Self { settings, first, last: first.saturating_sub(1), ..Self::default() }
    }

    fn size(&self, row: &Row) -> u64 {
        let (subject, headers, payload) = (row.2.len(), row.3.len(), row.4.len());
        let fixed = match (self.settings.memory, headers) {
            (true, _) => 16,
            (false, 0) => 30,
            (false, _) => 34,
        };
        (fixed + subject + headers + payload) as u64
    }

    fn bytes(&self) -> u64 {
        self.msgs.iter().map(|row| self.size(row)).sum()
    }

    fn drop_where(&mut self, gone: impl Fn(&Row) -> bool) -> u64 {
        let before = self.msgs.len();
        for row in self.msgs.iter().filter(|row| gone(row)) {
            self.removed.insert(row.0);
        }
        self.msgs.retain(|row| !gone(row));
        if before != self.msgs.len() {
            self.first = self.msgs.first().map_or(self.last + 1, |row| row.0);
        }
        (before - self.msgs.len()) as u64
    }

    fn drop_oldest(&mut self) {
        let seq = self.msgs[0].0;
        self.drop_where(|row| row.0 == seq);
    }

    fn on(&self, subject: &str) -> Vec<u64> {
        self.msgs.iter().filter(|row| row.2 == subject).map(|row| row.0).collect()
    }

    fn publish(&mut self, text: &Text, fields: &BTreeMap<&str, String>) -> PublishOutcome {
        let refused = |error| PublishOutcome::Refused(Box::new(error));
        let ts = text.at.max(self.last_ts);
        if let Some(expected) = fields.get("Nats-Expected-Last-Subject-Sequence") {
            let subject = fields.get("Nats-Expected-Last-Subject-Sequence-Subject");
            let subject = subject.unwrap_or(&text.subject).clone();
            let last = self
                .msgs
                .iter()
                .filter(|row| matches(row.2.as_bytes(), subject.as_bytes()))
                .map(|row| row.0)
                .max()
                .unwrap_or(0);
            if *expected != last.to_string() {
                return refused(PublishError::WrongLastSeq(last));
            }
        }
        if let Some(expected) = fields.get("Nats-Expected-Last-Sequence")
            && *expected != self.last.to_string()
        {
            return refused(PublishError::WrongLastSeq(self.last));
        }
        let window = i64::try_from(nanos(self.settings.duplicate_window)).unwrap();
        let id = fields.get("Nats-Msg-Id").cloned().unwrap_or_default();
        if !id.is_empty()
            && let Some((seq, at)) = self.ids.get(&id)
            && ts - at < window
        {
            return PublishOutcome::Duplicate { seq: *seq };
        }
        if let Some(expected) = fields.get("Nats-Expected-Last-Msg-Id")
            && *expected != self.last_id
        {
            return refused(PublishError::WrongLastMsgId(self.last_id.clone().into_bytes()));
        }
        let rollup = fields.get("Nats-Rollup").map(String::as_str);
        if rollup.is_some() && !self.settings.allow_rollup {
            return refused(PublishError::Rollup("rollup not permitted".into()));
        }
        let mut row = (0, ts, text.subject.clone(), text.headers.clone(), text.payload.clone());
        if self.settings.max_msg_size.is_some_and(|max| (row.3.len() + row.4.len()) as u64 > max) {
            return refused(PublishError::TooLarge);
        }
        if self.settings.discard_new {
            let full = |text: &str| refused(PublishError::StoreFailed(text.into()));
            let on = self.on(&text.subject);
            let mut freed = None;
            if self.settings.max_msgs_per_subject.is_some_and(|max| on.len() as u64 >= max) {
                if self.settings.discard_new_per_subject && rollup.is_none() {
                    return full("maximum messages per subject exceeded");
                }
                let oldest = self.msgs.iter().find(|row| row.0 == on[0]).unwrap();
                freed = Some(self.size(oldest));
            }
            let count = self.msgs.len() as u64;
            if freed.is_none() && self.settings.max_msgs.is_some_and(|max| count >= max) {
                return full("maximum messages exceeded");
            }
            let size = self.size(&row);
            if self.settings.max_bytes.is_some_and(|max| self.bytes() + size > max)
                && freed.is_none_or(|freed| freed < size)
            {
                return full("maximum bytes exceeded");
            }
        }
        let before = self.on(&text.subject).last().copied().unwrap_or(0);
        self.last += 1;
        let seq = self.last;
        row.0 = seq;
        self.last_ts = ts;
        self.last_id.clone_from(&id);
        if !id.is_empty() {
            self.ids.insert(id, (seq, ts));
        }
        if self.msgs.is_empty() {
            self.first = seq;
        }
        self.msgs.push(row);
        match rollup {
            Some("sub") => {
                self.drop_where(|row| row.0 < seq && row.2 == text.subject);
            }
            Some("all") => {
                self.drop_where(|row| row.0 < seq);
            }
            _ => {}
        }
        self.enforce();
        PublishOutcome::Stored { seq, timestamp: Timestamp(ts), before, changed: None }
    }

    fn enforce(&mut self) {
        if let Some(max) = self.settings.max_msgs_per_subject {
            let subjects: BTreeSet<String> = self.msgs.iter().map(|row| row.2.clone()).collect();
            for subject in subjects {
                let on = self.on(&subject);
                let over = (on.len() as u64).saturating_sub(max);
                let over = &on[..usize::try_from(over).unwrap()];
                self.drop_where(|row| over.contains(&row.0));
            }
        }
        while self.settings.max_msgs.is_some_and(|max| self.msgs.len() as u64 > max) {
            self.drop_oldest();
        }
        while !self.msgs.is_empty() && self.settings.max_bytes.is_some_and(|max| self.bytes() > max)
        {
            self.drop_oldest();
        }
    }

    fn purge(&mut self, purge: &Purge) -> u64 {
        let filter = purge.filter.clone().unwrap_or_else(|| Filter::parse(b">").unwrap());
        let hits: Vec<u64> = self
            .msgs
            .iter()
            .filter(|row| filter.matches(row.2.as_bytes()))
            .map(|row| row.0)
            .collect();
        let may_go = (hits.len() as u64).saturating_sub(purge.keep.unwrap_or(0));
        let gone: BTreeSet<u64> = hits
            .into_iter()
            .take(usize::try_from(may_go).unwrap())
            .filter(|seq| purge.before.is_none_or(|before| *seq < before))
            .collect();
        let count = self.drop_where(|row| gone.contains(&row.0));
        if filter.as_bytes() == b">"
            && purge.keep.unwrap_or(0) == 0
            && let Some(before) = purge.before
            && before > self.last
        {
            self.last = before - 1;
            self.first = before;
        }
        count
    }

    fn state(&self) -> StreamState {
        let subjects: BTreeSet<&String> = self.msgs.iter().map(|row| &row.2).collect();
        let first_ts = Timestamp(self.msgs.first().map_or(0, |row| row.1));
        let next_expiry = match self.settings.max_age {
            Some(age) if !self.msgs.is_empty() => Some(first_ts + age),
            _ => None,
        };
        StreamState {
            messages: self.msgs.len() as u64,
            bytes: self.bytes(),
            first_seq: self.first,
            first_ts,
            last_seq: self.last,
            last_ts: Timestamp(self.last_ts),
            num_subjects: subjects.len() as u64,
            next_expiry,
        }
    }

    fn check_update(&mut self, update: &StreamUpdate) {
        assert_eq!(update.state, self.state());
        let gone = std::mem::take(&mut self.removed);
        match &update.removed {
            Removed::None => assert!(gone.is_empty(), "{gone:?}"),
            Removed::Some(list) => {
                let list: Vec<u64> = list.iter().map(|(seq, _)| *seq).collect();
                assert_eq!(list, gone.into_iter().collect::<Vec<_>>());
            }
            Removed::Many { first, last } => {
                assert!(gone.iter().all(|seq| (*first..=*last).contains(seq)));
            }
        }
    }
}

const FILTERS: [&str; 8] = ["a.1", "a.*", "b.>", ">", "*.2", "c", "zz", "a.>"];

fn draw_settings(rng: &mut Rng, memory: bool) -> StreamSettings {
    let mut settings = StreamSettings { memory, ..world::settings() };
    let mut some = |chance: u64, low: u64, high: u64| {
        (rng.below(chance) == 0).then(|| low + rng.below(high - low))
    };
    settings.max_msgs = some(3, 1, 300);
    settings.max_bytes = some(3, 100, 40_000);
    settings.max_msgs_per_subject = some(3, 1, 60);
    settings.max_msg_size = some(5, 20, 400);
    settings.max_age = some(3, 1, 5_000).map(Duration::from_nanos);
    settings.duplicate_window = Duration::from_nanos(some(2, 1, 2_000).unwrap_or(0));
    settings.first_seq = some(4, 0, 1_000).unwrap_or(0);
    settings.discard_new = some(3, 0, 1).is_some();
    settings.discard_new_per_subject = settings.discard_new && some(2, 0, 1).is_some();
    settings.allow_rollup = some(2, 0, 1).is_some();
    settings
}

fn draw_text(rng: &mut Rng, now: i64, model: &Model) -> (Text, BTreeMap<&'static str, String>) {
    let subject = match rng.below(6) {
        0 => "c".to_string(),
        1 => format!("b.{}.{}", rng.below(3), rng.below(20)),
        2 | 3 => format!("a.{}", rng.below(3)),
        _ => format!("a.{}", rng.below(200)),
    };
    let mut fields = BTreeMap::new();
    if rng.below(4) == 0 {
        fields.insert("Nats-Msg-Id", format!("id-{}", rng.below(60)));
    }
    match rng.below(40) {
        0 => {
            let off = rng.below(2);
            fields.insert("Nats-Expected-Last-Sequence", (model.last + off).to_string());
        }
        1 => {
            let last = model.on(&subject).last().copied().unwrap_or(0);
            let off = rng.below(2);
            fields.insert("Nats-Expected-Last-Subject-Sequence", (last + off).to_string());
        }
        2 => {
            fields.insert("Nats-Expected-Last-Subject-Sequence", model.last.to_string());
            fields.insert("Nats-Expected-Last-Subject-Sequence-Subject", "a.>".into());
        }
        3 => {
            fields.insert("Nats-Expected-Last-Msg-Id", format!("id-{}", rng.below(60)));
        }
        4 => {
            fields.insert("Nats-Rollup", if rng.below(3) == 0 { "all" } else { "sub" }.into());
        }
        _ => {}
    }
    let len = match rng.below(50) {
        0 => rng.index(70_000),
        1..10 => rng.index(1_000),
        _ => rng.index(100),
    };
    let mut payload = vec![0; len];
    rng.fill(&mut payload);
    let list: Vec<(&str, &str)> =
        fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    // Now and then a clock that went back.
    let at = now - i64::try_from(rng.below(3)).unwrap();
    (Text { at, subject, headers: world::headers(&list), payload }, fields)
}

fn draw_purge(rng: &mut Rng, model: &Model) -> Purge {
    let mut purge = Purge::default();
    if rng.below(3) > 0 {
        let text = FILTERS[rng.index(FILTERS.len())];
        purge.filter = Some(Filter::parse(text.as_bytes()).unwrap());
    }
    match rng.below(4) {
        0 => purge.before = Some(model.first + rng.below(model.msgs.len() as u64 + 5)),
        1 => purge.keep = Some(rng.below(20)),
        _ => {}
    }
    purge
}

fn check_reads(store: &mut dyn Answer, model: &Model, rng: &mut Rng) {
    let filter = Filter::parse(FILTERS[rng.index(FILTERS.len())].as_bytes()).unwrap();
    let hits: Vec<&Row> =
        model.msgs.iter().filter(|row| filter.matches(row.2.as_bytes())).collect();
    let from = model.first + rng.below(model.last.saturating_sub(model.first) + 3);
    let (token, stream) = (Token(1), STREAM);
    let filters: Arc<[Filter]> = Arc::from([filter.clone()]);

    let max_msgs = u32::try_from(rng.below(50) + 1).unwrap();
    let max_bytes = u32::try_from(rng.below(5_000) + 1).unwrap();
    let read =
        StoreRequest::Read { token, stream, from, filters: filters.clone(), max_msgs, max_bytes };
    let StoreReply::Read { chunk, through, .. } = store.ask(read) else { panic!() };
    let found = world::rows(&chunk.unwrap());
    let expected: Vec<Row> = hits
        .iter()
        .filter(|row| row.0 >= from && row.0 <= through)
        .map(|row| (*row).clone())
        .collect();
    assert_eq!(found, expected, "read from {from} through {through}");
    let more = hits.iter().any(|row| row.0 > through);
    assert!(more || through == model.last || found.len() == max_msgs as usize || !found.is_empty());

    let StoreReply::Counted { count, .. } =
        store.ask(StoreRequest::Count { token, stream, from, filters: filters.clone() })
    else {
        panic!()
    };
    assert_eq!(count.unwrap(), hits.iter().filter(|row| row.0 >= from).count() as u64);
    let all: Arc<[Filter]> = Arc::from([]);
    let StoreReply::Counted { count, .. } =
        store.ask(StoreRequest::Count { token, stream, from, filters: all })
    else {
        panic!()
    };
    assert_eq!(count.unwrap(), model.msgs.iter().filter(|row| row.0 >= from).count() as u64);

    let mut last_per: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for row in &hits {
        let entry = last_per.entry(&row.2).or_default();
        *entry = (row.0, entry.1 + 1);
    }
    let StoreReply::LastPerSubject { seqs, .. } =
        store.ask(StoreRequest::LastPerSubject { token, stream, filters })
    else {
        panic!()
    };
    let mut expected: Vec<u64> = last_per.values().map(|(seq, _)| *seq).collect();
    expected.sort_unstable();
    assert_eq!(seqs.unwrap(), expected);

    let (offset, limit) = (rng.below(5), 10);
    let request = StoreRequest::Subjects { token, stream, filter: filter.clone(), offset, limit };
    let StoreReply::Subjects { subjects, total, .. } = store.ask(request) else { panic!() };
    assert_eq!(total, last_per.len() as u64);
    let found: Vec<(String, u64)> = subjects
        .unwrap()
        .into_iter()
        .map(|(subject, count)| (String::from_utf8(subject.into()).unwrap(), count))
        .collect();
    let expected: Vec<(String, u64)> = last_per
        .iter()
        .skip(usize::try_from(offset).unwrap())
        .take(10)
        .map(|(subject, (_, count))| ((*subject).to_string(), *count))
        .collect();
    assert_eq!(found, expected);

    let time =
        model.msgs.first().map_or(0, |row| row.1) + i64::try_from(rng.below(2_000)).unwrap() - 10;
    let gets = [
        (GetBy::Seq(from), model.msgs.iter().find(|row| row.0 == from)),
        (GetBy::LastBySubject(filter.clone()), hits.last().copied()),
        (GetBy::NextBySubject { filter, from }, hits.iter().find(|row| row.0 >= from).copied()),
        (GetBy::StartTime(Timestamp(time)), model.msgs.iter().find(|row| row.1 >= time)),
    ];
    for (by, expected) in gets {
        let request = StoreRequest::Get { token, stream, by: by.clone() };
        let StoreReply::Got { msg, .. } = store.ask(request) else { panic!() };
        let found = msg.unwrap().map(|chunk| world::rows(&chunk).remove(0));
        assert_eq!(found.as_ref(), expected, "{by:?}");
    }

    let StoreReply::Deleted { seqs, .. } =
        store.ask(StoreRequest::Deleted { token, stream, limit: 50 })
    else {
        panic!()
    };
    let alive: BTreeSet<u64> = model.msgs.iter().map(|row| row.0).collect();
    let expected: Vec<u64> = if alive.is_empty() {
        Vec::new()
    } else {
        (model.first..=model.last).filter(|seq| !alive.contains(seq)).take(50).collect()
    };
    assert_eq!(seqs.unwrap(), expected);
}

fn run(store: &mut dyn Answer, seed: u64, memory: bool, steps: u64) {
    let mut rng = Rng::new(seed);
    let mut model = Model::new(draw_settings(&mut rng, memory));
    let StoreReply::Done { result, .. } = store.ask(world::create(model.settings.clone())) else {
        panic!()
    };
    result.unwrap();
    let mut now = 1_000_000_i64;
    for _ in 0..steps {
        match rng.below(20) {
            0 => {
                let purge = draw_purge(&mut rng, &model);
                let request =
                    StoreRequest::Purge { token: Token(2), stream: STREAM, purge: purge.clone() };
                let StoreReply::Purged { result, update, .. } = store.ask(request) else {
                    panic!()
                };
                assert_eq!(result.unwrap(), model.purge(&purge), "{purge:?}");
                model.check_update(&update.unwrap());
            }
            1..3 => {
                let seq = model.first + rng.below(model.msgs.len() as u64 + 2);
                let erase = rng.below(3) == 0;
                let request =
                    StoreRequest::DeleteMsg { token: Token(3), stream: STREAM, seq, erase };
                let StoreReply::Done { found, update, .. } = store.ask(request) else { panic!() };
                assert_eq!(found, model.drop_where(|row| row.0 == seq) == 1);
                model.check_update(&update.unwrap());
            }
            3 => {
                let seqs: Vec<u64> =
                    (0..rng.below(5)).map(|_| model.first + rng.below(9)).collect();
                let request = StoreRequest::Settle {
                    token: Token(5),
                    stream: STREAM,
                    seqs: seqs.clone().into(),
                };
                let StoreReply::Done { result, update, .. } = store.ask(request) else { panic!() };
                result.unwrap();
                model.drop_where(|row| seqs.contains(&row.0));
                model.check_update(&update.unwrap());
            }
            4 => {
                let StoreReply::Expired { update, .. } =
                    store.ask(StoreRequest::Expire { stream: STREAM, now: Timestamp(now) })
                else {
                    panic!()
                };
                if let Some(age) = model.settings.max_age {
                    let dead = now - i64::try_from(nanos(age)).unwrap();
                    while model.msgs.first().is_some_and(|row| row.1 <= dead) {
                        model.drop_oldest();
                    }
                }
                model.check_update(&update);
            }
            5 if rng.below(4) == 0 => {
                let first_seq = model.settings.first_seq;
                // A longer window would ask for ids that were rightly forgotten.
                let duplicate_window = model.settings.duplicate_window;
                let drawn = draw_settings(&mut rng, memory);
                let settings = StreamSettings { first_seq, duplicate_window, ..drawn };
                model.settings = settings.clone();
                model.enforce();
                let request = StoreRequest::UpdateStream {
                    token: Token(4),
                    stream: STREAM,
                    settings,
                    record: b"new".to_vec(),
                };
                let StoreReply::Done { found, update, .. } = store.ask(request) else { panic!() };
                assert!(found);
                model.check_update(&update.unwrap());
            }
            6..9 => check_reads(store, &model, &mut rng),
            _ => {
                let count = match rng.below(4) {
                    0 => 1,
                    1 => rng.below(5) + 1,
                    _ => rng.below(80) + 1,
                };
                let mut texts = Vec::new();
                let mut expected = Vec::new();
                for _ in 0..count {
                    now += i64::try_from(rng.below(30)).unwrap();
                    let (text, fields) = draw_text(&mut rng, now, &model);
                    expected.push(model.publish(&text, &fields));
                    texts.push(text);
                }
                let (outcomes, updates) = store.publish(&texts);
                assert_eq!(outcomes, expected);
                match updates.first() {
                    Some(update) => model.check_update(update),
                    None => assert!(model.removed.is_empty()),
                }
            }
        }
    }
    assert_eq!(world::read_all(store), model.msgs);
}

#[test]
fn a_memory_store_does_what_the_model_does() {
    for seed in world::seeds(100) {
        eprintln!("seed {seed}");
        run(&mut MemStore::new(), seed, true, 120);
    }
}

#[test]
fn a_disk_store_does_what_the_model_does() {
    for seed in world::seeds(80) {
        eprintln!("seed {seed}");
        let disk = TestDisk::default();
        let (mut store, _) = world::open(&disk, StoreOptions::default());
        run(&mut store, seed, false, 80);
    }
}
