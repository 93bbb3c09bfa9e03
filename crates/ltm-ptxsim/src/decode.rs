//! Names become numbers: one entry's text as instructions that can run, with the functions it calls
//! put in place. Knows every instruction's form, not what it does.

mod call;

use std::collections::HashMap;

use crate::alu;
use crate::convert::Convert;
use crate::counters::Class;
use crate::fault::ParseError;
use crate::inst::{
    Access, Code, Initial, Inst, Logic, Op, Pred, Reg, Shuffle, Space, Update, VoteKind,
};
use crate::mma::Mma;
use crate::parse::{Function, Instruction, Operand, Statement, Text, type_bytes};
use crate::program::Param;

/// Functions called from functions, at most.
const MAX_DEPTH: usize = 16;

/// Decodes an entry; returns its code and the shared memory its variables take.
pub(crate) fn decode(
    text: &Text,
    entry: &Function,
    params: &[Param],
) -> Result<(Code, u32), ParseError> {
    let mut decoder = Decoder {
        text,
        code: Code::default(),
        registers: HashMap::new(),
        predicates: HashMap::new(),
        constants: HashMap::new(),
        params: entry.params.iter().zip(params).map(|(v, p)| (v.name.clone(), p.offset)).collect(),
        shared: HashMap::new(),
        shared_bytes: 0,
        labels: HashMap::new(),
        jumps: Vec::new(),
        n_calls: 0,
    };
    decoder.function(entry, "", 0)?;
    for (at, names, line) in std::mem::take(&mut decoder.jumps) {
        let mut targets = Vec::new();
        for name in names {
            let target = decoder.labels.get(&name).copied();
            let unknown =
                || ParseError { line, text: name.clone(), reason: "no such label".into() };
            targets.push(target.ok_or_else(unknown)?);
        }
        match &mut decoder.code.insts[at].op {
            Op::Bra { target } => *target = targets[0],
            Op::BrxIdx { targets: list, .. } => *list = targets,
            _ => {}
        }
    }
    Ok((decoder.code, decoder.shared_bytes))
}

struct Decoder<'a> {
    text: &'a Text,
    code: Code,
    registers: HashMap<String, Reg>,
    predicates: HashMap<String, Pred>,
    constants: HashMap<Initial, Reg>,
    params: HashMap<String, u32>,
    shared: HashMap<String, u32>,
    shared_bytes: u32,
    labels: HashMap<String, u32>,
    /// Branches, with the names of their targets and their lines.
    jumps: Vec<(usize, Vec<String>, u32)>,
    n_calls: usize,
}

/// The function at hand.
struct Scope<'a> {
    function: &'a Function,
    /// Put before every name, so that two calls of a function do not share registers.
    prefix: String,
    depth: usize,
    local: HashMap<String, u32>,
}

/// `Err` holds what is wrong, to be completed with the line.
type Decoded<T> = Result<T, String>;

impl<'a> Decoder<'a> {
    fn function(
        &mut self,
        function: &'a Function,
        prefix: &str,
        depth: usize,
    ) -> Result<(), ParseError> {
        let mut scope = Scope { function, prefix: prefix.into(), depth, local: HashMap::new() };
        for variable in function.variables.iter().filter(|v| v.space == "local") {
            let at = self.code.local_bytes.next_multiple_of(variable.align.max(1));
            scope.local.insert(variable.name.clone(), at);
            self.code.local_bytes = at + variable.bytes;
        }
        let mut last_label = None;
        let mut tables: HashMap<String, Vec<String>> = HashMap::new();
        for statement in &function.statements {
            match statement {
                Statement::Label(name) => last_label = Some(name.clone()),
                Statement::Targets(names) => {
                    let label = last_label.clone().unwrap_or_default();
                    let names = names.iter().map(|n| format!("{prefix}{n}")).collect();
                    tables.insert(format!("{prefix}{label}"), names);
                }
                Statement::Instruction(_) => {}
            }
        }
        for statement in &function.statements {
            match statement {
                Statement::Label(name) => {
                    self.labels.insert(format!("{prefix}{name}"), self.code.insts.len() as u32);
                }
                Statement::Targets(_) => {}
                Statement::Instruction(instruction) => {
                    let outcome = self.instruction(instruction, &scope, &tables);
                    outcome.map_err(|failure| match failure {
                        Failure::Here(reason) => ParseError {
                            line: instruction.line,
                            text: instruction.text.clone(),
                            reason,
                        },
                        Failure::Inside(error) => error,
                    })?;
                }
            }
        }
        self.labels.insert(format!("{prefix}.return"), self.code.insts.len() as u32);
        if depth == 0 {
            self.emit(
                Op::Exit,
                Class::Control,
                0,
                None,
                &Instruction {
                    guard: None,
                    opcode: "ret".into(),
                    operands: Vec::new(),
                    line: 0,
                    text: "the end of the kernel".into(),
                    source: None,
                },
            );
        }
        Ok(())
    }

