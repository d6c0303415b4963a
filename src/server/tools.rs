//! `sedge nkey`, `sedge jwt` and `sedge creds`: keys and tokens for those without other tools.
//!
//! Owns these three words of the command line and what they print. Does not own keys and
//! tokens (`crate::auth`).
//!
//! # Invariants
//! - A seed is printed by `nkey gen` alone; nothing else shows one.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;

use crate::auth::creds::Creds;
use crate::auth::jwt::claims::{AccountClaims, OperatorClaims, UserClaims};
use crate::auth::jwt::{Kind, Token, check, end_of, of_file, seconds};
use crate::auth::nkey::{KeyKind, Seed};
use crate::config::Surroundings;
use crate::time::Timestamp;

/// What was printed, or what is wrong.
pub(super) type Outcome = Result<String, String>;

const USAGE: &str = "sedge nkey gen user|account|operator|server|cluster
      a new key: its seed, and the public key
sedge nkey pub SEED-FILE
      the public key of a seed
sedge nkey sign SEED-FILE FILE
      signs a file; base64url
sedge jwt show FILE
      what a token says, and whether it is sound
sedge creds check FILE
      whose credentials these are, what they allow, until when, and what is wrong with them";

/// Does the command line begin with one of these words?
pub(super) fn command(
    arguments: &[OsString],
    surroundings: &dyn Surroundings,
    wall: Timestamp,
) -> Option<Outcome> {
    let words: Vec<&str> = arguments.iter().filter_map(|argument| argument.to_str()).collect();
    if !matches!(words.first(), Some(&("nkey" | "jwt" | "creds"))) {
        return None;
    }
    let read = |file: &str| -> Outcome {
        let bytes = surroundings.read(Path::new(file));
        let bytes = bytes.map_err(|error| format!("cannot read {file}: {error}"))?;
        String::from_utf8(bytes).map_err(|_| format!("{file} is no text"))
    };
    Some(match words.as_slice() {
        ["nkey", "gen", kind] => generate(kind),
        ["nkey", "pub", file] => read(file).and_then(|text| {
            let key = seed(&text)?.public_key().map_err(|error| error.to_string())?;
            Ok(format!("{key}\n"))
        }),
        ["nkey", "sign", key, file] => read(key).and_then(|text| {
            let bytes = surroundings.read(Path::new(file));
            let bytes = bytes.map_err(|error| format!("cannot read {file}: {error}"))?;
            let signature = seed(&text)?.sign(&bytes).map_err(|error| error.to_string())?;
            Ok(format!("{}\n", data_encoding::BASE64URL_NOPAD.encode(&signature)))
        }),
        ["jwt", "show", file] => read(file).and_then(|text| show(of_file(&text), wall)),
        ["creds", "check", file] => read(file).and_then(|text| examine(&text, wall)),
        _ => Err(format!("usage:\n{USAGE}")),
    })
}

fn generate(kind: &str) -> Outcome {
    let kind = match kind {
        "user" => KeyKind::User,
        "account" => KeyKind::Account,
        "operator" => KeyKind::Operator,
        "server" => KeyKind::Server,
        "cluster" => KeyKind::Cluster,
        _ => return Err(format!("usage:\n{USAGE}")),
    };
    let mut bytes = [0; 32];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())
        .map_err(|error| format!("no random numbers to be had: {error}"))?;
    let seed = Seed::from_bytes(kind, bytes);
    bytes.fill(0);
    let key = seed.public_key().map_err(|error| error.to_string())?;
    Ok(format!("{}\n{key}\n", seed.expose()))
}

/// The first line that is one.
fn seed(text: &str) -> Result<Seed, String> {
    let line = text.lines().map(str::trim).find(|line| line.starts_with('S') && line.len() > 50);
    let line = line.ok_or("there is no seed in the file")?;
    line.parse().map_err(|error| format!("this is no seed: {error}"))
}

fn date(seconds: i64) -> String {
    end_of(seconds).to_string()
}

fn show(text: &str, wall: Timestamp) -> Outcome {
    let token = Token::decode(text).map_err(|error| format!("not a token to believe: {error}"))?;
    let mut out = String::new();
    describe(&token, &mut out);
    let problems = problems(&token, wall);
    for problem in &problems {
        let _ = writeln!(out, "wrong:      {problem}");
    }
    Ok(out)
}

fn describe(token: &Token, out: &mut String) {
    // Writing to a text cannot fail.
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(out, "{:<11} {value}", format!("{name}:"));
        }
    };
    line("kind", &format!("{}, version {}", token.kind.name(), token.version));
    line("name", &token.name);
    line("subject", &token.subject);
    line("signed by", &token.issuer.to_string());
    line("account", &token.issuer_account);
    line("audience", &token.audience);
    if token.issued > 0 {
        line("issued", &date(token.issued));
    }
    if token.not_before > 0 {
        line("not before", &date(token.not_before));
    }
    line("expires", &if token.expires > 0 { date(token.expires) } else { "never".to_owned() });
    line("tags", &token.tags.join(", "));
    for (name, value) in token.body().members() {
        if !matches!(name, "type" | "version" | "tags" | "issuer_account") {
            line(name, &value.to_string());
        }
    }
}

