//! One connected socket: plain, under TLS, in WebSocket frames, or both.
//!
//! Owns the descriptor and what lies between it and the broker's bytes. Moves bytes, and
//! says whether more can be moved; what the bytes mean is the broker's.
//!
//! # Invariants
//! - Nothing here blocks.
//! - After [`Socket::send`] returned less than it was given, the kernel or the TLS session
//!   is full and the socket must be watched for writing.
//! - A plain socket pays for the layers with one branch.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

use super::tls_server::explain;
use super::tls_session::TlsSession;
use super::websocket::WebSocket;
use super::websocket::deflate::Deflater;

/// Plaintext handed to a TLS session in one go, in bytes: it copies and encrypts what it is
/// given, so this bounds what it holds.
const TLS_WRITE_BYTES: usize = 64 * 1024;

/// Pieces of one write, at most.
const PIECES_MAX: usize = 1024;

/// A connected, non-blocking stream socket.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    tls: Option<Box<TlsSession>>,
    web: Option<Box<WebSocket>>,
}

/// What a read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// This many bytes at the front of the buffer.
    Bytes(usize),
    /// What TLS decrypted is the second buffer; that may be nothing.
    Decrypted,
    /// Nothing for now.
    Nothing,
    /// The peer is done.
    End,
}

/// The descriptor as a reader and writer of raw bytes.
struct Raw<'a>(BorrowedFd<'a>);

impl Read for Raw<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let (count, _) = rustix::net::recv(self.0, buf, RecvFlags::empty())?;
        Ok(count)
    }
}

