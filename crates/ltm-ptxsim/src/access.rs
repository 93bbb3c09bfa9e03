//! Memory as instructions use it: resolves address spaces, checks and counts every access.

use crate::AsyncCopies;
use crate::block::Block;
use crate::convert::sign_extend;
use crate::decode::{LOCAL_WINDOW, SHARED_WINDOW};
use crate::exec::lanes;
use crate::fault::Other;
use crate::fault::{FaultKind, Trouble};
use crate::float::{f, half_sum};
use crate::inst::{Access, Op, Reg, Space, Strength, Update};
use crate::memory::{Allocation, Site, Touch};
use crate::warp::{PendingCopy, Warp};

/// Splits an address into its space and the offset within it.
fn place(space: Space, address: u64) -> (Space, u64) {
    match space {
        Space::Generic if address >= SHARED_WINDOW => (Space::Shared, address - SHARED_WINDOW),
        Space::Generic if address >= LOCAL_WINDOW => (Space::Local, address - LOCAL_WINDOW),
        Space::Generic => (Space::Global, address),
        Space::Shared | Space::Local => (space, address & 0xffff_ffff),
        _ => (space, address),
    }
}

/// The space that a generic address is in.
pub(crate) fn space_of(address: u64) -> Space {
    place(Space::Generic, address).0
}

