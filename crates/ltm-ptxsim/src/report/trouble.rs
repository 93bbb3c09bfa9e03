//! A fault as an instruction sees it. Knows lanes and addresses; must not know the launch, which adds the place.

use super::fault::FaultKind;

/// A fault as reported by an instruction, before the place is added.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub kind: FaultKind,
    pub lane: Option<usize>,
    pub address: Option<u64>,
    pub detail: String,
    pub other: Option<Other>,
}

/// The other access of a race, as stored in the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Other {
    /// The block's linear index; `None` if it is the same block.
    pub block: Option<u32>,
    /// The thread's linear index in its block; `None` if there are several.
    pub thread: Option<u32>,
    /// Index of the instruction.
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

    /// Adds the other access of a race.
    pub fn against(self, other: Other) -> Self {
        Self { other: Some(other), ..self }
    }
}
