//! Readiness of sockets: a thin cover over epoll, level-triggered.
//!
//! Level-triggered and without re-arming, so that a busy connection costs one `read` and one
//! `write` a turn and no further system call; measured against an executor's reactor, which
//! re-arms each descriptor after each event.
//!
//! Owns the epoll descriptor and the wake-up descriptor other threads write to. Does not own
//! the sockets.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};

use crate::time::Duration;

/// Key of [`Poller::waker`]; never given to a socket.
const WAKE: u64 = u64::MAX;

/// What to be told about a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// It has bytes, or ended.
    pub read: bool,
    /// It takes bytes.
    pub write: bool,
}

impl Want {
    /// Reading only.
    pub const READ: Want = Want { read: true, write: false };

    fn flags(self) -> EventFlags {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN | EventFlags::RDHUP, self.read);
        flags.set(EventFlags::OUT, self.write);
        flags
    }
}

/// A descriptor is ready.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// As registered.
    pub key: u64,
    /// Reading will not block: there are bytes, an end or an error.
    pub read: bool,
    /// Writing will not block.
    pub write: bool,
}

/// Wakes a [`Poller`] from any thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// Makes the current or next [`Poller::wait`] return.
    pub fn wake(&self) {
        // Full means that it is awake already.
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }
}

impl std::task::Wake for Waker {
    fn wake(self: Arc<Self>) {
        Waker::wake(&self);
    }
}

/// Waits for many descriptors.
pub struct Poller {
    epoll: OwnedFd,
    waker: Waker,
    events: Vec<epoll::Event>,
}

impl std::fmt::Debug for Poller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poller").field("epoll", &self.epoll).finish_non_exhaustive()
    }
}

impl Poller {
    /// A poller with nothing registered but its waker.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE), EventFlags::IN)?;
        Ok(Self { epoll, waker: Waker(Arc::new(wake)), events: Vec::with_capacity(256) })
    }

    /// For other threads.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Registers a descriptor; it stays so until it is closed.
    pub fn add(&self, fd: impl AsFd, key: u64, want: Want) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(key), want.flags())?)
    }

    /// Changes what to be told.
    pub fn modify(&self, fd: impl AsFd, key: u64, want: Want) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, EventData::new_u64(key), want.flags())?)
    }

    /// Waits until something is ready, a wake-up, or the timeout; what is ready is appended
    /// to `ready`.
    pub fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        self.events.clear();
        let space = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, space, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        for event in self.events.drain(..) {
            let (flags, data) = (event.flags, event.data);
            if data.u64() == WAKE {
                let mut count = [0; 8];
                // Nothing to read means that another wait took it.
                let _ = rustix::io::read(&*self.waker.0, &mut count);
                continue;
            }
            let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
            ready.push(Ready {
                key: data.u64(),
                read: broken || flags.intersects(EventFlags::IN | EventFlags::RDHUP),
                write: broken || flags.contains(EventFlags::OUT),
            });
        }
        Ok(())
    }
}
