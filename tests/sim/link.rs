//! TCP connections in virtual time.
//!
//! Owns the bytes under way: they are accepted as far as the buffers have room, cut into
//! segments, delayed by distance and bandwidth, held while a link passes nothing, and lost
//! when it is cut. Each side reads what has arrived, in pieces of any size.

use std::collections::VecDeque;

use sedge::time::{Duration, Instant};

use crate::chance::Chance;

/// Who is at the other end of a gateway's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// The hub.
    Hub,
    /// A sensor.
    Sensor(usize),
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Sedge.
    Gateway,
    /// The hub or a sensor.
    Peer,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Gateway => Self::Peer,
            Self::Peer => Self::Gateway,
        }
    }
}

/// What a kind of link is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    /// One way.
    pub(crate) latency: Duration,
    /// Bytes each second.
    pub(crate) rate: u64,
    /// Buffers of both kernels together, each way.
    pub(crate) room: usize,
    /// Longest piece that travels as one.
    pub(crate) segment: usize,
}

impl Route {
    /// Bytes it carries in a second, with what the buffers allow to be under way.
    pub(crate) fn capacity(&self) -> u64 {
        let round_trip_ms = u64::try_from(self.latency.as_millis()).unwrap_or(1) * 2 + 1;
        self.rate.min(self.room as u64 * 1000 / round_trip_ms)
    }
}

/// What a read found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// Bytes, at least one.
    Bytes(Vec<u8>),
    /// Nothing yet.
    Nothing,
    /// The connection is over.
    End,
}

/// For so long the gateway waits until the uplink takes what it sent.
const UNACKED_MAX: Duration = sedge::limits::LEAF_UNACKED_MAX;

/// Number of a connection, never used again.
pub(crate) type ConnNo = u64;

#[derive(Debug, Default)]
struct Pipe {
    flying: VecDeque<(Instant, Vec<u8>)>,
    /// Written and not yet read.
    inside: usize,
    busy_until: Instant,
    /// No more bytes come after those that fly.
    fin_at: Option<Instant>,
}

#[derive(Debug)]
struct Conn {
    no: ConnNo,
    who: Who,
    route: Route,
    pipes: [Pipe; 2],
    /// When each side finds the connection broken.
    reset_at: [Option<Instant>; 2],
    open: [bool; 2],
    /// Nothing passes any more, and the peers hear of it when they send after this time.
    dead: Option<Instant>,
}

impl Conn {
    /// What a side sends goes into the pipe of its own index.
    fn index(side: Side) -> usize {
        match side {
            Side::Gateway => 0,
            Side::Peer => 1,
        }
    }
}

/// All connections, and the state of the uplink.
#[derive(Debug)]
pub(crate) struct Net {
    conns: Vec<Conn>,
    next: ConnNo,
    chance: Chance,
    /// Until then the uplink passes nothing, but breaks nothing.
    stalled_until: Instant,
}

impl Net {
    /// No connections.
    pub(crate) fn new(chance: Chance) -> Self {
        Self { conns: Vec::new(), next: 1, chance, stalled_until: Instant(0) }
    }

    /// A new connection; both sides may write at once.
    pub(crate) fn open(&mut self, who: Who, route: Route) -> ConnNo {
        let no = self.next;
        self.next += 1;
        self.conns.push(Conn {
            no,
            who,
            route,
            pipes: [Pipe::default(), Pipe::default()],
            reset_at: [None, None],
            open: [true, true],
            dead: None,
        });
        no
    }

    fn conn(&mut self, no: ConnNo) -> Option<&mut Conn> {
        self.conns.iter_mut().find(|conn| conn.no == no)
    }

    /// When a side can next read something, or the end.
    pub(crate) fn readable_at(&self, no: ConnNo, side: Side) -> Option<Instant> {
        let Some(conn) = self.conns.iter().find(|conn| conn.no == no) else {
            return Some(Instant(0));
        };
        let pipe = &conn.pipes[Conn::index(side.other())];
        let bytes = pipe.flying.front().map(|(at, _)| *at);
        let end = if bytes.is_none() { pipe.fin_at } else { None };
        [bytes, end, conn.reset_at[Conn::index(side)]].into_iter().flatten().min()
    }

