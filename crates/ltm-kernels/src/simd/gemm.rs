//! Matrix products over strided slices: the only use of the `gemm-f32` and `gemm-f64` crates.
#![expect(unsafe_code, reason = "the crates' entry points take raw pointers")]

use std::ops::Range;

use gemm_common::Parallelism;
use rayon::prelude::*;

use crate::{DType, Float};

/// A matrix to read: element `(i, j)` is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Mat<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) row_stride: usize,
    pub(crate) col_stride: usize,
}

impl<'a, T> Mat<'a, T> {
    /// A matrix whose rows are contiguous, `row_stride` apart.
    pub(crate) fn rows(data: &'a [T], row_stride: usize) -> Self {
        Self { data, row_stride, col_stride: 1 }
    }

    /// Panics when a matrix of these extents reaches past the slice.
    pub(super) fn check(&self, extents: [usize; 2]) {
        let strides = [self.row_stride, self.col_stride];
        assert!(fits(self.data.len(), extents, strides), "a factor reaches past its slice");
    }

    /// The transpose, without copying.
    pub(crate) fn t(self) -> Self {
        Self { data: self.data, row_stride: self.col_stride, col_stride: self.row_stride }
    }
}

/// A matrix to write: contiguous rows, `row_stride` apart.
pub(crate) struct MatMut<'a, T> {
    pub(crate) data: &'a mut [T],
    pub(crate) row_stride: usize,
}

impl<T> MatMut<'_, T> {
    /// Panics when a matrix of these extents reaches past the slice, or its rows overlap.
    pub(super) fn check(&self, [rows, columns]: [usize; 2]) {
        let strides = [self.row_stride, 1];
        assert!(fits(self.data.len(), [rows, columns], strides), "c reaches past its slice");
        assert!(rows <= 1 || columns <= self.row_stride, "rows of c overlap");
    }
}

/// How a result is written to an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Overwrites the old contents, which are never read.
    Overwrite,
    /// Adds to the old contents.
    Accumulate,
}

/// Where a product is computed.
#[derive(Clone, Copy)]
pub(crate) enum Threads {
    /// On the calling thread: for products inside a parallel task.
    One,
    /// In rayon's current pool. The result has the same bits for any number of threads.
    Pool,
}

/// `c = alpha * a b`, or `c += alpha * a b`, with `c (m,n)`, `a (m,k)`, `b (k,n)`.
///
/// # Panics
/// If a matrix reaches past its slice or the rows of `c` overlap.
pub(crate) fn gemm<T: Float>(
    c: MatMut<'_, T>,
    a: Mat<'_, T>,
    b: Mat<'_, T>,
    alpha: T,
    write: Write,
    [m, n, k]: [usize; 3],
    threads: Threads,
) {
    c.check([m, n]);
    a.check([m, k]);
    b.check([k, n]);
    let c = Shared { data: c.data.as_mut_ptr(), row_stride: c.row_stride };
    let parts = match threads {
        Threads::One => 1,
        Threads::Pool => {
            let (longer, shorter) = (m.max(n), m.min(n).max(1));
            let most = longer.div_ceil(LEAST_PART).min(longer / (SMALL / shorter + 1)).max(1);
            rayon::current_num_threads().min(most)
        }
    };
    let part = |part: usize| {
        // Cut the longer side: each part packs the whole other factor.
        let cut = |extent: usize| (extent * part / parts)..(extent * (part + 1) / parts);
        let (rows, columns) = if m > n { (cut(m), 0..n) } else { (0..m, cut(n)) };
        // SAFETY: by the checks above every element of each matrix is in its slice; parts are disjoint.
        unsafe { rectangle(c, a, b, alpha, write, rows, columns, k) };
    };
    if parts == 1 { part(0) } else { (0..parts).into_par_iter().for_each(part) }
}

/// Minimum rows or columns per thread; with fewer, packing costs more than it saves.
const LEAST_PART: usize = 128;

/// Results of at most so many elements, and single rows, are summed by the crates in an order of their own. So no part of a
/// larger product may be as small.
pub(crate) const SMALL: usize = 256;

/// The matrix that the parts of a product write to.
#[derive(Clone, Copy)]
struct Shared<T> {
    data: *mut T,
    row_stride: usize,
}

// SAFETY: the parts of a product write disjoint elements.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

