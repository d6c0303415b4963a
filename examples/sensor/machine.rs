//! What this machine can measure about itself: load, memory, disk, network, temperature.
//!
//! Reads `/proc` and `/sys` and asks the file system for its free space. What a machine does
//! not have (a container has no thermal zone) is left out rather than reported as zero.

use std::fs;

use serde_json::{Map, Value, json};

use crate::clock;

/// One measurement: what was measured, and the figures as compact JSON with the time in
/// Unix milliseconds as `ts`.
pub(crate) struct Measurement {
    /// Last token of the subject: `load`, `memory`, `disk`, `network` or `thermal`.
    pub(crate) what: &'static str,
    /// The payload.
    pub(crate) json: String,
}

/// The name of this machine as one subject token.
pub(crate) fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let token: String = name
        .trim()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' })
        .collect();
    if token.is_empty() { "localhost".to_owned() } else { token }
}

/// Reads every sensor once.
pub(crate) fn measure() -> Vec<Measurement> {
    let ts = u64::try_from(clock::wall().as_millis()).unwrap_or(u64::MAX);
    [
        ("load", load()),
        ("memory", memory()),
        ("disk", disk("/")),
        ("network", network()),
        ("thermal", thermal()),
    ]
    .into_iter()
    .filter_map(|(what, figures)| {
        let mut figures = figures.filter(|figures| !figures.is_empty())?;
        figures.insert("ts".to_owned(), json!(ts));
        Some(Measurement { what, json: Value::Object(figures).to_string() })
    })
    .collect()
}

/// Load averages, and how many tasks run and exist: `0.12 0.34 0.56 1/234 5678`.
fn load() -> Option<Map<String, Value>> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    let mut words = text.split_ascii_whitespace();
    let mut figures = Map::new();
    for name in ["load1", "load5", "load15"] {
        figures.insert(name.to_owned(), json!(words.next()?.parse::<f64>().ok()?));
    }
    let (running, tasks) = words.next()?.split_once('/')?;
    figures.insert("running".to_owned(), json!(running.parse::<u64>().ok()?));
    figures.insert("tasks".to_owned(), json!(tasks.parse::<u64>().ok()?));
    Some(figures)
}

/// Memory in KiB, as the kernel counts it.
fn memory() -> Option<Map<String, Value>> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let mut figures = Map::new();
    for line in text.lines() {
        let Some((key, rest)) = line.split_once(':') else { continue };
        let name = match key {
            "MemTotal" => "total_kib",
            "MemAvailable" => "available_kib",
            "Dirty" => "dirty_kib",
            "SwapFree" => "swap_free_kib",
            _ => continue,
        };
        let Some(kib) = rest.split_ascii_whitespace().next() else { continue };
        figures.insert(name.to_owned(), json!(kib.parse::<u64>().ok()?));
    }
    Some(figures)
}

/// Size and free space of the file system at `path`, in bytes.
fn disk(path: &str) -> Option<Map<String, Value>> {
    let stat = rustix::fs::statvfs(path).ok()?;
    let mut figures = Map::new();
    figures.insert("path".to_owned(), json!(path));
    figures.insert("total_bytes".to_owned(), json!(stat.f_blocks.saturating_mul(stat.f_frsize)));
    figures.insert("free_bytes".to_owned(), json!(stat.f_bavail.saturating_mul(stat.f_frsize)));
    Some(figures)
}

/// Bytes, packets and errors of every interface but the loopback, since it came up.
fn network() -> Option<Map<String, Value>> {
    let text = fs::read_to_string("/proc/net/dev").ok()?;
    let mut figures = Map::new();
    for line in text.lines() {
        // The two heading lines have no colon.
        let Some((name, counters)) = line.split_once(':') else { continue };
        let name = name.trim();
        if name == "lo" {
            continue;
        }
        let counters: Vec<u64> =
            counters.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
        let [rx_bytes, rx_packets, rx_errors, _, _, _, _, _, tx_bytes, tx_packets, tx_errors, ..] =
            counters[..]
        else {
            continue;
        };
        figures.insert(
            name.to_owned(),
            json!({
                "rx_bytes": rx_bytes, "rx_packets": rx_packets, "rx_errors": rx_errors,
                "tx_bytes": tx_bytes, "tx_packets": tx_packets, "tx_errors": tx_errors,
            }),
        );
    }
    Some(figures)
}

/// Temperatures in degrees Celsius by thermal zone.
fn thermal() -> Option<Map<String, Value>> {
    let mut figures = Map::new();
    for entry in fs::read_dir("/sys/class/thermal").ok()?.flatten() {
        let zone = entry.file_name().to_string_lossy().into_owned();
        if !zone.starts_with("thermal_zone") {
            continue;
        }
        // A zone that is switched off answers with an error; the others still count.
        let Ok(text) = fs::read_to_string(entry.path().join("temp")) else { continue };
        let Ok(millidegrees) = text.trim().parse::<i32>() else { continue };
        let kind = fs::read_to_string(entry.path().join("type")).unwrap_or_default();
        figures.insert(
            format!("{zone} {}", kind.trim()).trim_end().to_owned(),
            json!(f64::from(millidegrees) / 1000.0),
        );
    }
    Some(figures)
}
