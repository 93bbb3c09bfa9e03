//! The fast CPU implementation: rows in parallel, sums in tiles.

use rayon::prelude::*;

use super::GaussianKlDims;
use crate::{Float, simd};

/// Elements summed in `T` before their sum is added in `f64`.
const TILE: usize = 256;

pub(crate) fn fwd<T: Float>(kl: &mut [T], mu: &[T], log_var: &[T], dims: GaussianKlDims) {
    let rows = mu.par_chunks(dims.n).zip(log_var.par_chunks(dims.n));
    kl.par_iter_mut().zip(rows).for_each(|(kl, (mu_r, log_var_r))| {
        *kl = simd::dispatch(
            #[inline(always)]
            || row(mu_r, log_var_r),
        );
    });
}

#[inline(always)]
fn row<T: Float>(mu_r: &[T], log_var_r: &[T]) -> T {
    let mut terms = [T::ZERO; TILE];
    let mut sum = 0.0;
    for (mu, log_var) in mu_r.chunks(TILE).zip(log_var_r.chunks(TILE)) {
        let terms = &mut terms[..mu.len()];
        for ((term, &mu), &log_var) in terms.iter_mut().zip(mu).zip(log_var) {
            *term = mu * mu + (simd::exp(log_var) - T::ONE - log_var);
        }
        sum += simd::sum(terms).to_f64();
    }
    T::from_f64(0.5 * sum)
}

pub(crate) fn bwd_mu<T: Float>(dmu: &mut [T], dkl: &[T], mu: &[T], dims: GaussianKlDims) {
    for_rows(
        dmu,
        dkl,
        mu,
        dims,
        #[inline(always)]
        |mu| mu,
    );
}

pub(crate) fn bwd_log_var<T: Float>(
    dlog_var: &mut [T],
    dkl: &[T],
    log_var: &[T],
    dims: GaussianKlDims,
) {
    let half = T::from_f64(0.5);
    for_rows(
        dlog_var,
        dkl,
        log_var,
        dims,
        #[inline(always)]
        |log_var| half * (simd::exp(log_var) - T::ONE),
    );
}

/// `out[r,i] = dkl[r] · slope(x[r,i])`.
fn for_rows<T: Float>(
    out: &mut [T],
    dkl: &[T],
    x: &[T],
    dims: GaussianKlDims,
    slope: impl Fn(T) -> T + Sync,
) {
    let rows = out.par_chunks_mut(dims.n).zip(x.par_chunks(dims.n));
    rows.zip(dkl).for_each(|((out_r, x_r), &dkl)| {
        simd::dispatch(
            #[inline(always)]
            || out_r.iter_mut().zip(x_r).for_each(|(out, &x)| *out = dkl * slope(x)),
        );
    });
}
