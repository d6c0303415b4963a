//! How much is read at once: much where one connection has the server for itself, little
//! where others wait.
//!
//! Owns the measure. Does not read. A turn that takes in half a megabyte of small messages
//! lasts half a millisecond or more, and a client with one word to say waits for its end. So
//! as long as somebody says little, nobody is heard for long; and who says little is heard
//! first.

use crate::limits::READ_BUFFER_BYTES;
use crate::time::{Duration, Instant};

/// Receivers from which on reads are smaller.
const SPREAD_WIDE: usize = 4;
/// A read of fewer bytes is of somebody who says little.
const LITTLE_BYTES: usize = 4 * 1024;
/// Bytes of one read while there are such.
const COMPANY_BYTES: usize = 64 * 1024;
/// For how long they are reckoned with.
const COMPANY: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Connections the last read had bytes for.
    spread: usize,
    /// Somebody who says little was heard, until when it counts.
    company_until: Instant,
}

impl Pace {
    /// Bytes to read from a connection at once. `bulky` if it said a lot the last time.
    pub(super) fn space(&self, now: Instant, bulky: bool) -> usize {
        if bulky && now < self.company_until {
            return COMPANY_BYTES;
        }
        // Where each byte goes to many, a large read would fill many large outboxes, more
        // than the caches hold.
        if self.spread < SPREAD_WIDE { READ_BUFFER_BYTES } else { READ_BUFFER_BYTES / 4 }
    }

    /// `count` bytes were read, and went to `spread` connections. Says whether that was much.
    pub(super) fn note(&mut self, now: Instant, count: usize, spread: usize) -> bool {
        self.spread = spread;
        let bulky = count >= LITTLE_BYTES;
        if !bulky {
            self.company_until = now + COMPANY;
        }
        bulky
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_a_lot_is_cut_short_while_somebody_says_little() {
        let mut pace = Pace::default();
        let at = |millis: u64| Instant::default() + Duration::from_millis(1000 + millis);
        assert!(pace.note(at(0), 100_000, 1));
        assert_eq!(pace.space(at(0), true), READ_BUFFER_BYTES);
        assert!(!pace.note(at(1), 30, 1));
        assert_eq!(pace.space(at(2), true), COMPANY_BYTES);
        assert_eq!(pace.space(at(102), true), READ_BUFFER_BYTES, "nobody said anything for long");
        assert!(pace.note(at(103), 100_000, 10));
        assert_eq!(pace.space(at(104), true), READ_BUFFER_BYTES / 4);
    }
}
