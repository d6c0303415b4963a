//! The one place that reads a clock.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::time::{Instant, Now, Timestamp};

/// Both clocks of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: std::time::Instant,
}

impl Clock {
    /// A clock whose [`Instant`]s count from now.
    #[expect(clippy::disallowed_methods, reason = "this is the clock module")]
    pub fn new() -> Self {
        Self { start: std::time::Instant::now() }
    }

    /// Reads both clocks. A wall clock before 1970 counts as 1970.
    #[expect(clippy::disallowed_methods, reason = "this is the clock module")]
    pub fn now(&self) -> Now {
        let since_start = std::time::Instant::now().duration_since(self.start);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            instant: Instant::default() + since_start,
            wall: Timestamp(i64::try_from(wall.as_nanos()).unwrap_or(i64::MAX)),
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
