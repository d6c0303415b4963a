//! Users known by their TLS certificate (`verify_and_map`).
//!
//! Owns which configured user a certificate stands for. Does not own the certificate
//! ([`Certificate`]), which TLS has verified before anybody asks here.
//!
//! # Invariants
//! - A certificate stands for a user whose name is one of its names as a whole; a common
//!   name alone never does.
//!
//! Source: NATS docs, "TLS Authentication", "Mapping client certificates to a user"; RFC 4514.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::certificate::{Certificate, Rdn};
use crate::sorted;

/// The order in which the subject is written, last first, when it is compared as a text.
const TEXT_ORDER: [&str; 9] =
    ["SERIALNUMBER", "CN", "POSTALCODE", "STREET", "ST", "L", "OU", "O", "C"];

/// Kinds of attribute a user's name may have to be taken as a distinguished name.
const KINDS: [&str; 10] =
    ["CN", "SERIALNUMBER", "C", "L", "ST", "STREET", "O", "OU", "POSTALCODE", "DC"];

impl Certificate {
    /// The user this certificate stands for, of those in `users`. The first that fits: e-mail
    /// addresses, DNS names, URIs; then the subject with its parts in the same order, in any
    /// order, and as a text.
    pub fn user<'a>(&self, users: &(impl Iterator<Item = &'a str> + Clone)) -> Option<&'a str> {
        let names = self.emails.iter().chain(&self.dns_names).chain(&self.uris);
        for name in names {
            if let Some(user) = users.clone().find(|user| *user == name.as_str()) {
                return Some(user);
            }
        }
        let parsed = users.clone().filter_map(|user| Some((user, parse(user)?)));
        let ours: Vec<Rdn> = self.subject.clone();
        if let Some((user, _)) = parsed.clone().find(|(_, theirs)| same(theirs, &ours)) {
            return Some(user);
        }
        if let Some((user, _)) = parsed.clone().find(|(_, theirs)| sorted(theirs) == sorted(&ours))
        {
            return Some(user);
        }
        let text = self.subject_as_go();
        let mut domain = String::new();
        for (_, value) in self.subject.iter().flatten().filter(|(kind, _)| kind == "DC") {
            domain.push_str(",DC=");
            domain.push_str(value);
        }
        let with_domain = format!("{text}{domain}");
        users
            .clone()
            .find(|user| !domain.is_empty() && *user == with_domain)
            .or_else(|| users.clone().find(|user| !text.is_empty() && *user == text))
    }

    /// The subject as `CN=device,OU=Eng,O=Acme,C=US`, for logs and for comparing.
    pub fn subject_as_go(&self) -> String {
        let mut parts: Vec<String> = Vec::new();
        for kind in TEXT_ORDER {
            let values: Vec<String> = self
                .subject
                .iter()
                .flatten()
                .filter(|(other, _)| other == kind)
                .map(|(_, value)| format!("{kind}={}", escaped(value)))
                .collect();
            if !values.is_empty() {
                parts.push(values.join("+"));
            }
        }
        parts.join(",")
    }
}

/// The characters that separate parts get a backslash.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for (at, character) in value.char_indices() {
        let edge = at == 0 || at + 1 == value.len();
        let special = matches!(character, ',' | '+' | '"' | '\\' | '<' | '>' | ';')
            || (character == ' ' && edge)
            || (character == '#' && at == 0);
        if special {
            out.push('\\');
        }
        out.push(character);
    }
    out
}

fn same(theirs: &[Rdn], ours: &[Rdn]) -> bool {
    theirs.len() == ours.len()
        && theirs.iter().zip(ours).all(|(a, b)| {
            let (mut a, mut b) = (a.clone(), b.clone());
            sorted::sort(&mut a);
            sorted::sort(&mut b);
            a == b
        })
}

fn sorted(name: &[Rdn]) -> Vec<Rdn> {
    let mut name = name.to_vec();
    for part in &mut name {
        sorted::sort(part);
    }
    sorted::sort(&mut name);
    name
}

