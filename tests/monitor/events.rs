//! The server's own events of both servers: the same clients do the same, and what the system
//! account hears is compared: subjects, order, members, and the values that must agree.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::raw_client::{Frame, RawClient};
use crate::server::{Server, sedge_binary};
use crate::shape::Json;
use crate::state::by_web_socket_as;
use crate::world::nats_server;

/// For an event that must come.
const DEADLINE: Duration = Duration::from_secs(15);

const CONFIG: &str = "server_name: gateway\nserver_tags: [edge]\nmax_payload: 100\n\
    max_control_line: 512\nsystem_account: SYS\n\
    authorization { timeout: 1, users: [ { user: g, password: p } ] }\n\
    websocket { listen: \"127.0.0.1:-1\", no_tls: true }\n\
    accounts {\n\
      SYS { users: [ { user: s, password: p }, { user: t, password: p } ] }\n\
      A { users: [ { user: a, password: p }, { user: gone, password: p }, { user: w, password: p, allowed_connection_types: [WEBSOCKET] } ] }\n\
      B { limits { max_connections: 1, max_subscriptions: 1, max_payload: 10 }, users: [ { user: b, password: p } ] }\n\
    }\n";

/// What is done, and the event that is the last to tell of it.
type Step = (&'static str, &'static str, fn(&mut World));

const STEPS: &[Step] = &[
    ("a client comes", "A.CONNECT", |world| world.keep("a", "alpha", "p")),
    ("another user of it", "A.CONNECT", |world| world.keep("gone", "beta", "p")),
    ("messages, and it goes", "A.DISCONNECT", |world| {
        world.say("SUB x 1\r\nPUB x 2\r\nhi\r\nPUB y 3\r\nhey\r\nPING\r\n");
        world.expect("PONG");
        world.kept.pop();
    }),
    ("a wrong password", "$G.DISCONNECT", |world| world.keep("a", "wrong", "bad")),
    ("an unknown user", "$G.DISCONNECT", |world| world.keep("nobody", "unknown", "bad")),
    ("another protocol", "$G.DISCONNECT", |world| world.raw("GET / HTTP/1.1\r\n\r\n")),
    ("no operation", "$G.DISCONNECT", |world| world.raw("xyz\r\n")),
    ("no CONNECT", "$G.DISCONNECT", |world| world.raw("SUB a 1\r\n")),
    ("no JSON in CONNECT", "$G.DISCONNECT", |world| world.raw("CONNECT {x\r\n")),
    ("a long CONNECT", "$G.DISCONNECT", |world| {
        world.raw(&format!("CONNECT {{\"name\":\"{}\"}}\r\n", "x".repeat(700)));
    }),
    ("nothing is said", "$G.DISCONNECT", |world| world.raw("")),
    ("no operation after CONNECT", "A.DISCONNECT", |world| world.once("xyz\r\n")),
    ("a long payload", "A.DISCONNECT", |world| world.once("PUB a 200\r\n")),
    ("a long line", "A.DISCONNECT", |world| {
        world.once(&format!("PUB {} 1\r\n", "a".repeat(600)));
    }),
    ("a wrong end of a payload", "A.DISCONNECT", |world| world.once("PUB a 2\r\nhixx\r\n")),
    ("too many arguments", "A.DISCONNECT", |world| world.once("PUB a b c d\r\n")),
    ("a user of another listener", "$G.DISCONNECT", |world| world.keep("w", "w", "p")),
    ("the only connection", "B.CONNECT", |world| world.keep("b", "one", "p")),
    ("one too many", "B.DISCONNECT", |world| world.keep("b", "two", "p")),
    ("a subscription too many", "B.DISCONNECT", |world| {
        world.kept.pop();
        world.say("SUB a 1\r\nSUB b 2\r\nPUB a 50\r\n");
    }),
    ("a connection is kicked", "A.DISCONNECT", |world| {
        world.kept.pop();
        let id = world.keep_id("a", "kicked");
        let cid = format!("{{\"cid\":{id}}}");
        let subject = format!("$SYS.REQ.SERVER.{}.KICK", world.id);
        world.system.publish_with_reply(&subject, "_INBOX.kick", cid.as_bytes());
    }),
    ("another account", "B.CONNECT", |world| {
        world.keep("gone", "moves", "p");
        world.say("CONNECT {\"verbose\":false,\"user\":\"b\",\"pass\":\"p\"}\r\nPING\r\n");
    }),
    ("it goes", "B.DISCONNECT", |world| drop(world.kept.pop())),
    ("a user of the system account", "SYS.CONNECT", |world| world.keep("t", "watcher", "p")),
    ("it goes", "SYS.DISCONNECT", |world| drop(world.kept.pop())),
    ("a page", "A.CONNECT", |world| {
        world.web = Some(by_web_socket_as(world.web_address, "w", "page"));
    }),
    ("the page goes", "A.DISCONNECT", |world| drop(world.web.take())),
    ("lame duck mode", ".LAMEDUCK", |world| world.server.signal(Signal::USR2)),
];

