//! Who asks: the JSON of `Nats-Request-Info` and of latency measurements.
//!
//! Owns its members and their order. Does not own who gets to see it.
//!
//! Source: members and order as nats-server 2.15.1.

use alloc::vec::Vec;

use super::conn::{Conn, Kind};
use super::connect::json_text;
use super::core::{Core, Origin};
use super::view::wall;
use crate::id::AccountId;
use crate::proto::headers;
use crate::time::{Duration, nanos};

/// The header that tells a service who asks.
const HEADER: &str = "Nats-Request-Info";

/// A JSON object under construction.
pub(super) struct Object(Vec<u8>);

/// An object of the members that `write` adds.
pub(super) fn members(write: impl FnOnce(&mut Object)) -> Vec<u8> {
    let mut object = Object(b"{".to_vec());
    write(&mut object);
    object.0.push(b'}');
    object.0
}

impl Object {
    fn key(&mut self, key: &str) {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        self.0.push(b'"');
        self.0.extend_from_slice(key.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    /// Nothing if `text` is empty.
    pub(super) fn text(&mut self, key: &str, text: &str) {
        if !text.is_empty() {
            self.key(key);
            json_text(&mut self.0, text);
        }
    }

    /// Nothing if it is 0.
    pub(super) fn number(&mut self, key: &str, number: u64) {
        if number > 0 {
            self.count(key, number);
        }
    }

    /// Also if it is 0.
    pub(super) fn count(&mut self, key: &str, number: u64) {
        self.key(key);
        self.0.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    /// JSON as it is; nothing if it is empty.
    pub(super) fn raw(&mut self, key: &str, json: &[u8]) {
        if !json.is_empty() {
            self.key(key);
            self.0.extend_from_slice(json);
        }
    }
}

/// One side of a request.
#[derive(Debug)]
pub(super) struct Party {
    /// Who it is, as JSON.
    pub(super) info: Vec<u8>,
    /// Its round trip.
    pub(super) rtt: Duration,
}

fn rtt(conn: &Conn) -> Duration {
    match &conn.kind {
        Kind::Client(_) => conn.rtt,
        Kind::Leaf(leaf) => leaf.rtt().unwrap_or_default(),
    }
}

impl Core {
    /// Who a message is from, for a measurement.
    pub(super) fn party(&self, origin: Origin<'_>, account: AccountId, share: bool) -> Party {
        let conn = origin.conn().and_then(|index| self.conn(index));
        let info = self.client_info(origin, account, share, None);
        Party { info, rtt: conn.map_or(Duration::ZERO, rtt) }
    }

    /// Who a message is from: its account and round trip, or everything with `share`. `via`
    /// is the account in between.
    fn client_info(
        &self,
        origin: Origin<'_>,
        account: AccountId,
        share: bool,
        via: Option<AccountId>,
    ) -> Vec<u8> {
        let name = |id| self.account(id).map_or("", |state| &*state.name);
        let conn = origin.conn().and_then(|index| self.conn(index));
        let of = name(conn.map_or(account, |conn| conn.account));
        let via = via.map_or("", name);
        members(|object| {
            let Some(conn) = conn else {
                object.text("acc", of);
                object.text("svc", via);
                return;
            };
            if !share {
                object.text("acc", of);
                object.text("svc", via);
                object.number("rtt", nanos(rtt(conn)));
                return;
            }
            object.text("start", &wall(self.now, conn.opened_at).rfc3339());
            match &conn.kind {
                Kind::Client(client) => object.text("host", &client.ip()),
                Kind::Leaf(leaf) => {
                    let peer = leaf.peer();
                    object.text("host", peer.rsplit_once(':').map_or(peer, |(host, _)| host));
                }
            }
            object.number("id", conn.cid);
            object.text("acc", of);
            object.text("svc", via);
            if let Kind::Client(client) = &conn.kind {
                let user = client.by_token().map_or(&client.connect.user, |by| &by.subject);
                object.text("user", user);
                object.text("name", &client.connect.name);
                object.text("lang", &client.connect.lang);
                object.text("ver", &client.connect.version);
            }
            object.number("rtt", nanos(rtt(conn)));
            object.text("server", &self.options.server_name);
            if let Kind::Client(client) = &conn.kind
                && let Some(by) = client.by_token()
            {
                // The token itself is not for others: whoever has a bearer token is its user.
                object.text("issuer_key", &by.issuer);
                object.text("name_tag", &by.account_name);
                if !by.tags.is_empty() {
                    object.raw("tags", &serde_json::to_vec(&by.tags).unwrap_or_default());
                }
            }
            match &conn.kind {
                Kind::Client(client) => {
                    object.text("kind", "Client");
                    let web = client.is_web_socket();
                    object.text("client_type", if web { "websocket" } else { "nats" });
                }
                Kind::Leaf(_) => object.text("kind", "Leafnode"),
            }
        })
    }

    /// Who sent the message with these headers that JetStream of `account` is handling;
    /// empty: the server itself. Of another account that is what came with the message.
    pub(super) fn requester(&self, account: AccountId, block: &[u8]) -> Vec<u8> {
        let Some(conn) = self.asking else { return Vec::new() };
        let of = self.conn(conn).map_or(AccountId::NONE, |conn| conn.account);
        if of == account {
            return self.client_info(Origin::Elsewhere { conn }, account, true, None);
        }
        let said = headers::value(block, HEADER).unwrap_or_default();
        let Some(said) = said.strip_suffix(b"}").filter(|said| said.len() > 1) else {
            return self.client_info(Origin::Elsewhere { conn }, account, false, None);
        };
        let has = |key: &[u8]| said.windows(key.len()).any(|at| at == key);
        let mut object = Object(said.to_vec());
        if !has(b"\"svc\":") {
            object.text("svc", self.account(account).map_or("", |state| &*state.name));
        }
        if !has(b"\"server\":") {
            object.text("server", &self.options.server_name);
        }
        object.0.push(b'}');
        object.0
    }

    /// The header block with who asks at its end, in place of what it says about that.
    pub(super) fn info_headers(
        &self,
        origin: Origin<'_>,
        account: AccountId,
        share: bool,
        via: Option<AccountId>,
        block: &[u8],
    ) -> Vec<u8> {
        let from_leaf = origin
            .conn()
            .and_then(|index| self.conn(index))
            .is_some_and(|conn| matches!(conn.kind, Kind::Leaf(_)));
        if from_leaf && !share && headers::value(block, HEADER).is_some() {
            // The hub has said who asks.
            return block.to_vec();
        }
        let info = self.client_info(origin, account, share, via);
        headers::with(block, HEADER, &info)
    }
}
