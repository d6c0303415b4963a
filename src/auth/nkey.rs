//! Nkeys: Ed25519 keys in the text form NATS gives them.
//!
//! Owns encoding, decoding and signing. A key is its prefix, 32 bytes and a CRC-16, in
//! base32 without padding; a seed has a two-byte prefix that carries the kind of its key.
//!
//! # Invariants
//! - A [`PublicKey`] or [`Seed`] exists only with an exact prefix, length and checksum.
//! - A [`Seed`] prints nothing and is overwritten when dropped.
//!
//! Source: the nkeys README (key formats); vectors checked with a second implementation.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use crate::auth::wipe;

/// What a key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyKind {
    /// `A…`: an account.
    Account,
    /// `C…`: a cluster.
    Cluster,
    /// `N…`: a server.
    Server,
    /// `O…`: an operator.
    Operator,
    /// `U…`: a user.
    User,
    /// `X…`: an X25519 key, for sealing. It cannot sign.
    Curve,
}

impl KeyKind {
    const ALL: [Self; 6] =
        [Self::Account, Self::Cluster, Self::Server, Self::Operator, Self::User, Self::Curve];

    fn prefix(self) -> u8 {
        match self {
            Self::Account => 0,
            Self::Cluster => 2 << 3,
            Self::Server => 13 << 3,
            Self::Operator => 14 << 3,
            Self::User => 20 << 3,
            Self::Curve => 23 << 3,
        }
    }

    fn from_prefix(prefix: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.prefix() == prefix)
    }
}

/// Why a text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NkeyError {
    /// A character outside `A-Z2-7`; keys are upper case and have no padding.
    Alphabet,
    /// Not 56 characters (public key) or 58 (seed).
    Length,
    /// Some characters were mistyped or lost.
    Checksum,
    /// The first characters name no kind of key, or not the kind wanted.
    Prefix,
    /// A curve key was asked to sign.
    CannotSign,
}

impl fmt::Display for NkeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alphabet => "a character is not one of A-Z and 2-7",
            Self::Length => {
                "it is too short or too long (a public key has 56 characters, a seed 58)"
            }
            Self::Checksum => "its checksum is wrong, so a character was lost or mistyped",
            Self::Prefix => "its first letters do not name that kind of key",
            Self::CannotSign => "a curve key cannot sign",
        })
    }
}

impl core::error::Error for NkeyError {}

const PUBLIC_BYTES: usize = 1 + 32 + 2;
const PUBLIC_TEXT: usize = 56;
const SEED_BYTES: usize = 2 + 32 + 2;
const SEED_TEXT: usize = 58;
const SEED_MARK: u8 = 18 << 3;
const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// The public half of an nkey.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey {
    kind: KeyKind,
    bytes: [u8; 32],
}

impl PublicKey {
    /// What the key stands for.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The raw Ed25519 (or X25519) public key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// Is `signature` one of `message` by this key?
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.kind != KeyKind::Curve
            && ed25519_compact::PublicKey::new(self.bytes)
                .verify(message, &ed25519_compact::Signature::new(*signature))
                .is_ok()
    }
}

impl FromStr for PublicKey {
    type Err = NkeyError;

