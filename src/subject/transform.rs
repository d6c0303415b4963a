//! Transforms: from a subject that matches one pattern to the subject another one describes.
//!
//! Owns the grammar of destinations (`$1`, `{{partition(10,1)}}` …), its errors in
//! nats-server's words, and the result. Does not own who uses it: mappings, imports.
//!
//! # Invariants
//! - A [`Transform`] names only tokens its source has.
//! - [`Transform::apply`] gives a subject only for one its source matches.
//!
//! Source: NATS docs, "Subject Mapping and Partitioning"; results as nats-server 2.15.1.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write as _};

use super::{has_wildcard, matches, tokens};

/// What a destination may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Every function, and wildcards may be left out.
    Mapping,
    /// Wildcards only, and all of them: the way back must be known.
    Import,
}

/// Why two patterns make no transform. Display is nats-server's text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransformError {
    /// One of them is no valid subject, the destination has a `*`, or only one has a `>`.
    InvalidSubject,
    /// There is no function of this name.
    UnknownFunction(String),
    /// The destination has an empty token, or a blank outside a function.
    InvalidTransform,
    /// The source has fewer wildcards; without a number it has none.
    IndexOutOfRange(String, Option<i64>),
    /// See the text.
    NotEnoughArguments(String),
    /// See the text.
    TooManyArguments(String),
    /// No number, or a delimiter with a blank or a dot.
    InvalidArgument(String),
    /// An import must use every wildcard.
    NotAllWildcards(String),
    /// An import may use wildcards only.
    NotForImport(String),
}

impl fmt::Display for TransformError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, token) = match self {
            Self::InvalidSubject => return f.write_str("invalid subject"),
            Self::InvalidTransform => {
                return f.write_str("invalid mapping destination: invalid transform");
            }
            Self::UnknownFunction(token) => ("unknown function", token),
            Self::IndexOutOfRange(token, Some(index)) => {
                return write!(
                    f,
                    "invalid mapping destination: wildcard index out of range in {token}: [{index}]"
                );
            }
            Self::IndexOutOfRange(token, None) => ("wildcard index out of range", token),
            Self::NotEnoughArguments(token) => {
                ("not enough arguments passed to the function", token)
            }
            Self::TooManyArguments(token) => ("too many arguments passed to the function", token),
            Self::InvalidArgument(token) => {
                ("function argument is invalid or in the wrong format", token)
            }
            Self::NotAllWildcards(token) => ("not using all of the token wildcard(s)", token),
            Self::NotForImport(token) => {
                ("the only mapping function allowed for import transforms is {{Wildcard()}}", token)
            }
        };
        write!(f, "invalid mapping destination: {what} in {token}")
    }
}

impl core::error::Error for TransformError {}

/// One token of a destination. Numbers of tokens count from 0 in the source.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<[u8]>),
    /// The rest, from the source's `>`.
    Rest,
    Token(usize),
    /// Of these tokens; none: of the whole subject.
    Partition(u32, Vec<usize>),
    Random(u32),
    Split(usize, Box<[u8]>),
    SplitFromLeft(usize, usize),
    SplitFromRight(usize, usize),
    SliceFromLeft(usize, usize),
    SliceFromRight(usize, usize),
    Left(usize, usize),
    Right(usize, usize),
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transform {
    source: Box<[u8]>,
    parts: Vec<Part>,
}

