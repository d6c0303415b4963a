//! Reading a certificate: the names in it and its fingerprints.
//!
//! Owns the walk through the DER. Does not own trust: rustls has verified the certificate,
//! or nobody asked to.
//!
//! Source: RFC 5280, 4.1 and 4.2.1.6; RFC 4514, 3 for the names of types.

use std::fmt::Write as _;

use der::asn1::{AnyRef, GeneralizedTime, ObjectIdentifier, UtcTime};
use der::{Decode, Reader, SliceReader, Tag, TagNumber, Tagged};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;
use sha2::{Digest, Sha256};

use crate::auth::certificate::{Certificate, Rdn};
use crate::time::Timestamp;

const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");

/// The types of names that have a short form.
const TYPES: [(ObjectIdentifier, &str); 10] = [
    (ObjectIdentifier::new_unwrap("2.5.4.3"), "CN"),
    (ObjectIdentifier::new_unwrap("2.5.4.5"), "SERIALNUMBER"),
    (ObjectIdentifier::new_unwrap("2.5.4.6"), "C"),
    (ObjectIdentifier::new_unwrap("2.5.4.7"), "L"),
    (ObjectIdentifier::new_unwrap("2.5.4.8"), "ST"),
    (ObjectIdentifier::new_unwrap("2.5.4.9"), "STREET"),
    (ObjectIdentifier::new_unwrap("2.5.4.10"), "O"),
    (ObjectIdentifier::new_unwrap("2.5.4.11"), "OU"),
    (ObjectIdentifier::new_unwrap("2.5.4.17"), "POSTALCODE"),
    (ObjectIdentifier::new_unwrap("0.9.2342.19200300.100.1.25"), "DC"),
];

/// The names in a certificate. What cannot be read is left out.
pub fn parse(der: &[u8]) -> Certificate {
    let mut certificate = Certificate { sha256: fingerprint(der), ..Certificate::default() };
    // A certificate rustls has taken is readable; of another one its fingerprint is enough.
    let _ = walk(der, &mut certificate);
    certificate
}

/// Is `certificate` for this name?
pub(super) fn is_for(certificate: Option<&CertificateDer<'_>>, name: &ServerName<'_>) -> bool {
    certificate
        .and_then(|der| ParsedCertificate::try_from(der).ok())
        .is_some_and(|parsed| rustls::client::verify_server_name(&parsed, name).is_ok())
}

/// When a certificate ends; `None`: it cannot be read.
pub(super) fn not_after(der: &[u8]) -> Option<Timestamp> {
    let whole = AnyRef::from_der(der).ok()?;
    let tbs: AnyRef<'_> = SliceReader::new(whole.value()).ok()?.decode().ok()?;
    let mut fields = SliceReader::new(tbs.value()).ok()?;
    let skipped = if is_context(fields.peek_tag().ok()?, 0) { 4 } else { 3 };
    for _ in 0..skipped {
        fields.decode::<AnyRef<'_>>().ok()?;
    }
    let validity: AnyRef<'_> = fields.decode().ok()?;
    let mut times = SliceReader::new(validity.value()).ok()?;
    times.decode::<AnyRef<'_>>().ok()?;
    let at = if times.peek_tag().ok()? == Tag::UtcTime {
        times.decode::<UtcTime>().ok()?.to_unix_duration()
    } else {
        times.decode::<GeneralizedTime>().ok()?.to_unix_duration()
    };
    i64::try_from(at.as_nanos()).ok().map(Timestamp)
}

fn walk(der: &[u8], out: &mut Certificate) -> der::Result<()> {
    let whole = AnyRef::from_der(der)?;
    let tbs: AnyRef<'_> = SliceReader::new(whole.value())?.decode()?;
    let mut fields = SliceReader::new(tbs.value())?;
    // The version may be left out; serial number, algorithm, issuer and validity follow.
    let skipped = if is_context(fields.peek_tag()?, 0) { 5 } else { 4 };
    for _ in 0..skipped {
        fields.decode::<AnyRef<'_>>()?;
    }
    let subject: AnyRef<'_> = fields.decode()?;
    out.subject = read_name(subject.value())?;
    out.spki_sha256 = fingerprint(fields.tlv_bytes()?);
    while !fields.is_finished() {
        let field: AnyRef<'_> = fields.decode()?;
        if is_context(field.tag(), 3) {
            extensions(AnyRef::from_der(field.value())?.value(), out)?;
        }
    }
    Ok(())
}

fn is_context(tag: Tag, wanted: u8) -> bool {
    matches!(tag, Tag::ContextSpecific { number, .. } if number == TagNumber::new(wanted))
}

/// A sequence of sets of pairs.
fn read_name(der: &[u8]) -> der::Result<Vec<Rdn>> {
    let mut name = Vec::new();
    let mut rdns = SliceReader::new(der)?;
    while !rdns.is_finished() {
        let set: AnyRef<'_> = rdns.decode()?;
        let mut rdn = Rdn::new();
        let mut pairs = SliceReader::new(set.value())?;
        while !pairs.is_finished() {
            let pair: AnyRef<'_> = pairs.decode()?;
            let mut pair = SliceReader::new(pair.value())?;
            let kind: ObjectIdentifier = pair.decode()?;
            let raw = pair.tlv_bytes()?;
            let value = AnyRef::from_der(raw)?;
            let short = TYPES.iter().find(|(oid, _)| *oid == kind);
            let kind = short.map_or_else(|| kind.to_string(), |(_, text)| (*text).to_owned());
            rdn.push((kind, text(value).unwrap_or_else(|| format!("#{}", hexadecimal(raw)))));
        }
        name.push(rdn);
    }
    Ok(name)
}

