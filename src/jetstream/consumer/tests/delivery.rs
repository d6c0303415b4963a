//! Who gets which message, and what acknowledging it does.

use super::*;

#[test]
fn a_message_comes_with_its_stored_subject_and_an_ack_subject() {
    let mut world = World::new();
    world.publish(&["s.a", "s.b"]);
    let created = world.create("C", EXPLICIT);
    assert_eq!(created["num_pending"], 2, "{created}");
    assert_eq!(created["config"]["max_waiting"], 512);
    let messages = world.next("C", r#"{"batch":1,"expires":1000000000}"#);
    assert_eq!(messages.len(), 1);
    assert_eq!((messages[0].subject.as_str(), messages[0].payload.as_str()), ("s.a", "x"));
    let timestamp = world.store.messages[&1].2.0;
    assert_eq!(messages[0].reply, alloc::format!("$JS.ACK.S.C.1.1.1.{timestamp}.1"));
    let info = world.info("C");
    assert_eq!(info["delivered"]["consumer_seq"], 1);
    assert_eq!(info["num_ack_pending"], 1);
    assert_eq!(info["num_pending"], 1);
}

#[test]
fn requests_take_turns() {
    let mut world = World::new();
    world.create("C", EXPLICIT);
    for (reply, batch) in [("A", 3), ("B", 3), ("D", 1)] {
        world.next_to("C", reply, &alloc::format!(r#"{{"batch":{batch},"expires":9000000000}}"#));
    }
    assert_eq!(world.info("C")["num_waiting"], 3);
    world.publish(&["s.a"; 7]);
    let order: String = world.host.sent.iter().map(|sent| sent.to.as_str()).collect();
    assert_eq!(order, "ABDABAB");
}

#[test]
fn requests_end_with_the_status_of_the_reference_server() {
    let mut world = World::new();
    world.create("C", EXPLICIT);
    assert_eq!(seen(&world.next("C", r#"{"batch":2,"no_wait":true}"#)), "404 No Messages");
    world.publish(&["s.a"]);
    let got = world.next("C", r#"{"batch":2,"no_wait":true}"#);
    assert_eq!(seen(&got), "1, 404 No Messages");
    let got = world.next("C", r#"{"batch":2,"expires":10000000,"max_bytes":500}"#);
    assert_eq!(seen(&got), "");
    world.publish(&["s.a"]);
    world.pass(20);
    let got = world.take("I");
    assert_eq!(seen(&got), "2, 408 Request Timeout");
    let size = got[0].subject.len() + got[0].reply.len() + got[0].payload.len();
    assert_eq!(
        got[1].headers,
        alloc::format!(
            "NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 1\r\nNats-Pending-Bytes: {}\r\n\r\n",
            500 - size
        )
    );
    world.publish(&["s.a"; 3]);
    assert_eq!(seen(&world.next("C", r#"{"max_bytes":5}"#)), "409 Message Size Exceeds MaxBytes");
    assert_eq!(seen(&world.next("C", r#"{"batch":1,"max_bytes":500}"#)), "3, 409 Batch Completed");
    assert_eq!(
        seen(&world.next("C", "{\"batch\":\"x\"}")),
        "400 Bad Request - json: cannot unmarshal string into Go struct field .batch of type int"
    );
    assert_eq!(seen(&world.next("C", "")), "4");
}

#[test]
fn what_is_not_acknowledged_comes_again_until_max_deliver() {
    let mut world = World::new();
    world.host.advisories = true;
    world.create("C", r#""ack_policy":"explicit","ack_wait":1000000000,"max_deliver":2"#);
    world.publish(&["s.a", "s.a"]);
    assert_eq!(seen(&world.next("C", "2")), "1, 2");
    world.pass(1100);
    world.publish(&["s.a"]);
    let again = world.next("C", "3");
    assert_eq!(seen(&again), "1(x2), 2(x2), 3", "redeliveries first, in stream order");
    world.ack(&again[1], "+ACK");
    world.ack(&again[2], "");
    world.pass(1100);
    let events = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.S.C";
    assert!(world.take(events).is_empty(), "told when its turn comes");
    assert_eq!(seen(&world.next("C", r#"{"no_wait":true}"#)), "404 No Messages");
    let advisory = world.take(events);
    assert_eq!(advisory.len(), 1);
    let advisory: Value = serde_json::from_str(&advisory[0].payload).unwrap();
    assert_eq!(advisory["type"], "io.nats.jetstream.advisory.v1.max_deliver");
    assert_eq!(
        (advisory["stream_seq"].clone(), advisory["deliveries"].clone()),
        (1.into(), 2.into())
    );
    let info = world.info("C");
    assert_eq!(info["num_ack_pending"], 0);
    assert_eq!(info["num_redelivered"], 1);
    assert_eq!(info["ack_floor"]["stream_seq"], 3);
}

#[test]
fn a_nak_brings_the_message_back_now_or_later() {
    let mut world = World::new();
    world.create("C", EXPLICIT);
    world.publish(&["s.a", "s.a", "s.a"]);
    let got = world.next("C", "3");
    world.ack(&got[2], "-NAK");
    world.ack(&got[0], "-NAK");
    world.ack(&got[1], "-NAK {\"delay\": 500000000}");
    assert_eq!(seen(&world.next("C", "5")), "3(x2), 1(x2)");
    world.pass(400);
    assert_eq!(seen(&world.take("I")), "");
    world.pass(200);
    assert_eq!(seen(&world.take("I")), "2(x2)");
}

#[test]
fn term_and_in_progress_do_what_they_say() {
    let mut world = World::new();
    world.create("C", r#""ack_policy":"explicit","ack_wait":1000000000"#);
    world.publish(&["s.a", "s.a"]);
    let got = world.next("C", "2");
    world.ack(&got[0], "+TERM bad");
    world.pass(800);
    world.ack(&got[1], "+WPI");
    world.pass(800);
    assert_eq!(seen(&world.next("C", r#"{"no_wait":true}"#)), "404 No Messages");
    world.pass(300);
    assert_eq!(seen(&world.next("C", r#"{"no_wait":true}"#)), "2(x2)");
}

#[test]
fn a_confirmed_ack_is_answered_after_it_is_durable() {
    let mut world = World::new();
    world.create("C", EXPLICIT);
    world.publish(&["s.a"]);
    let got = world.next("C", "1");
    let (now, subject) = (world.now, got[0].reply.clone());
    let target = world.host.subscriptions.iter().find_map(|(_, target)| match target {
        Target::Ack(id) => Some(*id),
        _ => None,
    });
    let msg = Inbound { subject: subject.as_bytes(), reply: b"A", headers: b"", payload: b"+ACK" };
    world.js.handle_ack(now, target.unwrap(), msg, &mut world.host);
    world.js.flush(now, &mut world.host);
    assert!(world.take("A").is_empty(), "not before the store has answered");
    world.settle();
    assert_eq!(world.take("A").len(), 1);
    world.call(&subject, "A", "", "+ACK");
    assert_eq!(world.take("A").len(), 1, "a second one is answered too");
    let mut world = world.restarted();
    let info = world.info("C");
    assert_eq!(info["ack_floor"]["stream_seq"], 1, "{info}");
    assert_eq!(info["num_ack_pending"], 0);
}

#[test]
fn a_confirmed_ack_is_not_answered_when_the_disk_fails() {
    let mut world = World::new();
    world.create("C", EXPLICIT);
    world.publish(&["s.a"]);
    let got = world.next("C", "1");
    world.store.broken = true;
    world.call(&got[0].reply, "A", "", "+ACK");
    assert!(world.take("A").is_empty());
    assert!(matches!(world.host.notices.last(), Some(JsNotice::Warn(_))));
}

#[test]
fn next_in_an_ack_asks_for_more() {
    let mut world = World::new();
    world.create("C", EXPLICIT);
    world.publish(&["s.a", "s.a", "s.a"]);
    let got = world.next("C", "1");
    world.call(&got[0].reply, "I", "", "+NXT 2");
    assert_eq!(seen(&world.take("I")), "2, 3");
    assert_eq!(world.info("C")["ack_floor"]["stream_seq"], 1);
}

#[test]
fn max_ack_pending_stalls_and_an_ack_resumes() {
    let mut world = World::new();
    world.create("C", r#""ack_policy":"explicit","max_ack_pending":2"#);
    world.publish(&["s.a"; 4]);
    let got = world.next("C", r#"{"batch":4,"expires":9000000000}"#);
    assert_eq!(seen(&got), "1, 2");
    world.ack(&got[0], "");
    assert_eq!(seen(&world.take("I")), "3");
}

#[test]
fn an_ack_of_all_settles_what_came_before() {
    let mut world = World::new();
    world.create("C", r#""ack_policy":"all""#);
    world.publish(&["s.a"; 4]);
    let got = world.next("C", "4");
    world.ack(&got[2], "");
    let info = world.info("C");
    assert_eq!(info["num_ack_pending"], 1);
    assert_eq!(info["ack_floor"]["consumer_seq"], 3);
}

#[test]
fn filters_select_and_num_pending_counts_only_those() {
    let mut world = World::new();
    world.publish(&["s.a", "s.b", "s.c", "s.a"]);
    let created = world.create("C", r#""ack_policy":"explicit","filter_subjects":["s.a","s.c"]"#);
    assert_eq!(created["num_pending"], 3);
    world.publish(&["s.b", "s.c"]);
    assert_eq!(world.info("C")["num_pending"], 4);
    let got = world.next("C", "9");
    assert_eq!(seen(&got), "1, 3, 4, 6");
    assert!(got[3].reply.ends_with(".0"), "the last one shows nothing pending");
    assert_eq!(world.info("C")["num_pending"], 0);
}

#[test]
fn the_last_message_of_each_subject_comes_first() {
    let mut world = World::new();
    world.publish(&["s.a", "s.b", "s.a", "s.c"]);
    let created = world.create(
        "C",
        r#""ack_policy":"explicit","deliver_policy":"last_per_subject","filter_subject":"s.>""#,
    );
    assert_eq!(created["num_pending"], 3);
    assert_eq!(created["delivered"]["stream_seq"], 1);
    world.publish(&["s.b"]);
    let got = world.next("C", "9");
    assert_eq!(seen(&got), "2, 3, 4, 5");
    assert!(got[0].reply.ends_with(".3"));
}

#[test]
fn each_deliver_policy_starts_where_it_says() {
    let mut world = World::new();
    world.publish(&["s.a", "s.b", "s.a", "s.c"]);
    let time = Timestamp(world.store.messages[&3].2.0).rfc3339();
    for (policy, expected) in [
        (r#""deliver_policy":"all""#.to_string(), "1, 2, 3, 4"),
        (r#""deliver_policy":"last""#.to_string(), "4"),
        (r#""deliver_policy":"last","filter_subject":"s.a""#.to_string(), "3"),
        (r#""deliver_policy":"new""#.to_string(), ""),
        (r#""deliver_policy":"by_start_sequence","opt_start_seq":3"#.to_string(), "3, 4"),
        (r#""deliver_policy":"by_start_sequence","opt_start_seq":9"#.to_string(), ""),
        (alloc::format!(r#""deliver_policy":"by_start_time","opt_start_time":"{time}""#), "3, 4"),
    ] {
        world.create("C", &alloc::format!(r#""ack_policy":"none",{policy}"#));
        assert_eq!(seen(&world.next("C", "9")), expected, "{policy}");
        world.api("CONSUMER.DELETE.S.C", "");
        world.take("I");
    }
}

#[test]
fn headers_only_leaves_the_payload_out() {
    let mut world = World::new();
    world.create("C", r#""ack_policy":"none","headers_only":true"#);
    world.publish(&["s.a"]);
    let got = world.next("C", "1");
    assert_eq!(got[0].payload, "");
    assert_eq!(got[0].headers, "NATS/1.0\r\nNats-Msg-Size: 1\r\n\r\n");
}

#[test]
fn a_request_nobody_waits_for_is_dropped_and_costs_no_message() {
    let mut world = World::new();
    world.create("C", EXPLICIT);
    world.next_to("C", "I", r#"{"expires":9000000000}"#);
    world.host.deaf.insert("I".into());
    world.publish(&["s.a"]);
    let info = world.info("C");
    assert_eq!(
        (info["num_waiting"].clone(), info["num_ack_pending"].clone()),
        (0.into(), 0.into())
    );
    world.host.deaf.clear();
    assert_eq!(seen(&world.next("C", "1")), "1");
}

#[test]
fn a_young_request_behind_a_leaf_is_kept_until_its_interest_arrives() {
    let mut world = World::new();
    world.host.leafs = true;
    world.create("C", EXPLICIT);
    world.publish(&["s.a"]);
    world.host.deaf.insert("I".into());
    world.next_to("C", "I", r#"{"expires":9000000000}"#);
    world.pass(300);
    world.host.deaf.clear();
    world.pass(100);
    assert_eq!(seen(&world.take("I")), "1");
}

#[test]
fn a_slow_receiver_leaves_the_backlog_in_the_store() {
    let mut world = World::new();
    world.create("C", EXPLICIT);
    world.publish(&["s.a"]);
    world.host.slow.insert("I".into());
    assert_eq!(seen(&world.next("C", r#"{"expires":9000000000}"#)), "");
    world.host.slow.clear();
    world.js.handle_drained(world.now, &mut world.host);
    world.settle();
    assert_eq!(seen(&world.take("I")), "1");
}

#[test]
fn a_removed_message_is_neither_delivered_nor_awaited() {
    let mut world = World::new();
    world.create("C", EXPLICIT);
    world.publish(&["s.a"; 4]);
    world.next("C", "2");
    for seq in [2, 3] {
        world.api("STREAM.MSG.DELETE.S", &alloc::format!(r#"{{"seq":{seq}}}"#));
    }
    let info = world.info("C");
    assert_eq!(
        (info["num_ack_pending"].clone(), info["num_pending"].clone()),
        (1.into(), 1.into())
    );
    assert_eq!(seen(&world.next("C", "2")), "4");
    world.api("STREAM.PURGE.S", "");
    let info = world.info("C");
    assert_eq!(
        (info["num_ack_pending"].clone(), info["num_pending"].clone()),
        (0.into(), 0.into())
    );
    assert_eq!(info["ack_floor"]["stream_seq"], 4);
}

#[test]
fn a_durable_consumer_survives_a_restart() {
    let mut world = World::new();
    world.create("C", EXPLICIT);
    world.publish(&["s.a"; 3]);
    let got = world.next("C", "2");
    world.ack(&got[0], "");
    world.pass(300);
    let mut world = world.restarted();
    let info = world.info("C");
    assert_eq!(info["ack_floor"]["stream_seq"], 1);
    assert_eq!(
        (info["num_ack_pending"].clone(), info["num_pending"].clone()),
        (1.into(), 1.into())
    );
    assert_eq!(seen(&world.next("C", "1")), "3");
    world.pass(31_000);
    assert_eq!(seen(&world.next("C", "2")), "2(x2), 3(x2)");
}

#[test]
fn original_pace_and_rate_limits_hold_messages_back() {
    let mut world = World::new();
    world.publish(&["s.a"]);
    world.now.wall = world.now.wall + Duration::from_secs(2);
    world.publish(&["s.a"]);
    world.create("C", r#""ack_policy":"none","replay_policy":"original""#);
    assert_eq!(seen(&world.next("C", "2")), "1");
    world.pass(1900);
    assert_eq!(seen(&world.take("I")), "");
    world.pass(200);
    assert_eq!(seen(&world.take("I")), "2");
    world.create("P", r#""ack_policy":"none","deliver_subject":"d","rate_limit_bps":8000000"#);
    world.api("CONSUMER.DELETE.S.C", "");
    world.listen("d", true);
    world.take("d");
    let payload = "y".repeat(900_000);
    for _ in 0..3 {
        world.call("s.a", "", "", &payload);
    }
    assert_eq!(world.take("d").len(), 1, "the burst holds one");
    world.pass(1000);
    assert_eq!(world.take("d").len(), 1);
}
