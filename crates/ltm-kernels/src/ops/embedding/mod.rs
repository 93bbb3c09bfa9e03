//! Looks up rows of a table by token id; the gradient adds them up per row.

mod cpu;
mod cuda;
pub mod reference;

use half::bf16;

use crate::shape::{check_extents, check_len, on_float};
use crate::{Buffer, Cost, DType, Device, Error, Result};

const OP: &str = "embedding";

/// Extents of one call: `n` tokens looked up in a table of `v` rows of width `c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmbeddingDims {
    /// Tokens.
    pub n: usize,
    /// Vocabulary.
    pub v: usize,
    /// Width.
    pub c: usize,
}

impl EmbeddingDims {
    /// Refuses empty extents and products past the address space.
    ///
    /// # Errors
    /// [`Error::Dims`] naming the extent.
    pub fn validate(&self) -> Result<()> {
        check_extents(OP, &[("n", self.n), ("c", self.c)])?;
        check_extents(OP, &[("v", self.v), ("c", self.c)])
    }

    /// What [`fwd`] costs: a copy.
    pub fn cost_fwd(&self) -> Cost {
        Cost::new(0, 2 * self.n * self.c + self.n)
    }

    /// What [`bwd`] costs: the whole table is written.
    pub fn cost_bwd(&self) -> Cost {
        Cost::new(self.n * self.c, 3 * self.n * self.c + self.v * self.c + self.n)
    }

