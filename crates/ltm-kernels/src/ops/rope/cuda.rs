//! Launches the CUDA kernels. Knows their contracts; must not know their arithmetic.
#![expect(unsafe_code, reason = "a launch vouches for its arguments")]

use super::{OP, RopeDims};
use crate::cuda::{Arg, Context, Rung, check_activation, choose};
use crate::ops::launch::elements;
use crate::{Buffer, DType, Result};

pub(crate) fn table(
    context: &Context,
    table: &mut Buffer,
    positions: &Buffer,
    theta: f64,
    d: usize,
) -> Result<()> {
    let rung = choose(OP, &[Rung(1, &[])])?;
    let n = table.len();
    let args = [
        table.arg_mut(context, DType::F32)?,
        positions.arg(context, DType::I32)?,
        Arg::F64(theta.log2()),
        Arg::extent(OP, positions.len())?,
        Arg::extent(OP, d)?,
    ];
    // SAFETY: the table has T times d elements and d is even, checked by the caller.
    unsafe { context.launch(&format!("rope_table_f32_v{rung}"), elements(n / 2, 1), &args) }
}

fn rung(dims: RopeDims) -> Result<u32> {
    choose(OP, &[Rung(2, &[("[P1] D % 8 == 0", dims.d.is_multiple_of(8))]), Rung(1, &[])])
}

/// Rotates by `sign` times each position's angle: `sign` is 1 forward and -1 backward.
pub(crate) fn rotate(
    context: &Context,
    out: &mut Buffer,
    x: &Buffer,
    table: &Buffer,
    sign: f32,
    dims: RopeDims,
) -> Result<()> {
    let dtype = out.dtype();
    check_activation(dtype)?;
    let rung = rung(dims)?;
    let n = out.len();
    let args = [
        out.arg_mut(context, dtype)?,
        x.arg(context, dtype)?,
        table.arg(context, DType::F32)?,
        Arg::F32(sign),
        Arg::extent(OP, dims.b)?,
        Arg::extent(OP, dims.t)?,
        Arg::extent(OP, dims.h)?,
        Arg::extent(OP, dims.d)?,
    ];
    let geometry = elements(n, if rung == 1 { 2 } else { 8 });
    // SAFETY: lengths are checked against dims by the caller, D is even; P1 by `rung`,
    // alignment is Buffer's.
    unsafe { context.launch(&format!("rope_fwd_{dtype}_v{rung}"), geometry, &args) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ops::testing::{needs, refusal};

    #[test]
    fn each_need_is_refused() {
        let dims = RopeDims { b: 1, t: 1, h: 1, d: 12 };
        let shown = [refusal(OP, "fwd_v2_vec8.cu", || rung(dims))];
        assert_eq!(BTreeSet::from(shown), needs(OP));
    }
}
