//! Many clients at once for a while: healthy ones get everything, memory stays flat.
//!
//! The same load for as long as one likes: `cargo run --release --example soak`.

use std::time::Duration;

use rustix::process::Signal;

use crate::certificates;
use crate::door::Doors;
use crate::load;
use crate::server::Server;

#[test]
fn healthy_subscribers_get_everything_while_others_come_go_and_stall() {
    let certificates = certificates::certificates();
    let folder = certificates.as_ref().map(|folder| folder.path().display().to_string());
    let config = |generation| load::config("$DIR/store", folder.as_deref(), true, generation);
    let server = Server::sedge(&config(0));
    let doors = Doors {
        plain: server.address(),
        tls: certificates.as_ref().map(|folder| certificates::client_config(folder.path(), None)),
        web: server.listener("Listening for websocket clients on ws://").ok(),
    };
    let mut reload = |generation| {
        let written = server.write_config(&config(generation));
        written.expect("its folder is there");
        server.signal(Signal::HUP);
    };
    let outcome = load::run(&doors, true, Duration::from_secs(20), 1, Some(&mut reload), || {
        server.resident_bytes()
    });
    assert_eq!(outcome.troubles, Vec::<String>::new(), "{}", server.log());
    assert!(outcome.is_flat(), "resident memory grows: {:?}", outcome.resident);
    assert!(outcome.delivered > 10_000 && outcome.acked > 100, "{outcome:?}");
    assert!(outcome.churned > 100 && outcome.slow > 0, "{outcome:?}");
}
