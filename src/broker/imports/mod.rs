//! Between accounts: stream imports, service imports, and the way back of answers.
//!
//! Owns what the declarations come to (which subject of which account is which subject of
//! another), shadow subscriptions, and the answers under way. Does not own routing in one
//! account: [`Core::route`] notes what a message must cross, and [`Core::cross`] routes it
//! on in the other account.
//!
//! A *stream import* puts, for each subscription of the importer that overlaps what is
//! imported, a shadow of it into the exporter's interest. A *service import* is a
//! subscription of the importer; a request that reaches it goes on in the exporter's account
//! with a reply subject of our own, `_R_.<account>.<token>`, which only that account has.
//!
//! # Invariants
//! - A shadow exists exactly as long as its subscription.
//! - Nobody but the exporter's account can use an answer's subject, and nobody without it
//!   having been told can guess it: the token is random.
//! - A message crosses at most [`limits::IMPORT_DEPTH_MAX`] times.
//! - An account has at most [`limits::RESPONSES_MAX`] answers under way.
//!
//! Source: NATS docs, "Multi Tenancy using Accounts"; wire texts as nats-server 2.15.1.

pub(super) mod view;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Bound;

use super::account::AccountState;
use super::conn::{Receiver, Sub};
use super::core::{Core, Deferred, Msg, Origin};
use super::interest::SubId;
use super::latency::{self, Latency, Outcome, Tracking};
use super::msg_trace;
use super::options::Options;
use crate::auth::account::{Account, Export, ExportKind, Import, ImportKind, ResponseType};
use crate::id::{AccountId, short_hash};
use crate::jetstream::host::Target;
use crate::limits;
use crate::proto::headers;
use crate::subject::transform::{Purpose, Transform};
use crate::subject::{is_subset, matches, overlap};
use crate::time::{Duration, Instant};

/// A stream import.
#[derive(Debug)]
struct StreamImport {
    exporter: AccountId,
    /// What it is in the importer's account.
    local: Box<[u8]>,
    /// From the exporter's subject to ours.
    there: Transform,
    back: Transform,
    /// May a trace go on behind it?
    allow_trace: bool,
}

/// A service import.
#[derive(Debug)]
struct ServiceImport {
    importer: AccountId,
    exporter: AccountId,
    /// From our subject to the exporter's.
    there: Transform,
    share: bool,
    response: ResponseType,
    threshold: Duration,
    latency: Option<Rc<Latency>>,
    /// May a trace go on behind it?
    allow_trace: bool,
}

/// An answer under way.
#[derive(Debug)]
pub(super) struct Response {
    /// Who asked.
    to: AccountId,
    /// What it called its answer.
    reply: Box<[u8]>,
    kind: ResponseType,
    threshold: Duration,
    expires: Instant,
    /// The entry in `timers` that stands for it.
    timer: Instant,
    tracking: Option<Box<Tracking>>,
    /// Does the exporter see who asks?
    share: bool,
}

/// The subject of an answer in the exporter's account.
type Token = Rc<[u8]>;

/// What one message must cross.
#[derive(Clone, Copy, Debug)]
pub(super) enum Hit {
    Shadow(SubId),
    Service(u32),
    Response,
}

/// Of the requester, while its message crosses more than one account.
#[derive(Clone, Copy, Debug)]
struct Chain {
    share: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Crossings {
    streams: Vec<StreamImport>,
    services: Vec<Rc<ServiceImport>>,
    /// The shadows of a subscription.
    shadows: BTreeMap<SubId, Vec<SubId>>,
    /// What the message under way must cross.
    pub(super) hits: Vec<Hit>,
    depth: usize,
    chain: Option<Chain>,
    timers: BTreeSet<(Instant, AccountId, Token)>,
}

/// What an account has of imports and answers.
#[derive(Debug, Default)]
pub(super) struct Crossing {
    /// Its stream imports.
    streams: Vec<u32>,
    /// `_R_.<token>.`, once it has answered anything.
    prefix: Box<[u8]>,
    /// What it has to answer.
    responses: BTreeMap<Token, Response>,
    /// What it waits for: its reply subject, then who answers and under which subject.
    waiting: BTreeMap<Box<[u8]>, Vec<(AccountId, Token)>>,
    pending: usize,
}

impl Crossing {
    /// Is an answer under this subject still awaited?
    pub(super) fn waits_for(&self, subject: &[u8]) -> bool {
        self.responses.contains_key(subject)
    }
}

/// The export an import is covered by: one of exactly its subject, else the first that
/// covers it.
fn covering<'a>(exporter: &'a Account, import: &Import) -> Option<&'a Export> {
    let stream = matches!(import.kind, ImportKind::Stream { .. });
    let same = |export: &&Export| matches!(export.kind, ExportKind::Stream) == stream;
    let mut exact =
        exporter.exports.iter().filter(same).filter(|export| export.subject == import.subject);
    let mut wider = exporter
        .exports
        .iter()
        .filter(same)
        .filter(|export| is_subset(import.subject.as_bytes(), export.subject.as_bytes()));
    exact.next().or_else(|| wider.next())
}

