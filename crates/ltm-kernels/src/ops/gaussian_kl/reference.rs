//! The definition of `gaussian_kl` as plain loops.

use super::GaussianKlDims;
use crate::Float;

/// `kl[r] = ½ Σ_i (mu² + exp(log_var) − 1 − log_var)`.
///
/// # Panics
/// When a slice is shorter than the dims require.
pub fn fwd<T: Float>(kl: &mut [T], mu: &[T], log_var: &[T], dims: GaussianKlDims) {
    for (r, kl) in kl[..dims.rows].iter_mut().enumerate() {
        let row = r * dims.n..(r + 1) * dims.n;
        let sum: T = row.map(|i| mu[i] * mu[i] + (log_var[i].exp() - T::ONE - log_var[i])).sum();
        *kl = T::from_f64(0.5) * sum;
    }
}

/// `dmu = dkl · mu`.
///
/// # Panics
/// When a slice is shorter than the dims require.
pub fn bwd_mu<T: Float>(dmu: &mut [T], dkl: &[T], mu: &[T], dims: GaussianKlDims) {
    for i in 0..dims.rows * dims.n {
        dmu[i] = dkl[i / dims.n] * mu[i];
    }
}

/// `dlog_var = dkl · (exp(log_var) − 1)/2`.
///
/// # Panics
/// When a slice is shorter than the dims require.
pub fn bwd_log_var<T: Float>(dlog_var: &mut [T], dkl: &[T], log_var: &[T], dims: GaussianKlDims) {
    for i in 0..dims.rows * dims.n {
        dlog_var[i] = dkl[i / dims.n] * T::from_f64(0.5) * (log_var[i].exp() - T::ONE);
    }
}
