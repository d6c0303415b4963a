//! The store in one thread: redb on a medium, and what to do when either fails.
//!
//! Owns the database, its transactions, durability and recovery. Does not own what requests
//! mean (`jetstream::engine`), nor threads ([`super::Store`]).
//!
//! # Invariants
//! - A reply to a change leaves only after the commit that holds the change returned; with
//!   [`SyncPolicy::Always`] that commit, or its entry in the journal, was synced.
//! - Whatever state of the database redb keeps, it says which entries of the journal it
//!   holds: each is in it or applied after it, never both.
//! - After any failure the database is closed and opened anew before it is used: what redb
//!   or the kernel holds in memory then is not believed.
//! - A file that cannot be read is renamed, never changed or deleted.
//! - redb trusts the pages of a file it did not check, and panics at what makes no sense.
//!   Where panics unwind, such a one goes no further than one call from here. In any case
//!   the file is then checked as a whole before it is used again.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use redb::{
    Builder, Database, DatabaseError, Durability, ReadableDatabase, StorageError, WriteTransaction,
};

use super::journal::{Found, Journal, Mark};
use super::medium::{Counted, Counters, Medium};
use super::tables::{ReadRows, WriteRows};
use crate::jetstream::engine::rows::{Rows as _, RowsMut as _, Table};
use crate::jetstream::engine::{self, Applied, ApplyOptions};
use crate::jetstream::storage::{
    Chunk, Removed, StoreError, StoreReply, StoreRequest, StreamUpdate,
};

/// When a commit is synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Before its replies leave.
    Always,
    /// At this pace; a crash loses at most as much.
    Every(Duration),
}

/// How to open a store.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// When an acknowledged message is on the disk.
    pub sync: SyncPolicy,
    /// Memory redb may use for pages, in bytes.
    pub cache_bytes: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { sync: SyncPolicy::Always, cache_bytes: 1024 * 1024 }
    }
}

/// What the store did since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Bytes written to the file.
    pub bytes_written: u64,
    /// Calls that wrote.
    pub writes: u64,
    /// Syncs of the file.
    pub syncs: u64,
    /// Commits.
    pub commits: u64,
    /// Of these, the small ones that went into the journal.
    pub journaled: u64,
    /// Length of the file; it may have holes.
    pub file_bytes: u64,
}

/// With relaxed sync, how many sequences of a stream are set aside at a time.
const RESERVE: u64 = 65_536;
/// A file up to this size is checked as a whole when it is opened, and rebuilt by a walk
/// after a crash: both take milliseconds. Above, each commit keeps what makes an opening
/// quick, which costs a second sync and some pages.
const WALK_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The database, shared with the thread that reads.
#[derive(Debug, Default)]
pub(super) struct Shared {
    database: RwLock<Option<Database>>,
    /// A read met a page that makes no sense.
    is_suspect: AtomicBool,
}

impl Shared {
    fn lock(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts `database` in place of what is there, which is closed.
    fn replace(&self, database: Option<Database>) {
        let old = self.take(database);
        // Closing writes, and may meet what made this necessary.
        let _ = contain(|| drop(old));
    }

    fn take(&self, database: Option<Database>) -> Option<Database> {
        let mut place = self.database.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *place, database)
    }

    /// Answers reads from the newest committed state.
    pub(super) fn read(&self, requests: Vec<StoreRequest>) -> Vec<StoreReply> {
        let guard = self.lock();
        let Some(database) = guard.as_ref() else {
            return engine::refuse(requests, &closed());
        };
        let answered = contain(|| {
            let transaction = database.begin_read().map_err(|error| failed(&error))?;
            let rows = ReadRows::open(&transaction)?;
            Ok(requests.iter().filter_map(|request| engine::answer(&rows, request)).collect())
        });
        match answered {
            Ok(Ok(replies)) => replies,
            Ok(Err(error)) => engine::refuse(requests, &error),
            Err(Senseless) => {
                self.is_suspect.store(true, Ordering::Relaxed);
                engine::refuse(requests, &senseless())
            }
        }
    }
}

/// redb stopped at bytes that no redb wrote.
struct Senseless;

