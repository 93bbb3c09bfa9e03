//! Exchange between the lanes of a warp: shuffles, votes, matches, reductions, and which lanes take
//! part. Must not know memory.

use super::warp::{ALL, Flow, Warp, lanes};
use crate::program::{Inst, Op, Shuffle, VoteKind};
use crate::report::{FaultKind, Trouble};
use crate::values::Lanes;

/// Lanes that give the same member mask in one `.sync` instruction.
#[derive(Clone, Copy, Default)]
pub(crate) struct Party {
    /// The lanes that execute the instruction.
    pub lanes: u32,
    /// Their member mask.
    pub mask: u32,
    /// Lanes in the member mask that have not exited.
    pub members: u32,
}

/// The parties at a `.sync` instruction. Incomplete ones wait for the missing lanes.
pub(crate) struct Arrived {
    parties: [Party; 32],
    n: usize,
    held: u32,
}

impl Arrived {
    /// The complete parties.
    pub fn parties(&self) -> impl Iterator<Item = &Party> {
        self.parties[..self.n].iter()
    }

    pub fn flow(&self) -> Flow {
        if self.held == 0 { Flow::Next } else { Flow::Hold(self.held) }
    }
}

/// Groups the lanes that have arrived at a `.sync` instruction by their member mask.
pub(crate) fn arrive(warp: &Warp, register: u32, active: u32) -> Result<Arrived, Trouble> {
    let masks = warp.get(register);
    let mut arrived = Arrived { parties: [Party::default(); 32], n: 0, held: 0 };
    let mut left = active;
    while left != 0 {
        let first = left.trailing_zeros() as usize;
        let mask = masks[first] as u32;
        let mut party = 0;
        for lane in lanes(left) {
            if masks[lane] as u32 == mask {
                party |= 1 << lane;
            }
        }
        left &= !party;
        let strangers = party & !mask;
        if strangers != 0 {
            let lane = strangers.trailing_zeros() as usize;
            let detail = format!(
                "lane {lane} executes an instruction whose mask {mask:#010x} does not name it"
            );
            return Err(Trouble::lane(FaultKind::DivergentSync, lane, detail));
        }
        let members = mask & warp.live;
        if members & !party != 0 {
            arrived.held |= party;
            continue;
        }
        arrived.parties[arrived.n] = Party { lanes: party, mask, members };
        arrived.n += 1;
    }
    Ok(arrived)
}

/// Executes a shuffle, vote, match or reduction among the lanes of a complete party.
pub(crate) fn exchange(warp: &mut Warp, inst: &Inst, party: &Party) -> Result<(), Trouble> {
    let (active, members) = (party.lanes, party.members);
    match &inst.op {
        Op::Shuffle { kind, d, p, a, lane, clamp, .. } => {
            let (value, by, clamp) = (*warp.get(*a), *warp.get(*lane), *warp.get(*clamp));
            let (mut out, mut valid, mut sources) = ([0; 32], 0u32, [0; 32]);
            for i in lanes(active) {
                let (source, fits) = source_of(*kind, i as i64, by[i], clamp[i]);
                valid |= u32::from(fits) << i;
                if active >> source & 1 == 0 {
                    let why = if party.mask >> source & 1 == 0 {
                        format!("its mask {:#010x} does not name", party.mask)
                    } else {
                        "has exited".into()
                    };
                    let detail = format!("lane {i} reads lane {source}, which {why}");
                    return Err(Trouble::lane(FaultKind::DivergentSync, i, detail));
                }
                sources[i] = source;
                out[i] = value[source] & 0xffff_ffff;
            }
            if let Some(watch) = &inst.watch {
                warp.carry_between_lanes(watch, &sources, active);
            }
            warp.set(*d, &out, active);
            if let Some(p) = p {
                warp.set_predicate(*p, valid, active);
            }
        }
        Op::Vote { kind, d, dp, p, .. } => {
            let votes = warp.predicate(*p) & members;
            let holds = match kind {
                VoteKind::All => votes == members,
                VoteKind::Any => votes != 0,
                VoteKind::Uniform => votes == 0 || votes == members,
                VoteKind::Ballot => {
                    warp.set(*d, &[u64::from(votes); 32], active);
                    return Ok(());
                }
            };
            if let Some(dp) = dp {
                warp.set_predicate(*dp, if holds { ALL } else { 0 }, active);
            }
        }
        Op::Match { all, bits, d, dp, a, .. } => {
            let values = warp.get(*a).map(|x| x & (u64::MAX >> (64 - bits)));
            let mut out = [0; 32];
            for lane in lanes(members) {
                let same = lanes(members).filter(|other| values[*other] == values[lane]);
                out[lane] = same.fold(0u64, |mask, other| mask | 1 << other);
            }
            let holds = lanes(members).all(|lane| out[lane] == u64::from(members));
            if *all && !holds {
                out = [0; 32];
            }
            warp.set(*d, &out, active);
            if let Some(dp) = dp {
                warp.set_predicate(*dp, if holds { ALL } else { 0 }, active);
            }
        }
        Op::Reduce { alu, d, a, .. } => {
            let values = *warp.get(*a);
            let mut sum: Option<Lanes> = None;
            for lane in lanes(members) {
                let value = [values[lane]; 32];
                sum = Some(match sum {
                    None => value,
                    Some(sum) => {
                        let mut out = [0; 32];
                        alu(&mut out, &sum, &value, &value);
                        out
                    }
                });
            }
            warp.set(*d, &sum.unwrap_or([0; 32]), active);
        }
        _ => {}
    }
    Ok(())
}

/// The lane whose value a shuffle reads, and whether the requested lane was in range; otherwise it
/// reads its own.
fn source_of(kind: Shuffle, lane: i64, by: u64, clamp: u64) -> (usize, bool) {
    let (b, c) = ((by & 31) as i64, clamp as i64);
    let (segment, c) = (c >> 8 & 31, c & 31);
    let most = (lane & segment) | (c & !segment);
    let (source, fits) = match kind {
        Shuffle::Up => (lane - b, lane - b >= most),
        Shuffle::Down => (lane + b, lane + b <= most),
        Shuffle::Butterfly => (lane ^ b, lane ^ b <= most),
        Shuffle::Index => {
            let source = (lane & segment) | (b & !segment);
            (source, source <= most)
        }
    };
    if fits { (source as usize, true) } else { (lane as usize, false) }
}
