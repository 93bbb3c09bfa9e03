//! The definition of `reparam` as plain loops.

use crate::Float;

/// `z = mu + noise · exp(log_var/2)`.
///
/// # Panics
/// When an input is shorter than `z`.
pub fn fwd<T: Float>(z: &mut [T], mu: &[T], log_var: &[T], noise: &[T]) {
    let half = T::from_f64(0.5);
    for i in 0..z.len() {
        z[i] = mu[i] + noise[i] * (half * log_var[i]).exp();
    }
}

/// `dlog_var = dz · noise · exp(log_var/2) / 2`.
///
/// # Panics
/// When an input is shorter than `dlog_var`.
pub fn bwd<T: Float>(dlog_var: &mut [T], dz: &[T], log_var: &[T], noise: &[T]) {
    let half = T::from_f64(0.5);
    for i in 0..dlog_var.len() {
        dlog_var[i] = half * dz[i] * noise[i] * (half * log_var[i]).exp();
    }
}
