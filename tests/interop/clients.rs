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

use crate::certificates;
use crate::peers;
use crate::server::{self, Server};
use crate::{Test, Trouble};

/// A whole program: connecting, a few hundred messages, a few waits.
const PROGRAM_DEADLINE: Duration = Duration::from_mins(2);

const CONFIG: &str = "jetstream {\n  store_dir: \"$DIR/store\"\n  max_memory_store: 64MB\n  \
                      max_file_store: 256MB\n}\n";

/// How a client gets to a server.
struct Way {
    url: String,
    /// The authority to trust.
    ca: Option<PathBuf>,
}

type Program = fn(way: &Way) -> Result<(), Trouble>;

pub(crate) fn tests() -> Vec<Test> {
    let programs: [(&str, Program); 5] = [
        ("async_nats", |way| async_nats::run(&way.url)),
        ("nats_py", nats_py),
        ("node", node),
        ("go", go),
        ("nats_cli", |way| cli::run(&way.url)),
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
    for (from, to) in [("nats_server", "sedge"), ("sedge", "nats_server")] {
        tests.push(Test {
            name: format!("clients::nats_cli::backup_{from}_to_{to}"),
            run: Box::new(move || carry(from, to)),
        });
    }
    let secured: [(&str, Program); 3] = [("nats_py", nats_py), ("node", node), ("go", go)];
    for (name, program) in secured {
        tests.push(Test {
            name: format!("clients::{name}::sedge_tls"),
            run: Box::new(move || over_tls(program)),
        });
    }
    tests.push(Test {
        name: "clients::node::sedge_web_socket".to_owned(),
        run: Box::new(|| over_web_socket(node)),
    });
    tests
}

/// A backup by the command line.
fn carry(from: &str, to: &str) -> Result<(), Trouble> {
    let start = |name: &str| {
        let binary = match name {
            "sedge" => server::sedge_binary(),
            _ => peers::nats_server().map_err(Trouble::LeftOut)?,
        };
        Server::start(&binary, CONFIG).map_err(Trouble::Failed)
    };
    let (from, to) = (start(from)?, start(to)?);
    let url = |server: &Server| format!("nats://{}", server.address());
    told(&from, told(&to, cli::carry(&url(&from), &url(&to))))
}

/// All of it under TLS.
fn over_tls(program: Program) -> Result<(), Trouble> {
    let Some(directory) = certificates::certificates() else {
        return Err(Trouble::LeftOut("openssl is not there".to_owned()));
    };
    let config = format!("{CONFIG}\n{}", certificates::tls_block(directory.path(), ""));
    let server = Server::start(&server::sedge_binary(), &config).map_err(Trouble::Failed)?;
    let ca = Some(directory.path().join("ca.pem"));
    told(&server, program(&Way { url: format!("tls://{}", server.address()), ca }))
}

/// All of it in WebSocket frames, compressed.
fn over_web_socket(program: Program) -> Result<(), Trouble> {
    let config = format!(
        "{CONFIG}\nwebsocket {{ listen: \"127.0.0.1:-1\", no_tls: true, compression: true }}"
    );
    let server = Server::start(&server::sedge_binary(), &config).map_err(Trouble::Failed)?;
    let log = server.log();
    let url = log
        .lines()
        .find_map(|line| line.split_once("Listening for websocket clients on "))
        .map(|(_, url)| url.trim().to_owned())
        .ok_or_else(|| Trouble::Failed(format!("no WebSocket listener:\n{log}")))?;
    told(&server, program(&Way { url, ca: None }))
}

/// Adds what the server said to a failure.
fn told(server: &Server, result: Result<(), Trouble>) -> Result<(), Trouble> {
    result.map_err(|trouble| match trouble {
        Trouble::Failed(why) => Trouble::Failed(format!("{why}\nthe server:\n{}", server.log())),
        other => other,
    })
}

fn against(binary: &Path, program: Program) -> Result<(), Trouble> {
    let server = Server::start(binary, CONFIG).map_err(Trouble::Failed)?;
    told(&server, program(&Way { url: format!("nats://{}", server.address()), ca: None }))
}

fn nats_py(way: &Way) -> Result<(), Trouble> {
    let python = peers::python().map_err(Trouble::LeftOut)?;
    execute(way, Command::new(python).arg(script("python/client.py")).arg(&way.url))
}

fn node(way: &Way) -> Result<(), Trouble> {
    let modules = peers::node().map_err(Trouble::LeftOut)?;
    let mut command = Command::new("node");
    if way.url.starts_with("ws") {
        // On by default since Node 22.
        command.arg("--experimental-websocket");
    }
    execute(way, command.arg(script("node/client.cjs")).arg(&way.url).arg(modules))
}

fn go(way: &Way) -> Result<(), Trouble> {
    let program = peers::go_client().map_err(Trouble::LeftOut)?;
    execute(way, Command::new(program).arg(&way.url))
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/clients").join(name)
}

/// Runs a program to its end; what it prints says how far it came.
fn execute(way: &Way, command: &mut Command) -> Result<(), Trouble> {
    if let Some(ca) = &way.ca {
        // One for OpenSSL and Go, one for Node.
        command.env("SSL_CERT_FILE", ca).env("NODE_EXTRA_CA_CERTS", ca);
    }
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
