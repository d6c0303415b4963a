//! Texts and what they mean, or what is said of them.

mod accounts;
mod listeners;

use super::parser::tests::Fake;
use super::read::load;
use super::*;

const CREDS: &str = "-----BEGIN NATS USER JWT-----\n-----BEGIN USER NKEY SEED-----\n";
const SEED: &str = "SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y";

pub(super) fn load_text(text: &str) -> Result<Loaded, Vec<String>> {
    let fake = Fake {
        files: vec![
            ("g.conf", text.to_owned()),
            ("g.creds", CREDS.to_owned()),
            ("d/g.creds", CREDS.to_owned()),
            ("cert.pem", "-----BEGIN CERTIFICATE-----".to_owned()),
            ("key.pem", "-----BEGIN EC PRIVATE KEY-----".to_owned()),
            ("wrong.creds", "hello".to_owned()),
        ],
        variables: vec![("HOME", "home"), ("DIR", "d")],
    };
    load(Path::new("g.conf"), &fake)
        .map_err(|mistakes| mistakes.0.iter().map(ToString::to_string).collect())
}

pub(super) fn config(text: &str) -> Config {
    match load_text(text) {
        Ok(loaded) => loaded.config,
        Err(mistakes) => panic!("{text}: {mistakes:#?}"),
    }
}

/// The one mistake of `text`, without its place.
pub(super) fn mistake(text: &str) -> String {
    match load_text(text) {
        Ok(_) => panic!("accepted: {text}"),
        Err(mistakes) => {
            assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
            mistakes[0].split_once(": ").unwrap().1.to_owned()
        }
    }
}

#[test]
fn nothing_written_is_the_default_with_a_warning() {
    let loaded = load_text("# nothing").unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.warnings[0].to_string(), "g.conf: config has no values or is empty");
}

#[test]
fn every_top_level_key_reaches_its_field() {
    let read = config(
        "listen: 127.0.0.1:-1\nserver_name: gw, client_advertise: 'h:1', no_header_support: on
        max_conn: 10; max_subs: 5; max_sub_tokens: 8; max_control_line: 8KB
        max_payload: 2MB; max_pending: 4MB; ping_interval: 5s; ping_max: 3
        write_deadline: '2s'; write_timeout: retry
        lame_duck_duration: '40s'; lame_duck_grace_period: '5s'; no_fast_producer_stall: yes
        debug: true; trace: true; logtime: false; logtime_utc: true
        logfile: 'a.log'; pidfile: 'a.pid'; ports_file_dir: '/tmp'
        authorization { user: u, pass: p, timeout: 1.5 }",
    );
    let expected = Config {
        server_name: Some("gw".into()),
        host: "127.0.0.1".into(),
        port: -1,
        client_advertise: Some("h:1".into()),
        no_header_support: true,
        max_connections: 10,
        max_subscriptions: Some(5),
        max_sub_tokens: Some(8),
        max_control_line: 8192,
        max_payload: 2 << 20,
        max_pending: 4 << 20,
        ping_interval: Duration::from_secs(5),
        ping_max: 3,
        write_deadline: Duration::from_secs(2),
        write_timeout: WriteTimeout::Retry,
        lame_duck_duration: Duration::from_secs(40),
        lame_duck_grace_period: Duration::from_secs(5),
        no_fast_producer_stall: true,
        debug: true,
        trace: true,
        trace_verbose: false,
        logtime: false,
        logtime_utc: true,
        log_file: Some("a.log".into()),
        pid_file: Some("a.pid".into()),
        ports_file_dir: Some("/tmp".into()),
        authorization: Authorization::User {
            user: "u".into(),
            password: Secret::from("p".to_owned()),
        },
        auth_timeout: Duration::from_millis(1500),
        ..Config::default()
    };
    assert_eq!(read, expected);
}

#[test]
fn zero_is_the_default_except_where_it_means_refuse_or_unlimited() {
    let read = config(
        "port: 0; ping_interval: '0s'; ping_max: 0; max_payload: 0; max_pending: 0
        max_control_line: 0; write_deadline: '0s'",
    );
    assert_eq!(read, Config::default());
    assert_eq!(config("max_connections: 0").max_connections, 0);
    assert_eq!(config("max_connections: -1").max_connections, 0);
    assert_eq!(config("max_subscriptions: 0").max_subscriptions, None);
    assert_eq!(config("max_payload: -1; max_pending: 2MB").max_payload, 2 << 20);
}

