//! The one place of the benchmark that reads a clock.
#![expect(clippy::disallowed_methods, reason = "measuring time is what a benchmark does")]

use std::time::{Duration, Instant};

/// The monotonic time.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The moment `duration` from now.
pub(crate) fn after(duration: Duration) -> Instant {
    now() + duration
}
