//! Elements in device memory. Knows bytes and types; must not know shapes.

use std::sync::Arc;

use cudarc::driver::result;

use super::context::Context;
use super::driver::check;
use super::launch::Arg;
use super::pool::Memory;
use crate::{DType, Error, Result, host};

/// Elements of one type in the memory of one device.
#[derive(Debug)]
pub(crate) struct DeviceBuffer {
    context: &'static Context,
    dtype: DType,
    len: usize,
    /// `None` for a buffer without elements.
    memory: Option<Arc<Memory>>,
}

impl DeviceBuffer {
    /// `len` zeros.
    pub fn zeros(context: &'static Context, dtype: DType, len: usize) -> Result<Self> {
        let buffer = Self::uninitialised(context, dtype, len)?;
        if len > 0 {
            let _queue = context.enter()?;
            // SAFETY: the allocation has this many bytes, and all work on it is on this stream.
            let zeroed = unsafe {
                result::memset_d8_async(buffer.address(), 0, buffer.size_bytes(), context.stream)
            };
            check("fill with zeros", zeroed)?;
        }
        Ok(buffer)
    }

    fn uninitialised(context: &'static Context, dtype: DType, len: usize) -> Result<Self> {
        let device = || format!("cuda:{}", context.ordinal());
        let size_bytes = len
            .checked_mul(dtype.size_bytes())
            .ok_or_else(|| Error::OutOfMemory { device: device(), size_bytes: usize::MAX })?;
        let memory = match size_bytes {
            0 => None,
            _ => Some(Arc::new(allocate(context, size_bytes)?)),
        };
        Ok(Self { context, dtype, len, memory })
    }

    /// The address of the elements, for work that is about to be queued. A recording in progress
    /// keeps the memory alive for as long as it exists.
    pub fn address(&self) -> u64 {
        let Some(memory) = &self.memory else { return 0 };
        self.context.keep_while_recorded(memory);
        memory.address()
    }

    pub fn context(&self) -> &'static Context {
        self.context
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub fn len(&self) -> usize {
        self.len
    }

    fn size_bytes(&self) -> usize {
        self.memory.as_ref().map_or(0, |memory| memory.size_bytes())
    }

    /// The address, as an argument of a launch.
    pub fn arg(&self) -> Arg {
        Arg::Ptr(self.address())
    }

    /// Copies to newly allocated memory.
    pub fn try_clone(&self) -> Result<Self> {
        let mut copy = Self::uninitialised(self.context, self.dtype, self.len)?;
        copy.copy_range(0, self, 0, self.len)?;
        Ok(copy)
    }

    /// Overwrites all elements with `data`, whose size the caller has checked.
    pub fn upload<T: bytemuck::Pod>(&mut self, data: &[T]) -> Result<()> {
        assert_eq!(size_of_val(data), self.size_bytes(), "an upload fills the buffer");
        if data.is_empty() {
            return Ok(());
        }
        let _queue = self.context.enter_unrecorded("copy to the device")?;
        // SAFETY: source and target have the same size; pageable host memory has been read when
        // the call returns, as nothing is being recorded.
        let copied =
            unsafe { result::memcpy_htod_async(self.address(), data, self.context.stream) };
        check("copy to the device", copied)
    }

    /// Reads all elements, after all queued work. `T` has the size of an element.
    pub fn download<T: bytemuck::Pod>(&self) -> Result<Vec<T>> {
        assert_eq!(size_of::<T>(), self.dtype.size_bytes(), "a download keeps the element's width");
        let mut data = host::zeros(self.len)?;
        if data.is_empty() {
            return Ok(data);
        }
        let _queue = self.context.enter_unrecorded("copy from the device")?;
        // SAFETY: source and target have the same size, and the target outlives the wait below.
        let copied =
            unsafe { result::memcpy_dtoh_async(&mut data, self.address(), self.context.stream) };
        check("copy from the device", copied)?;
        // SAFETY: the stream lives as long as the context.
        check("copy from the device", unsafe { result::stream::synchronize(self.context.stream) })?;
        Ok(data)
    }

    /// Copies elements `from..from + len` of `other` to `to..to + len`. The caller has checked the
    /// ranges, and that both buffers have the same type and device.
    pub fn copy_range(&mut self, to: usize, other: &Self, from: usize, len: usize) -> Result<()> {
        assert!(to + len <= self.len && from + len <= other.len, "ranges lie within their buffers");
        let width = self.dtype.size_bytes();
        if len == 0 {
            return Ok(());
        }
        let _queue = self.context.enter()?;
        let (to, from) =
            (self.address() + (to * width) as u64, other.address() + (from * width) as u64);
        // SAFETY: both ranges lie within their allocations, as asserted, and do not overlap: a
        // mutable and a shared reference name different buffers.
        let copied =
            unsafe { result::memcpy_dtod_async(to, from, len * width, self.context.stream) };
        check("copy on the device", copied)
    }
}

fn allocate(context: &'static Context, size_bytes: usize) -> Result<Memory> {
    if let Some(memory) = context.pool.take(size_bytes) {
        return Ok(memory);
    }
    let _queue = context.enter()?;
    context.pool.allocate(size_bytes)
}
