//! One allocation of global memory: its bytes, which of them were written, and who accessed them. Knows offsets and
//! blocks; must not know instructions.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{OnceLock, PoisonError};

use super::fences::Fences;

/// Words per page of access records.
const PAGE_WORDS: usize = 1024;

/// One allocation.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub(super) base: u64,
    pub(super) len: usize,
    words: Box<[AtomicU32]>,
    /// One bit per byte: whether it was ever written. Not maintained once `whole` is set.
    written: Box<[AtomicU32]>,
    pub(super) whole: AtomicBool,
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
    pub(super) fn new(base: u64, len: usize) -> Option<Self> {
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

    pub(super) fn holds(&self, address: u64, bytes: u64) -> bool {
        address >= self.base
            && (address - self.base).checked_add(bytes).is_some_and(|end| end <= self.len as u64)
    }

    /// The offset of an address in this allocation.
    pub fn offset(&self, address: u64) -> usize {
        (address - self.base) as usize
    }

    pub(super) fn byte(&self, at: usize) -> u8 {
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

    pub(super) fn write_bytes(&self, at: usize, data: &[u8]) {
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
