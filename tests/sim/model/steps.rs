//! What is done, drawn from a seed, to the machine and to the model alike.

use std::collections::{BTreeMap, BTreeSet};

use sedge::time::Duration;
use serde_json::{Value, json};

use super::Broken;
use super::consumer::{Ack, AckPolicy, Consumer, ConsumerConfig, Start};
use super::machine::{Death, Frame, Machine};
use super::stream::{Msgs, PubAck, Publish, Purge, Retention, Stream, StreamConfig};
use crate::chance::Chance;

const SECOND: i64 = 1_000_000_000;
/// Longer than any wait for an ack.
const LONG: u64 = 20;
/// Everything a consumer has to deliver fits into one fetch.
const WHOLE: usize = 1000;
pub(crate) const FILTERS: [&str; 6] = ["a.*", "a.0", "b.>", ">", "*.1", "b.2"];

/// What happened, to see that it did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) stored: u64,
    duplicates: u64,
    refused: u64,
    delivered: u64,
    redelivered: u64,
    acked: u64,
    confirmed: u64,
    restarts: u64,
    deaths: u64,
    interrupted: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.stored += other.stored;
        self.duplicates += other.duplicates;
        self.refused += other.refused;
        self.delivered += other.delivered;
        self.redelivered += other.redelivered;
        self.acked += other.acked;
        self.confirmed += other.confirmed;
        self.restarts += other.restarts;
        self.deaths += other.deaths;
        self.interrupted += other.interrupted;
    }
}

/// A message the client got, to be acknowledged some time.
#[derive(Clone, Debug)]
struct Held {
    stream: String,
    consumer: String,
    birth: u64,
    seq: u64,
    dseq: u64,
    to: String,
}

/// One seed.
pub(crate) struct Run {
    pub(crate) machine: Machine,
    pub(crate) streams: BTreeMap<String, Stream>,
    pub(crate) chance: Chance,
    held: Vec<Held>,
    births: u64,
    /// What was there after a crash, while consumers are drained.
    pub(crate) found: Option<BTreeMap<String, Msgs>>,
    shown: bool,
    tally: Tally,
}

impl Run {
    pub(crate) fn new(seed: u64, broken: Broken, shown: bool) -> Self {
        let mut chance = Chance::new(seed);
        Self {
            machine: Machine::new(chance.fork(), broken),
            streams: BTreeMap::new(),
            chance,
            held: Vec::new(),
            births: 0,
            found: None,
            shown,
            tally: Tally::default(),
        }
    }

    pub(crate) fn run(mut self, steps: u32) -> Tally {
        self.create_stream("S");
        if self.chance.happens(300) {
            self.create_stream("T");
        }
        for _ in 0..steps {
            self.step();
            self.check();
        }
        self.show(|| "the end".into());
        self.restart();
        self.check();
        self.check_messages();
        self.tally
    }

    pub(crate) fn show(&self, text: impl FnOnce() -> String) {
        if self.shown {
            println!("{:>6} ms: {}", self.machine.time() / 1_000_000, text());
        }
    }

    fn now(&self) -> i64 {
        self.machine.time()
    }

    fn any_stream(&mut self) -> Option<String> {
        let names: Vec<&String> = self.streams.keys().collect();
        (!names.is_empty()).then(|| names[self.chance.size(0, names.len() - 1)].clone())
    }

    fn any_consumer(&mut self) -> Option<(String, String)> {
        let all: Vec<(String, String)> = self
            .streams
            .iter()
            .flat_map(|(stream, of)| of.consumers.keys().map(|name| (stream.clone(), name.clone())))
            .collect();
        (!all.is_empty()).then(|| all[self.chance.size(0, all.len() - 1)].clone())
    }

    fn step(&mut self) {
        let Some(stream) = self.any_stream() else {
            self.create_stream("S");
            return;
        };
        match self.chance.between(0, 99) {
            0..28 => {
                let count = self.chance.pick(&[1, 1, 1, 2, 4, 9]);
                self.publish(&stream, count);
            }
            28..32 => self.publish_off_beat(&stream),
            32..55 => self.fetch_some(),
            55..75 => self.ack_some(),
            75..83 => {
                let seconds = self.chance.pick(&[1, 1, 2, 3, 5, 12]);
                self.pass(seconds);
            }
            83..86 => self.purge(&stream),
            86..88 => self.delete(&stream),
            88..94 => self.create_consumer(&stream),
            94 => self.delete_consumer(),
            95 => self.update_stream(&stream),
            96 => self.check_messages(),
            97 => self.restart(),
            98 => self.die(&stream),
            _ if self.chance.happens(300) => self.recreate_stream(&stream),
            _ => self.pass(1),
        }
    }

