//! Sums with a fixed order, and the search for values that are not finite.

mod cpu;
mod cuda;
pub mod reference;

use crate::shape::{check_dims, check_extents, check_len, on_float};
use crate::{Buffer, Cost, Device, Float, Result};

const OP: &str = "reduce";

/// What a reduction of `n` elements costs.
pub fn cost(n: usize) -> Cost {
    Cost::new(n, n)
}

/// `out[g] = Σ_i x[g,i]`, accumulated in `f64`.
///
/// # Shapes
/// `x (groups, n)` → `out (groups)`; `n` is the quotient of the two lengths.
///
/// # Errors
/// [`Error::Dims`](crate::Error::Dims) when the length of `x` is not a multiple of the length of
/// `out`;
/// [`Error::DType`](crate::Error::DType) when types disagree.
pub fn sum_groups(device: &Device, out: &mut Buffer, x: &Buffer) -> Result<()> {
    let (groups, len) = (out.len(), x.len());
    check_dims(OP, groups > 0 && len > 0 && len.is_multiple_of(groups), || {
        format!("{len} elements do not fall into {groups} equal groups")
    })?;
    match device {
        Device::Cuda(context) => cuda::sum_groups(context, out, x),
        Device::Cpu => on_float!(out.dtype(), T => {
            cpu::sum_groups::<T, T>(out.as_mut_slice()?, x.as_slice()?);
            Ok(())
        }),
    }
}

/// Extents of [`sum_axis`]: a sum over the middle one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SumAxisDims {
    /// Product of the extents before the axis.
    pub outer: usize,
    /// Extent of the axis.
    pub n: usize,
    /// Product of the extents after the axis.
    pub inner: usize,
}

impl SumAxisDims {
    /// Refuses empty extents and products past the address space.
    ///
    /// # Errors
    /// [`Error::Dims`](crate::Error::Dims) naming the extent.
    pub fn validate(&self) -> Result<()> {
        check_extents(OP, &[("outer", self.outer), ("n", self.n), ("inner", self.inner)])
    }

    /// What [`sum_axis`] costs.
    pub fn cost(&self) -> Cost {
        let n = self.outer * self.n * self.inner;
        Cost::new(n, n + self.outer * self.inner)
    }
}

/// `out[o,i] = Σ_n x[o,n,i]`, accumulated in `f64`.
///
/// # Shapes
/// `x (outer,n,inner)` → `out (outer,inner)`. The two may be of different types: on CUDA `out` of `f32` for `x` of
/// `bf16`, so that a sum is not rounded; on the CPU any two floats.
///
/// # Errors
/// [`Error::Dims`](crate::Error::Dims), [`Error::Shape`](crate::Error::Shape) or
/// [`Error::DType`](crate::Error::DType) when dims, lengths or types disagree.
pub fn sum_axis(device: &Device, out: &mut Buffer, x: &Buffer, dims: SumAxisDims) -> Result<()> {
    dims.validate()?;
    check_len(OP, "out", out.len(), dims.outer * dims.inner)?;
    check_len(OP, "x", x.len(), dims.outer * dims.n * dims.inner)?;
    match device {
        Device::Cuda(context) => cuda::sum_axis(context, out, x, dims),
        Device::Cpu => on_float!(out.dtype(), T => on_float!(x.dtype(), X => {
            cpu::sum_axis::<T, X>(out.as_mut_slice()?, x.as_slice()?, dims);
            Ok(())
        })),
    }
}

/// `out[0] = Σ_i x[i]·w[i]`, accumulated in `f64`.
///
/// # Shapes
/// `x`, `w (n)` → `out (1)`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) when lengths or types
/// disagree.
pub fn dot(device: &Device, out: &mut Buffer, x: &Buffer, w: &Buffer) -> Result<()> {
    check_len(OP, "out", out.len(), 1)?;
    check_len(OP, "w", w.len(), x.len())?;
    match device {
        Device::Cuda(context) => cuda::dot(context, out, x, w),
        Device::Cpu => on_float!(out.dtype(), T => {
            out.as_mut_slice::<T>()?[0] = T::from_f64(cpu::dot::<T>(x.as_slice()?, w.as_slice()?));
            Ok(())
        }),
    }
}

