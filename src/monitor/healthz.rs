//! `/healthz`: is everything as it should be?
//!
//! Owns the order of the checks and their texts, which probes and the `nats` CLI read.

use super::query::BadQuery;
use super::{Json, Query, Scene};

/// What is wrong.
struct Illness<'a> {
    status: u16,
    /// As `details` calls it.
    kind: &'static str,
    text: String,
    account: &'a str,
    stream: &'a str,
    consumer: &'a str,
}

/// Writes the verdict; gives the status.
pub(super) fn write(
    json: &mut Json,
    scene: Scene<'_>,
    query: &Query,
    with_status: bool,
) -> Result<u16, BadQuery> {
    let enabled_only = query.flag("js-enabled-only")? || query.flag("js-enabled")?;
    let server_only = query.flag("js-server-only")?;
    query.flag("js-meta-only")?;
    let details = query.flag("details")?;
    let illness = check(scene, query, enabled_only, server_only);
    json.open();
    let status = illness.as_ref().map_or(200, |illness| illness.status);
    match illness {
        None => json.text("status", "ok"),
        Some(illness) if details => {
            json.text("status", "error");
            status_code(json, status, with_status);
            json.list_at("errors");
            json.open();
            json.text("type", illness.kind);
            json.text_some("account", illness.account);
            json.text_some("stream", illness.stream);
            json.text_some("consumer", illness.consumer);
            json.text("error", &illness.text);
            json.close();
            json.close_list();
        }
        Some(illness) => {
            json.text("status", if status == 400 { "error" } else { "unavailable" });
            status_code(json, status, with_status);
            json.text("error", &illness.text);
        }
    }
    if status == 200 {
        status_code(json, status, with_status);
    }
    json.close();
    Ok(status)
}

fn status_code(json: &mut Json, status: u16, shown: bool) {
    if shown {
        json.number("status_code", status.into());
    }
}

fn check<'a>(
    scene: Scene<'_>,
    query: &'a Query,
    enabled_only: bool,
    server_only: bool,
) -> Option<Illness<'a>> {
    let (account, stream, consumer) =
        (query.text("account"), query.text("stream"), query.text("consumer"));
    let illness = |status, kind, text: String| {
        Some(Illness { status, kind, text, account: "", stream: "", consumer: "" })
    };
    if account.is_empty() && !stream.is_empty() {
        let text = "\"account\" must not be empty when checking stream health";
        return illness(400, "BAD_REQUEST", text.into());
    }
    if stream.is_empty() && !consumer.is_empty() {
        let text = "\"stream\" must not be empty when checking consumer health";
        return illness(400, "BAD_REQUEST", text.into());
    }
    if server_only {
        return None;
    }
    let broker = scene.broker;
    // All accounts share one store.
    let (_, js) = broker.jetstreams().next()?;
    if !js.is_recovered() {
        return illness(503, "JETSTREAM", "JetStream is recovering its streams".into());
    }
    if let Some(trouble) = js.trouble() {
        return illness(503, "JETSTREAM", format!("JetStream storage failed: {trouble}"));
    }
    if enabled_only {
        return None;
    }
    if account.is_empty() {
        return None;
    }
    let Some(js) = broker.account_named(account).and_then(|id| broker.jetstream(id)) else {
        let text = format!("JetStream account \"{account}\" not found");
        return Some(Illness {
            status: 404,
            kind: "ACCOUNT",
            text,
            account,
            stream: "",
            consumer: "",
        });
    };
    if !stream.is_empty() && !js.has_stream_named(stream) {
        let text = format!("JetStream stream \"{stream}\" not found on account \"{account}\"");
        return Some(Illness { status: 404, kind: "STREAM", text, account, stream, consumer: "" });
    }
    if !consumer.is_empty() && !js.has_consumer(stream, consumer) {
        let text = format!(
            "JetStream consumer \"{consumer}\" not found for stream \"{stream}\" on account \
             \"{account}\""
        );
        return Some(Illness { status: 404, kind: "CONSUMER", text, account, stream, consumer });
    }
    None
}
