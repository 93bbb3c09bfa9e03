//! A contiguous range of rows of every sequence of a batch, its gradient, and a range put into longer sequences.

mod cuda;
pub mod reference;

use crate::shape::{check_dims, check_extents, check_len, on_float};
use crate::{Buffer, Cost, Device, Result};

const OP: &str = "slice";

/// Extents of one call: rows `start..start + len` of `rows`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceDims {
    /// Sequences in the batch.
    pub b: usize,
    /// Rows per sequence of the source.
    pub rows: usize,
    /// The first row taken.
    pub start: usize,
    /// Rows taken.
    pub len: usize,
    /// Width of a row.
    pub c: usize,
}

impl SliceDims {
    /// Refuses empty extents, a run past the last row and products past the address space.
    ///
    /// # Errors
    /// [`Error::Dims`](crate::Error::Dims) naming what is wrong.
    pub fn validate(&self) -> Result<()> {
        check_extents(OP, &[("b", self.b), ("rows", self.rows), ("c", self.c)])?;
        check_extents(OP, &[("len", self.len)])?;
        let fits = self.start.checked_add(self.len).is_some_and(|end| end <= self.rows);
        check_dims(OP, fits, || {
            format!("start {} and len {} pass the last of {} rows", self.start, self.len, self.rows)
        })
    }

    /// What [`fwd`] and [`place`] cost: a copy.
    pub fn cost_fwd(&self) -> Cost {
        Cost::new(0, 2 * self.b * self.len * self.c)
    }

    /// What [`bwd`] costs: the whole gradient is written.
    pub fn cost_bwd(&self) -> Cost {
        Cost::new(0, self.b * (self.len + self.rows) * self.c)
    }
}

/// `out[b,l,:] = x[b, start + l, :]`.
///
/// # Shapes
/// `x (B,rows,C)` → `out (B,len,C)`.
///
/// # Errors
/// [`Error::Dims`](crate::Error::Dims), [`Error::Shape`](crate::Error::Shape) or
/// [`Error::DType`](crate::Error::DType) when dims, lengths or types disagree.
pub fn fwd(device: &Device, out: &mut Buffer, x: &Buffer, dims: SliceDims) -> Result<()> {
    dims.validate()?;
    check_len(OP, "out", out.len(), dims.b * dims.len * dims.c)?;
    check_len(OP, "x", x.len(), dims.b * dims.rows * dims.c)?;
    match device {
        Device::Cuda(context) => cuda::fwd(context, out, x, dims),
        Device::Cpu => on_float!(out.dtype(), T => {
            reference::fwd::<T>(out.as_mut_slice()?, x.as_slice()?, dims);
            Ok(())
        }),
    }
}

/// Gradient of [`fwd`]: `dout` at the rows it came from, zeros elsewhere.
///
/// # Shapes
/// `dout (B,len,C)` → `dx (B,rows,C)`.
///
/// # Errors
/// As [`fwd`].
pub fn bwd(device: &Device, dx: &mut Buffer, dout: &Buffer, dims: SliceDims) -> Result<()> {
    dims.validate()?;
    check_len(OP, "dx", dx.len(), dims.b * dims.rows * dims.c)?;
    check_len(OP, "dout", dout.len(), dims.b * dims.len * dims.c)?;
    match device {
        Device::Cuda(context) => cuda::bwd(context, dx, dout, dims),
        Device::Cpu => on_float!(dx.dtype(), T => {
            reference::bwd::<T>(dx.as_mut_slice()?, dout.as_slice()?, dims);
            Ok(())
        }),
    }
}

/// `out[b, start + l, :] = x[b,l,:]`; the other rows of `out` stay as they are. One call per part concatenates.
///
/// # Shapes
/// `x (B,len,C)` → part of `out (B,rows,C)`.
///
/// # Errors
/// As [`fwd`].
pub fn place(device: &Device, out: &mut Buffer, x: &Buffer, dims: SliceDims) -> Result<()> {
    dims.validate()?;
    check_len(OP, "out", out.len(), dims.b * dims.rows * dims.c)?;
    check_len(OP, "x", x.len(), dims.b * dims.len * dims.c)?;
    match device {
        Device::Cuda(context) => cuda::place(context, out, x, dims),
        Device::Cpu => on_float!(out.dtype(), T => {
            reference::place::<T>(out.as_mut_slice()?, x.as_slice()?, dims);
            Ok(())
        }),
    }
}

