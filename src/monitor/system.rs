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
use crate::broker::view::Permissions;
use crate::id::AccountId;
use crate::subject;

/// What comes of a request.
#[derive(Debug, Default)]
pub struct Answer {
    /// What to send; `None`: this server is not meant.
    pub payload: Option<Vec<u8>>,
    /// What else is to be done, before it is sent.
    pub action: Action,
}

impl From<Json> for Answer {
    fn from(json: Json) -> Self {
        Self { payload: Some(json.into_bytes()), action: Action::Nothing }
    }
}

/// What an operator asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Only an answer.
    #[default]
    Nothing,
    /// A connection to be closed.
    Kick(u64),
    /// A client to be told that it should go.
    AskToGo(u64),
    /// The configuration to be read anew; [`Monitor::reloaded`] then makes the answer.
    Reload,
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
        if tokens.as_slice() == ["SUBSCRIBERS"] {
            return Self::subscribers(scene, request);
        }
        let fields = match options(&request.payload) {
            Ok(fields) => fields,
            Err(_) if matches!(tokens.as_slice(), [.., "KICK" | "LDM" | "NSUBS"]) => {
                return Answer::default();
            }
            Err(text) => return self.failed(scene, 400, &text),
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
            ["SERVER", "PING"] | ["SERVER", _, "STATSZ"] => self.statsz(scene).into(),
            ["SERVER", _, "IDZ"] => {
                let options = scene.broker.options();
                let mut json = Json::new();
                json.open();
                json.text("name", &options.server_name);
                json.text("host", &self.settings.host);
                json.text("id", &options.server_id);
                json.close();
                json.into()
            }
            ["SERVER", _, what @ ("KICK" | "LDM")] => {
                let Some(cid) = fields.get("cid").and_then(Value::as_u64) else {
                    return Answer::default();
                };
                let found = scene.broker.conns(scene.now).find(|view| view.cid == cid);
                let (text, action) = if *what == "KICK" {
                    ("no such client or leafnode id", Action::Kick(cid))
                } else {
                    ("no such client id", Action::AskToGo(cid))
                };
                if found.is_none_or(|view| view.is_leaf && *what == "LDM") {
                    return self.failed(scene, 500, text);
                }
                let mut json = self.begin_envelope(scene);
                json.close();
                Answer { payload: Some(json.into_bytes()), action }
            }
            ["SERVER", _, "RELOAD"] => Answer { payload: None, action: Action::Reload },
            ["SERVER", _, "PROFILEZ"] => {
                let name = fields.get("name").and_then(Value::as_str).unwrap_or("");
                let mut json = self.begin_envelope(scene);
                json.open_at("data");
                json.raw("profile", b"null");
                let missing = "Profile name not specified".to_owned();
                let text =
                    if name.is_empty() { missing } else { format!("Profile {name:?} not found") };
                json.text("error", &text);
                json.close();
                json.close();
                json.into()
            }
            ["SERVER", _, "RAFTZ"] => {
                let mut json = self.begin_envelope(scene);
                json.raw("data", b"{}");
                json.close();
                json.into()
            }
            ["SERVER", _, name] => match page(name) {
                Some(page) => self.enveloped(scene, page, &query),
                None => Answer::default(),
            },
            ["ACCOUNT", "PING", "STATZ"] => self.statz(scene, &fields, None),
            ["ACCOUNT", account, "STATZ"] => self.statz(scene, &fields, Some(account)),
            ["ACCOUNT", account, "CONNS"] => {
                let id = self.rng.token(22);
                let Some(account) = scene.broker.account_named(account) else {
                    return Answer::default();
                };
                self.account_connections(scene, account, &id)
                    .map_or_else(Answer::default, Into::into)
            }
            ["ACCOUNT", "NSUBS"] => {
                let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or("");
                let queue = data_encoding::BASE64.decode(text("queue").as_bytes());
                let (Some(account), Ok(queue)) = (scene.broker.account_named(text("acc")), queue)
                else {
                    return Answer::default();
                };
                let count = listeners(scene, account, text("subject").as_bytes(), &queue);
                Answer { payload: Some(count.to_string().into_bytes()), action: Action::Nothing }
            }
            ["ACCOUNT", account, "JSZ"] => match self.account_jsz(scene, account, &query) {
                Ok(data) => self.with_data(scene, &data),
                Err(Refusal { text, .. }) => self.refused(scene, &text),
            },
            ["ACCOUNT", account, "INFO"] => {
                let views = scene.broker.account_views();
                let Some(view) = views.iter().find(|view| view.stats.name == *account) else {
                    return self.refused(scene, &format!("Account {account} does not exist"));
                };
                let mut json = self.begin_envelope(scene);
                json.open_at("data");
                self.account(&mut json, scene, view);
                json.close();
                json.close();
                json.into()
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
            && fits(text("cluster"), if self.is_linked() { &options.server_name } else { "" })
            && (domain.is_empty() || options.domain.as_deref() == Some(domain))
            && tags.is_none_or(|tags| {
                tags.iter()
                    .filter_map(Value::as_str)
                    .all(|tag| self.settings.tags.iter().any(|have| have.eq_ignore_ascii_case(tag)))
            })
    }

    /// `{"server":{…}`; the rest and the end are the caller's.
    fn begin_envelope(&mut self, scene: Scene<'_>) -> Json {
        let mut json = Json::new();
        json.open();
        json.open_at("server");
        self.server(&mut json, scene);
        json.close();
        json
    }

    /// The answer to a request about claims: `member` with this JSON.
    pub fn claims(&mut self, scene: Scene<'_>, member: &str, json: &[u8]) -> Vec<u8> {
        let mut answer = self.begin_envelope(scene);
        answer.raw(member, json);
        answer.close();
        answer.into_bytes()
    }

    /// Members that say which server speaks.
    pub(super) fn server(&mut self, json: &mut Json, scene: Scene<'_>) {
        self.answers += 1;
        let options = scene.broker.options();
        json.text("name", &options.server_name);
        json.text("host", &self.settings.host);
        json.text("id", &options.server_id);
        if self.is_linked() {
            json.text("cluster", &options.server_name);
        }
        json.text_some("domain", options.domain.as_deref().unwrap_or(""));
        json.text("ver", PROTOCOL_VERSION);
        self.tags(json);
        self.feature_flags(json);
        json.flag("jetstream", options.jetstream);
        // JetStream, and that snapshots are binary.
        json.number("flags", if options.jetstream { 3 } else { 0 });
        json.number("seq", self.answers);
        json.time("time", scene.now.wall);
    }

    fn enveloped(&mut self, scene: Scene<'_>, page: Page, query: &Query) -> Answer {
        match self.page(scene, page, query) {
            Ok(data) => self.with_data(scene, &data),
            Err(Refusal { text, .. }) => self.refused(scene, &text),
        }
    }

    fn with_data(&mut self, scene: Scene<'_>, data: &[u8]) -> Answer {
        let mut json = self.begin_envelope(scene);
        json.raw("data", data);
        json.close();
        json.into()
    }

    /// A page that cannot be made.
    fn refused(&mut self, scene: Scene<'_>, text: &str) -> Answer {
        let mut json = self.begin_envelope(scene);
        json.raw("data", b"null");
        error(&mut json, 500, text);
        json.close();
        json.into()
    }

    /// What came of a reload.
    pub fn reloaded(&mut self, scene: Scene<'_>, result: &Result<(), String>) -> Answer {
        if let Err(text) = result {
            return self.failed(scene, 500, text);
        }
        let mut json = self.begin_envelope(scene);
        json.close();
        json.into()
    }

    /// How many clients of the system account listen to `subject [queue]`.
    fn subscribers(scene: Scene<'_>, request: &SystemRequest) -> Answer {
        let text = String::from_utf8_lossy(&request.payload);
        let words: Vec<&str> = text.split_whitespace().collect();
        let count = match words.as_slice() {
            [subject] => listeners(scene, request.account, subject.as_bytes(), b""),
            [subject, queue] => {
                listeners(scene, request.account, subject.as_bytes(), queue.as_bytes())
            }
            _ => 0,
        };
        Answer { payload: Some(count.to_string().into_bytes()), action: Action::Nothing }
    }

    fn failed(&mut self, scene: Scene<'_>, code: u16, text: &str) -> Answer {
        let mut json = self.begin_envelope(scene);
        error(&mut json, code, text);
        json.close();
        json.into()
    }

    fn user_info(&mut self, scene: Scene<'_>, request: &SystemRequest) -> Answer {
        let Some(view) = request.conn.and_then(|id| scene.broker.conn_view(scene.now, id)) else {
            return Answer::default();
        };
        let mut json = self.begin_envelope(scene);
        json.open_at("data");
        json.text("user", view.user);
        json.text("account", view.account);
        json.text("account_name", view.account);
        if let Some(permissions) = request.conn.and_then(|id| scene.broker.permissions_of(id)) {
            permission_lists(&mut json, permissions);
        }
        json.close();
        json.close();
        json.into()
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
        Answer { payload: (!silent).then(|| json.into_bytes()), action: Action::Nothing }
    }

    /// The numbers that tools poll every server for.
    pub(super) fn statsz(&mut self, scene: Scene<'_>) -> Json {
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
        json.traffic("sent", all.msgs_out, all.bytes_out);
        json.traffic("sent_to_clients", clients.msgs_out, clients.bytes_out);
        json.traffic("received", all.msgs_in, all.bytes_in);
        json.traffic("received_from_clients", clients.msgs_in, clients.bytes_in);
        json.number("slow_consumers", totals.slow_consumers.sum());
        if totals.slow_consumers.sum() > 0 {
            super::varz::by_kind(&mut json, "slow_consumer_stats", totals.slow_consumers);
        }
        json.number_some("stale_connections", totals.stale.sum());
        if totals.stale.sum() > 0 {
            super::varz::by_kind(&mut json, "stale_connection_stats", totals.stale);
        }
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
        json
    }
}

