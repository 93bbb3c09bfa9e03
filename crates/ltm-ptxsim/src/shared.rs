//! One block's shared memory: bytes, whether they were written, and who touched them since what
//! orders threads. Knows offsets, no instruction.
//!
//! Two accesses of different threads, one of them writing, are a race unless a barrier of the block
//! stands between them, or a place where both lanes met, if they are lanes of one warp. That a warp
//! runs its lanes together orders nothing: hardware schedules them independently.

use crate::fault::{FaultKind, Trouble};

/// Bytes of one record. Accesses to less are not looked at for races.
const GRAIN: usize = 2;

/// The thread of a block in a record, beside the flags below.
const THREAD: u16 = 0x3ff;
/// Other lanes of the thread's warp did so too.
const LANES: u16 = 1 << 10;
/// Threads of other warps did so too.
const WARPS: u16 = 1 << 11;
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
}

impl Record {
    /// Notes a load or an atomic; false where an earlier one of the other kind races with it.
    fn join(&mut self, order: &Order, kind: u16, now: u32) -> bool {
        let kinds = self.reader & (PLAIN | ATOMIC);
        self.reader = match order.of(self.read, self.reader) {
            Before::Met => order.me | kind,
            // Who comes next may be ordered with neither.
            Before::Own => order.me | kind | kinds,
            Before::No if kinds & !kind != 0 => return false,
            Before::No => joined(order.me, self.reader) | kind,
        };
        self.read = now;
        true
    }
}

/// When lanes of a warp met.
#[derive(Clone, Default)]
struct Meetings {
    /// The last time that all of them did.
    all: u32,
    /// By lane and other lane, the time up to which the first knows what the other did; made when
    /// first a part of the warp meets.
    some: Option<Box<[[u32; 32]; 32]>>,
}

/// Shared memory of a block.
pub(crate) struct Shared {
    bytes: Vec<u8>,
    records: Vec<Record>,
    /// Counts what tells accesses apart: barriers, meetings, storing instructions. It starts at 1,
    /// so that a record of nothing is from before.
    time: u32,
    /// The time of the last barrier.
    barrier: u32,
    meetings: Vec<Meetings>,
    races: bool,
}

/// A thread as records name it; with `LANES` it stands for its whole warp.
fn thread(warp: usize, lane: usize) -> u16 {
    (32 * warp + lane) as u16
}

impl Shared {
    pub fn new(bytes: usize, warps: usize, races: bool) -> Self {
        let records = vec![Record::default(); bytes.div_ceil(GRAIN)];
        let meetings = vec![Meetings::default(); warps];
        // Poison: a NaN in every float type.
        Self { bytes: vec![0xff; bytes], records, time: 1, barrier: 1, meetings, races }
    }

    /// All threads of the block have come to a barrier.
    pub fn open_barrier(&mut self) {
        self.time += 1;
        self.barrier = self.time;
    }