    // --- Time ---

    /// Whole seconds, in which all that is due happens at its time.
    fn pass(&mut self, seconds: u64) {
        self.show(|| format!("{seconds} s pass"));
        self.pass_for(Duration::from_secs(seconds));
    }

    fn pass_for(&mut self, time: Duration) {
        self.machine.pass(time);
        let end = self.now();
        for stream in self.streams.values_mut() {
            while let Some(due) = stream.next_due().filter(|due| *due <= end) {
                stream.tick(due);
            }
        }
    }

    // --- Streams ---

    fn draw_stream(&mut self, name: &str) -> StreamConfig {
        let chance = &mut self.chance;
        let retention = chance.pick(&[
            Retention::Limits,
            Retention::Limits,
            Retention::Interest,
            Retention::WorkQueue,
            Retention::WorkQueue,
        ]);
        let mut some = |per_mille: u64, low: u64, high: u64| {
            chance.happens(per_mille).then(|| chance.between(low, high))
        };
        let mut config = StreamConfig {
            name: name.into(),
            root: name.to_lowercase(),
            memory: some(200, 0, 0).is_some(),
            retention,
            discard_new: some(300, 0, 0).is_some(),
            discard_new_per_subject: false,
            max_msgs: some(300, 1, 30),
            max_bytes: some(250, 60, 2000),
            max_per_subject: some(350, 1, 5),
            max_msg_size: some(200, 10, 90),
            max_age: some(350, 1, 9).map(Consumer::off_beat),
            window: 0,
            rollup: some(400, 0, 0).is_some(),
            ttl: some(400, 0, 0).is_some(),
            marker: None,
            first_seq: some(200, 0, 50).unwrap_or(0),
            deny_purge: false,
            deny_delete: some(100, 0, 0).is_some(),
        };
        config.discard_new_per_subject =
            config.discard_new && config.max_per_subject.is_some() && some(500, 0, 0).is_some();
        config.deny_purge = !config.rollup && some(100, 0, 0).is_some();
        // Half a second after any beat.
        let window = some(800, 0, 7).unwrap_or(1).cast_signed() * SECOND + SECOND / 2;
        config.window = config.max_age.map_or(window, |age| window.min(age));
        if retention == Retention::Limits && some(250, 0, 0).is_some() {
            // The marker is a message like others; where limits would refuse or remove it,
            // the order of things within one sweep would matter.
            config.marker = some(1000, 1, 4).map(u64::cast_signed);
            (config.ttl, config.rollup, config.deny_purge) = (true, true, false);
            (config.max_msgs, config.max_bytes, config.max_msg_size) = (None, None, None);
            (config.discard_new, config.discard_new_per_subject) = (false, false);
        }
        config
    }

    fn create_stream(&mut self, name: &str) {
        let config = self.draw_stream(name);
        self.show(|| format!("create {config:?}"));
        let answer = self.machine.api(&format!("STREAM.CREATE.{name}"), &config.json());
        assert_eq!(answer.get("error"), None, "{config:?}");
        self.streams.insert(name.into(), Stream::new(config));
    }

    fn recreate_stream(&mut self, name: &str) {
        self.show(|| format!("delete {name}"));
        let answer = self.machine.api(&format!("STREAM.DELETE.{name}"), &Value::Null);
        assert_eq!(answer["success"], json!(true));
        self.streams.remove(name);
        self.create_stream(name);
    }

