//! What can go wrong with a configuration, a checkpoint or a decoder: facts, not prose.

use std::path::PathBuf;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An invalid argument or an invalid file.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// A field of a configuration has an invalid value.
    Config {
        /// The field.
        field: &'static str,
        /// What the field must be.
        expected: String,
        /// What it is.
        found: String,
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
    /// A file cannot be read or written.
    Io {
        /// The file.
        path: PathBuf,
        /// The error that the operating system returned.
        source: std::io::Error,
    },
    /// A file is not a complete safetensors file: truncated, damaged, or of another kind.
    Format {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        source: safetensors::SafeTensorError,
    },
    /// A file does not contain the weights of the configured model.
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// A tensor contains NaN or an infinity.
    NotFinite {
        /// The tensor.
        name: String,
        /// Index of the first such number, row-major.
        index: usize,
        /// The number.
        value: f32,
    },
    /// A checkpoint lacks a tensor of the configured model.
    MissingTensor {
        /// The tensor.
        name: String,
    },
    /// A checkpoint has a tensor that the configured model does not.
    ExtraTensor {
        /// The tensor.
        name: String,
    },
    /// The shape of a tensor differs from that of the configured model.
    TensorShape {
        /// The tensor.
        name: String,
        /// The shape according to the configuration.
        expected: Vec<usize>,
        /// The shape in the file or the weights.
        found: Vec<usize>,
    },
    /// A tensor is not stored as 32-bit floats.
    TensorType {
        /// The tensor.
        name: String,
        /// The type in the file.
        found: String,
    },
    /// A stored output matrix differs from the embedding that it is tied to.
    Untied {
        /// The tensor.
        name: String,
    },
    /// The tokens would exceed the context.
    ContextFull {
        /// Tokens already decoded.
        position: usize,
        /// Tokens to add.
        added: usize,
        /// Length of the context in tokens.
        max_seq_len: usize,
    },
    /// The logits do not define a distribution.
    Logits {
        /// Position of the first offending entry.
        token: usize,
        /// The entry.
        found: f32,
    },
    /// A kernel rejected its arguments.
    Kernel(ltm_kernels::Error),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const OTHER: &str = "the file may be that of another configuration";
        match self {
            Self::Config { field, expected, found } => {
                write!(f, "configuration: `{field}` must be {expected}, found {found}")
            }
            Self::Argument { arg, expected, found } => {
                write!(f, "`{arg}` must be {expected}, found {found}")
            }
            Self::Io { path, .. } => write!(f, "cannot access {}", path.display()),
            Self::Format { path, .. } => {
                write!(f, "{} is not a complete safetensors file", path.display())
            }
            Self::File { path, .. } => write!(f, "cannot use the weights in {}", path.display()),
            Self::NotFinite { name, index, value } => write!(
                f,
                "tensor `{name}`: number {index} is {value}, expected finite numbers; \
                 use an earlier checkpoint"
            ),
            Self::MissingTensor { name } => write!(f, "tensor `{name}` is missing; {OTHER}"),
            Self::ExtraTensor { name } => {
                write!(f, "tensor `{name}` is not one of the model's; {OTHER}")
            }
            Self::TensorShape { name, expected, found } => {
                write!(f, "tensor `{name}`: expected shape {expected:?}, found {found:?}; {OTHER}")
            }
            Self::TensorType { name, found } => {
                write!(f, "tensor `{name}`: expected type F32, found {found}")
            }
            Self::Untied { name } => {
                write!(
                    f,
                    "tensor `{name}` differs from `tok_embeddings.weight`; expected equal numbers, because \
                     the model ties the two"
                )
            }
            Self::ContextFull { position, added, max_seq_len } => {
                write!(
                    f,
                    "the context holds {max_seq_len} tokens; {position} are decoded and {added} more do \
                     not fit"
                )
            }
            Self::Logits { token, found } => {
                write!(f, "the logit of token {token} is {found}, expected a finite number")
            }
            Self::Kernel(_) => f.write_str("a kernel rejected its arguments"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Format { source, .. } => Some(source),
            Self::File { source, .. } => Some(source),
            Self::Kernel(source) => Some(source),
            _ => None,
        }
    }
}

impl From<ltm_kernels::Error> for Error {
    fn from(source: ltm_kernels::Error) -> Self {
        Self::Kernel(source)
    }
}
