//! The store: messages on disk, in a thread of its own.
//!
//! Owns redb, its file and its threads. Does not own what a message means or which rules
//! apply to it: `jetstream::engine` does.
//!
//! A writer thread drains all waiting requests into one transaction, commits once, and
//! answers all of them. A reader thread, started when it is first needed, answers reads from
//! the newest committed state meanwhile.
//!
//! # Invariants
//! - Replies to changes come in the order of their requests.
//! - The first reply is [`StoreReply::Recovered`].
//! - A reply to a change leaves only after its commit; see [`disk`].

pub mod disk;
mod medium;
mod tables;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use disk::{Disk, StoreOptions, StoreStats, SyncPolicy};
pub use medium::Medium;

use crate::jetstream::engine;
use crate::jetstream::storage::{StoreError, StoreReply, StoreRequest};
use disk::Shared;
use medium::{Counters, FileMedium};

/// Message bytes gathered into one commit.
const COMMIT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long consumer records wait for a commit to ride along with.
const RIDE_ALONG: Duration = Duration::from_millis(500);
/// Between attempts to use a medium that failed.
const RETRY: Duration = Duration::from_secs(1);
/// Stack of each thread; only what is touched counts as memory.
const STACK_BYTES: usize = 512 * 1024;

/// Replies on their way to the shell.
struct Replies {
    queue: Mutex<VecDeque<StoreReply>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Replies {
    fn push(&self, replies: Vec<StoreReply>) {
        if replies.is_empty() {
            return;
        }
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = queue.is_empty();
        queue.extend(replies);
        drop(queue);
        if was_empty {
            (self.wake)();
        }
    }

    fn pop(&self) -> Option<StoreReply> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// A running store. Dropping it closes it.
pub struct Store {
    changes: Option<Sender<StoreRequest>>,
    reads: Option<Sender<StoreRequest>>,
    writer: Option<JoinHandle<Result<(), StoreError>>>,
    reader: Option<JoinHandle<()>>,
    replies: Arc<Replies>,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
}

impl Store {
    /// Opens or begins the store in `dir`. `wake` is called, from the store's threads, when
    /// the first of new replies can be polled.
    ///
    /// # Errors
    /// The file cannot be opened, or another process has it open. A damaged file is no
    /// error: it is set aside, and a [`StoreReply::Health`] after the first reply says so.
    pub fn open(
        dir: &Path,
        options: StoreOptions,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, StoreError> {
        let (disk, first) = Disk::open(Box::new(FileMedium::new(dir)), options)?;
        let replies = Arc::new(Replies { queue: Mutex::default(), wake: Box::new(wake) });
        let (shared, counters) = (disk.shared(), disk.counters());
        let (changes, waiting) = mpsc::channel();
        let writer = Writer {
            disk,
            options,
            waiting,
            replies: Arc::clone(&replies),
            riders: Vec::new(),
            sync_at: None,
            ride_by: None,
            retry_at: None,
        };
        replies.push(first);
        let writer = spawn("store-write", move || writer.run())?;
        Ok(Self {
            changes: Some(changes),
            reads: None,
            writer: Some(writer),
            reader: None,
            replies,
            shared,
            counters,
        })
    }

    /// Hands over a request; its reply comes through [`Store::poll_reply`].
    pub fn submit(&mut self, request: StoreRequest) {
        if engine::is_read(&request) {
            self.submit_read(request);
            return;
        }
        let unsent = match &self.changes {
            Some(changes) => changes.send(request).err().map(|error| error.0),
            None => Some(request),
        };
        if let Some(request) = unsent {
            self.replies.push(engine::refuse(vec![request], &stopped()));
        }
    }

    fn submit_read(&mut self, request: StoreRequest) {
        if self.reads.is_none() {
            let (reads, waiting) = mpsc::channel::<StoreRequest>();
            let (replies, shared) = (Arc::clone(&self.replies), Arc::clone(&self.shared));
            match spawn("store-read", move || read_all(&waiting, &shared, &replies)) {
                Ok(thread) => {
                    self.reader = Some(thread);
                    self.reads = Some(reads);
                }
                Err(error) => {
                    self.replies.push(engine::refuse(vec![request], &error));
                    return;
                }
            }
        }
        let unsent = match &self.reads {
            Some(reads) => reads.send(request).err().map(|error| error.0),
            None => None,
        };
        if let Some(request) = unsent {
            self.replies.push(engine::refuse(vec![request], &stopped()));
        }
    }

    /// The next reply, oldest first. Once it gives `None`, the next reply will wake.
    pub fn poll_reply(&self) -> Option<StoreReply> {
        self.replies.pop()
    }

    /// What was done since the store was opened.
    pub fn stats(&self) -> StoreStats {
        disk::stats(&self.counters)
    }

    /// Commits all that was submitted, syncs and closes the file. Replies can still be
    /// polled.
    pub fn close(&mut self) -> Result<(), StoreError> {
        self.reads = None;
        if let Some(reader) = self.reader.take() {
            reader.join().map_err(|_| stopped())?;
        }
        self.changes = None;
        match self.writer.take() {
            Some(writer) => writer.join().map_err(|_| stopped())?,
            None => Ok(()),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Whoever wants to know closes it first.
        let _ = self.close();
    }
}

fn stopped() -> StoreError {
    StoreError { text: "store: its thread has stopped".into() }
}

fn spawn<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, StoreError> {
    std::thread::Builder::new()
        .name(name.into())
        .stack_size(STACK_BYTES)
        .spawn(run)
        .map_err(|error| StoreError { text: format!("store: cannot start a thread: {error}") })
}

fn read_all(waiting: &Receiver<StoreRequest>, shared: &Shared, replies: &Replies) {
    while let Ok(first) = waiting.recv() {
        // One transaction for what waits, but a reply as soon as it is there.
        replies.push(shared.read(vec![first]));
    }
}

#[expect(clippy::disallowed_methods, reason = "the pace of syncs is kept by this thread")]
fn now() -> Instant {
    Instant::now()
}

/// The thread that owns the disk.
struct Writer {
    disk: Disk,
    options: StoreOptions,
    waiting: Receiver<StoreRequest>,
    replies: Arc<Replies>,
    /// Consumer records that wait for a commit to ride along with.
    riders: Vec<StoreRequest>,
    sync_at: Option<Instant>,
    ride_by: Option<Instant>,
    retry_at: Option<Instant>,
}

impl Writer {
    fn run(mut self) -> Result<(), StoreError> {
        loop {
            let deadline = [self.sync_at, self.ride_by].into_iter().flatten().min();
            let next = match deadline {
                None => self.waiting.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => self.waiting.recv_timeout(at.saturating_duration_since(now())),
            };
            match next {
                Ok(first) => self.gather(first),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.ride_by.is_some_and(|at| at <= now()) {
                self.commit(Vec::new());
            }
            if self.sync_at.is_some_and(|at| at <= now()) {
                self.sync_at = None;
                let replies = self.disk.sync();
                self.replies.push(replies);
            }
        }
        self.commit(Vec::new());
        self.disk.close()
    }

    /// Takes what waits, up to a commit's worth.
    fn gather(&mut self, first: StoreRequest) {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(request) = next {
            if let StoreRequest::Publish(publish) = &request {
                bytes += publish.data.len();
            }
            if is_rider(&request) && batch.is_empty() {
                self.ride(request);
            } else {
                batch.push(request);
            }
            next = if bytes < COMMIT_BYTES_MAX { self.waiting.try_recv().ok() } else { None };
        }
        if !batch.is_empty() {
            self.commit(batch);
        }
    }

    /// Keeps a consumer's record for the next commit; only its newest counts.
    fn ride(&mut self, request: StoreRequest) {
        if let Some(place) = self.riders.iter_mut().find(|rider| is_same_consumer(rider, &request))
        {
            *place = request;
        } else {
            self.riders.push(request);
        }
        if self.ride_by.is_none() {
            self.ride_by = Some(now() + RIDE_ALONG);
        }
    }

    fn commit(&mut self, batch: Vec<StoreRequest>) {
        let mut requests = std::mem::take(&mut self.riders);
        self.ride_by = None;
        requests.extend(batch);
        if requests.is_empty() {
            return;
        }
        if let Some(at) = self.retry_at {
            if now() < at {
                let error =
                    StoreError { text: "store: waiting for the medium to work again".into() };
                self.replies.push(engine::refuse(requests, &error));
                return;
            }
            self.retry_at = None;
        }
        let replies = self.disk.apply_batch(requests);
        self.replies.push(replies);
        if self.disk.is_in_trouble() {
            self.retry_at = Some(now() + RETRY);
            // So that reads go on, where they can.
            let _ = self.disk.reopen();
        }
        if let SyncPolicy::Every(pace) = self.options.sync
            && self.disk.is_unsynced()
            && self.sync_at.is_none()
        {
            self.sync_at = Some(now() + pace);
        }
    }
}

fn is_rider(request: &StoreRequest) -> bool {
    matches!(
        request,
        StoreRequest::PutConsumer { token: None, .. } | StoreRequest::DeleteConsumer { .. }
    )
}

fn is_same_consumer(a: &StoreRequest, b: &StoreRequest) -> bool {
    fn consumer(request: &StoreRequest) -> Option<(crate::id::StreamId, &str)> {
        match request {
            StoreRequest::PutConsumer { stream, consumer, .. } => Some((*stream, &consumer.name)),
            StoreRequest::DeleteConsumer { stream, name } => Some((*stream, name)),
            _ => None,
        }
    }
    consumer(a) == consumer(b)
}
