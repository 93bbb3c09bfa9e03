//! Shared memory of one block: bytes, whether they were written, and who accessed them since the
//! last barrier or meeting of lanes. Knows offsets; must not know instructions.
//!
//! Two accesses of different threads, at least one of them a write, race unless a barrier of the
//! block lies between them or, for lanes of one warp, a place where both lanes met. Running in the
//! same warp does not order lanes: hardware schedules them independently.

use super::order::{Before, LANES, Meetings, Order, WARPS, joined, thread, warp_of};
use crate::report::{FaultKind, Other, Trouble};

/// Smallest number of bytes with its own record. Smaller accesses are not checked for races.
const GRAIN: usize = 2;
/// Bytes per chunk of records: the size of the widest access.
const CHUNK: usize = 16;

const WRITTEN: u16 = 1 << 12;
/// An asynchronous copy to these bytes has not been waited for.
const PENDING: u16 = 1 << 13;
/// Kinds of reader: plain loads, and atomics, which race only with plain accesses.
const PLAIN: u16 = 1 << 12;
const ATOMIC: u16 = 1 << 13;

#[derive(Clone, Copy, Default)]
struct Record {
    /// Times of the last plain write, and of the last load or atomic.
    wrote: u32,
    read: u32,
    /// The threads of these two, with the flags above.
    writer: u16,
    reader: u16,
    /// The instructions of these two.
    writer_pc: u32,
    reader_pc: u32,
}

impl Record {
    /// Records a load or an atomic; false if it races with an earlier one of the other kind.
    fn join(&mut self, order: &Order, kind: u16, now: u32, pc: u32) -> bool {
        let kinds = self.reader & (PLAIN | ATOMIC);
        self.reader = match order.of(self.read, self.reader) {
            Before::Met => order.me | kind,
            // A later access may race with either kind, so keep both.
            Before::Own => order.me | kind | kinds,
            Before::No if kinds & !kind != 0 => return false,
            Before::No => joined(order.me, self.reader) | kind,
        };
        (self.read, self.reader_pc) = (now, pc);
        true
    }
}

/// The records of a chunk, one per part. A part is as small as the smallest access since the whole
/// chunk was last written at once.
#[derive(Clone)]
struct Chunk {
    /// Bytes per part.
    grain: usize,
    /// A part's record is at the index of its first bytes; the entries in between are unused.
    records: [Record; CHUNK / GRAIN],
}

impl Chunk {
    /// The records that an access covers.
    #[inline]
    fn of(&mut self, at: usize, bytes: usize) -> impl Iterator<Item = &mut Record> {
        if self.grain > bytes.max(GRAIN) {
            self.split(bytes.max(GRAIN));
        }
        let first = at % CHUNK / GRAIN;
        let records = self.records[first..].iter_mut().step_by(self.grain / GRAIN);
        records.take(bytes.div_ceil(self.grain))
    }

    #[cold]
    fn split(&mut self, grain: usize) {
        while self.grain > grain {
            self.grain /= 2;
            for i in (0..CHUNK / GRAIN).step_by(2 * self.grain / GRAIN) {
                self.records[i + self.grain / GRAIN] = self.records[i];
            }
        }
    }

    /// The whole chunk was written at once, so one record suffices.
    fn become_one(&mut self) {
        self.grain = CHUNK;
    }
}

/// Shared memory of a block.
pub(crate) struct Shared {
    bytes: Vec<u8>,
    chunks: Vec<Chunk>,
    /// Counts events that order or distinguish accesses: barriers, meetings of lanes, storing
    /// instructions. Starts at 1, so that an empty record (time 0) comes before everything.
    time: u32,
    /// The time of the last barrier.
    barrier: u32,
    meetings: Vec<Meetings>,
    races: bool,
    /// The current instruction.
    pub pc: u32,
}

impl Shared {
    pub fn new(bytes: usize, warps: usize, races: bool) -> Self {
        let chunk = Chunk { grain: CHUNK, records: [Record::default(); CHUNK / GRAIN] };
        let chunks = vec![chunk; bytes.div_ceil(CHUNK)];
        let meetings = vec![Meetings::default(); warps];
        // Poison: a NaN in every float type.
        Self { bytes: vec![0xff; bytes], chunks, time: 1, barrier: 1, meetings, races, pc: 0 }
    }

    /// All threads of the block have arrived at a barrier.
    pub fn open_barrier(&mut self) {
        self.time += 1;
        self.barrier = self.time;
    }

    /// The lanes in `members` have waited for each other; `live` are those that have not exited.
    pub fn meet(&mut self, warp: usize, members: u32, live: u32) {
        self.time += 1;
        self.meetings[warp].meet(self.time, members, live);
    }

