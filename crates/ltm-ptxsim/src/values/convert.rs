//! `cvt`: conversions between types and their rounding. Knows only values.

use half::{bf16, f16};

use super::float::flush;
use super::lanes::{Lanes, sign_extend};
use super::rounding::{BF16, F16, Rounding, TF32, from_integer, narrow, to_f32, to_whole};

/// A conversion: source type, target type and rounding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Convert {
    to: Type,
    from: Type,
    rounding: Rounding,
    /// Whether to round to an integral value (`.rni` and similar, not `.rn`).
    whole: bool,
    /// `.sat`, or `.satfinite` of `tf32`.
    saturate: bool,
    relu: bool,
    /// Whether single-precision subnormals are flushed to 0.
    flush: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Type {
    /// Number of bits, and whether signed.
    Int(u32, bool),
    F16,
    BF16,
    F16x2,
    BF16x2,
    TF32,
    F32,
    F64,
}

impl Convert {
    /// Reads an opcode such as `cvt.rn.bf16x2.f32`.
    pub fn parse(opcode: &str) -> Option<Self> {
        let (mut rounding, mut saturate, mut finite) = (None, false, false);
        let (mut types, mut whole, mut relu, mut flush) = (Vec::new(), false, false, false);
        for part in opcode.split('.').skip(1) {
            whole |= matches!(part, "rni" | "rzi" | "rmi" | "rpi");
            match part {
                "rn" | "rni" => rounding = Some(Rounding::Nearest),
                "rna" => rounding = Some(Rounding::Away),
                "rz" | "rzi" => rounding = Some(Rounding::Zero),
                "rm" | "rmi" => rounding = Some(Rounding::Down),
                "rp" | "rpi" => rounding = Some(Rounding::Up),
                "sat" => saturate = true,
                "satfinite" => finite = true,
                "relu" => relu = true,
                "ftz" => flush = true,
                ty => types.push(type_of(ty)?),
            }
        }
        let &[to, from] = types.as_slice() else { return None };
        // Modifiers that only narrower float targets, or only some of them, allow.
        let narrow = matches!(to, Type::F16 | Type::BF16 | Type::F16x2 | Type::BF16x2 | Type::TF32);
        let tf32 = to == Type::TF32;
        let single = from == Type::F32;
        let known = (narrow || !relu)
            && (tf32 || !finite)
            && (tf32 || rounding != Some(Rounding::Away))
            && (single || !tf32 && !matches!(to, Type::F16x2 | Type::BF16x2))
            && !(narrow && !matches!(to, Type::F16) && saturate)
            && !matches!(from, Type::F16x2 | Type::BF16x2 | Type::TF32)
            && !(matches!((to, from), (Type::Int(..), Type::Int(..))) && rounding.is_some());
        let rounding = rounding.unwrap_or(Rounding::Nearest);
        let saturate = saturate || finite;
        known.then_some(Self { to, from, rounding, whole, saturate, relu, flush })
    }

    /// Whether this only changes the width or signedness of an integer.
    pub fn is_between_integers(&self) -> bool {
        matches!((self.to, self.from), (Type::Int(..), Type::Int(..)))
    }

    /// Whether two values are packed into one register.
    pub fn is_packed(&self) -> bool {
        matches!(self.to, Type::F16x2 | Type::BF16x2)
    }

    /// Converts all lanes. In a packed result `b` gives the lower half and `a` the upper half.
    pub fn run(&self, out: &mut Lanes, a: &Lanes, b: &Lanes) {
        match (self.to, self.from, self.rounding) {
            (Type::BF16x2, Type::F32, Rounding::Nearest) if !self.relu && !self.flush => {
                for i in 0..32 {
                    out[i] = nearest_bf16(b[i] as u32) | nearest_bf16(a[i] as u32) << 16;
                }
            }
            (Type::BF16, Type::F32, Rounding::Nearest) if !self.relu && !self.flush => {
                for i in 0..32 {
                    out[i] = nearest_bf16(a[i] as u32);
                }
            }
            (Type::Int(bits, false), Type::Int(from, signed), _) if !self.saturate => {
                for i in 0..32 {
                    let x = if signed { sign_extend(a[i], from) } else { cut(a[i], from) };
                    out[i] = cut(x, bits);
                }
            }
            _ => {
                for i in 0..32 {
                    out[i] = if self.is_packed() {
                        self.lane(b[i]) | self.lane(a[i]) << 16
                    } else {
                        self.lane(a[i])
                    };
                }
            }
        }
    }

