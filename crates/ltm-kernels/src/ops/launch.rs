//! How many blocks a CUDA kernel is launched with. Must not know any op.

use crate::cuda::Geometry;

/// Threads per block, unless a kernel needs another number.
pub(crate) const THREADS: usize = 256;

/// Maximum blocks of a grid-stride loop: far more than run at once.
const MAX_BLOCKS: usize = 1 << 14;

/// `blocks` blocks of [`THREADS`] threads.
pub(crate) fn blocks(blocks: usize) -> Geometry {
    let blocks = u32::try_from(blocks).expect("extents of a launch are checked to fit 31 bits");
    Geometry { grid: [blocks, 1, 1], block: [THREADS as u32, 1, 1], smem_bytes: 0 }
}

/// Blocks of a grid-stride loop in which a thread handles `per_thread` elements per step: as many
/// as `n` elements can use, and at least one, since an empty launch is an error.
pub(crate) fn elements(n: usize, per_thread: usize) -> Geometry {
    blocks(n.div_ceil(per_thread * THREADS).clamp(1, MAX_BLOCKS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::cuda::Arg;

    #[test]
    fn there_is_a_block_and_there_are_not_too_many() {
        let x = |n, per_thread| elements(n, per_thread).grid[0];
        assert_eq!([x(0, 8), x(1, 8), x(2048, 8), x(2049, 8), x(2049, 1)], [1, 1, 1, 2, 9]);
        assert_eq!([x(usize::MAX, 1), x(usize::MAX, 8)], [MAX_BLOCKS as u32; 2]);
    }

    #[test]
    fn an_extent_past_31_bits_is_refused() {
        assert!(matches!(Arg::extent("op", (1 << 31) - 1), Ok(Arg::I32(i32::MAX))));
        let refused = Arg::extent("op", 1 << 31);
        assert!(matches!(refused, Err(Error::Dims { op: "op", .. })), "{refused:?}");
    }
}