#[cfg(test)]
mod tests {
    use ltm_testkit::{Tol, gradcheck};

    use super::*;
    use crate::Error;
    use crate::ops::testing::{data, f32s, f64s, inner, out32, out64};

    #[test]
    fn takes_the_run_of_every_sequence_and_puts_it_back() {
        let dims = SliceDims { b: 2, rows: 3, start: 1, len: 2, c: 2 };
        let x: Vec<f64> = (0..12).map(f64::from).collect();
        let (mut out, mut dx) = (out32(8), out32(12));
        fwd(&Device::Cpu, &mut out, &f32s(&x), dims).expect("shapes agree");
        assert_eq!(out.to_f64().expect("on the CPU"), [2.0, 3.0, 4.0, 5.0, 8.0, 9.0, 10.0, 11.0]);
        bwd(&Device::Cpu, &mut dx, &out, dims).expect("shapes agree");
        assert_eq!(
            dx.to_f64().expect("on the CPU"),
            [0.0, 0.0, 2.0, 3.0, 4.0, 5.0, 0.0, 0.0, 8.0, 9.0, 10.0, 11.0]
        );
    }

    #[test]
    fn parts_put_into_one_leave_each_other_alone() {
        let dims = SliceDims { b: 2, rows: 3, start: 0, len: 1, c: 2 };
        let rest = SliceDims { start: 1, len: 2, ..dims };
        let x: Vec<f64> = (0..12).map(f64::from).collect();
        let mut out = out32(12);
        for dims in [rest, dims] {
            let mut part = out32(dims.b * dims.len * dims.c);
            fwd(&Device::Cpu, &mut part, &f32s(&x), dims).expect("shapes agree");
            place(&Device::Cpu, &mut out, &part, dims).expect("shapes agree");
        }
        assert_eq!(out.to_f64().expect("on the CPU"), x);
        let refused = place(&Device::Cpu, &mut out, &out32(5), dims);
        assert!(matches!(refused, Err(Error::Shape { arg: "x", .. })));
        let refused = place(&Device::Cpu, &mut out32(4), &out32(4), dims);
        assert!(matches!(refused, Err(Error::Shape { arg: "out", .. })));
    }

    #[test]
    fn gradients() {
        let dims = SliceDims { b: 2, rows: 5, start: 2, len: 2, c: 3 };
        let dout = data(2, 12);
        let mut dx = out64(30);
        bwd(&Device::Cpu, &mut dx, &f64s(&dout), dims).expect("shapes agree");
        let loss = |x: &[f64]| {
            let mut out = out64(12);
            fwd(&Device::Cpu, &mut out, &f64s(x), dims).expect("shapes agree");
            inner(&out.to_f64().expect("on the CPU"), &dout)
        };
        gradcheck(
            loss,
            &data(1, 30),
            &dx.to_f64().expect("on the CPU"),
            Tol { abs: 1e-7, rel: 1e-7 },
        );
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let dims = SliceDims { b: 2, rows: 3, start: 1, len: 2, c: 2 };
        let try_fwd = |out, x, dims| fwd(&Device::Cpu, &mut out32(out), &out32(x), dims);
        assert!(matches!(try_fwd(7, 12, dims), Err(Error::Shape { arg: "out", .. })));
        assert!(matches!(try_fwd(8, 13, dims), Err(Error::Shape { arg: "x", .. })));
        for dims in [
            SliceDims { start: 2, ..dims },
            SliceDims { start: usize::MAX, ..dims },
            SliceDims { len: 0, ..dims },
            SliceDims { rows: usize::MAX / 8, ..dims },
        ] {
            assert!(matches!(try_fwd(8, 12, dims), Err(Error::Dims { .. })));
        }
    }
}
