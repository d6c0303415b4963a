//! What may differ between the pages of Sedge and those of nats-server, and why.

/// A page (empty: any), the path of a member on it, and why it, and all that is in it, may
/// differ. Where a page is the answer of a service, its path is the same.
pub(crate) const DIFFERENCES: &[(&str, &str, &str)] = &[
    ("CONNZ", ".connections[].in_msgs", "nats-server may count a request after its answer"),
    ("VARZ", ".git_commit", "Sedge's version is in go"),
    ("VARZ", ".jetstream.limits.default_max_consumers", NO_DEFAULT),
    ("STATSZ", ".statsz.jetstream.limits.default_max_consumers", NO_DEFAULT),
    ("PING", ".statsz.jetstream.limits.default_max_consumers", NO_DEFAULT),
    ("JSZ", ".limits.default_max_consumers", NO_DEFAULT),
    ("LEAFZ", ".leafs[].compression", "links are not compressed"),
    ("SUBSZ", ".total", "each has subscriptions of its own"),
    ("SUBSCRIPTIONSZ", ".total", "each has subscriptions of its own"),
];

const NO_DEFAULT: &str = "there is no such default";

/// Is this line of a shape one that may differ?
pub(crate) fn may_differ(page: &str, line: &str) -> bool {
    let page = name(page);
    let path = line.split([':', '=']).next().unwrap_or_default().trim_end();
    let path = path.strip_prefix(".data").unwrap_or(path);
    DIFFERENCES.iter().any(|(on, member, _)| {
        let rest = path.strip_prefix(member);
        (on.is_empty() || *on == page)
            && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    })
}

/// `/connz?auth=1`, `SERVER.ID.CONNZ {…}` and `A: SERVER.PING.CONNZ` are all `CONNZ`.
fn name(page: &str) -> String {
    let page = page.trim_start_matches("A: ");
    let path = page.split(['?', ' ']).next().unwrap_or_default();
    path.rsplit(['/', '.']).next().unwrap_or_default().to_uppercase()
}
