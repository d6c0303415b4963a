//! Every key of nats-server's configuration, and what Sedge makes of it.
//!
//! Owns names and aliases, nothing else. To add a key: change its [`Support`] here, give
//! it a field in [`super::Config`] and an arm in `read.rs`.
//!
//! Source: nats-server 2.15 documentation.

use Support::{NoEffect, NotYet, OnlyFalse, Read};

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Support {
    /// `read.rs` has an arm for it.
    Read,
    /// Accepted so that a nats-server configuration works: it tunes something Sedge does
    /// differently, and leaving it out changes no promise.
    NoEffect(Kind),
    /// Switches something on that Sedge lacks; `false` is fine.
    OnlyFalse,
    /// Sedge lacks it; the text says what to do instead, or is empty.
    NotYet(&'static str),
}

/// The kind of value of a key without effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Boolean,
    Integer,
    Duration,
    Text,
    /// Anything.
    Any,
}

/// A key: the name messages use, then its aliases.
pub(crate) struct Key(pub(crate) &'static [&'static str], pub(crate) Support);

impl Key {
    /// The name in the documentation.
    pub(crate) fn name(&self) -> &'static str {
        self.0.first().copied().unwrap_or("")
    }
}

/// The keys of one block.
pub(crate) struct Block {
    /// How messages call the block: `the top level`, `jetstream`.
    pub(crate) name: &'static str,
    pub(crate) keys: &'static [Key],
}

impl Block {
    /// The key of this name, in any case.
    pub(crate) fn find(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.0.iter().any(|known| known.eq_ignore_ascii_case(name)))
    }
}

const LEAF_INSTEAD: &str =
    "connect this gateway to a nats-server cluster with a leaf uplink (leafnodes { remotes })";
const FOR_WINDOWS: &str = "it is for Windows; write cert_file and key_file";
const OUR_DIALS: &str = "Sedge dials its uplinks (remotes) and accepts no leaf nodes so far";

/// The top level.
pub(crate) const TOP: Block = Block {
    name: "the top level",
    keys: &[
        Key(&["listen"], Read),
        Key(&["host", "net"], Read),
        Key(&["port"], Read),
        Key(&["client_advertise"], Read),
        Key(&["server_name"], Read),
        Key(&["server_tags"], Read),
        Key(&["server_metadata"], Read),
        Key(&["feature_flags"], Read),
        Key(&["no_header_support"], Read),
        Key(&["proxy_protocol"], Read),
        Key(&["default_sentinel"], Read),
        Key(&["max_connections", "max_conn"], Read),
        Key(&["max_subscriptions", "max_subs"], Read),
        Key(&["max_sub_tokens", "max_subscription_tokens"], Read),
        Key(&["max_control_line"], Read),
        Key(&["max_payload"], Read),
        Key(&["max_pending"], Read),
        Key(&["ping_interval"], Read),
        Key(&["ping_max"], Read),
        Key(&["write_deadline"], Read),
        Key(&["write_timeout"], Read),
        Key(&["lame_duck_duration"], Read),
        Key(&["lame_duck_grace_period"], Read),
        Key(&["max_closed_clients"], Read),
        Key(&["no_fast_producer_stall"], Read),
        Key(&["disable_sublist_cache", "no_sublist_cache"], NoEffect(Kind::Boolean)),
        Key(&["connect_error_reports"], Read),
        Key(&["reconnect_error_reports"], Read),
        Key(&["debug"], Read),
        Key(&["trace"], Read),
        Key(&["trace_verbose"], Read),
        Key(&["trace_headers"], Read),
        Key(&["logtime"], Read),
        Key(&["logtime_utc"], Read),
        Key(&["log_file", "logfile"], Read),
        Key(&["log_size_limit", "logfile_size_limit"], Read),
        Key(&["log_max_num", "logfile_max_num"], Read),
        Key(&["syslog"], Read),
        Key(&["remote_syslog"], Read),
        Key(&["max_traced_msg_len"], Read),
        Key(&["pid_file", "pidfile"], Read),
        Key(&["ports_file_dir"], Read),
        Key(&["http"], Read),
        Key(&["http_port", "monitor_port"], Read),
        Key(&["https"], Read),
        Key(&["https_port"], Read),
        Key(&["http_base_path"], Read),
        // The profiler of Go's run time.
        Key(&["prof_port"], NoEffect(Kind::Integer)),
        Key(&["prof_block_rate"], NoEffect(Kind::Integer)),
        Key(&["authorization"], Read),
        Key(&["accounts"], Read),
        Key(&["mappings", "maps"], Read),
        Key(&["no_auth_user"], Read),
        // Ours alone.
        Key(&["lax_permissions"], Read),
        Key(&["system_account", "system"], Read),
        Key(&["no_system_account", "no_system", "no_sys_acc"], Read),
        Key(&["tls"], Read),
        Key(&["allow_non_tls"], Read),
        Key(&["ocsp"], OnlyFalse),
        Key(&["ocsp_cache"], OnlyFalse),
        Key(&["operator", "operators", "root", "roots", "root_operator", "root_operators"], Read),
        Key(&["resolver", "account_resolver", "accounts_resolver"], Read),
        Key(&["resolver_tls"], NotYet("use a resolver that needs no certificate of ours")),
        Key(&["resolver_preload"], Read),
        Key(&["resolver_pinned_accounts"], Read),
        Key(&["trusted", "trusted_keys"], Read),
        Key(&["proxies"], Read),
        Key(&["jetstream"], Read),
        Key(&["store_dir", "storedir"], Read),
        Key(&["default_js_domain"], Read),
        Key(&["leafnodes", "leaf"], Read),
        Key(&["websocket", "ws"], Read),
        Key(&["mqtt"], NotYet("use a NATS client")),
        Key(&["cluster"], NotYet(LEAF_INSTEAD)),
        Key(&["gateway"], NotYet(LEAF_INSTEAD)),
    ],
};

