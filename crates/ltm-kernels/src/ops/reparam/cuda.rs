//! Launches the CUDA kernels. Knows their contracts; must not know their arithmetic.
#![expect(unsafe_code, reason = "a launch vouches for its arguments")]

use super::OP;
use crate::cuda::{Arg, Context, Rung, choose};
use crate::ops::launch::elements;
use crate::{Buffer, DType, Result};

pub(crate) fn fwd(
    context: &Context,
    z: &mut Buffer,
    mu: &Buffer,
    log_var: &Buffer,
    noise: &Buffer,
) -> Result<()> {
    launch(context, "fwd", z, [mu, log_var, noise])
}

pub(crate) fn bwd(
    context: &Context,
    dlog_var: &mut Buffer,
    dz: &Buffer,
    log_var: &Buffer,
    noise: &Buffer,
) -> Result<()> {
    launch(context, "bwd", dlog_var, [dz, log_var, noise])
}

fn launch(context: &Context, pass: &str, out: &mut Buffer, [a, b, c]: [&Buffer; 3]) -> Result<()> {
    let rung = choose(OP, &[Rung(2, &[]), Rung(1, &[])])?;
    let n = out.len();
    let arg = |x: &Buffer| x.arg(context, DType::F32);
    let args = [out.arg_mut(context, DType::F32)?, arg(a)?, arg(b)?, arg(c)?, Arg::I64(n as i64)];
    let geometry = elements(n, if rung == 1 { 1 } else { 8 });
    // SAFETY: four buffers of n elements, checked by the caller; alignment is Buffer's.
    unsafe { context.launch(&format!("reparam_{pass}_f32_v{rung}"), geometry, &args) }
}
