//! Users by JWT: every user of `tests/fixtures/auth` gets what its table says, over TCP and
//! WebSocket, and messages between accounts go as far as their tokens let them.

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use sedge::auth::nkey::Seed;
use serde_json::{Value, json};

use crate::door::{Door, Doors, Stream};
use crate::raw_client::{Frame, NoFrame, RawClient, Wire};
use crate::server::Server;

pub(crate) fn fixture(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/auth").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A server on a configuration of the fixtures, with a WebSocket listener beside.
fn start(suite: &str, more: &str) -> (Server, Doors) {
    let text = fixture(&format!("server-{suite}.conf"));
    let text: String =
        text.lines().filter(|line| !line.starts_with("leafnodes")).collect::<Vec<_>>().join("\n");
    let config = text.replace("PORT", "-1").replace("STORE", "$DIR/store");
    let web = "websocket { listen: \"127.0.0.1:-1\", no_tls: true }";
    let server = Server::sedge(&format!("{config}\n{web}\ndebug: true\n{more}\n"));
    let web = server.listener("Listening for websocket clients on ws://").unwrap();
    let doors = Doors { plain: server.address(), tls: None, web: Some(web) };
    (server, doors)
}

struct Framed(Box<dyn Stream>);

impl std::fmt::Debug for Framed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Framed")
    }
}

impl std::io::Read for Framed {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(bytes)
    }
}

impl std::io::Write for Framed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl Wire for Framed {
    fn set_read_timeout(&self, time: Duration) -> std::io::Result<()> {
        self.0.wait(time)
    }
}

fn sign(seed: &str, nonce: &str) -> String {
    let seed: Seed = seed.trim().parse().unwrap();
    data_encoding::BASE64URL_NOPAD.encode(&seed.sign(nonce.as_bytes()).unwrap())
}

/// Goes in and sends CONNECT.
pub(crate) fn connect(doors: &Doors, door: Door, members: &Value, seed: Option<&str>) -> RawClient {
    let mut client = RawClient::over(Box::new(Framed(doors.open(door).unwrap())), Vec::new());
    let info = client.expect("INFO ").line();
    let info: Value = serde_json::from_str(info.trim_start_matches("INFO ")).unwrap();
    let mut connect = json!({
        "verbose": false, "pedantic": false, "headers": true, "no_responders": true,
        "protocol": 1, "lang": "check", "version": "1",
    });
    for (name, value) in members.as_object().unwrap() {
        connect[name] = value.clone();
    }
    if let Some(seed) = seed {
        connect["sig"] = json!(sign(seed, info["nonce"].as_str().unwrap_or_default()));
    }
    // In one piece: whoever is refused has left nothing unread behind.
    client.send(format!("CONNECT {connect}\r\nPING\r\n"));
    client
}

/// The token and the seed of a user.
pub(crate) fn creds(user: &str) -> (String, String) {
    let text = fixture(&format!("users/{user}.creds"));
    let mut blocks = text.split("-----BEGIN ").skip(1).map(|block| block.lines().nth(1).unwrap());
    (blocks.next().unwrap().to_owned(), blocks.next().unwrap().to_owned())
}

/// PING, then the first `-ERR`, or the end, or nothing.
pub(crate) fn outcome(client: &mut RawClient, ping: bool) -> Option<String> {
    if ping {
        client.send("PING\r\n");
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut told = None;
    loop {
        match client.next_frame(deadline) {
            Ok(frame) => {
                let line = frame.line();
                if line == "PONG" {
                    return told;
                } else if line == "PING" {
                    client.send("PONG\r\n");
                } else if let Some(text) = line.strip_prefix("-ERR '") {
                    told.get_or_insert_with(|| text.trim_end_matches('\'').to_owned());
                }
            }
            Err(NoFrame::Closed) => return told.or_else(|| Some("closed".into())),
            Err(NoFrame::TimedOut) => panic!("neither PONG nor the end"),
        }
    }
}

/// Over WebSocket another kind of connection is wanted.
fn expected<'a>(case: &'a str, door: Door, expect: &'a str) -> &'a str {
    const VIOLATION: &str = "Authorization Violation";
    match (door, case) {
        (Door::Web, "alpha-ct-ws" | "st-ws-only") => "ok",
        (Door::Web, "alpha-ct-std" | "alpha-ct-mixed") => VIOLATION,
        _ => expect,
    }
}

fn run(case: &Value, server: &Server, doors: &Doors, door: Door) -> Result<(), String> {
    let name = case["name"].as_str().unwrap();
    let (members, seed) = match case.get("connect").filter(|connect| connect.is_object()) {
        Some(connect) => (connect.clone(), case["seed"].as_str().map(str::to_owned)),
        None => {
            let (token, seed) = creds(name);
            (json!({ "jwt": token, "name": name }), Some(seed))
        }
    };
    let seed = seed.filter(|_| case["sign"] == true);
    let mark = server.log().len();
    let mut client = connect(doors, door, &members, seed.as_deref());
    let told = outcome(&mut client, false).unwrap_or_else(|| "ok".into());
    let expect = expected(name, door, case["expect"].as_str().unwrap());
    if !expect.split('|').any(|expect| expect == told) {
        return Err(format!("{name}: wanted {expect:?}, got {told:?}"));
    }
    if let Some(text) = case["log"].as_str().filter(|_| told == case["expect"]) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while !server.log()[mark..].contains(text) {
            if Instant::now() > deadline {
                return Err(format!("{name}: no {text:?} in\n{}", &server.log()[mark..]));
            }
            std::thread::yield_now();
        }
    }
    if told != "ok" {
        return Ok(());
    }
    for (sid, step) in case["steps"].as_array().unwrap().iter().enumerate() {
        let (text, want) = (step[0].as_str().unwrap(), step[1].as_str());
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        let told = match verb {
            "+CONNECT" => outcome(&mut connect(doors, door, &members, seed.as_deref()), false),
            "SUB" => {
                client.send(format!("SUB {rest} {sid}\r\n"));
                outcome(&mut client, true)
            }
            "PUB" => {
                let (subject, body) = rest.split_once(' ').unwrap_or((rest, ""));
                client.send(format!("PUB {subject} {}\r\n", body.len()));
                let fits = want != Some("Maximum Payload Violation");
                if fits {
                    client.send(format!("{body}\r\n"));
                }
                outcome(&mut client, fits)
            }
            _ => return Err(format!("{name}: unknown step {text}")),
        };
        if told.as_deref() != want {
            return Err(format!("{name}: {text}: wanted {want:?}, got {told:?}"));
        }
    }
    Ok(())
}

