//! Scenario scripts: what they say and how they are played.
//!
//! `tests/interop/scenarios/README.md` describes the format. A scenario is played against one
//! server at a time and leaves a transcript; two transcripts are then compared.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sedge::auth::nkey::Seed;
use serde_json::Value;

use crate::normal::Normaliser;
use crate::raw_client::{DEADLINE, Frame, Message, NoFrame, RawClient};
use crate::server::Server;
use crate::wire::{self, Way};

/// One script.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    text: String,
    config: String,
    steps: Vec<Step>,
    pub(crate) differences: Vec<Difference>,
    /// What Sedge cannot do yet, if the script needs it.
    pub(crate) later: Option<String>,
}

/// One line of a script.
#[derive(Debug)]
struct Step {
    /// As written, for the transcript.
    line: String,
    action: Action,
}

#[derive(Debug)]
enum Action {
    Wait(Duration),
    Restart {
        hard: bool,
    },
    Signal(Signal),
    Ended,
    Log {
        count: usize,
        pattern: String,
    },
    Reload(String),
    /// A page of the monitoring; of JSON only the members with these names, if there are any.
    Page {
        path: String,
        members: Vec<String>,
    },
    On {
        connection: String,
        act: Act,
    },
}

#[derive(Debug)]
enum Act {
    Open { info: bool, way: Way },
    Connect { options: Value, way: Way },
    Send(Vec<u8>),
    Publish(Publish),
    Request(Publish),
    Expect { count: usize, pattern: String },
    Pick { count: usize, pattern: String },
    Sync { sorted: bool },
    Closed,
    Close,
    Show(String),
}

#[derive(Clone, Debug)]
struct Publish {
    subject: String,
    reply: Option<String>,
    headers: Vec<String>,
    payload: Vec<u8>,
}

/// Lines that differ on purpose.
#[derive(Debug)]
pub(crate) struct Difference {
    reason: String,
    /// Line of nats-server and line of Sedge; `None` where one has no such line.
    lines: Vec<(Option<String>, Option<String>)>,
}

/// What a run left.
#[derive(Debug)]
pub(crate) struct Transcript {
    pub(crate) lines: Vec<String>,
    /// The step that could not be done.
    pub(crate) broken: Option<String>,
    /// What is not as the schemas say.
    pub(crate) mistakes: BTreeSet<String>,
}