    fn lane(&self, x: u64) -> u64 {
        let value = match self.from {
            Type::Int(bits, signed) => {
                let exact = if signed {
                    i128::from(sign_extend(x, bits) as i64)
                } else {
                    i128::from(cut(x, bits))
                };
                return self.of_integer(exact);
            }
            Type::F16 => f16::from_bits(x as u16).to_f64(),
            Type::BF16 => bf16::from_bits(x as u16).to_f64(),
            Type::F32 if self.flush => f64::from(flush(f32::from_bits(x as u32))),
            Type::F32 => f64::from(f32::from_bits(x as u32)),
            Type::F64 => f64::from_bits(x),
            Type::F16x2 | Type::BF16x2 | Type::TF32 => unreachable!("`parse` takes no such source"),
        };
        self.of_float(value)
    }

    fn of_integer(&self, x: i128) -> u64 {
        match self.to {
            Type::Int(bits, signed) if self.saturate => clamp(x, bits, signed),
            Type::Int(bits, signed) => put(x as u64, bits, signed),
            Type::F64 => {
                let near = x as f64;
                let off = (near as i128).cmp(&x);
                let rounded = match self.rounding {
                    Rounding::Zero if x > 0 && off.is_gt() => near.next_down(),
                    Rounding::Zero if x < 0 && off.is_lt() => near.next_up(),
                    Rounding::Down if off.is_gt() => near.next_down(),
                    Rounding::Up if off.is_lt() => near.next_up(),
                    _ => near,
                };
                rounded.to_bits()
            }
            _ => self.of_float(from_integer(x)),
        }
    }

    fn of_float(&self, x: f64) -> u64 {
        let x = if self.relu && x < 0.0 { 0.0 } else { x };
        let whole = to_whole(x, self.rounding);
        // Float to float: round to an integral value if the modifier asks for it.
        let x = if self.whole { whole } else { x };
        let limit = |x: f64| if self.saturate { saturate_wide(x) } else { x };
        match self.to {
            Type::Int(..) if x.is_nan() => 0,
            Type::Int(bits, signed) => clamp(whole as i128, bits, signed),
            Type::F64 => limit(x).to_bits(),
            Type::F32 => {
                let y = to_f32(limit(x), self.rounding);
                u64::from(if self.flush { flush(y) } else { y }.to_bits())
            }
            Type::TF32 if x.is_nan() => 0x7fff_ffff,
            Type::TF32 => {
                let y = narrow(x, TF32, self.rounding);
                let most = f64::from(f32::from_bits(0x7f7f_e000));
                let y = if self.saturate { y.clamp(-most, most) } else { y };
                u64::from((y as f32).to_bits())
            }
            _ if limit(x).is_nan() => 0x7fff,
            Type::F16 | Type::F16x2 => {
                u64::from(f16::from_f64(narrow(limit(x), F16, self.rounding)).to_bits())
            }
            Type::BF16 | Type::BF16x2 => {
                u64::from(bf16::from_f64(narrow(x, BF16, self.rounding)).to_bits())
            }
        }
    }
}

/// Clamps to [0, 1]; NaN and -0 become +0.
fn saturate_wide(x: f64) -> f64 {
    if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) + 0.0 }
}

/// Rounds single precision to `bf16`, ties to even.
fn nearest_bf16(bits: u32) -> u64 {
    if bits & 0x7fff_ffff > 0x7f80_0000 {
        return 0x7fff; // the NaN that hardware makes
    }
    u64::from(bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16)
}

fn cut(x: u64, bits: u32) -> u64 {
    x & (u64::MAX >> (64 - bits))
}

fn clamp(x: i128, bits: u32, signed: bool) -> u64 {
    let (min, max) =
        if signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) };
    put(x.clamp(min, max) as u64, bits, signed)
}

/// An integer as its register holds it: a signed one is sign-extended.
fn put(x: u64, bits: u32, signed: bool) -> u64 {
    if signed { sign_extend(x, bits) } else { cut(x, bits) }
}

fn type_of(name: &str) -> Option<Type> {
    Some(match name {
        "f16" => Type::F16,
        "bf16" => Type::BF16,
        "f16x2" => Type::F16x2,
        "bf16x2" => Type::BF16x2,
        "tf32" => Type::TF32,
        "f32" => Type::F32,
        "f64" => Type::F64,
        _ => {
            let signed = match name.chars().next()? {
                's' => true,
                'u' | 'b' => false,
                _ => return None,
            };
            let bits = name[1..].parse().ok().filter(|bits| [8, 16, 32, 64].contains(bits))?;
            Type::Int(bits, signed)
        }
    })
}
