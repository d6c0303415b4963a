//! The ways in: what a client goes through before its bytes go to the broker.
//!
//! Owns the listeners' entrances and the deadlines of clients on their way in. Does not own
//! the order of things there ([`crate::net::opening`]): it carries out the steps.
//!
//! # Invariants
//! - A peer with an `opening` has no bytes in the broker yet.
//! - Handshakes take `HANDSHAKE_SHARE` of a turn at most, and one more.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::rc::Rc;

use super::{Print, Server};
use crate::broker::Notice;
use crate::broker::arrival::Refusal;
use crate::id::ConnId;
use crate::limits::HANDSHAKE_SHARE;
use crate::net::opening::{Entrance, Opening, Step};
use crate::net::socket::Received;
use crate::net::tls_server::Rate;
use crate::net::websocket::WebSocket;
use crate::time::{Duration, Instant, Now};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Doors {
    /// Of the WebSocket listener.
    pub(super) web: Rc<Entrance>,
    /// Of the client port. Replaced as a whole: who is on the way in keeps the old one.
    pub(super) client: Rc<Entrance>,
    rate: Rate,
    /// One entry for each deadline that was set; those that no longer hold are found out
    /// when their time comes.
    deadlines: BinaryHeap<Reverse<(Instant, ConnId)>>,
    /// What handshakes took of this turn.
    spent: Duration,
}

impl Doors {
    /// A turn begins.
    pub(super) fn begin_turn(&mut self) {
        self.spent = Duration::ZERO;
    }

    /// When [`Server::doors_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let deadline = self.deadlines.peek().map(|Reverse((at, _))| *at);
        [deadline, self.rate.poll_timeout()].into_iter().flatten().min()
    }
}

impl<P: Print> Server<P> {
    /// What clients of the client port have to go through from now on; those that are in, or
    /// on their way, are not touched.
    pub fn set_entrance(&mut self, entrance: Entrance) {
        self.doors.client = Rc::new(entrance);
    }

    /// As [`Self::set_entrance`], for the WebSocket listener.
    pub fn set_web_entrance(&mut self, entrance: Entrance) {
        self.doors.web = Rc::new(entrance);
    }

    /// A client that has just been accepted goes through `entrance`.
    pub(super) fn enter(&mut self, now: Now, id: ConnId, entrance: Rc<Entrance>) {
        let Some(peer) = self.peer_mut(id) else { return };
        let opening = Opening::new(entrance, now.instant);
        let deadline = opening.deadline();
        peer.opening = Some(Box::new(opening));
        self.doors.deadlines.push(Reverse((deadline, id)));
    }

    /// A client on its way in has bytes, or is gone.
    pub(super) fn opening_ready(&mut self, now: Now, id: ConnId) {
        if self.doors.spent >= HANDSHAKE_SHARE {
            // It stays ready: the next turn comes back to it.
            return;
        }
        let mut plain = std::mem::take(&mut self.plain);
        plain.clear();
        let Some(peer) = self.peers.get_mut(id.index as usize).and_then(Option::as_mut) else {
            return;
        };
        let begun = peer.socket.is_tls().then(|| self.clock.now().instant);
        let received = peer.socket.receive(&mut self.buffer, &mut plain);
        if let Some(begun) = begun {
            self.doors.spent += self.clock.now().instant.since(begun);
        }
        match received {
            Ok(Received::Bytes(count)) => {
                let bytes = self.buffer.get(..count).unwrap_or(&[]);
                if let Some(opening) = &mut peer.opening {
                    let step = opening.handle_bytes(now.instant, bytes);
                    self.carry_out(now, id, step);
                }
            }
            other => self.secured(now, id, other, &plain),
        }
        self.plain = plain;
    }

    /// What reading under TLS came to.
    fn secured(&mut self, now: Now, id: ConnId, received: io::Result<Received>, plain: &[u8]) {
        let Some(peer) = self.peer_mut(id) else { return };
        let Some(opening) = &mut peer.opening else { return };
        let step = match received {
            Ok(Received::Bytes(_) | Received::Nothing) => Step::Wait,
            Ok(Received::Decrypted) if peer.socket.is_handshaking() => Step::Wait,
            Ok(Received::Decrypted) if opening.is_handshaking() => {
                match opening.facts(&peer.socket) {
                    Ok(facts) => opening.handshaken(now.instant, facts, plain),
                    Err(text) => Step::Refuse(Refusal::Tls { text, mild: false }),
                }
            }
            Ok(Received::Decrypted) => opening.handle_bytes(now.instant, plain),
            Ok(Received::End) => Step::Refuse(opening.handle_end()),
            Err(error) => Step::Refuse(opening.handle_error(&error)),
        };
        self.carry_out(now, id, step);
    }

