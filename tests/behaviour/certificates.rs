//! Certificates for tests, made by `openssl` when they are needed.
//!
//! Owns the authority `ca`, the server's certificate `server` (for `localhost` and
//! 127.0.0.1), a hub's, `hub` (for `localhost` only), and a client's, `client`
//! (`O=acme, CN=client`, with an e-mail address), each as `.pem` and `.key` in a fresh
//! directory, and TLS clients that trust the authority.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::raw_client::DEADLINE;

/// A TLS connection to a server.
pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

/// Makes them; `None` after saying loudly that `openssl` is missing.
pub(crate) fn certificates() -> Option<tempfile::TempDir> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let script = "set -e; new() { openssl ecparam -name prime256v1 -genkey -noout -out $1.key; }
        sign() { new $1; openssl req -new -key $1.key -subj \"$2\" -out $1.csr
            printf \"$3\" > $1.ext
            openssl x509 -req -in $1.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
                -extfile $1.ext -out $1.pem; }
        new ca; openssl req -x509 -new -key ca.key -days 2 -subj /CN=ca -out ca.pem
        sign server /CN=localhost 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n'
        sign hub /CN=localhost 'subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth\n'
        sign client /O=acme/CN=client \
            'subjectAltName=email:client@acme.com\nextendedKeyUsage=clientAuth\n'
        mkdir other; cp server.* other/; new other/ca
        openssl req -x509 -new -key other/ca.key -days 2 -subj /CN=other -out other/ca.pem";
    let made = Command::new("sh").arg("-c").arg(script).current_dir(directory.path()).output();
    match made {
        Ok(output) if output.status.success() => Some(directory),
        other => {
            let why = format!("certificates for the TLS tests need openssl: {other:?}");
            assert!(std::env::var("SEDGE_REQUIRE_PEERS").as_deref() != Ok("1"), "{why}");
            eprintln!("LEFT OUT: {why}");
            None
        }
    }
}

/// A `tls` block with the server's certificate and these options more.
pub(crate) fn tls_block(directory: &Path, more: &str) -> String {
    let path = directory.display();
    format!("tls {{ cert_file: \"{path}/server.pem\", key_file: \"{path}/server.key\"\n{more}\n }}")
}

/// The options of a client that trusts `ca` and shows the certificate `shown`.
pub(crate) fn client_config(directory: &Path, shown: Option<&str>) -> Arc<ClientConfig> {
    let pem = |name: String| CertificateDer::from_pem_file(directory.join(name)).expect("made");
    let mut roots = RootCertStore::empty();
    roots.add(pem("ca.pem".into())).expect("an authority");
    let builder =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
    Arc::new(match shown {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let key = PrivateKeyDer::from_pem_file(directory.join(format!("{name}.key")));
            builder
                .with_client_auth_cert(vec![pem(format!("{name}.pem"))], key.expect("made"))
                .expect("they fit")
        }
    })
}

/// A plain connection with a deadline for each read and write.
pub(crate) fn plain(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect_timeout(&address, DEADLINE).expect("it listens");
    socket.set_read_timeout(Some(DEADLINE)).expect("above zero");
    socket.set_write_timeout(Some(DEADLINE)).expect("above zero");
    socket.set_nodelay(true).expect("a socket");
    socket
}

/// Begins TLS on a connection and finishes the handshake as far as the client sees it.
pub(crate) fn secure(mut socket: TcpStream, config: &Arc<ClientConfig>) -> io::Result<Tls> {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut session = ClientConnection::new(config.clone(), name).expect("a session");
    while session.is_handshaking() {
        session.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(session, socket))
}