    fn emit(
        &mut self,
        op: Op,
        class: Class,
        flops: u64,
        guard: Option<(Pred, bool)>,
        from: &Instruction,
    ) {
        let (line, text, source) = (from.line, from.text.clone(), from.source);
        self.code.insts.push(Inst { guard, op, class, flops, line, text, source });
    }

    fn register_named(&mut self, name: String) -> Reg {
        let next = self.code.n_registers as Reg;
        let reg = *self.registers.entry(name).or_insert(next);
        self.code.n_registers += usize::from(reg == next);
        reg
    }

    fn constant(&mut self, initial: Initial) -> Reg {
        if let Some(reg) = self.constants.get(&initial) {
            return *reg;
        }
        let reg = self.code.n_registers as Reg;
        self.code.n_registers += 1;
        self.code.initial.push((reg, initial.clone()));
        self.constants.insert(initial, reg);
        reg
    }

    fn value(&mut self, value: u64) -> Reg {
        self.constant(Initial::Value(value))
    }

    /// The offset of a shared variable, which counts towards the entry from its first mention.
    fn shared_variable(&mut self, scope: &Scope, name: &str) -> Option<Initial> {
        let all = scope.function.variables.iter().chain(&self.text.variables);
        let variable = all.filter(|v| v.space == "shared").find(|v| v.name == name)?;
        if variable.bytes == 0 {
            return Some(Initial::DynamicShared);
        }
        let at = match self.shared.get(name) {
            Some(at) => *at,
            None => {
                let at = self.shared_bytes.next_multiple_of(variable.align.max(1));
                self.shared_bytes = at + variable.bytes;
                self.shared.insert(name.into(), at);
                at
            }
        };
        Some(Initial::Value(u64::from(at)))
    }

    /// The register that holds an operand's value.
    fn source(&mut self, scope: &Scope, operand: &Operand) -> Decoded<Reg> {
        match operand {
            Operand::Register(name) => self.register(scope, name),
            Operand::Integer(value) => Ok(self.value(*value)),
            Operand::F32(bits) => Ok(self.value(u64::from(*bits))),
            Operand::F64(bits) => Ok(self.value(*bits)),
            Operand::Name(name) => {
                if name == "WARP_SZ" {
                    return Ok(self.value(32));
                }
                if let Some(initial) = self.shared_variable(scope, name) {
                    return Ok(self.constant(initial));
                }
                if let Some(at) = scope.local.get(name) {
                    let at = u64::from(*at);
                    return Ok(self.value(at));
                }
                if let Some(at) = self.params.get(name).filter(|_| scope.depth == 0) {
                    let at = u64::from(*at);
                    return Ok(self.value(at));
                }
                if self.text.variables.iter().any(|v| v.name == *name) {
                    return Ok(self.constant(Initial::Variable(name.clone(), 0)));
                }
                Err(format!("`{name}` is declared nowhere"))
            }
            _ => Err("an operand of another kind is expected".into()),
        }
    }

