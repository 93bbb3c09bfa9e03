//! Products of `f32` rows with `bf16` weights: rows are rounded to `bf16`, sums are `f32`. Uses AMX
//! tiles if the processor has them; otherwise it widens the weights and computes an `f32` product.

use std::cell::Cell;

use half::bf16;

use super::gemm::{Mat, MatMut, Threads, Write, gemm};
use crate::Float;

/// The element types that the right factor of a product with rows of `T` may have.
pub(crate) trait Factor<T>: Copy + Send + Sync {
    /// Converts to `T`, exactly.
    fn widen(self) -> T;

    /// `c = a b`, or `c += a b`; see [`gemm()`] and [`gemm_bf16`].
    fn gemm(
        c: MatMut<'_, T>,
        a: Mat<'_, T>,
        b: Mat<'_, Self>,
        write: Write,
        extents: [usize; 3],
        threads: Threads,
    );
}

impl<T: Float> Factor<T> for T {
    fn widen(self) -> T {
        self
    }

    fn gemm(
        c: MatMut<'_, T>,
        a: Mat<'_, T>,
        b: Mat<'_, T>,
        write: Write,
        extents: [usize; 3],
        threads: Threads,
    ) {
        gemm(c, a, b, T::ONE, write, extents, threads);
    }
}

impl Factor<f32> for bf16 {
    fn widen(self) -> f32 {
        self.to_f32()
    }

    fn gemm(
        c: MatMut<'_, f32>,
        a: Mat<'_, f32>,
        b: Mat<'_, bf16>,
        write: Write,
        extents: [usize; 3],
        threads: Threads,
    ) {
        gemm_bf16(c, a, b, write, extents, threads);
    }
}

/// `c = round(a) b`, or `c += round(a) b`, with `c (m,n)`, `a (m,k)` with contiguous rows, `b
/// (k,n)` with contiguous rows or columns.
///
/// # Panics
/// If a matrix reaches past its slice or has other strides, or rows of `c` overlap.
pub(crate) fn gemm_bf16(
    c: MatMut<'_, f32>,
    a: Mat<'_, f32>,
    b: Mat<'_, bf16>,
    write: Write,
    [m, n, k]: [usize; 3],
    threads: Threads,
) {
    c.check([m, n]);
    a.check([m, k]);
    b.check([k, n]);
    assert!(a.col_stride == 1 && (b.row_stride == 1 || b.col_stride == 1), "strides");
    #[cfg(target_arch = "x86_64")]
    if let Some(available) = super::amx::Available::detect() {
        // SAFETY: the assertions above are what the kernel needs.
        #[expect(unsafe_code, reason = "instructions that only some processors have")]
        unsafe {
            super::amx::gemm(available, c, a, b, write, [m, n, k], threads);
        }
        return;
    }
    widened(c, a, b, write, [m, n, k], threads);
}

thread_local! {
    /// Buffers for the rounded rows and the widened weights; taken out while in use.
    static WIDENED: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

fn widened(
    c: MatMut<'_, f32>,
    a: Mat<'_, f32>,
    b: Mat<'_, bf16>,
    write: Write,
    [m, n, k]: [usize; 3],
    threads: Threads,
) {
    let mut memory = WIDENED.take();
    memory.clear();
    let rows = (0..m).flat_map(|i| &a.data[i * a.row_stride..][..k]);
    memory.extend(rows.map(|x| bf16::from_f32(*x).to_f32()));
    memory.extend(b.data.iter().map(|x| x.to_f32()));
    let (rows, weights) = memory.split_at(m * k);
    let weights = Mat { data: weights, row_stride: b.row_stride, col_stride: b.col_stride };
    gemm(c, Mat::rows(rows, k), weights, 1.0, write, [m, n, k], threads);
    WIDENED.set(memory);
}

#[cfg(test)]
mod tests {
    use ltm_testkit::{Tol, assert_close, seeded};

    use super::*;

    fn check(threads: Threads, transposed: bool, write: Write, [m, n, k]: [usize; 3]) {
        let a: Vec<f32> = seeded(1, m * k).iter().map(|x| *x as f32).collect();
        let b: Vec<bf16> = seeded(2, k * n).iter().map(|x| bf16::from_f64(*x)).collect();
        let old: Vec<f32> = seeded(3, m * n).iter().map(|x| *x as f32).collect();
        let at = |p: usize, j: usize| if transposed { b[j * k + p] } else { b[p * n + j] };
        let expected: Vec<f64> = (0..m * n)
            .map(|place| {
                let (i, j) = (place / n, place % n);
                let product = |p: usize| bf16::from_f32(a[i * k + p]).to_f64() * at(p, j).to_f64();
                let sum: f64 = (0..k).map(product).sum();
                sum + if write == Write::Accumulate { f64::from(old[place]) } else { 0.0 }
            })
            .collect();
        // Sums of k products below 3.5², plus one more term; each step rounds by at most half of
        // epsilon.
        let abs = 3.5 * 3.5 * ((k + 1) * (k + 1)) as f64 * f64::from(f32::EPSILON) / 2.0;
        type Product = fn(MatMut<'_, f32>, Mat<'_, f32>, Mat<'_, bf16>, Write, [usize; 3], Threads);
        let run = |product: Product| {
            let mut c = old.clone();
            let b = if transposed { Mat::rows(&b, k).t() } else { Mat::rows(&b, n) };
            let to = MatMut { data: &mut c, row_stride: n };
            product(to, Mat::rows(&a, k), b, write, [m, n, k], threads);
            assert_close(&c, &expected, Tol { abs, rel: 0.0 });
        };
        run(gemm_bf16);
        run(widened);
    }

    #[test]
    fn both_ways_are_the_product_of_rounded_factors() {
        let extents =
            [[1, 1, 1], [16, 16, 32], [17, 33, 31], [31, 15, 65], [40, 100, 7], [530, 40, 64]];
        for extents in extents {
            for (transposed, write) in [(false, Write::Overwrite), (true, Write::Accumulate)] {
                check(Threads::One, transposed, write, extents);
                check(Threads::Pool, !transposed, write, extents);
            }
        }
    }
}
