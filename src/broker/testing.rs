//! What tests of the broker share: a broker with accounts, clients without sockets, and a
//! disk that answers at once.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use super::options::Options;
use super::{Broker, Level, Output};
use crate::auth::account::Account;
use crate::id::ConnId;
use crate::jetstream;
use crate::jetstream::engine::MemStore;
use crate::jetstream::storage::{RecoveredStream, StoreReply, StoreRequest};
use crate::time::{Duration, Instant, Now, Timestamp};

/// A broker with accounts, and a disk that answers at once.
pub(super) struct World {
    pub(super) broker: Broker,
    pub(super) disk: MemStore,
    pub(super) requests: Vec<StoreRequest>,
    pub(super) notices: Vec<String>,
    pub(super) now: Now,
}

impl World {
    pub(super) fn new(accounts: Vec<Account>, jetstream: bool) -> Self {
        let js = jetstream.then(jetstream::options::Options::default);
        let options = Options { jetstream, accounts, ..Options::default() };
        let now = Now { instant: Instant(1), wall: Timestamp(1) };
        let broker = Broker::new(options, js, 1);
        let mut world =
            Self { broker, disk: MemStore::new(), requests: vec![], notices: vec![], now };
        world.recovered(Vec::new(), 0);
        world
    }

    pub(super) fn recovered(&mut self, streams: Vec<RecoveredStream>, next_stream: u32) {
        let reply = StoreReply::Recovered { streams, next_stream, last_ts: Timestamp(0) };
        self.broker.handle_store(self.now, reply);
        self.settle();
    }

    pub(super) fn settle(&mut self) {
        for _ in 0..100 {
            self.broker.end_turn(self.now);
            while let Some(output) = self.broker.poll_output() {
                match output {
                    Output::Store(request) => {
                        self.requests.push(request.clone());
                        self.disk.apply(request);
                    }
                    Output::Notice(notice) if notice.level >= Level::Warn => {
                        self.notices.push(notice.text);
                    }
                    _ => {}
                }
            }
            let Some(reply) = self.disk.poll_reply() else { return };
            self.broker.handle_store(self.now, reply);
        }
    }

    /// A client in an account; `Err` is what it was told instead.
    pub(super) fn client(&mut self, account: &str) -> Result<ConnId, String> {
        let id = self.broker.accept(self.now, "127.0.0.1:9");
        let connect = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}\r\n";
        self.says(id, connect);
        let account = self.broker.account_named(account).unwrap();
        let bound = self.broker.core.bind_account(id.index, account);
        self.sent(id);
        bound.map(|()| id).map_err(|error| error.wire_text().into())
    }

    pub(super) fn says(&mut self, id: ConnId, text: &str) {
        self.broker.receive(self.now, id, text.as_bytes());
        self.settle();
    }

    /// Time passes, and what is due is done.
    pub(super) fn waits(&mut self, millis: u64) {
        let by = Duration::from_millis(millis);
        self.now = Now { instant: self.now.instant + by, wall: self.now.wall + by };
        self.broker.handle_timeout(self.now);
        self.settle();
    }

    pub(super) fn sent(&mut self, id: ConnId) -> String {
        let text = String::from_utf8(self.broker.pending(id).to_vec()).unwrap();
        self.broker.transmitted(self.now, id, text.len());
        text
    }

    pub(super) fn api(&mut self, id: ConnId, endpoint: &str, body: &str) -> String {
        let len = body.len();
        self.says(
            id,
            &format!(
                "SUB _INBOX.1 9\r\nPUB $JS.API.{endpoint} _INBOX.1 {len}\r\n{body}\r\nUNSUB 9 1\r\n"
            ),
        );
        self.sent(id)
    }
}