impl Transform {
    /// From `source`, a pattern, to `destination`.
    ///
    /// # Errors
    /// See [`TransformError`].
    pub fn new(source: &str, destination: &str, purpose: Purpose) -> Result<Self, TransformError> {
        let stars: Vec<usize> = tokens(source.as_bytes())
            .enumerate()
            .filter(|(_, token)| *token == b"*")
            .map(|(index, _)| index)
            .collect();
        let rest = |subject: &str| tokens(subject.as_bytes()).next_back() == Some(b">");
        let star = destination.split('.').any(|token| token == "*");
        let is_blank = |token: &str| {
            token.contains(|c: char| c.is_ascii_whitespace()) && inside_braces(token).is_none()
        };
        let is_valid =
            super::is_valid(destination.as_bytes()) && !destination.split('.').any(is_blank);
        if purpose == Purpose::Mapping && !is_valid && super::is_valid(source.as_bytes()) {
            return Err(TransformError::InvalidTransform);
        }
        if !super::is_valid(source.as_bytes())
            || !is_valid
            || star
            || rest(source) != rest(destination)
        {
            return Err(TransformError::InvalidSubject);
        }
        let has_wildcards = !stars.is_empty() || rest(source);
        let mut used = 0;
        let mut parts = Vec::new();
        for token in destination.split('.') {
            let call = if token == ">" { Call::Rest } else { Call::read(token)? };
            if purpose == Purpose::Import
                && !matches!(call, Call::Literal | Call::Rest | Call::Wildcard(_))
            {
                return Err(TransformError::NotForImport(token.into()));
            }
            if !has_wildcards && call.needs_wildcard() {
                return Err(TransformError::IndexOutOfRange(token.into(), None));
            }
            let mut place = |index: i64| {
                used += 1;
                let at = usize::try_from(index).ok().and_then(|index| index.checked_sub(1));
                // As nats-server: below 1 is the first token.
                let Some(at) = at else { return Ok(0) };
                let found = stars.get(at).copied();
                found.ok_or_else(|| TransformError::IndexOutOfRange(token.into(), Some(index)))
            };
            parts.push(match call {
                Call::Literal => Part::Literal(token.as_bytes().into()),
                Call::Rest => Part::Rest,
                Call::Wildcard(index) => Part::Token(place(index)?),
                // As nats-server: of a source without wildcards it hashes nothing.
                Call::Partition(count, _) if !has_wildcards => {
                    let number = Fnv::default().0.checked_rem(count).unwrap_or(0);
                    Part::Literal(itoa::Buffer::new().format(number).as_bytes().into())
                }
                Call::Partition(count, indices) => {
                    let places: Result<_, _> = indices.into_iter().map(place).collect();
                    Part::Partition(count, places?)
                }
                Call::Random(count) => Part::Random(count),
                Call::Split(index, delimiter) => Part::Split(place(index)?, delimiter),
                Call::Cut(make, index, count) => make(place(index)?, count),
            });
        }
        if purpose == Purpose::Import && used < stars.len() {
            return Err(TransformError::NotAllWildcards(destination.into()));
        }
        Ok(Self { source: source.as_bytes().into(), parts })
    }

    /// The one that changes nothing.
    ///
    /// # Errors
    /// `source` is no valid pattern.
    pub fn same(source: &str) -> Result<Self, TransformError> {
        if !super::is_valid(source.as_bytes()) {
            return Err(TransformError::InvalidSubject);
        }
        let parts = tokens(source.as_bytes()).enumerate().map(|(index, token)| match token {
            b">" => Part::Rest,
            b"*" => Part::Token(index),
            token => Part::Literal(token.into()),
        });
        Ok(Self { source: source.as_bytes().into(), parts: parts.collect() })
    }

    /// What it is for.
    pub fn source(&self) -> &[u8] {
        &self.source
    }

    /// Appends the new subject to `out`; `random` gives a number below the one it is given.
    /// `false`, and nothing appended, if the source does not match.
    pub fn apply(&self, subject: &[u8], random: impl FnMut(u32) -> u32, out: &mut Vec<u8>) -> bool {
        if !matches(subject, &self.source) {
            return false;
        }
        self.write(subject, random, out);
        true
    }

    /// As [`Self::apply`] for a pattern that is a subset of the source, for an import: its
    /// wildcards go where literals would.
    pub fn apply_to_pattern(&self, pattern: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(pattern, |_| 0, &mut out);
        out
    }

