//! What is wrong with a configuration, and where.
//!
//! Owns positions and the text of a mistake. Does not decide what is one: the parser and
//! the reader do, and both collect instead of stopping at the first.
//!
//! # Invariants
//! - Lines and columns count from 1; columns count characters.
//! - A message never holds the value of a secret.

use std::fmt;
use std::rc::Rc;

/// Mistakes reported of one configuration; more than a screen of them helps nobody.
pub const MISTAKES_MAX: usize = 50;

/// A place in a configuration file, or on the command line (`line` 0).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file as the user named it, includes with their directory.
    pub file: Rc<str>,
    /// Counted from 1.
    pub line: u32,
    /// In characters, counted from 1.
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(f, "{}", self.file)
        } else {
            write!(f, "{}:{}:{}", self.file, self.line, self.column)
        }
    }
}

/// One thing to mend: where it is, what is wrong, which bound holds, what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where to look.
    pub place: Place,
    /// What happened and what to write instead.
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// All mistakes of one configuration, in the order of the text. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// A list that stops growing at [`MISTAKES_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Collected(Vec<Mistake>);

impl Collected {
    pub(crate) fn add(&mut self, place: Place, what: impl Into<String>) {
        if self.0.len() < MISTAKES_MAX {
            self.0.push(Mistake { place, what: what.into() });
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= MISTAKES_MAX
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn into_vec(self) -> Vec<Mistake> {
        self.0
    }
}

/// The candidate most like `word`, if one is near enough to be what was meant.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // A third of the letters may be wrong; beyond that a suggestion misleads.
    let allowed = (word.chars().count() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edit distance in which a swap of two neighbours counts once. Words longer than any key
/// are cut, so that a megabyte of key costs nothing.
fn distance(a: &str, b: &str) -> usize {
    const LETTERS_MAX: usize = 64;
    let a: Vec<char> = a.chars().take(LETTERS_MAX).collect();
    let b: Vec<char> = b.chars().take(LETTERS_MAX).collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &y) in b.iter().enumerate() {
            let mut best = (last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && x == b[j - 1] && a[i - 1] == y {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_the_key_meant() {
        let keys = ["max_payload", "max_pending", "port", "host", "debug"];
        for (typed, meant) in [
            ("max_payloda", Some("max_payload")),
            ("maxpayload", Some("max_payload")),
            ("prot", Some("port")),
            ("hots", Some("host")),
            ("debgu", Some("debug")),
            ("zebra", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, keys), meant, "{typed}");
        }
    }

    #[test]
    fn mistakes_stop_at_the_bound() {
        let mut collected = Collected::default();
        let place = Place { file: "f".into(), line: 1, column: 1 };
        for _ in 0..MISTAKES_MAX + 10 {
            collected.add(place.clone(), "wrong");
        }
        assert!(collected.is_full());
        assert_eq!(collected.into_vec().len(), MISTAKES_MAX);
    }
}
