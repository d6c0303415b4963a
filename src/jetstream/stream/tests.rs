//! What a client sees of streams: requests in, replies out, over the engine in memory.
//!
//! Expected texts were seen from nats-server 2.15.1, with times and versions put in.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::jetstream::host::Target;
use crate::jetstream::options::{Limits, Options};
use crate::jetstream::storage::StoreReply;
use crate::jetstream::storage::{RecoveredStream, StreamState};
use crate::jetstream::testing::World;
use crate::time::{Duration, Timestamp};

const ZERO: &str = "0001-01-01T00:00:00Z";

fn world() -> World {
    World::new(Options { server_name: "S1".into(), ..Options::default() })
}

/// With a stream T on `t.>` that allows direct gets.
fn world_with(rest: &str) -> World {
    let mut world = world();
    let body = format!("{{\"name\":\"T\",\"subjects\":[\"t.>\"]{rest}}}");
    let reply = world.api("STREAM.CREATE.T", &body);
    assert!(reply.contains("\"did_create\":true"), "{reply}");
    world
}

/// The error of a reply, as `err_code code text`.
fn error(reply: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(reply).expect(reply);
    let error = &value["error"];
    format!(
        "{} {} {}",
        error["err_code"],
        error["code"],
        error["description"].as_str().unwrap_or("no error")
    )
}

fn config(metadata: &str) -> String {
    format!(
        "{{\"name\":\"B\",\"subjects\":[\"B\"],\"retention\":\"limits\",\"max_consumers\":-1,\
         \"max_msgs\":-1,\"max_bytes\":-1,\"max_age\":0,\"max_msgs_per_subject\":-1,\
         \"max_msg_size\":-1,\"discard\":\"old\",\"storage\":\"file\",\"num_replicas\":1,\
         \"duplicate_window\":120000000000,\"compression\":\"none\",\"allow_direct\":false,\
         \"mirror_direct\":false,\"sealed\":false,\"deny_delete\":false,\"deny_purge\":false,\
         \"allow_rollup_hdrs\":false,\"consumer_limits\":{{}},\"allow_msg_ttl\":false,\
         \"metadata\":{{{metadata}}}}}"
    )
}

#[test]
fn create_update_info_and_list_answer_like_nats_server() {
    let mut world = world();
    let shown = config("\"_nats.level\":\"5\",\"_nats.req.level\":\"0\",\"_nats.ver\":\"2.15.1\"");
    let rest = format!(
        "\"config\":{shown},\"created\":\"2026-11-24T10:00:00Z\",\"state\":{{\"messages\":0,\
         \"bytes\":0,\"first_seq\":0,\"first_ts\":\"{ZERO}\",\"last_seq\":0,\
         \"last_ts\":\"{ZERO}\",\"consumer_count\":0}}"
    );
    let ts = "\"ts\":\"2026-11-24T10:00:00Z\"";
    assert_eq!(
        world.api("STREAM.CREATE.B", "{\"name\":\"B\",\"max_age\":0}"),
        format!(
            "{{\"type\":\"io.nats.jetstream.api.v1.stream_create_response\",{rest},{ts},\
             \"did_create\":true}}"
        )
    );
    assert_eq!(
        world.api("STREAM.UPDATE.B", "{\"name\":\"B\"}"),
        format!("{{\"type\":\"io.nats.jetstream.api.v1.stream_update_response\",{rest},{ts}}}")
    );
    assert_eq!(
        world.api("STREAM.INFO.B", ""),
        format!(
            "{{\"type\":\"io.nats.jetstream.api.v1.stream_info_response\",\"total\":0,\
             \"offset\":0,\"limit\":0,{rest},\"cluster\":{{\"leader\":\"S1\"}},{ts}}}"
        )
    );
    let listed = rest.replace(&shown, &config("\"_nats.req.level\":\"0\""));
    assert_eq!(
        world.api("STREAM.LIST", ""),
        format!(
            "{{\"type\":\"io.nats.jetstream.api.v1.stream_list_response\",\"total\":1,\
             \"offset\":0,\"limit\":256,\"streams\":[{{{listed},{ts}}}]}}"
        )
    );
}

#[test]
fn a_domain_shows_in_updates_infos_lists_and_acks_but_not_in_creates() {
    let mut world = World::new(Options { domain: Some("edge1".into()), ..Options::default() });
    let domain = "\"domain\":\"edge1\"";
    assert!(!world.api("STREAM.CREATE.B", "{\"name\":\"B\"}").contains(domain));
    for endpoint in ["STREAM.UPDATE.B", "STREAM.INFO.B", "STREAM.LIST", "INFO"] {
        let body = if endpoint.contains("UPDATE") { "{\"name\":\"B\"}" } else { "" };
        let reply = world.api(endpoint, body);
        assert!(reply.contains(domain), "{endpoint}: {reply}");
    }
    assert_eq!(world.put("B", "", "x"), "{\"stream\":\"B\",\"domain\":\"edge1\",\"seq\":1}");
}

#[test]
fn creating_again_succeeds_only_with_the_same_configuration() {
    let mut world = world_with(",\"max_msgs\":0");
    let again = world.api(
        "STREAM.CREATE.T",
        "{\"name\":\"T\",\"subjects\":[\"t.>\"],\"max_msgs\":-1,\"metadata\":\
         {\"_nats.ver\":\"1\"}}",
    );
    assert!(again.contains("\"did_create\":true"), "{again}");
    let other =
        world.api("STREAM.CREATE.T", "{\"name\":\"T\",\"subjects\":[\"t.>\"],\"max_msgs\":9}");
    assert_eq!(
        error(&other),
        "10058 400 stream name already in use with a different configuration"
    );
}

#[test]
fn two_creates_in_one_turn_are_both_answered_after_the_store() {
    let mut world = world();
    for _ in 0..2 {
        world.publish("$JS.API.STREAM.CREATE.B", "_INBOX.test", "", "{\"name\":\"B\"}");
    }
    // A publish that follows in the same turn is stored too.
    world.publish("B", "_INBOX.ack", "", "x");
    assert!(world.host.delivered.is_empty(), "nothing is durable yet");
    world.settle();
    let created: Vec<_> =
        world.host.delivered.iter().filter(|m| m.payload.contains("did_create")).collect();
    assert_eq!(created.len(), 2);
    assert!(world.host.delivered.iter().any(|m| m.payload == "{\"stream\":\"B\",\"seq\":1}"));
}

