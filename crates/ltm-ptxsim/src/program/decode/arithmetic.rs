//! Decodes arithmetic, moves, comparisons and conversions. Knows only their form.

use super::form::{Decoded, Form};
use super::{Decoder, Scope};
use crate::memory::{LOCAL_WINDOW, SHARED_WINDOW, Space};
use crate::program::inst::{Condition, Logic, Op};
use crate::report::Class;
use crate::text::{Operand, type_bytes};
use crate::values::{self, Carried, Compare, Convert};

impl Decoder<'_> {
    pub(super) fn arithmetic(&mut self, form: &Form, scope: &Scope) -> Decoded<(Op, Class, u64)> {
        let ty = form.ty();
        let control = |op| Ok((op, Class::Control, 0));
        let integer = |op| Ok((op, Class::Integer, 0));
        match form.base() {
            "cvta" => {
                form.need(2)?;
                form.knows(&["to global const shared shared::cta local"])?;
                // The address of a generic pointer decides its space, so a conversion adds or
                // subtracts the base.
                let (d, a) = (self.target(scope, &form.o[0])?, self.source(scope, &form.o[1])?);
                let base = match () {
                    () if form.has("shared") || form.has("shared::cta") => SHARED_WINDOW,
                    () if form.has("local") => LOCAL_WINDOW,
                    () => 0,
                };
                let (alu, sign) =
                    if form.has("to") { ("sub.u64", base) } else { ("add.u64", base) };
                let (alu, ..) = values::find(alu).ok_or_else(|| form.unknown())?;
                let base = self.value(sign);
                integer(Op::Alu { alu, d, s: [a, base, a] })
            }
            "mov" if ty == "pred" => {
                form.need(2)?;
                form.knows(&[])?;
                let (d, a) =
                    (self.predicate(scope, &form.o[0])?, self.condition(scope, &form.o[1])?);
                control(Op::Logic { logic: Logic::Mov, d, a, b: a })
            }
            "mov" => {
                form.need(2)?;
                form.knows(&[])?;
                let bits = 8 * type_bytes(ty).filter(|b| *b <= 8).ok_or_else(|| form.unknown())?;
                match (&form.o[0], &form.o[1]) {
                    (Operand::Vector(list), _) => {
                        let bits = part_bits(bits, list.len())?;
                        let a = self.source(scope, &form.o[1])?;
                        integer(Op::Unpack { parts: self.targets(scope, &form.o[0])?, a, bits })
                    }
                    (_, Operand::Vector(list)) => {
                        let bits = part_bits(bits, list.len())?;
                        let parts = self.sources(scope, &form.o[1])?;
                        integer(Op::Pack { d: self.target(scope, &form.o[0])?, parts, bits })
                    }
                    (_, Operand::Register(name)) if clock(name).is_some() => {
                        let shift = clock(name).unwrap_or(0);
                        integer(Op::Clock { d: self.target(scope, &form.o[0])?, shift })
                    }
                    (_, Operand::Integer(_)) if matches!(ty, "f32" | "f64") => {
                        Err(NOT_A_FLOAT.into())
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
                let d = self.predicate(scope, &form.o[0])?;
                let a = self.condition(scope, &form.o[1])?;
                let b = form.o.get(2).map_or(Ok(a), |o| self.condition(scope, o))?;
                control(Op::Logic { logic, d, a, b })
            }
            "setp" => {
                let (compare, logic) = comparison(form, &form.parts[1..form.parts.len() - 1], ty)?;
                form.need(if logic.is_some() { 4 } else { 3 })?;
                let (d, d2) = match &form.o[0] {
                    Operand::Pair(d, d2) => {
                        (self.predicate(scope, d)?, Some(self.predicate(scope, d2)?))
                    }
                    d => (self.predicate(scope, d)?, None),
                };
                let (a, b) = (self.source(scope, &form.o[1])?, self.source(scope, &form.o[2])?);
                let with = self.combined_with(form, logic, scope)?;
                let class = if ty == "f32" { Class::F32 } else { Class::Integer };
                Ok((Op::Setp { compare, d, d2, a, b, with }, class, 0))
            }
            "set" => {
                let [_, between @ .., result, _] = form.parts.as_slice() else {
                    return Err(form.unknown());
                };
                let packed = ty.ends_with("x2");
                let (compare, logic) = comparison(form, between, ty.trim_end_matches("x2"))?;
                form.need(if logic.is_some() { 4 } else { 3 })?;
                // The value for true; with packed operands, in each half.
                let value = match *result {
                    "u32" | "s32" if packed => 0xffff,
                    "u32" | "s32" => 0xffff_ffff,
                    "f32" if !packed => 0x3f80_0000,
                    "f16" | "f16x2" if ty == *result => 0x3c00,
                    "bf16" | "bf16x2" if ty == *result => 0x3f80,
                    _ => return Err(form.unknown()),
                };
                let d = self.target(scope, &form.o[0])?;
                let (a, b) = (self.source(scope, &form.o[1])?, self.source(scope, &form.o[2])?);
                let with = self.combined_with(form, logic, scope)?;
                if packed && with.is_some() {
                    return Err(form.unknown());
                }
                integer(Op::Set { compare, d, a, b, with, value, packed })
            }
            "isspacep" => {
                form.need(2)?;
                let space = match form.parts.as_slice() {
                    [_, "global"] => Space::Global,
                    [_, "shared" | "shared::cta"] => Space::Shared,
                    [_, "local"] => Space::Local,
                    _ => return Err(form.unknown()),
                };
                let (d, a) = (self.predicate(scope, &form.o[0])?, self.source(scope, &form.o[1])?);
                integer(Op::IsSpace { d, a, space })
            }
            "selp" => {
                form.need(4)?;
                form.knows(&[])?;
                let (d, a) = (self.target(scope, &form.o[0])?, self.source(scope, &form.o[1])?);
                let (b, p) = (self.source(scope, &form.o[2])?, self.condition(scope, &form.o[3])?);
                integer(Op::Selp { d, a, b, p })
            }
            "lop3" => {
                form.need(5)?;
                form.knows(&[])?;
                let Operand::Integer(table) = form.o[4] else {
                    return Err("expected a constant truth table".into());
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
                let convert = Convert::parse(form.opcode).ok_or_else(|| form.unknown())?;
                form.need(if convert.is_packed() { 3 } else { 2 })?;
                let d = self.target(scope, &form.o[0])?;
                let a = self.source(scope, &form.o[1])?;
                let b = if convert.is_packed() { self.source(scope, &form.o[2])? } else { a };
                integer(Op::Convert { convert, d, a, b })
            }
            _ => {
                let (alu, class, flops) =
                    values::find(form.opcode).ok_or_else(|| form.unknown())?;
                form.need(1 + values::operands(form.opcode))?;
                let d = self.target(scope, &form.o[0])?;
                let is_integer = |o: &Operand| matches!(o, Operand::Integer(_));
                if form.base() != "slct"
                    && matches!(ty, "f32" | "f64")
                    && form.o.iter().any(is_integer)
                {
                    return Err(NOT_A_FLOAT.into());
                }
                // Unused source slots repeat the first operand.
                let mut s = [self.source(scope, &form.o[1])?; 3];
                for (s, operand) in s.iter_mut().zip(&form.o[1..]) {
                    *s = self.source(scope, operand)?;
                }
                Ok((Op::Alu { alu, d, s }, class, flops))
            }
        }
    }

    /// The predicate that a comparison's result is combined with, if any.
    fn combined_with(
        &mut self,
        form: &Form,
        logic: Option<Logic>,
        scope: &Scope,
    ) -> Decoded<Option<(Logic, Condition)>> {
        let Some(logic) = logic else { return Ok(None) };
        Ok(Some((logic, self.condition(scope, &form.o[3])?)))
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
        let d = self.target(scope, form.o.first().ok_or("expected a target")?)?;
        let mut s = [self.source(scope, form.o.get(1).ok_or("expected operands")?)?; 3];
        let n = if matches!(kind, Carried::Add | Carried::Sub) { 2 } else { 3 };
        for (s, o) in s.iter_mut().zip(&form.o[1..]) {
            *s = self.source(scope, o)?;
        }
        if form.o.len() != n + 1 {
            return Err(format!("expected {} operands", n + 1));
        }
        // The carry belongs to the thread, not to the function, so its name has no prefix.
        let carry = self.predicate_of("CC.CF".into());
        let takes = base.ends_with('c').then_some(carry);
        let op = Op::Carry { kind, ty, d, s, takes, leaves: leaves.then_some(carry) };
        Ok((op, Class::Integer, 0))
    }
}

const NOT_A_FLOAT: &str = "expected a floating-point constant, such as 1.0, found an integer";

/// Parses the parts of a comparison between its base and its types; `ty` is the operands' type.
fn comparison(form: &Form, words: &[&str], ty: &str) -> Decoded<(Compare, Option<Logic>)> {
    let (mut op, mut logic, mut ftz) = (None, None, false);
    for word in words {
        match *word {
            "and" => logic = Some(Logic::And),
            "or" => logic = Some(Logic::Or),
            "xor" => logic = Some(Logic::Xor),
            "ftz" => ftz = true,
            word if op.is_none() => op = Some(word),
            word => return Err(format!("unknown instruction `{}` with `.{word}`", form.opcode)),
        }
    }
    let compare =
        op.and_then(|op| values::comparison(op, ty, ftz)).ok_or_else(|| form.unknown())?;
    Ok((compare, logic))
}

/// Bits per element when `bits` bits are split into `n` parts.
fn part_bits(bits: u32, n: usize) -> Decoded<u32> {
    match n {
        2 | 4 | 8 if bits / n as u32 >= 8 => Ok(bits / n as u32),
        _ => Err(format!("cannot split {bits} bits into {n} parts")),
    }
}

/// The lowest bit of the clock that a clock register shows, or `None` for other registers. The
/// clock counts instructions issued by the block's warps, so it only increases.
fn clock(name: &str) -> Option<u32> {
    match name {
        "%clock" | "%clock64" | "%globaltimer" | "%globaltimer_lo" => Some(0),
        "%clock_hi" | "%globaltimer_hi" => Some(32),
        _ => None,
    }
}
