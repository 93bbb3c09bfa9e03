//! Counts what a launch did. Must not know what instructions mean.

use std::fmt;

use crate::device::Occupancy;

/// Classes of instructions that are counted separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Integer and logical arithmetic, conversions, moves; `ld.param`.
    Integer,
    /// Single-precision arithmetic.
    F32,
    /// Double-precision arithmetic.
    F64,
    /// Half-precision and packed arithmetic.
    Half,
    /// exp2, log2, reciprocal and the like.
    Special,
    /// Tensor-core products.
    Mma,
    /// Global loads and stores, atomics.
    Global,
    /// Shared loads, stores and atomics; matrix loads and stores.
    Shared,
    /// Local loads and stores.
    Local,
    /// Asynchronous copies, their commits and waits.
    AsyncCopy,
    /// Shuffles, votes and reductions in a warp.
    Warp,
    /// Block barriers.
    Barrier,
    /// Branches, returns and predicates.
    Control,
}

/// Names of the classes, in the order of [`Class`].
const CLASSES: [&str; 13] = [
    "integer",
    "f32",
    "f64",
    "half",
    "special",
    "mma",
    "global",
    "shared",
    "local",
    "async_copy",
    "warp",
    "barrier",
    "control",
];

/// Totals over all warps of a launch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Warp instructions issued, by [`Class`].
    pub instructions: [u64; CLASSES.len()],
    /// Active lanes, summed over all instructions.
    pub active_lanes: u64,
    /// Branches that split a warp.
    pub divergent_branches: u64,
    /// Floating-point operations; a fused multiply-add counts two.
    pub flops: u64,
    /// 32-byte sectors accessed in global memory.
    pub sectors: u64,
    /// Minimum number of sectors that could hold the accessed bytes.
    pub ideal_sectors: u64,
    /// Wavefronts of shared accesses: passes over the banks, several if there are bank conflicts.
    pub shared_wavefronts: u64,
    /// Minimum number of wavefronts for the accessed bytes.
    pub ideal_wavefronts: u64,
    /// Warps that ran.
    pub warps: u64,
    /// Occupancy of a multiprocessor; not a total.
    pub occupancy: Option<Occupancy>,
}

impl Counters {
    pub(crate) fn count(&mut self, class: Class, mask: u32) {
        self.instructions[class as usize] += 1;
        self.active_lanes += u64::from(mask.count_ones());
    }

    /// Adds the totals of `other`; `occupancy` stays as it is.
    pub fn add(&mut self, other: &Self) {
        for (own, other) in self.instructions.iter_mut().zip(other.instructions) {
            *own += other;
        }
        self.active_lanes += other.active_lanes;
        self.divergent_branches += other.divergent_branches;
        self.flops += other.flops;
        self.sectors += other.sectors;
        self.ideal_sectors += other.ideal_sectors;
        self.shared_wavefronts += other.shared_wavefronts;
        self.ideal_wavefronts += other.ideal_wavefronts;
        self.warps += other.warps;
    }

    /// Every total with its name.
    pub fn entries(&self) -> Vec<(&'static str, u64)> {
        let mut entries: Vec<_> = CLASSES.into_iter().zip(self.instructions).collect();
        entries.extend([
            ("active_lanes", self.active_lanes),
            ("divergent_branches", self.divergent_branches),
            ("flops", self.flops),
            ("sectors", self.sectors),
            ("ideal_sectors", self.ideal_sectors),
            ("shared_wavefronts", self.shared_wavefronts),
            ("ideal_wavefronts", self.ideal_wavefronts),
            ("warps", self.warps),
        ]);
        entries
    }

    /// All totals as one flat JSON object.
    pub fn to_json(&self) -> String {
        let fields: Vec<_> =
            self.entries().iter().map(|(name, count)| format!(r#""{name}":{count}"#)).collect();
        format!("{{{}}}", fields.join(","))
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in self.entries() {
            writeln!(f, "{name:<20}{count:>16}")?;
        }
        match &self.occupancy {
            Some(occupancy) => writeln!(f, "occupancy: {occupancy}"),
            None => Ok(()),
        }
    }
}
