//! Accounts by message: what a push, a look-up, a list and a deletion do, also to those who
//! are inside, and what is left of it after a restart.

#![expect(clippy::unwrap_used, reason = "a test may")]
#![expect(clippy::needless_pass_by_value, reason = "tokens are written where they are used")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sedge::auth::nkey::{KeyKind, Seed};
use serde_json::{Value, json};

use crate::door::{Door, Doors};
use crate::operators::{FlushIgnoring as _, connect, creds, fixture, outcome, take};
use crate::raw_client::RawClient;
use crate::server::Server;

pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

pub(crate) fn key(seed: &Seed) -> String {
    seed.public_key().unwrap().to_string()
}

pub(crate) fn seed(kind: KeyKind, number: u8) -> Seed {
    Seed::from_bytes(kind, [number; 32])
}

/// A seed of the fixtures.
pub(crate) fn known(name: &str) -> Seed {
    let keys: Value = serde_json::from_str(&fixture("keys.json")).unwrap();
    keys[name]["seed"].as_str().unwrap().parse().unwrap()
}

/// A token; `more` goes to the top level.
pub(crate) fn token(signer: &Seed, subject: &str, more: Value, mut nats: Value) -> String {
    let encode =
        |value: &Value| data_encoding::BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    if nats.get("version").is_none() {
        nats["version"] = json!(2);
    }
    let mut claims = json!({ "iss": key(signer), "sub": subject, "iat": now(), "nats": nats });
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let front = format!("{}.{}", encode(&header), encode(&claims));
    let signature = signer.sign(front.as_bytes()).unwrap();
    format!("{front}.{}", data_encoding::BASE64URL_NOPAD.encode(&signature))
}

