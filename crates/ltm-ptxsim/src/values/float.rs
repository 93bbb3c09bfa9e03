//! Floating-point arithmetic on one lane. Knows values; must not know where they come from.
//!
//! Where the host has no operation with the required rounding, the result is computed in double
//! precision, exactly or rounded to odd, and then rounded once. Approximate functions have the
//! host's accuracy.

use half::{bf16, f16};

use super::lanes::{Alu, Lanes, lanes};
use super::rounding::{BF16, F16, Rounding, narrow, rounded_sum, sum, to_f32};
use crate::report::Class;

pub(crate) fn f(x: u64) -> f32 {
    f32::from_bits(x as u32)
}

pub(crate) fn d(x: u64) -> f64 {
    f64::from_bits(x)
}

pub(crate) fn fb(x: f32) -> u64 {
    u64::from(x.to_bits())
}

fn db(x: f64) -> u64 {
    x.to_bits()
}

fn w(x: f32) -> f64 {
    f64::from(x)
}

/// The NaN that hardware produces.
const NAN: f32 = f32::from_bits(0x7fff_ffff);

pub(crate) fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}

pub(crate) fn saturate(x: f32) -> f32 {
    // Adding 0 turns -0 into +0, as hardware does.
    if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) + 0.0 }
}

/// The smaller of two numbers; if one is NaN, the other. -0 is less than 0.
fn least(a: f64, b: f64) -> f64 {
    if a.is_nan() || b < a || b == a && b.is_sign_negative() { b } else { a }
}

fn greatest(a: f64, b: f64) -> f64 {
    -least(-a, -b)
}

/// `op`, or NaN if either operand is NaN.
fn or_nan(op: fn(f64, f64) -> f64, a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { op(a, b) }
}

fn relu(x: f64) -> f64 {
    if x < 0.0 { 0.0 } else { x }
}

/// Converts a double that is exactly representable in single precision.
fn exact(x: f64) -> f32 {
    if x.is_nan() { NAN } else { x as f32 }
}

/// `body` on single-precision values, flushing subnormals to 0 if `$ftz`.
macro_rules! single {
    ($ftz:expr, |$a:ident, $b:ident, $c:ident| $body:expr) => {{
        let plain: Alu = lanes!(|x, y, z| {
            let ($a, $b, $c) = (f(x), f(y), f(z));
            fb($body)
        });
        let flushed: Alu = lanes!(|x, y, z| {
            let ($a, $b, $c) = (flush(f(x)), flush(f(y)), flush(f(z)));
            fb(flush($body))
        });
        if $ftz { flushed } else { plain }
    }};
}

/// `body` in the given rounding mode, passed as its last argument.
macro_rules! rounded {
    ($ftz:expr, $rounding:expr, |$a:ident, $b:ident, $c:ident, $r:ident| $body:expr) => {{
        macro_rules! toward {
            ($direction:expr) => {
                single!($ftz, |$a, $b, $c| {
                    let $r = $direction;
                    $body
                })
            };
        }
        match $rounding {
            Rounding::Zero => toward!(Rounding::Zero),
            Rounding::Down => toward!(Rounding::Down),
            Rounding::Up => toward!(Rounding::Up),
            _ => toward!(Rounding::Nearest),
        }
    }};
}

