//! The log: lines in nats-server's shape, to stderr or to a file.
//!
//! Owns levels, the shape of a line, the file and the folding of repeated lines. Does not
//! own what is worth a line, nor the clock: every call is told the time.
//!
//! ```text
//! [4711] 2026/11/24 10:07:25.840627 [INF] Server is ready
//! ```
//!
//! # Invariants
//! - One line is one `write`, so that lines of a file shared with others stay whole.
//! - What came from a peer cannot start a new line or move the cursor: control characters
//!   are escaped.
//! - Of the same `WRN`, `ERR` or `DBG` line at most one is written each
//!   [`FOLD_WINDOW_SECONDS`], the others are counted and the count is written. `INF`,
//!   `FTL` and `TRC` lines are never folded.
//! - Trouble with the log never stops the server: lost lines are counted and reported.
//!
//! Source: the log of nats-server 2.15.

use super::sink::{LogFile, Sink, Syslog, SyslogPlace};
use super::zone::Zone;
use crate::time::Timestamp;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;

/// How long the same line is only counted.
pub const FOLD_WINDOW_SECONDS: i64 = 10;

/// Different lines whose repetition is noticed; the oldest gives way.
pub const FOLD_LINES_MAX: usize = 32;

/// Longest text of a line, in bytes; a longer one is cut.
pub const TEXT_BYTES_MAX: usize = 16 * 1024;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// `FTL`: the server cannot go on.
    Fatal,
    /// `ERR`: something failed that an operator should mend.
    Error,
    /// `WRN`: something works but should be different.
    Warning,
    /// `INF`: the life of the server.
    Info,
    /// `DBG`: the life of each connection. Off unless `debug`.
    Debug,
    /// `TRC`: each protocol operation. Off unless `trace`.
    Trace,
}

impl Level {
    fn label(self) -> &'static str {
        match self {
            Self::Fatal => "FTL",
            Self::Error => "ERR",
            Self::Warning => "WRN",
            Self::Info => "INF",
            Self::Debug => "DBG",
            Self::Trace => "TRC",
        }
    }

    /// The colour on a terminal, as nats-server's.
    fn colour(self) -> &'static str {
        match self {
            Self::Fatal | Self::Error => "31",
            Self::Warning => "0;93",
            Self::Info => "32",
            Self::Debug => "36",
            Self::Trace => "33",
        }
    }

    fn is_folded(self) -> bool {
        match self {
            Self::Error | Self::Warning | Self::Debug => true,
            Self::Fatal | Self::Info | Self::Trace => false,
        }
    }
}

/// What of the log can be chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub struct LogOptions {
    /// Write to this file instead of stderr.
    pub file: Option<PathBuf>,
    /// Write `DBG` lines.
    pub debug: bool,
    /// Write `TRC` lines.
    pub trace: bool,
    /// Put the time in front.
    pub time: bool,
    /// In UTC instead of local time.
    pub utc: bool,
    /// Bytes after which `file` is rotated; 0: never.
    pub size_limit: u64,
    /// Files kept, `file` counted; 0: all.
    pub files_kept: u64,
    /// Write to a system log, if there is no `file`.
    pub syslog: Option<SyslogPlace>,
}

impl From<&crate::config::Config> for LogOptions {
    fn from(config: &crate::config::Config) -> Self {
        Self {
            file: config.log_file.clone(),
            debug: config.debug,
            trace: config.trace,
            time: config.logtime,
            utc: config.logtime_utc,
            size_limit: config.log_size_limit.unwrap_or(0),
            files_kept: config.log_max_num.unwrap_or(0),
            syslog: match &config.remote_syslog {
                Some(url) => Some(SyslogPlace::Remote(url.clone())),
                None => config.syslog.then_some(SyslogPlace::Local),
            },
        }
    }
}

/// Where lines go.
#[derive(Debug)]
pub struct Log {
    options: LogOptions,
    sink: Sink,
    coloured: bool,
    pid: u32,
    zone: Zone,
    folds: Vec<Fold>,
    lines_lost: u64,
    /// Kept between lines for its capacity.
    line: String,
}

/// A line that is being counted.
#[derive(Debug)]
struct Fold {
    level: Level,
    text: String,
    since: Timestamp,
    /// Lines not written since.
    count: u64,
}

impl Fold {
    fn ends(&self) -> Timestamp {
        Timestamp(self.since.0.saturating_add(FOLD_WINDOW_SECONDS * 1_000_000_000))
    }
}

