//! What a file may say and nothing acts on yet.
//!
//! Owns the list that a start refuses, so that no option is dropped silently. Whoever
//! applies one takes its line away.

use super::{Authorization, Config, is_bcrypt};
use crate::auth::account::GLOBAL;
use crate::auth::user::Login;

impl Config {
    /// The keys that are valid and would have no effect, by name.
    pub fn unapplied(&self) -> Vec<&'static str> {
        let keys = self.applied_not_yet();
        keys.into_iter().filter(|(_, is_set)| *is_set).map(|(key, _)| key).collect()
    }

    /// Each key that nothing applies, and whether it is set.
    pub(super) fn applied_not_yet(&self) -> Vec<(&'static str, bool)> {
        let hashed = |login: &Login| match login {
            Login::Password { password: Some(password), .. } => is_bcrypt(password),
            Login::Password { password: None, .. } | Login::Nkey(_) => false,
        };
        let bcrypt = match &self.authorization {
            Authorization::User { password, .. } | Authorization::Token(password) => {
                is_bcrypt(password)
            }
            Authorization::None => self.users.iter().any(|user| hashed(&user.login)),
        };
        let account = self.leafnodes.remotes.iter().any(|remote| remote.account != GLOBAL);
        vec![
            ("accounts", !self.accounts.is_empty()),
            ("authorization.users", !self.users.is_empty()),
            ("authorization.proxy_required", self.proxy_required),
            ("no_auth_user", self.no_auth_user.is_some()),
            ("system_account", self.system_account.is_some()),
            ("a bcrypt hash as password or token", bcrypt),
            ("tls", self.tls.is_some()),
            ("allow_non_tls", self.allow_non_tls),
            ("websocket", self.websocket.is_some()),
            ("https, https_port", self.monitor.https_port.is_some()),
            ("proxy_protocol", self.proxy_protocol),
            ("proxies", !self.trusted_proxies.is_empty()),
            ("trace_headers", self.trace_headers),
            ("log_size_limit", self.log_size_limit.is_some()),
            ("syslog", self.syslog),
            ("remote_syslog", self.remote_syslog.is_some()),
            ("default_js_domain", !self.default_js_domain.is_empty()),
            ("an account other than $G as that of a leaf remote", account),
        ]
    }
}
