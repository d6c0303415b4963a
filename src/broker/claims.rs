//! Claims by message: accounts that are pushed, asked for, listed and deleted.
//!
//! Owns the subjects of `$SYS.REQ.CLAIMS.…`, their answers, the logins that wait for an
//! account nobody here knows, and the comparison with other servers. Does not own whether a
//! token is taken in (`crate::auth::trust`), nor the files: the shell writes before it
//! answers.
//!
//! # Invariants
//! - A token is applied, and its push answered, after it is on disk.
//! - At most [`limits::CLAIMS_LOOKUPS_MAX`] accounts are asked for at a time, each once; of
//!   one that nobody knew nobody is asked again for [`limits::CLAIMS_MISSING`].
//! - Nobody waits for an account longer than the resolver's `timeout`.
//!
//! Source: NATS docs, "Account lookup using Resolver"; subjects and texts as nats-server
//! 2.15.1.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use litemap::LiteMap;

use super::conn::{Conn, Receiver};
use super::connect::json_text;
use super::host::View;
use super::interest::SubId;
use super::sign_in::SignedIn;
use super::system::SystemRequest;
use super::{Broker, Notice, Output};
use crate::auth::jwt::Token;
use crate::auth::sign_in::Refusal;
use crate::auth::trust::{Refused, Resolver, Taken, is_account_key};
use crate::id::{AccountId, ConnId};
use crate::jetstream::host::Host as _;
use crate::limits;
use crate::time::{Duration, Instant, Now};

/// What comes of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum ClaimsAnswer {
    /// These messages, in their order.
    Messages(Vec<Vec<u8>>),
    /// A member of the envelope that says which server speaks.
    Told {
        /// `data` or `error`.
        member: &'static str,
        /// Its JSON.
        json: Vec<u8>,
    },
    /// The directory changes first; then [`Broker::claims_written`] makes the answer.
    Write(Change),
}

/// A change of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An account's token.
    Put {
        /// Its key.
        account: String,
        /// Its token.
        token: String,
    },
    /// Accounts go.
    Remove {
        /// Their keys.
        accounts: Vec<String>,
        /// Remove the files rather than rename them.
        hard: bool,
    },
}

/// Accounts that are asked for elsewhere.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    waiting: LiteMap<String, Waiting>,
    /// Nobody knew these, and until when that is believed.
    missing: LiteMap<String, Instant>,
    /// When tokens are compared with those of other servers.
    sync_at: Option<Instant>,
    /// Our own answer to those who compare.
    pack: Option<SubId>,
}

#[derive(Debug)]
struct Waiting {
    logins: Vec<ConnId>,
    until: Instant,
}

impl Lookups {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self.waiting.values().map(|waiting| waiting.until).min();
        waiting.into_iter().chain(self.sync_at).min()
    }
}

/// Is this the subject of a request that [`Broker::claims_request`] answers?
pub(super) fn is_claims(subject: &[u8]) -> bool {
    memchr::memmem::find(subject, b".CLAIMS.").is_some() || subject.starts_with(b"$SYS._INBOX.")
}

fn reply_json(account: &str, code: u16, key: &str, text: &str) -> Vec<u8> {
    let mut json = Vec::from(*b"{");
    if !account.is_empty() {
        json.extend_from_slice(b"\"account\":");
        json_text(&mut json, account);
        json.push(b',');
    }
    json.extend_from_slice(format!("\"code\":{code},\"{key}\":").as_bytes());
    json_text(&mut json, text);
    json.push(b'}');
    json
}

fn done(account: &str, text: &str) -> ClaimsAnswer {
    ClaimsAnswer::Told { member: "data", json: reply_json(account, 200, "message", text) }
}

fn failed(refused: &Refused) -> ClaimsAnswer {
    let text = format!("{} - {}", refused.context, refused.description);
    let json = reply_json(&refused.account, 500, "description", &text);
    ClaimsAnswer::Told { member: "error", json }
}

