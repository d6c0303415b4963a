//! `JetStream`: publish one at a time and with 1,000 in flight, fetch and acknowledge.
//!
//! Sedge's default acknowledges after the disk has the message; nats-server's default
//! acknowledges before. So publishing is compared with both of nats-server's ways.

use std::time::Duration;

use super::{
    Arm, Bench, Budget, DISK, DISK_APPARENT, Meter, P50, P99, RATE, Row, Sample, Scenario, WCHAR,
    WRITTEN, add_latencies, nanos,
};
use crate::clock;
use crate::error::{Error, Result};
use crate::raw::{Conn, Kind as FrameKind, publication};
use crate::report::Unit;
use crate::server::{Kind, Setup};

/// Publications that may wait for their acknowledgement.
const IN_FLIGHT: usize = 1_000;
const BATCH: usize = 500;
const PAYLOAD_LEN: usize = 128;
const SUBJECT: &str = "sensors.1";
const ACK_SUBJECT: &str = "_INBOX.acks";
const STREAM: &str = "BENCH";

/// The scenarios of this module.
pub(super) fn scenarios() -> Vec<Scenario> {
    let always = Setup { sync_interval: Some("always"), ..Setup::default() };
    let relaxed = Setup { sync_interval: Some("500ms"), ..Setup::default() };
    let arm = |name, kind, setup| Arm { name, kind, setup };
    let nats_always = arm("nats-always", Kind::Nats, always);
    let nats = arm("nats", Kind::Nats, Setup::default());
    let sedge = arm("sedge", Kind::Sedge, Setup::default());
    let sedge_relaxed = arm("sedge-relaxed", Kind::Sedge, relaxed);

    let mut single = Scenario::new(
        "js publish one at a time, 128 B",
        one_at_a_time,
        &[
            Row::new(P50, Unit::Micros, Budget::RatioMax(1.5))
                .label("p50, durable")
                .between("nats-always", "sedge"),
            Row::new(P99, Unit::Micros, Budget::None)
                .label("p99, durable")
                .between("nats-always", "sedge")
                .bare(),
            Row::new(RATE, Unit::PerSecond, Budget::None)
                .label("rate, durable")
                .between("nats-always", "sedge")
                .bare(),
            Row::new(WRITTEN, Unit::Bytes, Budget::None)
                .label("written a message, durable")
                .between("nats-always", "sedge")
                .bare(),
            Row::new(P50, Unit::Micros, Budget::RatioMax(1.0))
                .label("p50, relaxed")
                .between("nats", "sedge-relaxed"),
            Row::new(RATE, Unit::PerSecond, Budget::None)
                .label("rate, relaxed")
                .between("nats", "sedge-relaxed")
                .bare(),
        ],
    );
    single.arms = vec![nats_always, sedge, nats, sedge_relaxed];

    let mut in_flight = Scenario::new(
        "js publish 1000 in flight, 128 B",
        in_flight,
        &[
            Row::new(RATE, Unit::PerSecond, Budget::RatioMin(40.0))
                .label("durable / always")
                .between("nats-always", "sedge"),
            Row::new(RATE, Unit::PerSecond, Budget::RatioMin(1.5))
                .label("durable / default")
                .between("nats", "sedge"),
            Row::new(RATE, Unit::PerSecond, Budget::None)
                .label("relaxed / default")
                .between("nats", "sedge-relaxed"),
            Row::new(DISK, Unit::Bytes, Budget::Max(150.0))
                .label("disk a message")
                .between("nats", "sedge")
                .bare(),
            Row::new(DISK_APPARENT, Unit::Bytes, Budget::None)
                .label("file length a message")
                .between("nats", "sedge")
                .bare(),
            Row::new(WRITTEN, Unit::Bytes, Budget::None)
                .label("written a message / always")
                .between("nats-always", "sedge")
                .bare(),
            Row::new(WRITTEN, Unit::Bytes, Budget::None)
                .label("written a message / default")
                .between("nats", "sedge")
                .bare(),
            Row::new(WCHAR, Unit::Bytes, Budget::None)
                .label("passed to write a message")
                .between("nats", "sedge")
                .bare(),
        ],
    );
    in_flight.arms = vec![nats_always, nats, sedge, sedge_relaxed];

    let mut fetch = Scenario::new(
        "js fetch + ack, batches of 500, 128 B",
        fetch_and_ack,
        &[Row::new(RATE, Unit::PerSecond, Budget::RatioMin(1.5))],
    );
    for scenario in [&mut single, &mut in_flight, &mut fetch] {
        scenario.needs_jetstream = true;
    }
    vec![single, in_flight, fetch]
}