    /// Reads at most `max` bytes.
    pub(crate) fn read(&mut self, now: Instant, no: ConnNo, side: Side, max: usize) -> Read {
        let Some(conn) = self.conn(no) else { return Read::End };
        if conn.reset_at[Conn::index(side)].is_some_and(|at| at <= now) {
            return Read::End;
        }
        let pipe = &mut conn.pipes[Conn::index(side.other())];
        let mut bytes = Vec::new();
        while bytes.len() < max {
            let Some((at, mut segment)) = pipe.flying.pop_front() else { break };
            if at > now {
                pipe.flying.push_front((at, segment));
                break;
            }
            let rest = segment.split_off(segment.len().min(max - bytes.len()));
            bytes.extend(segment);
            if !rest.is_empty() {
                pipe.flying.push_front((at, rest));
            }
        }
        pipe.inside -= bytes.len();
        if !bytes.is_empty() {
            return Read::Bytes(bytes);
        }
        let is_over = pipe.flying.is_empty() && pipe.fin_at.is_some_and(|at| at <= now);
        if is_over { Read::End } else { Read::Nothing }
    }

    /// Would a write be taken?
    pub(crate) fn has_room(&self, no: ConnNo, side: Side) -> bool {
        self.conns.iter().find(|conn| conn.no == no).is_none_or(|conn| {
            let pipe = &conn.pipes[Conn::index(side)];
            pipe.inside < conn.route.room
        })
    }

    /// Writes as much as there is room for. `None`: the connection is broken.
    pub(crate) fn write(
        &mut self,
        now: Instant,
        no: ConnNo,
        side: Side,
        bytes: &[u8],
    ) -> Option<usize> {
        let stalled_until = self.stalled_until;
        let at = self.conns.iter().position(|conn| conn.no == no)?;
        let conn = &mut self.conns[at];
        let chance = &mut self.chance;
        let index = Conn::index(side);
        if conn.reset_at[index].is_some_and(|at| at <= now) {
            return None;
        }
        let count =
            bytes.len().min(conn.route.room - conn.pipes[index].inside.min(conn.route.room));
        let is_bounded = conn.who == Who::Hub && side == Side::Gateway;
        if let Some(back_at) = conn.dead {
            let mut answer = now.max(back_at) + retransmission(chance) + conn.route.latency * 2;
            if is_bounded {
                answer = answer.min(now + UNACKED_MAX);
            }
            conn.reset_at[index].get_or_insert(answer);
            conn.pipes[index].inside += count;
            return Some(count);
        }
        if !conn.open[Conn::index(side.other())] {
            // The other side no longer has this connection and says so.
            let answer = now + conn.route.latency * 2;
            conn.reset_at[index].get_or_insert(answer);
            return Some(count);
        }
        let is_stalled = conn.who == Who::Hub && stalled_until > now;
        if is_stalled && is_bounded && stalled_until > now + UNACKED_MAX {
            conn.reset_at[index].get_or_insert(now + UNACKED_MAX);
        }
        let pipe = &mut conn.pipes[index];
        let mut rest = &bytes[..count];
        while !rest.is_empty() {
            let len = chance.size(1, conn.route.segment).max(rest.len() / 16).min(rest.len());
            let (segment, after) = rest.split_at(len);
            rest = after;
            let start = pipe.busy_until.max(now);
            let sending = (len as u64).saturating_mul(1_000_000_000) / conn.route.rate;
            pipe.busy_until = start + Duration::from_nanos(sending);
            let mut arrival = pipe.busy_until + conn.route.latency;
            if is_stalled {
                arrival = arrival.max(stalled_until + retransmission(chance));
            }
            if let Some((last, _)) = pipe.flying.back() {
                arrival = arrival.max(*last);
            }
            pipe.flying.push_back((arrival, segment.to_vec()));
            pipe.inside += len;
        }
        Some(count)
    }