/// Reads an element of 1, 2, 4 or 8 bytes.
fn little_endian(bytes: &[u8]) -> u64 {
    match *bytes {
        [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
        [a, b] => u64::from(u16::from_le_bytes([a, b])),
        _ => bytes.iter().rev().fold(0, |x, byte| x << 8 | u64::from(*byte)),
    }
}

impl Block<'_> {
    fn addresses(warp: &Warp, register: Reg, offset: i64) -> [u64; 32] {
        warp.get(register).map(|address| address.wrapping_add_signed(offset))
    }

    pub(crate) fn load(
        &mut self,
        warp: &mut Warp,
        access: &Access,
        d: &[Option<Reg>],
        mask: u32,
    ) -> Result<(), Trouble> {
        let addresses = Self::addresses(warp, access.address, access.offset);
        let element = access.bytes as usize;
        let whole = element * d.len();
        let mut out = [[0u64; 32]; 4];
        for lane in lanes(mask) {
            let (space, address) = place(access.space, addresses[lane]);
            if !address.is_multiple_of(whole as u64) {
                let detail = format!("load of {whole} bytes");
                return Err(Trouble::at(FaultKind::Misaligned, lane, address, detail));
            }
            let mut copy = [0; 16];
            let bytes = match space {
                Space::Shared => self.shared.read(address, whole, warp.index, lane)?,
                Space::Local => {
                    let start = self.local(warp, address, whole, lane)?;
                    &warp.local[start..start + whole]
                }
                Space::Param => {
                    let params = self.launch.params;
                    let start = address as usize;
                    let bytes = params.get(start..start.saturating_add(whole));
                    bytes.ok_or_else(|| {
                        let detail = "load past the end of the parameters";
                        Trouble::at(FaultKind::OutOfBounds, lane, address, detail)
                    })?
                }
                _ => {
                    // Before the load for its own race check, and after it for what was released
                    // between the two and read.
                    self.acquire(access.strength, address);
                    self.global_load(address, &mut copy[..whole], warp.index, lane)?;
                    self.acquire(access.strength, address);
                    &copy[..whole]
                }
            };
            for (bytes, out) in bytes.chunks_exact(element).zip(&mut out) {
                let value = little_endian(bytes);
                out[lane] =
                    if access.signed { sign_extend(value, 8 * access.bytes) } else { value };
            }
        }
        self.count(access.space, &addresses, whole, mask);
        for (d, out) in d.iter().zip(&out) {
            if let Some(d) = d {
                warp.set(*d, out, mask);
            }
        }
        Ok(())
    }

    pub(crate) fn store(
        &mut self,
        warp: &mut Warp,
        access: &Access,
        s: &[Reg],
        mask: u32,
    ) -> Result<(), Trouble> {
        let addresses = Self::addresses(warp, access.address, access.offset);
        let element = access.bytes as usize;
        let whole = element * s.len();
        self.shared.begin_store();
        for lane in lanes(mask) {
            let (space, address) = place(access.space, addresses[lane]);
            if !address.is_multiple_of(whole as u64) {
                let detail = format!("store of {whole} bytes");
                return Err(Trouble::at(FaultKind::Misaligned, lane, address, detail));
            }
            let mut data = [0; 16];
            for (bytes, s) in data.chunks_exact_mut(element).zip(s) {
                bytes.copy_from_slice(&warp.get(*s)[lane].to_le_bytes()[..element]);
            }
            let data = &data[..whole];
            match space {
                Space::Shared => self.shared.write(address, data, warp.index, lane)?,
                Space::Local => {
                    let start = self.local(warp, address, whole, lane)?;
                    warp.local[start..start + whole].copy_from_slice(data);
                }
                _ => {
                    self.release(access.strength, address);
                    let weak = access.strength == Strength::Weak;
                    self.global_store(address, data, warp.index, lane, weak)?;
                }
            }
        }
        self.count(access.space, &addresses, whole, mask);
        Ok(())
    }

    /// Loads the byte at a generic address for one lane; used to read strings.
    pub(crate) fn byte(&mut self, warp: &Warp, address: u64, lane: usize) -> Result<u8, Trouble> {
        match place(Space::Generic, address) {
            (Space::Shared, at) => Ok(self.shared.read(at, 1, warp.index, lane)?[0]),
            (Space::Local, at) => Ok(warp.local[self.local(warp, at, 1, lane)?]),
            (_, at) => {
                let mut byte = [0];
                self.global_load(at, &mut byte, warp.index, lane)?;
                Ok(byte[0])
            }
        }
    }

    fn local(&self, warp: &Warp, at: u64, bytes: usize, lane: usize) -> Result<usize, Trouble> {
        let size = warp.local.len() / 32;
        if at.checked_add(bytes as u64).is_none_or(|end| end > size as u64) {
            let detail = format!("{bytes} bytes past the end of {size} bytes of local memory");
            return Err(Trouble::at(FaultKind::OutOfBounds, lane, at, detail));
        }
        Ok(lane * size + at as usize)
    }

    /// Loads at most 16 bytes that do not cross a multiple of 16.
    fn global_load(
        &mut self,
        at: u64,
        out: &mut [u8],
        warp: usize,
        lane: usize,
    ) -> Result<(), Trouble> {
        let (launch, bytes) = (self.launch, out.len());
        let Some(allocation) = launch.memory.find(at, bytes as u64, &mut self.hint) else {
            let (kind, detail) = launch.memory.explain(at, bytes as u64);
            return Err(Trouble::at(kind, lane, at, format!("load of {detail}")));
        };
        let offset = allocation.offset(at);
        if !allocation.is_written(offset, bytes) {
            let detail = format!("load of {bytes} bytes of global memory that were never written");
            return Err(Trouble::at(FaultKind::Uninitialised, lane, at, detail));
        }
        self.touch(allocation, at, bytes, (warp, lane), None)?;
        allocation.load(offset, out);
        Ok(())
    }

    /// Stores at most 16 bytes that do not cross a multiple of 16. Strong stores of different
    /// blocks to one address do not race.
    fn global_store(
        &mut self,
        at: u64,
        data: &[u8],
        warp: usize,
        lane: usize,
        weak: bool,
    ) -> Result<(), Trouble> {
        let (launch, bytes) = (self.launch, data.len());
        let Some(allocation) = launch.memory.find(at, bytes as u64, &mut self.hint) else {
            let (kind, detail) = launch.memory.explain(at, bytes as u64);
            return Err(Trouble::at(kind, lane, at, format!("store of {detail}")));
        };
        if weak {
            self.touch(allocation, at, bytes, (warp, lane), Some(data))?;
        }
        allocation.store(allocation.offset(at), data);
        Ok(())
    }

    /// At a strong read of an address: acquires what was released there.
    fn acquire(&self, strength: Strength, address: u64) {
        if strength != Strength::Weak && self.launch.code.orders_blocks {
            self.launch.fences.acquire(self.number, address);
        }
    }

    /// Before a strong write to an address: releases what the block did before its last fence.
    fn release(&mut self, strength: Strength, address: u64) {
        if strength == Strength::Weak || !self.launch.code.orders_blocks {
            return;
        }
        self.time += u32::from(strength == Strength::Release);
        if self.time > 0 {
            self.launch.fences.release(self.number, self.time, address);
        }
    }

    /// Records an access to an allocation, and detects races between blocks.
    fn touch(
        &self,
        allocation: &Allocation,
        at: u64,
        bytes: usize,
        (warp, lane): (usize, usize),
        data: Option<&[u8]>,
    ) -> Result<(), Trouble> {
        let launch = self.launch;
        if !launch.options.races {
            return Ok(());
        }
        let touch = Touch {
            block: self.number,
            launch: launch.number,
            site: Site::new((32 * warp + lane) as u32, self.shared.pc),
            data,
            fences: launch.code.orders_blocks.then_some((self.time, &launch.fences)),
        };
        let Some(clash) = allocation.touch(allocation.offset(at), bytes, &touch) else {
            return Ok(());
        };
        let verb = if data.is_some() { "writes" } else { "reads" };
        let did = if clash.wrote { "wrote" } else { "read" };
        let [x, y, z] = launch.block_index(u64::from(clash.block));
        let thread = clash.site.thread();
        let [tx, ty, tz] = launch.thread_index(thread);
        let [bx, by, bz] = launch.block_index(u64::from(self.number));
        let detail = format!(
            "block ({bx}, {by}, {bz}) {verb} what block ({x}, {y}, {z}), thread ({tx}, {ty}, {tz}) \
             {did} in this launch, and nothing orders the two"
        );
        let other = Other { block: Some(clash.block), thread: Some(thread), pc: clash.site.pc() };
        let at = at + clash.at as u64;
        Err(Trouble::at(FaultKind::GlobalRace, lane, at, detail).against(other))
    }

    #[expect(clippy::too_many_arguments, reason = "the operands of the instruction")]
    pub(crate) fn atomic(
        &mut self,
        warp: &mut Warp,
        access: &Access,
        update: Update,
        d: Option<Reg>,
        a: Reg,
        b: Option<Reg>,
        mask: u32,
    ) -> Result<(), Trouble> {
        let addresses = Self::addresses(warp, access.address, access.offset);
        let bytes = access.bytes as usize;
        let cut = u64::MAX >> (64 - 8 * bytes);
        let mut out = [0; 32];
        for lane in lanes(mask) {
            let (space, address) = place(access.space, addresses[lane]);
            let x = warp.get(a)[lane] & cut;
            let swap = b.map_or(0, |b| warp.get(b)[lane] & cut);
            let signed = |x: u64| sign_extend(x, 8 * access.bytes) as i64;
            let new = |old: u64| match update {
                Update::Add => old.wrapping_add(x) & cut,
                Update::AddF16 => half_sum(old, x, false, false),
                Update::AddBF16 => half_sum(old, x, true, false),
                Update::AddF16x2 => half_sum(old, x, false, true),
                Update::AddBF16x2 => half_sum(old, x, true, true),
                Update::Increment => {
                    if old >= x {
                        0
                    } else {
                        old + 1
                    }
                }
                Update::Decrement => {
                    if old == 0 || old > x {
                        x
                    } else {
                        old - 1
                    }
                }
                Update::AddF32 => u64::from((f(old) + f(x)).to_bits()),
                Update::AddF64 => (f64::from_bits(old) + f64::from_bits(x)).to_bits(),
                Update::MinU => old.min(x),
                Update::MaxU => old.max(x),
                Update::MinS => {
                    if signed(old) <= signed(x) {
                        old
                    } else {
                        x
                    }
                }
                Update::MaxS => {
                    if signed(old) >= signed(x) {
                        old
                    } else {
                        x
                    }
                }
                Update::And => old & x,
                Update::Or => old | x,
                Update::Xor => old ^ x,
                Update::Exchange => x,
                Update::CompareExchange => {
                    if old == x {
                        swap
                    } else {
                        old
                    }
                }
            };
            if !address.is_multiple_of(bytes as u64) {
                let detail = format!("atomic of {bytes} bytes");
                return Err(Trouble::at(FaultKind::Misaligned, lane, address, detail));
            }
            out[lane] = if space == Space::Shared {
                self.shared.update(address, bytes, warp.index, lane, new)?
            } else {
                let memory = &self.launch.memory;
                let Some(allocation) = memory.find(address, bytes as u64, &mut self.hint) else {
                    let (kind, detail) = memory.explain(address, bytes as u64);
                    return Err(Trouble::at(kind, lane, address, format!("atomic on {detail}")));
                };
                // The release is recorded before its write and the acquire after its read: whoever
                // reads the new value finds the release.
                self.release(access.strength, address);
                let old = allocation.update(allocation.offset(address), bytes, new);
                self.acquire(Strength::Strong, address);
                old
            };
        }
        if let Some(d) = d {
            warp.set(d, &out, mask);
        }
        Ok(())
    }

    pub(crate) fn copy_async(
        &mut self,
        warp: &mut Warp,
        op: &Op,
        mask: u32,
    ) -> Result<(), Trouble> {
        let Op::CopyAsync { to, to_offset, from, from_offset, bytes, valid } = op else {
            unreachable!("called for copies alone")
        };
        let bytes = *bytes as usize;
        let targets = Self::addresses(warp, *to, *to_offset);
        let sources = Self::addresses(warp, *from, *from_offset);
        self.shared.begin_store();
        for lane in lanes(mask) {
            let (_, at) = place(Space::Shared, targets[lane]);
            let source = sources[lane];
            let valid = valid.map_or(bytes, |v| (warp.get(v)[lane] as u32 as usize).min(bytes));
            if !source.is_multiple_of(bytes as u64) {
                let detail = format!("asynchronous copy of {bytes} bytes");
                return Err(Trouble::at(FaultKind::Misaligned, lane, source, detail));
            }
            let mut data = [0; 16];
            if valid > 0 {
                self.global_load(source, &mut data[..valid], warp.index, lane)?;
            }
            match self.launch.options.async_copies {
                AsyncCopies::Eager => self.shared.write(at, &data[..bytes], warp.index, lane)?,
                AsyncCopies::Deferred => {
                    self.shared.begin_copy(at, bytes, warp.index, lane)?;
                    let group = warp.committed[lane];
                    warp.pending.push(PendingCopy { lane, group, at, bytes, data });
                }
            }
        }
        self.count(Space::Global, &sources, bytes, mask);
        Ok(())
    }

    /// Completes the copies that a wait covers: all of them, or all but those of the last `pending`
    /// groups.
    pub(crate) fn wait_copies(&mut self, warp: &mut Warp, pending: Option<u32>, mask: u32) {
        let (committed, index) = (warp.committed, warp.index);
        let shared = &mut self.shared;
        warp.pending.retain(|copy| {
            let covered = pending.is_none_or(|n| copy.group + n < committed[copy.lane]);
            let lands = covered && mask >> copy.lane & 1 != 0;
            if lands {
                shared.end_copy(copy.at, &copy.data[..copy.bytes], index, copy.lane);
            }
            !lands
        });
    }

    pub(crate) fn load_matrix(
        &mut self,
        warp: &mut Warp,
        d: &[Reg],
        transposed: bool,
        address: Reg,
        offset: i64,
    ) -> Result<(), Trouble> {
        let addresses = Self::addresses(warp, address, offset);
        for (i, d) in d.iter().enumerate() {
            let mut matrix = [[0u16; 8]; 8];
            for (row, values) in matrix.iter_mut().enumerate() {
                let lane = 8 * i + row;
                let (_, at) = place(Space::Shared, addresses[lane]);
                let bytes = self.shared.read_together(at, 16, warp.index, lane)?;
                for (value, pair) in values.iter_mut().zip(bytes.chunks_exact(2)) {
                    *value = u16::from_le_bytes([pair[0], pair[1]]);
                }
            }
            let out = std::array::from_fn(|lane| {
                let (row, column) = (lane / 4, lane % 4 * 2);
                let at = |k: usize| {
                    if transposed { matrix[column + k][row] } else { matrix[row][column + k] }
                };
                u64::from(at(0)) | u64::from(at(1)) << 16
            });
            warp.set(*d, &out, u32::MAX);
            self.count(Space::Shared, &addresses, 16, 0xff << (8 * i));
        }
        Ok(())
    }

    pub(crate) fn store_matrix(
        &mut self,
        warp: &mut Warp,
        s: &[Reg],
        transposed: bool,
        address: Reg,
        offset: i64,
    ) -> Result<(), Trouble> {
        let addresses = Self::addresses(warp, address, offset);
        self.shared.begin_store();
        for (i, s) in s.iter().enumerate() {
            let values = *warp.get(*s);
            for row in 0..8 {
                let mut bytes = [0; 16];
                for column in 0..8 {
                    let (r, c) = if transposed { (column, row) } else { (row, column) };
                    let value = (values[r * 4 + c / 2] >> (16 * (c % 2))) as u16;
                    bytes[2 * column..2 * column + 2].copy_from_slice(&value.to_le_bytes());
                }
                let lane = 8 * i + row;
                let (_, at) = place(Space::Shared, addresses[lane]);
                self.shared.write_together(at, &bytes, warp.index, lane)?;
            }
        }
        Ok(())
    }

    /// Counts the sectors of a global access, or the wavefronts of a shared one.
    fn count(&mut self, space: Space, addresses: &[u64; 32], bytes: usize, mask: u32) {
        let n = mask.count_ones() as usize;
        match space {
            Space::Global | Space::Generic => {
                let mut sectors = [0; 32];
                for (sector, lane) in sectors.iter_mut().zip(lanes(mask)) {
                    *sector = addresses[lane] / 32;
                }
                self.counters.sectors += distinct(&mut sectors[..n]) as u64;
                self.counters.ideal_sectors += (n * bytes).div_ceil(32) as u64;
            }
            Space::Shared => {
                // One wavefront moves up to 128 bytes. A lane's access lies in banks of its own, so
                // whole accesses are counted instead of words.
                let unit = bytes.max(4) as u64;
                let per_pass = 128 / unit as usize;
                let mut of_mask = lanes(mask);
                for _ in 0..n.div_ceil(per_pass) {
                    let (mut units, mut n_units) = ([0; 32], 0);
                    for lane in of_mask.by_ref().take(per_pass) {
                        units[n_units] = addresses[lane] / unit;
                        n_units += 1;
                    }
                    let n_units = distinct(&mut units[..n_units]);
                    self.counters.shared_wavefronts += wavefronts(&units[..n_units], per_pass);
                    self.counters.ideal_wavefronts += 1;
                }
            }
            _ => {}
        }
    }
}

/// Wavefronts needed for sorted, distinct units: the largest number of units in one bank.
fn wavefronts(units: &[u64], per_pass: usize) -> u64 {
    if let [first, .., last] = units
        && last - first < per_pass as u64
    {
        return 1;
    }
    let mut banks = [0u8; 32];
    units.iter().for_each(|unit| banks[*unit as usize % per_pass] += 1);
    banks.into_iter().max().unwrap_or(0).into()
}

/// Moves the distinct numbers, sorted, to the front; returns how many there are.
fn distinct(numbers: &mut [u64]) -> usize {
    if !numbers.is_sorted() {
        numbers.sort_unstable();
    }
    let mut n = 0;
    for i in 0..numbers.len() {
        if n == 0 || numbers[i] != numbers[n - 1] {
            numbers[n] = numbers[i];
            n += 1;
        }
    }
    n
}
