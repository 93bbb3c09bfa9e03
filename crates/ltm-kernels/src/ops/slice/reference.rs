//! The definition of `slice`: copies, fast enough to need no separate CPU implementation.

use super::SliceDims;
use crate::Float;

/// `out[b,l,:] = x[b, start + l, :]`.
///
/// # Panics
/// When a slice is shorter than the dims require.
pub fn fwd<T: Float>(out: &mut [T], x: &[T], dims: SliceDims) {
    let (first, run) = (dims.start * dims.c, dims.len * dims.c);
    let sources = x.chunks_exact(dims.rows * dims.c);
    for (out_b, x_b) in out.chunks_exact_mut(run).zip(sources) {
        out_b.copy_from_slice(&x_b[first..first + run]);
    }
}

/// `dout` at the rows it came from, zeros elsewhere.
///
/// # Panics
/// When a slice is shorter than the dims require.
pub fn bwd<T: Float>(dx: &mut [T], dout: &[T], dims: SliceDims) {
    let (first, run) = (dims.start * dims.c, dims.len * dims.c);
    let sources = dout.chunks_exact(run);
    for (dx_b, dout_b) in dx.chunks_exact_mut(dims.rows * dims.c).zip(sources) {
        dx_b[..first].fill(T::ZERO);
        dx_b[first..first + run].copy_from_slice(dout_b);
        dx_b[first + run..].fill(T::ZERO);
    }
}

/// `out[b, start + l, :] = x[b,l,:]`; the other rows of `out` stay as they are.
///
/// # Panics
/// When a slice is shorter than the dims ask for.
pub fn place<T: Float>(out: &mut [T], x: &[T], dims: SliceDims) {
    let (first, run) = (dims.start * dims.c, dims.len * dims.c);
    for (out_b, x_b) in out.chunks_exact_mut(dims.rows * dims.c).zip(x.chunks_exact(run)) {
        out_b[first..first + run].copy_from_slice(x_b);
    }
}
