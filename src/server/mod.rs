//! The server: configuration, log, event loop and everything that ties them together.

pub mod banner;
pub mod cli;
pub mod log;
mod pace;
pub mod run;
pub mod start;
pub mod zone;
