//! Arithmetic of single lanes: one function an instruction and type, over all lanes of a warp at
//! once. Knows values, not where they come from.
//!
//! A register is 64 bits; narrower values stand in its low bits, and what stands above them is
//! ignored. Single-precision products and sums go through double precision and are rounded once,
//! which is exact for products and differs from a true fused multiply-add only where double
//! precision itself rounds to the middle of two single-precision numbers.

use half::{bf16, f16};

use crate::counters::Class;

/// A register of all lanes.
pub(crate) type Lanes = [u64; 32];
/// `out = f(a, b, c)` for every lane.
pub(crate) type Alu = fn(&mut Lanes, &Lanes, &Lanes, &Lanes);
/// A bit a lane: whether `a` and `b` compare so.
pub(crate) type Compare = fn(&Lanes, &Lanes) -> u32;

macro_rules! lanes {
    (|$a:ident, $b:ident, $c:ident| $body:expr) => {{
        #[allow(unused_variables)]
        fn all_lanes(out: &mut Lanes, a: &Lanes, b: &Lanes, c: &Lanes) {
            for i in 0..32 {
                let ($a, $b, $c) = (a[i], b[i], c[i]);
                out[i] = $body;
            }
        }
        all_lanes
    }};
}

pub(crate) fn f(x: u64) -> f32 {
    f32::from_bits(x as u32)
}

fn d(x: u64) -> f64 {
    f64::from_bits(x)
}

pub(crate) fn fb(x: f32) -> u64 {
    u64::from(x.to_bits())
}

fn db(x: f64) -> u64 {
    x.to_bits()
}

/// The result of a single-precision operation computed in double precision.
fn once(x: f64) -> u64 {
    fb(x as f32)
}

/// A double rounded to single precision in a direction: negative, positive or towards 0.
fn directed(x: f64, toward: f64) -> f32 {
    let near = x as f32;
    let wide = f64::from(near);
    let target = if toward == 0.0 {
        if x > 0.0 { f64::NEG_INFINITY } else { f64::INFINITY }
    } else {
        toward
    };
    if wide == x || x.is_nan() {
        near
    } else if target < 0.0 && wide > x {
        near.next_down()
    } else if target > 0.0 && wide < x {
        near.next_up()
    } else {
        near
    }
}

fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}

pub(crate) fn saturate(x: f32) -> f32 {
    if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) }
}

/// The implementation of an arithmetic opcode, its class, and its floating-point operations.
pub(crate) fn find(opcode: &str) -> Option<(Alu, Class, u64)> {
    let parts: Vec<&str> = opcode.split('.').collect();
    let (base, ty) = (parts[0], *parts.last()?);
    let has = |modifier: &str| parts.contains(&modifier);
    let integer = |f: Alu| Some((f, Class::Integer, 0));
    let half = |f: Alu, flops| Some((f, Class::Half, flops));
    // Refused rather than done without their modifier.
    let rounded = has("rz") || has("rm") || has("rp");
    let lost = match base {
        _ if has("cc") || has("xorsign") => true,
        "add" | "fma" => rounded && has("sat"),
        "mul" => has("rm") || has("rp") || rounded && has("sat"),
        _ => rounded,
    };
    if lost || has("sat") && ty != "f32" || rounded && ty != "f32" || base == "sub" && has("sat") {
        return None;
    }
    match ty {
        "f32" => single(base, &has),
        "f64" => double(base),
        "bf16x2" => half(packed_bf16(base, has("relu"))?, if base == "fma" { 4 } else { 2 }),
        "f16x2" => half(packed_f16(base, has("relu"))?, if base == "fma" { 4 } else { 2 }),
        "bf16" => half(scalar_bf16(base, has("relu"))?, if base == "fma" { 2 } else { 1 }),
        "f16" => half(scalar_f16(base, has("relu"))?, if base == "fma" { 2 } else { 1 }),
        _ => integer(match base {
            "mul" | "mad" if has("wide") => wide(base, ty)?,
            "mul" | "mad" if has("hi") => high(base, ty)?,
            _ => integral(base, ty, &has)?,
        }),
    }
}