impl Write for Raw<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.0, buf, SendFlags::NOSIGNAL)?)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut ancillary = SendAncillaryBuffer::default();
        Ok(rustix::net::sendmsg(self.0, pieces, &mut ancillary, SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket {
    /// Covers a descriptor that is connected and non-blocking.
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd, tls: None, web: None }
    }

    /// From here on everything goes through TLS.
    pub fn start_tls(&mut self, tls: TlsSession) {
        self.tls = Some(Box::new(tls));
    }

    /// From here on everything goes in frames, under TLS if that was begun before.
    pub fn start_web_socket(&mut self, web: WebSocket) {
        self.web = Some(Box::new(web));
    }

    /// The frames, if it is a WebSocket.
    pub fn web_mut(&mut self) -> Option<&mut WebSocket> {
        self.web.as_deref_mut()
    }

    /// Is it a WebSocket?
    pub fn is_web(&self) -> bool {
        self.web.is_some()
    }

    /// The TLS session, if there is one.
    pub fn tls(&self) -> Option<&TlsSession> {
        self.tls.as_deref()
    }

    /// Under TLS?
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Is the TLS handshake still under way?
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Reads once, into `wire`. Under TLS all of it is decrypted into `plain`. Whatever was in
    /// `plain` is gone: the buffer is shared, and nobody may see another one's bytes.
    pub fn receive(&mut self, wire: &mut [u8], plain: &mut Vec<u8>) -> io::Result<Received> {
        plain.clear();
        let count = match Raw(self.fd.as_fd()).read(wire) {
            Ok(0) => return Ok(Received::End),
            Ok(count) => count,
            Err(error) if is_not_now(&error) => return Ok(Received::Nothing),
            Err(error) => return Err(error),
        };
        if self.tls.is_none() {
            return Ok(Received::Bytes(count));
        }
        self.feed(wire.get(..count).unwrap_or(&[]), plain)
    }

    /// Gives TLS bytes that were read before it began, as [`Self::receive`] does.
    pub fn feed(&mut self, wire: &[u8], plain: &mut Vec<u8>) -> io::Result<Received> {
        plain.clear();
        let Some(tls) = &mut self.tls else { return Ok(Received::Nothing) };
        let result = tls.feed(wire, plain);
        // Also after an error: the alert tells the peer why. Each call writes one piece.
        while tls.wants_write() && tls.write_to(&mut Raw(self.fd.as_fd())).is_ok() {}
        match result {
            Ok(()) if tls.is_closed() && plain.is_empty() => Ok(Received::End),
            // What came before the end is used first; see `is_finished`.
            Ok(()) => Ok(Received::Decrypted),
            Err(error) => Err(io::Error::other(explain(&error, tls.peer_certificates()))),
        }
    }

    /// Writes what fits, without frames. The count may be less than `bytes`, also 0.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send_raw(&[], bytes)
    }

    /// Writes what fits of the broker's bytes, in frames if it is a WebSocket.
    pub fn send_messages(&mut self, bytes: &[u8], deflater: &mut Deflater) -> io::Result<usize> {
        let Some(mut web) = self.web.take() else { return self.send_raw(&[], bytes) };
        let result = self.send_in_frames(&mut web, bytes, deflater);
        self.web = Some(web);
        result
    }

    /// Neither TLS nor frames?
    pub fn is_plain(&self) -> bool {
        self.tls.is_none() && self.web.is_none()
    }

    /// Writes what fits of many pieces to a plain socket.
    pub fn send_pieces(&mut self, pieces: &[&[u8]]) -> io::Result<usize> {
        let pieces: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        // More than Linux takes in one call are left for the next.
        let pieces = pieces.get(..PIECES_MAX).unwrap_or(&pieces);
        match Raw(self.fd.as_fd()).write_vectored(pieces) {
            Err(error) if is_not_now(&error) => Ok(0),
            result => result,
        }
    }

    /// Writes two pieces without frames; what fits of both together.
    fn send_raw(&mut self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        let mut raw = Raw(self.fd.as_fd());
        let Some(tls) = &mut self.tls else {
            let result = if first.is_empty() {
                raw.write(second)
            } else {
                raw.write_vectored(&[IoSlice::new(first), IoSlice::new(second)])
            };
            return match result {
                Ok(count) => Ok(count),
                Err(error) if is_not_now(&error) => Ok(0),
                Err(error) => Err(error),
            };
        };
        let all = first.len() + second.len();
        let mut taken = 0;
        loop {
            while tls.wants_write() {
                match tls.write_to(&mut raw) {
                    Ok(_) => {}
                    Err(error) if is_not_now(&error) => return Ok(taken),
                    Err(error) => return Err(error),
                }
            }
            if taken == all {
                return Ok(taken);
            }
            let left = first.get(taken..).unwrap_or(&[]);
            let right = second.get(taken.saturating_sub(first.len())..).unwrap_or(&[]);
            let right = right.get(..TLS_WRITE_BYTES).unwrap_or(right);
            let count = tls.encrypt(left, right);
            if count == 0 {
                return Ok(taken);
            }
            taken += count;
        }
    }

    fn send_in_frames(
        &mut self,
        web: &mut WebSocket,
        bytes: &[u8],
        deflater: &mut Deflater,
    ) -> io::Result<usize> {
        // Nobody listens to it any more.
        let mut taken = if web.is_deaf() && web.promised() == 0 { bytes.len() } else { 0 };
        loop {
            let rest = bytes.get(taken..).unwrap_or(&[]);
            if web.ready().is_empty() && web.promised() == 0 {
                taken += web.next_frame(rest, deflater);
            }
            let (ready, promised) = (web.ready().len(), web.promised());
            let rest = bytes.get(taken..).unwrap_or(&[]);
            let payload = rest.get(..promised).unwrap_or(rest);
            let all = ready + payload.len();
            if all == 0 {
                // Also what TLS still has.
                self.send_raw(&[], &[])?;
                return Ok(taken);
            }
            let count = self.send_raw(web.ready(), payload)?;
            let of_payload = count.saturating_sub(ready);
            web.written(count.min(ready));
            web.payload_written(of_payload);
            taken += of_payload;
            if count < all {
                return Ok(taken);
            }
        }
    }

    /// Has the peer said under TLS that nothing more comes?
    pub fn is_finished(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_closed())
    }

    /// Tells a peer under TLS that nothing more comes, as far as the socket takes it.
    pub fn finish(&mut self) {
        if let Some(tls) = self.tls.as_mut().filter(|tls| !tls.is_handshaking()) {
            tls.close();
            while tls.wants_write() && tls.write_to(&mut Raw(self.fd.as_fd())).is_ok() {}
        }
    }

    /// Do the layers have bytes of their own to send?
    pub fn wants_write(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
            || self.web.as_ref().is_some_and(|web| web.wants_write())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn is_not_now(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
