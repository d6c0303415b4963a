//! Looking inside: the monitoring pages, `/metrics`, and the answers of `$SYS` services.
//!
//! Owns what the pages say and how they are asked: JSON with nats-server's members in its
//! order, so that its tools read them. Reads the broker, JetStream and the store, and changes
//! nothing. Does not own sockets (`crate::server`) nor the counting (`crate::broker`).
//!
//! | File | Owns |
//! | --- | --- |
//! | `http` | HTTP/1.1, one connection at a time |
//! | `query` | parameters, and the texts about wrong ones |
//! | `json` | the writer |
//! | `varz`, `connz`, `subsz`, `accounts`, `jsz`, `leafz`, `healthz` | one page each |
//! | `declared` | mappings, exports and imports of an account |
//! | `metrics` | Prometheus |
//! | `system` | the answers of `$SYS` services |
//! | `events` | what the `$SYS` events say |
//! | `process` | memory and processor time |
//!
//! # Invariants
//! - A page lists at most what its `limit` says, and is at most [`PAGE_BYTES_MAX`] long.
//! - The members of a page do not depend on what happens to be zero, but where nats-server
//!   leaves them out.
//!
//! Source: NATS docs, "Monitoring"; members, order and texts seen from nats-server 2.15.1.

mod accounts;
mod connz;
mod declared;
mod events;
mod healthz;
pub mod http;
mod json;
mod jsz;
mod leafz;
mod metrics;
mod process;
mod query;
mod subsz;
mod system;
mod varz;

use std::fmt::Write as _;

use crate::broker::Broker;
use crate::id::Rng;
use crate::jetstream::view::Numbers;
use crate::store::StoreStats;
use crate::time::{Duration, Now, Timestamp};
pub use events::Told;
use http::{Kind, Request, Response};
pub use json::{Json, indented};
pub use query::{BadQuery, Query};
pub use system::{Action, Answer};

/// One page, in bytes, before it is laid out. Over it: 413, with the advice to use `limit`.
pub const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What the pages show of the configuration and the broker does not know.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What is listened on for clients.
    pub host: String,
    /// See [`Settings::host`].
    pub port: u16,
    /// Somebody has to sign in.
    pub auth_required: bool,
    /// Clients must use TLS.
    pub tls_required: bool,
    /// They must show a certificate.
    pub tls_verify: bool,
    /// How long a TLS handshake may take.
    pub tls_timeout: Duration,
    /// When the certificate of the client port ends.
    pub tls_not_after: Option<Timestamp>,
    /// `write_timeout`; empty: the default.
    pub write_timeout: &'static str,
    /// `feature_flags` that were set.
    pub feature_flags: Vec<(String, bool)>,
    /// Public keys of proxies that are trusted.
    pub trusted_proxies: Vec<String>,
    /// What is listened on for monitoring.
    pub http_host: String,
    /// See [`Settings::http_host`]; 0: not; -1: one of the system's choice.
    pub http_port: i64,
    /// With TLS; 0: not.
    pub https_port: i64,
    /// What every path begins with; no slash at its end.
    pub http_base_path: String,
    /// `sha256:` of what the file says; empty without a file.
    pub config_digest: String,
    /// When the configuration was read.
    pub config_load_time: Timestamp,
    /// When the server began.
    pub start: Timestamp,
    /// `server_tags`.
    pub tags: Vec<String>,
    /// `server_metadata`.
    pub metadata: Vec<(String, String)>,
    /// The configured remotes.
    pub remotes: Vec<RemoteShown>,
    /// How JetStream syncs; `None`: it is off.
    pub sync: Option<SyncShown>,
    /// The WebSocket listener, if there is one.
    pub web: Option<WebShown>,
}

/// A leaf remote of the configuration.
#[derive(Clone, Debug, Default)]
pub struct RemoteShown {
    /// Its local account.
    pub account: String,
    /// `host:port` of each URL.
    pub urls: Vec<String>,
    /// How long its TLS handshake may take.
    pub tls_timeout: Duration,
    /// `deny_imports`.
    pub deny_imports: Vec<String>,
    /// `deny_exports`.
    pub deny_exports: Vec<String>,
}

