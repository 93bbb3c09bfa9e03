//! Launches of the CUDA kernels. Knows their contracts, no arithmetic.
#![expect(unsafe_code, reason = "a launch vouches for its arguments")]

use super::{Function, OP};
use crate::cuda::{Arg, Context, Rung, check_activation, choose};
use crate::ops::launch::elements;
use crate::{Buffer, DType, Result};

/// The number, scale and shift of a function, as `kernels/unary/math.cuh` takes them.
fn code(f: Function) -> (i32, f32, f32) {
    match f {
        Function::Affine { scale, shift } => (0, scale as f32, shift as f32),
        Function::Exp => (1, 1.0, 0.0),
        Function::Log => (2, 1.0, 0.0),
        Function::Sqrt => (3, 1.0, 0.0),
        Function::Tanh => (4, 1.0, 0.0),
        Function::Sigmoid => (5, 1.0, 0.0),
        Function::Gelu => (6, 1.0, 0.0),
        Function::Relu => (7, 1.0, 0.0),
    }
}

fn launch(context: &Context, pass: &str, dtype: DType, n: usize, args: &[Arg]) -> Result<()> {
    let rung = choose(OP, &[Rung(2, &[]), Rung(1, &[])])?;
    let geometry = elements(n, if rung == 1 { 1 } else { 8 });
    let args = [args, &[Arg::I64(n as i64)]].concat();
    // SAFETY: the callers below pass buffers of n elements, as `mod.rs` has checked; alignment is
    // Buffer's.
    unsafe { context.launch(&format!("unary_{pass}_{dtype}_v{rung}"), geometry, &args) }
}

pub(crate) fn fwd(context: &Context, out: &mut Buffer, x: &Buffer, f: Function) -> Result<()> {
    let dtype = out.dtype();
    check_activation(dtype)?;
    let (function, scale, shift) = code(f);
    let numbers = [Arg::I32(function), Arg::F32(scale), Arg::F32(shift)];
    let args = [&[out.arg_mut(context, dtype)?, x.arg(context, dtype)?], &numbers[..]].concat();
    launch(context, "fwd", dtype, out.len(), &args)
}

pub(crate) fn bwd(
    context: &Context,
    dx: &mut Buffer,
    dout: &Buffer,
    x: &Buffer,
    f: Function,
) -> Result<()> {
    let dtype = dx.dtype();
    check_activation(dtype)?;
    let (function, scale, _) = code(f);
    let (dout, x) = (dout.arg(context, dtype)?, x.arg(context, dtype)?);
    let args = [dx.arg_mut(context, dtype)?, dout, x, Arg::I32(function), Arg::F32(scale)];
    launch(context, "bwd", dtype, dx.len(), &args)
}
