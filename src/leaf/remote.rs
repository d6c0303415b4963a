//! When and where to dial one remote.
//!
//! Owns the list of URLs, configured and gossiped, and the pace of attempts. Does not dial:
//! [`Remote::poll_dial`] says when and where, the shell reports how it went.
//!
//! A link that is down must carry data again within a second of its return, so attempts go
//! on at about half of `reconnect` for ever; they may overlap, because the first packet of
//! an attempt that left a moment too early is not sent again for a second. Only a hub that
//! is reached and refuses is asked less and less often.
//!
//! # Invariants
//! - At most [`DIALS_MAX`] attempts are under way, and none while a connection is up.
//! - Configured URLs never leave the list.
//!
//! Source: nats-server 2.15.1 for the order of URLs and the extra delays.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::id::Rng;
use crate::leaf::{LeafUrl, Login, RemoteOptions};
use crate::limits;
use crate::time::{Instant, nanos};

/// Attempts under way at once: enough to cover a `dial_timeout` of a second at this pace.
pub const DIALS_MAX: usize = 3;
/// Wait after a hub refused again and again, at most.
const REFUSED_DELAY_MAX: Duration = Duration::from_secs(10);
/// A connection that lived this long ends a row of refusals.
const SETTLED: Duration = Duration::from_secs(10);
/// A connection that lived less than this did not end an outage.
const MOMENT: Duration = Duration::from_secs(1);
/// Extra wait after the hub asked for a newer release.
const VERSION_DELAY: Duration = Duration::from_secs(5);

/// A connection to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dial {
    /// Names the attempt in [`Remote::handle_dialed`] and [`Remote::handle_dial_failed`].
    pub attempt: u32,
    /// Where to.
    pub url: LeafUrl,
    /// The name to ask for and to check in TLS.
    pub tls_name: String,
    /// Give up after this.
    pub timeout: Duration,
}

/// Why a connection ended or never came to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LostReason {
    /// The link: end of stream, reset, a stall, a peer that is not a hub.
    Link,
    /// The hub said so: the text of its `-ERR`.
    Hub(String),
    /// We found a loop and said so.
    Loop,
    /// We cannot connect as we are: the creds file is unreadable, the certificate is not
    /// trusted, the hub does not speak the protocol.
    Unusable,
}

impl LostReason {
    /// The wait on top of the base delay.
    fn extra_delay(&self) -> Duration {
        match self {
            Self::Link | Self::Unusable => Duration::ZERO,
            Self::Loop => limits::LEAF_LOOP_DELAY,
            Self::Hub(text) => {
                if text.contains("Loop detected") || text.contains("has same cluster name") {
                    limits::LEAF_LOOP_DELAY
                } else if text.contains("minimum version required") {
                    VERSION_DELAY
                } else {
                    Duration::ZERO
                }
            }
        }
    }
}

#[derive(Debug)]
struct Connected {
    dialed_at: Instant,
    ready_at: Option<Instant>,
}

/// The state of one remote.
#[derive(Debug)]
pub struct Remote {
    configured: Vec<LeafUrl>,
    /// What to dial next is at the front, unless that is `current`.
    list: VecDeque<LeafUrl>,
    current: Option<LeafUrl>,
    /// The first host name seen, for certificates of addresses that were gossiped.
    tls_name: String,
    reconnect: Duration,
    dial_timeout: Duration,
    ignore_discovered: bool,
    rng: Rng,
    attempts: Vec<(u32, Instant)>,
    next_attempt: u32,
    dial_at: Instant,
    connected: Option<Connected>,
    refusals: u32,
    /// Since when there has been no connection but for moments; `None`: never was one.
    away_since: Option<Instant>,
    closed: bool,
}

impl Remote {
    /// Ready to dial at once. `rng` shuffles the URLs and spreads the attempts of many
    /// gateways.
    pub fn new(options: &RemoteOptions, mut rng: Rng, now: Instant) -> Self {
        let configured = options.urls.clone();
        let mut list = configured.clone();
        if !options.no_randomize {
            for last in (1..list.len()).rev() {
                list.swap(last, rng.index(last + 1));
            }
        }
        let tls_name = configured
            .iter()
            .find(|url| !url.is_address())
            .map(|url| url.host.clone())
            .unwrap_or_default();
        Self {
            configured,
            list: list.into(),
            current: None,
            tls_name,
            reconnect: options.reconnect,
            dial_timeout: options.dial_timeout,
            ignore_discovered: options.ignore_discovered_servers,
            rng,
            attempts: Vec::new(),
            next_attempt: 0,
            dial_at: now,
            connected: None,
            refusals: 0,
            away_since: None,
            closed: false,
        }
    }

