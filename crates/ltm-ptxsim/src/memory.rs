//! Global memory: allocations with bounds, which bytes were written, and who accessed them. Knows
//! addresses and bytes; must not know instructions.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use crate::fault::FaultKind;
use crate::fences::Fences;

/// The first global address; far above any small integer used as an address by mistake.
const FIRST_ADDRESS: u64 = 0x10_0000_0000;
/// Unmapped bytes after every allocation.
const RED_ZONE: u64 = 4096;
/// Words per page of access records.
const PAGE_WORDS: usize = 1024;

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

/// One allocation.
#[derive(Debug)]
pub(crate) struct Allocation {
    base: u64,
    len: usize,
    words: Box<[AtomicU32]>,
    /// One bit per byte: whether it was ever written. Not maintained once `whole` is set.
    written: Box<[AtomicU32]>,
    whole: AtomicBool,
    /// Access records of this launch, see `touch`; pages are allocated on first use.
    touched: Box<[OnceLock<Box<Page>>]>,
}

/// Access records of the words of one page.
#[derive(Debug)]
struct Page {
    /// One record per word, from the low bits: last writer's block + 1 (22), last reader's block +
    /// 1 (22), bytes written (4), launch number (16), which invalidates records of earlier
    /// launches.
    records: Box<[AtomicU64]>,
    /// Thread and instruction of the last writer (low half) and the last reader.
    sites: Box<[AtomicU64]>,
    /// The writer's and the reader's time in their block, for kernels with fences.
    times: OnceLock<Box<[AtomicU64]>>,
}

fn zeros() -> Box<[AtomicU64]> {
    (0..PAGE_WORDS).map(|_| AtomicU64::new(0)).collect()
}

/// The thread and the instruction of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Site(u32);

impl Site {
    const PC_BITS: u32 = 22;

    pub fn new(thread: u32, pc: u32) -> Self {
        Self((thread & 0x3ff) << Self::PC_BITS | pc & ((1 << Self::PC_BITS) - 1))
    }

    pub fn thread(self) -> u32 {
        self.0 >> Self::PC_BITS
    }

    pub fn pc(self) -> u32 {
        self.0 & ((1 << Self::PC_BITS) - 1)
    }
}

/// One access by a block, to be recorded.
pub(crate) struct Touch<'a> {
    pub block: u32,
    /// The number of the launch.
    pub launch: u64,
    pub site: Site,
    /// The data, if the access is a write.
    pub data: Option<&'a [u8]>,
    /// The block's time and the launch's fences, for kernels that have fences.
    pub fences: Option<(u32, &'a Fences)>,
}

/// An unordered access by another block.
pub(crate) struct Clash {
    /// Offset of the first conflicting byte from the start of this access.
    pub at: usize,
    pub block: u32,
    pub site: Site,
    pub wrote: bool,
}

impl Allocation {
    /// Returns `None` if the host is out of memory. Host pages are committed on first write.
    fn new(base: u64, len: usize) -> Option<Self> {
        let n_words = len.div_ceil(4);
        Some(Self {
            base,
            len,
            words: bytemuck::try_zeroed_slice_box(n_words).ok()?,
            written: bytemuck::try_zeroed_slice_box(len.div_ceil(32)).ok()?,
            whole: AtomicBool::new(len == 0),
            touched: (0..n_words.div_ceil(PAGE_WORDS)).map(|_| OnceLock::new()).collect(),
        })
    }

    fn holds(&self, address: u64, bytes: u64) -> bool {
        address >= self.base
            && (address - self.base).checked_add(bytes).is_some_and(|end| end <= self.len as u64)
    }

    /// The offset of an address in this allocation.
    pub fn offset(&self, address: u64) -> usize {
        (address - self.base) as usize
    }

    fn byte(&self, at: usize) -> u8 {
        (self.words[at / 4].load(Relaxed) >> (at % 4 * 8)) as u8
    }

    /// Copies out bytes that start at a word boundary or lie within one word.
    pub fn load(&self, at: usize, out: &mut [u8]) {
        for (word, part) in self.words[at / 4..].iter().zip(out.chunks_mut(4)) {
            let bytes = (word.load(Relaxed) >> (at % 4 * 8)).to_le_bytes();
            match part {
                [a, b, c, d] => [*a, *b, *c, *d] = bytes,
                part => part.copy_from_slice(&bytes[..part.len()]),
            }
        }
    }

    /// Stores bytes that start at a word boundary or lie within one word.
    pub fn store(&self, at: usize, data: &[u8]) {
        for (word, part) in self.words[at / 4..].iter().zip(data.chunks(4)) {
            if let [a, b, c, d] = *part {
                word.store(u32::from_le_bytes([a, b, c, d]), Relaxed);
                continue;
            }
            let mut bytes = [0; 4];
            bytes[..part.len()].copy_from_slice(part);
            let shift = at % 4 * 8;
            let mask = ((1u32 << (8 * part.len())) - 1) << shift;
            let set = |old| Some(old & !mask | u32::from_le_bytes(bytes) << shift);
            // Other blocks may write the other half of the word at the same time.
            let _ = word.fetch_update(Relaxed, Relaxed, set);
        }
        self.mark_written(at, data.len());
    }

