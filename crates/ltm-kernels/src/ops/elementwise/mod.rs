//! Sums, multiples and fills, each in one pass over memory.

mod cpu;
mod cuda;
pub mod reference;

use crate::shape::{check_dims, check_extents, check_len, on_float};
use crate::{Buffer, Cost, Device, Float, Result};

const OP: &str = "elementwise";

/// Extents of [`scale_rows`]: `rows` vectors of width `c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScaleRowsDims {
    /// Number of vectors, each with its own factor.
    pub rows: usize,
    /// Width of a vector.
    pub c: usize,
}

impl ScaleRowsDims {
    /// Refuses empty extents and products past the address space.
    ///
    /// # Errors
    /// [`Error::Dims`](crate::Error::Dims) naming the extent.
    pub fn validate(&self) -> Result<()> {
        check_extents(OP, &[("rows", self.rows), ("c", self.c)])
    }

    /// What [`scale_rows`] costs.
    pub fn cost(&self) -> Cost {
        let n = self.rows * self.c;
        Cost::new(n, 2 * n + self.rows)
    }
}

/// `out = a + b`, all of one length.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) when lengths or types
/// disagree.
pub fn add(device: &Device, out: &mut Buffer, a: &Buffer, b: &Buffer) -> Result<()> {
    check_len(OP, "a", a.len(), out.len())?;
    check_len(OP, "b", b.len(), out.len())?;
    match device {
        Device::Cuda(context) => cuda::add(context, out, a, b),
        Device::Cpu => on_float!(out.dtype(), T => {
            cpu::add::<T>(out.as_mut_slice()?, a.as_slice()?, b.as_slice()?);
            Ok(())
        }),
    }
}

/// `out += b`, both of one length.
///
/// # Errors
/// As [`add`].
pub fn add_assign(device: &Device, out: &mut Buffer, b: &Buffer) -> Result<()> {
    check_len(OP, "b", b.len(), out.len())?;
    match device {
        Device::Cuda(context) => cuda::add_assign(context, out, b),
        Device::Cpu => on_float!(out.dtype(), T => {
            cpu::axpy::<T>(out.as_mut_slice()?, T::ONE, b.as_slice()?);
            Ok(())
        }),
    }
}

/// `y += alpha · x`, both of one length.
///
/// # Errors
/// As [`add`].
pub fn axpy(device: &Device, y: &mut Buffer, alpha: f64, x: &Buffer) -> Result<()> {
    check_len(OP, "x", x.len(), y.len())?;
    match device {
        Device::Cuda(context) => cuda::axpy(context, y, alpha, x),
        Device::Cpu => on_float!(y.dtype(), T => {
            cpu::axpy::<T>(y.as_mut_slice()?, T::from_f64(alpha), x.as_slice()?);
            Ok(())
        }),
    }
}

/// `out[i] = value`.
///
/// # Errors
/// [`Error::DType`](crate::Error::DType) for an integer buffer.
pub fn fill(device: &Device, out: &mut Buffer, value: f64) -> Result<()> {
    match device {
        Device::Cuda(context) => cuda::fill(context, out, value),
        Device::Cpu => on_float!(out.dtype(), T => {
            cpu::fill::<T>(out.as_mut_slice()?, T::from_f64(value));
            Ok(())
        }),
    }
}

/// `out[r,c] = s[r] · x[r,c]`.
///
/// # Shapes
/// `x (rows,C)`, `s (rows)` → `out (rows,C)`.
///
/// # Errors
/// As [`add`], and [`Error::Dims`](crate::Error::Dims) for an empty extent.
pub fn scale_rows(
    device: &Device,
    out: &mut Buffer,
    x: &Buffer,
    s: &Buffer,
    dims: ScaleRowsDims,
) -> Result<()> {
    dims.validate()?;
    check_len(OP, "out", out.len(), dims.rows * dims.c)?;
    check_len(OP, "x", x.len(), dims.rows * dims.c)?;
    check_len(OP, "s", s.len(), dims.rows)?;
    match device {
        Device::Cuda(context) => cuda::scale_rows(context, out, x, s, dims),
        Device::Cpu => on_float!(out.dtype(), T => {
            cpu::scale_rows::<T>(out.as_mut_slice()?, x.as_slice()?, s.as_slice()?, dims);
            Ok(())
        }),
    }
}

