//! The `nats` command line at its everyday work.
//!
//! Each step is a command and what its output must show. The program gets a home folder of
//! its own, so that no context of whoever runs the tests gets into it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Trouble;
use crate::peers;

/// One command, from start to end.
const STEP_DEADLINE: Duration = Duration::from_secs(20);

/// A command, and pieces of its output.
type Step<'a> = (&'a str, &'a [&'a str]);

const STEPS: &[Step<'static>] = &[
    ("rtt", &["nats://127.0.0.1:"]),
    ("pub cli.a hello --count 3 -H A:b", &["Published 5 bytes to \"cli.a\""]),
    ("bench pub cli.bench --msgs 10000 --size 16 --clients 2 --no-progress", &["msgs/sec"]),
    ("latency --server-b URL --duration 1s --rate 100", &["Median Latency"]),
    ("trace cli.nobody hello", &["No active interest"]),
    ("stream add S --subjects s.> --defaults --storage file --allow-direct", &["Messages: 0"]),
    ("pub s.a one --jetstream", &["Stored in Stream: S Sequence: 1"]),
    ("bench js pub sync s.b --stream S --msgs 100 --size 64 --no-progress", &["msgs/sec"]),
    ("bench js ordered --stream S --msgs 100 --no-progress", &["msgs/sec"]),
    ("stream ls --names", &["S"]),
    ("stream info S", &["Messages: 101", "Number of Subjects: 2"]),
    ("stream report", &["101"]),
    ("stream subjects S", &["s.a", "100"]),
    ("stream get S 1", &["Item: S#1", "one"]),
    ("trace s.c hello", &["--J JetStream", "S"]),
    ("stream rmm S 2 -f", &[]),
    ("stream get S 2", &["!no message found"]),
    ("stream edit S --max-msgs 50 -f", &["Maximum Messages: 50"]),
    ("consumer add S C --pull --defaults", &["Unprocessed Messages: 50"]),
    ("consumer next S C --count 2", &["cons seq: 2", "Acknowledged message"]),
    ("consumer info S C", &["Outstanding Acks: 0", "Unprocessed Messages: 48"]),
    ("consumer report S", &["48 / 96%"]),
    ("consumer rm S C -f", &[]),
    ("stream purge S -f", &["Messages: 0"]),
    ("stream rm S -f", &[]),
    ("kv add B --history 3", &["KV_B"]),
    ("kv put B lamp on", &["on"]),
    ("kv create B lamp again", &["!wrong last sequence"]),
    ("kv get B lamp --raw", &["on"]),
    ("kv ls B", &["lamp"]),
    ("kv history B lamp", &["PUT"]),
    ("kv del B lamp -f", &[]),
    ("kv info B", &["KV_B"]),
    ("object add O", &["OBJ_O"]),
    ("object put O FILE --name f --no-progress", &["Digest: SHA-256"]),
    ("object ls O", &["f"]),
    ("object get O f -O FILE.copy -f --no-progress", &["Wrote:"]),
    ("object rm O f -f", &[]),
    ("account info", &["Streams: 2 of Unlimited"]),
    ("server check connection", &["OK Connection"]),
    ("server check jetstream", &["OK JetStream"]),
    ("server check stream --stream KV_B", &["OK KV_B"]),
    ("server check kv --bucket B", &["OK B"]),
    ("kv del B -f", &[]),
    ("object del O -f", &[]),
    ("stream ls", &["No Streams"]),
];

