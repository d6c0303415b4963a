//! Creds files: a user JWT and the seed that proves it is ours.
//!
//! Owns taking the file apart and reading enough of the JWT to tell an operator who it is
//! for and whether it can still work. Does not read files, and verifies no signature: the
//! server that is dialled does that.
//!
//! Source: the layout nsc writes; ADR-14 (JWT library).

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::Deserialize;

use crate::auth::Secret;
use crate::auth::nkey::{KeyKind, NkeyError, Seed};
use crate::time::Timestamp;

/// Most bytes a creds file may have: the bound nats-server puts on a token.
pub const CREDS_BYTES_MAX: usize = 1024 * 1024;

/// What a creds file holds.
#[derive(Clone, Debug)]
pub struct Creds {
    /// The user JWT, as it goes into CONNECT.
    pub jwt: Secret,
    /// Signs the nonce.
    pub seed: Seed,
    /// What the JWT says about itself, unverified.
    pub claims: UserClaims,
}

/// The part of a user JWT that helps to explain a refusal. Nothing here was verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserClaims {
    /// The user's name, as given to `nsc add user`.
    pub name: String,
    /// The user's public key.
    pub subject: String,
    /// The account the user belongs to.
    pub account: String,
    /// When the token ends; `Timestamp(0)`: never.
    pub expires: Timestamp,
    /// When it begins; `Timestamp(0)`: at once.
    pub not_before: Timestamp,
    /// Kinds of connection it may be used for; empty: all.
    pub connection_types: Vec<String>,
}

/// Why a file is not a creds file. The texts go behind the file's name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CredsError {
    /// Over [`CREDS_BYTES_MAX`].
    TooLarge,
    /// There is no block between dashed lines.
    NoJwt,
    /// There is a JWT and nothing after it.
    NoSeed,
    /// The second block is not a seed.
    Seed(NkeyError),
    /// The second block is a seed, of something else than a user.
    SeedKind(KeyKind),
    /// The first block is not a JWT.
    Jwt(&'static str),
}

impl fmt::Display for CredsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge => f.write_str("credentials file is over 1 MiB"),
            Self::NoJwt => f.write_str(
                "credentials file malformed: no line between `-----BEGIN NATS USER JWT-----` \
                 and `------END NATS USER JWT------`",
            ),
            Self::NoSeed => f.write_str(
                "credentials file malformed: it has a JWT but no block \
                 `-----BEGIN USER NKEY SEED-----` after it",
            ),
            Self::Seed(error) => write!(f, "credentials file has malformed seed: {error}"),
            Self::SeedKind(kind) => write!(
                f,
                "credentials file has a seed of another kind ({kind:?}); a user's starts with SU"
            ),
            Self::Jwt(what) => write!(f, "credentials file has a malformed JWT: {what}"),
        }
    }
}

impl core::error::Error for CredsError {}

/// Why credentials that parse will be refused by the server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CredsProblem {
    /// They ended at this time.
    Expired(Timestamp),
    /// They begin at this time.
    NotYetValid(Timestamp),
    /// The seed is that of another user than the JWT names.
    OtherSeed {
        /// Whom the JWT is for.
        jwt: String,
        /// Whom the seed belongs to.
        seed: String,
    },
    /// The JWT is limited to these kinds of connection, leaf nodes not among them.
    ConnectionType(Vec<String>),
}

impl fmt::Display for CredsProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired(at) => {
                write!(f, "credentials expired on {}; ask for a new creds file", Date(*at))
            }
            Self::NotYetValid(at) => {
                write!(f, "credentials are not valid before {}; check the clock", Date(*at))
            }
            Self::OtherSeed { jwt, seed } => write!(
                f,
                "the seed in the credentials belongs to {seed}, the JWT to {jwt}; \
                 take both from one creds file"
            ),
            Self::ConnectionType(types) => write!(
                f,
                "the credentials are for {} only; a leaf node needs LEAFNODE among its \
                 allowed connection types",
                types.join(", ")
            ),
        }
    }
}

