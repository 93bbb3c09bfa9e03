//! The fast CPU implementation of rounding to bf16: chunks on all cores, branch-free per element.

use half::bf16;
use rayon::prelude::*;

use crate::ops::parallel::CHUNK;
use crate::simd;

pub(crate) fn round(out: &mut [bf16], x: &[f32]) {
    out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(out, x)| {
        simd::dispatch(
            #[inline(always)]
            || {
                for (out, x) in out.iter_mut().zip(x) {
                    *out = rounded(*x);
                }
            },
        );
    });
}

/// The nearest bf16, ties to even: adds half of the last kept digit, minus one if that digit is
/// even, and truncates. NaN stays NaN.
#[inline(always)]
fn rounded(x: f32) -> bf16 {
    let bits = x.to_bits();
    let even = (bits >> 16) & 1;
    let nearest = bits.wrapping_add(0x7fff + even) >> 16;
    let quiet_nan = (bits >> 16) | 0x40;
    bf16::from_bits(if x.is_nan() { quiet_nan } else { nearest } as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::cast::reference;

    #[test]
    fn rounds_as_the_definition_does() {
        // Every upper half, with lower halves around the tie; more than one chunk.
        let lower = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
        let bits = (0..=u16::MAX).flat_map(|high| lower.map(|low| u32::from(high) << 16 | low));
        let x: Vec<f32> = bits.map(f32::from_bits).collect();
        let (mut out, mut expected) = (vec![bf16::ZERO; x.len()], vec![bf16::ZERO; x.len()]);
        round(&mut out, &x);
        reference::round(&mut expected, &x);
        let bits = |x: &[bf16]| -> Vec<u16> { x.iter().map(|x| x.to_bits()).collect() };
        assert_eq!(bits(&out), bits(&expected));
    }
}