fn run_all(suite: &str, more: &str, door: Door) -> Vec<String> {
    let (server, doors) = start(suite, more);
    let cases: Value = serde_json::from_str(&fixture("cases.json")).unwrap();
    let cases = cases.as_array().unwrap().iter();
    let mut count = 0;
    let mut wrong = Vec::new();
    for case in cases.filter(|case| case["suite"] == suite && case["kind"] == "client") {
        count += 1;
        wrong.extend(run(case, &server, &doors, door).err());
    }
    assert!(count > 3, "no cases");
    wrong
}

#[test]
fn every_user_gets_the_outcome_of_its_table() {
    for suite in ["memory", "strict", "static"] {
        for door in [Door::Plain, Door::Web] {
            let wrong = run_all(suite, "lax_permissions: true", door);
            assert!(wrong.is_empty(), "{suite} {door:?}: {wrong:#?}");
        }
    }
}

#[test]
fn what_is_stricter_without_lax_permissions_is_known() {
    let wrong = run_all("memory", "", Door::Plain);
    let names: Vec<&str> =
        wrong.iter().filter_map(|text| text.split_once(':')).map(|(name, _)| name).collect();
    assert_eq!(names, ["alpha-scoped-wildname", "alpha-subset", "alpha-sub-not-user"]);
}

// --- Between accounts ---

/// A user that is in.
fn user(doors: &Doors, name: &str) -> RawClient {
    let (token, seed) = creds(name);
    let members = json!({ "jwt": token, "name": name });
    let mut client = connect(doors, Door::Plain, &members, Some(&seed));
    assert_eq!(outcome(&mut client, false), None);
    client
}