impl Broker {
    /// Listens for requests about claims, and asks for the system account if it is missing.
    pub(super) fn begin_claims(&mut self) {
        let Some(operators) = &self.sign_in.operators else { return };
        if operators.trust.system_account().is_empty() {
            return;
        }
        let mut subjects = Vec::from([
            String::from("$SYS.REQ.ACCOUNT.*.CLAIMS.UPDATE"),
            "$SYS.ACCOUNT.*.CLAIMS.UPDATE".into(),
        ]);
        let (store, full) = match operators.trust.resolver {
            Resolver::Memory | Resolver::Url(_) => (false, false),
            Resolver::Full { .. } => (true, true),
            Resolver::Cache { .. } => (true, false),
        };
        if store {
            for name in ["UPDATE", "LIST", "DELETE"] {
                subjects.push(format!("$SYS.REQ.CLAIMS.{name}"));
            }
            subjects.push(format!("$SYS._INBOX.{}.>", self.core.options.server_id));
        }
        if full {
            subjects.push("$SYS.REQ.ACCOUNT.*.CLAIMS.LOOKUP".into());
        }
        for subject in subjects {
            self.core.add_sub(AccountId::SYSTEM, subject.as_bytes(), b"", Receiver::System);
        }
        if full {
            self.answer_pack();
        }
    }

    fn answer_pack(&mut self) {
        let pack = b"$SYS.REQ.CLAIMS.PACK";
        let id = self.core.add_sub(AccountId::SYSTEM, pack, b"responder", Receiver::System);
        self.lookups.pack = Some(id);
    }

    /// Is it for [`Self::claims_request`]?
    pub fn is_claims_request(&self, request: &SystemRequest) -> bool {
        request.account == AccountId::SYSTEM && is_claims(&request.subject)
    }

    /// Answers a request about claims.
    pub fn claims_request(&mut self, now: Now, request: &SystemRequest) -> ClaimsAnswer {
        self.core.now = now;
        let subject = String::from_utf8_lossy(&request.subject).into_owned();
        let tokens: Vec<&str> = subject.split('.').collect();
        let text = core::str::from_utf8(&request.payload).unwrap_or_default();
        match tokens.as_slice() {
            [_, "REQ", "CLAIMS", "UPDATE"] => self.pushed(now, None, text),
            [_, "REQ", "ACCOUNT", account, "CLAIMS", "UPDATE"]
            | [_, "ACCOUNT", account, "CLAIMS", "UPDATE"] => self.pushed(now, Some(account), text),
            [_, "REQ", "ACCOUNT", account, "CLAIMS", "LOOKUP"] => {
                let operators = self.sign_in.operators.as_ref();
                let token = operators.and_then(|operators| operators.trust.token(account));
                let token = token.unwrap_or_default().as_bytes().to_vec();
                ClaimsAnswer::Messages(Vec::from([token]))
            }
            [_, _, "CLAIMS", "PACK"] => ClaimsAnswer::Messages(self.pack(now, &request.payload)),
            [_, _, "CLAIMS", "LIST"] => self.list(now),
            [_, _, "CLAIMS", "DELETE"] => self.delete(text),
            // An answer to a question of ours.
            [_, "_INBOX", _, "LOOKUP", account] => self.brought(now, Some(account), text),
            [_, "_INBOX", ..] => match text.split_once('|') {
                Some((account, token)) => self.brought(now, Some(account), token),
                None => ClaimsAnswer::Messages(Vec::new()),
            },
            _ => ClaimsAnswer::Messages(Vec::new()),
        }
    }

    /// A token from somebody who wants it to hold.
    fn pushed(&mut self, now: Now, account: Option<&str>, text: &str) -> ClaimsAnswer {
        let Some(operators) = &mut self.sign_in.operators else {
            return ClaimsAnswer::Messages(Vec::new());
        };
        let trust = &mut operators.trust;
        let account = match trust.examine(text, account, now.wall) {
            Ok(account) => account,
            Err(refused) => return failed(&refused),
        };
        let used = trust.loaded(&account).is_some();
        match trust.resolver {
            Resolver::Memory | Resolver::Url(_) if used => {
                self.take_in(now, &account, text);
                done(&account, "jwt updated")
            }
            Resolver::Memory | Resolver::Url(_) => done(&account, "jwt update skipped"),
            Resolver::Cache { .. } if !used => done(&account, "jwt update cache skipped"),
            Resolver::Cache { .. } | Resolver::Full { .. } => {
                let token = text.trim().into();
                ClaimsAnswer::Write(Change::Put { account, token })
            }
        }
    }