fn single(base: &str, has: &dyn Fn(&str) -> bool) -> Option<(Alu, Class, u64)> {
    let (down, up, zero) = (has("rm"), has("rp"), has("rz"));
    let plain: Option<(Alu, u64)> = match base {
        "add" if zero => {
            Some((lanes!(|a, b, c| fb(directed(f64::from(f(a)) + f64::from(f(b)), 0.0))), 1))
        }
        "add" if down => {
            Some((lanes!(|a, b, c| fb(directed(f64::from(f(a)) + f64::from(f(b)), -1.0))), 1))
        }
        "add" if up => {
            Some((lanes!(|a, b, c| fb(directed(f64::from(f(a)) + f64::from(f(b)), 1.0))), 1))
        }
        "add" if has("sat") => Some((lanes!(|a, b, c| fb(saturate(f(a) + f(b)))), 1)),
        "add" => Some((lanes!(|a, b, c| fb(f(a) + f(b))), 1)),
        "sub" => Some((lanes!(|a, b, c| fb(f(a) - f(b))), 1)),
        "mul" if zero => {
            Some((lanes!(|a, b, c| fb(directed(f64::from(f(a)) * f64::from(f(b)), 0.0))), 1))
        }
        "mul" if has("sat") => Some((lanes!(|a, b, c| fb(saturate(f(a) * f(b)))), 1)),
        "mul" => Some((lanes!(|a, b, c| fb(f(a) * f(b))), 1)),
        "fma" | "mad" if has("sat") => Some((
            lanes!(|a, b, c| fb(saturate(
                (f64::from(f(a)) * f64::from(f(b)) + f64::from(f(c))) as f32
            ))),
            2,
        )),
        "fma" if down => Some((
            lanes!(|a, b, c| fb(directed(
                f64::from(f(a)) * f64::from(f(b)) + f64::from(f(c)),
                -1.0
            ))),
            2,
        )),
        "fma" if up => Some((
            lanes!(|a, b, c| fb(directed(
                f64::from(f(a)) * f64::from(f(b)) + f64::from(f(c)),
                1.0
            ))),
            2,
        )),
        "fma" if zero => Some((
            lanes!(|a, b, c| fb(directed(
                f64::from(f(a)) * f64::from(f(b)) + f64::from(f(c)),
                0.0
            ))),
            2,
        )),
        "fma" | "mad" => {
            Some((lanes!(|a, b, c| once(f64::from(f(a)) * f64::from(f(b)) + f64::from(f(c)))), 2))
        }
        "neg" => Some((lanes!(|a, b, c| fb(-f(a))), 0)),
        "abs" => Some((lanes!(|a, b, c| fb(f(a).abs())), 0)),
        "min" if has("NaN") => Some((
            lanes!(|a, b, c| fb(if f(a).is_nan() || f(b).is_nan() {
                f32::NAN
            } else {
                f(a).min(f(b))
            })),
            1,
        )),
        "max" if has("NaN") => Some((
            lanes!(|a, b, c| fb(if f(a).is_nan() || f(b).is_nan() {
                f32::NAN
            } else {
                f(a).max(f(b))
            })),
            1,
        )),
        "min" => Some((lanes!(|a, b, c| fb(f(a).min(f(b)))), 1)),
        "max" => Some((lanes!(|a, b, c| fb(f(a).max(f(b)))), 1)),
        "copysign" => Some((lanes!(|a, b, c| fb(f(b).copysign(f(a)))), 0)),
        _ => None,
    };
    if let Some((alu, flops)) = plain {
        return Some((alu, Class::F32, flops));
    }
    let special: Alu = match base {
        "div" => lanes!(|a, b, c| fb(f(a) / f(b))),
        "sqrt" => lanes!(|a, b, c| fb(f(a).sqrt())),
        "rcp" if has("ftz") => lanes!(|a, b, c| fb(flush(1.0 / flush(f(a))))),
        "rcp" => lanes!(|a, b, c| fb(1.0 / f(a))),
        "rsqrt" if has("ftz") => {
            lanes!(|a, b, c| fb(flush((1.0 / f64::from(flush(f(a))).sqrt()) as f32)))
        }
        "rsqrt" => lanes!(|a, b, c| once(1.0 / f64::from(f(a)).sqrt())),
        "ex2" if has("ftz") => lanes!(|a, b, c| fb(flush(flush(f(a)).exp2()))),
        "ex2" => lanes!(|a, b, c| fb(f(a).exp2())),
        "lg2" if has("ftz") => lanes!(|a, b, c| fb(flush(f(a)).log2())),
        "lg2" => lanes!(|a, b, c| fb(f(a).log2())),
        "sin" => lanes!(|a, b, c| fb(f(a).sin())),
        "cos" => lanes!(|a, b, c| fb(f(a).cos())),
        "tanh" => lanes!(|a, b, c| fb(f(a).tanh())),
        _ => return None,
    };
    Some((special, Class::Special, 1))
}