/// `resolver { }`.
pub(crate) const RESOLVER: Block = Block {
    name: "resolver",
    keys: &[
        Key(&["type"], Read),
        Key(&["dir"], Read),
        Key(&["allow_delete"], Read),
        Key(&["hard_delete"], Read),
        Key(&["limit"], Read),
        Key(&["ttl"], Read),
        Key(&["interval"], Read),
        Key(&["timeout"], Read),
    ],
};

/// `authorization { }`.
pub(crate) const AUTHORIZATION: Block = Block {
    name: "authorization",
    keys: &[
        Key(&["user", "username"], Read),
        Key(&["password", "pass"], Read),
        Key(&["token"], Read),
        Key(&["timeout"], Read),
        Key(&["users"], Read),
        Key(&["default_permissions", "default_permission", "permissions"], Read),
        Key(&["auth_callout", "auth_hook"], NotYet("write the users into the file")),
        Key(&["proxy_required"], Read),
    ],
};

/// An element of a list of users.
pub(crate) const USER: Block = Block {
    name: "a user",
    keys: &[
        Key(&["user", "username"], Read),
        Key(&["password", "pass"], Read),
        Key(&["nkey"], Read),
        Key(&["permissions", "permission", "authorization"], Read),
        Key(&["allowed_connection_types", "connection_types", "clients"], Read),
        Key(&["proxy_required"], Read),
    ],
};

/// `permissions { }`, wherever it stands.
pub(crate) const PERMISSIONS: Block = Block {
    name: "permissions",
    keys: &[
        Key(&["publish", "pub", "import"], Read),
        Key(&["subscribe", "sub", "export"], Read),
        Key(&["allow_responses", "publish_allow_responses"], Read),
    ],
};

/// `publish { }` and `subscribe { }` of permissions.
pub(crate) const RULES: Block =
    Block { name: "publish or subscribe", keys: &[Key(&["allow"], Read), Key(&["deny"], Read)] };

/// `allow_responses { }`.
pub(crate) const RESPONSES: Block = Block {
    name: "allow_responses",
    keys: &[
        Key(&["max", "max_msgs", "max_messages", "max_responses"], Read),
        Key(&["expires", "expiration", "ttl"], Read),
    ],
};

/// `accounts { X { } }`.
pub(crate) const ACCOUNT: Block = Block {
    name: "an account",
    keys: &[
        Key(&["nkey"], Read),
        Key(&["users"], Read),
        Key(&["default_permissions"], Read),
        Key(&["mappings", "maps"], Read),
        Key(&["exports"], Read),
        Key(&["imports"], Read),
        Key(&["jetstream"], Read),
        Key(&["limits"], Read),
        Key(&["msg_trace", "trace_dest"], Read),
    ],
};