impl Log {
    /// Opens the log.
    ///
    /// # Errors
    /// The file cannot be opened for appending, or the system log is not there; the text
    /// names it.
    pub fn open(options: LogOptions) -> Result<Self, String> {
        let sink = match (&options.file, &options.syslog) {
            (Some(path), _) => {
                Sink::File(LogFile::open(path, options.size_limit, options.files_kept)?)
            }
            (None, Some(place)) => Sink::Syslog(Syslog::open(place)?),
            (None, None) => Sink::Stderr,
        };
        let coloured = matches!(sink, Sink::Stderr) && io::stderr().is_terminal();
        let zone = if options.utc { Zone::UTC } else { Zone::local() };
        Ok(Self {
            options,
            sink,
            coloured,
            pid: std::process::id(),
            zone,
            folds: Vec::new(),
            lines_lost: 0,
            line: String::new(),
        })
    }

    /// Would a line of this level be written? Ask before building a costly text.
    pub fn is_on(&self, level: Level) -> bool {
        match level {
            Level::Debug => self.options.debug,
            Level::Trace => self.options.trace,
            Level::Fatal | Level::Error | Level::Warning | Level::Info => true,
        }
    }

    /// Writes one line, or counts it if the same one was written a moment ago.
    pub fn write(&mut self, now: Timestamp, level: Level, text: &str) {
        if !self.is_on(level) {
            return;
        }
        self.flush(now);
        if level.is_folded() {
            if let Some(fold) =
                self.folds.iter_mut().find(|fold| fold.level == level && fold.text == text)
            {
                fold.count += 1;
                return;
            }
            if self.folds.len() >= FOLD_LINES_MAX {
                let fold = self.folds.remove(0);
                self.write_count(now, &fold);
            }
            self.folds.push(Fold { level, text: text.to_owned(), since: now, count: 0 });
        }
        self.write_line(now, level, text);
    }

    /// `INF`.
    pub fn info(&mut self, now: Timestamp, text: &str) {
        self.write(now, Level::Info, text);
    }

    /// `WRN`.
    pub fn warning(&mut self, now: Timestamp, text: &str) {
        self.write(now, Level::Warning, text);
    }

    /// `ERR`.
    pub fn error(&mut self, now: Timestamp, text: &str) {
        self.write(now, Level::Error, text);
    }

    /// `FTL`, after everything that is still counted.
    pub fn fatal(&mut self, now: Timestamp, text: &str) {
        self.flush_all(now);
        self.write(now, Level::Fatal, text);
    }

    /// When [`Self::flush`] next has something to do.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.folds.iter().filter(|fold| fold.count > 0).map(Fold::ends).min()
    }

    /// Writes the counts whose time is over.
    pub fn flush(&mut self, now: Timestamp) {
        // A wall clock that was set back ends the window too.
        let is_over = |fold: &Fold| fold.ends() <= now || now < fold.since;
        while let Some(index) = self.folds.iter().position(is_over) {
            let fold = self.folds.remove(index);
            self.write_count(now, &fold);
        }
    }

    /// Writes all counts; before the server exits.
    pub fn flush_all(&mut self, now: Timestamp) {
        for fold in std::mem::take(&mut self.folds) {
            self.write_count(now, &fold);
        }
    }

    /// Opens the file anew, for logrotate; the file that was renamed away stays whole.
    ///
    /// # Errors
    /// The file cannot be opened; lines go on to the old one.
    pub fn reopen(&mut self, now: Timestamp) -> Result<(), String> {
        let Some(path) = self.options.file.clone() else {
            self.info(now, "File log re-open ignored, not a file logger");
            return Ok(());
        };
        let options = &self.options;
        self.sink = Sink::File(LogFile::open(&path, options.size_limit, options.files_kept)?);
        self.info(now, "File log re-opened");
        Ok(())
    }

    /// Takes other options, after a reload.
    ///
    /// # Errors
    /// The new file cannot be opened; everything stays as it was.
    pub fn reconfigure(&mut self, now: Timestamp, options: LogOptions) -> Result<(), String> {
        if options != self.options {
            self.flush_all(now);
            let lines_lost = self.lines_lost;
            *self = Self { lines_lost, ..Self::open(options)? };
        }
        Ok(())
    }

    fn write_count(&mut self, now: Timestamp, fold: &Fold) {
        if fold.count > 0 {
            let seconds = now.0.saturating_sub(fold.since.0).max(0) / 1_000_000_000;
            let times = if fold.count == 1 { "time" } else { "times" };
            let text = format!("{} (repeated {} {times} in {seconds} s)", fold.text, fold.count);
            self.write_line(now, fold.level, &text);
        }
    }

    fn write_line(&mut self, now: Timestamp, level: Level, text: &str) {
        if self.lines_lost > 0 {
            let note = format!("{} log lines could not be written", self.lines_lost);
            if self.send(now, Level::Warning, &note).is_err() {
                self.lines_lost = self.lines_lost.saturating_add(1);
                return;
            }
            self.lines_lost = 0;
        }
        if self.send(now, level, text).is_err() {
            self.lines_lost = self.lines_lost.saturating_add(1);
        }
        self.rotate(now);
    }

    fn send(&mut self, now: Timestamp, level: Level, text: &str) -> io::Result<()> {
        if let Sink::Syslog(syslog) = &mut self.sink {
            return syslog.write(now, &self.zone, level, |line| push_text(line, text));
        }
        self.format(now, level, text);
        match &mut self.sink {
            Sink::File(file) => file.write(self.line.as_bytes()),
            Sink::Stderr | Sink::Syslog(_) => io::stderr().write_all(self.line.as_bytes()),
        }
    }

    /// Goes on in a new file when this one is full.
    fn rotate(&mut self, now: Timestamp) {
        let Sink::File(file) = &mut self.sink else { return };
        if !file.is_full() {
            return;
        }
        let (level, lines) = match file.rotate(now, &self.zone) {
            Ok(lines) => (Level::Info, lines),
            Err(error) => (Level::Error, vec![error]),
        };
        for text in lines {
            if self.send(now, level, &text).is_err() {
                self.lines_lost = self.lines_lost.saturating_add(1);
            }
        }
    }

    /// Puts the line into `self.line`.
    fn format(&mut self, now: Timestamp, level: Level, text: &str) {
        use std::fmt::Write as _;
        let line = &mut self.line;
        line.clear();
        // Writing into a String cannot fail.
        let _ = write!(line, "[{}] ", self.pid);
        if self.options.time {
            let at = self.zone.shift(now).civil();
            let _ = write!(
                line,
                "{:04}/{:02}/{:02} {:02}:{:02}:{:02}.{:06} ",
                at.year,
                at.month,
                at.day,
                at.hour,
                at.minute,
                at.second,
                at.nanos / 1000
            );
        }
        let _ = if self.coloured {
            write!(line, "[\u{1b}[{}m{}\u{1b}[0m] ", level.colour(), level.label())
        } else {
            write!(line, "[{}] ", level.label())
        };
        push_text(line, text);
        line.push('\n');
    }
}