/// The subject as a destination: its wildcards numbered.
fn numbered(subject: &str) -> String {
    let mut count = 0;
    let tokens: Vec<String> = subject
        .split('.')
        .map(|token| {
            if token == "*" {
                count += 1;
                alloc::format!("${count}")
            } else {
                token.into()
            }
        })
        .collect();
    tokens.join(".")
}

impl Core {
    /// Sets up the imports of all accounts. What could not be set up is told.
    pub(super) fn begin_imports(&mut self, options: &Options) -> Vec<String> {
        let mut problems = Vec::new();
        for importer in &options.accounts {
            let Some(id) = self.account_named(&importer.name) else { continue };
            for import in &importer.imports {
                if let Err(what) = self.begin_import(options, id, import) {
                    problems.push(alloc::format!(
                        "import of {:?} from account {:?} into {:?}: {what}",
                        import.subject,
                        import.account,
                        importer.name
                    ));
                }
            }
        }
        problems
    }

    fn begin_import(
        &mut self,
        options: &Options,
        importer: AccountId,
        import: &Import,
    ) -> Result<(), String> {
        let exporter = options.accounts.iter().find(|account| account.name == import.account);
        let (Some(exporter), Some(id)) = (exporter, self.account_named(&import.account)) else {
            return Err("there is no such account".into());
        };
        let export = covering(exporter, import).ok_or("nothing like it is exported")?;
        let to = import.to.clone().unwrap_or_else(|| import.subject.clone());
        let to = if to.contains('*') { numbered(&to) } else { to };
        let there = Transform::new(&import.subject, &to, Purpose::Import)
            .map_err(|error| alloc::format!("{error}"))?;
        let back = there.reverse().ok_or("it has no way back")?;
        let local: Box<[u8]> = there.destination_pattern().into();
        match (&import.kind, &export.kind) {
            (
                ImportKind::Service { share },
                ExportKind::Service { response, threshold, latency },
            ) => {
                let index = u32::try_from(self.cross.services.len()).unwrap_or(u32::MAX);
                self.cross.services.push(Rc::new(ServiceImport {
                    importer,
                    exporter: id,
                    there: back,
                    share: *share,
                    response: *response,
                    threshold: threshold.unwrap_or(limits::RESPONSE_THRESHOLD),
                    latency: latency.as_ref().map(|latency| Rc::new(Latency::new(id, latency))),
                    allow_trace: export.allow_trace,
                }));
                self.add_sub(importer, &local, b"", Receiver::Service(index));
            }
            _ => {
                let index = u32::try_from(self.cross.streams.len()).unwrap_or(u32::MAX);
                let allow_trace = import.kind == ImportKind::Stream { allow_trace: true };
                let import = StreamImport { exporter: id, local, there, back, allow_trace };
                self.cross.streams.push(import);
                if let Some(state) = self.account_mut(importer) {
                    state.crossing.streams.push(index);
                }
            }
        }
        Ok(())
    }

    /// Ends the imports of all accounts. Answers under way still arrive.
    pub(super) fn end_imports(&mut self) {
        for shadow in core::mem::take(&mut self.cross.shadows).into_values().flatten() {
            self.remove_sub(shadow);
        }
        let is_service = |sub: &Sub| matches!(sub.receiver, Receiver::Service(_));
        let services: Vec<SubId> = self.sub_ids(is_service);
        for sub in services {
            self.remove_sub(sub);
        }
        self.cross.streams.clear();
        self.cross.services.clear();
        for state in &mut self.accounts {
            state.crossing.streams.clear();
        }
    }

