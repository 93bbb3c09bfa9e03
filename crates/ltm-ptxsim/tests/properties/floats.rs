//! Floating-point arithmetic, against the host's own and against exact sums of whole numbers.

use half::{bf16, f16};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::{Operands, check};

/// Bits of a single-precision number: any, one with few bits set near 1, or a special one. Sums and
/// products of the second kind are often just between two numbers.
pub fn single() -> impl Strategy<Value = u64> {
    let few = (any::<bool>(), 96u32..160, 0u32..24, 0u32..24, any::<bool>());
    let specials = [0.0, 1.0, f32::MAX, f32::MIN_POSITIVE, f32::INFINITY, f32::NAN, 1e-45, 0.5];
    prop_oneof![
        2 => any::<u32>().prop_map(u64::from),
        4 => few.prop_map(|(sign, exponent, i, j, all)| {
            let fraction = 1u32 << i | 1 << j;
            let fraction = if all { fraction.wrapping_neg() } else { fraction } & 0x7f_ffff;
            u64::from(u32::from(sign) << 31 | exponent << 23 | fraction)
        }),
        1 => (prop::sample::select(specials.to_vec()), any::<bool>())
            .prop_map(|(x, negative)| u64::from(if negative { -x } else { x }.to_bits())),
    ]
}

pub fn singles() -> impl Strategy<Value = Operands> {
    vec([single(), single(), single()], 32)
}

pub fn f(x: u64) -> f32 {
    f32::from_bits(x as u32)
}

/// Expects `expected`, or any NaN where that is one.
fn check_f32(op: &str, n: usize, x: &[[u64; 3]], expected: impl Fn(f32, f32, f32) -> f32) {
    // A NaN leaves as one of all ones.
    let nan = "setp.nan.f32 %p1, %r7, %r7; @%p1 mov.b32 %r7, -1; mov.b32 %r7, %r7";
    check(op, (32, [32; 3]), n, &format!("; {nan}"), x, |[a, b, c]| {
        let y = expected(f(a), f(b), f(c));
        if y.is_nan() { u64::MAX } else { u64::from(y.to_bits()) }
    });
}

/// The number next to the exact `a * b + c` in a direction, from its nearest one.
fn directed(nearest: f32, [a, b, c]: [f32; 3], direction: &str) -> f32 {
    let product = f64::from(a) * f64::from(b);
    let (c, r) = (f64::from(c), f64::from(nearest));
    let s = product + c;
    if !s.is_finite() || s == 0.0 {
        return nearest;
    }
    let of_c = s - product;
    // What the nearest number lacks; a double holds both terms.
    let lacks = (s - r) + ((product - (s - of_c)) + (c - of_c));
    let (above, below) = (lacks < 0.0, lacks > 0.0);
    match direction {
        "rm" if above => nearest.next_down(),
        "rp" if below => nearest.next_up(),
        "rz" if above && s > 0.0 => nearest.next_down(),
        "rz" if below && s < 0.0 => nearest.next_up(),
        _ => nearest,
    }
}

fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn single_precision(x in singles()) {
        check_f32("add.f32", 2, &x, |a, b, _| a + b);
        check_f32("sub.rn.f32", 2, &x, |a, b, _| a - b);
        check_f32("mul.f32", 2, &x, |a, b, _| a * b);
        check_f32("fma.rn.f32", 3, &x, |a, b, c| a.mul_add(b, c));
        check_f32("div.rn.f32", 2, &x, |a, b, _| a / b);
        check_f32("sqrt.rn.f32", 1, &x, |a, _, _| a.sqrt());
        check_f32("rcp.rn.f32", 1, &x, |a, _, _| 1.0 / a);
        check_f32("neg.f32", 1, &x, |a, _, _| -a);
        check_f32("abs.f32", 1, &x, |a, _, _| a.abs());
        check_f32("copysign.f32", 2, &x, |a, b, _| b.copysign(a));
        check_f32("fma.rn.ftz.f32", 3, &x, |a, b, c| {
            flush(flush(a).mul_add(flush(b), flush(c)))
        });
        check_f32("add.ftz.f32", 2, &x, |a, b, _| flush(flush(a) + flush(b)));
        let unit = |x: f32| if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) + 0.0 };
        check_f32("add.sat.f32", 2, &x, |a, b, _| unit(a + b));
        check_f32("mul.sat.f32", 2, &x, |a, b, _| unit(a * b));
        check_f32("fma.rn.sat.f32", 3, &x, |a, b, c| unit(a.mul_add(b, c)));
    }

    #[test]
    fn directed_roundings(x in singles()) {
        for direction in ["rz", "rm", "rp"] {
            // An exact 0 of opposite terms has the sign of the direction.
            let zero = |r: f32, opposite: bool| {
                if r == 0.0 && opposite && direction == "rm" { -0.0 } else { r }
            };
            check_f32(&format!("add.{direction}.f32"), 2, &x, |a, b, _| {
                zero(directed(a + b, [a, 1.0, b], direction), a == -b && a.signum() != b.signum())
            });
            check_f32(&format!("sub.{direction}.f32"), 2, &x, |a, b, _| {
                zero(directed(a - b, [a, 1.0, -b], direction), a == b && a.signum() == b.signum())
            });
            check_f32(&format!("mul.{direction}.f32"), 2, &x, |a, b, _| {
                let nearest = a * b;
                directed(nearest, [a, b, 0.0f32.copysign(nearest)], direction)
            });
            check_f32(&format!("fma.{direction}.f32"), 3, &x, |a, b, c| {
                let (product, nearest) = (f64::from(a) * f64::from(b), a.mul_add(b, c));
                let opposite = product == -f64::from(c)
                    && product.is_sign_negative() != c.is_sign_negative();
                zero(directed(nearest, [a, b, c], direction), opposite)
            });
        }
    }

    #[test]
    fn the_lesser_and_the_greater(x in singles()) {
        let order = |a: f32, b: f32| a.total_cmp(&b);
        let min = |a: f32, b: f32| match (a.is_nan(), b.is_nan()) {
            (true, _) => b,
            (_, true) => a,
            _ => if order(a, b).is_le() { a } else { b },
        };
        let max = |a: f32, b: f32| -min(-a, -b);
        let nan = |a: f32, b: f32, y: f32| if a.is_nan() || b.is_nan() { f32::NAN } else { y };
        check_f32("min.f32", 2, &x, |a, b, _| min(a, b));
        check_f32("max.f32", 2, &x, |a, b, _| max(a, b));
        check_f32("min.NaN.f32", 2, &x, |a, b, _| nan(a, b, min(a, b)));
        check_f32("max.NaN.f32", 2, &x, |a, b, _| nan(a, b, max(a, b)));
        type Holds = fn(&f32, &f32) -> bool;
        let comparisons: [(&str, Holds); 6] = [
            ("eq", f32::eq), ("ne", f32::ne), ("lt", f32::lt),
            ("le", f32::le), ("gt", f32::gt), ("ge", f32::ge),
        ];
        for (name, holds) in comparisons {
            for unordered in [false, true] {
                let suffix = if unordered { "u" } else { "" };
                let op = format!(
                    "setp.{name}{suffix}.f32 %p1, %r1, %r2; selp.b32 %r8, 1, 0, %p1; or.b32"
                );
                check(&op, (32, [32; 3]), 0, "%r8, 0", &x, |[a, b, _]| {
                    let (a, b) = (f(a), f(b));
                    u64::from(if a.is_nan() || b.is_nan() { unordered } else { holds(&a, &b) })
                });
            }
        }
    }

    #[test]
    fn double_precision(x in vec([crate::word(), crate::word(), crate::word()], 32)) {
        let d = f64::from_bits;
        let nan = "; setp.nan.f64 %p1, %rd7, %rd7; @%p1 mov.b64 %rd7, -1; mov.b64 %rd7, %rd7";
        let check = |op: &str, n: usize, expected: &dyn Fn(f64, f64, f64) -> f64| {
            check(op, (64, [64; 3]), n, nan, &x, |[a, b, c]| {
                let y = expected(d(a), d(b), d(c));
                if y.is_nan() { u64::MAX } else { y.to_bits() }
            });
        };
        check("add.f64", 2, &|a, b, _| a + b);
        check("sub.f64", 2, &|a, b, _| a - b);
        check("mul.f64", 2, &|a, b, _| a * b);
        check("fma.rn.f64", 3, &|a, b, c| a.mul_add(b, c));
        check("div.rn.f64", 2, &|a, b, _| a / b);
        check("sqrt.rn.f64", 1, &|a, _, _| a.sqrt());
    }
}

/// A 16-bit number of moderate size, so that sums of products are whole multiples of 2^-60; often
/// one with few bits set, so that a sum is just beside the middle of two numbers.
fn sixteen(least: u16, exponents: u16, fraction_bits: u32) -> impl Strategy<Value = u64> {
    let fraction = prop_oneof![
        any::<u16>(),
        (0..fraction_bits).prop_map(|i| 1 << i),
        prop::sample::select(vec![0, 1, u16::MAX, u16::MAX - 1]),
    ];
    (any::<bool>(), least..least + exponents, fraction).prop_map(
        move |(sign, exponent, fraction)| {
            let fraction = fraction & ((1 << fraction_bits) - 1);
            u64::from(u16::from(sign) << 15 | exponent << fraction_bits | fraction)
        },
    )
}

/// Two of them in a register.
fn pairs(least: u16, exponents: u16, fraction_bits: u32) -> impl Strategy<Value = Operands> {
    let half = || sixteen(least, exponents, fraction_bits);
    let both = || (half(), half()).prop_map(|(low, high)| low | high << 16);
    vec([both(), both(), both()], 32)
}

