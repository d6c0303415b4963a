//! The dialling side of one leaf connection: from TCP connect to ready, and its keep-alive.
//!
//! Owns the order of INFO, TLS and CONNECT, their deadlines, authentication, and what an
//! `-ERR` means for us. Does not own interest: once it is [`Solicitor::is_ready`], the
//! broker sends and takes `LS+` and `LMSG` itself.
//!
//! # Invariants
//! - CONNECT leaves only after the hub's INFO and, where wanted, TLS: a password is never
//!   sent in the clear to a hub that asked for TLS.
//! - After [`LeafOutput::Close`] nothing more comes out.
//!
//! Source: leaf node traffic of nats-server 2.15.1.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use crate::auth::creds::{Creds, CredsProblem};
use crate::id::Rng;
use crate::leaf::remote::LostReason;
use crate::leaf::{Identity, LeafNotice, Login, RemoteOptions};
use crate::limits;
use crate::proto::client::write_err;
use crate::proto::leaf::{LeafConnect, LeafInfo, LeafOp, PING, PONG, SubjectPermissions};
use crate::time::{Instant, Now, nanos};

/// From ready to the first PING; up to a fifth more, so that many do not come at once.
const FIRST_PING: Duration = Duration::from_secs(1);
/// A connection that ends this soon after an `-ERR` ended because of it.
const REFUSAL_FRESH: Duration = Duration::from_secs(2);
/// Protocol level we declare. 3 would promise message tracing.
const PROTOCOL: u32 = 1;

/// What a solicitor is given for one connection.
#[derive(Debug)]
pub struct Link<'a> {
    /// The remote's configuration.
    pub options: &'a RemoteOptions,
    /// Who we are.
    pub identity: &'a Identity,
    /// What the creds file held, if one is configured.
    pub creds: Option<&'a Creds>,
    /// From the URL, or from another one of the remote.
    pub login: Option<&'a Login>,
}

/// What we know of the hub once it accepted us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hub {
    /// Its name.
    pub name: String,
    /// Its cluster; empty: none.
    pub cluster: String,
    /// Its `JetStream` domain; empty: none.
    pub domain: String,
    /// Has it `JetStream`?
    pub jetstream: bool,
    /// May messages to it carry headers?
    pub headers: bool,
    /// The account it bound us to; empty: it did not say.
    pub account: String,
    /// What may come down.
    pub import: Option<SubjectPermissions>,
    /// What may go up.
    pub export: Option<SubjectPermissions>,
}

/// What to do outside, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeafOutput {
    /// Write this.
    Send(Vec<u8>),
    /// Start TLS; then [`Solicitor::handle_tls`].
    StartTls,
    /// Send all interest; `LS+` and `LMSG` of the hub are now valid.
    Ready(Box<Hub>),
    /// URLs for [`crate::leaf::remote::Remote::handle_gossip`].
    Gossip(Vec<String>),
    /// All interest the hub had when we connected has arrived.
    BurstEnd,
    /// For the operator.
    Notice(LeafNotice),
    /// Flush, close, and tell the remote.
    Close(LostReason),
}

#[derive(Debug)]
enum State {
    /// The hub speaks first, unless TLS does.
    AwaitInfo {
        deadline: Instant,
    },
    /// `info` is that of the hub, if it came before TLS.
    Tls {
        deadline: Instant,
        info: Option<Box<LeafInfo>>,
    },
    /// CONNECT is out; the hub promised a second INFO.
    AwaitConnectInfo {
        deadline: Instant,
    },
    Ready {
        ping_at: Instant,
        pings_out: u32,
        burst: bool,
    },
    Closed,
}

/// One connection of ours to a hub.
#[derive(Debug)]
pub struct Solicitor {
    state: State,
    outputs: VecDeque<LeafOutput>,
    /// `host:port`, for notices.
    place: String,
    ping_interval: Duration,
    ping_max: u32,
    rng: Rng,
    /// From the JWT: why the hub will refuse, told when it does.
    problem: Option<CredsProblem>,
    hub_name: String,
    /// The last `-ERR` and when it came.
    refusal: Option<(String, Instant)>,
    ping_sent: Option<Instant>,
    rtt: Option<Duration>,
}

