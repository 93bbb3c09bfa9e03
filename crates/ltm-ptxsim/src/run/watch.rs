//! Checks at run time that the registers which an instruction reads were written. Knows only those that
//! `program::written` could not decide.

use super::warp::{Warp, lanes};
use crate::program::{Copy, Watch};
use crate::report::{FaultKind, Trouble};

impl Warp {
    /// Fails if active lanes read an unwritten value, and records what they write.
    pub fn check_watched(
        &mut self,
        watch: &Watch,
        names: &[String],
        mask: u32,
        active: u32,
    ) -> Result<(), Trouble> {
        let refuse = |place: u32, lanes: u32| {
            let lane = lanes.trailing_zeros() as usize;
            let name = &names[place as usize];
            let detail = format!("register {name} is read before anything was written to it");
            Err(Trouble::lane(FaultKind::UnwrittenRegister, lane, detail))
        };
        let missing = |defined: &[u32], place: u32| !defined[place as usize];
        if let Some(guard) = watch.guard {
            let lanes = mask & missing(&self.defined, guard);
            if lanes != 0 {
                return refuse(guard, lanes);
            }
        }
        let mut lost = 0;
        for place in &watch.reads {
            let lanes = active & missing(&self.defined, *place);
            if watch.copy == Copy::All {
                lost |= lanes;
            } else if lanes != 0 {
                return refuse(*place, lanes);
            }
        }
        if let Copy::Select { p, a, b } = watch.copy {
            let p = self.predicate(p);
            let of = |place: Option<u32>| place.map_or(0, |place| missing(&self.defined, place));
            lost = active & (p & of(a) | !p & of(b));
        }
        for place in &watch.writes {
            let defined = &mut self.defined[*place as usize];
            *defined = (*defined | active) & !lost;
        }
        Ok(())
    }

    /// Records what a shuffle writes, given the source lane of each lane.
    pub fn carry_between_lanes(&mut self, watch: &Watch, sources: &[usize; 32], active: u32) {
        let Copy::Lanes { d: Some(d), a } = watch.copy else { return };
        let from = a.map_or(u32::MAX, |a| self.defined[a as usize]);
        let read = lanes(active).filter(|lane| from >> sources[*lane] & 1 != 0);
        let written = read.fold(0, |mask, lane| mask | 1 << lane);
        let defined = &mut self.defined[d as usize];
        *defined = *defined & !active | written;
    }
}
