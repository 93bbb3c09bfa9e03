//! Reductions and updates over slices, written so that they vectorise.
//!
//! A reduction always keeps [`LANES`] partial results and adds them in a fixed tree, so the order
//! of the sum does not depend on the machine.

use crate::Float;

/// Number of partial results of a reduction: one AVX-512 register of `f32`.
const LANES: usize = 16;

/// `sum_i a[i] * b[i]` up to the length of the shorter slice.
#[inline(always)]
pub(crate) fn dot<T: Float>(a: &[T], b: &[T]) -> T {
    let n = a.len().min(b.len());
    let (a, b) = (&a[..n], &b[..n]);
    let mut lanes = [T::ZERO; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (a_rest, b_rest) = (a_chunks.remainder(), b_chunks.remainder());
    for (a, b) in a_chunks.zip(b_chunks) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += *a * *b;
        }
    }
    for ((lane, a), b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
        *lane += *a * *b;
    }
    fold(lanes, |x, y| x + y)
}

/// `sum_i x[i]`.
#[inline(always)]
pub(crate) fn sum<T: Float>(x: &[T]) -> T {
    let mut lanes = [T::ZERO; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for x in chunks {
        for (lane, x) in lanes.iter_mut().zip(x) {
            *lane += *x;
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane += *x;
    }
    fold(lanes, |x, y| x + y)
}

/// The largest element; negative infinity for an empty slice. NaNs are ignored.
#[inline(always)]
pub(crate) fn max<T: Float>(x: &[T]) -> T {
    let mut lanes = [T::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for x in chunks {
        for (lane, x) in lanes.iter_mut().zip(x) {
            *lane = larger(*lane, *x);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = larger(*lane, *x);
    }
    fold(lanes, larger)
}

/// `y += alpha * x`.
#[inline(always)]
pub(crate) fn axpy<T: Float>(y: &mut [T], alpha: T, x: &[T]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += alpha * *x;
    }
}

/// `y *= alpha`.
#[inline(always)]
pub(crate) fn scale<T: Float>(y: &mut [T], alpha: T) {
    for y in y {
        *y *= alpha;
    }
}

/// One compare and select; `f32::max` needs three instructions because of NaN.
#[inline(always)]
fn larger<T: Float>(x: T, y: T) -> T {
    if y > x { y } else { x }
}

#[inline(always)]
fn fold<T: Float>(mut lanes: [T; LANES], join: impl Fn(T, T) -> T) -> T {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = join(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agree_with_plain_loops_at_every_length() {
        for n in 0..70usize {
            let a: Vec<f64> = (0..n).map(|i| (i * 37 % 11) as f64 - 5.0).collect();
            let b: Vec<f64> = (0..n).map(|i| (i * 13 % 7) as f64 - 3.0).collect();
            // Small integers: the sum is exact in any order.
            assert_eq!(dot(&a, &b), a.iter().zip(&b).map(|(a, b)| a * b).sum::<f64>());
            assert_eq!(sum(&a), a.iter().sum::<f64>());
            assert_eq!(max(&a), a.iter().copied().fold(f64::NEG_INFINITY, f64::max));
            let mut y = b.clone();
            axpy(&mut y, 2.0, &a);
            scale(&mut y, 0.5);
            assert!(y.iter().zip(a.iter().zip(&b)).all(|(y, (a, b))| *y == a + 0.5 * b));
        }
    }
}