/// `out[i] = s[0] · w[i]`: the gradient of a dot product, scaled by the gradient of its one element.
///
/// # Shapes
/// `w (n)`, `s (1)` → `out (n)`.
///
/// # Errors
/// As [`add`].
pub fn outer_scale(device: &Device, out: &mut Buffer, w: &Buffer, s: &Buffer) -> Result<()> {
    check_len(OP, "w", w.len(), out.len())?;
    check_len(OP, "s", s.len(), 1)?;
    match device {
        Device::Cuda(context) => cuda::outer_scale(context, out, w, s),
        Device::Cpu => on_float!(out.dtype(), T => {
            cpu::scale::<T>(out.as_mut_slice()?, w.as_slice()?, s.as_slice()?[0]);
            Ok(())
        }),
    }
}

/// `counter[0] += 1`, wrapping: counts steps on the device when they run without the host.
///
/// # Shapes
/// `counter (1)` of `i32`.
///
/// # Errors
/// As [`add`].
pub fn increment(device: &Device, counter: &mut Buffer) -> Result<()> {
    check_len(OP, "counter", counter.len(), 1)?;
    match device {
        Device::Cuda(context) => cuda::increment(context, counter),
        Device::Cpu => {
            let counter = counter.as_mut_slice::<i32>()?;
            counter[0] = counter[0].wrapping_add(1);
            Ok(())
        }
    }
}

/// Extents of [`record`]: columns `offset..offset + n` of a table of `rows` rows and `width` columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordDims {
    /// Rows of the table, one per step.
    pub rows: usize,
    /// Columns of the table.
    pub width: usize,
    /// The first column written.
    pub offset: usize,
    /// Columns written.
    pub n: usize,
}

impl RecordDims {
    /// Refuses empty extents, columns past the last and products past the address space.
    ///
    /// # Errors
    /// [`Error::Dims`](crate::Error::Dims) naming what is wrong.
    pub fn validate(&self) -> Result<()> {
        check_extents(OP, &[("rows", self.rows), ("width", self.width)])?;
        check_extents(OP, &[("n", self.n)])?;
        let fits = self.offset.checked_add(self.n).is_some_and(|end| end <= self.width);
        check_dims(OP, fits, || {
            format!(
                "offset {} and n {} pass the last of {} columns",
                self.offset, self.n, self.width
            )
        })
    }
}

