//! Files that tell others about a running server: its process id and its ports.
//!
//! Owns their names and content. Source: nats-server 2.15.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Addresses by what is served there, in the order nats-server writes them.
#[derive(Clone, Debug, Default)]
pub struct Ports {
    clients: u16,
    lists: Vec<(&'static str, Vec<String>)>,
}

impl Ports {
    /// The port for clients.
    pub fn clients(&self) -> u16 {
        self.clients
    }

    /// Clients connect on `host:port`.
    pub fn set_clients(&mut self, host: &str, port: u16, tls: bool) {
        self.clients = port;
        self.add("nats", if tls { "tls" } else { "nats" }, host, port);
    }

    /// Something else is served on `host:port`: `what` in the file, with URLs of `scheme`.
    pub fn add(&mut self, what: &'static str, scheme: &str, host: &str, port: u16) {
        let hosts = if is_any(host) { own_addresses() } else { vec![bracketed(host)] };
        let urls = hosts.iter().map(|host| format!("{scheme}://{host}:{port}")).collect();
        self.lists.push((what, urls));
    }

    /// Writes the file into `directory`, if there is one. It appears there whole: scripts wait
    /// for it to exist and read it at once.
    ///
    /// # Errors
    /// A text for the log.
    pub fn write(&self, directory: Option<&Path>) -> Result<(), String> {
        let Some(directory) = directory else { return Ok(()) };
        let path = ports_path(directory);
        let lists: Vec<String> = self
            .lists
            .iter()
            .map(|(what, urls)| {
                let urls: Vec<String> = urls.iter().map(|url| format!("{url:?}")).collect();
                format!("{what:?}:[{}]", urls.join(","))
            })
            .collect();
        let part = path.with_extension("ports.part");
        fs::write(&part, format!("{{{}}}", lists.join(",")))
            .and_then(|()| fs::rename(&part, &path))
            .map_err(|error| format!("Error writing ports file ({}): {error}", path.display()))
    }
}

/// `<directory>/sedge_<pid>.ports`.
pub fn ports_path(directory: &Path) -> PathBuf {
    directory.join(format!("sedge_{}.ports", std::process::id()))
}

/// Writes the process id.
///
/// # Errors
/// A text for the log.
pub fn write_pid(path: Option<&Path>) -> Result<(), String> {
    let Some(path) = path else { return Ok(()) };
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options
        .open(path)
        .and_then(|mut file| file.write_all(std::process::id().to_string().as_bytes()))
        .map_err(|error| format!("Could not write pidfile: {}: {error}", path.display()))
}

/// Removes a file; it may have been moved away, which is what we want.
pub fn remove(path: Option<&Path>) {
    if let Some(path) = path {
        let _ = fs::remove_file(path);
    }
}

fn is_any(host: &str) -> bool {
    host.is_empty() || host == "0.0.0.0" || host == "::" || host == "[::]"
}

fn bracketed(host: &str) -> String {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if bare.contains(':') { format!("[{bare}]") } else { bare.to_owned() }
}

/// The addresses of this machine that other machines may reach, and its own.
fn own_addresses() -> Vec<String> {
    let mut found = vec!["127.0.0.1".to_owned()];
    // The system lists addresses of interfaces where no unsafe call is needed to read them.
    if let Ok(text) = fs::read_to_string("/proc/net/fib_trie") {
        let mut last = "";
        for line in text.lines().map(str::trim) {
            if line.starts_with("/32 host LOCAL") {
                let address = last.trim_start_matches("|-- ").to_owned();
                if !found.contains(&address) {
                    found.push(address);
                }
            }
            last = line;
        }
    }
    if let Ok(text) = fs::read_to_string("/proc/net/if_inet6") {
        for line in text.lines() {
            let digits = line.split_whitespace().next().unwrap_or_default();
            if let Ok(bits) = u128::from_str_radix(digits, 16) {
                found.push(format!("[{}]", std::net::Ipv6Addr::from(bits)));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_file_lists_urls_by_what_is_served() {
        let directory = tempfile::tempdir().unwrap();
        let mut ports = Ports::default();
        ports.set_clients("127.0.0.1", 4222, false);
        ports.add("monitoring", "http", "::1", 8222);
        ports.write(Some(directory.path())).unwrap();
        let text = fs::read_to_string(ports_path(directory.path())).unwrap();
        let expected = "{\"nats\":[\"nats://127.0.0.1:4222\"],\
                        \"monitoring\":[\"http://[::1]:8222\"]}";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_server_that_listens_everywhere_lists_its_addresses() {
        let mut ports = Ports::default();
        ports.set_clients("0.0.0.0", 1, false);
        assert_eq!(ports.lists[0].1[0], "nats://127.0.0.1:1");
        assert!(ports.lists[0].1.iter().all(|url| !url.contains("0.0.0.0")));
    }

    #[test]
    fn files_that_cannot_be_written_are_named() {
        let nowhere = Path::new("/proc/nowhere/x.pid");
        let error = write_pid(Some(nowhere)).unwrap_err();
        assert!(error.starts_with("Could not write pidfile: /proc/nowhere/x.pid: "), "{error}");
        assert!(Ports::default().write(Some(nowhere)).unwrap_err().contains("/proc/nowhere"));
    }
}
