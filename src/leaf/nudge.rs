//! Waking a hub that waits for an answer it can no longer get.
//!
//! A hub whose stream sources from ours asks for a consumer and waits up to 30 s for the
//! answer, then 10 s more. If the link broke in between, that wait outlives the outage. Its
//! reply subject shows in the interest the hub sends on connect, and no request comes with
//! it. Refusing the API level on that subject makes the hub ask again at once; it is the
//! mildest refusal, since the hub only leaves out what older servers do not know.
//!
//! A hub asks again only once it heard nothing for 10 s, so after a shorter outage what looks
//! like such a wait mostly is a request on its way to another leaf node. It still may be one
//! of ours: made in the moment before the link broke, or by a hub that restarted and asked
//! before we were back. What is still open after some round trips is answered too.
//!
//! Measured with nats-server 2.15.1 and outages of 20 to 24 s: complete 34 s after the link
//! was back without this, 0.02 s with an answer at once, 0.24 s with one after 200 ms.
//!
//! Owns the watch for such inboxes. Does not publish: [`Nudge::poll`] says what to answer.
//!
//! # Invariants
//! - Only inboxes from the burst of a new connection are answered, each once.
//! - An inbox whose request did arrive is left to the answer of that request.
//!
//! Source: behaviour of nats-server 2.15.1 across outages of 14 s.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;

use crate::time::Instant;

/// From the end of the burst to the answer. The hub would take it at once; the wait is for
/// requests it made to other leaf nodes, whose inboxes look the same. Where many come back
/// together, answering each other's would keep the hub from ever hearing a real answer, so
/// they get the time of a round trip.
pub const NUDGE_DELAY: Duration = Duration::from_millis(200);
/// The same after an outage shorter than [`NUDGE_AFTER`]: long enough for any other leaf node
/// that is there to have answered.
pub const NUDGE_DELAY_SHORT: Duration = Duration::from_secs(2);
/// An outage shorter than this rarely leaves such a wait behind. Below the hub's 10 s, because it
/// counts from the last byte it got.
pub const NUDGE_AFTER: Duration = Duration::from_secs(8);
/// Inboxes watched on one connection. More are left to the hub's own timers.
const INBOXES_MAX: usize = 1024;
const INBOX_PREFIX: &[u8] = b"$JSC.R.";

/// The answer: an API level we do not have, which the hub then lowers.
pub const NUDGE_ANSWER: &[u8] = br#"{"type":"io.nats.jetstream.api.v1.consumer_create_response","error":{"code":412,"err_code":10185,"description":"JetStream minimum api level required"}}"#;

/// The inboxes of one connection.
#[derive(Debug, Default)]
pub struct Nudge {
    /// In the burst of a connection.
    watching: bool,
    /// From the end of the burst.
    delay: Duration,
    open: BTreeSet<Box<[u8]>>,
    fire_at: Option<Instant>,
}

impl Nudge {
    /// A connection became ready; `outage` is how long there was none before, `None` if
    /// there never was one.
    pub fn begin(&mut self, outage: Option<Duration>) {
        let long = outage.is_none_or(|outage| outage >= NUDGE_AFTER);
        self.delay = if long { NUDGE_DELAY } else { NUDGE_DELAY_SHORT };
        self.watching = true;
    }

    /// The hub wants `subject`.
    pub fn handle_add(&mut self, subject: &[u8]) {
        let is_inbox = subject
            .strip_prefix(INBOX_PREFIX)
            .is_some_and(|token| !token.is_empty() && !token.contains(&b'.'));
        if is_inbox && self.watching && self.open.len() < INBOXES_MAX {
            self.open.insert(subject.into());
        }
    }

    /// The hub no longer wants `subject`, or sent a request that asks for an answer there.
    pub fn handle_settled(&mut self, subject: &[u8]) {
        if subject.starts_with(INBOX_PREFIX) {
            self.open.remove(subject);
        }
    }

    /// All the interest the hub had when we connected has arrived.
    pub fn handle_burst_end(&mut self, now: Instant) {
        self.watching = false;
        self.fire_at = (!self.open.is_empty()).then_some(now + self.delay);
    }

    /// When to call [`Nudge::poll`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.fire_at
    }

    /// Subjects to send [`NUDGE_ANSWER`] to, if it is time.
    pub fn poll(&mut self, now: Instant) -> Vec<Box<[u8]>> {
        if self.fire_at.is_none_or(|at| now < at) {
            return Vec::new();
        }
        self.fire_at = None;
        core::mem::take(&mut self.open).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Instant {
        Instant(milliseconds * 1_000_000)
    }

    #[test]
    fn after_a_short_outage_only_what_stays_open_is_answered() {
        let mut nudge = Nudge::default();
        nudge.begin(Some(Duration::from_secs(7)));
        nudge.handle_add(b"$JSC.R.elsewhere");
        nudge.handle_add(b"$JSC.R.lost");
        nudge.handle_burst_end(at(0));
        assert!(nudge.poll(at(1900)).is_empty());
        nudge.handle_settled(b"$JSC.R.elsewhere");
        assert_eq!(nudge.poll(at(2000)), [Box::from(&b"$JSC.R.lost"[..])]);
    }

    #[test]
    fn an_inbox_without_request_is_answered_once() {
        let mut nudge = Nudge::default();
        nudge.begin(Some(Duration::from_secs(14)));
        nudge.handle_add(b"$JSC.R.abcdefgh");
        nudge.handle_add(b"$JS.S.abcdefgh");
        nudge.handle_add(b"$JSC.R.>.x");
        assert_eq!(nudge.poll_timeout(), None);
        nudge.handle_burst_end(at(100));
        assert!(nudge.poll(at(299)).is_empty());
        assert_eq!(nudge.poll(at(300)), [Box::from(&b"$JSC.R.abcdefgh"[..])]);
        assert!(nudge.poll(at(9999)).is_empty());
        assert_eq!(nudge.poll_timeout(), None);
    }

    #[test]
    fn requests_that_arrive_and_inboxes_of_later_are_left_alone() {
        let mut nudge = Nudge::default();
        nudge.begin(None);
        nudge.handle_add(b"$JSC.R.one");
        nudge.handle_add(b"$JSC.R.two");
        nudge.handle_burst_end(at(0));
        nudge.handle_settled(b"$JSC.R.one");
        nudge.handle_settled(b"$JSC.R.two");
        nudge.handle_add(b"$JSC.R.three");
        assert!(nudge.poll(at(1000)).is_empty());
    }

    #[test]
    fn the_answer_is_json_with_the_code_that_lowers_the_level() {
        let answer: serde_json::Value = serde_json::from_slice(NUDGE_ANSWER).unwrap();
        assert_eq!(answer["error"]["err_code"], 10185);
    }
}
