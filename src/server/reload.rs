//! A reload: the file is read again, and what changed is made ready to be applied.
//!
//! Owns the configuration in force, and where each of its remotes is in the broker. Whatever
//! can fail is done in [`Reloader::plan`], before anything has changed; `run::reload` applies
//! the plan.

use std::path::Path;

use super::cli::Start;
use super::entrances;
use super::files;
use super::log::LogOptions;
use super::monitoring;
use super::start;
use super::users;
use crate::auth::sign_in::SignInOptions;
use crate::broker::options::Options;
use crate::config::reload::{Reload, compare};
use crate::config::{Config, Machine};
use crate::jetstream;
use crate::leaf::RemoteOptions;
use crate::monitor::Settings;
use crate::net::opening::Entrance;
use crate::net::tls::TlsClient;
use crate::net::tls_server::TlsServer;
use crate::time::{Duration, Timestamp};

/// See the module.
#[derive(Debug)]
pub struct Reloader {
    start: Start,
    /// In force.
    config: Config,
    server_id: String,
    server_name: String,
    ports: files::Ports,
    /// By remote of the configuration: its place in the broker, while it is dialled.
    places: Vec<Option<usize>>,
    next: Option<(Config, Vec<Option<usize>>, Reload)>,
}

/// What is to be applied.
#[derive(Debug)]
pub struct Plan {
    /// For the log, before anything else.
    pub warnings: Vec<String>,
    /// For the log, one a change.
    pub lines: Vec<String>,
    /// For the log, at the end.
    pub done: String,
    /// Of the log, if it changes.
    pub log: Option<LogOptions>,
    /// Of the broker.
    pub options: Options,
    /// Who may sign in, if that changes.
    pub users: Option<SignInOptions>,
    /// What clients go through on their way in, with the certificates as they are now.
    pub entrance: Entrance,
    /// The same for WebSocket clients.
    pub web_entrance: Entrance,
    /// Of the monitoring pages.
    pub pages_tls: Option<TlsServer>,
    /// SHA-256 of the keys of pinned client certificates, if they change: whose certificate
    /// is none of them is closed. Empty: any may stay.
    pub pins: Option<Vec<String>>,
    /// Bounds of JetStream, if they change.
    pub jetstream: Option<jetstream::options::Options>,
    /// What the monitoring pages show.
    pub settings: Settings,
    /// Grace period and duration.
    pub lame_duck: (Duration, Duration),
    /// Places of remotes to leave.
    pub leave: Vec<usize>,
    /// Remotes to dial.
    pub join: Vec<(RemoteOptions, TlsClient)>,
}

impl Reloader {
    /// A server that was started with `start` and told its remotes in their order.
    pub fn new(start: &Start, server_id: String, server_name: String, ports: files::Ports) -> Self {
        let mut place = 0..;
        let places = start.loaded.config.leafnodes.remotes.iter();
        let places =
            places.map(|remote| if remote.disabled { None } else { place.next() }).collect();
        Self {
            config: start.loaded.config.clone(),
            start: start.clone(),
            server_id,
            server_name,
            ports,
            places,
            next: None,
        }
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Reads the file again. `place` is where the next remote will be in the broker.
    ///
    /// # Errors
    /// Everything that is wrong, one line each; nothing has changed then.
    pub fn plan(&mut self, mut place: usize) -> Result<Plan, Vec<String>> {
        if self.start.file.is_none() {
            let text = "can only reload config when a file is provided using -c or --config";
            return Err(vec![text.to_owned()]);
        }
        let loaded = self.start.load(&Machine).map_err(|mistakes| {
            mistakes.0.iter().map(ToString::to_string).collect::<Vec<String>>()
        })?;
        let config = loaded.config.clone();
        let reload = compare(&self.config, &config).map_err(|refusal| vec![refusal.to_string()])?;
        // A certificate may have been renewed without a change of the file.
        let entrance = entrances::client(&config).map_err(|error| vec![error])?;
        let web = config.websocket.as_ref();
        let web = web.map(|web| entrances::web(web, config.max_payload)).transpose();
        let web_entrance = web.map_err(|error| vec![error])?;
        let mut join = Vec::new();
        let mut places = vec![None; config.leafnodes.remotes.len()];
        for &(old, new) in &reload.kept {
            if let (Some(to), Some(from)) = (places.get_mut(new), self.places.get(old)) {
                *to = *from;
            }
        }
        for &index in &reload.joined {
            let Some(remote) = config.leafnodes.remotes.get(index) else { continue };
            let wrong = |error| vec![format!("leafnodes.remotes: {error}")];
            let options = start::remote_options(remote, &config.leafnodes).map_err(wrong)?;
            let tls = TlsClient::new(remote.tls.as_ref()).map_err(wrong)?;
            join.push((options, tls));
            if let Some(slot) = places.get_mut(index) {
                *slot = Some(place);
            }
            place += 1;
        }
        let leave = reload
            .left
            .iter()
            .filter_map(|&index| self.places.get(index).copied().flatten())
            .collect();
        let (id, name) = (self.server_id.clone(), self.server_name.clone());
        let port = self.ports.clients();
        let done = format!("Reloaded server configuration ({})", loaded.digest);
        let plan = Plan {
            warnings: loaded.warnings.iter().map(ToString::to_string).collect(),
            lines: reload.lines.clone(),
            done,
            log: reload.log.then(|| LogOptions::from(&config)),
            options: start::options(&config, id, name, port),
            users: reload.users.then(|| users::sign_in_options(&config)),
            entrance,
            web_entrance: web_entrance.unwrap_or_default(),
            pages_tls: entrances::pages(&config).map_err(|error| vec![error])?,
            pins: reload.pinned_certs.then(|| entrances::pins(&config)),
            jetstream: config
                .jetstream
                .as_ref()
                .filter(|_| reload.jetstream)
                .map(|js| start::jetstream_options(&config, js, &self.server_name)),
            settings: monitoring::settings(
                &loaded,
                port,
                Timestamp::default(),
                Timestamp::default(),
            ),
            lame_duck: (config.lame_duck_grace_period, config.lame_duck_duration),
            leave,
            join,
        };
        self.next = Some((config, places, reload));
        Ok(plan)
    }

    /// The plan has been applied. Files that are at another place now are written.
    ///
    /// # Errors
    /// What could not be written, one line each.
    pub fn applied(&mut self) -> Vec<String> {
        let Some((config, places, reload)) = self.next.take() else { return Vec::new() };
        let mut errors = Vec::new();
        if reload.pid_file {
            files::remove(self.config.pid_file.as_deref());
            errors.extend(files::write_pid(config.pid_file.as_deref()).err());
        }
        if reload.ports_file {
            let path = self.config.ports_file_dir.as_deref().map(files::ports_path);
            files::remove(path.as_deref().map(Path::new));
            errors.extend(self.ports.write(config.ports_file_dir.as_deref()).err());
        }
        self.config = config;
        self.places = places;
        errors
    }
}
