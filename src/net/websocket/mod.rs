//! WebSocket: the layer between a socket and the broker's bytes.
//!
//! Owns the frames of one connection: reading them ([`WebSocket::decode`]), writing them
//! ([`WebSocket::next_frame`]), pings, closes and compression. Does not own the HTTP upgrade
//! ([`upgrade`]) nor the socket.
//!
//! Frame headers are read here: the crates that do it bring random numbers, buffers and
//! error types of their own, several times the size of the twenty lines.
//!
//! # Invariants
//! - Outgoing payload is not copied unless it is compressed: a header promises as many bytes
//!   as are waiting, and these follow from the broker's outbox.
//! - What a peer can make it hold is a header, a control frame, the answers to pings it does
//!   not read (bounded), and the state of one inflated message.
//!
//! Source: RFC 6455, RFC 7692; texts and close codes as nats-server 2.15.1.

pub mod deflate;
pub mod upgrade;

use std::collections::VecDeque;

use self::deflate::{Deflater, Inflater};
use crate::broker::CloseReason;

/// What was agreed on in the upgrade.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreed {
    /// `Nats-No-Masking`: the peer sends without masks.
    pub no_masking: bool,
    /// `permessage-deflate`, without context takeover.
    pub deflate: bool,
    /// A browser: frames are small.
    pub browser: bool,
    /// Compressed messages are not cut into frames.
    pub whole: bool,
    /// What one compressed message may come to, in bytes.
    pub message_bytes_max: usize,
}

/// See the module.
#[derive(Debug)]
pub struct WebSocket {
    agreed: Agreed,
    reading: Reading,
    /// Bytes of frames that are ready to go: headers, control frames, compressed messages.
    ready: VecDeque<u8>,
    /// Payload bytes the last header in `ready` promised and that are still to come.
    promised: usize,
    /// Control frames that go between two data frames.
    control: Vec<u8>,
    /// A close frame was sent or is on its way: nothing follows it.
    closed: bool,
    /// The peer takes no more messages.
    deaf: bool,
}

#[derive(Debug, Default)]
struct Reading {
    head: [u8; 14],
    have: usize,
    /// Payload of the current frame that is still to come, once its header is whole.
    left: Option<u64>,
    opcode: u8,
    last: bool,
    mask: [u8; 4],
    /// Where in the mask the next byte is.
    at: usize,
    /// The message under way began with a frame that was not its last.
    fragmented: bool,
    /// The message under way is compressed.
    inflater: Option<Box<Inflater>>,
    control: Vec<u8>,
}

/// Who is given the payload of messages; says whether it takes more.
pub type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> bool;

/// Why reading ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The peer closed, as it may.
    Closed,
    /// The peer broke the rules.
    Broken(String),
    /// Nobody takes more of it.
    Ignored,
}

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// What a control frame may carry, in bytes.
const CONTROL_BYTES_MAX: usize = 125;
/// Answers to pings that may wait for a peer that does not read, in bytes.
const ANSWERS_BYTES_MAX: usize = 1024;
/// What browsers are given at once, in bytes.
const BROWSER_FRAME_BYTES: usize = 4096;
/// Messages up to this many bytes are not compressed.
const PLAIN_BYTES_MAX: usize = 64;
/// What is compressed as one message, in bytes.
const DEFLATE_BYTES_MAX: usize = 256 * 1024;

impl WebSocket {
    /// After the upgrade.
    pub fn new(agreed: Agreed) -> Self {
        Self {
            agreed,
            reading: Reading::default(),
            ready: VecDeque::new(),
            promised: 0,
            control: Vec::new(),
            closed: false,
            deaf: false,
        }
    }

    /// Can what comes in grow when it is read?
    pub fn inflates(&self) -> bool {
        self.agreed.deflate
    }

    // --- Reading ---

    /// Takes bytes of frames, which are unmasked in place, and hands the payload of messages
    /// to `sink`.
    ///
    /// # Errors
    /// Reading is over. A close frame may wait to be sent.
    pub fn decode(&mut self, mut bytes: &mut [u8], sink: Sink<'_>) -> Result<(), Ended> {
        while !bytes.is_empty() || self.reading.left == Some(0) {
            let Some(left) = self.reading.left else {
                let used = self.header(bytes)?;
                bytes = bytes.get_mut(used..).unwrap_or_default();
                continue;
            };
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            let (payload, rest) = bytes.split_at_mut(count);
            bytes = rest;
            if !self.agreed.no_masking {
                unmask(payload, self.reading.mask, &mut self.reading.at);
            }
            let left = left - count as u64;
            self.reading.left = Some(left);
            self.payload(payload, left == 0, sink)?;
        }
        Ok(())
    }

