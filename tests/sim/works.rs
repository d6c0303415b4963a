//! Work in a queue: is any of it lost before it is done, or back after that was confirmed?
//!
//! The gateway of the other simulation, and one client that publishes work, takes it, and
//! acknowledges it in every way there is, mostly so that the ack is confirmed. Power cuts,
//! kills, ill disks and lost connections come in between. The stream is a work queue or an
//! interest stream; work that is published again after an outage must be known by its id.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sedge::store::SyncPolicy;
use sedge::time::{Duration, Instant};

use crate::chance::Chance;
use crate::disk::Illness;
use crate::gateway::{Around, Death, Gateway, GatewayPlan, Way};
use crate::ledger::{Ledger, payload, reading};
use crate::link::{ConnNo, Net, Read, Route, Side, Who};
use crate::trace::Trace;
use crate::{Results, each_seed_of, none_broken, number};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const SEEDS: u64 = 150;
const EVENTS_MAX: u64 = 2_000_000;
/// Without an answer for so long, the client asks again.
const PATIENCE: Duration = Duration::from_secs(3);
/// After all is mended, by then all work must be done.
const CALM: Duration = Duration::from_mins(2);

/// A piece of work, as the client knows it.
#[derive(Clone, Copy, Debug, Default)]
struct Work {
    /// When it was last published on this connection.
    sent_at: Option<Instant>,
    acked: bool,
    /// Its place in the stream.
    seq: Option<u64>,
    /// An ack was sent.
    done: bool,
    /// The ack was confirmed.
    confirmed: bool,
}

struct Client {
    chance: Chance,
    conn: Option<ConnNo>,
    dial_at: Instant,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Requests that make the stream and the consumer, in order.
    setup: VecDeque<(String, String)>,
    setup_at: Option<Instant>,
    works: BTreeMap<u32, Work>,
    next_at: Instant,
    pull_at: Option<Instant>,
    asked: usize,
    stopped: bool,
    confirmed: u64,
    broken: Option<String>,
}

impl Client {
    fn new(mut chance: Chance) -> Self {
        let retention = chance.pick(&["workqueue", "workqueue", "interest"]);
        let wait = chance.between(1, 6) * 1_000_000_000;
        let pending = chance.pick(&[-1, 5, 40]);
        let stream = format!(
            r#"{{"name":"W","subjects":["w.>"],"retention":"{retention}","duplicate_window":86400000000000}}"#
        );
        let consumer = format!(
            r#"{{"stream_name":"W","config":{{"durable_name":"C","ack_policy":"explicit","ack_wait":{wait},"max_ack_pending":{pending}}}}}"#
        );
        Self {
            chance,
            conn: None,
            dial_at: Instant(0),
            input: Vec::new(),
            output: Vec::new(),
            setup: VecDeque::from([
                ("$JS.API.STREAM.CREATE.W".into(), stream),
                ("$JS.API.CONSUMER.DURABLE.CREATE.W.C".into(), consumer),
            ]),
            setup_at: None,
            works: BTreeMap::new(),
            next_at: Instant(0),
            pull_at: None,
            asked: 0,
            stopped: false,
            confirmed: 0,
            broken: None,
        }
    }

    fn connected(&mut self, now: Instant, conn: ConnNo) {
        self.conn = Some(conn);
        self.input.clear();
        self.output = b"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\n\
            SUB _INBOX.> 1\r\nSUB work 2\r\n"
            .to_vec();
        for work in self.works.values_mut() {
            work.sent_at = None;
        }
        self.setup_at = (!self.setup.is_empty()).then_some(now);
        self.pull_at = Some(now);
        self.asked = 0;
    }

    fn lost(&mut self, now: Instant, net: &mut Net) {
        if let Some(conn) = self.conn.take() {
            net.close(now, conn, Side::Peer);
        }
        self.dial_at = now + self.chance.span(MS, MS * 500);
    }

    fn is_ready(&self) -> bool {
        self.setup.is_empty()
    }

    fn is_done(&self) -> bool {
        self.stopped && self.works.values().all(|work| work.acked && work.done)
    }

