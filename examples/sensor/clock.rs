//! The clock of the examples: the one place where they read the time.
#![expect(clippy::disallowed_methods, reason = "the examples' one clock")]

use std::time::{Duration, Instant, SystemTime};

/// Monotonic time, for measuring.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Time since the Unix epoch, for stamping readings; zero where the wall clock is before it.
pub(crate) fn wall() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
