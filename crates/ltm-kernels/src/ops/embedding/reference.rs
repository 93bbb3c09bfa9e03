//! The definition of `embedding` as plain loops.

use super::EmbeddingDims;
use crate::Float;

/// `out[n,:] = table[tokens[n],:]`.
///
/// # Panics
/// When a slice is shorter than the dims require or a token is outside the table.
pub fn fwd<T: Float>(out: &mut [T], table: &[T], tokens: &[i32], dims: EmbeddingDims) {
    let c = dims.c;
    for (n, &token) in tokens.iter().enumerate() {
        let v = token as usize;
        out[n * c..(n + 1) * c].copy_from_slice(&table[v * c..(v + 1) * c]);
    }
}

/// `dtable[v,:] = Σ_{n: tokens[n] = v} dout[n,:]`.
///
/// # Panics
/// When a slice is shorter than the dims require or a token is outside the table.
pub fn bwd<T: Float>(dtable: &mut [T], dout: &[T], tokens: &[i32], dims: EmbeddingDims) {
    dtable.fill(T::ZERO);
    for (n, &token) in tokens.iter().enumerate() {
        for c in 0..dims.c {
            dtable[token as usize * dims.c + c] += dout[n * dims.c + c];
        }
    }
}
