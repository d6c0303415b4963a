//! The `authorization` block and lists of users.
//!
//! Owns who may log in, and that no name or nkey stands for two users. Does not own what a
//! user may do (`permissions`) nor the check of a login.

use super::accounts::Declared;
use super::keys::{AUTHORIZATION, USER};
use super::parser::{Node, Value};
use super::read::Reader;
use super::{Authorization, Config};
use crate::auth::account::GLOBAL;
use crate::auth::nkey::{KeyKind, PublicKey};
use crate::auth::permissions::Permissions;
use crate::auth::user::{ConnectionType, Login, User};
use crate::time::GoDuration;
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Duration;

/// An authentication that may take longer than this is probably an unquoted duration.
const TIMEOUT_USUAL_MAX: Duration = Duration::from_mins(1);

impl Reader<'_> {
    pub(super) fn authorization(
        &mut self,
        node: &Node,
        config: &mut Config,
        declared: &mut Declared,
    ) {
        let Some(map) = self.map("authorization", node) else { return };
        let (mut user, mut password, mut token, mut users) = (None, None, None, None);
        for (key, entry) in self.entries(map, &AUTHORIZATION) {
            let node = &entry.node;
            match key {
                "user" => user = self.text(key, node),
                "password" => password = self.secret(key, node),
                "token" => token = self.secret(key, node),
                "timeout" => {
                    self.set(&mut config.auth_timeout, |this| this.seconds(key, node));
                    if config.auth_timeout > TIMEOUT_USUAL_MAX {
                        self.warnings.add(
                            node.place.clone(),
                            format!(
                                "timeout of {} is high, consider keeping it under 60 seconds",
                                GoDuration(config.auth_timeout)
                            ),
                        );
                    }
                }
                "users" => users = Some(node),
                "default_permissions" => config.default_permissions = self.permissions(node),
                "proxy_required" => self.flag(key, node, &mut config.proxy_required),
                _ => {}
            }
        }
        let has_users = users.is_some();
        if let Some(node) = users {
            let defaults = config.default_permissions.clone();
            let users = self.users(node, GLOBAL, defaults.as_ref(), declared);
            config.users.extend(users);
        }
        if user.is_some() || token.is_some() {
            declared.single_login = Some((node.place.clone(), user.is_some()));
        }
        config.authorization = match (user, password, token) {
            (Some(_), _, Some(_)) | (None, Some(_), Some(_)) => {
                self.wrong(node, "Cannot have a user/pass and token");
                Authorization::None
            }
            (Some(_), _, None) if has_users => {
                self.wrong(node, "Can not have a single user/pass and a users array");
                Authorization::None
            }
            (None, None, Some(_)) if has_users => {
                self.wrong(node, "Can not have a token and a users array");
                Authorization::None
            }
            (None, Some(_), None) => {
                self.wrong(node, "authorization has a password and no user");
                Authorization::None
            }
            (None, None, None) => Authorization::None,
            (None, None, Some(token)) => Authorization::Token(token),
            (Some(user), password, None) => {
                Authorization::User { user, password: password.unwrap_or_default() }
            }
        };
    }

    /// A list of users of one account.
    pub(super) fn users(
        &mut self,
        node: &Node,
        account: &str,
        defaults: Option<&Rc<Permissions>>,
        declared: &mut Declared,
    ) -> Vec<User> {
        let Value::Array(nodes) = &node.value else {
            let kind = node.value.kind();
            self.wrong(node, format!("Expected users field to be an array, got {kind}"));
            return Vec::new();
        };
        let mut users = Vec::new();
        for node in nodes {
            let Some(mut user) = self.user(node, account) else { continue };
            let (known, what, name) = match &user.login {
                Login::Password { user, .. } => (&mut declared.users, "user", user),
                Login::Nkey(key) => (&mut declared.nkeys, "nkey", key),
            };
            if !known.insert(name.clone()) {
                self.wrong(node, format!("Duplicate {what} {name:?} detected"));
                continue;
            }
            if user.permissions.is_none() {
                user.permissions = defaults.cloned();
            }
            users.push(user);
        }
        users
    }

    fn user(&mut self, node: &Node, account: &str) -> Option<User> {
        let Value::Map(map) = &node.value else {
            let kind = node.value.kind();
            self.wrong(node, format!("Expected user entry to be a map/struct, got {kind}"));
            return None;
        };
        let (mut name, mut password, mut nkey) = (None, None, None);
        let mut permissions = None;
        let mut connection_types = Vec::new();
        let mut proxy_required = false;
        for (key, entry) in self.entries(map, &USER) {
            let node = &entry.node;
            match key {
                "user" => name = self.text(key, node),
                "password" => password = self.secret(key, node),
                "nkey" => nkey = self.text(key, node).map(|key| (key, node)),
                "permissions" => permissions = self.permissions(node),
                "allowed_connection_types" => connection_types = self.connection_types(key, node),
                "proxy_required" => self.flag(key, node, &mut proxy_required),
                _ => {}
            }
        }
        let login = match (name, nkey) {
            (None, Some((key, key_node))) => {
                if password.is_some() {
                    self.wrong(node, "Nkey users do not take usernames or passwords");
                    return None;
                }
                if !is_public_key(&key, KeyKind::User) {
                    self.wrong(key_node, "Not a valid public nkey for a user");
                    return None;
                }
                Login::Nkey(key)
            }
            (Some(_), Some(_)) => {
                self.wrong(node, "Nkey users do not take usernames or passwords");
                return None;
            }
            (Some(user), None) if !user.is_empty() => Login::Password { user, password },
            (_, None) => {
                self.wrong(node, "User entry requires a user");
                return None;
            }
        };
        Some(User {
            login,
            account: account.to_owned(),
            permissions,
            connection_types,
            proxy_required,
        })
    }

    fn connection_types(&mut self, key: &str, node: &Node) -> Vec<ConnectionType> {
        let (mut types, mut unknown) = (Vec::new(), String::new());
        for text in self.texts(key, node) {
            match ConnectionType::parse(&text) {
                Some(kind) if types.contains(&kind) => {}
                Some(kind) => types.push(kind),
                None => {
                    let blank = if unknown.is_empty() { "" } else { " " };
                    let _ = write!(unknown, "{blank}{:?}", super::units::short(&text));
                }
            }
        }
        if !unknown.is_empty() {
            self.wrong(
                node,
                format!(
                    "invalid connection types [{unknown}]; there are STANDARD WEBSOCKET LEAFNODE \
                     LEAFNODE_WS MQTT MQTT_WS IN_PROCESS"
                ),
            );
        }
        types
    }
}

/// Is this the public nkey of an entity of this kind?
pub(super) fn is_public_key(text: &str, kind: KeyKind) -> bool {
    text.parse::<PublicKey>().is_ok_and(|key| key.kind() == kind)
}
