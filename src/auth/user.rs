//! Users as they are declared: who they are, how they prove it, which account they are in.
//!
//! Owns the declarations. Does not own the check of what a CONNECT brings.
//!
//! Source: NATS docs, "Authentication", "Authorization".

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

use super::Secret;
use super::permissions::Permissions;

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// How it proves who it is.
    pub login: Login,
    /// The account it is in.
    pub account: String,
    /// What it may do; `None`: the defaults of its account or of the server, else all.
    pub permissions: Option<Rc<Permissions>>,
    /// How it may connect; empty: in any way.
    pub connection_types: Vec<ConnectionType>,
    /// Only through a trusted proxy?
    pub proxy_required: bool,
}

/// How a user proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// By name and password. The password is plain or a bcrypt hash; `None` is a user
    /// known by its certificate only.
    Password {
        /// The `user` of CONNECT.
        user: String,
        /// The `pass` of CONNECT, or its hash.
        password: Option<Secret>,
    },
    /// By a signature over the nonce of INFO.
    Nkey(String),
}

/// A way to connect, as `allowed_connection_types` spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionType {
    /// `STANDARD`: plain TCP or TLS.
    Standard,
    /// `WEBSOCKET`.
    WebSocket,
    /// `LEAFNODE`.
    LeafNode,
    /// `LEAFNODE_WS`.
    LeafNodeWs,
    /// `MQTT`.
    Mqtt,
    /// `MQTT_WS`.
    MqttWs,
    /// `IN_PROCESS`.
    InProcess,
}

impl ConnectionType {
    /// Reads a name, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        const NAMES: [(&str, ConnectionType); 7] = [
            ("STANDARD", ConnectionType::Standard),
            ("WEBSOCKET", ConnectionType::WebSocket),
            ("LEAFNODE", ConnectionType::LeafNode),
            ("LEAFNODE_WS", ConnectionType::LeafNodeWs),
            ("MQTT", ConnectionType::Mqtt),
            ("MQTT_WS", ConnectionType::MqttWs),
            ("IN_PROCESS", ConnectionType::InProcess),
        ];
        NAMES.iter().find(|(text, _)| name.eq_ignore_ascii_case(text)).map(|&(_, kind)| kind)
    }
}
