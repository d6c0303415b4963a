//! Tokens: the fixtures, and what must never be believed.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use proptest::prelude::*;

use super::claims::{AccountClaims, Activation, OperatorClaims, UserClaims};
use super::*;
use crate::auth::nkey::Seed;

const USER: &str = include_str!("../../../tests/fixtures/auth/users/alpha-perm.jwt");
const V1: &str = include_str!("../../../tests/fixtures/auth/users/alpha-v1.jwt");
const ACCOUNT: &str = include_str!("../../../tests/fixtures/auth/accounts/ALPHA.jwt");
const OPERATOR: &str = include_str!("../../../tests/fixtures/auth/operator.jwt");
const ACTIVATION: &str =
    include_str!("../../../tests/fixtures/auth/activations/bravo-secret-service.jwt");

fn signed(seed: &Seed, header: &str, body: &str) -> String {
    let encode = |text: &[u8]| data_encoding::BASE64URL_NOPAD.encode(text);
    let front = format!("{}.{}", encode(header.as_bytes()), encode(body.as_bytes()));
    let signature = seed.sign(front.as_bytes()).unwrap();
    format!("{front}.{}", encode(&signature))
}

const HEADER: &str = r#"{"typ":"JWT","alg":"ed25519-nkey"}"#;

fn account_seed() -> Seed {
    Seed::from_bytes(KeyKind::Account, [7; 32])
}

