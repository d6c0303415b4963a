"""The Python client at its everyday work: client.py URL.

Prints each step that is done; ends with an exception when a server answers otherwise.
"""

import asyncio
import json
import sys
from datetime import datetime, timedelta, timezone

import nats
import nats.micro
from nats.errors import NoRespondersError, TimeoutError
from nats.js.api import ConsumerConfig, ObjectMeta, StreamConfig
from nats.js.errors import (
    APIError,
    KeyNotFoundError,
    KeyWrongLastSequenceError,
    NotFoundError,
    ObjectNotFoundError,
)


def same(got, wanted):
    if got != wanted:
        raise AssertionError(f"got {got!r}, wanted {wanted!r}")


async def publish_subscribe(nc):
    all_of = await nc.subscribe("core.>")
    one = await nc.subscribe("core.*.b")
    await nc.publish("core.a.b", b"first")
    await nc.publish("core.a.c", b"second", headers={"X-Colour": "green"})
    same((await all_of.next_msg(5)).data, b"first")
    second = await all_of.next_msg(5)
    same((second.data, second.headers), (b"second", {"X-Colour": "green"}))
    same((await one.next_msg(5)).subject, "core.a.b")
    await one.unsubscribe()
    await all_of.unsubscribe()


async def request(nc):
    async def echo(msg):
        await msg.respond(msg.data.upper())

    await nc.subscribe("service.echo", cb=echo)
    same((await nc.request("service.echo", b"hello", timeout=5)).data, b"HELLO")
    try:
        await nc.request("service.nobody", b"", timeout=5)
    except NoRespondersError:
        return
    raise AssertionError("an answer from nobody")


async def services(nc):
    service = await nats.micro.add_service(nc, name="adder", version="1.2.3")

    async def add(request):
        left, right = request.data.split()
        await request.respond(str(int(left) + int(right)).encode())

    async def fail(request):
        await request.respond_error("400", "no")

    await service.add_endpoint(name="add", handler=add)
    await service.add_group(name="math").add_endpoint(name="fail", handler=fail)
    same((await nc.request("add", b"1 2", timeout=5)).data, b"3")
    failed = await nc.request("math.fail", b"", timeout=5)
    same(failed.headers["Nats-Service-Error-Code"], "400")
    ping = json.loads((await nc.request("$SRV.PING.adder", b"", timeout=5)).data)
    same((ping["name"], ping["version"]), ("adder", "1.2.3"))
    info = json.loads((await nc.request(f"$SRV.INFO.adder.{service.id}", b"", timeout=5)).data)
    same(sorted(e["name"] for e in info["endpoints"]), ["add", "fail"])
    stats = json.loads((await nc.request("$SRV.STATS", b"", timeout=5)).data)
    same({e["name"]: e["num_requests"] for e in stats["endpoints"]}, {"add": 1, "fail": 1})
    await service.stop()
    try:
        await nc.request("add", b"1 2", timeout=5)
    except NoRespondersError:
        return
    raise AssertionError("a stopped service answers")


async def drain(url):
    """What has arrived is handled, what comes later is not."""
    nc = await nats.connect(url, allow_reconnect=False)
    got = []

    async def slowly(msg):
        await asyncio.sleep(0.005)
        got.append(int(msg.data))

    sub = await nc.subscribe("drained", cb=slowly)
    for number in range(50):
        await nc.publish("drained", str(number).encode())
    await nc.flush()
    await sub.drain()
    await nc.publish("drained", b"99")
    await nc.flush()
    same(got, list(range(50)))
    await nc.subscribe("drained", cb=slowly)
    for number in range(50, 60):
        await nc.publish("drained", str(number).encode())
    await nc.flush()
    await nc.drain()
    same((nc.is_closed, got), (True, list(range(60))))


async def queue_group(nc):
    got = []
    done = asyncio.Event()

    async def work(msg):
        got.append(int(msg.data))
        if len(got) == 100:
            done.set()

    for _ in range(3):
        await nc.subscribe("jobs", queue="workers", cb=work)
    for number in range(100):
        await nc.publish("jobs", str(number).encode())
    await asyncio.wait_for(done.wait(), 5)
    await nc.flush()
    same(sorted(got), list(range(100)))


