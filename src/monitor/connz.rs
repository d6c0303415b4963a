//! `/connz`: connections, open and closed.

use std::cmp::Reverse;

use super::{Json, PAGE_BYTES_MAX, Query, Refusal, Scene, Uptime, begin, between, host_and_port};
use crate::broker::CloseReason;
use crate::broker::view::{Certificate, ConnView, SubView};
use crate::sorted;
use crate::time::{GoDuration, Timestamp};

/// How much is said of subscriptions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Subs {
    No,
    Subjects,
    Details,
}

/// `subs` of a query.
pub(super) fn subs(query: &Query) -> Result<Subs, Refusal> {
    if query.text("subs").eq_ignore_ascii_case("detail") {
        return Ok(Subs::Details);
    }
    Ok(if query.flag("subs")? { Subs::Subjects } else { Subs::No })
}

/// Orders by this, the smallest first.
fn rank(sort: &str, view: &ConnView<'_>, now: Timestamp) -> (Reverse<u64>, u64) {
    let nanos = |time: Timestamp| u64::try_from(time.0).unwrap_or(0);
    let (stop, reason) = view.stop.map_or((now, ""), |(at, reason)| (at, reason.text()));
    let counts = &view.counts;
    let most = match sort {
        "start" => nanos(view.start),
        "subs" => view.subscriptions as u64,
        "pending" => view.pending_bytes as u64,
        "msgs_to" => counts.msgs_out,
        "msgs_from" => counts.msgs_in,
        "bytes_to" => counts.bytes_out,
        "bytes_from" => counts.bytes_in,
        "last" => nanos(view.last_activity),
        "idle" => crate::time::nanos(between(view.last_activity, stop)),
        "uptime" => crate::time::nanos(between(view.start, stop)),
        "stop" => nanos(stop),
        "rtt" => crate::time::nanos(view.rtt),
        // As texts are ordered, by as many characters as fit.
        "reason" => reason.bytes().take(8).fold(0, |sum, byte| sum << 8 | u64::from(byte)),
        _ => 0,
    };
    (Reverse(most), view.cid)
}

const SORTS: [&str; 14] = [
    "cid",
    "start",
    "subs",
    "pending",
    "msgs_to",
    "msgs_from",
    "bytes_to",
    "bytes_from",
    "last",
    "idle",
    "uptime",
    "stop",
    "reason",
    "rtt",
];

