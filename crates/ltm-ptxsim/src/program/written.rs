//! Finds the instructions that may read a register that was never written; only those are checked
//! at run time. Knows which registers an instruction reads and writes and where control goes next;
//! must not know what it computes.
//!
//! Copying such a register is allowed, using it is a fault: compilers copy values that no path
//! uses.

use std::collections::HashMap;

use super::inst::{Code, Copy, Inst, Logic, Op, Pred, Reg, VoteKind, Watch};

/// A register or a predicate; predicates are numbered after the registers.
type Value = u32;

/// Adds the checks to all instructions and records the names of the checked registers.
pub(crate) fn watch(code: &mut Code, names: impl Fn(Value) -> String) {
    let sure = analyse(code);
    let mut places: HashMap<Value, u32> = HashMap::new();
    let mut unsure: Vec<Vec<Value>> = Vec::new();
    for (inst, sure) in code.insts.iter().zip(&sure) {
        let mut reads = operands(inst, code.n_registers as u32).reads;
        reads.retain(|value| !sure.has(*value));
        for value in &reads {
            let next = places.len() as u32;
            places.entry(*value).or_insert(next);
        }
        unsure.push(reads);
    }
    let n_registers = code.n_registers as u32;
    for (inst, unsure) in code.insts.iter_mut().zip(unsure) {
        let place = |value: Value| places.get(&value).copied();
        let place_of_unsure = |value: Value| place(value).filter(|_| unsure.contains(&value));
        let operands = operands(inst, n_registers);
        let guard = inst.guard.and_then(|(p, _)| place_of_unsure(n_registers + p));
        // `reads` ends with the guard.
        let n_reads = operands.reads.len() - usize::from(inst.guard.is_some());
        let (read, copy) = match inst.op {
            Op::Selp { a, b, p, .. } => {
                let copy = Copy::Select { p, a: place_of_unsure(a), b: place_of_unsure(b) };
                (vec![n_registers + p.0], copy)
            }
            Op::Shuffle { d, a, lane, clamp, mask, .. } => {
                let copy = Copy::Lanes { d: place(d), a: place_of_unsure(a) };
                (vec![lane, clamp, mask], copy)
            }
            _ => {
                let copy = if copies(&inst.op) { Copy::All } else { Copy::Not };
                (operands.reads[..n_reads].to_vec(), copy)
            }
        };
        // The first target of a shuffle is handled once its source lanes are known.
        let n_carried = usize::from(matches!(copy, Copy::Lanes { .. }));
        let watch = Watch {
            guard,
            reads: read.into_iter().filter_map(place_of_unsure).collect(),
            writes: operands.writes[n_carried..].iter().filter_map(|value| place(*value)).collect(),
            copy,
        };
        let is_carried = matches!(watch.copy, Copy::Lanes { d: Some(_), .. });
        if is_carried
            || watch.guard.is_some()
            || !watch.reads.is_empty()
            || !watch.writes.is_empty()
        {
            inst.watch = Some(Box::new(watch));
        }
    }
    let mut watched = vec![String::new(); places.len()];
    for (value, place) in places {
        watched[place as usize] = names(value);
    }
    code.watched = watched;
}

/// A set of registers and predicates.
#[derive(Clone, PartialEq, Eq)]
struct Set(Vec<u64>);

impl Set {
    fn has(&self, value: Value) -> bool {
        self.0[value as usize / 64] >> (value % 64) & 1 != 0
    }

    fn put(&mut self, value: Value, there: bool) {
        let bit = 1 << (value % 64);
        let word = &mut self.0[value as usize / 64];
        *word = if there { *word | bit } else { *word & !bit };
    }

    /// Intersects with `other`; returns whether anything was removed.
    fn meet(&mut self, other: &Self) -> bool {
        let mut changed = false;
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            changed |= *word & !other != 0;
            *word &= other;
        }
        changed
    }
}

/// For every instruction, the values that are written on all paths to it.
fn analyse(code: &Code) -> Vec<Set> {
    let n_registers = code.n_registers as u32;
    let words = (code.n_registers + code.n_predicates).div_ceil(64);
    let everything = Set(vec![u64::MAX; words]);
    let mut sure = vec![everything; code.insts.len()];
    let Some(first) = sure.first_mut() else { return sure };
    *first = Set(vec![0; words]);
    code.initial.iter().for_each(|(reg, _)| first.put(*reg, true));
    code.always.iter().for_each(|p| first.put(n_registers + p, true));
    let mut again: Vec<usize> = vec![0];
    let mut visited = vec![false; code.insts.len()];
    while let Some(start) = again.pop() {
        let mut at = start;
        loop {
            let inst = &code.insts[at];
            visited[at] = true;
            let mut after = sure[at].clone();
            let operands = operands(inst, n_registers);
            let there = !copies(&inst.op) || operands.reads.iter().all(|value| after.has(*value));
            for value in operands.writes {
                // A guarded write may not happen: what was written before stays, nothing new is
                // certain.
                let kept = inst.guard.is_none() || after.has(value);
                after.put(value, there && kept);
            }
            let mut visit = |target: usize| {
                let changed = sure[target].meet(&after);
                changed || !visited[target]
            };
            let targets = match &inst.op {
                Op::Bra { target } => std::slice::from_ref(target),
                Op::BrxIdx { targets, .. } => targets,
                _ => &[],
            };
            for target in targets.iter().map(|target| *target as usize) {
                if visit(target) {
                    again.push(target);
                }
            }
            let ends = matches!(inst.op, Op::Bra { .. } | Op::BrxIdx { .. } | Op::Exit | Op::Trap);
            if ends && inst.guard.is_none() || at + 1 == code.insts.len() || !visit(at + 1) {
                break;
            }
            at += 1;
        }
    }
    sure
}

