//! One AdamW step on a buffer of parameters, in place.

mod cpu;
mod cuda;
pub mod reference;

use crate::shape::{check_dims, check_len, on_float};
use crate::{Buffer, Cost, Device, Float, Result};

const OP: &str = "adamw";

/// Hyperparameters of a step. There is no default, because rates and decay differ between weights
/// and latents.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment, in `0..1`.
    pub beta1: f64,
    /// Decay of the second moment, in `0..1`.
    pub beta2: f64,
    /// Added to the square root of the second moment; above 0.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

impl AdamW {
    /// Checks each field's range.
    ///
    /// # Errors
    /// [`Error::Dims`](crate::Error::Dims) naming the field.
    pub fn validate(&self) -> Result<()> {
        let ok = |name: &str, value: f64, holds: bool, range: &str| {
            check_dims(OP, holds, || format!("{name} is {value}, it must be {range}"))
        };
        let unit = |beta: f64| (0.0..1.0).contains(&beta);
        ok("lr", self.lr, self.lr.is_finite() && self.lr >= 0.0, "finite and at least 0")?;
        ok("beta1", self.beta1, unit(self.beta1), "in 0..1")?;
        ok("beta2", self.beta2, unit(self.beta2), "in 0..1")?;
        ok("eps", self.eps, self.eps.is_finite() && self.eps > 0.0, "finite and above 0")?;
        let decay = self.weight_decay;
        ok("weight_decay", decay, decay.is_finite() && decay >= 0.0, "finite and at least 0")
    }
}

/// Fields of [`Factors`].
pub const FACTORS: usize = 8;

/// The factors of a step in the parameters' type, each rounded once.
#[derive(Clone, Copy, Debug)]
pub struct Factors<T> {
    /// Multiplies the gradient, for clipping or averaging.
    pub grad_scale: T,
    /// `1 − lr·weight_decay`.
    pub keep: T,
    /// `1 − beta1`.
    pub rate1: T,
    /// `beta2`.
    pub beta2: T,
    /// `1 − beta2`.
    pub rate2: T,
    /// `1/sqrt(1 − beta2^step)`.
    pub root_scale: T,
    /// The `eps` of [`AdamW`].
    pub eps: T,
    /// `lr/(1 − beta1^step)`.
    pub step_size: T,
}

impl<T: Float> Factors<T> {
    /// Factors of step `step`, counted from 1.
    pub fn new(adamw: AdamW, grad_scale: f64, step: u64) -> Self {
        let correction = |beta: f64| 1.0 - beta.powf(step as f64);
        Self {
            grad_scale: T::from_f64(grad_scale),
            keep: T::from_f64(1.0 - adamw.lr * adamw.weight_decay),
            rate1: T::from_f64(1.0 - adamw.beta1),
            beta2: T::from_f64(adamw.beta2),
            rate2: T::from_f64(1.0 - adamw.beta2),
            root_scale: T::from_f64(1.0 / correction(adamw.beta2).sqrt()),
            eps: T::from_f64(adamw.eps),
            step_size: T::from_f64(adamw.lr / correction(adamw.beta1)),
        }
    }

    /// The fields in order: a row of the table that [`scheduled`] reads.
    pub fn to_row(&self) -> [T; FACTORS] {
        let Self { grad_scale, keep, rate1, beta2, rate2, root_scale, eps, step_size } = *self;
        [grad_scale, keep, rate1, beta2, rate2, root_scale, eps, step_size]
    }

    fn from_row(row: [T; FACTORS]) -> Self {
        let [grad_scale, keep, rate1, beta2, rate2, root_scale, eps, step_size] = row;
        Self { grad_scale, keep, rate1, beta2, rate2, root_scale, eps, step_size }
    }
}

/// What [`step`] costs on `n` parameters.
pub fn cost(n: usize) -> Cost {
    Cost::new(14 * n, 7 * n)
}

