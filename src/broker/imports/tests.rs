//! What crosses between accounts, as clients see it.

use super::super::testing::World;
use super::*;
use crate::auth::account::{
    Destination, JetStreamAccountLimits, Latency as Declared, Mapping, Sampling,
};
use crate::id::ConnId;
use alloc::format;
use alloc::vec;

fn stream(subject: &str) -> Export {
    Export {
        subject: subject.into(),
        kind: ExportKind::Stream,
        accounts: None,
        account_token_position: None,
        allow_trace: false,
    }
}

fn service(subject: &str, response: ResponseType) -> Export {
    let kind = ExportKind::Service { response, threshold: None, latency: None };
    Export { kind, ..stream(subject) }
}

fn from(account: &str, subject: &str, to: &str, kind: ImportKind) -> Import {
    let to = (!to.is_empty()).then(|| to.into());
    Import { account: account.into(), subject: subject.into(), to, kind }
}

const STREAM: ImportKind = ImportKind::Stream { allow_trace: false };
const SERVICE: ImportKind = ImportKind::Service { share: false };

fn exporter(exports: Vec<Export>) -> Account {
    Account { exports, ..Account::named("E") }
}

fn importer(imports: Vec<Import>) -> Account {
    Account { imports, ..Account::named("I") }
}

/// The reply subject of the last request a service was sent.
fn reply(sent: &str) -> String {
    let at = sent.rfind("_R_.").expect("a request with a reply");
    sent[at..].split(' ').next().unwrap().into()
}

/// A world of two accounts, and a client in each: exporter, importer.
fn pair(exports: Vec<Export>, imports: Vec<Import>) -> (World, ConnId, ConnId) {
    let mut world = World::new(vec![exporter(exports), importer(imports)], false);
    assert_eq!(world.notices, Vec::<String>::new());
    let (e, i) = (world.client("E").unwrap(), world.client("I").unwrap());
    (world, e, i)
}

impl World {
    fn answers(&mut self, id: ConnId, to: &str, text: &str) {
        self.says(id, &format!("PUB {to} {}\r\n{text}\r\n", text.len()));
    }

    fn subs(&self) -> usize {
        self.broker.core.subs.len()
    }
}

#[test]
fn messages_of_an_imported_stream_come_under_their_own_name() {
    let exports = vec![stream("pub.>"), stream("priv.*")];
    let imports =
        vec![from("E", "pub.>", "fromE.pub.>", STREAM), from("E", "priv.*", "mine.$1.x", STREAM)];
    let (mut world, e, i) = pair(exports, imports);
    let before = world.subs();
    world.says(i, "SUB > 1\r\nSUB fromE.pub.*.b 2\r\nSUB mine.a.x q 3\r\nSUB pub.a 4\r\n");
    world.says(
        e,
        "PUB pub.a r 1\r\n1\r\nPUB priv.a 1\r\n2\r\nPUB priv.b 1\r\n3\r\nPUB pub.a.b 1\r\n4\r\n",
    );
    assert_eq!(
        world.sent(i),
        "MSG fromE.pub.a 1 r 1\r\n1\r\nMSG mine.a.x 1 1\r\n2\r\nMSG mine.a.x 3 1\r\n2\r\n\
         MSG mine.b.x 1 1\r\n3\r\nMSG fromE.pub.a.b 1 1\r\n4\r\nMSG fromE.pub.a.b 2 1\r\n4\r\n"
    );
    world.says(i, "PUB mine.a.x 1\r\n5\r\nUNSUB 1\r\nUNSUB 2\r\nUNSUB 3\r\nUNSUB 4\r\n");
    assert_eq!(world.sent(e), "", "nothing flows back");
    assert_eq!(world.subs(), before, "shadows go with their subscriptions");
    assert!(world.broker.core.cross.shadows.is_empty());
}

#[test]
fn members_of_a_queue_group_share_an_imported_stream() {
    let (mut world, e, i) = pair(vec![stream("a")], vec![from("E", "a", "", STREAM)]);
    world.says(i, "SUB a q 1\r\nSUB a q 2\r\nSUB a q 3\r\nUNSUB 3 1\r\n");
    for _ in 0..20 {
        world.says(e, "PUB a 1\r\nx\r\n");
    }
    assert_eq!(world.sent(i).matches("MSG a").count(), 20);
}

