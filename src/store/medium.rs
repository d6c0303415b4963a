//! What redb writes to: a file, or whatever a test puts in its place; counted either way.
//!
//! Owns the store's file and its name, and the numbers of bytes and syncs. Does not own what
//! is in the file.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

use crate::jetstream::storage::StoreError;

/// Where a store's bytes are, and how to get at them again after a failure.
pub trait Medium: Send {
    /// Opens what is there, empty or not. Called again after a failure.
    fn open(&mut self) -> io::Result<Box<dyn StorageBackend>>;

    /// Puts what is there aside, because it cannot be read, and returns its new name; the
    /// next [`Medium::open`] finds nothing.
    fn set_aside(&mut self) -> io::Result<String>;

    /// Opens the journal beside it; `None` if there is none and `create` is false.
    fn open_journal(&mut self, create: bool) -> io::Result<Option<Box<dyn StorageBackend>>>;

    /// Puts the journal aside, and returns its new name; `None` if there is none.
    fn set_journal_aside(&mut self) -> io::Result<Option<String>>;

    /// Remembers, beyond the end of the process, whether the file needs to be checked as a
    /// whole. A medium may forget.
    fn set_suspect(&mut self, _is_suspect: bool) {}

    /// Should the file be checked as a whole?
    fn is_suspect(&self) -> bool {
        false
    }

    /// For texts.
    fn name(&self) -> String;
}

/// The files `sedge.redb` and `sedge.journal` in a directory.
#[derive(Debug)]
pub(super) struct FileMedium {
    dir: PathBuf,
    was_open: bool,
}

const FILE_NAME: &str = "sedge.redb";
const JOURNAL_NAME: &str = "sedge.journal";
/// Empty; that it is there says that the store should be checked.
const SUSPECT_NAME: &str = "sedge.redb.suspect";

impl FileMedium {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf(), was_open: false }
    }

    fn path(&self) -> PathBuf {
        self.dir.join(FILE_NAME)
    }

    /// Is there if the file is suspect.
    pub(super) fn marker(&self) -> PathBuf {
        self.dir.join(SUSPECT_NAME)
    }

    /// `None` if it is not there and not to be made.
    fn open_file(&self, name: &str, create: bool) -> io::Result<Option<File>> {
        let path = self.dir.join(name);
        let is_new = !path.exists();
        if is_new && !create {
            return Ok(None);
        }
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        if is_new {
            // Without this a power cut may take the file's name away.
            self.sync_dir()?;
        }
        if self.was_open {
            // After a failed sync the kernel may hold pages that never reached the disk and
            // call them clean. Read back what is really there.
            let _ = file.sync_all();
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        }
        Ok(Some(file))
    }

    fn rename(&self, name: &str) -> io::Result<String> {
        let mut number = 1_u32;
        loop {
            let target = self.dir.join(format!("{name}.damaged-{number}"));
            if !target.exists() {
                std::fs::rename(self.dir.join(name), &target)?;
                self.sync_dir()?;
                return Ok(target.display().to_string());
            }
            number = number.checked_add(1).ok_or_else(|| io::Error::other("too many names"))?;
        }
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

impl Medium for FileMedium {
    fn open(&mut self) -> io::Result<Box<dyn StorageBackend>> {
        std::fs::create_dir_all(&self.dir)?;
        let file = self.open_file(FILE_NAME, true)?.ok_or(io::ErrorKind::NotFound)?;
        self.was_open = true;
        FileBackend::new(file)
            .map(|backend| Box::new(backend) as Box<dyn StorageBackend>)
            .map_err(io::Error::other)
    }

    fn set_aside(&mut self) -> io::Result<String> {
        self.rename(FILE_NAME)
    }

    fn open_journal(&mut self, create: bool) -> io::Result<Option<Box<dyn StorageBackend>>> {
        let Some(file) = self.open_file(JOURNAL_NAME, create)? else { return Ok(None) };
        let backend = FileBackend::new(file).map_err(io::Error::other)?;
        Ok(Some(Box::new(backend)))
    }

    fn set_journal_aside(&mut self) -> io::Result<Option<String>> {
        if !self.dir.join(JOURNAL_NAME).exists() {
            return Ok(None);
        }
        self.rename(JOURNAL_NAME).map(Some)
    }

    fn set_suspect(&mut self, is_suspect: bool) {
        let path = self.marker();
        // Without it the next start finds the damage where this one did.
        let _ = if is_suspect { File::create(path).map(drop) } else { std::fs::remove_file(path) };
        let _ = self.sync_dir();
    }

    fn is_suspect(&self) -> bool {
        self.marker().exists()
    }

    fn name(&self) -> String {
        self.path().display().to_string()
    }
}

/// What was done to the medium since the start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub bytes_written: AtomicU64,
    pub writes: AtomicU64,
    pub syncs: AtomicU64,
    pub commits: AtomicU64,
    /// Of the commits, those that went into the journal.
    pub journaled: AtomicU64,
    pub len: AtomicU64,
}

/// Counts what redb asks of a backend.
#[derive(Debug)]
pub(super) struct Counted {
    inner: Box<dyn StorageBackend>,
    counters: Arc<Counters>,
    /// Its length is that of the store.
    is_database: bool,
}

impl Counted {
    pub(super) fn new(
        inner: Box<dyn StorageBackend>,
        counters: Arc<Counters>,
    ) -> Result<Self, StoreError> {
        let len = inner.len().map_err(|error| StoreError { text: format!("store: {error}") })?;
        counters.len.store(len, Ordering::Relaxed);
        Ok(Self { inner, counters, is_database: true })
    }

    /// For a file beside the database.
    pub(super) fn beside(inner: Box<dyn StorageBackend>, counters: Arc<Counters>) -> Self {
        Self { inner, counters, is_database: false }
    }
}

impl StorageBackend for Counted {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)?;
        if self.is_database {
            self.counters.len.store(len, Ordering::Relaxed);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.counters.syncs.fetch_add(1, Ordering::Relaxed);
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.counters.writes.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes_written.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