    fn from_str(text: &str) -> Result<Self, NkeyError> {
        if text.len() != PUBLIC_TEXT {
            return Err(NkeyError::Length);
        }
        let raw: [u8; PUBLIC_BYTES] = decode(text)?;
        let [prefix, body @ .., low, high] = raw;
        if crc16(&raw[..PUBLIC_BYTES - 2]) != u16::from_le_bytes([low, high]) {
            return Err(NkeyError::Checksum);
        }
        let kind = KeyKind::from_prefix(prefix).ok_or(NkeyError::Prefix)?;
        Ok(Self { kind, bytes: body })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut raw = [0; PUBLIC_BYTES];
        raw[0] = self.kind.prefix();
        raw[1..=32].copy_from_slice(&self.bytes);
        seal(&mut raw);
        let mut text = [0; PUBLIC_TEXT];
        f.write_str(encode(&raw, &mut text))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The secret half of an nkey.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed {
    kind: KeyKind,
    bytes: [u8; 32],
}

impl Seed {
    /// A key from 32 random bytes.
    pub fn from_bytes(kind: KeyKind, bytes: [u8; 32]) -> Self {
        Self { kind, bytes }
    }

    /// What the key stands for.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The public key that belongs to it.
    ///
    /// # Errors
    /// [`NkeyError::CannotSign`] for a curve key, whose public half is not an Ed25519 one.
    pub fn public_key(&self) -> Result<PublicKey, NkeyError> {
        self.with_pair(|pair| PublicKey { kind: self.kind, bytes: *pair.pk })
    }

    /// Signs `message`; the same message gives the same signature.
    ///
    /// # Errors
    /// [`NkeyError::CannotSign`] for a curve key.
    pub fn sign(&self, message: &[u8]) -> Result<[u8; 64], NkeyError> {
        self.with_pair(|pair| *pair.sk.sign(message, None))
    }

    /// The text form (`SU…`), for writing a creds file.
    pub fn expose(&self) -> String {
        let mut raw = [0; SEED_BYTES];
        raw[0] = SEED_MARK | (self.kind.prefix() >> 5);
        raw[1] = (self.kind.prefix() & 31) << 3;
        raw[2..34].copy_from_slice(&self.bytes);
        seal(&mut raw);
        let mut text = [0; SEED_TEXT];
        let exposed = String::from(encode(&raw, &mut text));
        wipe(&mut raw);
        wipe(&mut text);
        exposed
    }

    fn with_pair<T>(
        &self,
        work: impl FnOnce(&ed25519_compact::KeyPair) -> T,
    ) -> Result<T, NkeyError> {
        if self.kind == KeyKind::Curve {
            return Err(NkeyError::CannotSign);
        }
        let mut pair =
            ed25519_compact::KeyPair::try_from_seed(ed25519_compact::Seed::new(self.bytes))
                .map_err(|_| NkeyError::CannotSign)?;
        let result = work(&pair);
        wipe(&mut *pair.sk);
        Ok(result)
    }
}

impl FromStr for Seed {
    type Err = NkeyError;

    fn from_str(text: &str) -> Result<Self, NkeyError> {
        if text.len() != SEED_TEXT {
            return Err(NkeyError::Length);
        }
        let mut raw: [u8; SEED_BYTES] = decode(text)?;
        let [first, second, body @ .., low, high] = raw;
        let good = crc16(&raw[..SEED_BYTES - 2]) == u16::from_le_bytes([low, high]);
        wipe(&mut raw);
        if !good {
            return Err(NkeyError::Checksum);
        }
        if first & 0xf8 != SEED_MARK || second & 7 != 0 {
            return Err(NkeyError::Prefix);
        }
        let prefix = ((first & 7) << 5) | (second >> 3);
        let kind = KeyKind::from_prefix(prefix).ok_or(NkeyError::Prefix)?;
        Ok(Self { kind, bytes: body })
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed")
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        wipe(&mut self.bytes);
    }
}

/// CRC-16 with polynomial 0x1021, from 0, unreflected (XMODEM).
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |sum, &byte| {
        (0..8).fold(sum ^ (u16::from(byte) << 8), |sum, _| {
            if sum & 0x8000 == 0 { sum << 1 } else { (sum << 1) ^ 0x1021 }
        })
    })
}

/// Puts the checksum of the rest into the last two bytes.
fn seal<const N: usize>(raw: &mut [u8; N]) {
    let sum = crc16(&raw[..N - 2]).to_le_bytes();
    raw[N - 2..].copy_from_slice(&sum);
}

/// Base32 of exactly `N` bytes. Spare bits of the last character are ignored, as Go does.
fn decode<const N: usize>(text: &str) -> Result<[u8; N], NkeyError> {
    let mut raw = [0; N];
    let (mut bits, mut count, mut at) = (0_u32, 0_u32, 0);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'2'..=b'7' => byte - b'2' + 26,
            _ => return Err(NkeyError::Alphabet),
        };
        bits = (bits << 5) | u32::from(value);
        count += 5;
        if count >= 8 {
            count -= 8;
            let slot = raw.get_mut(at).ok_or(NkeyError::Length)?;
            *slot = (bits >> count).to_le_bytes()[0];
            bits &= (1 << count) - 1;
            at += 1;
        }
    }
    if at == N { Ok(raw) } else { Err(NkeyError::Length) }
}

