//! The configuration language against nats-server itself, and against rubbish.
//!
//! The server is named by `NATS_SERVER`, or lies under `target/peers`. Without it the
//! comparison is left out loudly; with `SEDGE_REQUIRE_PEERS=1` that is a failure.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod agreement;
mod command_line;
mod files;
mod log_lines;
mod rubbish;
mod transforms;
