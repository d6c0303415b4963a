//! What a server costs when nothing happens: memory, idle clients, time to start.

use std::fs;
use std::thread;
use std::time::Duration;

use super::jetstream::{create_stream, expect_stored, fill_stream};
use super::{Arm, Bench, Budget, MESSAGES, RSS, RSS_MIB_MAX, Row, Sample, Scenario, mib};
use crate::clock;
use crate::error::Result;
use crate::raw::Conn;
use crate::report::Unit;

const IDLE_CLIENTS: usize = 1_000;
const STARTS: usize = 5;
const STREAM: &str = "BENCH";

const CLIENT_KIB: &str = "client_kib";
const BINARY_MIB: &str = "binary_mib";
const READY_MS: &str = "ready_ms";
const RSS_STORED: &str = "rss_stored_mib";

/// Memory of a host build (glibc) with `JetStream` on and nothing to do, in MiB.
const IDLE_MIB_MAX: f64 = 5.0;

/// The scenarios of this module.
pub(super) fn scenarios(quick: bool) -> Vec<Scenario> {
    let binary = Scenario::new(
        "binary",
        binary_size,
        &[Row::new(BINARY_MIB, Unit::Mib, Budget::Max(4.0)).label("size").bare()],
    );
    let mut idle = Scenario::new(
        "idle, JetStream on",
        idle,
        &[Row::new(RSS, Unit::Mib, Budget::Max(IDLE_MIB_MAX)).label("memory").bare()],
    );
    idle.needs_jetstream = true;
    let clients = Scenario::new(
        "1000 idle clients, 2 subscriptions",
        idle_clients,
        &[Row::new(CLIENT_KIB, Unit::Kib, Budget::Max(2.0)).label("memory a client")],
    );
    let start = Scenario::new(
        "start to ready, empty",
        start,
        &[Row::new(READY_MS, Unit::Millis, Budget::Max(5.0)).bare()],
    );
    let (name, messages, subjects) = if quick {
        ("200 k messages, 20 k subjects", 200_000, 20_000)
    } else {
        ("2 M messages, 200 k subjects", 2_000_000, 200_000)
    };
    let mut stored = Scenario::new(
        name,
        move |bench, arm| start_with_stored(bench, arm, messages, subjects),
        &[
            Row::new(READY_MS, Unit::Millis, Budget::Max(200.0))
                .label("ready after SIGKILL")
                .bare(),
            Row::new(RSS_STORED, Unit::Mib, Budget::Max(16.0)).label("memory").bare(),
            Row::new(RSS, Unit::Mib, Budget::Max(16.0)).label("memory after restart").bare(),
        ],
    );
    stored.timeout = Duration::from_mins(5);
    stored.full_only = true;
    stored.needs_jetstream = true;
    vec![binary, idle, clients, start, stored]
}

// The budget for the memory after a scenario leaves room above an idle server.
const _: () = assert!(IDLE_MIB_MAX < RSS_MIB_MAX);

fn binary_size(bench: &Bench, arm: Arm) -> Result<Sample> {
    let bytes = fs::metadata(&bench.binary(arm.kind)?.path)?.len();
    Ok(Sample::from([(BINARY_MIB, mib(bytes))]))
}

fn idle(bench: &Bench, arm: Arm) -> Result<Sample> {
    bench.with_server(arm, |_, _| {
        settle();
        Ok(Sample::new())
    })
}

fn idle_clients(bench: &Bench, arm: Arm) -> Result<Sample> {
    bench.with_server(arm, |server, _| {
        // What only the first client costs is not a client's share.
        let _first = idle_client(server.addr, IDLE_CLIENTS)?;
        settle();
        let before = server.usage()?.rss_bytes;
        let clients = (0..IDLE_CLIENTS)
            .map(|index| idle_client(server.addr, index))
            .collect::<Result<Vec<_>>>()?;
        settle();
        let after = server.usage()?.rss_bytes;
        let each = after.saturating_sub(before) as f64 / clients.len() as f64;
        Ok(Sample::from([(CLIENT_KIB, each / 1024.0)]))
    })
}

pub(super) fn idle_client(addr: std::net::SocketAddr, index: usize) -> Result<Conn> {
    let mut conn = Conn::connect(addr)?;
    conn.subscribe(&format!("devices.{index}.command"), None, 1)?;
    conn.subscribe(&format!("devices.{index}.config.>"), None, 2)?;
    conn.flush()?;
    Ok(conn)
}

fn start(bench: &Bench, arm: Arm) -> Result<Sample> {
    let mut ready = Vec::new();
    for _ in 0..STARTS {
        let workdir = bench.workdir()?;
        ready.push(bench.start(arm, &workdir)?.ready_after);
    }
    ready.sort_unstable();
    let median = ready.get(STARTS / 2).copied().unwrap_or_default();
    Ok(Sample::from([(READY_MS, median.as_secs_f64() * 1e3)]))
}

fn start_with_stored(bench: &Bench, arm: Arm, messages: u64, subjects: u64) -> Result<Sample> {
    let workdir = bench.workdir()?;
    let server = bench.start(arm, &workdir)?;
    let mut conn = Conn::connect(server.addr)?;
    create_stream(&mut conn, STREAM, "sensors.>")?;
    fill_stream(&mut conn, messages, |n| format!("sensors.{}", n % subjects))
        .map_err(|error| server.blame(&error))?;
    settle();
    let rss_stored = server.usage()?.rss_bytes;
    server.kill();
    let started = clock::now();
    let server = bench.start(arm, &workdir)?;
    let mut conn = Conn::connect(server.addr)?;
    // Ready means that the messages are there, not only that somebody listens.
    expect_stored(&mut conn, STREAM, messages)?;
    let ready = started.elapsed();
    settle();
    Ok(Sample::from([
        (MESSAGES, messages as f64),
        (READY_MS, ready.as_secs_f64() * 1e3),
        (RSS_STORED, mib(rss_stored)),
        (RSS, mib(server.usage()?.rss_bytes)),
    ]))
}

/// Gives a server the time to finish what it does in the background.
pub(super) fn settle() {
    thread::sleep(Duration::from_secs(1));
}
