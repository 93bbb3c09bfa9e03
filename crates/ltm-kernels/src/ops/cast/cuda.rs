//! Launches the CUDA kernels. Knows their contracts; must not know their arithmetic.
#![expect(unsafe_code, reason = "a launch vouches for its arguments")]

use super::OP;
use crate::cuda::{Arg, Context, Rung, check_activation, choose};
use crate::ops::launch::elements;
use crate::{Buffer, Result};

pub(crate) fn fwd(context: &Context, out: &mut Buffer, x: &Buffer) -> Result<()> {
    let (to, from) = (out.dtype(), x.dtype());
    check_activation(to)?;
    check_activation(from)?;
    let rung = choose(OP, &[Rung(2, &[]), Rung(1, &[])])?;
    let n = out.len();
    let args = [out.arg_mut(context, to)?, x.arg(context, from)?, Arg::I64(n as i64)];
    let geometry = elements(n, if rung == 1 { 1 } else { 8 });
    // SAFETY: both buffers have n elements; alignment is Buffer's.
    unsafe { context.launch(&format!("cast_fwd_{from}_{to}_v{rung}"), geometry, &args) }
}
