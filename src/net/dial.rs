//! Dialling out: names to addresses, and a TCP connect with a bound on its time.
//!
//! Looking up a name blocks, so it runs on smol's pool of blocking threads, which grows when
//! it is needed and shrinks to nothing when it is not. The result comes back through a
//! [`smol::LocalExecutor`] that the event loop ticks.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker as TaskWaker};

use smol::LocalExecutor;

use super::poller::Waker;
use crate::time::Duration;

/// A dial that has ended.
#[derive(Debug)]
pub struct Dialled<K> {
    /// As given to [`Dialler::dial`].
    pub key: K,
    /// The connected, non-blocking socket and whom it is connected to.
    pub result: io::Result<(OwnedFd, SocketAddr)>,
}

/// Dials under way.
pub struct Dialler<K: 'static> {
    executor: &'static LocalExecutor<'static>,
    run: Pin<Box<dyn Future<Output = ()>>>,
    waker: TaskWaker,
    done: Rc<RefCell<Vec<Dialled<K>>>>,
    active: Rc<RefCell<usize>>,
}

impl<K> std::fmt::Debug for Dialler<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialler").field("active", &self.active).finish_non_exhaustive()
    }
}

impl<K: 'static> Dialler<K> {
    /// A dialler that wakes the loop through `waker` when a dial ends.
    pub fn new(waker: Waker) -> Self {
        // One for the life of the process.
        let executor: &'static LocalExecutor<'static> = Box::leak(Box::default());
        Self {
            executor,
            run: Box::pin(executor.run(std::future::pending())),
            waker: TaskWaker::from(Arc::new(waker)),
            done: Rc::default(),
            active: Rc::default(),
        }
    }

    /// Begins a dial. The addresses a name has are tried in turn, all within `timeout`.
    pub fn dial(&mut self, key: K, host: String, port: u16, timeout: Duration) {
        let (done, active) = (Rc::clone(&self.done), Rc::clone(&self.active));
        *active.borrow_mut() += 1;
        let task = self.executor.spawn(async move {
            let result = smol::unblock(move || connect(&host, port, timeout)).await;
            *active.borrow_mut() -= 1;
            done.borrow_mut().push(Dialled { key, result });
        });
        task.detach();
        self.tick();
    }

    /// Dials that ended since the last call. Call it each turn.
    pub fn poll(&mut self) -> Vec<Dialled<K>> {
        if *self.active.borrow() > 0 {
            self.tick();
        }
        std::mem::take(&mut self.done.borrow_mut())
    }

    fn tick(&mut self) {
        let mut context = Context::from_waker(&self.waker);
        match self.run.as_mut().poll(&mut context) {
            Poll::Pending | Poll::Ready(()) => {}
        }
    }
}

fn connect(host: &str, port: u16, timeout: Duration) -> io::Result<(OwnedFd, SocketAddr)> {
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    let share = timeout / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut result = Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    for address in addresses {
        // Never zero, which the system refuses.
        let share = share.max(Duration::from_millis(50));
        result = TcpStream::connect_timeout(&address, share).map(|stream| (stream, address));
        if result.is_ok() {
            break;
        }
    }
    let (stream, address) = result?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok((stream.into(), address))
}