    fn register(&mut self, scope: &Scope, name: &str) -> Decoded<Reg> {
        const SPECIAL: [&str; 9] = [
            "%tid",
            "%ntid",
            "%ctaid",
            "%nctaid",
            "%laneid",
            "%warpid",
            "%nwarpid",
            "%dynamic_smem_size",
            "%lanemask",
        ];
        let family = name.split(['.', '_']).next().unwrap_or(name);
        if SPECIAL.contains(&name) || SPECIAL.contains(&family) || name == "%dynamic_smem_size" {
            return Ok(self.constant(Initial::Special(name[1..].into())));
        }
        let declared = &scope.function.registers;
        let family = name.trim_end_matches(|c: char| c.is_ascii_digit());
        if !declared.contains_key(name) && !declared.contains_key(family) {
            return Err(format!(
                "`{name}` is no register that was declared, nor a known special one"
            ));
        }
        Ok(self.register_named(format!("{}{name}", scope.prefix)))
    }

    fn target(&mut self, scope: &Scope, operand: &Operand) -> Decoded<Reg> {
        match operand {
            Operand::Register(name) => Ok(self.register_named(format!("{}{name}", scope.prefix))),
            // Written and never read.
            Operand::Sink => Ok(self.register_named("_".into())),
            _ => Err("a register is expected as the target".into()),
        }
    }

    fn predicate_named(&mut self, scope: &Scope, name: &str) -> Pred {
        let next = self.code.n_predicates as Pred;
        let name = format!("{}{name}", scope.prefix);
        let pred = *self.predicates.entry(name).or_insert(next);
        self.code.n_predicates += usize::from(pred == next);
        pred
    }

    fn predicate(&mut self, scope: &Scope, operand: &Operand) -> Decoded<(Pred, bool)> {
        match operand {
            Operand::Register(name) => Ok((self.predicate_named(scope, name), false)),
            Operand::Not(name) => Ok((self.predicate_named(scope, name), true)),
            _ => Err("a predicate is expected".into()),
        }
    }

    fn access(
        &mut self,
        scope: &Scope,
        parts: &[&str],
        address: &Operand,
    ) -> Decoded<(Access, usize)> {
        let mut space = Space::Generic;
        for part in parts {
            match part.split("::").next().unwrap_or(part) {
                "global" | "const" => space = Space::Global,
                "shared" => space = Space::Shared,
                "local" => space = Space::Local,
                "param" => space = Space::Param,
                _ => {}
            }
        }
        let ty = parts.last().copied().unwrap_or_default();
        let bytes = type_bytes(ty).filter(|b| *b <= 8).ok_or(format!("unknown type `{ty}`"))?;
        let count = parts.iter().find_map(|part| part.strip_prefix('v')?.parse().ok()).unwrap_or(1);
        let (address, offset) = self.address(scope, address)?;
        let signed = ty.starts_with('s');
        Ok((Access { space, bytes, signed, address, offset }, count))
    }

    fn address(&mut self, scope: &Scope, operand: &Operand) -> Decoded<(Reg, i64)> {
        match operand {
            Operand::Address(base, offset) => Ok((self.source(scope, base)?, *offset)),
            _ => Err("an address in brackets is expected".into()),
        }
    }

    fn sources(&mut self, scope: &Scope, operand: &Operand) -> Decoded<Vec<Reg>> {
        match operand {
            Operand::Vector(list) => list.iter().map(|o| self.source(scope, o)).collect(),
            single => Ok(vec![self.source(scope, single)?]),
        }
    }

    fn targets(&mut self, scope: &Scope, operand: &Operand) -> Decoded<Vec<Option<Reg>>> {
        let one = |decoder: &mut Self, o: &Operand| match o {
            Operand::Sink => Ok(None),
            o => decoder.target(scope, o).map(Some),
        };
        match operand {
            Operand::Vector(list) => list.iter().map(|o| one(self, o)).collect(),
            single => Ok(vec![one(self, single)?]),
        }
    }

