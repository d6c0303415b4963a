//! What is asked about consumers besides messages.

use super::*;

#[test]
fn limits_of_a_consumer_refuse_larger_requests() {
    let mut world = World::new();
    world.create(
        "C",
        r#""ack_policy":"explicit","max_batch":2,"max_expires":2000000000,"max_bytes":9,"max_waiting":1"#,
    );
    for (body, status) in [
        (r#"{"batch":3}"#, "409 Exceeded MaxRequestBatch of 2"),
        (r#"{"batch":2,"expires":2000000001}"#, "409 Exceeded MaxRequestExpires of 2s"),
        (
            r#"{"batch":2,"expires":2000000000,"max_bytes":10}"#,
            "409 Exceeded MaxRequestMaxBytes of 9",
        ),
        (r#"{"batch":2,"expires":2000000000}"#, ""),
        (r#"{"batch":2,"expires":2000000000}"#, "409 Exceeded MaxWaiting"),
        (r#"{"batch":2,"expires":2000000000,"idle_heartbeat":100000000}"#, ""),
    ] {
        assert_eq!(seen(&world.next("C", body)), status, "{body}");
    }
}

#[test]
fn create_is_idempotent_and_update_replaces() {
    let mut world = World::new();
    assert_eq!(world.create("C", EXPLICIT)["error"], Value::Null);
    assert_eq!(world.create("C", EXPLICIT)["error"], Value::Null);
    let body = |action: &str, config: &str| {
        alloc::format!(r#"{{"stream_name":"S","action":"{action}","config":{{{config}}}}}"#)
    };
    let changed = alloc::format!(r#"{EXPLICIT},"max_deliver":5"#);
    let reply = world.api("CONSUMER.CREATE.S.C", &body("create", &changed));
    assert_eq!(reply["error"]["err_code"], 10148);
    let reply = world.api("CONSUMER.CREATE.S.C", &body("update", &changed));
    assert_eq!(reply["config"]["max_deliver"], 5, "{reply}");
    let reply = world.api("CONSUMER.CREATE.S.C", &body("", EXPLICIT));
    assert_eq!(reply["config"]["max_deliver"], -1);
    let reply = world.api("CONSUMER.CREATE.S.D", &body("update", r#""ack_policy":"all""#));
    assert_eq!(reply["error"]["err_code"], 10149);
    let reply = world.api("CONSUMER.CREATE.S.C", &body("fix", EXPLICIT));
    assert_eq!(reply["error"]["description"], "invalid JSON: unknown consumer action: \"fix\"");
}

#[test]
fn requests_right_behind_a_create_find_the_consumer() {
    let mut world = World::new();
    world.publish(&["s.a", "s.b", "s.a"]);
    let (now, host) = (world.now, &mut world.host);
    let body = br#"{"stream_name":"S","config":{"ack_policy":"explicit","filter_subject":"s.a"}}"#;
    let create = Inbound {
        subject: b"$JS.API.CONSUMER.CREATE.S.C",
        reply: b"R1",
        headers: b"",
        payload: body,
    };
    let info =
        Inbound { subject: b"$JS.API.CONSUMER.INFO.S.C", reply: b"R2", headers: b"", payload: b"" };
    world.js.handle_api(now, create, host);
    world.js.handle_api(now, info, host);
    assert!(host.sent.is_empty());
    world.settle();
    let order: Vec<&str> = world.host.sent.iter().map(|sent| sent.to.as_str()).collect();
    assert_eq!(order, ["R1", "R2"]);
}

#[test]
fn names_in_the_subject_decide() {
    let mut world = World::new();
    for (subject, config, err_code) in [
        ("CREATE.S", r#""durable_name":"D""#, 10020),
        ("CREATE.S.C", r#""durable_name":"D""#, 10017),
        ("DURABLE.CREATE.S.C", r#""name":"C""#, 10018),
        ("DURABLE.CREATE.S.C", r#""durable_name":"D""#, 10017),
        ("CREATE.S.C.s.a", r#""filter_subject":"s.b""#, 10131),
        ("CREATE.S.C.s.a", r#""filter_subjects":["s.a","s.b"]"#, 10137),
        ("CREATE.S.a/b", "", 10127),
        ("CREATE.S.C", r#""num_replicas":3"#, 10074),
        ("CREATE.S.C", r#""unknown":3"#, 10025),
    ] {
        let body = alloc::format!(r#"{{"stream_name":"S","config":{{{config}}}}}"#);
        let reply = world.api(&alloc::format!("CONSUMER.{subject}"), &body);
        assert_eq!(reply["error"]["err_code"], err_code, "{subject} {config}: {reply}");
    }
    let reply = world.api("CONSUMER.CREATE.X", r#"{"stream_name":"X"}"#);
    assert_eq!(reply["error"]["err_code"], 10059);
    let reply = world.api("CONSUMER.CREATE.S", r#"{"stream_name":"S"}"#);
    assert_eq!(reply["name"].as_str().map(str::len), Some(8));
    assert_eq!(reply["config"]["name"], Value::Null);
    let reply = world
        .api("CONSUMER.CREATE.S.N.s.*", r#"{"stream_name":"S","config":{"filter_subject":"s.*"}}"#);
    assert_eq!((reply["name"].clone(), reply["config"]["name"].clone()), ("N".into(), "N".into()));
}

#[test]
fn names_and_lists_are_sorted_and_paged() {
    let mut world = World::new();
    for name in ["B", "A", "C"] {
        world.create(name, r#""ack_policy":"explicit""#);
    }
    let names = world.api("CONSUMER.NAMES.S", r#"{"offset":1}"#);
    assert_eq!(names["consumers"], serde_json::json!(["B", "C"]));
    assert_eq!((names["total"].clone(), names["limit"].clone()), (3.into(), 1024.into()));
    let list = world.api("CONSUMER.LIST.S", "");
    assert_eq!(list["consumers"][0]["name"], "A");
    assert_eq!(world.api("CONSUMER.NAMES.X", "")["consumers"], serde_json::json!([]));
}

#[test]
fn deleting_tells_those_who_wait() {
    let mut world = World::new();
    world.create("C", EXPLICIT);
    world.next_to("C", "I", r#"{"expires":9000000000}"#);
    let reply = world.api("CONSUMER.DELETE.S.C", "");
    assert_eq!(reply["success"], true);
    assert_eq!(seen(&world.take("I")), "409 Consumer Deleted");
    assert_eq!(world.info("C")["error"]["err_code"], 10014);
    assert!(world.store.consumers.is_empty());
    assert!(!world.host.subscriptions.iter().any(|(subject, _)| subject.contains(".S.C")));
    world.create("C", EXPLICIT);
    world.next_to("C", "I", r#"{"expires":9000000000}"#);
    world.api("STREAM.DELETE.S", "");
    assert_eq!(seen(&world.take("I")), "409 Consumer Deleted");
}

#[test]
fn shutting_down_tells_those_who_wait() {
    let mut world = World::new();
    world.create("C", EXPLICIT);
    world.next_to("C", "I", r#"{"batch":4,"expires":9000000000}"#);
    world.js.shut_down(world.now, &mut world.host);
    let sent = world.take("I");
    assert_eq!(seen(&sent), "409 Server Shutdown");
    assert!(sent[0].headers.contains("\r\nNats-Pending-Messages: 4\r\n"), "{sent:?}");
    world.js.shut_down(world.now, &mut world.host);
    assert!(world.take("I").is_empty());
}

#[test]
fn a_paused_consumer_resumes_by_itself() {
    let mut world = World::new();
    world.create("C", EXPLICIT);
    world.publish(&["s.a"]);
    let until = (world.now.wall + Duration::from_secs(2)).rfc3339();
    let reply = world.api("CONSUMER.PAUSE.S.C", &alloc::format!(r#"{{"pause_until":"{until}"}}"#));
    assert_eq!(reply["paused"], true);
    assert_eq!(reply["pause_until"], until);
    assert_eq!(seen(&world.next("C", r#"{"expires":5000000000}"#)), "");
    assert_eq!(world.info("C")["paused"], true);
    world.pass(1900);
    assert_eq!(seen(&world.take("I")), "");
    world.pass(200);
    assert_eq!(seen(&world.take("I")), "1");
}

#[test]
fn a_reset_starts_anew() {
    let mut world = World::new();
    world.create("C", EXPLICIT);
    world.publish(&["s.a"; 3]);
    let got = world.next("C", "3");
    world.ack(&got[0], "");
    let reply = world.api("CONSUMER.RESET.S.C", "");
    assert_eq!((reply["reset_seq"].clone(), reply["num_pending"].clone()), (2.into(), 2.into()));
    assert_eq!(seen(&world.next("C", "2")), "2, 3");
    let reply = world.api("CONSUMER.RESET.S.C", r#"{"seq":1}"#);
    assert_eq!(reply["num_pending"], 3, "{reply}");
}

#[test]
fn an_ephemeral_consumer_goes_when_it_is_not_used() {
    let mut world = World::new();
    world.create("E", r#""ack_policy":"explicit","inactive_threshold":1000000000"#);
    world.create("D", r#""durable_name":"D","ack_policy":"explicit""#);
    world.pass(800);
    world.next("E", "1");
    world.host.deaf.insert("I".into());
    world.pass(800);
    world.host.deaf.clear();
    assert_eq!(world.info("E")["error"], Value::Null, "used in between");
    world.api("CONSUMER.DELETE.S.E", "");
    world.create("E", r#""ack_policy":"explicit","inactive_threshold":1000000000"#);
    world.pass(1500);
    assert_eq!(world.info("E")["error"]["err_code"], 10014);
    assert_eq!(world.info("D")["error"], Value::Null);
}

#[test]
fn rubbish_does_not_disturb() {
    let mut world = World::new();
    world.create("C", EXPLICIT);
    world.publish(&["s.a"]);
    let got = world.next("C", "1");
    for payload in ["\u{0}", "{", "-NAK {", "+NXT {\"batch\":-1", "+WPI ", "nonsense"] {
        world.ack(&got[0], payload);
        let (now, host) = (world.now, &mut world.host);
        for (_, target) in host.subscriptions.clone() {
            let msg = Inbound {
                subject: b"$JS.ACK.S.C.18446744073709551615.18446744073709551615.0.0.0",
                reply: b"A",
                headers: b"NATS/1.0",
                payload: payload.as_bytes(),
            };
            match target {
                Target::Ack(id) => world.js.handle_ack(now, id, msg, host),
                Target::Next(id) => world.js.handle_next(now, id, msg, host),
                Target::Flow(id) => world.js.handle_flow(now, id, msg, host),
                _ => {}
            }
        }
        for verb in [
            "CREATE.S",
            "CREATE.S.C",
            "INFO.S.C",
            "LIST.S",
            "PAUSE.S.C",
            "RESET.S.Q",
            "UNPIN.S.C",
            "X",
            "",
        ] {
            world.call(&alloc::format!("$JS.API.CONSUMER.{verb}"), "R", "", payload);
        }
    }
    assert_eq!(world.info("C")["error"], Value::Null);
}
