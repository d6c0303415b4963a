//! Lame duck mode: clients are asked to go, and then closed one after the other.
//!
//! Owns when each client is closed: none during the grace period, then all of them spread
//! over the rest of the duration, each after a pause of between half a gap and a whole one,
//! so that they do not all come to another server at once. Does not own the listener, which
//! the shell has closed, nor the shutdown at the end, which [`Output::LameDuckOver`] asks for.
//!
//! Where Sedge differs on purpose: JetStream and the links to hubs stay up to the end. There
//! is no other server to hand a stream to, and what is published meanwhile is stored.
//!
//! Source: nats-server 2.15 after SIGUSR2.

use alloc::vec::Vec;
use core::time::Duration;

use super::conn::{CloseReason, Conn, Kind};
use super::connect::{InfoFor, write_info};
use super::{Broker, Notice, Output};
use crate::time::{Instant, Now};

/// The longest pause between two closes.
const GAP_MAX: Duration = Duration::from_secs(1);

/// Clients closed without a pause in between, where there are more than the time allows.
const BATCH: usize = 64;

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum LameDuck {
    #[default]
    Off,
    /// Clients may go by themselves until then.
    Grace { until: Instant, rest: Duration },
    /// One is closed at each step.
    Closing { next: Instant, gap: Duration },
    /// The shell was told.
    Over,
}

impl Broker {
    /// Clients are told to go; those who stay are closed between `grace` and `duration` from
    /// now. The second call changes nothing.
    pub fn begin_lame_duck(&mut self, now: Now, grace: Duration, duration: Duration) {
        if self.lame_duck != LameDuck::Off {
            return;
        }
        self.core.now = now;
        self.note_lame_duck();
        if self.core.clients == 0 {
            return self.end_lame_duck();
        }
        let rest = duration.saturating_sub(grace);
        self.lame_duck = LameDuck::Grace { until: now.instant + grace, rest };
        let told: Vec<u32> = self.core.conns.iter().map(|(_, conn)| conn.id.index).collect();
        for index in told {
            self.tell_lame_duck(index);
        }
    }

    /// Asks a client to go, if it understands that.
    fn tell_lame_duck(&mut self, index: u32) {
        let auth_required = self.sign_in.directory.is_announced();
        let Some(conn) = self.core.conn(index) else { return };
        let Some(client) = conn.client() else { return };
        if !client.flags.told_connect_info || client.connect.protocol < 1 {
            return;
        }
        let (ip, door) = (client.ip(), client.door);
        let to = InfoFor {
            client_id: conn.cid,
            client_ip: &ip,
            account: None,
            max_payload: conn.bounds.payload,
            auth_required,
            nonce: "",
            ldm: true,
            door,
        };
        let mut info = Vec::new();
        write_info(&mut info, &self.core.options, to);
        self.core.send(index, &info);
    }

    /// Asks one client to go, because an operator wants it; false if there is none of this
    /// id.
    pub fn ask_to_go(&mut self, now: Now, cid: u64) -> bool {
        self.core.now = now;
        let found = self.core.conns.iter().find(|(_, conn)| {
            conn.cid == cid && !conn.closing && matches!(conn.kind, Kind::Client(_))
        });
        let Some(index) = found.map(|(_, conn)| conn.id.index) else { return false };
        self.tell_lame_duck(index);
        true
    }

    /// Did it begin?
    pub fn is_lame_duck(&self) -> bool {
        self.lame_duck != LameDuck::Off
    }

    pub(super) fn poll_lame_duck(&self) -> Option<Instant> {
        match self.lame_duck {
            LameDuck::Grace { until: at, .. } | LameDuck::Closing { next: at, .. } => Some(at),
            LameDuck::Off | LameDuck::Over => None,
        }
    }

    pub(super) fn lame_duck_timeout(&mut self, now: Now) {
        match self.lame_duck {
            LameDuck::Grace { until, rest } if until <= now.instant => {
                self.core
                    .outputs
                    .push_back(Output::Notice(Notice::info("Closing existing clients")));
                let clients = u32::try_from(self.core.clients.max(1)).unwrap_or(u32::MAX);
                let gap = (rest / clients).min(GAP_MAX);
                self.lame_duck = LameDuck::Closing { next: now.instant, gap };
                self.close_next(now, gap);
            }
            LameDuck::Closing { next, gap } if next <= now.instant => self.close_next(now, gap),
            _ => {}
        }
    }

    fn close_next(&mut self, now: Now, gap: Duration) {
        let count = if gap < Duration::from_millis(1) { BATCH } else { 1 };
        for _ in 0..count {
            let Some(index) = self.next_client() else { return self.end_lame_duck() };
            self.core.close(index, CloseReason::ServerShutdown, true);
        }
        if self.next_client().is_none() {
            return self.end_lame_duck();
        }
        let half = gap / 2;
        let pause =
            half + Duration::from_nanos(self.core.rng.below(crate::time::nanos(half).max(1)));
        // Not in the same instant, however many there are.
        self.lame_duck =
            LameDuck::Closing { next: now.instant + pause.max(Duration::from_millis(1)), gap };
    }

