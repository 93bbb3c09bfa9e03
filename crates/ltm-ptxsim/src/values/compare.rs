//! Comparisons of lanes. Knows values; must not know where they come from.

use half::{bf16, f16};

use super::float::{d, f, flush};
use super::lanes::{Compare, Lanes, on_integer};

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

/// The comparison `op` for type `ty`, with subnormals flushed to 0 if `ftz`; `None` if unknown.
pub(crate) fn comparison(op: &str, ty: &str, ftz: bool) -> Option<Compare> {
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
    fn flushed(x: u64) -> f32 {
        flush(f(x))
    }
    fn h(x: u64) -> f32 {
        f16::from_bits(x as u16).to_f32()
    }
    fn g(x: u64) -> f32 {
        bf16::from_bits(x as u16).to_f32()
    }
    match ty {
        "f32" if ftz => of_floats!(flushed),
        _ if ftz => None,
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
