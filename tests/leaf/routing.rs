//! Interest and messages across the link.

use std::time::Duration;

use crate::raw_client::{DEADLINE, Message, RawClient};
use crate::server::Server;
use crate::world::{
    Hub, gateway, messages_within, next_message, remote_to, wait_for_line, wait_for_way,
};

const MOMENT: Duration = Duration::from_millis(200);

#[test]
fn messages_cross_both_ways() {
    let Some(hub) = Hub::start("HUB", "", "") else { return };
    let gateway = gateway("GW", &remote_to(hub.leaf_address));
    let mut above = hub.client();
    let mut below = RawClient::greet(gateway.address());

    above.send("SUB up.> 1\r\n");
    above.flush();
    wait_for_way(&mut below, &mut above, "up.a", DEADLINE);
    below.publish("up.b", b"from below");
    assert_eq!(next_message(&mut above).payload, b"from below");

    below.send("SUB down.* 7\r\n");
    below.flush();
    wait_for_way(&mut above, &mut below, "down.a", DEADLINE);
    above.publish("down.b", b"from above");
    let message = next_message(&mut below);
    assert_eq!((&*message.subject, &*message.sid), ("down.b", "7"));
    assert_eq!(message.payload, b"from above");
}

#[test]
fn headers_and_large_payloads_cross_unchanged() {
    let Some(hub) = Hub::start("HUB", "", "") else { return };
    let gateway = gateway("GW", &remote_to(hub.leaf_address));
    let mut above = hub.client();
    let mut below = RawClient::greet(gateway.address());
    above.send("SUB up 1\r\n");
    above.flush();
    below.send("SUB down 1\r\n");
    below.flush();
    wait_for_way(&mut below, &mut above, "up", DEADLINE);
    wait_for_way(&mut above, &mut below, "down", DEADLINE);

    let large: Vec<u8> = (0..900_000_u32).map(|index| index.to_le_bytes()[0]).collect();
    let headers = b"NATS/1.0\r\nA: 1\r\nB:  two \r\n\r\n";
    let mut there_and_back = |up: bool| {
        let (from, to, subject) =
            if up { (&mut below, &mut above, "up") } else { (&mut above, &mut below, "down") };
        from.send(format!("HPUB {subject} {} {}\r\n", headers.len(), headers.len() + large.len()));
        from.send(headers);
        from.send(&large);
        from.send("\r\n");
        let message = next_message(to);
        assert_eq!(message.headers, headers);
        assert!(message.payload == large);
    };
    there_and_back(true);
    there_and_back(false);
}

#[test]
fn requests_are_answered_across_the_link_both_ways() {
    let Some(hub) = Hub::start("HUB", "", "") else { return };
    let gateway = gateway("GW", &remote_to(hub.leaf_address));
    let mut above = hub.client();
    let mut below = RawClient::greet(gateway.address());
    above.send("SUB svc.up 1\r\n");
    above.flush();
    below.send("SUB svc.down 1\r\n");
    below.flush();
    wait_for_way(&mut below, &mut above, "svc.up", DEADLINE);
    wait_for_way(&mut above, &mut below, "svc.down", DEADLINE);

    // The interest in the answer and the request leave in one go.
    below.send("SUB _INBOX.b.* 9\r\nPUB svc.up _INBOX.b.1 1\r\n?\r\n");
    let request = next_message(&mut above);
    above.publish(request.reply.as_deref().expect("a request"), b"up!");
    assert_eq!(next_message(&mut below).payload, b"up!");

    above.send("SUB _INBOX.a.* 9\r\nPUB svc.down _INBOX.a.1 1\r\n?\r\n");
    let request = next_message(&mut below);
    below.publish(request.reply.as_deref().expect("a request"), b"down!");
    assert_eq!(next_message(&mut above).payload, b"down!");
}