    fn check(
        &self,
        device: &Device,
        table: (&'static str, &Buffer),
        rows: (&'static str, &Buffer),
        tokens: &Buffer,
    ) -> Result<()> {
        self.validate()?;
        check_len(OP, table.0, table.1.len(), self.v * self.c)?;
        check_len(OP, rows.0, rows.1.len(), self.n * self.c)?;
        check_len(OP, "tokens", tokens.len(), self.n)?;
        if *device != Device::Cpu {
            return Ok(());
        }
        let tokens = tokens.as_slice::<i32>()?;
        match tokens.iter().position(|&token| usize::try_from(token).map_or(true, |v| v >= self.v))
        {
            None => Ok(()),
            Some(position) => {
                let got = i64::from(tokens[position]);
                Err(Error::Index { op: OP, position, got, limit: self.v })
            }
        }
    }
}

/// Copies the row of each token: `out[n,:] = table[tokens[n],:]`.
///
/// # Shapes
/// `table (V,C)`, `tokens (N)` of `i32` → `out (N,C)`. On the CPU a `table` of bf16 gives an `out` of f32.
///
/// # Errors
/// [`Error::Index`] for a token outside `0..V` on the CPU. On CUDA the host does not see the
/// tokens: such a token's row of `out` is NaN, and its row of `dout` is ignored. [`Error::Dims`],
/// [`Error::Shape`] or [`Error::DType`] when
/// dims, lengths or types disagree.
///
/// # Source
/// A product with one-hot rows.
pub fn fwd(
    device: &Device,
    out: &mut Buffer,
    table: &Buffer,
    tokens: &Buffer,
    dims: EmbeddingDims,
) -> Result<()> {
    dims.check(device, ("table", table), ("out", out), tokens)?;
    match device {
        Device::Cuda(context) => cuda::fwd(context, out, table, tokens, dims),
        Device::Cpu if table.dtype() == DType::BF16 => {
            let (table, tokens) = (table.as_slice::<bf16>()?, tokens.as_slice()?);
            cpu::fwd::<f32, bf16>(out.as_mut_slice()?, table, tokens, dims);
            Ok(())
        }
        Device::Cpu => on_float!(out.dtype(), T => {
            let (table, tokens) = (table.as_slice::<T>()?, tokens.as_slice()?);
            cpu::fwd::<T, T>(out.as_mut_slice()?, table, tokens, dims);
            Ok(())
        }),
    }
}

/// Gradient of [`fwd`]: overwrites `dtable` with, for each token id, the sum of the `dout` rows of
/// its occurrences, in the order of the tokens.
///
/// # Shapes
/// `dout (N,C)`, `tokens (N)` of `i32` → `dtable (V,C)`.
///
/// # Errors
/// As [`fwd`].
///
/// # Source
/// The transpose of a product with one-hot rows.
pub fn bwd(
    device: &Device,
    dtable: &mut Buffer,
    dout: &Buffer,
    tokens: &Buffer,
    dims: EmbeddingDims,
) -> Result<()> {
    dims.check(device, ("dtable", dtable), ("dout", dout), tokens)?;
    match device {
        Device::Cuda(context) => cuda::bwd(context, dtable, dout, tokens, dims),
        Device::Cpu => on_float!(dtable.dtype(), T => {
            cpu::bwd::<T>(dtable.as_mut_slice()?, dout.as_slice()?, tokens.as_slice()?, dims);
            Ok(())
        }),
    }
}

#[cfg(test)]
mod tests {
    use ltm_testkit::{Tol, assert_close, gradcheck};
    use proptest::prelude::*;

    use super::*;
    use crate::ops::testing::{
        EPS, assert_same_on_any_pool, data, f32s, f64s, inner, out32, out64,
    };

    fn tokens_for(dims: EmbeddingDims) -> Buffer {
        Buffer::from_vec((0..dims.n).map(|n| (n * n * 7 % dims.v) as i32).collect())
    }

    /// `out` and `dtable` through buffers made by `make`.
    fn run(make: fn(&[f64]) -> Buffer, dims: EmbeddingDims) -> [Vec<f64>; 2] {
        let EmbeddingDims { n, v, c } = dims;
        let tokens = tokens_for(dims);
        let (mut out, mut dtable) = (make(&vec![f64::NAN; n * c]), make(&vec![f64::NAN; v * c]));
        fwd(&Device::Cpu, &mut out, &make(&data(1, v * c)), &tokens, dims).expect("shapes agree");
        bwd(&Device::Cpu, &mut dtable, &make(&data(2, n * c)), &tokens, dims)
            .expect("shapes agree");
        [out, dtable].map(|buffer| buffer.to_f64().expect("on the CPU"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn agrees_with_the_reference(n in 1usize..60, v in 1usize..80, c in 1usize..40) {
            let dims = EmbeddingDims { n, v, c };
            let tokens = tokens_for(dims);
            let tokens = tokens.as_slice::<i32>().expect("integers");
            let (mut out, mut dtable) = (vec![0.0; n * c], vec![0.0; v * c]);
            reference::fwd(&mut out, &data(1, v * c), tokens, dims);
            reference::bwd(&mut dtable, &data(2, n * c), tokens, dims);
            for (make, eps) in [(f32s as fn(&[f64]) -> Buffer, EPS), (f64s, f64::EPSILON)] {
                let [got_out, got_dtable] = run(make, dims);
                assert_eq!(got_out, out);
                // At most N numbers within 3.5, added one by one.
                let abs = 3.5 * (n * n) as f64 * eps;
                assert_close(&got_dtable, &dtable, Tol { abs, rel: 0.0 });
            }
        }
    }

    #[test]
    fn gradients() {
        let dims = EmbeddingDims { n: 6, v: 5, c: 3 };
        let (table, dout) = (data(1, 15), data(2, 18));
        let loss = |table: &[f64]| {
            let mut out = out64(18);
            fwd(&Device::Cpu, &mut out, &f64s(table), &tokens_for(dims), dims)
                .expect("shapes agree");
            inner(&out.to_f64().expect("on the CPU"), &dout)
        };
        let [_, dtable] = run(f64s, dims);
        gradcheck(loss, &table, &dtable, Tol { abs: 1e-7, rel: 1e-7 });
    }

    #[test]
    fn same_bits_on_any_number_of_threads() {
        assert_same_on_any_pool(|| run(f32s, EmbeddingDims { n: 3000, v: 611, c: 13 }).concat());
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let dims = EmbeddingDims { n: 2, v: 3, c: 4 };
        let try_fwd = |out, table, tokens: &[i32], dims| {
            let tokens = Buffer::from_vec(tokens.to_vec());
            fwd(&Device::Cpu, &mut out32(out), &out32(table), &tokens, dims)
        };
        assert_eq!(try_fwd(8, 12, &[0, 2], dims), Ok(()));
        assert!(matches!(try_fwd(7, 12, &[0, 2], dims), Err(Error::Shape { arg: "out", .. })));
        assert!(matches!(try_fwd(8, 11, &[0, 2], dims), Err(Error::Shape { arg: "table", .. })));
        assert!(matches!(try_fwd(8, 12, &[0], dims), Err(Error::Shape { arg: "tokens", .. })));
        for (tokens, position) in [([3, 0], 0), ([0, -1], 1)] {
            let refused = try_fwd(8, 12, &tokens, dims);
            assert!(
                matches!(refused, Err(Error::Index { position: got, limit: 3, .. }) if got == position)
            );
        }
        let empty = EmbeddingDims { c: 0, ..dims };
        assert!(matches!(try_fwd(8, 12, &[0, 2], empty), Err(Error::Dims { .. })));
    }

    #[test]
    fn a_table_of_bf16_is_widened() {
        let (table, tokens) = (data(1, 12), Buffer::from_vec(vec![2i32, 0, 2]));
        let table: Vec<_> = table.iter().map(|x| bf16::from_f64(*x)).collect();
        let rows = [2, 0, 2].into_iter().flat_map(|v| &table[v * 3..v * 3 + 3]);
        let expected: Vec<f64> = rows.map(|x| x.to_f64()).collect();
        let (mut out, table) = (out32(9), Buffer::from_vec(table));
        let dims = EmbeddingDims { n: 3, v: 4, c: 3 };
        fwd(&Device::Cpu, &mut out, &table, &tokens, dims).expect("shapes agree");
        assert_eq!(out.to_f64().expect("on the CPU"), expected);
    }
}
