//! Monitoring: Sedge and nats-server in the same state, page by page and service by service.
//!
//! Each page and each answer is compared member by member: names, order, types, and the values
//! that must agree. What may differ is listed in `differences`, each with its reason.
//!
//! Needs nats-server (`./tests/run` brings it) and openssl. Without them the comparisons say
//! that they were left out; with `SEDGE_REQUIRE_PEERS=1` they fail instead.

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
#[path = "../leaf/world.rs"]
#[allow(dead_code, reason = "shared with the leaf tests; each uses its part")]
mod world;

mod differences;
mod events;
mod metrics;
mod pages;
mod shape;
mod state;
