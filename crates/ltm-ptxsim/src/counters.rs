//! What a launch did, counted. Knows no instruction's meaning.

use std::fmt;

use crate::occupancy::Occupancy;

/// Kinds of instructions that are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Integer and logical arithmetic, conversions, moves.
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
    /// Shared loads and stores, matrix loads.
    Shared,
    /// Loads and stores of a thread's own stack.
    Local,
    /// Asynchronous copies, their commits and waits.
    AsyncCopy,
    /// Shuffles, votes and reductions in a warp.
    Warp,
    /// Barriers of a block.
    Barrier,
    /// Branches, returns and predicates.
    Control,
}

/// Names of the classes, in order.
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

/// Sums over all warps of a launch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Instructions issued to a warp, by [`Class`].
    pub instructions: [u64; CLASSES.len()],
    /// Lanes that took part, over all instructions.
    pub active_lanes: u64,
    /// Branches that split a warp.
    pub divergent_branches: u64,
    /// Floating-point operations; a fused multiply-add counts two.
    pub flops: u64,
    /// Sectors of 32 bytes that global accesses touched.
    pub sectors: u64,
    /// The least sectors that could hold the bytes that they asked for.
    pub ideal_sectors: u64,
    /// Passes over the banks that shared accesses took.
    pub shared_wavefronts: u64,
    /// The least passes that their bytes could take.
    pub ideal_wavefronts: u64,
    /// Warps that ran.
    pub warps: u64,
    /// What a multiprocessor holds of the launch, which is no sum.
    pub occupancy: Option<Occupancy>,
}

impl Counters {
    pub(crate) fn count(&mut self, class: Class, mask: u32) {
        self.instructions[class as usize] += 1;
        self.active_lanes += u64::from(mask.count_ones());
    }

    /// Adds another count; the occupancy stays.
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

    /// Every sum by name.
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

    /// One flat JSON object of every sum.
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
