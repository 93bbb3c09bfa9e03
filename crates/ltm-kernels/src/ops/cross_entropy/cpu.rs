//! The fast CPU implementation: two products a chunk of rows, and between them the softmax in place.

use super::{CrossEntropyDims, IGNORED};
use crate::ops::blocks::{Rows, for_each_block};
use crate::ops::matmul::{self, Layout, MatmulDims, Write};
use crate::ops::parallel::CHUNK;
use crate::{Float, simd};

/// Elements whose exponentials are summed in `T` before the sum goes on in `f64`.
const TILE: usize = 1024;

pub(crate) fn fwd<T: Float>(
    mut nll: Option<&mut [T]>,
    mut dh: Option<&mut [T]>,
    scratch: &mut [T],
    h: &[T],
    w: &[T],
    targets: &[i32],
    dims: CrossEntropyDims,
) {
    let (n, c, v) = (dims.n, dims.c, dims.v);
    let wants_gradient = dh.is_some();
    for first in (0..n).step_by(dims.chunk_rows()) {
        let rows = dims.chunk_rows().min(n - first);
        let p = &mut scratch[..rows * v];
        logits(p, &h[first * c..][..rows * c], w, dims);
        let nll = nll.as_mut().map(|nll| &mut nll[first..first + rows]);
        let seed = |_| wants_gradient.then_some(T::ONE);
        losses(nll, p, &targets[first..first + rows], seed, v);
        if let Some(dh) = &mut dh {
            let dh = &mut dh[first * c..][..rows * c];
            matmul::cpu::fwd(dh, p, w, Write::Overwrite, MatmulDims::new(rows, c, v));
        }
    }
}

pub(crate) fn bwd_weight<T: Float>(
    dw: &mut [T],
    scratch: &mut [T],
    dnll: &[T],
    h: &[T],
    w: &[T],
    targets: &[i32],
    dims: CrossEntropyDims,
) {
    let (n, c, v) = (dims.n, dims.c, dims.v);
    for first in (0..n).step_by(dims.chunk_rows()) {
        let rows = dims.chunk_rows().min(n - first);
        let p = &mut scratch[..rows * v];
        let h = &h[first * c..][..rows * c];
        logits(p, h, w, dims);
        let dnll = &dnll[first..first + rows];
        losses(None, p, &targets[first..first + rows], |row| Some(dnll[row]), v);
        let write = if first == 0 { Write::Overwrite } else { Write::Accumulate };
        let product = MatmulDims { a: Layout::Transposed, ..MatmulDims::new(v, c, rows) };
        matmul::cpu::fwd(dw, p, h, write, product);
    }
}

/// `p = h Wᵀ` for as many rows as `p` holds.
fn logits<T: Float>(p: &mut [T], h: &[T], w: &[T], dims: CrossEntropyDims) {
    let rows = p.len() / dims.v;
    let product = MatmulDims { b: Layout::Transposed, ..MatmulDims::new(rows, dims.v, dims.c) };
    matmul::cpu::fwd(p, h, w, Write::Overwrite, product);
}

/// Turns rows of logits into losses and, where `seed` gives a factor, into gradients of the logits in place.
fn losses<T: Float>(
    nll: Option<&mut [T]>,
    p: &mut [T],
    targets: &[i32],
    seed: impl Fn(usize) -> Option<T> + Sync,
    v: usize,
) {
    let outputs = (Rows { data: p, width: v }, nll.map(|nll| Rows { data: nll, width: 1 }));
    for_each_block(1, targets.len(), (CHUNK / v).max(1), outputs, |_, rows, (p, mut nll)| {
        for (i, p_n) in p.data.chunks_exact_mut(v).enumerate() {
            let n = rows.start + i;
            let seed = seed(n);
            let loss = simd::dispatch(
                #[inline(always)]
                || row(p_n, targets[n], seed),
            );
            if let Some(nll) = &mut nll {
                nll.data[i] = loss;
            }
        }
    });
}

/// The loss of one row of logits, which become `seed · (softmax − onehot)`; without a seed their content is lost.
#[inline(always)]
fn row<T: Float>(p_n: &mut [T], target: i32, seed: Option<T>) -> T {
    if target == IGNORED {
        p_n.fill(T::ZERO);
        return T::ZERO;
    }
    let target = target as usize;
    let logit = p_n[target].to_f64();
    let max = simd::max(p_n);
    let mut sum = 0.0;
    for tile in p_n.chunks_mut(TILE) {
        for p in tile.iter_mut() {
            *p = *p - max;
        }
        simd::exp_slice(tile);
        sum += simd::sum(tile).to_f64();
    }
    if let Some(seed) = seed {
        simd::scale(p_n, T::from_f64(seed.to_f64() / sum));
        p_n[target] = p_n[target] - seed;
    }
    T::from_f64(max.to_f64() + sum.ln() - logit)
}
