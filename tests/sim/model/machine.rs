//! One machine: the real broker over the real store, a disk that forgets, and one client.
//!
//! Owns the time and what the client was told. Everything a request asks for is done before
//! [`Machine::settle`] returns, unless the machine dies on the way: then nothing that was not
//! said before is ever said.

use sedge::broker::options::Options;
use sedge::broker::{Broker, Output};
use sedge::id::ConnId;
use sedge::jetstream;
use sedge::jetstream::engine;
use sedge::jetstream::storage::{StoreReply, StoreRequest};
use sedge::store::{Disk, StoreOptions};
use sedge::time::{Duration, Instant, Now, Timestamp};

use super::Broken;
use crate::chance::Chance;
use crate::disk::SimDisk;

/// What the wall clock shows at virtual zero, in nanoseconds: a whole second.
pub(crate) const BEGIN: i64 = 1_795_456_083_000_000_000;

/// A message as the client got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) subject: String,
    /// The inbox itself, where messages are delivered under their own subject.
    pub(crate) sid: String,
    pub(crate) reply: String,
    pub(crate) headers: String,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The status of a message that is none.
    pub(crate) fn status(&self) -> Option<&str> {
        let line = self.headers.strip_prefix("NATS/1.0 ")?;
        line.split("\r\n").next()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.headers.split("\r\n").find_map(|line| line.strip_prefix(&prefix))
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.payload)
            .unwrap_or_else(|error| panic!("{error}: {}", self.payload.escape_ascii()))
    }
}

/// How a process ends that should not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    Sigkill,
    PowerCut,
}

struct Process {
    broker: Broker,
    disk: Disk,
    /// Records of consumers that wait for a commit.
    riders: Vec<StoreRequest>,
    conn: ConnId,
}

/// See the module.
pub(crate) struct Machine {
    process: Option<Process>,
    disk: SimDisk,
    now: Now,
    broken: Broken,
    chance: Chance,
    unread: Vec<u8>,
    heard: Vec<Frame>,
    inboxes: u64,
    /// The disk takes no more operations: whatever is answered now was never said.
    dying: bool,
    stopping: bool,
}

impl Machine {
    pub(crate) fn new(mut chance: Chance, broken: Broken) -> Self {
        let mut machine = Self {
            process: None,
            disk: SimDisk::new(chance.fork()),
            now: Now { instant: Instant(1_000_000_000), wall: Timestamp(BEGIN) },
            broken,
            chance,
            unread: Vec::new(),
            heard: Vec::new(),
            inboxes: 0,
            dying: false,
            stopping: false,
        };
        machine.start();
        machine
    }

    /// Since the beginning, in nanoseconds.
    pub(crate) fn time(&self) -> i64 {
        self.now.wall.0 - BEGIN
    }

    fn start(&mut self) {
        let options = Options {
            server_id: "NMODEL".into(),
            server_name: "model".into(),
            jetstream: true,
            // The client reads everything at once and is never asked.
            ping_interval: Duration::from_hours(10_000),
            ..Options::default()
        };
        let js = jetstream::options::Options {
            store_dir: "/data".into(),
            server_name: "model".into(),
            ..jetstream::options::Options::default()
        };
        let (disk, replies) = Disk::open(Box::new(self.disk.clone()), StoreOptions::default())
            .unwrap_or_else(|error| panic!("the store does not open: {error}"));
        assert!(!self.disk.was_set_aside(), "the store was found damaged");
        let mut broker = Broker::new(options, Some(js), self.chance.bits());
        for reply in replies {
            broker.handle_store(self.now, reply);
        }
        let conn = broker.accept(self.now, "10.0.0.1:4000");
        broker.receive(
            self.now,
            conn,
            b"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\n\
              SUB _INBOX.> 1\r\n",
        );
        self.unread.clear();
        self.heard.clear();
        self.process = Some(Process { broker, disk, riders: Vec::new(), conn });
        self.settle();
        self.heard.clear();
    }

    // --- Ends ---

    /// The disk takes so many more operations.
    pub(crate) fn kill_after(&self, operations: u64) {
        self.disk.kill_after(operations);
    }

    /// Has it died of [`Self::kill_after`]?
    pub(crate) fn is_dying(&self) -> bool {
        self.dying
    }

    /// The process or its machine is gone, and starts again.
    pub(crate) fn die(&mut self, death: Death) {
        // Whatever redb still writes while it is dropped does not reach the disk.
        self.disk.kill_after(0);
        self.process = None;
        match death {
            Death::Sigkill => self.disk.after_sigkill(),
            Death::PowerCut => self.disk.after_power_cut(),
        }
        self.dying = false;
        self.start();
    }

    /// Stops as it should, and starts again.
    pub(crate) fn restart(&mut self) {
        self.stopping = true;
        if let Some(process) = &mut self.process {
            process.broker.save(self.now);
        }
        self.settle();
        if let Some(process) = &mut self.process {
            process.broker.shut_down(self.now);
        }
        self.settle();
        if let Some(mut process) = self.process.take() {
            let riders = std::mem::take(&mut process.riders);
            process.disk.apply_batch(riders);
            process.disk.close().unwrap_or_else(|error| panic!("it does not close: {error}"));
        }
        self.stopping = false;
        self.start();
    }

    // --- The client ---

