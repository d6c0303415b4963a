//! Sensors of one outage: each with its own connection, publishing this machine's readings.
//!
//! A sensor counts a reading as published when it has measured it and as acked when the
//! gateway's stream has acked it. It sends one reading at a time, so what it was acked is
//! always its readings 1 to n without a gap.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use async_nats::ConnectOptions;
use async_nats::jetstream;
use futures_util::future::{Fuse, FusedFuture, FutureExt};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{interval_at, sleep, timeout};

use crate::machine;
use crate::outbox::{Attempt, Outbox, Reading, attempt};

/// Readings one sensor keeps for a gateway that is away. Never reached here: it would lose some.
const BACKLOG_MAX: usize = 1_000_000;

/// Longest pause of a sensor between two attempts to reach the gateway.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_millis(200);

/// Pause before a reading that the gateway refused is sent again.
const REFUSED_PAUSE: Duration = Duration::from_millis(200);

/// Counters that all sensors of a fleet share.
#[derive(Default)]
struct Shared {
    stopping: Cell<bool>,
    published: Cell<u64>,
    /// Per sensor, how many of its readings were acked.
    acked: RefCell<Vec<u64>>,
    duplicates: Cell<u64>,
    refusal: RefCell<Option<String>>,
}

/// Sensors that publish until they are stopped.
pub(crate) struct Fleet {
    shared: Rc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

impl Fleet {
    /// Connects `sensors` sensors, which then publish `rate` readings a second between them.
    /// `round` makes their ids differ from those of other fleets.
    pub(crate) async fn start(
        gateway: &str,
        round: usize,
        sensors: u32,
        rate: u32,
    ) -> Result<Self, async_nats::ConnectError> {
        let shared = Rc::new(Shared::default());
        let period = Duration::from_secs(1) * sensors / rate;
        let mut tasks = Vec::new();
        for number in 0..sensors {
            let client = ConnectOptions::new()
                .name(format!("sensor {number}"))
                .max_reconnects(None)
                .reconnect_delay_callback(|attempts| {
                    (Duration::from_millis(10)
                        * u32::try_from(attempts).unwrap_or(u32::MAX).min(20))
                    .min(RECONNECT_PAUSE_MAX)
                })
                .connect(gateway)
                .await?;
            shared.acked.borrow_mut().push(0);
            let sensor = Sensor {
                jetstream: jetstream::new(client),
                name: format!("{round}.{number}"),
                host: format!("{}-{number}", machine::host()),
                index: tasks.len(),
                shared: Rc::clone(&shared),
            };
            tasks.push(spawn_local(sensor.run(period)));
        }
        Ok(Self { shared, tasks })
    }

    /// Readings measured so far.
    pub(crate) fn published(&self) -> u64 {
        self.shared.published.get()
    }

    /// Readings acked so far.
    pub(crate) fn acked(&self) -> u64 {
        self.shared.acked.borrow().iter().sum()
    }

    /// Readings acked so far, per sensor.
    pub(crate) fn acked_by_sensor(&self) -> Vec<u64> {
        self.shared.acked.borrow().clone()
    }

    /// Resent readings that the gateway already had, so that only their ack had been lost.
    pub(crate) fn duplicates(&self) -> u64 {
        self.shared.duplicates.get()
    }

    /// The last answer of the gateway that was not an ack.
    pub(crate) fn refusal(&self) -> Option<String> {
        self.shared.refusal.borrow().clone()
    }

    /// Measures nothing new and waits, up to `wait_max`, for the acks of what was measured.
    pub(crate) async fn stop(&mut self, wait_max: Duration) {
        self.shared.stopping.set(true);
        let finished = async {
            for task in &mut self.tasks {
                // A sensor that failed leaves readings without acks, which the caller counts.
                let _ = task.await;
            }
        };
        if timeout(wait_max, finished).await.is_err() {
            for task in &self.tasks {
                task.abort();
            }
        }
    }
}

struct Sensor {
    jetstream: jetstream::Context,
    /// `<round>.<number>`: what its ids begin with.
    name: String,
    host: String,
    index: usize,
    shared: Rc<Shared>,
}

impl Sensor {
    async fn run(self, period: Duration) {
        let mut outbox = Outbox::new(BACKLOG_MAX);
        let mut measurements = Vec::new();
        let mut number = 0_u64;
        let start = tokio::time::Instant::from_std(crate::clock::now());
        let mut tick = interval_at(start + period, period);
        let mut in_flight: Pin<Box<Fuse<_>>> = Box::pin(Fuse::terminated());
        loop {
            if in_flight.is_terminated() {
                if let Some(oldest) = outbox.oldest() {
                    in_flight.set(send(self.jetstream.clone(), oldest.clone()).fuse());
                } else if self.shared.stopping.get() {
                    return;
                }
            }
            tokio::select! {
                _ = tick.tick(), if !self.shared.stopping.get() => {
                    if measurements.is_empty() {
                        measurements = machine::measure();
                    }
                    let Some(measurement) = measurements.pop() else { continue };
                    number += 1;
                    self.shared.published.update(|count| count + 1);
                    let reading = Reading {
                        id: format!("{}.{number}", self.name),
                        subject: format!("sensors.{}.{}", self.host, measurement.what),
                        payload: measurement.json,
                    };
                    if outbox.push(reading).is_some() {
                        self.shared.refusal.replace(Some("a sensor's backlog is full".to_owned()));
                    }
                }
                (id, outcome) = &mut in_flight => match outcome {
                    Attempt::Stored { duplicate } => {
                        self.shared.duplicates.update(|count| count + u64::from(duplicate));
                        outbox.acked(&id);
                        if let Some(acked) = self.shared.acked.borrow_mut().get_mut(self.index) {
                            *acked += 1;
                        }
                    }
                    Attempt::Unknown => {}
                    Attempt::Refused(reason) => {
                        self.shared.refusal.replace(Some(reason));
                        sleep(REFUSED_PAUSE).await;
                    }
                },
            }
        }
    }
}

async fn send(jetstream: jetstream::Context, reading: Reading) -> (String, Attempt) {
    (reading.id.clone(), attempt(jetstream, reading).await)
}
