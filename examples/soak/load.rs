//! The load: who does what to the server, and what the healthy ones must get.
//!
//! Owns the clients. Does not own the server: whoever calls [`run`] started it with
//! [`config`]. All load is paced, so that a healthy subscriber that misses something missed
//! it because of the server and not because this machine is slow.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sedge::id::Rng;

use crate::door::{Door, Doors, Stream};

/// Between two bursts of a publisher.
const TICK: Duration = Duration::from_millis(10);
/// How long a subscriber waits for what was published before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(15);
/// Members of the queue group.
const MEMBERS: usize = 3;
/// Messages in each burst of a healthy publisher.
const BURST: u64 = 5;
/// Bytes a second at clients that never read.
const FLOOD_BYTES: usize = 8 * 1024 * 1024;
/// How the names of those begin who must not be closed.
pub(crate) const HEALTHY: &str = "healthy ";
/// Most that waits for one client; what it costs to have slow ones.
const MAX_PENDING: usize = 4 * 1024 * 1024;

/// The accounts. Both use the same subjects, and neither may see the other's messages. Without
/// accounts everything happens in the first.
const ACCOUNTS: [&str; 2] = ["A", "B"];

/// What a server is started with besides its address; `generation` changes with each reload.
/// `certificates` is a folder with `server.pem` and `server.key`.
pub(crate) fn config(
    store_dir: &str,
    certificates: Option<&str>,
    accounts: bool,
    generation: u32,
) -> String {
    let connections = 500 + generation % 2;
    let tls = certificates.map_or_else(String::new, |folder| {
        format!(
            "tls {{ cert_file: \"{folder}/server.pem\", key_file: \"{folder}/server.key\" }}\n\
             allow_non_tls: true\n\
             websocket {{ listen: \"127.0.0.1:-1\", no_tls: true, compression: true }}\n"
        )
    });
    let mut text = format!(
        "max_pending: {MAX_PENDING}\nwrite_deadline: \"2s\"\nping_interval: \"5s\"\n\
         max_connections: {connections}\n{tls}\
         jetstream {{ store_dir: \"{store_dir}\", max_file_store: 64MB }}\n"
    );
    if !accounts {
        text.push_str("authorization { user: A, password: A }\n");
        return text;
    }
    let deny = if generation.is_multiple_of(2) { "never.*" } else { "x.>" };
    let extra = if generation.is_multiple_of(3) { "" } else { "{ user: extra, password: extra }" };
    // Somebody whose password changes is closed each time.
    let fickle = generation % 5;
    let (export, import) = if generation % 4 < 2 {
        ("", "")
    } else {
        (
            "{ stream: \"more.>\" } { service: \"ask.more\" }",
            "{ stream: { account: A, subject: \"more.>\" } }",
        )
    };
    let _ = write!(
        text,
        "accounts {{
  A {{
    jetstream: enabled
    users: [ {{ user: A, password: A }} ]
    exports: [
      {{ stream: \"shared.>\" }}
      {{ service: \"ask.a\" }}
      {export}
    ]
  }}
  B {{
    users: [
      {{ user: B, password: B, permissions: {{ publish: {{ deny: \"{deny}\" }} }} }}
      {{ user: fickle, password: \"fickle-{fickle}\" }}
      {extra}
    ]
    imports: [
      {{ stream: {{ account: A, subject: \"shared.>\" }} }}
      {{ service: {{ account: A, subject: \"ask.a\" }} }}
      {import}
    ]
  }}
}}
"
    );
    text
}

/// What a run was like.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Messages that healthy subscribers got.
    pub(crate) delivered: u64,
    /// Connections that came and went.
    pub(crate) churned: u64,
    /// Clients that were closed for being slow.
    pub(crate) slow: u64,
    /// Messages stored and acknowledged.
    pub(crate) acked: u64,
    /// Resident memory, in bytes, once a second.
    pub(crate) resident: Vec<u64>,
    /// What should not have happened.
    pub(crate) troubles: Vec<String>,
}

impl Outcome {
    /// The median of the samples between two parts of the run, in per cent.
    pub(crate) fn resident_between(&self, from: usize, to: usize) -> u64 {
        let at = |part: usize| self.resident.len() * part / 100;
        let mut samples = self.resident.get(at(from)..at(to)).unwrap_or(&[]).to_vec();
        samples.sort_unstable();
        samples.get(samples.len() / 2).copied().unwrap_or(0)
    }

    /// Did memory stay what it was after the first part of the run? Buffers and what is
    /// remembered of closed connections fill up in the first minute.
    pub(crate) fn is_flat(&self) -> bool {
        let (early, late) = (self.resident_between(20, 40), self.resident_between(80, 100));
        let slack = if self.resident.len() < 300 { 10 } else { 2 };
        late <= early + early / 10 + slack * 1024 * 1024
    }
}

/// What all threads share.
#[derive(Debug)]
struct Shared {
    doors: Doors,
    /// Is there more than one account?
    accounts: bool,
    /// No more load; what is under way is waited for.
    ending: AtomicBool,
    delivered: AtomicU64,
    churned: AtomicU64,
    slow: AtomicU64,
    acked: AtomicU64,
    troubles: Mutex<Vec<String>>,
}

impl Shared {
    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    fn trouble(&self, text: String) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        if troubles.len() < 20 {
            troubles.push(text);
        }
    }
}

/// Loads the server behind `doors`, which was started with [`config`], for `time`. `reload` is
/// called every few seconds with a new generation for [`config`], `resident` once a second for
/// the memory of the server.
pub(crate) fn run(
    doors: &Doors,
    accounts: bool,
    time: Duration,
    seed: u64,
    mut reload: Option<&mut dyn FnMut(u32)>,
    mut resident: impl FnMut() -> u64,
) -> Outcome {
    let shared = Arc::new(Shared {
        doors: doors.clone(),
        accounts,
        ending: AtomicBool::new(false),
        delivered: AtomicU64::new(0),
        churned: AtomicU64::new(0),
        slow: AtomicU64::new(0),
        acked: AtomicU64::new(0),
        troubles: Mutex::new(Vec::new()),
    });
    let mut threads = Vec::new();
    let mut spawn = |name: String, work: Box<dyn FnOnce(&Shared) -> io::Result<()> + Send>| {
        let shared = Arc::clone(&shared);
        threads.push(thread::spawn(move || {
            if let Err(error) = work(&shared) {
                shared.trouble(format!("{name}: {error}"));
            }
        }));
    };
    for account in ACCOUNTS.into_iter().take(if accounts { ACCOUNTS.len() } else { 1 }) {
        for door in [Door::Plain, Door::Tls, Door::Web] {
            if doors.has(door) {
                let work = move |shared: &Shared| talk(shared, account, door);
                spawn(format!("talk in {account} through {door:?}"), Box::new(work));
            }
        }
        spawn(format!("group in {account}"), Box::new(move |shared| group(shared, account)));
    }
    spawn("import".into(), Box::new(import));
    spawn("requests".into(), Box::new(requests));
    spawn("storage".into(), Box::new(storage));
    spawn("flood".into(), Box::new(flood));
    for number in 0..2 {
        spawn("slow".into(), Box::new(move |shared| slow(shared, seed ^ number)));
        spawn("churn".into(), Box::new(move |shared| churn(shared, seed ^ (number << 8))));
    }
    if accounts {
        spawn("fickle".into(), Box::new(fickle));
    }
    let mut outcome = Outcome::default();
    let until = Instant::now() + time;
    let mut second = 0_u32;
    while Instant::now() < until {
        // Once a second is the pace of the samples.
        thread::sleep(Duration::from_secs(1).min(until - Instant::now().min(until)));
        outcome.resident.push(resident());
        second += 1;
        if second.is_multiple_of(3)
            && let Some(reload) = &mut reload
        {
            reload(second / 3);
        }
    }
    shared.ending.store(true, Ordering::Relaxed);
    for thread in threads {
        if thread.join().is_err() {
            shared.trouble("a client panicked".into());
        }
    }
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    outcome.delivered = get(&shared.delivered);
    outcome.churned = get(&shared.churned);
    outcome.slow = get(&shared.slow);
    outcome.acked = get(&shared.acked);
    outcome.troubles =
        std::mem::take(&mut *shared.troubles.lock().unwrap_or_else(PoisonError::into_inner));
    outcome
}

// --- Those who must get everything ---

/// One publisher, one subscriber; the same subjects in each account.
fn talk(shared: &Shared, account: &'static str, door: Door) -> io::Result<()> {
    let mut listener = Link::through(shared, door, account, &format!("listener {door:?}"))?;
    listener.say(&format!("SUB talk.{door:?}.> 1\r\n"))?;
    listener.sync()?;
    let mut speaker = Link::through(shared, door, account, &format!("speaker {door:?}"))?;
    in_order(
        shared,
        account,
        &mut listener,
        |number, line| {
            let size = 16 + number % 700;
            let _ = write!(
                line,
                "PUB talk.{door:?}.{} {size}\r\n{}\r\n",
                number % 50,
                body(account, number, size)
            );
        },
        &mut speaker,
    )
}

/// What account A exports, account B gets.
fn import(shared: &Shared) -> io::Result<()> {
    let mut listener = Link::through(shared, Door::Web, "B", "import")?;
    listener.say("SUB shared.> 1\r\n")?;
    listener.sync()?;
    let mut speaker = Link::through(shared, Door::Tls, "A", "export")?;
    in_order(
        shared,
        "A",
        &mut listener,
        |number, line| {
            let _ = write!(line, "PUB shared.x 64\r\n{}\r\n", body("A", number, 64));
        },
        &mut speaker,
    )
}

/// The account, the number, and filling.
fn body(account: &str, number: u64, size: u64) -> String {
    let mut text = format!("{account} {number:012} ");
    let size = usize::try_from(size).unwrap_or(0);
    while text.len() < size {
        text.push('.');
    }
    text.truncate(size);
    text
}

fn number_of(payload: &[u8]) -> Option<(&str, u64)> {
    let text = std::str::from_utf8(payload.get(..14)?).ok()?;
    let (account, number) = text.split_once(' ')?;
    Some((account, number.parse().ok()?))
}

/// Publishes in bursts and checks that `listener` gets each message once and in order.
fn in_order(
    shared: &Shared,
    account: &str,
    listener: &mut Link,
    publication: impl Fn(u64, &mut String),
    speaker: &mut Link,
) -> io::Result<()> {
    let (mut said, mut heard) = (0, 0);
    let mut heard_at = Instant::now();
    let mut wrong = None;
    loop {
        if !shared.is_ending() {
            let mut lines = String::new();
            for number in said..said + BURST {
                publication(number, &mut lines);
            }
            said += BURST;
            speaker.say(&lines)?;
        }
        speaker.pump(Duration::ZERO, |_| {})?;
        listener.pump(TICK, |message| {
            match number_of(message.payload) {
                Some((from, number)) if from == account && number == heard => {}
                other => wrong = wrong.take().or_else(|| Some(format!("{other:?} after {heard}"))),
            }
            heard += 1;
            heard_at = Instant::now();
        })?;
        if let Some(wrong) = wrong {
            return Err(io::Error::other(wrong));
        }
        if shared.is_ending() && heard == said {
            shared.delivered.fetch_add(heard, Ordering::Relaxed);
            return Ok(());
        }
        if heard < said && heard_at.elapsed() > PATIENCE {
            return Err(io::Error::other(format!("{heard} of {said} arrived")));
        }
    }
}

/// A queue group: each message reaches one member, once.
fn group(shared: &Shared, account: &'static str) -> io::Result<()> {
    let mut members = Vec::new();
    for _ in 0..MEMBERS {
        let mut member = Link::through(shared, Door::Plain, account, "member")?;
        member.say("SUB jobs.* workers 1\r\n")?;
        member.sync()?;
        members.push(member);
    }
    let mut speaker = Link::through(shared, Door::Plain, account, "jobs")?;
    let (mut said, mut heard) = (0, 0_u64);
    let mut missing = std::collections::BTreeSet::new();
    let mut heard_at = Instant::now();
    loop {
        if !shared.is_ending() {
            let mut lines = String::new();
            for number in said..said + BURST {
                missing.insert(number);
                let _ = write!(
                    lines,
                    "PUB jobs.{} 32\r\n{}\r\n",
                    number % 7,
                    body(account, number, 32)
                );
            }
            said += BURST;
            speaker.say(&lines)?;
        }
        speaker.pump(TICK, |_| {})?;
        let mut wrong = None;
        for member in &mut members {
            member.pump(Duration::ZERO, |message| {
                let number = number_of(message.payload).filter(|(from, _)| *from == account);
                match number {
                    Some((_, number)) if missing.remove(&number) => heard += 1,
                    other => wrong = Some(format!("{other:?} is not awaited")),
                }
                heard_at = Instant::now();
            })?;
        }
        if let Some(wrong) = wrong {
            return Err(io::Error::other(wrong));
        }
        if shared.is_ending() && missing.is_empty() {
            shared.delivered.fetch_add(heard, Ordering::Relaxed);
            return Ok(());
        }
        if !missing.is_empty() && heard_at.elapsed() > PATIENCE {
            return Err(io::Error::other(format!("{} of {said} did not arrive", missing.len())));
        }
    }
}

/// Requests of account B to a service of account A: each gets its own answer.
fn requests(shared: &Shared) -> io::Result<()> {
    let mut service = Link::through(shared, Door::Plain, "A", "service")?;
    service.say("SUB ask.a 1\r\n")?;
    service.sync()?;
    let mut client = Link::through(shared, Door::Plain, "B", "asker")?;
    client.say("SUB _INBOX.soak.* 1\r\n")?;
    client.sync()?;
    let mut number = 0_u64;
    while !shared.is_ending() {
        number += 1;
        client.say(&format!("PUB ask.a _INBOX.soak.{number} 8\r\n{number:08}\r\n"))?;
        let deadline = Instant::now() + PATIENCE;
        let mut answered = false;
        while !answered {
            let mut answer = String::new();
            service.pump(Duration::from_millis(2), |message| {
                let payload = String::from_utf8_lossy(message.payload);
                let reply = message.reply.as_deref().unwrap_or_default();
                let _ = write!(answer, "PUB {reply} {}\r\n{payload}\r\n", payload.len());
            })?;
            service.say(&answer)?;
            client.pump(Duration::from_millis(2), |message| {
                answered |= message.payload == format!("{number:08}").as_bytes();
            })?;
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("request {number} has no answer")));
            }
        }
        shared.delivered.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Publishes to a stream that keeps little, and reads each acknowledgement.
fn storage(shared: &Shared) -> io::Result<()> {
    let mut client = Link::through(shared, Door::Plain, "A", "storage")?;
    client.say("SUB _INBOX.store 1\r\n")?;
    let stream = "{\"name\":\"SOAK\",\"subjects\":[\"stored.>\"],\"max_msgs\":1000}";
    let mut ask = |subject: &str, body: &str, wanted: &str| -> io::Result<()> {
        client.say(&format!("PUB {subject} _INBOX.store {}\r\n{body}\r\n", body.len()))?;
        let deadline = Instant::now() + PATIENCE;
        let mut answer = None;
        while answer.is_none() {
            client.pump(TICK, |message| {
                answer = Some(String::from_utf8_lossy(message.payload).into_owned());
            })?;
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("{subject} has no answer")));
            }
        }
        match answer {
            Some(answer) if answer.contains(wanted) => Ok(()),
            other => Err(io::Error::other(format!("{subject} answers {other:?}"))),
        }
    };
    ask("$JS.API.STREAM.CREATE.SOAK", stream, "\"config\"")?;
    let mut number = 0;
    while !shared.is_ending() {
        number += 1;
        ask(&format!("stored.{}", number % 10), "reading", &format!("\"seq\":{number}"))?;
        shared.acked.fetch_add(1, Ordering::Relaxed);
        // A reading every few milliseconds.
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

// --- Those who make trouble ---

/// Publishes a lot to those who do not read.
fn flood(shared: &Shared) -> io::Result<()> {
    let mut client = Link::through(shared, Door::Plain, "A", "flood")?;
    let publication = format!("PUB flood.x 8192\r\n{}\r\n", ".".repeat(8192));
    let burst = publication.repeat(FLOOD_BYTES / 8192 / 50);
    while !shared.is_ending() {
        client.say(&burst)?;
        client.pump(Duration::from_millis(20), |_| {})?;
    }
    Ok(())
}

/// Subscribes to the flood and reads nothing until the server has had enough of it.
fn slow(shared: &Shared, seed: u64) -> io::Result<()> {
    let mut rng = Rng::new(seed);
    while !shared.is_ending() {
        let mut client = Link::connect(shared, "A")?;
        client.say("SUB flood.> 1\r\n")?;
        // Long enough for `max_pending` or the write deadline.
        let until = Instant::now() + Duration::from_secs(3 + rng.below(3));
        while Instant::now() < until && !shared.is_ending() {
            thread::sleep(TICK);
        }
        if client.is_cut_off() {
            shared.slow.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// One whose password changes with the reloads: it is closed and tries again, often wrongly.
fn fickle(shared: &Shared) -> io::Result<()> {
    let mut number = 0;
    while !shared.is_ending() {
        number += 1;
        let mut socket = TcpStream::connect(shared.doors.plain)?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        let password = number % 5;
        let _ = socket.write_all(
            format!(
                "CONNECT {{\"user\":\"fickle\",\"pass\":\"fickle-{password}\",\"verbose\":false}}\r\n\
                 SUB talk.> 1\r\nSUB more.> 2\r\nPUB more.x 0\r\n\r\n"
            )
            .as_bytes(),
        );
        // Until it is thrown out, or has not heard anything for a while.
        let mut buffer = [0; 16 * 1024];
        while !shared.is_ending() && matches!(socket.read(&mut buffer), Ok(1..)) {}
        shared.churned.fetch_add(1, Ordering::Relaxed);
        // The pace of trying.
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Clients that come, do something and go, some without a word.
fn churn(shared: &Shared, seed: u64) -> io::Result<()> {
    let mut rng = Rng::new(seed);
    while !shared.is_ending() {
        let account = ACCOUNTS[rng.index(2)];
        match rng.below(8) {
            // Comes, says nothing, goes.
            0 => drop(TcpStream::connect(shared.doors.web.unwrap_or(shared.doors.plain))?),
            // Speaks nonsense.
            1 => {
                let mut socket = TcpStream::connect(shared.doors.plain)?;
                let _ = socket.write_all(b"GET / HTTP/1.1\r\n\r\n");
                let _ = socket.shutdown(Shutdown::Write);
            }
            // A stranger.
            2 => {
                let mut socket = TcpStream::connect(shared.doors.plain)?;
                let _ = socket.write_all(b"CONNECT {\"user\":\"A\",\"pass\":\"B\"}\r\nPING\r\n");
            }
            // Half an operation.
            3 => {
                let mut client = Link::connect(shared, account)?;
                client.say("SUB half. 1\r\nPUB half 100\r\nonly this")?;
            }
            _ => {
                let door = [Door::Plain, Door::Plain, Door::Tls, Door::Web][rng.index(4)];
                let mut client = Link::through(shared, door, account, "")?;
                let mut lines = String::new();
                for sid in 0..=rng.below(50) {
                    let token = rng.token(8);
                    let _ = match rng.below(3) {
                        0 => write!(lines, "SUB _INBOX.{token}.> {sid}\r\n"),
                        1 => write!(lines, "SUB come.*.{token} group {sid}\r\n"),
                        _ => write!(lines, "SUB come.{token} {sid}\r\nUNSUB {sid} 1\r\n"),
                    };
                    let _ = write!(lines, "PUB come.{token} 5\r\nhello\r\n");
                }
                client.say(&lines)?;
                if rng.below(2) == 0 {
                    client.sync()?;
                }
            }
        }
        shared.churned.fetch_add(1, Ordering::Relaxed);
        // The pace of coming and going.
        thread::sleep(Duration::from_millis(5 + rng.below(20)));
    }
    Ok(())
}

// --- A client ---

/// A message, borrowed from the buffer of its link.
struct Message<'a> {
    reply: Option<String>,
    payload: &'a [u8],
}

/// A connection that has signed in. It answers PING whenever it is pumped.
struct Link {
    socket: Box<dyn Stream>,
    bytes: Vec<u8>,
    pongs: u64,
    pings: u64,
}

impl Link {
    fn connect(shared: &Shared, account: &str) -> io::Result<Self> {
        Self::through(shared, Door::Plain, account, "")
    }

    /// With a name those who watch the log know it by.
    fn through(shared: &Shared, door: Door, account: &str, name: &str) -> io::Result<Self> {
        let socket = shared.doors.open(door)?;
        let account = if shared.accounts { account } else { ACCOUNTS[0] };
        let mut link = Self { socket, bytes: Vec::new(), pongs: 0, pings: 0 };
        let name = if name.is_empty() { String::new() } else { format!("{HEALTHY}{name}") };
        link.say(&format!(
            "CONNECT {{\"user\":\"{account}\",\"pass\":\"{account}\",\"verbose\":false,\
             \"protocol\":1,\"headers\":false,\"name\":\"{name}\"}}\r\n"
        ))?;
        Ok(link)
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        self.socket.write_all(text.as_bytes())
    }

    /// Waits until the server has seen all that was said.
    fn sync(&mut self) -> io::Result<()> {
        self.pings += 1;
        self.say("PING\r\n")?;
        let deadline = Instant::now() + PATIENCE;
        while self.pongs < self.pings {
            self.pump(TICK, |_| {})?;
            if Instant::now() > deadline {
                return Err(io::Error::other("no PONG"));
            }
        }
        Ok(())
    }

    /// Reads what is there, waiting for at most `wait` if there is nothing.
    fn pump(&mut self, wait: Duration, mut each: impl FnMut(&Message<'_>)) -> io::Result<()> {
        // A zero timeout would mean "for ever".
        self.socket.wait(wait.max(Duration::from_micros(50)))?;
        let mut buffer = [0; 16 * 1024];
        match self.socket.read(&mut buffer) {
            Ok(0) => return Err(io::Error::other("the server closed a healthy connection")),
            Ok(count) => self.bytes.extend_from_slice(&buffer[..count]),
            Err(error) if is_nothing(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
        let bytes = std::mem::take(&mut self.bytes);
        let mut rest = &bytes[..];
        let mut pongs = String::new();
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let line = String::from_utf8_lossy(&rest[..end]);
            let line = line.trim_end();
            let mut used = end + 1;
            if let Some(arguments) = line.strip_prefix("MSG ") {
                let words: Vec<&str> = arguments.split(' ').collect();
                let size: usize =
                    words.last().and_then(|word| word.parse().ok()).unwrap_or(usize::MAX);
                let Some(payload) = rest.get(used..used.saturating_add(size)) else { break };
                if rest.len() < used + size + 2 {
                    break;
                }
                let reply = (words.len() == 4).then(|| words[2].to_owned());
                each(&Message { reply, payload });
                used += size + 2;
            } else if line == "PING" {
                pongs.push_str("PONG\r\n");
            } else if line == "PONG" {
                self.pongs += 1;
            } else if line.starts_with("-ERR") {
                return Err(io::Error::other(line.to_owned()));
            }
            rest = &rest[used..];
        }
        self.bytes = rest.to_vec();
        self.say(&pongs)
    }

    /// Has the server closed it? Reads all there is to find out.
    fn is_cut_off(&mut self) -> bool {
        let _ = self.socket.wait(TICK);
        let mut buffer = [0; 16 * 1024];
        for _ in 0..1000 {
            match self.socket.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return !is_nothing(&error),
            }
        }
        false
    }
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}
