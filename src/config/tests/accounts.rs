//! Accounts, users and permissions as they are written.

use super::{config, load_text, mistake};
use crate::auth::account::{
    Account, AccountLimits, Destination, Export, ExportKind, Import, ImportKind,
    JetStreamAccountLimits, Latency, Mapping, MessageTrace, ResponseType, Sampling,
};
use crate::auth::permissions::{Entry, Permissions, Responses, Rules};
use crate::auth::user::{ConnectionType, Login};
use crate::config::{Authorization, Config, Secret};
use std::time::Duration;

const USER: &str = "UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK";
const ACCOUNT: &str = "AAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3QPZV";

fn entry(text: &str) -> Entry {
    match text.split_once(' ') {
        None => Entry { subject: text.into(), queue: None },
        Some((subject, queue)) => Entry { subject: subject.into(), queue: Some(queue.into()) },
    }
}

fn rules(allow: &[&str], deny: &[&str]) -> Rules {
    let entries = |texts: &[&str]| texts.iter().map(|text| entry(text)).collect();
    Rules { allow: entries(allow), deny: entries(deny) }
}

fn permissions(text: &str) -> Permissions {
    let users = config(&format!("authorization {{ users: [{{user: a, permissions: {text}}}] }}"));
    (**users.users[0].permissions.as_ref().unwrap()).clone()
}

#[test]
fn users_of_every_kind_reach_their_account() {
    let read = config(&format!(
        "authorization {{ users: [ {{user: a, pass: b}}
           {{nkey: {USER}, connection_types: [STANDARD, websocket], proxy_required: true}} ] }}
         accounts: {{ A {{ users: [ {{username: c, password: '$2a$11$x'}} ] }} }}"
    ));
    assert_eq!(read.authorization, Authorization::None);
    let [a, nkey, c] = read.users.as_slice() else { panic!("{:?}", read.users) };
    let login = |user: &str, password: &str| Login::Password {
        user: user.into(),
        password: Some(Secret::new(password)),
    };
    assert_eq!((&a.login, a.account.as_str()), (&login("a", "b"), "$G"));
    assert_eq!((&nkey.login, nkey.account.as_str()), (&Login::Nkey(USER.into()), "$G"));
    assert_eq!(nkey.connection_types, [ConnectionType::Standard, ConnectionType::WebSocket]);
    assert!(nkey.proxy_required && !a.proxy_required);
    assert_eq!((&c.login, c.account.as_str()), (&login("c", "$2a$11$x"), "A"));
}

#[test]
fn defaults_are_for_the_users_of_their_list_that_have_none() {
    let read = config(
        "authorization { default_permissions { pub: g }
           users: [ {user: a}, {user: b, permissions {}} ] }
         accounts { A { users: [ {user: c} ], default_permissions { sub: x } }
           B { users: [ {user: d} ] } }",
    );
    let of = |name: &str| {
        let user = read
            .users
            .iter()
            .find(|user| matches!(&user.login, Login::Password { user, .. } if user == name));
        user.unwrap().permissions.as_deref().cloned()
    };
    let published = Permissions { publish: rules(&["g"], &[]), ..Permissions::default() };
    assert_eq!(of("a"), Some(published));
    assert_eq!(of("b"), Some(Permissions::default()));
    assert_eq!(of("c").unwrap().subscribe, rules(&["x"], &[]));
    assert_eq!(of("d"), None);
}

#[test]
fn permissions_in_all_their_forms() {
    assert_eq!(permissions("{publish: 'a.>'}").publish, rules(&["a.>"], &[]));
    assert_eq!(permissions("{import: [a, b]}").publish, rules(&["a", "b"], &[]));
    assert_eq!(
        permissions("{sub: {allow: a, deny: [b, 'c.*']}}").subscribe,
        rules(&["a"], &["b", "c.*"])
    );
    assert_eq!(
        permissions("{export: ['foo q', 'a.*  *.q']}").subscribe,
        rules(&["foo q", "a.* *.q"], &[])
    );
    let responses = |text| permissions(&format!("{{allow_responses: {text}}}")).responses;
    let granted = |max, expires| Some(Responses { max, expires });
    let minutes = |count| Some(Duration::from_mins(count));
    assert_eq!(responses("true"), granted(Some(1), minutes(2)));
    assert_eq!(responses("false"), None);
    assert_eq!(responses("{max: 5, ttl: '1m'}"), granted(Some(5), minutes(1)));
    assert_eq!(responses("{max: -1, expires: '-1s'}"), granted(None, None));
    assert_eq!(responses("{max: 0}"), granted(Some(1), minutes(2)));
}

