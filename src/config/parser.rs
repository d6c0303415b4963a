//! The structure of the configuration language: text to a tree of values.
//!
//! Owns maps, arrays, variables and includes, each value with its place. Does not own
//! what a key means. Goes on after a syntax error with the next line, so that one run
//! shows every mistake.
//!
//! # Invariants
//! - Recursion is at most [`NESTING_MAX`] deep, includes and environment values counted.
//! - The tree holds at most [`VALUES_MAX`] values, copies made through variables counted,
//!   so a small file cannot unfold into a large tree.
//! - Of a key that is written twice the last one stands, as in nats-server.
//!
//! Source: the nats-server configuration documentation, checked against nats-server 2.15.

use super::lexer::{FILE_BYTES_MAX, KeyToken, LexError, Lexer, Terminator, ValueToken};
use super::mistake::{Collected, Place};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Maps and arrays inside each other. nats-server's own schema needs eight.
pub const NESTING_MAX: usize = 48;

/// Files that include each other.
pub const INCLUDE_DEPTH_MAX: usize = 10;

/// Bytes of the path of an included file; no system has longer ones, and each is in messages.
const PATH_BYTES_MAX: usize = 4096;
/// Files of one configuration, counted each time they are included.
pub const FILES_MAX: usize = 256;

/// Values of one configuration; 32 bytes of text count as one more.
pub const VALUES_MAX: usize = 100_000;

// A configuration without variables runs into the bound of a file, not of its values: even
// a file of nothing but text stays below.
const _: () = assert!(FILE_BYTES_MAX / TEXT_BYTES_PER_VALUE < VALUES_MAX);
// An include costs one level, so that its bound is the one reported.
const _: () = assert!(INCLUDE_DEPTH_MAX < NESTING_MAX);

const TEXT_BYTES_PER_VALUE: usize = 32;

/// What a configuration may ask of the machine: files and environment variables.
pub trait Surroundings {
    /// The bytes of a file, or the reason why not. Reads no more than it must to know
    /// that a file is over [`FILE_BYTES_MAX`].
    fn read(&self, path: &Path) -> Result<Vec<u8>, String>;
    /// The value of an environment variable.
    fn variable(&self, name: &str) -> Option<String>;
}

/// A value with its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) place: Place,
}

impl Node {
    /// The values of a list; anything else is a list of itself.
    pub(crate) fn elements(&self) -> &[Self] {
        match &self.value {
            Value::Array(nodes) => nodes,
            _ => std::slice::from_ref(self),
        }
    }
}

/// What the language can say.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text(String),
    /// `source` is what was written, suffix and all.
    Integer {
        value: i64,
        source: String,
    },
    Float(f64),
    Bool(bool),
    Date(String),
    Array(Vec<Node>),
    Map(Map),
}

impl Value {
    /// The kind in the words of the messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Integer { .. } => "a whole number",
            Self::Float(_) => "a number with a point",
            Self::Bool(_) => "a boolean",
            Self::Date(_) => "a date",
            Self::Array(_) => "a list",
            Self::Map(_) => "a block",
        }
    }
}

/// The pairs of a block.
pub(crate) type Map = BTreeMap<String, Entry>;

/// A key's value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Where the key stands.
    pub(crate) place: Place,
    pub(crate) node: Node,
    /// Some `$NAME` refers to it, which makes an unknown key legitimate.
    pub(crate) is_variable: bool,
}

/// Reads the file at `path` and all it includes.
pub(crate) fn parse_file(
    path: &Path,
    surroundings: &dyn Surroundings,
    mistakes: &mut Collected,
) -> Map {
    let mut parser = Parser::new(surroundings, mistakes);
    let name = path.display().to_string();
    let mut map = Map::new();
    match parser.read(path, &name) {
        Ok(text) => {
            parser.files_open.push(path.to_owned());
            parser.document(&text, &name.into(), path, &mut map, 0);
        }
        Err(what) => {
            parser.mistakes.add(Place { file: name.into(), line: 0, column: 0 }, what);
        }
    }
    map
}

struct Parser<'a> {
    surroundings: &'a dyn Surroundings,
    mistakes: &'a mut Collected,
    /// The chain of includes that leads here.
    files_open: Vec<PathBuf>,
    files_read: usize,
    /// The chain of environment variables that leads here.
    variables_open: Vec<String>,
    values: usize,
    /// A bound of the whole configuration was hit: no use in going on.
    stopped: bool,
}

