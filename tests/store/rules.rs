//! Single rules of the engine, one test each.

use std::time::Duration;

use sedge::jetstream::engine::MemStore;
use sedge::jetstream::storage::{
    ConsumerRecord, Origin, PublishOutcome, Purge, Removed, StoreReply, StoreRequest,
    StreamSettings, StreamUpdate, Token,
};
use sedge::store::StoreOptions;
use sedge::subject::Filter;
use sedge::time::Timestamp;

use crate::world::{self, Answer, STREAM, TestDisk, Text, headers, settings};

fn store(settings: StreamSettings) -> MemStore {
    let mut store = MemStore::new();
    let StoreReply::Done { result, .. } = store.ask(world::create(settings)) else { panic!() };
    result.unwrap();
    store
}

fn text(subject: &str, fields: &[(&str, &str)]) -> Text {
    Text { at: 1, subject: subject.into(), headers: headers(fields), payload: b"x".to_vec() }
}

/// The sequence, or the description of the error.
fn say(store: &mut MemStore, text: &Text) -> String {
    match &store.publish(std::slice::from_ref(text)).0[0] {
        PublishOutcome::Stored { seq, .. } => seq.to_string(),
        PublishOutcome::Skipped { seq } => format!("skipped {seq}"),
        PublishOutcome::Duplicate { seq } => format!("duplicate {seq}"),
        PublishOutcome::Refused(error) => format!("{} {error}", error.codes().0),
    }
}

#[test]
fn expectations_are_checked_in_nats_servers_order() {
    let mut store =
        store(StreamSettings { duplicate_window: Duration::from_secs(1), ..settings() });
    let mut ask = |subject: &str, fields: &[(&str, &str)]| say(&mut store, &text(subject, fields));
    assert_eq!(ask("a", &[("Nats-Expected-Last-Sequence", "0")]), "1");
    assert_eq!(ask("a", &[("Nats-Expected-Stream", "T")]), "10060 expected stream does not match");
    assert_eq!(ask("a", &[("Nats-Expected-Last-Sequence", "x")]), "10071 wrong last sequence: 1");
    assert_eq!(ask("b", &[("Nats-Expected-Last-Sequence", "")]), "2");
    let on_subject = "Nats-Expected-Last-Subject-Sequence";
    assert_eq!(ask("a", &[(on_subject, "2")]), "10071 wrong last sequence: 1");
    assert_eq!(ask("a", &[(on_subject, "1")]), "3");
    let subject = "Nats-Expected-Last-Subject-Sequence-Subject";
    assert_eq!(ask("a", &[(on_subject, "2"), (subject, "b")]), "4");
    assert_eq!(ask("a", &[(on_subject, "4"), (subject, "*")]), "5");
    assert_eq!(
        ask("a", &[(subject, "b")]),
        "10193 missing sequence for expected last sequence per subject"
    );
    assert_eq!(ask("a", &[("Nats-Msg-Id", "one")]), "6");
    // The duplicate wins over the expected id, but not over an expected sequence.
    let last_id = "Nats-Expected-Last-Msg-Id";
    assert_eq!(ask("a", &[("Nats-Msg-Id", "one"), (last_id, "no")]), "duplicate 6");
    assert_eq!(
        ask("a", &[("Nats-Msg-Id", "one"), ("Nats-Expected-Last-Sequence", "1")]),
        "10071 wrong last sequence: 6"
    );
    assert_eq!(ask("a", &[(last_id, "no")]), "10070 wrong last msg ID: one");
    assert_eq!(ask("a", &[("Nats-Rollup", "sub")]), "10111 rollup not permitted");
    assert_eq!(ask("a", &[("Nats-TTL", "1s")]), "10166 per-message TTL is disabled");
    assert_eq!(ask("a", &[("Nats-TTL", "0")]), "10165 invalid per-message TTL");
}