    fn carry_out(&mut self, now: Now, id: ConnId, step: Step) {
        match step {
            Step::Wait => {}
            Step::SendInfo => {
                self.broker.send_info(now, id);
                self.flush(now, id);
            }
            Step::StartTls => return self.begin_tls(now, id),
            Step::Inside(arrival) => return self.let_in(now, id, *arrival),
            Step::Upgraded { answer, agreed, arrival } => {
                if self.answer(id, &answer)
                    && let Some(peer) = self.peer_mut(id)
                {
                    peer.socket.start_web_socket(WebSocket::new(agreed));
                    return self.let_in(now, id, *arrival);
                }
                return self.drop_peer(now, id);
            }
            Step::Answer { answer, why } => {
                self.answer(id, &answer);
                return self.broker.refuse(now, id, &Refusal::WebSocket(why));
            }
            Step::Refuse(Refusal::Gone) => return self.drop_peer(now, id),
            Step::Refuse(refusal) => return self.broker.refuse(now, id, &refusal),
        }
        // A stage may have ended and set another deadline.
        if let Some(deadline) =
            self.peer(id).and_then(|peer| peer.opening.as_ref()).map(|opening| opening.deadline())
            && deadline > now.instant
        {
            self.doors.deadlines.push(Reverse((deadline, id)));
        }
    }

    /// Sends an HTTP answer. On a socket that was never written to it always fits.
    fn answer(&mut self, id: ConnId, answer: &str) -> bool {
        self.peer_mut(id).is_some_and(|peer| {
            let sent = peer.socket.send(answer.as_bytes());
            sent.is_ok_and(|count| count == answer.len())
        })
    }

    fn begin_tls(&mut self, now: Now, id: ConnId) {
        // What was to be said in the clear.
        self.flush(now, id);
        let unsent = !self.broker.pending(id).is_empty();
        let Some(peer) = self.peers.get_mut(id.index as usize).and_then(Option::as_mut) else {
            return;
        };
        let Some(opening) = &mut peer.opening else { return };
        let Some(tls) = opening.tls() else { return };
        if !self.doors.rate.may_begin(now.instant, tls.options().connection_rate_limit.unwrap_or(0))
        {
            return self.broker.refuse(now, id, &Refusal::RateLimit);
        }
        let session = match tls.session() {
            Ok(session) if !unsent => session,
            Ok(_) => return self.drop_peer(now, id),
            Err(text) => {
                return self.broker.refuse(now, id, &Refusal::Tls { text, mild: false });
            }
        };
        let held = opening.take_held();
        peer.socket.start_tls(session);
        let begun = self.clock.now().instant;
        let mut plain = Vec::new();
        let received = peer.socket.feed(&held, &mut plain);
        self.doors.spent += self.clock.now().instant.since(begun);
        self.secured(now, id, received, &plain);
    }

    fn let_in(&mut self, now: Now, id: ConnId, arrival: crate::broker::arrival::Arrival) {
        let Some(peer) = self.peer_mut(id) else { return };
        let Some(mut opening) = peer.opening.take() else { return };
        self.broker.opened(now, id, arrival);
        let held = opening.take_held();
        if !held.is_empty() {
            self.broker.receive(now, id, &held);
            self.heard(now, id, held.len());
        }
        // The end of the handshake may not have fitted the socket.
        self.flush(now, id);
    }

    /// Deadlines of clients on their way in, and what is to be told of refused handshakes.
    pub(super) fn doors_timeout(&mut self, now: Now) {
        let refused = self.doors.rate.take_refused(now.instant);
        if refused > 0 {
            let text = format!("Rejected {refused} connections due to TLS rate limiting");
            self.print.print(now, &Notice::warn(text));
        }
        while let Some(&Reverse((at, id))) = self.doors.deadlines.peek() {
            if at > now.instant {
                break;
            }
            self.doors.deadlines.pop();
            let Some(opening) = self.peer_mut(id).and_then(|peer| peer.opening.as_mut()) else {
                continue;
            };
            if opening.deadline() <= now.instant {
                let step = opening.handle_timeout(now.instant);
                self.carry_out(now, id, step);
            }
        }
    }
}
