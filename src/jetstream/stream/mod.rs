//! Streams: what one is, and what may be waiting for the store on its behalf.
//!
//! Owns [`Stream`] and its place in the tables and in the broker's interest. Its
//! configuration is `config`, its endpoints are `api`, `info` and `direct`.
//!
//! # Invariants
//! - A stream in the table has its name in `names`, and is subscribed to its subjects.

pub(crate) mod api;
pub(crate) mod batch;
pub(crate) mod config;
pub(crate) mod direct;
pub(crate) mod fast;
pub(crate) mod info;
pub(crate) mod intake;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use crate::id::StreamId;
use crate::jetstream::JetStream;
use crate::jetstream::host::{Host, Target};
use crate::jetstream::json::{self, Asker};
use crate::jetstream::storage::{Purge, Seq, StreamState};
use crate::jetstream::tail::Tail;
use crate::subject::transform::Transform;
use crate::time::{Instant, Timestamp};
use config::Retention;
pub(crate) use config::StreamConfig;

/// A stream, as the core knows it. Its messages are with the store.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Its id in the store.
    pub(crate) id: StreamId,
    /// Unique in the account.
    pub(crate) name: String,
    /// In memory instead of in the file; never changes.
    pub(crate) memory: bool,
    /// Normalised.
    pub(crate) config: StreamConfig,
    /// When it was created.
    pub(crate) created: Timestamp,
    /// As of the last reply of the store.
    pub(crate) state: StreamState,
    /// Its newest messages, while it has a consumer.
    pub(crate) tail: Tail,
    /// The start of its acks, up to the sequence.
    pub(crate) ack_head: Box<[u8]>,
    /// The sweep for old messages.
    pub(crate) expire: Expire,
    /// What a publish has to be asked beyond the rest, if anything.
    pub(crate) extras: Option<Box<Extras>>,
}

/// What few streams do with what is published.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    /// Only what a consumer wants is stored.
    pub(crate) interest: bool,
    /// The subject it is stored under.
    pub(crate) transform: Option<Transform>,
    /// Where it is published again, and whether without its payload.
    pub(crate) republish: Option<(Transform, bool)>,
}

impl Extras {
    fn of(config: &StreamConfig) -> Option<Box<Self>> {
        // Both were checked; what is stored and cannot be read any more does nothing.
        let transform = config.subject_transform.as_ref();
        let republish = config.republish.as_ref().filter(|republish| !republish.dest.is_empty());
        let extras = Self {
            interest: config.retention == Retention::Interest,
            transform: transform.and_then(|of| config::transform(&of.src, &of.dest).ok().flatten()),
            republish: republish.and_then(|of| {
                let transform = config::transform(&of.src, &of.dest).ok().flatten()?;
                Some((transform, of.headers_only))
            }),
        };
        let is_used = extras.interest || extras.transform.is_some() || extras.republish.is_some();
        is_used.then(|| Box::new(extras))
    }
}

/// When a stream is swept for old messages.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Expire {
    /// The timer that is set.
    pub(crate) due: Option<Instant>,
    /// When the store was last asked.
    pub(crate) asked_at: Instant,
    /// It is not asked again before this.
    pub(crate) not_before: Instant,
}

/// A request about a stream that waits for the store.
#[derive(Debug)]
pub(crate) enum Pending {
    Create {
        asker: Asker,
        stream: StreamId,
        new: bool,
    },
    Update {
        asker: Asker,
        stream: StreamId,
        old: Box<StreamConfig>,
        new: Box<StreamConfig>,
    },
    Delete {
        asker: Asker,
        name: String,
    },
    Purge {
        asker: Asker,
        stream: StreamId,
        purge: Box<Purge>,
    },
    /// Where the subjects that were purged in part go on.
    Purged {
        asker: Asker,
        stream: StreamId,
        purge: Box<Purge>,
        purged: u64,
    },
    DeleteMsg {
        asker: Asker,
        stream: StreamId,
        seq: Seq,
    },
    Get(api::Get),
    Info(info::Pending),
    Direct(direct::Pending),
    Retention(crate::jetstream::retention::Pending),
}

