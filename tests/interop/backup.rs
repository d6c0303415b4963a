//! Backups: what one server wrote, restored by the other, and by itself.
//!
//! Owns the other side of `STREAM.SNAPSHOT` and `STREAM.RESTORE`, as the `nats` command line
//! is one. The stream has deleted messages, headers, and a consumer in the middle of its work.

use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};

use crate::raw_client::{DEADLINE, Frame, Message, RawClient};
use crate::server::{self, Server};
use crate::{Test, Trouble, peers};

const CONFIG: &str = "jetstream {\n  store_dir: \"$DIR/store\"\n}\n";

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for (from, to) in [("nats_server", "sedge"), ("sedge", "nats_server"), ("sedge", "sedge")] {
        tests.push(Test {
            name: format!("backup::{from}_to_{to}"),
            run: Box::new(move || carry(from, to)),
        });
    }
    for name in ["nats_server", "sedge"] {
        tests.push(Test {
            name: format!("backup::broken_at_{name}"),
            run: Box::new(move || broken(name)),
        });
    }
    tests.push(Test { name: "backup::killed".to_owned(), run: Box::new(killed) });
    tests
}

fn start(name: &str) -> Result<Server, Trouble> {
    let binary = match name {
        "sedge" => server::sedge_binary(),
        _ => peers::nats_server().map_err(Trouble::LeftOut)?,
    };
    Server::start(Path::new(&binary), CONFIG).map_err(Trouble::Failed)
}

struct Client {
    raw: RawClient,
    asked: u32,
}

impl Client {
    fn new(server: &Server) -> Self {
        let mut raw = RawClient::greet(server.address());
        // The parts of a backup wait for a subscription to the very subject.
        raw.send("SUB _I.> 1\r\nSUB _C.chunk 2\r\n");
        Self { raw, asked: 0 }
    }

    fn next(&mut self, prefix: &str) -> Result<Message, Trouble> {
        let deadline = Instant::now() + DEADLINE;
        let wanted = |frame: &Frame| match frame {
            // A message of a stream shows its own subject, and is told by that.
            Frame::Message(message) => message.subject.starts_with(prefix),
            Frame::Line(_) => false,
        };
        match self.raw.pick(deadline, wanted) {
            Ok(Frame::Message(message)) => Ok(message),
            other => Err(Trouble::Failed(format!("waited for {prefix}, got {other:?}"))),
        }
    }

    fn request(&mut self, subject: &str, payload: &[u8]) -> Result<Message, Trouble> {
        self.asked += 1;
        let inbox = format!("_I.r{}.", self.asked);
        self.raw.publish_with_reply(subject, &inbox_of(&inbox), payload);
        self.next(&inbox)
    }

