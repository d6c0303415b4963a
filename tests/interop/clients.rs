//! Official clients doing their everyday work.
//!
//! Each program publishes, subscribes, requests, shares a queue group, fills a stream, fetches
//! and acks through a pull consumer, and uses a KV bucket. It runs against nats-server too:
//! what fails there is a mistake of the program.

mod async_nats;
mod cli;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::peers;
use crate::server::{self, Server};
use crate::{Test, Trouble};

/// A whole program: connecting, a few hundred messages, a few waits.
const PROGRAM_DEADLINE: Duration = Duration::from_mins(1);

const CONFIG: &str = "jetstream {\n  store_dir: \"$DIR/store\"\n  max_memory_store: 64MB\n  \
                      max_file_store: 256MB\n}\n";

type Program = fn(url: &str) -> Result<(), Trouble>;

pub(crate) fn tests() -> Vec<Test> {
    let programs: [(&str, Program); 5] = [
        ("async_nats", async_nats::run),
        ("nats_py", nats_py),
        ("node", node),
        ("go", go),
        ("nats_cli", cli::run),
    ];
    let mut tests = Vec::new();
    for (name, program) in programs {
        tests.push(Test {
            name: format!("clients::{name}::nats_server"),
            run: Box::new(move || {
                against(&peers::nats_server().map_err(Trouble::LeftOut)?, program)
            }),
        });
        tests.push(Test {
            name: format!("clients::{name}::sedge"),
            run: Box::new(move || against(&server::sedge_binary(), program)),
        });
    }
    tests
}

fn against(binary: &Path, program: Program) -> Result<(), Trouble> {
    let server = Server::start(binary, CONFIG).map_err(Trouble::Failed)?;
    program(&format!("nats://{}", server.address())).map_err(|trouble| match trouble {
        Trouble::Failed(why) => Trouble::Failed(format!("{why}\nthe server:\n{}", server.log())),
        other => other,
    })
}

fn nats_py(url: &str) -> Result<(), Trouble> {
    let python = peers::python().map_err(Trouble::LeftOut)?;
    execute(Command::new(python).arg(script("python/client.py")).arg(url))
}

fn node(url: &str) -> Result<(), Trouble> {
    let modules = peers::node().map_err(Trouble::LeftOut)?;
    execute(Command::new("node").arg(script("node/client.cjs")).arg(url).arg(modules))
}

fn go(url: &str) -> Result<(), Trouble> {
    let program = peers::go_client().map_err(Trouble::LeftOut)?;
    execute(Command::new(program).arg(url))
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/clients").join(name)
}

/// Runs a program to its end; what it prints says how far it came.
fn execute(command: &mut Command) -> Result<(), Trouble> {
    let output = tempfile::NamedTempFile::new().map_err(failed("no temporary file"))?;
    let (out, err) = (output.reopen(), output.reopen());
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out.map_err(failed("no temporary file"))?)
        .stderr(err.map_err(failed("no temporary file"))?)
        .spawn()
        .map_err(failed("the client does not start"))?;
    let status = wait(&mut child, PROGRAM_DEADLINE);
    if status == "exit status: 0" {
        return Ok(());
    }
    let shown = std::fs::read_to_string(output.path()).unwrap_or_default();
    Err(Trouble::Failed(format!("the client: {status}\n{shown}")))
}

/// Waits for the end of a process, which the deadline brings about if nothing else does.
fn wait(child: &mut Child, time: Duration) -> String {
    let deadline = Instant::now() + time;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.to_string(),
            Ok(None) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return format!("not done after {time:?}");
            }
        }
    }
}

fn failed<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> Trouble {
    move |e| Trouble::Failed(format!("{what}: {e}"))
}
