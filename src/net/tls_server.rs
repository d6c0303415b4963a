//! TLS of a listener: its certificates, whom it lets in, and how a handshake is judged.
//!
//! Owns the rustls configuration made from a `tls {}` block, pinned certificates, the bound on handshakes in a second, and
//! the wording of what went wrong. Does not own sessions ([`super::tls_session`]) nor the
//! order of INFO and handshake ([`super::opening`]).
//!
//! # Invariants
//! - A [`TlsServer`] is whole: files that cannot be read or do not fit together make none.
//! - Sessions are not resumed, so every handshake is judged by the authorities of now.
//!
//! Source: NATS docs, "Enabling TLS"; texts as nats-server 2.15.1.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, NoClientAuth, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::server::{ResolvesServerCert, danger::ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, CertificateError, CipherSuite, Error, NamedGroup, PeerIncompatible,
    RootCertStore, ServerConfig, ServerConnection, SupportedCipherSuite,
};

use super::certificate;
use super::tls::{certificates, read};
use super::tls_session::TlsSession;
use crate::auth::certificate::Certificate;
use crate::broker::arrival::TlsFacts;
use crate::config::{CipherSuite as TlsSuite, Curve, TlsServerConfig};
use crate::sorted;
use crate::time::{Duration, Instant, Timestamp};

/// Makes TLS sessions of one listener.
#[derive(Clone, Debug)]
pub struct TlsServer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Arc<ServerConfig>,
    options: TlsServerConfig,
}

/// Bounds the handshakes of a listener in a second.
#[derive(Debug, Default)]
pub struct Rate {
    second: Instant,
    begun: u32,
    refused: u64,
}

impl Rate {
    /// May another handshake begin in this second, of which there may be `limit` (0: any
    /// number)?
    pub fn may_begin(&mut self, now: Instant, limit: u32) -> bool {
        if limit == 0 {
            return true;
        }
        if now.since(self.second) >= Duration::from_secs(1) {
            self.second = now;
            self.begun = 0;
        }
        if self.begun < limit {
            self.begun += 1;
            return true;
        }
        self.refused += 1;
        false
    }

    /// How many were refused, once the second they were refused in is over.
    pub fn take_refused(&mut self, now: Instant) -> u64 {
        if self.refused == 0 || now < self.report_at() {
            return 0;
        }
        std::mem::take(&mut self.refused)
    }

    /// When [`Self::take_refused`] has something to say.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (self.refused > 0).then(|| self.report_at())
    }

    fn report_at(&self) -> Instant {
        self.second + Duration::from_secs(1)
    }
}

impl TlsServer {
    /// Reads the files the options name.
    ///
    /// # Errors
    /// A text that names the key or the file and what is wrong with it.
    pub fn new(options: &TlsServerConfig) -> Result<Self, String> {
        let provider = Arc::new(provider(options));
        let versions: &[_] = if options.tls13_only {
            &[&rustls::version::TLS13]
        } else {
            &[&rustls::version::TLS13, &rustls::version::TLS12]
        };
        let mut keys = Vec::new();
        for files in &options.certificates {
            keys.push(pair(&provider, &files.cert_file, &files.key_file)?);
        }
        if keys.is_empty() {
            return Err("missing 'cert_file' in TLS configuration".to_owned());
        }
        let mut config = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .map_err(|error| error.to_string())?
            .with_client_cert_verifier(verifier(options, &provider)?)
            .with_cert_resolver(Arc::new(Choice(keys)));
        config.ignore_client_order = true;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let config = Arc::new(config);
        Ok(Self(Arc::new(Inner { config, options: options.clone() })))
    }

    /// What it was made from.
    pub fn options(&self) -> &TlsServerConfig {
        &self.0.options
    }

    /// A session with a peer that has just connected.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn session(&self) -> Result<TlsSession, String> {
        let connection = ServerConnection::new(self.0.config.clone());
        connection.map(TlsSession::server).map_err(|error| error.to_string())
    }

    /// What a finished handshake came to.
    ///
    /// # Errors
    /// The peer's certificate is not among the pinned ones.
    pub fn facts(&self, session: &TlsSession) -> Result<TlsFacts, String> {
        let certificates: Vec<Certificate> =
            session.peer_certificates().iter().map(|der| certificate::parse(der)).collect();
        let pinned = &self.0.options.pinned_certs;
        if !pinned.is_empty() {
            let shown = certificates.first().map(|certificate| &certificate.spki_sha256);
            let is_pinned =
                |shown: &String| pinned.iter().any(|pin| certificate::hexadecimal(pin) == *shown);
            if !shown.is_some_and(is_pinned) {
                return Err("certificate not pinned".to_owned());
            }
        }
        Ok(TlsFacts {
            version: session.version(),
            cipher: session.cipher(),
            first: false,
            mapped: self.0.options.verify_and_map,
            certificates,
        })
    }
}

