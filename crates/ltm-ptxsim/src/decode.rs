//! Decodes the text of an entry into executable instructions, inlining the functions that it calls.
//! Knows the form of every instruction; must not know what it does.

mod arithmetic;
mod call;
mod lanes;
mod memory;

use std::collections::HashMap;

use crate::counters::Class;
use crate::defined;
use crate::fault::ParseError;
use crate::inst::{Code, Condition, Initial, Inst, Op, Pred, Reg, Strength};
use crate::parse::{Function, Instruction, Operand, Statement, Text, Variable};
use crate::program::Param;

/// Maximum depth of nested function calls.
const MAX_DEPTH: usize = 16;
/// Maximum instructions of an entry, including the functions it calls.
pub(crate) const MAX_INSTRUCTIONS: usize = 1 << 18;
/// Maximum instructions of all entries of a module.
pub(crate) const MAX_MODULE_INSTRUCTIONS: usize = 1 << 21;
/// Maximum shared memory of an entry's variables, in bytes: more than any device has.
const MAX_SHARED_BYTES: u32 = 16 << 20;
/// Maximum local memory per thread, in bytes.
const MAX_LOCAL_BYTES: u32 = 512 << 10;

/// Decodes an entry into at most `budget` instructions; returns its code and the bytes of shared
/// memory that its variables take.
pub(crate) fn decode(
    text: &Text,
    entry: &Function,
    params: &[Param],
    budget: usize,
) -> Result<(Code, u32), ParseError> {
    let mut decoder = Decoder {
        text,
        budget,
        extra: Vec::new(),
        call_sites: Vec::new(),
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
    let n_registers = decoder.code.n_registers as u32;
    let names: HashMap<u32, &str> = decoder
        .registers
        .iter()
        .map(|(name, reg)| (*reg, name.as_str()))
        .chain(decoder.predicates.iter().map(|(name, p)| (n_registers + p, name.as_str())))
        .collect();
    defined::watch(&mut decoder.code, |value| {
        names.get(&value).map_or_else(String::new, |name| as_written(name).to_owned())
    });
    Ok((decoder.code, decoder.shared_bytes))
}

struct Decoder<'a> {
    text: &'a Text,
    budget: usize,
    /// Instructions to emit before the current one.
    extra: Vec<Op>,
    /// Source lines of the calls being inlined, innermost first.
    call_sites: Vec<(u32, u32)>,
    code: Code,
    registers: HashMap<String, Reg>,
    predicates: HashMap<String, Pred>,
    constants: HashMap<Initial, Reg>,
    params: HashMap<String, u32>,
    shared: HashMap<String, u32>,
    shared_bytes: u32,
    labels: HashMap<String, u32>,
    /// Branches: instruction index, names of the targets, source line.
    jumps: Vec<(usize, Vec<String>, u32)>,
    n_calls: usize,
}

/// The function being decoded.
struct Scope<'a> {
    function: &'a Function,
    /// Prefix of every name, so that two calls of a function do not share registers.
    prefix: String,
    depth: usize,
    local: HashMap<String, u32>,
}

/// An instruction: its opcode split at the dots, and its operands.
struct Form<'o> {
    opcode: &'o str,
    parts: Vec<&'o str>,
    o: &'o [Operand],
}

impl Form<'_> {
    fn base(&self) -> &str {
        self.parts[0]
    }

    /// The last part of the opcode: the type, if there is one.
    fn ty(&self) -> &str {
        self.parts.last().copied().unwrap_or_default()
    }

    fn has(&self, modifier: &str) -> bool {
        self.parts.contains(&modifier)
    }

    fn need(&self, operands: usize) -> Decoded<()> {
        self.need_between(operands, operands)
    }

    fn need_between(&self, least: usize, most: usize) -> Decoded<()> {
        match self.o.len() {
            n if n < least || n > most => Err(format!("expected {least} operands, found {n}")),
            _ => Ok(()),
        }
    }

    /// Fails if a part between the base and the type is in none of these lists of words.
    fn knows(&self, lists: &[&str]) -> Decoded<()> {
        let mut between = self.parts.iter().skip(1).take(self.parts.len().saturating_sub(2));
        let known = |part: &str| lists.iter().any(|list| list.split(' ').any(|word| word == part));
        match between.find(|part| !known(part)) {
            None => Ok(()),
            Some(part) => Err(format!("unknown instruction `{}` with `.{part}`", self.opcode)),
        }
    }

    fn unknown(&self) -> String {
        format!("unknown instruction `{}`", self.opcode)
    }
}

