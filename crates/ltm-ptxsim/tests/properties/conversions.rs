//! Conversions with every rounding and saturation, against a search among all numbers of the target.

use half::{bf16, f16};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::floats::{f, singles};
use crate::{check, words};

/// A floating-point target: the number of each of its positive codes, which rise with it.
struct Target {
    name: &'static str,
    bits: u32,
    /// Bits of a code that are not the sign.
    code_bits: u32,
    value: fn(u32) -> f64,
    /// How far a code is shifted in its register.
    shift: u32,
}

/// An infinity counts as the number that would follow the greatest.
fn or_next(value: f64, next: f64) -> f64 {
    if value.is_infinite() { next } else { value }
}

const F16: Target = Target {
    name: "f16",
    bits: 16,
    code_bits: 15,
    value: |code| or_next(f16::from_bits(code as u16).to_f64(), 65536.0),
    shift: 0,
};
const BF16: Target = Target {
    name: "bf16",
    bits: 16,
    code_bits: 15,
    value: |code| or_next(bf16::from_bits(code as u16).to_f64(), 2f64.powi(128)),
    shift: 0,
};
const TF32: Target = Target {
    name: "tf32",
    bits: 32,
    code_bits: 18,
    value: |code| or_next(f32::from_bits(code << 13).into(), 2f64.powi(128)),
    shift: 13,
};
const F32: Target = Target {
    name: "f32",
    bits: 32,
    code_bits: 31,
    value: |code| or_next(f32::from_bits(code).into(), 2f64.powi(128)),
    shift: 0,
};

impl Target {
    /// The bits of `x` rounded, by halving the range of codes.
    fn rounded(&self, x: f64, rounding: &str) -> u64 {
        let infinity = match self.name {
            "f16" => 0x7c00,
            "bf16" => 0x7f80,
            "tf32" => 0x7f80_0000 >> 13,
            _ => 0x7f80_0000,
        };
        let sign = u64::from(x.is_sign_negative()) << (self.bits - 1);
        let size = x.abs();
        let (mut below, mut above) = (0u32, infinity);
        while above - below > 1 {
            let middle = below.midpoint(above);
            if (self.value)(middle) <= size { below = middle } else { above = middle }
        }
        let (low, high) = ((self.value)(below), (self.value)(above));
        assert!(self.code_bits < 32 && infinity >> self.code_bits == 0);
        let code = match rounding {
            _ if size == f64::INFINITY => infinity,
            _ if size == low => below,
            // From the greatest number on, only a direction away from it overflows.
            "rz" => below,
            "rm" => {
                if x < 0.0 {
                    above
                } else {
                    below
                }
            }
            "rp" => {
                if x < 0.0 {
                    below
                } else {
                    above
                }
            }
            _ => match (size - low).partial_cmp(&(high - size)).expect("numbers") {
                std::cmp::Ordering::Less => below,
                std::cmp::Ordering::Greater => above,
                std::cmp::Ordering::Equal if rounding == "rna" => above,
                std::cmp::Ordering::Equal => below + (below & 1),
            },
        };
        sign | u64::from(code) << self.shift
    }

    /// The same, or the NaN that hardware makes.
    fn of(&self, x: f64, rounding: &str) -> u64 {
        match self.bits {
            _ if !x.is_nan() => self.rounded(x, rounding),
            16 => 0x7fff,
            _ => 0x7fff_ffff,
        }
    }
}

const ROUNDINGS: [&str; 4] = ["rn", "rz", "rm", "rp"];

fn unit(x: f64) -> f64 {
    if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) + 0.0 }
}