    fn instruction(
        &mut self,
        from: &Instruction,
        scope: &Scope<'a>,
        tables: &HashMap<String, Vec<String>>,
    ) -> Result<(), Failure> {
        let guard = from
            .guard
            .as_ref()
            .map(|(name, negated)| (self.predicate_named(scope, name), *negated));
        let opcode = from.opcode.as_str();
        let parts: Vec<&str> = opcode.split('.').collect();
        match parts[0] {
            "call" => return self.call(from, scope),
            "ret" if scope.depth > 0 => {
                self.jumps.push((
                    self.code.insts.len(),
                    vec![format!("{}.return", scope.prefix)],
                    from.line,
                ));
                self.emit(Op::Bra { target: 0 }, Class::Control, 0, guard, from);
                return Ok(());
            }
            "bra" => {
                let Some(Operand::Name(label)) = from.operands.first() else {
                    return Err(Failure::Here("a label is expected".into()));
                };
                let label = format!("{}{label}", scope.prefix);
                self.jumps.push((self.code.insts.len(), vec![label], from.line));
                self.emit(Op::Bra { target: 0 }, Class::Control, 0, guard, from);
                return Ok(());
            }
            "brx" => {
                let [index, Operand::Name(label)] = from.operands.as_slice() else {
                    return Err(Failure::Here("an index and a list of labels are expected".into()));
                };
                let index = self.source(scope, index)?;
                let list = tables.get(&format!("{}{label}", scope.prefix));
                let list = list.ok_or_else(|| format!("`{label}` lists no targets"))?.clone();
                self.jumps.push((self.code.insts.len(), list, from.line));
                let op = Op::BrxIdx { index, targets: Vec::new() };
                self.emit(op, Class::Control, 0, guard, from);
                return Ok(());
            }
            _ => {}
        }
        let (op, class, flops) = self.op(opcode, &parts, &from.operands, scope)?;
        self.emit(op, class, flops, guard, from);
        Ok(())
    }

