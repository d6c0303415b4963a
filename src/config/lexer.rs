//! The words of the configuration language.
//!
//! Owns characters, positions, quoting, numbers and comments. Does not own structure: what
//! may follow what is the parser's affair, and so is the meaning of a variable. The
//! language is not context free (a `#` starts a comment where a key may stand and is text
//! inside a value), so the parser asks for what it expects instead of reading a token
//! list.
//!
//! # Invariants
//! - Every call either consumes a character, reports the end or reports an error; a loop
//!   of calls over `n` bytes ends after at most `n` of them.
//! - No recursion.
//!
//! Source: the nats-server configuration documentation, checked against nats-server 2.15.

use super::mistake::Place;
use std::rc::Rc;

/// Longest file, in bytes; a gateway's is a few kilobytes.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;

/// Longest key, bare or quoted, in bytes.
pub const KEY_BYTES_MAX: usize = 256;

/// A syntax error: where, and what was expected.
pub(crate) type LexError = (Place, String);

/// What stands where a key may stand.
#[derive(Debug, PartialEq)]
pub(crate) enum KeyToken {
    /// A key, bare or quoted.
    Key { text: String, quoted: bool },
    /// `}`.
    Close,
    /// The end of the text.
    End,
}

/// What stands where a value may stand.
#[derive(Debug, PartialEq)]
pub(crate) enum ValueToken {
    /// Text: bare, quoted or a block. `bare` text may turn out to be a boolean.
    Text { text: String, bare: bool },
    /// A whole number, its suffix applied. `source` is what was written.
    Integer { value: i64, source: String },
    /// A number with a decimal point.
    Float(f64),
    /// `2006-01-02T15:04:05Z`.
    Date(String),
    /// `$NAME`.
    Variable(String),
    /// `{`.
    MapOpen,
    /// `[`.
    ArrayOpen,
    /// `]`, which is only right inside an array.
    ArrayClose,
}

/// What follows a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Terminator {
    /// A new line, `;`, `,` or a comment.
    Next,
    /// A closing bracket, consumed.
    Close,
    /// The end of the text.
    End,
}

