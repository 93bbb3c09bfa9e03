//! A copy of an array that is read with other strides: axes in another order, or repeated along some of them.

pub(crate) mod cpu;
mod cuda;
pub mod reference;

use crate::shape::{check_dims, check_extents, check_len, on_float};
use crate::{Buffer, Cost, Device, Result};

const OP: &str = "strided";

/// Most axes of a call, after those that belong together have been joined.
pub const MAX_AXES: usize = 4;

/// Extents of the result, and how far apart in `x` neighbours along each axis are: 0 along an axis on which `x` is
/// repeated. Axes that are not needed come first, with extent 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StridedDims {
    /// Extents of the result, outermost first.
    pub extents: [usize; 4],
    /// Elements between neighbours in `x`.
    pub strides: [usize; 4],
}

impl StridedDims {
    /// Axes in another order: axis `i` of the result is axis `axes[i]` of `x`, whose shape is `shape`.
    ///
    /// # Errors
    /// [`Error::Dims`](crate::Error::Dims) when `axes` is no order of the axes, or more than [`MAX_AXES`] remain
    /// after those that stay neighbours are joined.
    pub fn permute(shape: &[usize], axes: &[usize]) -> Result<Self> {
        let is_order =
            axes.len() == shape.len() && (0..shape.len()).all(|axis| axes.contains(&axis));
        check_dims(OP, is_order, || format!("{axes:?} is no order of the axes of {shape:?}"))?;
        let strides = contiguous(shape);
        let extents: Vec<_> = axes.iter().map(|&axis| shape[axis]).collect();
        let (extents, [strides]) =
            join(OP, &extents, [axes.iter().map(|&axis| strides[axis]).collect()])?;
        Ok(Self { extents, strides })
    }

    /// An array of shape `shape` repeated to fill the shape `to`, as NumPy does: shapes are aligned at their
    /// innermost axes, and an axis that is missing or of extent 1 is repeated.
    ///
    /// # Errors
    /// [`Error::Dims`](crate::Error::Dims) when it does not fit, or more than [`MAX_AXES`] remain after those that
    /// belong together are joined.
    pub fn broadcast(shape: &[usize], to: &[usize]) -> Result<Self> {
        let joined = repeated(shape, to).and_then(|strides| join(OP, to, [strides]).ok());
        match joined {
            Some((extents, [strides])) => Ok(Self { extents, strides }),
            None => Err(crate::Error::Dims {
                op: OP,
                reason: format!("{shape:?} cannot be repeated to fill {to:?}"),
            }),
        }
    }

    /// Refuses empty extents and products past the address space.
    ///
    /// # Errors
    /// [`Error::Dims`](crate::Error::Dims) naming what is wrong.
    pub fn validate(&self) -> Result<()> {
        let [e0, e1, e2, e3] = self.extents;
        check_extents(OP, &[("e0", e0), ("e1", e1), ("e2", e2), ("e3", e3)])?;
        check_dims(OP, self.source_len().is_some(), || {
            format!("strides of {:?} pass the address space", self.strides)
        })
    }

    /// Elements of the result.
    fn len(&self) -> usize {
        self.extents.iter().product()
    }

    /// Elements of `x`: one past the last that is read.
    fn source_len(&self) -> Option<usize> {
        self.extents.iter().zip(&self.strides).try_fold(1usize, |len, (extent, stride)| {
            len.checked_add(extent.saturating_sub(1).checked_mul(*stride)?)
        })
    }

    /// What [`fwd`] costs: a copy.
    pub fn cost(&self) -> Cost {
        Cost::new(0, self.len() + self.source_len().unwrap_or_default())
    }
}

/// The strides of a contiguous array.
fn contiguous(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i].saturating_mul(shape[i]);
    }
    strides
}

/// The strides with which a contiguous array of `shape` fills `to`, if it does.
pub(crate) fn repeated(shape: &[usize], to: &[usize]) -> Option<Vec<usize>> {
    let missing = to.len().checked_sub(shape.len())?;
    let mut strides = vec![0; missing];
    for ((&extent, &stride), &wanted) in shape.iter().zip(&contiguous(shape)).zip(&to[missing..]) {
        match extent {
            1 => strides.push(0),
            _ if extent == wanted => strides.push(stride),
            _ => return None,
        }
    }
    Some(strides)
}

