//! An operation in a stream: executed when submitted, or kept as a node of a graph.
//!
//! Knows what each operation does to memory. Must not know streams or captures.

use std::sync::Arc;

use super::code::{Code, Outcome};
use super::engine::Engine;
use super::ffi::{HostCall, HostSource, HostTarget};
use super::handle::locked;
use super::launch::Launch;

/// An operation.
#[derive(Clone)]
pub(super) enum Operation {
    /// A kernel, with its arguments as they were when submitted.
    Kernel(Arc<Launch>),
    /// A copy from host memory, which is read when the operation runs.
    CopyToDevice { to: u64, from: HostSource, bytes: usize },
    /// A copy to host memory.
    CopyToHost { to: HostTarget, from: u64, bytes: usize },
    /// A copy within the device.
    CopyOnDevice { to: u64, from: u64, bytes: usize },
    /// A copy within host memory, which unified addressing allows.
    CopyOnHost { to: HostTarget, from: HostSource, bytes: usize },
    /// Fills `count` elements with one value.
    Fill { to: u64, with: Fill, count: usize },
    /// A call of the caller's function.
    Host(HostCall),
}

/// The value of a fill; its type is the element width.
#[derive(Clone, Copy)]
pub(super) enum Fill {
    U8(u8),
    U16(u16),
    U32(u32),
}

impl Fill {
    /// The value's bytes, and how many of them are used.
    fn pattern(self) -> ([u8; 4], usize) {
        match self {
            Fill::U8(value) => (u32::from(value).to_le_bytes(), 1),
            Fill::U16(value) => (u32::from(value).to_le_bytes(), 2),
            Fill::U32(value) => (value.to_le_bytes(), 4),
        }
    }
}

impl Operation {
    /// Runs the operation, after all work submitted before.
    pub(super) fn run(&self, engine: &Engine) -> Outcome<()> {
        if let Operation::Host(call) = self {
            // Not under the queue's lock: the function may wait for work of another thread.
            return call.run();
        }
        let _queue = locked(&engine.queue);
        // Earlier work may have faulted while this call waited for the lock.
        engine.check_fault()?;
        let memory = &engine.memory;
        match self {
            Operation::Kernel(launch) => launch.run(engine)?,
            Operation::CopyToDevice { to, from, bytes } => {
                memory.write(*to, from.bytes(*bytes)?)?
            }
            Operation::CopyToHost { to, from, bytes } => {
                // Checked before allocating the buffer: an absurd size must not exhaust host
                // memory.
                check_extent(engine, *from, *bytes)?;
                let mut data = vec![0; *bytes];
                memory.read(*from, &mut data)?;
                to.write(&data)?;
            }
            Operation::CopyOnDevice { to, from, bytes } => {
                memory.copy(*to, *from, *bytes)?;
            }
            Operation::CopyOnHost { to, from, bytes } => {
                // Through a temporary buffer, because the ranges may overlap.
                let data = from.bytes(*bytes)?.to_vec();
                to.write(&data)?;
            }
            Operation::Fill { to, with, count } => {
                let (pattern, width) = with.pattern();
                // Saturating, so that an absurd count is reported as out of bounds.
                memory.fill(*to, &pattern[..width], count.saturating_mul(width))?;
            }
            Operation::Host(_) => {}
        }
        Ok(())
    }

    /// The `CUgraphNodeType` of this operation.
    pub(super) fn node_type(&self) -> u32 {
        match self {
            Operation::Kernel(_) => 0,
            Operation::Fill { .. } => 2,
            Operation::Host(_) => 3,
            _ => 1,
        }
    }

    /// A one-line description for printing a graph.
    pub(super) fn label(&self) -> String {
        match self {
            Operation::Kernel(launch) => launch.label(),
            Operation::CopyToDevice { to, bytes, .. } => {
                format!("copy {bytes} bytes from the host to {to:#x}")
            }
            Operation::CopyToHost { from, bytes, .. } => {
                format!("copy {bytes} bytes from {from:#x} to the host")
            }
            Operation::CopyOnDevice { to, from, bytes } => {
                format!("copy {bytes} bytes from {from:#x} to {to:#x}")
            }
            Operation::CopyOnHost { bytes, .. } => format!("copy {bytes} bytes on the host"),
            Operation::Fill { to, count, .. } => format!("fill {count} elements at {to:#x}"),
            Operation::Host(_) => "host function".to_owned(),
        }
    }
}

fn check_extent(engine: &Engine, address: u64, bytes: usize) -> Outcome<()> {
    let end = engine.memory.allocation(address).map(|(start, length)| start + length);
    match end {
        Some(end) if bytes as u64 <= end - address => Ok(()),
        None if bytes == 0 => Ok(()),
        Some(end) => Err(Code::InvalidValue.because(format!(
            "{bytes} bytes at {address:#x}, where the allocation has {} left",
            end - address
        ))),
        None => {
            Err(Code::InvalidValue.because(format!("{address:#x} is not within an allocation")))
        }
    }
}