pub(super) fn write(json: &mut Json, scene: Scene<'_>, query: &Query) -> Result<(), Refusal> {
    let sort = query.text("sort");
    let auth = query.flag("auth")?;
    let subs = subs(query)?;
    let (offset, mut limit) = query.page()?;
    let cid = query.uint("cid")?;
    let (open, closed) = match query.text("state").to_ascii_lowercase().as_str() {
        "" | "open" => (true, false),
        "closed" => (false, true),
        "any" | "all" => (true, true),
        _ => {
            let text = format!("Error decoding state for {}", query.text("state"));
            return Err(Refusal { status: 400, text });
        }
    };
    if !sort.is_empty() && !SORTS.contains(&sort) {
        return Err(Refusal { status: 400, text: format!("invalid sorting option: {sort}") });
    }
    if (sort == "stop" || sort == "reason") && open {
        let text = format!("sort by {sort} only valid on closed connections");
        return Err(Refusal { status: 400, text });
    }
    if cid > 0 {
        limit = 1;
    }
    let (user, account) = (query.text("user"), query.text("acc"));
    let filter = query.text("filter_subject");
    if !filter.is_empty() && account.is_empty() {
        let text = "filter by subject only valid with account filtering".to_owned();
        return Err(Refusal { status: 400, text });
    }
    let broker = scene.broker;
    let known = account.is_empty() || broker.has_account(account);
    let mut total = 0;
    let mut found: Vec<((Reverse<u64>, u64), ConnView<'_>)> = Vec::new();
    let all = broker
        .closed_conns()
        .filter(|_| closed)
        .chain(broker.conns(scene.now).filter(|_| open))
        .filter(|view| account.is_empty() || view.account == account);
    for view in all {
        total += 1;
        let wanted = (cid == 0 || view.cid == cid)
            && (user.is_empty() || view.user == user)
            && query.text("mqtt_client").is_empty()
            && (filter.is_empty()
                || view.id.is_some_and(|id| {
                    broker
                        .subs_of(id)
                        .any(|sub| crate::subject::is_subset(filter.as_bytes(), sub.subject))
                }));
        if wanted {
            found.push((rank(sort, &view, scene.now.wall), view));
        }
    }
    sorted::sort_by_key(&mut found, |(rank, _)| *rank);
    let shown = found.get(offset.min(found.len())..).unwrap_or(&[]);
    let shown = shown.get(..limit).unwrap_or(shown);
    if known {
        begin(json, scene);
    } else {
        json.open();
        json.text("server_id", "");
        json.time("now", scene.now.wall);
    }
    json.count("num_connections", shown.len());
    json.number("total", total);
    json.count("offset", offset);
    json.count("limit", limit);
    if known {
        json.list_at("connections");
        for (_, view) in shown {
            connection(json, scene, view, auth, subs);
            if json.len() > PAGE_BYTES_MAX {
                return Err(Refusal::too_large());
            }
        }
        json.close_list();
    } else {
        json.raw("connections", b"null");
    }
    json.close();
    Ok(())
}

fn connection(json: &mut Json, scene: Scene<'_>, view: &ConnView<'_>, auth: bool, subs: Subs) {
    let (ip, port) = host_and_port(view.peer);
    let end = view.stop.map_or(scene.now.wall, |(at, _)| at);
    json.open();
    json.number("cid", view.cid);
    if view.is_leaf {
        json.text("kind", "Leafnode");
    } else {
        json.text("kind", "Client");
        json.text("type", if view.is_web { "websocket" } else { "nats" });
    }
    json.text("ip", ip);
    json.number("port", port);
    json.time("start", view.start);
    json.time("last_activity", view.last_activity);
    if let Some((at, reason)) = view.stop {
        json.time("stop", at);
        json.text("reason", reason.text());
    }
    if !view.rtt.is_zero() {
        json.shown("rtt", GoDuration(view.rtt));
    }
    json.shown("uptime", Uptime(between(view.start, end)));
    json.shown("idle", Uptime(between(view.last_activity, end)));
    json.count("pending_bytes", view.pending_bytes);
    json.number("in_msgs", view.counts.msgs_in);
    json.number("out_msgs", view.counts.msgs_out);
    json.number("in_bytes", view.counts.bytes_in);
    json.number("out_bytes", view.counts.bytes_out);
    json.number_some("stalls", view.stalls.into());
    json.count("subscriptions", view.subscriptions);
    if !view.is_leaf {
        json.text_some("name", view.name);
    }
    json.text_some("lang", view.lang);
    json.text_some("version", view.version);
    if let Some(tls) = &view.tls {
        json.text("tls_version", tls.version);
        json.text("tls_cipher_suite", tls.cipher);
        if auth {
            certificates(json, view.certificates);
        }
        json.flag_some("tls_first", tls.first);
    }
    // Who could not sign in belongs to nobody.
    let refused = |(_, reason)| {
        matches!(reason, CloseReason::AuthenticationFailure | CloseReason::AuthenticationTimeout)
    };
    let account = if view.stop.is_some_and(refused) { "" } else { view.account };
    if auth {
        json.text_some("authorized_user", view.user);
        if account != "$G" {
            json.text_some("account", account);
        }
    }
    let mut list = view.id.into_iter().flat_map(|id| scene.broker.subs_of(id)).peekable();
    if subs != Subs::No && list.peek().is_some() {
        json.list_at(match subs {
            Subs::Details => "subscriptions_list_detail",
            Subs::No | Subs::Subjects => "subscriptions_list",
        });
        for sub in list {
            match subs {
                Subs::Details => detail(json, &sub, false),
                Subs::No | Subs::Subjects => json.item(&String::from_utf8_lossy(sub.subject)),
            }
            if json.len() > PAGE_BYTES_MAX {
                break;
            }
        }
        json.close_list();
    }
    if auth {
        json.text_some("name_tag", account);
    }
    json.close();
}

/// What a client showed in its TLS handshake.
fn certificates(json: &mut Json, shown: &[Certificate]) {
    if shown.is_empty() {
        return;
    }
    json.list_at("tls_peer_certs");
    for certificate in shown {
        json.open();
        json.text("subject", &certificate.subject_text());
        json.text("spki_sha256", &certificate.spki_sha256);
        json.text("cert_sha256", &certificate.sha256);
        json.close();
    }
    json.close_list();
}

/// One subscription, with its account where those of several are listed.
pub(super) fn detail(json: &mut Json, sub: &SubView<'_>, with_account: bool) {
    json.open();
    if with_account {
        json.text_some("account", sub.account);
        json.text_some("account_tag", sub.account);
    }
    json.subject("subject", sub.subject);
    if !sub.queue.is_empty() {
        json.subject("qgroup", sub.queue);
    }
    if sub.sid.is_empty() && sub.cid != 0 {
        // Links name their subscriptions by what these are.
        let queue = [&b" "[..], sub.queue].concat();
        let queue = if sub.queue.is_empty() { &[][..] } else { &queue };
        json.subject("sid", &[sub.subject, queue].concat());
    } else {
        json.subject("sid", sub.sid);
    }
    json.number("msgs", sub.msgs);
    json.number_some("max", sub.max);
    json.number("cid", sub.cid);
    json.close();
}
