//! Matrix product. Knows shapes and layouts; must not know what the matrices mean.

pub(crate) mod cpu;
pub(crate) mod cuda;
pub mod reference;

use crate::shape::{check_dims, check_len, on_float};
use crate::{Buffer, Cost, DType, Device, Result};

pub use crate::simd::Write;

const OP: &str = "matmul";

/// The memory layout of a factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Not transposed: `a (M,K)`, `b (K,N)`.
    Normal,
    /// Transposed: `a (K,M)`, `b (N,K)`.
    Transposed,
}

/// Extents and layouts of `batch` products of `(M,K)` by `(K,N)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatmulDims {
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// The reduced extent.
    pub k: usize,
    /// Number of independent products; their matrices are contiguous in every buffer.
    pub batch: usize,
    /// Layout of the left factor.
    pub a: Layout,
    /// Layout of the right factor.
    pub b: Layout,
}

impl MatmulDims {
    /// One product of factors that are not transposed. For others: `MatmulDims { b:
    /// Layout::Transposed, ..MatmulDims::new(m, n, k) }`.
    pub fn new(m: usize, n: usize, k: usize) -> Self {
        Self { m, n, k, batch: 1, a: Layout::Normal, b: Layout::Normal }
    }

    /// Refuses an extent of 0 and products that overflow.
    ///
    /// # Errors
    /// [`crate::Error::Dims`].
    pub fn validate(&self) -> Result<()> {
        let Self { m, n, k, batch, .. } = *self;
        check_dims(OP, ![m, n, k, batch].contains(&0), || {
            format!("every extent must be at least 1, got m {m}, n {n}, k {k}, batch {batch}")
        })?;
        let flops = [m, n, k, batch].iter().try_fold(2usize, |product, x| product.checked_mul(*x));
        check_dims(OP, flops.is_some(), || {
            format!("2 * m * n * k * batch overflows with m {m}, n {n}, k {k}, batch {batch}")
        })
    }

    /// `2 M N K` operations per product; each matrix is read or written once.
    pub fn cost(&self) -> Cost {
        let Self { m, n, k, batch, .. } = *self;
        Cost::new(2 * batch * m * n * k, batch * (m * n + m * k + k * n))
    }
}

