//! The definition of `swiglu` as plain loops.

use crate::Float;

fn sigmoid<T: Float>(x: T) -> T {
    T::ONE / (T::ONE + (-x).exp())
}

/// `out = gate · sigmoid(gate) · up`.
///
/// # Panics
/// When an input is shorter than `out`.
pub fn fwd<T: Float>(out: &mut [T], gate: &[T], up: &[T]) {
    for i in 0..out.len() {
        out[i] = gate[i] * sigmoid(gate[i]) * up[i];
    }
}

/// `dgate = dout·up·s·(1 + gate·(1 − s))` and `dup = dout·gate·s` with `s = sigmoid(gate)`.
///
/// # Panics
/// When a slice is shorter than `dout`.
pub fn bwd<T: Float>(
    mut dgate: Option<&mut [T]>,
    mut dup: Option<&mut [T]>,
    dout: &[T],
    gate: &[T],
    up: &[T],
) {
    for i in 0..dout.len() {
        let s = sigmoid(gate[i]);
        if let Some(dgate) = &mut dgate {
            dgate[i] = dout[i] * up[i] * s * (T::ONE + gate[i] * (T::ONE - s));
        }
        if let Some(dup) = &mut dup {
            dup[i] = dout[i] * gate[i] * s;
        }
    }
}