    /// Gives all subscriptions of accounts that import their shadows.
    pub(super) fn add_all_shadows(&mut self) {
        let imports =
            |sub: &Sub| self.account(sub.account).is_some_and(AccountState::imports_streams);
        for sub in self.sub_ids(imports) {
            self.add_shadows(sub);
        }
    }

    fn sub_ids(&self, wanted: impl Fn(&Sub) -> bool) -> Vec<SubId> {
        let subs = self.subs.iter().filter(|(_, sub)| wanted(sub));
        subs.filter_map(|(index, _)| u32::try_from(index).ok().map(SubId)).collect()
    }

    /// An account goes: nobody there answers any more, and nobody waits.
    pub(super) fn end_responses_of(&mut self, account: AccountId) {
        let Some(state) = self.account(account) else { return };
        let crossing = &state.crossing;
        let own = crossing.responses.keys().map(|token| (account, token.clone()));
        let others = crossing.waiting.values().flatten().cloned();
        let all: Vec<(AccountId, Token)> = own.chain(others).collect();
        for (exporter, token) in all {
            self.end_response(exporter, &token, None);
        }
    }

    // --- Streams ---

    /// A subscription came: it gets a shadow in each account it imports a stream from that
    /// it overlaps. Only for accounts that import.
    #[cold]
    pub(super) fn add_shadows(&mut self, id: SubId) {
        let Some(sub) = self.subs.get(id.0 as usize) else { return };
        if matches!(
            sub.receiver,
            Receiver::Shadow { .. } | Receiver::Service(_) | Receiver::Responses | Receiver::System
        ) {
            return;
        }
        let (account, subject, queue) = (sub.account, sub.subject.clone(), sub.queue.clone());
        let Some(state) = self.account(account) else { return };
        let mut wanted: Vec<(AccountId, Vec<u8>, u32)> = Vec::new();
        for &index in &state.crossing.streams {
            let Some(import) = self.cross.streams.get(index as usize) else { continue };
            if let Some(both) = overlap(&subject, &import.local) {
                wanted.push((import.exporter, import.back.apply_to_pattern(&both), index));
            }
        }
        let mut shadows = Vec::new();
        for (exporter, pattern, import) in wanted {
            let receiver = Receiver::Shadow { of: id, import };
            shadows.push(self.add_sub(exporter, &pattern, &queue, receiver));
        }
        if !shadows.is_empty() {
            self.cross.shadows.insert(id, shadows);
        }
    }

    /// A subscription went.
    pub(super) fn remove_shadows(&mut self, id: SubId) {
        if self.cross.shadows.is_empty() {
            return;
        }
        for shadow in self.cross.shadows.remove(&id).unwrap_or_default() {
            self.remove_sub(shadow);
        }
    }

    // --- Crossing ---

    /// Routes a message on in the accounts it was found to reach. Says whether anybody
    /// received it there.
    #[cold]
    pub(super) fn cross(&mut self, account: AccountId, origin: Origin<'_>, msg: &Msg<'_>) -> bool {
        let mut hits = core::mem::take(&mut self.cross.hits);
        let mut delivered = false;
        if self.cross.depth < limits::IMPORT_DEPTH_MAX {
            self.cross.depth += 1;
            let origin = origin.elsewhere();
            for hit in hits.drain(..) {
                delivered |= match hit {
                    Hit::Shadow(id) => self.cross_stream(id, origin, msg),
                    Hit::Service(index) => self.cross_service(index, origin, msg),
                    Hit::Response => self.cross_response(account, origin, msg),
                };
            }
            self.cross.depth -= 1;
        }
        hits.clear();
        self.cross.hits = hits;
        delivered
    }