#[test]
fn jetstream_in_all_its_forms() {
    for text in ["jetstream: true", "jetstream: enabled", "jetstream {}", "jetstream: on"] {
        assert_eq!(config(text).jetstream, Some(JetStreamConfig::default()), "{text}");
    }
    for text in ["jetstream: false", "jetstream: disabled", "jetstream { enabled: false }"] {
        assert_eq!(config(text).jetstream, None, "{text}");
    }
    assert!(mistake("jetstream: maybe").contains("jetstream must be"));
    let read = config(
        "jetstream { store_dir: d, max_mem: '1G', max_file: 10GB, domain: gw, sync: '500ms'
        strict: false, max_buffered_msgs: 5, unique_tag: az
        limits { duplicate_window: '5m', max_ack_pending: 100, max_request_batch: -1 } }",
    );
    let expected = JetStreamConfig {
        store_dir: "d".into(),
        max_memory_store: Some(1 << 30),
        max_file_store: Some(10 << 30),
        domain: Some("gw".into()),
        sync_interval: SyncInterval::Every(Duration::from_millis(500)),
        strict: false,
        limits: JetStreamLimits {
            duplicate_window: Some(Duration::from_mins(5)),
            max_ack_pending: Some(100),
            max_request_batch: None,
            batch: BatchLimits::default(),
        },
    };
    assert_eq!(read.jetstream, Some(expected));
    let top = config("store_dir: d\njetstream: true");
    assert_eq!(top.jetstream.unwrap().directory(), Path::new("d/jetstream"));
    assert_eq!(config("store_dir: d").jetstream, None);
    let sync = |text: &str| config(text).jetstream.unwrap().sync_interval;
    assert_eq!(sync("jetstream { sync_interval: always }"), SyncInterval::Always);
    assert_eq!(sync("jetstream { sync_interval: '0s' }"), SyncInterval::Always);
}

#[test]
fn a_remote_with_everything() {
    let read = config(&format!(
        "leaf {{ reconnect: '2s', dial_timeout: '3s', compression: off
        remotes = [
          {{ urls: ['nats-leaf://a', tls://b:1], creds: '$DIR/g.creds', local: '$G'
            tls {{ cert_file: cert.pem, key_file: key.pem, first: true, timeout: 5,
                   insecure: true, min_version: '1.3' }}
            deny_import: 'x.>', deny_exports: [a, 'b.*'], no_randomize: true
            first_info_timeout: '4s', dial_timeout: '1s', ignore_discovered_servers: true
            compression: {{mode: s2_fast}} }}
          {{ url: 'nats://u:p@a', nkey: {SEED}, disabled: true }}
        ] }}"
    ));
    assert_eq!(read.leafnodes.reconnect, Duration::from_secs(2));
    let [first, second] = read.leafnodes.remotes.as_slice() else { panic!("two remotes") };
    let url = |scheme, host: &str, port| RemoteUrl {
        scheme,
        host: host.into(),
        port,
        user: None,
        password: None,
    };
    let expected = RemoteConfig {
        urls: vec![url(Scheme::Nats, "a", 7422), url(Scheme::Tls, "b", 1)],
        account: "$G".into(),
        credentials: Some("d/g.creds".into()),
        nkey: None,
        tls: Some(TlsClientConfig {
            cert_file: Some("cert.pem".into()),
            key_file: Some("key.pem".into()),
            ca_file: None,
            insecure: true,
            handshake_first: true,
            timeout: Duration::from_secs(5),
            tls13_only: true,
        }),
        deny_imports: vec!["x.>".into()],
        deny_exports: vec!["a".into(), "b.*".into()],
        no_randomize: true,
        first_info_timeout: Duration::from_secs(4),
        dial_timeout: Duration::from_secs(1),
        ignore_discovered_servers: true,
        disabled: false,
        compression: Compression::S2Fast,
    };
    assert_eq!(*first, expected);
    assert_eq!(second.nkey.as_ref().map(Secret::expose), Some(SEED));
    assert_eq!(second.dial_timeout, Duration::from_secs(3));
    assert_eq!(second.compression, Compression::Off);
    assert!(second.disabled);
}