    /// Says something, without the end of the turn.
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        if let Some(process) = &mut self.process {
            process.broker.receive(self.now, process.conn, bytes);
        }
    }

    /// Publishes, without the end of the turn.
    pub(crate) fn publish(&mut self, subject: &str, reply: &str, headers: &str, payload: &[u8]) {
        let reply = if reply.is_empty() { String::new() } else { format!("{reply} ") };
        let total = headers.len() + payload.len();
        let mut bytes = if headers.is_empty() {
            format!("PUB {subject} {reply}{total}\r\n").into_bytes()
        } else {
            format!("HPUB {subject} {reply}{} {total}\r\n{headers}", headers.len()).into_bytes()
        };
        bytes.extend_from_slice(payload);
        bytes.extend_from_slice(b"\r\n");
        self.say(&bytes);
    }

    /// A subject nobody used before.
    pub(crate) fn inbox(&mut self) -> String {
        self.inboxes += 1;
        format!("_INBOX.{}", self.inboxes)
    }

    /// Everything said so far to an inbox, oldest first.
    pub(crate) fn heard(&mut self, inbox: &str) -> Vec<Frame> {
        self.heard.extract_if(.., |frame| frame.subject == inbox || frame.sid == inbox).collect()
    }

    /// One request, and everything that is answered at once.
    pub(crate) fn ask(&mut self, subject: &str, payload: &[u8]) -> Vec<Frame> {
        let inbox = self.inbox();
        self.publish(subject, &inbox, "", payload);
        self.settle();
        self.heard(&inbox)
    }

    /// A request to the API, whose answer may be missing only when the machine dies.
    pub(crate) fn api(&mut self, subject: &str, body: &serde_json::Value) -> serde_json::Value {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let answers = self.ask(&format!("$JS.API.{subject}"), &body);
        match answers.first() {
            Some(frame) => frame.json(),
            None if self.dying => serde_json::Value::Null,
            None => panic!("no answer on {subject}"),
        }
    }

    // --- Time ---

    /// Time passes: in steps, as timers ask for it.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now.instant + time;
        for _ in 0..100_000 {
            let Some(process) = &mut self.process else { return };
            let due = process.broker.poll_timeout().filter(|at| *at <= end);
            let at = due.unwrap_or(end).max(self.now.instant);
            let step = at.since(self.now.instant);
            self.now.instant = at;
            self.now.wall.0 += i64::try_from(step.as_nanos()).unwrap_or(0);
            process.broker.handle_timeout(self.now);
            self.settle();
            if due.is_none() {
                return;
            }
        }
        panic!("timers without an end");
    }

    /// The end of a turn, and everything it asks for.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10_000 {
            let Some(process) = &mut self.process else { return };
            process.broker.end_turn(self.now);
            let mut idle = true;
            let mut requests = Vec::new();
            while let Some(output) = process.broker.poll_output() {
                idle = false;
                match output {
                    Output::Store(request) => requests.push(request),
                    Output::Close { reason, .. } => {
                        assert!(self.stopping, "the client is closed: {reason:?}");
                    }
                    Output::Notice(notice) => {
                        assert!(self.dying || !notice.text.contains("failed"), "{}", notice.text);
                    }
                    _ => {}
                }
            }
            let replies = self.store(requests);
            let Some(process) = &mut self.process else { return };
            for reply in replies {
                process.broker.handle_store(self.now, reply);
            }
            while let Some(id) = process.broker.next_dirty() {
                idle = false;
                let pending = process.broker.pending(id);
                if !self.dying {
                    self.unread.extend_from_slice(pending);
                }
                let count = pending.len();
                process.broker.transmitted(self.now, id, count);
            }
            self.read();
            if idle {
                return;
            }
        }
        panic!("a turn without an end");
    }

    fn store(&mut self, requests: Vec<StoreRequest>) -> Vec<StoreReply> {
        let Some(process) = &mut self.process else { return Vec::new() };
        let mut replies = Vec::new();
        let mut batch = Vec::new();
        for mut request in requests {
            if self.broken.breaks(&mut request, &mut replies) {
                continue;
            }
            match &request {
                StoreRequest::PutConsumer { token: None, .. }
                | StoreRequest::DeleteConsumer { .. } => process.riders.push(request),
                _ => batch.push(request),
            }
        }
        if batch.is_empty() {
            return replies;
        }
        if !batch.iter().all(engine::is_read) {
            let mut riders = std::mem::take(&mut process.riders);
            riders.append(&mut batch);
            batch = riders;
        }
        replies.extend(process.disk.apply_batch(batch));
        self.dying |= self.disk.is_dead();
        if self.dying { Vec::new() } else { replies }
    }

    /// Cuts what was said into messages.
    fn read(&mut self) {
        let mut rest = &self.unread[..];
        while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
            let line = String::from_utf8(rest[..end].to_vec()).expect("lines are text");
            let words: Vec<&str> = line.split(' ').collect();
            let body = &rest[end + 2..];
            let size = |word: &str| word.parse::<usize>().expect("a size");
            let (sizes, has_headers) = match words[0] {
                "HMSG" => (2, true),
                "MSG" => (1, false),
                "INFO" | "PING" | "PONG" => {
                    rest = body;
                    continue;
                }
                _ => panic!("{line}"),
            };
            let total = size(words[words.len() - 1]);
            if body.len() < total + 2 {
                break;
            }
            let split = if has_headers { size(words[words.len() - 2]) } else { 0 };
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("headers are text");
            self.heard.push(Frame {
                subject: words[1].into(),
                sid: words[2].into(),
                reply: if words.len() == 3 + sizes { String::new() } else { words[3].into() },
                headers: text(&body[..split]),
                payload: body[split..total].to_vec(),
            });
            rest = &body[total + 2..];
        }
        self.unread = rest.to_vec();
    }
}
