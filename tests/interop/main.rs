//! Interoperability: Sedge beside the real nats-server, and under real clients.
//!
//! - `scenarios::NAME`: a script from `tests/interop/scenarios` is played against nats-server
//!   and against Sedge; the normalised transcripts must agree. With `INTEROP_ORACLE_ONLY=1`
//!   nats-server is compared with itself, which shows whether a script is deterministic;
//!   with `INTEROP_PRINT=1` the transcript of nats-server is printed.
//! - `clients::NAME::SERVER`: an official client does its everyday work.
//! - `err_codes`: each error of the JetStream API is provoked by a scenario or excused.
//!
//! The harness is ours because the list of tests is the list of files. It takes the arguments
//! of an ordinary test binary and ends with the same line. What a test needs and the machine
//! lacks is named; with `SEDGE_REQUIRE_PEERS=1` that is a failure.

#![allow(
    clippy::disallowed_methods,
    reason = "only the library keeps its clock in one place; tests wait in real time"
)]

#[path = "../behaviour/raw_client.rs"]
#[allow(dead_code, reason = "shared with the behaviour tests; each uses its part")]
mod raw_client;
#[path = "../behaviour/server.rs"]
#[allow(dead_code, reason = "shared with the behaviour tests; each uses its part")]
mod server;

#[path = "../behaviour/certificates.rs"]
#[allow(dead_code, reason = "shared with the behaviour tests; each uses its part")]
mod certificates;
#[path = "../../examples/soak/frames.rs"]
#[allow(dead_code, reason = "shared with the soak; each uses its part")]
mod frames;

mod backup;
mod clients;
mod diff;
mod normal;
mod peers;
mod scenario;
mod schemas;
mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use scenario::Scenario;

/// How a test ended when it did not pass.
#[derive(Debug)]
enum Trouble {
    Failed(String),
    /// Something from outside is missing.
    LeftOut(String),
    /// Something of Sedge is missing, and the scenario says so.
    Later(String),
}

type Run = Box<dyn Fn() -> Result<(), Trouble> + Send + Sync>;

struct Test {
    name: String,
    run: Run,
}

/// The arguments of a test binary that make sense here; others are accepted and ignored.
#[derive(Debug, Default)]
struct Arguments {
    filters: Vec<String>,
    skips: Vec<String>,
    exact: bool,
    list: bool,
    threads: Option<usize>,
}

impl Arguments {
    fn parse() -> Self {
        let mut parsed = Self::default();
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--exact" => parsed.exact = true,
                "--list" => parsed.list = true,
                "--skip" => parsed.skips.extend(arguments.next()),
                "--test-threads" => {
                    parsed.threads = arguments.next().and_then(|n| n.parse().ok());
                }
                "--format" | "--color" | "--logfile" | "-Z" => {
                    arguments.next();
                }
                other => {
                    if let Some(number) = other.strip_prefix("--test-threads=") {
                        parsed.threads = number.parse().ok();
                    } else if !other.starts_with('-') {
                        parsed.filters.push(argument);
                    }
                }
            }
        }
        parsed
    }

    fn wants(&self, name: &str) -> bool {
        let fits = |text: &String| if self.exact { name == text } else { name.contains(text) };
        (self.filters.is_empty() || self.filters.iter().any(fits)) && !self.skips.iter().any(fits)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let all = tests();
    let total = all.len();
    let tests: Vec<Test> = all.into_iter().filter(|t| arguments.wants(&t.name)).collect();
    if arguments.list {
        for test in &tests {
            println!("{}: test", test.name);
        }
        return ExitCode::SUCCESS;
    }
    run(&tests, total - tests.len(), arguments.threads)
}

