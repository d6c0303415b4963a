//! Sedge: a NATS-compatible message broker for the edge.
#![cfg_attr(not(feature = "server"), no_std)]
extern crate alloc;

pub mod broker;
pub mod id;
pub mod jetstream;
pub mod limits;
pub mod proto;
pub mod subject;
pub mod time;
