//! Many of something: idle clients, subscriptions, and one quiet client beside a flood.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::footprint::{idle_client, settle};
use super::{
    Arm, Bench, Budget, Meter, P50, P99, RATE, RSS, Row, Sample, Scenario, add_latencies, mib,
    nanos,
};
use crate::clock;
use crate::error::{Error, Result};
use crate::raw::{Conn, Kind as FrameKind, Publisher, Receivers, frame_bytes, publication};
use crate::report::Unit;
use crate::server::{Kind, Server, Setup};

const IDLE_CLIENTS: usize = 10_000;
/// How long the idle clients are watched, and how much of a core that may take.
const IDLE_SPAN: Duration = Duration::from_secs(10);
const IDLE_CPU_MS: &str = "idle_cpu_ms";
const IDLE_CPU_MS_MAX: f64 = 20.0;
/// The first PING to a client comes this long after it connected, at most.
const FIRST_PING: Duration = Duration::from_millis(2500);

const FEW: usize = 100;
const MANY: usize = 100_000;
/// Connections that share the subscriptions.
const SUBSCRIBERS: usize = 4;
/// Different subjects published on: more than any server remembers.
const SUBJECTS: usize = 50_000;
const WILDCARD_PAYLOAD: usize = 16;

const QUIET_SUBJECT: &str = "bench.quiet";
const FLOOD_SUBJECT: &str = "bench.flood";
const FLOOD_PAYLOAD: usize = 128;

/// The scenarios of this module.
pub(super) fn scenarios(quick: bool) -> Vec<Scenario> {
    let mut clients = Scenario::new(
        format!("{IDLE_CLIENTS} idle clients, 2 subscriptions"),
        idle_clients,
        &[
            Row::new(RSS, Unit::Mib, Budget::Max(32.0)).label("memory").bare(),
            Row::new(IDLE_CPU_MS, Unit::Millis, Budget::Max(IDLE_CPU_MS_MAX))
                .label("CPU in 10 s")
                .bare(),
        ],
    );
    clients.full_only = quick;
    clients.timeout = Duration::from_mins(2);

    let arm = |name, kind| Arm { name, kind, setup: Setup::default() };
    let rate = |ratio| Row::new(RATE, Unit::PerSecond, ratio);
    let mut wildcards = Scenario::new(
        format!("match among {MANY} wildcards"),
        wildcards,
        &[
            rate(Budget::RatioMin(1.0)).label("messages").between("nats many", "sedge many"),
            rate(Budget::RatioMin(0.5))
                .label("to 100 of them / to 100 of 100")
                .between("sedge few", "sedge same")
                .bare(),
            rate(Budget::None)
                .label("to all / to 100 of 100")
                .between("sedge few", "sedge many")
                .bare(),
            rate(Budget::None)
                .label("theirs: to all / to 100 of 100")
                .between("nats few", "nats many")
                .bare(),
        ],
    );
    // About 300 bytes a subscription.
    wildcards.rss_mib_max = 40.0;
    wildcards.arms = vec![
        arm("nats few", Kind::Nats),
        arm("sedge few", Kind::Sedge),
        arm("sedge same", Kind::Sedge),
        arm("nats many", Kind::Nats),
        arm("sedge many", Kind::Sedge),
    ];

    let quiet = Scenario::new(
        "one quiet client beside a flood",
        quiet_beside_flood,
        &[
            Row::new(P50, Unit::Micros, Budget::RatioMax(1.5)).label("p50"),
            Row::new(P99, Unit::Micros, Budget::RatioMax(1.0)).label("p99").bare(),
            Row::new(RATE, Unit::PerSecond, Budget::RatioMin(1.0)).label("flood").bare(),
        ],
    );
    vec![clients, wildcards, quiet]
}

fn idle_clients(bench: &Bench, arm: Arm) -> Result<Sample> {
    bench.with_server(arm, |server, _| {
        let mut clients = (0..IDLE_CLIENTS)
            .map(|index| idle_client(server.addr, index))
            .collect::<Result<Vec<_>>>()?;
        thread::sleep(FIRST_PING);
        settle();
        let before = server.usage()?;
        thread::sleep(IDLE_SPAN);
        let after = server.usage()?;
        // They are all still there.
        for client in &mut clients {
            client.flush()?;
        }
        let cpu = after.cpu.saturating_sub(before.cpu);
        Ok(Sample::from([(RSS, mib(after.rss_bytes)), (IDLE_CPU_MS, cpu.as_secs_f64() * 1e3)]))
    })
}