async def stream_and_consumers(nc):
    js = nc.jetstream()
    await js.add_stream(StreamConfig(name="READINGS", subjects=["sensors.>"], allow_direct=True))
    for number in range(1, 31):
        ack = await js.publish("sensors.t", str(number).encode())
        same((ack.stream, ack.seq), ("READINGS", number))
    again = await js.publish("sensors.u", b"31", headers={"Nats-Msg-Id": "a"})
    twice = await js.publish("sensors.u", b"31", headers={"Nats-Msg-Id": "a"})
    same((again.seq, twice.seq, twice.duplicate), (31, 31, True))

    sub = await js.pull_subscribe(
        "sensors.>", durable="worker", config=ConsumerConfig(ack_wait=2)
    )
    first = await sub.fetch(10, timeout=5)
    same([int(m.data) for m in first], list(range(1, 11)))
    same(first[0].metadata.sequence.stream, 1)
    for msg in first[:9]:
        await msg.ack_sync(timeout=5)
    await first[9].nak()
    # When the nak is handled, and so where message 10 comes again, is the server's business.
    rest = []
    while len(rest) < 22:
        rest += await sub.fetch(22 - len(rest), timeout=5)
    same(sorted(int(m.data) for m in rest), list(range(10, 32)))
    for msg in rest:
        same(msg.metadata.num_delivered, 2 if int(msg.data) == 10 else 1)
        if int(msg.data) == 10:
            await msg.in_progress()
            await msg.term()
        else:
            await msg.ack_sync(timeout=5)
    await nc.flush()
    try:
        await sub.fetch(1, timeout=0.5)
        raise AssertionError("a message too many")
    except TimeoutError:
        pass
    info = await sub.consumer_info()
    same((info.ack_floor.stream_seq, info.num_pending, info.num_ack_pending), (31, 0, 0))

    ordered = await js.subscribe("sensors.>", ordered_consumer=True)
    for number in range(1, 32):
        same(int((await ordered.next_msg(5)).data), number)
    await ordered.unsubscribe()

    push = await js.subscribe("sensors.t", durable="pushed", manual_ack=True)
    for number in range(1, 31):
        msg = await push.next_msg(5)
        same(int(msg.data), number)
        await msg.ack()
    await push.unsubscribe()

    same((await js.get_msg("READINGS", 7)).data, b"7")
    same((await js.get_msg("READINGS", 8, direct=True)).data, b"8")
    await js.delete_msg("READINGS", 7)
    try:
        await js.get_msg("READINGS", 7)
        raise AssertionError("a deleted message is still there")
    except NotFoundError:
        pass
    same((await js.get_last_msg("READINGS", "sensors.u")).data, b"31")
    await js.purge_stream("READINGS", subject="sensors.u")
    same((await js.stream_info("READINGS")).state.messages, 29)
    await js.delete_stream("READINGS")
    try:
        await js.stream_info("READINGS")
    except APIError as error:
        same((error.code, error.err_code), (404, 10059))
        return
    raise AssertionError("a deleted stream is still there")


async def consumer_requests(nc):
    js = nc.jetstream()
    await js.add_stream(StreamConfig(name="TASKS", subjects=["tasks.>"]))
    same((await js.update_stream(name="TASKS", subjects=["tasks.>"], max_msgs=100)).config.max_msgs, 100)
    futures = [await js.publish_async("tasks.a", b"x") for _ in range(20)]
    await js.publish_async_completed()
    same((await futures[19]).seq, 20)
    same([info.config.name for info in await js.streams_info()], ["TASKS"])
    same(await js.find_stream_name_by_subject("tasks.b"), "TASKS")
    await js.add_consumer("TASKS", ConsumerConfig(durable_name="c", ack_policy="explicit"))
    same([info.name for info in await js.consumers_info("TASKS")], ["c"])
    until = (datetime.now(timezone.utc) + timedelta(minutes=1)).isoformat()
    same((await js.pause_consumer("TASKS", "c", until)).paused, True)
    same((await js.resume_consumer("TASKS", "c")).paused, False)
    sub = await js.pull_subscribe_bind(consumer="c", stream="TASKS")
    for msg in await sub.fetch(5, timeout=5):
        await msg.ack_sync(timeout=5)
    same((await js.reset_consumer("TASKS", "c", seq=3)).reset_seq, 3)
    same((await sub.fetch(1, timeout=5))[0].metadata.sequence.stream, 3)
    same(await js.delete_consumer("TASKS", "c"), True)
    same((await js.get_msg("TASKS", seq=4, subject="tasks.*", next=True)).seq, 4)
    await js.delete_stream("TASKS")


async def bucket(nc):
    js = nc.jetstream()
    kv = await js.create_key_value(bucket="settings", history=5)
    same(await kv.create("lamp.a", b"on"), 1)
    same(await kv.put("lamp.a", b"off"), 2)
    same(await kv.update("lamp.a", b"dim", last=2), 3)
    try:
        await kv.update("lamp.a", b"stale", last=2)
        raise AssertionError("updated over a newer revision")
    except KeyWrongLastSequenceError:
        pass
    entry = await kv.get("lamp.a")
    same((entry.value, entry.revision), (b"dim", 3))
    await kv.put("lamp.b", b"1")
    same(sorted(await kv.keys()), ["lamp.a", "lamp.b"])
    same([e.value for e in await kv.history("lamp.a")], [b"on", b"off", b"dim"])
    watcher = await kv.watchall()
    seen = {}
    async for entry in watcher:
        if entry is None:
            break
        seen[entry.key] = entry.value
    same(seen, {"lamp.a": b"dim", "lamp.b": b"1"})
    await watcher.stop()
    await kv.delete("lamp.a")
    try:
        await kv.get("lamp.a")
        raise AssertionError("a deleted key is still there")
    except KeyNotFoundError:
        pass
    await kv.purge("lamp.b")
    status = await kv.status()
    same((status.bucket, status.values, status.history), ("settings", 5, 5))
    await js.delete_key_value("settings")


