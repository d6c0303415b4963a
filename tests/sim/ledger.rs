//! What was promised, and whether it was kept.
//!
//! Owns the truth about every reading: when it was acknowledged and on which sequence, and
//! what the hub has of it. The first broken promise is kept; the world then stops.

use std::collections::BTreeMap;

use sedge::time::{Duration, Instant};

/// Names a reading: the sensor's number and its count, from 1.
pub(crate) type Reading = (usize, u32);

/// An ack travels no longer than this.
const ACK_TRAVEL_MAX: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    /// When the first ack arrived at the sensor, and the sequence in it.
    acked: Option<(Instant, u64)>,
    at_hub: Option<u64>,
    /// A relaxed store may have forgotten it.
    excused: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Ledger {
    fates: BTreeMap<Reading, Fate>,
    /// What each sequence was ever said to be.
    by_seq: BTreeMap<u64, Reading>,
    /// Acknowledged and not at the hub.
    behind: BTreeMap<Reading, Instant>,
    last_at_hub: Vec<u32>,
    /// Sensors that had to publish an older reading after a newer one.
    out_of_turn: Vec<bool>,
    /// How long a crash may look back, with a relaxed store.
    relaxed: Option<Duration>,
    crashed_at: Option<Instant>,
    broken: Option<String>,
    pub(crate) acked: u64,
    pub(crate) at_hub: u64,
}

impl Ledger {
    /// Nothing was promised.
    pub(crate) fn new(sensors: usize, relaxed: Option<Duration>) -> Self {
        Self {
            fates: BTreeMap::new(),
            by_seq: BTreeMap::new(),
            behind: BTreeMap::new(),
            last_at_hub: vec![0; sensors],
            out_of_turn: vec![false; sensors],
            relaxed,
            crashed_at: None,
            broken: None,
            acked: 0,
            at_hub: 0,
        }
    }

    /// The first broken promise.
    pub(crate) fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// A promise is broken.
    pub(crate) fn fail(&mut self, text: String) {
        self.broken.get_or_insert(text);
    }

    /// This sensor's readings may be stored in another order than it made them.
    pub(crate) fn out_of_turn(&mut self, sensor: usize) {
        self.out_of_turn[sensor] = true;
    }

    fn is_on(&mut self, reading: Reading, seq: u64, who: &str) {
        let known = *self.by_seq.entry(seq).or_insert(reading);
        if known != reading {
            self.fail(format!(
                "sequence {seq} was {} and is {} for {who}",
                show(known),
                show(reading)
            ));
        }
    }

    /// A sensor got an ack.
    pub(crate) fn acked(&mut self, now: Instant, reading: Reading, seq: u64) {
        self.is_on(reading, seq, "its sensor");
        let fate = self.fates.entry(reading).or_default();
        match fate.acked {
            None => {
                fate.acked = Some((now, seq));
                self.acked += 1;
                // It may have been under way when the gateway crashed.
                let late = self.crashed_at.is_some_and(|at| now.since(at) < ACK_TRAVEL_MAX);
                fate.excused |= late && self.relaxed.is_some();
                if fate.at_hub.is_none() && !fate.excused {
                    self.behind.insert(reading, now);
                }
            }
            Some((_, first)) if first != seq && self.relaxed.is_none() => {
                let text =
                    format!("{} was acknowledged on sequence {first} and on {seq}", show(reading));
                self.fail(text);
            }
            Some(_) => {}
        }
    }

    /// The hub received a message, stored or not.
    pub(crate) fn delivered(&mut self, reading: Reading, seq: u64) {
        self.is_on(reading, seq, "the hub");
    }

    /// The hub stored a message.
    pub(crate) fn stored_at_hub(&mut self, reading: Reading, seq: u64) {
        let fate = self.fates.entry(reading).or_default();
        if let Some(first) = fate.at_hub.replace(seq) {
            let text =
                format!("{} is at the hub twice: of sequences {first} and {seq}", show(reading));
            self.fail(text);
            return;
        }
        if let Some((_, acked)) = fate.acked
            && acked != seq
            && self.relaxed.is_none()
        {
            let text = format!("{} was acknowledged on {acked}, at the hub {seq}", show(reading));
            self.fail(text);
        }
        self.at_hub += 1;
        self.behind.remove(&reading);
        let (sensor, count) = reading;
        let last = self.last_at_hub[sensor];
        if count < last && !self.out_of_turn[sensor] {
            self.fail(format!("{} came to the hub after {}", show(reading), show((sensor, last))));
        }
        self.last_at_hub[sensor] = last.max(count);
    }

    /// A relaxed store lost its process: what it acknowledged lately may be gone.
    pub(crate) fn crashed(&mut self, now: Instant) {
        self.crashed_at = Some(now);
        let Some(window) = self.relaxed else { return };
        for (reading, acked_at) in &self.behind {
            if now.since(*acked_at) <= window {
                self.fates.entry(*reading).or_default().excused = true;
            }
        }
        let fates = &self.fates;
        self.behind.retain(|reading, _| !fates[reading].excused);
    }

    /// The gateway's store holds exactly this.
    pub(crate) fn stored_at_gateway(&mut self, held: &BTreeMap<u64, Reading>) {
        for (seq, reading) in held {
            self.is_on(*reading, *seq, "the gateway's store");
        }
        let lost: Vec<_> = self
            .fates
            .iter()
            .filter_map(|(reading, fate)| fate.acked.map(|(_, seq)| (*reading, seq, fate)))
            .filter(|(_, seq, fate)| !fate.excused && !held.contains_key(seq))
            .map(|(reading, seq, _)| (reading, seq))
            .collect();
        if self.relaxed.is_none()
            && let Some((reading, seq)) = lost.first()
        {
            self.fail(format!(
                "the gateway acknowledged {} on sequence {seq} and no longer has it",
                show(*reading)
            ));
        }
    }

    /// The reading that is acknowledged and missing at the hub for longest.
    pub(crate) fn oldest_behind(&self) -> Option<(Reading, Instant)> {
        self.behind.iter().map(|(reading, at)| (*reading, *at)).min_by_key(|(_, at)| *at)
    }
}

/// For texts.
pub(crate) fn show((sensor, count): Reading) -> String {
    format!("reading {count} of sensor {sensor}")
}

/// The text a reading travels as, `len` bytes or a little more.
pub(crate) fn payload((sensor, count): Reading, len: usize) -> Vec<u8> {
    let mut text = format!("{sensor} {count} ").into_bytes();
    let mut state = u32::try_from(sensor).unwrap_or(0).wrapping_mul(7919).wrapping_add(count);
    while text.len() < len {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.push(b'a' + u8::try_from(state >> 24).unwrap_or(0) % 26);
    }
    text
}

/// The reading in a payload, if every byte of it is as it was sent.
pub(crate) fn reading(text: &[u8]) -> Option<Reading> {
    let mut words = std::str::from_utf8(text).ok()?.split(' ');
    let reading = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    (payload(reading, text.len()) == text).then_some(reading)
}
