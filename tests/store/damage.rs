//! Files with wrong bytes in them: reported, set aside, never a panic.

use sedge::id::Rng;
use sedge::jetstream::storage::{PublishOutcome, StoreReply, StoreRequest, Token};
use sedge::store::StoreOptions;

use crate::world::{self, Answer, STREAM, TestDisk, Text};

fn filled() -> TestDisk {
    let disk = TestDisk::default();
    let (mut store, _) = world::open(&disk, StoreOptions::default());
    store.ask(world::create(world::settings()));
    for number in 0..40_u32 {
        let texts: Vec<Text> = (0..50)
            .map(|index| Text {
                at: i64::from(number),
                subject: format!("s.{}", index % 9),
                payload: vec![b'x'; 100],
                ..Text::default()
            })
            .collect();
        store.publish(&texts);
    }
    store.close().unwrap();
    disk
}

#[test]
fn flipped_bytes_are_reported_and_the_file_is_kept() {
    let original = filled();
    let bytes = original.0.lock().unwrap().database.written.clone();
    let mut set_aside = 0;
    for seed in world::seeds(200) {
        let mut rng = Rng::new(seed);
        let mut bad = bytes.clone();
        for _ in 0..=rng.below(8) {
            let at = rng.index(bad.len());
            bad[at] ^= 1 << rng.below(8);
        }
        let disk = TestDisk::default();
        disk.0.lock().unwrap().database.written.clone_from(&bad);
        let (mut store, replies) = world::open(&disk, StoreOptions::default());
        assert!(matches!(replies[0], StoreReply::Recovered { .. }));
        if let Some(StoreReply::Health(Some(error))) = replies.get(1) {
            assert!(error.text.contains("was moved to aside"), "{error}");
            assert_eq!(disk.0.lock().unwrap().set_aside, [bad]);
            set_aside += 1;
        } else {
            // The flip hit bytes that nothing uses.
            assert_eq!(world::read_all(&mut store).len(), 2_000, "seed {seed}");
        }
    }
    assert!(set_aside > 0 || std::env::var("SEDGE_SEED").is_ok());
}

#[test]
fn a_file_that_is_no_store_at_all_is_set_aside() {
    for rubbish in [vec![7; 100], vec![0; 100_000], b"#!/bin/sh\n".repeat(5_000)] {
        let disk = TestDisk::default();
        disk.0.lock().unwrap().database.written.clone_from(&rubbish);
        let (mut store, replies) = world::open(&disk, StoreOptions::default());
        assert_eq!(replies.len(), 2, "{replies:?}");
        assert_eq!(disk.0.lock().unwrap().set_aside, [rubbish]);
        store.ask(world::create(world::settings()));
        store.publish(&[Text { subject: "a".into(), ..Text::default() }]);
    }
}

#[test]
fn a_block_damaged_behind_the_stores_back_is_named_and_others_can_be_read() {
    let disk = filled();
    let (mut store, _) =
        world::open(&disk, StoreOptions { cache_bytes: 0, ..StoreOptions::default() });
    {
        let mut platter = disk.0.lock().unwrap();
        let at = platter.database.written.windows(60).position(|part| part == [b'x'; 60]).unwrap();
        platter.database.written[at + 30] = b'y';
    }
    let mut failed = Vec::new();
    for seq in 1..=2_000 {
        let by = sedge::jetstream::storage::GetBy::Seq(seq);
        let get = StoreRequest::Get { token: Token(1), stream: STREAM, by };
        let StoreReply::Got { msg, .. } = store.ask(get) else { panic!() };
        match msg {
            Ok(found) => assert_eq!(world::rows(&found.unwrap())[0].4, [b'x'; 100]),
            Err(error) => {
                assert!(error.text.contains("is damaged"), "{error}");
                failed.push(seq);
            }
        }
    }
    assert!(!failed.is_empty() && failed.len() < 700, "{} failed", failed.len());
}

#[test]
fn index_pages_damaged_behind_the_stores_back_end_no_process_and_are_found_by_the_next_start() {
    let disk = filled();
    let options = StoreOptions { cache_bytes: 0, ..StoreOptions::default() };
    let (mut store, _) = world::open(&disk, options);
    {
        let mut platter = disk.0.lock().unwrap();
        // The first byte of a page of a tree says of which kind it is.
        for page in platter.database.written.chunks_mut(4096).skip(1) {
            page[0] = 0xee;
        }
    }
    let get = StoreRequest::Count { token: Token(1), stream: STREAM, from: 1, filters: [].into() };
    let StoreReply::Counted { count, .. } = store.ask(get) else { panic!() };
    assert!(count.is_err());
    let (outcomes, _) = store.publish(&[Text { subject: "a".into(), ..Text::default() }]);
    assert!(matches!(outcomes[..], [PublishOutcome::Refused(_)]), "{outcomes:?}");
    assert!(store.is_in_trouble());
    assert!(disk.0.lock().unwrap().is_suspect);
    drop(store);

    let (mut store, replies) = world::open(&disk, options);
    assert!(matches!(&replies[1..], [StoreReply::Health(Some(_))]), "{replies:?}");
    assert_eq!(disk.0.lock().unwrap().set_aside.len(), 1);
    assert!(!disk.0.lock().unwrap().is_suspect);
    store.ask(world::create(world::settings()));
    store.publish(&[Text { subject: "a".into(), ..Text::default() }]);
}
