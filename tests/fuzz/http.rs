//! HTTP requests of the monitoring port: any bytes, cut anywhere.

use sedge::id::Rng;
use sedge::monitor::http::{Exchange, REQUEST_BYTES_MAX, Request, Response};
use sedge::time::{Duration, Instant, Now, Timestamp};

use crate::engine::{Behaviour, fuzz};

const WORDS: &[&[u8]] = &[
    b"GET /varz HTTP/1.1\r\n",
    b"HEAD /connz?subs=1&limit=2 HTTP/1.1\r\n",
    b"POST / HTTP/1.0\r\n",
    b"Host: a\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive, x\r\n",
    b"Content-Length: 5\r\n\r\nhello",
    b"Transfer-Encoding: chunked\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\n\n",
    b" HTTP/1.1",
    b"http://h/x?y",
    b"?",
    b"&",
    b"%",
    b"%zz",
    b"%00",
    b"..",
    b"=",
];

/// The requests that come out, and what was answered.
fn play(input: &[u8], mut cuts: Option<Rng>) -> (Vec<Request>, Vec<u8>) {
    let now = Now { instant: Instant(1), wall: Timestamp(1) }.instant;
    let mut exchange = Exchange::new(now);
    let (mut requests, mut said) = (Vec::new(), Vec::new());
    let mut rest = input;
    while !rest.is_empty() && !exchange.is_done() {
        let piece = cuts.as_mut().map_or(rest.len(), |rng| 1 + rng.index(rest.len().min(64)));
        let (front, after) = rest.split_at(piece);
        rest = after;
        let mut request = exchange.receive(now, front);
        loop {
            let more = request.is_some();
            if let Some(request) = request.take() {
                requests.push(request);
                exchange.respond(now, Response::text(200, "fine"));
            }
            // Also what was refused is answered.
            let pending = exchange.pending();
            assert!(pending.is_empty() || pending.starts_with(b"HTTP/1.1 "));
            let count = pending.len();
            said.extend_from_slice(pending);
            exchange.transmitted(now, count);
            if !more {
                break;
            }
            request = exchange.next_request(now);
        }
        assert!(exchange.deadline() <= now + Duration::from_mins(1));
    }
    (requests, said)
}

#[test]
fn any_http_request() {
    fuzz("http", WORDS, |input| {
        let (requests, said) = play(input, None);
        let seed = input.iter().fold(7, |sum: u64, byte| sum.wrapping_mul(31) + u64::from(*byte));
        if input.len() < REQUEST_BYTES_MAX {
            let cut = play(input, Some(Rng::new(seed)));
            assert_eq!((&requests, &said), (&cut.0, &cut.1), "the answers depend on the cuts");
        }
        let mut behaviour = Behaviour::default();
        for line in said.split(|byte| *byte == b'\n') {
            behaviour.note(&line[..line.len().min(16)]);
        }
        for request in &requests {
            assert!(request.path.len() + request.query.len() <= REQUEST_BYTES_MAX);
            behaviour.note(&[u8::from(request.query.is_empty())]);
        }
        behaviour
    });
}
