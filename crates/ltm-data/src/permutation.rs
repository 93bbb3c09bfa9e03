//! Random permutations of numbers in constant memory, and samples drawn by a fixed one. Knows no corpus.

use ltm_kernels::ops::philox::{Philox, PhiloxKey};

/// The key that samples are drawn by, "rows" in ASCII: no run's seed, so that runs with different seeds are scored on the
/// same rows.
const SAMPLES: PhiloxKey = PhiloxKey { seed: 0, stream: 0x726f_7773, step: 0 };

/// `n` numbers of `0..of` in ascending order, or all of them: those that a fixed permutation puts first, so that fewer
/// are a part of more.
pub fn chosen(n: u64, of: u64) -> Vec<u64> {
    let philox = Philox::new(SAMPLES);
    let mut chosen: Vec<u64> = (0..n.min(of)).map(|index| permuted(&philox, index, of)).collect();
    chosen.sort_unstable();
    chosen
}

/// Where `index` of `0..n` goes in a random permutation, in constant memory: a Feistel network over the
/// next power of four, walked until it lands inside (Black and Rogaway 2002, "Ciphers with arbitrary
/// finite domains"). A list to shuffle would take gigabytes for a corpus of hundreds.
pub(crate) fn permuted(philox: &Philox, index: u64, n: u64) -> u64 {
    let half_bits = (u64::BITS - (n - 1).leading_zeros()).div_ceil(2).max(1);
    let mask = (1_u64 << half_bits) - 1;
    let mut x = index;
    loop {
        let (mut left, mut right) = (x >> half_bits, x & mask);
        for round in 0..8 {
            let [word, ..] = philox.u32x4((round << 32) | right);
            (left, right) = (right, left ^ (u64::from(word) & mask));
        }
        x = (left << half_bits) | right;
        if x < n {
            return x;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: PhiloxKey = PhiloxKey { seed: 3, stream: 7, step: 0 };

    #[test]
    fn permutations_are_one_to_one_and_even() {
        for n in [1, 2, 3, 5, 16, 17, 1000] {
            let philox = Philox::new(PhiloxKey { step: n, ..KEY });
            let mut seen: Vec<u64> = (0..n).map(|i| permuted(&philox, i, n)).collect();
            seen.sort();
            assert_eq!(seen, (0..n).collect::<Vec<_>>());
        }
        // Where 0 goes among 5 places, over 5000 keys: mean 1000, standard deviation 28.
        let mut counts = [0_i32; 5];
        for seed in 0..5000 {
            let philox = Philox::new(PhiloxKey { seed, ..KEY });
            counts[permuted(&philox, 0, 5) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (count - 1000).abs() < 150), "{counts:?}");
        let philox = Philox::new(KEY);
        let far = u64::from(u32::MAX) * 100;
        assert!(permuted(&philox, far - 1, far) < far);
    }

    #[test]
    fn samples_are_nested_and_complete() {
        for of in [1, 2, 7, 100] {
            assert_eq!(chosen(of + 3, of), (0..of).collect::<Vec<_>>());
            for n in 0..of {
                let (few, more) = (chosen(n, of), chosen(n + 1, of));
                assert_eq!(few.len() as u64, n);
                assert!(more.is_sorted() && few.iter().all(|number| more.contains(number)));
            }
        }
        assert_ne!(chosen(10, 100), (0..10).collect::<Vec<_>>());
    }
}
