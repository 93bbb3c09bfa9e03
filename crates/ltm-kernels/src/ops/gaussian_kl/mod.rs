//! KL divergence of a diagonal Gaussian from the standard normal, in nats, summed over each row.

mod cpu;
mod cuda;
pub mod reference;

use crate::shape::{check_extents, check_len, on_float};
use crate::{Buffer, Cost, Device, Result};

const OP: &str = "gaussian_kl";

/// Extents of one call: `rows` Gaussians of `n` dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GaussianKlDims {
    /// Number of Gaussians; in a model, one per sequence.
    pub rows: usize,
    /// Dimensions of each.
    pub n: usize,
}

impl GaussianKlDims {
    /// Refuses empty extents and products past the address space.
    ///
    /// # Errors
    /// [`Error::Dims`](crate::Error::Dims) naming the extent.
    pub fn validate(&self) -> Result<()> {
        check_extents(OP, &[("rows", self.rows), ("n", self.n)])
    }

    /// What [`fwd`] costs.
    pub fn cost_fwd(&self) -> Cost {
        let n = self.rows * self.n;
        Cost::new(6 * n, 2 * n + self.rows)
    }

    /// What [`bwd`] costs when both gradients are computed.
    pub fn cost_bwd(&self) -> Cost {
        let n = self.rows * self.n;
        Cost::new(5 * n, 4 * n + self.rows)
    }
}

/// `kl[r] = ½ Σ_i (mu² + exp(log_var) − 1 − log_var)`: KL(N(mu, exp(log_var)) ‖ N(0, I)).
///
/// # Shapes
/// `mu`, `log_var (rows,n)` → `kl (rows)`.
///
/// # Errors
/// [`Error::Dims`](crate::Error::Dims), [`Error::Shape`](crate::Error::Shape) or
/// [`Error::DType`](crate::Error::DType) when dims, lengths or types disagree.
///
/// # Source
/// Kingma and Welling 2014, "Auto-Encoding Variational Bayes", appendix B.
pub fn fwd(
    device: &Device,
    kl: &mut Buffer,
    mu: &Buffer,
    log_var: &Buffer,
    dims: GaussianKlDims,
) -> Result<()> {
    dims.validate()?;
    check_len(OP, "kl", kl.len(), dims.rows)?;
    check_len(OP, "mu", mu.len(), dims.rows * dims.n)?;
    check_len(OP, "log_var", log_var.len(), dims.rows * dims.n)?;
    match device {
        Device::Cuda(context) => cuda::fwd(context, kl, mu, log_var, dims),
        Device::Cpu => on_float!(kl.dtype(), T => {
            cpu::fwd::<T>(kl.as_mut_slice()?, mu.as_slice()?, log_var.as_slice()?, dims);
            Ok(())
        }),
    }
}

/// Gradients of [`fwd`]; only those requested are computed.
///
/// # Shapes
/// `dkl (rows)`, `mu`, `log_var (rows,n)` → `dmu`, `dlog_var (rows,n)`.
///
/// # Errors
/// As [`fwd`].
///
/// # Source
/// `dmu = dkl·mu`, `dlog_var = dkl·(exp(log_var) − 1)/2`.
pub fn bwd(
    device: &Device,
    dmu: Option<&mut Buffer>,
    dlog_var: Option<&mut Buffer>,
    dkl: &Buffer,
    mu: &Buffer,
    log_var: &Buffer,
    dims: GaussianKlDims,
) -> Result<()> {
    dims.validate()?;
    check_len(OP, "dkl", dkl.len(), dims.rows)?;
    check_len(OP, "mu", mu.len(), dims.rows * dims.n)?;
    check_len(OP, "log_var", log_var.len(), dims.rows * dims.n)?;
    for (arg, output) in [("dmu", &dmu), ("dlog_var", &dlog_var)] {
        if let Some(output) = output {
            check_len(OP, arg, output.len(), dims.rows * dims.n)?;
        }
    }
    match device {
        Device::Cuda(context) => cuda::bwd(context, dmu, dlog_var, dkl, mu, log_var, dims),
        Device::Cpu => on_float!(dkl.dtype(), T => {
            let (dkl, mu, log_var) = (dkl.as_slice()?, mu.as_slice()?, log_var.as_slice()?);
            if let Some(dmu) = dmu {
                cpu::bwd_mu::<T>(dmu.as_mut_slice()?, dkl, mu, dims);
            }
            if let Some(dlog_var) = dlog_var {
                cpu::bwd_log_var::<T>(dlog_var.as_mut_slice()?, dkl, log_var, dims);
            }
            Ok(())
        }),
    }
}

#[cfg(test)]
mod tests {
    use ltm_testkit::{Tol, assert_close, gradcheck};
    use proptest::prelude::*;

    use super::*;
    use crate::Error;
    use crate::ops::testing::{
        EPS, assert_same_on_any_pool, data, f32s, f64s, inner, out32, out64,
    };

