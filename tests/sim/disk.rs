//! The disk of a gateway: a page cache over a medium, with all the ways both can fail.
//!
//! Owns the bytes of both files, the database and the journal: those a process sees, and those that are sure to outlive a power cut. What lies
//! between, written but not synced, survives a SIGKILL; a power cut keeps, loses or tears
//! each piece of it.

use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;
use sedge::store::Medium;

use crate::chance::Chance;

const PAGE: usize = 4096;
/// What a device writes whole or not at all.
const SECTOR: usize = 512;

/// How ill the disk is at the moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Illness {
    /// Syncs that fail, of a thousand.
    pub(crate) sync_fails: u64,
    /// Writes that fail, of a thousand.
    pub(crate) write_fails: u64,
    /// No page can be added.
    pub(crate) full: bool,
}

/// A disk that outlives the processes that use it. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

/// One file.
#[derive(Debug, Default)]
struct Image {
    /// What a read returns.
    cache: Vec<u8>,
    /// What is there after any power cut.
    medium: Vec<u8>,
    /// Pages that have a place on the medium.
    allocated: Vec<bool>,
}

/// Which file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Database,
    Journal,
}

#[derive(Debug)]
struct State {
    images: [Image; 2],
    has_journal: bool,
    /// What was done to the caches and may not be on the medium yet, in order.
    log: Vec<(Name, Op)>,
    /// While set, what is logged from here on takes time: it has been answered, but a crash
    /// may come before any of it.
    held_from: Option<usize>,
    /// Operations until the process that does them is gone.
    lives: Option<u64>,
    illness: Illness,
    chance: Chance,
    /// Which opening the current backend is from: older ones are of dead processes.
    opening: u64,
    set_aside: bool,
}

#[derive(Debug)]
enum Op {
    Write { offset: usize, data: Vec<u8> },
    SetLen(usize),
    Sync,
    FailedSync(u64),
}

impl Op {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write { offset, data } => {
                let end = offset + data.len();
                if image.len() < end {
                    image.resize(end, 0);
                }
                image[*offset..end].copy_from_slice(data);
            }
            Self::SetLen(len) => image.resize(*len, 0),
            Self::Sync | Self::FailedSync(_) => {}
        }
    }
}

impl State {
    fn image(&mut self, name: Name) -> &mut Image {
        &mut self.images[name as usize]
    }

    /// Lets the logged syncs have their effect.
    fn settle(&mut self) {
        let mut open: Vec<(Name, Op)> = Vec::new();
        for (name, op) in std::mem::take(&mut self.log) {
            match op {
                Op::Sync => {
                    for (_, op) in open.extract_if(.., |(other, _)| *other == name) {
                        op.apply(&mut self.images[name as usize].medium);
                    }
                }
                // The kernel tried: some of it is written, and all of it is now called
                // clean, so that no later sync tries again.
                Op::FailedSync(seed) => {
                    let mut chance = Chance::new(seed);
                    for (_, op) in open.extract_if(.., |(other, _)| *other == name) {
                        if matches!(op, Op::SetLen(_)) || chance.happens(500) {
                            op.apply(&mut self.images[name as usize].medium);
                        }
                    }
                }
                op => open.push((name, op)),
            }
        }
        self.log = open;
    }

    fn settle_unless_held(&mut self) {
        if self.held_from.is_none() {
            self.settle();
        }
    }

    /// Forgets what a crash prevented, of what takes time.
    fn cut_held(&mut self) {
        if let Some(from) = self.held_from.take() {
            let keep = self.chance.size(from, self.log.len());
            self.log.truncate(keep);
        }
        self.settle();
    }

    /// The cache without the pages that are there only.
    fn reload(&mut self) {
        for image in &mut self.images {
            image.cache.clone_from(&image.medium);
        }
        for (name, op) in &self.log {
            op.apply(&mut self.images[*name as usize].cache);
        }
    }
}

impl Image {
    fn is_allocated(&self, offset: usize, len: usize) -> bool {
        let pages = offset / PAGE..(offset + len).div_ceil(PAGE);
        pages.into_iter().all(|page| self.allocated.get(page).copied().unwrap_or(false))
    }

    fn allocate(&mut self, offset: usize, len: usize) {
        let pages = offset / PAGE..(offset + len).div_ceil(PAGE);
        if self.allocated.len() < pages.end {
            self.allocated.resize(pages.end, false);
        }
        self.allocated[pages].fill(true);
    }
}

