//! Sedge and nats-server side by side: the budgets, measured on this machine in one run.
//!
//! ```text
//! cargo build --release && cargo run --release --example bench -- --quick
//! ```
//!
//! The two servers run by turns, each with a fresh store, and the median of the rounds counts.
//! Every scenario is one aligned line or a few; all samples are in `bench.json` in the target
//! folder. A budget that is missed is printed as such; the exit status tells only whether
//! everything could be measured.
//!
//! - `scenarios/`: what is run and compared, with the budgets.
//! - `server`: starts and stops a server, reads what its process uses.
//! - `raw`: the load, made to cost much less than the servers.
//! - `report`, `machine`: what is printed and kept.
#![expect(clippy::cast_precision_loss, reason = "figures need three digits, not sixteen")]

mod args;
mod clock;
mod error;
mod machine;
mod raw;
mod report;
mod scenarios;
mod server;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;
use std::{env, fs, thread};

use args::Args;
use error::{Error, Result};
use report::{Report, Samples};
use scenarios::{Arm, Bench, Sample, Scenario};
use server::{Binary, Children};

/// Open files for ten thousand clients and then some, here and in the server.
const OPEN_FILES: u64 = 16_384;

fn main() -> ExitCode {
    let args = match Args::parse() {
        Ok(args) => args,
        Err(error) => {
            eprintln!("bench: {error}\n\n{}", args::HELP);
            return ExitCode::from(2);
        }
    };
    if args.help {
        print!("{}", args::HELP);
        return ExitCode::SUCCESS;
    }
    if args.list {
        for scenario in scenarios::all(args.quick) {
            println!("{}{}", scenario.name, if scenario.full_only { " (--full)" } else { "" });
        }
        return ExitCode::SUCCESS;
    }
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs everything asked for; says whether all of it could be measured.
fn run(args: &Args) -> Result<bool> {
    let target = target_dir()?;
    let base = args.dir.clone().unwrap_or_else(|| target.join("bench"));
    fs::create_dir_all(&base)
        .map_err(|error| Error::from(error).during(&base.display().to_string()))?;
    raise_open_files();
    let (warm_up_ms, measure_ms) = if args.quick { (200, 700) } else { (500, 2500) };
    let bench = Bench {
        nats: find(args.nats.as_deref(), || nats_server(&target), "--nats")?,
        sedge: find(args.sedge.as_deref(), || sedge(&target), "--sedge")?,
        quick: args.quick,
        jetstream_off: args.no_jetstream,
        warm_up: Duration::from_millis(warm_up_ms),
        measure: Duration::from_millis(measure_ms),
        base,
        children: Children::default(),
    };
    let rounds = args.rounds.unwrap_or(if args.quick { 1 } else { 3 });
    let facts = print_facts(&bench, rounds);

    let mut report = Report::default();
    Report::heading();
    for scenario in scenarios::all(args.quick) {
        if args.wants(&scenario) {
            measure(&bench, args, &scenario, rounds, &mut report);
        }
    }
    let complete = report.close();
    let path = target.join("bench.json");
    fs::write(&path, serde_json::to_string_pretty(&report.json(&facts))?)?;
    println!("everything in {}", path.display());
    Ok(complete)
}

/// Runs all arms of a scenario by turns. An arm that fails once is not tried again.
fn measure(bench: &Bench, args: &Args, scenario: &Scenario, rounds: u32, report: &mut Report) {
    let mut samples = Samples::new();
    let mut failed = Vec::new();
    for _ in 0..rounds {
        for arm in &scenario.arms {
            if args.only.is_some_and(|only| only != arm.kind) || failed.contains(&arm.name) {
                continue;
            }
            match run_bounded(bench, scenario, *arm) {
                Ok(sample) => samples.entry(arm.name).or_default().push(sample),
                Err(error) => {
                    report.fail(&format!("{}, {}: {error}", scenario.name, arm.name));
                    failed.push(arm.name);
                }
            }
        }
    }
    report.scenario(scenario, &samples);
}

/// Runs one arm once, under a watchdog: when the time is up it kills the servers, and whatever
/// waits for them gets an error.
fn run_bounded(bench: &Bench, scenario: &Scenario, arm: Arm) -> Result<Sample> {
    let children = bench.children.clone();
    let expired = Arc::new(AtomicBool::new(false));
    let (done, watch) = mpsc::channel::<()>();
    let timeout = scenario.timeout;
    let watchdog = thread::spawn({
        let expired = Arc::clone(&expired);
        move || {
            // Kills again and again, as the run may be about to start another server.
            let mut wait = timeout;
            while watch.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                expired.store(true, Ordering::Relaxed);
                children.kill_all();
                wait = Duration::from_millis(100);
            }
        }
    });
    let outcome = (scenario.run)(bench, arm);
    drop(done);
    let _ = watchdog.join();
    match outcome {
        Err(error) if expired.load(Ordering::Relaxed) => {
            Err(error.during(&format!("not done within {} s", timeout.as_secs())))
        }
        outcome => outcome,
    }
}

fn print_facts(bench: &Bench, rounds: u32) -> serde_json::Value {
    let mut facts = machine::facts(&bench.base);
    for (name, binary) in [("nats-server", &bench.nats), ("sedge", &bench.sedge)] {
        let text = match binary {
            Some(binary) => format!("{} ({})", binary.version, binary.path.display()),
            None => "not found".to_owned(),
        };
        facts.push((name, text));
    }
    facts.push(("rounds", format!("{rounds} of {} ms", bench.measure.as_millis())));
    for (name, value) in &facts {
        println!("{name:<12} {value}");
    }
    println!();
    machine::facts_json(&facts)
}

/// The executable at `given`, which must run, or one found by `search`.
fn find(
    given: Option<&Path>,
    search: impl FnOnce() -> Option<PathBuf>,
    option: &str,
) -> Result<Option<Binary>> {
    if let Some(path) = given {
        return Binary::probe(&path.canonicalize().unwrap_or_else(|_| path.to_owned())).map(Some);
    }
    if let Some(path) = search() {
        Binary::probe(&path).map(Some)
    } else {
        println!("one of the servers was not found; give its place with {option}\n");
        Ok(None)
    }
}

/// The folder that holds `release/examples/bench`.
fn target_dir() -> Result<PathBuf> {
    let exe = env::current_exe()?;
    let target = exe.ancestors().nth(3);
    target.map(Path::to_owned).ok_or_else(|| Error::new("not run from a cargo target folder"))
}

fn sedge(target: &Path) -> Option<PathBuf> {
    Some(target.join("release/sedge")).filter(|path| path.is_file())
}

/// Where the tests put it, else where the shell finds it.
fn nats_server(target: &Path) -> Option<PathBuf> {
    let mut dirs = vec![target.join("peers")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => dirs.push(entry.path()),
                Ok(_) if entry.file_name() == "nats-server" && is_elf(&entry.path()) => {
                    return Some(entry.path());
                }
                _ => {}
            }
        }
    }
    env::split_paths(&env::var_os("PATH")?)
        .map(|dir| dir.join("nats-server"))
        .find(|path| path.is_file())
}

/// Python packages come with start scripts of the same name, whose process is not the server.
fn is_elf(path: &Path) -> bool {
    use std::io::Read as _;
    let mut magic = [0; 4];
    fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok()
        && magic == *b"\x7fELF"
}

/// Raises the soft limit of open files, where it is lower than many clients need.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < OPEN_FILES) {
        limit.current = Some(limit.maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES)));
        // Where it is refused, the scenario that needs it fails and says so.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}