/// What is done to streams, consumers, buckets and objects on other days. What draws graphs or
/// pages needs a terminal and is left out.
const MORE_STEPS: &[Step<'static>] = &[
    ("stream add S --subjects s.> --defaults", &["Messages: 0"]),
    ("bench js pub sync s.b --stream S --msgs 20 --size 64 --no-progress", &["msgs/sec"]),
    ("pub s.a one --jetstream -H Nats-Msg-Id:a", &["Sequence: 21"]),
    ("pub s.a one --jetstream -H Nats-Msg-Id:a", &["Sequence: 21"]),
    ("stream state S", &["Messages: 21", "Number of Subjects: 2"]),
    ("stream find --subject s.a", &["Streams matching s.a"]),
    ("stream find --expression state.messages==21 --names", &["S"]),
    ("stream rmm S 5 -f", &[]),
    ("stream gaps S -f --no-progress", &["5", "1"]),
    ("stream copy S T --subjects t.>", &["Stream T was created"]),
    ("stream seal T -f", &["Sealed: true"]),
    ("pub t.a late --jetstream", &["!invalid operation on sealed stream"]),
    ("stream rm T -f", &[]),
    ("stream backup S FILE.backup --no-progress", &["Received"]),
    ("stream restore FILE.backup --no-progress", &["!already exist"]),
    ("stream rm S -f", &[]),
    ("stream restore FILE.backup --no-progress", &["Restored stream \"S\"", "Messages: 20"]),
    ("stream purge S --keep 15 -f", &["Messages: 15"]),
    ("stream purge S --subject s.a -f", &["Purged 1 messages"]),
    ("stream cluster step-down S", &["!is not clustered"]),
    ("consumer add S C --pull --defaults --ack explicit", &["Unprocessed Messages: 14"]),
    ("consumer add S D --target to.d --defaults --ack explicit", &["Delivery Subject: to.d"]),
    ("consumer copy S C E", &["Consumer S > E"]),
    ("consumer edit S C --sample 50 -f", &["Sampling Rate: 50"]),
    ("consumer pause S C 1m -f", &["Paused S > C until"]),
    ("consumer info S C", &["Paused Until Deadline", "Required API Level: 1"]),
    ("consumer resume S C -f", &["was resumed"]),
    ("consumer next S C --nak --wait 1s", &["tries: 1", "Negative Acknowledged"]),
    ("consumer next S C --term --wait 1s", &["Terminated message"]),
    ("consumer sub S C --ack", &["Acknowledged message"]),
    ("consumer reset S C -f", &["Last Delivered Message: Consumer sequence: 0"]),
    ("consumer add S P --pull --defaults --pinned-groups g --pinned-ttl 10s", &["S > P"]),
    ("consumer unpin S P g -f", &["!no priority groups have pinned clients"]),
    ("consumer ls S", &["Consumers", "C", "D", "E", "P"]),
    ("consumer find S --pull", &["C", "E", "P"]),
    ("consumer report S", &["with 4 consumers"]),
    ("consumer rm S E -f", &[]),
    ("bench js consume --stream S --msgs 10 --no-progress", &["msgs/sec"]),
    ("stream rm S -f", &[]),
    ("kv add B --history 3 --ttl 1h --marker-ttl 10s", &["KV_B"]),
    ("kv put B a 1", &["1"]),
    ("kv update B a 2 1", &["2"]),
    ("kv update B a 3 1", &["!wrong last sequence: 2"]),
    ("kv create B b 1 --ttl 20s", &["1"]),
    ("kv get B a --revision 1 --raw", &["1"]),
    ("kv del B b -f", &[]),
    ("kv purge B b -f", &[]),
    ("kv compact B -f", &[]),
    ("kv ls B --verbose", &["a"]),
    ("kv edit B --description mine", &["mine"]),
    ("kv status B", &["History Kept: 3", "Values Stored: 3"]),
    ("kv del B -f", &[]),
    ("object add O --description mine", &["mine"]),
    ("object put O FILE --name f --no-progress", &["Chunks: 2"]),
    ("object info O f", &["Size: 195 KiB"]),
    ("object info O", &["Sealed: false"]),
    ("object seal O -f", &["O has been sealed"]),
    ("object put O FILE --name g --no-progress", &["!invalid operation on sealed stream"]),
    ("object get O f -O FILE.copy -f --no-progress", &["Wrote:"]),
    ("object del O -f", &[]),
];