impl SimDisk {
    /// Empty.
    pub(crate) fn new(chance: Chance) -> Self {
        Self(Arc::new(Mutex::new(State {
            images: Default::default(),
            has_journal: false,
            log: Vec::new(),
            held_from: None,
            lives: None,
            illness: Illness::default(),
            chance,
            opening: 0,
            set_aside: false,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("one thread uses it")
    }

    /// From now on.
    pub(crate) fn set_illness(&self, illness: Illness) {
        self.state().illness = illness;
    }

    /// What happens on the disk from now on is answered at once but takes until
    /// [`Self::release`].
    pub(crate) fn hold(&self) {
        let mut state = self.state();
        state.held_from = Some(state.log.len());
    }

    /// See [`Self::hold`].
    pub(crate) fn release(&self) {
        let mut state = self.state();
        state.held_from = None;
        state.settle();
    }

    /// The process can do so many more operations; then it is gone.
    pub(crate) fn kill_after(&self, operations: u64) {
        self.state().lives = Some(operations);
    }

    /// Has the process had its last operation?
    pub(crate) fn is_dead(&self) -> bool {
        self.state().lives == Some(0)
    }

    /// After the process is gone: the page cache stays.
    pub(crate) fn after_sigkill(&self) {
        let mut state = self.state();
        state.opening += 1;
        state.lives = None;
        state.cut_held();
        state.reload();
    }

    /// After the process is gone: what was not synced is kept, lost or torn.
    pub(crate) fn after_power_cut(&self) {
        let mut state = self.state();
        state.opening += 1;
        state.lives = None;
        state.cut_held();
        let log = std::mem::take(&mut state.log);
        let kept = state.chance.pick(&[0, 0, 300, 700, 1000]);
        for (name, op) in log {
            match &op {
                Op::SetLen(_) => {
                    if state.chance.happens(kept) {
                        op.apply(&mut state.image(name).medium);
                    }
                }
                Op::Write { offset, data } => {
                    let is_torn = state.chance.happens(100);
                    let mut keep = state.chance.happens(kept);
                    for (index, sector) in data.chunks(SECTOR).enumerate() {
                        if is_torn {
                            keep = state.chance.happens(kept);
                        }
                        let start = offset + index * SECTOR;
                        let end = start + sector.len();
                        if keep && end <= state.image(name).medium.len() {
                            state.image(name).medium[start..end].copy_from_slice(sector);
                        }
                    }
                }
                Op::Sync | Op::FailedSync(_) => {}
            }
        }
        state.reload();
    }

    /// Was the file ever found damaged?
    pub(crate) fn was_set_aside(&self) -> bool {
        self.state().set_aside
    }
}

impl Medium for SimDisk {
    fn open(&mut self) -> Result<Box<dyn StorageBackend>> {
        let mut state = self.state();
        if state.lives == Some(0) {
            return Err(gone());
        }
        state.opening += 1;
        // The kernel is told to forget what it calls clean.
        if state.held_from.is_none() {
            state.reload();
        }
        let opening = state.opening;
        Ok(Box::new(Backend { disk: self.clone(), opening, name: Name::Database }))
    }

    fn set_aside(&mut self) -> Result<String> {
        let mut state = self.state();
        state.set_aside = true;
        *state.image(Name::Database) = Image::default();
        state.log.retain(|(name, _)| *name != Name::Database);
        Ok("aside".into())
    }

    fn open_journal(&mut self, create: bool) -> Result<Option<Box<dyn StorageBackend>>> {
        let mut state = self.state();
        if state.lives == Some(0) {
            return Err(gone());
        }
        if !create && !state.has_journal {
            return Ok(None);
        }
        state.has_journal = true;
        let opening = state.opening;
        Ok(Some(Box::new(Backend { disk: self.clone(), opening, name: Name::Journal })))
    }

    fn set_journal_aside(&mut self) -> Result<Option<String>> {
        let mut state = self.state();
        if !std::mem::take(&mut state.has_journal) {
            return Ok(None);
        }
        state.set_aside = true;
        *state.image(Name::Journal) = Image::default();
        state.log.retain(|(name, _)| *name != Name::Journal);
        Ok(Some("journal aside".into()))
    }

    fn name(&self) -> String {
        "disk".into()
    }
}

fn gone() -> Error {
    Error::other("the process is gone")
}

#[derive(Debug)]
struct Backend {
    disk: SimDisk,
    opening: u64,
    name: Name,
}

impl Backend {
    /// Takes one operation of the process's life.
    fn begin(&self) -> Result<MutexGuard<'_, State>> {
        let mut state = self.disk.state();
        if state.opening != self.opening {
            return Err(gone());
        }
        match &mut state.lives {
            None => {}
            Some(0) => return Err(gone()),
            Some(lives) => *lives -= 1,
        }
        Ok(state)
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> Result<u64> {
        Ok(self.disk.state().image(self.name).cache.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let mut state = self.disk.state();
        let start = usize::try_from(offset).map_err(Error::other)?;
        let bytes = state
            .image(self.name)
            .cache
            .get(start..start + out.len())
            .ok_or_else(|| Error::from(ErrorKind::UnexpectedEof))?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut state = self.begin()?;
        let len = usize::try_from(len).map_err(Error::other)?;
        if state.illness.full && len > state.image(self.name).cache.len() {
            return Err(Error::from(ErrorKind::StorageFull));
        }
        let op = Op::SetLen(len);
        op.apply(&mut state.image(self.name).cache);
        state.log.push((self.name, op));
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        let mut state = self.begin()?;
        let rate = state.illness.sync_fails;
        if state.chance.happens(rate) {
            let seed = state.chance.bits();
            state.log.push((self.name, Op::FailedSync(seed)));
            state.settle_unless_held();
            return Err(Error::other("sync failed"));
        }
        state.log.push((self.name, Op::Sync));
        state.settle_unless_held();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut state = self.begin()?;
        let offset = usize::try_from(offset).map_err(Error::other)?;
        let Illness { write_fails, full, .. } = state.illness;
        if state.chance.happens(write_fails) {
            return Err(Error::other("write failed"));
        }
        if full && !state.image(self.name).is_allocated(offset, data.len()) {
            return Err(Error::from(ErrorKind::StorageFull));
        }
        state.image(self.name).allocate(offset, data.len());
        let op = Op::Write { offset, data: data.to_vec() };
        op.apply(&mut state.image(self.name).cache);
        state.log.push((self.name, op));
        Ok(())
    }
}
