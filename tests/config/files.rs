//! The files we ship, and files as the system hands them out.

use sedge::config::{Config, Machine, SyncInterval};
use std::path::Path;

#[test]
fn the_example_gateway_is_valid_and_works_without_a_hub() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/gateway.conf");
    let loaded = Config::load(&path, &Machine).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert_eq!(loaded.config.port, 4222);
    assert!(loaded.config.leafnodes.remotes.is_empty());
    let jetstream = loaded.config.jetstream.unwrap();
    assert_eq!(jetstream.store_dir, Path::new("./data"));
    assert_eq!(jetstream.domain.as_deref(), Some("gateway"));
    assert_eq!(jetstream.sync_interval, SyncInterval::Always);
}

/// The commented-out parts must not rot: with their comment signs gone they still parse.
#[test]
fn every_commented_part_of_the_example_is_valid() {
    let text = include_str!("../../examples/gateway.conf");
    let directory = tempfile::tempdir().unwrap();
    let creds = directory.path().join("gateway.creds");
    std::fs::write(&creds, "-----BEGIN NATS USER JWT-----\n-----BEGIN USER NKEY SEED-----\n")
        .unwrap();
    let file = directory.path().join("gateway.conf");
    let all: String = text
        .lines()
        .map(|line| match line.trim_start().strip_prefix("#| ") {
            Some(option) => format!("{option}\n"),
            None => format!("{line}\n"),
        })
        .collect();
    let all = all.replace("/etc/sedge/gateway.creds", &creds.display().to_string());
    assert!(all.contains("remotes"));
    std::fs::write(&file, all).unwrap();
    let loaded = Config::load(&file, &Machine).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    assert!(loaded.config.leafnodes.remotes.len() > 1);
}

#[test]
fn a_file_that_cannot_be_read_is_one_clear_line() {
    let directory = tempfile::tempdir().unwrap();
    for (path, expected) in [
        (directory.path().join("none.conf"), "no such file or directory"),
        (directory.path().to_owned(), "is a directory"),
    ] {
        let mistakes = Config::load(&path, &Machine).unwrap_err().to_string();
        assert_eq!(mistakes.lines().count(), 1);
        assert!(mistakes.contains(expected), "{mistakes}");
    }
}
