//! One TLS session, whichever side we are: bytes of the wire to plain bytes and back.
//!
//! Owns the rustls connection. Does not own the socket: what came from it is given to
//! [`TlsSession::feed`], and what is for it is taken by [`TlsSession::write_to`].
//!
//! # Invariants
//! - All of what is fed is used up: between calls the session holds at most a piece of one
//!   record, and no plain bytes.

use std::io::{self, BufRead, IoSlice, Read, Write};

use rustls::pki_types::CertificateDer;
use rustls::{ClientConnection, Connection, Error, ProtocolVersion, ServerConnection};

use super::tls_server::cipher_name;

/// See the module.
#[derive(Debug)]
pub struct TlsSession {
    connection: Connection,
    /// The peer said that it is done.
    closed: bool,
}

/// A socket that has nothing for now.
struct Nothing;

impl Read for Nothing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl TlsSession {
    /// A session that a client of ours begins.
    pub fn server(connection: ServerConnection) -> Self {
        Self { connection: Connection::Server(connection), closed: false }
    }

    /// A session that we begin.
    pub fn client(connection: ClientConnection) -> Self {
        Self { connection: Connection::Client(connection), closed: false }
    }

    /// Is the handshake still under way?
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Has the peer said that nothing more comes?
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Has it bytes for the socket?
    pub fn wants_write(&self) -> bool {
        self.connection.wants_write()
    }

    /// What the peer showed, its own certificate first.
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.connection.peer_certificates().unwrap_or(&[])
    }

    /// `1.2` or `1.3`.
    pub fn version(&self) -> &'static str {
        match self.connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "1.3",
            Some(ProtocolVersion::TLSv1_2) => "1.2",
            _ => "unknown",
        }
    }

    /// The cipher suite that was agreed on.
    pub fn cipher(&self) -> &'static str {
        self.connection.negotiated_cipher_suite().map_or("", |suite| cipher_name(suite.suite()))
    }

    /// Takes bytes of the wire and appends the plain bytes in them to `plain`, which grows
    /// by less than `wire` is long.
    ///
    /// # Errors
    /// The peer broke the rules or is not trusted; an alert for it may be waiting.
    pub fn feed(&mut self, mut wire: &[u8], plain: &mut Vec<u8>) -> Result<(), Error> {
        while !wire.is_empty() && !self.closed {
            let before = wire.len();
            let read = self.connection.read_tls(&mut wire);
            let state = self.connection.process_new_packets()?;
            if state.plaintext_bytes_to_read() > 0 {
                let mut reader = self.connection.reader();
                loop {
                    let count = match reader.fill_buf() {
                        Ok(chunk) => {
                            plain.extend_from_slice(chunk);
                            chunk.len()
                        }
                        Err(_) => 0,
                    };
                    if count == 0 {
                        break;
                    }
                    reader.consume(count);
                }
            }
            self.closed = state.peer_has_closed();
            if read.is_err() || (wire.len() == before && !self.closed) {
                return Err(Error::General("the record does not fit".to_owned()));
            }
        }
        // Room for the largest record is kept until the next read: one that gives nothing lets
        // it go.
        let _ = self.connection.read_tls(&mut Nothing);
        Ok(())
    }

    /// Takes two pieces of plain bytes to encrypt together; may take fewer, and none during
    /// a handshake.
    pub fn encrypt(&mut self, first: &[u8], second: &[u8]) -> usize {
        if self.connection.is_handshaking() {
            return 0;
        }
        // It writes to memory, and says how much of its bound was left.
        let pieces = [IoSlice::new(first), IoSlice::new(second)];
        let mut writer = self.connection.writer();
        let result =
            if first.is_empty() { writer.write(second) } else { writer.write_vectored(&pieces) };
        result.unwrap_or(0)
    }

    /// Tells the peer that nothing more comes.
    pub fn close(&mut self) {
        self.connection.send_close_notify();
    }

    /// Writes what is for the socket, once.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn write_to(&mut self, socket: &mut dyn Write) -> io::Result<usize> {
        self.connection.write_tls(socket)
    }
}
