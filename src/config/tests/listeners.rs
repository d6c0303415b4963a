//! TLS, WebSocket, monitoring and logging as they are written.

use super::{config, load_text, mistake};
use crate::config::{
    Authorization, CertificateFiles, CipherSuite, Config, Curve, HandshakeFirst, MonitorConfig,
    Secret, TlsServerConfig, WebSocketConfig,
};
use std::time::Duration;

fn certificate() -> CertificateFiles {
    CertificateFiles { cert_file: "cert.pem".into(), key_file: "key.pem".into() }
}

fn tls(text: &str) -> TlsServerConfig {
    config(&format!("tls {{ cert_file: cert.pem, key_file: key.pem, {text} }}")).tls.unwrap()
}

#[test]
fn tls_in_all_its_forms() {
    let plain = TlsServerConfig { certificates: vec![certificate()], ..TlsServerConfig::default() };
    assert_eq!(tls(""), plain);
    let two = config(
        "tls { certs: [ {cert_file: cert.pem, key_file: key.pem}
        {cert_file: cert.pem, key_file: key.pem} ] }",
    );
    assert_eq!(two.tls.unwrap().certificates, [certificate(), certificate()]);
    let full =
        tls("ca_file: cert.pem, verify_and_map: true, insecure: true, timeout: 0.5, first: auto
         pinned_certs: ['A8f407340dcc719864214b85ed96f98d16cbffa8f509d9fa4ca237b7bb3f9c32']
         connection_rate_limit: 50, min_version: '1.3'
         cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]
         curve_preferences: [CurveP521, X25519, CurveP256]");
    assert_eq!(full.ca_file.as_deref(), Some("cert.pem".as_ref()));
    assert!(full.verify && full.verify_and_map && full.tls13_only);
    assert_eq!(full.timeout, Duration::from_millis(500));
    assert_eq!(full.handshake_first, HandshakeFirst::Wait(Duration::from_millis(50)));
    assert_eq!(full.pinned_certs[0][..2], [0xa8, 0xf4]);
    assert_eq!(full.connection_rate_limit, Some(50));
    assert_eq!(full.cipher_suites, Some(vec![CipherSuite::RsaAes128]));
    assert_eq!(full.curve_preferences, Some(vec![Curve::X25519, Curve::P256]));
    assert_eq!(tls("handshake_first: true").handshake_first, HandshakeFirst::Yes);
    let wait = HandshakeFirst::Wait(Duration::from_millis(300));
    assert_eq!(tls("immediate: '300ms'").handshake_first, wait);
    // Those of TLS 1.3 alone leave none for TLS 1.2.
    assert_eq!(tls("cipher_suites: [TLS_AES_128_GCM_SHA256]").cipher_suites, Some(vec![]));
}

#[test]
fn wrong_tls_is_named_in_the_words_of_nats_server() {
    for (text, expected) in [
        ("cert_file: cert.pem", "missing 'key_file' in TLS configuration"),
        ("key_file: key.pem", "missing 'cert_file' in TLS configuration"),
        ("", "tls needs cert_file and key_file"),
        ("certs: [{cert_file: cert.pem}]", "error parsing certificates config: both"),
        (
            "certs: [{cert_file: cert.pem, key_file: key.pem}], cert_file: cert.pem",
            "error parsing tls config, cannot combine 'cert_file' option with 'certs' option",
        ),
    ] {
        let found = mistake(&format!("tls {{ {text} }}"));
        assert!(found.starts_with(expected), "{text}: {found}");
    }
    let inside =
        |text: &str| mistake(&format!("tls {{ cert_file: cert.pem, key_file: key.pem, {text} }}"));
    for (text, expected) in [
        ("ca_file: none.pem", "ca_file: cannot read none.pem"),
        ("ca_file: key.pem", "ca_file: key.pem holds no certificate"),
        ("min_version: '1.1'", "error parsing tls config: unsupported TLS version: TLS 1.1"),
        ("min_version: 1.2", "min_version must be \"1.2\""),
        ("cipher_suites: []", "error parsing tls config, 'cipher_suites' cannot be empty"),
        ("cipher_suites: [FOO]", "unrecognized cipher FOO"),
        ("cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]", "insecure cipher suites configured without"),
        ("cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA]", "Sedge has none of these"),
        ("curve_preferences: []", "error parsing tls config, 'curve_preferences' cannot be empty"),
        ("curve_preferences: [FOO]", "unrecognized curve preference FOO"),
        ("curve_preferences: [CurveP521]", "Sedge has none of these curves"),
        ("pinned_certs: [a8f4]", "error parsing tls config, 'pinned_certs' key a8f4 does not look"),
        ("first: 5", "handshake_first must be true"),
        ("first: abc", "field \"handshake_first\"'s value \"abc\" is invalid"),
        ("verify_cert_and_check_known_urls: true", "Sedge does not have"),
        ("cert_store: x", "Sedge does not have \"cert_store\" yet: it is for Windows"),
    ] {
        let found = inside(text);
        assert!(found.starts_with(expected), "{text}: {found}");
    }
}

