//! What can go wrong: text that is no PTX, and programs that hardware would run into undefined
//! behaviour. Knows no instruction.

use std::fmt;

/// PTX that cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The line of the PTX, from 1.
    pub line: u32,
    /// The text there, shortened.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PTX line {}: {}", self.line, self.reason)?;
        if self.text.is_empty() { Ok(()) } else { write!(f, ": `{}`", self.text) }
    }
}

impl std::error::Error for ParseError {}

/// The rule that a program broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// An address outside every allocation, or outside the block's shared memory.
    OutOfBounds,
    /// An address in an allocation that was freed.
    UseAfterFree,
    /// An address that is no multiple of the access's size.
    Misaligned,
    /// Memory read before anything was written to it.
    Uninitialised,
    /// A register used before anything was written to it.
    UnwrittenRegister,
    /// Two threads at the same shared memory, one of them writing, with neither a barrier nor, for
    /// lanes of one warp, a place where they meet in between; or lanes that write different values
    /// at once.
    SharedRace,
    /// Two blocks at the same global memory in one launch, one of them writing.
    GlobalRace,
    /// An asynchronous copy's target used before the copy was waited for.
    PendingCopy,
    /// A barrier that some thread never reaches.
    Deadlock,
    /// A `.sync` instruction that some lane it names never reaches, or whose mask does not name a
    /// lane that executes it or that it reads.
    DivergentSync,
    /// A launch that asks for more than a block may have.
    Limit,
    /// More instructions than a block may issue, see [`Options::max_steps`](crate::Options).
    Endless,
    /// `trap`.
    Trap,
    /// An `assert` that does not hold.
    Assert,
    /// A kernel that contains what the simulator does not execute: an unknown instruction, a function
    /// without a body, code for another architecture than the device's.
    Unsupported,
}

/// The other access of a race.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherAccess {
    /// The block's index.
    pub block: [u32; 3],
    /// The thread's index; none where several threads made the same access.
    pub thread: Option<[u32; 3]>,
    /// The PTX line, from 1.
    pub ptx_line: u32,
    /// The instruction.
    pub ptx_text: String,
    /// File and line of the kernel's source, where the PTX has them.
    pub source: Option<(String, u32)>,
}

/// A broken rule and everything that is known about where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The rule.
    pub kind: FaultKind,
    /// The kernel's name.
    pub kernel: String,
    /// The PTX line, from 1; 0 when the launch itself is at fault.
    pub ptx_line: u32,
    /// The instruction.
    pub ptx_text: String,
    /// File and line of the kernel's source, where the PTX has them.
    pub source: Option<(String, u32)>,
    /// Files and lines of the functions inlined there, from the innermost outwards.
    pub inlined: Vec<(String, u32)>,
    /// The block's index.
    pub block: [u32; 3],
    /// The thread's index, where one thread is at fault.
    pub thread: Option<[u32; 3]>,
    /// The address, where there is one.
    pub address: Option<u64>,
    /// What happened.
    pub detail: String,
    /// The other access, where two threads are in a race.
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

/// A block, and a thread of it.
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

/// A fault as the instruction that meets it knows it.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub kind: FaultKind,
    pub lane: Option<usize>,
    pub address: Option<u64>,
    pub detail: String,
    pub other: Option<Other>,
}

/// The other access of a race, as records hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Other {
    /// The block's number, where it is another block.
    pub block: Option<u32>,
    /// The thread's number in its block, where it is a single one.
    pub thread: Option<u32>,
    /// The instruction's number.
    pub pc: u32,
}

impl Trouble {
    pub fn at(kind: FaultKind, lane: usize, address: u64, detail: impl Into<String>) -> Self {
        Self { kind, lane: Some(lane), address: Some(address), detail: detail.into(), other: None }
    }

    pub fn warp(kind: FaultKind, detail: impl Into<String>) -> Self {
        Self { kind, lane: None, address: None, detail: detail.into(), other: None }
    }

    pub fn lane(kind: FaultKind, lane: usize, detail: impl Into<String>) -> Self {
        Self { kind, lane: Some(lane), address: None, detail: detail.into(), other: None }
    }

    /// With the other access of a race.
    pub fn against(self, other: Other) -> Self {
        Self { other: Some(other), ..self }
    }
}