    fn api(&mut self, endpoint: &str, body: &Value) -> Result<Value, Trouble> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let reply = self.request(&format!("$JS.API.{endpoint}"), body.as_bytes())?;
        let value: Value = serde_json::from_slice(&reply.payload)
            .map_err(|e| Trouble::Failed(format!("{endpoint}: {e}: {reply:?}")))?;
        match value.get("error") {
            Some(error) => Err(Trouble::Failed(format!("{endpoint}: {error}"))),
            None => Ok(value),
        }
    }

    /// A stream with gaps, and a consumer that has acknowledged some, not all, and again.
    fn fill(&mut self) -> Result<(), Trouble> {
        self.api("STREAM.CREATE.S", &json!({"name": "S", "subjects": ["s.>"]}))?;
        for number in 1..=200 {
            let payload = "some words ".repeat(number % 40) + &number.to_string();
            if number % 3 == 0 {
                let headers = "NATS/1.0\r\nA: b\r\n\r\n";
                let (len, inbox) = (headers.len(), format!("_I.h{number}."));
                let total = len + payload.len();
                let inbox_subject = inbox_of(&inbox);
                let head = format!("HPUB s.{} {inbox_subject} {len} {total}\r\n", number % 7);
                self.raw.send(head + headers + &payload + "\r\n");
                self.next(&inbox)?;
            } else {
                self.request(&format!("s.{}", number % 7), payload.as_bytes())?;
            }
        }
        for gone in [1, 2, 10, 11, 50, 199, 200] {
            self.api("STREAM.MSG.DELETE.S", &json!({"seq": gone}))?;
        }
        let config = json!({"durable_name": "d", "ack_policy": "explicit"});
        self.api("CONSUMER.CREATE.S.d", &json!({"stream_name": "S", "config": config}))?;
        let next = "$JS.API.CONSUMER.MSG.NEXT.S.d";
        let mut acks = Vec::new();
        self.raw.publish_with_reply(next, "_I.pull", b"5");
        for _ in 0..5 {
            acks.push(self.next("s.")?.reply.unwrap_or_default());
        }
        self.request(&acks[0], b"+ACK")?;
        self.request(&acks[2], b"+ACK")?;
        self.request(&acks[3], b"-NAK")?;
        self.raw.publish_with_reply(next, "_I.pull", b"1");
        self.next("s.")?;
        Ok(())
    }

    fn backup(&mut self) -> Result<(Value, Vec<u8>), Trouble> {
        let request = json!({"deliver_subject": "_C.chunk", "chunk_size": 1024});
        let reply = self.api("STREAM.SNAPSHOT.S", &request)?;
        let mut bytes = Vec::new();
        loop {
            let chunk = self.next("_C.chunk")?;
            if chunk.payload.is_empty() {
                let status = String::from_utf8_lossy(&chunk.headers).into_owned();
                if status.starts_with("NATS/1.0 204") {
                    return Ok((reply, bytes));
                }
                return Err(Trouble::Failed(format!("the backup ends with {status:?}")));
            }
            bytes.extend_from_slice(&chunk.payload);
            if let Some(ack) = chunk.reply {
                self.raw.publish(&ack, b"");
            }
        }
    }

    /// Begins to restore, and says where the parts go.
    fn begin_restore(&mut self, backup: &Value) -> Result<String, Trouble> {
        let mut config = backup["config"].clone();
        config["name"] = "R".into();
        config["subjects"] = json!(["r.>"]);
        let request = json!({"config": config, "state": backup["state"]});
        let reply = self.api("STREAM.RESTORE.R", &request)?;
        Ok(reply["deliver_subject"].as_str().unwrap_or_default().to_owned())
    }

    fn restore(&mut self, backup: &Value, bytes: &[u8]) -> Result<(), Trouble> {
        let to = self.begin_restore(backup)?;
        for chunk in bytes.chunks(700) {
            let reply = self.request(&to, chunk)?;
            if !reply.payload.is_empty() {
                return Err(Trouble::Failed(format!("a part was refused: {reply:?}")));
            }
        }
        let reply = self.request(&to, b"")?;
        let reply: Value = serde_json::from_slice(&reply.payload).unwrap_or_default();
        match reply.get("error") {
            None if reply.get("config").is_some() => Ok(()),
            _ => Err(Trouble::Failed(format!("the restore ends with {reply}"))),
        }
    }

    /// Are these the streams there are?
    fn names(&mut self, wanted: &[&str]) -> Result<(), Trouble> {
        let names = self.api("STREAM.NAMES", &Value::Null)?["streams"].take();
        if names == json!(wanted) {
            return Ok(());
        }
        Err(Trouble::Failed(format!("there are {names}, not {wanted:?}")))
    }

    /// All that a restore must keep.
    fn contents(&mut self, stream: &str) -> Result<Vec<String>, Trouble> {
        let mut state = self.api(&format!("STREAM.INFO.{stream}"), &Value::Null)?["state"].take();
        // The time of a last message that is gone is not carried over.
        state["last_ts"].take();
        let mut found = vec![state.to_string()];
        for seq in 1..=200 {
            let got = self.api(&format!("STREAM.MSG.GET.{stream}"), &json!({"seq": seq}));
            found.push(got.map_or_else(|_| "gone".to_owned(), |got| got["message"].to_string()));
        }
        let info = self.api(&format!("CONSUMER.INFO.{stream}.d"), &Value::Null)?;
        for field in ["num_ack_pending", "num_redelivered", "num_pending"] {
            found.push(format!("{field}: {}", info[field]));
        }
        for field in ["delivered", "ack_floor"] {
            for seq in ["consumer_seq", "stream_seq"] {
                found.push(format!("{field} {seq}: {}", info[field][seq]));
            }
        }
        Ok(found)
    }
}

