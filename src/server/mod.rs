//! The server: configuration, log, event loop and everything that ties them together.

pub mod banner;
mod claims;
pub mod cli;
pub mod entrances;
pub mod files;
pub mod http;
pub mod log;
pub mod monitoring;
mod pace;
pub mod reload;
pub mod run;
pub mod sink;
pub mod start;
pub mod systemd;
mod tools;
mod trust;
pub mod zone;

mod passwords;
mod users;
