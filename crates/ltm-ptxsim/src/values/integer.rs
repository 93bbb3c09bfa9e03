//! Integer arithmetic on lanes. Knows values; must not know where they come from.

use super::lanes::{Alu, lanes, on_integer, sign_extend};

/// Truncates a value to the bits of type `$T`.
macro_rules! bits {
    ($T:ty, $x:expr) => {
        ($x) as $T as u64 & (u64::MAX >> (64 - <$T>::BITS))
    };
}

/// Whether `slct` can select values of this type.
fn slct_type(ty: &str) -> bool {
    matches!(
        ty,
        "b16" | "u16" | "s16" | "b32" | "u32" | "s32" | "b64" | "u64" | "s64" | "f32" | "f64"
    )
}

/// An integer operation; `None` if the opcode or any modifier is unknown.
pub(super) fn find(base: &str, modifiers: &[&str], ty: &str) -> Option<Alu> {
    match (base, modifiers) {
        ("mul" | "mad", ["wide"]) => wide(base, ty),
        ("mul" | "mad", ["hi"]) => high(base, ty),
        ("mul" | "mad", ["lo"]) => integral(base, ty),
        ("bfind", ["shiftamt"]) => integral("bfind.shiftamt", ty),
        ("add" | "sub", ["sat"]) if ty == "s32" => Some(saturated(base)),
        ("mad", ["hi", "sat"]) if ty == "s32" => {
            let alu: Alu = lanes!(|a, b, c| {
                let product = (i64::from(a as i32) * i64::from(b as i32)) >> 32;
                saturate_32(product + i64::from(c as i32))
            });
            Some(alu)
        }
        ("mul24" | "mad24", ["lo" | "hi"] | ["hi", "sat"]) => of_24_bits(base, modifiers, ty),
        ("slct", [result]) if slct_type(result) && ty == "s32" => {
            let alu: Alu = lanes!(|a, b, c| if c as i32 >= 0 { a } else { b });
            Some(alu)
        }
        ("sad", []) => integral("sad", ty),
        ("dp4a", [left]) => dot(left, ty),
        (_, []) => integral(base, ty),
        _ => None,
    }
}

fn saturate_32(x: i64) -> u64 {
    let x = x.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
    u64::from(x.cast_unsigned())
}

fn saturated(base: &str) -> Alu {
    if base == "add" {
        lanes!(|a, b, c| saturate_32(i64::from(a as i32) + i64::from(b as i32)))
    } else {
        lanes!(|a, b, c| saturate_32(i64::from(a as i32) - i64::from(b as i32)))
    }
}

/// 24-bit multiplication: the low 32 bits of the 48-bit product, or its high 32.
fn of_24_bits(base: &str, modifiers: &[&str], ty: &str) -> Option<Alu> {
    fn signed(x: u64) -> i64 {
        (x << 40) as i64 >> 40
    }
    fn unsigned(x: u64) -> i64 {
        (x & 0xff_ffff) as i64
    }
    macro_rules! of {
        ($of:ident, $shift:expr) => {
            match base {
                "mul24" => lanes!(|a, b, c| bits!(u32, ($of(a) * $of(b)) >> $shift)),
                _ => lanes!(|a, b, c| bits!(
                    u32,
                    (($of(a) * $of(b)) >> $shift).wrapping_add(c as i64)
                )),
            }
        };
    }
    Some(match (modifiers, ty) {
        (["lo"], "s32") => of!(signed, 0),
        (["hi"], "s32") => of!(signed, 16),
        (["lo"], "u32") => of!(unsigned, 0),
        (["hi"], "u32") => of!(unsigned, 16),
        (["hi", "sat"], "s32") if base == "mad24" => {
            lanes!(|a, b, c| saturate_32(((signed(a) * signed(b)) >> 16) + i64::from(c as i32)))
        }
        _ => return None,
    })
}

fn integral(base: &str, ty: &str) -> Option<Alu> {
    match base {
        "sad" => on_integer!(ty, T => lanes!(|a, b, c| {
            let difference = (a as T).max(b as T).wrapping_sub((a as T).min(b as T));
            bits!(T, difference.wrapping_add(c as T))
        })),
        "add" => on_integer!(ty, T => lanes!(|a, b, c| bits!(T, (a as T).wrapping_add(b as T)))),
        "sub" => on_integer!(ty, T => lanes!(|a, b, c| bits!(T, (a as T).wrapping_sub(b as T)))),
        "mul" => on_integer!(ty, T => lanes!(|a, b, c| bits!(T, (a as T).wrapping_mul(b as T)))),
        "mad" => on_integer!(ty, T => lanes!(|a, b, c| {
            bits!(T, (a as T).wrapping_mul(b as T).wrapping_add(c as T))
        })),
        // Division by 0: the values that hardware returns.
        "div" => on_integer!(ty, T => lanes!(|a, b, c| {
            bits!(T, if b as T == 0 { !0 } else { (a as T).wrapping_div(b as T) })
        })),
        "rem" => on_integer!(ty, T => lanes!(|a, b, c| {
            bits!(T, if b as T == 0 { a as T } else { (a as T).wrapping_rem(b as T) })
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
        // A shift by the width or more leaves only sign bits, or 0 for unsigned.
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
            // A signed field is sign-extended.
            let negative = T::MIN != 0 && len > 0 && len < T::BITS && x >> (len - 1) & 1 != 0;
            bits!(T, if negative { x | (!0 as T) << len } else { x })
        })),
        // The left shift that moves the highest bit to the top, instead of its index.
        "bfind.shiftamt" => on_integer!(ty, T => lanes!(|a, b, c| {
            let x = if T::MIN != 0 && (a as T) >> (T::BITS - 1) != 0 { !(a as T) } else { a as T };
            if x == 0 { 0xffff_ffff } else { u64::from(x.leading_zeros()) }
        })),
        "bfind" => on_integer!(ty, T => lanes!(|a, b, c| {
            let x = if T::MIN != 0 && (a as T) >> (T::BITS - 1) != 0 { !(a as T) } else { a as T };
            if x == 0 { 0xffff_ffff } else { u64::from(T::BITS - 1 - x.leading_zeros()) }
        })),
        "prmt" if ty == "b32" => Some(lanes!(|a, b, c| {
            let bytes = a & 0xffff_ffff | b << 32;
            (0..4).fold(0, |x, i| {
                let selector = c >> (4 * i) & 15;
                let byte = bytes >> (8 * (selector & 7)) & 0xff;
                let byte =
                    if selector & 8 != 0 { if byte & 0x80 != 0 { 0xff } else { 0 } } else { byte };
                x | byte << (8 * i)
            })
        })),
        _ => None,
    }
}

