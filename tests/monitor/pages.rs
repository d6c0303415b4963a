//! Pages and services of both servers, compared.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use tempfile::TempDir;

use crate::certificates::certificates;
use crate::differences::may_differ;
use crate::server::sedge_binary;
use crate::shape::Json;
use crate::state::State;
use crate::world::{Hub, nats_server};

const PAGES: &[&str] = &[
    "/varz",
    "/connz",
    "/connz?auth=1",
    "/connz?subs=1",
    "/connz?subs=detail&auth=true",
    "/connz?state=closed&auth=1",
    "/connz?state=any",
    "/connz?state=bad",
    "/connz?sort=subs",
    "/connz?sort=start",
    "/connz?sort=pending",
    "/connz?sort=msgs_to",
    "/connz?sort=msgs_from",
    "/connz?sort=bytes_to",
    "/connz?sort=bytes_from",
    "/connz?sort=last",
    "/connz?sort=idle",
    "/connz?sort=uptime",
    "/connz?sort=rtt",
    "/connz?sort=cid",
    "/connz?sort=bad",
    "/connz?sort=stop",
    "/connz?limit=1",
    "/connz?limit=x",
    "/connz?offset=2",
    "/connz?cid=99999",
    "/connz?acc=A",
    "/connz?mqtt_client=x",
    "/connz?subs=maybe",
    "/connz?state=closed&sort=stop",
    "/connz?state=closed&sort=reason",
    "/connz?state=open&sort=reason",
    "/connz?acc=nobody",
    "/connz?user=b&auth=1",
    "/connz?auth=maybe",
    "/subsz",
    "/subsz?subs=1",
    "/subsz?subs=1&acc=A&test=orders.1&limit=1",
    "/subsz?subs=1&acc=A&test=orders.1",
    "/subsz?test=a..b&subs=1",
    "/subsz?limit=x",
    "/subsz?offset=x",
    "/subsz?subs=maybe",
    "/subsz?acc=nobody&subs=1",
    "/subscriptionsz?subs=1&acc=B",
    "/accountz",
    "/accountz?acc=A",
    "/accountz?acc=B",
    "/accountz?acc=SYS",
    "/accountz?acc=nobody",
    "/accstatz",
    "/accstatz?unused=1",
    "/accstatz?unused=x",
    "/accountz?acc=$G",
    "/jsz",
    "/jsz?accounts=1",
    "/jsz?streams=1",
    "/jsz?consumers=1",
    "/jsz?consumers=1&config=1",
    "/jsz?acc=A",
    "/jsz?acc=A&consumers=1&config=1&direct-consumers=1",
    "/jsz?acc=nobody",
    "/jsz?raft=1",
    "/jsz?limit=x",
    "/jsz?accounts=x",
    "/jsz?leader-only=1",
    "/jsz?stream-leader-only=1&acc=A&streams=1",
    "/jsz?accounts=1&limit=1&offset=1",
    "/leafz",
    "/leafz?subs=1",
    "/leafz?acc=A",
    "/leafz?acc=B",
    "/leafz?subs=x",
    "/routez",
    "/routez?subs=1",
    "/routez?subs=detail",
    "/routez?subs=x",
    "/gatewayz",
    "/gatewayz?accs=1",
    "/gatewayz?accs=x",
    "/gatewayz?gw_name=x&acc_name=y",
    "/healthz",
    "/healthz?js-enabled-only=1",
    "/healthz?js-server-only=1",
    "/healthz?js-enabled=1",
    "/healthz?details=1",
    "/healthz?js-meta-only=1",
    "/healthz?js-enabled=x",
    "/healthz?details=x",
    "/healthz?account=A&consumer=C",
    "/healthz?account=B",
    "/healthz?account=A",
    "/healthz?account=nobody",
    "/healthz?account=A&stream=S",
    "/healthz?account=A&stream=nothing",
    "/healthz?stream=S",
    "/healthz?account=A&stream=S&consumer=C",
    "/healthz?account=A&stream=S&consumer=nobody&details=1",
    "/raftz",
    "/raftz?acc=A",
    "/nowhere",
    "/varz/",
];

const SERVICES: &[(&str, &str)] = &[
    ("SERVER.PING", ""),
    ("SERVER.PING.IDZ", ""),
    ("SERVER.ID.STATSZ", ""),
    ("SERVER.ID.VARZ", ""),
    ("SERVER.ID.CONNZ", ""),
    ("SERVER.ID.CONNZ", "{\"auth\":true,\"subscriptions\":true}"),
    ("SERVER.ID.CONNZ", "{\"state\":1,\"auth\":true}"),
    ("SERVER.ID.CONNZ", "{\"sort\":\"bad\"}"),
    ("SERVER.ID.SUBSZ", ""),
    ("SERVER.ID.SUBSZ", "{\"subscriptions\":true,\"account\":\"A\"}"),
    ("SERVER.ID.ROUTEZ", ""),
    ("SERVER.ID.GATEWAYZ", ""),
    ("SERVER.ID.LEAFZ", ""),
    ("SERVER.ID.ACCOUNTZ", ""),
    ("SERVER.ID.ACCOUNTZ", "{\"account\":\"A\"}"),
    ("SERVER.ID.ACCOUNTZ", "{\"account\":\"nobody\"}"),
    ("SERVER.ID.JSZ", ""),
    ("SERVER.ID.JSZ", "{\"account\":\"A\",\"streams\":true,\"consumer\":true,\"config\":true}"),
    ("SERVER.ID.HEALTHZ", ""),
    ("SERVER.ID.HEALTHZ", "{\"account\":\"nobody\"}"),
    ("SERVER.ID.RAFTZ", ""),
    ("SERVER.ID.PROFILEZ", ""),
    ("SERVER.ID.KICK", "{\"cid\":99999}"),
    ("SERVER.ID.LDM", "{\"cid\":99999}"),
    ("SERVER.ID.RELOAD", ""),
    ("SERVER.ID.RELOAD", "x"),
    ("ACCOUNT.A.CONNZ", ""),
    ("ACCOUNT.A.SUBSZ", ""),
    ("ACCOUNT.B.LEAFZ", ""),
    ("ACCOUNT.A.JSZ", "{\"streams\":true,\"consumer\":true}"),
    ("ACCOUNT.B.JSZ", ""),
    ("ACCOUNT.A.INFO", ""),
    ("ACCOUNT.nobody.INFO", ""),
    ("ACCOUNT.A.STATZ", ""),
    ("ACCOUNT.A.CONNS", ""),
    ("ACCOUNT.PING.STATZ", "{\"accounts\":[\"A\"]}"),
    ("ACCOUNT.NSUBS", "{\"acc\":\"A\",\"subject\":\"orders.1\"}"),
    ("USER.INFO", ""),
];

