//! Root-mean-square normalisation of rows, with a learned weight per column.

mod cpu;
mod cuda;
pub mod reference;

use crate::shape::{check_extents, check_len, on_float};
use crate::{Buffer, Cost, Device, Float, Result};

const OP: &str = "rms_norm";

/// Extents of one call: `rows` vectors of width `c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RmsNormDims {
    /// Vectors to normalise, `B·T` in a model.
    pub rows: usize,
    /// Width of a vector.
    pub c: usize,
}

impl RmsNormDims {
    /// Refuses empty extents and products past the address space.
    ///
    /// # Errors
    /// [`Error::Dims`](crate::Error::Dims) naming the extent.
    pub fn validate(&self) -> Result<()> {
        check_extents(OP, &[("rows", self.rows), ("c", self.c)])
    }

    /// What [`fwd`] costs.
    pub fn cost_fwd(&self) -> Cost {
        let n = self.rows * self.c;
        Cost::new(4 * n, 2 * n + self.c)
    }

    /// What [`bwd`] costs when both gradients are computed.
    pub fn cost_bwd(&self) -> Cost {
        let n = self.rows * self.c;
        Cost::new(12 * n, 3 * n + 2 * self.c)
    }

    /// Elements of scratch that [`bwd`] needs for `dweight`: one partial row per block of rows; on
    /// CUDA, where it is always `f32`, at least one element per row.
    pub fn scratch_len(&self, device: &Device) -> usize {
        let partials = self.partials() * self.c;
        match device {
            Device::Cpu => partials,
            Device::Cuda(_) => partials.max(self.rows),
        }
    }

    /// Blocks of rows, each with a partial of its own.
    pub(crate) fn partials(&self) -> usize {
        self.rows.div_ceil(self.rows_per_block())
    }

    /// Rows summed into one partial. Depends only on the dims, so the order of the sum does too.
    pub(crate) fn rows_per_block(&self) -> usize {
        self.rows.div_ceil(64).max(16)
    }
}

/// Normalises each row: `out = x · weight / sqrt(mean(x²) + eps)`. On CUDA `x` and `out` are `f32` or
/// `bf16`, `weight` is `f32`.
///
/// # Shapes
/// `x (rows,C)`, `weight (C)` → `out (rows,C)`.
///
/// # Errors
/// [`Error::Dims`](crate::Error::Dims), [`Error::Shape`](crate::Error::Shape) or
/// [`Error::DType`](crate::Error::DType) when dims, lengths or types disagree.
///
/// # Source
/// Zhang and Sennrich 2019, "Root Mean Square Layer Normalization".
pub fn fwd(
    device: &Device,
    out: &mut Buffer,
    x: &Buffer,
    weight: &Buffer,
    eps: f64,
    dims: RmsNormDims,
) -> Result<()> {
    dims.validate()?;
    let n = dims.rows * dims.c;
    check_len(OP, "out", out.len(), n)?;
    check_len(OP, "x", x.len(), n)?;
    check_len(OP, "weight", weight.len(), dims.c)?;
    match device {
        Device::Cuda(context) => cuda::fwd(context, out, x, weight, eps, dims),
        Device::Cpu => on_float!(out.dtype(), T => {
            let eps = T::from_f64(eps);
            cpu::fwd::<T>(out.as_mut_slice()?, x.as_slice()?, weight.as_slice()?, eps, dims);
            Ok(())
        }),
    }
}

