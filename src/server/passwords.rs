//! Passwords against bcrypt hashes, away from the event loop.
//!
//! Owns the comparison and bringing its outcome back. Does not own how many are under way
//! at once, nor whose turn it is: the broker asks for one after the other.
//!
//! It runs on smol's pool of blocking threads, which shrinks to nothing when it is idle.
//!
//! Source: the bcrypt paper (Provos, Mazières); which hashes are good as nats-server 2.15.1.

use std::sync::mpsc::{Receiver, Sender, channel};

use crate::auth::Secret;
use crate::id::ConnId;
use crate::net::poller::Waker;

/// Comparisons under way.
#[derive(Debug)]
pub(super) struct Passwords {
    waker: Waker,
    done: Sender<(ConnId, bool)>,
    outcomes: Receiver<(ConnId, bool)>,
}

impl Passwords {
    /// `waker` wakes the loop when a comparison ends.
    pub(super) fn new(waker: Waker) -> Self {
        let (done, outcomes) = channel();
        Self { waker, done, outcomes }
    }

    /// Begins a comparison.
    pub(super) fn check(&mut self, conn: ConnId, hash: Secret, password: Secret) {
        let (done, waker) = (self.done.clone(), self.waker.clone());
        let task = smol::unblock(move || {
            let matches = verify(hash.expose(), password.expose().as_bytes());
            // Nobody waits any more when the server has ended.
            let _ = done.send((conn, matches));
            waker.wake();
        });
        task.detach();
    }

    /// One that has ended.
    pub(super) fn poll(&mut self) -> Option<(ConnId, bool)> {
        self.outcomes.try_recv().ok()
    }
}

/// Has `password` this hash (`$2b$11$`, 22 characters of salt, 31 of hash)? Of a password
/// the first 72 bytes count. A text that is no hash fits no password.
fn verify(hash: &str, password: &[u8]) -> bool {
    check(hash, password).unwrap_or(false)
}

fn check(hash: &str, password: &[u8]) -> Option<bool> {
    let rest = hash.strip_prefix("$2")?.get(2..)?;
    let (cost, rest) = rest.split_once('$')?;
    let cost: u32 = cost.parse().ok()?;
    let (salt, sum) = (rest.get(..22)?, rest.get(22..)?);
    if !(4..=31).contains(&cost) || sum.len() != 31 {
        return None;
    }
    let salt: [u8; 16] = decode(salt)?;
    let expected: [u8; 23] = decode(sum)?;
    // The text and the zero byte that ends it, as far as they fit.
    let mut key: Vec<u8> = password.iter().copied().take(72).collect();
    if key.len() < 72 {
        key.push(0);
    }
    let found = bcrypt::bcrypt(cost, salt, &key);
    key.fill(0);
    let difference = expected.iter().zip(found).fold(0, |sum, (a, b)| sum | (a ^ b));
    Some(std::hint::black_box(difference) == 0)
}

const ALPHABET: &[u8; 64] = b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// bcrypt's own base64. Spare bits of the last character do not count.
fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let (mut bits, mut count, mut at) = (0_u32, 0_u32, 0);
    for byte in text.bytes() {
        let value = ALPHABET.iter().position(|&known| known == byte)?;
        bits = (bits << 6) | u32::try_from(value).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            *bytes.get_mut(at)? = u8::try_from((bits >> count) & 0xff).ok()?;
            at += 1;
        }
    }
    (at == N).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of "edge-pass-1", cost 5.
    const SUM: &str = "$05$abcdefghijklmnopqrstuuHtcP.7NV.JoVN4Wa1iMf268gNmbjfSa";

    #[test]
    fn a_password_has_its_hash_under_every_prefix() {
        for prefix in ["$2a", "$2b", "$2x", "$2y"] {
            let hash = format!("{prefix}{SUM}");
            assert!(verify(&hash, b"edge-pass-1"), "{prefix}");
            for wrong in
                [&b""[..], b"edge-pass-2", b"edge-pass-1 ", b"edge-pass-1\0", hash.as_bytes()]
            {
                assert!(!verify(&hash, wrong), "{prefix} {wrong:?}");
            }
        }
        // Published vectors of other implementations.
        for (password, hash) in [
            ("", "$2a$06$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s."),
            ("U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
        ] {
            assert!(verify(hash, password.as_bytes()), "{password}");
        }
    }

    #[test]
    fn only_the_first_72_bytes_count() {
        let text = |len: usize| (0..len).map(|at| b'a' + u8::try_from(at % 25).unwrap());
        let salt = *b"0123456789abcdef";
        let sum = bcrypt::bcrypt(4, salt, &text(72).collect::<Vec<u8>>());
        let hash = format!("$2a$04${}{}", encode(&salt), encode(&sum[..23]));
        for (len, expected) in [(72, true), (73, true), (200, true), (71, false)] {
            assert_eq!(verify(&hash, &text(len).collect::<Vec<u8>>()), expected, "{len}");
        }
    }

    fn encode(bytes: &[u8]) -> String {
        let bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| (byte >> bit) & 1));
        let bits: Vec<u8> = bits.collect();
        bits.chunks(6)
            .map(|six| {
                let value = (0..6).fold(0, |sum, at| sum << 1 | six.get(at).unwrap_or(&0));
                char::from(ALPHABET[usize::from(value)])
            })
            .collect()
    }

    #[test]
    fn texts_that_are_no_hashes_fit_no_password() {
        for text in [
            "$2a$05$",
            "$2a$05$abc",
            "$2a$99$abcdefghijklmnopqrstuuHtcP.7NV.JoVN4Wa1iMf268gNmbjfSa",
            "$2a$03$abcdefghijklmnopqrstuuHtcP.7NV.JoVN4Wa1iMf268gNmbjfSa",
            "$2a$05$abcdefghijklmnopqrstuuHtcP.7NV.JoVN4Wa1iMf268gNmbjfSaX",
            "$2a$05$!bcdefghijklmnopqrstuuHtcP.7NV.JoVN4Wa1iMf268gNmbjfSa",
            "$2a$05$äbcdefghijklmnopqrstuuHtcP.7NV.JoVN4Wa1iMf268gNmbjfS",
            "",
        ] {
            assert!(!verify(text, b"pw-1") && !verify(text, text.as_bytes()), "{text}");
        }
    }
}
