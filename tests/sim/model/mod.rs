//! Does JetStream do what the reference says, whatever is asked of it in whatever order?
//!
//! The real broker over the real store, and a naive model of both, are given the same random
//! operations through the wire protocol; after each they must agree about every number and
//! every message. Restarts come in between, and power cuts between any two writes: what was
//! confirmed must hold then, and what was not may be one or the other.
//!
//! `SEDGE_SEED=123 cargo test --test sim model -- --nocapture` replays one seed with each of
//! its steps; `SEDGE_MODEL_SEEDS=100000` runs more of them.
//!
//! - `machine`: the real side.
//! - `stream`, `consumer`: the model.
//! - `steps`: what is done.
//! - `check`: what has to agree.
//! - `found`: what seeds found, each in a few lines.

mod check;
mod consumer;
mod found;
mod machine;
mod steps;
mod stream;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use sedge::jetstream::storage::{StoreReply, StoreRequest};

use crate::{Results, each_seed_of, number};

const SEEDS: u64 = 120;
const STEPS: u32 = 120;

/// What is broken on purpose, so that it is seen to be noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// A double ack is answered before the record that holds it is written.
    EarlyConfirm,
    /// What an ack settled stays in the stream.
    KeptWork,
    /// Ids of messages are not remembered.
    ForgottenIds,
    /// Old messages stay.
    NoExpiry,
}

impl Broken {
    /// Changes a request on its way to the store; true if it never gets there.
    fn breaks(self, request: &mut StoreRequest, replies: &mut Vec<StoreReply>) -> bool {
        match (self, request) {
            (Self::EarlyConfirm, StoreRequest::PutConsumer { token, .. }) => {
                if let Some(token) = token.take() {
                    replies.push(StoreReply::Done {
                        token,
                        found: true,
                        result: Ok(()),
                        update: None,
                    });
                }
                false
            }
            (Self::KeptWork, StoreRequest::Settle { token, .. }) => {
                let (token, found, result) = (*token, true, Ok(()));
                replies.push(StoreReply::Done { token, found, result, update: None });
                true
            }
            (Self::ForgottenIds, StoreRequest::Publish(batch)) => {
                let name = b"Nats-Msg-Id";
                let found = batch.data.windows(name.len()).position(|part| part == name);
                if let Some(at) = found {
                    batch.data[at] = b'X';
                }
                false
            }
            (Self::NoExpiry, StoreRequest::Expire { .. }) => true,
            _ => false,
        }
    }
}

thread_local! {
    /// How a seed fails on this thread is told with its number.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

fn silence() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
}

/// Runs one seed; what it says of itself, or how it failed.
fn run(seed: u64, broken: Broken, shown: bool) -> Result<steps::Tally, String> {
    silence();
    QUIET.set(!shown);
    let run = AssertUnwindSafe(|| steps::Run::new(seed, broken, shown).run(STEPS));
    let outcome = catch_unwind(run);
    QUIET.set(false);
    outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_string()
    })
}

fn each_seed(count: u64, broken: Broken) -> Results<Result<steps::Tally, String>> {
    each_seed_of(count, |seed| run(seed, broken, false))
}

#[test]
fn model_and_server_agree_after_every_step_and_every_restart() {
    if let Some(seed) = number("SEDGE_SEED") {
        let outcome = run(seed, Broken::Nothing, true);
        println!("{outcome:?}");
        assert!(outcome.is_ok(), "seed {seed}");
        return;
    }
    let count = number("SEDGE_MODEL_SEEDS").unwrap_or(SEEDS);
    let mut all = steps::Tally::default();
    let mut failed = Vec::new();
    for (seed, result) in each_seed(count, Broken::Nothing) {
        match result {
            Ok(tally) => all.add(&tally),
            Err(text) => failed.push((seed, text)),
        }
    }
    failed.sort_unstable();
    println!("{count} seeds: {all:?}");
    for (seed, text) in failed.iter().take(20) {
        println!("seed {seed}: {text}");
        println!("  replay: SEDGE_SEED={seed} cargo test --test sim model_and -- --nocapture");
    }
    assert!(failed.is_empty(), "{} of {count} seeds fail", failed.len());
}

fn is_noticed(broken: Broken) {
    let results = each_seed(40, broken);
    let noticed = results.iter().filter(|(_, result)| result.is_err()).count();
    println!("{broken:?}: {noticed} of 40 seeds notice");
    assert!(noticed > 0, "{broken:?}, and nobody notices");
}

#[test]
fn model_notices_a_confirmation_before_its_record() {
    is_noticed(Broken::EarlyConfirm);
}

#[test]
fn model_notices_settled_work_that_stays() {
    is_noticed(Broken::KeptWork);
}

#[test]
fn model_notices_forgotten_message_ids() {
    is_noticed(Broken::ForgottenIds);
}

#[test]
fn model_notices_messages_that_never_expire() {
    is_noticed(Broken::NoExpiry);
}
