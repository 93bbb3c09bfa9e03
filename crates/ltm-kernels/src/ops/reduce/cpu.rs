//! The fast CPU implementation: leaves of fixed size, summed lane by lane in `f64`, combined in a
//! fixed tree.

use rayon::prelude::*;

use super::SumAxisDims;
use crate::ops::blocks::{Rows, for_each_block};
use crate::ops::parallel::CHUNK;
use crate::{Float, simd};

/// Number of partial sums per leaf.
const LANES: usize = 16;

/// Neighbouring sums that one task adds up side by side, over an axis that is not the innermost.
const COLUMNS: usize = 64;

pub(crate) fn sum_axis<T: Float, X: Float>(out: &mut [T], x: &[X], dims: SumAxisDims) {
    let SumAxisDims { outer, n, inner } = dims;
    if inner == 1 {
        return sum_groups(out, x);
    }
    let out = Rows { data: out, width: 1 };
    for_each_block(outer, inner, COLUMNS, out, |o, columns, out| {
        simd::dispatch(
            #[inline(always)]
            || {
                let mut sums = [0.0; COLUMNS];
                for row in x[o * n * inner..(o + 1) * n * inner].chunks_exact(inner) {
                    let row = &row[columns.clone()];
                    sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x.to_f64());
                }
                out.data.iter_mut().zip(sums).for_each(|(out, sum)| *out = T::from_f64(sum));
            },
        );
    });
}

pub(crate) fn sum_groups<T: Float, X: Float>(out: &mut [T], x: &[X]) {
    let n = x.len() / out.len();
    out.par_iter_mut().zip(x.par_chunks(n)).for_each(|(out, x_g)| {
        *out = T::from_f64(tree(
            [x_g],
            #[inline(always)]
            |[x]| x.to_f64(),
        ));
    });
}

pub(crate) fn dot<T: Float>(x: &[T], w: &[T]) -> f64 {
    tree(
        [x, w],
        #[inline(always)]
        |[x, w]| x.to_f64() * w.to_f64(),
    )
}

/// `Σ_i term(x[0][i], …)`; the order of the sum depends only on the length.
fn tree<T: Float, const N: usize>(
    x: [&[T]; N],
    term: impl Fn([T; N]) -> f64 + Copy + Send + Sync,
) -> f64 {
    let len = x[0].len();
    if len <= CHUNK {
        return simd::dispatch(
            #[inline(always)]
            || leaf(x.map(|x| &x[..len]), term),
        );
    }
    let mid = (len / 2).next_multiple_of(CHUNK);
    let (head, tail) =
        rayon::join(|| tree(x.map(|x| &x[..mid]), term), || tree(x.map(|x| &x[mid..]), term));
    head + tail
}

#[inline(always)]
fn leaf<T: Float, const N: usize>(x: [&[T]; N], term: impl Fn([T; N]) -> f64) -> f64 {
    let len = x[0].len();
    let whole = len - len % LANES;
    let mut lanes = [0.0; LANES];
    for first in (0..whole).step_by(LANES) {
        let block = x.map(|x| &x[first..first + LANES]);
        for (i, lane) in lanes.iter_mut().enumerate() {
            *lane += term(block.map(|x| x[i]));
        }
    }
    let rest: f64 = (whole..len).map(|i| term(x.map(|x| x[i]))).sum();
    simd::sum(&lanes) + rest
}

pub(crate) fn first_non_finite<T: Float>(x: &[T]) -> Option<usize> {
    x.par_chunks(CHUNK).enumerate().find_map_first(|(i, x)| {
        // 0 times a finite number is 0, times any other it is NaN: one comparison per chunk.
        let zeros = simd::dispatch(
            #[inline(always)]
            || {
                let mut lanes = [T::ZERO; LANES];
                for x in x.chunks(LANES) {
                    lanes.iter_mut().zip(x).for_each(|(lane, &x)| *lane += x * T::ZERO);
                }
                simd::sum(&lanes)
            },
        );
        if zeros == T::ZERO {
            return None;
        }
        x.iter().position(|x| !x.to_f64().is_finite()).map(|at| i * CHUNK + at)
    })
}
