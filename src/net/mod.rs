//! The shell's hands: sockets, readiness, dialling, signals and the clocks.
//!
//! Owns all I/O but files. Does not own decisions: what is read goes to the broker, what the
//! broker has waiting is written. The loop that ties them is `crate::server`.

pub mod certificate;
pub mod clock;
pub mod dial;
pub mod opening;
pub mod poller;
pub mod proxy;
pub mod signals;
pub mod socket;
pub mod tls;
pub mod tls_server;
pub mod tls_session;
pub mod websocket;
