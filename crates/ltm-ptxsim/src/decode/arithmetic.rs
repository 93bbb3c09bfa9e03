//! Arithmetic, moves, comparisons and conversions. Knows their forms alone.

use super::{Decoded, Decoder, Form, LOCAL_WINDOW, SHARED_WINDOW, Scope};
use crate::alu::{self, Carried};
use crate::convert::Convert;
use crate::counters::Class;
use crate::inst::{Logic, Op};
use crate::parse::{Operand, type_bytes};

impl Decoder<'_> {
    pub(super) fn arithmetic(&mut self, form: &Form, scope: &Scope) -> Decoded<(Op, Class, u64)> {
        let ty = form.ty();
        let control = |op| Ok((op, Class::Control, 0));
        let integer = |op| Ok((op, Class::Integer, 0));
        match form.base() {
            "cvta" => {
                form.need(2)?;
                // Windows of the generic space are told apart by their addresses.
                let (d, a) = (self.target(scope, &form.o[0])?, self.source(scope, &form.o[1])?);
                let base = match () {
                    () if form.has("shared") || form.has("shared::cta") => SHARED_WINDOW,
                    () if form.has("local") => LOCAL_WINDOW,
                    () => 0,
                };
                let (alu, sign) =
                    if form.has("to") { ("sub.u64", base) } else { ("add.u64", base) };
                let (alu, ..) = alu::find(alu).ok_or_else(|| form.unknown())?;
                let base = self.value(sign);
                integer(Op::Alu { alu, d, s: [a, base, a] })
            }
            "mov" if ty == "pred" => {
                form.need(2)?;
                form.knows(&[])?;
                let (d, _) = self.predicate(scope, &form.o[0])?;
                match &form.o[1] {
                    Operand::Integer(value) => control(Op::SetPred { d, value: *value != 0 }),
                    other => {
                        let (a, _) = self.predicate(scope, other)?;
                        control(Op::Logic { logic: Logic::Mov, d, a, b: a })
                    }
                }
            }
            "mov" => {
                form.need(2)?;
                form.knows(&[])?;
                let bits = 8 * type_bytes(ty).ok_or_else(|| form.unknown())?;
                match (&form.o[0], &form.o[1]) {
                    (Operand::Vector(list), _) => {
                        let bits = bits / list.len() as u32;
                        let a = self.source(scope, &form.o[1])?;
                        integer(Op::Unpack { parts: self.targets(scope, &form.o[0])?, a, bits })
                    }
                    (_, Operand::Vector(list)) => {
                        let bits = bits / list.len() as u32;
                        let parts = self.sources(scope, &form.o[1])?;
                        integer(Op::Pack { d: self.target(scope, &form.o[0])?, parts, bits })
                    }
                    (_, Operand::Register(name)) if clock(name).is_some() => {
                        let shift = clock(name).unwrap_or(0);
                        integer(Op::Clock { d: self.target(scope, &form.o[0])?, shift })
                    }
                    _ => {
                        let a = self.source(scope, &form.o[1])?;
                        integer(Op::Mov { d: self.target(scope, &form.o[0])?, a })
                    }
                }
            }
            "addc" | "subc" | "madc" => self.carry(form, scope),
            "add" | "sub" | "mad" if form.has("cc") => self.carry(form, scope),
            "and" | "or" | "xor" | "not" if ty == "pred" => {
                form.need(if form.base() == "not" { 2 } else { 3 })?;
                let logic = match form.base() {
                    "and" => Logic::And,
                    "or" => Logic::Or,
                    "xor" => Logic::Xor,
                    _ => Logic::Not,
                };
                form.knows(&[])?;
                let mut plain = |o| -> Decoded<_> {
                    match self.predicate(scope, o)? {
                        (p, false) => Ok(p),
                        _ => Err("a predicate without `!` is expected".into()),
                    }
                };
                let (d, a) = (plain(&form.o[0])?, plain(&form.o[1])?);
                let b = form.o.get(2).map_or(Ok(a), plain)?;
                control(Op::Logic { logic, d, a, b })
            }
            "setp" => {
                form.need(3)?;
                let [_, op, modifiers @ .., _] = form.parts.as_slice() else {
                    return Err(form.unknown());
                };
                form.knows(&[op, "and or xor ftz"])?;
                let ftz = modifiers.contains(&"ftz");
                let compare = alu::comparison(op, ty, ftz).ok_or_else(|| form.unknown())?;
                let logic = match () {
                    () if form.has("and") => Some(Logic::And),
                    () if form.has("or") => Some(Logic::Or),
                    () if form.has("xor") => Some(Logic::Xor),
                    () => None,
                };
                let (d, d2) = match &form.o[0] {
                    Operand::Pair(d, d2) => {
                        let second = match &**d2 {
                            Operand::Sink => None,
                            d2 => Some(self.predicate(scope, d2)?.0),
                        };
                        (self.predicate(scope, d)?.0, second)
                    }
                    d => (self.predicate(scope, d)?.0, None),
                };
                let (a, b) = (self.source(scope, &form.o[1])?, self.source(scope, &form.o[2])?);
                let with = match (logic, form.o.get(3)) {
                    (Some(logic), Some(o)) => {
                        let (p, negated) = self.predicate(scope, o)?;
                        Some((logic, p, negated))
                    }
                    _ => None,
                };
                let class = if ty == "f32" { Class::F32 } else { Class::Integer };
                Ok((Op::Setp { compare, d, d2, a, b, with }, class, 0))
            }
            "selp" => {
                form.need(4)?;
                form.knows(&[])?;
                let (d, a) = (self.target(scope, &form.o[0])?, self.source(scope, &form.o[1])?);
                let (b, (p, _)) =
                    (self.source(scope, &form.o[2])?, self.predicate(scope, &form.o[3])?);
                integer(Op::Selp { d, a, b, p })
            }
            "lop3" => {
                form.need(5)?;
                form.knows(&[])?;
                let Operand::Integer(table) = form.o[4] else {
                    return Err("a table is expected".into());
                };
                let d = self.target(scope, &form.o[0])?;
                let s = self.three(scope, &form.o[1..4])?;
                integer(Op::Lop3 { table: table as u8, d, s })
            }
            "bfi" => {
                form.need(5)?;
                form.knows(&[])?;
                let bits = 8 * type_bytes(ty).ok_or_else(|| form.unknown())?;
                let d = self.target(scope, &form.o[0])?;
                let [a, b, c] = self.three(scope, &form.o[1..4])?;
                let len = self.source(scope, &form.o[4])?;
                integer(Op::Bfi { bits, d, s: [a, b, c, len] })
            }
            "shf" => {
                form.need(4)?;
                form.knows(&["l r wrap clamp"])?;
                let d = self.target(scope, &form.o[0])?;
                let s = self.three(scope, &form.o[1..4])?;
                integer(Op::Shf { left: form.has("l"), wrap: form.has("wrap"), d, s })
            }
            "cvt" => {
                form.need(2)?;
                let convert = Convert::parse(form.opcode).ok_or_else(|| form.unknown())?;
                let d = self.target(scope, &form.o[0])?;
                let a = self.source(scope, &form.o[1])?;
                let b = if convert.is_packed() {
                    form.need(3)?;
                    self.source(scope, &form.o[2])?
                } else {
                    a
                };
                integer(Op::Convert { convert, d, a, b })
            }
            _ => {
                let (alu, class, flops) = alu::find(form.opcode).ok_or_else(|| form.unknown())?;
                form.need(2)?;
                let d = self.target(scope, &form.o[0])?;
                // An operand that there is not stands for none in particular.
                let mut s = [self.source(scope, &form.o[1])?; 3];
                for (s, operand) in s.iter_mut().zip(&form.o[1..]) {
                    *s = self.source(scope, operand)?;
                }
                Ok((Op::Alu { alu, d, s }, class, flops))
            }
        }
    }

    fn carry(&mut self, form: &Form, scope: &Scope) -> Decoded<(Op, Class, u64)> {
        let [base, modifiers @ .., ty] = form.parts.as_slice() else { return Err(form.unknown()) };
        let (modifiers, leaves) = match modifiers {
            [modifiers @ .., "cc"] => (modifiers, true),
            modifiers => (modifiers, false),
        };
        let kind = match (base.trim_end_matches('c'), modifiers) {
            ("add", []) => Carried::Add,
            ("sub", []) => Carried::Sub,
            ("mad", ["lo"]) => Carried::MadLow,
            ("mad", ["hi"]) => Carried::MadHigh,
            _ => return Err(form.unknown()),
        };
        let ty = match *ty {
            "u32" => (32, false),
            "s32" => (32, true),
            "u64" => (64, false),
            "s64" => (64, true),
            _ => return Err(form.unknown()),
        };
        let d = self.target(scope, form.o.first().ok_or("a target is expected")?)?;
        let mut s = [self.source(scope, form.o.get(1).ok_or("operands are expected")?)?; 3];
        let n = if matches!(kind, Carried::Add | Carried::Sub) { 2 } else { 3 };
        for (s, o) in s.iter_mut().zip(&form.o[1..]) {
            *s = self.source(scope, o)?;
        }
        if form.o.len() != n + 1 {
            return Err(format!("{} operands are expected", n + 1));
        }
        // A thread has one carry, whatever function it is in.
        let carry = self.predicate_of("CC.CF".into());
        let takes = base.ends_with('c').then_some(carry);
        let op = Op::Carry { kind, ty, d, s, takes, leaves: leaves.then_some(carry) };
        Ok((op, Class::Integer, 0))
    }
}

/// The first bit that a register with a clock shows of it. A clock counts the instructions that the
/// block's warps have issued: it only goes forward.
fn clock(name: &str) -> Option<u32> {
    match name {
        "%clock" | "%clock64" | "%globaltimer" | "%globaltimer_lo" => Some(0),
        "%clock_hi" | "%globaltimer_hi" => Some(32),
        _ => None,
    }
}
