//! Credentials of a leaf: a file as it is, or any claims in a token of one.
//!
//! An input that begins with a dash is the file; any other is what its token says.

use sedge::auth::creds::Creds;
use sedge::time::Timestamp;

use crate::engine::{Behaviour, fuzz};

const WORDS: &[&[u8]] = &[
    b"-----BEGIN NATS USER JWT-----\n",
    b"------END NATS USER JWT------\n",
    b"-----BEGIN USER NKEY SEED-----\n",
    b"------END USER NKEY SEED------\n",
    b"eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ.",
    b"SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY",
    b"\"jti\":\"x\",",
    b"\"iat\":",
    b"\"exp\":",
    b"\"nbf\":",
    b"\"iss\":\"A\",",
    b"\"name\":\"n\",",
    b"\"sub\":\"U\",",
    b"\"nats\":{",
    b"\"type\":\"user\",",
    b"\"type\":\"account\",",
    b"\"version\":2",
    b"\"version\":1",
    b"\"pub\":{\"allow\":[\"a.>\"],\"deny\":[\"b\"]},",
    b"\"sub\":{\"allow\":[\"a.>\"],\"deny\":[\"b\"]},",
    b"\"resp\":{\"max\":1,\"ttl\":1},",
    b"\"src\":[\"10.0.0.0/8\"],",
    b"\"times\":[{\"start\":\"08:00:00\",\"end\":\"20:00:00\"}],",
    b"\"subs\":-1,",
    b"\"allowed_connection_types\":[\"LEAFNODE\"],",
    b"\"bearer_token\":true,",
    b"\"issuer_account\":\"A\",",
    b"null",
    b"[]",
    b"{}",
    b"\"\\ud800\"",
];

/// A file around these claims. Nothing here checks who signed them: the hub does.
fn file_of(claims: &[u8]) -> String {
    let base64 = |bytes: &[u8]| data_encoding::BASE64URL_NOPAD.encode(bytes);
    format!(
        "-----BEGIN NATS USER JWT-----\n{}.{}.{}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        base64(b"{\"typ\":\"JWT\",\"alg\":\"ed25519-nkey\"}"),
        base64(claims),
        base64(&[7; 64]),
        "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
    )
}

#[test]
fn any_credentials_of_a_leaf() {
    fuzz("creds", WORDS, |input| {
        let mut behaviour = Behaviour::default();
        let text = match input.first() {
            Some(b'-') => String::from_utf8_lossy(input).into_owned(),
            _ => file_of(input),
        };
        match Creds::parse(&text) {
            Ok(creds) => {
                behaviour.note(b"taken");
                for wall in [0, 1_790_000_000_000_000_000, i64::MAX] {
                    if let Some(problem) = creds.problem(Timestamp(wall)) {
                        let text = problem.to_string();
                        assert!(!text.contains('\n'), "two lines: {text}");
                        behaviour.note(&text.as_bytes()[..text.len().min(16)]);
                    }
                }
            }
            Err(error) => {
                let text = error.to_string();
                assert!(!text.contains("SUACSSL3"), "the seed is told: {text}");
                behaviour.note(&text.as_bytes()[..text.len().min(24)]);
            }
        }
        behaviour
    });
}