/// A backup of a stream at one server, restored at another, with its consumer.
pub(super) fn carry(from: &str, to: &str) -> Result<(), Trouble> {
    const AT_FIRST: &[Step<'static>] = &[
        ("stream add S --subjects s.> --defaults", &["Messages: 0"]),
        ("bench js pub sync s.b --stream S --msgs 500 --size 3000 --no-progress", &["msgs/sec"]),
        ("pub s.a last --jetstream -H A:b", &["Sequence: 501"]),
        ("stream rmm S 5 -f", &[]),
        ("consumer add S C --pull --defaults --ack explicit", &["Unprocessed Messages: 500"]),
        ("consumer next S C --count 3", &["cons seq: 3"]),
        ("stream backup S FILE.backup --consumers --no-progress", &["Received"]),
    ];
    const THEN: &[Step<'static>] = &[
        ("stream restore FILE.backup --no-progress", &["Restored stream \"S\""]),
        ("stream info S", &["Messages: 500", "Deleted Messages: 1", "Last Sequence: 501"]),
        ("stream get S 501", &["A: b", "last"]),
        ("consumer info S C", &["Unprocessed Messages: 497", "Outstanding Acks: 0"]),
        ("consumer next S C", &["cons seq: 4", "str seq: 4"]),
        ("pub s.a more --jetstream", &["Sequence: 502"]),
        ("stream backup S FILE.again --no-progress", &["Received"]),
    ];
    let mut cli = Cli::new(from)?;
    for (line, wanted) in AT_FIRST {
        cli.step(line, wanted)?;
    }
    to.clone_into(&mut cli.url);
    for (line, wanted) in THEN {
        cli.step(line, wanted)?;
    }
    Ok(())
}

/// Runs every step against the server at `url`.
pub(super) fn run(url: &str) -> Result<(), Trouble> {
    let cli = Cli::new(url)?;
    cli.subscribe()?;
    cli.request()?;
    cli.service()?;
    cli.watch()?;
    for (line, wanted) in STEPS.iter().chain(MORE_STEPS) {
        cli.step(line, wanted)?;
    }
    Ok(())
}

struct Cli {
    binary: PathBuf,
    url: String,
    home: tempfile::TempDir,
}

impl Cli {
    fn new(url: &str) -> Result<Self, Trouble> {
        let binary = peers::nats_cli().map_err(Trouble::LeftOut)?;
        let home = tempfile::tempdir().map_err(super::failed("no temporary directory"))?;
        std::fs::write(home.path().join("file"), vec![b'x'; 200_000])
            .map_err(super::failed("no temporary file"))?;
        Ok(Self { binary, url: url.to_owned(), home })
    }

    fn command(&self, line: &str, output: &Path) -> Result<Child, Trouble> {
        let file = self.home.path().join("file");
        let line = line.replace("URL", &self.url).replace("FILE", &file.display().to_string());
        let out = std::fs::File::create(output).map_err(super::failed("no temporary file"))?;
        let err = out.try_clone().map_err(super::failed("no temporary file"))?;
        Command::new(&self.binary)
            .args(["--server", &self.url, "--timeout", "5s"])
            .args(line.split(' '))
            .env("HOME", self.home.path())
            .env("XDG_CONFIG_HOME", self.home.path())
            .env_remove("NATS_CONTEXT")
            .env("COLUMNS", "200")
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(super::failed("the nats program does not start"))
    }

    /// Runs a command to its end. A piece that begins with `!` is of an error message.
    fn step(&self, line: &str, wanted: &[&str]) -> Result<(), Trouble> {
        let output = self.home.path().join("output");
        let mut child = self.command(line, &output)?;
        finish(line, &mut child, &output, wanted)
    }

