//! Launches of the CUDA kernels. Knows their contracts, no arithmetic.
#![expect(unsafe_code, reason = "a launch vouches for its arguments")]

use super::{BinaryDims, OP, Operator};
use crate::cuda::{Arg, Context, Rung, check_activation, choose};
use crate::ops::launch::elements;
use crate::{Buffer, Result};

fn rung(dims: BinaryDims) -> Result<u32> {
    let whole = dims.extents[3].is_multiple_of(8);
    choose(OP, &[Rung(2, &[("[P1] the innermost extent % 8 == 0", whole)]), Rung(1, &[])])
}

pub(crate) fn fwd(
    context: &Context,
    out: &mut Buffer,
    a: &Buffer,
    b: &Buffer,
    operator: Operator,
    dims: BinaryDims,
) -> Result<()> {
    let dtype = out.dtype();
    check_activation(dtype)?;
    let rung = rung(dims)?;
    let n = out.len();
    // As `kernels/binary/math.cuh` numbers them.
    let operator = match operator {
        Operator::Add => 0,
        Operator::Sub => 1,
        Operator::Mul => 2,
        Operator::Div => 3,
    };
    let (a_arg, b_arg) = (a.arg(context, dtype)?, b.arg(context, dtype)?);
    let mut args =
        vec![out.arg_mut(context, dtype)?, a_arg, b_arg, Arg::I32(operator), Arg::I64(n as i64)];
    for extent in &dims.extents[1..] {
        args.push(Arg::extent(OP, *extent)?);
    }
    for has in [dims.a, dims.b] {
        args.extend(dims.strides(has).map(|stride| Arg::I64(stride as i64)));
    }
    let geometry = elements(n, if rung == 1 { 1 } else { 8 });
    // SAFETY: lengths are checked against dims by the caller; P1 by `rung`, and with it every stride of an
    // operand that has the innermost extent is a multiple of 8; alignment is Buffer's.
    unsafe { context.launch(&format!("binary_fwd_{dtype}_v{rung}"), geometry, &args) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ops::testing::{needs, refusal};

    #[test]
    fn each_need_is_refused() {
        let dims = BinaryDims { extents: [1, 1, 1, 12], a: [true; 4], b: [true; 4] };
        let shown = [refusal(OP, "fwd_v2_vec8.cu", || rung(dims))];
        assert_eq!(BTreeSet::from(shown), needs(OP));
    }
}