/// `accounts { X { limits { } } }`.
pub(crate) const ACCOUNT_LIMITS: Block = Block {
    name: "limits of an account",
    keys: &[
        Key(&["max_connections", "max_conn"], Read),
        Key(&["max_subscriptions", "max_subs"], Read),
        Key(&["max_payload", "max_pay"], Read),
        Key(&["max_leafnodes", "max_leafs"], Read),
    ],
};

/// `accounts { X { jetstream { } } }`.
pub(crate) const ACCOUNT_JETSTREAM: Block = Block {
    name: "jetstream of an account",
    keys: &[
        Key(&["max_memory", "max_mem", "mem", "memory"], Read),
        Key(&["max_store", "max_file", "max_disk", "store", "disk"], Read),
        Key(&["max_streams", "streams"], Read),
        Key(&["max_consumers", "consumers"], Read),
        Key(&["max_bytes_required", "max_stream_bytes", "max_bytes"], Read),
        Key(&["memory_max_stream_bytes", "mem_max_stream_bytes"], Read),
        Key(&["store_max_stream_bytes", "disk_max_stream_bytes"], Read),
        Key(&["max_ack_pending"], Read),
        // One server has no traffic between servers to attribute.
        Key(&["cluster_traffic"], Read),
    ],
};

/// An element of `exports`.
pub(crate) const EXPORT: Block = Block {
    name: "an export",
    keys: &[
        Key(&["stream"], Read),
        Key(&["service"], Read),
        Key(&["accounts"], Read),
        Key(&["response_type", "response"], Read),
        Key(&["response_threshold", "threshold", "response_max_time", "response_time"], Read),
        Key(&["latency"], Read),
        Key(&["account_token_position"], Read),
        Key(&["allow_trace"], Read),
    ],
};

/// `latency { }` of an export.
pub(crate) const LATENCY: Block =
    Block { name: "latency", keys: &[Key(&["subject"], Read), Key(&["sampling"], Read)] };

/// An element of `imports`.
pub(crate) const IMPORT: Block = Block {
    name: "an import",
    keys: &[
        Key(&["stream"], Read),
        Key(&["service"], Read),
        Key(&["to"], Read),
        Key(&["prefix"], Read),
        Key(&["share"], Read),
        Key(&["allow_trace"], Read),
    ],
};

/// `stream { }` and `service { }` of an import.
pub(crate) const IMPORT_SOURCE: Block = Block {
    name: "the source of an import",
    keys: &[Key(&["account"], Read), Key(&["subject"], Read)],
};

/// `msg_trace { }` of an account.
pub(crate) const MESSAGE_TRACE: Block =
    Block { name: "msg_trace", keys: &[Key(&["dest"], Read), Key(&["sampling"], Read)] };

/// A destination of a mapping.
pub(crate) const DESTINATION: Block = Block {
    name: "the destination of a mapping",
    keys: &[Key(&["destination", "dest"], Read), Key(&["weight"], Read), Key(&["cluster"], Read)],
};

/// `tls { }` of a listener.
pub(crate) const TLS: Block = Block {
    name: "tls",
    keys: &[
        Key(&["cert_file"], Read),
        Key(&["key_file"], Read),
        Key(&["ca_file"], Read),
        Key(&["certs", "certificates"], Read),
        Key(&["verify"], Read),
        Key(&["verify_and_map"], Read),
        // Of routes and gateways, in nats-server too.
        Key(&["verify_cert_and_check_known_urls"], OnlyFalse),
        // It is for dialling.
        Key(&["insecure"], NoEffect(Kind::Boolean)),
        Key(&["timeout"], Read),
        Key(&["handshake_first", "first", "immediate"], Read),
        Key(&["pinned_certs"], Read),
        Key(&["connection_rate_limit"], Read),
        Key(&["min_version"], Read),
        Key(&["cipher_suites"], Read),
        Key(&["allow_insecure_cipher_suites"], Read),
        Key(&["curve_preferences"], Read),
        Key(&["cert_store"], NotYet(FOR_WINDOWS)),
        Key(&["cert_match_by"], NotYet(FOR_WINDOWS)),
        Key(&["cert_match"], NotYet(FOR_WINDOWS)),
        Key(&["ca_certs_match"], NotYet(FOR_WINDOWS)),
        Key(&["cert_match_skip_invalid"], OnlyFalse),
        Key(&["ocsp_peer"], OnlyFalse),
    ],
};

