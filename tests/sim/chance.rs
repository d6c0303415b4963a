//! All chance of a simulation, from its seed.

use sedge::id::Rng;
use sedge::time::{Duration, nanos};

/// A generator with the questions a simulation asks.
#[derive(Clone, Debug)]
pub(crate) struct Chance(Rng);

impl Chance {
    /// The same seed gives the same answers.
    pub(crate) fn new(seed: u64) -> Self {
        Self(Rng::new(seed))
    }

    /// A generator of its own for a part, so that one part's questions do not change the
    /// answers another one gets.
    pub(crate) fn fork(&mut self) -> Self {
        Self(Rng::new(self.0.next_u64()))
    }

    /// 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// True `per_mille` times in a thousand.
    pub(crate) fn happens(&mut self, per_mille: u64) -> bool {
        per_mille > 0 && self.0.below(1000) < per_mille
    }

    /// Both ends included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.0.below(high - low + 1)
    }

    /// [`Self::between`] for lengths.
    pub(crate) fn size(&mut self, low: usize, high: usize) -> usize {
        low + self.0.index(high - low + 1)
    }

    /// A time between two others, each order of magnitude as likely as the next.
    pub(crate) fn span(&mut self, low: Duration, high: Duration) -> Duration {
        let (low, high) = (nanos(low).max(1), nanos(high).max(1));
        let mut doublings = 0;
        while low << (doublings + 1) <= high {
            doublings += 1;
        }
        let base = low << self.between(0, doublings);
        Duration::from_nanos(self.between(base, (base * 2).min(high).max(base)))
    }

    /// A time between two others, all as likely.
    pub(crate) fn even(&mut self, low: Duration, high: Duration) -> Duration {
        Duration::from_nanos(self.between(nanos(low), nanos(high)))
    }

    /// One of several.
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.0.index(from.len())]
    }

    /// Any order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.0.index(last + 1));
        }
    }

    /// Base-62 characters.
    pub(crate) fn token(&mut self, len: usize) -> String {
        self.0.token(len)
    }
}
