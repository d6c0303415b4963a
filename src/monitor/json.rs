//! JSON as the monitoring pages and services of nats-server look.
//!
//! Owns a writer that appends members straight to bytes, and the layout with two blanks a
//! level. Does not own what the members are.
//!
//! # Invariants
//! - What was written so far ends with `{`, `[` or `:` exactly when no comma is due.
//! - `<`, `>` and `&` never appear: Go writes them as `\u003c` and so on.

use std::fmt::{self, Write as _};

use crate::time::Timestamp;

/// Appends JSON to bytes, without blanks.
#[derive(Debug, Default)]
pub struct Json {
    out: Vec<u8>,
}

impl fmt::Write for Json {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

impl Json {
    /// Nothing so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Nothing so far?
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// All of it.
    pub fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    fn comma(&mut self) {
        if !matches!(self.out.last(), None | Some(b'{' | b'[' | b':')) {
            self.out.push(b',');
        }
    }

    fn key(&mut self, key: &str) {
        self.comma();
        self.quoted(key);
        self.out.push(b':');
    }

    fn display(&mut self, value: &dyn fmt::Display) {
        // Writing to bytes cannot fail.
        let _ = write!(self, "{value}");
    }

    /// An object as an element, or the outermost one.
    pub fn open(&mut self) {
        self.comma();
        self.out.push(b'{');
    }

    /// An object as a member.
    pub fn open_at(&mut self, key: &str) {
        self.key(key);
        self.out.push(b'{');
    }

    /// Messages and bytes as a member.
    pub fn traffic(&mut self, key: &str, msgs: u64, bytes: u64) {
        self.open_at(key);
        self.number("msgs", msgs);
        self.number("bytes", bytes);
        self.close();
    }

    /// The end of an object.
    pub fn close(&mut self) {
        self.out.push(b'}');
    }

    /// An array as a member.
    pub fn list_at(&mut self, key: &str) {
        self.key(key);
        self.out.push(b'[');
    }

    /// The end of an array.
    pub fn close_list(&mut self) {
        self.out.push(b']');
    }

    /// Texts, unless there are none.
    pub fn list_some(&mut self, key: &str, values: &[String]) {
        if !values.is_empty() {
            self.list_at(key);
            for value in values {
                self.item(value);
            }
            self.close_list();
        }
    }

    /// A text.
    pub fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        self.quoted(value);
    }

    /// A text, unless it is empty.
    pub fn text_some(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.text(key, value);
        }
    }

    /// What prints itself, as a text. It must need no escapes.
    pub fn shown(&mut self, key: &str, value: impl fmt::Display) {
        self.key(key);
        self.out.push(b'"');
        self.display(&value);
        self.out.push(b'"');
    }

    /// A time.
    pub fn time(&mut self, key: &str, value: Timestamp) {
        self.shown(key, value);
    }

    /// Bytes of a subject, as a text.
    pub fn subject(&mut self, key: &str, value: &[u8]) {
        self.text(key, &String::from_utf8_lossy(value));
    }

    /// A number.
    pub fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    /// A number of things in memory.
    pub fn count(&mut self, key: &str, value: usize) {
        self.number(key, value as u64);
    }

    /// A number, unless it is 0.
    pub fn number_some(&mut self, key: &str, value: u64) {
        if value != 0 {
            self.number(key, value);
        }
    }

    /// A number that may be negative.
    pub fn int(&mut self, key: &str, value: i64) {
        self.key(key);
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    /// A number with a fraction.
    pub fn float(&mut self, key: &str, value: f64) {
        self.key(key);
        self.display(&value);
    }

    /// A switch.
    pub fn flag(&mut self, key: &str, value: bool) {
        self.raw(key, if value { b"true" } else { b"false" });
    }

    /// A switch that is left out when off.
    pub fn flag_some(&mut self, key: &str, value: bool) {
        if value {
            self.flag(key, true);
        }
    }

    /// JSON that was made elsewhere.
    pub fn raw(&mut self, key: &str, json: &[u8]) {
        self.key(key);
        self.append(json);
    }

    /// The same as an element.
    pub fn raw_item(&mut self, json: &[u8]) {
        self.comma();
        self.append(json);
    }

    /// Elements that were written apart.
    pub fn splice(&mut self, other: &Json) {
        self.comma();
        self.out.extend_from_slice(&other.out);
    }

    fn append(&mut self, json: &[u8]) {
        for &byte in json {
            self.byte(byte);
        }
    }

    /// A text as an element.
    pub fn item(&mut self, value: &str) {
        self.comma();
        self.quoted(value);
    }

    fn byte(&mut self, byte: u8) {
        match byte {
            b'<' => self.out.extend_from_slice(b"\\u003c"),
            b'>' => self.out.extend_from_slice(b"\\u003e"),
            b'&' => self.out.extend_from_slice(b"\\u0026"),
            other => self.out.push(other),
        }
    }

    fn quoted(&mut self, text: &str) {
        self.out.push(b'"');
        for character in text.chars() {
            match character {
                '"' => self.out.extend_from_slice(b"\\\""),
                '\\' => self.out.extend_from_slice(b"\\\\"),
                '\n' => self.out.extend_from_slice(b"\\n"),
                '\r' => self.out.extend_from_slice(b"\\r"),
                '\t' => self.out.extend_from_slice(b"\\t"),
                '\u{8}' => self.out.extend_from_slice(b"\\b"),
                '\u{c}' => self.out.extend_from_slice(b"\\f"),
                '\0'..='\u{1f}' | '\u{2028}' | '\u{2029}' => {
                    let _ = write!(self, "\\u{:04x}", u32::from(character));
                }
                ascii if ascii.is_ascii() => self.byte(ascii as u8),
                other => {
                    let mut bytes = [0; 4];
                    self.out.extend_from_slice(other.encode_utf8(&mut bytes).as_bytes());
                }
            }
        }
        self.out.push(b'"');
    }
}

/// `json`, which has no blanks, with a line for each member and `step` blanks a level.
pub fn indented(json: &[u8], step: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() + json.len() / 2);
    let mut depth = 0_usize;
    let mut in_text = false;
    let mut escaped = false;
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + depth * step, b' ');
    };
    let mut bytes = json.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if in_text {
            out.push(byte);
            in_text = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'{' | b'[' => {
                out.push(byte);
                if matches!(bytes.peek(), Some(b'}' | b']')) {
                    out.extend(bytes.next());
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            b'"' => {
                in_text = true;
                out.push(byte);
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_separated_and_escaped() {
        let mut json = Json::new();
        json.open();
        json.text("a<", "x>\"\u{1}\u{2028}\u{e9}");
        json.list_at("l");
        json.item("1");
        json.item("2");
        json.open();
        json.close();
        json.close_list();
        json.open_at("o");
        json.float("f", 2.0);
        json.float("g", 0.5);
        json.raw("r", b"[\"a>\"]");
        json.close();
        json.close();
        let text = String::from_utf8(json.into_bytes()).unwrap();
        assert_eq!(
            text,
            "{\"a\\u003c\":\"x\\u003e\\\"\\u0001\\u2028\u{e9}\",\"l\":[\"1\",\"2\",{}],\
             \"o\":{\"f\":2,\"g\":0.5,\"r\":[\"a\\u003e\"]}}"
        );
    }

    #[test]
    fn the_layout_is_that_of_go() {
        let text = indented(br#"{"a":{},"b":[1,"x,{\"}"],"c":[]}"#, 2);
        let expected =
            "{\n  \"a\": {},\n  \"b\": [\n    1,\n    \"x,{\\\"}\"\n  ],\n  \"c\": []\n}";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
