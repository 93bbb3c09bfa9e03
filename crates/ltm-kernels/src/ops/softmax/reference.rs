//! The definition of `softmax` as plain loops.

use super::SoftmaxDims;
use crate::Float;

/// `out[r,:] = exp(x[r,:] - max) / Σ_c exp(x[r,c] - max)`.
///
/// # Panics
/// When a slice is shorter than the dims ask for.
pub fn fwd<T: Float>(out: &mut [T], x: &[T], dims: SoftmaxDims) {
    let c = dims.c;
    for r in 0..dims.rows {
        let (out_r, x_r) = (&mut out[r * c..(r + 1) * c], &x[r * c..(r + 1) * c]);
        let max = x_r.iter().fold(T::NEG_INFINITY, |max, &x| max.max(x));
        let sum: T = x_r.iter().map(|&x| (x - max).exp()).sum();
        for i in 0..c {
            out_r[i] = (x_r[i] - max).exp() / sum;
        }
    }
}

/// `dx[r,:] = out[r,:] · (dout[r,:] - Σ_c dout[r,c]·out[r,c])`.
///
/// # Panics
/// When a slice is shorter than the dims ask for.
pub fn bwd<T: Float>(dx: &mut [T], dout: &[T], out: &[T], dims: SoftmaxDims) {
    let c = dims.c;
    for r in 0..dims.rows {
        let sum: T = (r * c..(r + 1) * c).map(|i| dout[i] * out[i]).sum();
        for i in r * c..(r + 1) * c {
            dx[i] = out[i] * (dout[i] - sum);
        }
    }
}
