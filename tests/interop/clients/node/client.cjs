// The Node client at its everyday work: client.cjs URL FOLDER
//
// FOLDER holds the packages in its node_modules. Prints each step that is done; ends with an
// exception when a server answers otherwise.

"use strict";

const assert = require("node:assert/strict");
const path = require("node:path");
const { createRequire } = require("node:module");

const [url, folder] = process.argv.slice(2);
const load = createRequire(path.join(path.resolve(folder), "package.json"));
const { connect, createInbox, wsconnect, headers, RequestError } = load("@nats-io/transport-node");
const { AckPolicy, jetstream, jetstreamManager } = load("@nats-io/jetstream");
const { Kvm } = load("@nats-io/kv");
const { Objm } = load("@nats-io/obj");

const delay = (ms) => new Promise((done) => setTimeout(done, ms));

async function take(messages, count) {
  const taken = [];
  for await (const message of messages) {
    taken.push(message);
    if (taken.length === count) break;
  }
  return taken;
}

async function publishSubscribe(nc) {
  const all = nc.subscribe("core.>", { max: 2 });
  const one = nc.subscribe("core.*.b", { max: 1 });
  const h = headers();
  h.append("X-Colour", "green");
  nc.publish("core.a.b", "first");
  nc.publish("core.a.c", "second", { headers: h });
  const got = await take(all, 2);
  assert.deepEqual(got.map((m) => m.string()), ["first", "second"]);
  assert.equal(got[1].headers.get("X-Colour"), "green");
  assert.equal((await take(one, 1))[0].subject, "core.a.b");
}

async function request(nc) {
  nc.subscribe("service.echo", { callback: (_, m) => m.respond(m.data) });
  assert.equal((await nc.request("service.echo", "hello", { timeout: 5000 })).string(), "hello");
  await assert.rejects(
    nc.request("service.nobody", "", { timeout: 5000 }),
    (e) => e instanceof RequestError && e.isNoResponders(),
  );
}

async function queueGroup(nc) {
  const got = [];
  await new Promise((resolve) => {
    for (let i = 0; i < 3; i++) {
      const callback = (_, m) => got.push(Number(m.string())) === 100 && resolve();
      nc.subscribe("jobs", { queue: "workers", callback });
    }
    for (let i = 0; i < 100; i++) nc.publish("jobs", String(i));
  });
  await nc.flush();
  assert.deepEqual(got.sort((a, b) => a - b), Array.from({ length: 100 }, (_, i) => i));
}