    fn cross_stream(&mut self, id: SubId, origin: Origin<'_>, msg: &Msg<'_>) -> bool {
        let Some(Sub { receiver: Receiver::Shadow { of, import }, .. }) =
            self.subs.get(id.0 as usize)
        else {
            return false;
        };
        let (of, import) = (*of, *import);
        let Some(import) = self.cross.streams.get(import as usize) else { return false };
        let Some(sub) = self.subs.get(of.0 as usize) else { return false };
        let mut subject = Vec::new();
        if !import.there.apply(msg.to, |_| 0, &mut subject) || !matches(&subject, &sub.subject) {
            return false;
        }
        let allow_trace = import.allow_trace;
        let shown = if msg.is_renamed() { msg.subject } else { &subject };
        let msg = Msg { to: &subject, subject: shown, ..*msg };
        let queue = sub.queue.clone();
        let queue = (!queue.is_empty()).then_some(&*queue);
        let mut targets = Vec::new();
        let delivered = if self.msg_trace.is_none() {
            self.deliver_to(of, origin, &msg, &mut targets, queue)
        } else {
            self.cross_stream_traced((id, of), allow_trace, origin, &msg, &mut targets, queue)
        };
        self.settle_delivery(&msg);
        self.defer(targets, origin, &msg);
        delivered
    }

    #[cold]
    fn cross_stream_traced(
        &mut self,
        (shadow, of): (SubId, SubId),
        allowed: bool,
        origin: Origin<'_>,
        msg: &Msg<'_>,
        targets: &mut Vec<(AccountId, Target)>,
        queue: Option<&[u8]>,
    ) -> bool {
        let account = self.subs.get(of.0 as usize).map_or(AccountId::NONE, |sub| sub.account);
        let shown = self.subs.get(shadow.0 as usize).map(|sub| sub.subject.clone());
        self.trace_import(account, None, msg.to);
        if allowed {
            return self.deliver_traced(of, origin, msg, targets, queue, shown.as_deref());
        }
        let Some((trace, headers)) = self.pause_trace(msg.headers) else { return false };
        let only = trace.only;
        let delivered =
            only || self.deliver_to(of, origin, &Msg { headers: &headers, ..*msg }, targets, queue);
        self.resume_trace(trace);
        delivered
    }

    fn cross_service(&mut self, index: u32, origin: Origin<'_>, msg: &Msg<'_>) -> bool {
        let Some(import) = self.cross.services.get(index as usize).cloned() else { return false };
        let mut subject = Vec::new();
        if !import.there.apply(msg.to, |_| 0, &mut subject) {
            return false;
        }
        let Some(subject) = self.mapped(import.exporter, &subject) else { return false };
        let before = self.cross.chain;
        let first = before.is_none();
        let share = before.map_or(import.share, |chain| chain.share);
        let via = (!first).then_some(import.importer);
        let mut headers = self.info_headers(origin, import.importer, share, via, msg.headers);
        let mut paused = None;
        if self.msg_trace.is_some() {
            self.trace_import(import.exporter, Some(msg.to), &subject);
            if import.allow_trace {
                let kind = (ResponseType::Stream, limits::RESPONSE_THRESHOLD);
                let back = self.trace_dest(msg.headers).and_then(|dest| {
                    self.new_response(import.exporter, import.importer, &dest, kind, None)
                });
                if let Some(back) = back {
                    headers = headers::with(&headers, msg_trace::DEST, &back);
                }
            } else if let Some((trace, disabled)) = self.pause_trace(&headers) {
                if trace.only {
                    self.resume_trace(trace);
                    return true;
                }
                headers = disabled;
                paused = Some(trace);
            }
        }
        let tracking = self.begin_tracking(origin, &import, msg);
        self.cross.chain = Some(Chain { share });
        let mut token = None;
        let reply = if msg.reply.is_empty() || msg.reply.starts_with(b"$JS.ACK.") {
            msg.reply
        } else {
            let kind = (import.response, import.threshold);
            token = self.new_response(import.exporter, import.importer, msg.reply, kind, tracking);
            let Some(token) = &token else {
                self.cross.chain = before;
                if let Some(trace) = paused {
                    self.resume_trace(trace);
                }
                return false;
            };
            &**token
        };
        // A copy, because the table may change while the message is under way.
        let reply: Box<[u8]> = reply.into();
        let crossed =
            Msg { to: &subject, subject: &subject, reply: &reply, headers: &headers, ..*msg };
        let delivered = self.route_on(import.exporter, origin, &crossed);
        self.cross.chain = before;
        if let Some(trace) = paused {
            self.resume_trace(trace);
        }
        if !delivered && let Some(token) = token {
            self.end_response(import.exporter, &token, Some(Outcome::Unavailable));
        }
        delivered
    }