/// Runs what calls redb, and ends a panic here.
fn contain<T>(call: impl FnOnce() -> T) -> Result<T, Senseless> {
    let outer = IS_IN_REDB.replace(true);
    // Nothing that was borrowed is used again: the database is closed after a panic, and
    // what is counted may be off by one.
    let done = std::panic::catch_unwind(AssertUnwindSafe(call)).map_err(|_| Senseless);
    IS_IN_REDB.set(outer);
    done
}

thread_local! {
    static IS_IN_REDB: Cell<bool> = const { Cell::new(false) };
}

/// Where a panic ends the process, this makes one of redb leave a word for the next start.
pub(super) fn mark_on_panic(marker: PathBuf) {
    if cfg!(panic = "unwind") {
        return;
    }
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if IS_IN_REDB.get() {
            // Without it the next start meets the same panic.
            let _ = File::create(&marker);
        }
        print(panic);
    }));
}

fn senseless() -> StoreError {
    StoreError { text: "store: the file is damaged: its pages do not fit together".into() }
}

fn closed() -> StoreError {
    StoreError { text: "store: the file cannot be used at the moment".into() }
}

/// Why the medium could not be opened.
enum OpenError {
    /// In a way that another attempt may mend.
    Trouble(StoreError),
    /// The bytes make no sense.
    Damaged(String),
}

/// A store in one thread. [`super::Store`] runs one in a thread of its own; a simulation
/// calls it directly.
pub struct Disk {
    medium: Box<dyn Medium>,
    options: StoreOptions,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    /// Closed together with the database.
    journal: Option<Journal>,
    /// What failed last, until a commit works again.
    trouble: Option<StoreError>,
    /// Commits that are not synced yet.
    unsynced: bool,
    /// What JetStream must hear of before the next replies.
    news: Vec<StoreReply>,
}

impl Disk {
    /// Opens or begins a store. The replies are [`StoreReply::Recovered`] and, if a damaged
    /// file was set aside, a [`StoreReply::Health`] that says so.
    ///
    /// # Errors
    /// The medium fails, or another process has the store open.
    pub fn open(
        medium: Box<dyn Medium>,
        options: StoreOptions,
    ) -> Result<(Self, Vec<StoreReply>), StoreError> {
        let mut disk = Self {
            medium,
            options,
            shared: Arc::default(),
            counters: Arc::default(),
            journal: None,
            trouble: None,
            unsynced: false,
            news: Vec::new(),
        };
        let recovered = match disk.open_medium() {
            Ok(recovered) => recovered,
            Err(OpenError::Trouble(error)) => return Err(error),
            Err(OpenError::Damaged(why)) => disk.start_anew(&why)?,
        };
        let mut replies = vec![recovered];
        replies.extend(disk.trouble.clone().map(|error| StoreReply::Health(Some(error))));
        Ok((disk, replies))
    }

    fn start_anew(&mut self, why: &str) -> Result<StoreReply, StoreError> {
        let name = self.medium.name();
        self.shared.replace(None);
        let aside = self.medium.set_aside().map_err(|error| StoreError {
            text: format!("{name} is damaged ({why}) and cannot be set aside: {error}"),
        })?;
        // It goes with what it follows.
        self.medium.set_journal_aside().map_err(|error| StoreError {
            text: format!("the journal of {name} cannot be set aside: {error}"),
        })?;
        let text = format!(
            "{name} is damaged ({why}); it was moved to {aside} and an empty store was begun"
        );
        match self.open_medium() {
            Ok(recovered) => {
                self.trouble = Some(StoreError { text });
                Ok(recovered)
            }
            Err(OpenError::Trouble(error)) => Err(error),
            Err(OpenError::Damaged(why)) => {
                Err(StoreError { text: format!("{text}, which failed too: {why}") })
            }
        }
    }

