//! Loads and stores: resolves address spaces, and checks every access. Knows memory as instructions use it; must not
//! know which instruction runs next.

use super::block::Block;
use super::warp::{Warp, lanes};
use crate::memory::{Allocation, Site, Space, Touch, place};
use crate::program::{Access, Reg, Strength};
use crate::report::{FaultKind, Other, Trouble};
use crate::values::sign_extend;

/// Reads an element of 1, 2, 4 or 8 bytes.
fn little_endian(bytes: &[u8]) -> u64 {
    match *bytes {
        [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
        [a, b] => u64::from(u16::from_le_bytes([a, b])),
        _ => bytes.iter().rev().fold(0, |x, byte| x << 8 | u64::from(*byte)),
    }
}

impl Block<'_> {
    pub(super) fn addresses(warp: &Warp, register: Reg, offset: i64) -> [u64; 32] {
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
    pub(super) fn global_load(
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
    pub(super) fn acquire(&self, strength: Strength, address: u64) {
        if strength != Strength::Weak && self.launch.code.orders_blocks {
            self.launch.fences.acquire(self.number, address);
        }
    }

    /// Before a strong write to an address: releases what the block did before its last fence.
    pub(super) fn release(&mut self, strength: Strength, address: u64) {
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
}
