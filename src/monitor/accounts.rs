//! `/accountz` and `/accstatz`: accounts.

use super::{Json, Monitor, Query, Refusal, Scene, begin, declared};
use crate::broker::AccountStats;
use crate::broker::view::account::Account;
use crate::broker::view::{AccountView, Counts};

/// What the configuration says of an account.
pub(super) fn declaration<'a>(scene: Scene<'a>, name: &str) -> Option<&'a Account> {
    scene.broker.options().accounts.iter().find(|account| account.name == name)
}

impl Monitor {
    pub(super) fn accountz(
        &self,
        json: &mut Json,
        scene: Scene<'_>,
        query: &Query,
    ) -> Result<(), Refusal> {
        let account = query.text("acc");
        begin(json, scene);
        json.text_some("system_account", scene.broker.system_account());
        if account.is_empty() {
            json.list_at("accounts");
            for view in scene.broker.account_views() {
                json.item(view.stats.name);
            }
            json.close_list();
        } else {
            let views = scene.broker.account_views();
            let Some(view) = views.iter().find(|view| view.stats.name == account) else {
                let text = format!("Account {account} does not exist");
                return Err(Refusal { status: 400, text });
            };
            json.open_at("account_detail");
            self.account(json, scene, view);
            json.close();
        }
        json.close();
        Ok(())
    }

    /// Members of the details of an account.
    pub(super) fn account(&self, json: &mut Json, scene: Scene<'_>, view: &AccountView<'_>) {
        json.text("account_name", view.stats.name);
        json.time("update_time", self.settings.config_load_time);
        json.flag_some("is_system", view.is_system);
        json.flag("expired", false);
        json.flag("complete", true);
        json.flag("jetstream_enabled", view.has_jetstream);
        json.number("leafnode_connections", view.stats.leafs.into());
        json.number("client_connections", view.stats.clients.into());
        json.number("subscriptions", view.stats.subs.into());
        if let Some(account) = declaration(scene, view.stats.name) {
            declared::mappings(json, &account.mappings);
        }
        declared::exports(json, scene, view);
        declared::imports(json, scene, view);
        json.text("name_tag", view.stats.name);
        json.open_at("sublist_stats");
        super::subsz::counters(json, &scene.broker.interest_view(view.stats.name));
        json.close();
        declared::responses(json, scene, view);
    }
}

pub(super) fn accstatz(json: &mut Json, scene: Scene<'_>, query: &Query) -> Result<(), Refusal> {
    let unused = query.flag("unused")?;
    begin(json, scene);
    json.list_at("account_statz");
    for AccountView { stats: view, .. } in scene.broker.account_views() {
        if unused || view.clients + view.leafs > 0 {
            json.open();
            stats(json, &view);
            json.close();
        }
    }
    json.close_list();
    json.close();
    Ok(())
}

/// Members of the statistics of an account.
pub(super) fn stats(json: &mut Json, view: &AccountStats<'_>) {
    json.text("acc", view.name);
    json.text("name", view.name);
    json.number("conns", view.clients.into());
    json.number("leafnodes", view.leafs.into());
    json.number("total_conns", u64::from(view.clients) + u64::from(view.leafs));
    json.number("num_subscriptions", view.subs.into());
    let mut all = view.traffic.clients;
    all.add(view.traffic.leafs);
    let pair = |counts: &Counts, sent: bool| {
        if sent { (counts.msgs_out, counts.bytes_out) } else { (counts.msgs_in, counts.bytes_in) }
    };
    for (name, is_sent) in [("sent", true), ("received", false)] {
        let (msgs, bytes) = pair(&all, is_sent);
        json.open_at(name);
        json.number("msgs", msgs);
        json.number("bytes", bytes);
        let leafs = pair(&view.traffic.leafs, is_sent);
        for (part, (msgs, bytes)) in [("gateways", (0, 0)), ("routes", (0, 0)), ("leafs", leafs)] {
            json.traffic(part, msgs, bytes);
        }
        json.close();
    }
    json.number("slow_consumers", view.slow_consumers);
}