fn copies(op: &Op) -> bool {
    match op {
        Op::Mov { .. } | Op::Pack { .. } | Op::Unpack { .. } | Op::Selp { .. } => true,
        Op::Shuffle { .. } | Op::Logic { logic: Logic::Mov, .. } => true,
        // Integer conversions count as copies: compilers widen a value before they know whether it
        // is used.
        Op::Convert { convert, .. } => convert.is_between_integers(),
        _ => false,
    }
}

/// The operands an instruction reads (its guard last) and writes.
struct Operands {
    reads: Vec<Value>,
    writes: Vec<Value>,
}

fn operands(inst: &Inst, n_registers: u32) -> Operands {
    let (mut reads, mut read_preds): (Vec<Reg>, Vec<Pred>) = (Vec::new(), Vec::new());
    let (mut writes, mut write_preds): (Vec<Reg>, Vec<Pred>) = (Vec::new(), Vec::new());
    match &inst.op {
        Op::Alu { d, s, .. } | Op::Lop3 { d, s, .. } | Op::Shf { d, s, .. } => {
            reads.extend(s);
            writes.push(*d);
        }
        Op::Bfi { d, s, .. } => {
            reads.extend(s);
            writes.push(*d);
        }
        Op::Carry { d, s, takes, leaves, .. } => {
            reads.extend(s);
            read_preds.extend(takes);
            writes.push(*d);
            write_preds.extend(leaves);
        }
        Op::Convert { d, a, b, .. } => {
            reads.extend([a, b]);
            writes.push(*d);
        }
        Op::Mov { d, a } => {
            reads.push(*a);
            writes.push(*d);
        }
        Op::Pack { d, parts, .. } => {
            reads.extend(parts);
            writes.push(*d);
        }
        Op::Unpack { parts, a, .. } => {
            reads.push(*a);
            writes.extend(parts.iter().flatten());
        }
        Op::Setp { d, d2, a, b, with, .. } => {
            reads.extend([a, b]);
            read_preds.extend(with.map(|(_, (p, _))| p));
            write_preds.push(*d);
            write_preds.extend(d2);
        }
        Op::Set { d, a, b, with, .. } => {
            reads.extend([a, b]);
            read_preds.extend(with.map(|(_, (p, _))| p));
            writes.push(*d);
        }
        Op::Selp { d, a, b, p } => {
            reads.extend([a, b]);
            read_preds.push(p.0);
            writes.push(*d);
        }
        Op::Logic { d, a, b, .. } => {
            read_preds.extend([a.0, b.0]);
            write_preds.push(*d);
        }
        Op::IsSpace { d, a, .. } => {
            reads.push(*a);
            write_preds.push(*d);
        }
        Op::Builtin { d, args, .. } => {
            reads.extend(args);
            writes.extend(d);
        }
        Op::BrxIdx { index, .. } => reads.push(*index),
        Op::Barrier { id, count, d, dp, p, .. } => {
            reads.push(*id);
            reads.extend(count);
            read_preds.extend(p.map(|(p, _)| p));
            writes.extend(d);
            write_preds.extend(dp);
        }
        Op::WarpSync { mask } => reads.push(*mask),
        Op::Load { access, d } => {
            reads.push(access.address);
            writes.extend(d.iter().flatten());
        }
        Op::Store { access, s } => {
            reads.push(access.address);
            reads.extend(s);
        }
        Op::Atomic { access, d, a, b, .. } => {
            reads.extend([access.address, *a]);
            reads.extend(b);
            writes.extend(d);
        }
        Op::CopyAsync { to, from, valid, .. } => {
            reads.extend([to, from]);
            reads.extend(valid);
        }
        Op::LoadMatrix { d, address, .. } => {
            reads.push(*address);
            writes.extend(d);
        }
        Op::StoreMatrix { s, address, .. } => {
            reads.push(*address);
            reads.extend(s);
        }
        Op::Mma { d, a, b, c, .. } => {
            reads.extend(a);
            reads.extend(b);
            reads.extend(c);
            writes.extend(d);
        }
        Op::Shuffle { d, p, a, lane, clamp, mask, .. } => {
            reads.extend([a, lane, clamp, mask]);
            writes.push(*d);
            write_preds.extend(p);
        }
        Op::Vote { kind, d, dp, p, mask } => {
            reads.push(*mask);
            read_preds.push(p.0);
            writes.extend((*kind == VoteKind::Ballot).then_some(d));
            write_preds.extend(dp);
        }
        Op::Match { d, dp, a, mask, .. } => {
            reads.extend([a, mask]);
            writes.push(*d);
            write_preds.extend(dp);
        }
        Op::Reduce { d, a, mask, .. } => {
            reads.extend([a, mask]);
            writes.push(*d);
        }
        Op::ActiveMask { d } | Op::Clock { d, .. } => writes.push(*d),
        Op::Bra { .. }
        | Op::Exit
        | Op::Trap
        | Op::Nop
        | Op::Fence
        | Op::CopyCommit
        | Op::CopyWait { .. } => {}
    }
    read_preds.extend(inst.guard.map(|(p, _)| p));
    reads.extend(read_preds.iter().map(|p| n_registers + p));
    writes.extend(write_preds.iter().map(|p| n_registers + p));
    Operands { reads, writes }
}
