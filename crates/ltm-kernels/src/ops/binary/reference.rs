//! The definition of `binary` as plain loops.

use super::{BinaryDims, Operator};
use crate::Float;

/// `out = a op b`, each operand at the indices of the extents that it has.
///
/// # Panics
/// When a slice is shorter than the dims ask for.
pub fn fwd<T: Float>(out: &mut [T], a: &[T], b: &[T], operator: Operator, dims: BinaryDims) {
    let [e0, e1, e2, e3] = dims.extents;
    let place = |at: [usize; 4], has: [bool; 4]| {
        (0..4).filter(|&i| has[i]).fold(0, |place, i| place * dims.extents[i] + at[i])
    };
    let mut i = 0;
    for i0 in 0..e0 {
        for i1 in 0..e1 {
            for i2 in 0..e2 {
                for i3 in 0..e3 {
                    let at = [i0, i1, i2, i3];
                    let (x, y) = (a[place(at, dims.a)], b[place(at, dims.b)]);
                    out[i] = match operator {
                        Operator::Add => x + y,
                        Operator::Sub => x - y,
                        Operator::Mul => x * y,
                        Operator::Div => x / y,
                    };
                    i += 1;
                }
            }
        }
    }
}