#[test]
fn a_create_the_disk_refuses_leaves_nothing_behind() {
    use crate::jetstream::storage::{StoreError, StoreRequest};
    let mut world = world();
    world.publish("$JS.API.STREAM.CREATE.B", "_INBOX.test", "", "{\"name\":\"B\"}");
    let Some(StoreRequest::CreateStream { token, .. }) = world.host.requests.pop_front() else {
        panic!("no create");
    };
    let failed = StoreReply::Done {
        token,
        found: false,
        result: Err(StoreError { text: "no space left on device".into() }),
        update: None,
    };
    world.js.handle_store(world.now, failed, &mut world.host);
    let reply = world.host.delivered.pop().unwrap().payload;
    assert_eq!(error(&reply), "10049 500 no space left on device");
    assert!(world.host.subscriptions.iter().all(|(_, t)| !matches!(t, Target::Stream(_))));
    assert!(world.api("STREAM.NAMES", "").contains("\"streams\":null"));
}

#[test]
fn an_update_the_disk_refuses_is_taken_back() {
    use crate::jetstream::storage::{StoreError, StoreRequest};
    let mut world = world_with("");
    world.publish(
        "$JS.API.STREAM.UPDATE.T",
        "_INBOX.test",
        "",
        "{\"name\":\"T\",\"subjects\":[\"u\"]}",
    );
    let Some(StoreRequest::UpdateStream { token, .. }) = world.host.requests.pop_front() else {
        panic!("no update");
    };
    let failed = StoreReply::Done {
        token,
        found: true,
        result: Err(StoreError { text: "disk is full".into() }),
        update: None,
    };
    world.js.handle_store(world.now, failed, &mut world.host);
    let reply = world.host.delivered.pop().unwrap().payload;
    assert_eq!(error(&reply), "10069 500 disk is full");
    assert_eq!(world.put("u", "", "x"), "");
    assert_eq!(world.put("t.1", "", "x"), "{\"stream\":\"T\",\"seq\":1}");
}

#[test]
fn checks_of_create_and_update_come_in_the_order_of_nats_server() {
    let mut world = world_with("");
    for (endpoint, body, expected) in [
        ("CREATE.X", "", "10056 400 stream name in subject does not match request"),
        ("CREATE.X", "{\"name\":\"Y\"}", "10056 400 stream name in subject does not match request"),
        (
            "CREATE.a/b",
            "{\"name\":\"a/b\"}",
            "10128 400 Stream name can not contain path separators",
        ),
        (
            "CREATE.U",
            "{\"name\":\"U\",\"subjects\":[\"t.1\"]}",
            "10065 400 subjects overlap with an existing stream",
        ),
        ("CREATE.U", "{\"name\":\"U\",\"subjects\":[\"t..1\"]}", "10052 500 invalid subject"),
        ("CREATE.X", "{\"bogus\":1}", "10025 400 invalid JSON: json: unknown field \"bogus\""),
        (
            "UPDATE.X",
            "",
            "10052 500 stream name is required and can not contain '.', '*', '>', '\\', '/'",
        ),
        ("UPDATE.T", "{\"name\":\"U\"}", "10056 400 stream name in subject does not match request"),
        ("UPDATE.X", "{\"name\":\"X\"}", "10059 404 stream not found"),
        ("UPDATE.X", "{\"name\":\"X\",\"subjects\":[\"q..q\"]}", "10052 500 invalid subject"),
        (
            "UPDATE.T",
            "{\"name\":\"T\",\"storage\":\"memory\"}",
            "10052 500 stream configuration update can not change storage type",
        ),
        (
            "UPDATE.T",
            "{\"name\":\"T\",\"retention\":\"workqueue\"}",
            "10052 500 stream configuration update can not change retention policy to/from workqueue",
        ),
        (
            "UPDATE.T",
            "{\"name\":\"T\",\"num_replicas\":3}",
            "10074 500 replicas > 1 not supported in non-clustered mode",
        ),
    ] {
        assert_eq!(error(&world.api(&format!("STREAM.{endpoint}"), body)), expected, "{endpoint}");
    }
}

#[test]
fn an_update_may_not_cap_consumers_below_what_they_have() {
    let mut world = world_with("");
    for (name, rest) in
        [("c", ",\"max_ack_pending\":3,\"inactive_threshold\":9000000000"), ("d", "")]
    {
        let body = format!(
            "{{\"stream_name\":\"T\",\"config\":{{\"durable_name\":\"{name}\",\
             \"ack_policy\":\"explicit\"{rest}}}}}"
        );
        let reply = world.api(&format!("CONSUMER.CREATE.T.{name}"), &body);
        assert!(!reply.contains("\"error\""), "{reply}");
    }
    for (limits, violated) in [
        ("\"max_ack_pending\":1000", ""),
        ("\"max_ack_pending\":5", "d"),
        ("\"max_ack_pending\":2", "c, d"),
        ("\"inactive_threshold\":5000000000", "c"),
    ] {
        let body =
            format!("{{\"name\":\"T\",\"subjects\":[\"t.>\"],\"consumer_limits\":{{{limits}}}}}");
        let reply = world.api("STREAM.UPDATE.T", &body);
        if violated.is_empty() {
            assert!(!reply.contains("\"error\""), "{reply}");
        } else {
            let text = format!("10069 500 change to limits violates consumers: {violated}");
            assert_eq!(error(&reply), text);
        }
    }
}

#[test]
fn limits_of_the_server_bound_what_streams_may_reserve() {
    let mut world = World::new(Options {
        max_storage: Some(1000),
        max_memory: Some(100),
        limits: Limits { duplicate_window: Some(Duration::from_mins(1)), ..Limits::default() },
        ..Options::default()
    });
    let create = |world: &mut World, name: &str, rest: &str| {
        world.api(&format!("STREAM.CREATE.{name}"), &format!("{{\"name\":\"{name}\",{rest}}}"))
    };
    assert!(create(&mut world, "A", "\"max_bytes\":800").contains("did_create"));
    assert_eq!(
        error(&create(&mut world, "B", "\"max_bytes\":300")),
        "10047 500 insufficient storage resources available"
    );
    assert_eq!(
        error(&create(&mut world, "B", "\"max_bytes\":101,\"storage\":\"memory\"")),
        "10028 500 insufficient memory resources available"
    );
    let grown = world.api("STREAM.UPDATE.A", "{\"name\":\"A\",\"max_bytes\":1000}");
    assert!(grown.contains("\"max_bytes\":1000"), "{grown}");
    assert!(grown.contains("\"duplicate_window\":60000000000"), "{grown}");
    let over = world.api("STREAM.UPDATE.A", "{\"name\":\"A\",\"max_bytes\":1001}");
    assert_eq!(error(&over), "10047 500 insufficient storage resources available");
    assert_eq!(
        error(&create(&mut world, "C", "\"duplicate_window\":61000000000")),
        "10052 500 duplicates window can not be larger then server limit of 1m0s"
    );
    let info = world.api("INFO", "");
    assert!(
        info.contains("\"reserved_memory\":0,\"reserved_storage\":1000,\"streams\":1"),
        "{info}"
    );
}

