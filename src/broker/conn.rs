//! Connections and subscriptions: the tables of the broker.
//!
//! Owns what is known of each connection and of each subscription. Does not own what an
//! operation does with them: [`super::client`] and [`super::leaf`] do.
//!
//! # Invariants
//! - A [`ConnId`] whose generation differs from the slot's refers to nothing.
//! - A client's `sids` hold exactly the subscriptions whose receiver names it.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

use hashbrown::HashTable;

use super::arrival::{Arrival, Door};
use super::connect::Connect;
use super::interest::SubId;
use super::leaf::Leaf;
use super::outbox::Outbox;
use super::short::Short;
use super::sign_in::Pending;
use crate::auth::access::Access;
use crate::auth::sign_in::Identity;
use crate::id::{AccountId, ConnId};
use crate::jetstream::host::Target;
use crate::proto::client::Bounds;
use crate::time::{Duration, Instant};

/// Why a connection ended, as `/connz` and DISCONNECT events spell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed, or its socket failed.
    ClientClosed,
    /// Bad credentials.
    AuthenticationFailure,
    /// No CONNECT in time.
    AuthenticationTimeout,
    /// `proxy_sig` of a proxy that is not trusted.
    ProxyNotTrusted,
    /// It came through no trusted proxy, and must.
    ProxyRequired,
    /// TLS did not come about.
    TlsHandshakeFailure,
    /// `max_connections`.
    MaximumConnections,
    /// `max_connections` of an account.
    MaximumAccountConnections,
    /// `max_payload`.
    MaximumPayload,
    /// `max_subscriptions` of its user or account, lowered below what it has.
    MaximumSubscriptions,
    /// Its token, its times or its account has come to an end.
    AuthenticationExpired,
    /// Its user was revoked.
    CredentialsRevoked,
    /// `max_control_line`.
    MaximumControlLine,
    /// Unknown operation or wrong arguments.
    ProtocolViolation,
    /// The client sent `-ERR`.
    ParseError,
    /// CONNECT with a protocol other than 0 and 1.
    BadClientProtocolVersion,
    /// `no_responders` without `headers`.
    NoRespondersRequiresHeaders,
    /// Missed PONGs.
    StaleConnection,
    /// `max_pending`.
    SlowConsumerPendingBytes,
    /// `write_deadline`.
    SlowConsumerWriteDeadline,
    /// Reading or writing failed, or the peer went away.
    ReadError,
    /// An operator wanted it gone.
    Kicked,
    /// The server stops.
    ServerShutdown,
    /// A leaf link's own end: its remote says why in a notice of its own.
    LeafLink,
}

impl CloseReason {
    /// The text of nats-server.
    pub fn text(self) -> &'static str {
        match self {
            Self::ClientClosed => "Client Closed",
            Self::AuthenticationFailure => "Authentication Failure",
            Self::AuthenticationTimeout => "Authentication Timeout",
            Self::ProxyNotTrusted => "Proxy Not Trusted",
            Self::ProxyRequired => "Proxy Required",
            Self::TlsHandshakeFailure => "TLS Handshake Failure",
            Self::MaximumConnections => "Maximum Connections Exceeded",
            Self::MaximumAccountConnections => "Maximum Account Connections Exceeded",
            Self::MaximumPayload => "Maximum Message Payload Exceeded",
            Self::MaximumSubscriptions => "Maximum Subscriptions Exceeded",
            Self::AuthenticationExpired => "Authentication Expired",
            Self::CredentialsRevoked => "Credentials Revoked",
            Self::MaximumControlLine => "Maximum Control Line Exceeded",
            Self::ProtocolViolation => "Protocol Violation",
            Self::ParseError => "Parse Error",
            Self::BadClientProtocolVersion => "Bad Client Protocol Version",
            Self::NoRespondersRequiresHeaders => "No Responders Requires Headers",
            Self::StaleConnection => "Stale Connection",
            Self::SlowConsumerPendingBytes => "Slow Consumer (Pending Bytes)",
            Self::SlowConsumerWriteDeadline => "Slow Consumer (Write Deadline)",
            Self::ReadError => "Read Error",
            Self::Kicked => "Kicked",
            Self::ServerShutdown => "Server Shutdown",
            Self::LeafLink => "Leaf Link Closed",
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) id: ConnId,
    /// `client_id` of INFO: counts up, never reused.
    pub(super) cid: u64,
    pub(super) kind: Kind,
    /// The account it is in; [`AccountId::NONE`] until it has signed in.
    pub(super) account: AccountId,
    pub(super) outbox: Outbox,
    /// The front of an operation that has not arrived whole.
    pub(super) partial: Vec<u8>,
    pub(super) bounds: Bounds,
    /// Already listed for writing in this turn.
    pub(super) dirty: bool,
    /// Set once it is to end: nothing more is read from it or appended for it.
    pub(super) closing: bool,
    /// Who it is has to be found out before anything more is read from it.
    pub(super) parked: bool,
    /// More than `DELIVERY_BACKLOG_BYTES` are waiting.
    pub(super) backlogged: bool,
    /// When it must have taken some of its bytes, while there are any the socket refused.
    pub(super) write_by: Option<Instant>,
    /// The entry in the broker's timers that stands for this connection; others are stale.
    pub(super) timer_at: Option<Instant>,
    /// When the next PING or stale check is due.
    pub(super) ping_at: Instant,
    pub(super) pings_out: u32,
    pub(super) pings_sent: u64,
    /// The last message, SUB, UNSUB or PING from it.
    pub(super) heard_at: Instant,
    /// When it was accepted or dialled.
    pub(super) opened_at: Instant,
    /// The last message in either direction, or change of its interest.
    pub(super) active_at: Instant,
    /// When the PING left that has no PONG yet.
    pub(super) ping_sent_at: Option<Instant>,
    /// Round trip; zero until it was measured.
    pub(super) rtt: Duration,
    /// How often it was held back for a slow receiver.
    pub(super) stalls: u32,
    /// An event said that it came.
    pub(super) announced: bool,
    /// Why it ends, and how many subscriptions it had.
    pub(super) ending: Option<(CloseReason, u32)>,
    pub(super) msgs_in: u64,
    pub(super) bytes_in: u64,
    pub(super) msgs_out: u64,
    pub(super) bytes_out: u64,
}

