//! Launches the CUDA kernels. Knows their contracts; must not know their arithmetic.
#![expect(unsafe_code, reason = "a launch vouches for its arguments")]

use super::{EmbeddingDims, OP};
use crate::cuda::{Arg, Context, Rung, check_activation, choose};
use crate::ops::launch::{blocks, elements};
use crate::{Buffer, DType, Result};

fn fwd_rung(dims: EmbeddingDims) -> Result<u32> {
    choose(OP, &[Rung(2, &[("[P1] C % 8 == 0", dims.c.is_multiple_of(8))]), Rung(1, &[])])
}

pub(crate) fn fwd(
    context: &Context,
    out: &mut Buffer,
    table: &Buffer,
    tokens: &Buffer,
    dims: EmbeddingDims,
) -> Result<()> {
    let dtype = out.dtype();
    check_activation(dtype)?;
    let rung = fwd_rung(dims)?;
    let [n, v, c] = extents(dims)?;
    let (out_arg, table) = (out.arg_mut(context, dtype)?, table.arg(context, dtype)?);
    let args = [out_arg, table, tokens.arg(context, DType::I32)?, n, v, c];
    let geometry = elements(out.len(), if rung == 1 { 1 } else { 8 });
    // SAFETY: lengths are checked against dims by the caller, tokens by the kernel; P1 by
    // `fwd_rung`, alignment is Buffer's.
    unsafe { context.launch(&format!("embedding_fwd_{dtype}_v{rung}"), geometry, &args) }
}

pub(crate) fn bwd(
    context: &Context,
    dtable: &mut Buffer,
    dout: &Buffer,
    tokens: &Buffer,
    dims: EmbeddingDims,
) -> Result<()> {
    let dtype = dout.dtype();
    check_activation(dtype)?;
    let rung = choose(OP, &[Rung(2, &[]), Rung(1, &[])])?;
    let [n, v, c] = extents(dims)?;
    let tokens = tokens.arg(context, DType::I32)?;
    let dtable_arg = dtable.arg_mut(context, DType::F32)?;
    let mut args = vec![dtable_arg, dout.arg(context, dtype)?, tokens, n, v, c];
    let geometry = if rung == 1 {
        elements(dtable.len(), 1)
    } else {
        let log2_blocks = log2_blocks(dims);
        args.push(Arg::I32(log2_blocks as i32));
        blocks(1 << log2_blocks)
    };
    // SAFETY: lengths are checked against dims by the caller, tokens by the kernel.
    unsafe { context.launch(&format!("embedding_bwd_{dtype}_v{rung}"), geometry, &args) }
}

/// Number of blocks among which the table's rows are divided round-robin, so that the most frequent
/// tokens, which are adjacent in many vocabularies, go to different blocks. Each block scans all
/// tokens, so more blocks than can run at once would only repeat the scan.
fn log2_blocks(dims: EmbeddingDims) -> u32 {
    dims.v.next_power_of_two().ilog2().min(10)
}

fn extents(dims: EmbeddingDims) -> Result<[Arg; 3]> {
    Ok([Arg::extent(OP, dims.n)?, Arg::extent(OP, dims.v)?, Arg::extent(OP, dims.c)?])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ops::testing::{needs, refusal};

    #[test]
    fn blocks_are_a_power_of_two_that_covers_the_rows_up_to_a_thousand() {
        let blocks = |v| 1 << log2_blocks(EmbeddingDims { n: 1, v, c: 1 });
        assert_eq!([1, 2, 3, 256, 257, 1024, 50_258].map(blocks), [1, 2, 4, 256, 512, 1024, 1024]);
    }

    #[test]
    fn each_need_is_refused() {
        let dims = EmbeddingDims { n: 1, v: 1, c: 12 };
        let shown = [refusal(OP, "fwd_v2_vec8.cu", || fwd_rung(dims))];
        assert_eq!(BTreeSet::from(shown), needs(OP));
    }
}
