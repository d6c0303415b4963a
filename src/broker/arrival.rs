//! Clients on their way in: from the accept of a socket to the first byte the broker hears.
//!
//! Owns which door a client comes through, what is known of it once it is inside, and when
//! it is told INFO. Does not own the handshakes: TLS, the WebSocket upgrade and the PROXY
//! header are the shell's (`crate::net`), which says [`Broker::opened`] when they are done.
//!
//! # Invariants
//! - Nothing is read from a client, and no timer of its own runs, before it is inside.
//! - A WebSocket client counts only once it is inside.
//!
//! Source: NATS docs, "Securing NATS", "WebSocket"; the order of INFO, handshake and refusal
//! as nats-server 2.15.1.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::conn::{Client, CloseReason, Conn, Kind};
use super::connect::{InfoFor, write_info};
use super::lame_duck::LameDuck;
use super::{Broker, Notice, client};
use crate::auth::Secret;
use crate::auth::certificate::Certificate;
use crate::auth::user::ConnectionType;
use crate::id::ConnId;
use crate::time::{Instant, Now};

/// How a client comes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Door {
    /// It is inside at once, and told INFO.
    #[default]
    Open,
    /// It is told INFO at once; what follows (TLS, a PROXY header) is the shell's until
    /// [`Broker::opened`].
    InfoFirst,
    /// It is told INFO when it is inside, or with [`Broker::send_info`].
    InfoLast,
    /// WebSocket: it does not count before it is inside.
    WebSocket,
}

/// What is known of a client that has come in.
#[derive(Clone, Debug, Default)]
pub struct Arrival {
    /// Where it really comes from (`host:port`), if a proxy said so.
    pub peer: Option<String>,
    /// Who a WebSocket proxy forwards it for; only for the log.
    pub forwarded_for: Option<String>,
    /// What TLS agreed on.
    pub tls: Option<TlsFacts>,
    /// Credentials in cookies of a WebSocket upgrade.
    pub cookies: Cookies,
}

/// What a TLS handshake came to.
#[derive(Clone, Debug)]
pub struct TlsFacts {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// The name of the cipher suite, as IANA and Go write it.
    pub cipher: &'static str,
    /// TLS came before INFO.
    pub first: bool,
    /// The listener takes users from certificates.
    pub mapped: bool,
    /// What the peer showed, its own certificate first.
    pub certificates: Vec<Certificate>,
}

/// They stand for fields of CONNECT that are empty there.
#[derive(Clone, Debug, Default)]
pub struct Cookies {
    /// For `jwt`.
    pub jwt: Option<Secret>,
    /// For `user`.
    pub user: Option<Secret>,
    /// For `pass`.
    pub pass: Option<Secret>,
    /// For `auth_token`.
    pub token: Option<Secret>,
}

/// Why a client does not come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The TLS handshake failed. `mild`: no error, just somebody who is not a TLS client or
    /// says nothing.
    Tls {
        /// What happened.
        text: String,
        /// Only for the debug log.
        mild: bool,
    },
    /// Too many TLS handshakes in this second.
    RateLimit,
    /// The PROXY header is not one.
    Proxy(String),
    /// The request of a WebSocket upgrade was not followed; why, if the log is to have it.
    WebSocket(String),
    /// It is gone, or was told why by other means.
    Gone,
}

impl Broker {
    /// A client connected from `peer` (`host:port`) and is inside at once. Its INFO waits to
    /// be written.
    pub fn accept(&mut self, now: Now, peer: &str) -> ConnId {
        self.accept_at(now, peer, Door::Open)
    }

    /// A client connected from `peer` and comes in by `door`. Unless that is
    /// [`Door::Open`], [`Self::opened`] or [`Self::refuse`] has to follow.
    pub fn accept_at(&mut self, now: Now, peer: &str, door: Door) -> ConnId {
        self.core.now = now;
        let id = self.add_conn(now, Kind::Client(Client::new(peer, door)));
        if door != Door::WebSocket {
            self.core.log_opened(id.index);
        }
        match door {
            Door::WebSocket => {}
            Door::InfoLast => self.admit(id.index),
            Door::Open | Door::InfoFirst => {
                self.info(id.index);
                self.admit(id.index);
            }
        }
        if door == Door::Open {
            self.begin(now, id.index);
        }
        id
    }

    /// Tells INFO to a client at [`Door::InfoLast`] now, because it waits for it.
    pub fn send_info(&mut self, now: Now, id: ConnId) {
        self.core.now = now;
        let Some(client) = self.waiting(id) else { return };
        client.door = Door::InfoFirst;
        self.info(id.index);
    }