    /// It does not say when it has subscribed, so there is talk until it has heard enough.
    fn subscribe(&self) -> Result<(), Trouble> {
        let output = self.home.path().join("subscriber");
        let line = "sub cli.> --count 1";
        let mut child = self.command(line, &output)?;
        let deadline = Instant::now() + STEP_DEADLINE;
        while Instant::now() < deadline && matches!(child.try_wait(), Ok(None)) {
            self.step("pub cli.talk hello -H A:b", &[])?;
        }
        finish(line, &mut child, &output, &["Received on \"cli.talk\"", "A: b", "hello"])
    }

    /// The same with questions and answers.
    fn request(&self) -> Result<(), Trouble> {
        let output = self.home.path().join("responder");
        let mut child = self.command("reply cli.echo --echo --queue workers", &output)?;
        // The output has the answer, not the question.
        let heard = self.until("request cli.echo knock", "knock");
        let _ = child.kill();
        let _ = child.wait();
        heard
    }

    /// A service, while it runs.
    fn service(&self) -> Result<(), Trouble> {
        let output = self.home.path().join("service");
        let mut child = self.command("service serve clock", &output)?;
        let heard = self.until("service list", "clock").and_then(|()| {
            self.step("service ping", &["clock"])?;
            self.step("service info clock", &["clock"])
        });
        let _ = child.kill();
        let _ = child.wait();
        heard
    }

    /// A watcher of a bucket and one of an object store hear of what is put.
    fn watch(&self) -> Result<(), Trouble> {
        for (make, watch, put, told, remove) in [
            ("kv add W", "kv watch W", "kv put W a 1", "PUT W > a", "kv del W -f"),
            (
                "object add W",
                "object watch W",
                "object put W FILE --name f -f --no-progress",
                "PUT W > f",
                "object del W -f",
            ),
        ] {
            self.step(make, &[])?;
            let output = self.home.path().join("watcher");
            let mut child = self.command(watch, &output)?;
            let deadline = Instant::now() + STEP_DEADLINE;
            let mut shown = String::new();
            while Instant::now() < deadline && !shown.contains(told) {
                self.step(put, &[])?;
                shown = std::fs::read_to_string(&output).unwrap_or_default();
            }
            let _ = child.kill();
            let _ = child.wait();
            if !shown.contains(told) {
                return Err(Trouble::Failed(format!("nats {watch}: no {told:?}\n{shown}")));
            }
            self.step(remove, &[])?;
        }
        Ok(())
    }

    /// Runs a command again and again until its output has this.
    fn until(&self, line: &str, wanted: &str) -> Result<(), Trouble> {
        let output = self.home.path().join("asked");
        let deadline = Instant::now() + STEP_DEADLINE;
        let mut shown = String::new();
        while Instant::now() < deadline {
            let mut asking = self.command(line, &output)?;
            super::wait(&mut asking, STEP_DEADLINE);
            shown = std::fs::read_to_string(&output).unwrap_or_default();
            if shown.contains(wanted) {
                return Ok(());
            }
        }
        Err(Trouble::Failed(format!("nats {line}: no {wanted:?}\n{shown}")))
    }
}

/// Waits for the end of a command and looks at its output.
fn finish(line: &str, child: &mut Child, output: &Path, wanted: &[&str]) -> Result<(), Trouble> {
    let status = super::wait(child, STEP_DEADLINE);
    let shown = String::from_utf8_lossy(&std::fs::read(output).unwrap_or_default()).into_owned();
    let fails = wanted.iter().any(|piece| piece.starts_with('!'));
    let missing =
        wanted.iter().map(|piece| piece.trim_start_matches('!')).find(|p| !shown.contains(*p));
    if (status == "exit status: 0") != fails && missing.is_none() {
        return Ok(());
    }
    let missing = missing.map(|piece| format!("no {piece:?} in it; ")).unwrap_or_default();
    Err(Trouble::Failed(format!("nats {line}: {missing}{status}\n{shown}")))
}
