//! A link that can be cut: TCP in, TCP out, and a switch.
//!
//! Owns a listening port that stays the same over cuts, and the connections through it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Bytes pass.
    Open,
    /// Connections are closed as soon as they come.
    Cut,
    /// Connections are accepted and nothing passes.
    Stalled,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    target: SocketAddr,
    sockets: Vec<TcpStream>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Relay {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Relay {
    /// An open link to `target`.
    pub(crate) fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let state = State { mode: Mode::Open, target, sockets: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::downgrade(&state);
        std::thread::spawn(move || {
            for inbound in listener.incoming().map_while(Result::ok) {
                let Some(state) = shared.upgrade() else { return };
                let mut state = state.lock().expect("no holder panics");
                match state.mode {
                    Mode::Cut => {}
                    Mode::Stalled => state.sockets.push(inbound),
                    Mode::Open => {
                        let wait = Duration::from_secs(1);
                        let Ok(outbound) = TcpStream::connect_timeout(&state.target, wait) else {
                            continue;
                        };
                        let _ = (inbound.set_nodelay(true), outbound.set_nodelay(true));
                        for (from, to) in [(&inbound, &outbound), (&outbound, &inbound)] {
                            let from = from.try_clone().expect("descriptors are left");
                            let to = to.try_clone().expect("descriptors are left");
                            std::thread::spawn(move || pass(from, to));
                        }
                        state.sockets.extend([inbound, outbound]);
                    }
                }
            }
        });
        Self { address, state }
    }

    /// Where to connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends what there is and lets nothing through.
    pub(crate) fn cut(&self) {
        self.switch(Mode::Cut);
    }

    /// Ends what there is; new connections hang.
    pub(crate) fn stall(&self) {
        self.switch(Mode::Stalled);
    }

    /// Lets new connections through.
    pub(crate) fn mend(&self) {
        self.switch(Mode::Open);
    }

    fn switch(&self, mode: Mode) {
        let mut state = self.state.lock().expect("no holder panics");
        state.mode = mode;
        for socket in state.sockets.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 65536];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
