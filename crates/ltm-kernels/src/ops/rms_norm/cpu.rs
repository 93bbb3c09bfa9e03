//! The fast CPU implementation: blocks of rows in parallel; a row stays in cache for both passes.

use rayon::prelude::*;

use super::RmsNormDims;
use crate::ops::parallel::CHUNK;
use crate::{Float, simd};

#[inline(always)]
fn inverse_rms<T: Float>(x_r: &[T], eps: T) -> T {
    T::ONE / (simd::dot(x_r, x_r) / T::from_f64(x_r.len() as f64) + eps).sqrt()
}

/// Elements per task, in whole rows.
fn block_len(c: usize) -> usize {
    (CHUNK / c).max(1) * c
}

pub(crate) fn fwd<T: Float>(out: &mut [T], x: &[T], weight: &[T], eps: T, dims: RmsNormDims) {
    let (c, block) = (dims.c, block_len(dims.c));
    let blocks = out.par_chunks_mut(block).zip(x.par_chunks(block));
    blocks.for_each(|(out, x)| {
        simd::dispatch(
            #[inline(always)]
            || {
                for (out_r, x_r) in out.chunks_exact_mut(c).zip(x.chunks_exact(c)) {
                    let inverse = inverse_rms(x_r, eps);
                    for ((out, &x), &weight) in out_r.iter_mut().zip(x_r).zip(weight) {
                        *out = x * inverse * weight;
                    }
                }
            },
        );
    });
}

/// As [`fwd`]; each block of the sum is normalised while it is in cache.
pub(crate) fn fwd_add<T: Float>(
    sum: &mut [T],
    out: &mut [T],
    x: &[T],
    residual: &[T],
    weight: &[T],
    eps: T,
    dims: RmsNormDims,
) {
    let block = block_len(dims.c);
    let ins = x.par_chunks(block).zip(residual.par_chunks(block));
    let blocks = sum.par_chunks_mut(block).zip(out.par_chunks_mut(block)).zip(ins);
    blocks.for_each(|((sum, out), (x, residual))| {
        simd::dispatch(
            #[inline(always)]
            || {
                for ((sum, &x), &residual) in sum.iter_mut().zip(x).zip(residual) {
                    *sum = x + residual;
                }
            },
        );
        fwd(out, sum, weight, eps, dims);
    });
}

pub(crate) fn bwd_x<T: Float>(
    dx: &mut [T],
    dout: &[T],
    x: &[T],
    weight: &[T],
    dresidual: Option<&[T]>,
    eps: T,
    dims: RmsNormDims,
) {
    let (c, block) = (dims.c, block_len(dims.c));
    let blocks = dx.par_chunks_mut(block).zip(dout.par_chunks(block)).zip(x.par_chunks(block));
    blocks.enumerate().for_each(|(i, ((dx, dout), x))| {
        let dresidual = dresidual.map(|dresidual| &dresidual[i * block..][..dx.len()]);
        simd::dispatch(
            #[inline(always)]
            || {
                let rows = dx.chunks_exact_mut(c).zip(dout.chunks_exact(c)).zip(x.chunks_exact(c));
                for ((dx_r, dout_r), x_r) in rows {
                    let inverse = inverse_rms(x_r, eps);
                    for ((dx, &dout), &weight) in dx_r.iter_mut().zip(dout_r).zip(weight) {
                        *dx = dout * weight;
                    }
                    let mean = simd::dot(dx_r, x_r) / T::from_f64(c as f64);
                    let pull = mean * inverse * inverse;
                    for (dx, &x) in dx_r.iter_mut().zip(x_r) {
                        *dx = inverse * (*dx - x * pull);
                    }
                }
                if let Some(dresidual) = dresidual {
                    simd::axpy(dx, T::ONE, dresidual);
                }
            },
        );
    });
}

/// Each block of rows sums into its own partial row in `scratch`; the partials are added in order.
pub(crate) fn bwd_weight<T: Float>(
    dweight: &mut [T],
    scratch: &mut [T],
    dout: &[T],
    x: &[T],
    eps: T,
    dims: RmsNormDims,
) {
    let (c, block) = (dims.c, dims.rows_per_block() * dims.c);
    let blocks = scratch.par_chunks_mut(c).zip(dout.par_chunks(block)).zip(x.par_chunks(block));
    blocks.for_each(|((partial, dout), x)| {
        simd::dispatch(
            #[inline(always)]
            || {
                partial.fill(T::ZERO);
                for (dout_r, x_r) in dout.chunks_exact(c).zip(x.chunks_exact(c)) {
                    let inverse = inverse_rms(x_r, eps);
                    for ((partial, &dout), &x) in partial.iter_mut().zip(dout_r).zip(x_r) {
                        *partial += dout * x * inverse;
                    }
                }
            },
        );
    });
    dweight.fill(T::ZERO);
    for partial in scratch.chunks_exact(c) {
        simd::axpy(dweight, T::ONE, partial);
    }
}
