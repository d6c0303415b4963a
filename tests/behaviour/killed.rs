//! The process is killed again and again under load: what was promised holds.
//!
//! One client publishes with message ids and tries again what was not acknowledged, takes
//! work from a queue and confirms it with double acks, as fast as it can. The server is
//! killed in the middle of all that and started on its files.
//!
//! `SEDGE_KILLS` says how often (default: a few).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::raw_client::{DEADLINE, Frame, Message, NoFrame, RawClient};
use crate::server::Server;
use crate::storage::request;

/// Publishes on their way at a time, to each stream.
const WINDOW: usize = 150;
/// Work asked for at a time.
const BATCH: usize = 60;

/// What the client was told, and when.
#[derive(Debug, Default)]
struct Promises {
    /// The next number to be published.
    next: u64,
    /// Published and not acknowledged: the number, and its streams.
    open: BTreeSet<(u64, &'static str)>,
    /// Acknowledged: before which kill, when, and the sequence.
    acked: BTreeMap<(u64, &'static str), (usize, Instant, u64)>,
    /// Rounds begun.
    begun: usize,
    /// Work that was delivered, and its ack sent.
    taken: BTreeSet<u64>,
    /// Work whose ack was confirmed.
    done: BTreeSet<u64>,
    /// Work delivered more than once after it was confirmed.
    again: Vec<u64>,
    /// Retried publishes that had been stored.
    duplicates: u64,
    /// Wanted and not yet delivered.
    asked: usize,
    /// When the server was killed.
    kills: Vec<Instant>,
}

fn publish(client: &mut RawClient, number: u64, stream: &str) {
    let subject = format!("{stream}.{}", number % 37);
    let headers = format!("NATS/1.0\r\nNats-Msg-Id: {number}\r\n\r\n");
    let payload = number.to_string();
    let total = headers.len() + payload.len();
    client.send(format!(
        "HPUB {subject} ack.{stream}.{number} {} {total}\r\n{headers}{payload}\r\n",
        headers.len()
    ));
}

impl Promises {
    /// Says again what was not acknowledged, and asks for work.
    fn begin(&mut self, client: &mut RawClient) {
        client.send("SUB ack.> 1\r\nSUB done.> 2\r\nSUB work 3\r\n");
        self.asked = 0;
        self.begun += 1;
        for (number, stream) in self.open.iter().copied().collect::<Vec<_>>() {
            publish(client, number, stream);
        }
        self.keep_busy(client);
    }

    fn keep_busy(&mut self, client: &mut RawClient) {
        while self.open.len() < 2 * WINDOW {
            let number = self.next;
            self.next += 1;
            for stream in ["s", "w"] {
                self.open.insert((number, stream));
                publish(client, number, stream);
            }
        }
        if self.asked == 0 {
            self.asked = BATCH;
            let body = format!("{{\"batch\":{BATCH},\"expires\":60000000000}}");
            let subject = "$JS.API.CONSUMER.MSG.NEXT.W.C";
            client.publish_with_reply(subject, "work", body.as_bytes());
        }
    }

    /// Takes one frame.
    fn hear(&mut self, client: &mut RawClient, frame: &Frame) {
        let now = Instant::now();
        let Frame::Message(message) = frame else { return };
        let text = String::from_utf8_lossy(&message.payload).into_owned();
        if message.sid == "1" {
            let answer: serde_json::Value = serde_json::from_str(&text).expect("acks are JSON");
            let seq = answer["seq"].as_u64().filter(|seq| *seq > 0);
            let seq = seq.unwrap_or_else(|| panic!("not stored: {text}"));
            self.duplicates += u64::from(answer["duplicate"] == true);
            let mut tokens = message.subject.split('.').skip(1);
            let stream = if tokens.next() == Some("s") { "s" } else { "w" };
            let number = tokens.next().and_then(|token| token.parse().ok()).expect("a number");
            self.open.remove(&(number, stream));
            let told = (self.begun, now, seq);
            if let Some((.., before)) = self.acked.insert((number, stream), told) {
                assert_eq!(before, seq, "{stream} {number} is stored twice");
            }
        } else if message.sid == "2" {
            let number = message.subject[5..].parse().expect("a number");
            self.done.insert(number);
        } else if let Some(ack) = &message.reply {
            self.asked = self.asked.saturating_sub(1);
            let number = text.parse().expect("work is numbers");
            if self.done.contains(&number) {
                self.again.push(number);
            }
            self.taken.insert(number);
            client.send(format!("PUB {ack} done.{number} 0\r\n\r\n"));
        }
    }
}

fn prepare(client: &mut RawClient) {
    for (stream, more) in [("S", ""), ("W", ",\"retention\":\"workqueue\"")] {
        let subject = stream.to_lowercase();
        let body = format!(
            "{{\"name\":\"{stream}\",\"subjects\":[\"{subject}.>\"],\"allow_direct\":true{more}}}"
        );
        let answer = request(client, &format!("$JS.API.STREAM.CREATE.{stream}"), &body);
        assert!(answer["error"].is_null(), "{answer}");
    }
    let body = "{\"stream_name\":\"W\",\"config\":{\"durable_name\":\"C\",\"ack_policy\":\
                \"explicit\",\"ack_wait\":1000000000,\"max_ack_pending\":5000}}";
    let answer = request(client, "$JS.API.CONSUMER.DURABLE.CREATE.W.C", body);
    assert!(answer["error"].is_null(), "{answer}");
}

/// Loads the server until `enough` says so, kills it, and starts it again.
fn round(server: &mut Server, promises: &mut Promises, enough: impl Fn(usize) -> bool) {
    let mut client = RawClient::greet(server.address());
    promises.begin(&mut client);
    let mut heard = 0;
    while !enough(heard) {
        let frame = match client.next_frame(Instant::now() + DEADLINE) {
            Ok(frame) => frame,
            Err(why) => panic!("{why:?} after {heard} frames; the log:\n{}", server.log()),
        };
        heard += 1;
        promises.hear(&mut client, &frame);
        if heard % 16 == 0 {
            promises.keep_busy(&mut client);
        }
    }
    let killed = Instant::now();
    promises.kills.push(killed);
    server.restart(true).expect("it starts after a kill");
    // What it said before it died was promised too.
    loop {
        match client.next_frame(Instant::now() + DEADLINE) {
            Ok(frame) => promises.hear(&mut client, &frame),
            Err(NoFrame::Closed) => break,
            Err(NoFrame::TimedOut) => panic!("a dead server keeps its connection"),
        }
    }
}

/// The numbers in a stream, in its order.
fn stored(client: &mut RawClient, stream: &str) -> Vec<u64> {
    let info = request(client, &format!("$JS.API.STREAM.INFO.{stream}"), "");
    let count = info["state"]["messages"].as_u64().unwrap_or_else(|| panic!("{info}"));
    let mut numbers = Vec::new();
    let mut from = 1;
    client.send("SUB got got\r\n");
    while (numbers.len() as u64) < count {
        let body = format!("{{\"seq\":{from},\"batch\":1000}}");
        let subject = format!("$JS.API.DIRECT.GET.{stream}");
        client.publish_with_reply(&subject, "got", body.as_bytes());
        loop {
            let Ok(Frame::Message(message)) = client.next_frame(Instant::now() + DEADLINE) else {
                panic!("{} of {count} messages came", numbers.len());
            };
            if message.headers.starts_with(b"NATS/1.0 ") {
                break;
            }
            from = sequence(&message) + 1;
            let text = String::from_utf8_lossy(&message.payload).into_owned();
            numbers.push(text.parse().expect("the payloads are numbers"));
        }
    }
    client.send("UNSUB got\r\n");
    numbers
}

fn sequence(message: &Message) -> u64 {
    let headers = String::from_utf8_lossy(&message.headers).into_owned();
    let field = headers.lines().find_map(|line| line.strip_prefix("Nats-Sequence: "));
    field.and_then(|text| text.parse().ok()).expect("direct get names the sequence")
}

fn kills(default: u64) -> u64 {
    std::env::var("SEDGE_KILLS").map_or(default, |text| text.parse().expect("a number"))
}

/// Everything acknowledged and not there, of one stream, with how long before the kill that
/// was. Work whose ack was sent is not missed.
fn lost(promises: &Promises, stream: &'static str, held: &[u64]) -> Vec<(u64, Duration)> {
    let held: BTreeSet<u64> = held.iter().copied().collect();
    let acked = promises.acked.iter().filter(|((_, of), _)| *of == stream);
    acked
        .filter(|((number, _), _)| !held.contains(number))
        .filter(|((number, _), _)| stream == "s" || !promises.taken.contains(number))
        .map(|((number, _), (round, at, _))| {
            // What was read after the kill was said just before it.
            (*number, promises.kills[round - 1].saturating_duration_since(*at))
        })
        .collect()
}

fn is_unique(numbers: &[u64]) -> bool {
    numbers.iter().collect::<BTreeSet<_>>().len() == numbers.len()
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_confirmed_comes_again_however_often_it_is_killed() {
    let config = "jetstream { store_dir: \"$DIR/store\", max_mem: 0 }";
    let mut server = Server::sedge(config);
    prepare(&mut RawClient::greet(server.address()));
    let mut promises = Promises::default();
    for number in 0..kills(8) {
        // After some hundred frames, never the same number.
        let enough = 40 + usize::try_from(number * 7919 % 1500).expect("small");
        round(&mut server, &mut promises, |heard| heard >= enough);
    }
    let mut client = RawClient::greet(server.address());
    let held = stored(&mut client, "S");
    assert!(is_unique(&held), "a publish that was tried again is stored twice");
    let gone = lost(&promises, "s", &held);
    assert!(gone.is_empty(), "{} acknowledged and lost: {:?}", gone.len(), gone[0]);
    let held = stored(&mut client, "W");
    assert!(is_unique(&held), "work that was tried again is stored twice");
    let gone = lost(&promises, "w", &held);
    assert!(gone.is_empty(), "{} acknowledged, not done and lost: {:?}", gone.len(), gone[0]);
    assert!(promises.again.is_empty(), "confirmed work came again: {:?}", promises.again);
    let undone = held.iter().filter(|number| promises.done.contains(number)).count();
    assert_eq!(undone, 0, "confirmed work is still in the queue");
    println!(
        "{} kills: {} acks, {} duplicates refused, {} works confirmed",
        promises.kills.len(),
        promises.acked.len(),
        promises.duplicates,
        promises.done.len()
    );
}

#[test]
fn with_relaxed_sync_a_kill_costs_no_more_than_the_interval() {
    const INTERVAL: Duration = Duration::from_millis(150);
    // A sync takes its time, on a machine that does other things too.
    const GRACE: Duration = Duration::from_millis(350);
    let config = "jetstream { store_dir: \"$DIR/store\", max_mem: 0, sync_interval: \"150ms\" }";
    let mut server = Server::sedge(config);
    prepare(&mut RawClient::greet(server.address()));
    let mut promises = Promises::default();
    for _ in 0..kills(3) {
        let until = Instant::now() + INTERVAL + GRACE + INTERVAL;
        round(&mut server, &mut promises, |_| Instant::now() >= until);
    }
    let mut client = RawClient::greet(server.address());
    let held = stored(&mut client, "S");
    assert!(is_unique(&held), "a publish that was tried again is stored twice");
    let gone = lost(&promises, "s", &held);
    for (number, before) in &gone {
        assert!(*before <= INTERVAL + GRACE, "{number} was acknowledged {before:?} before a kill");
    }
    println!(
        "{} kills: {} acks, {} of them lost",
        promises.kills.len(),
        promises.acked.len(),
        gone.len()
    );
}
