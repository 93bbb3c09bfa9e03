//! What the work of a context runs on: its memory, the order of work, and the fault that ended it.
//!
//! Must not know what the work is.

use std::sync::Mutex;

use super::code::{Code, Failure, Outcome};
use super::handle::locked;
use crate::Memory;

/// Memory and state that operations change.
pub(super) struct Engine {
    pub(super) memory: Memory,
    /// Held while work runs, so that work of several threads runs in the order it was submitted.
    pub(super) queue: Mutex<()>,
    fault: Mutex<Option<Code>>,
}

impl Engine {
    /// An engine with so much memory.
    pub(super) fn new(bytes: u64) -> Engine {
        Engine { memory: Memory::new(bytes), queue: Mutex::new(()), fault: Mutex::new(None) }
    }

    /// After a fault every call returns its code until the context is destroyed; the fault is
    /// described only once.
    pub(super) fn check_fault(&self) -> Outcome<()> {
        locked(&self.fault).map_or(Ok(()), |code| Err(code.into()))
    }

    /// Keeps the code of the first fault.
    pub(super) fn poison(&self, failure: &Failure) {
        locked(&self.fault).get_or_insert(failure.code);
    }
}
