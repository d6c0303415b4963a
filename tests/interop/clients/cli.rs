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

/// Runs every step against the server at `url`.
pub(super) fn run(url: &str) -> Result<(), Trouble> {
    let binary = peers::nats_cli().map_err(Trouble::LeftOut)?;
    let home = tempfile::tempdir().map_err(super::failed("no temporary directory"))?;
    std::fs::write(home.path().join("file"), vec![b'x'; 200_000])
        .map_err(super::failed("no temporary file"))?;
    let cli = Cli { binary, url: url.to_owned(), home };
    cli.subscribe()?;
    cli.request()?;
    for (line, wanted) in STEPS {
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
        let mut child = self.command("reply cli.echo --echo", &output)?;
        let answer = self.home.path().join("answer");
        let deadline = Instant::now() + STEP_DEADLINE;
        let mut shown = String::new();
        // The output has the answer, not the question.
        while Instant::now() < deadline && !shown.contains("knock") {
            let mut asking = self.command("request cli.echo knock", &answer)?;
            super::wait(&mut asking, STEP_DEADLINE);
            shown = std::fs::read_to_string(&answer).unwrap_or_default();
        }
        let _ = child.kill();
        let _ = child.wait();
        if shown.contains("knock") {
            return Ok(());
        }
        Err(Trouble::Failed(format!("nats request: no answer\n{shown}")))
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
