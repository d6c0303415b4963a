//! Ways into a server: TLS, WebSocket frames, and a page of its monitoring.
//!
//! Owns what is around the bytes of a [`RawClient`]; knows nothing of NATS but that a server
//! says INFO first.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::certificates::{self, Tls};
use crate::raw_client::{DEADLINE, RawClient, Wire, printable};
use crate::server::Server;

/// How a connection of a scenario gets in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Way {
    /// Under TLS, after the server's INFO.
    pub(crate) tls: bool,
    /// Under TLS from the first byte.
    pub(crate) first: bool,
    /// With the certificate of a client.
    pub(crate) certificate: bool,
    /// In WebSocket frames.
    pub(crate) web: bool,
    /// Nothing but the socket: what an upgrade or a handshake needs is for the script to say.
    pub(crate) raw: bool,
    /// More header lines of the upgrade.
    pub(crate) headers: Vec<String>,
}

impl Wire for Tls {
    fn set_read_timeout(&self, time: Duration) -> io::Result<()> {
        self.sock.set_read_timeout(Some(time))
    }
}

/// Connects as `way` says; INFO is not read yet, but for one that comes before TLS.
pub(crate) fn connect(server: &Server, way: &Way) -> Result<RawClient, String> {
    let failed = |e: io::Error| format!("cannot connect: {e}");
    if !way.tls && !way.first && !way.web {
        return RawClient::connect(server.address()).map_err(failed);
    }
    let address = match (way.web, way.tls) {
        (true, false) => server.listener("Listening for websocket clients on ws://")?,
        (true, true) => server.listener("Listening for websocket clients on wss://")?,
        (false, _) => server.address(),
    };
    let mut socket = certificates::plain(address);
    if way.raw {
        return Ok(RawClient::over(Box::new(socket), Vec::new()));
    }
    let mut before = Vec::new();
    if way.tls && !way.web && !way.first {
        let mut byte = [0];
        while !before.ends_with(b"\r\n") && socket.read(&mut byte).map_err(failed)? > 0 {
            before.push(byte[0]);
        }
    }
    let mut wire: Box<dyn Wire> = Box::new(socket.try_clone().map_err(failed)?);
    if way.tls || way.first {
        let shown = way.certificate.then_some("client");
        let config = certificates::client_config(&server.directory().join("certs"), shown);
        let tls = certificates::secure(socket, &config);
        wire = Box::new(tls.map_err(|e| format!("no TLS: {e}"))?);
    }
    if way.web {
        wire = Box::new(Web::upgrade(wire, address, &way.headers)?);
    }
    Ok(RawClient::over(wire, before))
}

/// The bytes inside the frames of a WebSocket connection. A close frame is a line of text.
#[derive(Debug)]
struct Web {
    wire: Box<dyn Wire>,
    /// Read, and not yet a whole frame.
    raw: Vec<u8>,
    /// Out of frames, and not yet taken.
    inner: Vec<u8>,
}

impl Web {
    fn upgrade(
        mut wire: Box<dyn Wire>,
        address: SocketAddr,
        headers: &[String],
    ) -> Result<Self, String> {
        let mut request = format!(
            "GET / HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        );
        for header in headers {
            request += header;
            request += "\r\n";
        }
        request += "\r\n";
        let failed = |e: io::Error| format!("no upgrade: {e}");
        wire.write_all(request.as_bytes()).map_err(failed)?;
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b"\r\n\r\n") && wire.read(&mut byte).map_err(failed)? > 0 {
            answer.push(byte[0]);
        }
        if !answer.starts_with(b"HTTP/1.1 101 ") {
            return Err(format!("no upgrade: {}", printable(&answer)));
        }
        Ok(Self { wire, raw: Vec::new(), inner: Vec::new() })
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
                match (code, payload.split_at_checked(2)) {
                    (8, Some((status, why))) => {
                        let status = u16::from_be_bytes([status[0], status[1]]);
                        let why = String::from_utf8_lossy(why);
                        self.inner.extend(format!("(close {status} {why})\r\n").bytes());
                    }
                    (8, None) => self.inner.extend(b"(close)\r\n"),
                    (9 | 10, _) => {}
                    _ => self.inner.extend(payload),
                }
            }
            if !self.inner.is_empty() {
                break;
            }
            let mut chunk = [0; 16 * 1024];
            match self.wire.read(&mut chunk)? {
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
    /// One frame, whole; the mask leaves the bytes as they are.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
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
        self.wire.write_all(&frame)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wire.flush()
    }
}

impl Wire for Web {
    fn set_read_timeout(&self, time: Duration) -> io::Result<()> {
        self.wire.set_read_timeout(time)
    }
}

/// Asks the monitoring port for a page: its status and its body.
pub(crate) fn page(server: &Server, path: &str) -> Result<(String, String), String> {
    let address = server.listener("Starting http monitor on ")?;
    let failed = |e: io::Error| format!("no page: {e}");
    let mut socket = TcpStream::connect_timeout(&address, DEADLINE).map_err(failed)?;
    socket.set_read_timeout(Some(DEADLINE)).map_err(failed)?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    socket.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).map_err(failed)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no whole answer")?;
    let (_, status) =
        head.lines().next().and_then(|line| line.split_once(' ')).ok_or("no status")?;
    Ok((status.to_owned(), body.to_owned()))
}