fn run(tests: &[Test], filtered: usize, threads: Option<usize>) -> ExitCode {
    let started = Instant::now();
    println!("\nrunning {} tests", tests.len());
    // Tests mostly wait for the servers they started.
    let threads = threads.unwrap_or(4).max(1);
    let next = AtomicUsize::new(0);
    let troubles = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(test) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(&test.run))
                        .unwrap_or_else(|_| Err(Trouble::Failed(String::from("it panicked"))));
                    let word = match &outcome {
                        Ok(()) => "ok",
                        Err(Trouble::Failed(_)) => "FAILED",
                        Err(Trouble::LeftOut(_) | Trouble::Later(_)) => "ignored",
                    };
                    println!("test {} ... {word}", test.name);
                    if let Err(trouble) = outcome {
                        troubles.lock().expect("no holder panics").insert(&test.name, trouble);
                    }
                }
            });
        }
    });
    let troubles = troubles.into_inner().expect("no holder panicked");
    report(tests.len(), filtered, &troubles, started)
}

fn report(
    total: usize,
    filtered: usize,
    troubles: &BTreeMap<&String, Trouble>,
    started: Instant,
) -> ExitCode {
    let strict = std::env::var_os("SEDGE_REQUIRE_PEERS").is_some_and(|v| v == "1");
    let mut failed = Vec::new();
    let mut left_out: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut later = 0;
    for (name, trouble) in troubles {
        match trouble {
            Trouble::Failed(why) => {
                println!("\n---- {name} ----\n{why}");
                failed.push(name.as_str());
            }
            Trouble::Later(what) => {
                println!("\nNOT YET: {what} ({name})");
                later += 1;
            }
            Trouble::LeftOut(why) => {
                left_out.entry(why).or_default().push(name);
                if strict {
                    failed.push(name);
                }
            }
        }
    }
    for (why, names) in &left_out {
        println!("\nLEFT OUT: {why}\n    {} tests: {}", names.len(), names.join(", "));
    }
    if !failed.is_empty() {
        println!("\nfailures:\n    {}", failed.join("\n    "));
    }
    let missing = if strict { 0 } else { left_out.values().map(Vec::len).sum() };
    let ignored: usize = later + missing;
    println!(
        "\ntest result: {}. {} passed; {} failed; {ignored} ignored; 0 measured; {filtered} \
         filtered out; finished in {:.2}s\n",
        if failed.is_empty() { "ok" } else { "FAILED" },
        total - failed.len() - ignored,
        failed.len(),
        started.elapsed().as_secs_f64(),
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

fn tests() -> Vec<Test> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/scenarios");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("the scenarios are beside this file")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .collect();
    files.sort();
    let mut tests: Vec<Test> = files
        .into_iter()
        .map(|path| Test {
            name: format!("scenarios::{}", path.file_stem().unwrap_or_default().to_string_lossy()),
            run: Box::new(move || compare(&path)),
        })
        .collect();
    tests.push(Test { name: "err_codes".to_owned(), run: Box::new(check_err_codes) });
    tests.extend(backup::tests());
    tests.extend(clients::tests());
    tests
}

/// Plays one scenario on both servers.
fn compare(path: &Path) -> Result<(), Trouble> {
    let set = |variable: &str| std::env::var_os(variable).is_some_and(|v| v == "1");
    let scenario = Scenario::read(path).map_err(Trouble::Failed)?;
    let oracle = peers::nats_server().map_err(Trouble::LeftOut)?;
    let oracle_only = set("INTEROP_ORACLE_ONLY");
    let subject = if oracle_only { oracle.clone() } else { server::sedge_binary() };
    let (theirs, ours) = std::thread::scope(|scope| {
        let theirs = scope.spawn(|| scenario.play(&oracle));
        let ours = scenario.play(&subject);
        (theirs.join().expect("playing does not panic"), ours)
    });
    let mut theirs = theirs.map_err(|e| Trouble::Failed(format!("nats-server: {e}")))?;
    if let Some(step) = theirs.broken {
        let shown = theirs.lines[theirs.lines.len().saturating_sub(20)..].join("\n");
        let why = format!("{shown}\nthe scenario does not work on nats-server itself: {step}");
        return Err(Trouble::Failed(why));
    }
    if set("INTEROP_PRINT") {
        println!("==== {}\n{}", scenario.name, theirs.lines.join("\n"));
    }
    let mut ours = match (ours, &scenario.later) {
        (Ok(ours), _) => ours,
        // A configuration it does not know yet, for one.
        (Err(_), Some(what)) => return Err(Trouble::Later(what.clone())),
        (Err(why), None) => return Err(Trouble::Failed(why)),
    };
    if oracle_only {
        if theirs.lines == ours.lines {
            return Ok(());
        }
    } else {
        let new: Vec<&str> =
            ours.mistakes.difference(&theirs.mistakes).map(String::as_str).collect();
        if !new.is_empty() {
            return Err(Trouble::Failed(format!("not as the schema says:\n{}", new.join("\n"))));
        }
        let excused = scenario.excuse(&mut theirs.lines, &mut ours.lines);
        let agree = excused.is_ok() && theirs.lines == ours.lines;
        match scenario.later {
            Some(what) if agree => {
                let why = format!("it works now: take out the line `later: {what}`");
                return Err(Trouble::Failed(why));
            }
            Some(what) => return Err(Trouble::Later(what)),
            None if agree => return check_provoked(&scenario.name, &theirs.lines),
            None => excused.map_err(Trouble::Failed)?,
        }
    }
    let diff = diff::unified(&theirs.lines, &ours.lines);
    let broken = ours.broken.map(|b| format!("\nstopped at: {b}")).unwrap_or_default();
    Err(Trouble::Failed(format!("--- nats-server\n+++ {}\n{diff}{broken}", subject.display())))
}

/// The `err_code`s there are, each with the scenario that provokes it or why there is none.
fn err_codes() -> Vec<(u64, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/err_codes.txt");
    let text = std::fs::read_to_string(path).expect("the list is beside this file");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (code, rest) = line.split_once(' ').expect("a code and the rest");
            (code.parse().expect("a code is a number"), rest.to_owned())
        })
        .collect()
}

