//! `/jsz`: JetStream.

use super::varz::{jetstream_limits, jetstream_stats};
use super::{Json, Monitor, PAGE_BYTES_MAX, Query, Refusal, Scene};
use crate::jetstream::JetStream;
use crate::jetstream::stream::Stream;
use crate::sorted;

/// What is asked for.
struct Wanted {
    streams: bool,
    consumers: bool,
    hidden: bool,
    config: bool,
    raft: bool,
    /// The cluster that nats-server invents for its links.
    is_linked: bool,
}

impl Wanted {
    fn of(query: &Query, monitor: &Monitor) -> Result<Self, Refusal> {
        let consumers = query.flag("consumers")?;
        let hidden = query.flag("direct-consumers")?;
        Ok(Self {
            streams: query.flag("streams")? || consumers || hidden,
            consumers,
            hidden,
            config: query.flag("config")?,
            raft: query.flag("raft")?,
            is_linked: monitor.is_linked(),
        })
    }
}

impl Monitor {
    /// JetStream of one account, for a service.
    pub(super) fn account_jsz(
        &self,
        scene: Scene<'_>,
        name: &str,
        query: &Query,
    ) -> Result<Vec<u8>, Refusal> {
        let refused = |text: String| Refusal { status: 500, text };
        if scene.broker.jetstreams().next().is_none() {
            return Err(refused("jetstream not enabled".to_owned()));
        }
        let Some(id) = scene.broker.account_named(name) else {
            return Err(refused(format!("account {name:?} not found")));
        };
        let Some(js) = scene.broker.jetstream(id) else {
            return Err(refused(format!("account {name:?} not jetstream enabled")));
        };
        let mut json = Json::new();
        json.open();
        account(&mut json, scene, js, &Wanted::of(query, self)?)?;
        json.close();
        Ok(json.into_bytes())
    }

    pub(super) fn jsz(
        &self,
        json: &mut Json,
        scene: Scene<'_>,
        query: &Query,
    ) -> Result<(), Refusal> {
        let accounts = query.flag("accounts")?;
        let wanted = Wanted::of(query, self)?;
        query.flag("leader-only")?;
        query.flag("stream-leader-only")?;
        let (offset, limit) = query.page()?;
        json.open();
        let js = scene.broker.jetstreams().next().map(|(_, js)| js);
        match js {
            Some(_) => jetstream_stats(json, scene),
            None => {
                for name in ["memory", "storage", "reserved_memory", "reserved_storage"] {
                    json.number(name, 0);
                }
                json.number("accounts", 0);
                json.number("ha_assets", 0);
                json.open_at("api");
                for name in ["level", "total", "errors"] {
                    json.number(name, 0);
                }
                json.close();
            }
        }
        json.text("server_id", &scene.broker.options().server_id);
        json.time("now", scene.now.wall);
        json.flag_some("disabled", js.is_none());
        json.open_at("config");
        match js {
            Some(js) => self.jetstream_config(json, js, true),
            None => {
                json.number("max_memory", 0);
                json.number("max_storage", 0);
            }
        }
        json.close();
        if let Some(js) = js {
            json.open_at("limits");
            jetstream_limits(json, js);
            json.close();
        }
        let numbers = scene.jetstream_numbers();
        json.count("streams", numbers.streams);
        if wanted.raft {
            json.number_some("streams_leader", numbers.streams as u64);
        }
        json.count("consumers", numbers.consumers);
        if wanted.raft {
            json.number_some("consumers_leader", numbers.consumers as u64);
        }
        json.number("messages", numbers.messages);
        json.number("bytes", numbers.memory.saturating_add(numbers.storage));
        let one = query.text("acc");
        let mut all: Vec<&JetStream> = scene.broker.jetstreams().map(|(_, js)| js).collect();
        sorted::sort_by(&mut all, |a, b| a.settings().account.cmp(&b.settings().account));
        let listed = accounts || wanted.streams || !one.is_empty();
        let shown: Vec<&JetStream> = if one.is_empty() {
            all.iter().copied().skip(offset).take(limit).collect()
        } else {
            all.iter().copied().filter(|js| js.settings().account == one).collect()
        };
        if listed && !shown.is_empty() {
            json.list_at("account_details");
            for js in shown {
                json.open();
                account(json, scene, js, &wanted)?;
                json.close();
            }
            json.close_list();
        }
        json.count("total", all.len());
        json.close();
        Ok(())
    }
}

fn account(
    json: &mut Json,
    scene: Scene<'_>,
    js: &JetStream,
    wanted: &Wanted,
) -> Result<(), Refusal> {
    let (numbers, name) = (js.numbers(), js.settings().account.as_str());
    json.text("name", name);
    json.text("id", name);
    json.number("memory", numbers.memory);
    json.number("storage", numbers.storage);
    json.number("reserved_memory", u64::MAX);
    json.number("reserved_storage", u64::MAX);
    json.number("accounts", 0);
    json.number("ha_assets", 0);
    json.open_at("api");
    json.number("level", 0);
    json.number("total", numbers.api_total);
    json.number("errors", numbers.api_errors);
    json.close();
    if wanted.streams {
        let mut streams = js.streams_by_name().peekable();
        if streams.peek().is_some() {
            json.list_at("stream_detail");
            for one in streams {
                stream(json, scene, js, one, wanted);
                if json.len() > PAGE_BYTES_MAX {
                    return Err(Refusal::too_large());
                }
            }
            json.close_list();
        }
    }
    Ok(())
}

fn stream(json: &mut Json, scene: Scene<'_>, js: &JetStream, one: &Stream, wanted: &Wanted) {
    let state = &one.state;
    json.open();
    json.text("name", &one.name);
    json.time("created", one.created);
    json.open_at("cluster");
    if wanted.is_linked {
        json.text("name", &scene.broker.options().server_name);
    }
    json.text("leader", &scene.broker.options().server_name);
    json.close();
    if wanted.config {
        json.raw("config", &JetStream::config_json(one));
    }
    json.open_at("state");
    json.number("messages", state.messages);
    json.number("bytes", state.bytes);
    json.number("first_seq", state.first_seq);
    json.time("first_ts", state.first_ts);
    json.number("last_seq", state.last_seq);
    json.time("last_ts", state.last_ts);
    json.number_some("num_subjects", state.num_subjects);
    let span = state.last_seq.saturating_add(1).saturating_sub(state.first_seq);
    let gaps = if state.messages == 0 { 0 } else { span.saturating_sub(state.messages) };
    json.number_some("num_deleted", gaps);
    json.count("consumer_count", js.consumers_shown(one));
    json.close();
    for (name, hidden, asked) in [
        ("consumer_detail", false, wanted.consumers),
        ("direct_consumer_detail", true, wanted.hidden),
    ] {
        let consumers = if asked {
            js.consumer_jsons(scene.now, one.id, wanted.config, hidden)
        } else {
            vec![]
        };
        if !consumers.is_empty() {
            json.list_at(name);
            for consumer in consumers {
                json.raw_item(&consumer);
            }
            json.close_list();
        }
    }
    json.close();
}
