//! The fast CPU implementation: rows are copied in parallel; the gradient is divided by rows of the
//! table.

use rayon::prelude::*;

use super::EmbeddingDims;
use crate::ops::parallel::CHUNK;
use crate::simd::Factor;
use crate::{Float, simd};

pub(crate) fn fwd<T: Float, W: Factor<T>>(
    out: &mut [T],
    table: &[W],
    tokens: &[i32],
    dims: EmbeddingDims,
) {
    let c = dims.c;
    let rows = (CHUNK / c).max(1);
    out.par_chunks_mut(rows * c).zip(tokens.par_chunks(rows)).for_each(|(out, tokens)| {
        for (out_n, &token) in out.chunks_exact_mut(c).zip(tokens) {
            let row = &table[token as usize * c..][..c];
            out_n.iter_mut().zip(row).for_each(|(out, x)| *out = x.widen());
        }
    });
}

/// A task owns some rows of the table and scans all tokens for them: no two tasks write the same
/// row, and each row is summed in the order of the tokens.
pub(crate) fn bwd<T: Float>(dtable: &mut [T], dout: &[T], tokens: &[i32], dims: EmbeddingDims) {
    let c = dims.c;
    // Small enough to be zeroed in cache; few enough that scanning the tokens stays cheap.
    let rows = ((1 << 18) / c).min(dims.v.div_ceil(16)).max(1);
    dtable.par_chunks_mut(rows * c).enumerate().for_each(|(block, dtable)| {
        dtable.fill(T::ZERO);
        let first = block * rows;
        let own = first..first + dtable.len() / c;
        simd::dispatch(
            #[inline(always)]
            || {
                for (dout_n, &token) in dout.chunks_exact(c).zip(tokens) {
                    if own.contains(&(token as usize)) {
                        let row = (token as usize - first) * c;
                        simd::axpy(&mut dtable[row..row + c], T::ONE, dout_n);
                    }
                }
            },
        );
    });
}
