//! Bytes and operations: what the wire carries, and nothing about what it means.
//!
//! Owns parsing and writing of the client protocol ([`client`]), of the leaf protocol
//! ([`leaf`]) and of header blocks ([`headers`]). Works on borrowed bytes. Does not own
//! state or policy: a parser is told the limits and keeps nothing between calls.

pub mod client;
pub mod headers;
pub mod leaf;
