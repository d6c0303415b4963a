//! What a seed decides before anything happens: how everybody behaves and what befalls them.

use sedge::store::SyncPolicy;
use sedge::time::{Duration, Instant, nanos};

use crate::chance::Chance;
use crate::disk::Illness;
use crate::gateway::{Death, GatewayPlan};
use crate::hub::HubPlan;
use crate::link::Route;
use crate::sensor::SensorPlan;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// See [`Plan::recovery_max`]: a hub whose consumer is gone finds out within 20 s, and
/// waits at most ten for its next attempt.
const RECOVERY_MAX: Duration = Duration::from_secs(30);

/// What befalls somebody.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// The uplink passes nothing for a while, and its connections break, with or without a
    /// word to their ends.
    Cut { lasts: Duration, silent: bool },
    /// The uplink passes nothing for a while and breaks nothing.
    Stall { lasts: Duration },
    /// The hub's process restarts.
    HubRestart { lasts: Duration },
    /// The gateway's process or machine goes down for a while.
    Gateway { death: Death, lasts: Duration },
    /// The connection of a sensor breaks.
    SensorCut { sensor: usize },
    /// The disk is ill for a while.
    Disk { illness: Illness, lasts: Duration },
    /// Somebody sets the wall clock, by so many nanoseconds.
    Clock { by: i64 },
}

/// A breakage of our own, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// None: everything as it is.
    None,
    /// The gateway acknowledges before the commit is durable.
    EarlyAck,
    /// The hub loses its position when it asks for a consumer.
    LostPosition,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// How long faults happen and readings are made.
    pub(crate) chaos: Duration,
    pub(crate) gateway: GatewayPlan,
    pub(crate) hub: HubPlan,
    pub(crate) sensors: Vec<SensorPlan>,
    pub(crate) local: Route,
    /// In order of time.
    pub(crate) faults: Vec<(Instant, Fault)>,
    /// For how long a relaxed store may forget.
    pub(crate) relaxed: Option<Duration>,
    /// From the end of the last fault, or the ack if that is later, to a hub that has it.
    pub(crate) recovery_max: Duration,
}

impl Plan {
    /// From a seed.
    pub(crate) fn draw(chance: &mut Chance, sabotage: Sabotage) -> Self {
        let chaos = chance.span(SECOND * 4, SECOND * 90);
        let relaxed = (sabotage == Sabotage::None && chance.happens(120))
            .then(|| chance.span(MS * 50, SECOND * 2));
        // Small reads in slow turns would not keep up with what is made.
        let (read_max, turn_max) = chance.pick(&[
            (9, MS / 20),
            (100, MS / 10),
            (4096, MS / 10),
            (4096, MS),
            (131_072, MS / 10),
            (131_072, MS * 20),
        ]);
        // Now and then enough bytes for flow control, on links that carry them.
        let large = read_max > 100 && chance.happens(80);
        let gateway = GatewayPlan {
            sync: relaxed.map_or(SyncPolicy::Always, SyncPolicy::Every),
            commit: chance.pick(&[(MS / 5, MS * 2), (MS / 5, MS * 30), (MS * 5, MS * 150)]),
            slow_commits: chance.pick(&[0, 0, 5, 50]),
            slow_commit: (MS * 200, SECOND * 3),
            turn: (MS / 100, turn_max),
            read_max,
            overlooked: chance.pick(&[0, 100, 500]),
            ping_interval: chance.span(SECOND * 5, SECOND * 30),
            acks_early: sabotage == Sabotage::EarlyAck,
            uplink: Route {
                latency: chance.span(MS / 5, MS * 150),
                rate: if large { 10_000_000 } else { chance.pick(&[20_000, 200_000, 10_000_000]) },
                room: if large { 1_000_000 } else { chance.pick(&[2_000, 65_536, 1_000_000]) },
                segment: chance.pick(&[9, 200, 1460]),
            },
        };
        let hub = HubPlan {
            read_max: chance.pick(&[13, 1000, 65_536, 65_536]),
            forgets_position: sabotage == Sabotage::LostPosition,
            dedupes: relaxed.is_some(),
        };
        let count = chance.size(1, 4);
        let bursts: u64 = chance.pick(&[1, 1, 4, 30]);
        // About so many readings in all.
        let total = chance.between(20, 200);
        let pace = chaos * u32::try_from(count).unwrap_or(1) / u32::try_from(total).unwrap_or(1);
        let sensors: Vec<_> = (0..count)
            .map(|_| SensorPlan {
                every: pace * u32::try_from(bursts.div_ceil(2)).unwrap_or(1),
                burst: bursts,
                window: chance.pick(&[1, 1, 3, 100]),
                size: if large { 20_000 } else { chance.pick(&[10, 150, 900]) },
                read_max,
            })
            .collect();
        let local = Route {
            latency: chance.span(MS / 20, MS * 10),
            rate: 1_000_000,
            room: if large { 65_536 } else { chance.pick(&[600, 65_536]) },
            segment: chance.pick(&[5, 100, 1460]),
        };
        let faults = faults(chance, chaos, count);
        let largest = sensors.iter().map(|sensor: &SensorPlan| sensor.size).max().unwrap_or(0);
        let bytes = total * (largest as u64 + 300);
        let carrying = bytes / gateway.uplink.capacity().min(local.capacity()).max(1);
        // A link that died in silence is found by a PING if nothing else is to be sent.
        let recovery_max =
            RECOVERY_MAX + gateway.ping_interval * 6 / 5 + Duration::from_secs(carrying * 2);
        // A crash forgets what was acknowledged since the last sync began.
        let relaxed = relaxed.map(|pace| pace + gateway.slow_commit.1 * 3);
        Self { chaos, gateway, hub, sensors, local, faults, relaxed, recovery_max }
    }
}

