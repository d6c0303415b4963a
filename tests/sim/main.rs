//! Simulation: does an acknowledged reading reach the hub, whatever happens on the way?
//!
//! A hub, a link, a gateway, its disk and its clock run in one thread and in virtual time.
//! The gateway is the real broker and the real store; the rest is modelled (see each module).
//! From a seed everything is drawn: outages, the order in which what is ready is served, the
//! sizes of reads and writes, slow and failing syncs, power cuts that lose or tear what was
//! not synced, jumps of the wall clock.
//!
//! `works` asks the same of work in a queue, `model` of everything JetStream does.
//!
//! A seed that fails is printed with the promise it broke. `SEDGE_SEED=123 cargo test --test
//! sim -- --nocapture` replays it with everything that happened. `SEDGE_SEEDS=100000` runs
//! more of them.

mod chance;
mod disk;
mod gateway;
mod hub;
mod ledger;
mod link;
mod model;
mod plan;
mod sensor;
mod trace;
mod works;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use plan::Sabotage;
use world::{Outcome, run};

const SEEDS: u64 = 1000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a seed is a number"))
}

/// Seeds, each with what came of it.
type Results<T> = Vec<(u64, T)>;

/// Runs seeds 1 to `count` on two threads.
fn each_seed_of<T: Send>(count: u64, run: impl Fn(u64) -> T + Sync) -> Results<T> {
    let next = AtomicU64::new(1);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > count {
                        break;
                    }
                    let result = run(seed);
                    results.lock().expect("no thread panicked").push((seed, result));
                }
            });
        }
    });
    results.into_inner().expect("no thread panicked")
}

/// Runs seeds 1 to `count`; returns what `found` says of them.
fn each_seed<T: Send>(
    count: u64,
    sabotage: Sabotage,
    found: impl Fn(u64, Outcome) -> Option<T> + Sync,
) -> Vec<T> {
    let results = each_seed_of(count, |seed| found(seed, run(seed, sabotage, false)));
    results.into_iter().filter_map(|(_, result)| result).collect()
}

/// Fails if any of `count` seeds is broken, after telling how to replay the first ones by the
/// filter `test`.
fn none_broken<'a>(count: u64, test: &str, broken: impl Iterator<Item = (u64, &'a str)>) {
    let mut broken: Vec<_> = broken.collect();
    broken.sort_unstable();
    for (seed, text) in broken.iter().take(20) {
        println!("seed {seed}: {text}");
        println!("  replay: SEDGE_SEED={seed} cargo test --test sim {test} -- --nocapture");
    }
    assert!(broken.is_empty(), "{} of {count} seeds fail", broken.len());
}

#[test]
fn acknowledged_readings_reach_the_hub_once_and_in_order() {
    if let Some(seed) = number("SEDGE_SEED") {
        let outcome = run(seed, Sabotage::None, true);
        println!("{outcome:#?}");
        assert_eq!(outcome.broken, None, "seed {seed}");
        return;
    }
    let show = std::env::var("SEDGE_SHOW").is_ok();
    let count = number("SEDGE_SEEDS").unwrap_or(SEEDS);
    let outcomes = each_seed(count, Sabotage::None, |seed, outcome| {
        if show {
            println!(
                "{seed}: acked {} hub {} events {} turns {} creates {} refused {} relaxed {} \
                 recovery {:?}",
                outcome.acked,
                outcome.at_hub,
                outcome.events,
                outcome.turns,
                outcome.creates,
                outcome.refused,
                outcome.relaxed,
                outcome.recovery
            );
        }
        Some((seed, outcome))
    });
    let acked: u64 = outcomes.iter().map(|(_, outcome)| outcome.acked).sum();
    println!("{count} seeds, {acked} readings acknowledged");
    none_broken(
        count,
        "acknowledged",
        outcomes.iter().filter_map(|(seed, outcome)| Some((*seed, outcome.broken.as_deref()?))),
    );
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 1..=5 {
        let (one, two) = (run(seed, Sabotage::None, false), run(seed, Sabotage::None, false));
        assert_eq!(one.digest, two.digest, "seed {seed}");
    }
}

#[test]
fn an_ack_before_the_commit_is_caught() {
    let caught = each_seed(60, Sabotage::EarlyAck, |seed, outcome| Some((seed, outcome.broken?)));
    println!("{} of 60 seeds notice: {:?}", caught.len(), caught.first());
    assert!(!caught.is_empty(), "acks may leave before the commit and nobody notices");
}

#[test]
fn a_hub_that_loses_its_position_is_caught() {
    let caught =
        each_seed(60, Sabotage::LostPosition, |seed, outcome| Some((seed, outcome.broken?)));
    println!("{} of 60 seeds notice: {:?}", caught.len(), caught.first());
    assert!(!caught.is_empty(), "a hub may skip readings and nobody notices");
}
