//! The answers of the server's own services, `$SYS.REQ.…`.
//!
//! Owns their envelope, filters and options. What most of them say is the page of the same
//! name.
//!
//! Source: NATS docs, "System Events & Services"; seen from nats-server 2.15.1.

use serde_json::{Map, Value};

use super::{Json, Monitor, Page, Query, Refusal, Scene, accounts, process};
use crate::broker::connect::PROTOCOL_VERSION;
use crate::broker::system::SystemRequest;
use crate::id::AccountId;

/// What comes of a request.
#[derive(Debug, Default)]
pub struct Answer {
    /// What to send; `None`: this server is not meant.
    pub payload: Option<Vec<u8>>,
    /// A connection to be closed.
    pub kick: Option<u64>,
}

/// Members of a request, and the parameter of a page each stands for.
const OPTIONS: [(&str, &str); 29] = [
    ("sort", "sort"),
    ("auth", "auth"),
    ("subscriptions", "subs"),
    ("offset", "offset"),
    ("limit", "limit"),
    ("cid", "cid"),
    ("mqtt_client", "mqtt_client"),
    ("user", "user"),
    ("acc", "acc"),
    ("account", "acc"),
    ("filter_subject", "filter_subject"),
    ("test", "test"),
    ("accounts", "accounts"),
    ("streams", "streams"),
    ("consumer", "consumers"),
    ("direct_consumer", "direct-consumers"),
    ("config", "config"),
    ("leader_only", "leader-only"),
    ("stream_leader_only", "stream-leader-only"),
    ("raft", "raft"),
    ("js-enabled", "js-enabled"),
    ("js-enabled-only", "js-enabled-only"),
    ("js-server-only", "js-server-only"),
    ("js-meta-only", "js-meta-only"),
    ("account", "account"),
    ("stream", "stream"),
    ("consumer", "consumer"),
    ("details", "details"),
    ("include_unused", "unused"),
];

impl Monitor {
    /// Answers a request.
    pub fn answer(&mut self, scene: Scene<'_>, request: &SystemRequest) -> Answer {
        let subject = String::from_utf8_lossy(&request.subject);
        let tokens: Vec<&str> = subject.split('.').skip(2).collect();
        let blank = request.payload.iter().all(u8::is_ascii_whitespace);
        let fields = match serde_json::from_slice::<Value>(&request.payload) {
            Ok(Value::Object(fields)) => fields,
            _ if blank => Map::new(),
            _ => return self.failed(scene, 400, "invalid request: not a JSON object"),
        };
        if !self.is_meant(scene, &fields) {
            return Answer::default();
        }
        let mut query = Query::from_json(&fields, &OPTIONS);
        match fields.get("state") {
            Some(Value::Number(state)) if state.as_u64() == Some(1) => query.set("state", "closed"),
            Some(Value::Number(state)) if state.as_u64() == Some(2) => query.set("state", "all"),
            _ => {}
        }
        if fields.get("subscriptions_detail") == Some(&Value::Bool(true)) {
            query.set("subs", "detail");
        }
        let own = scene.broker.account_name(request.account).to_owned();
        if request.account != AccountId::SYSTEM {
            // Whoever is not in the system account sees its own account only.
            query.set("acc", &own);
            return match tokens.as_slice() {
                ["USER", "INFO"] => self.user_info(scene, request),
                [_, "PING", "CONNZ"] => self.enveloped(scene, Page::Connz, &query),
                ["ACCOUNT", "PING", "STATZ"] => self.statz(scene, &fields, Some(&own)),
                _ => Answer::default(),
            };
        }
        match tokens.as_slice() {
            ["USER", "INFO"] => self.user_info(scene, request),
            ["SERVER", "PING"] | ["SERVER", _, "STATSZ"] => self.statsz(scene),
            ["SERVER", _, "IDZ"] => {
                let options = scene.broker.options();
                let mut json = Json::new();
                json.open();
                json.text("name", &options.server_name);
                json.text("host", &self.settings.host);
                json.text("id", &options.server_id);
                json.close();
                Answer { payload: Some(json.into_bytes()), kick: None }
            }
            ["SERVER", _, "KICK"] => {
                let cid = fields.get("cid").and_then(Value::as_u64).unwrap_or(0);
                if scene.broker.conns(scene.now).any(|view| view.cid == cid) {
                    let mut json = self.begin_envelope(scene);
                    json.close();
                    return Answer { payload: Some(json.into_bytes()), kick: Some(cid) };
                }
                self.failed(scene, 500, "no such client or leafnode id")
            }
            ["SERVER", _, name] => match page(name) {
                Some(page) => self.enveloped(scene, page, &query),
                None => Answer::default(),
            },
            ["ACCOUNT", "PING", "STATZ"] => self.statz(scene, &fields, None),
            ["ACCOUNT", account, "STATZ"] => self.statz(scene, &fields, Some(account)),
            ["ACCOUNT", account, "CONNS"] => {
                let views = scene.broker.account_views();
                let Some(view) = views.iter().find(|view| view.stats.name == *account) else {
                    return Answer::default();
                };
                let mut json = self.begin_envelope(scene);
                accounts::stats(&mut json, &view.stats);
                json.close();
                Answer { payload: Some(json.into_bytes()), kick: None }
            }
            ["ACCOUNT", account, "INFO"] => {
                let views = scene.broker.account_views();
                let Some(view) = views.iter().find(|view| view.stats.name == *account) else {
                    let text = format!("account {account:?} does not exist");
                    return self.failed(scene, 500, &text);
                };
                let mut json = self.begin_envelope(scene);
                json.open_at("data");
                accounts::detail(&mut json, scene, view);
                json.close();
                json.close();
                Answer { payload: Some(json.into_bytes()), kick: None }
            }
            ["ACCOUNT", account, name] => {
                query.set("acc", account);
                if *name == "SUBSZ" {
                    query.set("subs", "1");
                }
                match page(name) {
                    Some(page) => self.enveloped(scene, page, &query),
                    None => Answer::default(),
                }
            }
            _ => Answer::default(),
        }
    }