/// A single-precision operation with its class and flop count. `modifiers` are the parts of the
/// opcode between the base and the type; an unknown one makes the instruction unsupported.
pub(crate) fn single(base: &str, modifiers: &[&str]) -> Option<(Alu, Class, u64)> {
    let has = |modifier: &str| modifiers.contains(&modifier);
    let known: &[&str] = match base {
        "add" | "sub" | "mul" | "fma" | "mad" => &["rn", "rz", "rm", "rp", "ftz", "sat"],
        "neg" | "abs" => &["ftz"],
        "slct" => {
            &["ftz", "b16", "u16", "s16", "b32", "u32", "s32", "b64", "u64", "s64", "f32", "f64"]
        }
        "min" | "max" => &["ftz", "NaN"],
        "div" => &["rn", "approx", "full", "ftz"],
        "sqrt" | "rcp" => &["rn", "approx", "ftz"],
        "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh" => &["approx", "ftz"],
        _ => &[],
    };
    let (ftz, sat) = (has("ftz"), has("sat"));
    let rounding = match () {
        () if has("rz") => Rounding::Zero,
        () if has("rm") => Rounding::Down,
        () if has("rp") => Rounding::Up,
        () => Rounding::Nearest,
    };
    if !modifiers.iter().all(|modifier| known.contains(modifier))
        || sat && rounding != Rounding::Nearest
    {
        return None;
    }
    let nearest = rounding == Rounding::Nearest;
    let (alu, flops): (Alu, u64) = match base {
        "add" if sat => (single!(ftz, |a, b, c| saturate(a + b)), 1),
        "sub" if sat => (single!(ftz, |a, b, c| saturate(a - b)), 1),
        "mul" if sat => (single!(ftz, |a, b, c| saturate(a * b)), 1),
        "fma" | "mad" if sat => (single!(ftz, |a, b, c| saturate(a.mul_add(b, c))), 2),
        // Rounding to nearest, the host's own operations are correctly rounded.
        "add" if nearest => (single!(ftz, |a, b, c| a + b), 1),
        "sub" if nearest => (single!(ftz, |a, b, c| a - b), 1),
        "mul" if nearest => (single!(ftz, |a, b, c| a * b), 1),
        "fma" | "mad" if nearest && !ftz => (fused, 2),
        "fma" | "mad" if nearest => (single!(ftz, |a, b, c| a.mul_add(b, c)), 2),
        "add" => (rounded!(ftz, rounding, |a, b, c, r| rounded_sum(w(a), w(b), r)), 1),
        "sub" => (rounded!(ftz, rounding, |a, b, c, r| rounded_sum(w(a), -w(b), r)), 1),
        "mul" => (rounded!(ftz, rounding, |a, b, c, r| to_f32(w(a) * w(b), r)), 1),
        "fma" | "mad" => {
            (rounded!(ftz, rounding, |a, b, c, r| rounded_sum(w(a) * w(b), w(c), r)), 2)
        }
        "neg" => (single!(ftz, |a, b, c| -a), 0),
        "abs" => (single!(ftz, |a, b, c| a.abs()), 0),
        "min" if has("NaN") => (single!(ftz, |a, b, c| exact(or_nan(least, w(a), w(b)))), 1),
        "max" if has("NaN") => (single!(ftz, |a, b, c| exact(or_nan(greatest, w(a), w(b)))), 1),
        "min" => (single!(ftz, |a, b, c| exact(least(w(a), w(b)))), 1),
        "max" => (single!(ftz, |a, b, c| exact(greatest(w(a), w(b)))), 1),
        "copysign" => (single!(false, |a, b, c| b.copysign(a)), 0),
        // A NaN condition selects the second operand.
        "slct" if modifiers.len() != 1 + usize::from(ftz) => return None,
        "slct" if ftz => (lanes!(|a, b, c| if flush(f(c)) >= 0.0 { a } else { b }), 0),
        "slct" => (lanes!(|a, b, c| if f(c) >= 0.0 { a } else { b }), 0),
        "div" => (single!(ftz, |a, b, c| a / b), 1),
        "sqrt" => (single!(ftz, |a, b, c| a.sqrt()), 1),
        "rcp" => (single!(ftz, |a, b, c| 1.0 / a), 1),
        "rsqrt" => (single!(ftz, |a, b, c| (1.0 / w(a).sqrt()) as f32), 1),
        "ex2" => (single!(ftz, |a, b, c| a.exp2()), 1),
        "lg2" => (single!(ftz, |a, b, c| a.log2()), 1),
        "sin" => (single!(ftz, |a, b, c| a.sin()), 1),
        "cos" => (single!(ftz, |a, b, c| a.cos()), 1),
        "tanh" => (single!(ftz, |a, b, c| a.tanh()), 1),
        _ => return None,
    };
    let special =
        matches!(base, "div" | "sqrt" | "rcp" | "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh");
    Some((alu, if special { Class::Special } else { Class::F32 }, flops))
}

/// The most common operation, using the host's widest SIMD registers.
fn fused(out: &mut Lanes, a: &Lanes, b: &Lanes, c: &Lanes) {
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            for i in 0..32 {
                out[i] = fb(f(a[i]).mul_add(f(b[i]), f(c[i])));
            }
        },
    );
}

/// Double-precision operations; see [`single`].
pub(crate) fn double(base: &str, modifiers: &[&str]) -> Option<(Alu, Class, u64)> {
    let known: &[&str] = match base {
        "add" | "sub" | "mul" | "fma" | "mad" | "div" | "sqrt" => &["rn"],
        "rcp" => &["rn", "approx", "ftz"],
        "rsqrt" => &["approx", "ftz"],
        _ => &[],
    };
    if !modifiers.iter().all(|modifier| known.contains(modifier)) {
        return None;
    }
    let (alu, flops): (Alu, u64) = match base {
        "add" => (lanes!(|a, b, c| db(d(a) + d(b))), 1),
        "sub" => (lanes!(|a, b, c| db(d(a) - d(b))), 1),
        "mul" => (lanes!(|a, b, c| db(d(a) * d(b))), 1),
        "fma" | "mad" => (lanes!(|a, b, c| db(d(a).mul_add(d(b), d(c)))), 2),
        "div" => (lanes!(|a, b, c| db(d(a) / d(b))), 1),
        "sqrt" => (lanes!(|a, b, c| db(d(a).sqrt())), 1),
        "rcp" => (lanes!(|a, b, c| db(1.0 / d(a))), 1),
        "rsqrt" => (lanes!(|a, b, c| db(1.0 / d(a).sqrt())), 1),
        "neg" => (lanes!(|a, b, c| db(-d(a))), 0),
        "abs" => (lanes!(|a, b, c| db(d(a).abs())), 0),
        "min" => (lanes!(|a, b, c| db(least(d(a), d(b)))), 1),
        "max" => (lanes!(|a, b, c| db(greatest(d(a), d(b)))), 1),
        "copysign" => (lanes!(|a, b, c| db(d(b).copysign(d(a)))), 0),
        _ => return None,
    };
    Some((alu, Class::F64, flops))
}

