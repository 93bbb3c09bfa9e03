//! How many blocks a CUDA kernel is launched with. Knows no op.

use crate::cuda::Geometry;

/// Threads of a block, where a kernel has no reason for another number.
pub(crate) const THREADS: usize = 256;

/// The most blocks that share out elements in a loop: far more than run at once.
const MAX_BLOCKS: usize = 1 << 14;

/// `blocks` blocks of [`THREADS`] threads.
pub(crate) fn blocks(blocks: usize) -> Geometry {
    let blocks = u32::try_from(blocks).expect("extents of a launch are checked to fit 31 bits");
    Geometry { grid: [blocks, 1, 1], block: [THREADS as u32, 1, 1], smem_bytes: 0 }
}

/// Blocks whose threads take `per_thread` elements each and go on in steps of the grid: as many as
/// `n` elements keep busy. At least one, as a launch of none is an error.
pub(crate) fn elements(n: usize, per_thread: usize) -> Geometry {
    blocks(n.div_ceil(per_thread * THREADS).clamp(1, MAX_BLOCKS))
}