/// The body of an account without limits.
pub(crate) fn account_body(more: Value) -> Value {
    let mut body = json!({
        "type": "account",
        "limits": { "subs": -1, "data": -1, "payload": -1, "conn": -1, "leaf": -1, "imports": -1,
            "exports": -1, "wildcards": true },
    });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

pub(crate) fn user_token(account: &Seed, user: &Seed, more: Value, body: Value) -> String {
    let mut nats = json!({ "type": "user", "subs": -1, "data": -1, "payload": -1 });
    for (name, value) in body.as_object().unwrap() {
        nats[name] = value.clone();
    }
    token(account, &key(user), more, nats)
}

const SYSTEM: &str = "accounts/SYS.jwt";

pub(crate) fn config(resolver: &str, more: &str) -> String {
    let system = fixture(SYSTEM);
    let operator = fixture("operator.jwt");
    let system_key = key(&known("acct-SYS"));
    format!(
        "operator: {}\nresolver: {resolver}\nresolver_preload: {{ {system_key}: {} }}\ndebug: true\n{more}\n",
        operator.trim(),
        system.trim()
    )
}

pub(crate) fn doors(server: &Server) -> Doors {
    Doors { plain: server.address(), tls: None, web: None }
}

pub(crate) fn log_in(server: &Server, jwt: &str, user: &Seed) -> (RawClient, Option<String>) {
    let members = json!({ "jwt": jwt });
    let seed = user.expose();
    let mut client = connect(&doors(server), Door::Plain, &members, Some(&seed));
    let told = outcome(&mut client, false);
    (client, told)
}

/// Whoever administers accounts.
pub(crate) fn admin(server: &Server) -> RawClient {
    let (jwt, seed) = creds("sys-admin");
    let (mut client, told) = log_in(server, &jwt, &seed.parse().unwrap());
    assert_eq!(told, None);
    client.send("SUB in.* 1\r\n");
    client
}

/// Asks, and takes as many answers as are wanted.
fn ask(admin: &mut RawClient, subject: &str, payload: &str, answers: usize) -> Vec<String> {
    admin.publish_with_reply(subject, "in.1", payload.as_bytes());
    let mut all = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(10);
    while all.len() < answers && Instant::now() < deadline {
        all.extend(take(admin).into_iter().map(|message| message.3));
    }
    assert_eq!(all.len(), answers, "{subject}: {all:?}");
    all
}

fn push(admin: &mut RawClient, jwt: &str) -> Value {
    let answer = ask(admin, "$SYS.REQ.CLAIMS.UPDATE", jwt, 1);
    let answer: Value = serde_json::from_str(&answer[0]).unwrap();
    assert!(answer["server"]["id"].is_string(), "{answer}");
    answer
}

fn description(answer: &Value) -> &str {
    answer["error"]["description"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

const FULL: &str = "{ type: full, dir: \"$DIR/jwt\", allow_delete: true, timeout: \"300ms\" }";

#[test]
fn a_pushed_account_lives_on_disk_and_its_users_with_it() {
    let mut server = Server::sedge(&config(FULL, ""));
    let (operator, account, user) =
        (known("operator-signing"), seed(KeyKind::Account, 9), seed(KeyKind::User, 10));
    let name = key(&account);
    let body = |more| account_body(more);
    let jwt = token(&operator, &name, json!({ "name": "A" }), body(json!({})));
    let user_jwt = user_token(&account, &user, json!({}), json!({}));
    // Nobody knows it yet.
    let (_, told) = log_in(&server, &user_jwt, &user);
    assert_eq!(told.as_deref(), Some("Authorization Violation"));
    server.wait_for_line("Account JWT lookup error: fetching jwt timed out").unwrap();

    let mut admin = admin(&server);
    let answer = push(&mut admin, &jwt);
    assert_eq!(answer["data"], json!({ "account": name, "code": 200, "message": "jwt updated" }));
    let file = server.directory().join("jwt").join(format!("{name}.jwt"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), jwt);
    let (mut inside, told) = log_in(&server, &user_jwt, &user);
    assert_eq!(told, None);
    let found = ask(&mut admin, &format!("$SYS.REQ.ACCOUNT.{name}.CLAIMS.LOOKUP"), "", 1);
    assert_eq!(found, [jwt.as_str()]);
    let list: Value =
        serde_json::from_str(&ask(&mut admin, "$SYS.REQ.CLAIMS.LIST", "", 1)[0]).unwrap();
    assert!(list["data"].as_array().unwrap().contains(&json!(name)), "{list}");
    let pack = ask(&mut admin, "$SYS.REQ.CLAIMS.PACK", "", 3);
    assert!(pack.contains(&format!("{name}|{jwt}")) && pack[2].is_empty(), "{pack:?}");

    // An update bites at once.
    let revoked = body(json!({ "revocations": { key(&user): now() + 1 } }));
    let newer = token(&operator, &name, json!({ "iat": now() + 1 }), revoked);
    assert_eq!(push(&mut admin, &newer)["data"]["code"], 200);
    assert!(
        inside.expect_closed().iter().any(|f| f.line() == "-ERR 'User Authentication Revoked'")
    );
    // What is older does not undo it, and a stranger's token is not taken.
    assert!(description(&push(&mut admin, &jwt)).contains("older"));
    let foreign =
        token(&known("rogue-operator"), &name, json!({ "iat": now() + 2 }), body(json!({})));
    assert!(description(&push(&mut admin, &foreign)).contains("not trusted"));
    assert!(description(&push(&mut admin, "x")).contains("expected 3 chunks"));
    let other = format!("$SYS.REQ.ACCOUNT.{}.CLAIMS.UPDATE", key(&known("acct-ALPHA")));
    let answer: Value = serde_json::from_str(&ask(&mut admin, &other, &newer, 1)[0]).unwrap();
    assert!(description(&answer).contains("subject does not match jwt content"));

    // All of it is there after the power went.
    drop(admin);
    server.restart(true).unwrap();
    let (_, told) = log_in(&server, &user_jwt, &user);
    assert_eq!(told.as_deref(), Some("Authorization Violation"));
    server.wait_for_line("User authentication revoked").unwrap();
    let mut admin = self::admin(&server);
    let delete = |accounts: Value, signer: &Seed| {
        token(signer, &key(signer), json!({}), json!({ "accounts": accounts }))
    };
    let refused = |admin: &mut RawClient, jwt: String| -> String {
        let answer = ask(admin, "$SYS.REQ.CLAIMS.DELETE", &jwt, 1);
        description(&serde_json::from_str(&answer[0]).unwrap()).to_owned()
    };
    assert!(
        refused(&mut admin, delete(json!([name]), &known("rogue-operator")))
            .ends_with("not trusted")
    );
    let system = json!([key(&known("acct-SYS"))]);
    assert!(refused(&mut admin, delete(system, &operator)).contains("system account"));
    let answer = ask(&mut admin, "$SYS.REQ.CLAIMS.DELETE", &delete(json!([name]), &operator), 1);
    assert!(answer[0].contains("\"deleted 1 accounts\""), "{answer:?}");
    assert!(!file.exists());
}

#[test]
fn a_login_waits_for_an_account_that_another_server_knows() {
    let cache = "{ type: cache, dir: \"$DIR/jwt\", timeout: \"5s\" }";
    let mut server = Server::sedge(&config(cache, "authorization { timeout: 10 }"));
    let (operator, account, user) =
        (known("operator-signing"), seed(KeyKind::Account, 9), seed(KeyKind::User, 10));
    let name = key(&account);
    let jwt = token(&operator, &name, json!({}), account_body(json!({})));
    let user_jwt = user_token(&account, &user, json!({}), json!({}));
    let mut other = admin(&server);
    other.send("SUB $SYS.REQ.ACCOUNT.*.CLAIMS.LOOKUP 2\r\n");
    other.flush_ignoring();
    let seed = user.expose();
    let members = json!({ "jwt": user_jwt });
    let mut client = connect(&doors(&server), Door::Plain, &members, Some(&seed));
    client.send("SUB x 1\r\nPUB x 2\r\nhi\r\n");
    let deadline = Instant::now() + Duration::from_secs(10);
    let question = loop {
        if let Some(question) = take(&mut other).into_iter().next() {
            break question;
        }
        assert!(Instant::now() < deadline, "nobody is asked");
    };
    assert_eq!(question.0, format!("$SYS.REQ.ACCOUNT.{name}.CLAIMS.LOOKUP"));
    other.publish(&question.1, jwt.as_bytes());
    assert_eq!(outcome(&mut client, false), None);
    client.pick(deadline, |frame| frame.line().starts_with("MSG x 1")).unwrap();
    // It is kept for when the other server is not there.
    drop(other);
    server.restart(true).unwrap();
    let (_, told) = log_in(&server, &user_jwt, &user);
    assert_eq!(told, None);
}

#[test]
fn who_is_inside_leaves_when_its_time_is_over() {
    let server = Server::sedge(&config(FULL, ""));
    let operator = known("operator-signing");
    let mut admin = admin(&server);
    for (number, account_ends, text) in [
        (20, false, "-ERR 'User Authentication Expired'"),
        (30, true, "-ERR 'Account Authentication Expired'"),
    ] {
        let (account, user) = (seed(KeyKind::Account, number), seed(KeyKind::User, number + 1));
        let end = json!({ "exp": now() + 2 });
        let (of_account, of_user) = if account_ends { (end, json!({})) } else { (json!({}), end) };
        let jwt = token(&operator, &key(&account), of_account, account_body(json!({})));
        assert_eq!(push(&mut admin, &jwt)["data"]["code"], 200);
        let (mut client, told) =
            log_in(&server, &user_token(&account, &user, of_user, json!({})), &user);
        assert_eq!(told, None);
        let frames = client.expect_closed();
        assert!(frames.iter().any(|frame| frame.line() == text), "{frames:?}");
    }
}

#[test]
fn an_update_of_an_account_bites_on_those_inside() {
    let server = Server::sedge(&config(FULL, ""));
    let operator = known("operator-signing");
    let mut admin = admin(&server);
    let (account, signing) = (seed(KeyKind::Account, 40), seed(KeyKind::Account, 41));
    let name = key(&account);
    let mut age = now();
    let mut update = |admin: &mut RawClient, more: Value| {
        age += 1;
        let jwt = token(&operator, &name, json!({ "iat": age }), account_body(more));
        assert_eq!(push(admin, &jwt)["data"]["code"], 200);
    };
    let keys = json!([key(&signing)]);
    update(&mut admin, json!({ "signing_keys": keys }));
    let enter = |number: u8, signer: &Seed, body: Value| {
        let user = seed(KeyKind::User, number);
        let mut body = body;
        body["issuer_account"] = json!(name);
        let (client, told) = log_in(&server, &user_token(signer, &user, json!({}), body), &user);
        assert_eq!(told, None);
        client
    };
    let closed_with = |client: &mut RawClient, text: &str| {
        let frames = client.expect_closed();
        assert!(frames.iter().any(|frame| frame.line() == text), "{text}: {frames:?}");
    };
    // Defaults take away what was subscribed.
    let mut client = enter(50, &account, json!({}));
    client.send("SUB a 1\r\nSUB b 2\r\n");
    client.flush_ignoring();
    update(
        &mut admin,
        json!({ "signing_keys": keys,
        "default_permissions": { "sub": { "allow": ["a"] } } }),
    );
    let told = "-ERR 'Permissions Violation for Subscription to \"b\" (sid \"2\")'";
    assert_eq!(outcome(&mut client, true).as_deref(), Some(&told[6..told.len() - 1]));
    // Bearer tokens are not wanted any more.
    let mut bearer = enter(51, &account, json!({ "bearer_token": true }));
    let limits = |more: Value| {
        let mut limits = account_body(json!({}))["limits"].clone();
        for (name, value) in more.as_object().unwrap() {
            limits[name] = value.clone();
        }
        limits
    };
    update(
        &mut admin,
        json!({ "signing_keys": keys,
        "limits": limits(json!({ "disallow_bearer": true })) }),
    );
    closed_with(&mut bearer, "-ERR 'Authorization Violation'");
    // A signing key goes, and its users without a word.
    let mut signed = enter(52, &signing, json!({}));
    update(&mut admin, json!({}));
    let frames = signed.expect_closed();
    assert!(frames.iter().all(|frame| !frame.line().starts_with("-ERR")), "{frames:?}");
    // Of too many those that came last go.
    let mut last = enter(53, &account, json!({}));
    update(&mut admin, json!({ "limits": limits(json!({ "conn": 1 })) }));
    closed_with(&mut last, "-ERR 'maximum account active connections exceeded'");
    assert_eq!(outcome(&mut client, true), None);
}
