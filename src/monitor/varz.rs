//! `/varz`: the server as a whole.

use super::{Json, Monitor, Scene, Uptime, WebShown, between, process};
use crate::broker::connect::{API_LEVEL, PROTOCOL_VERSION};
use crate::broker::view::ByKind;
use crate::jetstream::JetStream;
use crate::time::nanos;

/// The flags of nats-server 2.15.1, with what they are there unless set.
const FEATURE_FLAGS: [(&str, bool); 4] = [
    ("js_ack_fc_v2", false),
    ("js_api_reply_v2", false),
    ("js_raft_delete_range", true),
    ("js_snapshot_sources", false),
];

impl Monitor {
    pub(super) fn varz(&mut self, json: &mut Json, scene: Scene<'_>) {
        let options = scene.broker.options();
        let totals = scene.broker.totals();
        let cpu = self.processor.percent(scene.now.instant);
        let settings = &self.settings;
        json.open();
        json.text("server_id", &options.server_id);
        json.text("server_name", &options.server_name);
        json.text("version", PROTOCOL_VERSION);
        json.number("proto", 1);
        json.text("go", concat!("sedge ", env!("CARGO_PKG_VERSION")));
        json.text("host", &settings.host);
        json.number("port", settings.port.into());
        json.flag_some("auth_required", settings.auth_required);
        json.flag_some("tls_required", settings.tls_required);
        json.flag_some("tls_verify", settings.tls_verify);
        json.count("max_connections", options.max_connections);
        json.number_some("max_subscriptions", options.max_subscriptions as u64);
        json.number("ping_interval", nanos(options.ping_interval));
        json.number("ping_max", options.ping_max.into());
        json.text("http_host", &settings.http_host);
        json.int("http_port", settings.http_port);
        json.text("http_base_path", &settings.http_base_path);
        json.int("https_port", settings.https_port);
        json.float("auth_timeout", options.auth_timeout.as_secs_f64());
        json.count("max_control_line", options.max_control_line);
        json.count("max_payload", options.max_payload);
        json.count("max_pending", options.max_pending);
        for name in ["cluster", "gateway"] {
            json.open_at(name);
            json.close();
        }
        self.leaf(json);
        json.open_at("mqtt");
        json.close();
        json.open_at("websocket");
        if let Some(web) = &self.settings.web {
            let port = options.web_socket.as_ref().map_or(0, |offer| offer.port);
            web_socket(json, web, port);
        }
        json.close();
        let settings = &self.settings;
        json.open_at("jetstream");
        if let Some((_, js)) = scene.broker.jetstreams().next() {
            json.open_at("config");
            self.jetstream_config(json, js, true);
            json.close();
            json.open_at("stats");
            jetstream_stats(json, scene);
            json.close();
            json.open_at("limits");
            jetstream_limits(json, js);
            json.close();
        }
        json.close();
        json.float("tls_timeout", settings.tls_timeout.as_secs_f64());
        json.number("write_deadline", nanos(options.write_deadline));
        json.text_some("write_timeout", settings.write_timeout);
        json.time("start", settings.start);
        json.time("now", scene.now.wall);
        json.shown("uptime", Uptime(between(settings.start, scene.now.wall)));
        json.number("mem", process::resident_bytes());
        json.count("cores", process::processors());
        json.count("gomaxprocs", process::processors());
        json.float("cpu", cpu);
        json.count("connections", totals.clients);
        json.number("total_connections", totals.total_connections);
        json.number("routes", 0);
        json.number("remotes", 0);
        json.count("leafnodes", totals.leafs);
        let clients = totals.client_counts;
        let mut all = clients;
        all.add(totals.leaf_counts);
        for (kind, counts) in [("", all), ("_client", clients)] {
            json.number(&format!("in{kind}_msgs"), counts.msgs_in);
            json.number(&format!("in{kind}_bytes"), counts.bytes_in);
        }
        for (kind, counts) in [("", all), ("_client", clients)] {
            json.number(&format!("out{kind}_msgs"), counts.msgs_out);
            json.number(&format!("out{kind}_bytes"), counts.bytes_out);
        }
        json.number("slow_consumers", totals.slow_consumers.sum());
        json.number("stale_connections", totals.stale.sum());
        json.number("stalled_clients", totals.stalls);
        json.count("subscriptions", totals.subscriptions);
        json.open_at("http_req_stats");
        for (path, count) in self.counts_shown() {
            json.number(path, count);
        }
        json.close();
        json.time("config_load_time", settings.config_load_time);
        json.text("config_digest", &settings.config_digest);
        self.tags(json);
        self.feature_flags(json);
        json.text_some("system_account", scene.broker.system_account());
        by_kind(json, "slow_consumer_stats", totals.slow_consumers);
        by_kind(json, "stale_connection_stats", totals.stale);
        json.open_at("disk_io_wait_stats");
        for name in ["waiters", "waits", "wait_time", "max_wait_time"] {
            json.number(name, 0);
        }
        json.close();
        if let Some(at) = settings.tls_not_after {
            json.time("tls_cert_not_after", at);
        }
        if !settings.trusted_proxies.is_empty() {
            json.open_at("proxies");
            json.list_at("trusted");
            for key in &settings.trusted_proxies {
                json.open();
                json.text("key", key);
                json.close();
            }
            json.close_list();
            json.close();
        }
        json.close();
    }