/// Adds a residual, then normalises each row of the sum: `sum = x + residual`, `out` as [`fwd`] of
/// `sum`. On CUDA in `bf16` the rounded sum is normalised.
///
/// # Shapes
/// `x`, `residual (rows,C)`, `weight (C)` → `sum`, `out (rows,C)`.
///
/// # Errors
/// As [`fwd`].
///
/// # Source
/// [`fwd`] after a residual connection, in one pass over memory.
pub fn fwd_add(
    device: &Device,
    sum: &mut Buffer,
    out: &mut Buffer,
    x: &Buffer,
    residual: &Buffer,
    weight: &Buffer,
    eps: f64,
    dims: RmsNormDims,
) -> Result<()> {
    dims.validate()?;
    let n = dims.rows * dims.c;
    check_len(OP, "sum", sum.len(), n)?;
    check_len(OP, "out", out.len(), n)?;
    check_len(OP, "x", x.len(), n)?;
    check_len(OP, "residual", residual.len(), n)?;
    check_len(OP, "weight", weight.len(), dims.c)?;
    match device {
        Device::Cuda(context) => cuda::fwd_add(context, sum, out, x, residual, weight, eps, dims),
        Device::Cpu => on_float!(out.dtype(), T => {
            let (sum, out) = (sum.as_mut_slice()?, out.as_mut_slice()?);
            let (x, residual, weight) = (x.as_slice()?, residual.as_slice()?, weight.as_slice()?);
            cpu::fwd_add::<T>(sum, out, x, residual, weight, T::from_f64(eps), dims);
            Ok(())
        }),
    }
}