    /// Reads a header, or a part of it; says how many bytes it took.
    fn header(&mut self, bytes: &[u8]) -> Result<usize, Ended> {
        let reading = &mut self.reading;
        let mut used = 0;
        loop {
            let masked = reading.head.get(1).is_some_and(|byte| byte & 0x80 != 0);
            let size = match (reading.have, reading.head.get(1).map(|byte| byte & 0x7f)) {
                (0 | 1, _) => 2,
                (_, Some(126)) => 4,
                (_, Some(127)) => 10,
                _ => 2,
            };
            let mask = if reading.have >= 2 && masked && !self.agreed.no_masking { 4 } else { 0 };
            let want = size + mask;
            if reading.have >= want && reading.have >= 2 {
                let [first, second, ..] = reading.head;
                let length = match size {
                    2 => u64::from(second & 0x7f),
                    4 => u64::from(u16::from_be_bytes([reading.head[2], reading.head[3]])),
                    _ => {
                        let [_, _, a, b, c, d, e, f, g, h, ..] = reading.head;
                        u64::from_be_bytes([a, b, c, d, e, f, g, h])
                    }
                };
                let mut key = [0; 4];
                for (to, from) in key.iter_mut().zip(reading.head.iter().skip(size)) {
                    *to = *from;
                }
                (reading.mask, reading.at, reading.have) = (key, 0, 0);
                reading.left = Some(length);
                self.begin(first, masked, length)?;
                return Ok(used);
            }
            let Some(&byte) = bytes.get(used) else { return Ok(used) };
            if let Some(slot) = reading.head.get_mut(reading.have) {
                *slot = byte;
            }
            reading.have += 1;
            used += 1;
        }
    }

    /// A frame begins.
    fn begin(&mut self, first: u8, masked: bool, length: u64) -> Result<(), Ended> {
        let reading = &mut self.reading;
        reading.last = first & 0x80 != 0;
        reading.opcode = first & 0x0f;
        let compressed = first & 0x40 != 0;
        let opcode = reading.opcode;
        if !masked && !self.agreed.no_masking {
            return Err(self.protocol_error("mask bit missing"));
        }
        if length > i64::MAX as u64 {
            return Err(Ended::Broken("invalid 64-bit payload length".to_owned()));
        }
        match opcode {
            TEXT | BINARY if reading.fragmented => {
                let text =
                    "new message started before final frame for previous message was received";
                return Err(self.protocol_error(text));
            }
            CONTINUATION if !reading.fragmented => {
                return Err(self.protocol_error("invalid continuation frame"));
            }
            CONTINUATION if compressed => {
                return Err(self.protocol_error("invalid continuation frame"));
            }
            TEXT | BINARY if compressed && !self.agreed.deflate => {
                let text = "compressed frame received without negotiated permessage-deflate";
                return Err(self.protocol_error(text));
            }
            TEXT | BINARY => {
                reading.fragmented = !reading.last;
                if compressed {
                    reading.inflater = Some(Box::new(Inflater::new(self.agreed.message_bytes_max)));
                }
            }
            CONTINUATION => reading.fragmented = !reading.last,
            CLOSE | PING | PONG if length > CONTROL_BYTES_MAX as u64 => {
                let text = format!(
                    "control frame length bigger than maximum allowed of {CONTROL_BYTES_MAX} bytes"
                );
                return Err(self.protocol_error(&text));
            }
            CLOSE | PING | PONG if !reading.last => {
                return Err(self.protocol_error("control frame does not have final bit set"));
            }
            CLOSE | PING | PONG => reading.control.clear(),
            other => return Err(self.protocol_error(&format!("unknown opcode {other}"))),
        }
        Ok(())
    }

    /// Payload of the current frame came; `ends`: all of it.
    fn payload(&mut self, payload: &[u8], ends: bool, sink: Sink<'_>) -> Result<(), Ended> {
        let reading = &mut self.reading;
        if ends {
            reading.left = None;
        }
        if reading.opcode >= CLOSE {
            // Not longer than CONTROL_BYTES_MAX: its header was looked at.
            reading.control.extend_from_slice(payload);
            return if ends { self.controlled() } else { Ok(()) };
        }
        match &mut reading.inflater {
            None => {
                if !payload.is_empty() && !sink(payload) {
                    return Err(Ended::Ignored);
                }
            }
            Some(inflater) => {
                let whole = ends && reading.last;
                inflater.inflate(payload, whole, sink)?;
                if whole {
                    reading.inflater = None;
                }
            }
        }
        Ok(())
    }