    fn write(&self, subject: &[u8], mut random: impl FnMut(u32) -> u32, out: &mut Vec<u8>) {
        let token = |index: usize| tokens(subject).nth(index).unwrap_or_default();
        let mut digits = itoa::Buffer::new();
        for (at, part) in self.parts.iter().enumerate() {
            if at > 0 {
                out.push(b'.');
            }
            match part {
                Part::Literal(text) => out.extend_from_slice(text),
                Part::Rest => {
                    let before = tokens(&self.source).count().saturating_sub(1);
                    join(tokens(subject).skip(before), out);
                }
                Part::Token(index) => out.extend_from_slice(token(*index)),
                Part::Partition(count, indices) => {
                    let mut hash = Fnv::default();
                    if indices.is_empty() {
                        hash.add(subject);
                    }
                    for index in indices {
                        hash.add(token(*index));
                    }
                    let number = hash.0.checked_rem(*count).unwrap_or(0);
                    out.extend_from_slice(digits.format(number).as_bytes());
                }
                Part::Random(count) => {
                    let number = if *count == 0 { 0 } else { random(*count) };
                    out.extend_from_slice(digits.format(number).as_bytes());
                }
                Part::Split(index, delimiter) => split(token(*index), delimiter, out),
                Part::SplitFromLeft(index, count) => cut(token(*index), *count, out),
                Part::SplitFromRight(index, count) => {
                    let token = token(*index);
                    cut(token, token.len().saturating_sub(*count), out);
                }
                Part::SliceFromLeft(index, count) => slice(token(*index), *count, 0, out),
                Part::SliceFromRight(index, count) => {
                    let token = token(*index);
                    slice(token, *count, token.len().checked_rem(*count).unwrap_or(0), out);
                }
                // None at all is all of them, as in nats-server.
                Part::Left(index, 0) | Part::Right(index, 0) => {
                    out.extend_from_slice(token(*index));
                }
                Part::Left(index, count) => {
                    let token = token(*index);
                    out.extend_from_slice(token.get(..*count).unwrap_or(token));
                }
                Part::Right(index, count) => {
                    let token = token(*index);
                    let start = token.len().saturating_sub(*count);
                    out.extend_from_slice(token.get(start..).unwrap_or(token));
                }
            }
        }
    }

    /// The way back, of a transform for an import.
    pub fn reverse(&self) -> Option<Self> {
        let source = self.destination_pattern();
        let mut parts = Vec::new();
        for (index, token) in tokens(&self.source).enumerate() {
            parts.push(match token {
                b">" => Part::Rest,
                b"*" => {
                    Part::Token(self.parts.iter().position(|part| *part == Part::Token(index))?)
                }
                token => Part::Literal(token.into()),
            });
        }
        Some(Self { source: source.into(), parts })
    }

    /// All subjects that can come out, as a pattern.
    pub fn destination_pattern(&self) -> Vec<u8> {
        let tokens = self.parts.iter().map(|part| match part {
            Part::Literal(text) => &**text,
            Part::Rest => b">",
            _ => b"*",
        });
        let mut out = Vec::new();
        join(tokens, &mut out);
        out
    }

    /// Does it always give the same subject?
    pub fn is_literal(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Literal(_)))
            && !has_wildcard(&self.source)
    }
}

fn join<'a>(tokens: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
    for (index, token) in tokens.enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        out.extend_from_slice(token);
    }
}

/// Parts between delimiters, empty ones left out; without a delimiter every character.
fn split(token: &[u8], delimiter: &[u8], out: &mut Vec<u8>) {
    if delimiter.is_empty() {
        let mut buffer = [0; 4];
        let mut at_start = true;
        for chunk in token.utf8_chunks() {
            let valid = chunk.valid().chars();
            let bytes = chunk.invalid().chunks(1);
            for part in valid.map(Ok).chain(bytes.map(Err)) {
                if !core::mem::take(&mut at_start) {
                    out.push(b'.');
                }
                match part {
                    Ok(c) => out.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes()),
                    Err(byte) => out.extend_from_slice(byte),
                }
            }
        }
        return;
    }
    let start = out.len();
    let mut rest = token;
    loop {
        let at = memchr::memmem::find(rest, delimiter);
        let (part, after) = match at.and_then(|at| rest.split_at_checked(at)) {
            Some((part, after)) => (part, after.get(delimiter.len()..)),
            None => (rest, None),
        };
        if !part.is_empty() {
            if out.len() > start {
                out.push(b'.');
            }
            out.extend_from_slice(part);
        }
        let Some(after) = after else { return };
        rest = after;
    }
}

/// A dot after the first `count` bytes, if that leaves something on both sides.
fn cut(token: &[u8], count: usize, out: &mut Vec<u8>) {
    match token.split_at_checked(count) {
        Some((left, right)) if !left.is_empty() && !right.is_empty() => {
            join([left, right].into_iter(), out);
        }
        _ => out.extend_from_slice(token),
    }
}

/// A dot after every `count` bytes, the first `first` bytes apart.
fn slice(token: &[u8], count: usize, first: usize, out: &mut Vec<u8>) {
    if count == 0 || count >= token.len() {
        out.extend_from_slice(token);
        return;
    }
    let (head, rest) = token.split_at_checked(first).unwrap_or((&[], token));
    let head = (!head.is_empty()).then_some(head);
    join(head.into_iter().chain(rest.chunks(count)), out);
}

