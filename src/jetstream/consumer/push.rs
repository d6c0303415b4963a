//! Push delivery: whether anybody listens, idle heartbeats, flow control.
//!
//! Owns the activity of a push consumer and its flow-control window. Does not own messages:
//! `deliver` asks [`Push::may_send`] and reports what it sent.
//!
//! # Invariants
//! - Active means: a subscription on literally the deliver subject (of the deliver group, if
//!   there is one). Nothing is sent otherwise, heartbeats included.
//! - At most one flow-control request is open; with none open, at most half the window is
//!   outstanding plus one message.
//!
//! Source: nats-server 2.15.1, seen on the wire.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::config::{AckPolicy, ConsumerConfig, duration};
use super::pull::Speaker;
use crate::id::{ConsumerId, Rng};
use crate::jetstream::JetStream;
use crate::jetstream::host::{Host, Inbound};
use crate::jetstream::storage::Seq;
use crate::limits;
use crate::proto::headers;
use crate::time::{Duration, Instant, Now};

/// An open flow-control request.
#[derive(Debug)]
struct Open {
    /// Where the answer comes.
    reply: Box<[u8]>,
    /// What the answer frees.
    bytes: usize,
}

/// Flow control of one consumer.
#[derive(Debug)]
pub(super) struct Flow {
    /// `$JS.FC.<stream>.<consumer>.`
    prefix: Box<[u8]>,
    window: usize,
    outstanding: usize,
    open: Option<Open>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Push {
    pub(super) active: bool,
    /// When interest went, or creation; `None` while active.
    pub(super) idle_since: Option<Instant>,
    pub(super) flow: Option<Flow>,
    /// Zero: none.
    heartbeat: Duration,
    heartbeat_at: Instant,
}

impl Push {
    pub(super) fn new(config: &ConsumerConfig, stream: &str, name: &str, now: Now) -> Self {
        let flow = config.flow_control.then(|| Flow {
            prefix: [b"$JS.FC.", stream.as_bytes(), b".", name.as_bytes(), b"."].concat().into(),
            window: limits::FLOW_WINDOW_BYTES_MIN,
            outstanding: 0,
            open: None,
        });
        let heartbeat = duration(config.idle_heartbeat);
        Self {
            active: false,
            idle_since: Some(now.instant),
            flow,
            heartbeat,
            heartbeat_at: now.instant + heartbeat,
        }
    }

    /// Is there room for another message?
    pub(super) fn may_send(&self) -> bool {
        self.active && self.flow.as_ref().is_none_or(|flow| flow.outstanding <= flow.window)
    }

    /// When a heartbeat is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        (self.active && !self.heartbeat.is_zero()).then_some(self.heartbeat_at)
    }

    /// Interest came. Whoever had the window before is gone, so it starts anew.
    pub(super) fn activate(&mut self, now: Now) {
        self.active = true;
        self.idle_since = None;
        self.heartbeat_at = now.instant + self.heartbeat;
        self.restart();
    }

    /// The consumer begins anew for the same receiver.
    pub(super) fn restart(&mut self) {
        if let Some(flow) = &mut self.flow {
            flow.window = limits::FLOW_WINDOW_BYTES_MIN;
            flow.outstanding = 0;
            flow.open = None;
        }
    }

    /// Interest went.
    pub(super) fn deactivate(&mut self, now: Now) {
        self.active = false;
        self.idle_since = Some(now.instant);
    }

    /// A message of `bytes` was sent; true if a flow-control request should follow.
    pub(super) fn sent(&mut self, now: Now, bytes: usize) -> bool {
        self.heartbeat_at = now.instant + self.heartbeat;
        let Some(flow) = &mut self.flow else { return false };
        flow.outstanding += bytes;
        match &mut flow.open {
            None => flow.outstanding > flow.window / 2,
            Some(open) => {
                // One answer must free enough to go on, however late it comes.
                if flow.outstanding - open.bytes.min(flow.outstanding) > flow.window {
                    open.bytes = flow.outstanding;
                }
                false
            }
        }
    }

    /// Asks the receiver how far it is, unless that question is open.
    pub(super) fn ask(&mut self, to: &[u8], rng: &mut Rng, host: &mut impl Host) {
        let Some(flow) = &mut self.flow else { return };
        if flow.open.is_some() {
            return;
        }
        let mut reply = flow.prefix.to_vec();
        reply.extend_from_slice(rng.token(4).as_bytes());
        host.deliver(to, to, &reply, b"NATS/1.0 100 FlowControl Request\r\n\r\n", b"");
        flow.open = Some(Open { reply: reply.into(), bytes: flow.outstanding });
    }