    /// Starts a storing instruction: distinguishes the writes of its lanes from earlier ones.
    pub fn begin_store(&mut self) {
        self.time += 1;
    }

    fn check(&self, at: u64, bytes: usize, lane: usize) -> Result<usize, Trouble> {
        if at.checked_add(bytes as u64).is_none_or(|end| end > self.bytes.len() as u64) {
            let detail = format!(
                "{bytes} bytes past the end of {} bytes of shared memory",
                self.bytes.len()
            );
            return Err(Trouble::at(FaultKind::OutOfBounds, lane, at, detail));
        }
        if !at.is_multiple_of(bytes as u64) {
            let detail = format!("shared access of {bytes} bytes");
            return Err(Trouble::at(FaultKind::Misaligned, lane, at, detail));
        }
        Ok(at as usize)
    }

    /// The aligned bytes at an offset, read by one lane.
    pub fn read(
        &mut self,
        at: u64,
        bytes: usize,
        warp: usize,
        lane: usize,
    ) -> Result<&[u8], Trouble> {
        self.read_as(at, bytes, thread(warp, lane))
    }

    /// The aligned bytes at an offset given by one lane, read by its whole warp (`ldmatrix`).
    pub fn read_together(
        &mut self,
        at: u64,
        bytes: usize,
        warp: usize,
        lane: usize,
    ) -> Result<&[u8], Trouble> {
        self.read_as(at, bytes, thread(warp, lane) | LANES)
    }

    fn read_as(&mut self, at: u64, bytes: usize, me: u16) -> Result<&[u8], Trouble> {
        let lane = usize::from(me & 31);
        let at = self.check(at, bytes, lane)?;
        let races = self.races && bytes >= GRAIN;
        let order = Order { barrier: self.barrier, meetings: &self.meetings[warp_of(me)], me };
        for record in self.chunks[at / CHUNK].of(at, bytes) {
            if record.writer & (WRITTEN | PENDING) != WRITTEN {
                return Err(not_there(record, "read", lane, at));
            }
            if !races {
                continue;
            }
            if !order.after(record.wrote, record.writer) {
                return Err(race(me, "reads", (record.writer, record.writer_pc), "wrote", at));
            }
            let reader = (record.reader, record.reader_pc);
            if !record.join(&order, PLAIN, self.time, self.pc) {
                return Err(race(me, "reads", reader, "changed by an atomic", at));
            }
        }
        Ok(&self.bytes[at..at + bytes])
    }

    /// Writes aligned bytes from one lane.
    pub fn write(&mut self, at: u64, data: &[u8], warp: usize, lane: usize) -> Result<(), Trouble> {
        self.write_as(at, data, thread(warp, lane))
    }

    /// Writes aligned bytes at an offset given by one lane, from registers of its whole warp
    /// (`stmatrix`).
    pub fn write_together(
        &mut self,
        at: u64,
        data: &[u8],
        warp: usize,
        lane: usize,
    ) -> Result<(), Trouble> {
        self.write_as(at, data, thread(warp, lane) | LANES)
    }

