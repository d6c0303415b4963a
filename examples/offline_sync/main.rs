//! Outages, shown with real parts: a nats-server hub, a gateway as its leaf node, sensors.
//!
//! ```text
//! cargo build --release && cargo run --release --example offline_sync
//! ```
//!
//! The sensors publish to the gateway's stream; the hub's stream sources from it. For each
//! outage the link is cut, the gateway killed with SIGKILL in the middle and started again, and
//! the link mended, while the sensors go on. Then the hub's stream is read back message by
//! message. `--help` lists the options; `--gateway` takes a nats-server too, for comparison.
//!
//! The hub's duplicate window is as good as off here, so a reading that is delivered twice is
//! stored twice and counted, instead of being put right by the hub.

mod audit;
#[path = "../sensor/clock.rs"]
mod clock;
mod fleet;
mod keys;
#[path = "../sensor/machine.rs"]
mod machine;
mod options;
#[path = "../sensor/outbox.rs"]
mod outbox;
mod relay;
mod report;
mod server;

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::ConnectOptions;
use async_nats::jetstream::stream::{Config, External, Source, Stream};
use async_nats::jetstream::{self, Context};
use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::time::{sleep, timeout};

use fleet::Fleet;
use options::{Auth, HELP, Options};
use relay::{Link, Relay};
use report::{LiveLine, Verdict};
use server::Server;

/// Stream on the gateway and on the hub.
const STREAM: &str = "READINGS";

/// How long readings reach the hub undisturbed before the link is cut.
const WARM_UP: Duration = Duration::from_secs(2);

/// How long the killed gateway stays dead.
const DEAD: Duration = Duration::from_millis(500);

/// How long the hub may take to be complete again before the outage counts as failed.
const RECOVERY_WAIT: Duration = Duration::from_mins(3);

/// How long sensors go on after the hub has caught up.
const COOL_DOWN: Duration = Duration::from_secs(1);

/// Pause between two looks at the hub's stream: the resolution of the times in the table.
const POLL_PAUSE: Duration = Duration::from_millis(10);

fn main() -> ExitCode {
    let options = match Options::parse() {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("offline_sync: {error}; --help lists the options");
            return ExitCode::from(2);
        }
    };
    match run_all(&options) {
        Ok(verdicts) => {
            // Whoever reads no more still gets the exit code.
            let _ = report::write_table(&verdicts, &mut std::io::stdout());
            if verdicts.iter().all(Verdict::is_good) {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("offline_sync: {error}");
            ExitCode::from(2)
        }
    }
}