#[test]
fn an_account_with_everything() {
    let read = config(&format!(
        "accounts {{
           A {{ nkey: {ACCOUNT}
             limits {{ max_conn: 5, max_subs: 0, max_payload: 1MB, max_leafs: -1 }}
             jetstream {{ max_mem: 1GB, max_file: -1, streams: 5, max_bytes_required: true }}
             msg_trace {{ dest: tr, sampling: '50%' }}
             mappings {{ a: b, 'c.*': [ {{dest: 'd.$1', weight: 30%}}, {{dest: e, weight: 10, cluster: x}} ] }}
             exports: [
               {{stream: 's.>', accounts: [B]}}
               {{service: 'q.*', response: chunked, threshold: '5s', account_token_position: 2, allow_trace: true}}
               {{service: r, latency: {{subject: lat, sampling: headers}}}} ]
           }}
           B {{ jetstream: enabled, imports: [
               {{stream: {{account: A, subject: 's.x'}}, prefix: p, allow_trace: true}}
               {{service: {{account: A, subject: 'q.B'}}, to: ask, share: true}} ] }} }}"
    ));
    let expected = Account {
        name: "A".into(),
        nkey: Some(ACCOUNT.into()),
        limits: AccountLimits {
            max_connections: Some(5),
            max_subscriptions: Some(0),
            max_payload: Some(1 << 20),
            max_leafnodes: None,
        },
        jetstream: Some(JetStreamAccountLimits {
            max_memory: Some(1 << 30),
            max_streams: Some(5),
            max_bytes_required: true,
            ..JetStreamAccountLimits::default()
        }),
        trace: Some(MessageTrace { dest: "tr".into(), sampling: 50 }),
        mappings: vec![
            Mapping {
                subject: "a".into(),
                destinations: vec![Destination { subject: "b".into(), weight: 100, cluster: None }],
            },
            Mapping {
                subject: "c.*".into(),
                destinations: vec![
                    Destination { subject: "d.$1".into(), weight: 30, cluster: None },
                    Destination { subject: "e".into(), weight: 10, cluster: Some("x".into()) },
                ],
            },
        ],
        exports: vec![
            Export {
                subject: "s.>".into(),
                kind: ExportKind::Stream,
                accounts: Some(vec!["B".into()]),
                account_token_position: None,
                allow_trace: false,
            },
            Export {
                subject: "q.*".into(),
                kind: ExportKind::Service {
                    response: ResponseType::Chunked,
                    threshold: Some(Duration::from_secs(5)),
                    latency: None,
                },
                accounts: None,
                account_token_position: Some(2),
                allow_trace: true,
            },
            Export {
                subject: "r".into(),
                kind: ExportKind::Service {
                    response: ResponseType::Singleton,
                    threshold: None,
                    latency: Some(Latency { subject: "lat".into(), sampling: Sampling::Headers }),
                },
                accounts: None,
                account_token_position: None,
                allow_trace: false,
            },
        ],
        ..Account::default()
    };
    assert_eq!(read.accounts[0], expected);
    let imports = vec![
        Import {
            account: "A".into(),
            subject: "s.x".into(),
            to: Some("p.s.x".into()),
            kind: ImportKind::Stream { allow_trace: true },
        },
        Import {
            account: "A".into(),
            subject: "q.B".into(),
            to: Some("ask".into()),
            kind: ImportKind::Service { share: true },
        },
    ];
    assert_eq!(read.accounts[1].imports, imports);
    assert_eq!(read.accounts[1].jetstream, Some(JetStreamAccountLimits::default()));
}

#[test]
fn accounts_as_a_list_and_the_system_account() {
    let names = |config: &Config| {
        config.accounts.iter().map(|account| account.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&config("accounts: [A, '$SYS']")), ["A", "$SYS"]);
    let read = config("accounts { A {} }\nsystem_account: A\nno_auth_user: ''");
    assert_eq!((read.system_account.as_deref(), read.no_auth_user), (Some("A"), None));
    assert!(config("no_sys_acc: true").no_system_account);
    assert_eq!(config("maps { 'a.>': 'b.>' }").mappings.len(), 1);
}

