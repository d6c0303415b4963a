//! `/leafz`: leaf connections.

use super::{Json, PAGE_BYTES_MAX, Query, Refusal, Scene, begin, host_and_port};
use crate::time::GoDuration;

pub(super) fn write(json: &mut Json, scene: Scene<'_>, query: &Query) -> Result<(), Refusal> {
    let subs = query.flag("subs")?;
    let account = query.text("acc");
    let wanted = || {
        scene
            .broker
            .leaf_views(scene.now)
            .filter(|leaf| account.is_empty() || leaf.conn.account == account)
    };
    begin(json, scene);
    json.count("leafnodes", wanted().count());
    json.list_at("leafs");
    for leaf in wanted() {
        let conn = &leaf.conn;
        let (ip, port) = host_and_port(conn.peer);
        json.open();
        json.number("id", conn.cid);
        json.text("name", leaf.hub);
        // The other side is the hub: Sedge always dials.
        json.flag("is_spoke", true);
        json.text("account", conn.account);
        json.text("ip", ip);
        json.number("port", port);
        if !conn.rtt.is_zero() {
            json.shown("rtt", GoDuration(conn.rtt));
        }
        json.number("in_msgs", conn.counts.msgs_in);
        json.number("out_msgs", conn.counts.msgs_out);
        json.number("in_bytes", conn.counts.bytes_in);
        json.number("out_bytes", conn.counts.bytes_out);
        json.count("subscriptions", conn.subscriptions);
        if subs && conn.subscriptions > 0 {
            json.list_at("subscriptions_list");
            for sub in scene.broker.subs_of(leaf.id) {
                json.item(&String::from_utf8_lossy(sub.subject));
                if json.len() > PAGE_BYTES_MAX {
                    return Err(Refusal::too_large());
                }
            }
            json.close_list();
        }
        json.close();
    }
    json.close_list();
    json.close();
    Ok(())
}