    fn begin_tracking(
        &mut self,
        origin: Origin<'_>,
        import: &ServiceImport,
        msg: &Msg<'_>,
    ) -> Option<Box<Tracking>> {
        let latency = import.latency.as_ref()?;
        let header = latency.sampled(msg.headers, &mut self.rng)?;
        let party = self.party(origin, import.importer, import.share);
        let tracking = Tracking::new(latency.clone(), self.now, party, header);
        if msg.reply.is_empty() {
            self.publish_latency(&tracking, &Outcome::BadRequest);
            return None;
        }
        Some(Box::new(tracking))
    }

    fn cross_response(&mut self, account: AccountId, origin: Origin<'_>, msg: &Msg<'_>) -> bool {
        let now = self.now.instant;
        let Some(state) = self.account_mut(account) else { return false };
        let Some((token, _)) = state.crossing.responses.get_key_value(msg.to) else { return false };
        let token = token.clone();
        let Some(response) = state.crossing.responses.get_mut(&token) else { return false };
        let (to, reply) = (response.to, response.reply.clone());
        response.expires = now + response.threshold;
        let tracking = response.tracking.take();
        let is_empty = msg.payload.is_empty() && msg.headers.is_empty();
        if response.kind == ResponseType::Singleton || is_empty {
            self.end_response(account, &token, None);
        }
        let mut nested = None;
        let back = if msg.reply.is_empty() || msg.reply.starts_with(b"$JS.ACK.") {
            msg.reply
        } else {
            let kind = (ResponseType::Singleton, limits::RESPONSE_THRESHOLD);
            nested = self.new_response(to, account, msg.reply, kind, None);
            nested.as_deref().unwrap_or_default()
        };
        let back: Box<[u8]> = back.into();
        let shown = if msg.is_renamed() { msg.subject } else { &reply };
        let answer = Msg { to: &reply, subject: shown, reply: &back, ..*msg };
        let delivered = self.route_on(to, origin, &answer);
        if !delivered && let Some(nested) = nested {
            self.end_response(to, &nested, None);
        }
        if let Some(tracking) = tracking {
            let responder = self.party(origin, account, true);
            self.publish_latency(&tracking, &Outcome::Answered(responder));
        }
        delivered
    }

    /// Routes in another account; JetStream there hears of it once the current call has
    /// returned.
    pub(super) fn route_on(
        &mut self,
        account: AccountId,
        origin: Origin<'_>,
        msg: &Msg<'_>,
    ) -> bool {
        let mut targets = Vec::new();
        let delivered = self.route(account, origin, msg, &mut targets);
        self.defer(targets, origin, msg);
        delivered
    }

    fn defer(&mut self, targets: Vec<(AccountId, Target)>, origin: Origin<'_>, msg: &Msg<'_>) {
        for (account, target) in targets {
            self.deferred.push_back(Deferred {
                account,
                target,
                subject: msg.to.into(),
                reply: msg.reply.into(),
                headers: msg.headers.into(),
                payload: msg.payload.into(),
                asking: origin.conn(),
            });
        }
    }

    // --- Answers ---

