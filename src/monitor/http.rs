//! HTTP/1.1 of the monitoring port, one connection at a time, without sockets.
//!
//! Owns the bytes of a request that is not whole and of an answer that is not written, and
//! when a connection has had its time. Does not own sockets (`crate::server` does) nor what
//! is answered.
//!
//! # Invariants
//! - At most [`REQUEST_BYTES_MAX`] of a request are kept, and one request is answered after
//!   the other: what a peer sends ahead stays in its socket.
//! - Whatever the peer sends or does not send, [`Exchange::deadline`] comes.

use crate::time::{Duration, Instant};

/// A request line with its headers, in bytes. Over it: 431, closed.
pub const REQUEST_BYTES_MAX: usize = 8 * 1024;
/// Headers of a request. Over it: 431, closed.
const HEADERS_MAX: usize = 64;
/// A body is skipped up to this size, in bytes; with a larger one the connection ends after
/// the answer.
const BODY_BYTES_MAX: u64 = 64 * 1024;
/// From the first byte of a request to its last.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// Between requests, and from accept to the first byte.
const IDLE_TIME: Duration = Duration::from_mins(1);
/// Without a byte of the answer taken.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Before the `?`.
    pub path: String,
    /// After it.
    pub query: String,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Like `200`.
    pub status: u16,
    /// What the body is.
    pub kind: Kind,
    /// The body.
    pub body: Vec<u8>,
}

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// JSON for programs, also those in a browser of another origin.
    Json,
    /// Text for people.
    Text,
    /// A page for people.
    Html,
    /// Prometheus.
    Metrics,
}

impl Response {
    /// Plain text.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Self { status, kind: Kind::Text, body: text.into().into_bytes() }
    }

    /// JSON.
    pub fn json(status: u16, body: Vec<u8>) -> Self {
        Self { status, kind: Kind::Json, body }
    }
}

/// One connection.
#[derive(Debug)]
pub struct Exchange {
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    /// Bytes of a body still to be skipped.
    skip: u64,
    /// The request under way wants no body.
    is_head: bool,
    is_http10: bool,
    /// What was sent ahead may hold another request.
    is_ahead: bool,
    ends: bool,
    deadline: Instant,
}

impl Exchange {
    /// A connection that was just accepted.
    pub fn new(now: Instant) -> Self {
        Self {
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
            skip: 0,
            is_head: false,
            is_http10: false,
            is_ahead: false,
            ends: false,
            deadline: now + IDLE_TIME,
        }
    }

    /// When it is to be closed, whatever it is doing.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Is there an answer that is not written?
    pub fn is_writing(&self) -> bool {
        self.written < self.output.len()
    }

    /// Bytes of answers that are not written.
    pub fn backlog(&self) -> usize {
        self.output.len() - self.written
    }

    /// Were bytes sent ahead that are not looked at yet?
    pub fn has_input(&self) -> bool {
        self.is_ahead
    }

    /// Everything was said.
    pub fn is_done(&self) -> bool {
        self.ends && !self.is_writing()
    }

    /// Bytes from the peer. Only to be called while nothing is being written; gives the
    /// request once it is whole, then [`Self::respond`] is due.
    pub fn receive(&mut self, now: Instant, mut bytes: &[u8]) -> Option<Request> {
        if self.ends {
            return None;
        }
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
        self.skip -= skipped as u64;
        bytes = bytes.get(skipped..).unwrap_or(&[]);
        if !bytes.is_empty() {
            if self.input.is_empty() {
                self.deadline = now + REQUEST_TIME;
            }
            self.input.extend_from_slice(bytes);
        }
        self.next_request(now)
    }

