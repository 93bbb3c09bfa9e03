//! What orders accesses of different blocks to global memory: fences together with atomics or other
//! strong accesses. Knows blocks, addresses and times; must not know instructions.
//!
//! A block's time is the number of fences it has executed. A strong write after a fence releases
//! what the block did before the fence. A block that then accesses the same address strongly
//! acquires it, together with everything the releasing block had acquired. As in the CUDA guide's
//! sum over blocks, the reader needs no fence of its own.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Maximum number of releases recorded per launch; beyond it all blocks count as ordered, so races
/// may be missed.
const MAX_RELEASES: usize = 1 << 22;

/// All releases and acquires of a launch.
#[derive(Default)]
pub(crate) struct Fences(Mutex<Records>);

#[derive(Default)]
struct Records {
    places: HashMap<u64, Place>,
    /// What each block acquired, in order: an address, and how many of its releases.
    acquired: HashMap<u32, Vec<(u64, u32)>>,
    n_releases: usize,
}

#[derive(Default)]
struct Place {
    releases: Vec<Release>,
    /// Per block, the indices of its releases.
    by_block: HashMap<u32, Vec<u32>>,
}

struct Release {
    block: u32,
    /// Accesses of `block` before this time are released.
    before: u32,
    /// How many entries of `acquired` the block had at that time.
    known: u32,
}

impl Fences {
    fn records(&self) -> std::sync::MutexGuard<'_, Records> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block writes strongly to an address: this releases what it did before time `before`.
    pub fn release(&self, block: u32, before: u32, address: u64) {
        let mut records = self.records();
        if records.n_releases >= MAX_RELEASES {
            return;
        }
        let known = records.acquired.get(&block).map_or(0, |list| list.len() as u32);
        let place = records.places.entry(address).or_default();
        let own = place.by_block.entry(block).or_default();
        let last = own.last().map(|i| &place.releases[*i as usize]);
        if last.is_some_and(|last| last.before == before && last.known == known) {
            return;
        }
        own.push(place.releases.len() as u32);
        place.releases.push(Release { block, before, known });
        records.n_releases += 1;
    }

    /// A block accesses an address strongly: it acquires what was released there.
    pub fn acquire(&self, block: u32, address: u64) {
        let mut records = self.records();
        let n = records.places.get(&address).map_or(0, |place| place.releases.len() as u32);
        let list = records.acquired.entry(block).or_default();
        if n > 0 && list.last() != Some(&(address, n)) {
            list.push((address, n));
        }
    }

    /// Whether what `other` did at `time` is ordered before what `block` does now.
    pub fn orders(&self, block: u32, other: u32, time: u32) -> bool {
        let records = self.records();
        if records.n_releases >= MAX_RELEASES {
            return true;
        }
        // Search through the blocks acquired from, with how many entries of each were already
        // visited.
        let mut looked_at: HashMap<u32, u32> = HashMap::new();
        let mut open = vec![(block, u32::MAX)];
        while let Some((block, known)) = open.pop() {
            let Some(list) = records.acquired.get(&block) else { continue };
            let known = known.min(list.len() as u32);
            let looked = looked_at.entry(block).or_default();
            let done = *looked;
            *looked = done.max(known);
            for (address, n) in list.iter().take(known as usize).skip(done as usize) {
                let Some(place) = records.places.get(address) else { continue };
                let of_other = place.by_block.get(&other).map_or(&[][..], Vec::as_slice);
                let n_released = of_other.partition_point(|i| i < n);
                let last = of_other[..n_released].last();
                if last.is_some_and(|i| place.releases[*i as usize].before > time) {
                    return true;
                }
                for release in &place.releases[..*n as usize] {
                    let more =
                        looked_at.get(&release.block).is_none_or(|done| *done < release.known);
                    if release.known > 0 && more {
                        open.push((release.block, release.known));
                    }
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_orders_what_came_before_its_fence() {
        let fences = Fences::default();
        fences.release(0, 1, 64);
        assert!(!fences.orders(1, 0, 0), "nothing was acquired");
        fences.acquire(1, 128);
        assert!(!fences.orders(1, 0, 0), "another address");
        fences.acquire(1, 64);
        assert!(fences.orders(1, 0, 0));
        assert!(!fences.orders(1, 0, 1), "after the fence");
        assert!(!fences.orders(0, 1, 0), "the other way round");
    }

    #[test]
    fn what_a_block_acquired_it_hands_on() {
        let fences = Fences::default();
        fences.release(0, 1, 64);
        fences.acquire(1, 64);
        fences.release(1, 1, 72);
        fences.acquire(2, 72);
        assert!(fences.orders(2, 0, 0));
        // A release before the acquire passes nothing on.
        fences.release(3, 1, 80);
        fences.acquire(3, 64);
        fences.acquire(4, 80);
        assert!(!fences.orders(4, 0, 0));
    }
}