#[test]
fn wrong_users_are_named_in_the_words_of_nats_server() {
    let users = |text: &str| mistake(&format!("authorization {{ users: [ {text} ] }}"));
    for (text, expected) in [
        ("{user: a}, {user: a}", "Duplicate user \"a\" detected"),
        ("{pass: a}", "User entry requires a user"),
        ("{user: ''}", "User entry requires a user"),
        ("{nkey: foo}", "Not a valid public nkey for a user"),
        (
            "{user: a, connection_types: [FOO, MQTT, BAR]}",
            "invalid connection types [\"FOO\" \"BAR\"]",
        ),
        ("{user: a, permissions: {pub: 'foo q'}}", "subject \"foo q\" is not a valid subject"),
        ("{user: a, permissions: {sub: 'foo q..r'}}", "queue \"q..r\" is not a valid queue"),
        ("{user: a, permissions: {sub: ' foo'}}", "subject \" foo\" is not a valid subject"),
        ("{user: a, permissions: {foo: a}}", "unknown field \"foo\""),
        ("{user: a, permissions: {allow_responses: {ttl: 5}}}", "error parsing expires"),
    ] {
        let found = users(text);
        assert!(found.starts_with(expected), "{text}: {found}");
    }
    assert!(users(&format!("{{nkey: {ACCOUNT}}}")).starts_with("Not a valid public nkey"));
    assert!(users(&format!("{{nkey: {USER}, user: a}}")).starts_with("Nkey users do not take"));
    assert!(users(&format!("{{nkey: {USER}}}, {{nkey: {USER}}}")).starts_with("Duplicate nkey"));
    for (text, expected) in [
        (
            "authorization { user: a, users: [] }",
            "Can not have a single user/pass and a users array",
        ),
        ("authorization { token: a, users: [] }", "Can not have a token and a users array"),
        ("authorization { token: a, user: b }", "Cannot have a user/pass and token"),
        (
            "authorization { user: a }\naccounts { A { users: [{user: b}] } }",
            "Can not have a single user/pass and accounts",
        ),
        (
            "authorization { token: a }\naccounts { A { users: [{user: b}] } }",
            "Can not have a token and accounts",
        ),
        (
            "authorization { users: [{user: a}] }\naccounts { A { users: [{user: a}] } }",
            "Duplicate user \"a\" detected",
        ),
        ("no_auth_user: a", "no_auth_user: \"a\" present, but users/nkeys are not defined"),
        (
            "no_auth_user: a\nauthorization { users: [{user: b}] }",
            "no_auth_user: \"a\" not present as user",
        ),
    ] {
        let found = mistake(text);
        assert!(found.starts_with(expected), "{text}: {found}");
    }
}

#[test]
fn wrong_accounts_are_named_in_the_words_of_nats_server() {
    for (text, expected) in [
        ("accounts { $G {} }", "\"$G\" is a Reserved Account"),
        ("accounts: [A, A]", "Duplicate Account Entry: A"),
        ("accounts { 'a b' {} }", "\"a b\" cannot be the name of an account"),
        ("accounts { A: 5 }", "Expected map entries for accounts"),
        ("accounts { A { nkey: foo } }", "Not a valid public nkey for an account: \"foo\""),
        (
            "accounts { A { jetstream: foo } }",
            "Expected 'enabled' or 'disabled' for string value, got 'foo'",
        ),
        ("accounts { A { msg_trace: 'a.*' } }", "Trace destination \"a.*\" is not valid"),
        ("accounts { A { limits { foo: 1 } } }", "unknown field \"foo\""),
        ("system_account: A", "error resolving system account: account missing"),
        (
            "jetstream: on\naccounts { $SYS { jetstream: on } }",
            "Not allowed to enable JetStream on the system account",
        ),
        ("mappings { 'a..b': c }", "Subject \"a..b\" is not a valid subject"),
        (
            "mappings { a: [{dest: b, weight: 60}, {dest: c, weight: 60}] }",
            "Error adding mapping for \"a\" : total weight needs to be <= 100",
        ),
        (
            "mappings { a: [{dest: b, weight: 6}, {dest: b, weight: 6}] }",
            "Error adding mapping for \"a\" : duplicate entry for \"b\"",
        ),
        ("mappings { a: {dest: b} }", "Missing weight for mapping destination \"b\""),
        ("mappings { a: {dest: b, weight: 101} }", "Invalid weight 101 for mapping destination"),
        ("mappings { a: [b] }", "Expected an entry for the mapping destination"),
    ] {
        let found = mistake(text);
        assert!(found.starts_with(expected), "{text}: {found}");
    }
    let loaded = load_text("accounts { A { msg_trace { sampling: 5 } } }").unwrap();
    assert!(loaded.warnings[0].what.contains("sampling ignored"));
}