#[test]
fn a_service_answers_once() {
    let exports = vec![service("svc.*", ResponseType::Singleton)];
    let (mut world, e, i) = pair(exports, vec![from("E", "svc.*", "my.$1", SERVICE)]);
    world.says(e, "SUB svc.a 1\r\n");
    world.says(
        i,
        "SUB in 9\r\nHPUB my.a in 40 41\r\nNATS/1.0\r\nA: b\r\nNats-Request-Info: x\r\n\r\nq\r\n",
    );
    let asked = world.sent(e);
    let answer = reply(&asked);
    assert!(asked.starts_with(&format!("HMSG svc.a 1 {answer} ")), "{asked}");
    assert!(
        asked.contains(
            "\r\nNATS/1.0\r\nA: b\r\nNats-Request-Info: {\"acc\":\"I\",\"rtt\":1}\r\n\r\nq"
        ),
        "{asked}"
    );
    world.answers(e, &answer, "yes");
    world.answers(e, &answer, "again");
    assert_eq!(world.sent(i), "MSG in 9 3\r\nyes\r\n");
    assert_eq!(world.broker.core.poll_responses(), None);
    world.says(i, "PUB my.a 1\r\nq\r\n");
    assert!(world.sent(e).starts_with("HMSG svc.a 1 "), "without a reply too");
}

#[test]
fn a_stream_of_answers_ends_with_an_empty_one() {
    let exports = vec![service("svc", ResponseType::Stream)];
    let (mut world, e, i) = pair(exports, vec![from("E", "svc", "", SERVICE)]);
    world.says(e, "SUB svc 1\r\n");
    world.says(i, "SUB in.* 9\r\nPUB svc in.1 1\r\nq\r\n");
    let answer = reply(&world.sent(e));
    for text in ["1", "2", "", "3"] {
        world.answers(e, &answer, text);
    }
    assert_eq!(world.sent(i), "MSG in.1 9 1\r\n1\r\nMSG in.1 9 1\r\n2\r\nMSG in.1 9 0\r\n\r\n");
    assert_eq!(world.broker.core.poll_responses(), None);
}

#[test]
fn answers_nobody_waits_for_are_forgotten() {
    let kind = |threshold| ExportKind::Service {
        response: ResponseType::Stream,
        threshold: Some(threshold),
        latency: None,
    };
    let export = Export { kind: kind(Duration::from_secs(1)), ..stream("svc") };
    let (mut world, e, i) = pair(vec![export], vec![from("E", "svc", "", SERVICE)]);
    world.says(e, "SUB svc 1\r\n");
    world.says(i, "SUB in.* 9\r\nPUB svc in.1 1\r\nq\r\n");
    let answer = reply(&world.sent(e));
    world.waits(800);
    world.answers(e, &answer, "1");
    world.waits(800);
    world.answers(e, &answer, "2");
    assert_eq!(world.sent(i).matches("MSG").count(), 2, "each answer gives it more time");
    world.waits(2_000);
    world.answers(e, &answer, "3");
    assert_eq!(world.sent(i).replace("PING\r\n", ""), "");
    world.says(i, "PUB svc in.1 1\r\nq\r\n");
    assert!(world.broker.core.poll_responses().is_some());
    world.says(i, "UNSUB 9\r\n");
    assert_eq!(world.broker.core.poll_responses(), None);
    let state = world.broker.core.account(AccountId(3)).unwrap();
    assert!(state.crossing.waiting.is_empty() && state.crossing.pending == 0);
}

#[test]
fn whoever_asks_where_nobody_serves_is_told() {
    let exports = vec![service("svc", ResponseType::Singleton)];
    let (mut world, _, i) = pair(exports, vec![from("E", "svc", "mine", SERVICE)]);
    world.says(i, "SUB in 9\r\nPUB mine in 1\r\nq\r\n");
    assert_eq!(world.sent(i), "HMSG in 9 36 36\r\nNATS/1.0 503\r\nNats-Subject: mine\r\n\r\n\r\n");
    assert_eq!(world.broker.core.poll_responses(), None);
}

