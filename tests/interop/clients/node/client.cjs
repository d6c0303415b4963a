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
const { connect, wsconnect, headers, RequestError } = load("@nats-io/transport-node");
const { AckPolicy, jetstream, jetstreamManager } = load("@nats-io/jetstream");
const { Kvm } = load("@nats-io/kv");
const { Objm } = load("@nats-io/obj");

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
  assert.equal((await store.status()).bucket, "files");
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
  for (const step of [publishSubscribe, request, queueGroup, streamAndConsumers, bucket, objects, account]) {
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
