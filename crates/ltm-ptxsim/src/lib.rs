#![doc = include_str!("../README.md")]

mod access;
mod alu;
mod block;
mod builtin;
mod convert;
mod counters;
mod decode;
mod defined;
mod driver;
mod exchange;
mod exec;
mod fault;
mod fences;
mod float;
mod inst;
mod memory;
mod mma;
mod occupancy;
mod order;
mod output;
mod parse;
mod program;
mod rounding;
mod shared;
mod target;
mod warp;

pub use block::launch;
pub use counters::{Class, Counters};
pub use fault::{Fault, FaultKind, OtherAccess, ParseError};
pub use memory::{Memory, MemoryError};
pub use occupancy::{Occupancy, Resource};
pub use output::Output;
pub use program::{Entry, Module, Param, Program};

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
    /// [`FaultKind::Endless`]. The limit is checked between turns of a warp, each of at most 256
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

/// The limits of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceModel {
    /// Major and minor compute capability.
    pub compute_capability: (u32, u32),
    /// Number of multiprocessors.
    pub multiprocessors: u32,
    /// Maximum threads per block.
    pub max_threads_per_block: u32,
    /// Maximum threads per block along x, y and z.
    pub max_block: [u32; 3],
    /// Maximum blocks per grid along x, y and z.
    pub max_grid: [u32; 3],
    /// Maximum shared memory per block without opting in to more, in bytes.
    pub shared_per_block: u32,
    /// Maximum shared memory per block after opting in, in bytes.
    pub shared_per_block_optin: u32,
    /// Shared memory per multiprocessor, in bytes.
    pub shared_per_multiprocessor: u32,
    /// 32-bit registers per multiprocessor.
    pub registers_per_multiprocessor: u32,
    /// Maximum resident threads per multiprocessor.
    pub threads_per_multiprocessor: u32,
    /// Maximum resident blocks per multiprocessor.
    pub blocks_per_multiprocessor: u32,
}

impl DeviceModel {
    /// Limits of compute capability 8.0.
    pub fn sm_80() -> Self {
        Self {
            compute_capability: (8, 0),
            multiprocessors: 108,
            max_threads_per_block: 1024,
            max_block: [1024, 1024, 64],
            max_grid: [0x7fff_ffff, 65535, 65535],
            shared_per_block: 48 << 10,
            shared_per_block_optin: 163 << 10,
            shared_per_multiprocessor: 164 << 10,
            registers_per_multiprocessor: 65536,
            threads_per_multiprocessor: 2048,
            blocks_per_multiprocessor: 32,
        }
    }

    /// Limits of compute capability 9.0.
    pub fn sm_90() -> Self {
        Self {
            compute_capability: (9, 0),
            multiprocessors: 132,
            shared_per_block_optin: 227 << 10,
            shared_per_multiprocessor: 228 << 10,
            ..Self::sm_80()
        }
    }

    /// Limits of compute capability 10.0.
    pub fn sm_100() -> Self {
        Self { compute_capability: (10, 0), multiprocessors: 148, ..Self::sm_90() }
    }
}