    fn update_stream(&mut self, name: &str) {
        let drawn = self.draw_stream(name);
        let Some(stream) = self.streams.get_mut(name) else { return };
        let mut config = stream.config.clone();
        if config.marker.is_none() {
            config.max_msgs = drawn.max_msgs;
            config.max_bytes = drawn.max_bytes;
            config.max_msg_size = drawn.max_msg_size;
            config.discard_new = drawn.discard_new;
        }
        config.max_per_subject = drawn.max_per_subject;
        config.discard_new_per_subject =
            drawn.discard_new_per_subject && config.discard_new && config.max_per_subject.is_some();
        config.max_age = drawn.max_age.filter(|age| *age >= config.window);
        let now = self.machine.time();
        let is_old = |age: i64| stream.msgs.iter().any(|msg| msg.ts + age <= now);
        if config.marker.is_some() && config.max_age.is_some_and(is_old) {
            // When exactly it is swept shows in the times of the markers.
            config.max_age = stream.config.max_age;
        }
        self.show(|| format!("update {config:?}"));
        let answer = self.machine.api(&format!("STREAM.UPDATE.{name}"), &config.json());
        assert_eq!(answer.get("error"), None, "{config:?}");
        let now = self.now();
        if let Some(stream) = self.streams.get_mut(name) {
            stream.update(config);
            // What is too old by now goes at the next look, which is not yet.
            let due = stream.next_due().filter(|due| *due <= now);
            if due.is_some() {
                self.machine.pass(Duration::from_millis(250));
                let later = self.now();
                if let Some(stream) = self.streams.get_mut(name) {
                    stream.tick(later);
                }
                self.pass_for(Duration::from_millis(750));
            }
        }
    }

    // --- Messages ---

    fn draw_publish(&mut self, name: &str) -> Publish {
        let stream = &self.streams[name];
        let chance = &mut self.chance;
        let tail = match chance.between(0, 5) {
            0 => "b.2".to_string(),
            1 => format!("b.{}.{}", chance.between(0, 1), chance.between(0, 2)),
            _ => format!("a.{}", chance.between(0, 3)),
        };
        let subject = format!("{}.{tail}", stream.config.root);
        let mut fields = Vec::new();
        if chance.happens(350) {
            fields.push(("Nats-Msg-Id", format!("id-{}", chance.between(0, 9))));
        }
        match chance.between(0, 15) {
            0 => {
                let last = stream.msgs.last + chance.between(0, 1);
                fields.push(("Nats-Expected-Last-Sequence", last.to_string()));
            }
            1 => {
                let last = stream.msgs.matching(&subject).last().map_or(0, |msg| msg.seq);
                let seq = last + chance.between(0, 1);
                fields.push(("Nats-Expected-Last-Subject-Sequence", seq.to_string()));
            }
            2 => {
                let root = &stream.config.root;
                fields.push(("Nats-Expected-Last-Subject-Sequence", stream.msgs.last.to_string()));
                fields.push(("Nats-Expected-Last-Subject-Sequence-Subject", format!("{root}.a.>")));
            }
            3 => {
                let id = format!("id-{}", chance.between(0, 9));
                fields.push(("Nats-Expected-Last-Msg-Id", id));
            }
            4 => {
                let kind = if chance.happens(250) { "all" } else { "sub" };
                fields.push(("Nats-Rollup", kind.into()));
            }
            5 if chance.happens(300) => fields.push(("Nats-Expected-Stream", "Other".into())),
            6 => fields.push(("KV-Operation", chance.pick(&["DEL", "PURGE"]).into())),
            _ => {}
        }
        let len = chance.pick(&[0, 1, 7, 30, 60]);
        let payload = chance.token(len).into_bytes();
        Publish { subject, fields, payload }
    }

    fn check_ack(&mut self, publish: &Publish, frames: &[Frame], expected: &PubAck) {
        assert_eq!(frames.len(), 1, "acks of {publish:?}");
        let answer = frames[0].json();
        let got = match answer.get("error") {
            Some(error) => PubAck::Refused(
                error["err_code"].as_u64().unwrap_or(0),
                error["description"].as_str().unwrap_or_default().into(),
            ),
            None if answer["duplicate"] == json!(true) => {
                PubAck::Duplicate(answer["seq"].as_u64().unwrap_or(0))
            }
            None => PubAck::Stored(answer["seq"].as_u64().unwrap_or(0)),
        };
        assert_eq!(&got, expected, "ack of {publish:?}");
        match got {
            PubAck::Stored(_) => self.tally.stored += 1,
            PubAck::Duplicate(_) => self.tally.duplicates += 1,
            PubAck::Refused(..) => self.tally.refused += 1,
        }
    }

