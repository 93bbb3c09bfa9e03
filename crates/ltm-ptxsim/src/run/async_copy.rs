//! Asynchronous copies (`cp.async`) and their waits. Knows when their bytes arrive; must not know who reads them.

use super::block::Block;
use super::warp::{PendingCopy, Warp, lanes};
use crate::memory::{Space, place};
use crate::options::AsyncCopies;
use crate::program::Op;
use crate::report::{FaultKind, Trouble};

impl Block<'_> {
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
}