    /// Do the filters of a request name this server?
    fn is_meant(&self, scene: Scene<'_>, fields: &Map<String, Value>) -> bool {
        let options = scene.broker.options();
        let exact = fields.get("exact_match") == Some(&Value::Bool(true));
        let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or("");
        let fits = |wanted: &str, have: &str| {
            wanted.is_empty() || if exact { have == wanted } else { have.contains(wanted) }
        };
        let domain = text("domain");
        let tags = fields.get("tags").and_then(Value::as_array);
        fits(text("server_name"), &options.server_name)
            && fits(text("host"), &self.settings.host)
            && fits(text("cluster"), "")
            && (domain.is_empty() || options.domain.as_deref() == Some(domain))
            && tags.is_none_or(|tags| {
                tags.iter()
                    .filter_map(Value::as_str)
                    .all(|tag| self.settings.tags.iter().any(|have| have.eq_ignore_ascii_case(tag)))
            })
    }

    /// `{"server":{…}`; the rest and the end are the caller's.
    fn begin_envelope(&mut self, scene: Scene<'_>) -> Json {
        self.answers += 1;
        let options = scene.broker.options();
        let mut json = Json::new();
        json.open();
        json.open_at("server");
        json.text("name", &options.server_name);
        json.text("host", &self.settings.host);
        json.text("id", &options.server_id);
        json.text_some("domain", options.domain.as_deref().unwrap_or(""));
        json.text("ver", PROTOCOL_VERSION);
        if !self.settings.tags.is_empty() {
            json.list_at("tags");
            for tag in &self.settings.tags {
                json.item(tag);
            }
            json.close_list();
        }
        json.flag("jetstream", options.jetstream);
        // JetStream, and that snapshots are binary.
        json.number("flags", if options.jetstream { 3 } else { 0 });
        json.number("seq", self.answers);
        json.time("time", scene.now.wall);
        json.close();
        json
    }

    fn enveloped(&mut self, scene: Scene<'_>, page: Page, query: &Query) -> Answer {
        match self.page(scene, page, query) {
            Ok(data) => {
                let mut json = self.begin_envelope(scene);
                json.raw("data", &data);
                json.close();
                Answer { payload: Some(json.into_bytes()), kick: None }
            }
            Err(Refusal { text, .. }) => self.failed(scene, 500, &text),
        }
    }

    fn failed(&mut self, scene: Scene<'_>, code: u16, text: &str) -> Answer {
        let mut json = self.begin_envelope(scene);
        json.open_at("error");
        json.number("code", code.into());
        json.text("description", text);
        json.close();
        json.close();
        Answer { payload: Some(json.into_bytes()), kick: None }
    }

