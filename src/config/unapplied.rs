//! What a file may say and nothing acts on yet.
//!
//! Owns the list that a start refuses, so that no option is dropped silently. Whoever
//! applies one takes its line away.

use super::{Authorization, Config};

impl Config {
    /// The keys that are valid and would have no effect, by name.
    pub fn unapplied(&self) -> Vec<&'static str> {
        let keys = self.applied_not_yet();
        keys.into_iter().filter(|(_, is_set)| *is_set).map(|(key, _)| key).collect()
    }

    /// Each key that nothing applies, and whether it is set.
    pub(super) fn applied_not_yet(&self) -> Vec<(&'static str, bool)> {
        let web = self.websocket.as_ref();
        vec![
            (
                "websocket.authorization",
                web.is_some_and(|web| web.authorization != Authorization::None),
            ),
            ("websocket.no_auth_user", web.is_some_and(|web| web.no_auth_user.is_some())),
            ("https, https_port", self.monitor.https_port.is_some()),
            ("default_js_domain", !self.default_js_domain.is_empty()),
        ]
    }
}
