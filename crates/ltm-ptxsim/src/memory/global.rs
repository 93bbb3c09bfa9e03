//! Global memory: allocations, and the addresses they are at. Must not know instructions.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError, RwLock};

use super::allocation::Allocation;
use crate::report::FaultKind;

/// The first global address; far above any small integer used as an address by mistake.
const FIRST_ADDRESS: u64 = 0x10_0000_0000;
/// Unmapped bytes after every allocation.
const RED_ZONE: u64 = 4096;

/// An error of [`Memory`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemoryError {
    /// The request exceeds the free memory.
    OutOfMemory {
        /// Requested bytes.
        bytes: u64,
    },
    /// Part of the range lies in no allocation.
    BadAddress {
        /// First address of the range.
        address: u64,
        /// Length of the range.
        bytes: u64,
    },
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory { bytes } => {
                write!(f, "out of memory: cannot allocate {bytes} bytes")
            }
            Self::BadAddress { address, bytes } => {
                write!(f, "{bytes} bytes at {address:#x} are not within one allocation")
            }
        }
    }
}

impl std::error::Error for MemoryError {}

/// The memory of a simulated device.
#[derive(Debug)]
pub struct Memory {
    capacity: u64,
    map: RwLock<Map>,
}

#[derive(Debug)]
struct Map {
    live: BTreeMap<u64, Arc<Allocation>>,
    /// Freed allocations: address and length. Addresses are never reused.
    freed: BTreeMap<u64, u64>,
    next: u64,
    used: u64,
}

impl Memory {
    /// An empty memory of `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        let map =
            Map { live: BTreeMap::new(), freed: BTreeMap::new(), next: FIRST_ADDRESS, used: 0 };
        Self { capacity, map: RwLock::new(map) }
    }

    /// Allocates `bytes` uninitialised bytes, aligned to 256; returns the address.
    ///
    /// # Errors
    /// [`MemoryError::OutOfMemory`] if the device or the host has too little free memory.
    pub fn alloc(&self, bytes: u64) -> Result<u64, MemoryError> {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        if bytes > self.capacity - map.used {
            return Err(MemoryError::OutOfMemory { bytes });
        }
        let address = map.next;
        let no_room = MemoryError::OutOfMemory { bytes };
        let allocation = Allocation::new(address, bytes as usize).ok_or(no_room)?;
        map.next += bytes.next_multiple_of(256) + RED_ZONE;
        map.used += bytes;
        map.live.insert(address, Arc::new(allocation));
        Ok(address)
    }

    /// Allocates `bytes` zeroed bytes; returns the address.
    ///
    /// # Errors
    /// [`MemoryError::OutOfMemory`] if the device or the host has too little free memory.
    pub fn alloc_zeroed(&self, bytes: u64) -> Result<u64, MemoryError> {
        let address = self.alloc(bytes)?;
        let (allocation, _) = self.range(address, 0)?;
        allocation.whole.store(true, Relaxed);
        Ok(address)
    }

    /// Frees an allocation, given the address that [`alloc`](Self::alloc) returned.
    ///
    /// # Errors
    /// [`MemoryError::BadAddress`] when no allocation starts there.
    pub fn free(&self, address: u64) -> Result<(), MemoryError> {
        let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
        let allocation =
            map.live.remove(&address).ok_or(MemoryError::BadAddress { address, bytes: 0 })?;
        map.used -= allocation.len as u64;
        map.freed.insert(address, allocation.len as u64);
        Ok(())
    }

    /// Free and total bytes.
    pub fn info(&self) -> (u64, u64) {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        (self.capacity - map.used, self.capacity)
    }

    /// Start address and length in bytes of the allocation that contains `address`.
    pub fn allocation(&self, address: u64) -> Option<(u64, u64)> {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        let (base, allocation) = map.live.range(..=address).next_back()?;
        let len = allocation.len as u64;
        (address - base < len.max(1)).then_some((*base, len))
    }

    /// Copies bytes to the host, whether or not they were ever written.
    ///
    /// # Errors
    /// [`MemoryError::BadAddress`] if the range is not within one allocation.
    pub fn read(&self, address: u64, out: &mut [u8]) -> Result<(), MemoryError> {
        let (allocation, at) = self.range(address, out.len())?;
        for (i, byte) in out.iter_mut().enumerate() {
            *byte = allocation.byte(at + i);
        }
        Ok(())
    }

    /// Copies bytes from the host.
    ///
    /// # Errors
    /// [`MemoryError::BadAddress`] if the range is not within one allocation.
    pub fn write(&self, address: u64, data: &[u8]) -> Result<(), MemoryError> {
        let (allocation, at) = self.range(address, data.len())?;
        allocation.write_bytes(at, data);
        Ok(())
    }

    /// Fills `bytes` bytes with a repeated pattern of 1, 2 or 4 bytes.
    ///
    /// # Errors
    /// [`MemoryError::BadAddress`] if the range is not within one allocation.
    pub fn fill(&self, address: u64, pattern: &[u8], bytes: usize) -> Result<(), MemoryError> {
        let (allocation, at) = self.range(address, bytes)?;
        let data: Vec<u8> = pattern.iter().copied().cycle().take(bytes).collect();
        allocation.write_bytes(at, &data);
        Ok(())
    }

    /// Copies bytes within this memory, except those that were never written.
    ///
    /// # Errors
    /// [`MemoryError::BadAddress`] if either range is not within one allocation.
    pub fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), MemoryError> {
        let (source, at) = self.range(from, bytes)?;
        let data: Vec<_> =
            (at..at + bytes).map(|i| (source.byte(i), source.is_written(i, 1))).collect();
        let (target, at) = self.range(to, bytes)?;
        let whole: Vec<u8> = data.iter().map(|(byte, _)| *byte).collect();
        if data.iter().all(|(_, written)| *written) {
            target.write_bytes(at, &whole);
        } else {
            for (i, (byte, written)) in data.into_iter().enumerate() {
                if written {
                    target.write_bytes(at + i, &[byte]);
                }
            }
        }
        Ok(())
    }

    fn range(&self, address: u64, bytes: usize) -> Result<(Arc<Allocation>, usize), MemoryError> {
        let bad = MemoryError::BadAddress { address, bytes: bytes as u64 };
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        let (base, allocation) = map.live.range(..=address).next_back().ok_or(bad.clone())?;
        let at = (address - base) as usize;
        if at.checked_add(bytes).is_some_and(|end| end <= allocation.len) {
            Ok((allocation.clone(), at))
        } else {
            Err(bad)
        }
    }

    /// The current allocations, for use by a launch.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let map = self.map.read().unwrap_or_else(PoisonError::into_inner);
        Snapshot { live: map.live.values().cloned().collect(), freed: map.freed.clone() }
    }
}