    fn open_medium(&mut self) -> Result<StoreReply, OpenError> {
        let name = self.medium.name();
        let trouble = |what: &dyn std::fmt::Display| StoreError { text: format!("{name}: {what}") };
        let backend = self.medium.open().map_err(|error| OpenError::Trouble(trouble(&error)))?;
        // A process that was killed may have left a commit in the page cache only. The journal
        // it made rubbish must not be written over before that commit is on the disk.
        backend.sync_data().map_err(|error| OpenError::Trouble(trouble(&error)))?;
        let backend =
            Counted::new(backend, Arc::clone(&self.counters)).map_err(OpenError::Trouble)?;
        let mut builder = Builder::new();
        builder.set_cache_size(self.options.cache_bytes);
        let is_small = self.counters.len.load(Ordering::Relaxed) <= WALK_BYTES_MAX;
        let is_suspect = self.medium.is_suspect();
        builder.set_check_integrity_on_open(is_small || is_suspect);
        let opened = contain(|| {
            let database = builder.create_with_backend(backend).map_err(|error| match error {
                DatabaseError::DatabaseAlreadyOpen => OpenError::Trouble(trouble(
                    &"another process has this store open; give each server a store_dir of \
                      its own",
                )),
                DatabaseError::Storage(StorageError::Io(error)) => match error.kind() {
                    io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                        OpenError::Damaged(error.to_string())
                    }
                    _ => OpenError::Trouble(trouble(&error)),
                },
                error => OpenError::Damaged(error.to_string()),
            })?;
            prepare(&database)?;
            let (mut journal, found) = mark(&database)
                .and_then(|mark| {
                    Journal::open(&mut *self.medium, &self.counters, mark)
                        .map_err(|error| StoreError { text: format!("journal: {error}") })
                })
                .map_err(OpenError::Trouble)?;
            let lost = replay(&database, &mut journal, &found).map_err(OpenError::Trouble)?;
            let recovered = recover(&database)?;
            Ok((database, journal, recovered, lost))
        });
        let (database, mut journal, recovered, lost) = opened.unwrap_or_else(|Senseless| {
            Err(OpenError::Damaged("its pages do not fit together".into()))
        })?;
        if is_suspect {
            self.medium.set_suspect(false);
        }
        if let Some(why) = lost {
            journal.forget_file();
            let aside = self
                .medium
                .set_journal_aside()
                .map_err(|error| OpenError::Trouble(trouble(&error)))?
                .unwrap_or_default();
            let text = format!("{name}: {why}; its journal was moved to {aside}");
            self.trouble = Some(StoreError { text });
        }
        self.shared.replace(Some(database));
        self.journal = Some(journal);
        self.unsynced = false;
        Ok(recovered)
    }

    /// Applies requests as one commit, then answers the reads among them. With
    /// [`SyncPolicy::Always`] everything answered is durable.
    pub fn apply_batch(&mut self, requests: Vec<StoreRequest>) -> Vec<StoreReply> {
        let (reads, changes): (Vec<_>, Vec<_>) = requests.into_iter().partition(engine::is_read);
        let mut replies = Vec::new();
        if !changes.is_empty() {
            match self.commit(&changes, true) {
                Ok(Some(applied)) => {
                    replies.append(&mut self.news);
                    if self.trouble.take().is_some() {
                        replies.push(StoreReply::Health(None));
                    }
                    replies.extend(engine::replies(changes, applied));
                }
                // Only a commit that may not sync comes back undone.
                Ok(None) => {}
                Err(error) => {
                    replies.extend(self.fail(&error));
                    replies.extend(engine::refuse(changes, &error));
                }
            }
        }
        if !reads.is_empty() {
            if self.shared.lock().is_none() {
                let _ = self.reopen();
            }
            replies.extend(self.shared.read(reads));
        }
        replies
    }

    /// Applies one change, if that takes no sync and the file is open; gives it back else.
    pub(super) fn apply_at_once(
        &mut self,
        request: StoreRequest,
    ) -> Result<Vec<StoreReply>, Box<StoreRequest>> {
        if self.options.sync == SyncPolicy::Always || self.shared.lock().is_none() {
            return Err(Box::new(request));
        }
        let changes = [request];
        let done = self.commit(&changes, false);
        let [request] = changes;
        match done {
            Ok(Some(applied)) => {
                let mut replies = std::mem::take(&mut self.news);
                replies.extend(engine::replies(vec![request], applied));
                Ok(replies)
            }
            Ok(None) => Err(Box::new(request)),
            Err(error) => {
                let mut replies: Vec<_> = self.fail(&error).into_iter().collect();
                replies.extend(engine::refuse(vec![request], &error));
                Ok(replies)
            }
        }
    }

    /// Syncs what relaxed commits left open.
    pub fn sync(&mut self) -> Vec<StoreReply> {
        if !self.unsynced {
            return Vec::new();
        }
        let synced = contain(|| self.sync_now());
        match synced.unwrap_or_else(|Senseless| Err(self.suspect())) {
            Ok(()) => Vec::new(),
            Err(error) => self.fail(&error).into_iter().collect(),
        }
    }

    fn sync_now(&mut self) -> Result<(), StoreError> {
        let shared = Arc::clone(&self.shared);
        let guard = shared.lock();
        let database = guard.as_ref().ok_or_else(closed)?;
        let transaction = begin(database)?;
        let is_large = self.is_large();
        sync_both(transaction, self.journal.as_mut(), is_large)?;
        drop(guard);
        self.unsynced = false;
        Ok(())
    }

    /// Are there commits that a crash would undo?
    pub fn is_unsynced(&self) -> bool {
        self.unsynced
    }

    /// Did the last commit fail?
    pub fn is_in_trouble(&self) -> bool {
        self.trouble.is_some()
    }

    /// What was done since the store was opened.
    pub fn stats(&self) -> StoreStats {
        stats(&self.counters)
    }

    pub(super) fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Syncs everything and closes the file.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.finish()
    }

    /// As [`Self::close`]; nothing works afterwards.
    pub(super) fn finish(&mut self) -> Result<(), StoreError> {
        let result = contain(|| self.close_database());
        let result = result.unwrap_or_else(|Senseless| Err(self.suspect()));
        self.shared.replace(None);
        self.journal = None;
        result
    }

    fn close_database(&mut self) -> Result<(), StoreError> {
        let Some(database) = self.shared.take(None) else { return Ok(()) };
        let is_relaxed = matches!(self.options.sync, SyncPolicy::Every(_));
        let mut journal = self.journal.take();
        if is_relaxed || journal.as_ref().is_some_and(Journal::is_used) {
            let transaction = begin(&database)?;
            let mut rows = WriteRows::open(&transaction)?;
            engine::settle_reserved(&mut rows, true)?;
            drop(rows);
            sync_both(transaction, journal.as_mut(), false)?;
        }
        database.close().map_err(|error| StoreError { text: format!("store: {error}") })
    }

    fn is_large(&self) -> bool {
        self.counters.len.load(Ordering::Relaxed) > WALK_BYTES_MAX
    }

    /// Closes the database after a failure; the first of several is reported.
    fn fail(&mut self, error: &StoreError) -> Option<StoreReply> {
        self.shared.replace(None);
        self.journal = None;
        let is_new = self.trouble.as_ref() != Some(error);
        self.trouble = Some(error.clone());
        is_new.then(|| StoreReply::Health(Some(error.clone())))
    }

    /// Opens again what a failure has closed.
    pub(super) fn reopen(&mut self) -> Result<(), StoreError> {
        match self.open_medium() {
            Ok(recovered) => {
                self.news = streams_anew(recovered);
                Ok(())
            }
            Err(OpenError::Trouble(error)) => Err(error),
            // Not set aside while running: what JetStream knows would no longer be there.
            Err(OpenError::Damaged(why)) => Err(StoreError {
                text: format!("{} is damaged ({why}); restart to begin anew", self.medium.name()),
            }),
        }
    }

    /// `None`: nothing was done, since it takes a sync and `may_sync` is false.
    fn commit(
        &mut self,
        requests: &[StoreRequest],
        may_sync: bool,
    ) -> Result<Option<Applied>, StoreError> {
        if self.shared.is_suspect.swap(false, Ordering::Relaxed) {
            return Err(self.suspect());
        }
        contain(|| self.commit_uncontained(requests, may_sync))
            .unwrap_or_else(|Senseless| Err(self.suspect()))
    }

    /// From now on the file is not believed until it was checked as a whole, be it by the
    /// next start of the server.
    fn suspect(&mut self) -> StoreError {
        self.medium.set_suspect(true);
        senseless()
    }

    #[inline(never)]
    fn commit_uncontained(
        &mut self,
        requests: &[StoreRequest],
        may_sync: bool,
    ) -> Result<Option<Applied>, StoreError> {
        if self.shared.lock().is_none() {
            self.reopen()?;
        }
        let is_relaxed = matches!(self.options.sync, SyncPolicy::Every(_));
        let mut options =
            ApplyOptions { reserve: is_relaxed.then_some(RESERVE), ..ApplyOptions::default() };
        let is_large = self.is_large();
        let shared = Arc::clone(&self.shared);
        let guard = shared.lock();
        let database = guard.as_ref().ok_or_else(closed)?;
        let mut journal = self.journal.as_mut();
        let mark = match &mut journal {
            Some(journal) if !is_relaxed => journal.prepare(&mut *self.medium, requests),
            _ => None,
        };
        let (transaction, applied) = apply(database, requests, &mut options, mark)?;
        let durable = !is_relaxed || applied.must_sync;
        if durable && !may_sync {
            transaction.abort().map_err(|error| failed(&error))?;
            return Ok(None);
        }
        // When a stream is passed over, the same requests may have another outcome later.
        if mark.is_some()
            && options.broken.is_empty()
            && let Some(journal) = journal
        {
            journal.write().map_err(|error| failed(&error))?;
            commit(transaction, false, false)?;
        } else if durable {
            sync_both(transaction, journal, is_large)?;
        } else {
            commit(transaction, false, false)?;
        }
        self.counters.commits.fetch_add(1, Ordering::Relaxed);
        drop(guard);
        self.unsynced = !durable;
        Ok(Some(applied))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.shared.replace(None);
    }
}

