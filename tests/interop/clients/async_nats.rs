//! The Rust client.

mod stores;

use std::fmt::Debug;
use std::time::Duration;

use async_nats::jetstream::{self, AckKind, consumer, kv, object_store, stream};
use async_nats::service::ServiceExt as _;
use async_nats::{Client, HeaderMap};
use futures_util::StreamExt as _;
use tokio::io::AsyncReadExt as _;

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
        step("service", service(&client)).await?;
        step("stream and pull consumer", stream_consumer(&client)).await?;
        step("ordered consumer", ordered(&client)).await?;
        step("messages of a stream", stream_messages(&client)).await?;
        step("push consumer", push(&client)).await?;
        step("bucket", bucket(&client)).await?;
        step("objects", Box::pin(objects(&client))).await?;
        step("watches of a bucket", Box::pin(stores::bucket_watches(&client))).await?;
        step("times to live of keys", Box::pin(stores::bucket_ttl(&client))).await?;
        step("asked of consumers", Box::pin(stores::consumer_requests(&client))).await?;
        step("more of objects", Box::pin(stores::more_objects(&client))).await?;
        step("drain", drain(&client)).await
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

async fn service(client: &Client) -> Step {
    let service = client.service_builder().start("adder", "1.2.3").await.map_err(text)?;
    let mut endpoint = service.endpoint("add").await.map_err(text)?;
    let answering = async {
        for _ in 0..2 {
            let request = endpoint.next().await.ok_or("the endpoint ended")?;
            let answer = match request.message.payload.as_ref() {
                b"1 2" => Ok("3".into()),
                _ => Err(async_nats::service::error::Error { status: "no".into(), code: 400 }),
            };
            request.respond(answer).await.map_err(text)?;
        }
        Ok::<(), String>(())
    };
    let asking = async {
        let answer = client.request("add", "1 2".into()).await.map_err(text)?;
        same(answer.payload.as_ref(), b"3".as_slice())?;
        let answer = client.request("add", "x".into()).await.map_err(text)?;
        let code = answer.headers.and_then(|all| all.get("Nats-Service-Error-Code").cloned());
        same(code.map(|code| code.to_string()), Some("400".to_owned()))
    };
    let (answered, asked) = tokio::join!(answering, asking);
    answered?;
    asked?;
    for (subject, wanted) in [
        ("$SRV.PING.adder", "\"version\":\"1.2.3\""),
        ("$SRV.INFO", "\"subject\":\"add\""),
        ("$SRV.STATS.adder", "\"num_requests\":2"),
    ] {
        let answer = client.request(subject, "".into()).await.map_err(text)?;
        let answer = String::from_utf8_lossy(&answer.payload).into_owned();
        same((subject, answer.contains(wanted), &answer), (subject, true, &answer))?;
    }
    service.stop().await.map_err(text)
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

async fn stream_messages(client: &Client) -> Step {
    let context = jetstream::new(client.clone());
    let config = stream::Config {
        name: "NOTES".to_owned(),
        subjects: vec!["notes.>".to_owned()],
        allow_direct: true,
        ..Default::default()
    };
    let stream = context.create_stream(config).await.map_err(text)?;
    for duplicate in [false, true] {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", "once");
        let ack = context.publish_with_headers("notes.a", headers, "1".into()).await;
        let ack = ack.map_err(text)?.await.map_err(text)?;
        same((ack.sequence, ack.duplicate), (1, duplicate))?;
    }
    for number in 2..=5_u64 {
        let ack = context.publish("notes.b", number.to_string().into()).await.map_err(text)?;
        same(ack.await.map_err(text)?.sequence, number)?;
    }
    same(stream.get_raw_message(2).await.map_err(text)?.payload.as_ref(), b"2".as_slice())?;
    same(stream.direct_get(3).await.map_err(text)?.payload.as_ref(), b"3".as_slice())?;
    same(stream.delete_message(3).await.map_err(text)?, true)?;
    if stream.direct_get(3).await.is_ok() {
        return Err("a deleted message is still there".to_owned());
    }
    let config = consumer::pull::Config {
        durable_name: Some("careful".to_owned()),
        ack_wait: Duration::from_secs(5),
        ..Default::default()
    };
    let consumer: consumer::PullConsumer = stream.create_consumer(config).await.map_err(text)?;
    let mut messages = consumer.messages().await.map_err(text)?;
    // Again at once, in progress and then done, given up, done.
    let kinds = [AckKind::Nak(None), AckKind::Progress, AckKind::Term, AckKind::Ack, AckKind::Ack];
    let mut seen = Vec::new();
    for kind in kinds {
        let message = messages.next().await.ok_or("the messages ended")?.map_err(text)?;
        let info = message.info().map_err(text)?;
        seen.push(info.stream_sequence);
        let in_progress = matches!(kind, AckKind::Progress);
        message.ack_with(kind).await.map_err(text)?;
        if in_progress {
            message.double_ack().await.map_err(text)?;
        }
    }
    client.flush().await.map_err(text)?;
    // When the nak is handled, and so where message 1 comes again, is the server's business.
    seen.sort_unstable();
    same(seen, vec![1, 1, 2, 4, 5])?;
    same(stream.purge().filter("notes.b").await.map_err(text)?.purged, 3)?;
    let account = context.query_account().await.map_err(text)?;
    same(account.streams, 2)?;
    same(context.delete_stream("NOTES").await.map_err(text)?.success, true)
}

async fn push(client: &Client) -> Step {
    let stream = jetstream::new(client.clone()).get_stream("READINGS").await.map_err(text)?;
    let config = consumer::push::Config {
        durable_name: Some("pushed".to_owned()),
        deliver_subject: "to.me".to_owned(),
        flow_control: true,
        idle_heartbeat: Duration::from_secs(1),
        ..Default::default()
    };
    let consumer = stream.create_consumer(config).await.map_err(text)?;
    let mut messages = consumer.messages().await.map_err(text)?;
    for number in 1..=50_u64 {
        let message = messages.next().await.ok_or("the messages ended")?.map_err(text)?;
        same(message.info().map_err(text)?.stream_sequence, number)?;
        message.double_ack().await.map_err(text)?;
    }
    Ok(())
}

async fn objects(client: &Client) -> Step {
    let context = jetstream::new(client.clone());
    let config = object_store::Config { bucket: "files".to_owned(), ..Default::default() };
    let store = context.create_object_store(config).await.map_err(text)?;
    let data = vec![7_u8; 300_000];
    let info = store.put("a", &mut data.as_slice()).await.map_err(text)?;
    same((info.size, info.chunks > 1), (data.len(), true))?;
    let mut object = store.get("a").await.map_err(text)?;
    let mut read = Vec::new();
    object.read_to_end(&mut read).await.map_err(text)?;
    same(read == data, true)?;
    store.put("b", &mut b"x".as_slice()).await.map_err(text)?;
    let names: Vec<_> = store.list().await.map_err(text)?.collect().await;
    let names: Result<Vec<String>, _> =
        names.into_iter().map(|info| info.map(|info| info.name)).collect();
    let mut names = names.map_err(text)?;
    names.sort_unstable();
    same(names, vec!["a".to_owned(), "b".to_owned()])?;
    store.delete("a").await.map_err(text)?;
    if store.get("a").await.is_ok() {
        return Err("a deleted object is still there".to_owned());
    }
    context.delete_object_store("files").await.map_err(text)
}

/// What has arrived is handled, and then it is over.
async fn drain(client: &Client) -> Step {
    let mut one = client.subscribe("drained").await.map_err(text)?;
    let mut other = client.subscribe("drained").await.map_err(text)?;
    for number in 0..50 {
        client.publish("drained", number.to_string().into()).await.map_err(text)?;
    }
    client.flush().await.map_err(text)?;
    one.drain().await.map_err(text)?;
    client.publish("drained", "50".into()).await.map_err(text)?;
    client.flush().await.map_err(text)?;
    let mut got = 0;
    while one.next().await.is_some() {
        got += 1;
    }
    same(got, 50)?;
    client.drain().await.map_err(text)?;
    let mut got = 0;
    while other.next().await.is_some() {
        got += 1;
    }
    same(got, 51)?;
    same(client.publish("drained", "51".into()).await.is_err(), true)
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
    same(keys.map_err(text)?, vec!["lamp.b".to_owned()])?;
    store.purge("lamp.b").await.map_err(text)?;
    same(store.get("lamp.b").await.map_err(text)?, None)?;
    same(store.status().await.map_err(text)?.bucket(), "settings")?;
    same(context.delete_key_value("settings").await.map_err(text)?.success, true)
}
