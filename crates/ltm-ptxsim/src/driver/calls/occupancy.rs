//! Occupancy: how many blocks of a function fit on a multiprocessor.
//!
//! Must not know launches or how the number is computed.

use crate::device::{Occupancy, RESERVED_SHARED_BYTES};
use crate::driver::code::{Code, Outcome};
use crate::driver::context::Context;
use crate::driver::device::model;
use crate::driver::ffi::Out;
use crate::driver::handle::Handle;
use crate::driver::library::function_of;
use crate::driver::module::Function;

/// How many blocks of `threads` threads and `dynamic` bytes of dynamic shared memory fit on a
/// multiprocessor.
fn blocks_that_fit(function: &Function, threads: i32, dynamic: usize) -> Outcome<i32> {
    let model = model()?;
    let threads = u32::try_from(threads).ok().filter(|threads| *threads > 0);
    let threads = threads.ok_or(Code::InvalidValue.because("a block of no threads"))?;
    let entry = function.entry();
    let most = entry.max_threads.unwrap_or(model.max_threads_per_block);
    let room = model.shared_per_block_optin.saturating_sub(entry.static_shared_bytes);
    if threads > most || dynamic > room as usize {
        return Ok(0);
    }
    let shared_bytes = u64::from(entry.static_shared_bytes) + dynamic as u64;
    let of = &model.multiprocessor;
    let occupancy = Occupancy::new(of, threads.into(), shared_bytes, entry.max_registers);
    Ok(occupancy.blocks as i32)
}

driver_functions! {
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks: Out<i32>,
        function: Handle,
        threads: i32,
        dynamic: usize,
    ) {
        let context = Context::usable()?;
        blocks.set(blocks_that_fit(&*function_of(&context, function)?, threads, dynamic)?)
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        blocks: Out<i32>,
        function: Handle,
        threads: i32,
        dynamic: usize,
        flags: u32,
    ) {
        // The only flag controls caching of global loads, which does not affect occupancy.
        let _ = flags;
        let context = Context::usable()?;
        blocks.set(blocks_that_fit(&*function_of(&context, function)?, threads, dynamic)?)
    }

    fn cuOccupancyAvailableDynamicSMemPerBlock(
        bytes: Out<usize>,
        function: Handle,
        blocks: i32,
        threads: i32,
    ) {
        let context = Context::usable()?;
        let function = function_of(&context, function)?;
        let fit = blocks_that_fit(&function, threads, 0)?;
        if blocks < 1 || blocks > fit {
            return Err(Code::InvalidValue.because(format!("{blocks} blocks, 1 to {fit} fit")));
        }
        let model = model()?;
        let share = u64::from(model.multiprocessor.shared_bytes) / blocks as u64;
        let usable = share.min(u64::from(model.shared_per_block_optin) + RESERVED_SHARED_BYTES);
        let taken = u64::from(function.entry().static_shared_bytes) + RESERVED_SHARED_BYTES;
        bytes.set(usable.saturating_sub(taken) as usize)
    }
}
