//! The definition of `cast`: one conversion per element.

use half::bf16;

use crate::Float;

/// `out[i] = x[i]`, rounded to `T`.
///
/// # Panics
/// When `x` is shorter than `out`.
pub fn fwd<T: Float, S: Float>(out: &mut [T], x: &[S]) {
    for i in 0..out.len() {
        out[i] = T::from_f64(x[i].to_f64());
    }
}

/// `out[i] = x[i]`, rounded to bf16.
///
/// # Panics
/// When `x` is shorter than `out`.
pub fn round(out: &mut [bf16], x: &[f32]) {
    for i in 0..out.len() {
        out[i] = bf16::from_f32(x[i]);
    }
}
