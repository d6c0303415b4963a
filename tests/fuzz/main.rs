//! Does any input panic, hang, grow memory or garble what a server says?
//!
//! Mutation fuzzing on stable, without instrumentation: inputs of a corpus are changed, cut,
//! spliced and filled with words of the language in question; an input that makes a target
//! behave in a new way is changed further. Every target is a test.
//!
//! `SEDGE_FUZZ_SECONDS` says how long each target runs (default 5), `SEDGE_SEED` which run it
//! is (default 1): the same seed tries the same inputs in the same order. An input that fails
//! is made small, written to `target/fuzz/TARGET/`, and named in the message; it belongs into
//! `tests/fuzz/corpus/TARGET/`, whose files are all tried first, and gets a named test beside
//! the code.
//!
//! - `engine`: how inputs are made, run, watched and made small.
//! - `world`: a broker with its connections, and what always has to hold.

#![allow(
    clippy::disallowed_methods,
    reason = "only the library keeps its clock in one place; a fuzzer counts real seconds"
)]

mod engine;
mod world;

mod api;
mod client;
mod config;
mod creds;
mod headers;
mod http;
mod leaf;
mod tokens;
