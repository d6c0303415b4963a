//! The scenarios: what is run on which arms, and which figures are compared.
//!
//! A scenario has *arms* (a server with a setup) that run one after the other in every round,
//! and *rows*, each a figure of two arms side by side with the budget it has to meet. Adding a
//! scenario is adding one to [`all`].

mod accounts;
mod core;
mod footprint;
mod jetstream;
mod leaf;
mod request;
mod scale;
mod tls;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::report::Unit;
use crate::server::{Binary, Children, Kind, Server, Setup, Usage, Workdir};

/// Messages, requests or the like each second.
pub(crate) const RATE: &str = "rate";
/// Latency that half of the samples stay below, in µs.
pub(crate) const P50: &str = "p50_us";
/// Latency that 99 of 100 samples stay below, in µs.
pub(crate) const P99: &str = "p99_us";
/// CPU time of the server for each message, in µs.
pub(crate) const CPU: &str = "server_cpu_us";
/// CPU time of this program for each message, in µs: must stay well below the server's.
pub(crate) const CLIENT_CPU: &str = "client_cpu_us";
/// Resident memory of the server after the run, in MiB.
pub(crate) const RSS: &str = "rss_mib";
/// Bytes of the store for each message, as blocks on disk.
pub(crate) const DISK: &str = "disk_bytes";
/// Bytes of the store for each message, by the files' lengths.
pub(crate) const DISK_APPARENT: &str = "disk_apparent_bytes";
/// Bytes sent to the disk for each message.
pub(crate) const WRITTEN: &str = "disk_written_bytes";
/// Bytes passed to `write` for each message. A server that answers on its sockets by `write`
/// rather than `send` has these answers in it.
pub(crate) const WCHAR: &str = "wchar_bytes";
/// Messages of the measured part.
pub(crate) const MESSAGES: &str = "messages";

/// The figures of one run, by name.
pub(crate) type Sample = BTreeMap<&'static str, f64>;

/// A server with a setup.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arm {
    /// Name within the scenario.
    pub(crate) name: &'static str,
    /// Which server.
    pub(crate) kind: Kind,
    /// How it is configured.
    pub(crate) setup: Setup,
}

/// What Sedge has to reach.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Budget {
    /// Nothing; the figure is for information.
    None,
    /// Ours divided by theirs is at least this.
    RatioMin(f64),
    /// Ours divided by theirs is at most this.
    RatioMax(f64),
    /// Ours is at most this, in the unit of the row.
    Max(f64),
}

/// One figure of two arms side by side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// What the figure is, appended to the scenario's name.
    pub(crate) label: &'static str,
    /// Which figure.
    pub(crate) figure: &'static str,
    /// Its unit.
    pub(crate) unit: Unit,
    /// The arm of nats-server.
    pub(crate) theirs: &'static str,
    /// The arm of Sedge.
    pub(crate) ours: &'static str,
    /// What ours has to reach.
    pub(crate) budget: Budget,
    /// Show CPU and memory of the two arms on this row as well?
    pub(crate) costs: bool,
}

impl Row {
    /// A row that compares the arms `nats` and `sedge` and shows their costs.
    pub(crate) const fn new(figure: &'static str, unit: Unit, budget: Budget) -> Self {
        Self { label: "", figure, unit, theirs: "nats", ours: "sedge", budget, costs: true }
    }

    /// The same with a label.
    pub(crate) const fn label(self, label: &'static str) -> Self {
        Self { label, ..self }
    }

    /// The same between other arms.
    pub(crate) const fn between(self, theirs: &'static str, ours: &'static str) -> Self {
        Self { theirs, ours, ..self }
    }

    /// The same without the costs, which another row of the scenario shows.
    pub(crate) const fn bare(self) -> Self {
        Self { costs: false, ..self }
    }
}

/// Runs one arm of a scenario once.
pub(crate) type Run = Box<dyn Fn(&Bench, Arm) -> Result<Sample>>;

/// Something to measure.
pub(crate) struct Scenario {
    /// What is measured; `[filter]` on the command line looks in here.
    pub(crate) name: String,
    /// Who runs it, in this order.
    pub(crate) arms: Vec<Arm>,
    /// What is compared.
    pub(crate) rows: Vec<Row>,
    /// Budget for the ratio of server CPU a message.
    pub(crate) cpu_ratio_max: Option<f64>,
    /// Memory that Sedge may hold afterwards, in MiB.
    pub(crate) rss_mib_max: f64,
    /// A run that takes longer is ended.
    pub(crate) timeout: Duration,
    /// Left out without `--full`?
    pub(crate) full_only: bool,
    /// Left out with `--no-jetstream`?
    pub(crate) needs_jetstream: bool,
    /// The measurement.
    pub(crate) run: Run,
}

