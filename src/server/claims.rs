//! The files of a resolver's directory, and accounts by HTTP, away from the event loop.
//!
//! Owns writing, removing and fetching. One change of the directory is under way at a time,
//! so that the last push of an account is the one on disk. Does not own what is written: the
//! broker has judged it.
//!
//! # Invariants
//! - A file has its old content or its new one, whenever the power goes.
//! - The files are those of nats-server: `<directory>/<account key>.jwt`, and
//!   `.jwt.deleted` for what was deleted.
//!
//! Source: NATS docs, "Account lookup using Resolver"; file names as nats-server 2.15.1.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::broker::claims::Change;
use crate::broker::system::SystemRequest;
use crate::limits::{CLAIMS_FETCH_TIMEOUT, JWT_BYTES_MAX};
use crate::net::poller::Waker;

/// Something that has ended.
#[derive(Debug)]
pub(super) enum Done {
    /// A change of the directory.
    Written {
        /// Who asked for it.
        request: SystemRequest,
        /// What it was.
        change: Change,
        /// Whether it is on disk.
        result: Result<(), String>,
    },
    /// A fetch.
    Fetched {
        /// Of which account.
        account: String,
        /// Its token, or why not.
        result: Result<String, String>,
    },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Claims {
    directory: Option<PathBuf>,
    waker: Waker,
    done: Sender<Done>,
    outcomes: Receiver<Done>,
    /// A change is under way.
    pub(super) busy: bool,
}

impl Claims {
    /// `waker` wakes the loop when something ends.
    pub(super) fn new(waker: Waker) -> Self {
        let (done, outcomes) = channel();
        Self { directory: None, waker, done, outcomes, busy: false }
    }

    /// Where the tokens are.
    pub(super) fn set_directory(&mut self, directory: Option<&Path>) {
        self.directory = directory.map(Path::to_owned);
    }

    fn run(&self, work: impl FnOnce() -> Done + Send + 'static) {
        let (done, waker) = (self.done.clone(), self.waker.clone());
        let task = smol::unblock(move || {
            // Nobody waits any more when the server has ended.
            let _ = done.send(work());
            waker.wake();
        });
        task.detach();
    }

    /// Begins a change.
    pub(super) fn write(&mut self, request: SystemRequest, change: Change) {
        self.busy = true;
        let directory = self.directory.clone();
        self.run(move || {
            let result = match &directory {
                Some(directory) => apply(directory, &change).map_err(|error| error.to_string()),
                None => Ok(()),
            };
            Done::Written { request, change, result }
        });
    }

    /// Begins a fetch.
    pub(super) fn fetch(&mut self, account: String, url: String) {
        self.run(move || {
            let result = fetch(&url).map_err(|error| format!("could not fetch <{url}>: {error}"));
            Done::Fetched { account, result }
        });
    }

    /// One that has ended.
    pub(super) fn poll(&mut self) -> Option<Done> {
        let done = self.outcomes.try_recv().ok();
        if matches!(done, Some(Done::Written { .. })) {
            self.busy = false;
        }
        done
    }
}

fn apply(directory: &Path, change: &Change) -> io::Result<()> {
    match change {
        Change::Put { account, token } => {
            let next = directory.join(format!(".{account}.jwt.next"));
            let mut file = File::create(&next)?;
            file.write_all(token.as_bytes())?;
            file.sync_all()?;
            fs::rename(&next, directory.join(format!("{account}.jwt")))?;
        }
        Change::Remove { accounts, hard } => {
            for account in accounts {
                let path = directory.join(format!("{account}.jwt"));
                let gone = if *hard {
                    fs::remove_file(&path)
                } else {
                    fs::rename(&path, directory.join(format!("{account}.jwt.deleted")))
                };
                match gone {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
    }
    File::open(directory)?.sync_all()
}

/// The body of what is at an `http://` address.
fn fetch(url: &str) -> io::Result<String> {
    let wrong = |what: &str| io::Error::other(what.to_owned());
    let rest = url.strip_prefix("http://").ok_or_else(|| wrong("only http:// can be fetched"))?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let address = address.to_socket_addrs()?.next().ok_or_else(|| wrong("no such host"))?;
    let mut socket = TcpStream::connect_timeout(&address, CLAIMS_FETCH_TIMEOUT)?;
    socket.set_read_timeout(Some(CLAIMS_FETCH_TIMEOUT))?;
    socket.set_write_timeout(Some(CLAIMS_FETCH_TIMEOUT))?;
    let path = if path.is_empty() { "/" } else { path };
    // This version has no chunks.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\nUser-Agent: sedge\r\n\r\n");
    socket.write_all(request.as_bytes())?;
    let most = u64::try_from(JWT_BYTES_MAX + 64 * 1024).unwrap_or(u64::MAX);
    let mut answer = Vec::new();
    socket.take(most).read_to_end(&mut answer)?;
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(body)) = response.parse(&answer) else {
        return Err(wrong("no HTTP answer"));
    };
    if response.code != Some(200) {
        return Err(wrong(&format!("status {}", response.code.unwrap_or(0))));
    }
    let body = answer.get(body..).unwrap_or_default();
    String::from_utf8(body.to_vec()).map_err(|_| wrong("no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_deleted_by_another_name() {
        let directory = tempfile::tempdir().unwrap();
        let put = |token: &str| Change::Put { account: "A".into(), token: token.into() };
        for token in ["one", "a longer one"] {
            apply(directory.path(), &put(token)).unwrap();
            assert_eq!(fs::read_to_string(directory.path().join("A.jwt")).unwrap(), token);
        }
        let remove = |hard| Change::Remove { accounts: vec!["A".into(), "B".into()], hard };
        apply(directory.path(), &remove(false)).unwrap();
        assert!(directory.path().join("A.jwt.deleted").exists());
        apply(directory.path(), &put("three")).unwrap();
        apply(directory.path(), &remove(true)).unwrap();
        let names = fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(names, 1, "what was renamed is left");
    }

    #[test]
    fn an_account_is_fetched_by_http() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            for answer in ["HTTP/1.1 200 OK\r\nX: y\r\n\r\ntoken", "HTTP/1.1 404 No\r\n\r\n", "x"] {
                let (mut socket, _) = listener.accept().unwrap();
                let mut seen = Vec::new();
                let mut byte = [0];
                while !seen.ends_with(b"\r\n\r\n") && socket.read(&mut byte).unwrap() > 0 {
                    seen.push(byte[0]);
                }
                assert!(seen.starts_with(b"GET /accounts/A HTTP/1.0\r\n"));
                socket.write_all(answer.as_bytes()).unwrap();
            }
        });
        let url = format!("http://{address}/accounts/A");
        assert_eq!(fetch(&url).unwrap(), "token");
        assert!(fetch(&url).unwrap_err().to_string().contains("404"));
        assert!(fetch(&url).is_err());
        server.join().unwrap();
        assert!(fetch("https://localhost/").is_err());
    }
}
