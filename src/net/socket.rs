//! One connected socket, plain or under TLS.
//!
//! Owns the descriptor and the TLS session. Moves bytes, and says whether more can be moved;
//! what the bytes mean is the broker's.
//!
//! # Invariants
//! - Nothing here blocks.
//! - After [`Socket::send`] returned less than it was given, the kernel or the TLS session
//!   is full and the socket must be watched for writing.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{RecvFlags, SendFlags};

/// Plaintext handed to a TLS session in one go, in bytes: it copies and encrypts what it is
/// given, so this bounds what it holds.
const TLS_WRITE_BYTES: usize = 64 * 1024;

/// A connected, non-blocking stream socket.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    tls: Option<Box<rustls::ClientConnection>>,
}

/// What a read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// This many bytes at the front of the buffer.
    Bytes(usize),
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

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Socket {
    /// Covers a descriptor that is connected and non-blocking.
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd, tls: None }
    }

    /// From here on everything goes through TLS.
    pub fn start_tls(&mut self, tls: rustls::ClientConnection) {
        self.tls = Some(Box::new(tls));
    }

    /// Under TLS?
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Is the TLS handshake still under way?
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Reads once. With TLS it may have to be called again until it says
    /// [`Received::Nothing`], because one record can hold more than `buf` takes.
    pub fn receive(&mut self, buf: &mut [u8]) -> io::Result<Received> {
        let Some(tls) = &mut self.tls else {
            return match Raw(self.fd.as_fd()).read(buf) {
                Ok(0) => Ok(Received::End),
                Ok(count) => Ok(Received::Bytes(count)),
                Err(error) if is_not_now(&error) => Ok(Received::Nothing),
                Err(error) => Err(error),
            };
        };
        match tls.reader().read(buf) {
            Ok(0) => return Ok(Received::End),
            Ok(count) => return Ok(Received::Bytes(count)),
            Err(error) if is_not_now(&error) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok(Received::End);
            }
            Err(error) => return Err(error),
        }
        match tls.read_tls(&mut Raw(self.fd.as_fd())) {
            Ok(0) => return Ok(Received::End),
            Ok(_) => {}
            Err(error) if is_not_now(&error) => return Ok(Received::Nothing),
            Err(error) => return Err(error),
        }
        let result = tls.process_new_packets();
        // Also after an error: the alert tells the peer why. Each call writes one piece.
        while tls.wants_write() && tls.write_tls(&mut Raw(self.fd.as_fd())).is_ok() {}
        if let Err(error) = result {
            return Err(io::Error::other(format!("TLS: {error}")));
        }
        match tls.reader().read(buf) {
            Ok(0) => Ok(Received::End),
            Ok(count) => Ok(Received::Bytes(count)),
            // The record was part of the handshake, or is not whole: look again at once, for
            // the kernel may hold more.
            Err(error) if is_not_now(&error) => Ok(Received::Bytes(0)),
            Err(error) => Err(error),
        }
    }

    /// Writes what fits. The count may be less than `bytes`, also 0.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return match Raw(self.fd.as_fd()).write(bytes) {
                Ok(count) => Ok(count),
                Err(error) if is_not_now(&error) => Ok(0),
                Err(error) => Err(error),
            };
        };
        let mut taken = 0;
        loop {
            while tls.wants_write() {
                match tls.write_tls(&mut Raw(self.fd.as_fd())) {
                    Ok(_) => {}
                    Err(error) if is_not_now(&error) => return Ok(taken),
                    Err(error) => return Err(error),
                }
            }
            let rest = bytes.get(taken..).unwrap_or(&[]);
            if rest.is_empty() || tls.is_handshaking() {
                return Ok(taken);
            }
            let piece = rest.get(..TLS_WRITE_BYTES).unwrap_or(rest);
            let count = tls.writer().write(piece)?;
            if count == 0 {
                return Ok(taken);
            }
            taken += count;
        }
    }

    /// Does TLS have bytes of its own to send?
    pub fn wants_write(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
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
