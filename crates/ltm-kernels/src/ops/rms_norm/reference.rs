//! The definition of `rms_norm` as plain loops.

use super::RmsNormDims;
use crate::Float;

/// `1/sqrt(mean(x²) + eps)` of one row.
fn inverse_rms<T: Float>(x_r: &[T], eps: T) -> T {
    let sum: T = x_r.iter().map(|&x| x * x).sum();
    T::ONE / (sum / T::from_f64(x_r.len() as f64) + eps).sqrt()
}

/// `out = x · weight / sqrt(mean(x²) + eps)`, row by row.
///
/// # Panics
/// When a slice is shorter than the dims require.
pub fn fwd<T: Float>(out: &mut [T], x: &[T], weight: &[T], eps: T, dims: RmsNormDims) {
    for r in 0..dims.rows {
        let row = r * dims.c..(r + 1) * dims.c;
        let inverse = inverse_rms(&x[row.clone()], eps);
        for (c, i) in row.enumerate() {
            out[i] = x[i] * inverse * weight[c];
        }
    }
}

/// `sum = x + residual`, and `out` as [`fwd`] of `sum`.
///
/// # Panics
/// When a slice is shorter than the dims require.
pub fn fwd_add<T: Float>(
    sum: &mut [T],
    out: &mut [T],
    x: &[T],
    residual: &[T],
    weight: &[T],
    eps: T,
    dims: RmsNormDims,
) {
    for i in 0..dims.rows * dims.c {
        sum[i] = x[i] + residual[i];
    }
    fwd(out, sum, weight, eps, dims);
}

/// `dx = r·(weight·dout − x·r²·mean(weight·dout·x))` with `r` the inverse root mean square,
/// and `dresidual` added where it is given.
///
/// # Panics
/// When a slice is shorter than the dims require.
pub fn bwd_x<T: Float>(
    dx: &mut [T],
    dout: &[T],
    x: &[T],
    weight: &[T],
    dresidual: Option<&[T]>,
    eps: T,
    dims: RmsNormDims,
) {
    for r in 0..dims.rows {
        let row = r * dims.c..(r + 1) * dims.c;
        let inverse = inverse_rms(&x[row.clone()], eps);
        let dot: T = row.clone().map(|i| dout[i] * weight[i - row.start] * x[i]).sum();
        let pull = dot / T::from_f64(dims.c as f64) * inverse * inverse;
        for (c, i) in row.enumerate() {
            dx[i] = inverse * (weight[c] * dout[i] - x[i] * pull);
            if let Some(dresidual) = dresidual {
                dx[i] += dresidual[i];
            }
        }
    }
}

/// `dweight = Σ_rows dout · x / sqrt(mean(x²) + eps)`.
///
/// # Panics
/// When a slice is shorter than the dims require.
pub fn bwd_weight<T: Float>(dweight: &mut [T], dout: &[T], x: &[T], eps: T, dims: RmsNormDims) {
    dweight.fill(T::ZERO);
    for r in 0..dims.rows {
        let row = r * dims.c..(r + 1) * dims.c;
        let inverse = inverse_rms(&x[row.clone()], eps);
        for (c, i) in row.enumerate() {
            dweight[c] += dout[i] * x[i] * inverse;
        }
    }
}
