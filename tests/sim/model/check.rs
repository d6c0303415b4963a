//! What has to agree.

use serde_json::{Value, json};

use super::consumer::AckPolicy;
use super::machine::{BEGIN, Frame};
use super::steps::{FILTERS, Run};
use super::stream::{Msg, Msgs, Ttl};

/// The time in an RFC 3339 text, in nanoseconds since the beginning.
fn time(text: &str) -> i64 {
    let (head, rest) = text.split_at(19);
    let fraction = rest.trim_end_matches('Z').trim_start_matches('.');
    let nanos: i64 = format!("{fraction:0<9}").parse().expect("a fraction");
    let part = |range: std::ops::Range<usize>| head[range].parse::<i64>().expect("a number");
    // Days since 1970, by the usual trick of a year that begins in March.
    let (year, month, day) = (part(0..4), part(5..7), part(8..10));
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let days =
        year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 719_469;
    let seconds = days * 86_400 + part(11..13) * 3600 + part(14..16) * 60 + part(17..19);
    seconds * 1_000_000_000 + nanos - BEGIN
}

impl Run {
    /// Every number that is shown.
    pub(crate) fn check(&mut self) {
        let names: Vec<String> = self.streams.keys().cloned().collect();
        for name in names {
            self.check_stream(&name);
            let consumers: Vec<String> = self.streams[&name].consumers.keys().cloned().collect();
            for consumer in consumers {
                self.check_consumer(&name, &consumer);
            }
        }
    }

    fn check_stream(&mut self, name: &str) {
        let body = json!({ "deleted_details": true, "subjects_filter": ">" });
        let answer = self.machine.api(&format!("STREAM.INFO.{name}"), &body);
        let state = &answer["state"];
        let stream = &self.streams[name];
        let msgs = &stream.msgs;
        let mut subjects = serde_json::Map::new();
        for msg in msgs.iter() {
            let count = subjects.entry(&msg.subject).or_insert(json!(0));
            *count = json!(count.as_u64().unwrap_or(0) + 1);
        }
        let alive: Vec<u64> = msgs.iter().map(|msg| msg.seq).collect();
        let deleted: Vec<u64> = match alive.first() {
            Some(first) => (*first..=msgs.last).filter(|seq| !alive.contains(seq)).collect(),
            None => Vec::new(),
        };
        let or_null = |value: Value, is_empty: bool| if is_empty { Value::Null } else { value };
        let expected = json!({
            "messages": msgs.list.len(),
            "bytes": stream.bytes(),
            "first_seq": msgs.first,
            "last_seq": msgs.last,
            "num_subjects": or_null(json!(subjects.len()), subjects.is_empty()),
            "subjects": or_null(json!(subjects), subjects.is_empty()),
            "num_deleted": or_null(json!(deleted.len()), deleted.is_empty()),
            "deleted": or_null(json!(deleted), deleted.is_empty()),
            "consumer_count": stream.consumers.len(),
        });
        for (field, expected) in expected.as_object().expect("an object") {
            let got = state.get(field).unwrap_or(&Value::Null);
            assert_eq!(got, expected, "{field} of {name}");
        }
    }

    fn check_consumer(&mut self, stream: &str, name: &str) {
        let answer = self.machine.api(&format!("CONSUMER.INFO.{stream}.{name}"), &Value::Null);
        let of = &self.streams[stream];
        let consumer = &of.consumers[name];
        let got = |path: &str| {
            answer.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{answer}"))
        };
        let numbers = [
            ("delivered", got("/delivered/consumer_seq"), consumer.dseq),
            ("pending acks", got("/num_ack_pending"), consumer.pending.len() as u64),
            ("redelivered", got("/num_redelivered"), consumer.redelivered()),
            ("pending", got("/num_pending"), consumer.left(&of.msgs)),
            ("waiting", got("/num_waiting"), 0),
        ];
        for (what, got, expected) in numbers {
            assert_eq!(got, expected, "{what} of {name}");
        }
        let floor = (got("/ack_floor/consumer_seq"), got("/ack_floor/stream_seq"));
        if let Some((first, _)) = consumer.pending.first_key_value() {
            assert!(floor.1 < *first, "the floor of {name} is at {floor:?}, {first} is pending");
            // An ack of all may come through a redelivery, which has a later number.
            let is_all = consumer.config.ack == AckPolicy::All;
            assert!(
                is_all || floor.0 < consumer.pending[first].dseq,
                "the floor of {name}: {floor:?}"
            );
        } else {
            assert!(floor.0 <= consumer.dseq, "the floor of {name}: {floor:?}");
        }
        if !consumer.moved {
            assert_eq!(floor.0, consumer.floor.0, "the floor of {name}");
        }
    }

