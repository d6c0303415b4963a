//! What may differ between the pages of Sedge and those of nats-server, and why.

/// A page (empty: any), a part of the path of members on it, and why they may differ.
pub(crate) const DIFFERENCES: &[(&str, &str, &str)] = &[
    ("", ".server.feature_flags", "they switch parts of nats-server"),
    ("", ".server.cluster", "Sedge is in no cluster; nats-server invents one for its links"),
    ("VARZ", ".feature_flags", "they switch parts of nats-server"),
    ("VARZ", ".git_commit", "Sedge's version is in go"),
    ("VARZ", ".tls_cert_not_after", "certificates are not read for their dates"),
    ("VARZ", ".http_req_stats", "only pages that were asked for, also Sedge's own"),
    ("", ".limits.default_max_consumers", "there is no such default"),
    ("", ".limits: {}", "nothing is left without default_max_consumers"),
    ("", ".config.sync_always", "shown because it is the default here"),
    ("", ".cluster.name", "Sedge is in no cluster; nats-server invents one for its links"),
    ("", ".subscriptions_list_detail[].account", "named also while a connection is open"),
    ("SUBSZ", ".total", "Sedge has other subscriptions of its own"),
    ("SUBSZ", ".subscriptions_list", "Sedge has other subscriptions of its own"),
    ("", ".mappings", "mappings of an account are not shown"),
    ("", ".exports", "exports of an account are not shown"),
    ("", ".imports", "imports of an account are not shown"),
    ("LEAFZ", ".compression", "links are not compressed"),
];

/// Is this line of a shape one that may differ?
pub(crate) fn may_differ(page: &str, line: &str) -> bool {
    let (page, path) = (page.to_uppercase(), line.split([':', '=']).next().unwrap_or_default());
    let whole = format!("{line} ");
    DIFFERENCES.iter().any(|(on, member, _)| {
        page.contains(&on.to_uppercase())
            && !member.is_empty()
            && (path.contains(member) || whole.contains(&format!("{member} ")))
    })
}
