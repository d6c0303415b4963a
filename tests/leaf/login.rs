//! Who we are to the hub, and what it lets us do.

use std::time::Duration;

use crate::raw_client::{DEADLINE, RawClient};
use crate::server::Server;
use crate::world::{
    Hub, client_with_creds, count_lines, fixture, gateway, messages_within, next_message,
    remote_to, wait_for_line, wait_for_way,
};

const CREATED: &str = "created for account:";

fn operator_hub() -> Option<Hub> {
    let operator = std::fs::read_to_string(fixture("operator.conf")).expect("the fixture is there");
    Hub::start("HUB", "", &operator)
}

fn gateway_with_creds(hub: &Hub, file: &str) -> Server {
    gateway(
        "GW",
        &format!(
            "{{ url: \"nats-leaf://{}\", credentials: \"{}\" }}",
            hub.leaf_address,
            fixture(file).display()
        ),
    )
}

#[test]
fn user_and_password_of_the_url_open_the_hub() {
    let authorization = "authorization { user: gw, password: \"s3 cr@t\" }";
    let Some(hub) = Hub::start("HUB", authorization, "") else { return };
    let gateway =
        gateway("GW", &format!("{{ url: \"nats-leaf://gw:s3%20cr%40t@{}\" }}", hub.leaf_address));
    let mut above = hub.client();
    let mut below = RawClient::greet(gateway.address());
    above.send("SUB up 1\r\n");
    above.flush();
    wait_for_way(&mut below, &mut above, "up", DEADLINE);
    assert!(!gateway.log().contains("s3"), "{}", gateway.log());
}

#[test]
fn a_wrong_password_is_named_and_tried_again() {
    let Some(hub) = Hub::start("HUB", "authorization { user: gw, password: right }", "") else {
        return;
    };
    let gateway =
        gateway("GW", &format!("{{ url: \"nats-leaf://gw:wrong@{}\" }}", hub.leaf_address));
    wait_for_line(&gateway, "'Authorization Violation': the hub does not accept", DEADLINE);
    let start = std::time::Instant::now();
    // Our own log folds lines that repeat.
    let refused = hub.server.wait_for_lines("authentication error", 3, Duration::from_secs(10));
    assert_eq!(refused, Ok(()));
    assert!(start.elapsed() >= Duration::from_millis(1500), "asked too often");
    // Clients of the gateway notice nothing.
    let mut below = RawClient::greet(gateway.address());
    below.send("SUB a 1\r\n");
    below.publish("a", b"x");
    assert_eq!(next_message(&mut below).payload, b"x");
}

#[test]
fn an_nkey_opens_the_hub() {
    let seed = sedge::auth::nkey::Seed::from_bytes(sedge::auth::nkey::KeyKind::User, [42; 32]);
    let public = seed.public_key().expect("a user's key");
    let Some(hub) = Hub::start("HUB", &format!("authorization {{ nkey: {public} }}"), "") else {
        return;
    };
    let gateway = gateway(
        "GW",
        &format!("{{ url: \"nats-leaf://{}\", nkey: {} }}", hub.leaf_address, seed.expose()),
    );
    wait_for_line(&gateway, CREATED, DEADLINE);
}

#[test]
fn creds_open_a_hub_in_operator_mode() {
    let Some(hub) = operator_hub() else { return };
    let gateway = gateway_with_creds(&hub, "leaf-ok.creds");
    let mut above = client_with_creds(hub.server.address(), "alpha-full.creds");
    let mut below = RawClient::greet(gateway.address());
    above.send("SUB up.> 1\r\n");
    above.flush();
    wait_for_way(&mut below, &mut above, "up.a", DEADLINE);
    below.send("SUB down.> 1\r\n");
    below.flush();
    wait_for_way(&mut above, &mut below, "down.a", DEADLINE);
}

