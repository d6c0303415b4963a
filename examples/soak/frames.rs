//! A client's side of WebSocket: the upgrade and the frames, over anything.
//!
//! Owns what stands around the bytes; knows nothing of what they say. Keys are not checked and
//! masks are zero: what reads and writes here is a test.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

/// What a close frame is to whoever reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Close {
    /// The end.
    End,
    /// A line of text.
    Line,
}

/// The bytes inside the frames of a WebSocket connection.
#[derive(Debug)]
pub(crate) struct Web<W> {
    /// What the frames go over.
    pub(crate) wire: W,
    close: Close,
    /// Read, and not yet a whole frame.
    raw: Vec<u8>,
    /// Out of frames, and not yet taken.
    inner: Vec<u8>,
}

impl<W: Read + Write> Web<W> {
    /// Asks for an upgrade of `wire`, with more header lines. `Err` is another answer than 101.
    pub(crate) fn upgrade(
        mut wire: W,
        address: SocketAddr,
        headers: &[String],
        close: Close,
    ) -> io::Result<Result<Self, Vec<u8>>> {
        let mut request = format!(
            "GET / HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        );
        for header in headers {
            request += header;
            request += "\r\n";
        }
        request += "\r\n";
        wire.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b"\r\n\r\n") && wire.read(&mut byte)? > 0 {
            answer.push(byte[0]);
        }
        if !answer.starts_with(b"HTTP/1.1 101 ") {
            return Ok(Err(answer));
        }
        Ok(Ok(Self { wire, close, raw: Vec::new(), inner: Vec::new() }))
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

impl<W: Read + Write> Read for Web<W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.inner.is_empty() {
            while let Some((code, payload)) = self.frame() {
                match (code, payload.split_at_checked(2)) {
                    (8, _) if self.close == Close::End && self.inner.is_empty() => return Ok(0),
                    (8, _) if self.close == Close::End => {
                        // What came before it is read first.
                        self.raw.splice(0..0, [0x88, 0]);
                        break;
                    }
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

impl<W: Read + Write> Write for Web<W> {
    /// One frame, whole; the mask leaves the bytes as they are.
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
        self.wire.write_all(&frame)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wire.flush()
    }
}