    /// A control frame is whole.
    fn controlled(&mut self) -> Result<(), Ended> {
        let body = std::mem::take(&mut self.reading.control);
        match self.reading.opcode {
            PING if self.control.len() < ANSWERS_BYTES_MAX => self.queue_control(PONG, &body),
            PING | PONG => {}
            _ => {
                self.deaf = true;
                let Some((status, text)) = body.split_first_chunk::<2>() else {
                    if body.is_empty() {
                        self.queue_close_body(&[]);
                        return Err(Ended::Closed);
                    }
                    let text = "close frame payload cannot be 1 byte";
                    return Err(Ended::Broken(text.to_owned()));
                };
                let status = u16::from_be_bytes(*status);
                if !matches!(status, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                    return Err(Ended::Broken(format!("invalid close status code {status}")));
                }
                if std::str::from_utf8(text).is_err() {
                    self.queue_close(1007, "invalid utf8 body in close frame");
                } else {
                    self.queue_close_body(&body);
                }
                return Err(Ended::Closed);
            }
        }
        Ok(())
    }

    fn protocol_error(&mut self, text: &str) -> Ended {
        self.queue_close(1002, text);
        Ended::Broken(text.to_owned())
    }

    // --- Writing ---

    /// Has the peer closed, so that messages for it are to be forgotten?
    pub fn is_deaf(&self) -> bool {
        self.deaf
    }

    /// Has it bytes of its own to send?
    pub fn wants_write(&self) -> bool {
        !self.ready.is_empty() || (!self.control.is_empty() && self.promised == 0)
    }

    /// Prepares the next frame for `waiting`, the broker's bytes that no frame has promised
    /// yet. Says how many of them were taken (and copied); those that a header promises are
    /// left, see [`Self::promised`].
    pub fn next_frame(&mut self, waiting: &[u8], deflater: &mut Deflater) -> usize {
        if self.promised > 0 {
            return 0;
        }
        if !self.control.is_empty() && !self.closed {
            self.ready.extend(std::mem::take(&mut self.control));
            return 0;
        }
        if !waiting.is_empty() {
            if self.agreed.deflate && waiting.len() > PLAIN_BYTES_MAX {
                let piece = waiting.get(..DEFLATE_BYTES_MAX).unwrap_or(waiting);
                let packed = deflater.deflate(piece);
                self.compressed(packed);
                return piece.len();
            }
            let most = if self.agreed.browser { BROWSER_FRAME_BYTES } else { usize::MAX };
            self.promised = waiting.len().min(most);
            frame_header(&mut self.ready, 0x80 | BINARY, self.promised);
            return 0;
        }
        self.ready.extend(std::mem::take(&mut self.control));
        0
    }

    /// A whole message, compressed.
    fn compressed(&mut self, packed: &[u8]) {
        let cut = self.agreed.browser && !self.agreed.whole;
        let most = if cut { BROWSER_FRAME_BYTES } else { usize::MAX };
        let count = packed.len().div_ceil(most).max(1);
        for (number, piece) in packed.chunks(most.min(packed.len().max(1))).enumerate() {
            let mut first = if number == 0 { 0x40 | BINARY } else { CONTINUATION };
            if number + 1 == count {
                first |= 0x80;
            }
            frame_header(&mut self.ready, first, piece.len());
            self.ready.extend(piece);
        }
    }

    /// What is to be written before the promised payload.
    pub fn ready(&self) -> &[u8] {
        // It is filled when it is empty, so it is one slice unless part of it was written.
        let (front, back) = self.ready.as_slices();
        if front.is_empty() { back } else { front }
    }

    /// Payload of the broker that belongs to the frame under way.
    pub fn promised(&self) -> usize {
        self.promised
    }

    /// So many bytes of [`Self::ready`] were written.
    pub fn written(&mut self, count: usize) {
        self.ready.drain(..count.min(self.ready.len()));
        if self.ready.is_empty() {
            self.ready = VecDeque::new();
        }
    }

    /// So many of the promised bytes were written.
    pub fn payload_written(&mut self, count: usize) {
        self.promised = self.promised.saturating_sub(count);
    }

    /// Tells the peer why the broker ends the connection, behind what waits for it.
    pub fn close_for(&mut self, reason: CloseReason) {
        use CloseReason as R;
        let code = match reason {
            // nats-server's reader has already left when these are known.
            R::ProtocolViolation | R::ReadError => return,
            R::ClientClosed => 1000,
            R::AuthenticationFailure
            | R::AuthenticationTimeout
            | R::MaximumConnections
            | R::SlowConsumerPendingBytes
            | R::SlowConsumerWriteDeadline => 1008,
            R::BadClientProtocolVersion | R::NoRespondersRequiresHeaders | R::ParseError => 1002,
            R::MaximumPayload => 1009,
            R::ServerShutdown | R::StaleConnection => 1001,
            R::TlsHandshakeFailure => 1015,
            _ => 1011,
        };
        self.queue_close(code, reason.text());
    }

