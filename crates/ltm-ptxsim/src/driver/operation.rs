//! A piece of work for a stream: run when submitted, or kept as the node of a graph.
//!
//! Knows what each piece does to memory. Must not know streams or captures.

use std::sync::Arc;

use super::context::Context;
use super::error::{Code, Outcome};
use super::ffi::{HostCall, HostSource, HostTarget};
use super::launch::Launch;
use super::state::locked;

/// A piece of work.
#[derive(Clone)]
pub(super) enum Operation {
    /// A kernel, with its arguments as they were at submission.
    Kernel(Arc<Launch>),
    /// A copy from host memory as it is when the work runs.
    CopyToDevice { to: u64, from: HostSource, bytes: usize },
    /// A copy to host memory.
    CopyToHost { to: HostTarget, from: u64, bytes: usize },
    /// A copy within the device.
    CopyOnDevice { to: u64, from: u64, bytes: usize },
    /// A copy within the host, which unified addresses allow.
    CopyOnHost { to: HostTarget, from: HostSource, bytes: usize },
    /// `count` times the same value.
    Fill { to: u64, with: Fill, count: usize },
    /// A function of the caller.
    Host(HostCall),
}

/// The value of a fill, which tells its width.
#[derive(Clone, Copy)]
pub(super) enum Fill {
    U8(u8),
    U16(u16),
    U32(u32),
}

impl Fill {
    /// The value's bytes, and how many of them count.
    fn pattern(self) -> ([u8; 4], usize) {
        match self {
            Fill::U8(value) => (u32::from(value).to_le_bytes(), 1),
            Fill::U16(value) => (u32::from(value).to_le_bytes(), 2),
            Fill::U32(value) => (value.to_le_bytes(), 4),
        }
    }
}

impl Operation {
    /// Does it, after all work submitted before.
    pub(super) fn run(&self, context: &Context) -> Outcome<()> {
        if let Operation::Host(call) = self {
            // Without the queue: the caller's function may wait for another thread's work.
            return call.run();
        }
        let _queue = locked(&context.queue);
        // The work before may have faulted between this call's start and its turn.
        context.check_fault()?;
        let memory = &context.memory;
        match self {
            Operation::Kernel(launch) => launch.run(context)?,
            Operation::CopyToDevice { to, from, bytes } => {
                memory.write(*to, from.bytes(*bytes)?)?
            }
            Operation::CopyToHost { to, from, bytes } => {
                // Refused before the buffer is made: a wild size must not exhaust the host.
                check_extent(context, *from, *bytes)?;
                let mut data = vec![0; *bytes];
                memory.read(*from, &mut data)?;
                to.write(&data)?;
            }
            Operation::CopyOnDevice { to, from, bytes } => {
                memory.copy(*to, *from, *bytes)?;
            }
            Operation::CopyOnHost { to, from, bytes } => {
                // By way of a buffer of our own: the two places may overlap.
                let data = from.bytes(*bytes)?.to_vec();
                to.write(&data)?;
            }
            Operation::Fill { to, with, count } => {
                let (pattern, width) = with.pattern();
                // Saturated, a wild count is out of bounds like any other.
                memory.fill(*to, &pattern[..width], count.saturating_mul(width))?;
            }
            Operation::Host(_) => {}
        }
        Ok(())
    }

    /// The `CUgraphNodeType` of this work.
    pub(super) fn node_type(&self) -> u32 {
        match self {
            Operation::Kernel(_) => 0,
            Operation::Fill { .. } => 2,
            Operation::Host(_) => 3,
            _ => 1,
        }
    }

    /// One line for a picture of a graph.
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

fn check_extent(context: &Context, address: u64, bytes: usize) -> Outcome<()> {
    let end = context.memory.allocation(address).map(|(start, length)| start + length);
    match end {
        Some(end) if bytes as u64 <= end - address => Ok(()),
        None if bytes == 0 => Ok(()),
        Some(end) => Err(Code::InvalidValue.because(format!(
            "{bytes} bytes at {address:#x}, where the allocation has {} left",
            end - address
        ))),
        None => Err(Code::InvalidValue.because(format!("{address:#x} is in no allocation"))),
    }
}
