//! The Rust client.

use std::fmt::Debug;
use std::time::Duration;

use async_nats::jetstream::{self, consumer, kv, stream};
use async_nats::{Client, HeaderMap};
use futures_util::StreamExt as _;

use crate::Trouble;

/// One step of the program.
const STEP_DEADLINE: Duration = Duration::from_secs(15);

type Step = Result<(), String>;

pub(crate) fn run(url: &str) -> Result<(), Trouble> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Trouble::Failed(e.to_string()))?;
    runtime.block_on(async {
        let client = async_nats::connect(url).await.map_err(|e| Trouble::Failed(e.to_string()))?;
        step("publish and subscribe", publish_subscribe(&client)).await?;
        step("request", request(&client)).await?;
        step("no responders", no_responders(&client)).await?;
        step("queue group", queue_group(&client)).await?;
        step("stream and pull consumer", stream_consumer(&client)).await?;
        step("ordered consumer", ordered(&client)).await?;
        step("bucket", bucket(&client)).await
    })
}

async fn step(name: &str, work: impl Future<Output = Step>) -> Result<(), Trouble> {
    let done = tokio::time::timeout(STEP_DEADLINE, work).await;
    done.unwrap_or_else(|_| Err(format!("not done after {STEP_DEADLINE:?}")))
        .map_err(|why| Trouble::Failed(format!("{name}: {why}")))
}

fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

#[allow(clippy::needless_pass_by_value, reason = "callers hand over fresh values")]
fn same<T: PartialEq + Debug>(got: T, wanted: T) -> Step {
    if got == wanted { Ok(()) } else { Err(format!("got {got:?}, wanted {wanted:?}")) }
}

async fn publish_subscribe(client: &Client) -> Step {
    let mut all = client.subscribe("core.>").await.map_err(text)?;
    let mut one = client.subscribe("core.*.b").await.map_err(text)?;
    let mut headers = HeaderMap::new();
    headers.insert("X-Colour", "green");
    headers.append("X-Colour", "blue");
    client.publish("core.a.b", "first".into()).await.map_err(text)?;
    client
        .publish_with_headers("core.a.c", headers.clone(), "second".into())
        .await
        .map_err(text)?;
    let first = all.next().await.ok_or("the subscription ended")?;
    same(first.payload.as_ref(), b"first".as_slice())?;
    let second = all.next().await.ok_or("the subscription ended")?;
    same(second.headers, Some(headers))?;
    let first = one.next().await.ok_or("the subscription ended")?;
    same(first.subject.as_str(), "core.a.b")?;
    one.unsubscribe().await.map_err(text)?;
    client.flush().await.map_err(text)
}

async fn request(client: &Client) -> Step {
    let mut service = client.subscribe("service.echo").await.map_err(text)?;
    let answering = async {
        let request = service.next().await.ok_or("the subscription ended")?;
        let reply = request.reply.ok_or("a request without a reply subject")?;
        client.publish(reply, request.payload).await.map_err(text)
    };
    let asking = async { client.request("service.echo", "hello".into()).await.map_err(text) };
    let (answered, answer) = tokio::join!(answering, asking);
    answered?;
    same(answer?.payload.as_ref(), b"hello".as_slice())
}

async fn no_responders(client: &Client) -> Step {
    match client.request("service.nobody", "".into()).await {
        Err(e) => same(e.kind(), async_nats::RequestErrorKind::NoResponders),
        Ok(answer) => Err(format!("an answer from nobody: {answer:?}")),
    }
}

async fn queue_group(client: &Client) -> Step {
    let mut left = client.queue_subscribe("jobs", "workers".into()).await.map_err(text)?;
    let mut right = client.queue_subscribe("jobs", "workers".into()).await.map_err(text)?;
    for number in 0..100 {
        client.publish("jobs", number.to_string().into()).await.map_err(text)?;
    }
    let mut jobs = Vec::new();
    while jobs.len() < 100 {
        let job = tokio::select! { job = left.next() => job, job = right.next() => job };
        let job = job.ok_or("the subscription ended")?;
        jobs.push(String::from_utf8_lossy(&job.payload).parse::<u32>().map_err(text)?);
    }
    jobs.sort_unstable();
    same(jobs, (0..100).collect())
}

