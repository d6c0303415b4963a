//! The `sedge` binary: the command line, and the server it asks for.

use std::io::Write as _;
use std::process::ExitCode;

use sedge::config::Machine;
use sedge::server::cli::{Command, command};
use sedge::server::start;

fn main() -> ExitCode {
    match command(std::env::args_os().skip(1).collect(), &Machine) {
        Command::Exit { code, stdout, stderr } => {
            // Nobody is left to tell when these cannot be written.
            let _ = std::io::stdout().write_all(stdout.as_bytes());
            let _ = std::io::stderr().write_all(stderr.as_bytes());
            ExitCode::from(code)
        }
        Command::Serve(serve) => start::serve(&serve),
    }
}
