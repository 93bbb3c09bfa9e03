//! Memory: device and host allocations, copies, fills, and settings of the memory pool.
//!
//! Knows which calls can be captured and which wait. Must not know kernels.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::Mutex;

use crate::driver::capture::refuse_unsafe_call;
use crate::driver::code::{Code, Outcome};
use crate::driver::context::{Context, current_handle};
use crate::driver::device::check_device;
use crate::driver::ffi::{HostAllocation, HostSource, HostTarget, Out};
use crate::driver::handle::{Handle, locked};
use crate::driver::operation::{Fill, Operation};

/// Page-locked host memory, by address.
static HOST_MEMORY: Mutex<BTreeMap<usize, HostAllocation>> = Mutex::new(BTreeMap::new());
/// Settings of each device's default memory pool.
static POOLS: Mutex<BTreeMap<i32, PoolSettings>> = Mutex::new(BTreeMap::new());

/// Settings of a device's memory pool. They are only stored: freed memory is always released at
/// once.
struct PoolSettings {
    reuse: [i32; 3],
    release_threshold: u64,
}

impl Default for PoolSettings {
    fn default() -> PoolSettings {
        PoolSettings { reuse: [1; 3], release_threshold: 0 }
    }
}

fn allocate(context: &Context, bytes: usize) -> Outcome<u64> {
    if bytes == 0 {
        return Err(Code::InvalidValue.because("0 bytes; allocate at least 1"));
    }
    Ok(context.engine.memory.alloc(bytes as u64)?)
}

/// With unified addressing, an address outside device memory is a host address.
fn unified_copy(context: &Context, to: u64, from: u64, bytes: usize) -> Operation {
    let on_device = |address| context.engine.memory.allocation(address).is_some();
    match (on_device(to), on_device(from)) {
        (true, true) => Operation::CopyOnDevice { to, from, bytes },
        (true, false) => {
            Operation::CopyToDevice { to, from: HostSource::from_address(from), bytes }
        }
        (false, true) => Operation::CopyToHost { to: HostTarget::from_address(to), from, bytes },
        (false, false) => Operation::CopyOnHost {
            to: HostTarget::from_address(to),
            from: HostSource::from_address(from),
            bytes,
        },
    }
}

/// The device of a pool handle. The handle is the device's ordinal plus 1, so that it is never
/// null.
fn pool_device(pool: Handle) -> Outcome<i32> {
    let device = i32::try_from(pool).unwrap_or(0) - 1;
    check_device(device).map_err(|_| Code::InvalidHandle.because("not a memory pool"))?;
    Ok(device)
}

fn allocate_host(address: Out<usize>, bytes: usize) -> Outcome<()> {
    Context::usable()?;
    refuse_unsafe_call("a host allocation")?;
    let allocation = HostAllocation::new(bytes)?;
    address.set(allocation.address())?;
    locked(&HOST_MEMORY).insert(allocation.address(), allocation);
    Ok(())
}

