//! Occupancy: how many blocks of a function fit on one multiprocessor.
//!
//! Threads, shared memory and the block limit are the device's; registers are nominal, since PTX
//! has none. Must not know launches.

use super::context::Context;
use super::device::model;
use super::error::{Code, Outcome};
use super::ffi::Out;
use super::module::{Function, NOMINAL_REGISTERS};
use super::state::{Handle, state};

/// Shared memory the system takes of each block.
const RESERVED_SHARED_BYTES: u64 = 1024;

/// Blocks of `threads` threads and `dynamic` bytes of shared memory that fit on a multiprocessor.
fn blocks_that_fit(function: &Function, threads: i32, dynamic: usize) -> Outcome<i32> {
    let model = model()?;
    let threads = u64::try_from(threads).ok().filter(|threads| *threads > 0);
    let threads = threads.ok_or(Code::InvalidValue.because("a block of no threads"))?;
    let most = function.entry().max_threads.unwrap_or(model.max_threads_per_block);
    let shared = u64::from(function.entry().static_shared_bytes) + dynamic as u64;
    if threads > u64::from(most) || shared > u64::from(model.shared_per_block_optin) {
        return Ok(0);
    }
    let rounded = threads.next_multiple_of(32);
    let by_threads = u64::from(model.threads_per_multiprocessor) / rounded;
    let registers = rounded * u64::from(NOMINAL_REGISTERS);
    let by_registers = u64::from(model.registers_per_multiprocessor) / registers;
    let by_shared = u64::from(model.shared_per_multiprocessor) / (shared + RESERVED_SHARED_BYTES);
    let by_limit = u64::from(model.blocks_per_multiprocessor);
    Ok(by_threads.min(by_registers).min(by_shared).min(by_limit) as i32)
}

driver_functions! {
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks: Out<i32>,
        function: Handle,
        threads: i32,
        dynamic: usize,
    ) {
        Context::usable()?;
        blocks.set(blocks_that_fit(&*state().functions.get(function)?, threads, dynamic)?)
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        blocks: Out<i32>,
        function: Handle,
        threads: i32,
        dynamic: usize,
        flags: u32,
    ) {
        // The one flag concerns caching of global loads, which does not change the count.
        let _ = flags;
        Context::usable()?;
        blocks.set(blocks_that_fit(&*state().functions.get(function)?, threads, dynamic)?)
    }

    fn cuOccupancyAvailableDynamicSMemPerBlock(
        bytes: Out<usize>,
        function: Handle,
        blocks: i32,
        threads: i32,
    ) {
        Context::usable()?;
        let function = state().functions.get(function)?;
        let fit = blocks_that_fit(&function, threads, 0)?;
        if blocks < 1 || blocks > fit {
            return Err(Code::InvalidValue.because(format!("{blocks} blocks, {fit} fit")));
        }
        let model = model()?;
        let share = u64::from(model.shared_per_multiprocessor) / blocks as u64;
        let usable = share.min(u64::from(model.shared_per_block_optin) + RESERVED_SHARED_BYTES);
        let taken = u64::from(function.entry().static_shared_bytes) + RESERVED_SHARED_BYTES;
        bytes.set(usable.saturating_sub(taken) as usize)
    }
}