impl Creds {
    /// Takes the text of a creds file apart.
    pub fn parse(text: &str) -> Result<Self, CredsError> {
        if text.len() > CREDS_BYTES_MAX {
            return Err(CredsError::TooLarge);
        }
        let mut blocks = Blocks { lines: text.lines() };
        let jwt = blocks.next().ok_or(CredsError::NoJwt)?;
        let seed = blocks.next().ok_or(CredsError::NoSeed)?;
        let claims = UserClaims::decode(jwt)?;
        let seed: Seed = seed.parse().map_err(CredsError::Seed)?;
        if seed.kind() != KeyKind::User {
            return Err(CredsError::SeedKind(seed.kind()));
        }
        Ok(Self { jwt: Secret::new(jwt), seed, claims })
    }

    /// Why the server will refuse these, if that can be told from here. A clock that was
    /// never set (`wall` 0) proves nothing about times.
    pub fn problem(&self, wall: Timestamp) -> Option<CredsProblem> {
        let claims = &self.claims;
        if wall.0 > 0 {
            if claims.expires.0 != 0 && claims.expires <= wall {
                return Some(CredsProblem::Expired(claims.expires));
            }
            if claims.not_before > wall {
                return Some(CredsProblem::NotYetValid(claims.not_before));
            }
        }
        let types = &claims.connection_types;
        if !types.is_empty() && !types.iter().any(|one| one.eq_ignore_ascii_case("LEAFNODE")) {
            return Some(CredsProblem::ConnectionType(types.clone()));
        }
        let seed = self.seed.public_key().map_or_else(|_| String::new(), |key| key.to_string());
        if seed != claims.subject {
            return Some(CredsProblem::OtherSeed { jwt: claims.subject.clone(), seed });
        }
        None
    }
}

impl UserClaims {
    /// Reads the payload of a JWT.
    pub fn decode(jwt: &str) -> Result<Self, CredsError> {
        let mut parts = jwt.split('.');
        let (Some(_), Some(payload), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(CredsError::Jwt("it has not three parts between dots"));
        };
        let payload = data_encoding::BASE64URL_NOPAD
            .decode(payload.as_bytes())
            .map_err(|_| CredsError::Jwt("its second part is not base64url"))?;
        let wire: WireClaims = serde_json::from_slice(&payload)
            .map_err(|_| CredsError::Jwt("its second part is not the JSON of a token"))?;
        if wire.nats.kind != "user" {
            return Err(CredsError::Jwt("it is not the token of a user"));
        }
        let account =
            if wire.nats.issuer_account.is_empty() { wire.iss } else { wire.nats.issuer_account };
        Ok(Self {
            name: wire.name,
            subject: wire.sub,
            account,
            expires: seconds(wire.exp),
            not_before: seconds(wire.nbf),
            connection_types: wire.nats.allowed_connection_types,
        })
    }
}

/// The names as JWTs have them.
#[derive(Default, Deserialize)]
#[serde(default)]
struct WireClaims {
    name: String,
    sub: String,
    iss: String,
    exp: i64,
    nbf: i64,
    nats: WireNats,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireNats {
    #[serde(rename = "type")]
    kind: String,
    issuer_account: String,
    allowed_connection_types: Vec<String>,
}

fn seconds(unix: i64) -> Timestamp {
    Timestamp(unix.saturating_mul(1_000_000_000))
}

/// `2026-03-01 12:00:00 UTC`.
struct Date(Timestamp);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let short = text.get(..19).unwrap_or(&text);
        write!(f, "{} UTC", short.replace('T', " "))
    }
}

/// Lines that stand alone between two dashed lines.
struct Blocks<'a> {
    lines: core::str::Lines<'a>,
}

impl<'a> Iterator for Blocks<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        loop {
            // A dashed line may close one block and open the next, so only it is consumed.
            let line = self.lines.next()?;
            if !is_dashed(line) {
                continue;
            }
            let mut ahead = self.lines.clone();
            let (Some(body), Some(end)) = (ahead.next(), ahead.next()) else { continue };
            if is_body(body) && is_dashed(end) {
                self.lines = ahead;
                return Some(body);
            }
        }
    }
}

fn is_dashed(line: &str) -> bool {
    line.len() >= 6 && line.starts_with("---") && line.ends_with("---")
}