/// `Err` is the reason; the caller adds the line.
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
            self.code.local_bytes = at.saturating_add(variable.bytes);
            if self.code.local_bytes > MAX_LOCAL_BYTES {
                return Err(ParseError {
                    line: 0,
                    text: variable.name.clone(),
                    reason: format!("local memory of a thread is over {MAX_LOCAL_BYTES} bytes"),
                });
            }
        }
        let mut tables: HashMap<String, Vec<String>> = HashMap::new();
        for statement in &function.statements {
            if let Statement::Targets(label, names) = statement {
                let names = names.iter().map(|n| format!("{prefix}{n}")).collect();
                tables.insert(format!("{prefix}{label}"), names);
            }
        }
        for statement in &function.statements {
            match statement {
                Statement::Label(name) => {
                    self.labels.insert(format!("{prefix}{name}"), self.code.insts.len() as u32);
                }
                Statement::Targets(..) => {}
                Statement::Instruction(instruction) => {
                    if self.code.insts.len() >= self.budget {
                        return Err(ParseError {
                            line: instruction.line,
                            text: instruction.text.to_string(),
                            reason: format!(
                                "more than {MAX_INSTRUCTIONS} instructions, including those of \
                                 called functions"
                            ),
                        });
                    }
                    let outcome = self.instruction(instruction, &scope, &tables);
                    outcome.map_err(|failure| match failure {
                        Failure::Here(reason) => ParseError {
                            line: instruction.line,
                            text: instruction.text.to_string(),
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
                    line: function.statements.iter().rev().find_map(Statement::line).unwrap_or(0),
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
        let (line, text) = (from.line, from.text.clone());
        let source = match (&from.source, self.call_sites.as_slice()) {
            (source, []) => source.clone(),
            // An instruction of an inlined function keeps its own line and the lines of its
            // callers.
            (source, calls) => {
                let inner = source.as_deref().unwrap_or_default();
                Some(inner.iter().chain(calls).copied().collect())
            }
        };
        let watch = None;
        self.code.insts.push(Inst { guard, op, watch, class, flops, line, text, source });
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

    /// The offset of a shared variable; it is allocated for the entry when first mentioned.
    fn shared_variable(
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
    fn source(&mut self, scope: &Scope, operand: &Operand) -> Decoded<Reg> {
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
    fn variable(&mut self, scope: &Scope, name: &str, offset: i64) -> Decoded<Reg> {
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

    fn register(&mut self, scope: &Scope, name: &str) -> Decoded<Reg> {
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

    fn target(&mut self, scope: &Scope, operand: &Operand) -> Decoded<Reg> {
        match operand {
            Operand::Register(name) if special(name).is_none() => self.register(scope, name),
            // A sink: written and never read.
            Operand::Sink => Ok(self.register_named("_".into())),
            _ => Err("expected a register as the target".into()),
        }
    }

    fn predicate_of(&mut self, name: String) -> Pred {
        let next = self.code.n_predicates as Pred;
        let pred = *self.predicates.entry(name).or_insert(next);
        self.code.n_predicates += usize::from(pred == next);
        pred
    }

    /// A predicate as a source: a register, its negation, or a constant.
    fn condition(&mut self, scope: &Scope, operand: &Operand) -> Decoded<Condition> {
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
    fn predicate(&mut self, scope: &Scope, operand: &Operand) -> Decoded<Pred> {
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

    fn address(&mut self, scope: &Scope, operand: &Operand) -> Decoded<(Reg, i64)> {
        match operand {
            Operand::Address(base, offset) => Ok((self.source(scope, base)?, *offset)),
            _ => Err("expected an address in brackets".into()),
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
        let guard =
            from.guard.as_ref().map(|operand| self.condition(scope, operand)).transpose()?;
        let opcode = from.opcode.as_str();
        let parts: Vec<&str> = opcode.split('.').collect();
        match parts[0] {
            "call" => return self.call(from, scope, guard),
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
                let [Operand::Name(label)] = from.operands.as_slice() else {
                    return Err(Failure::Here("expected a label".into()));
                };
                let label = format!("{}{label}", scope.prefix);
                self.jumps.push((self.code.insts.len(), vec![label], from.line));
                self.emit(Op::Bra { target: 0 }, Class::Control, 0, guard, from);
                return Ok(());
            }
            "brx" => {
                let [index, Operand::Name(label)] = from.operands.as_slice() else {
                    return Err(Failure::Here("expected an index and a list of labels".into()));
                };
                let index = self.source(scope, index)?;
                let list = tables.get(&format!("{}{label}", scope.prefix));
                let list = list
                    .ok_or_else(|| format!("`{label}` is not a list of branch targets"))?
                    .clone();
                self.jumps.push((self.code.insts.len(), list, from.line));
                let op = Op::BrxIdx { index, targets: Vec::new() };
                self.emit(op, Class::Control, 0, guard, from);
                return Ok(());
            }
            _ => {}
        }
        let form = Form { opcode, parts, o: &from.operands };
        let (op, class, flops) = self.op(&form, scope)?;
        self.code.orders_blocks |= match &op {
            Op::Fence => true,
            Op::Load { access, .. } | Op::Store { access, .. } => access.strength != Strength::Weak,
            Op::Atomic { access, .. } => access.strength == Strength::Release,
            _ => false,
        };
        for op in std::mem::take(&mut self.extra) {
            self.emit(op, class, 0, guard, from);
        }
        self.emit(op, class, flops, guard, from);
        Ok(())
    }

    fn op(&mut self, form: &Form, scope: &Scope) -> Decoded<(Op, Class, u64)> {
        let control = |op| Ok((op, Class::Control, 0));
        match form.base() {
            "ret" | "exit" => control(Op::Exit),
            "trap" | "brkpt" => control(Op::Trap),
            "prefetch" | "prefetchu" | "nanosleep" | "applypriority" | "discard" => {
                control(Op::Nop)
            }
            "griddepcontrol" | "pmevent" => control(Op::Nop),
            // Fences within a block have no effect: a block's accesses are executed in order.
            "membar" | "fence" if form.has("cta") || form.has("proxy") => control(Op::Nop),
            "fence" if form.has("mbarrier_init") => control(Op::Nop),
            "membar" | "fence" => {
                form.need(0)?;
                form.knows(&["acq_rel sc gpu sys gl cluster"])?;
                control(Op::Fence)
            }
            "bar" | "barrier" => self.barrier(form, scope),
            "ld" | "ldu" | "st" | "atom" | "red" | "cp" | "ldmatrix" | "stmatrix" => {
                self.memory(form, scope)
            }
            "mma" | "shfl" | "vote" | "match" | "redux" | "activemask" => {
                self.across_lanes(form, scope)
            }
            _ => self.arithmetic(form, scope),
        }
    }

    fn three(&mut self, scope: &Scope, o: &[Operand]) -> Decoded<[Reg; 3]> {
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
fn as_written(name: &str) -> &str {
    let own = name.rsplit(':').next().unwrap_or(name);
    own.split('#').next().unwrap_or(own)
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

/// Base address of shared memory in the generic address space.
pub(crate) const SHARED_WINDOW: u64 = 0x7f00_0000_0000;
/// Base address of local memory in the generic address space.
pub(crate) const LOCAL_WINDOW: u64 = 0x7e00_0000_0000;
