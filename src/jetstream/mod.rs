//! JetStream: streams, consumers and the `$JS.API`.
//!
//! Owns what streams and consumers there are, their configurations, the API, delivery and
//! acknowledgement. Does not own messages on disk ([`engine`] applies, `store` keeps), nor
//! interest and sockets (the [`Host`] does).
//!
//! The run-loop contract: one call of a `handle_*` method, which may call the host any
//! number of times; then [`JetStream::flush`] at the end of the turn; then
//! [`JetStream::poll_timeout`] says when [`JetStream::handle_timeout`] is due. No method
//! blocks, and none panics on what a client or the disk says.
//!
//! # Invariants
//! - No PubAck leaves before the store has answered the publish.
//! - A consumer delivers only messages whose publish the store has answered.
//! - Every request to the store that wants a reply has exactly one entry in `waiting`.
//!
//! Source: ADR-1 (JSON API), ADR-13 (pull), ADR-17 (ordered), ADR-31 (direct get), ADR-8 (KV);
//! nats-server 2.15.1 where they are silent.

pub mod host;
pub mod storage;
