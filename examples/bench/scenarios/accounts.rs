//! Many accounts, each with its own talk on the same subject.

use super::core::phase;
use super::{Arm, Bench, Budget, Meter, RATE, Row, Sample, Scenario};
use crate::clock;
use crate::error::Result;
use crate::raw::{Conn, Publisher, Receivers, frame_bytes, publications};
use crate::report::Unit;

const ACCOUNTS: usize = 20;
const SUBJECT: &str = "bench.load";
const PAYLOAD: usize = 128;

/// The scenarios of this module.
pub(super) fn scenarios() -> Vec<Scenario> {
    let mut scenario = Scenario::new(
        format!("{ACCOUNTS} accounts, 1 -> 1 in each, 128 B"),
        run,
        &[Row::new(RATE, Unit::PerSecond, Budget::RatioMin(1.5))],
    );
    for arm in &mut scenario.arms {
        arm.setup.accounts = ACCOUNTS;
    }
    scenario.cpu_ratio_max = Some(0.5);
    vec![scenario]
}

fn run(bench: &Bench, arm: Arm) -> Result<Sample> {
    let workdir = bench.workdir()?;
    let server = bench.start(arm, &workdir)?;
    let mut subscribers = Vec::new();
    let mut publishers = Vec::new();
    for number in 0..ACCOUNTS {
        let user = format!("u{number}");
        let mut conn = Conn::sign_in(server.addr, Some(&user))?;
        conn.subscribe(SUBJECT, None, 1)?;
        conn.flush()?;
        subscribers.push(conn);
        let (buffer, count) = publications(SUBJECT, PAYLOAD);
        publishers.push(Publisher::of(Conn::sign_in(server.addr, Some(&user))?, buffer, count));
    }
    // A message in the wrong account would be one too many for one subscriber.
    let mut receivers = Receivers::of(subscribers, frame_bytes(SUBJECT, 1, PAYLOAD))?;
    let warm_up = phase(bench.warm_up, &mut publishers, &mut receivers, 1)?;
    let meter = Meter::start(&server)?;
    let started = clock::now();
    let messages = phase(bench.measure, &mut publishers, &mut receivers, 1)?;
    let sample = meter.finish(messages, started.elapsed())?;
    receivers.finish(warm_up + messages)?;
    Ok(sample)
}
