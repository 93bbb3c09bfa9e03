//! What can go wrong while tracing, differentiating or replaying: facts, not prose.

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A mistake in a graph, or an error of an op while it ran.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// An op refused its buffers or its device.
    Kernel(ltm_kernels::Error),
    /// An op cannot be traced on inputs of these shapes.
    Shape {
        /// The op's name.
        op: &'static str,
        /// What was found and what would fit.
        reason: String,
    },
    /// A gradient was asked for that the op does not define; nothing is dropped in silence.
    NoGradient {
        /// The op's name.
        op: &'static str,
        /// Position of the input (or of the output, for a loss through an auxiliary output).
        position: usize,
    },
    /// The loss does not depend on a value whose gradient was asked for.
    Unreachable {
        /// Position in the list of values asked for.
        position: usize,
    },
    /// A gradient was asked of something that is not one number.
    NotScalar {
        /// The loss's shape.
        shape: Vec<usize>,
    },
    /// An input was read before anything was written to it.
    Unwritten {
        /// The input's name.
        name: String,
    },
    /// A value was used with a store or plan that does not hold it.
    Unknown {
        /// What was asked for.
        what: &'static str,
    },
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kernel(_) => write!(f, "an op failed"),
            Self::Shape { op, reason } => write!(f, "{op}: {reason}"),
            Self::NoGradient { op, position } => {
                write!(f, "{op}: no gradient is defined for position {position}")
            }
            Self::Unreachable { position } => {
                write!(f, "the loss does not depend on value {position} of those asked for")
            }
            Self::NotScalar { shape } => {
                write!(f, "the loss must be one number, its shape is {shape:?}")
            }
            Self::Unwritten { name } => write!(f, "input `{name}` was never written"),
            Self::Unknown { what } => write!(f, "{what} is not held here"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Kernel(error) => Some(error),
            _ => None,
        }
    }
}

impl From<ltm_kernels::Error> for Error {
    fn from(error: ltm_kernels::Error) -> Self {
        Self::Kernel(error)
    }
}