    /// Replaces the element of 2, 4 or 8 bytes at an aligned offset by a function of it; returns
    /// the old value.
    pub fn update(&self, at: usize, bytes: usize, f: impl Fn(u64) -> u64) -> u64 {
        // One lock for all 64-bit atomics suffices: they are rarely contended.
        static WIDE: std::sync::Mutex<()> = std::sync::Mutex::new(());
        self.mark_written(at, bytes);
        if bytes == 8 {
            let _one_at_a_time = WIDE.lock().unwrap_or_else(PoisonError::into_inner);
            let mut bytes = [0; 8];
            self.load(at, &mut bytes);
            let old = u64::from_le_bytes(bytes);
            self.store(at, &f(old).to_le_bytes());
            return old;
        }
        // An element of 2 bytes is one half of its word.
        let (shift, mask) = (at % 4 * 8, u32::MAX >> (32 - 8 * bytes));
        let element = |word: u32| word >> shift & mask;
        let set = |word: u32| {
            let new = f(u64::from(element(word))) as u32 & mask;
            Some(word & !(mask << shift) | new << shift)
        };
        let word = self.words[at / 4].fetch_update(AcqRel, Acquire, set).unwrap_or_default();
        u64::from(element(word))
    }

    fn write_bytes(&self, at: usize, data: &[u8]) {
        let mut i = 0;
        while i < data.len() {
            let offset = at + i;
            if offset.is_multiple_of(4) && i + 4 <= data.len() {
                let bytes = [data[i], data[i + 1], data[i + 2], data[i + 3]];
                self.words[offset / 4].store(u32::from_le_bytes(bytes), Relaxed);
                i += 4;
            } else {
                let word = &self.words[offset / 4];
                let shift = offset % 4 * 8;
                let kept = word.load(Relaxed) & !(0xff << shift);
                word.store(kept | u32::from(data[i]) << shift, Relaxed);
                i += 1;
            }
        }
        if at == 0 && data.len() == self.len {
            self.whole.store(true, Relaxed);
        } else {
            self.mark_written(at, data.len());
        }
    }

    fn mark_written(&self, at: usize, bytes: usize) {
        if self.whole.load(Relaxed) {
            return;
        }
        let mut i = at;
        while i < at + bytes {
            let n = (32 - i % 32).min(at + bytes - i);
            let bits = (((1u64 << n) - 1) as u32) << (i % 32);
            let entry = &self.written[i / 32];
            if entry.load(Relaxed) & bits != bits {
                entry.fetch_or(bits, Relaxed);
            }
            i += n;
        }
    }

    /// Whether all bytes of an access were ever written; it is at most 32 bytes and lies in one
    /// aligned group of 32.
    pub fn is_written(&self, at: usize, bytes: usize) -> bool {
        if self.whole.load(Relaxed) {
            return true;
        }
        let bits = (((1u64 << bytes) - 1) as u32) << (at % 32);
        self.written[at / 32].load(Relaxed) & bits == bits
    }

    /// Records a read or write of bytes that do not cross a multiple of 16; returns the first
    /// conflict with another block.
    pub fn touch(&self, at: usize, bytes: usize, touch: &Touch) -> Option<Clash> {
        const FIELD: u64 = (1 << 22) - 1;
        let page = self.touched[at / 4 / PAGE_WORDS].get_or_init(|| {
            Box::new(Page { records: zeros(), sites: zeros(), times: OnceLock::new() })
        });
        let launch = touch.launch & 0xffff;
        let me = u64::from(touch.block + 1) & FIELD;
        let (write, site) = (touch.data.is_some(), u64::from(touch.site.0));
        let first = at / 4 % PAGE_WORDS;
        let times = touch.fences.map(|_| page.times.get_or_init(zeros));
        for (i, record) in page.records[first..][..bytes.div_ceil(4)].iter().enumerate() {
            let here = (bytes - 4 * i).min(4);
            let old = record.load(Acquire);
            let bits = ((1u64 << here) - 1) << (at % 4);
            let (writer, reader, mask) = if old >> 48 == launch {
                (old & FIELD, old >> 22 & FIELD, old >> 44 & 15)
            } else {
                (0, 0, 0)
            };
            let sites = &page.sites[first + i];
            let time = times.map_or(0, |times| times[first + i].load(Relaxed));
            // A block that rewrites the same values does not undo what was released or read.
            let is_again = times.is_some()
                && writer == me
                && mask & bits == bits
                && touch
                    .data
                    .is_some_and(|data| self.holds_bytes(at + 4 * i, &data[4 * i..4 * i + here]));
            if is_again {
                continue;
            }
            // Whether another block's access at `time` is unordered with this one.
            let clash = |other: u64, time: u32| {
                other != 0
                    && other != me
                    && touch.fences.is_none_or(|(_, fences)| {
                        !fences.orders(touch.block, other as u32 - 1, time)
                    })
            };
            let found = |block: u64, site: u64, wrote: bool| {
                Some(Clash { at: 4 * i, block: block as u32 - 1, site: Site(site as u32), wrote })
            };
            if mask & bits != 0 && clash(writer, time as u32) {
                return found(writer, sites.load(Relaxed), true);
            }
            if write && here == 4 && clash(reader, (time >> 32) as u32) {
                return found(reader, sites.load(Relaxed) >> 32, false);
            }
            let new = if write {
                // The record holds one writer: another block's bytes in this word are no longer
                // tracked.
                let mask = if writer == me { mask | bits } else { bits };
                me | reader << 22 | mask << 44 | launch << 48
            } else {
                writer | me << 22 | mask << 44 | launch << 48
            };
            if let (Some((now, _)), Some(times)) = (touch.fences, times) {
                let now = u64::from(now);
                let new =
                    if write { time & !0xffff_ffff | now } else { time & 0xffff_ffff | now << 32 };
                times[first + i].store(new, Relaxed);
            }
            if new != old {
                let old = sites.load(Relaxed);
                let new_sites =
                    if write { old & !0xffff_ffff | site } else { old & 0xffff_ffff | site << 32 };
                sites.store(new_sites, Relaxed);
                record.store(new, Release);
            }
        }
        None
    }

    fn holds_bytes(&self, at: usize, data: &[u8]) -> bool {
        data.iter().enumerate().all(|(i, byte)| self.byte(at + i) == *byte)
    }
}