    /// The next request, if it has arrived already.
    pub fn next_request(&mut self, now: Instant) -> Option<Request> {
        self.is_ahead = false;
        if self.ends || self.is_writing() || self.input.is_empty() || self.skip > 0 {
            return None;
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut headers);
        let used = match parsed.parse(&self.input) {
            Ok(httparse::Status::Complete(used)) if used <= REQUEST_BYTES_MAX => used,
            Ok(httparse::Status::Partial) if self.input.len() < REQUEST_BYTES_MAX => return None,
            Ok(_) | Err(httparse::Error::TooManyHeaders) => {
                self.refuse(now, 431, "431 Request Header Fields Too Large");
                return None;
            }
            Err(_) => {
                self.refuse(now, 400, "400 Bad Request");
                return None;
            }
        };
        self.is_head = parsed.method == Some("HEAD");
        self.is_http10 = parsed.version == Some(0);
        let mut keep = !self.is_http10;
        let mut body = Some(0);
        for header in parsed.headers.iter() {
            let value = std::str::from_utf8(header.value).unwrap_or("").trim();
            if header.name.eq_ignore_ascii_case("connection") {
                for word in value.split(',') {
                    match word.trim() {
                        word if word.eq_ignore_ascii_case("close") => keep = false,
                        word if word.eq_ignore_ascii_case("keep-alive") => keep = true,
                        _ => {}
                    }
                }
            } else if header.name.eq_ignore_ascii_case("content-length") {
                body = value.parse::<u64>().ok().filter(|size| *size <= BODY_BYTES_MAX);
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                body = None;
            }
        }
        let target = parsed.path.unwrap_or("/");
        // A proxy's form; what counts is the path.
        let target = match target.split_once("://") {
            Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"),
            None => target,
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let request = Request { path: path.to_owned(), query: query.to_owned() };
        self.input.drain(..used);
        // What follows a body of unknown length cannot be told from it.
        self.ends = !keep || body.is_none();
        if self.ends {
            self.input = Vec::new();
        }
        let body = body.unwrap_or(0);
        let here = usize::try_from(body).unwrap_or(usize::MAX).min(self.input.len());
        self.input.drain(..here);
        self.skip = body - here as u64;
        self.is_ahead = !self.input.is_empty();
        Some(request)
    }

    fn refuse(&mut self, now: Instant, status: u16, text: &str) {
        self.is_head = false;
        self.is_http10 = false;
        self.ends = true;
        self.input = Vec::new();
        self.respond(now, Response::text(status, text));
    }

    /// The answer to the request.
    pub fn respond(&mut self, now: Instant, response: Response) {
        use std::io::Write as _;
        let mut head = Vec::with_capacity(256);
        let (status, reason) = (response.status, reason(response.status));
        let kind = match response.kind {
            Kind::Json => "application/json\r\nAccess-Control-Allow-Origin: *",
            Kind::Text => "text/plain; charset=utf-8",
            Kind::Html => "text/html; charset=utf-8",
            Kind::Metrics => "text/plain; version=0.0.4; charset=utf-8",
        };
        let connection = match (self.ends, self.is_http10) {
            (true, false) => "Connection: close\r\n",
            (false, true) => "Connection: keep-alive\r\n",
            _ => "",
        };
        // Writing to a Vec cannot fail.
        let _ = write!(
            head,
            "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\n{connection}\
             Content-Length: {}\r\n\r\n",
            response.body.len()
        );
        self.output = response.body;
        if self.is_head {
            self.output.clear();
        }
        self.output.splice(0..0, head);
        self.written = 0;
        self.deadline = now + WRITE_TIME;
    }

    /// What is to be written.
    pub fn pending(&self) -> &[u8] {
        self.output.get(self.written..).unwrap_or(&[])
    }

    /// The socket took `count` bytes.
    pub fn transmitted(&mut self, now: Instant, count: usize) {
        self.written = (self.written + count).min(self.output.len());
        if self.is_writing() {
            if count > 0 {
                self.deadline = now + WRITE_TIME;
            }
        } else {
            self.output = Vec::new();
            self.written = 0;
            self.deadline = now + if self.input.is_empty() { IDLE_TIME } else { REQUEST_TIME };
        }
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        413 => "Request Entity Too Large",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant(0);

    fn answer(exchange: &mut Exchange) -> String {
        exchange.respond(NOW, Response::text(200, "body"));
        let text = String::from_utf8_lossy(exchange.pending()).into_owned();
        exchange.transmitted(NOW, text.len());
        text
    }

    #[test]
    fn a_request_is_found_wherever_it_is_split() {
        let wire = b"GET /varz?a=1 HTTP/1.1\r\nHost: x\r\n\r\n";
        for cut in 0..wire.len() {
            let mut exchange = Exchange::new(NOW);
            let (head, tail) = wire.split_at(cut);
            assert_eq!(exchange.receive(NOW, head), None, "split at {cut}");
            let request = exchange.receive(NOW, tail).unwrap();
            assert_eq!((&*request.path, &*request.query), ("/varz", "a=1"));
            assert!(answer(&mut exchange).starts_with("HTTP/1.1 200 OK\r\n"));
            assert!(!exchange.is_done());
        }
    }

    #[test]
    fn requests_sent_ahead_are_answered_in_turn() {
        let mut exchange = Exchange::new(NOW);
        let wire = b"GET /a HTTP/1.1\r\n\r\nPOST /b HTTP/1.1\r\nContent-Length: 3\r\n\r\nxyzGET /c HTTP/1.1\r\nConnection: close\r\n\r\n";
        assert_eq!(exchange.receive(NOW, wire).unwrap().path, "/a");
        answer(&mut exchange);
        assert_eq!(exchange.next_request(NOW).unwrap().path, "/b");
        answer(&mut exchange);
        assert_eq!(exchange.next_request(NOW).unwrap().path, "/c");
        assert!(answer(&mut exchange).contains("Connection: close"));
        assert!(exchange.is_done());
    }

    #[test]
    fn head_gets_no_body() {
        let mut exchange = Exchange::new(NOW);
        exchange.receive(NOW, b"HEAD / HTTP/1.0\r\n\r\n").unwrap();
        let text = answer(&mut exchange);
        assert!(text.ends_with("Content-Length: 4\r\n\r\n") && exchange.is_done());
    }

    #[test]
    fn rubbish_and_endless_headers_are_refused() {
        for (wire, status) in [
            (b"\x00\x01\x02\r\n\r\n".to_vec(), "400"),
            (b"CONNECT {\"verbose\":false}\r\n".to_vec(), "400"),
            ([b"GET /".to_vec(), vec![b'a'; REQUEST_BYTES_MAX]].concat(), "431"),
            ([b"GET / HTTP/1.1\r\n".to_vec(), b"a: b\r\n".repeat(100)].concat(), "431"),
        ] {
            let mut exchange = Exchange::new(NOW);
            assert_eq!(exchange.receive(NOW, &wire), None);
            let text = String::from_utf8_lossy(exchange.pending()).into_owned();
            assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{text}");
            exchange.transmitted(NOW, text.len());
            assert!(exchange.is_done());
        }
    }

    #[test]
    fn a_peer_that_sends_a_byte_at_a_time_has_its_time() {
        let mut exchange = Exchange::new(NOW);
        let idle = exchange.deadline();
        for at in 0..60 {
            exchange.receive(Instant(at * 1_000_000_000), b"G");
        }
        assert_eq!(exchange.deadline(), NOW + REQUEST_TIME);
        assert!(exchange.deadline() < idle);
    }
}
