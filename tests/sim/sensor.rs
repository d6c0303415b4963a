//! A sensor: a client that publishes readings, keeps each until it is acknowledged, and
//! sends what is left again after every reconnect.

use std::collections::VecDeque;

use sedge::time::{Duration, Instant};

use crate::chance::Chance;
use crate::ledger::{Ledger, Reading, payload};
use crate::link::{ConnNo, Net, Read, Side};
use crate::trace::Trace;

/// Unanswered for so long, a reading is sent again.
const ACK_WAIT: Duration = Duration::from_secs(5);
const CREATE_TOKEN: &str = "create";

/// How a sensor behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SensorPlan {
    /// Between two bursts, on average.
    pub(crate) every: Duration,
    /// Readings at once, at most.
    pub(crate) burst: u64,
    /// Readings without an answer, at most.
    pub(crate) window: usize,
    /// Bytes of a reading, at most.
    pub(crate) size: usize,
    /// What a read takes at most.
    pub(crate) read_max: usize,
}

#[derive(Debug)]
struct Unacked {
    count: u32,
    size: usize,
    /// On this connection, if it was sent there.
    sent_at: Option<Instant>,
}

/// One sensor.
#[derive(Debug)]
pub(crate) struct Sensor {
    index: usize,
    plan: SensorPlan,
    chance: Chance,
    conn: Option<ConnNo>,
    input: Vec<u8>,
    output: Vec<u8>,
    /// The stream is there.
    may_publish: bool,
    /// The request for the stream is due.
    create_at: Option<Instant>,
    count: u32,
    unacked: VecDeque<Unacked>,
    next_reading_at: Instant,
    dial_at: Instant,
    /// Goes on with what is left, but makes no new readings.
    is_done: bool,
    pub(crate) refused: u64,
}

impl Sensor {
    /// Sensor 0 also makes the stream.
    pub(crate) fn new(index: usize, plan: SensorPlan, mut chance: Chance) -> Self {
        let dial_at = Instant(chance.between(0, 500_000_000));
        Self {
            index,
            plan,
            chance,
            conn: None,
            input: Vec::new(),
            output: Vec::new(),
            may_publish: false,
            create_at: None,
            count: 0,
            unacked: VecDeque::new(),
            next_reading_at: dial_at,
            dial_at,
            is_done: false,
            refused: 0,
        }
    }

    /// The stream is there; readings may begin.
    pub(crate) fn begin(&mut self) {
        self.may_publish = true;
    }

    /// Has the stream been made, as far as this one knows?
    pub(crate) fn may_publish(&self) -> bool {
        self.may_publish
    }

    /// No new readings from now on.
    pub(crate) fn stop(&mut self) {
        self.is_done = true;
    }

    /// Is every reading acknowledged?
    pub(crate) fn is_idle(&self) -> bool {
        self.unacked.is_empty()
    }

    /// Wants a connection, at this time.
    pub(crate) fn dial_at(&self) -> Option<Instant> {
        self.conn.is_none().then_some(self.dial_at)
    }

    /// The gateway does not listen.
    pub(crate) fn refused_dial(&mut self, now: Instant) {
        self.dial_at = now + self.chance.span(Duration::from_millis(20), Duration::from_secs(1));
    }

    /// The gateway accepted.
    pub(crate) fn connected(&mut self, now: Instant, conn: ConnNo) {
        self.conn = Some(conn);
        self.input.clear();
        self.output.clear();
        let options = r#"{"verbose":false,"pedantic":false,"headers":true,"no_responders":true}"#;
        let text = format!("CONNECT {options}\r\nSUB _INBOX.{}.* 1\r\nPING\r\n", self.index);
        self.output.extend(text.into_bytes());
        for left in &mut self.unacked {
            left.sent_at = None;
        }
        if self.index == 0 && !self.may_publish {
            self.create_at = Some(now);
        }
    }

