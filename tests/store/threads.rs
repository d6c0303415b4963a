//! The store as the server runs it: its threads and a real file.

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use sedge::jetstream::storage::{PublishOutcome, StoreReply, StoreRequest, Token};
use sedge::store::{Store, StoreOptions, SyncPolicy};

use crate::world::{self, STREAM, Text};

/// A store, and the bell its wake function rings.
struct Running {
    store: Store,
    bell: Receiver<()>,
}

impl Running {
    fn open(dir: &Path, options: StoreOptions) -> Self {
        let (ring, bell) = channel();
        let store = Store::open(dir, options, move || {
            let _ = ring.send(());
        });
        Self { store: store.unwrap(), bell }
    }

    fn next(&self) -> StoreReply {
        loop {
            if let Some(reply) = self.store.poll_reply() {
                return reply;
            }
            self.bell.recv_timeout(Duration::from_secs(30)).unwrap();
        }
    }
}

fn text(number: u32) -> Text {
    Text {
        at: 1_000 + i64::from(number),
        subject: format!("s.{}", number % 7),
        payload: number.to_string().into_bytes(),
        ..Text::default()
    }
}

fn publish_and_reopen(sync: SyncPolicy) {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { sync, ..StoreOptions::default() };
    let mut running = Running::open(dir.path(), options);
    assert!(matches!(running.next(), StoreReply::Recovered { .. }));
    running.store.submit(world::create(world::settings()));
    assert!(matches!(running.next(), StoreReply::Done { result: Ok(()), .. }));
    for number in 0..500_u32 {
        running.store.submit(StoreRequest::Publish(world::batch(&[text(number)])));
    }
    for number in 0..500_u32 {
        let StoreReply::Published { outcomes, .. } = running.next() else { panic!() };
        let expected = u64::from(number) + 1;
        assert!(matches!(outcomes[..], [PublishOutcome::Stored { seq, .. }] if seq == expected));
    }
    running.store.close().unwrap();
    assert!(running.store.stats().commits <= 501);

    let mut running = Running::open(dir.path(), options);
    let StoreReply::Recovered { streams, next_stream, .. } = running.next() else { panic!() };
    assert_eq!(next_stream, STREAM.0 + 1);
    assert_eq!(streams[0].record, b"config");
    assert_eq!((streams[0].state.messages, streams[0].state.last_seq), (500, 500));
    let (token, stream) = (Token(5), STREAM);
    let get = sedge::jetstream::storage::GetBy::Seq(77);
    running.store.submit(StoreRequest::Get { token, stream, by: get });
    let StoreReply::Got { msg, .. } = running.next() else { panic!() };
    assert_eq!(world::rows(&msg.unwrap().unwrap())[0].4, b"76");
}

#[test]
fn what_was_stored_is_there_after_a_restart() {
    publish_and_reopen(SyncPolicy::Always);
}

#[test]
fn with_relaxed_sync_a_clean_stop_keeps_everything_and_skips_no_sequence() {
    publish_and_reopen(SyncPolicy::Every(Duration::from_hours(1)));
}

#[test]
fn a_second_server_on_the_same_directory_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let _running = Running::open(dir.path(), StoreOptions::default());
    let Err(error) = Store::open(dir.path(), StoreOptions::default(), || ()) else { panic!() };
    assert!(error.text.contains("another process has this store open"), "{error}");
}
