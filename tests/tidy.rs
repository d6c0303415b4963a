//! Do the layers, the headers and the documents hold?
//!
//! Reads the sources as text. Each rule says what to do about a line that breaks it.

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(directory: &str, ending: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut waiting = vec![root().join(directory)];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(&path).unwrap() {
                waiting.push(entry.unwrap().path());
            }
        } else if path.to_string_lossy().ends_with(ending) {
            let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no {ending} files below {directory}: the test looks at nothing");
    found
}

/// The code of a source file: without its tests and comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
        .map(|(number, line)| (number + 1, line.split("//").next().unwrap_or("")))
}

/// The room of a file: `src/net/tls.rs` and `src/net.rs` are in `net`.
fn room(file: &str) -> &str {
    let inner = file.strip_prefix("src/").unwrap_or(file);
    inner.split(['/', '.']).next().unwrap_or(inner)
}

const SHELL: [&str; 7] = ["net", "store", "server", "config", "monitor", "main", "lib"];

fn assert_none(broken: &[String], rule: &str) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

#[test]
fn the_core_does_no_io_and_reads_no_clock() {
    let forbidden = [
        "std::",
        "smol::",
        "rustix::",
        "redb::",
        "rustls::",
        "async fn",
        ".await",
        "println!",
        "eprintln!",
        "Mutex",
        "RwLock",
    ];
    let mut broken = Vec::new();
    for (file, text) in files("src", ".rs") {
        if SHELL.contains(&room(&file)) {
            continue;
        }
        for (number, line) in code(&text) {
            for word in forbidden {
                if line.contains(word) {
                    broken.push(format!("{file}:{number}: {word} in: {}", line.trim()));
                }
            }
        }
    }
    assert_none(&broken, "the core takes time, bytes and replies as inputs; do this in the shell");
}

#[test]
fn arrows_between_the_rooms_point_down() {
    // What a room may name with `crate::`, besides the rooms of values and itself.
    let values = ["subject", "id", "time", "limits", "sorted"];
    let below = [
        ("subject", &[][..]),
        ("id", &[]),
        ("time", &[]),
        ("limits", &[]),
        ("sorted", &[]),
        ("proto", &[]),
        ("auth", &["proto"]),
        ("leaf", &["proto", "auth"]),
        ("jetstream", &["proto"]),
        ("broker", &["proto", "auth", "leaf", "jetstream"]),
        ("client", &["proto"]),
        ("config", &["broker", "auth"]),
        ("store", &["jetstream"]),
        ("monitor", &["broker", "jetstream", "leaf", "store"]),
        ("net", &["auth", "broker", "config", "jetstream", "leaf", "proto", "store"]),
        (
            "server",
            &["auth", "broker", "config", "jetstream", "leaf", "monitor", "net", "proto", "store"],
        ),
        ("main", &[]),
    ];
    let mut broken = Vec::new();
    for (file, text) in files("src", ".rs") {
        let room = room(&file);
        if room == "lib" {
            continue;
        }
        let Some((_, allowed)) = below.iter().find(|(name, _)| *name == room) else {
            broken.push(format!("{file}: the room {room} is not in this test's table"));
            continue;
        };
        for (number, line) in code(&text) {
            for rest in line.split("crate::").skip(1) {
                let named: String =
                    rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let fine = named.is_empty()
                    || named == room
                    || values.contains(&named.as_str())
                    || allowed.contains(&named.as_str());
                if !fine {
                    broken.push(format!("{file}:{number}: {room} names {named}"));
                }
            }
        }
    }
    assert_none(&broken, "arrows point down only, see ARCHITECTURE.md");
}

#[test]
fn only_the_store_names_redb() {
    let mut broken = Vec::new();
    for (file, text) in files("src", ".rs") {
        if room(&file) == "store" {
            continue;
        }
        for (number, line) in code(&text) {
            if line.contains("redb::") {
                broken.push(format!("{file}:{number}"));
            }
        }
    }
    assert_none(&broken, "redb is a detail of src/store");
}

#[test]
fn every_module_says_what_it_owns() {
    let mut broken = Vec::new();
    for (file, text) in files("src", ".rs") {
        if !text.starts_with("//!") {
            broken.push(file);
        }
    }
    assert_none(&broken, "open each file with what it owns and what it does not (//!)");
}

#[test]
fn nothing_is_left_open_or_silenced_without_a_reason() {
    let mut broken = Vec::new();
    for directory in ["src", "tests", "examples"] {
        for (file, text) in files(directory, ".rs") {
            if file == "tests/tidy.rs" {
                continue;
            }
            let lines: Vec<&str> = text.lines().collect();
            for (number, line) in lines.iter().enumerate() {
                let left = ["TODO", "FIXME", "todo!(", "unimplemented!("]
                    .iter()
                    .any(|word| line.contains(word));
                let silenced = line.trim_start().starts_with("#[allow")
                    || line.trim_start().starts_with("#![allow");
                let ignored = line.contains("#[ignore]");
                let has_reason = lines
                    .iter()
                    .skip(number)
                    .take_while(|line| !line.trim_start().starts_with(")]"))
                    .take(4)
                    .any(|line| line.contains("reason"));
                if left || ignored || (silenced && !has_reason) {
                    broken.push(format!("{file}:{}: {}", number + 1, line.trim()));
                }
            }
        }
    }
    assert_none(&broken, "finish it, or say why with a reason");
}

#[test]
fn a_test_that_sleeps_says_what_the_time_stands_for() {
    let mut broken = Vec::new();
    for directory in ["tests/behaviour", "tests/leaf", "tests/sim", "tests/store"] {
        if !Path::new(&root().join(directory)).exists() {
            continue;
        }
        for (file, text) in files(directory, ".rs") {
            let mut above = "";
            for (number, line) in text.lines().enumerate() {
                if line.contains("sleep(") && !above.trim_start().starts_with("//") {
                    broken.push(format!("{file}:{}: {}", number + 1, line.trim()));
                }
                above = line;
            }
        }
    }
    assert_none(
        &broken,
        "wait for an event with a deadline instead, or say in a comment above why there is none",
    );
}

#[test]
fn the_documents_are_there_and_name_files_that_exist() {
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "LICENSE",
        "docs/compatibility.md",
        "docs/storage-format.md",
        "examples/gateway.conf",
        "tests/run",
        ".ci/run",
    ] {
        assert!(root().join(name).exists(), "missing: {name}");
    }
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut broken = Vec::new();
    for word in text.split('`').skip(1).step_by(2) {
        let is_path = word.contains('/')
            && ["src/", "tests/", "docs/", "examples/", ".ci/"].iter().any(|p| word.starts_with(p));
        if is_path && !word.contains('*') && !root().join(word).exists() {
            broken.push(word.to_owned());
        }
    }
    assert_none(&broken, "ARCHITECTURE.md names what does not exist");
}
