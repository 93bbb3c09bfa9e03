//! A running block, and what all blocks of a launch share. Must not know instructions.

use super::warp::Warp;
use crate::memory::{Fences, Shared, Snapshot};
use crate::options::{LaunchConfig, Options};
use crate::program::{BarrierKind, Code, Reg};
use crate::report::Counters;

/// What all blocks of a launch share.
pub(crate) struct Launch<'a> {
    pub code: &'a Code,
    pub params: &'a [u8],
    pub memory: Snapshot,
    pub options: &'a Options,
    /// Distinguishes this launch from others in the access records of memory.
    pub number: u64,
    /// Tracks which accesses of different blocks are ordered.
    pub fences: Fences,
    pub(super) initial: Vec<(Reg, u64)>,
    pub(super) specials: Vec<(Reg, &'a str)>,
    pub(super) config: LaunchConfig,
    pub(super) static_bytes: u32,
    pub(super) shared_bytes: usize,
}

impl Launch<'_> {
    /// The 3-D index of a block from its linear index in the grid.
    pub fn block_index(&self, number: u64) -> [u32; 3] {
        let [x, y, z] = self.config.grid.map(u64::from);
        [number % x, number / x % y, number / x / y % z].map(|i| i as u32)
    }

    /// The 3-D index of a thread from its linear index in the block.
    pub fn thread_index(&self, thread: u32) -> [u32; 3] {
        let [x, y, _] = self.config.block;
        [thread % x, thread / x % y, thread / x / y]
    }
}

/// A running block.
pub(crate) struct Block<'a> {
    pub launch: &'a Launch<'a>,
    /// Its linear index in the grid.
    pub number: u32,
    pub n_threads: u32,
    pub shared: Shared,
    pub counters: Counters,
    /// Index of the allocation that the last global access used.
    pub hint: usize,
    /// The block's time for ordering between blocks: the number of fences so far.
    pub time: u32,
    pub(super) votes: Vec<Vote>,
}

/// One warp's contribution to a reducing barrier (`bar.red`).
pub(super) struct Vote {
    warp: usize,
    kind: BarrierKind,
    votes: u32,
    mask: u32,
    d: Option<Reg>,
    dp: Option<u32>,
}

impl Block<'_> {
    /// Records a warp's contribution to a reducing barrier until all have arrived.
    pub(crate) fn vote(
        &mut self,
        warp: usize,
        kind: BarrierKind,
        votes: u32,
        mask: u32,
        d: Option<Reg>,
        dp: Option<u32>,
    ) {
        self.votes.push(Vote { warp, kind, votes, mask, d, dp });
    }

    pub(super) fn settle_votes(&mut self, warps: &mut [Warp]) {
        let popc: u32 = self.votes.iter().map(|vote| vote.votes.count_ones()).sum();
        let all = self.votes.iter().all(|vote| vote.votes == vote.mask);
        for vote in std::mem::take(&mut self.votes) {
            let warp = &mut warps[vote.warp];
            if let Some(d) = vote.d {
                warp.set(d, &[u64::from(popc); 32], vote.mask);
            }
            let holds = if vote.kind == BarrierKind::And { all } else { popc > 0 };
            if let Some(dp) = vote.dp {
                let p = &mut warp.predicates[dp as usize];
                *p = *p & !vote.mask | if holds { vote.mask } else { 0 };
            }
        }
    }
}
