//! What can go wrong with files and folders: facts, not prose. Each variant names the file or folder at fault.

use std::path::{Path, PathBuf};

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An invalid file, a folder in use, or a failure of the operating system.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// An operation on a file or folder failed.
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, as a verb: `open`, `write`.
        action: &'static str,
        /// The error that the operating system returned.
        source: std::io::Error,
    },
    /// The content of a file is invalid.
    Content {
        /// The file or folder.
        path: PathBuf,
        /// Which part of it: `line 3`, `size`.
        what: String,
        /// What was expected, or what to do.
        expected: String,
        /// What was found.
        found: String,
    },
    /// Another process, or another part of this one, writes into this folder.
    Locked {
        /// The folder.
        path: PathBuf,
        /// Who holds it, where that is known.
        holder: Option<Holder>,
    },
}

/// Which process holds a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(not(target_family = "wasm"), derive(serde::Serialize, serde::Deserialize))]
pub struct Holder {
    /// Its process id on its host.
    pub pid: u32,
    /// The name of the machine.
    pub host: String,
    /// When it took the lock, in UTC.
    pub since: String,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} on {} since {}", self.pid, self.host, self.since)
    }
}

impl Error {
    /// For `map_err`: an [`Error::Io`] on `path` while trying to `action`.
    pub fn io<'a>(
        path: &'a Path,
        action: &'static str,
    ) -> impl FnOnce(std::io::Error) -> Self + 'a {
        move |source| Self::Io { path: path.into(), action, source }
    }

    /// An [`Error::Content`] from its four facts.
    pub fn content(
        path: &Path,
        what: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Content {
            path: path.into(),
            what: what.into(),
            expected: expected.into(),
            found: found.into(),
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io { path, action, .. } => write!(f, "{}: cannot {action}", path.display()),
            Self::Content { path, what, expected, found } => {
                write!(f, "{}: {what}: expected {expected}, found {found}", path.display())
            }
            Self::Locked { path, holder } => {
                write!(f, "{}: in use by ", path.display())?;
                match holder {
                    Some(holder) => write!(f, "{holder}")?,
                    None => f.write_str("another process")?,
                }
                f.write_str("; wait for it to end, or use another folder")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Content { .. } | Self::Locked { .. } => None,
        }
    }
}
