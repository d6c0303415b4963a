//! Request and reply: one requester, one responder, one request at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{Arm, Bench, Budget, Meter, P50, P99, Row, Sample, Scenario, add_latencies, nanos};
use crate::clock;
use crate::error::{Error, Result};
use crate::raw::{Conn, Kind, publication};
use crate::report::Unit;
use crate::server::Server;

const SUBJECT: &str = "bench.ask";
const PAYLOAD_LEN: usize = 16;

/// The scenarios of this module.
pub(super) fn scenarios() -> Vec<Scenario> {
    let rows = [
        Row::new(P50, Unit::Micros, Budget::RatioMax(0.8)).label("p50"),
        Row::new(P99, Unit::Micros, Budget::RatioMax(0.8)).label("p99").bare(),
    ];
    let mut scenario = Scenario::new("request-reply, 16 B", run, &rows);
    scenario.cpu_ratio_max = Some(0.5);
    vec![scenario]
}

fn run(bench: &Bench, arm: Arm) -> Result<Sample> {
    bench.with_server(arm, |server, _| {
        let mut responder = Conn::connect(server.addr)?;
        responder.subscribe(SUBJECT, None, 1)?;
        responder.flush()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || respond(responder, &stopped));
        let outcome = ask(bench, server, &stop);
        stop.store(true, Ordering::Relaxed);
        let (sample, asked) = outcome?;
        let answered = thread.join().map_err(|_| Error::new("the responder panicked"))??;
        if asked != answered {
            return Err(Error::new(format!("{answered} answers to {asked} requests")));
        }
        Ok(sample)
    })
}

/// Answers until `stop`, which is looked at after each answer; gives their number.
fn respond(mut conn: Conn, stop: &AtomicBool) -> Result<u64> {
    let mut answer = Vec::new();
    let mut answered = 0;
    while !stop.load(Ordering::Relaxed) {
        let request = conn.next_frame()?;
        let reply = conn.reply(&request);
        answer.clear();
        answer.extend_from_slice(b"PUB ");
        answer.extend_from_slice(reply);
        answer.extend_from_slice(b" 16\r\n");
        answer.extend_from_slice(conn.payload(&request));
        answer.extend_from_slice(b"\r\n");
        answered += 1;
        conn.send(&answer)?;
    }
    Ok(answered)
}

/// Asks one question at a time; sets `stop` before the last one.
fn ask(bench: &Bench, server: &Server, stop: &AtomicBool) -> Result<(Sample, u64)> {
    let mut conn = Conn::connect(server.addr)?;
    conn.subscribe("_INBOX.asker", None, 1)?;
    conn.flush()?;
    let request = publication(SUBJECT, Some("_INBOX.asker"), PAYLOAD_LEN);
    let mut once = || {
        let sent = clock::now();
        conn.send(&request)?;
        let answer = conn.next_frame()?;
        if answer.kind != Kind::Msg || conn.payload(&answer).len() != PAYLOAD_LEN {
            return Err(Error::new("the answer is not the responder's"));
        }
        Ok(nanos(sent.elapsed()))
    };
    let mut asked = 0;
    let until = clock::after(bench.warm_up);
    while clock::now() < until {
        once()?;
        asked += 1;
    }
    let meter = Meter::start(server)?;
    let started = clock::now();
    let until = started + bench.measure;
    let mut latencies = Vec::new();
    while clock::now() < until {
        latencies.push(once()?);
    }
    let elapsed = started.elapsed();
    let mut sample = meter.finish(latencies.len() as u64, elapsed)?;
    asked += latencies.len() as u64;
    add_latencies(&mut sample, latencies);
    stop.store(true, Ordering::Relaxed);
    once()?;
    Ok((sample, asked + 1))
}
