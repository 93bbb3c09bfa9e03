//! Seeded inputs for tests and benches. Not the generator that models use.

/// `n` roughly standard-normal numbers that depend on `seed` alone; a prefix does not depend on `n`.
///
/// Each is the centred sum of four uniforms, scaled to variance 1, so all lie within `±3.5`.
/// The uniforms come from SplitMix64 (Steele, Lea and Flood 2014).
pub fn seeded(seed: u64, n: usize) -> Vec<f64> {
    let mut state = seed;
    (0..n)
        .map(|_| {
            let sum: f64 = (0..4).map(|_| uniform(&mut state)).sum();
            // Four uniforms have mean 2 and variance 4/12.
            (sum - 2.0) * 3f64.sqrt()
        })
        .collect()
}

/// One step of SplitMix64, its upper 53 bits as a number in `[0, 1)`.
fn uniform(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bits = *state;
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depends_on_the_seed_alone() {
        assert_eq!(seeded(7, 100)[..10], seeded(7, 10)[..]);
        assert_ne!(seeded(7, 10), seeded(8, 10));
    }

    #[test]
    fn neighbouring_seeds_share_no_values() {
        let (a, b) = (seeded(1, 100), seeded(2, 100));
        assert!(a.iter().all(|x| !b.contains(x)));
    }

    #[test]
    fn moments_of_a_standard_normal() {
        let n = 100_000;
        let x = seeded(3, n);
        let mean = x.iter().sum::<f64>() / n as f64;
        let variance = x.iter().map(|x| x * x).sum::<f64>() / n as f64 - mean * mean;
        // Five standard errors: 1/sqrt(n) for the mean, at most sqrt(2/n) for the variance.
        assert!(mean.abs() < 0.016, "mean {mean}");
        assert!((variance - 1.0).abs() < 0.023, "variance {variance}");
        assert!(x.iter().all(|x| x.abs() <= 12f64.sqrt()));
    }
}
