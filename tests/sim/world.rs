//! The world of one seed: a hub, an uplink, a gateway with its disk, sensors, and the time.
//!
//! Owns the order of events. Whoever has something to do at the earliest time does it; of
//! several, any. First faults happen and readings are made; then all is mended, and within a
//! bounded time the hub must have everything that was acknowledged.

use std::collections::VecDeque;

use sedge::time::{Duration, Instant};

use crate::chance::Chance;
use crate::disk::Illness;
use crate::gateway::{Around, Gateway, Way};
use crate::hub::Hub;
use crate::ledger::{Ledger, show};
use crate::link::{Net, Who};
use crate::plan::{Fault, Plan, Sabotage};
use crate::sensor::Sensor;
use crate::trace::Trace;

/// Events of one seed; more mean that something spins.
const EVENTS_MAX: u64 = 3_000_000;
/// Between two looks at what is behind.
const CHECK_EVERY: Duration = Duration::from_millis(500);
/// After everything is there, to see that nothing more comes.
const AFTERMATH: Duration = Duration::from_secs(3);

/// What one seed came to.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// The broken promise.
    pub(crate) broken: Option<String>,
    /// Tells two runs apart.
    pub(crate) digest: u64,
    pub(crate) acked: u64,
    pub(crate) at_hub: u64,
    pub(crate) events: u64,
    pub(crate) turns: u64,
    pub(crate) creates: u32,
    /// From the end of the last fault to a complete hub.
    pub(crate) recovery: Duration,
    pub(crate) refused: u64,
    /// Acks did not wait for syncs.
    pub(crate) relaxed: bool,
}

/// Runs one seed.
pub(crate) fn run(seed: u64, sabotage: Sabotage, shown: bool) -> Outcome {
    World::new(seed, sabotage, shown).run()
}

#[derive(Clone, Copy, Debug)]
enum Actor {
    Gateway,
    Hub,
    Sensor(usize),
    Faults,
}

struct World {
    now: Instant,
    chance: Chance,
    plan: Plan,
    net: Net,
    gateway: Gateway,
    hub: Hub,
    sensors: Vec<Sensor>,
    ledger: Ledger,
    trace: Trace,
    faults: VecDeque<(Instant, Fault)>,
    arrivals: Vec<(u64, String)>,
    cut_until: Instant,
    hub_back_at: Option<Instant>,
    disk_well_at: Option<Instant>,
    /// All is mended from here on.
    healed_at: Option<Instant>,
    complete_at: Option<Instant>,
    /// When the last of the faults so far ends.
    calm_at: Instant,
    checked_at: Instant,
    dials: u32,
}

impl World {
    fn new(seed: u64, sabotage: Sabotage, shown: bool) -> Self {
        let mut chance = Chance::new(seed);
        let plan = Plan::draw(&mut chance, sabotage);
        let trace = Trace::new(shown);
        if shown {
            println!("{plan:#?}");
        }
        let sensors = plan
            .sensors
            .iter()
            .enumerate()
            .map(|(index, plan)| Sensor::new(index, *plan, chance.fork()))
            .collect::<Vec<_>>();
        Self {
            now: Instant(0),
            net: Net::new(chance.fork()),
            gateway: Gateway::new(plan.gateway, chance.fork()),
            hub: Hub::new(plan.hub, chance.fork()),
            ledger: Ledger::new(sensors.len(), plan.relaxed),
            sensors,
            trace,
            faults: plan.faults.clone().into(),
            arrivals: Vec::new(),
            cut_until: Instant(0),
            hub_back_at: None,
            disk_well_at: None,
            healed_at: None,
            complete_at: None,
            calm_at: Instant(0),
            checked_at: Instant(0),
            dials: 0,
            chance,
            plan,
        }
    }