/// Takes one step: with `g = grad_scale·grad`, `param *= 1 − lr·weight_decay`, `m += (1 − beta1)(g − m)`,
/// `v = beta2·v + (1 − beta2)g²`, `param -= lr/(1 − beta1^step) · m / (sqrt(v)/sqrt(1 − beta2^step) + eps)`.
///
/// # Shapes
/// All of one length. `step` counts from 1.
///
/// # Errors
/// [`Error::Dims`](crate::Error::Dims) when `step` is 0 or [`AdamW::validate`] refuses;
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) when lengths or types
/// disagree.
///
/// # Source
/// Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", in the order of operations that
/// PyTorch's `AdamW` uses.
pub fn step(
    device: &Device,
    param: &mut Buffer,
    m: &mut Buffer,
    v: &mut Buffer,
    grad: &Buffer,
    grad_scale: f64,
    adamw: AdamW,
    step: u64,
) -> Result<()> {
    adamw.validate()?;
    check_dims(OP, step > 0, || "step is 0, steps count from 1".into())?;
    check_len(OP, "m", m.len(), param.len())?;
    check_len(OP, "v", v.len(), param.len())?;
    check_len(OP, "grad", grad.len(), param.len())?;
    match device {
        Device::Cuda(context) => {
            cuda::step(context, param, m, v, grad, Factors::new(adamw, grad_scale, step))
        }
        Device::Cpu => on_float!(param.dtype(), T => {
            let (param, m, v) = (param.as_mut_slice()?, m.as_mut_slice()?, v.as_mut_slice()?);
            cpu::step::<T>(param, m, v, grad.as_slice()?, Factors::new(adamw, grad_scale, step));
            Ok(())
        }),
    }
}

/// As [`step`], but with the factors in row `step[0]` of a table. Table and step number are on the
/// device, so many steps can run without the host.
///
/// # Shapes
/// `param`, `m`, `v`, `grad` of one length; `factors (S,8)` holds rows of [`Factors::to_row`]; `step (1)` of
/// `i32` counts from 0.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) when lengths or types
/// disagree; [`Error::Index`](crate::Error::Index) on the CPU when the step is outside the table. On CUDA
/// the parameters and moments become NaN then.
pub fn scheduled(
    device: &Device,
    param: &mut Buffer,
    m: &mut Buffer,
    v: &mut Buffer,
    grad: &Buffer,
    factors: &Buffer,
    step: &Buffer,
) -> Result<()> {
    check_len(OP, "m", m.len(), param.len())?;
    check_len(OP, "v", v.len(), param.len())?;
    check_len(OP, "grad", grad.len(), param.len())?;
    let steps = factors.len() / FACTORS;
    check_len(OP, "factors", factors.len(), steps.max(1) * FACTORS)?;
    check_len(OP, "step", step.len(), 1)?;
    match device {
        Device::Cuda(context) => cuda::scheduled(context, param, m, v, grad, factors, step),
        Device::Cpu => on_float!(param.dtype(), T => {
            let got = step.as_slice::<i32>()?[0];
            let (rows, _) = factors.as_slice::<T>()?.as_chunks();
            let row = usize::try_from(got).ok().and_then(|i| rows.get(i).copied());
            let refused = crate::Error::Index { op: OP, position: 0, got: got.into(), limit: steps };
            let factors = Factors::from_row(row.ok_or(refused)?);
            let (param, m, v) = (param.as_mut_slice()?, m.as_mut_slice()?, v.as_mut_slice()?);
            cpu::step::<T>(param, m, v, grad.as_slice()?, factors);
            Ok(())
        }),
    }
}

#[cfg(test)]
mod tests {
    use ltm_testkit::{Tol, assert_close};
    use proptest::prelude::*;

    use super::*;
    use crate::Error;
    use crate::ops::testing::{EPS, assert_same_on_any_pool, data, f32s, f64s, out32};

    const ADAMW: AdamW = AdamW { lr: 0.01, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };

