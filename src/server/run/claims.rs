//! Claims between the broker, the directory of a resolver and whoever asked.
//!
//! Owns the order: one change of the directory at a time, answers after it.

use super::{Print, Server, key};
use crate::broker::claims::ClaimsAnswer;
use crate::broker::system::SystemRequest;
use crate::id::AccountId;
use crate::limits::CLAIMS_WRITES_MAX;
use crate::monitor::Scene;
use crate::server::claims::Done;
use crate::time::Now;

impl<P: Print> Server<P> {
    /// A request about claims. It waits while the directory changes.
    pub(super) fn claims_request(&mut self, now: Now, request: SystemRequest) {
        if !self.claims.busy {
            self.answer_claims(now, request);
        } else if self.claims_waiting.len() < CLAIMS_WRITES_MAX {
            self.claims_waiting.push_back(request);
        }
    }

    fn answer_claims(&mut self, now: Now, request: SystemRequest) {
        match self.broker.claims_request(now, &request) {
            ClaimsAnswer::Write(change) => self.claims.write(request, change),
            answer => self.tell_claims(now, &request, &answer),
        }
    }

    fn tell_claims(&mut self, now: Now, request: &SystemRequest, answer: &ClaimsAnswer) {
        if request.reply.is_empty() {
            return;
        }
        match answer {
            ClaimsAnswer::Messages(messages) => {
                for message in messages {
                    self.broker.publish_in(now, AccountId::SYSTEM, &request.reply, message);
                }
            }
            ClaimsAnswer::Told { member, json } => {
                let scene = Scene { now, broker: &self.broker, store: None };
                let payload = self.monitor.claims(scene, member, json);
                self.broker.publish_in(now, AccountId::SYSTEM, &request.reply, &payload);
            }
            ClaimsAnswer::Write(_) => {}
        }
    }

    /// What the disk and the network have done.
    pub(super) fn claims_done(&mut self, now: Now) {
        let mut any = false;
        while let Some(done) = self.claims.poll() {
            any = true;
            match done {
                Done::Written { request, change, result } => {
                    let answer = self.broker.claims_written(now, &change, result);
                    self.tell_claims(now, &request, &answer);
                    while !self.claims.busy
                        && let Some(request) = self.claims_waiting.pop_front()
                    {
                        self.answer_claims(now, request);
                    }
                }
                Done::Fetched { account, result } => {
                    let result = result.as_ref().map(String::as_str).map_err(String::as_str);
                    self.broker.claims_fetched(now, &account, result);
                }
            }
        }
        if any {
            self.read_again();
        }
    }

    /// Logins that waited for an account go on.
    fn read_again(&mut self) {
        for peer in self.peers.iter_mut().flatten() {
            let waits = peer.resume_at.is_some() || peer.close_by.is_some();
            if peer.want.read
                || waits
                || self.broker.is_parked(peer.id)
                || !self.broker.is_listening(peer.id)
            {
                continue;
            }
            peer.want.read = true;
            let _ = self.poller.modify(&peer.socket, key(peer.id), peer.want);
        }
    }
}
