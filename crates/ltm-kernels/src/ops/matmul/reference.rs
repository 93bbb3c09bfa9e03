//! The definition of the op in plain loops.

use super::{Layout, MatmulDims, Write};
use crate::Float;

/// See [`super::fwd`]; the sum runs over increasing `k`.
///
/// # Panics
/// If a slice is shorter than `dims` requires.
pub fn fwd<T: Float>(c: &mut [T], a: &[T], b: &[T], write: Write, dims: MatmulDims) {
    let MatmulDims { m, n, k, batch, .. } = dims;
    for i_batch in 0..batch {
        for i in 0..m {
            for j in 0..n {
                let mut sum = T::ZERO;
                for l in 0..k {
                    let a_il = match dims.a {
                        Layout::Normal => a[(i_batch * m + i) * k + l],
                        Layout::Transposed => a[(i_batch * k + l) * m + i],
                    };
                    let b_lj = match dims.b {
                        Layout::Normal => b[(i_batch * k + l) * n + j],
                        Layout::Transposed => b[(i_batch * n + j) * k + l],
                    };
                    sum += a_il * b_lj;
                }
                let c_ij = &mut c[(i_batch * m + i) * n + j];
                match write {
                    Write::Overwrite => *c_ij = sum,
                    Write::Accumulate => *c_ij += sum,
                }
            }
        }
    }
}
