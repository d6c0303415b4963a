//! The server: configuration, log, event loop and everything that ties them together.

pub mod banner;
pub mod cli;
pub mod entrances;
pub mod http;
pub mod log;
pub mod monitoring;
mod pace;
pub mod run;
pub mod start;
pub mod zone;

mod passwords;
mod users;