#[test]
fn names_and_lists_are_sorted_filtered_and_paged() {
    let mut world = world();
    for name in ["C", "A", "B"] {
        let lower = name.to_ascii_lowercase();
        world.api(
            &format!("STREAM.CREATE.{name}"),
            &format!("{{\"name\":\"{name}\",\"subjects\":[\"{lower}.*\"]}}"),
        );
    }
    let head = "{\"type\":\"io.nats.jetstream.api.v1.stream_names_response\",";
    for (body, expected) in [
        ("", "\"total\":3,\"offset\":0,\"limit\":1024,\"streams\":[\"A\",\"B\",\"C\"]}"),
        ("null", "\"total\":3,\"offset\":0,\"limit\":1024,\"streams\":[\"A\",\"B\",\"C\"]}"),
        ("{\"offset\":1}", "\"total\":3,\"offset\":1,\"limit\":1024,\"streams\":[\"B\",\"C\"]}"),
        (
            "{\"offset\":-3}",
            "\"total\":3,\"offset\":0,\"limit\":1024,\"streams\":[\"A\",\"B\",\"C\"]}",
        ),
        ("{\"offset\":9}", "\"total\":3,\"offset\":3,\"limit\":1024,\"streams\":null}"),
        ("{\"subject\":\"b.x\"}", "\"total\":1,\"offset\":0,\"limit\":1024,\"streams\":[\"B\"]}"),
        (
            "{\"subject\":\"*.x\"}",
            "\"total\":3,\"offset\":0,\"limit\":1024,\"streams\":[\"A\",\"B\",\"C\"]}",
        ),
        ("{\"subject\":\"zz\"}", "\"total\":0,\"offset\":0,\"limit\":1024,\"streams\":null}"),
        (
            "{\"x\":1}",
            "\"error\":{\"code\":400,\"err_code\":10025,\"description\":\"invalid JSON: json: \
             unknown field \\\"x\\\"\"},\"total\":0,\"offset\":0,\"limit\":0,\"streams\":null}",
        ),
    ] {
        assert_eq!(world.api("STREAM.NAMES", body), format!("{head}{expected}"), "{body}");
    }
    let empty = world.api("STREAM.LIST", "{\"subject\":\"zz\"}");
    assert!(empty.ends_with("\"total\":0,\"offset\":0,\"limit\":256,\"streams\":[]}"), "{empty}");
}

#[test]
fn account_info_counts_requests_before_this_one() {
    let mut world = world();
    assert_eq!(
        world.api("INFO", "garbage"),
        "{\"type\":\"io.nats.jetstream.api.v1.account_info_response\",\"memory\":0,\
         \"storage\":0,\"reserved_memory\":0,\"reserved_storage\":0,\"streams\":0,\
         \"consumers\":0,\"limits\":{\"max_memory\":-1,\"max_storage\":-1,\"max_streams\":-1,\
         \"max_consumers\":-1,\"max_ack_pending\":-1,\"memory_max_stream_bytes\":-1,\
         \"storage_max_stream_bytes\":-1,\"max_bytes_required\":false},\
         \"api\":{\"level\":5,\"total\":0,\"errors\":0}}"
    );
    world.api("STREAM.CREATE.M", "{\"name\":\"M\",\"storage\":\"memory\"}");
    world.api("STREAM.INFO.X", "");
    world.put("M", "", "xyz");
    world.api("STREAM.MSG.GET.M", "{\"seq\":1}");
    let info = world.api("INFO", "");
    assert!(info.contains("\"memory\":20,\"storage\":0"), "{info}");
    assert!(info.contains("\"api\":{\"level\":5,\"total\":3,\"errors\":1}"), "{info}");
}

#[test]
fn acks_carry_sequence_duplicate_and_error() {
    let mut world = world_with(",\"max_msg_size\":64");
    assert_eq!(world.put("t.1", "", "abc"), "{\"stream\":\"T\",\"seq\":1}");
    let id = "NATS/1.0\r\nNats-Msg-Id: 7\r\n\r\n";
    assert_eq!(world.put("t.1", id, ""), "{\"stream\":\"T\",\"seq\":2}");
    assert_eq!(world.put("t.1", id, ""), "{\"stream\":\"T\",\"seq\":2,\"duplicate\": true}");
    let refused = |err_code, code, text| {
        format!(
            "{{\"error\":{{\"code\":{code},\"err_code\":{err_code},\"description\":\"{text}\"}},\
             \"stream\":\"T\",\"seq\":0}}"
        )
    };
    assert_eq!(
        world.put("t.1", "", &"x".repeat(65)),
        refused(10054, 400, "message size exceeds maximum allowed")
    );
    for (header, err_code, code, text) in [
        ("Nats-Expected-Last-Sequence: 9", 10071, 400, "wrong last sequence: 2"),
        ("Nats-Expected-Stream: Z", 10060, 400, "expected stream does not match"),
        ("Nats-Expected-Last-Msg-Id: 3", 10070, 400, "wrong last msg ID: 7"),
        ("Nats-Rollup: sub", 10111, 500, "rollup not permitted"),
        ("Nats-TTL: 5", 10166, 400, "per-message TTL is disabled"),
        ("Nats-TTL: abc", 10165, 400, "invalid per-message TTL"),
        ("Nats-Incr: +1", 10168, 400, "message counters is disabled"),
        ("Nats-Incr: x", 10171, 400, "message counter increment is invalid"),
        ("Nats-Batch-Id: x", 10174, 400, "atomic publish is disabled"),
        ("Nats-Schedule: @every 1s", 10188, 400, "message schedules is disabled"),
        ("Nats-Scheduler: x", 10212, 400, "message schedules invalid scheduler"),
        ("Nats-Stream-Source: x", 10227, 400, "message stream source header is not allowed"),
    ] {
        let block = format!("NATS/1.0\r\n{header}\r\n\r\n");
        assert_eq!(world.put("t.1", &block, ""), refused(err_code, code, text), "{header}");
    }
    for harmless in ["Nats-Required-Api-Level: 99", "Nats-Batch-Sequence: 1", "Nats-Incr: "] {
        let block = format!("NATS/1.0\r\n{harmless}\r\n\r\n");
        assert!(!world.put("t.1", &block, "").contains("error"), "{harmless}");
    }
}

