//! What operators do to a running server: reload it, rotate its log, run it under systemd.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::process::{Pid, Signal, kill_process};

use crate::raw_client::RawClient;
use crate::server::{Server, sedge_binary};

/// For what should happen at once, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// Is there something to be read before the time is up?
fn is_ready(source: &impl AsFd, wait: Duration) -> bool {
    let wait = Timespec::try_from(wait).unwrap();
    let mut sources = [PollFd::new(source, PollFlags::IN)];
    poll(&mut sources, Some(&wait)).unwrap() > 0
}

/// Waits until `wanted` is there; looks again whenever something changes in `place`.
fn eventually<T>(what: &str, place: &Path, mut wanted: impl FnMut() -> Option<T>) -> T {
    let changes = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    let all = inotify::WatchFlags::CREATE | inotify::WatchFlags::MODIFY | inotify::WatchFlags::MOVE;
    inotify::add_watch(&changes, place, all).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = wanted() {
            return value;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(is_ready(&changes, left), "not in time: {what}");
        while rustix::io::read(&changes, &mut [0; 4096]).is_ok() {}
    }
}

fn accept(listener: &TcpListener) -> TcpStream {
    assert!(is_ready(listener, PATIENCE), "nobody comes");
    listener.accept().unwrap().0
}

#[test]
fn a_broken_file_changes_nothing_and_every_mistake_is_logged() {
    let server = Server::sedge("max_payload: 100");
    let mut client = RawClient::connect(server.address()).unwrap();
    server.write_config("max_payload: 5\nfoo: bar\nping_max: x").unwrap();
    server.signal(Signal::HUP);
    server.wait_for_line("unknown field \"foo\"").unwrap();
    server.wait_for_line("server.conf:4:1").unwrap();
    client.send("SUB a 1\r\nPUB a 6\r\nabcdef\r\nPING\r\n");
    let deadline = Instant::now() + PATIENCE;
    while client.next_frame(deadline).unwrap().line() != "PONG" {}
    let failed = server.log().lines().filter(|line| line.contains("Failed to reload")).count();
    assert_eq!(failed, 2, "{}", server.log());
}

#[test]
fn a_reload_dials_new_remotes_and_leaves_old_ones() {
    let hub = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("nats://{}", hub.local_addr().unwrap());
    let server = Server::sedge("");
    let with = format!("leafnodes {{ remotes: [ {{ url: \"{url}\" }} ] }}");
    server.write_config(&with).unwrap();
    server.signal(Signal::HUP);
    server.wait_for_line("added").unwrap();
    let mut link = accept(&hub);
    let off = format!("leafnodes {{ remotes: [ {{ url: \"{url}\", disabled: true }} ] }}");
    server.write_config(&off).unwrap();
    server.signal(Signal::HUP);
    server.wait_for_line("Disabled value is: true").unwrap();
    link.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut rest = Vec::new();
    link.read_to_end(&mut rest).expect("the link is closed");
    // Longer than the pause before a remote is dialled again: nobody may come.
    let is_dialled = is_ready(&hub, Duration::from_millis(1500));
    assert!(!is_dialled, "a disabled remote is not dialled");
    server.write_config(&with).unwrap();
    server.signal(Signal::HUP);
    server.wait_for_line("Disabled value is: false").unwrap();
    accept(&hub);
}

#[test]
fn pid_and_ports_files_follow_a_reload() {
    let server = Server::sedge("pid_file: \"$DIR/a.pid\"\nports_file_dir: \"$DIR\"");
    let directory = server.directory().to_owned();
    let pid = server.process_id().to_string();
    assert_eq!(std::fs::read_to_string(directory.join("a.pid")).unwrap(), pid);
    let ports = directory.join(format!("sedge_{pid}.ports"));
    let text = eventually("the ports file", &directory, || std::fs::read_to_string(&ports).ok());
    assert_eq!(text, format!("{{\"nats\":[\"nats://{}\"]}}", server.address()));
    server.write_config("pid_file: \"$DIR/b.pid\"").unwrap();
    server.signal(Signal::HUP);
    server.wait_for_line("Reloaded server configuration").unwrap();
    assert_eq!(std::fs::read_to_string(directory.join("b.pid")).unwrap(), pid);
    assert!(!directory.join("a.pid").exists() && !ports.exists());
}

