//! What orders the threads of a block: barriers, and convergence points where lanes of a warp meet.
//! Knows times and threads; must not know memory.

/// Bits of a record that hold the thread's index in its block; the flags below follow them.
const THREAD: u16 = 0x3ff;
/// Other lanes of the same warp did the same.
pub(crate) const LANES: u16 = 1 << 10;
/// Threads of other warps did the same.
pub(crate) const WARPS: u16 = 1 << 11;

/// When the lanes of a warp met.
#[derive(Clone, Default)]
pub(crate) struct Meetings {
    /// The last time that all live lanes met.
    all: u32,
    /// `some[lane][other]`: `lane` is ordered after everything that `other` did before this time.
    /// Allocated when only part of the warp first meets.
    some: Option<Box<[[u32; 32]; 32]>>,
}

impl Meetings {
    /// The lanes in `members` have waited for each other; `live` are those that have not exited.
    pub fn meet(&mut self, time: u32, members: u32, live: u32) {
        if members == live {
            self.all = time;
            return;
        }
        let some = self.some.get_or_insert_default();
        let is_member = |lane: &usize| members >> lane & 1 != 0;
        // The members share what each of them knew about every lane.
        let known: [u32; 32] = std::array::from_fn(|lane| {
            let knew = (0..32).filter(is_member).map(|member| some[member][lane]);
            if is_member(&lane) { time } else { knew.max().unwrap_or(0) }
        });
        (0..32).filter(is_member).for_each(|member| some[member] = known);
    }
}

/// A thread as records store it; with `LANES` it stands for its whole warp.
pub(crate) fn thread(warp: usize, lane: usize) -> u16 {
    (32 * warp + lane) as u16
}

/// What a thread (with `LANES`, its whole warp) is ordered after.
pub(crate) struct Order<'a> {
    pub barrier: u32,
    pub meetings: &'a Meetings,
    pub me: u16,
}

/// What orders an earlier access before a later one.
#[derive(PartialEq, Eq)]
pub(crate) enum Before {
    /// A barrier, or a place where the lanes met.
    Met,
    /// Program order: both are by the same thread.
    Own,
    /// Nothing: the two may race.
    No,
}

impl Order<'_> {
    /// Whether what `who` did at `time` is ordered before what happens now.
    pub fn after(&self, time: u32, who: u16) -> bool {
        time < self.barrier || self.within_warp(time, who) != Before::No
    }

    pub fn of(&self, time: u32, who: u16) -> Before {
        if time < self.barrier { Before::Met } else { self.within_warp(time, who) }
    }

    fn within_warp(&self, time: u32, who: u16) -> Before {
        let (me, meetings) = (self.me, self.meetings);
        if who & WARPS != 0 || warp_of(who) != warp_of(me) {
            return Before::No;
        }
        if time < meetings.all {
            return Before::Met;
        }
        if me & LANES != 0 {
            return Before::No;
        }
        let (lane, other) = (usize::from(me & 31), usize::from(who & 31));
        // With `LANES` it is unknown which lanes these were. Any meeting since then counts, so that
        // no race is reported wrongly.
        let other_met = if who & LANES != 0 { lane } else { other };
        if meetings.some.as_ref().is_some_and(|some| some[lane][other_met] > time) {
            Before::Met
        } else if who & LANES == 0 && lane == other {
            Before::Own
        } else {
            Before::No
        }
    }
}

/// The warp of a thread.
pub(crate) fn warp_of(who: u16) -> usize {
    usize::from((who & THREAD) >> 5)
}

/// Adds a thread to the record of threads that made the same unordered access before it.
pub(crate) fn joined(me: u16, others: u16) -> u16 {
    let same_warp = warp_of(me) == warp_of(others);
    let same = me & (THREAD | LANES) == others & (THREAD | LANES);
    let more = if !same_warp {
        WARPS
    } else if same {
        0
    } else {
        LANES
    };
    me | more | others & (WARPS | if same_warp { LANES } else { 0 })
}