#[test]
fn a_fast_batch_is_refused_and_a_stream_without_acks_is_silent() {
    let mut world = world_with("");
    world.publish("t.1", "_INBOX.x.u1.10.fail.1.0.$FI", "", "x");
    world.settle();
    let refusal = world.host.delivered.pop().unwrap().payload;
    assert_eq!(error(&refusal), "10205 400 batch publish is disabled");
    let mut world = world_with(",\"no_ack\":true,\"max_msg_size\":3");
    assert_eq!(world.put("t.1", "", "x"), "");
    assert_eq!(world.put("t.1", "", "too long"), "");
    assert!(world.api("STREAM.INFO.T", "").contains("\"messages\":1,"));
}

#[test]
fn nothing_is_acknowledged_before_the_store_has_answered() {
    let mut world = world_with("");
    world.host.delivered.clear();
    world.publish("t.1", "_INBOX.test", "", "x");
    world.js.flush(world.now, &mut world.host);
    assert_eq!(world.host.requests.len(), 1);
    assert!(world.host.delivered.is_empty());
    world.settle();
    assert_eq!(world.host.delivered.len(), 1);
}

#[test]
fn a_publisher_that_outruns_the_store_gets_429_and_memory_stays_bounded() {
    let mut world = world_with("");
    world.host.delivered.clear();
    let payload = "x".repeat(1024 * 1024);
    for _ in 0..40 {
        world.publish("t.1", "_INBOX.test", "", &payload);
    }
    let refused: Vec<_> = world.host.delivered.clone();
    assert!(!refused.is_empty() && refused.len() < 12, "{}", refused.len());
    for msg in &refused {
        assert_eq!(msg.headers, "NATS/1.0 429 Too Many Requests\r\n\r\n");
        assert_eq!(error(&msg.payload), "10167 429 too many requests");
    }
    world.settle();
    assert!(world.put("t.1", "", "x").contains("\"seq\""), "later there is room again");
}

#[test]
fn a_publish_on_the_same_turn_as_a_delete_comes_first() {
    let mut world = world_with("");
    world.host.delivered.clear();
    world.publish("t.1", "_INBOX.ack", "", "x");
    world.publish("$JS.API.STREAM.PURGE.T", "_INBOX.purge", "", "");
    world.settle();
    let purge = world.host.delivered.iter().find(|m| m.to == "_INBOX.purge").unwrap();
    assert!(purge.payload.ends_with("\"success\":true,\"purged\":1}"), "{}", purge.payload);
}

#[test]
fn purges_take_filter_sequence_or_count() {
    let mut world = world_with("");
    for index in 0..6 {
        world.put(&format!("t.{}", index % 2), "", "x");
    }
    let head = "{\"type\":\"io.nats.jetstream.api.v1.stream_purge_response\",";
    for (body, expected) in [
        ("{\"filter\":\"zz\"}", "\"success\":true,\"purged\":0}"),
        ("{\"filter\":\"a..b\"}", "\"success\":true,\"purged\":0}"),
        ("{\"seq\":1}", "\"success\":true,\"purged\":0}"),
        (
            "{\"seq\":1,\"keep\":1}",
            "\"error\":{\"code\":400,\"err_code\":10003,\"description\":\"bad request\"},\
             \"purged\":0}",
        ),
        ("{\"keep\":5}", "\"success\":true,\"purged\":1}"),
        ("{\"filter\":\"t.0\",\"keep\":2}", "\"success\":true,\"purged\":0}"),
        ("{\"seq\":3}", "\"success\":true,\"purged\":1}"),
        ("{\"seq\":500}", "\"success\":true,\"purged\":4}"),
        ("garbage", "\"success\":true,\"purged\":0}"),
    ] {
        assert_eq!(world.api("STREAM.PURGE.T", body), format!("{head}{expected}"), "{body}");
    }
    assert_eq!(world.put("t.9", "", "x"), "{\"stream\":\"T\",\"seq\":500}");
    assert_eq!(error(&world.api("STREAM.PURGE.X", "")), "10059 404 stream not found");
}

#[test]
fn what_is_denied_or_sealed_stays() {
    let mut world = world_with(",\"deny_delete\":true,\"deny_purge\":true");
    world.put("t.1", "", "x");
    assert_eq!(
        error(&world.api("STREAM.MSG.DELETE.T", "{\"seq\":1}")),
        "10057 500 message delete not permitted"
    );
    assert_eq!(error(&world.api("STREAM.PURGE.T", "")), "10110 500 stream purge not permitted");
    let sealed = world.api(
        "STREAM.UPDATE.T",
        "{\"name\":\"T\",\"subjects\":[\"t.>\"],\"sealed\":true,\"deny_delete\":true,\
         \"deny_purge\":true}",
    );
    assert!(sealed.contains("\"discard\":\"new\"") && sealed.contains("\"sealed\":true"));
    let text = "10109 400 invalid operation on sealed stream";
    assert_eq!(error(&world.put("t.1", "", "x")), text);
    assert_eq!(error(&world.api("STREAM.PURGE.T", "")), text);
    assert_eq!(error(&world.api("STREAM.MSG.DELETE.T", "{\"seq\":9}")), text);
    assert!(world.api("STREAM.DELETE.T", "").ends_with("\"success\":true}"));
}