fn double(base: &str) -> Option<(Alu, Class, u64)> {
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
        "min" => (lanes!(|a, b, c| db(d(a).min(d(b)))), 1),
        "max" => (lanes!(|a, b, c| db(d(a).max(d(b)))), 1),
        "copysign" => (lanes!(|a, b, c| db(d(b).copysign(d(a)))), 0),
        _ => return None,
    };
    Some((alu, Class::F64, flops))
}

/// Arithmetic of one 16-bit type, alone and in pairs: single precision or better, rounded once.
macro_rules! half_arithmetic {
    ($scalar:ident, $packed:ident, $type:ident) => {
        fn $scalar(base: &str, relu: bool) -> Option<Alu> {
            fn w(x: u64) -> f64 {
                $type::from_bits(x as u16).to_f64()
            }
            fn n(x: f64) -> u64 {
                u64::from($type::from_f64(x).to_bits())
            }
            Some(match base {
                "add" => lanes!(|a, b, c| n(w(a) + w(b))),
                "sub" => lanes!(|a, b, c| n(w(a) - w(b))),
                "mul" => lanes!(|a, b, c| n(w(a) * w(b))),
                "fma" if relu => lanes!(|a, b, c| n((w(a) * w(b) + w(c)).max(0.0))),
                "fma" => lanes!(|a, b, c| n(w(a) * w(b) + w(c))),
                "min" => lanes!(|a, b, c| n(w(a).min(w(b)))),
                "max" => lanes!(|a, b, c| n(w(a).max(w(b)))),
                "neg" => lanes!(|a, b, c| a & 0xffff ^ 0x8000),
                "abs" => lanes!(|a, b, c| a & 0x7fff),
                "ex2" => lanes!(|a, b, c| n(w(a).exp2())),
                "tanh" => lanes!(|a, b, c| n(w(a).tanh())),
                _ => return None,
            })
        }

        fn $packed(base: &str, relu: bool) -> Option<Alu> {
            fn w(x: u64) -> f64 {
                $type::from_bits(x as u16).to_f64()
            }
            fn n(x: f64) -> u64 {
                u64::from($type::from_f64(x).to_bits())
            }
            fn each(g: impl Fn(f64, f64, f64) -> f64, a: u64, b: u64, c: u64) -> u64 {
                n(g(w(a), w(b), w(c))) | n(g(w(a >> 16), w(b >> 16), w(c >> 16))) << 16
            }
            Some(match base {
                "add" => lanes!(|a, b, c| each(|a, b, _| a + b, a, b, c)),
                "sub" => lanes!(|a, b, c| each(|a, b, _| a - b, a, b, c)),
                "mul" => lanes!(|a, b, c| each(|a, b, _| a * b, a, b, c)),
                "fma" if relu => lanes!(|a, b, c| each(|a, b, c| (a * b + c).max(0.0), a, b, c)),
                "fma" => lanes!(|a, b, c| each(|a, b, c| a * b + c, a, b, c)),
                "min" => lanes!(|a, b, c| each(|a, b, _| a.min(b), a, b, c)),
                "max" => lanes!(|a, b, c| each(|a, b, _| a.max(b), a, b, c)),
                "neg" => lanes!(|a, b, c| a & 0xffff_ffff ^ 0x8000_8000),
                "abs" => lanes!(|a, b, c| a & 0x7fff_7fff),
                "ex2" => lanes!(|a, b, c| each(|a, _, _| a.exp2(), a, b, c)),
                _ => return None,
            })
        }
    };
}
half_arithmetic!(scalar_f16, packed_f16, f16);
half_arithmetic!(scalar_bf16, packed_bf16, bf16);

/// `body` for the integer type named `$ty`, with `T` bound to it.
macro_rules! on_integer {
    ($ty:expr, $T:ident => $alu:expr) => {
        match $ty {
            "u16" | "b16" => {
                type $T = u16;
                Some($alu)
            }
            "s16" => {
                type $T = i16;
                Some($alu)
            }
            "u32" | "b32" => {
                type $T = u32;
                Some($alu)
            }
            "s32" => {
                type $T = i32;
                Some($alu)
            }
            "u64" | "b64" => {
                type $T = u64;
                Some($alu)
            }
            "s64" => {
                type $T = i64;
                Some($alu)
            }
            _ => None,
        }
    };
}

