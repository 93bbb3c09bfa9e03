//! The definition of the elementwise ops as plain loops.

use super::{RecordDims, ScaleRowsDims};
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
/// When a slice is shorter than the dims require.
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

/// `history[step, offset + i] = x[i]`, or nothing when there is no such row.
///
/// # Panics
/// When a slice is shorter than the dims require.
pub fn record<T: Float>(history: &mut [T], x: &[T], step: i32, dims: RecordDims) {
    if let Some(step) = usize::try_from(step).ok().filter(|&step| step < dims.rows) {
        let first = step * dims.width + dims.offset;
        history[first..first + dims.n].copy_from_slice(x);
    }
}