/// An element of `certs`.
pub(crate) const CERTIFICATE: Block =
    Block { name: "certs", keys: &[Key(&["cert_file"], Read), Key(&["key_file"], Read)] };

/// `websocket { }`.
pub(crate) const WEBSOCKET: Block = Block {
    name: "websocket",
    keys: &[
        Key(&["listen"], Read),
        Key(&["host", "net"], Read),
        Key(&["port"], Read),
        Key(&["advertise"], Read),
        Key(&["tls"], Read),
        Key(&["no_tls"], Read),
        Key(&["same_origin"], Read),
        Key(
            &[
                "allowed_origins",
                "allowed_origin",
                "allow_origins",
                "allow_origin",
                "origins",
                "origin",
            ],
            Read,
        ),
        Key(&["compression", "compress"], Read),
        Key(&["handshake_timeout"], Read),
        Key(&["authorization", "authentication"], Read),
        Key(&["no_auth_user"], Read),
        Key(&["jwt_cookie"], Read),
        Key(&["user_cookie"], Read),
        Key(&["pass_cookie"], Read),
        Key(&["token_cookie"], Read),
        Key(&["headers"], Read),
        Key(&["ping_interval"], Read),
    ],
};

/// `websocket { authorization { } }`.
pub(crate) const WEBSOCKET_AUTHORIZATION: Block = Block {
    name: "authorization of websocket",
    keys: &[
        Key(&["user", "username"], Read),
        Key(&["password", "pass"], Read),
        Key(&["token"], Read),
        Key(&["timeout"], Read),
    ],
};

/// `proxies { }`.
pub(crate) const PROXIES: Block = Block { name: "proxies", keys: &[Key(&["trusted"], Read)] };

/// An element of `proxies { trusted [ ] }`.
pub(crate) const PROXY: Block =
    Block { name: "a trusted proxy", keys: &[Key(&["key", "public_key"], Read)] };

/// `jetstream { }`.
pub(crate) const JETSTREAM: Block = Block {
    name: "jetstream",
    keys: &[
        Key(&["store_dir", "store", "storedir"], Read),
        Key(&["max_memory_store", "max_mem_store", "max_mem"], Read),
        Key(&["max_file_store", "max_file"], Read),
        Key(&["domain"], Read),
        Key(&["sync_interval", "sync"], Read),
        Key(&["enabled", "enable"], Read),
        Key(&["strict"], Read),
        Key(&["limits"], Read),
        Key(
            &["key", "ek", "encryption_key"],
            NotYet("encrypt the file system that holds store_dir"),
        ),
        Key(
            &["prev_key", "prev_ek", "prev_encryption_key"],
            NotYet("encrypt the file system that holds store_dir"),
        ),
        Key(&["cipher"], NotYet("encrypt the file system that holds store_dir")),
        Key(&["tpm"], NotYet("encrypt the file system that holds store_dir")),
        Key(&["unique_tag"], NoEffect(Kind::Text)),
        Key(&["extension_hint"], NoEffect(Kind::Text)),
        Key(&["max_buffered_size"], NoEffect(Kind::Any)),
        Key(&["max_buffered_msgs"], NoEffect(Kind::Integer)),
        Key(&["max_outstanding_catchup"], NoEffect(Kind::Any)),
        Key(&["request_queue_limit"], NoEffect(Kind::Integer)),
        Key(&["info_queue_limit"], NoEffect(Kind::Integer)),
        Key(&["meta_compact"], NoEffect(Kind::Integer)),
        Key(&["meta_compact_size"], NoEffect(Kind::Any)),
        Key(&["meta_compact_sync"], NoEffect(Kind::Boolean)),
        Key(&["max_concurrent_io"], NoEffect(Kind::Integer)),
    ],
};

/// `jetstream { limits { } }`.
pub(crate) const JETSTREAM_LIMITS: Block = Block {
    name: "jetstream limits",
    keys: &[
        Key(&["duplicate_window"], Read),
        Key(&["max_ack_pending"], Read),
        Key(&["max_request_batch"], Read),
        Key(&["max_ha_assets"], NoEffect(Kind::Integer)),
        Key(&["batch"], Read),
        Key(&["default_max_consumers"], NoEffect(Kind::Integer)),
    ],
};