/// The text of a string, of whichever kind.
fn text(value: AnyRef<'_>) -> Option<String> {
    let bytes = value.value();
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String => {
            String::from_utf8(bytes.to_vec()).ok()
        }
        Tag::TeletexString => Some(bytes.iter().map(|&byte| char::from(byte)).collect()),
        Tag::BmpString => {
            let units = bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair));
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        _ => None,
    }
}

fn extensions(der: &[u8], out: &mut Certificate) -> der::Result<()> {
    let mut extensions = SliceReader::new(der)?;
    while !extensions.is_finished() {
        let extension: AnyRef<'_> = extensions.decode()?;
        let mut fields = SliceReader::new(extension.value())?;
        if fields.decode::<ObjectIdentifier>()? != SUBJECT_ALT_NAME {
            continue;
        }
        let mut value: AnyRef<'_> = fields.decode()?;
        if value.tag() == Tag::Boolean {
            // `critical`.
            value = fields.decode()?;
        }
        let names = AnyRef::from_der(value.value())?;
        let mut names = SliceReader::new(names.value())?;
        while !names.is_finished() {
            let name: AnyRef<'_> = names.decode()?;
            let Ok(text) = String::from_utf8(name.value().to_vec()) else { continue };
            if is_context(name.tag(), 1) {
                out.emails.push(text);
            } else if is_context(name.tag(), 2) {
                out.dns_names.push(text);
            } else if is_context(name.tag(), 6) {
                out.uris.push(text);
            }
        }
    }
    Ok(())
}

fn fingerprint(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// Lower-case digits.
pub fn hexadecimal(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `O=acme/OU=dev/DC=x/CN=client` with an e-mail address, two DNS names and a URI, made
    /// by openssl.
    const CLIENT: &str = "MIIB4TCCAYigAwIBAgIUEIoOpl3ulU1gvZoSubc00i4WSr0wCgYIKoZIzj0EAwIwDTELMAkGA1UEAwwCY2Ew\
        HhcNMjYxMTI0MTMzOTQzWhcNMjYxMTI2MTMzOTQzWjBBMQ0wCwYDVQQKDARhY21lMQwwCgYDVQQLDANkZXYx\
        ETAPBgoJkiaJk/IsZAEZFgF4MQ8wDQYDVQQDDAZjbGllbnQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATZ\
        3xgZGZHt1OHmzlt0piIdIfhj+GT7aDGQ6nkgxzkZAuZmcUiNq9vtcrFBcdfTZlC/M28xOrqX8AVfelQSEpBL\
        o4GRMIGOMEwGA1UdEQRFMEOCC2NsaWVudC5hY21lgQ9jbGllbnRAYWNtZS5jb22CB2MyLmFjbWWGFHNwaWZm\
        ZTovL2FjbWUvY2xpZW50hwQBAgMEMB0GA1UdDgQWBBRrOthZnpU1lx5/dFrJBD2ODeATLjAfBgNVHSMEGDAW\
        gBR0OD94prMiGPmSCKPbK/EIE/MpVzAKBggqhkjOPQQDAgNHADBEAiBzv+Qq5ICwc2jqXrjnZk3p4WmKEJYK\
        y4JKoNkkVfhHeQIgNZUIr7ifKyzOVOO4OmOpU8wDG/qBA0VBHxrLu59FV+E=";

    #[test]
    fn names_and_fingerprints_are_read() {
        let der = data_encoding::BASE64.decode(CLIENT.as_bytes()).unwrap();
        let certificate = parse(&der);
        assert_eq!(not_after(&der).unwrap().to_string(), "2026-11-26T13:39:43Z");
        assert_eq!(certificate.emails, ["client@acme.com"]);
        assert_eq!(certificate.dns_names, ["client.acme", "c2.acme"]);
        assert_eq!(certificate.uris, ["spiffe://acme/client"]);
        assert_eq!(certificate.subject_text(), "CN=client,DC=x,OU=dev,O=acme");
        assert_eq!(
            certificate.sha256,
            "2df347f5e7ad65d8253155b16a3eb14cafbdd0f3b44a3831de4e608a0d9dc1ba"
        );
        assert_eq!(
            certificate.spki_sha256,
            "ea8c8aebc7754486734e9adb3e6b738b526e037f4b790b88ab82df5e90866442"
        );
    }

    #[test]
    fn any_bytes_give_at_least_a_fingerprint() {
        let der = data_encoding::BASE64.decode(CLIENT.as_bytes()).unwrap();
        for at in 0..der.len() {
            assert_eq!(parse(&der[..at]).sha256.len(), 64);
            not_after(&der[..at]);
            let mut broken = der.clone();
            broken[at] ^= 0xff;
            assert_eq!(parse(&broken).sha256.len(), 64);
            not_after(&broken);
        }
    }
}