/// What is said of the WebSocket listener.
#[derive(Clone, Debug, Default)]
pub struct WebShown {
    /// Where it listens; the port is the broker's.
    pub host: String,
    /// What is announced in its place.
    pub advertise: String,
    /// Who comes without credentials.
    pub no_auth_user: String,
    /// Of an upgrade; zero: the default.
    pub handshake_timeout: Duration,
    /// Of a CONNECT; zero: the default.
    pub auth_timeout: Duration,
    /// Without TLS.
    pub no_tls: bool,
    /// Certificates name the users.
    pub tls_map: bool,
    /// The only certificates that are let in, in hexadecimal digits.
    pub tls_pinned_certs: Vec<String>,
    /// When its certificate ends.
    pub tls_not_after: Option<Timestamp>,
    /// Only pages of this host.
    pub same_origin: bool,
    /// Only pages of these.
    pub allowed_origins: Vec<String>,
    /// Offered.
    pub compression: bool,
}

/// How JetStream syncs.
#[derive(Clone, Copy, Debug)]
pub struct SyncShown {
    /// At most between two syncs.
    pub interval: Duration,
    /// Before each ack.
    pub always: bool,
}

/// The pages, in the order of the counts of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// `/`
    Index,
    /// `/varz`
    Varz,
    /// `/connz`
    Connz,
    /// `/routez`
    Routez,
    /// `/gatewayz`
    Gatewayz,
    /// `/leafz`
    Leafz,
    /// `/subsz`
    Subsz,
    /// `/accountz`
    Accountz,
    /// `/accstatz`
    Accstatz,
    /// `/jsz`
    Jsz,
    /// `/healthz`
    Healthz,
    /// `/ipqueuesz`
    Ipqueuesz,
    /// `/raftz`
    Raftz,
    /// `/stacksz`
    Stacksz,
    /// `/debug/vars`
    Vars,
    /// `/metrics`
    Metrics,
}

/// Where each page is, in the order of [`Page`]; `/subscriptionsz` is another name.
const PATHS: [(&str, Page); 17] = [
    ("/", Page::Index),
    ("/varz", Page::Varz),
    ("/connz", Page::Connz),
    ("/routez", Page::Routez),
    ("/gatewayz", Page::Gatewayz),
    ("/leafz", Page::Leafz),
    ("/subsz", Page::Subsz),
    ("/subscriptionsz", Page::Subsz),
    ("/accountz", Page::Accountz),
    ("/accstatz", Page::Accstatz),
    ("/jsz", Page::Jsz),
    ("/healthz", Page::Healthz),
    ("/ipqueuesz", Page::Ipqueuesz),
    ("/raftz", Page::Raftz),
    ("/stacksz", Page::Stacksz),
    ("/debug/vars", Page::Vars),
    ("/metrics", Page::Metrics),
];

/// A page that cannot be made: the status and the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Like HTTP's.
    pub status: u16,
    /// Why.
    pub text: String,
}

impl From<BadQuery> for Refusal {
    fn from(bad: BadQuery) -> Self {
        Self { status: 400, text: bad.0 }
    }
}

impl Refusal {
    fn too_large() -> Self {
        let text = format!(
            "the answer would be longer than {PAGE_BYTES_MAX} bytes; ask for less with limit \
             and offset"
        );
        Self { status: 413, text }
    }
}

/// What a page is made from.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// The time.
    pub now: Now,
    /// Everything that happens.
    pub broker: &'a Broker,
    /// What the store did, if there is one.
    pub store: Option<StoreStats>,
}

impl Scene<'_> {
    /// Numbers of the streams of all accounts.
    fn jetstream_numbers(&self) -> Numbers {
        let mut sum = Numbers::default();
        for (_, js) in self.broker.jetstreams() {
            sum.add(&js.numbers());
        }
        sum
    }
}

/// The pages and what they count.
#[derive(Debug)]
pub struct Monitor {
    /// What the configuration says. Replaced by a reload.
    pub settings: Settings,
    processor: process::Processor,
    requests: [u64; PATHS.len()],
    /// Answers of services and events so far.
    answers: u64,
    /// For the ids of events.
    rng: Rng,
}