/// Four extents and, for each of `N` operands, four strides.
pub(crate) type Joined<const N: usize> = ([usize; MAX_AXES], [[usize; MAX_AXES]; N]);

/// Drops axes of extent 1 and joins neighbouring axes through which every operand walks in equal steps.
pub(crate) fn join<const N: usize>(
    op: &'static str,
    extents: &[usize],
    strides: [Vec<usize>; N],
) -> Result<Joined<N>> {
    let named: Vec<_> = extents.iter().map(|&extent| ("extent", extent)).collect();
    check_extents(op, &named)?;
    let mut joined: Vec<(usize, [usize; N])> = Vec::new();
    for (axis, &extent) in extents.iter().enumerate().filter(|(_, extent)| **extent > 1) {
        let steps = std::array::from_fn(|k| strides[k][axis]);
        match joined.last_mut() {
            Some((outer, outer_steps))
                if (0..N).all(|k| outer_steps[k] == steps[k].saturating_mul(extent)) =>
            {
                (*outer, *outer_steps) = (*outer * extent, steps);
            }
            _ => joined.push((extent, steps)),
        }
    }
    check_dims(op, joined.len() <= MAX_AXES, || {
        format!("{extents:?} needs {} axes, at most {MAX_AXES} are possible", joined.len())
    })?;
    let (mut extents, mut strides) = ([1; MAX_AXES], [[0; MAX_AXES]; N]);
    let first = MAX_AXES - joined.len();
    for (axis, (extent, steps)) in joined.into_iter().enumerate() {
        extents[first + axis] = extent;
        for (strides, step) in strides.iter_mut().zip(steps) {
            strides[first + axis] = step;
        }
    }
    Ok((extents, strides))
}

/// `out[i0,i1,i2,i3] = x[i0·s0 + i1·s1 + i2·s2 + i3·s3]`.
///
/// # Shapes
/// `out` has as many elements as the extents multiply to; the last element of `x` is the last that is read.
///
/// # Errors
/// [`Error::Dims`](crate::Error::Dims), [`Error::Shape`](crate::Error::Shape) or
/// [`Error::DType`](crate::Error::DType) when dims, lengths or types disagree.
pub fn fwd(device: &Device, out: &mut Buffer, x: &Buffer, dims: StridedDims) -> Result<()> {
    dims.validate()?;
    check_len(OP, "out", out.len(), dims.len())?;
    check_len(OP, "x", x.len(), dims.source_len().unwrap_or_default())?;
    match device {
        Device::Cuda(context) => cuda::fwd(context, out, x, dims),
        Device::Cpu => on_float!(out.dtype(), T => {
            cpu::fwd::<T>(out.as_mut_slice()?, x.as_slice()?, dims);
            Ok(())
        }),
    }
}

#[cfg(test)]
mod tests {
    use ltm_testkit::gradcheck;
    use proptest::prelude::*;

    use super::*;
    use crate::Error;
    use crate::ops::testing::{assert_same_on_any_pool, data, f32s, f64s, out32};

    const CPU: &Device = &Device::Cpu;

    fn run(make: fn(&[f64]) -> Buffer, x: &[f64], dims: StridedDims) -> Vec<f64> {
        let mut out = make(&vec![f64::NAN; dims.len()]);
        fwd(CPU, &mut out, &make(x), dims).expect("shapes agree");
        out.to_f64().expect("on the CPU")
    }

