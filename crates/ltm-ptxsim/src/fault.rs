//! What can go wrong: text that is no PTX, and programs that hardware would run into undefined
//! behaviour. Knows no instruction.

use std::fmt;

/// PTX that cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The line of the PTX, from 1.
    pub line: u32,
    /// What stands there.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PTX line {}: {}: `{}`", self.line, self.reason, self.text)
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
    /// A `.sync` instruction that some lane it names never reaches.
    DivergentSync,
    /// A launch that asks for more than a block may have.
    Limit,
    /// More instructions than a block may issue, see [`Options::max_steps`](crate::Options).
    Endless,
    /// `trap`.
    Trap,
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
    /// What stands there.
    pub ptx_text: String,
    /// File and line of the source, where the PTX says.
    pub source: Option<(String, u32)>,
    /// The block's index.
    pub block: [u32; 3],
    /// The thread's index, where one thread is at fault.
    pub thread: Option<[u32; 3]>,
    /// The address, where there is one.
    pub address: Option<u64>,
    /// The rest of the story.
    pub detail: String,
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
        let [x, y, z] = self.block;
        write!(f, "\n  in block ({x}, {y}, {z})")?;
        if let Some([x, y, z]) = self.thread {
            write!(f, ", thread ({x}, {y}, {z})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

/// A fault as the instruction that meets it knows it.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub kind: FaultKind,
    pub lane: Option<usize>,
    pub address: Option<u64>,
    pub detail: String,
}

impl Trouble {
    pub fn at(kind: FaultKind, lane: usize, address: u64, detail: impl Into<String>) -> Self {
        Self { kind, lane: Some(lane), address: Some(address), detail: detail.into() }
    }

    pub fn warp(kind: FaultKind, detail: impl Into<String>) -> Self {
        Self { kind, lane: None, address: None, detail: detail.into() }
    }
}
