//! Rounds to narrower formats in every rounding mode. Must not know instructions.
//!
//! Results are first computed in double precision. If that is inexact, the result is rounded to
//! odd: its last bit is set, so rounding it again to a narrower format gives the same value as
//! rounding the exact result once.

/// Rounding mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// To nearest, ties to even.
    Nearest,
    /// To nearest, ties away from 0.
    Away,
    Zero,
    Down,
    Up,
}

/// A binary floating-point format.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Format {
    /// Bits of the fraction, without the implicit one.
    fraction: i32,
    /// Exponent of the smallest normal number, and of the largest number.
    least: i32,
    greatest: i32,
}

pub(crate) const F16: Format = Format { fraction: 10, least: -14, greatest: 15 };
pub(crate) const BF16: Format = Format { fraction: 7, least: -126, greatest: 127 };
pub(crate) const TF32: Format = Format { fraction: 10, least: -126, greatest: 127 };
pub(crate) const F32: Format = Format { fraction: 23, least: -126, greatest: 127 };

/// `2^exponent`, which must be a normal double.
fn power(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

/// Rounds to an integral value.
pub(crate) fn to_whole(x: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::Nearest => x.round_ties_even(),
        Rounding::Away => x.round(),
        Rounding::Zero => x.trunc(),
        Rounding::Down => x.floor(),
        Rounding::Up => x.ceil(),
    }
}

/// Rounds to a narrower format; the result, possibly infinite, is returned in double precision.
pub(crate) fn narrow(x: f64, format: Format, rounding: Rounding) -> f64 {
    if x == 0.0 || !x.is_finite() {
        return x;
    }
    let exponent = (x.to_bits() >> 52 & 0x7ff) as i32 - 1023;
    let quantum = power(exponent.max(format.least) - format.fraction);
    let y = (to_whole(x / quantum, rounding) * quantum).copysign(x);
    let most = power(format.greatest) * (2.0 - power(-format.fraction));
    if y.abs() <= most {
        return y;
    }
    let stays = match rounding {
        Rounding::Nearest | Rounding::Away => false,
        Rounding::Zero => true,
        Rounding::Down => x > 0.0,
        Rounding::Up => x < 0.0,
    };
    if stays { most.copysign(x) } else { f64::INFINITY.copysign(x) }
}

/// Rounds a double to single precision.
pub(crate) fn to_f32(x: f64, rounding: Rounding) -> f32 {
    // `as` rounds to nearest, ties to even.
    if rounding == Rounding::Nearest { x as f32 } else { narrow(x, F32, rounding) as f32 }
}

/// `a + b`, rounded to odd.
#[inline(always)]
pub(crate) fn sum(a: f64, b: f64) -> f64 {
    let s = a + b;
    let of_b = s - a;
    let error = (a - (s - of_b)) + (b - of_b);
    let bits = s.to_bits();
    // The error of an infinite sum is NaN, so the sum stays as it is.
    let inexact = error.abs() > 0.0;
    let beyond = u64::from((error < 0.0) != (s < 0.0));
    f64::from_bits(if inexact { (bits - beyond) | 1 } else { bits })
}

/// `a + b` in single precision. An exact zero from terms of opposite sign is -0 when rounding down.
pub(crate) fn rounded_sum(a: f64, b: f64, rounding: Rounding) -> f32 {
    let s = sum(a, b);
    if s == 0.0 && rounding == Rounding::Down && a.is_sign_negative() != b.is_sign_negative() {
        return -0.0;
    }
    to_f32(s, rounding)
}

/// An integer of at most 65 bits in double precision, rounded to odd.
pub(crate) fn from_integer(x: i128) -> f64 {
    // Both parts are exact, so only the sum rounds.
    sum((x >> 32) as f64 * power(32), (x & 0xffff_ffff) as f64)
}