/// FNV-1a of 32 bits, as partitions are counted everywhere.
struct Fnv(u32);

impl Default for Fnv {
    fn default() -> Self {
        Self(0x811c_9dc5)
    }
}

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }
}

/// A token of a destination as it is written. Wildcards count from 1.
enum Call {
    Literal,
    Rest,
    Wildcard(i64),
    Partition(u32, Vec<i64>),
    Random(u32),
    Split(i64, Box<[u8]>),
    Cut(fn(usize, usize) -> Part, i64, usize),
}

impl Call {
    fn read(token: &str) -> Result<Self, TransformError> {
        if let Some(digits) = token.strip_prefix('$') {
            // What else begins with a $ stays as it is.
            return Ok(digits.parse().map_or(Self::Literal, Self::Wildcard));
        }
        let Some(call) = inside_braces(token) else { return Ok(Self::Literal) };
        let unknown = || TransformError::UnknownFunction(token.into());
        let (name, arguments) = call.split_once('(').ok_or_else(unknown)?;
        let arguments = arguments.strip_suffix(')').ok_or_else(unknown)?;
        let name = name.trim_end();
        // A blank before an argument does not belong to it, one behind it does.
        let arguments: Vec<&str> = if arguments.trim().is_empty() {
            Vec::new()
        } else {
            arguments.split(',').map(str::trim_start).collect()
        };
        let invalid = || TransformError::InvalidArgument(token.into());
        let take = |least: usize, most: usize| {
            if arguments.len() < least {
                Err(TransformError::NotEnoughArguments(token.into()))
            } else if arguments.len() > most {
                Err(TransformError::TooManyArguments(token.into()))
            } else {
                Ok(())
            }
        };
        let argument = |at: usize| arguments.get(at).copied().unwrap_or_default();
        let index = |at: usize| argument(at).trim().parse::<i64>().map_err(|_| invalid());
        let count = |at: usize| argument(at).trim().parse::<i32>().map_err(|_| invalid());
        let cut = |make: fn(usize, usize) -> Part| {
            take(2, 2)?;
            // Below 0 is 0, which leaves the token as it is.
            let count = usize::try_from(count(1)?).unwrap_or(0);
            Ok(Self::Cut(make, index(0)?, count))
        };
        let is = |words: &[&str]| is_name(name, words);
        if is(&["wildcard"]) {
            take(1, 1)?;
            Ok(Self::Wildcard(index(0)?))
        } else if is(&["partition"]) {
            let indices: Result<Vec<i64>, _> = (1..arguments.len()).map(index).collect();
            // Counts are 32 bits without sign, whatever is written.
            Ok(Self::Partition(count(0)?.cast_unsigned(), indices?))
        } else if is(&["random"]) {
            if arguments.len() > 1 {
                return Err(TransformError::NotEnoughArguments(token.into()));
            }
            Ok(Self::Random(u32::try_from(count(0)?).unwrap_or(0)))
        } else if is(&["split"]) {
            take(2, 2)?;
            let delimiter = argument(1);
            if delimiter.contains([' ', '.']) {
                return Err(invalid());
            }
            Ok(Self::Split(index(0)?, delimiter.as_bytes().into()))
        } else if is(&["split", "from", "left"]) {
            cut(Part::SplitFromLeft)
        } else if is(&["split", "from", "right"]) {
            cut(Part::SplitFromRight)
        } else if is(&["slice", "from", "left"]) {
            cut(Part::SliceFromLeft)
        } else if is(&["slice", "from", "right"]) {
            cut(Part::SliceFromRight)
        } else if is(&["left"]) {
            cut(Part::Left)
        } else if is(&["right"]) {
            cut(Part::Right)
        } else {
            Err(unknown())
        }
    }

    /// Does it name a wildcard that must be there?
    fn needs_wildcard(&self) -> bool {
        match self {
            Self::Literal | Self::Rest | Self::Random(_) | Self::Partition(..) => false,
            Self::Wildcard(_) | Self::Split(..) | Self::Cut(..) => true,
        }
    }
}