/// Keeps an integer's own bits, however it was widened.
macro_rules! bits {
    ($T:ty, $x:expr) => {
        ($x) as $T as u64 & (u64::MAX >> (64 - <$T>::BITS))
    };
}

fn integral(base: &str, ty: &str, has: &dyn Fn(&str) -> bool) -> Option<Alu> {
    match base {
        "add" => on_integer!(ty, T => lanes!(|a, b, c| bits!(T, (a as T).wrapping_add(b as T)))),
        "sub" => on_integer!(ty, T => lanes!(|a, b, c| bits!(T, (a as T).wrapping_sub(b as T)))),
        "mul" => on_integer!(ty, T => lanes!(|a, b, c| bits!(T, (a as T).wrapping_mul(b as T)))),
        "mad" => on_integer!(ty, T => lanes!(|a, b, c| {
            bits!(T, (a as T).wrapping_mul(b as T).wrapping_add(c as T))
        })),
        // What hardware leaves where the divisor is 0.
        "div" => on_integer!(ty, T => lanes!(|a, b, c| {
            bits!(T, (a as T).checked_div(b as T).unwrap_or(!0))
        })),
        "rem" => on_integer!(ty, T => lanes!(|a, b, c| {
            bits!(T, (a as T).checked_rem(b as T).unwrap_or(a as T))
        })),
        "min" => on_integer!(ty, T => lanes!(|a, b, c| bits!(T, (a as T).min(b as T)))),
        "max" => on_integer!(ty, T => lanes!(|a, b, c| bits!(T, (a as T).max(b as T)))),
        "neg" => on_integer!(ty, T => lanes!(|a, b, c| bits!(T, (0 as T).wrapping_sub(a as T)))),
        "and" => on_integer!(ty, T => lanes!(|a, b, c| bits!(T, a & b))),
        "or" => on_integer!(ty, T => lanes!(|a, b, c| bits!(T, a | b))),
        "xor" => on_integer!(ty, T => lanes!(|a, b, c| bits!(T, a ^ b))),
        "not" => on_integer!(ty, T => lanes!(|a, b, c| bits!(T, !a))),
        "cnot" => on_integer!(ty, T => lanes!(|a, b, c| u64::from(a as T == 0))),
        "shl" => on_integer!(ty, T => lanes!(|a, b, c| {
            bits!(T, (a as T).checked_shl(b as u32).unwrap_or(0))
        })),
        // Past the width, a signed shift leaves the sign.
        "shr" => on_integer!(ty, T => lanes!(|a, b, c| {
            let by = (b as u32).min(T::BITS);
            bits!(T, (a as T).checked_shr(by).unwrap_or((a as T) >> (T::BITS - 1) >> 1))
        })),
        "popc" => on_integer!(ty, T => lanes!(|a, b, c| u64::from((a as T).count_ones()))),
        "clz" => on_integer!(ty, T => lanes!(|a, b, c| u64::from((a as T).leading_zeros()))),
        "brev" => on_integer!(ty, T => lanes!(|a, b, c| bits!(T, (a as T).reverse_bits()))),
        "abs" => match ty {
            "s16" => Some(lanes!(|a, b, c| bits!(u16, (a as i16).wrapping_abs()))),
            "s32" => Some(lanes!(|a, b, c| bits!(u32, (a as i32).wrapping_abs()))),
            "s64" => Some(lanes!(|a, b, c| (a as i64).wrapping_abs() as u64)),
            _ => None,
        },
        "bfe" => on_integer!(ty, T => lanes!(|a, b, c| {
            let (at, len) = ((b & 0xff) as u32, (c & 0xff) as u32);
            let sign = if T::MIN != 0 { (a as T) >> (T::BITS - 1) & 1 } else { 0 };
            let mut x: T = 0;
            for i in 0..len.min(T::BITS) {
                let bit = if at + i < T::BITS { (a as T) >> (at + i) & 1 } else { sign };
                x |= bit << i;
            }
            // A signed field is extended by its own top bit.
            let negative = T::MIN != 0 && len > 0 && len < T::BITS && x >> (len - 1) & 1 != 0;
            bits!(T, if negative { x | (!0 as T) << len } else { x })
        })),
        // How far the highest bit is from the top, instead of its number.
        "bfind" if has("shiftamt") => on_integer!(ty, T => lanes!(|a, b, c| {
            let x = if T::MIN != 0 && (a as T) >> (T::BITS - 1) != 0 { !(a as T) } else { a as T };
            if x == 0 { 0xffff_ffff } else { u64::from(x.leading_zeros()) }
        })),
        "bfind" => on_integer!(ty, T => lanes!(|a, b, c| {
            let x = if T::MIN != 0 && (a as T) >> (T::BITS - 1) != 0 { !(a as T) } else { a as T };
            if x == 0 { 0xffff_ffff } else { u64::from(T::BITS - 1 - x.leading_zeros()) }
        })),
        "prmt" if !has("f4e") => Some(lanes!(|a, b, c| {
            let bytes = a & 0xffff_ffff | b << 32;
            (0..4).fold(0, |x, i| {
                let selector = c >> (4 * i) & 15;
                let byte = bytes >> (8 * (selector & 7)) & 0xff;
                let byte =
                    if selector & 8 != 0 { if byte & 0x80 != 0 { 0xff } else { 0 } } else { byte };
                x | byte << (8 * i)
            })
        })),
        "dp4a" => Some(match ty {
            "s32" => lanes!(|a, b, c| bits!(
                u32,
                (0..4).fold(c as i32, |sum, i| {
                    let byte = |x: u64| i32::from((x >> (8 * i)) as i8);
                    sum.wrapping_add(byte(a) * byte(b))
                })
            )),
            _ => lanes!(|a, b, c| bits!(
                u32,
                (0..4).fold(c as u32, |sum, i| {
                    let byte = |x: u64| u32::from((x >> (8 * i)) as u8);
                    sum.wrapping_add(byte(a) * byte(b))
                })
            )),
        }),
        _ => None,
    }
}

