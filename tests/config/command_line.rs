//! The same arguments for nats-server and for us: exit code and words, names aside.

use crate::agreement::nats_server;
use sedge::config::Machine;
use sedge::server::cli::{Command, command};
use std::ffi::OsString;

/// Code and the first line of stderr, or of stdout if that is empty.
type Outcome = (i32, String);

fn first_line(stderr: &str, stdout: &str) -> String {
    let text = if stderr.trim().is_empty() { stdout } else { stderr };
    // nats-server begins the failure of a signal with an empty line.
    text.replace("nats-server: \n", "nats-server: ").lines().next().unwrap_or("").to_owned()
}

fn ours(arguments: &[&str]) -> Outcome {
    match command(arguments.iter().map(OsString::from).collect(), &Machine) {
        Command::Serve(_) => panic!("{arguments:?} would serve"),
        Command::Exit { code, stdout, stderr } => {
            (i32::from(code), first_line(&stderr.replace("sedge: \n", "sedge: "), &stdout))
        }
    }
}

fn theirs(server: &std::path::Path, arguments: &[&str]) -> Outcome {
    let output = std::process::Command::new(server).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let line = first_line(&text(&output.stderr), &text(&output.stdout));
    (output.status.code().unwrap(), line.replace("nats-server", "sedge"))
}

#[test]
fn the_same_arguments_get_the_same_answer() {
    let Some(server) = nats_server() else { return };
    let directory = tempfile::tempdir().unwrap();
    let good = directory.path().join("good.conf");
    std::fs::write(&good, "port: -1\njetstream { store_dir: x }\n").unwrap();
    let good = good.to_str().unwrap();
    let same: &[&[&str]] = &[
        &["-t", "-c", good],
        &["--t", "--config", good],
        &["-t", "-config", good],
        &["-t", "-c", good, "-p=5", "-DV", "-js", "--logtime=false", "-a", "h", "--name=x"],
        &["-t", "-c", good, "-VV", "-P", "x", "-l", "y", "--user", "a", "--pass", "b"],
        &["-t"],
        &["foo"],
        &["-t", "-c", good, "foo"],
        &["--", "foo"],
        &["-js", "false"],
        &["--signal", "reload=nonsense*"],
        &["--signal=reload=2147483647"],
    ];
    for arguments in same {
        assert_eq!(ours(arguments), theirs(&server, arguments), "{arguments:?}");
    }
    // nats-server exits with 0 after these, which hides the failure from a service manager.
    let words: &[&[&str]] = &[&["-p"], &["-js=maybe"], &["---p=1"], &["-=1"], &["-p", "abc"]];
    for arguments in words {
        let (ours, theirs) = (ours(arguments), theirs(&server, arguments));
        assert_eq!((ours.0, theirs.0), (1, 0), "{arguments:?}");
        assert_eq!(ours.1, theirs.1, "{arguments:?}");
    }
    for (arguments, start) in
        [(["-zz"], "flag provided but not defined: -zz"), (["--prot"], "flag provided but not")]
    {
        assert!(ours(&arguments).1.starts_with(start));
        assert!(theirs(&server, &arguments).1.starts_with(start));
    }
}
