//! What `/accountz` shows of an account's mappings, exports, imports and answers under way.
//!
//! Owns their members. The declarations are the configuration's; what the server itself
//! shares with every account is told in the words of nats-server.
//!
//! Source: NATS docs, "Monitoring"; members and order seen from nats-server 2.15.1.

use super::accounts::declaration;
use super::{Json, Scene};
use crate::broker::view::account::{
    Destination, ExportKind, Import, ImportKind, Latency, Mapping, ResponseType, Sampling,
};
use crate::broker::view::{AccountView, export_of};
use crate::sorted;

/// What the system account exports to all others.
const SYSTEM_EXPORTS: [(&str, &str); 5] = [
    ("$SYS.DEBUG.SUBSCRIBERS", "Singleton"),
    ("$SYS.REQ.ACCOUNT.*.CONNZ", "Streamed"),
    ("$SYS.REQ.ACCOUNT.*.STATZ", "Streamed"),
    ("$SYS.REQ.USER.*.INFO", "Singleton"),
    (API, "Singleton"),
];

/// What every account imports from it: the subject there, with the account's name between
/// its parts; the subject here; does it see who asks?
const SYSTEM_IMPORTS: [(&str, &str, &str, bool); 4] = [
    ("$SYS.REQ.ACCOUNT.", ".CONNZ", "$SYS.REQ.ACCOUNT.PING.CONNZ", false),
    ("$SYS.REQ.ACCOUNT.", ".STATZ", "$SYS.REQ.ACCOUNT.PING.STATZ", false),
    ("$SYS.REQ.ACCOUNT.", ".CONNZ", "$SYS.REQ.SERVER.PING.CONNZ", false),
    ("$SYS.REQ.USER.", ".INFO", "$SYS.REQ.USER.INFO", true),
];

/// With JetStream, in both.
const API: &str = "$JS.API.>";

/// `mappings`: by subject; weights add up, smallest first, and what is left over stays.
pub(super) fn mappings(json: &mut Json, mappings: &[Mapping]) {
    if mappings.is_empty() {
        return;
    }
    let mut mappings: Vec<&Mapping> = mappings.iter().collect();
    sorted::sort_by(&mut mappings, |one, other| one.subject.cmp(&other.subject));
    json.open_at("mappings");
    for mapping in mappings {
        json.list_at(&mapping.subject);
        let mut clusters: Vec<&str> =
            mapping.destinations.iter().map(|one| one.cluster.as_deref().unwrap_or("")).collect();
        clusters.push("");
        sorted::sort(&mut clusters);
        clusters.dedup();
        for cluster in clusters {
            let here = |one: &&Destination| one.cluster.as_deref().unwrap_or("") == cluster;
            let all = mapping.destinations.iter().filter(here);
            let mut all: Vec<(u64, &str)> =
                all.map(|one| (one.weight.into(), one.subject.as_str())).collect();
            let left = 100_u64.saturating_sub(all.iter().map(|(weight, _)| weight).sum());
            let same = itself(&mapping.subject);
            if left > 0 && all.iter().all(|(_, subject)| *subject != mapping.subject) {
                all.push((left, &same));
            }
            sorted::sort_by_key(&mut all, |(weight, _)| *weight);
            let mut sum = 0;
            for (weight, subject) in all {
                sum += weight;
                destination(json, subject, sum, cluster);
            }
        }
        json.close_list();
    }
    json.close();
}

/// A subject as a destination of its own: wildcards are numbered.
fn itself(subject: &str) -> String {
    let mut stars = 0;
    let token = |token: &str| {
        if token != "*" {
            return token.to_owned();
        }
        stars += 1;
        format!("${stars}")
    };
    subject.split('.').map(token).collect::<Vec<_>>().join(".")
}

fn destination(json: &mut Json, subject: &str, weight: u64, cluster: &str) {
    json.open();
    json.text("subject", subject);
    json.number("weight", weight);
    json.text_some("cluster", cluster);
    json.close();
}

/// `exports`: services, then streams.
pub(super) fn exports(json: &mut Json, scene: Scene<'_>, view: &AccountView<'_>) {
    let options = scene.broker.options();
    let exports = declaration(scene, view.stats.name).map_or(&[][..], |of| &of.exports);
    if exports.is_empty() && !view.is_system {
        return;
    }
    json.list_at("exports");
    for (subject, response) in SYSTEM_EXPORTS {
        if view.is_system && (subject != API || options.jetstream) {
            json.open();
            json.text("subject", subject);
            json.text("type", "service");
            json.text("response_type", response);
            json.close();
        }
    }
    for streams in [false, true] {
        for export in exports {
            let service = match &export.kind {
                ExportKind::Stream => None,
                ExportKind::Service { response, latency, .. } => Some((response, latency)),
            };
            if service.is_none() != streams {
                continue;
            }
            json.open();
            json.text("subject", &export.subject);
            json.text("type", if streams { "stream" } else { "service" });
            if let Some((response, latency)) = service {
                json.text(
                    "response_type",
                    match response {
                        ResponseType::Singleton => "Singleton",
                        ResponseType::Stream => "Streamed",
                        ResponseType::Chunked => "Chunked",
                    },
                );
                if let Some(latency) = latency {
                    measured(json, "service_latency", latency.sampling, &latency.subject);
                }
            }
            json.list_some("approved_accounts", export.accounts.as_deref().unwrap_or_default());
            json.close();
        }
    }
    json.close_list();
}