    /// When there is something to do.
    pub(crate) fn next_at(&self, net: &Net) -> Option<Instant> {
        let conn = self.conn?;
        let writable = !self.output.is_empty() && net.has_room(conn, Side::Peer);
        let write = writable.then_some(Instant(0));
        let reading = (self.may_publish && !self.is_done).then_some(self.next_reading_at);
        // What waits for a place in the window is woken by an ack.
        let resend = self.unacked.iter().filter_map(|left| left.sent_at).min();
        let unsent = (self.in_flight() < self.plan.window && self.unsent()).then_some(Instant(0));
        [
            net.readable_at(conn, Side::Peer),
            write,
            reading,
            unsent,
            resend.map(|at| at + ACK_WAIT),
            self.create_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn in_flight(&self) -> usize {
        self.unacked.iter().filter(|left| left.sent_at.is_some()).count()
    }

    fn unsent(&self) -> bool {
        self.unacked.iter().any(|left| left.sent_at.is_none())
    }

    /// Does all that is due.
    pub(crate) fn run(
        &mut self,
        now: Instant,
        net: &mut Net,
        ledger: &mut Ledger,
        trace: &mut Trace,
    ) {
        let Some(conn) = self.conn else { return };
        let max = self.chance.size(1, self.plan.read_max);
        match net.read(now, conn, Side::Peer, max) {
            Read::Nothing => {}
            Read::End => return self.lost(now, net, trace),
            Read::Bytes(bytes) => {
                self.input.extend(bytes);
                if !self.read(now, ledger, trace) {
                    return self.lost(now, net, trace);
                }
            }
        }
        if self.create_at.is_some_and(|at| at <= now) {
            self.create_at = Some(now + ACK_WAIT);
            self.create();
        }
        self.make_readings(now);
        self.send_readings(now, ledger, trace);
        if !self.output.is_empty() {
            match net.write(now, conn, Side::Peer, &self.output) {
                Some(count) => drop(self.output.drain(..count)),
                None => self.lost(now, net, trace),
            }
        }
    }

    fn lost(&mut self, now: Instant, net: &mut Net, trace: &mut Trace) {
        if let Some(conn) = self.conn.take() {
            let index = self.index;
            trace.line(now, || format!("sensor {index}: lost its connection"));
            net.close(now, conn, Side::Peer);
        }
        self.dial_at = now + self.chance.span(Duration::from_millis(1), Duration::from_millis(500));
    }

    fn create(&mut self) {
        // A window that outlives every outage and every jump of the clock: what is tested
        // is that an id inside the window is known, not how long the window is.
        let config = r#"{"name":"EDGE","subjects":["sensors.>"],"retention":"limits","max_consumers":-1,"max_msgs":-1,"max_bytes":-1,"max_age":0,"max_msg_size":-1,"storage":"file","discard":"old","num_replicas":1,"duplicate_window":172800000000000}"#;
        let text = format!(
            "PUB $JS.API.STREAM.CREATE.EDGE _INBOX.{}.{CREATE_TOKEN} {}\r\n{config}\r\n",
            self.index,
            config.len()
        );
        self.output.extend(text.into_bytes());
    }

    fn make_readings(&mut self, now: Instant) {
        if !self.may_publish || self.is_done || self.next_reading_at > now {
            return;
        }
        for _ in 0..self.chance.between(1, self.plan.burst) {
            self.count += 1;
            let size = self.chance.size(4, self.plan.size);
            self.unacked.push_back(Unacked { count: self.count, size, sent_at: None });
        }
        let wait = self.chance.even(Duration::ZERO, self.plan.every * 2);
        self.next_reading_at = now + wait;
    }

    fn send_readings(&mut self, now: Instant, ledger: &mut Ledger, trace: &mut Trace) {
        let index = self.index;
        for left in &mut self.unacked {
            if left.sent_at.is_some_and(|at| at + ACK_WAIT <= now) {
                let count = left.count;
                trace.line(now, || format!("sensor {index}: no answer for {count}"));
                left.sent_at = None;
                if self.plan.window > 1 {
                    ledger.out_of_turn(index);
                }
            }
        }
        let mut room = self.plan.window.saturating_sub(self.in_flight());
        for left in &mut self.unacked {
            if room == 0 {
                break;
            }
            if left.sent_at.is_none() {
                room -= 1;
                left.sent_at = Some(now);
                let reading: Reading = (index, left.count);
                let body = payload(reading, left.size);
                let headers = format!("NATS/1.0\r\nNats-Msg-Id: {index}-{}\r\n\r\n", left.count);
                let line = format!(
                    "HPUB sensors.{index}.t _INBOX.{index}.{} {} {}\r\n{headers}",
                    left.count,
                    headers.len(),
                    headers.len() + body.len()
                );
                self.output.extend(line.into_bytes());
                self.output.extend(body);
                self.output.extend(b"\r\n");
            }
        }
    }

    /// False if the connection is of no use any more.
    fn read(&mut self, now: Instant, ledger: &mut Ledger, trace: &mut Trace) -> bool {
        let mut input = std::mem::take(&mut self.input);
        let mut used = 0;
        while let Some(end) = memchr::memmem::find(&input[used..], b"\r\n") {
            let line = String::from_utf8_lossy(&input[used..used + end]).into_owned();
            let words: Vec<&str> = line.split(' ').collect();
            let mut len = end + 2;
            match words[0] {
                "INFO" | "PONG" | "+OK" => {}
                "PING" => self.output.extend(b"PONG\r\n"),
                "MSG" | "HMSG" => {
                    let total: usize = words[words.len() - 1].parse().unwrap_or(0);
                    let Some(body) = input.get(used + len..used + len + total + 2) else { break };
                    let body = String::from_utf8_lossy(&body[..total]).into_owned();
                    len += total + 2;
                    let token = words[1].rsplit('.').next().unwrap_or_default().to_owned();
                    self.answer(now, &token, &body, ledger, trace);
                }
                "-ERR" => {
                    ledger.fail(format!("sensor {} was told {line}", self.index));
                    return false;
                }
                _ => {
                    ledger.fail(format!("sensor {} was sent {line:?}", self.index));
                    return false;
                }
            }
            used += len;
        }
        input.drain(..used);
        self.input = input;
        true
    }

    fn answer(
        &mut self,
        now: Instant,
        token: &str,
        body: &str,
        ledger: &mut Ledger,
        trace: &mut Trace,
    ) {
        let index = self.index;
        if token == CREATE_TOKEN {
            let is_made = body.contains("\"config\"") && !body.contains("\"error\"");
            trace.line(now, || format!("sensor {index}: stream: {body}"));
            self.may_publish |= is_made;
            self.create_at = (!is_made).then_some(now + Duration::from_millis(500));
            return;
        }
        let Ok(count) = token.parse::<u32>() else { return };
        let seq = body
            .split("\"seq\":")
            .nth(1)
            .map(|rest| rest.trim_end_matches('}').split(',').next().unwrap_or_default().trim())
            .and_then(|text| text.parse::<u64>().ok());
        match seq.filter(|_| body.contains("\"stream\"") && !body.contains("\"error\"")) {
            Some(seq) => {
                trace.line(now, || format!("sensor {index}: {count} is {seq}"));
                ledger.acked(now, (index, count), seq);
                self.unacked.retain(|left| left.count != count);
            }
            None => {
                trace.line(now, || format!("sensor {index}: {count} refused: {body:?}"));
                self.refused += 1;
                // Those behind it may be stored before it is sent again.
                if self.plan.window > 1 {
                    ledger.out_of_turn(index);
                }
                for left in self.unacked.iter_mut().filter(|left| left.count == count) {
                    // Waits a little, as the timeout of an answer would.
                    left.sent_at = Some(Instant(now.0.saturating_sub(4_500_000_000)));
                }
            }
        }
    }
}
