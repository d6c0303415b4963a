//! Identifiers, and the seeded generator all chance in the core comes from.
//!
//! Owns the newtypes that keep two numbers from being swapped, and the short names NATS
//! makes from random or hashed bytes. Does not own what an id refers to.
//!
//! # Invariants
//! - The same seed gives the same ids in the same order: a simulation can be replayed.
//! - A [`ConnId`] or [`ConsumerId`] of something gone never equals that of its successor in
//!   the same slot, because the generation differs.

use alloc::string::String;

use sha2::{Digest, Sha256};

/// A connection of any kind: client or leaf node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    /// Slot in the broker's table.
    pub index: u32,
    /// Which occupant of the slot; never reused within a run.
    pub generation: u32,
}

/// An account, for the life of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(pub u16);

impl AccountId {
    /// `$G`.
    pub const GLOBAL: Self = Self(0);
    /// The system account.
    pub const SYSTEM: Self = Self(1);
    /// No account at all: who is in it reaches nobody.
    pub const NONE: Self = Self(u16::MAX);
}

/// A stream, for the life of the store. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// A consumer, for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerId {
    /// Slot in JetStream's table.
    pub index: u32,
    /// Which occupant of the slot; never reused within a run.
    pub generation: u32,
}

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A small, fast generator (xoshiro256++). Not for secrets.
#[derive(Clone, Debug)]
pub struct Rng([u64; 4]);

impl Rng {
    /// Spreads `seed` over the state (splitmix64), so that seeds 1 and 2 share nothing.
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        };
        Self([next(), next(), next(), next()])
    }

    /// Uniform 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// Uniform in `0..bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product: the bias is under 2^-32 for every bound used here.
        let wide = u128::from(self.next_u64()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// Uniform index into something of length `len`; 0 when `len` is 0.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// `len` random base-62 characters: 8 for consumer names and inbox tokens, 22 for what
    /// NATS calls a NUID.
    pub fn token(&mut self, len: usize) -> String {
        (0..len).map(|_| char::from(BASE62[self.index(BASE62.len())])).collect()
    }

    /// `len` random bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// The first 8 bytes of SHA-256 of `text`, each mod 62 into `0-9A-Za-z`: how NATS makes
/// account hashes, consumer names of sources and stream identities.
///
/// ```
/// assert_eq!(sedge::id::short_hash(b"$G"), "szMpdrwD");
/// ```
pub fn short_hash(text: &[u8]) -> String {
    let digest = Sha256::digest(text);
    digest.iter().take(8).map(|&byte| char::from(BASE62[usize::from(byte) % 62])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_agree_with_those_seen_from_nats_server() {
        assert_eq!(short_hash(b"$G"), "szMpdrwD");
        assert_eq!(short_hash(b"$JS.leaf.API"), "mSx7q4yJ");
        assert_eq!(short_hash(short_hash(b"AGG $G hub").as_bytes()), "q9rlDw6k");
    }

    #[test]
    fn one_seed_gives_one_sequence() {
        let (mut a, mut b, mut c) = (Rng::new(7), Rng::new(7), Rng::new(8));
        assert_eq!(a.token(22), b.token(22));
        assert_ne!(a.token(22), c.token(22));
    }
}
