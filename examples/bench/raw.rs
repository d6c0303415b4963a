//! A NATS client that costs next to nothing: blocking sockets, prebuilt buffers, counted bytes.
//!
//! Owns connections and the little parsing the scenarios need. The client must be much cheaper
//! than the server it loads, or the figures would be its own: publishers repeat one buffer of
//! ready-made `PUB`s, and [`Receiver`]s count bytes without looking at them. Because every
//! message of a scenario has the same size, the byte count at the end proves the message count.
//!
//! # Invariants
//! - Every socket has read and write timeouts, so no call blocks for ever.
//! - Offsets in a [`Frame`] are valid until the next read of the same [`Conn`].

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::clock;
use crate::error::{Error, Result};

/// Longest wait for a socket to take or give a byte.
const IO_TIMEOUT: Duration = Duration::from_secs(20);
/// Prebuilt buffers of publications are at least this long: more than a socket takes at once, so
/// that the publisher is always ahead of a fast server. It makes no difference to a slow one.
const PUBLISH_BUFFER_BYTES: usize = 256 * 1024;
/// Read buffer of a [`Conn`]: at first, and at most.
const READ_BUFFER_BYTES: (usize, usize) = (4 * 1024, 256 * 1024);
/// Read buffer of a [`Receiver`].
const RECEIVE_BUFFER_BYTES: usize = 256 * 1024;
const PONG: &[u8; 6] = b"PONG\r\n";
/// A server may put a few `PING`s (as long as a `PONG`) between the messages.
const PINGS_MAX: u64 = 10;

/// Part of the read buffer of a [`Conn`].
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: usize,
    end: usize,
}

/// What a frame is; everything else is answered or skipped inside [`Conn`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `MSG` or `HMSG`.
    Msg,
    /// `PONG`.
    Pong,
}

/// One frame in the read buffer; see [`Conn::payload`] and its sisters for its parts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    /// What it is.
    pub(crate) kind: Kind,
    subject: Span,
    reply: Span,
    header: Span,
    payload: Span,
}

/// A connection that has said `CONNECT`.
#[derive(Debug)]
pub(crate) struct Conn {
    stream: TcpStream,
    buffer: Vec<u8>,
    unread: Span,
    inbox: String,
    inbox_open: bool,
    requests: u64,
}

impl Conn {
    /// Connects and waits for the first `PONG`.
    pub(crate) fn connect(addr: SocketAddr) -> Result<Self> {
        Self::sign_in(addr, None)
    }

    /// Connects as a user whose password is the name.
    pub(crate) fn sign_in(addr: SocketAddr, user: Option<&str>) -> Result<Self> {
        static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
        let stream = TcpStream::connect_timeout(&addr, IO_TIMEOUT)
            .map_err(|error| Error::from(error).during("connecting"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(IO_TIMEOUT))?;
        stream.set_write_timeout(Some(IO_TIMEOUT))?;
        let mut conn = Self {
            stream,
            buffer: vec![0; READ_BUFFER_BYTES.0],
            unread: Span::default(),
            inbox: format!("_INBOX.bench{}", CONNECTIONS.fetch_add(1, Ordering::Relaxed)),
            inbox_open: false,
            requests: 0,
        };
        conn.send(connect_line(user).as_bytes())?;
        conn.flush()?;
        Ok(conn)
    }

    /// Writes ready-made bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).map_err(|error| Error::from(error).during("writing"))
    }

    /// Subscribes; `queue` is the queue group, if any.
    pub(crate) fn subscribe(&mut self, subject: &str, queue: Option<&str>, sid: u32) -> Result<()> {
        let line = match queue {
            Some(queue) => format!("SUB {subject} {queue} {sid}\r\n"),
            None => format!("SUB {subject} {sid}\r\n"),
        };
        self.send(line.as_bytes())
    }

