//! The definition of `rope` as plain loops.

use super::RopeDims;
use crate::Float;

/// `(cos, sin)` of `position / theta^(2i/d)`, frequency and angle rounded to `T`.
///
/// # Panics
/// When `table` does not hold `positions.len() * d` elements.
pub fn table<T: Float>(table: &mut [T], positions: &[i32], theta: f64, d: usize) {
    for (t, &position) in positions.iter().enumerate() {
        for i in 0..d / 2 {
            let frequency = T::from_f64(1.0 / theta.powf(2.0 * i as f64 / d as f64));
            let angle = (T::from_f64(f64::from(position)) * frequency).to_f64();
            table[t * d + 2 * i] = T::from_f64(angle.cos());
            table[t * d + 2 * i + 1] = T::from_f64(angle.sin());
        }
    }
}

/// Rotates each pair by its angle.
///
/// # Panics
/// When a slice is shorter than the dims require.
pub fn fwd<T: Float>(out: &mut [T], x: &[T], table: &[T], dims: RopeDims) {
    for_pairs(dims, |i, angle| {
        let (cos, sin) = (table[angle], table[angle + 1]);
        out[i] = x[i] * cos - x[i + 1] * sin;
        out[i + 1] = x[i] * sin + x[i + 1] * cos;
    });
}

/// Rotates each pair back.
///
/// # Panics
/// When a slice is shorter than the dims require.
pub fn bwd<T: Float>(dx: &mut [T], dout: &[T], table: &[T], dims: RopeDims) {
    for_pairs(dims, |i, angle| {
        let (cos, sin) = (table[angle], table[angle + 1]);
        dx[i] = dout[i] * cos + dout[i + 1] * sin;
        dx[i + 1] = dout[i + 1] * cos - dout[i] * sin;
    });
}

/// Calls `f` with the offset of each pair and the offset of its table entry.
fn for_pairs(dims: RopeDims, mut f: impl FnMut(usize, usize)) {
    for bt in 0..dims.b * dims.t {
        for h in 0..dims.h {
            for pair in (0..dims.d).step_by(2) {
                f((bt * dims.h + h) * dims.d + pair, bt % dims.t * dims.d + pair);
            }
        }
    }
}
