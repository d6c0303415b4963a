//! What a client goes through between the accept of its socket and the broker.
//!
//! Owns the order of PROXY header, INFO, TLS handshake and WebSocket upgrade on a listener,
//! and the time each may take. Does not own the socket nor the TLS session: it is given
//! bytes and the time, and says in a [`Step`] what is to be done.
//!
//! # Invariants
//! - What a client can make it hold is bounded by the longest header it waits for.
//! - Whatever a client does or leaves undone, the deadline ends it.
//!
//! Source: NATS docs, "Enabling TLS", "WebSocket"; the order as nats-server 2.15.1.

use std::io;
use std::rc::Rc;

use super::proxy::{self, Proxied};
use super::socket::Socket;
use super::tls_server::TlsServer;
use super::websocket::Agreed;
use super::websocket::upgrade::{self, Upgrade, UpgradeOptions};
use crate::broker::arrival::{Arrival, Door, Refusal, TlsFacts};
use crate::config::HandshakeFirst;
use crate::limits;
use crate::time::{Duration, Instant};

/// What a listener asks of its clients before they are inside.
#[derive(Debug, Default)]
pub struct Entrance {
    /// `proxy_protocol`.
    pub proxy: bool,
    /// `tls`.
    pub tls: Option<TlsServer>,
    /// `allow_non_tls`.
    pub allow_non_tls: bool,
    /// It is the WebSocket listener.
    pub web_socket: Option<UpgradeOptions>,
    /// For each handshake of the WebSocket listener.
    pub upgrade_timeout: Option<Duration>,
}

/// A client on its way in.
#[derive(Debug)]
pub struct Opening {
    entrance: Rc<Entrance>,
    stage: Stage,
    deadline: Instant,
    /// Bytes that came and are not used yet.
    held: Vec<u8>,
    arrival: Arrival,
    /// TLS came before INFO.
    first: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A PROXY header may come.
    Proxy,
    /// `handshake_first` with a time: who says something now begins TLS.
    Choose,
    /// `allow_non_tls`: the first byte decides.
    Sniff,
    /// The first byte of a handshake has to come.
    Hello,
    /// The handshake is under way.
    Handshake,
    /// The request of a WebSocket upgrade has to come.
    Upgrade,
    /// Inside.
    Done,
}

/// What is to be done.
#[derive(Debug)]
pub enum Step {
    /// Wait for bytes or the deadline.
    Wait,
    /// Send INFO, then wait.
    SendInfo,
    /// Begin TLS and feed it [`Opening::take_held`].
    StartTls,
    /// It is inside; [`Opening::take_held`] are the first bytes for the broker.
    Inside(Box<Arrival>),
    /// It is to be answered this and goes on in frames, inside.
    Upgraded {
        /// An HTTP answer.
        answer: String,
        /// How the frames are.
        agreed: Agreed,
        /// What is known of it.
        arrival: Box<Arrival>,
    },
    /// It is to be answered this, if anything, and does not come in.
    Answer {
        /// An HTTP answer.
        answer: String,
        /// For the log; empty: nothing.
        why: String,
    },
    /// It is not to come in.
    Refuse(Refusal),
}

impl Entrance {
    /// Is every client inside at once?
    pub fn is_open(&self) -> bool {
        !self.proxy && self.tls.is_none() && self.web_socket.is_none()
    }

    /// How clients come in here.
    pub fn door(&self) -> Door {
        let first = self.tls.as_ref().map(|tls| tls.options().handshake_first);
        match first {
            _ if self.web_socket.is_some() => Door::WebSocket,
            Some(HandshakeFirst::Yes | HandshakeFirst::Wait(_)) => Door::InfoLast,
            Some(HandshakeFirst::No) => Door::InfoFirst,
            None if self.proxy => Door::InfoFirst,
            None => Door::Open,
        }
    }
}

