//! What can go wrong while fitting, scoring or generating: facts, not prose.

use ltm_model::Attention;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A caller's mistake, or an error of a layer below.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A field of a configuration breaks its rule.
    Config {
        /// The field.
        field: &'static str,
        /// What the field must be.
        expected: &'static str,
        /// What it is.
        found: f64,
    },
    /// An argument of a call breaks its rule.
    Argument {
        /// The argument, as named in the signature.
        arg: &'static str,
        /// What the argument must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A prompt does not fit into the context.
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
    /// A protocol that does not apply: see [`Protocol::check`](crate::Protocol::check).
    Protocol {
        /// The protocol's name.
        protocol: &'static str,
        /// Latent vectors of the model.
        n_latents: usize,
        /// What its tokens see.
        attention: Attention,
    },
    /// A protocol that needs the latents' density, asked for after a method that has none.
    NoDensity {
        /// The protocol's name.
        protocol: &'static str,
    },
    /// An engine was asked for weight gradients that it was not made for.
    NoSlowGradient,
    /// The observer of a fit ended it.
    Stopped,
    /// The graph could not be traced or run.
    Autodiff(ltm_autodiff::Error),
    /// The model refused its configuration, weights or tokens.
    Model(ltm_model::Error),
    /// An op refused its arguments.
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
                write!(f, "the prompt has {tokens} tokens, the context holds {max_seq_len}")
            }
            Self::UnknownProtocol { name } => write!(
                f,
                "no protocol is named `{name}`; there are reconstruction, elbo-fitted-noise, \
                 elbo[:SAMPLES], iwae[:SAMPLES], prequential:STRIDE[:SAMPLES], \
                 prequential-overlap:STRIDE[:SAMPLES], autoregressive, \
                 autoregressive-overlap:STRIDE and masked-diffusion[:MASKS]"
            ),
            Self::Protocol { protocol, attention: Attention::Bidirectional, .. } => {
                write!(
                    f,
                    "protocol `{protocol}` does not apply to bidirectional attention; use \
                     `masked-diffusion`"
                )
            }
            Self::Protocol { protocol: "masked-diffusion", .. } => f.write_str(
                "protocol `masked-diffusion` is for models with attention = \"bidirectional\"",
            ),
            Self::Protocol { protocol, n_latents: 0, .. } => {
                write!(
                    f,
                    "protocol `{protocol}` needs latents; use `autoregressive` or `prequential` \
                     without them"
                )
            }
            Self::Protocol { protocol, n_latents, .. } => {
                write!(
                    f,
                    "protocol `{protocol}` does not apply to a model of {n_latents} latents; use \
                     `prequential`, which may be compared with it"
                )
            }
            Self::NoDensity { protocol } => write!(
                f,
                "protocol `{protocol}` needs a density of the latents, and Langevin dynamics gives \
                 only a sample; use `reconstruction`, or score the same weights with a fitted \
                 Gaussian by infer.method=variational"
            ),
            Self::NoSlowGradient => {
                f.write_str("the engine was made without weight gradients (SlowGradient::None)")
            }
            Self::Stopped => f.write_str("the observer stopped the fit"),
            Self::Autodiff(_) => f.write_str("the graph could not be traced or run"),
            Self::Model(_) => f.write_str("the model refused its input"),
            Self::Kernel(_) => f.write_str("a kernel refused its arguments"),
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
