//! The fast CPU implementation: vectorised rows, all cores.

use rayon::prelude::*;

use super::SoftmaxDims;
use crate::ops::parallel::CHUNK;
use crate::{Float, simd};

pub(crate) fn fwd<T: Float>(out: &mut [T], x: &[T], dims: SoftmaxDims) {
    let c = dims.c;
    let block = (CHUNK / c).max(1) * c;
    out.par_chunks_mut(block).zip(x.par_chunks(block)).for_each(|(out, x)| {
        simd::dispatch(
            #[inline(always)]
            || {
                for (out_r, x_r) in out.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
                    let max = simd::max(x_r);
                    out_r.iter_mut().zip(x_r).for_each(|(out, &x)| *out = x - max);
                    simd::exp_slice(out_r);
                    let sum = simd::sum(out_r);
                    simd::scale(out_r, T::ONE / sum);
                }
            },
        );
    });
}

pub(crate) fn bwd<T: Float>(dx: &mut [T], dout: &[T], out: &[T], dims: SoftmaxDims) {
    let c = dims.c;
    let block = (CHUNK / c).max(1) * c;
    let inputs = dout.par_chunks(block).zip(out.par_chunks(block));
    dx.par_chunks_mut(block).zip(inputs).for_each(|(dx, (dout, out))| {
        simd::dispatch(
            #[inline(always)]
            || {
                let rows = dout.chunks_exact(c).zip(out.chunks_exact(c));
                for (dx_r, (dout_r, out_r)) in dx.chunks_exact_mut(c).zip(rows) {
                    let sum = simd::dot(dout_r, out_r);
                    for ((dx, &dout), &out) in dx_r.iter_mut().zip(dout_r).zip(out_r) {
                        *dx = out * (dout - sum);
                    }
                }
            },
        );
    });
}