/// The maps around the value being read, outermost first.
type Scope<'s> = Vec<&'s mut Map>;

impl<'a> Parser<'a> {
    fn new(surroundings: &'a dyn Surroundings, mistakes: &'a mut Collected) -> Self {
        Self {
            surroundings,
            mistakes,
            files_open: Vec::new(),
            files_read: 0,
            variables_open: Vec::new(),
            values: 0,
            stopped: false,
        }
    }

    fn read(&mut self, path: &Path, name: &str) -> Result<String, String> {
        self.files_read += 1;
        if self.files_read > FILES_MAX {
            self.stopped = true;
            return Err(format!("more than {FILES_MAX} files are included"));
        }
        let bytes = self
            .surroundings
            .read(path)
            .map_err(|reason| format!("cannot read {name}: {reason}"))?;
        if bytes.len() > FILE_BYTES_MAX {
            return Err(format!("{name} is over {FILE_BYTES_MAX} bytes, the most a file may have"));
        }
        if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
            return Err(format!("{name} holds a NUL at byte {at}; a configuration is text"));
        }
        String::from_utf8(bytes).map_err(|error| {
            format!("{name} is not UTF-8 from byte {}", error.utf8_error().valid_up_to())
        })
    }

    /// A whole file, in one pair of braces or without; its pairs go into `map`.
    fn document(&mut self, text: &str, name: &Rc<str>, path: &Path, map: &mut Map, depth: usize) {
        let mut lexer = Lexer::new(text, name.clone());
        let braced = lexer.accept('{');
        let mut scope = vec![map];
        let closed = self.pairs(&mut lexer, &mut scope, path, depth, braced);
        // A stray closing brace at the very end is tolerated, as in nats-server.
        while closed && lexer.accept('}') {}
        if self.stopped {
            return;
        }
        if braced && !closed {
            let place = Place { file: name.clone(), line: 1, column: 1 };
            self.mistakes.add(place, "the { around this file has no closing }");
        } else if closed && !lexer.at_end() {
            let place = lexer.place();
            self.mistakes.add(place, "text after the } that closes the file; is a { missing?");
        }
    }

    /// Pairs up to a closing brace (true) or the end of the text (false).
    fn pairs(
        &mut self,
        lexer: &mut Lexer<'_>,
        scope: &mut Scope<'_>,
        path: &Path,
        depth: usize,
        nested: bool,
    ) -> bool {
        loop {
            if self.stopped || self.mistakes.is_full() {
                self.stopped = true;
                return false;
            }
            match self.pair(lexer, scope, path, depth) {
                Ok(Terminator::Next) => {}
                Ok(Terminator::Close) => return true,
                Ok(Terminator::End) => return false,
                Err((place, what)) => {
                    self.mistakes.add(place, what);
                    lexer.recover(nested.then_some('}'));
                }
            }
        }
    }

    fn pair(
        &mut self,
        lexer: &mut Lexer<'_>,
        scope: &mut Scope<'_>,
        path: &Path,
        depth: usize,
    ) -> Result<Terminator, LexError> {
        let (key, place) = match lexer.key()? {
            (KeyToken::End, _) => return Ok(Terminator::End),
            (KeyToken::Close, _) => return Ok(Terminator::Close),
            (KeyToken::Key { text, quoted }, place) => {
                if !quoted && text.eq_ignore_ascii_case("include") && lexer.include_follows() {
                    self.include(lexer, scope, path, depth, &place)?;
                    return lexer.terminator('}');
                }
                if !quoted && text.contains('{') {
                    return Err((
                        place,
                        format!("\"{text}\" is read as one key; put a blank before the brace"),
                    ));
                }
                (text, place)
            }
        };
        lexer.separator(&key, scope.len() > 1)?;
        let node = self.value(lexer, scope, path, depth)?;
        if let Some(map) = scope.last_mut() {
            map.insert(key, Entry { place, node, is_variable: false });
        }
        lexer.terminator('}')
    }

    fn include(
        &mut self,
        lexer: &mut Lexer<'_>,
        scope: &mut Scope<'_>,
        path: &Path,
        depth: usize,
        place: &Place,
    ) -> Result<(), LexError> {
        let (relative, relative_place) = lexer.include_path()?;
        if self.files_open.len() >= INCLUDE_DEPTH_MAX {
            return Err((
                place.clone(),
                format!("includes are nested more than {INCLUDE_DEPTH_MAX} deep"),
            ));
        }
        Self::check_depth(depth, place)?;
        // nats-server joins absolute paths too, which makes them useless there; here they
        // mean the same file, or none.
        let directory = path.parent().unwrap_or(Path::new(""));
        let file = directory.join(relative.trim_start_matches('/'));
        let length = file.as_os_str().len();
        if length > PATH_BYTES_MAX {
            let text = format!("the name of the included file has {length} bytes, not a path");
            return Err((relative_place, text));
        }
        if self.files_open.contains(&file) {
            return Err((relative_place, format!("{} includes itself", file.display())));
        }
        let name = file.display().to_string();
        let text = self.read(&file, &name).map_err(|what| {
            let hint = if relative.starts_with('/') {
                "; the path is taken from the directory of this file, even with a / in front"
            } else {
                ""
            };
            (relative_place, format!("{what}{hint}"))
        })?;
        self.files_open.push(file.clone());
        // Variables of the including file are not seen inside, as in nats-server; the
        // other way round they are.
        let mut included = Map::new();
        self.document(&text, &name.into(), &file, &mut included, depth + 1);
        self.files_open.pop();
        if let Some(map) = scope.last_mut() {
            map.append(&mut included);
        }
        Ok(())
    }

    fn check_depth(depth: usize, place: &Place) -> Result<(), LexError> {
        if depth >= NESTING_MAX {
            return Err((place.clone(), format!("nested more than {NESTING_MAX} levels deep")));
        }
        Ok(())
    }

    fn value(
        &mut self,
        lexer: &mut Lexer<'_>,
        scope: &mut Scope<'_>,
        path: &Path,
        depth: usize,
    ) -> Result<Node, LexError> {
        let (token, place) = lexer.value()?;
        let value = match token {
            ValueToken::Text { text, bare } => match boolean(&text) {
                Some(value) if bare => Value::Bool(value),
                _ => Value::Text(text),
            },
            ValueToken::Integer { value, source } => Value::Integer { value, source },
            ValueToken::Float(value) => Value::Float(value),
            ValueToken::Date(text) => Value::Date(text),
            ValueToken::Variable(name) => return self.variable(&name, place, scope, depth),
            ValueToken::ArrayClose => {
                return Err((place, "expected a value and found ']'".into()));
            }
            ValueToken::MapOpen => {
                Self::check_depth(depth, &place).inspect_err(|_| self.stopped = true)?;
                let mut map = Map::new();
                let closed = {
                    let mut inner: Scope<'_> = scope.iter_mut().map(|map| &mut **map).collect();
                    inner.push(&mut map);
                    self.pairs(lexer, &mut inner, path, depth + 1, true)
                };
                if !closed && !self.stopped {
                    self.mistakes.add(place.clone(), "this { has no closing }");
                }
                Value::Map(map)
            }
            ValueToken::ArrayOpen => {
                Self::check_depth(depth, &place).inspect_err(|_| self.stopped = true)?;
                Value::Array(self.elements(lexer, scope, path, depth + 1, &place))
            }
        };
        self.spend(Node { value, place })
    }

    fn elements(
        &mut self,
        lexer: &mut Lexer<'_>,
        scope: &mut Scope<'_>,
        path: &Path,
        depth: usize,
        opened: &Place,
    ) -> Vec<Node> {
        let mut elements = Vec::new();
        loop {
            if self.stopped || self.mistakes.is_full() {
                self.stopped = true;
                return elements;
            }
            lexer.skip_to_element();
            if lexer.accept(']') {
                return elements;
            }
            if lexer.at_end() {
                self.mistakes.add(opened.clone(), "this [ has no closing ]");
                return elements;
            }
            let terminator = self.value(lexer, scope, path, depth).and_then(|node| {
                elements.push(node);
                lexer.terminator(']')
            });
            match terminator {
                Ok(Terminator::Next | Terminator::End) => {}
                Ok(Terminator::Close) => return elements,
                Err((place, what)) => {
                    self.mistakes.add(place, what);
                    lexer.recover(Some(']'));
                }
            }
        }
    }

    /// A key written earlier in one of the maps around, or an environment variable.
    fn variable(
        &mut self,
        name: &str,
        place: Place,
        scope: &mut Scope<'_>,
        depth: usize,
    ) -> Result<Node, LexError> {
        for map in scope.iter_mut().rev() {
            if let Some(entry) = map.get_mut(name) {
                entry.is_variable = true;
                let levels = depth_of(&entry.node);
                Self::check_depth(depth + levels, &place)?;
                self.spend_copy(&entry.node, &place)?;
                return Ok(Node { value: entry.node.value.clone(), place });
            }
        }
        if self.variables_open.iter().any(|open| open == name) {
            return Err((place, format!("the environment variable {name} refers to itself")));
        }
        let Some(text) = self.surroundings.variable(name) else {
            return Err((
                place,
                format!(
                    "${name} is neither a key above this line nor an environment variable; \
                     quote it if it is text"
                ),
            ));
        };
        if text.len() > FILE_BYTES_MAX {
            return Err((place, format!("${name} is over {FILE_BYTES_MAX} bytes")));
        }
        Self::check_depth(depth + self.variables_open.len(), &place)?;
        if text.is_empty() {
            return self.spend(Node { value: Value::Text(text), place });
        }
        self.variables_open.push(name.to_owned());
        let mut lexer = Lexer::new(&text, format!("${name}").into());
        let node = self.value(&mut lexer, &mut Vec::new(), Path::new(""), depth + 1);
        let complete = lexer.at_end();
        self.variables_open.pop();
        match node {
            Ok(node) if complete => Ok(Node { value: node.value, place }),
            Ok(_) => Err((
                place,
                format!("the environment variable {name} holds more than one value; quote it"),
            )),
            Err((_, what)) => Err((place, format!("the environment variable {name}: {what}"))),
        }
    }

    fn spend(&mut self, node: Node) -> Result<Node, LexError> {
        let text = match &node.value {
            Value::Text(text) => text.len(),
            _ => 0,
        };
        self.spend_values(1 + text / TEXT_BYTES_PER_VALUE, &node.place)?;
        Ok(node)
    }

    fn spend_copy(&mut self, node: &Node, place: &Place) -> Result<(), LexError> {
        self.spend_values(weight(node), place)
    }

    fn spend_values(&mut self, count: usize, place: &Place) -> Result<(), LexError> {
        self.values = self.values.saturating_add(count);
        if self.values > VALUES_MAX {
            self.stopped = true;
            return Err((place.clone(), format!("more than {VALUES_MAX} values; split the list")));
        }
        Ok(())
    }
}

