//! Sum, difference, product and quotient of two arrays, with broadcasting.

mod cpu;
mod cuda;
pub mod reference;

use crate::ops::strided::{MAX_AXES, join, repeated};
use crate::shape::{check_extents, check_len, on_float};
use crate::{Buffer, Cost, Device, Error, Result};

const OP: &str = "binary";

/// What is done with two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `a + b`.
    Add,
    /// `a - b`.
    Sub,
    /// `a · b`.
    Mul,
    /// `a / b`.
    Div,
}

/// Extents of the result, and which of them each operand has: along the others it is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BinaryDims {
    /// Extents of the result, outermost first; those that are not needed come first and are 1.
    pub extents: [usize; 4],
    /// Which extents `a` has.
    pub a: [bool; 4],
    /// Which extents `b` has.
    pub b: [bool; 4],
}

impl BinaryDims {
    /// Of operands of these shapes, broadcast as in NumPy: shapes are aligned at their innermost axes, and an axis
    /// that is missing or of extent 1 is repeated. Also returns the shape of the result.
    ///
    /// # Errors
    /// [`Error::Dims`] when the shapes do not fit each other, or more than [`MAX_AXES`] axes remain after those
    /// that belong together are joined.
    pub fn broadcast(a: &[usize], b: &[usize]) -> Result<(Self, Vec<usize>)> {
        let axes = a.len().max(b.len());
        let extent = |shape: &[usize], axis: usize| {
            (axis + shape.len()).checked_sub(axes).map_or(1, |own| shape[own])
        };
        let shape: Vec<_> = (0..axes)
            .map(|axis| match (extent(a, axis), extent(b, axis)) {
                (1, other) => other,
                (own, _) => own,
            })
            .collect();
        let (Some(a_strides), Some(b_strides)) = (repeated(a, &shape), repeated(b, &shape)) else {
            let reason = format!("{a:?} and {b:?} do not fit each other");
            return Err(Error::Dims { op: OP, reason });
        };
        let (extents, strides) = join(OP, &shape, [a_strides, b_strides])?;
        let [a, b] = strides.map(|strides| strides.map(|stride| stride > 0));
        Ok((Self { extents, a, b }, shape))
    }

    /// Refuses empty extents and products past the address space.
    ///
    /// # Errors
    /// [`Error::Dims`] naming the extent.
    pub fn validate(&self) -> Result<()> {
        let [e0, e1, e2, e3] = self.extents;
        check_extents(OP, &[("e0", e0), ("e1", e1), ("e2", e2), ("e3", e3)])
    }

    /// Elements of the result.
    fn len(&self) -> usize {
        self.extents.iter().product()
    }

    /// Elements of an operand that has these extents.
    fn operand_len(&self, has: [bool; MAX_AXES]) -> usize {
        self.extents.iter().zip(has).filter(|(_, has)| *has).map(|(extent, _)| extent).product()
    }

    /// Elements between neighbours of an operand that has these extents.
    fn strides(&self, has: [bool; MAX_AXES]) -> [usize; MAX_AXES] {
        let (mut strides, mut step) = ([0; MAX_AXES], 1);
        for axis in (0..MAX_AXES).rev().filter(|axis| has[*axis]) {
            strides[axis] = step;
            step *= self.extents[axis];
        }
        strides
    }

    /// What [`fwd`] costs.
    pub fn cost(&self) -> Cost {
        let n = self.len();
        Cost::new(n, n + self.operand_len(self.a) + self.operand_len(self.b))
    }
}

/// `out = a op b`, element by element.
///
/// # Shapes
/// `out` has all extents, `a` and `b` those that the dims give them.
///
/// # Errors
/// [`Error::Dims`], [`Error::Shape`] or [`Error::DType`] when dims, lengths or types disagree.
pub fn fwd(
    device: &Device,
    out: &mut Buffer,
    a: &Buffer,
    b: &Buffer,
    operator: Operator,
    dims: BinaryDims,
) -> Result<()> {
    dims.validate()?;
    check_len(OP, "out", out.len(), dims.len())?;
    check_len(OP, "a", a.len(), dims.operand_len(dims.a))?;
    check_len(OP, "b", b.len(), dims.operand_len(dims.b))?;
    match device {
        Device::Cuda(context) => cuda::fwd(context, out, a, b, operator, dims),
        Device::Cpu => on_float!(out.dtype(), T => {
            cpu::fwd::<T>(out.as_mut_slice()?, a.as_slice()?, b.as_slice()?, operator, dims);
            Ok(())
        }),
    }
}

#[cfg(test)]
mod tests {
    use ltm_testkit::{Tol, assert_close};
    use proptest::prelude::*;

    use super::*;
    use crate::ops::testing::{EPS, assert_same_on_any_pool, data, f32s, f64s, out32, out64};