    /// An answer came on `subject`. True if it was to the open question.
    fn answered(&mut self, subject: &[u8]) -> bool {
        let Some(flow) = &mut self.flow else { return false };
        // Over a leaf the answer may come on the longer form: the last token tells.
        let id = |subject: &[u8]| -> Vec<u8> {
            subject.rsplit(|&byte| byte == b'.').next().unwrap_or_default().to_vec()
        };
        let Some(open) = flow.open.take_if(|open| id(&open.reply) == id(subject)) else {
            return false;
        };
        flow.outstanding = flow.outstanding.saturating_sub(open.bytes);
        flow.window = (flow.window * 2).min(limits::FLOW_WINDOW_BYTES_MAX);
        true
    }

    /// Sends a heartbeat now. `last` are the last consumer and stream sequence.
    pub(super) fn beat(
        &mut self,
        now: Now,
        to: &[u8],
        last: (u64, Seq),
        speaker: &mut Speaker<'_, impl Host>,
    ) {
        self.heartbeat_at = now.instant + self.heartbeat;
        let (mut a, mut b) = (itoa::Buffer::new(), itoa::Buffer::new());
        let stalled = self.flow.as_ref().and_then(|flow| flow.open.as_ref());
        let mut lines: [(&str, &[u8]); 3] = [
            ("Nats-Last-Consumer", a.format(last.0).as_bytes()),
            ("Nats-Last-Stream", b.format(last.1).as_bytes()),
            ("", b""),
        ];
        let mut count = 2;
        if let Some(open) = stalled {
            lines[2] = ("Nats-Consumer-Stalled", &open.reply);
            count = 3;
        }
        speaker.scratch.clear();
        headers::write_status(
            speaker.scratch,
            "100 Idle Heartbeat",
            lines.get(..count).unwrap_or_default(),
        );
        speaker.host.deliver(to, to, b"", speaker.scratch, b"");
    }

    /// Heartbeats that are due.
    pub(super) fn tick(
        &mut self,
        now: Now,
        to: &[u8],
        last: (u64, Seq),
        speaker: &mut Speaker<'_, impl Host>,
    ) -> bool {
        if self.next_due().is_none_or(|due| due > now.instant) {
            return false;
        }
        self.beat(now, to, last, speaker);
        true
    }
}

impl JetStream {
    /// An answer to flow control on `$JS.FC.…`.
    pub fn handle_flow(
        &mut self,
        now: Now,
        id: ConsumerId,
        msg: Inbound<'_>,
        host: &mut impl Host,
    ) {
        let Some(consumer) = self.consumers.get_mut(id) else { return };
        let Some(push) = &mut consumer.push else { return };
        if !push.answered(msg.subject) {
            return;
        }
        if consumer.config.ack_policy == AckPolicy::FlowControl {
            let number = |name| {
                let text = core::str::from_utf8(headers::value(msg.headers, name)?).ok()?;
                text.trim().parse::<u64>().ok()
            };
            if let (Some(dseq), Some(seq)) =
                (number("Nats-Last-Consumer"), number("Nats-Last-Stream"))
            {
                let delivered = consumer.progress.delivered;
                let (dseq, seq) = (dseq.min(delivered.consumer), seq.min(delivered.stream));
                consumer.progress.last_ack = now.wall;
                if consumer.progress.settle_up_to(seq, dseq) > 0 {
                    consumer.mark_dirty(now);
                }
            }
        }
        self.consumer_run(now, id, host);
    }

    /// Interest on a watched subject came or went.
    pub fn handle_interest(&mut self, now: Now, subject: &[u8], host: &mut impl Host) {
        let ids: Vec<ConsumerId> = self.consumers.watching(subject).to_vec();
        for id in ids {
            self.refresh_activity(now, id, host);
        }
        self.snapshots_interest(now, subject, host);
    }

    /// Looks whether anybody listens to a push consumer, and goes on if so.
    pub(super) fn refresh_activity(&mut self, now: Now, id: ConsumerId, host: &mut impl Host) {
        if self.consumers.get(id).is_some_and(super::Consumer::is_running)
            && self.look_for_listeners(now, id, host)
        {
            self.consumer_run(now, id, host);
        }
    }

    /// Looks whether anybody listens to a push consumer; true if that changed.
    pub(super) fn look_for_listeners(
        &mut self,
        now: Now,
        id: ConsumerId,
        host: &mut impl Host,
    ) -> bool {
        let (Some(consumer), scratch) = self.consumers.get_with_scratch(id) else { return false };
        let last = consumer.heartbeat_positions();
        let Some(push) = &mut consumer.push else { return false };
        let to = consumer.config.deliver_subject.as_bytes();
        let group = consumer.config.deliver_group.as_bytes();
        let listeners = host.literal_listeners(to, group);
        let active = if group.is_empty() { listeners.plain } else { listeners.queue };
        if active == push.active {
            return false;
        }
        if active {
            push.activate(now);
            if consumer.config.sourcing && last.0 > 0 {
                // Tells the hub at once whether it missed anything, not a second later.
                push.beat(now, to, last, &mut Speaker { host, scratch });
            }
        } else {
            push.deactivate(now);
        }
        true
    }
}
