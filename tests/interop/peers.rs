//! What the tests need from outside: nats-server, Python with nats-py, Node with its client,
//! the Go client and the `nats` command line.
//!
//! `./tests/run` brings all of it into `target/peers` and names it in environment variables;
//! without the variables the same places are looked at, so that `cargo test` works after it.

use std::path::{Path, PathBuf};

/// The oracle.
pub(crate) fn nats_server() -> Result<PathBuf, String> {
    find("NATS_SERVER", &["venv/bin/nats-server", "python/bin/nats-server"])
        .ok_or_else(|| String::from("nats-server is not here; ./tests/run brings it"))
}

/// A Python that can `import nats`.
pub(crate) fn python() -> Result<PathBuf, String> {
    find("SEDGE_PEER_PYTHON", &["venv/bin/python"])
        .ok_or_else(|| String::from("Python with nats-py is not here; ./tests/run brings it"))
}

/// A folder with the Node client in its `node_modules`.
pub(crate) fn node() -> Result<PathBuf, String> {
    let folder = find("SEDGE_PEER_NODE", &["node"]);
    folder
        .filter(|f| f.join("node_modules/@nats-io/transport-node").is_dir())
        .ok_or_else(|| String::from("the Node client is not here; ./tests/run brings it"))
}

/// The program that uses the Go client.
pub(crate) fn go_client() -> Result<PathBuf, String> {
    find("SEDGE_PEER_GO", &["go/client"])
        .ok_or_else(|| String::from("the Go client is not here; ./tests/run brings it"))
}

/// The `nats` command line.
pub(crate) fn nats_cli() -> Result<PathBuf, String> {
    find("SEDGE_PEER_NATS_CLI", &["go/bin/nats"])
        .ok_or_else(|| String::from("the nats command line is not here; ./tests/run brings it"))
}

fn find(variable: &str, places: &[&str]) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Some(PathBuf::from(path)).filter(|p| p.exists());
    }
    let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers");
    places.iter().map(|place| peers.join(place)).find(|p| p.exists())
}