/// The text as one line: cut, control characters escaped.
fn push_text(line: &mut String, text: &str) {
    for (index, c) in text.char_indices() {
        if index >= TEXT_BYTES_MAX {
            line.push_str("...");
            break;
        }
        if c.is_control() && c != '\t' {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// 2026-11-24 10:07:25.840627 UTC.
    const NOW: Timestamp = Timestamp(1_795_514_845_840_627_000);

    fn later(seconds: i64) -> Timestamp {
        Timestamp(NOW.0 + seconds * 1_000_000_000)
    }

    struct Fixture {
        directory: tempfile::TempDir,
        log: Log,
    }

    impl Fixture {
        fn new(change: impl FnOnce(&mut LogOptions)) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let mut options = LogOptions {
                file: Some(directory.path().join("x.log")),
                debug: false,
                trace: false,
                time: true,
                utc: true,
                size_limit: 0,
                files_kept: 0,
                syslog: None,
            };
            change(&mut options);
            Self { directory, log: Log::open(options).unwrap() }
        }

        /// The lines so far, without `[pid] `.
        fn lines(&self) -> Vec<String> {
            let text = std::fs::read_to_string(self.directory.path().join("x.log")).unwrap();
            let pid = format!("[{}] ", std::process::id());
            text.lines().map(|line| line.strip_prefix(&pid).unwrap().to_owned()).collect()
        }
    }

    #[test]
    fn a_line_has_nats_servers_shape() {
        let mut fixture = Fixture::new(|_| ());
        fixture.log.info(NOW, "Server is ready");
        fixture.log.info(Timestamp(0), "");
        assert_eq!(
            fixture.lines(),
            [
                "2026/11/24 10:07:25.840627 [INF] Server is ready",
                "1970/01/01 00:00:00.000000 [INF] "
            ]
        );
    }

    #[test]
    fn the_time_can_be_left_out() {
        let mut fixture = Fixture::new(|options| options.time = false);
        fixture.log.error(NOW, "x");
        assert_eq!(fixture.lines(), ["[ERR] x"]);
    }

    #[test]
    fn debug_and_trace_lines_need_their_option() {
        for (debug, trace) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut fixture = Fixture::new(|options| {
                (options.debug, options.trace, options.time) = (debug, trace, false);
            });
            fixture.log.write(NOW, Level::Debug, "d");
            fixture.log.write(NOW, Level::Trace, "t");
            let mut expected = Vec::new();
            expected.extend(debug.then_some("[DBG] d"));
            expected.extend(trace.then_some("[TRC] t"));
            assert_eq!(fixture.lines(), expected);
        }
    }

    #[test]
    fn a_peer_cannot_write_lines_of_its_own() {
        let mut fixture = Fixture::new(|options| options.time = false);
        fixture.log.error(NOW, "name \"a\n[1] [INF] Server is ready\r\u{1b}[2J\"\té");
        assert_eq!(
            fixture.lines(),
            ["[ERR] name \"a\\n[1] [INF] Server is ready\\r\\u{1b}[2J\"\té"]
        );
        fixture.log.info(NOW, &"é".repeat(TEXT_BYTES_MAX));
        assert!(fixture.lines()[1].len() < TEXT_BYTES_MAX + 100);
    }

    #[test]
    fn the_same_line_again_is_counted() {
        let mut fixture = Fixture::new(|options| options.time = false);
        for _ in 0..1000 {
            fixture.log.error(NOW, "hub refuses");
            fixture.log.warning(NOW, "hub refuses");
        }
        assert_eq!(fixture.lines(), ["[ERR] hub refuses", "[WRN] hub refuses"]);
        assert_eq!(fixture.log.deadline(), Some(later(FOLD_WINDOW_SECONDS)));
        fixture.log.flush(later(FOLD_WINDOW_SECONDS - 1));
        assert_eq!(fixture.lines().len(), 2);
        fixture.log.flush(later(FOLD_WINDOW_SECONDS));
        assert_eq!(fixture.lines()[2], "[ERR] hub refuses (repeated 999 times in 10 s)");
        assert_eq!(fixture.log.deadline(), None);
        fixture.log.error(later(20), "hub refuses");
        assert_eq!(fixture.lines().len(), 5, "a new window begins with a line");
    }

    #[test]
    fn info_and_trace_are_never_folded() {
        let mut fixture = Fixture::new(|options| (options.trace, options.time) = (true, false));
        for _ in 0..3 {
            fixture.log.info(NOW, "i");
            fixture.log.write(NOW, Level::Trace, "t");
        }
        assert_eq!(fixture.lines().len(), 6);
    }

    #[test]
    fn many_different_lines_take_bounded_memory() {
        let mut fixture = Fixture::new(|options| options.time = false);
        for n in 0..FOLD_LINES_MAX * 3 {
            fixture.log.error(NOW, &n.to_string());
        }
        assert_eq!(fixture.log.folds.len(), FOLD_LINES_MAX);
        assert_eq!(fixture.lines().len(), FOLD_LINES_MAX * 3);
    }

    #[test]
    fn a_clock_set_back_does_not_silence_a_line() {
        let mut fixture = Fixture::new(|options| options.time = false);
        fixture.log.error(NOW, "x");
        fixture.log.error(Timestamp(0), "x");
        assert_eq!(fixture.lines(), ["[ERR] x", "[ERR] x"]);
    }

    #[test]
    fn fatal_comes_after_what_was_counted() {
        let mut fixture = Fixture::new(|options| options.time = false);
        fixture.log.error(NOW, "x");
        fixture.log.error(NOW, "x");
        fixture.log.fatal(later(1), "end");
        assert_eq!(fixture.lines(), ["[ERR] x", "[ERR] x (repeated 1 time in 1 s)", "[FTL] end"]);
    }

    #[test]
    fn reopen_follows_a_rotated_file() {
        let mut fixture = Fixture::new(|options| options.time = false);
        fixture.log.info(NOW, "before");
        let path = fixture.directory.path().join("x.log");
        std::fs::rename(&path, fixture.directory.path().join("x.log.1")).unwrap();
        fixture.log.info(NOW, "still the old file");
        fixture.log.reopen(NOW).unwrap();
        assert_eq!(fixture.lines(), ["[INF] File log re-opened"]);
        let old = std::fs::read_to_string(fixture.directory.path().join("x.log.1")).unwrap();
        assert_eq!(old.lines().count(), 2);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            mode & !super::super::sink::FILE_MODE,
            0,
            "at most 0640, less with a strict umask"
        );
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named_and_the_old_one_stays() {
        let mut fixture = Fixture::new(|options| options.time = false);
        let wrong = LogOptions {
            file: Some(fixture.directory.path().join("no/x.log")),
            ..fixture.log.options.clone()
        };
        let error = fixture.log.reconfigure(NOW, wrong).unwrap_err();
        assert!(error.contains("no/x.log"), "{error}");
        fixture.log.info(NOW, "goes on");
        assert_eq!(fixture.lines(), ["[INF] goes on"]);
    }

    #[test]
    fn lost_lines_are_counted_when_the_log_works_again() {
        let mut fixture = Fixture::new(|options| options.time = false);
        // A full disk, as far as Linux can give one.
        let full = LogFile::open(std::path::Path::new("/dev/full"), 0, 0).unwrap();
        let good = std::mem::replace(&mut fixture.log.sink, Sink::File(full));
        for n in 0..3 {
            fixture.log.info(NOW, &n.to_string());
        }
        fixture.log.sink = good;
        fixture.log.info(NOW, "again");
        assert_eq!(fixture.lines(), ["[WRN] 3 log lines could not be written", "[INF] again"]);
    }
}
