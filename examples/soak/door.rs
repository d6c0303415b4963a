//! The doors of a server: plain, TLS, WebSocket.
//!
//! Owns what is around the bytes of a connection; knows nothing of what they say.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::frames::{Close, Web};

/// Longest wait for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(15);

/// Where a server listens.
#[derive(Clone, Debug)]
pub(crate) struct Doors {
    pub(crate) plain: SocketAddr,
    /// TLS on the plain port, with what to trust.
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// WebSocket frames.
    pub(crate) web: Option<SocketAddr>,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Plain,
    Tls,
    Web,
}

impl Doors {
    /// Is there such a door?
    pub(crate) fn has(&self, door: Door) -> bool {
        match door {
            Door::Plain => true,
            Door::Tls => self.tls.is_some(),
            Door::Web => self.web.is_some(),
        }
    }

    /// Goes in; a door that is not there is the plain one.
    pub(crate) fn open(&self, door: Door) -> io::Result<Box<dyn Stream>> {
        match (door, &self.tls, self.web) {
            (Door::Tls, Some(config), _) => {
                let mut socket = connect(self.plain)?;
                let mut byte = [0];
                // INFO comes before the handshake.
                while socket.read(&mut byte)? > 0 && byte != *b"\n" {}
                let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
                let session =
                    ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
                let mut tls = StreamOwned::new(session, socket);
                while tls.conn.is_handshaking() {
                    tls.conn.complete_io(&mut tls.sock)?;
                }
                Ok(Box::new(tls))
            }
            (Door::Web, _, Some(address)) => {
                let web = Web::upgrade(connect(address)?, address, &[], Close::End)?;
                let refused = |answer: Vec<u8>| {
                    io::Error::other(format!("{:?}", String::from_utf8_lossy(&answer)))
                };
                Ok(Box::new(web.map_err(refused)?))
            }
            _ => Ok(Box::new(connect(self.plain)?)),
        }
    }
}

/// What trusts the authority in this file.
pub(crate) fn trusting(ca: &Path) -> Result<Arc<ClientConfig>, String> {
    let ca = CertificateDer::from_pem_file(ca).map_err(|error| format!("{error}"))?;
    let mut roots = RootCertStore::empty();
    roots.add(ca).map_err(|error| format!("{error}"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("{error}"))?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_write_timeout(Some(HANDSHAKE))?;
    socket.set_read_timeout(Some(HANDSHAKE))?;
    Ok(socket)
}

/// Bytes both ways.
pub(crate) trait Stream: Read + Write + Send {
    /// How long a read waits.
    fn wait(&self, time: Duration) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn wait(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))
    }
}

impl Stream for StreamOwned<ClientConnection, TcpStream> {
    fn wait(&self, time: Duration) -> io::Result<()> {
        self.sock.set_read_timeout(Some(time))
    }
}

impl Stream for Web<TcpStream> {
    fn wait(&self, time: Duration) -> io::Result<()> {
        self.wire.set_read_timeout(Some(time))
    }
}