fn wide(base: &str, ty: &str) -> Option<Alu> {
    Some(match (base, ty) {
        ("mul", "u16") => lanes!(|a, b, c| (a & 0xffff) * (b & 0xffff)),
        ("mul", "s16") => lanes!(|a, b, c| bits!(u32, i32::from(a as i16) * i32::from(b as i16))),
        ("mul", "u32") => lanes!(|a, b, c| (a & 0xffff_ffff) * (b & 0xffff_ffff)),
        ("mul", "s32") => lanes!(|a, b, c| (i64::from(a as i32) * i64::from(b as i32)) as u64),
        ("mad", "u16") => {
            lanes!(|a, b, c| bits!(u32, ((a & 0xffff) * (b & 0xffff)).wrapping_add(c)))
        }
        ("mad", "s16") => lanes!(|a, b, c| {
            bits!(u32, (i32::from(a as i16) * i32::from(b as i16)).wrapping_add(c as i32))
        }),
        ("mad", "u32") => {
            lanes!(|a, b, c| ((a & 0xffff_ffff) * (b & 0xffff_ffff)).wrapping_add(c))
        }
        ("mad", "s32") => {
            lanes!(
                |a, b, c| (i64::from(a as i32) * i64::from(b as i32)).wrapping_add(c as i64) as u64
            )
        }
        _ => return None,
    })
}

fn high(base: &str, ty: &str) -> Option<Alu> {
    Some(match (base, ty) {
        ("mul", "u32") => lanes!(|a, b, c| ((a & 0xffff_ffff) * (b & 0xffff_ffff)) >> 32),
        ("mul", "s32") => {
            lanes!(|a, b, c| bits!(u32, (i64::from(a as i32) * i64::from(b as i32)) >> 32))
        }
        ("mad", "u32") => lanes!(|a, b, c| {
            bits!(u32, (((a & 0xffff_ffff) * (b & 0xffff_ffff)) >> 32).wrapping_add(c))
        }),
        ("mul", "u64") => lanes!(|a, b, c| ((u128::from(a) * u128::from(b)) >> 64) as u64),
        ("mul", "s64") => {
            lanes!(|a, b, c| ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64)
        }
        _ => return None,
    })
}

