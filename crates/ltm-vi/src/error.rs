//! What can go wrong while fitting, scoring or generating: facts, not prose.

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An invalid argument, or an error of the model, its graph or a kernel.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A field of a configuration has an invalid value.
    Config {
        /// The field.
        field: &'static str,
        /// What the field must be.
        expected: &'static str,
        /// What it is.
        found: f64,
    },
    /// An argument of a call is invalid.
    Argument {
        /// The argument, as named in the signature.
        arg: &'static str,
        /// What the argument must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A prompt is longer than the context.
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens that the context holds.
        max_seq_len: usize,
    },
    /// No protocol has this name.
    UnknownProtocol {
        /// The name.
        name: String,
    },
    /// A method of inference, a model and what it is used for do not go together: see [`suits`](crate::suits).
    Unsuitable {
        /// The key of a configuration, or `protocol`.
        what: &'static str,
        /// What would suit; of a protocol, why it does not apply.
        expected: String,
        /// What was found.
        found: String,
    },
    /// Weight gradients were requested of a program that was made without them.
    NoSlowGradient,
    /// The observer of a fit stopped it.
    Stopped,
    /// The model's graph cannot be traced or run.
    Autodiff(ltm_autodiff::Error),
    /// The model rejected its configuration, weights or tokens.
    Model(ltm_model::Error),
    /// A kernel rejected its arguments.
    Kernel(ltm_kernels::Error),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config { field, expected, found } => {
                write!(f, "inference configuration: `{field}` must be {expected}, found {found}")
            }
            Self::Argument { arg, expected, found } => {
                write!(f, "`{arg}` must be {expected}, found {found}")
            }
            Self::PromptTooLong { tokens, max_seq_len } => {
                write!(
                    f,
                    "the prompt has {tokens} tokens, the model's context holds {max_seq_len}; shorten \
                     the prompt"
                )
            }
            Self::UnknownProtocol { name } => write!(
                f,
                "unknown protocol `{name}`; expected one of reconstruction, elbo-fitted-noise, \
                 elbo[:SAMPLES], iwae[:SAMPLES], prequential:STRIDE[:SAMPLES], \
                 prequential-shuffled:STRIDE[:SAMPLES], \
                 prequential-overlap:STRIDE[:SAMPLES], autoregressive, \
                 autoregressive-overlap:STRIDE, masked-diffusion[:MASKS]"
            ),
            Self::Unsuitable { what: "protocol", expected, found } => {
                write!(f, "protocol `{found}` {expected}")
            }
            Self::Unsuitable { what, expected, found } => {
                write!(f, "`{what}` must be {expected}, found {found}")
            }
            Self::NoSlowGradient => f.write_str(
                "the program computes no weight gradients; create it with SlowGradient::Final or \
                 SlowGradient::Trajectory",
            ),
            Self::Stopped => f.write_str("the observer stopped the fit"),
            Self::Autodiff(_) => f.write_str("the model's graph cannot be run"),
            Self::Model(_) => {
                f.write_str("invalid model configuration, weights or sampling options")
            }
            Self::Kernel(_) => f.write_str("a kernel rejected its arguments"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Autodiff(source) => Some(source),
            Self::Model(source) => Some(source),
            Self::Kernel(source) => Some(source),
            _ => None,
        }
    }
}

impl From<ltm_autodiff::Error> for Error {
    fn from(source: ltm_autodiff::Error) -> Self {
        Self::Autodiff(source)
    }
}

impl From<ltm_model::Error> for Error {
    fn from(source: ltm_model::Error) -> Self {
        Self::Model(source)
    }
}

impl From<ltm_kernels::Error> for Error {
    fn from(source: ltm_kernels::Error) -> Self {
        Self::Kernel(source)
    }
}

pub(crate) fn argument(
    arg: &'static str,
    expected: impl Into<String>,
    found: impl ToString,
) -> Error {
    Error::Argument { arg, expected: expected.into(), found: found.to_string() }
}

/// Refuses NaN and infinities.
pub(crate) fn check_finite(arg: &'static str, numbers: &[f32]) -> Result<()> {
    match numbers.iter().position(|number| !number.is_finite()) {
        Some(index) => Err(argument(arg, "finite", format!("{} at index {index}", numbers[index]))),
        None => Ok(()),
    }
}