    /// Waits until the server has seen everything sent so far. Messages on the way are dropped.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.send(b"PING\r\n")?;
        while self.next_frame()?.kind != Kind::Pong {}
        Ok(())
    }

    /// One `JetStream` API request; an error in the answer is an error here.
    pub(crate) fn api(&mut self, subject: &str, body: &str) -> Result<Value> {
        if !self.inbox_open {
            let wildcard = format!("{}.*", self.inbox);
            self.subscribe(&wildcard, None, 900)?;
            self.inbox_open = true;
        }
        self.requests += 1;
        let reply = format!("{}.{}", self.inbox, self.requests);
        let request = format!("PUB {subject} {reply} {}\r\n{body}\r\n", body.len());
        self.send(request.as_bytes())?;
        loop {
            let frame = self.next_frame()?;
            if frame.kind != Kind::Msg || self.bytes(frame.subject) != reply.as_bytes() {
                continue;
            }
            if !self.header(&frame).is_empty() && self.payload(&frame).is_empty() {
                let status = String::from_utf8_lossy(self.header(&frame)).trim().to_owned();
                return Err(Error::new(format!("{subject} answered {status}")));
            }
            let answer: Value = serde_json::from_slice(self.payload(&frame))?;
            return match answer.get("error") {
                Some(error) => Err(Error::new(format!("{subject} answered {error}"))),
                None => Ok(answer),
            };
        }
    }

    /// The next message or `PONG`.
    pub(crate) fn next_frame(&mut self) -> Result<Frame> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(frame);
            }
            self.fill()?;
        }
    }

    /// The next message or `PONG` among the bytes already read.
    pub(crate) fn buffered(&mut self) -> Result<Option<Frame>> {
        loop {
            let rest = &self.buffer[self.unread.start..self.unread.end];
            let Some(newline) = memchr::memchr(b'\n', rest) else { return Ok(None) };
            let line = rest[..newline].strip_suffix(b"\r").unwrap_or(&rest[..newline]);
            let at = self.unread.start;
            if line.starts_with(b"MSG ") || line.starts_with(b"HMSG ") {
                let (mut frame, header_len, total_len) = parse_message(line, at)
                    .ok_or_else(|| unexpected(line).during("reading a message"))?;
                let body = at + newline + 1;
                let end = body + total_len + 2;
                if end > self.unread.end {
                    return Ok(None);
                }
                frame.header = Span { start: body, end: body + header_len };
                frame.payload = Span { start: body + header_len, end: end - 2 };
                self.unread.start = end;
                return Ok(Some(frame));
            }
            let verb = line.split(|byte| *byte == b' ').next().unwrap_or_default();
            let (is_pong, wants_pong) = match verb {
                b"PONG" => (true, false),
                b"PING" => (false, true),
                b"INFO" | b"+OK" => (false, false),
                _ => return Err(unexpected(line)),
            };
            self.unread.start += newline + 1;
            if wants_pong {
                self.send(PONG)?;
            }
            if is_pong {
                let none = Span::default();
                return Ok(Some(Frame {
                    kind: Kind::Pong,
                    subject: none,
                    reply: none,
                    header: none,
                    payload: none,
                }));
            }
        }
    }

    /// Reads once. Frames taken from the buffer earlier are gone afterwards.
    pub(crate) fn fill(&mut self) -> Result<()> {
        self.buffer.copy_within(self.unread.start..self.unread.end, 0);
        self.unread = Span { start: 0, end: self.unread.end - self.unread.start };
        let free = &mut self.buffer[self.unread.end..];
        let read = self.stream.read(free).map_err(|error| Error::from(error).during("reading"))?;
        if read == 0 {
            return Err(Error::new("the server closed the connection"));
        }
        let was_filled = read == free.len();
        self.unread.end += read;
        if was_filled && self.buffer.len() < READ_BUFFER_BYTES.1 {
            self.buffer.resize(self.buffer.len() * 2, 0);
        } else if self.unread.end == self.buffer.len() {
            self.buffer.resize(self.buffer.len() + READ_BUFFER_BYTES.1, 0);
        }
        Ok(())
    }

    fn bytes(&self, span: Span) -> &[u8] {
        &self.buffer[span.start..span.end]
    }

    /// The reply subject of a message, empty if it has none.
    pub(crate) fn reply(&self, frame: &Frame) -> &[u8] {
        self.bytes(frame.reply)
    }

    /// The header block of a message, empty if it has none.
    pub(crate) fn header(&self, frame: &Frame) -> &[u8] {
        self.bytes(frame.header)
    }

    /// The payload of a message.
    pub(crate) fn payload(&self, frame: &Frame) -> &[u8] {
        self.bytes(frame.payload)
    }
}

