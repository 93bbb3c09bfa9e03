//! The errors of tracing, differentiating and replaying.

use std::ops::RangeInclusive;

use crate::precision::Precision;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A mistake in a graph, or an error of an op while it ran.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// An op refused its buffers or its device, or memory ran out. Displayed as the kernel's own error,
    /// to which nothing is added.
    Kernel(ltm_kernels::Error),
    /// An op cannot be traced on inputs of these shapes.
    Shape {
        /// The op's name.
        op: &'static str,
        /// What was found and what would fit.
        reason: String,
    },
    /// A gradient that the op does not define was requested; nothing is dropped silently.
    NoGradient {
        /// The op's name.
        op: &'static str,
        /// Position of the input (or of the output, for a loss through an auxiliary output).
        position: usize,
    },
    /// The loss does not depend on a value whose gradient was requested.
    Unreachable {
        /// Position in the list of values.
        position: usize,
    },
    /// A gradient of something that is not one number was requested.
    NotScalar {
        /// The loss's shape.
        shape: Vec<usize>,
    },
    /// An input was read before anything was written to it.
    Unwritten {
        /// The input's name.
        name: String,
    },
    /// A value is not an input of the graph, or not an output of the plan.
    Unknown {
        /// What the value is not.
        what: &'static str,
    },
    /// A value or a store belongs to another graph.
    OtherGraph {
        /// Which one.
        what: String,
    },
    /// An operation has too many inputs or outputs, or no output.
    Limit {
        /// The op's name.
        op: &'static str,
        /// `inputs` or `outputs`.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many there may be.
        limits: RangeInclusive<usize>,
    },
    /// A gradient rule returned gradients of the wrong number, shape or kind.
    Gradient {
        /// The op's name.
        op: &'static str,
        /// What was expected and what was found.
        reason: String,
    },
    /// A device does not compute in this precision.
    Precision {
        /// The precision.
        precision: Precision,
        /// The device's name.
        device: String,
    },
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Kernel(error) => error.fmt(f),
            Self::Shape { op, reason } => write!(f, "{op}: {reason}"),
            Self::NoGradient { op, position } => {
                write!(f, "{op}: no gradient is defined for position {position}")
            }
            Self::Unreachable { position } => write!(
                f,
                "the loss does not depend on value {position} of `wrt`, the values to differentiate by"
            ),
            Self::NotScalar { shape } => {
                write!(f, "the loss must be a single number, found shape {shape:?}")
            }
            Self::Unwritten { name } => write!(f, "input `{name}` was never written"),
            Self::Unknown { what } => write!(f, "the value is not {what}"),
            Self::OtherGraph { what } => write!(f, "{what} belongs to another graph"),
            Self::Limit { op, what, found, limits } => {
                let (least, most) = (limits.start(), limits.end());
                write!(f, "{op}: expected {least} to {most} {what}, got {found}")
            }
            Self::Gradient { op, reason } => write!(f, "gradient of {op}: {reason}"),
            Self::Precision { precision, device } => {
                let Precision { float, activation, matmul_weight } = precision;
                write!(
                    f,
                    "{device} does not compute with floats of {float}, activations of \
                     {activation} and matrix-product weights of {matmul_weight}; see \
                     `Precision::fits` for what each device has"
                )
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Kernel(error) => error.source(),
            _ => None,
        }
    }
}

impl From<ltm_kernels::Error> for Error {
    fn from(error: ltm_kernels::Error) -> Self {
        Self::Kernel(error)
    }
}
