//! Atomics: read-modify-write of one element per lane. Knows what they compute; must not know how memory stores it.

use super::block::Block;
use super::warp::{Warp, lanes};
use crate::memory::{Space, place};
use crate::program::{Access, Reg, Strength, Update};
use crate::report::{FaultKind, Trouble};
use crate::values::{f, half_sum, sign_extend};

impl Block<'_> {
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
}