    fn next_client(&self) -> Option<u32> {
        let open = |conn: &Conn| !conn.closing && matches!(conn.kind, Kind::Client(_));
        self.core.conns.iter().find(|(_, conn)| open(conn)).map(|(_, conn)| conn.id.index)
    }

    fn end_lame_duck(&mut self) {
        self.lame_duck = LameDuck::Over;
        self.core.outputs.push_back(Output::LameDuckOver);
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::super::options::Options;
    use super::*;
    use crate::id::ConnId;
    use crate::time::Timestamp;

    struct World {
        broker: Broker,
        now: Now,
        clients: Vec<ConnId>,
    }

    impl World {
        fn new(clients: usize) -> Self {
            let mut broker = Broker::new(Options::default(), None, 7);
            let now = Now { instant: Instant(1), wall: Timestamp(1) };
            let clients = (0..clients).map(|_| broker.accept(now, "127.0.0.1:9")).collect();
            let mut world = Self { broker, now, clients };
            for id in world.clients.clone() {
                world.broker.receive(
                    now,
                    id,
                    b"CONNECT {\"protocol\":1,\"verbose\":false}\r\nPING\r\n",
                );
            }
            world.written();
            world
        }

        fn written(&mut self) -> Vec<String> {
            let mut all = Vec::new();
            for &id in &self.clients {
                let bytes = self.broker.pending(id).to_vec();
                self.broker.transmitted(self.now, id, bytes.len());
                all.push(String::from_utf8(bytes).unwrap());
            }
            all
        }

        /// Lets time pass up to the next thing to do; says what came of it.
        fn step(&mut self) -> (Vec<ConnId>, bool) {
            let at = self.broker.poll_lame_duck().expect("something is to come");
            self.now.instant = at;
            self.broker.handle_timeout(self.now);
            self.drain()
        }

        fn drain(&mut self) -> (Vec<ConnId>, bool) {
            let (mut closed, mut over) = (Vec::new(), false);
            while let Some(output) = self.broker.poll_output() {
                match output {
                    Output::Close { conn, .. } => {
                        closed.push(conn);
                        self.broker.closed(self.now, conn);
                    }
                    Output::LameDuckOver => over = true,
                    _ => {}
                }
            }
            (closed, over)
        }
    }

    const GRACE: Duration = Duration::from_secs(10);
    const DURATION: Duration = Duration::from_secs(30);

    #[test]
    fn clients_hear_of_it_and_stay_for_the_grace_period() {
        let mut world = World::new(3);
        world.broker.begin_lame_duck(world.now, GRACE, DURATION);
        for info in world.written() {
            assert!(info.starts_with("INFO ") && info.contains(",\"ldm\":true,"), "{info}");
        }
        world.broker.begin_lame_duck(world.now, GRACE, DURATION);
        assert!(world.written().iter().all(String::is_empty), "they are told once");
        assert_eq!(world.broker.poll_lame_duck(), Some(world.now.instant + GRACE));
    }

    #[test]
    fn clients_are_closed_one_after_the_other_and_then_the_server_ends() {
        let mut world = World::new(3);
        let begin = world.now.instant;
        world.broker.begin_lame_duck(world.now, GRACE, DURATION);
        for left in [2, 1, 0] {
            let before = world.now.instant;
            let (closed, over) = world.step();
            assert_eq!((closed.len(), over), (1, left == 0));
            let pause = world.now.instant.since(before);
            let first = left == 2;
            assert!(first || (Duration::from_millis(500)..=GAP_MAX).contains(&pause), "{pause:?}");
        }
        assert!(world.now.instant.since(begin) <= DURATION);
    }

    #[test]
    fn many_clients_are_gone_in_time() {
        let mut world = World::new(2000);
        let begin = world.now.instant;
        world.broker.begin_lame_duck(world.now, GRACE, DURATION);
        while !world.step().1 {}
        assert!(world.now.instant.since(begin) <= DURATION);
    }

    #[test]
    fn without_clients_it_is_over_at_once() {
        let mut world = World::new(0);
        world.broker.begin_lame_duck(world.now, GRACE, DURATION);
        assert!(world.drain().1);
    }

    #[test]
    fn clients_that_went_by_themselves_are_not_waited_for_after_the_grace_period() {
        let mut world = World::new(2);
        world.broker.begin_lame_duck(world.now, GRACE, DURATION);
        for id in world.clients.clone() {
            world.broker.closed(world.now, id);
        }
        assert_eq!(world.step(), (Vec::new(), true));
    }
}