    /// A token that another server knows. Those that are no news are passed over.
    fn brought(&mut self, now: Now, account: Option<&str>, text: &str) -> ClaimsAnswer {
        let nothing = ClaimsAnswer::Messages(Vec::new());
        let Some(operators) = &mut self.sign_in.operators else { return nothing };
        let trust = &operators.trust;
        let news = !text.is_empty()
            && account.is_some_and(|account| trust.is_news(account, text, now.wall));
        match account {
            Some(account) if news => ClaimsAnswer::Write(Change::Put {
                account: account.into(),
                token: text.trim().into(),
            }),
            _ => nothing,
        }
    }

    /// A token holds from now on.
    fn take_in(&mut self, now: Now, account: &str, text: &str) {
        let Some(operators) = &mut self.sign_in.operators else { return };
        let taken = operators.trust.take_in(account, text, now.wall);
        if let Taken::Updated(before) = taken {
            self.account_changed(now, account, &before);
        } else {
            self.redeclare(now);
        }
        self.lookups.missing.remove(account);
        self.admit_waiting(now, account);
        self.ask_for_wanted(now);
    }

    /// The directory has changed, or could not be. The answer to whoever asked.
    pub fn claims_written(
        &mut self,
        now: Now,
        change: &Change,
        result: Result<(), String>,
    ) -> ClaimsAnswer {
        self.core.now = now;
        if let Err(error) = result {
            let text = format!("resolver directory: {error}");
            self.core.outputs.push_back(Output::Notice(Notice::error(text.as_str())));
            let account = match change {
                Change::Put { account, .. } => account.clone(),
                Change::Remove { .. } => String::new(),
            };
            let context = "jwt update resulted in error";
            return failed(&Refused { account, context, description: text });
        }
        match change {
            Change::Put { account, token } => {
                self.take_in(now, account, token);
                let cache = self.sign_in.operators.as_ref().is_some_and(|operators| {
                    matches!(operators.trust.resolver, Resolver::Cache { .. })
                });
                done(account, if cache { "jwt updated cache" } else { "jwt updated" })
            }
            Change::Remove { accounts, .. } => {
                for account in accounts {
                    if let Some(operators) = &mut self.sign_in.operators {
                        operators.trust.forget(account);
                    }
                    self.end_account(now, account);
                }
                self.redeclare(now);
                done("", &format!("deleted {} accounts", accounts.len()))
            }
        }
    }

