//! The definition of the op in plain loops.

use std::ops::Range;

use super::{AttentionDims, Mask};
use crate::Float;

/// The keys that query `t` sees.
fn visible(t: usize, dims: AttentionDims) -> Range<usize> {
    match dims.mask {
        Mask::None => 0..dims.t_k,
        Mask::Window(w) => (t + 1).saturating_sub(w)..t + 1,
    }
}

/// Every `(b, t, h)`.
fn queries(dims: AttentionDims) -> impl Iterator<Item = [usize; 3]> {
    let AttentionDims { b: n_b, t: n_t, h: n_h, .. } = dims;
    (0..n_b).flat_map(move |b| (0..n_t).flat_map(move |t| (0..n_h).map(move |h| [b, t, h])))
}

fn dot<T: Float>(x: &[T], y: &[T]) -> T {
    x.iter().zip(y).map(|(x, y)| *x * *y).sum()
}

fn axpy<T: Float>(y: &mut [T], alpha: T, x: &[T]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += alpha * *x);
}

/// See [`super::fwd`].
///
/// # Panics
/// If a slice is shorter than `dims` requires.
pub fn fwd<T: Float>(
    out: &mut [T],
    lse: &mut [T],
    q: &[T],
    k: &[T],
    v: &[T],
    scale: T,
    dims: AttentionDims,
) {
    let AttentionDims { t: n_t, t_k: n_k, h: n_h, g: n_g, d, .. } = dims;
    for [b, t, h] in queries(dims) {
        let row = (b * n_t + t) * n_h + h;
        let q_bth = &q[row * d..][..d];
        let kv = |j| ((b * n_k + j) * n_g + h / (n_h / n_g)) * d;
        let score = |j| scale * dot(q_bth, &k[kv(j)..][..d]);

        let max = visible(t, dims).map(score).fold(T::NEG_INFINITY, T::max);
        let sum: T = visible(t, dims).map(|j| (score(j) - max).exp()).sum();
        lse[row] = max + sum.ln();

        let out_bth = &mut out[row * d..][..d];
        out_bth.fill(T::ZERO);
        for j in visible(t, dims) {
            axpy(out_bth, (score(j) - max).exp() / sum, &v[kv(j)..][..d]);
        }
    }
}

/// See [`super::bwd`].
///
/// # Panics
/// If a slice is shorter than `dims` requires.
pub fn bwd<T: Float>(
    dq: &mut [T],
    dk: &mut [T],
    dv: &mut [T],
    dout: &[T],
    out: &[T],
    lse: &[T],
    q: &[T],
    k: &[T],
    v: &[T],
    scale: T,
    dims: AttentionDims,
) {
    let AttentionDims { t: n_t, t_k: n_k, h: n_h, g: n_g, d, .. } = dims;
    for x in [&mut *dq, &mut *dk, &mut *dv] {
        x.fill(T::ZERO);
    }
    for [b, t, h] in queries(dims) {
        let row = (b * n_t + t) * n_h + h;
        let (q_bth, dout_bth) = (&q[row * d..][..d], &dout[row * d..][..d]);
        let delta = dot(dout_bth, &out[row * d..][..d]);
        for j in visible(t, dims) {
            let kv = ((b * n_k + j) * n_g + h / (n_h / n_g)) * d;
            let p = (scale * dot(q_bth, &k[kv..][..d]) - lse[row]).exp();
            let ds = scale * p * (dot(dout_bth, &v[kv..][..d]) - delta);
            axpy(&mut dv[kv..][..d], p, dout_bth);
            axpy(&mut dk[kv..][..d], ds, q_bth);
            axpy(&mut dq[row * d..][..d], ds, &k[kv..][..d]);
        }
    }
}
