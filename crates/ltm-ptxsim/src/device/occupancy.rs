//! Occupancy: how many blocks of a launch a multiprocessor can hold. Knows the limits of a device
//! and the resources of a block; must not know instructions.
//!
//! Threads, blocks and shared memory are counted. Registers are counted only if `.maxnreg` limits
//! them: PTX has virtual registers, and the assembler decides how many physical ones a thread uses.
//! `xtask`, which reads the assembler's report, includes this file by its path.

use std::fmt;

/// Shared memory that the system reserves per block, in bytes.
pub(crate) const RESERVED_SHARED_BYTES: u64 = 1024;
/// Allocation unit of shared memory, in bytes.
const SHARED_GRAIN_BYTES: u64 = 128;
/// Allocation unit of registers, per warp.
const WARP_REGISTERS_GRAIN: u64 = 256;
/// A multiprocessor has four partitions with their own registers, so the warps that fit are a
/// multiple of this.
const PARTS: u64 = 4;

/// The resource that limits the number of blocks on a multiprocessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Threads per multiprocessor.
    Threads,
    /// Blocks per multiprocessor.
    Blocks,
    /// Shared memory.
    SharedMemory,
    /// Registers; counted only if `.maxnreg` limits them.
    Registers,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Threads => "threads",
            Self::Blocks => "blocks",
            Self::SharedMemory => "shared memory",
            Self::Registers => "registers",
        })
    }
}

/// What a multiprocessor has for its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Multiprocessor {
    /// Maximum resident threads.
    pub threads: u32,
    /// Maximum resident blocks.
    pub blocks: u32,
    /// Shared memory, in bytes.
    pub shared_bytes: u32,
    /// 32-bit registers.
    pub registers: u32,
}

impl Multiprocessor {
    /// Of compute capability 8.0.
    pub const SM_80: Self =
        Self { threads: 2048, blocks: 32, shared_bytes: 164 << 10, registers: 65_536 };
}

/// Theoretical occupancy of a multiprocessor by one launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// Resident blocks.
    pub blocks: u32,
    /// Resident warps.
    pub warps: u32,
    /// Maximum resident warps.
    pub max_warps: u32,
    /// The resource that limits the number of blocks.
    pub limit: Resource,
    /// Whether registers were counted.
    pub registers_counted: bool,
}

impl Occupancy {
    /// The occupancy for blocks of `threads` threads with `shared_bytes` of shared memory, and at most
    /// `registers` registers per thread if that is known.
    pub fn new(
        of: &Multiprocessor,
        threads: u64,
        shared_bytes: u64,
        registers: Option<u32>,
    ) -> Self {
        let warps = threads.div_ceil(32).max(1);
        let max_warps = u64::from(of.threads / 32);
        let shared = (shared_bytes + RESERVED_SHARED_BYTES).next_multiple_of(SHARED_GRAIN_BYTES);
        let mut held = vec![
            (max_warps / warps, Resource::Threads),
            (u64::from(of.blocks), Resource::Blocks),
            (u64::from(of.shared_bytes) / shared, Resource::SharedMemory),
        ];
        if let Some(registers) = registers {
            let of_warp = (32 * u64::from(registers.max(1))).next_multiple_of(WARP_REGISTERS_GRAIN);
            let of_all = u64::from(of.registers) / of_warp / PARTS * PARTS;
            held.push((of_all / warps, Resource::Registers));
        }
        // The first of equal limits is reported.
        let least = |a: (u64, Resource), b: (u64, Resource)| if b.0 < a.0 { b } else { a };
        let (blocks, limit) = held.into_iter().fold((u64::MAX, Resource::Threads), least);
        Self {
            blocks: blocks as u32,
            warps: (blocks * warps) as u32,
            max_warps: max_warps as u32,
            limit,
            registers_counted: registers.is_some(),
        }
    }

    /// Resident warps as a fraction of the maximum, from 0 to 1.
    pub fn share(&self) -> f64 {
        f64::from(self.warps) / f64::from(self.max_warps)
    }

    /// The occupancy as one flat JSON object.
    pub fn to_json(self) -> String {
        format!(
            r#"{{"blocks":{},"warps":{},"max_warps":{},"share":{:.4},"limit":"{}","registers_counted":{}}}"#,
            self.blocks,
            self.warps,
            self.max_warps,
            self.share(),
            self.limit,
            self.registers_counted
        )
    }
}

impl fmt::Display for Occupancy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { blocks, warps, max_warps, limit, registers_counted } = self;
        let percent = 100.0 * self.share();
        write!(f, "{blocks} blocks and {warps} of {max_warps} warps ({percent:.0} %) per ")?;
        write!(f, "multiprocessor, limited by {limit}")?;
        if *registers_counted { Ok(()) } else { write!(f, "; registers not counted") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Resource::*;

    /// `(threads, shared bytes, registers)` gives `(blocks, warps, limit)`.
    fn check(of: &Multiprocessor, launch: (u64, u64, Option<u32>), held: (u32, u32, Resource)) {
        let (threads, shared_bytes, registers) = launch;
        let got = Occupancy::new(of, threads, shared_bytes, registers);
        assert_eq!((got.blocks, got.warps, got.limit), held, "{launch:?}");
        assert_eq!(got.registers_counted, registers.is_some());
    }

    #[test]
    fn known_answers() {
        // Both have 2048 threads, 32 blocks and 65536 registers; 164 KiB and 228 KiB of shared
        // memory.
        let (a, h) = (
            &Multiprocessor::SM_80,
            &Multiprocessor { shared_bytes: 228 << 10, ..Multiprocessor::SM_80 },
        );
        check(a, (32, 0, None), (32, 32, Blocks));
        check(a, (33, 0, None), (32, 64, Threads));
        check(a, (256, 0, None), (8, 64, Threads));
        check(a, (1024, 0, None), (2, 64, Threads));
        check(a, (768, 0, None), (2, 48, Threads));
        check(a, (256, 64 << 10, None), (2, 16, SharedMemory));
        check(h, (256, 64 << 10, None), (3, 24, SharedMemory));
        check(a, (128, 163 << 10, None), (1, 4, SharedMemory));
        check(h, (128, 227 << 10, None), (1, 4, SharedMemory));
        check(h, (128, 163 << 10, None), (1, 4, SharedMemory));
        check(a, (256, 0, Some(128)), (2, 16, Registers));
        check(a, (256, 0, Some(32)), (8, 64, Threads));
        check(a, (256, 0, Some(33)), (6, 48, Registers));
        check(h, (256, 0, Some(255)), (1, 8, Registers));
        check(h, (384, 100 << 10, Some(168)), (1, 12, Registers));
    }
}
