//! `cvt`: conversions between types, with their roundings. Knows values alone.

use half::{bf16, f16};

use crate::alu::{Lanes, saturate};

/// What a conversion goes from, goes to and how it rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Convert {
    to: Type,
    from: Type,
    rounding: Rounding,
    /// Whether a float becomes a whole number: `.rni` and its like, as against `.rn`.
    whole: bool,
    saturate: bool,
    relu: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Type {
    /// Bits, and whether signed.
    Int(u32, bool),
    F16,
    BF16,
    F16x2,
    BF16x2,
    TF32,
    F32,
    F64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rounding {
    Nearest,
    /// To nearest, ties away from 0.
    Away,
    Zero,
    Down,
    Up,
}

impl Convert {
    /// Reads an opcode such as `cvt.rn.bf16x2.f32`.
    pub fn parse(opcode: &str) -> Option<Self> {
        let mut parts = opcode.split('.').skip(1).peekable();
        let (mut rounding, mut saturate, mut relu) = (Rounding::Nearest, false, false);
        let (mut types, mut whole) = (Vec::new(), false);
        for part in parts.by_ref() {
            whole |= matches!(part, "rni" | "rzi" | "rmi" | "rpi");
            match part {
                "rn" | "rni" => rounding = Rounding::Nearest,
                "rna" => rounding = Rounding::Away,
                "rz" | "rzi" => rounding = Rounding::Zero,
                "rm" | "rmi" => rounding = Rounding::Down,
                "rp" | "rpi" => rounding = Rounding::Up,
                "sat" | "satfinite" => saturate = true,
                "relu" => relu = true,
                "ftz" => {}
                ty => types.push(type_of(ty)?),
            }
        }
        match types.as_slice() {
            &[to, from] => Some(Self { to, from, rounding, whole, saturate, relu }),
            _ => None,
        }
    }

    /// Whether two values go into one register.
    pub fn is_packed(&self) -> bool {
        matches!(self.to, Type::F16x2 | Type::BF16x2)
    }

    /// Converts all lanes; `b` is the lower half of a packed result, whose upper half is `a`.
    pub fn run(&self, out: &mut Lanes, a: &Lanes, b: &Lanes) {
        match (self.to, self.from, self.rounding) {
            (Type::BF16x2, Type::F32, Rounding::Nearest) if !self.relu => {
                for i in 0..32 {
                    out[i] = nearest_bf16(b[i] as u32) | nearest_bf16(a[i] as u32) << 16;
                }
            }
            (Type::Int(bits, _), Type::Int(from, signed), _) if !self.saturate => {
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
                return self.round_integer(exact);
            }
            Type::F16 => f16::from_bits(x as u16).to_f64(),
            Type::BF16 => bf16::from_bits(x as u16).to_f64(),
            Type::F32 | Type::TF32 => f64::from(f32::from_bits(x as u32)),
            Type::F64 => f64::from_bits(x),
            Type::F16x2 | Type::BF16x2 => f64::NAN,
        };
        self.round_float(value)
    }

    fn round_integer(&self, x: i128) -> u64 {
        match self.to {
            Type::Int(bits, signed) if self.saturate => clamp(x, bits, signed),
            Type::Int(bits, _) => cut(x as u64, bits),
            // Within 64 bits only the last rounding matters, and it is the type's own.
            Type::F32 if self.rounding == Rounding::Nearest => u64::from((x as f32).to_bits()),
            Type::F64 if self.rounding == Rounding::Nearest => (x as f64).to_bits(),
            _ => self.round_float(x as f64),
        }
    }

    fn round_float(&self, x: f64) -> u64 {
        let x = if self.relu { if x.is_nan() { x } else { x.max(0.0) } } else { x };
        let integral = match self.rounding {
            Rounding::Nearest => x.round_ties_even(),
            Rounding::Away => x.round(),
            Rounding::Zero => x.trunc(),
            Rounding::Down => x.floor(),
            Rounding::Up => x.ceil(),
        };
        match self.to {
            Type::Int(..) if x.is_nan() => 0,
            Type::Int(bits, signed) => clamp(integral as i128, bits, signed),
            Type::F64 if self.from == Type::F64 && self.whole => integral.to_bits(),
            Type::F64 => x.to_bits(),
            // Between equal types the modifier rounds to an integer, if there is one.
            Type::F32 if self.from == Type::F32 => {
                let y = if self.whole { integral } else { x } as f32;
                u64::from(if self.saturate { saturate(y) } else { y }.to_bits())
            }
            Type::F32 => u64::from(self.round_f32(x).to_bits()),
            Type::TF32 => {
                let bits = (x as f32).to_bits();
                let half = match self.rounding {
                    Rounding::Nearest => 0xfff + (bits >> 13 & 1),
                    Rounding::Away => 0x1000,
                    _ => 0,
                };
                u64::from(if x.is_nan() { bits } else { bits.wrapping_add(half) & !0x1fff })
            }
            Type::F16 | Type::F16x2 => match self.rounding {
                Rounding::Zero => {
                    let y = f16::from_f64(x);
                    let over = y.to_f64().abs() > x.abs();
                    u64::from(y.to_bits() - u16::from(over))
                }
                _ => u64::from(f16::from_f64(x).to_bits()),
            },
            Type::BF16 | Type::BF16x2 => match self.rounding {
                Rounding::Zero if !x.is_nan() => {
                    u64::from((self.round_f32(x).to_bits() >> 16) as u16)
                }
                _ => u64::from(bf16::from_f64(x).to_bits()),
            },
        }
    }

    fn round_f32(&self, x: f64) -> f32 {
        let near = x as f32;
        let wide = f64::from(near);
        let down = match self.rounding {
            Rounding::Down => true,
            Rounding::Zero => x > 0.0,
            _ => false,
        };
        let up = match self.rounding {
            Rounding::Up => true,
            Rounding::Zero => x < 0.0,
            _ => false,
        };
        let y = if down && wide > x {
            near.next_down()
        } else if up && wide < x {
            near.next_up()
        } else {
            near
        };
        if self.saturate { if y.is_nan() { 0.0 } else { y.clamp(0.0, 1.0) } } else { y }
    }
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

/// The value of the low `bits` as a signed number, in 64 bits.
pub(crate) fn sign_extend(x: u64, bits: u32) -> u64 {
    ((x << (64 - bits)) as i64 >> (64 - bits)) as u64
}

fn clamp(x: i128, bits: u32, signed: bool) -> u64 {
    let (min, max) =
        if signed { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) };
    cut(x.clamp(min, max) as u64, bits)
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
