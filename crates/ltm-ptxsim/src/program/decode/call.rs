//! Decodes calls, by inlining the callee, and barriers. Knows only their form.

use super::form::{Decoded, Form};
use super::{Decoder, Failure, MAX_DEPTH, Scope};
use crate::program::inst::{BarrierKind, Builtin, Condition, Op, Reg};
use crate::report::Class;
use crate::text::{Function, Instruction, Operand, Variable, type_bytes};
use crate::values::Convert;

impl<'a> Decoder<'a> {
    pub(super) fn barrier(&mut self, form: &Form, scope: &Scope) -> Decoded<(Op, Class, u64)> {
        let o = form.o;
        let parts: Vec<_> =
            form.parts.iter().copied().filter(|part| !matches!(*part, "cta" | "aligned")).collect();
        let barrier = |op| Ok((op, Class::Barrier, 0));
        match parts.get(1).copied() {
            Some("warp") => {
                let mask = o.first().ok_or("expected a member mask")?;
                let mask = self.source(scope, mask)?;
                Ok((Op::WarpSync { mask }, Class::Warp, 0))
            }
            Some("sync") => {
                let id = o.first().ok_or("expected the number of a barrier")?;
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
                let p = Some(self.condition(scope, p)?);
                let (d, dp) = if kind == BarrierKind::Popc {
                    (Some(self.target(scope, d)?), None)
                } else {
                    (None, Some(self.predicate(scope, d)?))
                };
                barrier(Op::Barrier { kind, id, count, d, dp, p })
            }
            _ => Err(form.unknown()),
        }
    }

    /// Whether an address names a `.param` variable of a call.
    pub(super) fn is_call_param(&self, scope: &Scope, operand: &Operand) -> bool {
        param_of(scope, operand).is_some()
    }

    /// `ld.param` of a function's parameter or of a call's result.
    pub(super) fn load_param(&mut self, form: &Form, scope: &Scope) -> Decoded<(Op, Class, u64)> {
        let bytes = type_bytes(form.ty()).ok_or_else(|| form.unknown())?;
        let d = self.targets(scope, &form.o[0])?;
        let (name, offset) =
            param_of(scope, &form.o[1]).ok_or("expected the name of a parameter")?;
        let (last, before) = d.split_last().ok_or("expected a target")?;
        let ty = form.ty();
        let mut op = None;
        for (i, d) in before.iter().chain([last]).enumerate() {
            if let Some(op) = op.take() {
                self.extra.push(op);
            }
            let d = match d {
                Some(d) => *d,
                None => self.register_named("_".into()),
            };
            let pieces = self.pieces(scope, name, offset + i as u32 * bytes, bytes)?;
            let bits = 8 * bytes / pieces.len() as u32;
            // `Pack` also truncates a single piece to its size, since its register may be wider.
            let whole = Op::Pack { d, parts: pieces, bits };
            op = Some(match Convert::parse(&format!("cvt.s64.{ty}")) {
                Some(convert) if ty.starts_with('s') && bytes < 8 => {
                    self.extra.push(whole);
                    Op::Convert { convert, d, a: d, b: d }
                }
                _ => whole,
            });
        }
        Ok((op.ok_or("expected a target")?, Class::Integer, 0))
    }

    /// `st.param` of a call's parameter or of a function's result.
    pub(super) fn store_param(&mut self, form: &Form, scope: &Scope) -> Decoded<(Op, Class, u64)> {
        let bytes = type_bytes(form.ty()).ok_or_else(|| form.unknown())?;
        let s = self.sources(scope, &form.o[1])?;
        let (name, offset) =
            param_of(scope, &form.o[0]).ok_or("expected the name of a parameter")?;
        let mut op = None;
        for (i, a) in s.into_iter().enumerate() {
            if let Some(op) = op.take() {
                self.extra.push(op);
            }
            let pieces = self.pieces(scope, name, offset + i as u32 * bytes, bytes)?;
            let bits = 8 * bytes / pieces.len() as u32;
            op = Some(Op::Unpack { parts: pieces.into_iter().map(Some).collect(), a, bits });
        }
        Ok((op.ok_or("expected a value")?, Class::Integer, 0))
    }

    /// The registers that hold `bytes` bytes of a parameter at offset `at`, in pieces as small as
    /// the function's smallest access to it.
    fn pieces(&mut self, scope: &Scope, name: &str, at: u32, bytes: u32) -> Decoded<Vec<Reg>> {
        let piece = granule(scope.function, name);
        if !bytes.is_multiple_of(piece) {
            return Err(format!(
                "unsupported access to {bytes} bytes at offset {at} of parameter `{name}`"
            ));
        }
        let prefix = &scope.prefix;
        let names = (0..bytes / piece).map(|i| format!("{prefix}{name}+{}", at + i * piece));
        let names: Vec<_> = names.collect();
        Ok(names.into_iter().map(|name| self.register_named(name)).collect())
    }