#[test]
fn a_request_nobody_answers_is_told_at_once_before_and_after_interest() {
    let Some(hub) = Hub::start("HUB", "", "") else { return };
    let gateway = gateway("GW", &remote_to(hub.leaf_address));
    wait_for_line(&gateway, "Leafnode connection to", DEADLINE);
    let mut above = hub.client();
    let mut below = RawClient::greet(gateway.address());
    below.send("SUB _INBOX.b.* 9\r\n");
    below.publish_with_reply("svc", "_INBOX.b.1", b"?");
    assert!(next_message(&mut below).headers.starts_with(b"NATS/1.0 503"));

    above.send("SUB svc 1\r\n");
    above.flush();
    wait_for_way(&mut below, &mut above, "svc", DEADLINE);
    above.send("UNSUB 1\r\n");
    above.flush();
    // The hub's own LS- is behind nothing we could wait for but a message that follows it.
    above.send("SUB marker 2\r\n");
    above.flush();
    wait_for_way(&mut below, &mut above, "marker", DEADLINE);
    below.publish_with_reply("svc", "_INBOX.b.2", b"?");
    assert!(next_message(&mut below).headers.starts_with(b"NATS/1.0 503"));
}

#[test]
fn one_member_of_a_queue_group_gets_each_message_and_a_local_one_first() {
    let Some(hub) = Hub::start("HUB", "", "") else { return };
    let gateway = gateway("GW", &remote_to(hub.leaf_address));
    let (mut above, mut other) = (hub.client(), hub.client());
    let mut below = RawClient::greet(gateway.address());
    let mut publisher = RawClient::greet(gateway.address());
    for member in [&mut above, &mut other] {
        member.send("SUB work workers 1\r\nSUB mark 2\r\n");
        member.flush();
    }
    wait_for_way(&mut publisher, &mut above, "mark", DEADLINE);
    for _ in 0..40 {
        publisher.publish("work", b"x");
    }
    publisher.flush();
    let (mine, theirs) = (messages_within(&mut above, MOMENT), messages_within(&mut other, MOMENT));
    let count = |list: &[Message]| list.iter().filter(|message| message.subject == "work").count();
    assert_eq!(count(&mine) + count(&theirs), 40);
    assert!(count(&mine) > 0 && count(&theirs) > 0);

    below.send("SUB work workers 1\r\nSUB down 2\r\n");
    below.flush();
    wait_for_way(&mut above, &mut below, "down", DEADLINE);
    for _ in 0..40 {
        publisher.publish("work", b"x");
    }
    publisher.flush();
    assert_eq!(messages_within(&mut below, MOMENT).len(), 40);

    // From above: the hub prefers its own, and asks us when it has none.
    for member in [&mut above, &mut other] {
        member.send("UNSUB 1\r\n");
        member.flush();
    }
    for _ in 0..40 {
        above.publish("work", b"x");
    }
    above.flush();
    assert_eq!(messages_within(&mut below, MOMENT).len(), 40);
}

#[test]
fn plain_and_queue_subscribers_behind_one_link_share_one_message() {
    let Some(hub) = Hub::start("HUB", "", "") else { return };
    let gateway = gateway("GW", &remote_to(hub.leaf_address));
    let mut above = hub.client();
    let mut below = RawClient::greet(gateway.address());
    above.send("SUB t 1\r\nSUB t.> 2\r\nSUB * 3\r\nSUB t q 4\r\nSUB mark 5\r\n");
    above.flush();
    wait_for_way(&mut below, &mut above, "mark", DEADLINE);
    messages_within(&mut above, MOMENT);
    below.publish("t", b"once");
    let mut sids: Vec<String> =
        messages_within(&mut above, MOMENT).into_iter().map(|message| message.sid).collect();
    sids.sort();
    assert_eq!(sids, ["1", "3", "4"]);
}