#[test]
fn websocket_with_everything() {
    let read = config(
        "websocket { listen: '127.0.0.1:8080', advertise: 'h:80', same_origin: true
           tls { cert_file: cert.pem, key_file: key.pem }
           origins: ['http://a', 'https://b:80/'], compress: true, handshake_timeout: 5
           authentication { user: a, pass: b, timeout: 3 }
           user_cookie: u, pass_cookie: p, token_cookie: t
           headers { X-One: 1st, X-Two: b }, ping_interval: '7s' }",
    );
    let expected = WebSocketConfig {
        host: "127.0.0.1".into(),
        port: 8080,
        advertise: Some("h:80".into()),
        tls: Some(TlsServerConfig {
            certificates: vec![certificate()],
            ..TlsServerConfig::default()
        }),
        no_tls: false,
        same_origin: true,
        allowed_origins: vec!["http://a".into(), "https://b:80".into()],
        compression: true,
        handshake_timeout: Some(Duration::from_secs(5)),
        authorization: Authorization::User { user: "a".into(), password: Secret::new("b") },
        auth_timeout: Some(Duration::from_secs(3)),
        no_auth_user: None,
        jwt_cookie: None,
        user_cookie: Some("u".into()),
        pass_cookie: Some("p".into()),
        token_cookie: Some("t".into()),
        headers: vec![("X-One".into(), "1st".into()), ("X-Two".into(), "b".into())],
        ping_interval: Some(Duration::from_secs(7)),
    };
    assert_eq!(read.websocket, Some(expected));
    assert_eq!(config("ws { no_tls: true }").websocket, None);
    assert_eq!(config("ws { port: -1, no_tls: true }").websocket.unwrap().host, "0.0.0.0");
}

#[test]
fn wrong_websocket_says_what_to_do() {
    assert!(mistake("websocket { port: 1 }").contains("websocket requires TLS configuration"));
    assert!(mistake("websocket: 5").contains("Expected websocket to be a map"));
    for (text, expected) in [
        ("origins: 'a b'", "unable to parse allowed origin"),
        ("jwt_cookie: j", "for JWT authentication via cookie \"j\""),
        ("headers { Upgrade: x }", "invalid header \"Upgrade\" not allowed"),
        ("headers { 'a b': x }", "no name of an HTTP header"),
        ("authorization { token: a, user: b }", "Cannot have a user/pass and token"),
        ("no_auth_user: a", "no_auth_user: \"a\" present, but users/nkeys are not defined"),
        (
            "authorization { token: a } }\nauthorization { users: [{user: x}] ",
            "websocket authentication token not compatible with presence of users/nkeys",
        ),
    ] {
        let found = mistake(&format!("websocket {{ port: 1, no_tls: true, {text} }}"));
        assert!(found.contains(expected), "{text}: {found}");
    }
}

#[test]
fn monitoring_listens_where_any_of_the_four_keys_says() {
    let monitor = |text: &str| config(text).monitor;
    let at = |host: Option<&str>, port| MonitorConfig {
        host: host.map(Into::into),
        http_port: Some(port),
        ..MonitorConfig::default()
    };
    assert_eq!(monitor("http: 8222"), at(None, 8222));
    assert_eq!(monitor("http: ':8222'"), at(None, 8222));
    assert_eq!(monitor("http: 'h:8222'"), at(Some("h"), 8222));
    assert_eq!(monitor("monitor_port: -1"), at(None, -1));
    assert_eq!(monitor("http_port: 0"), MonitorConfig::default());
    let https = monitor(
        "https_port: 1; http_base_path: '/x'; tls { cert_file: cert.pem, key_file: key.pem }",
    );
    let expected =
        MonitorConfig { https_port: Some(1), base_path: "/x".into(), ..MonitorConfig::default() };
    assert_eq!(https, expected);
    assert!(mistake("https: 8222").contains("TLS cert and key required for HTTPS"));
    let both = "http: 1; https: 2; tls { cert_file: cert.pem, key_file: key.pem }";
    assert!(mistake(both).contains("can't specify both HTTP (1) and HTTPs (2) ports"));
}

#[test]
fn logging_proxies_and_what_monitoring_shows() {
    let read = config(
        "log_size_limit: 1MB; log_max_num: 5; trace_headers: true; max_traced_msg_len: 64
         syslog: true; remote_syslog: 'udp://h:5'; proxy_protocol: true
         proxies { trusted: [{key: UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK}] }
         server_tags: [A, ' b ', a]; server_metadata { z: 1st, a: b }
         max_closed_clients: 5; connect_error_reports: 7; reconnect_error_reports: 0
         accounts { A {} }; default_js_domain { A: hub }; allow_non_tls: true",
    );
    let expected = Config {
        log_size_limit: Some(1 << 20),
        log_max_num: Some(5),
        trace: true,
        trace_headers: true,
        max_traced_msg_len: Some(64),
        syslog: true,
        remote_syslog: Some("udp://h:5".into()),
        proxy_protocol: true,
        trusted_proxies: vec!["UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK".into()],
        server_tags: vec!["a".into(), "b".into()],
        server_metadata: vec![("z".into(), "1st".into()), ("a".into(), "b".into())],
        max_closed_clients: 5,
        connect_error_reports: 7,
        default_js_domain: vec![("A".into(), "hub".into())],
        allow_non_tls: true,
        accounts: read.accounts.clone(),
        ..Config::default()
    };
    assert_eq!(read, expected);
    assert_eq!(config("log_size_limit: -1; max_traced_msg_len: -1"), Config::default());
    assert!(mistake("proxies { trusted: [{key: foo}] }").contains("invalid proxy key \"foo\""));
    let unknown = "default_js_domain { A: hub }";
    assert!(mistake(unknown).contains("references non existing account \"A\""));
    let warned = load_text("authorization { timeout: '70s' }").unwrap();
    assert!(warned.warnings[0].what.contains("high"));
}
