//! A warp: its registers and the groups of lanes that stand at different instructions. Knows how
//! lanes part and meet, not what instructions do.
//!
//! The group at the lowest instruction runs first, and groups that meet become one. A `.sync`
//! instruction holds its group until every lane that it names is there, so no lane runs past a
//! point where others are waited for, however the code is laid out.

use crate::alu::Lanes;
use crate::inst::{Code, Pred};

/// Lanes that stand at one instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub pc: u32,
    pub mask: u32,
    /// Whether it waits for other lanes of the warp.
    pub held: bool,
}

/// An asynchronous copy that has not landed.
pub(crate) struct PendingCopy {
    pub lane: usize,
    /// The lane's groups committed before this one.
    pub group: u32,
    pub at: u64,
    pub bytes: usize,
    pub data: [u8; 16],
}

pub(crate) struct Warp {
    pub index: usize,
    pub registers: Vec<Lanes>,
    pub predicates: Vec<u32>,
    /// By watched register, the lanes that have written it.
    pub defined: Vec<u32>,
    /// Sorted by instruction, highest first.
    pub groups: Vec<Group>,
    /// Lanes that have not exited.
    pub live: u32,
    /// The barrier that the warp waits at, with the threads it is for.
    pub waiting: Option<(u32, u32)>,
    pub local: Vec<u8>,
    /// The predicate that always holds.
    always: Option<Pred>,
    pub pending: Vec<PendingCopy>,
    /// Groups that each lane has committed.
    pub committed: [u32; 32],
}

impl Warp {
    /// The bytes that a warp takes.
    pub fn bytes(code: &Code) -> u64 {
        let registers = code.n_registers as u64 * size_of::<Lanes>() as u64;
        registers + 4 * code.n_predicates as u64 + 32 * u64::from(code.local_bytes)
    }

    pub fn new(code: &Code, index: usize) -> Self {
        Self {
            index,
            // What no instruction wrote is a NaN, and no small number.
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

    /// Back to the first instruction with `mask` lanes.
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

    /// Puts a group in its place, joining the one that stands there.
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

    /// Takes out the group to run next: the lowest that is not held.
    pub fn next(&mut self) -> Option<Group> {
        let at = self.groups.iter().rposition(|group| !group.held)?;
        Some(self.groups.remove(at))
    }
}
