//! The command line of the example.

use std::path::PathBuf;
use std::time::Duration;

use crate::relay::Link;

pub(crate) const HELP: &str = "\
Shows that a gateway keeps its readings through an outage and hands them to the hub.

Starts a real nats-server as the hub, a gateway that is its leaf node, and sensors that publish
this machine's readings to the gateway. Then it cuts the link between gateway and hub, kills the
gateway with SIGKILL in the middle, mends the link, and counts what reached the hub.

Usage: offline_sync [options]

  --outage LIST     seconds the link is down, one outage after the other (default 4,14,45)
  --quick           one outage of 2 seconds
  --auth LIST       how the gateway signs in: none, user, operator (default none)
  --link LIST       what a cut link does: closed (connections end) or stalled (bytes stop
                    flowing and nobody is told) (default closed)
  --no-kill         let the gateway live through the outage
  --rate N          readings a second, all sensors together (default 400)
  --sensors N       number of sensors (default 8)
  --gateway PATH    gateway to run: sedge or nats-server (default: the sedge built beside this)
  --hub PATH        nats-server to run (default: NATS_SERVER, target/peers, PATH)
  --dir PATH        keep configs, logs and stores in this folder
  -h, --help        print this

Ends with 0 when nothing was lost, doubled or disordered and data flowed within a second of the
link's return, with 1 when not, with 2 when it could not be tried.
";

/// How the gateway signs in at the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Auth {
    None,
    User,
    Operator,
}

impl Auth {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::User => "user",
            Self::Operator => "operator",
        }
    }
}

pub(crate) struct Options {
    pub(crate) outages: Vec<Duration>,
    pub(crate) auths: Vec<Auth>,
    pub(crate) links: Vec<Link>,
    pub(crate) kill: bool,
    pub(crate) rate: u32,
    pub(crate) sensors: u32,
    pub(crate) gateway: Option<PathBuf>,
    pub(crate) hub: Option<PathBuf>,
    pub(crate) folder: Option<PathBuf>,
}

impl Options {
    /// The options of the command line; `None` when help was asked for.
    pub(crate) fn parse() -> Result<Option<Self>, lexopt::Error> {
        use lexopt::prelude::*;

        let mut options = Self {
            outages: [4, 14, 45].map(Duration::from_secs).to_vec(),
            auths: vec![Auth::None],
            links: vec![Link::Closed],
            kill: true,
            rate: 400,
            sensors: 8,
            gateway: None,
            hub: None,
            folder: None,
        };
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Short('h') | Long("help") => return Ok(None),
                Long("outage") => {
                    options.outages = parser.value()?.parse_with(|text| list(text, outage))?;
                }
                Long("quick") => options.outages = vec![Duration::from_secs(2)],
                Long("auth") => {
                    options.auths = parser.value()?.parse_with(|text| list(text, auth))?;
                }
                Long("link") => {
                    options.links = parser.value()?.parse_with(|text| list(text, link))?;
                }
                Long("no-kill") => options.kill = false,
                Long("rate") => {
                    options.rate = parser.value()?.parse_with(|text| number(text, 1_000_000))?;
                }
                Long("sensors") => {
                    options.sensors = parser.value()?.parse_with(|text| number(text, 1_000))?;
                }
                Long("gateway") => options.gateway = Some(parser.value()?.into()),
                Long("hub") => options.hub = Some(parser.value()?.into()),
                Long("dir") => options.folder = Some(parser.value()?.into()),
                _ => return Err(argument.unexpected()),
            }
        }
        Ok(Some(options))
    }
}

fn list<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    text.split(',').map(|item| parse(item.trim())).collect()
}

fn outage(text: &str) -> Result<Duration, String> {
    match text.trim_end_matches('s').parse() {
        Ok(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("{text:?} is not an outage of 1 to 86400 seconds")),
    }
}

fn auth(text: &str) -> Result<Auth, String> {
    [Auth::None, Auth::User, Auth::Operator]
        .into_iter()
        .find(|auth| auth.name() == text)
        .ok_or_else(|| format!("{text:?} is not none, user or operator"))
}

fn link(text: &str) -> Result<Link, String> {
    match text {
        "closed" => Ok(Link::Closed),
        "stalled" => Ok(Link::Stalled),
        _ => Err(format!("{text:?} is not closed or stalled")),
    }
}

fn number(text: &str, max: u32) -> Result<u32, String> {
    match text.parse() {
        Ok(number) if (1..=max).contains(&number) => Ok(number),
        _ => Err(format!("{text:?} is not a number from 1 to {max}")),
    }
}
