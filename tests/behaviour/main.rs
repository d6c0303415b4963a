//! What clients see of Sedge alone: bad input, overload, and what it costs.
//!
//! Comparisons with nats-server are in `tests/interop`; here the promise is our own.

#![allow(
    clippy::disallowed_methods,
    reason = "only the library keeps its clock in one place; tests wait in real time"
)]

mod certificates;
#[allow(dead_code, reason = "shared with the interop tests; each uses its part")]
mod raw_client;
#[allow(dead_code, reason = "shared with the interop tests; each uses its part")]
mod server;

#[path = "../../examples/soak/door.rs"]
#[allow(dead_code, reason = "shared with the soak; the tests have certificates of their own")]
mod door;
#[path = "../../examples/soak/frames.rs"]
#[allow(dead_code, reason = "shared with the soak and the interop tests; each uses its part")]
mod frames;
#[path = "../../examples/soak/load.rs"]
mod load;

mod abuse;
mod bad_input;
mod claims;
mod flood;
mod killed;
mod memory;
mod openings;
mod operation;
mod operators;
mod pages;
mod proxy;
mod secrecy;
mod slow_consumer;
mod soak;
mod storage;
mod tls;
mod web_socket;
