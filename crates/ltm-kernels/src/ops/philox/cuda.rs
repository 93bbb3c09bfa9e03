//! Launches the CUDA kernels. Knows their contracts; must not know their arithmetic.
#![expect(unsafe_code, reason = "a launch vouches for its arguments")]

use super::{NormalRowsDims, OP, Philox};
use crate::cuda::{Arg, Context, Rung, choose};
use crate::ops::launch::elements;
use crate::{Buffer, DType, Result};

pub(crate) fn normal(
    context: &Context,
    out: &mut Buffer,
    philox: Philox,
    mean: f64,
    std: f64,
) -> Result<()> {
    let rung = choose(OP, &[Rung(2, &[]), Rung(1, &[])])?;
    let n = out.len();
    let [k0, k1, h0, h1] = philox.words().map(Arg::U32);
    let (mean, std) = (Arg::F64(mean), Arg::F64(std));
    let args = [out.arg_mut(context, DType::F32)?, k0, k1, h0, h1, mean, std, Arg::I64(n as i64)];
    let geometry = elements(n, rung as usize);
    // SAFETY: n is the buffer's length; alignment is Buffer's.
    unsafe { context.launch(&format!("philox_normal_f32_v{rung}"), geometry, &args) }
}

fn rows_rung(dims: NormalRowsDims) -> Result<u32> {
    choose(OP, &[Rung(2, &[("[P1] n % 2 == 0", dims.n.is_multiple_of(2))]), Rung(1, &[])])
}

pub(crate) fn normal_rows(
    context: &Context,
    out: &mut Buffer,
    keys: &Buffer,
    step: &Buffer,
    dims: NormalRowsDims,
) -> Result<()> {
    let rung = rows_rung(dims)?;
    let args = [
        out.arg_mut(context, DType::F32)?,
        keys.arg(context, DType::I32)?,
        step.arg(context, DType::I32)?,
        Arg::extent(OP, dims.steps)?,
        Arg::extent(OP, dims.rows)?,
        Arg::extent(OP, dims.n)?,
    ];
    let geometry = elements(out.len(), rung as usize);
    // SAFETY: lengths are checked against dims by the caller; P1 by `rows_rung`,
    // alignment is Buffer's.
    unsafe { context.launch(&format!("philox_normal_rows_f32_v{rung}"), geometry, &args) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ops::testing::{needs, refusal};

    #[test]
    fn each_need_is_refused() {
        let dims = NormalRowsDims { steps: 1, rows: 1, n: 3 };
        let shown = [refusal(OP, "normal_v2_pair_per_thread.cu", || rows_rung(dims))];
        assert_eq!(BTreeSet::from(shown), needs(OP));
    }
}