/// `jetstream { limits { batch { } } }`.
pub(crate) const JETSTREAM_BATCH: Block = Block {
    name: "batch",
    keys: &[
        Key(&["max_inflight_per_stream"], Read),
        Key(&["max_inflight_total"], Read),
        Key(&["max_msgs"], Read),
        Key(&["timeout"], Read),
    ],
};

/// `leafnodes { }`.
pub(crate) const LEAFNODES: Block = Block {
    name: "leafnodes",
    keys: &[
        Key(&["remotes"], Read),
        Key(&["reconnect", "reconnect_delay", "reconnect_interval"], Read),
        Key(&["dial_timeout"], Read),
        Key(&["compression"], Read),
        Key(&["listen"], NotYet(OUR_DIALS)),
        Key(&["host", "net"], NotYet(OUR_DIALS)),
        Key(&["port"], NotYet(OUR_DIALS)),
        Key(&["authorization"], NotYet(OUR_DIALS)),
        Key(&["tls"], NotYet("write tls inside the remote; Sedge accepts no leaf nodes so far")),
        Key(&["advertise", "leafnode_advertise"], NoEffect(Kind::Text)),
        Key(&["no_advertise"], NoEffect(Kind::Boolean)),
        Key(&["min_version", "minimum_version"], NoEffect(Kind::Text)),
        Key(&["isolate_leafnode_interest", "isolate"], NoEffect(Kind::Boolean)),
        Key(&["write_deadline"], NoEffect(Kind::Duration)),
        Key(&["write_timeout"], NoEffect(Kind::Text)),
    ],
};

/// An element of `leafnodes { remotes [ ] }`.
pub(crate) const REMOTE: Block = Block {
    name: "a leaf remote",
    keys: &[
        Key(&["url"], Read),
        Key(&["urls"], Read),
        Key(&["account", "local"], Read),
        Key(&["credentials", "creds"], Read),
        Key(&["nkey", "seed"], Read),
        Key(&["tls"], Read),
        Key(&["hub"], Read),
        Key(&["deny_imports", "deny_import"], Read),
        Key(&["deny_exports", "deny_export"], Read),
        Key(&["no_randomize", "dont_randomize"], Read),
        Key(&["compression"], Read),
        Key(&["first_info_timeout"], Read),
        Key(&["dial_timeout"], Read),
        Key(&["disabled"], Read),
        Key(&["ignore_discovered_servers"], Read),
        Key(
            &["ws_compression", "ws_compress", "websocket_compression", "websocket_compress"],
            OnlyFalse,
        ),
        Key(&["ws_no_masking", "websocket_no_masking"], OnlyFalse),
        Key(&["isolate_leafnode_interest", "isolate"], NoEffect(Kind::Boolean)),
        Key(&["request_isolation"], OnlyFalse),
        Key(&["jetstream_cluster_migrate", "js_cluster_migrate"], NoEffect(Kind::Any)),
        Key(&["proxy"], NotYet("")),
    ],
};

