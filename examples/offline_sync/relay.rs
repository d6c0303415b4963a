//! The link between gateway and hub: a TCP relay that can be cut and mended.
//!
//! A cut link either closes what is open and refuses what is new ([`Link::Closed`]), as when a
//! router goes down, or says nothing at all ([`Link::Stalled`]): bytes stop flowing in both
//! directions and nobody is told, as when the radio loses its carrier.
//!
//! # Invariants
//! - While the link is not up, no byte and no end of a connection passes.
//! - A stalled connection that both ends kept goes on where it stopped.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

/// Bytes moved at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// What the link does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Up,
    /// Open connections are closed, new ones are closed at once.
    Closed,
    /// Nothing moves. New connections are accepted and hear nothing.
    Stalled,
}

/// A relay from a port of its own to the hub's leaf port.
pub(crate) struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    hub: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    link: Link,
    /// Both ends of every connection that passes, by the order they came in.
    open: BTreeMap<u64, [TcpStream; 2]>,
    next: u64,
}

impl Relay {
    /// Starts a relay to `hub`, with the link up.
    pub(crate) fn start(hub: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            hub,
            state: Mutex::new(State { link: Link::Up, open: BTreeMap::new(), next: 0 }),
            changed: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for gateway in listener.incoming().flatten() {
                let shared = Arc::clone(&accepting);
                // A connection that fails is the gateway's to dial again.
                thread::spawn(move || shared.serve(&gateway));
            }
        });
        Ok(Self { address, shared })
    }

    /// Where the gateway dials.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the link.
    pub(crate) fn set(&self, link: Link) {
        let mut state = self.shared.lock();
        state.link = link;
        if link == Link::Closed {
            for end in std::mem::take(&mut state.open).into_values().flatten() {
                // An end that is gone already is as closed as it should be.
                let _ = end.shutdown(Shutdown::Both);
            }
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread of the relay panics while it holds the lock")
    }

    /// Waits out a stall and says what the link is then.
    fn settled(&self) -> (Link, MutexGuard<'_, State>) {
        let mut state = self.lock();
        while state.link == Link::Stalled {
            state = self
                .changed
                .wait(state)
                .expect("no thread of the relay panics while it holds the lock");
        }
        (state.link, state)
    }

    fn serve(&self, gateway: &TcpStream) -> io::Result<()> {
        if self.settled().0 != Link::Up || has_ended(gateway)? {
            return Ok(());
        }
        let hub = TcpStream::connect(self.hub)?;
        gateway.set_nodelay(true)?;
        hub.set_nodelay(true)?;
        let key = {
            let (link, mut state) = self.settled();
            if link != Link::Up {
                return Ok(());
            }
            let key = state.next;
            state.next += 1;
            state.open.insert(key, [gateway.try_clone()?, hub.try_clone()?]);
            key
        };
        thread::scope(|scope| {
            scope.spawn(|| self.pump(gateway, &hub));
            self.pump(&hub, gateway);
        });
        self.lock().open.remove(&key);
        Ok(())
    }

    /// Moves bytes one way until either end or the link is gone, then ends both.
    fn pump(&self, mut from: &TcpStream, mut to: &TcpStream) {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let read = from.read(&mut chunk);
            let (link, state) = self.settled();
            drop(state);
            match read {
                Ok(length @ 1..) if link == Link::Up => {
                    if to.write_all(&chunk[..length]).is_err() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}

/// Has the other side given this connection up while it waited?
fn has_ended(stream: &TcpStream) -> io::Result<bool> {
    stream.set_nonblocking(true)?;
    let ended = match stream.peek(&mut [0]) {
        Ok(length) => length == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    };
    stream.set_nonblocking(false)?;
    Ok(ended)
}
