//! Applying a reload to the running server.
//!
//! Owns the order: the log first, because only that can still fail; then limits, remotes,
//! files. Does not own what changed: the plan says so.

use super::{Print, Server};
use crate::broker::Notice;
use crate::config::Config;
use crate::monitor::Settings;
use crate::server::reload::{Plan, Reloader};
use crate::server::systemd::Manager;
use crate::time::Now;

impl<P: Print> Server<P> {
    /// What SIGHUP asks, and the service manager to tell about it.
    pub fn set_reloader(&mut self, reloader: Reloader, manager: Manager) {
        self.reloader = Some(reloader);
        self.manager = manager;
    }

    /// The configuration in force.
    pub fn config(&self) -> Option<&Config> {
        self.reloader.as_ref().map(Reloader::config)
    }

    /// Reads the configuration again and applies what changed.
    ///
    /// # Errors
    /// Why not; nothing has changed then. It has been logged.
    pub fn reload(&mut self, now: Now) -> Result<(), String> {
        let Some(mut reloader) = self.reloader.take() else {
            return Err("this server cannot reload".to_owned());
        };
        self.manager.reloading();
        let result = match reloader.plan(self.broker.next_remote()) {
            Ok(plan) => self.apply(now, plan),
            Err(mistakes) => Err(mistakes),
        };
        match &result {
            Ok(done) => {
                for error in reloader.applied() {
                    self.print.print(now, &Notice::error(error));
                }
                self.print.print(now, &Notice::info(done.as_str()));
            }
            Err(mistakes) => {
                for mistake in mistakes {
                    let text = format!("Failed to reload server configuration: {mistake}");
                    self.print.print(now, &Notice::error(text));
                }
            }
        }
        self.reloader = Some(reloader);
        self.manager.ready(now.instant, "Server is ready");
        result.map(drop).map_err(|mistakes| mistakes.join("; "))
    }

    /// Returns the last line for the log.
    fn apply(&mut self, now: Now, plan: Plan) -> Result<String, Vec<String>> {
        if let Some(log) = plan.log {
            self.print.reconfigure(now, log).map_err(|error| vec![error])?;
        }
        for warning in plan.warnings {
            self.print.print(now, &Notice::warn(warning));
        }
        self.lame_duck = plan.lame_duck;
        if let Some(options) = plan.jetstream {
            self.broker.reload_jetstream(options);
        }
        self.broker.reload(now, &plan.options);
        self.set_entrance(plan.entrance);
        self.set_web_entrance(plan.web_entrance);
        if let Some(users) = plan.users {
            self.broker.replace_users(now, users);
        }
        if let Some(pins) = plan.pins.filter(|pins| !pins.is_empty()) {
            self.broker.close_unpinned(now, &pins);
        }
        if let Some(pages) = &mut self.pages {
            pages.set_tls(plan.pages_tls);
        }
        let before = &self.monitor.settings;
        self.monitor.settings =
            Settings { start: before.start, config_load_time: now.wall, ..plan.settings };
        for place in plan.leave {
            self.broker.leave_remote(now, place);
        }
        for (options, tls) in plan.join {
            self.tls.push(tls);
            self.broker.add_remote(now, options);
        }
        // What the broker says about it comes first, as nats-server has it.
        self.finish_turn(now);
        for line in plan.lines {
            self.print.print(now, &Notice::info(line));
        }
        Ok(plan.done)
    }
}
