//! TLS to the hub, with an authority of our own.

use std::path::Path;
use std::time::Duration;

use crate::certificates::certificates;
use crate::raw_client::{DEADLINE, RawClient};
use crate::world::{Hub, count_lines, gateway, wait_for_line, wait_for_way};

fn hub_tls(directory: &Path, more: &str) -> String {
    let path = directory.display();
    format!("tls {{ cert_file: \"{path}/hub.pem\", key_file: \"{path}/hub.key\", {more} }}")
}

fn flows(hub_more: &str, our_more: &str, scheme: &str) {
    let Some(directory) = certificates() else { return };
    let Some(hub) = Hub::start("HUB", &hub_tls(directory.path(), hub_more), "") else { return };
    let ca = directory.path().join("ca.pem");
    let gateway = gateway(
        "GW",
        &format!(
            "{{ url: \"{scheme}://localhost:{}\", tls {{ ca_file: \"{}\", {our_more} }} }}",
            hub.leaf_address.port(),
            ca.display()
        ),
    );
    let mut above = hub.client();
    let mut below = RawClient::greet(gateway.address());
    above.send("SUB up 1\r\n");
    above.flush();
    wait_for_way(&mut below, &mut above, "up", DEADLINE);
    below.send("SUB down 1\r\n");
    below.flush();
    wait_for_way(&mut above, &mut below, "down", DEADLINE);
    let large = vec![7; 700_000];
    below.publish("up", &large);
    assert!(crate::world::next_message(&mut above).payload == large);
    above.publish("down", &large);
    assert!(crate::world::next_message(&mut below).payload == large);
}

#[test]
fn tls_follows_the_first_info() {
    flows("timeout: 2", "timeout: 2", "nats-leaf");
}

#[test]
fn tls_comes_first_when_both_sides_want_it_so() {
    flows("handshake_first: true", "handshake_first: true", "tls");
}

#[test]
fn a_hub_whose_certificate_is_not_trusted_is_left_with_a_clear_line() {
    let Some(directory) = certificates() else { return };
    let Some(hub) = Hub::start("HUB", &hub_tls(directory.path(), "timeout: 2"), "") else { return };
    let gateway =
        gateway("GW", &format!("{{ url: \"nats-leaf://localhost:{}\" }}", hub.leaf_address.port()));
    wait_for_line(&gateway, "TLS handshake with leaf node", DEADLINE);
    wait_for_line(&gateway, "certificate signed by unknown authority", Duration::from_secs(1));
    assert_eq!(count_lines(&gateway, "created for account"), 0);
}

#[test]
fn a_certificate_for_another_name_is_not_accepted() {
    let Some(directory) = certificates() else { return };
    let Some(hub) = Hub::start("HUB", &hub_tls(directory.path(), "timeout: 2"), "") else { return };
    let ca = directory.path().join("ca.pem");
    let gateway = gateway(
        "GW",
        &format!(
            "{{ url: \"nats-leaf://{}\", tls {{ ca_file: \"{}\" }} }}",
            hub.leaf_address,
            ca.display()
        ),
    );
    wait_for_line(&gateway, "TLS handshake with leaf node", DEADLINE);
    assert_eq!(count_lines(&gateway, "created for account"), 0);
}
