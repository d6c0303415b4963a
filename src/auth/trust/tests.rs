//! Trust: who gets in by which token, and that no change of a token widens what it allows.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::sign_in::{Attempt, Failure};
use super::*;
use crate::auth::nkey::Seed;
use crate::auth::sign_in::{Identity, Refusal};
use crate::auth::user::ConnectionType;

const NONCE: &str = "sHdiMRp3oQSGbFw";
const WALL: Timestamp = Timestamp(1_700_000_000_000_000_000);

fn seed(kind: KeyKind, number: u8) -> Seed {
    Seed::from_bytes(kind, [number; 32])
}

fn key(seed: &Seed) -> String {
    seed.public_key().unwrap().to_string()
}

fn token(signer: &Seed, subject: &str, more: &Value, nats: &Value) -> String {
    let encode = |text: String| data_encoding::BASE64URL_NOPAD.encode(text.as_bytes());
    let mut claims =
        json!({ "iss": key(signer), "sub": subject, "iat": 1_600_000_000, "nats": nats });
    claims["nats"]["version"] = json!(2);
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    let header = encode(json!({ "typ": "JWT", "alg": "ed25519-nkey" }).to_string());
    let front = format!("{header}.{}", encode(claims.to_string()));
    let signature = signer.sign(front.as_bytes()).unwrap();
    format!("{front}.{}", data_encoding::BASE64URL_NOPAD.encode(&signature))
}

fn operator() -> Seed {
    seed(KeyKind::Operator, 1)
}

fn account() -> Seed {
    seed(KeyKind::Account, 2)
}

fn user() -> Seed {
    seed(KeyKind::User, 3)
}

fn account_token(more: &Value, body: &Value) -> String {
    let mut nats = json!({ "type": "account", "limits": { "subs": -1, "conn": -1, "payload": -1,
        "imports": -1, "exports": -1, "leaf": -1, "wildcards": true } });
    for (name, value) in body.as_object().unwrap() {
        nats[name] = value.clone();
    }
    token(&operator(), &key(&account()), more, &nats)
}

fn trust(lax: bool, tokens: &[String]) -> Trust {
    Trust::new(TrustOptions {
        operators: Vec::new(),
        trusted_keys: Vec::from([operator().public_key().unwrap()]),
        system_account: String::new(),
        tokens: tokens.iter().map(|token| (key(&account()), token.clone())).collect(),
        pinned: Vec::new(),
        sentinel: String::new(),
        resolver: Resolver::Full {
            allow_delete: false,
            hard_delete: false,
            interval: Duration::from_mins(1),
            limit: 0,
            timeout: Duration::from_secs(1),
        },
        lax,
        zone: |name, _| (name.is_empty() || name == "UTC").then_some(0),
        started: WALL,
    })
}

fn user_token(more: &Value, grants: &Value) -> String {
    let mut nats = json!({ "type": "user", "subs": -1, "data": -1, "payload": -1 });
    for (name, value) in grants.as_object().unwrap() {
        nats[name] = value.clone();
    }
    token(&account(), &key(&user()), more, &nats)
}

fn attempt(trust: &mut Trust, jwt: &str) -> Result<Rc<Identity>, Failure> {
    let signature = data_encoding::BASE64URL_NOPAD.encode(&user().sign(NONCE.as_bytes()).unwrap());
    let attempt = Attempt {
        jwt,
        signature: &signature,
        nonce: NONCE,
        connection: ConnectionType::Standard,
        address: Some([192, 0, 2, 7].into()),
        through_proxy: false,
    };
    trust.sign_in(&attempt, WALL)
}

fn refusal(result: Result<Rc<Identity>, Failure>) -> String {
    match result {
        Ok(_) => "let in".into(),
        Err(Failure::Unknown(account)) => format!("unknown {account}"),
        Err(Failure::Refused(Refusal::Token { text, .. })) => text,
        Err(Failure::Refused(refusal)) => refusal.text(),
    }
}

