//! What can go wrong while measuring: always a sentence for whoever ran the benchmark.

use std::{fmt, io};

/// Why a figure is missing.
#[derive(Debug)]
pub(crate) struct Error(String);

/// The benchmark's own result.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error that says `what`.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }

    /// The same error, saying first what was being done.
    #[must_use]
    pub(crate) fn during(self, doing: &str) -> Self {
        Self(format!("{doing}: {}", self.0))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // What a socket's timeout is called depends on the system.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                Self("the server does not react".to_owned())
            }
            _ => Self(error.to_string()),
        }
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self(format!("answer is not the JSON expected: {error}"))
    }
}
