//! The definition of the elementwise ops as plain loops.

use super::ScaleRowsDims;
use crate::Float;

/// `out = a + b`.
///
/// # Panics
/// When an input is shorter than `out`.
pub fn add<T: Float>(out: &mut [T], a: &[T], b: &[T]) {
    for i in 0..out.len() {
        out[i] = a[i] + b[i];
    }
}

/// `y += alpha · x`.
///
/// # Panics
/// When `x` is shorter than `y`.
pub fn axpy<T: Float>(y: &mut [T], alpha: T, x: &[T]) {
    for i in 0..y.len() {
        y[i] += alpha * x[i];
    }
}

/// `out[r,c] = s[r] · x[r,c]`.
///
/// # Panics
/// When a slice is shorter than the dims ask for.
pub fn scale_rows<T: Float>(out: &mut [T], x: &[T], s: &[T], dims: ScaleRowsDims) {
    for i in 0..dims.rows * dims.c {
        out[i] = s[i / dims.c] * x[i];
    }
}

/// `out = s · w`.
///
/// # Panics
/// When `w` is shorter than `out`.
pub fn scale<T: Float>(out: &mut [T], w: &[T], s: T) {
    for i in 0..out.len() {
        out[i] = s * w[i];
    }
}
