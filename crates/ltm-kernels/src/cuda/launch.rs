//! Geometry and arguments of a kernel launch. Must not know the driver or any op.

use crate::{Error, Result};

/// The most arguments of a kernel.
pub(crate) const MAX_ARGUMENTS: usize = 24;

/// The geometry of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads per block along x, y and z.
    pub block: [u32; 3],
    /// Dynamic shared memory per block, in bytes.
    pub smem_bytes: u32,
}

impl Geometry {
    /// At least one block of 256 threads in a row, together at least `n` threads, up to the 2³¹ - 1 blocks that a
    /// device takes: for kernels with a thread per element, which guard against those past the end, or go on in
    /// steps of the grid.
    pub fn threads(n: usize) -> Self {
        let blocks = n.div_ceil(256).clamp(1, i32::MAX as usize);
        Self { grid: [blocks as u32, 1, 1], block: [256, 1, 1], smem_bytes: 0 }
    }
}

/// One argument of a kernel, by value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arg {
    /// An address on the device.
    Ptr(u64),
    I32(i32),
    U32(u32),
    I64(i64),
    F32(f32),
    F64(f64),
}

impl Arg {
    /// An extent or stride as the 32-bit integer that kernels take.
    ///
    /// # Errors
    /// [`Error::Dims`] when it does not fit.
    pub fn extent(op: &'static str, extent: usize) -> Result<Self> {
        i32::try_from(extent).map(Self::I32).map_err(|_| Error::Dims {
            op,
            reason: format!("an extent of {extent} does not fit the 32 bits of a CUDA kernel"),
        })
    }

    /// The address of the value, from which the driver copies it.
    pub fn address(&self) -> *mut std::ffi::c_void {
        let address: *const std::ffi::c_void = match self {
            Self::Ptr(x) => std::ptr::from_ref(x).cast(),
            Self::I32(x) => std::ptr::from_ref(x).cast(),
            Self::U32(x) => std::ptr::from_ref(x).cast(),
            Self::I64(x) => std::ptr::from_ref(x).cast(),
            Self::F32(x) => std::ptr::from_ref(x).cast(),
            Self::F64(x) => std::ptr::from_ref(x).cast(),
        };
        address.cast_mut()
    }
}
