//! What the tests share: disks that forget, and short ways to say a request.

use std::io;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;
use sedge::id::{Rng, StreamId};
use sedge::jetstream::storage::{
    Chunk, PublishBatch, PublishOutcome, StoreReply, StoreRequest, StreamSettings, StreamUpdate,
    Token,
};
use sedge::store::{Disk, Medium, StoreOptions};
use sedge::time::Timestamp;

pub(crate) const STREAM: StreamId = StreamId(1);

/// Seeds to run: `SEDGE_SEED` replays one, `SEDGE_SEEDS` says how many.
pub(crate) fn seeds(count: u64) -> Vec<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("SEDGE_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("SEDGE_SEEDS").unwrap_or(count)).collect(),
    }
}

/// Sectors of a disk are written whole or not at all.
const SECTOR: usize = 512;

/// One file.
#[derive(Debug, Default)]
pub(crate) struct Image {
    /// What reads see.
    pub(crate) written: Vec<u8>,
    /// What a power cut leaves for certain.
    synced: Vec<u8>,
    /// Since the last sync: lengths and writes, in order.
    changes: Vec<Change>,
}

#[derive(Debug, Default)]
pub(crate) struct Platter {
    pub(crate) database: Image,
    pub(crate) journal: Image,
    pub(crate) has_journal: bool,
    pub(crate) set_aside: Vec<Vec<u8>>,
    pub(crate) journals_set_aside: usize,
    pub(crate) is_suspect: bool,
    /// Operations until one fails.
    pub(crate) fail_in: Option<u64>,
    /// All further operations fail.
    pub(crate) is_dead: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Change {
    Len(u64),
    Write(u64, Vec<u8>),
}

impl Platter {
    fn step(&mut self) -> io::Result<()> {
        if self.is_dead {
            return Err(io::Error::other("the disk is gone"));
        }
        if let Some(left) = &mut self.fail_in {
            if *left == 0 {
                self.fail_in = None;
                return Err(io::Error::other("no space left on device"));
            }
            *left -= 1;
        }
        Ok(())
    }

    /// The power goes: of what was not synced, each sector is there or not.
    pub(crate) fn power_cut(&mut self, rng: &mut Rng) {
        self.database.power_cut(rng);
        self.journal.power_cut(rng);
        self.fail_in = None;
        self.is_dead = false;
    }