fn user_token(header: &str, nats: &str) -> String {
    let seed = account_seed();
    let issuer = seed.public_key().unwrap();
    let user = Seed::from_bytes(KeyKind::User, [8; 32]).public_key().unwrap();
    signed(&seed, header, &format!(r#"{{"iss":"{issuer}","sub":"{user}","nats":{nats}}}"#))
}

#[test]
fn the_fixtures_decode_as_what_they_are() {
    let user = Token::decode(USER).unwrap();
    assert_eq!((user.kind, user.version, user.name.as_str()), (Kind::User, 2, "alpha-perm"));
    assert!(UserClaims::read(&user).unwrap().grants.has_permissions());
    let user = Token::decode(V1).unwrap();
    assert_eq!((user.kind, user.version), (Kind::User, 1));
    assert_eq!(UserClaims::read(&user).unwrap().grants.subs, -1);
    let account = AccountClaims::read(&Token::decode(ACCOUNT).unwrap()).unwrap();
    assert_eq!(account.exports.len(), 7);
    assert!(account.signing.values().flatten().count() > 0);
    assert!(check::account(&account).is_empty(), "{:?}", check::account(&account));
    let operator = OperatorClaims::read(&Token::decode(OPERATOR).unwrap()).unwrap();
    assert_eq!((operator.signing.len(), operator.strict), (1, false));
    let activation = Activation::decode(ACTIVATION.trim()).unwrap();
    assert_eq!(activation.kind, Some(claims::Share::Service));
}

#[test]
fn headers_and_versions_are_taken_as_by_nats_server() {
    let nats = r#"{"type":"user","version":2}"#;
    for (header, expected) in [
        (HEADER, None),
        (r#"{"typ":"jwt","alg":"ED25519-NKEY"}"#, None),
        (r#"{"typ":"JWT","alg":"ed25519","kid":[1]}"#, None),
        (r#"{"typ":"JWT","alg":"none"}"#, Some(JwtError::Header)),
        (r#"{"typ":"JWT","alg":"HS256"}"#, Some(JwtError::Header)),
        (r#"{"typ":"JOSE","alg":"ed25519-nkey"}"#, Some(JwtError::Header)),
        ("[]", Some(JwtError::Json)),
    ] {
        assert_eq!(Token::decode(&user_token(header, nats)).err(), expected, "{header}");
    }
    for (nats, expected) in [
        (r#"{"type":"user","version":3}"#, Some(JwtError::Newer)),
        (r#"{"type":"user"}"#, Some(JwtError::NoVersion)),
        // Version 1 signs the body alone, and this one was not signed so.
        (r#"{"type":"user","version":1}"#, Some(JwtError::Signature)),
        (r#"{"type":"operator","version":2}"#, Some(JwtError::IssuerKind)),
        (r#"{"type":5,"version":2}"#, Some(JwtError::Json)),
        (r#"{"type":"user","version":2.5}"#, Some(JwtError::Json)),
        ("null", None),
        ("5", Some(JwtError::Json)),
    ] {
        assert_eq!(Token::decode(&user_token(HEADER, nats)).err(), expected, "{nats}");
    }
    let token = user_token(HEADER, nats);
    assert!(Token::decode(&format!("{token}\n")).is_ok());
    for wrong in
        [format!("{token}="), format!("{token} "), format!("\n{token}"), token.replace('.', "..")]
    {
        assert!(Token::decode(&wrong).is_err(), "{wrong}");
    }
    assert_eq!(Token::decode("").err(), Some(JwtError::Chunks));
    assert_eq!(Token::decode(&"a".repeat(JWT_BYTES_MAX + 1)).err(), Some(JwtError::TooLarge));
}

/// The order of the group, little endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

#[test]
fn a_signature_with_a_scalar_beyond_the_order_is_refused() {
    let token = user_token(HEADER, r#"{"type":"user","version":2}"#);
    let (front, signature) = token.rsplit_once('.').unwrap();
    let mut signature = data_encoding::BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap();
    let mut carry = 0_u16;
    for (byte, add) in signature[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    assert_eq!(carry, 0);
    let forged = format!("{front}.{}", data_encoding::BASE64URL_NOPAD.encode(&signature));
    assert!(Token::decode(&token).is_ok());
    assert_eq!(Token::decode(&forged).err(), Some(JwtError::Signature));
}

#[test]
fn keys_of_small_order_sign_nothing() {
    // The eight points of small order, and encodings of them that are not canonical.
    let points = [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    for key in points {
        let key = data_encoding::HEXLOWER.decode(key.as_bytes()).unwrap();
        let key = ed25519_compact::PublicKey::new(key.try_into().unwrap());
        for point in points {
            // R a point of small order and S zero: good for such a key, if it were one.
            let mut signature = data_encoding::HEXLOWER.decode(point.as_bytes()).unwrap();
            signature.extend([0; 32]);
            let signature = ed25519_compact::Signature::new(signature.try_into().unwrap());
            for message in [&b""[..], b"a", b"bc", b"sHdiMRp3oQSGbFw"] {
                assert!(key.verify(message, &signature).is_err());
            }
        }
    }
}

#[test]
fn armour_is_not_part_of_a_token() {
    let armoured = format!(
        "-----BEGIN NATS OPERATOR JWT-----\n{}\n------END NATS OPERATOR JWT------\n",
        OPERATOR.trim()
    );
    assert_eq!(of_file(&armoured), OPERATOR.trim());
    assert_eq!(of_file(&format!("\n {}\n\n", OPERATOR.trim())), OPERATOR.trim());
}

#[test]
fn times_count_in_whole_seconds_and_the_last_one_is_in() {
    let mut token = Token::decode(USER).unwrap();
    (token.expires, token.not_before) = (100, 50);
    let at = |seconds: i64, nanos: i64| Timestamp(seconds * 1_000_000_000 + nanos);
    assert_eq!(token.time_problem(at(100, 999_999_999)), None);
    assert_eq!(token.time_problem(at(101, 0)), Some("claim is expired"));
    assert_eq!(token.time_problem(at(49, 999_999_999)), Some("claim is not yet valid"));
    assert_eq!(token.time_problem(at(50, 0)), None);
}

proptest! {
    #[test]
    fn no_bit_of_a_token_can_be_changed(at in 0..USER.trim().len(), bit in 0..8_u32) {
        let mut bytes = USER.trim().as_bytes().to_vec();
        bytes[at] ^= 1 << bit;
        if let Ok(text) = String::from_utf8(bytes) {
            prop_assert!(Token::decode(&text).is_err(), "{}", at);
        }
    }

    #[test]
    fn any_text_is_decoded_or_refused(text in ".*", parts in proptest::collection::vec(".{0,40}", 3)) {
        let encode = |part: &String| data_encoding::BASE64URL_NOPAD.encode(part.as_bytes());
        let parts: Vec<String> = parts.iter().map(encode).collect();
        prop_assert!(Token::decode(&text).is_err());
        prop_assert!(Token::decode(&parts.join(".")).is_err());
        prop_assert!(!of_file(&text).to_string().contains('\n') || text.trim() == of_file(&text));
    }
}