fn one_at_a_time(bench: &Bench, arm: Arm) -> Result<Sample> {
    bench.with_server(arm, |server, _| {
        let mut conn = Conn::connect(server.addr)?;
        create_stream(&mut conn, STREAM, "sensors.>")?;
        conn.subscribe(ACK_SUBJECT, None, 1)?;
        let publication = publication(SUBJECT, Some(ACK_SUBJECT), PAYLOAD_LEN);
        let mut stored = 0;
        let mut once = |conn: &mut Conn| {
            let sent = clock::now();
            conn.send(&publication)?;
            let frame = conn.next_frame()?;
            stored += 1;
            expect_ack(frame.kind, conn.payload(&frame))?;
            Ok::<u64, Error>(nanos(sent.elapsed()))
        };
        let until = clock::after(bench.warm_up);
        while clock::now() < until {
            once(&mut conn)?;
        }
        let meter = Meter::start(server)?;
        let started = clock::now();
        let until = started + bench.measure;
        let mut latencies = Vec::new();
        while clock::now() < until {
            latencies.push(once(&mut conn)?);
        }
        let mut sample = meter.finish(latencies.len() as u64, started.elapsed())?;
        add_latencies(&mut sample, latencies);
        expect_stored(&mut conn, STREAM, stored)?;
        Ok(sample)
    })
}

fn in_flight(bench: &Bench, arm: Arm) -> Result<Sample> {
    bench.with_server(arm, |server, workdir| {
        let mut conn = Conn::connect(server.addr)?;
        create_stream(&mut conn, STREAM, "sensors.>")?;
        let publication = publication(SUBJECT, Some(ACK_SUBJECT), PAYLOAD_LEN);
        let mut pump = Pump::new(&mut conn)?;
        let until = clock::after(bench.warm_up);
        let warm_up = pump.run(|_| clock::now() < until, |_, out| out.extend(&publication))?;
        let meter = Meter::start(server)?;
        let started = clock::now();
        let until = started + bench.measure;
        let messages = pump.run(|_| clock::now() < until, |_, out| out.extend(&publication))?;
        let mut sample = meter.finish(messages, started.elapsed())?;
        let stored = warm_up + messages;
        expect_stored(&mut conn, STREAM, stored)?;
        let disk = workdir.disk_bytes()?;
        sample.insert(DISK, disk.allocated as f64 / stored as f64);
        sample.insert(DISK_APPARENT, disk.apparent as f64 / stored as f64);
        Ok(sample)
    })
}

fn fetch_and_ack(bench: &Bench, arm: Arm) -> Result<Sample> {
    bench.with_server(arm, |server, _| {
        let backlog = if bench.quick { 200_000 } else { 1_000_000 };
        let mut conn = Conn::connect(server.addr)?;
        create_stream(&mut conn, STREAM, "sensors.>")?;
        fill_stream(&mut conn, backlog, |_| SUBJECT.to_owned())?;
        conn.api(
            &format!("$JS.API.CONSUMER.CREATE.{STREAM}.worker"),
            &format!(
                "{{\"stream_name\":\"{STREAM}\",\"action\":\"create\",\"config\":{{\
                 \"durable_name\":\"worker\",\"name\":\"worker\",\"ack_policy\":\"explicit\",\
                 \"deliver_policy\":\"all\",\"replay_policy\":\"instant\"}}}}"
            ),
        )?;
        conn.subscribe("_INBOX.batch", None, 2)?;
        let mut worker = Worker { conn, out: Vec::new() };
        let until = clock::after(bench.warm_up.min(Duration::from_millis(200)));
        let mut fetched = 0;
        while clock::now() < until && fetched < backlog / 4 {
            fetched += worker.fetch_and_ack()?;
        }
        let meter = Meter::start(server)?;
        let started = clock::now();
        let until = started + bench.measure;
        let mut messages = 0;
        while clock::now() < until && fetched + messages < backlog {
            messages += worker.fetch_and_ack()?;
        }
        worker.conn.flush()?;
        let sample = meter.finish(messages, started.elapsed())?;
        worker.expect_acked(fetched + messages)?;
        Ok(sample)
    })
}

/// A pull consumer's client.
struct Worker {
    conn: Conn,
    out: Vec<u8>,
}