/// What stands between the braces of a function.
fn inside_braces(token: &str) -> Option<&str> {
    let is_call = token.len() > 4 && token.starts_with("{{") && token.ends_with("}}");
    is_call.then(|| token.trim_start_matches('{').trim_end_matches('}').trim())
}

/// Is it these words, each with a small or a capital letter at its start?
fn is_name(name: &str, words: &[&str]) -> bool {
    let mut rest = name;
    for word in words {
        let Some((found, after)) = rest.split_at_checked(word.len()) else { return false };
        let same_end = found.as_bytes().get(1..) == word.as_bytes().get(1..);
        if !same_end || !found.eq_ignore_ascii_case(word) {
            return false;
        }
        rest = after;
    }
    rest.is_empty()
}

/// The destination with its `*`s as `$1`, `$2` …, as imports may write them.
pub fn tokenized(destination: &str) -> String {
    let mut wildcards = 0;
    let mut out = String::with_capacity(destination.len() + 4);
    for (at, token) in destination.split('.').enumerate() {
        if at > 0 {
            out.push('.');
        }
        if token == "*" {
            wildcards += 1;
            let _ = write!(out, "${wildcards}");
        } else {
            out.push_str(token);
        }
    }
    out
}

/// The pattern with its `$1` and `{{wildcard(1)}}` as `*`.
pub fn untokenized(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    for (at, token) in pattern.split('.').enumerate() {
        if at > 0 {
            out.push('.');
        }
        let is_wildcard = matches!(Call::read(token), Ok(Call::Wildcard(_)));
        out.push_str(if is_wildcard { "*" } else { token });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    fn mapped(source: &str, destination: &str, subject: &str) -> String {
        let transform = Transform::new(source, destination, Purpose::Mapping).unwrap();
        let mut out = Vec::new();
        if transform.apply(subject.as_bytes(), |below| below - 1, &mut out) {
            String::from_utf8(out).unwrap()
        } else {
            String::new()
        }
    }

    #[test]
    fn each_function_gives_what_nats_server_gives() {
        for (source, destination, subject, expected) in [
            ("w.*.*", "w2.{{wildcard(2)}}.$1", "w.a.b", "w2.b.a"),
            ("w.*", "w", "w.a", "w"),
            ("w.*", "$x.$1", "w.a", "$x.a"),
            ("full.>", "newfull.>", "full.a.b", "newfull.a.b"),
            ("full.*.>", "x.>.", "full.a", ""),
            ("p.*", "p.{{partition(10,1)}}", "p.abc", "p.1"),
            ("p.*", "p.{{ Partition( 10 , 1 ) }}", "p.hello", "p.3"),
            ("x.*.*", "{{partition(5,2,1)}}", "x.a.b", "3"),
            ("p0.*.*", "{{partition(5)}}", "p0.a.b", "2"),
            ("p", "{{partition(0)}}.{{random(3)}}", "p", "0.2"),
            ("s.*", "{{split(1,-)}}", "s.-abc-def--ghi-", "abc.def.ghi"),
            ("s.*", "{{splitfromleft(1,3)}}", "s.abcdefg", "abc.defg"),
            ("s.*", "{{SplitFromLeft(1,7)}}", "s.abcdefg", "abcdefg"),
            ("s.*", "{{splitfromright(1,3)}}", "s.abcdefg", "abcd.efg"),
            ("s.*", "{{slicefromleft(1,2)}}", "s.abcdefg", "ab.cd.ef.g"),
            ("s.*", "{{slicefromright(1,2)}}", "s.abcdefg", "a.bc.de.fg"),
            ("s.*", "{{left(1,2)}}.{{right(1,3)}}", "s.abcdefg", "ab.efg"),
            ("s.*", "{{left(1,9)}}", "s.abc", "abc"),
            // What nobody would write, and nats-server takes all the same.
            ("s.*", "{{split(1,)}}", "s.a-c", "a.-.c"),
            ("s.*", "{{split(1,ab)}}", "s.xxabyyab", "xx.yy"),
            ("s.*", "{{split(0,-)}}", "s.a-b", "s"),
            ("s.*", "{{partition(10,1,1)}}", "s.abc", "5"),
            ("s.*", "{{partition(-1,1)}}", "s.abc", "440920331"),
            ("a.b", "{{partition(1000000,7)}}", "a.b", "136261"),
            ("s.*", "{{random(-1)}}", "s.abc", "0"),
            ("s.*", "{{left(1,0)}}.{{right(1,-1)}}", "s.abc", "abc.abc"),
            ("s.*", "{{slicefromleft(1,0)}}", "s.abc", "abc"),
            ("s.*", "{{slicefromright(1,4)}}", "s.abcdef", "ab.cdef"),
            ("s.*", "$0.{{}}.$.$1x.{{x", "s.abc", "s.{{}}.$.$1x.{{x"),
            ("s.*", "{{{wildcard(1)}}}", "s.abc", "abc"),
        ] {
            if destination.ends_with('.') {
                assert!(Transform::new(source, destination, Purpose::Mapping).is_err());
            } else {
                assert_eq!(mapped(source, destination, subject), expected, "{destination}");
            }
        }
        assert_eq!(mapped("a.*", "b.$1", "c.d"), "");
    }

    #[test]
    fn mistakes_have_the_words_of_nats_server() {
        let bad = "invalid mapping destination: ";
        for (source, destination, purpose, expected) in [
            ("a.*", "b.*", Purpose::Mapping, "invalid subject"),
            ("a.>", "b", Purpose::Mapping, "invalid subject"),
            ("a.*", "{{foo(1)}}", Purpose::Mapping, "unknown function in {{foo(1)}}"),
            ("a.*", "$2", Purpose::Mapping, "wildcard index out of range in $2: [2]"),
            ("a", "$1", Purpose::Mapping, "wildcard index out of range in $1"),
            ("a", "b..c", Purpose::Mapping, "invalid transform"),
            ("a.*", "b c.$1", Purpose::Mapping, "invalid transform"),
            ("a.*", "b..c.$1", Purpose::Import, "invalid subject"),
            (
                "a.*",
                "{{SPLITFROMLEFT(1,2)}}",
                Purpose::Mapping,
                "unknown function in {{SPLITFROMLEFT(1,2)}}",
            ),
            ("a.*", "{{partition 10}}", Purpose::Mapping, "unknown function in {{partition 10}}"),
            (
                "a.*",
                "{{wildcard()}}",
                Purpose::Mapping,
                "not enough arguments passed to the function in {{wildcard()}}",
            ),
            (
                "a.*",
                "{{random(1,2)}}",
                Purpose::Mapping,
                "not enough arguments passed to the function in {{random(1,2)}}",
            ),
            (
                "a.*",
                "{{partition()}}",
                Purpose::Mapping,
                "function argument is invalid or in the wrong format in {{partition()}}",
            ),
            (
                "a.*",
                "{{split(1, - )}}",
                Purpose::Mapping,
                "function argument is invalid or in the wrong format in {{split(1, - )}}",
            ),
            (
                "a.*",
                "{{split(1)}}",
                Purpose::Mapping,
                "not enough arguments passed to the function in {{split(1)}}",
            ),
            (
                "a.*",
                "{{wildcard(1,2)}}",
                Purpose::Mapping,
                "too many arguments passed to the function in {{wildcard(1,2)}}",
            ),
            (
                "a.*",
                "{{partition(x,1)}}",
                Purpose::Mapping,
                "function argument is invalid or in the wrong format in {{partition(x,1)}}",
            ),
            ("a.*.*", "b.$1", Purpose::Import, "not using all of the token wildcard(s) in b.$1"),
            (
                "a.*",
                "{{left(1,2)}}",
                Purpose::Import,
                "the only mapping function allowed for import transforms is {{Wildcard()}} in \
                 {{left(1,2)}}",
            ),
        ] {
            let error = format!("{}", Transform::new(source, destination, purpose).unwrap_err());
            assert_eq!(error.strip_prefix(bad).unwrap_or(&error), expected, "{destination}");
        }
    }

    #[test]
    fn an_import_has_a_way_back() {
        let there = Transform::new("priv.*.x.*.>", "my.$2.$1.>", Purpose::Import).unwrap();
        assert_eq!(there.destination_pattern(), b"my.*.*.>");
        let back = there.reverse().unwrap();
        let mut out = Vec::new();
        assert!(back.apply(b"my.b.a.c.d", |_| 0, &mut out));
        assert_eq!(out, b"priv.a.x.b.c.d");
        assert_eq!(back.apply_to_pattern(b"my.*.a.c.>"), b"priv.a.x.*.c.>");
    }
}
