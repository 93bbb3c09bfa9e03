//! Calls, whose functions are put in the caller's place, and barriers. Knows their forms alone.

use super::{Decoded, Decoder, Failure, Form, MAX_DEPTH, Scope};
use crate::counters::Class;
use crate::inst::{BarrierKind, Op, Reg};
use crate::parse::{Instruction, Operand};

impl<'a> Decoder<'a> {
    pub(super) fn barrier(&mut self, form: &Form, scope: &Scope) -> Decoded<(Op, Class, u64)> {
        let o = form.o;
        let parts: Vec<_> =
            form.parts.iter().copied().filter(|part| !matches!(*part, "cta" | "aligned")).collect();
        let barrier = |op| Ok((op, Class::Barrier, 0));
        match parts.get(1).copied() {
            Some("warp") => {
                let mask = o.first().ok_or("a mask is expected")?;
                let mask = self.source(scope, mask)?;
                Ok((Op::WarpSync { mask }, Class::Warp, 0))
            }
            Some("sync") => {
                let id = o.first().ok_or("a barrier's number is expected")?;
                let id = self.source(scope, id)?;
                let count = o.get(1).map(|o| self.source(scope, o)).transpose()?;
                barrier(Op::Barrier {
                    kind: BarrierKind::Sync,
                    id,
                    count,
                    d: None,
                    dp: None,
                    p: None,
                })
            }
            Some("red") => {
                let kind = match parts.get(2).copied() {
                    Some("popc") => BarrierKind::Popc,
                    Some("and") => BarrierKind::And,
                    Some("or") => BarrierKind::Or,
                    _ => return Err(form.unknown()),
                };
                let ([d, id, .., p], 3 | 4) = (o, o.len()) else { return Err(form.unknown()) };
                let count = if o.len() == 4 { Some(self.source(scope, &o[2])?) } else { None };
                let id = self.source(scope, id)?;
                let p = Some(self.predicate(scope, p)?);
                let (d, dp) = if kind == BarrierKind::Popc {
                    (Some(self.target(scope, d)?), None)
                } else {
                    (None, Some(self.predicate(scope, d)?.0))
                };
                barrier(Op::Barrier { kind, id, count, d, dp, p })
            }
            _ => Err(form.unknown()),
        }
    }

    /// Whether an address names a `.param` variable of a call under way.
    pub(super) fn is_call_param(&self, scope: &Scope, operand: &Operand) -> bool {
        let Operand::Address(base, _) = operand else { return false };
        let Operand::Name(name) = &**base else { return false };
        let declared = scope.function.variables.iter();
        declared.chain(&scope.function.returns).any(|v| v.space == "param" && v.name == *name)
            || scope.depth > 0 && scope.function.params.iter().any(|v| v.name == *name)
    }

    /// The register that stands for a function's parameter or result.
    pub(super) fn call_param(&mut self, scope: &Scope, operand: &Operand) -> Decoded<Reg> {
        match operand {
            Operand::Address(base, offset) => match &**base {
                Operand::Name(name) => {
                    Ok(self.register_named(format!("{}{name}+{offset}", scope.prefix)))
                }
                _ => Err("the name of a parameter is expected".into()),
            },
            _ => Err("an address in brackets is expected".into()),
        }
    }

    /// Puts a function's body in the place of its call.
    pub(super) fn call(&mut self, from: &Instruction, scope: &Scope<'a>) -> Result<(), Failure> {
        let here = |reason: String| Failure::Here(reason);
        if from.guard.is_some() || scope.depth >= MAX_DEPTH {
            return Err(here("a call under a guard, or a recursive one, is not supported".into()));
        }
        let list = |o: &Operand| match o {
            Operand::List(list) => list.clone(),
            _ => Vec::new(),
        };
        let (returns, rest) = match from.operands.as_slice() {
            [Operand::List(returns), rest @ ..] => (returns.clone(), rest),
            rest => (Vec::new(), rest),
        };
        let Some(Operand::Name(name)) = rest.first() else {
            return Err(here("the name of a function is expected".into()));
        };
        let args = rest.get(1).map(list).unwrap_or_default();
        let text = self.text;
        let function = text.functions.iter().find(|f| f.name == *name && !f.is_entry);
        let function = function.ok_or_else(|| here(format!("function `{name}` has no body")))?;
        self.n_calls += 1;
        let prefix = format!("{name}@{}:", self.n_calls);
        let copy = |decoder: &mut Self, to: String, from_name: String| {
            let (d, a) = (decoder.register_named(to), decoder.register_named(from_name));
            decoder.emit(Op::Mov { d, a }, Class::Integer, 0, None, from);
        };
        for (param, arg) in function.params.iter().zip(&args) {
            let Operand::Name(arg) = arg else {
                return Err(here("a parameter is expected".into()));
            };
            for at in (0..param.bytes.max(1)).step_by(param.bytes.clamp(1, 8) as usize) {
                let to = format!("{prefix}{}+{at}", param.name);
                copy(self, to, format!("{}{arg}+{at}", scope.prefix));
            }
        }
        self.function(function, &prefix, scope.depth + 1).map_err(Failure::Inside)?;
        for (result, target) in function.returns.iter().zip(&returns) {
            let Operand::Name(target) = target else {
                return Err(here("a parameter is expected".into()));
            };
            let source = format!("{prefix}{}+0", result.name);
            copy(self, format!("{}{target}+0", scope.prefix), source);
        }
        Ok(())
    }
}
