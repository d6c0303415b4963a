//! Sedge: a NATS-compatible message broker for the edge.
#![cfg_attr(not(feature = "server"), no_std)]
extern crate alloc;