    /// Several in one turn.
    fn publish(&mut self, name: &str, count: usize) {
        let now = self.now();
        let mut sent = Vec::new();
        for _ in 0..count {
            let publish = self.draw_publish(name);
            let inbox = self.machine.inbox();
            self.machine.publish(&publish.subject, &inbox, &publish.headers(), &publish.payload);
            let Some(stream) = self.streams.get_mut(name) else { return };
            let expected = stream.publish(&publish, now);
            self.show(|| format!("publish {publish:?}: {expected:?}"));
            sent.push((publish, inbox, expected));
        }
        self.machine.settle();
        for (publish, inbox, expected) in sent {
            let frames = self.machine.heard(&inbox);
            self.check_ack(&publish, &frames, &expected);
        }
    }

    /// One that has a time of its own, a bit after a beat: so it is not due at one.
    fn publish_off_beat(&mut self, name: &str) {
        self.pass_for(Duration::from_millis(300));
        let mut publish = self.draw_publish(name);
        let low = self.streams[name].config.marker.unwrap_or(1);
        let seconds = low + self.chance.between(0, 4).cast_signed();
        let ttl = if self.chance.happens(150) { "never".into() } else { format!("{seconds}s") };
        publish.fields.push(("Nats-TTL", ttl));
        let inbox = self.machine.inbox();
        self.machine.publish(&publish.subject, &inbox, &publish.headers(), &publish.payload);
        let now = self.now();
        let Some(stream) = self.streams.get_mut(name) else { return };
        let expected = stream.publish(&publish, now);
        self.show(|| format!("publish {publish:?}: {expected:?}"));
        self.machine.settle();
        let frames = self.machine.heard(&inbox);
        self.check_ack(&publish, &frames, &expected);
        self.pass_for(Duration::from_millis(700));
    }

    fn draw_purge(&mut self, name: &str) -> Purge {
        let stream = &self.streams[name];
        let chance = &mut self.chance;
        let mut purge = Purge::default();
        if chance.happens(600) {
            let filter = chance.pick(&FILTERS);
            purge.filter = Some(format!("{}.{filter}", stream.config.root));
        }
        match chance.between(0, 3) {
            0 => purge.before = Some(stream.msgs.first + chance.between(1, 12)),
            1 => purge.keep = Some(chance.between(1, 4)),
            _ => {}
        }
        purge
    }

    fn purge_body(purge: &Purge) -> Value {
        let mut body = json!({});
        if let Some(filter) = &purge.filter {
            body["filter"] = json!(filter);
        }
        if let Some(before) = purge.before {
            body["seq"] = json!(before);
        }
        if let Some(keep) = purge.keep {
            body["keep"] = json!(keep);
        }
        body
    }

    fn purge(&mut self, name: &str) {
        let purge = self.draw_purge(name);
        self.show(|| format!("purge {name} {purge:?}"));
        let answer = self.machine.api(&format!("STREAM.PURGE.{name}"), &Self::purge_body(&purge));
        let Some(stream) = self.streams.get_mut(name) else { return };
        if stream.config.deny_purge {
            assert_eq!(answer["error"]["err_code"], json!(10110));
            return;
        }
        assert_eq!(answer["purged"], json!(stream.purge(&purge)), "{purge:?}: {answer}");
    }

    fn draw_seq(&mut self, name: &str) -> u64 {
        let msgs = &self.streams[name].msgs;
        if msgs.list.is_empty() || self.chance.happens(100) {
            return msgs.first + self.chance.between(0, 3);
        }
        msgs.list[self.chance.size(0, msgs.list.len() - 1)].seq
    }

    fn delete(&mut self, name: &str) {
        let seq = self.draw_seq(name).max(1);
        self.show(|| format!("delete {name} {seq}"));
        let no_erase = self.chance.happens(500);
        let answer = self.machine.api(
            &format!("STREAM.MSG.DELETE.{name}"),
            &json!({ "seq": seq, "no_erase": no_erase }),
        );
        let Some(stream) = self.streams.get_mut(name) else { return };
        if stream.config.deny_delete {
            assert_eq!(answer["error"]["err_code"], json!(10057));
            return;
        }
        let found = stream.delete(seq);
        assert_eq!(answer["success"] == json!(true), found, "{answer}");
        if !found {
            let inside = (stream.msgs.first..=stream.msgs.last).contains(&seq);
            let code = if stream.config.memory || inside { 10043 } else { 10057 };
            assert_eq!(answer["error"]["err_code"], json!(code));
        }
    }

    // --- Consumers ---

