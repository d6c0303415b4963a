//! Tokens, creds files and keys: any text, and any claims that somebody trusted has signed.

use sedge::auth::creds::Creds;
use sedge::auth::jwt::claims::{AccountClaims, OperatorClaims, UserClaims};
use sedge::auth::jwt::template::Values;
use sedge::auth::jwt::{Token, check, of_file};
use sedge::auth::nkey::{KeyKind, PublicKey, Seed};
use sedge::time::Timestamp;

use crate::engine::{Behaviour, fuzz};

const WORDS: &[&[u8]] = &[
    b"{\"iss\":\"ACCOUNT\",\"sub\":\"USER\",\"nats\":{\"type\":\"user\",\"version\":2}}",
    b"\"type\":\"account\"",
    b"\"type\":\"operator\"",
    b"\"type\":\"activation\"",
    b"\"version\":1",
    b"\"limits\":{\"subs\":-1,\"conn\":9223372036854775807}",
    b"\"tiered_limits\":{\"R1\":{\"streams\":1}}",
    b"\"signing_keys\":[{\"kind\":\"user_scope\",\"key\":\"ACCOUNT\",\"template\":{}}]",
    b"\"pub\":{\"allow\":[\"a.{{name()}}.{{tag(x)}}\"],\"deny\":[\"a b\"]}",
    b"\"src\":\"10.0.0.0/8,::/0\"",
    b"\"times\":[{\"start\":\"00:00:00\",\"end\":\"23:59:59\"}]",
    b"\"exports\":[{\"subject\":\"a.*\",\"type\":\"service\",\"account_token_position\":2}]",
    b"\"imports\":[{\"subject\":\"a\",\"account\":\"ACCOUNT\",\"local_subject\":\"$1\",\"type\":1}]",
    b"\"mappings\":{\"a\":[{\"subject\":\"b\",\"weight\":300}]}",
    b"\"tags\":[\"x:1\",\"x:*\"]",
    b"null",
    b"-1",
    b"1e400",
    b"\\ud800",
    b"-----BEGIN NATS USER JWT-----\n",
    b"------END NATS USER JWT------\n",
];

fn seed(kind: KeyKind) -> Seed {
    Seed::from_bytes(kind, [7; 32])
}

fn text_of(kind: KeyKind) -> String {
    seed(kind).public_key().expect("it can sign").to_string()
}

/// The token of these claims, by whoever they say.
fn signed(claims: &str) -> Option<String> {
    let claims = claims
        .replace("ACCOUNT", &text_of(KeyKind::Account))
        .replace("OPERATOR", &text_of(KeyKind::Operator))
        .replace("USER", &text_of(KeyKind::User));
    let value: serde_json::Value = serde_json::from_str(&claims).ok()?;
    let kind =
        if value["iss"].as_str()?.starts_with('O') { KeyKind::Operator } else { KeyKind::Account };
    let encode = |text: &str| data_encoding::BASE64URL_NOPAD.encode(text.as_bytes());
    let front =
        format!("{}.{}", encode("{\"typ\":\"JWT\",\"alg\":\"ed25519-nkey\"}"), encode(&claims));
    let body = front.split_once('.').map_or("", |(_, body)| body);
    let first = value["type"].is_string() || value["nats"]["version"] == 1;
    let signature = seed(kind).sign(if first { body } else { &front }.as_bytes()).ok()?;
    Some(format!("{front}.{}", data_encoding::BASE64URL_NOPAD.encode(&signature)))
}

fn look(token: &Token, behaviour: &mut Behaviour) {
    behaviour.note(token.kind.name().as_bytes());
    let zone = |name: &str, _| (name == "UTC").then_some(0);
    if let Ok(user) = UserClaims::read(token) {
        behaviour.note(&[u8::from(check::user(&user.grants, "", zone).is_empty())]);
    }
    if let Ok(operator) = OperatorClaims::read(token) {
        behaviour.note(&[u8::from(operator.strict)]);
    }
    if let Ok(account) = AccountClaims::read(token) {
        for problem in check::account(&account) {
            behaviour.note(problem.as_bytes().get(..12).unwrap_or_default());
        }
        let values = Values { user: token, account: &account, lax: false };
        for scope in account.signing.values().flatten() {
            let filled = values.fill(&scope.template.publish);
            // Nothing of a value is looked at again, and nothing becomes wider by one.
            if let Ok(lists) = filled {
                assert!(lists.allow.len() <= 4096 && lists.deny.len() <= 4097);
            }
        }
    }
    let _ = token.time_problem(Timestamp(1));
}

#[test]
fn any_token_creds_file_or_key() {
    fuzz("tokens", WORDS, |input| {
        let mut behaviour = Behaviour::default();
        let text = String::from_utf8_lossy(input);
        match Token::decode(of_file(&text)) {
            Ok(token) => look(&token, &mut behaviour),
            Err(error) => behaviour.note(error.to_string().as_bytes()),
        }
        match Creds::parse(&text) {
            Ok(creds) => behaviour.note(creds.claims.name.as_bytes()),
            Err(error) => {
                behaviour.note(error.to_string().as_bytes().get(..24).unwrap_or_default());
            }
        }
        if let Ok(key) = text.parse::<PublicKey>() {
            assert_eq!(key.to_string(), text);
        }
        if let Ok(seed) = text.parse::<Seed>() {
            assert_eq!(seed.expose().get(..57), text.get(..57), "all but the spare bits");
        }
        if let Some(token) = signed(&text) {
            match Token::decode(&token) {
                Ok(token) => look(&token, &mut behaviour),
                Err(error) => behaviour.note(error.to_string().as_bytes()),
            }
        }
        behaviour
    });
}