/// `history[step[0], offset + i] = x[i]`; a step outside the table writes nothing.
///
/// # Shapes
/// `x (n)`, `step (1)` of `i32` → part of a row of `history (rows,width)`.
///
/// # Errors
/// As [`add`], and [`Error::Dims`](crate::Error::Dims) when [`RecordDims::validate`] refuses.
pub fn record(
    device: &Device,
    history: &mut Buffer,
    x: &Buffer,
    step: &Buffer,
    dims: RecordDims,
) -> Result<()> {
    dims.validate()?;
    check_len(OP, "history", history.len(), dims.rows * dims.width)?;
    check_len(OP, "x", x.len(), dims.n)?;
    check_len(OP, "step", step.len(), 1)?;
    match device {
        Device::Cuda(context) => cuda::record(context, history, x, step, dims),
        Device::Cpu => on_float!(history.dtype(), T => {
            let (history, x) = (history.as_mut_slice()?, x.as_slice()?);
            reference::record::<T>(history, x, step.as_slice::<i32>()?[0], dims);
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
    use crate::ops::testing::{EPS, assert_same_on_any_pool, data, f32s, f64s, out32, out64};

    const CPU: &Device = &Device::Cpu;

    /// Every op on `rows` times `c` elements, through buffers made by `make`.
    fn run(make: fn(&[f64]) -> Buffer, dims: ScaleRowsDims) -> [Vec<f64>; 6] {
        let n = dims.rows * dims.c;
        let (a, b, s) = (make(&data(1, n)), make(&data(2, n)), make(&data(3, dims.rows)));
        let mut outs = [(); 6].map(|()| make(&data(4, n)));
        let [sum, own, scaled, filled, rows, outer] = &mut outs;
        add(CPU, sum, &a, &b).expect("shapes agree");
        add_assign(CPU, own, &b).expect("shapes agree");
        axpy(CPU, scaled, 0.5, &b).expect("shapes agree");
        fill(CPU, filled, 0.25).expect("a float");
        scale_rows(CPU, rows, &a, &s, dims).expect("shapes agree");
        outer_scale(CPU, outer, &a, &make(&[3.0])).expect("shapes agree");
        outs.map(|buffer| buffer.to_f64().expect("on the CPU"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn agrees_with_the_reference(rows in 1usize..50, c in 1usize..50) {
            let dims = ScaleRowsDims { rows, c };
            let n = rows * c;
            let (a, b, s) = (data(1, n), data(2, n), data(3, rows));
            let mut expected = [(); 6].map(|()| data(4, n));
            let [sum, own, scaled, filled, rows, outer] = &mut expected;
            reference::add(sum, &a, &b);
            reference::axpy(own, 1.0, &b);
            reference::axpy(scaled, 0.5, &b);
            filled.fill(0.25);
            reference::scale_rows(rows, &a, &s, dims);
            reference::scale(outer, &a, 3.0);
            // One rounding each; halving is exact.
            for (make, eps) in [(f32s as fn(&[f64]) -> Buffer, EPS), (f64s, f64::EPSILON)] {
                for (got, expected) in run(make, dims).iter().zip(&expected) {
                    assert_close(got, expected, Tol { abs: 0.0, rel: eps });
                }
            }
        }
    }

    #[test]
    fn same_bits_on_any_number_of_threads() {
        assert_same_on_any_pool(|| run(f32s, ScaleRowsDims { rows: 2003, c: 17 }).concat());
    }

    #[test]
    fn steps_are_counted_and_recorded_in_their_rows() {
        let dims = RecordDims { rows: 2, width: 3, offset: 1, n: 2 };
        let (mut history, mut step) = (f64s(&[0.0; 6]), Buffer::from_vec(vec![-1i32]));
        for x in [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]] {
            record(CPU, &mut history, &f64s(&x), &step, dims).expect("shapes agree");
            increment(CPU, &mut step).expect("one integer");
        }
        assert_eq!(step.as_slice::<i32>(), Ok(&[3][..]));
        let expected = [0.0, 3.0, 4.0, 0.0, 5.0, 6.0];
        assert_eq!(history.to_f64().expect("on the CPU"), expected);
        for dims in [RecordDims { offset: 2, ..dims }, RecordDims { n: 0, ..dims }] {
            let refused = record(CPU, &mut history, &f64s(&[1.0; 2]), &step, dims);
            assert!(matches!(refused, Err(Error::Dims { .. })));
        }
        let refused = record(CPU, &mut history, &f64s(&[1.0]), &step, dims);
        assert!(matches!(refused, Err(Error::Shape { arg: "x", .. })));
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let mut out = out32(6);
        let is = |refused: Result<()>, arg| matches!(refused, Err(Error::Shape { arg: got, .. }) if got == arg);
        assert!(is(add(CPU, &mut out, &out32(6), &out32(5)), "b"));
        assert!(is(add_assign(CPU, &mut out, &out32(7)), "b"));
        assert!(is(axpy(CPU, &mut out, 1.0, &out32(5)), "x"));
        assert!(is(outer_scale(CPU, &mut out, &out32(6), &out32(2)), "s"));
        let dims = ScaleRowsDims { rows: 2, c: 3 };
        assert!(is(scale_rows(CPU, &mut out, &out32(6), &out32(3), dims), "s"));
        let empty = ScaleRowsDims { rows: 0, ..dims };
        let refused = scale_rows(CPU, &mut out, &out32(6), &out32(2), empty);
        assert!(matches!(refused, Err(Error::Dims { .. })));
        assert!(matches!(add(CPU, &mut out, &out64(6), &out32(6)), Err(Error::DType { .. })));
        let mut integers = Buffer::from_vec(vec![0i32]);
        assert!(matches!(fill(CPU, &mut integers, 1.0), Err(Error::DType { .. })));
    }
}
