//! Executes a warp's instructions: control flow, and the values that registers get. Must not know how memory works,
//! which is in `access` and its neighbours.

use super::block::Block;
use super::exchange::{arrive, exchange};
use super::warp::{ALL, Flow, Group, Warp, lanes};
use crate::memory::space_of;
use crate::program::{BarrierKind, Inst, Logic, Op};
use crate::report::{FaultKind, Trouble};
use crate::values::{self, Lanes};

/// Why a warp stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Its turn is over.
    Turn,
    /// It waits at a barrier.
    Barrier,
    /// All of its lanes have exited.
    Done,
}

/// Runs one warp for at most `turn` instructions. An error contains the index of the instruction.
pub(crate) fn run(block: &mut Block, warp: &mut Warp, turn: u32) -> Result<Stop, (Trouble, u32)> {
    let launch = block.launch;
    let mut left = turn;
    while let Some(Group { mut pc, mut mask, .. }) = warp.next() {
        loop {
            let inst = &launch.code.insts[pc as usize];
            let active = match inst.guard {
                None => mask,
                Some((p, negated)) => {
                    let p = warp.predicates[p as usize];
                    mask & if negated { !p } else { p }
                }
            };
            if let Some(watch) = &inst.watch {
                warp.check_watched(watch, &launch.code.watched, mask, active)
                    .map_err(|trouble| (trouble, pc))?;
            }
            block.shared.pc = pc;
            block.counters.count(inst.class, active);
            block.counters.flops += inst.flops * u64::from(active.count_ones());
            let flow = match &inst.op {
                Op::Bra { target } => {
                    let stay = mask & !active;
                    if stay != 0 && active != 0 {
                        block.counters.divergent_branches += 1;
                        warp.insert(Group { pc: *target, mask: active, held: false });
                        (pc, mask) = (pc + 1, stay);
                    } else {
                        pc = if active != 0 { *target } else { pc + 1 };
                    }
                    Flow::Jump
                }
                Op::BrxIdx { index, targets } => {
                    for lane in lanes(active) {
                        let i = warp.registers[*index as usize][lane] as u32 as usize;
                        let Some(target) = targets.get(i) else {
                            let detail = format!(
                                "branch index {i}; the table has {} targets",
                                targets.len()
                            );
                            let trouble = Trouble::at(FaultKind::OutOfBounds, lane, 0, detail);
                            return Err((trouble, pc));
                        };
                        warp.insert(Group { pc: *target, mask: 1 << lane, held: false });
                    }
                    if mask & !active != 0 {
                        warp.insert(Group { pc: pc + 1, mask: mask & !active, held: false });
                    }
                    break;
                }
                // A guard that excludes every lane skips the instruction.
                _ if active == 0 => Flow::Next,
                _ => step(block, warp, inst, mask, active).map_err(|trouble| (trouble, pc))?,
            };
            match flow {
                Flow::Next => pc += 1,
                Flow::Jump => {}
                Flow::Exit => {
                    warp.live &= !active;
                    // Waiting groups check again: they may have waited only for the lanes that just
                    // exited.
                    warp.groups.iter_mut().for_each(|group| group.held = false);
                    mask &= !active;
                    pc += 1;
                    if mask == 0 {
                        break;
                    }
                }
                Flow::Hold(held) => {
                    warp.insert(Group { pc, mask: held, held: true });
                    mask &= !held;
                    if mask == 0 {
                        break;
                    }
                    pc += 1;
                }
                Flow::Barrier { id, count } => {
                    warp.insert(Group { pc: pc + 1, mask, held: false });
                    warp.waiting = Some((id, count));
                    return Ok(Stop::Barrier);
                }
            }
            left = left.saturating_sub(1);
            if left == 0 {
                warp.insert(Group { pc, mask, held: false });
                return Ok(Stop::Turn);
            }
            // Another group is at this instruction (the two merge) or at an earlier one (it runs
            // first).
            if warp.groups.last().is_some_and(|other| other.pc <= pc) {
                warp.insert(Group { pc, mask, held: false });
                break;
            }
        }
    }
    match warp.groups.last() {
        None => Ok(Stop::Done),
        Some(group) => {
            let detail = format!(
                "lanes {:#010x} wait for other lanes of their warp that never arrive (not exited: {:#010x})",
                group.mask, warp.live
            );
            Err((Trouble::warp(FaultKind::DivergentSync, detail), group.pc))
        }
    }
}