    const CPU: &Device = &Device::Cpu;
    const OPERATORS: [Operator; 4] = [Operator::Add, Operator::Sub, Operator::Mul, Operator::Div];

    /// Operands; divisors stay away from 0.
    fn operands(dims: BinaryDims) -> (Vec<f64>, Vec<f64>) {
        let b = data(2, dims.operand_len(dims.b));
        let away = b.into_iter().map(|x| x + 0.5f64.copysign(x)).collect();
        (data(1, dims.operand_len(dims.a)), away)
    }

    fn run(make: fn(&[f64]) -> Buffer, operator: Operator, dims: BinaryDims) -> Vec<f64> {
        let (a, b) = operands(dims);
        let mut out = make(&vec![f64::NAN; dims.len()]);
        fwd(CPU, &mut out, &make(&a), &make(&b), operator, dims).expect("shapes agree");
        out.to_f64().expect("on the CPU")
    }

    #[test]
    fn shapes_are_aligned_at_their_innermost_axes() {
        let of = |a: &[usize], b: &[usize]| BinaryDims::broadcast(a, b).expect("they fit");
        let (dims, shape) = of(&[2, 3, 4], &[2, 3, 4]);
        assert_eq!((dims.extents, shape), ([1, 1, 1, 24], vec![2, 3, 4]));
        let (dims, shape) = of(&[2, 3, 4], &[4]);
        assert_eq!((dims.extents, shape), ([1, 1, 6, 4], vec![2, 3, 4]));
        assert_eq!((dims.a, dims.b), ([false, false, true, true], [false, false, false, true]));
        let (dims, shape) = of(&[3, 1], &[2, 1, 4]);
        assert_eq!((dims.extents, shape), ([1, 2, 3, 4], vec![2, 3, 4]));
        assert_eq!(
            (dims.a[1..].to_vec(), dims.b[1..].to_vec()),
            (vec![false, true, false], vec![true, false, true])
        );
        let (dims, shape) = of(&[], &[5]);
        assert_eq!((dims.extents, dims.a, shape), ([1, 1, 1, 5], [false; 4], vec![5]));
        for (a, b) in [(&[2][..], &[3][..]), (&[2, 3], &[2]), (&[0], &[1])] {
            assert!(matches!(BinaryDims::broadcast(a, b), Err(Error::Dims { .. })), "{a:?} {b:?}");
        }
        let alternating = BinaryDims::broadcast(&[2, 1, 2, 1, 2], &[1, 2, 1, 2, 1]);
        assert!(matches!(alternating, Err(Error::Dims { .. })), "five axes remain");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn agrees_with_the_reference(
            extents in proptest::array::uniform4(1usize..9),
            a in proptest::array::uniform4(any::<bool>()),
            b in proptest::array::uniform4(any::<bool>()),
        ) {
            let dims = BinaryDims { extents, a, b };
            let (a, b) = operands(dims);
            for operator in OPERATORS {
                let mut expected = vec![0.0; dims.len()];
                reference::fwd(&mut expected, &a, &b, operator, dims);
                // One rounding.
                for (make, eps) in [(f32s as fn(&[f64]) -> Buffer, EPS), (f64s, f64::EPSILON)] {
                    // The divisors were rounded to f32 before.
                    let tol = Tol { abs: EPS, rel: 2.0 * EPS.max(eps) };
                    assert_close(&run(make, operator, dims), &expected, tol);
                }
            }
        }
    }

    #[test]
    fn same_bits_on_any_number_of_threads() {
        let (dims, _) = BinaryDims::broadcast(&[211, 3, 97], &[211, 1, 97]).expect("they fit");
        assert_same_on_any_pool(|| run(f32s, Operator::Mul, dims));
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let (dims, _) = BinaryDims::broadcast(&[2, 3], &[3]).expect("they fit");
        let (is, add) = (
            |refused: Result<()>, arg| matches!(refused, Err(Error::Shape { arg: got, .. }) if got == arg),
            Operator::Add,
        );
        assert!(is(fwd(CPU, &mut out32(5), &out32(6), &out32(3), add, dims), "out"));
        assert!(is(fwd(CPU, &mut out32(6), &out32(3), &out32(3), add, dims), "a"));
        assert!(is(fwd(CPU, &mut out32(6), &out32(6), &out32(6), add, dims), "b"));
        let refused = fwd(CPU, &mut out32(6), &out64(6), &out32(3), add, dims);
        assert!(matches!(refused, Err(Error::DType { .. })));
        for extents in [[0, 1, 2, 3], [1 << 40; 4]] {
            let dims = BinaryDims { extents, ..dims };
            let refused = fwd(CPU, &mut out32(6), &out32(6), &out32(3), add, dims);
            assert!(matches!(refused, Err(Error::Dims { .. })));
        }
    }
}