/// `true`, `yes`, `on` and their opposites, in any case.
fn boolean(text: &str) -> Option<bool> {
    let is = |word: &str| text.eq_ignore_ascii_case(word);
    if is("true") || is("yes") || is("on") {
        Some(true)
    } else if is("false") || is("no") || is("off") {
        Some(false)
    } else {
        None
    }
}

// The two walks below go no deeper than the tree, which is at most NESTING_MAX.

fn weight(node: &Node) -> usize {
    1 + match &node.value {
        Value::Text(text) => text.len() / TEXT_BYTES_PER_VALUE,
        Value::Array(nodes) => nodes.iter().map(weight).sum(),
        Value::Map(map) => map.values().map(|entry| weight(&entry.node)).sum(),
        Value::Integer { .. } | Value::Float(_) | Value::Bool(_) | Value::Date(_) => 0,
    }
}

fn depth_of(node: &Node) -> usize {
    match &node.value {
        Value::Array(nodes) => 1 + nodes.iter().map(depth_of).max().unwrap_or(0),
        Value::Map(map) => 1 + map.values().map(|entry| depth_of(&entry.node)).max().unwrap_or(0),
        Value::Text(_)
        | Value::Integer { .. }
        | Value::Float(_)
        | Value::Bool(_)
        | Value::Date(_) => 0,
    }
}