driver_functions! {
    fn cuMemAlloc_v2(address: Out<u64>, bytes: usize) {
        let context = Context::usable()?;
        refuse_unsafe_call("an allocation")?;
        address.set(allocate(&context, bytes)?)
    }

    fn cuMemFree_v2(address: u64) {
        let context = Context::current()?;
        refuse_unsafe_call("a free")?;
        context.engine.memory.free(address)?;
        context.check_fault()
    }

    fn cuMemAllocAsync(address: Out<u64>, bytes: usize, stream: Handle) {
        let context = Context::usable()?;
        let stream = context.stream(stream)?;
        stream.refuse_while_capturing("an allocation; allocate before the capture")?;
        address.set(allocate(&context, bytes)?)
    }

    fn cuMemFreeAsync(address: u64, stream: Handle) {
        let context = Context::current()?;
        let stream = context.stream(stream)?;
        stream.refuse_while_capturing("a free; free after the capture")?;
        context.engine.memory.free(address)?;
        context.check_fault()
    }

    fn cuMemGetAddressRange_v2(base: Out<u64>, bytes: Out<usize>, address: u64) {
        let context = Context::usable()?;
        let found = context.engine.memory.allocation(address);
        let (start, length) = found.ok_or(
            Code::NotFound.because(format!("{address:#x} is not within an allocation")),
        )?;
        base.set_if_wanted(start);
        bytes.set_if_wanted(length as usize);
        Ok(())
    }

    fn cuMemAllocHost_v2(address: Out<usize>, bytes: usize) {
        allocate_host(address, bytes)
    }

    fn cuMemHostAlloc(address: Out<usize>, bytes: usize, flags: u32) {
        // The flags portable (1), mapped (2) and write-combined (4) have no effect here.
        if flags > 7 {
            return Err(Code::InvalidValue.because(format!("flags {flags:#x} are unknown")));
        }
        allocate_host(address, bytes)
    }

    fn cuMemFreeHost(address: usize) {
        let context = Context::current()?;
        let found = locked(&HOST_MEMORY).remove(&address);
        found.ok_or(Code::InvalidValue.because("not a host allocation, or already freed"))?;
        context.check_fault()
    }

    fn cuMemcpyHtoD_v2(to: u64, from: HostSource, bytes: usize) {
        let context = Context::usable()?;
        context.submit_and_wait(Operation::CopyToDevice { to, from, bytes })
    }

    fn cuMemcpyDtoH_v2(to: HostTarget, from: u64, bytes: usize) {
        let context = Context::usable()?;
        context.submit_and_wait(Operation::CopyToHost { to, from, bytes })
    }

    fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) {
        let context = Context::usable()?;
        context.submit_and_wait(Operation::CopyOnDevice { to, from, bytes })
    }

    fn cuMemcpy(to: u64, from: u64, bytes: usize) {
        let context = Context::usable()?;
        context.submit_and_wait(unified_copy(&context, to, from, bytes))
    }

    fn cuMemcpyHtoDAsync_v2(to: u64, from: HostSource, bytes: usize, stream: Handle) {
        let context = Context::usable()?;
        context.submit(stream, Operation::CopyToDevice { to, from, bytes })
    }

    fn cuMemcpyDtoHAsync_v2(to: HostTarget, from: u64, bytes: usize, stream: Handle) {
        let context = Context::usable()?;
        context.submit(stream, Operation::CopyToHost { to, from, bytes })
    }

    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: Handle) {
        let context = Context::usable()?;
        context.submit(stream, Operation::CopyOnDevice { to, from, bytes })
    }

    fn cuMemcpyAsync(to: u64, from: u64, bytes: usize, stream: Handle) {
        let context = Context::usable()?;
        context.submit(stream, unified_copy(&context, to, from, bytes))
    }

    fn cuMemsetD8_v2(to: u64, value: u8, count: usize) {
        let context = Context::usable()?;
        context.submit_and_wait(Operation::Fill { to, with: Fill::U8(value), count })
    }

    fn cuMemsetD16_v2(to: u64, value: u16, count: usize) {
        let context = Context::usable()?;
        context.submit_and_wait(Operation::Fill { to, with: Fill::U16(value), count })
    }

    fn cuMemsetD32_v2(to: u64, value: u32, count: usize) {
        let context = Context::usable()?;
        context.submit_and_wait(Operation::Fill { to, with: Fill::U32(value), count })
    }

    fn cuMemsetD8Async(to: u64, value: u8, count: usize, stream: Handle) {
        let context = Context::usable()?;
        context.submit(stream, Operation::Fill { to, with: Fill::U8(value), count })
    }

    fn cuMemsetD16Async(to: u64, value: u16, count: usize, stream: Handle) {
        let context = Context::usable()?;
        context.submit(stream, Operation::Fill { to, with: Fill::U16(value), count })
    }

    fn cuMemsetD32Async(to: u64, value: u32, count: usize, stream: Handle) {
        let context = Context::usable()?;
        context.submit(stream, Operation::Fill { to, with: Fill::U32(value), count })
    }

    fn cuDeviceGetDefaultMemPool(pool: Out<Handle>, device: i32) {
        check_device(device)?;
        pool.set(device as usize + 1)
    }

    fn cuDeviceGetMemPool(pool: Out<Handle>, device: i32) {
        check_device(device)?;
        pool.set(device as usize + 1)
    }

    fn cuDeviceSetMemPool(device: i32, pool: Handle) {
        check_device(device)?;
        if pool_device(pool)? == device {
            return Ok(());
        }
        Err(Code::InvalidValue.because("the pool belongs to another device"))
    }

    fn cuMemPoolSetAttribute(pool: Handle, attribute: u32, value: *mut c_void) {
        let device = pool_device(pool)?;
        let mut pools = locked(&POOLS);
        let settings = pools.entry(device).or_default();
        match attribute {
            1..=3 => settings.reuse[attribute as usize - 1] = Out::<i32>::from_void(value).get()?,
            4 => settings.release_threshold = Out::<u64>::from_void(value).get()?,
            // High-water marks can only be reset to 0; here they always equal the current use.
            6 | 8 if Out::<u64>::from_void(value).get()? == 0 => {}
            _ => return Err(Code::InvalidValue.because(format!("pool attribute {attribute} is unknown or cannot be set"))),
        }
        Ok(())
    }

    fn cuMemPoolGetAttribute(pool: Handle, attribute: u32, value: *mut c_void) {
        let device = pool_device(pool)?;
        let mut pools = locked(&POOLS);
        let settings = pools.entry(device).or_default();
        match attribute {
            1..=3 => Out::from_void(value).set(settings.reuse[attribute as usize - 1]),
            4 => Out::from_void(value).set(settings.release_threshold),
            5..=8 => {
                let (free, all) = Context::usable()?.engine.memory.info();
                Out::from_void(value).set(all - free)
            }
            _ => Err(Code::InvalidValue.because(format!("pool attribute {attribute} is unknown or cannot be set"))),
        }
    }

    fn cuMemPoolTrimTo(pool: Handle, bytes_to_keep: usize) {
        // Freed memory is released at once, so the pool is always empty.
        let _ = bytes_to_keep;
        pool_device(pool).map(|_| ())
    }

    fn cuPointerGetAttribute(value: *mut c_void, attribute: u32, address: u64) {
        let context = Context::usable()?;
        let allocation = context.engine.memory.allocation(address);
        let on_host = locked(&HOST_MEMORY).contains_key(&(address as usize));
        if allocation.is_none() && !on_host {
            return Err(Code::InvalidValue.answers(format!("{address:#x} is not within an allocation")));
        }
        match (attribute, allocation) {
            (1, _) => Out::from_void(value).set(current_handle()),
            (2, _) => Out::from_void(value).set(if on_host { 1u32 } else { 2u32 }),
            (3, Some(_)) | (4, None) => Out::from_void(value).set(address),
            (8, _) => Out::from_void(value).set(0u8),
            (9, _) => Out::from_void(value).set(context.device),
            (11, Some((start, _))) => Out::from_void(value).set(start),
            (12, Some((_, bytes))) => Out::from_void(value).set(bytes),
            _ => Err(Code::InvalidValue.because(format!("pointer attribute {attribute} is not available here"))),
        }
    }
}
