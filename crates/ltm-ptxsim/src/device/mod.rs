//! The limits of simulated devices, and how many blocks they hold. Knows nothing of kernels.

mod occupancy;

pub(crate) use occupancy::RESERVED_SHARED_BYTES;
pub use occupancy::{Multiprocessor, Occupancy, Resource};

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
    /// What each multiprocessor has.
    pub multiprocessor: Multiprocessor,
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
            multiprocessor: Multiprocessor::SM_80,
        }
    }

    /// Limits of compute capability 9.0.
    pub fn sm_90() -> Self {
        Self {
            compute_capability: (9, 0),
            multiprocessors: 132,
            shared_per_block_optin: 227 << 10,
            multiprocessor: Multiprocessor { shared_bytes: 228 << 10, ..Multiprocessor::SM_80 },
            ..Self::sm_80()
        }
    }

    /// Limits of compute capability 10.0.
    pub fn sm_100() -> Self {
        Self { compute_capability: (10, 0), multiprocessors: 148, ..Self::sm_90() }
    }
}
