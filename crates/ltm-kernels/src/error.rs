//! The errors of ops. Must not know any op.

use crate::DType;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of an op: an invalid argument, or an unavailable device or memory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A buffer's length disagrees with the dims.
    Shape {
        /// The op, as named in `ops/`.
        op: &'static str,
        /// The argument, as named in the op's signature.
        arg: &'static str,
        /// Elements that the dims require.
        expected: usize,
        /// Elements in the buffer.
        got: usize,
    },
    /// A buffer has the wrong element type for its argument.
    DType {
        /// The expected type.
        expected: &'static str,
        /// The type found.
        got: DType,
    },
    /// The dims are inconsistent or exceed a limit.
    Dims {
        /// The op, as named in `ops/`.
        op: &'static str,
        /// What is wrong, and what is allowed.
        reason: String,
    },
    /// A token id or target is outside the vocabulary.
    Index {
        /// The op, as named in `ops/`.
        op: &'static str,
        /// Index of the invalid entry.
        position: usize,
        /// The invalid value.
        got: i64,
        /// The vocabulary size: valid entries are `0..limit`.
        limit: usize,
    },
    /// The device cannot be opened.
    NoDevice {
        /// The requested name.
        name: String,
        /// Why, and what to do.
        reason: String,
    },
    /// A buffer is on a different device than the op runs on.
    WrongDevice {
        /// The device that the op runs on.
        expected: String,
        /// The device that holds the buffer.
        got: String,
    },
    /// The requested rung does not exist for the op, or one of its `needs` is not met.
    Unsupported {
        /// The op, as named in `ops/`.
        op: &'static str,
        /// The rung.
        rung: u32,
        /// The unmet line of its contract.
        need: &'static str,
    },
    /// The device has too little free memory for another buffer.
    OutOfMemory {
        /// The device's name.
        device: String,
        /// Bytes requested.
        size_bytes: usize,
    },
    /// The CUDA driver or compiler reported an error.
    Cuda {
        /// The call that failed.
        call: String,
        /// The library's own message.
        reason: String,
    },
    /// A kernel did not compile.
    Compile {
        /// The kernel's file or the program's name.
        file: String,
        /// The architecture it was compiled for.
        architecture: String,
        /// The compiler's log.
        log: String,
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
            Self::WrongDevice { expected, got } => {
                write!(f, "expected a buffer on {expected}, got one on {got}")
            }
            Self::Unsupported { op, rung, need } => {
                write!(f, "{op}: rung {rung} needs {need}")
            }
            Self::OutOfMemory { device, size_bytes } => write!(
                f,
                "{device}: out of memory allocating {size_bytes} bytes; a smaller batch needs less"
            ),
            Self::Cuda { call, reason } => write!(f, "cuda: {call}: {reason}"),
            Self::Compile { file, architecture, log } => {
                write!(f, "{file} does not compile for {architecture}:\n{log}")
            }
        }
    }
}

impl std::error::Error for Error {}
