//! A gateway as leaf node of a real nats-server: what its clients and the hub's see.
//!
//! Needs nats-server (`./tests/run` brings it). Without it every test here says that it was
//! left out; with `SEDGE_REQUIRE_PEERS=1` it fails instead.

#![allow(
    clippy::disallowed_methods,
    reason = "only the library keeps its clock in one place; tests wait in real time"
)]

#[path = "../behaviour/certificates.rs"]
#[allow(dead_code, reason = "shared with the behaviour tests; each uses its part")]
mod certificates;
#[path = "../interop/peers.rs"]
#[allow(dead_code, reason = "shared with the interop tests; each uses its part")]
mod peers;
#[path = "../behaviour/raw_client.rs"]
#[allow(dead_code, reason = "shared with the behaviour tests; each uses its part")]
mod raw_client;
#[path = "../behaviour/server.rs"]
#[allow(dead_code, reason = "shared with the behaviour tests; each uses its part")]
mod server;

mod login;
mod outage;
mod relay;
mod routing;
mod sourcing;
mod tls;
mod world;
