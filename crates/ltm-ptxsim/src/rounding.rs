//! Roundings to narrower formats, in every direction. Knows values, no instruction.
//!
//! Results are first made in double precision. Where that cannot hold them, their last bit is set:
//! a number so marked rounds to every narrower format as the exact one would.

/// Where a number goes that a format does not hold.
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
    /// Bits of the fraction.
    fraction: i32,
    /// The exponent of the least normal number, and of the greatest.
    least: i32,
    greatest: i32,
}

pub(crate) const F16: Format = Format { fraction: 10, least: -14, greatest: 15 };
pub(crate) const BF16: Format = Format { fraction: 7, least: -126, greatest: 127 };
pub(crate) const TF32: Format = Format { fraction: 10, least: -126, greatest: 127 };
pub(crate) const F32: Format = Format { fraction: 23, least: -126, greatest: 127 };

/// A power of two within double precision's normal range.
fn power(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

/// A whole number next to another.
pub(crate) fn to_whole(x: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::Nearest => x.round_ties_even(),
        Rounding::Away => x.round(),
        Rounding::Zero => x.trunc(),
        Rounding::Down => x.floor(),
        Rounding::Up => x.ceil(),
    }
}

/// A number of a narrower format, or an infinity, in double precision.
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

/// A double as single precision.
pub(crate) fn to_f32(x: f64, rounding: Rounding) -> f32 {
    // The language's own conversion is to nearest.
    if rounding == Rounding::Nearest { x as f32 } else { narrow(x, F32, rounding) as f32 }
}

/// The sum of two doubles, its last bit set where it is not exact.
#[inline(always)]
pub(crate) fn sum(a: f64, b: f64) -> f64 {
    let s = a + b;
    let of_b = s - a;
    let error = (a - (s - of_b)) + (b - of_b);
    let bits = s.to_bits();
    // An infinite sum's error is no number, and it stays as it is.
    let inexact = error.abs() > 0.0;
    let beyond = u64::from((error < 0.0) != (s < 0.0));
    f64::from_bits(if inexact { (bits - beyond) | 1 } else { bits })
}

/// `a + b` in single precision; an exact 0 of opposite terms is negative when rounding down.
pub(crate) fn rounded_sum(a: f64, b: f64, rounding: Rounding) -> f32 {
    let s = sum(a, b);
    if s == 0.0 && rounding == Rounding::Down && a.is_sign_negative() != b.is_sign_negative() {
        return -0.0;
    }
    to_f32(s, rounding)
}

/// An integer of at most 65 bits in double precision, its last bit set where it is not exact.
pub(crate) fn from_integer(x: i128) -> f64 {
    // Both halves are exact, and so is the sum but for its mark.
    sum((x >> 32) as f64 * power(32), (x & 0xffff_ffff) as f64)
}
