//! Accounts in the broker: each with a subject space of its own.
//!
//! Owns what the tables keep for each account: its interest, what its leaf links share, its
//! limits and its counters. Does not own connections and subscriptions: those name the
//! account they are in.
//!
//! # Invariants
//! - `$G` and the system account always exist and have the ids [`AccountId::GLOBAL`] and
//!   [`AccountId::SYSTEM`].
//! - A message reaches only subscriptions of the account it is routed in.
//!
//! Source: NATS docs, "Multi Tenancy using Accounts".

use alloc::boxed::Box;
use alloc::vec::Vec;

use foldhash::fast::FixedState;
use hashbrown::HashSet;

use super::conn::{CloseReason, Kind};
use super::core::Core;
use super::imports::Crossing;
use super::interest::Interest;
use super::leaf::LeafShared;
use super::mapping;
use super::options::Options;
use super::view::Counts;
use crate::auth::account::{Account, AccountLimits, GLOBAL, JetStreamAccountLimits, MessageTrace};
use crate::id::AccountId;
use crate::jetstream::host::Target;
use crate::jetstream::options as jetstream;
use crate::limits;
use crate::time::Instant;

/// One account.
#[derive(Debug)]
pub(super) struct AccountState {
    pub(super) name: Box<str>,
    /// False once a reload has left it out: nobody is in it, and nobody sees it.
    pub(super) present: bool,
    pub(super) interest: Interest,
    /// Subjects of which JetStream wants to hear when literal interest comes or goes.
    pub(super) watched: HashSet<Box<[u8]>, FixedState>,
    /// What its leaf links share.
    pub(super) leaf: LeafShared,
    /// Leaf connections whose interest must hear of a change.
    pub(super) leafs: Vec<u32>,
    pub(super) limits: AccountLimits,
    pub(super) jetstream: JetStreamAccountLimits,
    pub(super) mappings: Vec<mapping::Rule>,
    /// Where traces of sampled messages go.
    pub(super) trace: Option<MessageTrace>,
    /// Answers under way, and imports.
    pub(super) crossing: Crossing,
    /// Where in the broker's table its JetStream is, if it has one.
    pub(super) js: Option<u16>,
    /// What its JetStream listened to, while that sleeps.
    pub(super) asleep: Option<Vec<(Box<[u8]>, Target)>>,
    /// Clients and leaf connections in it now.
    pub(super) clients: u32,
    pub(super) leaf_conns: u32,
    /// Subscriptions of them, and of JetStream.
    pub(super) subs: u32,
    pub(super) slow_consumers: u64,
    /// When an event tells the number of its connections again.
    pub(super) conns_at: Instant,
    /// An event about it waits.
    pub(super) conns_noted: bool,
    /// Of connections that are in it no more.
    gone: Traffic,
}

/// Messages and bytes of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Of clients.
    pub clients: Counts,
    /// Of leaf connections.
    pub leafs: Counts,
}

impl Traffic {
    fn of(&mut self, kind: &Kind) -> &mut Counts {
        match kind {
            Kind::Client(_) => &mut self.clients,
            Kind::Leaf(_) => &mut self.leafs,
        }
    }
}

/// What an account has and did, for monitoring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountStats<'a> {
    /// Its name.
    pub name: &'a str,
    /// Clients in it now.
    pub clients: u32,
    /// Leaf connections in it now.
    pub leafs: u32,
    /// Subscriptions of its connections, of JetStream and of the server's own services.
    pub subs: u32,
    /// Connections closed because they were too slow.
    pub slow_consumers: u64,
    /// Since the start.
    pub traffic: Traffic,
}

/// Why a connection may not enter an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BindError {
    /// Its `max_connections`.
    TooManyConnections,
    /// Its `max_leafnodes`.
    TooManyLeafs,
    /// There is no such account.
    Unknown,
}

impl BindError {
    /// The text of `-ERR`.
    pub fn wire_text(self) -> &'static str {
        match self {
            Self::TooManyConnections => "maximum account active connections exceeded",
            Self::TooManyLeafs => "maximum account leafnode connections exceeded",
            Self::Unknown => "Authorization Violation",
        }
    }

    /// What `/connz` shows.
    pub fn reason(self) -> CloseReason {
        match self {
            Self::TooManyConnections | Self::TooManyLeafs => CloseReason::MaximumAccountConnections,
            Self::Unknown => CloseReason::AuthenticationFailure,
        }
    }
}