/// The algorithms the options leave.
fn provider(options: &TlsServerConfig) -> CryptoProvider {
    let mut provider = ring::default_provider();
    sorted::sort_by_key(&mut provider.cipher_suites, |suite| rank(suite.suite()));
    if let Some(chosen) = &options.cipher_suites {
        // As in Go, TLS 1.3 always offers all of its own.
        let all = std::mem::take(&mut provider.cipher_suites);
        let is_new = |suite: &&SupportedCipherSuite| suite.tls13().is_some();
        provider.cipher_suites.extend(all.iter().filter(is_new));
        for name in chosen {
            let suite = all.iter().find(|suite| suite.suite() == suite_of(*name));
            provider.cipher_suites.extend(suite);
        }
    }
    if let Some(chosen) = &options.curve_preferences {
        let all = std::mem::take(&mut provider.kx_groups);
        for curve in chosen {
            let group = all.iter().find(|group| group.name() == group_of(*curve));
            provider.kx_groups.extend(group);
        }
    }
    provider
}

fn suite_of(suite: TlsSuite) -> CipherSuite {
    match suite {
        TlsSuite::EcdsaAes128 => CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        TlsSuite::EcdsaAes256 => CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        TlsSuite::EcdsaChaCha20 => CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        TlsSuite::RsaAes128 => CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        TlsSuite::RsaAes256 => CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        TlsSuite::RsaChaCha20 => CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    }
}

fn group_of(curve: Curve) -> NamedGroup {
    match curve {
        Curve::X25519 => NamedGroup::X25519,
        Curve::P256 => NamedGroup::secp256r1,
        Curve::P384 => NamedGroup::secp384r1,
    }
}

/// Which cipher suite is preferred: AES-128 is strong enough and the fastest where the
/// processor helps with it; where it does not, the other one is.
fn rank(suite: CipherSuite) -> u8 {
    let name = cipher_name(suite);
    let aes = if name.contains("AES_128") {
        0
    } else if name.contains("AES_256") {
        1
    } else {
        return if has_aes() { 2 } else { 0 };
    };
    if has_aes() { aes } else { aes + 1 }
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes")
}

#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes() -> bool {
    false
}

/// The name of a cipher suite as IANA and Go write it.
pub(super) fn cipher_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or("unknown"),
    }
}

/// When the first certificate of a listener ends; `None`: it cannot be read.
pub fn not_after(options: &TlsServerConfig) -> Option<Timestamp> {
    let chain = certificates(&options.certificates.first()?.cert_file).ok()?;
    certificate::not_after(chain.first()?)
}

/// A certificate with its key.
fn pair(provider: &CryptoProvider, cert: &Path, key: &Path) -> Result<Arc<CertifiedKey>, String> {
    let chain = certificates(cert)?;
    let private = PrivateKeyDer::from_pem_slice(&read("key_file", key)?)
        .map_err(|error| format!("key_file {}: {error}", key.display()))?;
    let pair = CertifiedKey::from_der(chain, private, provider);
    pair.map(Arc::new).map_err(|error| {
        format!("cert_file {} with key_file {}: {error}", cert.display(), key.display())
    })
}

fn verifier(
    options: &TlsServerConfig,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    if !options.verify {
        return Ok(Arc::new(NoClientAuth));
    }
    let mut roots = RootCertStore::empty();
    match &options.ca_file {
        Some(path) => {
            for certificate in certificates(path)? {
                roots
                    .add(certificate)
                    .map_err(|error| format!("ca_file {}: {error}", path.display()))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| format!("ca_file: {error}"))
}

/// Chooses the certificate whose names have the one a client asks for; else the first.
#[derive(Debug)]
struct Choice(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let first = self.0.first()?;
        let asked = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let fitting = asked.filter(|_| self.0.len() > 1).and_then(|name| {
            self.0.iter().find(|key| certificate::is_for(key.cert.first(), &name))
        });
        Some(fitting.unwrap_or(first).clone())
    }
}

/// What went wrong, in nats-server's words where it has some.
pub fn explain(error: &Error, peer: &[CertificateDer<'_>]) -> String {
    match error {
        Error::NoCertificatesPresented => "tls: client didn't provide a certificate".to_owned(),
        Error::InvalidCertificate(why) => {
            let mut text = "tls: failed to verify certificate: x509: ".to_owned();
            match why {
                CertificateError::UnknownIssuer => {
                    text.push_str("certificate signed by unknown authority");
                }
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => {
                    text.push_str("certificate has expired or is not yet valid");
                }
                // Somebody's own authority used as a client's certificate.
                other if format!("{other:?}").contains("CaUsedAsEndEntity") => {
                    text.push_str("certificate signed by unknown authority");
                }
                other => text.push_str(&other.to_string()),
            }
            if let Some(der) = peer.first() {
                let shown = certificate::parse(der);
                // Writing to a String cannot fail.
                let _ = write!(text, " ({} SHA-256: {})", shown.subject_text(), shown.sha256);
            }
            text
        }
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::SupportedVersionsExtensionRequired,
        ) => "tls: client offered only unsupported versions".to_owned(),
        Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon) => {
            "tls: no cipher suite supported by both client and server".to_owned()
        }
        Error::AlertReceived(alert) => format!("remote error: tls: {}", alert_name(*alert)),
        other => format!("tls: {other}"),
    }
}

fn alert_name(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::BadCertificate => "bad certificate",
        AlertDescription::UnknownCA => "unknown certificate authority",
        AlertDescription::CertificateExpired => "expired certificate",
        AlertDescription::CertificateUnknown => "unknown certificate",
        AlertDescription::HandshakeFailure => "handshake failure",
        AlertDescription::ProtocolVersion => "protocol version not supported",
        AlertDescription::DecryptError => "error decrypting message",
        other => other.as_str().unwrap_or("unknown alert"),
    }
}
