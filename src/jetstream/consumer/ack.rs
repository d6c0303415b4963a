//! Acknowledgements: what one says and what it does.
//!
//! Owns the reading of ack subjects and payloads, and the effect of each kind. Does not own
//! the bookkeeping (`state`) nor when it becomes durable (`saving`).
//!
//! # Invariants
//! - An ack is identified by the stream sequence in its subject alone; the rest of the
//!   subject is not believed beyond what the policy `all` needs.
//! - A confirmed ack (one with a reply) is answered after what it settled is durable.

use core::str;

use super::config::AckPolicy;
use super::config::duration;
use super::pull;
use crate::id::ConsumerId;
use crate::jetstream::JetStream;
use crate::jetstream::host::{Host, Inbound};
use crate::jetstream::storage::Seq;
use crate::subject;
use crate::time::{Duration, Now};

/// What the subject of an ack names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AckSubject {
    pub(super) deliveries: u64,
    pub(super) seq: Seq,
    pub(super) dseq: u64,
}

/// Reads `$JS.ACK.<stream>.<consumer>.<dc>.<sseq>.<dseq>.<ts>.<pending>`, or the longer form
/// with domain and account hash before the stream.
pub(super) fn parse_subject(subject: &[u8]) -> Option<AckSubject> {
    let count = subject::tokens(subject).count();
    let skip = match count {
        9 => 4,
        11.. => 6,
        _ => return None,
    };
    let mut tokens = subject::tokens(subject).skip(skip);
    let mut next = || number(tokens.next()?);
    Some(AckSubject { deliveries: next()?, seq: next()?, dseq: next()? })
}

fn number(token: &[u8]) -> Option<u64> {
    if token.is_empty() || token.len() > 20 {
        return None;
    }
    token.iter().try_fold(0_u64, |sum, &byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// What the payload of an ack asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AckKind<'a> {
    /// Done.
    Ack,
    /// Deliver again, now or after a delay.
    Nak(Option<Duration>),
    /// Still working.
    Progress,
    /// Done, and the rest is a pull request.
    Next(&'a [u8]),
    /// Never deliver again, for this reason.
    Term(&'a [u8]),
    /// None of these.
    Unknown,
}

/// Reads a payload.
pub(super) fn parse_payload(payload: &[u8]) -> AckKind<'_> {
    match payload {
        b"" | b"+ACK" | b"+OK" => AckKind::Ack,
        b"+WPI" => AckKind::Progress,
        _ => {
            if let Some(rest) = payload.strip_prefix(b"-NAK") {
                AckKind::Nak(parse_delay(rest.trim_ascii()))
            } else if let Some(rest) = payload.strip_prefix(b"+NXT") {
                AckKind::Next(rest)
            } else if let Some(rest) = payload.strip_prefix(b"+TERM") {
                AckKind::Term(rest.trim_ascii())
            } else {
                AckKind::Unknown
            }
        }
    }
}

/// `{"delay":<ns>}` or a duration in Go's notation; what cannot be read is no delay.
fn parse_delay(text: &[u8]) -> Option<Duration> {
    #[derive(serde::Deserialize)]
    struct Delay {
        #[serde(default)]
        delay: i64,
    }
    if text.first() == Some(&b'{') {
        let delay = serde_json::from_slice::<Delay>(text).ok()?.delay;
        return (delay > 0).then(|| duration(delay));
    }
    parse_go_duration(str::from_utf8(text).ok()?)
}

/// `1h2m3.5s`, units `ns us µs ms s m h`.
fn parse_go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0_u64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (digits, tail) = rest.split_at(end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(scale)?)?;
        let mut part: u64 = scale;
        for digit in fraction.bytes() {
            part /= 10;
            total = total.checked_add(part.checked_mul(u64::from(digit.checked_sub(b'0')?))?)?;
        }
        rest = tail;
    }
    Some(Duration::from_nanos(total))
}

/// What is left to do after the bookkeeping.
#[expect(clippy::struct_excessive_bools, reason = "independent answers to four questions")]
#[derive(Clone, Copy, Debug, Default)]
struct Effect {
    /// Something was settled or changed.
    changed: bool,
    /// Delivery may go on.
    wake: bool,
    /// The reply is an ack-ack that waits for what was settled.
    confirm: bool,
    /// No reply at all.
    silent: bool,
}

