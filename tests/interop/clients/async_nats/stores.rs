//! Beyond the everyday: what is asked about consumers; watches, copies and times to live of
//! buckets; links and seals of object stores.

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::kv::Operation::{self, Delete, Purge, Put};
use async_nats::jetstream::{self, consumer, kv, object_store, stream};
use futures_util::{Stream, StreamExt as _};
use tokio::io::AsyncReadExt as _;

use super::{Step, same, text};

/// Between two looks at what another stream copies, or at what is to end.
const LOOK: Duration = Duration::from_millis(20);

type Seen = (String, Operation, String);

fn seen(key: &str, operation: Operation, value: &str) -> Seen {
    (key.to_owned(), operation, value.to_owned())
}

/// Messages of a bucket; its status does not ask the server again.
async fn stored(context: &jetstream::Context, bucket: &str) -> Result<u64, String> {
    let stream = context.get_stream(format!("KV_{bucket}")).await.map_err(text)?;
    Ok(stream.cached_info().state.messages)
}

/// The next entries of a watch.
async fn entries<E: std::fmt::Display>(
    watch: impl Stream<Item = Result<kv::Entry, E>>,
    count: usize,
) -> Result<Vec<Seen>, String> {
    let mut all = Vec::new();
    let mut watch = std::pin::pin!(watch);
    while all.len() < count {
        let entry = watch.next().await.ok_or("the watch ended")?.map_err(text)?;
        let value = String::from_utf8_lossy(&entry.value).into_owned();
        all.push((entry.key, entry.operation, value));
    }
    Ok(all)
}

pub(super) async fn bucket_watches(client: &Client) -> Step {
    let context = jetstream::new(client.clone());
    let config = kv::Config { bucket: "watched".to_owned(), history: 3, ..Default::default() };
    let store = context.create_key_value(config).await.map_err(text)?;
    for (key, value) in [("a.x", "1"), ("a.x", "2"), ("a.y", "3"), ("b.x", "4")] {
        store.put(key, value.into()).await.map_err(text)?;
    }
    store.delete("a.y").await.map_err(text)?;
    let history = store.watch_with_history("a.*").await.map_err(text)?;
    same(entries(history, 2).await?, vec![seen("a.x", Put, "2"), seen("a.y", Delete, "")])?;
    let many = store.watch_many_with_history(["a.x", "b.*"]).await.map_err(text)?;
    same(entries(many, 2).await?, vec![seen("a.x", Put, "2"), seen("b.x", Put, "4")])?;
    let later = store.watch_from_revision("a.*", 2).await.map_err(text)?;
    let wanted = vec![seen("a.x", Put, "2"), seen("a.y", Put, "3"), seen("a.y", Delete, "")];
    same(entries(later, 3).await?, wanted)?;
    let later = store.watch_all_from_revision(4).await.map_err(text)?;
    same(entries(later, 2).await?, vec![seen("b.x", Put, "4"), seen("a.y", Delete, "")])?;
    let all = store.watch_all().await.map_err(text)?;
    store.put("c.x", "5".into()).await.map_err(text)?;
    same(entries(all, 1).await?, vec![seen("c.x", Put, "5")])?;
    let first = store.entry_for_revision("a.x", 1).await.map_err(text)?;
    same(first.map(|entry| entry.value), Some("1".into()))?;
    same(store.delete_expect_revision("a.x", Some(1)).await.is_err(), true)?;
    store.purge_expect_revision("b.x", Some(4)).await.map_err(text)?;
    same(store.status().await.map_err(text)?.history(), 3)?;
    same(stored(&context, "watched").await?, 6)?;
    copies(&context).await?;
    context.delete_key_value("watched").await.map_err(text)?;
    Ok(())
}

/// A mirror of a bucket has what the bucket has.
async fn copies(context: &jetstream::Context) -> Step {
    let config = kv::Config {
        bucket: "seen".to_owned(),
        history: 3,
        mirror: Some(stream::Source { name: "watched".to_owned(), ..Default::default() }),
        ..Default::default()
    };
    let mirror = context.create_key_value(config).await.map_err(text)?;
    while stored(context, "seen").await? < 6 {
        tokio::time::sleep(LOOK).await;
    }
    same(mirror.status().await.map_err(text)?.history(), 3)?;
    context.delete_key_value("seen").await.map_err(text)?;
    Ok(())
}