    /// Inlines a function in place of its call.
    pub(super) fn call(
        &mut self,
        from: &Instruction,
        scope: &Scope<'a>,
        guard: Option<Condition>,
    ) -> Result<(), Failure> {
        let list = |o: &Operand| match o {
            Operand::List(list) => list.clone(),
            _ => Vec::new(),
        };
        let (returns, rest) = match from.operands.as_slice() {
            [Operand::List(returns), rest @ ..] => (returns.clone(), rest),
            rest => (Vec::new(), rest),
        };
        let Some(Operand::Name(name)) = rest.first() else {
            return Err(Failure::Here("calls through a register are not supported".into()));
        };
        let args = rest.get(1).map(list).unwrap_or_default();
        self.n_calls += 1;
        // Lanes that do not make the call branch around it.
        let after = format!("{}.after{}", scope.prefix, self.n_calls);
        if let Some((p, negated)) = guard {
            self.jumps.push((self.code.insts.len(), vec![after.clone()], from.line));
            self.emit(Op::Bra { target: 0 }, Class::Control, 0, Some((p, !negated)), from);
        }
        match self.text.function(name) {
            Some(function) => self.inline(function, name, &args, &returns, from, scope)?,
            None => self.builtin(name, &args, &returns, from, scope)?,
        }
        if guard.is_some() {
            self.labels.insert(after, self.code.insts.len() as u32);
        }
        Ok(())
    }

    fn inline(
        &mut self,
        function: &'a Function,
        name: &str,
        args: &[Operand],
        returns: &[Operand],
        from: &Instruction,
        scope: &Scope<'a>,
    ) -> Result<(), Failure> {
        if scope.depth >= MAX_DEPTH {
            let reason =
                format!("calls nested more than {MAX_DEPTH} deep, or recursive, are not supported");
            return Err(Failure::Here(reason));
        }
        if args.len() != function.params.len() || returns.len() != function.returns.len() {
            return Err(Failure::Here(format!(
                "`{name}` takes {} arguments and returns {} values",
                function.params.len(),
                function.returns.len()
            )));
        }
        let prefix = format!("{name}@{}:", self.n_calls);
        let callee = Scope {
            function,
            prefix: prefix.clone(),
            depth: scope.depth + 1,
            local: Default::default(),
        };
        for (param, arg) in function.params.iter().zip(args) {
            self.pass((scope, arg), (&callee, &param.name), param.bytes, from)?;
        }
        let outer = from.source.as_deref().unwrap_or_default();
        let n_outer = outer.len();
        self.call_sites.splice(0..0, outer.iter().copied());
        self.function(function, &prefix, scope.depth + 1).map_err(Failure::Inside)?;
        self.call_sites.drain(..n_outer);
        for (result, target) in function.returns.iter().zip(returns) {
            match target {
                Operand::Sink => {}
                target => {
                    let source = operand_of(&callee, &result.name);
                    self.hand_back((&callee, &source), (scope, target), result.bytes, from)?;
                }
            }
        }
        Ok(())
    }

    /// Copies an argument into a function's parameter.
    fn pass(
        &mut self,
        (scope, arg): (&Scope, &Operand),
        (callee, param): (&Scope, &str),
        bytes: u32,
        from: &Instruction,
    ) -> Decoded<()> {
        let target = operand_of(callee, param);
        self.hand_back((scope, arg), (callee, &target), bytes, from)
    }

    /// Copies a value between two functions, from and to registers or `.param` variables.
    fn hand_back(
        &mut self,
        (from_scope, source): (&Scope, &Operand),
        (to_scope, target): (&Scope, &Operand),
        bytes: u32,
        from: &Instruction,
    ) -> Decoded<()> {
        let param = |scope: &Scope, operand: &Operand| match operand {
            Operand::Name(name) if is_param(scope, name) => Some(name.clone()),
            _ => None,
        };
        let (source_param, target_param) = (param(from_scope, source), param(to_scope, target));
        let grain = |scope: &Scope, name: &Option<String>| {
            name.as_ref().map_or(8, |name| granule(scope.function, name))
        };
        let (own, other) = (grain(from_scope, &source_param), grain(to_scope, &target_param));
        let step = own.max(other).min(bytes.max(1)).max(1);
        let mut at = 0;
        while at < bytes {
            let step = step.min(bytes - at);
            let whole = self.register_named("_argument".into());
            let a = match &source_param {
                Some(name) => {
                    let parts = self.pieces(from_scope, name, at, step)?;
                    let bits = 8 * step / parts.len() as u32;
                    let op = Op::Pack { d: whole, parts, bits };
                    self.emit(op, Class::Integer, 0, None, from);
                    whole
                }
                None => self.source(from_scope, source)?,
            };
            let op = match &target_param {
                Some(name) => {
                    let parts = self.pieces(to_scope, name, at, step)?;
                    let bits = 8 * step / parts.len() as u32;
                    Op::Unpack { parts: parts.into_iter().map(Some).collect(), a, bits }
                }
                None => Op::Mov { d: self.target(to_scope, target)?, a },
            };
            self.emit(op, Class::Integer, 0, None, from);
            at += step;
        }
        Ok(())
    }