/// A server with a client of its system account that hears all events.
struct World {
    server: Server,
    web_address: SocketAddr,
    system: RawClient,
    /// As it told its clients.
    id: String,
    kept: Vec<RawClient>,
    web: Option<std::net::TcpStream>,
}

impl World {
    fn new(binary: &Path) -> Self {
        let server = Server::start(binary, CONFIG).unwrap_or_else(|why| panic!("{why}"));
        let web_address = server
            .log()
            .lines()
            .find_map(|line| line.split_once("Listening for websocket clients on ws://"))
            .and_then(|(_, address)| address.trim().parse().ok())
            .expect("a WebSocket port");
        let mut system = RawClient::connect(server.address()).expect("it accepts");
        let info = system.expect("INFO ").line();
        let info = Json::read(info.trim_start_matches("INFO ")).expect("INFO");
        let Some(Json::Text(id)) = info.get("server_id").cloned() else { panic!("no id") };
        system.send(connect("s", "system", "p"));
        system.send("PING\r\n");
        system.expect("PONG");
        let mut world = Self { server, web_address, system, id, kept: Vec::new(), web: None };
        // nats-server tells late of whoever subscribes: that of the subscriber itself is past
        // once another's was told.
        world.system.send("SUB $SYS.ACCOUNT.> 1\r\nSUB $SYS.SERVER.> 2\r\n");
        world.keep("a", "first", "p");
        world.events("A.CONNECT");
        world.kept.pop();
        world.events("A.DISCONNECT");
        world
    }

    fn say(&mut self, text: &str) {
        self.kept.last_mut().expect("there is one").send(text);
    }

    fn expect(&mut self, line: &str) {
        let deadline = Instant::now() + DEADLINE;
        let client = self.kept.last_mut().expect("there is one");
        client.pick(deadline, |frame| frame.line() == line).expect("it is answered");
    }

    fn raw(&mut self, bytes: &str) {
        let mut client = RawClient::connect(self.server.address()).expect("it accepts");
        client.expect("INFO ");
        client.send(bytes);
        self.kept.push(client);
    }

    fn keep(&mut self, user: &str, name: &str, password: &str) {
        self.raw(&connect(user, name, password));
        self.say("PING\r\n");
    }

    fn keep_id(&mut self, user: &str, name: &str) -> String {
        let mut client = RawClient::connect(self.server.address()).expect("it accepts");
        let info = client.expect("INFO ").line();
        let info = Json::read(info.trim_start_matches("INFO ")).expect("INFO");
        let Some(Json::Number(id)) = info.get("client_id").cloned() else { panic!("no id") };
        client.send(connect(user, name, "p"));
        client.send("PING\r\n");
        client.expect("PONG");
        self.kept.push(client);
        id
    }

    /// A client that signs in and then says this.
    fn once(&mut self, text: &str) {
        self.keep("a", "once", "p");
        self.expect("PONG");
        self.say(text);
    }