impl Solicitor {
    /// The TCP connection to `place` is up.
    pub fn new(
        now: Now,
        place: String,
        link: &Link<'_>,
        ping_interval: Duration,
        ping_max: u32,
        rng: Rng,
    ) -> Self {
        let mut solicitor = Self {
            state: State::AwaitInfo { deadline: now.instant + link.options.first_info_timeout },
            outputs: VecDeque::new(),
            place,
            ping_interval,
            ping_max,
            rng,
            problem: link.creds.and_then(|creds| creds.problem(now.wall)),
            hub_name: String::new(),
            refusal: None,
            ping_sent: None,
            rtt: None,
        };
        if link.options.handshake_first {
            solicitor.start_tls(now.instant + link.options.tls_timeout, None);
        }
        solicitor
    }

    /// The next thing to do outside, oldest first.
    pub fn poll_output(&mut self) -> Option<LeafOutput> {
        self.outputs.pop_front()
    }

    /// When to call [`Self::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::AwaitInfo { deadline }
            | State::Tls { deadline, .. }
            | State::AwaitConnectInfo { deadline } => Some(deadline),
            State::Ready { ping_at, .. } => Some(ping_at),
            State::Closed => None,
        }
    }

    /// Has the hub accepted us?
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready { .. })
    }

    /// The hub's name, once it said it.
    pub fn hub_name(&self) -> &str {
        &self.hub_name
    }

    /// The last measured round trip.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// An operation of the hub that is neither interest nor a message.
    pub fn handle_op(&mut self, now: Now, op: &LeafOp<'_>, link: &Link<'_>) {
        match op {
            LeafOp::Info(json) => self.handle_info(now, json, link),
            LeafOp::Ping => {
                if !matches!(self.state, State::Closed) {
                    self.send(PONG.to_vec());
                }
            }
            LeafOp::Pong => self.handle_pong(now.instant),
            LeafOp::Err(text) => self.handle_err(now.instant, text),
            LeafOp::Ok => {}
            LeafOp::Connect(_) => self.give_up("it dials us instead of being dialled"),
            LeafOp::SubAdd { .. } | LeafOp::SubRemove { .. } | LeafOp::Msg(_) => {
                if !self.is_ready() {
                    self.give_up("it sent messages before it accepted the connection");
                }
            }
        }
    }

    /// TLS is up, or `error` says why not.
    pub fn handle_tls(&mut self, now: Now, result: Result<(), &str>, link: &Link<'_>) {
        let State::Tls { info, .. } = &mut self.state else { return };
        match (result, info.take()) {
            (Err(error), _) => {
                let text = format!("TLS handshake with leaf node {} failed: {error}", self.place);
                self.outputs.push_back(LeafOutput::Notice(LeafNotice::Error(text)));
                self.close(LostReason::Unusable);
            }
            (Ok(()), Some(info)) => self.connect(now.instant, &info, link),
            (Ok(()), None) => {
                let deadline = now.instant + link.options.first_info_timeout;
                self.state = State::AwaitInfo { deadline };
            }
        }
    }

    /// [`Self::poll_timeout`] is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|at| now < at) {
            return;
        }
        match &mut self.state {
            State::AwaitInfo { .. } => self.stalled(now, "sent no INFO"),
            State::Tls { .. } => self.stalled(now, "did not finish the TLS handshake"),
            State::AwaitConnectInfo { .. } => {
                self.send_err("Stale Leaf Node Connection - Closing");
                self.stalled(now, "did not answer CONNECT");
            }
            State::Ready { ping_at, pings_out, .. } => {
                if *pings_out >= self.ping_max {
                    self.send_err("Stale Connection");
                    self.stalled(now, "did not answer PING");
                } else {
                    *pings_out += 1;
                    *ping_at = now + self.ping_interval;
                    self.ping_sent = Some(now);
                    self.send(PING.to_vec());
                }
            }
            State::Closed => {}
        }
    }

    /// The connection ended without our doing. What the hub said last decides why.
    pub fn handle_end(&mut self, now: Instant, error: Option<&str>) {
        if matches!(self.state, State::Closed) {
            return;
        }
        let reason = self.lost_reason(now);
        if reason == LostReason::Link {
            let place = &self.place;
            let text = match error {
                Some(error) => format!("Leafnode connection to {place} lost: {error}"),
                None => format!("Leafnode connection to {place} lost"),
            };
            self.outputs.push_back(LeafOutput::Notice(LeafNotice::Warn(text)));
        }
        self.close(reason);
    }

    /// The bytes are not the leaf protocol, or break a rule of it; `text` is for `-ERR`.
    pub fn handle_violation(&mut self, text: Option<&str>, what: &str) {
        if matches!(self.state, State::Closed) {
            return;
        }
        if let Some(text) = text {
            self.send_err(text);
        }
        self.give_up(what);
    }

    /// Our own loop id came back: another way leads from the hub to us.
    pub fn handle_loop(&mut self, account: &str) {
        let text = format!(
            "Loop detected for leafnode account={account:?}. Delaying attempt to reconnect for {}s",
            limits::LEAF_LOOP_DELAY.as_secs()
        );
        self.send_err(&text);
        let place = &self.place;
        let text = format!(
            "{text} ({place}): messages to the hub come back to us another way; remove one of \
             the connections between us"
        );
        self.outputs.push_back(LeafOutput::Notice(LeafNotice::Error(text)));
        self.close(LostReason::Loop);
    }

    fn handle_info(&mut self, now: Now, json: &[u8], link: &Link<'_>) {
        let Some(info) = LeafInfo::parse(json) else {
            return self.give_up("its INFO is not the JSON of a NATS server");
        };
        match &self.state {
            State::AwaitInfo { .. } => self.handle_first_info(now.instant, info, link),
            State::AwaitConnectInfo { .. } if info.connect_info => {
                self.gossip(&info);
                self.ready(now.instant, info, link);
            }
            State::AwaitConnectInfo { .. } | State::Ready { .. } => self.gossip(&info),
            State::Tls { .. } => self.give_up("it went on in the clear where TLS was due"),
            State::Closed => {}
        }
    }

    fn handle_first_info(&mut self, now: Instant, info: LeafInfo, link: &Link<'_>) {
        if info.client_id == 0 || info.leafnode_urls.is_none() {
            return self.give_up(
                "attempted to connect to wrong port: this one is not for leaf nodes \
                 (7422 unless the hub says otherwise in leafnodes.port)",
            );
        }
        if info.cluster.contains(' ') {
            self.send_err("cluster name cannot contain spaces");
            return self.give_up("its cluster name has a space in it");
        }
        if self.hub_name.is_empty() {
            self.hub_name.clone_from(&info.server_name);
        }
        self.gossip(&info);
        // With handshake_first the INFO came through TLS already.
        let secure = link.options.handshake_first;
        if !secure && (info.tls_required || link.options.tls) {
            self.start_tls(now + link.options.tls_timeout, Some(Box::new(info)));
        } else {
            self.connect(now, &info, link);
        }
    }

    fn start_tls(&mut self, deadline: Instant, info: Option<Box<LeafInfo>>) {
        self.state = State::Tls { deadline, info };
        self.outputs.push_back(LeafOutput::StartTls);
    }

    fn connect(&mut self, now: Instant, info: &LeafInfo, link: &Link<'_>) {
        let (options, identity) = (link.options, link.identity);
        let seed = link.creds.map(|creds| &creds.seed).or(options.nkey.as_ref());
        let mut nkey = String::new();
        let mut sig = String::new();
        if let Some(seed) = seed {
            match (seed.sign(info.nonce.as_bytes()), seed.public_key()) {
                (Ok(signature), Ok(key)) => {
                    sig = data_encoding::BASE64URL_NOPAD.encode(&signature);
                    nkey = key.to_string();
                }
                (Err(error), _) | (_, Err(error)) => {
                    return self.give_up(&format!("our nkey cannot be used: {error}"));
                }
            }
        }
        let user = link.login.map_or("", |login| login.user.expose());
        let password = link.login.and_then(|login| login.password.as_ref());
        let deny_pub: Vec<&str> = options
            .deny_imports
            .iter()
            .filter_map(|filter| core::str::from_utf8(filter.as_bytes()).ok())
            .collect();
        let connect = LeafConnect {
            version: &identity.version,
            nkey: if link.creds.is_some() { "" } else { &nkey },
            jwt: link.creds.map_or("", |creds| creds.jwt.expose()),
            sig: &sig,
            user,
            pass: password.map_or("", |password| password.expose()),
            // A name alone may be a token: nats-server sends it as both.
            auth_token: if password.is_none() { user } else { "" },
            server_id: &identity.server_id,
            domain: &identity.domain,
            name: &identity.server_name,
            cluster: &identity.server_name,
            headers: true,
            jetstream: identity.jetstream,
            deny_pub: &deny_pub,
            isolate: options.request_isolation,
            compress_mode: if info.compression.is_empty() { "not supported" } else { "off" },
            remote_account: &options.account,
            protocol: PROTOCOL,
        };
        let mut bytes = Vec::new();
        connect.write(&mut bytes);
        self.send(bytes);
        if info.info_on_connect {
            self.state = State::AwaitConnectInfo { deadline: now + limits::LEAF_CONNECT_TIMEOUT };
        } else {
            // Hubs before the second INFO existed: all they ever say has been said.
            self.ready(now, info.clone(), link);
        }
    }

    fn ready(&mut self, now: Instant, info: LeafInfo, link: &Link<'_>) {
        let jitter = self.rng.below(nanos(FIRST_PING) / 5);
        // The answer to the PING that goes out with our interest ends the hub's burst.
        self.state = State::Ready {
            ping_at: now + FIRST_PING + Duration::from_nanos(jitter),
            pings_out: 0,
            burst: true,
        };
        self.ping_sent = Some(now);
        let text = format!(
            "Leafnode connection to {} ({}) created for account: {}",
            self.place,
            if self.hub_name.is_empty() { "a hub without name" } else { &self.hub_name },
            link.options.account,
        );
        self.outputs.push_back(LeafOutput::Notice(LeafNotice::Info(text)));
        self.outputs.push_back(LeafOutput::Ready(Box::new(Hub {
            name: info.server_name,
            cluster: info.cluster,
            domain: info.domain,
            jetstream: info.jetstream,
            headers: info.headers,
            account: info.remote_account,
            import: info.import,
            export: info.export,
        })));
        self.send(PING.to_vec());
    }

    fn handle_pong(&mut self, now: Instant) {
        if let State::Ready { pings_out, burst, .. } = &mut self.state {
            *pings_out = 0;
            if core::mem::take(burst) {
                self.outputs.push_back(LeafOutput::BurstEnd);
            }
            if let Some(sent) = self.ping_sent.take() {
                self.rtt = Some(now.since(sent));
            }
        }
    }

    /// Nothing is closed because of an `-ERR`: the hub closes if it means to.
    fn handle_err(&mut self, now: Instant, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        let advice = self.advice(&text);
        let separator = if advice.is_empty() { "" } else { ": " };
        let line = format!("Leafnode Error from {}: '{text}'{separator}{advice}", self.place);
        self.outputs.push_back(LeafOutput::Notice(LeafNotice::Error(line)));
        self.refusal = Some((text.into_owned(), now));
    }

    /// What an operator can do about an error of the hub.
    fn advice(&self, text: &str) -> String {
        let is_auth = ["Authorization Violation", "User Authentication Expired"].contains(&text);
        if is_auth && let Some(problem) = &self.problem {
            return problem.to_string();
        }
        let advice = if text == "Authorization Violation" {
            "the hub does not accept our credentials; check credentials, nkey or user:password \
             of this remote, and the hub's log for the reason"
        } else if text.ends_with("Authentication Expired") {
            "the credentials have ended; ask for a new creds file"
        } else if text.contains("has same cluster name") {
            "our server_name is the hub's cluster name; change server_name"
        } else if text.contains("Loop detected") {
            "there is more than one way between the hub and us; remove one"
        } else if text.contains("minimum version required") {
            "the hub takes newer leaf nodes only; see leafnodes.min_version there"
        } else if text.contains("maximum account active connections") {
            "the account takes no more leaf nodes; raise its limit at the hub"
        } else if text.contains("Duplicate Remote") {
            "another leaf node connects with our server_name and account; names must be unique"
        } else if text.contains("Permissions Violation") {
            "the permissions of our user at the hub do not cover this subject"
        } else if text.contains("Maximum Payload") {
            "max_payload of the hub is smaller than ours"
        } else {
            ""
        };
        String::from(advice)
    }

    fn gossip(&mut self, info: &LeafInfo) {
        if let Some(urls) = &info.leafnode_urls
            && !urls.is_empty()
        {
            self.outputs.push_back(LeafOutput::Gossip(urls.clone()));
        }
    }

    /// An error that the hub sent long ago and did not close for explains nothing.
    fn lost_reason(&mut self, now: Instant) -> LostReason {
        match self.refusal.take() {
            Some((text, at)) if now.since(at) <= REFUSAL_FRESH => LostReason::Hub(text),
            _ => LostReason::Link,
        }
    }

    fn stalled(&mut self, now: Instant, what: &str) {
        let text = format!("Leafnode connection to {}: the hub {what} in time", self.place);
        self.outputs.push_back(LeafOutput::Notice(LeafNotice::Warn(text)));
        let reason = self.lost_reason(now);
        self.close(reason);
    }

    fn give_up(&mut self, what: &str) {
        if matches!(self.state, State::Closed) {
            return;
        }
        let text = format!("Leafnode connection to {} closed: {what}", self.place);
        self.outputs.push_back(LeafOutput::Notice(LeafNotice::Error(text)));
        self.close(LostReason::Unusable);
    }

    fn send(&mut self, bytes: Vec<u8>) {
        self.outputs.push_back(LeafOutput::Send(bytes));
    }

    fn send_err(&mut self, text: &str) {
        let mut bytes = Vec::new();
        write_err(&mut bytes, text);
        self.send(bytes);
    }

    fn close(&mut self, reason: LostReason) {
        self.state = State::Closed;
        self.outputs.push_back(LeafOutput::Close(reason));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Secret;
    use crate::auth::nkey::{KeyKind, PublicKey, Seed};
    use crate::proto::leaf::{LeafBounds, Parsed, parse};
    use crate::time::Timestamp;
    use alloc::vec;
    use serde_json::Value;

    const INFO1: &str = r#"INFO {"server_id":"NBLN","server_name":"HUB","version":"2.15.1","proto":3,"host":"127.0.0.1","port":7422,"headers":true,"auth_required":true,"max_payload":1048576,"jetstream":true,"domain":"hub","client_id":6,"nonce":"7qCNLoSPvsmcgbw","compression":"off","info_on_connect":true,"leafnode_urls":["127.0.0.1:7422"]} "#;
    const INFO2: &str = r#"INFO {"server_id":"NBLN","server_name":"HUB","headers":true,"domain":"hub","jetstream":true,"client_id":6,"connect_info":true,"remote_account":"A1","import":{"allow":["down.\u003e"]},"info_on_connect":true,"leafnode_urls":["127.0.0.1:7422","10.0.0.2:7422"]} "#;

    /// A connection, what it belongs to, and virtual time.
    struct Script {
        options: RemoteOptions,
        identity: Identity,
        creds: Option<Creds>,
        login: Option<Login>,
        now: Now,
        solicitor: Solicitor,
    }

    impl Script {
        fn new(change: impl FnOnce(&mut RemoteOptions, &mut Option<Creds>)) -> Self {
            let (mut options, mut creds) = (RemoteOptions::default(), None);
            change(&mut options, &mut creds);
            let identity = Identity {
                server_id: "NGW".into(),
                server_name: "gw".into(),
                version: "2.15.1".into(),
                domain: "gw1".into(),
                jetstream: true,
            };
            let now = Now { instant: Instant(0), wall: Timestamp(1_790_000_000_000_000_000) };
            let link =
                Link { options: &options, identity: &identity, creds: creds.as_ref(), login: None };
            let solicitor = Solicitor::new(
                now,
                "hub:7422".into(),
                &link,
                Duration::from_mins(2),
                2,
                Rng::new(1),
            );
            Self { options, identity, creds, login: None, now, solicitor }
        }

        fn with(&mut self, work: impl FnOnce(&mut Solicitor, Now, &Link<'_>)) {
            let link = Link {
                options: &self.options,
                identity: &self.identity,
                creds: self.creds.as_ref(),
                login: self.login.as_ref(),
            };
            work(&mut self.solicitor, self.now, &link);
        }

        fn hears(&mut self, line: &str) -> Vec<LeafOutput> {
            let wire = format!("{line}\r\n");
            let Parsed::Op(op, _) = parse(wire.as_bytes(), &LeafBounds::default()).unwrap() else {
                panic!("{line}")
            };
            self.with(|solicitor, now, link| solicitor.handle_op(now, &op, link));
            self.drain()
        }

        fn waits(&mut self, milliseconds: u64) -> Vec<LeafOutput> {
            self.now.instant = self.now.instant + Duration::from_millis(milliseconds);
            self.solicitor.handle_timeout(self.now.instant);
            self.drain()
        }

        fn drain(&mut self) -> Vec<LeafOutput> {
            core::iter::from_fn(|| self.solicitor.poll_output()).collect()
        }
    }

    fn connect_json(outputs: &[LeafOutput]) -> Value {
        let sent = outputs.iter().find_map(|output| match output {
            LeafOutput::Send(bytes) => bytes.strip_prefix(b"CONNECT "),
            _ => None,
        });
        serde_json::from_slice(sent.expect("no CONNECT")).unwrap()
    }

    fn closed(outputs: &[LeafOutput]) -> Option<&LostReason> {
        outputs.iter().find_map(|output| match output {
            LeafOutput::Close(reason) => Some(reason),
            _ => None,
        })
    }

    fn notices(outputs: &[LeafOutput]) -> String {
        let mut all = String::new();
        for output in outputs {
            if let LeafOutput::Notice(
                LeafNotice::Info(text) | LeafNotice::Warn(text) | LeafNotice::Error(text),
            ) = output
            {
                all.push_str(text);
                all.push('\n');
            }
        }
        all
    }

    fn creds(exp: i64) -> Creds {
        let seed = Seed::from_bytes(KeyKind::User, [7; 32]);
        let claims = format!(
            r#"{{"sub":"{}","iss":"A","exp":{exp},"nats":{{"type":"user"}}}}"#,
            seed.public_key().unwrap()
        );
        let jwt = format!("h.{}.s", data_encoding::BASE64URL_NOPAD.encode(claims.as_bytes()));
        Creds {
            claims: crate::auth::creds::UserClaims::decode(&jwt).unwrap(),
            jwt: Secret::new(jwt),
            seed,
        }
    }

    #[test]
    fn the_recorded_handshake_leads_to_ready() {
        let mut script = Script::new(|_, _| {});
        let outputs = script.hears(INFO1);
        assert!(outputs.contains(&LeafOutput::Gossip(vec!["127.0.0.1:7422".into()])));
        let connect = connect_json(&outputs);
        assert_eq!(connect["name"], "gw");
        assert_eq!(connect["cluster"], "gw");
        assert_eq!(connect["headers"], true);
        assert_eq!(connect["domain"], "gw1");
        assert_eq!(connect["compress_mode"], "off");
        assert_eq!(connect["remote_account"], "$G");
        assert_eq!(connect.get("user"), None);
        assert!(!script.solicitor.is_ready());

        let outputs = script.hears(INFO2);
        assert!(script.solicitor.is_ready());
        let hub = outputs
            .iter()
            .find_map(|output| match output {
                LeafOutput::Ready(hub) => Some(hub),
                _ => None,
            })
            .unwrap();
        assert_eq!((&*hub.name, &*hub.account, &*hub.domain), ("HUB", "A1", "hub"));
        assert_eq!(hub.import.as_ref().unwrap().allow, ["down.>"]);
        assert_eq!(outputs.last(), Some(&LeafOutput::Send(PING.to_vec())));
        assert_eq!(script.hears("PONG"), [LeafOutput::BurstEnd]);
        assert_eq!(script.hears("PONG"), []);
        assert_eq!(script.hears("PING"), [LeafOutput::Send(PONG.to_vec())]);
    }

    #[test]
    fn an_old_hub_without_second_info_is_ready_after_connect() {
        let mut script = Script::new(|_, _| {});
        let outputs = script.hears(r#"INFO {"client_id":1,"leafnode_urls":[]}"#);
        assert_eq!(connect_json(&outputs)["compress_mode"], "not supported");
        assert!(script.solicitor.is_ready());
    }

    #[test]
    fn creds_sign_the_nonce_as_it_is_written() {
        let mut script = Script::new(|_, slot| *slot = Some(creds(0)));
        let connect = connect_json(&script.hears(INFO1));
        let jwt = script.creds.as_ref().unwrap().jwt.expose();
        assert_eq!(connect["jwt"], jwt);
        assert_eq!(connect.get("nkey"), None);
        let sig = connect["sig"].as_str().unwrap();
        let signature = data_encoding::BASE64URL_NOPAD.decode(sig.as_bytes()).unwrap();
        let key: PublicKey = script.creds.as_ref().unwrap().claims.subject.parse().unwrap();
        assert!(key.verify(b"7qCNLoSPvsmcgbw", &signature.try_into().unwrap()));
    }

    #[test]
    fn an_nkey_goes_with_its_public_half() {
        let seed = Seed::from_bytes(KeyKind::User, [9; 32]);
        let public = seed.public_key().unwrap().to_string();
        let mut script = Script::new(|options, _| options.nkey = Some(seed));
        let connect = connect_json(&script.hears(INFO1));
        assert_eq!(connect["nkey"], public);
        assert_eq!(connect["sig"].as_str().unwrap().len(), 86);
    }

    #[test]
    fn a_name_without_password_is_a_token_too() {
        let mut script = Script::new(|_, _| {});
        script.login = Some(Login { user: Secret::new("t0"), password: None });
        let connect = connect_json(&script.hears(INFO1));
        assert_eq!((&connect["user"], &connect["auth_token"]), (&"t0".into(), &"t0".into()));
        let mut script = Script::new(|_, _| {});
        script.login = Some(Login { user: Secret::new("u"), password: Some(Secret::new("p")) });
        let connect = connect_json(&script.hears(INFO1));
        assert_eq!((&connect["user"], &connect["pass"]), (&"u".into(), &"p".into()));
        assert_eq!(connect.get("auth_token"), None);
    }

    #[test]
    fn tls_comes_before_connect_when_either_side_wants_it() {
        let required = INFO1.replace("\"headers\":true", "\"headers\":true,\"tls_required\":true");
        for (configured, info) in [(true, INFO1), (false, &*required)] {
            let mut script = Script::new(|options, _| options.tls = configured);
            let outputs = script.hears(info);
            assert_eq!(outputs.last(), Some(&LeafOutput::StartTls));
            script.with(|solicitor, now, link| solicitor.handle_tls(now, Ok(()), link));
            connect_json(&script.drain());
            assert_eq!(closed(&script.hears(INFO2)), None);
            assert!(script.solicitor.is_ready());
        }
    }

    #[test]
    fn handshake_first_starts_tls_before_any_byte() {
        let mut script = Script::new(|options, _| options.handshake_first = true);
        assert_eq!(script.drain(), [LeafOutput::StartTls]);
        script.with(|solicitor, now, link| solicitor.handle_tls(now, Ok(()), link));
        connect_json(&script.hears(INFO1));
    }

    #[test]
    fn a_failed_tls_handshake_says_why() {
        let mut script = Script::new(|options, _| options.handshake_first = true);
        script.with(|solicitor, now, link| solicitor.handle_tls(now, Err("bad cert"), link));
        let outputs = script.drain();
        assert!(notices(&outputs).contains("bad cert"));
        assert_eq!(closed(&outputs), Some(&LostReason::Unusable));
    }

    #[test]
    fn a_hub_that_stalls_is_left_at_each_step() {
        let mut script = Script::new(|_, _| {});
        assert_eq!(closed(&script.waits(999)), None);
        let outputs = script.waits(1);
        assert_eq!(closed(&outputs), Some(&LostReason::Link));
        assert!(notices(&outputs).contains("sent no INFO"));

        let mut script = Script::new(|_, _| {});
        script.hears(INFO1);
        let outputs = script.waits(2000);
        assert_eq!(
            outputs[0],
            LeafOutput::Send(b"-ERR 'Stale Leaf Node Connection - Closing'\r\n".to_vec())
        );
        assert_eq!(closed(&outputs), Some(&LostReason::Link));

        let mut script = Script::new(|options, _| options.tls = true);
        script.hears(INFO1);
        assert_eq!(closed(&script.waits(2000)), Some(&LostReason::Link));
    }

    #[test]
    fn pings_keep_the_link_and_silence_ends_it() {
        let mut script = Script::new(|_, _| {});
        script.hears(INFO1);
        script.hears(INFO2);
        script.hears("PONG");
        assert_eq!(script.waits(1200), [LeafOutput::Send(PING.to_vec())]);
        script.hears("PONG");
        assert!(script.solicitor.rtt().is_some());
        assert_eq!(script.waits(120_000), [LeafOutput::Send(PING.to_vec())]);
        assert_eq!(script.waits(120_000), [LeafOutput::Send(PING.to_vec())]);
        let outputs = script.waits(120_000);
        assert_eq!(outputs[0], LeafOutput::Send(b"-ERR 'Stale Connection'\r\n".to_vec()));
        assert_eq!(closed(&outputs), Some(&LostReason::Link));
        assert_eq!(script.solicitor.poll_timeout(), None);
    }

    #[test]
    fn a_hub_that_lies_is_left_with_a_clear_line() {
        for (line, what) in [
            (r#"INFO {"client_id":1}"#, "wrong port"),
            (r#"INFO {"leafnode_urls":[]}"#, "wrong port"),
            ("INFO nonsense", "not the JSON"),
            (r#"INFO {"client_id":1,"leafnode_urls":[],"cluster":"a b"}"#, "space"),
            ("CONNECT {}", "dials us"),
            ("LS+ a", "before it accepted"),
            ("LMSG a 0\r\n", "before it accepted"),
        ] {
            let mut script = Script::new(|_, _| {});
            let outputs = script.hears(line);
            assert_eq!(closed(&outputs), Some(&LostReason::Unusable), "{line}");
            assert!(notices(&outputs).contains(what), "{line}: {}", notices(&outputs));
            assert_eq!(script.hears(INFO1), []);
        }
    }

    #[test]
    fn a_refusal_is_explained_and_decides_the_delay() {
        let mut script = Script::new(|_, slot| *slot = Some(creds(1_736_000_000)));
        script.hears(INFO1);
        let outputs = script.hears("-ERR 'Authorization Violation'");
        assert!(notices(&outputs).contains("credentials expired on 2025-01-04"), "{outputs:?}");
        assert_eq!(closed(&outputs), None);
        script.solicitor.handle_end(script.now.instant, None);
        let outputs = script.drain();
        assert_eq!(outputs, [LeafOutput::Close(LostReason::Hub("Authorization Violation".into()))]);
    }

    #[test]
    fn a_lost_link_is_not_a_refusal() {
        let mut script = Script::new(|_, _| {});
        script.hears(INFO1);
        script.hears(INFO2);
        script.solicitor.handle_end(script.now.instant, Some("connection reset"));
        let outputs = script.drain();
        assert_eq!(closed(&outputs), Some(&LostReason::Link));
        assert!(notices(&outputs).contains("connection reset"));
    }

    #[test]
    fn an_error_the_hub_did_not_close_for_does_not_explain_a_loss_much_later() {
        let mut script = Script::new(|_, _| {});
        script.hears(INFO1);
        script.hears(INFO2);
        script.hears("-ERR 'Invalid Subscription'");
        script.now.instant = script.now.instant + Duration::from_mins(1);
        script.solicitor.handle_end(script.now.instant, None);
        assert_eq!(closed(&script.drain()), Some(&LostReason::Link));
    }

    #[test]
    fn gossip_arrives_at_any_time() {
        let mut script = Script::new(|_, _| {});
        script.hears(INFO1);
        script.hears(INFO2);
        assert_eq!(
            script.hears(r#"INFO {"leafnode_urls":["a:1","b:2"]}"#),
            [LeafOutput::Gossip(vec!["a:1".into(), "b:2".into()])]
        );
    }

    #[test]
    fn a_loop_is_answered_and_left() {
        let mut script = Script::new(|_, _| {});
        script.hears(INFO1);
        script.hears(INFO2);
        script.solicitor.handle_loop("$G");
        let outputs = script.drain();
        let LeafOutput::Send(bytes) = &outputs[0] else { panic!("{outputs:?}") };
        assert_eq!(
            bytes.escape_ascii().to_string(),
            r#"-ERR \'Loop detected for leafnode account=\"$G\". Delaying attempt to reconnect for 30s\'\r\n"#
        );
        assert_eq!(closed(&outputs), Some(&LostReason::Loop));
    }
}