impl Monitor {
    /// Pages that show `settings`.
    pub fn new(settings: Settings) -> Self {
        let seed = u64::try_from(settings.start.0).unwrap_or(0) ^ u64::from(std::process::id());
        Self {
            rng: Rng::new(seed),
            settings,
            processor: process::Processor::default(),
            requests: [0; PATHS.len()],
            answers: 0,
        }
    }

    /// Answers a request of the monitoring port.
    pub fn respond(&mut self, scene: Scene<'_>, request: &Request) -> Response {
        let base = &self.settings.http_base_path;
        let path = match request.path.strip_prefix(base.as_str()) {
            Some("") if !base.is_empty() => Some("/"),
            other => other,
        };
        let found = path.and_then(|path| PATHS.iter().position(|(known, _)| *known == path));
        let Some((index, (_, page))) = found.and_then(|at| Some((at, PATHS.get(at)?))) else {
            return Response::text(404, "404 page not found\n");
        };
        if let Some(count) = self.requests.get_mut(index) {
            *count += 1;
        }
        let query = Query::from_url(&request.query);
        match page {
            Page::Index => {
                Response { status: 200, kind: Kind::Html, body: self.index().into_bytes() }
            }
            Page::Metrics => {
                let body = self.metrics(scene).into_bytes();
                Response { status: 200, kind: Kind::Metrics, body }
            }
            Page::Stacksz => Response::text(200, "Sedge keeps no stacks to show.\n"),
            Page::Healthz => {
                let mut json = Json::new();
                match healthz::write(&mut json, scene, &query, false) {
                    Ok(status) => Response::json(status, json.into_bytes()),
                    Err(bad) => Response::text(400, bad.0),
                }
            }
            page => match self.page(scene, *page, &query) {
                Ok(json) => {
                    let step = if matches!(page, Page::Ipqueuesz) { 3 } else { 2 };
                    Response::json(200, indented(&json, step))
                }
                Err(refusal) => Response::text(refusal.status, refusal.text),
            },
        }
    }

    /// The JSON of a page, without blanks.
    pub fn page(
        &mut self,
        scene: Scene<'_>,
        page: Page,
        query: &Query,
    ) -> Result<Vec<u8>, Refusal> {
        let mut json = Json::new();
        match page {
            Page::Varz => self.varz(&mut json, scene),
            Page::Connz => connz::write(&mut json, scene, query)?,
            Page::Routez => {
                connz::subs(query)?;
                json.open();
                json.text("server_id", &scene.broker.options().server_id);
                json.text("server_name", &scene.broker.options().server_name);
                json.time("now", scene.now.wall);
                json.number("num_routes", 0);
                json.list_at("routes");
                json.close_list();
                json.close();
            }
            Page::Gatewayz => {
                query.flag("accs")?;
                begin(&mut json, scene);
                for way in ["outbound_gateways", "inbound_gateways"] {
                    json.open_at(way);
                    json.close();
                }
                json.close();
            }
            Page::Leafz => leafz::write(&mut json, scene, query)?,
            Page::Subsz => subsz::write(&mut json, scene, query)?,
            Page::Accountz => self.accountz(&mut json, scene, query)?,
            Page::Accstatz => accounts::accstatz(&mut json, scene, query)?,
            Page::Jsz => self.jsz(&mut json, scene, query)?,
            Page::Healthz => drop(healthz::write(&mut json, scene, query, true)?),
            Page::Ipqueuesz => {
                json.open();
                json.close();
            }
            Page::Raftz => {
                return Err(Refusal { status: 404, text: "No Raft nodes registered".to_owned() });
            }
            Page::Vars => {
                json.open();
                json.list_at("cmdline");
                for argument in std::env::args().take(1) {
                    json.item(&argument);
                }
                json.close_list();
                json.open_at("memstats");
                json.number("Sys", process::resident_bytes());
                json.close();
                json.close();
            }
            Page::Index | Page::Metrics | Page::Stacksz => {}
        }
        if json.len() > PAGE_BYTES_MAX {
            return Err(Refusal::too_large());
        }
        Ok(json.into_bytes())
    }

    /// Has it remotes? nats-server then says that it is in a cluster of its own name.
    fn is_linked(&self) -> bool {
        !self.settings.remotes.is_empty()
    }

