//! The fast CPU implementation: runs along the innermost axis, all cores.

use super::{BinaryDims, Operator};
use crate::Float;
use crate::ops::strided::cpu::for_each_run;

pub(crate) fn fwd<T: Float>(out: &mut [T], a: &[T], b: &[T], operator: Operator, dims: BinaryDims) {
    match operator {
        Operator::Add => apply(
            out,
            a,
            b,
            dims,
            #[inline(always)]
            |a, b| a + b,
        ),
        Operator::Sub => apply(
            out,
            a,
            b,
            dims,
            #[inline(always)]
            |a, b| a - b,
        ),
        Operator::Mul => apply(
            out,
            a,
            b,
            dims,
            #[inline(always)]
            |a, b| a * b,
        ),
        Operator::Div => apply(
            out,
            a,
            b,
            dims,
            #[inline(always)]
            |a, b| a / b,
        ),
    }
}

fn apply<T: Float>(
    out: &mut [T],
    a: &[T],
    b: &[T],
    dims: BinaryDims,
    f: impl Fn(T, T) -> T + Copy + Send + Sync,
) {
    let (has_a, has_b) = (dims.a[3], dims.b[3]);
    for_each_run(
        out,
        dims.extents,
        [dims.strides(dims.a), dims.strides(dims.b)],
        #[inline(always)]
        |out, [a0, b0]| {
            let n = out.len();
            match (has_a, has_b) {
                (true, true) => {
                    let pairs = a[a0..a0 + n].iter().zip(&b[b0..b0 + n]);
                    out.iter_mut().zip(pairs).for_each(|(out, (&a, &b))| *out = f(a, b));
                }
                (true, false) => {
                    let b = b[b0];
                    out.iter_mut().zip(&a[a0..a0 + n]).for_each(|(out, &a)| *out = f(a, b));
                }
                (false, true) => {
                    let a = a[a0];
                    out.iter_mut().zip(&b[b0..b0 + n]).for_each(|(out, &b)| *out = f(a, b));
                }
                (false, false) => out.fill(f(a[a0], b[b0])),
            }
        },
    );
}