#[test]
fn what_is_in_a_token_decides_who_gets_in() {
    let plain = json!({});
    let mut open = trust(false, &[account_token(&plain, &plain)]);
    for (grants, expected) in [
        (json!({}), "let in"),
        (json!({ "src": ["192.0.2.0/24"] }), "let in"),
        (json!({ "src": ["192.0.2.8/32", "2001:db8::/32"] }), "Bad src Ip 192.0.2.7"),
        (json!({ "src": "10.0.0.0/8,192.0.2.7/32" }), "let in"),
        // It is 22:13:20 in UTC.
        (json!({ "times": [{ "start": "22:00:00", "end": "23:00:00" }] }), "let in"),
        (json!({ "times": [{ "start": "22:13:20", "end": "23:00:00" }] }), "Outside connect times"),
        (json!({ "times": [{ "start": "23:00:00", "end": "22:30:00" }] }), "let in"),
        (json!({ "times": [{ "start": "23:00:00", "end": "22:00:00" }] }), "Outside connect times"),
        (json!({ "sub": { "deny": ["a.>.b"] } }), "User JWT generated invalid permissions"),
        (json!({ "sub": { "allow": ["a.>.b"] } }), "let in"),
        (json!({ "allowed_connection_types": ["leafnode"] }), "Connection type not allowed"),
    ] {
        assert_eq!(refusal(attempt(&mut open, &user_token(&plain, &grants))), expected, "{grants}");
    }
    // An allow list of which nothing is left allows nothing.
    let grants = json!({ "sub": { "allow": ["a.>.b"] } });
    let identity = attempt(&mut open, &user_token(&plain, &grants)).unwrap();
    assert!(!identity.policy.as_ref().unwrap().may_subscribe(b"a", b""));
    // As nats-server, which drops what it cannot read.
    let mut lax = trust(true, &[account_token(&plain, &plain)]);
    let grants = json!({ "sub": { "deny": ["a.>.b"] } });
    assert_eq!(refusal(attempt(&mut lax, &user_token(&plain, &grants))), "let in");
    for (more, expected) in [
        (json!({ "exp": 1_700_000_000 }), "let in"),
        (json!({ "exp": 1_699_999_999 }), "User JWT no longer valid: &{Issues:[claim is expired]}"),
        (
            json!({ "nbf": 1_700_000_001 }),
            "User JWT no longer valid: &{Issues:[claim is not yet valid]}",
        ),
    ] {
        assert_eq!(refusal(attempt(&mut open, &user_token(&more, &plain))), expected, "{more}");
    }
    let nobody = refusal(attempt(&mut open, "x"));
    assert_eq!(nobody, "Authentication requires a user JWT");
}

#[test]
fn accounts_that_want_to_be_asked_elsewhere_let_nobody_in_undecided() {
    let service = key(&seed(KeyKind::User, 9));
    let body = json!({ "authorization": { "auth_users": [service] } });
    let mut open = trust(false, &[account_token(&json!({}), &body)]);
    let told = refusal(attempt(&mut open, &user_token(&json!({}), &json!({}))));
    assert!(told.starts_with("Auth callout"), "{told}");
    let body = json!({ "authorization": { "auth_users": [key(&user())] } });
    let mut open = trust(false, &[account_token(&json!({}), &body)]);
    assert!(attempt(&mut open, &user_token(&json!({}), &json!({}))).is_ok());
}

#[test]
fn an_older_token_does_not_come_back() {
    let at =
        |iat: i64| account_token(&json!({ "iat": iat }), &json!({ "tags": [iat.to_string()] }));
    let mut both = trust(false, &[at(20), at(10)]);
    assert_eq!(both.token(&key(&account())), Some(at(20).as_str()), "the newer one of two is used");
    both.look_up(&key(&account()), WALL).unwrap();
    assert!(both.examine(&at(19), None, WALL).unwrap_err().description.contains("older"));
    assert!(both.examine(&at(20), None, WALL).is_ok());
    let name = both.examine(&at(21), None, WALL).unwrap();
    assert!(matches!(both.take_in(&name, &at(21), WALL), Taken::Updated(_)));
    assert_eq!(both.take_in(&name, &at(21), WALL), Taken::Same);
    assert!(trust(true, &[at(20)]).examine(&at(10), None, WALL).is_ok());
    let strangers =
        token(&seed(KeyKind::Operator, 5), &name, &json!({}), &json!({ "type": "account" }));
    assert_eq!(
        both.examine(&strangers, None, WALL).unwrap_err().description,
        "account is not trusted"
    );
}