/// `lop3`: bit by bit, the entry of `table` that the bits of `a`, `b`, `c` select.
pub(crate) fn lop3(table: u8, a: u64, b: u64, c: u64) -> u64 {
    let (a, b, c) = (a as u32, b as u32, c as u32);
    let mut x = 0;
    for i in 0..8 {
        if table >> i & 1 != 0 {
            let pick = |bits: u32, on: bool| if on { bits } else { !bits };
            x |= pick(a, i & 4 != 0) & pick(b, i & 2 != 0) & pick(c, i & 1 != 0);
        }
    }
    u64::from(x)
}

/// `bfi`: `len` bits of `a` put into `b` from bit `at`.
pub(crate) fn bfi(bits: u32, a: u64, b: u64, at: u64, len: u64) -> u64 {
    let (at, len) = (at as u32 & 0xff, (len as u32 & 0xff).min(bits));
    if len == 0 || at >= bits {
        return b & (u64::MAX >> (64 - bits));
    }
    let field = (u64::MAX >> (64 - len)) << at;
    (b & !field | a << at & field) & (u64::MAX >> (64 - bits))
}

/// `shf`: a funnel shift of `b:a`; `wrap` takes the amount modulo 32, otherwise it stops at 32.
pub(crate) fn shf(left: bool, wrap: bool, a: u64, b: u64, amount: u64) -> u64 {
    let by = if wrap { amount & 31 } else { (amount & 0xffff_ffff).min(32) };
    let both = a & 0xffff_ffff | b << 32;
    if left { both << by >> 32 } else { both >> by & 0xffff_ffff }
}

macro_rules! compare {
    (|$a:ident, $b:ident| $body:expr) => {{
        fn all_lanes(a: &Lanes, b: &Lanes) -> u32 {
            let mut mask = 0;
            for i in 0..32 {
                let ($a, $b) = (a[i], b[i]);
                mask |= u32::from($body) << i;
            }
            mask
        }
        all_lanes
    }};
}

/// The comparison `op` of two values of type `ty`.
pub(crate) fn comparison(op: &str, ty: &str) -> Option<Compare> {
    macro_rules! of_floats {
        ($g:ident) => {
            match op {
                "eq" => Some(compare!(|a, b| $g(a) == $g(b))),
                "ne" => Some(compare!(|a, b| $g(a) < $g(b) || $g(a) > $g(b))),
                "lt" => Some(compare!(|a, b| $g(a) < $g(b))),
                "le" => Some(compare!(|a, b| $g(a) <= $g(b))),
                "gt" => Some(compare!(|a, b| $g(a) > $g(b))),
                "ge" => Some(compare!(|a, b| $g(a) >= $g(b))),
                "equ" => Some(compare!(|a, b| !($g(a) < $g(b) || $g(a) > $g(b)))),
                "neu" => Some(compare!(|a, b| $g(a) != $g(b))),
                "ltu" => Some(compare!(|a, b| !($g(a) >= $g(b)))),
                "leu" => Some(compare!(|a, b| !($g(a) > $g(b)))),
                "gtu" => Some(compare!(|a, b| !($g(a) <= $g(b)))),
                "geu" => Some(compare!(|a, b| !($g(a) < $g(b)))),
                "num" => Some(compare!(|a, b| !$g(a).is_nan() && !$g(b).is_nan())),
                "nan" => Some(compare!(|a, b| $g(a).is_nan() || $g(b).is_nan())),
                _ => None,
            }
        };
    }
    fn h(x: u64) -> f32 {
        f16::from_bits(x as u16).to_f32()
    }
    fn g(x: u64) -> f32 {
        bf16::from_bits(x as u16).to_f32()
    }
    match ty {
        "f32" => of_floats!(f),
        "f64" => of_floats!(d),
        "f16" => of_floats!(h),
        "bf16" => of_floats!(g),
        _ => match op {
            "eq" => on_integer!(ty, T => compare!(|a, b| a as T == b as T)),
            "ne" => on_integer!(ty, T => compare!(|a, b| a as T != b as T)),
            "lt" | "lo" => on_integer!(ty, T => compare!(|a, b| (a as T) < b as T)),
            "le" | "ls" => on_integer!(ty, T => compare!(|a, b| a as T <= b as T)),
            "gt" | "hi" => on_integer!(ty, T => compare!(|a, b| a as T > b as T)),
            "ge" | "hs" => on_integer!(ty, T => compare!(|a, b| a as T >= b as T)),
            _ => None,
        },
    }
}
