//! Subjects and filters: validity, matching, subset and collision.
//!
//! Owns the rules of tokens and wildcards, and the mapping of one subject to another
//! ([`transform`]). Does not own interest: which subscription wants a subject is
//! `broker::interest`.
//!
//! Subjects travel as byte slices, because a client may publish any bytes but blanks and
//! line ends; [`Filter`] is the parsed form of a pattern that was checked once.
//!
//! # Invariants
//! - Nothing here allocates but [`Filter::parse`] and [`overlap`]; nothing recurses.
//! - `*` and `>` are wildcards only as whole tokens: `foo*` and `a>` are literal text.
//!
//! Source: NATS docs, "Subject-Based Messaging"; ADR-6 (naming rules).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

pub mod transform;

/// The tokens of a subject, in order. An empty subject has one empty token.
pub fn tokens(subject: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> + Clone {
    subject.split(|&byte| byte == b'.')
}

/// Is any whole token `*` or `>`?
pub fn has_wildcard(subject: &[u8]) -> bool {
    memchr::memchr2(b'*', b'>', subject).is_some()
        && tokens(subject).any(|token| token == b"*" || token == b">")
}

/// May a client subscribe to this: no empty token, nothing after `>`?
pub fn is_valid(subject: &[u8]) -> bool {
    let mut after_full_wildcard = false;
    for token in tokens(subject) {
        if token.is_empty() || after_full_wildcard {
            return false;
        }
        after_full_wildcard = token == b">";
    }
    true
}

/// Like [`is_valid`], and free of blanks, line ends and form feeds: the rule for subjects in
/// configurations of streams, consumers and the server.
pub fn is_valid_strict(subject: &[u8]) -> bool {
    is_valid(subject)
        && !subject.iter().any(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0x0c))
}

/// A valid subject without wildcards.
pub fn is_valid_literal(subject: &[u8]) -> bool {
    // One look at each byte is enough for nearly all.
    let (mut token_len, mut may_be_wildcard) = (0_usize, false);
    for &byte in subject {
        if byte == b'.' {
            if token_len == 0 {
                return false;
            }
            token_len = 0;
        } else {
            may_be_wildcard |= matches!(byte, b'*' | b'>');
            token_len += 1;
        }
    }
    token_len > 0 && !(may_be_wildcard && has_wildcard(subject))
}

/// Does `pattern` match the literal `subject`? A wildcard in `subject` is plain text.
pub fn matches(subject: &[u8], pattern: &[u8]) -> bool {
    let mut ours = tokens(subject);
    for theirs in tokens(pattern) {
        match (ours.next(), theirs) {
            (None, _) => return false,
            (Some(_), b">") => return true,
            (Some(_), b"*") => {}
            (Some(token), theirs) => {
                if token != theirs {
                    return false;
                }
            }
        }
    }
    ours.next().is_none()
}

/// Is every literal that `inner` matches also matched by `outer`?
pub fn is_subset(inner: &[u8], outer: &[u8]) -> bool {
    let mut inner = tokens(inner);
    for theirs in tokens(outer) {
        #[expect(clippy::match_same_arms, reason = "the order of the arms matters")]
        match (inner.next(), theirs) {
            (None, _) => return false,
            (Some(_), b">") => return true,
            (Some(b">"), _) => return false,
            (Some(_), b"*") => {}
            // A `*` of ours is no literal of theirs.
            (Some(token), theirs) => {
                if token != theirs {
                    return false;
                }
            }
        }
    }
    inner.next().is_none()
}

/// Is there a literal that both patterns match?
pub fn collides(a: &[u8], b: &[u8]) -> bool {
    let mut ours = tokens(a);
    let mut theirs = tokens(b);
    loop {
        match (ours.next(), theirs.next()) {
            (None, None) | (Some(b">"), Some(_)) | (Some(_), Some(b">")) => return true,
            (None, _) | (_, None) => return false,
            (Some(b"*"), Some(_)) | (Some(_), Some(b"*")) => {}
            (Some(x), Some(y)) => {
                if x != y {
                    return false;
                }
            }
        }
    }
}

/// The pattern of all literals that both patterns match. `None`: there are none.
pub fn overlap(a: &[u8], b: &[u8]) -> Option<Vec<u8>> {
    let (mut ours, mut theirs) = (tokens(a), tokens(b));
    let mut both: Vec<u8> = Vec::with_capacity(a.len().max(b.len()));
    loop {
        let (token, rest) = match (ours.next(), theirs.next()) {
            (None, None) => return Some(both),
            (Some(b">"), Some(token)) => (token, Some(theirs.clone())),
            (Some(token), Some(b">")) => (token, Some(ours.clone())),
            (Some(b"*"), Some(token)) | (Some(token), Some(b"*")) => (token, None),
            (Some(x), Some(y)) if x == y => (x, None),
            (None, Some(_)) | (Some(_), None | Some(_)) => return None,
        };
        if !both.is_empty() {
            both.push(b'.');
        }
        both.extend_from_slice(token);
        if let Some(rest) = rest {
            for token in rest {
                both.push(b'.');
                both.extend_from_slice(token);
            }
            return Some(both);
        }
    }
}

