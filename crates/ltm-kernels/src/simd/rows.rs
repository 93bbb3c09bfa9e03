//! Products of few rows, without packing a factor. Sums are taken in the order of [`gemm()`](super::gemm()), element by element of
//! the inner extent, so that a row has the same bits among few others as among many.

use super::{Mat, Write, dispatch};
use crate::Float;

/// Columns that are summed side by side, and rows.
const COLUMNS: usize = 16;
const ROWS: usize = 8;
/// Products of a sum that are taken at once.
const STRETCH: usize = 64;

/// The longest inner extent that `gemm` sums in one go.
pub(crate) const DEPTH: usize = 512;

/// `c = a b`, or `c += a b`, with packed `c (m,n)` and `a (m,k)`, `b (k,n)` of contiguous rows or columns, `k` at most [`DEPTH`].
pub(crate) fn rows<T: Float>(
    c: &mut [T],
    a: &[T],
    b: Mat<'_, T>,
    write: Write,
    [m, n, k]: [usize; 3],
) {
    b.check([k, n]);
    assert!(c.len() == m * n && a.len() == m * k && k <= DEPTH, "packed factors of a short sum");
    let is_fused = fuses();
    dispatch(
        #[inline(always)]
        || {
            // A stretch of some columns of `b`, next to each other.
            let mut panel = [[T::ZERO; COLUMNS]; STRETCH];
            for first in (0..n).step_by(COLUMNS) {
                let width = COLUMNS.min(n - first);
                for (c, a) in c.chunks_mut(ROWS * n).zip(a.chunks(ROWS * k)) {
                    let mut sums = [[T::ZERO; COLUMNS]; ROWS];
                    for start in (0..k).step_by(STRETCH) {
                        let panel = &mut panel[..STRETCH.min(k - start)];
                        copy(panel, b, start, first, width);
                        for (sums, a) in sums.iter_mut().zip(a.chunks_exact(k)) {
                            let a = &a[start..start + panel.len()];
                            match is_fused {
                                true => add(sums, panel, a, T::mul_add),
                                false => add(sums, panel, a, |x, y, sum| x * y + sum),
                            }
                        }
                    }
                    for (c, sums) in c.chunks_exact_mut(n).zip(sums) {
                        let c = c[first..first + width].iter_mut().zip(sums);
                        match write {
                            Write::Overwrite => c.for_each(|(c, sum)| *c = sum),
                            Write::Accumulate => c.for_each(|(c, sum)| *c += sum),
                        }
                    }
                }
            }
        },
    );
}

/// Copies `width` columns of `b` from number `first` on, of the rows from number `start` on.
#[inline(always)]
fn copy<T: Float>(
    panel: &mut [[T; COLUMNS]],
    b: Mat<'_, T>,
    start: usize,
    first: usize,
    width: usize,
) {
    if b.col_stride == 1 {
        for (p, row) in panel.iter_mut().enumerate() {
            row[..width].copy_from_slice(&b.data[(start + p) * b.row_stride + first..][..width]);
        }
        return;
    }
    for column in 0..width {
        let from = &b.data[(first + column) * b.col_stride + start..][..panel.len()];
        for (row, x) in panel.iter_mut().zip(from) {
            row[column] = *x;
        }
    }
}

/// Adds products with one row of the left factor, each sum in the order of the inner extent.
#[inline(always)]
fn add<T: Float>(
    sums: &mut [T; COLUMNS],
    panel: &[[T; COLUMNS]],
    a: &[T],
    mul_add: impl Fn(T, T, T) -> T,
) {
    let mut here = *sums;
    for (row, a) in panel.iter().zip(a) {
        for (sum, b) in here.iter_mut().zip(row) {
            *sum = mul_add(*b, *a, *sum);
        }
    }
    *sums = here;
}

/// Whether `gemm` multiplies and adds with one rounding on this processor.
fn fuses() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    cfg!(target_arch = "aarch64")
}
