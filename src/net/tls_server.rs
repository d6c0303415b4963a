//! TLS of a listener: its certificates, whom it lets in, and how a handshake is judged.
//!
//! Owns the rustls configuration made from a `tls {}` block, the names nats-server gives to
//! cipher suites and curves, pinned certificates, the bound on handshakes in a second, and
//! the wording of what went wrong. Does not own sessions ([`super::tls_session`]) nor the
//! order of INFO and handshake ([`super::opening`]).
//!
//! # Invariants
//! - A [`TlsServer`] is whole: files that cannot be read or do not fit together make none.
//! - Sessions are not resumed, so every handshake is judged by the authorities of now.
//!
//! Source: NATS docs, "Enabling TLS"; texts as nats-server 2.15.1.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, NoClientAuth, NoServerSessionStorage, WebPkiClientVerifier};
use rustls::server::{ResolvesServerCert, danger::ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, CertificateError, CipherSuite, Error, NamedGroup, PeerIncompatible,
    ProtocolVersion, RootCertStore, ServerConfig, ServerConnection,
};

use super::certificate;
use super::tls::{certificates, read};
use super::tls_session::TlsSession;
use crate::auth::certificate::Certificate;
use crate::broker::arrival::TlsFacts;
use crate::limits;
use crate::time::{Duration, Instant};

/// A `tls {}` block of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsServerOptions {
    /// `cert_file` and `key_file`, or the pairs of `certs`.
    pub pairs: Vec<(PathBuf, PathBuf)>,
    /// `ca_file`: who may sign clients' certificates. Without it the system's authorities.
    pub ca_file: Option<PathBuf>,
    /// `verify`, or anything that implies it: a client must show a certificate.
    pub verify: bool,
    /// `pinned_certs`, lower-case hexadecimal digits; empty: any.
    pub pinned_certs: Vec<String>,
    /// `timeout` of a handshake.
    pub timeout: Duration,
    /// `handshake_first`.
    pub handshake_first: HandshakeFirst,
    /// `connection_rate_limit`: handshakes in a second; 0: no limit.
    pub connection_rate_limit: u32,
    /// `min_version: "1.3"`.
    pub tls13_only: bool,
    /// `cipher_suites`, by Go's names; empty: all.
    pub cipher_suites: Vec<String>,
    /// `curve_preferences`, by Go's names; empty: all.
    pub curve_preferences: Vec<String>,
}

impl Default for TlsServerOptions {
    fn default() -> Self {
        Self {
            pairs: Vec::new(),
            ca_file: None,
            verify: false,
            pinned_certs: Vec::new(),
            timeout: limits::TLS_TIMEOUT,
            handshake_first: HandshakeFirst::No,
            connection_rate_limit: 0,
            tls13_only: false,
            cipher_suites: Vec::new(),
            curve_preferences: Vec::new(),
        }
    }
}

/// Does the handshake come before INFO?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFirst {
    /// INFO first.
    No,
    /// The handshake first.
    Yes,
    /// The handshake first if the client begins it within this time; else INFO.
    Within(Duration),
}

/// Makes TLS sessions of one listener.
#[derive(Clone, Debug)]
pub struct TlsServer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Arc<ServerConfig>,
    options: TlsServerOptions,
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
    pub fn new(options: &TlsServerOptions) -> Result<Self, String> {
        let provider = Arc::new(provider(options)?);
        let versions: &[_] = if options.tls13_only {
            &[&rustls::version::TLS13]
        } else {
            &[&rustls::version::TLS13, &rustls::version::TLS12]
        };
        let mut keys = Vec::new();
        for (cert, key) in &options.pairs {
            keys.push(pair(&provider, cert, key)?);
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
    pub fn options(&self) -> &TlsServerOptions {
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
            if !shown.is_some_and(|shown| pinned.contains(shown)) {
                return Err("certificate not pinned".to_owned());
            }
        }
        Ok(TlsFacts {
            version: session.version(),
            cipher: session.cipher(),
            first: false,
            certificates,
        })
    }
}

/// The algorithms the options leave.
fn provider(options: &TlsServerOptions) -> Result<CryptoProvider, String> {
    let mut provider = ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| rank(suite.suite()));
    if !options.cipher_suites.is_empty() {
        // As in Go, TLS 1.3 always offers all of its own.
        provider.cipher_suites.retain(|suite| {
            suite.version().version == ProtocolVersion::TLSv1_3
                || options.cipher_suites.iter().any(|name| name == cipher_name(suite.suite()))
        });
        let ours = |name: &String| {
            ring::ALL_CIPHER_SUITES.iter().any(|suite| name == cipher_name(suite.suite()))
        };
        if !options.cipher_suites.iter().any(ours) {
            let have: Vec<_> =
                ring::ALL_CIPHER_SUITES.iter().map(|suite| cipher_name(suite.suite())).collect();
            return Err(format!(
                "cipher_suites: none of these is available; choose among {}",
                have.join(", ")
            ));
        }
    }
    if !options.curve_preferences.is_empty() {
        let mut groups = Vec::new();
        for name in &options.curve_preferences {
            let known = CURVES.iter().find(|(text, _)| text == name);
            groups.extend(known.and_then(|(_, name)| {
                provider.kx_groups.iter().copied().find(|group| group.name() == *name)
            }));
        }
        if groups.is_empty() {
            return Err("curve_preferences: none of these is available; choose among X25519, \
                        CurveP256, CurveP384"
                .to_owned());
        }
        provider.kx_groups = groups;
    }
    Ok(provider)
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

const CURVES: [(&str, NamedGroup); 3] = [
    ("X25519", NamedGroup::X25519),
    ("CurveP256", NamedGroup::secp256r1),
    ("CurveP384", NamedGroup::secp384r1),
];

/// The name of a cipher suite as IANA and Go write it.
pub(super) fn cipher_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        other => other.as_str().unwrap_or("unknown"),
    }
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
    options: &TlsServerOptions,
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
