//! What can go wrong in an op: facts, not prose. Knows nothing of any op.

use crate::DType;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A caller's mistake, or a device that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A buffer's length disagrees with the op's dims.
    Shape {
        /// The op, as named in `ops/`.
        op: &'static str,
        /// The argument, as named in the op's signature.
        arg: &'static str,
        /// Elements that the dims ask for.
        expected: usize,
        /// Elements in the buffer.
        got: usize,
    },
    /// A buffer holds another type than the op needs there.
    DType {
        /// The type needed.
        expected: &'static str,
        /// The type found.
        got: DType,
    },
    /// The op's dims contradict themselves or break a limit.
    Dims {
        /// The op, as named in `ops/`.
        op: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// A token id or target lies outside the vocabulary.
    Index {
        /// The op, as named in `ops/`.
        op: &'static str,
        /// Position of the offending entry.
        position: usize,
        /// The entry.
        got: i64,
        /// The vocabulary size: valid entries are `0..limit`.
        limit: usize,
    },
    /// The device cannot be opened.
    NoDevice {
        /// The name asked for.
        name: String,
        /// Why, and what to do.
        reason: String,
    },
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Shape { op, arg, expected, got } => {
                write!(f, "{op}: `{arg}` needs {expected} elements, got {got}")
            }
            Self::DType { expected, got } => {
                write!(f, "expected a buffer of {expected}, got {got:?}")
            }
            Self::Dims { op, reason } => write!(f, "{op}: {reason}"),
            Self::Index { op, position, got, limit } => {
                write!(f, "{op}: entry {got} at position {position} is outside 0..{limit}")
            }
            Self::NoDevice { name, reason } => write!(f, "device `{name}`: {reason}"),
        }
    }
}

impl std::error::Error for Error {}