/// `Σ_i x[i]²`, accumulated in `f64`.
///
/// # Errors
/// [`Error::DType`](crate::Error::DType) for an integer buffer.
pub fn sum_squares(device: &Device, x: &Buffer) -> Result<f64> {
    match device {
        Device::Cuda(context) => cuda::sum_squares_all(context, &[x]),
        Device::Cpu => on_float!(x.dtype(), T => {
            let x = x.as_slice::<T>()?;
            Ok(cpu::dot(x, x))
        }),
    }
}

/// The sum of the squares of all elements of all buffers, accumulated in `f64`: the square of the
/// global norm. The host waits for the device once, however many buffers there are.
///
/// # Errors
/// [`Error::DType`](crate::Error::DType) for an integer buffer.
pub fn sum_squares_all(device: &Device, buffers: &[&Buffer]) -> Result<f64> {
    match device {
        Device::Cuda(context) => cuda::sum_squares_all(context, buffers),
        Device::Cpu => buffers.iter().map(|x| sum_squares(device, x)).sum(),
    }
}

/// The index of the first NaN or infinity, if any.
///
/// # Errors
/// [`Error::DType`](crate::Error::DType) for an integer buffer.
pub fn first_non_finite(device: &Device, x: &Buffer) -> Result<Option<usize>> {
    match device {
        Device::Cuda(context) => cuda::first_non_finite(context, x),
        Device::Cpu => {
            on_float!(x.dtype(), T => Ok(cpu::first_non_finite::<T>(x.as_slice()?)))
        }
    }
}

#[cfg(test)]
mod tests {
    use ltm_testkit::{Tol, assert_close, gradcheck};
    use proptest::prelude::*;

    use super::*;
    use crate::Error;
    use crate::ops::testing::{EPS, assert_same_on_any_pool, data, f32s, f64s, out32, out64};

    const CPU: &Device = &Device::Cpu;

    /// The sums of `groups` groups of `n`, a dot product and a sum of squares.
    fn run(make: fn(&[f64]) -> Buffer, groups: usize, n: usize) -> Vec<f64> {
        let (x, w) = (make(&data(1, groups * n)), make(&data(2, groups * n)));
        let (mut sums, mut product) = (make(&vec![f64::NAN; groups]), make(&[f64::NAN]));
        sum_groups(CPU, &mut sums, &x).expect("shapes agree");
        dot(CPU, &mut product, &x, &w).expect("shapes agree");
        let squares = sum_squares(CPU, &x).expect("a float");
        [sums.to_f64().expect("on the CPU"), product.to_f64().expect("on the CPU"), vec![squares]]
            .concat()
    }