async fn stream_consumer(client: &Client) -> Step {
    let context = jetstream::new(client.clone());
    let config = stream::Config {
        name: "READINGS".to_owned(),
        subjects: vec!["sensors.>".to_owned()],
        ..Default::default()
    };
    let mut stream = context.create_stream(config).await.map_err(text)?;
    for number in 1..=50_u64 {
        let ack = context.publish("sensors.t", number.to_string().into()).await.map_err(text)?;
        same(ack.await.map_err(text)?.sequence, number)?;
    }
    same(stream.info().await.map_err(text)?.state.messages, 50)?;
    let config =
        consumer::pull::Config { durable_name: Some("worker".to_owned()), ..Default::default() };
    let mut worker = stream.create_consumer(config).await.map_err(text)?;
    let mut batch = worker.fetch().max_messages(20).messages().await.map_err(text)?;
    let mut fetched = 0_u64;
    while let Some(message) = batch.next().await {
        let message = message.map_err(text)?;
        fetched += 1;
        same(message.info().map_err(text)?.stream_sequence, fetched)?;
        message.double_ack().await.map_err(text)?;
    }
    same(fetched, 20)?;
    let mut messages = worker.messages().await.map_err(text)?;
    while fetched < 50 {
        let message = messages.next().await.ok_or("the messages ended")?.map_err(text)?;
        fetched += 1;
        same(message.payload.as_ref(), fetched.to_string().as_bytes())?;
        message.double_ack().await.map_err(text)?;
    }
    let info = worker.info().await.map_err(text)?;
    same((info.ack_floor.stream_sequence, info.num_pending, info.num_ack_pending), (50, 0, 0))
}

async fn ordered(client: &Client) -> Step {
    let stream = jetstream::new(client.clone()).get_stream("READINGS").await.map_err(text)?;
    let config = consumer::pull::OrderedConfig::default();
    let consumer = stream.create_consumer(config).await.map_err(text)?;
    let mut messages = consumer.messages().await.map_err(text)?;
    for number in 1..=50_u64 {
        let message = messages.next().await.ok_or("the messages ended")?.map_err(text)?;
        same(message.info().map_err(text)?.stream_sequence, number)?;
    }
    Ok(())
}

async fn bucket(client: &Client) -> Step {
    let context = jetstream::new(client.clone());
    let config = kv::Config { bucket: "settings".to_owned(), history: 5, ..Default::default() };
    let store = context.create_key_value(config).await.map_err(text)?;
    let mut watch = store.watch("lamp.*").await.map_err(text)?;
    same(store.create("lamp.a", "on".into()).await.map_err(text)?, 1)?;
    if store.create("lamp.a", "again".into()).await.is_ok() {
        return Err("created a key twice".to_owned());
    }
    same(store.put("lamp.a", "off".into()).await.map_err(text)?, 2)?;
    same(store.update("lamp.a", "dim".into(), 2).await.map_err(text)?, 3)?;
    if store.update("lamp.a", "stale".into(), 2).await.is_ok() {
        return Err("updated over a newer revision".to_owned());
    }
    same(store.get("lamp.a").await.map_err(text)?, Some("dim".into()))?;
    for wanted in ["on", "off", "dim"] {
        let entry = watch.next().await.ok_or("the watch ended")?.map_err(text)?;
        same(entry.value.as_ref(), wanted.as_bytes())?;
    }
    same(store.history("lamp.a").await.map_err(text)?.count().await, 3)?;
    store.delete("lamp.a").await.map_err(text)?;
    same(store.get("lamp.a").await.map_err(text)?, None)?;
    store.put("lamp.b", "1".into()).await.map_err(text)?;
    let keys: Vec<_> = store.keys().await.map_err(text)?.collect().await;
    let keys: Result<Vec<String>, _> = keys.into_iter().collect();
    same(keys.map_err(text)?, vec!["lamp.b".to_owned()])
}
