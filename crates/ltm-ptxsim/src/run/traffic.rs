//! Counts what an access moves: sectors of global memory, wavefronts of shared memory. Must not know the data.

use super::block::Block;
use super::warp::lanes;
use crate::memory::Space;

impl Block<'_> {
    /// Counts the sectors of a global access, or the wavefronts of a shared one.
    pub(super) fn count(&mut self, space: Space, addresses: &[u64; 32], bytes: usize, mask: u32) {
        let n = mask.count_ones() as usize;
        match space {
            Space::Global | Space::Generic => {
                let mut sectors = [0; 32];
                for (sector, lane) in sectors.iter_mut().zip(lanes(mask)) {
                    *sector = addresses[lane] / 32;
                }
                self.counters.sectors += distinct(&mut sectors[..n]) as u64;
                self.counters.ideal_sectors += (n * bytes).div_ceil(32) as u64;
            }
            Space::Shared => {
                // One wavefront moves up to 128 bytes. A lane's access lies in banks of its own, so
                // whole accesses are counted instead of words.
                let unit = bytes.max(4) as u64;
                let per_pass = 128 / unit as usize;
                let mut of_mask = lanes(mask);
                for _ in 0..n.div_ceil(per_pass) {
                    let (mut units, mut n_units) = ([0; 32], 0);
                    for lane in of_mask.by_ref().take(per_pass) {
                        units[n_units] = addresses[lane] / unit;
                        n_units += 1;
                    }
                    let n_units = distinct(&mut units[..n_units]);
                    self.counters.shared_wavefronts += wavefronts(&units[..n_units], per_pass);
                    self.counters.ideal_wavefronts += 1;
                }
            }
            _ => {}
        }
    }
}

/// Wavefronts needed for sorted, distinct units: the largest number of units in one bank.
fn wavefronts(units: &[u64], per_pass: usize) -> u64 {
    if let [first, .., last] = units
        && last - first < per_pass as u64
    {
        return 1;
    }
    let mut banks = [0u8; 32];
    units.iter().for_each(|unit| banks[*unit as usize % per_pass] += 1);
    banks.into_iter().max().unwrap_or(0).into()
}

/// Moves the distinct numbers, sorted, to the front; returns how many there are.
fn distinct(numbers: &mut [u64]) -> usize {
    if !numbers.is_sorted() {
        numbers.sort_unstable();
    }
    let mut n = 0;
    for i in 0..numbers.len() {
        if n == 0 || numbers[i] != numbers[n - 1] {
            numbers[n] = numbers[i];
            n += 1;
        }
    }
    n
}
