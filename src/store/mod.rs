//! The store: messages on disk, in a thread of its own.
//!
//! Owns redb, its file and its threads. Does not own what a message means or which rules
//! apply to it: `jetstream::engine` does.
//!
//! A writer thread drains all waiting requests into one transaction, commits once, and
//! answers all of them. A reader thread, started when it is first needed, answers reads from
//! the newest committed state meanwhile.
//!
//! With relaxed sync a few messages alone are applied by the thread that submits them, if
//! the writer is idle: nothing is synced then, and two threads that wake each other cost
//! more than the work.
//!
//! # Invariants
//! - Replies to changes come in the order of their requests.
//! - The first reply is [`StoreReply::Recovered`].
//! - A reply to a change leaves only after its commit; see [`disk`].
//! - The thread that submits never waits for the writer, nor for a sync.

pub mod disk;
mod journal;
mod medium;
mod tables;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
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
/// A commit that answered fewer messages is not waited for by the next one.
const LINGER_ITEMS_MIN: usize = 32;
/// For how much of the time the last commit took, the next one waits for company.
const LINGER_SHARE: u32 = 8;
/// The least and the most of that wait.
const LINGER: (Duration, Duration) = (Duration::from_micros(50), Duration::from_micros(500));
/// What the submitting thread applies itself, with relaxed sync: messages and their bytes.
const AT_ONCE_MAX: (usize, usize) = (16, 16 * 1024);
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

/// What the writer is told.
enum Order {
    Change(StoreRequest),
    /// There is a new deadline.
    Look,
}

