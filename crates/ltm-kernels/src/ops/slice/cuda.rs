//! Launches the CUDA kernels. Knows their contracts; must not know their arithmetic.
#![expect(unsafe_code, reason = "a launch vouches for its arguments")]

use super::{OP, SliceDims};
use crate::cuda::{Arg, Context, Rung, check_activation, choose};
use crate::ops::launch::elements;
use crate::{Buffer, Result};

pub(crate) fn fwd(context: &Context, out: &mut Buffer, x: &Buffer, dims: SliceDims) -> Result<()> {
    let n = out.len();
    launch(context, "fwd", out, x, n, dims)
}

pub(crate) fn bwd(
    context: &Context,
    dx: &mut Buffer,
    dout: &Buffer,
    dims: SliceDims,
) -> Result<()> {
    let n = dx.len();
    launch(context, "bwd", dx, dout, n, dims)
}

pub(crate) fn place(
    context: &Context,
    out: &mut Buffer,
    x: &Buffer,
    dims: SliceDims,
) -> Result<()> {
    launch(context, "place", out, x, x.len(), dims)
}

fn rung(dims: SliceDims) -> Result<u32> {
    choose(OP, &[Rung(2, &[("[P1] C % 8 == 0", dims.c.is_multiple_of(8))]), Rung(1, &[])])
}

/// Launches a pass whose threads share out `n` elements.
fn launch(
    context: &Context,
    pass: &str,
    out: &mut Buffer,
    x: &Buffer,
    n: usize,
    dims: SliceDims,
) -> Result<()> {
    let dtype = out.dtype();
    check_activation(dtype)?;
    let rung = rung(dims)?;
    let args = [
        out.arg_mut(context, dtype)?,
        x.arg(context, dtype)?,
        Arg::extent(OP, dims.b)?,
        Arg::extent(OP, dims.rows)?,
        Arg::extent(OP, dims.start)?,
        Arg::extent(OP, dims.len)?,
        Arg::extent(OP, dims.c)?,
    ];
    let geometry = elements(n, if rung == 1 { 1 } else { 8 });
    // SAFETY: lengths are checked against dims by the caller; P1 by `rung`, alignment is Buffer's.
    unsafe { context.launch(&format!("slice_{pass}_{dtype}_v{rung}"), geometry, &args) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ops::testing::{needs, refusal};

    #[test]
    fn each_need_is_refused() {
        let dims = SliceDims { b: 1, rows: 1, start: 0, len: 1, c: 12 };
        let files = ["fwd_v2_vec8.cu", "bwd_v2_vec8.cu", "place_v2_vec8.cu"];
        let shown = files.map(|file| refusal(OP, file, || rung(dims)));
        assert_eq!(BTreeSet::from(shown), needs(OP));
    }
}