    /// The events up to one on a subject that ends like this, each with its shape.
    fn events(&mut self, until: &str) -> Vec<Vec<String>> {
        let mut events = Vec::new();
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.system.next_frame(deadline) {
                Ok(Frame::Message(message)) => {
                    let subject = message.subject.replace(&self.id, "ID");
                    // They come in their own time, not with what happens.
                    if subject.ends_with(".STATSZ") || subject.ends_with("CONNS") {
                        continue;
                    }
                    let is_last = subject.ends_with(until);
                    let text = String::from_utf8_lossy(&message.payload).into_owned();
                    let mut lines = vec![subject];
                    lines.extend(Json::read(&text).expect("JSON").shape());
                    // Whoever goes with bytes unread may be seen to reset the connection.
                    for line in &mut lines {
                        *line = line.replace("Read Error", "Client Closed");
                    }
                    // The services of the system account are subscriptions of its own.
                    lines.retain(|line| !line.starts_with(".num_subscriptions"));
                    events.push(lines);
                    if is_last {
                        return events;
                    }
                }
                Ok(Frame::Line(line)) if line == "PING" => self.system.send("PONG\r\n"),
                Ok(_) => {}
                Err(_) => {
                    events.push(vec![format!("nothing on {until}")]);
                    return events;
                }
            }
        }
    }
}

fn connect(user: &str, name: &str, password: &str) -> String {
    format!(
        "CONNECT {{\"verbose\":false,\"protocol\":1,\"lang\":\"raw\",\"version\":\"1\",\
         \"user\":\"{user}\",\"pass\":\"{password}\",\"name\":\"{name}\"}}\r\n"
    )
}

/// All steps, and then the end.
fn run(binary: &Path) -> Vec<(&'static str, Vec<Vec<String>>)> {
    let mut world = World::new(binary);
    let mut told = Vec::new();
    for (name, until, act) in STEPS {
        act(&mut world);
        told.push((*name, world.events(until)));
    }
    told
}

#[test]
fn events_are_those_of_nats_server() {
    let Some(nats) = nats_server() else { return };
    let theirs = std::thread::spawn(move || run(&nats));
    let ours = run(&sedge_binary());
    let theirs = theirs.join().expect("it ends");
    let mut found = String::new();
    for ((name, theirs), (_, ours)) in theirs.iter().zip(&ours) {
        let subjects = |told: &[Vec<String>]| -> Vec<String> {
            told.iter().filter_map(|event| event.first().cloned()).collect()
        };
        let _ = if subjects(theirs) == subjects(ours) {
            theirs.iter().zip(ours).filter(|(theirs, ours)| theirs != ours).try_for_each(
                |(theirs, ours)| {
                    let only = |one: &[String], other: &[String]| -> Vec<String> {
                        one.iter().filter(|line| !other.contains(line)).cloned().collect()
                    };
                    let (theirs, ours) = (only(theirs, ours), only(ours, theirs));
                    writeln!(found, "{name}:\n  nats-server: {theirs:?}\n  Sedge: {ours:?}")
                },
            )
        } else {
            let (theirs, ours) = (subjects(theirs), subjects(ours));
            writeln!(found, "{name}:\n  nats-server: {theirs:?}\n  Sedge: {ours:?}")
        };
    }
    assert!(found.is_empty(), "{found}");
}

#[test]
fn the_end_and_the_numbers_are_told_as_by_nats_server() {
    let Some(nats) = nats_server() else { return };
    let end = |binary: &Path| {
        let mut world = World::new(binary);
        let deadline = Instant::now() + DEADLINE;
        let statsz = loop {
            match world.system.next_frame(deadline) {
                Ok(Frame::Message(message)) if message.subject.ends_with(".STATSZ") => {
                    let text = String::from_utf8_lossy(&message.payload).into_owned();
                    break Json::read(&text).expect("JSON").shape();
                }
                Ok(Frame::Line(line)) if line == "PING" => world.system.send("PONG\r\n"),
                Ok(_) => {}
                Err(error) => panic!("no numbers: {error:?}"),
            }
        };
        world.server.signal(Signal::INT);
        (statsz, world.events(".SHUTDOWN").pop())
    };
    assert_eq!(end(&nats), end(&sedge_binary()));
}
