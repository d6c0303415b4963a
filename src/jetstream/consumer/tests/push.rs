//! Push consumers, and those of a hub.

use super::*;

const PUSH: &str =
    r#""ack_policy":"none","deliver_subject":"d","idle_heartbeat":1000000000,"flow_control":true"#;

const SOURCE: &str = r#"{"stream_name":"S","config":{"name":"JS_SRC_x","deliver_policy":"all","ack_policy":"none","ack_wait":79200000000000,"max_deliver":1,"flow_control":true,"deliver_subject":"$JS.S.1","idle_heartbeat":1000000000,"inactive_threshold":10000000000,"direct":true,"sourcing":true,"metadata":{"_nats.src.acc":"$G"}},"action":""}"#;

#[test]
fn push_waits_for_a_listener_and_sends_heartbeats_while_there_is_one() {
    let mut world = World::new();
    world.publish(&["s.a"]);
    let created = world.create("P", PUSH);
    assert_eq!(
        (created["num_pending"].clone(), created["push_bound"].clone()),
        (1.into(), Value::Null)
    );
    world.pass(3000);
    assert_eq!(seen(&world.take("d")), "");
    world.listen("d", true);
    assert_eq!(seen(&world.take("d")), "1");
    assert_eq!(world.info("P")["push_bound"], true);
    world.pass(1100);
    let got = world.take("d");
    assert_eq!(
        got[0].headers,
        "NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 1\r\nNats-Last-Stream: 1\r\n\r\n"
    );
    world.listen("d", false);
    world.publish(&["s.a"]);
    world.pass(1500);
    assert_eq!(seen(&world.take("d")), "");
    world.listen("d", true);
    assert_eq!(seen(&world.take("d")), "2");
    assert_eq!(seen(&world.next("P", "1")), "409 Consumer is push based");
}

#[test]
fn flow_control_asks_at_half_the_window_and_stops_at_the_end() {
    let mut world = World::new();
    world.create("P", PUSH);
    world.listen("d", true);
    let payload = "y".repeat(100_000);
    for _ in 0..40 {
        world.call("s.a", "", "", &payload);
    }
    let got = world.take("d");
    let asked = got.iter().position(|sent| sent.status() == "100 FlowControl Request").unwrap();
    assert_eq!((asked, got.len()), (11, 22), "asked after 1 MiB, stopped after 2 MiB");
    world.pass(1100);
    let beat = world.take("d");
    assert!(
        beat[0].headers.contains(&alloc::format!("Nats-Consumer-Stalled: {}", got[asked].reply))
    );
    let reply = got[asked].reply.clone();
    world.call(&reply, "", "", "");
    let got = world.take("d");
    assert!(got.len() > 18, "the rest came after the answer: {}", got.len());
}

#[test]
fn a_push_consumer_without_listener_goes_after_its_threshold() {
    let mut world = World::new();
    world.create("P", PUSH);
    world.listen("d", true);
    world.pass(20_000);
    assert_eq!(world.info("P")["error"], Value::Null);
    world.listen("d", false);
    world.pass(5100);
    assert_eq!(world.info("P")["error"]["err_code"], 10014);
    assert!(world.host.watched.is_empty());
}

#[test]
fn a_hub_gets_a_hidden_consumer_with_a_name_of_its_own() {
    let mut world = World::new();
    world.publish(&["s.a"]);
    let headers = "NATS/1.0\r\nNats-Required-Api-Level: 5\r\nNats-Stream-Identity: \r\n\r\n";
    let reply = world.api_with("CONSUMER.CREATE.S", headers, SOURCE);
    let name = reply["name"].as_str().unwrap().to_string();
    assert!(name.starts_with("JS_SRC_x-") && name.len() == 17, "{reply}");
    assert_eq!(reply["config"]["name"], name);
    assert_eq!(reply["config"]["metadata"]["_nats.req.level"], "0");
    assert_eq!(
        (reply["num_pending"].clone(), reply["delivered"]["stream_seq"].clone()),
        (1.into(), 0.into())
    );
    let identity = reply["headers"].as_str().unwrap().to_string();
    assert!(identity.starts_with("NATS/1.0\r\nNats-Stream-Identity: "), "{identity}");
    assert_eq!(world.api("CONSUMER.NAMES.S", "")["total"], 0);
    assert_eq!(world.js.consumer_count(STREAM), 0);
    assert_eq!(world.info(&name)["error"], Value::Null);
    let wrong = "NATS/1.0\r\nNats-Stream-Identity: other\r\n\r\n";
    let reply = world.api_with("CONSUMER.CREATE.S", wrong, SOURCE);
    assert_eq!(reply["error"]["err_code"], 10225);
    let level = "NATS/1.0\r\nNats-Required-Api-Level: 99\r\n\r\n";
    let reply = world.api_with("CONSUMER.CREATE.S", level, SOURCE);
    assert_eq!(reply["error"]["err_code"], 10185);
}

#[test]
fn a_hub_that_comes_back_goes_on_where_it_was() {
    let mut world = World::new();
    world.publish(&["s.a", "s.a"]);
    world.api("CONSUMER.CREATE.S", SOURCE);
    world.listen("$JS.S.1", true);
    let got = world.take("$JS.S.1");
    assert_eq!(seen(&got), "1, 2");
    world.listen("$JS.S.1", false);
    world.publish(&["s.a"]);
    world.pass(6 * 3600 * 1000);
    world.listen("$JS.S.1", true);
    let got = world.take("$JS.S.1");
    assert_eq!(seen(&got), "100 Idle Heartbeat, 3");
    assert!(got[0].headers.contains("Nats-Last-Consumer: 2\r\n"));
    assert!(got[1].reply.contains(".1.3.3."), "the next consumer sequence: {}", got[1].reply);
}

#[test]
fn after_a_restart_a_hub_is_told_to_start_anew() {
    let mut world = World::new();
    world.publish(&["s.a", "s.a"]);
    world.api("CONSUMER.CREATE.S", SOURCE);
    world.listen("$JS.S.1", true);
    world.pass(300);
    let mut world = world.restarted();
    world.listen("$JS.S.1", true);
    let got = world.take("$JS.S.1");
    assert_eq!(seen(&got), "100 Idle Heartbeat", "and no message that would be counted wrongly");
    assert!(got[0].headers.contains("Nats-Last-Consumer: 4611686018427387904\r\n"));
    // What the hub then does.
    world.listen("$JS.S.1", false);
    let again = SOURCE.replace("$JS.S.1", "$JS.S.2").replace(
        r#""deliver_policy":"all""#,
        r#""deliver_policy":"by_start_sequence","opt_start_seq":2"#,
    );
    let reply = world.api("CONSUMER.CREATE.S", &again);
    assert_eq!(reply["error"], Value::Null, "{reply}");
    assert_eq!(world.js.consumers_total(), 1, "the old one is gone");
    world.listen("$JS.S.2", true);
    assert_eq!(seen(&world.take("$JS.S.2")), "2");
}