/// A reading position in one text.
#[derive(Debug)]
pub(crate) struct Lexer<'a> {
    text: &'a str,
    offset: usize,
    file: Rc<str>,
    line: u32,
    column: u32,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(text: &'a str, file: Rc<str>) -> Self {
        // Editors on Windows put a byte order mark first; it is not part of a key.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self { text, offset: 0, file, line: 1, column: 1 }
    }

    /// Where the next character is.
    pub(crate) fn place(&self) -> Place {
        Place { file: self.file.clone(), line: self.line, column: self.column }
    }

    /// Is this the very end, but for blanks and comments?
    pub(crate) fn at_end(&mut self) -> bool {
        self.skip_to_content();
        self.peek().is_none()
    }

    /// Consumes `wanted` if it is the next character after blanks, new lines and comments.
    pub(crate) fn accept(&mut self, wanted: char) -> bool {
        self.skip_to_content();
        if self.peek() == Some(wanted) {
            self.bump();
            return true;
        }
        false
    }

    /// Moves to where reading can go on after an error: the next line, or before the
    /// bracket that closes what is being read if that comes first.
    pub(crate) fn recover(&mut self, closing: Option<char>) {
        let mut opened = 0_usize;
        while let Some(c) = self.peek() {
            match c {
                '}' | ']' if opened > 0 => opened -= 1,
                c if Some(c) == closing => return,
                '{' | '[' => opened += 1,
                _ => {}
            }
            self.bump();
            if c == '\n' {
                return;
            }
        }
    }

    fn skip_line(&mut self) {
        self.take_while(|c| c != '\n');
    }

    /// The next key, `}` or the end.
    pub(crate) fn key(&mut self) -> Result<(KeyToken, Place), LexError> {
        self.skip_to_content();
        let place = self.place();
        let (text, quoted) = match self.peek() {
            None => return Ok((KeyToken::End, place)),
            Some('}') => {
                self.bump();
                return Ok((KeyToken::Close, place));
            }
            Some(quote @ ('"' | '\'')) => {
                self.bump();
                let mut text = String::new();
                loop {
                    match self.bump() {
                        Some(c) if c == quote => break,
                        Some('\n') | None => {
                            return Err((place, format!("this key has no closing {quote}")));
                        }
                        Some(c) => text.push(c),
                    }
                }
                (text, true)
            }
            Some(c @ (':' | '=' | ',' | ';' | ']' | '{' | '[')) => {
                return Err((place, format!("expected a key and found '{c}'")));
            }
            Some(_) => {
                (self.take_while(|c| !is_blank(c) && c != '\n' && c != ':' && c != '='), false)
            }
        };
        if text.len() > KEY_BYTES_MAX {
            return Err((place, format!("a key of {} bytes; at most {KEY_BYTES_MAX}", text.len())));
        }
        Ok((KeyToken::Key { text, quoted }, place))
    }

    /// Steps over what separates a key from its value: blanks, and one `:` or `=`. Without
    /// such a sign the value may stand on a later line; with it only inside a block
    /// (`nested`), as in nats-server.
    pub(crate) fn separator(&mut self, key: &str, nested: bool) -> Result<(), LexError> {
        self.take_while(|c| is_blank(c) || c == '\n');
        if let Some(':' | '=') = self.peek() {
            self.bump();
            self.take_while(|c| is_blank(c) || (nested && c == '\n'));
            if let Some('\n') = self.peek() {
                return Err((
                    self.place(),
                    format!("\"{key}\" has no value on its line; write it after the sign"),
                ));
            }
        }
        match self.peek() {
            Some(';' | ',' | '}') | None => {
                Err((self.place(), format!("\"{key}\" has no value; write \"\" for an empty one")))
            }
            Some(_) => Ok(()),
        }
    }

    /// Does a path follow the word `include`? With a `:` or `=` behind it, the word is an
    /// ordinary key.
    pub(crate) fn include_follows(&mut self) -> bool {
        self.peek().is_none_or(|c| c != ':' && c != '=')
    }

    /// The path after `include`.
    pub(crate) fn include_path(&mut self) -> Result<(String, Place), LexError> {
        self.skip_blanks();
        let place = self.place();
        let path = match self.peek() {
            Some(quote @ ('"' | '\'')) => {
                self.bump();
                let path = self.take_while(|c| c != quote && c != '\n');
                if self.bump() != Some(quote) {
                    return Err((place, format!("this path has no closing {quote}")));
                }
                path
            }
            _ => self.take_while(|c| !is_blank(c) && !matches!(c, '\n' | ';' | '}')),
        };
        if path.is_empty() || matches!(path.chars().next(), Some('(' | '[' | '{')) {
            return Err((place, "include needs the path of a file".into()));
        }
        Ok((path, place))
    }

    /// Steps to the next element of an array, over new lines and comments.
    pub(crate) fn skip_to_element(&mut self) {
        self.skip_to_content();
    }

    /// The start of a value, or all of it unless it is a map or an array.
    pub(crate) fn value(&mut self) -> Result<(ValueToken, Place), LexError> {
        let place = self.place();
        let token = match self.peek() {
            None => return Err((place, "expected a value and found the end of the file".into())),
            Some('{') => self.single(ValueToken::MapOpen),
            Some('[') => self.single(ValueToken::ArrayOpen),
            Some(']') => self.single(ValueToken::ArrayClose),
            Some(c @ (',' | ';' | '}')) => {
                return Err((place, format!("expected a value and found '{c}'")));
            }
            Some('\'') => {
                self.bump();
                let text = self.take_while(|c| c != '\'');
                if self.bump().is_none() {
                    return Err((place, "this text has no closing '".into()));
                }
                ValueToken::Text { text, bare: false }
            }
            Some('"') => {
                self.bump();
                let text = self.escaped(&place, true)?;
                ValueToken::Text { text, bare: false }
            }
            Some('(') => {
                self.bump();
                ValueToken::Text { text: self.block(&place)?, bare: false }
            }
            // A bcrypt hash, which nats-server takes as text only in this spelling.
            Some('$') if self.rest().starts_with("$2a$") => {
                ValueToken::Text { text: self.take_while(is_bare), bare: false }
            }
            Some('$') => {
                self.bump();
                let name = self.take_while(is_bare);
                if name.is_empty() {
                    return Err((place, "'$' needs the name of a variable".into()));
                }
                ValueToken::Variable(name)
            }
            Some('.') => {
                return Err((place, "a number needs a digit before its point".into()));
            }
            Some('0'..='9' | '-') => self.number(&place)?,
            Some(_) => {
                let text = self.escaped(&place, false)?;
                ValueToken::Text { text, bare: true }
            }
        };
        Ok((token, place))
    }

    /// What ends a pair (`closing` is `}`) or an element (`]`).
    pub(crate) fn terminator(&mut self, closing: char) -> Result<Terminator, LexError> {
        self.skip_blanks();
        match self.peek() {
            None => Ok(Terminator::End),
            Some('\n' | ',') => {
                self.bump();
                Ok(Terminator::Next)
            }
            Some(';') if closing == '}' => {
                self.bump();
                Ok(Terminator::Next)
            }
            Some('#') => Ok(Terminator::Next),
            Some('/') if self.rest().starts_with("//") => Ok(Terminator::Next),
            Some(c) if c == closing => {
                self.bump();
                Ok(Terminator::Close)
            }
            Some(c) => Err((
                self.place(),
                format!("expected a new line, ',' or '{closing}' after the value, found '{c}'"),
            )),
        }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.offset..).unwrap_or("")
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.offset += c.len_utf8();
        if c == '\n' {
            self.line = self.line.saturating_add(1);
            self.column = 1;
        } else {
            self.column = self.column.saturating_add(1);
        }
        Some(c)
    }

    fn single(&mut self, token: ValueToken) -> ValueToken {
        self.bump();
        token
    }

    fn take_while(&mut self, mut wanted: impl FnMut(char) -> bool) -> String {
        let start = self.offset;
        while let Some(c) = self.peek() {
            if !wanted(c) {
                break;
            }
            self.bump();
        }
        self.text.get(start..self.offset).unwrap_or("").to_owned()
    }

    fn skip_blanks(&mut self) {
        while let Some(c) = self.peek() {
            if !is_blank(c) {
                break;
            }
            self.bump();
        }
    }

    /// Over blanks, new lines and comments.
    fn skip_to_content(&mut self) {
        loop {
            match self.peek() {
                Some(c) if is_blank(c) || c == '\n' => {
                    self.bump();
                }
                Some('#') => self.skip_line(),
                Some('/') if self.rest().starts_with("//") => self.skip_line(),
                _ => return,
            }
        }
    }

    /// Text with escapes: to the closing `"`, or to the end of a bare word.
    fn escaped(&mut self, start: &Place, quoted: bool) -> Result<String, LexError> {
        // Bytes, because `\x` writes bytes and two of them may make one character.
        let mut bytes = Vec::new();
        loop {
            match self.peek() {
                None if quoted => {
                    return Err((start.clone(), "this text has no closing \"".into()));
                }
                None => break,
                Some('"') if quoted => {
                    self.bump();
                    break;
                }
                Some(c) if !quoted && !is_bare(c) => break,
                Some('\\') => {
                    let place = self.place();
                    self.bump();
                    bytes.push(self.escape(place)?);
                }
                Some(c) => {
                    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    self.bump();
                }
            }
        }
        String::from_utf8(bytes)
            .map_err(|_| (start.clone(), "the \\x escapes of this text are not UTF-8".into()))
    }

    fn escape(&mut self, place: Place) -> Result<u8, LexError> {
        match self.bump() {
            Some('t') => Ok(b'\t'),
            Some('n') => Ok(b'\n'),
            Some('r') => Ok(b'\r'),
            Some('"') => Ok(b'"'),
            Some('\\') => Ok(b'\\'),
            Some('x') => {
                let digits = self.rest().get(..2).unwrap_or("");
                match u8::from_str_radix(digits, 16) {
                    Ok(byte) if !digits.starts_with('+') => {
                        self.bump();
                        self.bump();
                        Ok(byte)
                    }
                    _ => Err((place, "\\x needs two hexadecimal digits".into())),
                }
            }
            found => Err((
                place,
                format!(
                    "'\\{}' is no escape; there are \\xHH \\t \\n \\r \\\" \\\\, or use ' quotes",
                    found.map(String::from).unwrap_or_default()
                ),
            )),
        }
    }

    /// To the `)` that has a line to itself.
    fn block(&mut self, start: &Place) -> Result<String, LexError> {
        let mut text = String::new();
        let mut line_start = false;
        loop {
            match self.bump() {
                None => {
                    return Err((
                        start.clone(),
                        "this block has no closing ) alone at the start of a line".into(),
                    ));
                }
                Some(')') if line_start && matches!(self.peek(), None | Some('\n' | '\r')) => {
                    return Ok(text);
                }
                Some(c) => {
                    line_start = c == '\n';
                    text.push(c);
                }
            }
        }
    }

    /// A number, a date, or text that begins with a digit (`0.0.0.0:4222`, `5s`).
    fn number(&mut self, start: &Place) -> Result<ValueToken, LexError> {
        let source = self.take_while(is_bare);
        let negative = source.starts_with('-');
        let body = source.strip_prefix('-').unwrap_or(&source);
        let fail = |what: &str| Err((start.clone(), what.to_owned()));

        let digits = body.find(|c: char| !c.is_ascii_digit()).unwrap_or(body.len());
        let (whole, tail) = body.split_at(digits);
        if whole.is_empty() {
            return fail("'-' needs a number after it; quote it if it is text");
        }
        if tail.starts_with('-') {
            return if !negative && is_date(body) {
                Ok(ValueToken::Date(source))
            } else {
                fail("a date must be written 2006-01-02T15:04:05Z; quote it if it is text")
            };
        }
        if let Some(fraction) = tail.strip_prefix('.') {
            let digits = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
            if digits == 0 {
                return fail("a number needs a digit after its point; quote it if it is text");
            }
            if digits == fraction.len() {
                return match source.parse() {
                    Ok(value) => Ok(ValueToken::Float(value)),
                    Err(_) => fail("not a number"),
                };
            }
            if fraction[digits..].starts_with('.') {
                return Ok(ValueToken::Text { text: source, bare: false });
            }
            return fail(
                "a number with a point takes no suffix; \
                 quote it if it is text or a duration (\"1.5s\")",
            );
        }
        match multiplier(tail) {
            Some(factor) => {
                let text = if negative { format!("-{whole}") } else { whole.to_owned() };
                match text.parse::<i64>().ok().and_then(|number| number.checked_mul(factor)) {
                    Some(value) => Ok(ValueToken::Integer { value, source }),
                    None => fail("this number is out of range (64 bits)"),
                }
            }
            None if negative => fail("a negative number takes no such suffix; quote the text"),
            None => Ok(ValueToken::Text { text: source, bare: false }),
        }
    }
}