/// What has arrived: subject, reply, headers and payload of each message.
pub(crate) fn take(client: &mut RawClient) -> Vec<(String, String, String, String)> {
    client.send("PING\r\n");
    let mut all = Vec::new();
    loop {
        match client.next_frame(Instant::now() + Duration::from_secs(10)) {
            Ok(Frame::Message(message)) => all.push((
                message.subject.clone(),
                message.reply.clone().unwrap_or_default(),
                String::from_utf8_lossy(&message.headers).into_owned(),
                String::from_utf8_lossy(&message.payload).into_owned(),
            )),
            Ok(frame) if frame.line() == "PONG" => return all,
            Ok(frame) if frame.line() == "PING" => client.send("PONG\r\n"),
            Ok(_) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn subjects(messages: &[(String, String, String, String)]) -> Vec<&str> {
    messages.iter().map(|message| message.0.as_str()).collect()
}

fn subscribe(client: &mut RawClient, all: &[&str]) {
    for (sid, subject) in all.iter().enumerate() {
        client.send(format!("SUB {subject} {sid}\r\n"));
    }
    assert_eq!(outcome(client, true), None);
}

struct Parties {
    exporter: RawClient,
    mate: RawClient,
    importer: RawClient,
    other: RawClient,
}

impl Parties {
    fn new(doors: &Doors) -> Self {
        let [mut exporter, mate, mut importer, mut other] =
            ["alpha-full", "alpha-sk", "bravo-full", "charlie-full"].map(|name| user(doors, name));
        subscribe(&mut exporter, &["svc.>", "lat.echo"]);
        subscribe(&mut importer, &["in.>", "myfeed.>", "ib.>"]);
        subscribe(&mut other, &["theirs.>", "in.>", "pfx.>", "pub.>", "ib.>"]);
        Self { exporter, mate, importer, other }
    }

    /// A request of the importer, and what the exporter saw of it.
    fn ask(&mut self, subject: &str, answers: usize) -> (String, String, String, Vec<String>) {
        self.importer.publish_with_reply(subject, "ib.1", b"q");
        take(&mut self.importer);
        let seen: Vec<_> =
            take(&mut self.exporter).into_iter().filter(|m| m.0.starts_with("svc")).collect();
        assert_eq!(seen.len(), 1, "{subject}: {seen:?}");
        let (to, reply, headers, _) = seen.into_iter().next().unwrap();
        for number in 0..answers {
            self.exporter.publish(&reply, format!("r{number}").as_bytes());
        }
        self.exporter.flush_ignoring();
        let answers = take(&mut self.importer);
        assert!(answers.iter().all(|answer| answer.0 == "ib.1"), "{answers:?}");
        (to, reply, headers, answers.into_iter().map(|answer| answer.3).collect())
    }
}

pub(crate) trait FlushIgnoring {
    fn flush_ignoring(&mut self);
}

impl FlushIgnoring for RawClient {
    /// Until all that was sent has been handled; messages stay for later.
    fn flush_ignoring(&mut self) {
        self.send("PING\r\n");
        let pong = |frame: &Frame| frame.line() == "PONG";
        self.pick(Instant::now() + Duration::from_secs(10), pong).unwrap();
    }
}

fn request_info(headers: &str) -> Value {
    let line = headers.lines().find_map(|line| line.strip_prefix("Nats-Request-Info: "));
    serde_json::from_str(line.unwrap()).unwrap()
}

#[test]
fn messages_go_between_accounts_as_far_as_their_tokens_let_them() {
    let (_server, doors) = start("memory", "");
    let keys: Value = serde_json::from_str(&fixture("keys.json")).unwrap();
    let key = |name: &str| keys[name]["public"].as_str().unwrap().to_owned();
    let (bravo, charlie) = (key("acct-BRAVO"), key("acct-CHARLIE"));
    let mut all = Parties::new(&doors);

    for subject in [
        "pub.events.y",
        "priv.events.x",
        &format!("feed.{bravo}.z"),
        &format!("feed.{charlie}.z"),
        "other.q",
    ] {
        all.exporter.publish(subject, b"x");
    }
    all.exporter.flush_ignoring();
    let got = take(&mut all.importer);
    let mut got = subjects(&got);
    got.sort_unstable();
    assert_eq!(got, ["in.priv.x", "in.pub.y", "myfeed.z"]);
    assert_eq!(subjects(&take(&mut all.other)), ["pfx.pub.events.y"]);

    // A private service, one answer.
    let (to, reply, headers, answers) = all.ask("svc.secret", 2);
    assert!(to == "svc.secret" && reply.starts_with("_R_."), "{to} {reply}");
    let info = request_info(&headers);
    assert_eq!(info["acc"], json!(bravo));
    assert!(info.as_object().unwrap().keys().all(|name| name == "acc" || name == "rtt"), "{info}");
    assert_eq!(answers, ["r0"]);
    // Wildcards, and many answers.
    let (to, _, _, answers) = all.ask("calc.add.run", 3);
    assert_eq!((to.as_str(), answers.len()), ("svc.calc.add", 3));
    let (to, ..) = all.ask("acct.info", 1);
    assert_eq!(to, format!("svc.acct.{bravo}.info"));
    // Who asks is told where that is wanted, but not the token.
    let (_, reply, headers, _) = all.ask("echo", 1);
    let info = request_info(&headers);
    let (token, _) = creds("bravo-full");
    let token = sedge::auth::jwt::Token::decode(&token).unwrap();
    assert_eq!((&info["user"], &info["acc"]), (&json!(token.subject), &json!(bravo)));
    assert_eq!((&info["name_tag"], info.get("jwt")), (&json!("BRAVO"), None));
    assert!(reply.split('.').next_back() == Some("T"), "{reply}");

    // Inactive imports: an expired token, and nothing exported.
    for subject in ["secret.expired", "nothing"] {
        all.other.publish_with_reply(subject, "ib.1", b"q");
        let told = take(&mut all.other);
        assert!(told[0].2.starts_with("NATS/1.0 503"), "{subject}: {told:?}");
    }
    take(&mut all.exporter);

    // Only the exporting account can answer.
    all.importer.publish_with_reply("svc.secret", "ib.3", b"q");
    take(&mut all.importer);
    let seen = take(&mut all.exporter);
    let reply = seen.iter().find(|m| m.0 == "svc.secret").unwrap().1.clone();
    for forger in [&mut all.other, &mut all.importer] {
        forger.publish(&reply, b"forged");
        assert!(take(forger).iter().all(|message| message.3 != "forged"));
    }
    assert_eq!(take(&mut all.importer), []);
    all.mate.publish(&reply, b"mate");
    all.mate.flush_ignoring();
    assert_eq!(take(&mut all.importer)[0].3, "mate");

    // Without an import the same subject is another one.
    all.importer.publish("svc.other", b"x");
    all.importer.flush_ignoring();
    assert!(take(&mut all.exporter).iter().all(|message| message.0 != "svc.other"));
}
