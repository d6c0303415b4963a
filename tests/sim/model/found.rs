//! What seeds found, each said in a few lines.

use serde_json::{Value, json};

use super::Broken;
use super::machine::{Death, Frame, Machine};
use crate::chance::Chance;

fn machine(config: &Value) -> Machine {
    let mut machine = Machine::new(Chance::new(1), Broken::Nothing);
    let answer = machine.api("STREAM.CREATE.S", config);
    assert_eq!(answer.get("error"), None);
    machine
}

fn consumer(machine: &mut Machine, name: &str, config: &Value) {
    let mut config = config.clone();
    config["durable_name"] = json!(name);
    let body = json!({ "stream_name": "S", "config": config });
    let answer = machine.api(&format!("CONSUMER.CREATE.S.{name}"), &body);
    assert_eq!(answer.get("error"), None);
}

fn info(machine: &mut Machine, name: &str) -> Value {
    machine.api(&format!("CONSUMER.INFO.S.{name}"), &Value::Null)
}

fn messages(machine: &mut Machine) -> u64 {
    machine.api("STREAM.INFO.S", &Value::Null)["state"]["messages"].as_u64().unwrap_or(0)
}

fn fetch(machine: &mut Machine, name: &str, batch: usize) -> Vec<Frame> {
    machine.say(b"SUB F.1 F.1\r\n");
    let body = json!({ "batch": batch, "no_wait": true }).to_string();
    machine.publish(&format!("$JS.API.CONSUMER.MSG.NEXT.S.{name}"), "F.1", "", body.as_bytes());
    machine.settle();
    machine.say(b"UNSUB F.1\r\n");
    let mut frames = machine.heard("F.1");
    frames.retain(|frame| frame.status().is_none());
    frames
}

#[test]
fn what_one_commit_stores_and_removes_was_never_pending() {
    let config = json!({ "name": "S", "subjects": ["s.>"], "max_msgs_per_subject": 1 });
    let mut machine = machine(&config);
    consumer(&mut machine, "C", &json!({ "ack_policy": "explicit" }));
    machine.ask("s.a", b"one");
    for _ in 0..3 {
        machine.publish("s.a", "", "", b"again");
        machine.publish("s.b", "", "", b"more");
    }
    machine.settle();
    assert_eq!(info(&mut machine, "C")["num_pending"], json!(2));
}

#[test]
fn what_was_delivered_is_known_after_a_clean_stop() {
    let mut machine = machine(&json!({ "name": "S", "subjects": ["s.>"] }));
    consumer(&mut machine, "C", &json!({ "ack_policy": "explicit" }));
    machine.ask("s.a", b"one");
    machine.ask("s.a", b"two");
    let got = fetch(&mut machine, "C", 1);
    machine.publish(&got[0].reply, "", "", b"");
    machine.settle();
    machine.restart();
    assert_eq!(info(&mut machine, "C")["ack_floor"]["stream_seq"], json!(1));
    let got = fetch(&mut machine, "C", 5);
    assert_eq!(got.iter().map(|frame| frame.payload.as_slice()).collect::<Vec<_>>(), [b"two"]);
}

#[test]
fn a_consumer_that_was_deleted_does_not_come_back() {
    for death in [Death::Sigkill, Death::PowerCut] {
        let mut machine = machine(&json!({ "name": "S", "subjects": ["s.>"] }));
        consumer(&mut machine, "C", &json!({ "ack_policy": "explicit" }));
        let answer = machine.api("CONSUMER.DELETE.S.C", &Value::Null);
        assert_eq!(answer["success"], json!(true));
        machine.die(death);
        assert_eq!(info(&mut machine, "C")["error"]["err_code"], json!(10014));
    }
}

#[test]
fn what_nobody_wants_takes_no_place_and_is_not_refused_for_want_of_it() {
    let config = json!({
        "name": "S", "subjects": ["s.>"], "retention": "interest", "discard": "new", "max_bytes": 100,
    });
    let mut machine = machine(&config);
    let acks = machine.ask("s.a", &[b'x'; 200]);
    assert_eq!(acks[0].json(), json!({ "stream": "S", "seq": 1 }));
}

#[test]
fn a_late_ack_of_work_given_up_at_once_removes_it() {
    let config = json!({ "name": "S", "subjects": ["s.>"], "retention": "workqueue" });
    let mut machine = machine(&config);
    let config = json!({ "ack_policy": "explicit", "max_deliver": 1, "ack_wait": 1_000_000_000 });
    consumer(&mut machine, "C", &config);
    machine.ask("s.a", b"one");
    let got = fetch(&mut machine, "C", 1);
    machine.pass(std::time::Duration::from_secs(2));
    assert!(fetch(&mut machine, "C", 1).is_empty());
    assert_eq!(messages(&mut machine), 1);
    machine.ask(&got[0].reply, b"");
    assert_eq!(messages(&mut machine), 0);
}

#[test]
fn what_was_given_up_waits_for_a_late_ack_when_another_consumer_goes() {
    let config = json!({ "name": "S", "subjects": ["s.>"], "retention": "interest" });
    let mut machine = machine(&config);
    let config = json!({ "ack_policy": "explicit", "max_deliver": 1, "ack_wait": 1_000_000_000 });
    consumer(&mut machine, "C", &config);
    consumer(&mut machine, "D", &json!({ "ack_policy": "explicit" }));
    machine.ask("s.a", b"one");
    fetch(&mut machine, "C", 1);
    machine.pass(std::time::Duration::from_secs(2));
    assert!(fetch(&mut machine, "C", 1).is_empty());
    machine.api("CONSUMER.DELETE.S.D", &Value::Null);
    assert_eq!(messages(&mut machine), 1);
}