    /// `param`, `m` and `v` after three steps, through buffers made by `make`.
    fn run(make: fn(&[f64]) -> Buffer, n: usize) -> [Vec<f64>; 3] {
        let (mut param, mut m, mut v) =
            (make(&data(1, n)), make(&vec![0.0; n]), make(&vec![0.0; n]));
        for t in 1..4 {
            let grad = make(&data(10 + t, n));
            step(&Device::Cpu, &mut param, &mut m, &mut v, &grad, 0.5, ADAMW, t)
                .expect("shapes agree");
        }
        [param, m, v].map(|buffer| buffer.to_f64().expect("on the CPU"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn agrees_with_the_reference(n in 1usize..2000) {
            let (mut param, mut m, mut v) = (data(1, n), vec![0.0; n], vec![0.0; n]);
            for t in 1..4 {
                let factors = Factors::new(ADAMW, 0.5, t);
                reference::step(&mut param, &mut m, &mut v, &data(10 + t, n), factors);
            }
            // About ten roundings per step of numbers within 3.5. A step m/sqrt(v) is of size 1 and
            // as well conditioned as m, whose terms may cancel: its error is a few roundings of the
            // largest term.
            for (make, eps) in [(f32s as fn(&[f64]) -> Buffer, EPS), (f64s, f64::EPSILON)] {
                let tol = Tol { abs: 3.5 * 30.0 * eps, rel: 0.0 };
                let [got_param, got_m, got_v] = run(make, n);
                assert_close(&got_param, &param, tol);
                assert_close(&got_m, &m, tol);
                assert_close(&got_v, &v, tol);
            }
        }
    }

    #[test]
    fn first_steps_by_hand() {
        let adamw = AdamW { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.5 };
        let (mut param, mut m, mut v) = (f64s(&[2.0]), f64s(&[0.0]), f64s(&[0.0]));
        let mut take = |grad: f64, t| {
            step(&Device::Cpu, &mut param, &mut m, &mut v, &f64s(&[grad]), 1.0, adamw, t)
                .expect("shapes agree");
            param.to_f64().expect("on the CPU")[0]
        };
        let tol = Tol { abs: 0.0, rel: 1e-12 };
        // The first step is lr times the sign, after the decay.
        assert_close(&[take(-4.0, 1)], &[2.0 * 0.95 + 0.1 * 4.0 / (4.0 + 1e-8)], tol);
        // m = 0.9·(−0.4) + 0.1·2 = −0.16, v = 0.999·0.016 + 0.001·4 = 0.019984.
        let (first, root) =
            (1.9 + 0.4 / (4.0 + 1e-8), (0.019984f64 / (1.0 - 0.999 * 0.999)).sqrt());
        assert_close(&[take(2.0, 2)], &[first * 0.95 + 0.1 * (0.16 / 0.19) / (root + 1e-8)], tol);
    }

    #[test]
    fn a_table_of_factors_gives_the_same_bits() {
        let n = 1000;
        let rows = (1..4).flat_map(|t| Factors::<f32>::new(ADAMW, 0.5, t).to_row());
        let factors = Buffer::from_vec(rows.collect());
        let [mut param, mut m, mut v] = [f32s(&data(1, n)), f32s(&[0.0; 1000]), f32s(&[0.0; 1000])];
        let mut take = |t: i32| {
            let (grad, step) = (f32s(&data((11 + t) as u64, n)), Buffer::from_vec(vec![t]));
            scheduled(&Device::Cpu, &mut param, &mut m, &mut v, &grad, &factors, &step)?;
            Ok([&param, &m, &v].map(|buffer| buffer.to_f64().expect("on the CPU")))
        };
        assert_eq!((take(0), take(1)).0.map(|_| ()), Ok(()));
        assert_eq!(take(2), Ok(run(f32s, n)));
        for got in [3, -1] {
            let outside = Error::Index { op: OP, position: 0, got: got.into(), limit: 3 };
            assert_eq!(take(got), Err(outside));
        }
    }

    #[test]
    fn nan_shows_in_the_parameter() {
        let (mut param, mut m, mut v) = (f32s(&[1.0; 3]), f32s(&[0.0; 3]), f32s(&[0.0; 3]));
        let grad = f32s(&[1.0, f64::NAN, 1.0]);
        step(&Device::Cpu, &mut param, &mut m, &mut v, &grad, 1.0, ADAMW, 1).expect("shapes agree");
        assert_eq!(
            param.to_f64().expect("on the CPU").iter().map(|x| x.is_nan()).collect::<Vec<_>>(),
            [false, true, false]
        );
    }

    #[test]
    fn same_bits_on_any_number_of_threads() {
        assert_same_on_any_pool(|| run(f32s, 50_001).concat());
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let try_step = |param, m, v, grad, adamw, t| {
            let [mut param, mut m, mut v] = [param, m, v].map(out32);
            step(&Device::Cpu, &mut param, &mut m, &mut v, &out32(grad), 1.0, adamw, t)
        };
        assert_eq!(try_step(3, 3, 3, 3, ADAMW, 1), Ok(()));
        for (m, v, grad, arg) in [(2, 3, 3, "m"), (3, 4, 3, "v"), (3, 3, 2, "grad")] {
            let refused = try_step(3, m, v, grad, ADAMW, 1);
            assert!(matches!(refused, Err(Error::Shape { arg: got, .. }) if got == arg));
        }
        assert!(matches!(try_step(3, 3, 3, 3, ADAMW, 0), Err(Error::Dims { .. })));
        for adamw in [
            AdamW { lr: f64::NAN, ..ADAMW },
            AdamW { beta1: 1.0, ..ADAMW },
            AdamW { beta2: -0.1, ..ADAMW },
            AdamW { eps: 0.0, ..ADAMW },
            AdamW { weight_decay: f64::INFINITY, ..ADAMW },
        ] {
            assert!(matches!(try_step(3, 3, 3, 3, adamw, 1), Err(Error::Dims { .. })));
        }
    }
}