    fn unsent(&self) -> bool {
        self.is_ready() && self.works.values().any(|work| !work.acked && work.sent_at.is_none())
    }

    fn next_at(&self, net: &Net) -> Option<Instant> {
        let conn = self.conn?;
        let write =
            (!self.output.is_empty() && net.has_room(conn, Side::Peer)).then_some(Instant(0));
        let open = self.works.values().filter(|work| !work.acked).filter_map(|work| work.sent_at);
        let again = open.min().map(|at| at + PATIENCE);
        let make = (self.is_ready() && !self.stopped).then_some(self.next_at);
        let pull = self.pull_at.filter(|_| self.is_ready());
        let unsent = self.unsent().then_some(Instant(0));
        [net.readable_at(conn, Side::Peer), write, again, make, pull, self.setup_at, unsent]
            .into_iter()
            .flatten()
            .min()
    }

    fn say(&mut self, subject: &str, reply: &str, body: &str) {
        let line = format!("PUB {subject} {reply} {}\r\n{body}\r\n", body.len());
        self.output.extend(line.into_bytes());
    }

    fn run(&mut self, now: Instant, net: &mut Net, trace: &mut Trace) {
        let Some(conn) = self.conn else { return };
        let max = self.chance.pick(&[30, 500, 65_536]);
        match net.read(now, conn, Side::Peer, max) {
            Read::Nothing => {}
            Read::End => return self.lost(now, net),
            Read::Bytes(bytes) => {
                self.input.extend(bytes);
                self.read(now, trace);
            }
        }
        if self.setup_at.is_some_and(|at| at <= now)
            && let Some((subject, body)) = self.setup.front().cloned()
        {
            self.setup_at = Some(now + PATIENCE);
            self.say(&subject, "_INBOX.s.0", &body);
        }
        if self.is_ready() {
            self.publish(now);
            if self.pull_at.is_some_and(|at| at <= now) {
                let batch = self.chance.pick(&[1, 5, 30]);
                self.asked = batch;
                self.pull_at = Some(now + SECOND * 4);
                let body = format!(r#"{{"batch":{batch},"expires":3000000000}}"#);
                self.say("$JS.API.CONSUMER.MSG.NEXT.W.C", "work", &body);
            }
        }
        if !self.output.is_empty() {
            match net.write(now, conn, Side::Peer, &self.output) {
                Some(count) => drop(self.output.drain(..count)),
                None => self.lost(now, net),
            }
        }
    }

    fn publish(&mut self, now: Instant) {
        if !self.stopped && self.next_at <= now {
            for _ in 0..self.chance.pick(&[1, 1, 3, 12]) {
                let number = u32::try_from(self.works.len()).unwrap_or(0) + 1;
                self.works.insert(number, Work::default());
            }
            self.next_at = now + self.chance.span(MS, SECOND * 2);
        }
        for (number, work) in &mut self.works {
            let late = work.sent_at.is_some_and(|at| at + PATIENCE <= now);
            if work.acked || (work.sent_at.is_some() && !late) {
                continue;
            }
            work.sent_at = Some(now);
            let headers = format!("NATS/1.0\r\nNats-Msg-Id: {number}\r\n\r\n");
            let body = payload((0, *number), 30);
            let line = format!(
                "HPUB w.{} _INBOX.p.{number} {} {}\r\n{headers}",
                number % 7,
                headers.len(),
                headers.len() + body.len()
            );
            self.output.extend(line.into_bytes());
            self.output.extend(body);
            self.output.extend(b"\r\n");
        }
    }

    fn read(&mut self, now: Instant, trace: &mut Trace) {
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        while let Some(end) = memchr::memmem::find(rest, b"\r\n") {
            let line = String::from_utf8_lossy(&rest[..end]).into_owned();
            let words: Vec<&str> = line.split(' ').collect();
            let mut used = end + 2;
            match words[0] {
                "PING" => self.output.extend(b"PONG\r\n"),
                "MSG" | "HMSG" => {
                    let total: usize = words[words.len() - 1].parse().unwrap_or(0);
                    let Some(body) = rest.get(used..used + total + 2) else { break };
                    let skip = match words[0] {
                        "HMSG" => words[words.len() - 2].parse().unwrap_or(0),
                        _ => 0,
                    };
                    used += total + 2;
                    self.hear(now, &words, skip > 0, &body[skip..total], trace);
                }
                "-ERR" => {
                    self.broken.get_or_insert(format!("the client was told {line}"));
                }
                _ => {}
            }
            rest = &rest[used..];
        }
        self.input = rest.to_vec();
    }

    fn hear(
        &mut self,
        now: Instant,
        words: &[&str],
        headers: bool,
        body: &[u8],
        trace: &mut Trace,
    ) {
        trace.line(now, || format!("client: {words:?} {}", body.escape_ascii()));
        if words[2] == "2" {
            if let Some((_, number)) = reading(body) {
                return self.take(now, number, words[3]);
            }
            // A status: the request is over.
            if headers {
                self.asked = 0;
                self.pull_at = Some(now + self.chance.span(MS, MS * 300));
            }
            return;
        }
        let mut tokens = words[1].split('.').skip(1);
        let kind = tokens.next().unwrap_or_default();
        let number: u32 = tokens.next().and_then(|token| token.parse().ok()).unwrap_or(0);
        let text = String::from_utf8_lossy(body);
        match kind {
            "s" => {
                let made = text.contains("\"config\"") && !text.contains("\"error\"");
                if made {
                    self.setup.pop_front();
                }
                let wait = if made { Duration::ZERO } else { MS * 500 };
                self.setup_at = (!self.setup.is_empty()).then_some(now + wait);
            }
            "p" => {
                let seq = text.split("\"seq\":").nth(1).and_then(|rest| {
                    rest.split([',', '}']).next().and_then(|seq| seq.trim().parse::<u64>().ok())
                });
                let Some(work) = self.works.get_mut(&number) else { return };
                if let Some(seq) = seq.filter(|seq| *seq > 0 && !text.contains("\"error\"")) {
                    work.acked = true;
                    self.is_at(number, seq);
                } else {
                    // Again a little later, as after the timeout of an answer.
                    work.sent_at = Some(Instant(now.0.saturating_sub(2_500_000_000)));
                }
            }
            "d" if !headers => {
                if let Some(work) = self.works.get_mut(&number)
                    && !std::mem::replace(&mut work.confirmed, true)
                {
                    self.confirmed += 1;
                }
            }
            _ => {}
        }
    }

    fn is_at(&mut self, number: u32, seq: u64) {
        let Some(work) = self.works.get_mut(&number) else { return };
        let known = *work.seq.get_or_insert(seq);
        if known != seq {
            self.broken.get_or_insert(format!("work {number} is stored at {known} and at {seq}"));
        }
    }

    fn take(&mut self, now: Instant, number: u32, ack: &str) {
        self.asked = self.asked.saturating_sub(1);
        if self.asked == 0 {
            self.pull_at = Some(now);
        }
        let seq = ack.split('.').nth(5).and_then(|token| token.parse().ok()).unwrap_or(0);
        self.is_at(number, seq);
        let Some(work) = self.works.get_mut(&number) else {
            self.broken.get_or_insert(format!("work {number} was never given"));
            return;
        };
        if work.confirmed {
            self.broken.get_or_insert(format!("work {number} is back after its ack was confirmed"));
            return;
        }
        match self.chance.between(0, 19) {
            0 => {}
            1 => self.say(ack, "", "-NAK"),
            2 => self.say(ack, "", "-NAK {\"delay\":700000000}"),
            3 => self.say(ack, "", "+WPI"),
            4..7 => {
                work.done = true;
                self.say(ack, "", "+ACK");
            }
            7 => {
                work.done = true;
                self.say(ack, &format!("_INBOX.d.{number}"), "+TERM");
            }
            _ => {
                work.done = true;
                self.say(ack, &format!("_INBOX.d.{number}"), "");
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Death(Death, Duration),
    Disk(Illness, Duration),
    Lost,
}

/// What one seed came to.
#[derive(Debug, Default)]
struct Outcome {
    broken: Option<String>,
    works: usize,
    confirmed: u64,
    deaths: u32,
}

struct Works {
    now: Instant,
    chance: Chance,
    net: Net,
    gateway: Gateway,
    client: Client,
    ledger: Ledger,
    trace: Trace,
    faults: VecDeque<(Instant, Fault)>,
    well_at: Option<Instant>,
    arrivals: Vec<(ConnNo, String)>,
    local: Route,
    deaths: u32,
}

fn run(seed: u64, early: bool, shown: bool) -> Outcome {
    let mut chance = Chance::new(seed ^ 0x7705);
    let local = Route {
        latency: chance.span(MS / 20, MS * 10),
        rate: 1_000_000,
        room: chance.pick(&[600, 65_536]),
        segment: chance.pick(&[5, 100, 1460]),
    };
    let plan = GatewayPlan {
        sync: SyncPolicy::Always,
        commit: chance.pick(&[(MS / 5, MS * 2), (MS / 5, MS * 30), (MS * 5, MS * 150)]),
        slow_commits: chance.pick(&[0, 0, 5, 50]),
        slow_commit: (MS * 200, SECOND * 3),
        turn: (MS / 100, chance.pick(&[MS / 10, MS, MS * 20])),
        read_max: chance.pick(&[100, 4096, 131_072]),
        overlooked: chance.pick(&[0, 100, 500]),
        ping_interval: SECOND * 20,
        acks_early: early,
        uplink: local,
    };
    let chaos = chance.span(SECOND * 4, SECOND * 40);
    let mut faults: Vec<(Instant, Fault)> = (0..chance.between(1, 8))
        .map(|_| {
            let at = Instant(0) + chance.even(Duration::ZERO, chaos);
            let fault = match chance.between(0, 9) {
                0 => Fault::Lost,
                1 => {
                    let illness = Illness {
                        sync_fails: chance.pick(&[0, 200, 1000]),
                        write_fails: chance.pick(&[0, 0, 100]),
                        full: chance.happens(300),
                    };
                    Fault::Disk(illness, chance.span(MS * 50, SECOND * 5))
                }
                2 => Fault::Death(Death::Shutdown, chance.span(MS * 50, SECOND * 5)),
                3 | 4 => Fault::Death(Death::Sigkill, chance.span(MS * 50, SECOND * 5)),
                _ => Fault::Death(Death::PowerCut, chance.span(MS * 50, SECOND * 5)),
            };
            (at, fault)
        })
        .collect();
    faults.sort_by_key(|(at, _)| *at);
    let mut works = Works {
        now: Instant(0),
        net: Net::new(chance.fork()),
        gateway: Gateway::new(plan, chance.fork()),
        client: Client::new(chance.fork()),
        ledger: Ledger::new(1, None),
        trace: Trace::new(shown),
        faults: faults.into(),
        well_at: None,
        arrivals: Vec::new(),
        local,
        deaths: 0,
        chance,
    };
    let end = Instant(0) + chaos;
    let mut broken = None;
    for event in 0.. {
        broken = works.broken();
        if broken.is_some() || works.client.is_done() {
            break;
        }
        if event > EVENTS_MAX || works.now > end + CALM {
            broken = Some(works.undone());
            break;
        }
        works.step(end);
    }
    let confirmed = works.client.confirmed;
    Outcome { broken, works: works.client.works.len(), confirmed, deaths: works.deaths }
}

impl Works {
    fn broken(&self) -> Option<String> {
        self.client.broken.clone().or_else(|| self.ledger.broken().map(str::to_owned))
    }

    fn undone(&self) -> String {
        let open = |work: &Work| !work.acked || !work.done;
        let left: BTreeSet<u32> = self
            .client
            .works
            .iter()
            .filter(|(_, work)| open(work))
            .map(|(number, _)| *number)
            .collect();
        let first = left.first().map(|number| (*number, self.client.works[number]));
        format!("{} of {} works never come: {first:?}", left.len(), self.client.works.len())
    }

    fn step(&mut self, end: Instant) {
        let now = self.now;
        let clamp = |at: Option<Instant>| at.map(|at| at.max(now));
        let gateway = clamp(self.gateway.next_at(now, &self.net, !self.arrivals.is_empty()));
        let dial = self.client.conn.is_none().then_some(self.client.dial_at);
        let client = clamp([self.client.next_at(&self.net), dial].into_iter().flatten().min());
        let fault = self.faults.front().map(|(at, _)| *at);
        let over = (!self.client.stopped).then_some(end);
        let faults = clamp([fault, self.well_at, over].into_iter().flatten().min());
        let all = [gateway, client, faults];
        let Some(first) = all.into_iter().flatten().min() else { return };
        self.now = first;
        let due: Vec<usize> = (0..3).filter(|index| all[*index] == Some(first)).collect();
        match self.chance.pick(&due) {
            0 => {
                let now = self.now;
                self.with_gateway(|gateway, around| gateway.run(now, around));
            }
            1 => self.run_client(),
            _ => self.befall(end),
        }
    }

    fn run_client(&mut self) {
        let now = self.now;
        if self.client.conn.is_none() && self.client.dial_at <= now {
            if self.gateway.listens() {
                let conn = self.net.open(Who::Sensor(0), self.local);
                self.arrivals.push((conn, format!("10.0.0.1:{conn}")));
                self.client.connected(now, conn);
            } else {
                self.client.dial_at = now + self.client.chance.span(MS * 20, SECOND);
            }
            return;
        }
        self.client.run(now, &mut self.net, &mut self.trace);
    }

    fn befall(&mut self, end: Instant) {
        let now = self.now;
        if self.well_at.is_some_and(|at| at <= now) {
            self.well_at = None;
            self.gateway.disk().set_illness(Illness::default());
        }
        while let Some((_, fault)) = self.faults.pop_front_if(|(at, _)| *at <= now) {
            self.trace.line(now, || format!("--- {fault:?}"));
            match fault {
                Fault::Lost => self.client.lost(now, &mut self.net),
                Fault::Disk(illness, lasts) => {
                    self.gateway.disk().set_illness(illness);
                    self.well_at = Some(now + lasts);
                }
                Fault::Death(death, lasts) => {
                    self.deaths += 1;
                    self.arrivals.clear();
                    self.with_gateway(|gateway, around| {
                        gateway.die(now, now + lasts, death, around);
                    });
                }
            }
        }
        if end <= now {
            self.client.stopped = true;
        }
    }

    fn with_gateway(&mut self, work: impl FnOnce(&mut Gateway, &mut Around<'_>)) {
        let mut around = Around {
            way: Way::Refused,
            net: &mut self.net,
            ledger: &mut self.ledger,
            trace: &mut self.trace,
            dialled: Vec::new(),
            arrivals: std::mem::take(&mut self.arrivals),
        };
        work(&mut self.gateway, &mut around);
        self.arrivals = around.arrivals;
    }
}

#[test]
fn work_is_neither_lost_before_it_is_done_nor_back_after_that_was_confirmed() {
    if let Some(seed) = number("SEDGE_SEED") {
        let outcome = run(seed, false, true);
        println!("{outcome:?}");
        assert_eq!(outcome.broken, None, "seed {seed}");
        return;
    }
    let count = number("SEDGE_SEEDS").unwrap_or(SEEDS);
    let outcomes: Results<Outcome> = each_seed_of(count, |seed| run(seed, false, false));
    let sum =
        |of: fn(&Outcome) -> u64| outcomes.iter().map(|(_, outcome)| of(outcome)).sum::<u64>();
    println!(
        "{count} seeds: {} works, {} confirmed, {} deaths",
        sum(|outcome| outcome.works as u64),
        sum(|outcome| outcome.confirmed),
        sum(|outcome| u64::from(outcome.deaths))
    );
    none_broken(
        count,
        "work_is",
        outcomes.iter().filter_map(|(seed, outcome)| Some((*seed, outcome.broken.as_deref()?))),
    );
}

#[test]
fn work_that_is_confirmed_before_the_commit_is_caught() {
    let outcomes = each_seed_of(60, |seed| run(seed, true, false));
    let caught = outcomes.iter().filter(|(_, outcome)| outcome.broken.is_some()).count();
    println!("{caught} of 60 seeds notice");
    assert!(caught > 0, "confirmations may leave before the commit and nobody notices");
}
