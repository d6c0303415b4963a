//! The `leafnodes` block and its remotes.
//!
//! Owns their meaning, the checks of credentials and of a remote's `tls`. Does not own the
//! grammar of URLs (`units`).

use super::accounts::Declared;
use super::keys::{LEAFNODES, REMOTE, REMOTE_TLS};
use super::parser::{Node, Value};
use super::read::Reader;
use super::units::{duration, is_filter, remote_url, short};
use super::values::set_unless_zero;
use super::{Compression, LeafNodesConfig, RemoteConfig, RemoteUrl, Secret, TlsClientConfig};
use std::path::{Path, PathBuf};

/// Leaf remotes of one configuration.
const REMOTES_MAX: usize = 64;

/// URLs of one remote.
const URLS_MAX: usize = 64;

impl Reader<'_> {
    pub(super) fn leafnodes(
        &mut self,
        node: &Node,
        leafnodes: &mut LeafNodesConfig,
        declared: &mut Declared,
    ) {
        let Some(map) = self.map("leafnodes", node) else { return };
        let mut compression = Compression::default();
        let mut remotes = None;
        for (key, entry) in self.entries(map, &LEAFNODES) {
            let node = &entry.node;
            match key {
                "remotes" => remotes = Some(node),
                "reconnect" => set_unless_zero(&mut leafnodes.reconnect, self.duration(key, node)),
                "dial_timeout" => {
                    set_unless_zero(&mut leafnodes.dial_timeout, self.duration(key, node));
                }
                "compression" => compression = self.compression(key, node),
                _ => {}
            }
        }
        let Some(node) = remotes else { return };
        let Value::Array(nodes) = &node.value else {
            self.wrong(node, format!("remotes must be a list [ ], not {}", node.value.kind()));
            return;
        };
        if nodes.len() > REMOTES_MAX {
            self.wrong(node, format!("{} remotes; at most {REMOTES_MAX}", nodes.len()));
            return;
        }
        for node in nodes {
            let base = RemoteConfig {
                dial_timeout: leafnodes.dial_timeout,
                compression,
                ..RemoteConfig::default()
            };
            let Some(remote) = self.remote(node, base, declared) else { continue };
            let twin = leafnodes.remotes.iter().any(|other| {
                let same_url = |(a, b): (&RemoteUrl, &RemoteUrl)| a == b;
                other.urls.len() == remote.urls.len()
                    && other.urls.iter().zip(&remote.urls).all(same_url)
                    && other.account == remote.account
                    && other.credentials == remote.credentials
                    && other.nkey == remote.nkey
            });
            if twin {
                self.wrong(node, "duplicate remote: same urls, account and credentials as above");
            } else {
                leafnodes.remotes.push(remote);
            }
        }
    }

    fn remote(
        &mut self,
        node: &Node,
        mut remote: RemoteConfig,
        declared: &mut Declared,
    ) -> Option<RemoteConfig> {
        let map = self.map("a remote", node)?;
        let mut credentials = None;
        for (key, entry) in self.entries(map, &REMOTE) {
            let node = &entry.node;
            match key {
                "url" | "urls" => self.urls(key, node, &mut remote.urls),
                "account" => {
                    if let Some(account) = self.text(key, node).filter(|name| !name.is_empty()) {
                        declared.remotes.push((account.clone(), node.place.clone()));
                        remote.account = account;
                    }
                }
                "credentials" => credentials = self.path(key, node).map(|path| (path, node)),
                "nkey" => remote.nkey = self.seed(node),
                "tls" => remote.tls = self.remote_tls(node),
                "hub" => {
                    let mut hub = false;
                    self.flag(key, node, &mut hub);
                    if hub {
                        self.wrong(
                            node,
                            "hub: true is not supported yet; remove it, so that the other server \
                             is the hub of this link",
                        );
                    }
                }
                "deny_imports" => remote.deny_imports = self.filters(key, node),
                "deny_exports" => remote.deny_exports = self.filters(key, node),
                "no_randomize" => self.flag(key, node, &mut remote.no_randomize),
                "compression" => remote.compression = self.compression(key, node),
                "first_info_timeout" => {
                    set_unless_zero(&mut remote.first_info_timeout, self.duration(key, node));
                }
                "dial_timeout" => {
                    set_unless_zero(&mut remote.dial_timeout, self.duration(key, node));
                }
                "disabled" => self.flag(key, node, &mut remote.disabled),
                "ignore_discovered_servers" => {
                    self.flag(key, node, &mut remote.ignore_discovered_servers);
                }
                _ => {}
            }
        }
        let has_urls =
            ["url", "urls"].iter().any(|name| map.keys().any(|key| key.eq_ignore_ascii_case(name)));
        if !has_urls {
            self.wrong(node, "this remote has no url");
        }
        if let Some((path, node)) = credentials {
            if remote.nkey.is_some() {
                self.wrong(node, "a remote cannot have both credentials and nkey");
            } else {
                remote.credentials = self.credentials(node, &path, remote.disabled);
            }
        }
        (!remote.urls.is_empty()).then_some(remote)
    }

    fn urls(&mut self, key: &str, node: &Node, urls: &mut Vec<RemoteUrl>) {
        let nodes = node.elements();
        if nodes.is_empty() || nodes.len() > URLS_MAX {
            self.wrong(node, format!("{key}: {} URLs; there must be 1 to {URLS_MAX}", nodes.len()));
            return;
        }
        for node in nodes {
            let Some(text) = self.text(key, node) else { continue };
            match remote_url(&text) {
                Ok(url) if urls.contains(&url) => {
                    self.warnings.add(node.place.clone(), "this URL is already in the list");
                }
                Ok(url) => urls.push(url),
                Err(what) => self.wrong(node, format!("{key}: {what}")),
            }
        }
    }

    /// The file must hold what a login needs; whether it is valid the hub will say.
    fn credentials(&mut self, node: &Node, path: &Path, unused: bool) -> Option<PathBuf> {
        let path = match self.expanded(path) {
            Ok(path) => path,
            Err(what) => {
                self.wrong(node, format!("credentials: {what}"));
                return None;
            }
        };
        if unused {
            return Some(path);
        }
        match self.surroundings.read(&path) {
            Err(reason) => {
                self.wrong(
                    node,
                    format!(
                        "credentials: cannot read {}: {reason}; put the .creds file there or \
                         correct the path",
                        path.display()
                    ),
                );
                return None;
            }
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                if !text.contains("BEGIN NATS USER JWT") || !text.contains("BEGIN USER NKEY SEED") {
                    self.wrong(
                        node,
                        format!(
                            "credentials: {} is no creds file; it must hold a NATS USER JWT and \
                             a USER NKEY SEED block",
                            path.display()
                        ),
                    );
                    return None;
                }
            }
        }
        Some(path)
    }

    /// `~` and `$NAME` or `${NAME}` at the start of a directory name.
    fn expanded(&self, path: &Path) -> Result<PathBuf, String> {
        let Some(text) = path.to_str() else { return Ok(path.to_owned()) };
        let variable = |name: &str| {
            self.surroundings
                .variable(name)
                .ok_or_else(|| format!("the environment variable {name} is not set"))
        };
        let mut parts = Vec::new();
        for (index, part) in text.split('/').enumerate() {
            parts.push(match part.strip_prefix('$') {
                Some(name) => {
                    let name = name
                        .strip_prefix('{')
                        .and_then(|name| name.strip_suffix('}'))
                        .unwrap_or(name);
                    variable(name)?
                }
                None if part == "~" && index == 0 => variable("HOME")?,
                None => part.to_owned(),
            });
        }
        Ok(PathBuf::from(parts.join("/")))
    }

    fn seed(&mut self, node: &Node) -> Option<Secret> {
        let text = self.text("nkey", node)?;
        if !is_user_seed(&text) {
            self.wrong(
                node,
                "nkey is not the seed of a user: 58 letters and digits that begin with SU",
            );
            return None;
        }
        Some(Secret::from(text))
    }

    fn filters(&mut self, key: &str, node: &Node) -> Vec<String> {
        let nodes = node.elements();
        let mut filters = Vec::new();
        for node in nodes {
            let Some(text) = self.text(key, node) else { continue };
            if is_filter(&text) {
                filters.push(text);
            } else {
                self.wrong(node, format!("{key}: \"{}\" is not a valid subject", short(&text)));
            }
        }
        filters
    }

    fn compression(&mut self, key: &str, node: &Node) -> Compression {
        const CHOICES: &[(&str, Compression)] = &[
            ("off", Compression::Off),
            ("disabled", Compression::Off),
            ("accept", Compression::Accept),
            ("on", Compression::S2Auto),
            ("enabled", Compression::S2Auto),
            ("s2_auto", Compression::S2Auto),
            ("auto", Compression::S2Auto),
            ("s2_uncompressed", Compression::S2Uncompressed),
            ("s2_fast", Compression::S2Fast),
            ("fast", Compression::S2Fast),
            ("s2_better", Compression::S2Better),
            ("better", Compression::S2Better),
            ("s2_best", Compression::S2Best),
            ("best", Compression::S2Best),
        ];
        let chosen = match &node.value {
            Value::Bool(true) => Some(Compression::S2Auto),
            Value::Bool(false) => Some(Compression::Off),
            Value::Map(map) => {
                let mut chosen = Some(Compression::S2Auto);
                for (name, entry) in map {
                    if name.eq_ignore_ascii_case("mode") {
                        chosen = self.choice("mode", &entry.node, CHOICES);
                    } else if !name.eq_ignore_ascii_case("rtt_thresholds") && !entry.is_variable {
                        let what = "compression has mode and rtt_thresholds only";
                        self.mistakes.add(entry.place.clone(), what);
                    }
                }
                chosen
            }
            _ => self.choice(key, node, CHOICES),
        };
        chosen.unwrap_or_default()
    }

    fn remote_tls(&mut self, node: &Node) -> Option<TlsClientConfig> {
        let map = self.map("tls", node)?;
        let mut tls = TlsClientConfig::default();
        for (key, entry) in self.entries(map, &REMOTE_TLS) {
            let node = &entry.node;
            match key {
                "cert_file" => tls.cert_file = self.readable(key, node),
                "key_file" => tls.key_file = self.readable(key, node),
                "ca_file" => tls.ca_file = self.readable(key, node),
                "insecure" => self.flag(key, node, &mut tls.insecure),
                "timeout" => set_unless_zero(&mut tls.timeout, self.seconds(key, node)),
                "handshake_first" => match &node.value {
                    // A delay or `auto` is the listener's side of it; a dialler that may
                    // go first does.
                    Value::Text(text) if text == "auto" || duration(text).is_ok() => {
                        tls.handshake_first = true;
                    }
                    _ => self.flag(key, node, &mut tls.handshake_first),
                },
                "min_version" => {
                    let choices = [("1.2", false), ("1.3", true)];
                    self.set(&mut tls.tls13_only, |this| this.choice(key, node, &choices));
                }
                _ => {}
            }
        }
        let has = |name: &str| map.keys().any(|key| key.eq_ignore_ascii_case(name));
        match (has("cert_file"), has("key_file")) {
            (true, false) => self.wrong(node, "tls has cert_file but is missing 'key_file'"),
            (false, true) => self.wrong(node, "tls has key_file but is missing 'cert_file'"),
            _ => {}
        }
        Some(tls)
    }
}

/// Base32 of two prefix bytes, the seed and a CRC-16 (XMODEM) that has to agree.
fn is_user_seed(text: &str) -> bool {
    let Ok(bytes) = data_encoding::BASE32_NOPAD.decode(text.as_bytes()) else { return false };
    let Some((body, [low, high])) = bytes.split_last_chunk::<2>() else { return false };
    let mut crc: u16 = 0;
    for byte in body {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
        }
    }
    text.starts_with("SU") && body.len() == 34 && crc == u16::from_le_bytes([*low, *high])
}
