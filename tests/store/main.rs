//! The store, from outside: against a naive model, across power cuts, on damaged files.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod crash;
mod damage;
mod journal;
mod model;
mod rules;
mod threads;
mod world;