/// An inbox that no other one is the start of.
fn inbox_of(inbox: &str) -> String {
    format!("{inbox}x")
}

fn carry(from: &str, to: &str) -> Result<(), Trouble> {
    let (from, to) = (start(from)?, start(to)?);
    let (mut source, mut target) = (Client::new(&from), Client::new(&to));
    source.fill()?;
    let (backup, bytes) = source.backup()?;
    target.restore(&backup, &bytes)?;
    let (before, after) = (source.contents("S")?, target.contents("R")?);
    match before.iter().zip(&after).find(|(before, after)| before != after) {
        None => Ok(()),
        Some((before, after)) => Err(Trouble::Failed(format!("{before}\nbecame\n{after}"))),
    }
}

/// What is no backup is refused with 10062, and nothing of it stays.
fn broken(name: &str) -> Result<(), Trouble> {
    let server = start(name)?;
    let mut client = Client::new(&server);
    client.fill()?;
    let (backup, bytes) = client.backup()?;
    let half = &bytes[..bytes.len() / 2];
    for bytes in [half, b"rubbish", b""] {
        let to = client.begin_restore(&backup)?;
        let mut reply = Value::Null;
        // Sedge refuses at once, nats-server at the end.
        for part in [bytes, b""] {
            let got = client.request(&to, part)?;
            reply = serde_json::from_slice(&got.payload).unwrap_or_default();
            if reply.get("error").is_some() {
                break;
            }
        }
        if reply["error"]["err_code"] != 10062 {
            return Err(Trouble::Failed(format!("not refused: {reply}")));
        }
        client.names(&["S"])?;
    }
    client.restore(&backup, &bytes)?;
    client.names(&["R", "S"])
}

/// A server that is killed in the middle of a restore has the whole stream afterwards or
/// nothing of it, and the room of what it had taken is used again.
///
/// nats-server serves what it had taken so far as a stream.
fn killed() -> Result<(), Trouble> {
    const ROUNDS: usize = 6;
    let mut server = start("sedge")?;
    let mut client = Client::new(&server);
    client.fill()?;
    // Much that no compression makes less.
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..60 {
        let mut payload = String::new();
        while payload.len() < 30_000 {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            payload.push_str(&noise.to_string());
        }
        client.request("s.noise", payload.as_bytes())?;
    }
    let (backup, bytes) = client.backup()?;
    let before = client.contents("S")?;
    let mut sizes = Vec::new();
    for _ in 0..ROUNDS {
        let to = client.begin_restore(&backup)?;
        for chunk in bytes[..bytes.len() / 4 * 3].chunks(100_000) {
            client.request(&to, chunk)?;
        }
        server.restart(true).map_err(Trouble::Failed)?;
        client = Client::new(&server);
        client.names(&["S"])?;
        sizes.push(size_of(&server.directory().join("store")));
    }
    client.restore(&backup, &bytes)?;
    if before != client.contents("R")? {
        return Err(Trouble::Failed("what was restored differs".to_owned()));
    }
    let lost =
        sizes.last().zip(sizes.first()).map_or(0, |(last, first)| last.saturating_sub(*first));
    if lost > bytes.len() as u64 / 2 {
        return Err(Trouble::Failed(format!("room is lost: {sizes:?}")));
    }
    Ok(())
}

fn size_of(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