    /// A subject in `exporter` under which what is published there goes to `reply` in `to`.
    /// `None`: too many are under way.
    fn new_response(
        &mut self,
        exporter: AccountId,
        to: AccountId,
        reply: &[u8],
        (kind, threshold): (ResponseType, Duration),
        tracking: Option<Box<Tracking>>,
    ) -> Option<Token> {
        if self.account(to)?.crossing.pending >= limits::RESPONSES_MAX {
            return None;
        }
        if self.account(exporter)?.crossing.prefix.is_empty() {
            let prefix = alloc::format!("_R_.{}.", self.rng.token(6)).into_bytes();
            let all = [&prefix[..], b">"].concat();
            self.account_mut(exporter)?.crossing.prefix = prefix.into();
            self.add_sub(exporter, &all, b"", Receiver::Responses);
        }
        let mut subject = self.account(exporter)?.crossing.prefix.to_vec();
        let expires = self.now.instant + threshold;
        loop {
            let start = subject.len();
            subject.extend_from_slice(self.rng.token(6).as_bytes());
            if tracking.is_some() {
                subject.push(b'.');
                subject.extend_from_slice(short_hash(self.options.server_id.as_bytes()).as_bytes());
                subject.extend_from_slice(b".T");
            }
            if !self.account(exporter)?.crossing.responses.contains_key(&subject[..]) {
                break;
            }
            subject.truncate(start);
        }
        let token: Token = subject.into();
        let reply: Box<[u8]> = reply.into();
        let response = Response {
            to,
            reply: reply.clone(),
            kind,
            threshold,
            expires,
            timer: expires,
            tracking,
            share: self.cross.chain.is_some_and(|chain| chain.share),
        };
        self.account_mut(exporter)?.crossing.responses.insert(token.clone(), response);
        self.cross.timers.insert((expires, exporter, token.clone()));
        let asker = &mut self.account_mut(to)?.crossing;
        asker.waiting.entry(reply).or_default().push((exporter, token.clone()));
        asker.pending += 1;
        Some(token)
    }

    /// Forgets an answer. If it was measured, `outcome` is told.
    fn end_response(&mut self, exporter: AccountId, token: &[u8], outcome: Option<Outcome>) {
        let Some(state) = self.account_mut(exporter) else { return };
        let Some((token, response)) = state.crossing.responses.remove_entry(token) else { return };
        self.cross.timers.remove(&(response.timer, exporter, token.clone()));
        if let Some(state) = self.account_mut(response.to) {
            let asker = &mut state.crossing;
            asker.pending = asker.pending.saturating_sub(1);
            if let Some(list) = asker.waiting.get_mut(&response.reply) {
                list.retain(|(of, other)| *of != exporter || *other != token);
                if list.is_empty() {
                    asker.waiting.remove(&response.reply);
                }
            }
        }
        if let (Some(tracking), Some(outcome)) = (response.tracking, outcome) {
            self.publish_latency(&tracking, &outcome);
        }
    }

    /// A subscription of an account went: answers that nobody waits for any more are
    /// forgotten.
    pub(super) fn end_unwanted_responses(&mut self, account: AccountId, subject: &[u8]) {
        let Some(state) = self.account_mut(account) else { return };
        if state.crossing.pending == 0 {
            return;
        }
        let wildcard = memchr::memchr2(b'*', b'>', subject).unwrap_or(subject.len());
        let prefix = subject.get(..wildcard).unwrap_or_default();
        let crossing = &mut state.crossing;
        let mut gone = Vec::new();
        for (reply, list) in
            crossing.waiting.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
        {
            if !reply.starts_with(prefix) {
                break;
            }
            if matches(reply, subject) {
                let found = state.interest.find(reply);
                if found.matches().is_empty() {
                    gone.extend(list.iter().cloned());
                }
                state.interest.recycle(found);
            }
        }
        for (exporter, token) in gone {
            self.end_response(exporter, &token, Some(Outcome::RequesterGone));
        }
    }

    /// When [`Self::responses_timeout`] is due.
    pub(super) fn poll_responses(&self) -> Option<Instant> {
        self.cross.timers.first().map(|(at, ..)| *at)
    }

    /// Forgets answers that took too long.
    pub(super) fn responses_timeout(&mut self) {
        while let Some((at, exporter, token)) = self.cross.timers.first().cloned() {
            if at > self.now.instant {
                return;
            }
            self.cross.timers.pop_first();
            let now = self.now.instant;
            let Some(state) = self.account_mut(exporter) else { continue };
            let Some(response) = state.crossing.responses.get_mut(&token) else { continue };
            if response.expires > now {
                response.timer = response.expires;
                let at = response.timer;
                self.cross.timers.insert((at, exporter, token));
            } else {
                self.end_response(exporter, &token, Some(Outcome::TimedOut));
            }
        }
    }
}

impl AccountState {
    /// Does it import streams?
    pub(super) fn imports_streams(&self) -> bool {
        !self.crossing.streams.is_empty()
    }
}

#[cfg(test)]
mod tests;
