//! Products on tensor cores: fragments to matrices and back. Knows layouts and values alone.
//!
//! Products are exact and sums single-precision, in the order of the reduced index; hardware sums
//! in another order and with other roundings in between, which is where the two may differ.

use half::f16;

use crate::alu::Lanes;
use crate::float::{f, fb};

/// The type of the factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Factor {
    Bf16,
    F16,
    Tf32,
}

/// `m16n8k<k>` of one factor type into single precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mma {
    pub factor: Factor,
    pub k: usize,
}

impl Mma {
    /// Reads an opcode such as `mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32`.
    pub fn parse(opcode: &str) -> Option<Self> {
        let rest = opcode.strip_prefix("mma.sync.aligned.m16n8k")?;
        let (k, rest) = rest.split_once('.')?;
        let k = k.parse().ok()?;
        let factor = match rest {
            "row.col.f32.bf16.bf16.f32" => Factor::Bf16,
            "row.col.f32.f16.f16.f32" => Factor::F16,
            "row.col.f32.tf32.tf32.f32" => Factor::Tf32,
            _ => return None,
        };
        let known: &[usize] = if factor == Factor::Tf32 { &[4, 8] } else { &[8, 16] };
        known.contains(&k).then_some(Self { factor, k })
    }

    /// Elements of a factor in one register.
    fn per_register(self) -> usize {
        if self.factor == Factor::Tf32 { 1 } else { 2 }
    }

    /// Registers of the factors' fragments.
    pub fn registers(self) -> (usize, usize) {
        let a = 16 * self.k / 32 / self.per_register();
        (a, a / 2)
    }

    /// Floating-point operations of one instruction.
    pub fn flops(self) -> u64 {
        2 * 16 * 8 * self.k as u64
    }

    fn element(self, register: u64, i: usize) -> f32 {
        let bits = (register >> (16 * i)) as u16;
        match self.factor {
            Factor::Bf16 => f32::from_bits(u32::from(bits) << 16),
            Factor::F16 => f16::from_bits(bits).to_f32(),
            // The hardware reads ten bits of fraction.
            Factor::Tf32 => f32::from_bits(register as u32 & !0x1fff),
        }
    }

    /// `d = a b + c` on the fragments of all lanes, registers outermost.
    pub fn run(self, d: &mut [Lanes; 4], a: &[&Lanes], b: &[&Lanes], c: &[&Lanes]) {
        let per = self.per_register();
        let mut left = [[0f32; 16]; 16];
        let mut right = [[0f32; 8]; 16];
        let mut sums = [[0f32; 8]; 16];
        for lane in 0..32 {
            let (group, within) = (lane / 4, lane % 4);
            // Registers go down by 8 rows first, then right by 4 lanes' columns.
            for (r, register) in a.iter().enumerate() {
                for i in 0..per {
                    let column = within * per + i + (r / 2) * 4 * per;
                    left[group + r % 2 * 8][column] = self.element(register[lane], i);
                }
            }
            for (r, register) in b.iter().enumerate() {
                for i in 0..per {
                    right[within * per + i + r * 4 * per][group] = self.element(register[lane], i);
                }
            }
            for (r, register) in c.iter().enumerate() {
                sums[group + r / 2 * 8][within * 2 + r % 2] = f(register[lane]);
            }
        }
        for (sums, left) in sums.iter_mut().zip(&left) {
            for (x, right) in left[..self.k].iter().zip(&right) {
                for (sum, y) in sums.iter_mut().zip(right) {
                    *sum += x * y;
                }
            }
        }
        for lane in 0..32 {
            let (group, within) = (lane / 4, lane % 4);
            for (r, register) in d.iter_mut().enumerate() {
                register[lane] = fb(sums[group + r / 2 * 8][within * 2 + r % 2]);
            }
        }
    }
}