    fn queue_close(&mut self, code: u16, text: &str) {
        let body = [&code.to_be_bytes()[..], text.as_bytes()].concat();
        self.queue_close_body(body.get(..CONTROL_BYTES_MAX).unwrap_or(&body));
    }

    fn queue_close_body(&mut self, body: &[u8]) {
        if !self.closed {
            self.queue_control(CLOSE, body);
            self.closed = true;
        }
    }

    fn queue_control(&mut self, opcode: u8, body: &[u8]) {
        if self.closed {
            return;
        }
        let length = u8::try_from(body.len()).unwrap_or(0);
        self.control.extend_from_slice(&[0x80 | opcode, length]);
        self.control.extend_from_slice(body);
    }
}

/// A header of a frame without a mask.
fn frame_header(out: &mut VecDeque<u8>, first: u8, length: usize) {
    out.push_back(first);
    if let Some(short) = u8::try_from(length).ok().filter(|length| *length < 126) {
        out.push_back(short);
    } else if let Ok(length) = u16::try_from(length) {
        out.push_back(126);
        out.extend(length.to_be_bytes());
    } else {
        out.push_back(127);
        out.extend((length as u64).to_be_bytes());
    }
}

/// Applies the mask, whose next byte is at `at`.
fn unmask(payload: &mut [u8], mask: [u8; 4], at: &mut usize) {
    let mut key = mask;
    key.rotate_left(*at % 4);
    let (chunks, rest) = payload.as_chunks_mut::<4>();
    let word = u32::from_ne_bytes(key);
    for chunk in chunks {
        *chunk = (u32::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key) {
        *byte ^= key;
    }
    *at = (*at + payload.len()) % 4;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [9, 8, 7, 6];
        let mut out = vec![first];
        match u8::try_from(payload.len()) {
            Ok(length) if length < 126 => out.push(0x80 | length),
            _ => {
                out.push(0xfe);
                out.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
            }
        }
        out.extend(mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        out
    }

    fn decode(pieces: &[&[u8]]) -> (Vec<u8>, WebSocket, Result<(), Ended>) {
        let mut web = WebSocket::new(Agreed::default());
        let mut out = Vec::new();
        let mut result = Ok(());
        for piece in pieces {
            let mut piece = piece.to_vec();
            result = web.decode(&mut piece, &mut |payload| {
                out.extend_from_slice(payload);
                true
            });
            if result.is_err() {
                break;
            }
        }
        (out, web, result)
    }

    #[test]
    fn the_same_messages_wherever_the_bytes_are_split() {
        let wire = [
            masked(0x82, b"PING\r\n"),
            masked(0x02, &[b'a'; 200]),
            masked(0x89, b"hey"),
            masked(0x80, b"end"),
            masked(0x81, b""),
        ]
        .concat();
        let whole = decode(&[&wire]);
        assert!(whole.0.starts_with(b"PING\r\naaa") && whole.0.ends_with(b"aend"));
        assert_eq!(whole.1.control, [0x8a, 3, b'h', b'e', b'y']);
        for cut in 0..=wire.len() {
            let (head, tail) = wire.split_at(cut);
            let parts = decode(&[head, tail]);
            assert_eq!((&parts.0, &parts.1.control), (&whole.0, &whole.1.control), "at {cut}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic_or_hold_much() {
        let mut seed = 1_u32;
        for _ in 0..2000 {
            let bytes: Vec<u8> = (0..64)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (seed >> 24) as u8
                })
                .collect();
            let (_, web, _) = decode(&[&bytes]);
            assert!(web.control.len() <= ANSWERS_BYTES_MAX + CONTROL_BYTES_MAX + 2);
        }
    }

    #[test]
    fn a_frame_promises_what_waits_and_answers_go_before_it() {
        let mut web = WebSocket::new(Agreed { browser: true, ..Agreed::default() });
        let mut deflater = Deflater::default();
        web.queue_control(PONG, b"x");
        assert_eq!(web.next_frame(&[0; 5000], &mut deflater), 0);
        assert_eq!((web.ready(), web.promised()), (&[0x8a, 1, b'x'][..], 0));
        web.written(3);
        web.next_frame(&[0; 5000], &mut deflater);
        assert_eq!((web.ready(), web.promised()), (&[0x82, 126, 16, 0][..], 4096));
        web.written(4);
        web.payload_written(4096);
        web.close_for(CloseReason::ServerShutdown);
        web.next_frame(&[0; 904], &mut deflater);
        assert_eq!((web.ready(), web.promised()), (&[0x82, 126, 3, 136][..], 904));
        web.written(4);
        web.payload_written(904);
        web.next_frame(&[], &mut deflater);
        assert_eq!(web.ready().get(..4), Some(&[0x88, 17, 3, 233][..]));
    }
}
