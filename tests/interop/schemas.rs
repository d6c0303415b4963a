//! What JetStream answers and tells, held against the published JSON schemas.
//!
//! Owns a checker of as much of JSON Schema as those files use. They are beside this file
//! (`schemas/NOTICE`); a type that has none is not checked.
//!
//! The schemas are looser and, in places, older than the server: what is wrong by them in
//! an answer of nats-server too is not held against Sedge. `oneOf` is taken for "any of":
//! a refusal with the members of a success fits both of its branches.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// The schemas read so far, by type; `None`: there is none.
static KNOWN: Mutex<BTreeMap<String, Option<Value>>> = Mutex::new(BTreeMap::new());

/// What is wrong with a message of JetStream, going by its type.
pub(crate) fn mistakes(object: &Value) -> Vec<String> {
    let Some(kind) = object["type"].as_str() else { return Vec::new() };
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let schema = known.entry(kind.to_owned()).or_insert_with(|| read(kind));
    let mut found = Vec::new();
    if let Some(schema) = schema {
        check(object, schema, kind, &mut found);
    }
    found
}

fn read(kind: &str) -> Option<Value> {
    let rest = kind.strip_prefix("io.nats.jetstream.")?;
    let (folder, name) = rest.split_once(".v1.")?;
    let is_name = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    if !is_name(folder) || !is_name(name) {
        return None;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/schemas");
    let text = std::fs::read(path.join(folder).join(format!("{name}.json"))).ok()?;
    Some(serde_json::from_slice(&text).expect("a schema is JSON"))
}

fn check(value: &Value, schema: &Value, at: &str, found: &mut Vec<String>) {
    let Some(rules) = schema.as_object() else { return };
    for (rule, wanted) in rules {
        let fits = match rule.as_str() {
            "type" => match wanted {
                Value::Array(any) => any.iter().any(|one| is_a(value, one)),
                one => is_a(value, one),
            },
            "const" => value == wanted,
            "enum" => wanted.as_array().is_some_and(|any| any.contains(value)),
            "minimum" => value.as_f64().zip(wanted.as_f64()).is_none_or(|(is, min)| is >= min),
            "maximum" => value.as_f64().zip(wanted.as_f64()).is_none_or(|(is, max)| is <= max),
            "minLength" => length(value).zip(wanted.as_u64()).is_none_or(|(is, min)| is >= min),
            "maxLength" => length(value).zip(wanted.as_u64()).is_none_or(|(is, max)| is <= max),
            "pattern" => value.as_str().is_none_or(|text| matches(text, wanted)),
            "format" => value.as_str().is_none_or(is_time),
            "required" => {
                for name in wanted.as_array().into_iter().flatten().filter_map(Value::as_str) {
                    if value.is_object() && value.get(name).is_none() {
                        found.push(format!("{at}: no {name}"));
                    }
                }
                true
            }
            "properties" => {
                for (name, schema) in wanted.as_object().into_iter().flatten() {
                    if let Some(member) = value.get(name) {
                        check(member, schema, &format!("{at}.{name}"), found);
                    }
                }
                true
            }
            "patternProperties" => {
                // The one pattern is `.*`.
                for schema in wanted.as_object().into_iter().flatten().map(|(_, schema)| schema) {
                    for (name, member) in value.as_object().into_iter().flatten() {
                        check(member, schema, &format!("{at}.{name}"), found);
                    }
                }
                true
            }
            "additionalProperties" => {
                more(value, schema, wanted, at, found);
                true
            }
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    check(item, wanted, &format!("{at}[]"), found);
                }
                true
            }
            "allOf" => {
                for schema in wanted.as_array().into_iter().flatten() {
                    check(value, schema, at, found);
                }
                true
            }
            "oneOf" | "anyOf" => {
                one_of(value, wanted, at, found);
                true
            }
            // The last two are members that slipped into the place of rules, in that of lists.
            "$schema" | "$id" | "$comment" | "title" | "description" | "default"
            | "deprecationMessage" | "missing" | "offline" => true,
            other => panic!("the schema of {at} uses {other}, which is not checked"),
        };
        if !fits {
            found.push(format!("{at}: {rule} has to be {wanted}"));
        }
    }
}

/// The mistakes by the branch that has the fewest of them.
fn one_of(value: &Value, branches: &Value, at: &str, found: &mut Vec<String>) {
    let by_branch = branches.as_array().into_iter().flatten().map(|schema| {
        let mut found = Vec::new();
        check(value, schema, at, &mut found);
        found
    });
    found.extend(by_branch.min_by_key(Vec::len).unwrap_or_default());
}

/// Members that `properties` does not name.
fn more(value: &Value, schema: &Value, wanted: &Value, at: &str, found: &mut Vec<String>) {
    let named = |name: &String| schema["properties"].get(name).is_some();
    for (name, member) in value.as_object().into_iter().flatten() {
        if named(name) {
            continue;
        }
        match wanted {
            Value::Bool(true) => {}
            Value::Bool(false) => found.push(format!("{at}: {name} is unknown")),
            schema => check(member, schema, &format!("{at}.*"), found),
        }
    }
}

fn is_a(value: &Value, kind: &Value) -> bool {
    match kind.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("null") => value.is_null(),
        other => panic!("a schema has the type {other:?}, which is not checked"),
    }
}

fn length(value: &Value) -> Option<u64> {
    Some(value.as_str()?.chars().count() as u64)
}

fn matches(text: &str, pattern: &Value) -> bool {
    let plain = !text.contains(['.', '*', '>']);
    match pattern.as_str() {
        Some("^[^.*>]+$") => plain && !text.is_empty(),
        Some("^[^.*>]*$") => plain,
        other => panic!("a schema has the pattern {other:?}, which is not checked"),
    }
}

/// The one format there is: a time of RFC 3339.
fn is_time(text: &str) -> bool {
    const SHAPE: &[u8] = b"dddd-dd-ddTdd:dd:dd";
    let fits = |(b, s): (u8, &u8)| if *s == b'd' { b.is_ascii_digit() } else { b == *s };
    let rest = text.get(SHAPE.len()..).unwrap_or_default();
    let rest =
        rest.strip_prefix('.').map_or(rest, |r| r.trim_start_matches(|c: char| c.is_ascii_digit()));
    text.len() > SHAPE.len()
        && text.bytes().zip(SHAPE).all(fits)
        && (rest == "Z" || rest.starts_with(['+', '-']))
}
