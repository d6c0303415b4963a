//! Backups: `STREAM.SNAPSHOT` and `STREAM.RESTORE`.
//!
//! Owns what is under way, in both directions. One concern a file:
//!
//! | File | Owns |
//! | --- | --- |
//! | `frame` | the container: chunks, checksums, compressed blocks |
//! | `archive` | the entries in it |
//! | `snapshot` | sending one, at the pace of the receiver |
//! | `restore` | taking one in |
//!
//! Archives are those of nats-server, so that a stream can be carried from either to the other.
//!
//! # Invariants
//! - At most `limits::BACKUPS_MAX` are under way, and each holds a bounded part in memory.
//!
//! Source: nats-server 2.15.1 on the wire; the `nats` command line is the other side.

mod archive;
mod frame;
mod restore;
mod snapshot;

use litemap::LiteMap;

use crate::jetstream::JetStream;
use crate::jetstream::host::Host;
use crate::jetstream::storage::StoreReply;
use crate::limits;
use crate::time::{Duration, Instant, Now};
use restore::Restore;
pub(crate) use restore::Step;
use snapshot::Snapshot;
pub(super) use snapshot::{ConsumerState, PendingAck, Position};

/// Without a sign of life for this long one ends.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a backup waits for somebody who subscribes to its subject.
const RECEIVER_WAIT: Duration = Duration::from_secs(2);
/// Length of the random part of a subject.
const ID_LEN: usize = 22;

/// What waits for the store.
#[derive(Debug)]
pub(crate) enum Pending {
    /// A backup, for messages.
    Snapshot(u32),
    /// A restore.
    Restore(u32, Step),
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Backups {
    snapshots: LiteMap<u32, Snapshot>,
    restores: LiteMap<u32, Restore>,
    newest: u32,
}

impl Backups {
    /// A number for a new one; `None`: there are too many.
    fn number(&mut self) -> Option<u32> {
        if self.snapshots.len() + self.restores.len() >= limits::BACKUPS_MAX {
            return None;
        }
        self.newest = self.newest.wrapping_add(1);
        Some(self.newest)
    }

    /// When [`JetStream::backups_timeout`] is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let snapshots = self.snapshots.values().filter_map(Snapshot::due);
        snapshots.chain(self.restores.values().filter_map(Restore::due)).min()
    }
}

impl JetStream {
    /// Ends those whose other side is silent.
    pub(super) fn backups_timeout(&mut self, now: Now, host: &mut impl Host) {
        if self.backups.next_due().is_none_or(|due| due > now.instant) {
            return;
        }
        let late = |due: Option<Instant>| due.is_some_and(|due| due <= now.instant);
        let snapshots = self.backups.snapshots.iter().filter(|(_, one)| late(one.due()));
        let ids: alloc::vec::Vec<(u32, bool)> =
            snapshots.map(|(id, one)| (*id, one.is_held())).collect();
        for (id, held) in ids {
            if held {
                self.begin_snapshot(now, id, host);
            } else {
                self.end_snapshot(id, "408 No Flow Response", host);
            }
        }
        let restores = self.backups.restores.iter().filter(|(_, one)| late(one.due()));
        let ids: alloc::vec::Vec<u32> = restores.map(|(id, _)| *id).collect();
        for id in ids {
            self.end_restore(id, true, host);
        }
    }

    /// The store answered.
    pub(super) fn backup_reply(
        &mut self,
        now: Now,
        pending: Pending,
        reply: StoreReply,
        host: &mut impl Host,
    ) {
        match pending {
            Pending::Snapshot(id) => self.snapshot_read(now, id, reply, host),
            Pending::Restore(id, step) => self.restore_stored(now, id, step, &reply, host),
        }
    }
}