#[test]
fn requests_pass_through_an_account_in_between() {
    let e = exporter(vec![service("svc", ResponseType::Singleton)]);
    let middle = Account {
        exports: vec![service("middle", ResponseType::Singleton)],
        ..importer(vec![from("E", "svc", "middle", SERVICE)])
    };
    let share = ImportKind::Service { share: true };
    let last = Account { imports: vec![from("I", "middle", "last", share)], ..Account::named("L") };
    let mut world = World::new(vec![e, middle, last], false);
    let (e, l) = (world.client("E").unwrap(), world.client("L").unwrap());
    world.says(e, "SUB svc 1\r\n");
    world.says(l, "SUB in 9\r\nPUB last in 1\r\nq\r\n");
    let asked = world.sent(e);
    assert!(asked.contains(",\"acc\":\"L\",\"svc\":\"I\","), "{asked}");
    assert!(asked.contains("{\"start\":\""), "the first import shares: {asked}");
    world.answers(e, &reply(&asked), "yes");
    assert_eq!(world.sent(l), "MSG in 9 3\r\nyes\r\n");
    assert_eq!(world.broker.core.poll_responses(), None);
}

#[test]
fn an_answer_with_a_reply_can_be_answered() {
    let exports = vec![service("svc", ResponseType::Singleton)];
    let (mut world, e, i) = pair(exports, vec![from("E", "svc", "", SERVICE)]);
    world.says(e, "SUB svc 1\r\nSUB back 2\r\n");
    world.says(i, "SUB in 9\r\nPUB svc in 1\r\nq\r\n");
    let answer = reply(&world.sent(e));
    world.says(e, &format!("PUB {answer} back 1\r\n?\r\n"));
    let answer = reply(&world.sent(i));
    world.answers(i, &answer, "ok");
    assert_eq!(world.sent(e), "MSG back 2 2\r\nok\r\n");
}

#[test]
fn only_the_exporters_account_can_answer() {
    let exports = vec![service("svc", ResponseType::Stream)];
    let (mut world, e, i) = pair(exports, vec![from("E", "svc", "", SERVICE)]);
    let stranger = world.client("$G").unwrap();
    world.says(e, "SUB svc 1\r\n");
    world.says(i, "SUB in 9\r\nPUB svc in 1\r\nq\r\n");
    let answer = reply(&world.sent(e));
    for id in [stranger, i] {
        world.answers(id, &answer, "forged");
        world.says(id, "PUB svc _R_.x.y 1\r\nq\r\n");
        let sent = world.sent(id);
        assert_eq!(sent, "-ERR 'Permissions Violation for Publish with Reply of \"_R_.x.y\"'\r\n");
    }
    let guessed = format!("{}x", &answer[..answer.len() - 1]);
    world.answers(e, &guessed, "guessed");
    assert_eq!(world.sent(i), "");
    world.answers(e, &answer, "real");
    assert_eq!(world.sent(i), "MSG in 9 4\r\nreal\r\n");
}

#[test]
fn requests_without_answers_take_bounded_memory() {
    let exports = vec![service("svc", ResponseType::Singleton)];
    let (mut world, e, i) = pair(exports, vec![from("E", "svc", "", SERVICE)]);
    world.says(e, "SUB svc 1\r\n");
    world.says(i, "SUB in.* 9\r\n");
    for number in 0..limits::RESPONSES_MAX {
        world.broker.receive(world.now, i, format!("PUB svc in.{number} 0\r\n\r\n").as_bytes());
        world.sent(e);
    }
    world.says(i, "PUB svc in.over 0\r\n\r\n");
    assert_eq!(world.sent(e), "");
    assert!(world.sent(i).starts_with("HMSG in.over 9 "), "told that nobody answers");
    world.says(i, "UNSUB 9\r\n");
    assert_eq!(world.broker.core.poll_responses(), None);
}