/// Reads `CN=device, O=Acme`. `None` if it is no distinguished name.
fn parse(text: &str) -> Option<Vec<Rdn>> {
    let mut name: Vec<Rdn> = Vec::new();
    let mut rest = text;
    let mut joined = false;
    loop {
        let (kind, after) = rest.split_once('=')?;
        let kind = kind.trim().to_ascii_uppercase();
        if !KINDS.contains(&kind.as_str()) {
            return None;
        }
        let mut value = String::new();
        let mut end = after.len();
        let mut characters = after.char_indices();
        let mut separator = None;
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => value.push(characters.next()?.1),
                ',' | '+' | ';' => {
                    separator = Some(character);
                    end = at;
                    break;
                }
                other => value.push(other),
            }
        }
        let attribute = (kind, value.trim().into());
        match name.last_mut() {
            Some(last) if joined => last.push(attribute),
            _ => name.push(alloc::vec![attribute]),
        }
        let Some(separator) = separator else { return Some(name) };
        joined = separator == '+';
        rest = after.get(end + 1..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(parts: &[(&str, &str)]) -> Vec<Rdn> {
        parts.iter().map(|(kind, value)| alloc::vec![((*kind).into(), (*value).into())]).collect()
    }

    fn device() -> Certificate {
        Certificate {
            emails: alloc::vec!["a@acme.com".into()],
            dns_names: alloc::vec!["device.acme.com".into()],
            uris: alloc::vec!["spiffe://acme/device".into()],
            subject: attributes(&[("C", "US"), ("O", "Acme"), ("OU", "Eng"), ("CN", "device")]),
            ..Certificate::default()
        }
    }

    #[test]
    fn names_are_tried_in_order() {
        for (users, expected) in [
            (&["device.acme.com", "a@acme.com"][..], Some("a@acme.com")),
            (&["spiffe://acme/device", "device.acme.com"], Some("device.acme.com")),
            (
                &["spiffe://acme/device", "CN=device,OU=Eng,O=Acme,C=US"],
                Some("spiffe://acme/device"),
            ),
            (&["CN=device,OU=Eng,O=Acme,C=US"], Some("CN=device,OU=Eng,O=Acme,C=US")),
            (&["o=Acme, cn=device, c=US, ou=Eng"], Some("o=Acme, cn=device, c=US, ou=Eng")),
            (
                &["CN=device,OU=Eng,O=Acme,C=US", "C=US,O=Acme,OU=Eng,CN=device"],
                Some("C=US,O=Acme,OU=Eng,CN=device"),
            ),
            (&["device", "CN=device", "cn=device,o=acme", "CN=Device,OU=Eng,O=Acme,C=US"], None),
            (&[""], None),
        ] {
            assert_eq!(device().user(&users.iter().copied()), expected, "{users:?}");
        }
    }

    #[test]
    fn a_name_cannot_smuggle_in_parts_of_another() {
        let sly = Certificate {
            subject: attributes(&[("CN", "admin,O=Acme")]),
            ..Certificate::default()
        };
        assert_eq!(sly.subject_as_go(), "CN=admin\\,O=Acme");
        assert_eq!(sly.user(&["CN=admin,O=Acme"].into_iter()), None);
        assert_eq!(sly.user(&["CN=admin\\,O=Acme"].into_iter()), Some("CN=admin\\,O=Acme"));
    }

    #[test]
    fn domain_components_are_part_of_the_name() {
        let subject = attributes(&[("DC", "com"), ("DC", "acme"), ("CN", "d")]);
        let certificate = Certificate { subject, ..Certificate::default() };
        for user in ["DC=com,DC=acme,CN=d", "CN=d,DC=acme,DC=com", "CN=d,DC=com,DC=acme"] {
            assert_eq!(certificate.user(&[user].into_iter()), Some(user));
        }
        assert_eq!(certificate.subject_as_go(), "CN=d");
    }

    #[test]
    fn an_empty_certificate_stands_for_nobody() {
        let users = ["", "CN=", "CN=a"];
        assert_eq!(Certificate::default().user(&users.into_iter()), None);
    }
}
