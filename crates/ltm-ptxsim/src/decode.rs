//! Names become numbers: one entry's text as instructions that can run, with the functions it calls
//! put in place. Knows every instruction's form, not what it does.

mod arithmetic;
mod call;
mod lanes;
mod memory;

use std::collections::HashMap;

use crate::counters::Class;
use crate::defined;
use crate::fault::ParseError;
use crate::inst::{Code, Initial, Inst, Op, Pred, Reg};
use crate::parse::{Function, Instruction, Operand, Statement, Text};
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
    let n_registers = decoder.code.n_registers as u32;
    defined::watch(&mut decoder.code, |value| {
        let mut names = decoder.registers.iter().map(|(name, reg)| (name, *reg));
        let mut predicates = decoder.predicates.iter().map(|(name, p)| (name, n_registers + p));
        let found =
            names.find(|(_, v)| *v == value).or_else(|| predicates.find(|(_, v)| *v == value));
        found.map_or_else(String::new, |(name, _)| as_written(name).to_owned())
    });
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

/// An instruction's words, taken apart at its dots, and its operands.
struct Form<'o> {
    opcode: &'o str,
    parts: Vec<&'o str>,
    o: &'o [Operand],
}

impl Form<'_> {
    fn base(&self) -> &str {
        self.parts[0]
    }

    /// The last word, which is the type where there is one.
    fn ty(&self) -> &str {
        self.parts.last().copied().unwrap_or_default()
    }

    fn has(&self, modifier: &str) -> bool {
        self.parts.contains(&modifier)
    }

    fn need(&self, operands: usize) -> Decoded<()> {
        if self.o.len() >= operands {
            Ok(())
        } else {
            Err(format!("{operands} operands are expected"))
        }
    }

    /// Refuses words between the base and the type that stand in none of these lists.
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
        match declared(scope, name) {
            None => {
                Err(format!("`{name}` is no register that was declared, nor a known special one"))
            }
            Some("pred") => Err(format!("`{name}` is a predicate, a register is expected")),
            Some(_) => Ok(self.register_named(format!("{}{name}", scope.prefix))),
        }
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
        self.predicate_of(format!("{}{name}", scope.prefix))
    }

    fn predicate_of(&mut self, name: String) -> Pred {
        let next = self.code.n_predicates as Pred;
        let pred = *self.predicates.entry(name).or_insert(next);
        self.code.n_predicates += usize::from(pred == next);
        pred
    }

    fn predicate(&mut self, scope: &Scope, operand: &Operand) -> Decoded<(Pred, bool)> {
        match operand {
            Operand::Register(name) | Operand::Not(name)
                if declared(scope, name) == Some("pred") =>
            {
                let negated = matches!(operand, Operand::Not(_));
                Ok((self.predicate_named(scope, name), negated))
            }
            _ => Err("a predicate is expected".into()),
        }
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
        let form = Form { opcode, parts, o: &from.operands };
        let (op, class, flops) = self.op(&form, scope)?;
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
            "membar" | "fence" => control(Op::Nop),
            "bar" | "barrier" => self.barrier(form, scope),
            "ld" | "ldu" | "st" | "atom" | "red" | "cp" | "ldmatrix" | "stmatrix" => {
                self.memory(form, scope)
            }
            "mma" | "shfl" | "vote" | "redux" | "activemask" => self.across_lanes(form, scope),
            _ => self.arithmetic(form, scope),
        }
    }

    fn three(&mut self, scope: &Scope, o: &[Operand]) -> Decoded<[Reg; 3]> {
        Ok([self.source(scope, &o[0])?, self.source(scope, &o[1])?, self.source(scope, &o[2])?])
    }
}

/// The type of a declared register, on its own or in a numbered family.
fn declared<'t>(scope: &Scope<'t>, name: &str) -> Option<&'t str> {
    let declared = &scope.function.registers;
    let family = name.trim_end_matches(|c: char| c.is_ascii_digit());
    declared.get(name).or_else(|| declared.get(family)).map(String::as_str)
}

/// A register's name without what tells it from others of that name.
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

/// Where shared memory stands in the generic space.
pub(crate) const SHARED_WINDOW: u64 = 0x7f00_0000_0000;
/// Where a thread's own memory stands in the generic space.
pub(crate) const LOCAL_WINDOW: u64 = 0x7e00_0000_0000;