pub(super) async fn bucket_ttl(client: &Client) -> Step {
    let context = jetstream::new(client.clone());
    let second = Duration::from_secs(1);
    let config = kv::Config {
        bucket: "brief".to_owned(),
        history: 5,
        limit_markers: Some(second),
        ..Default::default()
    };
    let store = context.create_key_value(config).await.map_err(text)?;
    let watch = store.watch_all().await.map_err(text)?;
    store.create_with_ttl("a", "1".into(), second).await.map_err(text)?;
    // Its end is told, and the marker of it ends too.
    same(entries(watch, 2).await?, vec![seen("a", Put, "1"), seen("a", Purge, "")])?;
    store.put("b", "2".into()).await.map_err(text)?;
    store.purge_with_ttl("b", second).await.map_err(text)?;
    while stored(&context, "brief").await? > 0 {
        tokio::time::sleep(LOOK).await;
    }
    context.delete_key_value("brief").await.map_err(text)?;
    Ok(())
}

pub(super) async fn more_objects(client: &Client) -> Step {
    let context = jetstream::new(client.clone());
    let config = object_store::Config { bucket: "more".to_owned(), ..Default::default() };
    let mut store = context.create_object_store(config).await.map_err(text)?;
    let mut watch = store.watch().await.map_err(text)?;
    store.put("note", &mut b"hello".as_slice()).await.map_err(text)?;
    let told = watch.next().await.ok_or("the watch ended")?.map_err(text)?;
    same((told.name.as_str(), told.size), ("note", 5))?;
    let metadata = object_store::UpdateMetadata {
        name: "letter".to_owned(),
        description: Some("renamed".to_owned()),
        ..Default::default()
    };
    store.update_metadata("note", metadata).await.map_err(text)?;
    let info = store.info("letter").await.map_err(text)?;
    same(info.description.as_deref(), Some("renamed"))?;
    store.add_link("latest", &info).await.map_err(text)?;
    let mut linked = String::new();
    let mut object = store.get("latest").await.map_err(text)?;
    object.read_to_string(&mut linked).await.map_err(text)?;
    same(linked.as_str(), "hello")?;
    store.add_bucket_link("files", "elsewhere").await.map_err(text)?;
    let link = store.info("files").await.map_err(text)?.options.and_then(|options| options.link);
    same(link.map(|link| link.bucket), Some("elsewhere".to_owned()))?;
    // What does not fit into a chunk, nor into what is under way at once.
    let large: Vec<u8> = (0..10_000_000_u32).map(|at| at.to_le_bytes()[1]).collect();
    same(store.put("large", &mut large.as_slice()).await.map_err(text)?.size, large.len())?;
    let mut read = Vec::new();
    store.get("large").await.map_err(text)?.read_to_end(&mut read).await.map_err(text)?;
    same(read == large, true)?;
    store.seal().await.map_err(text)?;
    same(store.put("late", &mut b"x".as_slice()).await.is_err(), true)?;
    same(store.info("letter").await.map_err(text)?.size, 5)?;
    context.delete_object_store("more").await.map_err(text)
}

pub(super) async fn consumer_requests(client: &Client) -> Step {
    let context = jetstream::new(client.clone());
    let mut config = stream::Config {
        name: "TASKS".to_owned(),
        subjects: vec!["tasks.>".to_owned()],
        ..Default::default()
    };
    let stream = context.create_stream(config.clone()).await.map_err(text)?;
    config.max_messages = 100;
    let updated = context.update_stream(config).await.map_err(text)?;
    same(updated.config.max_messages, 100)?;
    let config = consumer::pull::Config {
        durable_name: Some("c".to_owned()),
        priority_policy: consumer::PriorityPolicy::PinnedClient,
        priority_groups: vec!["A".to_owned()],
        ..Default::default()
    };
    stream.create_consumer(config).await.map_err(text)?;
    let later = stream.cached_info().created + Duration::from_mins(1);
    same(stream.pause_consumer("c", later).await.map_err(text)?.paused, true)?;
    same(stream.resume_consumer("c").await.map_err(text)?.paused, false)?;
    stream.unpin_consumer("c", "A").await.map_err(text)?;
    let names: Vec<_> = stream.consumer_names().collect().await;
    let names: Result<Vec<String>, _> = names.into_iter().collect();
    same(names.map_err(text)?, vec!["c".to_owned()])?;
    same(stream.delete_consumer("c").await.map_err(text)?.success, true)?;
    context.delete_stream("TASKS").await.map_err(text)?;
    Ok(())
}