#[test]
fn ten_thousand_users_and_a_thousand_revocations_are_small() {
    let revocations: serde_json::Map<String, Value> = (0..1000_u32)
        .map(|number| {
            let mut bytes = [0; 32];
            // No key is all zero.
            bytes[31] = 1;
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            (key(&Seed::from_bytes(KeyKind::User, bytes)), json!(1_600_000_001))
        })
        .collect();
    let text = account_token(&json!({}), &json!({ "revocations": revocations }));
    // Users leave nothing behind: what is held is the token and what was read of it.
    assert!(text.len() < 128 * 1024, "{}", text.len());
    let mut open = trust(false, &[text]);
    for _ in 0..100 {
        assert!(attempt(&mut open, &user_token(&json!({}), &json!({}))).is_ok());
    }
    assert_eq!(open.all_loaded().count(), 1);
    assert_eq!(open.loaded(&key(&account())).unwrap().claims.revocations.len(), 1000);
}

const PROBES: [&str; 10] = ["a", "a.b", "a.b.c", "b", "b.a", "c.a", "a.*", "a.>", ">", "*.b"];

fn entry() -> impl Strategy<Value = String> {
    let word = prop_oneof![Just("a"), Just("b"), Just("c"), Just("*"), Just(">")];
    proptest::collection::vec(word, 1..4).prop_map(|words| words.join("."))
}

fn lists() -> impl Strategy<Value = (Vec<String>, Vec<String>)> {
    (proptest::collection::vec(entry(), 0..4), proptest::collection::vec(entry(), 0..4))
}

fn allowed(result: &Result<Rc<Identity>, Failure>) -> Vec<bool> {
    let Ok(identity) = result else { return Vec::from([false; 2 * PROBES.len()]) };
    let policy = identity.policy.as_ref();
    let publish =
        PROBES.iter().map(|probe| policy.is_none_or(|policy| policy.may_publish(probe.as_bytes())));
    let subscribe = PROBES
        .iter()
        .map(|probe| policy.is_none_or(|policy| policy.may_subscribe(probe.as_bytes(), b"")));
    publish.chain(subscribe).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// An entry of a deny list more, an entry of an allow list less, an entry that became
    /// rubbish: none of it lets a user do what it could not do before.
    #[test]
    fn no_narrowing_change_of_a_token_widens_it(
        publish in lists(), subscribe in lists(), more in entry(), which in 0..6_usize, at in 0..4_usize,
    ) {
        let mut open = trust(false, &[account_token(&json!({}), &json!({}))]);
        let grants = |publish: &(Vec<String>, Vec<String>), subscribe: &(Vec<String>, Vec<String>)| {
            user_token(&json!({}), &json!({
                "pub": { "allow": publish.0, "deny": publish.1 },
                "sub": { "allow": subscribe.0, "deny": subscribe.1 },
            }))
        };
        let before = allowed(&attempt(&mut open, &grants(&publish, &subscribe)));
        let (mut publish, mut subscribe) = (publish, subscribe);
        let lists = if which % 2 == 0 { &mut publish } else { &mut subscribe };
        match which / 2 {
            0 => lists.1.push(more),
            1 if lists.0.len() > 1 => { lists.0.remove(at % lists.0.len()); }
            _ => {
                let list = if lists.0.is_empty() { &mut lists.1 } else { &mut lists.0 };
                if list.is_empty() {
                    return Ok(());
                }
                let at = at % list.len();
                list[at] = "a.>.b".into();
            }
        }
        let after = allowed(&attempt(&mut open, &grants(&publish, &subscribe)));
        for (index, (before, after)) in before.iter().zip(&after).enumerate() {
            prop_assert!(*before || !*after, "{} {:?} {:?}", index, publish, subscribe);
        }
    }

    /// Whatever stands where a signature should be, nobody is let in by it.
    #[test]
    fn no_other_signature_opens(bytes in proptest::collection::vec(any::<u8>(), 64), bit in 0..512_usize) {
        let mut open = trust(false, &[account_token(&json!({}), &json!({}))]);
        let jwt = user_token(&json!({}), &json!({}));
        let mut flipped = user().sign(NONCE.as_bytes()).unwrap();
        flipped[bit / 8] ^= 1 << (bit % 8);
        for signature in [bytes, flipped.to_vec()] {
            let attempt = Attempt {
                jwt: &jwt,
                signature: &data_encoding::BASE64URL_NOPAD.encode(&signature),
                nonce: NONCE,
                connection: ConnectionType::Standard,
                address: None,
                through_proxy: false,
            };
            prop_assert!(open.sign_in(&attempt, WALL).is_err());
        }
    }
}