#[test]
fn two_gateways_meet_at_the_hub_and_hear_nothing_twice() {
    let Some(hub) = Hub::start("HUB", "", "") else { return };
    let first = gateway("GW1", &remote_to(hub.leaf_address));
    let second = gateway("GW2", &remote_to(hub.leaf_address));
    let mut one = RawClient::greet(first.address());
    let mut two = RawClient::greet(second.address());
    one.send("SUB chat.> 1\r\n");
    one.flush();
    two.send("SUB chat.> 1\r\n");
    two.flush();
    wait_for_way(&mut one, &mut two, "chat.a", DEADLINE);
    wait_for_way(&mut two, &mut one, "chat.b", DEADLINE);
    messages_within(&mut one, MOMENT);
    messages_within(&mut two, MOMENT);
    one.publish("chat.x", b"hello");
    assert_eq!(messages_within(&mut one, MOMENT).len(), 1);
    assert_eq!(messages_within(&mut two, MOMENT).len(), 1);
}

#[test]
fn two_ways_to_the_same_account_are_found_to_be_a_loop() {
    let Some(hub) = Hub::start("HUB", "", "") else { return };
    // Under two names for the same place, or the config would be refused as a double.
    let port = hub.leaf_address.port();
    let gateway = gateway(
        "GW",
        &format!(
            "{{ url: \"nats-leaf://127.0.0.1:{port}\" }}, {{ url: \"nats-leaf://localhost:{port}\" }}"
        ),
    );
    wait_for_line(&gateway, "Loop detected for leafnode account=\"$G\"", DEADLINE);
    // Others go on.
    let mut above = hub.client();
    let mut below = RawClient::greet(gateway.address());
    above.send("SUB up 1\r\n");
    above.flush();
    wait_for_way(&mut below, &mut above, "up", DEADLINE);
}

#[test]
fn each_account_has_a_link_of_its_own() {
    let accounts = "accounts { X { users: [{user: x, password: x}] }, \
                    Y { users: [{user: y, password: y}] } }";
    let Some(hub) = Hub::start("HUB", "", accounts) else { return };
    let at = hub.leaf_address;
    let gateway = Server::sedge(&format!(
        "server_name: GW\n{accounts}\nleafnodes {{ remotes: [ \
         {{ url: \"nats-leaf://x:x@{at}\", account: X }}, \
         {{ url: \"nats-leaf://y:y@{at}\", account: Y }} ] }}\n"
    ));
    let client = |server: &Server, user: &str| {
        let mut client = RawClient::connect(server.address()).expect("the server accepts");
        client.expect("INFO ");
        let options =
            format!("\"verbose\":false,\"headers\":true,\"user\":\"{user}\",\"pass\":\"{user}\"");
        client.send(format!("CONNECT {{{options}}}\r\nPING\r\n"));
        client.expect("PONG");
        client
    };
    let (mut x_above, mut y_above) = (client(&hub.server, "x"), client(&hub.server, "y"));
    let (mut x_below, mut y_below) = (client(&gateway, "x"), client(&gateway, "y"));
    for client in [&mut x_above, &mut y_above] {
        client.send("SUB up.> 1\r\nSUB trace 2\r\n");
        client.flush();
    }
    wait_for_way(&mut x_below, &mut x_above, "up.x", DEADLINE);
    wait_for_way(&mut y_below, &mut y_above, "up.y", DEADLINE);
    x_below.publish("up.x", b"for x only");
    assert_eq!(next_message(&mut x_above).payload, b"for x only");
    assert_eq!(messages_within(&mut y_above, MOMENT), []);

    let headers = "NATS/1.0\r\nNats-Trace-Dest: trace\r\n\r\n";
    x_below.send("SUB trace 9\r\n");
    x_below.send(format!("HPUB up.x {0} {0}\r\n{headers}\r\n", headers.len()));
    let traced = messages_within(&mut x_below, MOMENT);
    let text: String = traced.iter().map(|m| String::from_utf8_lossy(&m.payload)).collect();
    assert!(text.contains("\"kind\":4,") && text.contains("\"hop\":\"1\""), "{text}");
    assert!(text.contains("\"hops\":1,"), "{text}");
    let seen = messages_within(&mut x_above, MOMENT);
    let hop =
        seen.iter().any(|m| String::from_utf8_lossy(&m.headers).contains("Nats-Trace-Hop: 1"));
    assert!(hop, "{seen:?}");
}
