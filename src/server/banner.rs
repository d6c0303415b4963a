//! The lines of a start, in nats-server's order and wording.
//!
//! Owns their text. Test harnesses of client libraries and operators' scripts look for
//! `Listening for client connections on HOST:PORT`, `Server is ready` and
//! `Store Directory: "DIR"`, so these are nats-server's to the letter. The whole, at level
//! `INF`:
//!
//! ```text
//! Starting sedge
//!   Version:  0.1.0
//!   Name:     gw
//!   ID:       NBVD3SWAYWZIIYMIMTJWGIK6Z2ROXWG43VL4R3LE2HJU3YJY5C4ZOUBI
//! Using configuration file: gateway.conf (sha256:a5f0...)
//! Starting JetStream
//! ---------------- JETSTREAM ----------------
//!   Strict:          true
//!   Max Memory:      1.00 GB
//!   Max Storage:     10.00 GB
//!   Store Directory: "data/jetstream"
//!   Domain:          gw
//!   Sync:            always (an ack means it is on disk)
//! -------------------------------------------
//! Listening for client connections on 0.0.0.0:4222
//! Server is ready
//! ```
//!
//! and at the end `Initiating Shutdown...`, `Server Exiting..`. `Sync` is ours: which
//! promise an ack is belongs into the log. nats-server's picture of letters is left out.
//!
//! Source: the log of nats-server 2.15.

use crate::config::{JetStreamConfig, SyncInterval, size};
use crate::time::GoDuration;
use std::path::Path;

/// Said last, when clients may connect.
pub const READY: &str = "Server is ready";

/// Said first at the end.
pub const SHUTDOWN: &str = "Initiating Shutdown...";

/// Said last at the end.
pub const EXITING: &str = "Server Exiting..";

/// Who starts: the first lines.
pub fn starting(name: &str, id: &str) -> Vec<String> {
    vec![
        "Starting sedge".to_owned(),
        format!("  Version:  {}", env!("CARGO_PKG_VERSION")),
        format!("  Name:     {name}"),
        format!("  ID:       {id}"),
    ]
}

/// Where WebSocket clients may connect.
pub fn listening_web(tls: bool, host: &str, port: u16) -> String {
    let scheme = if tls { "wss" } else { "ws" };
    format!("Listening for websocket clients on {scheme}://{host}:{port}")
}

/// Which file is used; `digest` is that of [`crate::config::Loaded`].
pub fn configuration(path: &Path, digest: &str) -> String {
    format!("Using configuration file: {} ({digest})", path.display())
}

/// The settings of `JetStream`, with the bounds in force in bytes.
pub fn jetstream(config: &JetStreamConfig, memory_max: u64, storage_max: u64) -> Vec<String> {
    let mut lines = vec![
        "Starting JetStream".to_owned(),
        "---------------- JETSTREAM ----------------".to_owned(),
        format!("  Strict:          {}", config.strict),
        format!("  Max Memory:      {}", size(memory_max)),
        format!("  Max Storage:     {}", size(storage_max)),
        format!("  Store Directory: \"{}\"", config.directory().display()),
    ];
    lines.extend(config.domain.as_ref().map(|domain| format!("  Domain:          {domain}")));
    lines.push(match config.sync_interval {
        SyncInterval::Always => "  Sync:            always (an ack means it is on disk)".to_owned(),
        SyncInterval::Every(pace) => {
            format!(
                "  Sync:            every {} (a power cut loses up to that much)",
                GoDuration(pace)
            )
        }
    });
    lines.push("-------------------------------------------".to_owned());
    lines
}

/// Where clients connect, with the port that was bound.
pub fn listening(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("Listening for client connections on [{host}]:{port}")
    } else {
        format!("Listening for client connections on {host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn harnesses_find_what_they_look_for() {
        assert_eq!(listening("0.0.0.0", 4222), "Listening for client connections on 0.0.0.0:4222");
        assert_eq!(listening("::1", 1), "Listening for client connections on [::1]:1");
        let config = JetStreamConfig {
            store_dir: "data".into(),
            domain: Some("gw".into()),
            sync_interval: SyncInterval::Every(Duration::from_millis(500)),
            ..JetStreamConfig::default()
        };
        let lines = jetstream(&config, 1 << 30, 10 << 30);
        for line in [
            "  Max Memory:      1.00 GB",
            "  Max Storage:     10.00 GB",
            "  Store Directory: \"data/jetstream\"",
            "  Domain:          gw",
            "  Sync:            every 500ms (a power cut loses up to that much)",
        ] {
            assert!(lines.iter().any(|l| l == line), "{line} in {lines:#?}");
        }
    }
}
