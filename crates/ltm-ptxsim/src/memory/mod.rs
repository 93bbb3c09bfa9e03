//! Memory that checks its accesses: bounds, what was written, and races. Knows addresses, bytes and who accesses
//! them; must not know instructions.

mod allocation;
mod fences;
mod global;
mod order;
mod shared;
mod space;

pub(crate) use allocation::{Allocation, Site, Touch};
pub(crate) use fences::Fences;
pub(crate) use global::Snapshot;
pub use global::{Memory, MemoryError};
pub(crate) use shared::Shared;
pub(crate) use space::{LOCAL_WINDOW, SHARED_WINDOW, Space, place, space_of};