/// Both servers in the same state; `None` where something is missing.
fn both() -> Option<(State, State, (Hub, Hub, TempDir))> {
    let (nats, certificates) = (nats_server()?, certificates()?);
    let accounts = "accounts { H { users: [ {user: l, password: p}, {user: h, password: p} ] } }";
    // A hub takes one link of a server of this name.
    let (one, other) = (Hub::start("hub", "", accounts)?, Hub::start("hub", "", accounts)?);
    let theirs = State::reach(&nats, one.leaf_address, certificates.path());
    let ours = State::reach(&sedge_binary(), other.leaf_address, certificates.path());
    Some((theirs, ours, (one, other, certificates)))
}

/// A page: its status, the shape of its JSON or its text, and the order of the members.
fn read(page: &str, answer: &str) -> (Vec<String>, BTreeSet<[String; 3]>) {
    let (status, body) = match answer.split_once(' ') {
        Some((status, body)) if page.starts_with('/') => (status, body),
        _ => ("", answer),
    };
    let mut lines = vec![format!("status {status}")];
    let mut order = BTreeSet::new();
    match Json::read(body) {
        Ok(json) => {
            lines.extend(json.shape());
            json.order("", &mut order);
        }
        Err(_) => lines.extend(body.lines().map(str::to_owned)),
    }
    lines.retain(|line| !may_differ(page, line));
    (lines, order)
}

/// What differs, as a text; empty: nothing.
fn compare(page: &str, theirs: &str, ours: &str) -> String {
    let ((left, before), (right, after)) = (read(page, theirs), read(page, ours));
    let mut out = String::new();
    for line in left.iter().filter(|line| !right.contains(line)) {
        let _ = writeln!(out, "  nats-server only: {line}");
    }
    for line in right.iter().filter(|line| !left.contains(line)) {
        let _ = writeln!(out, "  Sedge only: {line}");
    }
    for [path, first, second] in &after {
        let turned = [path.clone(), second.clone(), first.clone()];
        let sorted = path.ends_with("http_req_stats");
        if before.contains(&turned) && !after.contains(&turned) && !sorted {
            let _ = writeln!(out, "  order: Sedge has {first} before {second} in {path}");
        }
    }
    if out.is_empty() { out } else { format!("{page}\n{out}") }
}

#[test]
fn pages_have_the_members_of_nats_server_in_its_order() {
    let Some((theirs, ours, _hub)) = both() else { return };
    let found: String =
        PAGES.iter().map(|page| compare(page, &theirs.page(page), &ours.page(page))).collect();
    assert!(found.is_empty(), "{found}");
}

#[test]
fn the_index_leads_to_every_page_that_of_nats_server_leads_to() {
    let Some((theirs, ours, _hub)) = both() else { return };
    let links = |state: &State| -> BTreeSet<String> {
        let body = state.page("/");
        assert!(body.starts_with("200 "), "{body}");
        let links = body.split("href=").skip(1).map(|link| {
            let end = link.find([' ', '>']).unwrap_or(link.len());
            link[..end].trim_matches('"').trim_start_matches('.').to_owned()
        });
        links.filter(|link| link.starts_with('/')).collect()
    };
    let (theirs, ours) = (links(&theirs), links(&ours));
    assert!(theirs.len() > 10 && theirs.is_subset(&ours), "{theirs:?} {ours:?}");
}

#[test]
fn services_answer_as_those_of_nats_server() {
    let Some((mut theirs, mut ours, _hub)) = both() else { return };
    let mut found = String::new();
    for (name, options) in SERVICES {
        let answer = |state: &mut State| {
            let id = state.id.clone();
            let subject = format!("$SYS.REQ.{}", name.replace(".ID.", &format!(".{id}.")));
            state.service(&subject, options)
        };
        found += &compare(&format!("{name} {options}"), &answer(&mut theirs), &answer(&mut ours));
    }
    for name in ["USER.INFO", "ACCOUNT.PING.STATZ", "SERVER.PING.CONNZ", "ACCOUNT.PING.CONNZ"] {
        let answer = |state: &mut State| state.service_for_a(&format!("$SYS.REQ.{name}"));
        found += &compare(&format!("A: {name}"), &answer(&mut theirs), &answer(&mut ours));
    }
    for (subject, count) in [("_INBOX.none", "0"), ("", "0")] {
        for state in [&mut theirs, &mut ours] {
            assert_eq!(state.service("$SYS.DEBUG.SUBSCRIBERS", subject), count);
        }
    }
    assert!(found.is_empty(), "{found}");
}
