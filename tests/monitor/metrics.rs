//! `/metrics` against the text format of Prometheus.

use std::collections::{BTreeMap, BTreeSet};

use crate::certificates::certificates;
use crate::server::sedge_binary;
use crate::state::State;
use crate::world::Hub;

/// Labels that do not come from clients.
const LABELS: [&str; 9] =
    ["kind", "direction", "remote", "version", "reason", "storage", "path", "url", "api"];

#[test]
fn metrics_are_well_formed_and_have_no_series_of_single_clients() {
    let accounts = "accounts { H { users: [ {user: l, password: p} ] } }";
    let (Some(certificates), Some(hub)) = (certificates(), Hub::start("hub", "", accounts)) else {
        return;
    };
    let state = State::reach(&sedge_binary(), hub.leaf_address, certificates.path());
    let answer = state.page("/metrics");
    let body = answer.strip_prefix("200 ").expect("the page is there");
    let mut kinds: BTreeMap<&str, &str> = BTreeMap::new();
    let (mut helped, mut series) = (BTreeSet::new(), BTreeSet::new());
    let mut family = "";
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, text) = rest.split_once(' ').expect("a name and a text");
            assert!(!text.is_empty() && helped.insert(name), "HELP once: {line}");
            family = name;
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            assert!(name == family && kinds.insert(name, kind).is_none(), "TYPE once: {line}");
            continue;
        }
        let (name, value) = line.rsplit_once(' ').expect("a sample");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(series.insert(name), "twice: {line}");
        let (name, labels) = name.split_once('{').unwrap_or((name, "}"));
        assert_eq!(name, family, "samples follow their family");
        let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(name.starts_with("sedge_") && name.chars().all(fine), "{line}");
        let is_total = name.ends_with("_total");
        assert_eq!(kinds.get(name) == Some(&"counter"), is_total, "{line}");
        for wrong in ["_ms", "_millis", "_kb", "_mb", "_minutes", "_nanos"] {
            assert!(!name.trim_end_matches("_total").ends_with(wrong), "base units: {line}");
        }
        let labels = labels.strip_suffix('}').expect("closed");
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (key, value) = label.split_once('=').expect("a label");
            assert!(LABELS.contains(&key), "no label of clients: {line}");
            assert!(value.starts_with('"') && value.ends_with('"'), "{line}");
        }
        for client in ["alpha", "secure", "operator"] {
            assert!(!line.contains(client), "{line}");
        }
    }
    assert!(kinds.len() > 20 && helped.len() == kinds.len(), "{body}");
}
