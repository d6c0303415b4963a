//! Permissions: what a user may publish and subscribe to.
//!
//! Owns the rules and their evaluation. Does not own where they are asked (the broker) nor
//! the replies granted by [`Responses`] to one connection.
//!
//! Source: NATS docs, "Authorization", "Subject-level permissions", "Allow responses".

use alloc::string::String;
use alloc::vec::Vec;

use crate::time::Duration;

/// What a user may do. The default allows everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Subjects to publish to; its entries have no queue.
    pub publish: Rules,
    /// Subjects to subscribe to.
    pub subscribe: Rules,
    /// The right to answer what was received.
    pub responses: Option<Responses>,
}

/// An allow and a deny list; deny wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// What is allowed; empty: everything that is not denied.
    pub allow: Vec<Entry>,
    /// What is denied.
    pub deny: Vec<Entry>,
}

/// One entry of a list: a subject, and for subscriptions perhaps a queue group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Wildcards allowed.
    pub subject: String,
    /// Queue group, wildcard tokens allowed; `None`: with and without a group.
    pub queue: Option<String>,
}

/// `allow_responses`: each message delivered with a reply may be answered there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Responses {
    /// Answers to one message; `None`: any number. Default 1.
    pub max: Option<u32>,
    /// How long after the delivery; `None`: for ever. Default 2 minutes.
    pub expires: Option<Duration>,
}
