//! Finds or makes the register, predicate or constant that an operand names. Must not know instructions.

use super::form::Decoded;
use super::{Decoder, Scope};
use crate::program::inst::{Condition, Initial, Pred, Reg};
use crate::text::{Operand, Variable};

/// Maximum shared memory of an entry's variables, in bytes: more than any device has.
const MAX_SHARED_BYTES: u32 = 16 << 20;

impl Decoder<'_> {
    pub(super) fn register_named(&mut self, name: String) -> Reg {
        let next = self.code.n_registers as Reg;
        let reg = *self.registers.entry(name).or_insert(next);
        self.code.n_registers += usize::from(reg == next);
        reg
    }

    pub(super) fn constant(&mut self, initial: Initial) -> Reg {
        if let Some(reg) = self.constants.get(&initial) {
            return *reg;
        }
        let reg = self.code.n_registers as Reg;
        self.code.n_registers += 1;
        self.code.initial.push((reg, initial.clone()));
        self.constants.insert(initial, reg);
        reg
    }

    pub(super) fn value(&mut self, value: u64) -> Reg {
        self.constant(Initial::Value(value))
    }

    /// The offset of a shared variable; it is allocated for the entry when first mentioned.
    pub(super) fn shared_variable(
        &mut self,
        scope: &Scope,
        name: &str,
        offset: i64,
    ) -> Decoded<Option<Initial>> {
        let shared = |v: &&Variable| v.space == "shared";
        let own = scope.function.variable(name).filter(shared);
        let of_module = || self.text.variable(name).filter(shared);
        let Some(variable) = own.or_else(of_module) else { return Ok(None) };
        if variable.bytes == 0 {
            return Ok(Some(Initial::DynamicShared(offset)));
        }
        // Variables of two functions may have the same name.
        let key =
            if own.is_some() { format!("{}:{name}", scope.function.name) } else { name.into() };
        let at = match self.shared.get(&key) {
            Some(at) => *at,
            None => {
                let at = self.shared_bytes.next_multiple_of(variable.align.max(1));
                self.shared_bytes = at.saturating_add(variable.bytes);
                if self.shared_bytes > MAX_SHARED_BYTES {
                    return Err(format!(
                        "shared variables take more than {MAX_SHARED_BYTES} bytes"
                    ));
                }
                self.shared.insert(key, at);
                at
            }
        };
        Ok(Some(Initial::Value(u64::from(at).wrapping_add_signed(offset))))
    }

    /// The register that holds an operand's value.
    pub(super) fn source(&mut self, scope: &Scope, operand: &Operand) -> Decoded<Reg> {
        match operand {
            Operand::Register(name) => self.register(scope, name),
            Operand::Integer(value) => Ok(self.value(*value)),
            Operand::F32(bits) => Ok(self.value(u64::from(*bits))),
            Operand::F64(bits) => Ok(self.value(*bits)),
            Operand::Name(name) => self.variable(scope, name, 0),
            Operand::Sum(base, offset) => match &**base {
                Operand::Name(name) => self.variable(scope, name, *offset),
                _ => Err("a constant can only be added to the name of a variable".into()),
            },
            Operand::Not(_) => Err("expected a register; `!` applies only to predicates".into()),
            _ => Err("expected a register or a constant".into()),
        }
    }

    /// The register that holds a variable's address.
    pub(super) fn variable(&mut self, scope: &Scope, name: &str, offset: i64) -> Decoded<Reg> {
        if name == "WARP_SZ" {
            return Ok(self.value(32));
        }
        if let Some(initial) = self.shared_variable(scope, name, offset)? {
            return Ok(self.constant(initial));
        }
        let at = scope.local.get(name).or(self.params.get(name).filter(|_| scope.depth == 0));
        if let Some(at) = at {
            let at = u64::from(*at).wrapping_add_signed(offset);
            return Ok(self.value(at));
        }
        match self.text.variable(name) {
            None => Err(format!("`{name}` is not declared")),
            Some(variable) if variable.is_extern => {
                Err(format!("`{name}` is declared .extern, but not defined in this module"))
            }
            Some(_) => Ok(self.constant(Initial::Variable(name.into(), offset))),
        }
    }

    pub(super) fn register(&mut self, scope: &Scope, name: &str) -> Decoded<Reg> {
        if let Some(special) = special(name) {
            return Ok(self.constant(Initial::Special(special.into())));
        }
        match scope.function.registers.get(name).map(String::as_str) {
            None => Err(format!(
                "`{name}` is neither a declared register nor a supported special register"
            )),
            Some("pred") => Err(format!("expected a register, found the predicate `{name}`")),
            Some(_) => Ok(self.register_named(format!("{}{name}", scope.prefix))),
        }
    }

    pub(super) fn target(&mut self, scope: &Scope, operand: &Operand) -> Decoded<Reg> {
        match operand {
            Operand::Register(name) if special(name).is_none() => self.register(scope, name),
            // A sink: written and never read.
            Operand::Sink => Ok(self.register_named("_".into())),
            _ => Err("expected a register as the target".into()),
        }
    }

    pub(super) fn predicate_of(&mut self, name: String) -> Pred {
        let next = self.code.n_predicates as Pred;
        let pred = *self.predicates.entry(name).or_insert(next);
        self.code.n_predicates += usize::from(pred == next);
        pred
    }

    /// A predicate as a source: a register, its negation, or a constant.
    pub(super) fn condition(&mut self, scope: &Scope, operand: &Operand) -> Decoded<Condition> {
        match operand {
            Operand::Register(_) => Ok((self.predicate(scope, operand)?, false)),
            Operand::Not(inner) => {
                let (p, negated) = self.condition(scope, inner)?;
                Ok((p, !negated))
            }
            Operand::Integer(value) => {
                let always = self.predicate_of("true".into());
                self.code.always = Some(always);
                Ok((always, *value == 0))
            }
            _ => Err("expected a predicate".into()),
        }
    }

    /// A predicate as a target.
    pub(super) fn predicate(&mut self, scope: &Scope, operand: &Operand) -> Decoded<Pred> {
        match operand {
            Operand::Register(name)
                if scope.function.registers.get(name).is_some_and(|ty| ty == "pred") =>
            {
                Ok(self.predicate_of(format!("{}{name}", scope.prefix)))
            }
            // A sink: written and never read.
            Operand::Sink => Ok(self.predicate_of("_".into())),
            _ => Err("expected a predicate".into()),
        }
    }

    pub(super) fn address(&mut self, scope: &Scope, operand: &Operand) -> Decoded<(Reg, i64)> {
        match operand {
            Operand::Address(base, offset) => Ok((self.source(scope, base)?, *offset)),
            _ => Err("expected an address in brackets".into()),
        }
    }

    pub(super) fn sources(&mut self, scope: &Scope, operand: &Operand) -> Decoded<Vec<Reg>> {
        match operand {
            Operand::Vector(list) => list.iter().map(|o| self.source(scope, o)).collect(),
            single => Ok(vec![self.source(scope, single)?]),
        }
    }

    pub(super) fn targets(
        &mut self,
        scope: &Scope,
        operand: &Operand,
    ) -> Decoded<Vec<Option<Reg>>> {
        let one = |decoder: &mut Self, o: &Operand| match o {
            Operand::Sink => Ok(None),
            o => decoder.target(scope, o).map(Some),
        };
        match operand {
            Operand::Vector(list) => list.iter().map(|o| one(self, o)).collect(),
            single => Ok(vec![one(self, single)?]),
        }
    }

    pub(super) fn three(&mut self, scope: &Scope, o: &[Operand]) -> Decoded<[Reg; 3]> {
        Ok([self.source(scope, &o[0])?, self.source(scope, &o[1])?, self.source(scope, &o[2])?])
    }
}

/// The name, without `%`, of a special register whose value is fixed when the kernel starts.
fn special(name: &str) -> Option<&str> {
    const NAMES: [&str; 13] = [
        "laneid",
        "warpid",
        "nwarpid",
        "dynamic_smem_size",
        "total_smem_size",
        "smid",
        "nsmid",
        "gridid",
        "lanemask_eq",
        "lanemask_lt",
        "lanemask_le",
        "lanemask_gt",
        "lanemask_ge",
    ];
    let name = name.strip_prefix('%')?;
    let with_axis = name.split_once('.').is_some_and(|(base, axis)| {
        ["tid", "ntid", "ctaid", "nctaid"].contains(&base) && ["x", "y", "z"].contains(&axis)
    });
    (with_axis || NAMES.contains(&name)).then_some(name)
}

/// A register's name as in the text, without the prefix and suffix that make it unique.
pub(super) fn as_written(name: &str) -> &str {
    let own = name.rsplit(':').next().unwrap_or(name);
    own.split('#').next().unwrap_or(own)
}