#[test]
fn sealed_sizes_and_unknown_streams_are_refused() {
    let mut small = store(StreamSettings { max_msg_size: Some(3), ..settings() });
    let mut long = text("a", &[]);
    long.payload = b"xxxx".to_vec();
    assert_eq!(say(&mut small, &long), "10054 message size exceeds maximum allowed");
    let mut any = store(settings());
    let value = "v".repeat(65_536);
    let big = text("a", &[("K", &value)]);
    assert_eq!(say(&mut any, &big), "10097 header size exceeds maximum allowed of 64k");
    let mut sealed = store(StreamSettings { sealed: true, ..settings() });
    assert_eq!(say(&mut sealed, &text("a", &[])), "10109 invalid operation on sealed stream");
    let mut none = MemStore::new();
    assert_eq!(say(&mut none, &text("a", &[])), "10059 stream not found");
}

#[test]
fn a_message_larger_than_the_stream_is_acked_and_gone_with_the_rest() {
    let mut store = store(StreamSettings { max_bytes: Some(40), ..settings() });
    assert_eq!(say(&mut store, &text("a", &[])), "1");
    let (outcomes, updates) =
        store.publish(&[Text { payload: vec![0; 100], subject: "a".into(), ..Text::default() }]);
    assert!(matches!(outcomes[..], [PublishOutcome::Stored { seq: 2, .. }]));
    assert_eq!((updates[0].state.messages, updates[0].state.first_seq), (0, 3));
}

#[test]
fn a_purge_past_the_end_moves_the_counters_and_lists_are_bounded() {
    let mut store = store(settings());
    let texts: Vec<Text> = (0..5_000).map(|_| text("a", &[])).collect();
    store.publish(&texts);
    let purge = |store: &mut MemStore, purge: Purge| {
        let StoreReply::Purged { result, update, .. } =
            store.ask(StoreRequest::Purge { token: Token(1), stream: STREAM, purge })
        else {
            panic!()
        };
        (result.unwrap(), update.unwrap())
    };
    let filter = Some(Filter::parse(b"b").unwrap());
    assert_eq!(purge(&mut store, Purge { filter, ..Purge::default() }).0, 0);
    let (count, update) = purge(&mut store, Purge::default());
    assert_eq!(count, 5_000);
    assert_eq!(update.removed, Removed::Many { first: 1, last: 5_000 });
    assert_eq!((update.state.first_seq, update.state.last_seq), (5_001, 5_000));
    let before = Some(9_000);
    let (_, update) = purge(&mut store, Purge { before, ..Purge::default() });
    assert_eq!((update.state.first_seq, update.state.last_seq), (9_000, 8_999));
    assert_eq!(say(&mut store, &text("a", &[])), "9000");
}

#[test]
fn one_streams_damage_does_not_refuse_the_others() {
    let disk = TestDisk::default();
    let (mut store, _) =
        world::open(&disk, StoreOptions { cache_bytes: 0, ..StoreOptions::default() });
    store.ask(world::create(StreamSettings { max_msgs: Some(1), ..settings() }));
    let other = sedge::id::StreamId(2);
    let record = Vec::new();
    store.ask(StoreRequest::CreateStream {
        token: Token(1),
        stream: other,
        settings: settings(),
        record,
    });
    let marker = vec![b'm'; 500];
    let first = Text { at: 1, subject: "a".into(), payload: marker.clone(), ..Text::default() };
    store.publish(&[first]);
    {
        let mut platter = disk.0.lock().unwrap();
        let places: Vec<usize> = (0..platter.database.written.len() - 500)
            .filter(|at| platter.database.written[*at..*at + 500] == marker[..])
            .collect();
        for at in places {
            platter.database.written[at + 9] = b'?';
        }
    }
    let mut batch = world::batch(&[text("a", &[])]);
    batch.push(other, Timestamp(2), b"b", b"", b"", b"x");
    let StoreReply::Published { outcomes, .. } = store.ask(StoreRequest::Publish(batch)) else {
        panic!()
    };
    let PublishOutcome::Refused(error) = &outcomes[0] else { panic!("{outcomes:?}") };
    assert!(error.to_string().contains("is damaged"), "{error}");
    assert!(matches!(outcomes[1], PublishOutcome::Stored { seq: 1, .. }));
}