/// A comparison's result, combined with a predicate.
fn combined(warp: &Warp, with: &Option<(Logic, (u32, bool))>, result: u32) -> u32 {
    match with {
        None => result,
        Some((Logic::And, p)) => result & warp.predicate(*p),
        Some((Logic::Or, p)) => result | warp.predicate(*p),
        Some((_, p)) => result ^ warp.predicate(*p),
    }
}

fn step(
    block: &mut Block,
    warp: &mut Warp,
    inst: &Inst,
    mask: u32,
    active: u32,
) -> Result<Flow, Trouble> {
    match &inst.op {
        Op::Alu { alu, d, s: [a, b, c] } => {
            let mut out = [0; 32];
            alu(&mut out, warp.get(*a), warp.get(*b), warp.get(*c));
            warp.set(*d, &out, active);
        }
        Op::Lop3 { table, d, s: [a, b, c] } => {
            let [a, b, c] = [a, b, c].map(|r| warp.get(*r));
            let out = std::array::from_fn(|i| values::lop3(*table, a[i], b[i], c[i]));
            warp.set(*d, &out, active);
        }
        Op::Bfi { bits, d, s } => {
            let [a, b, at, len] = s.map(|r| warp.get(r));
            let out = std::array::from_fn(|i| values::bfi(*bits, a[i], b[i], at[i], len[i]));
            warp.set(*d, &out, active);
        }
        Op::Shf { left, wrap, d, s } => {
            let [a, b, by] = s.map(|r| warp.get(r));
            let out = std::array::from_fn(|i| values::shf(*left, *wrap, a[i], b[i], by[i]));
            warp.set(*d, &out, active);
        }
        Op::Carry { kind, ty, d, s, takes, leaves } => {
            let [a, b, c] = s.map(|r| warp.get(r));
            let carries = takes.map(|p| warp.predicates[p as usize]);
            let (mut out, mut left) = ([0; 32], 0);
            for i in 0..32 {
                let (sum, carry) =
                    values::carry(*kind, *ty, [a[i], b[i], c[i]], carries.map(|c| c >> i & 1 != 0));
                out[i] = sum;
                left |= u32::from(carry) << i;
            }
            warp.set(*d, &out, active);
            if let Some(leaves) = leaves {
                warp.set_predicate(*leaves, left, active);
            }
        }
        Op::Convert { convert, d, a, b } => {
            let mut out = [0; 32];
            convert.run(&mut out, warp.get(*a), warp.get(*b));
            warp.set(*d, &out, active);
        }
        Op::Mov { d, a } => {
            let a = *warp.get(*a);
            warp.set(*d, &a, active);
        }
        Op::Pack { d, parts, bits } => {
            let mut out = [0; 32];
            for (i, part) in parts.iter().enumerate() {
                let part = warp.get(*part);
                for lane in 0..32 {
                    let low = part[lane] & (u64::MAX >> (64 - bits));
                    out[lane] |= low << (i as u32 * bits);
                }
            }
            warp.set(*d, &out, active);
        }
        Op::Unpack { parts, a, bits } => {
            let a = *warp.get(*a);
            for (i, part) in parts.iter().enumerate() {
                let Some(part) = part else { continue };
                let out = a.map(|x| x >> (i as u32 * bits) & (u64::MAX >> (64 - bits)));
                warp.set(*part, &out, active);
            }
        }
        Op::Setp { compare, d, d2, a, b, with } => {
            let result = compare(warp.get(*a), warp.get(*b));
            let (first, second) = (combined(warp, with, result), combined(warp, with, !result));
            warp.set_predicate(*d, first, active);
            if let Some(d2) = d2 {
                warp.set_predicate(*d2, second, active);
            }
        }
        Op::Set { compare, d, a, b, with, value, packed } => {
            let (a, b) = (*warp.get(*a), *warp.get(*b));
            let result = combined(warp, with, compare(&a, &b));
            let of = |result: u32, lane: usize| if result >> lane & 1 != 0 { *value } else { 0 };
            let mut out: Lanes = std::array::from_fn(|lane| of(result, lane));
            if *packed {
                let upper = compare(&a.map(|x| x >> 16), &b.map(|x| x >> 16));
                for (lane, out) in out.iter_mut().enumerate() {
                    *out |= of(upper, lane) << 16;
                }
            }
            warp.set(*d, &out, active);
        }
        Op::Selp { d, a, b, p } => {
            let p = warp.predicate(*p);
            let (a, b) = (warp.get(*a), warp.get(*b));
            let out = std::array::from_fn(|i| if p >> i & 1 != 0 { a[i] } else { b[i] });
            warp.set(*d, &out, active);
        }
        Op::Logic { logic, d, a, b } => {
            let (a, b) = (warp.predicate(*a), warp.predicate(*b));
            let result = match logic {
                Logic::And => a & b,
                Logic::Or => a | b,
                Logic::Xor => a ^ b,
                Logic::Not => !a,
                Logic::Mov => a,
            };
            warp.set_predicate(*d, result, active);
        }
        Op::IsSpace { d, a, space } => {
            let addresses = *warp.get(*a);
            let within = lanes(ALL).filter(|lane| space_of(addresses[*lane]) == *space);
            warp.set_predicate(*d, within.fold(0, |mask, lane| mask | 1 << lane), active);
        }
        Op::Exit => return Ok(Flow::Exit),
        Op::Trap => return Err(Trouble::warp(FaultKind::Trap, "the kernel executed `trap`")),
        Op::Nop => {}
        Op::Fence => block.time += 1,
        Op::Builtin { builtin, d, args } => block.builtin(warp, *builtin, *d, args, active)?,
        Op::WarpSync { mask: members } => {
            let arrived = arrive(warp, *members, active)?;
            for party in arrived.parties() {
                block.shared.meet(warp.index, party.members, warp.live);
            }
            return Ok(arrived.flow());
        }
        Op::Barrier { kind, id, count, d, dp, p } => {
            if mask != warp.live {
                return Ok(Flow::Hold(mask));
            }
            let lane = active.trailing_zeros() as usize;
            let id = warp.get(*id)[lane] as u32;
            let count = count.map_or(block.n_threads, |count| warp.get(count)[lane] as u32);
            if *kind == BarrierKind::Sync {
                return Ok(Flow::Barrier { id, count });
            }
            // Each warp contributes its votes; the block writes the result when all have arrived.
            let votes = p.map_or(0, |p| warp.predicate(p)) & active;
            block.vote(warp.index, *kind, votes, active, *d, *dp);
            return Ok(Flow::Barrier { id, count });
        }
        Op::Shuffle { mask: members, .. }
        | Op::Vote { mask: members, .. }
        | Op::Match { mask: members, .. }
        | Op::Reduce { mask: members, .. } => {
            let arrived = arrive(warp, *members, active)?;
            for party in arrived.parties() {
                block.shared.meet(warp.index, party.members, warp.live);
                exchange(warp, inst, party)?;
            }
            return Ok(arrived.flow());
        }
        Op::ActiveMask { d } => warp.set(*d, &[u64::from(active); 32], active),
        Op::Clock { d, shift } => {
            let now: u64 = block.counters.instructions.iter().sum();
            warp.set(*d, &[now >> shift; 32], active);
        }
        Op::Mma { mma, d, a, b, c } => {
            if active != ALL {
                return if mask == warp.live {
                    Err(Trouble::warp(FaultKind::DivergentSync, "mma needs all 32 lanes"))
                } else {
                    Ok(Flow::Hold(mask))
                };
            }
            let mut out = [[0; 32]; 4];
            let get = |r: &u32| warp.get(*r);
            // Narrower shapes use fewer than these four and two registers; `run` gets only those.
            let left: [_; 4] = std::array::from_fn(|i| get(&a[i.min(a.len() - 1)]));
            let right: [_; 2] = std::array::from_fn(|i| get(&b[i.min(b.len() - 1)]));
            mma.run(&mut out, &left[..a.len()], &right[..b.len()], c.each_ref().map(get));
            for (d, out) in d.iter().zip(&out) {
                warp.set(*d, out, active);
            }
        }
        Op::LoadMatrix { .. } | Op::StoreMatrix { .. } if mask != warp.live => {
            return Ok(Flow::Hold(mask));
        }
        Op::LoadMatrix { d, transposed, address, offset } => {
            block.load_matrix(warp, d, *transposed, *address, *offset)?;
        }
        Op::StoreMatrix { s, transposed, address, offset } => {
            block.store_matrix(warp, s, *transposed, *address, *offset)?;
        }
        Op::Load { access, d } => block.load(warp, access, d, active)?,
        Op::Store { access, s } => block.store(warp, access, s, active)?,
        Op::Atomic { access, update, d, a, b } => {
            block.atomic(warp, access, *update, *d, *a, *b, active)?;
        }
        Op::CopyAsync { .. } => block.copy_async(warp, &inst.op, active)?,
        Op::CopyCommit => lanes(active).for_each(|lane| warp.committed[lane] += 1),
        Op::CopyWait { pending } => block.wait_copies(warp, *pending, active),
        Op::Bra { .. } | Op::BrxIdx { .. } => unreachable!("`run` branches"),
    }
    Ok(Flow::Next)
}
