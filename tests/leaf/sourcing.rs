//! A stream of the hub that sources from the gateway's, across outages.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::raw_client::{DEADLINE, RawClient};
use crate::relay::Relay;
use crate::server::Server;
use crate::world::{Hub, next_message};

/// What a user may wait for data after the link is back.
const BACK: Duration = Duration::from_secs(1);

struct World {
    hub: Hub,
    relay: Relay,
    gateway: Server,
    published: u64,
}

impl World {
    fn start() -> Option<Self> {
        Self::start_with(None)
    }

    /// The hub reads from a consumer that was made beforehand, and acks by flow control.
    fn with_durable_consumer() -> Option<Self> {
        Self::start_with(Some(json!({
            "durable_name": "hub", "deliver_subject": "to.hub", "ack_policy": "flow_control",
            "flow_control": true, "idle_heartbeat": 1_000_000_000, "max_deliver": -1,
        })))
    }

    fn start_with(consumer: Option<Value>) -> Option<Self> {
        let hub = Hub::start("HUB", "", "jetstream { store_dir: \"$DIR/js\", domain: hub }")?;
        let relay = Relay::to(hub.leaf_address);
        let gateway = Server::sedge(&format!(
            "server_name: GW\njetstream {{ store_dir: \"$DIR/js\", domain: leaf }}\n\
             leafnodes {{ remotes: [ {{ url: \"nats-leaf://{}\", \
             ignore_discovered_servers: true }} ] }}",
            relay.address()
        ));
        let stream = json!({"name": "EDGE", "subjects": ["edge.>"]});
        request(gateway.address(), "$JS.API.STREAM.CREATE.EDGE", &stream);
        let mut sources = json!([{"name": "EDGE", "external": {"api": "$JS.leaf.API"}}]);
        if let Some(config) = consumer {
            let body = json!({"stream_name": "EDGE", "config": config});
            request(gateway.address(), "$JS.API.CONSUMER.CREATE.EDGE.hub", &body);
            sources[0]["consumer"] = json!({"name": "hub", "deliver_subject": "to.hub"});
        }
        let stream = json!({"name": "AGG", "storage": "memory", "sources": sources});
        request(hub.server.address(), "$JS.API.STREAM.CREATE.AGG", &stream);
        let mut world = Self { hub, relay, gateway, published: 0 };
        world.publish(10);
        world.wait_complete(Duration::from_secs(20));
        Some(world)
    }

    /// Publishes with acks.
    fn publish(&mut self, count: u64) {
        let mut client = RawClient::greet(self.gateway.address());
        client.send("SUB _INBOX.p 1\r\n");
        for _ in 0..count {
            self.published += 1;
            let payload = self.published.to_string();
            client.publish_with_reply("edge.a", "_INBOX.p", payload.as_bytes());
            let ack: Value =
                serde_json::from_slice(&next_message(&mut client).payload).expect("a PubAck");
            assert_eq!(ack["seq"], self.published, "{ack}");
        }
    }

    fn wait_complete(&self, within: Duration) -> Duration {
        let start = Instant::now();
        loop {
            let info = request(self.hub.server.address(), "$JS.API.STREAM.INFO.AGG", &json!({}));
            let there = info["state"]["messages"].as_u64().expect("a number");
            if there >= self.published {
                assert_eq!(there, self.published, "doubled");
                return start.elapsed();
            }
            assert!(
                start.elapsed() < within,
                "{there} of {} after {within:?}: {info}\n{}",
                self.published,
                self.gateway.log()
            );
        }
    }

    /// Every message once and in order.
    fn check_contents(&self) {
        for seq in 1..=self.published {
            let subject = "$JS.API.STREAM.MSG.GET.AGG";
            let got = request(self.hub.server.address(), subject, &json!({"seq": seq}));
            let data = got["message"]["data"].as_str().expect("base64");
            let payload = data_encoding::BASE64.decode(data.as_bytes()).expect("base64");
            assert_eq!(payload, seq.to_string().as_bytes());
            assert_eq!(got["message"]["subject"], "edge.a");
        }
    }

    fn outage(&mut self, length: Duration) {
        self.relay.cut();
        let end = Instant::now() + length;
        self.publish(20);
        // How long the link is down is what is being tested.
        std::thread::sleep(end.saturating_duration_since(Instant::now()));
        self.relay.mend();
        let took = self.wait_complete(Duration::from_mins(1));
        assert!(took <= BACK, "{took:?} after an outage of {length:?}\n{}", self.gateway.log());
    }
}

fn request(server: SocketAddr, subject: &str, body: &Value) -> Value {
    let mut client = RawClient::greet(server);
    client.send("SUB _INBOX.r 1\r\n");
    client.publish_with_reply(subject, "_INBOX.r", body.to_string().as_bytes());
    let reply = next_message(&mut client);
    let reply: Value = serde_json::from_slice(&reply.payload).expect("JSON");
    assert_eq!(reply.get("error"), None, "{subject}: {reply}");
    reply
}

#[test]
fn the_hub_has_everything_once_and_in_order_after_a_short_outage() {
    let Some(mut world) = World::start() else { return };
    world.outage(Duration::from_secs(4));
    world.publish(10);
    world.wait_complete(DEADLINE);
    world.check_contents();
}

#[test]
fn the_hub_has_everything_once_and_in_order_after_a_long_outage() {
    let Some(mut world) = World::start() else { return };
    // Longer than the 10 s after which the hub asks anew, into the void.
    world.outage(Duration::from_secs(22));
    world.publish(10);
    world.wait_complete(DEADLINE);
    world.check_contents();
}

#[test]
fn the_hub_has_everything_after_the_gateway_was_killed_in_an_outage() {
    let Some(mut world) = World::start() else { return };
    world.relay.cut();
    world.publish(20);
    world.gateway.restart(true).expect("it comes up again");
    world.publish(20);
    // How long the link stays down after the kill is what is being tested.
    std::thread::sleep(Duration::from_secs(3));
    world.relay.mend();
    let took = world.wait_complete(Duration::from_mins(1));
    assert!(took <= BACK, "{took:?}\n{}", world.gateway.log());
    world.check_contents();
}

#[test]
fn a_durable_consumer_feeds_the_hub_across_an_outage() {
    let Some(mut world) = World::with_durable_consumer() else { return };
    world.outage(Duration::from_secs(14));
    world.publish(10);
    world.wait_complete(DEADLINE);
    world.check_contents();
    // The hub acks when it answers the request that follows a heartbeat.
    let start = Instant::now();
    loop {
        let info = request(world.gateway.address(), "$JS.API.CONSUMER.INFO.EDGE.hub", &json!({}));
        if info["ack_floor"]["stream_seq"] == world.published {
            break;
        }
        assert!(start.elapsed() < DEADLINE, "{info}\n{}", world.gateway.log());
    }
}