#[test]
fn consumers_come_back_with_their_stream_and_go_with_it() {
    let disk = TestDisk::default();
    let (mut store, _) = world::open(&disk, StoreOptions::default());
    store.ask(world::create(settings()));
    let consumer = |name: &str| ConsumerRecord { name: name.into(), record: vec![1, 2] };
    for name in ["one", "two"] {
        let (token, consumer) = (Some(Token(2)), consumer(name));
        store.ask(StoreRequest::PutConsumer { token, stream: STREAM, consumer });
    }
    let name = "one".to_string();
    assert!(
        store.apply_batch(vec![StoreRequest::DeleteConsumer { stream: STREAM, name }]).is_empty()
    );
    drop(store);
    let (mut store, replies) = world::open(&disk, StoreOptions::default());
    let StoreReply::Recovered { streams, .. } = &replies[0] else { panic!() };
    assert_eq!(streams[0].consumers, [consumer("two")]);
    store.ask(StoreRequest::DeleteStream { token: Token(3), stream: STREAM });
    drop(store);
    let (_, replies) = world::open(&disk, StoreOptions::default());
    let StoreReply::Recovered { streams, next_stream, .. } = &replies[0] else { panic!() };
    assert!(streams.is_empty());
    assert_eq!(*next_stream, STREAM.0 + 1, "ids are not reused");
}

const SECOND: i64 = 1_000_000_000;

fn expire(store: &mut MemStore, now: i64) -> (Vec<(u64, String)>, StreamUpdate) {
    let request = StoreRequest::Expire { stream: STREAM, now: Timestamp(now) };
    let StoreReply::Expired { update, stored, .. } = store.ask(request) else { panic!() };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let stored = stored.msgs.iter().map(|msg| (msg.seq, text(stored.bytes(&msg.headers))));
    (stored.collect(), update)
}

#[test]
fn a_message_goes_when_its_own_time_is_up_and_leaves_a_marker() {
    let mut store = store(StreamSettings {
        allow_ttl: true,
        marker_ttl: Duration::from_secs(2),
        max_age: Some(Duration::from_secs(10)),
        allow_rollup: true,
        ..settings()
    });
    assert_eq!(say(&mut store, &text("a", &[("Nats-TTL", "never")])), "1");
    assert_eq!(say(&mut store, &text("b", &[("Nats-TTL", "3")])), "2");
    assert_eq!(say(&mut store, &text("b", &[("Nats-TTL", "4s")])), "3");
    assert_eq!(say(&mut store, &text("c", &[("Nats-TTL", "0")])), "10165 invalid per-message TTL");
    assert_eq!(say(&mut store, &text("c", &[])), "4");
    let (stored, update) = expire(&mut store, 2 * SECOND);
    assert!(stored.is_empty());
    assert_eq!(update.state.next_expiry, Some(Timestamp(3 * SECOND + 1)));
    let (stored, update) = expire(&mut store, 3 * SECOND + 1);
    assert!(stored.is_empty(), "one on the subject is left");
    assert_eq!(update.state.messages, 3);
    let (stored, update) = expire(&mut store, 5 * SECOND);
    let marker =
        "NATS/1.0\r\nNats-Marker-Reason: MaxAge\r\nNats-TTL: 2s\r\nNats-Rollup: sub\r\n\r\n";
    assert_eq!(stored, [(5, marker.to_owned())]);
    assert_eq!((update.state.messages, update.state.last_seq), (3, 5));
    let (stored, update) = expire(&mut store, 11 * SECOND);
    // Its marker is gone without another; that of the message that grew old came.
    assert_eq!(stored, [(6, marker.to_owned())]);
    assert_eq!((update.state.messages, update.state.first_seq), (2, 1));
    let (stored, update) = expire(&mut store, 90 * SECOND);
    assert!(stored.is_empty());
    assert_eq!((update.state.messages, update.state.next_expiry), (1, None));
    assert_eq!(say(&mut store, &Text { at: 91 * SECOND, ..text("d", &[]) }), "7");
    let (_, update) = expire(&mut store, 92 * SECOND);
    assert_eq!(update.state.next_expiry, Some(Timestamp(101 * SECOND)));
}