#[test]
fn wrong_remotes_say_what_to_do() {
    let remote = |inside: &str| mistake(&format!("leafnodes {{ remotes: [ {{ {inside} }} ] }}"));
    assert!(remote("url: 'nats://h', creds: 'no.creds'").contains("cannot read no.creds"));
    assert!(remote("url: 'nats://h', creds: 'wrong.creds'").contains("no creds file"));
    assert!(remote("url: 'nats://h', creds: '$NOPE/x'").contains("NOPE is not set"));
    assert!(remote(&format!("url: 'nats://h', creds: 'g.creds', nkey: {SEED}")).contains("both"));
    assert!(remote("url: 'nats://h', nkey: SUADOESNOT").contains("seed of a user"));
    assert!(remote("url: 'nats://h', account: A").contains("cannot find local account"));
    assert!(remote("url: 'nats://h', hub: true").contains("hub of this link"));
    assert!(remote("account: '$G'").contains("no url"));
    assert!(remote("url: 'ws://h'").contains("WebSocket"));
    assert!(remote("url: 'nats://h', deny_imports: 'a..b'").contains("valid subject"));
    assert!(remote("url: 'nats://h', tls { cert_file: cert.pem }").contains("key_file"));
    assert!(remote("url: 'nats://h', tls { ca_file: x }").contains("cannot read x"));
    assert!(remote("url: 'nats://h' }, { url: 'nats://h'").contains("duplicate remote"));
    assert!(remote("url: 'nats://h', compression: zip").contains("s2_auto"));
    assert!(mistake("leafnodes { remotes { url: 'nats://h' } }").contains("a list"));
    // A remote that is switched off may lack its file.
    config("leafnodes { remotes: [ { url: 'nats://h', creds: 'no.creds', disabled: true } ] }");
}

#[test]
fn an_unknown_key_gets_the_nearest_known_one() {
    assert_eq!(
        mistake("max_payloda: 1MB"),
        "unknown field \"max_payloda\"; did you mean \"max_payload\"?"
    );
    assert!(mistake("jetstream { max_fil: 1 }").contains("\"max_file\""));
    assert!(mistake("leafnodes { remote: [] }").contains("\"remotes\""));
    assert!(mistake("zebra: 1").contains("no such key in the top level"));
    config("zebra: 1MB\nmax_payload: $zebra");
}

#[test]
fn a_key_we_lack_is_named_with_what_to_do_instead() {
    for (text, expected) in [
        ("mqtt { port: 1883 }", "Sedge does not have \"mqtt\" yet"),
        ("cluster { name: c }", "leaf uplink"),
        ("gateway { name: c }", "leaf uplink"),
        ("resolver_tls { ca_file: x }", "Sedge does not have"),
        ("leafnodes { port: 7422 }", "accepts no leaf nodes"),
        ("jetstream { ek: x }", "encrypt the file system"),
    ] {
        let mistake = mistake(text);
        assert!(mistake.contains(expected), "{text}: {mistake}");
    }
    config("ocsp: false; prof_port: 8080; disable_sublist_cache: true");
}

#[test]
fn the_trap_of_the_unquoted_duration_is_explained() {
    assert!(mistake("ping_interval: 2m").contains("write \"2m\""));
    let loaded = load_text("ping_interval: 5").unwrap();
    assert_eq!(loaded.config.ping_interval, Duration::from_secs(5));
    assert!(loaded.warnings[0].what.contains("\"5s\""));
    assert!(mistake("lame_duck_duration: 50").contains("quotes"));
}

#[test]
fn checks_between_keys() {
    assert!(mistake("max_payload: 2MB; max_pending: 1MB").contains("max_pending"));
    assert!(mistake("max_pending: 10").contains("max_payload (1048576)"));
    assert!(mistake("lame_duck_grace_period: '3m'").contains("below"));
    assert!(mistake("lame_duck_duration: '5s'").contains("30s"));
    assert!(mistake("store_dir: a\njetstream { store_dir: b }").contains("one place"));
    assert!(mistake("authorization { user: a, token: b }").contains("token"));
    assert!(mistake("server_name: 'a b'").contains("blanks"));
    for domain in ["a.b", "a*", ">", "a b"] {
        assert!(mistake(&format!("jetstream {{ domain: '{domain}' }}")).contains("one token"));
    }
    for port in ["-2", "70000", "99999999999"] {
        assert!(mistake(&format!("port: {port}")).contains("port"));
    }
}

#[test]
fn all_mistakes_at_once_in_order_with_places() {
    let mistakes = load_text(
        "prot: 4222\nmax_payload: '1MB'\njetstream {\n  store_dir: 5\n  domian: x\n}\nhost: 1.5k\n",
    )
    .unwrap_err();
    let places: Vec<_> = mistakes.iter().map(|m| m.split(": ").next().unwrap()).collect();
    assert_eq!(places, ["g.conf:1:1", "g.conf:2:14", "g.conf:4:14", "g.conf:5:3", "g.conf:7:7"]);
}

#[test]
fn no_message_shows_a_secret() {
    for text in [
        "authorization { user: a, pass: [hunter2] }",
        "authorization { token: [hunter2] }",
        "leafnodes { remotes: [ { url: 'nats://u:hunter2@h:x' } ] }",
        "leafnodes { remotes: [ { url: 'nats://h', nkey: hunter2 } ] }",
    ] {
        let mistake = mistake(text);
        assert!(!mistake.contains("hunter2"), "{mistake}");
    }
    let shown = format!("{:?}", config("authorization { user: a, pass: hunter2 }"));
    assert!(!shown.contains("hunter2"));
}
