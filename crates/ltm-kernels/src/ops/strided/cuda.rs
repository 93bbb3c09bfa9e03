//! Launches of the CUDA kernels. Knows their contracts, no arithmetic.
#![expect(unsafe_code, reason = "a launch vouches for its arguments")]

use super::{OP, StridedDims};
use crate::cuda::{Arg, Context, Rung, check_activation, choose};
use crate::ops::launch::elements;
use crate::{Buffer, Result};

fn rung(StridedDims { extents, strides: [s0, s1, s2, s3] }: StridedDims) -> Result<u32> {
    let others = [s0, s1, s2].iter().all(|stride| stride.is_multiple_of(8));
    let needs = [
        ("[P1] the innermost extent % 8 == 0", extents[3].is_multiple_of(8)),
        (
            "[P2] the innermost stride is 0, or 1 with the others % 8 == 0",
            s3 == 0 || (s3 == 1 && others),
        ),
    ];
    choose(OP, &[Rung(2, &needs), Rung(1, &[])])
}

pub(crate) fn fwd(
    context: &Context,
    out: &mut Buffer,
    x: &Buffer,
    dims: StridedDims,
) -> Result<()> {
    let dtype = out.dtype();
    check_activation(dtype)?;
    let rung = rung(dims)?;
    let n = out.len();
    let [_, e1, e2, e3] = dims.extents;
    let mut args = vec![out.arg_mut(context, dtype)?, x.arg(context, dtype)?, Arg::I64(n as i64)];
    for extent in [e1, e2, e3] {
        args.push(Arg::extent(OP, extent)?);
    }
    args.extend(dims.strides.map(|stride| Arg::I64(stride as i64)));
    let geometry = elements(n, if rung == 1 { 1 } else { 8 });
    // SAFETY: lengths are checked against dims by the caller; P1, P2 by `rung`, alignment is Buffer's.
    unsafe { context.launch(&format!("strided_fwd_{dtype}_v{rung}"), geometry, &args) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ops::testing::{needs, refusal, taken};

    #[test]
    fn each_need_is_refused() {
        let dims = StridedDims { extents: [1, 1, 3, 8], strides: [0, 0, 8, 1] };
        assert!(taken(2, || rung(dims)));
        assert!(taken(2, || rung(StridedDims { strides: [0, 0, 1, 0], ..dims })));
        let wrong = [
            StridedDims { extents: [1, 1, 3, 12], ..dims },
            StridedDims { strides: [0, 0, 4, 1], ..dims },
        ];
        let shown = wrong.map(|dims| refusal(OP, "fwd_v2_vec8.cu", || rung(dims)));
        assert_eq!(BTreeSet::from(shown), needs(OP));
    }
}
