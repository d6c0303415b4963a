//! What a page is asked for: the parameters of a URL, or the JSON of a service request.
//!
//! Owns their syntax and the texts about wrong ones, which are nats-server's. Does not own
//! what they mean.
//!
//! Source: seen from nats-server 2.15.1.

use serde_json::{Map, Value};

/// Parameters of one request.
#[derive(Debug, Default)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

/// A wrong parameter: the text to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadQuery(pub String);

/// Parameters looked at, at most; a URL has a bounded length anyway.
const PAIRS_MAX: usize = 64;

impl Query {
    /// From the part of a URL after `?`. What cannot be decoded is left out, as Go does.
    pub fn from_url(text: &str) -> Self {
        let pairs = text
            .split('&')
            .filter(|pair| !pair.is_empty() && !pair.contains(';'))
            .take(PAIRS_MAX)
            .filter_map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                Some((decoded(key)?, decoded(value)?))
            })
            .collect();
        Self { pairs }
    }

    /// From the options of a service request: `names` gives the parameter for a member.
    pub fn from_json(fields: &Map<String, Value>, names: &[(&str, &str)]) -> Self {
        let mut pairs = Vec::new();
        for (field, parameter) in names {
            let text = match fields.get(*field) {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Bool(flag)) => flag.to_string(),
                Some(Value::Number(number)) => number.to_string(),
                _ => continue,
            };
            pairs.push(((*parameter).to_owned(), text));
        }
        Self { pairs }
    }

    /// Sets a parameter over what was asked.
    pub fn set(&mut self, key: &str, value: &str) {
        self.pairs.retain(|(known, _)| known != key);
        self.pairs.push((key.to_owned(), value.to_owned()));
    }

    /// The first value of a parameter, empty if it is not there.
    pub fn text(&self, key: &str) -> &str {
        self.pairs.iter().find(|(known, _)| known == key).map_or("", |(_, value)| value)
    }

    /// A switch; off if it is not there.
    pub fn flag(&self, key: &str) -> Result<bool, BadQuery> {
        let text = self.text(key);
        match text {
            "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            _ => Err(bad("boolean", key, "ParseBool", text, "invalid syntax")),
        }
    }

    /// A whole number; 0 if it is not there.
    pub fn int(&self, key: &str) -> Result<i64, BadQuery> {
        let text = self.text(key);
        if text.is_empty() {
            return Ok(0);
        }
        number::<i64>(text).map_err(|why| bad("int", key, "Atoi", text, why))
    }

    /// A whole number that is not negative; 0 if it is not there.
    pub fn uint(&self, key: &str) -> Result<u64, BadQuery> {
        let text = self.text(key);
        if text.is_empty() {
            return Ok(0);
        }
        if text.starts_with('+') {
            return Err(bad("uint64", key, "ParseUint", text, "invalid syntax"));
        }
        number::<u64>(text).map_err(|why| bad("uint64", key, "ParseUint", text, why))
    }

    /// `offset` and `limit`, with nats-server's default.
    pub fn page(&self) -> Result<(usize, usize), BadQuery> {
        let offset = usize::try_from(self.int("offset")?.max(0)).unwrap_or(usize::MAX);
        let limit = self.int("limit")?;
        let limit = if limit <= 0 { 1024 } else { usize::try_from(limit).unwrap_or(usize::MAX) };
        Ok((offset, limit))
    }
}

fn number<T: std::str::FromStr<Err = std::num::ParseIntError>>(text: &str) -> Result<T, &str> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    text.parse().map_err(|error: std::num::ParseIntError| match error.kind() {
        PosOverflow | NegOverflow => "value out of range",
        _ => "invalid syntax",
    })
}

fn bad(kind: &str, key: &str, function: &str, text: &str, why: &str) -> BadQuery {
    let quoted = crate::broker::quoted(text.as_bytes());
    BadQuery(format!(
        "Error decoding {kind} for '{key}': strconv.{function}: parsing {quoted}: {why}"
    ))
}

/// `%XX` and `+` undone; `None` for what is not UTF-8 text.
fn decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let value = digit(bytes.next())? * 16 + digit(bytes.next())?;
                u8::try_from(value).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_the_first_of_a_name_holds() {
        let query = Query::from_url("a=x%3e+y&a=z&b&c=%zz&d;e=1&=5");
        assert_eq!(query.text("a"), "x> y");
        assert_eq!((query.text("b"), query.text("c"), query.text("d;e")), ("", "", ""));
    }

    #[test]
    fn wrong_values_give_the_texts_of_go() {
        let query = Query::from_url("f=maybe&n=abc&m=99999999999999999999&u=-1");
        let text = |result: Result<(), BadQuery>| result.unwrap_err().0;
        assert_eq!(
            text(query.flag("f").map(drop)),
            "Error decoding boolean for 'f': strconv.ParseBool: parsing \"maybe\": invalid syntax"
        );
        assert_eq!(
            text(query.int("n").map(drop)),
            "Error decoding int for 'n': strconv.Atoi: parsing \"abc\": invalid syntax"
        );
        assert_eq!(
            text(query.int("m").map(drop)),
            "Error decoding int for 'm': strconv.Atoi: parsing \"99999999999999999999\": \
             value out of range"
        );
        assert!(text(query.uint("u").map(drop)).contains("ParseUint: parsing \"-1\""));
    }

    #[test]
    fn a_limit_that_is_none_is_the_default() {
        for (text, page) in
            [("", (0, 1024)), ("limit=-1&offset=-5", (0, 1024)), ("limit=3&offset=2", (2, 3))]
        {
            assert_eq!(Query::from_url(text).page().unwrap(), page);
        }
    }
}
