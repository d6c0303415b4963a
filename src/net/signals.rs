//! Signals, as a descriptor to wait for and flags to look at.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};

/// What the operator asked for by a signal. As nats-server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: stop.
    Interrupt,
    /// SIGTERM: stop, unless in lame duck mode.
    Terminate,
    /// SIGHUP: read the configuration again.
    Reload,
    /// SIGUSR1: reopen the log file.
    Reopen,
    /// SIGUSR2: lame duck.
    LameDuck,
}

impl Signal {
    /// As log lines call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "interrupt",
            Self::Terminate => "terminated",
            Self::Reload => "hangup",
            Self::Reopen => "user defined signal 1",
            Self::LameDuck => "user defined signal 2",
        }
    }
}

const SIGNALS: [(i32, Signal); 5] = [
    (SIGINT, Signal::Interrupt),
    (SIGTERM, Signal::Terminate),
    (SIGHUP, Signal::Reload),
    (SIGUSR1, Signal::Reopen),
    (SIGUSR2, Signal::LameDuck),
];

/// Signals that arrived.
#[derive(Debug)]
pub struct Signals {
    pipe: UnixStream,
    flags: Vec<(Arc<AtomicBool>, Signal)>,
}

impl Signals {
    /// Takes over all signals this server answers to.
    pub fn new() -> io::Result<Self> {
        let (pipe, writer) = UnixStream::pair()?;
        pipe.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        let mut flags = Vec::new();
        for (number, signal) in SIGNALS {
            let flag = Arc::new(AtomicBool::new(false));
            // The flag first: once the pipe is readable it must be set.
            signal_hook::flag::register(number, Arc::clone(&flag))?;
            let writer: OwnedFd = writer.try_clone()?.into();
            signal_hook::low_level::pipe::register(number, writer)?;
            flags.push((flag, signal));
        }
        Ok(Self { pipe, flags })
    }

    /// Those that arrived since the last call.
    pub fn take(&mut self) -> Vec<Signal> {
        let mut sink = [0; 64];
        while matches!(io::Read::read(&mut &self.pipe, &mut sink), Ok(1..)) {}
        self.flags
            .iter()
            .filter(|(flag, _)| flag.swap(false, Ordering::SeqCst))
            .map(|&(_, signal)| signal)
            .collect()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}
