//! The keys and tokens of a NATS operator with one account, made afresh for each run.
//!
//! In operator mode a hub trusts an operator, the operator signs accounts, an account signs
//! users; a user signs in with its token and a signature over the server's nonce. A creds file
//! holds a user's token and the seed it signs with.
//!
//! Source: NATS docs, "JWT-based Authentication".

use std::fmt::Write as _;

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use ed25519_compact::{KeyPair, Seed};
use serde_json::{Value, json};

/// Prefix byte of a seed; the kind of key follows it.
const SEED_PREFIX: u8 = 18 << 3;

/// What a key belongs to, as its prefix byte. It decides the first letter of the written key.
#[derive(Clone, Copy)]
enum Kind {
    Operator = 14 << 3,
    Account = 0,
    User = 20 << 3,
}

struct Key {
    kind: Kind,
    pair: KeyPair,
}

/// What a hub in operator mode is configured with, and the creds file of its one user.
pub(crate) struct Operator {
    pub(crate) jwt: String,
    /// Public key and token of the system account and of the account for the readings.
    pub(crate) accounts: [(String, String); 2],
    /// The text of a creds file for a user of the second account.
    pub(crate) creds: String,
}

impl Operator {
    /// Makes new keys and signs the tokens, which count from `now_s` (Unix seconds) on.
    pub(crate) fn generate(now_s: u64) -> Result<Self, String> {
        let operator = Key::generate(Kind::Operator)?;
        let system = Key::generate(Kind::Account)?;
        let readings = Key::generate(Kind::Account)?;
        let user = Key::generate(Kind::User)?;
        let unlimited = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1,
            "wildcards": true, "conn": -1, "leaf": -1,
        });
        let mut with_storage = unlimited.clone();
        for limit in ["mem_storage", "disk_storage", "streams", "consumer"] {
            with_storage[limit] = json!(-1);
        }
        let account = |key: &Key, name: &str, limits: Value| {
            let claims = json!({ "limits": limits, "type": "account", "version": 2 });
            (key.public(), operator.sign_token(name, &key.public(), &claims, now_s))
        };
        let user_jwt = readings.sign_token(
            "gateway",
            &user.public(),
            &json!({
                "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1,
                "type": "user", "version": 2,
            }),
            now_s,
        );
        let mut creds = String::new();
        for (what, body) in [("NATS USER JWT", &user_jwt), ("USER NKEY SEED", &user.seed())] {
            write!(creds, "-----BEGIN {what}-----\n{body}\n------END {what}------\n\n")
                .expect("a string takes any text");
        }
        Ok(Self {
            jwt: operator.sign_token(
                "operator",
                &operator.public(),
                &json!({ "system_account": system.public(), "type": "operator", "version": 2 }),
                now_s,
            ),
            accounts: [
                account(&system, "SYS", unlimited),
                account(&readings, "READINGS", with_storage),
            ],
            creds,
        })
    }
}

impl Key {
    fn generate(kind: Kind) -> Result<Self, String> {
        let mut seed = [0; Seed::BYTES];
        let got = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| format!("no random bytes for keys: {error}"))?;
        if got != seed.len() {
            return Err("too few random bytes for keys".to_owned());
        }
        Ok(Self { kind, pair: KeyPair::from_seed(Seed::new(seed)) })
    }

    fn public(&self) -> String {
        encode(&[self.kind as u8], &self.pair.pk[..])
    }

    /// The seed as text: five bits say "seed", the next eight which kind of key it is of.
    fn seed(&self) -> String {
        let kind = self.kind as u8;
        encode(&[SEED_PREFIX | kind >> 5, kind << 3], &self.pair.sk.seed()[..])
    }

    fn sign_token(&self, name: &str, subject: &str, nats: &Value, now_s: u64) -> String {
        let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
        let claims = json!({
            "jti": subject, "iat": now_s, "iss": self.public(), "name": name, "sub": subject,
            "nats": nats,
        });
        let mut token = BASE64URL_NOPAD.encode(header.to_string().as_bytes());
        token.push('.');
        token.push_str(&BASE64URL_NOPAD.encode(claims.to_string().as_bytes()));
        let signature = self.pair.sk.sign(&token, None);
        token.push('.');
        token.push_str(&BASE64URL_NOPAD.encode(&signature[..]));
        token
    }
}

/// Prefix, body and checksum in base32.
fn encode(prefix: &[u8], body: &[u8]) -> String {
    let mut bytes = [prefix, body].concat();
    let checksum = crc16(&bytes);
    bytes.extend(checksum.to_le_bytes());
    BASE32_NOPAD.encode(&bytes)
}

/// CRC-16/XMODEM: polynomial 0x1021, start 0, nothing reflected.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
        })
    })
}