/// `tls { }` of a remote.
pub(crate) const REMOTE_TLS: Block = Block {
    name: "tls of a leaf remote",
    keys: &[
        Key(&["cert_file"], Read),
        Key(&["key_file"], Read),
        Key(&["ca_file"], Read),
        Key(&["insecure"], Read),
        Key(&["timeout"], Read),
        Key(&["handshake_first", "first", "immediate"], Read),
        Key(&["min_version"], Read),
        // These three ask the other side for a certificate, which only a listener does;
        // a client always verifies the server.
        Key(&["verify"], NoEffect(Kind::Boolean)),
        Key(&["verify_and_map"], NoEffect(Kind::Boolean)),
        Key(&["connection_rate_limit"], NoEffect(Kind::Integer)),
        Key(&["certs", "certificates"], NotYet("write one cert_file and key_file")),
        Key(&["verify_cert_and_check_known_urls"], NotYet("")),
        Key(&["pinned_certs"], NotYet("name the hub's own certificate authority in ca_file")),
        Key(&["cipher_suites"], NotYet("only strong suites are offered")),
        Key(&["curve_preferences"], NotYet("")),
        Key(&["allow_insecure_cipher_suites"], OnlyFalse),
        Key(&["cert_store"], NotYet(FOR_WINDOWS)),
        Key(&["cert_match_by"], NotYet(FOR_WINDOWS)),
        Key(&["cert_match"], NotYet(FOR_WINDOWS)),
        Key(&["ca_certs_match"], NotYet(FOR_WINDOWS)),
        Key(&["cert_match_skip_invalid"], OnlyFalse),
        Key(&["ocsp_peer"], OnlyFalse),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// Every block, as the documents call it.
    const ALL: &[(&str, &Block)] = &[
        ("top", &TOP),
        ("authorization", &AUTHORIZATION),
        ("user", &USER),
        ("permissions", &PERMISSIONS),
        ("publish, subscribe", &RULES),
        ("allow_responses", &RESPONSES),
        ("account", &ACCOUNT),
        ("account limits", &ACCOUNT_LIMITS),
        ("account jetstream", &ACCOUNT_JETSTREAM),
        ("msg_trace", &MESSAGE_TRACE),
        ("export", &EXPORT),
        ("latency", &LATENCY),
        ("import", &IMPORT),
        ("import source", &IMPORT_SOURCE),
        ("mapping", &DESTINATION),
        ("tls", &TLS),
        ("tls certs", &CERTIFICATE),
        ("websocket", &WEBSOCKET),
        ("websocket authorization", &WEBSOCKET_AUTHORIZATION),
        ("proxies", &PROXIES),
        ("proxies trusted", &PROXY),
        ("jetstream", &JETSTREAM),
        ("jetstream limits", &JETSTREAM_LIMITS),
        ("batch", &JETSTREAM_BATCH),
        ("leafnodes", &LEAFNODES),
        ("leaf remote", &REMOTE),
        ("leaf remote tls", &REMOTE_TLS),
    ];

    /// A row of the table of keys in `docs/compatibility.md`.
    struct Row {
        names: Vec<&'static str>,
        verdict: &'static str,
    }

    /// The rows by block.
    fn table() -> BTreeMap<&'static str, Vec<Row>> {
        let document = include_str!("../../docs/compatibility.md");
        let (_, after) = document.split_once("### Every key").unwrap();
        let mut table: BTreeMap<_, Vec<Row>> = BTreeMap::new();
        let rows = after.lines().skip_while(|line| !line.starts_with("| ---")).skip(1);
        for line in rows.take_while(|line| line.starts_with('|')) {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [block, names, verdict, _] = cells[..] else { panic!("four cells: {line}") };
            let names = names.split(", ").map(|name| name.trim_matches('`')).collect();
            table.entry(block).or_default().push(Row { names, verdict });
        }
        table
    }

    #[test]
    fn no_name_means_two_keys() {
        for (_, block) in ALL {
            let mut seen = BTreeSet::new();
            for name in block.keys.iter().flat_map(|key| key.0) {
                assert!(seen.insert(name), "{name} in {}", block.name);
                assert_eq!(*name, name.to_lowercase());
            }
        }
    }

    #[test]
    fn the_document_says_what_becomes_of_every_key() {
        let table = table();
        for (name, block) in ALL {
            let rows = &table[name];
            assert_eq!(rows.len(), block.keys.len(), "rows of {name}");
            for key in block.keys {
                let row = rows.iter().find(|row| row.names == key.0);
                let Some(row) = row else { panic!("{name} lacks {:?}", key.0) };
                let allowed: &[&str] = match key.1 {
                    Support::Read => &["honoured", "without effect", "refused"],
                    Support::NoEffect(_) => &["without effect"],
                    Support::OnlyFalse | Support::NotYet(_) => &["refused"],
                };
                assert!(allowed.contains(&row.verdict), "{name}: {:?}: {}", key.0, row.verdict);
            }
        }
    }

    #[test]
    fn the_document_names_every_key_of_the_reference() {
        let table = table();
        for line in include_str!("../../tests/config/reference_keys.txt").lines() {
            let (block, keys) = line.split_once(": ").unwrap();
            let rows = &table[block];
            for name in keys.split([';', ' ']).filter(|name| !name.is_empty()) {
                assert!(rows.iter().any(|row| row.names.contains(&name)), "{block}: {name}");
            }
        }
    }
}
