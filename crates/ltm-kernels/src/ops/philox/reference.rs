//! The block function of Philox 4x32-10, fast enough to need no separate CPU implementation.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Ten rounds on one counter.
///
/// # Source
/// Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3.
pub fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let ([mut x0, mut x1, mut x2, mut x3], [mut k0, mut k1]) = (counter, key);
    for _ in 0..10 {
        let even = u64::from(MULTIPLIERS[0]) * u64::from(x0);
        let odd = u64::from(MULTIPLIERS[1]) * u64::from(x2);
        (x0, x1, x2, x3) =
            ((odd >> 32) as u32 ^ x1 ^ k0, odd as u32, (even >> 32) as u32 ^ x3 ^ k1, even as u32);
        (k0, k1) = (k0.wrapping_add(WEYL[0]), k1.wrapping_add(WEYL[1]));
    }
    [x0, x1, x2, x3]
}