pub(super) fn stats(counters: &Counters) -> StoreStats {
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    StoreStats {
        bytes_written: load(&counters.bytes_written),
        writes: load(&counters.writes),
        syncs: load(&counters.syncs),
        commits: load(&counters.commits),
        journaled: load(&counters.journaled),
        file_bytes: load(&counters.len),
    }
}

fn begin(database: &Database) -> Result<WriteTransaction, StoreError> {
    database.begin_write().map_err(|error| StoreError { text: format!("store: {error}") })
}

fn failed(error: &dyn std::fmt::Display) -> StoreError {
    StoreError { text: format!("store: {error}") }
}

fn commit(
    mut transaction: WriteTransaction,
    durable: bool,
    quick_repair: bool,
) -> Result<(), StoreError> {
    let durability = if durable { Durability::Immediate } else { Durability::None };
    transaction.set_durability(durability).map_err(|error| failed(&error))?;
    transaction.set_quick_repair(quick_repair && durable);
    transaction.commit().map_err(|error| failed(&error))
}

/// Applies requests in a transaction that is not committed yet. One stream's trouble is not
/// that of the others: a stream that cannot be worked on is passed over. `mark` says which
/// entry of the journal this is.
fn apply(
    database: &Database,
    requests: &[StoreRequest],
    options: &mut ApplyOptions,
    mark: Option<Mark>,
) -> Result<(WriteTransaction, Applied), StoreError> {
    loop {
        let transaction = begin(database)?;
        let mut rows = WriteRows::open(&transaction)?;
        let result = engine::apply(&mut rows, requests, options);
        if let Some(mark) = mark
            && options.broken.is_empty()
            && result.is_ok()
        {
            rows.put(Table::Hot, engine::JOURNAL, &mark.record())?;
        }
        drop(rows);
        let failure = match result {
            Ok(applied) => return Ok((transaction, applied)),
            Err(failure) => failure,
        };
        // If redb itself failed, so will this or the next begin.
        transaction.abort().map_err(|_| failure.error.clone())?;
        match failure.stream {
            Some(stream) if !options.broken.contains_key(&stream) => {
                options.broken.insert(stream, failure.error);
            }
            _ => return Err(failure.error),
        }
    }
}

