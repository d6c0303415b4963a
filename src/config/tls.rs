//! `tls` of a listener: clients, WebSocket, the monitoring pages.
//!
//! Owns which certificates, versions, suites and curves are chosen, by their names in Go.
//! Does not own loading keys nor the handshake (`net`), nor `tls` of a remote (`remotes`).
//!
//! Source: the nats-server configuration documentation, checked against nats-server 2.15.

use super::keys::{CERTIFICATE, TLS};
use super::parser::{Node, Value};
use super::read::Reader;
use super::units::{duration, short};
use super::values::set_unless_zero;
use std::path::PathBuf;
use std::time::Duration;

/// `tls { }` of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsServerConfig {
    /// Certificates with their keys, at least one; the name a client asks for chooses.
    pub certificates: Vec<CertificateFiles>,
    /// Authorities that may sign the certificates of clients, PEM; the system's without.
    pub ca_file: Option<PathBuf>,
    /// Ask clients for a certificate and verify it. Default false; true with
    /// `verify_and_map`.
    pub verify: bool,
    /// Who the user is the certificate says. Default false.
    pub verify_and_map: bool,
    /// SHA-256 of the public keys (`SubjectPublicKeyInfo`) clients may have; empty: any.
    pub pinned_certs: Vec<[u8; 32]>,
    /// How long a handshake may take. Default 2 s.
    pub timeout: Duration,
    /// TLS before INFO. Default: INFO comes first.
    pub handshake_first: HandshakeFirst,
    /// Accept TLS 1.3 only. Default false.
    pub tls13_only: bool,
    /// The suites of TLS 1.2 that may be used, best first; `None` is all. TLS 1.3 has its
    /// own, always.
    pub cipher_suites: Option<Vec<CipherSuite>>,
    /// The curves that may be used, best first; `None` is all.
    pub curve_preferences: Option<Vec<Curve>>,
    /// Handshakes in a second; `None` is without limit, the default.
    pub connection_rate_limit: Option<u32>,
}

impl Default for TlsServerConfig {
    fn default() -> Self {
        Self {
            certificates: Vec::new(),
            ca_file: None,
            verify: false,
            verify_and_map: false,
            pinned_certs: Vec::new(),
            timeout: Duration::from_secs(2),
            handshake_first: HandshakeFirst::No,
            tls13_only: false,
            cipher_suites: None,
            curve_preferences: None,
            connection_rate_limit: None,
        }
    }
}

/// A certificate chain and its key, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, our own certificate first.
    pub cert_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
}

/// Who speaks first on a new connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HandshakeFirst {
    /// INFO in plain text, then TLS.
    #[default]
    No,
    /// TLS; INFO after it.
    Yes,
    /// TLS from a client that begins within this time; INFO in plain text then.
    Wait(Duration),
}

/// How long `handshake_first: auto` waits for a client to begin.
const AUTO_WAIT: Duration = Duration::from_millis(50);

/// A suite of TLS 1.2 that is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CipherSuite {
    /// `TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256`.
    EcdsaAes128,
    /// `TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384`.
    EcdsaAes256,
    /// `TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256`.
    EcdsaChaCha20,
    /// `TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256`.
    RsaAes128,
    /// `TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384`.
    RsaAes256,
    /// `TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256`.
    RsaChaCha20,
}

/// A curve for the exchange of keys that is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// `X25519`.
    X25519,
    /// `CurveP256`.
    P256,
    /// `CurveP384`.
    P384,
}

const SUITES: &[(&str, CipherSuite)] = &[
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", CipherSuite::EcdsaAes128),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", CipherSuite::EcdsaAes256),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", CipherSuite::EcdsaChaCha20),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", CipherSuite::EcdsaChaCha20),
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", CipherSuite::RsaAes128),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", CipherSuite::RsaAes256),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", CipherSuite::RsaChaCha20),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", CipherSuite::RsaChaCha20),
];

/// Suites of TLS 1.3, which are always offered, and old ones that Go has and we lack.
const SUITES_WITHOUT_EFFECT: &[&str] = &[
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
];

/// What Go calls insecure.
const SUITES_INSECURE: &[&str] = &[
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
];

const CURVES: &[(&str, Curve)] =
    &[("X25519", Curve::X25519), ("CurveP256", Curve::P256), ("CurveP384", Curve::P384)];

const CURVES_WITHOUT_EFFECT: &[&str] = &["CurveP521", "X25519MLKEM768"];

