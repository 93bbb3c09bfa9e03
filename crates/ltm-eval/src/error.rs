//! What can go wrong in this crate: facts, not prose. Each variant names the file or field at fault.

use std::path::{Path, PathBuf};

use ltm_files::Error as FileError;
use ltm_train::data::Difference;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An invalid argument, an invalid file, or a failure of a model, of the operating system or of the device.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be used, or its content is invalid.
    File(FileError),
    /// An option or configuration field has an invalid value.
    Field {
        /// The field's name, as the user writes it.
        field: String,
        /// Valid values.
        expected: String,
        /// The value given.
        found: String,
    },
    /// The file of a sweep or of a configuration is invalid.
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, by section and key.
        reason: String,
    },
    /// A point of a sweep was run with settings that differ from those of the sweep's file.
    SweepChanged {
        /// The file with the settings that the point was run with.
        path: PathBuf,
        /// The point's name.
        point: String,
        /// How they differ.
        differences: Vec<Difference>,
        /// Whether only settings of the evaluation differ, so that scoring again is enough.
        only_scores: bool,
    },
    /// A chart could not be drawn.
    Plot {
        /// The chart's file.
        path: PathBuf,
        /// The error of the drawing library.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An error of the inference of latents.
    Infer(ltm_vi::Error),
    /// Any other error of a run: of its data, its model, its training or its device.
    Train(ltm_train::Error),
}

impl Error {
    /// For `map_err`: an operation on `path` failed while trying to `action`.
    pub(crate) fn io<'a>(
        path: &'a Path,
        action: &'static str,
    ) -> impl FnOnce(std::io::Error) -> Self + 'a {
        move |source| Self::File(FileError::io(path, action)(source))
    }

    /// A file with invalid content, from its four facts.
    pub(crate) fn content(
        path: &Path,
        what: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::File(FileError::content(path, what, expected, found))
    }

    /// An [`Error::Field`] from its three facts.
    pub(crate) fn field(
        field: &str,
        expected: impl Into<String>,
        found: impl std::fmt::Display,
    ) -> Self {
        Self::Field { field: field.into(), expected: expected.into(), found: found.to_string() }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Field { field, expected, found } => {
                write!(f, "`{field}`: expected {expected}, found {found}")
            }
            Self::Config { path, reason } => write!(f, "{}: {reason}", path.display()),
            Self::SweepChanged { path, point, differences, .. } => {
                let differences: Vec<_> = differences.iter().map(ToString::to_string).collect();
                write!(
                    f,
                    "{}: point `{point}` was run with other settings: {}; restore the sweep's file, or give the changed \
                     sweep another `dir`",
                    path.display(),
                    differences.join(", ")
                )
            }
            Self::Plot { path, .. } => write!(f, "{}: cannot draw", path.display()),
            Self::Infer(_) => f.write_str("inference or scoring failed"),
            Self::Train(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // Their messages are the whole ones of this error.
            Self::File(error) => error.source(),
            Self::Train(error) => error.source(),
            Self::Plot { source, .. } => Some(source.as_ref()),
            Self::Infer(source) => Some(source),
            _ => None,
        }
    }
}

impl From<FileError> for Error {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl From<ltm_train::Error> for Error {
    fn from(error: ltm_train::Error) -> Self {
        match error {
            ltm_train::Error::File(error) => Self::File(error),
            ltm_train::Error::Field { field, expected, found } => {
                Self::Field { field, expected, found }
            }
            ltm_train::Error::Config { path, reason } => Self::Config { path, reason },
            ltm_train::Error::Infer(error) => Self::Infer(error),
            error => Self::Train(error),
        }
    }
}

impl From<ltm_train::data::Error> for Error {
    fn from(error: ltm_train::data::Error) -> Self {
        ltm_train::Error::from(error).into()
    }
}

impl From<ltm_vi::Error> for Error {
    fn from(error: ltm_vi::Error) -> Self {
        Self::Infer(error)
    }
}

impl From<ltm_model::Error> for Error {
    fn from(error: ltm_model::Error) -> Self {
        ltm_train::Error::from(error).into()
    }
}

impl From<ltm_train::ltm_autodiff::Error> for Error {
    fn from(error: ltm_train::ltm_autodiff::Error) -> Self {
        Self::Infer(error.into())
    }
}

impl From<ltm_train::ltm_kernels::Error> for Error {
    fn from(error: ltm_train::ltm_kernels::Error) -> Self {
        Self::Infer(error.into())
    }
}
