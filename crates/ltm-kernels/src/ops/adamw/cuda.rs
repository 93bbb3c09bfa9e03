//! Launches the CUDA kernels. Knows their contracts; must not know their arithmetic.
#![expect(unsafe_code, reason = "a launch vouches for its arguments")]

use super::{FACTORS, Factors, OP};
use crate::cuda::{Arg, Context, Rung, choose};
use crate::ops::launch::elements;
use crate::{Buffer, DType, Result};

const F32: DType = DType::F32;

pub(crate) fn step(
    context: &Context,
    param: &mut Buffer,
    m: &mut Buffer,
    v: &mut Buffer,
    grad: &Buffer,
    factors: Factors<f32>,
) -> Result<()> {
    let factors = factors.to_row().map(Arg::F32);
    launch(context, "fwd", param, m, v, grad, &factors)
}

pub(crate) fn scheduled(
    context: &Context,
    param: &mut Buffer,
    m: &mut Buffer,
    v: &mut Buffer,
    grad: &Buffer,
    factors: &Buffer,
    step: &Buffer,
) -> Result<()> {
    let steps = Arg::extent(OP, factors.len() / FACTORS)?;
    let table = [factors.arg(context, F32)?, step.arg(context, DType::I32)?, steps];
    launch(context, "fwd_scheduled", param, m, v, grad, &table)
}

fn launch(
    context: &Context,
    pass: &str,
    param: &mut Buffer,
    m: &mut Buffer,
    v: &mut Buffer,
    grad: &Buffer,
    factors: &[Arg],
) -> Result<()> {
    let rung = choose(OP, &[Rung(2, &[]), Rung(1, &[])])?;
    let n = param.len();
    let mut args = vec![param.arg_mut(context, F32)?, m.arg_mut(context, F32)?];
    args.extend([v.arg_mut(context, F32)?, grad.arg(context, F32)?]);
    args.extend(factors);
    args.push(Arg::I64(n as i64));
    let geometry = elements(n, if rung == 1 { 1 } else { 8 });
    // SAFETY: four buffers of n elements, checked by the caller; factors as the contract orders
    // them, a table of as many rows as stated; alignment is Buffer's.
    unsafe { context.launch(&format!("adamw_{pass}_f32_v{rung}"), geometry, &args) }
}