impl Reader<'_> {
    pub(super) fn tls(&mut self, node: &Node) -> Option<TlsServerConfig> {
        let map = self.map("tls", node)?;
        let mut tls = TlsServerConfig::default();
        let (mut cert_file, mut key_file) = (None, None);
        let mut certificates = None;
        let (mut insecure, mut insecure_suites) = (false, false);
        let mut suites = None;
        for (key, entry) in self.entries(map, &TLS) {
            let node = &entry.node;
            match key {
                "cert_file" => cert_file = Some(self.certificate(key, node)),
                "key_file" => key_file = Some(self.private_key(key, node)),
                "ca_file" => tls.ca_file = self.certificate(key, node),
                "certs" => certificates = Some(self.certificates(node)),
                "verify" => self.flag(key, node, &mut tls.verify),
                "verify_and_map" => self.flag(key, node, &mut tls.verify_and_map),
                "insecure" => self.flag(key, node, &mut insecure),
                "timeout" => set_unless_zero(&mut tls.timeout, self.seconds(key, node)),
                "handshake_first" => tls.handshake_first = self.handshake_first(key, node),
                "pinned_certs" => tls.pinned_certs = self.pins(node),
                "connection_rate_limit" => {
                    // 0 and below are without limit.
                    let value = self.integer(key, node, i64::MIN, i64::MAX).unwrap_or(0);
                    tls.connection_rate_limit =
                        u32::try_from(value).ok().filter(|value| *value > 0);
                }
                "min_version" => tls.tls13_only = self.min_version(node),
                "cipher_suites" => suites = Some(node),
                "allow_insecure_cipher_suites" => self.flag(key, node, &mut insecure_suites),
                "curve_preferences" => tls.curve_preferences = self.curves(node),
                _ => {}
            }
        }
        if let Some(node) = suites {
            tls.cipher_suites = self.suites(node, insecure_suites);
        }
        tls.verify |= tls.verify_and_map;
        match (cert_file, key_file, certificates) {
            (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => self.wrong(
                node,
                "error parsing tls config, cannot combine 'cert_file' option with 'certs' option",
            ),
            (Some(_), None, None) => {
                self.wrong(node, "missing 'key_file' in TLS configuration");
            }
            (None, Some(_), None) => {
                self.wrong(node, "missing 'cert_file' in TLS configuration");
            }
            (Some(cert_file), Some(key_file), None) => {
                tls.certificates.extend(
                    cert_file
                        .zip(key_file)
                        .map(|(cert_file, key_file)| CertificateFiles { cert_file, key_file }),
                );
            }
            (None, None, Some(list)) => {
                tls.certificates = list;
            }
            (None, None, None) => {
                // nats-server starts, and no handshake succeeds.
                self.wrong(node, "tls needs cert_file and key_file");
            }
        }
        Some(tls)
    }

    fn certificate(&mut self, key: &str, node: &Node) -> Option<PathBuf> {
        self.pem(key, node, "BEGIN CERTIFICATE", "certificate")
    }

    fn private_key(&mut self, key: &str, node: &Node) -> Option<PathBuf> {
        self.pem(key, node, "PRIVATE KEY-----", "private key")
    }

    /// A file in PEM form that holds a block of this kind.
    fn pem(&mut self, key: &str, node: &Node, label: &str, what: &str) -> Option<PathBuf> {
        let path = self.path(key, node)?;
        let problem = match self.surroundings.read(&path) {
            Err(reason) => format!("cannot read {}: {reason}", path.display()),
            Ok(bytes) if String::from_utf8_lossy(&bytes).contains(label) => return Some(path),
            Ok(_) => format!("{} holds no {what} in PEM form", path.display()),
        };
        self.wrong(node, format!("{key}: {problem}"));
        None
    }

    fn certificates(&mut self, node: &Node) -> Vec<CertificateFiles> {
        let Value::Array(nodes) = &node.value else {
            self.wrong_kind("certs", node, "a list of { cert_file, key_file }");
            return Vec::new();
        };
        if nodes.is_empty() {
            self.wrong(node, "certs holds no certificate");
        }
        let mut list = Vec::new();
        for node in nodes {
            let Some(map) = self.map("an element of certs", node) else { continue };
            let (mut cert_file, mut key_file) = (None, None);
            for (key, entry) in self.entries(map, &CERTIFICATE) {
                if key == "cert_file" {
                    cert_file = Some(self.certificate(key, &entry.node));
                } else {
                    key_file = Some(self.private_key(key, &entry.node));
                }
            }
            match cert_file.zip(key_file) {
                Some((cert_file, key_file)) => list.extend(
                    cert_file
                        .zip(key_file)
                        .map(|(cert_file, key_file)| CertificateFiles { cert_file, key_file }),
                ),
                None => self.wrong(
                    node,
                    "error parsing certificates config: both 'cert_file' and 'key_file' options \
                     are required",
                ),
            }
        }
        list
    }

    fn handshake_first(&mut self, key: &str, node: &Node) -> HandshakeFirst {
        match &node.value {
            Value::Bool(true) => HandshakeFirst::Yes,
            Value::Bool(false) => HandshakeFirst::No,
            Value::Text(text) if matches!(text.as_str(), "auto" | "auto_fallback") => {
                HandshakeFirst::Wait(AUTO_WAIT)
            }
            Value::Text(text) => match duration(text) {
                Ok(wait) => HandshakeFirst::Wait(wait),
                Err(_) => {
                    let text = short(text);
                    self.wrong(
                        node,
                        format!(
                            "field {key:?}'s value {text:?} is invalid; true, false, \"auto\" or \
                             a duration"
                        ),
                    );
                    HandshakeFirst::No
                }
            },
            _ => {
                self.wrong_kind(key, node, "true, false, \"auto\" or a duration");
                HandshakeFirst::No
            }
        }
    }

    fn min_version(&mut self, node: &Node) -> bool {
        let Value::Text(text) = &node.value else {
            self.wrong_kind("min_version", node, "\"1.2\" or \"1.3\" in quotes");
            return false;
        };
        match text.as_str() {
            "1.2" => false,
            "1.3" => true,
            "1.0" | "1.1" => {
                self.wrong(
                    node,
                    format!("error parsing tls config: unsupported TLS version: TLS {text}"),
                );
                false
            }
            _ => {
                let text = short(text);
                self.wrong(
                    node,
                    format!(
                        "error parsing tls config: unknown version: {text}; \"1.2\" or \"1.3\""
                    ),
                );
                false
            }
        }
    }

    fn pins(&mut self, node: &Node) -> Vec<[u8; 32]> {
        let Value::Array(nodes) = &node.value else {
            self.wrong(
                node,
                "error parsing tls config, expected 'pinned_certs' to be a list of hex-encoded \
                 sha256 of DER encoded SubjectPublicKeyInfo",
            );
            return Vec::new();
        };
        let mut pins = Vec::new();
        for node in nodes {
            let Some(text) = self.text("pinned_certs", node) else { continue };
            let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes());
            match bytes.ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) {
                Some(pin) => pins.push(pin),
                None => {
                    let text = short(&text);
                    self.wrong(
                        node,
                        format!(
                            "error parsing tls config, 'pinned_certs' key {text} does not look \
                             like hex-encoded sha256 of DER encoded SubjectPublicKeyInfo"
                        ),
                    );
                }
            }
        }
        pins
    }

    fn suites(&mut self, node: &Node, allow_insecure: bool) -> Option<Vec<CipherSuite>> {
        let names = self.names_of(node, "cipher_suites")?;
        let mut suites = Vec::new();
        let mut is_useful = false;
        for (name, node) in names {
            let is_any = |list: &[&str]| list.iter().any(|known| known.eq_ignore_ascii_case(&name));
            let known = SUITES.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name));
            if let Some((_, suite)) = known {
                suites.push(*suite);
                is_useful = true;
            } else if is_any(SUITES_WITHOUT_EFFECT) {
                // With those of TLS 1.3 alone, TLS 1.2 has none left.
                is_useful |= !name.contains("_WITH_");
            } else if !is_any(SUITES_INSECURE) {
                self.wrong(node, format!("unrecognized cipher {}", short(&name)));
                is_useful = true;
            } else if !allow_insecure {
                self.wrong(
                    node,
                    format!(
                        "insecure cipher suites configured without 'allow_insecure_cipher_suites' \
                         option set: {name}"
                    ),
                );
                is_useful = true;
            }
        }
        if !is_useful {
            let what = "Sedge has none of these cipher_suites; leave them out for the strong ones";
            self.wrong(node, what);
        }
        Some(suites)
    }

    fn curves(&mut self, node: &Node) -> Option<Vec<Curve>> {
        let names = self.names_of(node, "curve_preferences")?;
        let mut curves = Vec::new();
        let mut all_known = true;
        for (name, node) in names {
            match CURVES.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name)) {
                Some((_, curve)) => curves.push(*curve),
                None if CURVES_WITHOUT_EFFECT.iter().any(|k| k.eq_ignore_ascii_case(&name)) => {}
                None => {
                    all_known = false;
                    self.wrong(node, format!("unrecognized curve preference {}", short(&name)));
                }
            }
        }
        if curves.is_empty() && all_known {
            let what = "Sedge has none of these curves; there are X25519 CurveP256 CurveP384";
            self.wrong(node, what);
        }
        Some(curves)
    }

    fn names_of<'n>(&mut self, node: &'n Node, key: &str) -> Option<Vec<(String, &'n Node)>> {
        let Value::Array(nodes) = &node.value else {
            self.wrong_kind(key, node, "a list [ ]");
            return None;
        };
        if nodes.is_empty() {
            self.wrong(node, format!("error parsing tls config, '{key}' cannot be empty"));
            return None;
        }
        Some(
            nodes.iter().filter_map(|node| self.text(key, node).map(|name| (name, node))).collect(),
        )
    }
}
