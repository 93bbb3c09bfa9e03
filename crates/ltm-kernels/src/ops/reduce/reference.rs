//! The definition of the reductions as plain loops.

use super::SumAxisDims;
use crate::Float;

/// `out[g] = Σ_i x[g,i]`.
///
/// # Panics
/// When `out` is empty.
pub fn sum_groups<T: Float>(out: &mut [T], x: &[T]) {
    let n = x.len() / out.len();
    for (g, out) in out.iter_mut().enumerate() {
        *out = T::from_f64(x[g * n..(g + 1) * n].iter().map(|x| x.to_f64()).sum());
    }
}

/// `out[o,i] = Σ_n x[o,n,i]`.
///
/// # Panics
/// When a slice is shorter than the dims ask for.
pub fn sum_axis<T: Float, X: Float>(out: &mut [T], x: &[X], dims: SumAxisDims) {
    let SumAxisDims { outer, n, inner } = dims;
    for o in 0..outer {
        for i in 0..inner {
            let sum = (0..n).map(|k| x[(o * n + k) * inner + i].to_f64()).sum();
            out[o * inner + i] = T::from_f64(sum);
        }
    }
}

/// `Σ_i x[i]·w[i]`.
///
/// # Panics
/// When `w` is shorter than `x`.
pub fn dot<T: Float>(x: &[T], w: &[T]) -> f64 {
    (0..x.len()).map(|i| x[i].to_f64() * w[i].to_f64()).sum()
}

/// The first index that holds NaN or an infinity.
pub fn first_non_finite<T: Float>(x: &[T]) -> Option<usize> {
    x.iter().position(|x| !x.to_f64().is_finite())
}
