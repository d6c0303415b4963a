//! Priority groups: which of several pullers is served.
//!
//! Owns what a pull request claims, who is pinned, and the choice among those who wait. Does
//! not own the queue (`pull`), nor messages (`deliver`).
//!
//! # Invariants
//! - Only the first group of a consumer has state, as with nats-server; others may be named.
//! - A request of the one who is pinned carries the id of the pin from its first message on,
//!   so that it ends with the pin.
//!
//! Source: ADR-42; order and texts seen from nats-server 2.15.1.

use alloc::string::String;
use alloc::vec::Vec;

use serde::Serialize;

use super::Consumer;
use super::config::{ConsumerConfig, PriorityPolicy, duration};
use super::info::write_time;
use super::pull::{NextRequest, Speaker, Waiting};
use crate::id::{ConsumerId, Rng};
use crate::jetstream::JetStream;
use crate::jetstream::host::Host;
use crate::time::{Instant, Now, Timestamp};

/// Length of the id of a pin.
const PIN_ID_LEN: usize = 22;

/// What a request says about its turn.
#[derive(Debug, Default)]
pub(super) struct Claim {
    /// Of the pin it thinks it has; empty: none.
    id: String,
    /// Zero, like the other threshold: not given.
    min_pending: u64,
    min_ack_pending: u64,
}

/// Who is pinned.
#[derive(Debug)]
pub(super) struct Pin {
    pub(super) id: String,
    since: Timestamp,
    /// When it goes, unless a request of its own comes before.
    until: Instant,
    /// Has a message gone out with it?
    pub(super) used: bool,
}

/// What decides about the turn besides the requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stock {
    /// Messages not delivered, the one at hand included.
    pub(super) pending: u64,
    pub(super) ack_pending: u64,
}

/// What a look for the next receiver came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// The front request.
    Front,
    /// Nobody has the pin: the front request should.
    Pin,
    /// Nobody who waits may have it.
    Nobody,
}

/// What the API tells about a group.
#[derive(Debug, Serialize)]
pub(super) struct GroupState<'a> {
    group: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pinned_client_id: &'a str,
    #[serde(serialize_with = "write_time")]
    pinned_ts: Timestamp,
}

/// The text after `Bad Request - ` of a request that does not fit the policy.
pub(super) fn mistake(config: &ConsumerConfig, request: &NextRequest) -> Option<&'static str> {
    if !request.is_json {
        return None;
    }
    let policy = config.priority_policy;
    let thresholds = request.min_pending > 0 || request.min_ack_pending > 0;
    Some(if thresholds && policy != PriorityPolicy::Overflow {
        "Not a Overflow Priority consumer"
    } else if !request.id.is_empty() && policy != PriorityPolicy::PinnedClient {
        "Not a Pinned Client Priority consumer"
    } else if !(0..=9).contains(&request.priority) {
        "Priority must be between 0 and 9"
    } else if policy == PriorityPolicy::None {
        return None;
    } else if request.group.is_empty() {
        "Priority Group missing"
    } else if !config.priority_groups.contains(&request.group) {
        "Invalid Priority Group"
    } else {
        return None;
    })
}

impl Claim {
    /// Of a request that fits the policy; `None`: it claims nothing.
    pub(super) fn new(policy: PriorityPolicy, request: &mut NextRequest) -> Option<Self> {
        let threshold = |number| u64::try_from(number).unwrap_or(0);
        (policy != PriorityPolicy::None && request.is_json).then(|| Self {
            id: core::mem::take(&mut request.id),
            min_pending: threshold(request.min_pending),
            min_ack_pending: threshold(request.min_ack_pending),
        })
    }

    fn is_met(&self, stock: Stock) -> bool {
        let met = |least: u64, there: u64| least > 0 && least <= there;
        (self.min_pending == 0 && self.min_ack_pending == 0)
            || met(self.min_pending, stock.pending)
            || met(self.min_ack_pending, stock.ack_pending)
    }
}