/// A 16-bit type: its name, its values as multiples of 2^-60, and a number near a double.
struct Type {
    name: &'static str,
    value: fn(u64) -> i128,
    near: fn(f64) -> u16,
}

/// A double that is a multiple of 2^-60.
fn multiple(x: f64) -> i128 {
    let scaled = x * 2f64.powi(60);
    assert_eq!(scaled, scaled.trunc(), "{x} is a multiple of 2^-60");
    scaled as i128
}

impl Type {
    /// The nearest number to a multiple of 2^-60, found among those around it.
    fn nearest(&self, exact: i128, zero_is_negative: bool) -> u64 {
        if exact == 0 {
            return u64::from(zero_is_negative) << 15;
        }
        let size = exact.unsigned_abs() as i128;
        let start = (self.near)(size as f64 / 2f64.powi(60));
        let codes = start.saturating_sub(2)..=start + 2;
        let distance = |code: u16| ((self.value)(code.into()) - size).abs();
        let best = codes.min_by_key(|code| (distance(*code), code & 1)).expect("five codes");
        u64::from(best) | u64::from(exact < 0) << 15
    }

    fn check(&self, op: &str, n: usize, x: &[[u64; 3]], g: impl Fn([i128; 3]) -> i128) {
        let one = |operands: [u64; 3]| {
            let [a, b, c] = operands.map(|x| x & 0xffff);
            let exact = g([a, b, c].map(self.value));
            // No operand is 0: a sum is -0 nowhere, and no product vanishes.
            self.nearest(exact, false)
        };
        let both = |x: [u64; 3]| one(x) | one(x.map(|x| x >> 16)) << 16;
        check(&format!("{op}.{}x2", self.name), (32, [32; 3]), n, "", x, both);
        check(&format!("{op}.{}", self.name), (16, [16; 3]), n, "", x, one);
    }
}

/// A product of two multiples of 2^-60, which is one too.
fn product(a: i128, b: i128) -> i128 {
    // Both are multiples of 2^-30.
    (a >> 30) * (b >> 30)
}

const F16: Type = Type {
    name: "f16",
    value: |x| multiple(f16::from_bits(x as u16).to_f64()),
    near: |x| f16::from_f64(x).to_bits(),
};

const BF16: Type = Type {
    name: "bf16",
    value: |x| multiple(bf16::from_bits(x as u16).to_f64()),
    near: |x| bf16::from_f64(x).to_bits(),
};

fn check_type(ty: &Type, x: &[[u64; 3]]) {
    ty.check("add", 2, x, |[a, b, _]| a + b);
    ty.check("sub", 2, x, |[a, b, _]| a - b);
    ty.check("mul", 2, x, |[a, b, _]| product(a, b));
    ty.check("fma.rn", 3, x, |[a, b, c]| product(a, b) + c);
    ty.check("fma.rn.relu", 3, x, |[a, b, c]| (product(a, b) + c).max(0));
    ty.check("min", 2, x, |[a, b, _]| a.min(b));
    ty.check("max", 2, x, |[a, b, _]| a.max(b));
    ty.check("neg", 1, x, |[a, ..]| -a);
    ty.check("abs", 1, x, |[a, ..]| a.abs());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn half_precision(x in pairs(1, 20, 10)) {
        check_type(&F16, &x);
    }

    #[test]
    fn brain_floats(x in pairs(127 - 22, 44, 7)) {
        check_type(&BF16, &x);
    }
}

#[test]
fn sixteen_bit_numbers_that_are_special() {
    // NaN beside 1: dropped by min and max, kept by their `.NaN` and by everything else.
    for (ty, nan, one, infinity) in
        [("f16", 0x7e01u64, 0x3c00u64, 0x7c00u64), ("bf16", 0x7fc1, 0x3f80, 0x7f80)]
    {
        let check = |op: &str, x: [u64; 3], expected: u64| {
            check(&format!("{op}.{ty}"), (16, [16; 3]), 3, "", &[x; 32], |_| expected);
        };
        check("fma.rn", [nan, one, one], 0x7fff);
        check("fma.rn.relu", [nan, one, one], 0x7fff);
        check("fma.rn.relu", [one | 0x8000, infinity, one], 0);
        check("fma.rn", [infinity, one, infinity], infinity);
        let two = |op: &str, x: [u64; 2], expected: u64| {
            let x = [[x[0], x[1], 0]; 32];
            crate::check(&format!("{op}.{ty}"), (16, [16; 3]), 2, "", &x, |_| expected);
        };
        two("min", [nan, one], one);
        two("max", [one, nan], one);
        two("min.NaN", [nan, one], 0x7fff);
        two("max.NaN", [one, nan], 0x7fff);
        two("min", [0, 0x8000], 0x8000);
        two("max", [0x8000, 0], 0);
        two("add", [infinity, infinity | 0x8000], 0x7fff);
        two("mul", [infinity - 1, infinity - 1], infinity);
    }
}
