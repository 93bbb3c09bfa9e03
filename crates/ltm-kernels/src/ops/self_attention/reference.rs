//! The definition of the op in plain loops.

use std::ops::RangeInclusive;

use super::SelfAttentionDims;
use crate::Float;

/// The keys that query `t` sees.
fn visible(t: usize, dims: SelfAttentionDims) -> RangeInclusive<usize> {
    (t + 1).saturating_sub(dims.w)..=t
}

/// Where row `(b, t)` of head `h` starts in a buffer with `n_heads` heads.
fn row(b: usize, t: usize, h: usize, n_heads: usize, dims: SelfAttentionDims) -> usize {
    ((b * dims.t + t) * n_heads + h) * dims.d
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
    dims: SelfAttentionDims,
) {
    let SelfAttentionDims { b: n_b, t: n_t, h: n_h, g: n_g, d, .. } = dims;
    for (b, t, h) in
        (0..n_b).flat_map(|b| (0..n_t).flat_map(move |t| (0..n_h).map(move |h| (b, t, h))))
    {
        let q_bth = &q[row(b, t, h, n_h, dims)..][..d];
        let kv = |t2| row(b, t2, h / (n_h / n_g), n_g, dims);
        let score = |t2| scale * dot(q_bth, &k[kv(t2)..][..d]);

        let max = visible(t, dims).map(score).fold(T::NEG_INFINITY, T::max);
        let sum: T = visible(t, dims).map(|t2| (score(t2) - max).exp()).sum();
        lse[(b * n_t + t) * n_h + h] = max + sum.ln();

        let out_bth = &mut out[row(b, t, h, n_h, dims)..][..d];
        out_bth.fill(T::ZERO);
        for t2 in visible(t, dims) {
            axpy(out_bth, (score(t2) - max).exp() / sum, &v[kv(t2)..][..d]);
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
    dims: SelfAttentionDims,
) {
    let SelfAttentionDims { b: n_b, t: n_t, h: n_h, g: n_g, d, .. } = dims;
    for x in [&mut *dq, &mut *dk, &mut *dv] {
        x.fill(T::ZERO);
    }
    for (b, t, h) in
        (0..n_b).flat_map(|b| (0..n_t).flat_map(move |t| (0..n_h).map(move |h| (b, t, h))))
    {
        let i = row(b, t, h, n_h, dims);
        let (q_bth, dout_bth) = (&q[i..][..d], &dout[i..][..d]);
        let delta = dot(dout_bth, &out[i..][..d]);
        for t2 in visible(t, dims) {
            let j = row(b, t2, h / (n_h / n_g), n_g, dims);
            let p = (scale * dot(q_bth, &k[j..][..d]) - lse[(b * n_t + t) * n_h + h]).exp();
            let ds = scale * p * (dot(dout_bth, &v[j..][..d]) - delta);
            axpy(&mut dv[j..][..d], p, dout_bth);
            axpy(&mut dk[j..][..d], ds, q_bth);
            axpy(&mut dq[i..][..d], ds, &k[j..][..d]);
        }
    }
}