    fn draw_consumer(&mut self, stream: &str) -> ConsumerConfig {
        let of = &self.streams[stream];
        let chance = &mut self.chance;
        let retention = of.config.retention;
        let mut config = ConsumerConfig {
            name: chance.pick(&["C", "D", "E"]).into(),
            filter: chance
                .happens(500)
                .then(|| format!("{}.{}", of.config.root, chance.pick(&FILTERS))),
            ack: chance.pick(&[
                AckPolicy::Explicit,
                AckPolicy::Explicit,
                AckPolicy::All,
                AckPolicy::None,
            ]),
            start: match chance.between(0, 7) {
                0 => Start::New,
                1 => Start::Last,
                2 => Start::At(of.msgs.first.max(1) + chance.between(0, 9)),
                3 => Start::LastPerSubject,
                _ => Start::All,
            },
            ack_wait: Consumer::off_beat(chance.between(1, 6)),
            backoff: Vec::new(),
            max_deliver: chance.happens(350).then(|| chance.between(1, 4)),
            max_ack_pending: chance.happens(400).then(|| chance.pick(&[1, 2, 3, 4, 5, 6])),
        };
        match retention {
            Retention::Limits => {}
            // A start in the middle leaves messages that nobody needs and nobody removes.
            Retention::Interest => {
                if !matches!(config.start, Start::New) {
                    config.start = Start::All;
                }
            }
            Retention::WorkQueue => {
                (config.ack, config.start) = (AckPolicy::Explicit, Start::All);
                if !of.consumers.is_empty() || config.filter.is_some() {
                    // None that overlap.
                    let filter = match &*config.name {
                        "C" => "a.*",
                        "D" => "b.2",
                        _ => "b.*.>",
                    };
                    config.filter = Some(format!("{}.{filter}", of.config.root));
                }
            }
        }
        if config.start == Start::LastPerSubject && config.filter.is_none() {
            config.filter = Some(format!("{}.>", of.config.root));
        }
        if config.ack == AckPolicy::All {
            // What an ack of all does to burned messages is nowhere said.
            config.max_deliver = None;
        }
        if config.ack == AckPolicy::None {
            (config.max_ack_pending, config.max_deliver) = (None, None);
        } else if chance.happens(200) {
            let len = chance.size(1, 3);
            config.backoff = (0..len).map(|_| Consumer::off_beat(chance.between(1, 5))).collect();
            config.max_deliver = config.max_deliver.map(|max| max.max(len as u64 + 1));
        }
        config
    }

    fn create_consumer(&mut self, stream: &str) {
        let config = self.draw_consumer(stream);
        if self.streams[stream].consumers.contains_key(&config.name) {
            return;
        }
        let name = config.name.clone();
        let of = &self.streams[stream];
        let unfiltered = |filter: &Option<String>| {
            filter.as_ref().is_none_or(|filter| filter.ends_with(".>") && !filter.contains('*'))
        };
        if of.config.retention == Retention::WorkQueue
            && of.consumers.values().any(|other| unfiltered(&other.config.filter))
        {
            return;
        }
        self.show(|| format!("consumer on {stream}: {config:?}"));
        let body = json!({ "stream_name": stream, "config": config.json() });
        let answer = self.machine.api(&format!("CONSUMER.CREATE.{stream}.{name}"), &body);
        assert_eq!(answer.get("error"), None, "{config:?}");
        self.births += 1;
        let one_each = of.config.max_per_subject == Some(1);
        let consumer = Consumer::new(config, self.births, &of.msgs, one_each);
        if let Some(of) = self.streams.get_mut(stream) {
            of.add_consumer(consumer);
        }
    }

    fn delete_consumer(&mut self) {
        let Some((stream, name)) = self.any_consumer() else { return };
        self.delete_this_consumer(&stream, &name);
    }

    fn delete_this_consumer(&mut self, stream: &str, name: &str) {
        self.show(|| format!("delete consumer {stream} {name}"));
        let answer = self.machine.api(&format!("CONSUMER.DELETE.{stream}.{name}"), &Value::Null);
        assert_eq!(answer["success"], json!(true));
        if let Some(of) = self.streams.get_mut(stream) {
            of.delete_consumer(name);
        }
    }

