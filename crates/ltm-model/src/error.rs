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
    /// Bytes are not a complete safetensors file: truncated, damaged, or of another kind.
    Format {
        /// The file, or what the caller calls the bytes.
        name: String,
        /// The parser's error.
        source: safetensors::SafeTensorError,
    },
    /// A file does not contain the weights of the configured model.
    File {
        /// The file, or what the caller calls its bytes.
        name: String,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// A tensor contains NaN or an infinity.
    NotFinite {
        /// The tensor.
        name: String,
        /// Index of the first such number, row-major.
        index: usize,
        /// The number; one of 64 bits may be too large for 32.
        value: f64,
    },
    /// The tensors of a file are others than those of the configured model.
    Tensors {
        /// Tensors of the model that the file does not have.
        missing: Vec<String>,
        /// Tensors that the model does not have, under their names in the file.
        unknown: Vec<String>,
        /// Tensors of the model that several tensors were renamed to, with the names of those in the file.
        doubled: Vec<(String, Vec<String>)>,
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
    /// A tensor is not stored as floats of 16, 32 or 64 bits.
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
    /// A graph cannot be traced or run.
    Autodiff(ltm_autodiff::Error),
}

/// The first of these names; a foreign file may have thousands.
struct Names<'a>(&'a [String]);

impl std::fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 8;
        for (i, name) in self.0.iter().take(SHOWN).enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}`{name}`")?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
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
            Self::Format { name, .. } => write!(f, "{name} is not a complete safetensors file"),
            Self::File { name, .. } => write!(f, "cannot use the weights in {name}"),
            Self::NotFinite { name, index, value } => write!(
                f,
                "tensor `{name}`: number {index} is {value:?}, expected finite numbers of 32 bits; \
                 use an earlier checkpoint"
            ),
            Self::Tensors { missing, unknown, doubled } => {
                if !missing.is_empty() {
                    write!(f, "missing tensors: {}; ", Names(missing))?;
                }
                if !unknown.is_empty() {
                    write!(f, "unknown tensors: {}; ", Names(unknown))?;
                }
                for (name, stored) in doubled {
                    write!(f, "several tensors are renamed to `{name}`: {}; ", Names(stored))?;
                }
                f.write_str(OTHER)
            }
            Self::TensorShape { name, expected, found } => {
                write!(f, "tensor `{name}`: expected shape {expected:?}, found {found:?}; {OTHER}")
            }
            Self::TensorType { name, found } => {
                write!(f, "tensor `{name}`: expected type F32, F16, BF16 or F64, found {found}")
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
            Self::Autodiff(_) => f.write_str("a graph cannot be traced or run"),
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
            Self::Autodiff(source) => Some(source),
            _ => None,
        }
    }
}

impl From<ltm_kernels::Error> for Error {
    fn from(source: ltm_kernels::Error) -> Self {
        Self::Kernel(source)
    }
}

impl From<ltm_autodiff::Error> for Error {
    fn from(error: ltm_autodiff::Error) -> Self {
        match error {
            ltm_autodiff::Error::Kernel(source) => Self::Kernel(source),
            source => Self::Autodiff(source),
        }
    }
}
