//! The fast CPU implementation: blocks of positions in parallel.

use rayon::prelude::*;

use super::RopeDims;
use crate::ops::parallel::CHUNK;
use crate::{Float, simd};

/// Rotates by `sign` times each position's angle: `sign` is 1 forward and -1 backward.
pub(crate) fn rotate<T: Float>(out: &mut [T], x: &[T], table: &[T], sign: T, dims: RopeDims) {
    let (d, row) = (dims.d, dims.h * dims.d);
    let rows = (CHUNK / row).max(1);
    let blocks = out.par_chunks_mut(rows * row).zip(x.par_chunks(rows * row));
    blocks.enumerate().for_each(|(block, (out, x))| {
        simd::dispatch(
            #[inline(always)]
            || {
                for (i, (out_bt, x_bt)) in
                    out.chunks_exact_mut(row).zip(x.chunks_exact(row)).enumerate()
                {
                    let t = (block * rows + i) % dims.t;
                    let angles = &table[t * d..(t + 1) * d];
                    for (out_h, x_h) in out_bt.chunks_exact_mut(d).zip(x_bt.chunks_exact(d)) {
                        let pairs = out_h.chunks_exact_mut(2).zip(x_h.chunks_exact(2));
                        for ((out, x), angle) in pairs.zip(angles.chunks_exact(2)) {
                            let (cos, sin) = (angle[0], sign * angle[1]);
                            out[0] = x[0] * cos - x[1] * sin;
                            out[1] = x[0] * sin + x[1] * cos;
                        }
                    }
                }
            },
        );
    });
}
