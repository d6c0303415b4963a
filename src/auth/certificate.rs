//! What a client's certificate says of who it is.
//!
//! Owns the names and fingerprints, as text. Does not own reading or verifying a
//! certificate (the shell does both), nor the choice of a user by it.

use alloc::string::String;
use alloc::vec::Vec;

/// A certificate a peer showed. TLS has verified it if the listener verifies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// E-mail addresses, DNS names and URIs among the subject's alternative names, each in
    /// the order of the certificate.
    pub emails: Vec<String>,
    /// See `emails`.
    pub dns_names: Vec<String>,
    /// See `emails`.
    pub uris: Vec<String>,
    /// The subject in the order of the certificate. Text that is no string of letters is
    /// `#` and its DER in hexadecimal digits.
    pub subject: Vec<Rdn>,
    /// SHA-256 of the subject's public key information and of the whole, in lower-case
    /// hexadecimal digits.
    pub spki_sha256: String,
    /// See `spki_sha256`.
    pub sha256: String,
}

/// One relative distinguished name: types (`CN`, `O`, `DC` …, else the digits of the object
/// identifier) and values. Nearly always one pair.
pub type Rdn = Vec<(String, String)>;

impl Certificate {
    /// The subject as RFC 2253 writes it, the last name first: `CN=client,OU=dev,O=acme`.
    pub fn subject_text(&self) -> String {
        let mut out = String::new();
        for rdn in self.subject.iter().rev() {
            if !out.is_empty() {
                out.push(',');
            }
            for (number, (kind, value)) in rdn.iter().enumerate() {
                if number > 0 {
                    out.push('+');
                }
                out.push_str(kind);
                out.push('=');
                escape(&mut out, value);
            }
        }
        out
    }
}

/// As RFC 2253, 2.4.
fn escape(out: &mut String, value: &str) {
    let last = value.chars().count().saturating_sub(1);
    for (at, character) in value.chars().enumerate() {
        let special = match character {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => true,
            ' ' => at == 0 || at == last,
            '#' => at == 0 && !is_hexadecimal(value),
            _ => false,
        };
        if special {
            out.push('\\');
        }
        out.push(character);
    }
}

/// `#` and digits: a value that had no text.
fn is_hexadecimal(value: &str) -> bool {
    value.strip_prefix('#').is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn a_subject_is_written_last_name_first_with_escapes() {
        let pair = |kind: &str, value: &str| vec![(kind.into(), value.into())];
        let certificate = Certificate {
            subject: vec![pair("O", "a, b"), pair("OU", " x "), pair("CN", "client")],
            ..Certificate::default()
        };
        assert_eq!(certificate.subject_text(), r"CN=client,OU=\ x\ ,O=a\, b");
    }
}