fn is_body(line: &str) -> bool {
    !line.is_empty()
        && line.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.=".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    const SEED: &str = "SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y";
    const PUBLIC: &str = "UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK";

    fn token(payload: &str) -> String {
        format!("aGVhZA.{}.c2ln", data_encoding::BASE64URL_NOPAD.encode(payload.as_bytes()))
    }

    fn file(jwt: &str, seed: &str, line_end: &str) -> String {
        [
            "-----BEGIN NATS USER JWT-----",
            jwt,
            "------END NATS USER JWT------",
            "",
            "************************* IMPORTANT *************************",
            "NKEY Seed printed below can be used to sign and prove identity.",
            "-----BEGIN USER NKEY SEED-----",
            seed,
            "------END USER NKEY SEED------",
            "*************************************************************",
        ]
        .join(line_end)
    }

    fn user(extra: &str) -> String {
        token(&format!(
            r#"{{"sub":"{PUBLIC}","iss":"AISS","name":"gw1",{extra}"nats":{{"type":"user","version":2}}}}"#
        ))
    }

    #[test]
    fn both_blocks_are_found_whatever_the_line_ends() {
        for line_end in ["\n", "\r\n"] {
            let creds = Creds::parse(&file(&user(""), SEED, line_end)).unwrap();
            assert_eq!(creds.jwt.expose(), user(""));
            assert_eq!(creds.claims.name, "gw1");
            assert_eq!(creds.claims.account, "AISS");
            assert_eq!(creds.problem(Timestamp(1)), None);
            assert!(!format!("{creds:?}").contains(SEED));
        }
    }

    #[test]
    fn broken_files_say_what_is_missing() {
        let jwt = user("");
        let without_seed: String =
            file(&jwt, SEED, "\n").lines().take(3).collect::<Vec<_>>().join("\n");
        assert_eq!(Creds::parse("").unwrap_err(), CredsError::NoJwt);
        assert_eq!(Creds::parse(&jwt).unwrap_err(), CredsError::NoJwt);
        assert_eq!(Creds::parse(&without_seed).unwrap_err(), CredsError::NoSeed);
        assert_eq!(
            Creds::parse(&file(&jwt, &SEED.replace('6', "7"), "\n")).unwrap_err(),
            CredsError::Seed(NkeyError::Checksum)
        );
        let account = "SAAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4HYMHI";
        assert_eq!(
            Creds::parse(&file(&jwt, account, "\n")).unwrap_err(),
            CredsError::SeedKind(KeyKind::Account)
        );
        assert!(matches!(Creds::parse(&file("abc", SEED, "\n")), Err(CredsError::Jwt(_))));
        assert!(matches!(
            Creds::parse(&file(&token(r#"{"nats":{"type":"account"}}"#), SEED, "\n")),
            Err(CredsError::Jwt("it is not the token of a user"))
        ));
    }

    #[test]
    fn trouble_ahead_is_told_before_the_server_refuses() {
        let parse = |extra: &str| Creds::parse(&file(&user(extra), SEED, "\n")).unwrap();
        let now = seconds(1_790_000_000);
        let expired = parse(r#""exp":1736000000,"#).problem(now).unwrap();
        assert_eq!(expired, CredsProblem::Expired(seconds(1_736_000_000)));
        assert!(expired.to_string().starts_with("credentials expired on 2025-01-04 14:13:20 UTC;"));
        assert_eq!(parse(r#""exp":1736000000,"#).problem(Timestamp(0)), None);
        assert!(matches!(
            parse(r#""nbf":1800000000,"#).problem(now),
            Some(CredsProblem::NotYetValid(_))
        ));
        let other = Seed::from_bytes(KeyKind::User, [1; 32]);
        let creds = Creds::parse(&file(&user(""), &other.expose(), "\n")).unwrap();
        assert!(matches!(creds.problem(now), Some(CredsProblem::OtherSeed { .. })));
        let standard = token(&format!(
            r#"{{"sub":"{PUBLIC}","nats":{{"type":"user","allowed_connection_types":["STANDARD"]}}}}"#
        ));
        let creds = Creds::parse(&file(&standard, SEED, "\n")).unwrap();
        assert!(matches!(creds.problem(now), Some(CredsProblem::ConnectionType(_))));
    }

    proptest::proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in "[-A-Za-z.\n\r]{0,300}") {
            let _ = Creds::parse(&text);
        }
    }
}
