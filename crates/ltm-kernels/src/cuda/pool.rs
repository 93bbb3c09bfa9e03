//! Device memory that returns to a pool when dropped. Knows bytes; must not know types.

use std::collections::HashMap;
use std::sync::Mutex;

use cudarc::driver::result;
use cudarc::driver::sys::CUresult;

use super::driver::{check, describe, lock};
use crate::{Error, Result};

/// Freed allocations of one device by size in bytes. A plan's buffers have few distinct sizes, so only exact fits
/// are reused and nothing is split or merged. All work is on one stream, so a block may be reused
/// while the work that last used it is still running.
#[derive(Debug)]
pub(super) struct Pool {
    /// The device's number, for messages.
    ordinal: usize,
    free: Mutex<HashMap<usize, Vec<u64>>>,
}

impl Pool {
    pub fn new(ordinal: usize) -> Self {
        Self { ordinal, free: Mutex::default() }
    }

    /// A free block of this size, if there is one.
    pub fn take(&'static self, size_bytes: usize) -> Option<Memory> {
        let address = lock(&self.free).get_mut(&size_bytes).and_then(Vec::pop)?;
        Some(Memory { pool: self, address, size_bytes })
    }

    /// A new block of the device whose context is bound. If memory is short, the driver gets all free blocks first.
    pub fn allocate(&'static self, size_bytes: usize) -> Result<Memory> {
        // SAFETY: a fresh allocation, owned by the result.
        let malloc = || unsafe { result::malloc_sync(size_bytes) };
        let address = match malloc() {
            Err(e) if e.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                self.trim()?;
                malloc()
            }
            outcome => outcome,
        }
        .map_err(|e| match e.0 {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                Error::OutOfMemory { device: format!("cuda:{}", self.ordinal), size_bytes }
            }
            _ => Error::Cuda { call: "allocate memory".into(), reason: describe(e) },
        })?;
        Ok(Memory { pool: self, address, size_bytes })
    }

    fn put(&self, size_bytes: usize, address: u64) {
        lock(&self.free).entry(size_bytes).or_default().push(address);
    }

    /// Returns all free blocks to the driver.
    fn trim(&self) -> Result<()> {
        for (_, blocks) in lock(&self.free).drain() {
            for address in blocks {
                // SAFETY: the block came from `malloc_sync` and nobody holds it.
                check("free memory", unsafe { result::free_sync(address) })?;
            }
        }
        Ok(())
    }
}

/// One allocation. It returns to the pool when its last owner is dropped: a buffer, or a recording
/// whose work uses it.
#[derive(Debug)]
pub(super) struct Memory {
    pool: &'static Pool,
    address: u64,
    size_bytes: usize,
}

impl Memory {
    pub fn address(&self) -> u64 {
        self.address
    }

    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.pool.put(self.size_bytes, self.address);
    }
}
