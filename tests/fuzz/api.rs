//! Requests to the JetStream API: any JSON, in any order, with messages in between.
//!
//! Each line of an input is a subject, a blank and a body, published with a reply subject. A
//! body may begin with headers: `@Name: value@Name: value@@`.

use sedge::time::Duration;

use crate::engine::fuzz;
use crate::world::World;

const WORDS: &[&[u8]] = &[
    b"\n",
    b"$JS.API.INFO ",
    b"$JS.API.STREAM.CREATE.S ",
    b"$JS.API.STREAM.UPDATE.S ",
    b"$JS.API.STREAM.INFO.S ",
    b"$JS.API.STREAM.PURGE.S ",
    b"$JS.API.STREAM.DELETE.S ",
    b"$JS.API.STREAM.NAMES ",
    b"$JS.API.STREAM.LIST ",
    b"$JS.API.STREAM.MSG.GET.S ",
    b"$JS.API.STREAM.MSG.DELETE.S ",
    b"$JS.API.STREAM.SNAPSHOT.S ",
    b"$JS.API.STREAM.RESTORE.S ",
    b"$JS.API.STREAM.LEADER.STEPDOWN.S ",
    b"$JS.API.STREAM.PEER.REMOVE.S ",
    b"$JS.API.STREAM.PEER.EVACUATE.S ",
    b"$JS.API.STREAM.CANCEL_MOVE.S ",
    b"$JS.API.ACCOUNT.PURGE.A ",
    b"$JS.API.ACCOUNT.STREAM.MOVE.A.S ",
    b"$JS.API.META.LEADER.STEPDOWN ",
    b"$JS.API.SERVER.REMOVE ",
    b"$JS.edge.API.STREAM.INFO.S ",
    b"$JS.SNAPSHOT.ACK.S.x.1.1 ",
    b"$JS.SNAPSHOT.RESTORE.S.x ",
    b"$JS.M.x ",
    b"$JS.S.x ",
    b"$JS.API.DIRECT.GET.S ",
    b"$JS.API.DIRECT.GET.S.s.a ",
    b"$JS.API.CONSUMER.CREATE.S ",
    b"$JS.API.CONSUMER.CREATE.S.C ",
    b"$JS.API.CONSUMER.CREATE.S.C.s.a ",
    b"$JS.API.CONSUMER.DURABLE.CREATE.S.C ",
    b"$JS.API.CONSUMER.MSG.NEXT.S.C ",
    b"$JS.API.CONSUMER.INFO.S.C ",
    b"$JS.API.CONSUMER.LIST.S ",
    b"$JS.API.CONSUMER.NAMES.S ",
    b"$JS.API.CONSUMER.DELETE.S.C ",
    b"$JS.API.CONSUMER.PAUSE.S.C ",
    b"$JS.API.CONSUMER.UNPIN.S.C ",
    b"$JS.API.CONSUMER.RESET.S.C ",
    b"$JS.API.CONSUMER.LEADER.STEPDOWN.S.C ",
    b"$JS.ACK.S.C.1.1.1.1.1 +ACK",
    b"$JS.ACK.S.C.1.1.1.1.1 -NAK {\"delay\":1000000}",
    b"$JS.ACK.S.C.1.1.1.1.1 +NXT {\"batch\":5}",
    b"$JS.FC.S.C.x ",
    b"$JS.ACK.S.C.2.1.2.1.1 +TERM why",
    b"$JS.ACK.S.C.1.2.1.1.1 +WPI",
    b"$JS.ACK._.szMpdrwD.S.C.1.1.1.1.1 -NAK 3s",
    b"s.a @Nats-Msg-Id: x@@hello",
    b"s.a @Nats-Rollup: sub@@hello",
    b"s.a @Nats-TTL: 1s@@hello",
    b"s.a @Nats-Incr: +1@@",
    b"@Nats-Expected-Last-Sequence: 1@@",
    b"@Nats-Expected-Last-Subject-Sequence: 0@@",
    b"@Nats-Expected-Last-Subject-Sequence-Subject: s.*@@",
    b"@Nats-Expected-Last-Msg-Id: x@@",
    b"@Nats-Expected-Stream: S@@",
    b"@Nats-Required-Api-Level: 9@@",
    b"@Nats-Stream-Identity: abcdefgh@@",
    b"@Nats-Batch-Id: b@Nats-Batch-Sequence: 1@@",
    b"@Nats-Batch-Id: b@Nats-Batch-Sequence: 2@Nats-Batch-Commit: 1@@",
    b"@Nats-Schedule: @every 1s@Nats-Schedule-Target: s.b@@",
    b"@Nats-Stream-Source: S 1 > > s.a@@",
    b"s.a hello",
    b"s.b hello",
    b"{\"name\":\"S\",",
    b"\"subjects\":[\"s.>\"],",
    b"\"storage\":\"memory\",",
    b"\"retention\":\"limits\",",
    b"\"discard\":\"new\",",
    b"\"max_msgs\":",
    b"\"max_bytes\":",
    b"\"max_age\":",
    b"\"max_msgs_per_subject\":",
    b"\"max_consumers\":",
    b"\"duplicate_window\":",
    b"\"allow_direct\":true,",
    b"\"sealed\":true,",
    b"\"allow_msg_ttl\":true,",
    b"\"subject_delete_marker_ttl\":1000000000,",
    b"\"allow_rollup_hdrs\":true,",
    b"\"allow_msg_counter\":true,",
    b"\"allow_atomic\":true,",
    b"\"allow_batched\":true,",
    b"\"allow_msg_schedules\":true,",
    b"\"discard_new_per_subject\":true,",
    b"\"consumer_limits\":{\"max_ack_pending\":1,\"inactive_threshold\":1},",
    b"\"persist_mode\":\"async\",",
    b"\"placement\":{\"tags\":[\"x\"]},",
    b"\"no_ack\":true,",
    b"\"pedantic\":true,",
    b"\"compression\":\"s2\",",
    b"\"deny_purge\":true,",
    b"\"num_replicas\":1,",
    b"\"metadata\":{\"a\":\"b\"},",
    b"\"mirror\":{\"name\":\"M\"},",
    b"\"sources\":[{\"name\":\"M\"}],",
    b"\"republish\":{\"src\":\">\",\"dest\":\"r.>\"},",
    b"\"subject_transform\":{\"src\":\">\",\"dest\":\"t.>\"},",
    b"\"first_seq\":",
    b"\"config\":{",
    b"\"stream_name\":\"S\",",
    b"\"durable_name\":\"C\",",
    b"\"ack_policy\":\"explicit\",",
    b"\"deliver_policy\":\"by_start_sequence\",\"opt_start_seq\":",
    b"\"deliver_policy\":\"by_start_time\",\"opt_start_time\":\"2026-01-01T00:00:00Z\",",
    b"\"deliver_subject\":\"out.x\",",
    b"\"deliver_group\":\"g\",",
    b"\"filter_subject\":\"s.*\",",
    b"\"filter_subjects\":[\"s.a\",\"s.b\"],",
    b"\"ack_wait\":",
    b"\"backoff\":[1,2],",
    b"\"max_deliver\":",
    b"\"max_ack_pending\":",
    b"\"max_waiting\":",
    b"\"idle_heartbeat\":",
    b"\"flow_control\":true,",
    b"\"inactive_threshold\":",
    b"\"rate_limit_bps\":",
    b"\"headers_only\":true,",
    b"\"priority_policy\":\"pinned_client\",\"priority_groups\":[\"g\"],",
    b"\"priority_policy\":\"overflow\",\"priority_groups\":[\"g\"],",
    b"\"priority_timeout\":",
    b"\"group\":\"g\",\"id\":\"x\",",
    b"\"min_pending\":1,",
    b"\"replay_policy\":\"original\",",
    b"\"ack_policy\":\"flow_control\",",
    b"\"direct\":true,\"sourcing\":true,",
    b"\"sample_freq\":\"100%\",",
    b"\"deliver_policy\":\"last_per_subject\",",
    b"\"action\":\"create\",",
    b"\"batch\":",
    b"\"expires\":",
    b"\"no_wait\":true",
    b"\"max_bytes\":",
    b"\"seq\":",
    b"\"next_by_subj\":\"s.a\"",
    b"\"last_by_subj\":\"s.a\"",
    b"\"multi_last\":[\"s.>\"]",
    b"\"up_to_seq\":",
    b"\"filter\":\"s.a\"",
    b"\"keep\":",
    b"\"offset\":",
    b"\"deleted_details\":true",
    b"\"subjects_filter\":\">\"",
    b"\"pause_until\":\"2027-01-01T00:00:00Z\"",
    b"null",
    b"[]",
    b"{}",
    b"\"\"",
    b"\"\\u0000\"",
    b"\"\\ud800\"",
];

