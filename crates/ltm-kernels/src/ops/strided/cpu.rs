//! The fast CPU implementation: runs along the innermost axis, all cores.

use rayon::prelude::*;

use super::{MAX_AXES, StridedDims};
use crate::ops::parallel::CHUNK;
use crate::{Float, simd};

pub(crate) fn fwd<T: Float>(out: &mut [T], x: &[T], dims: StridedDims) {
    let stride = dims.strides[MAX_AXES - 1];
    for_each_run(
        out,
        dims.extents,
        [dims.strides],
        #[inline(always)]
        |out, [first]| match stride {
            0 => out.fill(x[first]),
            1 => out.copy_from_slice(&x[first..first + out.len()]),
            _ => out.iter_mut().zip(x[first..].iter().step_by(stride)).for_each(|(o, x)| *o = *x),
        },
    );
}

/// Calls `f` on runs of neighbours of `out` along its innermost axis, with the place of the first of them in each
/// operand. Mark `f` `#[inline(always)]`; it must treat elements independently.
pub(crate) fn for_each_run<T: Float, const N: usize>(
    out: &mut [T],
    [_, e1, e2, e3]: [usize; MAX_AXES],
    strides: [[usize; MAX_AXES]; N],
    f: impl Fn(&mut [T], [usize; N]) + Send + Sync,
) {
    out.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, out)| {
        simd::dispatch(
            #[inline(always)]
            || {
                let mut done = 0;
                while done < out.len() {
                    let i = chunk * CHUNK + done;
                    let (row, i3) = (i / e3, i % e3);
                    let at = [row / e2 / e1, row / e2 % e1, row % e2, i3];
                    let len = (e3 - i3).min(out.len() - done);
                    let first = strides.map(|s| (0..MAX_AXES).map(|axis| at[axis] * s[axis]).sum());
                    f(&mut out[done..done + len], first);
                    done += len;
                }
            },
        );
    });
}
