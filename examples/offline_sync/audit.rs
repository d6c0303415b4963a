//! The audit: reads what the hub stored and compares it with what the sensors were acked.

use std::collections::BTreeSet;
use std::error::Error;
use std::time::Duration;

use async_nats::HeaderValue;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::stream::Stream;
use futures_util::StreamExt;
use tokio::time::timeout;

/// How long the hub may take to deliver the next message of its own stream.
const MESSAGE_WAIT: Duration = Duration::from_secs(10);

/// What the hub's stream holds of one round.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Audit {
    /// Readings of the round, copies included.
    pub(crate) at_hub: u64,
    /// Acked readings that are not there.
    pub(crate) lost: u64,
    /// Readings that are there once more than they should be.
    pub(crate) doubled: u64,
    /// Readings that came after a later one of the same sensor.
    pub(crate) disordered: u64,
    /// Messages that are no reading of this round.
    pub(crate) foreign: u64,
}

/// Counts messages in the order of the hub's stream.
struct Counter {
    audit: Audit,
    round: usize,
    /// Per sensor, the numbers of its readings so far.
    seen: Vec<BTreeSet<u64>>,
}

impl Counter {
    fn new(round: usize, sensors: usize) -> Self {
        Self { audit: Audit::default(), round, seen: vec![BTreeSet::new(); sensors] }
    }

    /// Counts the next message, which has this `Nats-Msg-Id`.
    fn count(&mut self, id: Option<&str>) {
        let parsed = id.and_then(|id| parse_id(id, self.round));
        let Some((seen, number)) =
            parsed.and_then(|(sensor, number)| Some((self.seen.get_mut(sensor)?, number)))
        else {
            self.audit.foreign += 1;
            return;
        };
        self.audit.at_hub += 1;
        let latest = seen.last().copied().unwrap_or(0);
        if !seen.insert(number) {
            self.audit.doubled += 1;
        } else if number < latest {
            self.audit.disordered += 1;
        }
    }

    /// The audit, once every message was counted. `acked` has for each sensor how many of its
    /// readings were acked; they are numbered from 1.
    fn finish(mut self, acked: &[u64]) -> Audit {
        for (seen, acked) in self.seen.iter().zip(acked) {
            self.audit.lost += (1..=*acked).filter(|number| !seen.contains(number)).count() as u64;
        }
        self.audit
    }
}

/// Reads the hub's stream from `first_seq` to `last_seq` and compares it with `acked`, which
/// has for each sensor how many of its readings were acked (they are numbered from 1).
pub(crate) async fn audit(
    stream: &Stream,
    first_seq: u64,
    last_seq: u64,
    round: usize,
    acked: &[u64],
) -> Result<Audit, Box<dyn Error>> {
    let mut counter = Counter::new(round, acked.len());
    if first_seq <= last_seq {
        let consumer = stream
            .create_consumer(pull::OrderedConfig {
                deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: first_seq },
                headers_only: true,
                ..pull::OrderedConfig::default()
            })
            .await?;
        let mut messages = consumer.messages().await?;
        loop {
            let message = timeout(MESSAGE_WAIT, messages.next())
                .await
                .map_err(|_elapsed| "the hub stopped delivering its own stream")?
                .ok_or("the hub ended the delivery of its own stream")??;
            let stream_seq = message
                .info()
                .map_err(|error| format!("a message without position: {error}"))?
                .stream_sequence;
            let id = message.headers.as_ref().and_then(|headers| headers.get("Nats-Msg-Id"));
            counter.count(id.map(HeaderValue::as_str));
            if stream_seq >= last_seq {
                break;
            }
        }
    }
    Ok(counter.finish(acked))
}

/// Sensor and number of the id `<round>.<sensor>.<number>`, if it is of this round.
fn parse_id(id: &str, round: usize) -> Option<(usize, u64)> {
    let mut parts = id.split('.');
    if parts.next()?.parse() != Ok(round) {
        return None;
    }
    let parsed = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(ids: &[&str], acked: &[u64]) -> Audit {
        let mut counter = Counter::new(7, acked.len());
        for id in ids {
            counter.count(Some(id));
        }
        counter.finish(acked)
    }

    #[test]
    fn each_acked_reading_once_and_in_order_is_good() {
        // Number 3 was stored but its ack never came, which is no fault.
        let audit = count(&["7.0.1", "7.1.1", "7.0.2", "7.0.3"], &[2, 1]);
        assert_eq!(audit, Audit { at_hub: 4, ..Audit::default() });
    }

    #[test]
    fn faults_are_told_apart() {
        let audit = count(&["7.0.1", "7.0.3", "7.0.3", "7.0.2", "6.0.1", "7.9.1"], &[5]);
        assert_eq!(audit, Audit { at_hub: 4, lost: 2, doubled: 1, disordered: 1, foreign: 2 });
    }

    #[test]
    fn a_message_without_an_id_is_foreign() {
        let mut counter = Counter::new(0, 1);
        counter.count(None);
        assert_eq!(counter.finish(&[0]).foreign, 1);
    }
}
