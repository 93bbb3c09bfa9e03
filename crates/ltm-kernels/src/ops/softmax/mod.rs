//! The softmax of rows, and its gradient from the result.

mod cpu;
mod cuda;
pub mod reference;

use crate::shape::{check_extents, check_len, on_float};
use crate::{Buffer, Cost, Device, Result};

const OP: &str = "softmax";

/// Extents of one call: `rows` rows of width `c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoftmaxDims {
    /// Rows, each with a sum of its own.
    pub rows: usize,
    /// Width of a row.
    pub c: usize,
}

impl SoftmaxDims {
    /// Refuses empty extents and products past the address space.
    ///
    /// # Errors
    /// [`Error::Dims`](crate::Error::Dims) naming the extent.
    pub fn validate(&self) -> Result<()> {
        check_extents(OP, &[("rows", self.rows), ("c", self.c)])
    }

    /// What [`fwd`] costs.
    pub fn cost_fwd(&self) -> Cost {
        Cost::new(5 * self.rows * self.c, 2 * self.rows * self.c)
    }

    /// What [`bwd`] costs.
    pub fn cost_bwd(&self) -> Cost {
        Cost::new(4 * self.rows * self.c, 3 * self.rows * self.c)
    }
}

/// `out[r,:] = exp(x[r,:]) / Σ_c exp(x[r,c])`, computed relative to the row's maximum.
///
/// # Shapes
/// `x (rows,C)` → `out (rows,C)`.
///
/// # Errors
/// [`Error::Dims`](crate::Error::Dims), [`Error::Shape`](crate::Error::Shape) or
/// [`Error::DType`](crate::Error::DType) when dims, lengths or types disagree.
pub fn fwd(device: &Device, out: &mut Buffer, x: &Buffer, dims: SoftmaxDims) -> Result<()> {
    dims.validate()?;
    check_len(OP, "out", out.len(), dims.rows * dims.c)?;
    check_len(OP, "x", x.len(), dims.rows * dims.c)?;
    match device {
        Device::Cuda(context) => cuda::fwd(context, out, x, dims),
        Device::Cpu => on_float!(out.dtype(), T => {
            cpu::fwd::<T>(out.as_mut_slice()?, x.as_slice()?, dims);
            Ok(())
        }),
    }
}

/// Gradient of [`fwd`]: `dx[r,:] = out[r,:] · (dout[r,:] - Σ_c dout[r,c]·out[r,c])`.
///
/// # Shapes
/// `dout`, `out (rows,C)` → `dx (rows,C)`; `out` is the result of [`fwd`].
///
/// # Errors
/// As [`fwd`].
pub fn bwd(
    device: &Device,
    dx: &mut Buffer,
    dout: &Buffer,
    out: &Buffer,
    dims: SoftmaxDims,
) -> Result<()> {
    dims.validate()?;
    check_len(OP, "dx", dx.len(), dims.rows * dims.c)?;
    check_len(OP, "dout", dout.len(), dims.rows * dims.c)?;
    check_len(OP, "out", out.len(), dims.rows * dims.c)?;
    match device {
        Device::Cuda(context) => cuda::bwd(context, dx, dout, out, dims),
        Device::Cpu => on_float!(dx.dtype(), T => {
            cpu::bwd::<T>(dx.as_mut_slice()?, dout.as_slice()?, out.as_slice()?, dims);
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

    const CPU: &Device = &Device::Cpu;

    /// The softmax and the gradient that starts from it.
    fn run(make: fn(&[f64]) -> Buffer, dims: SoftmaxDims) -> [Vec<f64>; 2] {
        let n = dims.rows * dims.c;
        let (x, dout) = (make(&data(1, n)), make(&data(2, n)));
        let mut outs = [(); 2].map(|()| make(&vec![f64::NAN; n]));
        let [out, dx] = &mut outs;
        fwd(CPU, out, &x, dims).expect("shapes agree");
        bwd(CPU, dx, &dout, out, dims).expect("shapes agree");
        outs.map(|buffer| buffer.to_f64().expect("on the CPU"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn agrees_with_the_reference(rows in 1usize..40, c in 1usize..90) {
            let dims = SoftmaxDims { rows, c };
            let n = rows * c;
            let (mut out, mut dx) = (vec![0.0; n], vec![0.0; n]);
            reference::fwd(&mut out, &data(1, n), dims);
            reference::bwd(&mut dx, &data(2, n), &out, dims);
            for (make, eps) in [(f32s as fn(&[f64]) -> Buffer, EPS), (f64s, f64::EPSILON)] {
                let [got_out, got_dx] = run(make, dims);
                // Sums of c numbers, a few roundings each; differences of up to 7.
                let eps = eps * (c as f64 + 8.0);
                assert_close(&got_out, &out, Tol { abs: 0.0, rel: eps });
                assert_close(&got_dx, &dx, Tol { abs: 7.0 * eps, rel: 0.0 });
            }
        }
    }

    #[test]
    fn gradients() {
        let dims = SoftmaxDims { rows: 3, c: 5 };
        let dout = data(2, 15);
        let loss = |x: &[f64]| {
            let mut out = out64(15);
            fwd(CPU, &mut out, &f64s(x), dims).expect("shapes agree");
            inner(&out.to_f64().expect("on the CPU"), &dout)
        };
        let [_, dx] = run(f64s, dims);
        gradcheck(loss, &data(1, 15), &dx, Tol { abs: 1e-7, rel: 1e-7 });
    }

    #[test]
    fn large_and_excluded_scores_are_finite() {
        let x = f32s(&[1e4, 1e4, f64::NEG_INFINITY, -1e4, -1e4, -2e4]);
        let mut out = out32(6);
        fwd(CPU, &mut out, &x, SoftmaxDims { rows: 2, c: 3 }).expect("shapes agree");
        assert_eq!(out.to_f64().expect("on the CPU"), [0.5, 0.5, 0.0, 0.5, 0.5, 0.0]);
    }

    #[test]
    fn same_bits_on_any_number_of_threads() {
        assert_same_on_any_pool(|| run(f32s, SoftmaxDims { rows: 503, c: 97 }).concat());
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let dims = SoftmaxDims { rows: 2, c: 3 };
        let refused = fwd(CPU, &mut out32(6), &out32(5), dims);
        assert!(matches!(refused, Err(Error::Shape { arg: "x", .. })));
        let refused = bwd(CPU, &mut out32(6), &out32(6), &out32(7), dims);
        assert!(matches!(refused, Err(Error::Shape { arg: "out", .. })));
        let refused = fwd(CPU, &mut out32(6), &out64(6), dims);
        assert!(matches!(refused, Err(Error::DType { .. })));
        let empty = SoftmaxDims { c: 0, ..dims };
        assert!(matches!(fwd(CPU, &mut out32(0), &out32(0), empty), Err(Error::Dims { .. })));
    }
}
