//! The fast CPU implementation: one vectorised pass, all cores.

use rayon::prelude::*;

use super::ScaleRowsDims;
use crate::ops::parallel::{CHUNK, zip_chunks};
use crate::{Float, simd};

pub(crate) fn add<T: Float>(out: &mut [T], a: &[T], b: &[T]) {
    zip_chunks(
        [out],
        [a, b],
        #[inline(always)]
        |[out], [a, b]| {
            for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
                *out = a + b;
            }
        },
    );
}

pub(crate) fn axpy<T: Float>(y: &mut [T], alpha: T, x: &[T]) {
    zip_chunks(
        [y],
        [x],
        #[inline(always)]
        |[y], [x]| simd::axpy(y, alpha, x),
    );
}

pub(crate) fn fill<T: Float>(out: &mut [T], value: T) {
    zip_chunks(
        [out],
        [],
        #[inline(always)]
        |[out], []| out.fill(value),
    );
}

pub(crate) fn scale<T: Float>(out: &mut [T], w: &[T], s: T) {
    zip_chunks(
        [out],
        [w],
        #[inline(always)]
        |[out], [w]| scale_row(out, w, s),
    );
}

pub(crate) fn scale_rows<T: Float>(out: &mut [T], x: &[T], s: &[T], dims: ScaleRowsDims) {
    let c = dims.c;
    let rows = (CHUNK / c).max(1);
    let blocks = out.par_chunks_mut(rows * c).zip(x.par_chunks(rows * c)).zip(s.par_chunks(rows));
    blocks.for_each(|((out, x), s)| {
        simd::dispatch(
            #[inline(always)]
            || {
                for ((out_r, x_r), &s) in out.chunks_exact_mut(c).zip(x.chunks_exact(c)).zip(s) {
                    scale_row(out_r, x_r, s);
                }
            },
        );
    });
}

#[inline(always)]
fn scale_row<T: Float>(out: &mut [T], x: &[T], s: T) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = s * x;
    }
}
