//! Small commits: they go into the journal, and come back from it.

use sedge::jetstream::storage::{PublishOutcome, StoreReply, StoreRequest, Token};
use sedge::store::{Disk, StoreOptions};

use crate::world::{self, Answer, TestDisk, Text};

fn text(number: i64) -> Text {
    Text { at: number, subject: "s.a".into(), payload: vec![b'm'; 100], ..Text::default() }
}

fn publish(store: &mut Disk, number: i64) {
    let (outcomes, _) = store.publish(&[text(number)]);
    assert!(matches!(outcomes[..], [PublishOutcome::Stored { .. }]), "{outcomes:?}");
}

fn begin() -> (TestDisk, Disk) {
    let disk = TestDisk::default();
    let (mut store, _) = world::open(&disk, StoreOptions::default());
    store.ask(world::create(world::settings()));
    (disk, store)
}

/// The process dies, the machine goes on.
fn kill(disk: &TestDisk, store: Disk) -> (Disk, Vec<StoreReply>) {
    disk.0.lock().unwrap().is_dead = true;
    drop(store);
    disk.0.lock().unwrap().is_dead = false;
    world::open(disk, StoreOptions::default())
}

#[test]
fn a_single_message_costs_one_page_and_one_sync() {
    let (_disk, mut store) = begin();
    // The first one makes the file.
    publish(&mut store, 0);
    let before = store.stats();
    for number in 1..=100 {
        publish(&mut store, number);
    }
    let after = store.stats();
    assert_eq!(after.journaled - before.journaled, 100);
    // One more where the database file grows.
    assert!(after.syncs - before.syncs <= 102);
    assert_eq!(after.bytes_written - before.bytes_written, 100 * 4096);
}

#[test]
fn what_went_into_the_journal_is_there_after_a_kill_however_often_it_filled_up() {
    for count in [1, 5, 255, 256, 257, 1_000] {
        let (disk, mut store) = begin();
        for number in 0..count {
            publish(&mut store, number);
        }
        let (mut store, replies) = kill(&disk, store);
        assert_eq!(replies.len(), 1, "{replies:?}");
        let StoreReply::Recovered { streams, .. } = &replies[0] else { panic!("{replies:?}") };
        assert_eq!(streams[0].state.last_seq, u64::try_from(count).unwrap());
        let rows = world::read_all(&mut store);
        assert_eq!(rows.len(), usize::try_from(count).unwrap());
        assert!(rows.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1));
        // And again, without anything new.
        let (mut store, _) = kill(&disk, store);
        assert_eq!(world::read_all(&mut store).len(), usize::try_from(count).unwrap());
    }
}

#[test]
fn small_and_large_commits_and_changes_of_streams_keep_their_order() {
    let (disk, mut store) = begin();
    let mut stored = 0;
    for round in 0..6_i64 {
        publish(&mut store, round);
        let many: Vec<Text> = (0..400).map(|_| text(round)).collect();
        store.publish(&many);
        publish(&mut store, round);
        stored += 402;
        if round == 3 {
            let purge = StoreRequest::Purge {
                token: Token(3),
                stream: world::STREAM,
                purge: sedge::jetstream::storage::Purge { before: Some(100), ..Default::default() },
            };
            assert!(matches!(store.ask(purge), StoreReply::Purged { result: Ok(99), .. }));
            stored -= 99;
        }
        publish(&mut store, round);
        stored += 1;
        let before = world::read_all(&mut store);
        let replies;
        (store, replies) = kill(&disk, store);
        assert_eq!(replies.len(), 1, "{replies:?}");
        assert_eq!(world::read_all(&mut store), before);
        assert_eq!(before.len(), stored);
    }
}

#[test]
fn a_duplicate_is_known_after_its_first_was_replayed() {
    let disk = TestDisk::default();
    let (mut store, _) = world::open(&disk, StoreOptions::default());
    let window = sedge::time::Duration::from_mins(2);
    let mut settings = world::settings();
    settings.duplicate_window = window;
    store.ask(world::create(settings));
    let headers = world::headers(&[("Nats-Msg-Id", "one")]);
    let first = Text { headers, ..text(1) };
    let (outcomes, _) = store.publish(std::slice::from_ref(&first));
    assert!(matches!(outcomes[..], [PublishOutcome::Stored { seq: 1, .. }]));
    let (mut store, _) = kill(&disk, store);
    let (outcomes, _) = store.publish(&[first]);
    assert!(matches!(outcomes[..], [PublishOutcome::Duplicate { seq: 1 }]), "{outcomes:?}");
}

#[test]
fn damage_in_the_middle_of_the_journal_is_reported_and_the_file_is_kept() {
    let (disk, mut store) = begin();
    for number in 0..10 {
        publish(&mut store, number);
    }
    {
        let mut platter = disk.0.lock().unwrap();
        let bytes = &mut platter.journal.written;
        bytes[4 * 4096 + 60] ^= 4;
    }
    let (mut store, replies) = kill(&disk, store);
    let [StoreReply::Recovered { .. }, StoreReply::Health(Some(error))] = &replies[..] else {
        panic!("{replies:?}")
    };
    assert!(error.text.contains("6 acknowledged commits are lost"), "{error}");
    assert!(error.text.contains("journal aside"), "{error}");
    assert_eq!(disk.0.lock().unwrap().journals_set_aside, 1);
    assert_eq!(world::read_all(&mut store).len(), 4);
    publish(&mut store, 20);
    let (mut store, replies) = kill(&disk, store);
    assert_eq!(replies.len(), 1, "{replies:?}");
    assert_eq!(world::read_all(&mut store).len(), 5);
}

#[test]
fn a_journal_of_rubbish_is_no_reason_to_stop() {
    let (disk, mut store) = begin();
    publish(&mut store, 1);
    store.close().unwrap();
    for rubbish in [vec![0xff; 10_000], b"sj01".repeat(2_000_000 / 4), vec![0; 3]] {
        {
            let mut platter = disk.0.lock().unwrap();
            platter.journal.written = rubbish;
        }
        let (mut store, replies) = world::open(&disk, StoreOptions::default());
        assert_eq!(replies.len(), 1, "{replies:?}");
        let before = world::read_all(&mut store).len();
        publish(&mut store, 2);
        let (mut store, _) = kill(&disk, store);
        assert_eq!(world::read_all(&mut store).len(), before + 1);
        store.close().unwrap();
    }
}

#[test]
fn where_the_journal_cannot_be_made_the_database_takes_everything() {
    let (disk, mut store) = begin();
    disk.0.lock().unwrap().fail_in = Some(0);
    publish(&mut store, 1);
    disk.0.lock().unwrap().fail_in = None;
    publish(&mut store, 2);
    assert_eq!(store.stats().journaled, 0);
    let (mut store, _) = kill(&disk, store);
    assert_eq!(world::read_all(&mut store).len(), 2);
}
