//! What the process takes of the machine: memory, processor time, processors.
//!
//! Reads `/proc` and the process clock; keeps the last sample, so that a share of processor
//! time is that of the time since.

use crate::time::{Duration, Instant};

/// Processor time between two looks.
#[derive(Debug, Default)]
pub(super) struct Processor {
    last: Option<(Instant, Duration)>,
    percent: f64,
}

/// A share of less time than this says little; the one before is given again.
const SAMPLE_MIN: Duration = Duration::from_millis(500);

impl Processor {
    /// Percent of one processor since the last sample, with one digit after the point.
    pub(super) fn percent(&mut self, now: Instant) -> f64 {
        let used = processor_time();
        let (at, before) = self.last.unwrap_or_default();
        let span = now.since(at);
        if span < SAMPLE_MIN && self.last.is_some() {
            return self.percent;
        }
        self.last = Some((now, used));
        let share = used.saturating_sub(before).as_secs_f64() / span.as_secs_f64().max(0.001);
        self.percent = (share * 1000.0).round() / 10.0;
        self.percent
    }
}

/// Processor time of all threads since the start.
pub(super) fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Resident memory, in bytes; 0 where it cannot be told.
pub(super) fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kibibytes = line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0);
    kibibytes.saturating_mul(1024)
}

/// Processors the process may use.
pub(super) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