#[test]
fn wrong_exports_and_imports_are_named_in_the_words_of_nats_server() {
    let export = |text: &str| mistake(&format!("accounts {{ A {{ exports: [ {text} ] }} }}"));
    for (text, expected) in [
        ("{stream: a, accounts: [X]}", "\"X\" account not defined for stream export"),
        ("{service: a, stream: b}", "Detected stream \"b\" but already saw a service"),
        ("{response: single, stream: b}", "Detected response directive on non-service"),
        ("{latency: l, stream: b}", "Detected latency directive on non-service"),
        ("{allow_trace: true, stream: b}", "Detected allow_trace directive on non-service"),
        ("{service: a, response: foo}", "Unknown response type: \"foo\""),
        (
            "{service: a, threshold: 5}",
            "Expected response threshold to be a parseable time duration",
        ),
        (
            "{service: 's.>', response: stream, latency: lat}",
            "Error adding service latency sampling for \"s.>\" on subject \"lat\": bad service response type",
        ),
        (
            "{service: s, latency: 'l.*'}",
            "Error adding service latency sampling for \"s\" on subject \"l.*\": invalid publish subject",
        ),
        ("{service: 'a.*', account_token_position: 1}", "Error adding service export \"a.*\""),
        ("{}", "this export has neither"),
    ] {
        let found = export(text);
        assert!(found.starts_with(expected), "{text}: {found}");
    }
    let import = |text: &str| {
        mistake(&format!(
            "accounts {{ A {{ exports: [ {{stream: 's.*'}}, {{service: 'q.*'}}, {{stream: c, accounts: [A]}},
               {{stream: 'n.*', account_token_position: 2}} ] }}
               B {{ imports: [ {text} ] }} }}"
        ))
    };
    for (text, expected) in [
        ("{stream: {account: X, subject: a}}", "\"X\" account not defined for stream import"),
        (
            "{stream: {account: A, subject: 'q.a'}}",
            "Error adding stream import \"q.a\": stream import not authorized",
        ),
        (
            "{service: {account: A, subject: c}}",
            "Error adding service import \"c\": service import not authorized",
        ),
        (
            "{stream: {account: A, subject: c}}",
            "Error adding stream import \"c\": stream import not authorized",
        ),
        (
            "{stream: {account: A, subject: 'n.C'}}",
            "Error adding stream import \"n.C\": stream import not authorized",
        ),
        (
            "{stream: {account: A, subject: 's.a'}, to: t, prefix: p}",
            "Stream import can not have a 'prefix' and a 'to' property",
        ),
        (
            "{stream: {account: A, subject: 's.a'}, prefix: '*'}",
            "Error adding stream import \"s.a\": stream import prefix can not contain wildcard tokens",
        ),
        (
            "{service: {account: A, subject: 'q.a'}, allow_trace: true}",
            "Detected allow_trace directive on a non-stream",
        ),
        (
            "{service: {account: A, subject: 'q.a'}}, {service: {account: A, subject: 'q.a'}}",
            "Duplicate service import subject \"q.a\", previously used in import for account \"A\", subject \"q.a\"",
        ),
        (
            "{stream: {account: A, subject: 's.a'}, to: x}, {stream: {account: A, subject: 's.a'}, to: y}",
            "Error adding stream import \"s.a\": stream import already exists",
        ),
        ("{stream: {account: A}}", "Expect an account name and a subject"),
        ("{stream: a}", "Stream entry should be an account map"),
        ("{to: a}", "this import has neither"),
    ] {
        let found = import(text);
        assert!(found.starts_with(expected), "{text}: {found}");
    }
    config(
        "accounts { A { exports: [ {stream: 'n.*', account_token_position: 2} ] }
           B { imports: [ {stream: {account: A, subject: 'n.B'}} ] } }",
    );
}

#[test]
fn imports_that_lead_back_are_a_cycle() {
    for kind in ["stream", "service"] {
        let ring = mistake(&format!(
            "accounts {{
               A {{ exports: [{{{kind}: a}}], imports: [{{{kind}: {{account: C, subject: c}}, to: a}}] }}
               B {{ exports: [{{{kind}: b}}], imports: [{{{kind}: {{account: A, subject: a}}, to: b}}] }}
               C {{ exports: [{{{kind}: c}}], imports: [{{{kind}: {{account: B, subject: b}}, to: c}}] }} }}"
        ));
        assert!(ring.contains("import forms a cycle"), "{ring}");
        let wild = mistake(&format!(
            "accounts {{
               A {{ exports: [{{{kind}: 'a.*'}}], imports: [{{{kind}: {{account: B, subject: 'b.*'}}, to: 'a.$1'}}] }}
               B {{ exports: [{{{kind}: 'b.*'}}], imports: [{{{kind}: {{account: A, subject: 'a.*'}}, to: 'b.$1'}}] }} }}"
        ));
        assert!(wild.contains("import forms a cycle"), "{wild}");
        // There and back under other names leads nowhere.
        config(&format!(
            "accounts {{
               A {{ exports: [{{{kind}: a}}], imports: [{{{kind}: {{account: B, subject: b}}, to: x}}] }}
               B {{ exports: [{{{kind}: b}}], imports: [{{{kind}: {{account: A, subject: a}}, to: y}}] }} }}"
        ));
    }
}