/// One of the subscriptions: all of them have wildcards, and each published subject matches
/// exactly one. Numbers have a fixed width, so that all messages have the same length.
fn pattern(number: usize) -> String {
    match number % 4 {
        0 => format!("site.{number:06}.>"),
        1 => format!("*.{number:06}.*.temp"),
        _ => format!("site.{number:06}.*.temp"),
    }
}

fn wildcards(bench: &Bench, arm: Arm) -> Result<Sample> {
    let count = if arm.name.ends_with("few") { FEW } else { MANY };
    // Of how many of them messages are published.
    let used = if arm.name.ends_with("many") { MANY } else { FEW };
    bench.with_server(arm, |server, _| {
        let mut conns = Vec::new();
        for share in 0..SUBSCRIBERS {
            let mut conn = Conn::connect(server.addr)?;
            let mut lines = String::new();
            for number in (share..count).step_by(SUBSCRIBERS) {
                let _ = write!(lines, "SUB {} {:06}\r\n", pattern(number), number + 100_000);
            }
            conn.send(lines.as_bytes())?;
            conn.flush()?;
            conns.push(conn);
        }
        let subject = |number: usize| {
            // Neighbours in time are far apart in the tree.
            format!("site.{:06}.{number:06}.temp", number * 7919 % used)
        };
        let frame = frame_bytes(&subject(0), 100_000, WILDCARD_PAYLOAD);
        let mut receivers = Receivers::of(conns, frame)?;
        let mut publications = Vec::new();
        for number in 0..SUBJECTS {
            publications.extend_from_slice(&publication(&subject(number), None, WILDCARD_PAYLOAD));
        }
        let conn = Conn::connect(server.addr)?;
        let mut publisher = Publisher::of(conn, publications, SUBJECTS as u64);
        let mut run = |duration| -> Result<u64> {
            let before = receivers.received();
            let messages = publisher.blast(clock::after(duration))?;
            publisher.flush()?;
            receivers.wait_for(before + messages)?;
            Ok(messages)
        };
        run(bench.warm_up)?;
        let meter = Meter::start(server)?;
        let started = clock::now();
        let messages = run(bench.measure)?;
        meter.finish(messages, started.elapsed())
    })
}

fn quiet_beside_flood(bench: &Bench, arm: Arm) -> Result<Sample> {
    bench.with_server(arm, |server, _| {
        let receivers = Receivers::spawn(server.addr, FLOOD_SUBJECT, FLOOD_PAYLOAD, 1, false)?;
        let mut publisher = Publisher::connect(server.addr, FLOOD_SUBJECT, FLOOD_PAYLOAD)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let flood = thread::spawn(move || {
            let mut messages = 0;
            while !stopped.load(Ordering::Relaxed) {
                messages += publisher.blast(clock::after(Duration::from_millis(20)))?;
            }
            publisher.flush()?;
            Ok::<u64, Error>(messages)
        });
        let outcome = whisper(bench, server, &receivers);
        stop.store(true, Ordering::Relaxed);
        let messages = flood.join().map_err(|_| Error::new("the publisher panicked"))??;
        let sample = outcome?;
        receivers.finish(messages)?;
        Ok(sample)
    })
}

/// A client that says something to itself every millisecond, and how long that takes.
fn whisper(bench: &Bench, server: &Server, receivers: &Receivers) -> Result<Sample> {
    let mut conn = Conn::connect(server.addr)?;
    conn.subscribe(QUIET_SUBJECT, None, 1)?;
    conn.flush()?;
    let word = publication(QUIET_SUBJECT, None, 16);
    let mut say = |until| -> Result<Vec<u64>> {
        let mut latencies = Vec::new();
        while clock::now() < until {
            let said = clock::now();
            conn.send(&word)?;
            while conn.next_frame()?.kind != FrameKind::Msg {}
            latencies.push(nanos(said.elapsed()));
            thread::sleep(Duration::from_millis(1));
        }
        Ok(latencies)
    };
    say(clock::after(bench.warm_up))?;
    let (flooded, meter, started) = (receivers.received(), Meter::start(server)?, clock::now());
    let latencies = say(clock::after(bench.measure))?;
    let mut sample = meter.finish(receivers.received() - flooded, started.elapsed())?;
    add_latencies(&mut sample, latencies);
    Ok(sample)
}
