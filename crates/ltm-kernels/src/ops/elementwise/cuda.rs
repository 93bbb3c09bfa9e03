//! Launches the CUDA kernels. Knows their contracts; must not know their arithmetic.
#![expect(unsafe_code, reason = "a launch vouches for its arguments")]

use super::{OP, RecordDims, ScaleRowsDims};
use crate::cuda::{Arg, Context, Rung, check_activation, choose};
use crate::ops::launch::{blocks, elements};
use crate::{Buffer, DType, Result};

/// Launches a pass over `n` elements of `dtype`; both rungs support any `n`.
fn pass(context: &Context, name: &str, dtype: DType, n: usize, args: &[Arg]) -> Result<()> {
    let rung = choose(OP, &[Rung(2, &[]), Rung(1, &[])])?;
    let geometry = elements(n, if rung == 1 { 1 } else { 8 });
    let args = [args, &[Arg::I64(n as i64)]].concat();
    // SAFETY: the callers below pass buffers of n elements, as `mod.rs` has checked;
    // alignment is Buffer's.
    unsafe { context.launch(&format!("elementwise_{name}_{dtype}_v{rung}"), geometry, &args) }
}

pub(crate) fn add(context: &Context, out: &mut Buffer, a: &Buffer, b: &Buffer) -> Result<()> {
    let dtype = out.dtype();
    check_activation(dtype)?;
    let args = [out.arg_mut(context, dtype)?, a.arg(context, dtype)?, b.arg(context, dtype)?];
    pass(context, "add", dtype, out.len(), &args)
}

pub(crate) fn add_assign(context: &Context, out: &mut Buffer, b: &Buffer) -> Result<()> {
    axpy(context, out, 1.0, b)
}

pub(crate) fn axpy(context: &Context, y: &mut Buffer, alpha: f64, x: &Buffer) -> Result<()> {
    let dtype = y.dtype();
    check_activation(dtype)?;
    let args = [y.arg_mut(context, dtype)?, x.arg(context, dtype)?, Arg::F32(alpha as f32)];
    pass(context, "axpy", dtype, y.len(), &args)
}

pub(crate) fn fill(context: &Context, out: &mut Buffer, value: f64) -> Result<()> {
    let dtype = out.dtype();
    check_activation(dtype)?;
    let args = [out.arg_mut(context, dtype)?, Arg::F32(value as f32)];
    pass(context, "fill", dtype, out.len(), &args)
}

pub(crate) fn outer_scale(
    context: &Context,
    out: &mut Buffer,
    w: &Buffer,
    s: &Buffer,
) -> Result<()> {
    let dtype = out.dtype();
    check_activation(dtype)?;
    let s = s.arg(context, DType::F32)?;
    let args = [out.arg_mut(context, dtype)?, w.arg(context, dtype)?, s];
    pass(context, "outer_scale", dtype, out.len(), &args)
}

fn scale_rows_rung(dims: ScaleRowsDims) -> Result<u32> {
    choose(OP, &[Rung(2, &[("[P1] C % 8 == 0", dims.c.is_multiple_of(8))]), Rung(1, &[])])
}

pub(crate) fn scale_rows(
    context: &Context,
    out: &mut Buffer,
    x: &Buffer,
    s: &Buffer,
    dims: ScaleRowsDims,
) -> Result<()> {
    let dtype = out.dtype();
    check_activation(dtype)?;
    let rung = scale_rows_rung(dims)?;
    let args = [
        out.arg_mut(context, dtype)?,
        x.arg(context, dtype)?,
        s.arg(context, DType::F32)?,
        Arg::extent(OP, dims.rows)?,
        Arg::extent(OP, dims.c)?,
    ];
    let geometry = elements(dims.rows * dims.c, if rung == 1 { 1 } else { 8 });
    // SAFETY: lengths are checked against dims by the caller; P1 by the rung, alignment is Buffer's.
    unsafe { context.launch(&format!("elementwise_scale_rows_{dtype}_v{rung}"), geometry, &args) }
}

pub(crate) fn increment(context: &Context, counter: &mut Buffer) -> Result<()> {
    choose(OP, &[Rung(1, &[])])?;
    let counter = counter.arg_mut(context, DType::I32)?;
    // SAFETY: one integer, checked by the caller.
    unsafe { context.launch("elementwise_increment_i32_v1", blocks(1), &[counter]) }
}

pub(crate) fn record(
    context: &Context,
    history: &mut Buffer,
    x: &Buffer,
    step: &Buffer,
    dims: RecordDims,
) -> Result<()> {
    choose(OP, &[Rung(1, &[])])?;
    let args = [
        history.arg_mut(context, DType::F32)?,
        x.arg(context, DType::F32)?,
        step.arg(context, DType::I32)?,
        Arg::extent(OP, dims.rows)?,
        Arg::extent(OP, dims.width)?,
        Arg::extent(OP, dims.offset)?,
        Arg::extent(OP, dims.n)?,
    ];
    // SAFETY: lengths are checked against dims by the caller; the kernel checks the step.
    unsafe { context.launch("elementwise_record_f32_v1", elements(dims.n, 1), &args) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ops::testing::{needs, refusal};

    #[test]
    fn each_need_is_refused() {
        let dims = ScaleRowsDims { rows: 1, c: 12 };
        let shown = [refusal(OP, "fwd_v2_vec8.cu", || scale_rows_rung(dims))];
        assert_eq!(BTreeSet::from(shown), needs(OP));
    }
}