impl AccountState {
    pub(super) fn new(account: &Account, hash_seed: u64) -> Self {
        Self {
            name: account.name.as_str().into(),
            present: true,
            interest: Interest::new(hash_seed),
            watched: HashSet::with_hasher(FixedState::with_seed(hash_seed)),
            leaf: LeafShared::default(),
            leafs: Vec::new(),
            limits: account.limits,
            jetstream: account.jetstream.unwrap_or_default(),
            mappings: mapping::rules(account).0,
            trace: account.trace.clone(),
            crossing: Crossing::default(),
            js: None,
            asleep: None,
            clients: 0,
            leaf_conns: 0,
            subs: 0,
            slow_consumers: 0,
            conns_at: Instant::default(),
            conns_noted: false,
            gone: Traffic::default(),
        }
    }

    /// Takes what is declared in place of what was. Exports, imports and JetStream itself are
    /// not its own to change.
    pub(super) fn declare(&mut self, account: &Account) {
        self.limits = account.limits;
        self.jetstream = account.jetstream.unwrap_or_default();
        self.mappings = mapping::rules(account).0;
        self.trace.clone_from(&account.trace);
    }

    /// Becomes another account, in the place of one that went.
    pub(super) fn begin_anew(&mut self, name: &str) {
        self.name = name.into();
        self.present = true;
        self.slow_consumers = 0;
        self.gone = Traffic::default();
    }
}

/// The accounts of a broker in the order of their ids: `$G`, the system account, the others.
pub(super) fn build(options: &Options, hash_seed: u64) -> Vec<AccountState> {
    let system = options.system_account.as_str();
    let declared = |name: &str| options.accounts.iter().find(|account| account.name == name);
    let always = [GLOBAL, system].map(|name| {
        declared(name).map_or_else(
            || AccountState::new(&Account::named(name), hash_seed),
            |account| AccountState::new(account, hash_seed),
        )
    });
    let others = options
        .accounts
        .iter()
        .filter(|account| account.name != GLOBAL && account.name != system)
        .map(|account| AccountState::new(account, hash_seed));
    always.into_iter().chain(others).take(limits::ACCOUNTS_MAX).collect()
}

/// Which accounts have JetStream on a server that has it: with none declared `$G`, else those
/// that ask for it.
pub(super) fn with_jetstream(options: &Options) -> impl Fn(&str) -> bool + '_ {
    let system = options.system_account.as_str();
    let only_global = !options.by_token
        && options.accounts.iter().all(|account| account.name == GLOBAL || account.name == system);
    move |name| {
        if name == system {
            return false;
        }
        let asks = |account: &Account| account.name == name && account.jetstream.is_some();
        (only_global && name == GLOBAL) || options.accounts.iter().any(asks)
    }
}

/// What JetStream is told of an account.
pub(super) fn jetstream_options(
    server: &jetstream::Options,
    name: &str,
    of: &JetStreamAccountLimits,
) -> jetstream::Options {
    let own = of.max_ack_pending.map(i64::from);
    let smaller = match (server.limits.max_ack_pending, own) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    jetstream::Options {
        account: name.into(),
        limits: jetstream::Limits { max_ack_pending: smaller, ..server.limits.clone() },
        account_limits: jetstream::AccountLimits {
            max_memory: of.max_memory,
            max_storage: of.max_store,
            max_streams: of.max_streams,
            max_consumers: of.max_consumers,
            max_bytes_required: of.max_bytes_required,
            memory_max_stream_bytes: of.memory_max_stream_bytes,
            storage_max_stream_bytes: of.store_max_stream_bytes,
            max_ack_pending: of.max_ack_pending,
        },
        ..server.clone()
    }
}

impl Core {
    pub(super) fn account(&self, id: AccountId) -> Option<&AccountState> {
        self.accounts.get(usize::from(id.0))
    }

    pub(super) fn account_mut(&mut self, id: AccountId) -> Option<&mut AccountState> {
        self.accounts.get_mut(usize::from(id.0))
    }

    /// The account of this name.
    pub(super) fn account_named(&self, name: &str) -> Option<AccountId> {
        let found = |account: &AccountState| account.present && &*account.name == name;
        let index = self.accounts.iter().position(found)?;
        u16::try_from(index).ok().map(AccountId)
    }

    /// All accounts there are.
    pub(super) fn account_ids(&self) -> impl Iterator<Item = AccountId> + use<> {
        let present = self.accounts.iter().enumerate().filter(|(_, state)| state.present);
        let ids = present.filter_map(|(index, _)| u16::try_from(index).ok().map(AccountId));
        ids.collect::<Vec<_>>().into_iter()
    }