fn run_all(options: &Options) -> Result<Vec<Verdict>, Box<dyn Error>> {
    let hub = options.hub.clone().map_or_else(server::find_nats_server, Ok)?;
    let gateway = options.gateway.clone().map_or_else(server::find_sedge, Ok)?;
    println!("hub      {}\ngateway  {}", hub.display(), gateway.display());

    // So that the servers end with this program.
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    let temporary = tempfile::tempdir()?;
    let root = options.folder.as_deref().unwrap_or(temporary.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut verdicts = Vec::new();
    for &auth in &options.auths {
        let folder = root.join(auth.name());
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let tasks = tokio::task::LocalSet::new();
        let run = async {
            let mut site = Site::start(auth, &hub, &gateway, &folder, &interrupted).await?;
            for &link in &options.links {
                for &outage in &options.outages {
                    let round = verdicts.len();
                    verdicts.push(site.run_outage(round, outage, link, options).await?);
                }
            }
            Ok::<(), Box<dyn Error>>(())
        };
        if let Err(error) = tasks.block_on(&runtime, run) {
            if interrupted.load(Ordering::Relaxed) {
                return Err(error);
            }
            let kept = options.folder.clone().unwrap_or_else(|| temporary.keep());
            return Err(format!("{error}\nconfigs and logs are in {}", kept.display()).into());
        }
    }
    Ok(verdicts)
}

/// A hub, a gateway, and the link between them.
struct Site {
    auth: Auth,
    gateway: Server,
    relay: Relay,
    hub_stream: Stream,
    interrupted: Arc<AtomicBool>,
    /// Ends the hub when the site is dropped.
    _hub: Server,
}

impl Site {
    async fn start(
        auth: Auth,
        hub_binary: &Path,
        gateway_binary: &Path,
        folder: &Path,
        interrupted: &Arc<AtomicBool>,
    ) -> Result<Self, Box<dyn Error>> {
        let hub_address = server::free_address()?;
        let leaf_address = server::free_address()?;
        let relay = Relay::start(leaf_address)?;

        // What each way of signing in adds: to the hub, to the gateway's remote, to our client.
        let (hub_auth, remote_user, remote_creds, hub_client) = match auth {
            Auth::None => (String::new(), String::new(), None, ConnectOptions::new()),
            Auth::User => (
                "accounts {\n  \
                   READINGS { jetstream: enabled, users: [ { user: gateway, password: secret } ] }\n  \
                   SYS { users: [ { user: admin, password: secret } ] }\n\
                 }\n\
                 system_account: SYS\n"
                    .to_owned(),
                "gateway:secret@".to_owned(),
                None,
                ConnectOptions::with_user_and_password("gateway".into(), "secret".into()),
            ),
            Auth::Operator => {
                let operator = keys::Operator::generate(clock::wall().as_secs())?;
                let creds = folder.join("gateway.creds");
                fs::write(&creds, &operator.creds)?;
                let [(system, system_jwt), (readings, readings_jwt)] = &operator.accounts;
                (
                    format!(
                        "operator: {}\nresolver: MEMORY\nresolver_preload {{\n  \
                           {system}: {system_jwt}\n  {readings}: {readings_jwt}\n}}\n",
                        operator.jwt
                    ),
                    String::new(),
                    Some(creds),
                    ConnectOptions::with_credentials(&operator.creds)?,
                )
            }
        };

        let hub_config = format!(
            "server_name: hub\nlisten: \"{hub_address}\"\n\
             jetstream {{ store_dir: \"{}\", domain: hub }}\n\
             leafnodes {{ listen: \"{leaf_address}\", advertise: \"{}\" }}\n{hub_auth}",
            folder.join("hub").display(),
            // A hub tells its leaf nodes where else it can be reached; that must not be a way
            // around the link.
            relay.address(),
        );
        let mut hub = Server::new("hub", hub_binary, folder, hub_address, &hub_config)?;
        hub.start().await?;

        let gateway_address = server::free_address()?;
        let credentials = remote_creds
            .map(|path| format!(", credentials: \"{}\"", path.display()))
            .unwrap_or_default();
        let gateway_config = format!(
            "server_name: gateway\nlisten: \"{gateway_address}\"\n\
             jetstream {{ store_dir: \"{}\", domain: gateway }}\n\
             leafnodes {{\n  remotes: [ {{ url: \"nats-leaf://{remote_user}{}\"{credentials} }} ]\n}}\n",
            folder.join("gateway").display(),
            relay.address(),
        );
        let mut gateway =
            Server::new("gateway", gateway_binary, folder, gateway_address, &gateway_config)?;
        gateway.start().await?;

        let at_gateway = jetstream::new(async_nats::connect(gateway_address.to_string()).await?);
        create_stream(
            &at_gateway,
            Config {
                name: STREAM.to_owned(),
                subjects: vec!["sensors.>".to_owned()],
                ..Config::default()
            },
        )
        .await
        .map_err(|error| format!("cannot make the gateway's stream: {error}"))?;
        let at_hub = jetstream::new(hub_client.connect(hub_address.to_string()).await?);
        let hub_stream = create_stream(
            &at_hub,
            Config {
                name: STREAM.to_owned(),
                sources: Some(vec![Source {
                    name: STREAM.to_owned(),
                    external: Some(External {
                        api_prefix: "$JS.gateway.API".to_owned(),
                        delivery_prefix: None,
                    }),
                    ..Source::default()
                }]),
                // The shortest there is, so that the hub hides no doubled reading.
                duplicate_window: Duration::from_millis(100),
                ..Config::default()
            },
        )
        .await
        .map_err(|error| format!("cannot make the hub's stream: {error}"))?;
        let interrupted = Arc::clone(interrupted);
        Ok(Self { auth, gateway, relay, hub_stream, interrupted, _hub: hub })
    }

    /// Runs one outage from undisturbed flow to the audit of the hub's stream.
    async fn run_outage(
        &mut self,
        round: usize,
        outage: Duration,
        link: Link,
        options: &Options,
    ) -> Result<Verdict, Box<dyn Error>> {
        let before = self.hub_last_seq().await?;
        let gateway_url = self.gateway.address.to_string();
        let fleet = Fleet::start(&gateway_url, round, options.sensors, options.rate).await?;
        let mut watch = Watch {
            site: self,
            fleet,
            before,
            line: LiveLine::new(format!("{:>3} s", outage.as_secs())),
        };

        // Undisturbed: the hub follows.
        let mut followed_at = None;
        watch
            .until(RECOVERY_WAIT, "link up", |seen| {
                if seen.at_hub > 0 {
                    followed_at.get_or_insert(seen.now);
                }
                followed_at.is_some_and(|at| seen.now.duration_since(at) >= WARM_UP)
            })
            .await?
            .ok_or("no reading reached the hub although the link is up")?;

        // The outage, with the kill in its middle.
        watch.site.relay.set(link);
        let cut_at = clock::now();
        // Nothing sent before the cut can be beyond this: each sensor has one in flight.
        let acked_at_cut = watch.fleet.acked() + u64::from(options.sensors);
        let phase = match link {
            Link::Stalled => "link stalled",
            Link::Closed | Link::Up => "link closed",
        };
        if options.kill {
            let kill_at = cut_at + outage / 2;
            watch.until(outage, phase, |seen| seen.now >= kill_at).await?;
            watch.site.gateway.kill()?;
            watch.until(DEAD, "gateway dead", |_| false).await?;
            watch.site.gateway.start().await?;
        }
        watch.until(RECOVERY_WAIT + outage, phase, |seen| seen.now >= cut_at + outage).await?;

        if watch.site.hub_last_seq().await? - before > acked_at_cut {
            return Err("readings reach the hub although the link is cut".into());
        }

        // The link is back.
        watch.site.relay.set(Link::Up);
        let mended_at = clock::now();
        let mut flows_at = None;
        let mut acked_before = u64::MAX;
        let caught_up_at = watch
            .until(RECOVERY_WAIT, "link back", |seen| {
                if seen.at_hub > acked_at_cut {
                    flows_at.get_or_insert(seen.now);
                }
                // Everything that was acked one look ago is there.
                let caught_up = flows_at.is_some() && seen.at_hub >= acked_before;
                acked_before = seen.acked;
                caught_up
            })
            .await?;
        watch.until(COOL_DOWN, "link back", |_| false).await?;

        // The sensors finish, the hub takes the rest, and everything is counted.
        watch.fleet.stop(RECOVERY_WAIT).await;
        let published = watch.fleet.published();
        watch.until(RECOVERY_WAIT, "counting", |seen| seen.at_hub >= published).await?;
        watch.line.finish();
        let Watch { fleet, .. } = watch;
        let audit = audit::audit(
            &self.hub_stream,
            before + 1,
            self.hub_last_seq().await?,
            round,
            &fleet.acked_by_sensor(),
        )
        .await?;
        let since_mended = |at: Instant| at.duration_since(mended_at);
        Ok(Verdict {
            auth: self.auth,
            outage,
            link,
            killed: options.kill,
            published,
            acked: fleet.acked(),
            duplicates: fleet.duplicates(),
            audit,
            flows_after: flows_at.map(since_mended),
            caught_up_after: caught_up_at.map(since_mended),
        })
    }

    async fn hub_last_seq(&self) -> Result<u64, Box<dyn Error>> {
        let info = self.hub_stream.get_info().await;
        Ok(info
            .map_err(|error| format!("no stream info from the hub: {error}"))?
            .state
            .last_sequence)
    }
}

/// One look at the sensors and the hub.
struct Seen {
    now: Instant,
    acked: u64,
    at_hub: u64,
}

/// Follows one outage with the live line.
struct Watch<'s> {
    site: &'s mut Site,
    fleet: Fleet,
    /// Last sequence of the hub's stream before this outage.
    before: u64,
    line: LiveLine,
}