/// `c = op(a) op(b)`, or `c += op(a) op(b)`, for every product of the batch.
///
/// # Shapes
/// `a (batch,M,K)` or `(batch,K,M)` when [`Layout::Transposed`]; `b (batch,K,N)` or `(batch,N,K)` →
/// `c (batch,M,N)`. On the CPU all f32 or all f64, or f32 with a bf16 `b`: then `a`, which must not
/// be transposed, is rounded to bf16 too, and products are summed in f32. On CUDA all f32, or bf16
/// factors and `c` of bf16 or f32.
///
/// # Errors
/// [`crate::Error::Dims`] from [`MatmulDims::validate`], [`crate::Error::Shape`] when a buffer
/// disagrees with `dims`, [`crate::Error::DType`] for other types, [`crate::Error::Dims`] for a
/// transposed `a` with a `b` of bf16 on the CPU.
pub fn fwd(
    device: &Device,
    c: &mut Buffer,
    a: &Buffer,
    b: &Buffer,
    write: Write,
    dims: MatmulDims,
) -> Result<()> {
    dims.validate()?;
    let MatmulDims { m, n, k, batch, .. } = dims;
    check_len(OP, "c", c.len(), batch * m * n)?;
    check_len(OP, "a", a.len(), batch * m * k)?;
    check_len(OP, "b", b.len(), batch * k * n)?;
    match device {
        Device::Cuda(context) => cuda::fwd(context, c, a, b, write, dims),
        Device::Cpu if b.dtype() == DType::BF16 => {
            check_dims(OP, dims.a == Layout::Normal, || "a is transposed and b of bf16".into())?;
            cpu::fwd_bf16(c.as_mut_slice()?, a.as_slice()?, b.as_slice()?, write, dims);
            Ok(())
        }
        Device::Cpu => on_float!(c.dtype(), T => {
            cpu::fwd::<T>(c.as_mut_slice()?, a.as_slice()?, b.as_slice()?, write, dims);
            Ok(())
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, Float};
    use ltm_testkit::{Tol, assert_close, gradcheck, seeded};
    use proptest::prelude::*;

    const LAYOUTS: [Layout; 2] = [Layout::Normal, Layout::Transposed];
    const WRITES: [Write; 2] = [Write::Overwrite, Write::Accumulate];

    fn inputs<T: Float>(dims: MatmulDims) -> [Vec<T>; 3] {
        let MatmulDims { m, n, k, batch, .. } = dims;
        // Rounded to f32 first, so that both precisions multiply the same numbers.
        let data = |seed, len| {
            seeded(seed, len).into_iter().map(|x| T::from_f64(f64::from(x as f32))).collect()
        };
        [data(1, batch * m * n), data(2, batch * m * k), data(3, batch * k * n)]
    }

    fn run<T: Float>(write: Write, dims: MatmulDims) -> Vec<T> {
        let [c, a, b] = inputs::<T>(dims).map(Buffer::from_vec);
        let mut c = c;
        fwd(&Device::Cpu, &mut c, &a, &b, write, dims).expect("shapes agree");
        c.as_slice::<T>().expect("same type").to_vec()
    }

    fn check(write: Write, dims: MatmulDims) {
        let [mut expected, a, b] = inputs::<f64>(dims);
        reference::fwd(&mut expected, &a, &b, write, dims);
        // A sum of k + 1 products of at most 3.5^2 each; every step rounds by at most eps/2 of the
        // sum of their absolute values.
        let bound = 12.25 * (dims.k + 1) as f64 * (dims.k + 1) as f64;
        let tol = |eps: f64| Tol { abs: bound * eps / 2.0, rel: eps };
        assert_close(&run::<f32>(write, dims), &expected, tol(f32::EPSILON.into()));
        assert_close(&run::<f64>(write, dims), &expected, tol(2.0 * f64::EPSILON));
    }

    #[test]
    fn edges_agree_with_the_reference() {
        for [m, n, k] in [[1, 1, 1], [1, 600, 33], [600, 1, 33], [65, 17, 1], [3, 300, 70]] {
            for (a, b) in LAYOUTS.into_iter().flat_map(|a| LAYOUTS.map(|b| (a, b))) {
                for write in WRITES {
                    check(write, MatmulDims { a, b, ..MatmulDims::new(m, n, k) });
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn agrees_with_the_reference(
            m in 1usize..80, n in 1usize..80, k in 1usize..80,
            batch in 1usize..4, kind in 0usize..8,
        ) {
            let (a, b) = (LAYOUTS[kind & 1], LAYOUTS[kind >> 1 & 1]);
            check(WRITES[kind >> 2], MatmulDims { batch, a, b, ..MatmulDims::new(m, n, k) });
        }
    }

    #[test]
    fn gradients_are_products_with_the_transpose() {
        let dims = MatmulDims::new(3, 4, 5);
        let MatmulDims { m, n, k, .. } = dims;
        let [dc, a, b] = inputs::<f64>(dims);
        let loss = |a: &[f64], b: &[f64]| {
            let mut c = vec![0.0; m * n];
            reference::fwd(&mut c, a, b, Write::Overwrite, dims);
            c.iter().zip(&dc).map(|(c, dc)| c * dc).sum()
        };
        let product = |left: &[f64], right: &[f64], dims: MatmulDims| {
            let [left, right] = [left, right].map(|x| Buffer::from_vec(x.to_vec()));
            let mut out = Buffer::from_vec(vec![f64::NAN; dims.m * dims.n]);
            fwd(&Device::Cpu, &mut out, &left, &right, Write::Overwrite, dims)
                .expect("shapes agree");
            out.to_f64().expect("on the CPU")
        };
        let da = product(&dc, &b, MatmulDims { b: Layout::Transposed, ..MatmulDims::new(m, k, n) });
        let db = product(&a, &dc, MatmulDims { a: Layout::Transposed, ..MatmulDims::new(k, n, m) });
        let tol = Tol { abs: 1e-8, rel: 1e-8 };
        gradcheck(|a| loss(a, &b), &a, &da, tol);
        gradcheck(|b| loss(&a, b), &b, &db, tol);
    }

    #[test]
    fn same_bits_on_any_number_of_threads() {
        // Large enough for a product to be divided among threads, in both directions and for a
        // single row.
        for [m, n, k] in [[131, 97, 600], [7, 3001, 65], [1, 5000, 70], [2100, 33, 40]] {
            for (a, b) in LAYOUTS.into_iter().flat_map(|a| LAYOUTS.map(|b| (a, b))) {
                let dims = MatmulDims { a, b, ..MatmulDims::new(m, n, k) };
                let on = |threads| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                    pool.expect("threads start").install(|| run::<f32>(Write::Accumulate, dims))
                };
                let one = on(1);
                assert!(one == on(2) && one == on(3), "{dims:?}");
            }
        }
    }

    /// A row is what it is among any number of others, for matrices that are not too large to be read more than once.
    #[test]
    fn a_row_does_not_depend_on_the_others() {
        for [n, k] in [[2, 9], [33, 64], [100, 3], [129, 70], [256, 256], [600, 64]] {
            for b in LAYOUTS {
                for write in WRITES {
                    let of = |m| run::<f32>(write, MatmulDims { b, ..MatmulDims::new(m, n, k) });
                    let all = of(300);
                    for m in [1, 2, 3, 7, 50, 129] {
                        let some = of(m);
                        assert!(
                            some == all[..m * n],
                            "{m} of 300 rows, n {n}, k {k}, {b:?}, {write:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let dims = MatmulDims::new(2, 3, 4);
        let buffer = |len| Buffer::from_vec(vec![0f32; len]);
        let try_fwd = |c, a, b, dims| {
            fwd(&Device::Cpu, &mut buffer(c), &buffer(a), &buffer(b), Write::Overwrite, dims)
        };
        assert_eq!(try_fwd(6, 8, 12, dims), Ok(()));
        for (c, a, b, arg) in [(5, 8, 12, "c"), (6, 9, 12, "a"), (6, 8, 0, "b")] {
            assert!(
                matches!(try_fwd(c, a, b, dims), Err(Error::Shape { arg: got, .. }) if got == arg)
            );
        }
        for dims in [MatmulDims { k: 0, ..dims }, MatmulDims { batch: usize::MAX / 8, ..dims }] {
            assert!(matches!(try_fwd(6, 8, 12, dims), Err(Error::Dims { .. })));
        }
        let mut wide = Buffer::from_vec(vec![0f64; 6]);
        let refused = fwd(&Device::Cpu, &mut wide, &buffer(8), &buffer(12), Write::Overwrite, dims);
        assert_eq!(refused, Err(Error::DType { expected: "f64", got: DType::F32 }));
    }

    #[test]
    fn a_transposed_left_factor_of_bf16_products_is_refused() {
        let (mut c, a) = (Buffer::from_vec(vec![0f32; 4]), Buffer::from_vec(vec![1f32; 6]));
        let b = Buffer::zeros(&Device::Cpu, DType::BF16, 6).expect("the CPU holds bf16");
        let mut run = |a_layout| {
            let dims = MatmulDims { a: a_layout, ..MatmulDims::new(2, 2, 3) };
            fwd(&Device::Cpu, &mut c, &a, &b, Write::Overwrite, dims)
        };
        assert_eq!(run(Layout::Normal), Ok(()));
        assert!(matches!(run(Layout::Transposed), Err(Error::Dims { .. })));
    }
}
