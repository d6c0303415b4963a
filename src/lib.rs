//! Sedge: a NATS-compatible message broker for the edge.
#![cfg_attr(not(feature = "server"), no_std)]
extern crate alloc;

pub mod auth;
pub mod broker;
#[cfg(feature = "server")]
pub mod config;
pub mod id;
pub mod jetstream;
pub mod leaf;
pub mod limits;
#[cfg(feature = "server")]
pub mod monitor;
#[cfg(feature = "server")]
pub mod net;
pub mod proto;
#[cfg(feature = "server")]
pub mod server;
mod sorted;
#[cfg(feature = "server")]
pub mod store;
pub mod subject;
pub mod time;