    fn op(
        &mut self,
        opcode: &str,
        parts: &[&str],
        o: &[Operand],
        scope: &Scope,
    ) -> Decoded<(Op, Class, u64)> {
        let ty = parts.last().copied().unwrap_or_default();
        let unknown = || format!("unknown instruction `{opcode}`");
        let need = |n: usize| {
            if o.len() >= n { Ok(()) } else { Err(format!("{n} operands are expected")) }
        };
        let control = |op| Ok((op, Class::Control, 0));
        let integer = |op| Ok((op, Class::Integer, 0));
        let has = |modifier: &str| parts.contains(&modifier);
        match parts[0] {
            "ret" | "exit" => control(Op::Exit),
            "trap" | "brkpt" => control(Op::Trap),
            "prefetch" | "prefetchu" | "nanosleep" | "applypriority" | "discard" => {
                control(Op::Nop)
            }
            "membar" | "fence" => control(Op::Nop),
            "cvta" => {
                need(2)?;
                // Windows of the generic space are told apart by their addresses.
                let (d, a) = (self.target(scope, &o[0])?, self.source(scope, &o[1])?);
                let base = match () {
                    () if has("shared") || has("shared::cta") => SHARED_WINDOW,
                    () if has("local") => LOCAL_WINDOW,
                    () => 0,
                };
                let (alu, sign) = if has("to") { ("sub.u64", base) } else { ("add.u64", base) };
                let (alu, ..) = alu::find(alu).ok_or_else(unknown)?;
                let base = self.value(sign);
                integer(Op::Alu { alu, d, s: [a, base, a] })
            }
            "mov" if ty == "pred" => {
                need(2)?;
                let (d, _) = self.predicate(scope, &o[0])?;
                match &o[1] {
                    Operand::Integer(value) => control(Op::SetPred { d, value: *value != 0 }),
                    other => {
                        let (a, _) = self.predicate(scope, other)?;
                        control(Op::Logic { logic: Logic::Mov, d, a, b: a })
                    }
                }
            }
            "mov" => {
                need(2)?;
                let bits = 8 * type_bytes(ty).ok_or_else(unknown)?;
                match (&o[0], &o[1]) {
                    (Operand::Vector(list), _) => {
                        let bits = bits / list.len() as u32;
                        let a = self.source(scope, &o[1])?;
                        integer(Op::Unpack { parts: self.targets(scope, &o[0])?, a, bits })
                    }
                    (_, Operand::Vector(list)) => {
                        let bits = bits / list.len() as u32;
                        let parts = self.sources(scope, &o[1])?;
                        integer(Op::Pack { d: self.target(scope, &o[0])?, parts, bits })
                    }
                    _ => {
                        let a = self.source(scope, &o[1])?;
                        integer(Op::Mov { d: self.target(scope, &o[0])?, a })
                    }
                }
            }
            "and" | "or" | "xor" | "not" if ty == "pred" => {
                need(if parts[0] == "not" { 2 } else { 3 })?;
                let logic = match parts[0] {
                    "and" => Logic::And,
                    "or" => Logic::Or,
                    "xor" => Logic::Xor,
                    _ => Logic::Not,
                };
                let (d, _) = self.predicate(scope, &o[0])?;
                let (a, _) = self.predicate(scope, &o[1])?;
                let b = match o.get(2) {
                    Some(o) => self.predicate(scope, o)?.0,
                    None => a,
                };
                control(Op::Logic { logic, d, a, b })
            }
            "setp" => {
                need(3)?;
                let compare = alu::comparison(parts[1], ty).ok_or_else(unknown)?;
                let logic = match () {
                    () if has("and") => Some(Logic::And),
                    () if has("or") => Some(Logic::Or),
                    () if has("xor") => Some(Logic::Xor),
                    () => None,
                };
                let (d, d2) = match &o[0] {
                    Operand::Pair(d, d2) => {
                        let second = match &**d2 {
                            Operand::Sink => None,
                            d2 => Some(self.predicate(scope, d2)?.0),
                        };
                        (self.predicate(scope, d)?.0, second)
                    }
                    d => (self.predicate(scope, d)?.0, None),
                };
                let (a, b) = (self.source(scope, &o[1])?, self.source(scope, &o[2])?);
                let with = match (logic, o.get(3)) {
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
                need(4)?;
                let (d, a) = (self.target(scope, &o[0])?, self.source(scope, &o[1])?);
                let (b, (p, _)) = (self.source(scope, &o[2])?, self.predicate(scope, &o[3])?);
                integer(Op::Selp { d, a, b, p })
            }
            "lop3" => {
                need(5)?;
                let Operand::Integer(table) = o[4] else {
                    return Err("a table is expected".into());
                };
                let d = self.target(scope, &o[0])?;
                let s = self.three(scope, &o[1..4])?;
                integer(Op::Lop3 { table: table as u8, d, s })
            }
            "bfi" => {
                need(5)?;
                let bits = 8 * type_bytes(ty).ok_or_else(unknown)?;
                let d = self.target(scope, &o[0])?;
                let [a, b, c] = self.three(scope, &o[1..4])?;
                let len = self.source(scope, &o[4])?;
                integer(Op::Bfi { bits, d, s: [a, b, c, len] })
            }
            "shf" => {
                need(4)?;
                let d = self.target(scope, &o[0])?;
                let s = self.three(scope, &o[1..4])?;
                integer(Op::Shf { left: has("l"), wrap: has("wrap"), d, s })
            }
            "cvt" => {
                need(2)?;
                let convert = Convert::parse(opcode).ok_or_else(unknown)?;
                let d = self.target(scope, &o[0])?;
                let a = self.source(scope, &o[1])?;
                let b = if convert.is_packed() {
                    need(3)?;
                    self.source(scope, &o[2])?
                } else {
                    a
                };
                integer(Op::Convert { convert, d, a, b })
            }
            "bar" | "barrier" => self.barrier(parts, o, scope, &unknown),
            "ld" | "ldu" => {
                need(2)?;
                let param = has("param");
                if param && scope.depth > 0 || self.is_call_param(scope, &o[1]) {
                    let a = self.call_param(scope, &o[1])?;
                    return integer(Op::Mov { d: self.target(scope, &o[0])?, a });
                }
                let (access, count) = self.access(scope, parts, &o[1])?;
                let d = self.targets(scope, &o[0])?;
                if d.len() != count {
                    return Err(format!("{count} targets are expected"));
                }
                Ok((Op::Load { access, d }, class_of(access.space), 0))
            }
            "st" => {
                need(2)?;
                if has("param") {
                    let a = self.source(scope, &o[1])?;
                    let d = self.call_param(scope, &o[0])?;
                    return integer(Op::Mov { d, a });
                }
                let (access, count) = self.access(scope, parts, &o[0])?;
                let s = self.sources(scope, &o[1])?;
                if s.len() != count {
                    return Err(format!("{count} values are expected"));
                }
                Ok((Op::Store { access, s }, class_of(access.space), 0))
            }
            "atom" | "red" => {
                let returns = usize::from(parts[0] == "atom");
                need(2 + returns)?;
                let (access, _) = self.access(scope, parts, &o[returns])?;
                let update = match () {
                    () if has("add") && ty == "f32" => Update::AddF32,
                    () if has("add") && ty == "f64" => Update::AddF64,
                    () if has("add") && ty.starts_with(['u', 's']) => Update::Add,
                    () if has("min") && ty.starts_with('s') => Update::MinS,
                    () if has("max") && ty.starts_with('s') => Update::MaxS,
                    () if has("min") => Update::MinU,
                    () if has("max") => Update::MaxU,
                    () if has("and") => Update::And,
                    () if has("or") => Update::Or,
                    () if has("xor") => Update::Xor,
                    () if has("exch") => Update::Exchange,
                    () if has("cas") => Update::CompareExchange,
                    () => return Err(unknown()),
                };
                let d = if returns == 1 { Some(self.target(scope, &o[0])?) } else { None };
                let a = self.source(scope, &o[1 + returns])?;
                let b = o.get(2 + returns).map(|o| self.source(scope, o)).transpose()?;
                Ok((Op::Atomic { access, update, d, a, b }, class_of(access.space), 0))
            }
            "cp" if parts.get(1) == Some(&"async") => {
                let asynchronous = |op| Ok((op, Class::AsyncCopy, 0));
                match parts.get(2).copied() {
                    Some("commit_group") => asynchronous(Op::CopyCommit),
                    Some("wait_all") => asynchronous(Op::CopyWait { pending: None }),
                    Some("wait_group") => match o.first() {
                        Some(Operand::Integer(n)) => {
                            asynchronous(Op::CopyWait { pending: Some(*n as u32) })
                        }
                        _ => Err("a number of groups is expected".into()),
                    },
                    Some("ca" | "cg") => {
                        need(3)?;
                        let (to, to_offset) = self.address(scope, &o[0])?;
                        let (from, from_offset) = self.address(scope, &o[1])?;
                        let Operand::Integer(bytes) = o[2] else {
                            return Err("a number of bytes is expected".into());
                        };
                        let valid = o.get(3).map(|o| self.source(scope, o)).transpose()?;
                        let bytes = bytes as u32;
                        asynchronous(Op::CopyAsync {
                            to,
                            to_offset,
                            from,
                            from_offset,
                            bytes,
                            valid,
                        })
                    }
                    _ => Err(unknown()),
                }
            }
            "ldmatrix" | "stmatrix" if has("b16") && has("m8n8") => {
                need(2)?;
                let load = parts[0] == "ldmatrix";
                let (address, offset) = self.address(scope, &o[usize::from(load)])?;
                let transposed = has("trans");
                let op = if load {
                    let d = self.targets(scope, &o[0])?.into_iter().flatten().collect();
                    Op::LoadMatrix { d, transposed, address, offset }
                } else {
                    Op::StoreMatrix { s: self.sources(scope, &o[1])?, transposed, address, offset }
                };
                Ok((op, Class::Shared, 0))
            }
            "mma" => {
                need(4)?;
                let mma = Mma::parse(opcode).ok_or_else(unknown)?;
                let d: Vec<Reg> = self.targets(scope, &o[0])?.into_iter().flatten().collect();
                let d = d.try_into().map_err(|_| "four targets are expected")?;
                let (a, b) = (self.sources(scope, &o[1])?, self.sources(scope, &o[2])?);
                if (a.len(), b.len()) != mma.registers() {
                    return Err(format!(
                        "fragments of {:?} registers are expected",
                        mma.registers()
                    ));
                }
                let c = self.sources(scope, &o[3])?;
                let c = c.try_into().map_err(|_| "four sums are expected")?;
                // Counted a lane, as other operations are.
                Ok((Op::Mma { mma, d, a, b, c }, Class::Mma, mma.flops() / 32))
            }
            "shfl" => {
                need(5)?;
                let kind = match parts.get(2).copied() {
                    Some("up") => Shuffle::Up,
                    Some("down") => Shuffle::Down,
                    Some("bfly") => Shuffle::Butterfly,
                    Some("idx") => Shuffle::Index,
                    _ => return Err(unknown()),
                };
                let (d, p) = match &o[0] {
                    Operand::Pair(d, p) => {
                        (self.target(scope, d)?, Some(self.predicate(scope, p)?.0))
                    }
                    d => (self.target(scope, d)?, None),
                };
                let [a, lane, clamp] = self.three(scope, &o[1..4])?;
                let mask = self.source(scope, &o[4])?;
                Ok((Op::Shuffle { kind, d, p, a, lane, clamp, mask }, Class::Warp, 0))
            }
            "vote" => {
                need(3)?;
                let kind = match parts.get(2).copied() {
                    Some("all") => VoteKind::All,
                    Some("any") => VoteKind::Any,
                    Some("uni") => VoteKind::Uniform,
                    Some("ballot") => VoteKind::Ballot,
                    _ => return Err(unknown()),
                };
                let ballot = kind == VoteKind::Ballot;
                let dp = if ballot { None } else { Some(self.predicate(scope, &o[0])?.0) };
                let d = self.target(scope, if ballot { &o[0] } else { &Operand::Sink })?;
                let p = self.predicate(scope, &o[1])?;
                let mask = self.source(scope, &o[2])?;
                Ok((Op::Vote { kind, d, dp, p, mask }, Class::Warp, 0))
            }
            "redux" => {
                need(3)?;
                let alu = format!("{}.{ty}", parts.get(2).copied().unwrap_or_default());
                let (alu, ..) = alu::find(&alu).ok_or_else(unknown)?;
                let [d, a, mask] = [
                    self.target(scope, &o[0])?,
                    self.source(scope, &o[1])?,
                    self.source(scope, &o[2])?,
                ];
                Ok((Op::Reduce { alu, d, a, mask }, Class::Warp, 0))
            }
            "activemask" => {
                need(1)?;
                Ok((Op::ActiveMask { d: self.target(scope, &o[0])? }, Class::Warp, 0))
            }
            _ => {
                let (alu, class, flops) = alu::find(opcode).ok_or_else(unknown)?;
                need(2)?;
                let d = self.target(scope, &o[0])?;
                let mut s = [0; 3];
                for (s, operand) in s.iter_mut().zip(&o[1..]) {
                    *s = self.source(scope, operand)?;
                }
                Ok((Op::Alu { alu, d, s }, class, flops))
            }
        }
    }

    fn three(&mut self, scope: &Scope, o: &[Operand]) -> Decoded<[Reg; 3]> {
        Ok([self.source(scope, &o[0])?, self.source(scope, &o[1])?, self.source(scope, &o[2])?])
    }
}

/// Why an instruction was not decoded.
enum Failure {
    Here(String),
    Inside(ParseError),
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self::Here(reason)
    }
}

/// Where shared memory stands in the generic space.
pub(crate) const SHARED_WINDOW: u64 = 0x7f00_0000_0000;
/// Where a thread's own memory stands in the generic space.
pub(crate) const LOCAL_WINDOW: u64 = 0x7e00_0000_0000;

fn class_of(space: Space) -> Class {
    match space {
        Space::Generic | Space::Global => Class::Global,
        Space::Shared => Class::Shared,
        Space::Local => Class::Local,
        Space::Param => Class::Integer,
    }
}
