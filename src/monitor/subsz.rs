//! `/subsz`: subscriptions and the subject tree.

use super::connz::detail;
use super::{Json, PAGE_BYTES_MAX, Query, Refusal, Scene, begin};
use crate::broker::view::InterestView;
use crate::subject;

pub(super) fn write(json: &mut Json, scene: Scene<'_>, query: &Query) -> Result<(), Refusal> {
    let list = query.flag("subs")?;
    let (offset, limit) = query.page()?;
    let (account, test) = (query.text("acc"), query.text("test"));
    if !test.is_empty() && !subject::is_valid_literal(test.as_bytes()) {
        let text = format!("invalid test subject, must be valid publish subject: {test}");
        return Err(Refusal { status: 400, text });
    }
    begin(json, scene);
    counters(json, &scene.broker.interest_view(account));
    let wanted = scene
        .broker
        .subs()
        .filter(|sub| account.is_empty() || sub.account == account)
        .filter(|sub| test.is_empty() || subject::matches(test.as_bytes(), sub.subject));
    if !list {
        json.number("total", 0);
        json.count("offset", offset);
        json.count("limit", limit);
        json.close();
        return Ok(());
    }
    // The total comes before the list, and each is found in the same walk.
    let mut shown = Json::new();
    let mut total = 0;
    for sub in wanted {
        if total >= offset && total - offset < limit {
            detail(&mut shown, &sub, true);
            if shown.len() > PAGE_BYTES_MAX {
                return Err(Refusal::too_large());
            }
        }
        total += 1;
    }
    json.count("total", total);
    json.count("offset", offset);
    json.count("limit", limit);
    if !shown.is_empty() {
        json.list_at("subscriptions_list");
        json.splice(&shown);
        json.close_list();
    }
    json.close();
    Ok(())
}

/// Members that tell how a subject tree did.
pub(super) fn counters(json: &mut Json, view: &InterestView) {
    json.count("num_subscriptions", view.subscriptions);
    json.count("num_cache", view.cached);
    json.number("num_inserts", view.inserts);
    json.number("num_removes", view.removes);
    json.number("num_matches", 0);
    json.number("cache_hit_rate", 0);
    json.number("max_fanout", 0);
    json.number("avg_fanout", 0);
}