    /// What was delivered is what was stored.
    pub(crate) fn check_delivered(&self, stream: &str, seq: u64, frame: &Frame, ts: &str) {
        let msgs = match &self.found {
            Some(found) => &found[stream],
            None => &self.streams[stream].msgs,
        };
        let Some(msg) = msgs.iter().find(|msg| msg.seq == seq) else {
            panic!("{seq} was delivered and is not there");
        };
        assert_eq!(frame.subject, msg.subject);
        assert_eq!(frame.headers, msg.headers);
        assert_eq!(frame.payload, msg.payload);
        assert_eq!(ts.parse::<i64>().map(|ts| ts - BEGIN), Ok(msg.ts), "the time of {seq}");
    }

    /// Every message the machine has.
    pub(crate) fn held_messages(&mut self, name: &str) -> Msgs {
        let info = self.machine.api(&format!("STREAM.INFO.{name}"), &Value::Null);
        let number =
            |field: &str| info["state"][field].as_u64().unwrap_or_else(|| panic!("{info}"));
        let mut msgs =
            Msgs { list: Vec::new(), first: number("first_seq"), last: number("last_seq") };
        let body = json!({ "batch": 10_000, "seq": 1 }).to_string();
        for frame in self.machine.ask(&format!("$JS.API.DIRECT.GET.{name}"), body.as_bytes()) {
            if let Some(status) = frame.status() {
                assert!(["204 EOB", "404 Message Not Found"].contains(&status), "{status}");
                continue;
            }
            msgs.list.push(read(&frame));
        }
        assert_eq!(msgs.list.len() as u64, number("messages"), "messages of {name}");
        msgs
    }

    /// Every message, and a few in other ways.
    pub(crate) fn check_messages(&mut self) {
        self.show(|| "look at everything".into());
        let names: Vec<String> = self.streams.keys().cloned().collect();
        for name in names {
            let held = self.held_messages(&name);
            let of = &self.streams[&name];
            assert_eq!(held.list.len(), of.msgs.list.len(), "messages of {name}");
            for (got, expected) in held.list.iter().zip(of.msgs.iter()) {
                assert_eq!(got, &Msg { ttl: Ttl::None, ..expected.clone() }, "a message of {name}");
            }
            self.check_gets(&name);
        }
    }

    fn check_gets(&mut self, name: &str) {
        let msgs = self.streams[name].msgs.clone();
        let root = self.streams[name].config.root.clone();
        let filter = format!("{root}.{}", self.chance.pick(&FILTERS));
        let seq = msgs.first.max(1) + self.chance.between(0, 12);
        let hits: Vec<&Msg> = msgs.matching(&filter).collect();
        let find = |wanted: Option<&Msg>| wanted.map(|msg| msg.seq);
        let expected = [
            (json!({ "seq": seq }), find(msgs.iter().find(|msg| msg.seq == seq))),
            (json!({ "last_by_subj": filter }), find(hits.last().copied())),
            (
                json!({ "next_by_subj": filter, "seq": seq }),
                find(hits.iter().find(|msg| msg.seq >= seq).copied()),
            ),
        ];
        for (body, expected) in expected {
            let answer = self.machine.api(&format!("STREAM.MSG.GET.{name}"), &body);
            let got = answer.pointer("/message/seq").and_then(Value::as_u64);
            assert_eq!(got, expected, "{body}: {answer}");
            let subject = format!("$JS.API.DIRECT.GET.{name}");
            let direct = self.machine.ask(&subject, body.to_string().as_bytes());
            assert_eq!(direct.len(), 1, "{body}");
            let got = direct[0].header("Nats-Sequence").and_then(|seq| seq.parse().ok());
            assert_eq!(got, expected, "direct {body}: {direct:?}");
        }
        let mut newest: Vec<u64> = hits
            .iter()
            .map(|msg| (msg.subject.as_str(), msg.seq))
            .collect::<std::collections::BTreeMap<_, _>>()
            .into_values()
            .collect();
        newest.sort_unstable();
        let body = json!({ "multi_last": [filter] }).to_string();
        let answers = self.machine.ask(&format!("$JS.API.DIRECT.GET.{name}"), body.as_bytes());
        let got: Vec<u64> = answers
            .iter()
            .filter_map(|frame| frame.header("Nats-Sequence")?.parse().ok())
            .collect();
        assert_eq!(got, newest, "{body}");
    }
}

/// A message as direct get shows it, without what that adds.
fn read(frame: &Frame) -> Msg {
    let header = |name| frame.header(name).unwrap_or_else(|| panic!("no {name} in {frame:?}"));
    let added = frame.headers.find("Nats-Stream: ").expect("it is added");
    let own = &frame.headers[..added];
    Msg {
        seq: header("Nats-Sequence").parse().expect("a number"),
        ts: time(header("Nats-Time-Stamp")),
        subject: header("Nats-Subject").into(),
        headers: if own == "NATS/1.0\r\n" { String::new() } else { format!("{own}\r\n") },
        payload: frame.payload.clone(),
        ttl: Ttl::None,
    }
}
