//! TLS of outgoing connections: which roots are trusted, and who we are.
//!
//! Owns the rustls configuration made from a `tls {}` block. Does not own sessions
//! ([`super::socket`]).

use std::cell::OnceCell;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::tls_session::TlsSession;
use crate::config::TlsClientConfig;

/// Makes TLS sessions of one remote.
#[derive(Clone, Debug)]
pub struct TlsClient {
    /// Made at the first session where there is no `tls {}` block to check: the system's
    /// roots cost time and memory that a remote without TLS need not spend.
    config: OnceCell<Trusting>,
}

/// A configuration, and whether it trusts anybody.
#[derive(Clone, Debug)]
struct Trusting {
    config: Arc<ClientConfig>,
    has_roots: bool,
}

impl TlsClient {
    /// Reads the files a `tls {}` block names. Without `ca_file` the roots of the system are
    /// trusted, as by nats-server, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
    ///
    /// # Errors
    /// A text that names the file and what is wrong with it.
    pub fn new(tls: Option<&TlsClientConfig>) -> Result<Self, String> {
        let config = OnceCell::new();
        if let Some(tls) = tls {
            // It was empty.
            let _ = config.set(Trusting::new(Some(tls))?);
        }
        Ok(Self { config })
    }

    /// A session with the server called `name`, a host name or an address.
    ///
    /// # Errors
    /// `name` can be neither, or there is no root that the server's certificate could lead to.
    pub fn session(&self, name: &str) -> Result<TlsSession, String> {
        let trusting = match self.config.get() {
            Some(trusting) => trusting.clone(),
            None => {
                let trusting = Trusting::new(None)?;
                self.config.get_or_init(|| trusting).clone()
            }
        };
        if !trusting.has_roots {
            return Err("this system has no list of certificate authorities; install its \
                        package ca-certificates, or name a file in ca_file"
                .into());
        }
        let server = ServerName::try_from(name.to_owned())
            .map_err(|_| format!("{name:?} cannot be the name of a TLS server"))?;
        let connection = ClientConnection::new(trusting.config, server);
        connection.map(TlsSession::client).map_err(|error| error.to_string())
    }
}

impl Trusting {
    fn new(tls: Option<&TlsClientConfig>) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let is_insecure = tls.is_some_and(|tls| tls.insecure);
        let mut roots = RootCertStore::empty();
        match tls.and_then(|tls| tls.ca_file.as_deref()) {
            Some(path) => {
                for certificate in certificates(path)? {
                    roots
                        .add(certificate)
                        .map_err(|error| format!("ca_file {}: {error}", path.display()))?;
                }
            }
            None if is_insecure => {}
            // Some that cannot be read, or are of an unknown kind, must not stop the others.
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let has_roots = is_insecure || !roots.is_empty();
        let builder = if is_insecure {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(insecure::AcceptAny(provider)))
        } else {
            builder.with_root_certificates(roots)
        };
        let files = tls.and_then(|tls| Some((tls.cert_file.as_deref()?, tls.key_file.as_deref()?)));
        let config = match files {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let chain = certificates(cert)?;
                let private = PrivateKeyDer::from_pem_slice(&read("key_file", key)?)
                    .map_err(|error| format!("key_file {}: {error}", key.display()))?;
                builder
                    .with_client_auth_cert(chain, private)
                    .map_err(|error| format!("cert_file {}: {error}", cert.display()))?
            }
        };
        Ok(Self { config: Arc::new(config), has_roots })
    }
}

pub(super) fn read(key: &str, path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{key} {}: {error}", path.display()))
}

pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read("certificate file", path)?;
    let list: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("certificate file {}: {error}", path.display()))?;
    if list.is_empty() {
        return Err(format!("certificate file {}: no certificate in it", path.display()));
    }
    Ok(list)
}

/// `insecure: true`: the certificate is not verified. The signature still is, so that the
/// peer at least holds the key of the certificate it shows.
mod insecure {
    use std::sync::Arc;

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    #[derive(Debug)]
    pub(super) struct AcceptAny(pub(super) Arc<CryptoProvider>);

    impl ServerCertVerifier for AcceptAny {
        fn verify_server_cert(
            &self,
            _end_entity: &CertificateDer<'_>,
            _intermediates: &[CertificateDer<'_>],
            _server_name: &ServerName<'_>,
            _ocsp: &[u8],
            _now: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}
