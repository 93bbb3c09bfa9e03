//! Launches of the CUDA kernels. Knows their contracts, no arithmetic.
#![expect(unsafe_code, reason = "a launch vouches for its arguments")]

use super::{NormalRowsDims, OP, Philox};
use crate::cuda::{Arg, Context, Rung, choose};
use crate::ops::launch::elements;
use crate::{Buffer, DType, Result};

pub(crate) fn normal(
    context: &Context,
    out: &mut Buffer,
    philox: Philox,
    mean: f64,
    std: f64,
) -> Result<()> {
    let rung = choose(OP, &[Rung(2, &[]), Rung(1, &[])])?;
    let n = out.len();
    let [k0, k1, h0, h1] = philox.words().map(Arg::U32);
    let (mean, std) = (Arg::F64(mean), Arg::F64(std));
    let args = [out.arg_mut(context, DType::F32)?, k0, k1, h0, h1, mean, std, Arg::I64(n as i64)];
    let geometry = elements(n, rung as usize);
    // SAFETY: n is the buffer's length; P1 by Buffer's alignment.
    unsafe { context.launch(&format!("philox_normal_f32_v{rung}"), geometry, &args) }
}

pub(crate) fn normal_rows(
    context: &Context,
    out: &mut Buffer,
    keys: &Buffer,
    step: &Buffer,
    dims: NormalRowsDims,
) -> Result<()> {
    let needs = [("[P2] n % 2 == 0", dims.n.is_multiple_of(2))];
    let rung = choose(OP, &[Rung(2, &needs), Rung(1, &[])])?;
    let args = [
        out.arg_mut(context, DType::F32)?,
        keys.arg(context, DType::I32)?,
        step.arg(context, DType::I32)?,
        Arg::extent(OP, dims.steps)?,
        Arg::extent(OP, dims.rows)?,
        Arg::extent(OP, dims.n)?,
    ];
    let geometry = elements(out.len(), rung as usize);
    // SAFETY: lengths are checked against dims by the caller; P2 above; P1 by Buffer's alignment.
    unsafe { context.launch(&format!("philox_normal_rows_f32_v{rung}"), geometry, &args) }
}
