//! What the figures were measured on, to be kept with them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use serde_json::{Map, Value};

/// Facts of this machine and this source tree, in the order of printing.
pub(crate) fn facts(base: &Path) -> Vec<(&'static str, String)> {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    vec![
        ("cores", cores.to_string()),
        ("cpu", cpu_model()),
        ("memory", first_line_with("/proc/meminfo", "MemTotal:")),
        ("kernel", read("/proc/sys/kernel/osrelease")),
        // Other work on the machine makes every figure worse.
        ("load", read("/proc/loadavg")),
        ("stores", base.display().to_string()),
        ("commit", commit()),
    ]
}

/// The same as JSON.
pub(crate) fn facts_json(facts: &[(&'static str, String)]) -> Value {
    let pairs = facts.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into()));
    Value::Object(pairs.collect::<Map<String, Value>>())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn first_line_with(path: &str, label: &str) -> String {
    let text = read(path);
    let value = text.lines().find_map(|line| line.strip_prefix(label));
    value.map_or("unknown", |value| value.trim_start_matches([' ', '\t', ':']).trim()).to_owned()
}

/// ARM kernels name no model; the device tree names the board.
fn cpu_model() -> String {
    let model = first_line_with("/proc/cpuinfo", "model name");
    if model != "unknown" {
        return model;
    }
    read("/proc/device-tree/model").trim_end_matches('\0').to_owned()
}

fn commit() -> String {
    let output = Command::new("git")
        .args(["describe", "--always", "--dirty"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => "unknown".to_owned(),
    }
}
