//! One block's shared memory: bytes, whether they were written, and which warp touched them since
//! the last barrier. Knows offsets, no instruction.

use crate::fault::{FaultKind, Trouble};

/// Bytes of one record.
const GRAIN: usize = 2;
/// Stands for more than one reader.
const MANY: u8 = u8::MAX;

#[derive(Clone, Copy, Default)]
struct Record {
    written: bool,
    /// An asynchronous copy to these bytes has not been waited for.
    pending: bool,
    writer: u8,
    reader: u8,
    /// The phases, counted in barriers, of the last write and the last read.
    wrote: u32,
    read: u32,
}

/// Shared memory of a block.
pub(crate) struct Shared {
    bytes: Vec<u8>,
    records: Vec<Record>,
    /// Barriers passed, plus one.
    pub phase: u32,
    races: bool,
}

impl Shared {
    pub fn new(bytes: usize, races: bool) -> Self {
        // Poison: a NaN in every float type.
        let records = vec![Record::default(); bytes.div_ceil(GRAIN)];
        Self { bytes: vec![0xff; bytes], records, phase: 1, races }
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
        let at = self.check(at, bytes, lane)?;
        let (phase, races) = (self.phase, self.races);
        for record in &mut self.records[at / GRAIN..(at + bytes).div_ceil(GRAIN)] {
            let trouble = |kind, detail: String| Err(Trouble::at(kind, lane, at as u64, detail));
            if record.pending {
                let detail = "shared memory read before its asynchronous copy was waited for";
                return trouble(FaultKind::PendingCopy, detail.into());
            }
            if !record.written {
                return trouble(
                    FaultKind::Uninitialised,
                    "shared memory read before written".into(),
                );
            }
            if races && record.wrote == phase && record.writer != warp as u8 {
                let detail = format!(
                    "warp {warp} reads what warp {} wrote since the last barrier",
                    record.writer
                );
                return trouble(FaultKind::SharedRace, detail);
            }
            if record.read != phase {
                (record.read, record.reader) = (phase, warp as u8);
            } else if record.reader != warp as u8 {
                record.reader = MANY;
            }
        }
        Ok(&self.bytes[at..at + bytes])
    }

    /// Writes aligned bytes.
    pub fn write(&mut self, at: u64, data: &[u8], warp: usize, lane: usize) -> Result<(), Trouble> {
        let at = self.check(at, data.len(), lane)?;
        self.claim(at, data.len(), warp, lane)?;
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
        self.claim(at, bytes, warp, lane)?;
        for record in &mut self.records[at / GRAIN..(at + bytes).div_ceil(GRAIN)] {
            record.pending = true;
        }
        Ok(())
    }

    /// Lands an asynchronous copy that [`begin_copy`](Self::begin_copy) announced.
    pub fn end_copy(&mut self, at: u64, data: &[u8], warp: usize) {
        let at = at as usize;
        self.bytes[at..at + data.len()].copy_from_slice(data);
        for record in &mut self.records[at / GRAIN..(at + data.len()).div_ceil(GRAIN)] {
            record.pending = false;
            (record.wrote, record.writer) = (self.phase, warp as u8);
        }
    }

    fn claim(&mut self, at: usize, bytes: usize, warp: usize, lane: usize) -> Result<(), Trouble> {
        let (phase, races) = (self.phase, self.races);
        for record in &mut self.records[at / GRAIN..(at + bytes).div_ceil(GRAIN)] {
            let trouble = |kind, detail: String| Err(Trouble::at(kind, lane, at as u64, detail));
            if record.pending {
                let detail = "shared memory written while an asynchronous copy to it is pending";
                return trouble(FaultKind::PendingCopy, detail.into());
            }
            // Two bytes of one record may belong to two warps: only whole records tell a race.
            if races && bytes >= GRAIN {
                if record.wrote == phase && record.writer != warp as u8 {
                    let detail = format!(
                        "warp {warp} writes what warp {} wrote since the last barrier",
                        record.writer
                    );
                    return trouble(FaultKind::SharedRace, detail);
                }
                if record.read == phase && record.reader != warp as u8 {
                    let detail =
                        format!("warp {warp} writes what another warp read since the last barrier");
                    return trouble(FaultKind::SharedRace, detail);
                }
            }
            record.written = true;
            (record.wrote, record.writer) = (phase, warp as u8);
        }
        Ok(())
    }

    /// Written bytes as an atomic reads them: no race, whoever else comes.
    pub fn peek(&mut self, at: u64, bytes: usize, lane: usize) -> Result<&[u8], Trouble> {
        let at = self.check(at, bytes, lane)?;
        if self.records[at / GRAIN..(at + bytes).div_ceil(GRAIN)].iter().any(|r| !r.written) {
            let detail = "atomic on shared memory before it was written";
            return Err(Trouble::at(FaultKind::Uninitialised, lane, at as u64, detail));
        }
        Ok(&self.bytes[at..at + bytes])
    }

    /// Writes what an atomic made of what [`peek`](Self::peek) showed.
    pub fn poke(&mut self, at: u64, data: &[u8]) {
        self.bytes[at as usize..at as usize + data.len()].copy_from_slice(data);
    }
}
