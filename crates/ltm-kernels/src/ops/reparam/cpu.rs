//! The fast CPU implementation: one vectorised pass.

use crate::ops::parallel::zip_chunks;
use crate::{Float, simd};

pub(crate) fn fwd<T: Float>(z: &mut [T], mu: &[T], log_var: &[T], noise: &[T]) {
    let half = T::from_f64(0.5);
    zip_chunks(
        [z],
        [mu, log_var, noise],
        #[inline(always)]
        |[z], [mu, log_var, noise]| {
            for (((z, &mu), &log_var), &noise) in z.iter_mut().zip(mu).zip(log_var).zip(noise) {
                *z = mu + noise * simd::exp(half * log_var);
            }
        },
    );
}

pub(crate) fn bwd<T: Float>(dlog_var: &mut [T], dz: &[T], log_var: &[T], noise: &[T]) {
    let half = T::from_f64(0.5);
    zip_chunks(
        [dlog_var],
        [dz, log_var, noise],
        #[inline(always)]
        |[dlog_var], [dz, log_var, noise]| {
            let ins = dz.iter().zip(log_var).zip(noise);
            for (dlog_var, ((&dz, &log_var), &noise)) in dlog_var.iter_mut().zip(ins) {
                *dlog_var = half * dz * noise * simd::exp(half * log_var);
            }
        },
    );
}