    #[test]
    fn axes_change_places() {
        let x: Vec<f64> = (0..6).map(f64::from).collect();
        let transposed = StridedDims::permute(&[2, 3], &[1, 0]).expect("an order");
        assert_eq!(run(f32s, &x, transposed), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        // Axes of extent 1 move for nothing, and neighbours that stay neighbours are one axis.
        let moved = StridedDims::permute(&[4, 1, 5, 6], &[1, 0, 2, 3]).expect("an order");
        assert_eq!((moved.extents, moved.strides), ([1, 1, 1, 120], [0, 0, 0, 1]));
        let six = StridedDims::permute(&[2, 3, 4, 5, 6, 7], &[2, 3, 0, 1, 4, 5]).expect("joined");
        assert_eq!((six.extents, six.strides), ([1, 20, 6, 42], [0, 42, 840, 1]));
    }

    #[test]
    fn an_array_is_repeated_along_what_it_lacks() {
        let row = StridedDims::broadcast(&[3], &[2, 3]).expect("fits");
        assert_eq!(run(f64s, &[1.0, 2.0, 3.0], row), [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]);
        let column = StridedDims::broadcast(&[2, 1], &[2, 3]).expect("fits");
        assert_eq!(run(f64s, &[1.0, 2.0], column), [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]);
        let number = StridedDims::broadcast(&[], &[2, 2]).expect("fits");
        assert_eq!(run(f64s, &[4.0], number), [4.0; 4]);
        for (shape, to) in [(&[3][..], &[2][..]), (&[2, 3], &[3]), (&[2], &[2, 3]), (&[0], &[0])] {
            assert!(matches!(StridedDims::broadcast(shape, to), Err(Error::Dims { .. })));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn agrees_with_the_reference(
            extents in proptest::array::uniform4(1usize..9),
            order in Just([0, 1, 2, 3]).prop_shuffle(),
            repeated in proptest::array::uniform4(any::<bool>()),
        ) {
            let permuted = StridedDims::permute(&extents, &order).expect("an order");
            let shape: Vec<_> = (0..4).map(|i| if repeated[i] { 1 } else { extents[i] }).collect();
            let filled = StridedDims::broadcast(&shape, &extents).expect("fits");
            for dims in [permuted, filled] {
                let x = data(1, dims.source_len().expect("small"));
                let mut expected = vec![0.0; dims.len()];
                reference::fwd(&mut expected, &x, dims);
                prop_assert_eq!(run(f32s, &x, dims), expected.clone());
                prop_assert_eq!(run(f64s, &x, dims), expected);
            }
        }
    }

    #[test]
    fn the_gradient_of_an_order_is_the_order_back() {
        let (shape, order, back) = ([2, 3, 4], [2, 0, 1], [1, 2, 0]);
        let there = StridedDims::permute(&shape, &order).expect("an order");
        let back = StridedDims::permute(&[4, 2, 3], &back).expect("an order");
        let (x, dout) = (data(1, 24), data(2, 24));
        let loss = |x: &[f64]| run(f64s, x, there).iter().zip(&dout).map(|(a, b)| a * b).sum();
        let tol = ltm_testkit::Tol { abs: 1e-7, rel: 1e-7 };
        gradcheck(loss, &x, &run(f64s, &dout, back), tol);
    }

    #[test]
    fn same_bits_on_any_number_of_threads() {
        let dims = StridedDims::permute(&[211, 3, 97], &[2, 1, 0]).expect("an order");
        assert_same_on_any_pool(|| run(f32s, &data(1, 211 * 3 * 97), dims));
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let dims = StridedDims::permute(&[2, 3], &[1, 0]).expect("an order");
        let refused = fwd(CPU, &mut out32(5), &out32(6), dims);
        assert!(matches!(refused, Err(Error::Shape { arg: "out", .. })));
        let refused = fwd(CPU, &mut out32(6), &out32(7), dims);
        assert!(matches!(refused, Err(Error::Shape { arg: "x", .. })));
        for wrong in [
            StridedDims { extents: [0, 1, 1, 1], ..dims },
            StridedDims { extents: [1 << 40; 4], ..dims },
            StridedDims { strides: [usize::MAX; 4], ..dims },
        ] {
            let refused = fwd(CPU, &mut out32(6), &out32(6), wrong);
            assert!(matches!(refused, Err(Error::Dims { .. })), "{refused:?}");
        }
        for axes in [&[0][..], &[0, 0], &[0, 2], &[0, 1, 2]] {
            assert!(matches!(StridedDims::permute(&[2, 3], axes), Err(Error::Dims { .. })));
        }
        let scattered = StridedDims::permute(&[2; 6], &[5, 4, 3, 2, 1, 0]);
        assert!(matches!(scattered, Err(Error::Dims { .. })), "six axes remain");
    }
}
