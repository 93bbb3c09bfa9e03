//! A Gaussian sample as a function of its parameters: `z = mu + noise · exp(log_var/2)`.

mod cpu;
mod cuda;
pub mod reference;

use crate::shape::{check_len, on_float};
use crate::{Buffer, Cost, Device, Result};

const OP: &str = "reparam";

/// What [`fwd`] or [`bwd`] costs on `n` elements.
pub fn cost(n: usize) -> Cost {
    Cost::new(4 * n, 4 * n)
}

/// `z = mu + noise · exp(log_var/2)`.
///
/// # Shapes
/// All of one length.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) when lengths or types
/// disagree.
///
/// # Source
/// Kingma and Welling 2014, "Auto-Encoding Variational Bayes", section 2.4.
pub fn fwd(
    device: &Device,
    z: &mut Buffer,
    mu: &Buffer,
    log_var: &Buffer,
    noise: &Buffer,
) -> Result<()> {
    check_len(OP, "mu", mu.len(), z.len())?;
    check_len(OP, "log_var", log_var.len(), z.len())?;
    check_len(OP, "noise", noise.len(), z.len())?;
    match device {
        Device::Cuda(context) => cuda::fwd(context, z, mu, log_var, noise),
        Device::Cpu => on_float!(z.dtype(), T => {
            let (mu, log_var, noise) = (mu.as_slice()?, log_var.as_slice()?, noise.as_slice()?);
            cpu::fwd::<T>(z.as_mut_slice()?, mu, log_var, noise);
            Ok(())
        }),
    }
}

/// Gradient of [`fwd`] with respect to `log_var`; that with respect to `mu` is `dz` itself.
///
/// # Shapes
/// All of one length.
///
/// # Errors
/// As [`fwd`].
///
/// # Source
/// `dlog_var = dz · noise · exp(log_var/2) / 2`.
pub fn bwd(
    device: &Device,
    dlog_var: &mut Buffer,
    dz: &Buffer,
    log_var: &Buffer,
    noise: &Buffer,
) -> Result<()> {
    check_len(OP, "dz", dz.len(), dlog_var.len())?;
    check_len(OP, "log_var", log_var.len(), dlog_var.len())?;
    check_len(OP, "noise", noise.len(), dlog_var.len())?;
    match device {
        Device::Cuda(context) => cuda::bwd(context, dlog_var, dz, log_var, noise),
        Device::Cpu => on_float!(dlog_var.dtype(), T => {
            let (dz, log_var, noise) = (dz.as_slice()?, log_var.as_slice()?, noise.as_slice()?);
            cpu::bwd::<T>(dlog_var.as_mut_slice()?, dz, log_var, noise);
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

    /// `z` and `dlog_var` through buffers made by `make`.
    fn run(make: fn(&[f64]) -> Buffer, n: usize) -> [Vec<f64>; 2] {
        let [mu, log_var, noise, dz] = [1, 2, 3, 4].map(|seed| make(&data(seed, n)));
        let (mut z, mut dlog_var) = (make(&vec![f64::NAN; n]), make(&vec![f64::NAN; n]));
        fwd(&Device::Cpu, &mut z, &mu, &log_var, &noise).expect("shapes agree");
        bwd(&Device::Cpu, &mut dlog_var, &dz, &log_var, &noise).expect("shapes agree");
        [z, dlog_var].map(|buffer| buffer.to_f64().expect("on the CPU"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn agrees_with_the_reference(n in 1usize..2000) {
            let [mu, log_var, noise, dz] = [1, 2, 3, 4].map(|seed| data(seed, n));
            let (mut z, mut dlog_var) = (vec![0.0; n], vec![0.0; n]);
            reference::fwd(&mut z, &mu, &log_var, &noise);
            reference::bwd(&mut dlog_var, &dz, &log_var, &noise);
            // A handful of roundings of products below 3.5² · e^1.75 / 2 and 3.5 · e^1.75 + 3.5.
            for (make, eps) in [(f32s as fn(&[f64]) -> Buffer, EPS), (f64s, f64::EPSILON)] {
                let tol = Tol { abs: 40.0 * 5.0 * eps, rel: 0.0 };
                let [got_z, got_dlog_var] = run(make, n);
                assert_close(&got_z, &z, tol);
                assert_close(&got_dlog_var, &dlog_var, tol);
            }
        }
    }

    #[test]
    fn gradients() {
        let n = 9;
        let [mu, log_var, noise, dz] = [1, 2, 3, 4].map(|seed| data(seed, n));
        let loss = |mu: &[f64], log_var: &[f64]| {
            let mut z = out64(n);
            fwd(&Device::Cpu, &mut z, &f64s(mu), &f64s(log_var), &f64s(&noise))
                .expect("shapes agree");
            inner(&z.to_f64().expect("on the CPU"), &dz)
        };
        let [_, dlog_var] = run(f64s, n);
        let tol = Tol { abs: 1e-7, rel: 1e-7 };
        gradcheck(|log_var| loss(&mu, log_var), &log_var, &dlog_var, tol);
        gradcheck(|mu| loss(mu, &log_var), &mu, &dz, tol);
    }

    #[test]
    fn same_bits_on_any_number_of_threads() {
        assert_same_on_any_pool(|| run(f32s, 50_001).concat());
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let refused = fwd(&Device::Cpu, &mut out32(3), &out32(3), &out32(3), &out32(4));
        assert!(matches!(refused, Err(Error::Shape { arg: "noise", expected: 3, got: 4, .. })));
        let refused = bwd(&Device::Cpu, &mut out32(3), &out32(2), &out32(3), &out32(3));
        assert!(matches!(refused, Err(Error::Shape { arg: "dz", .. })));
        let refused = fwd(&Device::Cpu, &mut out32(3), &out64(3), &out32(3), &out32(3));
        assert!(matches!(refused, Err(Error::DType { .. })));
    }
}