/// Computes these rows and columns of a product on the calling thread. The ranges do not affect the
/// order of any sum: `gemm` splits the inner extent by its length alone.
///
/// # Safety
/// Each element of the rectangle, and of the rows and columns that it is computed from, is in its matrix; rows of `c` do not
/// overlap, and nothing else reads or writes the rectangle meanwhile.
#[expect(clippy::too_many_arguments, reason = "a product")]
unsafe fn rectangle<T: Float>(
    c: Shared<T>,
    a: Mat<'_, T>,
    b: Mat<'_, T>,
    alpha: T,
    write: Write,
    rows: Range<usize>,
    columns: Range<usize>,
    k: usize,
) {
    // The stride of a dimension with one element is only multiplied by 0, but must fit an `isize`.
    let stride = |s: usize| isize::try_from(s).expect("a stride within a slice fits isize");
    // For each matrix: address, stride between columns, stride between rows. An empty range may
    // begin past the slice, which `wrapping_add` allows.
    let dst = c.data.wrapping_add(rows.start * c.row_stride + columns.start);
    let to = (dst, 1, stride(c.row_stride));
    let lhs = a.data.as_ptr().wrapping_add(rows.start * a.row_stride);
    let left = (lhs, stride(a.col_stride), stride(a.row_stride));
    let rhs = b.data.as_ptr().wrapping_add(columns.start * b.col_stride);
    let right = (rhs, stride(b.col_stride), stride(b.row_stride));
    let (m, n) = (rows.len(), columns.len());
    // The kernels prefer a column-major result: `cᵀ = bᵀ aᵀ`.
    let flip = |(address, columns, rows)| (address, rows, columns);
    let (m, n, (dst, dst_cols, dst_rows), left, right) = if c.row_stride > 1 {
        (n, m, (to.0, to.2, to.1), flip(right), flip(left))
    } else {
        (m, n, to, left, right)
    };
    let ((lhs, lhs_cols, lhs_rows), (rhs, rhs_cols, rhs_rows)) = (left, right);
    let read_dst = matches!(write, Write::Accumulate);
    macro_rules! product {
        ($get:expr, $type:ty) => {
            // SAFETY: `T` is this type; the rest is the caller's promise.
            unsafe {
                $get(
                    m,
                    n,
                    k,
                    dst.cast::<$type>(),
                    dst_cols,
                    dst_rows,
                    read_dst,
                    lhs.cast::<$type>(),
                    lhs_cols,
                    lhs_rows,
                    rhs.cast::<$type>(),
                    rhs_cols,
                    rhs_rows,
                    1.0,
                    alpha.to_f64() as $type,
                    false,
                    false,
                    false,
                    Parallelism::None,
                );
            }
        };
    }
    match T::DTYPE {
        DType::F32 => product!(gemm_f32::gemm::f32::get_gemm_fn(), f32),
        DType::F64 => product!(gemm_f64::gemm::f64::get_gemm_fn(), f64),
        other => unreachable!("`Float` is f32 or f64, not {other}"),
    }
}

/// Whether the last element of a matrix is within `len` elements.
fn fits(len: usize, extents: [usize; 2], strides: [usize; 2]) -> bool {
    if extents.contains(&0) {
        return true;
    }
    let reach = |i: usize| (extents[i] - 1).checked_mul(strides[i]);
    match (reach(0), reach(1)) {
        (Some(rows), Some(cols)) => rows.checked_add(cols).is_some_and(|last| last < len),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use ltm_testkit::seeded;

    use super::*;
    use crate::ops::testing::assert_same_on_any_pool;

    #[test]
    fn fits_is_exact() {
        assert!(fits(6, [2, 3], [3, 1]) && !fits(5, [2, 3], [3, 1]));
        assert!(fits(8, [2, 3], [5, 1]) && !fits(7, [2, 3], [5, 1]));
        assert!(fits(0, [0, 3], [3, 1]) && !fits(9, [3, 3], [usize::MAX, 1]));
    }

    #[test]
    fn bits_do_not_depend_on_the_number_of_threads() {
        // Splits of both sides, uneven parts, an inner extent of several blocks.
        for [m, n, k] in
            [[300, 700, 9], [700, 300, 1300], [129, 130, 600], [2, 300, 64], [400, 3, 33]]
        {
            let numbers =
                |seed, n| -> Vec<f32> { seeded(seed, n).iter().map(|x| *x as f32).collect() };
            let (a, b) = (numbers(1, m * k), numbers(2, n * k));
            assert_same_on_any_pool(|| {
                let mut c = vec![0f32; m * n];
                let (a, b) = (Mat::rows(&a, k), Mat::rows(&b, k).t());
                let to = MatMut { data: &mut c, row_stride: n };
                gemm(to, a, b, 1.0, Write::Overwrite, [m, n, k], Threads::Pool);
                c.into_iter().map(f64::from).collect()
            });
        }
    }

    #[test]
    #[should_panic(expected = "rows of c overlap")]
    fn refuses_overlapping_rows() {
        let (mut c, a) = ([0f32; 8], [1f32; 8]);
        let c = MatMut { data: &mut c, row_stride: 1 };
        gemm(c, Mat::rows(&a, 2), Mat::rows(&a, 2), 1.0, Write::Overwrite, [2, 2, 2], Threads::One);
    }
}
