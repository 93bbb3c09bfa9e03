//! Rotary position embedding of interleaved pairs `(2i, 2i+1)`.

mod cpu;
mod cuda;
pub mod reference;

use crate::shape::{check_dims, check_extents, check_len, on_float};
use crate::{Buffer, Cost, Device, Float, Result};

const OP: &str = "rope";

/// Extents of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RopeDims {
    /// Sequences in the batch.
    pub b: usize,
    /// Positions in a sequence.
    pub t: usize,
    /// Heads.
    pub h: usize,
    /// Width of a head, even.
    pub d: usize,
}

impl RopeDims {
    /// Refuses empty extents, an odd `d` and products past the address space.
    ///
    /// # Errors
    /// [`Error::Dims`](crate::Error::Dims) naming what is wrong.
    pub fn validate(&self) -> Result<()> {
        check_extents(OP, &[("b", self.b), ("t", self.t), ("h", self.h), ("d", self.d)])?;
        check_even(self.d)
    }

    /// What [`fwd`] or [`bwd`] costs.
    pub fn cost(&self) -> Cost {
        let n = self.b * self.t * self.h * self.d;
        Cost::new(3 * n, 2 * n + self.t * self.d)
    }

    fn check(
        &self,
        out: (&'static str, &Buffer),
        x: (&'static str, &Buffer),
        table: &Buffer,
    ) -> Result<()> {
        self.validate()?;
        let n = self.b * self.t * self.h * self.d;
        check_len(OP, out.0, out.1.len(), n)?;
        check_len(OP, x.0, x.1.len(), n)?;
        check_len(OP, "table", table.len(), self.t * self.d)
    }
}

fn check_even(d: usize) -> Result<()> {
    check_dims(OP, d.is_multiple_of(2), || format!("d is {d}, it must be even"))
}

/// Writes `(cos, sin)` of every position and pair.
///
/// # Shapes
/// `positions (T)` of `i32` → `table (T, D/2, 2)`.
///
/// # Errors
/// [`Error::Dims`](crate::Error::Dims) when `d` is 0 or odd; [`Error::Shape`](crate::Error::Shape) or
/// [`Error::DType`](crate::Error::DType) when lengths or types disagree.
///
/// # Source
/// Su et al. 2021, "RoFormer". As in published models, frequencies `1/theta^(2i/d)` and angles are
/// rounded to the table's type before the cosine is taken; at large positions this makes a
/// difference.
pub fn table(
    device: &Device,
    table: &mut Buffer,
    positions: &Buffer,
    theta: f64,
    d: usize,
) -> Result<()> {
    check_extents(OP, &[("t", positions.len()), ("d", d)])?;
    check_even(d)?;
    check_len(OP, "table", table.len(), positions.len() * d)?;
    match device {
        Device::Cuda(context) => cuda::table(context, table, positions, theta, d),
        Device::Cpu => on_float!(table.dtype(), T => {
            reference::table::<T>(table.as_mut_slice()?, positions.as_slice()?, theta, d);
            Ok(())
        }),
    }
}

/// Rotates each pair `(x[2i], x[2i+1])` of every head by its position's angle.
///
/// # Shapes
/// `x (B,T,H,D)`, `table (T, D/2, 2)` → `out (B,T,H,D)`.
///
/// # Errors
/// [`Error::Dims`](crate::Error::Dims), [`Error::Shape`](crate::Error::Shape) or
/// [`Error::DType`](crate::Error::DType) when dims, lengths or types disagree.
///
/// # Source
/// Su et al. 2021, "RoFormer".
pub fn fwd(
    device: &Device,
    out: &mut Buffer,
    x: &Buffer,
    table: &Buffer,
    dims: RopeDims,
) -> Result<()> {
    dims.check(("out", out), ("x", x), table)?;
    match device {
        Device::Cuda(context) => cuda::rotate(context, out, x, table, 1.0, dims),
        Device::Cpu => on_float!(out.dtype(), T => {
            cpu::rotate(out.as_mut_slice()?, x.as_slice()?, table.as_slice()?, T::ONE, dims);
            Ok(())
        }),
    }
}

/// Gradient of [`fwd`]: the rotation by the opposite angle.
///
/// # Shapes
/// `dout (B,T,H,D)`, `table (T, D/2, 2)` → `dx (B,T,H,D)`.
///
/// # Errors
/// As [`fwd`].
///
/// # Source
/// A rotation's transpose is its inverse.
pub fn bwd(
    device: &Device,
    dx: &mut Buffer,
    dout: &Buffer,
    table: &Buffer,
    dims: RopeDims,
) -> Result<()> {
    dims.check(("dx", dx), ("dout", dout), table)?;
    match device {
        Device::Cuda(context) => cuda::rotate(context, dx, dout, table, -1.0, dims),
        Device::Cpu => on_float!(dx.dtype(), T => {
            cpu::rotate(dx.as_mut_slice()?, dout.as_slice()?, table.as_slice()?, -T::ONE, dims);
            Ok(())
        }),
    }
}

#[cfg(test)]
mod tests {
    use ltm_testkit::{Tol, assert_close, gradcheck};
    use proptest::prelude::*;

    use super::*;
    use crate::ops::testing::{
        EPS, assert_same_on_any_pool, data, f32s, f64s, inner, out32, out64,
    };
    use crate::{DType, Error};

    const THETA: f64 = 10_000.0;

    fn table_for(make: fn(&[f64]) -> Buffer, dims: RopeDims) -> Buffer {
        let positions = Buffer::from_vec((0..dims.t as i32).map(|t| 3 * t).collect());
        let mut angles = make(&vec![f64::NAN; dims.t * dims.d]);
        table(&Device::Cpu, &mut angles, &positions, THETA, dims.d).expect("shapes agree");
        angles
    }

    /// `out` and `dx` through buffers made by `make`, and the table.
    fn run(make: fn(&[f64]) -> Buffer, dims: RopeDims) -> [Vec<f64>; 3] {
        let n = dims.b * dims.t * dims.h * dims.d;
        let angles = table_for(make, dims);
        let (mut out, mut dx) = (make(&vec![f64::NAN; n]), make(&vec![f64::NAN; n]));
        fwd(&Device::Cpu, &mut out, &make(&data(1, n)), &angles, dims).expect("shapes agree");
        bwd(&Device::Cpu, &mut dx, &make(&data(2, n)), &angles, dims).expect("shapes agree");
        [out, dx, angles].map(|buffer| buffer.to_f64().expect("on the CPU"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn agrees_with_the_reference(b in 1usize..4, t in 1usize..20, h in 1usize..5, half in 1usize..20) {
            let dims = RopeDims { b, t, h, d: 2 * half };
            let n = b * t * h * dims.d;
            for (make, eps) in [(f32s as fn(&[f64]) -> Buffer, EPS), (f64s, f64::EPSILON)] {
                let [got_out, got_dx, angles] = run(make, dims);
                let (mut out, mut dx) = (vec![0.0; n], vec![0.0; n]);
                reference::fwd(&mut out, &data(1, n), &angles, dims);
                reference::bwd(&mut dx, &data(2, n), &angles, dims);
                // Two products of numbers within 3.5 and 1, and their sum.
                let tol = Tol { abs: 2.0 * 3.5 * eps, rel: 0.0 };
                assert_close(&got_out, &out, tol);
                assert_close(&got_dx, &dx, tol);
            }
        }
    }

    #[test]
    fn angles_are_rounded_to_the_table_s_type() {
        let positions = Buffer::from_vec(vec![0i32, 1, 1000]);
        let mut angles = out32(3 * 4);
        table(&Device::Cpu, &mut angles, &positions, THETA, 4).expect("shapes agree");
        let (fast, slow) = (1000f32 * 1.0, 1000f32 * (1.0 / THETA.powf(0.5)) as f32);
        let expected = [fast, slow].map(f64::from).map(|angle| [angle.cos(), angle.sin()]).concat();
        let exact = Tol { abs: 0.0, rel: EPS / 2.0 };
        assert_close(&angles.to_f64().expect("on the CPU")[..4], &[1.0, 0.0, 1.0, 0.0], exact);
        assert_close(&angles.to_f64().expect("on the CPU")[8..], &expected, exact);
    }

    #[test]
    fn gradients() {
        let dims = RopeDims { b: 2, t: 3, h: 2, d: 4 };
        let (x, dout) = (data(1, 48), data(2, 48));
        let angles = table_for(f64s, dims);
        let loss = |x: &[f64]| {
            let mut out = out64(48);
            fwd(&Device::Cpu, &mut out, &f64s(x), &angles, dims).expect("shapes agree");
            inner(&out.to_f64().expect("on the CPU"), &dout)
        };
        let [_, dx, _] = run(f64s, dims);
        gradcheck(loss, &x, &dx, Tol { abs: 1e-7, rel: 1e-7 });
    }

    #[test]
    fn same_bits_on_any_number_of_threads() {
        assert_same_on_any_pool(|| run(f32s, RopeDims { b: 3, t: 200, h: 5, d: 14 }).concat());
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let dims = RopeDims { b: 1, t: 2, h: 3, d: 4 };
        let try_fwd = |out, x, table, dims| {
            fwd(&Device::Cpu, &mut out32(out), &out32(x), &out32(table), dims)
        };
        assert_eq!(try_fwd(24, 24, 8, dims), Ok(()));
        for (out, x, table, arg) in [(23, 24, 8, "out"), (24, 25, 8, "x"), (24, 24, 4, "table")] {
            let refused = try_fwd(out, x, table, dims);
            assert!(matches!(refused, Err(Error::Shape { arg: got, .. }) if got == arg));
        }
        for dims in [
            RopeDims { d: 3, ..dims },
            RopeDims { h: 0, ..dims },
            RopeDims { t: usize::MAX, ..dims },
        ] {
            assert!(matches!(try_fwd(24, 24, 8, dims), Err(Error::Dims { .. })));
        }
        let floats = table(&Device::Cpu, &mut out32(8), &out32(2), THETA, 4);
        assert_eq!(floats, Err(Error::DType { expected: "i32", got: DType::F32 }));
    }
}
