//! Core NATS throughput: publish only, 1 → 1, 1 → N, N → 1, queue group.

use std::thread;

use super::{Arm, Bench, Budget, Meter, RATE, Row, Sample, Scenario};
use crate::clock;
use crate::error::{Error, Result};
use crate::raw::{Publisher, Receivers};
use crate::report::Unit;
use crate::server::Server;

const SUBJECT: &str = "bench.load";

/// Who sends what to whom.
#[derive(Clone, Copy, Debug)]
struct Load {
    publishers: usize,
    subscribers: usize,
    queue: bool,
    payload_len: usize,
}

impl Load {
    /// How often one published message is delivered.
    fn copies(self) -> u64 {
        match (self.subscribers, self.queue) {
            (0, _) => 0,
            (_, true) => 1,
            (count, false) => count as u64,
        }
    }
}

/// The scenarios of this module.
pub(super) fn scenarios() -> Vec<Scenario> {
    let load = |publishers, subscribers, queue, payload_len| Load {
        publishers,
        subscribers,
        queue,
        payload_len,
    };
    [
        ("publish only, 16 B", load(1, 0, false, 16), 1.5),
        ("publish only, 128 B", load(1, 0, false, 128), 1.5),
        ("1 -> 1, 16 B", load(1, 1, false, 16), 2.0),
        ("1 -> 1, 128 B", load(1, 1, false, 128), 2.0),
        ("1 -> 1, 4 KiB", load(1, 1, false, 4096), 2.0),
        ("1 -> 10, 128 B, delivered", load(1, 10, false, 128), 1.5),
        ("10 -> 1, 128 B", load(10, 1, false, 128), 1.5),
        ("queue group of 4, 128 B", load(1, 4, true, 128), 1.5),
    ]
    .into_iter()
    .map(|(name, load, ratio)| {
        let rows = [Row::new(RATE, Unit::PerSecond, Budget::RatioMin(ratio))];
        let mut scenario = Scenario::new(name, move |bench, arm| run(bench, arm, load), &rows);
        scenario.cpu_ratio_max = Some(0.5);
        scenario
    })
    .collect()
}

fn run(bench: &Bench, arm: Arm, load: Load) -> Result<Sample> {
    bench.with_server(arm, |server, _| {
        let mut receivers =
            Receivers::spawn(server.addr, SUBJECT, load.payload_len, load.subscribers, load.queue)?;
        let mut publishers = (0..load.publishers)
            .map(|_| Publisher::connect(server.addr, SUBJECT, load.payload_len))
            .collect::<Result<Vec<_>>>()?;
        let warm_up = phase(bench.warm_up, &mut publishers, &mut receivers, load.copies())?;
        let (sample, messages) = measured(bench, server, &mut publishers, &mut receivers, load)?;
        receivers.finish((warm_up + messages) * load.copies())?;
        Ok(sample)
    })
}

fn measured(
    bench: &Bench,
    server: &Server,
    publishers: &mut [Publisher],
    receivers: &mut Receivers,
    load: Load,
) -> Result<(Sample, u64)> {
    let meter = Meter::start(server)?;
    let started = clock::now();
    let messages = phase(bench.measure, publishers, receivers, load.copies())?;
    let elapsed = started.elapsed();
    Ok((meter.finish(messages * load.copies().max(1), elapsed)?, messages))
}

/// Publishes for `duration` on all connections and waits until everything has arrived; gives the
/// number of messages published.
pub(super) fn phase(
    duration: std::time::Duration,
    publishers: &mut [Publisher],
    receivers: &mut Receivers,
    copies: u64,
) -> Result<u64> {
    let before = receivers.received();
    let until = clock::after(duration);
    let counts: Vec<Result<u64>> = thread::scope(|scope| {
        let threads: Vec<_> = publishers
            .iter_mut()
            .map(|publisher| {
                scope.spawn(move || {
                    let messages = publisher.blast(until)?;
                    publisher.flush()?;
                    Ok(messages)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(Error::new("a publisher panicked"))))
            .collect()
    });
    let messages = counts.into_iter().sum::<Result<u64>>()?;
    receivers.wait_for(before + messages * copies)?;
    Ok(messages)
}
