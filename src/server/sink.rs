//! Where log lines go: stderr, a file that is rotated by size, or a system log.
//!
//! Owns descriptors, the names of rotated files, and the datagrams of syslog. Does not own
//! the shape of a line of the file nor what is worth one: that is `log`.
//!
//! # Invariants
//! - No write waits: a system log that does not take a datagram loses the line.
//! - A file is renamed only after a whole line, and no line is lost by that.
//!
//! Source: the log of nats-server 2.15 (names of rotated files, what is said about them) and
//! what its `remote_syslog` sends; RFC 3164.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{ToSocketAddrs as _, UdpSocket};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use super::log::Level;
use super::zone::Zone;
use crate::sorted;
use crate::time::Timestamp;

/// The mode of a new log file, as nats-server's.
pub(super) const FILE_MODE: u32 = 0o640;

/// Where a local system log may listen.
const LOCAL: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];

/// A system log to send lines to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogPlace {
    /// That of this machine.
    Local,
    /// `udp://host:port`.
    Remote(String),
}

/// See the module.
#[derive(Debug)]
pub(super) enum Sink {
    Stderr,
    File(LogFile),
    Syslog(Syslog),
}

/// A file that lines are appended to.
#[derive(Debug)]
pub(super) struct LogFile {
    file: File,
    path: PathBuf,
    /// Bytes in it.
    size: u64,
    /// Bytes after which it is rotated; 0: never.
    limit: u64,
    /// Files kept, the current one counted; 0: all.
    keep: u64,
    /// The next try to rotate, after one that failed.
    next_at: u64,
}

impl LogFile {
    pub(super) fn open(path: &Path, limit: u64, keep: u64) -> Result<Self, String> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(FILE_MODE)
            .open(path)
            .map_err(|error| format!("cannot open log file {}: {error}", path.display()))?;
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        Ok(Self { file, path: path.to_owned(), size, limit, keep, next_at: limit })
    }

    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        self.file.write_all(line)?;
        self.size += line.len() as u64;
        Ok(())
    }

    /// Is it full?
    pub(super) fn is_full(&self) -> bool {
        self.limit > 0 && self.size > self.next_at
    }

    /// Goes on in a new file; says what is to be logged about it.
    pub(super) fn rotate(&mut self, now: Timestamp, zone: &Zone) -> Result<Vec<String>, String> {
        // Whatever fails is not tried again with every line.
        self.next_at = self.size.saturating_add(self.limit);
        let at = zone.shift(now).civil();
        let stamp = format!(
            "{:04}.{:02}.{:02}.{:02}.{:02}.{:02}.{:09}",
            at.year, at.month, at.day, at.hour, at.minute, at.second, at.nanos
        );
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{stamp}"));
        let backup = PathBuf::from(name);
        let failed = |error: io::Error| format!("Unable to rotate the log file: {error}");
        std::fs::rename(&self.path, &backup).map_err(failed)?;
        *self = Self::open(&self.path, self.limit, self.keep)?;
        let mut lines =
            vec![format!("Rotated log, backup saved as {:?}", backup.display().to_string())];
        lines.extend(self.purge());
        Ok(lines)
    }

    /// Removes the oldest backups beyond what is kept.
    fn purge(&self) -> Vec<String> {
        let Some(backups) = self.keep.checked_sub(1).and_then(|n| usize::try_from(n).ok()) else {
            return Vec::new();
        };
        let directory = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let own = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_backup = |name: &str| {
            let stamp = name.strip_prefix(&own).and_then(|rest| rest.strip_prefix('.'));
            stamp.is_some_and(|stamp| {
                stamp.len() == 29 && stamp.bytes().all(|b| b.is_ascii_digit() || b == b'.')
            })
        };
        let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| is_backup(name))
            .collect();
        sorted::sort(&mut names);
        let surplus = names.len().saturating_sub(backups);
        names
            .into_iter()
            .take(surplus)
            .map(|name| match std::fs::remove_file(directory.join(&name)) {
                Ok(()) => format!("Purged log file {name:?}"),
                Err(error) => format!("Unable to purge log file {name:?}: {error}"),
            })
            .collect()
    }
}

/// A system log.
#[derive(Debug)]
pub(super) struct Syslog {
    place: SyslogPlace,
    socket: Socket,
    /// For the datagrams of a remote log.
    host: String,
    datagram: String,
}

#[derive(Debug)]
enum Socket {
    Unix(UnixDatagram),
    Udp(UdpSocket),
}

impl Syslog {
    pub(super) fn open(place: &SyslogPlace) -> Result<Self, String> {
        let socket =
            connect(place).map_err(|error| format!("error connecting to syslog: {error}"))?;
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Ok(Self { place: place.clone(), socket, host, datagram: String::new() })
    }