/// A checked pattern: valid, possibly with wildcards.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Filter(Box<[u8]>);

/// The text is not a valid subject: an empty token, a blank, or something after `>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidSubject;

impl fmt::Display for InvalidSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid subject")
    }
}

impl Filter {
    /// Checks `text` by [`is_valid_strict`].
    pub fn parse(text: &[u8]) -> Result<Self, InvalidSubject> {
        if is_valid_strict(text) { Ok(Self(text.into())) } else { Err(InvalidSubject) }
    }

    /// The pattern as it was written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Does this pattern match the literal `subject`?
    pub fn matches(&self, subject: &[u8]) -> bool {
        matches(subject, &self.0)
    }

    /// Has this pattern no wildcard, so that it matches one subject only?
    pub fn is_literal(&self) -> bool {
        !has_wildcard(&self.0)
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overlap_of_two_patterns_matches_what_both_do() {
        let words = ["a", "b", "*", ">"];
        let pattern = |mut number: usize| {
            let mut parts = Vec::new();
            for _ in 0..=number % 3 {
                number /= 3;
                parts.push(words[number % 4]);
                number /= 4;
            }
            parts.join(".")
        };
        let literals = ["a", "b", "a.a", "a.b", "b.a", "a.a.b", "b.a.b", "a.b.b", "a.b.a.a"];
        for x in (0..2000).map(pattern).filter(|text| is_valid(text.as_bytes())) {
            for y in (0..400).map(pattern).filter(|text| is_valid(text.as_bytes())) {
                let both = overlap(x.as_bytes(), y.as_bytes());
                assert_eq!(both.is_some(), collides(x.as_bytes(), y.as_bytes()), "{x} {y}");
                for literal in literals.map(str::as_bytes) {
                    let expected = matches(literal, x.as_bytes()) && matches(literal, y.as_bytes());
                    let got = both.as_ref().is_some_and(|both| matches(literal, both));
                    assert_eq!(got, expected, "{x} {y}");
                }
            }
        }
    }

    #[test]
    fn wildcards_match_whole_tokens_only() {
        for (subject, pattern, expected) in [
            ("a.b", "a.b", true),
            ("a.b", "a.*", true),
            ("a.b", ">", true),
            ("a", "a.>", false),
            ("a.b.c", "a.*", false),
            ("a.b.c", "a.>", true),
            ("foobar", "foo*", false),
            ("foo.*", "foo.*", true),
            ("a.b", "a.b.c", false),
        ] {
            assert_eq!(
                matches(subject.as_bytes(), pattern.as_bytes()),
                expected,
                "{subject} against {pattern}"
            );
        }
    }

    #[test]
    fn subset_and_collision_agree_with_matching_on_small_alphabets() {
        let words: &[&[u8]] = &[b"a", b"b", b"*", b">"];
        let mut patterns: alloc::vec::Vec<alloc::vec::Vec<u8>> = alloc::vec::Vec::new();
        for first in words {
            patterns.push(first.to_vec());
            for second in words {
                patterns.push([first, &b"."[..], second].concat());
                for third in words {
                    patterns.push([first, &b"."[..], second, b".", third].concat());
                }
            }
        }
        patterns.retain(|pattern| is_valid(pattern));
        let mut literals: alloc::vec::Vec<alloc::vec::Vec<u8>> =
            patterns.iter().filter(|pattern| !has_wildcard(pattern)).cloned().collect();
        // Longer than any pattern, and a token that no pattern names: what `>` and `*` alone match.
        for base in literals.clone() {
            literals.push([&base[..], b".c"].concat());
            literals.push([&b"c."[..], &base].concat());
        }
        literals.push(b"c".to_vec());
        for x in &patterns {
            for y in &patterns {
                let both = literals.iter().any(|l| matches(l, x) && matches(l, y));
                assert_eq!(collides(x, y), both, "collides({x:?}, {y:?})");
                if is_subset(x, y) {
                    assert!(literals.iter().all(|l| !matches(l, x) || matches(l, y)));
                }
            }
        }
    }

    #[test]
    fn subjects_with_empty_tokens_or_text_after_the_full_wildcard_are_invalid() {
        for bad in ["", ".a", "a.", "a..b", ">.a", "a.>.b"] {
            assert!(!is_valid(bad.as_bytes()), "{bad}");
        }
        for good in ["a", "a.*", "a.>", "*", ">", "foo*bar.>"] {
            assert!(is_valid(good.as_bytes()), "{good}");
        }
    }
}