    /// The next attempt that is due.
    pub fn poll_dial(&mut self, now: Instant) -> Option<Dial> {
        if self.poll_timeout().is_none_or(|at| now < at) {
            return None;
        }
        let url = self.next_url()?;
        let attempt = self.next_attempt;
        self.next_attempt = self.next_attempt.wrapping_add(1);
        self.attempts.push((attempt, now));
        self.dial_at = now + self.pace();
        let tls_name = if url.is_address() && !self.tls_name.is_empty() {
            self.tls_name.clone()
        } else {
            url.host.clone()
        };
        Some(Dial { attempt, url, tls_name, timeout: self.dial_timeout })
    }

    /// When to ask [`Remote::poll_dial`] again.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let may_dial = !self.closed && self.connected.is_none() && self.attempts.len() < DIALS_MAX;
        may_dial.then_some(self.dial_at)
    }

    /// An attempt failed. The next one keeps its time.
    pub fn handle_dial_failed(&mut self, attempt: u32) {
        self.attempts.retain(|&(id, _)| id != attempt);
    }

    /// An attempt reached a listener. `false`: another one was faster, close this one.
    pub fn handle_dialed(&mut self, attempt: u32) -> bool {
        let Some(&(_, dialed_at)) = self.attempts.iter().find(|&&(id, _)| id == attempt) else {
            return false;
        };
        self.attempts.clear();
        self.connected = Some(Connected { dialed_at, ready_at: None });
        true
    }

    /// The handshake succeeded. Returns how long the hub was away; `None`: it was never
    /// there.
    pub fn handle_ready(&mut self, now: Instant) -> Option<Duration> {
        if let Some(connected) = &mut self.connected {
            connected.ready_at = Some(now);
        }
        self.away_since.map(|since| now.since(since))
    }

    /// The connection that [`Remote::handle_dialed`] accepted is gone. Returns how long the
    /// next attempt waits.
    pub fn handle_lost(&mut self, now: Instant, reason: &LostReason) -> Duration {
        let Some(connected) = self.connected.take() else { return Duration::ZERO };
        if connected.ready_at.is_some_and(|at| now.since(at) >= SETTLED) {
            self.refusals = 0;
        }
        if connected.ready_at.is_some_and(|at| now.since(at) >= MOMENT) {
            self.away_since = Some(now);
        }
        self.dial_at = match reason {
            LostReason::Link => {
                // At once, a little spread, but never faster than the pace of attempts.
                let soon = now + self.spread(self.reconnect / 10);
                soon.max(connected.dialed_at + self.pace())
            }
            LostReason::Hub(_) | LostReason::Loop | LostReason::Unusable => {
                let base = self.reconnect.saturating_mul(1 << self.refusals.min(4));
                let base = base.min(REFUSED_DELAY_MAX.max(self.reconnect));
                self.refusals = self.refusals.saturating_add(1);
                now + base + self.spread(base / 5) + reason.extra_delay()
            }
        };
        self.dial_at.since(now)
    }

    /// An INFO listed where else the hub can be reached.
    pub fn handle_gossip(&mut self, urls: &[String]) {
        if self.ignore_discovered || urls.is_empty() {
            return;
        }
        let mut list: VecDeque<LeafUrl> = VecDeque::new();
        for url in urls.iter().filter_map(|text| LeafUrl::parse(text).ok()) {
            let known = |other: &LeafUrl| other.same_place(&url);
            if list.len() < limits::LEAF_GOSSIP_URLS_MAX
                && !self.configured.iter().any(known)
                && !list.iter().any(known)
            {
                list.push_back(LeafUrl { login: None, ..url });
            }
        }
        // The configured ones keep the order they have been shuffled into.
        let configured = &self.configured;
        let is_configured = |url: &LeafUrl| configured.iter().any(|other| other.same_place(url));
        list.extend(self.list.drain(..).filter(is_configured));
        if self.tls_name.is_empty()
            && let Some(url) = list.iter().find(|url| !url.is_address())
        {
            self.tls_name.clone_from(&url.host);
        }
        self.list = list;
    }

    /// Whom to log in as at `url`: a URL without a login of its own, such as a gossiped one,
    /// takes that of the first configured one that has it.
    pub fn login(&self, url: &LeafUrl) -> Option<&Login> {
        let with_login = || self.configured.iter().filter(|other| other.login.is_some());
        with_login()
            .find(|other| other.same_place(url))
            .or_else(|| with_login().next())
            .and_then(|url| url.login.as_ref())
    }

    /// Is a connection up, ready or not?
    pub fn is_connected(&self) -> bool {
        self.connected.is_some()
    }

    /// No more attempts: the server shuts down.
    pub fn close(&mut self) {
        self.closed = true;
        self.attempts.clear();
    }

    fn next_url(&mut self) -> Option<LeafUrl> {
        let at_head = match (self.list.front(), &self.current) {
            (Some(head), Some(current)) => head.same_place(current),
            _ => false,
        };
        if at_head {
            self.list.rotate_left(1);
        }
        self.current = self.list.front().cloned();
        self.current.clone()
    }

    /// Between the starts of two attempts: 0.4 to 0.6 of `reconnect`.
    fn pace(&mut self) -> Duration {
        self.reconnect * 2 / 5 + self.spread(self.reconnect / 5)
    }

    fn spread(&mut self, range: Duration) -> Duration {
        Duration::from_nanos(self.rng.below(nanos(range)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(milliseconds: u64) -> Instant {
        Instant(milliseconds * 1_000_000)
    }

    fn remote(urls: &[&str]) -> Remote {
        let options = RemoteOptions {
            urls: urls.iter().map(|url| LeafUrl::parse(url).unwrap()).collect(),
            no_randomize: true,
            ..RemoteOptions::default()
        };
        Remote::new(&options, Rng::new(1), at(0))
    }

    #[test]
    fn refused_dials_go_on_for_ever_at_half_a_second() {
        let mut remote = remote(&["h"]);
        let mut now = at(0);
        for _ in 0..1000 {
            let dial = remote.poll_dial(now).unwrap();
            remote.handle_dial_failed(dial.attempt);
            let next = remote.poll_timeout().unwrap();
            let wait = next.since(now);
            assert!(wait >= SECOND * 2 / 5 && wait <= SECOND * 3 / 5, "{wait:?}");
            now = next;
        }
    }

    #[test]
    fn attempts_overlap_while_packets_vanish_and_only_one_wins() {
        let mut remote = remote(&["h"]);
        let first = remote.poll_dial(at(0)).unwrap();
        let second = remote.poll_dial(at(600)).unwrap();
        assert!(remote.poll_dial(at(700)).is_none());
        assert!(remote.handle_dialed(second.attempt));
        assert!(!remote.handle_dialed(first.attempt));
        assert_eq!(remote.poll_timeout(), None);
    }

    #[test]
    fn attempts_under_way_are_bounded() {
        let mut remote = remote(&["h"]);
        for round in 0..10 {
            let dialled = remote.poll_dial(at(round * 1000)).is_some();
            assert_eq!(dialled, round < DIALS_MAX as u64);
        }
        assert_eq!(remote.poll_timeout(), None);
        remote.handle_dial_failed(0);
        assert!(remote.poll_dial(at(20_000)).is_some());
    }

    #[test]
    fn a_lost_link_is_dialled_again_at_once() {
        let mut remote = remote(&["h"]);
        let dial = remote.poll_dial(at(0)).unwrap();
        remote.handle_dialed(dial.attempt);
        remote.handle_ready(at(10));
        let wait = remote.handle_lost(at(60_000), &LostReason::Link);
        assert!(wait <= SECOND / 10, "{wait:?}");
    }

    #[test]
    fn a_connection_of_a_moment_does_not_end_an_outage() {
        let mut remote = remote(&["h"]);
        let mut connect = |ready, lost| {
            let dial = remote.poll_dial(at(ready)).unwrap();
            remote.handle_dialed(dial.attempt);
            let outage = remote.handle_ready(at(ready));
            remote.handle_lost(at(lost), &LostReason::Link);
            outage
        };
        assert_eq!(connect(0, 50_000), None);
        assert_eq!(connect(62_000, 62_500), Some(SECOND * 12));
        assert_eq!(connect(63_500, 70_000), Some(SECOND * 27 / 2));
        assert_eq!(connect(71_000, 80_000), Some(SECOND));
    }

    #[test]
    fn a_listener_that_closes_at_once_is_not_hammered() {
        let mut remote = remote(&["h"]);
        let dial = remote.poll_dial(at(0)).unwrap();
        remote.handle_dialed(dial.attempt);
        let wait = remote.handle_lost(at(1), &LostReason::Link);
        assert!(wait >= SECOND * 39 / 100 && wait <= SECOND * 3 / 5, "{wait:?}");
    }

    #[test]
    fn a_hub_that_refuses_is_asked_less_and_less_up_to_ten_seconds() {
        let mut remote = remote(&["h"]);
        let mut now = at(0);
        let refused = LostReason::Hub("Authorization Violation".into());
        let mut waits = vec![];
        for _ in 0..7 {
            let dial = remote.poll_dial(now).unwrap();
            remote.handle_dialed(dial.attempt);
            let wait = remote.handle_lost(now, &refused);
            waits.push(wait.as_secs());
            now = now + wait;
        }
        let bounds = [1..=1, 2..=2, 4..=4, 8..=9, 10..=12, 10..=12, 10..=12];
        for (wait, bound) in waits.iter().zip(bounds) {
            assert!(bound.contains(wait), "{waits:?}");
        }

        let dial = remote.poll_dial(now).unwrap();
        remote.handle_dialed(dial.attempt);
        remote.handle_ready(now);
        let wait = remote.handle_lost(now + SECOND * 60, &refused);
        assert!(wait < SECOND * 2, "{wait:?}");
    }

    #[test]
    fn loops_and_names_of_our_own_cost_thirty_seconds_more() {
        let version = "connection rejected since minimum version required is \"3\"";
        for (reason, seconds) in [
            (LostReason::Loop, 31),
            (LostReason::Hub("remote leafnode has same cluster name".into()), 31),
            (LostReason::Hub("Loop detected for leafnode account=\"A\". …".into()), 31),
            (LostReason::Hub(version.into()), 6),
            (LostReason::Hub("Duplicate Remote LeafNode Connection".into()), 1),
        ] {
            let mut remote = remote(&["h"]);
            let dial = remote.poll_dial(at(0)).unwrap();
            remote.handle_dialed(dial.attempt);
            assert_eq!(remote.handle_lost(at(0), &reason).as_secs(), seconds, "{reason:?}");
        }
    }

    #[test]
    fn urls_are_taken_in_turn() {
        let mut remote = remote(&["a", "b", "c"]);
        let mut seen = vec![];
        for round in 0..4 {
            let dial = remote.poll_dial(at(round * 1000)).unwrap();
            seen.push(dial.url.host.clone());
            remote.handle_dial_failed(dial.attempt);
        }
        assert_eq!(seen, ["a", "b", "c", "a"]);
    }

    #[test]
    fn gossiped_urls_come_first_and_replace_earlier_ones() {
        let mut remote = remote(&["u:p@a"]);
        let dial = remote.poll_dial(at(0)).unwrap();
        remote.handle_dialed(dial.attempt);
        remote.handle_gossip(&["10.0.0.1:7422".into(), "a:7422".into(), "http://x".into()]);
        remote.handle_gossip(&["10.0.0.2:7422".into(), "10.0.0.2:7422".into()]);
        remote.handle_lost(at(60_000), &LostReason::Link);
        let dial = remote.poll_dial(at(61_000)).unwrap();
        assert_eq!(dial.url.to_string(), "10.0.0.2:7422");
        assert_eq!(dial.tls_name, "a");
        assert_eq!(remote.login(&dial.url).unwrap().user.expose(), "u");
        remote.handle_dial_failed(dial.attempt);
        assert_eq!(remote.poll_dial(at(62_000)).unwrap().url.to_string(), "a:7422");
    }

    #[test]
    fn gossip_is_bounded_and_can_be_ignored() {
        let many: Vec<String> = (0..1000).map(|index| alloc::format!("h{index}:1")).collect();
        let mut taking = remote(&["a"]);
        taking.handle_gossip(&many);
        assert_eq!(taking.list.len(), limits::LEAF_GOSSIP_URLS_MAX + 1);
        let options = RemoteOptions {
            urls: vec![LeafUrl::parse("a").unwrap()],
            ignore_discovered_servers: true,
            ..RemoteOptions::default()
        };
        let mut ignoring = Remote::new(&options, Rng::new(1), at(0));
        ignoring.handle_gossip(&many);
        assert_eq!(ignoring.list.len(), 1);
    }

    #[test]
    fn the_seed_decides_the_order_of_urls() {
        let url = |index| LeafUrl::parse(&alloc::format!("h{index}")).unwrap();
        let options = RemoteOptions { urls: (0..8).map(url).collect(), ..RemoteOptions::default() };
        let order = |seed| Remote::new(&options, Rng::new(seed), at(0)).list;
        assert_eq!(order(1), order(1));
        assert!((2..10).any(|seed| order(seed) != order(1)));
    }
}