#[test]
fn deleting_a_message_names_why_it_cannot() {
    for (memory, expected) in [
        (
            false,
            [
                (1, ""),
                (1, "10057 500 no message found"),
                (3, ""),
                (3, "10043 400 sequence 3 not found"),
                (9, "10057 500 stream store EOF"),
                (0, "10057 500 no message found"),
            ],
        ),
        (
            true,
            [
                (1, ""),
                (1, "10043 400 sequence 1 not found"),
                (3, ""),
                (3, "10043 400 sequence 3 not found"),
                (9, "10043 400 sequence 9 not found"),
                (0, "10043 400 sequence 0 not found"),
            ],
        ),
    ] {
        let mut world = world_with(if memory { ",\"storage\":\"memory\"" } else { "" });
        for _ in 0..5 {
            world.put("t.1", "", "x");
        }
        for (seq, text) in expected {
            let reply = world.api("STREAM.MSG.DELETE.T", &format!("{{\"seq\":{seq}}}"));
            if text.is_empty() {
                assert!(reply.ends_with("delete_response\",\"success\":true}"), "{reply}");
            } else {
                assert_eq!(error(&reply), text, "memory {memory}, {seq}");
            }
        }
        assert_eq!(error(&world.api("STREAM.MSG.DELETE.T", "{}")), "10003 400 bad request");
        let info = world.api("STREAM.INFO.T", "{\"deleted_details\":true}");
        assert!(info.contains("\"num_deleted\":1,\"deleted\":[3],"), "{info}");
    }
}

#[test]
fn stream_info_lists_subjects_on_request() {
    let mut world = world_with("");
    for index in 0..5 {
        world.put(&format!("t.{}", index % 2), "", "x");
    }
    for (body, paging, subjects) in [
        (
            "{\"subjects_filter\":\">\"}",
            "\"total\":2,\"offset\":0,\"limit\":100000",
            "{\"t.0\":3,\"t.1\":2}",
        ),
        (
            "{\"subjects_filter\":\"t.1\"}",
            "\"total\":1,\"offset\":0,\"limit\":100000",
            "{\"t.1\":2}",
        ),
        (
            "{\"subjects_filter\":\">\",\"offset\":1}",
            "\"total\":2,\"offset\":1,\"limit\":100000",
            "{\"t.1\":2}",
        ),
        ("{\"subjects_filter\":\"zz\"}", "\"total\":0,\"offset\":0,\"limit\":0", ""),
        ("{\"subjects_filter\":\"a..b\"}", "\"total\":0,\"offset\":0,\"limit\":0", ""),
        ("{\"offset\":3}", "\"total\":0,\"offset\":0,\"limit\":0", ""),
    ] {
        let info = world.api("STREAM.INFO.T", body);
        assert!(info.contains(paging), "{body}: {info}");
        if subjects.is_empty() {
            assert!(!info.contains("\"subjects\":{"), "{body}: {info}");
        } else {
            let part = format!("\"num_subjects\":2,\"subjects\":{subjects},");
            assert!(info.contains(&part), "{body}: {info}");
        }
    }
    assert_eq!(
        world.api("STREAM.INFO.X", "{}"),
        "{\"type\":\"io.nats.jetstream.api.v1.stream_info_response\",\"error\":{\"code\":404,\
         \"err_code\":10059,\"description\":\"stream not found\"},\"total\":0,\"offset\":0,\
         \"limit\":0}"
    );
}

/// Six messages on `t.0`, `t.1`, `t.2` by turns; the fourth has a header, the third is gone.
fn world_to_read(rest: &str) -> World {
    let mut world = world_with(rest);
    for index in 0..8 {
        let headers = if index == 3 { "NATS/1.0\r\nA: b\r\n\r\n" } else { "" };
        world.put(&format!("t.{}", index % 3), headers, &format!("x{index}"));
        world.advance(1000);
    }
    world.api("STREAM.MSG.DELETE.T", "{\"seq\":3}");
    world
}

#[test]
fn message_get_finds_by_sequence_subject_and_time() {
    let mut world = world_to_read("");
    let head = "{\"type\":\"io.nats.jetstream.api.v1.stream_msg_get_response\",\"message\":";
    let fourth = "\"data\":\"eDM=\",\"time\":\"2026-11-24T10:00:03Z\"}}";
    let hdrs = "\"hdrs\":\"TkFUUy8xLjANCkE6IGINCg0K\",";
    for (body, subject_and_seq, rest) in [
        ("{\"seq\":4}", "\"t.0\",\"seq\":4", format!("{hdrs}{fourth}")),
        ("{\"seq\":4,\"no_hdr\":true}", "\"t.0\",\"seq\":4", fourth.into()),
    ] {
        let expected = format!("{head}{{\"subject\":{subject_and_seq},{rest}");
        assert_eq!(world.api("STREAM.MSG.GET.T", body), expected);
    }
    for (body, seq) in [
        ("{\"last_by_subj\":\"t.*\"}", 8),
        ("{\"next_by_subj\":\"t.1\"}", 2),
        ("{\"next_by_subj\":\"t.1\",\"seq\":3}", 5),
        ("{\"start_time\":\"2020-01-01T00:00:00Z\"}", 1),
        ("{\"start_time\":\"2026-11-24T10:00:02Z\"}", 4),
        ("{\"start_time\":\"2026-11-24T10:00:02Z\",\"next_by_subj\":\"t.2\"}", 6),
        ("{\"seq\":1,\"up_to_seq\":4}", 1),
    ] {
        let reply = world.api("STREAM.MSG.GET.T", body);
        assert!(reply.contains(&format!("\"seq\":{seq},")), "{body}: {reply}");
    }
    for (body, expected) in [
        ("{\"seq\":3}", "10037 404 no message found"),
        ("{\"last_by_subj\":\"t.9\"}", "10037 404 no message found"),
        ("{\"last_by_subj\":\"t..9\"}", "10037 404 no message found"),
        ("{\"start_time\":\"2030-01-01T00:00:00Z\"}", "10037 404 no message found"),
        ("{\"seq\":0}", "10003 400 bad request"),
        ("{}", "10003 400 bad request"),
        ("null", "10003 400 bad request"),
        ("{\"seq\":1,\"last_by_subj\":\"x\"}", "10003 400 bad request"),
        ("{\"start_time\":\"2020-01-01T00:00:00Z\",\"seq\":1}", "10003 400 bad request"),
        ("{\"seq\":1,\"batch\":1}", "10003 400 bad request"),
        ("{\"multi_last\":[\"t.1\"]}", "10003 400 bad request"),
        (
            "{\"start_time\":\"x\"}",
            "10025 400 invalid JSON: parsing time \"x\" as \"2006-01-02T15:04:05Z07:00\": \
             cannot parse \"x\" as \"2006\"",
        ),
    ] {
        assert_eq!(error(&world.api("STREAM.MSG.GET.T", body)), expected, "{body}");
    }
    assert_eq!(error(&world.api("STREAM.MSG.GET.X", "{\"seq\":1}")), "10059 404 stream not found");
}

