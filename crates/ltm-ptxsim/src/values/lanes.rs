//! The values of a register in all lanes of a warp, and functions on them.
//!
//! A register has 64 bits; narrower values are in its low bits, and the bits above are ignored.

/// The value of a register in every lane.
pub(crate) type Lanes = [u64; 32];
/// `out = f(a, b, c)` for every lane.
pub(crate) type Alu = fn(&mut Lanes, &Lanes, &Lanes, &Lanes);
/// One bit per lane: the result of comparing `a` and `b`.
pub(crate) type Compare = fn(&Lanes, &Lanes) -> u32;

/// A function on one lane, `$body`, as a function on all.
macro_rules! lanes {
    (|$a:ident, $b:ident, $c:ident| $body:expr) => {{
        #[allow(unused_variables)]
        fn all_lanes(
            out: &mut $crate::values::Lanes,
            a: &$crate::values::Lanes,
            b: &$crate::values::Lanes,
            c: &$crate::values::Lanes,
        ) {
            for i in 0..32 {
                let ($a, $b, $c) = (a[i], b[i], c[i]);
                out[i] = $body;
            }
        }
        all_lanes
    }};
}
pub(crate) use lanes;

/// `$alu` with `$T` defined as the integer type named `$ty`.
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
pub(crate) use on_integer;

/// Sign-extends the low `bits` of a value to 64 bits.
pub(crate) fn sign_extend(x: u64, bits: u32) -> u64 {
    ((x << (64 - bits)) as i64 >> (64 - bits)) as u64
}
