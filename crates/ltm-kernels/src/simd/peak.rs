//! The peak arithmetic throughput of the processor: loops of multiply-adds without memory accesses,
//! one per kind of instruction. For benches only.

use std::hint::black_box;

/// Number of independent sums, so that none waits for its previous addition; together with two
/// factors they fit into 16 registers.
const SUMS: usize = 12;

/// A kind of multiply-add instruction that the host has.
#[derive(Clone, Copy, Debug)]
pub struct Unit {
    /// Its name: number type and instruction set.
    pub name: &'static str,
    /// Floating-point operations per round; a multiply-add counts as two.
    pub flops_per_round: u64,
    run: fn(u64),
}

impl Unit {
    /// Runs `rounds` rounds on the calling thread.
    pub fn run(&self, rounds: u64) {
        (self.run)(rounds);
    }
}

/// All units of this processor, the portable loop first.
pub fn units() -> Vec<Unit> {
    let plain = unit("f32", 2 * SUMS * PLAIN, plain);
    #[cfg(target_arch = "x86_64")]
    return std::iter::once(plain).chain(x86::units()).collect();
    #[cfg(not(target_arch = "x86_64"))]
    return vec![plain];
}

fn unit(name: &'static str, flops: usize, run: fn(u64)) -> Unit {
    Unit { name, flops_per_round: flops as u64, run }
}

/// Lanes of the portable loop.
const PLAIN: usize = 4;

fn plain(rounds: u64) {
    let (x, y) = black_box(([0.999f32; PLAIN], [0.001f32; PLAIN]));
    let mut sums = [[0f32; PLAIN]; SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            for ((sum, x), y) in sum.iter_mut().zip(x).zip(y) {
                *sum = *sum * x + y;
            }
        }
    }
    black_box(sums);
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "instructions that only some processors have")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::{SUMS, Unit, unit};

    pub(super) fn units() -> Vec<Unit> {
        let mut units = Vec::new();
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has the instructions, tested in the line above.
            units.push(unit("f32 avx2", 2 * SUMS * 8, |rounds| unsafe { avx2(rounds) }));
        }
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: as above.
            units.push(unit("f32 avx512", 2 * SUMS * 16, |rounds| unsafe { avx512(rounds) }));
        }
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16") {
            // SAFETY: as above.
            units.push(unit("bf16 avx512", 2 * SUMS * 32, |rounds| unsafe { avx512_bf16(rounds) }));
        }
        if crate::simd::amx::Available::detect().is_some() {
            units.push(unit("bf16 amx", super::amx::FLOPS, super::amx::run));
        }
        units
    }

    #[target_feature(enable = "avx2,fma")]
    fn avx2(rounds: u64) {
        let (x, y) = (_mm256_set1_ps(black_box(0.999)), _mm256_set1_ps(black_box(0.001)));
        let mut sums = [_mm256_setzero_ps(); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, x, y);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f")]
    fn avx512(rounds: u64) {
        let (x, y) = (_mm512_set1_ps(black_box(0.999)), _mm512_set1_ps(black_box(0.001)));
        let mut sums = [_mm512_setzero_ps(); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, x, y);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    fn avx512_bf16(rounds: u64) {
        let x = _mm512_cvtne2ps_pbh(_mm512_set1_ps(black_box(1e-3)), _mm512_set1_ps(1e-3));
        let mut sums = [_mm512_setzero_ps(); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, x, x);
            }
        }
        black_box(sums);
    }
}

/// AMX tiles of bf16, in assembly, since their intrinsics are not stable yet.
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "instructions without stable intrinsics")]
mod amx {
    use std::arch::asm;

    use crate::simd::amx::{Available, Configured};

    /// Four products of 16×32 by 32×16 numbers.
    pub(super) const FLOPS: usize = 4 * 2 * 16 * 16 * 32;

    pub(super) fn run(rounds: u64) {
        let Some(available) = Available::detect().filter(|_| rounds > 0) else { return };
        let _tiles = Configured::new(available);
        // SAFETY: tiles are available and configured; the instructions touch registers alone, all declared.
        unsafe {
            asm!(
                "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                "tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7",
                "2:",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "dec {rounds}",
                "jnz 2b",
                rounds = inout(reg) rounds => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_runs_and_takes_time_by_the_round() {
        for unit in units() {
            unit.run(0);
            let time = |rounds| {
                let started = std::time::Instant::now();
                unit.run(rounds);
                started.elapsed()
            };
            // A loop that the compiler had removed would take as long for a million rounds as for
            // one.
            let one = (0..20).map(|_| time(1)).min().expect("there were tries");
            assert!(time(1 << 20) > 20 * one, "{}", unit.name);
        }
    }
}