#[test]
fn how_long_a_service_takes_is_told() {
    let latency = Declared { subject: "m".into(), sampling: Sampling::Percent(100) };
    let kind = ExportKind::Service {
        response: ResponseType::Singleton,
        threshold: Some(Duration::from_secs(1)),
        latency: Some(latency),
    };
    let export = Export { kind, ..stream("svc") };
    let (mut world, e, i) = pair(vec![export], vec![from("E", "svc", "", SERVICE)]);
    world.says(e, "SUB m 2\r\n");
    world.says(i, "SUB in 9\r\nPUB svc in 1\r\nq\r\n");
    assert!(world.sent(e).contains("\"status\":503,\"description\":\"Service Unavailable\""));
    world.says(e, "SUB svc 1\r\n");
    world.says(i, "PUB svc 1\r\nq\r\n");
    assert!(world.sent(e).contains("\"status\":400,\"description\":\"Bad Request\""));
    let ask = |world: &mut World| {
        world.says(i, "PUB svc in 1\r\nq\r\n");
        let answer = reply(&world.sent(e));
        assert_eq!(answer.rsplit('.').next(), Some("T"), "{answer}");
        answer
    };
    let answer = ask(&mut world);
    world.waits(5);
    world.answers(e, &answer, "r");
    let told = world.sent(e);
    assert!(
        told.contains(
            "\"status\":200,\"requestor\":{\"acc\":\"I\",\"rtt\":1},\"responder\":{\"start\":"
        ),
        "{told}"
    );
    assert!(told.ends_with("\"service\":4999999,\"system\":0,\"total\":5000001}\r\n"), "{told}");
    ask(&mut world);
    world.waits(1_001);
    assert!(world.sent(e).contains("\"status\":504,\"description\":\"Service Timeout\""));
    ask(&mut world);
    world.says(i, "UNSUB 9\r\n");
    assert!(world.sent(e).contains("\"status\":408,\"description\":\"Request Timeout\""));
}

#[test]
fn mappings_choose_by_weight_and_only_once() {
    let to = |subject: &str, weight| Destination { subject: subject.into(), weight, cluster: None };
    let map = |subject: &str, destinations| Mapping { subject: subject.into(), destinations };
    let mappings = vec![
        map("part", vec![to("a", 30)]),
        map("loss", vec![to("loss", 0)]),
        map("w.*.*", vec![to("v.$2.$1", 100)]),
        map("w.x.y", vec![to("exact", 100)]),
        map("one", vec![to("two", 100)]),
        map("two", vec![to("three", 100)]),
    ];
    let account = Account { mappings, ..Account::named("A") };
    let mut world = World::new(vec![account], false);
    let id = world.client("A").unwrap();
    world.says(id, "SUB > 1\r\n");
    for _ in 0..1000 {
        world.says(id, "PUB part 0\r\n\r\nPUB loss 0\r\n\r\n");
    }
    let sent = world.sent(id);
    let moved = sent.matches("MSG a ").count();
    assert!((200..400).contains(&moved), "{moved}");
    assert_eq!(sent.matches("MSG part ").count(), 1000 - moved);
    assert_eq!(sent.matches("MSG").count(), 1000, "what is lost is lost");
    for (subject, expected) in [("w.a.b", "v.b.a"), ("w.x.y", "exact"), ("one", "two")] {
        world.says(id, &format!("PUB {subject} 0\r\n\r\n"));
        assert_eq!(world.sent(id), format!("MSG {expected} 1 0\r\n\r\n"));
    }
}

#[test]
fn streams_and_the_api_work_across_accounts() {
    let jetstream = Some(JetStreamAccountLimits::default());
    let e = Account {
        jetstream,
        ..exporter(vec![stream("s.>"), service("$JS.API.>", ResponseType::Stream)])
    };
    let i = Account {
        jetstream,
        ..importer(vec![
            from("E", "s.>", "e.s.>", STREAM),
            from("E", "$JS.API.>", "E.API.>", SERVICE),
        ])
    };
    let mut world = World::new(vec![e, i], true);
    let (e, i) = (world.client("E").unwrap(), world.client("I").unwrap());
    let told = world.api(i, "STREAM.CREATE.S", "{\"name\":\"S\",\"subjects\":[\"e.s.*\"]}");
    assert!(told.contains("did_create"), "{told}");
    world.says(e, "SUB ack 1\r\nPUB s.a ack 1\r\nm\r\n");
    assert_eq!(world.sent(e), "", "the reply is the importer's");
    let told = world.api(i, "STREAM.INFO.S", "");
    assert!(told.contains("\"messages\":1,"), "{told}");
    world.says(i, "SUB in 9\r\nPUB E.API.STREAM.NAMES in 0\r\n\r\n");
    let told = world.sent(i);
    assert!(told.contains("\"streams\":null"), "{told}");
    world.says(i, "PUB E.API.INFO in 0\r\n\r\n");
    assert!(world.sent(i).starts_with("MSG in 9 "));
}
