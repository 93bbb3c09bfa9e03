//! What a launch tells its caller: its fault, or what it counted. Must not know how kernels run.

mod counters;
mod fault;
mod trouble;

pub use counters::{Class, Counters};
pub use fault::{Fault, FaultKind, OtherAccess};
pub(crate) use trouble::{Other, Trouble};