/// What the writer and the thread that submits share.
struct Desk {
    worker: Mutex<Worker>,
    /// Changes handed over and not answered yet.
    waiting: AtomicUsize,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Worker> {
        self.worker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// If nobody else works.
    fn try_lock(&self) -> Option<MutexGuard<'_, Worker>> {
        match self.worker.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// A running store. Dropping it closes it.
pub struct Store {
    changes: Option<Sender<Order>>,
    reads: Option<Sender<StoreRequest>>,
    writer: Option<JoinHandle<Result<(), StoreError>>>,
    reader: Option<JoinHandle<()>>,
    replies: Arc<Replies>,
    desk: Arc<Desk>,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    is_relaxed: bool,
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
        let medium = FileMedium::new(dir);
        disk::mark_on_panic(medium.marker());
        let (disk, first) = Disk::open(Box::new(medium), options)?;
        let replies = Arc::new(Replies { queue: Mutex::default(), wake: Box::new(wake) });
        let (shared, counters) = (disk.shared(), disk.counters());
        let worker = Worker {
            disk,
            options,
            replies: Arc::clone(&replies),
            riders: Vec::new(),
            sync_at: None,
            ride_by: None,
            retry_at: None,
            last_items: 0,
            last_took: Duration::ZERO,
        };
        let desk = Arc::new(Desk { worker: Mutex::new(worker), waiting: AtomicUsize::new(0) });
        let (changes, orders) = mpsc::channel();
        let writer = Writer { desk: Arc::clone(&desk), orders };
        replies.push(first);
        let writer = spawn("store-write", move || writer.run())?;
        Ok(Self {
            changes: Some(changes),
            reads: None,
            writer: Some(writer),
            reader: None,
            replies,
            desk,
            shared,
            counters,
            is_relaxed: matches!(options.sync, SyncPolicy::Every(_)),
        })
    }

    /// Hands over a request; its reply comes through [`Store::poll_reply`].
    pub fn submit(&mut self, request: StoreRequest) {
        if engine::is_read(&request) {
            self.submit_read(request);
            return;
        }
        let Some(request) = self.apply_at_once(request) else { return };
        self.desk.waiting.fetch_add(1, Ordering::Relaxed);
        let unsent = match &self.changes {
            Some(changes) => changes.send(Order::Change(request)).err().map(|error| error.0),
            None => Some(Order::Change(request)),
        };
        if let Some(Order::Change(request)) = unsent {
            self.replies.push(engine::refuse(vec![request], &stopped()));
        }
    }

    /// Gives back what the writer has to do.
    fn apply_at_once(&mut self, request: StoreRequest) -> Option<StoreRequest> {
        let is_small = match &request {
            StoreRequest::Publish(batch) => {
                batch.items.len() <= AT_ONCE_MAX.0 && batch.data.len() <= AT_ONCE_MAX.1
            }
            _ => false,
        };
        let Some(changes) = self.changes.as_ref().filter(|_| self.is_relaxed && is_small) else {
            return Some(request);
        };
        // Acquire: what the writer did before it counted itself idle is done.
        if self.desk.waiting.load(Ordering::Acquire) > 0 {
            return Some(request);
        }
        let Some(mut worker) = self.desk.try_lock() else { return Some(request) };
        let deadline = worker.deadline();
        let left = worker.apply_at_once(request);
        if worker.deadline() != deadline {
            // Should the writer be gone, the next change will find out.
            let _ = changes.send(Order::Look);
        }
        left
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

/// The thread that waits for changes and deadlines.
struct Writer {
    desk: Arc<Desk>,
    orders: Receiver<Order>,
}

impl Writer {
    fn run(self) -> Result<(), StoreError> {
        loop {
            // A deadline set after this line comes with an `Order::Look`.
            let deadline = self.desk.lock().deadline();
            let next = match deadline {
                None => self.orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => self.orders.recv_timeout(at.saturating_duration_since(now())),
            };
            match next {
                Ok(Order::Change(first)) => self.change(first),
                Ok(Order::Look) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.desk.lock().keep_deadlines();
        }
        let mut worker = self.desk.lock();
        worker.commit(Vec::new());
        worker.disk.finish()
    }

    fn change(&self, first: StoreRequest) {
        let company = self.desk.lock().company();
        let batch = self.gather(first, company);
        let count = batch.len();
        let mut worker = self.desk.lock();
        worker.take(batch);
        self.desk.waiting.fetch_sub(count, Ordering::Release);
    }

    /// Takes what waits, up to a commit's worth. Whoever was answered by the last commit
    /// asks again soon: without waiting for them, a window of messages on their way falls
    /// into two halves that take turns, each paying for a sync of its own.
    fn gather(&self, first: StoreRequest, company: Option<(usize, Duration)>) -> Vec<StoreRequest> {
        let (mut items, mut bytes) = size_of(&first);
        let mut batch = vec![first];
        while bytes < COMMIT_BYTES_MAX
            && let Ok(order) = self.orders.try_recv()
        {
            add(order, &mut batch, &mut items, &mut bytes);
        }
        let Some((expected, linger)) = company else { return batch };
        // What is here now was not answered by the last commit.
        let expected = expected.saturating_add(items);
        let until = now() + linger;
        while items < expected && bytes < COMMIT_BYTES_MAX {
            match self.orders.recv_timeout(until.saturating_duration_since(now())) {
                Ok(order) => add(order, &mut batch, &mut items, &mut bytes),
                Err(_) => break,
            }
        }
        batch
    }
}

fn add(order: Order, batch: &mut Vec<StoreRequest>, items: &mut usize, bytes: &mut usize) {
    if let Order::Change(request) = order {
        let (more_items, more_bytes) = size_of(&request);
        *items += more_items;
        *bytes += more_bytes;
        batch.push(request);
    }
}

/// Messages to be stored, and their bytes.
fn size_of(request: &StoreRequest) -> (usize, usize) {
    match request {
        StoreRequest::Publish(batch) => (batch.items.len(), batch.data.len()),
        _ => (0, 0),
    }
}

/// Whoever has this has the disk.
struct Worker {
    disk: Disk,
    options: StoreOptions,
    replies: Arc<Replies>,
    /// Consumer records that wait for a commit to ride along with.
    riders: Vec<StoreRequest>,
    sync_at: Option<Instant>,
    ride_by: Option<Instant>,
    retry_at: Option<Instant>,
    /// Messages in the last commit, and how long it took.
    last_items: usize,
    last_took: Duration,
}

impl Worker {
    fn deadline(&self) -> Option<Instant> {
        [self.sync_at, self.ride_by].into_iter().flatten().min()
    }

    fn keep_deadlines(&mut self) {
        if self.deadline().is_none_or(|at| at > now()) {
            return;
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

    /// How many messages the next commit should wait for, and how long.
    fn company(&self) -> Option<(usize, Duration)> {
        let is_wanted =
            self.options.sync == SyncPolicy::Always && self.last_items >= LINGER_ITEMS_MIN;
        is_wanted
            .then(|| (self.last_items, (self.last_took / LINGER_SHARE).clamp(LINGER.0, LINGER.1)))
    }

    /// Does what was gathered.
    fn take(&mut self, batch: Vec<StoreRequest>) {
        if batch.iter().all(is_rider) {
            for request in batch {
                self.ride(request);
            }
            return;
        }
        self.last_items = batch.iter().map(|request| size_of(request).0).sum();
        let start = now();
        self.commit(batch);
        self.last_took = now().saturating_duration_since(start);
    }

    /// Applies a small batch unless that needs a sync or something is wrong; gives it back
    /// then.
    fn apply_at_once(&mut self, request: StoreRequest) -> Option<StoreRequest> {
        if !self.riders.is_empty() || self.retry_at.is_some() || self.disk.is_in_trouble() {
            return Some(request);
        }
        match self.disk.apply_at_once(request) {
            Ok(replies) => {
                self.replies.push(replies);
                self.plan_sync();
                None
            }
            Err(request) => Some(*request),
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
        self.plan_sync();
    }

    fn plan_sync(&mut self) {
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