    /// The client is inside.
    pub fn opened(&mut self, now: Now, id: ConnId, arrival: Arrival) {
        self.core.now = now;
        let Some(client) = self.waiting(id) else { return };
        client.waiting = false;
        if let Some(peer) = &arrival.peer {
            client.peer = peer.as_str().into();
        }
        client.arrival = Some(Box::new(arrival));
        match client.door {
            Door::Open | Door::InfoFirst => {}
            Door::InfoLast => self.info(id.index),
            Door::WebSocket => {
                self.core.clients += 1;
                self.core.log_opened(id.index);
                self.info(id.index);
                self.admit(id.index);
            }
        }
        self.begin(now, id.index);
    }

    /// The client does not come in.
    pub fn refuse(&mut self, now: Now, id: ConnId, refusal: &Refusal) {
        self.core.now = now;
        let Some(client) = self.waiting(id) else { return };
        let peer = client.peer.clone();
        let is_web = client.is_web_socket();
        let name = self.core.conn_name(id.index);
        let (notice, reason) = match refusal {
            Refusal::Tls { text, .. } if is_web => {
                let text = format!("websocket: TLS handshake error from {peer}: {text}");
                (Some(Notice::error(text)), CloseReason::TlsHandshakeFailure)
            }
            Refusal::Tls { text, mild } => {
                let text = format!("{name} - TLS handshake error: {text}");
                let notice = if *mild { Notice::debug(text) } else { Notice::error(text) };
                (Some(notice), CloseReason::TlsHandshakeFailure)
            }
            // As nats-server, whose `-ERR` for it never leaves: it would be no TLS record.
            Refusal::RateLimit => (None, CloseReason::MaximumConnections),
            Refusal::Proxy(text) => {
                let text = format!("Error reading PROXY protocol header from {peer}: {text}");
                (Some(Notice::warn(text)), CloseReason::ProtocolViolation)
            }
            Refusal::WebSocket(text) => {
                let text = format!("{peer} - websocket handshake error: {text}");
                let notice = (!text.ends_with(": ")).then(|| Notice::error(text));
                (notice, CloseReason::ClientClosed)
            }
            Refusal::Gone => (None, CloseReason::ClientClosed),
        };
        if let Some(notice) = notice {
            self.core.outputs.push_back(super::Output::Notice(notice));
        }
        self.core.close(id.index, reason, true);
    }

    /// Reading from a client failed for `text`; what it may still be told waits in the
    /// shell.
    pub fn read_failed(&mut self, now: Now, id: ConnId, text: &str) {
        self.core.now = now;
        if self.core.conn(id.index).is_none_or(|conn| conn.id != id || conn.closing) {
            return;
        }
        let text = format!("{} - read error: {text}", self.core.conn_name(id.index));
        self.core.outputs.push_back(super::Output::Notice(Notice::error(text)));
        self.core.close(id.index, CloseReason::ReadError, true);
    }

    /// Does the broker still take bytes of it?
    pub fn is_listening(&self, id: ConnId) -> bool {
        self.core.conn(id.index).is_some_and(|conn| conn.id == id && !conn.closing)
    }

    /// A client said, in the way of its transport, that it leaves.
    pub fn hang_up(&mut self, now: Now, id: ConnId) {
        self.core.now = now;
        if self.core.conn(id.index).is_some_and(|conn| conn.id == id) {
            self.core.close(id.index, CloseReason::ClientClosed, true);
        }
    }

    fn waiting(&mut self, id: ConnId) -> Option<&mut Client> {
        let conn = self.core.conns.get_mut(id.index as usize)?;
        if conn.id != id || conn.closing {
            return None;
        }
        conn.client_mut().filter(|client| client.waiting)
    }

    /// Writes the first INFO.
    fn info(&mut self, index: u32) {
        let nonce = self.sign_in.nonce();
        let directory = &self.sign_in.directory;
        let required = directory.is_required(ConnectionType::WebSocket);
        let announced = directory.is_announced();
        let Some(client) = self.core.conns.get_mut(index as usize).and_then(Conn::client_mut)
        else {
            return;
        };
        client.nonce.clone_from(&nonce);
        // A WebSocket client is told so even where it may come in as the `no_auth_user`.
        let auth_required = if client.is_web_socket() { required } else { announced };
        let Some(conn) = self.core.conn(index) else { return };
        let Some(client) = conn.client() else { return };
        let hidden = self.core.options.proxy_protocol && client.waiting;
        let ip = if hidden { String::new() } else { client.ip() };
        let to = InfoFor {
            client_id: conn.cid,
            client_ip: &ip,
            account: None,
            max_payload: self.core.options.max_payload,
            auth_required,
            nonce: nonce.as_deref().unwrap_or_default(),
            ldm: self.lame_duck != LameDuck::Off,
            door: client.door,
        };
        let options = core::mem::take(&mut self.core.options);
        self.core.send_with(index, |out| write_info(out, &options, to));
        self.core.options = options;
    }

    /// Refuses a client beyond `max_connections`.
    fn admit(&mut self, index: u32) {
        if self.core.clients > self.core.options.max_connections {
            let text = "maximum connections exceeded";
            self.core.error(index, text);
            self.core.complain(index, text);
            self.core.close(index, CloseReason::MaximumConnections, true);
        }
    }