impl Opening {
    /// A client that has just connected.
    pub fn new(entrance: Rc<Entrance>, now: Instant) -> Self {
        let mut opening = Self {
            entrance,
            stage: Stage::Done,
            deadline: now,
            held: Vec::new(),
            arrival: Arrival::default(),
            first: false,
        };
        if opening.entrance.proxy {
            opening.stage = Stage::Proxy;
            opening.deadline = now + limits::PROXY_TIMEOUT;
        } else {
            opening.before_tls(now);
        }
        opening
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Is a TLS handshake under way?
    pub fn is_handshaking(&self) -> bool {
        self.stage == Stage::Handshake
    }

    /// The TLS of this way in.
    pub fn tls(&self) -> Option<TlsServer> {
        self.entrance.tls.clone()
    }

    /// What the finished handshake on `socket` came to.
    ///
    /// # Errors
    /// Why it is not good enough.
    pub fn facts(&self, socket: &Socket) -> Result<TlsFacts, String> {
        match (&self.entrance.tls, socket.tls()) {
            (Some(tls), Some(session)) => tls.facts(session),
            _ => Err("no TLS session".to_owned()),
        }
    }

    /// Bytes that came and were not used.
    pub fn take_held(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    /// Bytes came, in the clear or decrypted. Not to be called during a handshake.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) -> Step {
        self.held.extend_from_slice(bytes);
        self.step(now)
    }

    /// TLS has come about; `plain` is what came behind it.
    pub fn handshaken(&mut self, now: Instant, facts: TlsFacts, plain: &[u8]) -> Step {
        self.arrival.tls = Some(TlsFacts { first: self.first, ..facts });
        self.stage = self.behind_tls();
        self.handle_bytes(now, plain)
    }

    /// The deadline has passed.
    pub fn handle_timeout(&mut self, now: Instant) -> Step {
        match self.stage {
            Stage::Proxy => {
                let text = "failed to read protocol version: EOF";
                Step::Refuse(Refusal::Proxy(text.to_owned()))
            }
            Stage::Upgrade => Step::Refuse(Refusal::Gone),
            Stage::Choose => {
                self.first = false;
                self.after_info(now);
                Step::SendInfo
            }
            Stage::Sniff => {
                self.stage = Stage::Done;
                self.step(now)
            }
            Stage::Hello | Stage::Handshake => {
                Step::Refuse(Refusal::Tls { text: "i/o timeout".to_owned(), mild: true })
            }
            Stage::Done => Step::Wait,
        }
    }

    /// The client has gone.
    pub fn handle_end(&mut self) -> Refusal {
        match self.stage {
            Stage::Hello | Stage::Handshake => Refusal::Tls { text: "EOF".to_owned(), mild: false },
            Stage::Proxy if !self.held.is_empty() => {
                Refusal::Proxy("failed to read protocol version: unexpected EOF".to_owned())
            }
            Stage::Proxy | Stage::Choose | Stage::Sniff | Stage::Upgrade | Stage::Done => {
                Refusal::Gone
            }
        }
    }

    /// Reading failed.
    pub fn handle_error(&mut self, error: &io::Error) -> Refusal {
        match self.stage {
            Stage::Hello | Stage::Handshake => {
                Refusal::Tls { text: error.to_string(), mild: false }
            }
            Stage::Proxy | Stage::Choose | Stage::Sniff | Stage::Upgrade | Stage::Done => {
                Refusal::Gone
            }
        }
    }

    fn step(&mut self, now: Instant) -> Step {
        loop {
            let first = self.held.first().copied();
            match (self.stage, first) {
                (Stage::Done, _) => {
                    return Step::Inside(Box::new(std::mem::take(&mut self.arrival)));
                }
                (_, None) | (Stage::Handshake, _) => return Step::Wait,
                (Stage::Proxy, Some(_)) => match proxy::parse(&self.held) {
                    Ok(Proxied::Incomplete) => return Step::Wait,
                    Ok(Proxied::Absent) => self.before_tls(now),
                    Ok(Proxied::Header(used, address)) => {
                        self.held.drain(..used.min(self.held.len()));
                        self.arrival.peer = address.map(|address| address.to_string());
                        self.before_tls(now);
                    }
                    Err(text) => return Step::Refuse(Refusal::Proxy(text)),
                },
                (Stage::Choose, Some(_)) => {
                    self.first = true;
                    self.stage = Stage::Hello;
                    self.deadline = now + self.timeout();
                }
                (Stage::Sniff, Some(TLS_HANDSHAKE)) => self.stage = Stage::Hello,
                (Stage::Sniff, Some(_)) => self.stage = Stage::Done,
                (Stage::Hello, Some(TLS_HANDSHAKE)) => {
                    self.stage = Stage::Handshake;
                    return Step::StartTls;
                }
                (Stage::Hello, Some(byte)) => return self.not_tls(byte),
                (Stage::Upgrade, Some(_)) => return self.upgrade(),
            }
        }
    }

    /// Something else where a handshake has to begin.
    fn not_tls(&self, byte: u8) -> Step {
        if self.entrance.web_socket.is_some() && byte.is_ascii_uppercase() {
            return Step::Answer {
                answer: upgrade::NOT_TLS.to_owned(),
                why: "client sent an HTTP request to an HTTPS server".to_owned(),
            };
        }
        let text = "tls: first record does not look like a TLS handshake".to_owned();
        Step::Refuse(Refusal::Tls { text, mild: true })
    }

    fn upgrade(&mut self) -> Step {
        let Some(options) = &self.entrance.web_socket else { return Step::Wait };
        match upgrade::read(&self.held, options) {
            Upgrade::Incomplete => Step::Wait,
            Upgrade::Refused { answer, why } => Step::Answer { answer, why },
            Upgrade::Agreed(upgraded) => {
                self.held = Vec::new();
                self.stage = Stage::Done;
                let mut arrival = std::mem::take(&mut self.arrival);
                arrival.cookies = upgraded.cookies;
                arrival.forwarded_for = upgraded.forwarded_for;
                let (answer, agreed) = (upgraded.answer, upgraded.agreed);
                Step::Upgraded { answer, agreed, arrival: Box::new(arrival) }
            }
        }
    }

    /// The stage before a TLS handshake that is allowed to come first.
    fn before_tls(&mut self, now: Instant) {
        let first = self.entrance.tls.as_ref().map(|tls| tls.options().handshake_first);
        match first {
            _ if self.entrance.web_socket.is_some() => self.after_info(now),
            Some(HandshakeFirst::Wait(wait)) => {
                self.stage = Stage::Choose;
                self.deadline = now + wait;
            }
            Some(HandshakeFirst::Yes) => {
                self.first = true;
                self.stage = Stage::Hello;
                self.deadline = now + self.timeout();
            }
            Some(HandshakeFirst::No) | None => self.after_info(now),
        }
    }

    /// The stage of a client that was told INFO.
    fn after_info(&mut self, now: Instant) {
        self.stage = match &self.entrance.tls {
            None => self.behind_tls(),
            Some(_) if self.entrance.allow_non_tls => Stage::Sniff,
            Some(_) => Stage::Hello,
        };
        self.deadline = now + self.timeout();
    }

    /// The stage of a client whose bytes are plain.
    fn behind_tls(&self) -> Stage {
        if self.entrance.web_socket.is_some() { Stage::Upgrade } else { Stage::Done }
    }

    fn timeout(&self) -> Duration {
        if self.entrance.web_socket.is_some() {
            return self.entrance.upgrade_timeout.unwrap_or(limits::UPGRADE_TIMEOUT);
        }
        self.entrance.tls.as_ref().map_or(Duration::ZERO, |tls| tls.options().timeout)
    }
}

/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CertificateFiles, TlsServerConfig};

    /// With a certificate made by openssl; `None` after saying that it is missing.
    fn entrance(first: HandshakeFirst, allow_non_tls: bool) -> Option<Rc<Entrance>> {
        let directory = tempfile::tempdir().ok()?;
        let path = |name: &str| directory.path().join(name);
        let made = std::process::Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout"])
            .arg(path("key"))
            .arg("-out")
            .arg(path("cert"))
            .output();
        if !made.is_ok_and(|output| output.status.success()) {
            eprintln!("LEFT OUT: openssl is not there");
            return None;
        }
        let options = TlsServerConfig {
            certificates: vec![CertificateFiles { cert_file: path("cert"), key_file: path("key") }],
            handshake_first: first,
            ..TlsServerConfig::default()
        };
        let tls = Some(TlsServer::new(&options).unwrap());
        Some(Rc::new(Entrance { tls, allow_non_tls, ..Entrance::default() }))
    }

    #[test]
    fn who_does_not_begin_a_handshake_is_refused_and_who_is_silent_too() {
        let Some(entrance) = entrance(HandshakeFirst::No, false) else { return };
        let now = Instant::default();
        let mut opening = Opening::new(entrance.clone(), now);
        let step = opening.handle_bytes(now, b"CONNECT {}\r\n");
        assert!(matches!(step, Step::Refuse(Refusal::Tls { mild: true, .. })), "{step:?}");
        let mut opening = Opening::new(entrance, now);
        assert_eq!(opening.deadline(), now + Duration::from_secs(2));
        let step = opening.handle_timeout(opening.deadline());
        assert!(matches!(step, Step::Refuse(Refusal::Tls { mild: true, .. })), "{step:?}");
    }

    #[test]
    fn a_client_that_waits_for_info_gets_it_and_may_then_speak_plainly() {
        let wait = Duration::from_millis(50);
        let Some(entrance) = entrance(HandshakeFirst::Wait(wait), true) else { return };
        let now = Instant::default();
        let mut opening = Opening::new(entrance, now);
        assert_eq!(opening.deadline(), now + wait);
        assert!(matches!(opening.handle_timeout(now + wait), Step::SendInfo));
        assert!(matches!(opening.handle_bytes(now + wait, b"P"), Step::Inside(_)));
        assert_eq!(opening.take_held(), b"P");
    }

    #[test]
    fn the_first_byte_of_a_handshake_begins_it() {
        let Some(entrance) = entrance(HandshakeFirst::No, true) else { return };
        let now = Instant::default();
        let mut opening = Opening::new(entrance, now);
        assert!(matches!(opening.handle_bytes(now, b"\x16\x03"), Step::StartTls));
        assert_eq!(opening.take_held(), b"\x16\x03");
        assert!(opening.is_handshaking());
    }
}