impl Scenario {
    fn new(
        name: impl Into<String>,
        run: impl Fn(&Bench, Arm) -> Result<Sample> + 'static,
        rows: &[Row],
    ) -> Self {
        let arm = |name, kind| Arm { name, kind, setup: Setup::default() };
        Self {
            name: name.into(),
            arms: vec![arm("nats", Kind::Nats), arm("sedge", Kind::Sedge)],
            rows: rows.to_vec(),
            cpu_ratio_max: None,
            rss_mib_max: RSS_MIB_MAX,
            timeout: Duration::from_mins(1),
            full_only: false,
            needs_jetstream: false,
            run: Box::new(run),
        }
    }
}

/// Memory a Sedge may hold after most scenarios, in MiB.
pub(crate) const RSS_MIB_MAX: f64 = 12.0;

/// Every scenario, in the order of the report; smaller ones if `quick`.
pub(crate) fn all(quick: bool) -> Vec<Scenario> {
    let mut all = core::scenarios();
    all.extend(request::scenarios());
    all.extend(jetstream::scenarios());
    all.extend(accounts::scenarios());
    all.extend(tls::scenarios());
    all.extend(scale::scenarios(quick));
    all.extend(footprint::scenarios(quick));
    all.extend(leaf::scenarios(quick));
    all
}

/// What every run needs to know.
#[derive(Debug)]
pub(crate) struct Bench {
    /// The official server, if there is one.
    pub(crate) nats: Option<Binary>,
    /// Sedge, if there is one.
    pub(crate) sedge: Option<Binary>,
    /// Smaller and shorter?
    pub(crate) quick: bool,
    /// Run the servers without `JetStream`?
    pub(crate) jetstream_off: bool,
    /// Length of the part before the measurement.
    pub(crate) warm_up: Duration,
    /// Length of the measured part.
    pub(crate) measure: Duration,
    /// Where the stores go.
    pub(crate) base: PathBuf,
    /// The servers running now.
    pub(crate) children: Children,
}

impl Bench {
    /// The executable of `kind`.
    pub(crate) fn binary(&self, kind: Kind) -> Result<&Binary> {
        let (binary, name) = match kind {
            Kind::Nats => (&self.nats, "nats-server"),
            Kind::Sedge => (&self.sedge, "sedge"),
        };
        binary.as_ref().ok_or_else(|| Error::new(format!("needs {name}, which was not found")))
    }

    /// Starts the server of `arm` in `workdir`.
    pub(crate) fn start(&self, arm: Arm, workdir: &Workdir) -> Result<Server> {
        let setup = Setup { jetstream_off: self.jetstream_off, ..arm.setup };
        Server::start(self.binary(arm.kind)?, setup, workdir, &self.children)
    }

    /// A fresh directory for a server.
    pub(crate) fn workdir(&self) -> Result<Workdir> {
        Workdir::create(&self.base)
    }

    /// Runs `measure` against a fresh server of `arm`; an error says what the server logged.
    pub(crate) fn with_server(
        &self,
        arm: Arm,
        measure: impl FnOnce(&Server, &Workdir) -> Result<Sample>,
    ) -> Result<Sample> {
        let workdir = self.workdir()?;
        let server = self.start(arm, &workdir)?;
        let mut sample = measure(&server, &workdir).map_err(|error| server.blame(&error))?;
        sample.entry(RSS).or_insert(mib(server.usage()?.rss_bytes));
        Ok(sample)
    }
}

/// Notes what the server and this program use during the measured part.
#[derive(Debug)]
pub(crate) struct Meter<'a> {
    server: &'a Server,
    server_before: Usage,
    client_before: Usage,
}

impl<'a> Meter<'a> {
    /// Begins the measured part.
    pub(crate) fn start(server: &'a Server) -> Result<Self> {
        let client_before = Usage::of("self")?;
        Ok(Self { server, server_before: server.usage()?, client_before })
    }

    /// Ends it: `messages` in `elapsed`. Gives the rate and the costs of a message.
    pub(crate) fn finish(self, messages: u64, elapsed: Duration) -> Result<Sample> {
        let (server, client) = (self.server.usage()?, Usage::of("self")?);
        let each = |value: f64| value / messages.max(1) as f64;
        let cpu_us = |after: Usage, before: Usage| {
            each(after.cpu.saturating_sub(before.cpu).as_secs_f64() * 1e6)
        };
        let bytes = |after: u64, before: u64| each(after.saturating_sub(before) as f64);
        let before = self.server_before;
        Ok(Sample::from([
            (MESSAGES, messages as f64),
            (RATE, messages as f64 / elapsed.as_secs_f64()),
            (CPU, cpu_us(server, before)),
            (CLIENT_CPU, cpu_us(client, self.client_before)),
            (WRITTEN, bytes(server.disk_written_bytes, before.disk_written_bytes)),
            (WCHAR, bytes(server.wchar_bytes, before.wchar_bytes)),
        ]))
    }
}

/// Adds p50 and p99 of `latencies` (ns) to a sample.
fn add_latencies(sample: &mut Sample, mut latencies: Vec<u64>) {
    latencies.sort_unstable();
    let at = |percent: usize| {
        let index = latencies.len().saturating_sub(1) * percent / 100;
        latencies.get(index).map_or(f64::NAN, |ns| *ns as f64 / 1e3)
    };
    sample.insert(P50, at(50));
    sample.insert(P99, at(99));
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