    /// Messages, and the status that ends them.
    fn fetch(&mut self, stream: &str, name: &str, batch: usize) -> Vec<(Held, u64, u64)> {
        let inbox = self.machine.inbox();
        let to = format!("_FETCH{}", inbox.trim_start_matches("_INBOX"));
        self.machine.say(format!("SUB {to} {to}\r\n").as_bytes());
        let body = json!({ "batch": batch, "no_wait": true }).to_string();
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}");
        self.machine.publish(&subject, &to, "", body.as_bytes());
        self.machine.settle();
        self.machine.say(format!("UNSUB {to}\r\n").as_bytes());
        let birth = self.streams[stream].consumers[name].birth;
        let mut got = Vec::new();
        let mut ended = false;
        for frame in self.machine.heard(&to) {
            assert!(!ended, "something after the end: {frame:?}");
            if let Some(status) = frame.status() {
                assert_eq!(status, "404 No Messages");
                ended = true;
                continue;
            }
            let tokens: Vec<&str> = frame.reply.split('.').collect();
            assert_eq!(tokens[..4], ["$JS", "ACK", stream, name], "{frame:?}");
            let number = |index: usize| tokens[index].parse::<u64>().expect("a number");
            let (count, seq, dseq, left) = (number(4), number(5), number(6), number(8));
            self.check_delivered(stream, seq, &frame, tokens[7]);
            let held = Held {
                stream: stream.into(),
                consumer: name.into(),
                birth,
                seq,
                dseq,
                to: frame.reply,
            };
            got.push((held, count, left));
        }
        assert_eq!(ended, got.len() < batch, "the end of a fetch of {batch}: {}", got.len());
        got
    }

    fn fetch_some(&mut self) {
        let Some((stream, name)) = self.any_consumer() else { return };
        let batch = self.chance.pick(&[1, 1, 2, 3, 8]);
        self.fetch_and_check(&stream, &name, batch);
    }

    fn fetch_and_check(&mut self, stream: &str, name: &str, batch: usize) {
        let got = self.fetch(stream, name, batch);
        let now = self.now();
        let Some(of) = self.streams.get_mut(stream) else { return };
        let expected: Vec<(u64, u64, u64, u64)> = of
            .fetch(name, batch, now)
            .into_iter()
            .map(|delivery| (delivery.seq, delivery.count, delivery.dseq, delivery.left))
            .collect();
        self.show(|| format!("fetch {batch} of {stream} {name}: {expected:?}"));
        let seen: Vec<(u64, u64, u64, u64)> =
            got.iter().map(|(held, count, left)| (held.seq, *count, held.dseq, *left)).collect();
        assert_eq!(seen, expected, "deliveries (seq, count, consumer seq, left) to {name}");
        self.tally.delivered += seen.len() as u64;
        self.tally.redelivered += seen.iter().filter(|(_, count, ..)| *count > 1).count() as u64;
        self.held.extend(got.into_iter().map(|(held, ..)| held));
        let excess = self.held.len().saturating_sub(60);
        self.held.drain(..excess);
    }

    fn draw_ack(&mut self) -> (Ack, String) {
        let delay = Consumer::off_beat(self.chance.between(1, 6));
        match self.chance.between(0, 11) {
            0..6 => (Ack::Done, self.chance.pick(&["", "+ACK", "+OK"]).into()),
            6 => (Ack::Term, self.chance.pick(&["+TERM", "+TERM no use"]).into()),
            7 | 8 => (Ack::Nak(None), "-NAK".into()),
            9 => (Ack::Nak(Some(delay)), format!("-NAK {{\"delay\":{delay}}}")),
            _ => (Ack::Progress, "+WPI".into()),
        }
    }

    fn ack_some(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let count = self.chance.size(1, 3);
        for _ in 0..count {
            let held = self.held[self.chance.size(0, self.held.len() - 1)].clone();
            let Some(of) = self.streams.get(&held.stream) else { continue };
            let Some(consumer) = of.consumers.get(&held.consumer) else { continue };
            let ack_policy = consumer.config.ack;
            if consumer.birth != held.birth || ack_policy == AckPolicy::None {
                continue;
            }
            let queued = consumer.queue.contains(&held.seq);
            let known = consumer.knows(held.seq);
            let (mut ack, mut body) = self.draw_ack();
            // Whether work in progress leaves the queue is nowhere said.
            if ack == Ack::Progress && queued {
                (ack, body) = (Ack::Done, String::new());
            }
            let sure = self.chance.happens(500);
            let now = self.now();
            self.show(|| format!("{ack:?} {held:?}, confirmed: {sure}"));
            if sure {
                let answers = self.machine.ask(&held.to, body.as_bytes());
                assert_eq!(answers.len(), usize::from(known), "answers to {ack:?} of {held:?}");
                assert!(answers.iter().all(|frame| frame.status().is_none()), "{answers:?}");
                self.tally.confirmed += 1;
            } else {
                self.machine.publish(&held.to, "", "", body.as_bytes());
                self.machine.settle();
                self.tally.acked += 1;
            }
            if let Some(of) = self.streams.get_mut(&held.stream) {
                of.ack(&held.consumer, held.seq, held.dseq, ack, sure, now);
            }
        }
    }

    // --- Ends ---

    fn restart(&mut self) {
        self.show(|| "restart".into());
        self.machine.restart();
        self.tally.restarts += 1;
        self.streams.retain(|_, stream| !stream.config.memory);
        let mut behind = Vec::new();
        for (name, stream) in &mut self.streams {
            stream.restarted();
            for consumer in stream.consumers.values() {
                if !consumer.queue.is_empty() {
                    behind.push((name.clone(), consumer.config.name.clone()));
                }
            }
        }
        self.check_messages();
        if behind.is_empty() {
            return;
        }
        // Of what was queued only the deadlines are kept, so the order is anybody's.
        self.pass(LONG);
        for (stream, name) in behind {
            self.catch_up(&stream, &name);
        }
    }

    /// Fetches everything, in any order; all of it was to be delivered.
    fn catch_up(&mut self, stream: &str, name: &str) {
        let got = self.fetch(stream, name, WHOLE);
        let now = self.now();
        let Some(of) = self.streams.get_mut(stream) else { return };
        let mut expected: BTreeSet<u64> =
            of.fetch(name, WHOLE, now).into_iter().map(|delivery| delivery.seq).collect();
        for (held, ..) in &got {
            assert!(expected.remove(&held.seq), "{name} was to have {} only later", held.seq);
        }
        assert!(expected.is_empty(), "{name} never has {expected:?}");
    }

    /// The process or the machine goes, perhaps in the middle of something.
    fn die(&mut self, name: &str) {
        let death = self.chance.pick(&[Death::Sigkill, Death::PowerCut]);
        let before = self.streams.clone();
        let mut states = vec![before.clone()];
        if self.chance.happens(700) {
            let operations = self.chance.between(0, 14);
            self.show(|| format!("{death:?} after {operations} operations"));
            self.machine.kill_after(operations);
            if let Some((after, is_ack)) = self.interrupted(name) {
                // What was answered happened. An ack that was not may have.
                if !self.machine.is_dying() || is_ack {
                    states.clear();
                }
                states.push(after);
                self.tally.interrupted += 1;
            }
        } else {
            self.show(|| format!("{death:?}"));
        }
        self.machine.die(death);
        self.tally.deaths += 1;
        for streams in &mut states {
            streams.retain(|_, stream| !stream.config.memory);
        }
        self.machine.pass(Duration::from_secs(1));
        let end = self.now();
        for streams in &mut states {
            for stream in streams.values_mut() {
                while let Some(due) = stream.next_due().filter(|due| *due <= end) {
                    stream.tick(due);
                }
            }
        }
        self.choose(states);
        self.check_messages();
        let consumers: Vec<(String, String)> = self
            .streams
            .iter()
            .flat_map(|(stream, of)| of.consumers.keys().map(|name| (stream.clone(), name.clone())))
            .collect();
        let found = self.streams.iter().map(|(name, of)| (name.clone(), of.msgs.clone()));
        self.found = Some(found.collect());
        for (stream, name) in consumers {
            self.drain(&stream, &name);
        }
        self.found = None;
    }

    /// Begins something that the end may interrupt; the model as if it had not, and whether
    /// it was an ack.
    fn interrupted(&mut self, name: &str) -> Option<(BTreeMap<String, Stream>, bool)> {
        let mut after = self.streams.clone();
        let mut is_ack = false;
        let now = self.now();
        let of = after.get_mut(name)?;
        match self.chance.between(0, 9) {
            0..5 => {
                let publish = self.draw_publish(name);
                self.show(|| format!("meanwhile publish {publish:?}"));
                let inbox = self.machine.inbox();
                self.machine.publish(
                    &publish.subject,
                    &inbox,
                    &publish.headers(),
                    &publish.payload,
                );
                of.publish(&publish, now);
                self.machine.settle();
            }
            5 => {
                let purge = self.draw_purge(name);
                self.show(|| format!("meanwhile purge {purge:?}"));
                self.machine.api(&format!("STREAM.PURGE.{name}"), &Self::purge_body(&purge));
                if !of.config.deny_purge {
                    of.purge(&purge);
                }
            }
            6 => {
                let seq = self.draw_seq(name).max(1);
                self.show(|| format!("meanwhile delete {seq}"));
                self.machine.api(&format!("STREAM.MSG.DELETE.{name}"), &json!({ "seq": seq }));
                if !of.config.deny_delete {
                    of.delete(seq);
                }
            }
            _ => {
                let held: Vec<&Held> = self
                    .held
                    .iter()
                    .filter(|held| held.stream == name)
                    .filter(|held| {
                        let consumer = of.consumers.get(&held.consumer);
                        consumer.is_some_and(|consumer| {
                            consumer.birth == held.birth && consumer.config.ack != AckPolicy::None
                        })
                    })
                    .collect();
                if held.is_empty() {
                    return None;
                }
                let held = held[self.chance.size(0, held.len() - 1)].clone();
                self.show(|| format!("meanwhile ack {held:?}"));
                let answers = self.machine.ask(&held.to, b"");
                let sure = !answers.is_empty();
                is_ack = true;
                of.ack(&held.consumer, held.seq, held.dseq, Ack::Done, sure, now);
            }
        }
        Some((after, is_ack))
    }

    /// After an end nobody knows exactly where a consumer is. What was confirmed does not
    /// come again; what was never acknowledged does.
    fn drain(&mut self, stream: &str, name: &str) {
        self.pass(LONG);
        let mut seen = BTreeSet::new();
        for _ in 0..500 {
            let got = self.fetch(stream, name, WHOLE);
            let is_bounded = self.streams[stream].consumers[name].config.max_ack_pending.is_some();
            let before = seen.len();
            seen.extend(got.iter().map(|(held, ..)| held.seq));
            if got.is_empty() || (!is_bounded && before == seen.len()) {
                break;
            }
            if is_bounded {
                // Only what is acknowledged makes room.
                for (held, ..) in &got {
                    self.machine.ask(&held.to, b"");
                }
            } else {
                break;
            }
        }
        let of = &self.streams[stream];
        let consumer = &of.consumers[name];
        self.show(|| format!("drained {stream} {name}: {seen:?}"));
        for seq in &seen {
            assert!(!consumer.sure.contains(seq), "{name} has {seq} again after a confirmed ack");
        }
        let found = self.found.as_ref().expect("there was a crash");
        for msg in found[stream].iter().filter(|msg| consumer.needs(msg)) {
            let max = consumer.config.max_deliver.unwrap_or(u64::MAX);
            let count = consumer.counts.get(&msg.seq).copied().unwrap_or(0);
            let is_old = of.due(msg).is_some_and(|due| due <= self.machine.time());
            if count < max && !is_old && !consumer.burned.contains(&msg.seq) {
                assert!(seen.contains(&msg.seq), "{name} never has {} again", msg.seq);
            }
        }
        // Consumers of an interest stream may have been anywhere; with the last of them all
        // of it goes.
        let retention = of.config.retention;
        if retention == Retention::WorkQueue
            && consumer.config.max_ack_pending.is_some()
            && let Some(of) = self.streams.get_mut(stream)
        {
            for seq in seen {
                of.drained(name, seq);
            }
        }
        self.delete_this_consumer(stream, name);
    }

    /// The state that the machine is in, of those it may be in.
    fn choose(&mut self, states: Vec<BTreeMap<String, Stream>>) {
        let held: BTreeMap<String, Msgs> =
            states[0].keys().map(|name| (name.clone(), self.held_messages(name))).collect();
        let mut why = String::new();
        for mut state in states {
            let fits = state.iter_mut().all(|(name, stream)| match stream.adopt(&held[name]) {
                Ok(()) => true,
                Err(text) => {
                    why = format!("{name}: {text}");
                    false
                }
            });
            if fits {
                self.streams = state;
                return;
            }
        }
        panic!("after the end: {why}");
    }
}
