//! Links that break, and hubs that are not there.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use crate::raw_client::{DEADLINE, RawClient};
use crate::relay::Relay;
use crate::world::{Hub, gateway, next_message, remote_to, wait_for_line, wait_for_way};

/// What a user may wait for data after the link is back.
const BACK: Duration = Duration::from_secs(1);

fn cut_and_mend(cut: impl Fn(&Relay), outage: Duration) {
    let Some(hub) = Hub::start("HUB", "", "") else { return };
    let relay = Relay::to(hub.leaf_address);
    let remote =
        format!("{{ url: \"nats-leaf://{}\", ignore_discovered_servers: true }}", relay.address());
    let gateway = gateway("GW", &remote);
    let mut above = hub.client();
    let mut below = RawClient::greet(gateway.address());
    above.send("SUB up 1\r\n");
    above.flush();
    below.send("SUB down 1\r\n");
    below.flush();
    wait_for_way(&mut below, &mut above, "up", DEADLINE);
    for _ in 0..3 {
        cut(&relay);
        // How long the link is down is what is being tested.
        std::thread::sleep(outage);
        relay.mend();
        let took = wait_for_way(&mut below, &mut above, "up", DEADLINE);
        assert!(took <= BACK, "up: {took:?} after the link was back\n{}", gateway.log());
        wait_for_way(&mut above, &mut below, "down", DEADLINE);
    }
}

#[test]
fn data_flows_within_a_second_after_a_cut_link_is_back() {
    cut_and_mend(Relay::cut, Duration::from_millis(1700));
}

#[test]
fn data_flows_within_a_second_after_a_stalled_link_is_back() {
    cut_and_mend(Relay::stall, Duration::from_millis(2300));
}

#[test]
fn interest_of_a_lost_hub_is_gone_at_once() {
    let Some(hub) = Hub::start("HUB", "", "") else { return };
    let relay = Relay::to(hub.leaf_address);
    let remote =
        format!("{{ url: \"nats-leaf://{}\", ignore_discovered_servers: true }}", relay.address());
    let gateway = gateway("GW", &remote);
    let mut above = hub.client();
    let mut below = RawClient::greet(gateway.address());
    above.send("SUB svc 1\r\n");
    above.flush();
    wait_for_way(&mut below, &mut above, "svc", DEADLINE);
    relay.cut();
    wait_for_line(&gateway, "lost", DEADLINE);
    below.send("SUB _INBOX.b.* 9\r\n");
    below.publish_with_reply("svc", "_INBOX.b.1", b"?");
    assert!(next_message(&mut below).headers.starts_with(b"NATS/1.0 503"));
}

#[test]
fn another_url_is_taken_when_a_hub_dies() {
    let Some(first) = Hub::start("HUB1", "", "") else { return };
    let Some(second) = Hub::start("HUB2", "", "") else { return };
    let remote = format!(
        "{{ urls: [ \"nats-leaf://{}\", \"nats-leaf://{}\" ], no_randomize: true }}",
        first.leaf_address, second.leaf_address
    );
    let gateway = gateway("GW", &remote);
    wait_for_line(&gateway, "(HUB1) created", DEADLINE);
    let mut above = second.client();
    above.send("SUB up 1\r\n");
    above.flush();
    let mut below = RawClient::greet(gateway.address());
    drop(first);
    let took = wait_for_way(&mut below, &mut above, "up", DEADLINE);
    assert!(took <= BACK, "{took:?}\n{}", gateway.log());
}

#[test]
fn a_hub_that_comes_later_is_found() {
    let Some(probe) = Hub::start("HUB", "", "") else { return };
    let address = probe.leaf_address;
    drop(probe);
    let gateway = gateway("GW", &remote_to(address));
    wait_for_line(&gateway, "Error trying to connect as leafnode", DEADLINE);
    // Clients are served without it.
    let mut below = RawClient::greet(gateway.address());
    below.send("SUB a 1\r\n");
    below.publish("a", b"x");
    assert_eq!(next_message(&mut below).payload, b"x");
    let port = i32::from(address.port());
    let Some(hub) = Hub::start_on("HUB", port, "", "") else { return };
    let mut above = hub.client();
    above.send("SUB up 1\r\n");
    above.flush();
    let took = wait_for_way(&mut below, &mut above, "up", DEADLINE);
    assert!(took <= BACK, "{took:?}\n{}", gateway.log());
}

/// A listener that answers each connection with `bytes` and then reads until the end; it
/// tells of each.
fn liar(bytes: Vec<u8>) -> (std::net::SocketAddr, Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let (tell, visits) = mpsc::channel();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            let _ = tell.send(());
            let bytes = bytes.clone();
            std::thread::spawn(move || {
                let _ = socket.write_all(&bytes);
                let mut rest = vec![0; 4096];
                while let Ok(1..) = socket.read(&mut rest) {}
            });
        }
    });
    (address, visits)
}

#[test]
fn hubs_that_lie_or_stall_get_a_clear_line_and_another_try() {
    let ready = "INFO {\"client_id\":1,\"leafnode_urls\":[]}\r\n";
    for (bytes, line) in [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "not the leaf protocol"),
        (b"INFO {\"client_id\":\r\n".to_vec(), "its INFO is not the JSON"),
        (b"INFO {}\r\n".to_vec(), "wrong port"),
        (format!("INFO {}", "x".repeat(100_000)).into_bytes(), "a line over 16 x max_control_line"),
        (
            b"INFO {\"client_id\":1,\"leafnode_urls\":[],\"info_on_connect\":true}\r\n".to_vec(),
            "the hub did not answer CONNECT in time",
        ),
        (Vec::new(), "the hub sent no INFO in time"),
        (format!("{ready}LMSG a b c 5\r\n").into_bytes(), "a malformed LMSG"),
        (format!("{ready}LMSG a 99999999\r\n").into_bytes(), "over max_payload"),
        (format!("{ready}LS+ a q\r\n").into_bytes(), "a malformed LS+"),
    ] {
        let (address, visits) = liar(bytes);
        let gateway = gateway("GW", &remote_to(address));
        wait_for_line(&gateway, line, DEADLINE);
        for _ in 0..2 {
            let visit = visits.recv_timeout(DEADLINE);
            assert!(visit.is_ok(), "no second try after {line:?}");
        }
    }
}
