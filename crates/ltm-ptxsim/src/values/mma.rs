//! Tensor-core matrix products: converts fragments to matrices and back. Knows only layouts and
//! values.
//!
//! Products are exact, sums are rounded to single precision in the order of the reduced index.
//! Hardware uses another order and other intermediate roundings, so results may differ there.

use half::f16;

use super::float::{f, fb};
use super::lanes::Lanes;

/// Element type of `a` and `b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Factor {
    Bf16,
    F16,
    Tf32,
}

/// `m16n8k<k>` with inputs of one type and single-precision sums.
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

    /// Elements of `a` or `b` per register.
    fn per_register(self) -> usize {
        if self.factor == Factor::Tf32 { 1 } else { 2 }
    }

    /// Registers per lane of the fragments of `a` and of `b`.
    pub fn registers(self) -> (usize, usize) {
        let a = 16 * self.k / 32 / self.per_register();
        (a, a / 2)
    }

    /// Floating-point operations of one instruction.
    pub fn flops(self) -> u64 {
        2 * 16 * 8 * self.k as u64
    }

    /// `d = a b + c` on the fragments of all lanes, indexed by register, then lane.
    pub fn run(self, d: &mut [Lanes; 4], a: &[&Lanes], b: &[&Lanes], c: [&Lanes; 4]) {
        // Uses the host's widest SIMD registers, never fused multiply-adds, so results are the same
        // on all.
        pulp::Arch::new().dispatch(
            #[inline(always)]
            move || {
                // Moving `d` makes the closure `FnOnce`, so that it is inlined.
                let d = { d };
                match self.k {
                    16 => self.product::<16>(d, a, b, c),
                    8 => self.product::<8>(d, a, b, c),
                    _ => self.product::<4>(d, a, b, c),
                }
            },
        );
    }

    #[inline(always)]
    fn product<const K: usize>(
        self,
        d: &mut [Lanes; 4],
        a: &[&Lanes],
        b: &[&Lanes],
        c: [&Lanes; 4],
    ) {
        let halves = |x: u64| [x as u16, (x >> 16) as u16];
        let (left, right) = match self.factor {
            Factor::Bf16 => factors(a, b, |x| halves(x).map(|bits| u32::from(bits) << 16)),
            Factor::F16 => {
                factors(a, b, |x| halves(x).map(|bits| f16::from_bits(bits).to_f32().to_bits()))
            }
            // The hardware uses ten bits of the fraction.
            Factor::Tf32 => factors(a, b, |x| [x as u32 & !0x1fff]),
        };
        for (half, rows) in left.chunks_exact(8).enumerate() {
            // Two registers hold the sums of a row: the even and the odd columns.
            let (even, odd) = (c[2 * half], c[2 * half + 1]);
            let (d_even, d_odd) = d[2 * half..2 * half + 2].split_at_mut(1);
            for (group, left) in rows.iter().enumerate() {
                let mut sums = [0f32; 8];
                for within in 0..4 {
                    sums[2 * within] = f(even[4 * group + within]);
                    sums[2 * within + 1] = f(odd[4 * group + within]);
                }
                for (x, right) in left[..K].iter().zip(&right) {
                    let x = f32::from_bits(*x);
                    sums = std::array::from_fn(|n| sums[n] + x * f32::from_bits(right[n]));
                }
                for within in 0..4 {
                    d_even[0][4 * group + within] = fb(sums[2 * within]);
                    d_odd[0][4 * group + within] = fb(sums[2 * within + 1]);
                }
            }
        }
    }
}

/// The rows of `a` and the rows of `b`, as bits of single-precision numbers; a register holds `PER`
/// elements.
///
/// The four lanes of a group hold adjacent elements of a row of `a`, or of a column of `b`.
/// Successive registers of `a` first go down 8 rows, then right by the columns of four lanes.
#[inline(always)]
fn factors<const PER: usize>(
    a: &[&Lanes],
    b: &[&Lanes],
    elements: impl Fn(u64) -> [u32; PER],
) -> ([[u32; 16]; 16], [[u32; 8]; 16]) {
    let (mut left, mut right) = ([[0; 16]; 16], [[0; 8]; 16]);
    for (r, register) in a.iter().enumerate() {
        for (group, lanes) in register.as_chunks::<4>().0.iter().enumerate() {
            let row = &mut left[group + r % 2 * 8][r / 2 * 4 * PER..][..4 * PER];
            for (x, row) in lanes.iter().zip(row.as_chunks_mut::<PER>().0) {
                *row = elements(*x);
            }
        }
    }
    for (r, register) in b.iter().enumerate() {
        let rows: &mut [[u32; 8]] = &mut right[r * 4 * PER..][..4 * PER];
        for (group, lanes) in register.as_chunks::<4>().0.iter().enumerate() {
            for (x, rows) in lanes.iter().zip(rows.as_chunks_mut::<PER>().0) {
                for (row, element) in rows.iter_mut().zip(elements(*x)) {
                    row[group] = element;
                }
            }
        }
    }
    (left, right)
}