    /// Tokens that are in time, one message each, and an empty one; nothing but that if the
    /// asker has the same.
    fn pack(&self, now: Now, hash: &[u8]) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        if hash.is_empty() || *hash != self.claims_hash(now) {
            let operators = self.sign_in.operators.as_ref();
            let tokens = operators.iter().flat_map(|one| one.trust.tokens_in_time(now.wall));
            all.extend(tokens.map(|(key, token)| format!("{key}|{token}").into_bytes()));
        }
        all.push(Vec::new());
        all
    }

    fn claims_hash(&self, now: Now) -> [u8; 32] {
        let mut hash = [0; 32];
        let operators = self.sign_in.operators.as_ref();
        for (_, token) in operators.iter().flat_map(|one| one.trust.tokens_in_time(now.wall)) {
            let digest = Sha256::digest(token.as_bytes());
            for (to, byte) in hash.iter_mut().zip(digest) {
                *to ^= byte;
            }
        }
        hash
    }

    fn list(&self, now: Now) -> ClaimsAnswer {
        let mut json = Vec::from(*b"[");
        let operators = self.sign_in.operators.as_ref();
        for (key, _) in operators.iter().flat_map(|one| one.trust.tokens_in_time(now.wall)) {
            if json.len() > 1 {
                json.push(b',');
            }
            json_text(&mut json, key);
        }
        json.push(b']');
        ClaimsAnswer::Told { member: "data", json }
    }

    fn delete(&self, text: &str) -> ClaimsAnswer {
        let refuse = |by: &str, what: &str| {
            let text = format!("delete accounts request by {by} failed - {what}");
            let json = reply_json("", 500, "description", &text);
            ClaimsAnswer::Told { member: "error", json }
        };
        let Some(operators) = &self.sign_in.operators else {
            return ClaimsAnswer::Messages(Vec::new());
        };
        let trust = &operators.trust;
        let token = match Token::decode(text) {
            Ok(token) => token,
            Err(error) => return refuse("n/a", &format!("{error}")),
        };
        let by = format!("{}", token.issuer);
        let Resolver::Full { allow_delete: true, hard_delete, .. } = trust.resolver else {
            return refuse(&by, "delete must be enabled in server config");
        };
        if token.subject != by {
            return refuse(&by, "not self signed");
        }
        if !trust.is_operator(&token.issuer) {
            return refuse(&by, "not trusted");
        }
        let accounts = token.body().texts("accounts").unwrap_or_default();
        if accounts.is_empty() || accounts.iter().any(|key| !is_account_key(key)) {
            return refuse(&by, "malformed request");
        }
        if accounts.iter().any(|key| key == trust.system_account()) {
            return refuse(&by, "not allowed to delete system account");
        }
        ClaimsAnswer::Write(Change::Remove { accounts, hard: hard_delete })
    }

    // --- Accounts nobody here knows ---

    /// A login is in an account that is not known: it waits while somebody else is asked.
    pub(super) fn wait_for_account(&mut self, index: u32, account: &str) -> SignedIn {
        let now = self.core.now;
        if !self.ask_for(now, account) {
            self.refuse_unknown(index, "account missing");
            return SignedIn::No;
        }
        let Some(conn) = self.core.conns.get_mut(index as usize) else { return SignedIn::No };
        conn.parked = true;
        let id = conn.id;
        if let Some(waiting) = self.lookups.waiting.get_mut(account) {
            waiting.logins.push(id);
        }
        SignedIn::Parked
    }

    fn refuse_unknown(&mut self, index: u32, why: &str) {
        let text = format!("Account JWT lookup error: {why}");
        self.refuse_login(index, &Refusal::Token { text, loud: false });
    }

    /// Asks for an account elsewhere; false if that makes no sense now.
    fn ask_for(&mut self, now: Now, account: &str) -> bool {
        let Some(operators) = &self.sign_in.operators else { return false };
        let resolver = operators.trust.resolver.clone();
        let timeout = match &resolver {
            Resolver::Memory => return false,
            Resolver::Url(_) => limits::CLAIMS_FETCH_TIMEOUT,
            Resolver::Full { timeout, .. } | Resolver::Cache { timeout, .. } => *timeout,
        };
        if self.lookups.waiting.contains_key(account) {
            return true;
        }
        let known_missing =
            self.lookups.missing.get(account).is_some_and(|until| *until > now.instant);
        if known_missing
            || !is_account_key(account)
            || self.lookups.waiting.len() >= limits::CLAIMS_LOOKUPS_MAX
        {
            return false;
        }
        let until = now.instant + timeout;
        self.lookups.waiting.insert(account.into(), Waiting { logins: Vec::new(), until });
        if let Resolver::Url(url) = resolver {
            let url = format!("{url}{account}");
            self.core.outputs.push_back(Output::FetchClaims { account: account.into(), url });
        } else {
            let subject = format!("$SYS.REQ.ACCOUNT.{account}.CLAIMS.LOOKUP");
            let reply = format!("$SYS._INBOX.{}.LOOKUP.{account}", self.core.options.server_id);
            self.ask_others(&subject, &reply, b"");
        }
        true
    }

    fn ask_others(&mut self, subject: &str, reply: &str, payload: &[u8]) {
        let mut view = View { core: &mut self.core, account: AccountId::SYSTEM };
        view.deliver(subject.as_bytes(), subject.as_bytes(), reply.as_bytes(), b"", payload);
    }

    /// Asks for the accounts that others import from, and for the system account.
    pub(super) fn ask_for_wanted(&mut self, now: Now) {
        let Some(operators) = &mut self.sign_in.operators else { return };
        for account in operators.trust.take_wanted() {
            self.ask_for(now, &account);
        }
    }

    /// What came of [`Output::FetchClaims`].
    pub fn claims_fetched(&mut self, now: Now, account: &str, result: Result<&str, &str>) {
        self.core.now = now;
        let Some(operators) = &mut self.sign_in.operators else { return };
        let problem = match result {
            Ok(text) => match operators.trust.examine(text, Some(account), now.wall) {
                Ok(_) => return self.take_in(now, account, text),
                Err(refused) => refused.description,
            },
            Err(error) => error.into(),
        };
        let text = format!("Account fetch failed: {problem}");
        self.core.outputs.push_back(Output::Notice(Notice::warn(text)));
        self.give_up(now, account, &problem);
    }

    /// An account has come, or it is clear that it does not.
    fn admit_waiting(&mut self, now: Now, account: &str) {
        let Some(waiting) = self.lookups.waiting.remove(account) else { return };
        for id in waiting.logins {
            let Some(partial) = self.unpark_login(id) else { continue };
            if self.decide_by_token(id.index) == SignedIn::Yes {
                self.connected(id.index);
                if !partial.is_empty() {
                    self.receive(now, id, &partial);
                }
            }
        }
    }

    fn give_up(&mut self, now: Now, account: &str, why: &str) {
        let Some(waiting) = self.lookups.waiting.remove(account) else { return };
        let missing = &mut self.lookups.missing;
        if missing.len() >= limits::CLAIMS_MISSING_LEN {
            missing.clear();
        }
        missing.insert(account.into(), now.instant + limits::CLAIMS_MISSING);
        for id in waiting.logins {
            if self.unpark_login(id).is_some() {
                self.refuse_unknown(id.index, why);
            }
        }
    }

    /// What a login that waited sent ahead; `None` if it is gone.
    fn unpark_login(&mut self, id: ConnId) -> Option<Vec<u8>> {
        let same = |conn: &&Conn| conn.id == id && !conn.closing && conn.parked;
        self.core.conn(id.index).filter(same)?;
        Some(self.core.unpark(id.index))
    }

    /// A link came up: in the system account it leads to servers that may know more.
    pub(super) fn compare_claims_soon(&mut self, index: u32) {
        let now = self.core.now.instant;
        if self.sign_in.operators.is_some()
            && self.core.conn(index).is_some_and(|conn| conn.account == AccountId::SYSTEM)
        {
            // Interest of the other side comes first.
            self.lookups.sync_at = Some(now + Duration::from_millis(500));
            self.lookups.missing.clear();
        }
        if let Some(operators) = &mut self.sign_in.operators {
            operators.trust.want_needed();
        }
    }

    pub(super) fn claims_timeout(&mut self, now: Now) {
        let over = self.lookups.waiting.iter().filter(|(_, one)| one.until <= now.instant);
        let over: Vec<String> = over.map(|(account, _)| account.clone()).collect();
        for account in over {
            self.give_up(now, &account, "fetching jwt timed out");
        }
        self.ask_for_wanted(now);
        let Some(operators) = &self.sign_in.operators else { return };
        let (interval, full) = match operators.trust.resolver {
            Resolver::Full { interval, .. } => (interval, true),
            Resolver::Cache { ttl, .. } if !ttl.is_zero() => (ttl, false),
            _ => {
                self.lookups.sync_at = None;
                return;
            }
        };
        // The first time soon: what changed while we were away.
        let first = self.lookups.sync_at.is_none();
        if first || self.lookups.sync_at.is_some_and(|at| at <= now.instant) {
            let pause = if first { interval.min(Duration::from_secs(5)) } else { interval };
            self.lookups.sync_at = Some(now.instant + pause);
            if !full {
                // What is older than that is used all the same until there is news.
                let used: Vec<String> =
                    operators.trust.all_loaded().map(|(key, _)| key.into()).collect();
                for account in used {
                    self.ask_for(now, &account);
                }
            } else if !first {
                let hash = self.claims_hash(now);
                let reply = format!("$SYS._INBOX.{}.PACK", self.core.options.server_id);
                // One of the group answers, and that must not be us.
                if let Some(pack) = self.lookups.pack.take() {
                    self.core.remove_sub(pack);
                }
                self.ask_others("$SYS.REQ.CLAIMS.PACK", &reply, &hash);
                self.answer_pack();
            }
        }
    }
}