impl Watch<'_> {
    /// Looks again and again until `done` says so, and returns when that was; `None` when
    /// `wait_max` passed first.
    async fn until(
        &mut self,
        wait_max: Duration,
        phase: &str,
        mut done: impl FnMut(&Seen) -> bool,
    ) -> Result<Option<Instant>, Box<dyn Error>> {
        let started = clock::now();
        loop {
            if self.site.interrupted.load(Ordering::Relaxed) {
                return Err("interrupted".into());
            }
            let last_seq = self.site.hub_last_seq().await?;
            // Taken after the hub's answer: what the hub had by then it had no later than now.
            let seen = Seen {
                now: clock::now(),
                acked: self.fleet.acked(),
                at_hub: last_seq.saturating_sub(self.before),
            };
            self.line.show(seen.now, phase, self.fleet.published(), seen.acked, seen.at_hub);
            if done(&seen) {
                return Ok(Some(seen.now));
            }
            if self.site.gateway.has_died() {
                return Err("the gateway ended by itself; see gateway.log".into());
            }
            let Some(left) = wait_max.checked_sub(seen.now.duration_since(started)) else {
                if let Some(reason) = self.fleet.refusal().filter(|_| seen.acked == 0) {
                    return Err(format!("the gateway acks nothing: {reason}").into());
                }
                return Ok(None);
            };
            sleep(left.min(POLL_PAUSE)).await;
        }
    }
}

/// Creates a stream; a server that has only just started may need a moment.
async fn create_stream(jetstream: &Context, config: Config) -> Result<Stream, Box<dyn Error>> {
    let attempts = async {
        loop {
            match jetstream.create_stream(config.clone()).await {
                Ok(stream) => return stream,
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    };
    if let Ok(stream) = timeout(Duration::from_secs(5), attempts).await {
        return Ok(stream);
    }
    Ok(jetstream.create_stream(config).await?)
}
