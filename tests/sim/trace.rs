//! What happened, for whoever replays a seed, and a digest of it that tells two runs apart.

use sedge::time::Instant;

/// See the module.
#[derive(Debug)]
pub(crate) struct Trace {
    shown: bool,
    digest: u64,
}

impl Trace {
    /// Printed if `shown`.
    pub(crate) fn new(shown: bool) -> Self {
        Self { shown, digest: 0xcbf2_9ce4_8422_2325 }
    }

    /// One line, made only if somebody reads it.
    pub(crate) fn line(&mut self, now: Instant, text: impl FnOnce() -> String) {
        self.mix(now.0);
        if self.shown {
            let (seconds, rest) = (now.0 / 1_000_000_000, now.0 % 1_000_000_000);
            println!("{seconds:4}.{rest:09} {}", text());
        }
    }

    /// Takes a number into the digest.
    pub(crate) fn mix(&mut self, number: u64) {
        self.digest = (self.digest ^ number).wrapping_mul(0x0100_0000_01b3);
    }

    /// The same for the same run.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }
}