    fn write_as(&mut self, at: u64, data: &[u8], me: u16) -> Result<(), Trouble> {
        let at = self.check(at, data.len(), usize::from(me & 31))?;
        self.claim(at, data.len(), me, Some(data))?;
        self.bytes[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }

    /// Records that an asynchronous copy to these bytes has started.
    pub fn begin_copy(
        &mut self,
        at: u64,
        bytes: usize,
        warp: usize,
        lane: usize,
    ) -> Result<(), Trouble> {
        let at = self.check(at, bytes, lane)?;
        self.claim(at, bytes, thread(warp, lane), None)?;
        for record in self.chunks[at / CHUNK].of(at, bytes) {
            record.writer |= PENDING;
        }
        Ok(())
    }

    /// Completes an asynchronous copy started with [`begin_copy`](Self::begin_copy).
    pub fn end_copy(&mut self, at: u64, data: &[u8], warp: usize, lane: usize) {
        let at = at as usize;
        self.bytes[at..at + data.len()].copy_from_slice(data);
        for record in self.chunks[at / CHUNK].of(at, data.len()) {
            (record.wrote, record.writer) = (self.time, thread(warp, lane) | WRITTEN);
        }
    }

    /// Checks and records a write. Lanes may write the same bytes in one instruction; `data` is
    /// compared to allow that.
    fn claim(
        &mut self,
        at: usize,
        bytes: usize,
        me: u16,
        data: Option<&[u8]>,
    ) -> Result<(), Trouble> {
        let races = self.races && bytes >= GRAIN;
        let order = Order { barrier: self.barrier, meetings: &self.meetings[warp_of(me)], me };
        let chunk = &mut self.chunks[at / CHUNK];
        for record in chunk.of(at, bytes) {
            if record.writer & PENDING != 0 {
                return Err(not_there(record, "written", usize::from(me & 31), at));
            }
            let mut writer = me;
            if races && !order.after(record.wrote, record.writer) {
                if record.wrote != self.time || warp_of(record.writer) != warp_of(me) {
                    return Err(race(me, "writes", (record.writer, record.writer_pc), "wrote", at));
                }
                // All accesses of one instruction have the same size, so the bytes can be compared.
                if data.is_none_or(|data| *data != self.bytes[at..at + bytes]) {
                    let (lane, other) = (me & 31, record.writer & 31);
                    let detail = format!(
                        "lanes {other} and {lane} of a warp write different values to the same bytes in \
                         one instruction; the result is undefined"
                    );
                    let thread = Some(u32::from(record.writer & 0x3ff));
                    let other = Other { block: None, thread, pc: self.pc };
                    let lane = usize::from(lane);
                    return Err(
                        Trouble::at(FaultKind::SharedRace, lane, at as u64, detail).against(other)
                    );
                }
                writer = joined(me, record.writer);
            }
            if races && !order.after(record.read, record.reader) {
                let did = if record.reader & PLAIN != 0 { "read" } else { "changed by an atomic" };
                return Err(race(me, "writes", (record.reader, record.reader_pc), did, at));
            }
            (record.wrote, record.writer) = (self.time, writer | WRITTEN);
            record.writer_pc = self.pc;
            if races {
                // Anything ordered after this write is also ordered after the earlier reads.
                (record.read, record.reader) = (0, 0);
            }
        }
        if bytes == CHUNK {
            chunk.become_one();
        }
        Ok(())
    }

    /// Replaces an aligned element by a function of it, as an atomic does; returns the old value.
    /// Atomics race only with plain accesses.
    pub fn update(
        &mut self,
        at: u64,
        bytes: usize,
        warp: usize,
        lane: usize,
        f: impl Fn(u64) -> u64,
    ) -> Result<u64, Trouble> {
        let at = self.check(at, bytes, lane)?;
        let me = thread(warp, lane);
        let order = Order { barrier: self.barrier, meetings: &self.meetings[warp], me };
        for record in self.chunks[at / CHUNK].of(at, bytes) {
            if record.writer & (WRITTEN | PENDING) != WRITTEN {
                return Err(not_there(record, "changed by an atomic", lane, at));
            }
            if !self.races {
                continue;
            }
            if !order.after(record.wrote, record.writer) {
                let writer = (record.writer, record.writer_pc);
                return Err(race(me, "changes by an atomic", writer, "wrote", at));
            }
            let reader = (record.reader, record.reader_pc);
            if !record.join(&order, ATOMIC, self.time, self.pc) {
                return Err(race(me, "changes by an atomic", reader, "read", at));
            }
        }
        let element = &mut self.bytes[at..at + bytes];
        let old = element.iter().rev().fold(0, |x, byte| x << 8 | u64::from(*byte));
        element.copy_from_slice(&f(old).to_le_bytes()[..bytes]);
        Ok(old)
    }
}

/// Access to bytes that were never written, or that a pending copy will still write.
#[cold]
fn not_there(record: &Record, verb: &str, lane: usize, at: usize) -> Trouble {
    let (kind, detail) = if record.writer & PENDING != 0 {
        let detail = format!("shared memory {verb} before its asynchronous copy was waited for");
        (FaultKind::PendingCopy, detail)
    } else {
        (FaultKind::Uninitialised, format!("shared memory {verb} before it was written"))
    };
    Trouble::at(kind, lane, at as u64, detail)
}

#[cold]
fn race(me: u16, does: &str, (who, pc): (u16, u32), did: &str, at: usize) -> Trouble {
    let (lane, other) = (me & 31, who & 31);
    let detail = if who & WARPS != 0 {
        format!("warp {} {does} what other warps {did} since the last barrier", warp_of(me))
    } else if warp_of(me) != warp_of(who) {
        let (warp, other) = (warp_of(me), warp_of(who));
        format!("warp {warp} {does} what warp {other} {did} since the last barrier")
    } else if (me | who) & LANES != 0 {
        format!("lane {lane} {does} what lanes of its warp {did}, with no __syncwarp in between")
    } else {
        format!("lane {lane} {does} what lane {other} {did}, with no __syncwarp in between")
    };
    let single = who & (WARPS | LANES) == 0;
    let thread = single.then_some(u32::from(who & 0x3ff));
    Trouble::at(FaultKind::SharedRace, usize::from(lane), at as u64, detail).against(Other {
        block: None,
        thread,
        pc,
    })
}
