//! Outbox: readings that wait for the server's ack, oldest first, within a bound.
//!
//! One reading is in flight at a time and stays in the outbox until its ack is here, so a
//! server that restarts or is away costs no reading and changes no order. A resent reading
//! keeps its `Nats-Msg-Id`, so the stream drops the copy when only the ack had been lost.
//!
//! # Invariants
//! - Readings leave in the order they came in.
//! - A reading leaves when it was acked, or as the oldest of a full outbox; then the caller learns of it.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::context::{Context, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use tokio::time::{sleep, timeout};

/// How long to wait for an ack before the reading is sent again.
const ACK_WAIT: Duration = Duration::from_secs(5);

/// How often to look whether the connection is a new one while waiting for an ack.
const CONNECTION_CHECK: Duration = Duration::from_millis(20);

/// One message on its way to the stream.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    /// `Nats-Msg-Id`: by this the stream knows a resent reading.
    pub(crate) id: String,
    pub(crate) subject: String,
    pub(crate) payload: String,
}

/// The readings that no ack has come for yet.
#[derive(Debug)]
pub(crate) struct Outbox {
    waiting: VecDeque<Reading>,
    readings_max: usize,
}

impl Outbox {
    /// An outbox that keeps at most `readings_max` readings.
    pub(crate) fn new(readings_max: usize) -> Self {
        Self { waiting: VecDeque::new(), readings_max }
    }

    /// Adds the newest reading; a full outbox gives up its oldest one for it and returns it.
    pub(crate) fn push(&mut self, reading: Reading) -> Option<Reading> {
        let full = self.waiting.len() >= self.readings_max;
        let dropped = if full { self.waiting.pop_front() } else { None };
        self.waiting.push_back(reading);
        dropped
    }

    /// The reading to send next.
    pub(crate) fn oldest(&self) -> Option<&Reading> {
        self.waiting.front()
    }

    /// Forgets the reading with this id, which is stored. False when it is not the oldest: it
    /// was dropped while it was in flight.
    pub(crate) fn acked(&mut self, id: &str) -> bool {
        self.waiting.pop_front_if(|reading| reading.id == id).is_some()
    }
}

/// How one attempt to store a reading ended.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// The stream has it; `duplicate` when it already had it from an earlier attempt.
    Stored { duplicate: bool },
    /// No ack: whether the stream has it is unknown. Send it again.
    Unknown,
    /// The server answered, but not with an ack; the text is for the operator.
    Refused(String),
}

/// Sends one reading as soon as there is a connection and waits for its ack.
///
/// Gives up waiting when the connection is replaced, since the ack went with the old one.
pub(crate) async fn attempt(jetstream: Context, reading: Reading) -> Attempt {
    let client = jetstream.client();
    while client.connection_state() != State::Connected {
        sleep(CONNECTION_CHECK).await;
    }
    let statistics = client.statistics();
    let connection = statistics.connects.load(Ordering::Relaxed);
    let publish = PublishMessage::build().payload(reading.payload.into()).message_id(reading.id);
    let ack = match jetstream.send_publish(reading.subject, publish).await {
        Ok(ack) => ack,
        Err(error) => return Attempt::Refused(error.to_string()),
    };
    let replaced = async {
        while statistics.connects.load(Ordering::Relaxed) == connection {
            sleep(CONNECTION_CHECK).await;
        }
    };
    tokio::select! {
        answer = timeout(ACK_WAIT, ack.into_future()) => match answer {
            Ok(Ok(ack)) => Attempt::Stored { duplicate: ack.duplicate },
            Ok(Err(error)) => match error.kind() {
                PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe => Attempt::Unknown,
                PublishErrorKind::StreamNotFound => {
                    Attempt::Refused("no stream takes this subject".to_owned())
                }
                _ => Attempt::Refused(error.to_string()),
            },
            Err(_elapsed) => Attempt::Unknown,
        },
        () = replaced => Attempt::Unknown,
    }
}
