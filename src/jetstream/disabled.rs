//! The `$JS.API` of an account without JetStream, on a server that has it.
//!
//! Owns the answers. They all say 10039, each in the envelope its endpoint has.
//!
//! Source: seen from nats-server 2.15.1.

use serde::Serialize;

use super::host::{Host, Inbound};
use super::json::{self, ApiError, Empty};
use super::stream::{self, info::Paging};
use crate::subject;

/// Where requests arrive. In the system account there is one place for all.
pub(crate) fn subjects(system: bool) -> &'static [&'static [u8]] {
    if system { &[b"$JS.API.>"] } else { &stream::api::SUBJECTS }
}

const DISABLED: ApiError = ApiError::fixed(10039, 503, "JetStream not enabled for account");

#[derive(Serialize)]
struct Names {
    #[serde(flatten)]
    paging: Paging,
    streams: Option<[(); 0]>,
}

#[derive(Serialize)]
struct Streams {
    #[serde(flatten)]
    paging: Paging,
    streams: [(); 0],
}

#[derive(Serialize)]
struct Consumers {
    #[serde(flatten)]
    paging: Paging,
    consumers: [(); 0],
}

#[derive(Serialize)]
struct Purged {
    purged: u64,
}

#[derive(Serialize)]
struct Restore {
    deliver_subject: &'static str,
}

#[derive(Serialize)]
struct Paused {
    paused: bool,
    pause_until: &'static str,
}

/// Answers a request on one of [`subjects`]. What has no endpoint gets no answer.
pub(crate) fn handle_api(msg: &Inbound<'_>, system: bool, host: &mut impl Host) {
    let Some(rest) = msg.subject.strip_prefix(b"$JS.API.") else { return };
    if msg.reply.is_empty() {
        return;
    }
    let mut tokens = subject::tokens(rest);
    let mut next = || tokens.next().unwrap_or_default();
    let (area, verb, third) = (next(), next(), next());
    let paging = Paging::default;
    let plain = |kind: &str| json::envelope(kind, Some(&DISABLED), &Empty {});
    let cluster = |kind: &str| json::envelope(kind, Some(&ApiError::CLUSTER_REQUIRED), &Empty {});
    let text = match (area, verb, third) {
        (b"INFO", b"", b"") => plain("account_info_response"),
        _ if system => plain("system_response"),
        (b"STREAM", b"NAMES", b"") => {
            let body = Names { paging: paging(), streams: None };
            json::envelope("stream_names_response", Some(&DISABLED), &body)
        }
        (b"STREAM", b"LIST", b"") => {
            let body = Streams { paging: paging(), streams: [] };
            json::envelope("stream_list_response", Some(&DISABLED), &body)
        }
        (b"STREAM", b"INFO", _) => {
            json::envelope("stream_info_response", Some(&DISABLED), &paging())
        }
        (b"STREAM", b"CREATE", _) => plain("stream_create_response"),
        (b"STREAM", b"UPDATE", _) => plain("stream_update_response"),
        (b"STREAM", b"DELETE", _) => plain("stream_delete_response"),
        (b"STREAM", b"PURGE", _) => {
            json::envelope("stream_purge_response", Some(&DISABLED), &Purged { purged: 0 })
        }
        (b"STREAM", b"MSG", b"GET") => plain("stream_msg_get_response"),
        (b"STREAM", b"MSG", b"DELETE") => plain("stream_msg_delete_response"),
        (b"STREAM", b"SNAPSHOT", _) => plain("stream_snapshot_response"),
        (b"STREAM", b"RESTORE", _) => {
            let body = Restore { deliver_subject: "" };
            json::envelope("stream_restore_response", Some(&DISABLED), &body)
        }
        (b"STREAM", b"LEADER", _) => cluster("stream_leader_stepdown_response"),
        (b"STREAM", b"PEER", b"REMOVE") => cluster("stream_remove_peer_response"),
        (b"STREAM", b"CANCEL_MOVE", _) => cluster("stream_cancel_move_response"),
        (b"CONSUMER", b"CREATE" | b"DURABLE", _) => plain("consumer_create_response"),
        (b"CONSUMER", b"NAMES" | b"LIST", _) => {
            let kind =
                if verb == b"NAMES" { "consumer_names_response" } else { "consumer_list_response" };
            let body = Consumers { paging: paging(), consumers: [] };
            json::envelope(kind, Some(&DISABLED), &body)
        }
        (b"CONSUMER", b"INFO", _) => plain("consumer_info_response"),
        (b"CONSUMER", b"DELETE", _) => plain("consumer_delete_response"),
        (b"CONSUMER", b"PAUSE", _) => {
            let body = Paused { paused: false, pause_until: "0001-01-01T00:00:00Z" };
            json::envelope("consumer_pause_response", Some(&DISABLED), &body)
        }
        (b"CONSUMER", b"LEADER", _) => cluster("consumer_leader_stepdown_response"),
        _ => return,
    };
    host.deliver(msg.reply, msg.reply, b"", b"", &text);
}