fn measured(json: &mut Json, key: &str, sampling: Sampling, subject: &str) {
    json.open_at(key);
    match sampling {
        Sampling::Percent(share) => json.number("sampling", share.into()),
        Sampling::Headers => json.text("sampling", "headers"),
    }
    json.text("results", subject);
    json.close();
}

/// What an import is in the importer's account, its wildcards as such.
fn local(import: &Import) -> String {
    let to = import.to.as_deref().unwrap_or(&import.subject);
    let token = |token: &str| {
        let stands_for_one = token.starts_with("{{")
            || token.strip_prefix('$').is_some_and(|rest| {
                !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit())
            });
        if stands_for_one { "*".to_owned() } else { token.to_owned() }
    };
    to.split('.').map(token).collect::<Vec<_>>().join(".")
}

/// An import as all of them are shown.
struct Shown<'a> {
    subject: &'a str,
    account: &'a str,
    to: &'a str,
    share: bool,
    latency: Option<&'a Latency>,
}

impl Shown<'_> {
    fn write(&self, json: &mut Json, is_service: bool) {
        json.open();
        json.text("subject", self.subject);
        json.text("account", self.account);
        if is_service {
            json.text("to", self.to);
        }
        json.text("local_subject", self.to);
        json.text("type", if is_service { "service" } else { "stream" });
        json.flag("invalid", false);
        json.flag("share", self.share);
        json.flag("tracking", false);
        if let Some(latency) = self.latency {
            measured(json, "latency", latency.sampling, &latency.subject);
        }
        json.close();
    }
}

/// `imports`: streams, then services, then what the server shares with every account.
pub(super) fn imports(json: &mut Json, scene: Scene<'_>, view: &AccountView<'_>) {
    let options = scene.broker.options();
    let name = view.stats.name;
    let imports = declaration(scene, name).map_or(&[][..], |of| &of.imports);
    let account = scene.broker.system_account();
    if account.is_empty() && imports.is_empty() {
        return;
    }
    json.list_at("imports");
    for services in [false, true] {
        for import in imports {
            let (is_service, share) = match import.kind {
                ImportKind::Stream { .. } => (false, false),
                ImportKind::Service { share } => (true, share),
            };
            if is_service != services {
                continue;
            }
            let latency = match export_of(&options.accounts, import).map(|export| &export.kind) {
                Some(ExportKind::Service { latency, .. }) => latency.as_ref(),
                Some(ExportKind::Stream) | None => None,
            };
            let to = local(import);
            let (subject, account) = (&import.subject, &import.account);
            Shown { subject, account, to: &to, share, latency }.write(json, is_service);
        }
    }
    for (before, after, to, share) in SYSTEM_IMPORTS {
        // The system account has its own services without importing them.
        if !account.is_empty() && (!view.is_system || share) {
            let subject = &format!("{before}{name}{after}");
            Shown { subject, account, to, share, latency: None }.write(json, true);
        }
    }
    if options.jetstream && !view.is_system {
        let api = Shown { subject: API, account, to: API, share: true, latency: None };
        api.write(json, true);
    }
    json.close_list();
}

/// `responses`: by their subjects in the account.
pub(super) fn responses(json: &mut Json, scene: Scene<'_>, view: &AccountView<'_>) {
    let mut any = false;
    for response in scene.broker.responses_of(view.id) {
        if !any {
            json.open_at("responses");
            any = true;
        }
        let token = String::from_utf8_lossy(response.token);
        json.open_at(&token);
        json.subject("subject", response.reply);
        json.text("account", response.to);
        json.text("to", &token);
        json.text("local_subject", &token);
        // A service; nats-server shows a number here, and only here.
        json.number("type", 2);
        json.flag("invalid", false);
        json.flag("share", response.share);
        json.flag("tracking", response.tracking.is_some());
        if let Some(tracking) = response.tracking {
            if !tracking.header.is_empty() {
                json.raw("tracking_header", tracking.header);
            }
            let subject = String::from_utf8_lossy(tracking.subject);
            measured(json, "latency", tracking.sampling, &subject);
        }
        json.close();
    }
    if any {
        json.close();
    }
}
