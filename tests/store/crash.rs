//! Power cuts and failing disks: what was answered stays, in order, under its sequence.

use std::time::Duration;

use sedge::id::Rng;
use sedge::jetstream::storage::{PublishOutcome, StoreReply, StreamSettings};
use sedge::store::{StoreOptions, SyncPolicy};

use crate::world::{self, Answer, Row, TestDisk, Text};

fn draw(rng: &mut Rng, at: &mut i64) -> Vec<Text> {
    let count = if rng.below(3) == 0 { 1 } else { rng.below(60) + 1 };
    (0..count)
        .map(|_| {
            *at += 1;
            let mut payload = vec![0; if rng.below(40) == 0 { 30_000 } else { rng.index(300) }];
            rng.fill(&mut payload);
            let subject = format!("s.{}", rng.below(50));
            Text { at: *at, subject, payload, ..Text::default() }
        })
        .collect()
}

/// What a reply promised.
fn stored(texts: &[Text], outcomes: &[PublishOutcome]) -> Vec<Row> {
    let pairs = texts.iter().zip(outcomes);
    pairs
        .filter_map(|(text, outcome)| match outcome {
            PublishOutcome::Stored { seq, timestamp, .. } => {
                Some((*seq, timestamp.0, text.subject.clone(), String::new(), text.payload.clone()))
            }
            _ => None,
        })
        .collect()
}

/// Everything acknowledged is there; whatever else is there came after it and was never
/// refused a sequence that somebody else has.
fn check(promised: &[Row], found: &[Row]) {
    assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0), "out of order");
    let mut found = found.iter();
    for row in promised {
        assert!(found.any(|candidate| candidate == row), "sequence {} is lost", row.0);
    }
}

#[test]
fn what_was_acknowledged_survives_power_cuts_and_failing_syncs() {
    for seed in world::seeds(150) {
        eprintln!("seed {seed}");
        let mut rng = Rng::new(seed);
        let disk = TestDisk::default();
        let mut promised: Vec<Row> = Vec::new();
        let mut at = 0;
        let (mut store, _) = world::open(&disk, StoreOptions::default());
        store.ask(world::create(world::settings()));
        for _ in 0..4 {
            if rng.below(2) == 0 {
                disk.0.lock().unwrap().fail_in = Some(rng.below(60));
            }
            for _ in 0..=rng.below(12) {
                let texts = draw(&mut rng, &mut at);
                let (outcomes, _) = store.publish(&texts);
                promised.extend(stored(&texts, &outcomes));
            }
            // In the middle of one more commit, or between two.
            if rng.below(3) > 0 {
                let mut texts = draw(&mut rng, &mut at);
                texts.truncate(30);
                disk.0.lock().unwrap().fail_in = Some(rng.below(12));
                let (outcomes, _) = store.publish(&texts);
                promised.extend(stored(&texts, &outcomes));
            }
            disk.0.lock().unwrap().is_dead = true;
            drop(store);
            disk.0.lock().unwrap().power_cut(&mut rng);
            let replies;
            (store, replies) = world::open(&disk, StoreOptions::default());
            assert_eq!(replies.len(), 1, "nothing is set aside: {replies:?}");
            check(&promised, &world::read_all(&mut store));
        }
        let last = promised.last().map_or(0, |row| row.0);
        let texts = draw(&mut rng, &mut at);
        let (outcomes, _) = store.publish(&texts);
        assert!(stored(&texts, &outcomes)[0].0 > last);
    }
}

#[test]
fn with_relaxed_sync_a_crash_loses_the_end_but_reuses_no_sequence() {
    let options =
        StoreOptions { sync: SyncPolicy::Every(Duration::from_secs(1)), ..StoreOptions::default() };
    for seed in world::seeds(100) {
        let mut rng = Rng::new(seed);
        let disk = TestDisk::default();
        let (mut store, _) = world::open(&disk, options);
        store.ask(world::create(world::settings()));
        store.sync();
        let (mut named, mut synced, mut at) = (0, 0, 0);
        for _ in 0..4 {
            for _ in 0..=rng.below(20) {
                let texts = draw(&mut rng, &mut at);
                let (outcomes, _) = store.publish(&texts);
                let rows = stored(&texts, &outcomes);
                assert!(rows[0].0 > named, "sequence {} again", rows[0].0);
                named = rows[rows.len() - 1].0;
                if rng.below(6) == 0 {
                    store.sync();
                    synced = named;
                }
            }
            disk.0.lock().unwrap().is_dead = true;
            drop(store);
            disk.0.lock().unwrap().power_cut(&mut rng);
            (store, _) = world::open(&disk, options);
            let found = world::read_all(&mut store);
            let last_kept = found.iter().map(|row| row.0).filter(|seq| *seq <= named).max();
            assert!(last_kept.unwrap_or(0) >= synced);
        }
    }
}

#[test]
fn a_full_disk_refuses_with_its_reason_and_works_again_without_a_restart() {
    let disk = TestDisk::default();
    let (mut store, _) = world::open(&disk, StoreOptions::default());
    store.ask(world::create(StreamSettings { max_msgs: Some(5), ..world::settings() }));
    let text = |number: i64| Text { at: number, subject: "a".into(), ..Text::default() };
    store.publish(&[text(1)]);
    disk.0.lock().unwrap().fail_in = Some(0);
    let replies =
        store.apply_batch(vec![sedge::jetstream::storage::StoreRequest::Publish(world::batch(&[
            text(2),
        ]))]);
    let [StoreReply::Health(Some(error)), StoreReply::Published { outcomes, .. }] = &replies[..]
    else {
        panic!("{replies:?}")
    };
    assert!(error.text.contains("no space left"), "{error}");
    let PublishOutcome::Refused(refused) = &outcomes[0] else { panic!() };
    assert_eq!(refused.codes(), (10077, 503));
    assert!(refused.to_string().contains("no space left"), "{refused}");
    let (outcomes, updates) = store.publish(&[text(3)]);
    assert!(matches!(outcomes[..], [PublishOutcome::Stored { seq: 2, .. }]), "{outcomes:?}");
    assert_eq!(updates[0].state.messages, 2);
    assert!(!store.is_in_trouble());
}

#[test]
fn with_relaxed_sync_a_stream_that_was_announced_outlives_a_crash() {
    let options = StoreOptions {
        sync: SyncPolicy::Every(Duration::from_hours(1)),
        ..StoreOptions::default()
    };
    for seed in world::seeds(20) {
        let mut rng = Rng::new(seed);
        let disk = TestDisk::default();
        let (mut store, _) = world::open(&disk, options);
        store.ask(world::create(world::settings()));
        disk.0.lock().unwrap().is_dead = true;
        drop(store);
        disk.0.lock().unwrap().power_cut(&mut rng);
        let (_store, replies) = world::open(&disk, options);
        let Some(StoreReply::Recovered { streams, .. }) = replies.first() else { panic!() };
        assert_eq!(streams.len(), 1, "seed {seed}");
    }
}