    /// Sends one line; `line` gets the text, without what could move a cursor.
    pub(super) fn write(
        &mut self,
        now: Timestamp,
        zone: &Zone,
        level: Level,
        text: impl FnOnce(&mut String),
    ) -> io::Result<()> {
        // Facility 0, as nats-server.
        let priority = match level {
            Level::Fatal => 2,
            Level::Error => 3,
            Level::Warning => 4,
            Level::Info | Level::Trace => 5,
            Level::Debug => 7,
        };
        let shifted = zone.shift(now);
        let at = shifted.civil();
        let pid = std::process::id();
        let out = &mut self.datagram;
        out.clear();
        // Writing into a String cannot fail.
        let _ = match self.place {
            SyslogPlace::Local => {
                let month = usize::try_from(at.month - 1).ok().and_then(|n| MONTHS.get(n));
                let month = month.unwrap_or(&"Jan");
                let (day, hour, minute, second) = (at.day, at.hour, at.minute, at.second);
                write!(
                    out,
                    "<{priority}>{month} {day:2} {hour:02}:{minute:02}:{second:02} sedge[{pid}]: "
                )
            }
            SyslogPlace::Remote(_) => {
                // Whole seconds of UTC: the same instant wherever the other machine is.
                let utc = Zone::UTC.shift(now).civil();
                write!(
                    out,
                    "<{priority}>{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z {} sedge[{pid}]: ",
                    utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second, self.host
                )
            }
        };
        text(out);
        out.push('\n');
        if send(&self.socket, out).is_ok() {
            return Ok(());
        }
        // The local daemon may have been restarted.
        self.socket = connect(&self.place)?;
        send(&self.socket, out)
    }
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

fn send(socket: &Socket, datagram: &str) -> io::Result<()> {
    match socket {
        Socket::Unix(socket) => socket.send(datagram.as_bytes())?,
        Socket::Udp(socket) => socket.send(datagram.as_bytes())?,
    };
    Ok(())
}

fn connect(place: &SyslogPlace) -> io::Result<Socket> {
    match place {
        SyslogPlace::Local => {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            let found = LOCAL.iter().any(|path| socket.connect(path).is_ok());
            if found {
                Ok(Socket::Unix(socket))
            } else {
                Err(io::Error::other("nothing listens at /dev/log, /var/run/syslog, /var/run/log"))
            }
        }
        SyslogPlace::Remote(url) => {
            let Some(address) = url.strip_prefix("udp://") else {
                return Err(io::Error::other(format!("{url:?} is not udp://host:port")));
            };
            let address = address.trim_end_matches('/');
            let to = address
                .to_socket_addrs()?
                .next()
                .ok_or_else(|| io::Error::other(format!("{address} has no address")))?;
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            socket.connect(to)?;
            socket.set_nonblocking(true)?;
            Ok(Socket::Udp(socket))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-24 10:07:25.840627 UTC.
    const NOW: Timestamp = Timestamp(1_795_514_845_840_627_000);

    #[test]
    fn a_full_file_goes_on_in_a_new_one_and_the_oldest_go() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.log");
        let other = directory.path().join("x.log.1");
        std::fs::write(&other, "not ours").unwrap();
        let mut file = LogFile::open(&path, 10, 3).unwrap();
        for second in 0..5_i64 {
            assert!(!file.is_full());
            file.write(b"eleven byte\n").unwrap();
            assert!(file.is_full());
            let now = Timestamp(NOW.0 + second * 1_000_000_000);
            let lines = file.rotate(now, &Zone::UTC).unwrap();
            assert!(lines[0].starts_with("Rotated log, backup saved as \""), "{lines:?}");
            assert_eq!(lines.len(), if second < 2 { 1 } else { 2 });
        }
        let mut names: Vec<String> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        sorted::sort(&mut names);
        assert_eq!(
            names,
            [
                "x.log",
                "x.log.1",
                "x.log.2026.11.24.10.07.28.840627000",
                "x.log.2026.11.24.10.07.29.840627000"
            ]
        );
    }

    #[test]
    fn a_remote_log_gets_one_datagram_a_line() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let place = SyslogPlace::Remote(format!("udp://{}", receiver.local_addr().unwrap()));
        let mut syslog = Syslog::open(&place).unwrap();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        for (level, priority) in [(Level::Info, 5), (Level::Error, 3), (Level::Debug, 7)] {
            syslog.write(NOW, &Zone::UTC, level, |out| out.push_str("text")).unwrap();
            let mut bytes = [0; 200];
            let count = receiver.recv(&mut bytes).unwrap();
            let pid = std::process::id();
            assert_eq!(
                String::from_utf8_lossy(&bytes[..count]),
                format!("<{priority}>2026-11-24T10:07:25Z {host} sedge[{pid}]: text\n")
            );
        }
    }

    #[test]
    fn a_log_nobody_listens_at_is_named() {
        for url in ["tcp://127.0.0.1:5", "foo", "udp://127.0.0.1"] {
            let error = Syslog::open(&SyslogPlace::Remote(url.to_owned())).unwrap_err();
            assert!(error.starts_with("error connecting to syslog: "), "{error}");
        }
    }
}
