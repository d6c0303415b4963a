//! From a configuration to who may sign in.
//!
//! Owns the translation only: the start does it once, a reload again.

use crate::auth::Secret;
use crate::auth::account::{GLOBAL, SYSTEM};
use crate::auth::permissions::Strictness;
use crate::auth::sign_in::{SignInOptions, WebSignIn};
use crate::config::{Authorization, Config};

/// The only user, or the token.
fn parts(of: &Authorization) -> (Option<(String, Secret)>, Option<Secret>) {
    match of {
        Authorization::None => (None, None),
        Authorization::User { user, password } => (Some((user.clone(), password.clone())), None),
        Authorization::Token(token) => (None, Some(token.clone())),
    }
}

/// Who may sign in, by this configuration.
pub(super) fn sign_in_options(config: &Config) -> SignInOptions {
    let (single, token) = parts(&config.authorization);
    let here = config.websocket.as_ref();
    let (web_single, web_token) = here.map_or((None, None), |web| parts(&web.authorization));
    let system = config.system_account.as_deref().unwrap_or(SYSTEM);
    let only_system_users = !config.users.is_empty()
        && config.no_auth_user.is_none()
        && config.accounts.iter().all(|account| account.name == system)
        && config.users.iter().all(|user| user.account == system)
        && system != GLOBAL;
    let web = config.websocket.as_ref().and_then(|web| web.tls.as_ref());
    let maps = [config.tls.as_ref(), web].into_iter().flatten().any(|tls| tls.verify_and_map);
    SignInOptions {
        users: config.users.clone(),
        single,
        token,
        no_auth_user: config.no_auth_user.clone(),
        web: WebSignIn {
            single: web_single,
            token: web_token,
            no_auth_user: here.and_then(|web| web.no_auth_user.clone()),
        },
        only_system_users,
        map_certificates: maps,
        certificates_alone: config.tls.as_ref().is_some_and(|tls| tls.verify_and_map),
        trusted_proxies: config.trusted_proxies.iter().filter_map(|key| key.parse().ok()).collect(),
        proxy_required: config.proxy_required,
        by_token: config.operators.is_on(),
        strictness: if config.lax_permissions { Strictness::Lax } else { Strictness::Subset },
    }
}
