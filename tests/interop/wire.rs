//! Ways into a server: TLS, WebSocket frames, and a page of its monitoring.
//!
//! Owns what is around the bytes of a [`RawClient`]; knows nothing of NATS but that a server
//! says INFO first.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::certificates::{self, Tls};
use crate::frames::{Close, Web};
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
        let upgraded = Web::upgrade(wire, address, &way.headers, Close::Line);
        let web = upgraded.map_err(|e| format!("no upgrade: {e}"))?;
        wire = Box::new(web.map_err(|answer| format!("no upgrade: {}", printable(&answer)))?);
    }
    Ok(RawClient::over(wire, before))
}

impl Wire for Web<Box<dyn Wire>> {
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
