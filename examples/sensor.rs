//! A sensor: measures this machine and publishes the readings to a NATS server with acks.
//!
//! ```text
//! cargo run --release --example sensor -- --server nats://gateway:4222 --interval 2s
//! ```
//!
//! Every interval it reads load, memory, disk, network counters and temperatures, and
//! publishes each as compact JSON on `sensors.<host>.<what>`. A reading counts as delivered
//! when the stream has acked it. While the server is away readings wait in a bounded outbox
//! and are resent in order; their `Nats-Msg-Id` lets the stream drop what it already has, for
//! as long as its duplicate window reaches back (two minutes unless configured).

#[path = "sensor/clock.rs"]
mod clock;
#[path = "sensor/machine.rs"]
mod machine;
#[path = "sensor/outbox.rs"]
mod outbox;

use std::error::Error;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use async_nats::{ConnectOptions, Event};
use futures_util::future::{Fuse, FusedFuture, FutureExt};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use outbox::{Attempt, Outbox, Reading};

const HELP: &str = "\
Publishes this machine's own readings to a NATS server, each with an ack.

Usage: sensor [options]

  --server URL       server to publish to (default nats://127.0.0.1:4222)
  --interval TIME    pause between readings: 500ms, 5s, 2m (default 5s)
  --count N          stop after N rounds of readings (default: go on for ever)
  --host NAME        subject token instead of this machine's name
  --stream NAME      stream to create on sensors.> when there is none (default READINGS)
  --backlog N        readings kept while the server is away (default 10000)
  --creds FILE       sign in with a creds file (user JWT and nkey seed)
  --user NAME --password TEXT
                     sign in with user and password
  -h, --help         print this
";

/// Pause before a reading that the server refused is sent again.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// Longest pause between two attempts to reach the server.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(2);

/// How long a `--count` run waits for the last acks.
const LAST_ACKS_WAIT: Duration = Duration::from_secs(30);

struct Options {
    server: String,
    interval: Duration,
    rounds_max: Option<u64>,
    host: String,
    stream: String,
    backlog_max: usize,
    creds: Option<PathBuf>,
    user: Option<String>,
    password: Option<String>,
}

fn main() -> ExitCode {
    let options = match parse_options() {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("sensor: {error}; --help lists the options");
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("sensor: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sensor: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), Box<dyn Error + Send + Sync>> {
    let server = options.server.clone();
    let client = connect_options(&options).await?.connect(&options.server).await?;
    println!("publishing on sensors.{}.* to {server} every {:?}", options.host, options.interval);
    let jetstream = jetstream::new(client);

    // Ids must never repeat, not even after this program was restarted.
    let run_id = clock::wall().as_millis();
    let started = clock::now();
    let mut outbox = Outbox::new(options.backlog_max);
    let mut tick = interval(options.interval);
    // After a suspend one round is enough; the readings that were missed cannot be had again.
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut in_flight: Pin<Box<Fuse<_>>> = Box::pin(Fuse::terminated());
    let (mut rounds, mut number, mut stored, mut dropped) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut stream_known = false;
    let mut deadline = Box::pin(Fuse::terminated());

    loop {
        if in_flight.is_terminated() {
            if let Some(oldest) = outbox.oldest() {
                in_flight.set(
                    publish(
                        jetstream.clone(),
                        oldest.clone(),
                        (!stream_known).then(|| options.stream.clone()),
                    )
                    .fuse(),
                );
            } else if options.rounds_max.is_some_and(|max| rounds >= max) {
                println!("{rounds} rounds, {stored} readings stored in {:.1?}", started.elapsed());
                return Ok(());
            }
        }
        let measuring = options.rounds_max.is_none_or(|max| rounds < max);
        tokio::select! {
            _ = tick.tick(), if measuring => {
                let dropped_before = dropped;
                for measurement in machine::measure() {
                    number += 1;
                    let reading = Reading {
                        id: format!("{}-{run_id}-{number}", options.host),
                        subject: format!("sensors.{}.{}", options.host, measurement.what),
                        payload: measurement.json,
                    };
                    dropped += u64::from(outbox.push(reading).is_some());
                }
                rounds += 1;
                if options.rounds_max == Some(rounds) {
                    deadline.set(sleep(LAST_ACKS_WAIT).fuse());
                }
                if dropped > dropped_before {
                    eprintln!(
                        "the backlog of {} readings is full; {dropped} dropped so far, oldest first",
                        options.backlog_max,
                    );
                }
            }
            (id, attempt) = &mut in_flight => match attempt {
                Attempt::Stored { duplicate } => {
                    stream_known = true;
                    stored += u64::from(outbox.acked(&id));
                    if duplicate {
                        println!("{id} was already stored; only its ack had been lost");
                    } else if outbox.oldest().is_none() {
                        println!("{stored} readings stored");
                    }
                }
                Attempt::Unknown => println!("no ack for {id}; sending it again"),
                Attempt::Refused(reason) => {
                    stream_known = false;
                    let waiting = number - stored - dropped;
                    eprintln!("{id} was not stored: {reason}; {waiting} readings wait");
                }
            },
            () = &mut deadline => {
                let waiting = number - stored - dropped;
                return Err(format!("no ack for {waiting} readings; giving up").into());
            }
        }
    }
}

/// Stores one reading, after making sure of the stream where `stream` names one.
async fn publish(
    jetstream: jetstream::Context,
    reading: Reading,
    stream: Option<String>,
) -> (String, Attempt) {
    let id = reading.id.clone();
    let attempt = async {
        if let Some(name) = stream
            && let Err(reason) = ensure_stream(&jetstream, name).await
        {
            return Attempt::Refused(reason);
        }
        outbox::attempt(jetstream, reading).await
    }
    .await;
    if matches!(attempt, Attempt::Refused(_)) {
        sleep(REFUSED_PAUSE).await;
    }
    (id, attempt)
}

/// Creates the stream for the readings unless there is one of that name; that one is left alone.
async fn ensure_stream(jetstream: &jetstream::Context, name: String) -> Result<(), String> {
    let config = stream::Config {
        name,
        subjects: vec!["sensors.>".to_owned()],
        max_bytes: 256 * 1024 * 1024,
        max_age: Duration::from_hours(30 * 24),
        ..stream::Config::default()
    };
    match timeout(Duration::from_secs(5), jetstream.get_or_create_stream(config)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(format!("cannot make the stream: {error}")),
        Err(_elapsed) => Err("cannot make the stream: no answer".to_owned()),
    }
}

async fn connect_options(options: &Options) -> Result<ConnectOptions, String> {
    let mut connect = ConnectOptions::new()
        .name(format!("sensor {}", options.host))
        // Come back however long the server is away, and start before it does.
        .retry_on_initial_connect()
        .max_reconnects(None)
        .reconnect_delay_callback(|attempts| {
            let doublings = u32::try_from(attempts.min(6)).unwrap_or(6);
            (Duration::from_millis(50) * 2_u32.pow(doublings)).min(RECONNECT_PAUSE_MAX)
        })
        .event_callback(|event| async move {
            match event {
                Event::Connected => println!("connected"),
                Event::Disconnected => eprintln!("connection lost; readings wait"),
                event => eprintln!("{event}"),
            }
        });
    if let Some(path) = &options.creds {
        connect = connect
            .credentials_file(path)
            .await
            .map_err(|error| format!("cannot use creds file {}: {error}", path.display()))?;
    }
    if let (Some(user), Some(password)) = (&options.user, &options.password) {
        connect = connect.user_and_password(user.clone(), password.clone());
    }
    Ok(connect)
}

/// The options of the command line; `None` when help was asked for.
fn parse_options() -> Result<Option<Options>, lexopt::Error> {
    use lexopt::prelude::*;

    let mut options = Options {
        server: "nats://127.0.0.1:4222".to_owned(),
        interval: Duration::from_secs(5),
        rounds_max: None,
        host: machine::host(),
        stream: "READINGS".to_owned(),
        backlog_max: 10_000,
        creds: None,
        user: None,
        password: None,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Short('s') | Long("server") => options.server = parser.value()?.string()?,
            Long("interval") => options.interval = parser.value()?.parse_with(parse_interval)?,
            Long("count") => options.rounds_max = Some(parser.value()?.parse()?),
            Long("host") => options.host = parser.value()?.parse_with(parse_token)?,
            Long("stream") => options.stream = parser.value()?.parse_with(parse_token)?,
            Long("backlog") => options.backlog_max = parser.value()?.parse::<usize>()?.max(1),
            Long("creds") => options.creds = Some(parser.value()?.into()),
            Long("user") => options.user = Some(parser.value()?.string()?),
            Long("password") => options.password = Some(parser.value()?.string()?),
            _ => return Err(argument.unexpected()),
        }
    }
    if options.user.is_some() != options.password.is_some() {
        return Err("--user and --password go together".into());
    }
    Ok(Some(options))
}

/// `500ms`, `5s`, `2m`; a bare number is seconds.
fn parse_interval(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| format!("{text} is not a time such as 5s"))?;
    let interval = match unit {
        "ms" => Duration::from_millis(number),
        "s" | "" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        _ => return Err(format!("{unit} is not a unit; use ms, s or m")),
    };
    if interval.is_zero() || interval > Duration::from_hours(24) {
        return Err("the interval must be more than nothing and at most a day".to_owned());
    }
    Ok(interval)
}

/// A name that can be one token of a subject.
fn parse_token(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_graphic() && !matches!(c, '.' | '*' | '>' | '/' | '\\');
    if !text.is_empty() && text.chars().all(fits) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} cannot be a subject token; use letters, digits and dashes"))
    }
}