    /// These lanes of a warp have waited for each other; `live` are those that have not exited.
    pub fn meet(&mut self, warp: usize, members: u32, live: u32) {
        self.time += 1;
        let meetings = &mut self.meetings[warp];
        if members == live {
            meetings.all = self.time;
            return;
        }
        let some = meetings.some.get_or_insert_default();
        let is_member = |lane: &usize| members >> lane & 1 != 0;
        // What one of them knew of any lane, all know now.
        let known: [u32; 32] = std::array::from_fn(|lane| {
            let knew = (0..32).filter(is_member).map(|member| some[member][lane]);
            if is_member(&lane) { self.time } else { knew.max().unwrap_or(0) }
        });
        (0..32).filter(is_member).for_each(|member| some[member] = known);
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
        for record in &mut self.records[at / GRAIN..(at + bytes).div_ceil(GRAIN)] {
            if record.writer & (WRITTEN | PENDING) != WRITTEN {
                return Err(not_there(record, "read", lane, at));
            }
            if !races {
                continue;
            }
            if !order.after(record.wrote, record.writer) {
                return Err(race(me, "reads", record.writer, "wrote", at));
            }
            if !record.join(&order, PLAIN, self.time) {
                return Err(race(me, "reads", record.reader, "changed by an atomic", at));
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
        for record in &mut self.records[at / GRAIN..(at + bytes).div_ceil(GRAIN)] {
            record.writer |= PENDING;
        }
        Ok(())
    }

    /// Lands an asynchronous copy that [`begin_copy`](Self::begin_copy) announced.
    pub fn end_copy(&mut self, at: u64, data: &[u8], warp: usize, lane: usize) {
        let at = at as usize;
        self.bytes[at..at + data.len()].copy_from_slice(data);
        for record in &mut self.records[at / GRAIN..(at + data.len()).div_ceil(GRAIN)] {
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
        let first = at / GRAIN;
        for i in first..(at + bytes).div_ceil(GRAIN) {
            let record = &mut self.records[i];
            if record.writer & PENDING != 0 {
                return Err(not_there(record, "written", usize::from(me & 31), at));
            }
            let mut writer = me;
            if races && !order.after(record.wrote, record.writer) {
                let part = (i - first) * GRAIN..(i - first + 1) * GRAIN;
                let old = &self.bytes[i * GRAIN..(i + 1) * GRAIN];
                if record.wrote != self.time || warp_of(record.writer) != warp_of(me) {
                    return Err(race(me, "writes", record.writer, "wrote", at));
                } else if data.is_none_or(|data| data[part] != *old) {
                    let (lane, other) = (me & 31, record.writer & 31);
                    let detail = format!(
                        "lanes {other} and {lane} of a warp write different values there in one \
                         instruction: which stays is undefined"
                    );
                    let lane = usize::from(lane);
                    return Err(Trouble::at(FaultKind::SharedRace, lane, at as u64, detail));
                }
                writer = joined(me, record.writer);
            }
            if races && !order.after(record.read, record.reader) {
                let did = if record.reader & PLAIN != 0 { "read" } else { "changed by an atomic" };
                return Err(race(me, "writes", record.reader, did, at));
            }
            (record.wrote, record.writer) = (self.time, writer | WRITTEN);
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
        for record in &mut self.records[at / GRAIN..(at + bytes).div_ceil(GRAIN)] {
            if record.writer & (WRITTEN | PENDING) != WRITTEN {
                return Err(not_there(record, "changed by an atomic", lane, at));
            }
            if !self.races {
                continue;
            }
            if !order.after(record.wrote, record.writer) {
                return Err(race(me, "changes by an atomic", record.writer, "wrote", at));
            }
            if !record.join(&order, ATOMIC, self.time) {
                return Err(race(me, "changes by an atomic", record.reader, "read", at));
            }
        }
        let element = &mut self.bytes[at..at + bytes];
        let old = element.iter().rev().fold(0, |x, byte| x << 8 | u64::from(*byte));
        element.copy_from_slice(&f(old).to_le_bytes()[..bytes]);
        Ok(old)
    }
}

/// What a thread, or with `LANES` its whole warp, comes after.
struct Order<'a> {
    barrier: u32,
    meetings: &'a Meetings,
    me: u16,
}

/// What orders an earlier access before a later one.
#[derive(PartialEq, Eq)]
enum Before {
    /// A barrier, or that the lanes met.
    Met,
    /// They are one thread's.
    Own,
    /// Nothing: together they may be a race.
    No,
}

impl Order<'_> {
    /// Whether what `who` did at a time is ordered before what happens now.
    fn after(&self, time: u32, who: u16) -> bool {
        time < self.barrier || self.within_warp(time, who) != Before::No
    }

    fn of(&self, time: u32, who: u16) -> Before {
        if time < self.barrier { Before::Met } else { self.within_warp(time, who) }
    }

    fn within_warp(&self, time: u32, who: u16) -> Before {
        let (me, meetings) = (self.me, self.meetings);
        if who & WARPS != 0 || warp_of(who) != warp_of(me) {
            return Before::No;
        }
        if time < meetings.all {
            return Before::Met;
        }
        if me & LANES != 0 {
            return Before::No;
        }
        let (lane, other) = (usize::from(me & 31), usize::from(who & 31));
        // Of several lanes it is not known which: whoever met any since is believed.
        let other_met = if who & LANES != 0 { lane } else { other };
        if meetings.some.as_ref().is_some_and(|some| some[lane][other_met] > time) {
            Before::Met
        } else if who & LANES == 0 && lane == other {
            Before::Own
        } else {
            Before::No
        }
    }
}

fn warp_of(who: u16) -> usize {
    usize::from((who & THREAD) >> 5)
}

/// A thread together with those that did the same before it, unordered.
fn joined(me: u16, others: u16) -> u16 {
    let same_warp = warp_of(me) == warp_of(others);
    let same = me & (THREAD | LANES) == others & (THREAD | LANES);
    let more = if !same_warp {
        WARPS
    } else if same {
        0
    } else {
        LANES
    };
    me | more | others & (WARPS | if same_warp { LANES } else { 0 })
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
fn race(me: u16, does: &str, who: u16, did: &str, at: usize) -> Trouble {
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
    Trouble::at(FaultKind::SharedRace, usize::from(lane), at as u64, detail)
}
