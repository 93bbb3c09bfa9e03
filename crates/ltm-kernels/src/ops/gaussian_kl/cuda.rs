//! Launches the CUDA kernels. Knows their contracts; must not know their arithmetic.
#![expect(unsafe_code, reason = "a launch vouches for its arguments")]

use super::{GaussianKlDims, OP};
use crate::cuda::{Arg, Context, Rung, choose};
use crate::ops::launch::{THREADS, blocks, elements};
use crate::{Buffer, DType, Result};

const F32: DType = DType::F32;

pub(crate) fn fwd(
    context: &Context,
    kl: &mut Buffer,
    mu: &Buffer,
    log_var: &Buffer,
    dims: GaussianKlDims,
) -> Result<()> {
    let rung = choose(OP, &[Rung(2, &[]), Rung(1, &[])])?;
    let args = [
        kl.arg_mut(context, F32)?,
        mu.arg(context, F32)?,
        log_var.arg(context, F32)?,
        Arg::extent(OP, dims.rows)?,
        Arg::extent(OP, dims.n)?,
    ];
    let geometry = blocks(if rung == 1 { dims.rows.div_ceil(THREADS) } else { dims.rows });
    // SAFETY: lengths are checked against dims by the caller.
    unsafe { context.launch(&format!("gaussian_kl_fwd_f32_v{rung}"), geometry, &args) }
}

fn bwd_rung(dims: GaussianKlDims) -> Result<u32> {
    choose(OP, &[Rung(2, &[("[P1] n % 8 == 0", dims.n.is_multiple_of(8))]), Rung(1, &[])])
}

pub(crate) fn bwd(
    context: &Context,
    dmu: Option<&mut Buffer>,
    dlog_var: Option<&mut Buffer>,
    dkl: &Buffer,
    mu: &Buffer,
    log_var: &Buffer,
    dims: GaussianKlDims,
) -> Result<()> {
    let rung = bwd_rung(dims)?;
    let wanted = |output: Option<&mut Buffer>| {
        output.map_or(Ok(Arg::Ptr(0)), |output| output.arg_mut(context, F32))
    };
    let args = [
        wanted(dmu)?,
        wanted(dlog_var)?,
        dkl.arg(context, F32)?,
        mu.arg(context, F32)?,
        log_var.arg(context, F32)?,
        Arg::extent(OP, dims.rows)?,
        Arg::extent(OP, dims.n)?,
    ];
    let geometry = elements(dims.rows * dims.n, if rung == 1 { 1 } else { 8 });
    // SAFETY: lengths are checked against dims by the caller, an output that is not wanted is null;
    // P1 by `bwd_rung`, alignment is Buffer's.
    unsafe { context.launch(&format!("gaussian_kl_bwd_f32_v{rung}"), geometry, &args) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ops::testing::{needs, refusal};

    #[test]
    fn each_need_is_refused() {
        let dims = GaussianKlDims { rows: 1, n: 12 };
        let shown = [refusal(OP, "bwd_v2_vec8.cu", || bwd_rung(dims))];
        assert_eq!(BTreeSet::from(shown), needs(OP));
    }
}