/// Headers and payloads of the answers to a direct get.
fn direct(world: &mut World, form: &str, body: &str) -> Vec<(String, String)> {
    let answers = world.ask(&format!("$JS.API.DIRECT.GET.T{form}"), "", body);
    answers.into_iter().map(|msg| (msg.headers, msg.payload)).collect()
}

#[test]
fn direct_get_of_one_message_adds_its_headers_or_gives_a_status() {
    let mut world = world_to_read(",\"allow_direct\":true");
    let fourth = "NATS/1.0\r\nA: b\r\nNats-Stream: T\r\nNats-Subject: t.0\r\nNats-Sequence: 4\r\n\
                  Nats-Time-Stamp: 2026-11-24T10:00:03Z\r\n\r\n";
    assert_eq!(direct(&mut world, "", "{\"seq\":4}"), [(fourth.into(), "x3".into())]);
    assert_eq!(
        direct(&mut world, "", "{\"seq\":4,\"no_hdr\":true}"),
        [(String::new(), "x3".into())]
    );
    let eighth = "NATS/1.0\r\nNats-Stream: T\r\nNats-Subject: t.1\r\nNats-Sequence: 8\r\n\
                  Nats-Time-Stamp: 2026-11-24T10:00:07Z\r\n\r\n";
    for (form, body) in [
        ("", "{\"last_by_subj\":\"t.1\"}"),
        (".t.1", ""),
        (".t.1", "{}"),
        (".t.*", ""),
        (".t.1", "{\"x\":1}"),
    ] {
        assert_eq!(direct(&mut world, form, body), [(eighth.into(), "x7".into())], "{body}");
    }
    for (form, body, status) in [
        ("", "", "408 Empty Request"),
        ("", "{}", "408 Empty Request"),
        ("", "null", "408 Empty Request"),
        ("", "{\"seq\":0}", "408 Empty Request"),
        ("", "{\"batch\":2}", "408 Empty Request"),
        ("", "{\"multi_last\":[]}", "408 Empty Request"),
        ("", "x", "408 Malformed Request"),
        ("", "{\"seq\":\"x\"}", "408 Malformed Request"),
        ("", "{\"seq\":3}", "404 Message Not Found"),
        ("", "{\"seq\":99}", "404 Message Not Found"),
        ("", "{\"last_by_subj\":\"t..9\"}", "404 Message Not Found"),
        ("", "{\"seq\":1,\"last_by_subj\":\"t.1\"}", "408 Bad Request"),
        ("", "{\"batch\":2,\"last_by_subj\":\"t.1\"}", "408 Bad Request"),
        (".t.9", "", "404 Message Not Found"),
        (".t.1", "{\"seq\":1}", "408 Bad Request"),
        (".t.1", "{\"batch\":1}", "408 Bad Request"),
        (".t.1", "x", "408 Malformed Request"),
    ] {
        let expected = (format!("NATS/1.0 {status}\r\n\r\n"), String::new());
        assert_eq!(direct(&mut world, form, body), [expected], "{form} {body}");
    }
    let level =
        world.ask("$JS.API.DIRECT.GET.T.t.1", "NATS/1.0\r\nNats-Required-Api-Level: 9\r\n\r\n", "");
    assert_eq!(level[0].headers, "NATS/1.0 412 Required Api Level\r\n\r\n");
}

#[test]
fn batched_direct_get_counts_down_and_ends_with_eob() {
    let mut world = world_to_read(",\"allow_direct\":true");
    let msg = |subject: &str, seq: u64, second: u64, pending: u64, last: u64| {
        format!(
            "NATS/1.0\r\nNats-Stream: T\r\nNats-Subject: {subject}\r\nNats-Sequence: {seq}\r\n\
             Nats-Time-Stamp: 2026-11-24T10:00:0{second}Z\r\nNats-Num-Pending: {pending}\r\n\
             Nats-Last-Sequence: {last}\r\n\r\n"
        )
    };
    let eob = |pending: u64, last: u64, up_to: &str| {
        format!(
            "NATS/1.0 204 EOB\r\nNats-Num-Pending: {pending}\r\nNats-Last-Sequence: {last}\r\n\
             {up_to}\r\n"
        )
    };
    let heads = |world: &mut World, body: &str| -> Vec<String> {
        direct(world, "", body).into_iter().map(|(headers, _)| headers).collect()
    };
    assert_eq!(
        heads(&mut world, "{\"batch\":2,\"seq\":1}"),
        [msg("t.0", 1, 0, 6, 0), msg("t.1", 2, 1, 5, 1), eob(5, 2, "")]
    );
    assert_eq!(
        heads(&mut world, "{\"batch\":9,\"next_by_subj\":\"t.1\"}"),
        [msg("t.1", 2, 1, 2, 0), msg("t.1", 5, 4, 1, 2), msg("t.1", 8, 7, 0, 5), eob(0, 8, "")]
    );
    assert_eq!(
        heads(&mut world, "{\"batch\":9,\"seq\":1,\"max_bytes\":3}"),
        [msg("t.0", 1, 0, 6, 0), eob(6, 1, "")]
    );
    assert_eq!(
        heads(&mut world, "{\"batch\":2,\"start_time\":\"2026-11-24T10:00:05Z\"}"),
        [msg("t.2", 6, 5, 2, 0), msg("t.0", 7, 6, 1, 6), eob(1, 7, "")]
    );
    assert_eq!(heads(&mut world, "{\"batch\":-1,\"seq\":1}"), [eob(7, 0, "")]);
    assert_eq!(
        heads(&mut world, "{\"batch\":2,\"seq\":3,\"no_hdr\":true}"),
        [String::new(), String::new(), eob(3, 5, "")]
    );
    for body in ["{\"batch\":9,\"seq\":50}", "{\"batch\":9,\"next_by_subj\":\"t.9\"}"] {
        assert_eq!(heads(&mut world, body), ["NATS/1.0 404 Message Not Found\r\n\r\n"]);
    }
    let up_to = "Nats-UpTo-Sequence: 8\r\n";
    assert_eq!(
        heads(&mut world, "{\"multi_last\":[\"t.*\"]}"),
        [msg("t.2", 6, 5, 2, 0), msg("t.0", 7, 6, 1, 6), msg("t.1", 8, 7, 0, 7), eob(0, 8, up_to)]
    );
    assert_eq!(
        heads(&mut world, "{\"multi_last\":[\"t.1\",\"t.2\",\"t.1\"],\"batch\":1}"),
        [msg("t.2", 6, 5, 1, 0), eob(1, 6, up_to)]
    );
    assert_eq!(
        heads(&mut world, "{\"multi_last\":[\"t.*\"],\"seq\":7}"),
        [msg("t.0", 7, 6, 1, 0), msg("t.1", 8, 7, 0, 7), eob(0, 8, up_to)]
    );
    let fourth = msg("t.0", 4, 3, 1, 0).replace("NATS/1.0\r\n", "NATS/1.0\r\nA: b\r\n");
    for as_of in ["\"up_to_seq\":5", "\"up_to_time\":\"2026-11-24T10:00:04Z\""] {
        assert_eq!(
            heads(&mut world, &format!("{{\"multi_last\":[\"t.*\"],{as_of}}}")),
            [fourth.clone(), msg("t.1", 5, 4, 0, 4), eob(0, 5, "Nats-UpTo-Sequence: 5\r\n")],
            "{as_of}"
        );
    }
    for (rest, status) in [
        ("[\"zz\"]", "404 No Results"),
        ("[\"t..*\"]", "404 No Results"),
        ("[\"t.*\"],\"up_to_seq\":99", "404 No Results"),
        ("[\"t.*\"],\"up_to_time\":\"2020-01-01T00:00:00Z\"", "404 No Results"),
        ("[\"t.*\"],\"up_to_seq\":5,\"up_to_time\":\"2020-01-01T00:00:00Z\"", "408 Bad Request"),
        ("[\"t.*\"],\"last_by_subj\":\"t.1\"", "408 Bad Request"),
    ] {
        assert_eq!(
            heads(&mut world, &format!("{{\"multi_last\":{rest}}}")),
            [format!("NATS/1.0 {status}\r\n\r\n")],
            "{rest}"
        );
    }
}

