//! Launches the CUDA kernels. Knows their contracts; must not know their arithmetic.
#![expect(unsafe_code, reason = "a launch vouches for its arguments")]

use super::{OP, SumAxisDims};
use crate::cuda::{Arg, Context, Rung, check_activation, choose};
use crate::ops::launch::{THREADS, blocks, elements};
use crate::{Buffer, DType, Device, Error, Result};

const F32: DType = DType::F32;

/// Maximum partial results per buffer: blocks of the first stage.
const MAX_PARTIALS: usize = 512;

fn rung() -> Result<u32> {
    choose(OP, &[Rung(2, &[]), Rung(1, &[])])
}

/// Partial results of `n` elements: one in rung 1, otherwise enough blocks to give each thread some
/// elements.
fn partials(rung: u32, n: usize) -> usize {
    if rung == 1 { 1 } else { n.div_ceil(16 * THREADS).clamp(1, MAX_PARTIALS) }
}

pub(crate) fn sum_groups(context: &Context, out: &mut Buffer, x: &Buffer) -> Result<()> {
    let rung = rung()?;
    let groups = out.len();
    let args = [
        out.arg_mut(context, F32)?,
        x.arg(context, F32)?,
        Arg::extent(OP, groups)?,
        Arg::I64((x.len() / groups) as i64),
    ];
    let geometry = blocks(if rung == 1 { groups.div_ceil(THREADS) } else { groups });
    // SAFETY: x has groups times n elements, checked by the caller.
    unsafe { context.launch(&format!("reduce_sum_groups_f32_v{rung}"), geometry, &args) }
}

/// Neighbouring sums that a block computes side by side.
const COLUMNS: usize = 32;

pub(crate) fn sum_axis(
    context: &Context,
    out: &mut Buffer,
    x: &Buffer,
    dims: SumAxisDims,
) -> Result<()> {
    let (dtype, out_dtype) = (x.dtype(), out.dtype());
    check_activation(dtype)?;
    let types = match (dtype, out_dtype) {
        (DType::BF16, F32) => "f32out_bf16".to_owned(),
        _ => dtype.to_string(),
    };
    let rung = rung()?;
    let SumAxisDims { outer, n, inner } = dims;
    // The type of `out` is refused here unless it is that of `x`, or f32.
    let wanted = if out_dtype == F32 { F32 } else { dtype };
    let buffers = [out.arg_mut(context, wanted)?, x.arg(context, dtype)?];
    let extents = [Arg::extent(OP, n)?, Arg::extent(OP, inner)?];
    let (geometry, rest) = if rung == 1 {
        let extents = [Arg::extent(OP, outer)?, extents[0], extents[1]];
        (elements(outer * inner, 1), extents)
    } else {
        let columns = if inner == 1 { 1 } else { COLUMNS };
        let count = outer * inner.div_ceil(columns);
        Arg::extent(OP, count)?;
        (blocks(count), [extents[0], extents[1], Arg::I32(columns as i32)])
    };
    let args = [&buffers[..], &rest].concat();
    // SAFETY: lengths are checked against dims by the caller.
    unsafe { context.launch(&format!("reduce_sum_axis_{types}_v{rung}"), geometry, &args) }
}

pub(crate) fn dot(context: &Context, out: &mut Buffer, x: &Buffer, w: &Buffer) -> Result<()> {
    let rung = rung()?;
    let out = out.arg_mut(context, F32)?;
    let count = partials(rung, x.len());
    let _together = context.together()?;
    let (workspace, _) = context.workspace();
    let (x_arg, w) = (x.arg(context, F32)?, w.arg(context, F32)?);
    let args = [workspace, x_arg, w, Arg::I64(x.len() as i64)];
    // SAFETY: x and w have n elements, checked by the caller; the workspace holds MAX_PARTIALS
    // doubles.
    unsafe { context.launch(&format!("reduce_dot_f32_v{rung}"), blocks(count), &args)? };
    let args = [out, workspace, Arg::extent(OP, count)?];
    // SAFETY: out has one element, checked by the caller; the partials were written above.
    unsafe { context.launch(&format!("reduce_dot_total_f32_v{rung}"), blocks(1), &args) }
}

pub(crate) fn sum_squares_all(context: &'static Context, buffers: &[&Buffer]) -> Result<f64> {
    let rung = rung()?;
    let _together = context.together()?;
    let (workspace, workspace_bytes) = context.workspace();
    let Arg::Ptr(start) = workspace else { unreachable!("a workspace is an address") };
    let mut count = 0;
    for x in buffers {
        let own = partials(rung, x.len());
        if 8 * (count + own) > workspace_bytes {
            let reason = format!("{} buffers have no room for their partial sums", buffers.len());
            return Err(Error::Dims { op: OP, reason });
        }
        let x_arg = x.arg(context, F32)?;
        let target = Arg::Ptr(start + 8 * count as u64);
        let args = [target, x_arg, x_arg, Arg::I64(x.len() as i64)];
        // SAFETY: x has n elements; the workspace has room for these partials, as checked.
        unsafe { context.launch(&format!("reduce_dot_f32_v{rung}"), blocks(own), &args)? };
        count += own;
    }
    let mut total = two_words(context)?;
    let args = [total.arg_mut(context, DType::I32)?, workspace, Arg::extent(OP, count)?];
    // SAFETY: the total has the eight bytes of a double; the partials were written above.
    unsafe { context.launch(&format!("reduce_total_f64_v{rung}"), blocks(1), &args)? };
    Ok(f64::from_bits(read_words(&total)?))
}

pub(crate) fn first_non_finite(context: &'static Context, x: &Buffer) -> Result<Option<usize>> {
    let rung = rung()?;
    let x_arg = x.arg(context, F32)?;
    let count = partials(rung, x.len());
    let _together = context.together()?;
    let (workspace, _) = context.workspace();
    let args = [workspace, x_arg, Arg::I64(x.len() as i64)];
    // SAFETY: x has n elements; the workspace holds MAX_PARTIALS indices of eight bytes.
    unsafe {
        context.launch(&format!("reduce_first_non_finite_f32_v{rung}"), blocks(count), &args)?;
    }
    let mut first = two_words(context)?;
    let args = [first.arg_mut(context, DType::I32)?, workspace, Arg::extent(OP, count)?];
    // SAFETY: the result has the eight bytes of an index; the partials were written above.
    unsafe { context.launch(&format!("reduce_first_total_i64_v{rung}"), blocks(1), &args)? };
    let first = read_words(&first)? as usize;
    Ok((first < x.len()).then_some(first))
}

/// Eight bytes on the device for a result that the host reads.
fn two_words(context: &'static Context) -> Result<Buffer> {
    Buffer::zeros(&Device::Cuda(context), DType::I32, 2)
}

fn read_words(words: &Buffer) -> Result<u64> {
    let words = words.to_i32()?;
    Ok(u64::from(words[0].cast_unsigned()) | u64::from(words[1].cast_unsigned()) << 32)
}
