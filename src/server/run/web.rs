//! WebSocket clients: their listener, and from frames to the broker's bytes.
//!
//! Owns reading from a peer whose socket has frames. Does not own the frames
//! ([`crate::net::websocket`]) nor the upgrade ([`super::doors`]).

use std::io;
use std::net::TcpListener;

use super::{Print, Server, WEB_LISTENER};
use crate::id::ConnId;
use crate::limits::READ_BUFFER_BYTES_MIN;
use crate::net::poller::Want;
use crate::net::socket::Received;
use crate::net::websocket::Ended;
use crate::time::Now;

impl<P: Print> Server<P> {
    /// Takes over the listening socket for WebSocket clients.
    ///
    /// # Errors
    /// When it cannot be watched.
    pub fn listen_web(&mut self, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        self.poller.add(&listener, WEB_LISTENER, Want::READ)?;
        self.web_listener = Some(listener);
        Ok(())
    }

    /// A WebSocket has bytes, or is gone.
    pub(super) fn web_ready(&mut self, now: Now, id: ConnId) {
        let Self { broker, peers, buffer, plain, pace, .. } = self;
        let Some(peer) = peers.get_mut(id.index as usize).and_then(Option::as_mut) else { return };
        // What inflates is read in small pieces: they may come to a thousand times as much.
        let inflates = peer.socket.web_mut().is_some_and(|web| web.inflates());
        let small = inflates || broker.is_tracing();
        let space = if small { READ_BUFFER_BYTES_MIN } else { pace.space(now.instant, peer.bulky) };
        let space = space.min(buffer.len());
        let Some(wire) = buffer.get_mut(..space) else { return };
        plain.clear();
        let (mut stall, mut heard) = (None, 0);
        let ended = match peer.socket.receive(wire, plain) {
            Ok(Received::Nothing) => return,
            Ok(Received::End) => return self.drop_peer(now, id),
            Err(error) => {
                broker.read_failed(now, id, &error.to_string());
                return self.drop_peer(now, id);
            }
            Ok(_) if peer.close_by.is_some() => Ok(()),
            Ok(received) => {
                let bytes = match received {
                    Received::Bytes(count) => wire.get_mut(..count).unwrap_or_default(),
                    _ => plain.as_mut_slice(),
                };
                let mut sink = |payload: &[u8]| {
                    heard += payload.len();
                    broker.receive(now, id, payload);
                    stall = broker.stall().or(stall);
                    broker.is_listening(id)
                };
                match peer.socket.web_mut() {
                    Some(web) => web.decode(bytes, &mut sink),
                    None => Ok(()),
                }
            }
        };
        plain.clear();
        let finished = peer.socket.is_finished();
        match ended {
            Ok(()) if finished => return self.drop_peer(now, id),
            Ok(()) | Err(Ended::Ignored) => {}
            Err(Ended::Closed) => return self.broker.hang_up(now, id),
            Err(Ended::Broken(text)) => return self.broker.read_failed(now, id, &text),
        }
        let bulky = self.pace.note(now.instant, heard, self.broker.dirty_count());
        let Some(peer) = self.peer_mut(id) else { return };
        peer.bulky = bulky;
        if peer.socket.wants_write() {
            self.flush(now, id);
        }
        if self.broker.is_parked(id) {
            self.read_no_more(id);
        } else if let Some((receiver, rest)) = stall {
            self.rest(now, id, receiver, rest);
        }
    }
}
