//! Launches the CUDA kernels. Knows their contracts; must not know their arithmetic.
#![expect(unsafe_code, reason = "a launch vouches for its arguments")]

use super::OP;
use crate::cuda::{Arg, Context, Rung, check_activation, choose};
use crate::ops::launch::elements;
use crate::{Buffer, DType, Result};

fn launch(context: &Context, pass: &str, dtype: DType, n: usize, args: &[Arg]) -> Result<()> {
    let rung = choose(OP, &[Rung(2, &[]), Rung(1, &[])])?;
    let geometry = elements(n, if rung == 1 { 1 } else { 8 });
    let args = [args, &[Arg::I64(n as i64)]].concat();
    // SAFETY: the callers below pass buffers of n elements, as `mod.rs` has checked, or null where
    // the contract allows it; alignment is Buffer's.
    unsafe { context.launch(&format!("swiglu_{pass}_{dtype}_v{rung}"), geometry, &args) }
}

pub(crate) fn fwd(context: &Context, out: &mut Buffer, gate: &Buffer, up: &Buffer) -> Result<()> {
    let dtype = out.dtype();
    check_activation(dtype)?;
    let args = [out.arg_mut(context, dtype)?, gate.arg(context, dtype)?, up.arg(context, dtype)?];
    launch(context, "fwd", dtype, out.len(), &args)
}

pub(crate) fn bwd(
    context: &Context,
    dgate: Option<&mut Buffer>,
    dup: Option<&mut Buffer>,
    dout: &Buffer,
    gate: &Buffer,
    up: &Buffer,
) -> Result<()> {
    let dtype = dout.dtype();
    check_activation(dtype)?;
    let wanted = |output: Option<&mut Buffer>| {
        output.map_or(Ok(Arg::Ptr(0)), |output| output.arg_mut(context, dtype))
    };
    let (dgate, dup) = (wanted(dgate)?, wanted(dup)?);
    let (gate, up) = (gate.arg(context, dtype)?, up.arg(context, dtype)?);
    let args = [dgate, dup, dout.arg(context, dtype)?, gate, up];
    launch(context, "bwd", dtype, dout.len(), &args)
}