async def bucket_watches(nc):
    js = nc.jetstream()
    kv = await js.create_key_value(bucket="watched", history=3)
    for key, value in (("a.x", b"1"), ("a.x", b"2"), ("a.y", b"3"), ("b.x", b"4")):
        await kv.put(key, value)
    await kv.delete("a.y")

    async def seen(watcher):
        entries = []
        async for entry in watcher:
            if entry is None:
                await watcher.stop()
                return entries
            entries.append((entry.key, entry.value or b"", entry.operation))
        raise AssertionError("the watcher ended")

    same(await seen(await kv.watch("a.*")), [("a.x", b"2", None), ("a.y", b"", "DEL")])
    same(await seen(await kv.watch("a.x", include_history=True)),
         [("a.x", b"1", None), ("a.x", b"2", None)])
    same(await seen(await kv.watch("a.*", ignore_deletes=True)), [("a.x", b"2", None)])
    same([(k, v) for k, v, _ in await seen(await kv.watchall(meta_only=True))],
         [("a.x", b""), ("b.x", b""), ("a.y", b"")])
    same(sorted(await kv.keys(filters=["a."])), ["a.x"])
    same((await kv.get("a.x", revision=1)).value, b"1")
    same(await kv.delete("b.x", last=4), True)
    try:
        await kv.delete("a.x", last=1)
        raise AssertionError("deleted over a newer revision")
    except APIError as error:
        same(error.err_code, 10071)
    same(await kv.purge_deletes(olderthan=-1), True)
    same((await js.stream_info("KV_watched")).state.messages, 2)
    await js.delete_key_value("watched")


async def bucket_ttl(nc):
    js = nc.jetstream()
    kv = await js.create_key_value(bucket="brief", history=5, limit_marker_ttl=1)
    watcher = await kv.watchall()
    same(await watcher.updates(), None)
    await kv.create("a", b"1", msg_ttl=1)
    same((await watcher.updates()).value, b"1")
    # Its end is told, and the marker of it ends too.
    gone = await watcher.updates(timeout=10)
    same((gone.key, gone.operation), ("a", "PURGE"))
    await kv.put("b", b"2")
    await kv.purge("b", msg_ttl=1)
    for _ in range(100):
        if (await js.stream_info("KV_brief")).state.messages == 0:
            break
        await asyncio.sleep(0.1)
    same((await js.stream_info("KV_brief")).state.messages, 0)
    await watcher.stop()
    await js.delete_key_value("brief")


async def objects(nc):
    js = nc.jetstream()
    store = await js.create_object_store("files")
    data = bytes(range(256)) * 1200
    info = await store.put("a", data)
    same((info.size, info.chunks > 1), (len(data), True))
    same((await store.get("a")).data, data)
    await store.put("b", b"x")
    same(sorted(o.name for o in await store.list()), ["a", "b"])
    await store.delete("a")
    try:
        await store.get("a")
        raise AssertionError("a deleted object is still there")
    except ObjectNotFoundError:
        pass
    watcher = await store.watch()
    seen = []
    while (found := await watcher.updates(timeout=5)) is not None:
        seen.append((found.name, found.deleted))
    same(sorted(seen), [("a", True), ("b", False)])
    await store.update_meta("b", ObjectMeta(name="b", description="new"))
    same((await watcher.updates(timeout=5)).description, "new")
    await watcher.stop()
    same((await store.get_info("b")).description, "new")
    # What does not fit into a chunk, nor into what is under way at once.
    large = bytes(range(251)) * 40_000
    same((await store.put("large", large)).size, len(large))
    same((await store.get("large")).data == large, True)
    same((await store.status()).bucket, "files")
    same((await store.status()).sealed, False)
    await store.seal()
    same((await store.status()).sealed, True)
    try:
        await store.put("late", b"x")
        raise AssertionError("put into a sealed store")
    except (APIError, TimeoutError):
        pass
    same((await store.get("b")).data, b"x")
    await js.delete_object_store("files")
    same((await js.account_info()).streams, 0)


async def main(url):
    trouble = []

    async def remember(error):
        trouble.append(error)

    nc = await nats.connect(url, error_cb=remember, allow_reconnect=False)
    steps = (publish_subscribe, request, services, queue_group, stream_and_consumers, bucket,
             bucket_watches, bucket_ttl, consumer_requests, objects)
    for step in steps:
        await asyncio.wait_for(step(nc), 20)
        print("done:", step.__name__, flush=True)
    await asyncio.wait_for(drain(url), 20)
    await nc.flush()
    same(trouble, [])
    await nc.close()


asyncio.run(main(sys.argv[1]))