/// `dp4a`: the sum of four byte products, each factor signed or unsigned, plus `c`.
fn dot(left: &str, right: &str) -> Option<Alu> {
    macro_rules! of {
        ($left:ty, $right:ty) => {
            lanes!(|a, b, c| bits!(
                u32,
                (0..4).fold(c as u32, |sum, i| {
                    let (x, y) = ((a >> (8 * i)) as $left, (b >> (8 * i)) as $right);
                    sum.wrapping_add((i32::from(x) * i32::from(y)) as u32)
                })
            ))
        };
    }
    Some(match (left, right) {
        ("s32", "s32") => of!(i8, i8),
        ("s32", "u32") => of!(i8, u8),
        ("u32", "s32") => of!(u8, i8),
        ("u32", "u32") => of!(u8, u8),
        _ => return None,
    })
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
    // `mad.hi` adds `c` to the upper half of the product.
    macro_rules! of {
        ($T:ty, $wide:ty) => {{
            let product: Alu =
                lanes!(|a, b, c| bits!($T, (a as $T as $wide * b as $T as $wide) >> <$T>::BITS));
            let sum: Alu = lanes!(|a, b, c| {
                let product = (a as $T as $wide * b as $T as $wide) >> <$T>::BITS;
                bits!($T, (product as $T).wrapping_add(c as $T))
            });
            Some(if base == "mad" { sum } else { product })
        }};
    }
    match ty {
        "u16" => of!(u16, u32),
        "s16" => of!(i16, i32),
        "u32" => of!(u32, u64),
        "s32" => of!(i32, i64),
        "u64" => of!(u64, u128),
        "s64" => of!(i64, i128),
        _ => None,
    }
}

/// The sum that an instruction with carry in or out computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carried {
    Add,
    /// `a` plus the complement of `b`. The carry is 1 if nothing is borrowed, as in hardware, where
    /// an `addc` after `sub.cc` can observe it.
    Sub,
    /// `c` plus the lower half of the product.
    MadLow,
    /// `c` plus the upper half of the product.
    MadHigh,
}

/// Computes one lane: the result and the carry out. `carry` is the carry in, if the instruction has
/// one.
pub(crate) fn carry(
    kind: Carried,
    (bits, signed): (u32, bool),
    [a, b, c]: [u64; 3],
    carry: Option<bool>,
) -> (u64, bool) {
    let all = u64::MAX >> (64 - bits);
    let of = |x: u64| {
        if signed { i128::from(sign_extend(x, bits) as i64) } else { i128::from(x & all) }
    };
    // Only the low 128 bits matter, so the product of unsigned numbers may wrap.
    let product = || of(a).wrapping_mul(of(b));
    let (x, y) = match kind {
        Carried::Add => (a & all, b & all),
        Carried::Sub => (a & all, !b & all),
        Carried::MadLow => (product() as u64 & all, c & all),
        Carried::MadHigh => ((product() >> bits) as u64 & all, c & all),
    };
    let carry = carry.unwrap_or(kind == Carried::Sub);
    let sum = u128::from(x) + u128::from(y) + u128::from(carry);
    (sum as u64 & all, sum >> bits & 1 != 0)
}

/// `lop3`: a bitwise function of three inputs, given by its truth table.
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

/// `bfi`: inserts the low `len` bits of `a` into `b` at bit `at`.
pub(crate) fn bfi(bits: u32, a: u64, b: u64, at: u64, len: u64) -> u64 {
    let (at, len) = (at as u32 & 0xff, (len as u32 & 0xff).min(bits));
    if len == 0 || at >= bits {
        return b & (u64::MAX >> (64 - bits));
    }
    let field = (u64::MAX >> (64 - len)) << at;
    (b & !field | a << at & field) & (u64::MAX >> (64 - bits))
}

/// `shf`: funnel shift of `b:a`. `wrap` takes the amount modulo 32; otherwise it is clamped to 32.
pub(crate) fn shf(left: bool, wrap: bool, a: u64, b: u64, amount: u64) -> u64 {
    let by = if wrap { amount & 31 } else { (amount & 0xffff_ffff).min(32) };
    let both = a & 0xffff_ffff | b << 32;
    if left { both << by >> 32 } else { both >> by & 0xffff_ffff }
}
