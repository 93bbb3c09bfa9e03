//! A warp: its registers and its groups of lanes, each at its own instruction. Knows how lanes
//! diverge and reconverge; must not know what instructions do.
//!
//! The group at the lowest instruction runs first, and groups that meet merge. A `.sync`
//! instruction holds its group until every lane in its mask has arrived, so no lane passes a point
//! where others wait for it, however the code is laid out.

use crate::program::{Code, Pred};
use crate::values::Lanes;

/// All lanes.
pub(crate) const ALL: u32 = u32::MAX;

/// The lanes of a mask.
pub(crate) fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    (0..32).filter(move |lane| mask >> lane & 1 != 0)
}

/// Lanes at the same instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub pc: u32,
    pub mask: u32,
    /// Whether it waits for other lanes of the warp.
    pub held: bool,
}

/// What happens after an instruction.
pub(crate) enum Flow {
    Next,
    Exit,
    /// These lanes wait here for other lanes of their warp; the rest continue.
    Hold(u32),
    Barrier {
        id: u32,
        count: u32,
    },
    Jump,
}

/// An asynchronous copy that has not arrived.
pub(crate) struct PendingCopy {
    pub lane: usize,
    /// Number of copy groups that the lane had committed before this copy.
    pub group: u32,
    pub at: u64,
    pub bytes: usize,
    pub data: [u8; 16],
}

pub(crate) struct Warp {
    pub index: usize,
    pub registers: Vec<Lanes>,
    pub predicates: Vec<u32>,
    /// Per watched register, the mask of lanes that have written it.
    pub defined: Vec<u32>,
    /// Sorted by instruction, highest first.
    pub groups: Vec<Group>,
    /// Lanes that have not exited.
    pub live: u32,
    /// The id of the barrier that the warp waits at, and its thread count.
    pub waiting: Option<(u32, u32)>,
    pub local: Vec<u8>,
    /// The predicate that is always true.
    always: Option<Pred>,
    pub pending: Vec<PendingCopy>,
    /// Number of copy groups that each lane has committed.
    pub committed: [u32; 32],
}

impl Warp {
    /// Host memory per warp, in bytes.
    pub fn bytes(code: &Code) -> u64 {
        let registers = code.n_registers as u64 * size_of::<Lanes>() as u64;
        registers + 4 * code.n_predicates as u64 + 32 * u64::from(code.local_bytes)
    }

    pub fn new(code: &Code, index: usize) -> Self {
        Self {
            index,
            // Unwritten registers hold a NaN, which is not a small integer either.
            registers: vec![[0x7fff_dead_7fff_dead; 32]; code.n_registers],
            predicates: vec![0; code.n_predicates],
            defined: vec![0; code.watched.len()],
            groups: Vec::new(),
            live: 0,
            waiting: None,
            always: code.always,
            local: vec![0xff; code.local_bytes as usize * 32],
            pending: Vec::new(),
            committed: [0; 32],
        }
    }

    /// Restarts at the first instruction with the lanes in `mask`.
    pub fn start(&mut self, mask: u32) {
        self.groups.clear();
        self.groups.push(Group { pc: 0, mask, held: false });
        self.live = mask;
        if let Some(always) = self.always {
            self.predicates[always as usize] = u32::MAX;
        }
        self.defined.fill(0);
        self.waiting = None;
        self.pending.clear();
        self.committed = [0; 32];
    }

    /// Inserts a group, merging it with one at the same instruction.
    pub fn insert(&mut self, group: Group) {
        if group.mask == 0 {
            return;
        }
        let at = self.groups.partition_point(|other| other.pc > group.pc);
        match self.groups.get_mut(at) {
            Some(other) if other.pc == group.pc => {
                other.mask |= group.mask;
                other.held = false;
            }
            _ => self.groups.insert(at, group),
        }
    }

    /// Removes the group to run next: the one at the lowest instruction that is not held.
    pub fn next(&mut self) -> Option<Group> {
        let at = self.groups.iter().rposition(|group| !group.held)?;
        Some(self.groups.remove(at))
    }

    pub(crate) fn set(&mut self, d: u32, value: &Lanes, mask: u32) {
        blend(&mut self.registers[d as usize], value, mask);
    }

    pub(crate) fn get(&self, register: u32) -> &Lanes {
        &self.registers[register as usize]
    }

    pub(crate) fn set_predicate(&mut self, d: u32, value: u32, mask: u32) {
        let p = &mut self.predicates[d as usize];
        *p = *p & !mask | value & mask;
    }

    pub(crate) fn predicate(&self, (p, negated): (u32, bool)) -> u32 {
        let p = self.predicates[p as usize];
        if negated { !p } else { p }
    }
}

fn blend(target: &mut Lanes, value: &Lanes, mask: u32) {
    if mask == ALL {
        *target = *value;
    } else {
        for lane in lanes(mask) {
            target[lane] = value[lane];
        }
    }
}
