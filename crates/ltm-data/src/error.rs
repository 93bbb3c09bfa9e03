//! What can go wrong in this crate: facts, not prose. Each variant names the file or field at fault.

use std::path::{Path, PathBuf};

use ltm_files::Error as FileError;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An invalid argument or an invalid file.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder cannot be used, or its content is invalid.
    File(FileError),
    /// A split of a corpus has no tokens.
    EmptySplit {
        /// The folder.
        dir: PathBuf,
        /// The split.
        split: crate::Split,
    },
    /// An option has an invalid value.
    Field {
        /// The option's name, as the user writes it.
        field: String,
        /// Valid values.
        expected: String,
        /// The value given.
        found: String,
    },
    /// A shard contains a token id outside its vocabulary.
    Token {
        /// The shard.
        path: PathBuf,
        /// The token's index in the shard.
        position: u64,
        /// The id found there.
        id: u32,
        /// Valid ids are `0..vocab_size`.
        vocab_size: usize,
    },
    /// A closed vocabulary does not contain this word.
    Word {
        /// The word.
        word: String,
    },
    /// A tokenizer has no ids for a text.
    Encode {
        /// The tokenizer.
        tokenizer: String,
        /// Why not, in its library's words.
        reason: String,
    },
}

impl Error {
    /// For `map_err`: an operation on `path` failed while trying to `action`.
    pub fn io<'a>(
        path: &'a Path,
        action: &'static str,
    ) -> impl FnOnce(std::io::Error) -> Self + 'a {
        move |source| Self::File(FileError::io(path, action)(source))
    }

    /// A file with invalid content, from its four facts.
    pub fn content(
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
            Self::EmptySplit { dir, split } => {
                write!(f, "{}: {split}: expected tokens in {split}*.bin, found none", dir.display())
            }
            Self::Field { field, expected, found } => {
                write!(f, "`{field}`: expected {expected}, found {found}")
            }
            Self::Token { path, position, id, vocab_size } => write!(
                f,
                "{}: token {position} is {id}, outside the vocabulary 0..{vocab_size}; \
                 check that the tokenizer is the one that wrote this shard",
                path.display()
            ),
            Self::Word { word } => write!(f, "the vocabulary does not contain the word `{word}`"),
            Self::Encode { tokenizer, reason } => {
                write!(f, "the tokenizer {tokenizer} cannot encode the text: {reason}")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // Its message is the whole one of this error.
            Self::File(error) => error.source(),
            _ => None,
        }
    }
}

impl From<FileError> for Error {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}