    /// One side closes; the other finds the end after the bytes that are under way.
    pub(crate) fn close(&mut self, now: Instant, no: ConnNo, side: Side) {
        let stalled_until = self.stalled_until;
        let Some(conn) = self.conn(no) else { return };
        let index = Conn::index(side);
        conn.open[index] = false;
        if conn.reset_at[index].is_some_and(|at| at <= now) {
            // Given up: the other side hears of it when it sends something.
            conn.dead.get_or_insert(now);
        }
        if conn.dead.is_none() {
            let free_at = if conn.who == Who::Hub { stalled_until.max(now) } else { now };
            let pipe = &mut conn.pipes[index];
            let last = pipe.flying.back().map_or(Instant(0), |(at, _)| *at);
            pipe.fin_at = Some(last.max(free_at + conn.route.latency));
        }
        self.conns.retain(|conn| conn.open[0] || conn.open[1]);
    }

    /// Breaks the connections of `who`; both sides hear of it within moments.
    pub(crate) fn reset(&mut self, now: Instant, who: Who) {
        let chance = &mut self.chance;
        for conn in self.conns.iter_mut().filter(|conn| conn.who == who) {
            // What a side writes before it hears of it goes nowhere.
            conn.dead.get_or_insert(now);
            for side in [0, 1] {
                let at = now + chance.even(Duration::ZERO, Duration::from_millis(20));
                conn.reset_at[side].get_or_insert(at);
                conn.pipes[side].flying.clear();
            }
        }
    }

    /// Nothing passes on the connections of `who` from now on, and nobody is told: who has
    /// something to send hears of it once the way is free again, at `back_at`.
    pub(crate) fn drop_silently(&mut self, back_at: Instant, who: Who) {
        let chance = &mut self.chance;
        for conn in self.conns.iter_mut().filter(|conn| conn.who == who) {
            conn.dead = Some(conn.dead.map_or(back_at, |at| at.max(back_at)));
            for side in [0, 1] {
                if !conn.pipes[side].flying.is_empty() {
                    let at = back_at + retransmission(chance);
                    conn.reset_at[side].get_or_insert(at);
                }
                conn.pipes[side].flying.clear();
                conn.pipes[side].fin_at = None;
            }
        }
    }

    /// The uplink passes nothing until `until`; then it goes on as if nothing had been.
    pub(crate) fn stall(&mut self, now: Instant, until: Instant) {
        self.stalled_until = self.stalled_until.max(until);
        let chance = &mut self.chance;
        for conn in self.conns.iter_mut().filter(|conn| conn.who == Who::Hub) {
            for pipe in &mut conn.pipes {
                let resumed = until + retransmission(chance);
                for (at, _) in pipe.flying.iter_mut().filter(|(at, _)| *at > now) {
                    *at = (*at).max(resumed);
                }
                if let Some(at) = &mut pipe.fin_at {
                    *at = (*at).max(resumed);
                }
            }
        }
    }

    /// Does the uplink pass nothing?
    pub(crate) fn is_stalled(&self, now: Instant) -> bool {
        self.stalled_until > now
    }

    /// The gateway is gone and its kernel with it or not: with `told`, peers that can be
    /// reached hear of it.
    pub(crate) fn gateway_gone(
        &mut self,
        now: Instant,
        back_at: Instant,
        told: bool,
        uplink_passes: bool,
    ) {
        for conn in &mut self.conns {
            let hears = told && conn.dead.is_none() && (conn.who != Who::Hub || uplink_passes);
            if hears {
                let pipe = &mut conn.pipes[0];
                let last = pipe.flying.back().map_or(Instant(0), |(at, _)| *at);
                pipe.fin_at = Some(last.max(now + conn.route.latency));
            } else {
                conn.dead = Some(conn.dead.map_or(back_at, |at| at.max(back_at)));
                conn.pipes[0].flying.clear();
                conn.pipes[1].flying.clear();
            }
            conn.open[0] = false;
        }
        self.conns.retain(|conn| conn.open[0] || conn.open[1]);
    }
}

/// How long after the way is free a kernel tries again.
fn retransmission(chance: &mut Chance) -> Duration {
    chance.span(Duration::from_millis(1), Duration::from_millis(800))
}
