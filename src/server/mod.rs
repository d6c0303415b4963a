//! The server: configuration, log, event loop and everything that ties them together.

pub mod run;
