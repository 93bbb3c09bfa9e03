//! Matrix products over strided slices: the one door to the `gemm` crate.
#![expect(unsafe_code, reason = "the crate's entry point takes raw pointers")]

use crate::{Float, ops::matmul::Write};

/// A matrix to read: element `(i, j)` is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Mat<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) row_stride: usize,
    pub(crate) col_stride: usize,
}

impl<'a, T> Mat<'a, T> {
    /// Rows of adjacent elements, `row_stride` apart.
    pub(crate) fn rows(data: &'a [T], row_stride: usize) -> Self {
        Self { data, row_stride, col_stride: 1 }
    }

    /// Panics when a matrix of these extents reaches past the slice.
    pub(super) fn check(&self, extents: [usize; 2]) {
        let strides = [self.row_stride, self.col_stride];
        assert!(fits(self.data.len(), extents, strides), "a factor reaches past its slice");
    }

    /// The same elements with rows and columns exchanged.
    pub(crate) fn t(self) -> Self {
        Self { data: self.data, row_stride: self.col_stride, col_stride: self.row_stride }
    }
}

/// A matrix to write: rows of adjacent elements, `row_stride` apart.
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

/// Who computes a product.
#[derive(Clone, Copy)]
pub(crate) enum Threads {
    /// The calling thread: for products inside a parallel task.
    One,
    /// rayon's current pool. The result has the same bits whatever the pool's size.
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
    let parallelism = match threads {
        Threads::One => gemm::Parallelism::None,
        Threads::Pool => gemm::Parallelism::Rayon(0),
    };
    // Strides of a one-row or one-column matrix are never multiplied by more than 0 but must be in
    // isize's range.
    let stride = |s: usize| isize::try_from(s).expect("a stride within a slice fits isize");
    // SAFETY: `T` is `f32` or `f64`, the only types with `Float`, and `gemm` knows both. By `fits`,
    // every element `(i, j)` of each matrix lies in its slice. `c` is borrowed mutably, so it
    // overlaps neither `a` nor `b`; its rows do not overlap each other, so no two threads write one
    // element.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.data.as_mut_ptr(),
            1,
            stride(c.row_stride),
            matches!(write, Write::Accumulate),
            a.data.as_ptr(),
            stride(a.col_stride),
            stride(a.row_stride),
            b.data.as_ptr(),
            stride(b.col_stride),
            stride(b.row_stride),
            T::ONE,
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// Whether the last element of a matrix lies within `len` elements.
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
    use super::*;

    #[test]
    fn fits_is_exact() {
        assert!(fits(6, [2, 3], [3, 1]) && !fits(5, [2, 3], [3, 1]));
        assert!(fits(8, [2, 3], [5, 1]) && !fits(7, [2, 3], [5, 1]));
        assert!(fits(0, [0, 3], [3, 1]) && !fits(9, [3, 3], [usize::MAX, 1]));
    }

    #[test]
    #[should_panic(expected = "rows of c overlap")]
    fn refuses_overlapping_rows() {
        let (mut c, a) = ([0f32; 8], [1f32; 8]);
        let c = MatMut { data: &mut c, row_stride: 1 };
        gemm(c, Mat::rows(&a, 2), Mat::rows(&a, 2), 1.0, Write::Overwrite, [2, 2, 2], Threads::One);
    }
}