    /// Calls to functions that the CUDA runtime provides.
    fn builtin(
        &mut self,
        name: &str,
        args: &[Operand],
        returns: &[Operand],
        from: &Instruction,
        scope: &Scope<'a>,
    ) -> Result<(), Failure> {
        let (builtin, sizes): (_, &[u32]) = match name {
            "vprintf" => (Builtin::Print, &[8, 8]),
            "__assertfail" => (Builtin::AssertFail, &[8, 8, 4, 8, 8]),
            _ => return Err(Failure::Here(format!("function `{name}` has no body"))),
        };
        if args.len() != sizes.len() {
            let reason = format!("`{name}` takes {} arguments, found {}", sizes.len(), args.len());
            return Err(Failure::Here(reason));
        }
        let mut registers = Vec::new();
        for (i, (arg, bytes)) in args.iter().zip(sizes).enumerate() {
            let d = self.register_named(format!("{name}.{i}"));
            let op = match arg {
                Operand::Name(param) if is_param(scope, param) => {
                    let parts = self.pieces(scope, param, 0, *bytes)?;
                    let bits = 8 * bytes / parts.len() as u32;
                    Op::Pack { d, parts, bits }
                }
                arg => Op::Mov { d, a: self.source(scope, arg)? },
            };
            self.emit(op, Class::Integer, 0, None, from);
            registers.push(d);
        }
        let result = self.register_named(format!("{name}.result"));
        let op = Op::Builtin { builtin, d: Some(result), args: registers };
        self.emit(op, Class::Control, 0, None, from);
        let target = returns.first().filter(|_| builtin == Builtin::Print);
        let op = match target {
            Some(Operand::Name(param)) if is_param(scope, param) => {
                let parts = self.pieces(scope, param, 0, 4)?;
                let bits = 32 / parts.len() as u32;
                Op::Unpack { parts: parts.into_iter().map(Some).collect(), a: result, bits }
            }
            None | Some(Operand::Sink) => return Ok(()),
            Some(target) => Op::Mov { d: self.target(scope, target)?, a: result },
        };
        self.emit(op, Class::Integer, 0, None, from);
        Ok(())
    }
}

/// Whether a name is a `.param` variable that is kept in registers: all except an entry's
/// parameters.
fn is_param(scope: &Scope, name: &str) -> bool {
    let function = scope.function;
    let of_list = |list: &[Variable]| list.iter().any(|v| v.space == "param" && v.name == name);
    function.variable(name).is_some_and(|v| v.space == "param")
        || scope.depth > 0 && (of_list(&function.params) || of_list(&function.returns))
}

/// The parameter that an address names, and the byte offset within it.
fn param_of<'o>(scope: &Scope, operand: &'o Operand) -> Option<(&'o str, u32)> {
    let Operand::Address(base, offset) = operand else { return None };
    let name = base.as_name().filter(|name| is_param(scope, name))?;
    Some((name, u32::try_from(*offset).ok()?))
}

/// The operand for a parameter or result of a function, which may be a register.
fn operand_of(scope: &Scope, name: &str) -> Operand {
    if is_param(scope, name) {
        Operand::Name(name.to_owned())
    } else {
        Operand::Register(name.to_owned())
    }
}

/// The largest power of 2 that divides the parameter's size and the size and offset of every access
/// to it in its function.
fn granule(function: &Function, name: &str) -> u32 {
    let mut lists = function.params.iter().chain(&function.returns);
    let variable = function.variable(name).or_else(|| lists.find(|v| v.name == name));
    let bytes = variable.map_or(8, |variable| variable.bytes.max(1));
    let divisor = 1 << bytes.trailing_zeros().min(3);
    function.granules.get(name).copied().unwrap_or(8).min(divisor)
}