fn relu(x: f64) -> f64 {
    if x < 0.0 { 0.0 } else { x }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn single_precision_to_narrower(x in singles()) {
        let wide = |x: u64| f64::from(f(x));
        for target in [&F16, &BF16] {
            let name = target.name;
            for rounding in ROUNDINGS {
                check(&format!("cvt.{rounding}.{name}.f32"), (16, [32; 3]), 1, "", &x, |[a, ..]| {
                    target.of(wide(a), rounding)
                });
                check(&format!("cvt.{rounding}.relu.{name}.f32"), (16, [32; 3]), 1, "", &x, |x| {
                    target.of(relu(wide(x[0])), rounding)
                });
                let op = format!("cvt.{rounding}.{name}x2.f32");
                check(&op, (32, [32; 3]), 2, "", &x, |[a, b, _]| {
                    target.of(wide(a), rounding) << 16 | target.of(wide(b), rounding)
                });
            }
        }
        check("cvt.rn.sat.f16.f32", (16, [32; 3]), 1, "", &x, |[a, ..]| {
            F16.of(unit(wide(a)), "rn")
        });
        for rounding in ["rn", "rz", "rna"] {
            check(&format!("cvt.{rounding}.tf32.f32"), (32, [32; 3]), 1, "", &x, |[a, ..]| {
                TF32.of(wide(a), rounding)
            });
        }
        check("cvt.rna.satfinite.tf32.f32", (32, [32; 3]), 1, "", &x, |[a, ..]| {
            let most = f64::from(f32::from_bits(0x7f7f_e000));
            TF32.of(wide(a).clamp(-most, most), "rna")
        });
        check("cvt.f64.f32", (64, [32; 3]), 1, "", &x, |[a, ..]| {
            // What a NaN carries along is not compared.
            if wide(a).is_nan() { (wide(a) * 1.0).to_bits() } else { wide(a).to_bits() }
        });
    }

    #[test]
    fn to_single_precision(x in vec([double(), double(), double()], 32)) {
        for rounding in ROUNDINGS {
            let nan = "; setp.nan.f32 %p1, %r7, %r7; @%p1 mov.b32 %r7, 0x7fffffff; mov.b32 %r7, %r7";
            check(&format!("cvt.{rounding}.f32.f64"), (32, [64; 3]), 1, nan, &x, |[a, ..]| {
                F32.of(f64::from_bits(a), rounding)
            });
            check(&format!("cvt.{rounding}.sat.f32.f64"), (32, [64; 3]), 1, "", &x, |[a, ..]| {
                F32.of(unit(f64::from_bits(a)), rounding)
            });
        }
    }

    #[test]
    fn between_integers(x in words()) {
        for to in INTEGERS {
            for from in INTEGERS {
                let form = (to.1.max(16), [from.1.max(16); 3]);
                let name = format!("{}.{}", to.0, from.0);
                check(&format!("cvt.{name}"), form, 1, "", &x, |[a, ..]| {
                    // A signed result fills its register.
                    number(to, number(from, a.into()) as u64 as i128) as u64
                });
                check(&format!("cvt.sat.{name}"), form, 1, "", &x, |[a, ..]| {
                    number(from, a.into()).clamp(ends(to).0, ends(to).1) as u64
                });
            }
        }
    }

    #[test]
    fn from_integers(x in words()) {
        for from in INTEGERS {
            let of = |a: u64| number(from, a.into());
            for rounding in ROUNDINGS {
                let form = |to| (to, [from.1.max(16); 3]);
                let op = |to| format!("cvt.{rounding}.{to}.{}", from.0);
                check(&op("f32"), form(32), 1, "", &x, |[a, ..]| {
                    let near = of(a) as f32;
                    directed(near as i128, of(a), rounding, [near, near.next_down(), near.next_up()])
                        .to_bits().into()
                });
                check(&op("f64"), form(64), 1, "", &x, |[a, ..]| {
                    let near = of(a) as f64;
                    directed(near as i128, of(a), rounding, [near, near.next_down(), near.next_up()])
                        .to_bits()
                });
                if from.1 < 64 {
                    check(&op("f16"), form(16), 1, "", &x, |[a, ..]| F16.of(of(a) as f64, rounding));
                }
            }
        }
    }

    #[test]
    fn to_integers(x in singles(), y in vec([double(), double(), double()], 32)) {
        type Whole = fn(f64) -> f64;
        let roundings: [(&str, Whole); 4] = [
            ("rni", f64::round_ties_even), ("rzi", f64::trunc),
            ("rmi", f64::floor), ("rpi", f64::ceil),
        ];
        for to in INTEGERS {
            for (rounding, whole) in roundings {
                // A float stops at the ends whether asked to or not, and NaN becomes 0.
                let of = |x: f64| (whole(x) as i128).clamp(ends(to).0, ends(to).1) as u64;
                let bits = to.1.max(16);
                for sat in ["", ".sat"] {
                    check(&format!("cvt.{rounding}{sat}.{}.f32", to.0), (bits, [32; 3]), 1, "", &x,
                        |[a, ..]| of(f(a).into()));
                    check(&format!("cvt.{rounding}{sat}.{}.f64", to.0), (bits, [64; 3]), 1, "", &y,
                        |[a, ..]| of(f64::from_bits(a)));
                }
                check(&format!("cvt.{rounding}.{}.f16", to.0), (bits, [16; 3]), 1, "", &x,
                    |[a, ..]| of(f16::from_bits(a as u16).to_f64()));
            }
        }
        for (rounding, whole) in roundings {
            let nan = "; setp.nan.f32 %p1, %r7, %r7; @%p1 mov.b32 %r7, 0x7fffffff; mov.b32 %r7, %r7";
            check(&format!("cvt.{rounding}.f32.f32"), (32, [32; 3]), 1, nan, &x, |[a, ..]| {
                F32.of(whole(f(a).into()), "rn")
            });
            check(&format!("cvt.{rounding}.f16.f16"), (16, [16; 3]), 1, "", &x, |[a, ..]| {
                F16.of(whole(f16::from_bits(a as u16).to_f64()), "rn")
            });
        }
    }
}

/// Integer types of every width.
const INTEGERS: [(&str, u32, bool); 8] = [
    ("u8", 8, false),
    ("s8", 8, true),
    ("u16", 16, false),
    ("s16", 16, true),
    ("u32", 32, false),
    ("s32", 32, true),
    ("u64", 64, false),
    ("s64", 64, true),
];

/// The number that the low bits of `x` are.
fn number((_, bits, signed): (&str, u32, bool), x: i128) -> i128 {
    let cut = x & ((1 << bits) - 1);
    if signed && cut >> (bits - 1) != 0 { cut - (1 << bits) } else { cut }
}

/// The least and the greatest number of a type.
fn ends((_, bits, signed): (&str, u32, bool)) -> (i128, i128) {
    if signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

/// The one of `[near, down, up]` that is next to `x` in a direction, where `near` is `at`.
fn directed<T>(at: i128, x: i128, rounding: &str, [near, down, up]: [T; 3]) -> T {
    match rounding {
        "rm" if at > x => down,
        "rp" if at < x => up,
        "rz" if at > x && x > 0 => down,
        "rz" if at < x && x < 0 => up,
        _ => near,
    }
}

/// Bits of a double: any, one that single precision can nearly hold, or one just between two such.
fn double() -> impl Strategy<Value = u64> {
    let near = (any::<u32>(), any::<bool>(), -1i64..2).prop_map(|(x, tie, off)| {
        let bits = f64::from(f32::from_bits(x)).to_bits();
        (bits | u64::from(tie) << 28).wrapping_add_signed(off)
    });
    prop_oneof![1 => any::<u64>(), 3 => near, 1 => (-300.0..300.0f64).prop_map(f64::to_bits)]
}
