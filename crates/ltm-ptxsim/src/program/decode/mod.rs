//! Decodes the text of an entry into executable instructions, inlining the functions that it calls.
//! Knows the form of every instruction; must not know what it does.

mod arithmetic;
mod call;
mod form;
mod lanes;
mod memory;
mod operand;

use std::collections::HashMap;

use form::{Decoded, Form};
use operand::as_written;

use super::Param;
use super::inst::{Code, Initial, Inst, Op, Pred, Reg, Strength};
use super::written;
use crate::report::Class;
use crate::text::{Function, Instruction, Operand, ParseError, Statement, Text};

/// Maximum depth of nested function calls.
const MAX_DEPTH: usize = 16;
/// Maximum instructions of an entry, including the functions it calls.
pub(crate) const MAX_INSTRUCTIONS: usize = 1 << 18;
/// Maximum instructions of all entries of a module.
pub(crate) const MAX_MODULE_INSTRUCTIONS: usize = 1 << 21;
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
    written::watch(&mut decoder.code, |value| {
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
