//! Many clients at once for a while: healthy ones get everything, memory stays flat.
//!
//! The same load for as long as one likes: `cargo run --release --example soak`.

use std::time::Duration;

use rustix::process::Signal;

use crate::load;
use crate::server::Server;

#[test]
fn healthy_subscribers_get_everything_while_others_come_go_and_stall() {
    let server = Server::sedge(&load::config("$DIR/store", true, 0));
    let mut reload = |generation| {
        let written = server.write_config(&load::config("$DIR/store", true, generation));
        written.expect("its folder is there");
        server.signal(Signal::HUP);
    };
    let outcome =
        load::run(server.address(), true, Duration::from_secs(20), 1, Some(&mut reload), || {
            server.resident_bytes()
        });
    assert_eq!(outcome.troubles, Vec::<String>::new(), "{}", server.log());
    assert!(outcome.is_flat(), "resident memory grows: {:?}", outcome.resident);
    assert!(outcome.delivered > 10_000 && outcome.acked > 100, "{outcome:?}");
    assert!(outcome.churned > 100 && outcome.slow > 0, "{outcome:?}");
}
