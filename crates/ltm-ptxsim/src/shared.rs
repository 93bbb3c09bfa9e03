//! One block's shared memory: bytes, whether they were written, and who touched them since what
//! orders threads. Knows offsets, no instruction.
//!
//! Two accesses of different threads, one of them writing, are a race unless a barrier of the block
//! stands between them, or a place where both lanes met, if they are lanes of one warp. That a warp
//! runs its lanes together orders nothing: hardware schedules them independently.

use crate::fault::{FaultKind, Other, Trouble};
use crate::order::{Before, LANES, Meetings, Order, WARPS, joined, thread, warp_of};

/// Bytes that have a record of their own where need be. Accesses to less are not looked at for races.
const GRAIN: usize = 2;
/// Bytes whose records lie together: as many as the widest access has.
const CHUNK: usize = 16;

const WRITTEN: u16 = 1 << 12;
/// An asynchronous copy to these bytes has not been waited for.
const PENDING: u16 = 1 << 13;
/// Kinds of a reader: a plain load, and an atomic, which only plain accesses race with.
const PLAIN: u16 = 1 << 12;
const ATOMIC: u16 = 1 << 13;

#[derive(Clone, Copy, Default)]
struct Record {
    /// The times of the last plain write, and of the last load or atomic.
    wrote: u32,
    read: u32,
    /// Who that was, with what else is known of the bytes.
    writer: u16,
    reader: u16,
    /// The instructions.
    writer_pc: u32,
    reader_pc: u32,
}

impl Record {
    /// Notes a load or an atomic; false where an earlier one of the other kind races with it.
    fn join(&mut self, order: &Order, kind: u16, now: u32, pc: u32) -> bool {
        let kinds = self.reader & (PLAIN | ATOMIC);
        self.reader = match order.of(self.read, self.reader) {
            Before::Met => order.me | kind,
            // Who comes next may be ordered with neither.
            Before::Own => order.me | kind | kinds,
            Before::No if kinds & !kind != 0 => return false,
            Before::No => joined(order.me, self.reader) | kind,
        };
        (self.read, self.reader_pc) = (now, pc);
        true
    }
}

/// The records of a chunk: one a part, and the parts as small as any access to it was since it was
/// last written as a whole.
#[derive(Clone)]
struct Chunk {
    /// Bytes of a part.
    grain: usize,
    /// By the part's first bytes; those in between mean nothing.
    records: [Record; CHUNK / GRAIN],
}

impl Chunk {
    /// The records of an access.
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

    /// All of it was written, and nothing else counts any more.
    fn become_one(&mut self) {
        self.grain = CHUNK;
    }
}

/// Shared memory of a block.
pub(crate) struct Shared {
    bytes: Vec<u8>,
    chunks: Vec<Chunk>,
    /// Counts what tells accesses apart: barriers, meetings, storing instructions. It starts at 1,
    /// so that a record of nothing is from before.
    time: u32,
    /// The time of the last barrier.
    barrier: u32,
    meetings: Vec<Meetings>,
    races: bool,
    /// The instruction at hand.
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

    /// All threads of the block have come to a barrier.
    pub fn open_barrier(&mut self) {
        self.time += 1;
        self.barrier = self.time;
    }

    /// These lanes of a warp have waited for each other; `live` are those that have not exited.
    pub fn meet(&mut self, warp: usize, members: u32, live: u32) {
        self.time += 1;
        self.meetings[warp].meet(self.time, members, live);
    }

    /// An instruction that stores begins: what its lanes write is told from what came before.
    pub fn begin_store(&mut self) {
        self.time += 1;
    }

    fn check(&self, at: u64, bytes: usize, lane: usize) -> Result<usize, Trouble> {
        if at.checked_add(bytes as u64).is_none_or(|end| end > self.bytes.len() as u64) {
            let detail = format!("{bytes} bytes of {} bytes of shared memory", self.bytes.len());
            return Err(Trouble::at(FaultKind::OutOfBounds, lane, at, detail));
        }
        if !at.is_multiple_of(bytes as u64) {
            let detail = format!("shared access of {bytes} bytes");
            return Err(Trouble::at(FaultKind::Misaligned, lane, at, detail));
        }
        Ok(at as usize)
    }

    /// The aligned bytes at an offset, to be read by a lane of a warp.
    pub fn read(
        &mut self,
        at: u64,
        bytes: usize,
        warp: usize,
        lane: usize,
    ) -> Result<&[u8], Trouble> {
        self.read_as(at, bytes, thread(warp, lane))
    }

    /// The aligned bytes at an offset that a lane names, to be read by its whole warp.
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

    /// Writes aligned bytes.
    pub fn write(&mut self, at: u64, data: &[u8], warp: usize, lane: usize) -> Result<(), Trouble> {
        self.write_as(at, data, thread(warp, lane))
    }

    /// Writes aligned bytes at an offset that a lane names, from registers of its whole warp.
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

    /// Notes that an asynchronous copy to these bytes is under way.
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

    /// Lands an asynchronous copy that [`begin_copy`](Self::begin_copy) announced.
    pub fn end_copy(&mut self, at: u64, data: &[u8], warp: usize, lane: usize) {
        let at = at as usize;
        self.bytes[at..at + data.len()].copy_from_slice(data);
        for record in self.chunks[at / CHUNK].of(at, data.len()) {
            (record.wrote, record.writer) = (self.time, thread(warp, lane) | WRITTEN);
        }
    }

    /// Notes a write; `data` tells what, where lanes may write the same at once.
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
                // All accesses of one instruction have the same size.
                if data.is_none_or(|data| *data != self.bytes[at..at + bytes]) {
                    let (lane, other) = (me & 31, record.writer & 31);
                    let detail = format!(
                        "lanes {other} and {lane} of a warp write different values there in one \
                         instruction: which stays is undefined"
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
                // Who comes after this write comes after what it comes after.
                (record.read, record.reader) = (0, 0);
            }
        }
        if bytes == CHUNK {
            chunk.become_one();
        }
        Ok(())
    }

    /// Replaces an aligned element by a function of it, as an atomic does, whom only plain accesses
    /// race with; returns the old one.
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

/// An access to bytes that nobody wrote, or that a copy is still to write.
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
