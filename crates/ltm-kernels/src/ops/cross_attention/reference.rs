//! The definition of the op in plain loops.

use super::CrossAttentionDims;
use crate::Float;

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
    dims: CrossAttentionDims,
) {
    let CrossAttentionDims { b: n_b, t: n_t, z: n_z, h: n_h, g: n_g, d } = dims;
    for (b, t, h) in
        (0..n_b).flat_map(|b| (0..n_t).flat_map(move |t| (0..n_h).map(move |h| (b, t, h))))
    {
        let i = ((b * n_t + t) * n_h + h) * d;
        let q_bth = &q[i..][..d];
        let kv = |j| ((b * n_z + j) * n_g + h / (n_h / n_g)) * d;
        let score = |j| scale * dot(q_bth, &k[kv(j)..][..d]);

        let max = (0..n_z).map(score).fold(T::NEG_INFINITY, T::max);
        let sum: T = (0..n_z).map(|j| (score(j) - max).exp()).sum();
        lse[(b * n_t + t) * n_h + h] = max + sum.ln();

        let out_bth = &mut out[i..][..d];
        out_bth.fill(T::ZERO);
        for j in 0..n_z {
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
    dims: CrossAttentionDims,
) {
    let CrossAttentionDims { b: n_b, t: n_t, z: n_z, h: n_h, g: n_g, d } = dims;
    for x in [&mut *dq, &mut *dk, &mut *dv] {
        x.fill(T::ZERO);
    }
    for (b, t, h) in
        (0..n_b).flat_map(|b| (0..n_t).flat_map(move |t| (0..n_h).map(move |h| (b, t, h))))
    {
        let i = ((b * n_t + t) * n_h + h) * d;
        let (q_bth, dout_bth) = (&q[i..][..d], &dout[i..][..d]);
        let delta = dot(dout_bth, &out[i..][..d]);
        for j in 0..n_z {
            let j = ((b * n_z + j) * n_g + h / (n_h / n_g)) * d;
            let p = (scale * dot(q_bth, &k[j..][..d]) - lse[(b * n_t + t) * n_h + h]).exp();
            let ds = scale * p * (dot(dout_bth, &v[j..][..d]) - delta);
            axpy(&mut dv[j..][..d], p, dout_bth);
            axpy(&mut dk[j..][..d], ds, q_bth);
            axpy(&mut dq[i..][..d], ds, &k[j..][..d]);
        }
    }
}