#[test]
fn permissions_of_the_user_hold_without_ending_the_link() {
    let Some(hub) = operator_hub() else { return };
    let gateway = gateway_with_creds(&hub, "leaf-perm.creds");
    let mut above = client_with_creds(hub.server.address(), "alpha-full.creds");
    let mut below = RawClient::greet(gateway.address());
    above.send("SUB > 1\r\n");
    above.flush();
    below.send("SUB other 1\r\nSUB > 2\r\nSUB down.x 3\r\n");
    below.flush();
    wait_for_way(&mut below, &mut above, "up.a", DEADLINE);
    wait_for_way(&mut above, &mut below, "down.a", DEADLINE);
    let moment = Duration::from_millis(200);
    messages_within(&mut above, moment);
    messages_within(&mut below, moment);
    for (from, subject) in [(true, "other"), (true, "down.a"), (true, "up.b")] {
        let client = if from { &mut below } else { &mut above };
        client.publish(subject, b"up?");
    }
    let came: Vec<_> = messages_within(&mut above, moment).into_iter().map(|m| m.subject).collect();
    assert_eq!(came, ["up.b"]);
    messages_within(&mut below, moment);
    for subject in ["other", "up.c", "down.x"] {
        above.publish(subject, b"down?");
    }
    let mut came: Vec<_> =
        messages_within(&mut below, moment).into_iter().map(|m| (m.subject, m.sid)).collect();
    came.sort();
    assert_eq!(came, [("down.x".into(), "2".into()), ("down.x".into(), "3".into())]);
    assert_eq!(count_lines(&gateway, "Permissions Violation"), 0, "{}", gateway.log());
    assert_eq!(count_lines(&gateway, CREATED), 1);
}

#[test]
fn refused_creds_say_why() {
    let Some(hub) = operator_hub() else { return };
    for (file, why) in [
        ("alpha-expired.creds", "credentials expired on 2025-01"),
        ("leaf-std-only.creds", "a leaf node needs LEAFNODE"),
        ("leaf-limit.creds", "the account takes no more leaf nodes"),
    ] {
        let gateway = gateway_with_creds(&hub, file);
        wait_for_line(&gateway, why, DEADLINE);
        assert_eq!(count_lines(&gateway, CREATED), 0, "{file}");
    }
}

#[test]
fn creds_are_read_again_at_every_attempt() {
    let Some(hub) = operator_hub() else { return };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("gw.creds");
    std::fs::copy(fixture("leaf-badsig.creds"), &file).expect("copied");
    let gateway = gateway(
        "GW",
        &format!(
            "{{ url: \"nats-leaf://{}\", credentials: \"{}\" }}",
            hub.leaf_address,
            file.display()
        ),
    );
    wait_for_line(&gateway, "Authorization Violation", DEADLINE);
    std::fs::remove_file(&file).expect("it was there");
    wait_for_line(&gateway, "Leafnode remote cannot log in with", DEADLINE);
    std::fs::write(&file, "not a creds file").expect("written");
    wait_for_line(&gateway, "credentials file malformed", DEADLINE);
    std::fs::copy(fixture("leaf-ok.creds"), &file).expect("copied");
    wait_for_line(&gateway, CREATED, Duration::from_secs(15));
}

#[test]
fn a_port_that_is_not_for_leaf_nodes_is_named() {
    let Some(hub) = Hub::start("HUB", "", "") else { return };
    let gateway = gateway("GW", &remote_to(hub.server.address()));
    wait_for_line(&gateway, "wrong port", DEADLINE);
}

#[test]
fn a_hub_with_our_name_is_not_asked_again_for_half_a_minute() {
    let Some(hub) = Hub::start("HUB", "", "cluster { name: SAME, listen: \"127.0.0.1:-1\" }")
    else {
        return;
    };
    let gateway = gateway("SAME", &remote_to(hub.leaf_address));
    wait_for_line(&gateway, "change server_name", DEADLINE);
    let refusal = "connection closed: Cluster Names Identical";
    // Which of the two servers writes its line first is open.
    hub.server.wait_for_lines(refusal, 1, DEADLINE).expect("the hub refused");
    // Time in which a remote that went on as usual would have tried several times.
    let another = hub.server.wait_for_lines(refusal, 2, Duration::from_millis(2500));
    assert!(another.is_err(), "{}", hub.server.log());
}