/// The tree as JSON with sorted keys, in the spelling whose hash is nats-server's digest
/// of a configuration (Go's encoder: `<`, `>` and `&` are escaped, a new line follows).
pub(crate) fn canonical_json(map: &Map) -> String {
    let mut out = String::new();
    write_map(&mut out, map);
    out.push('\n');
    out
}

fn write_map(out: &mut String, map: &Map) {
    out.push('{');
    for (index, (key, entry)) in map.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write_text(out, key);
        out.push(':');
        write_value(out, &entry.node.value);
    }
    out.push('}');
}

fn write_value(out: &mut String, value: &Value) {
    // Writing into a String cannot fail.
    match value {
        Value::Text(text) | Value::Date(text) => write_text(out, text),
        Value::Integer { value, .. } => {
            let _ = write!(out, "{value}");
        }
        Value::Float(value) => {
            let size = value.abs();
            let _ = if size != 0.0 && !(1e-6..1e21).contains(&size) {
                write!(out, "{value:e}")
            } else {
                write!(out, "{value}")
            };
        }
        Value::Bool(value) => {
            let _ = write!(out, "{value}");
        }
        Value::Array(nodes) => {
            out.push('[');
            for (index, node) in nodes.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_value(out, &node.value);
            }
            out.push(']');
        }
        Value::Map(map) => write_map(out, map),
    }
}

fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Files and variables that exist only in a test.
    #[derive(Default)]
    pub(crate) struct Fake {
        pub(crate) files: Vec<(&'static str, String)>,
        pub(crate) variables: Vec<(&'static str, &'static str)>,
    }

    impl Surroundings for Fake {
        fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
            self.files
                .iter()
                .find(|(name, _)| Path::new(name) == path)
                .map(|(_, text)| text.clone().into_bytes())
                .ok_or_else(|| "no such file".into())
        }

        fn variable(&self, name: &str) -> Option<String> {
            self.variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
        }
    }

    fn parse_in(text: &str, mut fake: Fake) -> Result<String, Vec<String>> {
        fake.files.push(("d/main.conf", text.to_owned()));
        let mut mistakes = Collected::default();
        let map = parse_file(Path::new("d/main.conf"), &fake, &mut mistakes);
        if mistakes.is_empty() {
            Ok(canonical_json(&map).trim_end().to_owned())
        } else {
            Err(mistakes.into_vec().iter().map(ToString::to_string).collect())
        }
    }

    fn parse(text: &str) -> Result<String, Vec<String>> {
        parse_in(text, Fake::default())
    }

    #[expect(clippy::unnecessary_wraps, reason = "is compared with what parse returns")]
    fn ok(json: &str) -> Result<String, Vec<String>> {
        Ok(json.to_owned())
    }

    #[test]
    fn every_way_to_write_a_pair() {
        for text in
            ["a: b", "a=b", "a b", "a :b", "a\n\n b", "\"a\" b", "'a': 'b'", "{a: b}", "a: b }"]
        {
            assert_eq!(parse(text), ok(r#"{"a":"b"}"#), "{text}");
        }
        for text in
            ["a: 1, b: 2", "a: 1; b: 2", "a: 1\nb: 2", "{\"a\": 1, \"b\": 2}", "a 1 # x\nb 2 // y"]
        {
            assert_eq!(parse(text), ok(r#"{"a":1,"b":2}"#), "{text}");
        }
    }

    #[test]
    fn maps_lists_and_booleans_nest() {
        assert_eq!(
            parse(
                "m { l: [1, two, {x: on}\n 'q' ]\n n: {} } e: []".replace("} e", "}\ne").as_str()
            ),
            ok(r#"{"e":[],"m":{"l":[1,"two",{"x":true},"q"],"n":{}}}"#)
        );
        assert_eq!(parse("a: \"true\""), ok(r#"{"a":"true"}"#));
        assert_eq!(parse("a: [1,2,]"), ok(r#"{"a":[1,2]}"#));
        assert_eq!(parse("a: 1\na: 2"), ok(r#"{"a":2}"#));
    }

    #[test]
    fn variables_come_from_above_then_from_the_environment() {
        assert_eq!(parse("v: x\nm { a: $v }"), ok(r#"{"m":{"a":"x"},"v":"x"}"#));
        assert_eq!(parse("v: x\nm { v: y, a: $v }"), ok(r#"{"m":{"a":"y","v":"y"},"v":"x"}"#));
        assert!(parse("a: $v\nv: x").is_err());
        let environment =
            |value| Fake { variables: vec![("V", value), ("W", "7")], ..Fake::default() };
        assert_eq!(parse_in("a: $V", environment("5m")), ok(r#"{"a":5000000}"#));
        assert_eq!(parse_in("a: $V", environment("[1, 2]")), ok(r#"{"a":[1,2]}"#));
        assert_eq!(parse_in("a: $V", environment("")), ok(r#"{"a":""}"#));
        assert_eq!(parse_in("a: $V", environment("$W")), ok(r#"{"a":7}"#));
        assert!(parse_in("a: $V", environment("$V")).unwrap_err()[0].contains("itself"));
        assert!(parse_in("a: $V", environment("x y")).is_err());
    }

    #[test]
    fn includes_splice_into_the_block_where_they_stand() {
        let files = || Fake {
            files: vec![
                ("d/sub/b.conf", "include c.conf\nb: 1".into()),
                ("d/sub/c.conf", "c: 2".into()),
                ("d/loop.conf", "include main.conf".into()),
                ("d/v.conf", "x: $outer".into()),
            ],
            ..Fake::default()
        };
        assert_eq!(parse_in("include sub/b.conf\na: $c", files()), ok(r#"{"a":2,"b":1,"c":2}"#));
        assert_eq!(parse_in("m { include 'sub/c.conf' }", files()), ok(r#"{"m":{"c":2}}"#));
        assert_eq!(
            parse_in("include nothing.conf", files()),
            Err(vec!["d/main.conf:1:9: cannot read d/nothing.conf: no such file".into()])
        );
        let mistakes = parse_in("include loop.conf", files()).unwrap_err();
        assert_eq!(mistakes, ["d/loop.conf:1:9: d/main.conf includes itself"]);
        assert!(parse_in("outer: 1\ninclude v.conf", files()).is_err());
        let long = format!("include {}", "x".repeat(9000));
        assert_eq!(
            parse_in(&long, files()).unwrap_err(),
            ["d/main.conf:1:9: the name of the included file has 9002 bytes, not a path"]
        );
    }

    #[test]
    fn every_syntax_error_is_reported_and_the_rest_is_read() {
        let mistakes = parse("a: 1.5k\nb: ok\nc: \"\\q\"\nd [1 2]\nm {\n").unwrap_err();
        let places: Vec<_> = mistakes.iter().map(|m| m.split(": ").next().unwrap()).collect();
        assert_eq!(
            places,
            ["d/main.conf:1:4", "d/main.conf:3:5", "d/main.conf:4:6", "d/main.conf:5:3"]
        );
    }

    #[test]
    fn one_mistake_inside_brackets_is_one_message() {
        for text in ["l: [ { a: 1.5k } ]\nb: 1", "m { a: 1.5k }\nb: 1", "m { a: 1.5k, c: 2 }\nb: 1"]
        {
            assert_eq!(parse(text).unwrap_err().len(), 1, "{text}");
        }
    }

    #[test]
    fn bounds_hold() {
        let deep = |n: usize| format!("a: {}1 {}", "[".repeat(n), "]".repeat(n));
        assert!(parse(&deep(NESTING_MAX)).is_ok());
        assert!(parse(&deep(NESTING_MAX + 1)).unwrap_err()[0].contains("levels deep"));
        assert!(parse(&"a {".repeat(100_000)).is_err());
        assert!(parse(&"[".repeat(100_000)).is_err());

        // Each line refers twice to the one above: 2^40 values if they were copied.
        let mut laughs = String::from("v0: [1, 2]\n");
        for n in 1..40 {
            let _ = writeln!(laughs, "v{n}: [$v{0}, $v{0}]", n - 1);
        }
        let mistakes = parse(&laughs).unwrap_err();
        assert!(mistakes[0].contains("values"), "{mistakes:?}");

        let long = "x".repeat(FILE_BYTES_MAX + 1);
        assert!(parse(&long).unwrap_err()[0].contains("bytes"));

        let chain = |n: usize| {
            let names = ["d/0", "d/1", "d/2", "d/3", "d/4", "d/5", "d/6", "d/7", "d/8", "d/9"];
            let files = names.iter().enumerate().map(|(i, name)| {
                (*name, if i < n { format!("include {}", i + 1) } else { "z: 1".into() })
            });
            parse_in("include 0", Fake { files: files.collect(), ..Fake::default() })
        };
        assert!(chain(INCLUDE_DEPTH_MAX - 2).is_ok());
        assert!(chain(INCLUDE_DEPTH_MAX - 1).unwrap_err()[0].contains("nested"));

        let many = "include 0\n".repeat(FILES_MAX + 1);
        let fake = Fake { files: vec![("d/0", "z: 1".into())], ..Fake::default() };
        assert!(parse_in(&many, fake).unwrap_err()[0].contains("files"));
    }

    #[test]
    fn digest_form_escapes_as_go_does() {
        assert_eq!(parse("a: '<&>\"\\'"), ok(r#"{"a":"\u003c\u0026\u003e\"\\"}"#));
        assert_eq!(parse("a: 1.5\nb: -0.25"), ok(r#"{"a":1.5,"b":-0.25}"#));
    }
}