#[test]
fn what_nobody_wants_takes_a_sequence_and_is_not_stored() {
    let mut store =
        store(StreamSettings { duplicate_window: Duration::from_secs(1), ..settings() });
    for (seq, wanted) in [(1, false), (2, true), (3, false), (4, true)] {
        let mut batch = world::batch(&[text("a", &[])]);
        batch.items[0].unwanted = !wanted;
        let StoreReply::Published { outcomes, updates, .. } =
            store.ask(StoreRequest::Publish(batch))
        else {
            panic!()
        };
        match &outcomes[0] {
            PublishOutcome::Skipped { seq: took } => assert_eq!((*took, wanted), (seq, false)),
            PublishOutcome::Stored { seq: took, .. } => assert_eq!((*took, wanted), (seq, true)),
            other => panic!("{other:?}"),
        }
        assert_eq!(updates[0].state.last_seq, seq);
    }
    let seqs = [2, 1, 9].into();
    let request = StoreRequest::Settle { token: Token(5), stream: STREAM, seqs };
    let StoreReply::Done { update: Some(update), .. } = store.ask(request) else { panic!() };
    assert_eq!((update.state.messages, update.state.first_seq), (1, 4));
}

#[test]
fn counters_add_up() {
    let mut store = store(StreamSettings { counter: true, ..settings() });
    for (increment, total) in [("5", "5"), ("-7", "-2"), ("+100", "98")] {
        let mut one = text("a", &[("Nats-Incr", increment)]);
        one.payload.clear();
        let outcome = store.publish(std::slice::from_ref(&one)).0.remove(0);
        let PublishOutcome::Stored { changed: Some(changed), .. } = outcome else { panic!() };
        assert_eq!(changed.total.as_deref(), Some(total));
        assert_eq!(changed.payload, format!("{{\"val\":\"{total}\"}}").into_bytes());
    }
    assert_eq!(say(&mut store, &text("a", &[])), "10169 message counter increment is missing");
}

fn from(store: &mut MemStore, seq_at: i64, origin: Origin) -> String {
    let mut batch = world::batch(&[Text { at: seq_at, ..text("a", &[]) }]);
    batch.items[0].origin = Some(Box::new(origin));
    let StoreReply::Published { outcomes, .. } = store.ask(StoreRequest::Publish(batch)) else {
        panic!()
    };
    match &outcomes[0] {
        PublishOutcome::Stored { seq, .. } => format!("{seq}"),
        PublishOutcome::Duplicate { .. } => "known".into(),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_mirror_keeps_sequences_and_gaps() {
    let mut store = store(settings());
    for (seq, said) in [(3, "3"), (4, "4"), (4, "known"), (2, "known"), (7, "7"), (900, "900")] {
        assert_eq!(from(&mut store, 1, Origin::Mirror { seq }), said);
    }
    let request = StoreRequest::Deleted { token: Token(1), stream: STREAM, limit: 3 };
    let StoreReply::Deleted { seqs, .. } = store.ask(request) else { panic!() };
    assert_eq!(seqs.unwrap(), [5, 6, 8]);
    let (_, update) = expire(&mut store, 2);
    assert_eq!((update.state.first_seq, update.state.last_seq), (3, 900));
    assert_eq!(update.state.messages, 4);
}

#[test]
fn what_a_source_sent_is_stored_once_and_in_order() {
    let settings = StreamSettings { max_msgs: Some(2), discard_new: true, ..settings() };
    let mut store = store(settings.clone());
    let take = |store: &mut MemStore, seq, after| {
        from(store, 1, Origin::Source { seq, after, name: "O > >".into() })
    };
    assert_eq!(take(&mut store, 5, 0), "1");
    assert_eq!(take(&mut store, 5, 0), "known");
    assert_eq!(take(&mut store, 9, 5), "2");
    assert!(take(&mut store, 10, 9).contains("maximum messages exceeded"));
    let purge = StoreRequest::Purge { token: Token(1), stream: STREAM, purge: Purge::default() };
    store.ask(purge);
    // The one before it was not stored, so this one has to wait.
    assert!(take(&mut store, 11, 10).contains("a message before it was not stored"));
    assert_eq!(take(&mut store, 10, 9), "3");
    assert_eq!(take(&mut store, 11, 10), "4");
}