    /// Starts the timers of a client that is inside.
    fn begin(&mut self, now: Now, index: u32) {
        let options = &self.core.options;
        let Some(client) = self.core.conn(index).and_then(Conn::client) else { return };
        let is_web = client.is_web_socket();
        let needs_auth = self.sign_in.directory.is_required(client.connection_type());
        let web = options.web_socket.as_ref().filter(|_| is_web);
        let timeout = web.and_then(|web| web.auth_timeout).unwrap_or(options.auth_timeout);
        let connect_by = needs_auth.then(|| now.instant + timeout);
        let interval = options.ping_interval_of(is_web);
        let delay = client::first_ping_delay(interval, &mut self.core.rng);
        let Some(conn) = self.core.conn_mut(index) else { return };
        conn.ping_at = now.instant + delay;
        if let Some(client) = conn.client_mut() {
            client.connect_by = connect_by;
        }
        self.core.arm(index);
        if !needs_auth {
            self.sign_in_without_connect(index);
        }
    }
}

impl Client {
    /// Came in as WebSocket?
    pub(super) fn is_web_socket(&self) -> bool {
        self.door == Door::WebSocket
    }

    /// Does it count as a client?
    pub(super) fn counts(&self) -> bool {
        !(self.waiting && self.is_web_socket())
    }

    /// `host:port` as in front of log lines.
    pub(super) fn log_peer(&self) -> String {
        match self.arrival.as_ref().and_then(|arrival| arrival.forwarded_for.as_deref()) {
            Some(address) => format!("{address}/{}", self.peer),
            None => (*self.peer).to_owned(),
        }
    }
}

impl Conn {
    /// The time no timer reaches: a client that is not inside has none.
    pub(super) const NEVER: Instant = Instant(u64::MAX);
}

#[cfg(test)]
mod tests {
    use super::super::options::{Options, TlsOffer, WebSocketOffer};
    use super::*;
    use alloc::string::ToString;

    fn broker(options: Options) -> Broker {
        Broker::new(options, None, 1)
    }

    fn text(broker: &Broker, id: ConnId) -> String {
        String::from_utf8_lossy(broker.pending(id)).to_string()
    }

    #[test]
    fn info_says_what_the_door_asks_for() {
        let tls = TlsOffer { required: false, verify: true, available: true };
        let web_socket = Some(WebSocketOffer {
            host: "ws".into(),
            port: 80,
            tls: true,
            ..WebSocketOffer::default()
        });
        let mut broker = broker(Options { tls, web_socket, ..Options::default() });
        let now = Now::default();
        let first = broker.accept_at(now, "1.2.3.4:5", Door::InfoFirst);
        let told = text(&broker, first);
        assert!(told.contains("\"tls_verify\":true,\"tls_available\":true"), "{told}");
        let last = broker.accept_at(now, "1.2.3.4:5", Door::InfoLast);
        assert!(text(&broker, last).is_empty());
        broker.opened(now, last, Arrival::default());
        let told = text(&broker, last);
        assert!(told.contains("\"tls_required\":true,\"tls_verify\":true,"), "{told}");
        let web = broker.accept_at(now, "1.2.3.4:5", Door::WebSocket);
        assert!(text(&broker, web).is_empty());
        broker.opened(now, web, Arrival::default());
        let told = text(&broker, web);
        assert!(told.contains("\"host\":\"ws\",\"port\":80,"), "{told}");
    }

    #[test]
    fn a_web_socket_counts_once_it_is_inside() {
        let mut broker = broker(Options { max_connections: 1, ..Options::default() });
        let now = Now::default();
        let web = broker.accept_at(now, "1.2.3.4:5", Door::WebSocket);
        let gone = broker.accept_at(now, "1.2.3.4:5", Door::WebSocket);
        broker.closed(now, gone);
        let plain = broker.accept(now, "1.2.3.4:6");
        assert!(!text(&broker, plain).contains("-ERR"));
        broker.opened(now, web, Arrival::default());
        assert!(text(&broker, web).ends_with("-ERR 'maximum connections exceeded'\r\n"));
    }

    #[test]
    fn an_address_behind_a_proxy_is_told_once_it_is_known() {
        let mut broker = broker(Options { proxy_protocol: true, ..Options::default() });
        let now = Now::default();
        let id = broker.accept_at(now, "10.0.0.1:5", Door::InfoFirst);
        assert!(!text(&broker, id).contains("client_ip"));
        let peer = Some(String::from("9.8.7.6:1000"));
        broker.opened(now, id, Arrival { peer, ..Arrival::default() });
        broker.receive(now, id, b"CONNECT {\"protocol\":1}\r\nPING\r\n");
        assert!(text(&broker, id).contains("\"client_ip\":\"9.8.7.6\""));
    }
}