    /// The leaf connections whose handshake is over.
    pub(super) fn leafs(&self) -> impl Iterator<Item = u32> {
        self.accounts.iter().flat_map(|state| state.leafs.iter().copied())
    }

    /// Puts a connection into an account, out of the one it was in. Its subscriptions must
    /// be gone.
    ///
    /// # Errors
    /// A limit of the account. The connection is in no account then.
    pub(super) fn bind_account(&mut self, index: u32, to: AccountId) -> Result<(), BindError> {
        let Some(conn) = self.conns.get(index as usize) else { return Ok(()) };
        if conn.account == to && to != AccountId::NONE {
            return Ok(());
        }
        self.leave_account(index);
        let server_payload = self.options.max_payload;
        let Some(account) = self.accounts.get_mut(usize::from(to.0)) else {
            return Err(BindError::Unknown);
        };
        let Some(conn) = self.conns.get_mut(index as usize) else { return Ok(()) };
        let full = |max: Option<u32>, now: u32| max.is_some_and(|max| now >= max);
        let all = account.clients.saturating_add(account.leaf_conns);
        if full(account.limits.max_connections, all) {
            return Err(BindError::TooManyConnections);
        }
        match conn.kind {
            Kind::Client(_) => account.clients += 1,
            Kind::Leaf(_) if full(account.limits.max_leafnodes, account.leaf_conns) => {
                return Err(BindError::TooManyLeafs);
            }
            Kind::Leaf(_) => account.leaf_conns += 1,
        }
        // What it did before it brings along: its counters go on.
        account.gone.of(&conn.kind).take(conn.counts());
        let payload = account.limits.max_payload.and_then(|max| usize::try_from(max).ok());
        conn.bounds.payload = payload.map_or(server_payload, |max| max.min(server_payload));
        conn.account = to;
        Ok(())
    }

    /// Takes a connection out of its account.
    pub(super) fn leave_account(&mut self, index: u32) {
        let Some(conn) = self.conns.get_mut(index as usize) else { return };
        let from = core::mem::replace(&mut conn.account, AccountId::NONE);
        let Some(account) = self.accounts.get_mut(usize::from(from.0)) else { return };
        account.gone.of(&conn.kind).add(conn.counts());
        match conn.kind {
            Kind::Client(_) => account.clients = account.clients.saturating_sub(1),
            Kind::Leaf(_) => account.leaf_conns = account.leaf_conns.saturating_sub(1),
        }
    }