    fn index(&self) -> String {
        let mut links = String::new();
        for (path, page) in PATHS {
            if !matches!(page, Page::Index) && path != "/subscriptionsz" {
                let base = &self.settings.http_base_path;
                // Writing to a String cannot fail.
                let _ = writeln!(links, "<a href=\"{base}{path}\">{path}</a><br>");
            }
        }
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head><title>Sedge</title></head>\n<body>\n\
             <h1>Sedge {}</h1>\n{links}</body>\n</html>\n",
            env!("CARGO_PKG_VERSION")
        )
    }

    /// How often each page was asked for, those that were.
    fn request_counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        PATHS
            .iter()
            .zip(self.requests)
            .filter(|(_, count)| *count > 0)
            .map(|((path, _), count)| (*path, count))
    }

    /// The same of the pages that nats-server counts, by their paths.
    fn counts_shown(&self) -> std::collections::BTreeMap<&'static str, u64> {
        let mut shown = std::collections::BTreeMap::new();
        for ((path, page), count) in PATHS.iter().zip(self.requests) {
            let path = if matches!(page, Page::Subsz) { "/subsz" } else { *path };
            let counted = !matches!(
                page,
                Page::Ipqueuesz | Page::Raftz | Page::Stacksz | Page::Vars | Page::Metrics
            );
            if counted && count > 0 {
                *shown.entry(path).or_insert(0) += count;
            }
        }
        shown
    }
}

/// How most pages begin.
fn begin(json: &mut Json, scene: Scene<'_>) {
    json.open();
    json.text("server_id", &scene.broker.options().server_id);
    json.time("now", scene.now.wall);
}

/// Seconds of a duration, in whole units of years, days, hours, minutes and seconds.
struct Uptime(Duration);

impl std::fmt::Display for Uptime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.0.as_secs();
        let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
        let years = days / 365;
        if years > 0 {
            write!(f, "{years}y{}d", days % 365)?;
        } else if days > 0 {
            write!(f, "{days}d")?;
        }
        if hours > 0 {
            write!(f, "{}h", hours % 24)?;
        }
        if minutes > 0 {
            write!(f, "{}m", minutes % 60)?;
        }
        write!(f, "{}s", seconds % 60)
    }
}

/// The time from one to the other, zero if it went backwards.
fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::from_nanos(u64::try_from(to.0.saturating_sub(from.0)).unwrap_or(0))
}

/// `host:port` in its parts; the host without brackets.
fn host_and_port(peer: &str) -> (&str, u64) {
    let (host, port) = peer.rsplit_once(':').unwrap_or((peer, ""));
    (host.trim_start_matches('[').trim_end_matches(']'), port.parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptimes_look_as_those_of_nats_server() {
        for (seconds, text) in [
            (0, "0s"),
            (61, "1m1s"),
            (3600, "1h0m0s"),
            (90_061, "1d1h1m1s"),
            (31_536_000 + 86_400, "1y1d0h0m0s"),
        ] {
            assert_eq!(Uptime(Duration::from_secs(seconds)).to_string(), text);
        }
    }

    #[test]
    fn every_page_has_its_place_in_the_counts() {
        let mut monitor = Monitor::new(Settings::default());
        let broker = Broker::new(crate::broker::options::Options::default(), None, 1);
        let scene = Scene { now: Now::default(), broker: &broker, store: None };
        for (path, _) in PATHS {
            let request = Request { path: path.to_owned(), query: String::new() };
            let response = monitor.respond(scene, &request);
            let fine = response.status == 200 || path == "/raftz";
            assert!(fine && !response.body.is_empty(), "{path}: {response:?}");
            if matches!(response.kind, Kind::Json) {
                serde_json::from_slice::<serde_json::Value>(&response.body).unwrap();
            }
        }
        assert_eq!(monitor.request_counts().count(), PATHS.len());
        monitor.settings.http_base_path = "/nats".to_owned();
        for (path, status) in [("/nats", 200), ("/nats/varz", 200), ("/varz", 404), ("/", 404)] {
            let request = Request { path: path.to_owned(), query: String::new() };
            assert_eq!(monitor.respond(scene, &request).status, status, "{path}");
        }
    }
}