/// The `CONNECT` of every connection.
pub(crate) fn connect_line(user: Option<&str>) -> String {
    let user = user.map(|user| format!("\"user\":\"{user}\",\"pass\":\"{user}\","));
    format!(
        "CONNECT {{{}\"verbose\":false,\"pedantic\":false,\"lang\":\"bench\",\"version\":\"1\",\
         \"protocol\":1,\"headers\":true,\"no_responders\":true,\"echo\":true}}\r\n",
        user.unwrap_or_default()
    )
}

/// Splits the line of a `MSG` or `HMSG` that begins at `at`: the frame so far, the length of the
/// header block, the length of header block and payload.
fn parse_message(line: &[u8], at: usize) -> Option<(Frame, usize, usize)> {
    let mut tokens = [Span::default(); 6];
    let mut count = 0;
    let mut start = 0;
    for end in memchr::memchr_iter(b' ', line).chain([line.len()]) {
        *tokens.get_mut(count)? = Span { start, end };
        count += 1;
        start = end + 1;
    }
    let has_header = line.starts_with(b"H");
    let sizes = if has_header { 2 } else { 1 };
    let number = |index: usize| {
        let token = tokens.get(index)?;
        std::str::from_utf8(&line[token.start..token.end]).ok()?.parse::<usize>().ok()
    };
    let shift = |span: Span| Span { start: span.start + at, end: span.end + at };
    let reply = match count.checked_sub(sizes)? {
        3 => Span::default(),
        4 => shift(tokens[3]),
        _ => return None,
    };
    let total_len = number(count - 1)?;
    let header_len = if has_header { number(count - 2)? } else { 0 };
    if header_len > total_len {
        return None;
    }
    let empty = Span::default();
    let frame =
        Frame { kind: Kind::Msg, subject: shift(tokens[1]), reply, header: empty, payload: empty };
    Some((frame, header_len, total_len))
}

fn unexpected(line: &[u8]) -> Error {
    Error::new(format!("the server said {}", String::from_utf8_lossy(line)))
}

/// The bytes that publish `payload_len` bytes on `subject`.
pub(crate) fn publication(subject: &str, reply: Option<&str>, payload_len: usize) -> Vec<u8> {
    let mut bytes = match reply {
        Some(reply) => format!("PUB {subject} {reply} {payload_len}\r\n"),
        None => format!("PUB {subject} {payload_len}\r\n"),
    }
    .into_bytes();
    bytes.resize(bytes.len() + payload_len, b'x');
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// A buffer of the same publication again and again, and how often.
pub(crate) fn publications(subject: &str, payload_len: usize) -> (Vec<u8>, u64) {
    let one = publication(subject, None, payload_len);
    let count = PUBLISH_BUFFER_BYTES.div_ceil(one.len());
    (one.repeat(count), count as u64)
}

/// Bytes of a message as a subscriber gets it.
pub(crate) fn frame_bytes(subject: &str, sid: u32, payload_len: usize) -> u64 {
    (format!("MSG {subject} {sid} {payload_len}\r\n").len() + payload_len + 2) as u64
}

/// A publisher that repeats one buffer of ready-made publications.
#[derive(Debug)]
pub(crate) struct Publisher {
    conn: Conn,
    buffer: Vec<u8>,
    buffer_messages: u64,
}

impl Publisher {
    /// Connects; all its messages go to `subject` and have the same size.
    pub(crate) fn connect(addr: SocketAddr, subject: &str, payload_len: usize) -> Result<Self> {
        let (buffer, count) = publications(subject, payload_len);
        Ok(Self::of(Conn::connect(addr)?, buffer, count))
    }

    /// Takes over a connection; its messages are those in `buffer`, `count` of them, again and
    /// again.
    pub(crate) fn of(conn: Conn, buffer: Vec<u8>, count: u64) -> Self {
        Self { conn, buffer, buffer_messages: count }
    }

    /// Publishes as fast as the server takes it, until `until`; gives the number of messages.
    pub(crate) fn blast(&mut self, until: Instant) -> Result<u64> {
        let mut messages = 0;
        while clock::now() < until {
            self.conn.send(&self.buffer)?;
            messages += self.buffer_messages;
        }
        Ok(messages)
    }

    /// Waits until the server has taken everything.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.conn.flush()
    }
}

/// Subscribers, each on a thread of its own, that count bytes.
#[derive(Debug)]
pub(crate) struct Receivers {
    bytes: Arc<AtomicU64>,
    frame_bytes: u64,
    threads: Vec<(TcpStream, JoinHandle<Result<u64>>)>,
}