    fn check(groups: usize, n: usize) {
        let (x, w) = (data(1, groups * n), data(2, groups * n));
        let mut sums = vec![0.0; groups];
        reference::sum_groups(&mut sums, &x);
        let expected = [sums, vec![reference::dot(&x, &w), reference::dot(&x, &x)]].concat();
        // Sums in f64 of numbers within 3.5², rounded once to the buffer's type.
        let len = (groups * n) as f64;
        for (make, eps) in [(f32s as fn(&[f64]) -> Buffer, EPS), (f64s, f64::EPSILON)] {
            let tol = Tol { abs: 12.25 * len * len * f64::EPSILON, rel: eps };
            assert_close(&run(make, groups, n), &expected, tol);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn agrees_with_the_reference(groups in 1usize..9, n in 1usize..400) {
            check(groups, n);
        }
    }

    #[test]
    fn long_sums_agree_and_have_the_same_bits_on_any_number_of_threads() {
        check(2, 40_001);
        assert_same_on_any_pool(|| run(f32s, 3, 40_001));
    }

    /// `out[o,i]` through buffers made by these functions.
    fn axis(out: fn(&[f64]) -> Buffer, x: fn(&[f64]) -> Buffer, dims: SumAxisDims) -> Vec<f64> {
        let SumAxisDims { outer, n, inner } = dims;
        let (x, mut out) = (x(&data(1, outer * n * inner)), out(&vec![f64::NAN; outer * inner]));
        sum_axis(CPU, &mut out, &x, dims).expect("shapes agree");
        out.to_f64().expect("on the CPU")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn sums_over_an_axis_agree_with_the_reference(
            outer in 1usize..9, n in 1usize..90, inner in 1usize..150,
        ) {
            let dims = SumAxisDims { outer, n, inner };
            let mut expected = vec![0.0; outer * inner];
            reference::sum_axis(&mut expected, &data(1, outer * n * inner), dims);
            let abs = 3.5 * (n * n) as f64 * f64::EPSILON;
            assert_close(&axis(f32s, f32s, dims), &expected, Tol { abs, rel: EPS });
            for x in [f32s, f64s] {
                assert_close(&axis(f64s, x, dims), &expected, Tol { abs, rel: f64::EPSILON });
            }
        }
    }

    #[test]
    fn sums_over_an_axis_have_the_same_bits_on_any_number_of_threads() {
        for (outer, n, inner) in [(3, 40_001, 1), (2, 301, 203)] {
            assert_same_on_any_pool(|| axis(f32s, f32s, SumAxisDims { outer, n, inner }));
        }
    }

    #[test]
    fn the_gradient_of_a_dot_product_is_the_other_factor() {
        let (x, w) = (data(1, 7), data(2, 7));
        let product = |x: &[f64]| {
            let mut out = out64(1);
            dot(CPU, &mut out, &f64s(x), &f64s(&w)).expect("shapes agree");
            out.to_f64().expect("on the CPU")[0]
        };
        gradcheck(product, &x, &w, Tol { abs: 1e-7, rel: 1e-7 });
    }

    #[test]
    fn the_squares_of_many_buffers_add_up() {
        let (x, w) = (f32s(&data(1, 300)), f64s(&data(2, 7)));
        let parts = [&x, &w].map(|x| sum_squares(CPU, x).expect("a float"));
        assert_eq!(sum_squares_all(CPU, &[&x, &w]), Ok(parts[0] + parts[1]));
        assert_eq!(sum_squares_all(CPU, &[]), Ok(0.0));
        let integers = Buffer::from_vec(vec![1i32]);
        assert!(matches!(sum_squares_all(CPU, &[&x, &integers]), Err(Error::DType { .. })));
    }

    #[test]
    fn finds_the_first_that_is_not_finite() {
        let mut x = vec![f64::from(f32::MAX); 40_000];
        let first = |x: &[f64]| first_non_finite(CPU, &f32s(x)).expect("a float");
        assert_eq!(first(&x), None);
        x[39_999] = f64::INFINITY;
        assert_eq!(first(&x), Some(39_999));
        x[20_001] = f64::NAN;
        assert_eq!(first(&x), Some(20_001));
        assert!(sum_squares(CPU, &f32s(&x)).expect("a float").is_nan());
    }

    #[test]
    fn refuses_what_does_not_fit() {
        assert!(matches!(sum_groups(CPU, &mut out32(3), &out32(7)), Err(Error::Dims { .. })));
        assert!(matches!(sum_groups(CPU, &mut out32(0), &out32(7)), Err(Error::Dims { .. })));
        let dims = SumAxisDims { outer: 2, n: 3, inner: 2 };
        let refused = sum_axis(CPU, &mut out32(4), &out32(11), dims);
        assert!(matches!(refused, Err(Error::Shape { arg: "x", .. })));
        let refused = sum_axis(CPU, &mut out32(5), &out32(12), dims);
        assert!(matches!(refused, Err(Error::Shape { arg: "out", .. })));
        let empty = SumAxisDims { n: 0, ..dims };
        assert!(matches!(sum_axis(CPU, &mut out32(4), &out32(0), empty), Err(Error::Dims { .. })));
        let refused = dot(CPU, &mut out32(1), &out32(3), &out32(4));
        assert!(matches!(refused, Err(Error::Shape { arg: "w", .. })));
        let refused = dot(CPU, &mut out32(2), &out32(3), &out32(3));
        assert!(matches!(refused, Err(Error::Shape { arg: "out", .. })));
        let integers = Buffer::from_vec(vec![1i32]);
        assert!(matches!(sum_squares(CPU, &integers), Err(Error::DType { .. })));
    }
}
