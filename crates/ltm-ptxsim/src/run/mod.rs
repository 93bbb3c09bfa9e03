//! Execution: launches, blocks, warps and their instructions. Knows when things happen; what memory allows is in
//! `memory`, what instructions compute in `values`.

mod access;
mod async_copy;
mod atomic;
mod block;
mod builtin;
mod exchange;
mod exec;
mod launch;
mod matrix;
mod schedule;
mod special;
mod traffic;
mod warp;
mod watch;

pub use launch::launch;
