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
            (Door::Web, _, Some(address)) => Ok(Box::new(Web::upgrade(address)?)),
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

/// The bytes inside WebSocket frames.
struct Web {
    socket: TcpStream,
    /// Read, and not yet a whole frame.
    raw: Vec<u8>,
    /// Out of frames, and not yet taken.
    inner: Vec<u8>,
}

impl Web {
    fn upgrade(address: SocketAddr) -> io::Result<Self> {
        let mut socket = connect(address)?;
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        socket.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b"\r\n\r\n") && socket.read(&mut byte)? > 0 {
            answer.push(byte[0]);
        }
        if !answer.starts_with(b"HTTP/1.1 101 ") {
            return Err(io::Error::other(format!("{:?}", String::from_utf8_lossy(&answer))));
        }
        Ok(Self { socket, raw: Vec::new(), inner: Vec::new() })
    }

    /// Takes the first whole frame out of what was read.
    fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let (&first, &second) = (self.raw.first()?, self.raw.get(1)?);
        let (length, from) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes(self.raw.get(2..4)?.try_into().ok()?)), 4),
            127 => (u64::from_be_bytes(self.raw.get(2..10)?.try_into().ok()?), 10),
            short => (u64::from(short), 2),
        };
        let to = from + usize::try_from(length).ok()?;
        let payload = self.raw.get(from..to)?.to_vec();
        self.raw.drain(..to);
        Some((first & 0x0f, payload))
    }
}

impl Read for Web {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.inner.is_empty() {
            while let Some((code, payload)) = self.frame() {
                match code {
                    8 => return Ok(0),
                    9 | 10 => {}
                    _ => self.inner.extend(payload),
                }
            }
            if !self.inner.is_empty() {
                break;
            }
            let mut chunk = [0; 16 * 1024];
            match self.socket.read(&mut chunk)? {
                0 => return Ok(0),
                count => self.raw.extend_from_slice(&chunk[..count]),
            }
        }
        let count = buffer.len().min(self.inner.len());
        buffer[..count].copy_from_slice(&self.inner[..count]);
        self.inner.drain(..count);
        Ok(count)
    }
}

impl Write for Web {
    /// One frame, whole; its mask leaves the bytes as they are.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let mut frame = vec![0x82];
        match u16::try_from(bytes.len()) {
            Ok(length) if length < 126 => frame.push(0x80 | u8::try_from(length).unwrap_or(0)),
            Ok(length) => {
                frame.push(0xfe);
                frame.extend(length.to_be_bytes());
            }
            Err(_) => {
                frame.push(0xff);
                frame.extend((bytes.len() as u64).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(bytes);
        self.socket.write_all(&frame)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

impl Stream for Web {
    fn wait(&self, time: Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(time))
    }
}
