//! The fast CPU implementation: one vectorised pass.

use crate::ops::parallel::zip_chunks;
use crate::{Float, simd};

#[inline(always)]
fn sigmoid<T: Float>(x: T) -> T {
    T::ONE / (T::ONE + simd::exp(-x))
}

pub(crate) fn fwd<T: Float>(out: &mut [T], gate: &[T], up: &[T]) {
    zip_chunks(
        [out],
        [gate, up],
        #[inline(always)]
        |[out], [gate, up]| {
            for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
                *out = gate * sigmoid(gate) * up;
            }
        },
    );
}

pub(crate) fn bwd<T: Float>(
    dgate: Option<&mut [T]>,
    dup: Option<&mut [T]>,
    dout: &[T],
    gate: &[T],
    up: &[T],
) {
    match (dgate, dup) {
        (Some(dgate), Some(dup)) => zip_chunks(
            [dgate, dup],
            [dout, gate, up],
            #[inline(always)]
            |[dgate, dup], [dout, gate, up]| {
                let outs = dgate.iter_mut().zip(dup);
                for (((outs, &dout), &gate), &up) in outs.zip(dout).zip(gate).zip(up) {
                    let s = sigmoid(gate);
                    *outs.0 = gate_gradient(dout, gate, up, s);
                    *outs.1 = dout * gate * s;
                }
            },
        ),
        (Some(dgate), None) => zip_chunks(
            [dgate],
            [dout, gate, up],
            #[inline(always)]
            |[dgate], [dout, gate, up]| {
                for (((dgate, &dout), &gate), &up) in dgate.iter_mut().zip(dout).zip(gate).zip(up) {
                    *dgate = gate_gradient(dout, gate, up, sigmoid(gate));
                }
            },
        ),
        // `dup` is the forward product with `dout` in place of `up`.
        (None, Some(dup)) => fwd(dup, gate, dout),
        (None, None) => {}
    }
}

#[inline(always)]
fn gate_gradient<T: Float>(dout: T, gate: T, up: T, s: T) -> T {
    dout * up * s * (T::ONE + gate * (T::ONE - s))
}
