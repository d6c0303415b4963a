//! Events about consumers, for whoever listens.
//!
//! Owns their subjects and bodies. Nothing is built when nobody listens.
//!
//! Source: seen from nats-server 2.15.1.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Serialize, Serializer};

use super::ack::Settled;
use super::state::PendingAck;
use crate::id::ConsumerId;
use crate::jetstream::JetStream;
use crate::jetstream::host::Host;
use crate::jetstream::storage::Seq;
use crate::time::{Now, Timestamp, nanos};

/// Length of the id of an event.
const ID_LEN: usize = 22;

#[derive(Serialize)]
struct Event<'a> {
    r#type: String,
    id: String,
    #[serde(serialize_with = "write_time")]
    timestamp: Timestamp,
    stream: &'a str,
    consumer: &'a str,
    #[serde(flatten)]
    details: Details<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<&'a str>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn write_time<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(time)
}

#[derive(Serialize)]
#[serde(untagged)]
enum Details<'a> {
    Action {
        action: &'a str,
    },
    Pause {
        paused: bool,
        #[serde(serialize_with = "write_time")]
        pause_until: Timestamp,
    },
    Pinned {
        account: &'a str,
        group: &'a str,
        pinned_id: &'a str,
    },
    Unpinned {
        account: &'a str,
        group: &'a str,
        reason: &'a str,
    },
    MaxDeliver {
        stream_seq: Seq,
        deliveries: u32,
    },
    Settled {
        consumer_seq: u64,
        stream_seq: Seq,
        deliveries: u32,
        #[serde(skip_serializing_if = "String::is_empty")]
        reason: String,
    },
    Ack {
        consumer_seq: u64,
        stream_seq: Seq,
        ack_time: u64,
        deliveries: u32,
    },
}

impl JetStream {
    fn advise(
        &mut self,
        now: Now,
        id: ConsumerId,
        prefix: &str,
        kind: &str,
        details: Details<'_>,
        host: &mut impl Host,
    ) {
        let Some(consumer) = self.consumers.get(id) else { return };
        let Some(stream) = self.streams.get(&consumer.stream) else { return };
        let subject = format!("{prefix}.{}.{}", stream.name, consumer.name);
        if !host.has_interest(subject.as_bytes()) {
            return;
        }
        let event = Event {
            r#type: format!("io.nats.jetstream.{kind}"),
            id: self.rng.token(ID_LEN),
            timestamp: now.wall,
            stream: &stream.name,
            consumer: &consumer.name,
            details,
            domain: self.options.domain.as_deref(),
        };
        let body: Vec<u8> = serde_json::to_vec(&event).unwrap_or_default();
        host.deliver(subject.as_bytes(), subject.as_bytes(), b"", b"", &body);
    }

    /// It was created or deleted.
    pub(super) fn advise_action(
        &mut self,
        now: Now,
        id: ConsumerId,
        action: &str,
        host: &mut impl Host,
    ) {
        let verb = if action == "create" { "CREATED" } else { "DELETED" };
        let prefix = format!("$JS.EVENT.ADVISORY.CONSUMER.{verb}");
        let details = Details::Action { action };
        self.advise(now, id, &prefix, "advisory.v1.consumer_action", details, host);
    }

    /// It was paused or resumed.
    pub(super) fn advise_pause(&mut self, now: Now, id: ConsumerId, host: &mut impl Host) {
        let Some(consumer) = self.consumers.get(id) else { return };
        let details = Details::Pause {
            paused: consumer.is_paused(now),
            pause_until: consumer.config.pause_until.unwrap_or_default(),
        };
        let prefix = "$JS.EVENT.ADVISORY.CONSUMER.PAUSE";
        self.advise(now, id, prefix, "advisory.v1.consumer_pause", details, host);
    }

    /// Who is pinned.
    pub(super) fn advise_pinned(&mut self, now: Now, id: ConsumerId, host: &mut impl Host) {
        let Some(consumer) = self.consumers.get(id) else { return };
        let (Some(pin), Some(group)) = (&consumer.pin, consumer.config.priority_groups.first())
        else {
            return;
        };
        let (pinned_id, group) = (pin.id.clone(), group.clone());
        let account = self.options.account.clone();
        let details = Details::Pinned { account: &account, group: &group, pinned_id: &pinned_id };
        let prefix = "$JS.EVENT.ADVISORY.CONSUMER.PINNED";
        self.advise(now, id, prefix, "advisory.v1.consumer_group_pinned", details, host);
    }

    /// Nobody is pinned any more.
    pub(super) fn advise_unpinned(
        &mut self,
        now: Now,
        id: ConsumerId,
        reason: &str,
        host: &mut impl Host,
    ) {
        let group = self.consumers.get(id).and_then(|c| c.config.priority_groups.first());
        let group = group.cloned().unwrap_or_default();
        let account = self.options.account.clone();
        let details = Details::Unpinned { account: &account, group: &group, reason };
        let prefix = "$JS.EVENT.ADVISORY.CONSUMER.UNPINNED";
        self.advise(now, id, prefix, "advisory.v1.consumer_group_unpinned", details, host);
    }

    /// A message was refused, or is not delivered any more.
    #[expect(clippy::too_many_arguments, reason = "the fields of the event")]
    pub(super) fn advise_settled(
        &mut self,
        now: Now,
        id: ConsumerId,
        seq: Seq,
        dseq: u64,
        deliveries: u32,
        what: Settled<'_>,
        host: &mut impl Host,
    ) {
        let settled =
            |reason| Details::Settled { consumer_seq: dseq, stream_seq: seq, deliveries, reason };
        let (verb, kind, details) = match what {
            Settled::Nak => ("MSG_NAKED", "nak", settled(String::new())),
            Settled::Terminated(reason) => (
                "MSG_TERMINATED",
                "terminated",
                settled(String::from_utf8_lossy(reason).into_owned()),
            ),
            Settled::Exhausted => (
                "MAX_DELIVERIES",
                "max_deliver",
                Details::MaxDeliver { stream_seq: seq, deliveries },
            ),
        };
        let prefix = format!("$JS.EVENT.ADVISORY.CONSUMER.{verb}");
        self.advise(now, id, &prefix, &format!("advisory.v1.{kind}"), details, host);
    }

    /// The share of acks that `sample_freq` asks for is measured.
    pub(super) fn advise_sample(
        &mut self,
        now: Now,
        id: ConsumerId,
        entry: &PendingAck,
        dseq: u64,
        deliveries: u32,
        host: &mut impl Host,
    ) {
        let Some(consumer) = self.consumers.get(id) else { return };
        let share = consumer.config.sampling();
        if share == 0 || (share < 100 && self.rng.below(100) >= share) {
            return;
        }
        let details = Details::Ack {
            consumer_seq: dseq,
            stream_seq: entry.seq,
            ack_time: nanos(now.instant.since(entry.sent)),
            deliveries,
        };
        let prefix = "$JS.EVENT.METRIC.CONSUMER.ACK";
        self.advise(now, id, prefix, "metric.v1.consumer_ack", details, host);
    }
}
