//! No text panics, hangs or takes more than its bounds.

use proptest::prelude::*;
use sedge::config::{Config, MISTAKES_MAX, Surroundings};
use std::path::Path;

/// One text, as every file that is asked for.
struct Everywhere(Vec<u8>);

impl Surroundings for Everywhere {
    fn read(&self, _: &Path) -> Result<Vec<u8>, String> {
        Ok(self.0.clone())
    }

    fn variable(&self, name: &str) -> Option<String> {
        (name.len() < 3).then(|| format!("[${name}x, $a, {{b: $b}}]"))
    }
}

fn load(bytes: Vec<u8>) {
    if let Err(mistakes) = Config::load(Path::new("d/f.conf"), &Everywhere(bytes)) {
        assert!(!mistakes.0.is_empty() && mistakes.0.len() <= MISTAKES_MAX);
        for mistake in &mistakes.0 {
            assert!(mistake.to_string().len() < 4096, "a message of a screen at most");
        }
    }
}

/// Pieces of the language, so that random texts get past the first character.
const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    ":",
    "=",
    ",",
    ";",
    "\n",
    " ",
    "\t",
    "\r\n",
    "#",
    "//",
    "'",
    "\"",
    "\\",
    "\\x4",
    "$",
    "$a",
    "$b",
    "$2a$",
    "-",
    ".",
    "1",
    "2m",
    "1.5",
    "5s",
    "2006-01-02T15:04:05Z",
    "true",
    "off",
    "include ",
    "include x",
    "a",
    "b: ",
    "port: ",
    "jetstream ",
    "leafnodes ",
    "remotes ",
    "url: ",
    "nats://u:p@h:1",
    "authorization ",
    "tls ",
    "max_payload: ",
    "é",
    "\u{feff}",
    "\0",
    "users",
    "99999999999999999999",
    "creds: x",
    "compression: ",
    "\"",
    "x",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        load(bytes);
    }

    #[test]
    fn random_pieces_of_the_language_never_panic(
        pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..200)
    ) {
        load(pieces.concat().into_bytes());
    }
}

#[test]
fn every_beginning_of_a_real_file_is_accepted_or_refused() {
    let text = include_str!("../../examples/gateway.conf");
    for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
        load(text.as_bytes()[..end].to_vec());
    }
}

#[test]
fn a_megabyte_of_anything_ends_soon() {
    const BYTES: usize = 1024 * 1024;
    for piece in [
        "{",
        "[",
        "a{",
        "a {",
        "a: [",
        "'",
        "\"",
        "(",
        "\\",
        "#",
        "x",
        "1",
        "-",
        "a:b,",
        "a:",
        "$a ",
        "a: $a\n",
        "]",
        "}",
        "\n",
        "é",
        ",",
        "include x\n",
        "k1: [\n",
    ] {
        load(piece.repeat(BYTES / piece.len()).into_bytes());
    }
    let keys: Vec<String> = (0..90_000).map(|n| format!("k{n}: 1")).collect();
    load(keys.join("\n").into_bytes());
}