fn problems(token: &Token, wall: Timestamp) -> Vec<String> {
    let unreadable = |_| vec!["a member has the wrong type".to_owned()];
    let mut all = match token.kind {
        Kind::User => UserClaims::read(token).map_or_else(unreadable, |claims| {
            check::user(&claims.grants, &token.issuer_account, super::zone::offset)
        }),
        Kind::Account => {
            AccountClaims::read(token).map_or_else(unreadable, |claims| check::account(&claims))
        }
        Kind::Operator => OperatorClaims::read(token).map_or_else(unreadable, |claims| {
            let own = claims.key == claims.issuer;
            if own { Vec::new() } else { vec!["it is signed by another operator".to_owned()] }
        }),
        _ => Vec::new(),
    };
    all.extend(token.time_problem(wall).map(str::to_owned));
    if token.issued > seconds(wall) {
        all.push("it was issued in the future; is the clock right?".to_owned());
    }
    all
}

fn examine(text: &str, wall: Timestamp) -> Outcome {
    let creds = Creds::parse(text).map_err(|error| error.to_string())?;
    let token = Token::decode(creds.jwt.expose());
    let token = token.map_err(|error| format!("its token is not to be believed: {error}"))?;
    let mut out = String::new();
    describe(&token, &mut out);
    let mut wrong = problems(&token, wall);
    // What stands in the way of a leaf link stands there for clients too, but for the kind.
    let problem = creds.problem(wall).map(|problem| problem.to_string());
    wrong.extend(problem.filter(|problem| !problem.contains("allowed connection types")));
    if wrong.is_empty() {
        out.push_str("nothing is wrong with it\n");
        return Ok(out);
    }
    for problem in wrong {
        let _ = writeln!(out, "wrong:      {problem}");
    }
    Err(out.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files;

    impl Surroundings for Files {
        fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
            std::fs::read(path).map_err(|error| error.to_string())
        }

        fn variable(&self, _: &str) -> Option<String> {
            None
        }
    }

    const WALL: Timestamp = Timestamp(1_795_000_000_000_000_000);

    fn run(arguments: &[&str]) -> Outcome {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        command(&arguments, &Files, WALL).unwrap()
    }

    fn fixture(name: &str) -> String {
        format!("{}/tests/fixtures/auth/{name}", env!("CARGO_MANIFEST_DIR"))
    }

    #[test]
    fn a_new_key_signs_what_its_public_key_verifies() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        for (kind, letter) in [("user", 'U'), ("account", 'A'), ("operator", 'O'), ("server", 'N')]
        {
            let made = run(&["nkey", "gen", kind]).unwrap();
            let (seed, key) = made.trim().split_once('\n').unwrap();
            assert!(seed.starts_with('S') && key.starts_with(letter), "{kind}");
            std::fs::write(path("seed"), format!("# mine\n{seed}\n")).unwrap();
            std::fs::write(path("text"), b"some bytes").unwrap();
            assert_eq!(run(&["nkey", "pub", &path("seed")]).unwrap().trim(), key);
            let signature = run(&["nkey", "sign", &path("seed"), &path("text")]).unwrap();
            let signature =
                data_encoding::BASE64URL_NOPAD.decode(signature.trim().as_bytes()).unwrap();
            let key: crate::auth::nkey::PublicKey = key.parse().unwrap();
            assert!(key.verify(b"some bytes", &signature.try_into().unwrap()));
        }
        assert!(run(&["nkey", "gen", "banana"]).unwrap_err().starts_with("usage"));
        assert!(run(&["jwt"]).is_err());
        assert!(command(&["-c".into()], &Files, WALL).is_none());
    }

    #[test]
    fn a_token_is_shown_with_what_is_wrong_with_it() {
        let told = run(&["jwt", "show", &fixture("operator.jwt")]).unwrap();
        assert!(told.contains("operator, version 2") && !told.contains("wrong"), "{told}");
        let told = run(&["jwt", "show", &fixture("accounts/EXPIRED.jwt")]).unwrap();
        assert!(told.contains("wrong:      claim is expired"), "{told}");
        assert!(run(&["jwt", "show", &fixture("users/alpha-tampered.jwt")]).is_err());
    }

    #[test]
    fn credentials_are_checked_without_showing_the_seed() {
        let told = run(&["creds", "check", &fixture("users/alpha-perm.creds")]).unwrap();
        assert!(told.contains("nothing is wrong") && !told.contains("SUA"), "{told}");
        let told = run(&["creds", "check", &fixture("users/alpha-expired.creds")]).unwrap_err();
        assert!(told.contains("expired"), "{told}");
        assert!(run(&["creds", "check", &fixture("operator.jwt")]).is_err());
    }
}
