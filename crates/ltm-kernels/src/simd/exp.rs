//! The exponential over a slice, and the hyperbolic tangent. `f32` has branch-free forms that vectorise; `f64`
//! is the standard library's.

use crate::{DType, Float};

/// Replaces each `x` by `e^x`.
///
/// `f32`: relative error at most 2e-7. Below -87.33, where the result would be subnormal, it is 0:
/// subnormals take a hundred times as long, and masked scores produce them. Overflow gives
/// infinity; NaN stays NaN.
#[inline(always)]
pub(crate) fn exp_slice<T: Float>(x: &mut [T]) {
    if T::DTYPE == DType::F32 {
        for x in bytemuck::cast_slice_mut::<T, f32>(x) {
            *x = exp_f32(*x);
        }
    } else {
        for x in x {
            *x = x.exp();
        }
    }
}

/// `e^x` of one number, bit for bit as in [`exp_slice`]: for loops that do more than the
/// exponential.
#[inline(always)]
pub(crate) fn exp<T: Float>(x: T) -> T {
    match T::DTYPE {
        DType::F32 => bytemuck::cast(exp_f32(bytemuck::cast(x))),
        _ => x.exp(),
    }
}

/// The hyperbolic tangent of one number, for loops that vectorise. `f32`: relative error at most 4e-7.
#[inline(always)]
pub(crate) fn tanh<T: Float>(x: T) -> T {
    match T::DTYPE {
        DType::F32 => bytemuck::cast(tanh_f32(bytemuck::cast(x))),
        _ => x.tanh(),
    }
}

/// Past 0.625 from the exponential, `1 - 2 / (e^2|x| + 1)`, which loses nothing there; nearer to 0 by the
/// polynomial of the Cephes library.
#[inline(always)]
fn tanh_f32(x: f32) -> f32 {
    let size = x.abs();
    let far = (1.0 - 2.0 / (exp_f32(2.0 * size) + 1.0)).copysign(x);
    let square = x * x;
    let mut p = -5.704_988_7e-3;
    p = p * square + 2.063_909e-2;
    p = p * square - 5.373_971_6e-2;
    p = p * square + 1.333_144_2e-1;
    p = p * square - 3.333_328e-1;
    let near = (p * square) * x + x;
    if size > 0.625 { far } else { near }
}

/// `e^x = 2^n e^r` with `n` the integer nearest `x / ln 2`, `|r| <= ln(2) / 2` and `e^r` by its
/// Taylor series: the first omitted term is `r^8 / 8! < 5.3e-9`.
#[inline(always)]
fn exp_f32(x: f32) -> f32 {
    /// Adding 1.5 * 2^23 leaves no bits for a fraction: it rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts. The first has 10 bits, so `n * LN2_HI` is exact for every `n` met here.
    const LN2_HI: f32 = 0.693_359_4;
    const LN2_LO: f32 = -2.121_944_4e-4;

    // Outside these bounds the result is known. The comparisons are false for NaN, which passes
    // through.
    let vanishes = x < -87.33;
    let x = if vanishes { 0.0 } else { x };
    let x = if x > 89.0 { 89.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HI) - n * LN2_LO;
    let mut p = 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = (p * r) * r + r;
    p += 1.0;
    // 2^n as two factors: n reaches 128, which exceeds the exponent of a normal number.
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let half = n >> 1;
    let y = p * power_of_two(half) * power_of_two(n.wrapping_sub(half));
    if vanishes { 0.0 } else { y }
}

#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f32_stays_within_its_bound() {
        let x: Vec<f32> = (0..200_000).map(|i| -87.33 + i as f32 * (176.0 / 200_000.0)).collect();
        let mut y = x.clone();
        crate::simd::dispatch(
            #[inline(always)]
            || exp_slice(&mut y),
        );
        for (x, y) in x.iter().zip(&y) {
            let exact = f64::from(*x).exp();
            assert!((f64::from(*y) - exact).abs() <= 2e-7 * exact, "exp({x}) = {y}, not {exact}");
        }
    }

    #[test]
    fn tanh_stays_within_its_bound() {
        for i in -200_000..=200_000 {
            let x = i as f32 * 5e-5;
            let (y, exact) = (tanh(x), f64::from(x).tanh());
            assert!((f64::from(y) - exact).abs() <= 4e-7 * exact.abs(), "tanh({x}) = {y}");
        }
        assert_eq!([-1e9, f32::INFINITY, 1e-20].map(tanh), [-1.0, 1.0, 1e-20]);
        assert!(tanh(f32::NAN).is_nan());
        assert_eq!(tanh(0.5), 0.5f64.tanh());
    }

    #[test]
    fn special_values() {
        let mut y = [f32::NEG_INFINITY, -200.0, -100.0, 0.0, 89.0, f32::INFINITY, f32::NAN, -0.0];
        exp_slice(&mut y);
        assert_eq!(y[..3], [0.0; 3]);
        assert_eq!(y[3..6], [1.0, f32::INFINITY, f32::INFINITY]);
        assert!(y[6].is_nan());
        assert_eq!(y[7], 1.0);
        let mut y = [f64::NEG_INFINITY, 1.0, f64::NAN];
        exp_slice(&mut y);
        assert_eq!(y[..2], [0.0, std::f64::consts::E]);
        assert!(y[2].is_nan());
    }
}
