//! Subject mappings, of the top level and of an account.
//!
//! Owns their forms, weights and the words about them. Does not own transforms.

use super::keys::DESTINATION;
use super::parser::{Map, Node, Value};
use super::read::Reader;
use super::units::{is_filter, short};
use crate::auth::account::{Destination, Mapping};
use crate::sorted;
use crate::subject::transform::{Purpose, Transform};

impl Reader<'_> {
    /// `source: "dest"`, `source: {dest, weight, cluster}` or a list of those.
    pub(super) fn mappings(&mut self, key: &str, node: &Node) -> Vec<Mapping> {
        let Some(map) = self.map(key, node) else { return Vec::new() };
        let mut mappings = Vec::new();
        for (subject, entry) in in_order(map) {
            if !is_filter(subject) {
                self.mistakes.add(
                    entry.place.clone(),
                    format!("Subject {:?} is not a valid subject", short(subject)),
                );
                continue;
            }
            let destinations = self.destinations(&entry.node);
            if let Err(what) = check(subject, &destinations) {
                let source = short(subject);
                let to = match &entry.node.value {
                    Value::Text(text) => format!("to {:?} ", short(text)),
                    _ => String::new(),
                };
                self.wrong(
                    &entry.node,
                    format!("Error adding mapping for {source:?} {to}: {what}"),
                );
                continue;
            }
            if !destinations.is_empty() {
                mappings.push(Mapping { subject: subject.to_owned(), destinations });
            }
        }
        mappings
    }

    fn destinations(&mut self, node: &Node) -> Vec<Destination> {
        match &node.value {
            Value::Text(_) => {
                let subject = self.text("the destination of a mapping", node);
                if subject.as_ref().is_some_and(String::is_empty) {
                    self.wrong(node, "a mapping needs a destination");
                    return Vec::new();
                }
                subject
                    .map(|subject| Destination { subject, weight: 100, cluster: None })
                    .into_iter()
                    .collect()
            }
            Value::Map(map) => self.destination(node, map).into_iter().collect(),
            Value::Array(nodes) => {
                let mut destinations = Vec::new();
                for node in nodes {
                    match &node.value {
                        Value::Map(map) => destinations.extend(self.destination(node, map)),
                        _ => self.wrong(node, "Expected an entry for the mapping destination"),
                    }
                }
                destinations
            }
            _ => {
                self.wrong(node, "Expected an entry for the mapping destination");
                Vec::new()
            }
        }
    }

    fn destination(&mut self, node: &Node, map: &Map) -> Option<Destination> {
        let (mut subject, mut weight, mut cluster) = (None, None, None);
        let mut has_weight = false;
        for (key, entry) in self.entries(map, &DESTINATION) {
            let node = &entry.node;
            match key {
                "destination" => subject = self.text(key, node),
                "weight" => {
                    has_weight = true;
                    weight = self.weight(node);
                }
                "cluster" => cluster = self.text(key, node).filter(|name| !name.is_empty()),
                _ => {}
            }
        }
        let subject = subject.unwrap_or_default();
        if !has_weight {
            let subject = short(&subject);
            self.wrong(node, format!("Missing weight for mapping destination {subject:?}"));
        } else if subject.is_empty() {
            self.wrong(node, "a mapping needs a destination");
            return None;
        }
        Some(Destination { subject, weight: weight?, cluster })
    }

    fn weight(&mut self, node: &Node) -> Option<u8> {
        let weight = match &node.value {
            Value::Integer { value, .. } => u8::try_from(*value).ok(),
            Value::Text(text) => text.strip_suffix('%').unwrap_or(text).parse().ok(),
            _ => {
                let kind = node.value.kind();
                self.wrong(node, format!("weight must be a number or a percentage, not {kind}"));
                return None;
            }
        };
        let weight = weight.filter(|weight| *weight <= 100);
        if weight.is_none() {
            let written = match &node.value {
                Value::Integer { value, .. } => value.to_string(),
                Value::Text(text) => format!("{:?}", short(text)),
                _ => String::new(),
            };
            self.wrong(
                node,
                format!("Invalid weight {written} for mapping destination; 0 to 100, or \"0%\""),
            );
        }
        weight
    }
}

fn check(source: &str, destinations: &[Destination]) -> Result<(), String> {
    for (index, destination) in destinations.iter().enumerate() {
        let subject = &destination.subject;
        if destinations.iter().take(index).any(|other| other.subject == *subject) {
            return Err(format!("duplicate entry for {:?}", short(subject)));
        }
        Transform::new(source, subject, Purpose::Mapping).map_err(|error| error.to_string())?;
        let of_cluster: u32 = destinations
            .iter()
            .filter(|other| other.cluster == destination.cluster)
            .map(|other| u32::from(other.weight))
            .sum();
        if of_cluster > 100 {
            return Err("total weight needs to be <= 100".into());
        }
    }
    Ok(())
}

/// The pairs of a block whose keys are free, in the order of the text.
pub(super) fn in_order(map: &Map) -> Vec<(&str, &super::parser::Entry)> {
    let mut pairs: Vec<_> = map.iter().map(|(key, entry)| (key.as_str(), entry)).collect();
    sorted::sort_by_key(&mut pairs, |(_, entry)| (entry.place.line, entry.place.column));
    pairs
}
