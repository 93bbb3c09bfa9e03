//! What can go wrong in this crate: facts, not prose. Each variant names the file or field at fault.

use std::path::{Path, PathBuf};

use ltm_data::Difference;
use ltm_files::Error as FileError;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An invalid argument, an invalid file, or a failure of the operating system or the device.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be used, or its content is invalid.
    File(FileError),
    /// An error of a corpus or of a tokenizer.
    Data(ltm_data::Error),
    /// A run is to start from step 0, but its folder already contains a run.
    RunExists {
        /// The folder.
        dir: PathBuf,
    },
    /// A run is to be resumed, but its folder contains no checkpoint or does not exist.
    NothingToResume {
        /// The folder.
        dir: PathBuf,
    },
    /// A run is to be resumed, but was trained on a different corpus.
    DataChanged {
        /// The checkpoint that would be resumed.
        checkpoint: PathBuf,
        /// How the corpora differ.
        differences: Vec<Difference>,
    },
    /// An option or configuration field has an invalid value.
    Field {
        /// The field's name, as the user writes it.
        field: String,
        /// Valid values.
        expected: String,
        /// The value given.
        found: String,
    },
    /// A configuration file is invalid.
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, by section and key.
        reason: String,
    },
    /// A loss, a gradient or a weight is not finite.
    NonFinite {
        /// The slow step, counted from 1.
        step: u64,
        /// The tensor's name in a checkpoint, or what was computed.
        tensor: String,
        /// The newest checkpoint whose weights gave a finite loss, which is unchanged.
        last_good: Option<PathBuf>,
    },
    /// The device that `run.device` names cannot be used.
    Device(ltm_kernels::Error),
    /// An error of the inference of latents.
    Infer(ltm_vi::Error),
    /// An invalid model configuration or checkpoint.
    Model(ltm_model::Error),
    /// Another process of the group failed or does not answer.
    Group(ltm_collective::Error),
    /// Two processes of a group do not have the same weights.
    Diverged {
        /// The process whose weights differ from those of rank 0.
        rank: usize,
        /// Steps taken.
        step: u64,
    },
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

    /// Weights that are not finite are a run that diverged, not a mistake of the caller.
    pub(crate) fn of_weights(error: ltm_model::Error) -> Self {
        match error {
            ltm_model::Error::NotFinite { name, .. } => {
                Self::NonFinite { step: 0, tensor: format!("`{name}`"), last_good: None }
            }
            other => Self::Infer(other.into()),
        }
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
            Self::Data(error) => error.fmt(f),
            Self::RunExists { dir } => {
                write!(
                    f,
                    "{}: already contains a run; resume it or set another `run.dir`",
                    dir.display()
                )
            }
            Self::NothingToResume { dir } => {
                write!(f, "{}: no checkpoint to resume from; check `run.dir`", dir.display())
            }
            Self::DataChanged { checkpoint, differences } => {
                write!(
                    f,
                    "{}: the data has changed since this checkpoint: ",
                    checkpoint.display()
                )?;
                write_list(f, differences)
            }
            Self::Field { field, expected, found } => {
                write!(f, "`{field}`: expected {expected}, found {found}")
            }
            Self::Device(_) => write!(f, "`run.device` cannot be used"),
            Self::Config { path, reason } => write!(f, "{}: {reason}", path.display()),
            Self::NonFinite { step, tensor, last_good } => {
                write!(f, "step {step}: {tensor} is not finite; ")?;
                match last_good {
                    Some(path) => write!(f, "the last good checkpoint is {}", path.display())?,
                    None => f.write_str("no checkpoint is known to be good")?,
                }
                f.write_str("; a lower train.lr, infer.lr or train.clip may help")
            }
            Self::Infer(_) => f.write_str("inference or scoring failed"),
            Self::Group(error) => error.fmt(f),
            Self::Diverged { rank, step } => write!(
                f,
                "step {step}: the weights of rank {rank} are not those of rank 0; processes must run the same program on \
                 processors of the same kind"
            ),
            Self::Model(_) => f.write_str("invalid model configuration or checkpoint"),
        }
    }
}

fn write_list(f: &mut std::fmt::Formatter<'_>, differences: &[Difference]) -> std::fmt::Result {
    for (idx, difference) in differences.iter().enumerate() {
        let comma = if idx == 0 { "" } else { ", " };
        write!(f, "{comma}{difference}")?;
    }
    Ok(())
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // Their messages are the whole ones of this error.
            Self::File(error) => error.source(),
            Self::Data(error) => error.source(),
            Self::Device(source) => Some(source),
            Self::Infer(source) => Some(source),
            Self::Model(source) => Some(source),
            Self::Group(error) => error.source(),
            _ => None,
        }
    }
}

impl From<FileError> for Error {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl From<ltm_data::Error> for Error {
    fn from(error: ltm_data::Error) -> Self {
        match error {
            ltm_data::Error::File(error) => Self::File(error),
            ltm_data::Error::Field { field, expected, found } => {
                Self::Field { field, expected, found }
            }
            error => Self::Data(error),
        }
    }
}

impl From<ltm_vi::Error> for Error {
    fn from(source: ltm_vi::Error) -> Self {
        Self::Infer(source)
    }
}

impl From<ltm_model::Error> for Error {
    fn from(source: ltm_model::Error) -> Self {
        Self::Model(source)
    }
}

impl From<ltm_collective::Error> for Error {
    fn from(error: ltm_collective::Error) -> Self {
        Self::Group(error)
    }
}

impl From<ltm_kernels::Error> for Error {
    fn from(source: ltm_kernels::Error) -> Self {
        Self::Infer(source.into())
    }
}

impl From<ltm_autodiff::Error> for Error {
    fn from(source: ltm_autodiff::Error) -> Self {
        Self::Infer(source.into())
    }
}

/// An error with what caused it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}
