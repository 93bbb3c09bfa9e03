//! What can go wrong between processes: facts, not prose. Each variant names the variable, the call or the rank at fault.

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An environment that names no place in a job, a library that is missing, or a process that is.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// A variable of the environment, as launchers set them, is missing or has an invalid value.
    Environment {
        /// Its name.
        variable: String,
        /// Valid values.
        expected: String,
        /// The value, or that it is not set.
        found: String,
    },
    /// Processes cannot be connected here.
    NoEngine {
        /// Why, and what to do.
        reason: String,
    },
    /// A call of MPI or NCCL failed.
    Call {
        /// The function.
        call: String,
        /// What the library says.
        reason: String,
    },
    /// A process did not answer in time.
    Missing {
        /// Its rank, or several.
        ranks: Vec<usize>,
        /// How long it was waited for.
        seconds: u64,
        /// What was waited for.
        during: &'static str,
    },
    /// A process says what this one cannot read.
    Foreign {
        /// Its rank.
        rank: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process failed.
    Elsewhere {
        /// Its rank.
        rank: usize,
        /// Its error.
        message: String,
    },
    /// Buffers that cannot be summed, or a device that failed.
    Kernel(ltm_kernels::Error),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Environment { variable, expected, found } => {
                write!(f, "the environment variable {variable}: expected {expected}, found {found}")
            }
            Self::NoEngine { reason } => {
                write!(f, "the processes of this job cannot be connected: {reason}")
            }
            Self::Call { call, reason } => write!(f, "{call}: {reason}"),
            Self::Missing { ranks, seconds, during } => {
                let ranks: Vec<_> = ranks.iter().map(usize::to_string).collect();
                let ranks = ranks.join(", ");
                write!(f, "rank {ranks} did not answer within {seconds} s, during {during}; ")?;
                write!(f, "look at what it printed; {TIMEOUT}=SECONDS waits longer")
            }
            Self::Foreign { rank, reason } => {
                write!(
                    f,
                    "rank {rank} is another program, or another version of this one: {reason}"
                )
            }
            Self::Elsewhere { rank, message } => write!(f, "rank {rank} failed: {message}"),
            Self::Kernel(_) => f.write_str("the sum over processes failed"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
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

/// The variable that says how many seconds a process waits for another.
pub const TIMEOUT: &str = "LTM_TIMEOUT";