/// Base32 of `raw` into `text`, which must hold it exactly.
fn encode<'a>(raw: &[u8], text: &'a mut [u8]) -> &'a str {
    debug_assert_eq!(text.len(), (raw.len() * 8).div_ceil(5));
    for (index, slot) in text.iter_mut().enumerate() {
        let bit = index * 5;
        let first = raw.get(bit / 8).copied().unwrap_or(0);
        let second = raw.get(bit / 8 + 1).copied().unwrap_or(0);
        let window = u16::from_be_bytes([first, second]);
        *slot = ALPHABET[usize::from((window >> (11 - bit % 8)) & 31)];
    }
    core::str::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString;
    use proptest::prelude::*;

    const NONCE: &[u8] = b"sHdiMRp3oQSGbFw";

    fn counting() -> [u8; 32] {
        core::array::from_fn(|index| u8::try_from(index).unwrap())
    }

    #[test]
    fn seeds_keys_and_signatures_agree_with_the_vectors() {
        let cases = [
            (
                KeyKind::User,
                counting(),
                "SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y",
                "UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK",
                "xtaPbTMvVxgCA8BBVtLy_Pj5jIoLP3cFGBAnKz-mXwTZXrhAE6YFVhmUO7LlEbCYnYtafcqiR70Oi9Y8fNSKBQ",
            ),
            (
                KeyKind::Account,
                counting(),
                "SAAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4HYMHI",
                "AAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3QPZV",
                "xtaPbTMvVxgCA8BBVtLy_Pj5jIoLP3cFGBAnKz-mXwTZXrhAE6YFVhmUO7LlEbCYnYtafcqiR70Oi9Y8fNSKBQ",
            ),
            (
                KeyKind::User,
                [0xff; 32],
                "SUAP777777777777777777777777777777777777777777777777775UUA",
                "UB3KCWJAISTOJ5IREZN4U45GATMQWBJJ2HPWAK7DBIM2SJLWMDI7LRYD",
                "YWFlLlhE0KiHfOp9hoq25iGthxvav43MxDsMS1b350SDEzSxl-RRoKkqhunxH9uC9MYQ4kyjlLcFZAm_lsCrCw",
            ),
        ];
        for (kind, raw, seed_text, public_text, signature_text) in cases {
            let seed = Seed::from_bytes(kind, raw);
            assert_eq!(seed.expose(), seed_text);
            assert_eq!(seed_text.parse::<Seed>().unwrap(), seed);
            let public = seed.public_key().unwrap();
            assert_eq!(public.to_string(), public_text);
            assert_eq!(public_text.parse::<PublicKey>().unwrap(), public);
            let signature = seed.sign(NONCE).unwrap();
            assert_eq!(
                data_encoding::BASE64URL_NOPAD.encode(&signature),
                signature_text,
                "{public_text}"
            );
            assert!(public.verify(NONCE, &signature));
            assert!(!public.verify(b"another nonce", &signature));
        }
    }

    #[test]
    fn texts_that_are_not_keys_say_why() {
        for (text, why) in [
            ("UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKL", NkeyError::Checksum),
            ("uab2cb576phbbpq5odorrz2lycmwpzgwgcn2kdk7dxoimzaskuy3rlkk", NkeyError::Alphabet),
            ("UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLK", NkeyError::Length),
            ("UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK=", NkeyError::Length),
            ("ZAAACAQDAQCQMBYIBEFAWDANBYHRAEISCMKBKFQXDAMRUGY4DUPB7GCZ", NkeyError::Prefix),
            ("UAAACAQDAQCQMBYIBEFAWDANBYHRAEISCMKBKFQXDAMRUGY4DUPGJXQ", NkeyError::Length),
        ] {
            assert_eq!(text.parse::<PublicKey>(), Err(why), "{text}");
        }
    }

    #[test]
    fn checksum_is_xmodem() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(crc16(b""), 0);
        assert_eq!(crc16(b"NATS"), 0x4eb6);
    }

    #[test]
    fn curve_seeds_decode_but_do_not_sign() {
        let seed: Seed =
            "SXAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H74KM".parse().unwrap();
        assert_eq!(seed.kind(), KeyKind::Curve);
        assert_eq!(seed.sign(NONCE), Err(NkeyError::CannotSign));
    }

    #[test]
    fn debug_form_of_a_seed_shows_nothing() {
        assert_eq!(format!("{:?}", Seed::from_bytes(KeyKind::User, counting())), "Seed");
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in "\\PC{0,70}") {
            let _ = text.parse::<Seed>();
            let _ = text.parse::<PublicKey>();
        }

        #[test]
        fn every_key_survives_its_text(bytes: [u8; 32], which in 0_usize..6) {
            let seed = Seed::from_bytes(KeyKind::ALL[which], bytes);
            prop_assert_eq!(seed.expose().parse::<Seed>(), Ok(seed));
            let public = PublicKey { kind: KeyKind::ALL[which], bytes };
            prop_assert_eq!(public.to_string().parse::<PublicKey>(), Ok(public));
        }
    }
}
