//! The fast CPU implementation: decides how a product is divided among threads; `simd::gemm` does
//! the arithmetic.

use half::bf16;
use rayon::prelude::*;

use super::{Layout, MatmulDims, Write};
use crate::Float;
use crate::simd::{self, Mat, MatMut, Threads};

/// Columns per task when the left factor is a single row.
const ROW_BLOCK: usize = 256;
/// Minimum multiply-adds for dividing a single row among threads; with fewer it costs more than it
/// saves.
const ROW_WORK: usize = 1 << 16;

pub(crate) fn fwd<T: Float>(c: &mut [T], a: &[T], b: &[T], write: Write, dims: MatmulDims) {
    let MatmulDims { m, n, k, batch, .. } = dims;
    if batch == 1 {
        return one(c, a, b, write, dims, Threads::Pool);
    }
    let batches = c.par_chunks_mut(m * n).zip(a.par_chunks(m * k)).zip(b.par_chunks(k * n));
    batches.for_each(|((c, a), b)| one(c, a, b, write, dims, Threads::One));
}

pub(crate) fn fwd_bf16(c: &mut [f32], a: &[f32], b: &[bf16], write: Write, dims: MatmulDims) {
    let MatmulDims { m, n, k, .. } = dims;
    let products = c.chunks_mut(m * n).zip(a.chunks(m * k)).zip(b.chunks(k * n));
    for ((c, a), b) in products {
        let b = match dims.b {
            Layout::Normal => Mat::rows(b, n),
            Layout::Transposed => Mat::rows(b, k).t(),
        };
        let c = MatMut { data: c, row_stride: n };
        simd::gemm_bf16(c, Mat::rows(a, k), b, write, [m, n, k], Threads::Pool);
    }
}

fn one<T: Float>(c: &mut [T], a: &[T], b: &[T], write: Write, dims: MatmulDims, threads: Threads) {
    let MatmulDims { m, n, k, .. } = dims;
    let b = match dims.b {
        Layout::Normal => Mat::rows(b, n),
        Layout::Transposed => Mat::rows(b, k).t(),
    };
    // `gemm` would take the sums of so few in an order of its own: a row is to have the same bits among any number of others,
    // and so a sequence in any batch. A larger matrix is read as fast as it can be instead.
    let is_few = m == 1 || m * n <= simd::SMALL;
    if is_few && n > 1 && dims.a == Layout::Normal && k <= simd::DEPTH && n * k <= ROW_WORK {
        return simd::rows(c, a, b, write, [m, n, k]);
    }
    let a = match dims.a {
        Layout::Normal => Mat::rows(a, k),
        Layout::Transposed => Mat::rows(a, m).t(),
    };
    match (m, n) {
        (1, _) => row(c, a, b, write, k, threads),
        // A single column is computed as a row of the transposed product.
        (_, 1) => row(c, b.t(), a.t(), write, k, threads),
        _ => simd::gemm(MatMut { data: c, row_stride: n }, a, b, T::ONE, write, [m, n, k], threads),
    }
}

/// A single row times a matrix, in blocks of columns; `gemm` would not divide it among threads.
fn row<T: Float>(c: &mut [T], a: Mat<T>, b: Mat<T>, write: Write, k: usize, threads: Threads) {
    let block = |(i, c): (usize, &mut [T])| {
        let (n, first) = (c.len(), i * ROW_BLOCK);
        let b = Mat { data: &b.data[first * b.col_stride..], ..b };
        let c = MatMut { data: c, row_stride: n };
        simd::gemm(c, a, b, T::ONE, write, [1, n, k], Threads::One);
    };
    match threads {
        Threads::Pool if c.len() * k > ROW_WORK => {
            c.par_chunks_mut(ROW_BLOCK).enumerate().for_each(block);
        }
        _ => c.chunks_mut(ROW_BLOCK).enumerate().for_each(block),
    }
}
