//! What a caller decides about a launch: its shape, its checks, where its text goes. Must not know how it runs.

use std::fmt;
use std::sync::Arc;

use crate::device::DeviceModel;

/// The grid, the block and the dynamic shared memory of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchConfig {
    /// Number of blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads per block along x, y and z.
    pub block: [u32; 3],
    /// Dynamic shared memory per block, in bytes, in addition to the kernel's `.shared` variables.
    pub dynamic_shared_bytes: u32,
}

/// When the bytes of an asynchronous copy (`cp.async`) arrive. Hardware may do either, so a correct
/// kernel works with both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsyncCopies {
    /// Immediately: reveals a copy into memory that is still being read.
    Eager,
    /// At the wait that covers the copy: reveals a missing wait.
    Deferred,
}

/// How a launch is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seed of the random order in which the warps of a block run.
    pub seed: u64,
    /// When asynchronous copies arrive.
    pub async_copies: AsyncCopies,
    /// Host threads that run blocks in parallel.
    pub threads: usize,
    /// Whether races are detected.
    pub races: bool,
    /// Warp instructions that one block may issue before the launch fails with
    /// [`FaultKind::Endless`](crate::FaultKind). The limit is checked between turns of a warp, each of at most 256
    /// instructions.
    pub max_steps: u64,
    /// The limits of the simulated device.
    pub device: DeviceModel,
    /// Receives the text of the kernel's `printf`; by default it is discarded.
    pub output: Output,
}

impl Options {
    /// The default of `max_steps`: a block in an infinite loop reaches it within minutes.
    pub const MAX_STEPS: u64 = 1 << 33;
}

impl Default for Options {
    /// All checks, one host thread, a device of compute capability 8.0.
    fn default() -> Self {
        Self {
            seed: 0,
            async_copies: AsyncCopies::Deferred,
            threads: 1,
            races: true,
            max_steps: Self::MAX_STEPS,
            device: DeviceModel::sm_80(),
            output: Output::default(),
        }
    }
}

/// A sink for the text of a kernel's `printf`, called once per printing thread.
#[derive(Clone)]
pub struct Output(Arc<dyn Fn(&str) + Send + Sync>);

impl Output {
    /// Passes the text to this function, which may be called from several threads at once.
    pub fn new(print: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(print))
    }

    pub(crate) fn print(&self, text: &str) {
        (self.0)(text);
    }
}

impl Default for Output {
    /// Discards the text.
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Output(…)")
    }
}