impl Worker {
    /// Fetches one batch; its acknowledgements leave in one write, before the next request.
    fn fetch_and_ack(&mut self) -> Result<u64> {
        let body = format!("{{\"batch\":{BATCH},\"expires\":5000000000}}");
        let request = format!(
            "PUB $JS.API.CONSUMER.MSG.NEXT.{STREAM}.worker _INBOX.batch {}\r\n{body}\r\n",
            body.len()
        );
        self.out.extend_from_slice(request.as_bytes());
        self.conn.send(&self.out)?;
        self.out.clear();
        for _ in 0..BATCH {
            let frame = self.conn.next_frame()?;
            if frame.kind != FrameKind::Msg || self.conn.payload(&frame).len() != PAYLOAD_LEN {
                let status = String::from_utf8_lossy(self.conn.header(&frame)).trim().to_owned();
                return Err(Error::new(format!("a fetch gave {status:?} instead of a message")));
            }
            self.out.extend_from_slice(b"PUB ");
            self.out.extend_from_slice(self.conn.reply(&frame));
            self.out.extend_from_slice(b" 4\r\n+ACK\r\n");
        }
        Ok(BATCH as u64)
    }

    /// Sends the last acknowledgements and proves that all `count` arrived.
    fn expect_acked(&mut self, count: u64) -> Result<()> {
        self.conn.send(&self.out)?;
        self.out.clear();
        let deadline = clock::after(Duration::from_secs(5));
        loop {
            let info = self.conn.api(&format!("$JS.API.CONSUMER.INFO.{STREAM}.worker"), "")?;
            let floor = info["ack_floor"]["stream_seq"].as_u64().unwrap_or(0);
            if floor == count {
                return Ok(());
            }
            if clock::now() > deadline {
                return Err(Error::new(format!("ack floor is {floor}, acknowledged {count}")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Publishes with up to [`IN_FLIGHT`] acknowledgements outstanding.
struct Pump<'a> {
    conn: &'a mut Conn,
    out: Vec<u8>,
}

impl<'a> Pump<'a> {
    fn new(conn: &'a mut Conn) -> Result<Self> {
        conn.subscribe(ACK_SUBJECT, None, 1)?;
        conn.flush()?;
        Ok(Self { conn, out: Vec::new() })
    }

    /// Publishes what `write` appends, as long as `go_on` of the number sent says so, and waits
    /// for all acknowledgements; gives their number.
    fn run(
        &mut self,
        go_on: impl Fn(u64) -> bool,
        write: impl Fn(u64, &mut Vec<u8>),
    ) -> Result<u64> {
        let mut sent = 0;
        let mut acked = 0;
        loop {
            self.out.clear();
            while sent - acked < IN_FLIGHT as u64 && go_on(sent) {
                write(sent, &mut self.out);
                sent += 1;
            }
            if acked == sent {
                return Ok(acked);
            }
            self.conn.send(&self.out)?;
            self.conn.fill()?;
            while let Some(frame) = self.conn.buffered()? {
                expect_ack(frame.kind, self.conn.payload(&frame))?;
                acked += 1;
            }
        }
    }
}

/// Publishes `count` messages, the n-th on `subject(n)`.
pub(super) fn fill_stream(
    conn: &mut Conn,
    count: u64,
    subject: impl Fn(u64) -> String,
) -> Result<()> {
    let mut pump = Pump::new(conn)?;
    pump.run(
        |sent| sent < count,
        |n, out| out.extend(publication(&subject(n), Some(ACK_SUBJECT), PAYLOAD_LEN)),
    )?;
    conn.send(b"UNSUB 1\r\n")
}

/// Creates a stream in a file.
pub(super) fn create_stream(conn: &mut Conn, name: &str, subjects: &str) -> Result<()> {
    let config = format!(
        "{{\"name\":\"{name}\",\"subjects\":[\"{subjects}\"],\"storage\":\"file\",\
         \"retention\":\"limits\",\"num_replicas\":1}}"
    );
    conn.api(&format!("$JS.API.STREAM.CREATE.{name}"), &config)?;
    Ok(())
}

/// Messages that a stream holds.
pub(super) fn stored(conn: &mut Conn, stream: &str) -> Result<u64> {
    let info = conn.api(&format!("$JS.API.STREAM.INFO.{stream}"), "")?;
    info["state"]["messages"]
        .as_u64()
        .ok_or_else(|| Error::new("stream info has no state.messages"))
}

/// Proves that a stream holds exactly `count` messages.
pub(super) fn expect_stored(conn: &mut Conn, stream: &str, count: u64) -> Result<()> {
    let stored = stored(conn, stream)?;
    if stored == count {
        Ok(())
    } else {
        Err(Error::new(format!("{stored} messages stored, {count} acknowledged")))
    }
}

fn expect_ack(kind: FrameKind, payload: &[u8]) -> Result<()> {
    if kind == FrameKind::Msg && payload.starts_with(b"{\"stream\":") {
        Ok(())
    } else {
        let text = String::from_utf8_lossy(payload);
        Err(Error::new(format!("a publication was answered with {text:?}")))
    }
}
