//! Launches the CUDA kernels. Knows their contracts; must not know their arithmetic.
#![expect(unsafe_code, reason = "a launch vouches for its arguments")]

use super::{OP, RmsNormDims};
use crate::cuda::{Arg, Context, Geometry, Rung, check_activation, choose};
use crate::ops::launch::{THREADS, blocks};
use crate::{Buffer, DType, Result};

/// Rows per block of the second rung, one per warp.
const ROWS: usize = THREADS / 32;

fn rung(dims: RmsNormDims) -> Result<u32> {
    let c = dims.c;
    let eights = ("[P1] C % 8 == 0", c.is_multiple_of(8));
    // A warp needs no barrier, so the second rung is used for all rows that fit its registers.
    let warp = [eights, ("[P2] C <= 1024", c <= 1024)];
    let block = [eights, ("[P2] C <= 8192", c <= 8192)];
    choose(OP, &[Rung(2, &warp), Rung(3, &block), Rung(1, &[])])
}

/// The rung of a call, its extents, and the number of blocks for its rows.
fn prepare(dims: RmsNormDims) -> Result<(u32, Arg, Arg, Geometry)> {
    let rung = rung(dims)?;
    let (rows, c) = (Arg::extent(OP, dims.rows)?, Arg::extent(OP, dims.c)?);
    let rows_per_block = match rung {
        1 => THREADS,
        2 => ROWS,
        _ => 1,
    };
    Ok((rung, rows, c, blocks(dims.rows.div_ceil(rows_per_block))))
}

pub(crate) fn fwd(
    context: &Context,
    out: &mut Buffer,
    x: &Buffer,
    weight: &Buffer,
    eps: f64,
    dims: RmsNormDims,
) -> Result<()> {
    let dtype = out.dtype();
    check_activation(dtype)?;
    let (rung, rows, c, geometry) = prepare(dims)?;
    let args = [
        out.arg_mut(context, dtype)?,
        x.arg(context, dtype)?,
        weight.arg(context, DType::F32)?,
        Arg::F32(eps as f32),
        rows,
        c,
    ];
    // SAFETY: lengths are checked against dims by the caller; P1, P2 by `rung`; alignment is
    // Buffer's, as rows are whole eights.
    unsafe { context.launch(&format!("rms_norm_fwd_{dtype}_v{rung}"), geometry, &args) }
}

pub(crate) fn fwd_add(
    context: &Context,
    sum: &mut Buffer,
    out: &mut Buffer,
    x: &Buffer,
    residual: &Buffer,
    weight: &Buffer,
    eps: f64,
    dims: RmsNormDims,
) -> Result<()> {
    let dtype = out.dtype();
    check_activation(dtype)?;
    let (rung, rows, c, geometry) = prepare(dims)?;
    let args = [
        sum.arg_mut(context, dtype)?,
        out.arg_mut(context, dtype)?,
        x.arg(context, dtype)?,
        residual.arg(context, dtype)?,
        weight.arg(context, DType::F32)?,
        Arg::F32(eps as f32),
        rows,
        c,
    ];
    // SAFETY: as for `fwd`.
    unsafe { context.launch(&format!("rms_norm_fwd_add_{dtype}_v{rung}"), geometry, &args) }
}

pub(crate) fn bwd(
    context: &Context,
    dx: Option<&mut Buffer>,
    dweight: Option<&mut Buffer>,
    scratch: &mut Buffer,
    dout: &Buffer,
    x: &Buffer,
    weight: &Buffer,
    dresidual: Option<&Buffer>,
    eps: f64,
    dims: RmsNormDims,
) -> Result<()> {
    let dtype = dout.dtype();
    check_activation(dtype)?;
    let (rung, rows, c, geometry) = prepare(dims)?;
    let eps = Arg::F32(eps as f32);
    let (dout, x) = (dout.arg(context, dtype)?, x.arg(context, dtype)?);
    let weight = weight.arg(context, DType::F32)?;
    if let Some(dx) = dx {
        let dresidual = dresidual.map(|dresidual| dresidual.arg(context, dtype)).transpose()?;
        let dresidual = dresidual.unwrap_or(Arg::Ptr(0));
        let args = [dx.arg_mut(context, dtype)?, dout, x, weight, dresidual, eps, rows, c];
        // SAFETY: as for `fwd`; a null `dresidual` is in the contract.
        unsafe { context.launch(&format!("rms_norm_bwd_{dtype}_v{rung}"), geometry, &args)? };
    }
    let Some(dweight) = dweight else { return Ok(()) };
    let dweight = dweight.arg_mut(context, DType::F32)?;
    let scratch = scratch.arg_mut(context, DType::F32)?;
    let columns = blocks(dims.c.div_ceil(THREADS));
    if rung == 1 {
        let args = [scratch, x, eps, rows, c];
        // SAFETY: as for `fwd`; scratch holds at least `rows` elements by `scratch_len`.
        unsafe {
            context.launch(&format!("rms_norm_bwd_inverse_{dtype}_v1"), geometry, &args)?;
        }
        let args = [dweight, scratch, dout, x, rows, c];
        // SAFETY: as above.
        return unsafe {
            context.launch(&format!("rms_norm_bwd_weight_{dtype}_v1"), columns, &args)
        };
    }
    let per_block = Arg::extent(OP, dims.rows_per_block())?;
    // The second rung adds its warps' sums in shared memory.
    let smem_bytes = if rung == 2 { (ROWS * dims.c * 4) as u32 } else { 0 };
    let geometry = Geometry { smem_bytes, ..blocks(dims.partials()) };
    let args = [scratch, dout, x, eps, rows, c, per_block];
    // SAFETY: as for `fwd`; scratch holds `partials` rows by `scratch_len`; the shared memory is
    // the contract's.
    unsafe { context.launch(&format!("rms_norm_bwd_weight_{dtype}_v{rung}"), geometry, &args)? };
    let args = [dweight, scratch, Arg::extent(OP, dims.partials())?, c];
    // SAFETY: as above.
    unsafe { context.launch("rms_norm_bwd_partials_f32_v2", columns, &args) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ops::testing::{needs, refusal};

    #[test]
    fn each_need_is_refused() {
        let mut shown = BTreeSet::new();
        let of_width = |c| rung(RmsNormDims { rows: 1, c });
        for file in ["fwd_v2_row_in_registers.cu", "bwd_v2_row_in_registers.cu"] {
            shown.extend([12, 1032].map(|c| refusal(OP, file, || of_width(c))));
        }
        for file in ["fwd_v3_block_per_row.cu", "bwd_v3_block_per_row.cu"] {
            shown.extend([12, 8200].map(|c| refusal(OP, file, || of_width(c))));
        }
        assert_eq!(shown, needs(OP));
        let production = [8, 1024, 1032, 8192, 8200, 12].map(of_width);
        assert_eq!(production, [2, 2, 3, 3, 1, 1].map(Ok));
    }
}
