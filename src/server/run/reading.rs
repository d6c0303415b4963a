//! Reading: from a socket that is ready to the broker, and who is not read for a while.
//!
//! Owns how much is read, the one buffer for it, and the list of connections that rest because
//! their receivers are behind. Does not own who is a fast producer: the broker says so.
//!
//! # Invariants
//! - What was read is in the broker, and all that is lent of it is written or copied, before
//!   the buffer is read into again.

use super::{Print, Server, id_of, key};
use crate::id::ConnId;
use crate::limits::{READ_BUFFER_BYTES, READ_BUFFER_BYTES_MIN};
use crate::net::poller::Ready;
use crate::net::socket::Received;
use crate::time::{Duration, Now};

impl<P: Print> Server<P> {
    pub(super) fn peer_ready(&mut self, now: Now, key: u64, event: Ready) {
        let id = id_of(key);
        let Some(Some(peer)) = self.peers.get_mut(id.index as usize) else { return };
        if peer.id != id {
            return;
        }
        if event.write {
            self.flush(now, id);
        }
        let Some(Some(peer)) = self.peers.get_mut(id.index as usize) else { return };
        if !event.read || peer.id != id {
            return;
        }
        if peer.opening.is_some() {
            return self.opening_ready(now, id);
        }
        if peer.socket.is_web() {
            return self.web_ready(now, id);
        }
        let closing = peer.close_by.is_some();
        let space = if self.broker.is_tracing() {
            READ_BUFFER_BYTES_MIN
        } else {
            self.pace.space(now.instant, peer.bulky).min(self.buffer.len())
        };
        let Some(buffer) = self.buffer.get_mut(..space) else { return };
        match peer.socket.receive(buffer, &mut self.plain) {
            Ok(Received::Bytes(count)) => {
                if !closing {
                    self.lend(now, id, count);
                    self.heard(now, id, count);
                }
                if count == self.buffer.len() && count < READ_BUFFER_BYTES {
                    self.buffer.resize((count * 2).min(READ_BUFFER_BYTES), 0);
                }
            }
            Ok(Received::Decrypted) => {
                self.check_tls(now, id);
                let mut plain = std::mem::take(&mut self.plain);
                if !closing && !plain.is_empty() {
                    self.broker.receive(now, id, &plain);
                    self.heard(now, id, plain.len());
                }
                if plain.len() >= self.buffer.len() / 2 && self.buffer.len() < READ_BUFFER_BYTES {
                    let more = (self.buffer.len() * 2).min(READ_BUFFER_BYTES);
                    self.buffer.resize(more, 0);
                }
                plain.clear();
                self.plain = plain;
                if self.peer(id).is_some_and(|peer| peer.socket.is_finished()) {
                    self.drop_peer(now, id);
                }
            }
            Ok(Received::Nothing) => {}
            Ok(Received::End) => self.drop_peer(now, id),
            Err(error) => {
                if peer.socket.is_tls() {
                    self.broker.tls_done(now, id, Err(&error.to_string()));
                }
                self.broker.broken(now, id);
                self.drop_peer(now, id);
            }
        }
    }

    /// Hands the bytes that were read over. Where they are many, what they cause is written
    /// while they are there.
    fn lend(&mut self, now: Now, id: ConnId, count: usize) {
        let mut broken = Vec::new();
        let Self { broker, peers, poller, buffer, .. } = self;
        let bytes = buffer.get(..count).unwrap_or(&[]);
        broker.receive_lending(now, id, bytes, &mut |to, pieces| {
            let Some(Some(peer)) = peers.get_mut(to.index as usize) else { return 0 };
            if peer.id != to || peer.want.write || !peer.socket.is_plain() {
                return 0;
            }
            let all: usize = pieces.iter().map(|piece| piece.len()).sum();
            match peer.socket.send_pieces(pieces) {
                Ok(taken) => {
                    if taken < all {
                        peer.want.write = true;
                        let _ = poller.modify(&peer.socket, key(to), peer.want);
                    }
                    taken
                }
                Err(_) => {
                    broken.push(to);
                    all
                }
            }
        });
        for to in broken {
            self.broker.broken(now, to);
            self.drop_peer(now, to);
        }
    }

    /// After bytes of a connection went to the broker: lets it rest if those it sends to are
    /// behind.
    pub(super) fn heard(&mut self, now: Now, id: ConnId, count: usize) {
        let bulky = self.pace.note(now.instant, count, self.broker.dirty_count());
        if let Some(peer) = self.peer_mut(id) {
            peer.bulky = bulky;
        }
        if self.broker.is_parked(id) {
            self.read_no_more(id);
        } else if let Some((receiver, rest)) = self.broker.stall() {
            self.rest(now, id, receiver, rest);
        }
    }

    /// Reads nothing from a connection until its password is known to be right.
    pub(super) fn read_no_more(&mut self, id: ConnId) {
        if let Some(Some(peer)) = self.peers.get_mut(id.index as usize)
            && peer.id == id
        {
            peer.want.read = false;
            let _ = self.poller.modify(&peer.socket, key(id), peer.want);
        }
    }

    pub(super) fn passwords_checked(&mut self, now: Now) {
        while let Some((id, matches)) = self.passwords.poll() {
            self.broker.password_checked(now, id, matches);
            let Some(Some(peer)) = self.peers.get_mut(id.index as usize) else { continue };
            if peer.id != id || peer.resume_at.is_some() || self.broker.is_parked(id) {
                continue;
            }
            peer.want.read = true;
            let _ = self.poller.modify(&peer.socket, key(id), peer.want);
        }
    }

    /// Reads nothing from a connection for a while.
    pub(super) fn rest(&mut self, now: Now, id: ConnId, receiver: ConnId, rest: Duration) {
        // What is waiting may well fit the receivers' sockets: write before deciding.
        self.flush_dirty(now);
        if self.broker.is_relieved(receiver) {
            return;
        }
        let Some(Some(peer)) = self.peers.get_mut(id.index as usize) else { return };
        if peer.id != id || peer.resume_at.is_some() {
            return;
        }
        peer.resume_at = Some(now.instant + rest);
        self.broker.note_stall(id);
        let Some(Some(peer)) = self.peers.get_mut(id.index as usize) else { return };
        peer.want.read = false;
        let _ = self.poller.modify(&peer.socket, key(id), peer.want);
        self.resting.push((id, receiver));
    }

    pub(super) fn wake_resting(&mut self, now: Now) {
        if let Some(at) = self.accept_at
            && at <= now.instant
        {
            self.watch_listener(true);
            self.accept_at = None;
        }
        if self.resting.is_empty() {
            return;
        }
        let mut resting = std::mem::take(&mut self.resting);
        resting.retain(|&(id, receiver)| {
            let Some(Some(peer)) = self.peers.get_mut(id.index as usize) else { return false };
            if peer.id != id {
                return false;
            }
            if peer.resume_at.is_some_and(|at| at > now.instant)
                && !self.broker.is_relieved(receiver)
            {
                return true;
            }
            peer.resume_at = None;
            peer.want.read = !self.broker.is_parked(id);
            let _ = self.poller.modify(&peer.socket, key(id), peer.want);
            false
        });
        self.resting = resting;
    }
}