/// Commits and syncs; what is in the journal is then in the database.
fn sync_both(
    transaction: WriteTransaction,
    journal: Option<&mut Journal>,
    quick_repair: bool,
) -> Result<(), StoreError> {
    let Some(journal) = journal.filter(|journal| journal.is_used()) else {
        return commit(transaction, true, quick_repair);
    };
    put_mark(&transaction, journal.next_generation())?;
    commit(transaction, true, quick_repair)?;
    journal.begin_anew();
    Ok(())
}

/// The numbers of all streams, for who knows older ones: of a commit that failed and was
/// refused, everything or nothing may have reached the disk.
fn streams_anew(recovered: StoreReply) -> Vec<StoreReply> {
    let StoreReply::Recovered { streams, .. } = recovered else { return Vec::new() };
    let news = streams.into_iter().map(|found| {
        let removed = Removed::Many { first: 0, last: found.state.last_seq };
        let update = StreamUpdate { stream: found.stream, state: found.state, removed };
        StoreReply::Expired { update, stored: Chunk::default(), before: Vec::new() }
    });
    news.collect()
}

fn put_mark(transaction: &WriteTransaction, mark: Mark) -> Result<(), StoreError> {
    WriteRows::open(transaction)?.put(Table::Hot, engine::JOURNAL, &mark.record())
}

