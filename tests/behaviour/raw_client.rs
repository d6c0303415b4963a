//! A NATS client that says exactly what it is told and shows exactly what it hears.
//!
//! Owns one connection and the bytes received on it. Knows just enough of the protocol to
//! cut what a server sends into [`Frame`]s; it answers nothing by itself, but for `PING` after
//! [`RawClient::greet`]. Every wait has a deadline, so a silent server fails a test instead of
//! hanging it.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Longest wait for anything a server should do at once.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// One thing a server sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// `INFO`, `PING`, `PONG`, `+OK`, `-ERR` or anything unknown, without its line end.
    Line(String),
    /// `MSG` or `HMSG`.
    Message(Message),
}

/// A delivered message.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) subject: String,
    pub(crate) sid: String,
    pub(crate) reply: Option<String>,
    /// The whole header block; empty for `MSG`.
    pub(crate) headers: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

/// The control line and the start of the rest: enough to recognise a message in a panic.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 200;
        let mut rest = printable(&self.headers) + &printable(&self.payload);
        if let Some((cut, _)) = rest.char_indices().nth(SHOWN) {
            rest.truncate(cut);
            rest.push_str("...");
        }
        write!(f, "{} `{rest}`", Frame::Message(self.clone()).line())
    }
}

impl Frame {
    /// The control line as it was on the wire, with blanks reduced to one.
    pub(crate) fn line(&self) -> String {
        match self {
            Self::Line(line) => line.clone(),
            Self::Message(m) => {
                let mut line = String::from(if m.headers.is_empty() { "MSG" } else { "HMSG" });
                let _ = write!(line, " {} {}", m.subject, m.sid);
                if let Some(reply) = &m.reply {
                    let _ = write!(line, " {reply}");
                }
                if !m.headers.is_empty() {
                    let _ = write!(line, " {}", m.headers.len());
                }
                let _ = write!(line, " {}", m.headers.len() + m.payload.len());
                line
            }
        }
    }
}

/// Why no frame came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoFrame {
    /// The server closed the connection; everything before was already returned.
    Closed,
    /// Nothing whole arrived before the deadline.
    TimedOut,
}

/// What carries the bytes of a client: a socket, or something around one.
pub(crate) trait Wire: Read + Write + fmt::Debug {
    /// How long a read waits.
    fn set_read_timeout(&self, time: Duration) -> io::Result<()>;
}

impl Wire for TcpStream {
    fn set_read_timeout(&self, time: Duration) -> io::Result<()> {
        Self::set_read_timeout(self, Some(time))
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct RawClient {
    socket: Box<dyn Wire>,
    bytes: Vec<u8>,
    frames: VecDeque<Frame>,
    closed: bool,
    /// `PING`s are answered and not shown.
    answers_pings: bool,
}

impl RawClient {
    /// Connects; the server's `INFO` is the first frame.
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect_timeout(&address, DEADLINE)?;
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(DEADLINE))?;
        Ok(Self::over(Box::new(socket), Vec::new()))
    }

    /// A client on a wire that is there already; `bytes` have been read from it.
    pub(crate) fn over(socket: Box<dyn Wire>, bytes: Vec<u8>) -> Self {
        let frames = VecDeque::new();
        let mut client = Self { socket, bytes, frames, closed: false, answers_pings: false };
        client.cut_frames();
        client
    }

    /// Connects and has spoken: `INFO` read, `CONNECT` sent, `PONG` and the second `INFO` seen.
    /// From then on a server's `PING` is answered while something is awaited.
    pub(crate) fn greet(address: SocketAddr) -> Self {
        let mut client = Self::connect(address).expect("the server accepts connections");
        client.expect("INFO ");
        client.send(
            "CONNECT {\"verbose\":false,\"pedantic\":false,\"protocol\":1,\"headers\":true,\
             \"no_responders\":true,\"lang\":\"raw\",\"version\":\"1\"}\r\nPING\r\n",
        );
        client.expect("PONG");
        client.expect("INFO ");
        client.answers_pings = true;
        client
    }

