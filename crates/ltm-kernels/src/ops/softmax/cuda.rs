//! Launches of the CUDA kernels. Knows their contracts, no arithmetic.
#![expect(unsafe_code, reason = "a launch vouches for its arguments")]

use super::{OP, SoftmaxDims};
use crate::cuda::{Arg, Context, Rung, check_activation, choose};
use crate::ops::launch::elements;
use crate::{Buffer, DType, Result};

/// Lanes of a warp.
const WARP: usize = 32;

fn launch(
    context: &Context,
    pass: &str,
    dtype: DType,
    dims: SoftmaxDims,
    buffers: &[Arg],
) -> Result<()> {
    let rung = choose(OP, &[Rung(2, &[]), Rung(1, &[])])?;
    let extents = [Arg::extent(OP, dims.rows)?, Arg::extent(OP, dims.c)?];
    let args = [buffers, &extents].concat();
    let geometry = elements(dims.rows * if rung == 1 { 1 } else { WARP }, 1);
    // SAFETY: the callers below pass buffers of rows times c elements, as `mod.rs` has checked.
    unsafe { context.launch(&format!("softmax_{pass}_{dtype}_v{rung}"), geometry, &args) }
}

pub(crate) fn fwd(
    context: &Context,
    out: &mut Buffer,
    x: &Buffer,
    dims: SoftmaxDims,
) -> Result<()> {
    let dtype = out.dtype();
    check_activation(dtype)?;
    let args = [out.arg_mut(context, dtype)?, x.arg(context, dtype)?];
    launch(context, "fwd", dtype, dims, &args)
}

pub(crate) fn bwd(
    context: &Context,
    dx: &mut Buffer,
    dout: &Buffer,
    out: &Buffer,
    dims: SoftmaxDims,
) -> Result<()> {
    let dtype = dx.dtype();
    check_activation(dtype)?;
    let (dout, out) = (dout.arg(context, dtype)?, out.arg(context, dtype)?);
    launch(context, "bwd", dtype, dims, &[dx.arg_mut(context, dtype)?, dout, out])
}
