//! Runs the warps of a block in random order, and opens its barriers. Must not know instructions.

use super::block::{Block, Launch};
use super::exec::{self, Stop};
use super::special::special;
use super::warp::Warp;
use crate::memory::Shared;
use crate::report::{Counters, FaultKind, Trouble};

type Outcome = Result<Counters, (Trouble, usize, u32)>;

pub(super) fn run_block(
    launch: &Launch,
    warps: &mut [Warp],
    number: u32,
    index: [u32; 3],
    n_threads: u32,
) -> Outcome {
    let mut random = Random::new(launch.options.seed, u64::from(number));
    for warp in warps.iter_mut() {
        let lanes = (n_threads - 32 * warp.index as u32).min(32);
        warp.start(u32::MAX >> (32 - lanes));
        for (reg, value) in &launch.initial {
            warp.registers[*reg as usize] = [*value; 32];
        }
        for (reg, name) in &launch.specials {
            let first = 32 * warp.index as u32;
            let value = |lane: u32| special(name, launch, index, first + lane, warp.index as u32);
            warp.registers[*reg as usize] = std::array::from_fn(|lane| value(lane as u32));
        }
    }
    let mut block = Block {
        launch,
        number,
        n_threads,
        shared: Shared::new(launch.shared_bytes, warps.len(), launch.options.races),
        counters: Counters { warps: warps.len() as u64, ..Counters::default() },
        hint: 0,
        time: 0,
        votes: Vec::new(),
    };
    let mut ready: Vec<usize> = (0..warps.len()).collect();
    let mut exited = 0;
    let limit = launch.options.max_steps;
    loop {
        while !ready.is_empty() {
            let at = random.below(ready.len());
            let warp = ready[at];
            let turn = 16 + random.below(240) as u32;
            let outcome = exec::run(&mut block, &mut warps[warp], turn);
            match outcome.map_err(|(trouble, pc)| (trouble, warp, pc))? {
                Stop::Turn => {}
                Stop::Barrier => {
                    ready.swap_remove(at);
                }
                Stop::Done => {
                    exited += 1;
                    ready.swap_remove(at);
                }
            }
            if block.counters.instructions.iter().sum::<u64>() > limit {
                let pc = warps[warp].groups.last().map_or(0, |group| group.pc);
                let detail =
                    format!("the block's warps have issued more than {limit} instructions");
                return Err((Trouble::warp(FaultKind::Endless, detail), warp, pc));
            }
        }
        if exited == warps.len() {
            return Ok(block.counters);
        }
        ready = release(&mut block, warps)?;
    }
}

/// Opens a barrier that all its threads have reached; returns the warps that continue.
fn release(block: &mut Block, warps: &mut [Warp]) -> Result<Vec<usize>, (Trouble, usize, u32)> {
    let waiting = |warp: &Warp| warp.waiting;
    let ids: Vec<_> = warps.iter().filter_map(waiting).collect();
    for (id, count) in ids {
        let at: Vec<usize> =
            (0..warps.len()).filter(|w| warps[*w].waiting == Some((id, count))).collect();
        let arrived: u32 = at.iter().map(|w| warps[*w].live.count_ones()).sum();
        if arrived < count {
            continue;
        }
        block.shared.open_barrier();
        block.settle_votes(warps);
        for warp in &at {
            warps[*warp].waiting = None;
        }
        return Ok(at);
    }
    let stuck = warps.iter().find(|warp| warp.waiting.is_some()).map_or(0, |warp| warp.index);
    let (id, count) = warps[stuck].waiting.unwrap_or_default();
    let arrived: u32 =
        warps.iter().filter(|w| w.waiting.is_some()).map(|w| w.live.count_ones()).sum();
    let detail = format!(
        "{arrived} of {count} threads wait at barrier {id}, the others exited or wait elsewhere"
    );
    let pc = warps[stuck].groups.last().map_or(0, |group| group.pc.saturating_sub(1));
    Err((Trouble::warp(FaultKind::Deadlock, detail), stuck, pc))
}

/// An xorshift generator: the order of warps needs to be reproducible, nothing more.
struct Random(u64);

impl Random {
    fn new(seed: u64, block: u64) -> Self {
        Self((seed ^ block.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1)
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % n
    }
}
