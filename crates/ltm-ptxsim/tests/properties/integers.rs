//! Integer arithmetic, against `i128`.

use proptest::prelude::*;

use crate::{check, words};

/// The number that the low bits of a register are.
fn number(bits: u32, signed: bool, x: u64) -> i128 {
    let cut = i128::from(x & u64::MAX >> (64 - bits));
    if signed && cut >> (bits - 1) != 0 { cut - (1 << bits) } else { cut }
}

/// Every integer type, with its bits and whether it is signed.
const TYPES: [(&str, u32, bool); 6] = [
    ("u16", 16, false),
    ("s16", 16, true),
    ("u32", 32, false),
    ("s32", 32, true),
    ("u64", 64, false),
    ("s64", 64, true),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn sums_and_products(x in words()) {
        for (ty, bits, signed) in TYPES {
            let of = |x| number(bits, signed, x);
            let same = (bits, [bits; 3]);
            check(&format!("add.{ty}"), same, 2, "", &x, |[a, b, _]| (of(a) + of(b)) as u64);
            check(&format!("sub.{ty}"), same, 2, "", &x, |[a, b, _]| (of(a) - of(b)) as u64);
            let product = |a, b| of(a).wrapping_mul(of(b));
            check(&format!("mul.lo.{ty}"), same, 2, "", &x, |[a, b, _]| product(a, b) as u64);
            check(&format!("mad.lo.{ty}"), same, 3, "", &x, |[a, b, c]| {
                product(a, b).wrapping_add(of(c)) as u64
            });
            let high = |a, b| if signed { product(a, b) >> bits } else {
                ((of(a) as u128).wrapping_mul(of(b) as u128) >> bits) as i128
            };
            check(&format!("mul.hi.{ty}"), same, 2, "", &x, |[a, b, _]| high(a, b) as u64);
            check(&format!("mad.hi.{ty}"), same, 3, "", &x, |[a, b, c]| {
                (high(a, b) + of(c)) as u64
            });
            if bits < 64 {
                let wide = (2 * bits, [bits, bits, 2 * bits]);
                check(&format!("mul.wide.{ty}"), wide, 2, "", &x, |[a, b, _]| product(a, b) as u64);
                check(&format!("mad.wide.{ty}"), wide, 3, "", &x, |[a, b, c]| {
                    product(a, b).wrapping_add(number(2 * bits, signed, c)) as u64
                });
            }
        }
    }

    #[test]
    fn quotients_and_order(x in words()) {
        // Of a division by 0 the result is not defined.
        let x: Vec<_> = x.into_iter().map(|[a, b, c]| [a, b | 1, c]).collect();
        for (ty, bits, signed) in TYPES {
            let of = |x| number(bits, signed, x);
            let same = (bits, [bits; 3]);
            check(&format!("div.{ty}"), same, 2, "", &x, |[a, b, _]| (of(a) / of(b)) as u64);
            check(&format!("rem.{ty}"), same, 2, "", &x, |[a, b, _]| (of(a) % of(b)) as u64);
            check(&format!("min.{ty}"), same, 2, "", &x, |[a, b, _]| of(a).min(of(b)) as u64);
            check(&format!("max.{ty}"), same, 2, "", &x, |[a, b, _]| of(a).max(of(b)) as u64);
            if signed {
                check(&format!("neg.{ty}"), same, 1, "", &x, |[a, ..]| -of(a) as u64);
                check(&format!("abs.{ty}"), same, 1, "", &x, |[a, ..]| of(a).unsigned_abs() as u64);
            }
            type Holds = fn(&i128, &i128) -> bool;
            let comparisons: [(&str, Holds); 6] = [
                ("eq", i128::eq), ("ne", i128::ne), ("lt", i128::lt),
                ("le", i128::le), ("gt", i128::gt), ("ge", i128::ge),
            ];
            for (name, holds) in comparisons {
                let r = crate::register(bits);
                let op = format!(
                    "setp.{name}.{ty} %p1, {r}1, {r}2; selp.b32 %r8, 1, 0, %p1; or.b32"
                );
                check(&op, (32, [32; 3]), 0, "%r8, 0", &x, |[a, b, _]| {
                    u64::from(holds(&of(a), &of(b)))
                });
            }
        }
    }

    #[test]
    fn shifts(x in words()) {
        for (ty, bits, signed) in TYPES {
            let of = |x| number(bits, signed, x);
            let form = (bits, [bits, 32, 32]);
            let by = |b: u64| (b as u32).min(bits);
            check(&format!("shr.{ty}"), form, 2, "", &x, |[a, b, _]| (of(a) >> by(b)) as u64);
            check(&format!("shl.b{bits}"), form, 2, "", &x, |[a, b, _]| {
                (u128::from(a) << by(b)) as u64
            });
        }
        for (mode, most) in [("wrap", false), ("clamp", true)] {
            let by = |c: u64| if most { (c as u32).min(32) } else { c as u32 & 31 };
            let both = |a: u64, b: u64| b << 32 | a & 0xffff_ffff;
            let form = (32, [32; 3]);
            check(&format!("shf.l.{mode}.b32"), form, 3, "", &x, |[a, b, c]| {
                (u128::from(both(a, b)) << by(c) >> 32) as u64
            });
            check(&format!("shf.r.{mode}.b32"), form, 3, "", &x, |[a, b, c]| both(a, b) >> by(c));
        }
    }

    #[test]
    fn bits(x in words(), table in any::<u8>()) {
        for bits in [16, 32, 64] {
            let same = (bits, [bits; 3]);
            check(&format!("and.b{bits}"), same, 2, "", &x, |[a, b, _]| a & b);
            check(&format!("or.b{bits}"), same, 2, "", &x, |[a, b, _]| a | b);
            check(&format!("xor.b{bits}"), same, 2, "", &x, |[a, b, _]| a ^ b);
            check(&format!("not.b{bits}"), same, 1, "", &x, |[a, ..]| !a);
            let cut = |x: u64| x & u64::MAX >> (64 - bits);
            check(&format!("cnot.b{bits}"), same, 1, "", &x, |[a, ..]| u64::from(cut(a) == 0));
            if bits == 16 {
                continue;
            }
            let one = (32, [bits; 3]);
            check(&format!("popc.b{bits}"), one, 1, "", &x, |[a, ..]| cut(a).count_ones().into());
            check(&format!("clz.b{bits}"), one, 1, "", &x, |[a, ..]| {
                u64::from(cut(a).leading_zeros() - (64 - bits))
            });
            check(&format!("brev.b{bits}"), same, 1, "", &x, |[a, ..]| {
                cut(a).reverse_bits() >> (64 - bits)
            });
            for signed in [false, true] {
                let ty = format!("{}{bits}", if signed { 's' } else { 'u' });
                // As the manual writes it down, bit by bit.
                check(&format!("bfe.{ty}"), (bits, [bits, 32, 32]), 3, "", &x, |[a, b, c]| {
                    let (at, len) = (b as u32 & 0xff, c as u32 & 0xff);
                    let bit = |i: u32| a >> i & 1;
                    let sign = if !signed || len == 0 { 0 } else {
                        bit((at + len - 1).min(bits - 1))
                    };
                    (0..bits).fold(0, |d, i| {
                        let inside = i < len && at + i < bits;
                        d | if inside { bit(at + i) } else { sign } << i
                    })
                });
                let shown = |a: u64| {
                    let a = number(bits, signed, a);
                    if a < 0 { !a } else { a }
                };
                check(&format!("bfind.{ty}"), (32, [bits; 3]), 1, "", &x, |[a, ..]| {
                    if shown(a) == 0 { 0xffff_ffff } else { u64::from(shown(a).ilog2()) }
                });
                check(&format!("bfind.shiftamt.{ty}"), (32, [bits; 3]), 1, "", &x, |[a, ..]| {
                    if shown(a) == 0 { 0xffff_ffff } else {
                        u64::from(bits - 1 - shown(a).ilog2())
                    }
                });
            }
            let r = crate::register(bits);
            let op = format!("and.b32 %r8, %r3, 255; shr.u32 %r9, %r3, 8; bfi.b{bits}");
            let rest = format!("{r}1, {r}2, %r8, %r9");
            check(&op, (bits, [bits; 3]), 0, &rest, &x, |[a, b, c]| {
                let (at, len) = (c as u32 & 0xff, c as u32 >> 8 & 0xff);
                (0..bits).fold(0, |d, i| {
                    let inside = i >= at && i - at < len;
                    d | (if inside { a >> (i - at) } else { b >> i } & 1) << i
                })
            });
        }
        let same = (32, [32; 3]);
        check("lop3.b32", same, 3, &format!(", {table}"), &x, |[a, b, c]| {
            (0..32).fold(0, |d, i| {
                let index = (a >> i & 1) << 2 | (b >> i & 1) << 1 | c >> i & 1;
                d | u64::from(table >> index & 1) << i
            })
        });
        check("prmt.b32", same, 3, "", &x, |[a, b, c]| {
            let bytes = [(a as u32).to_le_bytes(), (b as u32).to_le_bytes()].concat();
            let pick = |i: usize| {
                let selector = (c >> (4 * i)) as usize & 15;
                let byte = bytes[selector & 7];
                if selector < 8 { byte } else { (byte as i8 >> 7) as u8 }
            };
            u64::from(u32::from_le_bytes([pick(0), pick(1), pick(2), pick(3)]))
        });
        for (left, left_signed) in [("u32", false), ("s32", true)] {
            for (right, right_signed) in [("u32", false), ("s32", true)] {
                check(&format!("dp4a.{left}.{right}"), same, 3, "", &x, |[a, b, c]| {
                    let product = |i: u32| {
                        number(8, left_signed, a >> (8 * i) & 255)
                            * number(8, right_signed, b >> (8 * i) & 255)
                    };
                    ((0..4).map(product).sum::<i128>() + i128::from(c)) as u64
                });
            }
        }
    }

    #[test]
    fn carries(x in words()) {
        // 128 bits in two halves: the second operation takes what the first one leaves.
        let join = |low: u64, high: u64| u128::from(high) << 64 | u128::from(low);
        for (half, shift) in [("%rd8", 0), ("%rd9", 64)] {
            let rest = format!("{half}, {half}");
            check("add.cc.u64 %rd8, %rd1, %rd2; addc.u64 %rd9, %rd2, %rd3; and.b64",
                (64, [64; 3]), 0, &rest, &x, |[a, b, c]| {
                    (join(a, b).wrapping_add(join(b, c)) >> shift) as u64
                });
            check("sub.cc.u64 %rd8, %rd1, %rd2; subc.u64 %rd9, %rd2, %rd3; and.b64",
                (64, [64; 3]), 0, &rest, &x, |[a, b, c]| {
                    (join(a, b).wrapping_sub(join(b, c)) >> shift) as u64
                });
            check("mad.lo.cc.u64 %rd8, %rd1, %rd2, %rd3; madc.hi.u64 %rd9, %rd1, %rd2, %rd1; and.b64",
                (64, [64; 3]), 0, &rest, &x, |[a, b, c]| {
                    let product = u128::from(a) * u128::from(b);
                    (product.wrapping_add(join(c, a)) >> shift) as u64
                });
        }
    }
}