/// The allocations of a launch, sorted by address.
pub(crate) struct Snapshot {
    live: Vec<Arc<Allocation>>,
    freed: BTreeMap<u64, u64>,
}

impl Snapshot {
    /// The allocation that contains these bytes; `hint` is the index of the last one found.
    pub fn find(&self, address: u64, bytes: u64, hint: &mut usize) -> Option<&Allocation> {
        if let Some(allocation) = self.live.get(*hint)
            && allocation.holds(address, bytes)
        {
            return Some(allocation);
        }
        let i = self.live.partition_point(|a| a.base <= address).checked_sub(1)?;
        *hint = i;
        Some(&*self.live[i]).filter(|allocation| allocation.holds(address, bytes))
    }

    /// Explains why [`find`](Self::find) fails for these bytes.
    pub fn explain(&self, address: u64, bytes: u64) -> (FaultKind, String) {
        if let Some((base, len)) = self.freed.range(..=address).next_back()
            && address - base < *len
        {
            return (
                FaultKind::UseAfterFree,
                format!(
                    "{bytes} bytes of an allocation of {len} bytes at {base:#x} that was freed"
                ),
            );
        }
        let i = self.live.partition_point(|a| a.base <= address);
        let detail = match i.checked_sub(1).map(|i| &self.live[i]) {
            Some(a) => format!(
                "{bytes} bytes at offset {} of an allocation of {} bytes",
                address - a.base,
                a.len
            ),
            None => format!("{bytes} bytes where nothing is allocated"),
        };
        (FaultKind::OutOfBounds, detail)
    }
}
