//! Header blocks: looked up in, stored, read back, and used as instructions to JetStream.

use sedge::proto::headers;

use crate::engine::fuzz;
use crate::world::World;

const WORDS: &[&[u8]] = &[
    b"NATS/1.0",
    b"NATS/1.0 503 No Responders\r\n",
    b"\r\n",
    b"\n",
    b": ",
    b":",
    b"Nats-Msg-Id",
    b"Nats-Expected-Stream: S\r\n",
    b"Nats-Expected-Last-Sequence: 0\r\n",
    b"Nats-Expected-Last-Subject-Sequence: 1\r\n",
    b"Nats-Expected-Last-Subject-Sequence-Subject: s.a\r\n",
    b"Nats-Expected-Last-Msg-Id: a\r\n",
    b"Nats-Rollup: sub\r\n",
    b"Nats-Rollup: all\r\n",
    b"Nats-TTL: 1s\r\n",
    b"Nats-Schedule: @at 2009\r\n",
    b"Nats-Batch-Id: b\r\n",
    b"Nats-Batch-Sequence: 1\r\n",
    b"Nats-Batch-Commit: 1\r\n",
    b"Nats-Required-Api-Level: 2\r\n",
    b"Nats-Incr: 1\r\n",
    b"Nats-Marker-Reason: Purge\r\n",
    b"Nats-Stream-Source: a\r\n",
    b"Nats-Trace-Dest: t\r\n",
    b"Nats-Request-Info: {}\r\n",
    b"Status: 100\r\n",
];

const START: &str = "CONNECT {\"headers\":true,\"no_responders\":true}\r\n\
    SUB _INBOX.api.> 1\r\nSUB out.> 2\r\n";
const STREAM: &str = "{\"name\":\"S\",\"subjects\":[\"s.>\"],\"storage\":\"memory\",\
    \"allow_rollup_hdrs\":true,\"allow_direct\":true,\"max_msgs\":8}";
const CONSUMER: &str = "{\"stream_name\":\"S\",\"config\":{\"deliver_subject\":\"out.s\",\
    \"ack_policy\":\"none\"}}";

#[test]
fn any_header_block() {
    fuzz("headers", WORDS, |input| {
        let input = &input[..input.len().min(4096)];
        for name in ["Nats-Msg-Id", "A", "", ":", "Nats-Rollup"] {
            if let Some(value) = headers::value(input, name) {
                assert!(!value.contains(&b'\n'));
            }
        }
        let mut world = World::new();
        world.json_replies = true;
        let client = world.client(0);
        let publish = |subject: &str, reply: &str, payload: &str| {
            format!("PUB {subject} _INBOX.api.{reply} {}\r\n{payload}\r\n", payload.len())
        };
        world.say(client, START.as_bytes());
        world.say(client, publish("$JS.API.STREAM.CREATE.S", "1", STREAM).as_bytes());
        world.settle();
        world.say(client, publish("$JS.API.CONSUMER.CREATE.S", "2", CONSUMER).as_bytes());
        world.settle();
        for subject in ["s.a", "s.b", "$JS.API.STREAM.INFO.S", "$JS.API.DIRECT.GET.S", "nobody"] {
            let line = format!("HPUB {subject} _INBOX.api.3 {} {}\r\n", input.len(), input.len());
            world.say(client, line.as_bytes());
            world.say(client, input);
            world.say(client, b"\r\n");
            world.settle();
        }
        world.say(client, publish("$JS.API.DIRECT.GET.S", "4", "{\"seq\":1}").as_bytes());
        world.say(client, publish("$JS.API.STREAM.MSG.GET.S", "5", "{\"seq\":1}").as_bytes());
        world.settle();
        let lines = headers::lines(input).count().min(8);
        world.note(&[u8::try_from(lines).unwrap_or(0)]);
        world.finish()
    });
}