fn faults(chance: &mut Chance, chaos: Duration, sensors: usize) -> Vec<(Instant, Fault)> {
    let mut faults = Vec::new();
    // Each kind happens not at all, once or often.
    let times = |chance: &mut Chance| {
        let count = chance.pick(&[0, 0, 1, 1, 2, 4]);
        (0..count).map(|_| Instant(chance.between(0, nanos(chaos)))).collect::<Vec<_>>()
    };
    for at in times(chance) {
        let lasts = chance.span(MS * 10, SECOND * 60);
        faults.push((at, Fault::Cut { lasts, silent: chance.happens(500) }));
    }
    for at in times(chance) {
        faults.push((at, Fault::Stall { lasts: chance.span(MS * 10, SECOND * 30) }));
    }
    for at in times(chance) {
        if chance.happens(400) {
            faults.push((at, Fault::HubRestart { lasts: chance.span(MS * 50, SECOND * 10) }));
        }
    }
    for at in times(chance) {
        let death =
            chance.pick(&[Death::Sigkill, Death::PowerCut, Death::PowerCut, Death::Shutdown]);
        let lasts = chance.span(MS * 50, SECOND * 20);
        faults.push((at, Fault::Gateway { death, lasts }));
    }
    for at in times(chance) {
        faults.push((at, Fault::SensorCut { sensor: chance.size(0, sensors - 1) }));
    }
    for at in times(chance) {
        if chance.happens(500) {
            let illness = Illness {
                sync_fails: chance.pick(&[0, 200, 1000]),
                write_fails: chance.pick(&[0, 0, 100]),
                full: chance.happens(400),
            };
            faults.push((at, Fault::Disk { illness, lasts: chance.span(MS * 50, SECOND * 10) }));
        }
    }
    for at in times(chance) {
        if chance.happens(500) {
            let far = i64::try_from(chance.between(0, 3_600_000_000_000)).unwrap_or(0);
            faults.push((at, Fault::Clock { by: if chance.happens(500) { far } else { -far } }));
        }
    }
    faults.sort_by_key(|(at, _)| *at);
    // Nothing lasts beyond the end.
    let end = Instant(nanos(chaos));
    for (at, fault) in &mut faults {
        let left = end.since(*at).max(MS);
        match fault {
            Fault::Cut { lasts, .. }
            | Fault::Stall { lasts }
            | Fault::HubRestart { lasts }
            | Fault::Gateway { lasts, .. }
            | Fault::Disk { lasts, .. } => *lasts = (*lasts).min(left),
            Fault::SensorCut { .. } | Fault::Clock { .. } => {}
        }
    }
    faults
}