    fn user_info(&mut self, scene: Scene<'_>, request: &SystemRequest) -> Answer {
        let Some(view) = request.conn.and_then(|id| scene.broker.conn_view(scene.now, id)) else {
            return Answer::default();
        };
        let mut json = self.begin_envelope(scene);
        json.open_at("data");
        json.text("user", view.user);
        json.text("account", view.account);
        json.close();
        json.close();
        Answer { payload: Some(json.into_bytes()), kick: None }
    }

    fn statz(
        &mut self,
        scene: Scene<'_>,
        fields: &Map<String, Value>,
        one: Option<&str>,
    ) -> Answer {
        let unused = fields.get("include_unused") == Some(&Value::Bool(true));
        let listed: Option<Vec<&str>> = fields
            .get("accounts")
            .and_then(Value::as_array)
            .map(|names| names.iter().filter_map(Value::as_str).collect());
        let mut json = self.begin_envelope(scene);
        json.open_at("data");
        json.text("server_id", &scene.broker.options().server_id);
        json.time("now", scene.now.wall);
        json.list_at("account_statz");
        let mut any = false;
        for view in scene.broker.account_views() {
            let stats = &view.stats;
            let wanted = match (one, &listed) {
                (Some(name), _) => name == stats.name,
                (None, Some(names)) => names.contains(&stats.name),
                (None, None) => true,
            };
            if wanted && (unused || stats.clients + stats.leafs > 0) {
                any = true;
                json.open();
                accounts::stats(&mut json, stats);
                json.close();
            }
        }
        json.close_list();
        json.close();
        json.close();
        let silent = one.is_some() && !any;
        Answer { payload: (!silent).then(|| json.into_bytes()), kick: None }
    }

    /// The numbers that tools poll every server for.
    fn statsz(&mut self, scene: Scene<'_>) -> Answer {
        let cpu = self.processor.percent(scene.now.instant);
        let totals = scene.broker.totals();
        let mut json = self.begin_envelope(scene);
        json.open_at("statsz");
        json.time("start", self.settings.start);
        json.number("mem", process::resident_bytes());
        json.count("cores", process::processors());
        json.float("cpu", cpu);
        json.count("connections", totals.clients);
        json.number("total_connections", totals.total_connections);
        let views = scene.broker.account_views();
        let active = views.iter().filter(|view| view.stats.clients + view.stats.leafs > 0).count();
        json.count("active_accounts", active);
        json.count("subscriptions", totals.subscriptions);
        let clients = totals.client_counts;
        let mut all = clients;
        all.add(totals.leaf_counts);
        for (name, msgs, bytes) in [
            ("sent", all.msgs_out, all.bytes_out),
            ("sent_to_clients", clients.msgs_out, clients.bytes_out),
            ("received", all.msgs_in, all.bytes_in),
            ("received_from_clients", clients.msgs_in, clients.bytes_in),
        ] {
            json.open_at(name);
            json.number("msgs", msgs);
            json.number("bytes", bytes);
            json.close();
        }
        json.number("slow_consumers", totals.slow_consumers.sum());
        super::varz::by_kind(&mut json, "slow_consumer_stats", totals.slow_consumers);
        json.number_some("stale_connections", totals.stale.sum());
        super::varz::by_kind(&mut json, "stale_connection_stats", totals.stale);
        json.number_some("stalled_clients", totals.stalls);
        json.number("active_servers", 1);
        if let Some((_, js)) = scene.broker.jetstreams().next() {
            json.open_at("jetstream");
            json.open_at("config");
            self.jetstream_config(&mut json, js, false);
            json.close();
            json.open_at("stats");
            super::varz::jetstream_stats(&mut json, scene);
            json.close();
            json.open_at("limits");
            super::varz::jetstream_limits(&mut json, js);
            json.close();
            json.close();
        }
        json.count("gomaxprocs", process::processors());
        json.close();
        json.close();
        Answer { payload: Some(json.into_bytes()), kick: None }
    }
}

/// The page a service shows.
fn page(name: &str) -> Option<Page> {
    Some(match name {
        "VARZ" => Page::Varz,
        "CONNZ" => Page::Connz,
        "SUBSZ" => Page::Subsz,
        "ROUTEZ" => Page::Routez,
        "GATEWAYZ" => Page::Gatewayz,
        "LEAFZ" => Page::Leafz,
        "ACCOUNTZ" => Page::Accountz,
        "JSZ" => Page::Jsz,
        "HEALTHZ" => Page::Healthz,
        "EXPVARZ" => Page::Vars,
        "IPQUEUESZ" => Page::Ipqueuesz,
        "RAFTZ" => Page::Raftz,
        _ => return None,
    })
}