async function streamAndConsumers(nc) {
  const js = jetstream(nc);
  const jsm = await jetstreamManager(nc);
  await jsm.streams.add({ name: "READINGS", subjects: ["sensors.>"], allow_direct: true });
  for (let i = 1; i <= 30; i++) {
    assert.equal((await js.publish("sensors.t", String(i))).seq, i);
  }
  const once = await js.publish("sensors.u", "31", { msgID: "a" });
  const twice = await js.publish("sensors.u", "31", { msgID: "a" });
  assert.deepEqual([once.seq, twice.seq, twice.duplicate], [31, 31, true]);
  await assert.rejects(
    js.publish("sensors.u", "x", { expect: { lastSequence: 7 } }),
    (e) => e.code === 10071,
  );

  await jsm.consumers.add("READINGS", { durable_name: "worker", ack_policy: AckPolicy.Explicit });
  const worker = await js.consumers.get("READINGS", "worker");
  const first = await take(await worker.fetch({ max_messages: 10, expires: 5000 }), 10);
  assert.deepEqual(first.map((m) => m.seq), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  for (const message of first.slice(0, 9)) assert.ok(await message.ackAck());
  first[9].nak();
  // When the nak is handled, and so where message 10 comes again, is the server's business.
  const rest = await take(await worker.consume({ max_messages: 50 }), 22);
  const wanted = Array.from({ length: 22 }, (_, i) => i + 10);
  assert.deepEqual(rest.map((m) => m.seq).sort((a, b) => a - b), wanted);
  for (const message of rest) {
    assert.equal(message.info.deliveryCount, message.seq === 10 ? 2 : 1);
    message.working();
    assert.ok(await message.ackAck());
  }
  const info = await worker.info();
  assert.deepEqual([info.ack_floor.stream_seq, info.num_pending], [31, 0]);

  const ordered = await js.consumers.get("READINGS", { filter_subjects: ["sensors.t"] });
  const seen = await take(await ordered.consume(), 30);
  assert.deepEqual(seen.map((m) => m.string()), Array.from({ length: 30 }, (_, i) => `${i + 1}`));

  // Given up: it does not come again.
  await jsm.consumers.add("READINGS", {
    durable_name: "giver", ack_policy: AckPolicy.Explicit, ack_wait: 500_000_000,
    filter_subject: "sensors.u",
  });
  const giver = await js.consumers.get("READINGS", "giver");
  (await take(await giver.fetch({ max_messages: 1, expires: 5000 }), 1))[0].term();
  await nc.flush();
  assert.equal(await giver.next({ expires: 1500 }), null);
  assert.equal((await giver.info()).num_ack_pending, 0);
  await jsm.consumers.delete("READINGS", "giver");

  assert.equal((await jsm.streams.getMessage("READINGS", { seq: 7 })).string(), "7");
  assert.ok(await jsm.streams.deleteMessage("READINGS", 7));
  assert.equal(await jsm.streams.getMessage("READINGS", { seq: 7 }), null);
  const last = await jsm.direct.getMessage("READINGS", { last_by_subj: "sensors.u" });
  assert.equal(last.string(), "31");
  assert.equal((await jsm.streams.purge("READINGS", { filter: "sensors.u" })).purged, 1);
  assert.ok(await jsm.streams.delete("READINGS"));
  await assert.rejects(jsm.streams.info("READINGS"), (e) => e.code === 10059);
}

async function consumerRequests(nc) {
  const jsm = await jetstreamManager(nc);
  await jsm.streams.add({ name: "TASKS", subjects: ["tasks.>"] });
  assert.equal((await jsm.streams.update("TASKS", { max_msgs: 100 })).config.max_msgs, 100);
  for (let i = 0; i < 5; i++) await jetstream(nc).publish("tasks.a", "x");
  await jsm.consumers.add("TASKS", {
    durable_name: "c", ack_policy: AckPolicy.Explicit,
    priority_groups: ["A"], priority_policy: "pinned_client",
  });
  assert.ok((await jsm.consumers.pause("TASKS", "c", new Date(Date.now() + 60_000))).paused);
  assert.equal((await jsm.consumers.resume("TASKS", "c")).paused, false);
  await jsm.consumers.unpin("TASKS", "c", "A");
  assert.equal((await jsm.consumers.reset("TASKS", "c", 3)).reset_seq, 3);
  const names = [];
  for await (const info of jsm.consumers.list("TASKS")) names.push(info.name);
  assert.deepEqual(names, ["c"]);
  const deliver = createInbox();
  const pushed = take(nc.subscribe(deliver), 5);
  await jsm.consumers.add("TASKS", {
    durable_name: "p", ack_policy: AckPolicy.Explicit, deliver_subject: deliver,
  });
  for (const message of await pushed) message.respond("+ACK");
  assert.ok(await jsm.consumers.delete("TASKS", "c"));
  assert.ok(await jsm.streams.delete("TASKS"));
}

async function bucket(nc) {
  const kv = await new Kvm(nc).create("settings", { history: 5 });
  const watched = take(await kv.watch({ key: "lamp.a", include: "updates" }), 4);
  assert.equal(await kv.create("lamp.a", "on"), 1);
  await assert.rejects(kv.create("lamp.a", "again"));
  assert.equal(await kv.put("lamp.a", "off"), 2);
  assert.equal(await kv.update("lamp.a", "dim", 2), 3);
  await assert.rejects(kv.update("lamp.a", "stale", 2));
  const entry = await kv.get("lamp.a");
  assert.deepEqual([entry.string(), entry.revision], ["dim", 3]);
  const history = await take(await kv.history({ key: "lamp.a" }), 3);
  assert.deepEqual(history.map((e) => e.string()), ["on", "off", "dim"]);
  await kv.put("lamp.b", "1");
  const keys = [];
  for await (const key of await kv.keys()) keys.push(key);
  assert.deepEqual(keys.sort(), ["lamp.a", "lamp.b"]);
  await kv.delete("lamp.a");
  assert.equal((await kv.get("lamp.a")).operation, "DEL");
  const changes = (await watched).map((e) => [e.operation, e.string()]);
  assert.deepEqual(changes, [["PUT", "on"], ["PUT", "off"], ["PUT", "dim"], ["DEL", ""]]);
  await kv.purge("lamp.b");
  assert.equal((await kv.status()).bucket, "settings");
  assert.ok(await kv.destroy());
}

// What a watch has seen up to the last of what was there.
async function initial(iterator) {
  const seen = [];
  for await (const e of iterator) {
    seen.push([e.key, e.operation, e.string()]);
    if (e.delta === 0) break;
  }
  return seen;
}

async function bucketWatches(nc) {
  const kv = await new Kvm(nc).create("watched", { history: 3 });
  for (const [k, v] of [["a.x", "1"], ["a.x", "2"], ["a.y", "3"], ["b.x", "4"]]) await kv.put(k, v);
  await kv.delete("a.y");
  assert.deepEqual(await initial(await kv.watch({ key: "a.*" })), [
    ["a.x", "PUT", "2"], ["a.y", "DEL", ""],
  ]);
  assert.deepEqual(await initial(await kv.watch({ key: ["a.x", "b.*"], include: "history" })), [
    ["a.x", "PUT", "1"], ["a.x", "PUT", "2"], ["b.x", "PUT", "4"],
  ]);
  assert.deepEqual(await initial(await kv.watch({ key: ">", resumeFromRevision: 4 })), [
    ["b.x", "PUT", "4"], ["a.y", "DEL", ""],
  ]);
  const bare = await take(await kv.watch({ headers_only: true, ignoreDeletes: true }), 2);
  assert.deepEqual(bare.map((e) => [e.key, e.length]), [["a.x", 1], ["b.x", 1]]);
  const keys = [];
  for await (const key of await kv.keys("a.*")) keys.push(key);
  assert.deepEqual(keys, ["a.x"]);
  assert.equal((await kv.get("a.x", { revision: 1 })).string(), "1");
  await assert.rejects(kv.delete("a.x", { previousSeq: 1 }));
  await kv.purge("b.x", { previousSeq: 4 });
  assert.equal((await kv.purgeDeletes(0)).purged, 3);
  assert.equal((await kv.status()).values, 2);

  // This client looks for the keys of a mirror under the mirror's own name.
  const mirror = await new Kvm(nc).create("seen", { history: 3, mirror: { name: "watched" } });
  const sources = await new Kvm(nc).create("joined", {
    history: 3, sources: [{ name: "watched" }],
  });
  for (const copy of [mirror, sources]) {
    for (let i = 0; i < 100 && (await copy.status()).values < 2; i++) await delay(50);
    assert.equal((await copy.status()).values, 2);
  }
  assert.equal((await sources.get("a.x")).string(), "2");
  for (const bucket of [sources, mirror, kv]) assert.ok(await bucket.destroy());
}

async function bucketTtl(nc) {
  const kv = await new Kvm(nc).create("brief", { history: 5, markerTTL: 1000 });
  assert.equal((await kv.status()).markerTTL, 1000);
  const watched = take(await kv.watch({ include: "updates" }), 2);
  await kv.create("a", "1", "1s");
  assert.deepEqual((await watched).map((e) => [e.key, e.operation]), [["a", "PUT"], ["a", "PURGE"]]);
  await kv.put("b", "2");
  await kv.purge("b", { ttl: "1s" });
  for (let i = 0; i < 100 && (await kv.status()).values > 0; i++) await delay(100);
  assert.equal((await kv.status()).values, 0);
  assert.ok(await kv.destroy());
}

async function objects(nc) {
  const store = await new Objm(nc).create("files");
  const data = new Uint8Array(300_000).fill(7);
  const info = await store.putBlob({ name: "a" }, data);
  assert.deepEqual([info.size, info.chunks > 1], [300_000, true]);
  assert.deepEqual(await store.getBlob("a"), data);
  await store.putBlob({ name: "b" }, new Uint8Array(1));
  assert.deepEqual((await store.list()).map((o) => o.name).sort(), ["a", "b"]);
  await store.delete("a");
  assert.equal(await store.getBlob("a"), null);
  const watched = take(await store.watch({ includeHistory: true }), 4);
  await store.update("b", { name: "c", description: "renamed" });
  assert.equal((await store.info("c")).description, "renamed");
  const c = await store.info("c");
  await store.link("latest", c);
  assert.equal((await store.getBlob("latest")).length, 1);
  const other = await new Objm(nc).create("more");
  await other.linkStore("files", store);
  assert.equal((await other.info("files")).options.link.bucket, "files");
  assert.ok(await other.destroy());
  assert.equal((await watched).length, 4);
  // What does not fit into a chunk, nor into what is under way at once.
  const large = new Uint8Array(10_000_000).map((_, i) => i % 251);
  assert.equal((await store.putBlob({ name: "large" }, large)).size, large.length);
  assert.equal(Buffer.compare(await store.getBlob("large"), large), 0);
  assert.equal((await store.status()).bucket, "files");
  assert.equal((await store.seal()).sealed, true);
  await assert.rejects(store.putBlob({ name: "late" }, new Uint8Array(1)));
  assert.equal((await store.getBlob("c")).length, 1);
  assert.ok(await store.destroy());
}

async function account(nc) {
  const info = await (await jetstreamManager(nc)).getAccountInfo();
  assert.equal(info.streams, 0);
}

async function main() {
  const open = url.startsWith("ws") ? wsconnect : connect;
  const tls = url.startsWith("tls") ? {} : undefined;
  const nc = await open({ servers: url, reconnect: false, tls });
  for (const step of [publishSubscribe, request, queueGroup, streamAndConsumers,
    consumerRequests, bucket, bucketWatches, bucketTtl, objects, account]) {
    await step(nc);
    console.log("done:", step.name);
  }
  await nc.drain();
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
