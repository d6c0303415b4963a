//! Catch-up over a leaf: a hub's stream sources a gateway's backlog.
//!
//! The hub is nats-server in every arm; the arm is the gateway.

use std::thread;
use std::time::Duration;

use super::jetstream::{create_stream, fill_stream, stored};
use super::{Arm, Bench, Budget, Meter, RATE, RSS, Row, Sample, Scenario, mib};
use crate::clock;
use crate::error::{Error, Result};
use crate::raw::Conn;
use crate::report::Unit;
use crate::server::{Kind, Setup};

const HUB_CPU: &str = "hub_cpu_us";

/// Longest wait for the leaf link.
const LINK_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest time without a new message at the hub.
const STALL_TIMEOUT: Duration = Duration::from_mins(1);

/// The scenarios of this module.
pub(super) fn scenarios(quick: bool) -> Vec<Scenario> {
    let (name, backlog) = if quick {
        ("leaf catch-up of 200 k, 128 B", 200_000)
    } else {
        ("leaf catch-up of 1 M, 128 B", 1_000_000)
    };
    let mut catch_up = Scenario::new(
        name,
        move |bench, arm| catch_up(bench, arm, backlog),
        &[
            Row::new(RATE, Unit::PerSecond, Budget::RatioMin(1.5)),
            // Tells whether it was the hub that could not take more.
            Row::new(HUB_CPU, Unit::Micros, Budget::None).label("hub's CPU a message").bare(),
        ],
    );
    catch_up.timeout = Duration::from_mins(3);
    catch_up.needs_jetstream = true;
    vec![catch_up]
}

fn catch_up(bench: &Bench, arm: Arm, backlog: u64) -> Result<Sample> {
    let (hub_dir, gateway_dir) = (bench.workdir()?, bench.workdir()?);

    // The backlog comes about while there is no uplink.
    let offline = Arm { setup: Setup { domain: Some("leaf"), ..arm.setup }, ..arm };
    let gateway = bench.start(offline, &gateway_dir)?;
    let mut conn = Conn::connect(gateway.addr)?;
    create_stream(&mut conn, "EDGE", "edge.>")?;
    fill_stream(&mut conn, backlog, |_| String::from("edge.a"))
        .map_err(|error| gateway.blame(&error))?;
    gateway.stop()?;

    let hub = Arm {
        name: "hub",
        kind: Kind::Nats,
        setup: Setup { domain: Some("hub"), leaf_listen: true, ..Setup::default() },
    };
    let hub = bench.start(hub, &hub_dir)?;
    let online = Arm { setup: Setup { leaf_remote: hub.leaf_addr, ..offline.setup }, ..arm };
    let gateway = bench.start(online, &gateway_dir)?;
    let mut conn = Conn::connect(hub.addr)?;
    await_link(&mut conn).map_err(|error| gateway.blame(&error))?;

    let hub_cpu = hub.usage()?.cpu;
    let meter = Meter::start(&gateway)?;
    let started = clock::now();
    conn.api(
        "$JS.API.STREAM.CREATE.AGG",
        "{\"name\":\"AGG\",\"storage\":\"file\",\"retention\":\"limits\",\"num_replicas\":1,\
         \"sources\":[{\"name\":\"EDGE\",\"external\":{\"api\":\"$JS.leaf.API\",\"deliver\":\"\"}}]}",
    )?;
    await_messages(&mut conn, backlog).map_err(|error| gateway.blame(&error))?;
    let mut sample = meter.finish(backlog, started.elapsed())?;
    let hub_cpu = hub.usage()?.cpu.saturating_sub(hub_cpu);
    sample.insert(HUB_CPU, hub_cpu.as_secs_f64() * 1e6 / backlog as f64);
    expect_no_more(&mut conn, backlog)?;
    sample.insert(RSS, mib(gateway.usage()?.rss_bytes));
    Ok(sample)
}

/// Waits until the hub reaches the gateway's `JetStream`.
fn await_link(conn: &mut Conn) -> Result<()> {
    let deadline = clock::after(LINK_TIMEOUT);
    loop {
        match conn.api("$JS.leaf.API.INFO", "") {
            Ok(_) => return Ok(()),
            Err(error) if clock::now() > deadline => {
                return Err(error.during("waiting for the leaf link"));
            }
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Waits until the hub's stream is complete.
fn await_messages(conn: &mut Conn, count: u64) -> Result<()> {
    let mut last = (0, clock::after(STALL_TIMEOUT));
    loop {
        let arrived = stored(conn, "AGG")?;
        if arrived >= count {
            return Ok(());
        }
        if arrived > last.0 {
            last = (arrived, clock::after(STALL_TIMEOUT));
        }
        if clock::now() > last.1 {
            return Err(Error::new(format!("the hub stays at {arrived} of {count} messages")));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Proves that nothing was sent twice.
fn expect_no_more(conn: &mut Conn, count: u64) -> Result<()> {
    thread::sleep(Duration::from_millis(200));
    match stored(conn, "AGG")? {
        arrived if arrived == count => Ok(()),
        arrived => Err(Error::new(format!("the hub has {arrived} messages, sent were {count}"))),
    }
}