impl JetStream {
    /// An acknowledgement on `$JS.ACK.…`.
    pub fn handle_ack(&mut self, now: Now, id: ConsumerId, msg: Inbound<'_>, host: &mut impl Host) {
        let Some(ack) = parse_subject(msg.subject) else { return };
        let Some(consumer) = self.consumers.get_mut(id) else { return };
        if matches!(consumer.config.ack_policy, AckPolicy::None | AckPolicy::FlowControl) {
            return;
        }
        let kind = parse_payload(msg.payload);
        consumer.last_used = now.instant;
        let next = consumer.cursor.next();
        let mut effect = Effect::default();
        let full = consumer.is_ack_pending_full();
        let mut advise = None;
        let mut sample = None;
        let mut pull = None;
        if ack.seq >= next && consumer.progress.pending.get(ack.seq).is_none() {
            // Never delivered, or a relic from before a reset.
            effect.silent = true;
        } else {
            match kind {
                AckKind::Ack | AckKind::Next(_) | AckKind::Term(_) => {
                    let deliveries = consumer.progress.deliveries(ack.seq);
                    let settled = match consumer.config.ack_policy {
                        AckPolicy::All => consumer.progress.settle_up_to(ack.seq, ack.dseq) > 0,
                        _ => match consumer.progress.settle(ack.seq) {
                            Some(entry) => {
                                sample = Some((entry, deliveries));
                                true
                            }
                            None => false,
                        },
                    };
                    consumer.progress.last_ack = now.wall;
                    effect.changed = settled;
                    effect.wake = settled && full;
                    effect.confirm = true;
                    match kind {
                        AckKind::Next(rest) => {
                            pull = Some(rest);
                            effect.silent = true;
                        }
                        AckKind::Term(reason) => {
                            sample = None;
                            advise = Some((Settled::Terminated(reason), deliveries));
                        }
                        _ => {}
                    }
                }
                AckKind::Nak(delay) => {
                    let progress = &mut consumer.progress;
                    let known = ack.dseq > progress.floor.consumer
                        && ack.dseq <= progress.delivered.consumer;
                    if known && progress.pending.get(ack.seq).is_some() {
                        let deliveries = progress.deliveries(ack.seq);
                        advise = Some((Settled::Nak, deliveries));
                        if let Some(delay) = delay.filter(|delay| !delay.is_zero()) {
                            progress.postpone(ack.seq, now.instant + delay);
                        } else {
                            progress.queue(ack.seq);
                            effect.wake = true;
                        }
                        effect.changed = true;
                    }
                }
                AckKind::Progress => {
                    let deliveries = consumer.progress.deliveries(ack.seq);
                    if let Some(wait) = consumer.config.redelivery_wait(deliveries) {
                        effect.changed = consumer.progress.postpone(ack.seq, now.instant + wait);
                    }
                }
                AckKind::Unknown => {}
            }
        }
        let dirtied = effect.changed && consumer.mark_dirty(now);
        let stream = consumer.stream;
        let rearm = dirtied || matches!(kind, AckKind::Nak(_) | AckKind::Progress);
        if !msg.reply.is_empty() && !effect.silent {
            if effect.confirm && consumer.must_wait_for_save() {
                consumer.saving.confirm(msg.reply);
                self.consumers.to_sync.push(id);
            } else if effect.changed && consumer.progress.has_settled() {
                self.retention.confirm(stream, msg.reply);
            } else {
                host.deliver(msg.reply, msg.reply, b"", b"", b"");
            }
        }
        self.note_settled(id, host);
        if rearm {
            self.consumers.rearm(now, id);
        }
        if let Some((what, deliveries)) = advise {
            self.advise_settled(now, id, ack.seq, ack.dseq, deliveries, what, host);
        }
        if let Some((entry, deliveries)) = sample {
            self.advise_sample(now, id, &entry, ack.dseq, deliveries, host);
        }
        if let Some(rest) = pull {
            let request = Inbound { payload: rest, ..msg };
            self.pull_request(now, id, request, pull::Via::Ack, host);
        } else if effect.wake {
            self.consumer_run(now, id, host);
        }
    }
}

/// Why a message is reported.
#[derive(Clone, Copy, Debug)]
pub(super) enum Settled<'a> {
    /// By `+TERM`, or because it went away.
    Terminated(&'a [u8]),
    /// By `-NAK`.
    Nak,
    /// After its last delivery.
    Exhausted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_ack_subject_are_read() {
        let expected = Some(AckSubject { deliveries: 2, seq: 30, dseq: 4 });
        assert_eq!(parse_subject(b"$JS.ACK.S.C.2.30.4.179.0"), expected);
        assert_eq!(parse_subject(b"$JS.ACK._.szMpdrwD.S.C.2.30.4.179.0"), expected);
        for bad in
            ["", "$JS.ACK.S.C.2.30.4.179", "$JS.ACK.S.C.x.30.4.179.0", "$JS.ACK.S.C..1.1.1.1"]
        {
            assert_eq!(parse_subject(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(parse_subject(b"$JS.ACK.S.C.2.99999999999999999999.4.179.0"), None);
    }

    #[test]
    fn a_nak_takes_its_delay_in_both_notations() {
        let ms = |n| AckKind::Nak(Some(Duration::from_millis(n)));
        for (payload, expected) in [
            ("-NAK", AckKind::Nak(None)),
            ("-NAK 300ms", ms(300)),
            ("-NAK300ms", ms(300)),
            ("-NAK 1.5s", ms(1500)),
            ("-NAK 1m0.5s", ms(60_500)),
            ("-NAK {\"delay\": 2000000}", ms(2)),
            ("-NAK {\"delay\": \"x\"}", AckKind::Nak(None)),
            ("-NAK soon", AckKind::Nak(None)),
            ("-NAK 99999999999999h", AckKind::Nak(None)),
            ("+NXT 5", AckKind::Next(b" 5")),
            ("+TERM  bad data ", AckKind::Term(b"bad data")),
            ("+WPI", AckKind::Progress),
            ("", AckKind::Ack),
            ("+ACK", AckKind::Ack),
            ("hello", AckKind::Unknown),
        ] {
            assert_eq!(parse_payload(payload.as_bytes()), expected, "{payload}");
        }
    }
}