/// Which entries of the journal the database holds.
fn mark(database: &Database) -> Result<Mark, StoreError> {
    let transaction = database.begin_read().map_err(|error| failed(&error))?;
    let rows = ReadRows::open(&transaction)?;
    match rows.get(Table::Hot, engine::JOURNAL, Mark::read)? {
        None => Ok(Mark::default()),
        Some(Some(mark)) => Ok(mark),
        Some(None) => Err(StoreError {
            text: "the record of the journal has a version that this program does not know".into(),
        }),
    }
}

/// Applies what the journal holds, and syncs it. Returns what is lost, if anything is.
fn replay(
    database: &Database,
    journal: &mut Journal,
    found: &Found,
) -> Result<Option<String>, StoreError> {
    let mut lost = found.lost;
    let mut why = String::from("damaged bytes");
    let mut commits = found.commits();
    for (mark, requests) in commits.by_ref() {
        let Some(requests) = requests else {
            lost += 1;
            break;
        };
        let mut options = ApplyOptions::default();
        let (transaction, _) = apply(database, &requests, &mut options, None)?;
        put_mark(&transaction, mark)?;
        commit(transaction, false, false)?;
        if let Some((_, error)) = options.broken.pop_first() {
            lost += 1;
            why = error.text;
        }
    }
    lost += u32::try_from(commits.count()).unwrap_or(u32::MAX);
    if !found.is_empty() || lost > 0 {
        journal.note_replayed();
        sync_both(begin(database)?, Some(journal), false)?;
    }
    Ok((lost > 0).then(|| format!("{lost} acknowledged commits are lost because of {why}")))
}

/// Makes the tables and uses up what a crash left reserved.
fn prepare(database: &Database) -> Result<(), OpenError> {
    let trouble = OpenError::Trouble;
    let damaged = |error: StoreError| OpenError::Damaged(error.text);
    let transaction = database.begin_read().map_err(|error| trouble(failed(&error)))?;
    let must_write = match ReadRows::open(&transaction) {
        Ok(rows) => engine::has_reserved(&rows).map_err(damaged)?,
        // A table is missing: a new file.
        Err(_) => true,
    };
    transaction.close().map_err(|error| OpenError::Damaged(error.to_string()))?;
    if must_write {
        let transaction = begin(database).map_err(trouble)?;
        let mut rows = WriteRows::open(&transaction).map_err(damaged)?;
        engine::settle_reserved(&mut rows, false).map_err(damaged)?;
        drop(rows);
        commit(transaction, true, false).map_err(trouble)?;
    }
    Ok(())
}

/// Reads what there is.
fn recover(database: &Database) -> Result<StoreReply, OpenError> {
    let damaged = |error: StoreError| OpenError::Damaged(error.text);
    let transaction = database.begin_read().map_err(|error| OpenError::Trouble(failed(&error)))?;
    let rows = ReadRows::open(&transaction).map_err(damaged)?;
    engine::recover(&rows).map_err(damaged)
}