impl Receivers {
    /// Subscribes `count` connections to `subject`, all in one queue group if `queue`.
    pub(crate) fn spawn(
        addr: SocketAddr,
        subject: &str,
        payload_len: usize,
        count: usize,
        queue: bool,
    ) -> Result<Self> {
        let mut conns = Vec::new();
        for _ in 0..count {
            let mut conn = Conn::connect(addr)?;
            conn.subscribe(subject, queue.then_some("workers"), 1)?;
            conn.flush()?;
            conns.push(conn);
        }
        Self::of(conns, frame_bytes(subject, 1, payload_len))
    }

    /// Takes over connections that have subscribed; each message is of `frame_bytes` bytes as
    /// it arrives.
    pub(crate) fn of(conns: Vec<Conn>, frame_bytes: u64) -> Result<Self> {
        let bytes = Arc::new(AtomicU64::new(0));
        let mut threads = Vec::new();
        for conn in conns {
            let control = conn.stream.try_clone()?;
            let bytes = Arc::clone(&bytes);
            threads.push((control, thread::spawn(move || count_until_pong(conn, &bytes))));
        }
        Ok(Self { bytes, frame_bytes, threads })
    }

    /// Messages received so far by all of them; a `PING` in between counts as a fraction.
    pub(crate) fn received(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed) / self.frame_bytes
    }

    /// Waits until all of them together have received `messages`.
    pub(crate) fn wait_for(&mut self, messages: u64) -> Result<()> {
        let mut last = (self.received(), clock::after(IO_TIMEOUT));
        loop {
            let received = self.received();
            if received >= messages {
                return Ok(());
            }
            if received > last.0 {
                last = (received, clock::after(IO_TIMEOUT));
            }
            let so_far = format!("{received} of {messages} messages received");
            if let Some(ended) = self.threads.iter().position(|(_, thread)| thread.is_finished()) {
                let (_, thread) = self.threads.swap_remove(ended);
                let outcome = thread.join().map_err(|_| Error::new("a subscriber panicked"))?;
                let why = outcome.err().unwrap_or_else(|| Error::new("a subscriber ended"));
                return Err(why.during(&so_far));
            }
            if clock::now() > last.1 {
                return Err(Error::new(format!("{so_far}, then nothing more came")));
            }
            thread::sleep(Duration::from_micros(100));
        }
    }

    /// Stops them and proves that exactly `messages` arrived.
    pub(crate) fn finish(self, messages: u64) -> Result<()> {
        let mut pongs = 0;
        for (control, _) in &self.threads {
            let mut control = control;
            control.write_all(b"PING\r\n")?;
            pongs += PONG.len() as u64;
        }
        let mut total = 0;
        for (_, thread) in self.threads {
            total += thread.join().map_err(|_| Error::new("a subscriber panicked"))??;
        }
        let extra = total.checked_sub(messages * self.frame_bytes + pongs);
        match extra {
            Some(extra) if extra % 6 == 0 && extra <= pongs * PINGS_MAX => Ok(()),
            _ => Err(Error::new(format!(
                "{total} bytes received where {messages} messages of {} bytes were due",
                self.frame_bytes
            ))),
        }
    }
}

/// Counts bytes until the answer to the final `PING`; gives their number, the answer included.
fn count_until_pong(mut conn: Conn, bytes: &AtomicU64) -> Result<u64> {
    let mut buffer = vec![0; RECEIVE_BUFFER_BYTES];
    let mut tail = *b"      ";
    let mut total = 0;
    loop {
        let read = conn.stream.read(&mut buffer)?;
        let got = &buffer[..read];
        if read == 0 {
            return Err(Error::new("the server closed a subscriber's connection"));
        }
        total += read as u64;
        bytes.fetch_add(read as u64, Ordering::Relaxed);
        // The answer may come in pieces, so the tail is kept from read to read.
        let keep = read.min(tail.len());
        tail.rotate_left(keep);
        let from = tail.len() - keep;
        tail[from..].copy_from_slice(&got[read - keep..]);
        if tail == *PONG {
            return Ok(total);
        }
        if tail.ends_with(b"'\r\n") && memchr::memmem::find(got, b"-ERR '").is_some() {
            let said = String::from_utf8_lossy(&got[read.saturating_sub(60)..]).into_owned();
            return Err(Error::new(format!("the server said {}", said.trim())));
        }
    }
}