/// The options of a request.
///
/// # Errors
/// Why they are none.
fn options(payload: &[u8]) -> Result<Map<String, Value>, String> {
    let first = payload.iter().find(|byte| !byte.is_ascii_whitespace());
    let Some(&first) = first else { return Ok(Map::new()) };
    if let Ok(Value::Object(fields)) = serde_json::from_slice(payload) {
        return Ok(fields);
    }
    Err(if br#"{["-0123456789tfn"#.contains(&first) {
        "invalid request: not a JSON object".to_owned()
    } else {
        format!("invalid character {:?} looking for beginning of value", char::from(first))
    })
}

fn error(json: &mut Json, code: u16, text: &str) {
    json.open_at("error");
    json.number("code", code.into());
    json.text("description", text);
    json.close();
}

/// Subscriptions of clients of an account that hear a subject or, if it has wildcards, that
/// are within it; only those of a queue group if it is named.
fn listeners(scene: Scene<'_>, account: AccountId, subject: &[u8], queue: &[u8]) -> usize {
    let account = scene.broker.account_name(account);
    let wide = subject::has_wildcard(subject);
    scene
        .broker
        .subs()
        .filter(|sub| sub.cid != 0 && sub.account == account)
        .filter(|sub| queue.is_empty() || sub.queue == queue)
        .filter(|sub| {
            if wide {
                subject::is_subset(sub.subject, subject)
            } else {
                subject::matches(subject, sub.subject)
            }
        })
        .count()
}

/// What a user may do.
fn permission_lists(json: &mut Json, permissions: &Permissions) {
    json.open_at("permissions");
    for (name, rules) in [("publish", &permissions.publish), ("subscribe", &permissions.subscribe)]
    {
        if rules.allow.is_empty() && rules.deny.is_empty() {
            continue;
        }
        json.open_at(name);
        for (list, entries) in [("allow", &rules.allow), ("deny", &rules.deny)] {
            if entries.is_empty() {
                continue;
            }
            json.list_at(list);
            for entry in entries {
                match &entry.queue {
                    Some(queue) => json.item(&format!("{} {queue}", entry.subject)),
                    None => json.item(&entry.subject),
                }
            }
            json.close_list();
        }
        json.close();
    }
    if let Some(responses) = permissions.responses {
        json.open_at("responses");
        json.int("max", responses.max.map_or(-1, i64::from));
        json.int("ttl", responses.expires.map_or(-1, |at| crate::time::nanos(at).cast_signed()));
        json.close();
    }
    json.close();
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
        _ => return None,
    })
}