impl Waiting {
    /// Brings whoever is to have the next message to the front.
    pub(super) fn choose(
        &mut self,
        policy: PriorityPolicy,
        pin: Option<&str>,
        stock: Stock,
        to: &mut Speaker<'_, impl Host>,
    ) -> Choice {
        for _ in 0..self.len() {
            let Some(request) = self.first() else { break };
            let choice = match (policy, &request.claim) {
                _ if request.unheard => Some(Choice::Nobody),
                (PriorityPolicy::Overflow, Some(claim)) if !claim.is_met(stock) => {
                    Some(Choice::Nobody)
                }
                (PriorityPolicy::PinnedClient, claim) => match (pin, claim) {
                    (None, None) => Some(Choice::Front),
                    (None, Some(claim)) if claim.id.is_empty() => Some(Choice::Pin),
                    (Some(pin), Some(claim)) if claim.id == pin => Some(Choice::Front),
                    (Some(_), None) => Some(Choice::Nobody),
                    (Some(_), Some(claim)) if claim.id.is_empty() => Some(Choice::Nobody),
                    (_, Some(_)) => None,
                },
                _ => Some(Choice::Front),
            };
            match choice {
                Some(Choice::Nobody) => self.rotate(),
                Some(choice) => return choice,
                None => self.end_first("423 Nats-Wrong-Pin-Id", to),
            }
        }
        // In order of priority, one that cannot be reached stays in front of the others.
        if policy == PriorityPolicy::Prioritized && self.front().is_some() {
            return Choice::Front;
        }
        Choice::Nobody
    }
}

impl Consumer {
    /// The front request is pinned from now on.
    pub(super) fn pin_front(&mut self, now: Now, rng: &mut Rng) {
        let id = rng.token(PIN_ID_LEN);
        if let Some(claim) = self.waiting.first_claim() {
            claim.id.clone_from(&id);
        }
        let until = now.instant + duration(self.config.priority_timeout);
        self.pin = Some(Pin { id, since: now.wall, until, used: false });
    }

    /// When the pin goes.
    pub(super) fn pin_due(&self) -> Option<Instant> {
        self.pin.as_ref().map(|pin| pin.until)
    }

    /// A request came with this id. False: it is not that of the pin.
    pub(super) fn note_pin_id(&mut self, now: Now, id: &str) -> bool {
        let until = now.instant + duration(self.config.priority_timeout);
        match &mut self.pin {
            Some(pin) if !id.is_empty() => {
                if pin.id != id {
                    return false;
                }
                pin.until = until;
            }
            _ => {}
        }
        true
    }

    /// What the API tells about the groups.
    pub(super) fn group_states(&self) -> Vec<GroupState<'_>> {
        let (pinned_client_id, pinned_ts) =
            self.pin.as_ref().map_or(("", Timestamp(0)), |pin| (&pin.id, pin.since));
        let states = self.config.priority_groups.iter().take(1);
        states.map(|group| GroupState { group, pinned_client_id, pinned_ts }).collect()
    }
}

impl JetStream {
    /// Takes the pin away, if it is time.
    pub(super) fn unpin_late(&mut self, now: Now, id: ConsumerId, host: &mut impl Host) {
        let Some(consumer) = self.consumers.get_mut(id) else { return };
        if consumer.pin_due().is_some_and(|due| due <= now.instant) {
            consumer.pin = None;
            self.advise_unpinned(now, id, "timeout", host);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jetstream::consumer::pull::parse_body;

    #[test]
    fn a_threshold_is_met_by_what_there_is() {
        let claim = |body: &str| {
            let mut request = parse_body(body.as_bytes()).unwrap();
            Claim::new(PriorityPolicy::Overflow, &mut request).unwrap()
        };
        let stock = Stock { pending: 5, ack_pending: 2 };
        assert!(claim("{}").is_met(stock), "who asks for nothing is served");
        assert!(claim(r#"{"min_pending":5}"#).is_met(stock));
        assert!(!claim(r#"{"min_pending":6}"#).is_met(stock));
        assert!(claim(r#"{"min_pending":6,"min_ack_pending":2}"#).is_met(stock));
        assert!(!claim(r#"{"min_ack_pending":3}"#).is_met(stock));
    }

    #[test]
    fn a_body_that_is_not_json_is_asked_for_no_group() {
        let config = ConsumerConfig {
            priority_policy: PriorityPolicy::Prioritized,
            priority_groups: Vec::from(["g".into()]),
            ..ConsumerConfig::default()
        };
        let text = |body: &str| mistake(&config, &parse_body(body.as_bytes()).unwrap());
        assert_eq!(text("5"), None);
        assert_eq!(text("{}"), Some("Priority Group missing"));
        assert_eq!(text(r#"{"group":"h"}"#), Some("Invalid Priority Group"));
        assert_eq!(text(r#"{"group":"g","priority":9}"#), None);
        assert_eq!(
            text(r#"{"group":"g","priority":10}"#),
            Some("Priority must be between 0 and 9")
        );
    }
}