    /// `feature_flags`, as far as nats-server knows them: they switch nothing here.
    pub(super) fn feature_flags(&self, json: &mut Json) {
        json.open_at("feature_flags");
        for (name, default) in FEATURE_FLAGS {
            let set = self.settings.feature_flags.iter().rfind(|(known, _)| known == name);
            json.flag(name, set.map_or(default, |(_, value)| *value));
        }
        json.close();
    }

    /// `server_tags` and `server_metadata`.
    pub(super) fn tags(&self, json: &mut Json) {
        let settings = &self.settings;
        json.list_some("tags", &settings.tags);
        if !settings.metadata.is_empty() {
            json.open_at("metadata");
            for (key, value) in &settings.metadata {
                json.text(key, value);
            }
            json.close();
        }
    }

    fn leaf(&self, json: &mut Json) {
        json.open_at("leaf");
        if !self.settings.remotes.is_empty() {
            json.list_at("remotes");
            for remote in &self.settings.remotes {
                json.open();
                json.text_some("local_account", &remote.account);
                if !remote.tls_timeout.is_zero() {
                    json.float("tls_timeout", remote.tls_timeout.as_secs_f64());
                }
                json.list_at("urls");
                for url in &remote.urls {
                    json.item(url);
                }
                json.close_list();
                if !(remote.deny_exports.is_empty() && remote.deny_imports.is_empty()) {
                    json.open_at("deny");
                    for (name, list) in
                        [("exports", &remote.deny_exports), ("imports", &remote.deny_imports)]
                    {
                        json.list_some(name, list);
                    }
                    json.close();
                }
                json.close();
            }
            json.close_list();
        }
        json.close();
    }

    /// Members of the `config` object of JetStream.
    pub(super) fn jetstream_config(&self, json: &mut Json, js: &JetStream, directory: bool) {
        let options = js.settings();
        let most = i64::MAX.unsigned_abs();
        json.number("max_memory", options.max_memory.unwrap_or(most).min(most));
        json.number("max_storage", options.max_storage.unwrap_or(most).min(most));
        if directory {
            json.text_some("store_dir", &options.store_dir);
        }
        if let Some(sync) = self.settings.sync {
            json.number_some("sync_interval", nanos(sync.interval));
            json.flag_some("sync_always", sync.always);
        }
        json.text_some("domain", options.domain.as_deref().unwrap_or(""));
        json.flag("compress_ok", true);
        json.flag_some("strict", options.strict);
    }
}

fn web_socket(json: &mut Json, web: &WebShown, port: u16) {
    json.text_some("host", &web.host);
    json.number("port", port.into());
    json.text_some("advertise", &web.advertise);
    json.text_some("no_auth_user", &web.no_auth_user);
    json.number_some("handshake_timeout", nanos(web.handshake_timeout));
    if !web.auth_timeout.is_zero() {
        json.float("auth_timeout", web.auth_timeout.as_secs_f64());
    }
    json.flag_some("no_tls", web.no_tls);
    json.flag_some("tls_map", web.tls_map);
    json.list_some("tls_pinned_certs", &web.tls_pinned_certs);
    json.flag_some("same_origin", web.same_origin);
    json.list_some("allowed_origins", &web.allowed_origins);
    json.flag_some("compression", web.compression);
    if let Some(at) = web.tls_not_after {
        json.time("tls_cert_not_after", at);
    }
}

/// Members of the statistics of JetStream.
pub(super) fn jetstream_stats(json: &mut Json, scene: Scene<'_>) {
    let numbers = scene.jetstream_numbers();
    json.number("memory", numbers.memory);
    json.number("storage", numbers.storage);
    json.number("reserved_memory", numbers.reserved_memory);
    json.number("reserved_storage", numbers.reserved_storage);
    json.count("accounts", scene.broker.jetstreams().count());
    json.number("ha_assets", 0);
    json.open_at("api");
    json.number("level", API_LEVEL.into());
    json.number("total", numbers.api_total);
    json.number("errors", numbers.api_errors);
    json.close();
}

/// Members of the `limits` object of JetStream.
pub(super) fn jetstream_limits(json: &mut Json, js: &JetStream) {
    let limits = &js.settings().limits;
    let number = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
    json.number_some("max_request_batch", number(limits.max_request_batch).unwrap_or(0));
    json.number_some("max_ack_pending", number(limits.max_ack_pending).unwrap_or(0));
    json.number_some("max_duplicate_window", limits.duplicate_window.map_or(0, nanos));
}

pub(super) fn by_kind(json: &mut Json, key: &str, numbers: ByKind) {
    json.open_at(key);
    json.number("clients", numbers.clients);
    json.number("routes", 0);
    json.number("gateways", 0);
    json.number("leafs", numbers.leafs);
    json.close();
}