/// What is on the other end.
#[derive(Debug)]
pub(super) enum Kind {
    Client(Client),
    Leaf(Box<Leaf>),
}

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    /// `host:port` of the peer.
    pub(super) peer: Box<str>,
    /// What CONNECT said, boxed: most of it is looked at once.
    pub(super) connect: Box<Connect>,
    /// The flags of CONNECT that each message needs.
    pub(super) flags: Flags,
    pub(super) sids: HashTable<SubId>,
    /// By when CONNECT must have come, where it must; of somebody who signed in by a token,
    /// when he may not stay any longer.
    pub(super) connect_by: Option<Instant>,
    pub(super) door: Door,
    /// It is not inside yet.
    pub(super) waiting: bool,
    /// What became known on its way in; `None` for a plain TCP connection.
    pub(super) arrival: Option<Box<Arrival>>,
    /// Who it is, once that is known.
    pub(super) identity: Option<Rc<Identity>>,
    /// What it may do; `None`: everything.
    pub(super) access: Option<Box<Access>>,
    /// A password of its that waits to be compared.
    pub(super) pending: Option<Box<Pending>>,
    /// As INFO told it.
    pub(super) nonce: Option<Box<str>>,
}

/// What each message asks about a client.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "CONNECT is a set of switches")]
pub(super) struct Flags {
    pub(super) verbose: bool,
    pub(super) pedantic: bool,
    pub(super) echo: bool,
    pub(super) headers: bool,
    pub(super) no_responders: bool,
    /// CONNECT was seen.
    pub(super) connected: bool,
    /// It is who it says it is: log lines name it so.
    pub(super) signed_in: bool,
    /// The INFO that follows the first PONG was sent, or never will be.
    pub(super) told_connect_info: bool,
}

impl Client {
    pub(super) fn new(peer: &str, door: Door) -> Self {
        let connect = Connect::default();
        let flags = Flags {
            verbose: connect.verbose,
            pedantic: connect.pedantic,
            echo: connect.echo,
            headers: false,
            no_responders: false,
            connected: false,
            signed_in: false,
            told_connect_info: false,
        };
        Self {
            peer: peer.into(),
            connect: Box::new(connect),
            flags,
            sids: HashTable::new(),
            connect_by: None,
            door,
            waiting: door != Door::Open,
            arrival: None,
            identity: None,
            access: None,
            pending: None,
            nonce: None,
        }
    }

    /// The address without the port.
    pub(super) fn ip(&self) -> String {
        let host = self.peer.rsplit_once(':').map_or(&*self.peer, |(host, _)| host);
        String::from(host.trim_start_matches('[').trim_end_matches(']'))
    }
}

impl Conn {
    pub(super) fn client(&self) -> Option<&Client> {
        match &self.kind {
            Kind::Client(client) => Some(client),
            Kind::Leaf(_) => None,
        }
    }

    pub(super) fn client_mut(&mut self) -> Option<&mut Client> {
        match &mut self.kind {
            Kind::Client(client) => Some(client),
            Kind::Leaf(_) => None,
        }
    }

    /// When [`super::Broker::handle_timeout`] must look at it.
    pub(super) fn deadline(&self) -> Instant {
        let mut deadline = match &self.kind {
            Kind::Client(_) => self.ping_at,
            Kind::Leaf(leaf) => leaf.deadline().unwrap_or(Self::NEVER),
        };
        if let Some(at) = self.write_by {
            deadline = deadline.min(at);
        }
        if let Some(at) = self.client().and_then(|client| client.connect_by) {
            deadline = deadline.min(at);
        }
        deadline
    }
}

/// One subscription.
#[derive(Debug)]
pub(super) struct Sub {
    /// Whose interest holds it.
    pub(super) account: AccountId,
    pub(super) subject: Box<[u8]>,
    /// Empty: plain.
    pub(super) queue: Box<[u8]>,
    pub(super) receiver: Receiver,
}

/// Who is behind a subscription.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Receiver {
    /// A client.
    Client {
        /// Slot of the connection.
        conn: u32,
        /// As the client calls it.
        sid: Short,
        /// Messages so far.
        delivered: u64,
        /// Ends after this many; 0: never.
        max: u64,
    },
    /// The interest of a leaf peer; its weight is kept by the leaf.
    Leaf {
        /// Slot of the connection.
        conn: u32,
    },
    /// JetStream.
    Js(Target),
    /// A subscription of another account that imports what this one sees.
    Shadow {
        /// Which.
        of: SubId,
        /// By which import.
        import: u32,
    },
    /// A service import.
    Service(u32),
    /// Answers to other accounts.
    Responses,
    /// One of the server's own services.
    System,
}
