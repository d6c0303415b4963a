//! Measures the store: engine rate, bytes on disk and written, opening after a crash.
//!
//! Run with `cargo run --release --example store_bench`.
#![allow(clippy::unwrap_used, reason = "a measurement that fails should stop")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]
#![allow(clippy::cast_precision_loss, reason = "figures for a reader")]

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use sedge::id::StreamId;
use sedge::jetstream::engine::{self, ApplyOptions, rows::MemRows};
use sedge::jetstream::storage::{PublishBatch, StoreReply, StoreRequest, StreamSettings, Token};
use sedge::store::{Store, StoreOptions};
use sedge::time::Timestamp;

const PAYLOAD: [u8; 128] = [b'p'; 128];

fn batch(from: u64, count: u64, subjects: u64) -> StoreRequest {
    let mut batch = PublishBatch::default();
    for number in from..from + count {
        let subject = format!("sensors.{}", number % subjects);
        let at = Timestamp(1_795_000_000_000_000_000 + i64::try_from(number).unwrap() * 12_345);
        batch.push(StreamId(1), at, subject.as_bytes(), b"_INBOX.x.y", b"", &PAYLOAD);
    }
    StoreRequest::Publish(batch)
}

fn create() -> StoreRequest {
    let settings = StreamSettings { name: "S".into(), ..StreamSettings::default() };
    StoreRequest::CreateStream { token: Token(1), stream: StreamId(1), settings, record: vec![] }
}

fn memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn engine_alone(subjects: u64) {
    let mut rows = MemRows::default();
    engine::apply(&mut rows, &[create()], &ApplyOptions::default()).unwrap();
    let batches: Vec<_> = (0..500).map(|number| [batch(number * 1000, 1000, subjects)]).collect();
    let start = Instant::now();
    for requests in &batches {
        engine::apply(&mut rows, requests, &ApplyOptions::default()).unwrap();
    }
    let rate = 500_000.0 / start.elapsed().as_secs_f64();
    println!("engine alone, 1000 a commit, {subjects} subjects: {:.2} M msg/s", rate / 1e6);
}

fn open(dir: &Path) -> (Store, Receiver<()>) {
    let (ring, bell) = channel();
    let store = Store::open(dir, StoreOptions::default(), move || {
        let _ = ring.send(());
    });
    (store.unwrap(), bell)
}

fn next(store: &Store, bell: &Receiver<()>) -> StoreReply {
    loop {
        if let Some(reply) = store.poll_reply() {
            return reply;
        }
        bell.recv().unwrap();
    }
}

fn on_disk(per_commit: u64, commits: u64, subjects: u64) {
    let dir = tempfile::tempdir_in(".").unwrap();
    let (mut store, bell) = open(dir.path());
    next(&store, &bell);
    store.submit(create());
    next(&store, &bell);
    let before = store.stats();
    let start = Instant::now();
    for number in 0..commits {
        store.submit(batch(number * per_commit, per_commit, subjects));
        next(&store, &bell);
    }
    let seconds = start.elapsed().as_secs_f64();
    let stats = store.stats();
    let total = per_commit * commits;
    let metadata = std::fs::metadata(dir.path().join("sedge.redb")).unwrap();
    println!(
        "{per_commit} a commit, {subjects} subjects: {:.0} msg/s, file {:.1} B/msg, \
         {:.0} B written and {:.2} syncs a commit, rss {} KiB",
        total as f64 / seconds,
        (metadata.blocks() * 512) as f64 / total as f64,
        (stats.bytes_written - before.bytes_written) as f64 / commits as f64,
        (stats.syncs - before.syncs) as f64 / commits as f64,
        memory_kib()
    );
}

/// Fills a store and dies without closing it.
fn fill(dir: &Path, total: u64) -> ! {
    let (mut store, bell) = open(dir);
    next(&store, &bell);
    store.submit(create());
    next(&store, &bell);
    for number in 0..total / 1000 {
        store.submit(batch(number * 1000, 1000, 200_000));
        next(&store, &bell);
    }
    println!("  rss after filling {} KiB", memory_kib());
    std::process::abort();
}

fn main() {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some("fill") {
        fill(Path::new(&args.next().unwrap()), args.next().unwrap().parse().unwrap());
    }
    engine_alone(10);
    engine_alone(200_000);
    on_disk(1, 2_000, 10);
    on_disk(100, 1_000, 10);
    on_disk(1_000, 500, 10);
    on_disk(1_000, 500, 200_000);
    let dir = tempfile::tempdir_in(".").unwrap();
    let path = dir.path().to_str().unwrap();
    let _ = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["fill", path, "2000000"])
        .status();
    let metadata = std::fs::metadata(dir.path().join("sedge.redb")).unwrap();
    let start = Instant::now();
    let (store, bell) = open(dir.path());
    let StoreReply::Recovered { streams, .. } = next(&store, &bell) else { panic!() };
    println!(
        "open after a crash with {} messages, {} subjects, {} MB on disk: {:.1} ms, rss {} KiB",
        streams[0].state.messages,
        streams[0].state.num_subjects,
        metadata.blocks() * 512 / 1_000_000,
        start.elapsed().as_secs_f64() * 1e3,
        memory_kib()
    );
}