#[test]
fn a_log_file_is_rotated_by_size_and_moves_with_a_reload() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("server.conf");
    let write = |log: &str| {
        let text = format!(
            "listen: \"127.0.0.1:-1\"\nlog_file: \"{}/{log}\"\nlog_size_limit: 2000\n\
             log_max_num: 3\ntrace: true\n",
            directory.path().display()
        );
        std::fs::write(&config, text).unwrap();
    };
    let read = |log: &str| std::fs::read_to_string(directory.path().join(log)).unwrap_or_default();
    write("a.log");
    let mut child =
        Command::new(sedge_binary()).arg("-c").arg(&config).stderr(Stdio::null()).spawn().unwrap();
    let address: SocketAddr = eventually("the port", directory.path(), || {
        let log = read("a.log");
        let line = log.lines().find_map(|l| l.split_once("Listening for client connections on "));
        line.and_then(|(_, address)| address.parse().ok()).filter(|_| log.contains("is ready"))
    });
    let mut client = RawClient::connect(address).unwrap();
    for _ in 0..200 {
        client.send("PING\r\n");
        let deadline = Instant::now() + PATIENCE;
        while client.next_frame(deadline).unwrap().line() != "PONG" {}
    }
    let logs = || -> Vec<String> {
        let entries = std::fs::read_dir(directory.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("a.log")).collect()
    };
    eventually("three files", directory.path(), || (logs().len() == 3).then_some(()));
    assert!(read("a.log").len() < 3000);
    write("b.log");
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    eventually("the other file", directory.path(), || {
        read("b.log").contains("Reloaded server configuration").then_some(())
    });
    std::fs::rename(directory.path().join("b.log"), directory.path().join("moved")).unwrap();
    kill_process(pid, Signal::USR1).unwrap();
    eventually("the file anew", directory.path(), || {
        read("b.log").contains("File log re-opened").then_some(())
    });
    kill_process(pid, Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

/// The next message to the service manager that has this in it.
fn heard(manager: &UnixDatagram, wanted: &str) -> String {
    let mut bytes = [0; 500];
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let count = manager.recv(&mut bytes).expect("the manager hears something");
        let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
        if text.contains(wanted) {
            return text;
        }
    }
    panic!("nothing with {wanted:?}");
}

fn manager(directory: &Path) -> UnixDatagram {
    let manager =
        UnixDatagram::bind(directory.join("notify")).expect("a socket in a new directory");
    manager.set_read_timeout(Some(PATIENCE)).expect("a time above zero");
    manager
}

#[test]
fn a_service_manager_hears_of_start_reload_life_and_end() {
    let place = tempfile::tempdir().unwrap();
    let manager = manager(place.path());
    let server = Server::start_with(&sedge_binary(), "", |command| {
        command.env("NOTIFY_SOCKET", place.path().join("notify"));
        command.env("WATCHDOG_USEC", "200000");
    })
    .unwrap();
    heard(&manager, "READY=1");
    heard(&manager, "WATCHDOG=1");
    heard(&manager, "WATCHDOG=1");
    server.signal(Signal::HUP);
    let text = heard(&manager, "RELOADING=1");
    assert!(text.contains("MONOTONIC_USEC="), "{text}");
    heard(&manager, "READY=1");
    server.signal(Signal::TERM);
    heard(&manager, "STOPPING=1");
}

#[test]
fn a_socket_of_the_service_manager_is_used() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    let address = listener.local_addr().unwrap();
    // The descriptor is 3 already where no other test runs beside this one.
    let script = format!(
        "[ {fd} = 3 ] || exec 3<&{fd} {fd}<&-; \
         export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=nats; \
         exec \"$0\" -a 127.0.0.1 -p 1",
        fd = listener.as_raw_fd()
    );
    let mut child = Command::new("bash").arg("-c").arg(script).arg(sedge_binary()).spawn().unwrap();
    drop(listener);
    // The socket listens since before the server.
    let mut client = RawClient::connect(address).unwrap();
    client.send("PING\r\n");
    let deadline = Instant::now() + PATIENCE;
    while client.next_frame(deadline).unwrap().line() != "PONG" {}
    child.kill().unwrap();
    child.wait().unwrap();
}