/// Is every `err_code` of nats-server provoked by a scenario, or excused with a reason?
fn check_err_codes() -> Result<(), Trouble> {
    let all: Vec<serde_json::Value> =
        serde_json::from_str(include_str!("schemas/errors.json")).expect("the errors are JSON");
    let all: BTreeMap<u64, &str> = all
        .iter()
        .filter_map(|of| Some((of["error_code"].as_u64()?, of["description"].as_str()?)))
        .collect();
    let listed: BTreeMap<u64, String> = err_codes().into_iter().collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/scenarios");
    let mut wrong = Vec::new();
    for (code, text) in &all {
        match listed.get(code) {
            None => wrong.push(format!("{code} ({text}) is neither provoked nor excused")),
            Some(rest) if rest.strip_prefix("- ").is_some_and(|why| !why.is_empty()) => {}
            Some(rest) if folder.join(format!("{rest}.txt")).exists() => {}
            Some(rest) => wrong.push(format!("{code}: there is no scenario {rest}")),
        }
    }
    wrong.extend(listed.keys().filter(|code| !all.contains_key(code)).map(|c| format!("no {c}")));
    if wrong.is_empty() { Ok(()) } else { Err(Trouble::Failed(wrong.join("\n"))) }
}

/// Did both servers answer with what the list says that this scenario provokes?
fn check_provoked(scenario: &str, lines: &[String]) -> Result<(), Trouble> {
    for (code, _) in err_codes().iter().filter(|(_, provoked_by)| provoked_by == scenario) {
        let member = format!("\"err_code\": {code}");
        if !lines.iter().any(|line| line.ends_with(&member)) {
            return Err(Trouble::Failed(format!("err_code {code} does not come any more")));
        }
    }
    Ok(())
}
