//! The definition of `strided` as plain loops.

use super::StridedDims;
use crate::Float;

/// `out[i0,i1,i2,i3] = x[i0·s0 + i1·s1 + i2·s2 + i3·s3]`.
///
/// # Panics
/// When a slice is shorter than the dims ask for.
pub fn fwd<T: Float>(out: &mut [T], x: &[T], dims: StridedDims) {
    let ([e0, e1, e2, e3], [s0, s1, s2, s3]) = (dims.extents, dims.strides);
    let mut i = 0;
    for i0 in 0..e0 {
        for i1 in 0..e1 {
            for i2 in 0..e2 {
                for i3 in 0..e3 {
                    out[i] = x[i0 * s0 + i1 * s1 + i2 * s2 + i3 * s3];
                    i += 1;
                }
            }
        }
    }
}
