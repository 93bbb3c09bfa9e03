//! The device that holds buffers and runs ops, chosen at run time. Must not know any op.

use crate::cuda::Context;
use crate::{Error, Result};

/// A compute device.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Device {
    /// The CPU; ops run in rayon's current thread pool.
    Cpu,
    /// An NVIDIA GPU.
    Cuda(&'static Context),
}

impl Device {
    /// CUDA device number `ordinal`, opened on the first call.
    ///
    /// # Errors
    /// [`Error::NoDevice`] when there is no driver, no such device, or one older than sm_80.
    pub fn cuda(ordinal: usize) -> Result<Self> {
        Context::open(ordinal).map(Self::Cuda)
    }

    /// Runs `f` where ops have the least overhead: on the CPU, in a thread of rayon's current pool.
    /// An op called there computes part of its work itself; called from outside the pool, its
    /// thread would sleep until the pool is done.
    pub fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        match self {
            Self::Cpu => rayon::scope(|_| f()),
            Self::Cuda(_) => f(),
        }
    }

    /// Waits until all queued work is done; on the CPU there is none.
    ///
    /// # Errors
    /// [`Error::Cuda`] when some of the work failed.
    pub fn synchronize(&self) -> Result<()> {
        match self {
            Self::Cpu => Ok(()),
            Self::Cuda(context) => context.synchronize(),
        }
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Cpu, Self::Cpu) => true,
            (Self::Cuda(a), Self::Cuda(b)) => a.ordinal() == b.ordinal(),
            _ => false,
        }
    }
}

impl Eq for Device {}

impl std::str::FromStr for Device {
    type Err = Error;

    /// Parses `cpu`, `cuda` (the first one) or `cuda:<ordinal>`, and opens the device.
    ///
    /// # Errors
    /// [`Error::NoDevice`] when the name is unknown or the device cannot be opened.
    fn from_str(name: &str) -> Result<Self> {
        let ordinal = match name {
            "cpu" => return Ok(Self::Cpu),
            "cuda" => Some(0),
            _ => name.strip_prefix("cuda:").and_then(|ordinal| ordinal.parse().ok()),
        };
        let ordinal = ordinal.ok_or_else(|| Error::NoDevice {
            name: name.into(),
            reason: "expected `cpu`, `cuda` or `cuda:<ordinal>`".into(),
        })?;
        Self::cuda(ordinal)
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(context) => write!(f, "cuda:{}", context.ordinal()),
        }
    }
}
