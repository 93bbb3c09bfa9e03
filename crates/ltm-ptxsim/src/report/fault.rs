//! Faults: rules that a program broke, and where. Must not know instructions.

use std::fmt;

/// The rule that a program broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// An address outside every allocation, or outside the block's shared memory.
    OutOfBounds,
    /// An address in an allocation that was freed.
    UseAfterFree,
    /// An address that is not a multiple of the access size.
    Misaligned,
    /// Memory read before it was written.
    Uninitialised,
    /// A register used before it was written.
    UnwrittenRegister,
    /// Two threads access the same shared memory, at least one of them writing, without a barrier
    /// between the accesses or, for lanes of one warp, a place where both meet; or lanes write
    /// different values in one instruction.
    SharedRace,
    /// Two blocks access the same global memory in one launch, at least one of them writing, and
    /// nothing orders the accesses.
    GlobalRace,
    /// The target of an asynchronous copy used before the copy was waited for.
    PendingCopy,
    /// A barrier that some thread never reaches.
    Deadlock,
    /// A `.sync` instruction that some lane it names never reaches, or whose mask does not name a
    /// lane that executes it or that it reads.
    DivergentSync,
    /// A launch that exceeds a limit of the device or of the kernel.
    Limit,
    /// More instructions than a block may issue, see [`Options::max_steps`](crate::Options).
    Endless,
    /// A `trap` instruction.
    Trap,
    /// A failed `assert`.
    Assert,
    /// A kernel that the simulator cannot execute: an unknown instruction, a function without a
    /// body, or code for another architecture.
    Unsupported,
}

/// The other access of a race.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherAccess {
    /// The block's index.
    pub block: [u32; 3],
    /// The thread's index; `None` if several threads made the same access.
    pub thread: Option<[u32; 3]>,
    /// The PTX line, from 1.
    pub ptx_line: u32,
    /// The instruction.
    pub ptx_text: String,
    /// File and line of the kernel's source, where the PTX has them.
    pub source: Option<(String, u32)>,
}

/// A broken rule, and where it was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The rule.
    pub kind: FaultKind,
    /// Name of the kernel.
    pub kernel: String,
    /// The PTX line, from 1; 0 if the launch itself is invalid.
    pub ptx_line: u32,
    /// The instruction.
    pub ptx_text: String,
    /// File and line of the kernel's source, where the PTX has them.
    pub source: Option<(String, u32)>,
    /// Files and lines of the functions inlined there, innermost first.
    pub inlined: Vec<(String, u32)>,
    /// The block's index.
    pub block: [u32; 3],
    /// The thread's index, if a single thread is at fault.
    pub thread: Option<[u32; 3]>,
    /// The address, for a fault of a memory access.
    pub address: Option<u64>,
    /// What happened.
    pub detail: String,
    /// The other access, for a race.
    pub other: Option<Box<OtherAccess>>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} in kernel `{}`: {}", self.kind, self.kernel, self.detail)?;
        if let Some(address) = self.address {
            write!(f, " (address {address:#x})")?;
        }
        if self.ptx_line > 0 {
            write!(f, "\n  at PTX line {}: {}", self.ptx_line, self.ptx_text)?;
        }
        if let Some((file, line)) = &self.source {
            write!(f, "\n  from {file}:{line}")?;
        }
        for (file, line) in self.inlined.iter().rev() {
            write!(f, ", inlined from {file}:{line}")?;
        }
        if self.ptx_line == 0 {
            return Ok(());
        }
        write!(f, "\n  in {}", Place(self.block, self.thread))?;
        if let Some(other) = &self.other {
            write!(f, "\n  against PTX line {}: {}", other.ptx_line, other.ptx_text)?;
            if let Some((file, line)) = &other.source {
                write!(f, "\n  from {file}:{line}")?;
            }
            write!(f, "\n  in {}", Place(other.block, other.thread))?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

/// A block, and a thread of it if known.
struct Place([u32; 3], Option<[u32; 3]>);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.0;
        write!(f, "block ({x}, {y}, {z})")?;
        match self.1 {
            Some([x, y, z]) => write!(f, ", thread ({x}, {y}, {z})"),
            None => Ok(()),
        }
    }
}
