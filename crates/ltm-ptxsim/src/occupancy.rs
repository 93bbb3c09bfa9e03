//! How many blocks of a launch a multiprocessor holds at once. Knows a device's limits and what a
//! block takes, no instruction.
//!
//! Threads, blocks and shared memory are counted. Registers are counted only where `.maxnreg`
//! bounds them: PTX has virtual registers, and what a thread takes of the physical ones is decided
//! by the assembler.

use std::fmt;

use crate::{DeviceModel, LaunchConfig};

/// Shared memory that the system takes of each block, in bytes.
pub(crate) const RESERVED_SHARED_BYTES: u64 = 1024;
/// Shared memory is given out in multiples of so many bytes.
const SHARED_GRAIN_BYTES: u64 = 128;
/// Registers are given to a warp in multiples of this.
const WARP_REGISTERS_GRAIN: u64 = 256;
/// A multiprocessor's four parts have registers of their own, so warps fit in multiples of this.
const PARTS: u64 = 4;

/// What keeps a multiprocessor from holding another block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Its threads.
    Threads,
    /// Its places for blocks.
    Blocks,
    /// Its shared memory.
    SharedMemory,
    /// Its registers, where `.maxnreg` says how many a thread may take.
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

/// What a multiprocessor holds of one launch, in theory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// Blocks on a multiprocessor.
    pub blocks: u32,
    /// Their warps.
    pub warps: u32,
    /// The warps that a multiprocessor can hold.
    pub max_warps: u32,
    /// What stands in the way of one more block.
    pub limit: Resource,
    /// Whether registers were counted.
    pub registers_counted: bool,
}

impl Occupancy {
    /// Of blocks of `config`, which have `static_shared_bytes` besides, and threads of at most
    /// `registers` registers.
    pub fn new(
        device: &DeviceModel,
        config: &LaunchConfig,
        static_shared_bytes: u32,
        registers: Option<u32>,
    ) -> Self {
        let threads: u64 = config.block.iter().map(|extent| u64::from(*extent)).product();
        let warps = threads.div_ceil(32).max(1);
        let max_warps = u64::from(device.threads_per_multiprocessor / 32);
        let shared = u64::from(static_shared_bytes) + u64::from(config.dynamic_shared_bytes);
        let shared = (shared + RESERVED_SHARED_BYTES).next_multiple_of(SHARED_GRAIN_BYTES);
        let mut limits = vec![
            (max_warps / warps, Resource::Threads),
            (u64::from(device.blocks_per_multiprocessor), Resource::Blocks),
            (u64::from(device.shared_per_multiprocessor) / shared, Resource::SharedMemory),
        ];
        if let Some(registers) = registers {
            let of_warp = (32 * u64::from(registers.max(1))).next_multiple_of(WARP_REGISTERS_GRAIN);
            let held = u64::from(device.registers_per_multiprocessor) / of_warp / PARTS * PARTS;
            limits.push((held / warps, Resource::Registers));
        }
        // Of equal limits the first is named.
        let least = |a: (u64, Resource), b: (u64, Resource)| if b.0 < a.0 { b } else { a };
        let (blocks, limit) = limits.into_iter().fold((u64::MAX, Resource::Threads), least);
        Self {
            blocks: blocks as u32,
            warps: (blocks * warps) as u32,
            max_warps: max_warps as u32,
            limit,
            registers_counted: registers.is_some(),
        }
    }

    /// The share of a multiprocessor's warps that is taken, from 0 to 1.
    pub fn share(&self) -> f64 {
        f64::from(self.warps) / f64::from(self.max_warps)
    }

    /// One flat JSON object.
    pub fn to_json(&self) -> String {
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
        write!(f, "{blocks} blocks and {warps} of {max_warps} warps ({percent:.0} %) a ")?;
        write!(f, "multiprocessor, limited by {limit}")?;
        if *registers_counted { Ok(()) } else { write!(f, "; registers not counted") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Resource::*;

    /// `(threads, shared bytes, registers)` against `(blocks, warps, limit)`.
    fn check(device: &DeviceModel, launch: (u32, u32, Option<u32>), held: (u32, u32, Resource)) {
        let (threads, dynamic_shared_bytes, registers) = launch;
        let config = LaunchConfig { grid: [1; 3], block: [threads, 1, 1], dynamic_shared_bytes };
        let got = Occupancy::new(device, &config, 0, registers);
        assert_eq!((got.blocks, got.warps, got.limit), held, "{launch:?}");
        assert_eq!(got.registers_counted, registers.is_some());
    }

    #[test]
    fn known_answers() {
        // 2048 threads, 32 blocks and 65536 registers each, 164 KiB and 228 KiB.
        let (a, h) = (&DeviceModel::sm_80(), &DeviceModel::sm_90());
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
