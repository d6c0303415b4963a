//! Members of a JSON object, by name and type.
//!
//! Owns the tolerances of Go's reader that tokens rely on: what is missing or `null` is the
//! default, what has another type is an error.

use alloc::string::String;
use alloc::vec::Vec;

use serde_json::{Map, Value};

use super::JwtError;

/// An object, or nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fields<'a>(Option<&'a Map<String, Value>>);

impl<'a> Fields<'a> {
    /// Of a value that is an object or `null`.
    ///
    /// # Errors
    /// [`JwtError::Json`] if it is anything else; so do all methods here.
    pub fn of(value: &'a Value) -> Result<Self, JwtError> {
        match value {
            Value::Null => Ok(Self(None)),
            Value::Object(map) => Ok(Self(Some(map))),
            _ => Err(JwtError::Json),
        }
    }

    /// The value, if it is there and not `null`.
    pub fn value(self, name: &str) -> Option<&'a Value> {
        self.0?.get(name).filter(|value| !value.is_null())
    }

    /// Is it there?
    pub fn has(self, name: &str) -> bool {
        self.value(name).is_some()
    }

    fn read<T>(
        self,
        name: &str,
        default: T,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<T, JwtError> {
        self.value(name).map_or(Ok(default), |value| read(value).ok_or(JwtError::Json))
    }

    /// A text; empty if it is missing.
    pub fn text(self, name: &str) -> Result<&'a str, JwtError> {
        self.read(name, "", Value::as_str)
    }

    /// A whole number.
    pub fn int(self, name: &str, default: i64) -> Result<i64, JwtError> {
        self.read(name, default, Value::as_i64)
    }

    /// A switch; off if it is missing.
    pub fn flag(self, name: &str) -> Result<bool, JwtError> {
        self.read(name, false, Value::as_bool)
    }

    /// An object; without members if it is missing.
    pub fn object(self, name: &str) -> Result<Fields<'a>, JwtError> {
        self.value(name).map_or(Ok(Fields(None)), Fields::of)
    }

    /// A list; empty if it is missing.
    pub fn list(self, name: &str) -> Result<&'a [Value], JwtError> {
        self.read(name, &[], |value| value.as_array().map(Vec::as_slice))
    }

    /// A list of texts.
    pub fn texts(self, name: &str) -> Result<Vec<String>, JwtError> {
        let text = |value: &Value| value.as_str().map(String::from).ok_or(JwtError::Json);
        self.list(name)?.iter().map(text).collect()
    }

    /// All members, in the order of their names.
    pub fn members(self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        self.0.into_iter().flatten().map(|(name, value)| (name.as_str(), value))
    }
}