/// The header block that a body begins with, and the rest.
fn headers_of(body: &[u8]) -> (Vec<u8>, &[u8]) {
    let Some(rest) = body.strip_prefix(b"@") else { return (Vec::new(), body) };
    let Some(end) = memchr::memmem::find(rest, b"@@") else { return (Vec::new(), body) };
    let mut block = b"NATS/1.0\r\n".to_vec();
    for field in rest[..end].split(|byte| *byte == b'@') {
        block.extend_from_slice(field);
        block.extend_from_slice(b"\r\n");
    }
    block.extend_from_slice(b"\r\n");
    (block, &rest[end + 2..])
}

#[test]
fn any_request_to_jetstream() {
    fuzz("api", WORDS, |input| {
        let mut world = World::new();
        world.json_replies = true;
        let client = world.client(0);
        world.say(
            client,
            b"CONNECT {\"headers\":true,\"no_responders\":true}\r\nSUB _INBOX.api.> 1\r\n\
              SUB out.> 2\r\nSUB $JS.EVENT.> 3\r\n",
        );
        world.settle();
        for line in input.split(|byte| *byte == b'\n').take(64) {
            let (subject, body) = match memchr::memchr(b' ', line) {
                Some(at) => (&line[..at], &line[at + 1..]),
                None => (line, &b""[..]),
            };
            let subject: Vec<u8> =
                subject.iter().copied().filter(|byte| !b" \t\r\n\0".contains(byte)).collect();
            if subject.is_empty() || subject.len() > 512 {
                continue;
            }
            let body = &body[..body.len().min(8000)];
            let (headers, body) = headers_of(body);
            let reply = if subject.starts_with(b"$JS.ACK") { "" } else { "_INBOX.api.r " };
            let verb = if headers.is_empty() { "PUB " } else { "HPUB " };
            let mut bytes = verb.as_bytes().to_vec();
            bytes.extend_from_slice(&subject);
            let total = headers.len() + body.len();
            let sizes = match headers.len() {
                0 => format!(" {reply}{total}\r\n"),
                own => format!(" {reply}{own} {total}\r\n"),
            };
            bytes.extend_from_slice(sizes.as_bytes());
            bytes.extend_from_slice(&headers);
            bytes.extend_from_slice(body);
            bytes.extend_from_slice(b"\r\n");
            world.say(client, &bytes);
            world.settle();
            world.pass(Duration::from_millis(20));
            if world.is_closed(client) {
                break;
            }
        }
        world.pass(Duration::from_secs(40));
        world.finish()
    });
}