/// May `c` stand in a bare word or number?
fn is_bare(c: char) -> bool {
    !is_blank(c) && !matches!(c, '\n' | ';' | ',' | ']' | '}' | '\'')
}

/// Blanks are these three; other white space is text, as in nats-server.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r')
}

/// What a suffix multiplies by: `k` thousands, `kb`, `ki` and `kib` 1024s.
fn multiplier(suffix: &str) -> Option<i64> {
    let mut letters = suffix.chars().map(|c| c.to_ascii_lowercase());
    let Some(unit) = letters.next() else { return Some(1) };
    let power = match unit {
        'k' => 1,
        'm' => 2,
        'g' => 3,
        't' => 4,
        'p' => 5,
        'e' => 6,
        _ => return None,
    };
    let base: i64 = match (letters.next(), letters.next(), letters.next()) {
        (None, ..) => 1000,
        (Some('b' | 'i'), None, _) | (Some('i'), Some('b'), None) => 1024,
        _ => return None,
    };
    base.checked_pow(power)
}

/// Is this a whole date in the one form the language has?
fn is_date(text: &str) -> bool {
    const SHAPE: &str = "dddd-dd-ddTdd:dd:ddZ";
    let fits = text.len() == SHAPE.len()
        && text.chars().zip(SHAPE.chars()).all(|(c, shape)| match shape {
            'd' => c.is_ascii_digit(),
            sign => c == sign,
        });
    let part = |from: usize, to: usize| -> Option<u8> { text.get(from..to)?.parse().ok() };
    let parts = || {
        let year: i64 = text.get(0..4)?.parse().ok()?;
        let (month, day) = (part(5, 7)?, part(8, 10)?);
        let day_exists = (1..=12).contains(&month)
            && (1..=crate::time::days_in_month(year, month)).contains(&day);
        Some(day_exists && part(11, 13)? < 24 && part(14, 16)? < 60 && part(17, 19)? < 60)
    };
    fits && parts() == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Result<ValueToken, String> {
        Lexer::new(text, "f".into()).value().map(|(token, _)| token).map_err(|(_, what)| what)
    }

    fn text(text: &str) -> ValueToken {
        ValueToken::Text { text: text.into(), bare: false }
    }

    fn bare(text: &str) -> ValueToken {
        ValueToken::Text { text: text.into(), bare: true }
    }

    #[test]
    fn sizes_count_in_thousands_and_in_1024s() {
        for (source, expected) in [
            ("0", 0),
            ("-7", -7),
            ("1k", 1000),
            ("1kb", 1024),
            ("1KiB", 1024),
            ("1ki", 1024),
            ("2m", 2_000_000),
            ("2MB", 2 * 1024 * 1024),
            ("1G", 1_000_000_000),
            ("1gib", 1 << 30),
            ("1e", 1_000_000_000_000_000_000),
            ("-5k", -5000),
        ] {
            assert_eq!(
                value(source),
                Ok(ValueToken::Integer { value: expected, source: source.into() })
            );
        }
        assert!(value("99999999999999999999").is_err());
        assert!(value("9999999999999p").is_err());
    }

    #[test]
    fn what_only_looks_like_a_number_is_text() {
        for source in ["0.0.0.0:4222", "3foo", "1.2.3", "5s", "1h30m", "1kx", "1:2", "1/2", "5#"] {
            assert_eq!(value(source), Ok(text(source)));
        }
    }

    #[test]
    fn broken_numbers_say_so() {
        for source in ["-", "-a", "1.", "1.5k", "-5s", ".5", "1-2", "2006-01-02", "--5"] {
            assert!(value(source).is_err(), "{source}");
        }
        for source in ["2006-13-02T15:04:05Z", "2026-02-29T00:00:00Z", "2026-01-01T00:00:60Z"] {
            assert!(value(source).is_err(), "{source}");
        }
        assert!(matches!(value("2024-02-29T23:59:59Z"), Ok(ValueToken::Date(_))));
        assert!(matches!(value("9999-12-31T23:59:59Z"), Ok(ValueToken::Date(_))));
        assert!(matches!(value("2006-01-02T15:04:05Z"), Ok(ValueToken::Date(_))));
        assert_eq!(value("1.5"), Ok(ValueToken::Float(1.5)));
    }

    #[test]
    fn quoting_and_escapes() {
        assert_eq!(value(r#""a\tb\x41\"\\""#), Ok(text("a\tbA\"\\")));
        assert_eq!(value(r#""\xc3\xa9""#), Ok(text("é")));
        assert!(value(r#""\xff""#).is_err());
        assert!(value(r#""\z""#).is_err());
        assert!(value(r#""\x+1""#).is_err());
        assert_eq!(value(r"'a\zb'"), Ok(text(r"a\zb")));
        assert_eq!(value("a\\tb"), Ok(bare("a\tb")));
        assert_eq!(value("a#b"), Ok(bare("a#b")));
        assert_eq!(value("$2a$11$abc"), Ok(text("$2a$11$abc")));
        assert_eq!(value("$HOME,"), Ok(ValueToken::Variable("HOME".into())));
        assert_eq!(value("(\nabc\n)"), Ok(text("\nabc\n")));
        assert!(value("(\nabc\n )").is_err());
        assert!(value("\"a").is_err());
        assert!(value("'a").is_err());
    }

    #[test]
    fn positions_count_characters_from_one() {
        let mut lexer = Lexer::new("\n  é key: v", "f".into());
        let (_, place) = lexer.key().unwrap();
        assert_eq!((place.line, place.column), (2, 3));
        let (_, place) = lexer.key().unwrap();
        assert_eq!((place.line, place.column), (2, 5));
    }
}