    /// What every account has and did, in one walk over the connections.
    pub(super) fn all_account_stats(&self) -> Vec<AccountStats<'_>> {
        let mut all: Vec<AccountStats<'_>> = self
            .accounts
            .iter()
            .map(|account| AccountStats {
                name: &account.name,
                clients: account.clients,
                leafs: account.leaf_conns,
                subs: account.subs,
                slow_consumers: account.slow_consumers,
                traffic: account.gone,
            })
            .collect();
        for (_, conn) in &self.conns {
            if let Some(stats) = all.get_mut(usize::from(conn.account.0)) {
                stats.traffic.of(&conn.kind).add(conn.counts());
            }
        }
        let mut present = self.accounts.iter().map(|account| account.present);
        all.retain(|_| present.next().unwrap_or(true));
        all
    }

    /// What an account has and did.
    pub(super) fn account_stats(&self, id: AccountId) -> Option<AccountStats<'_>> {
        let account = self.account(id)?;
        let mut traffic = account.gone;
        for (_, conn) in self.conns.iter().filter(|(_, conn)| conn.account == id) {
            traffic.of(&conn.kind).add(conn.counts());
        }
        Some(AccountStats {
            name: &account.name,
            clients: account.clients,
            leafs: account.leaf_conns,
            subs: account.subs,
            slow_consumers: account.slow_consumers,
            traffic,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::World;
    use super::*;
    use crate::jetstream;
    use crate::jetstream::storage::{RecoveredStream, StoreRequest, StreamState};
    use alloc::format;
    use alloc::string::String;
    use alloc::vec;

    fn two() -> Vec<Account> {
        vec![Account::named("A"), Account::named("B")]
    }

    /// Subscriptions of the server itself in each account, for its own services.
    const SERVICES: u32 = 4;

    #[test]
    fn accounts_do_not_hear_each_other() {
        let mut world = World::new(two(), false);
        let [a, b, global] = ["A", "B", "$G"].map(|name| world.client(name).unwrap());
        for id in [a, b, global] {
            world.says(id, "SUB > 1\r\nSUB x q 2\r\n");
        }
        world.says(a, "PUB x 1\r\na\r\n");
        assert_eq!(world.sent(a), "MSG x 1 1\r\na\r\nMSG x 2 1\r\na\r\n");
        assert_eq!(world.sent(b) + &world.sent(global), "");
        let stats = world.broker.account_stats(AccountId(2)).unwrap();
        assert_eq!((stats.name, stats.clients, stats.subs), ("A", 1, 2 + SERVICES));
        assert_eq!((stats.traffic.clients.msgs_in, stats.traffic.clients.msgs_out), (1, 2));
        let now = world.now;
        world.broker.closed(now, a);
        let stats = world.broker.account_stats(AccountId(2)).unwrap();
        assert_eq!((stats.clients, stats.subs, stats.traffic.clients.msgs_in), (0, SERVICES, 1));
    }

    #[test]
    fn a_client_that_signs_in_anew_takes_nothing_along() {
        let mut world = World::new(two(), false);
        let (a, b) = (world.client("A").unwrap(), world.client("B").unwrap());
        world.says(a, "SUB x 1\r\nPUB y 1\r\n1\r\n");
        world.says(a, "CONNECT {\"verbose\":false}\r\n");
        let to = world.broker.account_named("B").unwrap();
        world.broker.core.bind_account(a.index, to).unwrap();
        world.says(b, "PUB x 1\r\n1\r\n");
        assert_eq!(world.sent(a), "");
        world.says(a, "PUB y 1\r\n1\r\n");
        let sums = |world: &World, id| {
            let stats = world.broker.account_stats(AccountId(id)).unwrap();
            (stats.clients, stats.subs, stats.traffic.clients.msgs_in)
        };
        assert_eq!(sums(&world, 2), (0, SERVICES, 1));
        assert_eq!(sums(&world, 3), (2, SERVICES, 2));
    }

    #[test]
    fn limits_of_an_account_hold_for_its_clients_only() {
        let limited = AccountLimits {
            max_connections: Some(1),
            max_subscriptions: Some(2),
            max_payload: Some(3),
            ..AccountLimits::default()
        };
        let accounts =
            vec![Account { limits: limited, ..Account::named("A") }, Account::named("B")];
        let mut world = World::new(accounts, false);
        let (a, b) = (world.client("A").unwrap(), world.client("B").unwrap());
        let error = world.client("A").unwrap_err();
        assert_eq!(error, "maximum account active connections exceeded");
        for id in [a, b] {
            world.says(id, "SUB 1 1\r\nSUB 2 2\r\nSUB 3 3\r\n");
        }
        assert_eq!(world.sent(a), "-ERR 'maximum subscriptions exceeded'\r\n");
        world.says(a, "PUB 4 4\r\n1234\r\n");
        assert_eq!(world.sent(a), "-ERR 'Maximum Payload Violation'\r\n");
        world.says(b, "PUB 4 4\r\n1234\r\n");
        assert_eq!(world.sent(b), "");
    }

    #[test]
    fn an_account_stores_what_it_may() {
        let limits = JetStreamAccountLimits {
            max_store: Some(2000),
            max_streams: Some(1),
            max_consumers: Some(1),
            max_bytes_required: true,
            store_max_stream_bytes: Some(1500),
            max_ack_pending: Some(50),
            ..JetStreamAccountLimits::default()
        };
        let account = Account { jetstream: Some(limits), ..Account::named("A") };
        let mut world = World::new(vec![account], true);
        let id = world.client("A").unwrap();
        let create = |world: &mut World, name: &str, bytes: i64| {
            let body =
                format!("{{\"name\":\"{name}\",\"subjects\":[\"{name}\"],\"max_bytes\":{bytes}}}");
            world.api(id, &format!("STREAM.CREATE.{name}"), &body)
        };
        assert!(create(&mut world, "s", -1).contains("\"err_code\":10113,"));
        assert!(create(&mut world, "s", 1600).contains("\"err_code\":10122,"));
        assert!(create(&mut world, "s", 1499).contains("did_create"));
        assert!(create(&mut world, "t", 100).contains("\"err_code\":10027,"));
        let consumer = |pending| {
            format!(
                "{{\"stream_name\":\"s\",\"config\":{{\"name\":\"c\",\"ack_policy\":\"explicit\",\
                 \"max_ack_pending\":{pending}}}}}"
            )
        };
        let told = world.api(id, "CONSUMER.CREATE.s.c", &consumer(51));
        assert!(told.contains("\"err_code\":10121,"), "{told}");
        let told = world.api(id, "CONSUMER.CREATE.s.c", &consumer(0));
        assert!(told.contains("\"max_ack_pending\":50,"), "{told}");
        let told = world.api(id, "CONSUMER.CREATE.s.d", &consumer(1).replace("\"c\"", "\"d\""));
        assert!(told.contains("\"err_code\":10026,"), "{told}");
        let payload = "x".repeat(700);
        for (number, expected) in [(1, "\"seq\":1"), (2, "\"seq\":2"), (3, "10002")] {
            world.says(id, &format!("SUB ack{number} 5\r\nPUB s ack{number} 700\r\n{payload}\r\n"));
            let told = world.sent(id);
            assert!(told.contains(expected), "{told}");
            world.says(id, "UNSUB 5\r\n");
        }
    }

    #[test]
    fn without_accounts_jetstream_is_in_the_global_one() {
        let mut world = World::new(Vec::new(), true);
        let (id, system) = (world.client("$G").unwrap(), world.client("$SYS").unwrap());
        assert!(world.api(id, "INFO", "").contains("\"streams\":0"));
        assert!(world.api(system, "INFO", "").contains("\"err_code\":10039"));
        assert!(world.api(system, "STREAM.FOO", "").contains("system_response"));
    }

    #[test]
    fn each_account_has_streams_of_its_own() {
        let enabled = |name| Account {
            jetstream: Some(JetStreamAccountLimits::default()),
            ..Account::named(name)
        };
        let accounts = vec![enabled("A"), enabled("B"), Account::named("C")];
        let mut world = World::new(accounts.clone(), true);
        let [a, b, c, global] = ["A", "B", "C", "$G"].map(|name| world.client(name).unwrap());
        for id in [a, b] {
            let told = world.api(id, "STREAM.CREATE.S", "{\"name\":\"S\",\"subjects\":[\"s\"]}");
            assert!(told.contains("\"did_create\":true"), "{told}");
        }
        for id in [c, global] {
            let told = world.api(id, "STREAM.NAMES", "");
            assert!(told.contains("\"err_code\":10039,"), "{told}");
            assert!(told.contains("\"limit\":0,\"streams\":null}"), "{told}");
            assert_eq!(world.api(id, "FOO", ""), "");
        }
        world.says(a, "SUB ack 1\r\nPUB s ack 1\r\n1\r\n");
        assert_eq!(world.sent(a), "MSG ack 1 22\r\n{\"stream\":\"S\",\"seq\":1}\r\n");
        let info = |told: String, count: u32| {
            assert!(told.contains(&format!("\"messages\":{count}")), "{told}");
        };
        info(world.api(a, "STREAM.INFO.S", ""), 1);
        info(world.api(b, "STREAM.INFO.S", ""), 0);

        // After a restart with other accounts.
        let recovered = |request: &StoreRequest| match request {
            StoreRequest::CreateStream { stream, record, .. } => Some(RecoveredStream {
                stream: *stream,
                record: record.clone(),
                state: StreamState { messages: 7, ..StreamState::default() },
                consumers: Vec::new(),
                origins: Vec::new(),
            }),
            _ => None,
        };
        let found: Vec<RecoveredStream> = world.requests.iter().filter_map(recovered).collect();
        assert_eq!(found.len(), 2);
        assert_ne!(found[0].stream, found[1].stream);
        let mut again = World {
            broker: super::super::Broker::new(
                Options { accounts: accounts[1..].to_vec(), jetstream: true, ..Options::default() },
                Some(jetstream::options::Options::default()),
                2,
            ),
            ..World::new(Vec::new(), false)
        };
        again.recovered(found, 2);
        let told = again.notices.concat();
        assert!(told.starts_with("1 stream(s) of account \"A\" are kept"), "{told}");
        let b = again.client("B").unwrap();
        info(again.api(b, "STREAM.INFO.S", ""), 7);
        again.api(b, "STREAM.CREATE.T", "{\"name\":\"T\",\"subjects\":[\"t\"]}");
        let created = again.requests.iter().find_map(recovered).unwrap();
        assert_eq!(created.stream.0, 2, "above what is on disk");
    }
}
