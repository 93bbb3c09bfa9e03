//! Where buffers live and ops run, chosen at run time. Knows nothing of any op.

use crate::{Error, Result};

/// A compute device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Device {
    /// The host's cores, shared through rayon's current thread pool.
    Cpu,
}

impl std::str::FromStr for Device {
    type Err = Error;

    /// Parses `cpu` or `cuda:<ordinal>`.
    ///
    /// # Errors
    /// [`Error::NoDevice`] when the name is unknown or this build cannot open the device.
    fn from_str(name: &str) -> Result<Self> {
        let is_cuda = name == "cuda"
            || name.strip_prefix("cuda:").is_some_and(|ordinal| ordinal.parse::<u32>().is_ok());
        match name {
            "cpu" => Ok(Self::Cpu),
            _ if is_cuda => Err(Error::NoDevice {
                name: name.into(),
                reason: "this version runs on the CPU only; use --device cpu".into(),
            }),
            _ => Err(Error::NoDevice {
                name: name.into(),
                reason: "expected `cpu` or `cuda:<ordinal>`".into(),
            }),
        }
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
        }
    }
}