    fn image(&mut self, is_journal: bool) -> &mut Image {
        if is_journal { &mut self.journal } else { &mut self.database }
    }
}

impl Image {
    fn power_cut(&mut self, rng: &mut Rng) {
        let mut left = std::mem::take(&mut self.synced);
        let tear = rng.below(4);
        for change in std::mem::take(&mut self.changes) {
            match change {
                Change::Len(len) => {
                    if tear == 0 || rng.below(2) == 0 {
                        left.resize(usize::try_from(len).unwrap(), 0);
                    }
                }
                Change::Write(at, data) => {
                    let at = usize::try_from(at).unwrap();
                    for (index, sector) in data.chunks(SECTOR).enumerate() {
                        let kept = match tear {
                            0 => true,
                            1 => false,
                            _ => rng.below(2) == 0,
                        };
                        let start = at + index * SECTOR;
                        if kept {
                            if left.len() < start + sector.len() {
                                left.resize(start + sector.len(), 0);
                            }
                            left[start..start + sector.len()].copy_from_slice(sector);
                        }
                    }
                }
            }
        }
        self.written.clone_from(&left);
        self.synced = left;
    }
}

/// A disk in memory that keeps written and synced bytes apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct TestDisk(pub(crate) Arc<Mutex<Platter>>);

#[derive(Debug)]
struct Backend {
    platter: Arc<Mutex<Platter>>,
    is_journal: bool,
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.platter.lock().unwrap().image(self.is_journal).written.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut platter = self.platter.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let part = platter.image(self.is_journal).written.get(start..start + out.len());
        out.copy_from_slice(part.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.platter.lock().unwrap();
        platter.step()?;
        let image = platter.image(self.is_journal);
        image.written.resize(usize::try_from(len).unwrap(), 0);
        image.changes.push(Change::Len(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.platter.lock().unwrap();
        platter.step()?;
        let image = platter.image(self.is_journal);
        image.changes.clear();
        image.synced.clone_from(&image.written);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platter = self.platter.lock().unwrap();
        platter.step()?;
        let image = platter.image(self.is_journal);
        let start = usize::try_from(offset).unwrap();
        image
            .written
            .get_mut(start..start + data.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?
            .copy_from_slice(data);
        image.changes.push(Change::Write(offset, data.to_vec()));
        Ok(())
    }
}

impl Medium for TestDisk {
    fn open(&mut self) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(Backend { platter: Arc::clone(&self.0), is_journal: false }))
    }

    fn set_aside(&mut self) -> io::Result<String> {
        let mut platter = self.0.lock().unwrap();
        let image = std::mem::take(&mut platter.database);
        platter.set_aside.push(image.written);
        Ok("aside".into())
    }

    fn open_journal(&mut self, create: bool) -> io::Result<Option<Box<dyn StorageBackend>>> {
        let mut platter = self.0.lock().unwrap();
        if !create && !platter.has_journal {
            return Ok(None);
        }
        platter.step()?;
        platter.has_journal = true;
        Ok(Some(Box::new(Backend { platter: Arc::clone(&self.0), is_journal: true })))
    }

    fn set_journal_aside(&mut self) -> io::Result<Option<String>> {
        let mut platter = self.0.lock().unwrap();
        if !std::mem::take(&mut platter.has_journal) {
            return Ok(None);
        }
        platter.journal = Image::default();
        platter.journals_set_aside += 1;
        Ok(Some("journal aside".into()))
    }

    fn set_suspect(&mut self, is_suspect: bool) {
        self.0.lock().unwrap().is_suspect = is_suspect;
    }

    fn is_suspect(&self) -> bool {
        self.0.lock().unwrap().is_suspect
    }

    fn name(&self) -> String {
        "test disk".into()
    }
}

pub(crate) fn open(disk: &TestDisk, options: StoreOptions) -> (Disk, Vec<StoreReply>) {
    Disk::open(Box::new(disk.clone()), options).unwrap()
}

pub(crate) fn settings() -> StreamSettings {
    StreamSettings { name: "S".into(), ..StreamSettings::default() }
}

pub(crate) fn create(settings: StreamSettings) -> StoreRequest {
    let record = b"config".to_vec();
    StoreRequest::CreateStream { token: Token(1), stream: STREAM, settings, record }
}

/// One message as tests say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) at: i64,
    pub(crate) subject: String,
    pub(crate) headers: String,
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn batch(texts: &[Text]) -> PublishBatch {
    let mut batch = PublishBatch::default();
    for text in texts {
        let (subject, headers) = (text.subject.as_bytes(), text.headers.as_bytes());
        assert!(batch.push(STREAM, Timestamp(text.at), subject, b"r", headers, &text.payload));
    }
    batch
}

/// Headers as a block; none for an empty list.
pub(crate) fn headers(fields: &[(&str, &str)]) -> String {
    if fields.is_empty() {
        return String::new();
    }
    let mut lines = String::new();
    for (name, value) in fields {
        lines.push_str(name);
        lines.push_str(": ");
        lines.push_str(value);
        lines.push_str("\r\n");
    }
    format!("NATS/1.0\r\n{lines}\r\n")
}

/// Something that answers requests at once.
pub(crate) trait Answer {
    fn ask(&mut self, request: StoreRequest) -> StoreReply;

    fn publish(&mut self, texts: &[Text]) -> (Vec<PublishOutcome>, Vec<StreamUpdate>) {
        match self.ask(StoreRequest::Publish(batch(texts))) {
            StoreReply::Published { outcomes, updates, .. } => (outcomes, updates),
            other => panic!("{other:?}"),
        }
    }
}

impl Answer for Disk {
    fn ask(&mut self, request: StoreRequest) -> StoreReply {
        let mut replies = self.apply_batch(vec![request]);
        replies.retain(|reply| !matches!(reply, StoreReply::Health(_)));
        // Its reply comes last: after a failure there is news of all streams first.
        replies.pop().unwrap()
    }
}

impl Answer for sedge::jetstream::engine::MemStore {
    fn ask(&mut self, request: StoreRequest) -> StoreReply {
        self.apply(request);
        self.poll_reply().unwrap()
    }
}

/// Sequence, time, subject, headers, payload.
pub(crate) type Row = (u64, i64, String, String, Vec<u8>);

pub(crate) fn rows(chunk: &Chunk) -> Vec<Row> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    chunk
        .msgs
        .iter()
        .map(|msg| {
            (
                msg.seq,
                msg.timestamp.0,
                text(chunk.bytes(&msg.subject)),
                text(chunk.bytes(&msg.headers)),
                chunk.bytes(&msg.payload).to_vec(),
            )
        })
        .collect()
}

/// All messages, read in pieces.
pub(crate) fn read_all(store: &mut dyn Answer) -> Vec<Row> {
    let mut from = 1;
    let mut all = Vec::new();
    for _ in 0..1_000_000 {
        let request = StoreRequest::Read {
            token: Token(9),
            stream: STREAM,
            from,
            filters: Arc::from([]),
            max_msgs: 1_000,
            max_bytes: 65_536,
        };
        let StoreReply::Read { chunk, through, .. } = store.ask(request) else { panic!() };
        let chunk = chunk.unwrap();
        if through < from {
            assert!(chunk.msgs.is_empty());
            return all;
        }
        all.extend(rows(&chunk));
        from = through + 1;
    }
    panic!("a read without an end");
}