    fn run(mut self) -> Outcome {
        let mut events = 0;
        while self.ledger.broken().is_none() && !self.is_over() {
            events += 1;
            if events > EVENTS_MAX {
                self.ledger.fail("it does not come to an end".into());
                break;
            }
            self.step();
        }
        if self.ledger.broken().is_none() {
            let now = self.now;
            self.with_gateway(|gateway, around| gateway.check_store(now, around));
        }
        let healed = self.healed_at.unwrap_or(self.now);
        Outcome {
            broken: self.ledger.broken().map(str::to_owned),
            digest: self.trace.digest(),
            acked: self.ledger.acked,
            at_hub: self.ledger.at_hub,
            events,
            turns: self.gateway.turns,
            creates: self.hub.creates,
            recovery: self.complete_at.unwrap_or(self.now).since(healed),
            relaxed: self.plan.relaxed.is_some(),
            refused: self.sensors.iter().map(|sensor| sensor.refused).sum(),
        }
    }

    fn with_gateway(&mut self, work: impl FnOnce(&mut Gateway, &mut Around<'_>)) {
        let mut around = Around {
            way: self.way(),
            net: &mut self.net,
            ledger: &mut self.ledger,
            trace: &mut self.trace,
            dialled: Vec::new(),
            arrivals: std::mem::take(&mut self.arrivals),
        };
        work(&mut self.gateway, &mut around);
        let Around { dialled, arrivals, .. } = around;
        self.arrivals = arrivals;
        for conn in dialled {
            self.hub.accept(self.now, conn);
        }
    }

    fn way(&self) -> Way {
        if self.cut_until > self.now || self.net.is_stalled(self.now) {
            Way::Silent
        } else if self.hub.is_up() {
            Way::Free
        } else {
            Way::Refused
        }
    }

    fn is_over(&self) -> bool {
        self.complete_at.is_some_and(|at| self.now.since(at) > AFTERMATH)
    }

    // --- Time ---

    fn step(&mut self) {
        let mut first = Instant(u64::MAX);
        let mut due = Vec::new();
        let mut consider = |at: Option<Instant>, actor: Actor| {
            let Some(at) = at else { return };
            if at < first {
                first = at;
                due.clear();
            }
            if at == first {
                due.push(actor);
            }
        };
        let now = self.now;
        // What was due earlier is due now, with everything else that is.
        let clamp = |at: Option<Instant>| at.map(|at| at.max(now));
        let has_arrivals = !self.arrivals.is_empty();
        consider(clamp(self.gateway.next_at(now, &self.net, has_arrivals)), Actor::Gateway);
        consider(clamp(self.hub.next_at(&self.net)), Actor::Hub);
        for (index, sensor) in self.sensors.iter().enumerate() {
            let at = [sensor.next_at(&self.net), sensor.dial_at()].into_iter().flatten().min();
            consider(clamp(at), Actor::Sensor(index));
        }
        consider(clamp(self.next_fault_at()), Actor::Faults);
        self.now = first;
        self.trace.mix(first.0);
        match self.chance.pick(&due) {
            Actor::Gateway => {
                let now = self.now;
                self.with_gateway(|gateway, around| gateway.run(now, around));
            }
            Actor::Hub => {
                self.hub.run(self.now, &mut self.net, &mut self.ledger, &mut self.trace);
            }
            Actor::Sensor(index) => self.run_sensor(index),
            Actor::Faults => self.run_faults(),
        }
        self.check_progress();
    }

    fn run_sensor(&mut self, index: usize) {
        let now = self.now;
        if self.sensors[index].dial_at().is_some_and(|at| at <= now) {
            if self.gateway.listens() {
                let conn = self.net.open(Who::Sensor(index), self.plan.local);
                self.dials += 1;
                self.arrivals.push((conn, format!("10.0.0.{index}:{}", 1024 + self.dials)));
                self.sensors[index].connected(now, conn);
            } else {
                self.sensors[index].refused_dial(now);
            }
            return;
        }
        self.sensors[index].run(now, &mut self.net, &mut self.ledger, &mut self.trace);
        if index == 0 && self.sensors[0].may_publish() {
            for sensor in &mut self.sensors {
                sensor.begin();
            }
        }
    }

    // --- Faults ---

    fn next_fault_at(&self) -> Option<Instant> {
        let end = self.healed_at.is_none().then_some(Instant(0) + self.plan.chaos);
        let next = self.faults.front().map(|(at, _)| *at);
        [next, self.hub_back_at, self.disk_well_at, end].into_iter().flatten().min()
    }

    fn run_faults(&mut self) {
        let now = self.now;
        if self.hub_back_at.is_some_and(|at| at <= now) {
            self.hub_back_at = None;
            self.hub.start(now);
            self.trace.line(now, || "hub: is back".into());
        }
        if self.disk_well_at.is_some_and(|at| at <= now) {
            self.disk_well_at = None;
            self.gateway.disk().set_illness(Illness::default());
            self.trace.line(now, || "disk: is well".into());
        }
        while let Some((_, fault)) = self.faults.pop_front_if(|(at, _)| *at <= now) {
            self.trace.line(now, || format!("--- {fault:?}"));
            self.befall(fault);
        }
        if self.healed_at.is_none() && Instant(0) + self.plan.chaos <= now {
            self.trace.line(now, || "--- all is mended".into());
            self.healed_at = Some(now);
            for sensor in &mut self.sensors {
                sensor.stop();
            }
        }
    }

    fn befall(&mut self, fault: Fault) {
        let now = self.now;
        let lasts = match fault {
            Fault::Cut { lasts, .. }
            | Fault::Stall { lasts }
            | Fault::HubRestart { lasts }
            | Fault::Gateway { lasts, .. }
            | Fault::Disk { lasts, .. } => lasts,
            Fault::SensorCut { .. } | Fault::Clock { .. } => Duration::ZERO,
        };
        self.calm_at = self.calm_at.max(now + lasts);
        match fault {
            Fault::Cut { lasts, silent } => {
                self.cut_until = self.cut_until.max(now + lasts);
                if silent {
                    self.net.drop_silently(self.cut_until, Who::Hub);
                } else {
                    self.net.reset(now, Who::Hub);
                }
            }
            Fault::Stall { lasts } => self.net.stall(now, now + lasts),
            Fault::HubRestart { lasts } => {
                if self.hub.is_up() {
                    self.hub.stop(now, &mut self.net);
                }
                let back_at = now + lasts;
                self.hub_back_at = Some(self.hub_back_at.map_or(back_at, |at| at.max(back_at)));
            }
            Fault::Gateway { death, lasts } => {
                self.arrivals.clear();
                self.with_gateway(|gateway, around| gateway.die(now, now + lasts, death, around));
            }
            Fault::SensorCut { sensor } => self.net.reset(now, Who::Sensor(sensor)),
            Fault::Disk { illness, lasts } => {
                self.gateway.disk().set_illness(illness);
                self.disk_well_at = Some(now + lasts);
            }
            Fault::Clock { by } => self.gateway.wall_offset += by,
        }
    }

    // --- Promises over time ---

    fn check_progress(&mut self) {
        if self.now.since(self.checked_at) < CHECK_EVERY && self.healed_at.is_none() {
            return;
        }
        self.checked_at = self.now;
        if self.complete_at.is_some() {
            return;
        }
        let behind = self.ledger.oldest_behind();
        let max = self.plan.recovery_max;
        if let Some((reading, acked_at)) = behind
            && self.now.since(acked_at.max(self.calm_at)) > max
        {
            let reading = show(reading);
            self.ledger.fail(format!("{reading} is not at the hub after {max:?} of calm"));
        }
        let Some(healed_at) = self.healed_at else { return };
        let all_acked = self.sensors.iter().all(Sensor::is_idle);
        if behind.is_none() && all_acked {
            self.complete_at = Some(self.now);
        } else if !all_acked && self.now.since(healed_at) > max {
            self.ledger.fail(format!("a reading is not acknowledged after {max:?} of calm"));
        }
    }
}