#[test]
fn without_allow_direct_nobody_listens_for_direct_gets() {
    let mut world = world_with("");
    assert!(world.ask("$JS.API.DIRECT.GET.T.t.1", "", "").is_empty());
    let direct = |world: &World| {
        world.host.subscriptions.iter().filter(|(_, t)| matches!(t, Target::DirectGet(_))).count()
    };
    assert_eq!(direct(&world), 0);
    let body = "{\"name\":\"T\",\"subjects\":[\"t.>\"],\"allow_direct\":true}";
    world.api("STREAM.UPDATE.T", body);
    assert_eq!(direct(&world), 2);
    world.put("t.1", "", "x");
    assert!(!world.api("INFO", "").contains("\"storage\":0,"));
    world.api("STREAM.DELETE.T", "");
    assert!(world.api("INFO", "").contains("\"storage\":0,"));
    assert_eq!(direct(&world), 0);
}

#[test]
fn cluster_endpoints_say_so_and_unknown_ones_are_silent() {
    let mut world = world();
    for endpoint in [
        "STREAM.LEADER.STEPDOWN.X",
        "STREAM.PEER.REMOVE.X",
        "STREAM.PEER.EVACUATE.X",
        "STREAM.CANCEL_MOVE.X",
        "CONSUMER.LEADER.STEPDOWN.X.C",
    ] {
        assert_eq!(
            error(&world.api(endpoint, "x")),
            "10010 503 JetStream clustering support required",
            "{endpoint}"
        );
    }
    for endpoint in ["STREAM.BOGUS.X", "STREAM.INFO.a.b", "META.LEADER.STEPDOWN", "STREAM"] {
        assert_eq!(world.api(endpoint, ""), "", "{endpoint}");
    }
}

#[test]
fn a_required_level_above_ours_is_refused_everywhere() {
    let mut world = world();
    for endpoint in ["INFO", "STREAM.NAMES", "STREAM.CREATE.X", "STREAM.INFO.X", "STREAM.PURGE.X"] {
        for (level, refused) in [("6", true), ("x", true), ("5", false)] {
            let headers = format!("NATS/1.0\r\nNats-Required-Api-Level: {level}\r\n\r\n");
            let replies = world.ask(&format!("$JS.API.{endpoint}"), &headers, "");
            let text = error(&replies[0].payload);
            let expected = "10185 412 JetStream minimum api level required";
            assert_eq!(text == expected, refused, "{endpoint} {level}: {text}");
        }
    }
}

#[test]
fn old_messages_go_when_their_time_has_come() {
    let mut world = world_with(",\"max_age\":1000000000");
    world.put("t.1", "", "x");
    world.advance(600);
    world.put("t.1", "", "y");
    assert_eq!(
        world.js.poll_timeout(),
        Some(world.now.instant + Duration::from_millis(400)),
        "exactly when the first is due"
    );
    world.advance(400);
    assert!(world.api("STREAM.INFO.T", "").contains("\"messages\":1,"));
    world.advance(600);
    let info = world.api("STREAM.INFO.T", "");
    assert!(info.contains("\"messages\":0,\"bytes\":0,\"first_seq\":3,"), "{info}");
    assert_eq!(world.js.poll_timeout(), None);
    assert!(world.api("INFO", "").contains("\"storage\":0,"));
}

#[test]
fn a_sweep_the_store_does_not_answer_is_asked_for_again() {
    let mut world = world_with(",\"max_age\":1000000000");
    world.put("t.1", "", "x");
    world.now.instant = world.now.instant + Duration::from_secs(1);
    world.now.wall = world.now.wall + Duration::from_secs(1);
    world.js.handle_timeout(world.now, &mut world.host);
    assert_eq!(world.host.requests.len(), 1);
    world.host.requests.clear();
    let again = world.js.poll_timeout().unwrap();
    assert_eq!(again, world.now.instant + Duration::from_secs(5));
    world.advance(5000);
    assert!(world.api("STREAM.INFO.T", "").contains("\"messages\":0,"));
}