/// Where direct gets of a stream arrive.
fn direct_subjects(name: &str) -> [Vec<u8>; 2] {
    let base = alloc::format!("$JS.API.DIRECT.GET.{name}").into_bytes();
    let wide = [&base[..], b".>"].concat();
    [base, wide]
}

impl JetStream {
    /// Puts a stream into the tables and subscribes it.
    pub(crate) fn add_stream(
        &mut self,
        id: StreamId,
        config: StreamConfig,
        created: Timestamp,
        host: &mut impl Host,
    ) {
        let name = config.name.clone();
        let mut ack_head = b"{\"stream\":".to_vec();
        ack_head.extend_from_slice(&json::encode(&name));
        if let Some(domain) = &self.options.domain {
            ack_head.extend_from_slice(b",\"domain\":");
            ack_head.extend_from_slice(&json::encode(domain));
        }
        ack_head.extend_from_slice(b",\"seq\":");
        self.names.insert(name.clone(), id);
        let stream = Stream {
            id,
            memory: config.memory,
            name,
            config: StreamConfig::default(),
            created,
            state: StreamState::default(),
            tail: Tail::default(),
            ack_head: ack_head.into(),
            expire: Expire::default(),
            extras: None,
        };
        self.streams.insert(id, stream);
        self.shared.note_stream(true);
        self.configure_stream(id, config, host);
    }

    /// Replaces the configuration, with what follows for interest.
    pub(crate) fn configure_stream(
        &mut self,
        id: StreamId,
        config: StreamConfig,
        host: &mut impl Host,
    ) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let old = core::mem::replace(&mut stream.config, config);
        let new = &stream.config;
        stream.extras = Extras::of(new);
        self.shared.note_reserved(stream.memory, old.max_bytes, new.max_bytes);
        for gone in old.subjects.iter().filter(|subject| !new.subjects.contains(subject)) {
            host.unsubscribe(gone.as_bytes(), Target::Stream(id));
        }
        for added in new.subjects.iter().filter(|subject| !old.subjects.contains(subject)) {
            host.subscribe(added.as_bytes(), Target::Stream(id));
        }
        // A mirror answers for an origin that is not here, where it answers itself.
        let direct_of = |config: &StreamConfig| {
            let mirror = config.mirror.as_ref().filter(|_| config.mirror_direct)?;
            (!self.names.contains_key(&mirror.name)).then(|| mirror.name.clone())
        };
        let (gone, added) = (direct_of(&old), direct_of(new));
        if gone != added {
            for subject in gone.iter().flat_map(|name| direct_subjects(name)) {
                host.unsubscribe(&subject, Target::DirectGet(id));
            }
            for subject in added.iter().flat_map(|name| direct_subjects(name)) {
                host.subscribe(&subject, Target::DirectGet(id));
            }
        }
        if old.allow_direct != new.allow_direct {
            for subject in direct_subjects(&stream.name) {
                if new.allow_direct {
                    host.subscribe(&subject, Target::DirectGet(id));
                } else {
                    host.unsubscribe(&subject, Target::DirectGet(id));
                }
            }
        }
        let (atomic, fast) = (new.allow_atomic, new.allow_batched);
        if old.allow_atomic && !atomic {
            self.drop_batches(id);
        }
        if old.allow_batched && !fast {
            self.drop_fast_batches(id);
        }
        self.configure_intakes(id, host);
    }

    /// Takes a stream out of the tables and out of interest.
    pub(crate) fn remove_stream(&mut self, id: StreamId, host: &mut impl Host) {
        let bare = StreamConfig::default();
        self.configure_stream(id, bare, host);
        let Some(stream) = self.streams.remove(&id) else { return };
        self.names.remove(&stream.name);
        self.shared.note_stream(false);
        self.shared.note_tail(stream.tail.bytes(), 0);
        self.shared.note_used(stream.memory, stream.state.bytes, 0);
        let used = self.usage.of(stream.memory);
        *used = used.saturating_sub(stream.state.bytes);
        if let Some(due) = stream.expire.due {
            self.expiries.remove(&(due, id));
        }
    }
}

#[cfg(test)]
mod tests;
