//! The command line.

use std::path::PathBuf;

use lexopt::prelude::{Long, Short, Value, ValueExt as _};

use crate::scenarios::Scenario;
use crate::server::Kind;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
Measures Sedge and nats-server side by side, on this machine, in one run.

Usage: bench [OPTIONS] [FILTER]...

  FILTER         run the scenarios whose name contains one of these
  --quick        one round, short: are the servers in the expected region at all?
  --full         also the scenarios that take minutes
  --no-jetstream without JetStream, and without the scenarios that need it
  --rounds N     rounds of each scenario; the median counts (3, or 1 with --quick)
  --only WHICH   run only nats or only sedge
  --nats PATH    nats-server (default: target/peers, then PATH)
  --sedge PATH   sedge (default: the release build beside this program)
  --dir PATH     where the stores go; must be a real disk (default: target/bench)
  --list         print the names of the scenarios
  --help         print this
";

/// What was asked for.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[derive(Debug, Default)]
pub(crate) struct Args {
    pub(crate) filters: Vec<String>,
    pub(crate) quick: bool,
    pub(crate) full: bool,
    pub(crate) no_jetstream: bool,
    pub(crate) rounds: Option<u32>,
    pub(crate) only: Option<Kind>,
    pub(crate) nats: Option<PathBuf>,
    pub(crate) sedge: Option<PathBuf>,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) list: bool,
    pub(crate) help: bool,
}

impl Args {
    /// Reads the command line of this process.
    pub(crate) fn parse() -> Result<Self, lexopt::Error> {
        let mut parser = lexopt::Parser::from_env();
        let mut args = Self::default();
        while let Some(arg) = parser.next()? {
            match arg {
                Long("quick") => args.quick = true,
                Long("full") => args.full = true,
                Long("no-jetstream") => args.no_jetstream = true,
                Long("rounds") => args.rounds = Some(parser.value()?.parse()?),
                Long("only") => {
                    args.only = Some(parser.value()?.parse_with(|which| match which {
                        "nats" => Ok(Kind::Nats),
                        "sedge" => Ok(Kind::Sedge),
                        _ => Err("expected nats or sedge"),
                    })?);
                }
                Long("nats") => args.nats = Some(parser.value()?.into()),
                Long("sedge") => args.sedge = Some(parser.value()?.into()),
                Long("dir") => args.dir = Some(parser.value()?.into()),
                Long("list") => args.list = true,
                Long("help") | Short('h') => args.help = true,
                Value(filter) => args.filters.push(filter.string()?),
                other => return Err(other.unexpected()),
            }
        }
        Ok(args)
    }

    /// Was this scenario asked for?
    pub(crate) fn wants(&self, scenario: &Scenario) -> bool {
        let name_fits = self.filters.is_empty()
            || self.filters.iter().any(|filter| scenario.name.contains(filter.as_str()));
        name_fits
            && (self.full || !scenario.full_only)
            && !(self.no_jetstream && scenario.needs_jetstream)
    }
}
