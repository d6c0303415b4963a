//! Configuration texts: accepted or refused, never anything else.

use std::path::Path;

use sedge::config::{Config, MISTAKES_MAX, Surroundings};

use crate::engine::{Behaviour, fuzz};

/// One text, as every file that is asked for.
struct Everywhere<'a>(&'a [u8]);

impl Surroundings for Everywhere<'_> {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        // As a file system would have it.
        let long = path.as_os_str().len() > 1000 || path.components().count() > 8;
        if long { Err("File name too long".into()) } else { Ok(self.0.to_vec()) }
    }

    fn variable(&self, name: &str) -> Option<String> {
        (name.len() < 3).then(|| format!("[${name}x, $a, {{b: $b}}]"))
    }
}

const WORDS: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b"(",
    b")",
    b": ",
    b"=",
    b",",
    b";",
    b"\n",
    b"#",
    b"//",
    b"'",
    b"\"",
    b"\\x4",
    b"$a",
    b"$2a$11$",
    b"include ",
    b"accounts ",
    b"users ",
    b"authorization ",
    b"permissions ",
    b"publish ",
    b"subscribe ",
    b"allow ",
    b"deny ",
    b"allow_responses ",
    b"exports ",
    b"imports ",
    b"service ",
    b"stream ",
    b"mappings ",
    b"weight: 50%",
    b"{{wildcard(1)}}",
    b"{{partition(3,1)}}",
    b"{{split(1,-)}}",
    b"{{slicefromleft(1,2)}}",
    b"{{random(5)}}",
    b"$1",
    b"no_auth_user ",
    b"system_account ",
    b"default_permissions ",
    b"jetstream ",
    b"leafnodes ",
    b"remotes ",
    b"websocket ",
    b"tls ",
    b"cert_file ",
    b"verify_and_map ",
    b"pinned_certs ",
    b"proxy_protocol ",
    b"http_port ",
    b"listen ",
    b"nats://u:p@h:1",
    b"max_payload: 1mb",
    b"5s",
    b"1.5",
    b"true",
    b"off",
    b"2006-01-02T15:04:05Z",
    b"latency ",
    b"sampling: 50%",
    b"headers",
    b"response_type ",
    b"threshold ",
    b"nkey: U",
    b"account ",
    b"prefix ",
    b"to ",
    b"\xef\xbb\xbf",
];

#[test]
fn any_configuration_text() {
    fuzz("config", WORDS, |input| {
        let mut behaviour = Behaviour::default();
        match Config::load(Path::new("f.conf"), &Everywhere(input)) {
            Ok(loaded) => {
                assert!(loaded.warnings.len() <= MISTAKES_MAX);
                for line in loaded.config.advice() {
                    assert!(!line.contains('\n'));
                }
                behaviour.note(b"fine");
            }
            Err(mistakes) => {
                assert!(!mistakes.0.is_empty() && mistakes.0.len() <= MISTAKES_MAX);
                for mistake in &mistakes.0 {
                    let text = mistake.to_string();
                    assert!(text.len() < 16 * 1024, "a message of some screens at most");
                    // The end of a message rarely quotes the text.
                    let words: Vec<&str> = text.split_whitespace().rev().take(3).collect();
                    if words.concat().bytes().all(|byte| byte.is_ascii_lowercase()) {
                        behaviour.note(words.concat().as_bytes());
                    }
                }
            }
        }
        behaviour
    });
}