#[test]
fn streams_come_back_after_a_restart() {
    use crate::jetstream::JetStream;
    use crate::jetstream::storage::StoreRequest;
    let mut world = world();
    world.publish(
        "$JS.API.STREAM.CREATE.B",
        "_INBOX.test",
        "",
        "{\"name\":\"B\",\"subjects\":[\"b.>\"]}",
    );
    let Some(StoreRequest::CreateStream { stream, record, .. }) = world.host.requests.pop_front()
    else {
        panic!("no create");
    };
    let mut again = World::new(Options::default());
    again.js = JetStream::new(Options::default(), 8);
    again.host.subscriptions.clear();
    let state = StreamState { last_seq: 5, first_seq: 6, ..StreamState::default() };
    let found = |stream, record: &[u8]| RecoveredStream {
        stream,
        record: record.into(),
        state: state.clone(),
        consumers: Vec::new(),
        origins: Vec::new(),
    };
    let reply = StoreReply::Recovered {
        streams: Vec::from([
            found(stream, &record),
            found(crate::id::StreamId(7), &record),
            found(crate::id::StreamId(8), b"\xffgarbage"),
        ]),
        next_stream: 9,
        last_ts: Timestamp(0),
    };
    again.js.handle_store(again.now, reply, &mut again.host);
    let info = again.api("STREAM.INFO.B", "");
    assert!(info.contains("\"first_seq\":6,") && info.contains("\"last_seq\":5,"), "{info}");
    assert!(info.contains("\"subjects\":[\"b.\\u003e\"]"), "{info}");
    assert_eq!(again.host.notices.len(), 2, "{:?}", again.host.notices);
    assert!(again.host.subscriptions.contains(&(b"b.>".to_vec(), Target::Stream(stream))));
}

#[test]
fn advisories_go_to_whoever_listens() {
    let mut world = World::new(Options {
        server_name: "S1".into(),
        domain: Some("edge1".into()),
        ..Options::default()
    });
    world.host.interest.push(b"$JS.EVENT.ADVISORY.>".to_vec());
    world.api("STREAM.CREATE.T", "{\"name\":\"T\"}");
    let advisories: Vec<_> =
        world.host.delivered.iter().filter(|m| m.to.starts_with("$JS.EVENT")).collect();
    assert_eq!(advisories.len(), 2);
    let created = &advisories[0];
    assert_eq!(created.to, "$JS.EVENT.ADVISORY.STREAM.CREATED.T");
    assert!(
        created
            .payload
            .starts_with("{\"type\":\"io.nats.jetstream.advisory.v1.stream_action\",\"id\":\"")
    );
    assert!(created.payload.ends_with(
        "\"timestamp\":\"2026-11-24T10:00:00Z\",\"stream\":\"T\",\"action\":\"create\",\
         \"domain\":\"edge1\"}"
    ));
    let audit = &advisories[1];
    assert_eq!(audit.to, "$JS.EVENT.ADVISORY.API");
    assert!(audit.payload.contains(
        "\"subject\":\"$JS.API.STREAM.CREATE.T\",\"request\":\"{\\\"name\\\":\\\"T\\\"}\",\
         \"response\":\"{\\\"type\\\":\\\"io.nats."
    ));
    world.api("STREAM.UPDATE.T", "{\"name\":\"T\"}");
    assert!(world.host.delivered.iter().any(|m| m.payload.contains("\"action\":\"modify\"")));
    world.api("STREAM.DELETE.T", "");
    assert!(world.host.delivered.iter().any(|m| m.payload.contains("\"action\":\"delete\"")));
}

#[test]
fn a_bucket_works_as_clients_use_it() {
    let mut world = world();
    let reply = world.api(
        "STREAM.CREATE.KV_b",
        "{\"name\":\"KV_b\",\"subjects\":[\"$KV.b.>\"],\"max_msgs_per_subject\":2,\
         \"discard\":\"new\",\"allow_rollup_hdrs\":true,\"deny_delete\":true,\
         \"allow_direct\":true,\"allow_msg_ttl\":true,\"duplicate_window\":120000000000,\
         \"max_age\":0,\"storage\":\"file\",\"num_replicas\":1,\"metadata\":null}",
    );
    assert!(reply.contains("did_create"), "{reply}");
    let expect =
        |seq: u64| format!("NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: {seq}\r\n\r\n");
    assert!(world.put("$KV.b.k", &expect(0), "1").contains("\"seq\":1"));
    assert_eq!(error(&world.put("$KV.b.k", &expect(0), "1")), "10071 400 wrong last sequence: 1");
    assert!(world.put("$KV.b.k", &expect(1), "2").contains("\"seq\":2"));
    let get = world.ask("$JS.API.DIRECT.GET.KV_b.$KV.b.k", "", "");
    assert_eq!(get[0].payload, "2");
    let purge = "NATS/1.0\r\nKV-Operation: PURGE\r\nNats-Rollup: sub\r\n\r\n";
    assert!(world.put("$KV.b.k", purge, "").contains("\"seq\":3"));
    let info = world.api("STREAM.INFO.KV_b", "");
    assert!(info.contains("\"messages\":1,"), "{info}");
}

#[test]
fn hostile_requests_never_break_the_server() {
    let mut world = world_with(",\"allow_direct\":true");
    let deep = "[".repeat(100_000);
    let bodies = [
        "\u{0}",
        "{",
        "[]",
        "{\"name\":\"T\",\"subjects\":[\"\u{0}\"]}",
        &deep,
        "{\"seq\":18446744073709551615}",
        "{\"keep\":18446744073709551615}",
        "{\"batch\":9223372036854775807,\"seq\":18446744073709551615}",
        "{\"batch\":-9223372036854775808,\"seq\":1,\"max_bytes\":-1}",
        "{\"offset\":9223372036854775807,\"subjects_filter\":\">\"}",
        "{\"next_by_subj\":\">\",\"seq\":18446744073709551615}",
        "{\"multi_last\":[\">\"],\"up_to_time\":\"9999-12-31T23:59:59Z\"}",
        "{\"name\":\"T\",\"subjects\":[\"t.>\"],\"first_seq\":18446744073709551615}",
        "{\"name\":\"X\",\"subjects\":[\"x\"],\"max_age\":9223372036854775807}",
    ];
    for endpoint in [
        "INFO",
        "STREAM.NAMES",
        "STREAM.LIST",
        "STREAM.INFO.T",
        "STREAM.CREATE.T",
        "STREAM.CREATE.X",
        "STREAM.UPDATE.T",
        "STREAM.PURGE.T",
        "STREAM.MSG.GET.T",
        "STREAM.MSG.DELETE.T",
        "DIRECT.GET.T",
        "DIRECT.GET.T.t.1",
        "STREAM.RESTORE.T",
        "STREAM.SNAPSHOT.T",
        "STREAM.DELETE.T",
        "STREAM.CREATE.",
        "STREAM..",
        "",
    ] {
        for body in bodies {
            world.ask(&format!("$JS.API.{endpoint}"), "", body);
            world.put("t.1", "NATS/1.0 garbage\r\nNats-\r\n: x\r\n", "x");
        }
    }
    assert!(!world.api("STREAM.INFO.T", "").is_empty());
}