    /// Sends bytes as they are. A closed connection shows at the next read, not here.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.socket.write_all(bytes.as_ref());
    }

    /// Publishes and does not wait.
    pub(crate) fn publish(&mut self, subject: &str, payload: &[u8]) {
        self.send(format!("PUB {subject} {}\r\n", payload.len()));
        self.send(payload);
        self.send("\r\n");
    }

    /// Publishes with a reply subject and does not wait.
    pub(crate) fn publish_with_reply(&mut self, subject: &str, reply: &str, payload: &[u8]) {
        self.send(format!("PUB {subject} {reply} {}\r\n", payload.len()));
        self.send(payload);
        self.send("\r\n");
    }

    /// The next frame, waiting until `deadline`.
    pub(crate) fn next_frame(&mut self, deadline: Instant) -> Result<Frame, NoFrame> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Ok(frame);
            }
            self.fill(deadline)?;
        }
    }

    /// Takes the first frame for which `wanted` holds and leaves the others in their order.
    pub(crate) fn pick(
        &mut self,
        deadline: Instant,
        mut wanted: impl FnMut(&Frame) -> bool,
    ) -> Result<Frame, NoFrame> {
        let mut seen = 0;
        loop {
            while let Some(frame) = self.frames.get(seen) {
                if wanted(frame) {
                    return Ok(self.frames.remove(seen).expect("just looked at it"));
                }
                seen += 1;
            }
            self.fill(deadline)?;
        }
    }

    /// The next frame, which must start with `start`.
    ///
    /// # Panics
    /// When another frame, the end or the deadline comes first.
    pub(crate) fn expect(&mut self, start: &str) -> Frame {
        match self.next_frame(Instant::now() + DEADLINE) {
            Ok(frame) if frame.line().starts_with(start) => frame,
            other => panic!("wanted {start:?}, got {other:?}"),
        }
    }

    /// The next frame but PING, which must be a message with this payload.
    ///
    /// # Panics
    /// As [`Self::expect`].
    pub(crate) fn expect_message(&mut self, subject: &str, payload: &[u8]) -> Message {
        loop {
            match self.next_frame(Instant::now() + DEADLINE) {
                Ok(Frame::Message(m)) if m.subject == subject && m.payload == payload => return m,
                // The server measures the round trip two seconds after CONNECT.
                Ok(Frame::Line(line)) if line == "PING" => self.send("PONG\r\n"),
                other => panic!("wanted a message on {subject:?}, got {other:?}"),
            }
        }
    }

    /// Waits until the server has handled all that was sent; nothing else may arrive.
    ///
    /// # Panics
    /// As [`Self::expect`].
    pub(crate) fn flush(&mut self) {
        self.send("PING\r\n");
        self.expect("PONG");
    }

    /// Waits for the server's close and returns what came before it.
    ///
    /// # Panics
    /// When the connection is still open at the deadline.
    pub(crate) fn expect_closed(&mut self) -> Vec<Frame> {
        let deadline = Instant::now() + DEADLINE;
        let mut frames = Vec::new();
        loop {
            match self.next_frame(deadline) {
                Ok(frame) => frames.push(frame),
                Err(NoFrame::Closed) => return frames,
                Err(NoFrame::TimedOut) => panic!("still open; so far {frames:?}"),
            }
        }
    }

    /// Bytes received that are not yet a whole frame.
    pub(crate) fn unfinished(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads at least once and cuts what is there into frames.
    fn fill(&mut self, deadline: Instant) -> Result<(), NoFrame> {
        if self.closed {
            return Err(NoFrame::Closed);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(NoFrame::TimedOut);
        }
        // A zero timeout would mean "for ever", and below a millisecond it may round to zero.
        let left = left.max(Duration::from_millis(1));
        self.socket.set_read_timeout(left).expect("the timeout is above zero");
        let mut buffer = vec![0; 65536];
        match self.socket.read(&mut buffer) {
            Ok(0) => self.closed = true,
            Ok(n) => self.bytes.extend_from_slice(&buffer[..n]),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Err(NoFrame::TimedOut);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            // A reset is how a close looks when the server did not read all we sent.
            Err(_) => self.closed = true,
        }
        self.cut_frames();
        Ok(())
    }

    fn cut_frames(&mut self) {
        let mut used = 0;
        while let Some((frame, size)) = cut(&self.bytes[used..]) {
            used += size;
            if self.answers_pings && frame == Frame::Line(String::from("PING")) {
                let _ = self.socket.write_all(b"PONG\r\n");
            } else {
                self.frames.push_back(frame);
            }
        }
        self.bytes.drain(..used);
    }
}

/// The first whole frame in `bytes` and its size.
fn cut(bytes: &[u8]) -> Option<(Frame, usize)> {
    let end = bytes.iter().position(|&b| b == b'\n')? + 1;
    let line = String::from_utf8_lossy(&bytes[..end]);
    let line = line.trim_end_matches(['\r', '\n']);
    let tokens: Vec<&str> = line.split([' ', '\t']).filter(|t| !t.is_empty()).collect();
    let (reply, header_size, total) = match tokens.as_slice() {
        ["MSG", _, _, total] => (None, 0, *total),
        ["MSG", _, _, reply, total] => (Some(*reply), 0, *total),
        ["HMSG", _, _, headers, total] => (None, headers.parse().ok()?, *total),
        ["HMSG", _, _, reply, headers, total] => (Some(*reply), headers.parse().ok()?, *total),
        _ => return Some((Frame::Line(line.to_owned()), end)),
    };
    let total: usize = total.parse().ok()?;
    let body = bytes.get(end..end + total)?;
    // The line end after the payload.
    bytes.get(end + total..end + total + 2)?;
    let message = Message {
        subject: tokens[1].to_owned(),
        sid: tokens[2].to_owned(),
        reply: reply.map(str::to_owned),
        headers: body[..header_size].to_vec(),
        payload: body[header_size..].to_vec(),
    };
    Some((Frame::Message(message), end + total + 2))
}

/// Bytes as text for a person: printable characters as they are, the rest escaped.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\r' => text.push_str("\\r"),
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                c if c.is_control() => {
                    let _ = write!(text, "\\x{:02x}", u32::from(c));
                }
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}