/// Gradients of [`fwd`]; only those requested are computed. `dresidual` is the gradient that
/// reaches `x` past the norm, and is added to `dx`: this is the gradient of [`fwd_add`], with its
/// `sum` as `x`.
///
/// # Shapes
/// `dout`, `x`, `dresidual (rows,C)`, `weight (C)` → `dx (rows,C)`, `dweight (C)`. `scratch` holds
/// [`RmsNormDims::scratch_len`] elements; it is read and checked only when `dweight` is computed.
///
/// # Errors
/// As [`fwd`].
///
/// # Source
/// With `r = 1/sqrt(mean(x²) + eps)`: `dx = r·(weight·dout − x·r²·mean(weight·dout·x))` and
/// `dweight = Σ_rows dout·x·r`.
pub fn bwd(
    device: &Device,
    dx: Option<&mut Buffer>,
    dweight: Option<&mut Buffer>,
    scratch: &mut Buffer,
    dout: &Buffer,
    x: &Buffer,
    weight: &Buffer,
    dresidual: Option<&Buffer>,
    eps: f64,
    dims: RmsNormDims,
) -> Result<()> {
    dims.validate()?;
    let n = dims.rows * dims.c;
    check_len(OP, "dout", dout.len(), n)?;
    check_len(OP, "x", x.len(), n)?;
    check_len(OP, "weight", weight.len(), dims.c)?;
    if let Some(dresidual) = &dresidual {
        check_len(OP, "dresidual", dresidual.len(), n)?;
    }
    if let Some(dx) = &dx {
        check_len(OP, "dx", dx.len(), n)?;
    }
    if let Some(dweight) = &dweight {
        check_len(OP, "dweight", dweight.len(), dims.c)?;
        check_len(OP, "scratch", scratch.len(), dims.scratch_len(device))?;
    }
    match device {
        Device::Cuda(context) => {
            cuda::bwd(context, dx, dweight, scratch, dout, x, weight, dresidual, eps, dims)
        }
        Device::Cpu => on_float!(dout.dtype(), T => {
            let (dout, x, weight) = (dout.as_slice()?, x.as_slice()?, weight.as_slice()?);
            let eps = T::from_f64(eps);
            if let Some(dx) = dx {
                let dresidual = dresidual.map(Buffer::as_slice).transpose()?;
                cpu::bwd_x::<T>(dx.as_mut_slice()?, dout, x, weight, dresidual, eps, dims);
            }
            if let Some(dweight) = dweight {
                let (dweight, scratch) = (dweight.as_mut_slice()?, scratch.as_mut_slice()?);
                cpu::bwd_weight::<T>(dweight, scratch, dout, x, eps, dims);
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

    const NORM_EPS: f64 = 1e-2;

    /// `out`, `dx` and `dweight` through buffers made by `make`.
    fn run(make: fn(&[f64]) -> Buffer, dims: RmsNormDims) -> [Vec<f64>; 3] {
        let n = dims.rows * dims.c;
        let (x, weight, dout) = (make(&data(1, n)), make(&data(2, dims.c)), make(&data(3, n)));
        let poisoned = |n| make(&vec![f64::NAN; n]);
        let (mut out, mut dx, mut dweight) = (poisoned(n), poisoned(n), poisoned(dims.c));
        let mut scratch = poisoned(dims.scratch_len(&Device::Cpu));
        fwd(&Device::Cpu, &mut out, &x, &weight, NORM_EPS, dims).expect("shapes agree");
        let (dx_wanted, dweight_wanted) = (Some(&mut dx), Some(&mut dweight));
        bwd(
            &Device::Cpu,
            dx_wanted,
            dweight_wanted,
            &mut scratch,
            &dout,
            &x,
            &weight,
            None,
            NORM_EPS,
            dims,
        )
        .expect("shapes agree");
        [out, dx, dweight].map(|buffer| buffer.to_f64().expect("on the CPU"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn agrees_with_the_reference(rows in 1usize..70, c in 1usize..90) {
            let dims = RmsNormDims { rows, c };
            let n = rows * c;
            let (x, weight, dout) = (data(1, n), data(2, c), data(3, n));
            let (mut out, mut dx, mut dweight) = (vec![0.0; n], vec![0.0; n], vec![0.0; c]);
            reference::fwd(&mut out, &x, &weight, NORM_EPS, dims);
            reference::bwd_x(&mut dx, &dout, &x, &weight, None, NORM_EPS, dims);
            reference::bwd_weight(&mut dweight, &dout, &x, NORM_EPS, dims);
            // Roundings on the way to one number: a lane's share of the row, the tree, a few products.
            let steps = c as f64 / 16.0 + 16.0;
            // Inputs stay within 3.5, the inverse root below 10, |x|·inverse below sqrt(C).
            let (product, spread) = (3.5 * 3.5, (c as f64).sqrt());
            for (make, eps) in [(f32s as fn(&[f64]) -> Buffer, EPS), (f64s, f64::EPSILON)] {
                let [got_out, got_dx, got_dweight] = run(make, dims);
                assert_close(&got_out, &out, Tol { abs: 0.0, rel: steps * eps });
                assert_close(&got_dx, &dx, Tol { abs: 10.0 * product * spread * steps * eps, rel: 0.0 });
                let sum = rows as f64 * 3.5 * spread * (rows as f64 + steps);
                assert_close(&got_dweight, &dweight, Tol { abs: sum * eps, rel: 0.0 });
            }
        }
    }

    #[test]
    fn gradients() {
        let dims = RmsNormDims { rows: 3, c: 5 };
        let (x, weight, dout) = (data(1, 15), data(2, 5), data(3, 15));
        let loss = |x: &[f64], weight: &[f64]| {
            let mut out = out64(15);
            fwd(&Device::Cpu, &mut out, &f64s(x), &f64s(weight), NORM_EPS, dims)
                .expect("shapes agree");
            inner(&out.to_f64().expect("on the CPU"), &dout)
        };
        let [_, dx, dweight] = run(f64s, dims);
        let tol = Tol { abs: 1e-7, rel: 1e-7 };
        gradcheck(|x| loss(x, &weight), &x, &dx, tol);
        gradcheck(|weight| loss(&x, weight), &weight, &dweight, tol);
    }

    /// `sum`, `out` and `dx` with a residual, through buffers made by `make`.
    fn run_add(make: fn(&[f64]) -> Buffer, dims: RmsNormDims) -> [Vec<f64>; 3] {
        let n = dims.rows * dims.c;
        let [x, residual, dout, dresidual] = [1, 4, 3, 5].map(|seed| make(&data(seed, n)));
        let weight = make(&data(2, dims.c));
        let [mut sum, mut out, mut dx] = [(); 3].map(|()| make(&vec![f64::NAN; n]));
        let device = &Device::Cpu;
        fwd_add(device, &mut sum, &mut out, &x, &residual, &weight, NORM_EPS, dims)
            .expect("shapes agree");
        let (dx_wanted, mut scratch) = (Some(&mut dx), Buffer::empty());
        let past = Some(&dresidual);
        bwd(device, dx_wanted, None, &mut scratch, &dout, &sum, &weight, past, NORM_EPS, dims)
            .expect("shapes agree");
        [sum, out, dx].map(|buffer| buffer.to_f64().expect("on the CPU"))
    }

    #[test]
    fn a_residual_is_added_before_and_its_gradient_after() {
        let dims = RmsNormDims { rows: 7, c: 37 };
        let n = dims.rows * dims.c;
        let [x, residual, dout, dresidual] = [1, 4, 3, 5].map(|seed| data(seed, n));
        let weight = data(2, dims.c);
        let [mut sum, mut out, mut dx] = [(); 3].map(|()| vec![0.0; n]);
        reference::fwd_add(&mut sum, &mut out, &x, &residual, &weight, NORM_EPS, dims);
        reference::bwd_x(&mut dx, &dout, &sum, &weight, Some(&dresidual), NORM_EPS, dims);
        // As `agrees_with_the_reference`, for sums within 7 whose inverse root stays below 10.
        let steps = dims.c as f64 / 16.0 + 16.0;
        for (make, eps) in [(f32s as fn(&[f64]) -> Buffer, EPS), (f64s, f64::EPSILON)] {
            let [got_sum, got_out, got_dx] = run_add(make, dims);
            assert_close(&got_sum, &sum, Tol { abs: 0.0, rel: eps });
            // Cancellation in the sum: its rounding is relative to 7.
            let abs = 7.0 * 10.0 * 3.5 * steps * eps;
            assert_close(&got_out, &out, Tol { abs, rel: 0.0 });
            let abs = 10.0 * 7.0 * 3.5 * (dims.c as f64).sqrt() * steps * eps;
            assert_close(&got_dx, &dx, Tol { abs, rel: 0.0 });
        }
    }

    #[test]
    fn gradient_with_a_residual() {
        let dims = RmsNormDims { rows: 3, c: 5 };
        let (x, residual, weight) = (data(1, 15), data(4, 15), data(2, 5));
        let (dout, dsum) = (data(3, 15), data(5, 15));
        let loss = |x: &[f64]| {
            let (mut sum, mut out) = (out64(15), out64(15));
            let (x, residual, weight) = (f64s(x), f64s(&residual), f64s(&weight));
            fwd_add(&Device::Cpu, &mut sum, &mut out, &x, &residual, &weight, NORM_EPS, dims)
                .expect("shapes agree");
            let of = |x: Buffer, d| inner(&x.to_f64().expect("on the CPU"), d);
            of(out, &dout) + of(sum, &dsum)
        };
        let [_, _, dx] = run_add(f64s, dims);
        gradcheck(loss, &x, &dx, Tol { abs: 1e-7, rel: 1e-7 });
    }

    #[test]
    fn same_bits_on_any_number_of_threads() {
        assert_same_on_any_pool(|| run(f32s, RmsNormDims { rows: 1500, c: 37 }).concat());
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let dims = RmsNormDims { rows: 2, c: 3 };
        let try_fwd = |out, x, weight, dims| {
            fwd(&Device::Cpu, &mut out32(out), &out32(x), &out32(weight), NORM_EPS, dims)
        };
        assert_eq!(try_fwd(6, 6, 3, dims), Ok(()));
        for (out, x, weight, arg) in [(5, 6, 3, "out"), (6, 7, 3, "x"), (6, 6, 2, "weight")] {
            let refused = try_fwd(out, x, weight, dims);
            assert!(matches!(refused, Err(Error::Shape { arg: got, .. }) if got == arg));
        }
        for dims in [RmsNormDims { c: 0, ..dims }, RmsNormDims { rows: usize::MAX / 4, ..dims }] {
            assert!(matches!(try_fwd(6, 6, 3, dims), Err(Error::Dims { .. })));
        }
        let (dweight, mut scratch) = (Some(&mut out32(3)), out32(2));
        let (x, weight) = (out32(6), out32(3));
        let refused = fwd_add(
            &Device::Cpu,
            &mut out32(6),
            &mut out32(6),
            &out32(6),
            &out32(5),
            &out32(3),
            NORM_EPS,
            dims,
        );
        assert!(matches!(refused, Err(Error::Shape { arg: "residual", .. })));
        let refused =
            bwd(&Device::Cpu, None, dweight, &mut scratch, &x, &x, &weight, None, NORM_EPS, dims);
        assert!(matches!(refused, Err(Error::Shape { arg: "scratch", .. })));
    }
}