impl Scenario {
    /// Reads a script; a mistake in it comes back with its line number.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(path).map_err(|e| format!("{name}: {e}"))?;
        let mut scenario = Self {
            name: name.clone(),
            text: text.clone(),
            config: String::new(),
            steps: Vec::new(),
            differences: Vec::new(),
            later: None,
        };
        let mut lines = text.lines().enumerate().peekable();
        while let Some((number, line)) = lines.next() {
            let mistake = |what: String| format!("{name}.txt:{}: {what}", number + 1);
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(what) = line.strip_prefix("later:") {
                scenario.later = Some(what.trim().to_owned());
                continue;
            }
            if let Some(reason) = line.strip_prefix("differs:") {
                let mut difference =
                    Difference { reason: reason.trim().to_owned(), lines: Vec::new() };
                while let Some((_, pair)) = lines.next_if(|(_, l)| l.starts_with(' ')) {
                    difference.add(pair.trim()).map_err(mistake)?;
                }
                scenario.differences.push(difference);
                continue;
            }
            let mut line = line.trim_end().to_owned();
            while let Some((_, more)) =
                lines.next_if(|(_, l)| l.starts_with(' ') && !l.trim().is_empty())
            {
                line.push(' ');
                line.push_str(more.trim());
            }
            if let Some(config) = line.strip_prefix("server ") {
                scenario.add_config(config);
            } else if let Some(file) = line.strip_prefix("config ") {
                let text = std::fs::read_to_string(path.with_file_name(file));
                scenario.config += &text.map_err(|e| mistake(format!("{file}: {e}")))?;
            } else {
                let action = parse_action(&line).map_err(mistake)?;
                scenario.steps.push(Step { line, action });
            }
        }
        Ok(scenario)
    }

    fn add_config(&mut self, line: &str) {
        match line.strip_prefix("jetstream") {
            Some(more) if more.is_empty() || more.starts_with(' ') => {
                self.config.push_str(
                    "jetstream {\n  store_dir: \"$DIR/store\"\n  max_memory_store: 64MB\n  \
                     max_file_store: 256MB\n",
                );
                self.config.push_str(more);
                self.config.push_str("\n}\n");
            }
            _ => {
                self.config.push_str(line);
                self.config.push('\n');
            }
        }
    }

    /// Plays the script against a fresh server.
    pub(crate) fn play(&self, binary: &Path) -> Result<Transcript, String> {
        let mut player = Player {
            server: Server::start(binary, &self.config)?,
            connections: BTreeMap::new(),
            order: Vec::new(),
            normaliser: Normaliser::new(&self.text),
            lines: Vec::new(),
            config: self.config.clone(),
            log_shown: 0,
            ended: false,
        };
        for step in &self.steps {
            player.lines.push(step.line.clone());
            if let Err(why) = player.step(&step.action) {
                player.lines.push(format!("!! {why}"));
                let log = player.server.log();
                let broken = format!("{}\n{why}\nlog of the server:\n{log}", step.line);
                let mistakes = player.normaliser.take_mistakes();
                return Ok(Transcript { lines: player.lines, broken: Some(broken), mistakes });
            }
        }
        player.finish();
        let broken = if player.ended || player.server.is_running() {
            None
        } else {
            player.lines.push(String::from("!! the server is gone"));
            Some(format!("the server is gone; its log:\n{}", player.server.log()))
        };
        let mistakes = player.normaliser.take_mistakes();
        Ok(Transcript { lines: player.lines, broken, mistakes })
    }

    /// Applies the stated differences to both transcripts, so that only others remain. Two
    /// stated lines are a pair only where they stand at the same place.
    ///
    /// A stated difference that is not there any more is an error: the statement is stale.
    pub(crate) fn excuse(
        &self,
        oracle: &mut Vec<String>,
        sedge: &mut Vec<String>,
    ) -> Result<(), String> {
        for difference in &self.differences {
            for (theirs, ours) in &difference.lines {
                let found = match (theirs, ours) {
                    (Some(theirs), Some(ours)) => {
                        let mark = format!("  <{}>", difference.reason);
                        let mut found = false;
                        for (l, r) in oracle.iter_mut().zip(sedge.iter_mut()) {
                            if is_line(l, theirs) && is_line(r, ours) {
                                found = true;
                                l.clone_from(&mark);
                                r.clone_from(&mark);
                            }
                        }
                        found
                    }
                    _ => drop_line(oracle, theirs.as_deref()) && drop_line(sedge, ours.as_deref()),
                };
                if !found {
                    return Err(format!(
                        "the stated difference is not there: {} ({theirs:?}, {ours:?})",
                        difference.reason
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The same but for white space?
fn is_line(line: &str, stated: &str) -> bool {
    line.split_whitespace().eq(stated.split_whitespace())
}

/// Drops a line that the other side has no counterpart for; false if it is not there.
fn drop_line(lines: &mut Vec<String>, stated: Option<&str>) -> bool {
    let Some(stated) = stated else { return true };
    let before = lines.len();
    lines.retain(|line| !is_line(line, stated));
    lines.len() < before
}

impl Difference {
    fn add(&mut self, line: &str) -> Result<(), String> {
        let value = |text: &str| (text.trim() != "-").then(|| text.trim().to_owned());
        if let Some(theirs) = line.strip_prefix("nats-server:") {
            self.lines.push((value(theirs), None));
            Ok(())
        } else if let Some(ours) = line.strip_prefix("sedge:")
            && let Some(last) = self.lines.last_mut()
        {
            last.1 = value(ours);
            Ok(())
        } else {
            Err(String::from("wanted `nats-server: LINE`, then `sedge: LINE`"))
        }
    }
}

fn parse_action(line: &str) -> Result<Action, String> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        "wait" => {
            let millis = rest.strip_suffix("ms").and_then(|n| n.parse().ok());
            let millis = millis.ok_or("wanted `wait 300ms`")?;
            return Ok(Action::Wait(Duration::from_millis(millis)));
        }
        "signal" => {
            let signal = match rest {
                "INT" => Signal::INT,
                "TERM" => Signal::TERM,
                "HUP" => Signal::HUP,
                "USR1" => Signal::USR1,
                "USR2" => Signal::USR2,
                _ => return Err(String::from("wanted INT, TERM, HUP, USR1 or USR2")),
            };
            return Ok(Action::Signal(signal));
        }
        "ended" => return Ok(Action::Ended),
        "log" => {
            let (count, pattern) = rest.split_once(' ').ok_or("wanted `log COUNT PATTERN`")?;
            let count = count.parse().map_err(|_| "wanted `log COUNT PATTERN`")?;
            return Ok(Action::Log { count, pattern: pattern.to_owned() });
        }
        "reload" => return Ok(Action::Reload(rest.to_owned())),
        "restart" => return Ok(Action::Restart { hard: false }),
        "kill" => return Ok(Action::Restart { hard: true }),
        "open" => {
            let (name, words) = rest.split_once(' ').unwrap_or((rest, ""));
            let (words, info) = match words.strip_prefix("info") {
                Some(words) => (words, true),
                None => (words, false),
            };
            let act = Act::Open { info, way: parse_way(words)? };
            return Ok(Action::On { connection: name.to_owned(), act });
        }
        "connect" => {
            let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            let at = rest.find('{').unwrap_or(rest.len());
            let (words, json) = rest.split_at(at);
            let json = if json.is_empty() { "{}" } else { json };
            let options = serde_json::from_str(json).map_err(|e| format!("options: {e}"))?;
            let act = Act::Connect { options, way: parse_way(words)? };
            return Ok(Action::On { connection: name.to_owned(), act });
        }
        "page" => {
            let mut words = rest.split_whitespace().map(str::to_owned);
            let path = words.next().ok_or("wanted `page PATH [MEMBER...]`")?;
            return Ok(Action::Page { path, members: words.collect() });
        }
        _ => {}
    }
    if let Some(connection) = word.strip_suffix(">>") {
        let act = Act::Send(unescape(rest)?);
        return Ok(Action::On { connection: connection.to_owned(), act });
    }
    if let Some(connection) = word.strip_suffix('>') {
        let mut bytes = unescape(rest)?;
        bytes.extend_from_slice(b"\r\n");
        return Ok(Action::On { connection: connection.to_owned(), act: Act::Send(bytes) });
    }
    let (verb, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let counted = || match rest.split_once(' ') {
        Some((count, pattern)) if count.parse::<usize>().is_ok() => {
            (count.parse().unwrap_or(1), pattern.to_owned())
        }
        _ => (1, rest.to_owned()),
    };
    let act = match verb {
        "sync" => Act::Sync { sorted: false },
        "sorted" => Act::Sync { sorted: true },
        "closed" => Act::Closed,
        "close" => Act::Close,
        "show" => Act::Show(rest.to_owned()),
        "publish" => Act::Publish(parse_publish(rest)?),
        "request" => Act::Request(parse_publish(rest)?),
        "expect" => {
            let (count, pattern) = counted();
            Act::Expect { count, pattern }
        }
        "pick" => {
            let (count, pattern) = counted();
            Act::Pick { count, pattern }
        }
        _ => return Err(format!("no such step: {line}")),
    };
    Ok(Action::On { connection: word.to_owned(), act })
}

/// `[tls] [first] [certificate] [web] [raw] [Header: value; Header: value]`
fn parse_way(text: &str) -> Result<Way, String> {
    let mut way = Way::default();
    let (words, headers) = text.split_once('[').unwrap_or((text, ""));
    for word in words.split_whitespace() {
        match word {
            "tls" => way.tls = true,
            "first" => way.first = true,
            "certificate" => way.certificate = true,
            "web" => way.web = true,
            "raw" => way.raw = true,
            other => return Err(format!("no such way in: {other}")),
        }
    }
    let headers = headers.trim_end().trim_end_matches(']').split(';').map(str::trim);
    way.headers = headers.filter(|h| !h.is_empty()).map(str::to_owned).collect();
    Ok(way)
}

/// `SUBJECT [-> REPLY] [[Header: value; Header: value]] [PAYLOAD]`
fn parse_publish(text: &str) -> Result<Publish, String> {
    let (subject, mut rest) = text.split_once(' ').unwrap_or((text, ""));
    let mut reply = None;
    if let Some(after) = rest.strip_prefix("-> ") {
        let (token, after) = after.split_once(' ').unwrap_or((after, ""));
        reply = Some(token.to_owned());
        rest = after;
    }
    let mut headers = Vec::new();
    if let Some(after) = rest.strip_prefix('[') {
        let (inside, after) = after.split_once(']').ok_or("no `]` after the headers")?;
        headers = inside.split(';').map(|h| h.trim().to_owned()).collect();
        rest = after.strip_prefix(' ').unwrap_or(after);
    }
    let payload = unescape(rest)?;
    Ok(Publish { subject: subject.to_owned(), reply, headers, payload })
}

/// Backslash escapes, and `<<TEXT*COUNT>>` for a long run of the same text.
fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(run) = rest.strip_prefix("<<") {
            let (run, after) = run.split_once(">>").ok_or("no `>>` after `<<`")?;
            let (what, count) = run.rsplit_once('*').ok_or("wanted `<<TEXT*COUNT>>`")?;
            let count: usize = count.parse().map_err(|_| "wanted `<<TEXT*COUNT>>`")?;
            for _ in 0..count {
                bytes.extend_from_slice(what.as_bytes());
            }
            rest = after;
        } else if c == '\\' {
            let escaped = rest.chars().nth(1).ok_or("a lone backslash")?;
            let mut size = 2;
            match escaped {
                'r' => bytes.push(b'\r'),
                'n' => bytes.push(b'\n'),
                't' => bytes.push(b'\t'),
                '0' => bytes.push(0),
                '\\' | '"' => {
                    // Inside JSON both belong to JSON; `\\` alone is one backslash.
                    if escaped == '"' {
                        bytes.push(b'\\');
                    }
                    bytes.push(escaped as u8);
                }
                'x' => {
                    let byte = rest.get(2..4).and_then(|h| u8::from_str_radix(h, 16).ok());
                    bytes.push(byte.ok_or("wanted `\\xNN`")?);
                    size = 4;
                }
                other => return Err(format!("no such escape: \\{other}")),
            }
            rest = &rest[size..];
        } else {
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            rest = &rest[c.len_utf8()..];
        }
    }
    Ok(bytes)
}

/// One connection of a scenario.
#[derive(Debug)]
struct Connection {
    client: RawClient,
    /// What a signature is of.
    nonce: String,
    show_pings: bool,
    show_infos: bool,
    /// The server's close was seen.
    closed: bool,
    requests: usize,
    /// Reply subjects of delivered stream messages, in the order they were shown.
    acks: Vec<String>,
    /// Reply subjects of flow control requests.
    flow_controls: Vec<String>,
    /// Reply subjects of requests from other accounts.
    answers: Vec<String>,
    /// Consumer names the server returned.
    consumers: Vec<String>,
}

#[derive(Debug)]
struct Player {
    server: Server,
    connections: BTreeMap<String, Connection>,
    order: Vec<String>,
    normaliser: Normaliser,
    lines: Vec<String>,
    /// The lines of the script for the server, as they are now.
    config: String,
    /// Lines of the log that `log` has gone past.
    log_shown: usize,
    /// The script saw the server end.
    ended: bool,
}

impl Player {
    fn step(&mut self, action: &Action) -> Result<(), String> {
        match action {
            Action::Wait(time) => {
                std::thread::sleep(*time);
                Ok(())
            }
            Action::Signal(signal) => {
                self.server.signal(*signal);
                Ok(())
            }
            Action::Ended => {
                let status = self.server.wait_exit()?;
                self.ended = true;
                self.lines.push(format!("  {status}"));
                Ok(())
            }
            Action::Log { count, pattern } => self.log(*count, pattern),
            Action::Reload(lines) => self.reload(lines),
            Action::Restart { hard } => {
                self.connections.clear();
                self.order.clear();
                self.server.restart(*hard)
            }
            Action::Page { path, members } => self.page(path, members),
            Action::On { connection, act } => self.act(connection, act),
        }
    }

    /// Shows the status of a page and its body, or of a JSON body some members.
    fn page(&mut self, path: &str, members: &[String]) -> Result<(), String> {
        let (status, body) = wire::page(&self.server, path)?;
        self.lines.push(format!("  {status}"));
        let Ok(value) = serde_json::from_str::<Value>(&body) else {
            self.lines.extend(body.lines().map(|line| format!("  | {line}")));
            return Ok(());
        };
        let shown = match value {
            Value::Object(all) if !members.is_empty() => {
                Value::Object(all.into_iter().filter(|(key, _)| members.contains(key)).collect())
            }
            other => other,
        };
        let lines = self.normaliser.json(shown);
        self.lines.extend(lines.iter().map(|line| format!("  {line}")));
        Ok(())
    }

    /// Shows the next lines of the log that fit, once there are so many.
    fn log(&mut self, count: usize, pattern: &str) -> Result<(), String> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let log = self.server.log();
            let lines: Vec<&str> = log.lines().skip(self.log_shown).collect();
            let fitting: Vec<(usize, String)> = lines
                .iter()
                .enumerate()
                .map(|(at, line)| (at, self.normaliser.log_line(line)))
                .filter(|(_, line)| fits(&format!("*{pattern}"), line))
                .take(count)
                .collect();
            if fitting.len() == count || Instant::now() >= deadline {
                self.log_shown += fitting.last().map_or(0, |(at, _)| at + 1);
                let found = fitting.len();
                self.lines.extend(fitting.into_iter().map(|(_, line)| format!("  {line}")));
                return if found == count {
                    Ok(())
                } else {
                    Err(format!("only {found} lines within {DEADLINE:?}"))
                };
            }
            // Lines of a log give no event to wait for; this is the pace of looking.
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Puts lines in the place of those of the configuration that set the same keys, and has
    /// it read again.
    fn reload(&mut self, text: &str) -> Result<(), String> {
        for line in text.split(" ;; ") {
            let key = |line: &str| line.split([':', ' ', '{']).next().map(str::to_owned);
            let kept: Vec<&str> = self.config.lines().filter(|old| key(old) != key(line)).collect();
            self.config = kept.join("\n");
            self.config.push('\n');
            self.config.push_str(line);
            self.config.push('\n');
        }
        self.server.write_config(&self.config)?;
        self.server.signal(Signal::HUP);
        Ok(())
    }

    fn act(&mut self, name: &str, act: &Act) -> Result<(), String> {
        if let Act::Open { way, .. } | Act::Connect { way, .. } = act {
            let connection = Connection {
                client: wire::connect(&self.server, way)?,
                nonce: String::new(),
                show_pings: false,
                show_infos: matches!(act, Act::Open { info: true, .. }),
                closed: false,
                requests: 0,
                acks: Vec::new(),
                flow_controls: Vec::new(),
                answers: Vec::new(),
                consumers: Vec::new(),
            };
            if self.connections.insert(name.to_owned(), connection).is_none() {
                self.order.push(name.to_owned());
            }
        }
        let mut on = Turn {
            connection: self.connections.get_mut(name).ok_or("no such connection")?,
            name,
            normaliser: &mut self.normaliser,
            lines: &mut self.lines,
        };
        match act {
            Act::Open { info: true, .. } => on.expect("INFO"),
            // A server speaks first; what it says here is another scenario's matter.
            Act::Open { way, .. } if way.raw => Ok(()),
            Act::Open { .. } => on.skip_info(),
            Act::Connect { options, .. } => on.connect(options),
            Act::Send(bytes) => {
                let bytes = on.substitute(bytes)?;
                on.connection.client.send(bytes);
                Ok(())
            }
            Act::Publish(publish) => on.publish(publish, publish.reply.as_deref()),
            Act::Request(publish) => on.request(publish),
            Act::Expect { count, pattern } => (0..*count).try_for_each(|_| on.expect(pattern)),
            Act::Pick { count, pattern } => (0..*count).try_for_each(|_| on.pick(pattern)),
            Act::Sync { sorted } => on.sync(*sorted),
            Act::Closed => on.closed(),
            Act::Close => {
                self.connections.remove(name);
                self.order.retain(|n| n != name);
                Ok(())
            }
            Act::Show(what) => {
                match what.as_str() {
                    "pings" => on.connection.show_pings = true,
                    "infos" => on.connection.show_infos = true,
                    _ => return Err(String::from("wanted `show pings` or `show infos`")),
                }
                Ok(())
            }
        }
    }

    /// What is still to come on each connection, and how it stands.
    fn finish(&mut self) {
        for name in &self.order {
            let Some(connection) = self.connections.get_mut(name) else { continue };
            if connection.closed {
                continue;
            }
            self.lines.push(format!("end of {name}"));
            let mut on =
                Turn { connection, name, normaliser: &mut self.normaliser, lines: &mut self.lines };
            let state = match on.sync(false) {
                Ok(()) => String::from("(open)"),
                Err(_) if on.connection.closed => String::from("(closed by the server)"),
                Err(why) => format!("!! {why}"),
            };
            self.lines.push(state);
        }
    }
}

/// One step on one connection.
struct Turn<'a> {
    connection: &'a mut Connection,
    name: &'a str,
    normaliser: &'a mut Normaliser,
    lines: &'a mut Vec<String>,
}

impl Turn<'_> {
    fn connect(&mut self, overrides: &Value) -> Result<(), String> {
        let mut options = serde_json::json!({
            "verbose": false, "pedantic": false, "echo": true, "protocol": 1, "headers": true,
            "no_responders": true, "tls_required": false, "lang": "scenario", "version": "1.0.0",
        });
        if let (Some(options), Some(overrides)) = (options.as_object_mut(), overrides.as_object()) {
            for (key, value) in overrides {
                options.insert(key.clone(), value.clone());
            }
        }
        if options.to_string().contains("{sig ") {
            self.skip_info()?;
        }
        let line = self.substitute(format!("CONNECT {options}\r\nPING\r\n").as_bytes())?;
        self.connection.client.send(line);
        self.expect("PONG")
    }

    fn skip_info(&mut self) -> Result<(), String> {
        match self.connection.client.next_frame(Instant::now() + DEADLINE) {
            Ok(Frame::Line(line)) if line.starts_with("INFO ") => {
                self.learn(&line);
                Ok(())
            }
            Ok(frame) => Err(format!("wanted INFO first, got {frame:?}")),
            Err(why) => Err(self.missing(why, "INFO")),
        }
    }

    fn learn(&mut self, line: &str) {
        self.normaliser.learn_info(line);
        let info: Option<Value> =
            line.strip_prefix("INFO ").and_then(|text| serde_json::from_str(text).ok());
        if let Some(nonce) = info.as_ref().and_then(|info| info["nonce"].as_str()) {
            nonce.clone_into(&mut self.connection.nonce);
        }
    }

    /// Puts reply subjects and consumer names in place of `{ack1}` and `{consumer1}`, and a
    /// signature of the server's nonce in place of `{sig SEED}`.
    fn substitute(&self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let Ok(text) = std::str::from_utf8(bytes) else { return Ok(bytes.to_vec()) };
        let mut text = text.to_owned();
        while let Some(at) = text.find("{sig ") {
            let length = text[at..].find('}').ok_or("no `}` after `{sig`")?;
            let seed: Seed = text[at + "{sig ".len()..at + length]
                .trim()
                .parse()
                .map_err(|e| format!("not a seed: {e}"))?;
            let signed = seed.sign(self.connection.nonce.as_bytes());
            let signed = signed.map_err(|e| format!("not signed: {e}"))?;
            let signed = data_encoding::BASE64URL_NOPAD.encode(&signed);
            text.replace_range(at..=at + length, &signed);
        }
        while let Some(at) = text.find("{nonce}") {
            text.replace_range(at..at + "{nonce}".len(), &self.connection.nonce);
        }
        for (word, values) in [
            ("ack", &self.connection.acks),
            ("flow", &self.connection.flow_controls),
            ("answer", &self.connection.answers),
            ("consumer", &self.connection.consumers),
        ] {
            let open = format!("{{{word}");
            while let Some(at) = text.find(&open) {
                let Some(length) = text[at..].find('}') else { break };
                let Ok(number) = text[at + open.len()..at + length].parse::<usize>() else { break };
                let value = number.checked_sub(1).and_then(|i| values.get(i));
                let value = value.ok_or_else(|| format!("no {word} {number} so far"))?;
                text.replace_range(at..=at + length, value);
            }
        }
        Ok(text.into_bytes())
    }

    fn publish(&mut self, publish: &Publish, reply: Option<&str>) -> Result<(), String> {
        let mut block = Vec::new();
        if !publish.headers.is_empty() {
            block.extend_from_slice(b"NATS/1.0\r\n");
            for header in &publish.headers {
                block.extend_from_slice(&unescape(header)?);
                block.extend_from_slice(b"\r\n");
            }
            block.extend_from_slice(b"\r\n");
        }
        let subject = self.substitute(publish.subject.as_bytes())?;
        let payload = self.substitute(&publish.payload)?;
        let mut bytes = Vec::from(if block.is_empty() { "PUB " } else { "HPUB " });
        bytes.extend_from_slice(&subject);
        if let Some(reply) = reply {
            bytes.extend_from_slice(format!(" {reply}").as_bytes());
        }
        if !block.is_empty() {
            bytes.extend_from_slice(format!(" {}", block.len()).as_bytes());
        }
        bytes.extend_from_slice(format!(" {}\r\n", block.len() + payload.len()).as_bytes());
        bytes.extend_from_slice(&block);
        bytes.extend_from_slice(&payload);
        bytes.extend_from_slice(b"\r\n");
        self.connection.client.send(bytes);
        Ok(())
    }

    fn request(&mut self, publish: &Publish) -> Result<(), String> {
        self.connection.requests += 1;
        let number = self.connection.requests;
        let inbox = format!("_INBOX.{}.{number}", self.name);
        self.connection.client.send(format!("SUB {inbox} r{number}\r\nUNSUB r{number} 1\r\n"));
        self.publish(publish, Some(&inbox))?;
        // By its sid: a stream's message keeps its own subject.
        self.pick(&format!("*MSG * r{number} "))?;
        // After a 503 the subscription is still there.
        self.connection.client.send(format!("UNSUB r{number}\r\n"));
        Ok(())
    }

    /// Shows frames up to the first that fits.
    fn expect(&mut self, pattern: &str) -> Result<(), String> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.next(deadline) {
                Ok(frame) => {
                    let hit = fits(pattern, &frame.line());
                    self.show(&frame);
                    if hit {
                        return Ok(());
                    }
                }
                Err(why) => return Err(self.missing(why, pattern)),
            }
        }
    }

    /// Shows the first frame that fits and leaves earlier ones for later.
    fn pick(&mut self, pattern: &str) -> Result<(), String> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            // A PING must be answered even while something else is awaited.
            let picked = self.connection.client.pick(deadline, |frame| {
                fits(pattern, &frame.line()) || *frame == Frame::Line(String::from("PING"))
            });
            match picked {
                Ok(frame) if fits(pattern, &frame.line()) => {
                    self.show(&frame);
                    return Ok(());
                }
                Ok(ping) => {
                    if self.connection.show_pings {
                        self.show(&ping);
                    } else {
                        self.connection.client.send("PONG\r\n");
                    }
                }
                Err(why) => return Err(self.missing(why, pattern)),
            }
        }
    }

    /// Shows frames up to a `PONG`; `sorted` where their order is the server's choice.
    fn sync(&mut self, sorted: bool) -> Result<(), String> {
        self.connection.client.send("PING\r\n");
        let deadline = Instant::now() + DEADLINE;
        let mut frames = Vec::new();
        let result = loop {
            match self.next(deadline) {
                Ok(Frame::Line(line)) if line == "PONG" => break Ok(()),
                Ok(frame) => frames.push(frame),
                Err(why) => break Err(self.missing(why, "PONG")),
            }
        };
        if sorted {
            frames.sort_by_key(|frame| match frame {
                Frame::Line(line) => (line.clone(), Vec::new()),
                Frame::Message(m) => (frame.line(), m.payload.clone()),
            });
        }
        for frame in &frames {
            self.show(frame);
        }
        result
    }

    fn closed(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.next(deadline) {
                Ok(frame) => self.show(&frame),
                Err(NoFrame::Closed) => {
                    let rest = self.connection.client.unfinished();
                    if !rest.is_empty() {
                        let rest = crate::raw_client::printable(rest);
                        self.lines.push(format!("  half a frame: {rest}"));
                    }
                    self.lines.push(String::from("  (closed)"));
                    return Ok(());
                }
                Err(NoFrame::TimedOut) => return Err(format!("still open after {DEADLINE:?}")),
            }
        }
    }

    /// The next frame that the transcript is to see.
    fn next(&mut self, deadline: Instant) -> Result<Frame, NoFrame> {
        loop {
            let frame = self.connection.client.next_frame(deadline);
            match &frame {
                Ok(Frame::Line(line)) if line == "PING" && !self.connection.show_pings => {
                    self.connection.client.send("PONG\r\n");
                }
                Ok(Frame::Line(line))
                    if line.starts_with("INFO ") && !self.connection.show_infos =>
                {
                    let line = line.clone();
                    self.learn(&line);
                }
                Err(NoFrame::Closed) => {
                    self.connection.closed = true;
                    return frame;
                }
                _ => return frame,
            }
        }
    }

    fn show(&mut self, frame: &Frame) {
        if let Frame::Line(line) = frame
            && line.starts_with("INFO ")
        {
            self.learn(line);
        }
        if let Frame::Message(message) = frame {
            self.remember(message);
        }
        let lines = self.normaliser.frame(frame);
        self.lines.extend(lines.iter().map(|line| format!("  {}", shortened(line))));
    }

    fn remember(&mut self, message: &Message) {
        if let Some(reply) = &message.reply {
            if reply.starts_with("$JS.ACK.") {
                self.connection.acks.push(reply.clone());
            } else if reply.starts_with("$JS.FC.") {
                self.connection.flow_controls.push(reply.clone());
            } else if reply.starts_with("_R_.") {
                self.connection.answers.push(reply.clone());
            }
        }
        if let Ok(object) = serde_json::from_slice::<Value>(&message.payload)
            && object["type"] == "io.nats.jetstream.api.v1.consumer_create_response"
            && let Some(name) = object["name"].as_str()
        {
            self.connection.consumers.push(name.to_owned());
        }
    }

    fn missing(&mut self, why: NoFrame, pattern: &str) -> String {
        match why {
            NoFrame::Closed => {
                self.connection.closed = true;
                format!("closed by the server before {pattern:?}")
            }
            NoFrame::TimedOut => format!("no {pattern:?} within {DEADLINE:?}"),
        }
    }
}

/// A very long line by its start, its length and a checksum.
fn shortened(line: &str) -> String {
    const SHOWN: usize = 200;
    let Some((cut, _)) = line.char_indices().nth(SHOWN) else { return line.to_owned() };
    let sum = line.bytes().fold(0_u32, |sum, b| sum.rotate_left(5) ^ u32::from(b));
    format!("{}... ({} bytes, {sum:08x})", &line[..cut], line.len())
}

/// Does `line` start with `pattern`, where `*` stands for any run of characters?
fn fits(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else {
        return false;
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}