/// Bits of `x` rounded to `f16`.
fn f16_bits(x: f64) -> u64 {
    if x.is_nan() {
        return 0x7fff;
    }
    u64::from(f16::from_f64(narrow(x, F16, Rounding::Nearest)).to_bits())
}

/// Bits of `x` rounded to `bf16`.
fn bf16_bits(x: f64) -> u64 {
    if x.is_nan() {
        return 0x7fff;
    }
    u64::from(bf16::from_f64(narrow(x, BF16, Rounding::Nearest)).to_bits())
}

/// The sum of two 16-bit floats, or of two pairs, as atomics compute it.
pub(crate) fn half_sum(a: u64, b: u64, is_bf16: bool, pair: bool) -> u64 {
    let sum = |a: u64, b: u64| {
        let (a, b) = (a as u16, b as u16);
        if is_bf16 {
            bf16_bits(bf16::from_bits(a).to_f64() + bf16::from_bits(b).to_f64())
        } else {
            f16_bits(f16::from_bits(a).to_f64() + f16::from_bits(b).to_f64())
        }
    };
    if pair { sum(a, b) | sum(a >> 16, b >> 16) << 16 } else { sum(a, b) }
}

/// Arithmetic of one 16-bit type, on single values and on pairs.
macro_rules! half_arithmetic {
    ($name:ident, $type:ident, $bits:ident) => {
        fn $name(base: &str, pair: bool, has: &dyn Fn(&str) -> bool) -> Option<Alu> {
            fn h(x: u64) -> f64 {
                $type::from_bits(x as u16).to_f64()
            }
            /// `body` on a single value, or on both halves of a pair.
            macro_rules! each {
                (|$a:ident, $b:ident, $c:ident| $body:expr) => {{
                    #[allow(unused_variables)]
                    fn one(a: u64, b: u64, c: u64) -> u64 {
                        let ($a, $b, $c) = (h(a), h(b), h(c));
                        $bits($body)
                    }
                    let alone: Alu = lanes!(|a, b, c| one(a, b, c));
                    let both: Alu =
                        lanes!(|a, b, c| one(a, b, c) | one(a >> 16, b >> 16, c >> 16) << 16);
                    if pair { both } else { alone }
                }};
            }
            let nan = has("NaN");
            Some(match base {
                "add" => each!(|a, b, c| a + b),
                "sub" => each!(|a, b, c| a - b),
                "mul" => each!(|a, b, c| a * b),
                "fma" if has("relu") => each!(|a, b, c| relu(sum(a * b, c))),
                "fma" => each!(|a, b, c| sum(a * b, c)),
                "min" if nan => each!(|a, b, c| or_nan(least, a, b)),
                "max" if nan => each!(|a, b, c| or_nan(greatest, a, b)),
                "min" => each!(|a, b, c| least(a, b)),
                "max" => each!(|a, b, c| greatest(a, b)),
                "neg" if !pair => lanes!(|a, b, c| a & 0xffff ^ 0x8000),
                "neg" => lanes!(|a, b, c| a & 0xffff_ffff ^ 0x8000_8000),
                "abs" if !pair => lanes!(|a, b, c| a & 0x7fff),
                "abs" => lanes!(|a, b, c| a & 0x7fff_7fff),
                "ex2" => each!(|a, b, c| a.exp2()),
                "tanh" => each!(|a, b, c| a.tanh()),
                _ => return None,
            })
        }
    };
}
half_arithmetic!(of_f16, f16, f16_bits);
half_arithmetic!(of_bf16, bf16, bf16_bits);

/// Operations on `f16`, `bf16`, `f16x2` or `bf16x2`; see [`single`].
pub(crate) fn half(base: &str, modifiers: &[&str], ty: &str) -> Option<(Alu, Class, u64)> {
    let known: &[&str] = match base {
        "add" | "sub" | "mul" => &["rn"],
        "fma" => &["rn", "relu"],
        "min" | "max" => &["NaN"],
        // `ftz` is accepted and changes nothing: a subnormal input gives 1, as 0 does.
        "ex2" if ty.starts_with('b') => &["approx", "ftz"],
        "ex2" | "tanh" => &["approx"],
        _ => &[],
    };
    if !modifiers.iter().all(|modifier| known.contains(modifier)) {
        return None;
    }
    let has = |modifier: &str| modifiers.contains(&modifier);
    let pair = ty.ends_with("x2");
    let alu = if ty.starts_with('b') { of_bf16 } else { of_f16 }(base, pair, &has)?;
    let flops = match base {
        "neg" | "abs" => 0,
        "fma" => 2,
        _ => 1,
    };
    Some((alu, Class::Half, flops * if pair { 2 } else { 1 }))
}