    /// `kl`, `dmu` and `dlog_var` through buffers made by `make`.
    fn run(make: fn(&[f64]) -> Buffer, dims: GaussianKlDims) -> [Vec<f64>; 3] {
        let n = dims.rows * dims.n;
        let (mu, log_var, dkl) = (make(&data(1, n)), make(&data(2, n)), make(&data(3, dims.rows)));
        let poisoned = |n| make(&vec![f64::NAN; n]);
        let (mut kl, mut dmu, mut dlog_var) = (poisoned(dims.rows), poisoned(n), poisoned(n));
        fwd(&Device::Cpu, &mut kl, &mu, &log_var, dims).expect("shapes agree");
        bwd(&Device::Cpu, Some(&mut dmu), Some(&mut dlog_var), &dkl, &mu, &log_var, dims)
            .expect("shapes agree");
        [kl, dmu, dlog_var].map(|buffer| buffer.to_f64().expect("on the CPU"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn agrees_with_the_reference(rows in 1usize..9, n in 1usize..600) {
            let dims = GaussianKlDims { rows, n };
            let (mu, log_var, dkl) = (data(1, rows * n), data(2, rows * n), data(3, rows));
            let (mut kl, mut dmu) = (vec![0.0; rows], vec![0.0; rows * n]);
            let mut dlog_var = vec![0.0; rows * n];
            reference::fwd(&mut kl, &mu, &log_var, dims);
            reference::bwd_mu(&mut dmu, &dkl, &mu, dims);
            reference::bwd_log_var(&mut dlog_var, &dkl, &log_var, dims);
            for (make, eps) in [(f32s as fn(&[f64]) -> Buffer, EPS), (f64s, f64::EPSILON)] {
                let [got_kl, got_dmu, got_dlog_var] = run(make, dims);
                // A term is below 3.5² + e^3.5; 20 roundings per lane and 6 per term, then a sum in f64.
                let abs = n as f64 * 45.0 * 26.0 * eps / 2.0;
                assert_close(&got_kl, &kl, Tol { abs, rel: n as f64 * f64::EPSILON + eps });
                assert_close(&got_dmu, &dmu, Tol { abs: 0.0, rel: eps });
                let abs = 3.5 * 33.0 * 4.0 * eps;
                assert_close(&got_dlog_var, &dlog_var, Tol { abs, rel: 0.0 });
            }
        }
    }

    #[test]
    fn the_standard_normal_is_at_distance_zero_and_nan_shows() {
        let dims = GaussianKlDims { rows: 2, n: 300 };
        let mut kl = out32(2);
        let mut mu = vec![0.0; 600];
        fwd(&Device::Cpu, &mut kl, &f32s(&mu), &f32s(&[0.0; 600]), dims).expect("shapes agree");
        assert_eq!(kl.to_f64().expect("on the CPU"), [0.0, 0.0]);
        mu[299] = f64::NAN;
        fwd(&Device::Cpu, &mut kl, &f32s(&mu), &f32s(&[0.0; 600]), dims).expect("shapes agree");
        assert!(
            kl.to_f64().expect("on the CPU")[0].is_nan()
                && kl.to_f64().expect("on the CPU")[1] == 0.0
        );
    }

    #[test]
    fn gradients() {
        let dims = GaussianKlDims { rows: 2, n: 5 };
        let (mu, log_var, dkl) = (data(1, 10), data(2, 10), data(3, 2));
        let loss = |mu: &[f64], log_var: &[f64]| {
            let mut kl = out64(2);
            fwd(&Device::Cpu, &mut kl, &f64s(mu), &f64s(log_var), dims).expect("shapes agree");
            inner(&kl.to_f64().expect("on the CPU"), &dkl)
        };
        let [_, dmu, dlog_var] = run(f64s, dims);
        let tol = Tol { abs: 1e-7, rel: 1e-7 };
        gradcheck(|mu| loss(mu, &log_var), &mu, &dmu, tol);
        gradcheck(|log_var| loss(&mu, log_var), &log_var, &dlog_var, tol);
    }

    #[test]
    fn same_bits_on_any_number_of_threads() {
        assert_same_on_any_pool(|| run(f32s, GaussianKlDims { rows: 13, n: 2003 }).concat());
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let dims = GaussianKlDims { rows: 2, n: 3 };
        let try_fwd = |kl, mu, log_var, dims| {
            fwd(&Device::Cpu, &mut out32(kl), &out32(mu), &out32(log_var), dims)
        };
        assert_eq!(try_fwd(2, 6, 6, dims), Ok(()));
        for (kl, mu, log_var, arg) in [(3, 6, 6, "kl"), (2, 5, 6, "mu"), (2, 6, 7, "log_var")] {
            let refused = try_fwd(kl, mu, log_var, dims);
            assert!(matches!(refused, Err(Error::Shape { arg: got, .. }) if got == arg));
        }
        for dims in [GaussianKlDims { n: 0, ..dims }, GaussianKlDims { n: usize::MAX / 8, ..dims }]
        {
            assert!(matches!(try_fwd(2, 6, 6, dims), Err(Error::Dims { .. })));
        }
    }
}
